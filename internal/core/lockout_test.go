package core_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// door is an auth method that lets in whoever knows the word.
type door struct {
	tried atomic.Int64
	wait  func() // before the word is looked at; nil: nothing
}

type doorIn struct {
	Name string        `json:"name"`
	Word secret.String `json:"word"`
}

func (d *door) Routes(t *route.Table) {
	route.Login(t, "login/{name}", d.login, route.LockedBy(func(in doorIn) string { return in.Name }))
}

func (d *door) login(_ context.Context, _ *route.Request, in doorIn) (*route.Auth, error) {
	d.tried.Add(1)
	if d.wait != nil {
		d.wait()
	}
	switch in.Word.Reveal() {
	case "open sesame":
		return &route.Auth{Policies: []string{"app"}}, nil
	case "a while":
		return &route.Auth{TTL: 2 * time.Hour, ExplicitMaxTTL: time.Hour}, nil
	case "now and then":
		return &route.Auth{Period: 2000 * time.Hour}, nil
	case "as root":
		return &route.Auth{Policies: []string{"Root"}}, nil
	case "as wrapper":
		return &route.Auth{Policies: []string{"response-wrapping"}}, nil
	case "":
		return nil, errs.New(errs.Invalid, "missing word")
	}
	return nil, errs.Wrap(errs.Invalid, route.ErrCredentials, "wrong word")
}

// doorRig is a core with a door and a clock that stands until it is moved.
type doorRig struct {
	*rig
	door   *door
	passed atomic.Int64 // nanoseconds since the beginning
}

func newDoor(t *testing.T, lockouts map[string]core.Lockout) *doorRig {
	t.Helper()
	d := &doorRig{door: &door{}}
	begin := time.Now()
	now := func() time.Time { return begin.Add(time.Duration(d.passed.Load())) }
	more := map[string]engine.Factory{
		"auth/door": func(context.Context, engine.Env) (engine.Engine, error) { return d.door, nil },
	}
	c := newCore(mem.New(), more, func(conf *core.Config) { conf.Now, conf.Steady, conf.Lockouts = now, now, lockouts })
	in, err := c.Init(t.Context(), seal.Params{Shares: 2, Threshold: 2}, secret.String{})
	if err != nil {
		t.Fatal(err)
	}
	d.rig = &rig{t: t, c: c, root: in.Root, keys: in.Shares}
	t.Cleanup(func() { c.Stop(time.Second) })
	d.unseal()
	if err := c.AddMount(t.Context(), &core.Mount{Namespace: token.RootNamespace, Path: "auth/door/", Class: core.ClassAuth, Type: "door"}); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *doorRig) try(name, word string) error {
	d.t.Helper()
	return d.do(wire.OpUpdate, "auth/door/login/"+name, secret.String{}, fmt.Sprintf(`{"word":%q}`, word)).Err
}

// fail tries a wrong word n times.
func (d *doorRig) fail(name string, n int) {
	d.t.Helper()
	for range n {
		if err := d.try(name, "guess"); !errs.Is(err, errs.Invalid) {
			d.t.Fatalf("a wrong word of %s = %v, want that it is wrong", name, err)
		}
	}
}

func (d *doorRig) in(name string) {
	d.t.Helper()
	if err := d.try(name, "open sesame"); err != nil {
		d.t.Errorf("%s, with the right word = %v", name, err)
	}
}

func (d *doorRig) out(name string) {
	d.t.Helper()
	for _, word := range []string{"open sesame", "guess"} {
		if err := d.try(name, word); !errs.Is(err, errs.Denied) {
			d.t.Errorf("%s, locked out, with %q = %v, want denied", name, word, err)
		}
	}
}

func (d *doorRig) accessor() string {
	m, _, err := d.c.MountAt(d.t.Context(), token.RootNamespace, "auth/door/", true)
	if err != nil {
		d.t.Fatal(err)
	}
	return m.Accessor
}

func (d *doorRig) tune(change func(*core.MountConfig)) {
	d.t.Helper()
	err := d.c.TuneMount(d.t.Context(), token.RootNamespace, "auth/door/", func(m *core.Mount) error { change(&m.Config); return nil })
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *doorRig) locked() string {
	d.t.Helper()
	list, err := d.c.LockedUsers(d.t.Context(), token.RootNamespace)
	if err != nil {
		d.t.Fatal(err)
	}
	names := ""
	for _, l := range list {
		if l.Accessor != d.accessor() {
			d.t.Errorf("%s is locked out at %q, want %q", l.Alias, l.Accessor, d.accessor())
		}
		names += l.Alias + " "
	}
	return names
}

