package sys_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

// share is one that the fake seal takes, or not.
func share(word string, n int) string {
	return hex.EncodeToString([]byte(fmt.Sprintf("%s share number %02d of a root key", word, n)))
}

func TestHealthTellsByItsStatus(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		initialized, sealed bool
		query               string
		want                int
	}{
		{false, true, "", 501},
		{false, true, "?uninitcode=299", 299},
		{true, true, "", 503},
		{true, true, "?sealedcode=250&uninitcode=299", 250},
		{true, false, "", 200},
		{true, false, "?standbyok=true&activecode=299", 299},
		{true, false, "?standbyok&perfstandbyok=false&standbycode=418", 200},
	} {
		r.state.initialized, r.state.sealed = c.initialized, c.sealed
		got, err := r.callAs("", r.boot, wire.OpRead, "health"+c.query, "", 0)
		if err != nil || got.status != c.want {
			t.Errorf("health%s with initialized=%v sealed=%v = %d, %v, want %d", c.query, c.initialized, c.sealed, got.status, err, c.want)
		}
	}
	for _, query := range []string{"?activecode=99", "?activecode=1000", "?activecode=many"} {
		if _, err := r.callAs("", r.boot, wire.OpRead, "health"+query, "", 0); !errs.Is(err, errs.Invalid) {
			t.Errorf("health%s = %v, want a refusal", query, err)
		}
	}
	r.state.fence = sys.Fence{Fenced: true, Reason: "the clock jumped"}
	got, err := r.callAs("", r.boot, wire.OpRead, "health", "", 0)
	if err != nil || got.data["expiry_fenced"] != "the clock jumped" || got.data["expiry_fence_next"] != sys.NextStep {
		t.Errorf("health of a fenced server = %v, %v, want the reason and the next step", got.data, err)
	}
	r.must(wire.OpUpdate, "leases/fence", `{"confirm":true}`)
	r.refused(errs.Invalid, "confirm", wire.OpUpdate, "leases/fence", `{}`)
	if r.state.fence.Fenced {
		t.Error("the fence still stands")
	}
}

func TestInitAndUnseal(t *testing.T) {
	r := newRig(t)
	boot := func(path, body string) (answer, error) { return r.callAs("", r.boot, wire.OpUpdate, path, body, 0) }
	for _, body := range []string{
		`{}`, `{"secret_shares":2,"secret_threshold":3}`, `{"secret_shares":5,"secret_threshold":1}`, `{"secret_shares":300,"secret_threshold":2}`,
		`{"secret_shares":1,"secret_threshold":1,"pgp_keys":["x"]}`, `{"secret_shares":1,"secret_threshold":1,"recovery_shares":1,"recovery_threshold":1}`,
	} {
		if _, err := boot("init", body); !errs.Is(err, errs.Invalid) {
			t.Errorf("init %s = %v, want a refusal", body, err)
		}
	}
	if _, err := boot("unseal", `{"key":"abcd"}`); !errs.Is(err, errs.Invalid) {
		t.Errorf("unsealing what is not initialized = %v, want a refusal", err)
	}
	got, err := boot("init", `{"secret_shares":5,"secret_threshold":3}`)
	if err != nil || len(got.data["keys"].([]any)) != 5 || len(got.data["keys_base64"].([]any)) != 5 || got.data["root_token"] != "hvs.first" {
		t.Fatalf("init = %v, %v, want five keys and a token", got.data, err)
	}
	if _, err := boot("init", `{"secret_shares":1,"secret_threshold":1}`); !errs.Is(err, errs.Invalid) {
		t.Errorf("a second init = %v, want a refusal", err)
	}
	for _, body := range []string{`{}`, `{"key":"not hex or base64!"}`, `{"key":"abcd"}`, `{"key":"` + share("wrong", 1) + `"}`, `{"migrate":true}`} {
		if _, err := boot("unseal", body); !errs.Is(err, errs.Invalid) {
			t.Errorf("unseal %s = %v, want a refusal", body, err)
		}
	}
	for i, want := range []float64{1, 2, 0} {
		got, err := boot("unseal", `{"key":"`+share("good", i)+`"}`)
		if err != nil || got.data["progress"] != want || got.data["sealed"] != (want != 0) {
			t.Errorf("share %d: %v, %v, want progress %v", i, got.data, err, want)
		}
	}
	if got, err := boot("unseal", `{"key":"`+share("wrong", 9)+`"}`); err != nil || got.data["sealed"] != false {
		t.Errorf("a share for an open server = %v, %v, want its status", got.data, err)
	}
}

