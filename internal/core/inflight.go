package core

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// InFlight is a request that has not been answered yet.
type InFlight struct {
	ID     string
	Start  time.Time
	Path   string // as ShownPath shows it
	Method string
	Remote netip.AddrPort
}

// inflight knows the requests inside, for sys/in-flight-req. Each brings its
// own link of a list, so that coming and going allocates nothing and looks
// nothing up. There are 16 lists, so that no lock is shared by all.
type inflight struct {
	lists [16]inflightList
}

type inflightList struct {
	mu    sync.Mutex
	first *link
	_     [48]byte // a cache line of its own
}

// link is a request's place in a list. What it shows is copied, because the
// request changes on its way.
type link struct {
	InFlight
	list       *inflightList
	prev, next *link
}

// enter notes a request in l. Its id is random, and so is the list that the
// last letter chooses.
func (f *inflight) enter(l *link, req *Request) {
	begun := req.Begun
	if begun.IsZero() {
		begun = time.Now()
	}
	l.InFlight = InFlight{ID: req.ID, Start: begun, Path: req.Path, Method: req.Method, Remote: req.Remote}
	n := 0
	if req.ID != "" {
		n = int(req.ID[len(req.ID)-1]) % len(f.lists)
	}
	l.list = &f.lists[n]
	l.list.mu.Lock()
	defer l.list.mu.Unlock()
	if l.next = l.list.first; l.next != nil {
		l.next.prev = l
	}
	l.list.first = l
}

// leave forgets the request.
func (l *link) leave() {
	l.list.mu.Lock()
	defer l.list.mu.Unlock()
	if l.next != nil {
		l.next.prev = l.prev
	}
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		l.list.first = l.next
	}
}

// InFlight lists the requests inside, the oldest first.
func (c *Core) InFlight() []InFlight {
	var out []InFlight
	for i := range c.inflight.lists {
		list := &c.inflight.lists[i]
		list.mu.Lock()
		for l := list.first; l != nil; l = l.next {
			out = append(out, l.InFlight)
		}
		list.mu.Unlock()
	}
	for i := range out {
		out[i].Path = ShownPath(out[i].Path)
	}
	slices.SortFunc(out, func(a, b InFlight) int {
		if d := a.Start.Compare(b.Start); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}
