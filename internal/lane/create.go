package lane

import (
	"context"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
)

// Ready reports whether a target may be asked to create: it is asked before
// a lease is committed, so that a target known to be down costs nothing.
func (s *Set) Ready(target string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lanes[target]; l != nil {
		return l.readyLocked(s.cfg.Now())
	}
	return nil
}

func (l *lane) readyLocked(now time.Time) error {
	if !l.breaker.open(now) {
		return nil
	}
	return errs.Wrap(errs.Upstream, l.breaker.err,
		"the target does not answer; it is tried again in %s; see the server's log or sys/leases for its error",
		max(l.breaker.until.Sub(now).Round(time.Second), time.Second))
}

// Create runs fn, which asks target to create something, under the target's
// limits and breaker, in the caller's goroutine.
func (s *Set) Create(ctx context.Context, target string, fn func(ctx context.Context) error) error {
	errOf := CreateBatch(ctx, s, target, "", 1, struct{}{}, func(ctx context.Context, _ []struct{}) []error {
		return []error{fn(ctx)}
	})
	return errOf
}

// batch collects creations that may share a transaction.
type batch[T any] struct{ waiting []*member[T] }

type member[T any] struct {
	value T
	err   error
	taken bool          // a leader has it; guarded by Set.mu
	done  chan struct{} // closed when err or panicked is set

	panicked bool
}

// wait gives the outcome that a leader brings. Where the leader panicked nobody
// knows how far it came, so that every caller panics and treats it so.
func (m *member[T]) wait() error {
	<-m.done
	if m.panicked {
		panic("lane: what ran this creation together with others panicked")
	}
	return m.err
}

// CreateBatch is Create for creations that may share one call: those of one
// target with the same key that wait for a slot are run together, at most most
// of them, by whichever caller gets the slot. run gives one error for each, in
// order. An empty key shares nothing.
func CreateBatch[T any](ctx context.Context, s *Set, target, key string, most int, v T, run func(context.Context, []T) []error) error {
	s.mu.Lock()
	l := s.laneLocked(target)
	if err := l.readyLocked(s.cfg.Now()); err != nil {
		s.mu.Unlock()
		return err
	}
	l.creating++
	slots := l.slots
	me := &member[T]{value: v, done: make(chan struct{})}
	var b *batch[T]
	if key != "" {
		b, _ = l.batches[key].(*batch[T])
		if b == nil {
			b = &batch[T]{}
			l.batches[key] = b
		}
		b.waiting = append(b.waiting, me)
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		l.creating--
		s.dropLocked(l)
		s.mu.Unlock()
	}()

	select {
	case slots <- struct{}{}:
	case <-me.done:
		return me.wait()
	case <-ctx.Done():
		return me.abandon(ctx, s, b)
	}
	mine := []*member[T]{me}
	if b != nil {
		mine = b.take(s, me, most, cap(slots))
	}
	if mine == nil { // another leader has it
		<-slots
		return me.wait()
	}
	values := make([]T, len(mine))
	for i, m := range mine {
		values[i] = m.value
	}
	ended := false
	defer func() {
		<-slots
		for _, m := range mine {
			m.panicked = !ended
			close(m.done)
		}
	}()
	out := run(ctx, values)
	ended = true
	s.mu.Lock()
	now := s.cfg.Now()
	lost := false // one connection that is lost is one fault, for however many
	for i, m := range mine {
		m.err = out[i]
		if fault := IsConnFault(out[i]); !fault || !lost {
			l.judgeLocked(now, out[i])
			lost = lost || fault
		}
	}
	if l.breaker.quiet() && l.working {
		l.poke() // the target answers again: revoking need not wait for its pause
	}
	s.mu.Unlock()
	return me.err
}

// take gives the leader its batch, the leader's own first, or nil when another
// leader has the leader's own. It is the leader's share of those that wait: a
// target works on several batches at a time, and on one of them alone.
func (b *batch[T]) take(s *Set, me *member[T], most, slots int) []*member[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if me.taken {
		return nil
	}
	most = min(most, (len(b.waiting)+slots-1)/slots)
	mine := []*member[T]{me}
	rest := b.waiting[:0]
	for _, m := range b.waiting {
		switch {
		case m == me:
		case len(mine) < most:
			mine = append(mine, m)
		default:
			rest = append(rest, m)
		}
	}
	clear(b.waiting[len(rest):])
	b.waiting = rest
	for _, m := range mine {
		m.taken = true
	}
	return mine
}

// abandon gives up waiting for a slot. A member that a leader has taken is
// waited for: its creation is under way.
func (m *member[T]) abandon(ctx context.Context, s *Set, b *batch[T]) error {
	s.mu.Lock()
	taken := m.taken
	if !taken && b != nil {
		for i, w := range b.waiting {
			if w == m {
				b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
				break
			}
		}
	}
	s.mu.Unlock()
	if taken {
		return m.wait()
	}
	return errs.Wrap(errs.Upstream, ctx.Err(), "the target was too busy to create the credential in time; try again")
}
