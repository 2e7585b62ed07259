// Package storagetest holds every storage.Backend to the contract written in
// package storage: Run for any store, RunDurable for those that promise to
// keep what they have acknowledged through a loss of power.
package storagetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/storage"
)

// Run tests a kind of store. open makes a new, empty one; Run closes it.
func Run(t *testing.T, open func(t testing.TB) storage.Backend) {
	tests := []struct {
		name string
		fn   func(*testing.T, storage.Backend)
	}{
		{"Values", testValues},
		{"Keys", testKeys},
		{"Scan", testScan},
		{"ScanModel", testScanModel},
		{"Snapshot", testSnapshot},
		{"Revision", testRevision},
		{"OwnWrites", testOwnWrites},
		{"Rollback", testRollback},
		{"Limits", testLimits},
		{"Context", testContext},
		{"Panic", testPanic},
		{"Increments", testIncrements},
		{"WriteSkew", testWriteSkew},
		{"Visible", testVisible},
		{"Watch", testWatch},
		{"WatchBacklog", testWatchBacklog},
		{"WatchBeforeAnswer", testWatchBeforeAnswer},
		{"WatchError", testWatchError},
		{"WatchLost", testWatchLost},
		{"Close", testClose},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t)
			defer func() {
				if err := b.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}()
			tt.fn(t, b)
		})
	}
}

