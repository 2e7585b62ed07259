package core

import (
	"context"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// RenewalLimits are what a token may be renewed within: what its mount allows
// now and, for a token of a login, what its auth method would grant now. The
// method may refuse; and a login that would have other policies now must be
// made anew. by is the request that asks.
func (c *Core) RenewalLimits(ctx context.Context, e *token.Entry, by *route.Request) (token.Limits, error) {
	u, err := c.open()
	if err != nil {
		return token.Limits{}, err
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return token.Limits{}, err
	}
	m := t.maker(e)
	switch {
	case m == nil && e.MountID == "":
		return token.Limits{}, nil
	case m == nil:
		return token.Limits{}, errs.New(errs.Unavailable, "the mount that gave the token is not there or cannot be read, so nobody can say whether it may be renewed")
	case m.err != nil:
		return token.Limits{}, errs.Wrap(errs.Unavailable, m.err, "the engine at %q could not be started, so nobody can say whether its tokens may be renewed; the server's log has the cause", m.Path)
	}
	var lim token.Limits
	lim.DefaultTTL, lim.MaxTTL = c.ttls(m.Config)
	r, ok := m.engine.(engine.Renewer)
	if !ok {
		return lim, nil
	}
	a, err := r.RenewLogin(ctx, engine.Renewal{
		Internal: wire.Object(e.Internal), Policies: e.Policies, Metadata: e.Meta, DisplayName: e.DisplayName,
		Remote: by.Remote, TLS: by.TLS,
	})
	if err == nil && a == nil {
		err = errDenied
	}
	if err == nil && !slices.Equal(TokenPolicies(a.Policies, !a.NoDefaultPolicy), e.Policies) {
		err = errs.New(errs.Invalid, "policies have changed, not renewing: log in again")
	}
	if err == nil {
		err = u.regroup(ctx, e, m, a)
	}
	if err != nil {
		return token.Limits{}, err
	}
	lim.Login, lim.Period = true, a.Period
	if a.TTL > 0 {
		lim.DefaultTTL = a.TTL
	}
	if a.MaxTTL > 0 {
		lim.MaxTTL = min(lim.MaxTTL, a.MaxTTL)
	}
	return lim, nil
}

// maker is the mount that made a token, also when it has been moved since. By
// its path it is only looked for where the token does not say which it was: at
// the path there may be another one by now.
func (t *mountTable) maker(e *token.Entry) *mounted {
	if e.MountID != "" {
		if m := t.byID[e.MountID]; m != nil && m.Ending.IsZero() {
			return m
		}
		return nil
	}
	if m, _ := t.find(e.Namespace, e.Path); m != nil {
		return m
	}
	for _, m := range t.byID {
		if m.Namespace == e.Namespace && m.Ending.IsZero() && slices.ContainsFunc(m.Former, func(p string) bool { return strings.HasPrefix(e.Path, p) }) {
			return m
		}
	}
	return nil
}
