package server

import (
	"context"
	"net/netip"
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

// policies is core's store of what tokens may do.
type policies struct{ c *core.Core }

var _ sys.Policies = policies{}

func policyOf(r core.PolicyRow) sys.Policy {
	return sys.Policy{Name: r.Name, Text: r.Text, Version: r.Edition, Modified: r.Modified, Expires: r.Expires, CASRequired: r.CASRequired}
}

func (p policies) Read(ctx context.Context, ns, name string) (sys.Policy, bool, error) {
	row, err := p.c.Policy(ctx, core.ACLPolicy, ns, name)
	if err != nil || row == nil {
		return sys.Policy{}, false, err
	}
	return policyOf(*row), true, nil
}

// List leaves out those for the server's own use: they are no choice for
// anybody.
func (p policies) List(ctx context.Context, ns, prefix string) (list []sys.Policy, err error) {
	rows, err := p.c.Policies(ctx, core.ACLPolicy, ns, prefix)
	for _, r := range rows {
		if policy.Assignable(r.Name) {
			list = append(list, policyOf(r))
		}
	}
	return list, err
}

func (p policies) Check(name, text string) error {
	name = policy.CleanName(name)
	if err := policy.CheckWrite(name); err != nil {
		return err
	}
	_, err := policy.Parse(name, text)
	return err
}

func (p policies) Write(ctx context.Context, ns, name string, change func(old sys.Policy, ok bool) (sys.Policy, error)) error {
	return p.c.ChangePolicy(ctx, core.ACLPolicy, ns, policy.CleanName(name), func(old *core.PolicyRow) (core.PolicyRow, error) {
		var was sys.Policy
		if old != nil {
			was = policyOf(*old)
		}
		next, err := change(was, old != nil)
		return core.PolicyRow{Text: next.Text, Expires: next.Expires, CASRequired: next.CASRequired}, err
	})
}

func (p policies) Delete(ctx context.Context, ns, name string) error {
	if err := policy.CheckDelete(policy.CleanName(name)); err != nil {
		return err
	}
	return p.c.DeletePolicy(ctx, core.ACLPolicy, ns, name)
}

// passwordPolicies is core's store of how passwords look.
type passwordPolicies struct{ c *core.Core }

var _ sys.PasswordPolicies = passwordPolicies{}

func (p passwordPolicies) Read(ctx context.Context, ns, name string) (text string, ok bool, err error) {
	row, err := p.c.Policy(ctx, core.PasswordPolicy, ns, name)
	if err != nil || row == nil {
		return "", false, err
	}
	return row.Text, true, nil
}

func (p passwordPolicies) Names(ctx context.Context, ns string) ([]string, error) {
	return p.c.PolicyNames(ctx, core.PasswordPolicy, ns)
}

// The shortest and the longest password that a policy may ask for, as in
// Vault.
const (
	minPassword = 4
	maxPassword = 100
)

func (p passwordPolicies) Write(ctx context.Context, ns, name, text string) error {
	parsed, err := password.Parse(text)
	if err != nil {
		return err
	}
	if n := parsed.Length(); n < minPassword || n > maxPassword {
		return errs.New(errs.Invalid, "passwords must be between %d and %d characters", minPassword, maxPassword)
	}
	return p.c.WritePolicy(ctx, core.PasswordPolicy, ns, name, text)
}

func (p passwordPolicies) Delete(ctx context.Context, ns, name string) error {
	return p.c.DeletePolicy(ctx, core.PasswordPolicy, ns, name)
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
	// known is the path that is asked about as its endpoint knows it.
	known func(path string) policy.As
}

func (r rightsIn) Capabilities(path string) []string {
	path = strings.TrimLeft(path, "/")
	as := r.known(path)
	if as.Path != "" {
		as.Path, as.From = r.below+as.Path, len(r.below)+as.From
	}
	return r.set.CapabilitiesAs(r.below+path, as)
}

func (r rightsIn) Reaches(mount string) bool { return r.set.Reaches(r.below + mount) }

func (a access) Of(ctx context.Context, ns string, text secret.String, from netip.Addr) (sys.Rights, error) {
	t, set, err := a.find(ctx, text, from)
	if err != nil {
		return nil, err
	}
	return a.in(ctx, ns, t, set)
}

func (a access) Spend(ctx context.Context, ns string, text secret.String, from netip.Addr) (sys.Rights, error) {
	t, set, err := a.find(ctx, text, from)
	if err != nil {
		return nil, err
	}
	tokens, err := a.c.Tokens()
	if err != nil {
		return nil, err
	}
	last, err := tokens.Use(ctx, t)
	if err == nil && last {
		err = tokens.Revoke(context.WithoutCancel(ctx), t.Key)
	}
	if err != nil {
		return nil, err
	}
	return a.in(ctx, ns, t, set)
}

// rights of a set in a namespace. A path that no endpoint can be found for, even
// because the mounts cannot be read, is what it says.
func (a access) rights(ctx context.Context, ns string, set *policy.Set, below string) rightsIn {
	return rightsIn{set, below, func(path string) policy.As {
		as, err := a.c.Known(ctx, ns, path)
		if err != nil {
			return policy.As{}
		}
		return as
	}}
}

// in are the rights of a token in a namespace.
func (a access) in(ctx context.Context, ns string, t *token.Token, set *policy.Set) (sys.Rights, error) {
	below, ok, err := a.c.NamespaceBelow(ctx, t.Namespace, ns)
	if err == nil && !ok {
		err = errs.New(errs.Denied, "permission denied")
	}
	if err != nil {
		return nil, err
	}
	return a.rights(ctx, ns, set, below), nil
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
	return a.rights(ctx, ns, s, ""), nil
}

func (a access) Resultant(ctx context.Context, text secret.String) (wire.Data, error) {
	_, set, err := a.find(ctx, text, netip.Addr{})
	if err != nil {
		return nil, err
	}
	return wire.Of(set.ResultantACL()), nil
}
