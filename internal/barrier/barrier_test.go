package barrier_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/barrier"
	"github.com/leasehold/leasehold/internal/storage"
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
