package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base32"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/oauth2"

	"github.com/leasehold/leasehold/internal/engines/identity/mfa"
)

const apiAddr = "http://leasehold.test:8200"

type body map[string]any

// entityToken makes a token that belongs to somebody, with some policies.
func (l *local) entityToken(name string, policies ...string) string {
	l.t.Helper()
	l.must("POST", "auth/token/roles/people", object(body{"allowed_entity_aliases": "*", "allowed_policies": policies}))
	return l.must("POST", "auth/token/create/people", object(body{"entity_alias": name, "policies": policies})).Auth.Token
}

func (l *local) policy(name, path, capabilities string) {
	l.t.Helper()
	l.must("POST", "sys/policies/acl/"+name, object(body{"policy": fmt.Sprintf("path %q { capabilities = [%s] }", path, capabilities)}))
}

// TestIdentityTokensVerifyByDiscovery: somebody else's library finds the keys
// by the issuer alone, and agrees with us about who a token is of.
func TestIdentityTokensVerifyByDiscovery(t *testing.T) {
	l := startLocal(t, fmt.Sprintf("api_addr = %q", apiAddr))
	l.policy("ids", "identity/oidc/token/*", `"read"`)
	ann := l.entityToken("ann", "ids")
	ctx := oidc.ClientContext(t.Context(), l.http)
	for _, alg := range []string{"RS256", "ES384", "EdDSA"} {
		l.must("POST", "identity/oidc/key/"+alg, object(body{"algorithm": alg, "allowed_client_ids": "app"}))
		l.must("POST", "identity/oidc/role/"+alg, object(body{"key": alg, "client_id": "app", "template": `{"name": {{identity.entity.name}}}`}))
	}
	p, err := oidc.NewProvider(ctx, apiAddr+"/v1/identity/oidc")
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range []string{"RS256", "ES384", "EdDSA"} {
		status, text := l.ask("GET", "identity/oidc/token/"+alg, ann, "")
		var r reply
		if err := json.Unmarshal([]byte(text), &r); err != nil || status != 200 {
			t.Fatalf("%s: token = %d %s", alg, status, text)
		}
		token := r.Data["token"].(string)
		id, err := p.Verifier(&oidc.Config{ClientID: "app"}).Verify(ctx, token)
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		var claims struct {
			Name string `json:"name"`
		}
		if err := id.Claims(&claims); err != nil || id.Subject == "" || !strings.HasPrefix(claims.Name, "entity_") {
			t.Errorf("%s: the token is of %q, named %q, %v", alg, id.Subject, claims.Name, err)
		}
		if _, err := p.Verifier(&oidc.Config{ClientID: "other"}).Verify(ctx, token); err == nil {
			t.Errorf("%s: the token is good for another audience", alg)
		}
		// Its key is rotated; whoever knows the old keys only asks again.
		l.must("POST", "identity/oidc/key/"+alg+"/rotate", "{}")
		if _, err := p.Verifier(&oidc.Config{ClientID: "app"}).Verify(ctx, token); err != nil {
			t.Errorf("%s: after a rotation: %v", alg, err)
		}
	}
	if status, text := l.ask("GET", "identity/oidc/token/RS256", l.root, ""); status != 400 {
		t.Errorf("a token for root, who is nobody = %d %s", status, text)
	}
	if status, _ := l.ask("GET", "identity/oidc/token/RS256", l.entityToken("bob", "default"), ""); status != 403 {
		t.Errorf("a token without a policy for it = %d, want 403", status)
	}
}

