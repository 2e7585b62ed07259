package server_test

import (
	"strings"
	"testing"
)

// TestEdges are requests at the edge of what a name, a time or a namespace can
// be: the answer says what is wrong.
func TestEdges(t *testing.T) {
	t.Parallel()
	l := startLocal(t, "")
	l.must("POST", "sys/mounts/kv", `{"type":"kv"}`)
	l.must("POST", "sys/mounts/kv2", `{"type":"kv","options":{"version":"2"}}`)
	l.must("POST", "sys/mounts/database", `{"type":"database"}`)
	l.must("POST", "kv/a", `{"a":"b"}`)
	long, longer := strings.Repeat("n", 600), strings.Repeat("n", 1100)
	const tooLong, conf = "too long", `{"plugin_name":"postgresql-database-plugin","connection_url":"postgresql://u:p@localhost:1/x","verify_connection":false}`
	for _, c := range []struct {
		method, path, body string
		header             []string
		status             int
		want               string
	}{
		{"POST", "kv/" + longer, `{"a":"b"}`, nil, 400, "longer than"},
		{"GET", "kv/" + longer, "", nil, 404, ""},
		{"DELETE", "kv/" + longer, "", nil, 204, ""},
		{"LIST", "kv/" + longer, "", nil, 404, ""},
		{"POST", "kv2/data/" + longer, `{"data":{"a":"b"}}`, nil, 400, "longer than"},
		{"POST", "cubbyhole/" + longer, `{"a":"b"}`, nil, 400, "longer than"},
		{"POST", "sys/policies/acl/" + long, `{"policy":"path \"x\" { capabilities = [\"read\"] }"}`, nil, 400, "512"},
		{"POST", "sys/mounts/" + long, `{"type":"kv"}`, nil, 400, "512"},
		{"POST", "auth/token/roles/" + longer, `{}`, nil, 400, tooLong},
		{"POST", "database/config/" + longer, conf, nil, 400, tooLong},
		{"POST", "database/roles/" + longer, `{"db_name":"x","creation_statements":"CREATE ROLE \"{{name}}\""}`, nil, 400, ""},
		{"GET", "database/creds/" + longer, "", nil, 400, ""},
		{"POST", "sys/config/auditing/request-headers/" + longer, `{}`, nil, 400, tooLong},
		{"POST", "sys/leases/lookup", `{"lease_id":"database/creds/` + longer + `/x"}`, nil, 400, "invalid lease"},
		{"POST", "sys/leases/lookup", `{"lease_id":"ns1/database/creds/x/yyyyyyyyyyyyyyyyyyyyyyyy"}`, nil, 400, "invalid lease"},
		{"POST", "sys/leases/revoke-prefix/" + longer, "", nil, 204, ""},
		{"POST", "auth/token/create", `{"id":"` + long + `"}`, nil, 400, "longer than 256"},
		{"POST", "auth/token/create", `{"ttl":"9999999h"}`, nil, 400, "ttl"},
		{"POST", "auth/token/create", `{"ttl":1e30}`, nil, 400, "ttl"},
		{"POST", "auth/token/create", `{"ttl":"-1h"}`, nil, 400, "ttl"},
		{"POST", "auth/token/create", `{"num_uses":-1}`, nil, 400, "negative"},
		{"GET", "kv/%ff", "", nil, 400, "UTF-8"},
		{"GET", "kv/a%00b", "", nil, 400, "control character"},
		{"GET", "kv/a%2fb", "", nil, 400, "slash"},
		{"GET", "kv/../kv/a", "", nil, 400, "relative"},
		{"GET", "kv/%2e%2e/kv/a", "", nil, 400, "relative"},
		{"HEAD", "kv/a", "", nil, 200, ""},
		{"HEAD", "database/creds/x", "", nil, 405, ""},
		{"GET", "kv/a", "", []string{"X-Vault-Namespace", "root"}, 200, `"a":"b"`},
		{"GET", "kv/a", "", []string{"X-Vault-Namespace", "/"}, 200, `"a":"b"`},
		{"GET", "kv/a", "", []string{"X-Vault-Namespace", "team"}, 404, "team"},
		{"GET", "kv/a", "", []string{"X-Vault-Namespace", "../x"}, 404, "namespace"},
		{"GET", "kv/a", "", []string{"X-Vault-Wrap-TTL", "-5"}, 400, "X-Vault-Wrap-TTL"},
		{"GET", "kv/a", "", []string{"X-Vault-Wrap-TTL", "1e30"}, 400, "X-Vault-Wrap-TTL"},
		{"GET", "kv/a", "", []string{"X-Vault-Wrap-TTL", "9999999h"}, 400, "X-Vault-Wrap-TTL"},
		{"GET", "kv/a", "", []string{"X-Vault-Wrap-TTL", "800h"}, 400, "maximum"},
		{"GET", "kv/absent", "", []string{"X-Vault-Wrap-TTL", "5m"}, 404, ""},
		{"GET", "kv/a", "", []string{"X-Vault-Token", "hvs.x." + longer}, 403, "permission denied"},
		{"GET", "kv/a", "", []string{"X-Vault-Token", "hvb." + longer}, 403, "permission denied"},
		{"GET", "kv/a", "", []string{"X-Vault-Token", "hvs.é/../x.\u0080"}, 403, "permission denied"},
	} {
		status, body := l.ask(c.method, c.path, l.root, c.body, c.header...)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %.60s %.80s %.60q = %d %.200s, want %d with %q", c.method, c.path, c.body, c.header, status, body, c.status, c.want)
		}
	}
	// The token's own limits hold for its text too, and nothing of that is
	// the server's fault in its log.
	id := strings.Repeat("i", 256)
	l.must("POST", "auth/token/create", `{"id":"`+id+`","policies":["default"]}`)
	if status, body := l.ask("GET", "auth/token/lookup-self", id, ""); status != 200 {
		t.Errorf("lookup-self with the longest id = %d %s", status, body)
	}
}