func TestRootTokenByShares(t *testing.T) {
	for _, base := range []string{"generate-root/", "generate-root-token/"} {
		t.Run(base, func(t *testing.T) { testRootTokenByShares(t, base) })
	}
}

// TestNewerPathsWantAToken: OpenBao's names for what the holders of shares do
// are not open to everybody, as Vault's are.
func TestNewerPathsWantAToken(t *testing.T) {
	r := newRig(t)
	for path, open := range map[string]bool{
		"rekey/init": true, "generate-root/attempt": true,
		"rotate/root/init": false, "rotate/root/update": false, "rotate/recovery/init": false, "rotate/recovery/verify": false,
		"generate-root-token/attempt": false, "generate-root-token/update": false,
	} {
		if ep, _, err := r.table.Lookup(wire.OpUpdate, path); err != nil || ep.Unauth != open {
			t.Errorf("%s is open to everybody: %v (%v), want %v", path, ep != nil && ep.Unauth, err, open)
		}
	}
}

func testRootTokenByShares(t *testing.T, base string) {
	r := newRig(t)
	r.state.initialized, r.state.threshold = true, 2
	r.refused(errs.Invalid, "no root generation in progress", wire.OpUpdate, base+"update", `{"key":"`+share("good", 1)+`","nonce":"x"}`)
	r.refused(errs.Invalid, "PGP", wire.OpUpdate, base+"attempt", `{"pgp_key":"x"}`)
	r.refused(errs.Invalid, "one-time password", wire.OpUpdate, base+"attempt", `{"otp":"short"}`)
	begun := r.must(wire.OpUpdate, base+"attempt", "").data
	nonce, otp := begun["nonce"].(string), begun["otp"].(string)
	if begun["otp_length"] != 28.0 || len(otp) != 28 || begun["required"] != 2.0 {
		t.Errorf("begun with %v", begun)
	}
	r.refused(errs.Invalid, "already in progress", wire.OpUpdate, base+"attempt", "")
	give := func(word string, n int) (map[string]any, error) {
		a, err := r.call(wire.OpUpdate, base+"update", fmt.Sprintf(`{"key":%q,"nonce":%q}`, share(word, n), nonce))
		return a.data, err
	}
	r.refused(errs.Invalid, "incorrect nonce", wire.OpUpdate, base+"update", `{"key":"`+share("good", 1)+`","nonce":"other"}`)
	for range 2 { // the same share counts once
		if got, err := give("good", 1); err != nil || got["progress"] != 1.0 || got["complete"] != false {
			t.Fatalf("the first share = %v, %v, want progress 1", got, err)
		}
	}
	if _, err := give("wrong", 2); !errs.Is(err, errs.Invalid) {
		t.Fatalf("a wrong share = %v, want a refusal", err)
	}
	if got := r.must(wire.OpRead, base+"attempt", "").data; got["progress"] != 0.0 || got["started"] != true || got["otp"] != "" {
		t.Errorf("after a wrong share the attempt is %v, want it begun again", got)
	}
	if _, err := give("good", 1); err != nil {
		t.Fatal(err)
	}
	done, err := give("good", 2)
	if err != nil || done["complete"] != true {
		t.Fatalf("the last share = %v, %v, want completion", done, err)
	}
	got := r.must(wire.OpUpdate, "decode-token", fmt.Sprintf(`{"encoded_token":%q,"otp":%q}`, done["encoded_token"], otp)).data
	if got["token"] != "hvs.abcdefghijklmnopqrstuvwx" {
		t.Errorf("the token decodes to %v", got["token"])
	}
	if got := r.must(wire.OpRead, base+"attempt", "").data; got["started"] != false {
		t.Errorf("the attempt is %v, want it over", got)
	}
	r.must(wire.OpDelete, base+"attempt", "")
}

