package database_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/testenv/tcpproxy"
)

// told is what clients were told while faults happened.
type told struct {
	delivered, revoked []credential
}

// story is the life of two credentials, either kind of role. Its steps may
// fail; what they say is remembered.
func story(r *rig) (s told) {
	for _, role := range []string{"app", "group"} {
		c, err := r.issue(role)
		if err != nil {
			continue
		}
		s.delivered = append(s.delivered, c)
	}
	if len(s.delivered) == 0 {
		return s
	}
	c := s.delivered[0]
	ctx, cancel := context.WithTimeout(r.t.Context(), 3*time.Second)
	defer cancel()
	if _, err := r.leases.Revoke(ctx, "root", c.lease.ID, lease.Revoked, true); err == nil {
		s.delivered = s.delivered[1:]
		s.revoked = append(s.revoked, c)
	}
	return s
}

// holds checks the promises at this very moment, whatever is still under way:
// no login without a lease, no credential that the server has forgotten, no
// revocation undone.
func (r *rig) holds(when string, s told) {
	r.t.Helper()
	for _, user := range r.ours() {
		reserved := false
		err := r.store.View(r.t.Context(), func(v storage.View) error {
			return v.Scan("name/", storage.PrefixEnd("name/"), 0, func(key string, _ []byte) bool {
				reserved = reserved || strings.HasSuffix(key, "/"+user)
				return !reserved
			})
		})
		if err != nil {
			r.t.Fatal(err)
		}
		// The lease may have ended between the two looks.
		if !reserved && slices.Contains(r.ours(), user) {
			r.t.Errorf("%s: the login %q has no lease", when, user)
		}
	}
	for _, c := range s.delivered {
		if _, err := r.leases.Lookup(r.t.Context(), "root", c.lease.ID); err != nil {
			continue // revoking it was begun
		}
		if err := r.works(c); err != nil {
			r.t.Errorf("%s: the delivered credential %q does not work: %v", when, c.user, err)
		}
	}
	for _, c := range s.revoked {
		if r.works(c) == nil {
			r.t.Errorf("%s: the login %q works although its revocation was acknowledged", when, c.user)
		}
	}
}

// allEnd revokes what is left and waits until nothing is.
func (r *rig) allEnd() {
	r.t.Helper()
	if _, err := r.leases.RevokePrefix(r.t.Context(), "root", leaseMount.Path, lease.Revoked, false); err != nil {
		r.t.Errorf("RevokePrefix: %v", err)
	}
	r.eventually("every lease has ended", func() bool { return r.leaseCount() == 0 })
	if left := r.ours(); len(left) > 0 {
		r.t.Errorf("logins without a lease in the end: %q", left)
	}
}

// Every message to the database in turn is lost on its way, or its answer is.
func TestEveryMessageIsLost(t *testing.T) {
	for _, act := range []tcpproxy.Action{tcpproxy.Cut, tcpproxy.AnswerCut} {
		t.Run(map[tcpproxy.Action]string{tcpproxy.Cut: "message", tcpproxy.AnswerCut: "answer"}[act], func(t *testing.T) {
			r := newRig(t, 0)
			r.limit = 2 * time.Second
			proxy := r.throughProxy()
			for n := 1; ; n++ {
				r.mustWrite("reset/main", nil) // each story begins with new connections
				var mu sync.Mutex
				seen := 0
				proxy.Break(func([]byte) tcpproxy.Action {
					mu.Lock()
					defer mu.Unlock()
					if seen++; seen == n {
						return act
					}
					return tcpproxy.Pass
				})
				s := story(r)
				proxy.Break(nil)
				r.holds(fmt.Sprintf("message %d lost", n), s)
				mu.Lock()
				over := seen < n
				mu.Unlock()
				if over {
					t.Logf("%d messages lost in turn", n-1)
					break
				}
			}
			r.allEnd()
		})
	}
}

// Every call of the store in turn fails, also so that what was written is
// durable and the caller is told otherwise.
func TestEveryStoreCallFails(t *testing.T) {
	store := fault.Wrap(mem.New())
	r := newRigOn(t, 0, store)
	r.limit = 2 * time.Second
	r.connect(nil)
	store.Set(nil)
	story(r)
	calls := len(store.Calls())
	for n := 1; n <= calls; n++ {
		store.Set(fault.At(n))
		s := story(r)
		store.Set(nil)
		r.holds(fmt.Sprintf("store call %d failed", n), s)
	}
	t.Logf("%d store calls failed in turn", calls)
	r.allEnd()
}

// PostgreSQL dies while credentials are made and ended, and comes back.
func TestServerDies(t *testing.T) {
	r := newRig(t, 0)
	r.limit = 2 * time.Second
	proxy := r.throughProxy()
	c := r.mustIssue("app")
	// To everyone else the shared server stays up: its death is every
	// connection of ours cut at once, and refused until it is back.
	proxy.Break(func([]byte) tcpproxy.Action { return tcpproxy.Cut })
	proxy.CutAll()
	for range 5 {
		if _, err := r.issue("group"); err == nil {
			t.Errorf("a credential was issued by a dead server")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := r.leases.Revoke(ctx, "root", c.lease.ID, lease.Revoked, true); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Logf("Revoke while the server is dead: %v", err)
	}
	if r.works(c) != nil {
		t.Errorf("the login went although the server could not be reached")
	}
	proxy.Break(nil)
	r.eventually("the revocation is done once the server is back", func() bool { return r.works(c) != nil })
	r.allEnd()
}
