package kv

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// v2 keeps versions.
type v2 struct {
	env engine.Env

	// upgrading is set while secrets of version 1 are carried over.
	upgrading atomic.Bool
	upgrades  sync.WaitGroup
	stop      context.CancelFunc // of the upgrade; nil without one
}

func (e *v2) Routes(t *route.Table) {
	route.Read(t, "config", e.readConfig, route.Doc("Read the mount's settings for all of its secrets."))
	route.Write(t, "config", e.writeConfig, route.Doc("Change the mount's settings for all of its secrets."))

	route.Read(t, "data/{path...}", guard(e, e.readData), route.Doc("Read a version of a secret, the newest if none is named."))
	route.Write(t, "data/{path...}", guard(e, e.writeData), route.Exists(e.exists), route.Doc("Write a new version of a secret."))
	route.Patch(t, "data/{path...}", guard(e, e.patchData), route.Doc("Write a new version that is the newest one, changed by a JSON merge patch."))
	route.Delete(t, "data/{path...}", guard(e, e.deleteNewest), route.Doc("Delete the newest version. It can be undeleted."))
	route.Read(t, "subkeys/{path...}", guard(e, e.readSubkeys), route.Doc("Read the structure of a version without its values."))

	route.Write(t, "delete/{path...}", guard(e, e.deleteVersions), route.Doc("Delete versions. They can be undeleted."))
	route.Write(t, "undelete/{path...}", guard(e, e.undeleteVersions), route.Doc("Bring deleted versions back."))
	route.Write(t, "destroy/{path...}", guard(e, e.destroyVersions), route.Doc("Remove the data of versions for good."))

	route.Read(t, "metadata/{path...}", guard(e, e.readMetadata), route.Doc("Read a secret's settings and versions."))
	route.List(t, "metadata/{path...?}", guard(e, e.list), route.Doc("List the secrets and folders of a folder."))
	route.Write(t, "metadata/{path...}", guard(e, e.writeMetadata), route.Exists(e.metadataExists), route.Doc("Change a secret's settings."))
	route.Patch(t, "metadata/{path...}", guard(e, e.patchMetadata), route.Doc("Change some of a secret's settings."))
	route.Delete(t, "metadata/{path...}", guard(e, e.deleteMetadata), route.Doc("Remove a secret with all of its versions for good."))

	route.Read(t, "{path...?}", misplaced("get"), route.Hidden())
	route.List(t, "{path...?}", misplaced("list"), route.Hidden())
	route.Write(t, "{path...?}", misplaced("put"), route.Hidden())
	route.Patch(t, "{path...?}", misplaced("patch"), route.Hidden())
	route.Delete(t, "{path...?}", misplaced("delete"), route.Hidden())
}

// guard refuses requests while secrets of version 1 are being carried over.
func guard[In, Out any](e *v2, h route.Handler[In, Out]) route.Handler[In, Out] {
	return func(ctx context.Context, req *route.Request, in In) (Out, error) {
		if e.upgrading.Load() {
			var none Out
			return none, errUpgrading
		}
		return h(ctx, req, in)
	}
}

// own are the paths of version 2 that have others below them.
var own = []string{"data", "metadata", "delete", "undelete", "destroy", "subkeys"}

// misplaced answers requests that were meant for version 1, as clients that
// know both versions expect it. One with a path of version 2 was not: it asks
// for what that path cannot do.
func misplaced(verb string) route.Handler[anyIn, route.None] {
	return func(_ context.Context, req *route.Request, _ anyIn) (route.None, error) {
		first, below, inside := strings.Cut(req.Path, "/")
		switch {
		case below == "" && inside && req.Op == wire.OpRead && (first == "data" || first == "metadata"):
			return route.None{}, errs.Gone
		case inside && slices.Contains(own, first), req.Path == "config":
			return route.None{}, errs.New(errs.Unsupported, "unsupported operation")
		}
		req.Warn("Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use. "+
			"If using the CLI, use 'kv %s' for this operation.", verb)
		return route.None{}, &errs.Error{Kind: errs.NotFound, Data: wire.Value("null")}
	}
}

// versionOut describes a version. In listings it stands under its number.
type versionOut struct {
	Created   wire.Time `json:"created_time"`
	Custom    wire.KV   `json:"custom_metadata" wire:"null"`
	Deletion  wire.Time `json:"deletion_time"`
	Destroyed bool      `json:"destroyed"`
	Version   int64     `json:"version"`
}

func describe(m *keyMeta, v *version) versionOut {
	return versionOut{
		Created: moment(v.Created), Custom: m.Custom, Deletion: moment(v.Deleted), Destroyed: v.Destroyed, Version: v.N,
	}
}

type readIn struct {
	Version int64 `json:"version" doc:"The version to read; 0 is the newest."`
}

type dataOut struct {
	Data     wire.Value `json:"data"`
	Metadata versionOut `json:"metadata"`
}

