package config_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/leasehold/leasehold/internal/config"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
)

// same compares but for places and keys.
var same = cmp.Options{cmpopts.IgnoreTypes(config.Pos{}), cmpopts.IgnoreTypes(secret.String{}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}

func parse(t *testing.T, name, src string) (*config.Config, []config.Warning) {
	t.Helper()
	c, warnings, err := config.Parse(name, []byte(src))
	if err != nil {
		t.Fatalf("Parse(%s) = %v, want no error", src, err)
	}
	return c, warnings
}

const everything = `
# A production server.
api_addr     = "https://vault.example.org:8200/"
cluster_name = "main"
log_level    = "WARN"
log_format   = "json"
log_file     = "/var/log/leasehold.log"
log_requests_level = "trace"

default_lease_ttl = "12h"
max_lease_ttl     = "30d"
default_max_request_duration = 60
pid_file          = "/run/leasehold.pid"
raw_storage_endpoint = 1
ui                = false
enable_response_header_hostname = true
reported_version  = "1.19.3+ent"
max_restart_gap   = "24h"

listener "tcp" {
  address         = "10.0.0.1:8200"
  tls_cert_file   = "/etc/tls/cert.pem"
  tls_key_file    = "/etc/tls/key.pem"
  tls_min_version = "tls12"
  tls_max_version = "tls13"
  tls_cipher_suites = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
  tls_client_ca_file = "/etc/tls/ca.pem"
  tls_require_and_verify_client_cert = true

  x_forwarded_for_authorized_addrs = ["10.0.0.0/8", "192.168.1.1"]
  x_forwarded_for_hop_skips = "1"
  x_forwarded_for_reject_not_present = false

  http_read_timeout    = "10s"
  http_idle_timeout    = 300
  max_request_size     = 1048576
  max_request_duration = "30s"
  max_json_depth       = 50
  require_request_header = true
  redact_version       = true

  custom_response_headers {
    "default" = { "Strict-Transport-Security" = ["max-age=31536000", "includeSubDomains"] }
    "4xx"     = { "x-why" = "no, thanks" }
  }
  telemetry { unauthenticated_metrics_access = true }
  profiling { unauthenticated_pprof_access = true }
}

listener "unix" {
  address      = "/run/leasehold.sock"
  socket_mode  = "0660"
  socket_user  = "lease"
  socket_group = "1000"
}

storage "embedded" {
  path       = "/var/lib/leasehold"
  cache_size = "128MiB"
}

seal "static" {
  current_key_id = "2"
  current_key    = "file:///etc/leasehold/seal.key"
  previous_key_id = "1"
  previous_key    = "env://OLD_KEY"
}

lanes { create_workers = 8 revoke_workers = 4 batch = 32 }

telemetry {
  prometheus_retention_time = "1h"
  disable_hostname = true
  metrics_prefix = "lh"
}

`

func TestEverything(t *testing.T) {
	got, warnings := parse(t, "a.hcl", everything)
	want := &config.Config{
		Listeners: []config.Listener{
			{
				Network: "tcp", Address: "10.0.0.1:8200",
				TLS: &config.TLS{
					CertFile: "/etc/tls/cert.pem", KeyFile: "/etc/tls/key.pem", MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13,
					CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384},
					ClientCAFile: "/etc/tls/ca.pem", RequireClientCert: true,
				},
				ReadTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute, MaxRequestSize: 1 << 20, MaxRequestDuration: 30 * time.Second, MaxJSONDepth: 50,
				XForwardedFor: config.XForwardedFor{
					Authorized: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.1.1/32")},
					HopSkips:   1, KeepHeadless: true,
				},
				ResponseHeaders: []config.ResponseHeaders{
					{Status: "default", Header: http.Header{"Strict-Transport-Security": {"max-age=31536000", "includeSubDomains"}}},
					{Status: "4xx", Header: http.Header{"X-Why": {"no, thanks"}}},
				},
				RequireRequestHeader: true, UnauthenticatedMetrics: true, UnauthenticatedPprof: true, RedactVersion: true,
			},
			{Network: "unix", Address: "/run/leasehold.sock", Mode: "0660", User: "lease", Group: "1000"},
		},
		Storage: config.Storage{Kind: "embedded", Path: "/var/lib/leasehold", CacheSize: 128 << 20},
		Seal:    config.Seal{Kind: "static", Current: config.Key{ID: "2"}, Previous: config.Key{ID: "1"}},
		APIAddr: "https://vault.example.org:8200", ClusterName: "main",
		LogLevel: "warn", LogFormat: "json", LogFile: "/var/log/leasehold.log", LogRequestsLevel: "trace",
		DefaultLeaseTTL: 12 * time.Hour, MaxLeaseTTL: 720 * time.Hour, MaxRequestDuration: time.Minute,
		PIDFile: "/run/leasehold.pid", RawStorageEndpoint: true,
		ResponseHeaderHostname: true, ReportedVersion: "1.19.3+ent", MaxRestartGap: 24 * time.Hour,
		Lanes:     config.Lanes{Create: 8, Revoke: 4, Batch: 32},
		Telemetry: config.Telemetry{PrometheusRetention: time.Hour, MetricsPrefix: "lh"},
	}
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	if len(warnings) != 0 {
		t.Errorf("warnings = %v, want none", warnings)
	}
	if err := got.Check(); err != nil {
		t.Errorf("Check() = %v, want no error", err)
	}
}

