package server_test

import (
	"strings"
	"testing"
)

// TestDeepTexts: the body's depth is bounded, and so is that of the texts in
// it that have a language of their own.
func TestDeepTexts(t *testing.T) {
	t.Parallel()
	l := startLocal(t, "")
	l.must("POST", "sys/mounts/kv2", `{"type":"kv","options":{"version":"2"}}`)
	l.must("POST", "sys/mounts/database", `{"type":"database"}`)
	const n = 1 << 20
	deep := func(open string) string { return strings.Repeat(open, n) }
	for _, c := range []struct{ method, path, field, text string }{
		{"POST", "sys/policies/acl/x", "policy", deep("[")},
		{"POST", "sys/policies/acl/x", "policy", deep("{")},
		{"POST", "sys/policies/acl/x", "policy", `path "x" { allowed_parameters = { a = ` + deep("[")},
		{"POST", "sys/policies/acl/x", "policy", `path "x" { allowed_parameters = { a = ` + deep("(")},
		{"POST", "sys/policies/acl/x", "policy", `{"path":` + deep(`{"a":`)},
		{"POST", "sys/policies/acl/x", "policy", `path "` + deep("{{") + `" {}`},
		{"POST", "sys/policies/acl/x", "policy", `path "` + deep("+/") + `*" { capabilities = ["read"] }`},
		{"POST", "sys/policies/acl/x", "policy", deep("path ")},
		{"POST", "sys/policies/password/x", "policy", deep("rule {")},
		{"POST", "sys/policies/password/x", "policy", `rule "charset" { charset = ` + deep("[")},
		{"POST", "database/roles/x", "creation_statements", deep("[")},
		{"POST", "database/roles/x", "creation_statements", deep("$$(")},
		{"POST", "database/roles/x", "creation_statements", deep("/*")},
		{"POST", "database/config/x", "username_template", deep("{{")},
		{"POST", "database/config/x", "username_template", "{{" + deep("(") + "}}"},
		{"POST", "database/config/x", "username_template", deep("{{if true}}")},
		{"POST", "auth/token/create", "meta", deep("[")},
		{"POST", "auth/token/create", "policies", deep("[")},
		{"POST", "kv2/metadata/x", "custom_metadata", deep("{")},
	} {
		body := object(map[string]any{
			c.field: c.text, "db_name": "x", "plugin_name": "postgresql-database-plugin", "connection_url": "postgresql://u:p@localhost:1/x", "verify_connection": false,
		})
		if status, text := l.ask(c.method, c.path, l.root, body); status < 400 || status >= 500 {
			t.Errorf("%s with %s = %.40q… = %d %.200s, want a refusal", c.path, c.field, c.text, status, text)
		}
	}
	if status, _ := l.ask("GET", "sys/health", "", ""); status != 200 {
		t.Errorf("afterwards sys/health = %d", status)
	}
}
