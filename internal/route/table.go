package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

// maxParams is how many parameters a pattern may have.
const maxParams = 4

// Params are the parameters of one path. It is a value: finding an endpoint
// allocates nothing.
type Params struct {
	n  int
	kv [maxParams]wire.Param
}

// Get finds a parameter by its name in the pattern.
func (p *Params) Get(name string) (string, bool) {
	for i := range p.n {
		if p.kv[i].Name == name {
			return p.kv[i].Value, true
		}
	}
	return "", false
}

func (p *Params) list() []wire.Param { return p.kv[:p.n] }

// Table holds the endpoints of one mount. It is filled by an engine's Routes
// and then only read.
//
// A pattern is segments between slashes: a literal, {name} for exactly one
// segment, or at the end {name...} for the rest, which may hold slashes and
// has at least one character ({name...?}: may be empty). Literals may follow
// the rest: {path...}/tune takes what ends in them. A literal wins over {name},
// that over a rest with an end, and that over the bare rest.
type Table struct {
	root node
	all  []*Endpoint
	also []Option // of what With declares
}

// NewTable makes an empty table.
func NewTable() *Table { return &Table{} }

// With declares endpoints that have further options in common.
func (t *Table) With(declare func(t *Table), opts ...Option) {
	before := t.also
	t.also = slices.Concat(before, opts)
	declare(t)
	t.also = before
}

type node struct {
	literals []child
	param    *node  // what follows a {name}
	ends     leaf   // patterns that end here
	tails    []tail // patterns with a {name...} here and literals after it
	rest     leaf   // patterns with a {name...} here
}

// tail is what follows a rest: "/tune".
type tail struct {
	suffix string
	ends   leaf
}

type child struct {
	segment string
	node    *node
}

// leaf has an endpoint per operation.
type leaf [wire.OpHelp]*bound

// bound is an endpoint with the names of its parameters, in order.
type bound struct {
	ep       *Endpoint
	names    []string
	optional bool // the rest may be empty
}

func (t *Table) add(e *Endpoint, opts []Option) {
	for _, o := range slices.Concat(opts, t.also) {
		o(e)
	}
	b := &bound{ep: e}
	n := &t.root
	segments := strings.Split(e.Pattern, "/")
	into := &n.ends
	for i, s := range segments {
		if s == "" && len(segments) == 1 {
			break // the mount's own path
		}
		name, isParam := strings.CutPrefix(s, "{")
		name, closed := strings.CutSuffix(name, "}")
		if isParam != closed || s == "" {
			panic(fmt.Sprintf("route: bad pattern %q", e.Pattern))
		}
		if !isParam {
			n = n.literal(s)
			into = &n.ends
			continue
		}
		if base, ok := strings.CutSuffix(name, "?"); ok {
			name, b.optional = base, true
		}
		base, rest := strings.CutSuffix(name, "...")
		b.names = append(b.names, base)
		if rest {
			into = &n.rest
			if after := segments[i+1:]; len(after) > 0 {
				into = n.tail(e.Pattern, "/"+strings.Join(after, "/"))
			}
			break
		}
		if n.param == nil {
			n.param = &node{}
		}
		n = n.param
		into = &n.ends
	}
	if len(b.names) > maxParams {
		panic(fmt.Sprintf("route: %q has more than %d parameters", e.Pattern, maxParams))
	}
	if into[e.Op] != nil {
		panic(fmt.Sprintf("route: %s %q is declared twice", e.Op, e.Pattern))
	}
	into[e.Op] = b
	t.all = append(t.all, e)
}

func (n *node) tail(pattern, suffix string) *leaf {
	if strings.ContainsAny(suffix, "{}") {
		panic(fmt.Sprintf("route: %q: only literals can follow the rest", pattern))
	}
	for i := range n.tails {
		if n.tails[i].suffix == suffix {
			return &n.tails[i].ends
		}
	}
	n.tails = append(n.tails, tail{suffix: suffix})
	return &n.tails[len(n.tails)-1].ends
}

func (n *node) literal(s string) *node {
	for _, c := range n.literals {
		if c.segment == s {
			return c.node
		}
	}
	to := &node{}
	n.literals = append(n.literals, child{s, to})
	return to
}

