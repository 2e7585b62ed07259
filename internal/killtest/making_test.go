package killtest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/testenv/tcpproxy"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// block holds the lock that every CREATE ROLE on the lab's server needs, until
// the func it gives is called. Reading and logging in go on.
func (l *lab) block() (release func()) {
	l.t.Helper()
	ctx := context.WithoutCancel(l.t.Context())
	conn, err := pgx.Connect(ctx, l.pg.Super("postgres"))
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, "BEGIN; LOCK TABLE pg_authid IN SHARE MODE"); err != nil {
		l.t.Fatal(err)
	}
	done := false
	release = func() {
		if !done {
			done = true
			_ = conn.Close(ctx) // which ends the transaction
		}
	}
	l.t.Cleanup(release)
	return release
}

// blocked waits until a creation of the lab's waits for a lock or sleeps.
func (l *lab) blocked() {
	l.t.Helper()
	ok := l.within(10*time.Second, nil, func() bool {
		return l.look1(`SELECT count(*)::text FROM pg_stat_activity WHERE usename = '`+l.manager+
			`' AND state = 'active' AND (wait_event_type = 'Lock' OR wait_event = 'PgSleep')`) != "0"
	})
	if !ok {
		l.t.Fatal("no creation is under way")
	}
}

// issueAside asks for a credential on a goroutine of its own.
func (l *lab) issueAside(role string, tok secret.String) <-chan error {
	out := make(chan error, 1)
	c := l.core
	go func() {
		p := c.Handle(l.t.Context(), request(wire.OpRead, "database/creds/"+role, tok))
		if p.Sent != nil {
			p.Sent(true)
		}
		out <- p.Err
	}()
	return out
}

// noLogin waits, by the real clock, until no login is left.
func (l *lab) noLogin(why string) {
	l.t.Helper()
	if !l.within(10*time.Second, nil, func() bool { return len(l.logins()) == 0 }) {
		l.t.Errorf("%s: the login %q stays", why, l.logins())
	}
}

func both(t *testing.T, f func(t *testing.T, role string)) {
	for _, role := range []string{"own", "group"} {
		t.Run(role, func(t *testing.T) { f(t, role) })
	}
}

// The connection is cut at COMMIT: the caller gets an error, and the lease
// stays until the creation can have landed no more.
func TestConnectionCutAtCommit(t *testing.T) {
	both(t, func(t *testing.T, role string) {
		for _, act := range []tcpproxy.Action{tcpproxy.Cut, tcpproxy.CutAfter, tcpproxy.AnswerCut, tcpproxy.AnswerTorn} {
			l := newLab(t)
			l.proxy.Break(tcpproxy.On("COMMIT", 1, act))
			_, err := l.issue(role, l.root)
			if err == nil {
				t.Errorf("action %d: issuing = nil, want an error", act)
			}
			l.quiet()
			l.promises("after the cut", seen{})
			l.noLogin("a creation that nobody heard of")
			if n := len(l.rows("lease/")); n != 1 {
				t.Errorf("action %d: %d leases before make_by, want the one whose creation is unknown", act, n)
			}
			l.settled("after make_by")
		}
	})
}

// cancelRequest is the code of PostgreSQL's message of that name, 80877102.
const cancelRequest = "\x04\xd2\x16\x2e"

