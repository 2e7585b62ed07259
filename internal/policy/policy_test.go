package policy_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
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

func TestAllow(t *testing.T) {
	const glob = `
path "kv/dir/*"   { capabilities = ["read", "list", "create"] }
path "kv/dir/two" { capabilities = ["deny"] }
path "kv/dir/"    { capabilities = ["list"] }
path "kv/a*"      { capabilities = ["read"] }`
	for _, c := range []struct {
		name, text, path string
		op               wire.Op
		want             bool
	}{
		{"exact", `path "kv/a" { capabilities = ["read"] }`, "kv/a", wire.OpRead, true},
		{"exact is not a prefix", `path "kv/a" { capabilities = ["read"] }`, "kv/ab", wire.OpRead, false},
		{"another operation", `path "kv/a" { capabilities = ["read"] }`, "kv/a", wire.OpUpdate, false},
		{"leading slash", `path "/kv/a" { capabilities = ["read"] }`, "kv/a", wire.OpRead, true},
		{"nothing at all", ``, "kv/a", wire.OpRead, false},
		{"help is always given", ``, "kv/a", wire.OpHelp, true},
		{"no operation", `path "*" { capabilities = ["read", "update"] }`, "kv/a", wire.OpNone, false},
		{"renewing is an update", `path "*" { capabilities = ["update"] }`, "sys/renew", wire.OpRenew, true},
		{"glob", glob, "kv/dir/one", wire.OpRead, true},
		{"glob matches deeper", glob, "kv/dir/x/y", wire.OpRead, true},
		{"glob matches its own prefix", glob, "kv/a", wire.OpRead, true},
		{"denial inside a glob", glob, "kv/dir/two", wire.OpRead, false},
		{"exact list", glob, "kv/dir/", wire.OpList, true},
		{"exact wins over glob", glob, "kv/dir/", wire.OpRead, false},
		{"create without update", glob, "kv/dir/new", wire.OpUpdate, false},
		{"create", glob, "kv/dir/new", wire.OpCreate, true},
		{"list with the slash left out of the rule", `path "kv/dir" { capabilities = ["list"] }`, "kv/dir/", wire.OpList, true},
		{"read with the slash left out of the rule", `path "kv/dir" { capabilities = ["read"] }`, "kv/dir/", wire.OpRead, false},
		{"segment", `path "t/+/conf" { capabilities = ["read"] }`, "t/red/conf", wire.OpRead, true},
		{"segment is one segment", `path "t/+/conf" { capabilities = ["read"] }`, "t/red/x/conf", wire.OpRead, false},
		{"segment with another end", `path "t/+/conf" { capabilities = ["read"] }`, "t/red/other", wire.OpRead, false},
		{"segment and glob", `path "t/+/deep/*" { capabilities = ["read"] }`, "t/dir/deep/x", wire.OpRead, true},
		{"last segment, for a list", `path "t/+" { capabilities = ["list"] }`, "t/red/", wire.OpList, true},
		{"an asterisk elsewhere is a character", `path "t/*/x" { capabilities = ["read"] }`, "t/a/x", wire.OpRead, false},
		{"a plus within a segment is a character", `path "t/a+" { capabilities = ["read"] }`, "t/ab", wire.OpRead, false},
		{"shorthand write", `path "d" { policy = "write" }`, "d", wire.OpDelete, true},
		{"shorthand write has no patch", `path "d" { policy = "write" }`, "d", wire.OpPatch, false},
		{"shorthand read", `path "d" { policy = "read" }`, "d", wire.OpList, true},
		{"shorthand deny", `path "d" { policy = "deny" capabilities = ["read"] }`, "d", wire.OpRead, false},
		{"shorthand and capabilities add up", `path "d" { policy = "read" capabilities = ["patch"] }`, "d", wire.OpPatch, true},
		{"deny among others", `path "d" { capabilities = ["read", "deny"] }`, "d", wire.OpRead, false},
		{"patch is its own", `path "d" { capabilities = ["patch"] }`, "d", wire.OpUpdate, false},
		{"one capability without a list", `path "d" { capabilities = "read" }`, "d", wire.OpRead, true},
		{"the same stanza twice", `path "d" { capabilities = ["read"] } path "d" { capabilities = ["list"] }`, "d", wire.OpRead, true},
		{"JSON", `{"path":{"c/*":{"capabilities":["list"]}}}`, "c/d/", wire.OpList, true},
		{"JSON list of paths", `{"path":[{"c":{"policy":"read"}},{"d":{"policy":"read"}}]}`, "d", wire.OpRead, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := set(t, c.text).Allow(c.path, c.op).Allowed; got != c.want {
				t.Errorf("Allow(%q, %v).Allowed = %v, want %v", c.path, c.op, got, c.want)
			}
		})
	}
}

// The examples of Vault's documentation of priorities, and ties around them:
// of each pair the second wins on the path.
func TestPriority(t *testing.T) {
	for _, c := range [][3]string{
		{"secret/*", "secret/foo*", "secret/foobar"},
		{"secret/+/+/foo/*", "secret/*", "other/x"}, // neither
		{"foo/+", "foo/bar*", "foo/bar"},
		{"foo/*", "foo/+", "foo/bar"},
		{"foo/+/*", "foo/+/bar", "foo/x/bar"},
		{"foo/+/+/baz", "foo/+/bar/baz", "foo/x/bar/baz"},
		{"foo/+/b*", "foo/+/ba*", "foo/x/bar"},
		{"+/bar", "foo/+", "foo/bar"},
		{"foo*", "foo/bar", "foo/bar"},
		{"foo/+/+/a", "foo/+/b/+", "foo/x/b/a"},
	} {
		lower, upper, path := c[0], c[1], c[2]
		s := set(t, fmt.Sprintf("path %q { capabilities = [\"read\"] }\npath %q { capabilities = [\"update\"] }", lower, upper))
		want := []string{"update"}
		if strings.HasPrefix(path, "other") {
			want = []string{"deny"}
		}
		if got := s.Capabilities(path); !slices.Equal(got, want) {
			t.Errorf("with %q and %q: Capabilities(%q) = %v, want %v", lower, upper, path, got, want)
		}
	}
}

func TestListLooksWithoutTheSlashFirst(t *testing.T) {
	s := set(t, `path "kv/*" { capabilities = ["list"] } path "kv/foo/*" { capabilities = ["read"] }`)
	if !s.Allow("kv/foo/", wire.OpList).Allowed {
		t.Error("the list that Vault allows is refused")
	}
	s = set(t, `path "kv/*" { capabilities = ["list"] } path "kv/foo/*" { capabilities = ["deny"] }`)
	if s.Allow("kv/foo/", wire.OpList).Allowed {
		t.Error("a list is allowed in a directory that is denied")
	}
}

