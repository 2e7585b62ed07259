package transit

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// This file hands keys out: for use elsewhere, and as backups.

type exportIn struct {
	nameIn
	Type    string `json:"type" doc:"What to export: encryption-key, signing-key, hmac-key, cmac-key, public-key or certificate-chain."`
	Version string `json:"version" doc:"Version to export, or latest; nothing: all that decrypt or verify."`
	Format  string `json:"format" doc:"Form of the keys: raw (base64 of symmetric and ed25519 keys), der (base64 of PKCS #8, or PKIX of public keys) or pem (the same in PEM); nothing: that of the type."`
}

type exportOut struct {
	Keys map[string]string `json:"keys"`
	Name string            `json:"name"`
	Type primitive.Type    `json:"type"`
}

func (e *Engine) export(ctx context.Context, _ *route.Request, in exportIn) (exportOut, error) {
	switch in.Type {
	case "encryption-key", "signing-key", "hmac-key", "cmac-key", "public-key", "certificate-chain":
	default:
		return exportOut{}, errs.New(errs.Invalid, "invalid export type: %s", in.Type)
	}
	form, ok := primitive.FormNamed(in.Format)
	if !ok {
		return exportOut{}, errs.New(errs.Invalid, "invalid format: %s; use raw, der or pem, or leave it out", in.Format)
	}
	k, err := e.key(ctx, in.Name)
	if err != nil {
		return exportOut{}, err
	}
	if k == nil {
		return exportOut{}, errs.Gone
	}
	open := in.Type == "public-key" || in.Type == "certificate-chain" // nothing secret about it
	if !k.Exportable && !open {
		return exportOut{}, errs.New(errs.Invalid, "private key material is not exportable")
	}
	if k.SoftDeleted {
		return exportOut{}, errSoftDeleted(in.Name)
	}
	t := k.Spec.Type
	able := t.Abilities()
	wrong := errs.New(errs.Invalid, "unknown key type %s for export type %s", t, in.Type)
	switch in.Type {
	case "encryption-key":
		if !able.Encrypt && !able.Decrypt {
			return exportOut{}, wrong
		}
	case "signing-key":
		if !able.Sign {
			return exportOut{}, wrong
		}
	case "hmac-key":
		if able.MAC && t != primitive.HMAC {
			return exportOut{}, wrong
		}
	case "cmac-key":
		if !able.MAC || t == primitive.HMAC {
			return exportOut{}, wrong
		}
	default:
		if able.Symmetric {
			return exportOut{}, wrong
		}
	}
	return e.exportVersions(ctx, k, in.Version, func(row *versionRow) (string, error) {
		m := primitive.Material{Secret: row.Secret, Public: row.Public}
		switch in.Type {
		case "hmac-key":
			if form != primitive.OwnForm && form != primitive.RawForm {
				return "", errs.New(errs.Invalid, "an HMAC key has no format %s; use raw, or leave it out", in.Format)
			}
			if t == primitive.HMAC {
				return base64.StdEncoding.EncodeToString(row.Secret), nil
			}
			return base64.StdEncoding.EncodeToString(row.MAC), nil
		case "public-key":
			if k.Derived {
				return "", errs.New(errs.Invalid, "a derived key has a public key for each context; read it at keys/%s?context=", in.Name)
			}
			text, err := primitive.PublicIn(form, k.Spec, m)
			return text, asCallers(err)
		case "certificate-chain":
			if len(row.Chain) == 0 {
				return "", errs.New(errs.Invalid, "selected key version does not have a certificate chain set")
			}
			return pemChain(row.Chain), nil
		}
		text, err := primitive.SecretIn(form, k.Spec, m)
		return text, asCallers(err)
	})
}

