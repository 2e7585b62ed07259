package transit

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"

	"strconv"

	"github.com/leasehold/leasehold/internal/engines/transit/b64"
	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// This file encrypts and decrypts. A request names one item, or a batch of
// them; an item of a batch fails alone.

// prefix is what every ciphertext, signature and MAC begins with, before the
// version of its key.
const prefix = "vault:v"

// textOf is the text of some bytes made by a version.
func textOf(version int, b []byte) string { return string(new(room).text(version, b)) }

// head takes the version off such a text. what is what the text is called in
// errors.
func head(text []byte, what string) (version int, rest []byte, err error) {
	rest, ok := bytes.CutPrefix(text, []byte(prefix))
	if !ok {
		return 0, nil, errs.New(errs.Invalid, "invalid %s: no prefix", what)
	}
	number, rest, ok := bytes.Cut(rest, []byte{':'})
	if !ok {
		return 0, nil, errs.New(errs.Invalid, "invalid %s: wrong number of fields", what)
	}
	version, err = strconv.Atoi(string(number))
	if err != nil || version < 0 {
		return 0, nil, errs.New(errs.Invalid, "invalid %s: version number could not be decoded", what)
	}
	if version == 0 {
		version = 1 // of Vault 0.2 and earlier
	}
	return version, rest, nil
}

// parse takes such a text apart.
func parse(text []byte, what string, enc *base64.Encoding) (version int, b []byte, err error) {
	version, rest, err := head(text, what)
	if err != nil {
		return 0, nil, err
	}
	if b, err = enc.AppendDecode(nil, rest); err != nil {
		return 0, nil, errBase64(what)
	}
	return version, b, nil
}

func errBase64(what string) error {
	return errs.New(errs.Invalid, "invalid %s: could not decode base64", what)
}

// decodeField is the bytes of a field that is base64.
func decodeField(name string, s []byte) ([]byte, error) {
	if len(s) == 0 {
		return nil, nil
	}
	b, err := b64.AppendDecoded(nil, s)
	if err != nil {
		return nil, errs.New(errs.Invalid, "failed to base64-decode %s: %v", name, err)
	}
	return b, nil
}

// itemIn is one thing to encrypt, decrypt or wrap anew.
type itemIn struct {
	Plaintext      wire.Opt[wire.Text] `json:"plaintext" doc:"What to encrypt, base64."`
	Ciphertext     wire.Opt[wire.Text] `json:"ciphertext" doc:"What to decrypt, as encrypting gave it."`
	Context        wire.Text           `json:"context" doc:"Context of a derived key, base64."`
	Nonce          wire.Text           `json:"nonce" doc:"Refused: nonces are drawn, or made of the plaintext by a convergent key."`
	AssociatedData wire.Text           `json:"associated_data" doc:"What is authenticated with the ciphertext and must be the same when decrypting, base64."`
	KeyVersion     int                 `json:"key_version" doc:"Version to encrypt by; 0: the newest."`
	Reference      wire.Text           `json:"reference" doc:"Given back with the item's result."`
	Padding        string              `json:"padding_scheme" doc:"Padding of an RSA key: oaep or pkcs1v15."`
	DecryptPadding string              `json:"decrypt_padding_scheme" doc:"When wrapping anew, the padding of the old ciphertext."`
	EncryptPadding string              `json:"encrypt_padding_scheme" doc:"When wrapping anew, the padding of the new ciphertext."`
}

type cryptIn struct {
	nameIn
	itemIn
	Batch       wire.Items[itemIn] `json:"batch_input" doc:"Many items in place of one."`
	PartialCode int                `json:"partial_failure_response_code" doc:"Status of the answer when some items of a batch failed; 0: 400."`
	Type        string             `json:"type" doc:"Type of the key to create where there is none."`
	Convergent  bool               `json:"convergent_encryption" doc:"Whether the key to create is a convergent one."`
}

// itemOut is the result of one item.
type itemOut struct {
	Ciphertext wire.Text           `json:"ciphertext,omitempty"`
	Error      string              `json:"error,omitempty"`
	KeyVersion int                 `json:"key_version,omitempty"`
	Plaintext  wire.Opt[wire.Text] `json:"plaintext,omitempty"`
	Reference  wire.Opt[wire.Text] `json:"reference,omitempty"`
}

