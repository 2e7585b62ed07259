package mfa_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestLoginsWait(t *testing.T) {
	r := newRig(t)
	id := r.method(nil)
	d := r.device(r.do(200, wire.OpUpdate, "mfa/method/totp/generate", obj{"method_id": id}))
	hold := func(login string) string {
		t.Helper()
		req, err := r.engine.Hold(t.Context(), demand(id), []byte(login))
		if err != nil {
			t.Fatal(err)
		}
		return req
	}
	release := func(req, code string) (string, error) {
		b, err := r.engine.Release(t.Context(), req, engine.Shown{id: {code}})
		return string(b), err
	}
	first := hold("first")
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(first) {
		t.Errorf("the request's id is %q, want a UUID", first)
	}
	if _, err := release(first, d.wrong()); !errs.Is(err, errs.Denied) {
		t.Errorf("a wrong passcode: %v", err)
	}
	if got, err := release(first, d.code(0)); err != nil || got != "first" {
		t.Errorf("the right passcode after a wrong one gives %q, %v", got, err)
	}
	for name, req := range map[string]string{
		"completed": first, "never made": "ffffffff-ffff-7fff-bfff-ffffffffffff", "odd": "x", "empty": "", "a path": "../../../../../../../../../secret/ann",
	} {
		if _, err := release(req, d.code(1)); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v, want it refused as invalid", name, err)
		}
	}
	// Nothing of these tries has used up the passcode.
	second := hold("second")
	if got, err := release(second, d.code(1)); err != nil || got != "second" {
		t.Errorf("the next login gives %q, %v", got, err)
	}

	// Its time is over.
	r.pass(10 * time.Minute)
	late := hold("late")
	r.pass(5*time.Minute + time.Second)
	if _, err := release(late, d.code(0)); !errs.Is(err, errs.Invalid) {
		t.Errorf("a login after its time: %v", err)
	}
	// One entity's logins are bounded: the oldest goes.
	oldest := hold("0")
	r.pass(time.Second)
	var reqs []string
	for i := range 8 {
		reqs = append(reqs, hold(fmt.Sprint(i+1)))
		r.pass(time.Millisecond)
	}
	if _, err := release(oldest, d.code(0)); !errs.Is(err, errs.Invalid) {
		t.Errorf("the ninth login from the end: %v, want it gone", err)
	}
	if got, err := release(reqs[0], d.code(0)); err != nil || got != "1" {
		t.Errorf("the eighth login from the end gives %q, %v", got, err)
	}
	// The sweep leaves nothing of those that nobody completed.
	r.pass(6 * time.Minute)
	if err := r.engine.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"m/root/id/mfa/pending/", "m/root/id/mfa/waiting/"} {
		n := 0
		err := r.store.View(t.Context(), func(v storage.View) error {
			return v.Scan(prefix, storage.PrefixEnd(prefix), 0, func(string, []byte) bool { n++; return true })
		})
		if err != nil || n != 0 {
			t.Errorf("after the sweep there are %d rows below %s, %v", n, prefix, err)
		}
	}
}

// TestLoginsAreReleasedOnce completes one login many times at once, with a
// passcode of its own each.
func TestLoginsAreReleasedOnce(t *testing.T) {
	r := newRig(t)
	var methods []string
	var codes []string
	c := route.MFAConstraint{}
	for range 8 {
		id := r.method(nil)
		methods = append(methods, id)
		codes = append(codes, r.device(r.do(200, wire.OpUpdate, "mfa/method/totp/generate", obj{"method_id": id})).code(0))
		c.Any = append(c.Any, route.MFAMethod{ID: id})
	}
	req, err := r.engine.Hold(t.Context(), &engine.Demand{EntityID: "ann", Constraints: map[string]route.MFAConstraint{"e": c}}, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	var ok atomic.Int32
	var wg sync.WaitGroup
	for i, id := range methods {
		wg.Go(func() {
			if _, err := r.engine.Release(context.Background(), req, engine.Shown{id: {codes[i]}}); err == nil {
				ok.Add(1)
			} else if !errs.Is(err, errs.Invalid) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := ok.Load(); n != 1 {
		t.Errorf("one login was released %d times, want once", n)
	}
}

// TestSecretsFollowTheirEntity: they go with it, or to the one it is merged
// into.
func TestSecretsFollowTheirEntity(t *testing.T) {
	r := newRig(t)
	a, b := r.method(nil), r.method(nil)
	admin := func(entity, method string) *device {
		t.Helper()
		return r.device(r.do(200, wire.OpUpdate, "mfa/method/totp/admin-generate", obj{"method_id": method, "entity_id": entity}))
	}
	bobA, bobB := admin("bob", a), admin("bob", b)
	annA := admin("ann", a)
	if m, err := r.engine.Conflict(t.Context(), "bob", "ann"); err != nil || m != a {
		t.Errorf("Conflict = %q, %v, want %q", m, err, a)
	}
	if err := r.engine.Merge(t.Context(), "bob", "ann"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.prove(a, annA.code(0)), r.prove(b, bobB.code(0))); err != nil {
		t.Errorf("after merging, ann's own secret and the one that came: %v", err)
	}
	if bobA.code(1) != annA.code(1) && r.prove(a, bobA.code(1)) == nil {
		t.Error("bob's secret of a method that ann has one of counts")
	}
	if m, err := r.engine.Conflict(t.Context(), "bob", "ann"); err != nil || m != "" {
		t.Errorf("after merging Conflict = %q, %v", m, err)
	}
	if err := r.engine.Forget(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	if err := r.prove(b, bobB.code(1)); !errs.Is(err, errs.Denied) {
		t.Errorf("after forgetting: %v", err)
	}
}

// TestManyLoginsThatNobodyCompletes are gone after one sweep.
func TestManyLoginsThatNobodyCompletes(t *testing.T) {
	r := newRig(t)
	for i := range 250 {
		d := &engine.Demand{EntityID: fmt.Sprint("e", i)}
		if _, err := r.engine.Hold(t.Context(), d, []byte("login")); err != nil {
			t.Fatal(err)
		}
	}
	r.pass(6 * time.Minute)
	if err := r.engine.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := 0
	err := r.store.View(t.Context(), func(v storage.View) error {
		return v.Scan("m/", "n", 0, func(string, []byte) bool { left++; return true })
	})
	if err != nil || left > 0 {
		t.Errorf("%d rows are left, %v", left, err)
	}
}

// TestDamagedListOfLogins keeps nobody from logging in, and no sweep from its
// work.
func TestDamagedListOfLogins(t *testing.T) {
	r := newRig(t)
	if _, err := r.store.Update(t.Context(), func(tx storage.Tx) error { return tx.Put("m/root/id/mfa/waiting/ann", []byte("damaged")) }); err != nil {
		t.Fatal(err)
	}
	if _, err := r.engine.Hold(t.Context(), &engine.Demand{EntityID: "ann"}, []byte("login")); err != nil {
		t.Errorf("Hold = %v", err)
	}
	if _, err := r.store.Update(t.Context(), func(tx storage.Tx) error { return tx.Put("m/root/id/mfa/waiting/ann", []byte("damaged")) }); err != nil {
		t.Fatal(err)
	}
	r.pass(6 * time.Minute)
	if err := r.engine.Sweep(t.Context()); err != nil {
		t.Errorf("Sweep = %v", err)
	}
}
