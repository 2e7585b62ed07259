package lease_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/lease"
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
