package core_test

import (
	"context"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// Whatever call of the store fails while the server is unsealed, unsealing
// says so, and works the next time.
func TestUnsealOverAFailingStore(t *testing.T) {
	store := fault.Wrap(mem.New())
	r := open(t, store)
	r.mount("kv/", "kv", nil)
	r.ok(wire.OpUpdate, "kv/app", r.root, `{"a":"b"}`)
	failed := 0
	for n := 1; ; n++ {
		if err := r.c.Seal(); err != nil {
			t.Fatal(err)
		}
		store.Set(fault.At(n))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		var err error
		for _, k := range r.keys[:2] {
			if err == nil {
				err = r.c.Unseal(ctx, k)
			}
		}
		if ctx.Err() != nil {
			t.Errorf("call %d failed: unsealing hung", n)
		}
		cancel()
		calls := len(store.Calls())
		store.Set(nil)
		if err != nil {
			failed++
			r.c.ResetUnseal()
			r.unseal()
		}
		r.ok(wire.OpRead, "kv/app", r.root, "")
		if calls < n {
			break
		}
	}
	if failed < 5 {
		t.Errorf("unsealing failed %d times, want some more", failed)
	}
}