func (e *v2) readData(ctx context.Context, req *route.Request, in readIn) (dataOut, error) {
	out, err := e.open(ctx, req.Param("path"), in.Version)
	if err == nil && out.Data == nil {
		err = &errs.Error{Kind: errs.NotFound, Data: wire.Of(out)}
	}
	return out, err
}

// open reads a version. Of one that is deleted or destroyed Data is nil; of
// one that is not known the error is errs.Gone.
func (e *v2) open(ctx context.Context, path string, n int64) (dataOut, error) {
	var out dataOut
	err := e.env.Store.View(ctx, func(view storage.View) error {
		m, err := getMeta(view, path)
		if err != nil {
			return err
		}
		if m == nil {
			return errs.Gone
		}
		v := m.find(n)
		if v == nil {
			return errs.Gone
		}
		out.Metadata = describe(m, v)
		if !v.readable(e.env.Now()) {
			return nil
		}
		out.Data, err = getData(view, path, v.N)
		return err
	})
	return out, err
}

// getData reads the data of a version that has them. The text is a copy.
func getData(r storage.Reader, path string, n int64) (wire.Value, error) {
	row, err := r.Get(dataKey(path, n))
	if err != nil {
		return nil, err
	}
	if row == nil {
		return nil, errDamaged
	}
	json, err := unpack(row)
	return append(wire.Value(nil), json...), err
}

type writeIn struct {
	Data    wire.Opt[wire.Object] `json:"data" doc:"The secret: any fields."`
	Options struct {
		CAS wire.Opt[int64] `json:"cas" doc:"The version that must be the newest one; 0: there must be none."`
	} `json:"options" doc:"Options of the write: cas."`
	Version int64 `json:"version" doc:"Ignored; clients send it."`
}

func (e *v2) exists(ctx context.Context, req *route.Request, _ writeIn) (bool, error) {
	return e.known(ctx, req.Param("path"))
}

func (e *v2) known(ctx context.Context, path string) (there bool, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		row, err := v.Get(metaKey(path))
		there = row != nil
		return err
	})
	return there, err
}

func (e *v2) writeData(ctx context.Context, req *route.Request, in writeIn) (versionOut, error) {
	if !in.Data.Set {
		return versionOut{}, errs.New(errs.Invalid, "no data provided")
	}
	data := []byte("null")
	if in.Data.Value != nil {
		data = in.Data.Value
	}
	return e.add(ctx, req.Param("path"), in, false, func(storage.Tx, *keyMeta) ([]byte, error) { return data, nil })
}

// errAbsent is why a patch has nothing to change.
var errAbsent = errs.New(errs.NotFound, "")

func (e *v2) patchData(ctx context.Context, req *route.Request, in writeIn) (versionOut, error) {
	if in.Data.Value == nil {
		return versionOut{}, errs.New(errs.Invalid, "no data provided")
	}
	path := req.Param("path")
	out, err := e.add(ctx, path, in, true, func(tx storage.Tx, m *keyMeta) ([]byte, error) {
		v := m.find(0)
		switch {
		case v == nil:
			return nil, errAbsent
		case !v.readable(e.env.Now()):
			return nil, &errs.Error{Kind: errs.NotFound, Data: wire.Of(describe(m, v))}
		}
		old, err := getData(tx, path, v.N)
		return wire.Object(old).Merge(in.Data.Value), err
	})
	if errors.Is(err, errAbsent) {
		// Without a body: that is how clients tell it from a deleted one.
		req.AnswerRaw(&route.Raw{Status: http.StatusNotFound})
		return versionOut{}, nil
	}
	return out, err
}

// add writes a new version, whose data are what content gives. With known
// there must be metadata already, or the error is errAbsent, whatever version
// the caller takes for the newest.
func (e *v2) add(ctx context.Context, path string, in writeIn, known bool, content func(storage.Tx, *keyMeta) ([]byte, error)) (versionOut, error) {
	if err := checkPath(path); err != nil {
		return versionOut{}, err
	}
	var out versionOut
	surplus := 0
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		now := e.env.Now()
		c, err := getConfig(tx)
		if err != nil {
			return err
		}
		m, err := getMeta(tx, path)
		if err != nil {
			return err
		}
		if m == nil && known {
			return errAbsent
		}
		if m == nil {
			m = &keyMeta{Created: now.UnixNano()}
		}
		if err := checkCAS(in.Options.CAS, c.CASRequired || m.CASRequired, m.Current); err != nil {
			return err
		}
		data, err := content(tx, m)
		if err != nil {
			return err
		}
		m.Current++
		m.Updated = now.UnixNano()
		m.Versions = append(m.Versions, version{N: m.Current, Created: m.Updated, Deleted: m.deletion(c, now)})
		out = describe(m, &m.Versions[len(m.Versions)-1])
		surplus = m.surplus(c)
		n := min(surplus, stepKeys)
		if err := m.drop(tx, path, n); err != nil {
			return err
		}
		surplus -= n
		if err := tx.Put(dataKey(path, m.Current), pack(data)); err != nil {
			return err
		}
		return m.put(tx, path)
	})
	if err != nil {
		return versionOut{}, written(err)
	}
	if surplus > 0 { // the limit was lowered
		err = e.trim(ctx, path)
	}
	return out, err
}

