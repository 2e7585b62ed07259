package transit

import (
	"context"
	"errors"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
)

// This file makes versions and takes them away, at a request or in time.

type rotateIn struct {
	nameIn
	ManagedName string `json:"managed_key_name" doc:"Not offered."`
	ManagedID   string `json:"managed_key_id" doc:"Not offered."`
}

func (e *Engine) rotateKey(ctx context.Context, _ *route.Request, in rotateIn) (keyOut, error) {
	if err := e.rotate(ctx, in.Name, time.Time{}); err != nil {
		return keyOut{}, err
	}
	return e.show(ctx, in.Name, "")
}

// errNotDue says that a key's own rotation is not due any more: another node
// did it, or its period was changed.
var errNotDue = errors.New("the key's rotation is not due any more")

// rotate makes a new version. due is when it was to be made, or zero if
// somebody asked for it.
func (e *Engine) rotate(ctx context.Context, name string, due time.Time) error {
	k, err := e.key(ctx, name)
	if err != nil {
		return err
	}
	switch {
	case k == nil && !due.IsZero(), k != nil && !due.IsZero() && !k.RotateAt.Equal(due):
		return errNotDue
	case k == nil:
		return errs.New(errs.Invalid, "key not found")
	}
	// Drawn before the transaction: an RSA key takes its time.
	row, err := e.newVersion(k.Spec)
	if err != nil {
		return err
	}
	_, err = e.change(ctx, name, func(tx storage.Tx, now *keyRow) error {
		switch {
		case now.ID != k.ID:
			return errReplaced
		case now.SoftDeleted:
			return errs.New(errs.Invalid, "the key is soft-deleted; restore it first")
		case now.Imported && !now.AllowRotation:
			return errs.New(errs.Invalid, "imported key %s does not allow rotation within the server; bring the next version along at keys/%s/import_version", name, name)
		case !due.IsZero() && !now.RotateAt.Equal(due):
			return errNotDue
		}
		now.Latest++
		now.Imported = false // from here on its versions are the server's, as Vault has it
		if err := now.setRotation(tx, e.env.Due, e.env.Now()); err != nil {
			return err
		}
		return row.put(tx, now.ID, now.Latest)
	})
	return err
}

type trimIn struct {
	nameIn
	MinAvailable int `json:"min_available_version" doc:"The oldest version that stays. It may not be newer than the oldest that encrypts or decrypts."`
}

func (e *Engine) trimKey(ctx context.Context, _ *route.Request, in trimIn) (keyOut, error) {
	k, err := e.change(ctx, in.Name, func(_ storage.Tx, k *keyRow) error {
		switch n := in.MinAvailable; {
		case n <= 0:
			return errs.New(errs.Invalid, "min_available_version is missing, or less than 1")
		case n < k.MinAvailable:
			return errs.New(errs.Invalid, "minimum available version cannot be decremented")
		case k.MinEncryption == 0:
			return errs.New(errs.Invalid, "minimum available version cannot be set when minimum encryption version is not set")
		case k.MinDecryption == 0:
			return errs.New(errs.Invalid, "minimum available version cannot be set when minimum decryption version is not set")
		case n > k.Latest:
			return errs.New(errs.Invalid, "minimum available version cannot be set to more than the latest version")
		case n > k.MinEncryption:
			return errs.New(errs.Invalid, "minimum available version cannot be greater than minimum encryption version")
		case n > k.MinDecryption:
			return errs.New(errs.Invalid, "minimum available version cannot be greater than minimum decryption version")
		}
		k.MinAvailable = in.MinAvailable
		return nil
	})
	if err != nil {
		return keyOut{}, err
	}
	if err := e.deleteRange(ctx, versionKey(k.ID, 0), versionKey(k.ID, k.MinAvailable)); err != nil {
		return keyOut{}, err
	}
	return e.show(ctx, in.Name, "")
}

// deleteRange deletes rows in pages.
func (e *Engine) deleteRange(ctx context.Context, from, to string) error {
	const page = storage.MaxTxKeys - 4
	for {
		var keys []string
		err := e.env.Store.View(ctx, func(v storage.View) error {
			return storage.ScanEach(v, from, to, 0, func(key string, _ []byte, _ error) bool {
				keys = append(keys, key)
				return len(keys) < page
			})
		})
		if err != nil || len(keys) == 0 {
			return err
		}
		_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
			for _, k := range keys {
				if err := tx.Delete(k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

const timeForm = "20060102T150405Z"

func stray(now time.Time) []byte { return []byte(now.UTC().Format(timeForm)) }

// sweepStray deletes the versions of a key that is no more.
func (e *Engine) sweepStray(ctx context.Context, id string) error {
	prefix := rowVersion + id + "/"
	if err := e.deleteRange(ctx, prefix, storage.PrefixEnd(prefix)); err != nil {
		return err
	}
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(rowStray + id) })
	return err
}

// strayGrace is longer than restoring a key takes, while its versions are
// there and it is not yet.
const strayGrace = time.Hour

// Work rotates a key whose time has come. It implements engine.Worker.
func (e *Engine) Work(ctx context.Context, name string, at time.Time) error {
	err := e.rotate(ctx, name, at)
	switch {
	case errors.Is(err, errNotDue):
		return e.forget(ctx, name, at)
	case errs.Is(err, errs.Invalid): // it cannot be, as for an imported key: not before the next period
		e.env.Log.Error("a key whose time has come cannot be rotated; it is tried again after a period", "key", name, "error", err)
		return e.postpone(ctx, name, at)
	}
	return err
}

// forget cancels a rotation that is not due any more.
func (e *Engine) forget(ctx context.Context, name string, at time.Time) error {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		if k, err := getKey(tx, name); err != nil || k != nil && k.RotateAt.Equal(at) {
			return err
		}
		return e.env.Due.Cancel(tx, name, at)
	})
	return err
}

// postpone moves a rotation that cannot be done now by a period.
func (e *Engine) postpone(ctx context.Context, name string, due time.Time) error {
	_, err := e.change(ctx, name, func(tx storage.Tx, k *keyRow) error {
		if !k.RotateAt.Equal(due) {
			return nil
		}
		return k.setRotation(tx, e.env.Due, e.env.Now())
	})
	return err
}

// Sweep deletes versions of keys that are no more. It implements
// engine.Sweeper.
func (e *Engine) Sweep(ctx context.Context) error {
	var ids []string
	before := string(stray(e.env.Now().Add(-strayGrace)))
	err := e.env.Store.View(ctx, func(v storage.View) error {
		return v.Scan(rowStray, storage.PrefixEnd(rowStray), 0, func(key string, value []byte) bool {
			if string(value) < before {
				ids = append(ids, key[len(rowStray):])
			}
			return true
		})
	})
	for _, id := range ids {
		if err == nil {
			err = e.sweepStray(ctx, id)
		}
	}
	return err
}