type cryptOut struct {
	itemOut
	Batch wire.Items[itemOut] `json:"batch_results,omitempty"`
}

func (e *Engine) encryptExists(ctx context.Context, _ *route.Request, in cryptIn) (bool, error) {
	k, err := e.key(ctx, in.Name)
	return k != nil, err
}

func (e *Engine) encrypt(ctx context.Context, req *route.Request, in cryptIn) (cryptOut, error) {
	k, err := e.key(ctx, in.Name)
	if err != nil {
		return cryptOut{}, err
	}
	if k == nil {
		if !in.Batch.Set() && !in.Plaintext.Set {
			return cryptOut{}, errNoPlaintext
		}
		if err := e.createForEncrypt(ctx, req, &in); err != nil {
			return cryptOut{}, err
		}
	}
	return e.each(ctx, req, &in, false, (*Engine).encryptItem)
}

// createForEncrypt makes the key that was not there. The policies were asked
// for the right to (see Exists), unless it was there at that moment still.
func (e *Engine) createForEncrypt(ctx context.Context, req *route.Request, in *cryptIn) error {
	conf, err := e.keysConfig(ctx)
	if err != nil {
		return err
	}
	if conf.DisableUpsert || req.OnlyUpdate {
		return errs.New(errs.Invalid, "encryption key not found")
	}
	derived := len(in.Context) > 0
	if in.Batch.Set() {
		var contexts contexts
		for it, err := range in.Batch.All() {
			if err != nil {
				return err
			}
			if !contexts.fits(it) {
				return errContexts
			}
		}
		if !contexts.known {
			return errNoBatch
		}
		derived = contexts.given
	}
	switch t, _ := primitive.Named(in.Type, ""); {
	case t == "", t.Abilities().Encrypt && t.Abilities().Symmetric:
	default:
		return errs.New(errs.Invalid, "unknown key type %q for a key that encrypting creates; create it at keys/%s first", in.Type, in.Name)
	}
	return e.create(ctx, createIn{nameIn: in.nameIn, specIn: specIn{Type: in.Type}, Derived: derived, Convergent: in.Convergent})
}

func (e *Engine) decrypt(ctx context.Context, req *route.Request, in cryptIn) (cryptOut, error) {
	return e.each(ctx, req, &in, true, (*Engine).decryptItem)
}

func (e *Engine) rewrap(ctx context.Context, req *route.Request, in cryptIn) (cryptOut, error) {
	out, err := e.each(ctx, req, &in, false, (*Engine).rewrapItem)
	if in.Batch.Set() {
		// Vault's rewrap knows no partial_failure_response_code: what failed
		// says so itself, in an answer that is 200.
		req.SetStatus(0)
	}
	return out, err
}

// callers reports whether an error is about what the caller sent, and so only
// about one item.
func callers(err error) bool { return errs.Is(err, errs.Invalid) }

// asCallers gives an error of the cryptography its kind: with a key that was
// loaded, only what the caller sent can be wrong.
func asCallers(err error) error {
	if err == nil {
		return nil // before there is anything to allocate
	}
	if known := new(*errs.Error); errors.As(err, known) {
		return err
	}
	return errs.New(errs.Invalid, "%v", err)
}

var errNonce = errs.New(errs.Invalid, "provided nonce not allowed for this key: nonces are drawn anew each time, or made of the plaintext by a convergent key")

// cipher finds what encrypts or decrypts for an item by a version of a key.
func (e *Engine) cipher(ctx context.Context, k *readyKey, version int, it *itemIn) (c primitive.Cipher, o primitive.CipherOptions, err error) {
	if len(it.Nonce) > 0 {
		return nil, o, errNonce
	}
	about, err := decodeField("context", it.Context)
	if err != nil {
		return nil, o, err
	}
	if o.AssociatedData, err = decodeField("associated_data", it.AssociatedData); err != nil {
		return nil, o, err
	}
	if able := k.Spec.Type.Abilities(); o.AssociatedData != nil && !able.Symmetric && !able.KEM {
		return nil, o, errs.New(errs.Invalid, "associated_data is not for keys of type %s", k.Spec.Type)
	}
	o.Padding = it.Padding
	v, err := e.version(ctx, k, version)
	if err != nil {
		return nil, o, err
	}
	key, err := k.derived(v, about)
	if err != nil {
		return nil, o, err
	}
	c, ok := key.(primitive.Cipher)
	if !ok {
		return nil, o, errs.New(errs.Invalid, "message encryption not supported for key type %s", k.Spec.Type)
	}
	return c, o, nil
}

