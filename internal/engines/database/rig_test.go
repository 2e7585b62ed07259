package database_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/database"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/policy/password"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/testenv"
	"github.com/leasehold/leasehold/internal/testenv/tcpproxy"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const slice = "m/root/mount1/"

var leaseMount = lease.Mount{Namespace: "root", ID: "mount1", Path: "database/"}

// rig is one mount of the engine with a store, leases and lanes, as core puts
// them together, and a managing user on a real server.
type rig struct {
	t       *testing.T
	pg      *testenv.PG
	db      string
	manager string
	group   string

	store  storage.Backend
	lanes  *lane.Set
	leases *lease.Store
	engine engine.Engine
	table  *route.Table
	fenced atomic.Value
	epoch  uint64
	owner  string        // the token that issues; "" is none
	limit  time.Duration // for making a credential; zero is the default
	stop   func()
}

// onEach runs a test on the distribution's PostgreSQL and on a newer one.
func onEach(t *testing.T, f func(r *rig)) {
	for _, version := range []int{0, 16} {
		name := "distribution"
		if version > 0 {
			name = fmt.Sprint("version ", version)
		}
		t.Run(name, func(t *testing.T) { f(newRig(t, version)) })
	}
}

func newRig(t *testing.T, version int) *rig {
	t.Helper()
	return newRigOn(t, version, mem.New())
}

