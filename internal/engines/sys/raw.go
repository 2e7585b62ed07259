package sys

import (
	"context"
	"encoding/base64"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
)

// Raw rows are for repairs: they are read and written as they are stored,
// decrypted, past every check. The configuration must allow it.
func (e *Engine) rawRoutes(t *route.Table) {
	sudo := route.Sudo()
	route.List(t, "raw", e.listRaw, sudo, route.Doc("List the rows of the store."))
	route.List(t, "raw/{path...}", e.listRaw, sudo, route.Doc("List the rows of the store below a key."))
	route.Read(t, "raw/{path...}", e.readRaw, sudo, route.Doc("Read a row."))
	route.Write(t, "raw/{path...}", e.writeRaw, sudo, route.Doc("Write a row."))
	route.Delete(t, "raw/{path...}", e.deleteRaw, sudo, route.Doc("Delete a row."))
}

func (e *Engine) raw() (storage.Backend, error) {
	if e.cfg.Raw == nil {
		return nil, errs.New(errs.NotFound, "unsupported path: raw rows need raw_storage_endpoint = true in the configuration")
	}
	return e.cfg.Raw()
}

type rawIn struct {
	Path     string `json:"path" doc:"Key of the row."`
	Encoding string `json:"encoding" doc:"base64, or nothing for text."`
}

type rawOut struct {
	Value secret.String `json:"value"`
}

func (e *Engine) listRaw(ctx context.Context, _ *route.Request, in rawIn) (route.Keys, error) {
	store, err := e.raw()
	if err != nil {
		return route.Keys{}, err
	}
	prefix := strings.TrimSuffix(in.Path, "/")
	if prefix != "" {
		prefix += "/"
	}
	var keys []string
	err = store.View(ctx, func(v storage.View) (err error) {
		keys, err = rawFolder(v, prefix)
		return err
	})
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(keys)
}

// rawFolder lists what stands directly below a prefix, with a seek for each
// folder: one may hold millions of rows. A row that cannot be read is listed
// too: it is what one looks for here.
func rawFolder(v storage.View, prefix string) (keys []string, err error) {
	for from := prefix; ; {
		next := ""
		err := storage.ScanEach(v, from, storage.PrefixEnd(prefix), 0, func(key string, _ []byte, _ error) bool {
			name, _, folder := strings.Cut(key[len(prefix):], "/")
			if folder {
				keys = append(keys, name+"/")
				next = storage.PrefixEnd(prefix + name + "/")
				return false
			}
			keys = append(keys, name)
			return true
		})
		if err != nil || next == "" {
			return keys, err
		}
		from = next
	}
}

func (e *Engine) readRaw(ctx context.Context, _ *route.Request, in rawIn) (rawOut, error) {
	store, err := e.raw()
	if err != nil {
		return rawOut{}, err
	}
	var out rawOut
	err = store.View(ctx, func(v storage.View) error {
		b, err := v.Get(in.Path)
		switch {
		case err != nil:
			return err
		case b == nil:
			return errs.Gone
		case in.Encoding == "base64":
			out.Value = secret.New(base64.StdEncoding.EncodeToString(b))
		default:
			out.Value = secret.New(string(b))
		}
		return nil
	})
	return out, err
}

type rawWriteIn struct {
	rawIn
	Value secret.String `json:"value" doc:"The row's value."`
}

func (e *Engine) writeRaw(ctx context.Context, _ *route.Request, in rawWriteIn) (route.None, error) {
	store, err := e.raw()
	if err != nil {
		return route.None{}, err
	}
	value := []byte(in.Value.Reveal())
	if in.Encoding == "base64" {
		if value, err = base64.StdEncoding.DecodeString(in.Value.Reveal()); err != nil {
			return route.None{}, errs.New(errs.Invalid, "value is not base64")
		}
	}
	_, err = store.Update(ctx, func(tx storage.Tx) error { return tx.Put(in.Path, value) })
	return route.None{}, err
}

func (e *Engine) deleteRaw(ctx context.Context, _ *route.Request, in rawIn) (route.None, error) {
	store, err := e.raw()
	if err != nil {
		return route.None{}, err
	}
	_, err = store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(in.Path) })
	return route.None{}, err
}
