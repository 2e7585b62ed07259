package core

import (
	"context"
	"net/netip"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// This file is the part of a request's way on which it is decided whether it is
// carried out.

// errDenied is what nobody and the unauthorised read.
var errDenied = errs.New(errs.Denied, "permission denied")

// admit asks who is calling and whether they may.
func (x *exchange) admit(ctx context.Context) error {
	if x.ep != nil && (x.ep.Unauth && x.req.Access != Guarded || x.req.Access == Open) {
		x.r.Caller.Token = x.req.Token
		return x.u.core.checkWrapTTL(x)
	}
	if x.ep == nil && x.miss == route.ErrNoOpForAnyone && x.req.Access != Guarded {
		return x.miss
	}
	if x.req.Token.IsZero() {
		return errDenied
	}
	t, err := x.lookup(ctx)
	if err != nil {
		return err
	}
	x.token = t
	if t.Namespace != x.ns {
		// A token works in its namespace and below it, and there by what its
		// own namespace's policies say of the way down.
		rel, ok := x.space.below(t.Namespace)
		if !ok {
			return errDenied
		}
		x.judged = rel + x.req.Path
	}
	if len(t.BoundCIDRs) > 0 && !InAny(t.BoundCIDRs, x.req.Remote.Addr()) {
		return errDenied
	}
	// A limited use is taken before anything is decided: refused requests
	// count too.
	if t.NumUses > 0 {
		if x.lastUse, err = x.u.tokens.Use(ctx, t); err != nil {
			return err
		}
	}
	if x.set, x.who, err = x.u.policies.set(ctx, t.Entry); err != nil {
		return err
	}
	x.r.Caller = route.Caller{
		Token: x.req.Token, Key: t.Key, Accessor: t.Accessor, DisplayName: t.DisplayName,
		EntityID: x.entityID(), LoggedIn: t.Created, Namespace: t.Namespace, Below: strings.TrimSuffix(x.judged, x.req.Path),
		Policies: t.Policies, Root: x.set == policy.RootSet(), Batch: t.Type == token.Batch,
	}
	if err := step(ctx, "policy", x.authorise); err != nil {
		return err
	}
	if x.miss != nil {
		return x.miss
	}
	if _, private := x.m.engine.(tokenDropper); private && t.Namespace != x.ns {
		return errs.New(errs.Invalid, "a token's cubbyhole is in the token's own namespace: ask there")
	}
	return x.u.core.checkWrapTTL(x)
}

// authorise asks the policies about the operation, the parameters and the
// wrapping. An update of what is not there yet is a creation.
func (x *exchange) authorise(ctx context.Context) error {
	op, as := x.req.Op, x.judgedAs()
	if op == wire.OpUpdate && x.ep != nil && x.ep.HasExists() {
		u, c := x.set.AllowAs(x.judged, as, wire.OpUpdate), x.set.AllowAs(x.judged, as, wire.OpCreate)
		if u.Allowed != c.Allowed || x.u.broker.Enabled() {
			there, err := x.ep.Exists(ctx, &x.r)
			switch {
			case err != nil && !u.Allowed && !c.Allowed: // it was asked for the record alone
				return errDenied
			case err != nil:
				return err
			}
			if !there {
				op = wire.OpCreate
				x.r.Op = op
			}
			x.r.OnlyUpdate = there && !c.Allowed
		}
	}
	d := x.set.AllowAs(x.judged, as, op)
	x.decision = d
	if !d.Allowed || x.ep != nil && x.ep.Sudo && !d.Sudo() {
		return errDenied
	}
	if !d.AllowsWrap(x.req.WrapTTL) {
		return errDenied
	}
	if d.NeedsParams() && !d.CheckParams(x.params()) {
		return errDenied
	}
	return nil
}

// judgedAs is the judged path as the endpoint knows it, where it takes a name in
// several spellings.
func (x *exchange) judgedAs() policy.As {
	path, from, ok := x.ep.Known(&x.r)
	if !ok {
		return policy.As{}
	}
	return asSeen(x.judged, x.r.Path, path, from)
}

// asSeen makes of what a mount knows a path by, and from where on, what a policy
// sees, to whom the mount's path is but the end of the whole.
func asSeen(whole, path, known string, from int) policy.As {
	above := whole[:len(whole)-len(path)]
	if known == path {
		return policy.As{Path: whole, From: len(above) + from}
	}
	return policy.As{Path: above + known, From: len(above) + from}
}

// Known is the path of some request, as a policy in its namespace sees it, as
// the endpoint knows it: for those who ask what they may do there.
func (c *Core) Known(ctx context.Context, ns, path string) (policy.As, error) {
	u, err := c.open()
	if err != nil {
		return policy.As{}, err
	}
	spaces, err := u.spaces.current(ctx)
	if err != nil {
		return policy.As{}, err
	}
	mounts, err := u.mounts.current(ctx)
	if err != nil {
		return policy.As{}, err
	}
	above := spaces.byID[ns]
	if above == nil {
		return policy.As{}, nil
	}
	space, rest, ok := spaces.find(strings.TrimSuffix(above.Path, "/"), path)
	if !ok {
		return policy.As{}, nil
	}
	m, rel := mounts.find(space.ID, rest)
	if m == nil || m.table == nil {
		return policy.As{}, nil
	}
	known, from, ok := m.table.Known(rel)
	if !ok {
		return policy.As{}, nil
	}
	return asSeen(path, rel, known, from), nil
}

// params are what the policies' parameter rules judge.
func (x *exchange) params() func(yield func(string, wire.Value) bool) {
	if x.req.Op == wire.OpRead || x.r.Octets != nil {
		return func(yield func(string, wire.Value) bool) {
			if x.r.Octets != nil && !yield(x.ep.InJSON(x.r.Octets)) {
				return
			}
			for k, vs := range x.req.Query {
				for _, v := range vs {
					if !yield(k, wire.Value(wire.Append(nil, v))) {
						return
					}
				}
			}
		}
	}
	body, err := wire.ParseObject(x.req.Body)
	if err != nil {
		return func(func(string, wire.Value) bool) {}
	}
	return body.All()
}

// Sudo reports whether the caller of a request has sudo on a path, which some
// fields need beside the right to call the endpoint.
func (c *Core) Sudo(ctx context.Context, caller route.Caller, path string, op wire.Op) (bool, error) {
	u, err := c.open()
	if err != nil {
		return false, err
	}
	t, err := u.tokens.Lookup(ctx, caller.Token)
	if err != nil {
		return false, err
	}
	set, _, err := u.policies.set(ctx, t.Entry)
	if err != nil {
		return false, err
	}
	return set.Allow(caller.Below+path, op).Sudo(), nil
}

func InAny(nets []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap()
	for _, n := range nets {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

func (c *Core) checkWrapTTL(x *exchange) error {
	if x.req.WrapTTL > c.cfg.MaxTTL {
		return errs.New(errs.Invalid, "the wrapping TTL %s is over the server's maximum of %s", x.req.WrapTTL, c.cfg.MaxTTL)
	}
	return nil
}
