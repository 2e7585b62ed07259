package transit

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/storage"
)

// cache keeps keys ready for use. Every change of a key's rows drops the key
// here before the Update that made it returns: see engine.Watcher.
type cache struct {
	mu      sync.RWMutex
	keys    map[string]*readyKey // by name
	names   map[string]string    // by id
	most    int                  // how many keys
	changed storage.Revision     // of the newest change: what was read before is not kept
}

// mostKeys and mostVersions bound what is kept ready. A key that is not kept
// costs two reads of the store.
const (
	mostKeys     = 10_000
	mostVersions = 1_000 // of one key
)

// readyKey is a key whose row was read. It does not change: a key that does is
// another one.
type readyKey struct {
	keyRow
	versions sync.Map     // of *readyVersion, by number
	kept     atomic.Int32 // how many
}

// readyVersion is a version ready for use. Of a derived key it is the secret
// that contexts' keys are derived from.
type readyVersion struct {
	primitive.Key                    // nil of a derived key
	row           *versionRow        // with its secret
	material      primitive.Material // the same, for deriving
}

// Changed implements engine.Watcher.
func (e *Engine) Changed(key string, rev storage.Revision) {
	c := &e.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed = max(c.changed, rev)
	switch {
	case strings.HasPrefix(key, rowKey):
		c.forgetLocked(key[len(rowKey):])
	case strings.HasPrefix(key, rowVersion):
		id, _, _ := strings.Cut(key[len(rowVersion):], "/")
		if name, ok := c.names[id]; ok {
			c.forgetLocked(name)
		}
	case key == rowCache:
		c.most, c.keys, c.names = 0, nil, nil
	}
}

// Lost implements engine.Watcher.
func (e *Engine) Lost(rev storage.Revision) {
	c := &e.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys, c.names, c.changed = nil, nil, max(c.changed, rev)
}

func (c *cache) forgetLocked(name string) {
	if k := c.keys[name]; k != nil {
		delete(c.keys, name)
		delete(c.names, k.ID)
	}
}

func (c *cache) get(name string) *readyKey {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.keys[name]
}

// keep keeps a key that was read at a revision, unless something has changed
// since.
func (c *cache) keep(k *readyKey, at storage.Revision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at < c.changed {
		return
	}
	most := c.most
	if most == 0 {
		most = mostKeys
	}
	for name := range c.keys { // any: which one goes hardly matters
		if len(c.keys) < most {
			break
		}
		c.forgetLocked(name)
	}
	if c.keys == nil {
		c.keys, c.names = map[string]*readyKey{}, map[string]string{}
	}
	c.keys[k.Name], c.names[k.ID] = k, k.Name
}

// key finds a key; nil when there is none.
func (e *Engine) key(ctx context.Context, name string) (*readyKey, error) {
	if k := e.cache.get(name); k != nil {
		return k, nil
	}
	var k *readyKey
	var at storage.Revision
	var limits *cacheRow
	err := e.env.Store.View(ctx, func(v storage.View) error {
		at = v.Revision()
		row, err := getKey(v, name)
		if err != nil || row == nil {
			return err
		}
		k = &readyKey{keyRow: *row}
		limits, err = getCacheRow(v)
		return err
	})
	if err != nil || k == nil {
		return nil, err
	}
	e.cache.limit(limits.Size)
	e.cache.keep(k, at)
	return k, nil
}

func (c *cache) limit(most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most = most
}

// usable is key for operations: a key that is not there, or not in use, is an
// error with a sentence. what is what the caller calls the key.
func (e *Engine) usable(ctx context.Context, name, what string) (*readyKey, error) {
	k, err := e.key(ctx, name)
	switch {
	case err != nil:
		return nil, err
	case k == nil:
		return nil, errs.New(errs.Invalid, "%s key not found", what)
	case k.SoftDeleted:
		return nil, errSoftDeleted(name)
	}
	return k, nil
}

func errSoftDeleted(name string) error {
	return errs.New(errs.Invalid, "the key %q is soft-deleted; restore it at keys/%s/soft-delete-restore to use it", name, name)
}

var errReplaced = errs.New(errs.Precondition, "the key was replaced by another at this moment; try again")

// version is one version of a key, ready for use.
func (e *Engine) version(ctx context.Context, k *readyKey, n int) (*readyVersion, error) {
	if v, ok := k.versions.Load(n); ok {
		return v.(*readyVersion), nil
	}
	var row *versionRow
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		row, err = getVersion(v, k.ID, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	if row == nil {
		return nil, errs.New(errs.Invalid, "version %d of the key is not there: it was trimmed, or the key was deleted", n)
	}
	r := &readyVersion{row: row, material: primitive.Material{Secret: row.Secret, Public: row.Public}}
	if !k.Derived {
		if r.Key, err = primitive.Load(k.Spec, r.material); err != nil {
			return nil, err
		}
	}
	if k.kept.Add(1) > mostVersions {
		k.versions.Clear()
		k.kept.Store(1)
	}
	k.versions.Store(n, r)
	return r, nil
}

// derived is a version's key for a context: of keys that are not derived the
// version itself, and then the context is not looked at.
func (k *readyKey) derived(v *readyVersion, context []byte) (primitive.Key, error) {
	if !k.Derived {
		return v.Key, nil
	}
	if len(context) == 0 {
		return nil, errNoContext
	}
	if k.Convergent {
		return primitive.DeriveConvergent(k.Spec.Type, v.material.Secret, context)
	}
	m, err := k.derivedMaterial(v, context)
	if err != nil {
		return nil, err
	}
	return primitive.Load(k.Spec, m)
}

// derivedMaterial is the key of one context.
func (k *readyKey) derivedMaterial(v *readyVersion, context []byte) (primitive.Material, error) {
	if len(context) == 0 {
		return primitive.Material{}, errNoContext
	}
	secret := v.material.Secret
	if k.Spec.Type == primitive.Ed25519 {
		var err error
		switch secret, err = primitive.Ed25519Private(v.material); {
		case errors.Is(err, primitive.ErrNoPrivate):
			return primitive.Material{}, asCallers(err)
		case err != nil:
			return primitive.Material{}, err
		}
	}
	return primitive.Derive(k.Spec.Type, secret, context)
}

var errNoContext = errs.New(errs.Invalid, "missing 'context': the key is a derived one, and each request to it names the context that its key is derived from")

// cacheRow is what cache-config says. Version 1.
type cacheRow struct {
	V    int `json:"v"`
	Size int `json:"size"` // 0: mostKeys
}
