package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leasehold/leasehold/internal/testenv"
)

// dbConns is how many connections the engine and the bare control may open.
const dbConns = 8

// lowIterations is the scram_iterations of the second connection.
const lowIterations = 256

// createRole is the operator's statement of role "app", and what the control
// sends. (GRANT on tables at each creation would make concurrent creations
// collide in PostgreSQL itself.)
const createRole = `CREATE ROLE "%s" WITH LOGIN PASSWORD '%s' IN ROLE bench_app VALID UNTIL '%s'`

// database is the PostgreSQL of a run.
type database struct {
	*testenv.PG
	pool *pgxpool.Pool
	seq  atomic.Int64
}

func startDatabase(ctx context.Context) (*database, error) {
	pg, err := testenv.StartPostgres(ctx, testenv.Config{Durable: true})
	if err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig(pg.Super("postgres"))
	if err != nil {
		return nil, errors.Join(err, pg.Stop())
	}
	cfg.MaxConns, cfg.MinConns = dbConns, dbConns
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	db := &database{PG: pg}
	if db.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, errors.Join(err, pg.Stop())
	}
	const prepare = `CREATE ROLE bench_app; CREATE TABLE bench_items (id int primary key, v text); GRANT SELECT ON bench_items TO bench_app`
	if _, err := db.pool.Exec(ctx, prepare); err != nil {
		return nil, errors.Join(err, db.stop())
	}
	return db, nil
}

func (db *database) stop() error {
	db.pool.Close()
	return db.PG.Stop()
}

// config is the body of database/config/NAME.
func (db *database) config(iterations int) obj {
	u := url.URL{Scheme: "postgresql", Host: db.Addr(), Path: "/postgres", RawQuery: "sslmode=disable"}
	return obj{
		"plugin_name":    "postgresql-database-plugin",
		"allowed_roles":  "*",
		"connection_url": "postgresql://{{username}}:{{password}}@" + u.Host + u.RequestURI(),
		"username":       testenv.Superuser, "password": db.Password,
		"max_open_connections": dbConns, "max_idle_connections": dbConns,
		"scram_iterations": iterations,
	}
}

// bareRole makes one role as the engine would, with no server in between.
func (db *database) bareRole(ctx context.Context, _ int) error {
	name := fmt.Sprintf("bench_bare_%d", db.seq.Add(1))
	_, err := db.pool.Exec(ctx, fmt.Sprintf(createRole, name, "correct-horse-battery-staple", "2099-01-01"))
	return err
}

// dropBare removes what bareRole made.
func (db *database) dropBare(ctx context.Context) error {
	rows, err := db.pool.Query(ctx, `SELECT rolname FROM pg_roles WHERE rolname LIKE 'bench\_bare\_%'`)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	return parallel(len(names), dbConns, func(i int) error {
		_, err := db.pool.Exec(ctx, `DROP ROLE "`+names[i]+`"`)
		return err
	})
}

// roles counts what the engine has made and not yet dropped.
func (db *database) roles(ctx context.Context) (n int, err error) {
	err = db.pool.QueryRow(ctx, `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'`).Scan(&n)
	return n, err
}

// setupDatabase mounts the engine at bench-db with the roles app, group and
// grouplow, and proves that each gives a login that works.
func setupDatabase(ctx context.Context, c *client, root string, db *database) error {
	ttl := obj{"default_ttl": "1h", "max_ttl": "24h"}
	role := func(conn string, more obj) obj {
		b := obj{"db_name": conn, "default_ttl": ttl["default_ttl"], "max_ttl": ttl["max_ttl"]}
		for k, v := range more {
			b[k] = v
		}
		return b
	}
	for _, step := range []struct {
		path string
		body obj
	}{
		{"sys/mounts/bench-db", obj{"type": "database"}},
		{"bench-db/config/pg", db.config(4096)},
		{"bench-db/config/pglow", db.config(lowIterations)},
		{"bench-db/roles/app", role("pg", obj{"creation_statements": []string{fmt.Sprintf(createRole, "{{name}}", "{{password}}", "{{expiration}}")}})},
		{"bench-db/roles/group", role("pg", obj{"member_of": []string{"bench_app"}})},
		{"bench-db/roles/grouplow", role("pglow", obj{"member_of": []string{"bench_app"}})},
	} {
		if err := c.call(ctx, "POST", step.path, root, step.body, nil); err != nil {
			return err
		}
	}
	for _, name := range []string{"app", "group", "grouplow"} {
		var a answer
		if err := c.call(ctx, "GET", "bench-db/creds/"+name, root, nil, &a); err != nil {
			return err
		}
		if _, err := db.QueryAs(ctx, a.Data.Username, a.Data.Password, "postgres", "SELECT count(*) FROM bench_items"); err != nil {
			return fmt.Errorf("login with credentials of role %s: %w", name, err)
		}
	}
	return nil
}
