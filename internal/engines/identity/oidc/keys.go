package oidc

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

const (
	keyPrefix = "oidc/key/"
	duePrefix = "oidc/due/"
)

// algorithms are those that tokens are signed with, and the only ones that
// introspection looks at: "none" and HMACs are not among them.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

func algorithmNames() []string {
	names := make([]string, len(algorithms))
	for i, a := range algorithms {
		names[i] = string(a)
	}
	return names
}

// keyRow is a named key. Version 1.
type keyRow struct {
	row
	Algorithm    string      `json:"alg"`
	Rotation     wire.TTL    `json:"rot"`
	Verification wire.TTL    `json:"ver"`
	Allowed      []string    `json:"allow"`
	Current      signingKey  `json:"cur"`
	Next         signingKey  `json:"next"`
	Old          []publicKey `json:"old,omitempty"`
	Due          time.Time   `json:"due"` // the next rotation
}

// signingKey is a key pair.
type signingKey struct {
	ID      string        `json:"kid"`
	Private secret.String `json:"priv"` // PKCS #8, base64
	Public  wire.Object   `json:"pub"`  // JWK
}

// publicKey is what is left of a key that signs no more.
type publicKey struct {
	ID      string      `json:"kid"`
	Public  wire.Object `json:"pub"`
	Expires time.Time   `json:"exp"`
}

// maxOld bounds how many former keys one row holds: each rotation by hand adds
// one, and each is kept until the last token it signed has expired.
const maxOld = 64

func defaultKey() *keyRow {
	return &keyRow{row: v1, Algorithm: string(jose.RS256), Rotation: wire.TTL(24 * time.Hour), Verification: wire.TTL(24 * time.Hour), Allowed: []string{"*"}}
}

// allows reports whether the key signs for a client.
func (k *keyRow) allows(clientID string) bool {
	return slices.Contains(k.Allowed, "*") || slices.Contains(k.Allowed, clientID)
}

// published are the keys that verify now, or may from the next rotation on.
func (k *keyRow) published(now time.Time) []wire.Object {
	out := []wire.Object{k.Current.Public, k.Next.Public}
	for _, o := range k.Old {
		if now.Before(o.Expires) {
			out = append(out, o.Public)
		}
	}
	return out
}

// retire keeps the public half of the key that signs, for as long as its tokens
// are to verify.
func (k *keyRow) retire(now time.Time, verification time.Duration) error {
	k.Old = slices.DeleteFunc(k.Old, func(o publicKey) bool { return !now.Before(o.Expires) })
	switch {
	case verification <= 0:
		return nil // its tokens verify no more
	case len(k.Old) >= maxOld:
		return errs.New(errs.Invalid, "the key has %d former keys whose tokens are still valid; wait, or rotate with verification_ttl 0", len(k.Old))
	}
	k.Old = append(k.Old, publicKey{k.Current.ID, k.Current.Public, now.Add(verification).Round(0)})
	return nil
}

// rotate makes the next key the one that signs.
func (k *keyRow) rotate(next signingKey, now time.Time, verification time.Duration) error {
	if err := k.retire(now, verification); err != nil {
		return err
	}
	k.Current, k.Next, k.Due = k.Next, next, now.Add(k.Rotation.Duration()).Round(0)
	return nil
}

// put stores the row; old, if any, is what it replaces.
func (k *keyRow) put(tx storage.Tx, name string, old *keyRow) error {
	if old != nil && !old.Due.Equal(k.Due) {
		if err := tx.Delete(duePrefix + stamp(old.Due) + "/" + name); err != nil {
			return err
		}
	}
	if err := tx.Put(duePrefix+stamp(k.Due)+"/"+name, []byte{1}); err != nil {
		return err
	}
	return tx.Put(keyPrefix+name, wire.Marshal(k))
}

// key gives a named key that is fit for use: rotated if that was due. It is
// nil if there is none.
func (e *Engine) key(ctx context.Context, name string) (*keyRow, error) {
	k, err := load[keyRow](ctx, e, keyPrefix+name)
	if err != nil {
		return nil, err
	}
	switch {
	case k == nil && name == defaultName:
		if err := e.makeDefault(ctx); err != nil {
			return nil, err
		}
	case k == nil:
		return nil, nil
	case !e.env.Now().Before(k.Due):
		if err := e.rotateDue(ctx, name, k.Due); err != nil {
			return nil, err
		}
	default:
		return k, nil
	}
	return load[keyRow](ctx, e, keyPrefix+name)
}

// settings are a named key's, whether or not the default one exists yet.
func (e *Engine) settings(ctx context.Context, name string) (*keyRow, error) {
	k, err := load[keyRow](ctx, e, keyPrefix+name)
	if k == nil && err == nil && name == defaultName {
		k = defaultKey()
	}
	return k, err
}

