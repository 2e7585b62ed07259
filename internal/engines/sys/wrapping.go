package sys

import (
	"context"
	"slices"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// Wrapping keeps wrapped answers. A token that wraps nothing, or nothing any
// more, or whose namespace is not the one that asks or below it, is
// errs.Invalid.
type Wrapping interface {
	// Unwrap gives an answer back, once.
	Unwrap(ctx context.Context, ns string, token secret.String) (*route.Whole, error)
	// Rewrap moves an answer to a new wrapping token.
	Rewrap(ctx context.Context, ns string, token secret.String) (*route.WrapInfo, error)
	// Lookup tells about a wrapping token without using it up.
	Lookup(ctx context.Context, ns string, token secret.String) (Wrapped, error)
}

// Wrapped is what a wrapping token tells about itself.
type Wrapped struct {
	Path    string // of the request that was answered
	Created time.Time
	TTL     time.Duration
}

// Unwrapping and looking up need no token of one's own: knowing the wrapping
// token is the permission. They are open so that a used token is told apart
// from a missing permission; with a second token in the header, that one must
// be allowed to.
func (e *Engine) wrappingRoutes(t *route.Table) {
	route.Write(t, "wrapping/wrap", wrap, route.Doc("Wrap what is sent. Needs a wrapping TTL."))
	route.Write(t, "wrapping/unwrap", e.unwrap, route.Unauth(), route.Doc("Give a wrapped answer back, once."))
	route.Read(t, "wrapping/lookup", e.lookupWrapping, route.Unauth(), route.Doc("Tell about a wrapping token."))
	route.Write(t, "wrapping/lookup", e.lookupWrapping, route.Unauth(), route.Doc("Tell about a wrapping token."))
	route.Write(t, "wrapping/rewrap", e.rewrap, route.Doc("Move a wrapped answer to a new wrapping token."))
}

type wrapIn struct {
	Body wire.Object `json:"-" body:"all"`
}

// wrap answers what it was sent; core wraps the answer, as any other.
func wrap(_ context.Context, req *route.Request, in wrapIn) (wire.Object, error) {
	if req.WrapTTL <= 0 {
		return nil, errs.New(errs.Invalid, "endpoint requires response wrapping to be used: set the header X-Vault-Wrap-TTL")
	}
	if in.Body == nil {
		return wire.Object("{}"), nil
	}
	return in.Body, nil
}

type wrappingIn struct {
	Token secret.String `json:"token" doc:"The wrapping token; without, the token of the request is it."`
}

func (e *Engine) unwrap(ctx context.Context, req *route.Request, in wrappingIn) (*route.Whole, error) {
	token := in.Token
	switch {
	case token.IsZero() && req.Caller.Token.IsZero():
		return nil, errs.New(errs.Invalid, "wrapping token is empty")
	case token.IsZero():
		token = req.Caller.Token
	case !token.Equal(req.Caller.Token):
		rights, err := e.cfg.Access.Spend(ctx, req.Mount.Namespace, req.Caller.Token, req.Remote)
		if err != nil {
			return nil, err
		}
		caps := rights.Capabilities("sys/wrapping/unwrap")
		if !slices.Contains(caps, "update") && !slices.Contains(caps, "root") {
			return nil, errs.New(errs.Denied, "permission denied")
		}
	}
	return e.cfg.Wrapping.Unwrap(ctx, req.Mount.Namespace, token)
}

type wrappedOut struct {
	Path    string    `json:"creation_path"`
	Created time.Time `json:"creation_time"`
	TTL     wire.TTL  `json:"creation_ttl"`
}

func (e *Engine) lookupWrapping(ctx context.Context, req *route.Request, in wrappingIn) (wrappedOut, error) {
	if in.Token.IsZero() {
		in.Token = req.Caller.Token
	}
	if in.Token.IsZero() {
		return wrappedOut{}, errs.New(errs.Invalid, "missing \"token\" value in input")
	}
	w, err := e.cfg.Wrapping.Lookup(ctx, req.Mount.Namespace, in.Token)
	return wrappedOut{Path: w.Path, Created: w.Created, TTL: wire.TTL(w.TTL)}, err
}

func (e *Engine) rewrap(ctx context.Context, req *route.Request, in wrappingIn) (*route.Whole, error) {
	if in.Token.IsZero() {
		in.Token = req.Caller.Token
	}
	info, err := e.cfg.Wrapping.Rewrap(ctx, req.Mount.Namespace, in.Token)
	return &route.Whole{Wrap: info}, err
}
