package transit

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// This file makes, reads, changes and deletes keys.

// specIn is how a write says what kind of key it wants.
type specIn struct {
	Type         string `json:"type" doc:"Type of the key, such as aes256-gcm96 (if nothing is said), ed25519, ecdsa-p256, rsa-2048, hmac, ml-dsa."`
	KeySize      int    `json:"key_size" doc:"Length of an HMAC key in bytes, 32 to 512."`
	ParameterSet string `json:"parameter_set" doc:"Parameter set of ml-dsa (44, 65, 87), slh-dsa (slh-dsa-sha2-128s …) or hybrid."`
	HybridPQC    string `json:"hybrid_key_type_pqc" doc:"First half of a hybrid key: ml-dsa."`
	HybridEC     string `json:"hybrid_key_type_ec" doc:"Second half of a hybrid key: ed25519, ecdsa-p256, ecdsa-p384 or ecdsa-p521."`
}

func (in specIn) spec() (primitive.Spec, error) {
	if in.Type == "" {
		in.Type = string(primitive.AES256GCM)
	}
	if in.Type == "managed_key" {
		return primitive.Spec{}, errs.New(errs.Invalid, "managed keys are not offered: the server has no connection to an HSM for Transit")
	}
	s := primitive.Spec{}
	s.Type, s.ParameterSet = primitive.Named(in.Type, in.ParameterSet)
	switch s.Type {
	case primitive.HMAC:
		s.Size = in.KeySize
		if s.Size == 0 {
			s.Size = 32
		}
	case primitive.Hybrid:
		s.HybridPQC, s.HybridEC = in.HybridPQC, in.HybridEC
	case primitive.MLDSA, primitive.SLHDSA:
	default:
		s.ParameterSet = ""
	}
	if in.KeySize != 0 && s.Type != primitive.HMAC {
		return s, errs.New(errs.Invalid, "key_size is only for keys of type hmac; the type %s has its own", s.Type)
	}
	if err := s.Check(); err != nil {
		return s, errs.New(errs.Invalid, "%v", err)
	}
	return s, nil
}

type createIn struct {
	nameIn
	specIn
	Derived      bool     `json:"derived" doc:"Whether each request must name a context, from which its key is derived."`
	Convergent   bool     `json:"convergent_encryption" doc:"Whether equal plaintexts of equal contexts have equal ciphertexts; the key must be a derived one."`
	Exportable   bool     `json:"exportable" doc:"Whether the key may be exported. It cannot be taken back."`
	Backup       bool     `json:"allow_plaintext_backup" doc:"Whether the key may be backed up in the clear. It cannot be taken back."`
	RotatePeriod wire.TTL `json:"auto_rotate_period" doc:"After how long the key rotates by itself, an hour or more; 0: it does not."`
	Context      string   `json:"context" doc:"Context (base64), to show the derived public key of."`
	ManagedName  string   `json:"managed_key_name" doc:"Not offered."`
	ManagedID    string   `json:"managed_key_id" doc:"Not offered."`
}

var nameRule = regexp.MustCompile(`^\w(?:[\w.-]*\w)?$`)

func checkName(name string) error {
	if len(name) > 256 || !nameRule.MatchString(name) {
		return errs.New(errs.Invalid, "the name of a key has up to 256 letters, digits, underscores, hyphens and dots, and begins and ends with one of the first three")
	}
	return nil
}

const leastRotation = wire.TTL(time.Hour)

func checkRotation(p wire.TTL) error {
	if p != 0 && p < leastRotation {
		return errs.New(errs.Invalid, "auto rotate period must be 0 to disable or at least an hour")
	}
	return nil
}

func (e *Engine) listKeys(ctx context.Context, _ *route.Request, in listIn) (route.Keys, error) {
	var names []string
	err := e.env.Store.View(ctx, func(v storage.View) error {
		from := rowKey
		if in.After != "" {
			from = rowKey + in.After + "\x00"
		}
		return v.Scan(from, storage.PrefixEnd(rowKey), max(in.Limit, 0), func(key string, _ []byte) bool {
			names = append(names, key[len(rowKey):])
			return true
		})
	})
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(names)
}

func (e *Engine) createKey(ctx context.Context, _ *route.Request, in createIn) (keyOut, error) {
	old, err := e.key(ctx, in.Name)
	if err != nil {
		return keyOut{}, err
	}
	if old == nil {
		if err := e.create(ctx, in); err != nil {
			return keyOut{}, err
		}
	}
	return e.show(ctx, in.Name, in.Context)
}

