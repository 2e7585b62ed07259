package jwt_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/testenv/oidcprovider"
	"github.com/leasehold/leasehold/internal/wire"
)

// client is what waits for a browser to come back.
type client struct {
	addr string
	came url.Values // with the last browser
	post bool
}

func listen(t *testing.T) *client {
	c := &client{}
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		c.came, c.post = r.Form, r.Method == http.MethodPost
	}))
	t.Cleanup(srv.Close)
	c.addr = srv.URL + "/oidc/callback"
	return c
}

// begin asks for an address and sends a browser there.
func (n *node) begin(c *client, b body) {
	n.t.Helper()
	all := body{"role": "people", "redirect_uri": c.addr}
	maps.Copy(all, b)
	r, err := n.do(wire.OpUpdate, "oidc/auth_url", all, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	to, _ := r.data["auth_url"].(string)
	if to == "" {
		n.t.Fatalf("no auth_url; the log says:\n%s", n.log)
	}
	c.came = nil
	if status, page, err := (oidcprovider.Browser{}).Visit(n.t.Context(), to); err != nil || c.came == nil {
		n.t.Fatalf("the browser did not come back: %d %s %v", status, page, err)
	}
}

// end brings what the browser brought.
func (n *node) end(c *client, more url.Values) (*route.Auth, error) {
	n.t.Helper()
	q := url.Values{"state": {c.came.Get("state")}, "code": {c.came.Get("code")}}
	maps.Copy(q, more)
	r, err := n.do(wire.OpRead, "oidc/callback", nil, q)
	return r.auth, err
}

func oidcConfig(p *oidcprovider.Provider) body {
	return body{
		"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "oidc_client_id": oidcprovider.ClientID,
		"oidc_client_secret": oidcprovider.ClientSecret, "default_role": "people",
	}
}

// people is a node for logins by browser.
func people(t *testing.T, store storage.Backend, p *oidcprovider.Provider) *node {
	t.Helper()
	n := start(t, store)
	n.write("config", oidcConfig(p))
	n.write("role/people", body{
		"user_claim": "email", "allowed_redirect_uris": "http://127.0.0.1/oidc/callback", "groups_claim": "groups", "token_policies": "p",
		"claim_mappings": body{"name": "name"}, "oidc_scopes": "email,groups",
	})
	return n
}

var ann = map[string]any{"sub": "u-1", "email": "ann@example.org", "groups": []string{"dev"}}

func TestBrowser(t *testing.T) {
	for name, cfg := range map[string]oidcprovider.Config{"in the header": {}, "in the body": {SecretInBody: true}} {
		t.Run("secret "+name, func(t *testing.T) {
			p := oidcprovider.Start(t, cfg)
			p.User(ann, map[string]any{"name": "Ann"})
			n, c := people(t, newStore(t), p), listen(t)
			n.begin(c, body{"client_nonce": "mine"})
			a, err := n.end(c, url.Values{"client_nonce": {"mine"}})
			if err != nil {
				t.Fatal(err)
			}
			if a.DisplayName != "ann@example.org" || a.Metadata["name"] != "Ann" || a.Metadata["role"] != "people" || len(a.Groups) != 1 {
				t.Errorf("auth = %+v", a)
			}
			if _, err := n.end(c, url.Values{"client_nonce": {"mine"}}); !errs.Is(err, errs.Invalid) {
				t.Errorf("the same state again: %v, want errs.Invalid", err)
			}
		})
	}
}

// TestOtherNode: a login that one node began ends at another.
func TestOtherNode(t *testing.T) {
	p := oidcprovider.Start(t, oidcprovider.Config{})
	p.User(ann, nil)
	store := newStore(t)
	one, two, c := people(t, store, p), start(t, store), listen(t)
	one.begin(c, nil)
	if _, err := two.end(c, nil); err != nil {
		t.Errorf("at the other node: %v", err)
	}
	if _, err := one.end(c, nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("at the first, afterwards: %v, want errs.Invalid", err)
	}
}

// TestCodesStayHere: a provider that sends the exchange on gets nobody the
// code or the client's secret.
func TestCodesStayHere(t *testing.T) {
	p := oidcprovider.Start(t, oidcprovider.Config{SecretInBody: true})
	p.User(ann, nil)
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		t.Errorf("the exchange was sent on with %v", r.Form)
	}))
	t.Cleanup(thief.Close)
	n, c := people(t, newStore(t), p), listen(t)
	p.SendOn(thief.URL)
	n.begin(c, nil)
	if a, err := n.end(c, nil); a != nil || !errs.Is(err, errs.Invalid) {
		t.Errorf("auth %+v, error %v; want errs.Invalid", a, err)
	}
}

