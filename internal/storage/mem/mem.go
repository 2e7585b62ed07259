// Package mem is a store in memory, for `server -dev` and for tests. It keeps
// nothing across a restart.
//
// The rows are in an immutable tree (tree.go). A View reads one root of it and
// neither waits for writers nor keeps them waiting; an Update changes copies
// of the few nodes it touches and then swaps the root.
package mem

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/feed"
)

// Store is a storage.Backend in memory.
type Store struct {
	now  atomic.Pointer[snapshot] // nil once closed
	feed *feed.Feed

	mu      sync.Mutex // one Update at a time
	buf     storage.Buffer
	changes []storage.Change
	commits atomic.Uint64
}

// snapshot is one state of the store. It never changes.
type snapshot struct {
	tree
	rev storage.Revision
}

var (
	_ storage.Backend = (*Store)(nil)
	_ storage.Statser = (*Store)(nil)
)

// New makes an empty store.
func New() *Store {
	s := &Store{feed: feed.New(0, nil)}
	s.now.Store(&snapshot{})
	return s
}

// View implements storage.Backend.
func (s *Store) View(ctx context.Context, fn func(storage.View) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now := s.now.Load()
	if now == nil {
		return storage.ErrClosed
	}
	return fn(now)
}

// Update implements storage.Backend.
func (s *Store) Update(ctx context.Context, fn func(storage.Tx) error) (storage.Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	now := s.now.Load()
	if now == nil {
		return 0, storage.ErrClosed
	}
	defer s.buf.Free()
	s.buf.Begin(now.Get)
	if err := fn(&s.buf); err != nil {
		return 0, err
	}
	if err := s.buf.Err(); err != nil {
		return 0, err
	}
	return s.commitLocked(now), nil
}

func (s *Store) commitLocked(now *snapshot) storage.Revision {
	next := &snapshot{rev: now.rev + 1}
	e := &edit{now.tree, uint64(next.rev)}
	s.changes = s.changes[:0]
	for key, value := range s.buf.Writes {
		if value == nil {
			e.delete(key)
		} else {
			e.set(key, append(make([]byte, 0, len(value)), value...))
		}
		s.changes = append(s.changes, storage.Change{Key: key, Rev: next.rev})
	}
	if len(s.changes) == 0 {
		return now.rev
	}
	next.tree = e.tree
	s.now.Store(next)
	s.commits.Add(1)
	s.feed.Publish(s.changes)
	return next.rev
}

// Watch implements storage.Backend.
func (s *Store) Watch(ctx context.Context, from storage.Revision, fn func([]storage.Change) error) error {
	return s.feed.Watch(ctx, from, fn)
}

// Close forgets everything.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Store(nil)
	s.feed.Close(storage.ErrClosed)
	return nil
}

// Stats implements storage.Statser. MemoryBytes counts keys and values.
func (s *Store) Stats() storage.Stats {
	st := storage.Stats{Commits: s.commits.Load()}
	if now := s.now.Load(); now != nil {
		st.MemoryBytes = uint64(now.bytes)
	}
	return st
}

func (v *snapshot) Revision() storage.Revision { return v.rev }

func (v *snapshot) Get(key string) ([]byte, error) { return v.get(key), nil }

func (v *snapshot) Scan(from, to string, limit int, fn func(string, []byte) bool) error {
	v.ascend(from, to, limited(limit, fn))
	return nil
}

func (v *snapshot) ScanDesc(from, to string, limit int, fn func(string, []byte) bool) error {
	v.descend(from, to, limited(limit, fn))
	return nil
}

// limited is fn that ends the scan with its limit-th row.
func limited(limit int, fn func(string, []byte) bool) func(string, []byte) bool {
	if limit <= 0 {
		return fn
	}
	return func(key string, value []byte) bool {
		limit--
		return fn(key, value) && limit > 0
	}
}
