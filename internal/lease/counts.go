package lease

import (
	"context"
	"strconv"

	"github.com/leasehold/leasehold/internal/storage"
)

// Counts are rows in 16 parts. A writer changes only the part that is its own,
// in the transaction that adds or ends a lease, so that the writers of
// different nodes do not conflict; start-up never counts.
const countPrefix = "count/"

// counter names one count: the leases of a namespace, a mount, a path in a
// mount or a group (role) of a mount, and a mount's irrevocable ones. Paths have
// no empty segments, so that two slashes end one.
func nsCounter(ns string) string              { return countPrefix + "n/" + ns + "/" }
func mountCounter(mount string) string        { return countPrefix + "m/" + mount + "/" }
func groupCounter(mount, group string) string { return countPrefix + "g/" + mount + "/" + group + "/" }
func pathCounter(mount, path string) string   { return countPrefix + "p/" + mount + "/" + path + "//" }
func stuckCounter(ns, mount string) string    { return stuckPrefix(ns) + mount + "/" }
func stuckPrefix(ns string) string            { return countPrefix + "i/" + ns + "/" }

// Ranges are the beginnings of the keys of a namespace's counts, and of what was
// kept for sharing. They may be deleted when it has no mount any more.
func Ranges(ns string) []string {
	return []string{nsCounter(ns), stuckPrefix(ns), sharePrefix + ns + "/"}
}

// deltas adds up the changes of a batch before anything is written.
type deltas map[string]int64

func (d deltas) add(key string, r *row, n int64) {
	ns, mount := mountInKey(key)
	d[nsCounter(ns)] += n
	d[mountCounter(mount)] += n
	d[pathCounter(mount, pathInKey(key))] += n
	if r.Group != "" {
		d[groupCounter(mount, r.Group)] += n
	}
}

func (d deltas) irrevocable(key string, n int64) {
	d[stuckCounter(mountInKey(key))] += n
}

func (d deltas) write(tx storage.Tx, part int) error {
	for counter, n := range d {
		if n == 0 {
			continue
		}
		key := counter + strconv.Itoa(part)
		b, err := tx.Get(key)
		if isBadRow(err) {
			b, err = nil, nil // a figure that is lost must stop no lease
		}
		if err != nil {
			return err
		}
		sum := parseCount(b) + n
		if sum == 0 {
			err = tx.Delete(key)
		} else {
			err = tx.Put(key, strconv.AppendInt(nil, sum, 10))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sum adds up the parts of a counter, or of all whose names begin so.
func (s *Store) sum(ctx context.Context, counter string) (n int64, err error) {
	err = s.cfg.Store.View(ctx, func(v storage.View) (err error) {
		n, err = sumOf(v, counter)
		return err
	})
	return n, err
}

func sumOf(v storage.View, counter string) (n int64, err error) {
	err = storage.ScanEach(v, counter, storage.PrefixEnd(counter), 0, func(_ string, b []byte, _ error) bool {
		n += parseCount(b)
		return true
	})
	return max(n, 0), err // below zero where a row was lost
}

// CountNamespace, CountMount and CountGroup give the number of leases that
// have not ended, those on their way out included.
func (s *Store) CountNamespace(ctx context.Context, ns string) (int64, error) {
	return s.sum(ctx, nsCounter(ns))
}

// CountMount counts the leases of one mount.
func (s *Store) CountMount(ctx context.Context, mount string) (int64, error) {
	return s.sum(ctx, mountCounter(mount))
}

// CountGroup counts the leases of one role of a mount.
func (s *Store) CountGroup(ctx context.Context, mount, group string) (int64, error) {
	return s.sum(ctx, groupCounter(mount, group))
}

// CountPath counts the leases that were issued at one path of a mount, or with
// all set at every path that begins so.
func (s *Store) CountPath(ctx context.Context, mount, path string, all bool) (int64, error) {
	if all {
		return s.sum(ctx, countPrefix+"p/"+mount+"/"+path)
	}
	return s.sum(ctx, pathCounter(mount, path))
}

// CountIrrevocable counts the leases of one mount that cannot be ended now and
// are tried again slowly; without a mount those of the namespace.
func (s *Store) CountIrrevocable(ctx context.Context, ns, mount string) (int64, error) {
	if mount == "" {
		return s.sum(ctx, stuckPrefix(ns))
	}
	return s.sum(ctx, stuckCounter(ns, mount))
}
