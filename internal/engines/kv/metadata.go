package kv

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"time"
	"unicode"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

type metadataOut struct {
	CASRequired bool           `json:"cas_required"`
	Created     wire.Time      `json:"created_time"`
	Current     int64          `json:"current_version"`
	Custom      wire.KV        `json:"custom_metadata" wire:"null"`
	DeleteAfter string         `json:"delete_version_after"`
	MaxVersions int            `json:"max_versions"`
	Oldest      int64          `json:"oldest_version"`
	Updated     wire.Time      `json:"updated_time"`
	Versions    map[string]age `json:"versions"`
}

// age is what the metadata say of one version.
type age struct {
	Created   wire.Time `json:"created_time"`
	Deletion  wire.Time `json:"deletion_time"`
	Destroyed bool      `json:"destroyed"`
}

func (e *v2) readMetadata(ctx context.Context, req *route.Request, _ route.None) (metadataOut, error) {
	var m *keyMeta
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		m, err = getMeta(v, req.Param("path"))
		return err
	})
	if err != nil {
		return metadataOut{}, err
	}
	if m == nil {
		return metadataOut{}, errs.Gone
	}
	out := metadataOut{
		CASRequired: m.CASRequired, Created: moment(m.Created), Current: m.Current, Custom: m.Custom,
		DeleteAfter: time.Duration(m.DeleteAfter).String(), MaxVersions: m.MaxVersions, Oldest: m.Oldest,
		Updated: moment(m.Updated), Versions: make(map[string]age, len(m.Versions)),
	}
	for _, v := range m.Versions {
		out.Versions[strconv.FormatInt(v.N, 10)] = age{moment(v.Created), moment(v.Deleted), v.Destroyed}
	}
	return out, nil
}

func (e *v2) list(ctx context.Context, req *route.Request, _ route.None) (route.Keys, error) {
	folder := req.Param("path")
	if folder != "" {
		folder += "/"
	}
	names, err := storage.Folder(ctx, e.env.Store, rowsMeta+folder)
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(names)
}

type metadataIn struct {
	MaxVersions wire.Opt[int]         `json:"max_versions" doc:"How many versions are kept; 0 is the mount's."`
	CASRequired wire.Opt[bool]        `json:"cas_required" doc:"Whether a write must say which version it replaces."`
	DeleteAfter wire.Opt[string]      `json:"delete_version_after" doc:"How long after it was written a version deletes itself."`
	Custom      wire.Opt[wire.Object] `json:"custom_metadata" doc:"Notes about the secret: names with text values."`
}

func (in *metadataIn) Validate() error {
	if in.MaxVersions.Value < 0 {
		return errs.New(errs.Invalid, "max_versions must not be negative")
	}
	if _, err := parseDeleteAfter(in.DeleteAfter.Value, false); err != nil {
		return err
	}
	return checkCustom(in.Custom.Value)
}

func (in *metadataIn) empty() bool {
	return !in.MaxVersions.Set && !in.CASRequired.Set && !in.DeleteAfter.Set && !in.Custom.Set
}

// apply changes the settings that were sent. A patch merges notes, where null
// removes one; a write replaces them.
func (in *metadataIn) apply(m *keyMeta, patch bool) error {
	in.MaxVersions.Apply(&m.MaxVersions)
	in.CASRequired.Apply(&m.CASRequired)
	if in.DeleteAfter.Set {
		d, _ := parseDeleteAfter(in.DeleteAfter.Value, false) // Validate has seen it
		m.DeleteAfter = int64(d)
	}
	if !in.Custom.Set {
		return nil
	}
	custom := wire.KV{}
	if patch && in.Custom.Value != nil {
		maps.Copy(custom, m.Custom)
	}
	for name, v := range in.Custom.Value.All() {
		if text, ok := v.Text(); ok {
			custom[name] = text
		} else {
			delete(custom, name)
		}
	}
	if len(custom) > maxCustom {
		return errs.New(errs.Invalid, "custom_metadata validation failed: more than %d keys", maxCustom)
	}
	if m.Custom = custom; len(custom) == 0 {
		m.Custom = nil
	}
	return nil
}

