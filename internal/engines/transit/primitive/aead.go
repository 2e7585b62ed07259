package primitive

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

// Random draws bytes.
func Random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// Nonces draws random bytes for many nonces at once, each of which is given
// once. It is used by one goroutine.
type Nonces struct {
	drawn [384]byte
	left  int
}

func (n *Nonces) read(b []byte) {
	if n == nil || len(b) > len(n.drawn) {
		rand.Read(b)
		return
	}
	if n.left < len(b) {
		rand.Read(n.drawn[:])
		n.left = len(n.drawn)
	}
	from := n.drawn[n.left-len(b) : n.left]
	copy(b, from)
	clear(from)
	n.left -= len(b)
}

// aead is a symmetric key that encrypts. Its ciphertexts begin with the nonce.
type aead struct{ c cipher.AEAD }

func newAEAD(t Type, key []byte) (*aead, error) {
	if want := (Spec{Type: t}).secretSize(); len(key) != want {
		return nil, fmt.Errorf("a key of type %s has %d bytes, this one has %d", t, want, len(key))
	}
	switch t {
	case ChaCha20Poly1305:
		c, err := chacha20poly1305.New(key)
		return &aead{c}, err
	case XChaCha20Poly1305:
		c, err := chacha20poly1305.NewX(key)
		return &aead{c}, err
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	c, err := cipher.NewGCM(b)
	return &aead{c}, err
}

func (a *aead) Encrypt(dst, plaintext []byte, o CipherOptions) ([]byte, error) {
	n, at := a.c.NonceSize(), len(dst)
	out := slices.Grow(dst, n+len(plaintext)+a.c.Overhead())[:at+n]
	nonce := out[at:]
	if o.Nonce != nil {
		if len(o.Nonce) != n {
			return dst, fmt.Errorf("a nonce has %d bytes here, this one has %d", n, len(o.Nonce))
		}
		copy(nonce, o.Nonce)
	} else {
		o.Nonces.read(nonce)
	}
	return a.c.Seal(out, nonce, plaintext, o.AssociatedData), nil
}

func (a *aead) Decrypt(ciphertext []byte, o CipherOptions) ([]byte, error) {
	n := a.c.NonceSize()
	if len(ciphertext) < n+a.c.Overhead() {
		return nil, ErrShort
	}
	// In place: the ciphertext is the caller's own copy.
	out, err := a.c.Open(ciphertext[n:n], ciphertext[:n], ciphertext[n:], o.AssociatedData)
	if err != nil {
		return nil, ErrOpen
	}
	return out, nil
}

// Derive makes the key of one context of a derived key: HKDF with SHA-256
// (RFC 5869), the context as info and no salt.
func Derive(t Type, secret, context []byte) (Material, error) {
	n := (Spec{Type: t}).secretSize()
	b, err := hkdf.Key(sha256.New, secret, nil, string(context), n)
	if err != nil {
		return Material{}, err
	}
	if t == Ed25519 {
		return ed25519Material(b)
	}
	return Material{Secret: b}, nil
}

// Convergent is a key whose nonces are made of the plaintext, so that equal
// plaintexts in equal contexts have equal ciphertexts. What is authenticated
// with it goes into the nonce, too: two tags under one nonce would give away
// the key that tags are made by.
type Convergent struct {
	aead
	nonceKey    []byte // of plaintexts alone, as Vault has it
	nonceKeyFor []byte // of plaintexts with associated data
}

// DeriveConvergent makes the key of one context, and the keys of its nonces
// behind it in the same output.
func DeriveConvergent(t Type, secret, context []byte) (*Convergent, error) {
	n := (Spec{Type: t}).secretSize()
	b, err := hkdf.Key(sha256.New, secret, nil, string(context), n+2*sha256.Size)
	if err != nil {
		return nil, err
	}
	a, err := newAEAD(t, b[:n])
	if err != nil {
		return nil, err
	}
	return &Convergent{aead: *a, nonceKey: b[n : n+sha256.Size], nonceKeyFor: b[n+sha256.Size:]}, nil
}

// Encrypt encrypts under the nonce of the plaintext and the associated data.
func (c *Convergent) Encrypt(dst, plaintext []byte, o CipherOptions) ([]byte, error) {
	h := hmac.New(sha256.New, c.nonceKey)
	if len(o.AssociatedData) > 0 {
		h = hmac.New(sha256.New, c.nonceKeyFor)
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(o.AssociatedData))))
		h.Write(o.AssociatedData)
	}
	h.Write(plaintext)
	o.Nonce = h.Sum(nil)[:c.c.NonceSize()]
	return c.aead.Encrypt(dst, plaintext, o)
}
