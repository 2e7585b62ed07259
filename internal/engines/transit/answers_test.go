package transit_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// TestNoInput is what Vault does where a request has no input: it signs and
// verifies the empty one, and an HMAC or an item of a batch has to have its own.
func TestNoInput(t *testing.T) {
	m := newMount(t)
	m.must("keys/e", object{"type": "ed25519"}, nil)
	var none, empty struct{ Signature string }
	m.must("sign/e", nil, &none)
	m.must("sign/e", object{"input": ""}, &empty)
	if none.Signature != empty.Signature {
		t.Errorf("no input is signed as %s, the empty one as %s", none.Signature, empty.Signature)
	}
	var v struct{ Valid bool }
	if m.must("verify/e", object{"signature": none.Signature}, &v); !v.Valid {
		t.Error("the signature of no input is not valid for no input")
	}
	var mac struct{ HMAC string }
	m.must("hmac/e", object{"input": ""}, &mac)
	v.Valid = false
	if m.must("verify/e", object{"hmac": mac.HMAC}, &v); !v.Valid {
		t.Error("the HMAC of an empty input is not valid for no input")
	}
	m.refused("hmac/e", object{})
	if _, data, err := m.ask(wire.OpUpdate, "sign/e", object{"batch_input": []object{{}}}); err != nil || !strings.Contains(string(data), "missing input") {
		t.Errorf("an item without input = %s, %v", data, err)
	}
}

// TestPaddingOfOthers is what signature_algorithm means where there is nothing
// to pad: nothing, whatever it says.
func TestPaddingOfOthers(t *testing.T) {
	m := newMount(t)
	for _, typ := range []string{"ed25519", "ecdsa-p256", "rsa-2048"} {
		m.must("keys/"+typ, object{"type": typ}, nil)
		body := object{"input": "QQ==", "signature_algorithm": "ecdsa"}
		if typ == "rsa-2048" {
			m.refused("sign/"+typ, body)
			continue
		}
		var sig struct{ Signature string }
		var v struct{ Valid bool }
		m.must("sign/"+typ, body, &sig)
		body["signature"] = sig.Signature
		if m.must("verify/"+typ, body, &v); !v.Valid {
			t.Errorf("%s: the signature is not valid", typ)
		}
	}
}

// TestDerivedPublicHalf imports the public half of a derived key, of which
// nothing can be derived: whoever tries is told, until the whole key follows.
func TestDerivedPublicHalf(t *testing.T) {
	m := newMount(t)
	m.must("keys/own", object{"type": "ed25519", "exportable": true}, nil)
	var own struct{ Keys map[string]string }
	m.mustDo(wire.OpRead, "export/public-key/own?format=pem", nil, &own)
	m.must("keys/half/import", object{"type": "ed25519", "derived": true, "public_key": own.Keys["1"]}, nil)
	for _, path := range []string{"sign/half", "verify/half"} {
		if msg := m.refused(path, object{"input": "QQ==", "context": "QQ==", "signature": "vault:v1:QQ=="}); !strings.Contains(msg, "public half only") {
			t.Errorf("%s = %s", path, msg)
		}
	}
	m.mustDo(wire.OpRead, "keys/half?context=QQ==", nil, nil)

	// Another server's wrapping key is not needed: this one's will do.
	var wrapping struct {
		PublicKey string `json:"public_key"`
	}
	m.mustDo(wire.OpRead, "wrapping_key", nil, &wrapping)
	m.must("keys/to/import", object{"type": "rsa-4096", "public_key": wrapping.PublicKey}, nil)
	var wrapped struct{ Keys map[string]string }
	if status, _, err := m.ask(wire.OpRead, "byok-export/to/half", nil); status != 400 {
		t.Errorf("exporting a half that is not exportable = %d, %v", status, err)
	}
	m.must("keys/half/config", object{"exportable": true}, nil)
	if status, _, err := m.ask(wire.OpRead, "byok-export/to/half", nil); status != 400 || !strings.Contains(err.Error(), "public half only") {
		t.Errorf("exporting the half that is secret, and lacking = %d, %v", status, err)
	}
	m.mustDo(wire.OpRead, "byok-export/to/own/1", nil, &wrapped)
	m.must("keys/half/import_version", object{"ciphertext": wrapped.Keys["1"]}, nil)
	m.must("sign/half", object{"input": "QQ==", "context": "QQ=="}, nil)
}

// TestLeastVersionsAfterTrim: what encrypts is not set below what is left.
func TestLeastVersionsAfterTrim(t *testing.T) {
	m := newMount(t)
	m.must("keys/a", nil, nil)
	m.must("keys/a/rotate", nil, nil)
	m.must("keys/a/config", object{"min_encryption_version": 2, "min_decryption_version": 2}, nil)
	m.must("keys/a/trim", object{"min_available_version": 2}, nil)
	m.refused("keys/a/config", object{"min_encryption_version": 0})
	m.refused("keys/a/config", object{"min_encryption_version": 1})
	m.must("keys/a/config", object{"deletion_allowed": true}, nil)
}