func TestForm(t *testing.T) {
	p := oidcprovider.Start(t, oidcprovider.Config{})
	p.User(ann, nil)
	for _, types := range []string{"code", "id_token", "code,id_token"} {
		n, c := people(t, newStore(t), p), listen(t)
		conf := oidcConfig(p)
		conf["oidc_response_mode"], conf["oidc_response_types"] = "form_post", types
		n.write("config", conf)
		n.begin(c, body{"client_nonce": "mine"})
		if !c.post {
			t.Fatalf("%s: the browser came by a GET", types)
		}
		r, err := n.do(wire.OpUpdate, "oidc/callback", body{
			"state": c.came.Get("state"), "code": c.came.Get("code"), "id_token": c.came.Get("id_token"), "client_nonce": "mine",
		}, nil)
		if err != nil || r.raw == nil || r.raw.Status != http.StatusOK {
			t.Fatalf("%s: posting the form: %+v, %v", types, r.raw, err)
		}
		page := string(r.raw.Body)
		if !strings.Contains(page, "/ui/vault/auth/jwt/oidc/callback?code=no_code&amp;state=") {
			t.Errorf("%s: the page does not lead on:\n%s", types, page)
		}
		if code := c.came.Get("code"); code != "" && strings.Contains(page, code) {
			t.Errorf("%s: the page has the code", types)
		}
		if a, err := n.end(c, url.Values{"code": {"no_code"}, "client_nonce": {"mine"}}); err != nil || a.DisplayName != "ann@example.org" {
			t.Errorf("%s: %+v, %v", types, a, err)
		}
		r, err = n.do(wire.OpUpdate, "oidc/callback", body{"state": c.came.Get("state"), "code": "x"}, nil)
		if err != nil || r.raw == nil || r.raw.Status != http.StatusBadRequest {
			t.Errorf("%s: a form for a state that was used: %+v, %v", types, r.raw, err)
		}
	}
	n := people(t, newStore(t), p)
	if _, err := n.do(wire.OpUpdate, "oidc/callback", body{"state": "x"}, nil); !errs.Is(err, errs.Unsupported) {
		t.Errorf("a form without oidc_response_mode form_post: %v, want errs.Unsupported", err)
	}
}

