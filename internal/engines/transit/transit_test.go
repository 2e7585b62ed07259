package transit_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// ciphers are the types that encrypt, signers those that sign.
var (
	ciphers = []object{
		{"type": "aes128-gcm96"}, {"type": "aes256-gcm96"}, {"type": "chacha20-poly1305"}, {"type": "xchacha20-poly1305"},
		{"type": "rsa-2048"}, {"type": "ml-kem-768"}, {"type": "ml-kem-1024"},
		{"type": "aes256-gcm96", "derived": true}, {"type": "xchacha20-poly1305", "derived": true, "convergent_encryption": true},
		{"type": "aes128-gcm96", "derived": true, "convergent_encryption": true},
	}
	signers = []object{
		{"type": "ed25519"}, {"type": "ed25519", "derived": true}, {"type": "ecdsa-p256"}, {"type": "ecdsa-p384"}, {"type": "ecdsa-p521"}, {"type": "rsa-2048"},
		{"type": "ml-dsa", "parameter_set": "44"}, {"type": "ml-dsa-65"}, {"type": "ml-dsa", "parameter_set": "87"},
		{"type": "slh-dsa", "parameter_set": "slh-dsa-sha2-128f"}, {"type": "slh-dsa", "parameter_set": "shake-128f"},
		{"type": "hybrid", "parameter_set": "65", "hybrid_key_type_pqc": "ml-dsa", "hybrid_key_type_ec": "ecdsa-p256"},
		{"type": "hybrid", "parameter_set": "44", "hybrid_key_type_pqc": "ml-dsa", "hybrid_key_type_ec": "ed25519"},
	}
)

func name(spec object) string {
	n := strings.NewReplacer(" ", "-", ":", "_", "map[", "", "]", "").Replace(fmt.Sprint(map[string]any(spec)))
	return n
}

// of is what requests to a key of such a kind have to say.
func of(spec object) object {
	if spec["derived"] == true {
		return object{"context": b64("a context")}
	}
	return nil
}

func TestCiphers(t *testing.T) {
	m := newMount(t)
	for _, spec := range ciphers {
		t.Run(name(spec), func(t *testing.T) {
			key := name(spec)
			m.must("keys/"+key, spec, nil)
			old := m.encrypt(key, "before", of(spec))
			m.must("keys/"+key+"/rotate", nil, nil)
			text := m.encrypt(key, "after", of(spec))
			if !strings.HasPrefix(old, "vault:v1:") || !strings.HasPrefix(text, "vault:v2:") {
				t.Errorf("ciphertexts before and after the rotation are %.12s and %.12s", old, text)
			}
			for text, want := range map[string]string{old: "before", text: "after"} {
				if got := m.decrypt(key, text, of(spec)); got != want {
					t.Errorf("decrypt = %q, want %q", got, want)
				}
			}
			if again := m.encrypt(key, "after", of(spec)); (again == text) != (spec["convergent_encryption"] == true) {
				t.Errorf("two encryptions of the same: equal is %v", again == text)
			}
			var re struct{ Ciphertext string }
			body := object{"ciphertext": old}
			for k, v := range of(spec) {
				body[k] = v
			}
			m.must("rewrap/"+key, body, &re)
			if !strings.HasPrefix(re.Ciphertext, "vault:v2:") || m.decrypt(key, re.Ciphertext, of(spec)) != "before" {
				t.Errorf("rewrap gives %.12s", re.Ciphertext)
			}
			var dk struct{ Plaintext, Ciphertext string }
			body = object{"bits": 512}
			for k, v := range of(spec) {
				body[k] = v
			}
			m.must("datakey/plaintext/"+key, body, &dk)
			if got := m.decrypt(key, dk.Ciphertext, of(spec)); b64(got) != dk.Plaintext || len(got) != 64 {
				t.Errorf("the data key does not open: %d bytes", len(got))
			}
			// A byte changed anywhere behind the prefix is found.
			raw, err := base64.StdEncoding.DecodeString(text[len("vault:v2:"):])
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range []int{0, 7, 12, len(raw) / 2, len(raw) - 1} {
				bad := append([]byte{}, raw...)
				bad[at] ^= 1
				body := object{"ciphertext": "vault:v2:" + base64.StdEncoding.EncodeToString(bad)}
				for k, v := range of(spec) {
					body[k] = v
				}
				m.refused("decrypt/"+key, body)
			}
		})
	}
}

