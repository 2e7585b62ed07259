package postgres_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leasehold/leasehold/internal/engines/database/postgres"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/secret"
)

func TestLifeOfALogin(t *testing.T) {
	onEach(t, func(t *testing.T, l lab) {
		target := l.open(t)
		info, err := target.Ping(t.Context())
		if err != nil || info.Weak() || info.User != l.manager || info.Superuser || !info.CreateRole {
			t.Fatalf("Ping = %+v, %v", info, err)
		}
		c := l.creation(t)
		c.ValidUntil = time.Now().Add(time.Hour)
		makeOne(t, target, c)
		if err := l.login(t, c.Role); err != nil {
			t.Errorf("logging in: %v", err)
		}
		if got := l.Query(t, "postgres", "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '"+c.Role+"'"); got != c.Mark {
			t.Errorf("the mark is %q, want %q", got, c.Mark)
		}
		if err := target.Renew(t.Context(), info.Identity, c.Role, c.Mark, time.Now().Add(3*time.Hour), nil); err != nil {
			t.Errorf("Renew: %v", err)
		}
		if got := l.Query(t, "postgres", "SELECT rolvaliduntil > now() + interval '170 min' FROM pg_roles WHERE rolname = '"+c.Role+"'"); got != "t" {
			t.Errorf("Renew did not move VALID UNTIL")
		}
		if err := target.Renew(t.Context(), "", c.Role, "another mark", time.Now(), nil); err == nil {
			t.Errorf("Renew with another mark was done")
		}

		// An open session that owns a table here and one in another database.
		other := l.NewDatabase(t)
		l.Exec(t, other, "GRANT CREATE, USAGE ON SCHEMA public TO "+l.group)
		if _, err := l.QueryAs(t.Context(), c.Role, pw, other, "CREATE TABLE far (id int)"); err != nil {
			t.Fatal(err)
		}
		session, err := pgx.Connect(t.Context(), l.DSN(c.Role, pw, l.db))
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close(context.Background())
		if _, err := session.Exec(t.Context(), "CREATE TABLE near (id int)"); err != nil {
			t.Fatal(err)
		}

		if err := end(t, target, ending(c))[0]; err != nil {
			t.Fatalf("End: %v", err)
		}
		if err := session.Ping(t.Context()); err == nil {
			t.Errorf("the open session still works")
		}
		if err := l.login(t, c.Role); err == nil {
			t.Errorf("the login still works")
		}
		if l.exists(t, c.Role) {
			t.Errorf("the role is still there")
		}
		for db, table := range map[string]string{l.db: "near", other: "far"} {
			if got := l.Query(t, db, "SELECT tableowner FROM pg_tables WHERE tablename = '"+table+"'"); got != l.group {
				t.Errorf("the owner of %s is %q, want the group %q", table, got, l.group)
			}
		}
		if err := end(t, target, ending(c))[0]; !errors.Is(err, lease.ErrAbsent) {
			t.Errorf("End of what is gone = %v, want ErrAbsent", err)
		}
	})
}

func TestBatches(t *testing.T) {
	onEach(t, func(t *testing.T, l lab) {
		target := l.open(t)
		var list []postgres.Creation
		for range 5 {
			list = append(list, l.creation(t))
		}
		l.Exec(t, "postgres", `CREATE ROLE "`+list[2].Role+`"`) // not ours
		for i, err := range target.Create(t.Context(), "", list) {
			if i == 2 {
				if !errors.Is(err, lease.ErrNameTaken) {
					t.Errorf("Create of a name that exists = %v, want ErrNameTaken", err)
				}
				continue
			}
			if err != nil {
				t.Errorf("Create beside one that fails = %v", err)
			}
			if err := l.login(t, list[i].Role); err != nil {
				t.Errorf("logging in: %v", err)
			}
		}
		var all []*postgres.Ending
		for _, c := range list {
			all = append(all, ending(c))
		}
		gone := l.creation(t)
		all = append(all, ending(gone))
		bad := l.creation(t)
		bad.SQL = []string{`CREATE ROLE ` + `"` + bad.Role + `" LOGIN PASSWORD '` + pw + `'`}
		makeOne(t, target, bad)
		all = append(all, ending(bad))
		all[6].SQL = []string{"DROP ROLE no_such_role_at_all"}
		for i, err := range end(t, target, all...) {
			switch i {
			case 2:
				if !errors.Is(err, lease.ErrNameTaken) {
					t.Errorf("End of one that is not ours = %v, want ErrNameTaken", err)
				}
			case 5:
				if !errors.Is(err, lease.ErrAbsent) {
					t.Errorf("End of one that is not there = %v, want ErrAbsent", err)
				}
			case 6:
				var se *postgres.StatementError
				if !errors.As(err, &se) || se.Index != 1 {
					t.Errorf("End with a bad revocation statement = %v, want a StatementError", err)
				}
				if l.login(t, bad.Role) == nil {
					t.Errorf("a login whose revocation statements fail still works")
				}
			default:
				if err != nil {
					t.Errorf("End %d = %v", i, err)
				}
			}
			if i < 5 && l.exists(t, list[i].Role) != (i == 2) {
				t.Errorf("role %d exists = %v, want %v: only what is ours may go", i, i != 2, i == 2)
			}
		}
		all[6].SQL = nil
		if err := end(t, target, all[6])[0]; err != nil {
			t.Errorf("End without the bad statement = %v", err)
		}
		l.Exec(t, "postgres", `DROP ROLE "`+list[2].Role+`"`)
	})
}

