package token

import (
	"context"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

type renewIn struct {
	tokenIn
	Increment wire.TTL `json:"increment" doc:"How long from now; 0 is what it was given last."`
}

type renewAccessorIn struct {
	accessorIn
	Increment wire.TTL `json:"increment" doc:"How long from now; 0 is what it was given last."`
}

func (e *Engine) renewSelf(ctx context.Context, req *route.Request, in renewIn) (*route.Whole, error) {
	in.Token = req.Caller.Token
	return e.renew(ctx, req, in)
}

func (e *Engine) renew(ctx context.Context, req *route.Request, in renewIn) (*route.Whole, error) {
	if in.Token.IsZero() {
		return nil, errs.New(errs.Invalid, "missing token ID")
	}
	t, err := e.named(ctx, req, in.Token)
	if errs.Is(err, errs.Denied) {
		err = errs.Wrap(errs.Invalid, err, "token not found")
	}
	if err != nil {
		return nil, err
	}
	return e.extend(ctx, req, t, in.Increment.Duration())
}

func (e *Engine) renewAccessor(ctx context.Context, req *route.Request, in renewAccessorIn) (*route.Whole, error) {
	t, err := e.byAccessor(ctx, req, in.Accessor)
	if err != nil {
		return nil, err
	}
	return e.extend(ctx, req, t, in.Increment.Duration())
}

func (e *Engine) extend(ctx context.Context, req *route.Request, t Token, increment time.Duration) (*route.Whole, error) {
	switch {
	case t.Batch:
		return nil, errs.New(errs.Invalid, "batch tokens cannot be renewed")
	case !t.Renewable || t.Expires.IsZero():
		return nil, errs.New(errs.Invalid, "lease is not renewable")
	}
	var limits RoleLimits
	if t.Role != "" && t.NamespacePath != req.Mount.NamespacePath {
		return nil, errs.New(errs.Invalid, "the token was made by a role of namespace %q, whose limits count: renew it there", t.NamespacePath)
	}
	if t.Role != "" {
		r, err := e.role(ctx, t.Role)
		if err != nil {
			return nil, err
		}
		if r == nil {
			return nil, errs.New(errs.Invalid, "original token role %q could not be found, not renewing", t.Role)
		}
		limits = RoleLimits{Period: r.Period, ExplicitMaxTTL: r.ExplicitMaxTTL}
	}
	renewed, capped, err := e.cfg.Lifecycle.Renew(ctx, t, increment, limits, req)
	if err != nil {
		return nil, err
	}
	left := e.given(renewed)
	if capped {
		req.Warn("the token's maximum cut the renewal: TTL value is capped to %q", left)
	}
	return e.reply(ctx, renewed, left)
}

// given is what a renewal has given, in whole seconds.
func (e *Engine) given(t Token) time.Duration {
	if t.Renewed.IsZero() {
		return e.left(t)
	}
	return max(t.Expires.Sub(t.Renewed).Round(time.Second), 0)
}
