package transit_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// answered holds a write to what any write must do, whatever was sent: it
// succeeds, or is refused with a sentence.
func (m *mount) answered(t *testing.T, path string, body []byte) (status int, data []byte) {
	t.Helper()
	m = &mount{t, m.table}
	status, data, err := m.call(&route.Request{Op: wire.OpUpdate, Body: append([]byte{}, body...)}, path)
	var e *errs.Error
	switch {
	case err == nil && status < 500:
		if len(data) > 0 {
			if err := wire.Check(data); err != nil {
				t.Fatalf("%s %q is answered by what is no JSON: %v", path, body, err)
			}
		}
	case status != 400 || !errors.As(err, &e) || e.Msg == "":
		t.Fatalf("%s %q = %d, %v", path, body, status, err)
	}
	return status, data
}

// keys are one of each kind, by the operation that opens or verifies.
var fuzzKeys = map[string]object{
	"aes": {"type": "aes256-gcm96"}, "xc": {"type": "xchacha20-poly1305"}, "der": {"type": "aes128-gcm96", "derived": true},
	"kem": {"type": "ml-kem-768"}, "ed": {"type": "ed25519"}, "ec": {"type": "ecdsa-p521"}, "pq": {"type": "ml-dsa-44"},
	"hy": {"type": "hybrid", "parameter_set": "44", "hybrid_key_type_pqc": "ml-dsa", "hybrid_key_type_ec": "ed25519"}, "rsa": {"type": "rsa-2048"},
}

func fuzzMount(f *testing.F) *mount {
	m := newMount(f)
	for key, spec := range fuzzKeys {
		m.must("keys/"+key, spec, nil)
		m.must("keys/"+key+"/rotate", nil, nil)
	}
	return m
}

// FuzzCiphertext decrypts whatever comes. What opens was encrypted by the key:
// wrapped anew it holds the same.
func FuzzCiphertext(f *testing.F) {
	m := fuzzMount(f)
	for key := range fuzzKeys {
		if abilities := fuzzKeys[key]["type"].(string); strings.HasPrefix(abilities, "e") || strings.HasPrefix(abilities, "ml-dsa") || abilities == "hybrid" {
			continue
		}
		f.Add(key, m.encrypt(key, "x", object{"context": "QQ=="}), "QQ==")
	}
	for _, text := range []string{"", "vault:v", "vault:v1", "vault:v1:", "vault:v0:AAAA", "vault:v-1:AAAA", "vault:v1:A\nA==", "vault:v99999999999999999999:", "VAULT:v1:AAAA"} {
		f.Add("aes", text, "")
	}
	f.Fuzz(func(t *testing.T, key, text, context string) {
		if fuzzKeys[key] == nil {
			return
		}
		body, err := json.Marshal(object{"ciphertext": text, "context": context})
		if err != nil {
			t.Fatal(err)
		}
		status, data := m.answered(t, "decrypt/"+key, body)
		if status != 200 {
			return
		}
		_, again := m.answered(t, "rewrap/"+key, body)
		var re struct{ Ciphertext string }
		if err := json.Unmarshal(again, &re); err != nil {
			t.Fatal(err)
		}
		body, _ = json.Marshal(object{"ciphertext": re.Ciphertext, "context": context})
		if _, second := m.answered(t, "decrypt/"+key, body); string(second) != string(data) {
			t.Fatalf("%q holds %s, and wrapped anew %s", text, data, second)
		}
	})
}

// FuzzSignature verifies whatever comes: only what was signed is valid.
func FuzzSignature(f *testing.F) {
	m := fuzzMount(f)
	signed := map[string]bool{}
	for _, key := range []string{"ed", "ec", "pq", "hy", "rsa"} {
		for _, marshaling := range []string{"asn1", "jws"} {
			var out struct{ Signature string }
			m.must("sign/"+key, object{"input": "QQ==", "marshaling_algorithm": marshaling}, &out)
			signed[out.Signature] = true
			f.Add(key, "signature", marshaling, out.Signature)
		}
		var out struct{ HMAC string }
		m.must("hmac/"+key, object{"input": "QQ=="}, &out)
		signed[out.HMAC] = true
		f.Add(key, "hmac", "", out.HMAC)
	}
	f.Add("ec", "signature", "jws", "vault:v1:"+strings.Repeat("A", 176))
	f.Fuzz(func(t *testing.T, key, kind, marshaling, text string) {
		if fuzzKeys[key] == nil {
			return
		}
		body, err := json.Marshal(object{"input": "QQ==", "marshaling_algorithm": marshaling, kind: text})
		if err != nil {
			t.Fatal(err)
		}
		_, data := m.answered(t, "verify/"+key, body)
		if strings.Contains(string(data), `"valid":true`) && !signed[strings.NewReplacer("\n", "", "\r", "").Replace(text)] && key != "ec" {
			t.Fatalf("%s: %q is valid and was never signed", key, text)
		}
	})
}

