package killtest

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/testenv"
	"github.com/leasehold/leasehold/internal/testenv/tcpproxy"
	"github.com/leasehold/leasehold/internal/token"
)

// PostgreSQL dies while credentials are issued, renewed and revoked, and comes
// back.
func TestPostgresKilled(t *testing.T) {
	pg := testenv.Postgres(t, testenv.Config{Durable: true})
	l := newLabOn(t, pg, "postgres")
	s := l.begin()
	for range 4 {
		s.get("own", s.tok)
		s.get("group", s.tok)
	}
	release := l.block()
	asked := l.issueAside("own", s.tok.Text)
	l.blocked()
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	release()
	if err := <-asked; err == nil {
		t.Error("a server that was killed has made a credential")
	}
	dead := 0
	for id, h := range s.delivered {
		if dead++; dead > 4 {
			break
		}
		if dead%2 == 0 {
			s.ended(h, l.revoke(id))
		} else if err := l.renew(id); err == nil {
			t.Error("a lease was renewed by a dead server")
		}
	}
	if _, err := l.issue("group", s.tok.Text); err == nil {
		t.Error("a dead server has made a credential")
	}
	if len(s.revoked) > 0 {
		t.Errorf("%d revocations were acknowledged by a dead server", len(s.revoked))
	}
	if err := pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.promises("once it is back", s.seen)
	l.quiet()
	l.settled("in the end")
}

// A name that exists already and is not ours is refused and never touched.
func TestNameIsNotOurs(t *testing.T) {
	both(t, func(t *testing.T, role string) {
		l := newLab(t)
		name := l.name + "_human"
		l.pg.Exec(t, "postgres", `CREATE ROLE `+name+` LOGIN; COMMENT ON ROLE `+name+` IS 'a human'`)
		l.connect(object{"username_template": name})
		if _, err := l.issue(role, l.root); !errors.Is(err, lease.ErrNameTaken) {
			t.Errorf("issuing = %v, want ErrNameTaken", err)
		}
		l.settled("in the end")
		got := l.pg.Query(t, "postgres", `SELECT rolcanlogin, shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '`+name+`'`)
		if got != "t|a human" {
			t.Errorf("the role that is not ours reads %q, want it as it was", got)
		}
		// Nor once one takes the name of a lease's login behind our back.
		l.connect(object{"username_template": "v_" + l.name + "_{{random 20}}"})
		h := l.mustIssue(role, l.root)
		l.pg.Exec(t, l.db, `DROP OWNED BY "`+h.user+`"; DROP ROLE "`+h.user+`"; CREATE ROLE "`+h.user+`" LOGIN`)
		l.within(20*time.Second, func() { l.clock.advance(time.Minute); _ = l.core.LiftFence(t.Context()) }, func() bool {
			return len(l.rows(leaseKeys...)) == 0
		})
		if got := l.logins(); !slices.Equal(got, []string{h.user}) {
			t.Errorf("logins = %q, want the one that took the name", got)
		}
		l.pg.Exec(t, l.db, `DROP ROLE "`+h.user+`"`)
		l.settled("in the end")
	})
}

// A connection that is pointed at another server: leases end on the one they
// were made on, and what another one says ends nothing.
func TestConnectionPointedElsewhere(t *testing.T) {
	l := newLab(t)
	two := testenv.Postgres(t, testenv.Config{})
	two.Exec(t, "postgres", "CREATE DATABASE "+l.db)
	l.prepare(two, l.db)

	// The same address, another server behind it.
	h := l.mustIssue("own", l.root)
	l.proxy.Retarget(two.Addr())
	if err := l.revoke(h.id); err == nil {
		t.Error("a revocation was acknowledged by another server")
	}
	l.within(300*time.Millisecond, func() { l.clock.advance(time.Minute); _ = l.core.LiftFence(t.Context()) }, func() bool { return false })
	leases, err := l.core.Leases()
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := leases.List(t.Context(), token.RootNamespace, lease.Query{Irrevocable: true})
	if err != nil || len(list) != 1 || !strings.Contains(list[0].Error, "another server") {
		t.Errorf("irrevocable leases = %+v, %v, want the one, with the reason", list, err)
	}
	if !l.works(h) {
		t.Error("the login is gone, although its server was not asked")
	}
	if _, err := l.issue("own", l.root); err == nil {
		t.Error("a credential was made on a server that is not the connection's")
	}
	l.proxy.Retarget(l.pg.Addr())
	l.settled("back at its server")

	// Another address: a new generation, and the old one's way is kept.
	h = l.mustIssue("group", l.root)
	l.connect(object{"connection_url": l.url(two.Addr())})
	other := l.mustIssue("group", l.root)
	if l.works(other) {
		t.Error("the new generation made its credential on the old server")
	}
	if err := l.revoke(h.id); err != nil {
		t.Errorf("revoking through the old generation = %v", err)
	}
	if l.works(h) {
		t.Error("the login on the old server stays")
	}
	l.settled("in the end")
	if left := two.Query(t, "postgres", `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v\_%'`); left != "0" {
		t.Errorf("%s roles are left on the new server", left)
	}
}

// A server that says nothing any more costs its own connection's callers their
// time, and no lane.
func TestSilentServer(t *testing.T) {
	l := newLab(t)
	l.role("own", object{"max_creation_time": "1s"})
	l.mustIssue("own", l.root)
	l.write("database/reset/pg", nil)
	l.proxy.Break(tcpproxy.On("", -1, tcpproxy.Swallow))
	began := time.Now()
	if _, err := l.issue("own", l.root); err == nil {
		t.Error("a silent server has made a credential")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("issuing took %s of a silent server, want about the role's second", took)
	}
	l.quiet()
	l.settled("in the end")
}
