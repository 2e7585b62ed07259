package route

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/wire"
)

// Handler answers one operation on one pattern. In is a struct filled from
// path, query and body (None takes nothing). Out says how the answer looks:
//
//   - a struct, map or wire type is the envelope's data;
//   - a pointer is that, or nothing (204) when nil;
//   - None answers 204, or 200 with the envelope when there are warnings;
//   - Raw or *Raw is an answer without an envelope;
//   - *Whole fills the envelope's other parts too.
//
// "Not there" is an error, errs.NotFound or errs.Gone.
type Handler[In, Out any] func(ctx context.Context, req *Request, in In) (Out, error)

// Class says what core does around a call of the handler.
type Class uint8

// The classes.
const (
	Plain     Class = iota
	Issuing         // the result is a lease to commit, then make
	LoggingIn       // the result is an Auth, for which core makes a token
)

// Keys is the answer of a LIST.
type Keys struct {
	Keys []string `json:"keys"`
}

// ListOf makes the answer of a LIST. Listing nothing is errs.Gone, as clients
// expect.
func ListOf(keys []string) (Keys, error) {
	if len(keys) == 0 {
		return Keys{}, errs.Gone
	}
	return Keys{keys}, nil
}

// Result is a handler's answer without its type. Exactly one of Data, Raw,
// Whole, Auth and Plan is set, or none of them: there is nothing to say.
type Result struct {
	Data  wire.Data
	Raw   *Raw
	Whole *Whole
	Auth  *Auth
	Plan  *lease.Plan
}

// Endpoint is one operation on one pattern.
type Endpoint struct {
	Op      wire.Op // OpUpdate also serves OpCreate
	Pattern string
	Class   Class
	Doc     string
	Unauth  bool // needs no token
	Sudo    bool // needs the sudo capability
	Sealed  bool // works while the server is sealed or not initialised
	Hidden  bool // left out of help and OpenAPI
	// RootOnly is the server's and not a namespace's: it answers in the root.
	RootOnly bool
	Form     Form
	Status   int      // of success; 0: 200 or 204
	Headers  []string // request headers that it takes, whatever the mount passes through

	In, Out reflect.Type // nil: none

	exists func(ctx context.Context, req *Request) (bool, error)
	octets func(ctx context.Context, req *Request) (Result, error)
	inJSON func(body []byte) (name, text string) // of octets: see Octets
	logIn  func(ctx context.Context, req *Request, may Permit) (*Auth, string, error)
	alias  any                                                     // of LockedBy, a func(In) string; nil: nobody is locked out here
	role   func(ctx context.Context, req *Request) (string, error) // see RoleOf
	call   func(ctx context.Context, req *Request) (Result, error)
	audit  func(dst, body []byte, hash wire.Hasher) []byte

	secrets []string // fields whose type is a secret

	known func(name string) string // see Folds; nil: names are what they say
}

// Form is how the data of an answer stand in its body.
type Form uint8

// The forms.
const (
	Enveloped Form = iota // under "data"
	TopLevel              // under "data" and at the top level too, as most of sys has it
	Bare                  // alone, without an envelope, as sys/health has it
)

// HasExists reports whether an update of this endpoint may be a creation.
func (e *Endpoint) HasExists() bool { return e.exists != nil }

// Exists says whether the thing that an update names is there. Without an
// Exists function everything is.
func (e *Endpoint) Exists(ctx context.Context, req *Request) (bool, error) {
	if e.exists == nil {
		return true, nil
	}
	return e.exists(ctx, req)
}

// Call decodes the request and runs the handler. It fills what the endpoint
// knows of the reply.
func (e *Endpoint) Call(ctx context.Context, req *Request) (Result, error) {
	if req.reply.Status == 0 {
		req.reply.Status = e.Status
	}
	if req.Octets != nil {
		return e.octets(ctx, req)
	}
	return e.call(ctx, req)
}

// TakesOctets reports whether the endpoint takes a body of bytes.
func (e *Endpoint) TakesOctets() bool { return e != nil && e.octets != nil }

// InJSON is the field that a body of bytes stands for, for those who judge
// fields.
func (e *Endpoint) InJSON(body []byte) (name string, v wire.Value) {
	name, text := e.inJSON(body)
	return name, wire.Append(nil, text)
}