// TestSyntaxesMeanTheSame gives one configuration in all the ways there are.
func TestSyntaxesMeanTheSame(t *testing.T) {
	want, _ := parse(t, "a.hcl", `
		listener "tcp" { address = "127.0.0.1:1" tls_disable = true }
		listener "tcp" { address = "127.0.0.1:2" tls_disable = true }
		storage "inmem" {}
		telemetry { disable_hostname = true }
		raw_storage_endpoint = true`)
	for _, src := range []string{
		`{"listener": [{"tcp": {"address": "127.0.0.1:1", "tls_disable": 1}}, {"tcp": {"address": "127.0.0.1:2", "tls_disable": "true"}}],
		  "storage": {"inmem": {}}, "telemetry": {"disable_hostname": true}, "raw_storage_endpoint": true}`,
		` {"listener": {"tcp": [{"address": "127.0.0.1:1", "tls_disable": true}, {"address": "127.0.0.1:2", "tls_disable": true}]},
		  "storage": [{"inmem": {}}], "telemetry": [{"disable_hostname": "true"}], "raw_storage_endpoint": "1"}`,
		`listener { type = "tcp" address = "127.0.0.1:1" tls_disable = 1 }
		 listener = { tcp = { address = "127.0.0.1:2", tls_disable = "1" } }
		 storage = { inmem = {} }
		 telemetry = { disable_hostname = true }
		 "raw_storage_endpoint" = "true"`,
		"listener \"TCP\" {\r\n address = \"127.0.0.1:1\"\r\n tls_disable = true }\r\nlistener \"tcp\" { address = \"127.0.0.1:2\" tls_disable = true }\r\n" +
			"backend \"inmem\" {}\r\ntelemetry { disable_hostname = true }\r\nraw_storage_endpoint = true\r\n",
	} {
		got, _ := parse(t, "", src)
		if diff := cmp.Diff(want, got, same); diff != "" {
			t.Errorf("configuration of %s (-want +got):\n%s", src, diff)
		}
	}
}

func TestDefaults(t *testing.T) {
	got, _, err := config.Load()
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Config{
		Seal: config.Seal{Kind: "shamir"}, LogLevel: "info", LogFormat: "standard",
		DefaultLeaseTTL: 768 * time.Hour, MaxLeaseTTL: 768 * time.Hour, ReportedVersion: "1.20.0",
		Telemetry: config.Telemetry{PrometheusRetention: 24 * time.Hour},
	}
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	if err := got.Check(); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "no storage") || !strings.Contains(err.Error(), "no listener") {
		t.Errorf("Check() = %v, want what is missing", err)
	}
	c, _ := parse(t, "", `listener "tcp" { tls_disable = true }`)
	if got, want := c.Listeners[0].Address, "127.0.0.1:8200"; got != want {
		t.Errorf("address = %q, want %q", got, want)
	}
	if got, want := c.APIAddr, "http://127.0.0.1:8200"; got != want {
		t.Errorf("api_addr = %q, want %q", got, want)
	}
	c, _ = parse(t, "", "max_restart_gap = 0\ntelemetry { prometheus_retention_time = \"0s\" }")
	if c.MaxRestartGap >= 0 || c.Telemetry.PrometheusRetention >= 0 {
		t.Errorf("max_restart_gap and prometheus_retention_time of 0 = %s, %s, want negative ones: none", c.MaxRestartGap, c.Telemetry.PrometheusRetention)
	}
	c, _ = parse(t, "", `max_lease_ttl = "1h"`)
	if got, want := c.DefaultLeaseTTL, time.Hour; got != want {
		t.Errorf("default_lease_ttl below a maximum of 1h = %s, want %s", got, want)
	}
}