// FuzzBackup restores whatever comes. What is restored works, or says why not.
func FuzzBackup(f *testing.F) {
	m := newMount(f)
	for key, spec := range fuzzKeys {
		create := object{"exportable": true, "allow_plaintext_backup": true}
		for k, v := range spec {
			create[k] = v
		}
		m.must("keys/"+key, create, nil)
		var out struct{ Backup string }
		m.mustDo(wire.OpRead, "backup/"+key, nil, &out)
		blob, err := base64.StdEncoding.DecodeString(out.Backup)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(blob)
	}
	f.Add([]byte(published))
	f.Add([]byte(foreign(f, 0, object{"derived": true, "kdf": 1}, foreignEntry{Key: make([]byte, 32)}, foreignEntry{Key: make([]byte, 32)})))
	f.Add([]byte(foreign(f, 1, nil, foreignEntry{D: big.NewInt(7)})))
	f.Add([]byte(`{"leasehold_transit_backup":1,"key":{"v":1,"spec":{"type":"hmac","size":32},"latest":1},"versions":[{"number":1,"row":{"v":1,"secret":""}}]}`))
	f.Add([]byte(`{"leasehold_transit_backup":1,"key":{"v":1,"derived":true,"spec":{"type":"ml-kem-768"},"latest":1},"versions":[]}`))
	m = open(f, mem.New())
	f.Fuzz(func(t *testing.T, blob []byte) {
		body, _ := json.Marshal(object{"backup": base64.StdEncoding.EncodeToString(blob), "force": true})
		if status, _ := m.answered(t, "restore/restored", body); status != 204 {
			return
		}
		all := []byte(`{"plaintext":"QQ==","input":"QQ==","context":"QQ==","ciphertext":"vault:v1:AAAA","signature":"vault:v1:AAAA","csr":""}`)
		for _, op := range []string{"encrypt", "decrypt", "rewrap", "sign", "hmac", "cmac", "verify", "datakey/plaintext", "encapsulate", "decapsulate"} {
			m.answered(t, op+"/restored", all)
		}
		m.answered(t, "keys/restored/csr", all)
		if !bytes.Contains(blob, []byte(`"rsa-`)) { // drawing one takes a second
			m.answered(t, "keys/restored/rotate", all)
		}
		for _, path := range []string{"keys/restored", "export/encryption-key/restored", "export/signing-key/restored", "export/hmac-key/restored", "export/public-key/restored", "backup/restored"} {
			if status, _, err := (&mount{t, m.table}).ask(wire.OpRead, path, nil); status >= 500 {
				t.Fatalf("%s of what was restored from %q: %v", path, blob, err)
			}
		}
	})
}

// FuzzBatch sends whatever stands for a batch. Where it is answered, there is a
// result for each item.
func FuzzBatch(f *testing.F) {
	m := fuzzMount(f)
	for _, s := range []string{
		`[]`, `null`, `[{}]`, `[null]`, `[{"plaintext":"QQ=="},{"plaintext":"*","reference":"\u0000"}]`, `[{"plaintext":1,"reference":2}]`, `[[]]`, `"x"`, `[{"input":"QQ==","key_version":"1"}]`,
		`[{"ciphertext":"vault:v1:AAAA","context":"*"}]`, `[{"plaintext":"QQ==","plaintext":null}]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, batch []byte) {
		if wire.Check(batch) != nil {
			return // the listener's to refuse
		}
		items := 0
		for range wire.Value(strings.TrimSpace(string(batch))).Elements() {
			items++
		}
		body := []byte(`{"batch_input":` + string(batch) + `}`)
		for _, path := range []string{"encrypt/aes", "decrypt/der", "rewrap/aes", "sign/ed", "hmac/aes", "verify/ed"} {
			_, data := m.answered(t, path, body)
			var out struct {
				Results []json.RawMessage `json:"batch_results"`
			}
			if len(data) > 0 && json.Unmarshal(data, &out) == nil && out.Results != nil && len(out.Results) != items {
				t.Fatalf("%s %s: %d results for %d items", path, body, len(out.Results), items)
			}
		}
	})
}
