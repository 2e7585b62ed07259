package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/leasehold/leasehold/api"
	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/storage"
)

type fields = map[string]any

// people is a server with both methods, a user ann and a role web.
type people struct {
	t    *testing.T
	core *core.Core
	root *api.Client
	role fields // what a login of web sends
}

func newPeople(t *testing.T, hcl string) *people {
	t.Helper()
	s, root := startServer(t, hcl)
	p := &people{t: t, core: s.Core(), root: root}
	for path, typ := range map[string]string{"sys/auth/people": "userpass", "sys/auth/apps": "approle"} {
		p.write(path, fields{"type": typ})
	}
	cheap, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	p.write("auth/people/users/ann", fields{"password_hash": string(cheap), "token_policies": "a", "token_ttl": "20m"})
	p.write("auth/apps/role/web", fields{"token_policies": "a", "token_ttl": "20m", "role_id": "web-id"})
	id := p.write("auth/apps/role/web/secret-id", nil)
	var drawn struct {
		SecretID string `json:"secret_id"`
	}
	if err := id.Decode(&drawn); err != nil {
		t.Fatal(err)
	}
	p.role = fields{"role_id": "web-id", "secret_id": drawn.SecretID}
	return p
}

func (p *people) write(path string, body fields) *api.Secret {
	p.t.Helper()
	s, err := p.root.Write(p.t.Context(), path, body)
	if err != nil {
		p.t.Fatalf("writing %s = %v", path, err)
	}
	return s
}

func (p *people) ann() (*api.Client, *api.Auth) {
	p.t.Helper()
	return newToken(p.t, p.root.WithToken(""), "auth/people/login/ann", fields{"password": "right"})
}

func (p *people) web() (*api.Client, *api.Auth) {
	p.t.Helper()
	return newToken(p.t, p.root.WithToken(""), "auth/apps/login", p.role)
}

// status logs ann in, or not.
func (p *people) status(name, password string) int {
	p.t.Helper()
	_, err := p.root.WithToken("").Write(p.t.Context(), "auth/people/login/"+name, fields{"password": password})
	if err == nil {
		return http.StatusOK
	}
	return api.StatusOf(err)
}

// kind is what kind of token a login gave.
func kind(a *api.Auth) string {
	if strings.HasPrefix(a.ClientToken, "hvb.") {
		return "batch"
	}
	return "service"
}

// TestRenewalsOfLogins: what a role or user says counts as it is now.
func TestRenewalsOfLogins(t *testing.T) {
	p := newPeople(t, "")
	ctx := t.Context()
	renew := func(c *api.Client, increment string) (int, error) {
		s, err := c.Write(ctx, "auth/token/renew-self", fields{"increment": increment})
		if err != nil {
			return 0, err
		}
		return s.Auth.LeaseDuration, nil
	}
	about := func(what string, c *api.Client, increment string, want int) {
		t.Helper()
		if got, err := renew(c, increment); err != nil || got < want-2 || got > want {
			t.Errorf("%s: renewed by %q for %d s, %v, want %d", what, increment, got, err, want)
		}
	}
	refused := func(what string, c *api.Client) {
		t.Helper()
		if _, err := renew(c, ""); api.StatusOf(err) != http.StatusBadRequest {
			t.Errorf("%s: renewing = %v, want 400", what, err)
		}
	}
	web, auth := p.web()
	if auth.LeaseDuration != 1200 {
		t.Errorf("a login lasts %d s, want 1200", auth.LeaseDuration)
	}
	about("as made", web, "", 1200)
	about("an increment", web, "5m", 300)
	p.write("auth/apps/role/web", fields{"token_ttl": "30m", "token_max_ttl": "40m"})
	about("a new TTL", web, "", 1800)
	about("a new maximum", web, "5h", 2400)
	p.write("auth/apps/role/web", fields{"token_period": "50m"})
	about("a period", web, "10m", 2400) // at most the maximum
	p.write("auth/apps/role/web", fields{"token_max_ttl": "2h"})
	about("a period", web, "10m", 3000)
	p.write("auth/apps/role/web", fields{"token_period": 0, "token_policies": "b"})
	about("no period any more, and other policies", web, "", 1800)
	if _, err := p.root.Delete(ctx, "auth/apps/role/web", nil); err != nil {
		t.Fatal(err)
	}
	refused("a role that is gone", web)

	ann, _ := p.ann()
	about("as made", ann, "", 1200)
	p.write("auth/people/users/ann", fields{"token_ttl": "30m", "token_policies": []string{"default", "A", "a"}})
	about("the same policies in other words", ann, "", 1800)
	p.write("auth/people/users/ann/policies", fields{"token_policies": "a,b"})
	refused("more policies", ann)
	p.write("auth/people/users/ann/policies", fields{"token_policies": ""})
	refused("no policies", ann)
	p.write("auth/people/users/ann/policies", fields{"token_policies": "a"})
	about("the former policies", ann, "", 1800)
	keys, err := p.root.List(ctx, "sys/leases/lookup/auth/people/login/ann")
	if err != nil || len(keys) != 1 {
		t.Fatalf("the leases of logins = %v, %v", keys, err)
	}
	lease := fields{"lease_id": "auth/people/login/ann/" + keys[0]}
	if _, err := p.root.Write(ctx, "sys/leases/renew", lease); err != nil {
		t.Errorf("renewing by the lease = %v", err)
	}
	if _, err := p.root.Delete(ctx, "auth/people/users/ann", nil); err != nil {
		t.Fatal(err)
	}
	refused("a user who is gone", ann)
	if _, err := p.root.Write(ctx, "sys/leases/renew", lease); api.StatusOf(err) != http.StatusBadRequest {
		t.Errorf("renewing by the lease when the user is gone = %v, want 400", err)
	}
}

