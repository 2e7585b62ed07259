package jwt_test

import (
	"crypto/elliptic"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/testenv/forgery"
	"github.com/leasehold/leasehold/internal/testenv/oidcprovider"
	"github.com/leasehold/leasehold/internal/wire"
)

// claims are good ones.
func claims(now time.Time) map[string]any {
	return map[string]any{
		"iss": "https://issuer.example", "sub": "svc-1", "aud": "vault", "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"team": "core", "groups": []string{"ops", "dev"}, "nested": map[string]any{"org": "acme", "groups": []string{"a"}, "user": "deep"},
	}
}

// fixed is a node that knows an issuer's key, and has a role "web".
func fixed(t *testing.T, is forgery.Issuer) *node {
	t.Helper()
	n := start(t, newStore(t))
	n.write("config", body{"jwt_validation_pubkeys": is.PEM(), "bound_issuer": "https://issuer.example", "default_role": "Web"})
	n.write("role/Web", body{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": "p", "token_ttl": "10m",
		"claim_mappings": body{"team": "team", "/nested/org": "org", "none": "none"}, "groups_claim": "groups",
	})
	return n
}

func TestLogin(t *testing.T) {
	is := forgery.NewECDSA(elliptic.P256())
	n := fixed(t, is)
	a, err := n.login("", is.Token(claims(n.clock.now())))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"team": "core", "org": "acme", "role": "web"}
	if diff := cmp.Diff(want, a.Metadata); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	if a.DisplayName != "svc-1" || a.Alias == nil || a.Alias.Name != "svc-1" || !maps.Equal(a.Alias.Metadata, want) || !slices.Equal(a.Groups, []string{"ops", "dev"}) ||
		!slices.Equal(a.Policies, []string{"p"}) || a.TTL != 10*time.Minute {
		t.Errorf("auth = %+v with alias %+v", a, a.Alias)
	}
}

// TestForgeries: no forged, expired, misaddressed, truncated or oversized
// token is taken, and what is said of its signature tells nothing.
func TestForgeries(t *testing.T) {
	for _, is := range []forgery.Issuer{forgery.NewECDSA(elliptic.P256()), forgery.NewRSA(), forgery.NewEd25519()} {
		n := fixed(t, is)
		for _, c := range is.Cases(claims(n.clock.now()), n.clock.now()) {
			a, err := n.login("web", c.Token)
			if a != nil || !errs.Is(err, errs.Invalid) {
				t.Errorf("%s, %s: auth %v, error %v; want errs.Invalid", is.Alg(), c.Name, a, err)
				continue
			}
			if msg := errs.Message(err); strings.Contains(msg, "jose") || len(msg) > 200 {
				t.Errorf("%s, %s: the error tells too much: %s", is.Alg(), c.Name, msg)
			}
		}
	}
}

