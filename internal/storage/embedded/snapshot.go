package embedded

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/leasehold/leasehold/internal/storage"
)

// snapshot is one durable state of the store. The store holds the newest and
// every View holds the one it began on; who lets go last, closes it.
type snapshot struct {
	s    *Store
	p    *pebble.Snapshot
	rev  storage.Revision
	refs atomic.Int64
}

// snapshot takes the state that Pebble shows now. Only the committer may call
// it, after a sync and before it applies anything more.
func (s *Store) snapshot(rev storage.Revision) *snapshot {
	sn := &snapshot{s: s, p: s.db.NewSnapshot(), rev: rev}
	sn.refs.Store(1)
	s.snapshots.Add(1)
	return sn
}

// acquire holds the newest snapshot until release.
func (s *Store) acquire() (*snapshot, error) {
	for !s.failed() {
		sn := s.now.Load()
		if sn == nil {
			break
		}
		// Not 0: that one is being closed, and a newer one is in its place.
		if n := sn.refs.Load(); n > 0 && sn.refs.CompareAndSwap(n, n+1) {
			return sn, nil
		}
	}
	return nil, s.endErr()
}

func (sn *snapshot) release() {
	if sn.refs.Add(-1) > 0 {
		return
	}
	if !sn.s.failed() {
		_ = sn.p.Close()
	}
	sn.s.snapshots.Done()
}

// get appends the value to buf and returns both; a missing key's value is nil.
// key is scratch space.
func (sn *snapshot) get(key, buf []byte) (value, grown []byte, err error) {
	v, closer, err := sn.p.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, buf, nil
	}
	if err != nil {
		return nil, buf, err
	}
	value, grown = appended(buf, v)
	return value, grown, closer.Close()
}

// appended appends v to buf and returns both. The value is not nil.
func appended(buf, v []byte) (value, grown []byte) {
	if buf == nil {
		buf = make([]byte, 0, 4<<10)
	}
	start := len(buf)
	buf = append(buf, v...)
	return buf[start:len(buf):len(buf)], buf
}

// view reads a snapshot. What Get returns lies in values, so that no iterator
// of Pebble's stays open for it.
type view struct {
	*snapshot
	key, values []byte
}

var views = sync.Pool{New: func() any { return new(view) }}

// View implements storage.Backend.
func (s *Store) View(ctx context.Context, fn func(storage.View) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	sn, err := s.acquire()
	if err != nil {
		return err
	}
	defer sn.release()
	v := views.Get().(*view)
	v.snapshot = sn
	err = fn(v)
	// Not deferred: after a panic the view is left to the collector.
	v.snapshot, v.values = nil, v.values[:0]
	if cap(v.values) <= 64<<10 {
		views.Put(v)
	}
	return err
}

func (v *view) Revision() storage.Revision { return v.rev }

func (v *view) Get(key string) (value []byte, err error) {
	if key == "" || key[0] == 0 {
		return nil, nil
	}
	if value, ok := v.s.rows.get(key, v.rev); ok {
		return value, nil
	}
	v.key = append(v.key[:0], key...)
	value, v.values, err = v.get(v.key, v.values)
	if err == nil {
		v.s.rows.fill(key, value, v.rev)
	}
	return value, err
}

func (v *view) Scan(from, to string, limit int, fn func(string, []byte) bool) error {
	return v.scan(from, to, limit, false, fn)
}

func (v *view) ScanDesc(from, to string, limit int, fn func(string, []byte) bool) error {
	return v.scan(from, to, limit, true, fn)
}

func (v *view) scan(from, to string, limit int, desc bool, fn func(string, []byte) bool) error {
	o := pebble.IterOptions{LowerBound: firstKey}
	if from > string(firstKey) {
		o.LowerBound = []byte(from)
	}
	if to != "" {
		if to <= string(o.LowerBound) {
			return nil
		}
		o.UpperBound = []byte(to)
	}
	it, err := v.p.NewIter(&o)
	if err != nil {
		return err
	}
	first, next := it.First, it.Next
	if desc {
		first, next = it.Last, it.Prev
	}
	given := 0
	for ok := first(); ok; ok = next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if value == nil {
			value = []byte{}
		}
		if given++; !fn(string(it.Key()), value) || given == limit {
			break
		}
	}
	return it.Close() // with the error that ended the loop, if one did
}