// TestNobodyGetsOutOfARuleByASlash: to many endpoints a path with a slash at its
// end is the one without.
func TestNobodyGetsOutOfARuleByASlash(t *testing.T) {
	const all = `path "m/*" { capabilities = ["read", "update", "delete", "list", "sudo"] }`
	for _, c := range []struct {
		name, text, path string
		op               wire.Op
		want             bool
	}{
		{"a denial of the exact path", all + `path "m/x" { capabilities = ["deny"] }`, "m/x/", wire.OpDelete, false},
		{"a narrower rule for the exact path", all + `path "m/x" { capabilities = ["read"] }`, "m/x/", wire.OpDelete, false},
		{"what the narrower rule has", all + `path "m/x" { capabilities = ["read"] }`, "m/x/", wire.OpRead, true},
		{"a denial with wildcards", all + `path "m/+" { capabilities = ["deny"] } path "m/x/*" { capabilities = ["delete"] }`, "m/x/", wire.OpDelete, false},
		{"another path's denial", all + `path "m/y" { capabilities = ["deny"] }`, "m/x/", wire.OpDelete, true},
		{"no rule for the path without it", `path "m/x/*" { capabilities = ["delete"] }`, "m/x/", wire.OpDelete, true},
		{"a wider rule for the exact path gives nothing", `path "m/*" { capabilities = ["read"] } path "m/x" { capabilities = ["delete"] }`, "m/x/", wire.OpDelete, false},
		{"nor alone", `path "m/x" { capabilities = ["delete"] }`, "m/x/", wire.OpDelete, false},
		{"a rule that names the slash", all + `path "m/x" { capabilities = ["deny"] } path "m/x/" { capabilities = ["delete"] }`, "m/x/", wire.OpDelete, true},
		{"a LIST goes by its own order", all + `path "m/x" { capabilities = ["list"] }`, "m/x/", wire.OpList, true},
		{"a template's denial", all + `path "m/{{identity.entity.name}}" { capabilities = ["deny"] }`, "m/zoe/", wire.OpDelete, false},
	} {
		s := set(t, c.text).Bind(entity{{Field: policy.Name}: "zoe"})
		d := s.Allow(c.path, c.op)
		if d.Allowed != c.want {
			t.Errorf("%s: Allow(%q, %v).Allowed = %v, want %v", c.name, c.path, c.op, d.Allowed, c.want)
		}
		if got := slices.Contains(s.Capabilities(c.path), c.op.String()); got != c.want {
			t.Errorf("%s: Capabilities(%q) = %v, which of %v is %v, want %v", c.name, c.path, s.Capabilities(c.path), c.op, got, c.want)
		}
	}

	s := set(t, all+`path "m/x" { capabilities = ["read"] denied_parameters = { "v" = ["1"] } min_wrapping_ttl = "1m" max_wrapping_ttl = "2m" }`)
	d := s.Allow("m/x/", wire.OpRead)
	if !d.Allowed || d.Sudo() || d.AllowsWrap(0) || d.AllowsWrap(time.Hour) || !d.AllowsWrap(time.Minute) || !d.NeedsParams() ||
		d.CheckParams(body(t, `{"v":1}`).All()) || !d.CheckParams(body(t, `{"v":2}`).All()) {
		t.Errorf("Decision by two rules = %+v, want the conditions of both", d)
	}
	s = set(t, `path "m/x" { capabilities = ["read"] } path "m/*" { capabilities = ["read"] required_parameters = ["v"] }`)
	if d := s.Allow("m/x/", wire.OpRead); !d.NeedsParams() || d.CheckParams(body(t, `{}`).All()) || !d.CheckParams(body(t, `{"v":2}`).All()) {
		t.Errorf("Decision by two rules = %+v, want the parameters of the rule with wildcards", d)
	}
}

