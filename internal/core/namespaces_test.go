package core_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// space makes a namespace and gives its id.
func (r *rig) space(path string) string {
	r.t.Helper()
	n, err := r.c.AddNamespace(r.t.Context(), token.RootNamespace, path, nil)
	if err != nil {
		r.t.Fatalf("AddNamespace(%q) = %v", path, err)
	}
	return n.ID
}

func (r *rig) mountIn(ns, path, typ string) {
	r.t.Helper()
	if err := r.c.AddMount(r.t.Context(), &core.Mount{Namespace: ns, Path: path, Class: core.ClassSecret, Type: typ}); err != nil {
		r.t.Fatalf("AddMount(%q) in %s = %v", path, ns, err)
	}
}

// tokenIn makes a root token of a namespace.
func (r *rig) tokenIn(ns string, policies ...string) *token.Token {
	r.t.Helper()
	t, err := r.c.CreateToken(r.t.Context(), &token.Entry{Namespace: ns, Policies: policies, Expires: time.Now().Add(time.Hour), TTL: time.Hour}, secret.String{})
	if err != nil {
		r.t.Fatalf("CreateToken in %s = %v", ns, err)
	}
	return t
}

func TestNamesOfNamespaces(t *testing.T) {
	r := open(t, mem.New())
	r.mount("kv/deep/", "kv", nil)
	r.space("a")
	r.space("Ünï-1.x")
	for _, path := range []string{
		"", "/", "root", "Root", "sys", "auth", "audit", "cubbyhole", "identity", "api-lock", ".", "..", "b c", "b\tc", "b*", "+",
		"b%41", "b?c", "b#c", `b\c`, `b"c`, "b\xff", "b\u200bc", strings.Repeat("n", 129), "a", "a/", "nowhere/b", "a/../b", "kv", "a/sys", "a//b",
	} {
		if n, err := r.c.AddNamespace(t.Context(), token.RootNamespace, path, nil); !errs.Is(err, errs.Invalid) {
			t.Errorf("AddNamespace(%q) = %q, %v, want Invalid", path, n.Path, err)
		}
	}
	if err := r.c.AddMount(t.Context(), &core.Mount{Namespace: token.RootNamespace, Path: "a/kv/", Class: core.ClassSecret, Type: "kv"}); !errs.Is(err, errs.Invalid) {
		t.Errorf("a mount below a namespace = %v, want Invalid", err)
	}
	if err := r.c.MoveMount(t.Context(), token.RootNamespace, "kv/deep/", "a/"); !errs.Is(err, errs.Invalid) {
		t.Errorf("moving a mount to a namespace = %v, want Invalid", err)
	}
	deep := "a"
	for i := 2; i <= 16; i++ {
		deep += "/n"
		r.space(deep)
	}
	if _, err := r.c.AddNamespace(t.Context(), token.RootNamespace, deep+"/n", nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("a namespace 17 deep = %v, want Invalid", err)
	}
}

// poolsForget is set where what a request allocates is not the same each time.
var poolsForget bool

// TestRootCostsNothing compares a request of the root with and without other
// namespaces: it allocates no more, and asks the store for no more.
func TestRootCostsNothing(t *testing.T) {
	db := fault.Wrap(mem.New())
	r := open(t, db)
	r.mount("kv/", "kv", nil)
	r.ok(wire.OpUpdate, "kv/app", r.root, `{"a":"b"}`)
	req := core.Request{ID: "r", Op: wire.OpRead, Path: "kv/app", Token: r.root}
	cost := func() (allocs float64, calls int) {
		r.ok(wire.OpRead, "kv/app", r.root, "")
		db.Set(nil)
		one := req
		if p := r.c.Handle(t.Context(), &one); p.Err != nil {
			t.Fatal(p.Err)
		}
		calls = len(db.Calls())
		return testing.AllocsPerRun(200, func() {
			one := req
			r.c.Handle(t.Context(), &one)
		}), calls
	}
	allocs, calls := cost()
	for _, path := range []string{"team", "team/app", "other"} {
		r.space(path)
	}
	if poolsForget {
		allocs += 2
	}
	if a, c := cost(); a > allocs || c != calls {
		t.Errorf("a request of the root makes %v allocations and %d calls of the store, %v and %d without other namespaces", a, c, allocs, calls)
	}
}

