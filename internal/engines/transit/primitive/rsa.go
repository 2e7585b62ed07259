package primitive

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
)

func bitsOf(t Type) int {
	switch t {
	case RSA3072:
		return 3072
	case RSA4096:
		return 4096
	}
	return 2048
}

func generateRSA(t Type) (Material, error) {
	k, err := rsa.GenerateKey(rand.Reader, bitsOf(t))
	if err != nil {
		return Material{}, err
	}
	return pkixMaterial(k)
}

func loadRSA(t Type, m Material) (Key, error) {
	pub, err := x509.ParsePKIXPublicKey(m.Public)
	if err != nil {
		return nil, err
	}
	p, ok := pub.(*rsa.PublicKey)
	if !ok {
		return nil, errMismatch(t, pub)
	}
	if n := p.N.BitLen(); n != bitsOf(t) {
		return nil, fmt.Errorf("the key has %d bits, which does not fit the type %s", n, t)
	}
	k := &rsaKey{pub: p}
	if len(m.Secret) == 0 {
		return k, nil
	}
	priv, err := x509.ParsePKCS8PrivateKey(m.Secret)
	if err != nil {
		return nil, err
	}
	if k.priv, ok = priv.(*rsa.PrivateKey); !ok {
		return nil, errMismatch(t, priv)
	}
	if !p.Equal(k.priv.Public()) {
		return nil, errHalves
	}
	return k, nil
}

// rsaKey encrypts by RSAES-OAEP with SHA-256 or RSAES-PKCS1-v1_5, and signs by
// RSASSA-PSS or RSASSA-PKCS1-v1_5 (RFC 8017).
type rsaKey struct {
	pub  *rsa.PublicKey
	priv *rsa.PrivateKey // nil: public half only
}

const (
	paddingOAEP  = "oaep"
	paddingPSS   = "pss"
	paddingPKCS1 = "pkcs1v15"
)

func (k *rsaKey) Encrypt(dst, plaintext []byte, o CipherOptions) ([]byte, error) {
	out, err := k.encrypt(plaintext, o)
	return append(dst, out...), err
}

func (k *rsaKey) encrypt(plaintext []byte, o CipherOptions) ([]byte, error) {
	switch o.Padding {
	case "", paddingOAEP:
		out, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, k.pub, plaintext, o.AssociatedData)
		if errors.Is(err, rsa.ErrMessageTooLong) {
			return nil, fmt.Errorf("an RSA key of this size encrypts %d bytes at most with OAEP; encrypt the data with a data key", k.pub.Size()-2*sha256.Size-2)
		}
		return out, err
	case paddingPKCS1:
		//lint:ignore SA1019 what is asked for by its name, for those who have such ciphertexts; OAEP is what is used otherwise
		//lint:ignore SA1019 Vault's clients can ask for it, for the sake of devices that know nothing else
		return rsa.EncryptPKCS1v15(rand.Reader, k.pub, plaintext)
	}
	return nil, fmt.Errorf("padding_scheme %q is not known; use oaep or pkcs1v15", o.Padding)
}

func (k *rsaKey) Decrypt(ciphertext []byte, o CipherOptions) (out []byte, err error) {
	if k.priv == nil {
		return nil, ErrNoPrivate
	}
	switch o.Padding {
	case "", paddingOAEP:
		out, err = rsa.DecryptOAEP(sha256.New(), nil, k.priv, ciphertext, o.AssociatedData)
	case paddingPKCS1:
		//lint:ignore SA1019 as for encrypting
		//lint:ignore SA1019 as above; docs/security.md says what it discloses
		out, err = rsa.DecryptPKCS1v15(nil, k.priv, ciphertext)
	default:
		return nil, fmt.Errorf("padding_scheme %q is not known; use oaep or pkcs1v15", o.Padding)
	}
	if err != nil {
		return nil, ErrOpen // one answer, whatever is wrong with the padding
	}
	return out, nil
}

// digest is what is signed, and its algorithm, 0 for none.
func (k *rsaKey) digest(input []byte, o SignOptions) ([]byte, crypto.Hash, error) {
	if o.Hash == NoHash {
		if o.Padding != paddingPKCS1 || !o.Prehashed {
			return nil, 0, errors.New("hash_algorithm none goes with prehashed and signature_algorithm pkcs1v15")
		}
		return input, 0, nil
	}
	d, err := o.digest(input)
	return d, o.Hash.crypto(), err
}

func (k *rsaKey) pss(o SignOptions, h crypto.Hash) (*rsa.PSSOptions, error) {
	opts := &rsa.PSSOptions{Hash: h, SaltLength: o.Salt}
	switch most := (k.pub.N.BitLen()-1+7)/8 - 2 - h.Size(); {
	case o.Salt == SaltAuto:
		opts.SaltLength = rsa.PSSSaltLengthAuto
	case o.Salt == SaltHash:
		opts.SaltLength = rsa.PSSSaltLengthEqualsHash
	case o.Salt < 0 || o.Salt > most:
		return nil, fmt.Errorf("salt_length %d is out of bounds: auto, hash, or 1 to %d for this key and hash algorithm", o.Salt, most)
	}
	return opts, nil
}

func (k *rsaKey) Sign(input []byte, o SignOptions) ([]byte, error) {
	if k.priv == nil {
		return nil, ErrNoPrivate
	}
	d, h, err := k.digest(input, o)
	if err != nil {
		return nil, err
	}
	switch o.Padding {
	case "", paddingPSS:
		opts, err := k.pss(o, h)
		if err != nil {
			return nil, err
		}
		return rsa.SignPSS(rand.Reader, k.priv, h, d, opts)
	case paddingPKCS1:
		return rsa.SignPKCS1v15(nil, k.priv, h, d)
	}
	return nil, errPadding(o.Padding)
}

func errPadding(p string) error {
	return fmt.Errorf("signature_algorithm %q is not known; use pss or pkcs1v15", p)
}

func (k *rsaKey) Verify(input, sig []byte, o SignOptions) (bool, error) {
	d, h, err := k.digest(input, o)
	if err != nil {
		return false, err
	}
	switch o.Padding {
	case "", paddingPSS:
		opts, err := k.pss(o, h)
		if err != nil {
			return false, err
		}
		return rsa.VerifyPSS(k.pub, h, d, sig, opts) == nil, nil
	case paddingPKCS1:
		return rsa.VerifyPKCS1v15(k.pub, h, d, sig) == nil, nil
	}
	return false, errPadding(o.Padding)
}
