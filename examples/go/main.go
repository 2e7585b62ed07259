// A service that lives on database logins that expire: it renews the lease,
// and when that cannot be extended any further it fetches a new login and lets
// its pool reconnect, before the old one ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leasehold/leasehold/api"
)

// login is what the role answers.
type login struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

func main() {
	path := flag.String("creds", "database/creds/reader", "where to read logins")
	db := flag.String("db", "127.0.0.1:5432/postgres", "host:port/database")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *path, *db); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

func run(ctx context.Context, path, db string) error {
	cfg, err := api.ConfigFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	client, err := api.New(cfg)
	if err != nil {
		return err
	}
	// The pool asks for the login each time it connects.
	var current atomic.Pointer[login]
	poolCfg, err := pgxpool.ParseConfig("postgres://" + db + "?sslmode=prefer")
	if err != nil {
		return err
	}
	poolCfg.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		l := current.Load()
		c.User, c.Password = l.Username, l.Password
		return nil
	}

	secret, err := fetch(ctx, client, path, &current)
	if err != nil {
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, poolCfg)
	if err != nil {
		return err
	}
	defer pool.Close()

	kept := make(chan error, 1)
	go func() { kept <- keep(ctx, client, path, secret, &current, pool) }()
	for tick := time.Tick(time.Second); ; {
		var now time.Time
		var who string
		if err := pool.QueryRow(ctx, "SELECT now(), current_user").Scan(&now, &who); err != nil {
			return fmt.Errorf("query: %w", err)
		}
		log.Printf("query as %s", who)
		select {
		case <-tick:
		case err := <-kept:
			return err
		}
	}
}

// fetch asks for a new login.
func fetch(ctx context.Context, client *api.Client, path string, current *atomic.Pointer[login]) (*api.Secret, error) {
	secret, err := client.Read(ctx, path, nil)
	if err != nil {
		return nil, err
	}
	var l login
	if err := secret.Decode(&l); err != nil {
		return nil, err
	}
	current.Store(&l)
	log.Printf("new login %s for %s", l.Username, secret.Duration())
	return secret, nil
}

// keep renews the lease, and replaces the login in time when it ends.
func keep(ctx context.Context, client *api.Client, path string, secret *api.Secret, current *atomic.Pointer[login], pool *pgxpool.Pool) error {
	for {
		r, err := api.NewRenewer(client, api.RenewerConfig{
			Secret:  secret,
			Renewed: func(s *api.Secret) { log.Printf("renewed for %s", s.Duration()) },
			Failed:  func(err error) { log.Printf("renewing failed, trying again: %v", err) },
		})
		if err != nil {
			return err
		}
		// ErrReplace comes while the old login still works; any other
		// refusal means that it was revoked. A new one is due either way.
		err = r.Run(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log.Printf("replacing the login: %v", err)
		if secret, err = fetch(ctx, client, path, current); err != nil {
			return err
		}
		pool.Reset() // connections in use finish their query first
	}
}
