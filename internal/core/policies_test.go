package core_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// TestPolicyExpires uses a token up to the end of one of its policies: what is
// in memory ends with it, and the row goes soon after.
func TestPolicyExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, mem.New())
		defer r.c.Stop(time.Second)
		r.mount("kv/", "kv", nil)
		r.ok(wire.OpUpdate, "kv/a", r.root, `{"v":"1"}`)
		expire := func(at time.Time) {
			t.Helper()
			err := r.c.ChangePolicy(t.Context(), core.ACLPolicy, "root", "brief", func(*core.PolicyRow) (core.PolicyRow, error) {
				return core.PolicyRow{Text: `path "kv/a" { capabilities = ["read"] }`, Expires: at}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		may := func(tok secret.String, want bool) {
			t.Helper()
			if err := r.do(wire.OpRead, "kv/a", tok, "").Err; (err == nil) != want || err != nil && !errs.Is(err, errs.Denied) {
				t.Errorf("reading = %v, want it allowed: %v", err, want)
			}
		}
		expire(time.Now().Add(time.Minute))
		tok := r.token("brief", "default")
		may(tok, true)
		expire(time.Now().Add(2 * time.Minute)) // it is given more time
		may(tok, true)
		time.Sleep(90 * time.Second)
		may(tok, true)
		if row, err := r.c.Policy(t.Context(), core.ACLPolicy, "root", "brief"); err != nil || row == nil || row.Edition != 2 {
			t.Errorf("Policy = %+v, %v, want its second edition", row, err)
		}
		time.Sleep(30 * time.Second)
		may(tok, false)
		if row, err := r.c.Policy(t.Context(), core.ACLPolicy, "root", "brief"); err != nil || row != nil {
			t.Errorf("Policy = %+v, %v, want it expired", row, err)
		}
		time.Sleep(10 * time.Second) // for the sweep
		if rows, err := r.c.Policies(t.Context(), core.ACLPolicy, "root", "brief"); err != nil || len(rows) != 0 {
			t.Errorf("Policies = %+v, %v, want none", rows, err)
		}
		expire(time.Time{}) // made again, it begins anew and is seen at once
		may(tok, true)
		if row, err := r.c.Policy(t.Context(), core.ACLPolicy, "root", "brief"); err != nil || row == nil || row.Edition != 1 {
			t.Errorf("Policy = %+v, %v, want a new one", row, err)
		}
	})
}

// crowd is an engine to which Ann is ann.
type crowd struct{ asked []string }

type personIn struct {
	Name string `json:"name"`
}

func (p *crowd) Routes(t *route.Table) { t.With(p.routes, route.Folds(strings.ToLower)) }

func (p *crowd) routes(t *route.Table) {
	note := func(_ context.Context, _ *route.Request, in personIn) (route.None, error) {
		p.asked = append(p.asked, in.Name)
		return route.None{}, nil
	}
	route.List(t, "people", note)
	route.Read(t, "people/{name}", note)
	route.Delete(t, "people/{name}", note)
	route.Write(t, "people/{name}", note, route.Exists(func(_ context.Context, _ *route.Request, in personIn) (bool, error) {
		return strings.EqualFold(in.Name, "ann"), nil
	}))
	route.List(t, "people/{name}/notes", note)
	route.Write(t, "people/{name}/password", note)
}

