package transit

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"strings"
	"sync"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// This file takes keys in that were made elsewhere, and hands keys out wrapped.

// wrapping keeps the mount's key pair for imports. It never changes once it is
// stored.
type wrapping struct {
	mu  sync.Mutex
	key *rsa.PrivateKey
}

// wrappingRow is the key pair for imports. Version 1.
type wrappingRow struct {
	V   int    `json:"v"`
	Key []byte `json:"key"` // PKCS #8
}

// wrapper is the key pair for imports. It is drawn when it is first asked for,
// which takes seconds.
func (e *Engine) wrapper(ctx context.Context) (*rsa.PrivateKey, error) {
	e.wrap.mu.Lock()
	defer e.wrap.mu.Unlock()
	if e.wrap.key != nil {
		return e.wrap.key, nil
	}
	var row *wrappingRow
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		row, err = getWrapping(v)
		return err
	})
	if err != nil {
		return nil, err
	}
	if row == nil {
		der, err := primitive.NewWrappingKey()
		if err != nil {
			return nil, err
		}
		_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
			if row, err = getWrapping(tx); err != nil || row != nil {
				return err
			}
			row = &wrappingRow{V: formatOfRows, Key: der}
			return tx.Put(rowWrapping, wire.Marshal(row))
		})
		if err != nil {
			return nil, err
		}
	}
	e.wrap.key, err = primitive.WrappingKey(row.Key)
	return e.wrap.key, err
}

func getWrapping(r storage.Reader) (*wrappingRow, error) {
	b, err := r.Get(rowWrapping)
	if err != nil || b == nil {
		return nil, err
	}
	row := new(wrappingRow)
	return row, wire.Unmarshal(b, row)
}

type wrappingOut struct {
	PublicKey string `json:"public_key"`
}

func (e *Engine) wrappingKey(ctx context.Context, _ *route.Request, _ route.None) (wrappingOut, error) {
	k, err := e.wrapper(ctx)
	if err != nil {
		return wrappingOut{}, err
	}
	text, err := primitive.WrappingPublic(k)
	return wrappingOut{text}, err
}

// materialIn is a key that is brought along.
type materialIn struct {
	Ciphertext   string `json:"ciphertext" doc:"The key wrapped by the wrapping key: RSA-OAEP of an AES-256 key, and behind it the key by AES-KWP, base64."`
	HashFunction string `json:"hash_function" doc:"Hash function of RSA-OAEP: SHA256 (if nothing is said), SHA1, SHA224, SHA384 or SHA512."`
	PublicKey    string `json:"public_key" doc:"In place of the whole key, its public half (PEM), which encrypts and verifies only. Beside a ciphertext it is ignored."`
}

func (e *Engine) material(ctx context.Context, s primitive.Spec, in materialIn) (m primitive.Material, err error) {
	switch {
	case in.Ciphertext != "": // and a public_key beside it is ignored, as Vault's pages have it
	case in.PublicKey == "":
		return m, errs.New(errs.Invalid, "give either the ciphertext of a wrapped key, or a public_key")
	default:
		m, err = primitive.ImportedPublic(s, in.PublicKey)
		return m, asCallers(err)
	}
	h, ok := primitive.HashForOAEP(in.HashFunction)
	if !ok {
		return m, errs.New(errs.Invalid, "unsupported hash function %q for an import: use SHA256, SHA1, SHA224, SHA384 or SHA512", in.HashFunction)
	}
	b, err := base64.StdEncoding.DecodeString(in.Ciphertext)
	if err != nil {
		return m, errs.New(errs.Invalid, "error importing key: the ciphertext is no base64: %v", err)
	}
	k, err := e.wrapper(ctx)
	if err != nil {
		return m, err
	}
	key, err := primitive.Unwrap(k, h, b)
	if err != nil {
		return m, asCallers(err)
	}
	m, err = primitive.Imported(s, key)
	return m, asCallers(err)
}

type importIn struct {
	nameIn
	specIn
	materialIn
	Derived       bool     `json:"derived" doc:"Whether each request must name a context, from which its key is derived."`
	Convergent    bool     `json:"convergent_encryption" doc:"Whether equal plaintexts of equal contexts have equal ciphertexts."`
	Exportable    bool     `json:"exportable" doc:"Whether the key may be exported."`
	Backup        bool     `json:"allow_plaintext_backup" doc:"Whether the key may be backed up in the clear."`
	AllowRotation bool     `json:"allow_rotation" doc:"Whether the server may make new versions of its own."`
	RotatePeriod  wire.TTL `json:"auto_rotate_period" doc:"After how long the key rotates by itself; needs allow_rotation."`
	Context       string   `json:"context" doc:"Taken and ignored, as Vault does."`
}

