package lease_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

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
