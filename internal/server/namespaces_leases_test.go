package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/testenv"
)

// TestLeasesOfNamespaces issues logins of a real database in two namespaces and
// the root: each lease is known in its own namespace and from above, and ends
// with its namespace.
func TestLeasesOfNamespaces(t *testing.T) {
	t.Parallel()
	pg := testenv.Postgres(t, testenv.Config{})
	db := pg.NewDatabase(t)
	l := startTenants(t)
	spaces := []string{"", "a", "c"}
	leases, users := map[string]string{}, map[string]string{}
	for _, ns := range spaces {
		in := []string{"X-Vault-Namespace", ns}
		l.must("POST", "sys/mounts/database", `{"type":"database"}`, in...)
		l.must("POST", "database/config/app", object(map[string]any{
			"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": testenv.Superuser, "password": pg.Password,
			"password_policy": "own", "connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable", pg.Addr(), db),
		}), in...)
		l.must("POST", "database/roles/app", object(map[string]any{
			"db_name": "app", "creation_statements": []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`}, "default_ttl": "1h",
		}), in...)
		made := l.must("GET", "database/creds/app", "", in...)
		leases[ns] = made.LeaseID
		users[ns], _ = made.Data["username"].(string)
		if pw, _ := made.Data["password"].(string); len(pw) != 20 || strings.Trim(pw, "abcde") != "" {
			t.Errorf("the password in %q is not by the policy of its namespace", ns)
		}
		if !strings.HasPrefix(made.LeaseID, "database/creds/app/") {
			t.Errorf("the lease of %q is %s", ns, made.LeaseID)
		}
	}
	for _, of := range spaces {
		for _, other := range spaces {
			body := object(map[string]any{"lease_id": leases[other]})
			want := map[bool]int{true: 200, false: 400}[within(other, of)]
			for _, path := range []string{"sys/leases/lookup", "sys/leases/renew", "sys/renew"} {
				if status, text := l.ask("POST", path, l.tokens[of], body, "X-Vault-Namespace", of); status != want {
					t.Errorf("%s in %q of the lease of %q = %d %s, want %d", path, of, other, status, text, want)
				}
			}
			if within(other, of) {
				continue
			}
			for _, path := range []string{"sys/leases/revoke", "sys/revoke"} {
				if status, text := l.ask("POST", path, l.tokens[of], body, "X-Vault-Namespace", of); status != 204 {
					t.Errorf("%s in %q of the lease of %q = %d %s, want 204", path, of, other, status, text)
				}
			}
		}
		keys, _ := l.must("LIST", "sys/leases/lookup/database/creds/app", "", "X-Vault-Namespace", of).Data["keys"].([]any)
		if own := leases[of][strings.LastIndexByte(leases[of], '/')+1:]; len(keys) != 1 || keys[0] != own {
			t.Errorf("the leases of %q are %v, want its own", of, keys)
		}
	}
	if n := l.must("GET", "sys/leases/count?include_child_namespaces=true", "").Data["lease_count"]; n != 3.0 {
		t.Errorf("%v leases in all namespaces, want 3", n)
	}
	// A prefix is one's own, and so is what a token of above was issued.
	l.must("POST", "sys/leases/revoke-prefix/database", `{"sync":true}`, "X-Vault-Namespace", "a")
	there := func(user string) bool {
		return pg.Query(t, db, `SELECT count(*) FROM pg_roles WHERE rolname = '`+user+`'`) == "1"
	}
	for ns, want := range map[string]bool{"": true, "a": false, "c": true} {
		if there(users[ns]) != want {
			t.Errorf("the login of %q is there: %v, want %v", ns, !want, want)
		}
	}
	l.must("DELETE", "sys/namespaces/c", "")
	for deadline := time.Now().Add(patience); there(users["c"]); {
		if time.Now().After(deadline) {
			t.Fatal("the login of a deleted namespace stays")
		}
	}
	if !there(users[""]) {
		t.Error("the login of the root went with a namespace")
	}
	// The root ends a lease of a namespace by its id alone.
	made := l.must("GET", "database/creds/app", "", "X-Vault-Namespace", "a")
	l.must("POST", "sys/leases/revoke", object(map[string]any{"lease_id": made.LeaseID, "sync": true}))
	if user, _ := made.Data["username"].(string); there(user) {
		t.Error("the root could not revoke a namespace's lease")
	}
}
