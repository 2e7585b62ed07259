// Package fault is a storage.Backend around another one that fails where a
// test says: at the n-th call, at a kind of call, from some moment on. Calls
// are counted, so a test can run a story once without faults, see how many
// calls it makes, and then run it once per call with a fault at just that one.
//
// An Update has two calls of its own at its end. A fault at Commit means that
// nothing was written. A fault at Answer means that the writes are durable and
// the caller is told otherwise: the unknown outcome that every caller of a
// store must live with.
package fault

import (
	"context"
	"errors"
	"sync"

	"github.com/leasehold/leasehold/internal/storage"
)

// ErrInjected is the error that At, From and On give.
var ErrInjected = errors.New("fault: injected")

// Op is a kind of call.
type Op string

// The kinds of call, in the order in which they happen.
const (
	View   Op = "view"
	Get    Op = "get"
	Scan   Op = "scan" // also ScanDesc
	Begin  Op = "begin"
	Put    Op = "put"
	Delete Op = "delete"
	Commit Op = "commit"
	Answer Op = "answer"
)

// Call is one call of the store.
type Call struct {
	N   int // counted from 1
	Op  Op
	Key string // the key, or a scan's lower bound
}

// Plan decides whether a call fails. It is called under a lock, in order.
type Plan func(Call) error

// At fails the n-th call.
func At(n int) Plan { return If(func(c Call) bool { return c.N == n }) }

// From fails the n-th call and all after it, as a store that has died.
func From(n int) Plan { return If(func(c Call) bool { return c.N >= n }) }

// On fails the nth call of a kind, counted from 1.
func On(op Op, nth int) Plan {
	return If(func(c Call) bool {
		if c.Op == op {
			nth--
		}
		return c.Op == op && nth == 0
	})
}

// If fails the calls for which cond says so.
func If(cond func(Call) bool) Plan {
	return func(c Call) error {
		if cond(c) {
			return ErrInjected
		}
		return nil
	}
}

// Store is the Backend that fails. Make one with Wrap.
type Store struct {
	b storage.Backend

	mu    sync.Mutex
	plan  Plan
	calls []Call
}

var _ storage.Backend = (*Store)(nil)

// Wrap puts a Store around b. It fails nothing until Set.
func Wrap(b storage.Backend) *Store { return &Store{b: b} }

// Set starts counting anew with another plan; nil fails nothing.
func (s *Store) Set(p Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan, s.calls = p, nil
}

// Calls are the calls since Set.
func (s *Store) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.calls...)
}

func (s *Store) call(op Op, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := Call{len(s.calls) + 1, op, key}
	s.calls = append(s.calls, c)
	if s.plan == nil {
		return nil
	}
	return s.plan(c)
}

// View implements storage.Backend.
func (s *Store) View(ctx context.Context, fn func(storage.View) error) error {
	if err := s.call(View, ""); err != nil {
		return err
	}
	return s.b.View(ctx, func(v storage.View) error { return fn(&view{v, s}) })
}

// Update implements storage.Backend.
func (s *Store) Update(ctx context.Context, fn func(storage.Tx) error) (storage.Revision, error) {
	if err := s.call(Begin, ""); err != nil {
		return 0, err
	}
	rev, err := s.b.Update(ctx, func(t storage.Tx) error {
		tx := &tx{t: t, s: s}
		if err := fn(tx); err != nil {
			return err
		}
		if tx.err != nil { // the contract: an error of the store fails the Update
			return tx.err
		}
		return s.call(Commit, "")
	})
	if err == nil {
		err = s.call(Answer, "")
	}
	if err != nil {
		return 0, err
	}
	return rev, nil
}

// Watch implements storage.Backend. It does not fail.
func (s *Store) Watch(ctx context.Context, from storage.Revision, fn func([]storage.Change) error) error {
	return s.b.Watch(ctx, from, fn)
}

// Close closes the store within.
func (s *Store) Close() error { return s.b.Close() }

type view struct {
	storage.View
	s *Store
}

func (v *view) Get(key string) ([]byte, error) {
	if err := v.s.call(Get, key); err != nil {
		return nil, err
	}
	return v.View.Get(key)
}

func (v *view) Scan(from, to string, limit int, fn func(string, []byte) bool) error {
	if err := v.s.call(Scan, from); err != nil {
		return err
	}
	return v.View.Scan(from, to, limit, fn)
}

func (v *view) ScanDesc(from, to string, limit int, fn func(string, []byte) bool) error {
	if err := v.s.call(Scan, from); err != nil {
		return err
	}
	return v.View.ScanDesc(from, to, limit, fn)
}

type tx struct {
	t   storage.Tx
	s   *Store
	err error
}

func (t *tx) call(op Op, key string) error {
	if t.err == nil {
		t.err = t.s.call(op, key)
	}
	return t.err
}

func (t *tx) Get(key string) ([]byte, error) {
	if err := t.call(Get, key); err != nil {
		return nil, err
	}
	return t.t.Get(key)
}

func (t *tx) Put(key string, value []byte) error {
	if err := t.call(Put, key); err != nil {
		return err
	}
	return t.t.Put(key, value)
}

func (t *tx) Delete(key string) error {
	if err := t.call(Delete, key); err != nil {
		return err
	}
	return t.t.Delete(key)
}
