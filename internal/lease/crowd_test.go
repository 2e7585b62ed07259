package lease_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/lease"
)

// TestCrowd: many leases that expire together leave their target alone for
// four fifths of the time; many that somebody revokes are ended without a pause.
func TestCrowd(t *testing.T) {
	const crowd, work, rest = 64, 10 * time.Millisecond, 40 * time.Millisecond
	fill := func(r *rig) {
		r.target.slow = work
		for i := range crowd {
			r.mustIssue(fmt.Sprintf("user%d", i), time.Minute)
		}
	}
	pauses := func(r *rig) []time.Duration {
		for len(r.target.users()) > 0 {
			time.Sleep(time.Millisecond)
		}
		return r.target.pauses
	}

	run(t, func(r *rig) {
		fill(r)
		if _, err := r.store.RevokePrefix(r.t.Context(), ns, "database/", lease.Revoked, false); err != nil {
			t.Fatal(err)
		}
		if got := pauses(r); len(got) > 0 {
			t.Errorf("revoking %d paused for %v", crowd, got)
		}
	})
	run(t, func(r *rig) {
		fill(r)
		time.Sleep(time.Minute)
		got := pauses(r)
		if len(got) == 0 {
			t.Errorf("%d expired without a pause", crowd)
		}
		for _, p := range got {
			if p != rest {
				t.Errorf("a pause of %s after %s of work, want %s", p, work, rest)
			}
		}
	})
}