// A CREATE waits on a lock, its connection is lost, it is revoked, and then it
// lands all the same.
func TestBlockedCreateCommitsLater(t *testing.T) {
	both(t, func(t *testing.T, role string) {
		l := newLab(t)
		release := l.block()
		asked := l.issueAside(role, l.root)
		l.blocked()
		// As when the process dies: the requests to cancel, which are sent over
		// other connections, some of them late, do not arrive either.
		var cancelled atomic.Bool
		cancels := func(piece []byte) bool {
			if !bytes.Contains(piece, []byte(cancelRequest)) {
				return false
			}
			cancelled.Store(true)
			return true
		}
		all := func(piece []byte) tcpproxy.Action { cancels(piece); return tcpproxy.Cut }
		l.proxy.Break(all)
		l.proxy.CutAll()
		if err := <-asked; !errors.Is(err, lease.ErrUnknown) {
			t.Errorf("issuing = %v, want an unknown end", err)
		}
		if !l.within(10*time.Second, nil, cancelled.Load) {
			t.Fatal("the driver has not tried to cancel")
		}
		l.proxy.Break(func(piece []byte) tcpproxy.Action {
			if cancels(piece) {
				return tcpproxy.Cut
			}
			return tcpproxy.Pass
		})
		leases, err := l.core.Leases()
		if err != nil {
			t.Fatal(err)
		}
		// An attempt may be under way that met the cut.
		if !l.within(5*time.Second, nil, func() bool {
			p, err := leases.RevokePrefix(t.Context(), token.RootNamespace, "database/", lease.Forced, true)
			return err == nil && p.Cleaning
		}) {
			t.Error("revoking by force is not answered as still cleaning up")
		}
		// While we look nobody reaches the server: the next attempt would end the
		// login before it was seen.
		l.proxy.Break(all)
		l.proxy.CutAll()
		release()
		if !l.within(10*time.Second, nil, func() bool { return len(l.logins()) == 1 }) {
			t.Fatal("the blocked CREATE has not landed")
		}
		l.proxy.Break(nil)
		l.promises("once it has landed", seen{})
		l.settled("after make_by")
	})
}

// A creation that outlasts its deadline fails at the server by itself, whether
// or not anybody listens.
func TestCreateOutlastsItsDeadline(t *testing.T) {
	for _, listening := range []bool{true, false} {
		l := newLab(t)
		// Each statement ends within the timeout, all of them do not.
		l.role("slow", object{"max_creation_time": "1s", "creation_statements": []string{
			`SELECT pg_sleep(0.6)`, `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'`, `SELECT pg_sleep(0.6)`,
		}})
		asked := l.issueAside("slow", l.root)
		l.blocked()
		if !listening {
			l.proxy.CutAll()
		}
		if err := <-asked; err == nil {
			t.Error("issuing = nil, want an error: it is too late")
		}
		l.quiet()
		if left := l.roles("true"); len(left) > 0 {
			t.Errorf("listening %v: a creation came after its deadline: %q", listening, left)
		}
		l.settled("after make_by")
	}
}

// The ways in which a lease can be ended while its credential is being made:
// the caller gets an error, and no login stays.
func TestRevocationDuringMake(t *testing.T) {
	ways := map[string]func(l *lab, tok *token.Token) error{
		"by prefix": func(l *lab, _ *token.Token) error {
			leases, err := l.core.Leases()
			if err == nil {
				_, err = leases.RevokePrefix(l.t.Context(), token.RootNamespace, "database/creds", lease.Revoked, true)
			}
			return err
		},
		"by force": func(l *lab, _ *token.Token) error {
			leases, err := l.core.Leases()
			if err == nil {
				_, err = leases.RevokePrefix(l.t.Context(), token.RootNamespace, "database/creds", lease.Forced, true)
			}
			return err
		},
		"by token": func(l *lab, tok *token.Token) error { return l.revokeToken(tok) },
		"by mount": func(l *lab, _ *token.Token) error {
			return l.core.RemoveMount(l.t.Context(), token.RootNamespace, "database/")
		},
	}
	for name, revoke := range ways {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			tok := l.newToken()
			release := l.block()
			asked := l.issueAside("own", tok.Text)
			l.blocked()
			if err := revoke(l, tok); err != nil {
				t.Errorf("revoking = %v", err)
			}
			release()
			if err := <-asked; !errs.Is(err, errs.Denied) {
				t.Errorf("issuing = %v, want Denied", err)
			}
			l.promises("after making", seen{})
			l.noLogin("revoked while it was made")
			l.quiet()
			l.settled("in the end")
		})
	}
}

// A TTL that is over before the credential is made is the role's fault.
func TestTTLShorterThanMake(t *testing.T) {
	l := newLab(t)
	l.role("brief", object{"default_ttl": "1s", "creation_statements": []string{
		`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'`, `SELECT pg_sleep(1.3)`,
	}})
	if _, err := l.issue("brief", l.root); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "TTL") {
		t.Errorf("issuing = %v, want Invalid with the TTL", err)
	}
	l.noLogin("its TTL was over")
	l.quiet()
	l.settled("in the end")
}
