package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/wire"
)

// many makes n policies with rules rules between them, of all kinds, around
// paths that the checks below ask for.
func many(t testing.TB, n, rules int) []*policy.Policy {
	t.Helper()
	texts := make([]strings.Builder, n)
	for i := range rules {
		format := [...]string{"team%d/data/app/*", "kv/data/app%d/conf", "kv/+/app%d/+/x*", "kv/data/app%d*"}[i%4]
		fmt.Fprintf(&texts[i%n], "path %q { capabilities = [\"read\", \"list\"] }\n", fmt.Sprintf(format, i))
	}
	all := make([]*policy.Policy, n)
	for i := range all {
		p, err := policy.Parse(fmt.Sprint("p", i), texts[i].String())
		if err != nil {
			t.Fatal(err)
		}
		all[i] = p
	}
	return all
}

func TestAllowDoesNotAllocate(t *testing.T) {
	all := append(many(t, 20, 1000), nil)
	def, err := policy.Parse("default", policy.DefaultText)
	if err != nil {
		t.Fatal(err)
	}
	s := policy.NewSet(append(all, def)...).Bind(entity{{Field: policy.ID}: "e-1"})
	for path, op := range map[string]wire.Op{
		"kv/data/app1/conf": wire.OpRead, "kv/data/app3x/y/": wire.OpList, "kv/x/app2/y/xyz": wire.OpRead,
		"auth/token/lookup-self": wire.OpRead, "no/such/path": wire.OpUpdate, "identity/entity/id/e-1": wire.OpRead,
	} {
		want := path != "no/such/path"
		if got := testing.AllocsPerRun(100, func() {
			if d := s.Allow(path, op); d.Allowed != want || d.AllowsWrap(0) != want || d.NeedsParams() || d.Sudo() {
				t.Errorf("Allow(%q, %v) = %+v, want allowed %v", path, op, d, want)
			}
		}); got != 0 {
			t.Errorf("Allow(%q, %v) allocates %v times, want 0", path, op, got)
		}
	}
	// Nor where the endpoint folds a name that is written as it knows it.
	as := policy.As{Path: "identity/entity/id/e-1", From: len("identity/entity/id/")}
	if got := testing.AllocsPerRun(100, func() {
		if !s.AllowAs(as.Path, as, wire.OpRead).Allowed {
			t.Error("AllowAs refuses")
		}
	}); got != 0 {
		t.Errorf("AllowAs allocates %v times, want 0", got)
	}
}

func BenchmarkAllow(b *testing.B) {
	one, err := policy.Parse("one", `path "kv/data/app1/conf" { capabilities = ["read"] }`)
	if err != nil {
		b.Fatal(err)
	}
	glob, err := policy.Parse("glob", `path "kv/data/*" { capabilities = ["read"] }`)
	if err != nil {
		b.Fatal(err)
	}
	def, err := policy.Parse("default", policy.DefaultText)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		set  *policy.Set
		path string
	}{
		{"1 rule", policy.NewSet(one), "kv/data/app1/conf"},
		{"1 glob", policy.NewSet(glob), "kv/data/app7/conf"},
		{"default and 1 rule", policy.NewSet(def, one), "kv/data/app1/conf"},
		{"20 policies 1000 rules exact", policy.NewSet(many(b, 20, 1000)...), "kv/data/app1/conf"},
		{"20 policies 1000 rules glob", policy.NewSet(many(b, 20, 1000)...), "kv/data/app7/conf"},
		{"20 policies 1000 rules segments", policy.NewSet(many(b, 20, 1000)...), "kv/x/app6/y/xyz"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !c.set.Allow(c.path, wire.OpRead).Allowed {
					b.Fatal("refused")
				}
			}
		})
	}
}

func BenchmarkNewSet(b *testing.B) {
	all := many(b, 20, 1000)
	for b.Loop() {
		policy.NewSet(all...)
	}
}
