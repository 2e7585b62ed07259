package lease

import (
	"context"
	"sort"
	"strings"

	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/storage"
)

// Keys lists what stands directly below a lease path, as LIST does: folders
// end in a slash, leases are the random parts of their ids. It is empty when
// there is nothing.
func (s *Store) Keys(ctx context.Context, ns, prefix string) ([]string, error) {
	prefix = strings.Trim(prefix, "/")
	if prefix != "" {
		prefix += "/"
	}
	found := map[string]bool{}
	err := s.cfg.Store.View(ctx, func(v storage.View) error {
		for _, sc := range s.Scopes(ns, prefix) {
			if rel, ok := strings.CutPrefix(sc.Mount.Path, prefix); ok && rel != "" {
				// The mount lies below: only whether it has any.
				from, to := sc.rows()
				err := storage.ScanEach(v, from, to, 0, func(key string, b []byte, bad error) bool {
					if !sc.holds(key, b, bad) {
						return true
					}
					first, _, _ := strings.Cut(rel, "/")
					found[first+"/"] = true
					return false
				})
				if err != nil {
					return err
				}
				continue
			}
			if err := s.below(v, sc, found); err != nil {
				return err
			}
		}
		return nil
	})
	out := make([]string, 0, len(found))
	for k := range found {
		out = append(out, k)
	}
	sort.Strings(out)
	return out, err
}

// below adds one level of a scope, with a seek per folder.
func (s *Store) below(v storage.View, sc Scope, found map[string]bool) error {
	base, end := sc.rows()
	from := base
	for {
		next := ""
		err := storage.ScanEach(v, from, end, 0, func(key string, b []byte, bad error) bool {
			if !sc.holds(key, b, bad) {
				return true
			}
			name, _, deeper := strings.Cut(key[len(base):], "/")
			if deeper {
				found[name+"/"] = true
				next = storage.PrefixEnd(base + name + "/")
				return false
			}
			r, ok := s.listed(key, b, bad)
			if !ok {
				return true
			}
			if r.Ending == nil || r.Ending.Irrevocable {
				found[r.Random] = true
			}
			return true
		})
		if err != nil || next == "" {
			return err
		}
		from = next
	}
}

// listed is a row for a list; one that cannot be read is left out and logged.
func (s *Store) listed(key string, b []byte, bad error) (*row, bool) {
	var r *row
	if bad == nil {
		r, bad = decodeRow(key, b)
	}
	if bad != nil {
		s.cfg.Log.Error("listing leases", "error", bad)
		return nil, false
	}
	return r, true
}

// Query selects leases for an operator's list.
type Query struct {
	Prefix      string
	Irrevocable bool // only those
	After       ID   // the last one of the page before
	Limit       int
}

// List gives leases with all that is known of them, in the order of their
// keys; those on their way out too. A row that cannot be read is left out and
// logged. more says that the limit cut the list.
func (s *Store) List(ctx context.Context, ns string, q Query) (out []Info, more bool, err error) {
	skip := map[string]bool{}
	for _, k := range s.keysOf(ns, q.After) {
		skip[k] = true
	}
	err = s.cfg.Store.View(ctx, func(v storage.View) error {
		started := q.After == ""
		for _, sc := range s.Scopes(ns, q.Prefix) {
			from, to := sc.rows()
			if !started {
				for k := range skip {
					if k := rowPrefix + k; k >= from && (to == "" || k < to) {
						from, started = k+"\x00", true
					}
				}
				if !started {
					continue
				}
			}
			err := storage.ScanEach(v, from, to, 0, func(key string, b []byte, bad error) bool {
				r, ok := s.listed(key, b, bad)
				if !ok || !sc.holds(key, b, bad) {
					return true
				}
				if q.Irrevocable && (r.Ending == nil || !r.Ending.Irrevocable) {
					return true
				}
				if q.Limit > 0 && len(out) == q.Limit {
					more = true
					return false
				}
				out = append(out, r.info(key[len(rowPrefix):]))
				return true
			})
			if err != nil || more {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = s.judge(ctx, ns, out)
	}
	for i := range out {
		if in := &out[i]; in.Ending && in.Error == "" && s.cfg.Lanes != nil {
			in.Error = s.cfg.Lanes.Status(in.Target).LastError
		}
	}
	return out, more, err
}

// judge marks as ending what clients cannot use any more although its turn in
// the lane has not come: leases that are over or whose owner has ended.
func (s *Store) judge(ctx context.Context, ns string, list []Info) error {
	now := s.cfg.Now()
	for i := range list {
		in := &list[i]
		if in.Ending {
			continue
		}
		in.Ending = !in.Expires.After(now)
		if in.Ending || in.Owner == "" || s.cfg.Alive == nil {
			continue
		}
		ok, err := s.cfg.Alive(ctx, ns, in.Owner)
		if err != nil {
			return err
		}
		in.Ending = !ok
	}
	return nil
}

// OnTarget reports whether any lease of kind DueKind is left on a target.
func (s *Store) OnTarget(ctx context.Context, target string) (bool, error) {
	found := false
	prefix := lane.DuePrefix + target + "/"
	err := s.cfg.Store.View(ctx, func(v storage.View) error {
		return v.Scan(prefix, storage.PrefixEnd(prefix), 1, func(string, []byte) bool {
			found = true
			return false
		})
	})
	return found, err
}

// OnMount reports whether any lease of a mount is left, ending ones and those
// that cannot be read included.
func (s *Store) OnMount(ctx context.Context, m Mount) (bool, error) {
	keys, err := s.page(ctx, Scope{Mount: m}, "", 1)
	return len(keys) > 0, err
}

// InNamespace reports whether any lease of a namespace is left, in the same
// sense.
func (s *Store) InNamespace(ctx context.Context, ns string) (found bool, err error) {
	prefix := rowPrefix + ns + "/"
	err = s.cfg.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, prefix, storage.PrefixEnd(prefix), 1, func(string, []byte, error) bool {
			found = true
			return false
		})
	})
	return found, err
}

// Tidy deletes owner keys, due keys and name reservations that point at no
// lease. There are none unless a row was quarantined and removed by hand.
func (s *Store) Tidy(ctx context.Context) (removed int, err error) {
	leaseOf := map[string]func(key string, value []byte) string{
		ownPrefix: func(key string, _ []byte) string {
			parts := strings.SplitN(key[len(ownPrefix):], "/", 3)
			return parts[len(parts)-1]
		},
		namePrefix: func(_ string, value []byte) string { return string(value) },
		heldPrefix: func(key string, _ []byte) string {
			parts := strings.SplitN(key[len(heldPrefix):], "/", 4)
			return parts[len(parts)-1]
		},
		lane.DuePrefix: func(key string, _ []byte) string {
			if w, err := lane.ParseKey(key); err == nil && w.Kind == dueKind {
				return w.ID
			}
			return ""
		},
	}
	for prefix, of := range leaseOf {
		n, err := storage.DeleteStrays(ctx, s.cfg.Store, prefix, func(key string, value []byte) string {
			if k := of(key, value); k != "" {
				return pointed(k)
			}
			return ""
		})
		removed += n
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// pointed is the row that something hangs from: a lease's, or a shared
// credential's.
func pointed(key string) string {
	if strings.HasPrefix(key, credPrefix) {
		return key
	}
	return rowPrefix + key
}
