package barrier_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/barrier"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/storage/storagetest"
)

var (
	ctx   = context.Background()
	root  = bytes.Repeat([]byte{1}, barrier.KeySize)
	root2 = bytes.Repeat([]byte{2}, barrier.KeySize)
	epoch = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

func clock() time.Time { return epoch }

// initialized is a store with a keyring under root.
func initialized(t testing.TB) storage.Backend {
	t.Helper()
	under := mem.New()
	if err := barrier.Init(ctx, under, root, epoch, nil); err != nil {
		t.Fatalf("Init: %v", err)
	}
	return under
}

func open(t testing.TB, under storage.Backend, root []byte) *barrier.Barrier {
	t.Helper()
	b, err := barrier.Open(ctx, under, root, clock)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return b
}

// raw changes the stored form of a row.
func raw(t testing.TB, under storage.Backend, key string, change func([]byte) []byte) {
	t.Helper()
	_, err := under.Update(ctx, func(tx storage.Tx) error {
		v, err := tx.Get(key)
		if err != nil {
			return err
		}
		return tx.Put(key, change(bytes.Clone(v)))
	})
	if err != nil {
		t.Fatalf("changing the stored %q: %v", key, err)
	}
}

func get(b storage.Backend, key string) (value string, err error) {
	err = b.View(ctx, func(v storage.View) error {
		got, err := v.Get(key)
		value = string(got)
		return err
	})
	return value, err
}

// closer closes the store below with its barrier, as the suite wants it.
type closer struct {
	storage.Backend
	under storage.Backend
}

func (c closer) Close() error { return errors.Join(c.Backend.Close(), c.under.Close()) }

func TestBackend(t *testing.T) {
	storagetest.Run(t, func(t testing.TB) storage.Backend {
		under := initialized(t)
		return closer{open(t, under, root), under}
	})
}

func TestInit(t *testing.T) {
	under := mem.New()
	if is, err := barrier.Initialized(ctx, under); is || err != nil {
		t.Errorf("Initialized = %v, %v before Init", is, err)
	}
	if _, err := barrier.Open(ctx, under, root, clock); !errors.Is(err, barrier.ErrUninitialized) {
		t.Errorf("Open before Init = %v, want ErrUninitialized", err)
	}
	if err := barrier.Init(ctx, under, root[1:], epoch, nil); err == nil {
		t.Error("Init with a short root key = nil, want an error")
	}
	mine := errors.New("mine")
	if err := barrier.Init(ctx, under, root, epoch, func(storage.Tx) error { return mine }); err != mine {
		t.Errorf("Init whose second part fails = %v, want its error", err)
	}
	with := func(tx storage.Tx) error { return tx.Put(barrier.SealedPrefix+"config", []byte("plain")) }
	if err := barrier.Init(ctx, under, root, epoch, with); err != nil {
		t.Fatalf("Init: %v", err)
	}
	if is, err := barrier.Initialized(ctx, under); !is || err != nil {
		t.Errorf("Initialized = %v, %v after Init", is, err)
	}
	if err := barrier.Init(ctx, under, root2, epoch, nil); !errors.Is(err, barrier.ErrInitialized) {
		t.Errorf("second Init = %v, want ErrInitialized", err)
	}
	if _, err := barrier.Open(ctx, under, root2, clock); !errors.Is(err, barrier.ErrWrongKey) {
		t.Errorf("Open with another root key = %v, want ErrWrongKey", err)
	}
	if got, _ := get(under, barrier.SealedPrefix+"config"); got != "plain" {
		t.Errorf("what Init wrote beside the keyring = %q, want plain", got)
	}
}

func TestReservedRows(t *testing.T) {
	under := initialized(t)
	storagetest.Put(t, under, barrier.SealedPrefix+"config", "plain")
	b := open(t, under, root)
	storagetest.Put(t, b, "a", "1", "sea", "2", "seal", "3", "t", "4", "u", "5")
	if got := storagetest.All(t, b, "", ""); len(got) != 5 {
		t.Errorf("rows = %q, want the five that are ours", got)
	}
	var keys []string
	_ = b.View(ctx, func(v storage.View) error {
		return v.ScanDesc("b", "", 3, func(k string, _ []byte) bool { keys = append(keys, k); return true })
	})
	if got := strings.Join(keys, " "); got != "u t seal" {
		t.Errorf("ScanDesc with limit 3 = %q, want u t seal", got)
	}
	if got, err := get(b, barrier.SealedPrefix+"config"); got != "" || err != nil {
		t.Errorf("Get of a reserved row = %q, %v, want nothing", got, err)
	}
	_, err := b.Update(ctx, func(tx storage.Tx) error {
		_ = tx.Delete(barrier.SealedPrefix + "config")
		_ = tx.Put(barrier.SealedPrefix+"config", []byte("x"))
		return nil
	})
	if !errors.Is(err, storage.ErrBadKey) {
		t.Errorf("Put of a reserved row = %v, want ErrBadKey", err)
	}
	if got, _ := get(under, barrier.SealedPrefix+"config"); got != "plain" {
		t.Errorf("the reserved row is %q now, want plain", got)
	}
}

func TestNothingPlainBelow(t *testing.T) {
	under := initialized(t)
	b := open(t, under, root)
	const text = "correct horse battery staple"
	storagetest.Put(t, b, "a", text, "b", text)
	for key, row := range storagetest.All(t, under, "", "") {
		if strings.Contains(row, "horse") || bytes.Contains([]byte(row), root) {
			t.Errorf("the stored %q shows what it holds", key)
		}
	}
	rows := storagetest.All(t, under, "", "")
	if rows["a"] == rows["b"] || len(rows["a"]) != len(text)+barrier.Overhead {
		t.Errorf("two rows of one text are stored alike, or not with the overhead of %d bytes: %d", barrier.Overhead, len(rows["a"]))
	}
}

func TestCorruptRows(t *testing.T) {
	under := initialized(t)
	b := open(t, under, root)
	storagetest.Put(t, b, "a", "first", "b", "second", "c", "third")
	good := storagetest.All(t, under, "a", "d")
	for name, change := range map[string]func([]byte) []byte{
		"empty":                  func([]byte) []byte { return nil },
		"short":                  func(r []byte) []byte { return r[:barrier.Overhead-1] },
		"cut":                    func(r []byte) []byte { return r[:len(r)-1] },
		"longer":                 func(r []byte) []byte { return append(r, 0) },
		"of another key":         func([]byte) []byte { return []byte(good["a"]) },
		"of a version to come":   func(r []byte) []byte { r[0] = 2; return r },
		"with another salt":      func(r []byte) []byte { r[5] ^= 1; return r },
		"with another nonce":     func(r []byte) []byte { r[21] ^= 1; return r },
		"with another text":      func(r []byte) []byte { r[33] ^= 1; return r },
		"with another tag":       func(r []byte) []byte { r[len(r)-1] ^= 1; return r },
		"written without a lock": func([]byte) []byte { return []byte(strings.Repeat("plain", 20)) },
	} {
		raw(t, under, "b", func([]byte) []byte { return change([]byte(good["b"])) })
		var bad *storage.CorruptError
		if _, err := get(b, "b"); !errors.As(err, &bad) || bad.Key != "b" {
			t.Errorf("Get of a row %s = %v, want a CorruptError of b", name, err)
		}
		if got, err := get(b, "a"); got != "first" || err != nil {
			t.Errorf("Get beside a row %s = %q, %v, want first", name, got, err)
		}
		var seen []string
		err := b.View(ctx, func(v storage.View) error {
			return v.Scan("a", "", 0, func(k string, _ []byte) bool { seen = append(seen, k); return true })
		})
		if !errors.As(err, &bad) || strings.Join(seen, " ") != "a" {
			t.Errorf("Scan over a row %s = %q, %v, want a and a CorruptError", name, seen, err)
		}
		seen = nil
		err = b.View(ctx, func(v storage.View) error {
			return storage.ScanEach(v, "a", "", 0, func(k string, _ []byte, bad error) bool {
				if bad != nil {
					k = "!" + k
				}
				seen = append(seen, k)
				return true
			})
		})
		if err != nil || strings.Join(seen, " ") != "a !b c" {
			t.Errorf("ScanEach over a row %s = %q, %v, want a !b c", name, seen, err)
		}
	}
	storagetest.Put(t, b, "b", "mended")
	if got, err := get(b, "b"); got != "mended" || err != nil {
		t.Errorf("Get of a row written again = %q, %v, want mended", got, err)
	}
}

// TestCorruptInUpdate: a transaction may go on without a bad row.
func TestCorruptInUpdate(t *testing.T) {
	under := initialized(t)
	b := open(t, under, root)
	storagetest.Put(t, b, "bad", "x")
	raw(t, under, "bad", func(r []byte) []byte { r[40] ^= 1; return r })
	_, err := b.Update(ctx, func(tx storage.Tx) error {
		var bad *storage.CorruptError
		if _, err := tx.Get("bad"); !errors.As(err, &bad) {
			t.Errorf("Get = %v, want a CorruptError", err)
		}
		return errors.Join(tx.Delete("bad"), tx.Put("quarantine/bad", nil))
	})
	if err != nil {
		t.Errorf("Update = %v, want nil", err)
	}
	if got := storagetest.All(t, b, "", ""); len(got) != 1 {
		t.Errorf("rows = %q, want only the one in quarantine", got)
	}
}

func TestRotate(t *testing.T) {
	under := initialized(t)
	b := open(t, under, root)
	other := open(t, under, root) // another node
	hash, err := b.KeyedHash("token")
	if err != nil {
		t.Fatal(err)
	}
	storagetest.Put(t, b, "old", "1")
	st, err := b.KeyStatus()
	if want := (barrier.KeyStatus{Term: 1, InstallTime: epoch, Encryptions: 1}); err != nil || st != want {
		t.Errorf("KeyStatus = %+v, %v, want %+v", st, err, want)
	}
	st, err = b.Rotate(ctx)
	if want := (barrier.KeyStatus{Term: 2, InstallTime: epoch}); err != nil || st != want {
		t.Errorf("Rotate = %+v, %v, want %+v", st, err, want)
	}
	storagetest.Put(t, b, "new", "2")
	term := func(key string) uint32 {
		row := storagetest.All(t, under, key, key+"\x00")[key]
		return binary.BigEndian.Uint32([]byte(row[1:]))
	}
	if term("old") != 1 || term("new") != 2 {
		t.Errorf("terms of rows = %d and %d, want 1 and 2", term("old"), term("new"))
	}
	// The other node has not heard of the rotation: it reads the keyring.
	if got, err := get(other, "new"); got != "2" || err != nil {
		t.Errorf("Get by another node = %q, %v, want 2", got, err)
	}
	storagetest.Put(t, other, "theirs", "3")
	if term("theirs") != 2 {
		t.Errorf("the other node writes under term %d, want 2", term("theirs"))
	}
	if st, err := other.Rotate(ctx); err != nil || st.Term != 3 {
		t.Errorf("Rotate by another node = %+v, %v, want term 3", st, err)
	}
	if st, err := b.Rotate(ctx); err != nil || st.Term != 4 {
		t.Errorf("Rotate after another node's = %+v, %v, want term 4", st, err)
	}
	b = open(t, under, root)
	for key, want := range map[string]string{"old": "1", "new": "2", "theirs": "3"} {
		if got, err := get(b, key); got != want || err != nil {
			t.Errorf("Get(%q) after reopening = %q, %v, want %q", key, got, err, want)
		}
	}
	again, err := b.KeyedHash("token")
	if err != nil || again("t") != hash("t") {
		t.Errorf("the keyed hash has changed over rotations (%v)", err)
	}
}

func TestUnknownTerm(t *testing.T) {
	under := initialized(t)
	b := open(t, under, root)
	storagetest.Put(t, b, "a", "1")
	raw(t, under, "a", func(r []byte) []byte { r[4] = 9; return r })
	var bad *storage.CorruptError
	if _, err := get(b, "a"); !errors.Is(err, storage.ErrUnknownTerm) || errors.As(err, &bad) {
		t.Errorf("Get under an unknown term = %v, want ErrUnknownTerm and no CorruptError", err)
	}
	_, err := b.Update(ctx, func(tx storage.Tx) error { _, _ = tx.Get("a"); return tx.Put("b", nil) })
	if !errors.Is(err, storage.ErrUnknownTerm) {
		t.Errorf("Update that read under an unknown term = %v, want ErrUnknownTerm", err)
	}
}

func TestRekey(t *testing.T) {
	under := initialized(t)
	b := open(t, under, root)
	storagetest.Put(t, b, "a", "1")
	mine := errors.New("mine")
	if err := b.Rekey(ctx, root2, func(storage.Tx) error { return mine }); err != mine {
		t.Errorf("Rekey whose second part fails = %v, want its error", err)
	}
	if ok, err := b.VerifyRoot(ctx, root); !ok || err != nil {
		t.Errorf("VerifyRoot(the old) = %v, %v after a Rekey that failed", ok, err)
	}
	if err := b.Rekey(ctx, root2, func(tx storage.Tx) error { return tx.Put(barrier.SealedPrefix+"config", []byte("new")) }); err != nil {
		t.Fatalf("Rekey: %v", err)
	}
	if ok, err := b.VerifyRoot(ctx, root); ok || err != nil {
		t.Errorf("VerifyRoot(the old) = %v, %v after Rekey", ok, err)
	}
	if _, err := b.Rotate(ctx); err != nil {
		t.Errorf("Rotate after Rekey: %v", err)
	}
	if _, err := barrier.Open(ctx, under, root, clock); !errors.Is(err, barrier.ErrWrongKey) {
		t.Errorf("Open with the old root key = %v, want ErrWrongKey", err)
	}
	if got, err := get(open(t, under, root2), "a"); got != "1" || err != nil {
		t.Errorf("Get under the new root key = %q, %v, want 1", got, err)
	}
}

// TestRekeyOfAFailingStore: Rekey fails when the store has the old root key,
// succeeds when it has the new one, whatever the store said, and says so when
// neither is known. It can be tried again.
func TestRekeyOfAFailingStore(t *testing.T) {
	for _, tt := range []struct {
		name  string
		plan  fault.Plan
		first error // of Rekey; nil: it has succeeded
	}{
		{"reading afterwards", fault.On(fault.View, 1), nil},
		{"writing", fault.On(fault.Commit, 1), fault.ErrInjected},
		{"the answer", fault.On(fault.Answer, 1), nil},
		{"the answer, and all after it", fault.If(func(c fault.Call) bool { return c.Op == fault.Answer || c.Op == fault.View }), barrier.ErrUnsure},
		{"writing, and all after it", fault.If(func(c fault.Call) bool { return c.Op == fault.Commit || c.Op == fault.View }), barrier.ErrUnsure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			under := fault.Wrap(initialized(t))
			b := open(t, under, root)
			storagetest.Put(t, b, "a", "1")
			under.Set(tt.plan)
			if err := b.Rekey(ctx, root2, nil); !errors.Is(err, tt.first) {
				t.Fatalf("Rekey = %v, want %v", err, tt.first)
			}
			under.Set(nil)
			if tt.first != nil {
				if err := b.Rekey(ctx, root2, nil); err != nil {
					t.Fatalf("Rekey once more: %v", err)
				}
			}
			if _, err := b.Rotate(ctx); err != nil {
				t.Errorf("Rotate after Rekey: %v", err)
			}
			storagetest.Put(t, b, "a", "2")
			if got, err := get(open(t, under, root2), "a"); got != "2" || err != nil {
				t.Errorf("Get under the new root key = %q, %v, want 2", got, err)
			}
		})
	}
}

