package core

import (
	"sync"
	"sync/atomic"
)

// fresh keeps in memory what stands in the store: a table that every request
// reads and hardly any changes. The Watch calls changed before the Update that
// made the change returns; so whoever asks after that Update gets what was
// loaded after it, also when another request is loading at the moment.
type fresh struct {
	changes atomic.Uint64 // that the Watch has told of
	loaded  atomic.Uint64 // that what is in memory includes
	mu      sync.Mutex    // one loading at a time
}

func (f *fresh) changed() { f.changes.Add(1) }

// ensure calls load if anything has changed since it last succeeded.
func (f *fresh) ensure(load func() error) error {
	if f.loaded.Load() == f.changes.Load() {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.changes.Load()
	if f.loaded.Load() == n {
		return nil
	}
	if err := load(); err != nil {
		return err
	}
	f.loaded.Store(n)
	return nil
}

// stale reports whether there are changes that were not loaded.
func (f *fresh) stale() bool { return f.loaded.Load() != f.changes.Load() }
