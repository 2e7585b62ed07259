package primitive

import (
	"bytes"
	"crypto/hpke"
	"crypto/mlkem"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"filippo.io/mldsa"
	"github.com/cloudflare/circl/sign/slhdsa"
	"golang.org/x/crypto/cryptobyte"
)

// ML-DSA is FIPS 204, by filippo.io/mldsa. Secret is the seed of 32 bytes,
// Public the encoding of the standard.

func mldsaParameters(set string) (mldsa.Parameters, error) {
	switch set {
	case "44":
		return mldsa.MLDSA44(), nil
	case "65":
		return mldsa.MLDSA65(), nil
	case "87":
		return mldsa.MLDSA87(), nil
	}
	return mldsa.Parameters{}, fmt.Errorf("parameter_set %q is not known for ml-dsa; use 44, 65 or 87", set)
}

func generateMLDSA(s Spec) (Material, error) {
	p, err := mldsaParameters(s.ParameterSet)
	if err != nil {
		return Material{}, err
	}
	k, err := mldsa.GenerateKey(p)
	if err != nil {
		return Material{}, err
	}
	return Material{Secret: k.Bytes(), Public: k.PublicKey().Bytes()}, nil
}

func loadMLDSA(s Spec, m Material) (Key, error) {
	p, err := mldsaParameters(s.ParameterSet)
	if err != nil {
		return nil, err
	}
	k := &mldsaKey{}
	if k.pub, err = mldsa.NewPublicKey(p, m.Public); err != nil {
		return nil, err
	}
	if len(m.Secret) == 0 {
		return k, nil
	}
	if k.priv, err = mldsa.NewPrivateKey(p, m.Secret); err == nil && !k.pub.Equal(k.priv.PublicKey()) {
		err = errHalves
	}
	return k, err
}

type mldsaKey struct {
	pub  *mldsa.PublicKey
	priv *mldsa.PrivateKey
}

var errContext = errors.New("signature_context is longer than 255 bytes")

// pure refuses digests: only the pure schemes are offered, which sign the
// input itself.
func (o SignOptions) pure(t Type) error {
	switch {
	case o.Prehashed:
		return fmt.Errorf("a key of type %s signs the input itself, not a digest: leave prehashed out", t)
	case len(o.Context) > 255:
		return errContext
	}
	return nil
}

func (k *mldsaKey) Sign(input []byte, o SignOptions) ([]byte, error) {
	if k.priv == nil {
		return nil, ErrNoPrivate
	}
	if err := o.pure(MLDSA); err != nil {
		return nil, err
	}
	return k.priv.Sign(rand.Reader, input, &mldsa.Options{Context: string(o.Context)})
}

func (k *mldsaKey) Verify(input, sig []byte, o SignOptions) (bool, error) {
	if err := o.pure(MLDSA); err != nil {
		return false, err
	}
	return mldsa.Verify(k.pub, input, sig, &mldsa.Options{Context: string(o.Context)}) == nil, nil
}

// SLH-DSA is FIPS 205, by cloudflare/circl. Secret and Public are the
// encodings of the standard.

func slhdsaID(set string) (slhdsa.ID, error) {
	name := strings.ToLower(set)
	if name != "" && !strings.HasPrefix(name, "slh-dsa-") {
		name = "slh-dsa-" + name
	}
	id, err := slhdsa.IDByName(name)
	if err != nil {
		return 0, fmt.Errorf("parameter_set %q is not known for slh-dsa; use slh-dsa-sha2-128s, slh-dsa-shake-128f or another of FIPS 205", set)
	}
	return id, nil
}

func generateSLHDSA(s Spec) (Material, error) {
	id, err := slhdsaID(s.ParameterSet)
	if err != nil {
		return Material{}, err
	}
	pub, priv, err := slhdsa.GenerateKey(rand.Reader, id)
	if err != nil {
		return Material{}, err
	}
	var m Material
	if m.Secret, err = priv.MarshalBinary(); err != nil {
		return m, err
	}
	m.Public, err = pub.MarshalBinary()
	return m, err
}

func loadSLHDSA(s Spec, m Material) (Key, error) {
	id, err := slhdsaID(s.ParameterSet)
	if err != nil {
		return nil, err
	}
	k := &slhdsaKey{pub: slhdsa.PublicKey{ID: id}}
	if err := k.pub.UnmarshalBinary(m.Public); err != nil {
		return nil, err
	}
	if len(m.Secret) > 0 {
		k.priv = &slhdsa.PrivateKey{ID: id}
		if err = k.priv.UnmarshalBinary(m.Secret); err == nil && !k.pub.Equal(k.priv.PublicKey()) {
			err = errHalves
		}
	}
	return k, err
}

