package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engines/database/postgres"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// lab is one server with a managing user that is no superuser, a group, and a
// database with a table that the group may read.
type lab struct {
	*testenv.PG
	db, manager, group string
}

// onEach runs a test on the distribution's PostgreSQL and on a newer one, where
// CREATEROLE means less.
func onEach(t *testing.T, f func(t *testing.T, l lab)) {
	for _, version := range []int{0, 16} {
		name := "distribution"
		if version > 0 {
			name = fmt.Sprint("version ", version)
		}
		t.Run(name, func(t *testing.T) {
			p := testenv.SharedPostgres(t, testenv.Config{Version: version})
			l := lab{PG: p, db: p.NewDatabase(t), manager: testenv.Unique("manager"), group: testenv.Unique("readers")}
			p.Exec(t, l.db, fmt.Sprintf(`
				CREATE ROLE %[1]s LOGIN CREATEROLE PASSWORD 'manager-pw';
				CREATE ROLE %[2]s NOLOGIN;
				GRANT %[2]s TO %[1]s WITH ADMIN OPTION;
				CREATE TABLE items (id int);
				GRANT SELECT ON items TO %[2]s;
				GRANT CREATE, USAGE ON SCHEMA public TO %[2]s`, l.manager, l.group))
			f(t, l)
		})
	}
}

func (l lab) config() postgres.Config {
	return postgres.Config{
		URL:      "postgresql://{{username}}:{{password}}@" + l.Addr() + "/" + l.db + "?sslmode=disable",
		Username: l.manager, Password: secret.New("manager-pw"), MaxOpen: 4,
	}
}

func (l lab) open(t *testing.T, change ...func(*postgres.Config)) *postgres.Target {
	t.Helper()
	cfg := l.config()
	for _, f := range change {
		f(&cfg)
	}
	target, err := postgres.Open(cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(target.Close)
	return target
}

const pw = "login-Pw-1"

func (l lab) creation(t *testing.T) postgres.Creation {
	t.Helper()
	v, err := postgres.Verifier(secret.New(pw), postgres.DefaultIterations)
	if err != nil {
		t.Fatal(err)
	}
	role := testenv.Unique("v-login")
	return postgres.Creation{
		Role: role, Mark: "leasehold:test:1:" + role, MakeBy: time.Now().Add(20 * time.Second),
		MemberOf: []string{l.group}, Password: v,
	}
}

func (l lab) exists(t *testing.T, role string) bool {
	t.Helper()
	return l.Query(t, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname = '"+role+"'") == "1"
}

// login tries a query with a credential.
func (l lab) login(t *testing.T, role string) error {
	t.Helper()
	_, err := l.QueryAs(t.Context(), role, pw, l.db, "SELECT count(*) FROM items")
	return err
}

func makeOne(t *testing.T, target *postgres.Target, list ...postgres.Creation) {
	t.Helper()
	for i, err := range target.Create(t.Context(), "", list) {
		if err != nil {
			t.Fatalf("Create(%q) = %v", list[i].Role, err)
		}
	}
}

// end takes logins away and gives the error of each, and whether the first
// stage was reported before it.
func end(t *testing.T, target *postgres.Target, list ...*postgres.Ending) []error {
	t.Helper()
	out := make([]error, len(list))
	calls := make([]int, len(list))
	disabled := make([]int, len(list))
	for i, e := range list {
		e.Disabled = func() { disabled[i]++ }
		e.Done = func(err error) { out[i] = err; calls[i]++ }
	}
	target.End(t.Context(), "", list)
	for i, e := range list {
		if calls[i] != 1 {
			t.Errorf("Done of %q was called %d times, want once", e.Role, calls[i])
		}
		if out[i] == nil && disabled[i] > 1 {
			t.Errorf("Disabled of %q was called %d times", e.Role, disabled[i])
		}
	}
	return out
}

func ending(c postgres.Creation) *postgres.Ending {
	e := &postgres.Ending{Role: c.Role, Mark: c.Mark, Terminate: true}
	if len(c.MemberOf) > 0 {
		e.Heir = c.MemberOf[0]
	}
	return e
}