// create makes a key, unless somebody else was faster.
func (e *Engine) create(ctx context.Context, in createIn) error {
	spec, err := in.spec()
	if err != nil {
		return err
	}
	if spec.Type == primitive.HMAC && in.KeySize == 0 {
		return errs.New(errs.Invalid, "a key of type hmac needs a key_size, between 32 and 512 bytes")
	}
	if err := checkName(in.Name); err != nil {
		return err
	}
	if err := checkRotation(in.RotatePeriod); err != nil {
		return err
	}
	able := spec.Type.Abilities()
	switch {
	case in.Convergent && !in.Derived:
		return errs.New(errs.Invalid, "convergent encryption requires derivation to be enabled")
	case in.Derived && !able.Derive:
		return errs.New(errs.Invalid, "key derivation and convergent encryption not supported for keys of type %s", spec.Type)
	case in.Convergent && !able.Encrypt:
		return errs.New(errs.Invalid, "convergent encryption not supported for keys of type %s", spec.Type)
	}
	row, err := e.newVersion(spec)
	if err != nil {
		return err
	}
	k := &keyRow{
		V: formatOfRows, ID: newID(), Name: in.Name, Spec: spec, Latest: 1, MinDecryption: 1,
		Derived: in.Derived, Convergent: in.Convergent, Exportable: in.Exportable, PlaintextBackup: in.Backup,
		RotatePeriod: in.RotatePeriod,
	}
	return e.add(ctx, k, row, nil)
}

// add stores a new key with its first version; taken is the answer if somebody
// was faster.
func (e *Engine) add(ctx context.Context, k *keyRow, row *versionRow, taken error) error {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		there, err := getKey(tx, k.Name)
		switch {
		case err != nil:
			return err
		case there != nil:
			return taken
		}
		if err := k.setRotation(tx, e.env.Due, row.Created); err != nil {
			return err
		}
		if err := row.put(tx, k.ID, 1); err != nil {
			return err
		}
		return k.put(tx)
	})
	return err
}

type readIn struct {
	nameIn
	Context string `json:"context" doc:"Context (base64), to show the derived public key of."`
}

// keyOut is a key as it is shown. Keys is each version's time of making, or
// the public half of those that have one.
type keyOut struct {
	PlaintextBackup   bool           `json:"allow_plaintext_backup"`
	RotatePeriod      wire.TTL       `json:"auto_rotate_period"`
	BackedUp          *moment        `json:"backup_info,omitempty"`
	Convergent        wire.Opt[bool] `json:"convergent_encryption,omitempty"`
	ConvergentVersion wire.Opt[int]  `json:"convergent_encryption_version,omitempty"`
	DeletionAllowed   bool           `json:"deletion_allowed"`
	Derived           bool           `json:"derived"`
	Exportable        bool           `json:"exportable"`
	HybridEC          string         `json:"hybrid_key_type_ec,omitempty"`
	HybridPQC         string         `json:"hybrid_key_type_pqc,omitempty"`
	Imported          bool           `json:"imported_key"`
	AllowRotation     wire.Opt[bool] `json:"imported_key_allow_rotation,omitempty"`
	KDF               string         `json:"kdf,omitempty"`
	KeySize           int            `json:"key_size,omitempty"`
	Keys              wire.Object    `json:"keys,omitempty"`
	Latest            int            `json:"latest_version"`
	MinAvailable      int            `json:"min_available_version"`
	MinDecryption     int            `json:"min_decryption_version"`
	MinEncryption     int            `json:"min_encryption_version"`
	Name              string         `json:"name"`
	ParameterSet      string         `json:"parameter_set,omitempty"`
	Restored          *moment        `json:"restore_info,omitempty"`
	SoftDeleted       bool           `json:"soft_deleted"`
	Decrypts          bool           `json:"supports_decryption"`
	Derives           bool           `json:"supports_derivation"`
	Encrypts          bool           `json:"supports_encryption"`
	Signs             bool           `json:"supports_signing"`
	Type              primitive.Type `json:"type"`
}

// publicOut is one version of a key that has a public half.
type publicOut struct {
	Chain     string    `json:"certificate_chain"`
	Created   time.Time `json:"creation_time"`
	Name      string    `json:"name"`
	PublicKey string    `json:"public_key"`
	HybridKey string    `json:"hybrid_public_key,omitempty"`
}

func (e *Engine) readKey(ctx context.Context, _ *route.Request, in readIn) (keyOut, error) {
	return e.show(ctx, in.Name, in.Context)
}

// show is a key as it is shown; one that is not there is errs.Gone.
func (e *Engine) show(ctx context.Context, name, ctx64 string) (out keyOut, err error) {
	var about []byte
	if ctx64 != "" {
		if about, err = base64.StdEncoding.DecodeString(ctx64); err != nil {
			return out, errs.New(errs.Invalid, "failed to base64-decode context: %v", err)
		}
	}
	err = e.env.Store.View(ctx, func(v storage.View) error {
		k, err := getKey(v, name)
		if err != nil {
			return err
		}
		if k == nil {
			return errs.Gone
		}
		out = k.show()
		if k.Spec.Type == primitive.HMAC {
			return nil
		}
		out.Keys, err = k.showVersions(v, about)
		return err
	})
	return out, err
}

