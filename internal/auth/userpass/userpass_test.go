package userpass_test

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/leasehold/leasehold/internal/auth/userpass"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// rig is the method on a mount.
type rig struct {
	t      *testing.T
	eng    engine.Engine
	table  *route.Table
	store  storage.Backend
	remote netip.Addr
	work   []int // costs of the comparisons that were made
	quick  bool  // those of hashes that are not cheap are not made, and fail
}

func start(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, table: route.NewTable(), store: mem.New(), remote: netip.MustParseAddr("192.0.2.7")}
	t.Cleanup(func() { _ = r.store.Close() })
	e, err := userpass.New(t.Context(), engine.Env{
		Store: r.store, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	userpass.SetCompare(e, func(hash, password []byte) error {
		cost, err := bcrypt.Cost(hash)
		if err != nil {
			t.Errorf("compared with %q: %v", hash, err)
		}
		r.work = append(r.work, cost)
		if r.quick && cost >= 10 {
			return bcrypt.ErrMismatchedHashAndPassword
		}
		if err = bcrypt.CompareHashAndPassword(hash, password); err != nil && !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			t.Errorf("comparing with %q: %v", hash, err)
		}
		return err
	})
	r.eng = e
	e.Routes(r.table)
	return r
}

func (r *rig) call(op wire.Op, path, body string) (route.Result, error) {
	r.t.Helper()
	req := &route.Request{Op: op, Path: path, Remote: r.remote, Mount: route.MountInfo{MaxTTL: 768 * time.Hour}}
	if body != "" {
		req.Body = []byte(body)
	}
	ep, err := r.table.Route(req)
	if err != nil {
		return route.Result{}, err
	}
	return ep.Call(r.t.Context(), req)
}

func (r *rig) must(op wire.Op, path, body string) map[string]any {
	r.t.Helper()
	res, err := r.call(op, path, body)
	if err != nil {
		r.t.Fatalf("%s %s %s = %v", op, path, body, err)
	}
	var data map[string]any
	if res.Data != nil {
		if err := json.Unmarshal(res.Data.AppendJSON(nil), &data); err != nil {
			r.t.Fatal(err)
		}
	}
	return data
}

func (r *rig) refused(kind errs.Kind, op wire.Op, path, body string) {
	r.t.Helper()
	if _, err := r.call(op, path, body); !errs.Is(err, kind) {
		r.t.Errorf("%s %s %.200s = %v, want an error of kind %d", op, path, body, err, kind)
	}
}

// hash is a cheap one.
func hash(t *testing.T, password string, cost int) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (r *rig) user(name, password string, cost int) {
	r.t.Helper()
	r.must(wire.OpUpdate, "users/"+name, fmt.Sprintf(`{"password_hash":%q}`, hash(r.t, password, cost)))
}

// login gives also the work that it took.
func (r *rig) login(name, password string) (a *route.Auth, work int, err error) {
	r.t.Helper()
	r.work = nil
	body, err := json.Marshal(map[string]string{"password": password})
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := r.call(wire.OpUpdate, "login/"+name, string(body))
	for _, c := range r.work {
		work += 1 << c
	}
	return res.Auth, work, err
}

