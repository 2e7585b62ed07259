package token_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/auth/token"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestCreateGivesWhatWasAsked(t *testing.T) {
	m := start(t)
	m.sudo = true
	got := m.create("root", `{"policies":"Web, app","ttl":"30m","explicit_max_ttl":3600,"display_name":"ci job!","meta":{"team":"core"},"num_uses":"4"}`)
	made := m.book.tokens[got.Auth.ClientToken]
	if want := []string{"app", "default", "web"}; !slices.Equal(made.Policies, want) {
		t.Errorf("policies = %v, want %v", made.Policies, want)
	}
	if made.DisplayName != "token-ci-job" || made.TTL != 30*time.Minute || made.ExplicitMaxTTL != time.Hour || made.NumUses != 4 ||
		made.Meta["team"] != "core" || made.Parent != "root" || !made.Renewable || made.Path != "auth/token/create" {
		t.Errorf("the token is %+v", made)
	}
	if got.Auth.LeaseDuration != 1800 || got.Auth.Type != "service" || got.Auth.Orphan || got.Auth.NumUses != 4 {
		t.Errorf("the answer is %+v", got.Auth)
	}
	if !made.Expires.Equal(m.book.now.Add(30 * time.Minute)) {
		t.Errorf("expires at %v, want 30m from %v", made.Expires, m.book.now)
	}
}

func TestWhoMayGiveWhat(t *testing.T) {
	m := start(t)
	m.sudo = true
	parent := m.create("root", `{"policies":["app","web"],"ttl":"1h"}`).Auth.ClientToken
	bare := m.create("root", `{"policies":["app"],"no_default_policy":true}`).Auth.ClientToken
	m.sudo = false
	for _, c := range []struct {
		as, body string
		want     []string // nil: refused
	}{
		{parent, `{}`, []string{"app", "default", "web"}},
		{parent, `{"no_default_policy":true}`, []string{"app", "web"}},
		{parent, `{"policies":"web"}`, []string{"default", "web"}},
		{parent, `{"policies":["web"],"no_default_policy":true}`, []string{"web"}},
		{parent, `{"policies":["web","other"]}`, nil},
		{parent, `{"policies":["root"]}`, nil},
		{bare, `{}`, []string{"app"}},
		{bare, `{"policies":["app"]}`, []string{"app"}},
		{bare, `{"policies":["app","default"]}`, nil},
	} {
		got, err := m.do(c.as, wire.OpUpdate, "create", c.body)
		switch {
		case c.want == nil && !errs.Is(err, errs.Invalid):
			t.Errorf("create %s = %v, want a refusal", c.body, err)
		case c.want != nil && (err != nil || !slices.Equal(got.Auth.Policies, c.want)):
			t.Errorf("create %s = %v, %v, want %v", c.body, got.Auth.Policies, err, c.want)
		}
	}
	m.sudo = true
	if got := m.create(parent, `{"policies":["other"]}`); !slices.Equal(got.Auth.Policies, []string{"default", "other"}) {
		t.Errorf("with sudo the policies are %v, want [default other]", got.Auth.Policies)
	}
	// Sudo on this path must not become root.
	m.refused(errs.Invalid, "root tokens may not be created", parent, "create", `{"policies":["root"]}`)
	m.refused(errs.Invalid, "cannot assign policy", "root", "create", `{"policies":["response-wrapping"]}`)
}

func TestWhatNeedsSudo(t *testing.T) {
	m := start(t)
	m.sudo = true
	parent := m.create("root", `{"policies":["app"],"ttl":"1h"}`).Auth.ClientToken
	for _, body := range []string{`{"id":"mine"}`, `{"no_parent":true}`, `{"period":"1h"}`} {
		m.sudo = false
		m.refused(errs.Invalid, "root or sudo privileges required", parent, "create", body)
		m.sudo = true
		m.create(parent, body)
	}
	if _, ok := m.book.tokens["mine"]; !ok {
		t.Error("a token with an id of its own was not made")
	}
	m.refused(errs.Invalid, "duplicate", parent, "create", `{"id":"mine"}`)
	for _, id := range []string{"hvs.x", "s.x", "b.x", "a.b", "with space", "new\\nline", strings.Repeat("x", 300)} {
		m.refused(errs.Invalid, "custom token ID", parent, "create", `{"id":"`+id+`"}`)
	}
	m.sudo = false
	if got := m.must(parent, wire.OpUpdate, "create-orphan", `{}`); !got.Auth.Orphan {
		t.Error("create-orphan made a child")
	}
}

