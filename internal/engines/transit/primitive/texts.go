package primitive

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"

	"filippo.io/mldsa"
)

// PublicText is the public half of a key as people are shown it: PEM (PKIX) of
// RSA and ECDSA, base64 of the raw key of others. A hybrid key has two.
func PublicText(s Spec, m Material) (text, second string, err error) {
	switch s.Type {
	case Ed25519:
		pub, err := x509.ParsePKIXPublicKey(m.Public)
		if err != nil {
			return "", "", err
		}
		p, ok := pub.(ed25519.PublicKey)
		if !ok {
			return "", "", errMismatch(s.Type, pub)
		}
		return base64.StdEncoding.EncodeToString(p), "", nil
	case ECDSAP256, ECDSAP384, ECDSAP521, RSA2048, RSA3072, RSA4096:
		return pemOf("PUBLIC KEY", m.Public), "", nil
	case Hybrid:
		a, b, ok := unpair(m.Public)
		if !ok {
			return "", "", errors.New("the public keys of a hybrid key are damaged")
		}
		_, ec := s.halves()
		if text, _, err = PublicText(ec, Material{Public: b}); err != nil {
			return "", "", err
		}
		return base64.StdEncoding.EncodeToString(a), text, nil
	}
	return base64.StdEncoding.EncodeToString(m.Public), "", nil
}

func pemOf(typ string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
}

// SecretText is a whole key for export: PEM of RSA (PKCS #1) and ECDSA
// (SEC 1), base64 of others.
func SecretText(s Spec, m Material) (string, error) {
	if len(m.Secret) == 0 {
		return "", ErrNoPrivate
	}
	switch s.Type {
	case Ed25519:
		p, err := Ed25519Private(m)
		return base64.StdEncoding.EncodeToString(p), err
	case ECDSAP256, ECDSAP384, ECDSAP521, RSA2048, RSA3072, RSA4096:
		k, err := x509.ParsePKCS8PrivateKey(m.Secret)
		if err != nil {
			return "", err
		}
		switch k := k.(type) {
		case *rsa.PrivateKey:
			return pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k)), nil
		case *ecdsa.PrivateKey:
			der, err := x509.MarshalECPrivateKey(k)
			return pemOf("EC PRIVATE KEY", der), err
		}
		return "", errMismatch(s.Type, k)
	}
	return base64.StdEncoding.EncodeToString(m.Secret), nil
}

// Form is how an exported key is written.
type Form int

// The forms.
const (
	OwnForm Form = iota // what PublicText and SecretText give
	RawForm             // base64 of the key itself, where that is a string of bytes
	DERForm             // base64 of PKCS #8, or PKIX of a public key
	PEMForm             // the same in PEM
)

// FormNamed finds a form by its name on the wire; "" is the type's own.
func FormNamed(name string) (Form, bool) {
	f, ok := map[string]Form{"": OwnForm, "raw": RawForm, "der": DERForm, "pem": PEMForm}[name]
	return f, ok
}

// PublicIn is a public key in a form.
func PublicIn(f Form, s Spec, m Material) (string, error) {
	switch stored, err := s.has(f); {
	case err != nil:
		return "", err
	case stored && f == DERForm:
		return base64.StdEncoding.EncodeToString(m.Public), nil
	case stored && f == PEMForm:
		return pemOf("PUBLIC KEY", m.Public), nil
	}
	text, second, err := PublicText(s, m)
	return text + second, err
}

// SecretIn is a whole key in a form.
func SecretIn(f Form, s Spec, m Material) (string, error) {
	switch stored, err := s.has(f); {
	case err != nil:
		return "", err
	case len(m.Secret) == 0:
		return "", ErrNoPrivate
	case stored && f == DERForm:
		return base64.StdEncoding.EncodeToString(m.Secret), nil
	case stored && f == PEMForm:
		return pemOf("PRIVATE KEY", m.Secret), nil
	}
	return SecretText(s, m)
}

// has reports whether a form is what keys are stored in, or else what their own
// text is; an error says that they have no such form.
func (s Spec) has(f Form) (stored bool, err error) {
	der, raw := false, true
	switch s.Type {
	case Ed25519:
		der = true
	case ECDSAP256, ECDSAP384, ECDSAP521, RSA2048, RSA3072, RSA4096:
		der, raw = true, false
	case Hybrid:
		raw = false
	}
	switch {
	case f == OwnForm, f == RawForm && raw:
		return false, nil
	case f != RawForm && der:
		return true, nil
	}
	return false, fmt.Errorf("keys of type %s have no such format", s.Type)
}

