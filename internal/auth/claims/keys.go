package claims

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"

	"github.com/go-jose/go-jose/v4"

	"github.com/leasehold/leasehold/internal/wire"
)

// ErrNoKey is the answer to a PEM text without a public key in it.
var ErrNoKey = errors.New("data does not contain any valid public keys")

// ParsePEM reads a public key, or that of a certificate: RSA, ECDSA or Ed25519.
func ParsePEM(text string) (Key, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return Key{}, ErrNoKey
	}
	var pub crypto.PublicKey
	if parsed, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
		pub = parsed
	} else if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
		pub = cert.PublicKey
	} else if parsed, err := x509.ParsePKCS1PublicKey(block.Bytes); err == nil {
		pub = parsed
	}
	if !usable(pub) {
		return Key{}, ErrNoKey
	}
	return Key{Public: pub}, nil
}

func usable(pub crypto.PublicKey) bool {
	switch pub.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// maxKeys is how many keys of a set are looked at.
const maxKeys = 256

// ParseKeySet reads a JWKS document. Keys that are for encryption, secret, or
// of a kind that we do not know are left out, as RFC 7517 wants it.
func ParseKeySet(body []byte) ([]Key, error) {
	var doc struct {
		Keys []wire.Object `json:"keys"`
	}
	if err := wire.Unmarshal(body, &doc); err != nil || doc.Keys == nil {
		return nil, errors.New("it is no JSON Web Key Set: an object with a list of keys")
	}
	if len(doc.Keys) > maxKeys {
		doc.Keys = doc.Keys[:maxKeys]
	}
	keys := make([]Key, 0, len(doc.Keys))
	for _, raw := range doc.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(raw) != nil || !k.Valid() || !k.IsPublic() || k.Use == "enc" || !usable(k.Key) {
			continue
		}
		keys = append(keys, Key{ID: k.KeyID, Alg: k.Algorithm, Public: k.Key})
	}
	return keys, nil
}
