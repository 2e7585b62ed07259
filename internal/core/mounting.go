package core

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage"
)

// This file changes the mount table: mounts are made, tuned, moved and ended.
// mounts.go keeps what is in memory in step.

// AddMount makes a mount. Its path must be free, neither below nor above
// another one. The id and accessor are filled in.
func (c *Core) AddMount(ctx context.Context, m *Mount) error {
	u, err := c.open()
	if err != nil {
		return err
	}
	if err := c.checkPath(m.Path, m.Class); err != nil {
		return err
	}
	m.draw()
	t, err := u.mounts.current(ctx)
	if err != nil {
		return err
	}
	if err := t.free(m.Namespace, m.Path); err != nil {
		return err
	}
	if err := u.besideSpaces(ctx, m.Namespace, m.Path); err != nil {
		return err
	}
	live := u.liveKeys(ctx, m.Namespace)
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		if err := allLive(tx, live); err != nil {
			return err
		}
		return addMount(tx, m)
	})
	if err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	_, err = u.mounts.current(ctx)
	return err
}

// draw gives a new mount its id and accessor.
func (m *Mount) draw() {
	m.V, m.ID = mountVersion, newUUID()
	m.Accessor = m.Type + "_" + m.ID[:8]
	if m.Class == ClassAuth {
		m.Accessor = "auth_" + m.Accessor
	}
}

// free says why no mount can be made at path. Two requests for overlapping
// paths at the same moment may both pass; the longer one then wins in routing,
// as it does for mounts that were made one inside the other by Vault.
func (t *mountTable) free(ns, path string) error {
	for _, m := range t.ofNS[ns] {
		if m.Ending.IsZero() && (strings.HasPrefix(m.Path, path) || strings.HasPrefix(path, m.Path)) {
			return errs.New(errs.Invalid, "path is already in use at %s", m.Path)
		}
	}
	return nil
}

// besideSpaces says why no mount can be made at path: a namespace answers there.
func (u *unsealed) besideSpaces(ctx context.Context, ns, path string) error {
	s, err := u.space(ctx, ns)
	if err != nil || s == nil {
		return err
	}
	first, _, _ := strings.Cut(path, "/")
	if s.kids[first] != nil {
		return errs.New(errs.Invalid, "path is already in use: %s/ is a namespace", first)
	}
	return nil
}

func addMount(tx storage.Tx, m *Mount) error {
	if v, err := tx.Get(m.pathKey()); err != nil || v != nil {
		if err == nil {
			err = errs.New(errs.Invalid, "path is already in use at %s", m.Path)
		}
		return err
	}
	if err := tx.Put(m.pathKey(), []byte(m.ID)); err != nil {
		return err
	}
	if err := tx.Put(m.LiveKey(), []byte(lease.Alive)); err != nil {
		return err
	}
	return putMount(tx, m)
}

func putMount(tx storage.Tx, m *Mount) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return tx.Put(m.rowKey(), b)
}

func getMount(tx storage.Reader, ns, id string) (*Mount, error) {
	b, err := tx.Get(mountPrefix + ns + "/" + id)
	if err != nil || b == nil {
		return nil, err
	}
	m := new(Mount)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("mount %s: %w", id, err)
	}
	return m, nil
}

func (c *Core) checkPath(path, class string) error {
	rel := path
	if class == ClassAuth {
		rel = strings.TrimPrefix(path, "auth/")
	}
	if rel == "" || rel == "/" || !strings.HasSuffix(path, "/") {
		return errs.New(errs.Invalid, "a mount needs a path")
	}
	if len(path) > 512 {
		return errs.New(errs.Invalid, "the path is longer than 512 characters")
	}
	if class != ClassAuth {
		for _, own := range []string{"sys/", "auth/", "identity/", "cubbyhole/", "audit/"} {
			if strings.HasPrefix(path, own) {
				return errs.New(errs.Invalid, "path %q is reserved by the server; choose another", own)
			}
		}
	}
	return nil
}

