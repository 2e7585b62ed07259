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
