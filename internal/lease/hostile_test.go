package lease_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
)

// runOn is run over a store of the test's.
func runOn(t *testing.T, f func(r *rig, s *fault.Store)) {
	synctest.Test(t, func(t *testing.T) {
		s := fault.Wrap(mem.New())
		r := newRigOn(t, s)
		defer r.stop()
		f(r, s)
	})
}

// An operator's force while a credential is being made: the lease is answered
// for at once, and goes only when no login can land any more.
func TestForcedWhileMaking(t *testing.T) {
	run(t, func(r *rig) {
		d := r.draft()
		_, err := r.issue(d, "alice", time.Hour, func(ctx context.Context, m lease.Made) error {
			p, err := r.store.Revoke(ctx, ns, d.ID(), lease.Forced, true)
			if err != nil || !p.Cleaning {
				t.Errorf("Revoke by force = %+v, %v, want one that is cleaning up", p, err)
			}
			return r.target.create("alice", m.Mark)
		})
		if !errs.Is(err, errs.Denied) {
			t.Errorf("issue = %v, want Denied", err)
		}
		time.Sleep(2 * lease.DefaultLimit)
		synctest.Wait()
		if r.target.has("alice") {
			t.Error("a login stays that no lease will end")
		}
		r.nothingLeft()
	})
}

// A login of that name which is not ours may go away again: while a creation
// of ours can land, it ends no lease.
func TestForeignLoginThatGoesAway(t *testing.T) {
	run(t, func(r *rig) {
		if err := r.target.create("alice", "a human made this"); err != nil {
			t.Fatal(err)
		}
		d := r.draft()
		_, err := r.issue(d, "alice", time.Hour, func(ctx context.Context, m lease.Made) error {
			if _, err := r.store.Revoke(ctx, ns, d.ID(), lease.Revoked, true); err != nil {
				t.Errorf("Revoke = %v", err)
			}
			r.target.set(func() { r.target.logins["alice"] = m.Mark }) // dropped by its human, and made by us
			return lease.ErrUnknown
		})
		if err == nil {
			t.Error("issue = nil, want an error")
		}
		time.Sleep(2 * lease.DefaultLimit)
		synctest.Wait()
		if r.target.has("alice") {
			t.Error("a login stays that no lease will end")
		}
		r.nothingLeft()
	})
}

// A commit that is durable although its caller was told otherwise leaves no
// lease of nothing until its expiry.
func TestCommitWithUnknownEnd(t *testing.T) {
	runOn(t, func(r *rig, s *fault.Store) {
		s.Set(fault.On(fault.Answer, 1))
		if _, err := r.issue(r.draft(), "alice", time.Hour, nil); !errors.Is(err, fault.ErrInjected) {
			t.Fatalf("issue = %v, want the injected error", err)
		}
		s.Set(nil)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		r.nothingLeft()
	})
}

// Making that panics makes its lease due.
func TestMakePanics(t *testing.T) {
	run(t, func(r *rig) {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was lost")
				}
			}()
			_, _ = r.issue(r.draft(), "alice", time.Hour, func(_ context.Context, m lease.Made) error {
				if err := r.target.create("alice", m.Mark); err != nil {
					return err
				}
				panic("in an engine")
			})
		}()
		time.Sleep(2 * lease.DefaultLimit)
		synctest.Wait()
		if r.target.has("alice") {
			t.Error("the login is still there")
		}
		r.nothingLeft()
	})
}

// Renewals of one lease at once: the target's expiry is never earlier than
// the lease's, in whichever order they arrive, and while one makes it shorter.
func TestRenewalsAtOnce(t *testing.T) {
	run(t, func(r *rig) {
		var mu sync.Mutex
		var there time.Time
		n := 0
		r.kind.Renew = func(_ context.Context, _ string, _ ref, _ string, until time.Time) error {
			mu.Lock()
			there = until
			n++
			wait := time.Duration(n%5) * time.Second
			mu.Unlock()
			time.Sleep(wait)
			return nil
		}
		l := r.mustIssue("alice", time.Hour)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				if _, err := r.store.Renew(r.t.Context(), ns, l.ID, time.Duration(i%2*9+1)*time.Hour); err != nil && !errs.Is(err, errs.TooMany) {
					t.Errorf("Renew = %v", err)
				}
			})
		}
		wg.Wait()
		in, err := r.store.Lookup(r.t.Context(), ns, l.ID)
		if err != nil || there.Before(in.Expires) {
			t.Errorf("the target ends the login at %v, the lease at %v, %v", there, in.Expires, err)
		}
		// A shorter time that is taken by the target and not written down.
		r.kind.Renew = func(_ context.Context, _ string, _ ref, _ string, until time.Time) error {
			if until.Before(in.Expires) {
				t.Errorf("the target is told %v while the lease lasts until %v", until, in.Expires)
			}
			return nil
		}
		if _, err := r.store.Renew(r.t.Context(), ns, l.ID, time.Minute); err != nil {
			t.Errorf("Renew = %v", err)
		}
	})
}