func TestSigners(t *testing.T) {
	m := newMount(t)
	for _, spec := range signers {
		t.Run(name(spec), func(t *testing.T) {
			key := name(spec)
			m.must("keys/"+key, spec, nil)
			ask := func(verb string, more object) (out struct {
				Signature string
				Valid     bool
			}) {
				body := object{"input": b64("what is signed")}
				for _, o := range []object{of(spec), more} {
					for k, v := range o {
						body[k] = v
					}
				}
				m.must(verb+"/"+key, body, &out)
				return out
			}
			sig := ask("sign", nil).Signature
			m.must("keys/"+key+"/rotate", nil, nil)
			if !ask("verify", object{"signature": sig}).Valid {
				t.Error("a good signature of an older version is not valid")
			}
			if ask("verify", object{"signature": sig, "input": b64("another")}).Valid {
				t.Error("a signature is valid for another input")
			}
			if ask("verify", object{"signature": "vault:v2:" + sig[len("vault:v1:"):]}).Valid {
				t.Error("a signature is valid for another version")
			}
			raw, err := base64.StdEncoding.DecodeString(sig[len("vault:v1:"):])
			if err != nil {
				t.Fatal(err)
			}
			for _, cut := range [][]byte{{}, raw[:1], raw[:len(raw)-1], append(append([]byte{}, raw...), 0)} {
				if len(cut) == 0 {
					continue
				}
				if ask("verify", object{"signature": "vault:v1:" + base64.StdEncoding.EncodeToString(cut)}).Valid {
					t.Errorf("a signature of %d bytes in place of %d is valid", len(cut), len(raw))
				}
			}
			raw[len(raw)/2] ^= 1
			if ask("verify", object{"signature": "vault:v1:" + base64.StdEncoding.EncodeToString(raw)}).Valid {
				t.Error("a changed signature is valid")
			}
		})
	}
}

func TestMACs(t *testing.T) {
	m := newMount(t)
	for _, spec := range []object{{"type": "hmac", "key_size": 64}, {"type": "aes256-gcm96"}, {"type": "aes128-cmac"}, {"type": "aes192-cmac"}, {"type": "aes256-cmac"}} {
		key, kind := name(spec), "hmac"
		if strings.Contains(key, "cmac") {
			kind = "cmac"
		}
		m.must("keys/"+key, spec, nil)
		var out map[string]any
		m.must(kind+"/"+key, object{"input": b64("x")}, &out)
		text, _ := out[kind].(string)
		for input, want := range map[string]bool{"x": true, "y": false} {
			var v struct{ Valid bool }
			m.must("verify/"+key, object{"input": b64(input), kind: text}, &v)
			if v.Valid != want {
				t.Errorf("%s: verify of %q = %v, want %v", key, input, v.Valid, want)
			}
		}
	}
	m.must("keys/c", object{"type": "aes256-cmac"}, nil)
	var short struct{ CMAC string }
	m.must("cmac/c/8", object{"input": b64("x")}, &short)
	if raw, _ := base64.StdEncoding.DecodeString(short.CMAC[len("vault:v1:"):]); len(raw) != 8 {
		t.Errorf("a CMAC of 8 bytes has %d", len(raw))
	}
	var v struct{ Valid bool }
	m.must("verify/c", object{"input": b64("x"), "cmac": short.CMAC}, &v)
	if !v.Valid {
		t.Error("a CMAC of 8 bytes is not valid")
	}
	var batch struct {
		Results []struct{ CMAC string } `json:"batch_results"`
	}
	m.must("cmac/c", object{"batch_input": []object{{"input": b64("x")}, {"input": b64("x"), "mac_length": 8}}}, &batch)
	if len(batch.Results) != 2 || len(batch.Results[0].CMAC) <= len(short.CMAC) || batch.Results[1].CMAC != short.CMAC {
		t.Errorf("a batch of CMACs of two lengths = %v", batch)
	}
	m.refused("cmac/c/7", object{"input": b64("x")})
	m.refused("cmac/c", object{"input": b64("x"), "mac_length": 17})
	m.refused("hmac/c", object{"input": b64("x")})
	m.refused("verify/c", object{"input": b64("x"), "hmac": "vault:v1:AAAA", "cmac": "vault:v1:AAAA"})
}

