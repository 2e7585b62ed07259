package approle_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestLogin(t *testing.T) {
	r := start(t)
	r.must(wire.OpUpdate, "role/web", `{"token_policies":"b,a","token_ttl":"20m","token_max_ttl":"1h","token_period":"5m","token_num_uses":4,"token_explicit_max_ttl":"3h","token_type":"service","token_no_default_policy":true}`)
	roleID := r.roleID("web")
	id, _ := r.secretID("web", `{"metadata":{"env":"ci"},"token_bound_cidrs":"192.0.2.0/24"}`)
	a := r.in(" "+roleID+"\n", id+" ")
	if len(a.Internal) == 0 {
		t.Error("nothing is kept with the token for its renewal")
	}
	want := &route.Auth{
		Policies: []string{"b", "a"}, TTL: 20 * time.Minute, MaxTTL: time.Hour, Period: 5 * time.Minute, NumUses: 4,
		ExplicitMaxTTL: 3 * time.Hour, Type: route.TokenService, NoDefaultPolicy: true, Metadata: map[string]string{"env": "ci", "role_name": "web"},
		BoundCIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		Alias:      &route.Alias{Name: roleID, Metadata: map[string]string{"role_name": "web"}}, Role: "web", Internal: a.Internal,
	}
	if d := cmp.Diff(want, a, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("a login (-want +got):\n%s", d)
	}
	if again := r.in(roleID, id); again.Metadata["env"] != "ci" {
		t.Errorf("a second login has the metadata %v", again.Metadata)
	}
	other, _ := r.secretID("web", "")
	if a := r.in(roleID, other); len(a.Metadata) != 1 || len(a.BoundCIDRs) > 0 {
		t.Errorf("a login takes over what the secret id of another one says: %v, %v", a.Metadata, a.BoundCIDRs)
	}
}

// TestWrongLogins: whatever is wrong, the answer is one and the same, so that
// nobody learns which roles there are.
func TestWrongLogins(t *testing.T) {
	r := start(t)
	r.must(wire.OpUpdate, "role/web", `{"role_id":"web-id"}`)
	r.must(wire.OpUpdate, "role/other", `{"role_id":"other-id"}`)
	id, acc := r.secretID("web", "")
	for what, c := range map[string][2]string{
		"a role id that there is not":          {"nobody", id},
		"no secret id":                         {"web-id", ""},
		"no secret id for a role there is not": {"nobody", ""},
		"a wrong secret id":                    {"web-id", "guess"},
		"that of another role":                 {"other-id", id},
		"a secret id that is cut":              {"web-id", id[:len(id)-1]},
		"an accessor":                          {"web-id", acc},
		"upper case":                           {"web-id", strings.ToUpper(id)},
		"the role id in upper case":            {"WEB-ID", id},
		"the name of the role":                 {"web", id},
		"a very long secret id":                {"web-id", strings.Repeat("s", 1<<20)},
		"a very long role id":                  {strings.Repeat("r", 1<<20), id},
		"a path":                               {"../role/web", id},
		"bytes that are no text":               {"web-id\x00", "\xff\xfe"},
	} {
		r.wrong(what, c[0], c[1])
	}
	for _, body := range []string{``, `{}`, `{"secret_id":"x"}`, `{"role_id":""}`, `{"role_id":" "}`, `{"role_id":{}}`, `{"role_id":["web-id"]}`, `{"role_id":"web-id","secret_id":{"a":1}}`} {
		_, _, err := r.call(wire.OpUpdate, "login", body)
		if !errs.Is(err, errs.Invalid) || errors.Is(err, route.ErrCredentials) {
			t.Errorf("login %s = %v, want that it is malformed", body, err)
		}
	}
	r.in("web-id", id)
}

// TestUses: a limited secret id is good for so many logins, however many try at
// once, and each costs one transaction, also a login that is refused then. An
// unlimited one costs none.
func TestUses(t *testing.T) {
	r := start(t)
	r.must(wire.OpUpdate, "role/web", `{"role_id":"web-id"}`)
	id, acc := r.secretID("web", `{"num_uses":5,"cidr_list":"192.0.2.0/24"}`)
	unlimited, _ := r.secretID("web", "")
	writes := r.writes.Load()
	for range 20 {
		r.in("web-id", unlimited)
		r.wrong("a guess", "web-id", "guess")
	}
	if n := r.writes.Load() - writes; n != 0 {
		t.Errorf("40 logins without a limit wrote %d times", n)
	}

	r.remote = netip.MustParseAddr("198.51.100.1")
	if _, err := r.login("web-id", id); !errs.Is(err, errs.Invalid) {
		t.Errorf("a login from elsewhere = %v", err)
	}
	r.remote = netip.MustParseAddr("192.0.2.9")
	if n := r.writes.Load() - writes; n != 1 {
		t.Errorf("a refused login with a limited secret id wrote %d times, want once", n)
	}
	if got := r.must(wire.OpUpdate, "role/web/secret-id-accessor/lookup", `{"secret_id_accessor":"`+acc+`"}`)["secret_id_num_uses"]; got != 4.0 {
		t.Errorf("after a refused login %v uses are left, want 4", got)
	}
	var in, out atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := r.login("web-id", id); err == nil {
				in.Add(1)
			} else if errors.Is(err, route.ErrCredentials) {
				out.Add(1)
			}
		})
	}
	wg.Wait()
	if in.Load() != 4 || out.Load() != 12 {
		t.Errorf("%d logins of 16 with 4 uses succeeded, and %d were wrong", in.Load(), out.Load())
	}
	if keys, _ := r.rows(); slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, "exp/") }) || len(keys) != 4 {
		t.Errorf("after the last use there are the rows %q, want those of the role and of the other secret id", keys)
	}
}