// TestOpenIDConnectProvider logs somebody in to a program, which speaks
// through libraries of others.
func TestOpenIDConnectProvider(t *testing.T) {
	l := startLocal(t, fmt.Sprintf("api_addr = %q", apiAddr))
	l.policy("login", "identity/oidc/provider/+/authorize", `"read", "update"`)
	ann := l.entityToken("ann", "login")
	const callback = "https://app.test/callback"
	l.must("POST", "identity/oidc/scope/who", object(body{"template": `{"name": {{identity.entity.name}}}`}))
	l.must("POST", "identity/oidc/provider/p", object(body{"allowed_client_ids": "*", "scopes_supported": "who"}))
	ctx := oidc.ClientContext(t.Context(), l.http)
	p, err := oidc.NewProvider(ctx, apiAddr+"/v1/identity/oidc/provider/p")
	if err != nil {
		t.Fatal(err)
	}
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
		for _, kind := range []string{"confidential", "public"} {
			name := fmt.Sprintf("%s-%d", kind, style)
			l.must("POST", "identity/oidc/client/"+name, object(body{"redirect_uris": callback, "assignments": "allow_all", "client_type": kind}))
			c := l.must("GET", "identity/oidc/client/"+name, "").Data
			endpoint := p.Endpoint()
			if endpoint.AuthStyle = style; kind == "public" {
				endpoint.AuthStyle = oauth2.AuthStyleInParams
			}
			conf := oauth2.Config{ClientID: c["client_id"].(string), RedirectURL: callback, Endpoint: endpoint, Scopes: []string{"openid", "who"}}
			if kind == "confidential" {
				conf.ClientSecret = c["client_secret"].(string)
			}
			verifier := oauth2.GenerateVerifier()
			// What the page at this address does: it asks the API with the
			// person's token.
			page, err := url.Parse(conf.AuthCodeURL("st", oidc.Nonce("n-1"), oauth2.S256ChallengeOption(verifier)))
			if err != nil || page.Path != "/ui/vault/identity/oidc/provider/p/authorize" {
				t.Fatalf("the authorization endpoint is %v, %v", page, err)
			}
			status, text := l.ask("GET", "identity/oidc/provider/p/authorize?"+page.RawQuery, ann, "")
			var code struct{ Code, State string }
			if err := json.Unmarshal([]byte(text), &code); err != nil || status != 200 || code.State != "st" {
				t.Fatalf("%s: authorize = %d %s", name, status, text)
			}
			tokens, err := conf.Exchange(ctx, code.Code, oauth2.VerifierOption(verifier))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			raw, _ := tokens.Extra("id_token").(string)
			id, err := p.Verifier(&oidc.Config{ClientID: conf.ClientID}).Verify(ctx, raw)
			if err != nil || id.Nonce != "n-1" {
				t.Fatalf("%s: the identity token %+v: %v", name, id, err)
			}
			if err := id.VerifyAccessToken(tokens.AccessToken); err != nil {
				t.Errorf("%s: at_hash: %v", name, err)
			}
			info, err := p.UserInfo(ctx, oauth2.StaticTokenSource(tokens))
			if err != nil || info.Subject != id.Subject {
				t.Errorf("%s: userinfo = %+v, %v", name, info, err)
			}
			// The access token is good for nothing else.
			if status, _ := l.ask("GET", "auth/token/lookup-self", tokens.AccessToken, ""); status != http.StatusForbidden {
				t.Errorf("%s: lookup-self with an access token = %d, want 403", name, status)
			}
			if _, err := conf.Exchange(ctx, code.Code, oauth2.VerifierOption(verifier)); err == nil {
				t.Errorf("%s: a code was exchanged twice", name)
			}
		}
	}
}

// people log in by signed tokens in these tests: their method needs no server.
type issuer struct {
	t   *testing.T
	key *ecdsa.PrivateKey
}

func (l *local) withIssuer() *issuer {
	l.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		l.t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		l.t.Fatal(err)
	}
	l.must("POST", "sys/auth/jwt", `{"type": "jwt"}`)
	l.must("POST", "auth/jwt/config", object(body{"jwt_validation_pubkeys": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}))
	for _, kind := range []string{"service", "batch"} {
		l.must("POST", "auth/jwt/role/"+kind, object(body{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "lh", "token_type": kind, "token_policies": "ids"}))
	}
	return &issuer{l.t, key}
}

// login is the body of a login.
func (i *issuer) login(role, name string) string {
	i.t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: i.key}, nil)
	if err != nil {
		i.t.Fatal(err)
	}
	text, err := jwt.Signed(s).Claims(jwt.Claims{
		Subject: name, Audience: jwt.Audience{"lh"}, IssuedAt: jwt.NewNumericDate(time.Now()), Expiry: jwt.NewNumericDate(time.Now().Add(time.Minute)),
	}).Serialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return object(body{"role": role, "jwt": text})
}