// TestNamespaceEndIsCutAnywhere kills the store at each of its calls while a
// namespace is deleted and ended, and again while its last rows go. After a
// restart it is either there with its lease, or gone with everything that had
// its id.
func TestNamespaceEndIsCutAnywhere(t *testing.T) {
	cut := func(n int, late bool) (calls int) {
		synctest.Test(t, func(t *testing.T) {
			db := fault.Wrap(mem.New())
			l := newLab(t, db)
			rootUser, _ := l.issue("db/creds/r", l.root)
			before := l.rows()
			id := l.space("team")
			l.mountIn(id, "db/", "issuer")
			if err := l.c.WritePolicy(t.Context(), core.ACLPolicy, id, "p", `path "x" { capabilities = ["read"] }`); err != nil {
				t.Fatal(err)
			}
			for ns, path := range map[string]string{id: "", token.RootNamespace: "team/db"} {
				for kind, q := range map[core.QuotaKind]core.Quota{core.RateLimit: {Rate: 1e6}, core.LeaseCount: {MaxLeases: 1e6}} {
					q.Name, q.Path = "team", path
					if err := l.c.WriteQuota(t.Context(), ns, kind, q); err != nil {
						t.Fatal(err)
					}
				}
			}
			tok := l.tokenIn(id, "root")
			l.ok(wire.OpUpdate, "team/db/config", tok.Text, "")
			l.ok(wire.OpUpdate, "team/cubbyhole/x", tok.Text, `{"a":"b"}`)
			user, lid := l.issue("team/db/creds/a", tok.Text)
			other, _ := l.issue("team/db/creds/b", l.root) // by a token of the root
			synctest.Wait()
			plan := fault.Plan(nil)
			if n > 0 {
				plan = fault.From(n)
			}
			if !late {
				db.Set(plan)
			}
			_, err := l.c.RemoveNamespace(t.Context(), token.RootNamespace, "team")
			if late {
				later(10*time.Minute - 2*time.Second)
				db.Set(plan)
				later(10 * time.Second)
			}
			later(4 * time.Second) // the sweep, and the lanes
			calls = len(db.Calls())
			l.c.Stop(0)
			db.Set(nil)
			l.start()
			l.unseal()
			later(30 * time.Minute)

			_, there, nerr := l.c.NamespaceAt(t.Context(), token.RootNamespace, "team")
			if nerr != nil {
				t.Fatal(nerr)
			}
			if err == nil && there {
				t.Errorf("call %d: the deletion was acknowledged, and the namespace is there", n)
			}
			if there {
				l.want("after a deletion that did not begin", rootUser, user, other)
				if _, err := l.leases().Lookup(t.Context(), id, lid); err != nil {
					t.Errorf("call %d: the namespace is there and its lease is not: %v", n, err)
				}
				return
			}
			l.want("after a deletion that was cut", rootUser)
			for _, k := range l.rows() {
				if strings.Contains(k, id) {
					t.Errorf("call %d: a row is left: %s", n, k)
				}
			}
			if p := l.do(wire.OpRead, "db/creds/r", tok.Text, ""); !errs.Is(p.Err, errs.Denied) {
				t.Errorf("call %d: a token of a namespace that is gone = %v, want Denied", n, p.Err)
			}
			if after := l.rows(); n == 0 && len(after) != len(before) {
				for _, k := range after {
					if !slices.Contains(before, k) {
						t.Errorf("a row is new: %s", k)
					}
				}
			}
		})
		return calls
	}
	for _, late := range []bool{false, true} {
		calls := cut(0, late)
		if calls < 50 {
			t.Fatalf("a deletion makes %d calls of the store, want more: the test looks at nothing", calls)
		}
		for n := 1; n <= calls; n++ {
			cut(n, late)
		}
	}
}

