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

func TestCredentials(t *testing.T) {
	onEach(t, func(r *rig) {
		t := r.t
		r.connect(nil)
		for _, role := range []string{"app", "group"} {
			c := r.mustIssue(role)
			if want := "v-token-" + role + "-"; !strings.HasPrefix(c.user, want) {
				t.Errorf("the user is %q, want %s...", c.user, want)
			}
			if err := r.works(c); err != nil {
				t.Errorf("role %s: logging in: %v", role, err)
			}
			if strings.Contains(string(c.lease.ID), c.user[len(c.user)-31:len(c.user)-11]) {
				t.Errorf("the user name %q shows a part of the lease id", c.user)
			}
			until := func(min string) string {
				return r.pg.Query(t, "postgres", "SELECT rolvaliduntil > now() + interval '"+min+" min' FROM pg_roles WHERE rolname = '"+c.user+"'")
			}
			if until("9") != "t" || until("12") != "f" {
				t.Errorf("role %s: VALID UNTIL is not about the lease's end", role)
			}
			if _, err := r.leases.Renew(t.Context(), "root", c.lease.ID, 40*time.Minute); err != nil {
				t.Errorf("role %s: Renew: %v", role, err)
			}
			if until("39") != "t" {
				t.Errorf("role %s: renewing did not move VALID UNTIL", role)
			}
			session, err := pgx.Connect(t.Context(), r.pg.DSN(c.user, c.password, r.db))
			if err != nil {
				t.Fatal(err)
			}
			r.revoke(c)
			if session.Ping(t.Context()) == nil {
				t.Errorf("role %s: the open session outlived the revocation", role)
			}
			_ = session.Close(context.Background())
			if r.works(c) == nil || r.roleExists(c.user) {
				t.Errorf("role %s: the login outlived the revocation", role)
			}
		}
		// Expiry, by the lane.
		r.mustWrite("roles/short", object{"db_name": "main", "member_of": []string{r.group}, "default_ttl": 1})
		c := r.mustIssue("short")
		r.eventually("the expired login is gone", func() bool { return !r.roleExists(c.user) && r.leaseCount() == 0 })
	})
}

// What becomes of an open session depends on the role and the cause.
func TestSessions(t *testing.T) {
	onEach(t, func(r *rig) {
		t := r.t
		r.connect(nil)
		statements := []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'`}
		for _, tt := range []struct {
			name   string
			role   object
			revoke bool // or let it expire
			open   bool
		}{
			{"statements, expiry", object{"creation_statements": statements}, false, true},
			{"statements, revoked", object{"creation_statements": statements}, true, false},
			{"statements, expiry, terminate", object{"creation_statements": statements, "revoke_sessions": "terminate"}, false, false},
			{"groups, expiry", object{"member_of": r.group}, false, false},
			{"groups, revoked, leave", object{"member_of": r.group, "revoke_sessions": "leave"}, true, true},
		} {
			body := object{"db_name": "main", "default_ttl": 1}
			if tt.revoke {
				body["default_ttl"] = 600
			}
			for k, v := range tt.role {
				body[k] = v
			}
			r.mustWrite("roles/sessions", object{"db_name": "main", "creation_statements": []string{}, "member_of": []string{}, "revoke_sessions": ""})
			r.mustWrite("roles/sessions", body)
			c := r.mustIssue("sessions")
			session, err := pgx.Connect(t.Context(), r.pg.DSN(c.user, c.password, r.db))
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if tt.revoke {
				r.revoke(c)
			}
			r.eventually("the role is dropped", func() bool { return !r.roleExists(c.user) })
			if open := session.Ping(t.Context()) == nil; open != tt.open {
				t.Errorf("%s: the session is open = %v, want %v", tt.name, open, tt.open)
			}
			_ = session.Close(context.Background())
		}
	})
}

