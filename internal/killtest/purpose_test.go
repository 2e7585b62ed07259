package killtest

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/httpapi"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/testenv"
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

// gate is a store that does something just before an Update.
type gate struct {
	storage.Backend
	before atomic.Pointer[func()]
}

func (g *gate) Update(ctx context.Context, fn func(storage.Tx) error) (storage.Revision, error) {
	if f := g.before.Swap(nil); f != nil {
		(*f)()
	}
	return g.Backend.Update(ctx, fn)
}

// A token that is revoked between its authorisation and the commit of a lease
// gets none, and so does its child.
func TestTokenRevokedBeforeCommit(t *testing.T) {
	l := newLab(t)
	g := &gate{Backend: l.store}
	l.core.Stop(time.Second)
	l.core = l.newCoreOn(g)
	l.unseal()
	for _, who := range []string{"the token", "its parent"} {
		parent := l.newToken()
		child, err := l.core.CreateToken(t.Context(), &token.Entry{
			Policies: []string{"root"}, Parent: parent.Key, Expires: l.clock.now().Add(time.Hour), TTL: time.Hour,
		}, secret.String{})
		if err != nil {
			t.Fatal(err)
		}
		l.mustIssue("group", child.Text) // its way is known and cached
		ends := map[string]*token.Token{"the token": child, "its parent": parent}[who]
		revoke := func() {
			if err := l.revokeToken(ends); err != nil {
				t.Errorf("revoking = %v", err)
			}
		}
		g.before.Store(&revoke)
		if _, err := l.issue("own", child.Text); !errs.Is(err, errs.Denied) {
			t.Errorf("issuing after %s was revoked = %v, want Denied", who, err)
		}
		l.noLogin(who + " was revoked")
	}
	l.settled("in the end")
}

// Sealing does not wait for ever for what is being made: the rest is due at
// once, and gone soon after unsealing.
func TestSealWhileMaking(t *testing.T) {
	l := newLab(t)
	release := l.block()
	asked := l.issueAside("group", l.root)
	l.blocked()
	stopped := make(chan struct{})
	old := l.core
	go func() {
		defer close(stopped)
		old.Stop(50 * time.Millisecond)
	}()
	if !l.within(10*time.Second, nil, func() bool {
		_, err := old.Leases()
		return err != nil && l.dueNow() == 1
	}) {
		t.Error("what was being made is not due")
	}
	release()
	if err := <-asked; err == nil {
		t.Error("a sealed server has given a credential")
	}
	<-stopped
	l.core = l.newCore()
	l.unseal()
	l.noLogin("it was made while sealing")
	l.promises("once unsealed", seen{})
	l.quiet()
	l.settled("in the end")
}

// dueNow counts the leases whose time has come.
func (l *lab) dueNow() (n int) {
	for _, key := range l.rows("due/") {
		if w, err := lane.ParseKey(key); err == nil && w.Kind == lease.DueKind && !w.Due.After(l.clock.now()) {
			n++
		}
	}
	return n
}

// A client that goes away before the first byte of the answer leaves nothing.
func TestClientWentAway(t *testing.T) {
	l := newLab(t)
	served := make(chan struct{})
	api := httpapi.New(httpapi.Config{Core: l.core})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(served)
		api.ServeHTTP(w, r)
	}))
	defer srv.Close()
	release := l.block()
	ctx, hangUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/v1/database/creds/own", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", l.root.Reveal())
	answered := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			err = resp.Body.Close()
		}
		answered <- err
	}()
	l.blocked()
	hangUp()
	if err := <-answered; err == nil {
		t.Error("the client was answered after it had gone")
	}
	// The server hears of it by the connection's end, while it makes.
	l.within(200*time.Millisecond, nil, func() bool { return false })
	release()
	<-served
	l.promises("once served", seen{})
	l.noLogin("its client went away")
	l.quiet()
	l.settled("in the end")
}

// The disk is full in the middle: what stands goes on, what writes is refused
// with that reason, nothing that was said is lost, and it heals by itself.
func TestDiskFull(t *testing.T) {
	l := newLab(t)
	s := l.begin()
	kept, gone := s.get("own", s.tok), s.get("group", s.tok)
	release := l.block()
	asked := l.issueAside("own", s.tok.Text)
	l.blocked()
	l.store.Set(func(c fault.Call) error {
		if c.Op == fault.Begin {
			return storage.ErrReadOnly
		}
		return nil
	})
	release()
	if err := <-asked; err != nil {
		t.Errorf("what was committed before = %v, want its credential", err)
	}
	if _, err := l.issue("own", s.tok.Text); !errs.Is(err, errs.Unavailable) {
		t.Errorf("issuing on a full disk = %v, want Unavailable", err)
	}
	if err := l.revoke(gone.id); !errors.Is(err, storage.ErrReadOnly) {
		t.Errorf("revoking on a full disk = %v, want ErrReadOnly", err)
	}
	if err := l.renew(kept.id); !errors.Is(err, storage.ErrReadOnly) {
		t.Errorf("renewing on a full disk = %v, want ErrReadOnly", err)
	}
	l.promises("while the disk is full", s.seen)
	l.store.Set(nil)
	l.promises("once there is room", s.seen)
	s.ended(gone, l.revoke(gone.id))
	if len(s.revoked) != 1 {
		t.Error("revoking once there is room failed")
	}
	l.settled("in the end")
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
