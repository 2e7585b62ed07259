package clienttest_test

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
	"github.com/leasehold/leasehold/internal/testenv"
)

func vaultClient(t *testing.T, srv *leaseholdtest.Server) *api.Client {
	t.Helper()
	cfg := api.DefaultConfig()
	cfg.Address = srv.Addr
	cfg.MaxRetries = 0 // a 5xx should be seen, not repeated
	c, err := api.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.SetToken(srv.Root)
	return c
}

// vaultClientStatus is the HTTP status in a client's error, 0 if there is none.
func vaultClientStatus(err error) int {
	var re *api.ResponseError
	if errors.As(err, &re) {
		return re.StatusCode
	}
	return 0
}

func TestVaultSystem(t *testing.T) {
	srv := leaseholdtest.Start(t, leaseholdtest.Config{Dev: true})
	c := vaultClient(t, srv)
	ctx := t.Context()

	health, err := c.Sys().HealthWithContext(ctx)
	if err != nil || !health.Initialized || health.Sealed {
		t.Fatalf("Health = %+v, %v; want initialised and open", health, err)
	}
	seal, err := c.Sys().SealStatusWithContext(ctx)
	if err != nil || seal.Sealed || seal.Version == "" {
		t.Errorf("SealStatus = %+v, %v; want open, with a version", seal, err)
	}
	if err := c.Sys().MountWithContext(ctx, "team", &api.MountInput{Type: "kv", Description: "one team", Options: map[string]string{"version": "1"},
		Config: api.MountConfigInput{DefaultLeaseTTL: "1h", MaxLeaseTTL: "3h"}}); err != nil {
		t.Fatalf("Mount: %v", err)
	}
	mounts, err := c.Sys().ListMountsWithContext(ctx)
	if err != nil {
		t.Fatalf("ListMounts: %v", err)
	}
	if m := mounts["team/"]; m == nil || m.Type != "kv" || m.Description != "one team" || m.Config.DefaultLeaseTTL != 3600 {
		t.Errorf("ListMounts has team/ = %+v, want a kv with a default ttl of 3600", mounts["team/"])
	}
	if m := mounts["secret/"]; m == nil || m.Options["version"] != "2" {
		t.Errorf("ListMounts has secret/ = %+v, want a kv of version 2", mounts["secret/"])
	}
	if _, err := c.Logical().WriteWithContext(ctx, "sys/mounts/team/tune", map[string]any{"max_lease_ttl": "5h"}); err != nil {
		t.Errorf("tuning the mount: %v", err)
	}
	if cfg, err := c.Sys().MountConfigWithContext(ctx, "team"); err != nil || cfg.MaxLeaseTTL != 5*3600 {
		t.Errorf("MountConfig = %+v, %v; want a max ttl of 18000", cfg, err)
	}
	if err := c.Sys().RemountWithContext(ctx, "team", "crew"); err != nil {
		t.Errorf("Remount: %v", err)
	}
	if err := c.Sys().UnmountWithContext(ctx, "crew"); err != nil {
		t.Errorf("Unmount: %v", err)
	}

	const rules = `path "secret/data/app" { capabilities = ["read"] }`
	if err := c.Sys().PutPolicyWithContext(ctx, "app", rules); err != nil {
		t.Fatalf("PutPolicy: %v", err)
	}
	if got, err := c.Sys().GetPolicyWithContext(ctx, "app"); err != nil || got != rules {
		t.Errorf("GetPolicy = %q, %v; want what was put", got, err)
	}
	if names, err := c.Sys().ListPoliciesWithContext(ctx); err != nil || !slices.Contains(names, "app") || !slices.Contains(names, "default") {
		t.Errorf("ListPolicies = %v, %v; want app and default in it", names, err)
	}
	sec, err := c.Auth().Token().CreateWithContext(ctx, &api.TokenCreateRequest{Policies: []string{"app"}, TTL: "1h"})
	if err != nil {
		t.Fatalf("token Create: %v", err)
	}
	caps, err := c.Sys().CapabilitiesWithContext(ctx, sec.Auth.ClientToken, "secret/data/app")
	if err != nil || !slices.Equal(caps, []string{"read"}) {
		t.Errorf("Capabilities = %v, %v; want read alone", caps, err)
	}
	if err := c.Sys().DeletePolicyWithContext(ctx, "app"); err != nil {
		t.Errorf("DeletePolicy: %v", err)
	}
	caps, err = c.Sys().CapabilitiesWithContext(ctx, sec.Auth.ClientToken, "secret/data/app")
	if err != nil || !slices.Equal(caps, []string{"deny"}) {
		t.Errorf("Capabilities without the policy = %v, %v; want deny", caps, err)
	}
	if auths, err := c.Sys().ListAuthWithContext(ctx); err != nil || auths["token/"] == nil {
		t.Errorf("ListAuth = %v, %v; want token/ in it", auths, err)
	}
	if leader, err := c.Sys().LeaderWithContext(ctx); err != nil {
		t.Errorf("Leader = %+v, %v", leader, err)
	}
}