// TestSubkeys: a subkey seals only so many values, and every opening has one
// of its own.
func TestSubkeys(t *testing.T) {
	defer barrier.SetMaxSeals(10)()
	under := initialized(t)
	var wg sync.WaitGroup
	for node := range 2 {
		b := open(t, under, root)
		for w := range 4 {
			wg.Go(func() {
				for i := range 25 {
					storagetest.Put(t, b, fmt.Sprintf("%d/%d/%d", node, w, i), "x")
				}
			})
		}
		wg.Wait()
		if st, err := b.KeyStatus(); err != nil || st.Encryptions != 100 {
			t.Errorf("KeyStatus = %+v, %v after 100 writes", st, err)
		}
	}
	per := map[string]int{}
	nonces := map[string]bool{}
	for key, row := range storagetest.All(t, under, "", "") {
		if !strings.HasPrefix(key, barrier.SealedPrefix) {
			per[row[:21]]++
			nonces[row[:33]] = true
		}
	}
	if len(per) != 20 || len(nonces) != 200 {
		t.Errorf("200 rows under %d subkeys with %d nonces, want 20 subkeys and 200 nonces", len(per), len(nonces))
	}
	for salt, n := range per {
		if n > 10 {
			t.Errorf("subkey %x sealed %d values, want at most 10", salt, n)
		}
	}
	if got := storagetest.All(t, open(t, under, root), "", ""); len(got) != 200 {
		t.Errorf("read %d rows of 200", len(got))
	}
}

