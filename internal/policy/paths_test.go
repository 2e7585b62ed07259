package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/wire"
)

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