// TestNamesInOtherLetters: where an engine takes a name in several spellings,
// what policies say about one holds for all. The engine gets what was asked.
func TestNamesInOtherLetters(t *testing.T) {
	e := &crowd{}
	r := openWith(t, mem.New(), map[string]engine.Factory{
		"secret/people": func(context.Context, engine.Env) (engine.Engine, error) { return e, nil },
	})
	r.mount("p/", "people", nil)
	team := r.space("team")
	r.mountIn(team, "p/", "people")
	write := func(name, text string) {
		t.Helper()
		if err := r.c.WritePolicy(t.Context(), core.ACLPolicy, "root", name, text); err != nil {
			t.Fatal(err)
		}
	}
	write("all", `
		path "p/*" { capabilities = ["create", "read", "update", "delete", "list"] }
		path "team/p/*" { capabilities = ["create", "read", "update", "delete", "list"] }
		path "p/people/ann" { capabilities = ["deny"] }
		path "p/people/Eve" { capabilities = ["read", "update"] }
		path "p/people/Ann/notes" { capabilities = ["deny"] }
		path "p/people/+/password" { capabilities = ["update"] denied_parameters = { "password" = [] } }
		path "team/p/people/BOB" { capabilities = ["deny"] }`)
	tok := r.token("all")
	for _, c := range []struct {
		op   wire.Op
		path string
		want bool
	}{
		{wire.OpRead, "p/people/ann", false}, {wire.OpRead, "p/people/Ann", false}, {wire.OpDelete, "p/people/ANN", false},
		{wire.OpUpdate, "p/people/Ann", false}, {wire.OpRead, "p/people/bob", true}, {wire.OpDelete, "p/people/Bob", true},
		{wire.OpUpdate, "p/people/Bob", true}, {wire.OpRead, "p/people/eve", true}, {wire.OpDelete, "p/people/eve", false},
		{wire.OpDelete, "p/people/EVE", false}, {wire.OpUpdate, "p/people/eve", false}, // which would create it
		{wire.OpList, "p/people/ann/notes/", false}, {wire.OpList, "p/people/ANN/notes/", false}, {wire.OpList, "p/people/Bob/notes/", true},
		{wire.OpList, "p/people/", true}, {wire.OpUpdate, "p/people/Bob/password", false},
		{wire.OpRead, "team/p/people/bob", false}, {wire.OpRead, "team/p/people/Bob", false}, {wire.OpRead, "team/p/people/Ann", true},
	} {
		e.asked = nil
		err := r.do(c.op, c.path, tok, `{"password":"x"}`).Err
		if (err == nil) != c.want || err != nil && !errs.Is(err, errs.Denied) {
			t.Errorf("%s %s = %v, want it allowed: %v", c.op, c.path, err, c.want)
		}
		name, _, _ := strings.Cut(c.path[strings.Index(c.path, "people/")+len("people/"):], "/")
		if c.want && (len(e.asked) != 1 || e.asked[0] != name) {
			t.Errorf("%s %s asks the engine for %q", c.op, c.path, e.asked)
		}
	}
	for _, c := range []struct {
		ns, path string
		want     policy.As
	}{
		{"root", "p/people/Ann", policy.As{Path: "p/people/ann", From: 9}},
		{"root", "p/people/Ann/password", policy.As{Path: "p/people/ann/password", From: 9}},
		{"root", "p/people/Ann/notes/", policy.As{Path: "p/people/ann/notes/", From: 9}},
		{"root", "team/p/people/Ann", policy.As{Path: "team/p/people/ann", From: 14}},
		{team, "p/people/ann", policy.As{Path: "p/people/ann", From: 9}},
		{"root", "p/people/", policy.As{}}, {"root", "p/Other/X", policy.As{}}, {"root", "No/mount", policy.As{}}, {"none", "p/people/Ann", policy.As{}},
	} {
		if got, err := r.c.Known(t.Context(), c.ns, c.path); err != nil || got != c.want {
			t.Errorf("Known(%s, %q) = %+v, %v, want %+v", c.ns, c.path, got, err, c.want)
		}
	}
}

// vanishing is an engine whose thing goes away between the policies' question
// and the write.
type vanishing struct{}

type thing struct {
	Made bool `json:"made"`
}

func (vanishing) Routes(t *route.Table) {
	route.Write(t, "thing", func(_ context.Context, req *route.Request, _ thing) (thing, error) {
		return thing{Made: !req.OnlyUpdate}, nil
	}, route.Exists(func(context.Context, *route.Request, thing) (bool, error) { return true, nil }))
}

// TestUpdateIsNoCreation writes what has just gone: only who may create it
// makes it anew.
func TestUpdateIsNoCreation(t *testing.T) {
	r := openWith(t, mem.New(), map[string]engine.Factory{
		"secret/vanishing": func(context.Context, engine.Env) (engine.Engine, error) { return vanishing{}, nil },
	})
	r.mount("v/", "vanishing", nil)
	for capabilities, want := range map[string]string{`"update"`: `{"made":false}`, `"create", "update"`: `{"made":true}`} {
		if err := r.c.WritePolicy(t.Context(), core.ACLPolicy, "root", "w", `path "v/*" { capabilities = [`+capabilities+`] }`); err != nil {
			t.Fatal(err)
		}
		if got := string(r.ok(wire.OpUpdate, "v/thing", r.token("w"), "").Data.AppendJSON(nil)); got != want {
			t.Errorf("with %s = %s, want %s", capabilities, got, want)
		}
	}
}