// loginReply is what a login answers, complete or waiting.
type loginReply struct {
	Warnings []string `json:"warnings"`
	WrapInfo *struct {
		Token string `json:"token"`
	} `json:"wrap_info"`
	Auth *struct {
		ClientToken string `json:"client_token"`
		EntityID    string `json:"entity_id"`
		TokenType   string `json:"token_type"`
		MFA         *struct {
			ID          string `json:"mfa_request_id"`
			Constraints map[string]struct {
				Any []struct {
					Type, ID     string
					UsesPasscode bool `json:"uses_passcode"`
				}
			} `json:"mfa_constraints"`
		} `json:"mfa_requirement"`
	} `json:"auth"`
}

func (l *local) tryLogin(path, body string, header ...string) (int, loginReply) {
	l.t.Helper()
	status, text := l.ask("POST", path, "", body, header...)
	var r loginReply
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		l.t.Fatalf("POST %s = %d %s: %v", path, status, text, err)
	}
	return status, r
}

// passcodes are those of a secret's URL, each once: a step further each time,
// as far as the method's skew lets it.
func passcode(t *testing.T, link string, steps int64) string {
	t.Helper()
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(u.Query().Get("secret"))
	if err != nil {
		t.Fatal(err)
	}
	return mfa.Code(key, time.Now().Unix()/3600+steps, 6, "SHA1")
}