func TestEntityOfAToken(t *testing.T) {
	m := start(t)
	m.must("root", wire.OpUpdate, "roles/ci", `{"allowed_policies":"app","allowed_entity_aliases":["Build-*","gone"],"renewable":true}`)
	got := m.must("root", wire.OpUpdate, "create/ci", `{"entity_alias":"BUILD-7","policies":"app","no_default_policy":true}`)
	a := got.Auth
	if a.EntityID != "build-7" || !slices.Equal(a.Identity, []string{"of-build-7"}) || !slices.Equal(a.Policies, []string{"app", "of-build-7"}) {
		t.Errorf("a token of an alias is answered as %+v", a)
	}
	look := m.must(a.ClientToken, wire.OpRead, "lookup-self", "").Data
	if fmt.Sprint(look["identity_policies"], look["external_namespace_policies"], look["policies"]) != "[of-build-7] map[] [app]" {
		t.Errorf("it is looked up as %v", look)
	}
	if _, has := m.must("root", wire.OpRead, "lookup-self", "").Data["identity_policies"]; has {
		t.Error("a token without an entity is looked up with identity_policies")
	}
	if child := m.create(a.ClientToken, `{"ttl":"1h"}`).Auth; child.EntityID != "build-7" {
		t.Errorf("its child has the entity %q, want its own", child.EntityID)
	}
	if orphan := m.must(a.ClientToken, wire.OpUpdate, "create-orphan", `{}`).Auth; orphan.EntityID != "" {
		t.Errorf("an orphan that it makes has the entity %q, want none", orphan.EntityID)
	}
	m.refused(errs.Invalid, "allowed_entity_aliases", "root", "create/ci", `{"entity_alias":"other"}`)
	m.refused(errs.Denied, "disabled", "root", "create/ci", `{"entity_alias":"gone"}`)
}

func TestWhatATokenCannotBe(t *testing.T) {
	m := start(t)
	m.sudo = true
	limited := m.create("root", `{"policies":["app"],"num_uses":3}`).Auth.ClientToken
	batch := m.create("root", `{"policies":["app"],"type":"batch","ttl":"10m"}`)
	if batch.Auth.Type != "batch" || batch.Auth.Renewable || batch.Auth.Accessor != "" {
		t.Errorf("a batch token is answered as %+v", batch.Auth)
	}
	for _, c := range []struct{ as, body, says string }{
		{limited, `{}`, "restricted use"},
		{batch.Auth.ClientToken, `{}`, "batch tokens cannot create"},
		{"root", `{"num_uses":-1}`, "negative"},
		{"root", `{"type":"gold"}`, "token_type"},
		{"root", `{"type":"batch","policies":["app"],"num_uses":2}`, `"num_uses"`},
		{"root", `{"type":"batch","policies":["app"],"period":"1h"}`, `"period"`},
		{"root", `{"type":"batch","policies":["app"],"explicit_max_ttl":"1h"}`, `"explicit_max_ttl"`},
		{"root", `{"type":"batch","policies":["app"],"id":"mine"}`, `"id"`},
		{"root", `{"type":"batch"}`, "batch tokens cannot be root"},
		{"root", `{"ttl":"-5m"}`, "ttl"},
		{"root", `{"ttl":"soon"}`, "ttl"},
		{"root", `{"entity_alias":"x"}`, "entity_alias"},
	} {
		m.refused(errs.Invalid, c.says, c.as, "create", c.body)
	}
}