// TestLoginsAtTunedMounts: a mount decides what kind of tokens there are and how
// long they live.
func TestLoginsAtTunedMounts(t *testing.T) {
	p := newPeople(t, "")
	for _, c := range []struct {
		mount, role, want string
	}{
		{"batch", "default", "batch"}, {"batch", "service", "batch"}, {"service", "batch", "service"},
		{"default-batch", "default", "batch"}, {"default-batch", "service", "service"}, {"default-service", "default", "service"},
		{"default-service", "batch", "batch"},
	} {
		p.write("sys/auth/apps/tune", fields{"token_type": c.mount})
		p.write("auth/apps/role/web", fields{"token_type": c.role})
		if _, auth := p.web(); kind(auth) != c.want {
			t.Errorf("at a mount of %s a role of %s gives a %s token, want %s", c.mount, c.role, kind(auth), c.want)
		}
	}
	p.write("sys/auth/apps/tune", fields{"max_lease_ttl": "5m", "default_lease_ttl": "1m"})
	if _, auth := p.web(); auth.LeaseDuration != 300 {
		t.Errorf("at a mount with a maximum of 5 minutes a login lasts %d s", auth.LeaseDuration)
	}
	for _, policy := range []string{"root", " Root", "response-wrapping"} {
		p.write("auth/people/users/ann", fields{"token_policies": policy})
		if got := p.status("ann", "right"); got != http.StatusBadRequest {
			t.Errorf("a login with the policy %q = %d, want 400", policy, got)
		}
	}
	p.write("auth/people/users/ann", fields{"token_policies": "a", "token_bound_cidrs": "192.0.2.1"})
	if got := p.status("ann", "right"); got != http.StatusForbidden {
		t.Errorf("a login from elsewhere = %d, want 403", got)
	}
}

// TestBatchLoginsWriteNothing compares all that is stored.
func TestBatchLoginsWriteNothing(t *testing.T) {
	p := newPeople(t, "")
	p.write("auth/apps/role/web", fields{"token_type": "batch"})
	p.write("auth/people/users/ann", fields{"token_type": "batch"})
	p.web() // the first login makes the entity
	p.ann()
	rows := func() map[string]string {
		store, err := p.core.Store()
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]string{}
		err = store.View(t.Context(), func(v storage.View) error {
			return v.Scan("", "", 0, func(k string, b []byte) bool { all[k] = string(b); return true })
		})
		if err != nil {
			t.Fatal(err)
		}
		maps.DeleteFunc(all, func(k, _ string) bool { return strings.Contains(k, "clock") })
		return all
	}
	before := rows()
	for range 20 {
		if _, auth := p.web(); kind(auth) != "batch" || auth.EntityID == "" {
			t.Fatalf("a login gives %+v", auth)
		}
		p.ann()
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(rows()))); d != "" {
		t.Errorf("40 logins with batch tokens change the rows (-want +got):\n%s", d)
	}
	for k, v := range rows() {
		if before[k] != v {
			t.Errorf("40 logins with batch tokens write to %s", k)
		}
	}
}

