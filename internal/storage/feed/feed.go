// Package feed is the change feed of stores that live in one process: what
// storage.Backend's Watch promises, for a store that has one committer.
//
// Watchers run on the committer's goroutine, one after another, before it
// answers. That is what lets an Update promise that every cache of the process
// has heard of it, without waking a goroutine per watcher and commit.
package feed

import (
	"context"
	"slices"
	"sort"
	"sync"

	"github.com/leasehold/leasehold/internal/storage"
)

// Keep is how many of the newest changes a Feed remembers, at least, for
// watchers that start a little late.
const Keep = 4096

// Feed hands out changes. Make one with New.
type Feed struct {
	mu       sync.Mutex // held while watchers run
	rev      storage.Revision
	floor    storage.Revision // changes up to here are forgotten
	recent   []storage.Change
	watchers []*watcher
	closed   error
	stopped  <-chan struct{}
}

type watcher struct {
	fn  func([]storage.Change) error
	end chan error
}

// New makes a Feed for a store that is at rev now. When stopped is closed,
// which it never is if it is nil, every Watch ends with ErrStopped.
func New(rev storage.Revision, stopped <-chan struct{}) *Feed {
	return &Feed{rev: rev, floor: rev, stopped: stopped}
}

// Publish tells every watcher of a commit, which has the changes' revision,
// and returns when all have taken note. The caller orders its calls.
func (f *Feed) Publish(changes []storage.Change) {
	if len(changes) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rev = changes[len(changes)-1].Rev
	f.remember(changes)
	f.watchers = slices.DeleteFunc(f.watchers, func(w *watcher) bool {
		err := w.fn(changes)
		if err != nil {
			w.end <- err
		}
		return err != nil
	})
}

func (f *Feed) remember(changes []storage.Change) {
	f.recent = append(f.recent, changes...)
	if len(f.recent) < 2*Keep {
		return
	}
	old := len(f.recent) - Keep
	f.floor = f.recent[old-1].Rev
	n := copy(f.recent, f.recent[old:])
	clear(f.recent[n:]) // let go of the keys
	f.recent = f.recent[:n]
}

// Watch is storage.Backend's Watch.
func (f *Feed) Watch(ctx context.Context, from storage.Revision, fn func([]storage.Change) error) error {
	w := &watcher{fn, make(chan error, 1)}
	if err := f.start(ctx, from, w); err != nil {
		return err
	}
	var err error
	select {
	case err := <-w.end:
		return err
	case <-ctx.Done():
		err = ctx.Err()
	case <-f.stopped:
		err = storage.ErrStopped
	}
	f.mu.Lock() // after this no fn is running
	defer f.mu.Unlock()
	f.watchers = slices.DeleteFunc(f.watchers, func(o *watcher) bool { return o == w })
	return err
}

func (f *Feed) start(ctx context.Context, from storage.Revision, w *watcher) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed != nil {
		return f.closed
	}
	if from < f.floor || from > f.rev {
		return storage.ErrLost
	}
	missed := sort.Search(len(f.recent), func(i int) bool { return f.recent[i].Rev > from })
	if missed < len(f.recent) {
		if err := w.fn(f.recent[missed:]); err != nil {
			return err
		}
	}
	if err := w.fn(nil); err != nil {
		return err
	}
	f.watchers = append(f.watchers, w)
	return nil
}

// Close ends every Watch, and those to come, with err.
func (f *Feed) Close(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed != nil {
		return
	}
	f.closed = err
	for _, w := range f.watchers {
		w.end <- err
	}
	f.watchers = nil
}