// TestNobodyGetsOutOfARuleByCapitals: to some endpoints Alice is alice, however
// the rule or the request has it.
func TestNobodyGetsOutOfARuleByCapitals(t *testing.T) {
	const all = `path "u/*" { capabilities = ["read", "update", "delete"] }`
	for _, c := range []struct {
		name, text, user string
		op               wire.Op
		want             bool
	}{
		{"a denial in small letters", all + `path "u/alice" { capabilities = ["deny"] }`, "Alice", wire.OpRead, false},
		{"a denial in capitals", all + `path "u/ALICE" { capabilities = ["deny"] }`, "alice", wire.OpRead, false},
		{"a denial in other capitals", all + `path "u/ALICE" { capabilities = ["deny"] }`, "Alice", wire.OpRead, false},
		{"a narrower rule", all + `path "u/Alice" { capabilities = ["read"] }`, "aLICE", wire.OpDelete, false},
		{"what the narrower rule has", all + `path "u/Alice" { capabilities = ["read"] }`, "aLICE", wire.OpRead, true},
		{"a denial with wildcards", all + `path "u/Al*" { capabilities = ["deny"] }`, "alice", wire.OpRead, false},
		{"another's denial", all + `path "u/Bob" { capabilities = ["deny"] }`, "Alice", wire.OpRead, true},
		{"a rule gives nothing to other spellings", `path "u/Alice" { capabilities = ["read"] }`, "alice", wire.OpRead, false},
		{"the rule as it is written", `path "u/Alice" { capabilities = ["read"] }`, "Alice", wire.OpRead, true},
		{"two spellings in the rules", `path "u/Alice" { capabilities = ["read"] } path "u/alice" { capabilities = ["update"] }`, "Alice", wire.OpRead, true},
		{"a denial among them", `path "u/Alice" { capabilities = ["read"] } path "u/alice" { capabilities = ["deny"] }`, "Alice", wire.OpRead, false},
		{"another mount's denial", all + `path "U/alice" { capabilities = ["deny"] }`, "Alice", wire.OpRead, true},
		{"any mount's denial", all + `path "+/Alice" { capabilities = ["deny"] } path "u/+" { capabilities = ["deny"] }`, "alice", wire.OpRead, false},
		{"a template's denial", all + `path "u/{{identity.entity.name}}" { capabilities = ["deny"] }`, "zOE", wire.OpRead, false},
		{"a template's value", `path "u/{{identity.entity.name}}" { capabilities = ["read"] }`, "Zoe", wire.OpRead, true},
	} {
		s := set(t, c.text).Bind(entity{{Field: policy.Name}: "Zoe"})
		path, as := "u/"+c.user, policy.As{Path: "u/" + strings.ToLower(c.user), From: 2}
		if d := s.AllowAs(path, as, c.op); d.Allowed != c.want {
			t.Errorf("%s: AllowAs(%q, %v).Allowed = %v, want %v", c.name, path, c.op, d.Allowed, c.want)
		}
		if got := slices.Contains(s.CapabilitiesAs(path, as), c.op.String()); got != c.want {
			t.Errorf("%s: %v is in CapabilitiesAs(%q) is %v, want %v", c.name, c.op, path, got, c.want)
		}
	}
	as := policy.As{Path: "u/alice", From: 2}
	s := set(t, all+`path "u/alice" { capabilities = ["update"] denied_parameters = { "v" = [] } max_wrapping_ttl = "1m" }`)
	if d := s.AllowAs("u/Alice", as, wire.OpUpdate); !d.Allowed || d.AllowsWrap(0) || !d.NeedsParams() || d.CheckParams(body(t, `{"v":1}`).All()) {
		t.Errorf("Decision on another spelling = %+v, want the conditions of the rule", d)
	}
	if d := policy.RootSet().AllowAs("u/Alice", as, wire.OpUpdate); !d.Allowed || !d.Root() {
		t.Errorf("root's Decision = %+v", d)
	}
	if d := policy.NewSet().AllowAs("u/Alice", as, wire.OpHelp); !d.Allowed {
		t.Errorf("Decision on help = %+v", d)
	}
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

func TestParameters(t *testing.T) {
	const par = `path "p" {
  capabilities        = ["create", "update", "read", "delete"]
  required_parameters = ["owner"]
  allowed_parameters  = { "owner" = ["ann", "b*"], "note" = [] }
  denied_parameters   = { "secret" = [] }
}`
	const values = `path "p" {
  capabilities = ["update"]
  allowed_parameters = {
    "n" = [5, 1.5], "s" = ["5", "*end", "*mid*", "*"], "b" = [true], "list" = [["a", "b"]], "obj" = [{ "x" = 1 }]
  }
}`
	for _, c := range []struct {
		name, text, body string
		op               wire.Op
		want             bool
	}{
		{"required and allowed", par, `{"owner":"ann"}`, wire.OpUpdate, true},
		{"glob and any value", par, `{"owner":"bobby","note":{"x":[1]}}`, wire.OpCreate, true},
		{"required is missing", par, `{"note":"hi"}`, wire.OpUpdate, false},
		{"required is missing and nothing sent", par, ``, wire.OpUpdate, false},
		{"required counts for reading", par, ``, wire.OpRead, false},
		{"not for deleting", par, ``, wire.OpDelete, true},
		{"required in other letters does not count", par, `{"Owner":"ann"}`, wire.OpUpdate, false},
		{"value that is not allowed", par, `{"owner":"eve"}`, wire.OpUpdate, false},
		{"name that is not allowed", par, `{"owner":"ann","x":1}`, wire.OpUpdate, false},
		{"denied", par, `{"owner":"ann","secret":"x"}`, wire.OpUpdate, false},
		{"denied in other letters", par, `{"owner":"ann","SECRET":"x"}`, wire.OpUpdate, false},
		{"a duplicate is judged too", par, `{"owner":"eve","owner":"ann"}`, wire.OpUpdate, true}, // the decoder keeps the last

		{"denied value", `path "p" { policy = "write" denied_parameters = { "k" = ["bad", "x*"] } }`, `{"k":"bad"}`, wire.OpUpdate, false},
		{"denied glob", `path "p" { policy = "write" denied_parameters = { "k" = ["bad", "x*"] } }`, `{"k":"xyz"}`, wire.OpUpdate, false},
		{"other value", `path "p" { policy = "write" denied_parameters = { "k" = ["bad", "x*"] } }`, `{"k":"good"}`, wire.OpUpdate, true},
		{"denied lone asterisk", `path "p" { policy = "write" denied_parameters = { "k" = ["*"] } }`, `{"k":"good"}`, wire.OpUpdate, false},
		{"all denied", `path "p" { policy = "write" denied_parameters = { "*" = [] } }`, `{"k":1}`, wire.OpUpdate, false},
		{"all denied and nothing sent", `path "p" { policy = "write" denied_parameters = { "*" = [] } }`, `{}`, wire.OpUpdate, true},
		{"denied number by text", `path "p" { policy = "write" denied_parameters = { "k" = ["5"] } }`, `{"k":5}`, wire.OpUpdate, false},
		{"denied text by number", `path "p" { policy = "write" denied_parameters = { "k" = [5] } }`, `{"k":"5"}`, wire.OpUpdate, false},
		{"denied number written otherwise", `path "p" { policy = "write" denied_parameters = { "k" = [5] } }`, `{"k":0.5e1}`, wire.OpUpdate, false},

		{"any other name", `path "p" { policy = "write" allowed_parameters = { "*" = [], "kind" = ["x"] } }`, `{"kind":"x","z":1}`, wire.OpUpdate, true},
		{"any other name, bad value", `path "p" { policy = "write" allowed_parameters = { "*" = [], "kind" = ["x"] } }`, `{"kind":"y"}`, wire.OpUpdate, false},
		{"names are folded", `path "p" { policy = "write" allowed_parameters = { "Kind" = ["x"] } }`, `{"kind":"x"}`, wire.OpUpdate, true},
		{"single value without a list", `path "p" { policy = "write" allowed_parameters = { "kind" = "x" } }`, `{"kind":"x"}`, wire.OpUpdate, true},
		{"as a block", `path "p" { policy = "write" allowed_parameters { "kind" = ["x"] } }`, `{"kind":"y"}`, wire.OpUpdate, false},

		{"number", values, `{"n":5.0}`, wire.OpUpdate, true},
		{"float", values, `{"n":15e-1}`, wire.OpUpdate, true},
		{"other number", values, `{"n":6}`, wire.OpUpdate, false},
		{"suffix", values, `{"s":"the end"}`, wire.OpUpdate, true},
		{"within", values, `{"s":"a mid b"}`, wire.OpUpdate, true},
		{"lone asterisk is itself", values, `{"s":"*"}`, wire.OpUpdate, true},
		{"and no glob", values, `{"s":"zzz"}`, wire.OpUpdate, false},
		{"boolean", values, `{"b":true}`, wire.OpUpdate, true},
		{"boolean as a string", values, `{"b":"true"}`, wire.OpUpdate, true},
		{"other boolean", values, `{"b":false}`, wire.OpUpdate, false},
		{"null", values, `{"b":null}`, wire.OpUpdate, false},
		{"list", values, `{"list":["a", "b"]}`, wire.OpUpdate, true},
		{"list in another order", values, `{"list":["b","a"]}`, wire.OpUpdate, false},
		{"object", values, `{"obj":{"x":1.0}}`, wire.OpUpdate, true},
		{"JSON null", `{"path":{"p":{"policy":"write","allowed_parameters":{"k":[null]}}}}`, `{"k":null}`, wire.OpUpdate, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := set(t, c.text).Allow("p", c.op)
			if got := d.CheckParams(body(t, c.body).All()); got != c.want {
				t.Errorf("CheckParams(%s) = %v, want %v", c.body, got, c.want)
			}
			if d.Allowed && !d.NeedsParams() && c.op != wire.OpDelete {
				t.Error("NeedsParams() = false for a rule with constraints")
			}
		})
	}
}

