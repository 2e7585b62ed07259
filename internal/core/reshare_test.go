package core_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// meddling calls a func before the first transaction that the owner of a
// context begins when the server is open.
type meddling struct {
	storage.Backend
	armed  atomic.Bool
	opened func() bool
	fn     func()
}

type meddlingKey struct{}

func (m *meddling) before(ctx context.Context) {
	if ctx.Value(meddlingKey{}) != nil && m.armed.Load() && m.opened() && m.armed.CompareAndSwap(true, false) {
		m.fn()
	}
}

func (m *meddling) View(ctx context.Context, fn func(storage.View) error) error {
	m.before(ctx)
	return m.Backend.View(ctx, fn)
}

func (m *meddling) Update(ctx context.Context, fn func(storage.Tx) error) (storage.Revision, error) {
	m.before(ctx)
	return m.Backend.Update(ctx, fn)
}

// TestRekeyWhileOpening: a rekey right after the server has opened itself does
// not have its slot overwritten with the key that opened it.
func TestRekeyWhileOpening(t *testing.T) {
	key, err := seal.NewStatic(seal.StaticConfig{CurrentKeyID: "1", CurrentKey: "0123456789abcdef0123456789abcdef"})
	if err != nil {
		t.Fatal(err)
	}
	db := &meddling{Backend: mem.New()}
	start := func() *core.Core {
		c := newCore(db, nil, func(conf *core.Config) { conf.Seal.Wrappers = []seal.Wrapper{key} })
		t.Cleanup(func() { c.Stop(time.Second) })
		return c
	}
	c := start()
	in, err := c.Init(t.Context(), seal.Params{Shares: 3, Threshold: 2}, secret.String{})
	if err != nil {
		t.Fatal(err)
	}
	c.Stop(time.Second)
	c = start()
	rekey := func() {
		_, commit, err := c.Reshare(t.Context(), in.Shares[:2], 3, 2)
		if err == nil {
			err = commit(t.Context())
		}
		if err != nil {
			t.Error(err)
		}
	}
	db.fn = rekey
	ctx := context.WithValue(t.Context(), meddlingKey{}, true)
	db.opened = func() bool { _, sealed, _ := c.Health(t.Context()); return !sealed }
	db.armed.Store(true)
	if opened, err := c.AutoUnseal(ctx); err != nil || !opened {
		t.Fatalf("AutoUnseal = %v, %v", opened, err)
	}
	if db.armed.CompareAndSwap(true, false) {
		rekey()
	}
	c.Stop(time.Second)
	c = start()
	if opened, err := c.AutoUnseal(t.Context()); err != nil || !opened {
		t.Errorf("AutoUnseal after the rekey = %v, %v", opened, err)
	}
}

// TestReshareTriedAgain: a rekey that the store refused is tried again with the
// shares that were handed out, and these open the server afterwards.
func TestReshareTriedAgain(t *testing.T) {
	db := fault.Wrap(mem.New())
	r := open(t, db)
	made, commit, err := r.c.Reshare(t.Context(), r.keys[:2], 3, 2)
	if err != nil {
		t.Fatal(err)
	}
	db.Set(fault.On(fault.Commit, 1))
	if err := commit(t.Context()); !errors.Is(err, fault.ErrInjected) {
		t.Fatalf("commit over a failing store = %v, want its error", err)
	}
	db.Set(nil)
	if err := commit(t.Context()); err != nil {
		t.Fatalf("the second commit = %v", err)
	}
	if err := r.c.Seal(); err != nil {
		t.Fatal(err)
	}
	r.keys = made
	r.unseal()
	if _, sealed, err := r.c.Health(t.Context()); err != nil || sealed {
		t.Errorf("after the new shares the server is sealed: %v, %v", sealed, err)
	}
}

// TestReshareThatIsStored: once the new shares open the server, that the store
// fails afterwards makes no failure of it.
func TestReshareThatIsStored(t *testing.T) {
	db := fault.Wrap(mem.New())
	r := open(t, db)
	made, commit, err := r.c.Reshare(t.Context(), r.keys[:2], 3, 2)
	if err != nil {
		t.Fatal(err)
	}
	db.Set(fault.On(fault.Answer, 1))
	if err := commit(t.Context()); err != nil {
		t.Errorf("commit = %v, and the new shares count", err)
	}
	db.Set(nil)
	if _, err := r.c.RotateKey(t.Context()); err != nil {
		t.Error(err)
	}
	if err := r.c.Seal(); err != nil {
		t.Fatal(err)
	}
	r.keys = made
	r.unseal()
	if _, sealed, err := r.c.Health(t.Context()); err != nil || sealed {
		t.Errorf("after the new shares the server is sealed: %v, %v", sealed, err)
	}
}

// TestOldShares: after a rekey only the new shares open the server.
func TestOldShares(t *testing.T) {
	db := mem.New()
	r := open(t, db)
	if _, _, err := r.c.Reshare(t.Context(), r.keys[:1], 3, 2); err == nil {
		t.Error("one share of two made new ones")
	}
	made, commit, err := r.c.Reshare(t.Context(), r.keys[:2], 3, 2)
	if err != nil {
		t.Fatal(err)
	}
	restart := func() {
		r.c.Stop(time.Second)
		r.c = newCore(db, nil, nil)
		t.Cleanup(func() { r.c.Stop(time.Second) })
	}
	if err := commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := r.keys
	restart()
	var last error
	for _, k := range old[:2] {
		last = r.c.Unseal(t.Context(), k)
	}
	if !errs.Is(last, errs.Invalid) {
		t.Errorf("Unseal with old shares = %v, want Invalid", last)
	}
	if _, sealed, _ := r.c.Health(t.Context()); !sealed {
		t.Fatal("old shares have opened the server")
	}
	r.keys = made
	r.unseal()
	r.ok(wire.OpUpdate, "cubbyhole/x", r.root, `{"a":"b"}`)
}
