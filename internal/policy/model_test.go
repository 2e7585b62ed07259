package policy_test

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/wire"
)

// The model: Vault's documented rules, one after another, over a plain list.

type modelRule struct {
	path string // as written
	caps []string
}

// modelCaps is what policies made of these rules give on a path: the names of
// the capabilities, or nil where no rule matches.
func modelCaps(rules []modelRule, path string, list bool) []string {
	merged := map[string][]string{}
	for _, r := range rules {
		p := strings.TrimPrefix(r.path, "/")
		merged[p] = append(merged[p], r.caps...)
	}
	if caps, ok := merged[path]; ok && !modelWild(path) {
		return modelNames(caps)
	}
	bare, slash := strings.CutSuffix(path, "/")
	if !slash {
		return modelBest(merged, path)
	}
	onBare, onPath := modelBest(merged, bare), modelBest(merged, path)
	if caps, ok := merged[bare]; ok && !modelWild(bare) {
		if list {
			return modelNames(caps)
		}
		onBare = modelNames(caps)
	}
	if !list {
		return modelBoth(onPath, onBare)
	}
	if onBare == nil || slices.Equal(onPath, []string{"deny"}) {
		return onPath
	}
	return onBare
}

// modelBoth is what two rules both give; nil is no rule. Without the first
// nothing is given, without the second it alone counts.
func modelBoth(a, b []string) []string {
	if a == nil || b == nil {
		return a
	}
	if slices.Contains(a, "deny") || slices.Contains(b, "deny") {
		return []string{"deny"}
	}
	return slices.DeleteFunc(slices.Clone(a), func(c string) bool { return !slices.Contains(b, c) })
}

// modelAnswer is what the API says of a path: what a LIST is given of list, and
// what the others are given of the rest. sudo is in it with either.
func modelAnswer(rules []modelRule, path string) []string {
	caps := slices.Clone(modelCaps(rules, path, false))
	if strings.HasSuffix(path, "/") {
		caps = slices.DeleteFunc(caps, func(c string) bool { return c == "list" || c == "deny" })
		if l := modelCaps(rules, path, true); slices.Contains(l, "list") {
			caps = append(caps, "list")
			if slices.Contains(l, "sudo") {
				caps = append(caps, "sudo")
			}
		}
	}
	if len(caps) == 0 {
		return []string{"deny"}
	}
	return modelNames(caps)
}

func modelNames(caps []string) []string {
	if len(caps) == 0 {
		return []string{}
	}
	if slices.Contains(caps, "deny") {
		return []string{"deny"}
	}
	return slices.Compact(slices.Sorted(slices.Values(caps)))
}

func modelWild(rule string) bool {
	return strings.HasSuffix(rule, "*") || slices.Contains(strings.Split(rule, "/"), "+")
}

func modelBest(merged map[string][]string, path string) []string {
	best := ""
	for rule := range merged {
		if modelWild(rule) && modelMatches(rule, path) && (best == "" || modelLess(best, rule)) {
			best = rule
		}
	}
	if best == "" {
		return nil
	}
	return modelNames(merged[best])
}

func modelMatches(rule, path string) bool {
	rule, glob := strings.CutSuffix(rule, "*")
	rs, ps := strings.Split(rule, "/"), strings.Split(path, "/")
	if len(ps) < len(rs) || len(ps) > len(rs) && !glob {
		return false
	}
	for i, r := range rs {
		last := glob && i == len(rs)-1
		if r != "+" && r != ps[i] && !(last && strings.HasPrefix(ps[i], r)) {
			return false
		}
	}
	return true
}

// modelLess is the documented list of criteria, in its order.
func modelLess(a, b string) bool {
	if x, y := modelFirst(a), modelFirst(b); x != y {
		return x < y
	}
	if x, y := strings.HasSuffix(a, "*"), strings.HasSuffix(b, "*"); x != y {
		return x
	}
	if x, y := modelPluses(a), modelPluses(b); x != y {
		return x > y
	}
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return a < b
}

func modelFirst(rule string) int {
	at := 0
	for _, segment := range strings.Split(strings.TrimSuffix(rule, "*"), "/") {
		if segment == "+" {
			return at
		}
		at += len(segment) + 1
	}
	return len(rule) - 1
}

func modelPluses(rule string) int {
	n := 0
	for _, segment := range strings.Split(strings.TrimSuffix(rule, "*"), "/") {
		if segment == "+" {
			n++
		}
	}
	return n
}

// modelText writes rules as a policy, in HCL or JSON.
func modelText(rules []modelRule, json bool) string {
	var b strings.Builder
	if !json {
		for _, r := range rules {
			fmt.Fprintf(&b, "path %q {\n  capabilities = %s\n}\n", r.path, strings.ReplaceAll(fmt.Sprintf("%q", r.caps), " ", ", "))
		}
		return b.String()
	}
	b.WriteString(`{"path": [`)
	for i, r := range rules {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, `{%q: {"capabilities": %s}}`, r.path, strings.ReplaceAll(fmt.Sprintf("%q", r.caps), " ", ", "))
	}
	return b.String() + "]}"
}

