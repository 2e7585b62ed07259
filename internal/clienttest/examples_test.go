package clienttest_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
	"github.com/leasehold/leasehold/internal/testenv"
)

// TestExamples runs the programs under examples/ until each has lived through
// a renewal and moved to a new login, with its queries going on.
func TestExamples(t *testing.T) {
	pg := testenv.SharedPostgres(t, testenv.Config{})
	srv := leaseholdtest.Start(t, leaseholdtest.Config{})
	group := testenv.Unique("example_readers")
	pg.Exec(t, "postgres", "CREATE ROLE "+group)
	for _, step := range []struct{ path, body string }{
		{"sys/mounts/database", `{"type":"database"}`},
		{"database/config/pg", `{"plugin_name":"postgresql-database-plugin","allowed_roles":"*","username":"` + testenv.Superuser + `","password":"` + pg.Password + `",
			"connection_url":"postgresql://{{username}}:{{password}}@` + pg.Addr() + `/postgres?sslmode=disable"}`},
		{"database/roles/reader", `{"db_name":"pg","member_of":["` + group + `"],"default_ttl":"4s","max_ttl":"9s"}`},
	} {
		if err := srv.Call(t.Context(), "POST", step.path, srv.Root, rawJSON(step.body), nil); err != nil {
			t.Fatal(err)
		}
	}
	goProgram := filepath.Join(t.TempDir(), "example")
	if out, err := exec.Command("go", "build", "-o", goProgram, "../../examples/go").CombinedOutput(); err != nil {
		t.Fatalf("building examples/go: %v\n%s", err, out)
	}
	for name, args := range map[string][]string{
		"go":     {goProgram, "-creds", "database/creds/reader", "-db", pg.Addr() + "/postgres"},
		"python": {python(t), "../../examples/python/app.py", "database/creds/reader", pg.Addr() + "/postgres"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runExample(t, srv, args)
		})
	}
}

func runExample(t *testing.T, srv *leaseholdtest.Server, args []string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "VAULT_ADDR="+srv.Addr, "VAULT_TOKEN="+srv.Root)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout // Go's logger writes there
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	var users []string // in the order in which queries ran as them
	renewed := false
	for in := bufio.NewScanner(out); in.Scan() && (len(users) < 2 || !renewed); {
		line := in.Text()
		said = append(said, line)
		renewed = renewed || strings.Contains(line, "renewed for")
		if _, user, ok := strings.Cut(line, "query as "); ok && !slices.Contains(users, user) {
			users = append(users, user)
		}
	}
	cancel()
	_ = cmd.Wait() // it was killed, or its last words are in said
	if len(users) < 2 || !renewed {
		t.Errorf("the example ended or stood still after queries as %v, renewed: %v; it said:\n%s", users, renewed, strings.Join(said, "\n"))
	}
}

// python finds an interpreter with psycopg2: Debian's package belongs to
// Debian's own.
func python(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(p, "-c", "import psycopg2").Run() == nil {
			return p
		}
	}
	t.Fatal("no python3 with psycopg2; run: scripts/need.sh python")
	return ""
}

// rawJSON is a body that is JSON already.
type rawJSON string

// MarshalJSON gives the text as it is.
func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }
