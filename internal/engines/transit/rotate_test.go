package transit_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// TestConcurrentRotation encrypts while the key is rotated and configured.
func TestConcurrentRotation(t *testing.T) {
	m := newMount(t)
	m.must("keys/k", nil, nil)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				status, data, err := m.ask(wire.OpUpdate, "encrypt/k", object{"plaintext": "QQ=="})
				if err != nil || status != 200 {
					t.Errorf("encrypt = %d, %s, %v", status, data, err)
					return
				}
			}
		})
	}
	for range 200 {
		m.must("keys/k/rotate", nil, nil)
	}
	close(stop)
	wg.Wait()
}

// TestAutomaticRotation lets a key's period run out.
func TestAutomaticRotation(t *testing.T) {
	store := mem.New()
	m := open(t, store)
	m.must("keys/auto", object{"auto_rotate_period": "2h"}, nil)
	m.must("keys/never", nil, nil)
	latest := func(m *mount, key string) int {
		var out struct {
			Latest int `json:"latest_version"`
		}
		m.mustDo(wire.OpRead, "keys/"+key, nil, &out)
		return out.Latest
	}
	// Another server's clock is past the period: it looks as it starts.
	for i := 2; i < 5; i++ {
		next := openAhead(t, store, time.Duration(i)*3*time.Hour)
		within(t, func() bool { return latest(next, "auto") >= i })
		if got := latest(next, "auto"); got != i {
			t.Errorf("after %d periods the key has %d versions, want %d", i-1, got, i)
		}
	}
	if got := latest(m, "never"); got != 1 {
		t.Errorf("a key without a period has %d versions", got)
	}

	// A key has one plan, or none.
	planned := func(when string, want int) {
		t.Helper()
		prefix, n := engine.DueOf("transit").Range(), 0
		err := store.View(t.Context(), func(v storage.View) error {
			return v.Scan(prefix, storage.PrefixEnd(prefix), 0, func(string, []byte) bool { n++; return true })
		})
		if err != nil || n != want {
			t.Errorf("%s %d rotations are planned, %v, want %d", when, n, err, want)
		}
	}
	planned("after rotating by themselves", 1)
	m.must("keys/auto/rotate", nil, nil)
	planned("after rotating", 1)
	m.must("keys/auto/config", object{"auto_rotate_period": "5h"}, nil)
	planned("with another period", 1)
	m.must("keys/never/config", object{"auto_rotate_period": "1h"}, nil)
	planned("with two periods", 2)
	m.must("keys/auto/config", object{"auto_rotate_period": "0"}, nil)
	planned("without a period", 1)
	m.must("keys/never/config", object{"deletion_allowed": true}, nil)
	m.mustDo(wire.OpDelete, "keys/never", nil, nil)
	planned("after deleting the key", 0)
}

// TestRotationThatCannotBe lets the period of a soft-deleted key run out: it
// keeps its versions, and its next rotation is a period later.
func TestRotationThatCannotBe(t *testing.T) {
	store := mem.New()
	m := open(t, store)
	m.must("keys/k", object{"auto_rotate_period": "2h"}, nil)
	m.mustDo(wire.OpDelete, "keys/k/soft-delete", nil, nil)
	due := func() (at string) {
		prefix := engine.DueOf("transit").Range()
		if err := store.View(t.Context(), func(v storage.View) error {
			return v.Scan(prefix, storage.PrefixEnd(prefix), 0, func(key string, _ []byte) bool { at += key; return true })
		}); err != nil {
			t.Fatal(err)
		}
		return at
	}
	before := due()
	next := openAhead(t, store, 3*time.Hour)
	within(t, func() bool { return due() != before })
	next.must("keys/k/soft-delete-restore", nil, nil)
	var out struct {
		Latest int `json:"latest_version"`
	}
	next.mustDo(wire.OpRead, "keys/k", nil, &out)
	if out.Latest != 1 || strings.Count(due(), "/k") != 1 {
		t.Errorf("a soft-deleted key has %d versions, and the plans are %s", out.Latest, due())
	}
}