// TuneMount changes what change changes in the stored entry.
func (c *Core) TuneMount(ctx context.Context, ns, path string, change func(*Mount) error) error {
	u, err := c.open()
	if err != nil {
		return err
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return err
	}
	m := t.byPath[ns+"/"+path]
	if m == nil {
		return errs.New(errs.Invalid, "no mount at %q", path)
	}
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		row, err := getMount(tx, ns, m.ID)
		if err != nil {
			return err
		}
		if row == nil || !row.Ending.IsZero() {
			return errs.New(errs.Invalid, "no mount at %q", path)
		}
		if err := change(row); err != nil {
			return err
		}
		return putMount(tx, row)
	})
	if err != nil {
		return err
	}
	_, err = u.mounts.current(ctx)
	return err
}

// MoveMount gives a mount another path. Its leases are revoked, as Vault does:
// their ids name the old path.
func (c *Core) MoveMount(ctx context.Context, ns, from, to string) error {
	u, err := c.open()
	if err != nil {
		return err
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return err
	}
	m := t.byPath[ns+"/"+from]
	if m == nil {
		return errs.New(errs.Invalid, "no matching mount at %q", from)
	}
	if m.Protected() {
		return errs.New(errs.Invalid, "cannot remount %q: it is the server's own", from)
	}
	if err := c.checkPath(to, m.Class); err != nil {
		return err
	}
	if strings.HasPrefix(to, "auth/") != (m.Class == ClassAuth) {
		return errs.New(errs.Invalid, "cannot remount from %s to %s: auth methods stay under auth/, secrets engines outside it", from, to)
	}
	if err := t.free(ns, to); err != nil {
		return err
	}
	if err := u.besideSpaces(ctx, ns, to); err != nil {
		return err
	}
	var moved time.Time
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		moved = c.cfg.Now()
		row, err := getMount(tx, ns, m.ID)
		if err != nil || row == nil {
			return err
		}
		if v, err := tx.Get(mountPathPrefix + ns + "/" + to); err != nil || v != nil {
			if err == nil {
				err = errs.New(errs.Invalid, "path is already in use at %s", to)
			}
			return err
		}
		if err := tx.Delete(row.pathKey()); err != nil {
			return err
		}
		if !slices.Contains(row.Former, from) {
			row.Former = append(row.Former, from)
		}
		row.Path = to
		if err := tx.Put(row.pathKey(), []byte(row.ID)); err != nil {
			return err
		}
		return putMount(tx, row)
	})
	if err != nil {
		return fmt.Errorf("remounting: %w", err)
	}
	if err := u.leases.RevokeMount(ctx, lease.Mount{Namespace: ns, ID: m.ID, Path: from}); err != nil {
		return err
	}
	if m.Class == ClassAuth {
		if err := u.tokens.RevokeMount(ctx, ns, m.ID, from, moved); err != nil {
			return err
		}
	}
	_, err = u.mounts.current(ctx)
	return err
}

// RemoveMount begins to end a mount: it is gone from routing at once, no lease
// can be committed for it any more, and those that it has are revoked through
// their lanes. Its configuration stays as a tombstone until they are gone.
func (c *Core) RemoveMount(ctx context.Context, ns, path string) error {
	u, err := c.open()
	if err != nil {
		return err
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return err
	}
	m := t.byPath[ns+"/"+path]
	if m == nil {
		return nil
	}
	if m.Protected() {
		return errs.New(errs.Invalid, "cannot unmount %q: it is the server's own", path)
	}
	gone, err := u.markMount(ctx, &m.Mount)
	if err != nil {
		return fmt.Errorf("unmounting: %w", err)
	}
	if _, err := u.mounts.current(ctx); err != nil {
		return err
	}
	// From here on it is finished after a crash too: see sweepMounts.
	return u.endMount(ctx, gone)
}