func (k *keyRow) show() keyOut {
	able := k.Spec.Type.Abilities()
	out := keyOut{
		PlaintextBackup: k.PlaintextBackup, RotatePeriod: k.RotatePeriod, BackedUp: k.BackedUp, Restored: k.Restored,
		DeletionAllowed: k.DeletionAllowed, Derived: k.Derived, Exportable: k.Exportable, Imported: k.Imported,
		Latest: k.Latest, MinAvailable: k.MinAvailable, MinDecryption: k.MinDecryption, MinEncryption: k.MinEncryption,
		Name: k.Name, SoftDeleted: k.SoftDeleted, Type: k.Spec.Type, KeySize: k.Spec.Size,
		ParameterSet: k.Spec.ParameterSet, HybridEC: k.Spec.HybridEC, HybridPQC: k.Spec.HybridPQC,
		Decrypts: able.Decrypt, Derives: able.Derive, Encrypts: able.Encrypt, Signs: able.Sign,
	}
	if k.Imported {
		out.AllowRotation = wire.Some(k.AllowRotation)
	}
	if k.Derived {
		out.KDF, out.Convergent = "hkdf_sha256", wire.Some(k.Convergent)
		if k.Convergent {
			out.ConvergentVersion = wire.Some(-1) // each version of the key says its own, as Vault has it
		}
	}
	return out
}

// showVersions is the versions that can be used, by number.
func (k *keyRow) showVersions(v storage.View, context []byte) (wire.Object, error) {
	b := []byte{'{'}
	var bad error
	symmetric := k.Spec.Type.Abilities().Symmetric
	err := eachVersion(v, k.ID, max(k.MinDecryption, 1), k.Latest, func(n int, row *versionRow) bool {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), strconv.Itoa(n)...), `":`...)
		if symmetric {
			b = strconv.AppendInt(b, row.Created.Unix(), 10)
			return true
		}
		out, err := k.showPublic(row, context)
		if err != nil {
			bad = err
			return false
		}
		b = wire.Append(b, out)
		return true
	})
	if err == nil {
		err = bad
	}
	return append(b, '}'), err
}

// curveNames are what the versions of a key call themselves.
var curveNames = map[primitive.Type]string{
	primitive.ECDSAP256: "P-256", primitive.ECDSAP384: "P-384", primitive.ECDSAP521: "P-521",
}

func (k *keyRow) showPublic(row *versionRow, context []byte) (publicOut, error) {
	out := publicOut{Created: row.Created, Name: string(k.Spec.Type), Chain: pemChain(row.Chain)}
	if n := curveNames[k.Spec.Type]; n != "" {
		out.Name = n
	}
	if k.Spec.ParameterSet != "" {
		out.Name += "-" + strings.TrimPrefix(k.Spec.ParameterSet, string(primitive.SLHDSA)+"-")
	}
	m := primitive.Material{Secret: row.Secret, Public: row.Public}
	if k.Derived {
		if context == nil || len(row.Secret) == 0 {
			return out, nil // of the public half alone, which may be imported, nothing is derived
		}
		secret, err := primitive.Ed25519Private(m)
		if err != nil {
			return out, err
		}
		if m, err = primitive.Derive(k.Spec.Type, secret, context); err != nil {
			return out, err
		}
	}
	var err error
	out.PublicKey, out.HybridKey, err = primitive.PublicText(k.Spec, m)
	return out, err
}

