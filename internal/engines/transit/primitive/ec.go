package primitive

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"sync"

	voi "github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
)

func curveOf(t Type) elliptic.Curve {
	switch t {
	case ECDSAP384:
		return elliptic.P384()
	case ECDSAP521:
		return elliptic.P521()
	}
	return elliptic.P256()
}

func generateEC(t Type) (Material, error) {
	if t == Ed25519 {
		return ed25519Material(Random(ed25519.SeedSize))
	}
	k, err := ecdsa.GenerateKey(curveOf(t), rand.Reader)
	if err != nil {
		return Material{}, err
	}
	return pkixMaterial(k)
}

func ed25519Material(seed []byte) (Material, error) {
	return pkixMaterial(ed25519.NewKeyFromSeed(seed))
}

// pkixMaterial is the stored form of a key of the standard library's.
func pkixMaterial(k crypto.Signer) (m Material, err error) {
	if m.Secret, err = x509.MarshalPKCS8PrivateKey(k); err != nil {
		return m, err
	}
	m.Public, err = x509.MarshalPKIXPublicKey(k.Public())
	return m, err
}

// errMismatch is the answer to material of another type of key.
func errMismatch(t Type, k any) error {
	return fmt.Errorf("the key is a %T, which does not fit the type %s", k, t)
}

func loadEC(t Type, m Material) (Key, error) {
	pub, err := x509.ParsePKIXPublicKey(m.Public)
	if err != nil {
		return nil, err
	}
	var priv any
	if len(m.Secret) > 0 {
		if priv, err = x509.ParsePKCS8PrivateKey(m.Secret); err != nil {
			return nil, err
		}
	}
	if t == Ed25519 {
		p, ok := pub.(ed25519.PublicKey)
		if !ok {
			return nil, errMismatch(t, pub)
		}
		k := newEdKey(p)
		if k.priv, ok = priv.(ed25519.PrivateKey); !ok && priv != nil {
			return nil, errMismatch(t, priv)
		}
		if priv != nil && !p.Equal(k.priv.Public()) {
			return nil, errHalves
		}
		return k, nil
	}
	p, ok := pub.(*ecdsa.PublicKey)
	if !ok || p.Curve != curveOf(t) {
		return nil, errMismatch(t, pub)
	}
	k := &ecKey{pub: p}
	if k.priv, ok = priv.(*ecdsa.PrivateKey); !ok && priv != nil {
		return nil, errMismatch(t, priv)
	}
	if priv != nil && !p.Equal(k.priv.Public()) {
		return nil, errHalves
	}
	return k, nil
}

var errHalves = errors.New("the private half of the key belongs to another public one")

// edKey signs by Ed25519 (RFC 8032): the input itself, or as Ed25519ph what is
// said to be a SHA-512 digest. To be said to be another digest changes nothing:
// as in Vault, it is the input.
//
// Private keys are the standard library's business alone: curve25519-voi would
// sign in half the time, too, but it is a port of curve25519-dalek from before
// RUSTSEC-2024-0344, where secret scalars were found to show in the timing.
// Verification handles nothing secret. It is curve25519-voi's, on a public key
// that is decompressed once, and judges as the standard library does.
type edKey struct {
	pub      ed25519.PublicKey
	priv     ed25519.PrivateKey // nil: public half only
	expanded func() *voi.ExpandedPublicKey
}

func newEdKey(pub ed25519.PublicKey) *edKey {
	// At the first verification: a derived key lives for one request, and most
	// of those sign.
	return &edKey{pub: pub, expanded: sync.OnceValue(func() *voi.ExpandedPublicKey {
		x, err := voi.NewExpandedPublicKey(voi.PublicKey(pub))
		if err != nil {
			return nil // no point of the curve: it verifies nothing
		}
		return x
	})}
}

func (k *edKey) options(o SignOptions) (ed25519.Options, error) {
	opts := ed25519.Options{Context: string(o.Context)}
	if o.Prehashed && o.Hash == Hash(crypto.SHA512) {
		opts.Hash = crypto.SHA512
	}
	if len(o.Context) > 255 {
		return opts, errContext
	}
	return opts, nil
}

// fits refuses what is no digest where one is to be signed.
func fits(opts ed25519.Options, input []byte) error {
	if opts.Hash != 0 && len(input) != opts.Hash.Size() {
		return ErrDigest
	}
	return nil
}

