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
	return d.Allowed && (d.grant == nil || d.grant.allowsWrap(ttl))
}

// NeedsParams reports whether CheckParams would look at the parameters, so
// that nobody reads a body for nothing.
func (d Decision) NeedsParams() bool {
	return d.params && (d.grant.params != nil || d.grant.both != nil)
}

// CheckParams judges the parameters of the request: the members of its body
// (wire.Object.All), or the values of its query. Those that stand in the path
// are not among them.
func (d Decision) CheckParams(params iter.Seq2[string, wire.Value]) bool {
	return d.Allowed && (!d.params || d.grant.checkParams(params))
}

// Allow decides on one operation. The path is the canonical one, mount
// included, without "/v1/"; that of a LIST ends in a slash. It allocates
// nothing, unless two rules have to agree.
func (s *Set) Allow(path string, op wire.Op) Decision {
	if s.root {
		return Decision{Allowed: true, root: true}
	}
	if op == wire.OpHelp {
		return Decision{Allowed: true} // what help says is no secret
	}
	g := s.grantFor(path, op, asIs)
	if g == nil {
		return Decision{}
	}
	return g.decide(op)
}

// As is another way to write a path, because the endpoint takes the name in it
// in more than one spelling: as it knows the name. The zero As is none.
type As struct {
	Path string // from From on in small letters
	From int    // where the name begins, in the path as it was asked for, too
}

// AllowAs is Allow for an endpoint that knows what the path names by another
// spelling, too. Whoever is kept from a thing by a rule is kept from it however
// the rule or the request is spelt: the best rule must allow the operation that
// matches as.Path when what rules have from as.From on is read in small letters.
func (s *Set) AllowAs(path string, as As, op wire.Op) Decision {
	if as.Path == "" || s.root || op == wire.OpHelp || as.Path == path && !s.capitals() {
		return s.Allow(path, op)
	}
	g, known := s.grantFor(path, op, asIs), s.grantFor(as.Path, op, as.From)
	if g == nil || known == nil {
		return Decision{}
	}
	return g.and(known).decide(op)
}

// capitals reports whether some rule is not in small letters.
func (s *Set) capitals() bool {
	return len(s.shared.capitals) > 0 || s.bound != nil && len(s.bound.capitals) > 0
}

// decide is what a grant says of an operation.
func (g *grant) decide(op wire.Op) Decision {
	allowed := g.caps&Deny == 0 && g.caps&needed(op) != 0
	return Decision{
		Allowed: allowed,
		Caps:    g.caps,
		params:  allowed && judgesParams(op),
		grant:   g,
	}
}

// asIs is the offset in a path from which on rules are read in small letters,
// where they are read as they are written.
const asIs = -1

// grantFor is what is granted on a path; nil without a rule for it.
func (s *Set) grantFor(path string, op wire.Op, small int) *grant {
	e := s.find(path, op == wire.OpList, small)
	if e == nil {
		return nil
	}
	g := &e.grant
	if op != wire.OpList && strings.HasSuffix(path, "/") && !e.pattern.exact() {
		if bare := s.find(path[:len(path)-1], false, small); bare != nil {
			g = g.and(&bare.grant)
		}
	}
	return g
}

// Capabilities are what the API answers for a path: sorted names, "root" or
// "deny" alone. Where a path ends in a slash, list is there if a LIST is
// allowed, and the others if what they are for is.
func (s *Set) Capabilities(path string) []string { return s.CapabilitiesAs(path, As{}) }

// CapabilitiesAs is Capabilities of an endpoint for which requests are judged by
// AllowAs.
func (s *Set) CapabilitiesAs(path string, as As) []string {
	if s.root {
		return []string{"root"}
	}
	caps := s.AllowAs(path, as, wire.OpRead).Caps
	if strings.HasSuffix(path, "/") {
		caps &^= List | Deny
		if l := s.AllowAs(path, as, wire.OpList); l.Allowed {
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
	if e := s.find(mount, true, asIs); e != nil && e.grant.caps != 0 && e.grant.caps&Deny == 0 {
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

// find is the order of a check, as the package comment has it. From the offset
// small on, rules are read in small letters.
func (s *Set) find(path string, list bool, small int) *entry {
	path = strings.TrimLeft(path, "/")
	if e := s.exact(path, small); e != nil {
		return e
	}
	bare, slash := strings.CutSuffix(path, "/")
	if !list || !slash {
		return s.best(path, small)
	}
	if e := s.exact(bare, small); e != nil {
		return e
	}
	whole := s.best(path, small)
	if e := s.best(bare, small); e != nil && (whole == nil || whole.grant.caps&Deny == 0) {
		return e
	}
	return whole
}

// exact is the entry without wildcards that matches. It is small, so that most
// checks make no call for it.
func (s *Set) exact(path string, small int) *entry {
	if s.bound == nil && small == asIs {
		return s.shared.exact[path]
	}
	return s.exactOf(path, small)
}

func (s *Set) exactOf(path string, small int) (e *entry) {
	if s.bound != nil {
		e = s.bound.exact[path]
	}
	if e == nil {
		e = s.shared.exact[path]
	}
	if small == asIs {
		return e
	}
	return s.orCapitals(e, true, path, small)
}

// best is the entry with wildcards that matches best.
func (s *Set) best(path string, small int) *entry {
	e := s.shared.tree.match(path, nil)
	if s.bound != nil {
		// Of equal ones it is the bound one, which is what both come to.
		if b := s.bound.tree.match(path, nil); b != nil && (e == nil || b.pattern.compare(e.pattern) >= 0) {
			e = b
		}
	}
	if small == asIs {
		return e
	}
	return s.orCapitals(e, false, path, small)
}

// orCapitals is the best entry of found, nil for none, and those with capitals
// that match once these are small. Rules that are the same then are joined.
// Only paths with names that are known by several spellings come here, so the
// entries are gone through one by one.
func (s *Set) orCapitals(found *entry, exact bool, path string, small int) *entry {
	for _, x := range [...]*index{s.shared, s.bound} {
		if x == nil {
			continue
		}
		for _, e := range x.capitals {
			if e == found || e.pattern.exact() != exact || !e.pattern.matchesSmall(path, small) {
				continue
			}
			switch {
			case found == nil:
				found = e
			case exact || e.pattern.sameSmall(found.pattern):
				found = &entry{pattern: found.pattern, grant: found.grant.join(e.grant)}
			case e.pattern.compare(found.pattern) > 0:
				found = e
			}
		}
	}
	return found
}
