package lease_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
)

func TestExpires(t *testing.T) {
	run(t, func(r *rig) {
		l := r.mustIssue("alice", time.Hour)
		if _, err := r.store.Lookup(r.t.Context(), ns, l.ID); err != nil {
			t.Fatalf("Lookup = %v", err)
		}
		if n, err := r.store.CountGroup(r.t.Context(), "m1", "app"); n != 1 || err != nil {
			t.Errorf("CountGroup = %d, %v, want 1", n, err)
		}
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		if r.target.has("alice") {
			t.Error("the login outlived its lease")
		}
		if _, err := r.store.Lookup(r.t.Context(), ns, l.ID); !errs.Is(err, errs.Invalid) {
			t.Errorf("Lookup after expiry = %v, want Invalid", err)
		}
		r.nothingLeft()
	})
}

func TestRenewMovesExpiry(t *testing.T) {
	run(t, func(r *rig) {
		l := r.mustIssue("alice", time.Hour)
		time.Sleep(50 * time.Minute)
		got, err := r.store.Renew(r.t.Context(), ns, l.ID, 2*time.Hour)
		if err != nil || got.TTL != 2*time.Hour || got.Capped {
			t.Fatalf("Renew = %v %v, %v", got.TTL, got.Capped, err)
		}
		time.Sleep(time.Hour)
		if !r.target.has("alice") {
			t.Fatal("a renewed login was dropped")
		}
		got, err = r.store.Renew(r.t.Context(), ns, l.ID, 48*time.Hour)
		if err != nil || !got.Capped {
			t.Fatalf("Renew past the maximum = capped %v, %v", got.Capped, err)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if r.target.has("alice") {
			t.Error("the login outlived its maximum")
		}
		r.nothingLeft()
	})
}

func TestRevoke(t *testing.T) {
	for _, sync := range []bool{false, true} {
		t.Run(fmt.Sprint("sync=", sync), func(t *testing.T) {
			run(t, func(r *rig) {
				l := r.mustIssue("alice", time.Hour)
				p, err := r.store.Revoke(r.t.Context(), ns, l.ID, lease.Revoked, sync)
				if err != nil || p.Cleaning {
					t.Fatalf("Revoke = %+v, %v", p, err)
				}
				if r.target.has("alice") {
					t.Error("the login is still there")
				}
				if p, err := r.store.Revoke(r.t.Context(), ns, l.ID, lease.Revoked, sync); err != nil || p.Cleaning {
					t.Errorf("Revoke of a gone lease = %+v, %v", p, err)
				}
				synctest.Wait()
				r.nothingLeft()
			})
		})
	}
}

// What a token owns reads as ended from its mark on, and is ended by the walk.
func TestOwnerEnds(t *testing.T) {
	run(t, func(r *rig) {
		var ids []lease.ID
		for i := range 30 {
			ids = append(ids, r.mustIssue(fmt.Sprint("user", i), time.Hour).ID)
		}
		r.put(liveOf, lease.Ended)
		if _, err := r.store.Lookup(r.t.Context(), ns, ids[7]); !errs.Is(err, errs.Invalid) {
			t.Errorf("Lookup under an ended token = %v, want Invalid", err)
		}
		if err := r.store.RevokeOwned(r.t.Context(), owner, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		r.nothingLeft()
	})
}

// Tidying leaves alone what points at a lease: its owner ends it afterwards.
func TestTidyKeepsOwners(t *testing.T) {
	run(t, func(r *rig) {
		r.mustIssue("alice", time.Hour)
		if n, err := r.store.Tidy(r.t.Context()); err != nil || n != 0 {
			t.Errorf("Tidy = %d, %v, want nothing removed", n, err)
		}
		if err := r.store.RevokeOwned(r.t.Context(), owner, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		r.nothingLeft()
	})
}

// The id of a lease of a namespace names that, and is found by its whole text
// alone.
func TestLeaseOfANamespace(t *testing.T) {
	run(t, func(r *rig) {
		l, err := r.issue(r.store.Draft("database/creds/app", ".n1"), "alice", time.Hour, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := lease.NamespaceOf(l.ID); got != "n1" || !lease.IsID(string(l.ID)) {
			t.Errorf("NamespaceOf(%q) = %q, want n1", l.ID, got)
		}
		if in, err := r.store.Lookup(r.t.Context(), ns, l.ID); err != nil || in.ID != l.ID {
			t.Errorf("Lookup = %q, %v, want %q", in.ID, err, l.ID)
		}
		for _, id := range []lease.ID{lease.ID(strings.TrimSuffix(string(l.ID), ".n1")), lease.ID(strings.TrimSuffix(string(l.ID), "1") + "2")} {
			if _, err := r.store.Lookup(r.t.Context(), ns, id); !errs.Is(err, errs.Invalid) {
				t.Errorf("Lookup(%q) = %v, want Invalid", id, err)
			}
		}
	})
}

func TestNameClash(t *testing.T) {
	run(t, func(r *rig) {
		r.mustIssue("alice", time.Hour)
		_, err := r.issue(r.draft(), "alice", time.Hour, nil)
		if !lease.IsNameClash(err) {
			t.Errorf("issue of a reserved name = %v, want a name clash", err)
		}
	})
}

// A login of the same name that is not ours is never touched.
func TestForeignLoginIsLeftAlone(t *testing.T) {
	run(t, func(r *rig) {
		if err := r.target.create("alice", "a human made this"); err != nil {
			t.Fatal(err)
		}
		_, err := r.issue(r.draft(), "alice", time.Hour, nil)
		if !errors.Is(err, lease.ErrNameTaken) {
			t.Errorf("issue = %v, want ErrNameTaken", err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !r.target.has("alice") {
			t.Error("a login that is not ours was dropped")
		}
		r.nothingLeft()
	})
}

// While a target is down its leases wait without being written to, and go once
// it is back.
func TestTargetDownAndBack(t *testing.T) {
	run(t, func(r *rig) {
		for i := range 40 {
			r.mustIssue(fmt.Sprint("user", i), time.Hour)
		}
		r.target.set(func() { r.target.down = errors.New("connection refused") })
		time.Sleep(2 * time.Hour)
		if st := r.lanes.Status("conn-1"); !st.Open || !strings.Contains(st.LastError, "refused") {
			t.Errorf("Status = %+v, want an open breaker with its error", st)
		}
		if err := r.lanes.Ready("conn-1"); !errs.Is(err, errs.Upstream) {
			t.Errorf("Ready = %v, want Upstream", err)
		}
		if list, _, err := r.store.List(r.t.Context(), ns, lease.Query{}); err != nil || len(list) != 40 || list[0].Error == "" && list[39].Error == "" {
			t.Errorf("List = %d leases, %v, want 40 with the target's error", len(list), err)
		}
		r.target.set(func() { r.target.down = nil })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		r.nothingLeft()
	})
}

// One that the target refuses becomes irrevocable, stands in nobody's way, and
// can be forgotten by force.
func TestIrrevocable(t *testing.T) {
	run(t, func(r *rig) {
		bad := r.mustIssue("bad", time.Hour)
		r.target.refuse["bad"] = errors.New("role owns objects")
		for i := range 20 {
			r.mustIssue(fmt.Sprint("user", i), time.Hour)
		}
		time.Sleep(time.Hour + 10*time.Minute)
		synctest.Wait()
		if n := r.left("lease/"); n != 1 {
			t.Errorf("%d leases left, want only the bad one", n)
		}
		list, _, err := r.store.List(r.t.Context(), ns, lease.Query{Irrevocable: true})
		if err != nil || len(list) != 1 || list[0].ID != bad.ID || !strings.Contains(list[0].Error, "owns objects") {
			t.Fatalf("List irrevocable = %+v, %v", list, err)
		}
		if n, err := r.store.CountIrrevocable(r.t.Context(), ns, bad.MountID); n != 1 || err != nil {
			t.Errorf("CountIrrevocable = %d, %v, want 1", n, err)
		}
		if _, err := r.store.RevokePrefix(r.t.Context(), ns, "database/creds/app", lease.Forced, true); err != nil {
			t.Fatalf("RevokePrefix by force = %v", err)
		}
		synctest.Wait()
		r.nothingLeft()
		if n, err := r.store.CountIrrevocable(r.t.Context(), ns, ""); n != 0 || err != nil {
			t.Errorf("CountIrrevocable after force = %d, %v, want 0", n, err)
		}
		for _, e := range r.store.Stats().Ended {
			if want := map[lease.Cause]uint64{lease.Expired: 20, lease.Forced: 1}[e.Cause]; e.Count != want {
				t.Errorf("Stats: %d ended by cause %s, want %d", e.Count, e.Cause, want)
			}
		}
		if n := r.store.Stats().Issued; n != 21 {
			t.Errorf("Stats: %d issued, want 21", n)
		}
	})
}

func TestRevokePrefix(t *testing.T) {
	run(t, func(r *rig) {
		for i := range 1100 {
			r.mustIssue(fmt.Sprint("user", i), time.Hour)
		}
		p, err := r.store.RevokePrefix(r.t.Context(), ns, "database/", lease.Revoked, true)
		if err != nil || p.Cleaning {
			t.Fatalf("RevokePrefix = %+v, %v", p, err)
		}
		if n := len(r.target.logins); n != 0 {
			t.Errorf("%d logins left", n)
		}
		synctest.Wait()
		r.nothingLeft()
	})
}

// A mount that was moved is found by its former path for what was issued there,
// and for nothing else: another mount may have that path now.
func TestMovedMount(t *testing.T) {
	run(t, func(r *rig) {
		r.mustIssue("before", time.Hour)
		r.mount.Path = "moved/"
		after, err := r.issue(r.store.Draft("moved/creds/app", ""), "after", time.Hour, nil)
		if err != nil {
			r.t.Fatal(err)
		}
		r.mounts = []lease.Mount{{Namespace: ns, ID: mount.ID, Path: mount.Path, Former: true}}
		if list, _, err := r.store.List(r.t.Context(), ns, lease.Query{Prefix: "database/"}); err != nil || len(list) != 1 || list[0].Path != "database/creds/app" {
			r.t.Errorf("List(database/) = %+v, %v, want the one that was issued there", list, err)
		}
		if keys, err := r.store.Keys(r.t.Context(), ns, "database/creds/app"); err != nil || len(keys) != 1 {
			r.t.Errorf("Keys(database/creds/app) = %q, %v, want one", keys, err)
		}
		if _, err := r.store.RevokePrefix(r.t.Context(), ns, "database/", lease.Revoked, true); err != nil {
			r.t.Fatal(err)
		}
		synctest.Wait()
		if r.target.has("before") || !r.target.has("after") {
			r.t.Errorf("logins %q after revoking database/, want only the one of moved/", r.target.users())
		}
		r.mounts = []lease.Mount{r.mount}
		if _, err := r.store.Lookup(r.t.Context(), ns, after.ID); err != nil {
			r.t.Errorf("Lookup = %v", err)
		}
		if _, err := r.store.RevokePrefix(r.t.Context(), ns, "moved/", lease.Revoked, true); err != nil {
			r.t.Fatal(err)
		}
		synctest.Wait()
		r.nothingLeft()
	})
}

// One lease that its engine panics at is tried again and listed; the others of
// its batch end.
func TestPoisonedLease(t *testing.T) {
	run(t, func(r *rig) {
		for i := range 40 {
			r.mustIssue(fmt.Sprint("user", i), time.Hour)
		}
		r.target.set(func() { r.target.poison = "user17" })
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if n := len(r.target.logins); n != 1 || !r.target.has("user17") {
			t.Errorf("%d logins left, want only the one", n)
		}
		list, _, err := r.store.List(r.t.Context(), ns, lease.Query{Irrevocable: true})
		if err != nil || len(list) != 1 || !strings.Contains(list[0].Error, "panicked") {
			t.Errorf("List of irrevocable leases = %+v, %v, want the one", list, err)
		}
		r.target.set(func() { r.target.poison = "" })
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		r.nothingLeft()
	})
}

// Behind a fence nothing expires; explicit revocation goes on; lifting it lets
// everything go.
func TestFence(t *testing.T) {
	run(t, func(r *rig) {
		for i := range 50 {
			r.mustIssue(fmt.Sprint("user", i), time.Hour)
		}
		late := r.mustIssue("late", 3*time.Hour)
		r.fenced.Store(true)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if n := r.left("lease/"); n != 51 {
			t.Fatalf("%d leases behind the fence, want 51", n)
		}
		if _, err := r.store.Revoke(r.t.Context(), ns, late.ID, lease.Revoked, true); err != nil {
			t.Fatalf("Revoke behind the fence = %v", err)
		}
		r.fenced.Store(false)
		r.lanes.Resume()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		r.nothingLeft()
	})
}

// What is due when a process starts is found by seeks, and ended.
func TestStartsFromTheStore(t *testing.T) {
	run(t, func(r *rig) {
		for i := range 100 {
			r.mustIssue(fmt.Sprint("user", i), time.Hour)
		}
		r.stop()
		time.Sleep(2 * time.Hour)
		ctx, cancel := context.WithCancel(context.Background())
		again := lane.New(lane.Config{Store: r.db, Handlers: map[string]lane.Handler{lease.DueKind: r.store.Handler()}})
		done := make(chan error)
		go func() { done <- again.Run(ctx) }()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		cancel()
		<-done
		r.nothingLeft()
	})
}
