package policy_test

import (
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/policy"
)

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"capability", `path "a" { capabilities = ["fly"] }`, `At 1:28: path "a": invalid capability "fly"`},
		{"root is no capability", `path "a" { capabilities = ["root"] }`, `invalid capability "root"`},
		{"key", "path \"a\" {\n  capabilites = [\"read\"]\n}", `At 2:3: path "a": invalid key "capabilites"`},
		{"key at the top", `paths "a" {}`, `At 1:1: invalid key "paths"`},
		{"policy", `path "a" { policy = "all" }`, `invalid policy "all"`},
		{"no HCL", `this is { not hcl`, `failed to parse policy: At 1:19: key 'not hcl' expected`},
		{"a number", `5`, `failed to parse policy: At 1:1:`},
		{"key twice", "path \"a\" {\n capabilities = [\"read\"]\n capabilities = [\"deny\"]\n}", `already set`},
		{"block twice", `path "a" { allowed_parameters {} allowed_parameters {} }`, `key "allowed_parameters" was already set at 1:12`},
		{"path twice in JSON", `{"path":{"a":{"policy":"deny"},"a":{"policy":"read"}}}`, `key "a" was already set`},
		{"name twice in JSON", `{"path":{"a":{"allowed_parameters":{"x":[1],"x":[2]}}}}`, `key "x" was already set`},
		{"plus and glob", `path "a/+*" { policy = "read" }`, `'+*' is forbidden`},
		{"bounds crossed", `path "a" { policy = "read" min_wrapping_ttl = "2h" max_wrapping_ttl = "1h" }`, `max_wrapping_ttl cannot be less`},
		{"bad duration", `path "a" { policy = "read" min_wrapping_ttl = "soon" }`, `not a duration`},
		{"duration of another kind", `path "a" { policy = "read" min_wrapping_ttl = [1] }`, `expected a duration`},
		{"path without a block", `path "a" = "read"`, ``},
		{"path without a label", `path { capabilities = ["read"] }`, `expected a block`},
		{"two labels", `path "a" "b" { capabilities = ["read"] }`, `invalid key "b"`},
		{"capabilities of another kind", `path "a" { capabilities = [1] }`, `expected a string, got a number`},
		{"open template", `path "a/{{identity.entity.id" { policy = "read" }`, `unbalanced`},
		{"stray template end", `path "a/id}}" { policy = "read" }`, `unbalanced`},
		{"unknown template", `path "a/{{identity.entty.id}}" { policy = "read" }`, `unknown template {{identity.entty.id}}`},
		{"template of an alias without a field", `path "a/{{identity.entity.aliases.acc}}" { policy = "read" }`, `unknown template`},
		{"control character", `path "a\nb" { policy = "read" }`, `control character`},
		{"what we could not enforce", `path "a" { policy = "read" control_group = { ttl = "1h" } }`, `control_group is not supported`},
		{"nesting bomb", strings.Repeat("a={", 1<<20/3), `at most`},
		{"smaller nesting bomb", strings.Repeat("a={", 80_000), `nested deeper`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := policy.Parse("p", c.text)
			if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Parse = %v, want errs.Invalid with %q", err, c.want)
			}
		})
	}
}

func TestParseAccepts(t *testing.T) {
	for _, text := range []string{
		"", "# only a comment", `name = "dev"`, `path "a" {}`, `path "a" { comment = "why" policy = "read" }`,
		`path "a" { capabilities = ["scan", "recover", "subscribe"] subscribe_event_types = ["kv*"] }`,
		`{}`, `{"name":"x","path":{}}`, `path "" { policy = "read" }`, `path "*" { capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"] }`,
		policy.DefaultText, policy.ResponseWrappingText,
	} {
		if _, err := policy.Parse("p", text); err != nil {
			t.Errorf("Parse(%q): %v", text, err)
		}
	}
}

func TestNames(t *testing.T) {
	if got, want := policy.CleanName(" T-Mixed "), "t-mixed"; got != want {
		t.Errorf("CleanName = %q, want %q", got, want)
	}
	for _, c := range []struct {
		name                      string
		write, remove, assignable bool
	}{
		{"mine", true, true, true}, {"default", true, false, true}, {"root", false, false, true},
		{"response-wrapping", false, false, false}, {"control-group", false, false, false},
	} {
		if got := policy.CheckWrite(c.name) == nil; got != c.write {
			t.Errorf("CheckWrite(%q) == nil is %v, want %v", c.name, got, c.write)
		}
		if got := policy.CheckDelete(c.name) == nil; got != c.remove {
			t.Errorf("CheckDelete(%q) == nil is %v, want %v", c.name, got, c.remove)
		}
		if got := policy.Assignable(c.name); got != c.assignable {
			t.Errorf("Assignable(%q) = %v, want %v", c.name, got, c.assignable)
		}
	}
}
