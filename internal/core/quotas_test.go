package core_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// gatehouse is an auth method with roles.
type gatehouse struct{}

type gateIn struct {
	Role  string `json:"role"`
	Batch bool   `json:"batch"`
}

func (gatehouse) Routes(t *route.Table) {
	route.Login(t, "login", func(_ context.Context, _ *route.Request, in gateIn) (*route.Auth, error) {
		a := &route.Auth{Policies: []string{"web"}, Role: in.Role}
		if in.Batch {
			a.Type = route.TokenBatch
		}
		return a, nil
	}, route.RoleOf(func(_ context.Context, _ *route.Request, in gateIn) (string, error) { return in.Role, nil }))
}

// quotaRig has kv/, auth/gate/ and auth/door/, which has no roles.
func quotaRig(t *testing.T, db storage.Backend) *rig {
	t.Helper()
	r := openWith(t, db, map[string]engine.Factory{
		"auth/gate": func(context.Context, engine.Env) (engine.Engine, error) { return gatehouse{}, nil },
		"auth/door": func(context.Context, engine.Env) (engine.Engine, error) { return &door{}, nil },
	})
	r.mount("kv/", "kv", nil)
	for _, typ := range []string{"gate", "door"} {
		if err := r.c.AddMount(t.Context(), &core.Mount{Namespace: token.RootNamespace, Path: "auth/" + typ + "/", Class: core.ClassAuth, Type: typ}); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *rig) quota(kind core.QuotaKind, q core.Quota) {
	r.t.Helper()
	if err := r.c.WriteQuota(r.t.Context(), token.RootNamespace, kind, q); err != nil {
		r.t.Fatalf("WriteQuota(%+v) = %v", q, err)
	}
}

func (r *rig) quotaConfig(change func(*core.QuotaConfig)) {
	r.t.Helper()
	conf, err := r.c.QuotaConfig(r.t.Context())
	if err == nil {
		change(&conf)
		err = r.c.SetQuotaConfig(r.t.Context(), conf)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// from sends a request from an address to a namespace.
func (r *rig) from(addr, ns string, op wire.Op, path string, tok secret.String, body string) *core.Response {
	r.t.Helper()
	req := &core.Request{ID: "req-" + path, Op: op, Path: path, Namespace: ns, Token: tok, Remote: netip.AddrPortFrom(netip.MustParseAddr(addr), 1)}
	if body != "" {
		req.Body = []byte(body)
	}
	return r.c.Handle(r.t.Context(), req)
}

// A client that has used up its rate is refused, logins too, and nobody else is.
func TestRateLimit(t *testing.T) {
	r := quotaRig(t, mem.New())
	r.quotaConfig(func(c *core.QuotaConfig) { c.ResponseHeaders = true })
	r.quota(core.RateLimit, core.Quota{Name: "gate", Path: "auth/gate", Rate: 2, Interval: time.Hour})
	r.quota(core.RateLimit, core.Quota{Name: "kv", Path: "kv", Rate: 1, Interval: time.Hour, GroupBy: core.GroupByNone})
	in := func(addr string) error { return r.from(addr, "", wire.OpUpdate, "auth/gate/login", noToken, `{}`).Err }
	for i, want := range []error{nil, nil, errs.Later(0, "")} {
		err := in("192.0.2.1")
		if errs.KindOf(err) != errs.KindOf(want) {
			t.Errorf("login %d = %v, want %v", i, err, want)
		}
		var e *errs.Error
		if want != nil && (!errors.As(err, &e) || e.After <= 0 || e.Msg != `request path "auth/gate/login": rate limit quota exceeded`) {
			t.Errorf("login %d = %+v, want a time to come back", i, e)
		}
	}
	// Without the headers nobody is told when, as with Vault: its clients sleep
	// that long.
	r.quotaConfig(func(c *core.QuotaConfig) { c.ResponseHeaders = false })
	var e *errs.Error
	if err := in("192.0.2.1"); !errors.As(err, &e) || e.After != 0 {
		t.Errorf("beyond the rate = %+v, want no time to come back", e)
	}
	if err := in("192.0.2.2"); err != nil {
		t.Errorf("another client's login = %v", err)
	}
	if err := r.from("192.0.2.1", "", wire.OpRead, "kv/x", r.root, "").Err; !errs.Is(err, errs.NotFound) {
		t.Errorf("the first of all = %v, want NotFound", err)
	}
	if err := r.from("192.0.2.2", "", wire.OpRead, "kv/x", noToken, "").Err; !errs.Is(err, errs.TooMany) {
		t.Errorf("the second of all = %v, want TooMany", err)
	}
	stats, err := r.c.QuotaStats(t.Context())
	if err != nil || len(stats) != 2 || stats[0].Violations != 2 || stats[1].Violations != 1 {
		t.Errorf("QuotaStats = %+v, %v, want two and one", stats, err)
	}
	// Another rule begins anew.
	r.quota(core.RateLimit, core.Quota{Name: "kv", Path: "kv", Rate: 5})
	if err := r.from("192.0.2.2", "", wire.OpRead, "kv/x", r.root, "").Err; !errs.Is(err, errs.NotFound) {
		t.Errorf("under the new rule = %v, want NotFound", err)
	}
	if err := r.c.DeleteQuota(t.Context(), token.RootNamespace, core.RateLimit, "gate"); err != nil {
		t.Fatal(err)
	}
	if err := in("192.0.2.1"); err != nil {
		t.Errorf("without the quota = %v", err)
	}
}

// Requests that cannot be carried out count too: each is recorded.
func TestRateLimitOfBrokenRequests(t *testing.T) {
	r := quotaRig(t, mem.New())
	r.quota(core.RateLimit, core.Quota{Name: "all", Rate: 2, Interval: time.Hour})
	broken := errs.New(errs.Invalid, "the body is no JSON")
	for i, kind := range []errs.Kind{errs.Invalid, errs.NotFound, errs.TooMany, errs.TooMany, errs.TooMany} {
		req := &core.Request{ID: "b", Op: wire.OpUpdate, Path: "auth/gate/login", Remote: netip.MustParseAddrPort("192.0.2.1:1")}
		var p *core.Response
		switch i % 3 {
		case 0:
			p = r.c.Refuse(t.Context(), req, broken)
		case 1:
			req.Namespace = "nowhere"
			p = r.c.Handle(t.Context(), req)
		case 2:
			req.Path += "/"
			p = r.c.Handle(t.Context(), req)
		}
		if !errs.Is(p.Err, kind) {
			t.Errorf("request %d = %v, want a %v", i, p.Err, kind)
		}
	}
}

var noToken secret.String

// What a rate limit refuses stands in the audit log only where that is wanted.
func TestRateLimitInTheLog(t *testing.T) {
	r := quotaRig(t, mem.New())
	path := t.TempDir() + "/audit.log"
	if err := r.c.EnableAudit(t.Context(), core.AuditDevice{Path: "file/", Type: "file", Options: map[string]string{"file_path": path}}); err != nil {
		t.Fatal(err)
	}
	r.quota(core.RateLimit, core.Quota{Name: "kv", Path: "kv", Rate: 1, Interval: time.Hour})
	lines := func() int { return strings.Count(readFile(t, path), "\n") }
	read := func() { r.from("192.0.2.1", "", wire.OpRead, "kv/x", r.root, "") }
	read()
	before := lines()
	read()
	if n := lines() - before; n != 0 {
		t.Errorf("%d records of a request that was refused, want none", n)
	}
	r.quotaConfig(func(c *core.QuotaConfig) { c.AuditLogging = true })
	read()
	if n := lines() - before; n != 2 {
		t.Errorf("%d records of a request that was refused, want 2", n)
	}
}

func TestQuotasThatAreRefused(t *testing.T) {
	r := quotaRig(t, mem.New())
	r.quota(core.RateLimit, core.Quota{Name: "first", Path: "kv/", Rate: 1})
	yes, no := true, false
	for _, c := range []struct {
		kind core.QuotaKind
		q    core.Quota
		want string
	}{
		{core.RateLimit, core.Quota{Path: "nowhere/", Rate: 1}, `invalid mount path "nowhere/"`},
		{core.RateLimit, core.Quota{Path: "kv/", Rate: 1}, `exists under the name "first"`},
		{core.RateLimit, core.Quota{}, "'rate' is invalid"},
		{core.RateLimit, core.Quota{Rate: -1}, "'rate' is invalid"},
		{core.RateLimit, core.Quota{Rate: 1, GroupBy: "colour"}, "'group_by' is"},
		{core.RateLimit, core.Quota{Rate: 1, Secondary: 1}, "'secondary_rate' is for"},
		{core.RateLimit, core.Quota{Rate: 1, Inheritable: &no}, "it is inheritable"},
		{core.RateLimit, core.Quota{Rate: 1, Path: "kv/x", Inheritable: &yes}, "can be inheritable"},
		{core.RateLimit, core.Quota{Rate: 1, Path: "kv/", Role: "web"}, "not a valid auth method"},
		{core.RateLimit, core.Quota{Rate: 1, Role: "web"}, "not a valid auth method"},
		{core.RateLimit, core.Quota{Rate: 1, Path: "auth/door/", Role: "web"}, "does not support"},
		{core.RateLimit, core.Quota{Rate: 1, Path: "auth/gate/login", Role: "web"}, "a role or a path"},
		{core.LeaseCount, core.Quota{Path: "kv/"}, "'max_leases' is invalid"},
		{core.LeaseCount, core.Quota{Path: "auth/gate/login", MaxLeases: 1}, "is on its mount or on a role"},
	} {
		c.q.Name = "q"
		err := r.c.WriteQuota(t.Context(), token.RootNamespace, c.kind, c.q)
		if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("WriteQuota(%+v) = %v, want %q", c.q, err, c.want)
		}
	}
	// Its own place it may keep, and another's when that has gone.
	r.quota(core.RateLimit, core.Quota{Name: "first", Path: "kv/", Rate: 2})
	r.quota(core.RateLimit, core.Quota{Name: "first", Path: "kv/x", Rate: 2})
	r.quota(core.RateLimit, core.Quota{Name: "second", Path: "kv/", Rate: 2})
}

// The clients of a quota by entity are told apart by it, and those without one
// by their address and with a rate of their own.
func TestQuotaByEntity(t *testing.T) {
	r := quotaRig(t, mem.New())
	r.quota(core.RateLimit, core.Quota{Name: "q", Path: "kv", Rate: 1, Interval: time.Hour, GroupBy: core.GroupByEntityThenIP, Secondary: 2})
	tokenOf := func(entity string) secret.String {
		tok, err := r.c.CreateToken(t.Context(), &token.Entry{Policies: []string{"root"}, EntityID: entity, Expires: time.Now().Add(time.Hour), TTL: time.Hour}, secret.String{})
		if err != nil {
			t.Fatal(err)
		}
		return tok.Text
	}
	ann, bob := tokenOf("ann"), tokenOf("bob")
	for i, c := range []struct {
		tok  secret.String
		addr string
		many bool
	}{
		{ann, "192.0.2.1", false}, {ann, "192.0.2.9", true}, {bob, "192.0.2.1", false},
		{r.root, "192.0.2.1", false}, {r.root, "192.0.2.1", false}, {r.root, "192.0.2.1", true}, {r.root, "192.0.2.2", false},
		{noToken, "192.0.2.1", true}, {secret.New("hvs.forged"), "192.0.2.3", false},
	} {
		err := r.from(c.addr, "", wire.OpRead, "kv/x", c.tok, "").Err
		if got := errs.Is(err, errs.TooMany); got != c.many {
			t.Errorf("request %d = %v, refused for its rate: want %v", i, err, c.many)
		}
	}
}

// A quota that cannot be read is not in force, and the others are.
func TestUnreadableQuota(t *testing.T) {
	db := fault.Wrap(mem.New())
	r := quotaRig(t, db)
	r.quota(core.RateLimit, core.Quota{Name: "bad", Path: "kv", Rate: 1, Interval: time.Hour})
	r.quota(core.RateLimit, core.Quota{Name: "good", Path: "auth/gate", Rate: 1, Interval: time.Hour})
	_, err := db.Update(t.Context(), func(tx storage.Tx) error { return tx.Put("quota/root/rate-limit/bad", []byte("damaged")) })
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := r.from("192.0.2.1", "", wire.OpRead, "kv/x", r.root, "").Err; !errs.Is(err, errs.NotFound) {
			t.Errorf("below the damaged quota = %v, want NotFound", err)
		}
	}
	r.from("192.0.2.1", "", wire.OpUpdate, "auth/gate/login", noToken, "{}")
	if err := r.from("192.0.2.1", "", wire.OpUpdate, "auth/gate/login", noToken, "{}").Err; !errs.Is(err, errs.TooMany) {
		t.Errorf("below the other = %v, want TooMany", err)
	}
}

// Settings that cannot be read are the default ones: quotas hold, and whoever
// writes the settings anew is not shut out by them.
func TestUnreadableQuotaConfig(t *testing.T) {
	db := mem.New()
	r := quotaRig(t, db)
	r.quota(core.RateLimit, core.Quota{Name: "q", Path: "kv", Rate: 1, Interval: time.Hour})
	if _, err := db.Update(t.Context(), func(tx storage.Tx) error { return tx.Put("quotaconf/rate-limit", []byte("damaged")) }); err != nil {
		t.Fatal(err)
	}
	if err := r.from("192.0.2.1", "", wire.OpRead, "kv/x", r.root, "").Err; !errs.Is(err, errs.NotFound) {
		t.Errorf("the first request = %v, want NotFound", err)
	}
	if err := r.from("192.0.2.1", "", wire.OpRead, "kv/x", r.root, "").Err; !errs.Is(err, errs.TooMany) {
		t.Errorf("the second = %v, want TooMany", err)
	}
	r.quotaConfig(func(c *core.QuotaConfig) { c.Exempt = append(c.Exempt, "kv/x") })
	if err := r.from("192.0.2.1", "", wire.OpRead, "kv/x", r.root, "").Err; !errs.Is(err, errs.NotFound) {
		t.Errorf("with new settings = %v, want NotFound", err)
	}
}

// A quota outlives the time in which its mount or namespace cannot be read.
func TestQuotaOfWhatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mem.New()
		r := quotaRig(t, db)
		team := r.space("team")
		m, _, err := r.c.MountAt(t.Context(), token.RootNamespace, "kv/", true)
		if err != nil {
			t.Fatal(err)
		}
		r.quota(core.RateLimit, core.Quota{Name: "mount", Path: "kv/", Rate: 1, Interval: time.Hour})
		r.quota(core.LeaseCount, core.Quota{Name: "space", Path: "team/", MaxLeases: 1})
		rows := []string{"mount/root/" + m.ID, "ns/" + team}
		kept := map[string][]byte{}
		_, err = db.Update(t.Context(), func(tx storage.Tx) error {
			for _, row := range rows {
				b, err := tx.Get(row)
				if err != nil {
					return err
				}
				kept[row] = bytes.Clone(b)
				if err := tx.Put(row, []byte("damaged")); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		later(5 * time.Minute)
		_, err = db.Update(t.Context(), func(tx storage.Tx) error {
			for _, row := range rows {
				if err := tx.Put(row, kept[row]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for name, kind := range map[string]core.QuotaKind{"mount": core.RateLimit, "space": core.LeaseCount} {
			if _, there, err := r.c.Quota(t.Context(), token.RootNamespace, kind, name); err != nil || !there {
				t.Errorf("once it can be read again the quota of the %s is there: %v, %v", name, there, err)
			}
		}
	})
}