func TestUser(t *testing.T) {
	r := start(t)
	r.refused(errs.NotFound, wire.OpRead, "users/ann", "")
	r.refused(errs.NotFound, wire.OpList, "users/", "")
	r.refused(errs.Invalid, wire.OpUpdate, "users/ann", `{"token_policies":"a"}`) // no password
	r.must(wire.OpUpdate, "users/Ann", `{"password":"first","token_policies":["b","a"],"token_ttl":"15m","token_bound_cidrs":"192.0.2.7/32"}`)
	want := map[string]any{
		"token_bound_cidrs": []any{"192.0.2.7"}, "token_explicit_max_ttl": 0.0, "token_max_ttl": 0.0, "token_no_default_policy": false,
		"token_num_uses": 0.0, "token_period": 0.0, "token_policies": []any{"b", "a"}, "token_ttl": 900.0, "token_type": "default",
	}
	if d := cmp.Diff(want, r.must(wire.OpRead, "users/ann", "")); d != "" {
		t.Errorf("a user (-want +got):\n%s", d)
	}
	a, _, err := r.login("aNN", "first")
	if err != nil {
		t.Fatalf("login = %v", err)
	}
	wantAuth := &route.Auth{
		Policies: []string{"b", "a"}, TTL: 15 * time.Minute, DisplayName: "ann", Metadata: map[string]string{"username": "ann"},
		BoundCIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}, Alias: &route.Alias{Name: "ann"}, Internal: a.Internal,
	}
	if d := cmp.Diff(wantAuth, a, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("a login (-want +got):\n%s", d)
	}
	r.remote = netip.MustParseAddr("198.51.100.1")
	if _, _, err := r.login("ann", "first"); !errs.Is(err, errs.Denied) || errors.Is(err, route.ErrCredentials) {
		t.Errorf("a login from elsewhere = %v, want denied", err)
	}
	if _, _, err := r.login("ann", "other"); !errors.Is(err, route.ErrCredentials) {
		t.Errorf("a guess from elsewhere = %v, want that it is wrong", err)
	}
	r.remote = netip.MustParseAddr("192.0.2.7")

	r.must(wire.OpUpdate, "users/old", `{"password":"x","policies":"p1,p2","ttl":"5m","max_ttl":"10m","bound_cidrs":["10.0.0.0/8"]}`)
	got := r.must(wire.OpRead, "users/old", "")
	if s := fmt.Sprint(got["policies"], got["token_policies"], got["ttl"], got["token_ttl"], got["max_ttl"], got["token_max_ttl"], got["bound_cidrs"]); s != "[p1 p2] [p1 p2] 300 300 600 600 [10.0.0.0/8]" {
		t.Errorf("a user written by older names reads %s", s)
	}
	r.must(wire.OpUpdate, "users/old/policies", `{"token_policies":"q"}`)
	if got := r.must(wire.OpRead, "users/old", ""); got["policies"] != nil || fmt.Sprint(got["token_policies"]) != "[q]" || got["ttl"] != 300.0 {
		t.Errorf("after the newer name of one field was used it reads %v", got)
	}
	if got := fmt.Sprint(r.must(wire.OpList, "users/", "")["keys"]); got != "[ann old]" {
		t.Errorf("LIST = %s", got)
	}
	r.must(wire.OpDelete, "users/OLD", "")
	r.must(wire.OpDelete, "users/old", "")
	r.refused(errs.NotFound, wire.OpRead, "users/old", "")
}