func TestRekey(t *testing.T) {
	for base, recovery := range map[string]string{"rekey/": "rekey-recovery-key/", "rotate/root/": "rotate/recovery/"} {
		t.Run(base, func(t *testing.T) { testRekey(t, base, recovery) })
	}
}

func testRekey(t *testing.T, base, recovery string) {
	r := newRig(t)
	r.state.initialized, r.state.threshold = true, 2
	for _, body := range []string{
		`{"secret_shares":3,"secret_threshold":4}`, `{"secret_shares":3,"secret_threshold":2,"backup":true}`,
		`{"secret_shares":3,"secret_threshold":2,"pgp_keys":["x"]}`,
	} {
		r.refused(errs.Invalid, "", wire.OpUpdate, base+"init", body)
	}
	r.refused(errs.Invalid, "recovery rekeying not supported", wire.OpRead, recovery+"init", "")

	nonce := r.must(wire.OpUpdate, base+"init", `{"secret_shares":3,"secret_threshold":3,"require_verification":true}`).data["nonce"].(string)
	r.refused(errs.Invalid, "already in progress", wire.OpUpdate, base+"init", `{"secret_shares":1,"secret_threshold":1}`)
	r.refused(errs.Invalid, "no rekey verification", wire.OpRead, base+"verify", "")
	r.must(wire.OpUpdate, base+"update", fmt.Sprintf(`{"key":%q,"nonce":%q}`, share("good", 1), nonce))
	if got := r.must(wire.OpRead, base+"init", "").data; got["progress"] != 1.0 || got["n"] != 3.0 || got["t"] != 3.0 {
		t.Errorf("the rekey is %v, want progress 1 of 3 shares", got)
	}
	done := r.must(wire.OpUpdate, base+"update", fmt.Sprintf(`{"key":%q,"nonce":%q}`, share("good", 2), nonce)).data
	keys := done["keys"].([]any)
	if done["complete"] != true || len(keys) != 3 || done["verification_required"] != true {
		t.Fatalf("rekeyed to %v", done)
	}
	if r.state.committed != 0 {
		t.Error("the new shares counted before they were verified")
	}
	verify := done["verification_nonce"].(string)
	r.refused(errs.Invalid, "none of the new shares", wire.OpUpdate, base+"verify", fmt.Sprintf(`{"key":%q,"nonce":%q}`, share("good", 1), verify))
	r.refused(errs.Invalid, "verification must be performed", wire.OpUpdate, base+"update", fmt.Sprintf(`{"key":%q,"nonce":%q}`, share("good", 3), nonce))
	verify = r.must(wire.OpDelete, base+"verify", "").data["nonce"].(string) // anew
	for i, k := range keys {
		got := r.must(wire.OpUpdate, base+"verify", fmt.Sprintf(`{"key":%q,"nonce":%q}`, k, verify)).data
		if last := i == len(keys)-1; (got["complete"] == true) != last {
			t.Errorf("after new share %d: %v", i, got)
		}
	}
	if r.state.committed != 1 || r.state.threshold != 3 {
		t.Errorf("committed %d times with threshold %d, want once with 3", r.state.committed, r.state.threshold)
	}

	nonce = r.must(wire.OpUpdate, base+"init", `{"secret_shares":1,"secret_threshold":1}`).data["nonce"].(string)
	r.refused(errs.Invalid, "incorrect nonce", wire.OpDelete, base+"init", `{"nonce":"other"}`)
	r.must(wire.OpDelete, base+"init", fmt.Sprintf(`{"nonce":%q}`, nonce))
	if got := r.must(wire.OpRead, base+"init", "").data; got["started"] != false || got["n"] != 0.0 {
		t.Errorf("a rekey that was called off is %v", got)
	}
	r.state.recovery = true
	r.refused(errs.Invalid, "opens itself", wire.OpRead, base+"init", "")
	r.must(wire.OpRead, recovery+"init", "")
}