func TestRefused(t *testing.T) {
	tests := []struct{ src, want string }{
		{`listner "tcp" {}`, `x:1:1: unknown key "listner"; did you mean listener?`},
		{"ui = true\n\n  lisener \"tcp\" {}", "x:3:3: unknown key"},
		{"listener \"tcp\" {\n  tls_disable = 1\n  adress = \"a:1\"\n}", `x:3:3: unknown key "adress" in listener tcp; did you mean address?`},
		{`storage "embedded" { path = "a" foo = 1 }`, `x:1:33: unknown key "foo" in storage embedded`},
		{`telemetry { nothing_like_it = 1 }`, `in telemetry`},
		{`tracing { sample_ratio = 2 }`, `sample_ratio must be a number over 0, and at most 1, not "2"`},
		{`tracing { endpoint = "collector:4318" }`, `endpoint must be a URL such as http://127.0.0.1:4318`},
		{`tracing { endpoint = "http://me:hunter2@collector:4318" }`, `without a user`},
		{`{"ui": true, "uu": false}`, `x:1:14: unknown key "uu"; did you mean ui?`},
		{"{\n \"listener\": {\"tcp\": {\n  \"adress\": \"a:1\"}}}", `x:3:3: unknown key "adress"`},

		{"ui = true\nui = false", `x:2:1: ui is set twice, first at x:1:1`},
		{"{\"ui\": true,\n\"ui\": true}", `x:2:1: "ui" is set twice, first at x:1:2`},
		{`listener "tcp" { address = "a:1" address = "a:2" tls_disable = 1 }`, "address is set twice in listener tcp"},
		{"storage \"inmem\" {}\nstorage \"inmem\" {}", "storage is set twice"},
		{`{"storage": {"inmem": {}, "embedded": {"path": "a"}}}`, "there is one storage only"},
		{`{"seal": [{"shamir": {}}, {"static": {}}]}`, "there is one seal only"},

		{`storage "raft" { path = "x" }`, `write storage "embedded" {`},
		{`storage "file" { path = "x" }`, `write storage "embedded" {`},
		{`storage "consul" {}`, `not supported yet; write storage "embedded"`},
		{`storage "postgresql" {}`, `not supported yet; write storage "embedded"`},
		{`storage "inmem_ha" {}`, `write storage "inmem" {}`},
		{`storage "flie" {}`, `there are storage "embedded"`},
		{`storage "embedded" {}`, `needs a path`},
		{`storage = "embedded"`, `storage is a block, not a string; write storage "KIND" { ... }`},
		{`storage { path = "x" }`, `storage needs a kind before its settings`},
		{`storage {}`, `storage needs a kind`},
		{`storage "a" "b" {}`, `more than one label`},
		{`ha_storage "consul" {}`, `ha_storage is not supported`},
		{`seal "awskms" {}`, `seal "awskms" is not available yet: write seal "static"`},
		{`seal "transit" { keyname = "x" }`, `unknown key "keyname" in seal transit; did you mean key_name?`},
		{`seal "static" {}`, `needs current_key_id`},
		{`seal "static" { current_key = "file:///x" }`, `needs current_key_id`},
		{`seal "static" { current_key_id = "1" current_key = "tooshort" }`, "does not hold a key of 32 bytes"},
		{`seal "static" { current_key_id = "1" current_key = "file:///x" previous_key_id = "1" previous_key = "file:///y" }`, "a new key needs a new id"},
		{`seal "static" { current_key_id = "1" current_key = "file:///x" previous_key = "file:///y" }`, "go together"},
		{`seal "static" { key_file = "/x" }`, `write current_key = "file:///path"`},
		{`seal "shamir" { disabled = true }`, "a disabled seal is not supported"},
		{`seal "transit" { disabled = "true" }`, "leave its block out, and give enough shares once"},

		{`listener "tcp" {}`, `needs tls_cert_file and tls_key_file, or tls_disable = true`},
		{`listener "tcp" { tls_disable = true address = "localhost" }`, "host:port"},
		{`listener "tcp" { tls_disable = true address = "localhost:http" }`, "port"},
		{`listener "tcp" { tls_disable = true socket_mode = "600" }`, `listener "unix"`},
		{`listener "tcp" { tls_cert_file = "a" tls_key_file = "b" tls_min_version = "tls11" }`, "not safe: write tls12 or tls13"},
		{`listener "tcp" { tls_cert_file = "a" tls_key_file = "b" tls_min_version = "1.2" }`, "must be tls12 or tls13"},
		{`listener "tcp" { tls_cert_file = "a" tls_key_file = "b" tls_min_version = "tls13" tls_max_version = "tls12" }`, "below tls_min_version"},
		{`listener "tcp" { tls_cert_file = "a" tls_key_file = "b" tls_cipher_suites = "TLS_RSA_WITH_RC4_128_SHA" }`, "unknown or not safe"},
		{`listener "tcp" { tls_disable = true tls_require_and_verify_client_cert = true }`, "cannot hold"},
		{`listener "tcp" { tls_disable = true proxy_protocol_behavior = "use_always" }`, "x_forwarded_for_authorized_addrs"},
		{`listener "tcp" { tls_disable = true x_forwarded_for_authorized_addrs = "10.0.0.0/99" }`, "addresses or networks"},
		{`listener "unix" { address = "/s" x_forwarded_for_authorized_addrs = "10.0.0.0/8" }`, "no address to judge by"},
		{`listener "tcp" { tls_disable = true custom_response_headers { "9xx" = {} } }`, "is no status"},
		{`listener "tcp" { tls_disable = true custom_response_headers { "2xx" = "a" } }`, "are a block"},
		{`listener "tcp" { tls_disable = true chroot_namespace = "a" }`, "not supported"},
		{`listener "tcp" { tls_disable = "maybe" }`, "true or false"},
		{`listener "udp" {}`, `there is no listener "udp"`},
		{`listener "unix" {}`, "needs an address"},
		{`listener "unix" { address = "/x" socket_mode = "rw" }`, "octal mode"},

		{`default_lease_ttl = "soon"`, "a time such as"},
		{`default_lease_ttl = "-1h"`, "negative"},
		{`default_lease_ttl = "999999999999d"`, "too long"},
		{`default_lease_ttl = ["1h"]`, "must be a single value, not a list"},
		{`default_lease_ttl "x" { }`, "is not a block"},
		{"default_lease_ttl = \"2h\"\nmax_lease_ttl = \"1h\"", "above max_lease_ttl"},
		{`log_level = "loud"`, "trace, debug, info, warn, error"},
		{`log_format = "xml"`, "standard, json"},
		{`api_addr = "vault.example.org"`, "must be a URL"},
		{`reported_version = "1.20"`, "must be a version"},
		{`lanes { create_workers = 0 }`, "from 1 to"},
		{`lanes "x" { }`, "without a label"},
		{`user_lockout "radius" {}`, "user_lockout is for"},
		{`audit "file" "a" {}`, "leasehold audit enable"},

		{`ui = `, "x:1:6: the file ends too early"},
		{"ui = # true\n", "the file ends too early"},
		{`lanes { batch = 1`, "the file ends too early"},
		{`ui`, "x:"},
		{`listener "tcp"`, "x:"},
		{`}`, "x:"},
		{`ui = true }`, "x:"},
		{`ui = "true`, "x:1:"},
		{`{"ui": tru}`, "x:1:"},
		{`{"ui": true`, "ends too early"},
		{`{"ui": true} {}`, "after the end"},
		{strings.Repeat("a={", 80_000), "deeper than 32 levels"},
		{strings.Repeat(`{"a":`, 50_000), "deeper than 32 levels"},
		{strings.Repeat("#", 300<<10), "larger than 256 KiB"},
	}
	for _, tt := range tests {
		_, _, err := config.Parse("x", []byte(tt.src))
		if !errs.Is(err, errs.Invalid) || !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("Parse(%.100s) = %v, want %q", tt.src, err, tt.want)
		}
	}
}