// TestBrowserRefused: each of these must not log in.
func TestBrowserRefused(t *testing.T) {
	with := func(more map[string]any) map[string]any {
		u := maps.Clone(ann)
		maps.Copy(u, more)
		return u
	}
	for _, tt := range []struct {
		name    string
		user    map[string]any
		role    body
		refuse  string
		aud     []string
		query   url.Values
		advance time.Duration
		ok      bool
	}{
		{name: "as it is", user: ann, ok: true},
		{name: "wrong client_nonce", user: ann, query: url.Values{"client_nonce": {"yours"}}},
		{name: "no client_nonce", user: ann, query: url.Values{"client_nonce": {""}}},
		{name: "another code", user: ann, query: url.Values{"code": {"guessed"}}},
		{name: "no code", user: ann, query: url.Values{"code": {""}}},
		{name: "another state", user: ann, query: url.Values{"state": {strings.Repeat("A", 32)}}},
		{name: "no state", user: ann, query: url.Values{"state": {""}}},
		{name: "a state of other letters", user: ann, query: url.Values{"state": {"/\x00" + strings.Repeat("A", 30)}}},
		{name: "a namespace in the state", user: ann, ok: true, query: url.Values{"state": nil}},
		{name: "too late", user: ann, advance: 11 * time.Minute},
		{name: "the provider says no", user: ann, refuse: "access_denied"},
		{name: "in its own words", user: ann, refuse: "<b>no</b>"},
		{name: "an ID token of another login", user: with(map[string]any{"nonce": "other"})},
		{name: "without its nonce", user: with(map[string]any{"nonce": nil})},
		{name: "of another issuer", user: with(map[string]any{"iss": "https://elsewhere.example"})},
		{name: "for another client", user: with(map[string]any{"aud": "other", "azp": "other"})},
		{name: "for others, by another", user: with(map[string]any{"aud": []string{"other", oidcprovider.ClientID}, "azp": "other"})},
		{name: "for others too", user: ann, aud: []string{"other"}, ok: true},
		{name: "for nobody", user: with(map[string]any{"aud": nil})},
		{name: "expired", user: with(map[string]any{"exp": 1})},
		{name: "without an end", user: with(map[string]any{"exp": nil})},
		{name: "no user claim", user: map[string]any{"sub": "u-1", "groups": []string{}}},
		{name: "wrong subject", user: ann, role: body{"bound_subject": "u-2"}},
		{name: "wrong audience", user: ann, role: body{"bound_audiences": "other"}},
		{name: "wrong claims", user: ann, role: body{"bound_claims": body{"groups": "ops"}}},
		{name: "proved long ago", user: with(map[string]any{"auth_time": time.Now().Add(-time.Hour).Unix()}), role: body{"max_age": 60}},
		{name: "proved nobody says when", user: with(map[string]any{"auth_time": nil}), role: body{"max_age": 60}},
		{name: "proved a moment ago", user: ann, role: body{"max_age": 60}, ok: true},
		{name: "another network", user: ann, role: body{"token_bound_cidrs": "10.0.0.0/8"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := oidcprovider.Start(t, oidcprovider.Config{})
			p.User(tt.user, nil)
			p.Refuse(tt.refuse)
			p.AlsoFor(tt.aud...)
			n, c := people(t, newStore(t), p), listen(t)
			if tt.role != nil {
				n.write("role/people", tt.role)
			}
			n.begin(c, body{"client_nonce": "mine"})
			q := url.Values{"client_nonce": {"mine"}}
			if e := c.came.Get("error"); e != "" {
				q.Set("error", e)
			}
			maps.Copy(q, tt.query)
			if s, given := q["state"]; given && s == nil {
				q.Set("state", c.came.Get("state")+",ns=a/b")
			}
			n.clock.advance(tt.advance)
			a, err := n.end(c, q)
			if (err == nil) != tt.ok || (a != nil) != tt.ok || err != nil && !errs.Is(err, errs.Invalid) && !errs.Is(err, errs.Denied) {
				t.Errorf("auth %+v, error %v; want success %v", a, err, tt.ok)
			}
			if err != nil && strings.Contains(err.Error(), "<b>") {
				t.Errorf("the provider's own words are in the answer: %v", err)
			}
		})
	}
}