func TestPasswords(t *testing.T) {
	r := start(t)
	r.user("ann", "first", 4)
	right := func(password string) {
		t.Helper()
		if _, _, err := r.login("ann", password); err != nil {
			t.Errorf("login with %q = %v", password, err)
		}
	}
	right("first")
	r.must(wire.OpUpdate, "users/ann/password", fmt.Sprintf(`{"password_hash":%q}`, hash(t, "second", 5)))
	right("second")
	if _, _, err := r.login("ann", "first"); !errors.Is(err, route.ErrCredentials) {
		t.Errorf("the former password = %v", err)
	}
	r.must(wire.OpUpdate, "users/ann", `{"token_ttl":"1h"}`) // the password stays
	right("second")
	long := strings.Repeat("é", 36) // 72 bytes
	r.must(wire.OpUpdate, "users/ann/password", fmt.Sprintf(`{"password":%q}`, long))
	right(long)
	if _, _, err := r.login("ann", long+"x"); !errors.Is(err, route.ErrCredentials) {
		t.Errorf("more than bcrypt looks at = %v, want that it is wrong", err)
	}
	// Hashes of other makers, all of "U*U": from crypt_blowfish's test vectors.
	for _, h := range []string{
		"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
	} {
		r.must(wire.OpUpdate, "users/ann/password", fmt.Sprintf(`{"password_hash":%q}`, h))
		right("U*U")
	}
	good := hash(t, "x", 4)
	for _, body := range []string{
		`{}`, `{"password":""}`, `{"password":"` + strings.Repeat("x", 73) + `"}`, `{"password":"a","password_hash":"` + good + `"}`,
		`{"password_hash":"secret"}`, `{"password_hash":"` + good[:59] + `"}`, `{"password_hash":"` + good + `="}`,
		`{"password_hash":"` + good[:59] + `!"}`, `{"password_hash":"` + strings.Replace(good, "$04$", "$31$", 1) + `"}`,
		`{"password_hash":"` + strings.Replace(good, "$04$", "$03$", 1) + `"}`, `{"password_hash":"` + strings.Replace(good, "$2a$", "$3a$", 1) + `"}`,
		`{"password":{"a":1}}`,
	} {
		r.refused(errs.Invalid, wire.OpUpdate, "users/ann/password", body)
	}
	r.refused(errs.Invalid, wire.OpUpdate, "users/nobody/password", `{"password_hash":"`+good+`"}`)
	r.refused(errs.Invalid, wire.OpUpdate, "users/nobody/policies", `{"token_policies":"a"}`)
	r.refused(errs.Invalid, wire.OpUpdate, "users/"+strings.Repeat("n", 257), `{"password_hash":"`+good+`"}`)
	r.refused(errs.Invalid, wire.OpUpdate, "users/ann", `{"token_type":"gold"}`)
}

// TestNobodyIsTold: wrong names and wrong passwords have one answer, and take
// the same work, whatever the hashes of the users that there are cost.
func TestNobodyIsTold(t *testing.T) {
	r := start(t)
	r.user("cheap", "right", 4)
	r.user("usual", "right", 10)
	r.quick = true
	tries := []struct{ name, password string }{
		{"cheap", "wrong"}, {"usual", "wrong"}, {"nobody", "wrong"}, {"nobody", "right"}, {"usual", "right\x00"},
		{"cheap", strings.Repeat("x", 100)}, {"nobody", strings.Repeat("x", 100)}, {"nobody", strings.Repeat("x", 1<<20)},
		{strings.Repeat("n", 2000), "wrong"}, {"a b", "wrong"}, {"ü", "wrong"}, {"%00", "wrong"}, {"..", "wrong"}, {"*", "wrong"},
	}
	same := func(want int) {
		t.Helper()
		for _, c := range tries {
			_, work, err := r.login(c.name, c.password)
			if !errors.Is(err, route.ErrCredentials) || errs.Message(err) != "invalid username or password" {
				t.Errorf("%.20q with %.20q = %v, want that it is wrong", c.name, c.password, err)
			}
			if work != want {
				t.Errorf("%.20q with %.20q takes the work %d, of comparisons at the costs %v; want %d", c.name, c.password, work, r.work, want)
			}
		}
	}
	same(1 << 10)
	r.user("dear", "right", 11)
	tries = append(tries[:3:3], struct{ name, password string }{"dear", "wrong"})
	same(1 << 11)
	r.quick = false
	for _, name := range []string{"cheap", "usual", "dear"} {
		if _, _, err := r.login(name, "right"); err != nil || len(r.work) != 1 {
			t.Errorf("the right password of %s = %v, with %d comparisons", name, err, len(r.work))
		}
	}
	for _, body := range []string{``, `{}`, `{"password":""}`, `{"password":null}`, `{"password":["right"]}`} {
		r.work = nil
		for _, name := range []string{"usual", "nobody"} {
			if _, err := r.call(wire.OpUpdate, "login/"+name, body); !errs.Is(err, errs.Invalid) || errors.Is(err, route.ErrCredentials) || len(r.work) > 0 {
				t.Errorf("login of %s with %s = %v, want that it is malformed", name, body, err)
			}
		}
	}
}

