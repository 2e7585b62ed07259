package oidc_test

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/identity/oidc"
)

var nasty = &engine.Identified{
	ID: "e1", Name: "a\"b\\c\n\xff", Metadata: map[string]string{"team": `","aud":"x`, "a.b": "dots"},
	Groups: []engine.IdentifiedGroup{
		{ID: "g1", Name: `x","iss":"y`, Metadata: map[string]string{"k": "v"}}, {ID: "g2", Name: "ops"},
	},
	Aliases: []engine.IdentifiedAlias{{
		ID: "a1", Accessor: "acc_1", Name: "n", Metadata: map[string]string{"m": "1"}, Custom: map[string]string{"c": "2"},
	}},
}

func TestTemplate(t *testing.T) {
	for _, tc := range []struct{ template, want string }{
		{``, `null`},
		{`{}`, `{}`},
		{`{"x": {{identity.entity.id}} }`, `{"x":"e1"}`},
		{`{"x": {{ identity.entity.name }}}`, `{"x":"a\"b\\c\n` + "\ufffd" + `"}`},
		{`{"x": {{identity.entity.metadata.team}}}`, `{"x":"\",\"aud\":\"x"}`},
		{`{"x": {{identity.entity.metadata.a.b}}}`, `{"x":"dots"}`},
		{`{"x": {{identity.entity.metadata.none}}}`, `{"x":""}`},
		{`{"x": {{identity.entity.metadata}}}`, `{"x":{"a.b":"dots","team":"\",\"aud\":\"x"}}`},
		{`{"x": {{identity.entity.groups.names}}}`, `{"x":["x\",\"iss\":\"y","ops"]}`},
		{`{"x": {{identity.entity.groups.ids}}}`, `{"x":["g1","g2"]}`},
		{`{"x": {{identity.groups.ids.g2.name}}, "y": {{identity.groups.names.ops.id}}, "z": {{identity.groups.ids.g1.metadata.k}}}`, `{"x":"ops","y":"g2","z":"v"}`},
		{`{"x": {{identity.groups.ids.none.name}}, "y": {{identity.groups.ids.none.metadata}}}`, `{"x":"","y":{}}`},
		{`{"x": {{identity.entity.aliases.acc_1.name}}, "y": {{identity.entity.aliases.acc_1.metadata.m}}, "z": {{identity.entity.aliases.acc_1.custom_metadata}}}`, `{"x":"n","y":"1","z":{"c":"2"}}`},
		{`{"x": {{identity.entity.aliases.other.id}}, "y": {{identity.entity.aliases.other.metadata}}}`, `{"x":"","y":{}}`},
		{`{"x": {{time.now}}, "y": {{time.now.plus.1h}}, "z": {{time.now.minus.90s}}, "s": "at {{time.now}}"}`, `{"x":1000,"y":4600,"z":910,"s":"at 1000"}`},
		{base64.StdEncoding.EncodeToString([]byte(`{"x": {{identity.entity.id}}}`)), `{"x":"e1"}`},
	} {
		tpl, err := oidc.ParseTemplate(tc.template)
		if err != nil {
			t.Errorf("ParseTemplate(%q): %v", tc.template, err)
			continue
		}
		got, err := tpl.Render(nasty, time.Unix(1000, 0))
		if text, _ := got.MarshalJSON(); err != nil || string(text) != tc.want {
			t.Errorf("%q renders as %s, %v, want %s", tc.template, text, err, tc.want)
		}
	}
}

func TestTemplateRefuses(t *testing.T) {
	for template, want := range map[string]string{
		`{"x": {{identity.entity.id}`:               "without its }}",
		`{"x": {{identity.entity.password}}}`:       "is not known",
		`{"x": {{identity.entity.aliases.acc}}}`:    "is not known",
		`{"x": {{identity.groups.ids}}}`:            "is not known",
		`{"x": {{time.now.plus.soon}}}`:             "is not known",
		`{"x": {{time.now.plus.}}}`:                 "is not known",
		`{"x": {{}}}`:                               "is not known",
		`{"x": "hello {{identity.entity.name}}"}`:   "brings its own",
		`{"x": "{{identity.entity.groups.names}}"}`: "brings its own",
		`["x"]`:              "error parsing template JSON",
		`{"x": }`:            "error parsing template JSON",
		`{"aud": "me"}`:      "not allowed",
		`{"\u0061ud": "me"}`: "not allowed",
		`{"x": 1, "sub": {{identity.entity.name}}}`:                          "not allowed",
		strings.Repeat(" ", 1<<17):                                           "longer than",
		`{"x": ` + strings.Repeat("[", 400) + strings.Repeat("]", 400) + `}`: "error parsing",
	} {
		if _, err := oidc.ParseTemplate(template); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseTemplate(%.60q) = %v, want %q", template, err, want)
		}
	}
}

// FuzzTemplate: whatever the template and whoever the person, the claims are
// one object of JSON, and none of them is the server's.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{
		``, `{"x": {{identity.entity.id}}, "y": {{identity.entity.metadata}}}`, `{"a": "\\{{time.now}}\"", "b": {{identity.entity.groups.names}}}`,
		`{"x": {{identity.entity.metadata.team}}}`, `eyJ4Ijoge3t0aW1lLm5vd319fQ==`, `{{`, `{"{{time.now}}": {{identity.groups.names.ops.id}}}`,
	} {
		f.Add(s, `","aud":"x`, "ops")
	}
	f.Fuzz(func(t *testing.T, template, name, group string) {
		tpl, err := oidc.ParseTemplate(template)
		if err != nil {
			return
		}
		who := &engine.Identified{
			ID: name, Name: name, Metadata: map[string]string{name: name, "team": name},
			Groups:  []engine.IdentifiedGroup{{ID: name, Name: group}},
			Aliases: []engine.IdentifiedAlias{{Accessor: "acc", Name: name}},
		}
		got, err := tpl.Render(who, time.Unix(1, 0))
		if err != nil {
			t.Fatalf("%q was taken, and is refused for a person: %v", template, err)
		}
		if got == nil {
			return
		}
		var claims map[string]json.RawMessage
		if err := json.Unmarshal(got, &claims); err != nil {
			t.Fatalf("%q renders as %s: %v", template, got, err)
		}
		for _, server := range []string{"iss", "sub", "aud", "exp", "iat", "namespace", "nonce"} {
			if _, ok := claims[server]; ok {
				t.Fatalf("%q sets %s: %s", template, server, got)
			}
		}
		if again, err := tpl.Render(who, time.Unix(1, 0)); err != nil || !slices.Equal(again, got) {
			t.Fatalf("%q renders as %s, then as %s, %v", template, got, again, err)
		}
	})
}
