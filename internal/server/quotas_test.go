package server_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"github.com/leasehold/leasehold/api"
)

// Quotas over HTTP: what they take and answer, and what Vault's clients see of
// one that is reached.
func TestQuotas(t *testing.T) {
	c := start(t, "")
	ctx := t.Context()
	write := func(path string, body any) {
		t.Helper()
		if _, err := c.Write(ctx, path, body); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string, want map[string]any) {
		t.Helper()
		s, err := c.Read(ctx, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(s.Data, &got); err != nil {
			t.Fatal(err)
		}
		for k, v := range want {
			if got[k] != v {
				t.Errorf("%s: %s = %v, want %v", path, k, got[k], v)
			}
		}
	}
	write("sys/auth/approle", map[string]any{"type": "approle"})
	write("auth/approle/role/web", map[string]any{"role_id": "web-id", "bind_secret_id": false, "secret_id_bound_cidrs": "0.0.0.0/0", "token_policies": "default"})
	write("auth/approle/role/job", map[string]any{"role_id": "job-id", "bind_secret_id": false, "secret_id_bound_cidrs": "0.0.0.0/0"})

	write("sys/quotas/config", map[string]any{"enable_rate_limit_response_headers": "true", "rate_limit_exempt_paths": "sys/health,sys/internal/*"})
	read("sys/quotas/config", map[string]any{"enable_rate_limit_response_headers": true, "enable_rate_limit_audit_logging": false})
	write("sys/quotas/rate-limit/web", map[string]any{"path": "auth/approle", "role": "web", "rate": 1.0, "interval": "1h", "block_interval": "2h", "type": "rate-limit"})
	read("sys/quotas/rate-limit/web", map[string]any{
		"name": "web", "type": "rate-limit", "path": "auth/approle/", "role": "web", "rate": 1.0, "interval": 3600.0, "block_interval": 7200.0,
		"inheritable": false, "group_by": "ip",
	})
	write("sys/quotas/lease-count/web", map[string]any{"path": "auth/approle", "role": "web", "max_leases": 7})
	read("sys/quotas/lease-count/web", map[string]any{"name": "web", "type": "lease-count", "max_leases": 7.0, "counter": 0.0, "path": "auth/approle/"})

	login := func(id string) (int, http.Header) {
		t.Helper()
		resp, err := c.Do(ctx, &api.Request{
			Method: http.MethodPost, Path: "auth/approle/login", Body: map[string]string{"role_id": id}, NoRetry: true,
			Accept: []int{200, 400, http.StatusTooManyRequests},
		})
		if err != nil {
			t.Fatal(err)
		}
		return resp.Status, resp.Header
	}
	for i, want := range []struct {
		id, remaining, reset string
		status               int
	}{
		{"web-id", "0", "3600", 400}, // over a unix socket nobody is in 0.0.0.0/0
		{"web-id", "0", "7200", http.StatusTooManyRequests},
		{"job-id", "", "", 400},
		{"no-such", "", "", 400},
	} {
		status, head := login(want.id)
		if status != want.status || head.Get("X-Ratelimit-Remaining") != want.remaining || head.Get("X-Ratelimit-Reset") != want.reset {
			t.Errorf("login %d as %s = %d with %s left for %s s, want %+v", i, want.id, status, head.Get("X-Ratelimit-Remaining"), head.Get("X-Ratelimit-Reset"), want)
		}
		if got := head.Get("Retry-After"); status == http.StatusTooManyRequests && got != want.reset {
			t.Errorf("Retry-After = %q, want %s", got, want.reset)
		}
	}
	for _, kind := range []string{"rate-limit", "lease-count"} {
		keys, err := c.List(ctx, "sys/quotas/"+kind)
		if err != nil || !slices.Equal(keys, []string{"web"}) {
			t.Errorf("List(%s) = %q, %v, want web", kind, keys, err)
		}
		if _, err := c.Delete(ctx, "sys/quotas/"+kind+"/web", nil); err != nil {
			t.Error(err)
		}
		if _, err := c.Read(ctx, "sys/quotas/"+kind+"/web", nil); !api.IsNotFound(err) {
			t.Errorf("Read of a quota that is gone = %v", err)
		}
	}
	for path, body := range map[string]map[string]any{
		"sys/quotas/rate-limit/x":  {"path": "auth/token", "role": "web", "rate": 1},
		"sys/quotas/rate-limit/y":  {"rate": 0},
		"sys/quotas/rate-limit/z":  {"rate": "often"},
		"sys/quotas/lease-count/x": {"max_leases": -1},
	} {
		if _, err := c.Write(ctx, path, body); api.StatusOf(err) != http.StatusBadRequest {
			t.Errorf("Write(%s, %v) = %v, want 400", path, body, err)
		}
	}
}