func TestAllFaultsAreListed(t *testing.T) {
	_, _, err := config.Parse("x", []byte("a_a = 1\nb_b = 2\n"+strings.Repeat("c_c {}\n", 30)))
	if got := strings.Count(fmt.Sprint(err), "\n") + 1; got != 21 {
		t.Errorf("%d lines of faults, want 20 and a last one: %v", got, err)
	}
}

func TestWarnings(t *testing.T) {
	tests := []struct{ src, want string }{
		{"ui = false\ndisable_mlock = true", "x:2:1: disable_mlock has no effect"},
		{"ui = true", "x:1:1: ui = true has no effect: there is no web interface yet"},
		{"disable_cache = 1", "caches hear of every change"},
		{"introspection_endpoint = true", "introspection_endpoint = true has no effect"},
		{`listener "tcp" { tls_disable = 1 max_json_depth = 400 }`, "max_json_depth = 400: the limit stays at 300"},
		{`listener "tcp" { tls_disable = 1 x_forwarded_for_hop_skips = 1 }`, "no effect without x_forwarded_for_authorized_addrs"},
		{`listener "tcp" { tls_disable = 1 tls_cert_file = "a" tls_key_file = "b" }`, "its certificates are not used"},
		{`cluster_addr = "https://a:8201"`, "cluster_addr has no effect"},
		{`plugin_directory = "/x"`, "plugin_directory has no effect"},
		{`telemetry { usage_gauge_period = "10m" }`, "usage_gauge_period has no effect"},
		{`telemetry { disable_hostname = false }`, "disable_hostname = false has no effect"},
		{`telemetry { statsd_address = "a:1" }`, "statsd_address has no effect"},
		{`service_registration "kubernetes" { namespace = "a" }`, "service_registration has no effect"},
		{`listener "tcp" { tls_disable = 1 cluster_address = "a:1" }`, "cluster_address has no effect"},
		{`listener "tcp" { tls_disable = 1 max_request_size = -1 }`, "stays at 32 MiB"},
		{`listener "tcp" { tls_disable = 1 max_request_duration = 0 }`, "stays at 90s"},
		{`listener "tcp" { tls_disable = 1 custom_response_headers { "default" = { "X-Vault-A" = ["b"] } } }`, "X-Vault-A is not sent"},
		{`listener "unix" { address = "/x" tls_cert_file = "a" }`, "tls_cert_file has no effect"},
		{`seal "static" { current_key_id = "1" current_key = "` + strings.Repeat("ab", 32) + `" }`, "stands in the configuration itself"},
	}
	for _, tt := range tests {
		_, warnings := parse(t, "x", tt.src)
		if len(warnings) != 1 || !strings.Contains(warnings[0].String(), tt.want) {
			t.Errorf("warnings of %s = %v, want %q", tt.src, warnings, tt.want)
		}
	}
}