func TestHowLongATokenLives(t *testing.T) {
	m := start(t)
	m.sudo = true
	for _, c := range []struct {
		body     string
		want     time.Duration
		warnings int
	}{
		{`{}`, 0, 0}, // a root token's child
		{`{"policies":["app"]}`, 768 * time.Hour, 0},
		{`{"policies":["app"],"ttl":"10000h"}`, 768 * time.Hour, 1},
		{`{"policies":["app"],"ttl":"5h","explicit_max_ttl":"1h"}`, time.Hour, 1},
		{`{"policies":["app"],"explicit_max_ttl":"1h"}`, time.Hour, 1}, // the default is longer
		{`{"policies":["app"],"lease":"90"}`, 90 * time.Second, 0},
		{`{"policies":["app"],"period":"15m","ttl":"5h"}`, 15 * time.Minute, 0},
		{`{"policies":["app"],"period":"10000h"}`, 768 * time.Hour, 1},
		{`{"ttl":"1h"}`, time.Hour, 0},
		{`{"explicit_max_ttl":"1h"}`, time.Hour, 0},
		{`{"policies":["missing-one"],"ttl":"1h"}`, time.Hour, 1},
	} {
		got := m.create("root", c.body)
		if d := time.Duration(got.Auth.LeaseDuration) * time.Second; d != c.want || len(got.Warnings) != c.warnings {
			t.Errorf("create %s lives %v with warnings %q, want %v with %d", c.body, d, got.Warnings, c.want, c.warnings)
		}
	}
	m.book.tokens["expiring"] = token.Token{Key: "expiring", Policies: []string{"root"}, TTL: time.Hour}
	m.refused(errs.Invalid, "expiring root tokens", "expiring", "create", `{}`)
}

func TestRoles(t *testing.T) {
	m := start(t)
	m.sudo = true
	parent := m.create("root", `{"policies":["app"],"ttl":"1h"}`).Auth.ClientToken
	m.book.tokens[parent] = func() token.Token {
		p := m.book.tokens[parent]
		p.BoundCIDRs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		return p
	}()
	m.sudo = false
	m.must("root", wire.OpUpdate, "roles/ci", `{"allowed_policies":["CI","deploy"],"allowed_policies_glob":"env-*-read","disallowed_policies_glob":["env-prod-*"],
		"orphan":true,"path_suffix":"runs","token_period":"30m","token_bound_cidrs":["192.0.2.0/24","198.51.100.7"],"token_num_uses":5,"renewable":false}`)
	got := m.must("root", wire.OpRead, "roles/ci", "")
	if fmt.Sprint(got.Data["allowed_policies"]) != "[ci deploy]" || got.Data["token_period"] != 1800.0 || got.Data["period"] != 0.0 ||
		fmt.Sprint(got.Data["token_bound_cidrs"]) != "[192.0.2.0/24 198.51.100.7]" || got.Data["token_type"] != "default-service" {
		t.Errorf("the role reads as %v", got.Data)
	}
	for _, c := range []struct {
		body string
		want []string
	}{
		{`{}`, []string{"ci", "default", "deploy"}},
		{`{"policies":["deploy"],"no_default_policy":true}`, []string{"deploy"}},
		{`{"policies":["env-test-read"]}`, []string{"default", "env-test-read"}},
		{`{"policies":["env-test-write"]}`, nil},
		{`{"policies":["env-prod-read"]}`, nil},
		{`{"policies":["app"]}`, nil}, // the parent's, and yet not the role's
	} {
		got, err := m.do(parent, wire.OpUpdate, "create/ci", c.body)
		if c.want == nil {
			if !errs.Is(err, errs.Invalid) {
				t.Errorf("create/ci %s = %v, want a refusal", c.body, err)
			}
			continue
		}
		made := m.book.tokens[got.Auth.ClientToken]
		if err != nil || !slices.Equal(made.Policies, c.want) {
			t.Errorf("create/ci %s = %v, %v, want %v", c.body, made.Policies, err, c.want)
			continue
		}
		if made.Path != "auth/token/create/ci/runs" || made.Parent != "" || made.TTL != 30*time.Minute || made.NumUses != 5 ||
			made.Renewable || len(made.BoundCIDRs) != 2 || made.Role != "ci" {
			t.Errorf("create/ci made %+v", made)
		}
	}
	m.refused(errs.Invalid, "unknown role none", "root", "create/none", `{}`)

	// Without a role a child is bound to its parent's addresses.
	child := m.create(parent, `{}`)
	if made := m.book.tokens[child.Auth.ClientToken]; len(made.BoundCIDRs) != 1 || made.BoundCIDRs[0].String() != "10.0.0.0/8" {
		t.Errorf("the child may be used from %v, want its parent's [10.0.0.0/8]", made.BoundCIDRs)
	}
}