// Put writes rows in one Update and fails the test when that fails.
func Put(t testing.TB, b storage.Backend, keyvalue ...string) storage.Revision {
	t.Helper()
	rev, err := b.Update(context.Background(), func(tx storage.Tx) error {
		for i := 0; i < len(keyvalue); i += 2 {
			if err := tx.Put(keyvalue[i], []byte(keyvalue[i+1])); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("Update(Put %.60q): %v", keyvalue, err)
	}
	return rev
}

// Delete deletes rows in one Update and fails the test when that fails.
func Delete(t testing.TB, b storage.Backend, keys ...string) storage.Revision {
	t.Helper()
	rev, err := b.Update(context.Background(), func(tx storage.Tx) error {
		for _, k := range keys {
			if err := tx.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("Update(Delete %q): %v", keys, err)
	}
	return rev
}

// Get reads one row and says whether it is there.
func Get(t testing.TB, b storage.Backend, key string) (value string, ok bool) {
	t.Helper()
	view(t, b, func(v storage.View) { value, ok = get(t, v, key) })
	return value, ok
}

// All reads every row from from to to.
func All(t testing.TB, b storage.Backend, from, to string) map[string]string {
	t.Helper()
	rows := map[string]string{}
	view(t, b, func(v storage.View) {
		err := v.Scan(from, to, 0, func(k string, val []byte) bool { rows[k] = string(val); return true })
		if err != nil {
			t.Fatalf("Scan(%q, %q): %v", from, to, err)
		}
	})
	return rows
}

func view(t testing.TB, b storage.Backend, fn func(storage.View)) {
	t.Helper()
	if err := b.View(context.Background(), func(v storage.View) error { fn(v); return nil }); err != nil {
		t.Fatalf("View: %v", err)
	}
}

func get(t testing.TB, r storage.Reader, key string) (string, bool) {
	t.Helper()
	v, err := r.Get(key)
	if err != nil {
		t.Fatalf("Get(%q): %v", key, err)
	}
	return string(v), v != nil
}

func testValues(t *testing.T, b storage.Backend) {
	big := strings.Repeat("x", 900<<10)
	value := []byte("scribbled on after Put")
	want := string(value)
	_, err := b.Update(context.Background(), func(tx storage.Tx) error {
		defer clear(value)
		return tx.Put("a", value)
	})
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	Put(t, b, "empty", "", "b", "1")
	Put(t, b, "b", "2")
	Put(t, b, "big", big)
	Put(t, b, "gone", "x")
	Delete(t, b, "gone", "never there")
	for key, want := range map[string]string{"a": want, "empty": "", "b": "2", "big": big} {
		if got, ok := Get(t, b, key); !ok || got != want {
			t.Errorf("Get(%q) = %.20q, %v, want %.20q, true", key, got, ok, want)
		}
	}
	for _, key := range []string{"gone", "never there", "", "a\x00", "B"} {
		if got, ok := Get(t, b, key); ok {
			t.Errorf("Get(%q) = %.20q, want nothing", key, got)
		}
	}
	_, err = b.Update(context.Background(), func(tx storage.Tx) error {
		if v, ok := get(t, tx, "empty"); !ok || v != "" {
			t.Errorf("in Update, Get of an empty value = %q, %v, want \"\", true", v, ok)
		}
		return nil
	})
	if err != nil {
		t.Errorf("an Update that only reads: %v", err)
	}
}

func testKeys(t *testing.T, b storage.Backend) {
	const layers = 16 // a layer such as a prefix view may need a little of the length
	good := []string{"a", "a/b c", "ключ/🔑", "\x01", "~", strings.Repeat("k", storage.MaxKeyBytes-layers)}
	for _, key := range good {
		Put(t, b, key, key)
		if got, ok := Get(t, b, key); !ok || got != key {
			t.Errorf("Get(%.20q) = %.20q, %v, want itself", key, got, ok)
		}
	}
	for _, key := range []string{"", "a\x00b", "\xff", strings.Repeat("k", storage.MaxKeyBytes+1)} {
		_, err := b.Update(context.Background(), func(tx storage.Tx) error {
			_ = tx.Put("other", []byte("x"))
			_ = tx.Put(key, []byte("x"))
			return nil
		})
		if !errors.Is(err, storage.ErrBadKey) {
			t.Errorf("Put(%.20q) = %v, want ErrBadKey", key, err)
		}
	}
	if got := slices.Sorted(maps.Keys(All(t, b, "", ""))); !slices.Equal(got, slices.Sorted(slices.Values(good))) {
		t.Errorf("keys = %.40q, want %.40q", got, good)
	}
}

func scan(t *testing.T, b storage.Backend, desc bool, from, to string, limit, stop int) []string {
	t.Helper()
	var keys []string
	view(t, b, func(v storage.View) {
		do := v.Scan
		if desc {
			do = v.ScanDesc
		}
		err := do(from, to, limit, func(k string, val []byte) bool {
			if string(val) != "v"+k {
				t.Errorf("scan gave %q = %q, want %q", k, val, "v"+k)
			}
			keys = append(keys, k)
			return stop == 0 || len(keys) < stop
		})
		if err != nil {
			t.Fatalf("scan: %v", err)
		}
	})
	return keys
}

func testScan(t *testing.T, b storage.Backend) {
	for _, k := range []string{"b", "a/2", "a", "a/10", "c/я", "c/z", "a/1", "a0"} {
		Put(t, b, k, "v"+k)
	}
	for _, tt := range []struct {
		from, to    string
		limit, stop int
		want        string
		desc        string
	}{
		{"", "", 0, 0, "a a/1 a/10 a/2 a0 b c/z c/я", "c/я c/z b a0 a/2 a/10 a/1 a"},
		{"a/", storage.PrefixEnd("a/"), 0, 0, "a/1 a/10 a/2", "a/2 a/10 a/1"},
		{"a/1", "a/2", 0, 0, "a/1 a/10", "a/10 a/1"},
		{"a/1\x00", "a/2", 0, 0, "a/10", "a/10"},
		{"", "", 3, 0, "a a/1 a/10", "c/я c/z b"},
		{"", "", 3, 2, "a a/1", "c/я c/z"},
		{"b", "", 0, 0, "b c/z c/я", "c/я c/z b"},
		{"b", "b", 0, 0, "", ""},
		{"c", "b", 0, 0, "", ""},
		{"d", "", 0, 0, "", ""},
	} {
		if got := strings.Join(scan(t, b, false, tt.from, tt.to, tt.limit, tt.stop), " "); got != tt.want {
			t.Errorf("Scan(%q, %q, %d) = %q, want %q", tt.from, tt.to, tt.limit, got, tt.want)
		}
		if got := strings.Join(scan(t, b, true, tt.from, tt.to, tt.limit, tt.stop), " "); got != tt.desc {
			t.Errorf("ScanDesc(%q, %q, %d) = %q, want %q", tt.from, tt.to, tt.limit, got, tt.desc)
		}
	}
}

// testScanModel does random work on the store and on a map and compares.
func testScanModel(t *testing.T, b storage.Backend) {
	rnd := rand.New(rand.NewPCG(1, 2))
	model := map[string]string{}
	key := func() string { return fmt.Sprintf("k%03d", rnd.IntN(400)) }
	for range 60 {
		var puts, dels []string
		for range 1 + rnd.IntN(40) {
			if k := key(); rnd.IntN(3) > 0 {
				puts = append(puts, k, "v"+k)
			} else {
				dels = append(dels, k)
			}
		}
		Put(t, b, puts...)
		Delete(t, b, dels...)
		for i := 0; i < len(puts); i += 2 {
			model[puts[i]] = puts[i+1]
		}
		for _, k := range dels {
			delete(model, k)
		}
		from, to := key(), key()
		var want []string
		for _, k := range slices.Sorted(maps.Keys(model)) {
			if k >= from && k < to {
				want = append(want, k)
			}
		}
		if got := scan(t, b, false, from, to, 0, 0); !slices.Equal(got, want) {
			t.Fatalf("Scan(%q, %q) = %q, want %q", from, to, got, want)
		}
		slices.Reverse(want)
		if got := scan(t, b, true, from, to, 0, 0); !slices.Equal(got, want) {
			t.Fatalf("ScanDesc(%q, %q) = %q, want %q", from, to, got, want)
		}
	}
	for k := range model { // down to nothing, in random order
		Delete(t, b, k)
	}
	if got := All(t, b, "", ""); len(got) != 0 {
		t.Errorf("after deleting all, rows = %q", got)
	}
}

func testSnapshot(t *testing.T, b storage.Backend) {
	Put(t, b, "a", "1", "b", "1")
	view(t, b, func(v storage.View) {
		Put(t, b, "a", "2", "c", "2")
		Delete(t, b, "b")
		for range 50 { // enough to make a store clean up
			Put(t, b, "a", strings.Repeat("3", 10000))
		}
		for key, want := range map[string]string{"a": "1", "b": "1", "c": ""} {
			if got, _ := get(t, v, key); got != want {
				t.Errorf("in an old View, Get(%q) = %.10q, want %q", key, got, want)
			}
		}
		n := 0
		if err := v.Scan("", "", 0, func(_ string, val []byte) bool { n += len(val); return true }); err != nil || n != 2 {
			t.Errorf("in an old View, Scan gave %d bytes, %v, want 2", n, err)
		}
		view(t, b, func(inner storage.View) {
			if inner.Revision() <= v.Revision() {
				t.Errorf("newer View has revision %d, the old one %d", inner.Revision(), v.Revision())
			}
			if got, _ := get(t, inner, "c"); got != "2" {
				t.Errorf("in a newer View, Get(c) = %q, want 2", got)
			}
		})
	})
}

func testRevision(t *testing.T, b storage.Backend) {
	var last storage.Revision
	for i := range 10 {
		rev := Put(t, b, "k", fmt.Sprint(i))
		if rev <= last {
			t.Errorf("revision %d after %d", rev, last)
		}
		view(t, b, func(v storage.View) {
			if v.Revision() < rev {
				t.Errorf("View at revision %d after an Update to %d", v.Revision(), rev)
			}
		})
		last = rev
	}
	rev, err := b.Update(context.Background(), func(storage.Tx) error { return nil })
	if err != nil || rev < last {
		t.Errorf("empty Update = %d, %v, want at least %d", rev, err, last)
	}
}

func testOwnWrites(t *testing.T, b storage.Backend) {
	Put(t, b, "a", "old", "b", "old")
	_, err := b.Update(context.Background(), func(tx storage.Tx) error {
		check := func(key, want string, wantOK bool) {
			t.Helper()
			if got, ok := get(t, tx, key); got != want || ok != wantOK {
				t.Errorf("Get(%q) = %q, %v, want %q, %v", key, got, ok, want, wantOK)
			}
		}
		before, err := tx.Get("a")
		if err != nil {
			return err
		}
		_ = tx.Put("a", []byte("new"))
		if string(before) != "old" {
			t.Errorf("a value read before Put turned into %q", before)
		}
		check("a", "new", true)
		_ = tx.Delete("b")
		check("b", "", false)
		_ = tx.Put("b", nil)
		check("b", "", true)
		_ = tx.Put("c", []byte("x"))
		_ = tx.Delete("c")
		check("c", "", false)
		_ = tx.Put("a", []byte("newer"))
		check("a", "newer", true)
		return nil
	})
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	if got := All(t, b, "", ""); !maps.Equal(got, map[string]string{"a": "newer", "b": ""}) {
		t.Errorf("rows = %q", got)
	}
}

func testRollback(t *testing.T, b storage.Backend) {
	Put(t, b, "a", "1")
	mine := errors.New("mine")
	_, err := b.Update(context.Background(), func(tx storage.Tx) error {
		_ = tx.Put("a", []byte("2"))
		_ = tx.Put("b", []byte("2"))
		return mine
	})
	if err != mine {
		t.Errorf("Update = %v, want the function's error as it is", err)
	}
	if err := b.View(context.Background(), func(storage.View) error { return mine }); err != mine {
		t.Errorf("View = %v, want the function's error as it is", err)
	}
	Put(t, b, "c", "3")
	if got := All(t, b, "", ""); !maps.Equal(got, map[string]string{"a": "1", "c": "3"}) {
		t.Errorf("rows after a rollback = %q", got)
	}
}

func testLimits(t *testing.T, b storage.Backend) {
	key := func(i int) string { return fmt.Sprintf("k%d", i) }
	half := make([]byte, storage.MaxTxBytes/2)
	for _, tt := range []struct {
		name string
		fn   func(storage.Tx)
		want error
	}{
		{"100 writes", func(tx storage.Tx) {
			for i := range 100 {
				_ = tx.Put(key(i), nil)
				_, _ = tx.Get(key(i))
			}
		}, nil},
		{"101 writes", func(tx storage.Tx) {
			for i := range 101 {
				_ = tx.Put(key(i), []byte("over"))
			}
		}, storage.ErrTooLarge},
		{"101 deletes", func(tx storage.Tx) {
			for i := range 101 {
				_ = tx.Delete(key(i))
			}
		}, storage.ErrTooLarge},
		{"101 reads", func(tx storage.Tx) {
			_ = tx.Put(key(0), []byte("over"))
			for i := range 101 {
				_, _ = tx.Get(key(i))
			}
		}, storage.ErrTooLarge},
		{"1 MiB of values", func(tx storage.Tx) {
			_ = tx.Put(key(0), []byte("over"))
			_ = tx.Put("h1", half)
			_ = tx.Put("h2", half)
		}, storage.ErrTooLarge},
		{"1 MiB in one", func(tx storage.Tx) { _ = tx.Put("h", make([]byte, storage.MaxTxBytes)) }, storage.ErrTooLarge},
		{"one key over and over", func(tx storage.Tx) {
			for range 5 {
				_ = tx.Put("h", half)
			}
		}, nil},
	} {
		_, err := b.Update(context.Background(), func(tx storage.Tx) error { tt.fn(tx); return nil })
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: Update = %v, want %v", tt.name, err, tt.want)
		}
	}
	rows := All(t, b, "", "")
	if len(rows) != 101 || rows["k0"] != "" || len(rows["h"]) != len(half) {
		t.Errorf("refused transactions left something: %d rows, k0 = %q", len(rows), rows["k0"])
	}
}

func testContext(t *testing.T, b storage.Backend) {
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := b.Update(ctx, func(tx storage.Tx) error {
		cancel()
		return tx.Put("a", []byte("1"))
	}); err != nil {
		t.Errorf("Update whose context ended after it began = %v, want nil", err)
	}
	ran := false
	if _, err := b.Update(ctx, func(storage.Tx) error { ran = true; return nil }); !errors.Is(err, context.Canceled) || ran {
		t.Errorf("Update with an ended context = %v (ran: %v), want %v", err, ran, context.Canceled)
	}
	if err := b.View(ctx, func(storage.View) error { ran = true; return nil }); !errors.Is(err, context.Canceled) || ran {
		t.Errorf("View with an ended context = %v (ran: %v), want %v", err, ran, context.Canceled)
	}
	if _, ok := Get(t, b, "a"); !ok {
		t.Error("the Update that had begun was not kept")
	}
}

// testPanic: a panic reaches the caller, who may recover, and harms nobody else.
func testPanic(t *testing.T, b storage.Backend) {
	func() {
		defer func() {
			if r := recover(); r != "mine" {
				t.Errorf("recovered %v, want mine", r)
			}
		}()
		_, _ = b.Update(context.Background(), func(tx storage.Tx) error {
			_ = tx.Put("a", []byte("1"))
			panic("mine")
		})
	}()
	func() {
		defer func() { _ = recover() }()
		_ = b.View(context.Background(), func(storage.View) error { panic("mine") })
	}()
	Put(t, b, "b", "1")
	if got := All(t, b, "", ""); !maps.Equal(got, map[string]string{"b": "1"}) {
		t.Errorf("rows = %q, want only b", got)
	}
}