func TestJoinedParameters(t *testing.T) {
	a := `path "p" { policy = "write" allowed_parameters = { "k" = ["x"], "any" = ["1"] } denied_parameters = { "d" = ["1"] } required_parameters = ["k"] }`
	b := `path "p" { policy = "write" allowed_parameters = { "k" = ["y"], "any" = [], "d" = [] } denied_parameters = { "d" = ["2"] } required_parameters = ["any"] }`
	free := `path "p" { policy = "write" }`
	for _, texts := range [][]string{{a, b}, {b, a}, {free, a, b}, {b, free, a}} {
		d := set(t, texts...).Allow("p", wire.OpUpdate)
		for _, c := range []struct {
			body string
			want bool
		}{
			{`{"k":"x","any":"z"}`, true}, {`{"k":"y","any":"1"}`, true}, {`{"k":"z","any":"1"}`, false},
			{`{"k":"x"}`, false}, {`{"any":"1"}`, false}, {`{"k":"x","any":1,"d":1}`, false},
			{`{"k":"x","any":1,"d":2}`, false}, {`{"k":"x","any":1,"d":3}`, true}, {`{"k":"x","any":1,"e":3}`, false},
		} {
			if got := d.CheckParams(body(t, c.body).All()); got != c.want {
				t.Errorf("CheckParams(%s) = %v, want %v", c.body, got, c.want)
			}
		}
	}
}