// forEncryption is the version to encrypt or sign by.
func (k *readyKey) forEncryption(asked int) (int, error) {
	switch {
	case asked == 0:
		return k.Latest, nil
	case asked < 0:
		return 0, errs.New(errs.Invalid, "requested version for encryption is negative")
	case asked > k.Latest:
		return 0, errs.New(errs.Invalid, "requested version for encryption is higher than the latest key version")
	case asked < k.MinEncryption, asked < k.MinDecryption:
		return 0, errs.New(errs.Invalid, "requested version for encryption is less than the minimum encryption key version")
	}
	return asked, nil
}

// forDecryption refuses versions that do not decrypt or verify.
func (k *readyKey) forDecryption(version int, what string) error {
	switch {
	case version > k.Latest:
		return errs.New(errs.Invalid, "invalid %s: version is too new", what)
	case version < k.MinDecryption:
		return errs.New(errs.Invalid, "%s or signature version is disallowed by policy (too old)", what)
	}
	return nil
}

var errNoPlaintext = errs.New(errs.Invalid, "missing plaintext to encrypt")

func (e *Engine) encryptItem(ctx context.Context, k *readyKey, it *itemIn, r *room) (out itemOut, err error) {
	// Of a batch null is no plaintext; elsewhere it is an empty one, as in Vault.
	if !it.Plaintext.Set || r.many && it.Plaintext.Value == nil {
		return out, errNoPlaintext
	}
	if r.in, err = b64.AppendDecoded(r.in[:0], it.Plaintext.Value); err != nil {
		return out, errs.New(errs.Invalid, "failed to base64-decode plaintext: %v", err)
	}
	return e.seal(ctx, k, it, r.in, r)
}

// seal encrypts bytes for an item.
func (e *Engine) seal(ctx context.Context, k *readyKey, it *itemIn, plain []byte, r *room) (out itemOut, err error) {
	if r.out, out.KeyVersion, err = e.sealBytes(ctx, k, it, r, r.out[:0], plain); err != nil {
		return itemOut{}, err
	}
	out.Ciphertext = r.text(out.KeyVersion, r.out)
	return out, nil
}

func (e *Engine) sealBytes(ctx context.Context, k *readyKey, it *itemIn, r *room, dst, plain []byte) (b []byte, version int, err error) {
	var o primitive.CipherOptions
	with := r.seals
	if with.by == nil || with.asked != it.KeyVersion || !it.plain() {
		if !k.Spec.Type.Abilities().Encrypt {
			return dst, 0, errs.New(errs.Invalid, "message encryption not supported for key type %s", k.Spec.Type)
		}
		with.asked = it.KeyVersion
		if with.version, err = k.forEncryption(it.KeyVersion); err != nil {
			return dst, 0, err
		}
		if with.by, o, err = e.cipher(ctx, k, with.version, it); err != nil {
			return dst, 0, err
		}
		if r.many && it.plain() {
			r.seals = with
		}
	}
	if r.many {
		o.Nonces = &r.nonces
	}
	b, err = with.by.Encrypt(dst, plain, o)
	return b, with.version, asCallers(err)
}

// open decrypts an item.
func (e *Engine) open(ctx context.Context, k *readyKey, it *itemIn, r *room) ([]byte, error) {
	if len(it.Ciphertext.Value) == 0 {
		return nil, errs.New(errs.Invalid, "missing ciphertext to decrypt")
	}
	version, rest, err := head(it.Ciphertext.Value, "ciphertext")
	if err != nil {
		return nil, err
	}
	if r.in, err = b64.AppendDecoded(r.in[:0], rest); err != nil {
		return nil, errBase64("ciphertext")
	}
	return e.openBytes(ctx, k, it, r, version, r.in)
}

