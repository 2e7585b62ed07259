package core

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/trace"
	"github.com/leasehold/leasehold/internal/wire"
)

// exchange is one request on its way through Handle.
type exchange struct {
	u      *unsealed
	req    *Request
	broken error  // why it is not carried out, known before it came
	space  *space // the namespace that is asked
	ns     string // its id
	judged string // the path as the token's namespace sees it, which its policies are about
	r      route.Request
	m      *mounted        // nil: no mount there
	ep     *route.Endpoint // nil: no endpoint there
	miss   error           // why there is no endpoint

	token    *token.Token       // nil: nobody
	who      *engine.Identified // the token's entity; nil: it has none
	set      *policy.Set
	decision policy.Decision
	lastUse  bool

	entry      *audit.Entry // nil while no device is enabled
	unrecorded bool         // no device took a record, which the broker has logged
	unlogged   bool         // it is refused without a record: a quota's setting
	limits     http.Header  // what a quota says in the answer
	resp       Response
	link       link // among the requests inside
}

// errHeadIssues is the answer to a HEAD of what issues: its answer has no body,
// and nobody would learn what there is a lease of.
var errHeadIssues = errs.New(errs.Unsupported, "unsupported operation: this path issues credentials, which the answer to a HEAD has no room for; send a GET")

// Handle answers one request. It is the path of every request there is.
func (c *Core) Handle(ctx context.Context, req *Request) *Response {
	if resp := c.early(ctx, c.cfg.Boot, req); resp != nil {
		return resp
	}
	u, err := c.open()
	if err != nil {
		// What a listener has opened to everybody needs no key to tell who asks.
		if req.Access == Open {
			if resp := c.early(ctx, c.cfg.Opened, req); resp != nil {
				return resp
			}
		}
		return &Response{Err: c.notOpen(ctx)}
	}
	return u.handle(ctx, &exchange{u: u, req: req})
}

// Refuse records a request that is not carried out, because of why, and
// answers it. A sealed server has nothing to record it with.
func (c *Core) Refuse(ctx context.Context, req *Request, why error) *Response {
	u, err := c.open()
	if err != nil {
		return &Response{Err: why}
	}
	return u.handle(ctx, &exchange{u: u, req: req, broken: why})
}

func (u *unsealed) handle(ctx context.Context, x *exchange) *Response {
	if !u.enter() {
		return &Response{Err: u.core.notOpen(ctx)}
	}
	defer u.leave()
	u.core.inflight.enter(&x.link, x.req)
	defer x.link.leave()

	err := x.serveSafely(ctx)
	if x.lastUse {
		// Its own mark is enough; the lane does the rest.
		if rerr := u.tokens.Revoke(context.WithoutCancel(ctx), x.token.Key); rerr != nil && err == nil {
			x.takeBack()
			err = rerr
		}
	}
	if err != nil {
		x.fail(err)
	}
	if x.limits != nil {
		head := x.limits
		maps.Copy(head, x.resp.Header)
		x.resp.Header = head
	}
	return &x.resp
}

// notOpen tells a sealed server from one that was never initialised.
func (c *Core) notOpen(ctx context.Context) error {
	if c.stopping.Load() {
		return errStopping
	}
	if is, _, err := c.Health(ctx); err == nil && !is {
		return ErrUninitialized
	}
	return ErrSealed
}

// serveSafely is serve, in which a panic ends this request alone: what was made
// for its answer is taken back, and the log says where it was.
func (x *exchange) serveSafely(ctx context.Context) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		x.u.core.log.Error("a request panicked; the others go on", "request", x.req.ID, "operation", x.req.Op.String(),
			"mount", x.r.Mount.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		x.takeBack()
		err = errs.New(errs.Internal, "internal error; the server's log has the cause")
		if x.entry != nil && x.entry.Response == nil {
			err = errors.Join(err, x.auditResponse(ctx, err))
		}
	}()
	return x.serve(ctx)
}

// serve is the sentence.
func (x *exchange) serve(ctx context.Context) error {
	err := step(ctx, "route", x.route)
	x.nameSpan(ctx)
	if lerr := x.limit(ctx); lerr != nil { // also of what cannot be carried out: its record costs as much
		if err = lerr; x.unlogged {
			return err
		}
	}
	if err == nil {
		err = timed(ctx, "admit", &x.u.core.figures.tokenChecks, x.admit)
	}
	if aerr := step(ctx, "audit request", func(ctx context.Context) error { return x.auditRequest(ctx, err) }); aerr != nil {
		x.unrecorded = true
		return aerr
	}
	if err == nil {
		err = step(ctx, "engine", x.carryOut)
	}
	if err == nil {
		err = x.wrap(ctx)
	}
	if aerr := step(ctx, "audit response", func(ctx context.Context) error { return x.auditResponse(ctx, err) }); aerr != nil {
		x.unrecorded = true
		x.takeBack()
		return aerr
	}
	if err != nil {
		x.takeBack()
	}
	return err
}

