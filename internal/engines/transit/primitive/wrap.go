package primitive

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
)

// Keys travel as CKM_RSA_AES_KEY_WRAP has it (PKCS #11): an AES-256 key under
// RSA-OAEP, behind it the key under that one by AES-KWP (RFC 5649), which is
// Tink's.

// ErrWrapped says that a wrapped key is not what it should be. What exactly is
// wrong with it is not told.
var ErrWrapped = errors.New("the ciphertext is no key wrapped by this server's wrapping key with this hash function: RSA-OAEP of an AES-256 key, and behind it the key by AES-KWP")

// Wrap wraps a key for whoever has the private half of a public one.
func Wrap(to *rsa.PublicKey, h Hash, key []byte) ([]byte, error) {
	ephemeral := Random(32)
	defer clear(ephemeral)
	head, err := rsa.EncryptOAEP(h.crypto().New(), rand.Reader, to, ephemeral, nil)
	if err != nil {
		return nil, err
	}
	w, err := subtle.NewKWP(ephemeral)
	if err != nil {
		return nil, err
	}
	body, err := w.Wrap(key)
	if err != nil {
		return nil, err
	}
	return append(head, body...), nil
}

// Unwrap opens what Wrap made.
func Unwrap(k *rsa.PrivateKey, h Hash, b []byte) ([]byte, error) {
	n := k.Size()
	if len(b) <= n {
		return nil, ErrWrapped
	}
	ephemeral, err := rsa.DecryptOAEP(h.crypto().New(), nil, k, b[:n], nil)
	if err != nil {
		return nil, ErrWrapped
	}
	defer clear(ephemeral)
	w, err := subtle.NewKWP(ephemeral)
	if err != nil {
		return nil, ErrWrapped
	}
	key, err := w.Unwrap(b[n:])
	if err != nil {
		return nil, ErrWrapped
	}
	return key, nil
}

// KWP wraps a key by a symmetric one (RFC 5649).
func KWP(by, key []byte) ([]byte, error) {
	w, err := subtle.NewKWP(by)
	if err != nil {
		return nil, err
	}
	return w.Wrap(key)
}

// UnKWP opens what KWP made.
func UnKWP(by, wrapped []byte) ([]byte, error) {
	w, err := subtle.NewKWP(by)
	if err != nil {
		return nil, err
	}
	key, err := w.Unwrap(wrapped)
	if err != nil {
		return nil, ErrWrapped
	}
	return key, nil
}

// HashForOAEP finds the hash of an import by its name, SHA256 or SHA-256 as
// Vault's pages have had it; "" is SHA-256.
func HashForOAEP(name string) (Hash, bool) {
	h, ok := map[string]crypto.Hash{
		"": crypto.SHA256, "SHA1": crypto.SHA1, "SHA224": crypto.SHA224, "SHA256": crypto.SHA256, "SHA384": crypto.SHA384, "SHA512": crypto.SHA512,
	}[strings.ReplaceAll(strings.ToUpper(name), "-", "")]
	return Hash(h), ok
}

// NewWrappingKey draws the key pair that keys are wrapped for import by:
// RSA with 4,096 bits, as PKCS #8.
func NewWrappingKey() ([]byte, error) {
	k, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKCS8PrivateKey(k)
}

// WrappingKey reads such a key pair.
func WrappingKey(der []byte) (*rsa.PrivateKey, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	r, ok := k.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the wrapping key is a %T", k)
	}
	return r, nil
}

// WrappingPublic is the public half in PEM.
func WrappingPublic(k *rsa.PrivateKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// RSAPublic is the public half of an RSA key.
func RSAPublic(k Key) (*rsa.PublicKey, bool) {
	r, ok := k.(*rsaKey)
	if !ok {
		return nil, false
	}
	return r.pub, true
}