func (e *Engine) openBytes(ctx context.Context, k *readyKey, it *itemIn, r *room, version int, b []byte) ([]byte, error) {
	var o primitive.CipherOptions
	with := r.opens
	if with.by == nil || with.version != version || !it.plain() {
		if !k.Spec.Type.Abilities().Decrypt {
			return nil, errs.New(errs.Invalid, "message decryption not supported for key type %s", k.Spec.Type)
		}
		err := k.forDecryption(version, "ciphertext")
		if err != nil {
			return nil, err
		}
		with.version = version
		if with.by, o, err = e.cipher(ctx, k, version, it); err != nil {
			return nil, err
		}
		if r.many && it.plain() {
			r.opens = with
		}
	}
	plain, err := with.by.Decrypt(b, o)
	return plain, asCallers(err)
}

func (e *Engine) decryptItem(ctx context.Context, k *readyKey, it *itemIn, r *room) (itemOut, error) {
	plain, err := e.open(ctx, k, it, r)
	if err != nil {
		return itemOut{}, err
	}
	defer clear(plain)
	return itemOut{Plaintext: wire.Some(r.plainText(plain))}, nil
}

func (e *Engine) rewrapItem(ctx context.Context, k *readyKey, it *itemIn, r *room) (itemOut, error) {
	from, to := *it, *it
	from.KeyVersion = 0
	if it.DecryptPadding != "" {
		from.Padding = it.DecryptPadding
	}
	if it.EncryptPadding != "" {
		to.Padding = it.EncryptPadding
	}
	plain, err := e.open(ctx, k, &from, r)
	if err != nil {
		return itemOut{}, err
	}
	defer clear(plain)
	return e.seal(ctx, k, &to, plain, r)
}

type dataKeyIn struct {
	nameIn
	Plaintext      string        `json:"plaintext" doc:"plaintext shows the key too, wrapped only gives it encrypted."`
	Bits           wire.Opt[int] `json:"bits" doc:"Length of the key: 128, 256 (if nothing is said) or 512."`
	Context        wire.Text     `json:"context" doc:"Context of a derived key, base64."`
	Nonce          wire.Text     `json:"nonce" doc:"Refused: nonces are drawn."`
	AssociatedData wire.Text     `json:"associated_data" doc:"What is authenticated with the ciphertext, base64."`
	KeyVersion     int           `json:"key_version" doc:"Version to encrypt by; 0: the newest."`
	Padding        string        `json:"padding_scheme" doc:"Padding of an RSA key: oaep or pkcs1v15."`
}

type dataKeyOut struct {
	Ciphertext wire.Text           `json:"ciphertext"`
	KeyVersion int                 `json:"key_version"`
	Plaintext  wire.Opt[wire.Text] `json:"plaintext,omitempty"`
}

func (e *Engine) dataKey(ctx context.Context, req *route.Request, in dataKeyIn) (dataKeyOut, error) {
	if in.Plaintext != "plaintext" && in.Plaintext != "wrapped" {
		return dataKeyOut{}, errs.New(errs.Invalid, "Invalid path, must be 'plaintext' or 'wrapped'")
	}
	k, err := e.usable(ctx, in.Name, "encryption")
	if err != nil {
		return dataKeyOut{}, err
	}
	bits := in.Bits.Or(256)
	switch bits {
	case 128, 256, 512:
	default:
		return dataKeyOut{}, errs.New(errs.Invalid, "invalid bit length: a data key has 128, 256 or 512 bits")
	}
	key := primitive.Random(bits / 8)
	defer clear(key)
	it := itemIn{Context: in.Context, Nonce: in.Nonce, AssociatedData: in.AssociatedData, KeyVersion: in.KeyVersion, Padding: in.Padding}
	r := newRoom()
	sealed, err := e.seal(ctx, k, &it, key, r)
	if err != nil {
		r.Release()
		return dataKeyOut{}, err
	}
	req.Lend(r)
	out := dataKeyOut{Ciphertext: sealed.Ciphertext, KeyVersion: sealed.KeyVersion}
	if in.Plaintext == "plaintext" {
		out.Plaintext = wire.Some(r.plainText(key))
	}
	return out, nil
}
