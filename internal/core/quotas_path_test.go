package core_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// The most exact quota holds for a request: each has a rate that tells it.
func TestQuotaPrecedence(t *testing.T) {
	r := quotaRig(t, mem.New())
	team := r.space("team")
	r.space("team/app")
	r.space("other")
	r.mountIn(team, "kv/", "kv")
	r.quotaConfig(func(c *core.QuotaConfig) {
		c.ResponseHeaders = true
		c.Exempt = append(c.Exempt, "kv/free", "kv/open/*")
		c.AbsoluteExempt = []string{"team/kv/mine"}
	})
	yes := true
	for i, q := range []core.Quota{
		{Path: ""},
		{Path: "kv"},
		{Path: "kv/data/a"},
		{Path: "kv/data/*"},
		{Path: "kv/data/ab*"},
		{Path: "auth/gate/"},
		{Path: "auth/gate/", Role: "web"},
		{Path: "auth/gate/login"},
		{Path: "team/", Inheritable: &yes},
		{Path: "/team/kv/"},
	} {
		q.Name, q.Rate = fmt.Sprint("q", i), float64(100+i)
		r.quota(core.RateLimit, q)
	}
	for _, c := range []struct {
		ns, path, body string
		op             wire.Op
		want           string // the rate of the quota; "" is none
	}{
		{"", "nowhere/x", "", wire.OpRead, "100"},
		{"", "kv/x", "", wire.OpRead, "101"},
		{"", "kv/", "", wire.OpList, "101"},
		{"", "kv/data/a", "", wire.OpRead, "102"},
		{"", "kv/data/a/", "", wire.OpList, "102"},
		{"", "kv/data/b", "", wire.OpRead, "103"},
		{"", "kv/data/a/b", "", wire.OpRead, "103"},
		{"", "kv/data/abc", "", wire.OpRead, "104"},
		{"", "auth/gate/other", "", wire.OpRead, "105"},
		{"", "auth/gate/login", `{"role":"web"}`, wire.OpUpdate, "106"},
		{"", "auth/gate/login", `{"role":"batch"}`, wire.OpUpdate, "107"},
		{"", "auth/gate/login", `{"role":7.5}`, wire.OpUpdate, "107"},
		{"team", "sys/x", "", wire.OpRead, "108"},
		{"team/app", "sys/x", "", wire.OpRead, "108"},
		{"team", "kv/x", "", wire.OpRead, "109"},
		{"", "team/kv/x", "", wire.OpRead, "109"},
		{"other", "sys/x", "", wire.OpRead, "100"},
		{"", "kv/free", "", wire.OpRead, ""},
		{"team", "kv/free", "", wire.OpRead, ""},
		{"", "kv/open/a/b", "", wire.OpRead, ""},
		{"team", "kv/mine", "", wire.OpRead, ""},
		{"", "kv/mine", "", wire.OpRead, "101"},
	} {
		p := r.from("192.0.2.1", c.ns, c.op, c.path, r.root, c.body)
		if got := p.Header.Get("X-Ratelimit-Limit"); got != c.want {
			t.Errorf("%s %q of namespace %q has the rate %q, want %q (%v)", c.op, c.path, c.ns, got, c.want, p.Err)
		}
	}
}

// A quota follows its mount.
func TestQuotaFollowsItsMount(t *testing.T) {
	r := quotaRig(t, mem.New())
	r.quota(core.RateLimit, core.Quota{Name: "q", Path: "kv/a*", Rate: 1, Interval: time.Hour})
	path := func() string {
		q, there, err := r.c.Quota(t.Context(), token.RootNamespace, core.RateLimit, "q")
		if err != nil {
			t.Fatal(err)
		}
		if !there {
			return "gone"
		}
		return q.Path
	}
	if got := path(); got != "kv/a*" {
		t.Errorf("the quota's path is %q", got)
	}
	if err := r.c.MoveMount(t.Context(), token.RootNamespace, "kv/", "moved/kv/"); err != nil {
		t.Fatal(err)
	}
	if got := path(); got != "moved/kv/a*" {
		t.Errorf("after moving its mount the quota's path is %q", got)
	}
	if err := r.from("192.0.2.1", "", wire.OpRead, "moved/kv/ab", r.root, "").Err; !errs.Is(err, errs.NotFound) {
		t.Errorf("the first request = %v, want NotFound", err)
	}
	if err := r.from("192.0.2.1", "", wire.OpRead, "moved/kv/ab", r.root, "").Err; !errs.Is(err, errs.TooMany) {
		t.Errorf("the second request = %v, want TooMany", err)
	}
}

