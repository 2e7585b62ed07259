package lease_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
)

// A cap refuses with the time at which the next lease ends, and makes room as
// leases end.
func TestCaps(t *testing.T) {
	for _, c := range []struct {
		name string
		caps lease.Caps
		who  []string // of the leases that fill it
		free string   // who still has room; "" is nobody
	}{
		{"of a group", lease.Caps{Group: 3}, []string{"ann", "bob", "cid"}, ""},
		{"of a holder", lease.Caps{PerHolder: 2}, []string{"ann", "ann", "bob"}, "bob"},
		{"of both", lease.Caps{Group: 4, PerHolder: 2}, []string{"bob", "ann", "ann"}, "bob"},
	} {
		t.Run(c.name, func(t *testing.T) {
			share(t, func(s *sharer) {
				alone := func(g *lease.Grant[ref, secretOut]) { g.Share, g.Caps = nil, c.caps }
				begun := time.Now()
				var leases []*lease.Issued
				for i, who := range c.who {
					l, _ := s.mustAsk(who, time.Duration(i+1)*time.Hour, alone)
					leases = append(leases, l)
				}
				_, _, err := s.ask("ann", time.Hour, alone)
				var e *errs.Error
				if !errors.As(err, &e) || e.Kind != errs.TooMany {
					t.Fatalf("beyond the cap = %v, want TooMany", err)
				}
				first := 1 // hours until the first of those that fill it
				if c.name == "of both" {
					first = 2
				}
				if e.After <= 0 || e.After > 10*time.Second {
					t.Errorf("ask again after %v, want a few seconds", e.After)
				}
				for _, at := range []time.Time{begun.Add(time.Duration(first) * time.Hour), begun.Add(24 * time.Hour)} {
					if !strings.Contains(e.Msg, at.UTC().Format(time.RFC3339)) {
						t.Errorf("%q does not name %v", e.Msg, at)
					}
				}
				if c.free != "" {
					s.mustAsk(c.free, time.Minute, alone)
				}
				s.revoke(leases[len(leases)-1])
				if c.name == "of a holder" {
					s.revoke(leases[0])
				}
				s.mustAsk("ann", time.Minute, alone)
				time.Sleep(30 * time.Hour)
				synctest.Wait()
				s.nothingLeft()
			})
		})
	}
}

// Leases that cannot be ended are live, and no time can be named.
func TestCapOfEndingLeases(t *testing.T) {
	share(t, func(s *sharer) {
		alone := func(g *lease.Grant[ref, secretOut]) { g.Share, g.Caps.Group = nil, 1 }
		_, user := s.mustAsk("ann", time.Hour, alone)
		s.target.set(func() { s.target.refuse[user] = errors.New("it owns a table") })
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if _, _, err := s.ask("ann", time.Hour, alone); !errs.Is(err, errs.TooMany) {
			t.Errorf("beyond the cap = %v, want TooMany", err)
		}
	})
}

// Paths are counted one by one, and all that begin alike.
func TestCountPath(t *testing.T) {
	run(t, func(r *rig) {
		for i, path := range []string{"creds/app", "creds/app", "creds/apple", "creds/app/more", "other"} {
			if _, err := r.issue(r.store.Draft("database/"+path, ""), string(rune('a'+i)), time.Hour, nil); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []struct {
			path string
			all  bool
			want int64
		}{
			{"creds/app", false, 2}, {"creds/apple", false, 1}, {"creds", false, 0}, {"creds/", true, 4},
			{"creds/app", true, 4}, {"creds/app/", true, 3}, {"", true, 5},
		} {
			if n, err := r.store.CountPath(r.t.Context(), "m1", c.path, c.all); n != c.want || err != nil {
				t.Errorf("CountPath(%q, %v) = %d, %v, want %d", c.path, c.all, n, err, c.want)
			}
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		r.nothingLeft()
	})
}
