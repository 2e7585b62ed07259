package core

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// login makes the token that an auth method grants.
func (x *exchange) login(ctx context.Context) error {
	try := attempt{l: &x.u.lockouts, m: x.m}
	a, alias, err := x.ep.LogIn(ctx, &x.r, func(ctx context.Context, alias string) error {
		try.alias = alias
		return try.admit(ctx) // before the method does any work
	})
	if err == nil && a == nil {
		err = errDenied
	}
	if alias != "" {
		err = try.outcome(ctx, err)
	}
	if err != nil {
		return err
	}
	if a.Held != nil {
		return x.resume(ctx, a.Held)
	}
	policies := TokenPolicies(a.Policies, !a.NoDefaultPolicy)
	for _, p := range policies {
		// Whoever may write a user or a role must not become root by that.
		if p == policy.RootName {
			return errs.New(errs.Invalid, "auth methods cannot create root tokens: take the policy root off the user or role")
		}
		if !policy.Assignable(p) {
			return errs.New(errs.Invalid, "cannot assign policy %q", p)
		}
	}
	who, err := x.loginEntity(ctx, a)
	if err != nil {
		return err
	}
	e := &token.Entry{
		Namespace: x.ns, Path: x.req.Path, DisplayName: displayName(x.m.Path, a.DisplayName),
		Meta: a.Metadata, BoundCIDRs: a.BoundCIDRs, NumUses: a.NumUses,
		ExplicitMaxTTL: a.ExplicitMaxTTL, Period: a.Period, Renewable: !a.NotRenewable,
		Internal: []byte(a.Internal), Policies: policies,
		Type: x.m.tokenType(a.Type), LoginRole: a.Role,
	}
	ttl, most := x.r.Mount.DefaultTTL, x.r.Mount.MaxTTL
	if a.MaxTTL > 0 {
		most = min(most, a.MaxTTL)
	}
	if a.TTL > 0 {
		ttl = a.TTL
	}
	end := most
	if a.ExplicitMaxTTL > 0 {
		end = min(end, a.ExplicitMaxTTL)
	}
	switch {
	case a.Period > end:
		x.r.Warn("period of %q exceeded the effective max_ttl of %q; period value is capped accordingly", a.Period, end)
		ttl = end
	case a.Period > 0:
		ttl = a.Period
	case ttl > end:
		x.r.Warn("TTL of %q exceeded the effective max_ttl of %q; TTL value is capped accordingly", ttl, end)
		ttl = end
	}
	e.TTL, e.MountMaxTTL = ttl, most
	e.Expires = x.now().Add(ttl).Round(0)
	if e.Type == token.Batch {
		if a.NumUses > 0 {
			return errs.New(errs.Invalid, "batch tokens cannot be limited in uses")
		}
		e.Renewable = false
	}
	if who != nil {
		e.EntityID = who.ID
	}
	if held, err := x.hold(ctx, e, who); err != nil || held {
		return err
	}
	return x.hand(ctx, e, who, x.m)
}

// hand makes the token of a login at m and answers it.
func (x *exchange) hand(ctx context.Context, e *token.Entry, who *engine.Identified, m *mounted) error {
	if err := x.u.countToken(ctx, e, m); err != nil {
		return err
	}
	t, err := x.u.tokens.Create(ctx, e, secret.String{}, m.live...)
	if err != nil {
		return err
	}
	m.figures.tokens.add(t.Type)
	reply := x.r.Reply()
	x.resp.Warnings, x.resp.Status = reply.Warnings, reply.Status
	x.resp.Auth = wire.Of(NewTokenReply(t, identityPolicies(who, t.Namespace)))
	x.resp.Sent = x.revokeIfUnsent(ctx, t)
	return nil
}

// revokeIfUnsent ends a token whose client has gone.
func (x *exchange) revokeIfUnsent(ctx context.Context, t *token.Token) func(bool) {
	if t.Type == token.Batch {
		return nil
	}
	return func(begun bool) {
		if begun {
			return
		}
		if err := x.u.tokens.Revoke(context.WithoutCancel(ctx), t.Key); err != nil {
			x.u.core.log.Error("revoking a token whose client has gone; it ends at its expiry", "error", err)
		}
	}
}

// NewTokenReply is the auth part of an answer that hands out t, whose entity
// has policies of its own.
func NewTokenReply(t *token.Token, identity []string) route.TokenReply {
	return route.TokenReply{
		ClientToken: t.Text, Accessor: t.Accessor, Policies: withIdentity(t.Policies, identity),
		TokenPolicies: t.Policies, IdentityPolicies: identity,
		Metadata: t.Meta, LeaseDuration: wire.TTL(leaseOf(t)), Renewable: t.Renewable,
		EntityID: t.EntityID, TokenType: t.Type.String(), Orphan: t.Parent == "", NumUses: t.NumUses,
	}
}

// TokenPolicies folds, sorts and completes the policy names of a token: root
// stands alone, default is added where it is wanted.
func TokenPolicies(names []string, withDefault bool) []string {
	out := make([]string, 0, len(names)+1)
	for _, n := range names {
		if n = policy.CleanName(n); n != "" {
			out = append(out, n)
		}
	}
	if slices.Contains(out, policy.RootName) {
		return []string{policy.RootName}
	}
	if withDefault {
		out = append(out, policy.DefaultName)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func displayName(mount, name string) string {
	base := strings.ReplaceAll(strings.Trim(strings.TrimPrefix(mount, "auth/"), "/"), "/", "-")
	if name == "" {
		return base
	}
	return base + "-" + name
}

// tokenType is the kind of token that a mount's setting makes of what the
// method asked for.
func (m *Mount) tokenType(asked route.TokenType) token.Type {
	switch m.Config.TokenType {
	case "service":
		return token.Service
	case "batch":
		return token.Batch
	case "default-batch":
		if asked == route.TokenService {
			return token.Service
		}
		return token.Batch
	}
	if asked == route.TokenBatch {
		return token.Batch
	}
	return token.Service
}

// CreateToken makes a token for package auth/token. e.Expires and the rest are
// final.
func (c *Core) CreateToken(ctx context.Context, e *token.Entry, id secret.String) (*token.Token, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	if e.Namespace == "" {
		e.Namespace = token.RootNamespace
	}
	if t, err := u.mounts.current(ctx); err != nil {
		return nil, err
	} else if m, _ := t.find(e.Namespace, e.Path); m != nil {
		if err := u.countToken(ctx, e, m); err != nil {
			return nil, err
		}
	}
	t, err := u.tokens.Create(ctx, e, id, u.liveKeys(ctx, e.Namespace)...)
	if err == nil {
		c.figures.created.add(t.Type)
	}
	return t, err
}

// leaseOf is a token's time as an envelope says it.
func leaseOf(t *token.Token) time.Duration {
	if t.Expires.IsZero() {
		return 0
	}
	return t.Expires.Sub(t.Created).Round(time.Second)
}