// LogIn is Call for an endpoint that was declared with Login, asking may before
// it acts. alias is the one that was tried and that may be locked out: "" where
// there is none, or where may refused it.
func (e *Endpoint) LogIn(ctx context.Context, req *Request, may Permit) (auth *Auth, alias string, err error) {
	if req.reply.Status == 0 {
		req.reply.Status = e.Status
	}
	return e.logIn(ctx, req, may)
}

// Known is the path of a request with the name in it as the engine knows it, and
// where in the path the name begins. Not ok: a name is what it says.
func (e *Endpoint) Known(req *Request) (path string, from int, ok bool) {
	if e == nil || e.known == nil || req.params.n == 0 {
		return "", 0, false
	}
	from = strings.IndexByte(e.Pattern, '{')
	name := req.params.kv[0].Value
	to := e.known(name)
	if to == name || to == "" { // nothing is there by a name that cannot be one
		return req.Path, from, true
	}
	return req.Path[:from] + to + req.Path[from+len(name):], from, true
}

// AppendHashedBody appends the request's body for the audit log. Fields whose
// type is a secret are named as such to hash.
func (e *Endpoint) AppendHashedBody(dst, body []byte, hash wire.Hasher) []byte {
	if e == nil || e.audit == nil {
		return wire.AppendHashedBody(dst, body, hash)
	}
	return e.audit(dst, body, hash)
}

// Secret reports whether the type of a field that the endpoint takes is a
// secret.
func (e *Endpoint) Secret(field string) bool { return e != nil && slices.Contains(e.secrets, field) }

// Option changes an endpoint as it is declared.
type Option func(*Endpoint)

// Doc is a sentence for help and OpenAPI.
func Doc(s string) Option { return func(e *Endpoint) { e.Doc = s } }

// Unauth lets the endpoint be called without a token.
func Unauth() Option { return func(e *Endpoint) { e.Unauth = true } }

// Sudo asks for the sudo capability beside the operation's.
func Sudo() Option { return func(e *Endpoint) { e.Sudo = true } }

// WhileSealed lets the endpoint be called whatever state the server is in. It
// implies Unauth.
func WhileSealed() Option {
	return func(e *Endpoint) { e.Sealed, e.Unauth = true, true }
}

// InForm changes how the data stand in the answer's body.
func InForm(f Form) Option { return func(e *Endpoint) { e.Form = f } }

// Status changes the status of success.
func Status(code int) Option { return func(e *Endpoint) { e.Status = code } }

// Hidden leaves the endpoint out of help and OpenAPI.
func Hidden() Option { return func(e *Endpoint) { e.Hidden = true } }

// Takes lets the handler see request headers that the mount does not pass
// through, in canonical form: a standard wants them where it has them.
func Takes(headers ...string) Option { return func(e *Endpoint) { e.Headers = headers } }

// Folds says that the engine takes the name that is the first parameter of the
// path in several spellings, and knows it by one, which known gives: in small
// letters, whatever else it does to it. What policies say about any spelling
// then holds for all; see Known. Endpoints without a name are as they were.
func Folds(known func(name string) string) Option {
	return func(e *Endpoint) { e.known = known }
}

// RootOnly keeps the endpoint out of every namespace but the root.
func RootOnly() Option { return func(e *Endpoint) { e.RootOnly = true } }

// Exists tells an update from a creation: policies grant them separately. fn
// gets the request as the handler will.
func Exists[In any](fn func(ctx context.Context, req *Request, in In) (bool, error)) Option {
	decode := decoderOf[In]()
	return func(e *Endpoint) {
		e.exists = func(ctx context.Context, req *Request) (bool, error) {
			in, _, err := decode(req)
			if err != nil {
				return false, err
			}
			return fn(ctx, req, in)
		}
	}
}