// slhdsaMaterial is the material of a private key, which holds the public one.
func slhdsaMaterial(s Spec, secret []byte) (m Material, err error) {
	id, err := slhdsaID(s.ParameterSet)
	if err != nil {
		return m, err
	}
	k := &slhdsa.PrivateKey{ID: id}
	if err := k.UnmarshalBinary(secret); err != nil {
		return m, fmt.Errorf("an slh-dsa key is imported as FIPS 205 encodes it: %w", err)
	}
	// Its last quarter is made of the others. One that is not signs what
	// nobody can verify.
	_, again, err := slhdsa.GenerateKey(bytes.NewReader(secret[:len(secret)/4*3]), id)
	if err != nil {
		return m, err
	}
	if !again.Equal(*k) {
		return m, errHalves
	}
	m.Secret = secret
	m.Public, err = k.PublicKey().MarshalBinary()
	return m, err
}

type slhdsaKey struct {
	pub  slhdsa.PublicKey
	priv *slhdsa.PrivateKey
}

func (k *slhdsaKey) Sign(input []byte, o SignOptions) ([]byte, error) {
	if k.priv == nil {
		return nil, ErrNoPrivate
	}
	if err := o.pure(SLHDSA); err != nil {
		return nil, err
	}
	return slhdsa.SignRandomized(k.priv, rand.Reader, slhdsa.NewMessage(input), o.Context)
}

func (k *slhdsaKey) Verify(input, sig []byte, o SignOptions) (bool, error) {
	if err := o.pure(SLHDSA); err != nil {
		return false, err
	}
	return slhdsa.Verify(&k.pub, slhdsa.NewMessage(input), sig, o.Context), nil
}

// A hybrid key is two keys, and its signature two signatures of the same
// input: both must be good. Material and signatures are the two parts, each
// behind its length in four bytes, ML-DSA's first.

func pair(a, b []byte) []byte {
	var out cryptobyte.Builder
	for _, part := range [][]byte{a, b} {
		out.AddUint32(uint32(len(part)))
		out.AddBytes(part)
	}
	return out.BytesOrPanic()
}

func unpair(b []byte) (first, second []byte, ok bool) {
	in := cryptobyte.String(b)
	parts := make([][]byte, 2)
	for i := range parts {
		var n uint32
		if !in.ReadUint32(&n) || uint64(n) > uint64(len(in)) || !in.ReadBytes(&parts[i], int(n)) {
			return nil, nil, false
		}
	}
	return parts[0], parts[1], in.Empty()
}

func (s Spec) halves() (pqc, ec Spec) {
	return Spec{Type: MLDSA, ParameterSet: s.ParameterSet}, Spec{Type: Type(s.HybridEC)}
}

func generateHybrid(s Spec) (Material, error) {
	pqc, ec := s.halves()
	a, err := generateMLDSA(pqc)
	if err != nil {
		return Material{}, err
	}
	b, err := generateEC(ec.Type)
	if err != nil {
		return Material{}, err
	}
	return Material{Secret: pair(a.Secret, b.Secret), Public: pair(a.Public, b.Public)}, nil
}

func loadHybrid(s Spec, m Material) (Key, error) {
	var a, b Material
	var ok bool
	if a.Public, b.Public, ok = unpair(m.Public); !ok {
		return nil, errors.New("the public keys of a hybrid key are damaged")
	}
	if len(m.Secret) > 0 {
		if a.Secret, b.Secret, ok = unpair(m.Secret); !ok {
			return nil, errors.New("the private keys of a hybrid key are damaged")
		}
	}
	pqc, ec := s.halves()
	x, err := loadMLDSA(pqc, a)
	if err != nil {
		return nil, err
	}
	y, err := loadEC(ec.Type, b)
	if err != nil {
		return nil, err
	}
	return &hybridKey{x.(Signer), y.(Signer)}, nil
}

// HybridPublics are the two public keys of a hybrid key's material.
func HybridPublics(m Material) (pqc, ec []byte, ok bool) { return unpair(m.Public) }

type hybridKey struct{ pqc, ec Signer }

// of gives the older algorithm what it knows of the options.
func (o SignOptions) older() SignOptions {
	o.Context, o.JWS, o.Prehashed = nil, false, false
	return o
}

func (k *hybridKey) Sign(input []byte, o SignOptions) ([]byte, error) {
	a, err := k.pqc.Sign(input, o)
	if err != nil {
		return nil, err
	}
	b, err := k.ec.Sign(input, o.older())
	if err != nil {
		return nil, err
	}
	return pair(a, b), nil
}

