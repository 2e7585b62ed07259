package route_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// where is a handler that tells by which pattern it was reached.
func where(pattern string) route.Handler[route.None, map[string]string] {
	return func(_ context.Context, req *route.Request, _ route.None) (map[string]string, error) {
		out := map[string]string{"by": pattern}
		for _, name := range []string{"name", "path", "source", "bytes"} {
			if v := req.Param(name); v != "" {
				out[name] = v
			}
		}
		return out, nil
	}
}

func call(t *testing.T, tab *route.Table, req *route.Request) (route.Result, error) {
	t.Helper()
	ep, err := tab.Route(req)
	if err != nil {
		return route.Result{}, err
	}
	return ep.Call(context.Background(), req)
}

func TestLookup(t *testing.T) {
	tab := route.NewTable()
	for _, p := range []string{"roles/{name}", "roles/special", "roles/{name}/sub", "files/{path...}", "any/{path...?}", "random", "random/{bytes}", "random/{source}/{bytes}", ""} {
		route.Read(tab, p, where(p))
	}
	route.List(tab, "roles", where("list"))
	route.List(tab, "files/{path...?}", where("list files"))
	route.Write(tab, "roles/{name}", where("write"))
	route.Write(tab, "{path...}", where("fallback"))
	route.Read(tab, "mounts/{path...}", where("mount"))
	route.Read(tab, "mounts/{path...}/tune", where("tune"))
	route.Read(tab, "health", where("health"), route.InForm(route.Bare))
	tests := []struct {
		op   wire.Op
		path string
		want string
	}{
		{wire.OpRead, "", `{"by":""}`},
		{wire.OpRead, "roles/a", `{"by":"roles/{name}","name":"a"}`},
		{wire.OpRead, "roles/special", `{"by":"roles/special"}`},
		{wire.OpRead, "roles/special/sub", `{"by":"roles/{name}/sub","name":"special"}`},
		{wire.OpRead, "roles/a/b", "unsupported operation"}, // the fallback would take a write
		{wire.OpRead, "roles/", "unsupported operation"},
		{wire.OpUpdate, "roles/a", `{"by":"write","name":"a"}`},
		{wire.OpCreate, "roles/a", `{"by":"write","name":"a"}`},
		{wire.OpUpdate, "roles/special", `{"by":"write","name":"special"}`},
		{wire.OpUpdate, "roles/a/b", `{"by":"fallback","path":"roles/a/b"}`},
		{wire.OpUpdate, "roles/", `{"by":"fallback","path":"roles/"}`},
		{wire.OpUpdate, "", "unsupported operation"},
		{wire.OpList, "roles/", `{"by":"list"}`},
		{wire.OpList, "files/", `{"by":"list files"}`},
		{wire.OpList, "files/a/b/", `{"by":"list files","path":"a/b"}`},
		{wire.OpRead, "files/a/b", `{"by":"files/{path...}","path":"a/b"}`},
		{wire.OpRead, "files/a/", `{"by":"files/{path...}","path":"a/"}`},
		{wire.OpRead, "files/", "unsupported operation"},
		{wire.OpRead, "any", `{"by":"any/{path...?}"}`},
		{wire.OpRead, "any/", `{"by":"any/{path...?}"}`},
		{wire.OpRead, "any/x/y", `{"by":"any/{path...?}","path":"x/y"}`},
		{wire.OpRead, "random/7", `{"by":"random/{bytes}","bytes":"7"}`},
		{wire.OpRead, "random/seal/7", `{"by":"random/{source}/{bytes}","bytes":"7","source":"seal"}`},
		{wire.OpRead, "mounts/a/b", `{"by":"mount","path":"a/b"}`},
		{wire.OpRead, "mounts/a/b/tune", `{"by":"tune","path":"a/b"}`},
		{wire.OpRead, "mounts/tune", `{"by":"mount","path":"tune"}`},
		{wire.OpDelete, "random", "unsupported operation"},
		{wire.OpDelete, "health", ""}, // no sentence, as there is no envelope
	}
	for _, tt := range tests {
		res, err := call(t, tab, &route.Request{Op: tt.op, Path: tt.path})
		got := errs.Message(err)
		if err == nil {
			got = string(res.Data.AppendJSON(nil))
		}
		if got != tt.want {
			t.Errorf("%s %q = %s, want %s", tt.op, tt.path, got, tt.want)
		}
	}
}

