package server_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// TestAuditHidesSecretsOfLogins: whatever people and programs prove themselves
// with, and what they are given for it, is in no record in the clear, also
// where a mount was told not to hash it; and each step has its two records.
func TestAuditHidesSecretsOfLogins(t *testing.T) {
	t.Parallel()
	l := startLocal(t, fmt.Sprintf("api_addr = %q", apiAddr))
	people := l.withIssuer()
	l.must("POST", "sys/auth/approle", `{"type":"approle"}`)
	l.must("POST", "sys/auth/userpass", `{"type":"userpass"}`)
	lg := l.audit()
	secrets := map[string]string{} // text → what it is
	note := func(what string, text any) string {
		s, _ := text.(string)
		if len(s) < 6 {
			t.Fatalf("%s is %v, want a secret", what, text)
		}
		secrets[s] = what
		return s
	}
	open := object(body{
		"audit_non_hmac_request_keys": []string{"secret_id", "password", "password_hash", "jwt", "client_secret", "code", "code_verifier", "token"},
		"audit_non_hmac_response_keys": []string{
			"secret_id", "client_token", "url", "barcode", "client_secret", "code", "access_token", "id_token", "token",
		},
	})
	for _, mount := range []string{"sys", "identity", "auth/approle", "auth/userpass", "auth/jwt"} {
		l.must("POST", "sys/mounts/"+mount+"/tune", open)
	}
	l.must("POST", "sys/config/auditing/request-headers/x-vault-mfa", `{"hmac": false}`)
	l.must("POST", "sys/config/auditing/request-headers/authorization", `{"hmac": false}`)

	// Methods.
	l.must("POST", "auth/approle/role/web", `{"token_policies":"default"}`)
	roleID := l.must("GET", "auth/approle/role/web/role-id", "").Data["role_id"]
	secretID := note("a secret id", l.must("POST", "auth/approle/role/web/secret-id", "{}").Data["secret_id"])
	custom := note("a secret id of one's own", "my-own-secret-id")
	l.must("POST", "auth/approle/role/web/custom-secret-id", object(body{"secret_id": custom}))
	for _, id := range []string{secretID, custom, note("a wrong secret id", "no-such-secret-id")} {
		_, r := l.tryLogin("auth/approle/login", object(body{"role_id": roleID, "secret_id": id}))
		if r.Auth != nil {
			note("a token", r.Auth.ClientToken)
		}
	}
	l.must("POST", "auth/approle/role/web/secret-id/lookup", object(body{"secret_id": secretID}))
	l.must("POST", "auth/approle/role/web/secret-id/destroy", object(body{"secret_id": secretID}))
	hash, err := bcrypt.GenerateFromPassword([]byte("anns-old-password"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	l.must("POST", "auth/userpass/users/ann", object(body{"password_hash": note("a password's hash", string(hash))}))
	l.must("POST", "auth/userpass/users/ann/password", object(body{"password": note("a password", "anns-new-password")}))
	for _, p := range []string{"anns-new-password", note("an old password", "anns-old-password")} {
		_, r := l.tryLogin("auth/userpass/login/ann", object(body{"password": p}))
		if r.Auth != nil {
			note("a token", r.Auth.ClientToken)
		}
	}
	signed := func() string {
		t.Helper()
		b := people.login("service", "ann")
		var in struct{ JWT string }
		if err := json.Unmarshal([]byte(b), &in); err != nil {
			t.Fatal(err)
		}
		note("a signed token", in.JWT)
		return b
	}
	l.policy("ids", "identity/+/*", `"read", "update"`)
	_, in := l.tryLogin("auth/jwt/login", signed())
	ann := note("a token", in.Auth.ClientToken)

	// Second factors.
	method := l.must("POST", "identity/mfa/method/totp", `{"issuer": "Leasehold", "period": 3600}`).Data["method_id"].(string)
	_, text := l.ask("POST", "identity/mfa/method/totp/generate", ann, object(body{"method_id": method}))
	var made reply
	if err := json.Unmarshal([]byte(text), &made); err != nil || made.Data["url"] == nil {
		t.Fatalf("generate = %s, %v", text, err)
	}
	link := note("the URL of a device", made.Data["url"])
	note("its QR code", made.Data["barcode"])
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	note("the secret of a device", u.Query().Get("secret"))
	accessor := l.must("GET", "sys/auth/jwt", "").Data["accessor"]
	l.must("POST", "identity/mfa/login-enforcement/people", object(body{"mfa_method_ids": method, "auth_method_accessors": accessor}))
	_, in = l.tryLogin("auth/jwt/login", signed())
	_, in = l.tryLogin("sys/mfa/validate", object(body{"mfa_request_id": in.Auth.MFA.ID, "mfa_payload": body{method: []string{note("a passcode", passcode(t, link, -1))}}}))
	note("a token", in.Auth.ClientToken)
	_, in = l.tryLogin("auth/jwt/login", signed(), "X-Vault-MFA", method+":"+note("a passcode in a header", passcode(t, link, 0)))
	note("a token", in.Auth.ClientToken)
	l.must("DELETE", "identity/mfa/login-enforcement/people", "")

	// The provider, asked by a client in both ways.
	const callback, verifier = "https://app.test/callback", "verifier-verifier-verifier-verifier-verifier"
	note("a verifier", verifier)
	l.must("POST", "identity/oidc/client/web", object(body{"redirect_uris": callback, "assignments": "allow_all"}))
	c := l.must("GET", "identity/oidc/client/web", "").Data
	client := note("a client's secret", c["client_secret"])
	for _, header := range []bool{true, false} {
		q := url.Values{"client_id": {c["client_id"].(string)}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {"openid"}, "state": {"st"},
			"code_challenge": {verifier}, "code_challenge_method": {"plain"}}
		_, text := l.ask("GET", "identity/oidc/provider/default/authorize?"+q.Encode(), ann, "")
		var code struct{ Code string }
		if err := json.Unmarshal([]byte(text), &code); err != nil || code.Code == "" {
			t.Fatalf("authorize = %s, %v", text, err)
		}
		form := url.Values{"grant_type": {"authorization_code"}, "code": {note("a code", code.Code)}, "redirect_uri": {callback}, "code_verifier": {verifier}}
		head := []string{"Content-Type", "application/x-www-form-urlencoded"}
		if header {
			basic := base64.StdEncoding.EncodeToString([]byte(c["client_id"].(string) + ":" + client))
			head = append(head, "Authorization", "Basic "+note("a client's secret in a header", basic))
		} else {
			form.Set("client_id", c["client_id"].(string))
			form.Set("client_secret", client)
		}
		_, text = l.ask("POST", "identity/oidc/provider/default/token", "", form.Encode(), head...)
		var got struct {
			Access string `json:"access_token"`
			ID     string `json:"id_token"`
		}
		if err := json.Unmarshal([]byte(text), &got); err != nil || got.ID == "" {
			t.Fatalf("token = %s, %v", text, err)
		}
		note("an identity token", got.ID)
		l.ask("GET", "identity/oidc/provider/default/userinfo", "", "", "Authorization", "Bearer "+note("an access token", got.Access))
	}
	l.must("POST", "identity/oidc/role/r", `{"key":"default"}`)
	_, text = l.ask("GET", "identity/oidc/token/r", ann, "")
	if err := json.Unmarshal([]byte(text), &made); err != nil {
		t.Fatal(err)
	}
	l.must("POST", "identity/oidc/introspect", object(body{"token": note("an identity token", made.Data["token"])}))

	hashed, err := os.ReadFile(lg.hashed)
	if err != nil {
		t.Fatal(err)
	}
	for text, what := range secrets {
		quoted, _ := json.Marshal(text)
		for _, r := range read(t, lg.hashed) {
			if strings.Contains(r.line, text) || strings.Contains(r.line, string(quoted[1:len(quoted)-1])) {
				t.Errorf("%s (%s) is in the log in the clear: %s", what, text, r.line)
				break
			}
		}
	}
	pairs(t, read(t, lg.hashed))
	for path, atLeast := range map[string]int{
		"auth/approle/login": 3, "auth/userpass/login/ann": 2, "auth/jwt/login": 3, "sys/mfa/validate": 1,
		"identity/oidc/provider/default/authorize": 2, "identity/oidc/provider/default/token": 2, "identity/oidc/provider/default/userinfo": 2,
	} {
		if n := strings.Count(string(hashed), fmt.Sprintf(`"path":%q`, path)); n < 2*atLeast {
			t.Errorf("%s stands in %d records, want %d or more", path, n, 2*atLeast)
		}
	}
}
