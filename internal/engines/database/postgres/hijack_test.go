package postgres_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engines/database/postgres"
)

// Whoever may create in a schema on the managing user's search_path can define
// operators there, for types that PostgreSQL's own take only by a conversion,
// and who owns the database can have that schema searched first. What we ask
// never runs them: they would run with the managing user's rights.
func TestNobodysOperators(t *testing.T) {
	onEach(t, func(t *testing.T, l lab) {
		var sql strings.Builder
		types := []string{"numeric", "int4", "int8", "float8", "text", "name", "oid", "regclass", "timestamptz", "bool"}
		for _, left := range types {
			for _, right := range types {
				for op, gives := range map[string]string{"=": "bool", "<": "bool", "<=": "bool", "~": "bool", "||": "text", "*": "numeric", "+": "numeric"} {
					fmt.Fprintf(&sql, `CREATE OR REPLACE FUNCTION public.hijack_%[3]s(%[1]s, %[2]s) RETURNS %[3]s LANGUAGE plpgsql
						AS $$ BEGIN RAISE 'hijacked by %[1]s %[4]s %[2]s as %%', current_user; END $$;
						CREATE OPERATOR public.%[4]s (LEFTARG = %[1]s, RIGHTARG = %[2]s, FUNCTION = public.hijack_%[3]s);
						`, left, right, gives, op)
				}
			}
		}
		sql.WriteString("CREATE FUNCTION public.hijacked_type() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked by a type as %', current_user; END $$;\n")
		for _, typ := range types {
			fmt.Fprintf(&sql, "CREATE DOMAIN public.%[1]s AS pg_catalog.%[1]s CHECK (public.hijacked_type());\n", typ)
		}
		l.Exec(t, l.db, sql.String())
		for i, weak := range []bool{false, false, true} {
			if i == 1 {
				l.Exec(t, l.db, "ALTER DATABASE "+l.db+" SET search_path = public, pg_catalog")
			}
			grant := "GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO PUBLIC"
			if weak {
				grant = "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_control_system() FROM PUBLIC"
			}
			l.Exec(t, l.db, grant)
			target := l.open(t)
			info, err := target.Ping(t.Context())
			if err != nil || info.Weak() != weak {
				t.Fatalf("Ping = %+v, %v, want weak = %v", info, err, weak)
			}
			c := l.creation(t)
			makeOne(t, target, c)
			own := l.creation(t)
			own.MemberOf, own.SQL = nil, []string{`CREATE ROLE "` + own.Role + `" LOGIN PASSWORD '` + pw + `'`}
			makeOne(t, target, own)
			if _, err := l.QueryAs(t.Context(), c.Role, pw, l.db, fmt.Sprintf("CREATE TABLE mine_%d (id int)", i)); err != nil {
				t.Fatal(err)
			}
			if err := target.Renew(t.Context(), "", c.Role, c.Mark, time.Now().Add(time.Hour), nil); err != nil {
				t.Errorf("Renew: %v", err)
			}
			// The conditions that do not hold, too.
			err = target.Renew(t.Context(), "", c.Role, "another mark", time.Now().Add(time.Hour), nil)
			if err == nil || strings.Contains(err.Error(), "hijacked") {
				t.Errorf("Renew of a role with another mark = %v", err)
			}
			if err := target.Create(t.Context(), "", []postgres.Creation{own})[0]; err == nil || strings.Contains(err.Error(), "hijacked") {
				t.Errorf("Create of a role that is there = %v", err)
			}
			if _, err := target.NewestEpoch(t.Context(), "", "test"); err != nil {
				t.Errorf("NewestEpoch: %v", err)
			}
			for i, err := range end(t, target, ending(c), ending(own)) {
				if err != nil {
					t.Errorf("ending login %d: %v", i, err)
				}
			}
			_, found := target.Doctor(t.Context(), postgres.Patient{Probe: postgres.ProbeRole(), Groups: []string{l.group}})
			for _, f := range found {
				if strings.Contains(f.Error, "hijacked") {
					t.Errorf("the doctor's %q: %s", f.Check, f.Error)
				}
			}
		}
	})
}