func TestVaultKV(t *testing.T) {
	srv := leaseholdtest.Start(t, leaseholdtest.Config{Dev: true})
	c := vaultClient(t, srv)
	ctx := t.Context()
	kv := c.KVv2("secret")

	if _, err := kv.Get(ctx, "app"); !errors.Is(err, api.ErrSecretNotFound) {
		t.Errorf("Get of nothing = %v, want ErrSecretNotFound", err)
	}
	put, err := kv.Put(ctx, "app", map[string]any{"user": "alice", "port": 5432}, api.WithCheckAndSet(0))
	if err != nil || put.VersionMetadata.Version != 1 {
		t.Fatalf("Put = %+v, %v; want version 1", put, err)
	}
	if _, err := kv.Put(ctx, "app", map[string]any{"user": "eve"}, api.WithCheckAndSet(0)); vaultClientStatus(err) != http.StatusBadRequest {
		t.Errorf("Put with a stale cas = %v, want 400", err)
	}
	if _, err := kv.Patch(ctx, "app", map[string]any{"user": "bob"}); err != nil {
		t.Errorf("Patch: %v", err)
	}
	got, err := kv.Get(ctx, "app")
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	if got.Data["user"] != "bob" || got.VersionMetadata.Version != 2 || got.VersionMetadata.CreatedTime.IsZero() {
		t.Errorf("Get = %v version %+v, want bob at version 2", got.Data, got.VersionMetadata)
	}
	if v1, err := kv.GetVersion(ctx, "app", 1); err != nil || v1.Data["user"] != "alice" {
		t.Errorf("GetVersion 1 = %+v, %v; want alice", v1, err)
	}
	if _, err := kv.Rollback(ctx, "app", 1); err != nil {
		t.Errorf("Rollback: %v", err)
	}
	if err := kv.PutMetadata(ctx, "app", api.KVMetadataPutInput{MaxVersions: 4, CustomMetadata: map[string]any{"owner": "ops"}}); err != nil {
		t.Errorf("PutMetadata: %v", err)
	}
	meta, err := kv.GetMetadata(ctx, "app")
	if err != nil || meta.CurrentVersion != 3 || meta.MaxVersions != 4 || meta.CustomMetadata["owner"] != "ops" || len(meta.Versions) != 3 {
		t.Errorf("GetMetadata = %+v, %v; want three versions, at most 4, owner ops", meta, err)
	}
	if err := kv.Delete(ctx, "app"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if del, err := kv.Get(ctx, "app"); err != nil || del.Data != nil || del.VersionMetadata.DeletionTime.IsZero() {
		t.Errorf("Get of a deleted version = %+v, %v; want no data, a deletion time", del, err)
	}
	if err := kv.Undelete(ctx, "app", []int{3}); err != nil {
		t.Errorf("Undelete: %v", err)
	}
	if err := kv.Destroy(ctx, "app", []int{1}); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	if list, err := c.Logical().ListWithContext(ctx, "secret/metadata"); err != nil || list == nil || len(list.Data["keys"].([]any)) != 1 {
		t.Errorf("List = %+v, %v; want one key", list, err)
	}
	if err := kv.DeleteMetadata(ctx, "app"); err != nil {
		t.Errorf("DeleteMetadata: %v", err)
	}
	if list, err := c.Logical().ListWithContext(ctx, "secret/metadata"); err != nil || list != nil {
		t.Errorf("List of nothing = %+v, %v; want nil", list, err)
	}

	if err := c.Sys().MountWithContext(ctx, "old", &api.MountInput{Type: "kv", Options: map[string]string{"version": "1"}}); err != nil {
		t.Fatalf("Mount: %v", err)
	}
	v1 := c.KVv1("old")
	if err := v1.Put(ctx, "app", map[string]any{"user": "alice"}); err != nil {
		t.Errorf("v1 Put: %v", err)
	}
	if got, err := v1.Get(ctx, "app"); err != nil || got.Data["user"] != "alice" {
		t.Errorf("v1 Get = %+v, %v; want alice", got, err)
	}
	if err := v1.Delete(ctx, "app"); err != nil {
		t.Errorf("v1 Delete: %v", err)
	}
}

func TestVaultWrapping(t *testing.T) {
	srv := leaseholdtest.Start(t, leaseholdtest.Config{Dev: true})
	c := vaultClient(t, srv)
	ctx := t.Context()
	if _, err := c.KVv2("secret").Put(ctx, "app", map[string]any{"user": "alice"}); err != nil {
		t.Fatal(err)
	}
	wrapping, err := c.Clone()
	if err != nil {
		t.Fatal(err)
	}
	wrapping.SetToken(srv.Root)
	wrapping.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	sec, err := wrapping.Logical().ReadWithContext(ctx, "secret/data/app")
	if err != nil || sec.WrapInfo == nil || sec.WrapInfo.TTL != 300 {
		t.Fatalf("wrapped read = %+v, %v; want wrap info with 300 s", sec, err)
	}
	// The receiver has nothing but the wrapping token.
	receiver, err := c.Clone()
	if err != nil {
		t.Fatal(err)
	}
	receiver.SetToken(sec.WrapInfo.Token)
	got, err := receiver.Logical().UnwrapWithContext(ctx, "")
	if err != nil {
		t.Fatalf("Unwrap: %v", err)
	}
	if data, _ := got.Data["data"].(map[string]any); data["user"] != "alice" {
		t.Errorf("Unwrap = %+v, want alice", got.Data)
	}
	if _, err := c.Logical().UnwrapWithContext(ctx, sec.WrapInfo.Token); err == nil {
		t.Error("a second Unwrap succeeded")
	}
	auth, err := wrapping.Auth().Token().CreateWithContext(ctx, &api.TokenCreateRequest{Policies: []string{"default"}, TTL: "1h"})
	if err != nil || auth.WrapInfo == nil || auth.WrapInfo.WrappedAccessor == "" {
		t.Fatalf("wrapped token Create = %+v, %v; want wrap info with the accessor", auth, err)
	}
	inner, err := c.Logical().UnwrapWithContext(ctx, auth.WrapInfo.Token)
	if err != nil || inner.Auth == nil || inner.Auth.ClientToken == "" {
		t.Errorf("Unwrap of a token = %+v, %v; want auth", inner, err)
	}
}

func TestVaultTokens(t *testing.T) {
	srv := leaseholdtest.Start(t, leaseholdtest.Config{Dev: true})
	c := vaultClient(t, srv)
	ctx := t.Context()
	tok := c.Auth().Token()
	parent, err := tok.CreateWithContext(ctx, &api.TokenCreateRequest{Policies: []string{"root"}, TTL: "1h", DisplayName: "ci", Metadata: map[string]string{"team": "a"}})
	if err != nil {
		t.Fatal(err)
	}
	look, err := tok.LookupAccessorWithContext(ctx, parent.Auth.Accessor)
	if err != nil || look.Data["display_name"] != "token-ci" {
		t.Errorf("LookupAccessor = %+v, %v; want display name token-ci", look, err)
	}
	if meta, err := look.TokenMetadata(); err != nil || meta["team"] != "a" {
		t.Errorf("TokenMetadata = %v, %v; want team a", meta, err)
	}
	if ttl, err := look.TokenTTL(); err != nil || ttl > time.Hour || ttl < 59*time.Minute {
		t.Errorf("TokenTTL = %v, %v; want about an hour", ttl, err)
	}
	child := vaultClient(t, srv)
	child.SetToken(parent.Auth.ClientToken)
	grand, err := child.Auth().Token().CreateWithContext(ctx, &api.TokenCreateRequest{TTL: "30m"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tok.RenewWithContext(ctx, parent.Auth.ClientToken, 1800); err != nil {
		t.Errorf("Renew: %v", err)
	}
	if err := tok.RevokeTreeWithContext(ctx, parent.Auth.ClientToken); err != nil {
		t.Errorf("RevokeTree: %v", err)
	}
	for _, dead := range []string{parent.Auth.ClientToken, grand.Auth.ClientToken} {
		child.SetToken(dead)
		if _, err := child.Auth().Token().LookupSelfWithContext(ctx); vaultClientStatus(err) != http.StatusForbidden {
			t.Errorf("LookupSelf of a revoked token = %v, want 403", err)
		}
	}
	batch, err := tok.CreateWithContext(ctx, &api.TokenCreateRequest{Type: "batch", Policies: []string{"default"}, TTL: "10m"})
	if err != nil || batch.Auth.Accessor != "" || batch.Auth.Renewable {
		t.Errorf("batch token = %+v, %v; want no accessor, not renewable", batch, err)
	}
}

// TestVaultLifetimeWatcher keeps a token and database credentials alive as an
// application does: by the client's own watcher, until the maximum is reached.
func TestVaultLifetimeWatcher(t *testing.T) {
	pg := testenv.SharedPostgres(t, testenv.Config{})
	srv := leaseholdtest.Start(t, leaseholdtest.Config{})
	c := vaultClient(t, srv)
	ctx := t.Context()
	group := testenv.Unique("app_readers")
	pg.Exec(t, "postgres", "CREATE ROLE "+group)
	for _, step := range []struct {
		path string
		data map[string]any
	}{
		{"sys/mounts/database", map[string]any{"type": "database"}},
		{"database/config/pg", map[string]any{"plugin_name": "postgresql-database-plugin", "allowed_roles": "*",
			"connection_url": "postgresql://{{username}}:{{password}}@" + pg.Addr() + "/postgres?sslmode=disable", "username": testenv.Superuser, "password": pg.Password}},
		{"database/roles/app", map[string]any{"db_name": "pg", "default_ttl": "3s", "max_ttl": "7s",
			"creation_statements": []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE ` + group}}},
	} {
		if _, err := c.Logical().WriteWithContext(ctx, step.path, step.data); err != nil {
			t.Fatalf("writing %s: %v", step.path, err)
		}
	}
	token, err := c.Auth().Token().CreateWithContext(ctx, &api.TokenCreateRequest{Policies: []string{"default"}, TTL: "3s", ExplicitMaxTTL: "7s"})
	if err != nil {
		t.Fatal(err)
	}
	creds, err := c.Logical().ReadWithContext(ctx, "database/creds/app")
	if err != nil || !creds.Renewable || creds.LeaseDuration != 3 {
		t.Fatalf("creds = %+v, %v; want a renewable lease of 3 s", creds, err)
	}
	user, password := creds.Data["username"].(string), creds.Data["password"].(string)
	if !loginWorks(t, pg, user, password) {
		t.Fatalf("login as %s failed", user)
	}
	t.Run("watchers", func(t *testing.T) {
		for name, sec := range map[string]*api.Secret{"token": token, "database credentials": creds} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				client := c
				if sec.Auth != nil {
					client = vaultClient(t, srv)
					client.SetToken(sec.Auth.ClientToken)
				}
				vaultClientWatch(t, client, sec)
			})
		}
	})
	// The watchers give up shortly before the end; this brings it about.
	if err := c.Sys().RevokeWithOptionsWithContext(ctx, &api.RevokeOptions{LeaseID: creds.LeaseID, Sync: true}); err != nil {
		t.Errorf("Revoke: %v", err)
	}
	if loginWorks(t, pg, user, password) {
		t.Errorf("login as %s works after its lease has ended", user)
	}
}

// vaultClientWatch lets the client's watcher renew until the maximum is reached.
func vaultClientWatch(t *testing.T, client *api.Client, sec *api.Secret) {
	t.Helper()
	w, err := client.NewLifetimeWatcher(&api.LifetimeWatcherInput{Secret: sec, RenewBuffer: 16})
	if err != nil {
		t.Fatal(err)
	}
	go w.Start() // ends with Stop
	defer w.Stop()
	renewed := 0
	limit := time.After(30 * time.Second)
	for {
		select {
		case <-w.RenewCh():
			renewed++
		case err := <-w.DoneCh():
			if err != nil {
				t.Errorf("the watcher ended with %v", err)
			}
			if renewed == 0 {
				t.Error("the watcher never renewed")
			}
			return
		case <-limit:
			t.Fatal("the watcher did not end although the maximum ttl was reached")
		}
	}
}