// TestWrongNamesTakeAsLong measures what TestNobodyIsTold counts, with room
// for a busy machine: the quickest of several tries are compared.
func TestWrongNamesTakeAsLong(t *testing.T) {
	r := start(t)
	r.user("ann", "right", 10)
	quickest := func(name string) time.Duration {
		best := time.Duration(math.MaxInt64)
		for range 5 {
			at := time.Now()
			if _, _, err := r.login(name, "wrong"); !errors.Is(err, route.ErrCredentials) {
				t.Fatalf("login = %v", err)
			}
			best = min(best, time.Since(at))
		}
		return best
	}
	if user, nobody := quickest("ann"), quickest("nobody"); user > 3*nobody || nobody > 3*user {
		t.Errorf("a wrong password takes %v, a wrong name %v", user, nobody)
	}
}

// TestPasswordOfWhoeverWaits: a login that has to wait for its turn is judged
// by the password that the user has when it comes.
func TestPasswordOfWhoeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		turn := make(chan struct{})
		userpass.SetCompare(r.eng, func(hash, password []byte) error {
			if string(password) == "slow" {
				<-turn
			}
			return bcrypt.CompareHashAndPassword(hash, password)
		})
		for _, name := range []string{"ann", "bob"} {
			r.must(wire.OpUpdate, "users/"+name, fmt.Sprintf(`{"password_hash":%q}`, hash(t, "first", 4)))
		}
		for range runtime.GOMAXPROCS(0) {
			go r.call(wire.OpUpdate, "login/cid", `{"password":"slow"}`)
		}
		synctest.Wait()
		late := make(chan error, 2)
		for _, name := range []string{"ann", "bob"} {
			go func() {
				_, err := r.call(wire.OpUpdate, "login/"+name, `{"password":"first"}`)
				late <- err
			}()
		}
		synctest.Wait()
		r.must(wire.OpUpdate, "users/ann/password", fmt.Sprintf(`{"password_hash":%q}`, hash(t, "second", 4)))
		r.must(wire.OpDelete, "users/bob", "")
		close(turn)
		for range 2 {
			if err := <-late; !errs.Is(err, errs.Invalid) {
				t.Errorf("a login that waited while its password was changed, or its user deleted = %v, want it refused", err)
			}
		}
	})
}

func TestRenewal(t *testing.T) {
	r := start(t)
	r.user("ann", "right", 4)
	a, _, err := r.login("ann", "right")
	if err != nil {
		t.Fatal(err)
	}
	renew := func() (*route.Auth, error) {
		return r.eng.(engine.Renewer).RenewLogin(t.Context(), engine.Renewal{Internal: a.Internal})
	}
	r.must(wire.OpUpdate, "users/ann", `{"token_policies":"a,b","token_ttl":"30m","token_period":"1m"}`)
	if got, err := renew(); err != nil || got.TTL != 30*time.Minute || got.Period != time.Minute || len(got.Policies) != 2 {
		t.Errorf("RenewLogin = %+v, %v, want what the user says now", got, err)
	}
	r.must(wire.OpDelete, "users/ann", "")
	if _, err := renew(); !errs.Is(err, errs.Invalid) {
		t.Errorf("RenewLogin of a user that was deleted = %v", err)
	}
	r.user("ann", "right", 4)
	if _, err := renew(); !errs.Is(err, errs.Invalid) {
		t.Errorf("RenewLogin of a user that was made again = %v", err)
	}
}

func FuzzCheckHash(f *testing.F) {
	f.Add("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW")
	f.Add("$2$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeWaa")
	f.Add("secret")
	f.Fuzz(func(t *testing.T, s string) {
		if userpass.CheckHash(s) != nil {
			return
		}
		// What is taken, bcrypt can compare with.
		if cost, err := bcrypt.Cost([]byte(s)); err != nil || cost > 15 {
			t.Fatalf("%q is taken: cost %d, %v", s, cost, err)
		} else if cost > 6 {
			return
		}
		if err := bcrypt.CompareHashAndPassword([]byte(s), []byte("x")); err != nil && !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			t.Errorf("comparing with %q = %v", s, err)
		}
	})
}
