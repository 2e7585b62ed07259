package token

import (
	"context"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
)

func (e *Engine) revokeSelf(ctx context.Context, req *route.Request, _ tokenIn) (route.None, error) {
	return e.revoke(ctx, req, tokenIn{req.Caller.Token})
}

// revoke ends a token. One that is unknown is gone already.
func (e *Engine) revoke(ctx context.Context, req *route.Request, in tokenIn) (route.None, error) {
	if in.Token.IsZero() {
		return route.None{}, errs.New(errs.Invalid, "missing token ID")
	}
	t, err := e.named(ctx, req, in.Token)
	if errs.Is(err, errs.Denied) {
		return route.None{}, nil
	}
	if err != nil {
		return route.None{}, err
	}
	return route.None{}, e.end(ctx, t)
}

func (e *Engine) end(ctx context.Context, t Token) error {
	if t.Batch {
		return errs.New(errs.Invalid, "batch tokens cannot be revoked: they end with their time or their parent")
	}
	return e.cfg.Lifecycle.Revoke(ctx, t.Key)
}

func (e *Engine) revokeAccessor(ctx context.Context, req *route.Request, in accessorIn) (route.None, error) {
	t, err := e.byAccessor(ctx, req, in.Accessor)
	if in.Accessor != "" && errs.Is(err, errs.Invalid) {
		req.Warn("No token found with this accessor")
		return route.None{}, nil
	}
	if err != nil {
		return route.None{}, err
	}
	return route.None{}, e.end(ctx, t)
}

func (e *Engine) revokeOrphan(ctx context.Context, req *route.Request, in tokenIn) (route.None, error) {
	if in.Token.IsZero() {
		return route.None{}, errs.New(errs.Invalid, "missing token ID")
	}
	t, err := e.named(ctx, req, in.Token)
	if errs.Is(err, errs.Denied) {
		err = errs.Wrap(errs.Invalid, err, "token to revoke not found")
	}
	switch {
	case err != nil:
		return route.None{}, err
	case t.Batch:
		return route.None{}, errs.New(errs.Invalid, "batch tokens cannot be revoked: they end with their time or their parent")
	}
	err = e.cfg.Lifecycle.RevokeOrphan(ctx, t.Key)
	if errs.Is(err, errs.Denied) {
		err = errs.Wrap(errs.Invalid, err, "token to revoke not found") // it has ended since
	}
	return route.None{}, err
}

// tidy starts in the background what lanes do by themselves in any case; it
// is for what was left by hand.
func (e *Engine) tidy(_ context.Context, req *route.Request, _ route.None) (*route.Whole, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tidies || e.ctx.Err() != nil {
		req.Warn("Tidy operation already in progress.")
		return &route.Whole{}, nil
	}
	e.tidies = true
	ns := req.Mount.Namespace
	e.wg.Go(func() {
		if err := e.cfg.Lifecycle.Tidy(e.ctx, ns); err != nil && e.ctx.Err() == nil {
			e.log.Error("tidying tokens", "error", err)
		}
		e.mu.Lock()
		e.tidies = false
		e.mu.Unlock()
	})
	req.Warn("Tidy operation successfully started. Any information from the operation will be printed to the server's log.")
	return &route.Whole{}, nil
}