func TestRoleFieldsAndTheirOlderNames(t *testing.T) {
	m := start(t)
	m.must("root", wire.OpUpdate, "roles/r", `{"period":"1h","explicit_max_ttl":"2h","bound_cidrs":"10.0.0.0/8"}`)
	got := m.must("root", wire.OpRead, "roles/r", "").Data
	if got["period"] != 3600.0 || got["token_period"] != 3600.0 || got["explicit_max_ttl"] != 7200.0 || got["token_explicit_max_ttl"] != 7200.0 {
		t.Errorf("older names read as %v, want both", got)
	}
	m.must("root", wire.OpUpdate, "roles/r", `{"token_period":"30m"}`)
	got = m.must("root", wire.OpRead, "roles/r", "").Data
	if got["period"] != 0.0 || got["token_period"] != 1800.0 || got["token_explicit_max_ttl"] != 7200.0 {
		t.Errorf("after the new name the role reads as %v", got)
	}
	for _, body := range []string{
		`{"token_bound_cidrs":["not-a-cidr"]}`, `{"token_type":"gold"}`, `{"token_num_uses":-1}`, `{"path_suffix":"../x"}`,
		`{"path_suffix":"/x"}`, `{"path_suffix":"a b"}`, `{"token_type":"batch"}`, `{"token_type":"batch","renewable":false,"token_period":"1h"}`,
	} {
		m.refused(errs.Invalid, "", "root", "roles/bad", body)
	}
	if _, err := m.do("root", wire.OpRead, "roles/bad", ""); !errs.Is(err, errs.NotFound) {
		t.Errorf("a refused role reads as %v, want nothing there", err)
	}
	for body, warnings := range map[string]int{
		`{"token_explicit_max_ttl":"9999h"}`: 1, `{"token_explicit_max_ttl":"1h"}`: 0,
		`{"token_period":"1m","period":"2m","token_bound_cidrs":"10.0.0.0/8","bound_cidrs":"10.0.0.0/8"}`: 2,
	} {
		if got := m.must("root", wire.OpUpdate, "roles/w", body).Warnings; len(got) != warnings {
			t.Errorf("a role with %s warns %q, want %d times", body, got, warnings)
		}
		m.must("root", wire.OpDelete, "roles/w", "")
	}
	m.must("root", wire.OpUpdate, "roles/b", `{"token_type":"batch","renewable":false}`)
	keys := m.must("root", wire.OpList, "roles/", "").Data["keys"]
	if fmt.Sprint(keys) != "[b r]" {
		t.Errorf("roles = %v, want [b r]", keys)
	}
	m.must("root", wire.OpDelete, "roles/b", "")
	m.must("root", wire.OpDelete, "roles/b", "")
}

func TestLookupAndRevoke(t *testing.T) {
	m := start(t)
	m.sudo = true
	parent := m.create("root", `{"policies":["app"],"ttl":"1h"}`).Auth.ClientToken
	child := m.create(parent, `{"meta":{"a":"b"}}`).Auth
	batch := m.create("root", `{"policies":["app"],"type":"batch"}`).Auth.ClientToken

	got := m.must("root", wire.OpUpdate, "lookup", `{"token":"`+child.ClientToken+`"}`).Data
	if got["id"] != child.ClientToken || got["orphan"] != false || fmt.Sprint(got["meta"]) != "map[a:b]" {
		t.Errorf("lookup = %v", got)
	}
	got = m.must("root", wire.OpUpdate, "lookup-accessor", `{"accessor":"`+child.Accessor+`"}`).Data
	if got["id"] != "" || got["accessor"] != child.Accessor {
		t.Errorf("lookup by accessor tells %v, want it without the token", got)
	}
	got = m.must("root", wire.OpRead, "lookup-self", "").Data
	if got["id"] != "root" || got["expire_time"] != nil || got["meta"] != nil {
		t.Errorf("lookup-self = %v", got)
	}
	m.refused(errs.Denied, "bad token", "root", "lookup", `{"token":"unknown"}`)
	m.refused(errs.Invalid, "", "root", "lookup-accessor", `{"accessor":"unknown"}`)
	m.refused(errs.Invalid, "batch tokens cannot be revoked", "root", "revoke", `{"token":"`+batch+`"}`)
	m.refused(errs.Invalid, "batch tokens cannot be revoked", "root", "revoke-orphan", `{"token":"`+batch+`"}`)
	m.refused(errs.Invalid, "batch tokens cannot be renewed", batch, "renew-self", ``)
	m.refused(errs.Invalid, "not found", "root", "revoke-orphan", `{"token":"unknown"}`)
	m.refused(errs.Invalid, "missing token ID", "root", "revoke", `{}`)

	m.must("root", wire.OpUpdate, "revoke-orphan", `{"token":"`+parent+`"}`)
	if got := m.must("root", wire.OpUpdate, "lookup", `{"token":"`+child.ClientToken+`"}`).Data; got["orphan"] != true {
		t.Errorf("after revoke-orphan the child is %v, want an orphan", got)
	}
	m.must(child.ClientToken, wire.OpUpdate, "revoke-self", "")
	m.must("root", wire.OpUpdate, "revoke", `{"token":"`+child.ClientToken+`"}`) // gone already
	if got := m.must("root", wire.OpUpdate, "revoke-accessor", `{"accessor":"`+child.Accessor+`"}`); len(got.Warnings) != 1 {
		t.Errorf("revoking an unknown accessor warns %q, want once", got.Warnings)
	}
}

func TestRenewAsksTheRoleAgain(t *testing.T) {
	m := start(t)
	m.sudo = true
	m.must("root", wire.OpUpdate, "roles/r", `{"token_period":"30m"}`)
	tok := m.must("root", wire.OpUpdate, "create/r", `{"policies":["app"]}`).Auth.ClientToken
	m.must("root", wire.OpUpdate, "roles/r", `{"token_period":"10m"}`)
	if got := m.must(tok, wire.OpUpdate, "renew-self", `{"increment":"5h"}`).Auth; got.LeaseDuration != 600 || got.ClientToken != tok {
		t.Errorf("renewed for %d s, want the role's 600", got.LeaseDuration)
	}
	if got := m.must("root", wire.OpUpdate, "renew-accessor", `{"accessor":"acc-`+tok+`"}`).Auth; got.ClientToken != "" {
		t.Errorf("renewing by accessor tells the token %q", got.ClientToken)
	}
	m.must("root", wire.OpDelete, "roles/r", "")
	m.refused(errs.Invalid, "could not be found", tok, "renew-self", "")
	m.refused(errs.Invalid, "not renewable", "root", "renew-self", "")
	m.refused(errs.Invalid, "token not found", "root", "renew", `{"token":"unknown"}`)
}

func TestTidyRunsOnceAndIsWaitedFor(t *testing.T) {
	m := start(t)
	if got := m.must("root", wire.OpUpdate, "tidy", ""); got.Status != 202 || len(got.Warnings) != 1 {
		t.Errorf("tidy answers %d with %q, want 202 and a warning", got.Status, got.Warnings)
	}
	if err := m.eng.(engine.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	if m.book.tidied > 1 {
		t.Errorf("tidied %d times, want once", m.book.tidied)
	}
}
