package lease_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
)

func TestFailedMakeLeavesNothing(t *testing.T) {
	run(t, func(r *rig) {
		boom := errs.New(errs.Invalid, "the role's SQL is wrong")
		_, err := r.issue(r.draft(), "alice", time.Hour, func(context.Context, lease.Made) error { return boom })
		if !errors.Is(err, boom) {
			t.Fatalf("issue = %v, want %v", err, boom)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		r.nothingLeft()
	})
}

// A creation whose end is unknown may land until make_by. Whenever it does, its
// login goes.
func TestUnknownMakeLandsLate(t *testing.T) {
	for _, late := range []time.Duration{0, time.Second, lease.DefaultLimit - time.Second} {
		t.Run(late.String(), func(t *testing.T) {
			run(t, func(r *rig) {
				_, err := r.issue(r.draft(), "alice", time.Hour, func(_ context.Context, m lease.Made) error {
					go func() {
						time.Sleep(late)
						if err := r.target.create("alice", m.Mark); err != nil {
							t.Errorf("create = %v", err)
						}
					}()
					return fmt.Errorf("connection cut at COMMIT: %w", lease.ErrUnknown)
				})
				if !errors.Is(err, lease.ErrUnknown) {
					t.Fatalf("issue = %v", err)
				}
				time.Sleep(lease.DefaultLimit - time.Millisecond)
				synctest.Wait()
				if r.left("lease/") != 1 {
					t.Error("the lease went before its creation could no longer land")
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if r.target.has("alice") {
					t.Error("a late creation outlived its lease")
				}
				r.nothingLeft()
			})
		})
	}
}

// A login that was absent when the target was asked may have been made before
// the answer is heard: what counts is whether it could when it was asked.
func TestAbsentWhenAsked(t *testing.T) {
	run(t, func(r *rig) {
		r.target.lag = lease.DefaultLimit + 2*time.Second
		_, err := r.issue(r.draft(), "alice", time.Hour, func(_ context.Context, m lease.Made) error {
			time.AfterFunc(lease.DefaultLimit/2, func() {
				if err := r.target.create("alice", m.Mark); err != nil {
					t.Errorf("create = %v", err)
				}
			})
			return fmt.Errorf("connection cut at COMMIT: %w", lease.ErrUnknown)
		})
		if !errors.Is(err, lease.ErrUnknown) {
			t.Fatalf("issue = %v", err)
		}
		time.Sleep(r.target.lag + time.Second)
		synctest.Wait()
		if r.left("lease/") != 1 {
			t.Error("the lease went by an answer from before its creation could no longer land")
		}
		time.Sleep(2 * r.target.lag)
		synctest.Wait()
		if r.target.has("alice") {
			t.Error("a login outlived its lease")
		}
		r.nothingLeft()
	})
}

// A lease that is revoked while its credential is being made: the caller gets
// an error and the login goes, in whichever order the two happen.
func TestRevokedWhileMaking(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			run(t, func(r *rig) {
				d := r.draft()
				_, err := r.issue(d, "alice", time.Hour, func(ctx context.Context, m lease.Made) error {
					if when == "after" {
						if err := r.target.create("alice", m.Mark); err != nil {
							return err
						}
					}
					if _, err := r.store.Revoke(ctx, ns, d.ID(), lease.Revoked, true); err != nil {
						t.Errorf("Revoke = %v", err)
					}
					if when == "before" {
						return r.target.create("alice", m.Mark)
					}
					return nil
				})
				if !errs.Is(err, errs.Denied) {
					t.Errorf("issue = %v, want Denied", err)
				}
				time.Sleep(2 * lease.DefaultLimit)
				synctest.Wait()
				if r.target.has("alice") {
					t.Error("the login is still there")
				}
				r.nothingLeft()
			})
		})
	}
}

// What is still being made when the server stops is due at once, and whoever
// asked for it gets an error.
func TestStoppingWhileMaking(t *testing.T) {
	run(t, func(r *rig) {
		_, err := r.issue(r.draft(), "alice", time.Hour, func(ctx context.Context, m lease.Made) error {
			if n, err := r.store.UndoMaking(ctx); n != 1 || err != nil {
				t.Errorf("UndoMaking = %d, %v, want 1", n, err)
			}
			return r.target.create("alice", m.Mark)
		})
		if !errs.Is(err, errs.Denied) {
			t.Errorf("issue = %v, want Denied", err)
		}
		time.Sleep(2 * lease.DefaultLimit)
		synctest.Wait()
		if r.target.has("alice") {
			t.Error("the login is still there")
		}
		if n, _ := r.store.UndoMaking(context.Background()); n != 0 {
			t.Errorf("%d leases are still noted as being made", n)
		}
		r.nothingLeft()
	})
}

// Stopping does not wait for the last requests. What they commit or confirm
// after the rest was made due must not stand until it expires: nobody gets it.
func TestStopped(t *testing.T) {
	t.Run("before the lease", func(t *testing.T) {
		run(t, func(r *rig) {
			if _, err := r.store.UndoMaking(r.t.Context()); err != nil {
				r.t.Fatal(err)
			}
			if _, err := r.issue(r.draft(), "alice", time.Hour, nil); !errs.Is(err, errs.Unavailable) {
				r.t.Errorf("issue = %v, want Unavailable", err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if r.target.has("alice") {
				r.t.Error("a login was made")
			}
			r.nothingLeft()
		})
	})
	t.Run("between reading the lease and the answer", func(t *testing.T) {
		run(t, func(r *rig) {
			r.asked = func() {
				if _, err := r.store.UndoMaking(r.t.Context()); err != nil {
					r.t.Error(err)
				}
			}
			if _, err := r.issue(r.draft(), "alice", time.Hour, nil); !errs.Is(err, errs.Unavailable) {
				r.t.Errorf("issue = %v, want Unavailable", err)
			}
			r.asked = nil
			time.Sleep(2 * lease.DefaultLimit)
			synctest.Wait()
			r.nothingLeft()
		})
	})
}

func TestCommitNeedsLiveOwner(t *testing.T) {
	run(t, func(r *rig) {
		r.put(liveOf, lease.Ended)
		_, err := r.issue(r.draft(), "alice", time.Hour, nil)
		if !errors.Is(err, lease.ErrNotLive) {
			t.Errorf("issue = %v, want ErrNotLive", err)
		}
		if r.target.has("alice") {
			t.Error("a login was made for an ended token")
		}
		r.nothingLeft()
	})
}