func TestLockedUsers(t *testing.T) {
	p := newPeople(t, `user_lockout "userpass" { lockout_threshold = 2 }`)
	ctx := t.Context()
	locked := func() string {
		t.Helper()
		s, err := p.root.Read(ctx, "sys/locked-users", nil)
		if err != nil {
			t.Fatal(err)
		}
		var out struct {
			Total      int `json:"total"`
			Namespaces []struct {
				ID     string `json:"namespace_id"`
				Path   string `json:"namespace_path"`
				Counts int    `json:"counts"`
				Mounts []struct {
					Accessor string   `json:"mount_accessor"`
					Counts   int      `json:"counts"`
					Aliases  []string `json:"alias_identifiers"`
				} `json:"mount_accessors"`
			} `json:"by_namespace"`
		}
		if err := s.Decode(&out); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprint(out.Total)
		for _, ns := range out.Namespaces {
			text += fmt.Sprintf(" %s %q %d:", ns.ID, ns.Path, ns.Counts)
			for _, m := range ns.Mounts {
				kind, _, _ := strings.Cut(strings.TrimPrefix(m.Accessor, "auth_"), "_")
				text += fmt.Sprintf(" %s %d %s", kind, m.Counts, m.Aliases)
			}
		}
		return text
	}
	if got := locked(); got != "0" {
		t.Errorf("nobody is locked out, and yet there are %s", got)
	}
	for _, name := range []string{"ANN", "ann", "nobody", "nobody"} {
		if got := p.status(name, "wrong"); got != http.StatusBadRequest {
			t.Errorf("a wrong password of %s = %d, want 400", name, got)
		}
	}
	for _, name := range []string{"Ann", "nobody"} {
		if got := p.status(name, "right"); got != http.StatusForbidden {
			t.Errorf("the right password of %s, locked out = %d, want 403", name, got)
		}
	}
	bad := maps.Clone(p.role)
	bad["secret_id"] = "guess"
	for range 5 {
		if _, err := p.root.Write(ctx, "auth/apps/login", bad); api.StatusOf(err) != http.StatusBadRequest {
			t.Errorf("a wrong secret id = %v", err)
		}
	}
	if _, err := p.root.Write(ctx, "auth/apps/login", p.role); api.StatusOf(err) != http.StatusForbidden {
		t.Errorf("the right secret id of a role that is locked out = %v, want 403", err)
	}
	if got, want := locked(), `3 root "" 3: approle 1 [web-id] userpass 2 [ann nobody]`; got != want {
		t.Errorf("locked out are %s, want %s", got, want)
	}
	s, err := p.root.Read(ctx, "sys/auth/people", nil)
	if err != nil {
		t.Fatal(err)
	}
	var mount struct {
		Accessor string `json:"accessor"`
	}
	if err := s.Decode(&mount); err != nil {
		t.Fatal(err)
	}
	if s, err := p.root.Read(ctx, "sys/locked-users", map[string][]string{"mount_accessor": {mount.Accessor}}); err != nil || !strings.Contains(jsonOf(s), `"total":2`) {
		t.Errorf("those of one mount = %v, %v", jsonOf(s), err)
	}
	p.write("sys/locked-users/"+mount.Accessor+"/unlock/ann", nil)
	if got := p.status("ann", "right"); got != http.StatusOK {
		t.Errorf("after unlocking a login = %d", got)
	}
	if _, err := p.root.Write(ctx, "sys/locked-users/auth_userpass_0/unlock/ann", nil); api.StatusOf(err) != http.StatusBadRequest {
		t.Errorf("unlocking at a mount that there is not = %v, want 400", err)
	}
	if _, err := p.root.WithToken("").Read(ctx, "sys/locked-users", nil); api.StatusOf(err) != http.StatusForbidden {
		t.Errorf("listing without a token = %v, want 403", err)
	}

	p.write("sys/auth/people/tune", fields{"user_lockout_config": fields{"lockout_threshold": "3", "lockout_duration": "1h"}})
	s, err = p.root.Read(ctx, "sys/auth/people/tune", nil)
	if err != nil || !strings.Contains(jsonOf(s), `"user_lockout_threshold":3`) || !strings.Contains(jsonOf(s), `"user_lockout_disable":false`) {
		t.Errorf("how the mount is tuned = %s, %v", jsonOf(s), err)
	}
	for _, want := range []int{400, 400, 400, 403} {
		if got := p.status("bob", "wrong"); got != want {
			t.Errorf("a wrong password = %d, want %d", got, want)
		}
	}
	if _, err := p.root.Write(ctx, "sys/mounts/kv", fields{"type": "kv", "config": fields{"user_lockout_config": fields{"lockout_disable": true}}}); api.StatusOf(err) != http.StatusBadRequest {
		t.Errorf("lockouts of a secrets engine = %v, want 400", err)
	}
}

func jsonOf(s *api.Secret) string {
	if s == nil {
		return ""
	}
	b, _ := json.Marshal(s.Data)
	return string(b)
}