// exportVersions gives a text of each version that was asked for: "" is all
// that decrypt or verify.
func (e *Engine) exportVersions(ctx context.Context, k *readyKey, version string, text func(*versionRow) (string, error)) (exportOut, error) {
	out := exportOut{Keys: map[string]string{}, Name: k.Name, Type: k.Spec.Type}
	from, to := max(k.MinDecryption, 1), k.Latest
	switch version {
	case "":
	case "latest":
		from = k.Latest
	default:
		n, err := strconv.Atoi(strings.TrimPrefix(version, "v"))
		if err != nil {
			return out, errs.New(errs.Invalid, "invalid key version %q: it is a number, or latest", version)
		}
		if n < from {
			return out, errs.New(errs.Invalid, "version for export is below minimum decryption version")
		}
		from, to = n, n
	}
	var bad error
	err := e.env.Store.View(ctx, func(v storage.View) error {
		return eachVersion(v, k.ID, from, to, func(n int, row *versionRow) bool {
			var s string
			if s, bad = text(row); bad != nil {
				return false
			}
			out.Keys[strconv.Itoa(n)] = s
			return true
		})
	})
	if err == nil {
		err = bad
	}
	if err == nil && len(out.Keys) == 0 {
		err = errs.New(errs.Invalid, "version does not exist or cannot be found")
	}
	return out, err
}

// backupBlob is a key and all its versions, as a backup has them. Version 1.
type backupBlob struct {
	V        int             `json:"leasehold_transit_backup"`
	Key      keyRow          `json:"key"`
	Versions []backupVersion `json:"versions"`
}

type backupVersion struct {
	Number int        `json:"number"`
	Row    versionRow `json:"row"`
}

type backupOut struct {
	Backup string `json:"backup"`
}

func (e *Engine) backup(ctx context.Context, _ *route.Request, in nameIn) (backupOut, error) {
	k, err := e.change(ctx, in.Name, func(_ storage.Tx, k *keyRow) error {
		switch {
		case !k.Exportable:
			return errs.New(errs.Invalid, "exporting is disallowed on the policy of key %s", in.Name)
		case !k.PlaintextBackup:
			return errs.New(errs.Invalid, "plaintext backup is disallowed on the policy")
		}
		k.BackedUp = &moment{Time: e.env.Now().Round(0), Version: k.Latest}
		return nil
	})
	if err != nil {
		return backupOut{}, err
	}
	blob := backupBlob{V: formatOfRows, Key: *k}
	err = e.env.Store.View(ctx, func(v storage.View) error {
		switch now, err := getKey(v, in.Name); {
		case err != nil:
			return err
		case now == nil || now.ID != k.ID: // its versions may be going already
			return errReplaced
		}
		return eachVersion(v, k.ID, 1, k.Latest, func(n int, row *versionRow) bool {
			blob.Versions = append(blob.Versions, backupVersion{n, *row})
			return true
		})
	})
	if err != nil {
		return backupOut{}, err
	}
	return backupOut{base64.StdEncoding.EncodeToString(wire.Marshal(&blob))}, nil
}

type restoreIn struct {
	nameIn
	Backup string `json:"backup" doc:"What backing up gave, here or at a Vault or OpenBao."`
	Force  bool   `json:"force" doc:"Whether a key that is there is replaced."`
}

func (e *Engine) restore(ctx context.Context, _ *route.Request, in restoreIn) (route.None, error) {
	if in.Backup == "" {
		return route.None{}, errs.New(errs.Invalid, "'backup' must be supplied")
	}
	blob, err := parseBackup(in.Backup)
	if err != nil {
		return route.None{}, err
	}
	k := blob.Key
	if in.Name != "" {
		k.Name = in.Name
	}
	if err := checkName(k.Name); err != nil {
		return route.None{}, err
	}
	there, err := e.key(ctx, k.Name)
	if err != nil {
		return route.None{}, err
	}
	if there != nil && !in.Force {
		return route.None{}, errThere(k.Name)
	}
	now := e.env.Now().Round(0)
	k.V, k.ID, k.RotateAt = formatOfRows, newID(), time.Time{}
	k.Restored = &moment{Time: now, Version: k.Latest}
	if err := e.putVersions(ctx, k.ID, blob.Versions); err != nil {
		return route.None{}, err
	}
	replaced := ""
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		replaced = ""
		old, err := getKey(tx, k.Name)
		if err != nil {
			return err
		}
		if old != nil {
			if !in.Force {
				return errThere(k.Name)
			}
			replaced = old.ID
			if err := old.remove(tx, e.env.Due, now); err != nil {
				return err
			}
		}
		row := k // the function may run again
		if err := row.setRotation(tx, e.env.Due, now); err != nil {
			return err
		}
		if err := tx.Delete(rowStray + k.ID); err != nil {
			return err
		}
		return row.put(tx)
	})
	if err == nil && replaced != "" {
		err = e.sweepStray(ctx, replaced)
	}
	return route.None{}, err
}