func TestAddresses(t *testing.T) {
	r := start(t)
	r.must(wire.OpUpdate, "role/bound", `{"role_id":"bound","bind_secret_id":false,"secret_id_bound_cidrs":"192.0.2.0/25,2001:db8::/32"}`)
	r.must(wire.OpUpdate, "role/token", `{"role_id":"token","bind_secret_id":false,"token_bound_cidrs":"192.0.2.0/25"}`)
	r.must(wire.OpUpdate, "role/narrow", `{"role_id":"narrow","token_bound_cidrs":"192.0.2.0/24"}`)
	id, _ := r.secretID("narrow", `{"token_bound_cidrs":"192.0.2.0/25"}`)
	for _, c := range []struct {
		from, role, secret string
		want               errs.Kind // 0: none
	}{
		{"192.0.2.7", "bound", "", 0}, {"192.0.2.200", "bound", "", errs.Invalid}, {"2001:db8::1", "bound", "ignored", 0},
		{"::ffff:192.0.2.7", "bound", "", 0}, {"192.0.2.7", "token", "", 0}, {"192.0.2.200", "token", "", errs.Denied},
		{"192.0.2.7", "narrow", id, 0}, {"192.0.2.200", "narrow", id, errs.Denied},
	} {
		r.remote = netip.MustParseAddr(c.from)
		a, err := r.login(c.role, c.secret)
		if c.want == 0 && err != nil || c.want != 0 && !errs.Is(err, c.want) {
			t.Errorf("a login of %s from %s = %v, want kind %d", c.role, c.from, err, c.want)
		}
		if errors.Is(err, route.ErrCredentials) {
			t.Errorf("a login of %s from %s counts as a guess", c.role, c.from)
		}
		if err == nil && c.role == "token" && len(a.BoundCIDRs) != 1 {
			t.Errorf("the token is bound to %v", a.BoundCIDRs)
		}
	}
}

// TestNarrowedRole: networks that a role's tokens are bound to hold for secret
// ids that were made when there were more of them.
func TestNarrowedRole(t *testing.T) {
	r := start(t)
	r.must(wire.OpUpdate, "role/web", `{"role_id":"web","token_bound_cidrs":"192.0.2.0/24,2001:db8::/32"}`)
	id, _ := r.secretID("web", `{"token_bound_cidrs":"192.0.2.0/25,2001:db8::/48"}`)
	for _, c := range []struct{ role, from, bound string }{
		{"192.0.2.0/24,2001:db8::/32", "192.0.2.7", "[192.0.2.0/25 2001:db8::/48]"},
		{"192.0.2.0/28", "192.0.2.7", "[192.0.2.0/28]"},
		{"192.0.2.0/28", "192.0.2.100", ""},
		{"192.0.2.128/25", "192.0.2.7", ""},
		{"192.0.2.128/25", "192.0.2.200", ""},
		{"", "192.0.2.7", "[192.0.2.0/25 2001:db8::/48]"},
	} {
		r.must(wire.OpUpdate, "role/web", `{"token_bound_cidrs":"`+c.role+`"}`)
		r.remote = netip.MustParseAddr(c.from)
		a, err := r.login("web", id)
		switch {
		case c.bound == "" && !errs.Is(err, errs.Denied):
			t.Errorf("with the role bound to %q a login from %s = %v, want it denied", c.role, c.from, err)
		case c.bound != "" && (err != nil || fmt.Sprint(a.BoundCIDRs) != c.bound):
			t.Errorf("with the role bound to %q a login from %s = %+v, %v, want a token bound to %s", c.role, c.from, a, err, c.bound)
		}
	}
}

func TestRenewal(t *testing.T) {
	r := start(t)
	r.must(wire.OpUpdate, "role/web", `{"token_policies":"a","token_ttl":"20m"}`)
	id, _ := r.secretID("web", "")
	a := r.in(r.roleID("web"), id)
	renew := func() (*route.Auth, error) {
		return r.eng.(engine.Renewer).RenewLogin(t.Context(), engine.Renewal{Internal: a.Internal, Policies: []string{"a", "default"}})
	}
	r.must(wire.OpUpdate, "role/web", `{"token_policies":"b","token_ttl":"30m","token_max_ttl":"2h","token_period":"1m","role_id":"another"}`)
	got, err := renew()
	if err != nil {
		t.Fatalf("RenewLogin = %v", err)
	}
	if got.TTL != 30*time.Minute || got.MaxTTL != 2*time.Hour || got.Period != time.Minute {
		t.Errorf("RenewLogin = %v, %v, %v, want what the role says now", got.TTL, got.MaxTTL, got.Period)
	}
	if !slices.Equal(got.Policies, []string{"a", "default"}) || !got.NoDefaultPolicy {
		t.Errorf("RenewLogin gives the policies %v, want the token's own", got.Policies)
	}
	r.must(wire.OpDelete, "role/web", "")
	if _, err := renew(); !errs.Is(err, errs.Invalid) {
		t.Errorf("RenewLogin of a role that was deleted = %v", err)
	}
	r.must(wire.OpUpdate, "role/web", `{"token_policies":"a"}`)
	if _, err := renew(); !errs.Is(err, errs.Invalid) {
		t.Errorf("RenewLogin of a role that was made again = %v", err)
	}
}

// BenchmarkLogin is a login without the token.
func BenchmarkLogin(b *testing.B) {
	r := start(b)
	r.must(wire.OpUpdate, "role/web", `{"role_id":"web-id","token_policies":"a","token_ttl":"20m"}`)
	id, _ := r.secretID("web", "")
	body := []byte(`{"role_id":"web-id","secret_id":"` + id + `"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := r.call(wire.OpUpdate, "login", string(body)); err != nil {
			b.Fatal(err)
		}
	}
}
