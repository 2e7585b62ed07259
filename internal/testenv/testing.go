package testenv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Postgres starts a server of the test's own, stopped when the test ends. Its
// log is shown when the test has failed.
func Postgres(t testing.TB, cfg Config) *PG {
	t.Helper()
	p, err := StartPostgres(t.Context(), cfg)
	if err != nil {
		t.Fatalf("starting PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of PostgreSQL's log:\n%s", p.Log())
		}
		if err := p.Stop(); err != nil {
			t.Errorf("stopping PostgreSQL: %v", err)
		}
	})
	return p
}

var shared struct {
	mu      sync.Mutex
	servers map[string]*PG
}

// SharedPostgres is the one server of this kind in the test binary, started at
// its first use. TestMain must be testenv.Main, which stops it. Tests keep out
// of each other's way with a database of their own (NewDatabase) and role
// names of their own (Unique): roles belong to the whole server.
func SharedPostgres(t testing.TB, cfg Config) *PG {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	key := fmt.Sprint(cfg.Version, cfg.Durable, cfg.Settings)
	if p := shared.servers[key]; p != nil {
		return p
	}
	p, err := StartPostgres(context.WithoutCancel(t.Context()), cfg)
	if err != nil {
		t.Fatalf("starting PostgreSQL: %v", err)
	}
	if shared.servers == nil {
		shared.servers = map[string]*PG{}
	}
	shared.servers[key] = p
	return p
}

func stopShared() {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	for _, p := range slices.Collect(maps.Values(shared.servers)) {
		if err := p.Stop(); err != nil {
			fmt.Println("stopping PostgreSQL:", err)
		}
	}
	clear(shared.servers)
}

var counter atomic.Int64

// Unique is prefix with a number that no other call in this process gives.
func Unique(prefix string) string { return fmt.Sprintf("%s_%d", prefix, counter.Add(1)) }

// NewDatabase makes a database for the test, dropped when it ends.
func (p *PG) NewDatabase(t testing.TB) string {
	t.Helper()
	name := Unique("db")
	p.Exec(t, "postgres", "CREATE DATABASE "+name)
	t.Cleanup(func() {
		// The test's own connections may still be closing.
		if _, err := p.try("postgres", "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
	})
	return name
}

// Exec runs statements as the superuser, in a database, and fails the test on
// an error.
func (p *PG) Exec(t testing.TB, db, sql string) {
	t.Helper()
	if _, err := p.try(db, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Query runs statements as the superuser and gives the last one's rows: values
// joined by "|", rows by newlines.
func (p *PG) Query(t testing.TB, db, sql string) string {
	t.Helper()
	out, err := p.try(db, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

// QueryAs is Query as any user, with the error.
func (p *PG) QueryAs(ctx context.Context, user, password, db, sql string) (string, error) {
	return query(ctx, p.DSN(user, password, db), sql)
}

func (p *PG) try(db, sql string) (string, error) {
	return query(context.Background(), p.Super(db), sql)
}

func query(ctx context.Context, dsn, sql string) (out string, err error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 {
		return "", err
	}
	var rows []string
	for _, r := range results[len(results)-1].Rows {
		var vals []string
		for _, v := range r {
			vals = append(vals, string(v))
		}
		rows = append(rows, strings.Join(vals, "|"))
	}
	return strings.Join(rows, "\n"), nil
}