func TestLockout(t *testing.T) {
	d := newDoor(t, nil)
	d.fail("ann", 4)
	d.in("ann") // forgets the four
	d.fail("ann", 4)
	for range 9 { // not a wrong word, and so no guess
		if err := d.try("ann", ""); !errs.Is(err, errs.Invalid) {
			t.Errorf("no word = %v", err)
		}
	}
	d.fail("ann", 1)
	tried := d.door.tried.Load()
	d.out("ann")
	if d.door.tried.Load() != tried {
		t.Error("the method is asked about somebody who is locked out")
	}
	d.in("bob")
	d.fail("nobody", 5) // whether there is such a user does not show
	d.out("nobody")
	if got := d.locked(); got != "ann nobody " {
		t.Errorf("locked out are %q, want ann and nobody", got)
	}

	if err := d.c.Seal(); err != nil {
		t.Fatal(err)
	}
	d.unseal()
	d.out("ann") // a restart lets nobody in
	if err := d.c.UnlockUser(t.Context(), token.RootNamespace, d.accessor(), "ann"); err != nil {
		t.Errorf("UnlockUser = %v", err)
	}
	d.in("ann")
	d.out("nobody")
	if err := d.c.UnlockUser(t.Context(), token.RootNamespace, d.accessor(), "never seen"); err != nil {
		t.Errorf("UnlockUser of somebody who is not locked out = %v", err)
	}
	if err := d.c.UnlockUser(t.Context(), token.RootNamespace, "auth_door_0", "ann"); !errs.Is(err, errs.Invalid) {
		t.Errorf("UnlockUser at an accessor that there is not = %v", err)
	}

	d.passed.Add(int64(14 * time.Minute))
	d.out("nobody")
	d.passed.Add(int64(time.Minute))
	d.in("nobody")
	if got := d.locked(); got != "" {
		t.Errorf("after a quarter of an hour %q are locked out", got)
	}
	d.fail("ann", 4)
	d.passed.Add(int64(15 * time.Minute))
	d.fail("ann", 4) // the first four are forgotten
	d.in("ann")
}

func TestLockoutTuning(t *testing.T) {
	d := newDoor(t, map[string]core.Lockout{"other": {Threshold: 3}, "door": {Threshold: 2, Duration: time.Minute}})
	d.fail("ann", 2)
	d.out("ann")
	d.passed.Add(int64(time.Minute))
	d.in("ann")
	d.tune(func(c *core.MountConfig) { c.LockoutThreshold, c.LockoutDuration = 1, time.Hour })
	d.fail("bob", 1)
	d.passed.Add(int64(59 * time.Minute))
	d.out("bob")
	d.tune(func(c *core.MountConfig) { c.LockoutDisable = true })
	d.in("bob")
	d.fail("bob", 20)
	d.in("bob")
}

// TestLockoutFlood tries very many names once each: what was counted of one
// that is being guessed at stays counted, and nothing is stored.
func TestLockoutFlood(t *testing.T) {
	d := newDoor(t, nil)
	d.fail("ann", 4)
	for i := range 100_000 {
		if err := d.try(fmt.Sprint("name", i), "guess"); !errs.Is(err, errs.Invalid) {
			t.Fatalf("name%d = %v", i, err)
		}
	}
	d.fail("ann", 1)
	d.out("ann")
	if got := d.locked(); got != "ann " {
		t.Errorf("locked out are %q, want ann alone", got)
	}
}

// TestLockoutAtOnce lets guesses run at the same time: one that comes out right
// after the others have locked the name is refused.
func TestLockoutAtOnce(t *testing.T) {
	d := newDoor(t, nil)
	gate, inside := make(chan struct{}), make(chan struct{}, 1)
	d.door.wait = func() { inside <- struct{}{}; <-gate }
	late := make(chan error)
	go func() { late <- d.try("ann", "open sesame") }()
	<-inside
	d.door.wait = nil
	d.fail("ann", 5)
	close(gate)
	if err := <-late; !errs.Is(err, errs.Denied) {
		t.Errorf("the right word, after five wrong ones at the same time = %v, want denied", err)
	}
}

func TestLoginIsNoWayToRoot(t *testing.T) {
	d := newDoor(t, nil)
	for _, word := range []string{"as root", "as wrapper"} {
		if err := d.try("ann", word); !errs.Is(err, errs.Invalid) {
			t.Errorf("a login %s = %v, want refused", word, err)
		}
	}
}

// TestLockoutsAreSwept looks into the store after a lockout is over.
func TestLockoutsAreSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, nil)
		rows := func() (n int) {
			store, err := d.c.Store()
			if err != nil {
				t.Fatal(err)
			}
			err = store.View(t.Context(), func(v storage.View) error {
				return v.Scan("lock", "locl", 0, func(string, []byte) bool { n++; return true })
			})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		for i := range 45 {
			d.fail(fmt.Sprint("name", i), 5)
		}
		if got := rows(); got != 90 {
			t.Errorf("45 who are locked out have %d rows, want 90", got)
		}
		time.Sleep(10 * time.Minute)
		d.passed.Store(int64(10 * time.Minute))
		if err := d.c.UnlockUser(t.Context(), token.RootNamespace, d.accessor(), "name7"); err != nil {
			t.Error(err)
		}
		d.fail("name7", 5)
		d.passed.Store(int64(16 * time.Minute))
		time.Sleep(10 * time.Second)
		if got := rows(); got != 2 {
			t.Errorf("after their time there are %d rows, want the 2 of the one that was locked out anew", got)
		}
		d.out("name7")
	})
}

// TestLoginsThatAreCut are told so, whatever it is that cuts them.
func TestLoginsThatAreCut(t *testing.T) {
	d := newDoor(t, nil)
	for word, want := range map[string]struct {
		ttl      time.Duration
		warnings int
	}{"open sesame": {768 * time.Hour, 0}, "a while": {time.Hour, 1}, "now and then": {768 * time.Hour, 1}} {
		r := d.do(wire.OpUpdate, "auth/door/login/ann", secret.String{}, fmt.Sprintf(`{"word":%q}`, word))
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		var got struct {
			TTL int `json:"lease_duration"`
		}
		if err := json.Unmarshal(r.Auth.AppendJSON(nil), &got); err != nil {
			t.Fatal(err)
		}
		if ttl := time.Duration(got.TTL) * time.Second; ttl != want.ttl || len(r.Warnings) != want.warnings {
			t.Errorf("a login with %q lives %v and warns %q, want %v and %d warnings", word, ttl, r.Warnings, want.ttl, want.warnings)
		}
	}
}
