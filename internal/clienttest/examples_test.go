package clienttest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
	"github.com/leasehold/leasehold/internal/testenv"
	"github.com/leasehold/leasehold/internal/testenv/kubeapi"
)

// TestExamples runs the programs under examples/ until each has lived through
// a renewal and moved to a new login, with its queries going on.
func TestExamples(t *testing.T) {
	pg, srv := databaseExample(t, "4s", "9s")
	goProgram := filepath.Join(t.TempDir(), "example")
	if out, err := exec.Command("go", "build", "-o", goProgram, "../../examples/go").CombinedOutput(); err != nil {
		t.Fatalf("building examples/go: %v\n%s", err, out)
	}
	for name, args := range map[string][]string{
		"go":     {goProgram, "-creds", "database/creds/reader", "-db", pg.Addr() + "/postgres"},
		"python": {python(t, "psycopg2"), "../../examples/python/app.py", "database/creds/reader", pg.Addr() + "/postgres"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runExample(t, srv, args)
		})
	}
}

func runExample(t *testing.T, srv *leaseholdtest.Server, args []string) {
	var users []string // in the order in which queries ran as them
	renewed := false
	run(t, []string{"VAULT_ADDR=" + srv.Addr, "VAULT_TOKEN=" + srv.Root}, args, func(line string) bool {
		renewed = renewed || strings.Contains(line, "renewed for")
		if _, user, ok := strings.Cut(line, "query as "); ok && !slices.Contains(users, user) {
			users = append(users, user)
		}
		return len(users) > 1 && renewed
	})
}

// run runs a program until seen has seen enough of its lines, for a minute at
// most.
func run(t *testing.T, env, args []string, seen func(line string) (enough bool)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout // Go's logger writes there
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	enough := false
	for in := bufio.NewScanner(out); !enough && in.Scan(); {
		said = append(said, in.Text())
		enough = seen(in.Text())
	}
	cancel()
	_ = cmd.Wait() // it was killed, or its last words are in said
	if !enough {
		t.Errorf("%s ended or stood still; it said:\n%s", args, strings.Join(said, "\n"))
	}
}

// databaseExample is a server with the role that the examples read.
func databaseExample(t *testing.T, ttl, maxTTL string) (*testenv.PG, *leaseholdtest.Server) {
	t.Helper()
	pg := testenv.SharedPostgres(t, testenv.Config{})
	srv := leaseholdtest.Start(t, leaseholdtest.Config{})
	group := testenv.Unique("example_readers")
	pg.Exec(t, "postgres", "CREATE ROLE "+group)
	write(t, srv, "sys/mounts/database", `{"type":"database"}`)
	write(t, srv, "database/config/pg", `{"plugin_name":"postgresql-database-plugin","allowed_roles":"*","username":"`+testenv.Superuser+`","password":"`+pg.Password+`",
		"connection_url":"postgresql://{{username}}:{{password}}@`+pg.Addr()+`/postgres?sslmode=disable"}`)
	write(t, srv, "database/roles/reader", `{"db_name":"pg","member_of":["`+group+`"],"default_ttl":"`+ttl+`","max_ttl":"`+maxTTL+`"}`)
	return pg, srv
}

// write is an operator's.
func write(t *testing.T, srv *leaseholdtest.Server, path, body string) {
	t.Helper()
	if err := srv.Call(t.Context(), "POST", path, srv.Root, rawJSON(body), nil); err != nil {
		t.Fatal(err)
	}
}

