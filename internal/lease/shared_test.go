package lease_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
)

// Two requests in the window share a login; each has its lease; the login stays
// while one of them lives.
func TestSharedLogin(t *testing.T) {
	share(t, func(s *sharer) {
		one, user := s.mustAsk("ann", time.Hour)
		time.Sleep(30 * time.Second)
		two, same := s.mustAsk("ann", time.Hour)
		if same != user || one.ID == two.ID {
			t.Fatalf("users %q and %q, ids equal: %v; want one user and two ids", user, same, one.ID == two.ID)
		}
		if in, err := s.store.Lookup(s.t.Context(), ns, two.ID); err != nil || in.TTL != time.Hour {
			t.Errorf("Lookup = TTL %v, %v, want 1h", in.TTL, err)
		}
		if at := s.expiry(user); at.Before(two.Expires) {
			t.Errorf("the login ends at %v, before its second lease at %v", at, two.Expires)
		}
		if n, err := s.store.CountGroup(s.t.Context(), "m1", "app"); n != 2 || err != nil {
			t.Errorf("CountGroup = %d, %v, want 2", n, err)
		}
		s.revoke(one)
		if !s.target.has(user) {
			t.Fatal("the login is gone although a lease holds it")
		}
		if _, err := s.store.Lookup(s.t.Context(), ns, one.ID); !errs.Is(err, errs.Invalid) {
			t.Errorf("Lookup of the lease that ended = %v, want Invalid", err)
		}
		s.revoke(two)
		if s.target.has(user) {
			t.Error("the login outlives its last lease")
		}
		time.Sleep(window)
		synctest.Wait()
		s.nothingLeft()
	})
}

// Who may not share gets a login of his own.
func TestNotShared(t *testing.T) {
	for _, c := range []struct {
		name string
		ask  func(s *sharer) string // the user of a second request
	}{
		{"another holder", func(s *sharer) string { _, u := s.mustAsk("bob", time.Hour); return u }},
		{"another role's settings", func(s *sharer) string {
			_, u := s.mustAsk("ann", time.Hour, func(g *lease.Grant[ref, secretOut]) { g.Share.Like = "v2" })
			return u
		}},
		{"another target", func(s *sharer) string {
			_, u := s.mustAsk("ann", time.Hour, func(g *lease.Grant[ref, secretOut]) { g.Target = "conn-2" })
			return u
		}},
		{"a longer lease", func(s *sharer) string { _, u := s.mustAsk("ann", 3*time.Hour); return u }},
		{"after the window", func(s *sharer) string {
			time.Sleep(window)
			_, u := s.mustAsk("ann", time.Hour)
			return u
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			share(t, func(s *sharer) {
				_, first := s.mustAsk("ann", time.Hour)
				if second := c.ask(s); second == first {
					t.Errorf("%q is shared", first)
				}
				time.Sleep(5 * time.Hour)
				synctest.Wait()
				s.nothingLeft()
			})
		})
	}
}

// What the credential is made of is wiped when the window is over, also while
// its target does not answer.
func TestOfferIsWiped(t *testing.T) {
	share(t, func(s *sharer) {
		s.mustAsk("ann", time.Hour)
		if n := s.left("share/"); n != 1 {
			t.Fatalf("%d offers, want 1", n)
		}
		s.target.set(func() { s.target.down = errors.New("down") })
		time.Sleep(window + 5*time.Second)
		synctest.Wait()
		if n := s.left("share/"); n != 0 {
			t.Errorf("%d offers after the window, want none", n)
		}
		s.target.set(func() { s.target.down = nil })
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		s.nothingLeft()
	})
}

// With the last lease goes the offer, whatever is left of the window.
func TestLastLeaseWithdraws(t *testing.T) {
	share(t, func(s *sharer) {
		one, first := s.mustAsk("ann", time.Hour)
		s.revoke(one)
		if n := s.left("share/"); n != 0 {
			t.Errorf("%d offers of a login that is gone", n)
		}
		if _, second := s.mustAsk("ann", time.Hour); second == first {
			t.Error("a login that is gone was given out")
		}
	})
}

