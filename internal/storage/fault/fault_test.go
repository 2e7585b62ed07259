package fault_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/storage/storagetest"
)

func TestStoreWithoutFaults(t *testing.T) {
	storagetest.Run(t, func(testing.TB) storage.Backend { return fault.Wrap(mem.New()) })
}

// story is a small piece of work: move a row and look at the result.
func story(b storage.Backend) error {
	_, err := b.Update(context.Background(), func(tx storage.Tx) error {
		v, err := tx.Get("from")
		if err != nil {
			return err
		}
		_ = tx.Delete("from") // its error is not looked at: the Update must fail all the same
		return tx.Put("to", v)
	})
	if err != nil {
		return err
	}
	return b.View(context.Background(), func(v storage.View) error {
		if _, err := v.Get("to"); err != nil {
			return err
		}
		return v.Scan("", "", 0, func(string, []byte) bool { return true })
	})
}

func TestEachCall(t *testing.T) {
	clean := fault.Wrap(mem.New())
	if err := story(clean); err != nil {
		t.Fatalf("without faults: %v", err)
	}
	var ops []fault.Op
	for _, c := range clean.Calls() {
		ops = append(ops, c.Op)
	}
	want := []fault.Op{fault.Begin, fault.Get, fault.Delete, fault.Put, fault.Commit, fault.Answer, fault.View, fault.Get, fault.Scan}
	if fmt.Sprint(ops) != fmt.Sprint(want) {
		t.Fatalf("calls = %v, want %v", ops, want)
	}
	for _, c := range clean.Calls() {
		s := fault.Wrap(mem.New())
		storagetest.Put(t, s, "from", "x")
		s.Set(fault.At(c.N))
		if err := story(s); !errors.Is(err, fault.ErrInjected) {
			t.Errorf("with a fault at %v: %v, want ErrInjected", c, err)
		}
		s.Set(nil)
		_, from := storagetest.Get(t, s, "from")
		_, to := storagetest.Get(t, s, "to")
		if done := c.N >= 6; from == done || to != done { // Answer is the 6th: committed, but not said
			t.Errorf("with a fault at %v: from there: %v, to there: %v", c, from, to)
		}
	}
}

func TestPlans(t *testing.T) {
	s := fault.Wrap(mem.New())
	s.Set(fault.On(fault.Commit, 2))
	for i, want := range []bool{true, false, true} {
		_, err := s.Update(context.Background(), func(tx storage.Tx) error { return tx.Put(fmt.Sprint(i), nil) })
		if (err == nil) != want {
			t.Errorf("Update %d with a fault at the second commit = %v", i, err)
		}
	}
	s.Set(fault.From(6)) // in the second Update, which makes calls 5 to 8
	for i, want := range []bool{true, false, false} {
		_, err := s.Update(context.Background(), func(tx storage.Tx) error { return tx.Put(fmt.Sprint(i), nil) })
		if (err == nil) != want {
			t.Errorf("Update %d of a store that dies at call 6 = %v", i, err)
		}
	}
}