// TestBatchOfSignatures is a batch to verify of which some items are ill.
func TestBatchOfSignatures(t *testing.T) {
	m := newMount(t)
	m.must("keys/e", object{"type": "ed25519"}, nil)
	var sig struct{ Signature string }
	m.must("sign/e", object{"input": "QQ=="}, &sig)
	good := object{"input": "QQ==", "signature": sig.Signature}
	for kind, junk := range map[string]object{"signature": {"input": "QQ==", "signature": "junk"}, "hmac": {"input": "QQ==", "hmac": "junk"}} {
		var out struct {
			Results []map[string]any `json:"batch_results"`
		}
		m.must("verify/e", object{"batch_input": []object{junk}}, &out)
		if len(out.Results) != 1 || out.Results[0]["valid"] != false || out.Results[0]["error"] == nil {
			t.Errorf("an item with a broken %s = %v, want an error beside valid: false", kind, out.Results)
		}
	}
	m.refused("verify/e", object{"batch_input": []object{good, {"input": "QQ=="}}})
	m.refused("verify/e", object{"batch_input": []object{{"input": "QQ=="}}})
}

// TestNoPlaintextInBatch: an item that holds null is one that somebody forgot
// to fill, and is not encrypted as an empty text, as Vault has it.
func TestNoPlaintextInBatch(t *testing.T) {
	m := newMount(t)
	m.must("keys/a", nil, nil)
	status, data, err := m.ask(wire.OpUpdate, "encrypt/a", object{"batch_input": []object{{"plaintext": nil, "reference": "1"}, {"plaintext": ""}, {}}})
	var out struct {
		Results []struct{ Ciphertext, Error, Reference string } `json:"batch_results"`
	}
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil || status != 400 || len(out.Results) != 3 {
		t.Fatalf("encrypt = %d, %s, %v", status, data, err)
	}
	for i, want := range []bool{false, true, false} {
		if r := out.Results[i]; (r.Ciphertext != "") != want || (r.Error == "") != want {
			t.Errorf("item %d = %+v, want it encrypted: %v", i, r, want)
		}
	}
}

// TestContextsOfBatch is a batch of which some items name a context: Vault
// refuses it as a whole, and makes no key for it.
func TestContextsOfBatch(t *testing.T) {
	m := newMount(t)
	m.must("keys/a", nil, nil)
	text := m.encrypt("a", "x", nil)
	one, two := object{"plaintext": "QQ==", "ciphertext": text}, object{"plaintext": "QQ==", "ciphertext": text, "context": "QQ=="}
	for _, path := range []string{"encrypt/a", "decrypt/a", "rewrap/a", "encrypt/new"} {
		for _, items := range [][]object{{one, two}, {two, one}} {
			m.refused(path, object{"batch_input": items})
		}
	}
	for _, body := range []object{{}, {"batch_input": []object{}}} {
		m.refused("encrypt/new", body)
	}
	if status, _, _ := m.ask(wire.OpRead, "keys/new", nil); status != 404 {
		t.Errorf("refused requests made the key: reading it = %d", status)
	}
}

