package mem

import (
	"slices"
	"sort"
)

// tree is an immutable B+tree: rows are in the leaves, and a changed tree
// shares all nodes with the old one but those on the way to the change. Nodes
// are removed when they are empty, not merged when they are sparse: that keeps
// deleting as simple as inserting and costs little with keys that come and go.
type tree struct {
	root  *node // nil: empty
	bytes int   // keys and values
}

const maxWidth = 32 // rows of a leaf, children of an inner node

type node struct {
	edit uint64 // which edit made the node and may change it in place

	keys []string // leaf: the rows' keys; inner: keys[i] is the least that kids[i+1] may hold
	vals [][]byte // leaf only
	kids []*node  // inner only
}

func (t tree) get(key string) []byte {
	n := t.root
	if n == nil {
		return nil
	}
	for n.kids != nil {
		n = n.kids[n.kid(key)]
	}
	if i, found := slices.BinarySearch(n.keys, key); found {
		return n.vals[i]
	}
	return nil
}

// kid is the index of the child in which key is, if it is anywhere.
func (n *node) kid(key string) int {
	return sort.Search(len(n.keys), func(i int) bool { return n.keys[i] > key })
}

// ascend calls fn for rows in [from, to) until it returns false.
func (t tree) ascend(from, to string, fn func(string, []byte) bool) {
	if t.root != nil {
		t.root.ascend(from, to, fn)
	}
}

func (n *node) ascend(from, to string, fn func(string, []byte) bool) bool {
	if n.kids != nil {
		for i := n.kid(from); i < len(n.kids); i++ {
			if !n.kids[i].ascend(from, to, fn) {
				return false
			}
		}
		return true
	}
	i, _ := slices.BinarySearch(n.keys, from)
	for ; i < len(n.keys); i++ {
		if to != "" && n.keys[i] >= to || !fn(n.keys[i], n.vals[i]) {
			return false
		}
	}
	return true
}

// descend is ascend from the other end.
func (t tree) descend(from, to string, fn func(string, []byte) bool) {
	if t.root != nil {
		t.root.descend(from, to, fn)
	}
}

func (n *node) descend(from, to string, fn func(string, []byte) bool) bool {
	if n.kids != nil {
		i := len(n.kids) - 1
		if to != "" {
			i = n.kid(to)
		}
		for ; i >= 0; i-- {
			if !n.kids[i].descend(from, to, fn) {
				return false
			}
		}
		return true
	}
	i := len(n.keys)
	if to != "" {
		i, _ = slices.BinarySearch(n.keys, to)
	}
	for i--; i >= 0; i-- {
		if n.keys[i] < from || !fn(n.keys[i], n.vals[i]) {
			return false
		}
	}
	return true
}

// edit makes a changed tree. Nodes it has copied once it changes in place, so
// that a transaction copies each node at most once. (Nodes know it by number:
// a pointer would keep the old tree in memory.)
type edit struct {
	tree
	id uint64
}

func (e *edit) own(n *node) *node {
	if n.edit == e.id {
		return n
	}
	c := &node{edit: e.id, keys: grown(n.keys)}
	if n.kids != nil {
		c.kids = grown(n.kids)
	} else {
		c.vals = grown(n.vals)
	}
	return c
}

// grown is a copy with room for one more.
func grown[T any](s []T) []T { return append(make([]T, 0, len(s)+1), s...) }

func (e *edit) set(key string, value []byte) {
	if e.root == nil {
		e.root = &node{edit: e.id}
	}
	left, sep, right := e.setIn(e.root, key, value)
	e.root = left
	if right != nil {
		e.root = &node{edit: e.id, keys: []string{sep}, kids: []*node{left, right}}
	}
}

// setIn returns the changed node and, when it had to be split, the least key
// of the new right neighbour and that neighbour.
func (e *edit) setIn(n *node, key string, value []byte) (left *node, sep string, right *node) {
	n = e.own(n)
	if n.kids == nil {
		e.setLeaf(n, key, value)
		if len(n.keys) <= maxWidth {
			return n, "", nil
		}
		const half = maxWidth / 2
		right = &node{edit: e.id, keys: slices.Clone(n.keys[half:]), vals: slices.Clone(n.vals[half:])}
		n.keys, n.vals = slices.Delete(n.keys, half, len(n.keys)), slices.Delete(n.vals, half, len(n.vals))
		return n, right.keys[0], right
	}
	i := n.kid(key)
	kid, s, r := e.setIn(n.kids[i], key, value)
	n.kids[i] = kid
	if r == nil {
		return n, "", nil
	}
	n.keys, n.kids = slices.Insert(n.keys, i, s), slices.Insert(n.kids, i+1, r)
	if len(n.kids) <= maxWidth {
		return n, "", nil
	}
	const half = maxWidth / 2
	sep = n.keys[half-1]
	right = &node{edit: e.id, keys: slices.Clone(n.keys[half:]), kids: slices.Clone(n.kids[half:])}
	n.keys, n.kids = slices.Delete(n.keys, half-1, len(n.keys)), slices.Delete(n.kids, half, len(n.kids))
	return n, sep, right
}

func (e *edit) setLeaf(n *node, key string, value []byte) {
	i, found := slices.BinarySearch(n.keys, key)
	e.bytes += len(value)
	if found {
		e.bytes -= len(n.vals[i])
		n.vals[i] = value
		return
	}
	e.bytes += len(key)
	n.keys, n.vals = slices.Insert(n.keys, i, key), slices.Insert(n.vals, i, value)
}

func (e *edit) delete(key string) {
	old := e.get(key)
	if old == nil {
		return
	}
	e.bytes -= len(key) + len(old)
	e.root = e.deleteIn(e.root, key)
	for e.root != nil && len(e.root.kids) == 1 {
		e.root = e.root.kids[0]
	}
}

// deleteIn returns the changed node, nil when nothing is left of it. The key
// is there.
func (e *edit) deleteIn(n *node, key string) *node {
	n = e.own(n)
	if n.kids == nil {
		i, _ := slices.BinarySearch(n.keys, key)
		n.keys, n.vals = slices.Delete(n.keys, i, i+1), slices.Delete(n.vals, i, i+1)
		if len(n.keys) == 0 {
			return nil
		}
		return n
	}
	i := n.kid(key)
	if kid := e.deleteIn(n.kids[i], key); kid != nil {
		n.kids[i] = kid
		return n
	}
	if len(n.kids) == 1 {
		return nil
	}
	k := max(i-1, 0) // the separator beside the child that is gone
	n.keys, n.kids = slices.Delete(n.keys, k, k+1), slices.Delete(n.kids, i, i+1)
	return n
}
