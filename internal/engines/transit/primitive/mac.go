package primitive

import (
	"crypto"
	"crypto/hmac"
	"fmt"
	"strings"

	cmac "github.com/tink-crypto/tink-go/v2/mac/subtle"
)

// Hash is a hash algorithm by its place in Go's list; the zero Hash stands for
// SHA-256.
type Hash crypto.Hash

// NoHash signs the input as it is, where a signature scheme has that.
const NoHash = Hash(255)

// hashes are the algorithms by their names on the wire.
var hashes = map[string]crypto.Hash{
	"sha1":     crypto.SHA1,
	"sha2-224": crypto.SHA224, "sha2-256": crypto.SHA256, "sha2-384": crypto.SHA384, "sha2-512": crypto.SHA512,
	"sha3-224": crypto.SHA3_224, "sha3-256": crypto.SHA3_256, "sha3-384": crypto.SHA3_384, "sha3-512": crypto.SHA3_512,
}

// HashNamed finds a hash algorithm by its name on the wire; "" is sha2-256.
func HashNamed(name string) (Hash, bool) {
	if name == "" {
		return Hash(crypto.SHA256), true
	}
	h, ok := hashes[strings.ToLower(name)]
	return Hash(h), ok
}

func (h Hash) crypto() crypto.Hash {
	if h == 0 {
		return crypto.SHA256
	}
	return crypto.Hash(h)
}

// Size of a digest, in bytes.
func (h Hash) Size() int { return h.crypto().Size() }

// Sum is the digest of some input.
func (h Hash) Sum(input []byte) []byte {
	d := h.crypto().New()
	d.Write(input)
	return d.Sum(nil)
}

// digest is what a signature scheme signs: the input's digest, or the input
// where that is one.
func (o SignOptions) digest(input []byte) ([]byte, error) {
	if !o.Prehashed {
		return o.Hash.Sum(input), nil
	}
	if len(input) != o.Hash.Size() {
		return nil, ErrDigest
	}
	return input, nil
}

// HMACSum is RFC 2104's HMAC of some input under a key.
func HMACSum(h Hash, key, input []byte) []byte {
	m := hmac.New(h.crypto().New, key)
	m.Write(input)
	return m.Sum(nil)
}

// macKey is a key of type hmac: HMACSum is given its bytes.
type macKey []byte

// Secret is the key itself.
func (k macKey) Secret() []byte { return k }

// cmacKey is AES-CMAC (RFC 4493, NIST SP 800-38B) by Tink's library.
type cmacKey struct{ m *cmac.AESCMAC }

func newCMAC(key []byte) (*cmacKey, error) {
	m, err := cmac.NewAESCMAC(key, 16)
	if err != nil {
		return nil, fmt.Errorf("a key for CMAC: %w", err)
	}
	return &cmacKey{m}, nil
}

// Sum is the whole MAC of 16 bytes.
func (k *cmacKey) Sum(input []byte) []byte {
	b, err := k.m.ComputeMAC(input)
	if err != nil {
		panic(err) // only for a tag size that New refuses
	}
	return b
}