// TestLoginsWithASecondFactor goes both ways through a login that needs a
// passcode, with an audit device listening.
func TestLoginsWithASecondFactor(t *testing.T) {
	l := startLocal(t, "")
	log := filepath.Join(t.TempDir(), "audit.log")
	l.must("POST", "sys/audit/file", object(body{"type": "file", "options": body{"file_path": log}}))
	l.policy("ids", "identity/mfa/method/totp/generate", `"update"`)
	people := l.withIssuer()
	accessor := l.must("GET", "sys/auth/jwt", "").Data["accessor"]
	// Periods of an hour: a test is not to run over the edge of one. The rows
	// below use one passcode each, of the steps -1, 0 and 1.
	method := l.must("POST", "identity/mfa/method/totp", `{"issuer": "Leasehold", "method_name": "phone", "period": 3600}`).Data["method_id"].(string)
	secret := func(role, name string) string {
		t.Helper()
		_, r := l.tryLogin("auth/jwt/login", people.login(role, name))
		status, text := l.ask("POST", "identity/mfa/method/totp/generate", r.Auth.ClientToken, object(body{"method_id": method}))
		var made reply
		if err := json.Unmarshal([]byte(text), &made); err != nil || status != 200 {
			t.Fatalf("generate = %d %s", status, text)
		}
		return made.Data["url"].(string)
	}
	ann, bob := secret("service", "ann"), secret("batch", "bob")
	l.must("POST", "identity/mfa/login-enforcement/people", object(body{"mfa_method_ids": method, "auth_method_accessors": accessor}))

	// In two steps.
	wait := func(role, name string, header ...string) string {
		t.Helper()
		status, r := l.tryLogin("auth/jwt/login", people.login(role, name), header...)
		if status != 200 || r.Auth == nil || r.Auth.ClientToken != "" || r.Auth.MFA == nil || len(r.Warnings) == 0 {
			t.Fatalf("a login that needs a factor = %d %+v", status, r)
		}
		if any := r.Auth.MFA.Constraints["people"].Any; len(any) != 1 || any[0].Type != "totp" || any[0].ID != method || !any[0].UsesPasscode {
			t.Fatalf("it needs %+v", r.Auth.MFA)
		}
		return r.Auth.MFA.ID
	}
	validate := func(id, code string, header ...string) (int, loginReply) {
		t.Helper()
		return l.tryLogin("sys/mfa/validate", object(body{"mfa_request_id": id, "mfa_payload": body{method: []string{code}}}), header...)
	}
	id := wait("service", "ann")
	if status, r := validate(id, "000000x"); status != http.StatusForbidden {
		t.Errorf("a wrong passcode = %d %+v, want 403", status, r)
	}
	status, r := validate(id, passcode(t, ann, -1))
	if status != 200 || r.Auth.ClientToken == "" || r.Auth.EntityID == "" || r.Auth.MFA != nil {
		t.Fatalf("validate = %d %+v", status, r)
	}
	if status, text := l.ask("GET", "auth/token/lookup-self", r.Auth.ClientToken, ""); status != 200 || !strings.Contains(text, `"path":"auth/jwt/login"`) {
		t.Errorf("the token of a login in two steps looks itself up as %d %s", status, text)
	}
	for what, code := range map[string]string{"the same request again": passcode(t, ann, 0), "the same passcode": passcode(t, ann, -1)} {
		if status, _ := validate(id, code); status != http.StatusBadRequest {
			t.Errorf("%s = %d, want 400", what, status)
		}
	}

	// At once: by the header, and wrapped.
	status, r = l.tryLogin("auth/jwt/login", people.login("service", "ann"), "X-Vault-MFA", "phone:"+passcode(t, ann, 0))
	if status != 200 || r.Auth.ClientToken == "" {
		t.Errorf("a login with its passcode = %d %+v", status, r)
	}
	for what, header := range map[string]string{
		"the passcode again": "phone:" + passcode(t, ann, 0), "a wrong one": method + ":000000x", "no passcode": "phone", "of another method": "watch:123456",
	} {
		if status, r := l.tryLogin("auth/jwt/login", people.login("service", "ann"), "X-Vault-MFA", header); status != http.StatusForbidden {
			t.Errorf("a login with %s = %d %+v, want 403", what, status, r)
		}
	}
	if status, _ := l.tryLogin("auth/jwt/login", people.login("service", "ann"), "X-Vault-MFA", ":"); status != http.StatusBadRequest {
		t.Errorf("a login with an odd header = %d, want 400", status)
	}
	id = wait("batch", "bob", "X-Vault-Wrap-TTL", "60")
	status, r = validate(id, passcode(t, bob, -1))
	if status != 200 || r.WrapInfo == nil || r.Auth != nil {
		t.Fatalf("validating a login that asked for wrapping = %d %+v", status, r)
	}
	_, text := l.ask("POST", "sys/wrapping/unwrap", r.WrapInfo.Token, "")
	if err := json.Unmarshal([]byte(text), &r); err != nil || r.Auth == nil || r.Auth.TokenType != "batch" {
		t.Errorf("unwrapped, the login is %s", text)
	}

	// What no passcode brings back: a request that never was, a mount that is
	// gone.
	if status, _ := validate("018f0000-0000-7000-8000-000000000000", passcode(t, bob, 0)); status != http.StatusBadRequest {
		t.Errorf("validating no request = %d, want 400", status)
	}
	for _, odd := range []string{`{}`, `{"mfa_request_id": "x"}`, `{"mfa_request_id": "x", "mfa_payload": "y"}`, `{"mfa_request_id": "x", "mfa_payload": {"a": {"b": 1}}}`} {
		if status, _ := l.ask("POST", "sys/mfa/validate", "", odd); status != http.StatusBadRequest {
			t.Errorf("validating %s = %d, want 400", odd, status)
		}
	}
	id, batch := wait("service", "bob"), wait("batch", "ann") // the second has no row that could refuse it
	l.must("DELETE", "sys/auth/jwt", "")
	for id, code := range map[string]string{id: passcode(t, bob, 0), batch: passcode(t, ann, 1)} {
		if status, r := validate(id, code); status/100 != 4 {
			t.Errorf("validating a login whose mount is gone = %d %+v, want it refused", status, r)
		}
	}

	// The log has all of it and none of the passcodes.
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"path":"sys/mfa/validate"`) {
		t.Error("the log does not know sys/mfa/validate")
	}
	for _, link := range []string{ann, bob} {
		for step := int64(-1); step <= 1; step++ {
			if strings.Contains(string(b), `"`+passcode(t, link, step)+`"`) {
				t.Error("a passcode stands in the log")
			}
		}
		u, _ := url.Parse(link)
		if strings.Contains(string(b), u.Query().Get("secret")) {
			t.Error("a secret stands in the log")
		}
	}
}
