package killtest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/cubbyhole"
	"github.com/leasehold/leasehold/internal/engines/database"
	"github.com/leasehold/leasehold/internal/engines/database/postgres"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/testenv"
	"github.com/leasehold/leasehold/internal/testenv/tcpproxy"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// clock is the core's clock: the real one, and as far ahead as a test says.
// The database's clock stays where it is, so a test that moves this one past
// a make_by first sees to it that the database is not at work any more.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// lab is a whole server without its HTTP: a core over a barrier over a store
// that fails on demand, and a PostgreSQL behind a proxy that cuts on demand.
type lab struct {
	t     *testing.T
	pg    *testenv.PG
	proxy *tcpproxy.Proxy
	disk  *mem.Store // beneath the faults
	store *fault.Store
	clock clock
	core  *core.Core
	share []byte
	root  secret.String

	name, db, manager, group string

	super *pgx.Conn // of the superuser, for looking; nil: none yet
}

const managerPassword = "manager-pw"

// nothing is an engine without routes, for mounts that these tests do not use.
type nothing struct{}

func (nothing) Routes(*route.Table) {}

// newLab starts a server with a connection "pg" through the proxy and the
// roles "own" (an operator's statements), "group" (group-role mode) and "shared"
// (requests of one token share a login).
func newLab(t *testing.T) *lab {
	t.Helper()
	pg := testenv.SharedPostgres(t, testenv.Config{})
	return newLabOn(t, pg, pg.NewDatabase(t))
}

func newLabOn(t *testing.T, pg *testenv.PG, db string) *lab {
	t.Helper()
	l := &lab{t: t, pg: pg, db: db, disk: mem.New(), name: testenv.Unique("lab")}
	l.manager, l.group = l.name+"_manager", l.name+"_readers"
	l.prepare(pg, db)
	proxy, err := tcpproxy.New(pg.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	l.proxy = proxy
	l.store = fault.Wrap(l.disk)
	l.core = l.newCore()
	in, err := l.core.Init(t.Context(), seal.Params{Shares: 1, Threshold: 1}, secret.String{})
	if err != nil {
		t.Fatalf("Init = %v", err)
	}
	l.root, l.share = in.Root, in.Shares[0]
	t.Cleanup(func() {
		l.store.Set(nil)
		l.proxy.Break(nil)
		l.core.Stop(time.Second)
	})
	l.unseal()
	err = l.core.AddMount(t.Context(), &core.Mount{Namespace: token.RootNamespace, Path: "database/", Class: core.ClassSecret, Type: "database"})
	if err != nil {
		t.Fatalf("AddMount = %v", err)
	}
	l.connect(nil)
	l.role("own", object{"creation_statements": []string{
		`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'`, `GRANT ` + l.group + ` TO "{{name}}"`,
	}})
	l.role("group", object{"member_of": l.group})
	l.role("shared", object{"member_of": l.group, "coalesce_window": "5m"})
	return l
}

// prepare makes the managing user and the group on a server. The user's
// verifier is a cheap one: the tests connect thousands of times.
func (l *lab) prepare(pg *testenv.PG, db string) {
	l.t.Helper()
	verifier, err := postgres.Verifier(secret.New(managerPassword), 64)
	if err != nil {
		l.t.Fatal(err)
	}
	pg.Exec(l.t, db, fmt.Sprintf(`
		CREATE ROLE %[1]s LOGIN CREATEROLE PASSWORD '%[3]s';
		CREATE ROLE %[2]s NOLOGIN;
		GRANT %[2]s TO %[1]s WITH ADMIN OPTION;
		GRANT EXECUTE ON FUNCTION pg_control_system() TO %[1]s`, l.manager, l.group, verifier.Reveal()))
}

func (l *lab) newCore() *core.Core { return l.newCoreOn(l.store) }

func (l *lab) newCoreOn(store storage.Backend) *core.Core {
	none := func(context.Context, engine.Env) (engine.Engine, error) { return nothing{}, nil }
	return core.New(core.Config{
		Store: store,
		Engines: map[string]engine.Factory{
			"secret/database": database.New, "secret/cubbyhole": cubbyhole.New,
			"secret/system": none, "secret/identity": none, "auth/token": none,
		},
		Now: l.clock.now, Steady: l.clock.now, MaxGap: -1, // the clock leaps on purpose
		Log: slog.New(slog.NewTextHandler(l.t.Output(), &slog.HandlerOptions{Level: slog.LevelError + 4})),
	})
}

func (l *lab) unseal() {
	l.t.Helper()
	if err := l.core.Unseal(l.t.Context(), l.share); err != nil {
		l.t.Fatalf("Unseal = %v", err)
	}
}

// restart is what a new process does: everything anew but the store.
func (l *lab) restart() error {
	l.core.Stop(5 * time.Second)
	l.core = l.newCore()
	return l.core.Unseal(l.t.Context(), l.share)
}

type object map[string]any

func (l *lab) handle(op wire.Op, path string, tok secret.String, body object) *core.Response {
	l.t.Helper()
	req := request(op, path, tok)
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			l.t.Fatal(err)
		}
		req.Body = b
	}
	return l.core.Handle(l.t.Context(), req)
}

