package transit

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// What is stored, in the mount's own slice. A key's versions are found by its
// id, which is drawn anew when a key of the same name is made: what a deleted
// key leaves is never taken for another's.
//
//	key/<name>               keyRow
//	ver/<id>/<version>       versionRow; the version is 8 hexadecimal digits
//	stray/<id>               when versions may be there that no key has: of a
//	                         key that is being deleted or restored
//	config/keys              keysRow
//	config/cache             cacheRow
//	wrapping                 wrappingRow
//
// When a key rotates by itself is planned (engine.Due) under its name.
const (
	rowKey       = "key/"
	rowVersion   = "ver/"
	rowStray     = "stray/"
	rowKeys      = "config/keys"
	rowCache     = "config/cache"
	rowWrapping  = "wrapping"
	formatOfRows = 1
)

// keyRow is a key without its versions. Version 1.
type keyRow struct {
	V               int            `json:"v"`
	ID              string         `json:"id"`
	Name            string         `json:"name"`
	Spec            primitive.Spec `json:"spec"`
	Latest          int            `json:"latest"`
	MinDecryption   int            `json:"min_dec"`
	MinEncryption   int            `json:"min_enc"`   // 0: the latest
	MinAvailable    int            `json:"min_avail"` // 0: never trimmed
	Derived         bool           `json:"derived"`
	Convergent      bool           `json:"convergent"`
	Exportable      bool           `json:"exportable"`
	PlaintextBackup bool           `json:"backup"`
	DeletionAllowed bool           `json:"deletion"`
	Imported        bool           `json:"imported"`
	AllowRotation   bool           `json:"rotation"` // of an imported key
	SoftDeleted     bool           `json:"soft_deleted"`
	RotatePeriod    wire.TTL       `json:"rotate_period"` // 0: not by itself
	RotateAt        time.Time      `json:"rotate_at"`
	BackedUp        *moment        `json:"backed_up"`
	Restored        *moment        `json:"restored"`
}

// moment is when something was done to which version.
type moment struct {
	Time    time.Time `json:"time"`
	Version int       `json:"version"`
}

// versionRow is one version of a key. Version 1. Secret and MAC are key
// material; the barrier encrypts the row.
type versionRow struct {
	V       int       `json:"v"`
	Created time.Time `json:"created"`
	Secret  []byte    `json:"secret"` // empty: the public half alone was imported
	Public  []byte    `json:"public"` // empty: symmetric
	MAC     []byte    `json:"mac"`    // the key of hmac/…; empty for keys that are MAC keys themselves
	Chain   [][]byte  `json:"chain"`  // certificates (DER), the leaf first
}

func versionKey(id string, n int) string { return fmt.Sprintf("%s%s/%08x", rowVersion, id, n) }

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// setRotation moves the time at which the key rotates by itself, to a period
// from now.
func (k *keyRow) setRotation(tx storage.Tx, due engine.Due, now time.Time) (err error) {
	if !k.RotateAt.IsZero() {
		if err = due.Cancel(tx, k.Name, k.RotateAt); err != nil {
			return err
		}
	}
	k.RotateAt = time.Time{}
	if k.RotatePeriod == 0 {
		return nil
	}
	k.RotateAt, err = due.Plan(tx, k.Name, now.Add(k.RotatePeriod.Duration()).Round(0).Truncate(time.Second), now)
	return err
}

func (k *keyRow) put(tx storage.Tx) error { return tx.Put(rowKey+k.Name, wire.Marshal(k)) }

func (v *versionRow) put(tx storage.Tx, id string, n int) error {
	return tx.Put(versionKey(id, n), wire.Marshal(v))
}

// getKey reads a key's row; nil when there is none.
func getKey(r storage.Reader, name string) (*keyRow, error) {
	b, err := r.Get(rowKey + name)
	if err != nil || b == nil {
		return nil, err
	}
	k := new(keyRow)
	if err := wire.Unmarshal(b, k); err != nil {
		return nil, fmt.Errorf("the key's row: %w", err)
	}
	if k.V != formatOfRows {
		return nil, fmt.Errorf("the key's row has version %d, which this server does not know", k.V)
	}
	return k, nil
}

func getVersion(r storage.Reader, id string, n int) (*versionRow, error) {
	b, err := r.Get(versionKey(id, n))
	if err != nil || b == nil {
		return nil, err
	}
	return decodeVersion(b)
}

func decodeVersion(b []byte) (*versionRow, error) {
	v := new(versionRow)
	if err := wire.Unmarshal(b, v); err != nil {
		return nil, fmt.Errorf("a version's row: %w", err)
	}
	if v.V != formatOfRows {
		return nil, fmt.Errorf("a version's row has format %d, which this server does not know", v.V)
	}
	return v, nil
}

// eachVersion gives the rows of versions from one on, in order.
func eachVersion(v storage.View, id string, from, to int, fn func(n int, row *versionRow) bool) error {
	var bad error
	err := v.Scan(versionKey(id, from), versionKey(id, to)+"\x00", 0, func(key string, value []byte) bool {
		n, err := strconv.ParseInt(key[len(key)-8:], 16, 64)
		if err != nil {
			bad = err
			return false
		}
		row, err := decodeVersion(value)
		if err != nil {
			bad = err
			return false
		}
		return fn(int(n), row)
	})
	return errors.Join(err, bad)
}

// newVersion draws the material of a version.
func (e *Engine) newVersion(s primitive.Spec) (*versionRow, error) {
	m, err := primitive.Generate(s)
	if err != nil {
		return nil, err
	}
	return e.versionOf(s, m), nil
}

func (e *Engine) versionOf(s primitive.Spec, m primitive.Material) *versionRow {
	row := &versionRow{V: formatOfRows, Created: e.env.Now().Round(0), Secret: m.Secret, Public: m.Public}
	if !s.Type.Abilities().MAC {
		row.MAC = make([]byte, 32)
		rand.Read(row.MAC)
	}
	return row
}

// change changes a key's row by what fn does to it.
func (e *Engine) change(ctx context.Context, name string, fn func(tx storage.Tx, k *keyRow) error) (*keyRow, error) {
	var k *keyRow
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) (err error) {
		if k, err = getKey(tx, name); err != nil {
			return err
		}
		if k == nil {
			return errs.New(errs.Invalid, "no existing key named %s could be found", name)
		}
		if err := fn(tx, k); err != nil {
			return err
		}
		return k.put(tx)
	})
	return k, err
}
