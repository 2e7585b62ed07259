package transit

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/base64"
	"strconv"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// This file authenticates by HMAC and CMAC.

type hmacIn struct {
	nameIn
	signItem
	URLAlgorithm string               `json:"urlalgorithm" doc:"Hash algorithm, in the path."`
	Algorithm    string               `json:"algorithm" doc:"Hash algorithm: sha2-256 (if nothing is said), sha1, sha2-224, sha2-384, sha2-512, sha3-224 to sha3-512."`
	KeyVersion   int                  `json:"key_version" doc:"Version to authenticate by; 0: the newest."`
	Batch        wire.Items[signItem] `json:"batch_input" doc:"Many items in place of one."`
}

func hashNamed(names ...string) (primitive.Hash, error) {
	name := ""
	for _, n := range names {
		if name == "" {
			name = n
		}
	}
	h, ok := primitive.HashNamed(name)
	if !ok {
		return h, errs.New(errs.Invalid, "unsupported algorithm %s", name)
	}
	return h, nil
}

func (e *Engine) hmac(ctx context.Context, req *route.Request, in hmacIn) (signReply, error) {
	k, err := e.usable(ctx, in.Name, "encryption")
	if err != nil {
		return signReply{}, err
	}
	version, err := k.forSigning(in.KeyVersion)
	if err != nil {
		return signReply{}, err
	}
	h, err := hashNamed(in.URLAlgorithm, in.Algorithm)
	if err != nil {
		return signReply{}, err
	}
	all := signIn{signItem: in.signItem, Batch: in.Batch}
	return all.each(ctx, req, signOut{}, func(it *signItem, r *room) (signOut, error) {
		input, err := it.input(r)
		if err != nil {
			return signOut{}, err
		}
		key, err := e.macKey(ctx, k, version)
		if err != nil {
			return signOut{}, err
		}
		return signOut{HMAC: r.text(version, primitive.HMACSum(h, key, input))}, nil
	})
}

// macKey is the key of a version's HMACs.
func (e *Engine) macKey(ctx context.Context, k *readyKey, version int) ([]byte, error) {
	v, err := e.version(ctx, k, version)
	if err != nil {
		return nil, err
	}
	switch {
	case k.Spec.Type == primitive.HMAC:
		return v.row.Secret, nil
	case len(v.row.MAC) == 0:
		return nil, errs.New(errs.Invalid, "no HMAC key exists for that key version")
	}
	return v.row.MAC, nil
}

func (e *Engine) verifyHMACs(ctx context.Context, req *route.Request, k *readyKey, in *signIn) (signReply, error) {
	h, err := hashNamed(in.URLAlgorithm, in.Algorithm, in.HashAlgorithm)
	if err != nil {
		return signReply{}, err
	}
	return in.each(ctx, req, notValid, func(it *signItem, r *room) (signOut, error) {
		return e.verifyMAC(k, r, it, it.HMAC, "hmac", func(version int, input []byte) ([]byte, error) {
			key, err := e.macKey(ctx, k, version)
			if err != nil {
				return nil, err
			}
			return primitive.HMACSum(h, key, input), nil
		})
	})
}

// verifyMAC compares a MAC with the one that make makes.
func (e *Engine) verifyMAC(k *readyKey, r *room, it *signItem, text []byte, what string, make func(version int, input []byte) ([]byte, error)) (signOut, error) {
	if len(text) == 0 {
		return signOut{}, errs.New(errs.Invalid, "missing %s to verify", what)
	}
	input, err := it.input(r)
	if err != nil {
		return signOut{}, err
	}
	version, mac, err := parse(text, what, base64.StdEncoding)
	if err != nil {
		return signOut{}, err
	}
	if err := k.forDecryption(version, what); err != nil {
		return signOut{}, err
	}
	want, err := make(version, input)
	if err != nil {
		return signOut{}, err
	}
	return signOut{Valid: wire.Some(subtle.ConstantTimeCompare(mac, want) == 1)}, nil
}

type cmacIn struct {
	nameIn
	signItem
	URLLength  string               `json:"url_mac_length" doc:"Length of the MAC in bytes, in the path; it goes before every mac_length."`
	KeyVersion int                  `json:"key_version" doc:"Version to authenticate by; 0: the newest."`
	Batch      wire.Items[signItem] `json:"batch_input" doc:"Many items in place of one."`
}

func (e *Engine) cmac(ctx context.Context, req *route.Request, in cmacIn) (signReply, error) {
	k, err := e.usable(ctx, in.Name, "encryption")
	if err != nil {
		return signReply{}, err
	}
	length := 0
	if in.URLLength != "" {
		if length, err = strconv.Atoi(in.URLLength); err != nil {
			return signReply{}, errs.New(errs.Invalid, "the length of a MAC is a number of bytes, not %q", in.URLLength)
		}
	}
	version, err := k.forSigning(in.KeyVersion)
	if err != nil {
		return signReply{}, err
	}
	all := signIn{signItem: in.signItem, Batch: in.Batch}
	return all.each(ctx, req, signOut{}, func(it *signItem, r *room) (signOut, error) {
		input, err := it.input(r)
		if err != nil {
			return signOut{}, err
		}
		sum, err := e.cmacSum(ctx, k, version, cmp.Or(length, it.MACLength, in.MACLength), input)
		if err != nil {
			return signOut{}, err
		}
		return signOut{CMAC: r.text(version, sum)}, nil
	})
}

// cmacSum is a CMAC of some length. Shorter ones than 8 bytes are guessed too
// easily (NIST SP 800-38B, appendix A).
func (e *Engine) cmacSum(ctx context.Context, k *readyKey, version, length int, input []byte) ([]byte, error) {
	v, err := e.version(ctx, k, version)
	if err != nil {
		return nil, err
	}
	m, ok := v.Key.(primitive.MAC)
	if !ok {
		return nil, errs.New(errs.Invalid, "key type %s does not make CMACs; use a key of type aes128-cmac or aes256-cmac", k.Spec.Type)
	}
	if length == 0 {
		length = 16
	}
	if length < 8 || length > 16 {
		return nil, errs.New(errs.Invalid, "a CMAC has 8 to 16 bytes, not %d", length)
	}
	return m.Sum(input)[:length], nil
}

func (e *Engine) verifyCMACs(ctx context.Context, req *route.Request, k *readyKey, in *signIn) (signReply, error) {
	return in.each(ctx, req, notValid, func(it *signItem, r *room) (signOut, error) {
		return e.verifyMAC(k, r, it, it.CMAC, "cmac", func(version int, input []byte) ([]byte, error) {
			length := cmp.Or(it.MACLength, in.MACLength)
			if length == 0 {
				_, given, err := parse(it.CMAC, "cmac", base64.StdEncoding)
				if err != nil {
					return nil, err
				}
				length = len(given)
			}
			return e.cmacSum(ctx, k, version, length, input)
		})
	})
}
