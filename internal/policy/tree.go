package policy

import (
	"slices"
	"strings"
)

// entry is a pattern with what all rules for it grant.
type entry struct {
	pattern pattern
	grant   grant
	rank    int // among the wildcard patterns of its index; the greater wins
}

// index answers which entry matches a path best. It never changes once built.
type index struct {
	exact map[string]*entry
	byKey map[string]*entry // the patterns with wildcards
	tree  node

	capitals []*entry // those that are not in small letters
}

// node is a place in a radix tree over the literal runs of patterns. A branch
// for a whole segment of any text hangs beside the literal ones.
type node struct {
	label  string  // the literal text that leads here
	firsts string  // the first bytes of the children's labels, in their order
	kids   []*node // literal branches
	plus   *node   // a segment of any text, also an empty one; its label is ""
	end    *entry  // of the pattern that ends here
	glob   *entry  // of the pattern that ends here in *
	best   int     // the highest rank here and below
}

func (x *index) add(p pattern, g grant) {
	table, key := x.byKey, p.key()
	if p.exact() {
		table, key = x.exact, p.runs[0]
	}
	if e := table[key]; e != nil {
		e.grant = e.grant.join(g)
		return
	}
	table[key] = &entry{pattern: p, grant: g}
}

// get finds the entry for just this pattern.
func (x *index) get(p pattern) *entry {
	if p.exact() {
		return x.exact[p.runs[0]]
	}
	return x.byKey[p.key()]
}

// build ranks the patterns with wildcards and makes the tree of them. It notes
// those of both kinds that have capitals.
func (x *index) build() {
	ranked := make([]*entry, 0, len(x.byKey))
	for _, e := range x.byKey {
		ranked = append(ranked, e)
	}
	slices.SortFunc(ranked, func(a, b *entry) int { return a.pattern.compare(b.pattern) })
	for i, e := range ranked {
		e.rank = i + 1
		x.tree.insert(e)
	}
	for _, table := range [...]map[string]*entry{x.exact, x.byKey} {
		for _, e := range table {
			if !e.pattern.small() {
				x.capitals = append(x.capitals, e)
			}
		}
	}
}

func (n *node) insert(e *entry) {
	n.best = max(n.best, e.rank)
	for i, run := range e.pattern.runs {
		if i > 0 {
			if n.plus == nil {
				n.plus = &node{}
			}
			n = n.plus
			n.best = max(n.best, e.rank)
		}
		for run != "" {
			n, run = n.step(run)
			n.best = max(n.best, e.rank)
		}
	}
	if e.pattern.glob {
		n.glob = e
	} else {
		n.end = e
	}
}

// step goes to the child for the beginning of run, making or splitting it
// where needed, and returns what of run is left.
func (n *node) step(run string) (*node, string) {
	i := strings.IndexByte(n.firsts, run[0])
	if i < 0 {
		child := &node{label: run}
		n.firsts += run[:1]
		n.kids = append(n.kids, child)
		return child, ""
	}
	child := n.kids[i]
	same := 0
	for same < len(run) && same < len(child.label) && run[same] == child.label[same] {
		same++
	}
	if same < len(child.label) {
		upper := &node{label: child.label[:same], firsts: child.label[same : same+1], kids: []*node{child}, best: child.best}
		child.label = child.label[same:]
		n.kids[i] = upper
		child = upper
	}
	return child, run[same:]
}

// match returns the best of found and the entries at and below n that match
// rest, which is what of the path follows n.
func (n *node) match(rest string, found *entry) *entry {
	for {
		if found != nil && n.best <= found.rank {
			return found
		}
		if n.glob != nil && (found == nil || n.glob.rank > found.rank) {
			found = n.glob
		}
		if n.end != nil && rest == "" && (found == nil || n.end.rank > found.rank) {
			found = n.end
		}
		if n.plus != nil {
			after := ""
			if i := strings.IndexByte(rest, '/'); i >= 0 {
				after = rest[i:]
			}
			found = n.plus.match(after, found)
		}
		if rest == "" {
			return found
		}
		i := strings.IndexByte(n.firsts, rest[0])
		if i < 0 || !strings.HasPrefix(rest, n.kids[i].label) {
			return found
		}
		rest = rest[len(n.kids[i].label):]
		n = n.kids[i]
	}
}
