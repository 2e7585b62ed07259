package server_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
	"github.com/leasehold/leasehold/internal/testenv"
)

// TestAuditHidesLiveSecrets: what the server itself makes and hands out (tokens,
// passwords, lease ids, wrapped answers, shares) is in no record in the clear.
func TestAuditHidesLiveSecrets(t *testing.T) {
	t.Parallel()
	pg := testenv.Postgres(t, testenv.Config{})
	db := pg.NewDatabase(t)
	l := startLocal(t, "")
	l.must("POST", "sys/mounts/database", `{"type":"database"}`)
	l.must("POST", "sys/mounts/kv", `{"type":"kv"}`)
	lg := l.audit()
	secrets := map[string]string{} // text → what it is
	note := func(what string, text any) string {
		s, _ := text.(string)
		if len(s) < 8 {
			t.Fatalf("%s is %v, want a secret", what, text)
		}
		secrets[s] = what
		return s
	}
	note("the root token", l.root)

	// Everything a mount could be told not to hash.
	open := object(map[string]any{
		"audit_non_hmac_request_keys":  []string{"id", "token", "lease_id", "password", "key", "otp", "value", "prefix", "after"},
		"audit_non_hmac_response_keys": []string{"id", "token", "lease_id", "password", "keys", "key", "otp", "client_token", "username", "value", "wrapped"},
	})
	for _, mount := range []string{"sys", "auth/token", "database", "cubbyhole"} {
		l.must("POST", "sys/mounts/"+mount+"/tune", open)
	}

	// Logins of a database.
	l.must("POST", "database/config/app", object(map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": testenv.Superuser, "password": note("the connection's password", pg.Password),
		"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable", pg.Addr(), db),
	}))
	l.must("POST", "database/roles/app", object(map[string]any{
		"db_name": "app", "creation_statements": []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`}, "default_ttl": "1h",
	}))
	creds := l.must("GET", "database/creds/app", "")
	note("a login's password", creds.Data["password"])
	lease := note("a lease id", creds.LeaseID)
	note("the end of a lease id", lease[strings.LastIndexByte(lease, '/')+1:])
	l.must("POST", "sys/leases/lookup", object(map[string]any{"lease_id": lease}))
	l.must("POST", "sys/leases/renew", object(map[string]any{"lease_id": lease}))
	l.must("POST", "sys/leases/renew/"+lease, "")
	l.must("LIST", "sys/leases/lookup/database/creds/app", "")
	l.ask("LIST", "sys/leases/lookup/"+lease, l.root, "") // by mistake
	l.must("GET", "sys/leases", "")
	l.ask("GET", "sys/leases?after="+lease, l.root, "")
	l.must("POST", "sys/leases/revoke/"+lease, "")
	whole := l.must("GET", "database/creds/app", "")
	note("a login's password", whole.Data["password"])
	note("the end of a lease id", whole.LeaseID[strings.LastIndexByte(whole.LeaseID, '/')+1:])
	l.must("POST", "sys/leases/revoke-prefix/"+whole.LeaseID, "")

	// Wrapped answers: of a login, of a token, of one's own data.
	wrapped := l.must("GET", "database/creds/app", "", "X-Vault-Wrap-TTL", "60")
	wrapping := note("a wrapping token", wrapped.Wrap.Token)
	l.must("POST", "sys/wrapping/lookup", object(map[string]any{"token": wrapping}))
	again := l.must("POST", "sys/wrapping/rewrap", object(map[string]any{"token": wrapping}))
	wrapping = note("a rewrapped token", again.Wrap.Token)
	unwrapped := l.must("POST", "sys/wrapping/unwrap", object(map[string]any{"token": wrapping}))
	note("an unwrapped password", unwrapped.Data["password"])
	note("an unwrapped lease id", unwrapped.LeaseID[strings.LastIndexByte(unwrapped.LeaseID, '/')+1:])
	l.ask("POST", "sys/wrapping/unwrap", l.root, object(map[string]any{"token": wrapping})) // used up
	made := l.must("POST", "auth/token/create", `{"policies":["default"]}`, "X-Vault-Wrap-TTL", "60")
	inner := l.must("POST", "sys/wrapping/unwrap", "", "X-Vault-Token", note("a wrapping token", made.Wrap.Token))
	note("an unwrapped token", inner.Auth.Token)
	own := l.must("POST", "sys/wrapping/wrap", `{"wrapped":"my-own-secret-text"}`, "X-Vault-Wrap-TTL", "60")
	l.must("POST", "sys/wrapping/unwrap", object(map[string]any{"token": note("a wrapping token", own.Wrap.Token)}))

	// Tokens, in every place that takes one.
	child := l.must("POST", "auth/token/create", object(map[string]any{"id": note("a token's chosen text", "chosenchosenchosen"), "policies": []string{"default"}, "meta": map[string]string{"team": "blue"}}))
	tok := note("a token", child.Auth.Token)
	l.must("POST", "auth/token/lookup", object(map[string]any{"token": tok}))
	l.ask("GET", "auth/token/lookup?token="+tok, l.root, "")
	l.must("GET", "auth/token/lookup-self", "", "X-Vault-Token", tok)
	l.ask("POST", "auth/token/lookup/"+tok, l.root, "")
	l.ask("POST", "gone/auth/token/renew/"+tok, l.root, "") // of a namespace that is not there
	l.ask("POST", "gone/sys/leases/renew/"+lease, l.root, "")
	l.ask("POST", "gone/sys/leases/renew/"+lease, "", "")
	l.must("POST", "sys/quotas/config", `{"enable_rate_limit_audit_logging":true,"rate_limit_exempt_paths":[]}`)
	l.must("POST", "sys/quotas/rate-limit/renewals", `{"path":"sys/leases/renew/*","rate":1,"interval":"1h"}`)
	for range 2 {
		l.ask("POST", "sys/leases/renew/"+lease, l.root, "")
	}
	l.must("DELETE", "sys/quotas/rate-limit/renewals", "")
	l.must("POST", "auth/token/renew", object(map[string]any{"token": tok}))
	l.must("POST", "sys/capabilities", object(map[string]any{"token": tok, "paths": []string{"kv/a"}}))
	if status, _ := l.ask("GET", "kv/a", "hvs.strangerstranger", ""); status != 403 {
		t.Errorf("a stranger is answered %d, want 403", status)
	}
	note("a token that nobody knows", "hvs.strangerstranger")
	l.ask("GET", "kv/a", "", "", "Authorization", "Bearer "+note("a bearer token", "hvs.bearerbearerbearer"))

	// What is stored and read back; what sits in the wrong field.
	l.must("POST", "kv/a", object(map[string]any{"value": note("a stored secret", "stored-secret-text")}))
	l.must("GET", "kv/a", "")
	l.must("POST", "cubbyhole/a", object(map[string]any{"other": note("a secret in a cubbyhole", "cubbyhole-secret-text")}))
	l.must("GET", "cubbyhole/a", "")
	l.ask("POST", "auth/token/create", l.root, object(map[string]any{"ttl": note("a secret in the wrong field", "wrong-field \"secret\"")}))
	l.ask("POST", "kv/a", l.root, `{"value":"`+note("a secret in broken JSON", "broken-json-secret"))

	// Keys of people.
	l.must("POST", "sys/generate-root/attempt", "")
	_, text := l.ask("GET", "sys/generate-root/attempt", l.root, "")
	var gen struct{ Nonce, OTP string }
	if err := json.Unmarshal([]byte(text), &gen); err != nil {
		t.Fatal(err)
	}
	l.must("DELETE", "sys/generate-root/attempt", "")
	_, text = l.ask("POST", "sys/generate-root/attempt", l.root, "")
	if err := json.Unmarshal([]byte(text), &gen); err != nil {
		t.Fatal(err)
	}
	note("a one-time password", gen.OTP)
	share := note("a share of the key", base64.StdEncoding.EncodeToString(l.share))
	status, text := l.ask("POST", "sys/generate-root/update", l.root, object(map[string]any{"key": share, "nonce": gen.Nonce}))
	var root struct {
		Encoded string `json:"encoded_token"`
	}
	if err := json.Unmarshal([]byte(text), &root); err != nil || root.Encoded == "" {
		t.Fatalf("generate-root = %d %s", status, text)
	}
	note("an encoded root token", root.Encoded)
	decoded := l.must("POST", "sys/decode-token", object(map[string]any{"encoded_token": root.Encoded, "otp": gen.OTP}))
	note("a new root token", decoded.Data["token"])
	l.must("POST", "sys/policies/password/p", object(map[string]any{"policy": "length = 20\nrule \"charset\" { charset = \"abcdefgh\" }"}))
	password := l.must("GET", "sys/policies/password/p/generate", "")
	note("a generated password", password.Data["password"])

	hashed, err := os.ReadFile(lg.hashed)
	if err != nil {
		t.Fatal(err)
	}
	for text, what := range secrets {
		quoted, _ := json.Marshal(text)
		if strings.Contains(string(hashed), text) || strings.Contains(string(hashed), string(quoted[1:len(quoted)-1])) {
			for _, r := range read(t, lg.hashed) {
				if strings.Contains(r.line, text) {
					t.Errorf("%s (%s) is in the log in the clear: %s", what, text, r.line)
					break
				}
			}
		}
	}
	// The hash of a known value finds its records.
	found := func(text string) int {
		r := l.must("POST", "sys/audit-hash/hashed", object(map[string]any{"input": text}))
		return strings.Count(string(hashed), fmt.Sprint(r.Data["hash"]))
	}
	for text, atLeast := range map[string]int{l.root: 40, tok: 5, lease: 5, "stored-secret-text": 2} {
		if n := found(text); n < atLeast {
			t.Errorf("the hash of %s is in %d places, want %d or more", secrets[text], n, atLeast)
		}
	}
	// A raw device has them all, except for what it never met: an answer that
	// was wrapped, and what could not be read.
	raw, err := os.ReadFile(lg.raw)
	if err != nil {
		t.Fatal(err)
	}
	for text, what := range secrets {
		quoted, _ := json.Marshal(text)
		if what != "a secret in broken JSON" && !strings.Contains(string(raw), string(quoted[1:len(quoted)-1])) {
			t.Errorf("%s (%s) is not in the raw log", what, text)
		}
	}
	// What may be read is readable.
	for _, want := range []string{`"team":"blue"`, `"username":"` + fmt.Sprint(creds.Data["username"]), `"display_name":"token"`, `"path":"database/creds/app"`} {
		if !strings.Contains(string(hashed), want) {
			t.Errorf("the log has no %s", want)
		}
	}
}

// pairs checks that each request has one record of the request and one of the
// answer.
func pairs(t *testing.T, records []record) (requests int) {
	t.Helper()
	type both struct{ request, response int }
	byID := map[string]both{}
	for _, r := range records {
		p := byID[r.Request.ID]
		switch r.Type {
		case "request":
			p.request++
		case "response":
			p.response++
		case "event":
			continue
		}
		byID[r.Request.ID] = p
	}
	for id, p := range byID {
		if p != (both{1, 1}) {
			t.Errorf("request %q has %d records of the request and %d of the answer, want one each", id, p.request, p.response)
		}
	}
	return len(byID)
}

// TestAuditUnderLoad: 64 clients at once, well-behaved and not.
func TestAuditUnderLoad(t *testing.T) {
	t.Parallel()
	l := startLocal(t, "")
	l.must("POST", "sys/mounts/kv", `{"type":"kv"}`)
	lg := l.audit()
	before := len(read(t, lg.hashed))
	const clients, rounds = 64, 8
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range rounds {
				path := fmt.Sprintf("kv/%d/%d", c, i)
				l.ask("POST", path, l.root, `{"a":"`+strings.Repeat("x", c*20)+`"}`)
				l.ask("GET", path, l.root, "")
				l.ask("LIST", "kv/", l.root, "")
				l.ask("GET", path, "nobody", "")
				l.ask("GET", "kv/none", l.root, "")
				l.ask("POST", path, l.root, `{"a":`)
				l.ask("SCAN", path, l.root, "")
				l.ask("GET", "no/such/mount", l.root, "")
				l.ask("GET", path, l.root, "", "X-Vault-Namespace", "none")
				l.ask("GET", "kv/%2e%2e/a", l.root, "")
			}
		})
	}
	wg.Wait()
	for _, path := range []string{lg.hashed, lg.raw} {
		records := read(t, path)
		if path == lg.hashed {
			records = records[before:]
		} else {
			records = records[1:] // its first is the answer to its own enabling
		}
		if n := pairs(t, records); n != clients*rounds*10 {
			t.Errorf("%s tells of %d requests, want %d", filepath.Base(path), n, clients*rounds*10)
		}
	}
}

