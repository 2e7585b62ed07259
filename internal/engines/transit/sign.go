package transit

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/leasehold/leasehold/internal/engines/transit/b64"
	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// This file signs and verifies.

// signItem is one thing to sign or verify.
type signItem struct {
	Input     wire.Opt[wire.Text] `json:"input" doc:"What is signed or authenticated, base64."`
	Context   wire.Text           `json:"context" doc:"Context of a derived key, base64."`
	Reference wire.Text           `json:"reference" doc:"Given back with the item's result."`
	Signature wire.Text           `json:"signature" doc:"The signature to verify."`
	HMAC      wire.Text           `json:"hmac" doc:"The HMAC to verify."`
	CMAC      wire.Text           `json:"cmac" doc:"The CMAC to verify."`
	MACLength int                 `json:"mac_length" doc:"Length of the CMAC in bytes, 8 to 16; 0: 16, and of one to verify its own."`
}

type signIn struct {
	nameIn
	signItem
	URLAlgorithm     string               `json:"urlalgorithm" doc:"Hash algorithm, in the path."`
	HashAlgorithm    string               `json:"hash_algorithm" doc:"Hash algorithm: sha2-256 (if nothing is said), sha1, sha2-224, sha2-384, sha2-512, sha3-224 to sha3-512, none."`
	Algorithm        string               `json:"algorithm" doc:"Older name of hash_algorithm."`
	KeyVersion       int                  `json:"key_version" doc:"Version to sign by; 0: the newest."`
	Prehashed        bool                 `json:"prehashed" doc:"Whether the input is a digest already."`
	SignatureAlgo    string               `json:"signature_algorithm" doc:"Of an RSA key: pss (if nothing is said) or pkcs1v15."`
	Marshaling       string               `json:"marshaling_algorithm" doc:"Of an ECDSA signature: asn1 (if nothing is said) or jws."`
	SaltLength       wire.Opt[string]     `json:"salt_length" doc:"Of PSS: auto (if nothing is said), hash, or a number of bytes."`
	SignatureContext wire.Text            `json:"signature_context" doc:"Bound into the signature, base64: of ed25519 (prehashed), ml-dsa, slh-dsa and hybrid keys."`
	Batch            wire.Items[signItem] `json:"batch_input" doc:"Many items in place of one."`
}

type signOut struct {
	Signature wire.Text           `json:"signature,omitempty"`
	Version   wire.Opt[int]       `json:"key_version,omitempty"`
	PublicKey string              `json:"public_key,omitempty"`
	ItemsKey  string              `json:"publickey,omitempty"` // the same, as Vault spells it in a batch
	Valid     wire.Opt[bool]      `json:"valid,omitempty"`
	HMAC      wire.Text           `json:"hmac,omitempty"`
	CMAC      wire.Text           `json:"cmac,omitempty"`
	Error     string              `json:"error,omitempty"`
	Reference wire.Opt[wire.Text] `json:"reference,omitempty"`
}

type signReply struct {
	signOut
	Batch wire.Items[signOut] `json:"batch_results,omitempty"`
}

// options reads what a request says of the signature.
func (in *signIn) options(t primitive.Type) (o primitive.SignOptions, enc *base64.Encoding, err error) {
	name := in.URLAlgorithm
	if name == "" {
		name = in.HashAlgorithm
	}
	if name == "" {
		name = in.Algorithm
	}
	o.Prehashed, o.Padding = in.Prehashed, in.SignatureAlgo
	rsa := t == primitive.RSA2048 || t == primitive.RSA3072 || t == primitive.RSA4096
	if name == "none" {
		o.Hash = primitive.NoHash
		if !rsa && t != primitive.Ed25519 {
			return o, nil, errs.New(errs.Invalid, "hash_algorithm none is only for RSA keys with signature_algorithm pkcs1v15")
		}
	} else {
		var ok bool
		if o.Hash, ok = primitive.HashNamed(name); !ok {
			return o, nil, errs.New(errs.Invalid, "invalid hash algorithm %q", name)
		}
	}
	switch o.Padding {
	case "", "pss", "pkcs1v15":
	default:
		if rsa { // other keys have no padding, and whatever is said of it is ignored
			return o, nil, errs.New(errs.Invalid, "invalid signature algorithm %q", o.Padding)
		}
	}
	enc = base64.StdEncoding
	switch in.Marshaling {
	case "", "asn1":
	case "jws":
		o.JWS, enc = true, base64.RawURLEncoding
	default:
		return o, nil, errs.New(errs.Invalid, "invalid marshaling type %q: must be 'asn1' or 'jws'", in.Marshaling)
	}
	switch s := strings.ToLower(in.SaltLength.Value); s {
	case "", "auto", "0": // the numbers are those that Go's library has for the words, and so Vault
	case "hash", "-1":
		o.Salt = primitive.SaltHash
	default:
		if o.Salt, err = strconv.Atoi(s); err != nil || o.Salt <= 0 {
			return o, nil, errs.New(errs.Invalid, "invalid salt length %q: must be 'auto', 'hash', or a number of bytes greater than zero", s)
		}
	}
	o.Context, err = decodeField("signature_context", in.SignatureContext)
	return o, enc, err
}