func TestWrapping(t *testing.T) {
	const both = `path "p" { policy = "write" min_wrapping_ttl = 60 max_wrapping_ttl = "2m" }`
	for _, c := range []struct {
		texts []string
		ttl   time.Duration
		want  bool
	}{
		{[]string{`path "p" { policy = "write" }`}, 0, true},
		{[]string{`path "p" { policy = "write" }`}, time.Hour, true},
		{[]string{both}, 0, false},
		{[]string{both}, 59 * time.Second, false},
		{[]string{both}, 60 * time.Second, true},
		{[]string{both}, 2 * time.Minute, true},
		{[]string{both}, 121 * time.Second, false},
		{[]string{`path "p" { policy = "write" min_wrapping_ttl = "1s" }`}, 0, false},
		{[]string{`path "p" { policy = "write" max_wrapping_ttl = "1s" }`}, 0, false},
		{[]string{both, `path "p" { policy = "write" min_wrapping_ttl = "30s" }`}, 30 * time.Second, true},
		{[]string{both, `path "p" { policy = "write" max_wrapping_ttl = "61s" }`}, 62 * time.Second, false},
		// What is left when the lesser bounds cross lets nothing through.
		{[]string{both, `path "p" { policy = "write" max_wrapping_ttl = "5s" }`}, 5 * time.Second, false},
		{[]string{both, `path "p" { policy = "write" max_wrapping_ttl = "5s" }`}, 60 * time.Second, false},
	} {
		if got := set(t, c.texts...).Allow("p", wire.OpUpdate).AllowsWrap(c.ttl); got != c.want {
			t.Errorf("%q: AllowsWrap(%v) = %v, want %v", c.texts, c.ttl, got, c.want)
		}
	}
}

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