func checkCAS(cas wire.Opt[int64], required bool, current int64) error {
	switch {
	case !cas.Set && required:
		return errs.New(errs.Invalid, "check-and-set parameter required for this call")
	case cas.Set && cas.Value != current:
		return errs.New(errs.Invalid, "check-and-set parameter did not match the current version")
	}
	return nil
}

// stepKeys is how many rows one transaction deletes, below the store's limit.
const stepKeys = 80

// trim drops surplus versions step by step. What a crash leaves is dropped by
// the next write.
func (e *v2) trim(ctx context.Context, path string) error {
	for more := true; more; {
		_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
			more = false
			c, err := getConfig(tx)
			if err != nil {
				return err
			}
			m, err := getMeta(tx, path)
			if err != nil || m == nil {
				return err
			}
			n := m.surplus(c)
			if n == 0 {
				return nil
			}
			more = n > stepKeys
			if err := m.drop(tx, path, min(n, stepKeys)); err != nil {
				return err
			}
			return m.put(tx, path)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

type subkeysIn struct {
	Version int64 `json:"version" doc:"The version to read; 0 is the newest."`
	Depth   int   `json:"depth" doc:"How deep to go; 0 is all the way."`
}

type subkeysOut struct {
	Metadata versionOut `json:"metadata"`
	Subkeys  wire.Value `json:"subkeys"`
}

func (e *v2) readSubkeys(ctx context.Context, req *route.Request, in subkeysIn) (subkeysOut, error) {
	whole, err := e.open(ctx, req.Param("path"), in.Version)
	if err != nil {
		return subkeysOut{}, err
	}
	out := subkeysOut{Metadata: whole.Metadata}
	if whole.Data == nil {
		return out, &errs.Error{Kind: errs.NotFound, Data: wire.Of(out)}
	}
	out.Subkeys = appendSubkeys(nil, whole.Data, in.Depth)
	return out, nil
}

// appendSubkeys writes an object with null for every value. depth counts the
// levels to go; 0 is no limit.
func appendSubkeys(dst []byte, v wire.Value, depth int) []byte {
	if v.Kind() != wire.Obj {
		return append(dst, "null"...)
	}
	dst = append(dst, '{')
	first := true
	for name, inner := range wire.Object(v).All() {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(wire.AppendString(dst, name), ':')
		if depth == 1 || wire.Object(inner).Len() == 0 {
			dst = append(dst, "null"...)
			continue
		}
		dst = appendSubkeys(dst, inner, max(0, depth-1))
	}
	return append(dst, '}')
}

type configIn struct {
	MaxVersions wire.Opt[int]    `json:"max_versions" doc:"How many versions of each secret are kept; 0 is 10."`
	CASRequired wire.Opt[bool]   `json:"cas_required" doc:"Whether every write must say which version it replaces."`
	DeleteAfter wire.Opt[string] `json:"delete_version_after" doc:"How long after it was written a version deletes itself; 0 is never, negative is never whatever a secret's settings say."`
}

type configOut struct {
	CASRequired bool   `json:"cas_required"`
	DeleteAfter string `json:"delete_version_after"`
	MaxVersions int    `json:"max_versions"`
}

func (e *v2) readConfig(ctx context.Context, _ *route.Request, _ route.None) (configOut, error) {
	var c config
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		c, err = getConfig(v)
		return err
	})
	return configOut{CASRequired: c.CASRequired, DeleteAfter: time.Duration(c.DeleteAfter).String(), MaxVersions: c.MaxVersions}, err
}

func (e *v2) writeConfig(ctx context.Context, _ *route.Request, in configIn) (route.None, error) {
	var after time.Duration
	if in.DeleteAfter.Set {
		var err error
		if after, err = parseDeleteAfter(in.DeleteAfter.Value, true); err != nil {
			return route.None{}, err
		}
	}
	if in.MaxVersions.Value < 0 {
		return route.None{}, errs.New(errs.Invalid, "max_versions must not be negative")
	}
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		c, err := getConfig(tx)
		if err != nil {
			return err
		}
		in.MaxVersions.Apply(&c.MaxVersions)
		in.CASRequired.Apply(&c.CASRequired)
		if in.DeleteAfter.Set {
			c.DeleteAfter = int64(after)
		}
		return c.put(tx)
	})
	return route.None{}, err
}

// parseDeleteAfter reads delete_version_after. Any negative one means never,
// where that may be said.
func parseDeleteAfter(s string, mayDisable bool) (time.Duration, error) {
	if mayDisable && len(s) > 1 && s[0] == '-' {
		if _, err := wire.ParseTTL(s[1:]); err == nil {
			return -time.Second, nil
		}
	}
	d, err := wire.ParseTTL(s)
	if err != nil {
		return 0, errs.New(errs.Invalid, "error converting input for field \"delete_version_after\": %v", err)
	}
	return d, nil
}
