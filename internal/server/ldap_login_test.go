package server_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/leasehold/leasehold/internal/testenv"
)

// TestLDAPLogin: a login by a directory is a token, an entity, and after too
// many guesses a lockout.
func TestLDAPLogin(t *testing.T) {
	t.Parallel()
	dir := testenv.Slapd(t, testenv.SlapdConfig{LDIF: `dn: uid=ann,dc=example,dc=org
objectClass: inetOrgPerson
uid: ann
cn: ann
sn: ann
userPassword: ann-pw

dn: cn=Ops,dc=example,dc=org
objectClass: groupOfNames
cn: Ops
member: uid=ann,dc=example,dc=org
`})
	l := startLocal(t, "")
	l.must("POST", "sys/auth/ldap", `{"type":"ldap","config":{"user_lockout_config":{"lockout_threshold":3}}}`)
	l.must("POST", "auth/ldap/config", fmt.Sprintf(`{"url":%q,"userdn":"dc=example,dc=org","userattr":"uid","groupdn":"dc=example,dc=org","discoverdn":true}`, dir.URL()))
	l.must("POST", "auth/ldap/groups/ops", `{"policies":"p-ops"}`)
	login := func(name, password string) (int, string, []string) {
		t.Helper()
		status, body := l.ask("POST", "auth/ldap/login/"+name, "", fmt.Sprintf(`{"password":%q}`, password))
		var got struct {
			Auth struct {
				Token    string   `json:"client_token"`
				Entity   string   `json:"entity_id"`
				Policies []string `json:"policies"`
			} `json:"auth"`
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		if status == 200 && got.Auth.Entity == "" {
			t.Errorf("login of %s has no entity: %s", name, body)
		}
		return status, got.Auth.Token, got.Auth.Policies
	}
	status, token, policies := login("ANN", "ann-pw")
	if status != 200 || !slices.Equal(policies, []string{"default", "p-ops"}) {
		t.Fatalf("login = %d, %q", status, policies)
	}
	if status, body := l.ask("POST", "auth/token/renew-self", token, ""); status != 200 {
		t.Errorf("renewal = %d %s", status, body)
	}
	l.must("POST", "auth/ldap/groups/ops", `{"policies":"p-other"}`)
	if status, body := l.ask("POST", "auth/token/renew-self", token, ""); status != 400 {
		t.Errorf("with other policies: renewal = %d %s", status, body)
	}
	// However a name is spelt, it is one.
	for i, name := range []string{"ann", "Ann", "%EF%BD%81nn"} {
		if status, _, _ := login(name, "wrong"); status != 400 {
			t.Errorf("guess %d = %d, want 400", i+1, status)
		}
	}
	for _, name := range []string{"ann", "aNN"} {
		if status, _, _ := login(name, "ann-pw"); status != 403 {
			t.Errorf("locked out: login of %s = %d, want 403", name, status)
		}
	}
}

// TestLDAPRenewalBringsGroupsUpToDate: what the directory says at a renewal is
// what an external group holds, as at a login.
func TestLDAPRenewalBringsGroupsUpToDate(t *testing.T) {
	t.Parallel()
	dir := testenv.Slapd(t, testenv.SlapdConfig{LDIF: `dn: uid=ann,dc=example,dc=org
objectClass: inetOrgPerson
uid: ann
cn: ann
sn: ann
userPassword: ann-pw

dn: cn=Ops,dc=example,dc=org
objectClass: groupOfNames
cn: Ops
member: uid=ann,dc=example,dc=org

dn: cn=Devs,dc=example,dc=org
objectClass: groupOfNames
cn: Devs
member: uid=nobody,dc=example,dc=org
`})
	l := startLocal(t, "")
	l.must("POST", "sys/auth/ldap", `{"type":"ldap"}`)
	l.must("POST", "auth/ldap/config", fmt.Sprintf(`{"url":%q,"userdn":"dc=example,dc=org","userattr":"uid","groupdn":"dc=example,dc=org","discoverdn":true}`, dir.URL()))
	accessor := l.must("GET", "sys/auth/ldap", "").Data["accessor"].(string)
	for _, name := range []string{"ops", "devs"} {
		id := l.must("POST", "identity/group", object(body{"name": name, "type": "external", "policies": "p-" + name})).Data["id"]
		l.must("POST", "identity/group-alias", object(body{"name": name, "mount_accessor": accessor, "canonical_id": id}))
	}
	type auth struct {
		Auth struct {
			Token    string   `json:"client_token"`
			Policies []string `json:"identity_policies"`
		} `json:"auth"`
	}
	ask := func(path, token, in string, want ...string) string {
		t.Helper()
		status, text := l.ask("POST", path, token, in)
		var got auth
		if err := json.Unmarshal([]byte(text), &got); err != nil || status != 200 || !slices.Equal(got.Auth.Policies, want) {
			t.Fatalf("%s = %d %s, want the identity's policies %q", path, status, text, want)
		}
		return got.Auth.Token
	}
	token := ask("auth/ldap/login/ann", "", `{"password":"ann-pw"}`, "p-ops")
	err := dir.Modify(t.Context(), `dn: cn=Ops,dc=example,dc=org
changetype: modify
replace: member
member: uid=nobody,dc=example,dc=org

dn: cn=Devs,dc=example,dc=org
changetype: modify
replace: member
member: uid=ann,dc=example,dc=org
`)
	if err != nil {
		t.Fatal(err)
	}
	ask("auth/token/renew-self", token, "", "p-devs")
}