// Limits of the notes, which are Vault's.
const (
	maxCustom      = 64
	maxCustomName  = 128
	maxCustomValue = 512
)

// checkCustom holds every note to its limits. A value may be null only to be
// removed; numbers are taken as their text.
func checkCustom(notes wire.Object) error {
	invalid := func(format string, args ...any) error {
		return errs.New(errs.Invalid, "custom_metadata validation failed: "+format, args...)
	}
	for name, v := range notes.All() {
		text, _ := v.Text()
		switch k := v.Kind(); {
		case k != wire.String && k != wire.Number && k != wire.Null:
			return invalid("expected a string for each key, got %s", k)
		case name == "" || len(name) > maxCustomName:
			return invalid("a key must have 1 to %d bytes", maxCustomName)
		case len(text) > maxCustomValue || text == "" && k != wire.Null:
			return invalid("a value must have 1 to %d bytes", maxCustomValue)
		case !printable(name) || !printable(text):
			return invalid("keys and values must be printable")
		}
	}
	return nil
}

func printable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func (e *v2) metadataExists(ctx context.Context, req *route.Request, _ metadataIn) (bool, error) {
	return e.known(ctx, req.Param("path"))
}

func (e *v2) writeMetadata(ctx context.Context, req *route.Request, in metadataIn) (route.None, error) {
	path := req.Param("path")
	if err := checkPath(path); err != nil {
		return route.None{}, err
	}
	for name, v := range in.Custom.Value.All() {
		if v.Kind() == wire.Null {
			return route.None{}, errs.New(errs.Invalid, "custom_metadata validation failed: %s is null; only a patch can remove a key", name)
		}
	}
	if in.empty() {
		return route.None{}, nil // makes nothing of nothing
	}
	moot := false
	err := e.changeMeta(ctx, path, func(tx storage.Tx, m *keyMeta) (_ *keyMeta, err error) {
		if m == nil {
			m = &keyMeta{Created: e.env.Now().UnixNano()}
		}
		if moot, err = in.moot(tx); err != nil {
			return nil, err
		}
		return m, in.apply(m, false)
	})
	if err == nil && moot {
		req.Warn(mootWarning)
	}
	return route.None{}, err
}

const mootWarning = `"cas_required" set to false, but the mount's config demands it for all secrets`

// moot reports that the settings free a secret from what the mount demands.
func (in *metadataIn) moot(tx storage.Tx) (bool, error) {
	if !in.CASRequired.Set || in.CASRequired.Value {
		return false, nil
	}
	c, err := getConfig(tx)
	return c.CASRequired, err
}

func (e *v2) patchMetadata(ctx context.Context, req *route.Request, in metadataIn) (route.None, error) {
	moot := false
	err := e.changeMeta(ctx, req.Param("path"), func(tx storage.Tx, m *keyMeta) (_ *keyMeta, err error) {
		if m == nil {
			return nil, errAbsent
		}
		if moot, err = in.moot(tx); err != nil {
			return nil, err
		}
		return m, in.apply(m, true)
	})
	if err == nil && moot {
		req.Warn(mootWarning)
	}
	if errors.Is(err, errAbsent) {
		req.AnswerRaw(&route.Raw{Status: http.StatusNotFound})
		return route.None{}, nil
	}
	return route.None{}, err
}

// changeMeta changes a path's metadata. change gets nil where there are none;
// it returns what to store, or nil to store nothing.
func (e *v2) changeMeta(ctx context.Context, path string, change func(storage.Tx, *keyMeta) (*keyMeta, error)) error {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		m, err := getMeta(tx, path)
		if err != nil {
			return err
		}
		if m, err = change(tx, m); err != nil || m == nil {
			return err
		}
		m.Updated = e.env.Now().UnixNano()
		return m.put(tx, path)
	})
	return written(err)
}

