package policy

import (
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/policy/syntax"
	"github.com/leasehold/leasehold/internal/wire"
)

// Policy is a parsed text. It is immutable and may be shared.
type Policy struct {
	name  string
	rules []*rule
	opts  TemplateOptions
}

// TemplateOptions loosen what the values of a policy's templates may do. The
// zero value is the safe one.
type TemplateOptions struct {
	AllowSlashes   bool // a value may hold slashes; else it makes its rule match nothing
	AllowWildcards bool // a * or + in a value acts as if it stood in the policy
}

// rule is one path stanza.
type rule struct {
	path      string // with holes for templates
	templates []Template
	pattern   pattern
	grant     grant
}

// grant is what a rule, or several with the same path, say.
type grant struct {
	caps    Caps
	minWrap time.Duration // 0: no bound
	maxWrap time.Duration
	params  *constraints // nil: any parameters
	both    *[2]*grant   // nil in what rules say; else caps is what both give, and their other conditions hold
}

// join merges the grants of two rules for the same path. A denial is all that
// is left of anything that it is joined with. Of two bounds the lesser counts,
// of the lower and of the upper ones, as in Vault: the order of policies must
// not matter, and wrapping tokens should live short.
func (g grant) join(h grant) grant {
	if (g.caps|h.caps)&Deny != 0 {
		return grant{caps: Deny}
	}
	return grant{
		caps:    g.caps | h.caps,
		minWrap: lesser(g.minWrap, h.minWrap),
		maxWrap: lesser(g.maxWrap, h.maxWrap),
		params:  g.params.join(h.params),
	}
}

// and is what is left of the grant where another one has to agree.
func (g *grant) and(h *grant) *grant {
	if h == g {
		return g
	}
	caps := g.caps & h.caps
	if (g.caps|h.caps)&Deny != 0 {
		caps = Deny
	}
	return &grant{caps: caps, both: &[2]*grant{g, h}}
}

func (g *grant) checkParams(params iter.Seq2[string, wire.Value]) bool {
	if g.both != nil {
		return g.both[0].checkParams(params) && g.both[1].checkParams(params)
	}
	return g.params == nil || g.params.check(params)
}

func (g *grant) allowsWrap(ttl time.Duration) bool {
	switch {
	case g.both != nil:
		return g.both[0].allowsWrap(ttl) && g.both[1].allowsWrap(ttl)
	case g.minWrap == 0 && g.maxWrap == 0:
		return true
	}
	return ttl != 0 && ttl >= g.minWrap && (g.maxWrap == 0 || ttl <= g.maxWrap)
}

func lesser(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// Parse reads the text of an ACL policy, HCL or JSON. Errors are errs.Invalid
// and say where the fault is.
func Parse(name, text string) (*Policy, error) {
	return ParseWith(name, text, TemplateOptions{})
}

// ParseWith is Parse for a policy with other than the usual TemplateOptions.
func ParseWith(name, text string, opts TemplateOptions) (*Policy, error) {
	p := &Policy{name: name, opts: opts}
	root, err := syntax.Parse(text)
	if err == nil {
		err = p.readRoot(root)
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "failed to parse policy: %v", err)
	}
	return p, nil
}

// Name is the name that Parse was given.
func (p *Policy) Name() string { return p.name }

// Templated reports whether some rule has a template, so that Set.Bind is
// needed for it to match.
func (p *Policy) Templated() bool {
	return slices.ContainsFunc(p.rules, func(r *rule) bool { return len(r.templates) > 0 })
}

func (p *Policy) readRoot(root *syntax.Node) error {
	named := false
	for _, m := range root.Members {
		switch m.Name {
		case "name": // of old texts; the name is the one it is stored under
			if m.Value.Kind != syntax.String {
				return syntax.Errorf(m.Value.Pos, "name: expected a string, got %s", m.Value.Kind)
			}
			if named {
				return syntax.Errorf(m.Pos, `key "name" was already set`)
			}
			named = true
		case "path":
			objects, err := m.Value.Objects()
			if err != nil {
				return err
			}
			for _, o := range objects {
				for _, labelled := range o.Members {
					if err := p.readPath(labelled); err != nil {
						return err
					}
				}
			}
		default:
			return syntax.Errorf(m.Pos, "invalid key %q; a policy has \"path\" stanzas", m.Name)
		}
	}
	return nil
}