func TestRoles(t *testing.T) {
	r := newRig(t, 0)
	r.connect(object{"allowed_roles": "app,group,x*", "password_authentication": "scram-sha-256"})
	create := `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'`
	for name, body := range map[string]object{
		"no connection":     {"creation_statements": create},
		"both ways":         {"db_name": "main", "creation_statements": create, "member_of": "x"},
		"open quote":        {"db_name": "main", "creation_statements": "CREATE ROLE '"},
		"transaction":       {"db_name": "main", "creation_statements": create + "; COMMIT"},
		"verifier nowhere":  {"db_name": "main", "creation_statements": "SELECT make('{{name}}', '{{password}}')"},
		"credential type":   {"db_name": "main", "creation_statements": create, "credential_type": "rsa_private_key"},
		"credential config": {"db_name": "main", "creation_statements": create, "credential_config": object{"key_bits": "2048"}},
		"sessions":          {"db_name": "main", "creation_statements": create, "revoke_sessions": "maybe"},
		"cap below none":    {"db_name": "main", "creation_statements": create, "max_live_leases": -1},
		"entity's cap":      {"db_name": "main", "creation_statements": create, "max_live_leases_per_entity": 10_001},
		"long window":       {"db_name": "main", "creation_statements": create, "coalesce_window": "61m"},
		"late password":     {"db_name": "main", "creation_statements": create, "revocation_statements": "SELECT '{{password}}'"},
	} {
		if a := r.write("roles/x", body); kindOf(a.err) != errs.Invalid {
			t.Errorf("%s: %v, want Invalid", name, a.err)
		}
	}
	r.mustWrite("roles/xall", object{"db_name": "main", "creation_statements": []string{create, `GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}"`}}, "8,160 bytes")
	r.mustWrite("roles/other", object{"db_name": "main", "creation_statements": create})
	r.mustWrite("roles/xempty", object{"db_name": "main"})
	r.mustWrite("roles/xnodb", object{"db_name": "missing", "creation_statements": "x"})
	r.mustWrite("roles/xfail", object{"db_name": "main", "creation_statements": []string{create, `GRANT no_such_role TO "{{name}}"`}})
	for _, role := range []string{"none", "other", "xempty", "xnodb", "xfail"} {
		if _, err := r.issue(role); kindOf(err) != errs.Invalid {
			t.Errorf("credentials of role %q = %v, want Invalid", role, err)
		}
	}
	if n := r.pg.Query(t, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-token-xfail-%'"); n != "0" {
		t.Errorf("statements that fail left %s roles", n)
	}
	// Only a verifier was sent, and the login works.
	c := r.mustIssue("app")
	if err := r.works(c); err != nil {
		t.Errorf("logging in with what a verifier was made of: %v", err)
	}
	r.mustWrite("config/main", object{"username_template": "app_{{.RoleName}}_{{random 20 | lowercase}}", "scram_iterations": 64,
		"password_policy": "length = 24\nrule \"charset\" { charset = \"abc'\\\\\" }"})
	odd := r.mustIssue("app")
	if !strings.HasPrefix(odd.user, "app_app_") || len(odd.password) != 24 {
		t.Errorf("template and policy gave %q with a password of %d characters", odd.user, len(odd.password))
	}
	if err := r.works(odd); err != nil {
		t.Errorf("logging in with an odd password: %v", err)
	}
	// A role that was deleted leaves leases that still end.
	if a := r.do(wire.OpDelete, "roles/app", nil); a.err != nil {
		t.Errorf("deleting a role: %v", a.err)
	}
	r.revoke(c)
	r.revoke(odd)
	if r.roleExists(c.user) || r.roleExists(odd.user) {
		t.Errorf("leases of a deleted role left their logins")
	}
}