func TestTemplates(t *testing.T) {
	zoe := entity{
		{Field: policy.ID}:                                                       "e-1",
		{Field: policy.Name}:                                                     "zoe",
		{Field: policy.Metadata, Meta: "team"}:                                   "core",
		{Field: policy.Metadata, Meta: "star"}:                                   "*",
		{Field: policy.Metadata, Meta: "plus"}:                                   "+",
		{Field: policy.Metadata, Meta: "dirs"}:                                   "a/b",
		{Field: policy.Metadata, Meta: "empty"}:                                  "",
		{Field: policy.Metadata, Meta: "with.dot"}:                               "dotted",
		{Of: policy.Alias, Key: "up_1", Field: policy.Name}:                      "zoe@up",
		{Of: policy.Alias, Key: "up_1", Field: policy.CustomMetadata, Meta: "c"}: "custom",
		{Of: policy.GroupByID, Key: "g-1", Field: policy.Name}:                   "admins",
		{Of: policy.GroupByName, Key: "admins", Field: policy.ID}:                "g-1",
	}
	for _, c := range []struct {
		rule, path string
		opts       policy.TemplateOptions
		want       bool
	}{
		{"ent/{{identity.entity.id}}", "ent/e-1", policy.TemplateOptions{}, true},
		{"ent/{{identity.entity.id}}", "ent/e-2", policy.TemplateOptions{}, false},
		{"ent/{{ identity.entity.name }}/*", "ent/zoe/x", policy.TemplateOptions{}, true},
		{"m/{{identity.entity.metadata.team}}", "m/core", policy.TemplateOptions{}, true},
		{"m/{{identity.entity.metadata.with.dot}}", "m/dotted", policy.TemplateOptions{}, true},
		{"m/{{identity.entity.metadata.none}}", "m/", policy.TemplateOptions{}, false},
		{"m/{{identity.entity.metadata.empty}}*", "m/core", policy.TemplateOptions{}, false},
		{"home/{{identity.entity.aliases.up_1.name}}/*", "home/zoe@up/x", policy.TemplateOptions{}, true},
		{"home/{{identity.entity.aliases.up_2.name}}/*", "home/zoe@up/x", policy.TemplateOptions{}, false},
		{"c/{{identity.entity.aliases.up_1.custom_metadata.c}}", "c/custom", policy.TemplateOptions{}, true},
		{"g/{{identity.groups.ids.g-1.name}}", "g/admins", policy.TemplateOptions{}, true},
		{"g/{{identity.groups.names.admins.id}}", "g/g-1", policy.TemplateOptions{}, true},
		{"g/{{identity.groups.names.others.id}}", "g/g-1", policy.TemplateOptions{}, false},
		{"{{identity.entity.name}}/+/{{identity.entity.id}}-{{identity.entity.name}}*", "zoe/x/e-1-zoe/y", policy.TemplateOptions{}, true},
		{"{{identity.entity.name}}/+/{{identity.entity.id}}-{{identity.entity.name}}*", "zoe/x/e-1-eve", policy.TemplateOptions{}, false},
		// A value must not act as a wildcard, nor reach another directory.
		{"s/{{identity.entity.metadata.star}}", "s/anything", policy.TemplateOptions{}, false},
		{"s/{{identity.entity.metadata.star}}", "s/*", policy.TemplateOptions{}, true},
		{"s/{{identity.entity.metadata.plus}}/x", "s/anything/x", policy.TemplateOptions{}, false},
		{"s/{{identity.entity.metadata.plus}}/x", "s/+/x", policy.TemplateOptions{}, true},
		{"s/{{identity.entity.metadata.dirs}}", "s/a/b", policy.TemplateOptions{}, false},
		{"s/{{identity.entity.metadata.dirs}}", "s/a/b", policy.TemplateOptions{AllowSlashes: true}, true},
		{"s/{{identity.entity.metadata.star}}", "s/anything", policy.TemplateOptions{AllowWildcards: true}, true},
		{"s/{{identity.entity.metadata.plus}}/x", "s/anything/x", policy.TemplateOptions{AllowWildcards: true}, true},
		{"s/{{identity.entity.metadata.plus}}{{identity.entity.metadata.star}}", "s/+*", policy.TemplateOptions{AllowWildcards: true}, false},
	} {
		p, err := policy.ParseWith("p", fmt.Sprintf("path %q { capabilities = [\"read\"] }", c.rule), c.opts)
		if err != nil {
			t.Errorf("Parse(%s): %v", c.rule, err)
			continue
		}
		if !p.Templated() {
			t.Errorf("Templated() of %s = false", c.rule)
		}
		s := policy.NewSet(p)
		if got := s.Bind(zoe).Allow(c.path, wire.OpRead).Allowed; got != c.want {
			t.Errorf("%s with %+v: Allow(%q) = %v, want %v", c.rule, c.opts, c.path, got, c.want)
		}
		if s.Allow(c.path, wire.OpRead).Allowed || s.Bind(nil).Allow(c.path, wire.OpRead).Allowed || s.Bind(entity{}).Allow(c.path, wire.OpRead).Allowed {
			t.Errorf("%s: Allow(%q) without an entity", c.rule, c.path)
		}
	}
}

