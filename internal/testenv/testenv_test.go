package testenv_test

import (
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestPostgres(t *testing.T) {
	for _, version := range []string{"", "16"} {
		t.Run("version "+version, func(t *testing.T) {
			cfg := testenv.Config{}
			if version != "" {
				cfg.Version = 16
			}
			p := testenv.SharedPostgres(t, cfg)
			if again := testenv.SharedPostgres(t, cfg); again != p {
				t.Errorf("SharedPostgres gave another server the second time")
			}
			if got := p.Query(t, "postgres", "SHOW server_version"); !strings.HasPrefix(got, version) {
				t.Errorf("server_version = %q, want %s...", got, version)
			}
			db := p.NewDatabase(t)
			p.Exec(t, db, "CREATE TABLE items (id int, v text); INSERT INTO items VALUES (1, 'a'), (2, 'b')")
			if got, want := p.Query(t, db, "SELECT * FROM items ORDER BY id"), "1|a\n2|b"; got != want {
				t.Errorf("Query = %q, want %q", got, want)
			}
			if _, err := p.QueryAs(t.Context(), testenv.Superuser, "wrong", db, "SELECT 1"); err == nil {
				t.Errorf("QueryAs with a wrong password worked")
			}
		})
	}
}

func TestPostgresComesBackAfterKill(t *testing.T) {
	p := testenv.Postgres(t, testenv.Config{Durable: true})
	p.Exec(t, "postgres", "CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)")
	if err := p.Kill(); err != nil {
		t.Fatalf("Kill: %v", err)
	}
	if _, err := p.QueryAs(t.Context(), testenv.Superuser, p.Password, "postgres", "SELECT 1"); err == nil {
		t.Errorf("a killed server answered")
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatalf("Start: %v", err)
	}
	if got := p.Query(t, "postgres", "SELECT id FROM kept"); got != "7" {
		t.Errorf("after Kill and Start the row is %q, want 7", got)
	}
}
