package core

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// mountTable is one state of the table, never changed.
type mountTable struct {
	byPath map[string]*mounted   // <ns>/<path>; those that route
	byID   map[string]*mounted   // tombstones too
	ofNS   map[string][]*mounted // by namespace; tombstones too
	depth  int                   // most segments of a path

	byAccessor map[string]*mounted // those that route
	identities map[string]*mounted // by namespace: the mount that knows its entities
}

// find is the mount whose path is the longest prefix of path, and the rest.
func (t *mountTable) find(ns, path string) (*mounted, string) {
	var best *mounted
	end := 0
	full := ns + "/" + path
	at := len(ns) + 1
	for range t.depth {
		i := strings.IndexByte(full[at:], '/')
		if i < 0 {
			break
		}
		at += i + 1
		if m := t.byPath[full[:at]]; m != nil {
			best, end = m, at
		}
	}
	if best == nil {
		// "secret" without its slash is the mount's own path.
		if m := t.byPath[full+"/"]; m != nil {
			return m, ""
		}
		return nil, ""
	}
	return best, full[end:]
}

func (t *mountTable) add(m *mounted) {
	t.byID[m.ID] = m
	t.ofNS[m.Namespace] = append(slices.Clip(t.ofNS[m.Namespace]), m)
	if !m.Ending.IsZero() {
		return
	}
	t.byPath[m.Namespace+"/"+m.Path] = m
	t.byAccessor[m.Accessor] = m
	if m.Class == ClassSecret && m.Type == "identity" {
		t.identities[m.Namespace] = m
	}
	t.depth = max(t.depth, strings.Count(m.Path, "/"))
}

// clone is a table that may be changed; of nil an empty one.
func (t *mountTable) clone() *mountTable {
	n := new(mountTable)
	if t != nil {
		*n = *t
	}
	n.byPath, n.byID, n.ofNS = cloned(n.byPath), cloned(n.byID), cloned(n.ofNS)
	n.byAccessor, n.identities = cloned(n.byAccessor), cloned(n.identities)
	return n
}

func cloned[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return maps.Clone(m)
}

// drop takes a mount out of a table that may be changed.
func (t *mountTable) drop(id string) {
	m := t.byID[id]
	if m == nil {
		return
	}
	delete(t.byID, id)
	others := slices.DeleteFunc(slices.Clone(t.ofNS[m.Namespace]), func(o *mounted) bool { return o == m })
	if t.ofNS[m.Namespace] = others; len(others) == 0 {
		delete(t.ofNS, m.Namespace)
	}
	dropFrom(t.byPath, m.Namespace+"/"+m.Path, m)
	dropFrom(t.byAccessor, m.Accessor, m)
	dropFrom(t.identities, m.Namespace, m)
}

func dropFrom(t map[string]*mounted, key string, m *mounted) {
	if t[key] == m {
		delete(t, key)
	}
}

// staleRows are the rows that have changed since they were loaded: a change of
// one mount must not cost reading all mounts of all namespaces.
type staleRows struct {
	mu   sync.Mutex
	keys map[string]bool
	all  bool // which ones is not known
}

func (s *staleRows) add(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		s.keys = map[string]bool{}
	}
	s.keys[key] = true
}

func (s *staleRows) addAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = true
}

func (s *staleRows) take() (keys []string, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys, all = slices.Sorted(maps.Keys(s.keys)), s.all
	s.keys, s.all = nil, false
	return keys, all
}
