package core_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
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
