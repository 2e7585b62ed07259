package lease_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
)

// secretOut is what the sharing target gives.
type secretOut struct {
	User string `json:"user"`
}

// sharer issues credentials that holders share, on a rig.
type sharer struct {
	*rig
	mu    sync.Mutex
	made  int
	until map[string]time.Time // the target's expiry, by user
	fail  error                // of Make
}

const window = time.Minute

func newSharer(r *rig) *sharer {
	s := &sharer{rig: r, until: map[string]time.Time{}}
	r.kind.Renew = func(_ context.Context, _ string, f ref, mark string, until time.Time) error {
		r.target.mu.Lock()
		known := r.target.logins[f.User] == mark
		r.target.mu.Unlock()
		if !known {
			return fmt.Errorf("%q has another mark", f.User)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.until[f.User] = until
		return nil
	}
	return s
}

// ask is what core does for a request of who.
func (s *sharer) ask(who string, ttl time.Duration, change ...func(*lease.Grant[ref, secretOut])) (*lease.Issued, string, error) {
	ctx := s.t.Context()
	s.mu.Lock()
	s.made++
	user := fmt.Sprint(who, s.made)
	s.mu.Unlock()
	g := lease.Grant[ref, secretOut]{
		Target: "conn-1", Ref: ref{User: user}, Names: []string{"id/" + user}, Group: "app",
		Share: &lease.Share{Window: window, Like: "v1"},
		Make: func(ctx context.Context, m lease.Made) (secretOut, error) {
			return secretOut{user}, s.lanes.Create(ctx, "conn-1", func(context.Context) error {
				if s.fail != nil {
					return s.fail
				}
				s.mu.Lock()
				s.until[user] = m.Expires
				s.mu.Unlock()
				return s.target.create(user, m.Mark)
			})
		},
	}
	for _, f := range change {
		f(&g)
	}
	plan, err := lease.Erase(s.kind, g)
	if err != nil {
		return nil, "", err
	}
	h := lease.Holder{Namespace: ns, Mount: mount, Owner: owner, Live: []string{liveOf}, Who: who}
	d := s.draft()
	l, out, done, err := s.store.Join(ctx, d, h, plan, ttl, 24*time.Hour)
	if err != nil {
		return nil, "", err
	}
	defer done()
	if l == nil {
		if l, err = s.store.Commit(ctx, d, h, plan, ttl, 24*time.Hour); err != nil {
			return nil, "", err
		}
		if out, err = s.store.Make(ctx, l); err != nil {
			return nil, "", err
		}
		if err := s.store.Confirm(ctx, l); err != nil {
			return nil, "", err
		}
		_ = s.store.Offer(ctx, l, h, out)
	} else if err := s.store.Confirm(ctx, l); err != nil {
		return nil, "", err
	}
	return l, out.(secretOut).User, nil
}

func (s *sharer) mustAsk(who string, ttl time.Duration, change ...func(*lease.Grant[ref, secretOut])) (*lease.Issued, string) {
	s.t.Helper()
	l, user, err := s.ask(who, ttl, change...)
	if err != nil {
		s.t.Fatalf("asking as %s = %v", who, err)
	}
	return l, user
}

func (s *sharer) revoke(l *lease.Issued) {
	s.t.Helper()
	if p, err := s.store.Revoke(s.t.Context(), ns, l.ID, lease.Revoked, true); err != nil || p.Cleaning {
		s.t.Fatalf("Revoke = %+v, %v", p, err)
	}
}

func (s *sharer) expiry(user string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.until[user]
}

func (s *sharer) nothingLeft() {
	s.t.Helper()
	s.rig.nothingLeft()
	for _, p := range []string{"cred/", "share/", "held/"} {
		if keys := s.keys(p); len(keys) != 0 {
			s.t.Errorf("%q is left", keys)
		}
	}
}

func share(t *testing.T, f func(s *sharer)) { run(t, func(r *rig) { f(newSharer(r)) }) }

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

// A target that refuses to drop the login keeps the last lease alone, and
// tidying leaves a shared login's name alone.
func TestSharedIrrevocable(t *testing.T) {
	share(t, func(s *sharer) {
		one, user := s.mustAsk("ann", time.Hour)
		s.mustAsk("ann", time.Hour)
		s.revoke(one)
		if n, err := s.store.Tidy(s.t.Context()); n != 0 || err != nil {
			t.Errorf("Tidy = %d, %v, want nothing removed", n, err)
		}
		s.target.set(func() { s.target.refuse[user] = errors.New("it owns a table") })
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		list, _, err := s.store.List(s.t.Context(), ns, lease.Query{Irrevocable: true})
		if err != nil || len(list) != 1 {
			t.Fatalf("List = %d irrevocable leases, %v, want 1", len(list), err)
		}
		s.target.set(func() { delete(s.target.refuse, user) })
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		s.nothingLeft()
	})
}

// Without the credential's row nobody knows who else holds the login: nobody's
// is ended, until an operator says so.
func TestLostCredentialRow(t *testing.T) {
	share(t, func(s *sharer) {
		one, user := s.mustAsk("ann", time.Hour)
		two, _ := s.mustAsk("ann", time.Hour)
		s.put(s.keys("cred/")[0], "damaged")
		for _, l := range []*lease.Issued{one, two} {
			if _, err := s.store.Renew(s.t.Context(), ns, l.ID, time.Hour); !errs.Is(err, errs.Unavailable) {
				t.Errorf("Renew = %v, want Unavailable", err)
			}
		}
		if _, err := s.store.Revoke(s.t.Context(), ns, one.ID, lease.Revoked, true); err == nil {
			t.Error("Revoke = nil, want an error: the login may be there")
		}
		if !s.target.has(user) {
			t.Error("a login was dropped that another lease holds")
		}
		if _, err := s.store.Lookup(s.t.Context(), ns, two.ID); err != nil {
			t.Errorf("Lookup of the other lease = %v", err)
		}
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

// TestEveryCallOfSharing breaks each call of the store in turn and checks after
// each that no login is without a lease, that none that a client holds is gone
// while its lease lives, and that in the end nothing is left.
func TestEveryCallOfSharing(t *testing.T) {
	for _, dead := range []bool{false, true} {
		faults := 0
		for n := 1; ; n++ {
			over := false
			synctest.Test(t, func(t *testing.T) { over = sharingBreaks(t, n, dead) })
			if t.Failed() {
				t.Fatalf("call %d, dead from there: %v", n, dead)
			}
			if over {
				break
			}
			faults++
		}
		t.Logf("%d calls broken in turn (dead from there: %v)", faults, dead)
	}
}

func sharingBreaks(t *testing.T, n int, dead bool) (over bool) {
	db := fault.Wrap(mem.New())
	s := newSharer(newRigOn(t, db))
	type holds struct {
		l    *lease.Issued
		user string
	}
	var held []holds
	var mu sync.Mutex
	calls := 0
	db.Set(func(fault.Call) error {
		mu.Lock()
		defer mu.Unlock()
		if calls++; calls == n || calls > n && dead {
			return fault.ErrInjected
		}
		return nil
	})
	for range 3 {
		if l, user, err := s.ask("ann", time.Hour); err == nil {
			held = append(held, holds{l, user})
		}
	}
	// One is renewed, one is revoked, one expires.
	if len(held) > 0 {
		_, _ = s.store.Renew(s.t.Context(), ns, held[0].l.ID, 3*time.Hour)
	}
	revoked := -1
	if len(held) > 1 {
		ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Second)
		_, _ = s.store.Revoke(ctx, ns, held[1].l.ID, lease.Revoked, true)
		cancel()
		revoked = 1
	}
	time.Sleep(30 * time.Second)
	synctest.Wait()
	mu.Lock()
	over = calls < n
	mu.Unlock()
	db.Set(nil)
	s.stop()

	// A new process on the healed store.
	r := newRigWith(t, db, s.target)
	defer r.stop()
	time.Sleep(time.Minute)
	synctest.Wait()
	for _, user := range s.target.users() {
		if r.left("name/id/"+user) != 1 {
			t.Errorf("the login %q has no lease", user)
		}
	}
	for i, h := range held {
		if i == revoked {
			continue
		}
		if _, err := r.store.Lookup(s.t.Context(), ns, h.l.ID); err != nil || !s.target.has(h.user) {
			t.Errorf("lease %d is looked up with %v, its login is there: %v; want both", i, err, s.target.has(h.user))
		}
	}
	if len(held) > 0 && held[0].l.Expires.Before(s.expiry(held[0].user)) {
		if in, err := r.store.Lookup(s.t.Context(), ns, held[0].l.ID); err == nil && s.expiry(held[0].user).Before(in.Expires) {
			t.Errorf("the login ends at %v, its lease at %v", s.expiry(held[0].user), in.Expires)
		}
	}
	time.Sleep(30 * time.Hour)
	synctest.Wait()
	(&sharer{rig: r}).nothingLeft()
	if left := s.target.users(); len(left) > 0 {
		t.Errorf("logins are left although every lease has ended: %q", left)
	}
	return over
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

// Leases that share a login are forgotten at a target that is away, with what
// is stored of the login.
func TestSharedForgotten(t *testing.T) {
	share(t, func(s *sharer) {
		s.mustIssue("other", time.Minute)
		one, _ := s.mustAsk("ann", 9*time.Hour)
		two, _ := s.mustAsk("ann", 9*time.Hour)
		time.Sleep(10 * time.Second)
		s.target.set(func() { s.target.down = errors.New("connection refused") })
		time.Sleep(10 * time.Minute)
		for i, l := range []*lease.Issued{one, two} {
			if _, err := s.store.Revoke(s.t.Context(), ns, l.ID, lease.Forced, true); err != nil {
				t.Errorf("Revoke = %v", err)
			}
			if n := s.left("cred/"); n != 1-i {
				t.Errorf("%d shared logins after %d of 2 leases were forgotten", n, i+1)
			}
		}
		if n := s.left("lease/"); n != 1 {
			t.Errorf("%d leases left, want the one that nobody wants forgotten", n)
		}
	})
}