func TestBadInput(t *testing.T) {
	m := newMount(t)
	m.must("keys/a", nil, nil)
	m.must("keys/b", nil, nil)
	m.must("keys/d", object{"derived": true}, nil)
	m.must("keys/r", object{"type": "rsa-2048"}, nil)
	m.must("keys/e", object{"type": "ed25519"}, nil)
	m.must("keys/a/rotate", nil, nil)
	text := m.encrypt("a", "secret", nil)
	ctx := m.encrypt("d", "secret", object{"context": b64("one")})
	for path, bodies := range map[string][]object{
		"decrypt/a": {
			{}, {"ciphertext": ""}, {"ciphertext": "junk"}, {"ciphertext": "vault:v2"}, {"ciphertext": "vault:v2:"}, {"ciphertext": "vault:v2:AAAA"},
			{"ciphertext": text[:len(text)-4]}, {"ciphertext": "vault:v1:" + text[len("vault:v2:"):]}, {"ciphertext": "vault:v3:" + text[len("vault:v2:"):]},
			{"ciphertext": "vault:v-1:" + text[len("vault:v2:"):]}, {"ciphertext": "vault:v99999999999999999999:AAAA"}, {"ciphertext": text + "!"},
			{"ciphertext": strings.ReplaceAll(text, "=", "") + "%"}, {"ciphertext": text, "associated_data": b64("other")}, {"ciphertext": text, "nonce": b64("012345678901")},
			{"ciphertext": text, "associated_data": "*"}, {"batch_input": []object{}}, {"batch_input": "x"}, {"batch_input": []any{1}},
		},
		"decrypt/b": {{"ciphertext": "vault:v1:" + text[len("vault:v2:"):]}},
		"decrypt/d": {{"ciphertext": ctx}, {"ciphertext": ctx, "context": b64("two")}, {"ciphertext": ctx, "context": "*"}},
		"encrypt/a": {
			{}, {"plaintext": "*"}, {"plaintext": "QQ"}, {"plaintext": "QQ==", "key_version": 9}, {"plaintext": "QQ==", "key_version": -1},
			{"plaintext": "QQ==", "nonce": b64("012345678901")}, {"plaintext": []string{"QQ=="}}, {"plaintext": object{}},
		},
		"encrypt/d":              {{"plaintext": "QQ=="}},
		"encrypt/e":              {{"plaintext": "QQ=="}},
		"encrypt/r":              {{"plaintext": b64(strings.Repeat("x", 300))}, {"plaintext": "QQ==", "padding_scheme": "none"}, {"plaintext": "QQ==", "associated_data": "QQ=="}},
		"encrypt/new":            {{"plaintext": "QQ==", "type": "ed25519"}, {"plaintext": "QQ==", "type": "rot13"}},
		"keys/x":                 {{"type": "rot13"}, {"type": "hmac"}, {"type": "hmac", "key_size": 0}, {"type": "hmac", "key_size": 16}, {"type": "hmac", "key_size": 513}, {"type": "aes256-gcm96", "key_size": 64}, {"type": "ml-dsa"}, {"type": "ml-dsa", "parameter_set": "45"}, {"type": "slh-dsa", "parameter_set": "x"}, {"type": "hybrid", "parameter_set": "65"}, {"auto_rotate_period": "10m"}, {"convergent_encryption": true}, {"type": "rsa-2048", "derived": true}, {"type": "managed_key"}},
		"keys/..bad":             {{}},
		"sign/a":                 {{"input": "QQ=="}},
		"sign/e":                 {{"input": "*"}, {"input": "QQ==", "hash_algorithm": "md5"}, {"input": "QQ==", "prehashed": true, "hash_algorithm": "sha2-512"}, {"input": "QQ==", "marshaling_algorithm": "x"}, {"input": "QQ==", "key_version": 2}},
		"sign/r":                 {{"input": "QQ==", "signature_algorithm": "x"}, {"input": "QQ==", "salt_length": "x"}, {"input": "QQ==", "salt_length": "-2"}, {"input": "QQ==", "salt_length": "4000"}, {"input": "QQ==", "prehashed": true}, {"input": "QQ==", "hash_algorithm": "none"}},
		"verify/e":               {{"input": "QQ=="}, {"input": "QQ==", "signature": "junk"}, {"input": "QQ==", "signature": "vault:v1:*"}, {"input": "QQ==", "signature": "vault:v9:AAAA"}, {"hmac": "junk"}},
		"hmac/a":                 {{}, {"input": "*"}, {"input": "QQ==", "algorithm": "md5"}, {"input": "QQ==", "key_version": 7}},
		"hash":                   {{}, {"input": "*"}, {"input": "QQ==", "algorithm": "x"}, {"input": "QQ==", "format": "x"}},
		"random":                 {{"bytes": 0}, {"bytes": -1}, {"bytes": 1 << 20}, {"format": "x"}},
		"random/x":               {{}},
		"datakey/plaintext/a":    {{"bits": 0}, {"bits": 1}},
		"datakey/x/a":            {{}},
		"keys/a/config":          {{"min_decryption_version": 3}, {"min_decryption_version": -1}, {"min_encryption_version": 3}, {"auto_rotate_period": 5}},
		"keys/a/trim":            {{}, {"min_available_version": 2}},
		"keys/none/rotate":       {{}},
		"keys/y/import":          {{}, {"ciphertext": "*"}, {"ciphertext": b64("short")}, {"ciphertext": b64(strings.Repeat("x", 600))}, {"ciphertext": "QQ==", "hash_function": "MD5"}, {"ciphertext": "QQ==", "public_key": "x"}, {"type": "ecdsa-p256", "public_key": "x"}, {"public_key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}},
		"restore":                {{}, {"backup": "*"}, {"backup": b64("{}")}, {"backup": b64(`{"leasehold_transit_backup":1}`)}},
		"keys/r/csr":             {{"csr": "x"}, {"version": 2}},
		"keys/r/set-certificate": {{}, {"certificate_chain": "x"}},
		"decapsulate/a":          {{"ciphertext": text}},
		"cache-config":           {{"size": 5}},
	} {
		for _, body := range bodies {
			if msg := m.refused(path, body); strings.Contains(msg, "secret") {
				t.Errorf("%s %v: the error shows the plaintext: %s", path, body, msg)
			}
		}
	}
}

// TestBatch is a batch of very many items of which some are ill.
func TestBatch(t *testing.T) {
	m := newMount(t)
	m.must("keys/a", nil, nil)
	const n = 100_000
	items := make([]object, n)
	for i := range items {
		items[i] = object{"plaintext": "QQ==", "reference": fmt.Sprint(i)}
		if i%1000 == 7 {
			items[i]["plaintext"] = "*"
		}
	}
	status, data, err := m.ask(wire.OpUpdate, "encrypt/a", object{"batch_input": items})
	if err != nil || status != 400 {
		t.Fatalf("a batch with ill items = %d, %v, want 400 with results", status, err)
	}
	if got := strings.Count(string(data), `"error":`); got != n/1000 {
		t.Errorf("%d items have an error, want %d", got, n/1000)
	}
	status, _, err = m.ask(wire.OpUpdate, "encrypt/a", object{"batch_input": items[:10], "partial_failure_response_code": 207})
	if err != nil || status != 207 {
		t.Errorf("with a status of its own = %d, %v, want 207", status, err)
	}
}

// TestBatchStatuses is what an answer's status says of items that failed.
func TestBatchStatuses(t *testing.T) {
	m := newMount(t)
	m.must("keys/a", nil, nil)
	text := m.encrypt("a", "x", nil)
	good, bad := object{"ciphertext": text, "plaintext": "QQ==", "input": "QQ=="}, object{"ciphertext": "junk", "plaintext": "*", "input": "*"}
	for _, c := range []struct {
		path  string
		items []object
		code  any
		want  int
	}{
		{"encrypt/a", []object{good}, nil, 200},
		{"encrypt/a", []object{good, bad}, nil, 400},
		{"encrypt/a", []object{good, bad}, 207, 207},
		{"encrypt/a", []object{good, bad}, 999, 400},
		{"encrypt/a", []object{bad, bad}, 200, 400},
		{"decrypt/a", []object{good, bad}, nil, 400},
		{"decrypt/a", []object{good, bad}, 200, 200},
		{"decrypt/a", []object{bad}, 200, 400},
		{"rewrap/a", []object{good, bad}, nil, 200},
		{"rewrap/a", []object{bad}, nil, 200},
		{"hmac/a", []object{good, bad}, nil, 200},
	} {
		body := object{"batch_input": c.items}
		if c.code != nil {
			body["partial_failure_response_code"] = c.code
		}
		status, data, err := m.ask(wire.OpUpdate, c.path, body)
		if err != nil || status != c.want || strings.Count(string(data), `"reference"`) != len(c.items) {
			t.Errorf("%s of %v with code %v = %d, %s, %v, want %d with a result for each", c.path, c.items, c.code, status, data, err, c.want)
		}
	}
}

// TestRotationElsewhere has two servers on one store: what one changes the
// other sees at once, and never uses what was.
func TestRotationElsewhere(t *testing.T) {
	store := mem.New()
	a, b := open(t, store), open(t, store)
	a.must("keys/k", nil, nil)
	for n := 2; n < 30; n++ {
		text := b.encrypt("k", "x", nil)
		a.must("keys/k/rotate", nil, nil)
		if got, want := b.encrypt("k", "x", nil), fmt.Sprintf("vault:v%d:", n); !strings.HasPrefix(got, want) {
			t.Fatalf("after a rotation elsewhere, encrypt = %.12s, want %s", got, want)
		}
		if got := a.decrypt("k", text, nil); got != "x" {
			t.Fatalf("decrypt = %q", got)
		}
	}
	a.must("keys/k/config", object{"min_decryption_version": 20, "min_encryption_version": 20, "deletion_allowed": true}, nil)
	b.refused("encrypt/k", object{"plaintext": "QQ==", "key_version": 19})
	a.mustDo(wire.OpDelete, "keys/k", nil, nil)
	b.refused("decrypt/k", object{"ciphertext": "vault:v25:AAAA"})
	b.must("keys/k", nil, nil)
	if got := a.encrypt("k", "x", nil); !strings.HasPrefix(got, "vault:v1:") {
		t.Errorf("a new key of the same name encrypts by %.12s", got)
	}
}

// TestManyVersions has a key of many versions: it is used, trimmed and deleted
// without a transaction over the limits, and nothing of it is left.
func TestManyVersions(t *testing.T) {
	store := mem.New()
	m := open(t, store)
	m.must("keys/k", object{"exportable": true, "allow_plaintext_backup": true}, nil)
	first := m.encrypt("k", "x", nil)
	for range 350 {
		m.must("keys/k/rotate", nil, nil)
	}
	if got := m.decrypt("k", first, nil); got != "x" {
		t.Errorf("decrypt by the first version = %q", got)
	}
	var backup struct{ Backup string }
	m.mustDo(wire.OpRead, "backup/k", nil, &backup)
	m.must("keys/k/config", object{"min_decryption_version": 300, "min_encryption_version": 300, "deletion_allowed": true}, nil)
	m.must("keys/k/trim", object{"min_available_version": 300}, nil)
	m.refused("decrypt/k", object{"ciphertext": first})
	m.refused("restore", object{"backup": backup.Backup})
	m.must("restore", object{"backup": backup.Backup, "force": true}, nil)
	if got := m.decrypt("k", first, nil); got != "x" {
		t.Errorf("decrypt after the restore = %q", got)
	}
	m.must("keys/k/config", object{"deletion_allowed": true}, nil)
	m.mustDo(wire.OpDelete, "keys/k", nil, nil)
	var left []string
	err := store.View(t.Context(), func(v storage.View) error {
		return v.Scan("m/", "n", 0, func(key string, _ []byte) bool {
			left = append(left, key)
			return true
		})
	})
	if err != nil || len(left) > 0 {
		t.Errorf("a deleted key leaves %q, %v", left, err)
	}
}

// TestOctets holds requests of bytes to those of JSON.
func TestOctets(t *testing.T) {
	m := newMount(t)
	for _, spec := range []object{{"type": "aes256-gcm96"}, {"type": "xchacha20-poly1305", "derived": true}, {"type": "rsa-2048"}, {"type": "ed25519"}} {
		key, query := name(spec), ""
		m.must("keys/"+key, spec, nil)
		m.must("keys/"+key+"/rotate", nil, nil)
		if c := of(spec); c != nil {
			query = "?context=" + c["context"].(string)
		}
		// text is what JSON has for what bytes have.
		text := func(b []byte) string {
			const head = "vault:v2:"
			if !strings.HasPrefix(string(b), head) {
				t.Fatalf("%s: the answer begins with %.12q", key, b)
			}
			return head + base64.StdEncoding.EncodeToString(b[len(head):])
		}
		plain := "bytes \x00\xff and more"
		if spec["type"] == "ed25519" {
			var v struct{ Valid bool }
			m.must("verify/"+key, object{"input": b64(plain), "signature": text(m.octets("sign/"+key, plain))}, &v)
			if !v.Valid {
				t.Error("a signature of bytes is not valid as text")
			}
		} else {
			sealed := m.octets("encrypt/"+key+query, plain)
			if got := m.decrypt(key, text(sealed), of(spec)); got != plain {
				t.Errorf("%s: JSON opens it as %q", key, got)
			}
			if got := m.octets("decrypt/"+key+query, string(sealed)); string(got) != plain {
				t.Errorf("%s: decrypt = %q", key, got)
			}
			if got := m.octets("decrypt/"+key+query, string(m.octets("encrypt/"+key+query, ""))); len(got) != 0 {
				t.Errorf("%s: no bytes come back as %q", key, got)
			}
		}
		var v struct{ Valid bool }
		m.must("verify/"+key, object{"input": b64(plain), "hmac": text(m.octets("hmac/"+key, plain))}, &v)
		if !v.Valid {
			t.Errorf("%s: an HMAC of bytes is not valid as text", key)
		}
	}
	if status, _, err := m.askOctets("decrypt/a", "junk"); status != 400 {
		t.Errorf("a key that is not there = %d, %v", status, err)
	}
	m.must("keys/derived", object{"derived": true}, nil)
	if status, _, err := m.askOctets("sign/derived?context=QQ==", "junk"); status != 400 {
		t.Errorf("signing by a key that encrypts = %d, %v", status, err)
	}
	if status, _, err := m.askOctets("sign/x?batch_input=x", "junk"); status != 400 {
		t.Errorf("a batch of bytes = %d, %v", status, err)
	}
}