// TestAuditOfRefusals: whatever the reason, the record has it.
func TestAuditOfRefusals(t *testing.T) {
	t.Parallel()
	l := startLocal(t, "")
	l.must("POST", "sys/mounts/kv", `{"type":"kv"}`)
	lg := l.audit()
	before := len(read(t, lg.hashed))
	tests := []struct {
		method, target, token, body string
		header                      []string
		status                      int
		path, says                  string
	}{
		{"GET", "kv/a", "", "", nil, 403, "kv/a", "permission denied"},
		{"GET", "kv/a", "nobody", "", nil, 403, "kv/a", "permission denied"},
		{"GET", "kv/a", l.root, "", nil, 404, "kv/a", ""},
		{"GET", "none/a", l.root, "", nil, 404, "none/a", "no handler for route"},
		{"DELETE", "sys/internal/specs/openapi", l.root, "", nil, 405, "sys/internal/specs/openapi", "refused"},
		{"DELETE", "sys/tools/random", l.root, "", nil, 405, "sys/tools/random", "unsupported operation"},
		{"POST", "kv/a", l.root, `{"a":`, nil, 400, "kv/a", "failed to decode JSON input"},
		{"POST", "kv/a", l.root, strings.Repeat(`{"a":`, 301) + "1" + strings.Repeat("}", 301), nil, 400, "kv/a", "nested deeper"},
		{"POST", "kv/a", l.root, strings.Repeat(" ", 33<<20), nil, 413, "kv/a", "over the limit"},
		{"SCAN", "kv/a", l.root, "", nil, 405, "kv/a", "unsupported method"},
		{"GET", "kv/a%0ab", l.root, "", nil, 400, "kv/a\nb", "control character"},
		{"GET", "kv/%2e%2e/a", l.root, "", nil, 400, "kv/../a", "relative paths"},
		{"GET", "kv/a?x=%zz", l.root, "", nil, 400, "kv/a", "the query cannot be read"},
		{"GET", "kv/a", l.root, "", []string{"X-Vault-Namespace", "none"}, 404, "kv/a", "there is no namespace"},
		{"GET", "kv/a", l.root, "", []string{"X-Vault-Wrap-TTL", "soon"}, 400, "kv/a", "X-Vault-Wrap-TTL"},
		{"GET", "kv/a", l.root, "", []string{"X-Vault-Wrap-TTL", "9000h"}, 400, "kv/a", "over the server's maximum"},
	}
	for _, tt := range tests {
		if status, body := l.ask(tt.method, tt.target, tt.token, tt.body, tt.header...); status != tt.status {
			t.Errorf("%s %s = %d %s, want %d", tt.method, tt.target, status, body, tt.status)
		}
	}
	records := read(t, lg.hashed)[before:]
	if len(records) != 2*len(tests) {
		t.Fatalf("%d records of %d requests, want two each", len(records), len(tests))
	}
	for i, tt := range tests {
		request, response := records[2*i], records[2*i+1]
		if request.Type != "request" || response.Type != "response" || request.Request.ID != response.Request.ID {
			t.Errorf("%s %s: the records are no pair: %s%s", tt.method, tt.target, request.line, response.line)
		}
		if response.Request.Path != tt.path || !strings.Contains(response.Error, tt.says) {
			t.Errorf("%s %s is recorded as %q with the error %q, want %q and %q", tt.method, tt.target, response.Request.Path, response.Error, tt.path, tt.says)
		}
	}
}

