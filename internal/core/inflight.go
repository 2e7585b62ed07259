package core

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// inflight knows the requests inside, for sys/in-flight-req. It is sharded by
// the request's id, so that no lock is shared by all.
type inflight struct {
	shards [16]inflightShard
}

type inflightShard struct {
	mu  sync.Mutex
	now map[string]InFlight
	_   [40]byte // a cache line of its own
}

// InFlight is a request that has not been answered yet.
type InFlight struct {
	ID     string
	Start  time.Time
	Path   string // as ShownPath shows it
	Method string
	Remote netip.AddrPort
}

func (f *inflight) shard(id string) *inflightShard {
	h := uint32(0)
	for i := range len(id) {
		h = h*31 + uint32(id[i])
	}
	return &f.shards[h%uint32(len(f.shards))]
}

// track notes a request and gives the func that forgets it.
func (f *inflight) track(req *Request) func() {
	s := f.shard(req.ID)
	s.mu.Lock()
	if s.now == nil {
		s.now = map[string]InFlight{}
	}
	s.now[req.ID] = InFlight{ID: req.ID, Start: time.Now(), Path: req.Path, Method: req.Method, Remote: req.Remote}
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		delete(s.now, req.ID)
		s.mu.Unlock()
	}
}

// InFlight lists the requests inside, the oldest first.
func (c *Core) InFlight() []InFlight {
	var out []InFlight
	for i := range c.inflight.shards {
		s := &c.inflight.shards[i]
		s.mu.Lock()
		for _, r := range s.now {
			r.Path = ShownPath(r.Path)
			out = append(out, r)
		}
		s.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b InFlight) int {
		if d := a.Start.Compare(b.Start); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}
