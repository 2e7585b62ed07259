package policy_test

import (
	"fmt"
	"testing"

	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/wire"
)

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
