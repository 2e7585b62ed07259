package transit_test

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/pem"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/leasehold/leasehold/internal/wire"
)

func unb64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func gcm(t testing.TB, key []byte) cipher.AEAD {
	t.Helper()
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := cipher.NewGCM(b)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestAEADsElsewhere opens our ciphertexts with the exported key by the
// standard packages, and has ours open what these have sealed. Vault's form is
// the nonce, the ciphertext and the tag; a derived key is HKDF-SHA256 with the
// context as info, and a convergent nonce is an HMAC by the 32 bytes behind it.
func TestAEADsElsewhere(t *testing.T) {
	m := newMount(t)
	for _, spec := range ciphers {
		typ := spec["type"].(string)
		var size int
		var open func([]byte) cipher.AEAD
		switch typ {
		case "aes128-gcm96":
			size, open = 16, func(k []byte) cipher.AEAD { return gcm(t, k) }
		case "aes256-gcm96":
			size, open = 32, func(k []byte) cipher.AEAD { return gcm(t, k) }
		case "chacha20-poly1305":
			size, open = 32, func(k []byte) cipher.AEAD { a, _ := chacha20poly1305.New(k); return a }
		case "xchacha20-poly1305":
			size, open = 32, func(k []byte) cipher.AEAD { a, _ := chacha20poly1305.NewX(k); return a }
		default:
			continue
		}
		key := name(spec)
		create := object{"exportable": true}
		for k, v := range spec {
			create[k] = v
		}
		m.must("keys/"+key, create, nil)
		secret := unb64(t, m.exported("encryption-key", key))
		var nonceKey []byte
		if spec["derived"] == true {
			b, err := hkdf.Key(sha256.New, secret, nil, "a context", size+32)
			if err != nil {
				t.Fatal(err)
			}
			secret, nonceKey = b[:size], b[size:]
		}
		a := open(secret)
		const plain, about = "what is encrypted", "associated"
		more := object{"associated_data": b64(about)}
		for k, v := range of(spec) {
			more[k] = v
		}
		ours := raw(t, m.encrypt(key, plain, more))
		nonce := ours[:a.NonceSize()]
		if got, err := a.Open(nil, nonce, ours[len(nonce):], []byte(about)); err != nil || string(got) != plain {
			t.Errorf("%s: our ciphertext opens elsewhere as %q, %v", key, got, err)
		}
		if spec["convergent_encryption"] == true {
			// With associated data the nonce is one of our own.
			ours := raw(t, m.encrypt(key, plain, of(spec)))
			nonce := ours[:a.NonceSize()]
			h := hmac.New(sha256.New, nonceKey)
			h.Write([]byte(plain))
			if want := h.Sum(nil)[:len(nonce)]; string(nonce) != string(want) {
				t.Errorf("%s: the nonce is %x, want %x", key, nonce, want)
			}
		}
		theirs := make([]byte, a.NonceSize())
		rand.Read(theirs)
		theirs = a.Seal(theirs, theirs, []byte(plain), []byte(about))
		if got := m.decrypt(key, "vault:v1:"+base64.StdEncoding.EncodeToString(theirs), more); got != plain {
			t.Errorf("%s: a ciphertext from elsewhere opens as %q", key, got)
		}
	}
}

// TestEd25519Elsewhere holds the variants of RFC 8032 to the standard
// library's, and a derived key to Vault's derivation.
func TestEd25519Elsewhere(t *testing.T) {
	m := newMount(t)
	m.must("keys/ed", object{"type": "ed25519", "exportable": true}, nil)
	priv := ed25519.PrivateKey(unb64(t, m.exported("signing-key", "ed")))
	pub := priv.Public().(ed25519.PublicKey)
	input := []byte("what is signed")
	digest := sha512.Sum512(input)
	for _, c := range []struct {
		name  string
		body  object
		input []byte
		opts  ed25519.Options
	}{
		{"Ed25519", object{}, input, ed25519.Options{}},
		{"Ed25519 of what is called a digest", object{"prehashed": true}, input, ed25519.Options{}},
		{"Ed25519ctx", object{"signature_context": b64("ctx")}, input, ed25519.Options{Context: "ctx"}},
		{"Ed25519ph", object{"prehashed": true, "hash_algorithm": "sha2-512"}, digest[:], ed25519.Options{Hash: crypto.SHA512}},
		{"Ed25519ph with a context", object{"prehashed": true, "hash_algorithm": "sha2-512", "signature_context": b64("ctx")}, digest[:], ed25519.Options{Hash: crypto.SHA512, Context: "ctx"}},
	} {
		c.body["input"] = base64.StdEncoding.EncodeToString(c.input)
		var out struct {
			Signature string
			Valid     bool
		}
		m.must("sign/ed", c.body, &out)
		if err := ed25519.VerifyWithOptions(pub, c.input, raw(t, out.Signature), &c.opts); err != nil {
			t.Errorf("%s: our signature is not valid elsewhere: %v", c.name, err)
		}
		theirs, err := priv.Sign(nil, c.input, &c.opts)
		if err != nil {
			t.Fatal(err)
		}
		c.body["signature"] = "vault:v1:" + base64.StdEncoding.EncodeToString(theirs)
		if m.must("verify/ed", c.body, &out); !out.Valid {
			t.Errorf("%s: a signature from elsewhere is not valid", c.name)
		}
	}

	m.must("keys/der", object{"type": "ed25519", "derived": true, "exportable": true}, nil)
	seed, err := hkdf.Key(sha256.New, unb64(t, m.exported("signing-key", "der")), nil, "a context", 32)
	if err != nil {
		t.Fatal(err)
	}
	var out struct {
		Batch []struct{ Signature, PublicKey string } `json:"batch_results"`
	}
	m.must("sign/der", object{"batch_input": []object{{"input": b64("x"), "context": b64("a context")}}}, &out)
	derived := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	if got := out.Batch[0].PublicKey; got != base64.StdEncoding.EncodeToString(derived) {
		t.Errorf("the derived public key is %s, want %x", got, derived)
	}
	if !ed25519.Verify(derived, []byte("x"), raw(t, out.Batch[0].Signature)) {
		t.Error("a signature by the derived key is not valid elsewhere")
	}
}

// TestMLKEMElsewhere agrees on secrets with the standard library, and opens
// HPKE's ciphertexts there.
func TestMLKEMElsewhere(t *testing.T) {
	m := newMount(t)
	m.must("keys/kem", object{"type": "ml-kem-768", "exportable": true}, nil)
	priv, err := mlkem.NewDecapsulationKey768(unb64(t, m.exported("encryption-key", "kem")))
	if err != nil {
		t.Fatal(err)
	}
	var out struct {
		Ciphertext   string
		SharedSecret string `json:"shared_secret"`
	}
	m.must("encapsulate/kem", nil, &out)
	if shared, err := priv.Decapsulate(raw(t, out.Ciphertext)); err != nil || string(shared) != string(unb64(t, out.SharedSecret)) {
		t.Errorf("the secret is another elsewhere: %v", err)
	}
	shared, text := priv.EncapsulationKey().Encapsulate()
	m.must("decapsulate/kem", object{"ciphertext": "vault:v1:" + base64.StdEncoding.EncodeToString(text)}, &out)
	if string(shared) != string(unb64(t, out.SharedSecret)) {
		t.Error("the secret of elsewhere is another here")
	}
	k, err := hpke.NewMLKEMPrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	sealed := raw(t, m.encrypt("kem", "what is encrypted", object{"associated_data": b64("info")}))
	if got, err := hpke.Open(k, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("info"), sealed); err != nil || string(got) != "what is encrypted" {
		t.Errorf("HPKE opens it as %q, %v", got, err)
	}
}

// TestBYOK moves every type of key from one server to another without either
// of them showing it: the second's wrapping key, imported into the first as a
// public key, wraps it, and both then do the same with it.
func TestBYOK(t *testing.T) {
	from, to := newMount(t), newMount(t)
	var wrapping struct {
		PublicKey string `json:"public_key"`
	}
	to.mustDo(wire.OpRead, "wrapping_key", nil, &wrapping)
	from.must("keys/wrapping/import", object{"type": "rsa-4096", "public_key": wrapping.PublicKey}, nil)
	done := map[string]bool{} // RSA is of both kinds
	for _, spec := range append(append([]object{{"type": "hmac", "key_size": 77}, {"type": "aes128-cmac"}}, ciphers...), signers...) {
		key := name(spec)
		if spec["type"] == "hybrid" || done[key] {
			continue
		}
		done[key] = true
		create := object{"exportable": true}
		for k, v := range spec {
			create[k] = v
		}
		from.must("keys/"+key, create, nil)
		var out struct{ Keys map[string]string }
		from.mustDo(wire.OpRead, "byok-export/wrapping/"+key+"?hash=SHA-512", nil, &out)
		delete(create, "key_size")
		create["ciphertext"], create["hash_function"] = out.Keys["1"], "SHA512"
		to.must("keys/"+key+"/import", create, nil)
		for _, kind := range []string{"encryption-key", "signing-key", "hmac-key", "cmac-key"} {
			if kind == "hmac-key" && spec["type"] != "hmac" {
				continue // drawn anew for each version
			}
			if _, _, err := from.ask(wire.OpRead, "export/"+kind+"/"+key, nil); err != nil {
				continue // not of this type
			}
			if a, b := from.exported(kind, key), to.exported(kind, key); a != b {
				t.Errorf("%s: the %s is another after the move", key, kind)
			}
		}
	}
}

// TestPublicKeys reads every public key that is shown in a form of its own.
func TestPublicKeys(t *testing.T) {
	m := newMount(t)
	for _, spec := range signers {
		if spec["derived"] == true {
			continue
		}
		key := name(spec)
		m.must("keys/"+key, spec, nil)
		text := m.exported("public-key", key)
		switch typ := spec["type"].(string); typ {
		case "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048":
			if block, rest := pem.Decode([]byte(text)); block == nil || block.Type != "PUBLIC KEY" || len(rest) > 0 {
				t.Errorf("%s: the public key is %s", key, text)
			}
			m.must("keys/half-"+key+"/import", object{"type": typ, "public_key": text}, nil)
		case "hybrid":
		default:
			if unb64(t, text); text == "" {
				t.Errorf("%s: no public key", key)
			}
		}
	}
}