func TestQuotaGoesWithItsMount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mem.New()
		r := quotaRig(t, db)
		team := r.space("team")
		r.mountIn(team, "kv/", "kv")
		for name, path := range map[string]string{"mount": "kv/", "space": "team/", "below": "team/kv/x"} {
			r.quota(core.RateLimit, core.Quota{Name: name, Path: path, Rate: 1})
		}
		if err := r.c.RemoveMount(t.Context(), token.RootNamespace, "kv/"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.c.RemoveNamespace(t.Context(), token.RootNamespace, "team"); err != nil {
			t.Fatal(err)
		}
		if names, err := r.c.QuotaNames(t.Context(), token.RootNamespace, core.RateLimit); len(names) != 0 || err != nil {
			t.Errorf("QuotaNames = %q, %v, want none", names, err)
		}
		later(5 * time.Minute)
		left := 0
		err := db.View(t.Context(), func(v storage.View) error {
			return v.Scan("quota", storage.PrefixEnd("quota"), 0, func(string, []byte) bool { left++; return true })
		})
		if left != 0 || err != nil {
			t.Errorf("%d rows of quotas are left, %v", left, err)
		}
	})
}

// folding is an auth method that knows names in small letters.
type folding struct{}

func (folding) Routes(t *route.Table) {
	t.With(func(t *route.Table) {
		route.Login(t, "login/{name}", func(context.Context, *route.Request, doorIn) (*route.Auth, error) {
			return &route.Auth{Policies: []string{"web"}}, nil
		})
		write := func(context.Context, *route.Request, route.None) (route.None, error) { return route.None{}, nil }
		route.Login(t, "login", func(_ context.Context, _ *route.Request, in gateIn) (*route.Auth, error) {
			return &route.Auth{Policies: []string{"web"}, Role: strings.ToLower(in.Role)}, nil
		}, route.RoleOf(func(_ context.Context, _ *route.Request, in gateIn) (string, error) {
			return strings.ToLower(in.Role), nil
		}))
		route.Write(t, "users/{name}", write)
		route.Write(t, "users/{name}/password", write)
	}, route.Folds(strings.ToLower))
}

// A quota on a path holds however the name in it is spelt, by whoever asks and
// by whoever wrote the quota.
func TestQuotaOfANameInSeveralSpellings(t *testing.T) {
	r := openWith(t, mem.New(), map[string]engine.Factory{
		"auth/fold": func(context.Context, engine.Env) (engine.Engine, error) { return folding{}, nil },
	})
	if err := r.c.AddMount(t.Context(), &core.Mount{Namespace: token.RootNamespace, Path: "auth/fold/", Class: core.ClassAuth, Type: "fold"}); err != nil {
		t.Fatal(err)
	}
	r.quotaConfig(func(c *core.QuotaConfig) { c.ResponseHeaders = true })
	for i, path := range []string{"", "login/alice", "login/Bob", "login/Ca*", "users/Bob/pass*"} {
		r.quota(core.RateLimit, core.Quota{Name: fmt.Sprint("q", i), Path: "auth/fold/" + path, Rate: float64(100 + i)})
	}
	for path, want := range map[string]string{
		"login/dora": "100", "login/alice": "101", "login/ALICE": "101", "login/bob": "102", "login/Bob": "102", "login/BOB": "102",
		"login/carl": "103", "login/CARL": "103", "login/Carl": "103", "users/bob/password": "104", "users/BOB/password": "104",
		"users/alice/password": "100",
	} {
		p := r.from("192.0.2.1", "", wire.OpUpdate, "auth/fold/"+path, r.root, "{}")
		if got := p.Header.Get("X-Ratelimit-Limit"); got != want {
			t.Errorf("%s has the rate %q, want %q (%v)", path, got, want, p.Err)
		}
	}
	r.quota(core.RateLimit, core.Quota{Name: "role", Path: "auth/fold/", Role: "Web", Rate: 200})
	r.quota(core.LeaseCount, core.Quota{Name: "role", Path: "auth/fold/", Role: "Web", MaxLeases: 1})
	for i, role := range []string{"web", "WEB"} {
		p := r.from("192.0.2.1", "", wire.OpUpdate, "auth/fold/login", noToken, fmt.Sprintf(`{"role":%q}`, role))
		if got := p.Header.Get("X-Ratelimit-Limit"); got != "200" || errs.Is(p.Err, errs.TooMany) != (i > 0) {
			t.Errorf("login %d of role %s has the rate %q, want 200, and gives %v", i, role, got, p.Err)
		}
	}
	if q, _, err := r.c.Quota(t.Context(), token.RootNamespace, core.RateLimit, "q2"); err != nil || q.Path != "auth/fold/login/Bob" {
		t.Errorf("Quota = %+v, %v, want the path as it was written", q, err)
	}
	err := r.c.WriteQuota(t.Context(), token.RootNamespace, core.RateLimit, core.Quota{Name: "again", Path: "auth/fold/login/BOB", Rate: 1})
	if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), `exists under the name "q2"`) {
		t.Errorf("a second quota of one name = %v, want it refused", err)
	}
}
