package primitive_test

import (
	"testing"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
)

// TestNonces draws many at once: none comes twice, whatever their sizes.
func TestNonces(t *testing.T) {
	seen := map[string]bool{}
	var nonces primitive.Nonces
	for _, typ := range []primitive.Type{primitive.AES256GCM, primitive.XChaCha20Poly1305, primitive.AES128GCM} {
		s := primitive.Spec{Type: typ}
		m, err := primitive.Generate(s)
		if err != nil {
			t.Fatal(err)
		}
		k, err := primitive.Load(s, m)
		if err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			b, err := k.(primitive.Cipher).Encrypt(nil, nil, primitive.CipherOptions{Nonces: &nonces})
			if err != nil {
				t.Fatal(err)
			}
			nonce := string(b[:len(b)-16])
			for _, half := range []string{nonce[:12], nonce[len(nonce)-12:]}[:len(nonce)/12] {
				if seen[half] || half == string(make([]byte, 12)) {
					t.Fatalf("%s: the nonce %x came twice, or was not drawn", typ, nonce)
				}
				seen[half] = true
			}
		}
	}
}

// TestConvergentNonces encrypts one text with different associated data by a
// convergent key: under one nonce, the two tags would tell the key that they
// were made by (NIST SP 800-38D, appendix A), and anybody could make more.
func TestConvergentNonces(t *testing.T) {
	for _, typ := range []primitive.Type{primitive.AES128GCM, primitive.AES256GCM, primitive.ChaCha20Poly1305, primitive.XChaCha20Poly1305} {
		m, err := primitive.Generate(primitive.Spec{Type: typ})
		if err != nil {
			t.Fatal(err)
		}
		k, err := primitive.DeriveConvergent(typ, m.Secret, []byte("a context"))
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]string{}
		for _, c := range []struct{ plain, with string }{{"text", ""}, {"text", "a"}, {"text", "b"}, {"ext", "at"}, {"", "atext"}, {"atext", ""}} {
			o := primitive.CipherOptions{AssociatedData: []byte(c.with)}
			b, err := k.Encrypt(nil, []byte(c.plain), o)
			if err != nil {
				t.Fatal(err)
			}
			again, err := k.Encrypt(nil, []byte(c.plain), o)
			if err != nil || string(again) != string(b) {
				t.Errorf("%s: %q with %q is not encrypted alike twice: %v", typ, c.plain, c.with, err)
			}
			nonce := string(b[:len(b)-len(c.plain)-16])
			if other, ok := seen[nonce]; ok {
				t.Errorf("%s: %q with %q has the nonce of %s", typ, c.plain, c.with, other)
			}
			seen[nonce] = c.plain + " with " + c.with
			if got, err := k.Decrypt(b, o); err != nil || string(got) != c.plain {
				t.Errorf("%s: %q comes back as %q, %v", typ, c.plain, got, err)
			}
		}
	}
}
