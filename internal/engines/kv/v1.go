package kv

import (
	"context"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// v1 keeps one value per path.
type v1 struct {
	env engine.Env
}

type anyIn struct {
	Data wire.Object `json:"-" body:"all" doc:"The secret: any fields."`
}

func (e *v1) Routes(t *route.Table) {
	route.Read(t, "{path...?}", e.read, route.Doc("Read a secret."))
	route.List(t, "{path...?}", e.list, route.Doc("List the secrets and folders of a folder."))
	route.Write(t, "{path...?}", e.write, route.Exists(e.exists), route.Doc("Write a secret, replacing what was there."))
	route.Delete(t, "{path...?}", e.delete, route.Doc("Delete a secret."))
}

func (e *v1) read(ctx context.Context, req *route.Request, _ route.None) (wire.Object, error) {
	var data wire.Object
	err := e.env.Store.View(ctx, func(v storage.View) error {
		row, err := v.Get(rowsV1 + req.Param("path"))
		if err != nil || row == nil {
			return err
		}
		json, err := unpack(row)
		data = append(data, json...)
		return err
	})
	if err != nil {
		return nil, err
	}
	if data == nil {
		return nil, errs.Gone
	}
	req.SetLeaseDuration(refresh(data, req.Mount.DefaultTTL))
	return data, nil
}

// refresh is when to read again: what the secret itself says under ttl or
// lease, or the mount's default.
func refresh(data wire.Object, def time.Duration) time.Duration {
	for _, name := range []string{"ttl", "lease"} {
		v, ok := data.Get(name)
		if !ok {
			continue
		}
		if text, ok := v.Text(); ok {
			if d, err := wire.ParseTTL(text); err == nil && text != "" {
				return d
			}
		}
		return def
	}
	return def
}

func (e *v1) list(ctx context.Context, req *route.Request, _ route.None) (route.Keys, error) {
	names, err := storage.Folder(ctx, e.env.Store, rowsV1+req.Path)
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(names)
}

func (e *v1) exists(ctx context.Context, req *route.Request, _ anyIn) (there bool, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		row, err := v.Get(rowsV1 + req.Param("path"))
		there = row != nil
		return err
	})
	return there, err
}

func (e *v1) write(ctx context.Context, req *route.Request, in anyIn) (route.None, error) {
	path := req.Param("path")
	if err := checkPath(path); err != nil {
		return route.None{}, err
	}
	if in.Data.Len() == 0 {
		return route.None{}, errs.New(errs.Invalid, "missing data fields")
	}
	row := pack(in.Data)
	return route.None{}, written(e.change(ctx, func(tx storage.Tx) error { return tx.Put(rowsV1+path, row) }))
}

// change writes, unless the mount has become one of version 2 meanwhile: what
// is written or deleted here then would be in nobody's sight.
func (e *v1) change(ctx context.Context, write func(tx storage.Tx) error) error {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		begun, err := tx.Get(rowBegun)
		switch {
		case err != nil:
			return err
		case begun != nil:
			return errUpgrading
		}
		return write(tx)
	})
	return err
}

func (e *v1) delete(ctx context.Context, req *route.Request, _ route.None) (route.None, error) {
	return route.None{}, e.change(ctx, func(tx storage.Tx) error { return tx.Delete(rowsV1 + req.Param("path")) })
}
