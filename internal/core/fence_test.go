package core_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// TestFenceAtStart starts the server at times that can and cannot be trusted.
func TestFenceAtStart(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name   string
		ahead  time.Duration // of the clock at the second start
		maxGap time.Duration
		want   string // a part of the reason; "" is no fence
	}{
		{"at once", 0, 0, ""},
		{"a little back", -4 * time.Minute, 0, ""},
		{"back", -6 * time.Minute, 0, "but this store has seen"},
		{"far back", -400 * day, 0, "but this store has seen"},
		{"after 29 days", 29 * day, 0, ""},
		{"after 31 days", 31 * day, 0, "744h"},
		{"after an hour of at most one", time.Hour + time.Second, time.Hour, "last used 1h0m"},
		{"after years of any gap", 4000 * day, -1, ""},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, mem.New())
				l.maxGap = c.maxGap
				l.c.Stop(time.Second)
				l.ahead.Store(int64(c.ahead))
				l.restart()
				f, err := l.c.Fence()
				if err != nil || f.Fenced != (c.want != "") || !strings.Contains(f.Reason, c.want) {
					t.Fatalf("Fence = %+v, %v, want %q", f, err, c.want)
				}
				// It stays over another start, at the right time too.
				l.c.Stop(time.Second)
				l.ahead.Store(0)
				l.restart()
				if f, err := l.c.Fence(); err != nil || c.want != "" && !f.Fenced {
					t.Errorf("Fence after another start = %+v, %v", f, err)
				}
			})
		})
	}
}

// TestFencedServer checks what a fence holds back, what it does not, and that
// all that was held back ends when it is lifted.
func TestFencedServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLab(t, mem.New()), t.Context()
		tok := l.make(&token.Entry{Policies: []string{"root"}, TTL: time.Hour})
		old, _ := l.issue("db/creds/old", l.root)
		owned, _ := l.issue("db/creds/owned", tok.Text)
		l.c.Stop(time.Second)
		l.ahead.Store(int64(800 * time.Hour)) // all of it is over
		l.restart()
		if f, err := l.c.Fence(); err != nil || !f.Fenced {
			t.Fatalf("Fence = %+v, %v, want one", f, err)
		}
		later(time.Hour)
		l.want("while fenced", old, owned)
		// Clients are told the truth by the clock that there is.
		if p := l.do(wire.OpRead, "db/creds/a", tok.Text, ""); !errs.Is(p.Err, errs.Denied) {
			t.Errorf("creds with a token that is over = %v, want Denied", p.Err)
		}
		revoked, id := l.issue("db/creds/revoked", l.root)
		fresh, _ := l.issue("db/creds/fresh", l.root)
		l.want("issued while fenced", old, owned, revoked, fresh)
		if _, err := l.leases().Revoke(ctx, "root", id, lease.Revoked, true); err != nil {
			t.Errorf("Revoke while fenced = %v", err)
		}
		l.want("revoked while fenced", old, owned, fresh)
		if err := l.c.LiftFence(ctx); err != nil {
			t.Fatal(err)
		}
		later(time.Minute)
		l.want("after the fence", fresh)
		l.restart()
		if f, err := l.c.Fence(); err != nil || f.Fenced {
			t.Errorf("Fence after it was lifted = %+v, %v, want none", f, err)
		}
	})
}

// TestClockIsMoved moves the clock of a running server.
func TestClockIsMoved(t *testing.T) {
	for by, want := range map[time.Duration]bool{
		4 * time.Minute: false, -4 * time.Minute: false, 6 * time.Minute: true, -6 * time.Minute: true, 2000 * time.Hour: true,
	} {
		t.Run(by.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, mem.New())
				user, _ := l.issue("db/creds/a", l.root)
				later(time.Minute)
				l.ahead.Store(int64(by))
				// A lane that looks right now, before anything else has.
				other, _ := l.issue("db/creds/b", l.root)
				later(time.Minute)
				f, err := l.c.Fence()
				if err != nil || f.Fenced != want || want && !strings.Contains(f.Reason, "moved by") {
					t.Errorf("Fence = %+v, %v, want one: %v", f, err, want)
				}
				l.want("after the clock was moved", user, other)
				l.restart()
				if f, err := l.c.Fence(); err != nil || f.Fenced != want {
					t.Errorf("Fence after a restart = %+v, %v, want one: %v", f, err, want)
				}
				if err := l.c.LiftFence(t.Context()); err != nil {
					t.Fatal(err)
				}
				later(time.Hour)
				if f, err := l.c.Fence(); err != nil || f.Fenced {
					t.Errorf("Fence an hour after it was lifted = %+v, %v, want none", f, err)
				}
			})
		})
	}
}

