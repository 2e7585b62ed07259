// Package primitive is the cryptography of the Transit engine: every type of
// key, what it can do, and its keys ready for use.
//
// A key type is a Spec. Generate draws the material of one version, Load makes
// a Key of stored material; what a Key can do are the small interfaces that it
// has: Cipher, Signer, MAC, KEM, Agreer. Nothing here knows of versions, prefixes such
// as "vault:v1:", or JSON. All algorithms are those of the standard library or
// of the libraries named at their files; none is ours.
package primitive

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Type is the name of a type of key on the wire.
type Type string

// The types.
const (
	AES128GCM         Type = "aes128-gcm96"
	AES256GCM         Type = "aes256-gcm96"
	ChaCha20Poly1305  Type = "chacha20-poly1305"
	XChaCha20Poly1305 Type = "xchacha20-poly1305"
	Ed25519           Type = "ed25519"
	ECDSAP256         Type = "ecdsa-p256"
	ECDSAP384         Type = "ecdsa-p384"
	ECDSAP521         Type = "ecdsa-p521"
	RSA2048           Type = "rsa-2048"
	RSA3072           Type = "rsa-3072"
	RSA4096           Type = "rsa-4096"
	HMAC              Type = "hmac"
	AES128CMAC        Type = "aes128-cmac"
	AES192CMAC        Type = "aes192-cmac"
	AES256CMAC        Type = "aes256-cmac"
	MLDSA             Type = "ml-dsa"  // with a parameter set: 44, 65 or 87
	SLHDSA            Type = "slh-dsa" // with a parameter set of FIPS 205
	Hybrid            Type = "hybrid"  // a signature by ML-DSA and one by an older algorithm
	MLKEM768          Type = "ml-kem-768"
	MLKEM1024         Type = "ml-kem-1024"
)

// Spec says all that tells one kind of key from another.
type Spec struct {
	Type         Type   `json:"type"`
	Size         int    `json:"size,omitempty"`       // of an HMAC key, in bytes
	ParameterSet string `json:"parameters,omitempty"` // of ml-dsa, slh-dsa and hybrid
	HybridPQC    string `json:"pqc,omitempty"`        // of hybrid: "ml-dsa"
	HybridEC     string `json:"ec,omitempty"`         // of hybrid: ed25519 or ecdsa-…
}

// Abilities are what the keys of a Spec can do.
type Abilities struct {
	Encrypt, Decrypt, Derive, Sign bool
	Symmetric                      bool // the key is one secret; there is no public half
	MAC                            bool // the key is for MACs alone
	KEM                            bool
}

// Abilities of the type.
func (t Type) Abilities() Abilities {
	switch t {
	case AES128GCM, AES256GCM, ChaCha20Poly1305, XChaCha20Poly1305:
		return Abilities{Encrypt: true, Decrypt: true, Derive: true, Symmetric: true}
	case Ed25519:
		return Abilities{Sign: true, Derive: true}
	case ECDSAP256, ECDSAP384, ECDSAP521, MLDSA, SLHDSA, Hybrid:
		return Abilities{Sign: true}
	case RSA2048, RSA3072, RSA4096:
		return Abilities{Encrypt: true, Decrypt: true, Sign: true}
	case HMAC, AES128CMAC, AES192CMAC, AES256CMAC:
		return Abilities{Symmetric: true, MAC: true}
	case MLKEM768, MLKEM1024:
		return Abilities{Encrypt: true, Decrypt: true, KEM: true}
	}
	return Abilities{}
}

// Cipher is a key that encrypts, decrypts, or, with the public half alone,
// only encrypts.
type Cipher interface {
	// Encrypt appends what Decrypt takes to dst. Of an AEAD that is nonce,
	// ciphertext and tag.
	Encrypt(dst, plaintext []byte, o CipherOptions) ([]byte, error)
	// Decrypt gives the plaintext, which may lie in the ciphertext's place.
	Decrypt(ciphertext []byte, o CipherOptions) ([]byte, error)
}

// CipherOptions are what a caller may say beside the data.
type CipherOptions struct {
	// AssociatedData is authenticated with an AEAD's ciphertext.
	AssociatedData []byte
	// Nonce is used in place of a random one: of convergent encryption.
	Nonce []byte
	// Padding is RSA's: "" and "oaep", or "pkcs1v15".
	Padding string
	// Nonces is where random nonces are drawn from, for who encrypts much; nil:
	// each is drawn by itself.
	Nonces *Nonces
}

// Signer is a key that signs and verifies, or, with the public half alone,
// only verifies.
type Signer interface {
	Sign(input []byte, o SignOptions) ([]byte, error)
	// Verify reports whether a signature is good. An error says that the
	// question was wrong, such as a digest of the wrong length.
	Verify(input, signature []byte, o SignOptions) (bool, error)
}

// SignOptions are what a caller may say about a signature. Zero values are the
// key's usual ones.
type SignOptions struct {
	Hash      Hash // of what is signed; the zero Hash is SHA-256
	Prehashed bool // the input is a digest already
	// JWS asks for ECDSA signatures as R and S side by side (RFC 7515,
	// appendix A.3) in place of ASN.1.
	JWS bool
	// Padding is RSA's: "" and "pss", or "pkcs1v15".
	Padding string
	// Salt is the length of PSS's salt: SaltAuto, SaltHash or a number of bytes.
	Salt int
	// Context is bound into the signature: of ML-DSA, SLH-DSA and Ed25519ph.
	Context []byte
}

