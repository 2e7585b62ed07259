package kubernetes_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/auth/kubernetes"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/testenv/kubeapi"
	"github.com/leasehold/leasehold/internal/wire"
)

// method is the engine on a mount.
type method struct {
	t     *testing.T
	eng   engine.Engine
	table *route.Table
	pod   string // the folder of the pod's files
	now   time.Time
	warns []string // of the last request
}

func start(t *testing.T) *method {
	t.Helper()
	store := mem.New()
	t.Cleanup(func() { _ = store.Close() })
	m := &method{t: t, table: route.NewTable(), pod: t.TempDir(), now: time.Now()}
	e, err := kubernetes.Factory(kubernetes.Config{CA: filepath.Join(m.pod, "ca.crt"), Token: filepath.Join(m.pod, "token")})(t.Context(), engine.Env{
		Store: storage.Prefix(store, "m/root/x/"), Now: func() time.Time { return m.now }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	m.eng = e
	e.Routes(m.table)
	t.Cleanup(func() { _ = e.(engine.Closer).Close() })
	return m
}

type body map[string]any

func (m *method) call(ctx context.Context, op wire.Op, path string, b body) (route.Result, error) {
	m.t.Helper()
	text, err := json.Marshal(b)
	if err != nil {
		m.t.Fatal(err)
	}
	req := &route.Request{
		Op: op, Path: path, Body: text, Remote: netip.MustParseAddr("127.0.0.1"),
		Mount: route.MountInfo{Path: "auth/kubernetes/", DefaultTTL: time.Hour, MaxTTL: 768 * time.Hour},
	}
	ep, err := m.table.Route(req)
	if err != nil {
		m.t.Fatalf("%s %s: %v", op, path, err)
	}
	res, err := ep.Call(ctx, req)
	m.warns = req.Reply().Warnings
	return res, err
}

func (m *method) write(path string, b body) {
	m.t.Helper()
	if _, err := m.call(m.t.Context(), wire.OpUpdate, path, b); err != nil {
		m.t.Fatalf("writing %s: %v", path, err)
	}
}

func (m *method) read(path string) map[string]any {
	m.t.Helper()
	res, err := m.call(m.t.Context(), wire.OpRead, path, nil)
	if err != nil {
		m.t.Fatalf("reading %s: %v", path, err)
	}
	var out map[string]any
	if err := json.Unmarshal(res.Data.AppendJSON(nil), &out); err != nil {
		m.t.Fatal(err)
	}
	return out
}

func (m *method) login(role, token string) (*route.Auth, error) {
	m.t.Helper()
	res, err := m.call(m.t.Context(), wire.OpUpdate, "login", body{"role": role, "jwt": token})
	return res.Auth, err
}

// cluster is an API server with the accounts vault/reviewer, which may ask,
// and prod/app, which may not.
func cluster(t *testing.T) *kubeapi.Server {
	s := kubeapi.Start(t, nil)
	s.Account("vault", "reviewer")
	s.Delegate("vault", "reviewer")
	s.Account("prod", "app")
	return s
}

func config(s *kubeapi.Server) body {
	return body{"kubernetes_host": s.URL, "kubernetes_ca_cert": s.CA, "token_reviewer_jwt": s.Token("vault", "reviewer")}
}

var appRole = body{
	"bound_service_account_names": "app", "bound_service_account_namespaces": "prod", "audience": "vault", "token_policies": "p", "token_ttl": "20m",
}

func TestLogin(t *testing.T) {
	s, m := cluster(t), start(t)
	uid := s.Account("prod", "app")
	m.write("config", config(s))
	m.write("role/App", appRole)
	a, err := m.login("APP", s.Token("prod", "app", "vault"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"service_account_uid": uid, "service_account_name": "app", "service_account_namespace": "prod", "service_account_secret_name": "", "role": "app",
	}
	if diff := cmp.Diff(want, a.Metadata); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	delete(want, "role")
	if a.DisplayName != "prod-app" || a.Alias == nil || a.Alias.Name != uid || !maps.Equal(a.Alias.Metadata, want) || a.TTL != 20*time.Minute || !slices.Equal(a.Policies, []string{"p"}) {
		t.Errorf("auth = %+v with alias %+v", a, a.Alias)
	}
	m.write("role/app", body{"alias_name_source": "serviceaccount_name"})
	if a, err = m.login("app", s.Token("prod", "app", "vault")); err != nil || a.Alias.Name != "prod/app" {
		t.Errorf("alias by name: %+v, %v", a, err)
	}

	s.Delete("prod", "app")
	if _, err := m.login("app", s.Token("prod", "app", "vault")); !errs.Is(err, errs.Denied) {
		t.Errorf("of a deleted account: %v, want errs.Denied", err)
	}
	s.Account("prod", "app")
	stale := s.Claims("prod", "app", "vault")
	stale["kubernetes.io"].(map[string]any)["serviceaccount"] = map[string]any{"name": "app", "uid": uid}
	if _, err := m.login("app", s.Issuer.Token(stale)); !errs.Is(err, errs.Denied) {
		t.Errorf("of the earlier account of that name: %v, want errs.Denied", err)
	}
}

// TestForgeries: no bad token is taken, with and without keys of one's own,
// and all are answered alike.
func TestForgeries(t *testing.T) {
	for name, keys := range map[string]bool{"with pem_keys": true, "by the API server alone": false} {
		t.Run(name, func(t *testing.T) {
			s, m := cluster(t), start(t)
			conf := config(s)
			if keys {
				conf["pem_keys"] = []string{s.Issuer.PEM()}
			}
			m.write("config", conf)
			m.write("role/app", appRole)
			if _, err := m.login("app", s.Token("prod", "app", "vault")); err != nil {
				t.Fatalf("a good token: %v", err)
			}
			asked := s.Asked()
			cases := s.Issuer.Cases(s.Claims("prod", "app", "vault"), m.now)
			for _, c := range cases {
				a, err := m.login("app", c.Token)
				if c.Token == "" { // nothing was sent
					if !errs.Is(err, errs.Invalid) {
						t.Errorf("%s: %v", c.Name, err)
					}
					continue
				}
				if a != nil || !errs.Is(err, errs.Denied) || errs.Message(err) != "permission denied" {
					t.Errorf("%s: auth %v, error %v; want permission denied", c.Name, a, err)
				}
			}
			if got := s.Asked() - asked; keys && got != 0 {
				t.Errorf("the API server was asked %d times about tokens whose signature or claims were wrong", got)
			}
		})
	}
}

// TestNothingIsToldBeforehand: what a role binds is told to real service
// accounts only.
func TestNothingIsToldBeforehand(t *testing.T) {
	s, m := cluster(t), start(t)
	s.Account("prod", "other")
	m.write("config", config(s))
	m.write("role/app", appRole)
	other := kubeapi.Start(t, nil) // another cluster has the same names
	other.Account("prod", "app")
	other.Account("prod", "nobody")
	for _, name := range []string{"app", "nobody"} {
		if _, err := m.login("app", other.Token("prod", name, "vault")); errs.Message(err) != "permission denied" {
			t.Errorf("%s of another cluster: %v, want permission denied", name, err)
		}
	}
	if _, err := m.login("app", s.Token("prod", "other", "vault")); !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), "bound_service_account_names") {
		t.Errorf("another account of the cluster: %v, want a sentence that tells why", err)
	}
}

func TestBindings(t *testing.T) {
	s, m := cluster(t), start(t)
	m.write("config", config(s))
	for _, tt := range []struct {
		names, namespaces, audience string
		token                       string
		ok                          bool
	}{
		{"app", "prod", "", s.Token("prod", "app"), true},
		{"app", "prod", "", s.Token("prod", "app", "anything"), true},
		{"app", "prod", "vault", s.Token("prod", "app"), false},
		{"app", "prod", "vault", s.Token("prod", "app", "x", "vault"), true},
		{"*", "*", "", s.Token("prod", "app"), true},
		{"a*", "pr*d", "", s.Token("prod", "app"), true},
		{"b*", "prod", "", s.Token("prod", "app"), false},
		{"app", "test,prod", "", s.Token("prod", "app"), true},
		{"app", "test", "", s.Token("prod", "app"), false},
		{"application", "prod", "", s.Token("prod", "app"), false},
		{"app", "prod", "", s.SecretToken("prod", "app"), true},
		{"app", "prod", "vault", s.SecretToken("prod", "app"), false},
	} {
		m.write("role/r", body{"bound_service_account_names": tt.names, "bound_service_account_namespaces": tt.namespaces, "audience": tt.audience})
		a, err := m.login("r", tt.token)
		if (err == nil) != tt.ok || err != nil && !errs.Is(err, errs.Denied) {
			t.Errorf("names %q, namespaces %q, audience %q: %+v, %v; want success %v", tt.names, tt.namespaces, tt.audience, a, err, tt.ok)
		}
	}
	m.write("role/r", body{"token_bound_cidrs": "10.0.0.0/8"})
	if _, err := m.login("r", s.Token("prod", "app")); !errs.Is(err, errs.Denied) {
		t.Errorf("from another network: %v, want errs.Denied", err)
	}
	if _, err := m.login("none", s.Token("prod", "app")); !errs.Is(err, errs.Invalid) {
		t.Errorf("as a role that is not there: %v, want errs.Invalid", err)
	}
}

// TestWhoAsks: the configured reviewer, the pod's own account, or whoever logs
// in.
func TestWhoAsks(t *testing.T) {
	s, m := cluster(t), start(t)
	m.write("role/app", appRole)
	m.write("role/reviewer", body{"bound_service_account_names": "reviewer", "bound_service_account_namespaces": "vault"})
	try := func(role, token string) error {
		_, err := m.login(role, token)
		return err
	}
	m.write("config", body{"kubernetes_host": strings.TrimPrefix(s.URL, "https://"), "kubernetes_ca_cert": s.CA})
	if err := try("app", s.Token("prod", "app", "vault")); !errs.Is(err, errs.Denied) {
		t.Errorf("an account that may not ask, about itself: %v, want errs.Denied", err)
	}
	if err := try("reviewer", s.Token("vault", "reviewer")); err != nil {
		t.Errorf("an account that may ask, about itself: %v", err)
	}

	m.write("config", body{"kubernetes_host": s.URL})
	if err := try("app", s.Token("prod", "app", "vault")); !errs.Is(err, errs.Upstream) {
		t.Errorf("without the cluster's authority: %v, want errs.Upstream", err)
	}
	for name, text := range map[string]string{"ca.crt": s.CA, "token": s.Token("vault", "reviewer") + "\n"} {
		if err := os.WriteFile(filepath.Join(m.pod, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := try("app", s.Token("prod", "app", "vault")); err != nil {
		t.Errorf("with the pod's own files: %v", err)
	}
	m.write("config", body{"kubernetes_host": s.URL, "disable_local_ca_jwt": true})
	if err := try("app", s.Token("prod", "app", "vault")); !errs.Is(err, errs.Upstream) {
		t.Errorf("with disable_local_ca_jwt: %v, want errs.Upstream", err)
	}
	m.write("config", body{"kubernetes_host": s.URL, "kubernetes_ca_cert": s.CA, "token_reviewer_jwt": s.Token("prod", "app")})
	if err := try("app", s.Token("prod", "app", "vault")); !errs.Is(err, errs.Denied) {
		t.Errorf("with a reviewer that may not ask: %v, want errs.Denied", err)
	}
}

func TestSickAPIServer(t *testing.T) {
	s, m := cluster(t), start(t)
	m.write("config", config(s))
	m.write("role/app", appRole)
	for status, want := range map[int]errs.Kind{500: errs.Upstream, 503: errs.Upstream, 429: errs.Upstream, 302: errs.Upstream, 401: errs.Denied, 403: errs.Denied, 422: errs.Denied} {
		s.Answer(status)
		if _, err := m.login("app", s.Token("prod", "app", "vault")); errs.KindOf(err) != want {
			t.Errorf("an answer of %d: %v (kind %d), want kind %d", status, err, errs.KindOf(err), want)
		}
	}
	s.Answer(0)
	s.FallSilent()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := m.call(ctx, wire.OpUpdate, "login", body{"role": "app", "jwt": s.Token("prod", "app", "vault")}); !errs.Is(err, errs.Upstream) {
		t.Errorf("no answer: %v, want errs.Upstream", err)
	}
	s.Speak()
	s.Close()
	if _, err := m.login("app", s.Token("prod", "app", "vault")); !errs.Is(err, errs.Upstream) {
		t.Errorf("nobody there: %v, want errs.Upstream", err)
	}
}

func TestIssuer(t *testing.T) {
	s, m := cluster(t), start(t)
	m.write("role/app", body{"bound_service_account_names": "app", "bound_service_account_namespaces": "prod"})
	for _, tt := range []struct {
		issuer, token string
		ok            bool
	}{
		{"", s.SecretToken("prod", "app"), true},
		{"", s.Token("prod", "app"), false},
		{kubeapi.Audience, s.Token("prod", "app"), true},
		{"elsewhere", s.Token("prod", "app"), false},
	} {
		conf := config(s)
		conf["issuer"], conf["disable_iss_validation"] = tt.issuer, false
		m.write("config", conf)
		if _, err := m.login("app", tt.token); (err == nil) != tt.ok {
			t.Errorf("issuer %q: %v, want success %v", tt.issuer, err, tt.ok)
		}
	}
}

func TestConfigurations(t *testing.T) {
	s, m := cluster(t), start(t)
	if _, err := m.call(t.Context(), wire.OpRead, "config", nil); !errs.Is(err, errs.NotFound) {
		t.Errorf("reading none: %v, want errs.NotFound", err)
	}
	if _, err := m.call(t.Context(), wire.OpUpdate, "role/app", appRole); err != nil {
		t.Fatal(err)
	}
	if _, err := m.login("app", s.Token("prod", "app", "vault")); !errs.Is(err, errs.Invalid) {
		t.Errorf("logging in without one: %v, want errs.Invalid", err)
	}
	for _, tt := range []struct {
		name string
		body body
		ok   bool
	}{
		{"nothing", body{}, false},
		{"a host", body{"kubernetes_host": "10.0.0.1"}, true},
		{"a host and port", body{"kubernetes_host": "10.0.0.1:6443"}, true},
		{"another scheme", body{"kubernetes_host": "ftp://10.0.0.1"}, false},
		{"a question", body{"kubernetes_host": "https://10.0.0.1?x=1"}, false},
		{"no certificate", body{"kubernetes_host": "10.0.0.1", "kubernetes_ca_cert": "junk"}, false},
		{"no key", body{"kubernetes_host": "10.0.0.1", "pem_keys": "junk"}, false},
		{"a key", body{"kubernetes_host": "10.0.0.1", "pem_keys": s.Issuer.PEM()}, true},
		{"no token", body{"kubernetes_host": "10.0.0.1", "token_reviewer_jwt": "junk"}, false},
		{"annotations", body{"kubernetes_host": "10.0.0.1", "use_annotations_as_alias_metadata": true}, false},
	} {
		_, err := m.call(t.Context(), wire.OpUpdate, "config", tt.body)
		if (err == nil) != tt.ok || err != nil && !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v, want success %v", tt.name, err, tt.ok)
		}
	}
	m.write("config", config(s))
	want := map[string]any{
		"kubernetes_host": s.URL, "kubernetes_ca_cert": s.CA, "pem_keys": []any{}, "issuer": "", "disable_iss_validation": true,
		"disable_local_ca_jwt": false, "token_reviewer_jwt_set": true, "use_annotations_as_alias_metadata": false,
	}
	if diff := cmp.Diff(want, m.read("config")); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func TestRoles(t *testing.T) {
	m := start(t)
	for _, tt := range []struct {
		name   string
		change body
		ok     bool
	}{
		{"as it is", nil, true},
		{"no names", body{"bound_service_account_names": ""}, false},
		{"no namespaces", body{"bound_service_account_namespaces": ""}, false},
		{"all and some", body{"bound_service_account_names": "*,app"}, false},
		{"all namespaces and some", body{"bound_service_account_namespaces": "*,prod"}, false},
		{"an unknown alias", body{"alias_name_source": "pod"}, false},
		{"a selector", body{"bound_service_account_namespace_selector": `{"matchLabels":{"a":"b"}}`}, false},
		{"ttl over max", body{"token_ttl": "2h", "token_max_ttl": "1h"}, false},
		{"period over the mount's", body{"token_period": "10000h"}, false},
	} {
		role := maps.Clone(appRole)
		maps.Copy(role, tt.change)
		_, err := m.call(t.Context(), wire.OpUpdate, "role/r", role)
		if (err == nil) != tt.ok || err != nil && !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v, want success %v", tt.name, err, tt.ok)
		}
	}
	m.write("role/R", body{"audience": "", "policies": "old"})
	if len(m.warns) == 0 {
		t.Error("a role without an audience brings no warning")
	}
	got := m.read("role/r")
	if _, there := got["audience"]; there || got["alias_name_source"] != "serviceaccount_uid" || got["token_ttl"] != 1200.0 || !slices.Equal(got["token_policies"].([]any), []any{"old"}) {
		t.Errorf("role = %v", got)
	}
	res, err := m.call(t.Context(), wire.OpList, "role", nil)
	if err != nil || string(res.Data.AppendJSON(nil)) != `{"keys":["r"]}` {
		t.Errorf("list: %v", err)
	}
	if _, err := m.call(t.Context(), wire.OpDelete, "role/r", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := m.call(t.Context(), wire.OpRead, "role/r", nil); !errs.Is(err, errs.NotFound) {
		t.Errorf("reading a deleted role: %v, want errs.NotFound", err)
	}
}

func TestRenewal(t *testing.T) {
	s, m := cluster(t), start(t)
	m.write("config", config(s))
	m.write("role/app", appRole)
	a, err := m.login("app", s.Token("prod", "app", "vault"))
	if err != nil {
		t.Fatal(err)
	}
	m.write("role/app", body{"token_ttl": "5m", "token_policies": "other"})
	r := engine.Renewal{Internal: a.Internal, Policies: []string{"p"}, Metadata: a.Metadata, DisplayName: a.DisplayName}
	got, err := m.eng.(engine.Renewer).RenewLogin(t.Context(), r)
	if err != nil || got.TTL != 5*time.Minute || !slices.Equal(got.Policies, []string{"p"}) {
		t.Errorf("RenewLogin = %+v, %v; want the role as it is now, and the policies that the token has", got, err)
	}
	if _, err := m.call(t.Context(), wire.OpDelete, "role/app", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := m.eng.(engine.Renewer).RenewLogin(t.Context(), r); !errs.Is(err, errs.Invalid) {
		t.Errorf("RenewLogin without the role: %v, want errs.Invalid", err)
	}
	// A role that is made again is another one, which grants other things.
	m.write("role/app", appRole)
	if _, err := m.eng.(engine.Renewer).RenewLogin(t.Context(), r); !errs.Is(err, errs.Invalid) {
		t.Errorf("RenewLogin with another role of the name: %v, want errs.Invalid", err)
	}
}