func TestMissing(t *testing.T) {
	tab := route.NewTable()
	route.Read(tab, "mounts", where(""))
	route.Read(tab, "status", where(""), route.InForm(route.Bare))
	for path, want := range map[string]errs.Kind{"mounts": errs.Unsupported, "nowhere": errs.NotFound, "mounts/x": errs.NotFound, "status": errs.Unsupported} {
		if _, _, err := tab.Lookup(wire.OpDelete, path); errs.KindOf(err) != want {
			t.Errorf("Lookup(delete, %q) = %v, want the kind %v", path, err, want)
		}
	}
	// Only where nobody needs a token, nobody is asked for one.
	route.Read(tab, "open", where(""), route.Unauth())
	route.Read(tab, "half", where(""), route.Unauth())
	route.Write(tab, "half", where(""))
	for path, want := range map[string]bool{"open": true, "half": false, "mounts": false, "status": false} {
		if _, _, err := tab.Lookup(wire.OpDelete, path); errors.Is(err, route.ErrNoOpForAnyone) != want {
			t.Errorf("Lookup(delete, %q) = %v: said to anyone = %v, want %v", path, err, !want, want)
		}
	}
	// A LIST ends in a slash, which makes it another path on the reference.
	if _, _, err := tab.Lookup(wire.OpList, "mounts/"); !errs.Is(err, errs.NotFound) {
		t.Errorf("Lookup(list, mounts/) = %v, want NotFound", err)
	}
	if _, _, err := tab.Lookup(wire.OpList, "status/"); !errs.Is(err, errs.Unsupported) {
		t.Errorf("Lookup(list, status/) = %v, want Unsupported", err)
	}
}

func TestBadPatterns(t *testing.T) {
	for _, p := range []string{"a//b", "/a", "a/", "{name", "a/{x...}/{y}", "{a}/{b}/{c}/{d}/{e}"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("the pattern %q was taken", p)
				}
			}()
			route.Read(route.NewTable(), p, where(p))
		}()
	}
	defer func() {
		if recover() == nil {
			t.Error("the same endpoint was taken twice")
		}
	}()
	tab := route.NewTable()
	route.Read(tab, "a/{x}", where(""))
	route.Read(tab, "a/{y}", where(""))
}

type roleIn struct {
	Name string        `json:"name"`
	TTL  wire.TTL      `json:"ttl"`
	Pass secret.String `json:"pass"`
}

func (in *roleIn) Validate() error {
	if in.TTL.Duration() > time.Hour {
		return errors.New("ttl is too long")
	}
	return nil
}

type roleOut struct {
	Name string   `json:"name"`
	TTL  wire.TTL `json:"ttl"`
}

func TestCall(t *testing.T) {
	tab := route.NewTable()
	write := func(_ context.Context, req *route.Request, in roleIn) (*roleOut, error) {
		switch in.Name {
		case "quiet":
			return nil, nil
		case "raw":
			req.AnswerRaw(&route.Raw{Status: 404})
			return nil, nil
		case "bad":
			return nil, errs.Gone
		}
		req.Warn("hello %s", in.Name)
		return &roleOut{in.Name, in.TTL}, nil
	}
	exists := func(_ context.Context, _ *route.Request, in roleIn) (bool, error) { return in.Name == "old", nil }
	route.Write(tab, "roles/{name}", write, route.Exists(exists), route.Status(202), route.Doc("Write."), route.Sudo())
	do := func(name, body string) (route.Result, *route.Reply, error) {
		req := &route.Request{Op: wire.OpUpdate, Path: "roles/" + name, Body: []byte(body)}
		res, err := call(t, tab, req)
		return res, req.Reply(), err
	}
	res, reply, err := do("a", `{"ttl":"1m","name":"b","x":1}`)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(res.Data.AppendJSON(nil)); got != `{"name":"a","ttl":60}` || reply.Status != 202 || len(reply.Warnings) != 3 {
		t.Errorf("Call = %s, status %d, warnings %q", got, reply.Status, reply.Warnings)
	}
	if res, _, err := do("quiet", ""); err != nil || res != (route.Result{}) {
		t.Errorf("a nil pointer = %+v, %v, want nothing to say", res, err)
	}
	if res, _, err := do("raw", ""); err != nil || res.Raw == nil || res.Raw.Status != 404 {
		t.Errorf("AnswerRaw = %+v, %v", res, err)
	}
	if _, _, err := do("bad", ""); !errs.Is(err, errs.NotFound) {
		t.Errorf("Call = %v, want NotFound", err)
	}
	if _, _, err := do("a", `{"ttl":"2h"}`); !errs.Is(err, errs.Invalid) {
		t.Errorf("Call = %v, want Validate's error as Invalid", err)
	}
	req := &route.Request{Op: wire.OpUpdate, Path: "roles/old"}
	ep, err := tab.Route(req)
	if err != nil || !ep.Sudo || ep.Doc != "Write." || ep.In == nil {
		t.Fatalf("Route = %+v, %v", ep, err)
	}
	if there, err := ep.Exists(t.Context(), req); !there || err != nil {
		t.Errorf("Exists(old) = %v, %v", there, err)
	}
	hashed := ep.AppendHashedBody(nil, []byte(`{"pass":"p","ttl":"1m"}`), func(f string, isSecret bool, _ string) string {
		return strings.Repeat(f, map[bool]int{true: 2, false: 1}[isSecret])
	})
	if string(hashed) != `{"pass":"passpass","ttl":"ttl"}` {
		t.Errorf("AppendHashedBody = %s", hashed)
	}
}