// copied is another store with the same rows, as a backup of it is.
func copied(t *testing.T, from storage.Backend) storage.Backend {
	t.Helper()
	rows := map[string][]byte{}
	err := from.View(t.Context(), func(v storage.View) error {
		return v.Scan("", "", 0, func(key string, value []byte) bool { rows[key] = bytes.Clone(value); return true })
	})
	to := mem.New()
	for key, value := range rows {
		if err == nil {
			_, err = to.Update(t.Context(), func(tx storage.Tx) error { return tx.Put(key, value) })
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// restore starts the server on another store.
func (l *lab) restore(db storage.Backend) {
	l.t.Helper()
	l.c.Stop(time.Second)
	l.db = db
	l.restart()
}

// fence checks whether expiry waits, for a reason with these words.
func (l *lab) fence(when string, want ...string) {
	l.t.Helper()
	f, err := l.c.Fence()
	if err != nil || f.Fenced != (len(want) > 0) {
		l.t.Errorf("%s Fence = %+v, %v, want one: %v", when, f, err, len(want) > 0)
	}
	for _, w := range want {
		if !strings.Contains(f.Reason, w) {
			l.t.Errorf("%s Fence = %+v, want %q in the reason", when, f, w)
		}
	}
}

func (l *lab) lift() {
	l.t.Helper()
	if err := l.c.LiftFence(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

// TestLiftedFence restores a store whose target has marks of the life that was
// lost. The fence is lifted over them once for all; it is not over newer ones,
// nor over those that are made after another restore of the same backup.
func TestLiftedFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, mem.New())
		meet := func() { l.t.Helper(); l.ok(wire.OpUpdate, "db/meet", l.root, "") }
		backup := copied(t, l.db)
		l.target.shows(40)
		l.restore(copied(t, backup))
		meet()
		l.fence("restored:", "epoch 40")
		l.lift()
		meet()
		l.fence("lifted, and met again:")
		for range 3 {
			l.restart()
			meet()
			l.fence("lifted, and started again:")
		}

		// A target that could not be reached then was not compared.
		l.target.shows(90)
		meet()
		l.fence("at a target with newer marks:", "epoch 90")
		l.restart()
		l.target.setDown(true)
		l.fence("still, after another start:", "epoch 90")
		l.lift() // before any target was met again
		l.restart()
		l.target.setDown(false)
		meet()
		l.fence("lifted over what an earlier start was shown:")

		// What is made since is newer than all that was lost.
		l.issue("db/creds/a", l.root)
		l.restore(backup)
		meet()
		l.fence("restored once more:", "marks of epoch")
	})
}

// TestFenceTakesUpMarks lets a target show marks while a fence stands for
// another reason: one lift is for both.
func TestFenceTakesUpMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, mem.New())
		l.c.Stop(time.Second)
		l.ahead.Store(int64(800 * time.Hour))
		l.restart()
		l.fence("after a month:", "last used")
		for _, epoch := range []uint64{40, 40, 50, 40} {
			l.target.shows(epoch)
			l.ok(wire.OpUpdate, "db/meet", l.root, "")
		}
		l.fence("at a target with newer marks:", "last used", "epoch 40", "epoch 50")
		if f, _ := l.c.Fence(); strings.Count(f.Reason, "epoch") != 2 {
			t.Errorf("the reason is %q, want each epoch once", f.Reason)
		}
		l.restart()
		l.fence("after another start:", "last used", "epoch 50")
		l.lift()
		l.restart()
		l.target.shows(50)
		l.ok(wire.OpUpdate, "db/meet", l.root, "")
		l.fence("lifted:")
	})
}