// early answers what works whatever state the server is in: health, init,
// unsealing. It is neither authorised nor audited; it gives nothing away.
func (c *Core) early(ctx context.Context, table *route.Table, req *Request) *Response {
	rel, ok := strings.CutPrefix(req.Path, "sys/")
	if !ok || table == nil {
		return nil
	}
	r := route.Request{
		ID: req.ID, Op: req.Op, Path: rel, Query: req.Query, Body: req.Body, Remote: req.Remote.Addr(), Redact: req.Redact,
		Mount: route.MountInfo{Path: "sys/", Type: "system", Namespace: token.RootNamespace},
	}
	ep, err := table.Route(&r)
	if err != nil {
		if errs.Is(err, errs.Unsupported) {
			return &Response{Err: err}
		}
		return nil
	}
	trace.Of(ctx).Route(req.Method, "sys/", ep.Pattern)
	if ns := strings.Trim(req.Namespace, "/"); ep.RootOnly && ns != "" && ns != token.RootNamespace {
		return &Response{Err: rootOnly(req.Path)}
	}
	resp := &Response{Form: ep.Form}
	res, err := ep.Call(ctx, &r)
	if err != nil {
		resp.Err = err
		return resp
	}
	resp.fill(&r, res)
	return resp
}

// fill takes over what an endpoint said.
func (p *Response) fill(r *route.Request, res route.Result) {
	reply := r.Reply()
	p.Status, p.Warnings, p.Header = reply.Status, reply.Warnings, reply.Header
	p.LeaseID, p.LeaseTTL, p.Renewable = reply.LeaseID, reply.LeaseDuration, reply.Renewable
	p.Lent = reply.Lent
	p.Data, p.Raw = res.Data, res.Raw
	if w := res.Whole; w != nil {
		p.Data, p.Auth, p.Wrap = w.Data, w.Auth, w.Wrap
		p.LeaseID, p.LeaseTTL, p.Renewable = w.LeaseID, w.LeaseDuration, w.Renewable
	}
}

func (x *exchange) fail(err error) {
	err = named(err)
	switch {
	case x.unrecorded, errors.Is(err, storage.ErrReadOnly), errors.Is(err, errLocked): // told of once, where it began
	case errs.KindOf(err) == errs.Internal:
		x.u.core.log.Error("a request failed", "request", x.req.ID, "operation", x.req.Op.String(),
			"mount", x.r.Mount.Path, "error", err)
	case errs.Is(err, errs.Upstream) || errs.Is(err, errs.Unavailable):
		x.u.core.log.Warn("a request was not served", "request", x.req.ID, "mount", x.r.Mount.Path, "error", err)
	}
	warnings := x.resp.Warnings
	if len(warnings) == 0 {
		warnings = x.r.Reply().Warnings
	}
	x.resp = Response{Err: err, Warnings: warnings, Form: x.resp.Form}
}

// named gives the states of the store and of time their own answers.
func named(err error) error {
	switch {
	case errs.KindOf(err) != errs.Internal:
	case errors.Is(err, storage.ErrReadOnly):
		return errs.Wrap(errs.Unavailable, err, "the server's disk is full: nothing can be written until there is room")
	case errors.Is(err, storage.ErrStopped), errors.Is(err, storage.ErrClosed):
		return errs.Wrap(errs.Unavailable, err, "the server's store has stopped; its log has the cause")
	case errors.Is(err, storage.ErrBadKey):
		return errs.Wrap(errs.Invalid, err, "a name or path in the request is too long, or has characters that are no UTF-8 text")
	case errors.Is(err, storage.ErrTooLarge):
		return errs.Wrap(errs.TooLarge, err, "the request writes more than 1 MiB at once")
	case errors.Is(err, context.DeadlineExceeded):
		return errs.Wrap(errs.Unavailable, err, "the request took longer than the server allows (max_request_duration)")
	case errors.Is(err, context.Canceled):
		return errs.Wrap(errs.Unavailable, err, "the client went away")
	}
	return err
}

