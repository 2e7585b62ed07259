package wire

import (
	"bytes"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"unsafe"

	"github.com/leasehold/leasehold/internal/errs"
)

// Param is a parameter taken from the path.
type Param struct{ Name, Value string }

// Source is where a request's fields come from: the query, then the body, and
// over both the path.
type Source struct {
	Params []Param
	Query  url.Values // nil where the operation reads none
	Body   []byte     // one JSON object, or nothing
	// Checked says that Body was found to be JSON before, as the listener
	// does with every body: it is not looked through again.
	Checked bool
}

// Decoder fills structs of one type from requests. It is made when an endpoint
// is registered and safe for concurrent use.
type Decoder[T any] struct{ plan *plan }

// NewDecoder compiles the decoder of a struct type. It panics on a type that
// cannot be filled: that is a mistake in our code, met at start.
//
// Each field has a json tag. A field of type Object tagged `body:"all"` takes
// the whole body; `doc:"…"` is what help and OpenAPI say of it.
func NewDecoder[T any]() *Decoder[T] {
	p := planOf(reflect.TypeFor[T]())
	if p.typ.Kind() != reflect.Struct {
		panic("wire: " + p.typ.String() + " is not a struct")
	}
	return &Decoder[T]{p}
}

// Decode fills *into. What was ignored comes back as warnings; a field that
// cannot be read is an errs.Invalid that names it. If *T has a method
// Validate() error it is called last.
func (d *Decoder[T]) Decode(into *T, src Source) (warnings []string, err error) {
	r := reader{plan: d.plan, base: unsafe.Pointer(into), src: src}
	if err := r.read(); err != nil {
		return nil, err
	}
	if v, ok := any(into).(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return nil, asInvalid(err)
		}
	}
	return r.warnings(), nil
}

// asInvalid makes an error without a kind the caller's.
func asInvalid(err error) error {
	if errs.KindOf(err) != errs.Internal {
		return err
	}
	return errs.New(errs.Invalid, "%v", err)
}

type reader struct {
	plan     *plan
	base     unsafe.Pointer
	src      Source
	unknown  []string
	replaced []string // by the path's
}

func (r *reader) read() error {
	for name, values := range r.src.Query {
		if err := r.query(name, values); err != nil {
			return err
		}
	}
	if err := r.body(); err != nil {
		return err
	}
	for _, param := range r.src.Params {
		f := r.plan.findName(param.Name)
		if f == nil {
			continue
		}
		if f.plan.text == nil {
			return invalidField(f.name, fmt.Errorf("cannot stand in a path"))
		}
		if err := f.plan.text(unsafe.Add(r.base, f.offset), param.Value); err != nil {
			return invalidField(f.name, err)
		}
	}
	return nil
}

func invalidField(name string, err error) error {
	return errs.New(errs.Invalid, "error converting input for field %q: %v", name, err)
}

// mine finds the field that a name of the query or the body fills, and notes
// the names that fill none.
func (r *reader) mine(f *field, name func() string) bool {
	switch {
	case f == nil:
		r.unknown = append(r.unknown, name())
	case r.inPath(f.name):
		r.replaced = append(r.replaced, f.name)
	default:
		return true
	}
	return false
}

func (r *reader) inPath(name string) bool {
	for _, p := range r.src.Params {
		if p.Name == name {
			return true
		}
	}
	return false
}

func (r *reader) query(name string, values []string) error {
	f := r.plan.findName(name)
	if !r.mine(f, func() string { return name }) {
		return nil
	}
	q := unsafe.Add(r.base, f.offset)
	var err error
	switch {
	case len(values) == 1 && f.plan.text != nil:
		err = f.plan.text(q, values[0])
	case len(values) == 1:
		err = f.plan.json(q, Quote(values[0]))
	default:
		list := Value{'['}
		for i, v := range values {
			if i > 0 {
				list = append(list, ',')
			}
			list = AppendString(list, v)
		}
		err = f.plan.json(q, append(list, ']'))
	}
	if err != nil {
		return invalidField(name, err)
	}
	return nil
}