// TestSharesAreForgotten: what holders of shares gave for something that is not
// done is gone with the sealing, and what is being done just then ends by
// itself: it may wait for the sealing to end.
func TestSharesAreForgotten(t *testing.T) {
	r := newRig(t)
	r.state.initialized, r.state.threshold = true, 2
	give := func(path, nonce string, n int) {
		r.must(wire.OpUpdate, path, fmt.Sprintf(`{"key":%q,"nonce":%q}`, share("good", n), nonce))
	}
	give("generate-root/update", r.must(wire.OpUpdate, "generate-root/attempt", "").data["nonce"].(string), 1)
	nonce := r.must(wire.OpUpdate, "rekey/init", `{"secret_shares":3,"secret_threshold":2}`).data["nonce"].(string)
	give("rekey/update", nonce, 1)
	closed := make(chan error)
	r.state.commit = func() error {
		go func() { closed <- r.engine.(engine.Closer).Close() }()
		return errors.Join(errShares, <-closed)
	}
	r.refused(errs.Invalid, "do not fit", wire.OpUpdate, "rekey/update", fmt.Sprintf(`{"key":%q,"nonce":%q}`, share("good", 2), nonce))
	for _, path := range []string{"generate-root/attempt", "rekey/init"} {
		if got := r.must(wire.OpRead, path, "").data; got["started"] != false || got["progress"] != 0.0 {
			t.Errorf("after sealing %s is %v, want nothing begun", path, got)
		}
	}

	r = newRig(t)
	r.state.initialized, r.state.threshold = true, 1
	nonce = r.must(wire.OpUpdate, "rekey/init", `{"secret_shares":3,"secret_threshold":2,"require_verification":true}`).data["nonce"].(string)
	give("rekey/update", nonce, 1)
	if err := r.engine.(engine.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	r.refused(errs.Invalid, "no rekey verification in progress", wire.OpRead, "rekey/verify", "")
}

// TestRekeyThatMayCount: when the store does not say whether the new shares
// count they are shown, with what to do. When it says that they do not, they
// are not.
func TestRekeyThatMayCount(t *testing.T) {
	for _, base := range []string{"rekey/", "rotate/root/"} {
		r := newRig(t)
		r.state.initialized, r.state.threshold = true, 1
		nonce := r.must(wire.OpUpdate, base+"init", `{"secret_shares":3,"secret_threshold":2}`).data["nonce"].(string)
		body := fmt.Sprintf(`{"key":%q,"nonce":%q}`, share("good", 1), nonce)
		r.state.commit = func() error { return errs.New(errs.Unavailable, "the disk is full") }
		r.refused(errs.Unavailable, "full", wire.OpUpdate, base+"update", body)
		r.state.commit = func() error { return fmt.Errorf("%w: the disk is gone", sys.ErrUnsure) }
		got := r.must(wire.OpUpdate, base+"update", body)
		if len(got.data["keys"].([]any)) != 3 || len(got.warnings) != 1 || got.data["warnings"].([]any)[0] != got.warnings[0] ||
			!strings.Contains(got.warnings[0], "keep the old ones and the new ones") {
			t.Errorf("a rekey that may count answers %v, %q, want the shares and a warning", got.data, got.warnings)
		}
	}
}