func newRigOn(t *testing.T, version int, store storage.Backend) *rig {
	t.Helper()
	p := testenv.SharedPostgres(t, testenv.Config{Version: version})
	r := &rig{t: t, pg: p, db: p.NewDatabase(t), manager: testenv.Unique("manager"), group: testenv.Unique("readers"), store: store, epoch: 3}
	p.Exec(t, r.db, fmt.Sprintf(`
		CREATE ROLE %[1]s LOGIN CREATEROLE PASSWORD 'manager-pw';
		CREATE ROLE %[2]s NOLOGIN;
		GRANT %[2]s TO %[1]s WITH ADMIN OPTION;
		CREATE TABLE items (id int);
		GRANT SELECT ON items TO %[2]s;
		GRANT SELECT ON items TO %[1]s WITH GRANT OPTION`, r.manager, r.group))
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

// start is what unsealing does: everything anew but the store.
func (r *rig) start() {
	t := r.t
	t.Helper()
	origin := lease.Origin{Instance: r.instance(), Epoch: r.epoch}
	handlers := map[string]lane.Handler{}
	fenced := func() bool { return r.fenced.Load() != nil }
	r.lanes = lane.New(lane.Config{Store: r.store, Handlers: handlers, Held: fenced})
	kinds := map[string]lease.AnyKind{}
	r.leases = lease.New(lease.Config{
		Store: r.store, Lanes: r.lanes, Origin: origin,
		Hash:   func(s string) [32]byte { return sha256.Sum256([]byte("key" + s)) },
		Kind:   func(m, k string) (lease.AnyKind, bool) { kind, ok := kinds[k]; return kind, ok && m == leaseMount.ID },
		Mounts: func(string, string) []lease.Mount { return []lease.Mount{leaseMount} },
		Fenced: fenced,
	})
	handlers[lease.DueKind], handlers[lease.OfferKind] = r.leases.Handler(), r.leases.Offers()
	e, err := database.New(t.Context(), engine.Env{
		MountID: leaseMount.ID, Namespace: "root", Type: "database",
		Store: storage.Prefix(r.store, slice), Key: func(rel string) string { return slice + rel },
		Lanes: r.lanes, Origin: origin, Now: time.Now, Log: slog.New(slog.DiscardHandler), Leases: r.leases,
		Fence: func(_ uint64, reason string) { r.fenced.Store(reason) },
		Password: func(_ context.Context, policy string) (secret.String, error) {
			if policy == "" {
				return password.Default().Generate(nil)
			}
			p, err := password.Parse(policy) // the tests name a policy by its text
			if err != nil {
				return secret.String{}, err
			}
			return p.Generate(nil)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.engine, r.table = e, route.NewTable()
	e.Routes(r.table)
	for _, k := range e.(engine.Leaser).Kinds() {
		kinds[lease.KindName(k)] = k
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	if err := e.(engine.Starter).Start(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.lanes.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	}()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		<-done
		if err := e.(engine.Closer).Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
}

// instance is what this rig's marks begin with, unlike any other's.
func (r *rig) instance() string { return "inst" + strings.TrimPrefix(r.manager, "manager_") }

// ours are the users on the server that carry a mark of this rig's store.
func (r *rig) ours() []string {
	r.t.Helper()
	return strings.Fields(r.pg.Query(r.t, "postgres",
		"SELECT rolname FROM pg_roles WHERE shobj_description(oid, 'pg_authid') LIKE 'leasehold:"+r.instance()+":%'"))
}

type object map[string]any

type answer struct {
	err      error
	data     object
	warnings []string
}

func (r *rig) request(op wire.Op, path string, body object) *route.Request {
	r.t.Helper()
	req := &route.Request{
		Op: op, Path: path, Caller: route.Caller{DisplayName: "token"},
		Mount: route.MountInfo{Path: leaseMount.Path, DefaultTTL: time.Hour, MaxTTL: 24 * time.Hour},
	}
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			r.t.Fatal(err)
		}
		req.Body = b
	}
	return req
}

func (r *rig) do(op wire.Op, path string, body object) answer {
	r.t.Helper()
	req := r.request(op, path, body)
	ep, err := r.table.Route(req)
	if err != nil {
		r.t.Fatalf("%v %s: %v", op, path, err)
	}
	res, err := ep.Call(r.t.Context(), req)
	a := answer{err: err, warnings: req.Reply().Warnings}
	if err == nil && res.Data != nil {
		if err := json.Unmarshal(res.Data.AppendJSON(nil), &a.data); err != nil {
			r.t.Fatalf("%v %s answers what is not JSON: %v", op, path, err)
		}
	}
	return a
}

func (r *rig) write(path string, body object) answer {
	r.t.Helper()
	return r.do(wire.OpUpdate, path, body)
}
func (r *rig) read(path string) answer { r.t.Helper(); return r.do(wire.OpRead, path, nil) }

// mustWrite also says that there may be no warning but those that begin so.
func (r *rig) mustWrite(path string, body object, warnings ...string) {
	r.t.Helper()
	a := r.write(path, body)
	if a.err != nil {
		r.t.Fatalf("writing %s: %v", path, a.err)
	}
	for _, w := range a.warnings {
		if !slices.ContainsFunc(warnings, func(p string) bool { return strings.Contains(w, p) }) {
			r.t.Errorf("writing %s warns %q", path, w)
		}
	}
	if len(a.warnings) < len(warnings) {
		r.t.Errorf("writing %s warns %q, want %q", path, a.warnings, warnings)
	}
}

func (r *rig) url(addr string) string {
	return "postgresql://{{username}}:{{password}}@" + addr + "/" + r.db + "?sslmode=disable"
}

// throughProxy connects by way of a proxy that a test may have cut.
func (r *rig) throughProxy() *tcpproxy.Proxy {
	r.t.Helper()
	proxy, err := tcpproxy.New(r.pg.Addr())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = proxy.Close() })
	r.connect(object{"connection_url": r.url(proxy.Addr())})
	return proxy
}

// connect writes the connection "main" and the roles "app" (statements) and
// "group" (group-role mode).
func (r *rig) connect(change object) {
	r.t.Helper()
	body := object{
		"plugin_name": "postgresql-database-plugin", "connection_url": r.url(r.pg.Addr()),
		"username": r.manager, "password": "manager-pw", "allowed_roles": "*",
	}
	for k, v := range change {
		body[k] = v
	}
	r.mustWrite("config/main", body)
	r.mustWrite("roles/group", object{"db_name": "main", "member_of": r.group, "default_ttl": "10m", "max_ttl": "1h"})
	r.mustWrite("roles/app", object{"db_name": "main", "default_ttl": "10m", "creation_statements": []string{
		`CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
		`GRANT SELECT ON items TO "{{name}}"`,
	}})
}

// credential is what issuing gives.
type credential struct {
	user, password string
	lease          *lease.Issued
}

// issue walks a credential through the four steps, as core does.
func (r *rig) issue(role string) (c credential, err error) {
	r.t.Helper()
	req := r.request(wire.OpRead, "creds/"+role, nil)
	req.Lease = r.leases.Draft(leaseMount.Path+req.Path, "")
	ep, err := r.table.Route(req)
	if err != nil {
		return c, err
	}
	ctx := r.t.Context()
	res, err := ep.Call(ctx, req)
	if err != nil {
		return c, err
	}
	if r.limit > 0 {
		res.Plan.Limit = r.limit
	}
	ttl := res.Plan.TTL
	if ttl == 0 {
		ttl = time.Hour
	}
	h := lease.Holder{Namespace: "root", Mount: leaseMount, Owner: r.owner, Who: "somebody"}
	var out any
	var done func()
	if c.lease, out, done, err = r.leases.Join(ctx, req.Lease, h, res.Plan, ttl, 24*time.Hour); err != nil {
		return c, err
	}
	defer done()
	joined := c.lease != nil
	if !joined {
		if c.lease, err = r.leases.Commit(ctx, req.Lease, h, res.Plan, ttl, 24*time.Hour); err != nil {
			return c, err
		}
		if out, err = r.leases.Make(ctx, c.lease); err != nil {
			return c, err
		}
	}
	if err := r.leases.Confirm(ctx, c.lease); err != nil {
		return c, err
	}
	if !joined {
		if err := r.leases.Offer(ctx, c.lease, h, out); err != nil {
			return c, err
		}
	}
	var data struct{ Username, Password string }
	if err := json.Unmarshal(wire.Append(nil, out), &data); err != nil {
		return c, err
	}
	c.user, c.password = data.Username, data.Password
	return c, nil
}

func (r *rig) mustIssue(role string) credential {
	r.t.Helper()
	c, err := r.issue(role)
	if err != nil {
		r.t.Fatalf("issuing %s: %v", role, err)
	}
	return c
}

func (r *rig) revoke(c credential) {
	r.t.Helper()
	pending, err := r.leases.Revoke(r.t.Context(), "root", c.lease.ID, lease.Revoked, true)
	if err != nil {
		r.t.Errorf("Revoke = %+v, %v", pending, err)
	}
}

// works tries a query with a credential.
func (r *rig) works(c credential) error {
	_, err := r.pg.QueryAs(r.t.Context(), c.user, c.password, r.db, "SELECT count(*) FROM items")
	return err
}

func (r *rig) roleExists(user string) bool {
	r.t.Helper()
	return r.pg.Query(r.t, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname = '"+user+"'") == "1"
}

// eventually waits for something that lanes do in their own time.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			r.t.Fatalf("in 20 s it did not come about that %s", what)
		}
	}
}

// irrevocable is the reason of the one lease that waits, or "".
func (r *rig) irrevocable() string {
	r.t.Helper()
	list, _, err := r.leases.List(r.t.Context(), "root", lease.Query{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, l := range list {
		if l.Irrevocable {
			return l.Error
		}
	}
	return ""
}

func (r *rig) leaseCount() int {
	r.t.Helper()
	list, _, err := r.leases.List(r.t.Context(), "root", lease.Query{})
	if err != nil {
		r.t.Fatal(err)
	}
	return len(list)
}

func kindOf(err error) errs.Kind {
	var e *errs.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return errs.Internal
}
