package barrier_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/leasehold/leasehold/internal/barrier"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/storagetest"
)

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
