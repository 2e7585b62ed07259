package database_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/testenv"
	"github.com/leasehold/leasehold/internal/testenv/tcpproxy"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestConnections(t *testing.T) {
	r := newRig(t, 0)
	if a := r.do(wire.OpList, "config/", nil); !errors.Is(a.err, errs.Gone) {
		t.Errorf("listing no connections = %v, want Gone", a.err)
	}
	good := object{"plugin_name": "postgresql-database-plugin", "connection_url": r.url(r.pg.Addr()), "username": r.manager, "password": "manager-pw"}
	for name, change := range map[string]object{
		"no plugin":          {"plugin_name": ""},
		"another plugin":     {"plugin_name": "mysql-database-plugin"},
		"no url":             {"connection_url": ""},
		"no url at all":      {"connection_url": "://"},
		"misplaced template": {"connection_url": "postgresql://u:p@{{username}}/x"},
		"wrong password":     {"password": "wrong"},
		"nobody there":       {"connection_url": r.url("127.0.0.1:1")},
		"bad authentication": {"password_authentication": "md5"},
		"bad iterations":     {"scram_iterations": -1},
		"bad lifetime":       {"max_connection_lifetime": "soon"},
		"bad template":       {"username_template": "{{nothing}}"},
		"bad pem":            {"tls_ca": "x"},
		"key alone":          {"private_key": "x"},
		"bad statements":     {"root_rotation_statements": "ALTER ROLE '"},
	} {
		body := object{}
		for k, v := range good {
			body[k] = v
		}
		for k, v := range change {
			body[k] = v
		}
		a := r.write("config/bad", body)
		if kindOf(a.err) != errs.Invalid {
			t.Errorf("%s: %v, want Invalid", name, a.err)
		}
		if a.err != nil && strings.Contains(a.err.Error(), "manager-pw") {
			t.Errorf("%s: the error shows the password: %v", name, a.err)
		}
	}
	r.mustWrite("config/main", good)
	shown, _ := r.read("config/main").data["connection_details"].(map[string]any)
	if _, there := shown["max_connection_lifetime"]; there || shown["connection_url"] == nil {
		t.Errorf("a connection that was given no lifetime reads %v; clients crash on a null there", shown)
	}
	good["max_connection_lifetime"], good["max_open_connections"] = "10s", "3"
	good["allowed_roles"] = "ro,st*"
	r.mustWrite("config/main", good)
	a := r.read("config/main")
	details, _ := a.data["connection_details"].(map[string]any)
	if details["connection_url"] != r.url(r.pg.Addr()) || details["max_connection_lifetime"] != "10s" || details["max_open_connections"] != 3.0 || details["password"] != nil {
		t.Errorf("config/main reads %v", a.data)
	}
	// An update leaves alone what it does not name.
	r.mustWrite("config/main", object{"allowed_roles": []string{"*"}, "username_template": "x{{random 6}}"})
	if d := r.read("config/main").data["connection_details"].(map[string]any); d["username"] != r.manager {
		t.Errorf("after an update the connection reads %v", d)
	}
	inURL := object{"plugin_name": "postgresql-database-plugin", "connection_url": "postgresql://" + r.manager + ":manager-pw@" + r.pg.Addr() + "/" + r.db}
	r.mustWrite("config/inurl", inURL)
	if d := r.read("config/inurl").data["connection_details"].(map[string]any); strings.Contains(d["connection_url"].(string), "manager-pw") {
		t.Errorf("a password in the URL is shown: %v", d)
	}
	if a := r.write("reload/postgresql-database-plugin", nil); a.err != nil || a.data["count"] != 2.0 {
		t.Errorf("reload = %v, %v", a.data, a.err)
	}
	if a := r.write("reset/none", nil); kindOf(a.err) != errs.Invalid {
		t.Errorf("reset of no connection = %v, want Invalid", a.err)
	}
	r.mustWrite("reset/main", nil)
	if a := r.read("config/none"); !errors.Is(a.err, errs.Gone) {
		t.Errorf("reading no connection = %v, want Gone", a.err)
	}
}

// A connection that is deleted makes nothing new; what it made still ends.
func TestDeletedConnection(t *testing.T) {
	onEach(t, func(r *rig) {
		t := r.t
		r.connect(nil)
		c := r.mustIssue("app")
		if a := r.do(wire.OpDelete, "config/main", nil); a.err != nil {
			t.Fatalf("deleting: %v", a.err)
		}
		if a := r.do(wire.OpDelete, "config/main", nil); a.err != nil {
			t.Errorf("deleting again: %v", a.err)
		}
		if _, err := r.issue("app"); kindOf(err) != errs.Invalid {
			t.Errorf("issuing after deleting = %v, want Invalid", err)
		}
		r.stop()
		r.start() // nothing of it is in memory only
		if err := r.works(c); err != nil {
			t.Errorf("the credential after deleting its connection: %v", err)
		}
		r.connect(nil) // another one of that name
		r.revoke(c)
		if r.roleExists(c.user) {
			t.Errorf("the login is still there")
		}
		r.do(wire.OpDelete, "config/main", nil)
		if keys := r.do(wire.OpList, "config/", nil); !errors.Is(keys.err, errs.Gone) {
			t.Errorf("connections left: %v", keys.data)
		}
	})
}