func TestSourcesByOperation(t *testing.T) {
	tab := route.NewTable()
	echo := func(_ context.Context, _ *route.Request, in roleIn) (roleOut, error) {
		return roleOut{in.Name, in.TTL}, nil
	}
	route.Read(tab, "x", echo)
	route.Delete(tab, "x", echo)
	route.Write(tab, "x", echo)
	for op, want := range map[wire.Op]string{wire.OpRead: "query", wire.OpDelete: "query", wire.OpUpdate: "body"} {
		req := &route.Request{Op: op, Path: "x", Query: url.Values{"name": {"query"}}, Body: []byte(`{"name":"body"}`)}
		if op != wire.OpUpdate {
			req.Body = nil
		}
		res, err := call(t, tab, req)
		if err != nil || !strings.Contains(string(res.Data.AppendJSON(nil)), want) {
			t.Errorf("%s takes %s, %v, want the %s", op, res.Data.AppendJSON(nil), err, want)
		}
	}
}

func TestResults(t *testing.T) {
	tab := route.NewTable()
	route.Read(tab, "none", func(context.Context, *route.Request, route.None) (route.None, error) { return route.None{}, nil })
	route.Read(tab, "raw", func(context.Context, *route.Request, route.None) (route.Raw, error) {
		return route.Raw{Body: []byte("x")}, nil
	})
	route.Read(tab, "whole", func(context.Context, *route.Request, route.None) (*route.Whole, error) {
		return &route.Whole{LeaseID: "l"}, nil
	})
	route.Read(tab, "any", func(context.Context, *route.Request, route.None) (any, error) { return []int{1}, nil })
	route.Read(tab, "object", func(context.Context, *route.Request, route.None) (wire.Object, error) {
		return wire.Object(`{"a":1}`), nil
	})
	route.List(tab, "empty", func(context.Context, *route.Request, route.None) (route.Keys, error) { return route.ListOf(nil) })
	route.Login(tab, "login", func(context.Context, *route.Request, roleIn) (*route.Auth, error) {
		return &route.Auth{DisplayName: "d"}, nil
	})
	kind := &lease.Kind[roleOut]{Name: "user", Version: 1}
	route.Issue(tab, wire.OpRead, "creds/{name}", kind, func(_ context.Context, _ *route.Request, in roleIn) (lease.Grant[roleOut, roleOut], error) {
		return lease.Grant[roleOut, roleOut]{Target: "t", Ref: roleOut{Name: in.Name}, Make: func(context.Context, lease.Made) (roleOut, error) {
			return roleOut{Name: "made"}, nil
		}}, nil
	})
	get := func(op wire.Op, path string) route.Result {
		t.Helper()
		res, err := call(t, tab, &route.Request{Op: op, Path: path})
		if err != nil {
			t.Fatalf("%s %s: %v", op, path, err)
		}
		return res
	}
	if res := get(wire.OpRead, "none"); res != (route.Result{}) {
		t.Errorf("None gives %+v", res)
	}
	if res := get(wire.OpRead, "raw"); res.Raw == nil || string(res.Raw.Body) != "x" {
		t.Errorf("Raw gives %+v", res)
	}
	if res := get(wire.OpRead, "whole"); res.Whole == nil || res.Whole.LeaseID != "l" {
		t.Errorf("Whole gives %+v", res)
	}
	for path, want := range map[string]string{"any": "[1]", "object": `{"a":1}`} {
		if res := get(wire.OpRead, path); string(res.Data.AppendJSON(nil)) != want {
			t.Errorf("%s gives %s, want %s", path, res.Data.AppendJSON(nil), want)
		}
	}
	if _, err := call(t, tab, &route.Request{Op: wire.OpList, Path: "empty/"}); !errs.Is(err, errs.NotFound) {
		t.Errorf("an empty list = %v, want NotFound", err)
	}
	if res := get(wire.OpUpdate, "login"); res.Auth == nil || res.Auth.DisplayName != "d" {
		t.Errorf("Login gives %+v", res)
	}
	plan := get(wire.OpRead, "creds/app").Plan
	if plan == nil || plan.Kind != "user" || plan.Target != "t" {
		t.Fatalf("Issue gives %+v", plan)
	}
	made, err := plan.Make(t.Context(), lease.Made{})
	if b, _ := json.Marshal(string(wire.Append(nil, made))); err != nil || !strings.Contains(string(b), "made") {
		t.Errorf("Make gives %s, %v", b, err)
	}
}