// Lengths of a PSS salt.
const (
	SaltAuto = 0  // when signing, as long as possible; when verifying, any
	SaltHash = -1 // as long as the digest
)

// MAC is a key that authenticates.
type MAC interface {
	Sum(input []byte) []byte
}

// KEM is a key that agrees on a secret with whoever has its public half
// (FIPS 203).
type KEM interface {
	Encapsulate() (shared, ciphertext []byte)
	Decapsulate(ciphertext []byte) (shared []byte, err error)
}

// Agreer is a key that computes a secret with the holder of another, of which
// it sees the public half (PEM) alone.
type Agreer interface {
	Agree(peer string) (shared []byte, err error)
}

// Errors that callers tell apart. Their texts are for clients.
var (
	ErrOpen      = errors.New("cipher: message authentication failed")
	ErrShort     = errors.New("invalid ciphertext length")
	ErrNoPrivate = errors.New("the key has its public half only: it was imported without the private one")
	ErrDigest    = errors.New("the input is no digest of that hash algorithm: its length is wrong")
)

// Check says what is wrong with a Spec.
func (s Spec) Check() error {
	a := s.Type.Abilities()
	if a == (Abilities{}) {
		return fmt.Errorf("unknown key type: %s", s.Type)
	}
	if s.Type == HMAC && (s.Size < 32 || s.Size > 512) {
		return fmt.Errorf("invalid key_size %d for HMAC key, must be between 32 and 512 bytes", s.Size)
	}
	switch s.Type {
	case MLDSA, Hybrid:
		if _, err := mldsaParameters(s.ParameterSet); err != nil {
			return err
		}
	case SLHDSA:
		_, err := slhdsaID(s.ParameterSet)
		return err
	}
	if s.Type == Hybrid {
		if s.HybridPQC != string(MLDSA) {
			return fmt.Errorf("hybrid_key_type_pqc %q is not known; use ml-dsa", s.HybridPQC)
		}
		if !slices.Contains([]Type{Ed25519, ECDSAP256, ECDSAP384, ECDSAP521}, Type(s.HybridEC)) {
			return fmt.Errorf("hybrid_key_type_ec %q is not known; use ed25519, ecdsa-p256, ecdsa-p384 or ecdsa-p521", s.HybridEC)
		}
	}
	return nil
}

// Named reads the type from the wire, where the parameter set of ml-dsa may
// stand in the name itself ("ml-dsa-65").
func Named(name, parameters string) (Type, string) {
	if set, ok := strings.CutPrefix(name, string(MLDSA)+"-"); ok && parameters == "" {
		return MLDSA, set
	}
	return Type(name), parameters
}

// Material is one version of a key as it is stored. Secret is what must not be
// seen: the key itself of a symmetric one, PKCS #8 of others where there is
// such a form, a seed where there is not. Public is PKIX, or the raw key where
// there is no such form; it is empty for symmetric keys. Of an imported public
// key there is no Secret.
type Material struct {
	Secret []byte
	Public []byte
}

// Generate draws the material of a new version.
func Generate(s Spec) (Material, error) {
	switch s.Type {
	case AES128GCM, AES256GCM, ChaCha20Poly1305, XChaCha20Poly1305, HMAC, AES128CMAC, AES192CMAC, AES256CMAC:
		return Material{Secret: Random(s.secretSize())}, nil
	case Ed25519, ECDSAP256, ECDSAP384, ECDSAP521:
		return generateEC(s.Type)
	case RSA2048, RSA3072, RSA4096:
		return generateRSA(s.Type)
	case MLDSA:
		return generateMLDSA(s)
	case SLHDSA:
		return generateSLHDSA(s)
	case Hybrid:
		return generateHybrid(s)
	case MLKEM768, MLKEM1024:
		return generateMLKEM(s.Type)
	}
	return Material{}, s.Check()
}

// secretSize is the length of a symmetric key.
func (s Spec) secretSize() int {
	switch s.Type {
	case AES128GCM, AES128CMAC:
		return 16
	case AES192CMAC:
		return 24
	case HMAC:
		return s.Size
	}
	return 32
}

// Key is a version ready for use. It has further interfaces according to its
// type.
type Key interface{}

// Load makes a Key of stored material.
func Load(s Spec, m Material) (Key, error) {
	if want := s.secretSize(); s.Type.Abilities().Symmetric && len(m.Secret) != want {
		return nil, fmt.Errorf("a key of type %s has %d bytes, this one has %d", s.Type, want, len(m.Secret))
	}
	switch s.Type {
	case AES128GCM, AES256GCM, ChaCha20Poly1305, XChaCha20Poly1305:
		return newAEAD(s.Type, m.Secret)
	case Ed25519, ECDSAP256, ECDSAP384, ECDSAP521:
		return loadEC(s.Type, m)
	case RSA2048, RSA3072, RSA4096:
		return loadRSA(s.Type, m)
	case HMAC:
		return macKey(m.Secret), nil
	case AES128CMAC, AES192CMAC, AES256CMAC:
		return newCMAC(m.Secret)
	case MLDSA:
		return loadMLDSA(s, m)
	case SLHDSA:
		return loadSLHDSA(s, m)
	case Hybrid:
		return loadHybrid(s, m)
	case MLKEM768, MLKEM1024:
		return loadMLKEM(s.Type, m)
	}
	return nil, s.Check()
}
