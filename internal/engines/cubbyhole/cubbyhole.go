// Package cubbyhole gives each service token a private place for secrets. It
// is there as long as the token: core calls Drop when one has ended.
//
// Rows are c/<key>/<path>, where key is the keyed hash by which the store
// knows the token. The value is a byte for its format, now 1, and the secret
// as JSON text, as it was written.
package cubbyhole

import (
	"context"
	"errors"
	"strings"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// Engine is the cubbyhole of all tokens of a namespace.
type Engine struct {
	env engine.Env
}

// New makes the engine.
func New(_ context.Context, env engine.Env) (engine.Engine, error) { return &Engine{env}, nil }

const (
	rows       = "c/"
	formatJSON = 1
	maxPath    = 700 // leaves room for the token's key
)

type anyIn struct {
	Data wire.Object `json:"-" body:"all" doc:"The secret: any fields."`
}

// Routes declares the engine's endpoints.
func (e *Engine) Routes(t *route.Table) {
	route.Read(t, "{path...}", e.read, route.Doc("Read a secret of the calling token."))
	route.List(t, "{path...?}", e.list, route.Doc("List the secrets and folders of a folder of the calling token."))
	route.Write(t, "{path...}", e.write, route.Exists(e.exists), route.Doc("Write a secret for the calling token alone, replacing what was there."))
	route.Delete(t, "{path...}", e.delete, route.Doc("Delete a secret of the calling token."))
}

// place is the range of a caller's rows.
func place(c route.Caller) (string, error) {
	if c.Batch || c.Key == "" {
		return "", errs.New(errs.Invalid, "cubbyhole operations are only supported by \"service\" type tokens")
	}
	return rows + c.Key + "/", nil
}

// get reads a row of the caller's; nil if there is none.
func (e *Engine) get(ctx context.Context, req *route.Request) (data wire.Object, err error) {
	mine, err := place(req.Caller)
	if err != nil {
		return nil, err
	}
	err = e.env.Store.View(ctx, func(v storage.View) error {
		row, err := v.Get(mine + req.Param("path"))
		switch {
		case err != nil || row == nil:
			return err
		case row[0] != formatJSON:
			return errors.New("cubbyhole: a row is in a format that this server does not know")
		}
		data = append(data, row[1:]...)
		return nil
	})
	return data, err
}

func (e *Engine) read(ctx context.Context, req *route.Request, _ route.None) (wire.Object, error) {
	data, err := e.get(ctx, req)
	if err == nil && data == nil {
		err = errs.Gone
	}
	return data, err
}

func (e *Engine) exists(ctx context.Context, req *route.Request, _ anyIn) (bool, error) {
	data, err := e.get(ctx, req)
	return data != nil, err
}

func (e *Engine) list(ctx context.Context, req *route.Request, _ route.None) (route.Keys, error) {
	mine, err := place(req.Caller)
	if err != nil {
		return route.Keys{}, err
	}
	names, err := storage.Folder(ctx, e.env.Store, mine+req.Path)
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(names)
}

func (e *Engine) write(ctx context.Context, req *route.Request, in anyIn) (route.None, error) {
	mine, err := place(req.Caller)
	path := req.Param("path")
	switch {
	case err != nil:
		return route.None{}, err
	case in.Data.Len() == 0:
		return route.None{}, errs.New(errs.Invalid, "missing data fields")
	case len(path) > maxPath:
		return route.None{}, errs.New(errs.Invalid, "the path is longer than %d bytes", maxPath)
	case strings.HasSuffix(path, "/"):
		return route.None{}, errs.New(errs.Invalid, "cannot write to a path ending in '/'")
	}
	row := append([]byte{formatJSON}, in.Data...)
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Put(mine+path, row) })
	if errors.Is(err, storage.ErrTooLarge) {
		err = errs.Wrap(errs.Invalid, err, "the secret is too large: it must stay under %d bytes", storage.MaxTxBytes)
	}
	return route.None{}, err
}

func (e *Engine) delete(ctx context.Context, req *route.Request, _ route.None) (route.None, error) {
	mine, err := place(req.Caller)
	if err != nil {
		return route.None{}, err
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(mine + req.Param("path")) })
	return route.None{}, err
}

// Drop removes everything that a token kept. key is its Caller.Key. It goes
// in pages and may be called again after a failure.
func (e *Engine) Drop(ctx context.Context, key string) error {
	const page = 90 // below the store's limit of keys per transaction
	from := rows + key + "/"
	for {
		var keys []string
		err := e.env.Store.View(ctx, func(v storage.View) error {
			return storage.ScanEach(v, from, storage.PrefixEnd(from), 0, func(k string, _ []byte, _ error) bool {
				keys = append(keys, k)
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