// One row that cannot be read stops neither its prefix, nor its token, nor a
// list.
func TestBadRowStopsNothing(t *testing.T) {
	run(t, func(r *rig) {
		for i := range 10 {
			r.mustIssue(fmt.Sprint("user", i), time.Hour)
		}
		keys := r.keys("lease/")
		r.put(keys[4], "not a row")
		if list, _, err := r.store.List(r.t.Context(), ns, lease.Query{}); err != nil || len(list) != 9 {
			t.Errorf("List = %d leases, %v, want the 9 that can be read", len(list), err)
		}
		if below, err := r.store.Keys(r.t.Context(), ns, "database/creds/app"); err != nil || len(below) != 9 {
			t.Errorf("Keys = %d, %v, want 9", len(below), err)
		}
		r.put(liveOf, lease.Ended)
		if err := r.store.RevokeOwned(r.t.Context(), owner, false); err != nil {
			t.Errorf("RevokeOwned = %v", err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := r.left("lease/"); n != 1 {
			t.Errorf("%d leases left, want only the one that cannot be read", n)
		}
		if _, err := r.store.RevokePrefix(r.t.Context(), ns, "database/", lease.Revoked, false); err != nil {
			t.Errorf("RevokePrefix = %v", err)
		}
	})
}

// A TTL that is over before the credential is made is the role's fault.
func TestTTLShorterThanMake(t *testing.T) {
	run(t, func(r *rig) {
		_, err := r.issue(r.draft(), "alice", time.Second, func(_ context.Context, m lease.Made) error {
			time.Sleep(3 * time.Second)
			return r.target.create("alice", m.Mark)
		})
		if !errs.Is(err, errs.Invalid) {
			t.Errorf("issue = %v, want Invalid", err)
		}
		time.Sleep(2 * lease.DefaultLimit)
		synctest.Wait()
		if r.target.has("alice") {
			t.Error("the login is still there")
		}
		r.nothingLeft()
	})
}

// Force forgets a lease whose target is down, but not for one connection that
// died while it was idle.
func TestForceTriesTwice(t *testing.T) {
	run(t, func(r *rig) {
		l := r.mustIssue("alice", time.Hour)
		r.mustIssue("bob", time.Hour)
		time.Sleep(2 * lease.DefaultLimit)
		r.target.set(func() { r.target.down = errors.New("broken pipe") })
		done := make(chan error)
		go func() {
			_, err := r.store.Revoke(r.t.Context(), ns, l.ID, lease.Forced, true)
			done <- err
		}()
		time.Sleep(100 * time.Millisecond)
		r.target.set(func() { r.target.down = nil })
		if err := <-done; err != nil || r.target.has("alice") {
			t.Errorf("Revoke by force = %v, the login is there: %v", err, r.target.has("alice"))
		}
		r.target.set(func() { r.target.down = errors.New("connection refused") })
		if _, err := r.store.RevokePrefix(r.t.Context(), ns, "database/", lease.Forced, true); err != nil {
			t.Errorf("RevokePrefix by force = %v", err)
		}
		synctest.Wait()
		r.nothingLeft()
	})
}

// Leases that an operator wants forgotten do not wait for others of a target
// that is away, which came before them.
func TestForcedPastOthers(t *testing.T) {
	run(t, func(r *rig) {
		for i := range 40 {
			r.mustIssue(fmt.Sprint("user", i), time.Hour)
		}
		var forced []lease.ID
		for i := range 3 {
			forced = append(forced, r.mustIssue(fmt.Sprint("forced", i), 9*time.Hour).ID)
		}
		back := r.mustIssue("back", 9*time.Hour).ID
		r.target.set(func() { r.target.down = errors.New("connection refused") })
		time.Sleep(2 * time.Hour)
		for _, id := range forced {
			if _, err := r.store.Revoke(r.t.Context(), ns, id, lease.Forced, true); err != nil {
				t.Errorf("Revoke = %v", err)
			}
		}
		if n := r.left("lease/"); n != 41 {
			t.Errorf("%d leases left, want the 41 that nobody wants forgotten", n)
		}
		// One of a target that is back, which its lane does not know yet.
		r.target.set(func() { r.target.down = nil })
		if _, err := r.store.Revoke(r.t.Context(), ns, back, lease.Forced, true); err != nil || r.target.has("back") {
			t.Errorf("Revoke = %v, and the login is left: %v", err, r.target.has("back"))
		}
		// One whose creation may yet land stays until it cannot.
		time.Sleep(time.Hour)
		young := r.mustIssue("young", 9*time.Hour)
		r.mustIssue("other", time.Second)
		r.target.set(func() { r.target.down = errors.New("connection refused") })
		time.Sleep(10 * time.Second)
		for _, pending := range []bool{true, false} {
			p, err := r.store.Revoke(r.t.Context(), ns, young.ID, lease.Forced, true)
			there := r.left("lease/") == 2
			if err != nil || p.Cleaning != pending || there != pending {
				t.Errorf("Revoke = %+v, %v, and the lease is there: %v", p, err, there)
			}
			time.Sleep(lease.DefaultLimit)
		}
	})
}