// TestNobodyNamesThemselvesOutOfADenial: a value that must not widen a grant may
// well narrow one.
func TestNobodyNamesThemselvesOutOfADenial(t *testing.T) {
	s := set(t, `
		path "logs/*" { capabilities = ["read"] }
		path "logs/{{identity.entity.name}}/audit" { capabilities = ["deny"] }
		path "own/{{identity.entity.name}}/*" { capabilities = ["read"] }`)
	for _, name := range []string{"eve", "eve/x", "*", "+"} {
		bound := s.Bind(entity{{Field: policy.Name}: name})
		if bound.Allow("logs/"+name+"/audit", wire.OpRead).Allowed {
			t.Errorf("whoever is called %q may read what is denied to them", name)
		}
		if !bound.Allow("logs/others/audit", wire.OpRead).Allowed {
			t.Errorf("whoever is called %q may not read what is others'", name)
		}
	}
	if s.Bind(entity{{Field: policy.Name}: "eve/x"}).Allow("own/eve/x/secret", wire.OpRead).Allowed {
		t.Error("a value with a slash grants something")
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

func TestReaches(t *testing.T) {
	s := set(t, `
path "one/deep/down"   { capabilities = ["read"] }
path "two/+/x"         { capabilities = ["update"] }
path "two/*"           { capabilities = ["deny"] }
path "thr*"            { capabilities = ["read"] }
path "four/+/x"        { capabilities = ["read"] }
path "+/five/x/*"      { capabilities = ["read"] }
path "six"             { capabilities = ["list"] }
path "auth/up/*"       { capabilities = ["read"] }`)
	for mount, want := range map[string]bool{
		"one/": true, "two/": true, "three/": true, "four/": true, "four/a/": true, "four/a/b/": false,
		"any/five/": true, "any/six/": false, "six/": true, "auth/up/": true, "auth/other/": false,
	} {
		if got := s.Reaches(mount); got != want {
			t.Errorf("Reaches(%q) = %v, want %v", mount, got, want)
		}
	}
	if s := set(t, `path "two/*" { capabilities = ["deny"] } path "two/x" {}`); s.Reaches("two/") {
		t.Error("a denial reaches its mount")
	}
	if !policy.RootSet().Reaches("x/") {
		t.Error("root does not reach every mount")
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
