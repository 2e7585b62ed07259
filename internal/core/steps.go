package core

import (
	"context"

	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/trace"
	"github.com/leasehold/leasehold/internal/wire"
)

// step is one of the path's steps, in a span of its own where the request is
// traced.
func step(ctx context.Context, name string, do func(context.Context) error) error {
	ctx, span := trace.Start(ctx, name)
	err := do(ctx)
	span.End(err)
	return err
}

// lookup finds the caller's token.
func (x *exchange) lookup(ctx context.Context) (*token.Token, error) {
	ctx, span := trace.Start(ctx, "token")
	t, err := x.u.tokens.Lookup(ctx, x.req.Token)
	span.End(err)
	return t, err
}

// nameSpan calls the request's span by what answers it. A path that nothing
// answers, and what is asked for help about, may hold anything.
func (x *exchange) nameSpan(ctx context.Context) {
	span := trace.Of(ctx)
	if span == nil || x.m == nil || x.ep == nil || x.ep.Op == wire.OpHelp {
		return
	}
	span.Route(x.req.Method, x.r.Mount.NamespacePath+x.r.Mount.Path, x.ep.Pattern)
	span.Text("leasehold.mount_type", x.m.Type)
}