// TestNamespaceEndsAtOnce: from the answer on nothing of a deleted namespace
// works, whatever is left of it, and its name can be used again.
func TestNamespaceEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLab(t, mem.New()), t.Context()
		id := l.space("team")
		l.mountIn(id, "db/", "issuer")
		service := l.tokenIn(id, "root")
		batch, err := l.c.CreateToken(ctx, &token.Entry{Namespace: id, Type: token.Batch, Policies: []string{"root"}, TTL: time.Hour, Expires: time.Now().Add(time.Hour)}, secret.String{})
		if err != nil {
			t.Fatal(err)
		}
		_, lid := l.issue("team/db/creds/a", service.Text)
		l.issue("team/db/creds/b", batch.Text)
		if !strings.HasSuffix(service.Text.Reveal(), "."+id) || !strings.HasSuffix(service.Accessor, "."+id) || !strings.HasSuffix(string(lid), "."+id) {
			t.Errorf("the names %q and %q do not end in .%s", service.Accessor, lid, id)
		}
		l.space("team/app")
		if _, err := l.c.RemoveNamespace(ctx, token.RootNamespace, "team"); !errs.Is(err, errs.Invalid) {
			t.Fatalf("deleting a namespace with one below it = %v, want Invalid", err)
		}
		if _, err := l.c.RemoveNamespace(ctx, id, ""); !errs.Is(err, errs.Invalid) {
			t.Errorf("a namespace that deletes itself = %v, want Invalid", err)
		}
		if _, err := l.c.RemoveNamespace(ctx, token.RootNamespace, ""); !errs.Is(err, errs.Invalid) {
			t.Errorf("deleting the root = %v, want Invalid", err)
		}
		l.target.setDown(true)
		for _, path := range []string{"team/app", "team"} {
			if there, err := l.c.RemoveNamespace(ctx, token.RootNamespace, path); err != nil || !there {
				t.Fatalf("RemoveNamespace(%q) = %v, %v", path, there, err)
			}
		}
		if there, err := l.c.RemoveNamespace(ctx, token.RootNamespace, "team"); err != nil || there {
			t.Errorf("RemoveNamespace again = %v, %v", there, err)
		}
		for _, tok := range []secret.String{service.Text, batch.Text, l.root} {
			if p := l.do(wire.OpRead, "team/db/creds/a", tok, ""); p.Err == nil {
				t.Error("a deleted namespace issues credentials")
			}
		}
		for _, tok := range []secret.String{service.Text, batch.Text} {
			if _, err := mustTokens(l).Lookup(ctx, tok); err != token.ErrInvalid {
				t.Errorf("a token of a deleted namespace = %v, want ErrInvalid", err)
			}
		}
		if err := l.c.AddMount(ctx, &core.Mount{Namespace: id, Path: "late/", Class: core.ClassSecret, Type: "kv"}); err == nil {
			t.Error("a mount was made in a deleted namespace")
		}
		if _, err := l.c.CreateToken(ctx, &token.Entry{Namespace: id, Policies: []string{"root"}}, secret.String{}); err == nil {
			t.Error("a token was made in a deleted namespace")
		}
		again := l.space("team")
		l.mountIn(again, "db/", "issuer")
		later(time.Hour)
		if n := count(l.rows(), "lease/"+id); n != 2 {
			t.Errorf("%d leases wait for their target, want 2", n)
		}
		l.target.setDown(false)
		user, _ := l.issue("team/db/creds/c", l.root)
		later(time.Hour)
		l.want("when the target is back", user)
		for _, k := range l.rows() {
			if strings.Contains(k, id) {
				t.Errorf("a row is left: %s", k)
			}
		}
	})
}

// TestNamespaceWithManyLeases: ending a namespace with 5,000 leases holds up
// neither the answer nor anybody else.
func TestNamespaceWithManyLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLab(t, mem.New()), t.Context()
		id := l.space("team")
		l.mountIn(id, "db/", "issuer")
		tok := l.tokenIn(id, "root")
		for i := range 5000 {
			l.issue(fmt.Sprintf("team/db/creds/r%d", i%10), tok.Text)
		}
		synctest.Wait()
		begun := time.Now()
		if _, err := l.c.RemoveNamespace(ctx, token.RootNamespace, "team"); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			_, lid := l.issue("db/creds/r", l.root)
			if _, err := l.leases().Revoke(ctx, token.RootNamespace, lid, lease.Revoked, true); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(begun); d > 2*time.Second {
			t.Errorf("20 credentials of the root took %v while a namespace ended", d)
		}
		later(time.Hour)
		l.want("after the end of the namespace")
		for _, k := range l.rows() {
			if strings.Contains(k, id) {
				t.Fatalf("a row is left: %s", k)
			}
		}
	})
}

// TestUnreadableNamespace: one whose row is damaged is not there, nor what is
// below it; everything else is, and nothing of it is deleted.
func TestUnreadableNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mem.New()
		l := newLab(t, db)
		id := l.space("team")
		below := l.space("team/app")
		l.mountIn(id, "db/", "issuer")
		tok, deep := l.tokenIn(id, "root"), l.tokenIn(below, "root")
		user, _ := l.issue("team/db/creds/a", tok.Text)
		l.space("other")
		if _, err := db.Update(t.Context(), func(tx storage.Tx) error { return tx.Put("ns/"+id, []byte("\x01nonsense")) }); err != nil {
			t.Fatal(err)
		}
		l.restart()
		for path, tok := range map[string]secret.String{"team/db/creds/a": tok.Text, "team/app/sys/mounts": deep.Text, "team/app/sys": l.root} {
			if p := l.do(wire.OpRead, path, tok, ""); p.Err == nil {
				t.Errorf("read %s answers although its namespace cannot be read", path)
			}
		}
		later(10 * time.Minute)
		l.want("while a namespace cannot be read", user)
		if _, there, err := l.c.NamespaceAt(t.Context(), token.RootNamespace, "other"); err != nil || !there {
			t.Errorf("the other namespace = %v, %v", there, err)
		}
	})
}
