package token_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
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

func TestExpires(t *testing.T) {
	run(t, func(r *rig) {
		tok := r.create(token.Entry{Policies: []string{"default"}}, time.Hour)
		if !strings.HasPrefix(tok.Text.Reveal(), "hvs.") || !r.alive(tok) {
			t.Fatal("a fresh token is not alive, or not hvs.")
		}
		if n, err := r.store.Count(context.Background(), "root"); n != 1 || err != nil {
			t.Errorf("Count = %d, %v, want 1", n, err)
		}
		time.Sleep(time.Hour)
		if r.alive(tok) {
			t.Error("alive at its expiry, by the clock")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !r.ended[tok.Key] {
			t.Error("its leases were not made due")
		}
		r.nothingLeft()
	})
}

// What a token owns is told apart by whether somebody revoked it, or one above
// it, or whether a time ran out.
func TestLapsedOrRevoked(t *testing.T) {
	run(t, func(r *rig) {
		over, revoked := r.create(token.Entry{}, time.Hour), r.create(token.Entry{}, time.Hour)
		want := map[string]bool{over.Key: true, revoked.Key: false}
		for _, top := range []*token.Token{over, revoked} {
			kid := r.create(token.Entry{Parent: top.Key}, 9*time.Hour)
			want[kid.Key] = want[top.Key]
			want[r.create(token.Entry{Parent: kid.Key}, 9*time.Hour).Key] = want[top.Key]
		}
		if err := r.store.Revoke(context.Background(), revoked.Key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if !maps.Equal(r.lapsed, want) {
			t.Errorf("lapsed: %v, want %v", r.lapsed, want)
		}
		r.nothingLeft()
	})
}

// A revocation that comes while a token's end by time is under way is one: its
// leases are made due anew.
func TestRevokedWhileItLapses(t *testing.T) {
	run(t, func(r *rig) {
		ctx := context.Background()
		tok := r.create(token.Entry{Path: "auth/userpass/login/a"}, time.Hour)
		revoke := func() {
			if err := r.store.RevokePath(ctx, "root", "auth/userpass"); err != nil {
				t.Error(err)
			}
		}
		r.ending.Store(&revoke)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if lapsed, ended := r.lapsed[tok.Key], r.ended[tok.Key]; !ended || lapsed {
			t.Errorf("its leases were made due: %v, as those of a token that ran out: %v", ended, lapsed)
		}
		r.nothingLeft()
	})
}

// A fence that is raised while a tree ends by time holds back the rest of it. A
// revocation passes.
func TestFenceHoldsLapsed(t *testing.T) {
	run(t, func(r *rig) {
		ctx := context.Background()
		top := r.create(token.Entry{}, time.Hour)
		held := r.create(token.Entry{Parent: top.Key}, 9*time.Hour)
		revoked := r.create(token.Entry{Parent: top.Key, Path: "auth/userpass/login/a"}, 9*time.Hour)
		raise := func() { r.fenced.Store(true) }
		r.ending.Store(&raise)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if !r.ended[top.Key] || r.ended[held.Key] || r.ended[revoked.Key] {
			t.Errorf("leases were made due of %v, want only those of %q", r.ended, top.Key)
		}
		if r.alive(held) {
			t.Error("a token is alive although the one above it ran out")
		}
		if err := r.store.RevokePath(ctx, "root", "auth/userpass"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if r.ended[held.Key] || !r.ended[revoked.Key] || r.lapsed[revoked.Key] {
			t.Errorf("after a revocation leases were made due of %v, of those ran out %v", r.ended, r.lapsed)
		}
		r.fenced.Store(false)
		r.lanes.Resume()
		time.Sleep(time.Minute)
		synctest.Wait()
		if !r.lapsed[held.Key] {
			t.Error("lifting the fence does not end what it held")
		}
		r.nothingLeft()
	})
}

func TestRenew(t *testing.T) {
	run(t, func(r *rig) {
		lim := token.Limits{DefaultTTL: time.Hour, MaxTTL: 3 * time.Hour}
		tok := r.create(token.Entry{}, time.Hour)
		time.Sleep(50 * time.Minute)
		e, capped, err := r.store.Renew(context.Background(), tok.Key, 2*time.Hour, lim)
		if err != nil || capped || e.TTLLeft(time.Now()) != 2*time.Hour {
			t.Fatalf("Renew = %v, %v, %v", e.TTLLeft(time.Now()), capped, err)
		}
		time.Sleep(time.Hour)
		e, capped, err = r.store.Renew(context.Background(), tok.Key, 2*time.Hour, lim)
		if err != nil || !capped || e.TTLLeft(time.Now()) != 70*time.Minute {
			t.Fatalf("Renew = %v, %v, %v, want 70m capped", e.TTLLeft(time.Now()), capped, err)
		}
		time.Sleep(71 * time.Minute)
		synctest.Wait()
		r.nothingLeft()
		if _, _, err := r.store.Renew(context.Background(), tok.Key, 0, lim); !errs.Is(err, errs.Denied) {
			t.Errorf("Renew of a gone token = %v, want Denied", err)
		}
	})
}

// A maximum that was lowered later ends no token before its time: a renewal
// that it leaves nothing to give is refused.
func TestRenewPastTheMaximum(t *testing.T) {
	run(t, func(r *rig) {
		tok := r.create(token.Entry{}, time.Hour)
		time.Sleep(10 * time.Minute)
		for _, lim := range []token.Limits{
			{DefaultTTL: time.Hour, MaxTTL: 5 * time.Minute},
			{DefaultTTL: time.Hour, MaxTTL: time.Hour, ExplicitMaxTTL: 10 * time.Minute},
			{DefaultTTL: time.Hour, MaxTTL: time.Hour, ExplicitMaxTTL: time.Minute, Period: time.Hour},
		} {
			if _, _, err := r.store.Renew(context.Background(), tok.Key, time.Hour, lim); !errs.Is(err, errs.Invalid) {
				t.Errorf("Renew within %+v = %v, want Invalid", lim, err)
			}
		}
		if e, err := r.store.LookupKey(context.Background(), tok.Key); err != nil || e.TTLLeft(time.Now()) != 50*time.Minute {
			t.Errorf("the token after it = %+v, %v, want 50m left", e, err)
		}
	})
}

// From the durable mark on, everything below reads as ended, and the lane
// takes the whole tree.
func TestRevokeTree(t *testing.T) {
	run(t, func(r *rig) {
		top := r.create(token.Entry{}, time.Hour)
		var all []*token.Token
		level := []*token.Token{top}
		for range 3 {
			var next []*token.Token
			for _, p := range level {
				for range 4 {
					next = append(next, r.create(token.Entry{Parent: p.Key}, time.Hour))
				}
			}
			all = append(all, next...)
			level = next
		}
		bystander := r.create(token.Entry{}, time.Hour)
		if err := r.store.Revoke(context.Background(), top.Key); err != nil {
			t.Fatal(err)
		}
		for i, tok := range all {
			if r.alive(tok) {
				t.Fatalf("descendant %d is alive after Revoke returned", i)
			}
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for _, tok := range all {
			if !r.ended[tok.Key] {
				t.Error("a descendant's leases were not made due")
			}
		}
		if !r.alive(bystander) {
			t.Error("a token outside the tree ended")
		}
		if n, _ := r.store.Count(context.Background(), "root"); n != 1 {
			t.Errorf("Count = %d, want 1", n)
		}
		if err := r.store.Revoke(context.Background(), top.Key); err != nil {
			t.Errorf("Revoke of a gone token = %v", err)
		}
	})
}

func TestRevokeOrphanKeepsChildren(t *testing.T) {
	run(t, func(r *rig) {
		top := r.create(token.Entry{}, time.Hour)
		kid := r.create(token.Entry{Parent: top.Key}, time.Hour)
		grandkid := r.create(token.Entry{Parent: kid.Key}, time.Hour)
		if err := r.store.RevokeOrphan(context.Background(), top.Key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if r.alive(top) || !r.alive(kid) || !r.alive(grandkid) {
			t.Errorf("alive: top %v, kid %v, grandkid %v; want false, true, true", r.alive(top), r.alive(kid), r.alive(grandkid))
		}
		if e, err := r.store.LookupKey(context.Background(), kid.Key); err != nil || e.Parent != "" {
			t.Errorf("kid = %+v, %v, want an orphan", e, err)
		}
	})
}

// Whoever has ended a tree has ended it: a revoke-orphan that found its top
// alive a moment ago must not bring the children back.
func TestRevokeOrphanOfTheEndedFreesNobody(t *testing.T) {
	run(t, func(r *rig) {
		ctx := context.Background()
		top := r.create(token.Entry{}, time.Hour)
		kid := r.create(token.Entry{Parent: top.Key}, time.Hour)
		if err := r.store.Revoke(ctx, top.Key); err != nil {
			t.Fatal(err)
		}
		err := r.store.RevokeOrphan(ctx, top.Key)
		gone := err == nil && !r.has("tok/"+top.Key) // the lane was here first
		if !gone && !errors.Is(err, token.ErrInvalid) {
			t.Errorf("RevokeOrphan of a token that was revoked = %v, want %v", err, token.ErrInvalid)
		}
		if r.alive(kid) {
			t.Error("the child is alive again after its parent was revoked with all below it")
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if r.alive(kid) || !r.ended[kid.Key] {
			t.Errorf("later: the child is alive: %v, its leases were made due: %v", r.alive(kid), r.ended[kid.Key])
		}
		r.nothingLeft()
	})
}

func TestNoChildOfTheEnded(t *testing.T) {
	run(t, func(r *rig) {
		top := r.create(token.Entry{}, time.Hour)
		if err := r.store.Revoke(context.Background(), top.Key); err != nil {
			t.Fatal(err)
		}
		_, err := r.store.Create(context.Background(), &token.Entry{Parent: top.Key}, secret.String{})
		if !errors.Is(err, lease.ErrNotLive) && !errors.Is(err, token.ErrInvalid) {
			t.Errorf("Create below an ended token = %v", err)
		}
	})
}

func TestLimitedUses(t *testing.T) {
	run(t, func(r *rig) {
		tok := r.create(token.Entry{NumUses: 3}, time.Hour)
		for i := range 3 {
			last, err := r.store.Use(context.Background(), tok)
			if err != nil || last != (i == 2) {
				t.Errorf("Use %d = %v, %v", i, last, err)
			}
		}
		if _, err := r.store.Use(context.Background(), tok); !errors.Is(err, token.ErrInvalid) {
			t.Errorf("Use past the limit = %v, want ErrInvalid", err)
		}
	})
}

func TestBatch(t *testing.T) {
	run(t, func(r *rig) {
		parent := r.create(token.Entry{}, time.Hour)
		tok := r.create(token.Entry{Type: token.Batch, Parent: parent.Key, Policies: []string{"app"}}, 30*time.Minute)
		if !strings.HasPrefix(tok.Text.Reveal(), "hvb.") || tok.Accessor != "" {
			t.Errorf("batch token %q with accessor %q", tok.Text.Reveal()[:4], tok.Accessor)
		}
		got, err := r.store.Lookup(context.Background(), tok.Text)
		if err != nil || got.Policies[0] != "app" || got.Key != tok.Key {
			t.Fatalf("Lookup = %+v, %v", got, err)
		}
		if n, _ := r.store.Count(context.Background(), "root"); n != 1 {
			t.Errorf("Count = %d: a batch token was stored", n)
		}
		forged := secret.New("hvb." + base64.RawURLEncoding.EncodeToString([]byte(`{"v":1,"ty":1,"pol":["root"]}`)))
		if _, err := r.store.Lookup(context.Background(), forged); !errors.Is(err, token.ErrInvalid) {
			t.Errorf("Lookup of a forged batch token = %v, want ErrInvalid", err)
		}
		if err := r.store.Revoke(context.Background(), parent.Key); err != nil {
			t.Fatal(err)
		}
		if r.alive(tok) {
			t.Error("a batch token outlived its parent")
		}
	})
}

func TestAccessor(t *testing.T) {
	run(t, func(r *rig) {
		tok := r.create(token.Entry{}, time.Hour)
		key, e, err := r.store.ByAccessor(context.Background(), "root", tok.Accessor)
		if err != nil || key != tok.Key || e.Accessor != tok.Accessor {
			t.Errorf("ByAccessor = %q, %v, %v", key, e, err)
		}
		if _, _, err := r.store.ByAccessor(context.Background(), "root", "nonsense"); !errors.Is(err, token.ErrNoAccessor) {
			t.Errorf("ByAccessor of nonsense = %v", err)
		}
	})
}

// Many that expire in the same second, with one in their middle renewed.
func TestStorm(t *testing.T) {
	run(t, func(r *rig) {
		var keep *token.Token
		for i := range 2000 {
			tok := r.create(token.Entry{DisplayName: fmt.Sprint(i)}, time.Hour)
			if i == 1000 {
				keep = tok
			}
		}
		time.Sleep(59 * time.Minute)
		if _, _, err := r.store.Renew(context.Background(), keep.Key, time.Hour, token.Limits{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n, _ := r.store.Count(context.Background(), "root"); n != 1 || !r.alive(keep) {
			t.Errorf("Count = %d, want only the renewed one", n)
		}
	})
}

// One row that cannot be read stops no tree: it is refused, its tree ends
// around it.
func TestBadRowStopsNoTree(t *testing.T) {
	run(t, func(r *rig) {
		parent := r.create(token.Entry{Policies: []string{"p"}}, time.Hour)
		var kids []*token.Token
		for range 20 {
			kids = append(kids, r.create(token.Entry{Policies: []string{"p"}, Parent: parent.Key}, time.Hour))
		}
		_, err := r.db.Update(context.Background(), func(tx storage.Tx) error { return tx.Put("tok/"+kids[7].Key, []byte("not a row")) })
		if err != nil {
			t.Fatal(err)
		}
		if err := r.store.Revoke(context.Background(), parent.Key); err != nil {
			t.Fatalf("Revoke = %v", err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		for i, k := range append(kids, parent) {
			if i != 7 && !r.ended[k.Key] {
				t.Errorf("what token %d owns was not made due", i)
			}
		}
		if err := r.store.Revoke(context.Background(), kids[7].Key); err != nil {
			t.Errorf("Revoke of the one that cannot be read = %v", err)
		}
	})
}

// Tokens are counted by the mount and the role that they came in by.
func TestCountsByMount(t *testing.T) {
	run(t, func(r *rig) {
		for i, e := range []*token.Entry{
			{MountID: "m1", LoginRole: "web"}, {MountID: "m1", LoginRole: "web"}, {MountID: "m1", LoginRole: "webs"},
			{MountID: "m2"}, {},
		} {
			e.Policies, e.TTL, e.Expires = []string{"default"}, time.Hour, time.Now().Add(time.Duration(i+1)*time.Hour)
			if _, err := r.store.Create(context.Background(), e, secret.String{}); err != nil {
				t.Fatal(err)
			}
		}
		ctx := context.Background()
		check := func(when string, all, m1, web, m2 int64) {
			t.Helper()
			got := [4]int64{}
			var errs [4]error
			got[0], errs[0] = r.store.Count(ctx, "root")
			got[1], errs[1] = r.store.CountMount(ctx, "root", "m1")
			got[2], errs[2] = r.store.CountRole(ctx, "root", "m1", "web")
			got[3], errs[3] = r.store.CountMount(ctx, "root", "m2")
			if want := [4]int64{all, m1, web, m2}; got != want || errors.Join(errs[:]...) != nil {
				t.Errorf("%s: counts %v, %v, want %v", when, got, errs, want)
			}
		}
		check("at first", 5, 3, 2, 1)
		time.Sleep(time.Hour + time.Minute)
		check("when one has expired", 4, 2, 1, 1)
		time.Sleep(5 * time.Hour)
		check("in the end", 0, 0, 0, 0)
	})
}