// makeDefault makes the key that is there before anybody makes one, when it is
// first needed.
func (e *Engine) makeDefault(ctx context.Context) error {
	k := defaultKey()
	if err := e.fill(k); err != nil {
		return err
	}
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		if b, err := tx.Get(keyPrefix + defaultName); err != nil || b != nil {
			return err
		}
		return k.put(tx, defaultName, nil)
	})
	return err
}

// fill gives a row both of its key pairs.
func (e *Engine) fill(k *keyRow) (err error) {
	if k.Current, err = e.generate(k.Algorithm); err != nil {
		return err
	}
	if k.Next, err = e.generate(k.Algorithm); err != nil {
		return err
	}
	k.Due = e.env.Now().Add(k.Rotation.Duration()).Round(0)
	return nil
}

// rotateDue rotates a key whose rotation was due at a time, unless somebody
// else has by now: due is the claim.
func (e *Engine) rotateDue(ctx context.Context, name string, due time.Time) error {
	k, err := load[keyRow](ctx, e, keyPrefix+name)
	if err != nil || k == nil || !k.Due.Equal(due) {
		return err
	}
	next, err := e.generate(k.Algorithm)
	if err != nil {
		return err
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		k, err := get[keyRow](tx, keyPrefix+name)
		if err != nil || k == nil || !k.Due.Equal(due) {
			return err
		}
		old := *k
		if len(k.Old) >= maxOld { // its time is not to be missed: the oldest goes
			k.Old = k.Old[1:]
		}
		if err := k.rotate(next, e.env.Now(), k.Verification.Duration()); err != nil {
			return err
		}
		return k.put(tx, name, &old)
	})
	return err
}

// sweepStep bounds how many keys one sweep rotates, and how many codes one
// transaction deletes.
const sweepStep = 100

// Sweep rotates keys that nobody has used since their time and deletes codes
// that nobody has exchanged.
func (e *Engine) Sweep(ctx context.Context) error {
	now := e.env.Now()
	var due []string
	err := e.env.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, duePrefix, duePrefix+stamp(now), sweepStep, func(key string, _ []byte, _ error) bool {
			due = append(due, key) // the key says it all
			return true
		})
	})
	for _, key := range due {
		at, name, _ := strings.Cut(key[len(duePrefix):], "/")
		err = errors.Join(err, e.sweepKey(ctx, key, at, name))
	}
	return errors.Join(err, e.sweepCodes(ctx, now))
}

// sweepKey does what a due row asks for. One that its key does not know any
// more is deleted.
func (e *Engine) sweepKey(ctx context.Context, dueKey, at, name string) error {
	k, err := load[keyRow](ctx, e, keyPrefix+name)
	if err != nil {
		return err
	}
	if k != nil && stamp(k.Due) == at {
		return e.rotateDue(ctx, name, k.Due)
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		k, err := get[keyRow](tx, keyPrefix+name)
		if err != nil || k != nil && stamp(k.Due) == at {
			return err
		}
		return tx.Delete(dueKey)
	})
	return err
}

// generate makes a key pair for an algorithm.
func (e *Engine) generate(alg string) (k signingKey, err error) {
	var private crypto.Signer
	switch jose.SignatureAlgorithm(alg) {
	case jose.RS256, jose.RS384, jose.RS512:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	case jose.ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.ES384:
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case jose.ES512:
		private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case jose.EdDSA:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		return k, fmt.Errorf("no key can be made for the algorithm %q", alg)
	}
	if err != nil {
		return k, fmt.Errorf("making a key: %w", err)
	}
	if k.ID, err = uuid(e.env.Rand); err != nil {
		return k, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return k, fmt.Errorf("encoding a key: %w", err)
	}
	k.Private = secret.New(base64.StdEncoding.EncodeToString(der))
	jwk := jose.JSONWebKey{Key: private.Public(), KeyID: k.ID, Algorithm: alg, Use: "sig"}
	if k.Public, err = jwk.MarshalJSON(); err != nil {
		return k, fmt.Errorf("encoding a key: %w", err)
	}
	return k, nil
}

// sign makes the compact token of claims.
func (k *keyRow) sign(claims wire.Object) (string, error) {
	der, err := base64.StdEncoding.DecodeString(k.Current.Private.Reveal())
	if err != nil {
		return "", fmt.Errorf("decoding the signing key: %w", err)
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return "", fmt.Errorf("decoding the signing key: %w", err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: jose.SignatureAlgorithm(k.Algorithm),
		Key:       jose.JSONWebKey{Key: private, KeyID: k.Current.ID},
	}, nil)
	if err != nil {
		return "", fmt.Errorf("making a signer: %w", err)
	}
	jws, err := signer.Sign(claims)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return jws.CompactSerialize()
}

// digest is the hash that at_hash and c_hash take: that of the signature.
func (k *keyRow) digest() crypto.Hash {
	switch {
	case strings.HasSuffix(k.Algorithm, "384"):
		return crypto.SHA384
	case strings.HasSuffix(k.Algorithm, "512"), k.Algorithm == string(jose.EdDSA):
		return crypto.SHA512
	}
	return crypto.SHA256
}