func (e *Engine) sign(ctx context.Context, req *route.Request, in signIn) (signReply, error) {
	k, err := e.usable(ctx, in.Name, "signing")
	if err != nil {
		return signReply{}, err
	}
	if !k.Spec.Type.Abilities().Sign {
		return signReply{}, errNoSigner(k)
	}
	version, err := k.forSigning(in.KeyVersion)
	if err != nil {
		return signReply{}, err
	}
	o, enc, err := in.options(k.Spec.Type)
	if err != nil {
		return signReply{}, err
	}
	in.Input.Set = true // nothing is signed where nothing is given, as Vault has it; an item of a batch says so
	return in.each(ctx, req, signOut{Version: wire.Some(0)}, func(it *signItem, r *room) (signOut, error) {
		input, err := it.input(r)
		if err != nil {
			return signOut{}, err
		}
		s, m, err := e.signer(ctx, k, version, it)
		if err != nil {
			return signOut{}, err
		}
		sig, err := s.Sign(input, o)
		if err != nil {
			return signOut{}, asCallers(err)
		}
		out := signOut{Signature: r.textIn(enc, version, sig), Version: wire.Some(version)}
		if k.Derived {
			out.PublicKey, _, err = primitive.PublicText(k.Spec, m)
		}
		return out, err
	})
}

// forSigning is forEncryption in the words of signing.
func (k *readyKey) forSigning(asked int) (int, error) {
	switch {
	case asked < 0, asked > k.Latest:
		return 0, errs.New(errs.Invalid, "cannot use key version %d: the latest is %d", asked, k.Latest)
	case asked != 0 && (asked < k.MinEncryption || asked < k.MinDecryption):
		return 0, errs.New(errs.Invalid, "cannot use key version %d: version is too old (disallowed by policy)", asked)
	}
	return k.forEncryption(asked)
}

func (it *signItem) input(r *room) (b []byte, err error) {
	if !it.Input.Set {
		return nil, errs.New(errs.Invalid, "missing input")
	}
	if r.in, err = b64.AppendDecoded(r.in[:0], it.Input.Value); err != nil {
		return nil, errs.New(errs.Invalid, "unable to decode input as base64: %v", err)
	}
	return r.in, nil
}

// signer finds what signs or verifies for an item by a version of a key, and
// of a derived key the material of the context's.
func (e *Engine) signer(ctx context.Context, k *readyKey, version int, it *signItem) (primitive.Signer, primitive.Material, error) {
	v, err := e.version(ctx, k, version)
	if err != nil {
		return nil, primitive.Material{}, err
	}
	if !k.Derived {
		s, ok := v.Key.(primitive.Signer)
		if !ok {
			return nil, v.material, errNoSigner(k)
		}
		return s, v.material, nil
	}
	about, err := decodeField("context", it.Context)
	if err != nil {
		return nil, v.material, err
	}
	m, err := k.derivedMaterial(v, about)
	if err != nil {
		return nil, m, err
	}
	key, err := primitive.Load(k.Spec, m)
	if err != nil {
		return nil, m, err
	}
	s, ok := key.(primitive.Signer)
	if !ok {
		return nil, m, errNoSigner(k)
	}
	return s, m, nil
}

func errNoSigner(k *readyKey) error {
	return errs.New(errs.Invalid, "key type %s does not support signing", k.Spec.Type)
}

func (e *Engine) verify(ctx context.Context, req *route.Request, in signIn) (signReply, error) {
	k, err := e.usable(ctx, in.Name, "signature verification")
	if err != nil {
		return signReply{}, err
	}
	in.Input.Set = true // as for signing
	kinds, missing := in.kind(), false
	if in.Batch.Set() {
		kinds = 0
		for it, err := range in.Batch.All() {
			if err != nil {
				return signReply{}, err
			}
			kinds |= it.kind()
			missing = missing || it.kind() == 0
		}
	}
	if missing && kinds != 0 {
		return signReply{}, errs.New(errs.Invalid, "some elements of batch_input lack the 'signature', 'hmac' or 'cmac' that others have")
	}
	switch kinds {
	case 0:
		return signReply{}, errs.New(errs.Invalid, "neither a 'signature', an 'hmac' nor a 'cmac' was given to verify")
	case kindSignature:
		return e.verifySignatures(ctx, req, k, &in)
	case kindHMAC:
		return e.verifyHMACs(ctx, req, k, &in)
	case kindCMAC:
		return e.verifyCMACs(ctx, req, k, &in)
	}
	return signReply{}, errs.New(errs.Invalid, "signatures, HMACs and CMACs cannot be verified in one request; give one kind")
}

// notValid stands beside the error of an item that could not be verified.
var notValid = signOut{Valid: wire.Some(false)}

// What an item asks to verify.
const (
	kindSignature = 1 << iota
	kindHMAC
	kindCMAC
)

func (it *signItem) kind() (kinds int) {
	if len(it.Signature) > 0 {
		kinds |= kindSignature
	}
	if len(it.HMAC) > 0 {
		kinds |= kindHMAC
	}
	if len(it.CMAC) > 0 {
		kinds |= kindCMAC
	}
	return kinds
}

func (e *Engine) verifySignatures(ctx context.Context, req *route.Request, k *readyKey, in *signIn) (signReply, error) {
	if !k.Spec.Type.Abilities().Sign {
		return signReply{}, errs.New(errs.Invalid, "key type %s does not support verification", k.Spec.Type)
	}
	o, enc, err := in.options(k.Spec.Type)
	if err != nil {
		return signReply{}, err
	}
	return in.each(ctx, req, notValid, func(it *signItem, r *room) (signOut, error) {
		if len(it.Signature) == 0 {
			return signOut{}, errs.New(errs.Invalid, "missing signature to verify")
		}
		input, err := it.input(r)
		if err != nil {
			return signOut{}, err
		}
		version, sig, err := parse(it.Signature, "signature", enc)
		if err != nil {
			return signOut{}, err
		}
		if err := k.forDecryption(version, "signature"); err != nil {
			return signOut{}, err
		}
		s, _, err := e.signer(ctx, k, version, it)
		if err != nil {
			return signOut{}, err
		}
		ok, err := s.Verify(input, sig, o)
		return signOut{Valid: wire.Some(ok)}, asCallers(err)
	})
}
