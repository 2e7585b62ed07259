package token_test

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/token"
)

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