func TestClose(t *testing.T) {
	under := initialized(t)
	b := open(t, under, root)
	storagetest.Put(t, b, "a", "1")
	hash, err := b.KeyedHash("x")
	if err != nil {
		t.Fatal(err)
	}
	want := hash("y")
	err = b.View(ctx, func(v storage.View) error {
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if _, err := v.Get("a"); !errors.Is(err, storage.ErrClosed) {
			t.Errorf("Get in a View that was open at Close = %v, want ErrClosed", err)
		}
		return nil
	})
	if err != nil {
		t.Errorf("View: %v", err)
	}
	if hash("y") != want {
		t.Error("a keyed hash changes with Close")
	}
	_, e1 := b.KeyStatus()
	_, e2 := b.Rotate(ctx)
	_, e3 := b.KeyedHash("x")
	for _, err := range []error{e1, e2, e3, b.Rekey(ctx, root2, nil), b.Reload(ctx)} {
		if !errors.Is(err, storage.ErrClosed) {
			t.Errorf("after Close: %v, want ErrClosed", err)
		}
	}
	if got, err := get(open(t, under, root), "a"); got != "1" || err != nil {
		t.Errorf("Get by the next opening = %q, %v, want 1", got, err)
	}
}

// TestCloseInUpdate: a transaction that loses its keys half-way writes nothing.
func TestCloseInUpdate(t *testing.T) {
	under := initialized(t)
	b := open(t, under, root)
	_, err := b.Update(ctx, func(tx storage.Tx) error {
		_ = tx.Put("a", []byte("1"))
		_ = b.Close()
		_ = tx.Put("b", []byte("1"))
		return nil
	})
	if !errors.Is(err, storage.ErrClosed) {
		t.Errorf("Update over Close = %v, want ErrClosed", err)
	}
	if got, _ := get(open(t, under, root), "a"); got != "" {
		t.Error("an Update that failed left a row")
	}
}