// Octets lets a write take a body of bytes too (application/octet-stream), and
// answer it with bytes. The other fields of In come from the query then. inJSON
// says which field the body stands for and what it holds there in JSON: what a
// policy says of that field holds for the body.
func Octets[In any](inJSON func(body []byte) (name, text string), h func(ctx context.Context, req *Request, in In, body []byte) ([]byte, error)) Option {
	d := wire.NewDecoder[In]()
	return func(e *Endpoint) {
		e.inJSON = inJSON
		e.octets = func(ctx context.Context, req *Request) (Result, error) {
			var in In
			warnings, err := d.Decode(&in, wire.Source{Params: req.params.list(), Query: req.Query})
			if err != nil {
				return Result{}, err
			}
			if len(warnings) > 0 {
				return Result{}, errs.New(errs.Invalid, "%s", warnings[0]) // an answer of bytes has no place for them
			}
			out, err := h(ctx, req, in, req.Octets)
			return Result{Raw: &Raw{Status: http.StatusOK, ContentType: "application/octet-stream", Body: out}}, err
		}
	}
}

// Read declares a GET.
func Read[In, Out any](t *Table, pattern string, h Handler[In, Out], opts ...Option) {
	declare(t, wire.OpRead, pattern, h, opts)
}

// List declares a LIST, which is a GET with ?list=true too.
func List[In, Out any](t *Table, pattern string, h Handler[In, Out], opts ...Option) {
	declare(t, wire.OpList, pattern, h, opts)
}

// Write declares a POST, which is a PUT too.
func Write[In, Out any](t *Table, pattern string, h Handler[In, Out], opts ...Option) {
	declare(t, wire.OpUpdate, pattern, h, opts)
}

// Patch declares a PATCH of a JSON merge patch.
func Patch[In, Out any](t *Table, pattern string, h Handler[In, Out], opts ...Option) {
	declare(t, wire.OpPatch, pattern, h, opts)
}

// Delete declares a DELETE.
func Delete[In, Out any](t *Table, pattern string, h Handler[In, Out], opts ...Option) {
	declare(t, wire.OpDelete, pattern, h, opts)
}

// Issue declares an operation that makes a leased credential. h only plans:
// core commits the lease, then runs the grant's Make.
func Issue[In, R, Out any](t *Table, op wire.Op, pattern string, kind *lease.Kind[R], h Handler[In, lease.Grant[R, Out]], opts ...Option) {
	decode := decoderOf[In]()
	e := newEndpoint[In](op, pattern, Issuing)
	e.Out = reflect.TypeFor[Out]()
	e.call = func(ctx context.Context, req *Request) (Result, error) {
		in, warnings, err := decode(req)
		if err != nil {
			return Result{}, err
		}
		req.reply.Warnings = append(req.reply.Warnings, warnings...)
		grant, err := h(ctx, req, in)
		if err != nil {
			return Result{}, err
		}
		plan, err := lease.Erase(kind, grant)
		return Result{Plan: plan}, err
	}
	t.add(e, opts)
}

// ErrCredentials stands in the chain of a login's error when what was sent to
// prove who the caller is was wrong. Core counts these, and no other errors,
// towards locking the alias out.
var ErrCredentials = errors.New("wrong credentials")

// Permit is asked before a login acts whether the alias may be tried at all.
type Permit func(ctx context.Context, alias string) error

// LockedBy names, from what a Login endpoint was sent, the alias that is being
// tried; too many wrong credentials lock it out. It is the same text that
// Auth.Alias has after a success, whether there is such an alias or not: that
// must not show. "" tries nobody.
func LockedBy[In any](alias func(in In) string) Option {
	return func(e *Endpoint) { e.alias = alias }
}

// Login declares an operation that proves who the caller is. It needs no
// token; core makes one of what h grants.
func Login[In any](t *Table, pattern string, h Handler[In, *Auth], opts ...Option) {
	login(t, wire.OpUpdate, pattern, h, opts)
}

// LoginByRead is Login by a GET, for what a browser's redirect brings.
func LoginByRead[In any](t *Table, pattern string, h Handler[In, *Auth], opts ...Option) {
	login(t, wire.OpRead, pattern, h, opts)
}

