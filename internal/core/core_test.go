package core_test

import (
	"context"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/audit/devices"
	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/cubbyhole"
	"github.com/leasehold/leasehold/internal/engines/identity"
	"github.com/leasehold/leasehold/internal/engines/kv"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// none is an engine without routes.
type none struct{}

func (none) Routes(*route.Table) {}

type rig struct {
	t    *testing.T
	c    *core.Core
	root secret.String
	keys [][]byte
}

func open(t *testing.T, db storage.Backend) *rig {
	t.Helper()
	return openWith(t, db, nil)
}

// openWith makes a core with more engines.
func openWith(t *testing.T, db storage.Backend, more map[string]engine.Factory) *rig {
	t.Helper()
	r := &rig{t: t, c: newCore(db, more, nil)}
	in, err := r.c.Init(t.Context(), seal.Params{Shares: 3, Threshold: 2}, secret.String{})
	if err != nil {
		t.Fatalf("Init = %v", err)
	}
	r.root, r.keys = in.Root, in.Shares
	t.Cleanup(func() { r.c.Stop(time.Second) })
	r.unseal()
	return r
}

// newCore makes a core that is sealed; change may set more of its Config.
func newCore(db storage.Backend, more map[string]engine.Factory, change func(*core.Config)) *core.Core {
	nothing := func(context.Context, engine.Env) (engine.Engine, error) { return none{}, nil }
	engines := map[string]engine.Factory{
		"secret/kv": kv.New, "secret/cubbyhole": cubbyhole.New,
		"secret/system": nothing, "auth/token": nothing,
		"secret/identity": identity.Factory(identity.Config{
			Mount: func(context.Context, string, string) (identity.Mount, bool, error) {
				return identity.Mount{}, false, nil
			},
		}),
	}
	maps.Copy(engines, more)
	conf := core.Config{
		Store: db, Engines: engines,
		Devices: func(typ string, options map[string]string, salt secret.String) (core.MadeDevice, error) {
			m, err := devices.New(typ, options, salt)
			return core.MadeDevice{Device: m.Device, Format: m.Format}, err
		},
	}
	if change != nil {
		change(&conf)
	}
	return core.New(conf)
}

func (r *rig) unseal() {
	r.t.Helper()
	for _, k := range r.keys[:2] {
		if err := r.c.Unseal(r.t.Context(), k); err != nil {
			r.t.Fatalf("Unseal = %v", err)
		}
	}
}

func (r *rig) do(op wire.Op, path string, tok secret.String, body string) *core.Response {
	r.t.Helper()
	req := &core.Request{ID: "req-" + path, Op: op, Path: path, Token: tok}
	if body != "" {
		req.Body = []byte(body)
	}
	return r.c.Handle(r.t.Context(), req)
}

func (r *rig) ok(op wire.Op, path string, tok secret.String, body string) *core.Response {
	r.t.Helper()
	p := r.do(op, path, tok, body)
	if p.Err != nil {
		r.t.Fatalf("%s %s = %v", op, path, p.Err)
	}
	return p
}

func (r *rig) mount(path, typ string, options map[string]string) {
	r.t.Helper()
	err := r.c.AddMount(r.t.Context(), &core.Mount{Namespace: token.RootNamespace, Path: path, Class: core.ClassSecret, Type: typ, Options: options})
	if err != nil {
		r.t.Fatalf("AddMount(%q) = %v", path, err)
	}
}

func (r *rig) token(policies ...string) secret.String {
	r.t.Helper()
	t, err := r.c.CreateToken(r.t.Context(), &token.Entry{Policies: policies, Expires: time.Now().Add(time.Hour), TTL: time.Hour}, secret.String{})
	if err != nil {
		r.t.Fatalf("CreateToken = %v", err)
	}
	return t.Text
}

func TestPathOfARequest(t *testing.T) {
	r := open(t, mem.New())
	r.mount("kv/", "kv", nil)
	r.ok(wire.OpUpdate, "kv/app", r.root, `{"password":"hunter2"}`)
	p := r.ok(wire.OpRead, "kv/app", r.root, "")
	if got := string(p.Data.AppendJSON(nil)); got != `{"password":"hunter2"}` {
		t.Errorf("read = %s", got)
	}
	if err := r.c.WritePolicy(t.Context(), core.ACLPolicy, "root", "reader", `path "kv/a*" { capabilities = ["read"] }`); err != nil {
		t.Fatal(err)
	}
	reader := r.token("reader")
	r.ok(wire.OpRead, "kv/app", reader, "")
	for _, c := range []struct {
		op   wire.Op
		path string
		tok  secret.String
		want errs.Kind
	}{
		{wire.OpUpdate, "kv/app", reader, errs.Denied},
		{wire.OpRead, "kv/other", reader, errs.Denied},
		{wire.OpRead, "kv/app", secret.String{}, errs.Denied},
		{wire.OpRead, "kv/app", secret.New("hvs.nonsense"), errs.Denied},
		{wire.OpRead, "nowhere/x", reader, errs.Denied},
		{wire.OpRead, "nowhere/x", r.root, errs.NotFound},
		{wire.OpRead, "kv/absent", r.root, errs.NotFound},
	} {
		if p := r.do(c.op, c.path, c.tok, `{"x":1}`); !errs.Is(p.Err, c.want) {
			t.Errorf("%s %s = %v, want kind %d", c.op, c.path, p.Err, c.want)
		}
	}
	// A changed policy counts from the answer to its change on.
	if err := r.c.WritePolicy(t.Context(), core.ACLPolicy, "root", "reader", `path "kv/a*" { capabilities = ["deny"] }`); err != nil {
		t.Fatal(err)
	}
	if p := r.do(wire.OpRead, "kv/app", reader, ""); !errs.Is(p.Err, errs.Denied) {
		t.Errorf("read under a changed policy = %v", p.Err)
	}
}

func TestSealForgetsAndUnsealKeeps(t *testing.T) {
	r := open(t, mem.New())
	r.mount("kv/", "kv", nil)
	r.ok(wire.OpUpdate, "kv/app", r.root, `{"a":"b"}`)
	if err := r.c.Seal(); err != nil {
		t.Fatal(err)
	}
	if p := r.do(wire.OpRead, "kv/app", r.root, ""); !errs.Is(p.Err, errs.Unavailable) {
		t.Errorf("read while sealed = %v", p.Err)
	}
	r.unseal()
	r.ok(wire.OpRead, "kv/app", r.root, "")
}

func TestRemovedMountIsAnotherOne(t *testing.T) {
	r := open(t, mem.New())
	r.mount("kv/", "kv", nil)
	r.ok(wire.OpUpdate, "kv/app", r.root, `{"a":"b"}`)
	if err := r.c.RemoveMount(t.Context(), "root", "kv/"); err != nil {
		t.Fatal(err)
	}
	if p := r.do(wire.OpRead, "kv/app", r.root, ""); !errs.Is(p.Err, errs.NotFound) {
		t.Errorf("read of a removed mount = %v", p.Err)
	}
	r.mount("kv/", "kv", nil)
	if p := r.do(wire.OpRead, "kv/app", r.root, ""); !errs.Is(p.Err, errs.NotFound) {
		t.Errorf("read of what another mount had = %v", p.Err)
	}
}

func TestWrapping(t *testing.T) {
	r := open(t, mem.New())
	r.mount("kv/", "kv", nil)
	r.ok(wire.OpUpdate, "kv/app", r.root, `{"a":"b"}`)
	p := r.c.Handle(t.Context(), &core.Request{ID: "w", Op: wire.OpRead, Path: "kv/app", Token: r.root, WrapTTL: time.Minute})
	if p.Err != nil || p.Wrap == nil || p.Data != nil {
		t.Fatalf("wrapped read = %+v", p)
	}
	whole, err := r.c.Unwrap(t.Context(), p.Wrap.Token)
	if err != nil || string(whole.Data.AppendJSON(nil)) != `{"a":"b"}` {
		t.Fatalf("Unwrap = %v, %v", whole, err)
	}
	if _, err := r.c.Unwrap(t.Context(), p.Wrap.Token); !errs.Is(err, errs.Invalid) {
		t.Errorf("second Unwrap = %v, want Invalid", err)
	}
}

func TestAuditFailsClosed(t *testing.T) {
	r := open(t, mem.New())
	r.mount("kv/", "kv", nil)
	path := t.TempDir() + "/audit.log"
	err := r.c.EnableAudit(t.Context(), core.AuditDevice{Path: "file/", Type: "file", Options: map[string]string{"file_path": path}})
	if err != nil {
		t.Fatal(err)
	}
	r.ok(wire.OpUpdate, "kv/app", r.root, `{"password":"hunter2"}`)
	r.ok(wire.OpRead, "kv/app", r.root, "")
	log := readFile(t, path)
	if n := strings.Count(log, "\n"); n != 4 {
		t.Errorf("%d records, want 4:\n%s", n, log)
	}
	if strings.Contains(log, "hunter2") || strings.Contains(log, r.root.Reveal()) {
		t.Errorf("the log shows a secret:\n%s", log)
	}
	hash, err := r.c.AuditHash("file/", "hunter2")
	if err != nil || !strings.Contains(log, hash) {
		t.Errorf("AuditHash = %q, %v, not in the log", hash, err)
	}
}

func TestDeviceIsTriedFirst(t *testing.T) {
	r := open(t, mem.New())
	r.mount("kv/", "kv", nil)
	err := r.c.EnableAudit(t.Context(), core.AuditDevice{Path: "bad/", Type: "file", Options: map[string]string{"file_path": "/proc/nowhere/x"}})
	if !errs.Is(err, errs.Invalid) {
		t.Errorf("EnableAudit of what cannot work = %v, want Invalid", err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
