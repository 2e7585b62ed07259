package token

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

type createIn struct {
	Role            string         `json:"role_name" doc:"Name of the role."`
	ID              secret.String  `json:"id" doc:"The token's text, of one's own choice. Needs sudo."`
	Policies        wire.CSV       `json:"policies" doc:"What the token may do; without, what the caller may."`
	Meta            wire.KV        `json:"meta" doc:"Shown with the token and in the audit log."`
	TTL             wire.TTL       `json:"ttl" doc:"How long it lives; without, the mount's default."`
	Lease           wire.TTL       `json:"lease" doc:"Older name of ttl."`
	ExplicitMaxTTL  wire.TTL       `json:"explicit_max_ttl" doc:"How long it lives at most, however often it is renewed."`
	Period          wire.TTL       `json:"period" doc:"It lives as long as it is renewed within this time. Needs sudo."`
	Renewable       wire.Opt[bool] `json:"renewable" doc:"Whether it can be renewed; it can without."`
	NumUses         int            `json:"num_uses" doc:"How many requests it is good for; 0 is any number."`
	NoParent        bool           `json:"no_parent" doc:"Make an orphan. Needs sudo."`
	NoDefaultPolicy bool           `json:"no_default_policy" doc:"Leave out the policy default."`
	DisplayName     string         `json:"display_name" doc:"Shown with the token."`
	Type            string         `json:"type" doc:"service or batch."`
	EntityAlias     string         `json:"entity_alias" doc:"Name by which this mount knows the entity that the token is to belong to. Needs a role that allows it."`
}

func (e *Engine) create(ctx context.Context, req *route.Request, in createIn) (*route.Whole, error) {
	return e.make(ctx, req, in, nil, false)
}

func (e *Engine) createOrphan(ctx context.Context, req *route.Request, in createIn) (*route.Whole, error) {
	return e.make(ctx, req, in, nil, true)
}

func (e *Engine) createByRole(ctx context.Context, req *route.Request, in createIn) (*route.Whole, error) {
	role, err := e.role(ctx, in.Role)
	if err != nil {
		return nil, err
	}
	if role == nil {
		return nil, errs.New(errs.Invalid, "unknown role %s", in.Role)
	}
	return e.make(ctx, req, in, role, false)
}

// making is one token on its way, with all that its rules look at.
type making struct {
	e      *Engine
	req    *route.Request
	in     createIn
	role   *role // nil without
	parent Token
	sudo   bool
	t      Token
}

// make makes the token: who asks, what it is, what it may do, whose child it
// is, how long it lives. Nothing may touch the policies after m.policies.
func (e *Engine) make(ctx context.Context, req *route.Request, in createIn, r *role, orphan bool) (*route.Whole, error) {
	m := &making{e: e, req: req, in: in, role: r}
	if err := m.asker(ctx); err != nil {
		return nil, err
	}
	m.t = Token{
		Path: req.Mount.Path + strings.TrimSuffix(req.Path, "/"), DisplayName: "token", NumUses: in.NumUses,
		Created: e.cfg.Now().Round(0), Renewable: in.Renewable.Or(true), MountMaxTTL: req.Mount.MaxTTL,
	}
	if len(in.Meta) > 0 {
		m.t.Meta = in.Meta
	}
	for _, step := range []func() error{m.kind, m.name, m.policies, func() error { return m.family(orphan) }, m.time} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if in.EntityAlias != "" {
		id, err := e.cfg.Identities.OfAlias(ctx, req.Mount, strings.ToLower(in.EntityAlias))
		if err != nil {
			return nil, err
		}
		m.t.EntityID = id
	}
	made, err := e.cfg.Tokens.Create(ctx, req.Mount.Namespace, m.t, in.ID)
	if err != nil {
		return nil, err
	}
	return m.answer(ctx, made)
}

// asker finds the caller's own token, which is the parent to be.
func (m *making) asker(ctx context.Context) (err error) {
	if m.parent, err = m.e.cfg.Tokens.Lookup(ctx, m.req.Caller.Token); err != nil {
		return err
	}
	switch {
	case m.parent.Batch:
		return errs.New(errs.Invalid, "batch tokens cannot create more tokens")
	case m.parent.NumUses != 0:
		return errs.New(errs.Invalid, "restricted use token cannot generate child tokens: it could escape its limit")
	case m.in.NumUses < 0:
		return errs.New(errs.Invalid, "number of uses cannot be negative")
	case m.in.EntityAlias != "" && m.role == nil:
		return errs.New(errs.Invalid, "'entity_alias' is only allowed in combination with token role")
	case m.in.EntityAlias != "" && !m.role.allowsAlias(m.in.EntityAlias):
		return errs.New(errs.Invalid, "invalid 'entity_alias' value: it is not among the role's allowed_entity_aliases")
	}
	m.sudo, err = m.e.cfg.Sudo(ctx, m.req.Caller, m.req.Mount.Path+m.req.Path)
	return err
}