// A renewal extends the login to the latest of its leases, and never takes from
// another.
func TestSharedRenewal(t *testing.T) {
	share(t, func(s *sharer) {
		one, user := s.mustAsk("ann", time.Hour)
		two, _ := s.mustAsk("ann", time.Hour)
		for _, c := range []struct {
			l    *lease.Issued
			by   time.Duration
			want time.Duration // of the login
		}{
			{one, 3 * time.Hour, 3 * time.Hour},
			{two, 2 * time.Hour, 3 * time.Hour},
			{two, 4 * time.Hour, 4 * time.Hour},
			{one, time.Hour, 4 * time.Hour},
		} {
			got, err := s.store.Renew(s.t.Context(), ns, c.l.ID, c.by)
			if err != nil || got.TTL != c.by {
				t.Fatalf("Renew = %v, %v, want %v", got.TTL, err, c.by)
			}
			if at := s.expiry(user); !at.Equal(time.Now().Add(c.want)) {
				t.Errorf("after a renewal by %v the login ends in %v, want %v", c.by, time.Until(at), c.want)
			}
		}
		time.Sleep(2 * time.Hour) // one has expired
		synctest.Wait()
		if !s.target.has(user) {
			t.Fatal("the login went with the shorter lease")
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		s.nothingLeft()
	})
}

// Renewals of all leases at once leave the login with the latest of their ends.
func TestSharedRenewalsAtOnce(t *testing.T) {
	share(t, func(s *sharer) {
		var all []*lease.Issued
		var user string
		for range 6 {
			l, u := s.mustAsk("ann", time.Hour)
			all, user = append(all, l), u
		}
		var wg sync.WaitGroup
		for i, l := range all {
			wg.Go(func() {
				if _, err := s.store.Renew(s.t.Context(), ns, l.ID, time.Duration(i+2)*time.Hour); err != nil && !errs.Is(err, errs.TooMany) {
					t.Errorf("Renew = %v", err)
				}
			})
		}
		wg.Wait()
		for _, l := range all {
			in, err := s.store.Lookup(s.t.Context(), ns, l.ID)
			if err != nil || s.expiry(user).Before(in.Expires) {
				t.Errorf("the login ends at %v, a lease at %v (%v)", s.expiry(user), in.Expires, err)
			}
		}
	})
}

// Those who come at once wait for the first of them, and their token's end ends
// them all.
func TestStampede(t *testing.T) {
	share(t, func(s *sharer) {
		users := make([]string, 40)
		var wg sync.WaitGroup
		for i := range users {
			wg.Go(func() {
				_, u, err := s.ask("ann", time.Hour)
				if err != nil {
					t.Errorf("asking = %v", err)
				}
				users[i] = u
			})
		}
		wg.Wait()
		if all := slices.Compact(slices.Clone(users)); len(all) != 1 {
			t.Errorf("users %q, want one for all", all)
		}
		if n := s.left("lease/"); n != len(users) {
			t.Errorf("%d leases, want %d", n, len(users))
		}
		s.put(liveOf, lease.Ended)
		if err := s.store.RevokeOwned(s.t.Context(), owner, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(window + 5*time.Second)
		synctest.Wait()
		if s.target.has(users[0]) {
			t.Error("the login outlives its token")
		}
		s.nothingLeft()
	})
}

// When the first one fails the others do not wait for each other in turn.
func TestStampedeThatFails(t *testing.T) {
	share(t, func(s *sharer) {
		s.fail = errs.New(errs.Invalid, "the role's SQL is wrong")
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, _, err := s.ask("ann", time.Hour); !errors.Is(err, s.fail) {
					t.Errorf("asking = %v, want %v", err, s.fail)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		s.nothingLeft()
	})
}

// The first client goes away: who has joined keeps the login.
func TestFirstClientIsGone(t *testing.T) {
	share(t, func(s *sharer) {
		one, user := s.mustAsk("ann", time.Hour)
		two, _ := s.mustAsk("ann", time.Hour)
		if err := s.store.Undo(s.t.Context(), one, lease.MakeDone); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, err := s.store.Lookup(s.t.Context(), ns, two.ID); err != nil || !s.target.has(user) {
			t.Errorf("Lookup = %v, the login is there: %v; want both", err, s.target.has(user))
		}
		s.revoke(two)
		time.Sleep(window)
		synctest.Wait()
		s.nothingLeft()
	})
}

// Caps hold for leases, whoever's their login.
func TestCapOnShared(t *testing.T) {
	share(t, func(s *sharer) {
		capped := func(g *lease.Grant[ref, secretOut]) { g.Caps.PerHolder = 2 }
		s.mustAsk("ann", time.Hour, capped)
		s.mustAsk("ann", time.Hour, capped)
		if _, _, err := s.ask("ann", time.Hour, capped); !errs.Is(err, errs.TooMany) {
			t.Errorf("a third lease = %v, want TooMany", err)
		}
	})
}

// A lease that shares its login is ended by the cause that ended it, in its
// own record.
func TestSharedRecords(t *testing.T) {
	share(t, func(s *sharer) {
		one, _ := s.mustAsk("ann", time.Hour)
		two, _ := s.mustAsk("ann", time.Hour)
		s.revoke(one)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		st := s.store.Stats()
		got := map[lease.Cause]uint64{}
		for _, e := range st.Ended {
			got[e.Cause] = e.Count
		}
		if got[lease.Revoked] != 1 || got[lease.Expired] != 1 {
			t.Errorf("ends %v, want one revoked and one expired", got)
		}
		if strings.Contains(string(two.ID), string(one.ID)) {
			t.Error("ids are alike")
		}
	})
}
