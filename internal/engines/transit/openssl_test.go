package transit_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/leasehold/leasehold/internal/wire"
)

// What other programs make of our keys, ciphertexts and signatures, and we of
// theirs. Here that is OpenSSL; interop_test.go has Go's own packages.

// openssl runs OpenSSL in a folder of its own.
type openssl struct {
	t   *testing.T
	dir string
}

func newOpenSSL(t *testing.T) *openssl {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("openssl is not installed; scripts/need.sh openssl installs it")
	}
	return &openssl{t, t.TempDir()}
}

// file keeps some bytes for OpenSSL to read.
func (o *openssl) file(name string, b []byte) {
	o.t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), b, 0o600); err != nil {
		o.t.Fatal(err)
	}
}

func (o *openssl) try(args ...string) ([]byte, error) {
	cmd := exec.CommandContext(o.t.Context(), "openssl", args...)
	cmd.Dir = o.dir
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("openssl %q: %w: %s", args, err, complaint.Bytes())
	}
	return out, nil
}

func (o *openssl) must(args ...string) []byte {
	o.t.Helper()
	out, err := o.try(args...)
	if err != nil {
		o.t.Fatal(err)
	}
	return out
}

// raw takes "vault:v1:" off.
func raw(t *testing.T, text string) []byte {
	t.Helper()
	const head = "vault:v1:"
	b, err := base64.StdEncoding.DecodeString(text[len(head):])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// exported is version 1 of a key as exporting gives it.
func (m *mount) exported(kind, key string) string {
	m.t.Helper()
	var out struct{ Keys map[string]string }
	m.mustDo(wire.OpRead, "export/"+kind+"/"+key, nil, &out)
	return out.Keys["1"]
}

func TestOpenSSLEncryption(t *testing.T) {
	m, o := newMount(t), newOpenSSL(t)
	m.must("keys/r", object{"type": "rsa-2048", "exportable": true}, nil)
	o.file("r.pem", []byte(m.exported("encryption-key", "r")))
	o.must("pkey", "-in", "r.pem", "-pubout", "-out", "r.pub")
	const plain = "what is encrypted"
	o.file("plain", []byte(plain))
	for scheme, opts := range map[string][]string{
		"oaep":     {"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256"},
		"pkcs1v15": {"-pkeyopt", "rsa_padding_mode:pkcs1"},
	} {
		o.file("ours", raw(t, m.encrypt("r", plain, object{"padding_scheme": scheme})))
		if got := o.must(append([]string{"pkeyutl", "-decrypt", "-inkey", "r.pem", "-in", "ours"}, opts...)...); string(got) != plain {
			t.Errorf("%s: OpenSSL opens our ciphertext as %q", scheme, got)
		}
		theirs := o.must(append([]string{"pkeyutl", "-encrypt", "-pubin", "-inkey", "r.pub", "-in", "plain"}, opts...)...)
		if got := m.decrypt("r", "vault:v1:"+base64.StdEncoding.EncodeToString(theirs), object{"padding_scheme": scheme}); got != plain {
			t.Errorf("%s: OpenSSL's ciphertext opens as %q", scheme, got)
		}
	}
}

// TestOpenSSLSignatures has each side verify what the other has signed.
func TestOpenSSLSignatures(t *testing.T) {
	m, o := newMount(t), newOpenSSL(t)
	o.file("input", []byte("what is signed"))
	pss := []string{"-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_mgf1_md:sha256"}
	for _, c := range []struct {
		typ  string
		more object
		hash string
		opts []string
	}{
		{"rsa-2048", object{"salt_length": "hash"}, "sha256", append(pss, "-sigopt", "rsa_pss_saltlen:digest")},
		{"rsa-2048", object{"salt_length": -1}, "sha256", append(pss, "-sigopt", "rsa_pss_saltlen:digest")},
		{"rsa-2048", object{"salt_length": "Hash"}, "sha256", append(pss, "-sigopt", "rsa_pss_saltlen:digest")},
		{"rsa-2048", object{"salt_length": 20}, "sha256", append(pss, "-sigopt", "rsa_pss_saltlen:20")},
		{"rsa-2048", nil, "sha256", append(pss, "-sigopt", "rsa_pss_saltlen:auto")},
		{"rsa-2048", object{"signature_algorithm": "pkcs1v15", "hash_algorithm": "sha2-512"}, "sha512", nil},
		{"rsa-2048", object{"signature_algorithm": "pkcs1v15", "hash_algorithm": "sha1"}, "sha1", nil},
		{"ecdsa-p256", nil, "sha256", nil},
		{"ecdsa-p384", object{"hash_algorithm": "sha2-384"}, "sha384", nil},
		{"ecdsa-p521", object{"hash_algorithm": "sha3-512"}, "sha3-512", nil},
	} {
		key := c.typ
		m.must("keys/"+key, object{"type": c.typ, "exportable": true}, nil)
		o.file("key.pem", []byte(m.exported("signing-key", key)))
		o.file("key.pub", []byte(m.exported("public-key", key)))
		body := object{"input": b64("what is signed")}
		for k, v := range c.more {
			body[k] = v
		}
		var ours struct{ Signature string }
		m.must("sign/"+key, body, &ours)
		o.file("ours", raw(t, ours.Signature))
		o.must(append([]string{"dgst", "-" + c.hash, "-verify", "key.pub", "-signature", "ours"}, append(c.opts, "input")...)...)

		theirs := o.must(append([]string{"dgst", "-" + c.hash, "-sign", "key.pem"}, append(c.opts, "input")...)...)
		body["signature"] = "vault:v1:" + base64.StdEncoding.EncodeToString(theirs)
		var v struct{ Valid bool }
		if m.must("verify/"+key, body, &v); !v.Valid {
			t.Errorf("%s %v: OpenSSL's signature is not valid", c.typ, c.more)
		}
	}
}

// TestOpenSSLEd25519 gives OpenSSL the exported key in the form it reads:
// PKCS #8 around the seed, which is the first half of what is exported.
func TestOpenSSLEd25519(t *testing.T) {
	m, o := newMount(t), newOpenSSL(t)
	m.must("keys/ed", object{"type": "ed25519", "exportable": true}, nil)
	both, err := base64.StdEncoding.DecodeString(m.exported("signing-key", "ed"))
	if err != nil || len(both) != 64 {
		t.Fatalf("an exported ed25519 key has %d bytes, %v", len(both), err)
	}
	head, _ := hex.DecodeString("302e020100300506032b657004220420") // RFC 8410
	o.file("key.der", append(head, both[:32]...))
	o.must("pkey", "-inform", "DER", "-in", "key.der", "-pubout", "-out", "key.pub")
	o.file("input", []byte("what is signed"))

	var ours struct{ Signature string }
	m.must("sign/ed", object{"input": b64("what is signed")}, &ours)
	o.file("ours", raw(t, ours.Signature))
	o.must("pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "key.pub", "-sigfile", "ours", "-in", "input")
	theirs := o.must("pkeyutl", "-sign", "-rawin", "-keyform", "DER", "-inkey", "key.der", "-in", "input")
	if text := "vault:v1:" + base64.StdEncoding.EncodeToString(theirs); text != ours.Signature {
		t.Errorf("OpenSSL signs the same as %s, we as %s", text, ours.Signature)
	}
}

func TestOpenSSLMACs(t *testing.T) {
	m, o := newMount(t), newOpenSSL(t)
	o.file("input", []byte("what is authenticated"))
	m.must("keys/hmac", object{"type": "hmac", "key_size": 100, "exportable": true}, nil)
	for hash, name := range map[string]string{"SHA256": "sha2-256", "SHA512": "sha2-512", "SHA3-384": "sha3-384", "SHA1": "sha1"} {
		for _, typ := range []string{"aes256-gcm96", "hmac", "ed25519"} {
			m.must("keys/"+typ, object{"type": typ, "exportable": true}, nil)
			key, err := base64.StdEncoding.DecodeString(m.exported("hmac-key", typ))
			if err != nil {
				t.Fatal(err)
			}
			var ours struct{ HMAC string }
			m.must("hmac/"+typ+"/"+name, object{"input": b64("what is authenticated")}, &ours)
			theirs := o.must("mac", "-binary", "-digest", hash, "-macopt", "hexkey:"+hex.EncodeToString(key), "-in", "input", "HMAC")
			if !bytes.Equal(theirs, raw(t, ours.HMAC)) {
				t.Errorf("%s with %s: OpenSSL's HMAC is another", typ, hash)
			}
		}
	}
	for typ, cipher := range map[string]string{"aes128-cmac": "AES-128-CBC", "aes192-cmac": "AES-192-CBC", "aes256-cmac": "AES-256-CBC"} {
		m.must("keys/"+typ, object{"type": typ, "exportable": true}, nil)
		key, err := base64.StdEncoding.DecodeString(m.exported("cmac-key", typ))
		if err != nil {
			t.Fatal(err)
		}
		var ours struct{ CMAC string }
		m.must("cmac/"+typ, object{"input": b64("what is authenticated")}, &ours)
		theirs := o.must("mac", "-binary", "-cipher", cipher, "-macopt", "hexkey:"+hex.EncodeToString(key), "-in", "input", "CMAC")
		if !bytes.Equal(theirs, raw(t, ours.CMAC)) {
			t.Errorf("%s: OpenSSL's CMAC is another", typ)
		}
	}
}

// wrapForImport wraps a key as a program would that has OpenSSL alone.
func (o *openssl) wrapForImport(wrappingKey string, key []byte, hash string) string {
	o.t.Helper()
	o.file("wrapping.pub", []byte(wrappingKey))
	ephemeral := sha256.Sum256([]byte("drawn for a test"))
	o.file("ephemeral", ephemeral[:])
	o.file("key", key)
	head := o.must("pkeyutl", "-encrypt", "-pubin", "-inkey", "wrapping.pub", "-in", "ephemeral",
		"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:"+hash, "-pkeyopt", "rsa_mgf1_md:"+hash)
	body := o.must("enc", "-id-aes256-wrap-pad", "-iv", "A65959A6", "-K", hex.EncodeToString(ephemeral[:]), "-in", "key")
	return base64.StdEncoding.EncodeToString(append(head, body...))
}

// TestOpenSSLImport brings keys along that OpenSSL has made and wrapped, and
// has both sides use them.
func TestOpenSSLImport(t *testing.T) {
	m, o := newMount(t), newOpenSSL(t)
	var wrapping struct {
		PublicKey string `json:"public_key"`
	}
	m.mustDo(wire.OpRead, "wrapping_key", nil, &wrapping)
	o.file("input", []byte("what is signed"))
	for _, c := range []struct {
		typ, hash string
		genpkey   []string
	}{
		{"ecdsa-p256", "sha256", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"}},
		{"ecdsa-p521", "sha512", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"}},
		{"rsa-2048", "sha1", []string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"}},
		{"ed25519", "sha384", []string{"-algorithm", "ED25519"}},
	} {
		o.must(append([]string{"genpkey", "-out", "own.pem"}, c.genpkey...)...)
		der := o.must("pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in", "own.pem")
		public := o.must("pkey", "-in", "own.pem", "-pubout")
		m.must("keys/"+c.typ+"/import", object{"type": c.typ, "ciphertext": o.wrapForImport(wrapping.PublicKey, der, c.hash), "hash_function": c.hash}, nil)

		var ours struct{ Signature string }
		m.must("sign/"+c.typ, object{"input": b64("what is signed"), "signature_algorithm": "pkcs1v15"}, &ours)
		o.file("own.pub", public)
		o.file("ours", raw(t, ours.Signature))
		if c.typ == "ed25519" {
			o.must("pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "own.pub", "-sigfile", "ours", "-in", "input")
		} else {
			o.must("dgst", "-sha256", "-verify", "own.pub", "-signature", "ours", "input")
		}

		// The public half alone verifies and cannot sign, until the private
		// one follows.
		half := "half-" + c.typ
		m.must("keys/"+half+"/import", object{"type": c.typ, "public_key": string(public)}, nil)
		check := object{"input": b64("what is signed"), "signature_algorithm": "pkcs1v15", "signature": ours.Signature}
		var v struct{ Valid bool }
		if m.must("verify/"+half, check, &v); !v.Valid {
			t.Errorf("%s: the public half does not verify", c.typ)
		}
		m.refused("sign/"+half, object{"input": b64("what is signed")})
		m.must("keys/"+half+"/import_version", object{"ciphertext": o.wrapForImport(wrapping.PublicKey, der, "sha256"), "hash_function": "SHA-256"}, nil)
		var key struct {
			Latest int `json:"latest_version"`
		}
		if m.mustDo(wire.OpRead, "keys/"+half, nil, &key); key.Latest != 1 {
			t.Errorf("%s: the private half made version %d, and is version 1's", c.typ, key.Latest)
		}
		m.must("sign/"+half, object{"input": b64("what is signed")}, nil)
		m.must("keys/"+half+"/import_version", object{"public_key": string(public)}, nil)
		m.must("verify/"+half, object{"input": b64("what is signed"), "signature_algorithm": "pkcs1v15", "signature": "vault:v2:" + ours.Signature[len("vault:v1:"):]}, &v)
		if !v.Valid {
			t.Errorf("%s: a second public half does not verify", c.typ)
		}
	}
}

// TestOpenSSLImportOfPSS brings along a key that OpenSSL has marked as one for
// PSS alone, without and with the hash it is for.
func TestOpenSSLImportOfPSS(t *testing.T) {
	m, o := newMount(t), newOpenSSL(t)
	var wrapping struct {
		PublicKey string `json:"public_key"`
	}
	m.mustDo(wire.OpRead, "wrapping_key", nil, &wrapping)
	o.file("input", []byte("what is signed"))
	for key, only := range map[string][]string{
		"any":    nil,
		"sha256": {"-pkeyopt", "rsa_pss_keygen_md:sha256", "-pkeyopt", "rsa_pss_keygen_mgf1_md:sha256", "-pkeyopt", "rsa_pss_keygen_saltlen:32"},
	} {
		o.must(append([]string{"genpkey", "-out", "own.pem", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"}, only...)...)
		der := o.must("pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in", "own.pem")
		m.must("keys/"+key+"/import", object{"type": "rsa-2048", "ciphertext": o.wrapForImport(wrapping.PublicKey, der, "sha256")}, nil)
		var ours struct{ Signature string }
		m.must("sign/"+key, object{"input": b64("what is signed"), "salt_length": "hash"}, &ours)
		o.file("own.pub", o.must("pkey", "-in", "own.pem", "-pubout"))
		o.file("ours", raw(t, ours.Signature))
		o.must("dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-verify", "own.pub", "-signature", "ours", "input")
	}
}

// TestOpenSSLCSR has OpenSSL read a request that a key signed, issue a
// certificate for it, and the key keep that.
func TestOpenSSLCSR(t *testing.T) {
	m, o := newMount(t), newOpenSSL(t)
	o.must("req", "-new", "-newkey", "ed25519", "-nodes", "-keyout", "template.key", "-out", "template.csr", "-subj", "/CN=app.example/O=Example", "-addext", "subjectAltName=DNS:app.example")
	template, err := os.ReadFile(filepath.Join(o.dir, "template.csr"))
	if err != nil {
		t.Fatal(err)
	}
	o.must("req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=Example CA")
	for _, typ := range []string{"rsa-2048", "ecdsa-p384", "ed25519"} {
		m.must("keys/"+typ, object{"type": typ}, nil)
		m.must("keys/"+typ+"/rotate", nil, nil)
		var csr struct {
			CSR     string
			Version int
		}
		m.must("keys/"+typ+"/csr", object{"csr": string(template), "version": "latest"}, &csr)
		if csr.Version != 2 {
			t.Errorf("%s: the request is by version %d, want 2", typ, csr.Version)
		}
		o.file("ours.csr", []byte(csr.CSR))
		if out := o.must("req", "-in", "ours.csr", "-verify", "-noout", "-text"); !bytes.Contains(out, []byte("DNS:app.example")) || !bytes.Contains(out, []byte("CN = app.example")) {
			t.Errorf("%s: OpenSSL reads the request as\n%s", typ, out)
		}
		leaf := o.must("x509", "-req", "-in", "ours.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1")
		ca, err := os.ReadFile(filepath.Join(o.dir, "ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		chain := string(leaf) + string(ca)
		var kept struct {
			Chain string `json:"certificate_chain"`
		}
		m.must("keys/"+typ+"/set-certificate", object{"certificate_chain": chain}, &kept)
		if kept.Chain != chain {
			t.Errorf("%s: the chain that is kept is\n%s", typ, kept.Chain)
		}
		m.refused("keys/"+typ+"/set-certificate", object{"certificate_chain": chain, "version": 1})
		m.refused("keys/"+typ+"/set-certificate", object{"certificate_chain": string(ca)})
		var out struct{ Keys map[string]string }
		m.mustDo(wire.OpRead, "export/certificate-chain/"+typ+"/latest", nil, &out)
		if out.Keys["2"] != chain {
			t.Errorf("%s: the chain that is exported is\n%s", typ, out.Keys["2"])
		}
	}
}