// TestExportFormats exports keys in each format that Vault's clients know.
func TestExportFormats(t *testing.T) {
	m := newMount(t)
	for _, typ := range []string{"ed25519", "ecdsa-p256", "rsa-2048", "aes256-gcm96", "ml-dsa-44"} {
		m.must("keys/"+typ, object{"type": typ, "exportable": true}, nil)
	}
	m.must("keys/hmac", object{"type": "hmac", "key_size": 32, "exportable": true}, nil)
	read := func(what, key, format string) (text string, status int) {
		t.Helper()
		var out struct{ Keys map[string]string }
		path := "export/" + what + "/" + key + "?format=" + format
		if status, _, _ = m.ask(wire.OpRead, path, nil); status == 200 {
			m.mustDo(wire.OpRead, path, nil, &out)
		}
		return out.Keys["1"], status
	}
	for _, key := range []string{"ed25519", "ecdsa-p256", "rsa-2048"} {
		for what, parse := range map[string]func([]byte) (any, error){"signing-key": x509.ParsePKCS8PrivateKey, "public-key": x509.ParsePKIXPublicKey} {
			text, _ := read(what, key, "der")
			der, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parse(der); err != nil {
				t.Errorf("%s of %s as der: %v", what, key, err)
			}
			text, _ = read(what, key, "pem")
			if block, _ := pem.Decode([]byte(text)); block == nil || string(block.Bytes) != string(der) {
				t.Errorf("%s of %s as pem = %.40s, want the same key", what, key, text)
			}
		}
	}
	for _, c := range []struct {
		what, key, format string
		want              int
	}{
		{"signing-key", "ed25519", "raw", 200}, {"public-key", "ed25519", "raw", 200}, {"encryption-key", "aes256-gcm96", "raw", 200},
		{"hmac-key", "hmac", "raw", 200}, {"hmac-key", "ecdsa-p256", "raw", 200}, {"public-key", "ml-dsa-44", "raw", 200},
		{"signing-key", "ecdsa-p256", "raw", 400}, {"public-key", "rsa-2048", "raw", 400}, {"encryption-key", "aes256-gcm96", "pem", 400},
		{"hmac-key", "hmac", "der", 400}, {"hmac-key", "rsa-2048", "pem", 400}, {"signing-key", "ml-dsa-44", "der", 400},
		{"signing-key", "ed25519", "jwk", 400},
	} {
		own, _ := read(c.what, c.key, "")
		if text, status := read(c.what, c.key, c.format); status != c.want || status == 200 && text != own {
			t.Errorf("%s of %s as %s = %d, want %d and its own form", c.what, c.key, c.format, status, c.want)
		}
	}
	m.mustDo(wire.OpRead, "export/public-key/ed25519/v1", nil, nil)
	m.mustDo(wire.OpDelete, "keys/ed25519/soft-delete", nil, nil)
	if status, _, _ := m.ask(wire.OpRead, "export/signing-key/ed25519", nil); status != 400 {
		t.Errorf("exporting a soft-deleted key = %d, want a refusal", status)
	}
}

// TestKeyThatJustWent encrypts with a key that was deleted after the policies
// were asked: who may not create one does not bring it back.
func TestKeyThatJustWent(t *testing.T) {
	m := newMount(t)
	if status, _, err := m.call(&route.Request{Op: wire.OpUpdate, OnlyUpdate: true, Body: []byte(`{"plaintext":"QQ=="}`)}, "encrypt/a"); status != 400 {
		t.Errorf("encrypt = %d, %v, want it refused", status, err)
	}
	if status, _, err := m.call(&route.Request{Op: wire.OpUpdate, OnlyUpdate: true, Octets: []byte("x")}, "encrypt/a"); status != 400 {
		t.Errorf("encrypting bytes = %d, %v, want it refused", status, err)
	}
	if status, _, _ := m.ask(wire.OpRead, "keys/a", nil); status != 404 {
		t.Errorf("the key is there again: reading it = %d", status)
	}
}

// TestBatchThatNobodyWaitsFor sends a batch whose request has ended: its items
// are not worked on for hours.
func TestBatchThatNobodyWaitsFor(t *testing.T) {
	m := newMount(t)
	m.must("keys/r", object{"type": "rsa-2048"}, nil)
	text := m.encrypt("r", "x", nil)
	var sig struct{ Signature string }
	m.must("sign/r", object{"input": "QQ=="}, &sig)
	m.must("hmac/r", object{"input": "QQ=="}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	items := strings.Repeat(`{"plaintext":"QQ==","input":"QQ==","ciphertext":"`+text+`","signature":"`+sig.Signature+`"},`, 99) + `{"signature":"x"}`
	for _, path := range []string{"encrypt/r", "decrypt/r", "rewrap/r", "sign/r", "verify/r", "hmac/r"} {
		status, _, err := m.callWithin(ctx, &route.Request{Op: wire.OpUpdate, Body: []byte(`{"batch_input":[` + items + `]}`)}, path)
		if status != 400 || err == nil || !strings.Contains(err.Error(), "several requests") {
			t.Errorf("%s of a request that has ended = %d, %v, want it to stop", path, status, err)
		}
	}
}

// TestImportLikeVault imports as Vault's clients may: the type in capitals, and
// a public key beside the whole one, which is ignored.
func TestImportLikeVault(t *testing.T) {
	m := newMount(t)
	var wrapping struct {
		PublicKey string `json:"public_key"`
	}
	m.mustDo(wire.OpRead, "wrapping_key", nil, &wrapping)
	block, _ := pem.Decode([]byte(wrapping.PublicKey))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	hash, _ := primitive.HashForOAEP("")
	wrapped, err := primitive.Wrap(public.(*rsa.PublicKey), hash, primitive.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	key := object{"ciphertext": base64.StdEncoding.EncodeToString(wrapped), "public_key": "ignored"}
	m.must("keys/a/import", key, nil)
	m.must("keys/a/import_version", key, nil)
	key["type"] = "AES256-GCM96"
	m.must("keys/b/import", key, nil)
	if got := m.decrypt("b", m.encrypt("b", "x", nil), nil); got != "x" {
		t.Errorf("decrypt = %q", got)
	}
}
