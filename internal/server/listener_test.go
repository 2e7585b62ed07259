package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

// What a listener's settings do to a whole server.

func TestListenerOpensAndGuards(t *testing.T) {
	t.Parallel()
	plain := startLocal(t, "")
	set := startLocal(t, "", `
		telemetry { unauthenticated_metrics_access = true }
		profiling {
		  unauthenticated_pprof_access             = true
		  unauthenticated_in_flight_request_access = true
		}
		disable_unauthed_rekey_endpoints = true`)
	for _, tt := range []struct {
		path       string
		plain, set int
	}{
		{"sys/metrics?format=prometheus", 403, 200},
		{"sys/pprof/goroutine?debug=1", 403, 200},
		{"sys/in-flight-req", 403, 200},
		{"sys/rekey/init", 200, 403},
		{"sys/generate-root/attempt", 200, 403},
		{"sys/health", 200, 200},
		{"sys/mounts", 403, 403},
	} {
		for _, l := range []struct {
			*local
			want int
		}{{plain, tt.plain}, {set, tt.set}} {
			if status, body := l.ask("GET", tt.path, "", ""); status != l.want {
				t.Errorf("without a token GET %s = %d %.200s, want %d", tt.path, status, body, l.want)
			}
			if status, body := l.ask("GET", tt.path, l.root, ""); status != 200 {
				t.Errorf("as root GET %s = %d %.200s, want 200", tt.path, status, body)
			}
		}
	}
	// A token that is no good is not looked at where none is needed.
	if status, _ := set.ask("GET", "sys/metrics", "nobody", ""); status != 200 {
		t.Errorf("with a bad token GET sys/metrics = %d, want 200", status)
	}
}

func TestListenerRedacts(t *testing.T) {
	t.Parallel()
	l := startLocal(t, `cluster_name = "the-cluster"`, `
		redact_version      = true
		redact_cluster_name = true
		redact_addresses    = true`)
	for _, path := range []string{"sys/health", "sys/seal-status", "sys/leader"} {
		_, body := l.ask("GET", path, "", "")
		var got struct {
			Version *string `json:"version"`
			Own     string  `json:"leasehold_version"`
			Cluster string  `json:"cluster_name"`
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || got.Version != nil && *got.Version != "" || got.Own != "" || got.Cluster != "" {
			t.Errorf("GET %s = %s, %v, want no version and no cluster", path, body, err)
		}
	}
}

func TestListenerHeadersAndLimits(t *testing.T) {
	t.Parallel()
	l := startLocal(t, "enable_response_header_hostname = true", `
		max_request_size       = 1000
		max_json_depth         = 3
		require_request_header = true
		custom_response_headers {
		  "default" = { "X-Policy" = ["one", "two"] }
		  "413"     = { "X-Policy" = ["too large"] }
		}`)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	header := []string{"X-Vault-Request", "true"}
	for _, tt := range []struct {
		method, path, body string
		header             []string
		status             int
		policy             string
	}{
		{"GET", "sys/health", "", header, 200, "one; two"},
		{"GET", "sys/health", "", nil, 412, "one; two"},
		{"POST", "cubbyhole/a", `{"a":{"b":{"c":1}}}`, header, 204, "one; two"},
		{"POST", "cubbyhole/a", `{"a":{"b":{"c":[1]}}}`, header, 400, "one; two"},
		{"POST", "cubbyhole/a", `{"a":"` + strings.Repeat("x", 1000) + `"}`, header, 413, "too large"},
	} {
		status, body, got := l.askFor(tt.method, tt.path, l.root, tt.body, tt.header...)
		if status != tt.status || got.Get("X-Policy") != tt.policy || got.Get("X-Vault-Hostname") != host {
			t.Errorf("%s %s = %d %.100s with %q and %q, want %d, %q and %q",
				tt.method, tt.path, status, body, got.Get("X-Policy"), got.Get("X-Vault-Hostname"), tt.status, tt.policy, host)
		}
	}
}

// TestListenerBehindAProxy: the record names the client.
func TestListenerBehindAProxy(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	l := startLocal(t, fmt.Sprintf(`
		listener "tcp" {
		  address     = %q
		  tls_disable = true
		  x_forwarded_for_authorized_addrs   = "127.0.0.0/8"
		  x_forwarded_for_hop_skips          = 1
		  x_forwarded_for_reject_not_present = false
		}`, addr))
	lg := l.audit()
	get := func(forwarded string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+"/v1/auth/token/lookup-self", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Vault-Token", l.root)
		if forwarded != "" {
			req.Header.Set("X-Forwarded-For", forwarded)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, tt := range []struct {
		forwarded string
		status    int
		remote    string
	}{
		{"198.51.100.1, 192.0.2.9, 10.0.0.1", 200, "192.0.2.9"},
		{"", 200, "127.0.0.1"},
		{"10.0.0.1", 400, "127.0.0.1"}, // skipping leaves nobody
	} {
		if status := get(tt.forwarded); status != tt.status {
			t.Errorf("X-Forwarded-For %q is answered %d, want %d", tt.forwarded, status, tt.status)
		}
		records := read(t, lg.hashed)
		if last := records[len(records)-1].line; !strings.Contains(last, `"remote_address":"`+tt.remote+`"`) {
			t.Errorf("X-Forwarded-For %q is recorded as %s, want %s", tt.forwarded, last, tt.remote)
		}
	}
}