// TestMarksMadeUp has a target show an epoch that no store reaches: lifting does
// not bring ours near the end of what a mark has room for.
func TestMarksMadeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, mem.New())
		l.target.shows(9999999999999999999)
		l.ok(wire.OpUpdate, "db/meet", l.root, "")
		l.fence("met:", "epoch 9999999999999999999")
		l.lift()
		l.restart()
		l.target.shows(0)
		l.issue("db/creds/a", l.root)
		if n := l.target.newest; n < 1<<62 || n > 5e18 {
			t.Errorf("the next start marks with epoch %d", n)
		}
	})
}

// TestLiftIsCutAnywhere kills the store at each of its calls while the fence is
// lifted: at the next start it stands, or is lifted for good.
func TestLiftIsCutAnywhere(t *testing.T) {
	cut := func(n int) (calls int) {
		synctest.Test(t, func(t *testing.T) {
			db := fault.Wrap(mem.New())
			l := newLab(t, db)
			l.target.shows(40)
			l.ok(wire.OpUpdate, "db/meet", l.root, "")
			synctest.Wait()
			if n > 0 {
				db.Set(fault.From(n))
			} else {
				db.Set(nil)
			}
			err := l.c.LiftFence(t.Context())
			calls = len(db.Calls())
			if f, ferr := l.c.Fence(); ferr != nil || f.Fenced != (err != nil) {
				t.Errorf("call %d: LiftFence = %v, then Fence = %+v, %v", n, err, f, ferr)
			}
			l.c.Stop(0)
			db.Set(nil)
			l.start()
			l.unseal()
			before, berr := l.c.Fence()
			l.ok(wire.OpUpdate, "db/meet", l.root, "")
			after, aerr := l.c.Fence()
			if berr != nil || aerr != nil || before.Fenced != after.Fenced || err == nil && after.Fenced {
				t.Errorf("call %d: LiftFence = %v; Fence at the next start = %+v, %v, and with the target met %+v, %v",
					n, err, before, berr, after, aerr)
			}
		})
		return calls
	}
	calls := cut(0)
	if calls == 0 {
		t.Fatal("lifting a fence makes no call")
	}
	for n := 1; n <= calls; n++ {
		cut(n)
	}
}

// TestFenceBeforeTokensEnd restores a store whose tokens look as if they were
// over. The logins of such tokens stay until their target was met, and then the
// fence is up; who asks for their end gets it.
func TestFenceBeforeTokensEnd(t *testing.T) {
	for name, down := range map[string]bool{"at once": false, "after a while": true} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, ctx := newLab(t, mem.New()), t.Context()
				parent := l.make(&token.Entry{Policies: []string{"root"}, TTL: time.Hour})
				child := l.make(&token.Entry{Policies: []string{"root"}, TTL: 9 * time.Hour, Parent: parent.Key})
				owned, _ := l.issue("db/creds/owned", parent.Text)
				below, _ := l.issue("db/creds/below", child.Text)
				asked, id := l.issue("db/creds/asked", parent.Text)
				l.restart()
				l.target.setDown(down)
				l.target.shows(40)
				l.c.Stop(time.Second)
				l.ahead.Store(int64(2 * time.Hour))
				l.restart()
				later(time.Minute)
				if down {
					l.fence("while the target is down:")
					l.want("while the target is down", owned, below, asked)
					l.target.setDown(false)
					later(5 * time.Minute)
				}
				l.fence("when the target was met:", "epoch 40")
				l.want("when the target was met", owned, below, asked)
				if _, err := l.leases().Revoke(ctx, "root", id, lease.Revoked, true); err != nil {
					t.Errorf("Revoke while fenced = %v", err)
				}
				later(time.Hour)
				l.want("an hour later", owned, below)
				l.restart()
				later(time.Minute)
				l.want("after another start", owned, below)
				l.lift()
				later(time.Minute)
				l.want("after the fence")
			})
		})
	}
}
