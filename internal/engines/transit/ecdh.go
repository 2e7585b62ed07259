package transit

import (
	"context"
	"errors"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
)

// This file agrees on keys by ECDH, as OpenBao does: two servers, or a server
// and whoever has a key pair, come to the same symmetric key by each other's
// public keys.

type deriveKeyIn struct {
	nameIn
	Algorithm   string `json:"key_derivation_algorithm" doc:"How: ecdh (if nothing is said)."`
	BaseName    string `json:"base_key_name" doc:"Key of type ecdsa-p256 that is the own half."`
	BaseVersion int    `json:"base_key_version" doc:"Version of it; 0: the newest."`
	Peer        string `json:"peer_public_key" doc:"Public key (PEM) of the other half, of the same curve."`
	Type        string `json:"derived_key_type" doc:"Type of the new key: aes256-gcm96 (if nothing is said), chacha20-poly1305 or xchacha20-poly1305."`
}

// deriveKey makes a new key of a shared secret. The secret itself is the key,
// with nothing done to it: so does OpenBao, and the other side may be one. A
// secret of another length than the key's is refused, since what becomes of it
// there is written nowhere, and two keys that only look alike lose data.
func (e *Engine) deriveKey(ctx context.Context, _ *route.Request, in deriveKeyIn) (keyOut, error) {
	if in.Algorithm != "" && in.Algorithm != "ecdh" {
		return keyOut{}, errs.New(errs.Invalid, "unknown key_derivation_algorithm %q: use ecdh", in.Algorithm)
	}
	if err := checkName(in.Name); err != nil {
		return keyOut{}, err
	}
	if in.BaseName == "" {
		return keyOut{}, errs.New(errs.Invalid, "missing base_key_name: the key of type ecdsa-p256 that is the own half")
	}
	spec, err := specIn{Type: in.Type}.spec()
	if err != nil {
		return keyOut{}, err
	}
	if able := spec.Type.Abilities(); !able.Encrypt || !able.Symmetric {
		return keyOut{}, errs.New(errs.Invalid, "derived_key_type %s is not for keys that are agreed on: use aes256-gcm96, chacha20-poly1305 or xchacha20-poly1305", spec.Type)
	}
	secret, err := e.agree(ctx, in)
	if err != nil {
		return keyOut{}, err
	}
	m, err := primitive.Imported(spec, secret)
	if err != nil {
		clear(secret)
		return keyOut{}, errs.New(errs.Invalid,
			"the shared secret has %d bytes, which make no key of type %s: agree by keys of type ecdsa-p256, on aes256-gcm96, chacha20-poly1305 or xchacha20-poly1305", len(secret), spec.Type)
	}
	k := &keyRow{V: formatOfRows, ID: newID(), Name: in.Name, Spec: spec, Latest: 1, MinDecryption: 1}
	if err := e.add(ctx, k, e.versionOf(spec, m), errDerived); err != nil {
		return keyOut{}, err
	}
	return e.show(ctx, in.Name, "")
}

var errDerived = errs.New(errs.Invalid, "there is a key of that name: derive under another, or delete it first")

// agree is the secret that a version of the base key shares with the peer.
func (e *Engine) agree(ctx context.Context, in deriveKeyIn) ([]byte, error) {
	base, err := e.usable(ctx, in.BaseName, "base")
	if err != nil {
		return nil, err
	}
	version := in.BaseVersion
	if version == 0 {
		version = base.Latest
	}
	if version < base.MinDecryption || version > base.Latest {
		return nil, errs.New(errs.Invalid, "base_key_version %d is not in use: the base key has %d to %d", version, base.MinDecryption, base.Latest)
	}
	v, err := e.version(ctx, base, version)
	if err != nil {
		return nil, err
	}
	own, ok := v.Key.(primitive.Agreer)
	if !ok {
		return nil, errs.New(errs.Invalid, "the base key %q is of type %s, which agrees on nothing: use one of type ecdsa-p256", in.BaseName, base.Spec.Type)
	}
	if in.Peer == "" {
		return nil, errs.New(errs.Invalid, "missing peer_public_key: the other side's public key, as PEM")
	}
	secret, err := own.Agree(in.Peer)
	switch {
	case errors.Is(err, primitive.ErrNoPrivate):
		return nil, errs.New(errs.Invalid, "the base key %q: %v", in.BaseName, err)
	case err != nil:
		return nil, errs.New(errs.Invalid, "peer_public_key: %v", err)
	}
	return secret, nil
}
