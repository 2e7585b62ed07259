package transit

import (
	"context"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// This file is the settings of the mount.

type cacheIn struct {
	Size int `json:"size" doc:"How many keys are kept ready; 0: the server's own measure, else 10 or more."`
}

type cacheOut struct {
	Size int `json:"size"`
}

func getCacheRow(r storage.Reader) (*cacheRow, error) {
	row := new(cacheRow)
	b, err := r.Get(rowCache)
	if err != nil || b == nil {
		return row, err
	}
	return row, wire.Unmarshal(b, row)
}

func (e *Engine) readCache(ctx context.Context, _ *route.Request, _ route.None) (out cacheOut, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		row, err := getCacheRow(v)
		out.Size = row.Size
		return err
	})
	return out, err
}

func (e *Engine) writeCache(ctx context.Context, _ *route.Request, in cacheIn) (cacheOut, error) {
	if in.Size != 0 && in.Size < 10 {
		return cacheOut{}, errs.New(errs.Invalid, "size must be 0 or a value greater or equal to 10")
	}
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		return tx.Put(rowCache, wire.Marshal(&cacheRow{V: formatOfRows, Size: in.Size}))
	})
	return cacheOut(in), err
}

// keysRow is the settings of all keys. Version 1.
type keysRow struct {
	V             int  `json:"v"`
	DisableUpsert bool `json:"disable_upsert"`
}

func getKeysRow(r storage.Reader) (*keysRow, error) {
	row := new(keysRow)
	b, err := r.Get(rowKeys)
	if err != nil || b == nil {
		return row, err
	}
	return row, wire.Unmarshal(b, row)
}

func (e *Engine) keysConfig(ctx context.Context) (conf keysConfig, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		row, err := getKeysRow(v)
		conf.DisableUpsert = row.DisableUpsert
		return err
	})
	return conf, err
}

func (e *Engine) readKeysConfig(ctx context.Context, _ *route.Request, _ route.None) (keysConfig, error) {
	return e.keysConfig(ctx)
}

func (e *Engine) writeKeysConfig(ctx context.Context, _ *route.Request, in keysConfigIn) (keysConfig, error) {
	row := new(keysRow)
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) (err error) {
		if row, err = getKeysRow(tx); err != nil {
			return err
		}
		row.V = formatOfRows
		in.DisableUpsert.Apply(&row.DisableUpsert)
		return tx.Put(rowKeys, wire.Marshal(row))
	})
	return keysConfig{row.DisableUpsert}, err
}
