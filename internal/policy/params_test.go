package policy_test

import (
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/wire"
)

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