func (e *Engine) importKey(ctx context.Context, _ *route.Request, in importIn) (route.None, error) {
	there, err := e.key(ctx, in.Name)
	if err != nil {
		return route.None{}, err
	}
	if there != nil {
		return route.None{}, errImported
	}
	in.Type = strings.ToLower(in.Type) // Vault takes either when importing
	if in.Type == string(primitive.HMAC) && in.KeySize == 0 {
		in.KeySize = 32 // its own size is taken below
	}
	spec, err := in.spec()
	if err != nil {
		return route.None{}, err
	}
	if err := checkName(in.Name); err != nil {
		return route.None{}, err
	}
	able := spec.Type.Abilities()
	switch {
	case in.RotatePeriod != 0 && !in.AllowRotation:
		return route.None{}, errs.New(errs.Invalid, "allow_rotation must be set to true if auto-rotation is enabled")
	case in.Derived && !able.Derive, in.Convergent && (!in.Derived || !able.Encrypt):
		return route.None{}, errs.New(errs.Invalid, "key derivation and convergent encryption not supported for keys of type %s", spec.Type)
	}
	if err := checkRotation(in.RotatePeriod); err != nil {
		return route.None{}, err
	}
	m, err := e.material(ctx, spec, in.materialIn)
	if err != nil {
		return route.None{}, err
	}
	if spec.Type == primitive.HMAC {
		spec.Size = len(m.Secret)
	}
	k := &keyRow{
		V: formatOfRows, ID: newID(), Name: in.Name, Spec: spec, Latest: 1, MinDecryption: 1,
		Derived: in.Derived, Convergent: in.Convergent, Exportable: in.Exportable, PlaintextBackup: in.Backup,
		Imported: true, AllowRotation: in.AllowRotation, RotatePeriod: in.RotatePeriod,
	}
	return route.None{}, e.add(ctx, k, e.versionOf(spec, m), errImported)
}

var errImported = errs.New(errs.Invalid, "the import path cannot be used with an existing key; use import-version to rotate an existing imported key")

type importVersionIn struct {
	nameIn
	materialIn
	Version int `json:"version" doc:"Version to complete by its private half; 0: the newest if it lacks that, or else a new version."`
}

func (e *Engine) importVersion(ctx context.Context, _ *route.Request, in importVersionIn) (route.None, error) {
	k, err := e.key(ctx, in.Name)
	if err != nil {
		return route.None{}, err
	}
	if k == nil {
		return route.None{}, errs.New(errs.Invalid, "no key found with name %s; to import a new key, use the import/ endpoint", in.Name)
	}
	if !k.Imported {
		return route.None{}, errs.New(errs.Invalid, "the import_version endpoint can only be used with an imported key")
	}
	m, err := e.material(ctx, k.Spec, in.materialIn)
	if err != nil {
		return route.None{}, err
	}
	if k.Spec.Type == primitive.HMAC && len(m.Secret) != k.Spec.Size {
		return route.None{}, errs.New(errs.Invalid, "the key has %d bytes, its first version has %d", len(m.Secret), k.Spec.Size)
	}
	_, err = e.change(ctx, in.Name, func(tx storage.Tx, now *keyRow) error {
		if now.ID != k.ID {
			return errReplaced
		}
		switch last, err := getVersion(tx, now.ID, now.Latest); {
		case err != nil:
			return err
		case in.Version != 0:
			return completeVersion(tx, now, in.Version, m)
		case len(m.Secret) > 0 && last != nil && len(last.Secret) == 0:
			return completeVersion(tx, now, now.Latest, m)
		}
		now.Latest++
		if err := now.setRotation(tx, e.env.Due, e.env.Now()); err != nil {
			return err
		}
		return e.versionOf(now.Spec, m).put(tx, now.ID, now.Latest)
	})
	return route.None{}, err
}

// completeVersion adds the private half to a version that was imported without.
func completeVersion(tx storage.Tx, k *keyRow, n int, m primitive.Material) error {
	row, err := getVersion(tx, k.ID, n)
	if err != nil {
		return err
	}
	switch {
	case row == nil:
		return errs.New(errs.Invalid, "there is no version %d of the key", n)
	case len(row.Secret) > 0:
		return errs.New(errs.Invalid, "version %d of the key has its private half already", n)
	case len(m.Secret) == 0:
		return errs.New(errs.Invalid, "version %d has its public half already; give the ciphertext of the wrapped private one", n)
	case !primitive.SamePublic(primitive.Material{Public: row.Public}, m):
		return errs.New(errs.Invalid, "the private key does not belong to the public key of version %d", n)
	}
	row.Secret = m.Secret
	return row.put(tx, k.ID, n)
}

type byokIn struct {
	Destination string `json:"destination" doc:"Key to wrap by: an RSA key, such as another server's wrapping key that was imported."`
	Source      string `json:"source" doc:"Key to export."`
	Version     string `json:"version" doc:"Version to export, or latest; nothing: all."`
	Hash        string `json:"hash" doc:"Hash function of RSA-OAEP: SHA256 (if nothing is said), SHA1, SHA224, SHA384 or SHA512."`
}

func (e *Engine) byokExport(ctx context.Context, _ *route.Request, in byokIn) (exportOut, error) {
	dst, err := e.usable(ctx, in.Destination, "destination")
	if err != nil {
		return exportOut{}, err
	}
	src, err := e.usable(ctx, in.Source, "source")
	if err != nil {
		return exportOut{}, err
	}
	if !src.Exportable {
		return exportOut{}, errs.New(errs.Invalid, "private key material is not exportable")
	}
	h, ok := primitive.HashForOAEP(in.Hash)
	if !ok {
		return exportOut{}, errs.New(errs.Invalid, "unsupported hash function %q: use SHA256, SHA1, SHA224, SHA384 or SHA512", in.Hash)
	}
	by, err := e.version(ctx, dst, dst.Latest)
	if err != nil {
		return exportOut{}, err
	}
	pub, ok := primitive.RSAPublic(by.Key)
	if !ok {
		return exportOut{}, errs.New(errs.Invalid, "the destination key %s is of type %s; keys are wrapped by RSA keys only", in.Destination, dst.Spec.Type)
	}
	return e.exportVersions(ctx, src, in.Version, func(row *versionRow) (string, error) {
		key, err := primitive.Wrappable(primitive.Material{Secret: row.Secret})
		if err != nil {
			return "", asCallers(err)
		}
		b, err := primitive.Wrap(pub, h, key)
		return base64.StdEncoding.EncodeToString(b), err
	})
}