func errThere(name string) error {
	return errs.New(errs.Invalid, "key %q already exists; restore with force to replace it, or under another name", name)
}

// parseBackup reads a backup and checks that the server could use it.
func parseBackup(text string) (*backupBlob, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errs.New(errs.Invalid, "the backup is no base64: %v", err)
	}
	blob := new(backupBlob)
	if err := wire.Unmarshal(b, blob); err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "the backup cannot be read: it is none, or damaged")
	}
	switch blob.V {
	case formatOfRows:
	case 0: // none of ours
		if blob, err = parseForeign(b); err != nil {
			return nil, errs.New(errs.Invalid, "the backup is none of Leasehold's, and as one of Vault's it cannot be restored: %v", err)
		}
	default:
		return nil, errs.New(errs.Invalid, "the backup has a format that this server does not know")
	}
	k := &blob.Key
	if err := k.Spec.Check(); err != nil {
		return nil, errs.New(errs.Invalid, "the backup: %v", err)
	}
	able := k.Spec.Type.Abilities()
	if k.Derived && !able.Derive || k.Convergent && !(k.Derived && able.Encrypt) {
		return nil, errs.New(errs.Invalid, "the backup: keys of type %s are not derived like this one", k.Spec.Type)
	}
	if err := checkRotation(k.RotatePeriod); err != nil {
		return nil, err
	}
	if k.Latest < 1 || k.MinDecryption < 0 || k.MinDecryption > k.Latest || k.MinEncryption < 0 || k.MinEncryption > k.Latest ||
		k.MinAvailable < 0 || k.MinAvailable > k.Latest {
		return nil, errs.New(errs.Invalid, "the backup's versions contradict each other")
	}
	last := 0
	for i := range blob.Versions {
		v := &blob.Versions[i]
		if v.Number <= last || v.Number > k.Latest {
			return nil, errs.New(errs.Invalid, "the backup's versions are not in order")
		}
		last = v.Number
		if _, err := primitive.Load(k.Spec, primitive.Material{Secret: v.Row.Secret, Public: v.Row.Public}); err != nil {
			return nil, errs.Wrap(errs.Invalid, err, "version %d of the backup is no key of type %s", v.Number, k.Spec.Type)
		}
		for _, der := range v.Row.Chain {
			if _, err := x509.ParseCertificate(der); err != nil {
				return nil, errs.New(errs.Invalid, "a certificate of version %d of the backup cannot be read", v.Number)
			}
		}
	}
	if last != k.Latest {
		return nil, errs.New(errs.Invalid, "the backup lacks the latest version")
	}
	return blob, nil
}

// putVersions writes the versions of a key that is to be, and first a note of
// them: should the key not come to be, they are swept.
func (e *Engine) putVersions(ctx context.Context, id string, all []backupVersion) error {
	const page = 50
	note := true
	for len(all) > 0 || note {
		n := min(page, len(all))
		_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
			if note {
				if err := tx.Put(rowStray+id, stray(e.env.Now())); err != nil {
					return err
				}
			}
			for i := range all[:n] {
				row := all[i].Row
				row.V = formatOfRows
				if err := row.put(tx, id, all[i].Number); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		all, note = all[n:], false
	}
	return nil
}