func (k *hybridKey) Verify(input, sig []byte, o SignOptions) (bool, error) {
	a, b, ok := unpair(sig)
	if !ok {
		return false, nil
	}
	first, err := k.pqc.Verify(input, a, o)
	if err != nil {
		return false, err
	}
	second, err := k.ec.Verify(input, b, o.older())
	return first && second, err
}

// ML-KEM is FIPS 203, of the standard library. Secret is the seed of 64 bytes,
// Public the encapsulation key of the standard.

func generateMLKEM(t Type) (Material, error) {
	if t == MLKEM768 {
		k, err := mlkem.GenerateKey768()
		if err != nil {
			return Material{}, err
		}
		return Material{Secret: k.Bytes(), Public: k.EncapsulationKey().Bytes()}, nil
	}
	k, err := mlkem.GenerateKey1024()
	if err != nil {
		return Material{}, err
	}
	return Material{Secret: k.Bytes(), Public: k.EncapsulationKey().Bytes()}, nil
}

// kemKey agrees on secrets, and encrypts by HPKE (RFC 9180; the ML-KEM suites
// of draft-ietf-hpke-pq) in its base mode with HKDF-SHA256 and AES-256-GCM. What
// is to be authenticated is HPKE's info.
type kemKey struct {
	pub         hpke.PublicKey
	priv        hpke.PrivateKey // nil: public half only
	encapsulate func() (shared, ciphertext []byte)
	decapsulate func([]byte) ([]byte, error)
}

func loadMLKEM(t Type, m Material) (Key, error) {
	k := &kemKey{}
	if t == MLKEM768 {
		pub, err := mlkem.NewEncapsulationKey768(m.Public)
		if err != nil {
			return nil, err
		}
		if k.pub, err = hpke.NewMLKEMPublicKey(pub); err != nil {
			return nil, err
		}
		k.encapsulate = pub.Encapsulate
		if len(m.Secret) > 0 {
			priv, err := mlkem.NewDecapsulationKey768(m.Secret)
			if err != nil {
				return nil, err
			}
			if !bytes.Equal(priv.EncapsulationKey().Bytes(), m.Public) {
				return nil, errHalves
			}
			k.decapsulate = priv.Decapsulate
			if k.priv, err = hpke.NewMLKEMPrivateKey(priv); err != nil {
				return nil, err
			}
		}
		return k, nil
	}
	pub, err := mlkem.NewEncapsulationKey1024(m.Public)
	if err != nil {
		return nil, err
	}
	if k.pub, err = hpke.NewMLKEMPublicKey(pub); err != nil {
		return nil, err
	}
	k.encapsulate = pub.Encapsulate
	if len(m.Secret) > 0 {
		priv, err := mlkem.NewDecapsulationKey1024(m.Secret)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(priv.EncapsulationKey().Bytes(), m.Public) {
			return nil, errHalves
		}
		k.decapsulate = priv.Decapsulate
		if k.priv, err = hpke.NewMLKEMPrivateKey(priv); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func (k *kemKey) Encapsulate() (shared, ciphertext []byte) { return k.encapsulate() }

func (k *kemKey) Decapsulate(ciphertext []byte) ([]byte, error) {
	if k.decapsulate == nil {
		return nil, ErrNoPrivate
	}
	shared, err := k.decapsulate(ciphertext)
	if err != nil {
		return nil, ErrShort // the only error that FIPS 203 has
	}
	return shared, nil
}

func (k *kemKey) Encrypt(dst, plaintext []byte, o CipherOptions) ([]byte, error) {
	out, err := hpke.Seal(k.pub, hpke.HKDFSHA256(), hpke.AES256GCM(), o.AssociatedData, plaintext)
	return append(dst, out...), err
}

func (k *kemKey) Decrypt(ciphertext []byte, o CipherOptions) ([]byte, error) {
	if k.priv == nil {
		return nil, ErrNoPrivate
	}
	out, err := hpke.Open(k.priv, hpke.HKDFSHA256(), hpke.AES256GCM(), o.AssociatedData, ciphertext)
	if err != nil {
		return nil, ErrOpen
	}
	return out, nil
}

// MLKEMFromSeed is the material of the key of a seed of 64 bytes.
func MLKEMFromSeed(t Type, seed []byte) (Material, error) {
	if t == MLKEM768 {
		k, err := mlkem.NewDecapsulationKey768(seed)
		if err != nil {
			return Material{}, err
		}
		return Material{Secret: k.Bytes(), Public: k.EncapsulationKey().Bytes()}, nil
	}
	k, err := mlkem.NewDecapsulationKey1024(seed)
	if err != nil {
		return Material{}, err
	}
	return Material{Secret: k.Bytes(), Public: k.EncapsulationKey().Bytes()}, nil
}