func TestRoleDecides(t *testing.T) {
	is := forgery.NewECDSA(elliptic.P256())
	n := fixed(t, is)
	base := body{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault"}
	for _, tt := range []struct {
		name   string
		role   body
		claims map[string]any
		kind   errs.Kind
		ok     bool
	}{
		{"as it is", nil, nil, 0, true},
		{"one of several audiences", nil, map[string]any{"aud": []string{"x", "vault"}}, 0, true},
		{"an audience that the role does not bind", body{"bound_audiences": "", "bound_subject": "svc-1"}, nil, errs.Invalid, false},
		{"none of either", body{"bound_audiences": "", "bound_subject": "svc-1"}, map[string]any{"aud": nil}, 0, true},
		{"the subject", body{"bound_subject": "someone"}, nil, errs.Invalid, false},
		{"the issuer", nil, map[string]any{"iss": "https://issuer.example/"}, errs.Invalid, false},
		{"no issuer", nil, map[string]any{"iss": nil}, errs.Invalid, false},
		{"bound claims", body{"bound_claims": body{"team": []string{"x", "core"}, "/nested/org": "acme"}}, nil, 0, true},
		{"other bound claims", body{"bound_claims": body{"team": "infra"}}, nil, errs.Invalid, false},
		{"globs", body{"bound_claims_type": "glob", "bound_claims": body{"team": "c*"}}, nil, 0, true},
		{"globs that do not match", body{"bound_claims_type": "glob", "bound_claims": body{"team": "x*"}}, nil, errs.Invalid, false},
		{"no user", nil, map[string]any{"sub": nil}, errs.Invalid, false},
		{"a user without letters", nil, map[string]any{"sub": ""}, errs.Invalid, false},
		{"a user that is a number", nil, map[string]any{"sub": 5}, errs.Invalid, false},
		{"a user by pointer", body{"user_claim": "/nested/user", "user_claim_json_pointer": true}, nil, 0, true},
		{"a pointer that is none", body{"user_claim": "/nested/user"}, nil, errs.Invalid, false},
		{"groups by pointer", body{"groups_claim": "/nested/groups"}, nil, 0, true},
		{"no groups", body{"groups_claim": "none"}, nil, errs.Invalid, false},
		{"groups that are numbers", body{"groups_claim": "groups"}, map[string]any{"groups": []int{1}}, errs.Invalid, false},
		{"a mapped claim that is a list", body{"claim_mappings": body{"groups": "g"}}, nil, errs.Invalid, false},
		{"another network", body{"token_bound_cidrs": "10.0.0.0/8"}, nil, errs.Denied, false},
		{"the network", body{"token_bound_cidrs": "127.0.0.0/8"}, nil, 0, true},
	} {
		role := maps.Clone(base)
		maps.Copy(role, tt.role)
		n.write("role/tried", role)
		c := claims(n.clock.now())
		maps.Copy(c, tt.claims)
		a, err := n.login("tried", is.Token(c))
		if (err == nil) != tt.ok || err != nil && errs.KindOf(err) != tt.kind {
			t.Errorf("%s: %v, %v; want success %v", tt.name, a, err, tt.ok)
		}
		if _, err := n.do(wire.OpDelete, "role/tried", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAlgorithmsOfTheConfiguration(t *testing.T) {
	is := forgery.NewECDSA(elliptic.P256())
	n := fixed(t, is)
	n.write("config", body{"jwt_validation_pubkeys": []string{is.PEM()}, "jwt_supported_algs": "RS256"})
	if _, err := n.login("web", is.Token(claims(n.clock.now()))); !errs.Is(err, errs.Invalid) {
		t.Errorf("ES256 with jwt_supported_algs RS256: %v, want errs.Invalid", err)
	}
}

func TestLoginWithoutMuch(t *testing.T) {
	is := forgery.NewECDSA(elliptic.P256())
	n := start(t, newStore(t))
	token := is.Token(claims(n.clock.now()))
	if _, err := n.login("web", token); !errs.Is(err, errs.Invalid) {
		t.Errorf("without a configuration: %v", err)
	}
	n.write("config", body{"jwt_validation_pubkeys": is.PEM()})
	for _, role := range []string{"", "web"} {
		if _, err := n.login(role, token); !errs.Is(err, errs.Invalid) {
			t.Errorf("role %q: %v", role, err)
		}
	}
	n.write("role/b", body{"user_claim": "sub", "allowed_redirect_uris": "http://localhost/oidc/callback"})
	if _, err := n.login("b", token); !errs.Is(err, errs.Invalid) {
		t.Errorf("a role for browsers: %v", err)
	}
}

func TestRenewal(t *testing.T) {
	is := forgery.NewECDSA(elliptic.P256())
	n := fixed(t, is)
	a, err := n.login("web", is.Token(claims(n.clock.now())))
	if err != nil {
		t.Fatal(err)
	}
	n.write("role/web", body{"token_ttl": "20m", "token_policies": "other"})
	r := engine.Renewal{Internal: a.Internal, Policies: []string{"p"}, Metadata: a.Metadata, DisplayName: a.DisplayName}
	got, err := n.eng.(engine.Renewer).RenewLogin(t.Context(), r)
	if err != nil || got.TTL != 20*time.Minute || !slices.Equal(got.Policies, []string{"p"}) {
		t.Errorf("RenewLogin = %+v, %v; want the role as it is now, and the policies that the token has", got, err)
	}
	if _, err := n.do(wire.OpDelete, "role/web", nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := n.eng.(engine.Renewer).RenewLogin(t.Context(), r); !errs.Is(err, errs.Invalid) {
		t.Errorf("RenewLogin without the role: %v, want errs.Invalid", err)
	}
	// A role that is made again is another one, which grants other things.
	n.write("role/web", body{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault"})
	if _, err := n.eng.(engine.Renewer).RenewLogin(t.Context(), r); !errs.Is(err, errs.Invalid) {
		t.Errorf("RenewLogin with another role of the name: %v, want errs.Invalid", err)
	}
}

func TestRoles(t *testing.T) {
	n := start(t, newStore(t))
	ok := body{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault"}
	for _, tt := range []struct {
		name   string
		change body
		ok     bool
	}{
		{"as it is", nil, true},
		{"no user claim", body{"user_claim": ""}, false},
		{"nothing bound", body{"bound_audiences": ""}, false},
		{"a network bound", body{"bound_audiences": "", "token_bound_cidrs": "10.0.0.0/8"}, true},
		{"unknown type", body{"role_type": "gold"}, false},
		{"unknown match", body{"bound_claims_type": "regexp"}, false},
		{"globs of numbers", body{"bound_claims_type": "glob", "bound_claims": body{"a": 1}}, false},
		{"reserved metadata", body{"claim_mappings": body{"a": "role"}}, false},
		{"one name for two claims", body{"claim_mappings": body{"a": "x", "b": "x"}}, false},
		{"a browser's without an address", body{"role_type": "oidc"}, false},
		{"leeways", body{"expiration_leeway": -1, "not_before_leeway": "30", "clock_skew_leeway": "2m"}, true},
		{"a leeway that is none", body{"expiration_leeway": "soon"}, false},
		{"ttl over max", body{"token_ttl": "2h", "token_max_ttl": "1h"}, false},
		{"period over the mount's", body{"token_period": "10000h"}, false},
		{"a callback by the server", body{"callback_mode": "direct"}, false},
	} {
		role := maps.Clone(ok)
		maps.Copy(role, tt.change)
		_, err := n.do(wire.OpUpdate, "role/r", role, nil)
		if (err == nil) != tt.ok || err != nil && !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v, want success %v", tt.name, err, tt.ok)
		}
		if _, err := n.do(wire.OpDelete, "role/r", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	n.write("role/r", ok)
	n.write("role/R", body{"clock_skew_leeway": -1, "policies": "old", "ttl": 60, "verbose_oidc_logging": true})
	got := n.read("role/r")
	for name, want := range map[string]any{
		"clock_skew_leeway": -1.0, "token_ttl": 60.0, "user_claim": "sub", "bound_claims": nil, "oidc_scopes": nil, "role_type": "jwt",
	} {
		if diff := cmp.Diff(want, got[name]); diff != "" {
			t.Errorf("%s after two writes (-want +got):\n%s", name, diff)
		}
	}
}

func TestConfigurations(t *testing.T) {
	is := forgery.NewECDSA(elliptic.P256())
	p := oidcprovider.Start(t, oidcprovider.Config{TLS: true})
	n := start(t, newStore(t))
	gone := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(gone.Close)
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"issuer":"https://accounts.example","jwks_uri":"`+p.URL+`/keys"}`)
	}))
	t.Cleanup(liar.Close)
	for _, tt := range []struct {
		name string
		body body
		ok   bool
	}{
		{"nothing", body{}, false},
		{"no key", body{"jwt_validation_pubkeys": "junk"}, false},
		{"two sources", body{"jwt_validation_pubkeys": is.PEM(), "jwks_url": p.URL + "/keys"}, false},
		{"an unknown algorithm", body{"jwt_validation_pubkeys": is.PEM(), "jwt_supported_algs": "none"}, false},
		{"a shared secret's algorithm", body{"jwt_validation_pubkeys": is.PEM(), "jwt_supported_algs": "HS256"}, false},
		{"keys", body{"jwks_url": p.URL + "/keys", "jwks_ca_pem": p.CA}, true},
		{"keys behind an unknown certificate", body{"jwks_url": p.URL + "/keys"}, false},
		{"the same, to be looked at later", body{"jwks_url": p.URL + "/keys", "skip_jwks_validation": true}, true},
		{"no certificate", body{"jwks_url": p.URL + "/keys", "jwks_ca_pem": "junk"}, false},
		{"another name in the certificate", body{"jwks_url": p.URL + "/keys", "jwks_ca_pem": p.CA, "override_allowed_server_names": "elsewhere.test"}, false},
		{"a name that it has", body{"jwks_url": p.URL + "/keys", "jwks_ca_pem": p.CA, "override_allowed_server_names": "x.test,example.com"}, true},
		{"no keys there", body{"jwks_url": gone.URL}, false},
		{"several key sets", body{"jwks_pairs": []body{{"jwks_url": p.URL + "/keys", "jwks_ca_pem": p.CA}}}, true},
		{"a key set without an address", body{"jwks_pairs": []body{{}}}, false},
		{"a provider", body{"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA}, true},
		{"its document's address", body{"oidc_discovery_url": p.URL + "/.well-known/openid-configuration", "oidc_discovery_ca_pem": p.CA}, true},
		{"another's issuer", body{"oidc_discovery_url": liar.URL}, false},
		{"half a client", body{"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "oidc_client_id": "x"}, false},
		{"a client without a provider", body{"jwks_url": p.URL + "/keys", "jwks_ca_pem": p.CA, "oidc_client_id": "x", "oidc_client_secret": "y"}, false},
		{"a token in the address", body{"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "oidc_response_types": "id_token"}, false},
		{"a token in a form", body{"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "oidc_response_types": "id_token", "oidc_response_mode": "form_post"}, true},
		{"an unknown type", body{"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "oidc_response_types": "token"}, false},
		{"an unknown mode", body{"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "oidc_response_mode": "fragment"}, false},
		{"a provider whose groups would be missing", body{"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "provider_config": body{"provider": "gsuite"}}, false},
		{"one whose are in the token", body{"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "provider_config": body{"provider": "azure"}}, true},
	} {
		_, err := n.do(wire.OpUpdate, "config", tt.body, nil)
		if (err == nil) != tt.ok || err != nil && !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v, want success %v", tt.name, err, tt.ok)
		}
	}
	n.write("config", body{"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "oidc_client_id": "x", "oidc_client_secret": "hush", "namespace_in_state": false})
	n.write("config", body{"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "oidc_client_id": "x", "oidc_client_secret": "hush"})
	got := n.read("config")
	if _, told := got["oidc_client_secret"]; told || got["status"] != "valid" || got["namespace_in_state"] != false {
		t.Errorf("config reads %v; want no secret, valid, and namespace_in_state as it was", got)
	}
}