func (r *reader) body() error {
	b := r.src.Body
	if skipSpace(b, 0) == len(b) {
		return nil
	}
	whole := Value(bytes.TrimSpace(b))
	if !r.src.Checked {
		var err error
		if whole, err = only(b); err != nil {
			return errs.New(errs.Invalid, "failed to decode JSON input: %v", err)
		}
	}
	switch whole.Kind() {
	case Null:
		return nil
	case Obj:
	default:
		return errs.New(errs.Invalid, "failed to decode JSON input: expected an object, got %s", whole.Kind())
	}
	if r.plan.all >= 0 {
		f := &r.plan.fields[r.plan.all]
		if err := f.plan.json(unsafe.Add(r.base, f.offset), whole); err != nil {
			return err
		}
	}
	for it := (members{b: whole, i: 1, valid: true}); it.next(); {
		f := r.plan.find(it.key)
		if f == nil && r.plan.all >= 0 {
			continue
		}
		if !r.mine(f, func() string { return unquote(it.key) }) {
			continue
		}
		if err := f.plan.decodeInto(unsafe.Add(r.base, f.offset), it.val); err != nil {
			return invalidField(f.name, err)
		}
	}
	return nil
}

func (r *reader) warnings() []string {
	var out []string
	if len(r.unknown) > 0 {
		out = append(out, "Endpoint ignored these unrecognized parameters: "+listNames(r.unknown))
	}
	if len(r.replaced) > 0 {
		out = append(out, "Endpoint replaced the value of these parameters with the values captured from the endpoint's path: "+listNames(r.replaced))
	}
	return out
}

// listNames writes names once each, in order, and not without end.
func listNames(names []string) string {
	slices.Sort(names)
	names = slices.Compact(names)
	const most = 32
	more := ""
	if len(names) > most {
		names, more = names[:most], " …"
	}
	for i := range names {
		names[i] = clip(names[i])
	}
	return "[" + strings.Join(names, " ") + more + "]"
}

// AppendHashedBody appends a request body for the audit log: every string is
// handed to hash, and those of fields with a secret type are named as such.
func (d *Decoder[T]) AppendHashedBody(dst, body []byte, hash Hasher) []byte {
	return appendHashedBody(dst, body, hash, d.plan)
}

// AppendHashedBody is for a body whose endpoint is unknown: no field is known
// to be a secret.
func AppendHashedBody(dst, body []byte, hash Hasher) []byte {
	return appendHashedBody(dst, body, hash, nil)
}

func appendHashedBody(dst, body []byte, hash Hasher, p *plan) []byte {
	v, err := only(body)
	if err != nil {
		return append(dst, "null"...)
	}
	return (&hashing{hash: hash, fields: p}).value(dst, v)
}

// FieldInfo describes a field for help and OpenAPI.
type FieldInfo struct {
	Name   string
	Doc    string
	Type   string // OpenAPI's type; "" is any
	Items  string // of a list, the type of its elements
	Secret bool
}

// FieldsOf lists the fields of a struct type, or of what it points to. Any
// other type has none.
func FieldsOf(t reflect.Type) []FieldInfo {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var out []FieldInfo
	for _, f := range planOf(t).fields {
		if f.head == nil {
			continue
		}
		info := FieldInfo{Name: f.name, Doc: f.doc, Type: f.plan.schema, Secret: f.plan.secret}
		if info.Type == "array" {
			info.Items = "string"
			if f.plan.elem != nil && f.plan.elem.schema != "" {
				info.Items = f.plan.elem.schema
			}
		}
		out = append(out, info)
	}
	return out
}

// Unmarshal reads a stored row. It is as tolerant as the decoder of requests
// and ignores what it does not know; the row's version says what it must know.
func Unmarshal[T any](b []byte, into *T) error {
	v, err := only(b)
	if err != nil {
		return err
	}
	return planOf(reflect.TypeFor[T]()).decodeInto(unsafe.Pointer(into), v)
}