// What an operator's statements do is done whole, or not at all, and never to
// a role that was there before.
func TestOperatorsStatements(t *testing.T) {
	onEach(t, func(t *testing.T, l lab) {
		target := l.open(t)
		c := l.creation(t)
		c.MemberOf = nil
		create := `CREATE ROLE "` + c.Role + `" LOGIN PASSWORD '` + pw + `'`
		c.SQL = []string{create, "GRANT no_such_role TO \"" + c.Role + "\" -- with a comment"}
		err := target.Create(t.Context(), "", []postgres.Creation{c})[0]
		var se *postgres.StatementError
		if !errors.As(err, &se) || se.Index != 2 || errors.Is(err, lease.ErrUnknown) {
			t.Errorf("Create with a failing statement = %v, want a StatementError of statement 2", err)
		}
		if l.exists(t, c.Role) {
			t.Errorf("a failed creation left its role")
		}
		c.SQL = []string{"GRANT " + l.group + " TO " + l.manager}
		if err := target.Create(t.Context(), "", []postgres.Creation{c})[0]; err == nil {
			t.Errorf("statements that make no role were taken")
		}
		// Statements that would take over a role that exists.
		l.Exec(t, "postgres", `CREATE ROLE "`+c.Role+`"`)
		c.SQL = []string{`ALTER ROLE "` + c.Role + `" LOGIN PASSWORD 'x'`}
		if err := target.Create(t.Context(), "", []postgres.Creation{c})[0]; !errors.Is(err, lease.ErrNameTaken) {
			t.Errorf("Create over a role that exists = %v, want ErrNameTaken", err)
		}
		if got := l.Query(t, "postgres", `SELECT rolcanlogin FROM pg_roles WHERE rolname = '`+c.Role+`'`); got != "f" {
			t.Errorf("a role that is not ours was changed")
		}
		l.Exec(t, "postgres", `DROP ROLE "`+c.Role+`"`)
		// Settings of one role's statements do not reach the next.
		c.Dirty = true
		c.SQL = []string{create, "SET search_path = nowhere", "SET statement_timeout = 50"}
		makeOne(t, target, c)
		for range 6 {
			d := l.creation(t)
			d.SQL = []string{`CREATE ROLE "` + d.Role + `" LOGIN PASSWORD '` + pw + `'`, "DO $$ BEGIN PERFORM 1 FROM pg_sleep(0.08); IF current_setting('search_path') = 'nowhere' THEN RAISE 'leaked'; END IF; END $$"}
			d.MemberOf = nil
			makeOne(t, target, d)
			if err := end(t, target, ending(d))[0]; err != nil {
				t.Errorf("End: %v", err)
			}
		}
		// Revocation statements of the operator's own, which drop it.
		e := ending(c)
		e.SQL = []string{`DROP ROLE "` + c.Role + `"`}
		if err := end(t, target, e)[0]; err != nil || l.exists(t, c.Role) {
			t.Errorf("End by own statements = %v, role exists = %v", err, l.exists(t, c.Role))
		}
		// In a batch, too, what one role's set does not reach another's.
		one, other := l.creation(t), l.creation(t)
		makeOne(t, target, one, other)
		sets, asks := ending(one), ending(other)
		sets.SQL = []string{"SET search_path = nowhere", "SET standard_conforming_strings = off"}
		asks.SQL = []string{"DO $$ BEGIN IF current_setting('search_path') = 'nowhere' OR current_setting('standard_conforming_strings') = 'off' THEN RAISE 'leaked'; END IF; END $$"}
		for i, err := range end(t, target, sets, asks) {
			if err != nil {
				t.Errorf("ending login %d of a batch with own statements = %v", i, err)
			}
		}
	})
}