// route finds the namespace, the mount and the endpoint. That there is none is
// told only to those who may know.
func (x *exchange) route(ctx context.Context) error {
	x.r.ID, x.r.Op, x.r.Path = x.req.ID, x.req.Op, x.req.Path
	x.ns, x.judged = token.RootNamespace, x.req.Path
	if x.broken != nil {
		return x.broken
	}
	space, path, err := x.u.namespaceOf(ctx, x.req.Namespace, x.req.Path)
	if err != nil {
		return err
	}
	t, err := x.u.mounts.current(ctx)
	if err != nil {
		return err
	}
	x.space, x.ns, x.req.Path, x.judged = space, space.ID, path, path
	x.req.Namespace = strings.TrimSuffix(space.Path, "/")
	if strings.HasSuffix(path, "/") && (x.req.Op == wire.OpUpdate || x.req.Op == wire.OpPatch) {
		// A name was forgotten, whatever is mounted there.
		return errs.New(errs.Invalid, "cannot write to a path ending in '/'")
	}
	m, rel := t.find(x.ns, path)
	x.r.Path, x.r.Redact = rel, x.req.Redact
	x.r.Query, x.r.Body, x.r.WrapTTL = x.req.Query, x.req.Body, x.req.WrapTTL
	x.r.Remote, x.r.TLS = x.req.Remote.Addr(), x.req.TLS
	if m == nil {
		x.miss = errs.New(errs.NotFound, "no handler for route %q. route entry not found", ShownPath(path))
		return nil
	}
	x.m, x.r.Mount = m, m.info
	x.r.Mount.NamespacePath = space.Path
	x.resp.MountType = m.Type
	if len(m.Config.PassthroughHeaders) > 0 {
		x.r.Header = x.passedHeader
	}
	if m.err != nil {
		x.miss = errs.Wrap(errs.Unavailable, m.err, "the engine at %q could not be started; the server's log has the cause", m.Path)
		return nil
	}
	x.ep, x.miss = m.table.Route(&x.r)
	if x.ep != nil && x.ep.RootOnly && x.ns != token.RootNamespace {
		x.ep, x.miss = nil, rootOnly(path)
	}
	if x.ep != nil && x.ep.Class == route.Issuing && x.req.Method == http.MethodHead {
		x.ep, x.miss = nil, errHeadIssues
	}
	if x.ep != nil {
		x.resp.Form = x.ep.Form
		if len(x.ep.Headers) > 0 {
			x.r.Header = x.passedHeader
		}
	}
	return x.octets()
}

// octets leaves the bytes of a body to an endpoint that takes them. For any
// other they are JSON.
func (x *exchange) octets() (err error) {
	switch {
	case x.req.Octets == nil:
	case x.ep.TakesOctets():
		if x.req.WrapTTL > 0 {
			return errs.New(errs.Invalid, "an answer of bytes cannot be wrapped; send the request as JSON")
		}
		x.r.Octets = x.req.Octets
	default:
		x.req.Body, err = x.req.JSON(x.req.Octets)
		x.req.Octets, x.r.Body = nil, x.req.Body
	}
	return err
}

// rootOnly is the answer of what is the server's and not a namespace's.
func rootOnly(path string) error {
	return errs.New(errs.NotFound, "unsupported path: %s answers only in the root namespace; leave out X-Vault-Namespace", path)
}

func (x *exchange) passedHeader(name string) string {
	for _, h := range x.m.Config.PassthroughHeaders {
		if strings.EqualFold(h, name) {
			return x.req.Header.Get(name)
		}
	}
	if x.ep != nil && slices.Contains(x.ep.Headers, name) {
		return x.req.Header.Get(name)
	}
	return ""
}

// answer lets the endpoint answer.
func (x *exchange) answer(ctx context.Context) error {
	switch x.ep.Class {
	case route.Issuing:
		return x.issue(ctx)
	case route.LoggingIn:
		return x.login(ctx)
	}
	res, err := x.ep.Call(ctx, &x.r)
	if errors.Is(err, errs.Gone) && x.m.Type == "cubbyhole" && x.r.Op == wire.OpRead && x.r.Path == "response" {
		res, err = x.oldUnwrap(ctx)
	}
	if err != nil {
		return err
	}
	x.resp.fill(&x.r, res)
	x.keepHeaders()
	return x.dropLate(ctx)
}

// dropLate deletes what a request wrote for a token that has ended meanwhile:
// its lane may have been there already. Whoever comes later of the two, the
// lane after the mark or this after the write, sees the other's.
func (x *exchange) dropLate(ctx context.Context) error {
	d, ok := x.m.engine.(tokenDropper)
	if !ok || x.token == nil || x.r.Op == wire.OpRead || x.r.Op == wire.OpList {
		return nil
	}
	alive, err := x.u.tokens.Alive(ctx, x.ns, x.token.Key)
	if err != nil || alive {
		return err
	}
	if err := d.Drop(ctx, x.token.Key); err != nil {
		return err
	}
	return errDenied
}

// keepHeaders drops response headers that the mount does not let through.
func (x *exchange) keepHeaders() {
	for name := range x.resp.Header {
		ok := false
		for _, h := range x.m.Config.AllowedHeaders {
			ok = ok || strings.EqualFold(h, name)
		}
		if !ok {
			delete(x.resp.Header, name)
		}
	}
}

// takeBack undoes a credential that was made for an answer that is not given.
func (x *exchange) takeBack() {
	if x.resp.Sent != nil {
		x.resp.Sent(false)
		x.resp.Sent = nil
	}
}

// now is the core's clock.
func (x *exchange) now() time.Time { return x.u.core.cfg.Now() }
