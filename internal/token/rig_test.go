package token_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/token"
)

type rig struct {
	t      *testing.T
	db     storage.Backend
	store  *token.Store
	mu     sync.Mutex
	ended  map[string]bool // whose leases were made due; guarded by mu
	lapsed map[string]bool // those whose time ran out; guarded by mu
	fenced atomic.Bool
	ending atomic.Pointer[func()] // called once, before a token's leases are made due
	lanes  *lane.Set
	stop   func()
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, db: mem.New(), ended: map[string]bool{}, lapsed: map[string]bool{}}
	r.store = token.New(token.Config{
		Store: r.db,
		Hash:  func(s string) [32]byte { return sha256.Sum256([]byte("key" + s)) },
		Seal:  func(b []byte) ([]byte, error) { return append([]byte("sealed:"), b...), nil },
		Open: func(b []byte) ([]byte, error) {
			rest, ok := strings.CutPrefix(string(b), "sealed:")
			if !ok {
				return nil, errors.New("not sealed here")
			}
			return []byte(rest), nil
		},
		EndLeases: func(_ context.Context, key string, lapsed bool) error {
			if f := r.ending.Swap(nil); f != nil {
				(*f)()
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.ended[key], r.lapsed[key] = true, lapsed
			return nil
		},
		Fenced: r.fenced.Load,
	})
	r.lanes = lane.New(lane.Config{Store: r.db, Handlers: map[string]lane.Handler{token.DueKind: r.store.Handler()}, Held: r.fenced.Load})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = r.lanes.Run(ctx); done <- struct{}{} }()
	ready := make(chan struct{})
	go func() {
		told := false
		_ = r.db.Watch(ctx, 0, func(c []storage.Change) error {
			if !told {
				told = true
				close(ready)
			}
			r.store.Changed(c)
			return nil
		})
		done <- struct{}{}
	}()
	<-ready
	r.stop = func() { cancel(); <-done; <-done }
	return r
}

func run(t *testing.T, f func(r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.stop()
		f(r)
	})
}

func (r *rig) create(e token.Entry, ttl time.Duration) *token.Token {
	r.t.Helper()
	if ttl > 0 {
		e.TTL, e.Expires, e.Renewable = ttl, time.Now().Add(ttl), true
	}
	t, err := r.store.Create(context.Background(), &e, secret.String{})
	if err != nil {
		r.t.Fatalf("Create = %v", err)
	}
	return t
}

func (r *rig) alive(t *token.Token) bool {
	_, err := r.store.Lookup(context.Background(), t.Text)
	if err != nil && !errors.Is(err, token.ErrInvalid) {
		r.t.Fatalf("Lookup = %v", err)
	}
	return err == nil
}

func (r *rig) has(key string) (there bool) {
	r.t.Helper()
	err := r.db.View(context.Background(), func(v storage.View) error {
		b, err := v.Get(key)
		there = b != nil
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return there
}

func (r *rig) nothingLeft() {
	r.t.Helper()
	err := r.db.View(context.Background(), func(v storage.View) error {
		return v.Scan("", "", 0, func(key string, value []byte) bool {
			if !strings.HasPrefix(key, lane.MarkPrefix) && !(strings.HasPrefix(key, "count/") && string(value) == "0") {
				r.t.Errorf("key %q is left", key)
			}
			return true
		})
	})
	if err != nil {
		r.t.Fatal(err)
	}
}
