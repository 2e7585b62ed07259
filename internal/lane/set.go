package lane

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/leasehold/leasehold/internal/storage"
)

// Limits bound what one target is asked for at a time. Zero fields take the
// defaults: 4 creations, 2 revoking workers, 16 items in a batch.
type Limits struct {
	Create int
	Revoke int
	Batch  int
}

// within lowers what is above most, of which a zero field bounds nothing.
func (l Limits) within(most Limits) Limits {
	for _, f := range []struct{ n, most *int }{{&l.Create, &most.Create}, {&l.Revoke, &most.Revoke}, {&l.Batch, &most.Batch}} {
		if *f.most > 0 {
			*f.n = min(*f.n, *f.most)
		}
	}
	return l
}

func (l Limits) orDefaults() Limits {
	if l.Create <= 0 {
		l.Create = 4
	}
	if l.Revoke <= 0 {
		l.Revoke = 2
	}
	if l.Batch <= 0 {
		l.Batch = 16
	}
	return l
}

// Config is what New needs.
type Config struct {
	Store storage.Backend
	// Handlers by kind of work. Work of another kind stays where it is.
	Handlers map[string]Handler
	// Held reports whether work is held back at the moment: expiry is fenced.
	// The handlers then leave what they may not do, and the lane reads past
	// it. Nil means never.
	Held func() bool
	// Limits are those of a target that Limit was not called for, and the
	// most that it gives one. A zero field bounds nothing.
	Limits Limits
	// Now is the clock that due times are compared with. Nil means time.Now.
	Now func() time.Time
	Log *slog.Logger // nil discards
}

// Set holds the lanes of one store.
type Set struct {
	cfg Config

	mu      sync.Mutex
	lanes   map[string]*lane // those that run, create or were given limits
	queue   schedule         // targets with work in the future, one entry each
	queued  map[string]*entry
	wake    chan struct{}
	running bool // Run has begun and not ended
	wg      sync.WaitGroup
}

// New makes a set. Nothing is read before Run.
func New(cfg Config) *Set {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Set{
		cfg: cfg, lanes: map[string]*lane{}, queued: map[string]*entry{}, wake: make(chan struct{}, 1),
	}
}

