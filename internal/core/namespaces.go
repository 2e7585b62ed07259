package core

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
)

// What is stored of namespaces, and under which keys:
//
//	ns/<id>                  Namespace, JSON; kept as a tombstone while it ends
//	nspath/<parent>/<name>   the id: the name is taken
//	alive/n/<id>             lease.Alive, or lease.Ended
//
// Everything that belongs to a namespace has its id in its keys, never its
// path. The root's id is fixed; it has a liveness key and no row.
const (
	namespacePrefix     = "ns/"
	namespacePathPrefix = "nspath/"
	namespaceLivePrefix = "alive/n/"
	namespaceVersion    = 1
)

// NamespaceLiveKey is the liveness key of a namespace.
func NamespaceLiveKey(id string) string { return namespaceLivePrefix + id }

// Namespace is a namespace as it is stored. Version 1.
type Namespace struct {
	V        int               `json:"v"`
	ID       string            `json:"id"`
	UUID     string            `json:"uuid"`
	Parent   string            `json:"parent"` // id
	Path     string            `json:"path"`   // whole, "team/app/"; the root's is ""
	Metadata map[string]string `json:"meta,omitempty"`
	Lock     string            `json:"lock,omitempty"`   // hash of the key that opens the API again
	Ending   time.Time         `json:"ending,omitzero"`  // deleted; what is in it is being ended
	Marked   bool              `json:"marked,omitempty"` // every token in it has its mark
}

func (n *Namespace) rowKey() string  { return namespacePrefix + n.ID }
func (n *Namespace) pathKey() string { return namespacePathPrefix + n.Parent + "/" + n.name() }

func (n *Namespace) name() string {
	path := strings.TrimSuffix(n.Path, "/")
	return path[strings.LastIndexByte(path, '/')+1:]
}

// space is a namespace in memory. It is never changed once it is in a table.
type space struct {
	Namespace
	parent *space            // nil: the root, or a parent that cannot be read
	kids   map[string]*space // those that route, by name
	suffix string            // of the names of tokens and leases: "." and the id; "" for the root
	live   []string          // liveness keys of it and of those above it
	ended  bool              // it or one above it is ending or not there
	locked *space            // the lock that holds here, its own or one's above it
}

// rootSpace is the root as long as there is no other namespace.
func rootSpace() *space {
	return &space{
		Namespace: Namespace{ID: token.RootNamespace}, live: []string{NamespaceLiveKey(token.RootNamespace)},
	}
}

// below gives the path of s seen from the namespace with an id, if s is that
// or below it.
func (s *space) below(id string) (rel string, ok bool) {
	for up := s; up != nil; up = up.parent {
		if up.ID == id {
			return s.Path[len(up.Path):], true
		}
	}
	return "", false
}

// spaceTable is one state of all namespaces, never changed.
type spaceTable struct {
	root   *space
	byID   map[string]*space // tombstones too
	byPath map[string]*space // those that route, by path without the last slash
}

// find is the namespace that a header and the beginning of a path name
// together, and the rest of the path.
func (t *spaceTable) find(header, path string) (s *space, rest string, ok bool) {
	s = t.root
	if header != "" {
		if s = t.byPath[header]; s == nil {
			return nil, path, false
		}
	}
	for len(s.kids) > 0 {
		name, rest, ok := strings.Cut(path, "/")
		if !ok {
			break
		}
		kid := s.kids[name]
		if kid == nil {
			break
		}
		s, path = kid, rest
	}
	return s, path, true
}

// at is the namespace at a path seen from the one with an id; nil if there is
// none.
func (t *spaceTable) at(id, path string) *space {
	s := t.byID[id]
	if s == nil || s.ended {
		return nil
	}
	if path = strings.Trim(path, "/"); path == "" {
		return s
	}
	return t.byPath[s.Path+path]
}

// spaces keeps the table of one unsealed server in step with the store.
type spaces struct {
	u     *unsealed
	table atomic.Pointer[spaceTable]
	fresh fresh
}

// current is the table, loaded anew if the store has changed.
func (ss *spaces) current(ctx context.Context) (*spaceTable, error) {
	if err := ss.fresh.ensure(func() error { return ss.load(ctx) }); err != nil {
		return nil, fmt.Errorf("loading the namespaces: %w", err)
	}
	return ss.table.Load(), nil
}

func (ss *spaces) load(ctx context.Context) error {
	t := &spaceTable{root: rootSpace(), byID: map[string]*space{}, byPath: map[string]*space{}}
	t.byID[t.root.ID] = t.root
	var list []*space
	err := ss.u.store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, namespacePrefix, storage.PrefixEnd(namespacePrefix), 0, func(key string, b []byte, bad error) bool {
			s := new(space)
			if bad == nil {
				bad = json.Unmarshal(b, &s.Namespace)
			}
			if bad == nil && s.V > namespaceVersion {
				bad = fmt.Errorf("it has version %d, written by a newer server", s.V)
			}
			if bad != nil {
				// Quarantined: it and those below it are not there, the others are.
				ss.u.core.log.Error("a namespace cannot be read; it is left out", "key", key, "error", bad)
				return true
			}
			t.byID[s.ID] = s
			list = append(list, s)
			return true
		})
	})
	if err != nil {
		return err
	}
	// Parents come before what is below them.
	slices.SortFunc(list, func(a, b *space) int { return cmp.Compare(strings.Count(a.Path, "/"), strings.Count(b.Path, "/")) })
	for _, s := range list {
		t.join(s)
	}
	ss.table.Store(t)
	return nil
}

