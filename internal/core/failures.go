package core

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// failures counts the failed logins of those who have not succeeded since. It
// is a table of a fixed size, whatever is sent: 2 MB once all of it is in use.
// A name has eight places where it may stand. Where all are taken, the one
// with the fewest failures gives way, so that a flood of names tried once each
// does not make it forget one that is being guessed at; which names share
// their places is not to be known from outside.
type failures struct {
	seed   maphash.Seed
	used   atomic.Bool // anything was ever counted
	shards [64]failureShard
}

type failureShard struct {
	mu   sync.Mutex
	sets *[128]failureSet // nil until the first
}

// failureSet are the places where a name may stand.
type failureSet [8]failure

// failure is one name's count. It is over, and its place free, after forget.
type failure struct {
	who    uint64
	forget int64 // Unix nanoseconds
	n      uint32
	locked bool
}

func newFailures() *failures { return &failures{seed: maphash.MakeSeed()} }

// empty reports whether nothing was ever counted.
func (f *failures) empty() bool { return !f.used.Load() }

// at gives the shard and the set of a name, locked. The set is nil while the
// shard has none.
func (f *failures) at(who string) (*failureShard, *failureSet, uint64) {
	h := maphash.String(f.seed, who)
	s := &f.shards[h%uint64(len(f.shards))]
	s.mu.Lock()
	if s.sets == nil {
		return s, nil, h
	}
	return s, &s.sets[h/uint64(len(f.shards))%uint64(len(s.sets))], h
}

// add counts a failure. It reports whether that is the one which locks.
func (f *failures) add(who string, now time.Time, lim Lockout) (locks bool) {
	f.used.Store(true)
	s, set, h := f.at(who)
	defer s.mu.Unlock()
	if set == nil {
		s.sets = new([128]failureSet)
		set = &s.sets[h/uint64(len(f.shards))%uint64(len(s.sets))]
	}
	e := set.place(h, now.UnixNano())
	if e.locked {
		return false
	}
	e.n++
	e.forget = now.Add(lim.CounterReset).UnixNano()
	if int(e.n) < lim.Threshold {
		return false
	}
	e.locked, e.forget = true, now.Add(lim.Duration).UnixNano()
	return true
}

// place is where a name stands, or is to stand from now on.
func (set *failureSet) place(who uint64, now int64) *failure {
	best := &set[0]
	for i := range set {
		e := &set[i]
		if e.who == who && e.forget > now {
			return e
		}
		if e.forget <= now {
			*e = failure{}
		}
		if e.n < best.n || e.n == best.n && e.forget < best.forget {
			best = e
		}
	}
	*best = failure{who: who}
	return best
}

// locked reports whether a name is locked out by what was counted here.
func (f *failures) locked(who string, now time.Time) bool {
	s, set, h := f.at(who)
	defer s.mu.Unlock()
	if set == nil {
		return false
	}
	for i := range set {
		if e := &set[i]; e.who == h && e.locked && e.forget > now.UnixNano() {
			return true
		}
	}
	return false
}

// clear forgets a name.
func (f *failures) clear(who string) {
	s, set, h := f.at(who)
	defer s.mu.Unlock()
	if set == nil {
		return
	}
	for i := range set {
		if set[i].who == h {
			set[i] = failure{}
		}
	}
}