// Run does due work until ctx ends, then waits for the batches in progress.
// It is called once.
func (s *Set) Run(ctx context.Context) error {
	s.mu.Lock()
	s.running = true
	s.mu.Unlock()

	watchErr := make(chan error, 1)
	s.wg.Go(func() { watchErr <- s.keepWatching(ctx) })
	err := s.loop(ctx, watchErr)
	s.mu.Lock()
	s.running = false
	s.mu.Unlock()
	s.wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// keepWatching watches until ctx ends or the store has. A store that fails for
// a moment must not end expiry for good.
func (s *Set) keepWatching(ctx context.Context) error {
	for {
		err := s.watch(ctx)
		switch {
		case ctx.Err() != nil, errors.Is(err, storage.ErrClosed), errors.Is(err, storage.ErrStopped):
			return err
		case errors.Is(err, storage.ErrLost):
			continue
		}
		s.cfg.Log.Error("watching due work; it is tried again", "error", err)
		timer := time.NewTimer(retryAfter)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// watch hears of every due key that is written, by whichever process, and
// fills the queue at its beginning.
func (s *Set) watch(ctx context.Context) error {
	var from storage.Revision
	if err := s.cfg.Store.View(ctx, func(v storage.View) error { from = v.Revision(); return nil }); err != nil {
		return err
	}
	filled := false
	return s.cfg.Store.Watch(ctx, from, func(changes []storage.Change) error {
		if !filled {
			// Running from here on: whatever is written after this
			// call's revision is heard, so what the fill does not see
			// comes by itself.
			filled = true
			if err := s.fill(ctx); err != nil {
				return err
			}
		}
		for _, c := range changes {
			if strings.HasPrefix(c.Key, DuePrefix) {
				if w, err := ParseKey(c.Key); err == nil {
					s.at(w.Target, w.Due)
				}
			}
		}
		return nil
	})
}

// fill makes one entry per target by one seek per target.
func (s *Set) fill(ctx context.Context) error {
	return s.cfg.Store.View(ctx, func(v storage.View) error {
		from, end := DuePrefix, storage.PrefixEnd(DuePrefix)
		for {
			var first *Work
			err := storage.ScanEach(v, from, end, 0, func(key string, _ []byte, _ error) bool {
				w, err := ParseKey(key)
				if err != nil {
					return true // the lane says so when it comes by
				}
				first = &w
				return false
			})
			if err != nil || first == nil {
				return err
			}
			s.at(first.Target, first.Due)
			from = storage.PrefixEnd(DuePrefix + first.Target + "/")
		}
	})
}

// at says that target has work at a time.
func (s *Set) at(target string, due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[target]
	if l != nil && (l.heard.IsZero() || due.Before(l.heard)) {
		l.heard = due
	}
	if l != nil && l.working {
		l.poke()
		return
	}
	s.queueLocked(target, due)
}

func (s *Set) queueLocked(target string, due time.Time) {
	if e := s.queued[target]; e != nil {
		if due.Before(e.at) {
			e.at = due
			heap.Fix(&s.queue, e.index)
			s.poke()
		}
		return
	}
	e := &entry{target: target, at: due}
	s.queued[target] = e
	heap.Push(&s.queue, e)
	s.poke()
}

func (s *Set) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Set) loop(ctx context.Context, watchErr <-chan error) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := s.startDue(ctx)
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-watchErr:
			if ctx.Err() == nil {
				return fmt.Errorf("watching due work: %w", err)
			}
			return ctx.Err()
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// startDue starts the lanes whose time has come and says how long to wait for
// the next. A minute at most, so that a step of the wall clock is noticed.
func (s *Set) startDue(ctx context.Context) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	for len(s.queue) > 0 {
		e := s.queue[0]
		if wait := e.at.Sub(now); wait > 0 {
			return min(wait, time.Minute)
		}
		heap.Pop(&s.queue)
		delete(s.queued, e.target)
		l := s.laneLocked(e.target)
		l.working = true
		s.wg.Go(func() { l.work(ctx) })
	}
	return time.Minute
}

func (s *Set) laneLocked(target string) *lane {
	l := s.lanes[target]
	if l == nil {
		l = newLane(s, target, s.cfg.Limits.orDefaults())
		s.lanes[target] = l
	}
	return l
}

// Limit sets the limits of a target, within the configuration's, and keeps its
// lane until Forget. Creations
// that wait already keep the old bound.
func (s *Set) Limit(target string, lim Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.laneLocked(target)
	l.pinned = true
	l.setLimits(lim.orDefaults().within(s.cfg.Limits))
}

// Forget lets the lane of a target go once it has nothing to do.
func (s *Set) Forget(target string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lanes[target]; l != nil {
		l.pinned = false
		s.dropLocked(l)
	}
}

// dropLocked forgets a lane that nobody uses and whose breaker knows nothing.
func (s *Set) dropLocked(l *lane) {
	if !l.pinned && !l.working && l.creating == 0 && l.breaker.quiet() {
		delete(s.lanes, l.target)
	}
}

// Status is what health and lease lists show of a target.
type Status struct {
	Target    string
	Open      bool      // the breaker is open: the target does not answer
	LastError string    // of the target, while the breaker is not closed
	Retry     time.Time // when it is tried again
	Creating  int       // creations in progress or waiting
	Ending    int       // items being ended
}

// Status of one target. A target without a lane is well.
func (s *Set) Status(target string) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[target]
	if l == nil {
		return Status{Target: target}
	}
	return l.statusLocked()
}

// All is the status of every target that has a lane.
func (s *Set) All() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, 0, len(s.lanes))
	for _, l := range s.lanes {
		out = append(out, l.statusLocked())
	}
	return out
}

// Resume makes every lane look at all of its range again, and the schedule at
// the clock: the fence was lifted, or the clock was moved.
func (s *Set) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.poke()
	for _, l := range s.lanes {
		l.rewind = true
		l.poke()
	}
}

type entry struct {
	target string
	at     time.Time
	index  int
}

// schedule is a heap of entries, the earliest first.
type schedule []*entry

func (q schedule) Len() int           { return len(q) }
func (q schedule) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q schedule) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *schedule) Push(x any) {
	e := x.(*entry)
	e.index = len(*q)
	*q = append(*q, e)
}
func (q *schedule) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return e
}