// TestVaultAPIExample runs the program that logs in by vault/api's own helpers
// with each of them, until its token was renewed and it has logged in anew.
func TestVaultAPIExample(t *testing.T) {
	program := filepath.Join(t.TempDir(), "vault-api")
	if out, err := exec.Command("go", "build", "-o", program, "../../examples/vault-api").CombinedOutput(); err != nil {
		t.Fatalf("building examples/vault-api: %v\n%s", err, out)
	}
	srv := leaseholdtest.Start(t, leaseholdtest.Config{})
	write(t, srv, "sys/mounts/secret", `{"type":"kv","options":{"version":"2"}}`)
	write(t, srv, "secret/data/app", `{"data":{"color":"green"}}`)
	write(t, srv, "sys/policies/acl/app", `{"policy":"path \"secret/data/app\" { capabilities = [\"read\"] }"}`)
	const token = `"token_policies":"app","token_ttl":"3s","token_max_ttl":"9s"`

	write(t, srv, "sys/auth/approle", `{"type":"approle"}`)
	write(t, srv, "auth/approle/role/app", `{`+token+`}`)
	roleID, secretID := approleLogin(t, srv, "app")

	write(t, srv, "sys/auth/userpass", `{"type":"userpass"}`)
	write(t, srv, "auth/userpass/users/app", `{"password":"a long one",`+token+`}`)

	cluster := kubeapi.Start(t, nil)
	cluster.Account("vault", "reviewer")
	cluster.Delegate("vault", "reviewer")
	cluster.Account("prod", "app")
	write(t, srv, "sys/auth/kubernetes", `{"type":"kubernetes"}`)
	config, err := json.Marshal(map[string]string{
		"kubernetes_host": cluster.URL, "kubernetes_ca_cert": cluster.CA, "token_reviewer_jwt": cluster.Token("vault", "reviewer"),
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, srv, "auth/kubernetes/config", string(config))
	write(t, srv, "auth/kubernetes/role/app", `{"bound_service_account_names":"app","bound_service_account_namespaces":"prod",`+token+`}`)

	for method, c := range map[string]struct{ name, secret string }{
		"approle": {roleID, secretID}, "userpass": {"app", "a long one"}, "kubernetes": {"app", cluster.Token("prod", "app")},
	} {
		file := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(file, []byte(c.secret), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			var logins, renewals, reads int
			run(t, []string{"VAULT_ADDR=" + srv.Addr}, []string{program, "-method", method, "-name", c.name, "-secret-file", file}, func(line string) bool {
				switch {
				case strings.Contains(line, "logged in with the policies [app default] for 3s"):
					logins++
				case strings.Contains(line, "renewed for "):
					renewals++
				case strings.Contains(line, "read version 1 of app"):
					reads++
				}
				return logins > 1 && renewals > 0 && reads > 1
			})
		})
	}
}

// approleLogin gives what an application logs in with.
func approleLogin(t *testing.T, srv *leaseholdtest.Server, role string) (roleID, secretID string) {
	t.Helper()
	var id struct {
		Data struct {
			RoleID string `json:"role_id"`
		}
	}
	var secret struct {
		Data struct {
			SecretID string `json:"secret_id"`
		}
	}
	err := srv.Call(t.Context(), "GET", "auth/approle/role/"+role+"/role-id", srv.Root, nil, &id)
	if err == nil {
		err = srv.Call(t.Context(), "POST", "auth/approle/role/"+role+"/secret-id", srv.Root, nil, &secret)
	}
	if err != nil {
		t.Fatal(err)
	}
	return id.Data.RoleID, secret.Data.SecretID
}

// TestHVACExample runs the job in Python twice: it logs in with approle, counts
// in KV, queries as a login of its own, and leaves nothing behind.
func TestHVACExample(t *testing.T) {
	pg, srv := databaseExample(t, "1m", "1h")
	write(t, srv, "sys/mounts/secret", `{"type":"kv","options":{"version":"2"}}`)
	write(t, srv, "sys/policies/acl/job", `{"policy":"path \"secret/data/job\" { capabilities = [\"create\", \"read\", \"update\"] } path \"database/creds/reader\" { capabilities = [\"read\"] } path \"sys/leases/revoke\" { capabilities = [\"update\"] }"}`)
	write(t, srv, "sys/auth/approle", `{"type":"approle"}`)
	write(t, srv, "auth/approle/role/job", `{"token_policies":"job","token_ttl":"10m"}`)
	roleID, secretID := approleLogin(t, srv, "job")
	file := filepath.Join(t.TempDir(), "secret-id")
	if err := os.WriteFile(file, []byte(secretID+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, counted := range []string{"run 1", "run 2"} {
		var lines []string
		run(t, []string{"VAULT_ADDR=" + srv.Addr}, []string{python(t, "hvac, psycopg2"), "../../examples/hvac/app.py", roleID, file, pg.Addr() + "/postgres"}, func(line string) bool {
			lines = append(lines, line)
			return line == "gave the login back"
		})
		if all := strings.Join(lines, "\n"); !strings.Contains(all, "logged in as approle with default, job\n"+counted+"\nquery as v-") {
			t.Errorf("the job said:\n%s\nwant it to be %s", all, counted)
		}
	}
	// The logins ended with their revocation; what is left of them is cleaned
	// up soon after.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(30 * time.Second); ; <-tick.C {
		var leases struct {
			Data struct {
				Count int `json:"lease_count"`
			}
		}
		if err := srv.Call(t.Context(), "GET", "sys/leases/count", srv.Root, nil, &leases); err != nil {
			t.Fatal(err)
		}
		if leases.Data.Count == 0 {
			return
		}
		if time.Now().After(late) {
			t.Fatalf("%d leases are left", leases.Data.Count)
		}
	}
}

// python finds an interpreter that has modules: Debian's packages belong to
// Debian's own.
func python(t *testing.T, modules string) string {
	t.Helper()
	for _, p := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(p, "-c", "import "+modules).Run() == nil {
			return p
		}
	}
	t.Fatalf("no python3 with %s; run: scripts/need.sh python hvac", modules)
	return ""
}

// rawJSON is a body that is JSON already.
type rawJSON string

// MarshalJSON gives the text as it is.
func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }
