package oidc_test

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"maps"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

const callback = "https://app.test/callback"

// app is a client of a provider "p".
type app struct {
	id, secret string
}

// withProvider makes a provider with scopes, a confidential and a public
// client.
func withProvider(t testing.TB) (r *rig, web, cli app) {
	r = newRig(t)
	r.must(204, wire.OpUpdate, "oidc/key/k", obj{"algorithm": "ES256", "allowed_client_ids": "*"})
	r.must(204, wire.OpUpdate, "oidc/scope/profile", obj{"template": `{"name": {{identity.entity.name}}, "groups": {{identity.entity.groups.names}}}`, "description": "who"})
	r.must(204, wire.OpUpdate, "oidc/scope/team", obj{"template": `{"team": {{identity.entity.metadata.team}}}`})
	r.must(204, wire.OpUpdate, "oidc/assignment/devs", obj{"group_ids": "g1"})
	r.must(204, wire.OpUpdate, "oidc/client/web", obj{"redirect_uris": []string{callback, "http://127.0.0.1/cb"}, "assignments": "devs", "key": "k", "id_token_ttl": "30m", "access_token_ttl": "1h"})
	r.must(204, wire.OpUpdate, "oidc/client/cli", obj{"redirect_uris": callback, "assignments": "allow_all", "key": "k", "client_type": "public"})
	r.must(204, wire.OpUpdate, "oidc/provider/p", obj{"allowed_client_ids": "*", "scopes_supported": "profile,team"})
	a := r.must(200, wire.OpRead, "oidc/client/web", nil)
	b := r.must(200, wire.OpRead, "oidc/client/cli", nil)
	if _, has := b.body["client_secret"]; has {
		t.Error("a public client has a secret")
	}
	return r, app{a.str("client_id"), a.str("client_secret")}, app{id: b.str("client_id")}
}

// ask is what a client sends to authorize, with changes.
func (a app) ask(changes ...obj) obj {
	out := obj{"client_id": a.id, "redirect_uri": callback, "response_type": "code", "scope": "openid profile", "state": "s1", "nonce": "n1"}
	for _, c := range changes {
		maps.Copy(out, c)
	}
	return out
}

// redeem is what a client sends for a code, with changes.
func (a app) redeem(code string, changes ...obj) obj {
	out := obj{"grant_type": "authorization_code", "code": code, "redirect_uri": callback, "client_id": a.id}
	if a.secret != "" {
		out["client_secret"] = a.secret
	}
	for _, c := range changes {
		maps.Copy(out, c)
	}
	return out
}

func (r *rig) code(a app, changes ...obj) string {
	r.t.Helper()
	got := r.must(200, wire.OpUpdate, "oidc/provider/p/authorize", a.ask(changes...), call{entity: "ann"})
	if got.str("state") != "s1" || got.header.Get("Cache-Control") != "no-store" {
		r.t.Errorf("authorize = %s %v", got.text, got.header)
	}
	return got.str("code")
}

const verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" // of RFC 7636, appendix B
const challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

func TestCodeFlow(t *testing.T) {
	r, web, _ := withProvider(t)
	tokens := r.must(200, wire.OpUpdate, "oidc/provider/p/token", web.redeem(r.code(web)))
	if tokens.str("token_type") != "Bearer" || tokens.body["expires_in"] != 3600.0 || tokens.header.Get("Cache-Control") != "no-store" {
		t.Errorf("token = %v %v", tokens.text, tokens.header)
	}
	claims, _ := r.verify(r.keys("oidc/provider/p/.well-known/keys"), tokens.str("id_token"))
	sum := sha256.Sum256([]byte(tokens.str("access_token")))
	now := float64(r.clock().Unix())
	for name, want := range map[string]any{
		"iss": address + "/v1/identity/oidc/provider/p", "sub": "ann", "aud": web.id, "nonce": "n1", "iat": now, "exp": now + 1800,
		"name": "Ann", "at_hash": base64.RawURLEncoding.EncodeToString(sum[:16]),
	} {
		if claims[name] != want {
			t.Errorf("the claim %s = %v, want %v", name, claims[name], want)
		}
	}
	for _, absent := range []string{"team", "auth_time"} {
		if _, has := claims[absent]; has {
			t.Errorf("the token has the claim %s, which nobody asked for", absent)
		}
	}
	info := r.must(200, wire.OpRead, "oidc/provider/p/userinfo", nil, call{token: tokens.str("access_token")})
	if info.text != `{"sub":"ann","name":"Ann","groups":["devs","ops"]}` {
		t.Errorf("userinfo = %s", info.text)
	}
}

func TestCodeFlowVariants(t *testing.T) {
	r, web, cli := withProvider(t)
	loggedIn := r.clock().Add(-10 * time.Minute)

	// The secret in the header, whose parts are encoded as in a form; a
	// loopback address with a port of its own; max_age.
	local := obj{"redirect_uri": "http://127.0.0.1:4711/cb"}
	a := r.must(200, wire.OpUpdate, "oidc/provider/p/authorize", web.ask(local, obj{"scope": "openid team unknown", "max_age": "3600"}), call{entity: "ann", loggedIn: loggedIn})
	body := web.redeem(a.str("code"), local)
	delete(body, "client_id")
	delete(body, "client_secret")
	tokens := r.must(200, wire.OpUpdate, "oidc/provider/p/token", body, call{basic: url.QueryEscape(web.id) + ":" + url.QueryEscape(web.secret)})
	claims, _ := r.verify(r.keys("oidc/.well-known/keys"), tokens.str("id_token"))
	if claims["team"] != "core" || claims["auth_time"] != float64(loggedIn.Unix()) {
		t.Errorf("claims = %v, want team and auth_time", claims)
	}
	if a := r.do(wire.OpUpdate, "oidc/provider/p/authorize", web.ask(obj{"max_age": 300}), call{entity: "ann", loggedIn: loggedIn}); a.status != 400 || a.str("error") != "max_age_violation" {
		t.Errorf("authorize with max_age 300 = %d %s", a.status, a.text)
	}

	// Programs that register localhost draw their port anew, too.
	r.must(204, wire.OpUpdate, "oidc/client/web", obj{"redirect_uris": []string{callback, "http://127.0.0.1/cb", "http://localhost/cb"}})
	r.must(200, wire.OpUpdate, "oidc/provider/p/authorize", web.ask(obj{"redirect_uri": "http://localhost:4711/cb"}), call{entity: "ann"})
	for _, uri := range []string{"http://localhost.evil.test:4711/cb", "http://localhost:4711/other", "https://localhost:4711/cb", "http://x@localhost:4711/cb"} {
		if a := r.do(wire.OpUpdate, "oidc/provider/p/authorize", web.ask(obj{"redirect_uri": uri}), call{entity: "ann"}); a.str("error") != "invalid_redirect_uri" {
			t.Errorf("authorize to %s = %d %s, want it refused", uri, a.status, a.text)
		}
	}

	// A public client, by query and with both methods of PKCE.
	for _, pkce := range []struct{ method, challenge string }{{"S256", challenge}, {"plain", verifier}, {"", verifier}} {
		q := url.Values{}
		for k, v := range cli.ask(obj{"code_challenge": pkce.challenge}) {
			q.Set(k, v.(string))
		}
		if pkce.method != "" {
			q.Set("code_challenge_method", pkce.method)
		}
		a := r.must(200, wire.OpRead, "oidc/provider/p/authorize?"+q.Encode(), nil, call{entity: "bob"})
		r.must(200, wire.OpUpdate, "oidc/provider/p/token", cli.redeem(a.str("code"), obj{"code_verifier": verifier}))
	}

	// SHA-512 for EdDSA, and the default provider with the default key.
	r.must(204, wire.OpUpdate, "oidc/key/ed", obj{"algorithm": "EdDSA", "allowed_client_ids": "*"})
	for _, key := range []string{"ed", "default"} {
		r.must(204, wire.OpUpdate, "oidc/client/"+key, obj{"redirect_uris": callback, "assignments": "allow_all", "key": key})
		c := r.must(200, wire.OpRead, "oidc/client/"+key, nil)
		x := app{c.str("client_id"), c.str("client_secret")}
		a := r.must(200, wire.OpUpdate, "oidc/provider/default/authorize", x.ask(), call{entity: "ann"})
		tokens := r.must(200, wire.OpUpdate, "oidc/provider/default/token", x.redeem(a.str("code")))
		claims, alg := r.verify(r.keys("oidc/provider/default/.well-known/keys"), tokens.str("id_token"))
		sum, sum512 := sha256.Sum256([]byte(a.str("code"))), sha512.Sum512([]byte(a.str("code")))
		want := base64.RawURLEncoding.EncodeToString(sum[:16])
		if alg == "EdDSA" {
			want = base64.RawURLEncoding.EncodeToString(sum512[:32])
		}
		if claims["c_hash"] != want {
			t.Errorf("%s: c_hash = %v, want %v", alg, claims["c_hash"], want)
		}
	}
}

func TestAuthorizeRefuses(t *testing.T) {
	r, web, cli := withProvider(t)
	r.must(204, wire.OpUpdate, "oidc/provider/other", obj{"allowed_client_ids": cli.id})
	for name, tc := range map[string]struct {
		body obj
		as   string
		want string
	}{
		"no client":              {web.ask(obj{"client_id": ""}), "ann", "invalid_request"},
		"unknown client":         {web.ask(obj{"client_id": "nobody"}), "ann", "invalid_client_id"},
		"no redirect URI":        {web.ask(obj{"redirect_uri": ""}), "ann", "invalid_request"},
		"another redirect URI":   {web.ask(obj{"redirect_uri": "https://evil.test/callback"}), "ann", "invalid_redirect_uri"},
		"a path below it":        {web.ask(obj{"redirect_uri": callback + "/x"}), "ann", "invalid_redirect_uri"},
		"its port":               {web.ask(obj{"redirect_uri": "https://app.test:444/callback"}), "ann", "invalid_redirect_uri"},
		"loopback, another path": {web.ask(obj{"redirect_uri": "http://127.0.0.1:80/other"}), "ann", "invalid_redirect_uri"},
		"loopback, another host": {web.ask(obj{"redirect_uri": "http://127.0.0.2:80/cb"}), "ann", "invalid_redirect_uri"},
		"loopback with a user":   {web.ask(obj{"redirect_uri": "http://127.0.0.1@evil.test/cb"}), "ann", "invalid_redirect_uri"},
		"loopback by name":       {web.ask(obj{"redirect_uri": "http://localhost:80/cb"}), "ann", "invalid_redirect_uri"},
		"no response type":       {web.ask(obj{"response_type": ""}), "ann", "invalid_request"},
		"another response type":  {web.ask(obj{"response_type": "token"}), "ann", "unsupported_response_type"},
		"no openid":              {web.ask(obj{"scope": "profile"}), "ann", "invalid_scope"},
		"request object":         {web.ask(obj{"request": "x"}), "ann", "request_not_supported"},
		"request URI":            {web.ask(obj{"request_uri": "x"}), "ann", "request_uri_not_supported"},
		"negative max_age":       {web.ask(obj{"max_age": -1}), "ann", "invalid_request"},
		"huge max_age":           {web.ask(obj{"max_age": int64(1) << 62}), "ann", "invalid_request"},
		"huge nonce":             {web.ask(obj{"nonce": strings.Repeat("n", 2000)}), "ann", "invalid_request"},
		"public without PKCE":    {cli.ask(), "ann", "invalid_request"},
		"unknown PKCE method":    {cli.ask(obj{"code_challenge": challenge, "code_challenge_method": "S512"}), "ann", "invalid_request"},
		"short challenge":        {cli.ask(obj{"code_challenge": "short"}), "ann", "invalid_request"},
		"odd challenge":          {cli.ask(obj{"code_challenge": strings.Repeat("=", 43)}), "ann", "invalid_request"},
		"nobody":                 {web.ask(), "", "access_denied"},
		"disabled":               {cli.ask(obj{"code_challenge": challenge}), "off", "access_denied"},
		"not in the assignment":  {web.ask(), "bob", "access_denied"},
	} {
		a := r.do(wire.OpUpdate, "oidc/provider/p/authorize", tc.body, call{entity: tc.as})
		if a.status != 400 || a.str("error") != tc.want || a.str("error_description") == "" || a.str("state") != "s1" {
			t.Errorf("%s: authorize = %d %s, want %s", name, a.status, a.text, tc.want)
		}
	}
	if a := r.do(wire.OpUpdate, "oidc/provider/other/authorize", web.ask(), call{entity: "ann"}); a.str("error") != "unauthorized_client" {
		t.Errorf("authorize of a client that the provider does not list = %s", a.text)
	}
	if a := r.do(wire.OpUpdate, "oidc/provider/none/authorize", web.ask(), call{entity: "ann"}); a.str("error") != "invalid_request" {
		t.Errorf("authorize of no provider = %s", a.text)
	}
}

func TestExchangeRefuses(t *testing.T) {
	r, web, cli := withProvider(t)
	r.must(204, wire.OpUpdate, "oidc/provider/p2", obj{"allowed_client_ids": "*"})
	pkce := obj{"code_challenge": challenge, "code_challenge_method": "S256"}
	for name, tc := range map[string]struct {
		body   func() obj
		path   string
		as     []call
		status int
		want   string
	}{
		"wrong secret":     {body: func() obj { return web.redeem(r.code(web), obj{"client_secret": web.secret[:len(web.secret)-1] + "!"}) }, status: 401, want: "invalid_client"},
		"prefix of secret": {body: func() obj { return web.redeem(r.code(web), obj{"client_secret": web.secret[:20]}) }, status: 401, want: "invalid_client"},
		"no secret":        {body: func() obj { return web.redeem(r.code(web), obj{"client_secret": ""}) }, status: 401, want: "invalid_client"},
		"unknown client":   {body: func() obj { return web.redeem(r.code(web), obj{"client_id": "nobody"}) }, status: 401, want: "invalid_client"},
		"guessed dummy": {body: func() obj {
			return web.redeem(r.code(web), obj{"client_id": "nobody", "client_secret": "hvo_secret_" + strings.Repeat("x", 64)})
		}, status: 401, want: "invalid_client"},
		"wrong header":       {body: func() obj { return web.redeem(r.code(web)) }, as: []call{{basic: web.id + ":no"}}, status: 401, want: "invalid_client"},
		"odd header":         {body: func() obj { return web.redeem(r.code(web)) }, as: []call{{basic: "%zz:x"}}, status: 401, want: "invalid_client"},
		"secret of a public": {body: func() obj { return cli.redeem(r.code(cli, pkce), obj{"client_secret": "x", "code_verifier": verifier}) }, status: 401, want: "invalid_client"},
		"another grant":      {body: func() obj { return web.redeem(r.code(web), obj{"grant_type": "client_credentials"}) }, status: 400, want: "unsupported_grant_type"},
		"no grant":           {body: func() obj { return web.redeem(r.code(web), obj{"grant_type": ""}) }, status: 400, want: "invalid_request"},
		"no code":            {body: func() obj { return web.redeem("") }, status: 400, want: "invalid_request"},
		"no redirect URI":    {body: func() obj { return web.redeem(r.code(web), obj{"redirect_uri": ""}) }, status: 400, want: "invalid_request"},
		"another URI":        {body: func() obj { return web.redeem(r.code(web), obj{"redirect_uri": "http://127.0.0.1/cb"}) }, status: 400, want: "invalid_grant"},
		"invented code":      {body: func() obj { return web.redeem("7fffffff-" + strings.Repeat("a", 32)) }, status: 400, want: "invalid_grant"},
		"odd code":           {body: func() obj { return web.redeem("../../key/k") }, status: 400, want: "invalid_grant"},
		"another's code":     {body: func() obj { return web.redeem(r.code(cli, pkce)) }, status: 400, want: "invalid_grant"},
		"another provider":   {body: func() obj { return web.redeem(r.code(web)) }, path: "oidc/provider/p2/token", status: 400, want: "invalid_grant"},
		"no verifier":        {body: func() obj { return cli.redeem(r.code(cli, pkce)) }, status: 400, want: "invalid_grant"},
		"wrong verifier":     {body: func() obj { return cli.redeem(r.code(cli, pkce), obj{"code_verifier": strings.Repeat("a", 43)}) }, status: 400, want: "invalid_grant"},
		"challenge as plain": {body: func() obj { return cli.redeem(r.code(cli, pkce), obj{"code_verifier": challenge}) }, status: 400, want: "invalid_grant"},
		"uncalled verifier":  {body: func() obj { return web.redeem(r.code(web), obj{"code_verifier": verifier}) }, status: 400, want: "invalid_grant"},
		"no provider":        {body: func() obj { return web.redeem(r.code(web)) }, path: "oidc/provider/none/token", status: 400, want: "invalid_request"},
		"late": {body: func() obj {
			code := r.code(web)
			r.pass(5 * time.Minute)
			return web.redeem(code)
		}, status: 400, want: "invalid_grant"},
		"disabled meanwhile": {body: func() obj {
			code := r.code(web)
			r.people["ann"].Disabled = true
			return web.redeem(code)
		}, status: 400, want: "invalid_request"},
	} {
		path := tc.path
		if path == "" {
			path = "oidc/provider/p/token"
		}
		a := r.do(wire.OpUpdate, path, tc.body(), tc.as...)
		r.people["ann"].Disabled = false
		if a.status != tc.status || a.str("error") != tc.want {
			t.Errorf("%s: token = %d %s, want %d %s", name, a.status, a.text, tc.status, tc.want)
		}
		if tc.status == 401 && a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: the answer does not say how to authenticate", name)
		}
	}
}

// TestCodesAreGoodOnce exchanges a code many times at once.
func TestCodesAreGoodOnce(t *testing.T) {
	r, web, _ := withProvider(t)
	body := web.redeem(r.code(web))
	_, second := r.open()
	var mu sync.Mutex
	given := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			a, b := r.do(wire.OpUpdate, "oidc/provider/p/token", body), r.doAt(second, wire.OpUpdate, "oidc/provider/p/token", body)
			mu.Lock()
			defer mu.Unlock()
			for _, a := range []answer{a, b} {
				if a.status == 200 {
					given++
				} else if a.str("error") != "invalid_grant" {
					t.Errorf("a replayed code = %d %s", a.status, a.text)
				}
			}
		})
	}
	wg.Wait()
	if given != 1 {
		t.Errorf("a code was exchanged %d times, want once", given)
	}
}

func TestUserinfoRefuses(t *testing.T) {
	r, web, _ := withProvider(t)
	r.must(204, wire.OpUpdate, "oidc/provider/p2", obj{"allowed_client_ids": "*"})
	access := r.must(200, wire.OpUpdate, "oidc/provider/p/token", web.redeem(r.code(web))).str("access_token")
	payload, mac, _ := strings.Cut(access, ".")
	plain, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		t.Fatal(err)
	}
	forged := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(plain), `"ann"`, `"bob"`, 1)))
	refused := func(name, path, token string) {
		t.Helper()
		a := r.do(wire.OpUpdate, path, nil, call{token: token})
		if a.status != 401 || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer error=") {
			t.Errorf("%s: userinfo = %d %s %v, want 401", name, a.status, a.text, a.header)
		}
	}
	const path = "oidc/provider/p/userinfo"
	refused("no token", path, "")
	refused("a token of the server's", path, "hvs.CAESIJ")
	refused("junk", path, "a.b")
	refused("another entity", path, forged+"."+mac)
	refused("truncated", path, access[:len(access)-2])
	refused("another provider", "oidc/provider/p2/userinfo", access)
	r.people["ann"].Disabled = true
	refused("a disabled entity", path, access)
	r.people["ann"].Disabled = false
	r.must(204, wire.OpUpdate, "oidc/client/web", obj{"assignments": ""})
	refused("no assignment any more", path, access)
	r.must(204, wire.OpUpdate, "oidc/client/web", obj{"assignments": "allow_all"})
	r.must(200, wire.OpRead, path, nil, call{token: access})
	r.pass(time.Hour)
	refused("expired", path, access)
	r.must(204, wire.OpDelete, "oidc/client/web", nil)
	refused("no client any more", path, access)
}

// TestProviderSettings: what is referred to stays, what is built in stays as
// it is.
func TestProviderSettings(t *testing.T) {
	r, web, _ := withProvider(t)
	for _, tc := range []struct {
		op   wire.Op
		path string
		body obj
	}{
		{wire.OpUpdate, "oidc/scope/openid", obj{"template": "{}"}},
		{wire.OpUpdate, "oidc/scope/bad", obj{"template": `{"sub": 1}`}},
		{wire.OpDelete, "oidc/scope/profile", nil},
		{wire.OpUpdate, "oidc/assignment/allow_all", obj{"entity_ids": "x"}},
		{wire.OpDelete, "oidc/assignment/allow_all", nil},
		{wire.OpDelete, "oidc/assignment/devs", nil},
		{wire.OpDelete, "oidc/key/k", nil},
		{wire.OpUpdate, "oidc/client/web", obj{"key": "default"}},
		{wire.OpUpdate, "oidc/client/web", obj{"client_type": "public"}},
		{wire.OpUpdate, "oidc/client/web", obj{"assignments": "none"}},
		{wire.OpUpdate, "oidc/client/web", obj{"id_token_ttl": "25h"}},
		{wire.OpUpdate, "oidc/client/web", obj{"id_token_ttl": 0}},
		{wire.OpUpdate, "oidc/client/web", obj{"redirect_uris": "/relative"}},
		{wire.OpUpdate, "oidc/client/web", obj{"client_credentials": true}},
		{wire.OpUpdate, "oidc/client/new", obj{"key": "none"}},
		{wire.OpUpdate, "oidc/client/new", obj{"client_type": "odd"}},
		{wire.OpUpdate, "oidc/key/k", obj{"verification_ttl": "20m"}},
		{wire.OpUpdate, "oidc/provider/p", obj{"scopes_supported": "none"}},
		{wire.OpUpdate, "oidc/provider/p", obj{"scopes_supported": "openid"}},
		{wire.OpUpdate, "oidc/provider/p", obj{"issuer": "https://x/path"}},
		{wire.OpDelete, "oidc/provider/default", nil},
	} {
		if a := r.do(tc.op, tc.path, tc.body); a.status != 400 {
			t.Errorf("%s %s %v = %d %s, want 400", tc.op, tc.path, tc.body, a.status, a.text)
		}
	}
	r.must(204, wire.OpUpdate, "oidc/scope/again", obj{"template": `{"team": 1}`})
	if a := r.do(wire.OpUpdate, "oidc/provider/p", obj{"scopes_supported": "team,again"}); a.status != 400 || !strings.Contains(a.text, "conflicting") {
		t.Errorf("two scopes with one claim = %d %s", a.status, a.text)
	}

	if a := r.must(200, wire.OpRead, "oidc/assignment/allow_all", nil); a.text != `{"entity_ids":["*"],"group_ids":["*"]}` {
		t.Errorf("allow_all = %s", a.text)
	}
	if a := r.must(200, wire.OpRead, "oidc/scope/profile", nil); a.str("description") != "who" {
		t.Errorf("scope = %s", a.text)
	}
	list := r.must(200, wire.OpList, "oidc/client", nil)
	if strings.Contains(list.text, web.secret) || !strings.Contains(list.text, web.id) {
		t.Errorf("the list of clients has secrets, or no ids: %s", list.text)
	}
	list = r.must(200, wire.OpList, "oidc/provider?allowed_client_id="+web.id, nil)
	if !strings.Contains(list.text, `"keys":["default","p"]`) {
		t.Errorf("the providers are %s", list.text)
	}
	d := r.must(200, wire.OpRead, "oidc/provider/p/.well-known/openid-configuration", nil)
	issuer := address + "/v1/identity/oidc/provider/p"
	if d.str("issuer") != issuer || d.str("token_endpoint") != issuer+"/token" || d.str("jwks_uri") != issuer+"/.well-known/keys" ||
		d.str("authorization_endpoint") != address+"/ui/vault/identity/oidc/provider/p/authorize" {
		t.Errorf("discovery = %s", d.text)
	}
	r.must(404, wire.OpRead, "oidc/provider/none/.well-known/openid-configuration", nil)
	r.must(404, wire.OpRead, "oidc/provider/none/.well-known/keys", nil)

	// In the right order all of it can go.
	for _, path := range []string{"provider/p", "scope/profile", "client/web", "client/cli", "assignment/devs", "key/k"} {
		r.must(204, wire.OpDelete, "oidc/"+path, nil)
	}
}

// TestSweepDropsCodes: a code that nobody exchanges leaves nothing behind.
func TestSweepDropsCodes(t *testing.T) {
	r, web, _ := withProvider(t)
	for range 250 { // more than one transaction takes
		r.code(web)
	}
	r.pass(6 * time.Minute)
	fresh := r.code(web)
	if err := r.engine.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := r.store.View(t.Context(), func(v storage.View) error {
		return v.Scan("m/root/id/oidc/code/", "m/root/id/oidc/code0", 0, func(string, []byte) bool { n++; return true })
	})
	if err != nil || n != 1 {
		t.Errorf("after the sweep %d codes are stored, %v, want the one whose time is not over", n, err)
	}
	r.must(200, wire.OpUpdate, "oidc/provider/p/token", web.redeem(fresh))
}

// TestDamagedRows: a key or a client that cannot be read takes no other's tokens
// along.
func TestDamagedRows(t *testing.T) {
	r, web, _ := withProvider(t)
	token := r.must(200, wire.OpUpdate, "oidc/provider/p/token", web.redeem(r.code(web))).str("id_token")
	_, err := r.store.Update(t.Context(), func(tx storage.Tx) error {
		for _, row := range []string{"key/another", "client/another"} {
			if err := tx.Put("m/root/id/oidc/"+row, []byte("damaged")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"oidc/.well-known/keys", "oidc/provider/p/.well-known/keys"} {
		r.verify(r.keys(path), token)
	}
}
