package ratelimit_test

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/ratelimit"
)

var start = time.Unix(1_000_000, 0)

func TestTake(t *testing.T) {
	here := ratelimit.At(netip.MustParseAddr("192.0.2.1"))
	there := ratelimit.At(netip.MustParseAddr("192.0.2.2"))
	type step struct {
		after     time.Duration // since the start
		client    ratelimit.Client
		allowed   bool
		remaining uint64
		reset     time.Duration
	}
	for _, c := range []struct {
		name  string
		rule  ratelimit.Rule
		steps []step
	}{
		{"a window", ratelimit.Rule{Rate: 2, Interval: time.Minute}, []step{
			{0, here, true, 1, time.Minute},
			{10 * time.Second, here, true, 0, 50 * time.Second},
			{20 * time.Second, here, false, 0, 40 * time.Second},
			{20 * time.Second, there, true, 1, time.Minute},
			{60 * time.Second, here, true, 1, time.Minute},
			{190 * time.Second, here, true, 1, 50 * time.Second},
		}},
		{"a block", ratelimit.Rule{Rate: 1, Interval: time.Second, Block: time.Minute}, []step{
			{0, here, true, 0, time.Second},
			{0, here, false, 0, time.Minute},
			{30 * time.Second, here, false, 0, 30 * time.Second},
			{30 * time.Second, there, true, 0, time.Second},
			{60 * time.Second, here, true, 0, time.Second},
		}},
		{"less than one", ratelimit.Rule{Rate: 0.25, Interval: time.Second}, []step{
			{0, here, true, 0, 4 * time.Second},
			{3 * time.Second, here, false, 0, time.Second},
			{4 * time.Second, here, true, 0, 4 * time.Second},
		}},
		{"a clock that goes back", ratelimit.Rule{Rate: 1, Interval: time.Second}, []step{
			{0, here, true, 0, time.Second},
			{-time.Hour, here, false, 0, time.Second},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := ratelimit.New(c.rule, start)
			for i, s := range c.steps {
				v := l.Take(s.client, start.Add(s.after))
				if v.Allowed != s.allowed || v.Remaining != s.remaining || v.Reset != s.reset {
					t.Errorf("step %d: Take = %+v, want allowed %v, remaining %d, reset %v", i, v, s.allowed, s.remaining, s.reset)
				}
			}
		})
	}
}

// Of an IPv6 address the network counts, of one that holds an IPv4 address that.
func TestAt(t *testing.T) {
	at := func(s string) ratelimit.Client { return ratelimit.At(netip.MustParseAddr(s)) }
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"2001:db8::1", "2001:db8::ffff:1", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"::ffff:192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"fe80::1%eth0", "fe80::2%eth1", true},
	} {
		if got := at(c.a) == at(c.b); got != c.same {
			t.Errorf("At(%s) == At(%s) is %v, want %v", c.a, c.b, got, c.same)
		}
	}
}

// Whoever comes, and however many: what is remembered stays bounded, and who
// keeps coming is not forgotten.
func TestBounded(t *testing.T) {
	l := ratelimit.New(ratelimit.Rule{Rate: 1, Interval: time.Hour}, start)
	busy := ratelimit.Named("busy")
	if !l.Take(busy, start).Allowed {
		t.Fatal("the first request is refused")
	}
	for i := range uint32(1_000_000) {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], i)
		l.Take(ratelimit.At(netip.AddrFrom4(b)), start)
		if i%1000 == 0 && l.Take(busy, start).Allowed {
			t.Fatalf("after %d other clients the busy one was forgotten", i)
		}
	}
	if n := l.Clients(); n > ratelimit.Most {
		t.Errorf("%d clients are remembered, want at most %d", n, ratelimit.Most)
	}
	// Later the old ones make room by themselves.
	l.Take(busy, start.Add(3*time.Hour))
	l.Take(busy, start.Add(6*time.Hour))
	if n := l.Clients(); n > ratelimit.Most {
		t.Errorf("%d clients are remembered, want at most %d", n, ratelimit.Most)
	}
}

func TestConcurrent(t *testing.T) {
	l := ratelimit.New(ratelimit.Rule{Rate: 100, Interval: time.Hour}, start)
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if l.Take(ratelimit.Client{}, start).Allowed {
					allowed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := allowed.Load(); n != 100 {
		t.Errorf("%d requests of 800 were let through, want 100", n)
	}
}

func BenchmarkTake(b *testing.B) {
	l := ratelimit.New(ratelimit.Rule{Rate: 1e9, Interval: time.Second}, start)
	c := ratelimit.At(netip.MustParseAddr("192.0.2.1"))
	for b.Loop() {
		l.Take(c, start)
	}
}
