package claims

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/leasehold/leasehold/internal/wire"
)

// MaxToken is the longest token that is looked at. With some hundred groups
// in it one has a tenth of that.
const MaxToken = 64 << 10

// What is wrong with a token. The sentences end up with its sender, and none
// says which key or which byte it was.
var (
	ErrTooLong   = fmt.Errorf("the token is longer than %d bytes", MaxToken)
	ErrMalformed = errors.New("the token is malformed: a JWT is three base64url parts with dots between them, and its claims are one JSON object")
	ErrSignature = errors.New("error verifying token signature: no known key successfully validated the token signature")
	ErrAlgorithm = errors.New("invalid algorithm (alg) header parameter: token signed with unexpected algorithm")
)

// Algorithms are all that a signature may be made with.
var Algorithms = []string{
	"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA",
}

var joseAlgorithms = func() (out []jose.SignatureAlgorithm) {
	for _, a := range Algorithms {
		out = append(out, jose.SignatureAlgorithm(a))
	}
	return out
}()

// Token is a token that was taken apart and not yet believed.
type Token struct {
	Alg   string // what its header names; one of Algorithms
	KeyID string // "kid" of its header; "" is none
	jws   *jose.JSONWebSignature
}

// Parse takes a token apart. A token whose algorithm nobody may use is
// ErrSignature: no key ever fits it.
func Parse(text string) (*Token, error) {
	text = strings.TrimSpace(text) // of a file's last line
	if len(text) > MaxToken {
		return nil, ErrTooLong
	}
	jws, err := jose.ParseSignedCompact(text, joseAlgorithms)
	var alg *jose.ErrUnexpectedSignatureAlgorithm
	switch {
	case errors.As(err, &alg):
		return nil, ErrSignature
	case err != nil:
		return nil, ErrMalformed
	}
	h := jws.Signatures[0].Protected
	return &Token{Alg: h.Algorithm, KeyID: h.KeyID, jws: jws}, nil
}

// Key is a public key that signatures may be checked with.
type Key struct {
	ID     string // "kid"; "" fits any token
	Alg    string // "" is any that fits the key's type
	Public crypto.PublicKey
}

// fits says whether a key may judge a token. That is decided by the key: a
// token cannot have an RSA key taken for a shared secret, or a curve for
// another.
func (k *Key) fits(t *Token) bool {
	if k.Alg != "" && k.Alg != t.Alg || k.ID != "" && t.KeyID != "" && k.ID != t.KeyID {
		return false
	}
	switch pub := k.Public.(type) {
	case *rsa.PublicKey:
		return t.Alg[0] == 'R' || t.Alg[0] == 'P'
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256():
			return t.Alg == "ES256"
		case elliptic.P384():
			return t.Alg == "ES384"
		case elliptic.P521():
			return t.Alg == "ES512"
		}
	case ed25519.PublicKey:
		return t.Alg == "EdDSA"
	}
	return false
}

// Verify gives the claims if one of the keys made the signature.
func (t *Token) Verify(keys []Key) (Set, error) {
	for i := range keys {
		if !keys[i].fits(t) {
			continue
		}
		if payload, err := t.jws.Verify(keys[i].Public); err == nil {
			return parseSet(payload)
		}
	}
	return Set{}, ErrSignature
}

// Unverified gives the claims as the token has them, without any reason to
// believe them. Somebody else must be asked.
func (t *Token) Unverified() (Set, error) {
	return parseSet(t.jws.UnsafePayloadWithoutVerification())
}

// maxDepth is how deep claims may nest.
const maxDepth = 32

// parseSet reads a token's payload. A claim that stands in it twice makes it
// malformed: of two readers one would believe the first and one the last.
func parseSet(payload []byte) (Set, error) {
	if wire.CheckDepth(payload, maxDepth) != nil {
		return Set{}, ErrMalformed
	}
	o, err := wire.ParseObject(payload)
	if err != nil || o == nil {
		return Set{}, ErrMalformed
	}
	if twice(payload) {
		return Set{}, ErrMalformed
	}
	return Set{o}, nil
}

// twice reports whether an object has a name twice.
func twice(payload []byte) bool {
	for len(payload) > 0 && payload[0] != '{' { // white space
		payload = payload[1:]
	}
	seen := map[string]bool{}
	for name := range wire.Object(payload).All() {
		if seen[name] {
			return true
		}
		seen[name] = true
	}
	return false
}
