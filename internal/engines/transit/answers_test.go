package transit_test

import (
	"strings"
	"testing"

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
