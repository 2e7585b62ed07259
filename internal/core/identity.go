package core

import (
	"context"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
)

// This file joins tokens with the identities that they belong to: at login,
// and at each request of a token that has an entity. A token without one costs
// nothing here.

// identity is the engine that knows the entities of a namespace.
func (u *unsealed) identity(ctx context.Context, ns string) (engine.Identity, error) {
	t, err := u.mounts.current(ctx)
	if err != nil {
		return nil, err
	}
	m := t.identities[ns]
	if m == nil {
		return nil, errs.New(errs.Unavailable, "the namespace has no identities at this moment")
	}
	i, ok := m.engine.(engine.Identity)
	if !ok {
		return nil, &errs.Error{Kind: errs.Unavailable, Msg: "the identity engine could not be started; the server's log has the cause", Err: m.err}
	}
	return i, nil
}

// who is the entity of a token that has one, in whichever namespace that is: a
// token made in a namespace below keeps the entity of its parent. An entity
// that is gone, disabled or cannot be read refuses the token.
func (u *unsealed) who(ctx context.Context, e *token.Entry) (*engine.Identified, error) {
	i, err := u.identity(ctx, token.NamespaceOf(e.EntityID))
	if err != nil {
		return nil, err
	}
	who, err := i.Identify(ctx, e.EntityID)
	switch {
	case err != nil && (ctx.Err() != nil || named(err) != err):
		return nil, err // the store's state, not this entity's
	case err != nil:
		u.core.log.Error("an entity cannot be read; its tokens are refused", "entity", e.EntityID, "error", err)
		return nil, errs.Wrap(errs.Denied, err, "permission denied: the token's entity cannot be read; the server's log has the cause")
	case who == nil, who.Disabled:
		return nil, errDenied
	}
	return who, nil
}

// entityID is the entity of the caller, "" without one. Of a token whose
// entity was merged it is the one that lives.
func (x *exchange) entityID() string {
	if x.who == nil {
		return ""
	}
	return x.who.ID
}

// loginEntity finds or makes the entity of a login; nil where the method knows
// nobody in particular.
func (x *exchange) loginEntity(ctx context.Context, a *route.Auth) (*engine.Identified, error) {
	if a.Alias == nil {
		return nil, nil
	}
	i, err := x.u.identity(ctx, x.ns)
	if err != nil {
		return nil, err
	}
	who, err := i.Login(ctx, engine.AliasLogin{
		Accessor: x.m.Accessor, Local: x.m.Local, Name: a.Alias.Name, Metadata: a.Alias.Metadata, Groups: a.Groups,
	})
	if err == nil && who.Disabled {
		err = errDenied
	}
	return who, err
}

// regroup has a token's entity leave and join external groups by what its auth
// method says at a renewal.
func (u *unsealed) regroup(ctx context.Context, e *token.Entry, m *mounted, a *route.Auth) error {
	if a.Alias == nil || e.EntityID == "" {
		return nil
	}
	i, err := u.identity(ctx, token.NamespaceOf(e.EntityID))
	if err != nil {
		return err
	}
	return i.Regroup(ctx, e.EntityID, m.Accessor, a.Groups)
}