func TestLoadJoinsADirectory(t *testing.T) {
	dir := t.TempDir()
	for name, src := range map[string]string{
		"10-base.hcl":     "raw_storage_endpoint = true\nlog_level = \"debug\"\nlistener \"tcp\" { address = \"a:1\" tls_disable = 1 }\nstorage \"inmem\" {}",
		"20-more.json":    `{"log_level": "error", "listener": {"unix": {"address": "/s"}}, "storage": {"embedded": {"path": "/p"}}}`,
		"ignored.hcl.bak": "nonsense",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, _, err := config.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !c.RawStorageEndpoint || c.LogLevel != "error" || len(c.Listeners) != 2 || c.Storage.Kind != "embedded" {
		t.Errorf("Load = %+v, want both files joined, the later one last", c)
	}
	if got := c.Listeners[1].Pos; got.File != filepath.Join(dir, "20-more.json") || got.Line != 1 {
		t.Errorf("place of the second listener = %s, want the second file", got)
	}
	for _, path := range []string{t.TempDir(), filepath.Join(dir, "none.hcl")} {
		if _, _, err := config.Load(path); !errs.Is(err, errs.Invalid) {
			t.Errorf("Load(%q) = %v, want Invalid", path, err)
		}
	}
}

func TestCheckFindsSharedAddresses(t *testing.T) {
	c, _ := parse(t, "x", `listener "tcp" { tls_disable = 1 } listener "tcp" { tls_disable = 1 } storage "inmem" {}`)
	if err := c.Check(); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "two listeners") {
		t.Errorf("Check() = %v, want the clash", err)
	}
}

