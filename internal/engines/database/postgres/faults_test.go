package postgres_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engines/database/postgres"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/testenv"
	"github.com/leasehold/leasehold/internal/testenv/tcpproxy"
)

// The server's own clock decides: what reaches it after make_by makes nothing.
func TestTooLate(t *testing.T) {
	onEach(t, func(t *testing.T, l lab) {
		target := l.open(t)
		c := l.creation(t)
		c.MemberOf = nil
		c.MakeBy = time.Now().Add(1500 * time.Millisecond)
		c.SQL = []string{`CREATE ROLE "` + c.Role + `" LOGIN PASSWORD '` + pw + `'`,
			"SET LOCAL statement_timeout = 0", "SELECT pg_sleep(2)"}
		if l.Query(t, "postgres", "SELECT current_setting('server_version_num')::int >= 170000") == "t" {
			return // transaction_timeout comes first there, and is as good
		}
		err := target.Create(context.Background(), "", []postgres.Creation{c})[0]
		if err == nil || errors.Is(err, lease.ErrUnknown) || l.exists(t, c.Role) {
			t.Errorf("Create past make_by = %v, role exists = %v, want a known failure and none", err, l.exists(t, c.Role))
		}
		// A server whose clock is far ahead is asked by its own clock.
		ahead := l.open(t, func(c *postgres.Config) { c.Now = func() time.Time { return time.Now().Add(-time.Hour) } })
		d := l.creation(t)
		d.MakeBy = time.Now().Add(-time.Hour).Add(10 * time.Second)
		makeOne(t, ahead, d)
		if got := ahead.Expiration(d.MakeBy); got.Before(time.Now().Add(10 * time.Second)) {
			t.Errorf("Expiration = %v, earlier than the lease on the server's clock", got)
		}
		if err := end(t, ahead, ending(d))[0]; err != nil {
			t.Errorf("End: %v", err)
		}
	})
}

// A connection that is cut at COMMIT: whatever happened, nobody knows, and it
// is said so and not tried again.
func TestConnectionFaults(t *testing.T) {
	onEach(t, func(t *testing.T, l lab) {
		for _, tt := range []struct {
			name    string
			act     tcpproxy.Action
			unknown bool
			made    bool
		}{
			{"cut before", tcpproxy.Cut, true, false},
			{"cut after", tcpproxy.AnswerCut, true, true},
		} {
			t.Run(tt.name, func(t *testing.T) {
				proxy, err := tcpproxy.New(l.Addr())
				if err != nil {
					t.Fatal(err)
				}
				defer proxy.Close()
				target := l.open(t, func(c *postgres.Config) { c.URL = strings.ReplaceAll(c.URL, l.Addr(), proxy.Addr()) })
				if _, err := target.Ping(t.Context()); err != nil {
					t.Fatal(err)
				}
				proxy.Break(tcpproxy.On("COMMIT", 1, tt.act))
				c := l.creation(t)
				err = target.Create(t.Context(), "", []postgres.Creation{c})[0]
				if errors.Is(err, lease.ErrUnknown) != tt.unknown || !lane.IsConnFault(err) {
					t.Errorf("Create = %v, want unknown = %v and a connection fault", err, tt.unknown)
				}
				if got := l.exists(t, c.Role); got != tt.made {
					t.Errorf("the role exists = %v, want %v", got, tt.made)
				}
				want := lease.ErrAbsent
				if tt.made {
					want = nil
				}
				if err := end(t, target, ending(c))[0]; !errors.Is(err, want) {
					t.Errorf("End = %v, want %v", err, want)
				}
			})
		}
		t.Run("died while idle", func(t *testing.T) {
			proxy, err := tcpproxy.New(l.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer proxy.Close()
			var ahead atomic.Int64
			target := l.open(t, func(c *postgres.Config) {
				c.URL = strings.ReplaceAll(c.URL, l.Addr(), proxy.Addr())
				c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
				c.MaxOpen = 1 // the next user gets the very connection
			})
			if _, err := target.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			// It is cut in the middle of being asked who it is, which is not
			// yet the question: another connection answers that.
			ahead.Store(int64(2 * time.Minute))
			var once atomic.Bool
			proxy.Break(func([]byte) tcpproxy.Action {
				if once.CompareAndSwap(false, true) {
					return tcpproxy.Cut
				}
				return tcpproxy.Pass
			})
			c := l.creation(t)
			c.MakeBy = c.MakeBy.Add(2 * time.Minute)
			makeOne(t, target, c)
			if !once.Load() {
				t.Error("nothing was cut")
			}
			if err := end(t, target, ending(c))[0]; err != nil {
				t.Errorf("End = %v", err)
			}
		})
		t.Run("a panic", func(t *testing.T) {
			var calls atomic.Int32
			target := l.open(t, func(c *postgres.Config) {
				c.MaxOpen = 1
				c.Now = func() time.Time {
					if calls.Add(-1) == 0 { // with the connection in hand
						panic("a fault of ours")
					}
					return time.Now()
				}
			})
			if _, err := target.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				func() {
					defer func() {
						if recover() == nil {
							t.Error("nothing panicked")
						}
					}()
					c := l.creation(t)
					calls.Store(2)
					target.Create(t.Context(), "", []postgres.Creation{c})
				}()
			}
			makeOne(t, target, l.creation(t)) // by the only connection
		})
		t.Run("nobody there", func(t *testing.T) {
			target := l.open(t, func(c *postgres.Config) { c.URL = strings.ReplaceAll(c.URL, l.Addr(), "127.0.0.1:1") })
			c := l.creation(t)
			if err := target.Create(t.Context(), "", []postgres.Creation{c})[0]; errors.Is(err, lease.ErrUnknown) || !lane.IsConnFault(err) {
				t.Errorf("Create = %v, want a known failure and a connection fault", err)
			}
		})
	})
}

// An address that leads to another server answers nothing about our logins.
func TestAnotherServer(t *testing.T) {
	one := testenv.SharedPostgres(t, testenv.Config{})
	two := testenv.SharedPostgres(t, testenv.Config{Version: 16})
	proxy, err := tcpproxy.New(one.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	for _, p := range []*testenv.PG{one, two} {
		p.Exec(t, "postgres", "CREATE ROLE moving SUPERUSER LOGIN PASSWORD 'manager-pw'")
	}
	open := func() *postgres.Target {
		target, err := postgres.Open(postgres.Config{
			URL: "postgresql://{{username}}:{{password}}@" + proxy.Addr() + "/postgres?sslmode=disable", Username: "moving", Password: secret.New("manager-pw"),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(target.Close)
		return target
	}
	info, err := open().Ping(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	proxy.Retarget(two.Addr())
	target := open()
	var got error
	target.End(t.Context(), info.Identity, []*postgres.Ending{{Role: "nobody", Mark: "m", Disabled: func() {}, Done: func(err error) { got = err }}})
	var wait *lease.WaitError
	if !errors.As(got, &wait) || lane.IsConnFault(got) {
		t.Errorf("End on another server = %v, want a WaitError", got)
	}
	err = target.Create(t.Context(), info.Identity, []postgres.Creation{{Role: "x", Mark: "m", MakeBy: time.Now().Add(time.Minute), Password: secret.New("x")}})[0]
	if !errors.As(err, &wait) || errors.Is(err, lease.ErrUnknown) {
		t.Errorf("Create on another server = %v, want a WaitError", err)
	}
}