// identityPolicies are the policies that an entity gives its tokens of a
// namespace: of its own, since elsewhere the names mean other policies. Nobody
// becomes root by them.
func identityPolicies(who *engine.Identified, ns string) []string {
	if who == nil || len(who.Policies) == 0 || token.NamespaceOf(who.ID) != ns {
		return nil
	}
	out := make([]string, 0, len(who.Policies))
	for _, p := range who.Policies {
		if p = policy.CleanName(p); p != "" && p != policy.RootName {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// withIdentity are the policies of a token and its entity together.
func withIdentity(policies, identity []string) []string {
	if len(identity) == 0 || slices.Contains(policies, policy.RootName) {
		return policies
	}
	out := slices.Concat(policies, identity)
	slices.Sort(out)
	return slices.Compact(out)
}

// IdentityPolicies are those that a token has through its entity, sorted.
// Without an entity, or with one that is gone, there are none.
func (c *Core) IdentityPolicies(ctx context.Context, e *token.Entry) ([]string, error) {
	if e.EntityID == "" {
		return nil, nil
	}
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	i, err := u.identity(ctx, token.NamespaceOf(e.EntityID))
	if err != nil {
		return nil, err
	}
	who, err := i.Identify(ctx, e.EntityID)
	if err != nil {
		return nil, err
	}
	return identityPolicies(who, e.Namespace), nil
}

// EntityOfAlias finds or makes the entity of a name that is given to a token
// of the mount with an accessor, and refuses one that is disabled.
func (c *Core) EntityOfAlias(ctx context.Context, ns, accessor, name string) (string, error) {
	u, err := c.open()
	if err != nil {
		return "", err
	}
	i, err := u.identity(ctx, ns)
	if err != nil {
		return "", err
	}
	who, err := i.Login(ctx, engine.AliasLogin{Accessor: accessor, Name: name})
	if err != nil {
		return "", err
	}
	if who.Disabled {
		return "", errs.New(errs.Denied, "permission denied: the entity of the given entity_alias is disabled")
	}
	return who.ID, nil
}

// EntityCount is how many entities a namespace has.
func (c *Core) EntityCount(ctx context.Context, ns string) (int64, error) {
	u, err := c.open()
	if err != nil {
		return 0, err
	}
	i, err := u.identity(ctx, ns)
	if err != nil {
		return 0, err
	}
	return i.Count(ctx)
}

// boundKey names what tokens of one entity that have the same policies may do.
type boundKey struct{ policies, entity string }

// bound is a set with an entity's policies and values in it. It holds as long
// as the entity is as it was when it was made.
type bound struct {
	made *engine.Made
	set  *policy.Set
}

// mostBound bounds the sets that are kept for entities.
const mostBound = 8192

// setOfEntity is what a token of an entity may do.
func (ps *policies) setOfEntity(ctx context.Context, e *token.Entry, who *engine.Identified) (*policy.Set, error) {
	key := boundKey{e.PolicyKey(), who.ID}
	ps.mu.RLock()
	b, drops := ps.bound[key], ps.drops
	ps.mu.RUnlock()
	if b.set != nil && b.made == who.Made {
		return b.set, nil
	}
	names, joined := e.Policies, e.PolicyKey()
	if more := identityPolicies(who, e.Namespace); len(more) > 0 {
		names = withIdentity(names, more)
		joined = token.PolicyKeyOf(e.Namespace, names)
	}
	s, err := ps.setOf(ctx, e.Namespace, names, joined)
	if err != nil {
		return nil, err
	}
	if token.NamespaceOf(who.ID) == e.Namespace {
		s = s.Bind(values{who}) // elsewhere groups of the same names are others
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.drops != drops {
		return s, nil // a policy has changed meanwhile: good for this request, and no other
	}
	if ps.bound == nil {
		ps.bound = map[boundKey]bound{}
	}
	for k := range ps.bound { // any other one: the order of a map is random
		if len(ps.bound) < mostBound {
			break
		}
		delete(ps.bound, k)
	}
	ps.bound[key] = bound{who.Made, s}
	return s, nil
}

// values are an entity's values for templated policies.
type values struct{ who *engine.Identified }

var _ policy.Values = values{}

// Value implements policy.Values.
func (v values) Value(t policy.Template) (string, bool) {
	id, name, metadata, custom := "", "", map[string]string(nil), map[string]string(nil)
	switch t.Of {
	case policy.Entity:
		id, name, metadata = v.who.ID, v.who.Name, v.who.Metadata
	case policy.Alias:
		at := slices.IndexFunc(v.who.Aliases, func(a engine.IdentifiedAlias) bool { return a.Accessor == t.Key })
		if at < 0 {
			return "", false
		}
		a := v.who.Aliases[at]
		id, name, metadata, custom = a.ID, a.Name, a.Metadata, a.Custom
	case policy.GroupByID, policy.GroupByName:
		at := slices.IndexFunc(v.who.Groups, func(g engine.IdentifiedGroup) bool {
			return t.Of == policy.GroupByID && g.ID == t.Key || t.Of == policy.GroupByName && g.Name == t.Key
		})
		if at < 0 {
			return "", false
		}
		g := v.who.Groups[at]
		id, name, metadata = g.ID, g.Name, g.Metadata
	}
	switch t.Field {
	case policy.ID:
		return id, id != ""
	case policy.Name:
		return name, name != ""
	case policy.Metadata:
		value, ok := metadata[t.Meta]
		return value, ok
	case policy.CustomMetadata:
		value, ok := custom[t.Meta]
		return value, ok
	}
	return "", false
}

// dropAliases deletes the aliases of an auth mount that is ending.
func (u *unsealed) dropAliases(ctx context.Context, m Mount) error {
	t, err := u.mounts.current(ctx)
	if err != nil {
		return err
	}
	of := t.identities[m.Namespace]
	if of == nil {
		return nil // its namespace is ending too, identities and all
	}
	i, ok := of.engine.(engine.Identity)
	if !ok {
		return nil // it is asked again after the next start: aliases without their mount give nothing
	}
	return i.DropMount(ctx, m.Accessor)
}

// sliceChanged tells an engine of a change in its slice, where it wants to
// hear of it.
func (u *unsealed) sliceChanged(c storage.Change) {
	t := u.mounts.table.Load()
	if t == nil {
		return
	}
	_, rest, _ := strings.Cut(c.Key[len(slicePrefix):], "/")
	id, rel, _ := strings.Cut(rest, "/")
	if m := t.byID[id]; m != nil && m.watcher != nil {
		m.watcher.Changed(rel, c.Rev)
	}
}

// slicesLost tells all engines that changes up to rev may have been missed.
func (u *unsealed) slicesLost(rev storage.Revision) {
	t := u.mounts.table.Load()
	if t == nil {
		return
	}
	for _, m := range t.byID {
		if m.watcher != nil {
			m.watcher.Lost(rev)
		}
	}
}

// MountOf finds a mount of a namespace by its accessor.
func (c *Core) MountOf(ctx context.Context, ns, accessor string) (Mount, bool, error) {
	u, err := c.open()
	if err != nil {
		return Mount{}, false, err
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return Mount{}, false, err
	}
	m := t.byAccessor[accessor]
	if m == nil || m.Namespace != ns {
		return Mount{}, false, nil
	}
	return m.Mount, true, nil
}