// join fills what a namespace has from those above it.
func (t *spaceTable) join(s *space) {
	s.parent, s.suffix, s.live = t.byID[s.Parent], "."+s.ID, []string{NamespaceLiveKey(s.ID)}
	s.ended = !s.Ending.IsZero() || s.parent == nil || s.parent.ended
	if s.parent == nil {
		return
	}
	if s.parent != t.root {
		s.live = append(s.live, s.parent.live...)
	}
	if s.locked = s.parent.locked; s.locked == nil && s.Lock != "" {
		s.locked = s
	}
	if s.ended {
		return
	}
	if s.parent.kids == nil {
		s.parent.kids = map[string]*space{}
	}
	s.parent.kids[s.name()] = s
	t.byPath[strings.TrimSuffix(s.Path, "/")] = s
}

// errLocked is why a locked namespace does not answer. Who has locked it knows.
var errLocked = errors.New("the namespace is locked")

// unlockPath is what a namespace answers while its API is locked.
const unlockPath = "sys/namespaces/api-lock/unlock"

// namespaceOf finds the namespace of a request by its header and its path, and
// what of the path is left. Without namespaces, and without a header, it looks
// nothing up.
func (u *unsealed) namespaceOf(ctx context.Context, header, path string) (*space, string, error) {
	t, err := u.spaces.current(ctx)
	if err != nil {
		return nil, path, err
	}
	if header != "" {
		if header = strings.Trim(header, "/"); header == token.RootNamespace {
			header = ""
		}
	}
	s, rest, ok := t.find(header, path)
	if !ok {
		return nil, path, errs.New(errs.NotFound, "there is no namespace %q", header)
	}
	if l := s.locked; l != nil && rest != unlockPath && !strings.HasPrefix(rest, unlockPath+"/") {
		return nil, path, errs.Wrap(errs.Unavailable, errLocked,
			"API access to this namespace has been locked by an administrator - %q must be unlocked to gain access.", l.Path)
	}
	return s, rest, nil
}

// space is a namespace by its id, ending ones included; nil if there is none.
func (u *unsealed) space(ctx context.Context, id string) (*space, error) {
	t, err := u.spaces.current(ctx)
	if err != nil {
		return nil, err
	}
	return t.byID[id], nil
}

// liveKeys are the liveness keys of a namespace and of those above it. One that
// is not there has a key that is not there.
func (u *unsealed) liveKeys(ctx context.Context, id string) []string {
	if s, err := u.space(ctx, id); err == nil && s != nil {
		return s.live
	}
	return []string{NamespaceLiveKey(id)}
}

// living reports whether a namespace and those above it are there and not
// ending.
func (u *unsealed) living(id string) bool {
	s, err := u.space(u.ctx, id)
	return err == nil && s != nil && !s.ended
}

// pathOf is the path of a namespace, for records and messages.
func (u *unsealed) pathOf(id string) string {
	if s, err := u.space(u.ctx, id); err == nil && s != nil {
		return s.Path
	}
	return ""
}

// Namespaces lists the namespaces directly below one, or all below it, by
// path.
func (c *Core) Namespaces(ctx context.Context, ns string, deep bool) ([]Namespace, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	t, err := u.spaces.current(ctx)
	if err != nil {
		return nil, err
	}
	var out []Namespace
	var add func(s *space)
	add = func(s *space) {
		for _, kid := range s.kids {
			out = append(out, kid.Namespace)
			if deep {
				add(kid)
			}
		}
	}
	if s := t.byID[ns]; s != nil {
		add(s)
	}
	slices.SortFunc(out, func(a, b Namespace) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// NamespaceAt is the namespace at a path seen from another one.
func (c *Core) NamespaceAt(ctx context.Context, ns, path string) (Namespace, bool, error) {
	u, err := c.open()
	if err != nil {
		return Namespace{}, false, err
	}
	t, err := u.spaces.current(ctx)
	if err != nil {
		return Namespace{}, false, err
	}
	s := t.at(ns, path)
	if s == nil {
		return Namespace{}, false, nil
	}
	return s.Namespace, true, nil
}

// NamespaceBelow gives the path of the namespace with an id seen from another
// one: "" for that itself. It is false for one that is neither that nor below
// it, or that is not there.
func (c *Core) NamespaceBelow(ctx context.Context, ns, id string) (rel string, ok bool, err error) {
	if ns == id {
		return "", true, nil
	}
	u, err := c.open()
	if err != nil {
		return "", false, err
	}
	s, err := u.space(ctx, id)
	if err != nil || s == nil || s.ended {
		return "", false, err
	}
	rel, ok = s.below(ns)
	return rel, ok, nil
}
