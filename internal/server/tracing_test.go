package server_test

import (
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/api"
	"github.com/leasehold/leasehold/internal/testenv"
	"github.com/leasehold/leasehold/internal/trace/tracetest"
)

// TestTraces follows a database credential from the caller's own span to the
// statements that made it, with a real server at the end.
func TestTraces(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	t.Setenv("OTEL_SERVICE_NAME", "house")
	pg := testenv.Postgres(t, testenv.Config{})
	collector := tracetest.New(t)
	c := start(t, `tracing { endpoint = "`+collector.URL+`" }`)
	log := filepath.Join(t.TempDir(), "audit.log")
	write := func(path string, body any) {
		t.Helper()
		if _, err := c.Write(t.Context(), path, body); err != nil {
			t.Fatal(err)
		}
	}
	write("sys/audit/file", map[string]any{"type": "file", "options": map[string]string{"file_path": log}})
	write("sys/mounts/database", map[string]string{"type": "database"})
	write("database/config/pg", map[string]string{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": testenv.Superuser, "password": pg.Password,
		"connection_url": "postgresql://{{username}}:{{password}}@" + pg.Addr() + "/postgres?sslmode=disable",
	})
	write("database/roles/app", map[string]any{
		"db_name": "pg", "default_ttl": "1h",
		"creation_statements": []string{`-- for the shop
			CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; GRANT pg_monitor TO "{{name}}"`},
	})
	const theirTrace, theirSpan = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	resp, err := c.Do(t.Context(), &api.Request{
		Method: http.MethodGet, Path: "database/creds/app",
		Header: http.Header{"Traceparent": {"00-" + theirTrace + "-" + theirSpan + "-01"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var creds struct {
		RequestID string `json:"request_id"`
		LeaseID   string `json:"lease_id"`
		Data      struct{ Username, Password string }
	}
	if err := json.Unmarshal(resp.Body, &creds); err != nil {
		t.Fatal(err)
	}

	tr := collector.Trace(t, "GET /v1/database/creds/{name}")
	if tr.Root.Trace != theirTrace || tr.Root.Parent != theirSpan {
		t.Errorf("the request's span is in trace %s below %q, want the caller's", tr.Root.Trace, tr.Root.Parent)
	}
	if collector.Service() != "house" {
		t.Errorf("the server calls itself %q, want house", collector.Service())
	}
	for key, want := range map[string]string{
		"http.route": "/v1/database/creds/{name}", "http.request.method": "GET", "http.response.status_code": "200",
		"leasehold.mount_type": "database", "leasehold.request_id": creds.RequestID,
	} {
		if got := tr.Root.Attrs[key]; got != want {
			t.Errorf("%s = %q, want %q", key, got, want)
		}
	}
	root := tr.Root.Name
	for _, path := range []string{
		"route", "admit", "admit > token", "admit > policy", "audit request", "engine", "audit response",
		"engine > lease commit", "engine > lease commit > storage update",
		"engine > lease make", "engine > lease make > sql connection", "engine > lease make > sql transaction",
	} {
		if !strings.Contains("\n"+tr.String()+"\n", "\n"+root+" > "+path+"\n") {
			t.Errorf("no span at %s; there are:\n%s", path, tr)
		}
	}
	sql := tr.Find("sql transaction")
	if sql == nil {
		t.FailNow()
	}
	const kinds = "CREATE ROLE; GRANT; COMMENT; SELECT; COMMIT"
	if got := sql.Attrs["db.query.summary"]; !strings.HasPrefix(got, "BEGIN; SET; SET; ") || !strings.HasSuffix(got, kinds) || sql.Attrs["db.system.name"] != "postgresql" {
		t.Errorf("the statements' kinds are %q, want them to end in %q", got, kinds)
	}

	// A request that fails has a span that says how, and not in which words.
	write("database/roles/bad", map[string]any{"db_name": "pg", "creation_statements": []string{`CREATE ROLE "{{name}}" hunter2`}})
	if _, err := c.Read(t.Context(), "database/creds/bad", nil); err == nil {
		t.Fatal("a role with bad SQL gave a credential")
	}
	failed := func() *tracetest.Span {
		for _, s := range collector.Spans() {
			if s.Name == "lease make" && s.Failed {
				return s
			}
		}
		return nil
	}
	for late := time.Now().Add(20 * time.Second); failed() == nil; {
		if time.Now().After(late) {
			t.Fatal("no span of the failed creation came")
		}
		collector.Wait(t)
	}

	// Paths of what nobody answers, and ids that open something, stay out.
	write("sys/leases/renew", map[string]string{"lease_id": creds.LeaseID})
	if _, err := c.Write(t.Context(), "sys/leases/renew/"+creds.LeaseID, nil); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Read(t.Context(), "nowhere/hunter2", nil)
	write("sys/leases/revoke/"+creds.LeaseID, nil)
	collector.Trace(t, "PUT /v1/sys/leases/revoke/{url_lease_id...}")
	for _, s := range collector.Spans() {
		for _, secret := range []string{creds.LeaseID, creds.Data.Username, creds.Data.Password, pg.Password, "hunter2", "hvs.", "shop", `"root"`} {
			if strings.Contains(s.Raw, secret) {
				t.Errorf("%q is in a span: %s", secret, s.Raw)
			}
		}
	}
}

// TestDeadCollector sends traces to an address where connections are taken and
// nothing is answered: requests do not wait for it, and stopping hardly does.
func TestDeadCollector(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
	t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+ln.Addr().String())
	c := start(t, "")
	slowest := time.Duration(0)
	for range 200 {
		begun := time.Now()
		if _, err := c.Read(t.Context(), "auth/token/lookup-self", nil); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(begun))
	}
	// The exporter's own limit is ten seconds: whoever waited for it shows.
	if slowest > 5*time.Second {
		t.Errorf("a request took %s beside a dead collector", slowest)
	}
}
