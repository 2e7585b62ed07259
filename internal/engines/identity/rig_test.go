package identity_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/identity"
	"github.com/leasehold/leasehold/internal/engines/identity/mfa"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// tester is *testing.T and *rapid.T.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// rig is the engine on a store whose changes it is told of, as core tells it.
type rig struct {
	tester
	ctx   context.Context
	store storage.Backend
	env   engine.Env
	e     *identity.Engine
	table *route.Table
}

// The mounts that aliases can be of.
var authMounts = map[string]identity.Mount{
	"up":   {Path: "auth/userpass/", Type: "userpass"},
	"ldap": {Path: "auth/ldap/", Type: "ldap"},
	"role": {Path: "auth/approle/", Type: "approle", Local: true},
}

func start(t testing.TB) *rig { return startFor(t, t) }

// startFor makes a rig for t, which lives as long as all.
func startFor(t tester, all testing.TB) *rig {
	r := &rig{tester: t, ctx: all.Context(), store: mem.New()}
	r.env = engine.Env{
		MountID: "x", Namespace: "root", Type: "identity", Store: storage.Prefix(r.store, "m/root/x/"), Now: time.Now,
		Key: func(rel string) string { return "m/root/x/" + rel }, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	}
	r.load()
	return r
}

// close ends the store, and with it the watch.
func (r *rig) close() { _ = r.store.Close() }

// load makes the engine anew, as after a start.
func (r *rig) load() {
	r.Helper()
	made, err := identity.Factory(identity.Config{
		Mount: func(_ context.Context, _, accessor string) (identity.Mount, bool, error) {
			m, ok := authMounts[accessor]
			return m, ok, nil
		},
		Logins: func(context.Context, string) (all []mfa.Login, _ error) {
			for accessor, m := range authMounts {
				all = append(all, mfa.Login{Accessor: accessor, Type: m.Type})
			}
			return all, nil
		},
	})(r.ctx, r.env)
	if err != nil {
		r.Fatalf("%v", err)
	}
	r.e = made.(*identity.Engine)
	r.table = route.NewTable()
	r.e.Routes(r.table)
	running := make(chan struct{})
	e, told := r.e, false
	go func() {
		_ = r.env.Store.Watch(r.ctx, r.revision(), func(changes []storage.Change) error {
			if !told {
				told = true
				close(running)
			}
			for _, c := range changes {
				e.Changed(c.Key, c.Rev)
			}
			return nil
		})
	}()
	<-running
}

func (r *rig) revision() (rev storage.Revision) {
	_ = r.store.View(r.ctx, func(v storage.View) error { rev = v.Revision(); return nil })
	return rev
}

// do calls an endpoint: what it answers, decoded, or nil for nothing.
func (r *rig) do(op wire.Op, path, body string) (map[string]any, error) {
	r.Helper()
	req := &route.Request{Op: op, Path: path, Mount: route.MountInfo{Path: "identity/", Namespace: "root"}}
	if body != "" {
		req.Body = []byte(body)
	}
	ep, err := r.table.Route(req)
	if err != nil {
		r.Fatalf("%s %s: %v", op, path, err)
	}
	res, err := ep.Call(r.ctx, req)
	if err != nil || res.Data == nil {
		return nil, err
	}
	var out map[string]any
	if err := json.Unmarshal(res.Data.AppendJSON(nil), &out); err != nil {
		r.Fatalf("%s %s: %v", op, path, err)
	}
	return out, nil
}

// must is do that succeeds.
func (r *rig) must(op wire.Op, path, body string) map[string]any {
	r.Helper()
	out, err := r.do(op, path, body)
	if err != nil {
		r.Fatalf("%s %s %s = %v, want success", op, path, body, err)
	}
	return out
}

func (r *rig) write(path string, body any) map[string]any {
	r.Helper()
	return r.must(wire.OpUpdate, path, text(body))
}

func (r *rig) read(path string) map[string]any { r.Helper(); return r.must(wire.OpRead, path, "") }

func (r *rig) refused(kind errs.Kind, op wire.Op, path string, body any) {
	r.Helper()
	if out, err := r.do(op, path, text(body)); !errs.Is(err, kind) {
		r.Errorf("%s %s %v = %v, %v, want kind %d", op, path, text(body), out, err, kind)
	}
}

// text is a body.
func text(body any) string {
	if s, ok := body.(string); ok || body == nil {
		return s
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (r *rig) login(l engine.AliasLogin) *engine.Identified {
	r.Helper()
	who, err := r.e.Login(r.ctx, l)
	if err != nil {
		r.Fatalf("Login(%+v) = %v", l, err)
	}
	return who
}

func (r *rig) who(id string) *engine.Identified {
	r.Helper()
	who, err := r.e.Identify(r.ctx, id)
	if err != nil {
		r.Fatalf("Identify(%q) = %v", id, err)
	}
	return who
}

// keys lists the rows that begin with a prefix.
func (r *rig) keys(prefix string) (keys []string) {
	r.Helper()
	err := r.env.Store.View(r.ctx, func(v storage.View) error {
		return v.Scan(prefix, storage.PrefixEnd(prefix), 0, func(key string, _ []byte) bool {
			keys = append(keys, key)
			return true
		})
	})
	if err != nil {
		r.Fatalf("%v", err)
	}
	return keys
}
