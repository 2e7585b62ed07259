package server_test

import (
	"net/http"
	"testing"

	"github.com/leasehold/leasehold/api"
)

// TestCreatingIsUpdating writes what is not there yet where Vault's policies
// do not tell a creation from an update: the right to update is what it takes,
// and the right to create is none. Policies are written for that.
func TestCreatingIsUpdating(t *testing.T) {
	c := start(t, "")
	ctx := t.Context()
	write := func(path string, body any) {
		t.Helper()
		if _, err := c.Write(ctx, path, body); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	write("sys/mounts/transit", fields{"type": "transit"})
	write("sys/auth/ldap", fields{"type": "ldap"})
	write("sys/auth/cert", fields{"type": "cert"})
	by := map[string]*api.Client{}
	for _, may := range []string{"create", "update"} {
		write("sys/policies/acl/"+may, fields{"policy": `path "*" { capabilities = ["` + may + `"] }`})
		by[may], _ = newToken(t, c, "auth/token/create", fields{"policies": []string{may}})
	}
	for path, body := range map[string]fields{
		"transit/keys/k":           {},
		"auth/ldap/groups/g":       {"policies": "p"},
		"auth/ldap/users/u":        {"policies": "p"},
		"auth/cert/certs/c":        {}, // lacks its certificate, which is a 400 for whoever may
		"auth/cert/crls/c":         {},
		"sys/quotas/rate-limit/q":  {"rate": 1000},
		"sys/quotas/lease-count/q": {"max_leases": 1000},
	} {
		if _, err := by["create"].Write(ctx, path, body); api.StatusOf(err) != http.StatusForbidden {
			t.Errorf("writing %s by the right to create = %v, want it forbidden", path, err)
		}
		if _, err := by["update"].Write(ctx, path, body); api.StatusOf(err) == http.StatusForbidden {
			t.Errorf("writing %s by the right to update = %v, want it allowed", path, err)
		}
	}
	// Encrypting creates keys as well, and there it is told apart.
	if _, err := by["update"].Write(ctx, "transit/encrypt/new", fields{"plaintext": ""}); api.StatusOf(err) != http.StatusForbidden {
		t.Errorf("encrypting with a key that is not there, by the right to update = %v, want it forbidden", err)
	}
}
