package barrier_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"github.com/leasehold/leasehold/internal/barrier"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/storage/storagetest"
)

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