func (k *edKey) Sign(input []byte, o SignOptions) ([]byte, error) {
	if k.priv == nil {
		return nil, ErrNoPrivate
	}
	opts, err := k.options(o)
	if err != nil {
		return nil, err
	}
	if err := fits(opts, input); err != nil {
		return nil, err
	}
	if opts == (ed25519.Options{}) {
		return ed25519.Sign(k.priv, input), nil
	}
	with := opts // which is allocated, and the usual signature's are not
	return k.priv.Sign(nil, input, &with)
}

func (k *edKey) Verify(input, sig []byte, o SignOptions) (bool, error) {
	opts, err := k.options(o)
	if err != nil {
		return false, err
	}
	if err := fits(opts, input); err != nil {
		return false, err
	}
	x := k.expanded()
	return x != nil && voi.VerifyExpandedWithOptions(x, input, sig, &voi.Options{
		Hash: opts.Hash, Context: opts.Context, Verify: voi.VerifyOptionsStdLib,
	}), nil
}

// ecKey signs by ECDSA (FIPS 186-5).
type ecKey struct {
	pub  *ecdsa.PublicKey
	priv *ecdsa.PrivateKey // nil: public half only
}

func (k *ecKey) Sign(input []byte, o SignOptions) ([]byte, error) {
	if k.priv == nil {
		return nil, ErrNoPrivate
	}
	d, err := ecDigest(input, o)
	if err != nil {
		return nil, err
	}
	if !o.JWS {
		return ecdsa.SignASN1(rand.Reader, k.priv, d)
	}
	r, s, err := ecdsa.Sign(rand.Reader, k.priv, d)
	if err != nil {
		return nil, err
	}
	n := k.width()
	out := make([]byte, 2*n)
	r.FillBytes(out[:n])
	s.FillBytes(out[n:])
	return out, nil
}

// Agree is the shared secret of ECDH (SP 800-56A rev. 3, section 5.7.1.2): the
// x-coordinate, as long as a field element.
func (k *ecKey) Agree(peer string) ([]byte, error) {
	if k.priv == nil {
		return nil, ErrNoPrivate
	}
	block, _ := pem.Decode([]byte(peer))
	if block == nil {
		return nil, errors.New("it is no PEM")
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	their, ok := pub.(*ecdsa.PublicKey)
	if !ok || their.Curve != k.pub.Curve {
		return nil, fmt.Errorf("it is no key of the curve %s", k.pub.Curve.Params().Name)
	}
	point, err := their.ECDH()
	if err != nil {
		return nil, err
	}
	own, err := k.priv.ECDH()
	if err != nil {
		return nil, err
	}
	return own.ECDH(point)
}

// ecDigest is what ECDSA signs. The algorithm of a digest that is brought
// along is not bound into the signature, and clients leave it out: any length
// of a digest will do.
func ecDigest(input []byte, o SignOptions) ([]byte, error) {
	if !o.Prehashed {
		return o.Hash.Sum(input), nil
	}
	for _, h := range hashes {
		if len(input) == h.Size() {
			return input, nil
		}
	}
	return nil, ErrDigest
}

// width of one number in a JWS signature, in bytes.
func (k *ecKey) width() int { return (k.pub.Curve.Params().BitSize + 7) / 8 }

func (k *ecKey) Verify(input, sig []byte, o SignOptions) (bool, error) {
	d, err := ecDigest(input, o)
	if err != nil {
		return false, err
	}
	if !o.JWS {
		return ecdsa.VerifyASN1(k.pub, d, sig), nil
	}
	n := k.width()
	if len(sig) != 2*n {
		return false, nil
	}
	r, s := new(big.Int).SetBytes(sig[:n]), new(big.Int).SetBytes(sig[n:])
	return ecdsa.Verify(k.pub, d, r, s), nil
}

// Ed25519Private is the private key of stored material in the 64 bytes that Go
// and Vault write it in: the seed (RFC 8032) and the public key.
func Ed25519Private(m Material) ([]byte, error) {
	if len(m.Secret) == 0 {
		return nil, ErrNoPrivate
	}
	k, err := x509.ParsePKCS8PrivateKey(m.Secret)
	if err != nil {
		return nil, err
	}
	p, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, errMismatch(Ed25519, k)
	}
	return p, nil
}
