package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/api"
)

// TestPasswordPolicies: their names are told apart by case, and passwords are
// neither too short nor too long to be any use.
func TestPasswordPolicies(t *testing.T) {
	c := start(t, "")
	ctx := t.Context()
	for _, name := range []string{"Db", "db"} {
		if _, err := c.Write(ctx, "sys/policies/password/"+name, map[string]string{"policy": `length = 8 rule "charset" { charset = "` + name + `" }`}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"Db", "db"} {
		s, err := c.Read(ctx, "sys/policies/password/"+name+"/generate", nil)
		if err != nil {
			t.Fatal(err)
		}
		var out struct{ Password string }
		if err := json.Unmarshal(s.Data, &out); err != nil || len(out.Password) != 8 || strings.Trim(out.Password, name) != "" {
			t.Errorf("a password by %s is %q, %v", name, out.Password, err)
		}
	}
	if _, err := c.Delete(ctx, "sys/policies/password/Db", nil); err != nil {
		t.Fatal(err)
	}
	if keys, err := c.List(ctx, "sys/policies/password"); err != nil || len(keys) != 1 || keys[0] != "db" {
		t.Errorf("after deleting Db there are %q, %v", keys, err)
	}
	for _, length := range []string{"3", "101"} {
		_, err := c.Write(ctx, "sys/policies/password/db", map[string]string{"policy": `length = ` + length + ` rule "charset" { charset = "ab" }`})
		if e := (*api.Error)(nil); !errors.As(err, &e) || e.Status != 400 {
			t.Errorf("passwords of %s characters = %v, want a refusal", length, err)
		}
	}
}

// TestPolicyText: what is refused changes nothing, and a policy of parts of a
// name is used like any other.
func TestPolicyText(t *testing.T) {
	c := start(t, "")
	ctx := t.Context()
	write := func(path string, body any) *api.Secret {
		t.Helper()
		s, err := c.Write(ctx, path, body)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return s
	}
	write("sys/mounts/kv1", map[string]any{"type": "kv", "options": map[string]string{"version": "1"}})
	write("kv1/a", map[string]string{"v": "1"})
	write("sys/policies/acl/team/app", map[string]any{"policy": `path "kv1/a" { capabilities = ["read"] }`, "cas": -1})
	tok := write("auth/token/create", map[string]any{"policies": []string{"team/app"}}).Auth.ClientToken
	as := c.WithToken(tok)
	if _, err := as.Read(ctx, "kv1/a", nil); err != nil {
		t.Errorf("reading with the policy = %v", err)
	}
	if _, err := c.Patch(ctx, "sys/policies/acl/team/app", map[string]any{"policy": `path "kv1/a" { fly }`}); err == nil {
		t.Error("a patch with a text that is no policy was taken")
	}
	if _, err := as.Read(ctx, "kv1/a", nil); err != nil {
		t.Errorf("reading after a refused patch = %v", err)
	}
	if _, err := c.Patch(ctx, "sys/policies/acl/team/app", map[string]any{"policy": `path "kv1/a" { capabilities = ["list"] }`}); err != nil {
		t.Fatal(err)
	}
	if _, err := as.Read(ctx, "kv1/a", nil); err == nil {
		t.Error("reading is allowed after a patch that takes it away")
	}
	if keys, err := c.List(ctx, "sys/policies/acl/team"); err != nil || len(keys) != 1 || keys[0] != "team/app" {
		t.Errorf("below team there are %q, %v", keys, err)
	}
}

// TestNoPermissionComesFirst: who may do nothing at a path hears that, whatever
// is wrong with the request, and whether it is recorded or not.
func TestNoPermissionComesFirst(t *testing.T) {
	l := startLocal(t, "")
	tok := l.must("POST", "auth/token/create", `{"policies": ["default"], "ttl": "1h"}`).Auth.Token
	for _, audited := range []bool{false, true} {
		if audited {
			l.audit()
		}
		if status, body := l.ask("POST", "sys/quotas/rate-limit/x", tok, `{"rate": "no number"}`); status != 403 {
			t.Errorf("with an audit device %v = %d %s, want 403", audited, status, body)
		}
	}
}

// TestDeniedMountWithASlash: a mount has one path, with a slash at its end or
// without, and who is kept from it is told so by sys/capabilities, too.
func TestDeniedMountWithASlash(t *testing.T) {
	l := startLocal(t, "")
	l.must("POST", "sys/mounts/x", `{"type": "kv"}`)
	l.must("POST", "sys/mounts/y", `{"type": "kv"}`)
	l.must("POST", "sys/policies/acl/mounter", object(map[string]any{"policy": `
		path "sys/mounts/*" { capabilities = ["read", "update", "delete"] }
		path "sys/mounts/x" { capabilities = ["deny"] }`}))
	tok := l.must("POST", "auth/token/create", `{"policies": ["default", "mounter"], "ttl": "1h"}`).Auth.Token
	for path, want := range map[string]int{"sys/mounts/x": 403, "sys/mounts/x/": 403, "sys/mounts/y/": 204} {
		if status, body := l.ask("DELETE", path, tok, ""); status != want {
			t.Errorf("DELETE %s = %d %s, want %d", path, status, body, want)
		}
		status, body := l.ask("POST", "sys/capabilities-self", tok, object(map[string]any{"paths": path}))
		if status != 200 || strings.Contains(body, "delete") != (want == 204) {
			t.Errorf("capabilities on %s = %d %s", path, status, body)
		}
	}
}

// TestPolicyNamesInOtherLetters: a policy is kept by its name in small letters,
// and whoever is kept from it is kept from it however the name is written.
func TestPolicyNamesInOtherLetters(t *testing.T) {
	l := startLocal(t, "")
	const text = `{"policy": "path \"secret/a\" { capabilities = [\"read\"] }"}`
	l.must("POST", "sys/policies/acl/admin", text)
	l.must("POST", "sys/policies/acl/writer", object(map[string]any{"policy": `
		path "sys/polic*" { capabilities = ["create", "read", "update", "patch", "delete"] }
		path "sys/policies/acl/admin" { capabilities = ["deny"] }
		path "sys/policy/admin" { capabilities = ["deny"] }`}))
	tok := l.must("POST", "auth/token/create", `{"policies": ["writer"], "ttl": "1h"}`).Auth.Token
	for _, name := range []string{"admin", "Admin", "ADMIN", "admin%20", "%C2%A0aDmin"} {
		for _, path := range []string{"sys/policies/acl/", "sys/policy/"} {
			for _, method := range []string{"GET", "POST", "DELETE"} {
				if status, body := l.ask(method, path+name, tok, text); status != 403 {
					t.Errorf("%s %s%s = %d %s, want 403", method, path, name, status, body)
				}
			}
		}
		if status, body := l.ask("PATCH", "sys/policies/acl/"+name, tok, text, "Content-Type", "application/merge-patch+json"); status != 403 {
			t.Errorf("PATCH sys/policies/acl/%s = %d %s, want 403", name, status, body)
		}
	}
	if status, body := l.ask("POST", "sys/policies/acl/Other", tok, text); status != 200 || !strings.Contains(body, "converted to other") {
		t.Errorf("another policy = %d %s, want 200 and a warning", status, body)
	}
	if status, body := l.ask("GET", "sys/policies/acl/OTHER", tok, ""); status != 200 || !strings.Contains(body, `"name":"other"`) {
		t.Errorf("reading it = %d %s, want 200", status, body)
	}
}

// TestNamesInOtherLetters goes through all that the server knows by a name whose
// case does not matter: a denial holds however the name is written, in the rule
// and in the request, and sys/capabilities-self says so.
func TestNamesInOtherLetters(t *testing.T) {
	l := startLocal(t, "")
	for _, method := range []string{"userpass", "approle", "jwt", "kubernetes", "cert", "ldap"} {
		l.must("POST", "sys/auth/"+method, `{"type": "`+method+`"}`)
	}
	names := []string{
		"auth/userpass/users/%s", "auth/approle/role/%s", "auth/approle/role/%s/policies", "auth/jwt/role/%s", "auth/kubernetes/role/%s",
		"auth/cert/certs/%s", "auth/cert/crls/%s", "auth/ldap/users/%s", "auth/ldap/groups/%s",
		"identity/entity/name/%s", "identity/group/name/%s", "sys/policies/acl/%s", "sys/policy/%s",
		"sys/config/auditing/request-headers/%s", "sys/config/ui/headers/%s",
	}
	text := `
		path "auth/*" { capabilities = ["read", "delete"] }
		path "identity/*" { capabilities = ["read", "delete"] }
		path "sys/*" { capabilities = ["read", "update", "delete", "sudo"] }`
	for _, path := range names {
		text += fmt.Sprintf("\npath %q { capabilities = [\"deny\"] }", fmt.Sprintf(path, "Ann"))
		text += fmt.Sprintf("\npath %q { capabilities = [\"deny\"] }", fmt.Sprintf(path, "bob"))
	}
	l.must("POST", "sys/policies/acl/most", object(map[string]any{"policy": text}))
	tok := l.must("POST", "auth/token/create", `{"policies": ["most"], "ttl": "1h"}`).Auth.Token
	// Directories take more for one name than its case.
	for _, path := range []string{"auth/ldap/users/%EF%BD%82OB", "auth/ldap/groups/%20bob%20"} {
		if status, body := l.ask("DELETE", path, tok, ""); status != 403 {
			t.Errorf("DELETE %s = %d %s, want 403", path, status, body)
		}
	}
	for _, path := range names {
		for _, name := range []string{"Ann", "ann", "ANN", "bob", "Bob", "Zoe", "zoe"} {
			path := fmt.Sprintf(path, name)
			denied := name[0] != 'Z' && name[0] != 'z'
			if status, body := l.ask("GET", path, tok, ""); (status == 403) != denied {
				t.Errorf("GET %s = %d %s, want it denied: %v", path, status, body, denied)
			}
			if status, body := l.ask("DELETE", path, tok, ""); (status == 403) != denied {
				t.Errorf("DELETE %s = %d %s, want it denied: %v", path, status, body, denied)
			}
			status, body := l.ask("POST", "sys/capabilities-self", tok, object(map[string]any{"paths": path}))
			if status != 200 || strings.Contains(body, `"deny"`) != denied {
				t.Errorf("capabilities on %s = %d %s, want deny: %v", path, status, body, denied)
			}
		}
	}
}
