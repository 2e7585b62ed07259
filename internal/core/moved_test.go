package core_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// turnstile is an auth method whose logins begin, wait and then let in.
type turnstile struct {
	id           string // of its mount
	inside, goOn chan struct{}
	asked        chan string // the mount whose method is asked at a renewal
}

func (s turnstile) Routes(t *route.Table) {
	route.Login(t, "login", func(context.Context, *route.Request, route.None) (*route.Auth, error) {
		s.inside <- struct{}{}
		<-s.goOn
		return &route.Auth{Policies: []string{"app"}}, nil
	})
}

func (s turnstile) RenewLogin(_ context.Context, r engine.Renewal) (*route.Auth, error) {
	s.asked <- s.id
	return &route.Auth{Policies: r.Policies, NoDefaultPolicy: true}, nil
}

// TestLoginWhileItsMountMoves: whose mount was moved while they logged in are
// that mount's: its method is asked when the token is renewed, also once
// another mount is at the path that they came to, and they are out when it is
// removed.
func TestLoginWhileItsMountMoves(t *testing.T) {
	inside, goOn, asked := make(chan struct{}), make(chan struct{}), make(chan string, 1)
	r := openWith(t, mem.New(), map[string]engine.Factory{
		"auth/turnstile": func(_ context.Context, env engine.Env) (engine.Engine, error) {
			return turnstile{env.MountID, inside, goOn, asked}, nil
		},
	})
	ctx := t.Context()
	enable := func() *core.Mount {
		t.Helper()
		m := &core.Mount{Namespace: token.RootNamespace, Path: "auth/old/", Class: core.ClassAuth, Type: "turnstile"}
		if err := r.c.AddMount(ctx, m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	first := enable()
	done := make(chan *core.Response)
	go func() { done <- r.do(wire.OpUpdate, "auth/old/login", secret.String{}, "{}") }()
	<-inside
	if err := r.c.MoveMount(ctx, token.RootNamespace, "auth/old/", "auth/new/"); err != nil {
		t.Fatal(err)
	}
	enable()
	goOn <- struct{}{}
	resp := <-done
	if resp.Err != nil {
		t.Fatalf("the login = %v", resp.Err)
	}
	var auth struct {
		Token string `json:"client_token"`
	}
	if err := json.Unmarshal(resp.Auth.AppendJSON(nil), &auth); err != nil {
		t.Fatal(err)
	}
	tokens, err := r.c.Tokens()
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokens.Lookup(ctx, secret.New(auth.Token))
	if err != nil {
		t.Fatalf("the token = %v", err)
	}
	if _, err := r.c.RenewalLimits(ctx, tok.Entry, &route.Request{}); err != nil {
		t.Fatal(err)
	}
	if id := <-asked; id != first.ID {
		t.Errorf("the method at %s was asked about renewing, want the one that let in, %s", id, first.ID)
	}
	if err := r.c.RemoveMount(ctx, token.RootNamespace, "auth/new/"); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Lookup(ctx, secret.New(auth.Token)); !errs.Is(err, errs.Denied) {
		t.Errorf("after its mount was removed the token = %v, want Denied", err)
	}
	// Whoever never logged in there is not concerned.
	other, err := r.c.CreateToken(ctx, &token.Entry{Policies: []string{"app"}, Path: "auth/old/login", TTL: time.Hour, Expires: time.Now().Add(time.Hour)}, secret.String{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Lookup(ctx, other.Text); err != nil {
		t.Errorf("a token of the other mount = %v", err)
	}
}

// TestRenewalWithoutItsMethod: while the mount that gave a token cannot be read,
// or its engine does not start, nobody can say whether it may be renewed.
func TestRenewalWithoutItsMethod(t *testing.T) {
	for what, damage := range map[string]func(db storage.Backend, m *core.Mount) error{
		"its row is damaged": func(db storage.Backend, m *core.Mount) error {
			_, err := db.Update(t.Context(), func(tx storage.Tx) error { return tx.Put("mount/root/"+m.ID, []byte("damaged")) })
			return err
		},
		"its engine does not start": nil,
	} {
		t.Run(what, func(t *testing.T) {
			broken := false
			db := mem.New()
			r := openWith(t, db, map[string]engine.Factory{
				"auth/turnstile": func(_ context.Context, env engine.Env) (engine.Engine, error) {
					if broken {
						return nil, errors.New("it is out of order")
					}
					return turnstile{id: env.MountID, asked: make(chan string, 1)}, nil
				},
			})
			ctx := t.Context()
			m := &core.Mount{Namespace: token.RootNamespace, Path: "auth/old/", Class: core.ClassAuth, Type: "turnstile"}
			if err := r.c.AddMount(ctx, m); err != nil {
				t.Fatal(err)
			}
			tok, err := r.c.CreateToken(ctx, &token.Entry{Policies: []string{"app"}, Path: "auth/old/login", TTL: time.Hour, Expires: time.Now().Add(time.Hour)}, secret.String{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.c.RenewalLimits(ctx, tok.Entry, &route.Request{}); err != nil {
				t.Fatalf("before that: %v", err)
			}
			if err := r.c.Seal(); err != nil {
				t.Fatal(err)
			}
			broken = true
			if damage != nil {
				if err := damage(db, m); err != nil {
					t.Fatal(err)
				}
			}
			r.unseal()
			if lim, err := r.c.RenewalLimits(ctx, tok.Entry, &route.Request{}); !errs.Is(err, errs.Unavailable) {
				t.Errorf("RenewalLimits = %+v, %v, want Unavailable", lim, err)
			}
		})
	}
}
