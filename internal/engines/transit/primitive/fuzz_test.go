package primitive_test

import (
	"crypto/rsa"
	"testing"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
)

var fuzzTypes = []primitive.Spec{
	{Type: primitive.AES128GCM}, {Type: primitive.XChaCha20Poly1305}, {Type: primitive.HMAC, Size: 32}, {Type: primitive.AES192CMAC},
	{Type: primitive.Ed25519}, {Type: primitive.ECDSAP256}, {Type: primitive.ECDSAP521}, {Type: primitive.RSA2048},
	{Type: primitive.MLDSA, ParameterSet: "44"}, {Type: primitive.MLKEM768}, {Type: primitive.SLHDSA, ParameterSet: "slh-dsa-sha2-128f"},
	{Type: primitive.Hybrid, ParameterSet: "44", HybridPQC: "ml-dsa", HybridEC: "ed25519"},
}

// FuzzImported imports whatever comes as a key: what is taken is a key that
// loads, and comes out as it went in.
func FuzzImported(f *testing.F) {
	for i, s := range fuzzTypes {
		m, err := primitive.Generate(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), m.Secret)
		f.Add(uint8(i), []byte{})
	}
	f.Fuzz(func(t *testing.T, n uint8, key []byte) {
		s := fuzzTypes[int(n)%len(fuzzTypes)]
		m, err := primitive.Imported(s, append([]byte{}, key...))
		if err != nil {
			return
		}
		if s.Type == primitive.HMAC {
			s.Size = len(m.Secret)
		}
		k, err := primitive.Load(s, m)
		if err != nil {
			t.Fatalf("%s: %x was taken and does not load: %v", s.Type, key, err)
		}
		if sig, ok := k.(primitive.Signer); ok {
			b, err := sig.Sign([]byte("x"), primitive.SignOptions{})
			if err != nil {
				t.Fatalf("%s: %x was taken and does not sign: %v", s.Type, key, err)
			}
			if good, err := sig.Verify([]byte("x"), b, primitive.SignOptions{}); !good || err != nil {
				t.Fatalf("%s: %x does not verify what it signed: %v", s.Type, key, err)
			}
		}
		again, err := primitive.Wrappable(m)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := primitive.Imported(s, again); err != nil || string(second.Public) != string(m.Public) {
			t.Fatalf("%s: %x is another key after a round trip: %v", s.Type, key, err)
		}
	})
}

// FuzzPublic imports whatever comes as a public key.
func FuzzPublic(f *testing.F) {
	for i, s := range fuzzTypes {
		m, err := primitive.Generate(s)
		if err != nil {
			f.Fatal(err)
		}
		if text, _, err := primitive.PublicText(s, m); err == nil {
			f.Add(uint8(i), text)
		}
	}
	f.Add(uint8(7), "-----BEGIN RSA PUBLIC KEY-----\nMAA=\n-----END RSA PUBLIC KEY-----\n")
	f.Fuzz(func(t *testing.T, n uint8, text string) {
		s := fuzzTypes[int(n)%len(fuzzTypes)]
		m, err := primitive.ImportedPublic(s, text)
		if err != nil {
			return
		}
		k, err := primitive.Load(s, m)
		if err != nil {
			t.Fatalf("%s: %q was taken and does not load: %v", s.Type, text, err)
		}
		if sig, ok := k.(primitive.Signer); ok {
			if _, err := sig.Sign([]byte("x"), primitive.SignOptions{}); err == nil {
				t.Fatalf("%s: a public key signs", s.Type)
			}
			if good, _ := sig.Verify([]byte("x"), []byte("x"), primitive.SignOptions{}); good {
				t.Fatalf("%s: anything is a signature", s.Type)
			}
		}
	})
}

// FuzzUnwrap opens whatever comes as a wrapped key.
func FuzzUnwrap(f *testing.F) {
	der, err := primitive.NewWrappingKey()
	if err != nil {
		f.Fatal(err)
	}
	k, err := primitive.WrappingKey(der)
	if err != nil {
		f.Fatal(err)
	}
	h, _ := primitive.HashForOAEP("")
	b, err := primitive.Wrap(k.Public().(*rsa.PublicKey), h, []byte("a key of some bytes"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-8])
	f.Add(b[:512])
	f.Fuzz(func(t *testing.T, wrapped []byte) {
		if key, err := primitive.Unwrap(k, h, wrapped); err == nil && string(wrapped) != string(b) {
			t.Fatalf("%x opens as %x and was never wrapped", wrapped, key)
		}
	})
}
