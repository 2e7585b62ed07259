package policy

import (
	"iter"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/wire"
)

// Set is the policies of a token, joined. It is immutable and may be shared by
// all tokens that have the same policies.
type Set struct {
	root      bool
	shared    *index
	templated []templated

	// bound has the templated rules with the values of one entity put in; nil
	// without. Where shared has an entry for the same pattern, the one in
	// bound is what both come to.
	bound *index
}

type templated struct {
	rule *rule
	opts TemplateOptions
}

var root = &Set{root: true, shared: &index{}}

// RootSet allows everything.
func RootSet() *Set { return root }

// NewSet joins policies. A nil policy, one that has been deleted, grants
// nothing; so does a Set of none. Rules with templates match nothing until
// Bind.
func NewSet(policies ...*Policy) *Set {
	s := &Set{shared: &index{exact: map[string]*entry{}, byKey: map[string]*entry{}}}
	for _, p := range policies {
		if p == nil {
			continue
		}
		for _, r := range p.rules {
			if len(r.templates) > 0 {
				s.templated = append(s.templated, templated{r, p.opts})
				continue
			}
			s.shared.add(r.pattern, r.grant)
		}
	}
	s.shared.build()
	return s
}

// Bind returns the Set for the entity with these values. Its cost is that of
// the rules with templates, not of all: keep the result with the token, and
// bind again when the values change. The values are read here and not later.
func (s *Set) Bind(values Values) *Set {
	if len(s.templated) == 0 || values == nil {
		return s
	}
	b := &index{exact: map[string]*entry{}, byKey: map[string]*entry{}}
	for _, t := range s.templated {
		p, ok := t.rule.bind(values, t.opts)
		if !ok {
			continue
		}
		g := t.rule.grant
		if e := s.shared.get(p); e != nil {
			g = e.grant.join(g)
		}
		b.add(p, g)
	}
	b.build()
	return &Set{shared: s.shared, templated: s.templated, bound: b}
}

// Decision is the answer of a Set. The zero Decision refuses.
type Decision struct {
	// Allowed says that the operation is granted. Two conditions may remain,
	// which AllowsWrap and CheckParams judge.
	Allowed bool
	// Caps are the capabilities of the rule that decided; none if none did.
	Caps Caps

	root   bool
	params bool
	grant  *grant
}

// Root reports whether the Set is the root one.
func (d Decision) Root() bool { return d.root }

// Sudo reports whether the token may use what is protected on this path.
func (d Decision) Sudo() bool { return d.root || d.Caps&(Sudo|Deny) == Sudo }

// AllowsWrap reports whether the answer may be given with this wrapping TTL;
// 0 is an answer that is not wrapped.
func (d Decision) AllowsWrap(ttl time.Duration) bool {
	for g := d.grant; g != nil; g = g.also {
		if !g.allowsWrap(ttl) {
			return false
		}
	}
	return d.Allowed
}

func (g *grant) allowsWrap(ttl time.Duration) bool {
	if g.minWrap == 0 && g.maxWrap == 0 {
		return true
	}
	return ttl != 0 && ttl >= g.minWrap && (g.maxWrap == 0 || ttl <= g.maxWrap)
}

// NeedsParams reports whether CheckParams would look at the parameters, so
// that nobody reads a body for nothing.
func (d Decision) NeedsParams() bool { return d.params }

// CheckParams judges the parameters of the request: the members of its body
// (wire.Object.All), or the values of its query. Those that stand in the path
// are not among them.
func (d Decision) CheckParams(params iter.Seq2[string, wire.Value]) bool {
	if !d.params {
		return d.Allowed
	}
	for g := d.grant; g != nil; g = g.also {
		if g.params != nil && !g.params.check(params) {
			return false
		}
	}
	return d.Allowed
}

// Allow decides on one operation. The path is the canonical one, mount
// included, without "/v1/"; that of a LIST ends in a slash. It allocates
// nothing.
func (s *Set) Allow(path string, op wire.Op) Decision {
	if s.root {
		return Decision{Allowed: true, root: true}
	}
	if op == wire.OpHelp {
		return Decision{Allowed: true} // what help says is no secret
	}
	e := s.find(path, op == wire.OpList)
	if e == nil {
		return Decision{}
	}
	g := &e.grant
	if op != wire.OpList && strings.HasSuffix(path, "/") && !e.pattern.exact() {
		g = g.and(s.find(path[:len(path)-1], false))
	}
	allowed := g.caps&Deny == 0 && g.caps&needed(op) != 0
	return Decision{
		Allowed: allowed,
		Caps:    g.caps,
		params:  allowed && g.judged() && judgesParams(op),
		grant:   g,
	}
}

// Capabilities are what the API answers for a path: sorted names, "root" or
// "deny" alone. Where a path ends in a slash, list is there if a LIST is
// allowed, and the others if what they are for is.
func (s *Set) Capabilities(path string) []string {
	if s.root {
		return []string{"root"}
	}
	caps := s.Allow(path, wire.OpRead).Caps
	if strings.HasSuffix(path, "/") {
		caps &^= List | Deny
		if l := s.Allow(path, wire.OpList); l.Allowed {
			caps |= l.Caps & (List | Sudo)
		}
	}
	return caps.Names()
}

// Reaches reports whether something is granted on the path of a mount or
// anywhere below it. It decides what a listing of mounts shows, not what may
// be done; so a denial deeper down does not matter.
func (s *Set) Reaches(mount string) bool {
	if s.root {
		return true
	}
	if e := s.find(mount, true); e != nil && e.grant.caps != 0 && e.grant.caps&Deny == 0 {
		return true
	}
	return s.shared.reaches(mount) || s.bound != nil && s.bound.reaches(mount)
}

func (x *index) reaches(mount string) bool {
	for _, table := range [...]map[string]*entry{x.exact, x.byKey} {
		for _, e := range table {
			if e.grant.caps != 0 && e.grant.caps&Deny == 0 && e.pattern.matchesUnder(mount) {
				return true
			}
		}
	}
	return false
}

// find is the order of a check, as the package comment has it.
func (s *Set) find(path string, list bool) *entry {
	path = strings.TrimLeft(path, "/")
	if e := s.exact(path); e != nil {
		return e
	}
	bare, slash := strings.CutSuffix(path, "/")
	if !list || !slash {
		return s.best(path)
	}
	if e := s.exact(bare); e != nil {
		return e
	}
	whole := s.best(path)
	if e := s.best(bare); e != nil && (whole == nil || whole.grant.caps&Deny == 0) {
		return e
	}
	return whole
}

func (s *Set) exact(path string) *entry {
	if s.bound != nil {
		if e := s.bound.exact[path]; e != nil {
			return e
		}
	}
	return s.shared.exact[path]
}

// best is the entry with wildcards that matches best.
func (s *Set) best(path string) *entry {
	e := s.shared.tree.match(path, nil)
	if s.bound == nil {
		return e
	}
	b := s.bound.tree.match(path, nil)
	// Of equal ones it is the bound one, which is what both come to.
	if b != nil && (e == nil || b.pattern.compare(e.pattern) >= 0) {
		return b
	}
	return e
}