// deleteMetadata removes a secret: its versions from the oldest, step by step,
// and with the last of them the metadata. A crash leaves the newer versions,
// and the same request again removes them.
func (e *v2) deleteMetadata(ctx context.Context, req *route.Request, _ route.None) (route.None, error) {
	path := req.Param("path")
	for more := true; more; {
		_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
			more = false
			m, err := getMeta(tx, path)
			if err != nil || m == nil {
				return err
			}
			n := min(len(m.Versions), stepKeys)
			if err := m.drop(tx, path, n); err != nil {
				return err
			}
			if more = len(m.Versions) > 0; more {
				return m.put(tx, path)
			}
			return tx.Delete(metaKey(path))
		})
		if err != nil {
			return route.None{}, err
		}
	}
	return route.None{}, nil
}

type versionsIn struct {
	Versions wire.CSV `json:"versions" doc:"The numbers of the versions."`
	numbers  []int64
}

func (in *versionsIn) Validate() error {
	if len(in.Versions) == 0 {
		return errs.New(errs.Invalid, "No version number provided")
	}
	for _, s := range in.Versions {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 1 {
			return errs.New(errs.Invalid, "error converting input for field \"versions\": expected version numbers")
		}
		in.numbers = append(in.numbers, n)
	}
	return nil
}

func (e *v2) deleteNewest(ctx context.Context, req *route.Request, _ route.None) (route.None, error) {
	now := e.env.Now()
	return route.None{}, e.changeMeta(ctx, req.Param("path"), func(_ storage.Tx, m *keyMeta) (*keyMeta, error) {
		if m == nil || !m.deleteOne(0, now) {
			return nil, nil
		}
		return m, nil
	})
}

// deleteOne marks a version as deleted and reports whether that changed it.
func (m *keyMeta) deleteOne(n int64, now time.Time) bool {
	v := m.find(n)
	if v == nil || !v.readable(now) {
		return false
	}
	v.Deleted = now.UnixNano()
	return true
}

func (e *v2) deleteVersions(ctx context.Context, req *route.Request, in versionsIn) (route.None, error) {
	now := e.env.Now()
	return route.None{}, e.changeMeta(ctx, req.Param("path"), func(_ storage.Tx, m *keyMeta) (*keyMeta, error) {
		return changed(m, in.numbers, func(n int64) bool { return m.deleteOne(n, now) }), nil
	})
}

func (e *v2) undeleteVersions(ctx context.Context, req *route.Request, in versionsIn) (route.None, error) {
	return route.None{}, e.changeMeta(ctx, req.Param("path"), func(_ storage.Tx, m *keyMeta) (*keyMeta, error) {
		return changed(m, in.numbers, func(n int64) bool {
			v := m.find(n)
			if v == nil || v.Destroyed || v.Deleted == 0 {
				return false
			}
			v.Deleted = 0
			return true
		}), nil
	})
}

func (e *v2) destroyVersions(ctx context.Context, req *route.Request, in versionsIn) (route.None, error) {
	path := req.Param("path")
	for rest := in.numbers; len(rest) > 0; {
		step := rest[:min(len(rest), stepKeys)]
		rest = rest[len(step):]
		err := e.changeMeta(ctx, path, func(tx storage.Tx, m *keyMeta) (*keyMeta, error) {
			var failed error
			m = changed(m, step, func(n int64) bool {
				v := m.find(n)
				if v == nil || v.Destroyed || failed != nil {
					return false
				}
				v.Destroyed = true
				failed = tx.Delete(dataKey(path, n))
				return true
			})
			return m, failed
		})
		if err != nil {
			return route.None{}, err
		}
	}
	return route.None{}, nil
}

// changed applies change to each number and returns m if any of them did
// change something, so that nothing is written otherwise.
func changed(m *keyMeta, numbers []int64, change func(n int64) bool) *keyMeta {
	if m == nil {
		return nil
	}
	any := false
	for _, n := range numbers {
		any = change(n) || any
	}
	if !any {
		return nil
	}
	return m
}
