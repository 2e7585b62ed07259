// A service that lives on database logins that expire: it renews the lease,
// and when that cannot be extended any further it fetches a new login and lets
// its pool reconnect, before the old one ends.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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

// service is what the parts of the program share.
type service struct {
	client *api.Client
	path   string
	login  atomic.Pointer[login] // the pool's, whenever it connects
	pool   *pgxpool.Pool
	lost   chan struct{} // the database has refused the login
}

func run(ctx context.Context, path, db string) error {
	cfg, err := api.ConfigFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	s := &service{path: path, lost: make(chan struct{}, 1)}
	if s.client, err = api.New(cfg); err != nil {
		return err
	}
	poolCfg, err := pgxpool.ParseConfig("postgres://" + db + "?sslmode=prefer")
	if err != nil {
		return err
	}
	poolCfg.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		l := s.login.Load()
		c.User, c.Password = l.Username, l.Password
		return nil
	}
	secret, err := s.fetch(ctx)
	if err != nil {
		return err
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, poolCfg); err != nil {
		return err
	}
	defer s.pool.Close()

	kept := make(chan error, 1)
	go func() { kept <- s.keep(ctx, secret) }()
	for tick := time.Tick(time.Second); ; {
		s.work(ctx)
		select {
		case <-tick:
		case err := <-kept:
			return err
		}
	}
}

// work is what the service is for.
func (s *service) work(ctx context.Context) {
	var who string
	err := s.pool.QueryRow(ctx, "SELECT current_user").Scan(&who)
	var refused *pgconn.PgError
	switch {
	case err == nil:
		log.Printf("query as %s", who)
		return
	case errors.As(err, &refused) && slices.Contains([]string{"28000", "28P01", "57P01"}, refused.Code):
		// The session was ended, or the login does not work: it may have
		// been revoked, and waiting for the next renewal would be long.
		select {
		case s.lost <- struct{}{}:
		default:
		}
	}
	log.Printf("query failed, trying again: %v", err)
}

// fetch asks for a new login.
func (s *service) fetch(ctx context.Context) (*api.Secret, error) {
	secret, err := s.client.Read(ctx, s.path, nil)
	if err != nil {
		return nil, err
	}
	var l login
	if err := secret.Decode(&l); err != nil {
		return nil, err
	}
	s.login.Store(&l)
	log.Printf("new login %s for %s", l.Username, secret.Duration())
	return secret, nil
}

// keep renews the lease, and replaces the login when that ends.
func (s *service) keep(ctx context.Context, secret *api.Secret) error {
	for {
		if err := s.renew(ctx, secret); err != nil {
			return err
		}
		for {
			var err error
			if secret, err = s.fetch(ctx); err == nil {
				break
			}
			log.Printf("no new login, trying again: %v", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		s.pool.Reset() // connections in use finish their query first
	}
}

// renew returns nil when another login is due: this one nears its end, which
// it tells while the login still works, or was taken away.
func (s *service) renew(ctx context.Context, secret *api.Secret) error {
	r, err := api.NewRenewer(s.client, api.RenewerConfig{
		Secret:  secret,
		Renewed: func(s *api.Secret) { log.Printf("renewed for %s", s.Duration()) },
		Failed:  func(err error) { log.Printf("renewing failed, trying again: %v", err) },
	})
	if err != nil {
		return err
	}
	rctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with rctx
		select {
		case <-s.lost:
			cancel(errors.New("the database has refused it"))
		case <-rctx.Done():
		}
	}()
	err = r.Run(rctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if cause := context.Cause(rctx); cause != nil {
		err = cause
	}
	log.Printf("replacing the login: %v", err)
	return nil
}