// TestLockedBy: the alias is named, and asked about, before the handler runs.
func TestLockedBy(t *testing.T) {
	type loginIn struct {
		Name string `json:"name"`
	}
	tab, ran := route.NewTable(), 0
	login := func(_ context.Context, _ *route.Request, in loginIn) (*route.Auth, error) {
		ran++
		return &route.Auth{DisplayName: in.Name}, nil
	}
	route.Login(tab, "login/{name}", login, route.LockedBy(func(in loginIn) string { return strings.ToLower(in.Name) }))
	route.Login(tab, "open/{name}", login)
	no := errs.New(errs.Denied, "no")
	for _, c := range []struct {
		path, alias string
		err         error
		ran         int
	}{{"login/Ann", "ann", nil, 1}, {"login/Bob", "", no, 0}, {"open/Bob", "", nil, 1}} {
		req := &route.Request{Op: wire.OpUpdate, Path: c.path}
		ep, err := tab.Route(req)
		if err != nil {
			t.Fatal(err)
		}
		ran = 0
		auth, alias, err := ep.LogIn(t.Context(), req, func(_ context.Context, alias string) error {
			if alias == "bob" {
				return no
			}
			return nil
		})
		if alias != c.alias || !errors.Is(err, c.err) || ran != c.ran || (auth != nil) != (c.err == nil) {
			t.Errorf("%s = %v, alias %q, %v, ran %d times; want %+v", c.path, auth, alias, err, ran, c)
		}
	}
}

func TestWalk(t *testing.T) {
	tab := route.NewTable()
	route.Write(tab, "b", where(""))
	route.Read(tab, "b", where(""))
	route.Read(tab, "a", where(""), route.Unauth(), route.Hidden())
	var got []string
	tab.Walk(func(e *route.Endpoint) { got = append(got, e.Op.String()+" "+e.Pattern) })
	if d := cmp.Diff([]string{"read a", "read b", "update b"}, got); d != "" {
		t.Errorf("Walk (-want +got):\n%s", d)
	}
}

func BenchmarkCall(b *testing.B) {
	tab := route.NewTable()
	for _, p := range []string{"config", "roles/{name}", "static-roles/{name}", "rotate/{name}", "metadata/{path...}", "data/{path...}", "{path...}"} {
		route.Read(tab, p, func(_ context.Context, _ *route.Request, in roleIn) (roleOut, error) {
			return roleOut{in.Name, in.TTL}, nil
		})
	}
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		req := route.Request{Op: wire.OpRead, Path: "roles/app"}
		ep, err := tab.Route(&req)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ep.Call(ctx, &req); err != nil {
			b.Fatal(err)
		}
	}
}
