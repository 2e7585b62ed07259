package lane

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leasehold/leasehold/internal/storage"
)

// lane is one target's workers. The fields above the line are guarded by
// Set.mu; those below belong to the goroutine in work.
type lane struct {
	set    *Set
	target string

	limits   Limits
	slots    chan struct{} // creations in progress
	pinned   bool          // an engine has set limits: keep it while idle
	working  bool          // work is running
	rewind   bool          // read the whole range again
	heard    time.Time     // the earliest work written since the last page; zero: none
	creating int
	ending   int
	breaker  breaker
	batches  map[string]any // open batches of creations by key
	notify   chan struct{}  // closed over by poke; capacity one

	// ---
	inFlight map[string]bool    // keys handed to a handler
	cooling  map[string]cooling // keys that a handler may have left
	cursor   string             // where to read on, while work is held
	held     bool               // it was, when the last page was read
	moved    time.Time          // when the low-water mark was last moved
	did      bool               // something was finished since then
}

// cooling is a key that is not handed out again before a time.
type cooling struct {
	until  time.Time
	failed bool // it was to be done, and may have been left
}

func newLane(s *Set, target string, lim Limits) *lane {
	return &lane{
		set: s, target: target, limits: lim, slots: make(chan struct{}, lim.Create),
		notify: make(chan struct{}, 1), batches: map[string]any{},
		inFlight: map[string]bool{}, cooling: map[string]cooling{},
	}
}

func (l *lane) setLimits(lim Limits) {
	if lim.Create != l.limits.Create {
		l.slots = make(chan struct{}, lim.Create)
	}
	l.limits = lim
}

func (l *lane) poke() {
	select {
	case l.notify <- struct{}{}:
	default:
	}
}

func (l *lane) statusLocked() Status {
	st := Status{Target: l.target, Creating: l.creating, Ending: l.ending}
	if l.breaker.err != nil {
		st.LastError = l.breaker.err.Error()
		st.Open = l.breaker.trying()
		st.Retry = l.breaker.until
	}
	return st
}

// retryAfter is how soon a lane looks again at a key that its handler left
// where it was, and at a store that did not answer.
const retryAfter = time.Second

// result is what a worker brings back.
type result struct {
	items []Work
	err   error
}

// work reads the lane's range and hands out batches until nothing is due and
// nothing is in flight; then it goes back to the schedule. Behind a fence it
// stays: what it has read past is due as soon as that is lifted.
func (l *lane) work(ctx context.Context) {
	results := make(chan result)
	var wg sync.WaitGroup
	defer wg.Wait()
	busy := 0
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		l.set.mu.Lock()
		lim, now := l.limits, l.set.cfg.Now()
		if l.rewind {
			l.cursor = ""
		}
		// A key can be written a moment after its time, or much later: an
		// operator revokes what the clock says is older.
		if at := DuePrefix + l.target + "/" + stamp(l.heard); !l.heard.IsZero() && at < l.cursor {
			l.cursor = at
		}
		l.rewind, l.heard = false, time.Time{}
		open, trying, until := l.breaker.open(now), l.breaker.trying(), l.breaker.until
		l.set.mu.Unlock()
		workers, batch := lim.Revoke, lim.Batch
		if trying {
			workers, batch = 1, 1 // one attempt decides
		}
		wait := time.Minute
		if open {
			wait = until.Sub(now)
		} else if busy < workers && ctx.Err() == nil {
			items, next, err := l.page(ctx, now, (workers-busy)*batch)
			switch {
			case err != nil:
				if ctx.Err() == nil {
					l.set.cfg.Log.Error("reading due work", "target", l.target, "error", err)
				}
				wait = retryAfter
			case len(items) == 0 && busy == 0 && len(l.cooling) == 0 && !(l.held && l.cursor != ""):
				if l.rest(ctx, next) {
					return
				}
				continue
			case !next.IsZero():
				wait = min(wait, max(next.Sub(now), time.Millisecond))
			}
			if len(l.cooling) > 0 {
				wait = min(wait, retryAfter)
			}
			for _, b := range batches(items, batch) {
				for _, w := range b {
					l.inFlight[w.Key] = true
				}
				busy++
				l.count(len(b))
				wg.Go(func() {
					err := l.run(ctx, b)
					select {
					case results <- result{b, err}:
					case <-ctx.Done():
					}
				})
			}
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			l.set.mu.Lock()
			l.working = false
			l.set.mu.Unlock()
			return
		case r := <-results:
			busy--
			l.finish(r)
		case <-l.notify:
		case <-timer.C:
		}
	}
}

func (l *lane) count(n int) {
	l.set.mu.Lock()
	l.ending += n
	l.set.mu.Unlock()
}