// The stock recipe rewrites every table's access list: sixteen at a time it
// must still work, and be revocable.
func TestStockRecipeAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, l lab) {
		l.Exec(t, l.db, "CREATE TABLE more (id int); CREATE TABLE most (id int); GRANT ALL ON ALL TABLES IN SCHEMA public TO "+l.manager+" WITH GRANT OPTION")
		// Two targets, as two servers of ours would have them.
		targets := []*postgres.Target{l.open(t), l.open(t)}
		var wg sync.WaitGroup
		for i := range 16 {
			c := l.creation(t)
			c.MemberOf, c.Alone = nil, true
			c.SQL = []string{`CREATE ROLE "` + c.Role + `" LOGIN PASSWORD '` + pw + `'`, `GRANT SELECT ON ALL TABLES IN SCHEMA public TO "` + c.Role + `"`}
			target := targets[i%2]
			wg.Go(func() {
				if err := target.Create(t.Context(), "", []postgres.Creation{c})[0]; err != nil {
					t.Errorf("Create: %v", err)
					return
				}
				if err := l.login(t, c.Role); err != nil {
					t.Errorf("logging in: %v", err)
				}
				if err := end(t, target, ending(c))[0]; err != nil || l.exists(t, c.Role) {
					t.Errorf("End: %v", err)
				}
			})
		}
		wg.Wait()
	})
}

func TestRotation(t *testing.T) {
	onEach(t, func(t *testing.T, l lab) {
		target := l.open(t)
		info, err := target.Ping(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		next := secret.New("next-Pw-2")
		v, err := postgres.Verifier(next, postgres.DefaultIterations)
		if err != nil {
			t.Fatal(err)
		}
		if err := target.ChangePassword(t.Context(), info.Identity, l.manager, v, nil); err != nil {
			t.Fatalf("ChangePassword: %v", err)
		}
		// A server that starts now knows both and not which is true.
		for _, order := range [][2]string{{"manager-pw", "next-Pw-2"}, {"next-Pw-2", "manager-pw"}} {
			again := l.open(t, func(c *postgres.Config) {
				c.Password, c.Candidate = secret.New(order[0]), secret.New(order[1])
			})
			if _, err := again.Ping(t.Context()); err != nil {
				t.Errorf("Ping with %v: %v", order, err)
			}
			if !again.Working().Equal(next) {
				t.Errorf("Working is not the new password, with %v", order)
			}
		}
		neither := l.open(t, func(c *postgres.Config) { c.Candidate = secret.New("neither") })
		if _, err := neither.Ping(t.Context()); !lane.IsConnFault(err) {
			t.Errorf("Ping with two wrong passwords = %v, want a connection fault", err)
		}
	})
}

func TestDoctor(t *testing.T) {
	onEach(t, func(t *testing.T, l lab) {
		target := l.open(t)
		new := func() postgres.Patient {
			p := postgres.Patient{Groups: []string{l.group}, Probe: postgres.ProbeRole()}
			p.Roles = []postgres.TrialRole{{Name: "app", SQL: []string{`CREATE ROLE "` + p.Probe + `" LOGIN PASSWORD 'x'`, `GRANT SELECT ON items TO "` + p.Probe + `"`}}}
			return p
		}
		hints := func(found []postgres.Finding) (out []string) {
			for _, f := range found {
				if f.Error != "" {
					out = append(out, f.Check+": "+f.Hint)
				}
			}
			return out
		}
		_, found := target.Doctor(t.Context(), new())
		want := `creation_statements of role app (rolled back): GRANT ALL ON "items" TO "` + l.manager + `" WITH GRANT OPTION;`
		if got := hints(found); len(got) != 1 || got[0] != want {
			t.Errorf("Doctor found %q, want %q", got, want)
		}
		l.Exec(t, l.db, "GRANT SELECT ON items TO "+l.manager+" WITH GRANT OPTION; REVOKE ADMIN OPTION FOR "+l.group+" FROM "+l.manager)
		_, found = target.Doctor(t.Context(), new())
		got := hints(found)
		newer := l.Query(t, "postgres", "SELECT current_setting('server_version_num')::int >= 160000") == "t"
		switch {
		case newer && (len(got) != 1 || !strings.HasSuffix(got[0], `GRANT "`+l.group+`" TO "`+l.manager+`" WITH ADMIN OPTION;`)):
			t.Errorf("Doctor without ADMIN OPTION found %q, want the GRANT that is missing", got)
		case !newer && len(got) != 0:
			t.Errorf("Doctor on a server before 16 without ADMIN OPTION found %q, want nothing", got)
		}
		l.Exec(t, l.db, "ALTER ROLE "+l.manager+" NOCREATEROLE")
		_, found = target.Doctor(t.Context(), new())
		if got := hints(found); len(got) == 0 || !strings.Contains(got[0], "ALTER ROLE \""+l.manager+"\" CREATEROLE;") {
			t.Errorf("Doctor without CREATEROLE found %q", got)
		}
		if n := l.Query(t, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'leasehold-doctor-%'"); n != "0" {
			t.Errorf("Doctor left %s roles behind", n)
		}
	})
}
