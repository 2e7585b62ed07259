package transit

import (
	"context"
	"encoding/base64"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// This file agrees on secrets by ML-KEM (FIPS 203). Vault sells nothing of the
// kind under these paths: they are ours.

type encapsulateIn struct {
	nameIn
	KeyVersion int `json:"key_version" doc:"Version of the key; 0: the newest."`
}

type encapsulateOut struct {
	Ciphertext   string `json:"ciphertext"`
	KeyVersion   int    `json:"key_version"`
	SharedSecret string `json:"shared_secret"`
}

// kem finds what agrees on secrets by a version of a key.
func (e *Engine) kem(ctx context.Context, k *readyKey, version int) (primitive.KEM, error) {
	if !k.Spec.Type.Abilities().KEM {
		return nil, errs.New(errs.Invalid, "key type %s does not encapsulate; use a key of type ml-kem-768 or ml-kem-1024", k.Spec.Type)
	}
	v, err := e.version(ctx, k, version)
	if err != nil {
		return nil, err
	}
	return v.Key.(primitive.KEM), nil
}

func (e *Engine) encapsulate(ctx context.Context, _ *route.Request, in encapsulateIn) (encapsulateOut, error) {
	k, err := e.usable(ctx, in.Name, "encapsulation")
	if err != nil {
		return encapsulateOut{}, err
	}
	version, err := k.forEncryption(in.KeyVersion)
	if err != nil {
		return encapsulateOut{}, err
	}
	kem, err := e.kem(ctx, k, version)
	if err != nil {
		return encapsulateOut{}, err
	}
	shared, ciphertext := kem.Encapsulate()
	defer clear(shared)
	return encapsulateOut{textOf(version, ciphertext), version, base64.StdEncoding.EncodeToString(shared)}, nil
}

type decapsulateIn struct {
	nameIn
	Ciphertext wire.Text `json:"ciphertext" doc:"What encapsulating gave."`
}

type decapsulateOut struct {
	SharedSecret string `json:"shared_secret"`
}

func (e *Engine) decapsulate(ctx context.Context, _ *route.Request, in decapsulateIn) (decapsulateOut, error) {
	k, err := e.usable(ctx, in.Name, "encapsulation")
	if err != nil {
		return decapsulateOut{}, err
	}
	version, b, err := parse(in.Ciphertext, "ciphertext", base64.StdEncoding)
	if err != nil {
		return decapsulateOut{}, err
	}
	if err := k.forDecryption(version, "ciphertext"); err != nil {
		return decapsulateOut{}, err
	}
	kem, err := e.kem(ctx, k, version)
	if err != nil {
		return decapsulateOut{}, err
	}
	shared, err := kem.Decapsulate(b)
	if err != nil {
		return decapsulateOut{}, asCallers(err)
	}
	defer clear(shared)
	return decapsulateOut{base64.StdEncoding.EncodeToString(shared)}, nil
}
