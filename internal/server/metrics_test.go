package server_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/api"
	"github.com/leasehold/leasehold/internal/config"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/server"
)

// start runs a server with an embedded store, open, with the root token
// "root", and answers a client of it. more is added to its configuration.
func start(t *testing.T, more string) *api.Client {
	t.Helper()
	_, c := startServer(t, more)
	return c
}

// startServer is start, with the server.
func startServer(t *testing.T, more string) (*server.Server, *api.Client) {
	t.Helper()
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "server.hcl"), filepath.Join(dir, "socket")
	text := `storage "embedded" { path = "` + filepath.Join(dir, "store") + `" }
listener "unix" { address = "` + socket + `" }
` + more
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, _, err := config.Load(file)
	if err == nil {
		err = conf.Check()
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s, err := server.New(ctx, server.Config{Conf: conf, Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	in, err := s.Core().Init(ctx, seal.Params{Shares: 1, Threshold: 1}, secret.New("root"))
	if err == nil {
		err = s.Core().Unseal(ctx, in.Shares[0])
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	c, err := api.New(api.Config{Address: "unix://" + socket, Token: "root"})
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func scrape(t *testing.T, c *api.Client) string {
	t.Helper()
	resp, err := c.Do(t.Context(), &api.Request{Method: http.MethodGet, Path: "sys/metrics", Query: map[string][]string{"format": {"prometheus"}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(resp.Body)
}

var (
	helpLine   = regexp.MustCompile(`^# HELP ([a-z_]+) \S.*[.:-]?`)
	typeLine   = regexp.MustCompile(`^# TYPE ([a-z_]+) (gauge|counter|summary|histogram)$`)
	sampleLine = regexp.MustCompile(`^([a-z_]+)(\{[a-z_]+="[^"]*"(?:,[a-z_]+="[^"]*")*\})? (\S+)$`)
)

// parse reads Prometheus's text format strictly: each name once, with its help
// and type, and no sample twice. Samples are by name and labels as written.
func parse(t *testing.T, text string) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	seen := map[string]bool{}
	name, kind := "", ""
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if m := helpLine.FindStringSubmatch(line); m != nil {
			if name = m[1]; seen[name] {
				t.Errorf("%s comes twice", name)
			}
			seen[name] = true
			continue
		}
		if m := typeLine.FindStringSubmatch(line); m != nil {
			if kind = m[2]; m[1] != name {
				t.Errorf("TYPE of %s follows HELP of %s", m[1], name)
			}
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("a line that is no sample: %s", line)
		}
		base := m[1]
		if kind == "summary" || kind == "histogram" {
			for _, suffix := range []string{"_sum", "_count", "_bucket"} {
				base = strings.TrimSuffix(base, suffix)
			}
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if _, twice := out[m[1]+m[2]]; err != nil || twice || base != name {
			t.Errorf("bad sample of %s: %s", name, line)
		}
		out[m[1]+m[2]] = v
	}
	return out
}

func TestMetrics(t *testing.T) {
	c := start(t, "")
	ctx := t.Context()
	write := func(path string, body any) {
		t.Helper()
		if _, err := c.Write(ctx, path, body); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(t.TempDir(), "audit.log")
	write("sys/audit/file", map[string]any{"type": "file", "options": map[string]string{"file_path": log}})
	write("sys/mounts/one", map[string]string{"type": "kv"})
	write("one/a", map[string]string{"password": "hunter2"})
	write("auth/token/create", map[string]string{"ttl": "1h"})
	if _, err := c.Read(ctx, "one/none", nil); !api.IsNotFound(err) {
		t.Fatalf("Read(one/none) = %v, want not found", err)
	}
	write("sys/quotas/rate-limit/one", map[string]any{"path": "one/", "rate": 1, "interval": "1h"})
	write("sys/quotas/lease-count/all", map[string]any{"max_leases": 9})
	write("one/b", map[string]string{"a": "b"})
	if _, err := c.Do(ctx, &api.Request{Method: http.MethodGet, Path: "one/b", NoRetry: true}); api.StatusOf(err) != http.StatusTooManyRequests {
		t.Fatalf("beyond the rate = %v, want 429", err)
	}
	text := scrape(t, c)
	got := parse(t, text)
	for name, want := range map[string]float64{
		`vault_quota_rate_limit_violation{name="one"}`:            1,
		`vault_quota_lease_count_violation{name="all"}`:           0,
		`vault_quota_lease_count_max{name="all"}`:                 9,
		`vault_quota_lease_count_counter{name="all"}`:             2,
		"vault_core_unsealed":                                     1,
		"vault_expire_num_leases":                                 0,
		"vault_expire_num_irrevocable_leases":                     0,
		`vault_token_count{namespace="root"}`:                     2, // the root token, and the one made above
		"vault_audit_log_request_failure":                         0,
		"leasehold_expiry_fenced":                                 0,
		"leasehold_storage_read_only":                             0,
		"leasehold_leases_issued_total":                           0,
		`leasehold_leases_ended_total{cause="revoked"}`:           0,
		`leasehold_leases{namespace="root",mount="one/"}`:         0,
		`leasehold_audit_device_sick{device="file/"}`:             0,
		`leasehold_build_info{version="1.2.3"}`:                   1,
		`leasehold_requests_total{operation="read",status="4xx"}`: 2,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s = %v, %v, want %v", name, v, ok, want)
		}
	}
	for _, name := range []string{
		"vault_core_handle_request_count", "vault_core_handle_request_sum", "vault_core_check_token_count", "vault_audit_log_request_count",
		"vault_audit_log_response_sum", "vault_route_create_one__count", "vault_route_read_one__sum",
		`vault_core_mount_table_num_entries{type="auth",local="false"}`, `vault_core_mount_table_num_entries{type="logical",local="false"}`,
		`vault_token_creation{namespace="root",auth_method="token",mount_point="auth/token/",token_type="service"}`,
		"vault_core_in_flight_requests", "vault_barrier_estimated_encryptions",
		"vault_runtime_alloc_bytes", "vault_runtime_num_goroutines", "vault_runtime_heap_objects", "vault_runtime_sys_bytes",
		"leasehold_storage_commits_total", "leasehold_storage_syncs_total", "leasehold_storage_disk_bytes", "leasehold_storage_memory_bytes",
		"leasehold_audit_records_total", `leasehold_requests_total{operation="update",status="2xx"}`,
		`leasehold_request_duration_seconds_bucket{operation="read",le="+Inf"}`, `leasehold_request_duration_seconds_sum{operation="update"}`,
		"process_start_time_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds",
	} {
		if got[name] <= 0 {
			t.Errorf("%s = %v, want more than 0", name, got[name])
		}
	}
	if strings.Contains(text, "hunter2") {
		t.Errorf("a secret is in the figures:\n%s", text)
	}

	var summary struct {
		Timestamp string
		Gauges    []struct {
			Name  string
			Value float64
		}
		Samples []struct {
			Name  string
			Count uint64
		}
	}
	resp, err := c.Do(ctx, &api.Request{Method: http.MethodGet, Path: "sys/metrics"})
	if err == nil {
		err = json.Unmarshal(resp.Body, &summary)
	}
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, g := range summary.Gauges {
		found[g.Name] = true
	}
	for _, s := range summary.Samples {
		found[s.Name] = s.Count > 0
	}
	for _, name := range []string{"vault.core.mount_table.num_entries", "vault.route.create.one-", "vault.quota.lease_count.max", "vault.audit.log_request"} {
		if _, ok := found[name]; !ok {
			t.Errorf("Vault's format has no %s", name)
		}
	}
	if !found["vault.core.unsealed"] || !found["vault.core.handle_request"] || !strings.HasSuffix(summary.Timestamp, " UTC") {
		t.Errorf("Vault's format = %+v, want vault.core.unsealed and vault.core.handle_request in it", summary)
	}
}

func TestMetricsSettings(t *testing.T) {
	c := start(t, `telemetry { metrics_prefix = "house" }`)
	if got := parse(t, scrape(t, c)); got["house_core_unsealed"] != 1 {
		t.Errorf("house_core_unsealed = %v, want 1", got["house_core_unsealed"])
	}
	c = start(t, `telemetry { prometheus_retention_time = "0s" }`)
	_, err := c.Do(t.Context(), &api.Request{Method: http.MethodGet, Path: "sys/metrics", Query: map[string][]string{"format": {"prometheus"}}})
	if api.StatusOf(err) != http.StatusBadRequest || !strings.Contains(err.Error(), "prometheus is not enabled") {
		t.Errorf("without retention: %v, want 400 and a reason", err)
	}
}

// TestMetricsWhileSealed asks a sealed server: a listener that opens its
// figures to everybody answers, and any other cannot tell who asks.
func TestMetricsWhileSealed(t *testing.T) {
	for _, c := range []struct {
		stanza string
		open   bool
	}{{"", false}, {`telemetry { unauthenticated_metrics_access = true }`, true}} {
		dir := t.TempDir()
		socket := filepath.Join(dir, "socket")
		conf, _, err := config.Parse("test", []byte(`storage "inmem" {}
			listener "unix" {
				address = "`+socket+`"
				`+c.stanza+`
			}`))
		if err == nil {
			err = conf.Check()
		}
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		s, err := server.New(ctx, server.Config{Conf: conf, Version: "1.2.3"})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		client, err := api.New(api.Config{Address: "unix://" + socket, Token: "root"})
		if err != nil {
			t.Fatal(err)
		}
		in, err := s.Core().Init(ctx, seal.Params{Shares: 1, Threshold: 1}, secret.New("root"))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Core().Unseal(ctx, in.Shares[0]); err != nil {
			t.Fatal(err)
		}
		if got := parse(t, scrape(t, client)); got["vault_core_unsealed"] != 1 || got[`vault_token_count{namespace="root"}`] != 1 {
			t.Errorf("an open server's figures are %v", got)
		}
		if err := s.Core().Seal(); err != nil {
			t.Fatal(err)
		}
		for _, format := range []string{"prometheus", ""} {
			resp, err := client.Do(ctx, &api.Request{Method: http.MethodGet, Path: "sys/metrics", Query: map[string][]string{"format": {format}}, NoRetry: true})
			switch {
			case !c.open:
				if api.StatusOf(err) != http.StatusServiceUnavailable {
					t.Errorf("figures of a sealed server answer %v, want 503", err)
				}
			case err != nil:
				t.Errorf("open figures of a sealed server in format %q = %v", format, err)
			case format == "prometheus":
				got := parse(t, string(resp.Body))
				if v, ok := got["vault_core_unsealed"]; !ok || v != 0 || got["process_open_fds"] == 0 {
					t.Errorf("open figures of a sealed server = %v", got)
				}
				if _, ok := got[`vault_token_count{namespace="root"}`]; ok {
					t.Error("a sealed server counts tokens")
				}
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	}
}
