package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
)

const (
	keys     = 1000 // secrets that reads and writes are spread over
	poolSize = 600  // leases prepared for each round of revocations
)

// appPolicy has as many rules as the one the open peer was measured with.
const appPolicy = `
path "bench-kv/*"       { capabilities = ["create", "read", "update", "delete", "list"] }
path "bench-transit/*"  { capabilities = ["create", "read", "update", "delete", "list"] }
path "bench-pki/*"      { capabilities = ["create", "read", "update", "delete", "list"] }
path "bench-db/creds/*" { capabilities = ["read"] }
path "bench-db/static-creds/*" { capabilities = ["read"] }
path "sys/leases/*"     { capabilities = ["create", "update", "read", "list", "sudo"] }
`

// subject is a server under test, with a token for each client.
type subject struct {
	*client
	server *leaseholdtest.Server
	tokens []string // of the clients, policies bench-app and default
	kvBody []byte
	held   []string          // a token or lease of each client, for renewals
	judged [2]string         // tokens with a single rule, and with very many
	pool   chan string       // leases to revoke
	logins map[string][]byte // what logins for each kind of token send

	transit transitBodies
}

// newSubject starts a server and prepares what needs no database.
func newSubject(ctx context.Context, cfg leaseholdtest.Config, conc int) (*subject, error) {
	srv, err := leaseholdtest.Launch(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := &subject{client: newClient(srv.Addr), server: srv}
	if err := s.setup(ctx, conc); err != nil {
		srv.Close()
		return nil, err
	}
	return s, nil
}

func (s *subject) setup(ctx context.Context, conc int) error {
	if err := s.call(ctx, "PUT", "sys/policies/acl/bench-app", s.server.Root, obj{"policy": appPolicy}, nil); err != nil {
		return err
	}
	for range conc {
		tok, err := s.newToken(ctx, "12h")
		if err != nil {
			return err
		}
		s.tokens = append(s.tokens, tok)
	}
	if err := s.call(ctx, "POST", "sys/mounts/bench-kv", s.server.Root, obj{"type": "kv", "options": obj{"version": "2"}}, nil); err != nil {
		return err
	}
	var err error
	if s.kvBody, err = json.Marshal(obj{"data": obj{"username": "app", "password": strings.Repeat("x", 160)}}); err != nil {
		return err
	}
	return parallel(keys, 8, func(i int) error {
		_, err := s.raw(ctx, "POST", fmt.Sprintf("bench-kv/data/k%d", i), s.server.Root, s.kvBody)
		return err
	})
}

func (s *subject) newToken(ctx context.Context, ttl string) (string, error) {
	var a answer
	err := s.call(ctx, "POST", "auth/token/create", s.server.Root, obj{"policies": []string{"bench-app"}, "ttl": ttl, "no_parent": true}, &a)
	return a.Auth.ClientToken, err
}

// op is one request of one worker.
type op = func(ctx context.Context, worker int) error

func (s *subject) get(path string) op {
	return func(ctx context.Context, w int) error {
		_, err := s.raw(ctx, "GET", path, s.tokens[w], nil)
		return err
	}
}

func (s *subject) health(ctx context.Context, _ int) error {
	_, err := s.raw(ctx, "GET", "sys/health", "", nil)
	return err
}

func (s *subject) kvRead(ctx context.Context, w int) error {
	_, err := s.raw(ctx, "GET", fmt.Sprintf("bench-kv/data/k%d", rand.IntN(keys)), s.tokens[w], nil)
	return err
}

func (s *subject) kvWrite(ctx context.Context, w int) error {
	_, err := s.raw(ctx, "POST", fmt.Sprintf("bench-kv/data/k%d", rand.IntN(keys)), s.tokens[w], s.kvBody)
	return err
}

// holdTokens gives each worker a token to renew.
func (s *subject) holdTokens(ctx context.Context) error {
	s.held = make([]string, len(s.tokens))
	return parallel(len(s.held), 8, func(i int) (err error) {
		s.held[i], err = s.newToken(ctx, "1h")
		return err
	})
}

func (s *subject) renewToken(ctx context.Context, w int) error {
	_, err := s.raw(ctx, "POST", "auth/token/renew-self", s.held[w], []byte(`{"increment":"1h"}`))
	return err
}

func (s *subject) issue(ctx context.Context) (string, error) {
	var a answer
	err := s.call(ctx, "GET", "bench-db/creds/app", s.tokens[0], nil, &a)
	return a.LeaseID, err
}

// holdLeases gives each worker a database lease to renew.
func (s *subject) holdLeases(ctx context.Context) error {
	s.held = make([]string, len(s.tokens))
	return parallel(len(s.held), 8, func(i int) (err error) {
		s.held[i], err = s.issue(ctx)
		return err
	})
}

func (s *subject) renewLease(ctx context.Context, w int) error {
	_, err := s.raw(ctx, "POST", "sys/leases/renew", s.tokens[w], []byte(`{"lease_id":"`+s.held[w]+`","increment":3600}`))
	return err
}

// fillPool prepares leases for a round of revocations.
func (s *subject) fillPool(ctx context.Context) error {
	s.pool = make(chan string, poolSize)
	return parallel(poolSize, 16, func(int) error {
		id, err := s.issue(ctx)
		s.pool <- id
		return err
	})
}

func (s *subject) revoke(ctx context.Context, w int) error {
	select {
	case id := <-s.pool:
		_, err := s.raw(ctx, "POST", "sys/leases/revoke", s.tokens[w], []byte(`{"lease_id":"`+id+`","sync":true}`))
		return err
	default:
		return errDone
	}
}

// revokeAll drops what the rounds have issued, so that every round starts
// with the same catalogue.
func (s *subject) revokeAll(ctx context.Context) error {
	return s.call(ctx, "PUT", "sys/leases/revoke-prefix/bench-db", s.server.Root, obj{"sync": true}, nil)
}
