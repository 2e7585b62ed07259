package server

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/policy/password"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// policyStore is core's store of one kind of policy.
type policyStore struct {
	c    *core.Core
	kind core.PolicyKind
}

var _ sys.PolicyStore = policyStore{}

func (p policyStore) Read(ctx context.Context, ns, name string) (text string, ok bool, err error) {
	row, err := p.c.Policy(ctx, p.kind, ns, name)
	if err != nil || row == nil {
		return "", false, err
	}
	return row.Text, true, nil
}

func (p policyStore) Names(ctx context.Context, ns string) ([]string, error) {
	names, err := p.c.PolicyNames(ctx, p.kind, ns)
	if p.kind == core.ACLPolicy {
		// Those for the server's own use are no choice for anybody.
		names = slices.DeleteFunc(names, func(name string) bool { return !policy.Assignable(name) })
	}
	return names, err
}

func (p policyStore) Write(ctx context.Context, ns, name, text string) error {
	if p.kind == core.PasswordPolicy {
		if _, err := password.Parse(text); err != nil {
			return err
		}
		return p.c.WritePolicy(ctx, p.kind, ns, name, text)
	}
	name = policy.CleanName(name)
	if err := policy.CheckWrite(name); err != nil {
		return err
	}
	if _, err := policy.Parse(name, text); err != nil {
		return err
	}
	return p.c.WritePolicy(ctx, p.kind, ns, name, text)
}

func (p policyStore) Delete(ctx context.Context, ns, name string) error {
	if p.kind == core.ACLPolicy {
		if err := policy.CheckDelete(policy.CleanName(name)); err != nil {
			return err
		}
	}
	return p.c.DeletePolicy(ctx, p.kind, ns, name)
}

// drawPassword draws one by the text of a password policy.
func drawPassword(text string) (secret.String, error) {
	p, err := password.Parse(text)
	if err != nil {
		return secret.String{}, err
	}
	return p.Generate(nil)
}

// access tells what tokens may do.
type access struct{ c *core.Core }

var _ sys.Access = access{}

// find is a token that may be used from an address, and what it may do.
func (a access) find(ctx context.Context, text secret.String, from netip.Addr) (*token.Token, *policy.Set, error) {
	tokens, err := a.c.Tokens()
	if err != nil {
		return nil, nil, err
	}
	t, err := tokens.Lookup(ctx, text)
	if err != nil {
		return nil, nil, err
	}
	if from.IsValid() && len(t.BoundCIDRs) > 0 && !core.InAny(t.BoundCIDRs, from) {
		return nil, nil, errs.New(errs.Denied, "permission denied")
	}
	set, err := a.c.SetOf(ctx, t.Entry)
	return t, set, err
}

// rightsIn are a set's rights in a namespace that is the token's or below it.
type rightsIn struct {
	set   *policy.Set
	below string // the namespace's path seen from the token's
}

func (r rightsIn) Capabilities(path string) []string {
	return r.set.Capabilities(r.below + strings.TrimLeft(path, "/"))
}

func (r rightsIn) Reaches(mount string) bool { return r.set.Reaches(r.below + mount) }

func (a access) Of(ctx context.Context, ns string, text secret.String, from netip.Addr) (sys.Rights, error) {
	t, set, err := a.find(ctx, text, from)
	if err != nil {
		return nil, err
	}
	below, ok, err := a.c.NamespaceBelow(ctx, t.Namespace, ns)
	if err == nil && !ok {
		err = errs.New(errs.Denied, "permission denied")
	}
	if err != nil {
		return nil, err
	}
	return rightsIn{set, below}, nil
}

func (a access) OfAccessor(ctx context.Context, ns, accessor string) (sys.Rights, error) {
	tokens, err := a.c.Tokens()
	if err != nil {
		return nil, err
	}
	_, e, err := tokens.ByAccessor(ctx, ns, accessor)
	if err != nil {
		return nil, err
	}
	s, err := a.c.SetOf(ctx, e)
	if err != nil {
		return nil, err
	}
	return rightsIn{set: s}, nil
}

func (a access) Resultant(ctx context.Context, text secret.String) (wire.Data, error) {
	_, set, err := a.find(ctx, text, netip.Addr{})
	if err != nil {
		return nil, err
	}
	return wire.Of(set.ResultantACL()), nil
}