// kind decides between service and batch, and refuses what a batch token has
// no place for.
func (m *making) kind() error {
	asked := m.in.Type
	if asked != "" && asked != typeService && asked != typeBatch {
		return errs.New(errs.Invalid, "invalid 'token_type' value %q: it is service or batch", asked)
	}
	batch := asked == typeBatch
	if m.role != nil {
		switch m.role.Type {
		case typeService, typeBatch:
			batch = m.role.Type == typeBatch
		case typeDefaultBatch:
			batch = asked != typeService
		}
		m.t.Role = m.role.Name
		m.t.Renewable = m.t.Renewable && m.role.Renewable
		if n := m.role.NumUses; n > 0 && (m.t.NumUses == 0 || n < m.t.NumUses) {
			m.t.NumUses = n
		}
		if m.role.PathSuffix != "" {
			m.t.Path += "/" + m.role.PathSuffix
		}
	}
	if !batch {
		return nil
	}
	m.t.Batch, m.t.Renewable = true, false
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"num_uses", m.t.NumUses != 0}, {"period", m.in.Period != 0},
		{"explicit_max_ttl", m.in.ExplicitMaxTTL != 0}, {"id", !m.in.ID.IsZero()},
	} {
		if f.set {
			return errs.New(errs.Invalid, "batch tokens cannot have %q set", f.name)
		}
	}
	return nil
}

// prefixes are how tokens begin, ours and the peers'.
var prefixes = []string{"hvs.", "hvb.", "hvr.", "s.", "b.", "r."}

// name takes the display name, and judges a text of the caller's own choice.
func (m *making) name() error {
	if m.in.DisplayName != "" {
		m.t.DisplayName = strings.TrimSuffix("token-"+strings.Map(nameRune, m.in.DisplayName), "-")
	}
	id := m.in.ID.Reveal()
	if id == "" {
		return nil
	}
	if !m.sudo {
		return errs.New(errs.Invalid, "root or sudo privileges required to specify token id")
	}
	for _, p := range prefixes {
		if strings.HasPrefix(id, p) {
			return errs.New(errs.Invalid, "custom token ID cannot have the '%s' prefix", p)
		}
	}
	switch {
	case strings.Contains(id, "."):
		return errs.New(errs.Invalid, "custom token ID cannot contain a dot: what follows one names a namespace")
	case strings.IndexFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0:
		return errs.New(errs.Invalid, "custom token ID must consist of printable ASCII characters without spaces: it is sent as a header")
	case len(id) > mostID:
		return errs.New(errs.Invalid, "custom token ID is longer than %d characters", mostID)
	}
	m.req.Warn("a token with an id of one's own choice is only as safe as that id is hard to guess; prefer the one that the server draws")
	return nil
}

const mostID = 256

func nameRune(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-':
		return r
	}
	return '-'
}

// The policies with a meaning of their own.
const (
	rootPolicy    = "root"
	defaultPolicy = "default"
)

// policies decides what the token may do.
func (m *making) policies() error {
	asked := cleanPolicies(m.in.Policies, false)
	parent := m.parent.Policies
	addDefault := false
	if m.abroad() {
		// The parent's names mean other policies here. None is handed down, and
		// it takes sudo on the way here, or a role, to give any.
		if m.role == nil && !m.sudo {
			return errs.New(errs.Invalid, "root or sudo privileges required to create a token of a namespace below one's own")
		}
		parent = nil
	}
	switch {
	case m.role != nil && m.role.rules():
		list, err := m.role.choose(asked, parent, m.in.NoDefaultPolicy)
		if err != nil {
			return err
		}
		asked = list
	case len(asked) == 0 && m.abroad():
		addDefault = !m.in.NoDefaultPolicy
	case len(asked) == 0:
		// All of the parent's, default only if it has that.
		asked = parent
	case !m.sudo:
		if !subset(asked, parent) {
			return errs.New(errs.Invalid, "child policies must be subset of parent")
		}
		addDefault = !m.in.NoDefaultPolicy && slices.Contains(parent, defaultPolicy)
	default:
		addDefault = !m.in.NoDefaultPolicy
	}
	if m.role != nil && m.role.NoDefaultPolicy {
		addDefault = false
	}
	m.t.Policies = cleanPolicies(asked, addDefault)
	if m.in.NoDefaultPolicy {
		m.t.Policies = slices.DeleteFunc(m.t.Policies, func(p string) bool { return p == defaultPolicy })
	}
	for _, p := range m.t.Policies {
		if !m.e.cfg.Assignable(p) {
			return errs.New(errs.Invalid, "cannot assign policy %q", p)
		}
	}
	if !slices.Contains(m.t.Policies, rootPolicy) {
		return nil
	}
	// Sudo on this path must not become root. Who is root is so below, too.
	if !slices.Contains(m.parent.Policies, rootPolicy) {
		return errs.New(errs.Invalid, "root tokens may not be created without parent token being root")
	}
	if m.t.Batch {
		return errs.New(errs.Invalid, "batch tokens cannot be root tokens")
	}
	return nil
}

// abroad reports whether the token is to be of a namespace below its maker's.
func (m *making) abroad() bool { return m.parent.NamespacePath != m.req.Mount.NamespacePath }

