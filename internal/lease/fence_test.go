package lease_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
)

// A revocation behind a fence that meets a dead target is tried again, as any
// other is.
func TestFencedTargetDownAndBack(t *testing.T) {
	run(t, func(r *rig) {
		for i := range 5 {
			r.mustIssue(fmt.Sprint("user", i), time.Hour)
		}
		ids := []lease.ID{}
		for i := range 3 {
			ids = append(ids, r.mustIssue(fmt.Sprint("late", i), 3*time.Hour).ID)
		}
		r.fenced.Store(true)
		time.Sleep(2 * time.Hour)
		r.target.set(func() { r.target.down = errors.New("connection refused") })
		r.target.slow = time.Second
		for i, id := range ids {
			time.AfterFunc(time.Duration(i)*100*time.Millisecond, func() {
				if _, err := r.store.Revoke(r.t.Context(), ns, id, lease.Revoked, true); err == nil {
					t.Error("Revoke at a dead target succeeds")
				}
			})
		}
		time.Sleep(10 * time.Minute)
		r.target.set(func() { r.target.down = nil })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		for i := range ids {
			if user := fmt.Sprint("late", i); r.target.has(user) {
				t.Errorf("the login %s of a revoked lease stands after its target came back", user)
			}
		}
		if n := r.left("lease/"); n != 5 {
			t.Errorf("%d leases behind the fence, want the 5 that expired", n)
		}
	})
}

// lift lifts the fence of the rig.
func (r *rig) lift() {
	r.fenced.Store(false)
	r.lanes.Resume()
	time.Sleep(time.Hour)
	synctest.Wait()
}

// What a token that ran out owns waits until its target was met, whatever keeps
// that from being met, and behind the fence that this raises.
func TestMetBeforeTokenEnds(t *testing.T) {
	for name, unmet := range map[string]error{
		"met at once":          nil,
		"that is down":         lane.ConnFault(errors.New("connection refused")),
		"that does not tell":   errors.New("the marks cannot be read"),
		"that leads elsewhere": &lease.WaitError{Reason: "a read-only replica"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			run(t, func(r *rig) {
				met := func(string) error { r.fenced.Store(true); return nil }
				notMet := func(string) error { return unmet }
				r.meet.Store(&met)
				if unmet != nil {
					r.meet.Store(&notMet)
				}
				r.mustIssue("owned", 9*time.Hour)
				r.mustIssue("expired", time.Minute)
				asked := r.mustIssue("asked", 9*time.Hour)
				r.put(liveOf, "lapsed")
				if err := r.store.RevokeOwned(r.t.Context(), owner, true); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if n := len(r.target.users()); n != 3 {
					t.Errorf("%d logins at a target that was not met, want 3", n)
				}
				r.meet.Store(&met)
				time.Sleep(time.Hour)
				if _, err := r.store.Revoke(r.t.Context(), ns, asked.ID, lease.Revoked, true); err != nil || r.target.has("asked") {
					t.Errorf("Revoke = %v, and the login stands: %v", err, r.target.has("asked"))
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if n := len(r.target.users()); n != 2 || !r.fenced.Load() {
					t.Errorf("%d logins behind the fence (it stands: %v), want 2", n, r.fenced.Load())
				}
				r.meet.Store(nil)
				r.lift()
				r.nothingLeft()
			})
		})
	}
}

// A token that is revoked takes along what waits behind a fence because its time
// ran out, or the token's.
func TestRevokedTokenPassesFence(t *testing.T) {
	run(t, func(r *rig) {
		met := func(string) error { r.fenced.Store(true); return nil }
		r.meet.Store(&met)
		r.mustIssue("owned", 9*time.Hour)
		r.mustIssue("expired", time.Minute)
		for _, lapsed := range []bool{true, true, false} {
			if n := len(r.target.users()); n != 2 {
				t.Errorf("%d logins, want 2", n)
			}
			if err := r.store.RevokeOwned(r.t.Context(), owner, lapsed); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
		}
		r.nothingLeft()
	})
}

// A target that cannot be met keeps nobody else waiting, nor who asks for the
// end of a lease on it.
func TestUnmetTargetStallsNobody(t *testing.T) {
	run(t, func(r *rig) {
		refused := func(target string) error {
			if target == "conn-1" {
				return lane.ConnFault(errors.New("connection refused"))
			}
			return nil
		}
		r.meet.Store(&refused)
		for i := range 20 {
			r.mustIssue(fmt.Sprint("user", i), 9*time.Hour)
		}
		asked := r.mustIssue("asked", 9*time.Hour)
		r.at = "conn-2"
		r.mustIssue("elsewhere", 9*time.Hour)
		r.put(liveOf, "lapsed")
		if err := r.store.RevokeOwned(r.t.Context(), owner, true); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if _, err := r.store.Revoke(r.t.Context(), ns, asked.ID, lease.Revoked, true); err != nil || time.Since(begun) > time.Second {
			t.Errorf("Revoke = %v after %v", err, time.Since(begun))
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := len(r.target.users()); n != 20 || r.target.has("elsewhere") {
			t.Errorf("%d logins, want the 20 of the target that was not met", n)
		}
		r.meet.Store(nil)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		r.nothingLeft()
	})
}