func TestAuthURL(t *testing.T) {
	p := oidcprovider.Start(t, oidcprovider.Config{})
	n := people(t, newStore(t), p)
	n.write("role/people", body{"allowed_redirect_uris": "http://localhost:8250/oidc/callback,https://vault.example/ui/vault/auth/oidc/oidc/callback", "max_age": "1m"})
	n.write("role/machine", body{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "x"})
	for _, tt := range []struct {
		name string
		body body
		want string // "url", "" for an empty one, or "error"
	}{
		{"the address", body{"redirect_uri": "http://localhost:8250/oidc/callback"}, "url"},
		{"another port on one's own machine", body{"redirect_uri": "http://localhost:1/oidc/callback"}, "url"},
		{"another path there", body{"redirect_uri": "http://localhost:8250/elsewhere"}, ""},
		{"another name for it", body{"redirect_uri": "http://127.0.0.1:8250/oidc/callback"}, ""},
		{"another scheme", body{"redirect_uri": "https://localhost:8250/oidc/callback"}, ""},
		{"somebody in it", body{"redirect_uri": "http://localhost@evil.example/oidc/callback"}, ""},
		{"a machine elsewhere", body{"redirect_uri": "https://vault.example/ui/vault/auth/oidc/oidc/callback"}, "url"},
		{"its namespace goes into the state", body{"redirect_uri": "https://vault.example/ui/vault/auth/oidc/oidc/callback?namespace=a%2Fb"}, "url"},
		{"another port there", body{"redirect_uri": "https://vault.example:444/ui/vault/auth/oidc/oidc/callback"}, ""},
		{"more behind it", body{"redirect_uri": "https://vault.example/ui/vault/auth/oidc/oidc/callback/x"}, ""},
		{"no address", body{}, "error"},
		{"a very long address", body{"redirect_uri": "http://localhost:8250/" + strings.Repeat("x", 4096)}, "error"},
		{"no such role", body{"role": "none", "redirect_uri": "http://localhost:8250/oidc/callback"}, "error"},
		{"a role for machines", body{"role": "machine", "redirect_uri": "http://localhost:8250/oidc/callback"}, ""},
	} {
		r, err := n.do(wire.OpUpdate, "oidc/auth_url", tt.body, nil)
		got := "error"
		if err == nil {
			if got, _ = r.data["auth_url"].(string); got != "" {
				got = "url"
			}
		}
		if got != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
	r, err := n.do(wire.OpUpdate, "oidc/auth_url", body{"redirect_uri": "https://vault.example/ui/vault/auth/oidc/oidc/callback?namespace=a%2Fb"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(r.data["auth_url"].(string))
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	if state := q.Get("state"); !strings.HasSuffix(state, ",ns=a/b") || q.Get("redirect_uri") != "https://vault.example/ui/vault/auth/oidc/oidc/callback" ||
		q.Get("scope") != "openid email groups" || q.Get("max_age") != "60" || q.Get("tenant") != "1" || q.Get("nonce") == "" || q.Get("code_challenge_method") != "S256" {
		t.Errorf("auth_url = %s", u)
	}

	plain := start(t, newStore(t))
	plain.write("config", body{"jwks_url": p.URL + "/keys"})
	plain.write("role/people", body{"user_claim": "sub", "allowed_redirect_uris": "http://localhost/x"})
	if _, err := plain.do(wire.OpUpdate, "oidc/auth_url", body{"role": "people", "redirect_uri": "http://localhost/x"}, nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("without a client: %v, want errs.Invalid", err)
	}
}

// TestFlowsAreBounded: whoever begins logins and never ends them leaves few
// rows, and those not for long.
func TestFlowsAreBounded(t *testing.T) {
	p := oidcprovider.Start(t, oidcprovider.Config{})
	p.User(ann, nil)
	store := newStore(t)
	n, c := people(t, store, p), listen(t)
	rows := func() (count int) {
		err := store.View(t.Context(), func(v storage.View) error {
			return v.Scan("flow/", "flow0", 0, func(string, []byte) bool { count++; return true })
		})
		if err != nil {
			t.Fatal(err)
		}
		return count
	}
	for range 6000 {
		if _, err := n.do(wire.OpUpdate, "oidc/auth_url", body{"redirect_uri": c.addr}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := rows(); got > 4096 {
		t.Errorf("6000 logins that nobody ended left %d rows, want at most 4096", got)
	}
	n.begin(c, nil)
	if _, err := n.end(c, nil); err != nil {
		t.Errorf("one that is ended, among them: %v", err)
	}
	n.clock.advance(11 * time.Minute)
	n.begin(c, nil)
	deadline := time.Now().Add(10 * time.Second)
	for rows() > 1 { // the sweep goes on beside the login that began it
		if time.Now().After(deadline) {
			t.Fatalf("%d rows are left once their time is over, want the last one alone", rows())
		}
		runtime.Gosched()
	}
}
