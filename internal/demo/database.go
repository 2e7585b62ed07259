package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/url"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leasehold/leasehold/internal/testenv"
)

//go:embed shop.sql
var shopSQL string

// furnish makes the database shop and the role that the engine uses, and
// answers PostgreSQL's version.
func furnish(ctx context.Context, pg *testenv.PG, password string) (version string, err error) {
	conn, err := pgx.Connect(ctx, pg.Super("postgres"))
	if err != nil {
		return "", err
	}
	for _, sql := range []string{
		"CREATE ROLE leasehold LOGIN CREATEROLE PASSWORD '" + password + "'",
		"CREATE DATABASE shop",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return "", errors.Join(err, conn.Close(ctx))
		}
	}
	err = conn.QueryRow(ctx, "SHOW server_version").Scan(&version)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return "", err
	}
	if conn, err = pgx.Connect(ctx, pg.Super("shop")); err != nil {
		return "", err
	}
	_, err = conn.Exec(ctx, shopSQL)
	return version, errors.Join(err, conn.Close(ctx))
}

// dsn is a connection URL of the shop for an application.
func (f *facts) dsn(user, password string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: f.Postgres, Path: "/shop", RawQuery: "sslmode=disable"}
	return u.String()
}

// query is what each application does with its login.
func query(ctx context.Context, conn *pgx.Conn) (string, error) {
	var orders, cents int
	if err := conn.QueryRow(ctx, "SELECT count(*), sum(cents) FROM orders").Scan(&orders, &cents); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d orders, %d.%02d", orders, cents/100, cents%100), nil
}

// refused says how PostgreSQL refused a login. An error means that it did not.
func (f *facts) refused(ctx context.Context, user, password string) (string, error) {
	conn, err := pgx.Connect(ctx, f.dsn(user, password))
	if err == nil {
		return "", errors.Join(fmt.Errorf("the login of %s still works", user), conn.Close(ctx))
	}
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return "", fmt.Errorf("logging in as %s: %w", user, err)
	}
	return pe.Message, nil
}

// roleExists asks PostgreSQL's own catalogue.
func (f *facts) roleExists(ctx context.Context, user string) (bool, error) {
	conn, err := pgx.Connect(ctx, f.Superuser)
	if err != nil {
		return false, err
	}
	var n int
	err = conn.QueryRow(ctx, "SELECT count(*) FROM pg_roles WHERE rolname = $1", user).Scan(&n)
	return n > 0, errors.Join(err, conn.Close(ctx))
}
