package transit

import (
	"context"
	"encoding/base64"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// This file answers bodies of bytes (application/octet-stream) with bytes. It
// is ours: Vault has no such thing. What is made by a key is "vault:v3:", the
// version, and behind it the bytes themselves: with these in base64 it is what
// JSON has, and the other way round.

// What a body of bytes is in JSON.
func asPlaintext(body []byte) (name, text string) {
	return "plaintext", base64.StdEncoding.EncodeToString(body)
}

func asInput(body []byte) (name, text string) {
	return "input", base64.StdEncoding.EncodeToString(body)
}

func asCiphertext(body []byte) (name, text string) {
	_, rest, err := head(body, "ciphertext")
	if err != nil {
		return "ciphertext", string(body) // no such thing in JSON either
	}
	return "ciphertext", string(body[:len(body)-len(rest)]) + base64.StdEncoding.EncodeToString(rest)
}

// octetsIn are the fields that stand in the query of a request of bytes.
type octetsIn struct {
	nameIn
	Context        wire.Text `json:"context" doc:"Context of a derived key, base64."`
	AssociatedData wire.Text `json:"associated_data" doc:"What is authenticated with the ciphertext, base64."`
	KeyVersion     int       `json:"key_version" doc:"Version to use; 0: the newest."`
	Padding        string    `json:"padding_scheme" doc:"Padding of an RSA key: oaep or pkcs1v15."`
}

func (in *octetsIn) item() *itemIn {
	return &itemIn{Context: in.Context, AssociatedData: in.AssociatedData, KeyVersion: in.KeyVersion, Padding: in.Padding}
}

// versioned is what a version has made, as bytes.
func versioned(version int, b []byte) []byte {
	return append(appendHead(make([]byte, 0, len(prefix)+12+len(b)), version), b...)
}

func (e *Engine) encryptOctets(ctx context.Context, req *route.Request, in octetsIn, body []byte) ([]byte, error) {
	k, err := e.key(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	if k == nil {
		if err := e.createForEncrypt(ctx, req, &cryptIn{nameIn: in.nameIn, itemIn: *in.item()}); err != nil {
			return nil, err
		}
	}
	if k, err = e.usable(ctx, in.Name, "encryption"); err != nil {
		return nil, err
	}
	// The head has room in front, so that the ciphertext is made in its place.
	version, err := k.forEncryption(in.KeyVersion)
	if err != nil {
		return nil, err
	}
	r := newRoom()
	if r.out, _, err = e.sealBytes(ctx, k, in.item(), r, appendHead(r.out[:0], version), body); err != nil {
		r.Release()
		return nil, err
	}
	req.Lend(r)
	return r.out, nil
}

func (e *Engine) decryptOctets(ctx context.Context, req *route.Request, in octetsIn, body []byte) ([]byte, error) {
	k, err := e.usable(ctx, in.Name, "encryption")
	if err != nil {
		return nil, err
	}
	version, rest, err := head(body, "ciphertext")
	if err != nil {
		return nil, err
	}
	r := newRoom()
	r.in = append(r.in[:0], rest...) // decrypting is in place; the body is not ours
	plain, err := e.openBytes(ctx, k, in.item(), r, version, r.in)
	if err != nil {
		r.Release()
		return nil, err
	}
	req.Lend(r)
	return plain, nil
}

type hmacOctetsIn struct {
	nameIn
	URLAlgorithm string `json:"urlalgorithm" doc:"Hash algorithm, in the path."`
	Algorithm    string `json:"algorithm" doc:"Hash algorithm."`
	KeyVersion   int    `json:"key_version" doc:"Version to authenticate by; 0: the newest."`
}

func (e *Engine) hmacOctets(ctx context.Context, _ *route.Request, in hmacOctetsIn, body []byte) ([]byte, error) {
	k, err := e.usable(ctx, in.Name, "encryption")
	if err != nil {
		return nil, err
	}
	version, err := k.forSigning(in.KeyVersion)
	if err != nil {
		return nil, err
	}
	h, err := hashNamed(in.URLAlgorithm, in.Algorithm)
	if err != nil {
		return nil, err
	}
	key, err := e.macKey(ctx, k, version)
	if err != nil {
		return nil, err
	}
	return versioned(version, primitive.HMACSum(h, key, body)), nil
}

func (e *Engine) signOctets(ctx context.Context, _ *route.Request, in signIn, body []byte) ([]byte, error) {
	if in.Batch.Set() || in.Input.Set {
		return nil, errs.New(errs.Invalid, "the input of a request of bytes is its body; input and batch_input are for JSON")
	}
	k, err := e.usable(ctx, in.Name, "signing")
	if err != nil {
		return nil, err
	}
	if !k.Spec.Type.Abilities().Sign {
		return nil, errNoSigner(k)
	}
	version, err := k.forSigning(in.KeyVersion)
	if err != nil {
		return nil, err
	}
	o, _, err := in.options(k.Spec.Type)
	if err != nil {
		return nil, err
	}
	s, _, err := e.signer(ctx, k, version, &in.signItem)
	if err != nil {
		return nil, err
	}
	sig, err := s.Sign(body, o)
	if err != nil {
		return nil, asCallers(err)
	}
	return versioned(version, sig), nil
}