// markMount writes the mark by which a mount ends, and gives it as it is then.
func (u *unsealed) markMount(ctx context.Context, m *Mount) (gone Mount, err error) {
	gone = *m
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		row, err := getMount(tx, m.Namespace, m.ID)
		if err != nil || row == nil {
			return err
		}
		gone = *row
		if !row.Ending.IsZero() {
			return nil // somebody else's removal
		}
		row.Ending = u.core.cfg.Now().Round(0)
		gone.Ending = row.Ending
		if err := tx.Put(row.LiveKey(), []byte(lease.Ended)); err != nil {
			return err
		}
		if err := tx.Delete(row.pathKey()); err != nil {
			return err
		}
		return putMount(tx, row)
	})
	return gone, err
}

// endMount makes a mount's leases due and, once none is left, deletes its data
// and its tombstone. It is a sequence of idempotent steps.
func (u *unsealed) endMount(ctx context.Context, m Mount) error {
	if err := u.markIssued(ctx, m); err != nil {
		return err
	}
	if m.Class == ClassAuth {
		if err := u.dropAliases(ctx, m); err != nil {
			return err
		}
	}
	// Its mark is durable: no lease comes after this look. The rows are
	// looked at and not their count, since with them goes all that ending a
	// lease needs.
	if left, err := u.leases.OnMount(ctx, lease.Mount{Namespace: m.Namespace, ID: m.ID}); err != nil || left {
		return err
	}
	due := engine.DueOf(m.ID)
	for _, prefix := range []string{m.slice(), due.Range()} {
		if err := u.deletePrefix(ctx, prefix); err != nil {
			return err
		}
	}
	// A request that was let in before may be writing yet. The tombstone
	// stays until none can be, and then this is done once more.
	if u.core.cfg.Now().Before(m.Ending.Add(endGrace)) {
		return nil
	}
	_, err := u.store.Update(ctx, func(tx storage.Tx) error {
		for _, key := range []string{m.LiveKey(), due.Mark()} {
			if err := tx.Delete(key); err != nil {
				return err
			}
		}
		return tx.Delete(m.rowKey())
	})
	return err
}

// markIssued ends what a mount has issued: its leases, and its tokens where it
// is an auth method. The mount's own mark is durable and nothing is issued any
// more, so one walk does; what comes after it leaves the lanes to their work.
func (u *unsealed) markIssued(ctx context.Context, m Mount) error {
	if m.Marked {
		return nil
	}
	if err := u.leases.RevokeMount(ctx, lease.Mount{Namespace: m.Namespace, ID: m.ID}); err != nil {
		return err
	}
	if m.Class == ClassAuth {
		if err := u.tokens.RevokeMount(ctx, m.Namespace, m.ID, m.Path, m.Ending); err != nil {
			return err
		}
	}
	_, err := u.store.Update(ctx, func(tx storage.Tx) error {
		row, err := getMount(tx, m.Namespace, m.ID)
		if err != nil || row == nil {
			return err
		}
		row.Marked = true
		return putMount(tx, row)
	})
	return err
}

// endGrace is longer than a request takes that was inside when its mount ended.
const endGrace = 10 * time.Minute

// sweepMounts finishes the mounts that are ending.
func (u *unsealed) sweepMounts(ctx context.Context) {
	t, err := u.mounts.current(ctx)
	if err != nil {
		return
	}
	for _, m := range t.byID {
		if m.Ending.IsZero() {
			continue
		}
		if err := u.endMount(ctx, m.Mount); err != nil && ctx.Err() == nil {
			u.core.log.Error("ending a mount; it is tried again", "mount", m.Path, "error", err)
		}
	}
}

// deletePrefix deletes a range in pages.
func (u *unsealed) deletePrefix(ctx context.Context, prefix string) error {
	for {
		var keys []string
		err := u.store.View(ctx, func(v storage.View) error {
			return storage.ScanEach(v, prefix, storage.PrefixEnd(prefix), 0, func(key string, _ []byte, _ error) bool {
				keys = append(keys, key)
				return len(keys) < storage.MaxTxKeys
			})
		})
		if err != nil || len(keys) == 0 {
			return err
		}
		_, err = u.store.Update(ctx, func(tx storage.Tx) error {
			for _, k := range keys {
				if err := tx.Delete(k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