func TestKeyedHash(t *testing.T) {
	b := open(t, initialized(t), root)
	other := open(t, initialized(t), root)
	sums := map[[32]byte]string{}
	for name, b := range map[string]*barrier.Barrier{"one": b, "another": other} {
		for _, purpose := range []string{"token", "lease"} {
			h, err := b.KeyedHash(purpose)
			if err != nil {
				t.Fatal(err)
			}
			for _, in := range []string{"", "a", strings.Repeat("a", 1000)} {
				sum := h(in)
				if was, ok := sums[sum]; ok {
					t.Errorf("%s %s %.3q hashes like %s", name, purpose, in, was)
				}
				sums[sum] = name + " " + purpose
				if h(in) != sum {
					t.Errorf("%s %s %.3q hashes to two things", name, purpose, in)
				}
			}
		}
	}
}

// golden is a store with the rows of golden_test.go.
func golden(t testing.TB) storage.Backend {
	t.Helper()
	under := mem.New()
	for key, row := range map[string]string{
		"seal/keyring": goldenKeyring,
		"m/root/1/a":   goldenValue,
	} {
		b, err := hex.DecodeString(row)
		if err != nil {
			t.Fatal(err)
		}
		storagetest.Put(t, under, key, string(b))
	}
	return under
}

// TestFormat holds today's code to what the first version has written.
func TestFormat(t *testing.T) {
	under := golden(t)
	b := open(t, under, root)
	if got, err := get(b, "m/root/1/a"); got != "hello" || err != nil {
		t.Errorf("Get = %q, %v, want hello", got, err)
	}
	h, err := b.KeyedHash("token")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%x", h("s.abc")); got != goldenHash {
		t.Errorf("KeyedHash(token)(s.abc) = %s, want %s", got, goldenHash)
	}
}

