package lease_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
)

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