// entity answers every template with the text that the model puts in.
type entity map[policy.Template]string

func (e entity) Value(t policy.Template) (string, bool) {
	v, ok := e[t]
	return v, ok
}

var (
	// Few and short pieces, so that paths and rules meet often.
	segments = rapid.SampledFrom([]string{"a", "b", "ab", "abc", "+", "+", "", "a+"})
	plain    = rapid.SampledFrom([]string{"a", "b", "ab", "abc", "", "+", "a+"})
	capNames = rapid.SliceOfN(rapid.SampledFrom([]string{"create", "read", "update", "delete", "list", "list", "patch", "sudo", "scan", "deny"}), 0, 3)
	ruleGen  = rapid.Custom(func(t *rapid.T) modelRule {
		path := strings.Join(rapid.SliceOfN(segments, 1, 4).Draw(t, "segments"), "/")
		path += rapid.SampledFrom([]string{"", "", "*", "/", "/*"}).Draw(t, "end")
		path = strings.ReplaceAll(path, "+*", "+/*") // what +* would be is refused
		if rapid.IntRange(0, 9).Draw(t, "slash") == 0 && !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		return modelRule{path, capNames.Draw(t, "caps")}
	})
	pathGen = rapid.Custom(func(t *rapid.T) string {
		path := strings.Join(rapid.SliceOfN(plain, 1, 5).Draw(t, "segments"), "/")
		path += rapid.SampledFrom([]string{"", "", "/"}).Draw(t, "end")
		return strings.TrimLeft(path, "/")
	})
)

// TestMain makes thousands of cases the default; -rapid.checks overrides it.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "2000"); err != nil {
		panic(err)
	}
	m.Run()
}

var ops = []wire.Op{wire.OpCreate, wire.OpRead, wire.OpUpdate, wire.OpPatch, wire.OpDelete, wire.OpList}

func TestSetAgreesWithTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rules []modelRule
		var policies []*policy.Policy
		for range rapid.IntRange(1, 4).Draw(t, "policies") {
			some := rapid.SliceOfN(ruleGen, 0, 6).Draw(t, "rules")
			text := modelText(some, rapid.Bool().Draw(t, "json"))
			p, err := policy.Parse("p", text)
			if err != nil {
				t.Fatalf("Parse(%s): %v", text, err)
			}
			rules = append(rules, some...)
			policies = append(policies, p)
		}
		checkAgainstModel(t, rules, policy.NewSet(policies...))
	})
}

// Templated rules must act as if the entity's values had been written into the
// text, also where that makes them the same rule as another.
func TestBoundSetAgreesWithTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := entity{}
		for _, name := range []string{"x", "y"} {
			v := rapid.SampledFrom([]string{"a", "ab", "b"}).Draw(t, name)
			values[policy.Template{Field: policy.Metadata, Meta: name}] = v
		}
		var rules, written []modelRule
		for _, r := range rapid.SliceOfN(ruleGen, 0, 6).Draw(t, "rules") {
			switch rapid.IntRange(0, 3).Draw(t, "how") {
			case 0: // as it is, and again with a template and other capabilities
				rules, written = append(rules, r), append(written, r)
				r.caps = capNames.Draw(t, "more")
				fallthrough
			case 1, 2: // with a template where its text has the value
				rules = append(rules, r)
				name := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "name")
				v := values[policy.Template{Field: policy.Metadata, Meta: name}]
				r.path = strings.Replace(r.path, v, "{{ identity.entity.metadata."+name+" }}", 1)
				written = append(written, r)
			case 3: // with a value that there is not: the rule must not count
				written = append(written, modelRule{r.path + "/{{identity.entity.metadata.z}}", r.caps})
			}
		}
		p, err := policy.Parse("p", modelText(written, false))
		if err != nil {
			t.Fatalf("Parse(%s): %v", modelText(written, false), err)
		}
		checkAgainstModel(t, rules, policy.NewSet(p).Bind(values))
	})
}

