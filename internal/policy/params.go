package policy

import (
	"bytes"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/leasehold/leasehold/internal/policy/syntax"
	"github.com/leasehold/leasehold/internal/wire"
)

// constraints are what a rule says about the parameters of a request. Names in
// allowed and denied are in lower case. An empty list of values stands for any
// value; the name "*" for any name.
type constraints struct {
	required []string
	allowed  map[string][]value
	denied   map[string][]value
}

// value is one value that a policy names. The wire takes numbers and booleans
// as strings too, so all three are compared by their text: who denies "5" has
// denied 5, and the other way round.
type value struct {
	kind valueKind
	text string     // of a scalar; without the asterisks of a glob
	json wire.Value // canonical: of one value there is one text
}

type valueKind uint8

const (
	scalar   valueKind = iota
	prefix             // "x*"
	suffix             // "*x"
	within             // "*x*"
	null               // matches null
	compound           // a list or object, compared as a whole
)

func makeValue(n *syntax.Node) value {
	v := value{json: appendNode(nil, n)}
	switch n.Kind {
	case syntax.Null:
		v.kind = null
	case syntax.List, syntax.Object:
		v.kind = compound
	case syntax.Number:
		v.text = plainNumber(n.Text)
	case syntax.Bool:
		v.text = n.Text
	case syntax.String:
		v.text = n.Text
		// As Vault has it, a lone "*" is no glob.
		if len(v.text) < 2 {
			break
		}
		rest, before := strings.CutPrefix(v.text, "*")
		rest, after := strings.CutSuffix(rest, "*")
		switch {
		case before && after:
			v.kind = within
		case before:
			v.kind = suffix
		case after:
			v.kind = prefix
		}
		v.text = rest
	}
	return v
}

func (v value) matches(in wire.Value) bool {
	switch v.kind {
	case null:
		return in.Kind() == wire.Null
	case compound:
		k := in.Kind()
		return (k == wire.Array || k == wire.Obj) && bytes.Equal(appendCanonical(nil, in), v.json)
	}
	text, ok := in.Text()
	if !ok {
		return false
	}
	if in.Kind() == wire.Number {
		text = plainNumber(text)
	}
	switch v.kind {
	case prefix:
		return strings.HasPrefix(text, v.text)
	case suffix:
		return strings.HasSuffix(text, v.text)
	case within:
		return strings.Contains(text, v.text)
	}
	return text == v.text
}

// check judges the parameters of a request in one pass.
func (c *constraints) check(params iter.Seq2[string, wire.Value]) bool {
	found := make([]bool, len(c.required))
	_, allDenied := c.denied["*"]
	_, restAllowed := c.allowed["*"]
	for name, in := range params {
		if allDenied {
			return false
		}
		lower := strings.ToLower(name)
		if values, ok := c.denied[lower]; ok && denies(values, in) {
			return false
		}
		if len(c.allowed) > 0 {
			values, listed := c.allowed[lower]
			if !listed && !restAllowed || listed && lower != "*" && !admits(values, in) {
				return false
			}
		}
		for i, want := range c.required {
			// Routes know a parameter by its exact name, so one in other
			// letters must not pass for it.
			if name == want || name == strings.ToLower(want) {
				found[i] = true
			}
		}
	}
	return !slices.Contains(found, false)
}

func admits(values []value, in wire.Value) bool {
	return len(values) == 0 || slices.ContainsFunc(values, func(v value) bool { return v.matches(in) })
}

// denies is stricter than Vault on a lone "*": whoever writes that in a list
// of denied values means all of them.
func denies(values []value, in wire.Value) bool {
	return admits(values, in) ||
		slices.ContainsFunc(values, func(v value) bool { return v.kind == scalar && v.text == "*" })
}

// join is what the constraints of two rules for the same path come to: more
// values are allowed, more are denied, and more parameters are required. A
// rule without constraints does not lift those of another.
func (c *constraints) join(d *constraints) *constraints {
	if c == nil || d == nil || c == d {
		if c == nil {
			return d
		}
		return c
	}
	j := &constraints{
		required: slices.Clone(c.required),
		allowed:  joinValues(c.allowed, d.allowed),
		denied:   joinValues(c.denied, d.denied),
	}
	for _, r := range d.required {
		if !slices.Contains(j.required, r) {
			j.required = append(j.required, r)
		}
	}
	return j
}

func joinValues(a, b map[string][]value) map[string][]value {
	if len(a) == 0 {
		return b
	}
	j := maps.Clone(a)
	for name, more := range b {
		addValues(j, name, more)
	}
	return j
}

func addValues(all map[string][]value, name string, more []value) {
	had, ok := all[name]
	switch {
	case !ok:
		all[name] = more
	case len(had) == 0 || len(more) == 0:
		all[name] = nil // any value
	default:
		all[name] = slices.Concat(had, more)
	}
}

// plainNumber writes numbers that are equal alike: 5, 5.0 and 0.5e1. Whole
// numbers beyond 64 bits keep their digits.
func plainNumber(text string) string {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return strconv.FormatInt(n, 10)
	}
	if !strings.ContainsAny(text, ".eE") {
		return text
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return text
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.FormatInt(int64(f), 10)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

func appendNode(dst []byte, n *syntax.Node) []byte {
	switch n.Kind {
	case syntax.Null:
		return append(dst, "null"...)
	case syntax.String:
		return wire.AppendString(dst, n.Text)
	case syntax.Number:
		return append(dst, plainNumber(n.Text)...)
	case syntax.Bool:
		return append(dst, n.Text...)
	case syntax.List:
		dst = append(dst, '[')
		for i, item := range n.Items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendNode(dst, item)
		}
		return append(dst, ']')
	}
	members := make(map[string]*syntax.Node, len(n.Members))
	for _, m := range n.Members {
		members[m.Name] = m.Value
	}
	return appendSorted(dst, members, appendNode)
}

// appendCanonical writes a request's value as appendNode writes a policy's.
func appendCanonical(dst []byte, v wire.Value) []byte {
	switch v.Kind() {
	case wire.Null:
		return append(dst, "null"...)
	case wire.String:
		s, _ := v.Text()
		return wire.AppendString(dst, s)
	case wire.Number:
		return append(dst, plainNumber(string(v))...)
	case wire.Bool:
		return append(dst, v...)
	case wire.Array:
		dst = append(dst, '[')
		first := true
		for item := range v.Elements() {
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = appendCanonical(dst, item)
		}
		return append(dst, ']')
	}
	return appendSorted(dst, maps.Collect(wire.Object(v).All()), appendCanonical)
}

func appendSorted[V any](dst []byte, members map[string]V, appendValue func([]byte, V) []byte) []byte {
	dst = append(dst, '{')
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(wire.AppendString(dst, name), ':')
		dst = appendValue(dst, members[name])
	}
	return append(dst, '}')
}