// Requests in the window share a user, which lives as long as the last of its
// leases and no shorter.
func TestSharedUser(t *testing.T) {
	onEach(t, func(r *rig) {
		r.connect(nil)
		for _, role := range []string{"app", "group"} {
			r.mustWrite("roles/"+role, object{"coalesce_window": "10m"})
			if a := r.read("roles/" + role); a.data["coalesce_window"] != 600.0 {
				t.Errorf("coalesce_window = %v, want 600", a.data["coalesce_window"])
			}
			one, two := r.mustIssue(role), r.mustIssue(role)
			if one.user != two.user || one.password != two.password || one.lease.ID == two.lease.ID {
				t.Fatalf("%s: users %q and %q under one lease: %v", role, one.user, two.user, one.lease.ID == two.lease.ID)
			}
			validFor := func(l *lease.Issued, what string) {
				t.Helper()
				in, err := r.leases.Lookup(t.Context(), "root", l.ID)
				if err != nil {
					t.Fatal(err)
				}
				ok := r.pg.Query(t, "postgres", fmt.Sprintf("SELECT rolvaliduntil >= to_timestamp(%d) FROM pg_roles WHERE rolname = '%s'", in.Expires.Unix(), one.user))
				if ok != "true" && ok != "t" {
					t.Errorf("%s: %s: VALID UNTIL is before the lease's end: %s", role, what, ok)
				}
			}
			validFor(two.lease, "the second lease")
			r.revoke(one)
			if err := r.works(two); err != nil {
				t.Errorf("%s: the other lease's end took the user along: %v", role, err)
			}
			if _, err := r.leases.Renew(t.Context(), "root", two.lease.ID, 30*time.Minute); err != nil {
				t.Errorf("%s: Renew = %v", role, err)
			}
			validFor(two.lease, "once it is renewed")
			// Another definition of the role, another user.
			r.mustWrite("roles/"+role, object{"default_ttl": "11m"})
			other := r.mustIssue(role)
			if other.user == one.user {
				t.Errorf("%s: a user of before the role's change was given out", role)
			}
			r.revoke(two)
			r.revoke(other)
			if r.roleExists(one.user) || r.roleExists(other.user) {
				t.Errorf("%s: users outlive their last leases", role)
			}
			if third := r.mustIssue(role); third.user == one.user || third.user == other.user {
				t.Errorf("%s: a user that is gone was given out", role)
			} else {
				r.revoke(third)
			}
		}
	})
}

// Beyond its caps a role answers 429, and says when there is room.
func TestLiveLeases(t *testing.T) {
	r := newRig(t, 0)
	r.connect(nil)
	r.mustWrite("roles/app", object{"max_live_leases": 2, "max_live_leases_per_entity": 1})
	one := r.mustIssue("app")
	var e *errs.Error
	if _, err := r.issue("app"); !errors.As(err, &e) || e.Kind != errs.TooMany || !strings.Contains(e.Msg, "max_live_leases_per_entity is 1") || e.After <= 0 {
		t.Errorf("a second lease of an entity = %v, want TooMany, and when to ask again", err)
	}
	r.mustWrite("roles/app", object{"max_live_leases_per_entity": 0})
	two := r.mustIssue("app")
	if _, err := r.issue("app"); !errors.As(err, &e) || e.Kind != errs.TooMany || !strings.Contains(e.Msg, "max_live_leases is 2") {
		t.Errorf("a third lease = %v, want TooMany", err)
	}
	r.revoke(one)
	r.revoke(r.mustIssue("app"))
	r.revoke(two)
}

// A template without randomness draws the same name again: the second is
// refused before the database is asked.
func TestNamesAreReserved(t *testing.T) {
	r := newRig(t, 0)
	r.connect(nil)
	r.mustWrite("config/main", object{"username_template": testenv.Unique("fixed")})
	c := r.mustIssue("app")
	if _, err := r.issue("app"); !lease.IsNameClash(err) {
		t.Errorf("the same name again = %v, want a clash", err)
	}
	if err := r.works(c); err != nil {
		t.Errorf("the first login after a clash: %v", err)
	}
	r.revoke(c)
	// A role of that name which somebody made by hand is not touched.
	r.pg.Exec(t, "postgres", "CREATE ROLE "+c.user+" LOGIN PASSWORD 'theirs'")
	if _, err := r.issue("app"); !errors.Is(err, lease.ErrNameTaken) {
		t.Errorf("a name that is not ours = %v, want ErrNameTaken", err)
	}
	r.eventually("the lease that made nothing is gone", func() bool { return r.leaseCount() == 0 })
	if _, err := r.pg.QueryAs(t.Context(), c.user, "theirs", "postgres", "SELECT 1"); err != nil {
		t.Errorf("a login that is not ours was touched: %v", err)
	}
	r.pg.Exec(t, "postgres", "DROP ROLE "+c.user)
}