func pemChain(chain [][]byte) string {
	var b strings.Builder
	for _, der := range chain {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return b.String()
}

type configIn struct {
	nameIn
	MinDecryption   wire.Opt[int]      `json:"min_decryption_version" doc:"The oldest version that decrypts and verifies."`
	MinEncryption   wire.Opt[int]      `json:"min_encryption_version" doc:"The oldest version that encrypts and signs; 0: only the newest."`
	DeletionAllowed wire.Opt[bool]     `json:"deletion_allowed" doc:"Whether the key may be deleted."`
	Exportable      wire.Opt[bool]     `json:"exportable" doc:"Whether the key may be exported. It cannot be taken back."`
	PlaintextBackup wire.Opt[bool]     `json:"allow_plaintext_backup" doc:"Whether the key may be backed up in the clear. It cannot be taken back."`
	RotatePeriod    wire.Opt[wire.TTL] `json:"auto_rotate_period" doc:"After how long the key rotates by itself, an hour or more; 0: it does not."`
}

func (e *Engine) configKey(ctx context.Context, req *route.Request, in configIn) (keyOut, error) {
	if err := checkRotation(in.RotatePeriod.Value); err != nil {
		return keyOut{}, err
	}
	var warnings []string
	_, err := e.change(ctx, in.Name, func(tx storage.Tx, k *keyRow) (err error) {
		if warnings, err = in.apply(k); err != nil {
			return err
		}
		if p, ok := in.RotatePeriod.Get(); ok && p != k.RotatePeriod {
			k.RotatePeriod = p
			return k.setRotation(tx, e.env.Due, e.env.Now())
		}
		return nil
	})
	if err != nil {
		return keyOut{}, err
	}
	for _, w := range warnings {
		req.Warn("%s", w)
	}
	return e.show(ctx, in.Name, "")
}

// apply changes the settings, or says which of them cannot be.
func (in configIn) apply(k *keyRow) (warnings []string, err error) {
	dec, enc := k.MinDecryption, k.MinEncryption
	if n, ok := in.MinDecryption.Get(); ok {
		switch {
		case n < 0:
			return nil, errs.New(errs.Invalid, "min decryption version cannot be negative")
		case n == 0:
			n = 1
			warnings = append(warnings, "since Vault 0.3, transit key numbering starts at 1; forcing minimum to 1")
		}
		switch {
		case n > k.Latest:
			return nil, errs.New(errs.Invalid, "cannot set min decryption version of %d, latest key version is %d", n, k.Latest)
		case n < k.MinAvailable:
			return nil, errs.New(errs.Invalid, "min decryption version should not be less then min available version")
		}
		dec = n
	}
	if n, ok := in.MinEncryption.Get(); ok {
		switch {
		case n < 0:
			return nil, errs.New(errs.Invalid, "min encryption version cannot be negative")
		case n > k.Latest:
			return nil, errs.New(errs.Invalid, "cannot set min encryption version of %d, latest key version is %d", n, k.Latest)
		case n < k.MinAvailable: // 0 as well, as trimming has it
			return nil, errs.New(errs.Invalid, "min encryption version should not be less than min available version")
		}
		enc = n
	}
	if enc > 0 && enc < dec {
		return nil, errs.New(errs.Invalid, "cannot set min encryption/decryption values; min encryption version of %d must be greater than or equal to min decryption version of %d", enc, dec)
	}
	k.MinDecryption, k.MinEncryption = dec, enc
	in.DeletionAllowed.Apply(&k.DeletionAllowed)
	for _, f := range []struct {
		in   wire.Opt[bool]
		to   *bool
		name string
	}{{in.Exportable, &k.Exportable, "exportable"}, {in.PlaintextBackup, &k.PlaintextBackup, "allow_plaintext_backup"}} {
		if v, ok := f.in.Get(); ok {
			if *f.to && !v {
				warnings = append(warnings, f.name+" cannot be taken back once it was allowed; it stays as it is")
				continue
			}
			*f.to = v
		}
	}
	return warnings, nil
}

func (e *Engine) deleteKey(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	id := ""
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		k, err := getKey(tx, in.Name)
		switch {
		case err != nil:
			return err
		case k == nil:
			return errs.New(errs.Invalid, "could not delete key; not found")
		case !k.DeletionAllowed:
			return errs.New(errs.Invalid, "deletion is not allowed for this key; allow it at keys/%s/config first", in.Name)
		}
		id = k.ID
		return k.remove(tx, e.env.Due, e.env.Now())
	})
	if err != nil {
		return route.None{}, err
	}
	return route.None{}, e.sweepStray(ctx, id)
}

// remove takes a key away. Its versions go after this transaction.
func (k *keyRow) remove(tx storage.Tx, due engine.Due, now time.Time) error {
	k.RotatePeriod = 0
	if err := k.setRotation(tx, due, now); err != nil {
		return err
	}
	if err := tx.Put(rowStray+k.ID, stray(now)); err != nil {
		return err
	}
	return tx.Delete(rowKey + k.Name)
}

type softIn struct {
	nameIn
}

func (e *Engine) softDelete(ctx context.Context, _ *route.Request, in softIn) (route.None, error) {
	_, err := e.change(ctx, in.Name, func(_ storage.Tx, k *keyRow) error {
		k.SoftDeleted = true
		return nil
	})
	return route.None{}, err
}

func (e *Engine) softRestore(ctx context.Context, _ *route.Request, in softIn) (keyOut, error) {
	_, err := e.change(ctx, in.Name, func(_ storage.Tx, k *keyRow) error {
		k.SoftDeleted = false
		return nil
	})
	if err != nil {
		return keyOut{}, err
	}
	return e.show(ctx, in.Name, "")
}