func request(op wire.Op, path string, tok secret.String) *core.Request {
	return &core.Request{ID: "req", Op: op, Path: path, Token: tok}
}

func (l *lab) write(path string, body object) {
	l.t.Helper()
	if p := l.handle(wire.OpUpdate, path, l.root, body); p.Err != nil {
		l.t.Fatalf("writing %s = %v", path, p.Err)
	}
}

// connect writes the connection "pg", with changes.
func (l *lab) connect(change object) {
	l.t.Helper()
	body := object{
		"plugin_name": "postgresql-database-plugin", "connection_url": l.url(l.proxy.Addr()),
		"username": l.manager, "password": managerPassword, "allowed_roles": "*",
		"username_template": "v_" + l.name + "_{{random 20}}", "password_authentication": "scram-sha-256", "scram_iterations": 64,
	}
	for k, v := range change {
		body[k] = v
	}
	l.write("database/config/pg", body)
}

func (l *lab) url(addr string) string {
	return "postgresql://{{username}}:{{password}}@" + addr + "/" + l.db + "?sslmode=disable"
}

func (l *lab) role(name string, body object) {
	l.t.Helper()
	for k, v := range (object{"db_name": "pg", "default_ttl": ttlOfLab.String(), "max_ttl": "24h"}) {
		if _, ok := body[k]; !ok {
			body[k] = v
		}
	}
	l.write("database/roles/"+name, body)
}

// ttlOfLab is the TTL of the labs' leases, by the labs' clock.
const ttlOfLab = 10 * time.Minute

// held is a credential that a client was given.
type held struct {
	id             lease.ID
	role           string
	user, password string
}

// issue asks for a credential, and is there for the answer.
func (l *lab) issue(role string, tok secret.String) (held, error) {
	l.t.Helper()
	p := l.handle(wire.OpRead, "database/creds/"+role, tok, nil)
	if p.Err != nil {
		return held{}, p.Err
	}
	if p.Sent != nil {
		p.Sent(true)
	}
	var data struct{ Username, Password string }
	if err := json.Unmarshal(p.Data.AppendJSON(nil), &data); err != nil {
		l.t.Fatal(err)
	}
	return held{lease.ID(p.LeaseID), role, data.Username, data.Password}, nil
}

func (l *lab) mustIssue(role string, tok secret.String) held {
	l.t.Helper()
	h, err := l.issue(role, tok)
	if err != nil {
		l.t.Fatalf("issuing %s = %v", role, err)
	}
	return h
}

// revoke ends a lease with sync, and waits a little.
func (l *lab) revoke(id lease.ID) error {
	leases, err := l.core.Leases()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(l.t.Context(), 650*time.Millisecond)
	defer cancel()
	_, err = leases.Revoke(ctx, token.RootNamespace, id, lease.Revoked, true)
	return err
}

func (l *lab) renew(id lease.ID) error {
	leases, err := l.core.Leases()
	if err != nil {
		return err
	}
	_, err = leases.Renew(l.t.Context(), token.RootNamespace, id, 2*ttlOfLab)
	return err
}

func (l *lab) lookup(id lease.ID) error {
	leases, err := l.core.Leases()
	if err != nil {
		l.t.Fatal(err)
	}
	_, err = leases.Lookup(l.t.Context(), token.RootNamespace, id)
	return err
}

// newToken makes a token that may do everything.
func (l *lab) newToken() *token.Token {
	l.t.Helper()
	t, err := l.core.CreateToken(l.t.Context(), &token.Entry{
		Policies: []string{"root"}, Expires: l.clock.now().Add(time.Hour), TTL: time.Hour,
	}, secret.String{})
	if err != nil {
		l.t.Fatalf("CreateToken = %v", err)
	}
	return t
}

func (l *lab) revokeToken(t *token.Token) error {
	tokens, err := l.core.Tokens()
	if err != nil {
		return err
	}
	return tokens.Revoke(l.t.Context(), t.Key)
}

// logins are the roles of this lab on its server that can log in.
func (l *lab) logins() []string { return l.roles("rolcanlogin") }

func (l *lab) roles(cond string) []string {
	l.t.Helper()
	return strings.Fields(l.look1(`SELECT coalesce(string_agg(rolname, ' '), '') FROM pg_roles
		WHERE starts_with(rolname, 'v_` + l.name + `_') AND ` + cond))
}

// look1 asks the lab's server for one text, over a connection that is kept.
func (l *lab) look1(sql string) (text string) {
	l.t.Helper()
	ctx := context.WithoutCancel(l.t.Context())
	if l.super == nil || l.super.IsClosed() || l.super.Ping(ctx) != nil {
		conn, err := pgx.Connect(ctx, l.pg.Super("postgres"))
		if err != nil {
			l.t.Fatal(err)
		}
		l.super = conn
		l.t.Cleanup(func() { _ = conn.Close(ctx) })
	}
	if err := l.super.QueryRow(ctx, sql).Scan(&text); err != nil {
		l.t.Fatalf("%s: %v", sql, err)
	}
	return text
}