// Lookup finds the endpoint of an operation on a path. Without one the error
// is errs.NotFound, or errs.Unsupported if the path has endpoints for other
// operations. That of OpHelp tells about the path.
func (t *Table) Lookup(op wire.Op, path string) (*Endpoint, Params, error) {
	if op == wire.OpCreate {
		op = wire.OpUpdate
	}
	if op == wire.OpList {
		path = strings.TrimSuffix(path, "/")
	}
	switch {
	case op == wire.OpHelp:
		return t.help(path)
	case op > wire.OpHelp:
		op = wire.OpNone
	}
	m := match{op: op, missing: errNoPath}
	b := m.walk(&t.root, path, path == "", 0)
	if b == nil {
		return nil, Params{}, m.missing
	}
	params := Params{n: len(b.names)}
	for i, name := range b.names {
		params.kv[i] = wire.Param{Name: name, Value: m.values[i]}
	}
	return b.ep, params, nil
}

// Route is Lookup for a request: its parameters are kept in it.
func (t *Table) Route(req *Request) (ep *Endpoint, err error) {
	ep, req.params, err = t.Lookup(req.Op, req.Path)
	return ep, err
}

// Known is Endpoint.Known for a path that somebody asks about, without an
// operation: all that a path has know its name alike.
func (t *Table) Known(path string) (known string, from int, ok bool) {
	for op := wire.OpNone + 1; op < wire.OpHelp && !ok; op++ {
		req := Request{Op: op, Path: path}
		if ep, err := t.Route(&req); err == nil {
			known, from, ok = ep.Known(&req)
		}
	}
	return known, from, ok
}

// What Lookup says when it finds nothing. Endpoints without an envelope never
// had a sentence for a wrong method either.
var (
	errNoPath     = errs.New(errs.NotFound, "unsupported path")
	errNoOp       = errs.New(errs.Unsupported, "unsupported operation")
	errNoOpOfBare = errs.New(errs.Unsupported, "")

	// ErrNoOpForAnyone is errNoOp of a path whose endpoints need no token:
	// nobody is asked for one to be told so.
	ErrNoOpForAnyone = errs.New(errs.Unsupported, "unsupported operation")
)

type match struct {
	op      wire.Op
	values  [maxParams]string
	missing error // what to say if nothing is found
}

// walk finds the best endpoint below n for what is left of the path. done says
// that nothing is left, which differs from an empty last segment ("a/").
func (m *match) walk(n *node, path string, done bool, depth int) *bound {
	if done {
		if b := m.pick(&n.ends); b != nil {
			return b
		}
		if b := n.rest[m.op]; b != nil && b.optional {
			m.values[depth] = ""
			return b
		}
		return nil
	}
	segment, rest, more := strings.Cut(path, "/")
	for i := range n.literals {
		if n.literals[i].segment == segment {
			if b := m.walk(n.literals[i].node, rest, !more, depth); b != nil {
				return b
			}
			break
		}
	}
	if n.param != nil && segment != "" {
		m.values[depth] = segment
		if b := m.walk(n.param, rest, !more, depth+1); b != nil {
			return b
		}
	}
	for i := range n.tails {
		t := &n.tails[i]
		if base, ok := strings.CutSuffix(path, t.suffix); ok && base != "" {
			if b := m.pick(&t.ends); b != nil {
				m.values[depth] = base
				return b
			}
		}
	}
	b := m.pick(&n.rest)
	if b == nil || path == "" && !b.optional {
		return nil
	}
	m.values[depth] = path
	return b
}

// pick takes the endpoint of the operation, or notes that there are others.
// A LIST of what cannot be listed is an unknown path, as the slash that ends
// it makes it one on the reference; there, too, paths outside the envelope
// know no such slash.
func (m *match) pick(l *leaf) *bound {
	if b := l[m.op]; b != nil {
		return b
	}
	for _, b := range l {
		switch {
		case b == nil || m.missing != errNoPath:
		case b.ep.Form == Bare:
			m.missing = errNoOpOfBare
		case m.op == wire.OpList && !b.rest():
		case l.open():
			m.missing = ErrNoOpForAnyone
		default:
			m.missing = errNoOp
		}
	}
	return nil
}

// open reports whether no endpoint of a path needs a token.
func (l *leaf) open() bool {
	for _, b := range l {
		if b != nil && !b.ep.Unauth {
			return false
		}
	}
	return true
}

func (b *bound) rest() bool { return strings.HasSuffix(b.ep.Pattern, "...}") || b.optional }

// Walk calls fn for every endpoint, by pattern and then operation.
func (t *Table) Walk(fn func(*Endpoint)) {
	sorted := slices.Clone(t.all)
	slices.SortStableFunc(sorted, func(a, b *Endpoint) int {
		return cmp.Or(strings.Compare(a.Pattern, b.Pattern), cmp.Compare(a.Op, b.Op))
	})
	for _, e := range sorted {
		fn(e)
	}
}
