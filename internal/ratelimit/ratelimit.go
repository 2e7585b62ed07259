// Package ratelimit counts requests in windows of time, client by client.
//
// The key idea: a client's window begins with its first request and holds so
// many of them; what comes beyond is refused until the window is over or, where
// the rule says so, for as long as it blocks. What is remembered of clients is
// bounded whatever addresses come: clients stand in two generations, and when
// the younger one is full the older one is forgotten. Forgetting is to the
// client's good, never to another's harm.
package ratelimit

import (
	"hash/maphash"
	"math"
	"net/netip"
	"sync"
	"time"
)

// Rule says how much is let through. Rate and Interval are above zero.
type Rule struct {
	Rate     float64       // requests in an interval; below one, one in a longer interval
	Interval time.Duration // the length of a window
	Block    time.Duration // how long who passed the rate is refused; 0: until the window is over
}

// Client is whose requests are counted together. The zero Client is everybody.
type Client struct {
	addr netip.Addr
	name string
}

// At is the client at an address. Of an IPv6 address the first half counts: who
// has one has 2^64 of them.
func At(a netip.Addr) Client {
	if a = a.Unmap(); a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	return Client{addr: a}
}

// Named is a client by a name, such as an entity's id.
func Named(name string) Client { return Client{name: name} }

// Verdict is what became of one request.
type Verdict struct {
	Allowed   bool
	Limit     uint64        // of requests in a window
	Remaining uint64        // of them in this window
	Reset     time.Duration // until the client's window, or its block, is over
}

const (
	shards = 64
	// Most is how many clients one Limiter remembers, in both generations.
	Most        = 1 << 16
	mostInShard = Most / shards / 2
)

// Limiter holds one rule and the clients that it was applied to lately. It is
// safe for concurrent use; requests of different clients seldom meet at a lock.
type Limiter struct {
	rule   Rule
	limit  uint64
	start  time.Time
	seed   maphash.Seed
	shards [shards]shard
}

type shard struct {
	mu         sync.Mutex
	young, old map[Client]*window
	turned     time.Duration // when the generations changed
}

// window is what is known of a client. Times count from the limiter's start.
type window struct {
	begun   time.Duration
	used    uint64
	blocked time.Duration // until then; 0: not
}

// New makes a limiter. now is the clock's time that later ones are compared
// with.
func New(rule Rule, now time.Time) *Limiter {
	l := &Limiter{rule: rule, start: now, seed: maphash.MakeSeed()}
	if rule.Rate < 1 {
		l.rule.Interval = time.Duration(min(float64(rule.Interval)/rule.Rate, math.MaxInt64/4))
		l.limit = 1
	} else {
		l.limit = uint64(math.Round(min(rule.Rate, 1<<53)))
	}
	return l
}

// Rule is the rule that the limiter was made of.
func (l *Limiter) Rule() Rule { return l.rule }

// Take counts one request.
func (l *Limiter) Take(c Client, now time.Time) Verdict {
	at := max(now.Sub(l.start), 0)
	s := &l.shards[maphash.Comparable(l.seed, c)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.windowLocked(c, at, 2*(l.rule.Interval+l.rule.Block))
	if w.blocked > at {
		return Verdict{Limit: l.limit, Reset: w.blocked - at}
	}
	if gone := at - w.begun; gone >= l.rule.Interval {
		w.begun, w.used, w.blocked = w.begun+gone/l.rule.Interval*l.rule.Interval, 0, 0
	}
	v := Verdict{Limit: l.limit, Reset: w.begun + l.rule.Interval - at}
	if w.used < l.limit {
		w.used++
		v.Allowed, v.Remaining = true, l.limit-w.used
		return v
	}
	if l.rule.Block > 0 {
		w.blocked = at + l.rule.Block
		v.Reset = l.rule.Block
	}
	return v
}

// windowLocked finds a client's window or begins one. Generations change when
// the younger is full, and after a while, so that nobody is remembered for long.
func (s *shard) windowLocked(c Client, at, while time.Duration) *window {
	if w := s.young[c]; w != nil {
		return w
	}
	w := s.old[c]
	if w == nil {
		w = &window{begun: at}
	}
	if s.young == nil || len(s.young) >= mostInShard || at-s.turned > while {
		s.old, s.young, s.turned = s.young, map[Client]*window{}, at
	}
	s.young[c] = w
	return w
}

// Clients is how many clients are remembered.
func (l *Limiter) Clients() (n int) {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		n += len(s.young) + len(s.old)
		s.mu.Unlock()
	}
	return n
}