func (l *lab) works(h held) bool {
	l.t.Helper()
	_, err := l.pg.QueryAs(l.t.Context(), h.user, h.password, l.db, "SELECT 1")
	return err == nil
}

// leaseKeys are the rows that leases and the tokens' due work leave.
var leaseKeys = []string{"lease/", "cred/", "share/", "due/", "own/", "name/", "count/n/", "count/m/", "count/g/", "count/p/"}

// rows are the keys below prefixes, as they are on the disk.
func (l *lab) rows(prefixes ...string) (out []string) {
	l.t.Helper()
	err := l.disk.View(context.Background(), func(v storage.View) error {
		for _, p := range prefixes {
			err := v.Scan(p, storage.PrefixEnd(p), 0, func(key string, _ []byte) bool {
				out = append(out, key)
				return true
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// within waits for something that other goroutines or the database bring
// about, looking again every few milliseconds. each, if any, is done before
// each look.
func (l *lab) within(d time.Duration, each func(), done func() bool) bool {
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	for {
		if each != nil {
			each()
		}
		if done() {
			return true
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return false
		}
	}
}

// look makes the lanes look at the clock again.
func (l *lab) look() {
	if lanes, err := l.core.Lanes(); err == nil {
		lanes.Resume()
	}
}

// orphansGone waits until the database has finished what it was sent over
// connections that were cut since: the clock may move past a make_by then.
func (l *lab) orphansGone() {
	l.t.Helper()
	ok := l.within(20*time.Second, nil, func() bool {
		ports := l.look1(`SELECT coalesce(string_agg(client_port::text, ' '), '') FROM pg_stat_activity WHERE usename = '` + l.manager + `'`)
		for port := range strings.FieldsSeq(ports) {
			if n, err := strconv.Atoi(port); err == nil && n > 0 && !l.proxy.Holds(n) {
				return false
			}
		}
		return true
	})
	if !ok {
		l.t.Fatalf("the database is still at work for connections that were cut")
	}
}

// quiet cuts every connection and waits until the database has finished what
// it was sent: from then on nothing lands any more, whatever our clock says.
func (l *lab) quiet() {
	l.t.Helper()
	l.proxy.Break(nil)
	pids := l.look1(`SELECT coalesce(string_agg(pid::text, ','), '0') FROM pg_stat_activity WHERE usename = '` + l.manager + `'`)
	l.proxy.CutAll()
	ok := l.within(20*time.Second, nil, func() bool {
		return l.look1(`SELECT count(*)::text FROM pg_stat_activity WHERE pid IN (`+pids+`)`) == "0"
	})
	if !ok {
		l.t.Fatalf("the database is still at work")
	}
}

// seen is what the clients of a run were told.
type seen struct {
	delivered map[lease.ID]held // and nobody asked to end them
	revoked   []held            // acknowledged
}

// promises checks, at any moment, that every login has a lease, that the
// server knows every credential a client holds, and that what was revoked
// stays so. It returns how many logins and leases it looked at.
func (l *lab) promises(when string, s seen) {
	l.t.Helper()
	logins := l.logins() // before the rows: a lease can end in between, not begin
	names := l.rows("name/")
	for _, user := range logins {
		reserved := slices.ContainsFunc(names, func(k string) bool { return strings.HasSuffix(k, "/"+user) })
		if !reserved && slices.Contains(l.logins(), user) {
			l.t.Errorf("%s: the login %q has no lease", when, user)
		}
	}
	for _, h := range s.delivered {
		if err := l.lookup(h.id); err != nil {
			l.t.Errorf("%s: a credential was delivered whose lease is unknown: %v", when, err)
		}
		if !slices.Contains(logins, h.user) {
			l.t.Errorf("%s: the delivered credential %q is no login", when, h.user)
		}
	}
	for _, h := range s.revoked {
		// A login that is shared goes with its last lease, of which the client
		// may not have been told.
		if slices.Contains(logins, h.user) && !(h.role == "shared" && l.holds(h.role)) {
			l.t.Errorf("%s: the acknowledged revocation of %q is undone", when, h.user)
		}
	}
}

// holds reports whether any lease of a role is left.
func (l *lab) holds(role string) bool {
	return slices.ContainsFunc(l.rows("lease/"), func(key string) bool { return strings.Contains(key, "/creds/"+role+"/") })
}

// settled lets time pass until every lease has ended, and checks that nothing
// of any is left on either side.
func (l *lab) settled(when string) {
	l.t.Helper()
	step := time.Minute
	ok := l.within(20*time.Second, func() {
		l.clock.advance(step)
		step = min(step+time.Minute, 31*time.Minute) // longer than any pause between tries
		// The clock watch takes such leaps for what they are.
		_ = l.core.LiftFence(l.t.Context())
	}, func() bool { return len(l.rows(leaseKeys...)) == 0 })
	if !ok {
		l.t.Errorf("%s: rows of ended leases are left: %q", when, l.rows(leaseKeys...))
	}
	if left := l.roles("true"); len(left) > 0 {
		l.t.Errorf("%s: roles are left although every lease has ended: %q", when, left)
	}
}