func FuzzValue(f *testing.F) {
	under := golden(f)
	b := open(f, under, root)
	const key = "m/root/1/a"
	good := storagetest.All(f, under, key, "")[key]
	f.Add([]byte(good))
	f.Add([]byte(good[:barrier.Overhead]))
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, row []byte) {
		raw(t, under, key, func([]byte) []byte { return row })
		got, err := get(b, key)
		var bad *storage.CorruptError
		switch {
		case string(row) == good:
			if got != "hello" || err != nil {
				t.Errorf("Get of the good row = %q, %v, want hello", got, err)
			}
		case err == nil:
			t.Errorf("Get of the forged row %x = %q", row, got)
		case !errors.As(err, &bad) && !errors.Is(err, storage.ErrUnknownTerm):
			t.Errorf("Get of the forged row %x = %v, want a CorruptError or ErrUnknownTerm", row, err)
		}
	})
}

func FuzzKeyring(f *testing.F) {
	under := golden(f)
	const key = "seal/keyring"
	good := storagetest.All(f, under, key, "")[key]
	f.Add([]byte(good))
	f.Add([]byte(good[:40]))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, row []byte) {
		raw(t, under, key, func([]byte) []byte { return row })
		_, err := barrier.Open(ctx, under, root, clock)
		if (err == nil) != (string(row) == good) {
			t.Errorf("Open with the keyring %x = %v", row, err)
		}
	})
}

func BenchmarkGet(b *testing.B) {
	bar := open(b, initialized(b), root)
	storagetest.Put(b, bar, "m/root/1/some/path", strings.Repeat("x", 300))
	b.ReportAllocs()
	for b.Loop() {
		_ = bar.View(ctx, func(v storage.View) error { _, err := v.Get("m/root/1/some/path"); return err })
	}
}

func BenchmarkPut(b *testing.B) {
	bar := open(b, initialized(b), root)
	value := make([]byte, 300)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = bar.Update(ctx, func(tx storage.Tx) error { return tx.Put("m/root/1/some/path", value) })
	}
}

func BenchmarkKeyedHash(b *testing.B) {
	h, err := open(b, initialized(b), root).KeyedHash("token")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		h("hvs.CAESIJ0rLQ3Q5v7mN1f2")
	}
}