// run hands due work to its handler. A panic there ends this try alone: a
// process that died of it would meet the same work at each start.
func (l *lane) run(ctx context.Context, items []Work) (err error) {
	defer func() {
		if p := recover(); p != nil {
			l.set.cfg.Log.Error("due work panicked; it is tried again", "target", l.target, "kind", items[0].Kind, "items", len(items),
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("due work panicked: %v", p)
		}
	}()
	h := l.set.cfg.Handlers[items[0].Kind]
	if h == nil {
		return nil // written by a newer server; left where it is
	}
	return h.Run(ctx, l.target, items)
}

func (l *lane) finish(r result) {
	now := l.set.cfg.Now()
	for _, w := range r.items {
		delete(l.inFlight, w.Key)
		l.cooling[w.Key] = cooling{now.Add(retryAfter), r.err != nil}
	}
	l.did = true
	l.set.mu.Lock()
	defer l.set.mu.Unlock()
	l.ending -= len(r.items)
	l.judgeLocked(now, r.err)
}

func (l *lane) judgeLocked(now time.Time, err error) {
	switch {
	case IsConnFault(err):
		l.breaker.fail(now, err)
	case err == nil:
		l.breaker.succeed()
	}
}

// page reads up to limit items that are due and not being worked on. next is
// the time of the first key that was not taken: later work, or zero when the
// range ends.
func (l *lane) page(ctx context.Context, now time.Time, limit int) (items []Work, next time.Time, err error) {
	for k, c := range l.cooling {
		if !c.until.After(now) {
			delete(l.cooling, k)
			if c.failed {
				l.cursor = min(l.cursor, k) // it is no work that is held
			}
		}
	}
	held := l.set.cfg.Held != nil && l.set.cfg.Held()
	l.held = held
	prefix := DuePrefix + l.target + "/"
	move := false
	var mark mark
	var first time.Time
	err = l.set.cfg.Store.View(ctx, func(v storage.View) (err error) {
		if mark, err = readMark(v, l.target); err != nil {
			return err
		}
		from := prefix + stamp(mark.start)
		if held && l.cursor > from {
			from = l.cursor // what is held stays due: read past it
		}
		err = storage.ScanEach(v, from, storage.PrefixEnd(prefix), 0, func(key string, _ []byte, _ error) bool {
			w, perr := ParseKey(key)
			if perr != nil {
				// Not ours to understand; it stands in nobody's way.
				l.set.cfg.Log.Error("a due key cannot be read; it is passed over", "key", key, "error", perr)
				return true
			}
			if first.IsZero() {
				first = w.Due
			}
			if w.Due.After(now) || len(items) == limit {
				next = w.Due
				return false
			}
			if !l.inFlight[key] {
				if c, ok := l.cooling[key]; ok {
					if next.IsZero() || c.until.Before(next) {
						next = c.until
					}
				} else {
					items = append(items, w)
				}
			}
			return true
		})
		move = err == nil && !held && now.Sub(l.moved) >= time.Second && (l.did || mark.bound.IsZero())
		return err
	})
	if move {
		l.moveMark(ctx, mark, first, now)
	}
	if held && len(items) > 0 {
		l.cursor = items[len(items)-1].Key
	}
	return items, next, err
}

// mark is the low-water mark: two times. Nothing is due before start: scans
// begin there. Nobody writes work before bound. Start follows the bound of an
// earlier move once a snapshot taken after that move shows nothing below it,
// so no key that was written meanwhile is ever skipped.
type mark struct {
	start, bound time.Time
	raw          string // as it was read
}

func (m mark) encode() []byte { return []byte(stamp(m.bound) + " " + stamp(m.start)) }

// readMark reads a target's mark. One that is damaged counts as none: scans
// then begin at the beginning, which is only slower.
func readMark(r storage.Reader, target string) (mark, error) {
	m := mark{start: time.Unix(0, 0)}
	v, err := r.Get(MarkPrefix + target)
	if bad := (*storage.CorruptError)(nil); errors.As(err, &bad) {
		return m, nil
	}
	if err != nil || v == nil {
		return m, err
	}
	m.raw = string(v)
	b, s, ok := strings.Cut(m.raw, " ")
	bn, err1 := strconv.ParseInt(b, 16, 64)
	sn, err2 := strconv.ParseInt(s, 16, 64)
	if ok && err1 == nil && err2 == nil {
		m.start, m.bound = time.Unix(0, sn), time.Unix(0, bn)
	}
	return m, nil
}

// moveMark moves a mark that was read in a snapshot whose first key was due at
// first, if it is still the same. Whatever is written from then on is written
// at now or later, and what was written before at the old bound or later, so
// start stays below both: the clock may have been set back.
func (l *lane) moveMark(ctx context.Context, old mark, first, now time.Time) {
	l.moved, l.did = now, false
	next := mark{start: earlier(old.bound, now), bound: now}
	if old.bound.IsZero() {
		next.start = old.start
	}
	if !first.IsZero() {
		next.start = earlier(next.start, first)
	}
	_, err := l.set.cfg.Store.Update(ctx, func(tx storage.Tx) error {
		have, err := readMark(tx, l.target)
		if err != nil || have.raw != old.raw {
			return err
		}
		return tx.Put(MarkPrefix+l.target, next.encode())
	})
	if err != nil && ctx.Err() == nil {
		l.set.cfg.Log.Warn("moving a low-water mark", "target", l.target, "error", err)
	}
}

// rest ends the lane's work unless somebody has poked it meanwhile.
func (l *lane) rest(ctx context.Context, next time.Time) bool {
	s := l.set
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-l.notify:
		return false
	default:
	}
	l.working = false
	if !next.IsZero() {
		// Under the lock: queue it here, not through at, which would lock.
		s.queueLocked(l.target, next)
	}
	s.dropLocked(l)
	return true
}

// batches cuts items, which are in order, into runs of one kind of at most
// size each.
func batches(items []Work, size int) [][]Work {
	var out [][]Work
	for len(items) > 0 {
		n := 1
		for n < len(items) && n < size && items[n].Kind == items[0].Kind {
			n++
		}
		out = append(out, items[:n:n])
		items = items[n:]
	}
	return out
}
