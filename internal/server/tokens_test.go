package server_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/api"
)

// newToken makes a token as the holder of another.
func newToken(t *testing.T, c *api.Client, path string, body map[string]any) (*api.Client, *api.Auth) {
	t.Helper()
	s, err := c.Write(t.Context(), path, body)
	if err != nil {
		t.Fatalf("Write(%q, %v) = %v, want a token", path, body, err)
	}
	return c.WithToken(s.Auth.ClientToken), s.Auth
}

func lives(t *testing.T, c *api.Client) bool {
	t.Helper()
	_, err := c.Read(t.Context(), "auth/token/lookup-self", nil)
	if err != nil && api.StatusOf(err) != http.StatusForbidden {
		t.Fatalf("looking up a token: %v", err)
	}
	return err == nil
}

func TestTokensAreFoundAndEndedByTheirPaths(t *testing.T) {
	root, ctx := start(t, ""), t.Context()
	if _, err := root.Write(ctx, "auth/token/roles/ci", map[string]any{"path_suffix": "runs", "orphan": true}); err != nil {
		t.Fatal(err)
	}
	plain, _ := newToken(t, root, "auth/token/create", map[string]any{"policies": []string{"default"}, "ttl": "1h"})
	orphan, _ := newToken(t, root, "auth/token/create-orphan", map[string]any{"policies": []string{"default"}, "ttl": "1h"})
	byRole, _ := newToken(t, root, "auth/token/create/ci", map[string]any{"policies": []string{"default"}, "ttl": "1h"})

	keys, err := root.List(ctx, "sys/leases/lookup/auth/token/")
	if want := []string{"create-orphan/", "create/"}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("List(auth/token/) = %v, %v, want %v", keys, err, want)
	}
	keys, err = root.List(ctx, "sys/leases/lookup/auth/token/create/ci/runs")
	if err != nil || len(keys) != 1 {
		t.Fatalf("List of the role's tokens = %v, %v, want one", keys, err)
	}
	id := "auth/token/create/ci/runs/" + keys[0]
	found, err := root.Write(ctx, "sys/leases/lookup", map[string]any{"lease_id": id})
	if err != nil {
		t.Fatalf("looking up %q: %v", id, err)
	}
	var l struct {
		ID  string `json:"id"`
		TTL int    `json:"ttl"`
	}
	if err := found.Decode(&l); err != nil || l.ID != id || l.TTL < 3590 || l.TTL > 3600 {
		t.Errorf("the token's lease reads as %+v, %v", l, err)
	}
	if _, err := root.Write(ctx, "sys/leases/lookup", map[string]any{"lease_id": "auth/token/create/" + keys[0]}); api.StatusOf(err) != http.StatusBadRequest {
		t.Errorf("the same token below another path = %v, want 400", err)
	}

	if _, err := root.Write(ctx, "sys/leases/revoke-prefix/auth/token/create", nil); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		client *api.Client
		want   bool
	}{"auth/token/create": {plain, false}, "auth/token/create/ci/runs": {byRole, false}, "auth/token/create-orphan": {orphan, true}, "root": {root, true}} {
		if got := lives(t, c.client); got != c.want {
			t.Errorf("after revoking auth/token/create the token of %s lives: %v, want %v", name, got, c.want)
		}
	}
}

func TestRenewalsOfTokens(t *testing.T) {
	root, ctx := start(t, ""), t.Context()
	c, _ := newToken(t, root, "auth/token/create", map[string]any{"policies": []string{"default"}, "ttl": "30m", "explicit_max_ttl": "1h"})
	for _, step := range []struct {
		increment string
		want      int
	}{{"20m", 1200}, {"", 1200}, {"5h", 3600}, {"0", 3600}} {
		s, err := c.Write(ctx, "auth/token/renew-self", map[string]any{"increment": step.increment})
		if err != nil {
			t.Fatalf("renewing by %q: %v", step.increment, err)
		}
		if got := s.Auth.LeaseDuration; got < step.want-2 || got > step.want {
			t.Errorf("renewed by %q for %d s, want %d", step.increment, got, step.want)
		}
	}

	// A role's limits hold without being the token's own, and change with it.
	if _, err := root.Write(ctx, "auth/token/roles/p", map[string]any{"token_period": "30m"}); err != nil {
		t.Fatal(err)
	}
	p, _ := newToken(t, root, "auth/token/create/p", map[string]any{"policies": []string{"default"}})
	if _, err := root.Write(ctx, "auth/token/roles/p", map[string]any{"token_period": "10m"}); err != nil {
		t.Fatal(err)
	}
	s, err := p.Write(ctx, "auth/token/renew-self", map[string]any{"increment": "5h"})
	if err != nil || s.Auth.LeaseDuration != 600 {
		t.Errorf("a periodic role's token was renewed for %+v, %v, want 600 s", s, err)
	}
}

func TestLimitedUses(t *testing.T) {
	root := start(t, "")
	c, _ := newToken(t, root, "auth/token/create", map[string]any{"policies": []string{"default"}, "num_uses": 2, "ttl": "5m"})
	for _, want := range []float64{1, -1} {
		s, err := c.Read(t.Context(), "auth/token/lookup-self", url.Values{})
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Uses float64 `json:"num_uses"`
		}
		if err := s.Decode(&got); err != nil || got.Uses != want {
			t.Errorf("num_uses = %v, %v, want %v", got.Uses, err, want)
		}
	}
	if lives(t, c) {
		t.Error("a token of two uses was good for a third")
	}
}

// TestSealingIsAnswered checks that the request which seals gets its answer,
// and that nothing is let in after it.
func TestSealingIsAnswered(t *testing.T) {
	root, ctx := start(t, ""), t.Context()
	if _, err := root.Write(ctx, "sys/seal", nil); err != nil {
		t.Fatalf("sealing: %v", err)
	}
	s, err := root.Read(ctx, "sys/mounts", nil)
	if api.StatusOf(err) != http.StatusServiceUnavailable || !strings.Contains(err.Error(), "sealed") {
		t.Errorf("Read(sys/mounts) of a sealed server = %v, %v, want 503", s, err)
	}
}