// TestAuditSettings: what an operator can ask of a log.
func TestAuditSettings(t *testing.T) {
	t.Parallel()
	l := startLocal(t, "")
	l.must("POST", "sys/mounts/kv", `{"type":"kv"}`)
	lg := l.audit()
	short := filepath.Join(t.TempDir(), "short")
	l.must("PUT", "sys/audit/short", object(map[string]any{"type": "file", "options": map[string]string{
		"file_path": short, "elide_list_responses": "true", "hmac_accessor": "false", "prefix": "@cee: ",
	}}))
	l.must("POST", "sys/mounts/kv/tune", `{"audit_non_hmac_request_keys":["plain"],"audit_non_hmac_response_keys":["plain"]}`)
	l.must("PUT", "sys/config/auditing/request-headers/X-Clear", `{"hmac":false}`)
	l.must("PUT", "sys/config/auditing/request-headers/X-Hashed", `{"hmac":true}`)
	l.must("PUT", "sys/config/auditing/request-headers/X-Vault-Token", `{"hmac":false}`)
	l.must("POST", "kv/dir/one", `{"plain":"shown-as-plain","other":"never-shown"}`, "X-Clear", "clear-header", "X-Hashed", "hashed-header")
	l.must("GET", "kv/dir/one", "")
	l.must("LIST", "kv/dir/", "")
	last := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		return lines[len(lines)-1]
	}
	if got := last(short); !strings.HasPrefix(got, "@cee: {") || !strings.Contains(got, `"data":{"keys":1}`) {
		t.Errorf("an elided listing is recorded as %s", got)
	}
	if got := last(lg.hashed); !strings.Contains(got, `"data":{"keys":["hmac-sha256:`) {
		t.Errorf("a listing is recorded as %s", got)
	}
	accessor := l.must("GET", "auth/token/lookup-self", "").Data["accessor"].(string)
	if got := last(short); !strings.Contains(got, accessor) {
		t.Errorf("with hmac_accessor off the accessor %s is not in %s", accessor, got)
	}
	b, err := os.ReadFile(lg.hashed)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"shown-as-plain": true, "never-shown": false, "clear-header": true, "hashed-header": false, l.root: false, accessor: false,
	} {
		if got := strings.Contains(string(b), text); got != want {
			t.Errorf("%s is in the log: %v, want %v", text, got, want)
		}
	}
	if !strings.Contains(string(b), `"x-vault-token":["hmac-sha256:`) {
		t.Error("the token's header is not in the log, hashed, although it was asked for")
	}

	// What was disabled hears no more, and the last one stops it all.
	l.must("DELETE", "sys/audit/short", "")
	l.must("DELETE", "sys/audit/raw", "")
	size := len(last(short))
	l.must("GET", "kv/dir/one", "")
	if got := len(last(short)); got != size {
		t.Error("a disabled device got a record")
	}
	l.must("DELETE", "sys/audit/hashed", "")
	n := len(read(t, lg.hashed))
	l.must("GET", "kv/dir/one", "")
	if got := len(read(t, lg.hashed)); got != n {
		t.Errorf("with auditing off there are %d records more", got-n)
	}
}