func login[In any](t *Table, op wire.Op, pattern string, h Handler[In, *Auth], opts []Option) {
	decode := decoderOf[In]()
	e := newEndpoint[In](op, pattern, LoggingIn)
	e.Unauth = true
	t.add(e, opts)
	var aliasOf func(In) string
	if e.alias != nil {
		aliasOf = e.alias.(func(In) string)
	}
	e.logIn = func(ctx context.Context, req *Request, may Permit) (auth *Auth, alias string, err error) {
		in, warnings, err := decode(req)
		if err != nil {
			return nil, "", err
		}
		req.reply.Warnings = append(req.reply.Warnings, warnings...)
		if aliasOf != nil {
			alias = aliasOf(in)
		}
		if alias != "" && may != nil {
			if err := may(ctx, alias); err != nil {
				return nil, "", err
			}
		}
		auth, err = h(ctx, req, in)
		return auth, alias, err
	}
	e.call = func(ctx context.Context, req *Request) (Result, error) {
		auth, _, err := e.logIn(ctx, req, nil)
		return Result{Auth: auth}, err
	}
}

func declare[In, Out any](t *Table, op wire.Op, pattern string, h Handler[In, Out], opts []Option) {
	decode, result := decoderOf[In](), resultOf[Out]()
	e := newEndpoint[In](op, pattern, Plain)
	if out := reflect.TypeFor[Out](); out != reflect.TypeFor[None]() {
		e.Out = out
	}
	e.call = func(ctx context.Context, req *Request) (Result, error) {
		in, warnings, err := decode(req)
		if err != nil {
			return Result{}, err
		}
		if warnings != nil {
			req.reply.Warnings = append(req.reply.Warnings, warnings...)
		}
		out, err := h(ctx, req, in)
		switch {
		case err != nil:
			return Result{}, err
		case req.reply.Raw != nil:
			return Result{Raw: req.reply.Raw}, nil
		}
		return result(out), nil
	}
	t.add(e, opts)
}

func newEndpoint[In any](op wire.Op, pattern string, class Class) *Endpoint {
	e := &Endpoint{Op: op, Pattern: pattern, Class: class}
	e.audit = wire.NewDecoder[In]().AppendHashedBody
	if in := reflect.TypeFor[In](); in != reflect.TypeFor[None]() {
		e.In = in
		for _, f := range wire.FieldsOf(in) {
			if f.Secret {
				e.secrets = append(e.secrets, f.Name)
			}
		}
	}
	return e
}

// decoderOf compiles how an In is filled.
func decoderOf[In any]() func(req *Request) (In, []string, error) {
	d := wire.NewDecoder[In]()
	// Handlers get their In by value: what it is decoded into is used again.
	rooms := sync.Pool{New: func() any { return new(In) }}
	return func(req *Request) (In, []string, error) {
		room := rooms.Get().(*In)
		src := wire.Source{Params: req.params.list(), Checked: true}
		switch req.Op {
		case wire.OpRead, wire.OpList:
			src.Query = req.Query
		case wire.OpDelete:
			src.Query, src.Body = req.Query, req.Body
		default:
			src.Body = req.Body
		}
		warnings, err := d.Decode(room, src)
		in := *room
		*room = *new(In) // it may have held secrets
		rooms.Put(room)
		return in, warnings, err
	}
}

// resultOf compiles what an Out means.
func resultOf[Out any]() func(Out) Result {
	switch t := reflect.TypeFor[Out](); {
	case t == reflect.TypeFor[None]():
		return func(Out) Result { return Result{} }
	case t == reflect.TypeFor[Raw]():
		return func(out Out) Result { r := any(out).(Raw); return Result{Raw: &r} }
	case t == reflect.TypeFor[*Raw]():
		return func(out Out) Result { return Result{Raw: any(out).(*Raw)} }
	case t == reflect.TypeFor[*Whole]():
		return func(out Out) Result { return Result{Whole: any(out).(*Whole)} }
	case t.Kind() == reflect.Interface:
		return func(out Out) Result { return Result{Data: wire.OfAny(any(out))} }
	case t.Kind() == reflect.Pointer:
		var none Out
		return func(out Out) Result {
			if any(out) == any(none) {
				return Result{}
			}
			return Result{Data: wire.Of(out)}
		}
	}
	return func(out Out) Result { return Result{Data: wire.Of(out)} }
}

// SuccessStatus is the status of an answer with or without a body, unless the
// handler said another.
func SuccessStatus(asked int, body bool) int {
	switch {
	case asked != 0:
		return asked
	case body:
		return http.StatusOK
	}
	return http.StatusNoContent
}
