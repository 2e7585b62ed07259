package seal_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
)

var ctx = context.Background()

// fresh is a configuration with its root key and shares.
func fresh(t *testing.T, n, threshold int, wrappers ...seal.Wrapper) (c *seal.Config, root []byte, shares [][]byte) {
	t.Helper()
	root = seal.NewRootKey()
	c, shares, err := seal.New(ctx, root, seal.Params{Shares: n, Threshold: threshold}, wrappers...)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return c, root, shares
}

func static(t *testing.T, id string, fill byte, previous ...string) *seal.Static {
	t.Helper()
	key := func(fill byte) string { return hex.EncodeToString(bytes.Repeat([]byte{fill}, 32)) }
	c := seal.StaticConfig{CurrentKeyID: id, CurrentKey: key(fill)}
	if len(previous) > 0 {
		c.PreviousKeyID, c.PreviousKey = previous[0], key(previous[1][0])
	}
	s, err := seal.NewStatic(c)
	if err != nil {
		t.Fatalf("NewStatic: %v", err)
	}
	return s
}

func TestParams(t *testing.T) {
	for _, tt := range []struct {
		n, t int
		want string
	}{
		{1, 1, ""}, {5, 3, ""}, {255, 255, ""}, {2, 2, ""},
		{2, 3, "invalid seal configuration: threshold cannot be larger than shares"},
		{5, 1, "invalid seal configuration: threshold must be greater than one for multiple shares"},
		{0, 0, "invalid seal configuration: shares must be at least one"},
		{3, 0, "invalid seal configuration: threshold must be at least one"},
		{256, 3, "invalid seal configuration: shares must be less than 256"},
		{-1, -1, "invalid seal configuration: shares must be at least one"},
	} {
		err := seal.Params{Shares: tt.n, Threshold: tt.t}.Validate()
		got := ""
		if err != nil {
			got = errs.Message(err)
		}
		if got != tt.want || (err != nil && !errs.Is(err, errs.Invalid)) {
			t.Errorf("Validate(%d, %d) = %q, want %q", tt.n, tt.t, got, tt.want)
		}
	}
}

func TestUnseal(t *testing.T) {
	c, root, shares := fresh(t, 5, 3)
	var u seal.Unseal
	check := func(wantN int, wantAttempt bool) {
		t.Helper()
		if n, nonce := u.Progress(); n != wantN || (nonce != "") != wantAttempt {
			t.Errorf("Progress = %d, %q, want %d (attempt: %v)", n, nonce, wantN, wantAttempt)
		}
	}
	submit := func(share []byte) []byte {
		t.Helper()
		got, err := u.Submit(c, share)
		if err != nil {
			t.Errorf("Submit: %v", err)
		}
		return got
	}
	check(0, false)
	for range 3 { // the same share again does not count
		if got := submit(shares[4]); got != nil {
			t.Errorf("Submit of one share = %x, want nothing", got)
		}
		check(1, true)
	}
	_, nonce := u.Progress()
	submit(shares[1])
	if _, again := u.Progress(); again != nonce || len(nonce) != 36 {
		t.Errorf("nonce = %q, then %q, want one UUID", nonce, again)
	}
	if got := submit(shares[2]); !bytes.Equal(got, root) {
		t.Errorf("Submit of the third share = %x, want the root key", got)
	}
	check(0, false)

	submit(shares[0])
	u.Reset()
	check(0, false)

	for name, wrong := range map[string][]byte{
		"of 32 bytes":             bytes.Repeat([]byte{7}, 32),
		"of 33 bytes":             bytes.Repeat([]byte{7}, 33),
		"with a point given once": append(bytes.Repeat([]byte{7}, 32), shares[0][32]),
	} {
		submit(shares[0])
		submit(shares[1])
		if got, err := u.Submit(c, wrong); !errs.Is(err, errs.Invalid) || got != nil {
			t.Errorf("Submit of a wrong share %s = %x, %v, want Invalid", name, got, err)
		}
		check(0, false)
	}
	if got := submit(shares[0]); got != nil {
		t.Error("after wrong shares one share opens the seal")
	}
}

func TestOneShare(t *testing.T) {
	c, root, shares := fresh(t, 1, 1)
	var u seal.Unseal
	if len(shares) != 1 || len(shares[0]) != 32 {
		t.Fatalf("shares = %x, want one of 32 bytes, as Vault's", shares)
	}
	if got, err := u.Submit(c, bytes.Repeat([]byte{1}, 32)); !errs.Is(err, errs.Invalid) || got != nil {
		t.Errorf("Submit of a wrong share = %x, %v, want Invalid", got, err)
	}
	if got, err := u.Submit(c, shares[0]); err != nil || !bytes.Equal(got, root) {
		t.Errorf("Submit = %x, %v, want the root key", got, err)
	}
}

