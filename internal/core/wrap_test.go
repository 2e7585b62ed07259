package core_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// TestAnswerThatCannotBeWrapped checks that a login made for an answer which
// then could not be wrapped is taken back.
func TestAnswerThatCannotBeWrapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := fault.Wrap(mem.New())
		l := newLab(t, db)
		db.Set(fault.If(func(c fault.Call) bool { return c.Op == fault.Put && strings.HasPrefix(c.Key, "wrap/") }))
		p := l.c.Handle(t.Context(), &core.Request{ID: "w", Op: wire.OpRead, Path: "db/creds/a", Token: l.root, WrapTTL: time.Minute})
		if p.Err == nil || p.Wrap != nil || p.Data != nil || p.Sent != nil {
			t.Fatalf("an answer that cannot be wrapped = %+v, want an error alone", p)
		}
		db.Set(nil)
		later(time.Minute)
		l.want("after an answer that could not be wrapped")
		if k := l.rows(); count(k, "lease/")+count(k, "wrap/") > 0 || count(k, "tok/") != 1 {
			t.Errorf("rows are left of it: %q", k)
		}
	})
}

// TestWrappedLogin checks that a wrapped login stands like any other, and is
// taken back if the client is gone before it reads the wrapping token.
func TestWrappedLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLab(t, mem.New()), t.Context()
		wrapped := func() *core.Response {
			p := l.c.Handle(ctx, &core.Request{ID: "w", Op: wire.OpRead, Path: "db/creds/a", Token: l.root, WrapTTL: time.Minute})
			if p.Err != nil || p.Wrap == nil || p.Sent == nil {
				t.Fatalf("a wrapped login = %+v", p)
			}
			return p
		}
		p := wrapped()
		p.Sent(false)
		later(time.Minute)
		l.want("when its client has gone")
		p = wrapped()
		p.Sent(true)
		whole, err := l.c.Unwrap(ctx, p.Wrap.Token)
		if err != nil || whole.LeaseID == "" {
			t.Fatalf("Unwrap = %+v, %v, want a lease", whole, err)
		}
		if _, err := l.leases().Lookup(ctx, "root", lease.ID(whole.LeaseID)); err != nil {
			t.Errorf("Lookup of a wrapped lease = %v", err)
		}
		p = wrapped()
		p.Sent(true)
		later(2 * time.Minute)
		if n := count(l.rows(), "wrap/"); n > 0 {
			t.Errorf("%d wrapped answers outlived their tokens", n)
		}
	})
}

// TestRewrapping: a wrapped answer is in one place, whatever fails and whoever
// is quicker.
func TestRewrapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := fault.Wrap(mem.New())
		l, ctx := newLab(t, db), t.Context()
		l.mount("kv/", "kv", nil)
		l.ok(wire.OpUpdate, "kv/app", l.root, `{"a":"b"}`)
		p := l.c.Handle(ctx, &core.Request{ID: "w", Op: wire.OpRead, Path: "kv/app", Token: l.root, WrapTTL: time.Hour})
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		db.Set(fault.On(fault.Commit, 2)) // the answer in its new place
		if _, err := l.c.Rewrap(ctx, p.Wrap.Token); err == nil {
			t.Error("Rewrap succeeded without storing the answer")
		}
		db.Set(nil)
		infos := make([]*core.WrapInfo, 4)
		results := together(len(infos), func(i int) (err error) {
			infos[i], err = l.c.Rewrap(ctx, p.Wrap.Token)
			return err
		})
		if n := succeeded(t, results, invalid); n != 1 {
			t.Fatalf("%d of 4 rewrappings at once succeeded, want one", n)
		}
		if _, err := l.c.Unwrap(ctx, p.Wrap.Token); !errs.Is(err, errs.Invalid) {
			t.Errorf("Unwrap of a rewrapped token = %v, want Invalid", err)
		}
		for _, info := range infos {
			if info == nil {
				continue
			}
			if whole, err := l.c.Unwrap(ctx, info.Token); err != nil || string(whole.Data.AppendJSON(nil)) != `{"a":"b"}` {
				t.Errorf("Unwrap = %+v, %v", whole, err)
			}
		}
		later(time.Minute)
		if k := l.rows(); count(k, "wrap/") > 0 || count(k, "tok/") != 1 {
			t.Errorf("rows are left of it: %q", k)
		}
	})
}