// subset reports whether a token with the policies have may give away those
// asked for.
func subset(asked, have []string) bool {
	if slices.Contains(have, rootPolicy) {
		return true
	}
	for _, p := range asked {
		if !slices.Contains(have, p) {
			return false
		}
	}
	return true
}

// cleanPolicies folds, sorts and completes names; root stands alone.
func cleanPolicies(names []string, addDefault bool) []string {
	out := make([]string, 0, len(names)+1)
	for _, n := range names {
		if n = strings.ToLower(strings.TrimSpace(n)); n != "" {
			out = append(out, n)
		}
	}
	if slices.Contains(out, rootPolicy) {
		return []string{rootPolicy}
	}
	if addDefault {
		out = append(out, defaultPolicy)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// family decides whose child the token is, and where it may be used from.
func (m *making) family(orphan bool) error {
	m.t.Parent = m.parent.Key
	switch {
	case m.role != nil:
		orphan = m.role.Orphan
		m.t.BoundCIDRs = m.role.BoundCIDRs
	case m.in.NoParent:
		if !m.sudo {
			return errs.New(errs.Invalid, "root or sudo privileges required to create orphan token")
		}
		orphan = true
	}
	if orphan {
		m.t.Parent = ""
		return nil
	}
	// In a namespace below, too: there the entity gives nothing, but refuses the
	// token when it is disabled.
	m.t.EntityID = m.parent.EntityID
	if m.role == nil {
		// A role may let its tokens be used elsewhere; nothing else may.
		m.t.BoundCIDRs = m.parent.BoundCIDRs
	}
	return nil
}

// time decides how long the token lives.
func (m *making) time() error {
	t, mount := &m.t, m.req.Mount
	if m.in.Period != 0 && !m.sudo {
		return errs.New(errs.Invalid, "root or sudo privileges required to create periodic token")
	}
	t.Period, t.ExplicitMaxTTL = m.in.Period.Duration(), m.in.ExplicitMaxTTL.Duration()
	period, explicit := t.Period, t.ExplicitMaxTTL
	if m.role != nil {
		// What the role says is asked of it again at each renewal, and so not
		// the token's own.
		period = lesser(period, m.role.Period)
		explicit = lesser(explicit, m.role.ExplicitMaxTTL)
	}
	ttl := m.in.TTL.Duration()
	if ttl == 0 {
		ttl = m.in.Lease.Duration()
	}
	root := slices.Contains(t.Policies, rootPolicy)
	if period > 0 || ttl > 0 || !root {
		most := lesser(mount.MaxTTL, explicit)
		switch {
		case period > most:
			m.req.Warn("period of %q exceeded the effective max_ttl of %q; period value is capped accordingly", period, most)
			ttl = most
		case period > 0:
			ttl = period
		default:
			if ttl == 0 {
				ttl = mount.DefaultTTL
			}
			if ttl > most {
				m.req.Warn("TTL of %q exceeded the effective max_ttl of %q; TTL value is capped accordingly", ttl, most)
				ttl = most
			}
		}
	}
	if ttl == 0 {
		ttl = explicit // a root token, too, ends where it was told to
	}
	t.TTL = ttl
	if ttl == 0 {
		if m.parent.TTL != 0 {
			return errs.New(errs.Invalid, "expiring root tokens cannot create non-expiring root tokens")
		}
		// A token without an end has nothing to renew, and one that a moved
		// operator could be locked out of is no help.
		t.Renewable, t.BoundCIDRs = false, nil
		return nil
	}
	t.Expires = t.Created.Add(ttl)
	return nil
}

// lesser is the lesser of two, of which zero says nothing.
func lesser(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

func (m *making) answer(ctx context.Context, t Token) (*route.Whole, error) {
	for _, p := range t.Policies {
		if p == rootPolicy {
			continue
		}
		ok, err := m.e.cfg.HasPolicy(ctx, m.req.Mount.Namespace, p)
		if err != nil {
			return nil, err
		}
		if !ok {
			m.req.Warn("Policy %q does not exist", p)
		}
	}
	return m.e.reply(ctx, t, t.TTL)
}

// reply is an answer about a token, with the policies that its entity has
// beside the token's own.
func (e *Engine) reply(ctx context.Context, t Token, left time.Duration) (*route.Whole, error) {
	identity, err := e.cfg.Identities.Policies(ctx, t)
	if err != nil {
		return nil, err
	}
	return &route.Whole{Auth: wire.Of(authOf(t, left, identity))}, nil
}

func authOf(t Token, left time.Duration, identity []string) route.TokenReply {
	kind := typeService
	if t.Batch {
		kind = typeBatch
	}
	return route.TokenReply{
		ClientToken: t.Text, Accessor: t.Accessor, Policies: cleanPolicies(slices.Concat(t.Policies, identity), false),
		TokenPolicies: t.Policies, IdentityPolicies: identity, Metadata: t.Meta, LeaseDuration: wire.TTL(left), Renewable: t.Renewable, EntityID: t.EntityID,
		TokenType: kind, Orphan: t.Parent == "", NumUses: max(t.NumUses, 0),
	}
}