func TestSealKeys(t *testing.T) {
	key := []byte("0123456789abcdef0123456789abcdef")
	dir := t.TempDir()
	write := func(name, s string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		return "file://" + path
	}
	t.Setenv("TEST_SEAL_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
	tests := []struct {
		source string
		ok     bool
	}{
		{write("raw", string(key)), true},
		{write("hex", fmt.Sprintf("%x\n", key)), true},
		{write("base64", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\n"), true},
		{"env://TEST_SEAL_KEY", true},
		{fmt.Sprintf("%x", key), true},
		{write("short", "abc"), false},
		{"file://" + filepath.Join(dir, "none"), false},
		{"env://TEST_NO_SUCH_KEY", false},
	}
	for _, tt := range tests {
		c, _ := parse(t, "x", fmt.Sprintf(`seal "static" { current_key_id = "1" current_key = %q }`, tt.source))
		got, err := c.Seal.Current.Load()
		if (err == nil) != tt.ok || tt.ok && string(got.Reveal()) != string(key) {
			t.Errorf("the key from %q: error %v, want a key: %t", tt.source, err, tt.ok)
		}
		if err != nil && strings.Contains(err.Error(), "abc") {
			t.Errorf("error %q shows the key", err)
		}
		if s := fmt.Sprintf("%v %+v", c.Seal, c.Seal.Current); strings.Contains(s, fmt.Sprintf("%x", key)) {
			t.Errorf("%s shows the key", s)
		}
	}
}

func TestSanitizedShowsNoKeys(t *testing.T) {
	c, _ := parse(t, "a.hcl", everything)
	b, err := json.Marshal(c.Sanitized())
	if err != nil {
		t.Fatal(err)
	}
	for _, hidden := range []string{"seal.key", "OLD_KEY", "key.pem", "/var/lib"} {
		if strings.Contains(string(b), hidden) {
			t.Errorf("sanitized configuration %s shows %q", b, hidden)
		}
	}
	for _, shown := range []string{`"default_lease_ttl":43200`, `"type":"static"`, `"type":"embedded"`, `"address":"10.0.0.1:8200"`, `"tls_min_version":"tls12"`} {
		if !strings.Contains(string(b), shown) {
			t.Errorf("sanitized configuration %s lacks %s", b, shown)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a.hcl", []byte(everything))
	f.Add("a.json", []byte(`{"listener": [{"tcp": {"address": "a:1", "tls_disable": 1}}], "storage": {"inmem": {}}}`))
	f.Add("", []byte("listener \"tcp\" { custom_response_headers { \"2xx\" = { \"A\" = [\"b\"] } } }"))
	f.Add("", []byte("a = <<EOF\nx\nEOF\n"))
	f.Add("", []byte("seal \"static\" { current_key_id = \"1\" current_key = \"env://X\" }"))
	f.Fuzz(func(t *testing.T, name string, src []byte) {
		c, _, err := config.Parse(name, src)
		switch {
		case err != nil && !errs.Is(err, errs.Invalid):
			t.Errorf("Parse(%q) = %v, want Invalid", src, err)
		case err == nil:
			_ = c.Check()
			_ = c.Sanitized()
		}
	})
}

func TestLockouts(t *testing.T) {
	cfg, warnings, err := config.Parse("x", []byte(`
		user_lockout "all" { lockout_threshold = 3 lockout_duration = "10m" disable_lockout = true }
		user_lockout "userpass" { lockout_threshold = "7" disable_lockout = false }
		user_lockout "ldap" { lockout_counter_reset = "5m" }`))
	if err != nil || len(warnings) != 0 {
		t.Fatalf("Parse = %v, %v", warnings, err)
	}
	want := map[string]config.Lockout{
		"userpass": {Threshold: 7, Duration: 10 * time.Minute},
		"ldap":     {Threshold: 3, Duration: 10 * time.Minute, CounterReset: 5 * time.Minute, Disable: true},
		"approle":  {Threshold: 3, Duration: 10 * time.Minute, Disable: true},
	}
	if d := cmp.Diff(want, cfg.Lockouts); d != "" {
		t.Errorf("Lockouts (-want +got):\n%s", d)
	}
}
