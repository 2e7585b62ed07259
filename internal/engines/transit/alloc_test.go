//go:build !race

// The race detector has pools forget what they hold, and so more is allocated.

package transit_test

import "testing"

// TestAllocations holds what requests allocate to their ceilings.
func TestAllocations(t *testing.T) {
	s := newSender(t)
	s.hold(t)
	for _, c := range benchCases(t) {
		body := c.body(s)
		a := newAgain(s.h, s.request(c.path, c.kind, body), body)
		got := testing.AllocsPerRun(100, a.do)
		for range 9 { // what else the server does is counted too: the least is the request's own
			got = min(got, testing.AllocsPerRun(100, a.do))
		}
		if got > c.ceiling {
			t.Errorf("%s allocates %v times, its ceiling is %v", c.name, got, c.ceiling)
		} else if a.w.status >= 300 {
			t.Errorf("%s is answered with %d", c.name, a.w.status)
		}
	}
}