// A connection that is pointed elsewhere: what is on the former server waits,
// and ends once that can be reached again.
func TestAnotherServer(t *testing.T) {
	r := newRig(t, 0)
	proxy := r.throughProxy()
	c := r.mustIssue("app")
	other := testenv.SharedPostgres(t, testenv.Config{Version: 16})
	other.Exec(t, "postgres", "CREATE ROLE "+r.manager+" LOGIN CREATEROLE PASSWORD 'manager-pw'")
	other.Exec(t, "postgres", "CREATE DATABASE "+r.db)
	defer other.Exec(t, "postgres", "DROP DATABASE "+r.db+" WITH (FORCE)")

	// The address leads elsewhere without a word.
	proxy.Retarget(other.Addr())
	r.mustWrite("reset/main", nil)
	if _, err := r.issue("app"); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Errorf("issuing on another server = %v, want a refusal that says so", err)
	}
	if n := other.Query(t, "postgres", `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-token%'`); n != "0" {
		t.Errorf("%s logins were made on the other server", n)
	}
	pending, err := r.leases.Revoke(t.Context(), "root", c.lease.ID, lease.Revoked, false)
	t.Logf("Revoke while the server is another: %+v, %v", pending, err)
	r.eventually("the lease waits and says why", func() bool { return strings.Contains(r.irrevocable(), "another server") })

	// The operator writes the connection again: a new generation.
	r.mustWrite("config/main", object{"username": r.manager}, "leads to another server now")
	if got := r.read("identity/main"); got.data["generation"] != 2.0 {
		t.Errorf("identity/main = %v, want generation 2", got.data)
	}
	if !r.roleExists(c.user) {
		t.Fatalf("the login is gone")
	}
	// Back again, by another way: a third generation, whose server is the
	// lease's own.
	r.mustWrite("config/main", object{"connection_url": r.url(r.pg.Addr())}, "leads to another server now")
	r.revoke(c)
	if r.roleExists(c.user) {
		t.Errorf("the login is still there")
	}
}

// An operator says that a server took over another's users (it was restored
// from its backup, with a new identity).
func TestSuccession(t *testing.T) {
	r := newRig(t, 0)
	r.connect(nil)
	c := r.mustIssue("app")
	mark := r.pg.Query(t, "postgres", "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '"+c.user+"'")
	first := r.read("identity/main").data["identity"].(string)
	next := testenv.SharedPostgres(t, testenv.Config{Version: 16})
	next.Exec(t, "postgres", "CREATE ROLE "+r.manager+" SUPERUSER LOGIN PASSWORD 'manager-pw'")
	next.Exec(t, "postgres", "CREATE DATABASE "+r.db)
	defer next.Exec(t, "postgres", "DROP DATABASE "+r.db+" WITH (FORCE)")
	next.Exec(t, "postgres", `CREATE ROLE "`+c.user+`" LOGIN PASSWORD 'x'; COMMENT ON ROLE "`+c.user+`" IS '`+mark+`'`)
	r.mustWrite("config/main", object{"connection_url": r.url(next.Addr())}, "another server now")
	r.mustWrite("identity/main", object{"succeeds": first})
	r.revoke(c)
	if n := next.Query(t, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname = '"+c.user+"'"); n != "0" {
		t.Errorf("the login on the succeeding server is still there")
	}
	r.pg.Exec(t, r.db, `DROP TABLE items; DROP ROLE "`+c.user+`"`)
}

func TestRotateRoot(t *testing.T) {
	onEach(t, func(r *rig) {
		t := r.t
		proxy := r.throughProxy()
		oldWorks := func() bool {
			_, err := r.pg.QueryAs(t.Context(), r.manager, "manager-pw", r.db, "SELECT 1")
			return err == nil
		}
		// Refused by the server: the old one stays.
		r.mustWrite("config/main", object{"root_rotation_statements": []string{"ALTER ROLE no_such_role PASSWORD '{{password}}'"}})
		if a := r.write("rotate-root/main", nil); kindOf(a.err) != errs.Invalid {
			t.Errorf("rotating with bad statements = %v, want Invalid", a.err)
		}
		r.mustWrite("config/main", object{"root_rotation_statements": []string{}})
		// Cut before the server heard of it: nobody knows. The old one goes on working.
		r.mustIssue("app")
		proxy.Break(tcpproxy.On("ALTER ROLE", 1, tcpproxy.Cut))
		if a := r.write("rotate-root/main", nil); a.err == nil {
			t.Errorf("a rotation that was cut reports success")
		}
		r.mustIssue("app")
		if !oldWorks() {
			t.Fatalf("the old password does not work, though the server never heard of a new one")
		}
		r.stop()
		r.start()
		r.mustIssue("app")
		// It could still come through for a minute; a new connection forgets it.
		r.do(wire.OpDelete, "config/main", nil)
		r.connect(object{"connection_url": r.url(proxy.Addr())})
		// Cut after the server did it: the new one is found to work.
		proxy.Break(tcpproxy.On("ALTER ROLE", 1, tcpproxy.AnswerCut))
		if a := r.write("rotate-root/main", nil); a.err != nil {
			t.Errorf("a rotation whose answer was lost = %v, want success", a.err)
		}
		proxy.Break(nil)
		if oldWorks() {
			t.Errorf("the old password still works")
		}
		r.mustIssue("app")
		r.mustWrite("rotate-root/main", nil)
		r.stop()
		r.start()
		c := r.mustIssue("group")
		r.revoke(c)
	})
}

