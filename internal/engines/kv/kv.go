// Package kv keeps secrets that somebody wrote, as they were written. Version
// 1 keeps one value per path, version 2 a history of them.
//
// The key idea: a secret is never taken apart. What a client sent is checked
// and stored as JSON text, and read back as that text, so numbers keep their
// digits and a read costs two rows and no decoding of the value. Version 2
// has one metadata row per path, which lists the versions, and one row per
// version; both are found by single keys, so that a write is one transaction.
package kv

import (
	"context"
	"errors"
	"strings"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/storage"
)

// New makes the engine of a mount, by its option "version": "1", which is the
// default, or "2".
func New(ctx context.Context, env engine.Env) (engine.Engine, error) {
	switch v := env.Options["version"]; v {
	case "", "1":
		return &v1{env: env}, nil
	case "2":
		return newV2(ctx, env)
	default:
		return nil, errs.New(errs.Invalid, "kv has no version %q; use 1 or 2", v)
	}
}

// What is stored. Values begin with a byte that tells their format, formatJSON;
// the rest is JSON text.
const (
	rowsV1     = "1/"   // 1/<path>: the value
	rowsMeta   = "2/m/" // 2/m/<path>: keyMeta
	rowsData   = "2/d/" // 2/d/<path>//<version>: the version's data; no path has "//"
	rowConfig  = "2/config"
	rowBegun   = "2/begun" // there once secrets of version 1 are being carried over
	formatJSON = 1
)

// maxPath leaves room for what stands before and behind a path in a key.
const maxPath = 800

var errDamaged = errors.New("kv: a row is in a format that this server does not know")

// checkPath refuses paths that nothing can be written at.
func checkPath(path string) error {
	switch {
	case path == "":
		return errs.New(errs.Invalid, "missing path")
	case len(path) > maxPath:
		return errs.New(errs.Invalid, "the path is longer than %d bytes", maxPath)
	case strings.HasSuffix(path, "/"):
		return errs.New(errs.Invalid, "cannot write to a path ending in '/'")
	}
	return nil
}

// pack makes a row of JSON text, unpack gives the text without copying it.
func pack(json []byte) []byte { return append([]byte{formatJSON}, json...) }

func unpack(row []byte) ([]byte, error) {
	if row[0] != formatJSON {
		return nil, errDamaged
	}
	return row[1:], nil
}

// written names the one error of a write that is the caller's.
func written(err error) error {
	if errors.Is(err, storage.ErrTooLarge) {
		return errs.Wrap(errs.Invalid, err, "the secret is too large: with its metadata it must stay under %d bytes", storage.MaxTxBytes)
	}
	return err
}
