package core

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"time"

	"github.com/leasehold/leasehold/internal/storage"
)

// What is stored of the server's own settings, and under which keys:
//
//	core/cors       CORS, JSON
//	core/rotation   Rotation, JSON: when the keyring is rotated by itself
const (
	settingsPrefix = "core/"
	corsKey        = "core/cors"
	rotationKey    = "core/rotation"
)

// CORS says which web pages may call the API. The zero value lets none.
type CORS struct {
	Enabled     bool     `json:"enabled"`
	Origins     []string `json:"origins,omitempty"`
	Headers     []string `json:"headers,omitempty"`
	Credentials bool     `json:"credentials,omitempty"`
}

// Rotation says when the keyring gets a new term by itself. Zero values: after
// DefaultRotation encryptions, and after no time.
type Rotation struct {
	Disabled      bool          `json:"disabled,omitempty"`
	Interval      time.Duration `json:"interval,omitempty"`
	MaxOperations uint64        `json:"max,omitempty"`
}

// DefaultRotation is far below what a term could take: each process derives
// subkeys of its own (package barrier). It is Vault's number.
const DefaultRotation = 3_865_470_566

// settings caches what is read at every request.
type settings struct {
	cors  atomic.Pointer[CORS]
	fresh fresh
}

// CORS is the setting in force. While sealed it is the zero value.
func (c *Core) CORS() CORS {
	u := c.open_.Load()
	if u == nil {
		return CORS{}
	}
	err := u.settings.fresh.ensure(func() error {
		var conf CORS
		err := u.readJSON(u.ctx, corsKey, &conf)
		u.settings.cors.Store(&conf)
		return err
	})
	if err != nil {
		u.core.log.Error("reading the CORS setting; no web page is let in", "error", err)
		return CORS{}
	}
	return *u.settings.cors.Load()
}

// SetCORS stores the setting.
func (c *Core) SetCORS(ctx context.Context, conf CORS) error { return c.writeJSON(ctx, corsKey, conf) }

// Rotation reads when the keyring is rotated.
func (c *Core) Rotation(ctx context.Context) (r Rotation, err error) {
	u, err := c.open()
	if err != nil {
		return r, err
	}
	err = u.readJSON(ctx, rotationKey, &r)
	if r.MaxOperations == 0 {
		r.MaxOperations = DefaultRotation
	}
	return r, err
}

// SetRotation stores when the keyring is rotated.
func (c *Core) SetRotation(ctx context.Context, r Rotation) error {
	return c.writeJSON(ctx, rotationKey, r)
}

// rotateIfDue rotates the keyring as the setting says.
func (u *unsealed) rotateIfDue(ctx context.Context) {
	r, err := u.core.Rotation(ctx)
	if err != nil || r.Disabled {
		return
	}
	st, err := u.store.KeyStatus()
	if err != nil {
		return
	}
	old := r.Interval > 0 && u.core.cfg.Now().Sub(st.InstallTime) > r.Interval
	if !old && st.Encryptions < r.MaxOperations {
		return
	}
	if st, err = u.store.Rotate(ctx); err != nil {
		u.core.log.Error("rotating the keyring; it is tried again", "error", err)
		return
	}
	u.core.log.Info("the keyring was rotated", "term", st.Term)
}

// readJSON reads a row into v; a missing one leaves it as it is.
func (u *unsealed) readJSON(ctx context.Context, key string, v any) error {
	return u.store.View(ctx, func(view storage.View) error {
		b, err := view.Get(key)
		if err != nil || b == nil {
			return err
		}
		return json.Unmarshal(b, v)
	})
}

func (c *Core) writeJSON(ctx context.Context, key string, v any) error {
	u, err := c.open()
	if err != nil {
		return err
	}
	_, err = u.store.Update(ctx, func(tx storage.Tx) error { return putJSON(tx, key, v) })
	return err
}
