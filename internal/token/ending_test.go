package token_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
)

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
