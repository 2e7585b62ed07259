package primitive_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"testing"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
)

// oddPoints are encodings that verifiers of Ed25519 disagree about: the points
// of small order, those with the wrong sign of zero, and numbers not below p.
func oddPoints(t testing.TB) (out [][]byte) {
	t.Helper()
	for _, s := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000", // order 1
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // order 2
		"0000000000000000000000000000000000000000000000000000000000000000", // order 4
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", // order 8
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", // order 8
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p, that is 0
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p+1, that is 1
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p+18
		"0200000000000000000000000000000000000000000000000000000000000000", // no point
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		signed := slices.Clone(b)
		signed[31] |= 0x80
		out = append(out, b, signed)
	}
	return out
}

func edPublic(t testing.TB, pub []byte) primitive.Signer {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(ed25519.PublicKey(pub))
	if err != nil {
		t.Fatal(err)
	}
	k, err := primitive.Load(primitive.Spec{Type: primitive.Ed25519}, primitive.Material{Public: der})
	if err != nil {
		t.Fatal(err)
	}
	return k.(primitive.Signer)
}

// agree compares what we say of a signature with what the standard library
// does.
func agree(t testing.TB, k primitive.Signer, pub, input, sig []byte) bool {
	t.Helper()
	want := ed25519.Verify(pub, input, sig)
	if got, err := k.Verify(input, sig, primitive.SignOptions{}); got != want || err != nil {
		t.Fatalf("key %x, input %x, signature %x: %v, %v; crypto/ed25519 says %v", pub, input, sig, got, err, want)
	}
	return want
}

// TestEd25519Disagreements has signatures that are good to one library and bad
// to another: ours are good when they are to crypto/ed25519, whose answers
// clients check with.
func TestEd25519Disagreements(t *testing.T) {
	good := 0
	points := oddPoints(t)
	order, err := hex.DecodeString("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	if err != nil {
		t.Fatal(err)
	}
	scalars := [][]byte{make([]byte, 32), append([]byte{1}, make([]byte, 31)...), order, bytes.Repeat([]byte{0xff}, 32)}
	for _, a := range points {
		k := edPublic(t, a)
		for _, r := range points {
			for _, s := range scalars {
				for m := range byte(16) { // the hash of which is another residue of 8
					if agree(t, k, a, []byte{m}, slices.Concat(r, s)) {
						good++
					}
				}
			}
		}
	}
	if good == 0 {
		t.Error("no signature of a key of small order is good: nothing was tried")
	}

	// A good signature, and the same with its scalar above the order.
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	k, sig := edPublic(t, pub), ed25519.Sign(priv, []byte("x"))
	if !agree(t, k, pub, []byte("x"), sig) {
		t.Error("a good signature is bad")
	}
	carry := 0
	for i, b := range order {
		carry += int(sig[32+i]) + int(b)
		sig[32+i] = byte(carry)
		carry >>= 8
	}
	agree(t, k, pub, []byte("x"), sig)
	for _, n := range []int{0, 1, 32, 63, 65} {
		agree(t, k, pub, []byte("x"), make([]byte, n))
	}
}

// TestEd25519Variants verifies Ed25519ctx and Ed25519ph (RFC 8032, section 5.1)
// as crypto/ed25519 signs them.
func TestEd25519Variants(t *testing.T) {
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	k := edPublic(t, pub)
	digest := sha512.Sum512([]byte("x"))
	for _, c := range []struct {
		opts ed25519.Options
		o    primitive.SignOptions
	}{
		{ed25519.Options{Context: "c"}, primitive.SignOptions{Context: []byte("c")}},
		{ed25519.Options{Hash: crypto.SHA512}, primitive.SignOptions{Prehashed: true, Hash: primitive.Hash(crypto.SHA512)}},
		{ed25519.Options{Hash: crypto.SHA512, Context: "c"}, primitive.SignOptions{Prehashed: true, Hash: primitive.Hash(crypto.SHA512), Context: []byte("c")}},
	} {
		sig, err := priv.Sign(nil, digest[:], &c.opts)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := k.Verify(digest[:], sig, c.o); !ok || err != nil {
			t.Errorf("%+v: %v, %v", c.opts, ok, err)
		}
		if ok, err := k.Verify(digest[:], sig, primitive.SignOptions{}); ok || err != nil {
			t.Errorf("%+v as pure Ed25519: %v, %v", c.opts, ok, err)
		}
	}
}

// FuzzEd25519 looks for signatures that we judge otherwise than crypto/ed25519.
func FuzzEd25519(f *testing.F) {
	priv := ed25519.NewKeyFromSeed(make([]byte, 32))
	f.Add([]byte(priv.Public().(ed25519.PublicKey)), []byte("x"), ed25519.Sign(priv, []byte("x")))
	for _, p := range oddPoints(f) {
		f.Add(p, []byte("x"), append(slices.Clone(p), make([]byte, 32)...))
	}
	f.Fuzz(func(t *testing.T, pub, input, sig []byte) {
		if len(pub) != ed25519.PublicKeySize {
			return
		}
		agree(t, edPublic(t, pub), pub, input, sig)
	})
}
