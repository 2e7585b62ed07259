package policy_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/wire"
)

func set(t testing.TB, texts ...string) *policy.Set {
	t.Helper()
	var all []*policy.Policy
	for i, text := range texts {
		p, err := policy.Parse(fmt.Sprint("p", i), text)
		if err != nil {
			t.Fatalf("Parse(%s): %v", text, err)
		}
		all = append(all, p)
	}
	return policy.NewSet(all...)
}

func body(t testing.TB, text string) wire.Object {
	t.Helper()
	o, err := wire.ParseObject([]byte(text))
	if err != nil {
		t.Fatalf("ParseObject(%s): %v", text, err)
	}
	return o
}

func TestJoinedPolicies(t *testing.T) {
	const read, update, deny = `path "a" { capabilities = ["read"] }`, `path "a" { capabilities = ["update"] }`, `path "a" { capabilities = ["deny"] }`
	for _, c := range []struct {
		texts []string
		want  []string
	}{
		{[]string{read, update}, []string{"read", "update"}},
		{[]string{read, deny}, []string{"deny"}},
		{[]string{deny, update, read}, []string{"deny"}},
		{nil, []string{"deny"}},
	} {
		if got := set(t, c.texts...).Capabilities("a"); !slices.Equal(got, c.want) {
			t.Errorf("Capabilities of %q = %v, want %v", c.texts, got, c.want)
		}
	}
	if got, want := policy.NewSet(nil, nil).Capabilities("a"), []string{"deny"}; !slices.Equal(got, want) {
		t.Errorf("Capabilities of deleted policies = %v, want %v", got, want)
	}
	if got, want := policy.RootSet().Capabilities("a"), []string{"root"}; !slices.Equal(got, want) {
		t.Errorf("Capabilities of root = %v, want %v", got, want)
	}
	if d := policy.RootSet().Allow("a", wire.OpDelete); !d.Allowed || !d.Sudo() || !d.Root() || !d.AllowsWrap(0) || d.NeedsParams() {
		t.Errorf("root's Decision = %+v, want everything allowed", d)
	}
	if d := set(t, `path "a" { capabilities = ["read", "sudo"] }`).Allow("a", wire.OpRead); !d.Allowed || !d.Sudo() || d.Root() {
		t.Errorf("Decision with sudo = %+v", d)
	}
	if d := set(t, `path "a" { capabilities = ["sudo", "deny"] }`).Allow("a", wire.OpRead); d.Sudo() {
		t.Errorf("Decision with sudo and deny = %+v, want no sudo", d)
	}
}

func TestDefaultPolicy(t *testing.T) {
	s := set(t, policy.DefaultText)
	for _, c := range []struct {
		path string
		want string
	}{
		{"auth/token/lookup-self", "read"}, {"auth/token/renew-self", "update"}, {"auth/token/revoke-self", "update"},
		{"sys/capabilities-self", "update"}, {"sys/internal/ui/resultant-acl", "read"},
		{"sys/leases/lookup", "update"}, {"sys/leases/renew", "update"}, {"sys/renew", "update"},
		{"cubbyhole/x/y", "create delete list read update"},
		{"sys/wrapping/wrap", "update"}, {"sys/wrapping/lookup", "update"}, {"sys/wrapping/unwrap", "update"},
		{"sys/tools/hash", "update"}, {"sys/tools/hash/sha2-256", "update"}, {"sys/tools/random", "update"}, {"sys/tools/random/8", "update"},
		{"sys/control-group/request", "update"}, {"identity/oidc/provider/p/authorize", "read update"},
		{"identity/entity/id/e-1", "deny"}, {"secret/data/x", "deny"}, {"sys/policies/acl/default", "deny"}, {"auth/token/create", "deny"},
	} {
		if got := strings.Join(s.Capabilities(c.path), " "); got != c.want {
			t.Errorf("Capabilities(%q) = %q, want %q", c.path, got, c.want)
		}
	}
	bound := s.Bind(entity{{Field: policy.ID}: "e-1", {Field: policy.Name}: "zoe"})
	for path, want := range map[string]string{"identity/entity/id/e-1": "read", "identity/entity/name/zoe": "read", "identity/entity/id/e-2": "deny"} {
		if got := strings.Join(bound.Capabilities(path), " "); got != want {
			t.Errorf("of zoe: Capabilities(%q) = %q, want %q", path, got, want)
		}
	}
}

func TestResultantACL(t *testing.T) {
	s := set(t, `
path "a"      { capabilities = ["read", "create"] allowed_parameters = { "k" = ["x", 1] } required_parameters = ["k"] min_wrapping_ttl = "1m" }
path "b/*"    { capabilities = ["deny"] }
path "c/+/*"  { capabilities = ["list"] max_wrapping_ttl = 90 }
path "c/+/"   { capabilities = ["update"] denied_parameters = { "d" = [] } }
path "e/{{identity.entity.id}}" { capabilities = ["read"] }
path "e/zoe"  { capabilities = ["list"] }`)
	got, err := json.Marshal(s.Bind(entity{{Field: policy.ID}: "zoe"}).ResultantACL())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"root":false,"exact_paths":{` +
		`"a":{"capabilities":["create","read"],"min_wrapping_ttl":60,"allowed_parameters":{"k":["x",1]},"required_parameters":["k"]},` +
		`"e/zoe":{"capabilities":["list","read"]}},` +
		`"glob_paths":{"b/":{"capabilities":["deny"]},"c/+/":{"capabilities":["update"],"denied_parameters":{"d":[]}},` +
		`"c/+/*":{"capabilities":["list"],"max_wrapping_ttl":90}}}`
	if string(got) != want {
		t.Errorf("ResultantACL = %s\nwant %s", got, want)
	}
	if got, _ := json.Marshal(policy.RootSet().ResultantACL()); string(got) != `{"root":true,"exact_paths":{},"glob_paths":{}}` {
		t.Errorf("ResultantACL of root = %s", got)
	}
	if got, _ := json.Marshal(policy.NewSet().ResultantACL()); string(got) != `{"root":false,"exact_paths":{},"glob_paths":{}}` {
		t.Errorf("ResultantACL of nothing = %s", got)
	}
}
