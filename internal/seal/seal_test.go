package seal_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
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
	if c.Type() != "static" || c.Params() != (seal.Params{Shares: 3, Threshold: 2}) {
		t.Errorf("Type = %s, Params = %v after Load", c.Type(), c.Params())
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
	if c.Type() != seal.Shamir {
		t.Errorf("Type = %s, want shamir", c.Type())
	}
	first := static(t, "first", 1)
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

func TestRekey(t *testing.T) {
	w := static(t, "a", 1)
	c, root, old := fresh(t, 5, 3, w)
	var r seal.Rekey
	if s := r.Status(c); s != (seal.RekeyStatus{Required: 3}) {
		t.Errorf("Status at first = %+v", s)
	}
	if _, err := r.Update(ctx, c, old[0], ""); !errs.Is(err, errs.Invalid) {
		t.Errorf("Update without an attempt = %v, want Invalid", err)
	}
	_, err := r.Begin(c, seal.Params{Shares: 3, Threshold: 4}, false)
	if got := errs.Message(err); got != "invalid rekey seal configuration: threshold cannot be larger than shares" {
		t.Errorf("Begin with bad numbers = %q", got)
	}
	s, err := r.Begin(c, seal.Params{Shares: 3, Threshold: 2}, false)
	if err != nil || !s.Started || s.Nonce == "" || s.Shares != 3 || s.Threshold != 2 || s.Required != 3 || s.VerificationRequired {
		t.Errorf("Begin = %+v, %v", s, err)
	}
	if _, err := r.Begin(c, seal.Params{Shares: 1, Threshold: 1}, false); !errs.Is(err, errs.Invalid) {
		t.Errorf("second Begin = %v, want Invalid", err)
	}
	if _, err := r.Update(ctx, c, old[0], "another"); !errs.Is(err, errs.Invalid) {
		t.Errorf("Update with a wrong nonce = %v, want Invalid", err)
	}
	// A wrong share costs the shares, not the attempt.
	for i, share := range [][]byte{old[0], old[1], bytes.Repeat([]byte{1}, 33)} {
		made, err := r.Update(ctx, c, share, s.Nonce, w)
		if made != nil || (err != nil) != (i == 2) {
			t.Errorf("Update %d = %v, %v", i, made, err)
		}
	}
	if now := r.Status(c); !now.Started || now.Nonce != s.Nonce || now.Progress != 0 {
		t.Errorf("Status after wrong shares = %+v, want the attempt without progress", now)
	}
	var made *seal.Rekeyed
	for i, n := range []int{4, 4, 2, 0} { // one of them twice
		if made, err = r.Update(ctx, c, old[n], s.Nonce, w); err != nil || (made != nil) != (i == 3) {
			t.Fatalf("Update %d = %v, %v", i, made, err)
		}
	}
	if made.Nonce != s.Nonce || len(made.Shares) != 3 || made.VerificationNonce != "" || bytes.Equal(made.Root, root) {
		t.Errorf("result: nonce %q, %d shares, verification %q, a new root key: %v",
			made.Nonce, len(made.Shares), made.VerificationNonce, !bytes.Equal(made.Root, root))
	}
	if now := r.Status(made.Config); now != (seal.RekeyStatus{Required: 2}) {
		t.Errorf("Status at the end = %+v", now)
	}
	opens := func(c *seal.Config, want []byte, shares ...[]byte) bool {
		var u seal.Unseal
		var got []byte
		for _, s := range shares {
			got, _ = u.Submit(c, s)
		}
		return bytes.Equal(got, want)
	}
	if !opens(made.Config, made.Root, made.Shares[2], made.Shares[0]) {
		t.Error("the new shares do not open the new configuration")
	}
	if opens(made.Config, made.Root, old[0], old[1], old[2]) {
		t.Error("old shares open the new configuration")
	}
	if got, err := made.Config.Open(ctx, w); err != nil || !bytes.Equal(got, made.Root) {
		t.Errorf("the static slot gives %x, %v, want the new root key", got, err)
	}
	if s, err = r.Begin(c, seal.Params{Shares: 1, Threshold: 1}, false); err != nil {
		t.Errorf("Begin of another attempt: %v", err)
	}
	_, _ = r.Update(ctx, c, old[0], s.Nonce)
	r.Cancel()
	if now := r.Status(c); now.Started || now.Progress != 0 {
		t.Errorf("Status after Cancel = %+v", now)
	}
}

func TestRekeyVerified(t *testing.T) {
	c, _, old := fresh(t, 1, 1)
	var r seal.Rekey
	s, err := r.Begin(c, seal.Params{Shares: 3, Threshold: 2}, true)
	if err != nil || !s.VerificationRequired || s.VerificationNonce != "" {
		t.Fatalf("Begin = %+v, %v", s, err)
	}
	if _, err := r.Verify(old[0], ""); !errs.Is(err, errs.Invalid) {
		t.Errorf("Verify before there is anything = %v, want Invalid", err)
	}
	if err := r.RestartVerify(); !errs.Is(err, errs.Invalid) {
		t.Errorf("RestartVerify before there is anything = %v, want Invalid", err)
	}
	made, err := r.Update(ctx, c, old[0], s.Nonce)
	if err != nil || made == nil || made.VerificationNonce == "" || len(made.Shares) != 3 {
		t.Fatalf("Update = %+v, %v", made, err)
	}
	if _, err := r.Update(ctx, c, old[0], s.Nonce); !errs.Is(err, errs.Invalid) {
		t.Errorf("Update while the new shares wait = %v, want Invalid", err)
	}
	if s := r.Status(c); s.VerificationNonce != made.VerificationNonce || !s.Started {
		t.Errorf("Status = %+v, want the verification's nonce", s)
	}
	want := seal.RekeyStatus{Started: true, Nonce: made.VerificationNonce, Params: seal.Params{Shares: 3, Threshold: 2}, Required: 2}
	if s := r.VerifyStatus(); s != want {
		t.Errorf("VerifyStatus = %+v, want %+v", s, want)
	}
	verify := func(share []byte, nonce string) (*seal.Rekeyed, error) { return r.Verify(share, nonce) }
	if _, err := verify(made.Shares[0], s.Nonce); !errs.Is(err, errs.Invalid) {
		t.Errorf("Verify with the attempt's nonce = %v, want Invalid", err)
	}
	if done, err := verify(made.Shares[0], want.Nonce); done != nil || err != nil {
		t.Errorf("first Verify = %v, %v", done, err)
	}
	if _, err := verify(bytes.Repeat([]byte{3}, 33), want.Nonce); !errs.Is(err, errs.Invalid) {
		t.Errorf("Verify with a wrong share = %v, want Invalid", err)
	}
	if _, err := verify(made.Shares[0], want.Nonce); err != nil {
		t.Errorf("Verify anew: %v", err)
	}
	if err := r.RestartVerify(); err != nil || r.VerifyStatus().Nonce == want.Nonce || r.VerifyStatus().Progress != 0 {
		t.Errorf("RestartVerify = %v, then %+v", err, r.VerifyStatus())
	}
	nonce := r.VerifyStatus().Nonce
	var done *seal.Rekeyed
	for _, n := range []int{2, 1} {
		if done, err = verify(made.Shares[n], nonce); err != nil {
			t.Fatalf("Verify: %v", err)
		}
	}
	if done == nil || !bytes.Equal(done.Root, made.Root) || done.Config == nil || done.Shares != nil || done.VerificationNonce != "" {
		t.Errorf("the last Verify = %+v", done)
	}
	if r.Status(c).Started || r.VerifyStatus().Started {
		t.Error("the attempt has not ended with its verification")
	}
}

func TestGenerateRoot(t *testing.T) {
	c, _, shares := fresh(t, 3, 2)
	const token = "hvs.0123456789abcdefghijABCD"
	minted := 0
	mint := func(context.Context) (secret.String, error) { minted++; return secret.New(token), nil }
	var g seal.GenerateRoot
	if _, err := g.Update(ctx, c, shares[0], "", mint); !errs.Is(err, errs.Invalid) {
		t.Errorf("Update without an attempt = %v, want Invalid", err)
	}
	if _, err := g.Begin(c, "short", len(token)); !errs.Is(err, errs.Invalid) {
		t.Errorf("Begin with a short OTP = %v, want Invalid", err)
	}
	s, err := g.Begin(c, "", len(token))
	otp := s.OTP.Reveal()
	if err != nil || !s.Started || s.Nonce == "" || s.Required != 2 || len(otp) != len(token) {
		t.Fatalf("Begin = %+v, %v, OTP of %d characters", s, err, len(otp))
	}
	if _, err := g.Begin(c, "", len(token)); !errs.Is(err, errs.Invalid) {
		t.Errorf("second Begin = %v, want Invalid", err)
	}
	if s := g.Status(c); !s.OTP.IsZero() || !s.Started {
		t.Errorf("Status = %+v, want it without the OTP", s)
	}
	if _, err := g.Update(ctx, c, shares[0], "another", mint); !errs.Is(err, errs.Invalid) {
		t.Errorf("Update with a wrong nonce = %v, want Invalid", err)
	}
	_, _ = g.Update(ctx, c, shares[0], s.Nonce, mint)
	if _, err := g.Update(ctx, c, bytes.Repeat([]byte{9}, 33), s.Nonce, mint); !errs.Is(err, errs.Invalid) {
		t.Errorf("Update with a wrong share = %v, want Invalid", err)
	}
	if now := g.Status(c); !now.Started || now.Progress != 0 || minted != 0 {
		t.Errorf("Status after wrong shares = %+v, %d tokens minted", now, minted)
	}
	if s, err := g.Update(ctx, c, shares[2], s.Nonce, mint); err != nil || s.Progress != 1 || s.Complete {
		t.Errorf("first Update = %+v, %v", s, err)
	}
	done, err := g.Update(ctx, c, shares[1], s.Nonce, mint)
	if err != nil || !done.Complete || done.Progress != 2 || minted != 1 {
		t.Fatalf("last Update = %+v, %v, %d tokens minted", done, err, minted)
	}
	text, err := base64.RawStdEncoding.DecodeString(done.EncodedToken)
	if err != nil || len(text) != len(otp) {
		t.Fatalf("encoded token %q: %v", done.EncodedToken, err)
	}
	for i := range text {
		text[i] ^= otp[i]
	}
	if string(text) != token {
		t.Errorf("decoded token = %q, want %q", text, token)
	}
	if g.Status(c).Started {
		t.Error("the attempt has not ended with its token")
	}

	own := strings.Repeat("x", len(token))
	if s, err = g.Begin(c, own, len(token)); err != nil || !s.OTP.IsZero() {
		t.Errorf("Begin with the caller's OTP = %+v, %v", s, err)
	}
	g.Cancel()
	if g.Status(c).Started {
		t.Error("Cancel did not end the attempt")
	}
	mine := errors.New("mine")
	s, _ = g.Begin(c, own, len(token))
	_, _ = g.Update(ctx, c, shares[0], s.Nonce, mint)
	_, err = g.Update(ctx, c, shares[1], s.Nonce, func(context.Context) (secret.String, error) { return secret.String{}, mine })
	if err != mine || g.Status(c).Started {
		t.Errorf("Update whose mint fails = %v, want its error and the end of the attempt", err)
	}
}