// Where an endpoint does not mind the case of a name, the answer is what the
// rules give as they are written and also give with the name in small letters.
func TestNamesInOtherLetters(t *testing.T) {
	mixed := rapid.SampledFrom([]string{"a", "A", "b", "ab", "aB", "AB", "+"})
	rapid.Check(t, func(t *rapid.T) {
		mount := rapid.SampledFrom([]string{"m/", "M/", "m/n/"}).Draw(t, "mount")
		var rules, small []modelRule
		for range rapid.IntRange(0, 8).Draw(t, "rules") {
			at := rapid.SampledFrom([]string{"m/", "M/", "m/n/", "+/", "m/+/", mount}).Draw(t, "at")
			name := strings.Join(rapid.SliceOfN(mixed, 1, 3).Draw(t, "name"), "/") + rapid.SampledFrom([]string{"", "*", "/", "/*"}).Draw(t, "end")
			name = strings.ReplaceAll(name, "+*", "+/*")
			caps := capNames.Draw(t, "caps")
			rules = append(rules, modelRule{at + name, caps})
			// The part of the rule that meets the name is what follows as
			// many slashes as the mount has.
			parts := strings.SplitAfterN(at+name, "/", strings.Count(mount, "/")+1)
			if n := strings.Count(mount, "/"); len(parts) > n {
				parts[n] = strings.ToLower(parts[n])
			}
			small = append(small, modelRule{strings.Join(parts, ""), caps})
		}
		written := slices.Clone(rules)
		for i := range written { // some with a template where the text has its value
			if rapid.Bool().Draw(t, "templated") {
				written[i].path = strings.Replace(written[i].path, "aB", "{{identity.entity.name}}", 1)
			}
		}
		p, err := policy.Parse("p", modelText(written, false))
		if err != nil {
			t.Fatal(err)
		}
		set := policy.NewSet(p).Bind(entity{{Field: policy.Name}: "aB"})
		for range 10 {
			name := strings.Join(rapid.SliceOfN(mixed, 1, 3).Draw(t, "asked"), "/") + rapid.SampledFrom([]string{"", "/"}).Draw(t, "slash")
			path, as := mount+name, policy.As{Path: mount + strings.ToLower(name), From: len(mount)}
			for _, op := range ops {
				list := op == wire.OpList
				asked, known := modelCaps(rules, path, list), modelCaps(small, as.Path, list)
				want := asked != nil && known != nil && slices.Contains(asked, op.String()) && slices.Contains(known, op.String())
				if got := set.AllowAs(path, as, op).Allowed; got != want {
					t.Fatalf("AllowAs(%q, %+v, %v).Allowed = %v, want %v\nrules: %q", path, as, op, got, want, rules)
				}
				if caps := set.CapabilitiesAs(path, as); slices.Contains(caps, op.String()) != want {
					t.Fatalf("CapabilitiesAs(%q, %+v) = %v, want %v in it: %v\nrules: %q", path, as, caps, op, want, rules)
				}
			}
		}
	})
}

// drawPath gives a path that one of the rules is likely to match, or any.
func drawPath(t *rapid.T, rules []modelRule) string {
	if len(rules) == 0 || rapid.IntRange(0, 3).Draw(t, "any") == 0 {
		return pathGen.Draw(t, "path")
	}
	path := strings.TrimLeft(rapid.SampledFrom(rules).Draw(t, "rule").path, "/")
	path, glob := strings.CutSuffix(path, "*")
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if part == "+" {
			parts[i] = plain.Draw(t, "segment")
		}
	}
	path = strings.Join(parts, "/")
	if glob {
		path += rapid.SampledFrom([]string{"", "/", "a", "b/", "/a/b"}).Draw(t, "tail")
	}
	path += rapid.SampledFrom([]string{"", "", "/"}).Draw(t, "end")
	return strings.TrimLeft(path, "/")
}

func checkAgainstModel(t *rapid.T, rules []modelRule, set *policy.Set) {
	for range 10 {
		path := drawPath(t, rules)
		for _, op := range ops {
			want := modelCaps(rules, path, op == wire.OpList)
			d := set.Allow(path, op)
			if got, want := d.Allowed, slices.Contains(want, op.String()); got != want {
				t.Fatalf("Allow(%q, %v).Allowed = %v, want %v\nrules: %q", path, op, got, want, rules)
			}
			if got, want := d.Sudo(), slices.Contains(want, "sudo"); got != want {
				t.Fatalf("Allow(%q, %v).Sudo() = %v, want %v\nrules: %q", path, op, got, want, rules)
			}
		}
		want := modelAnswer(rules, path)
		if got := set.Capabilities(path); !slices.Equal(got, want) {
			t.Fatalf("Capabilities(%q) = %v, want %v\nrules: %q", path, got, want, rules)
		}
	}
}

// Every policy's order and the order of rules within it must not matter.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(ruleGen, 1, 8).Draw(t, "rules")
		a, err := policy.Parse("a", modelText(rules, false))
		if err != nil {
			t.Fatal(err)
		}
		b, err := policy.Parse("b", modelText(rapid.Permutation(rules).Draw(t, "permuted"), true))
		if err != nil {
			t.Fatal(err)
		}
		x, y := policy.NewSet(a).ResultantACL(), policy.NewSet(b, a).ResultantACL()
		for _, m := range [][2]map[string]policy.PathACL{{x.ExactPaths, y.ExactPaths}, {x.GlobPaths, y.GlobPaths}} {
			if !maps.EqualFunc(m[0], m[1], func(p, q policy.PathACL) bool { return slices.Equal(p.Capabilities, q.Capabilities) }) {
				t.Fatalf("in one order %v, in another %v", m[0], m[1])
			}
		}
	})
}
