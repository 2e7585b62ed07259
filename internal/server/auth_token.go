package server

import (
	"context"
	"time"

	authtoken "github.com/leasehold/leasehold/internal/auth/token"
	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// tokenMethod is the auth method of tokens made by tokens.
func tokenMethod(c *core.Core) engine.Factory {
	return authtoken.Factory(authtoken.Config{
		Tokens: tokens{c}, Lifecycle: tokens{c},
		Sudo: func(ctx context.Context, caller route.Caller, path string) (bool, error) {
			return c.Sudo(ctx, caller, path, wire.OpUpdate)
		},
		Identities: tokenIdentities{c}, HasPolicy: c.HasPolicy, Assignable: policy.Assignable,
	})
}

// tokenIdentities are the entities that tokens belong to.
type tokenIdentities struct{ c *core.Core }

var _ authtoken.Identities = tokenIdentities{}

func (i tokenIdentities) Policies(ctx context.Context, t authtoken.Token) ([]string, error) {
	return i.c.IdentityPolicies(ctx, &token.Entry{Namespace: t.Namespace, EntityID: t.EntityID})
}

func (i tokenIdentities) OfAlias(ctx context.Context, mount route.MountInfo, name string) (string, error) {
	return i.c.EntityOfAlias(ctx, mount.Namespace, mount.Accessor, name)
}

// tokens are those of whichever store is open at the moment.
type tokens struct{ c *core.Core }

var (
	_ authtoken.Tokens    = tokens{}
	_ authtoken.Lifecycle = tokens{}
)

func tokenOut(key string, text secret.String, e *token.Entry) authtoken.Token {
	return authtoken.Token{
		Text: text, Key: key, Accessor: e.Accessor, Batch: e.Type == token.Batch, Policies: e.Policies, Path: e.Path,
		DisplayName: e.DisplayName, Meta: e.Meta, Parent: e.Parent, Role: e.Role, EntityID: e.EntityID,
		BoundCIDRs: e.BoundCIDRs, NumUses: e.NumUses, Created: e.Created, TTL: e.TTL,
		ExplicitMaxTTL: e.ExplicitMaxTTL, Period: e.Period, MountMaxTTL: e.MountMaxTTL, Expires: e.Expires,
		Renewed: e.Renewed, Renewable: e.Renewable, Namespace: e.Namespace,
	}
}

func (t tokens) Create(ctx context.Context, ns string, n authtoken.Token, id secret.String) (authtoken.Token, error) {
	e := &token.Entry{
		Namespace: ns, Policies: n.Policies, Path: n.Path, DisplayName: n.DisplayName, Meta: n.Meta,
		Parent: n.Parent, Role: n.Role, EntityID: n.EntityID, BoundCIDRs: n.BoundCIDRs, NumUses: n.NumUses,
		TTL: n.TTL, ExplicitMaxTTL: n.ExplicitMaxTTL, Period: n.Period, MountMaxTTL: n.MountMaxTTL,
		Expires: n.Expires, Renewable: n.Renewable,
	}
	if n.Batch {
		e.Type = token.Batch
	}
	made, err := t.c.CreateToken(ctx, e, id)
	if err != nil {
		return authtoken.Token{}, err
	}
	return tokenOut(made.Key, made.Text, made.Entry), nil
}

func (t tokens) Lookup(ctx context.Context, text secret.String) (authtoken.Token, error) {
	s, err := t.c.Tokens()
	if err != nil {
		return authtoken.Token{}, err
	}
	found, err := s.Lookup(ctx, text)
	if err != nil {
		return authtoken.Token{}, err
	}
	return t.counted(ctx, s, tokenOut(found.Key, text, found.Entry))
}

func (t tokens) ByAccessor(ctx context.Context, ns, accessor string) (authtoken.Token, error) {
	s, err := t.c.Tokens()
	if err != nil {
		return authtoken.Token{}, err
	}
	if ns, err = namedIn(ctx, t.c, ns, token.NamespaceOf(accessor)); err != nil {
		return authtoken.Token{}, err
	}
	key, e, err := s.ByAccessor(ctx, ns, accessor)
	if err != nil {
		return authtoken.Token{}, err
	}
	return t.counted(ctx, s, tokenOut(key, secret.String{}, e))
}

// counted puts the uses left in place of those it was made with, and names the
// namespace. In its last use a token has none left, which is not the same as no
// limit.
func (t tokens) counted(ctx context.Context, s *token.Store, out authtoken.Token) (authtoken.Token, error) {
	path, ok, err := t.c.NamespaceBelow(ctx, token.RootNamespace, out.Namespace)
	if err == nil && !ok {
		err = token.ErrInvalid // it has ended at this moment
	}
	if err != nil {
		return authtoken.Token{}, err
	}
	out.NamespacePath = path
	if out.NumUses == 0 || out.Batch {
		return out, nil
	}
	n, err := s.UsesLeft(ctx, out.Key)
	if n <= 0 {
		n = -1
	}
	out.NumUses = n
	return out, err
}

// Renew extends a token within what the method that made it allows now.
func (t tokens) Renew(ctx context.Context, old authtoken.Token, increment time.Duration, role authtoken.RoleLimits, by *route.Request) (authtoken.Token, bool, error) {
	s, err := t.c.Tokens()
	if err != nil {
		return authtoken.Token{}, false, err
	}
	e, err := s.LookupKey(ctx, old.Key)
	if err != nil {
		return authtoken.Token{}, false, err
	}
	limits, err := t.c.RenewalLimits(ctx, e, by)
	if err != nil {
		return authtoken.Token{}, false, err
	}
	if role != (authtoken.RoleLimits{}) {
		limits.Period, limits.ExplicitMaxTTL = role.Period, role.ExplicitMaxTTL
	}
	e, capped, err := s.Renew(ctx, old.Key, increment, limits)
	if err != nil {
		return authtoken.Token{}, false, err
	}
	out, err := t.counted(ctx, s, tokenOut(old.Key, old.Text, e))
	return out, capped, err
}

func (t tokens) Revoke(ctx context.Context, key string) error {
	s, err := t.c.Tokens()
	if err != nil {
		return err
	}
	return s.Revoke(ctx, key)
}

func (t tokens) RevokeOrphan(ctx context.Context, key string) error {
	s, err := t.c.Tokens()
	if err != nil {
		return err
	}
	return s.RevokeOrphan(ctx, key)
}

func (t tokens) Accessors(ctx context.Context, ns string) (all []string, err error) {
	s, err := t.c.Tokens()
	if err != nil {
		return nil, err
	}
	err = s.Accessors(ctx, ns, func(accessor string) bool {
		all = append(all, accessor)
		return true
	})
	return all, err
}

func (t tokens) Tidy(ctx context.Context, ns string) error {
	s, err := t.c.Tokens()
	if err != nil {
		return err
	}
	_, err = s.Tidy(ctx, ns)
	return err
}