// Wrappable is the form in which a key is wrapped for another server: the key
// itself of a symmetric one, PKCS #8 of others.
func Wrappable(m Material) ([]byte, error) {
	if len(m.Secret) == 0 {
		return nil, ErrNoPrivate
	}
	return m.Secret, nil
}

// Imported makes material of what Wrappable gives.
func Imported(s Spec, b []byte) (m Material, err error) {
	switch s.Type {
	case AES128GCM, AES256GCM, ChaCha20Poly1305, XChaCha20Poly1305, AES128CMAC, AES192CMAC, AES256CMAC:
		if want := s.secretSize(); len(b) != want {
			return m, fmt.Errorf("invalid key size %d bytes for key type %s, which has %d", len(b), s.Type, want)
		}
		return Material{Secret: b}, nil
	case HMAC:
		if len(b) < 32 || len(b) > 512 {
			return m, fmt.Errorf("invalid key size %d bytes for an HMAC key, which has 32 to 512", len(b))
		}
		return Material{Secret: b}, nil
	case MLDSA:
		p, err := mldsaParameters(s.ParameterSet)
		if err != nil {
			return m, err
		}
		k, err := mldsa.NewPrivateKey(p, b)
		if err != nil {
			return m, fmt.Errorf("an ml-dsa key is imported as its seed of 32 bytes: %w", err)
		}
		return Material{Secret: b, Public: k.PublicKey().Bytes()}, nil
	case MLKEM768, MLKEM1024:
		m, err := MLKEMFromSeed(s.Type, b)
		if err != nil {
			return m, fmt.Errorf("an ml-kem key is imported as its seed of 64 bytes: %w", err)
		}
		return m, nil
	case SLHDSA:
		return slhdsaMaterial(s, b)
	case Ed25519, ECDSAP256, ECDSAP384, ECDSAP521, RSA2048, RSA3072, RSA4096:
	default:
		return m, fmt.Errorf("keys of type %s cannot be imported", s.Type)
	}
	k, err := parsePrivate(b)
	if err != nil {
		return m, err
	}
	if m, err = pkixMaterial(k); err != nil {
		return m, err
	}
	_, err = Load(s, m)
	return m, err
}

// parsePrivate reads PKCS #8, and the forms that keys of the two older
// algorithms have beside it.
func parsePrivate(der []byte) (crypto.Signer, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err == nil {
		if s, ok := k.(crypto.Signer); ok {
			return s, nil
		}
		return nil, fmt.Errorf("the key is a %T, which does not sign", k)
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := parsePSS(der); err == nil {
		return k, nil
	}
	return nil, fmt.Errorf("error parsing asymmetric key: it is no PKCS #8: %w", err)
}

// oidPSS marks RSA keys that are for PSS alone (RFC 4055).
var oidPSS = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}

// parsePSS reads a PKCS #8 so marked, which the standard library does not. The
// key in it is as any RSA key is; what it is for is said again in each request.
func parsePSS(der []byte) (crypto.Signer, error) {
	var p struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	if _, err := asn1.Unmarshal(der, &p); err != nil {
		return nil, err
	}
	if !p.Algorithm.Algorithm.Equal(oidPSS) {
		return nil, fmt.Errorf("the key is of the algorithm %v", p.Algorithm.Algorithm)
	}
	return x509.ParsePKCS1PrivateKey(p.Key)
}

// ImportedPublic makes material of a public key alone, in PEM.
func ImportedPublic(s Spec, text string) (m Material, err error) {
	if s.Type.Abilities().Symmetric {
		return m, fmt.Errorf("keys of type %s have no public half", s.Type)
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return m, errors.New("error parsing public key: it is no PEM")
	}
	m.Public = block.Bytes
	if block.Type == "RSA PUBLIC KEY" {
		k, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return m, fmt.Errorf("error parsing public key: %w", err)
		}
		if m.Public, err = x509.MarshalPKIXPublicKey(k); err != nil {
			return m, err
		}
	}
	if _, err = Load(s, m); err != nil {
		return m, fmt.Errorf("error parsing public key: %w", err)
	}
	return m, nil
}

// SamePublic reports whether two materials have the same public half.
func SamePublic(a, b Material) bool { return len(a.Public) > 0 && string(a.Public) == string(b.Public) }

// CryptoSigner is a key as the standard library signs certificates and
// requests with it.
func CryptoSigner(k Key) (crypto.Signer, bool) {
	switch k := k.(type) {
	case *edKey:
		return k.priv, k.priv != nil
	case *ecKey:
		return k.priv, k.priv != nil
	case *rsaKey:
		return k.priv, k.priv != nil
	}
	return nil, false
}