// Whoever writes the old password while the server has the new one in hand does
// not lock us out: both are kept.
func TestPasswordWrittenDuringRotation(t *testing.T) {
	r := newRig(t, 0)
	r.connect(nil)
	other, err := pgx.Connect(t.Context(), r.pg.Super(r.db))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.WithoutCancel(t.Context()))
	exec := func(sql string) {
		if _, err := other.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("BEGIN")
	exec("ALTER ROLE " + r.manager + " CONNECTION LIMIT 100")
	rotated := make(chan error, 1)
	go func() { rotated <- r.write("rotate-root/main", nil).err }()
	r.eventually("the server has the new password in hand", func() bool {
		return r.pg.Query(t, r.db, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = '"+r.manager+"'") == "1"
	})
	r.mustWrite("config/main", object{"password": "manager-pw"})
	exec("ROLLBACK")
	err = <-rotated
	if _, lerr := r.pg.QueryAs(t.Context(), r.manager, "manager-pw", r.db, "SELECT 1"); lerr == nil {
		t.Fatalf("the old password works after a rotation that ended with %v", err)
	}
	r.mustIssue("app")
}

// A store that was restored from a backup sees marks it never made.
func TestFence(t *testing.T) {
	r := newRig(t, 0)
	r.connect(nil)
	r.mustIssue("app")
	r.stop()
	r.epoch-- // the backup was taken in the epoch before
	r.start()
	r.eventually("the fence is raised", func() bool { reason, _ := r.fenced.Load().(string); return strings.Contains(reason, "epoch 3") })
}

// In a store that was restored, leases that were renewed since look expired. The
// fence is up before the first of them is touched, also when the server does not
// answer at first.
func TestFenceComesFirst(t *testing.T) {
	r := newRig(t, 0)
	proxy := r.throughProxy()
	other := r.mustIssue("group")
	r.mustWrite("roles/app", object{"default_ttl": "1s"})
	c := r.mustIssue("app")
	r.stop()
	r.eventually("the lease has expired", func() bool { return time.Now().After(c.lease.Expires) })
	r.epoch--
	proxy.Break(tcpproxy.On("", 1, tcpproxy.Cut))
	r.start()
	r.eventually("the fence is raised", func() bool { return r.fenced.Load() != nil })
	r.eventually("an explicit revocation goes on", func() bool {
		_, err := r.leases.Revoke(t.Context(), "root", other.lease.ID, lease.Revoked, true)
		return err == nil
	})
	if !r.roleExists(c.user) {
		t.Error("a login was dropped for its expiry in a store that was restored")
	}
	if list, _, err := r.leases.List(t.Context(), "root", lease.Query{}); err != nil || len(list) != 1 || list[0].Cause != "" {
		t.Errorf("List = %+v, %v, want the expired lease without a mark", list, err)
	}
}

// In a store that was restored, tokens that were renewed since look expired, too.
// What they own stays, also when the server does not answer at first.
func TestFenceComesBeforeTokens(t *testing.T) {
	for _, down := range []bool{false, true} {
		t.Run(fmt.Sprint("down ", down), func(t *testing.T) {
			r := newRig(t, 0)
			proxy := r.throughProxy()
			r.owner = "root/token"
			var all []credential
			for _, role := range []string{"app", "group"} {
				all = append(all, r.mustIssue(role))
			}
			r.stop()
			r.epoch--
			if down {
				proxy.Break(tcpproxy.On("", 1, tcpproxy.Cut))
			}
			r.start()
			if err := r.leases.RevokeOwned(t.Context(), r.owner, true); err != nil {
				t.Fatal(err)
			}
			r.eventually("the fence is raised", func() bool { return r.fenced.Load() != nil })
			r.eventually("an explicit revocation goes on", func() bool {
				_, err := r.leases.Revoke(t.Context(), "root", all[1].lease.ID, lease.Revoked, true)
				return err == nil
			})
			if err := r.works(all[0]); err != nil {
				t.Errorf("a login whose token looks expired, in a store that was restored: %v", err)
			}
			if err := r.leases.RevokeOwned(t.Context(), r.owner, false); err != nil {
				t.Fatal(err)
			}
			r.eventually("who revokes the token ends its login", func() bool { return !r.roleExists(all[0].user) })
		})
	}
}