func TestCombine(t *testing.T) {
	c, root, shares := fresh(t, 5, 3)
	if got, err := c.Combine([][]byte{shares[4], shares[0], shares[2]}); err != nil || !bytes.Equal(got, root) {
		t.Errorf("Combine = %x, %v, want the root key", got, err)
	}
	for name, some := range map[string][][]byte{
		"none":           nil,
		"too few":        shares[:2],
		"the same twice": {shares[0], shares[1], shares[1]},
		"one damaged":    {shares[0], shares[1], append([]byte{shares[2][0] ^ 1}, shares[2][1:]...)},
	} {
		if got, err := c.Combine(some); !errs.Is(err, errs.Invalid) {
			t.Errorf("Combine of %s = %x, %v, want Invalid", name, got, err)
		}
	}
}

// TestManyAtOnce: shares come in requests, and requests come at once.
func TestManyAtOnce(t *testing.T) {
	c, root, shares := fresh(t, 20, 10)
	var u seal.Unseal
	var opened [][]byte
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, s := range shares {
		wg.Go(func() {
			got, err := u.Submit(c, s)
			if err != nil {
				t.Errorf("Submit: %v", err)
			}
			if got != nil {
				mu.Lock()
				opened = append(opened, got)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(opened) != 2 || !bytes.Equal(opened[0], root) || !bytes.Equal(opened[1], root) {
		t.Errorf("20 shares with a threshold of 10 opened the seal %d times, want 2", len(opened))
	}
}

func TestStored(t *testing.T) {
	b := mem.New()
	if c, err := seal.Load(ctx, b); c != nil || err != nil {
		t.Errorf("Load before init = %v, %v, want nothing", c, err)
	}
	w := static(t, "a", 1)
	c, root, shares := fresh(t, 3, 2, w)
	if _, err := b.Update(ctx, c.Put); err != nil {
		t.Fatalf("Put: %v", err)
	}
	c, err := seal.Load(ctx, b)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	if c.Type(w) != "static" || c.Params() != (seal.Params{Shares: 3, Threshold: 2}) {
		t.Errorf("Type = %s, Params = %v after Load", c.Type(w), c.Params())
	}
	if got, err := c.Open(ctx, w); err != nil || !bytes.Equal(got, root) {
		t.Errorf("Open = %x, %v, want the root key", got, err)
	}
	var u seal.Unseal
	_, _ = u.Submit(c, shares[2])
	if got, err := u.Submit(c, shares[0]); err != nil || !bytes.Equal(got, root) {
		t.Errorf("the shares of a store with another seal give %x, %v, want the root key", got, err)
	}
	for _, row := range []string{"{", `{"version":2}`} {
		_, err := b.Update(ctx, func(tx storage.Tx) error { return tx.Put(seal.Key, []byte(row)) })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := seal.Load(ctx, b); err == nil {
			t.Errorf("Load of %s = nil, want an error", row)
		}
	}
}

func TestStaticKeys(t *testing.T) {
	c, root, _ := fresh(t, 1, 1)
	first := static(t, "first", 1)
	if c.Type(first) != seal.Shamir {
		t.Errorf("Type = %s, want shamir", c.Type(first))
	}
	if got, err := c.Open(ctx, first); got != nil || err != nil {
		t.Errorf("Open without a slot = %x, %v, want nothing", got, err)
	}
	for _, want := range []bool{true, false} {
		if changed, err := c.Refresh(ctx, root, first); changed != want || err != nil {
			t.Errorf("Refresh = %v, %v, want %v", changed, err, want)
		}
	}
	if _, err := c.Open(ctx, static(t, "second", 2)); err == nil || !strings.Contains(err.Error(), `"first"`) {
		t.Errorf("Open with another key = %v, want an error that names the key first", err)
	}
	second := static(t, "second", 2, "first", "\x01")
	if got, err := c.Open(ctx, second); err != nil || !bytes.Equal(got, root) {
		t.Errorf("Open with the previous key = %x, %v, want the root key", got, err)
	}
	if changed, err := c.Refresh(ctx, root, second); !changed || err != nil {
		t.Errorf("Refresh with a new key = %v, %v, want true", changed, err)
	}
	if got, err := c.Open(ctx, static(t, "second", 2)); err != nil || !bytes.Equal(got, root) {
		t.Errorf("Open with the new key alone = %x, %v, want the root key", got, err)
	}
	if _, err := c.Open(ctx, first); err == nil {
		t.Error("the key that was replaced still opens the seal")
	}
	c.Slots[1].Wrapped = c.Slots[0].Wrapped
	if _, err := c.Open(ctx, second); err == nil {
		t.Error("Open of another slot's wrapped key = nil, want an error")
	}
}

func TestNewStatic(t *testing.T) {
	key := bytes.Repeat([]byte{0xfb, 'k'}, 16)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return "file://" + path
	}
	t.Setenv("SEAL_KEY", base64.StdEncoding.EncodeToString(key))
	c, root, _ := fresh(t, 1, 1)
	for name, from := range map[string]string{
		"hex":            hex.EncodeToString(key),
		"base64":         base64.StdEncoding.EncodeToString(key),
		"URL base64":     base64.RawURLEncoding.EncodeToString(key),
		"raw":            string(key),
		"environment":    "env://SEAL_KEY",
		"raw file":       file("raw", key),
		"text file":      file("text", []byte(hex.EncodeToString(key)+"\n")),
		"base64 in file": file("b64", []byte(base64.StdEncoding.EncodeToString(key)+"\r\n")),
	} {
		s, err := seal.NewStatic(seal.StaticConfig{CurrentKeyID: "1", CurrentKey: from})
		if err != nil {
			t.Errorf("NewStatic(%s): %v", name, err)
			continue
		}
		if _, err := c.Refresh(ctx, root, s); err != nil {
			t.Errorf("Refresh(%s): %v", name, err)
		}
		if got, err := c.Open(ctx, s); err != nil || !bytes.Equal(got, root) {
			t.Errorf("Open(%s) = %x, %v, want the root key", name, got, err)
		}
		if text := fmt.Sprintf("%v %+v", s, s); strings.Contains(text, "251") || strings.Contains(text, "fb6b") {
			t.Errorf("printing a Static shows its key: %s", text)
		}
	}
	good := hex.EncodeToString(key)
	for name, cfg := range map[string]seal.StaticConfig{
		"nothing":             {},
		"no id":               {CurrentKey: good},
		"no key":              {CurrentKeyID: "1"},
		"too short":           {CurrentKeyID: "1", CurrentKey: good[2:]},
		"no such file":        {CurrentKeyID: "1", CurrentKey: "file:///no/such/file"},
		"no such variable":    {CurrentKeyID: "1", CurrentKey: "env://LEASEHOLD_NO_SUCH"},
		"half a previous key": {CurrentKeyID: "1", CurrentKey: good, PreviousKeyID: "0"},
		"bad previous key":    {CurrentKeyID: "1", CurrentKey: good, PreviousKeyID: "0", PreviousKey: "x"},
		"one id twice":        {CurrentKeyID: "1", CurrentKey: good, PreviousKeyID: "1", PreviousKey: good},
	} {
		if _, err := seal.NewStatic(cfg); err == nil || strings.Contains(err.Error(), good[2:]) {
			t.Errorf("NewStatic(%s) = %v, want an error without the key", name, err)
		}
	}
}

// TestAnotherKeyOfTheSameName: a slot that does not open is made anew, although
// its key is called as before.
func TestAnotherKeyOfTheSameName(t *testing.T) {
	c, root, _ := fresh(t, 1, 1, static(t, "a", 1))
	if changed, err := c.Refresh(ctx, root, static(t, "a", 1)); changed || err != nil {
		t.Errorf("Refresh with the same key = %v, %v, want no change", changed, err)
	}
	other := static(t, "a", 2)
	if changed, err := c.Refresh(ctx, root, other); !changed || err != nil {
		t.Errorf("Refresh with another key = %v, %v, want a change", changed, err)
	}
	if got, err := c.Open(ctx, other); err != nil || !bytes.Equal(got, root) {
		t.Errorf("Open = %x, %v, want the root key", got, err)
	}
}

// TestReplace: slots that were made for one root key do not replace those of a
// later one.
func TestReplace(t *testing.T) {
	b := mem.New()
	put := func(f func(storage.Tx) error) {
		t.Helper()
		if _, err := b.Update(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	first, _, _ := fresh(t, 1, 1)
	put(first.Put)
	loaded, err := seal.Load(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(want bool) {
		t.Helper()
		put(func(tx storage.Tx) error {
			done, err := loaded.Replace(tx)
			if done != want {
				t.Errorf("Replace = %v, want %v", done, want)
			}
			return err
		})
	}
	replace(true)
	rekeyed, _, _ := fresh(t, 3, 2)
	put(rekeyed.Put)
	replace(false)
	if now, err := seal.Load(ctx, b); err != nil || now.Shares != 3 {
		t.Errorf("after Replace there are %v, %v, want the 3 shares of the rekey", now, err)
	}
}

func TestParseShare(t *testing.T) {
	share := bytes.Repeat([]byte{0xa5}, 33)
	for _, text := range []string{hex.EncodeToString(share), base64.StdEncoding.EncodeToString(share)} {
		if got, err := seal.ParseShare(text); err != nil || !bytes.Equal(got, share) {
			t.Errorf("ParseShare(%q) = %x, %v, want %x", text, got, err, share)
		}
	}
	for _, text := range []string{"", "not hex or base64!", "abcd", strings.Repeat("ab", 34)} {
		if got, err := seal.ParseShare(text); !errs.Is(err, errs.Invalid) {
			t.Errorf("ParseShare(%q) = %x, %v, want Invalid", text, got, err)
		}
	}
}