// The connection is cut at COMMIT: the caller gets an error, and the lease
// stays until nothing can land any more, though its login is dropped at once.
func TestCutAtCommit(t *testing.T) {
	onEach(t, func(r *rig) {
		t := r.t
		proxy := r.throughProxy()
		r.revoke(r.mustIssue("app"))
		for _, role := range []string{"app", "group"} {
			proxy.Break(tcpproxy.On("CREATE ROLE", 1, tcpproxy.AnswerCut))
			before := r.leaseCount()
			if _, err := r.issue(role); !errors.Is(err, lease.ErrUnknown) {
				t.Errorf("role %s: issuing = %v, want ErrUnknown", role, err)
			}
			like := "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-token-" + role + "-%' AND shobj_description(oid, 'pg_authid') LIKE 'leasehold:" + r.instance() + ":%'"
			r.eventually("the login that nobody got is dropped", func() bool { return r.pg.Query(t, "postgres", like) == "0" })
			if got := r.leaseCount(); got != before+1 {
				t.Errorf("role %s: %d leases, want %d: it stays until make_by", role, got, before+1)
			}
		}
	})
}

// Creations that share a transaction do not share their time: one of a role that
// gives up soon fails alone.
func TestHastyRole(t *testing.T) {
	r := newRig(t, 0)
	r.connect(object{"max_open_connections": 2}) // one of them creates
	r.mustWrite("roles/hasty", object{"db_name": "main", "member_of": r.group, "max_creation_time": "2s"})
	other, err := pgx.Connect(t.Context(), r.pg.Super("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.WithoutCancel(t.Context()))
	exec := func(sql string) {
		if _, err := other.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	r.mustIssue("group")
	exec("BEGIN; LOCK TABLE pg_authid IN SHARE MODE")
	waiting := "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = '" + r.manager + "'"
	ends := map[string]chan error{}
	ask := func(name, role string) {
		end := make(chan error, 1)
		ends[name] = end
		go func() {
			_, err := r.issue(role)
			end <- err
		}()
		r.eventually("creations wait", func() bool {
			n := 0
			for _, st := range r.lanes.All() {
				n += st.Creating
			}
			return n == len(ends)
		})
	}
	ask("first", "group")
	r.eventually("the first creation is blocked", func() bool { return r.pg.Query(t, "postgres", "SELECT count(*) "+waiting) == "1" })
	begun := time.Now()
	ask("hasty", "hasty")
	ask("patient", "group")
	r.pg.Query(t, "postgres", "SELECT pg_cancel_backend(pid) "+waiting) // the two others go on together
	if err := <-ends["first"]; err == nil {
		t.Error("a creation that was cancelled succeeds")
	}
	r.eventually("the hasty one's time is over", func() bool { return time.Since(begun) > 2500*time.Millisecond })
	exec("ROLLBACK")
	if err := <-ends["hasty"]; err == nil {
		t.Error("a creation succeeds after its time")
	}
	if err := <-ends["patient"]; err != nil {
		t.Errorf("a creation that had time fails with another's: %v", err)
	}
	r.allEnd()
}

func TestDoctorAnswers(t *testing.T) {
	onEach(t, func(r *rig) {
		t := r.t
		r.connect(nil)
		a := r.write("doctor/main", nil)
		if a.err != nil || a.data["ok"] != true {
			t.Errorf("doctor = %v, %v, want ok", a.data, a.err)
		}
		r.mustWrite("config/main", object{"username_template": "x{{random 6}}", "allowed_roles": "app"})
		a = r.write("doctor/main", nil)
		if text := fmt.Sprint(a.data["checks"]); a.data["ok"] != true || !strings.Contains(text, "35 random bits") || !strings.Contains(text, "add group to allowed_roles") {
			t.Errorf("doctor of unusual settings = %v", text)
		}
		r.pg.Exec(t, r.db, "REVOKE GRANT OPTION FOR SELECT ON items FROM "+r.manager+" CASCADE")
		a = r.write("doctor/main", nil)
		if a.err != nil || a.data["ok"] != false {
			t.Errorf("doctor without a grant option = %v, %v, want not ok", a.data, a.err)
		}
	})
}