// TestAuditDiskFull: with no room for the record there is no answer, and
// nothing is done; with room again all goes on by itself.
func TestAuditDiskFull(t *testing.T) {
	t.Parallel()
	s := leaseholdtest.Start(t, leaseholdtest.Config{Dev: true})
	path := filepath.Join(t.TempDir(), "audit")
	call(t, s, "PUT", "sys/audit/file", map[string]any{"type": "file", "options": map[string]string{"file_path": path}}, nil)
	call(t, s, "POST", "sys/mounts/kv", map[string]any{"type": "kv"}, nil)
	for i := range 8 { // beyond what the server's own log has in it
		call(t, s, "PUT", fmt.Sprintf("kv/%d", i), map[string]string{"long": strings.Repeat("x", 1000)}, nil)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	fileLimit(t, s, uint64(st.Size())+100) // in the middle of the next record
	for range 3 {
		err := s.Call(t.Context(), "PUT", "kv/full", s.Root, map[string]string{"a": "b"}, nil)
		if e := (*leaseholdtest.StatusError)(nil); !errors.As(err, &e) || e.Code != http.StatusServiceUnavailable || !strings.Contains(e.Body, "no audit device could record") {
			t.Fatalf("with the disk full a write gives %v, want 503 with the reason", err)
		}
	}
	call(t, s, "GET", "sys/health", nil, nil)
	fileLimit(t, s, 1<<30)
	var none *leaseholdtest.StatusError
	if err := s.Call(t.Context(), "GET", "kv/full", s.Root, nil, nil); !errors.As(err, &none) || none.Code != http.StatusNotFound {
		t.Errorf("what was refused is %v, want not there", err)
	}
	call(t, s, "PUT", "kv/full", map[string]string{"a": "b"}, nil)
	records := read(t, path) // each a whole line
	pairs(t, records)
	if n := strings.Count(s.Log(), "audit"); n > 6 {
		t.Errorf("a full disk is told of in %d lines, want it told of once", n)
	}
	if !strings.Contains(s.Log(), "audit device fails") || !strings.Contains(s.Log(), "audit device works again") {
		t.Error("the log does not tell of the device's failing and healing")
	}
}