func (p *Policy) readPath(m syntax.Member) error {
	fail := func(at syntax.Pos, format string, args ...any) error {
		return syntax.Errorf(at, "path %q: "+format, append([]any{m.Name}, args...)...)
	}
	bodies, err := m.Value.Objects()
	if err != nil {
		return fail(m.Pos, "expected a block with capabilities")
	}
	holed, templates, err := parseTemplates(m.Name)
	if err != nil {
		return fail(m.Pos, "%v", err)
	}
	pat, err := parsePattern(holed)
	if err != nil {
		return fail(m.Pos, "%v", err)
	}
	for _, body := range bodies {
		g, err := readGrant(body)
		var at *syntax.Error
		if errors.As(err, &at) {
			return fail(at.Pos, "%s", at.Msg)
		}
		p.rules = append(p.rules, &rule{path: holed, templates: templates, pattern: pat, grant: g})
	}
	return nil
}

// readGrant reads the body of a path stanza. Its errors are *syntax.Error.
func readGrant(body *syntax.Node) (grant, error) {
	if err := body.Unique(); err != nil {
		return grant{}, err
	}
	var g grant
	var c constraints
	for _, m := range body.Members {
		var err error
		switch m.Name {
		case "comment":
			_, err = text(m.Value)
		case "capabilities":
			err = readCapabilities(&g, m.Value)
		case "policy":
			err = readShorthand(&g, m.Value)
		case "allowed_parameters":
			c.allowed, err = readValues(m.Value)
		case "denied_parameters":
			c.denied, err = readValues(m.Value)
		case "required_parameters":
			c.required, err = texts(m.Value)
		case "min_wrapping_ttl":
			g.minWrap, err = readTTL(m.Value)
		case "max_wrapping_ttl":
			g.maxWrap, err = readTTL(m.Value)
		case "subscribe_event_types":
			// Narrows the capability subscribe, which grants nothing here.
			_, err = texts(m.Value)
		case "mfa_methods", "control_group", "pagination_limit", "expiration", "list_scan_response_keys_filter_path":
			// They narrow what a rule grants. Taking a policy and not doing
			// what it says would grant more than its author meant.
			err = syntax.Errorf(m.Pos, "%s is not supported; the rule would grant more than it says", m.Name)
		default:
			err = syntax.Errorf(m.Pos, "invalid key %q", m.Name)
		}
		if err != nil {
			return grant{}, err
		}
	}
	if g.minWrap != 0 && g.maxWrap != 0 && g.maxWrap < g.minWrap {
		return grant{}, syntax.Errorf(body.Pos, "max_wrapping_ttl cannot be less than min_wrapping_ttl")
	}
	if g.caps&Deny != 0 {
		return grant{caps: Deny}, nil
	}
	if len(c.allowed)+len(c.denied)+len(c.required) > 0 {
		g.params = &c
	}
	return g, nil
}

func readCapabilities(g *grant, n *syntax.Node) error {
	for _, e := range n.Elements() {
		name, err := text(e)
		if err != nil {
			return err
		}
		bit, ok := parseCap(name)
		if !ok {
			return syntax.Errorf(e.Pos, "invalid capability %q", name)
		}
		g.caps |= bit
	}
	return nil
}

func readShorthand(g *grant, n *syntax.Node) error {
	name, err := text(n)
	if err != nil || name == "" {
		return err
	}
	caps, ok := shorthand(name)
	if !ok {
		return syntax.Errorf(n.Pos, "invalid policy %q", name)
	}
	g.caps |= caps
	return nil
}

// readValues reads { "name" = [values] }. Names are folded to lower case, so
// two that differ in case only are the same and are joined.
func readValues(n *syntax.Node) (map[string][]value, error) {
	objects, err := n.Objects()
	if err != nil {
		return nil, err
	}
	all := make(map[string][]value)
	for _, o := range objects {
		if err := o.Unique(); err != nil {
			return nil, err
		}
		for _, m := range o.Members {
			var values []value
			for _, e := range m.Value.Elements() {
				values = append(values, makeValue(e))
			}
			addValues(all, strings.ToLower(m.Name), values)
		}
	}
	return all, nil
}

func readTTL(n *syntax.Node) (time.Duration, error) {
	if n.Kind != syntax.String && n.Kind != syntax.Number {
		return 0, syntax.Errorf(n.Pos, "expected a duration, got %s", n.Kind)
	}
	d, err := wire.ParseTTL(n.Text)
	if err != nil {
		return 0, syntax.Errorf(n.Pos, "%v", err)
	}
	return d, nil
}

func text(n *syntax.Node) (string, error) {
	if n.Kind != syntax.String {
		return "", syntax.Errorf(n.Pos, "expected a string, got %s", n.Kind)
	}
	return n.Text, nil
}

func texts(n *syntax.Node) ([]string, error) {
	var list []string
	for _, e := range n.Elements() {
		s, err := text(e)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}
