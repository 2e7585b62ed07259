package transit_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/wire"
)

// publicOf is the public half of version 1 of a key.
func (m *mount) publicOf(key string) string {
	m.t.Helper()
	var out struct {
		Keys map[string]struct {
			PublicKey string `json:"public_key"`
		}
	}
	m.mustDo(wire.OpRead, "keys/"+key, nil, &out)
	return out.Keys["1"].PublicKey
}

// TestDeriveKey has two servers agree on a key by each other's public keys.
func TestDeriveKey(t *testing.T) {
	for _, typ := range []string{"aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"} {
		a, b := newMount(t), newMount(t)
		for _, m := range []*mount{a, b} {
			m.must("keys/own", object{"type": "ecdsa-p256"}, nil)
		}
		derive := func(m *mount, peer string) {
			var out struct {
				Type   string
				Latest int `json:"latest_version"`
			}
			m.must("derive-key/shared", object{"base_key_name": "own", "peer_public_key": peer, "derived_key_type": typ}, &out)
			if out.Type != typ || out.Latest != 1 {
				t.Errorf("the derived key is shown as %+v", out)
			}
		}
		derive(a, b.publicOf("own"))
		derive(b, a.publicOf("own"))
		if got := b.decrypt("shared", a.encrypt("shared", "for you alone", nil), nil); got != "for you alone" {
			t.Errorf("%s: one side's ciphertext opens as %q at the other", typ, got)
		}
	}
}

// TestOpenSSLDeriveKey has OpenSSL on the other side, which shows that the
// secret itself is the key.
func TestOpenSSLDeriveKey(t *testing.T) {
	m, o := newMount(t), newOpenSSL(t)
	m.must("keys/own", object{"type": "ecdsa-p256"}, nil)
	m.must("keys/own/rotate", nil, nil) // which version is meant matters
	o.must("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "peer.pem")
	o.file("own.pub", []byte(m.publicOf("own")))
	m.must("derive-key/shared", object{
		"key_derivation_algorithm": "ecdh", "base_key_name": "own", "base_key_version": 1,
		"peer_public_key": string(o.must("pkey", "-in", "peer.pem", "-pubout")),
	}, nil)
	block, err := aes.NewCipher(o.must("pkeyutl", "-derive", "-inkey", "peer.pem", "-peerkey", "own.pub"))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	sealed := raw(t, m.encrypt("shared", "for you alone", nil))
	if got, err := aead.Open(nil, sealed[:12], sealed[12:], nil); string(got) != "for you alone" || err != nil {
		t.Errorf("by OpenSSL's secret our ciphertext opens as %q, %v", got, err)
	}
}

func TestDeriveKeyRefuses(t *testing.T) {
	m := newMount(t)
	for key, typ := range map[string]string{"own": "ecdsa-p256", "wide": "ecdsa-p384", "ed": "ed25519", "there": "aes256-gcm96"} {
		m.must("keys/"+key, object{"type": typ}, nil)
	}
	public := m.publicOf("own")
	m.must("keys/half/import", object{"type": "ecdsa-p256", "public_key": public}, nil)
	outside, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(outside.Public())
	if err != nil {
		t.Fatal(err)
	}
	p224 := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	for _, c := range []struct {
		name string
		body object
		want string
	}{
		{"there", object{"base_key_name": "own", "peer_public_key": public}, "there is a key of that name"},
		{"new", object{"peer_public_key": public}, "missing base_key_name"},
		{"new", object{"base_key_name": "none", "peer_public_key": public}, "base key not found"},
		{"new", object{"base_key_name": "own"}, "missing peer_public_key"},
		{"new", object{"base_key_name": "own", "peer_public_key": "x"}, "no PEM"},
		{"new", object{"base_key_name": "own", "peer_public_key": m.publicOf("wide")}, "no key of the curve P-256"},
		{"new", object{"base_key_name": "own", "peer_public_key": p224}, "no key of the curve P-256"},
		{"new", object{"base_key_name": "own", "base_key_version": 2, "peer_public_key": public}, "base_key_version 2 is not in use"},
		{"new", object{"base_key_name": "own", "base_key_version": -1, "peer_public_key": public}, "base_key_version -1 is not in use"},
		{"new", object{"base_key_name": "ed", "peer_public_key": public}, "agrees on nothing"},
		{"new", object{"base_key_name": "half", "peer_public_key": public}, "public half only"},
		{"new", object{"base_key_name": "own", "peer_public_key": public, "derived_key_type": "aes128-gcm96"}, "32 bytes, which make no key of type aes128-gcm96"},
		{"new", object{"base_key_name": "wide", "peer_public_key": m.publicOf("wide")}, "48 bytes, which make no key of type aes256-gcm96"},
		{"new", object{"base_key_name": "own", "peer_public_key": public, "derived_key_type": "hmac"}, "derived_key_type hmac"},
		{"new", object{"base_key_name": "own", "peer_public_key": public, "derived_key_type": "rsa-2048"}, "derived_key_type rsa-2048"},
		{"new", object{"base_key_name": "own", "peer_public_key": public, "key_derivation_algorithm": "x25519"}, "unknown key_derivation_algorithm"},
		{"-", object{"base_key_name": "own", "peer_public_key": public}, "name of a key"},
	} {
		if _, _, err := m.ask(wire.OpUpdate, "derive-key/"+c.name, c.body); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("derive-key/%s with %v = %v, want %q", c.name, c.body, err, c.want)
		}
	}
	if _, _, err := m.ask(wire.OpRead, "keys/new", nil); err == nil {
		t.Error("a refused request has left a key")
	}
}
