package core

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
)

// What is stored of audit, and under which keys:
//
//	auditdev/<path>      AuditDevice, JSON
//	audithdr/<name>      AuditHeader, JSON
const (
	devicePrefix = "auditdev/"
	headerPrefix = "audithdr/"
)

// AuditDevice is an enabled device as it is stored. Version 1.
type AuditDevice struct {
	V           int               `json:"v"`
	Path        string            `json:"path"` // "file/"
	Type        string            `json:"type"`
	Description string            `json:"desc,omitempty"`
	Options     map[string]string `json:"opt,omitempty"`
	Local       bool              `json:"local,omitempty"`
	Salt        string            `json:"salt"`
}

// AuditHeader is a request header that stands in the log.
type AuditHeader struct {
	Name string `json:"name"`
	HMAC bool   `json:"hmac"`
}

// auditing keeps the broker's devices in step with the store.
type auditing struct {
	fresh   fresh
	open    map[string]audit.Enabled // by path and the stored row's text; for loadDevices alone
	headers atomic.Pointer[[]AuditHeader]
}

// MadeDevice is a device before it is enabled.
type MadeDevice struct {
	Device audit.Device
	Format audit.Format
}

// loadDevices makes the broker's devices those of the store. One call goes on
// at a time.
func (u *unsealed) loadDevices(ctx context.Context) error {
	a := &u.auditing
	var rows []deviceRow
	var headers []AuditHeader
	err := u.store.View(ctx, func(v storage.View) (err error) {
		if rows, err = deviceRows(v); err != nil {
			return err
		}
		return storage.ScanEach(v, headerPrefix, storage.PrefixEnd(headerPrefix), 0, func(key string, b []byte, bad error) bool {
			h := AuditHeader{}
			if bad == nil {
				bad = json.Unmarshal(b, &h)
			}
			if bad != nil {
				u.core.log.Error("an audited header cannot be read; its value is hashed in the log", "key", key, "error", bad)
				h = AuditHeader{Name: key[len(headerPrefix):], HMAC: true}
			}
			headers = append(headers, h)
			return true
		})
	})
	if err != nil {
		return fmt.Errorf("reading audit devices: %w", err)
	}
	next := map[string]audit.Enabled{}
	list := make([]audit.Enabled, 0, len(rows))
	for _, d := range rows {
		key := d.Path + "\x00" + d.text
		e, ok := a.open[key]
		if !ok {
			var made MadeDevice
			if err = d.bad; err == nil {
				made, err = u.core.cfg.Devices(d.Type, d.Options, secret.New(d.Salt))
			}
			if err != nil {
				// Failing closed: it takes no record, and where it is the
				// only one there is no answer. The log says why.
				u.core.log.Error("an audit device cannot be made", "path", d.Path, "error", err)
				made = MadeDevice{Device: &brokenDevice{err}}
			}
			e = audit.Enabled{Path: d.Path, Format: made.Format, Device: made.Device}
		}
		next[key] = e
		list = append(list, e)
	}
	a.open = next
	a.headers.Store(&headers)
	return u.broker.Set(list)
}

// deviceRow is a stored device, or why it cannot be read.
type deviceRow struct {
	AuditDevice
	text string
	bad  error
}

// deviceRows reads the stored devices. Of one that cannot be read the path is
// known from its key.
func deviceRows(v storage.View) (rows []deviceRow, err error) {
	err = storage.ScanEach(v, devicePrefix, storage.PrefixEnd(devicePrefix), 0, func(key string, b []byte, bad error) bool {
		r := deviceRow{text: string(b), bad: bad}
		if bad == nil {
			r.bad = json.Unmarshal(b, &r.AuditDevice)
		}
		r.Path = key[len(devicePrefix):]
		rows = append(rows, r)
		return true
	})
	return rows, err
}

// brokenDevice takes nothing.
type brokenDevice struct{ err error }

func (b *brokenDevice) Write([]byte) error { return b.err }
func (b *brokenDevice) Reopen() error      { return b.err }
func (b *brokenDevice) Close() error       { return nil }

// freshDevices loads the devices anew if the store has changed.
func (u *unsealed) freshDevices(ctx context.Context) error {
	if err := u.auditing.fresh.ensure(func() error { return u.loadDevices(ctx) }); err != nil {
		return errs.Wrap(errs.Unavailable, err, "the audit devices cannot be read; the server's log has the cause")
	}
	return nil
}

// AuditDevices lists the enabled devices by path.
func (c *Core) AuditDevices(ctx context.Context) (out []AuditDevice, err error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	err = u.store.View(ctx, func(v storage.View) error {
		rows, err := deviceRows(v)
		for _, r := range rows {
			out = append(out, r.AuditDevice)
		}
		return err
	})
	return out, err
}

// EnableAudit tries a device and, if it works, enables it.
func (c *Core) EnableAudit(ctx context.Context, d AuditDevice) error {
	u, err := c.open()
	if err != nil {
		return err
	}
	d.V, d.Salt = 1, newUUID()+newUUID()
	made, err := c.cfg.Devices(d.Type, d.Options, secret.New(d.Salt))
	if err != nil {
		return err
	}
	err = made.Device.Reopen()
	if cerr := made.Device.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errs.Wrap(errs.Invalid, err, "the audit device does not work and was not enabled: %v", err)
	}
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		if v, err := tx.Get(devicePrefix + d.Path); err != nil || v != nil {
			if err == nil {
				err = errs.New(errs.Invalid, "path already in use: an audit device is enabled at %q", d.Path)
			}
			return err
		}
		return tx.Put(devicePrefix+d.Path, b)
	})
	if err != nil {
		return err
	}
	return u.freshDevices(ctx)
}

// DisableAudit disables a device. What is not there is no error.
func (c *Core) DisableAudit(ctx context.Context, path string) error {
	u, err := c.open()
	if err != nil {
		return err
	}
	_, err = u.store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(devicePrefix + path) })
	if err != nil {
		return err
	}
	return u.freshDevices(ctx)
}

// AuditHash is how a text looks in a device's log.
func (c *Core) AuditHash(path, input string) (string, error) {
	u, err := c.open()
	if err != nil {
		return "", err
	}
	return u.broker.Hash(path, input)
}

// AuditStats are the figures of the audit devices.
func (c *Core) AuditStats() (audit.Stats, error) {
	u, err := c.open()
	if err != nil {
		return audit.Stats{}, err
	}
	return u.broker.Stats(), nil
}

// ReopenAudit makes every device open its file or connection anew (SIGHUP).
func (c *Core) ReopenAudit() error {
	u, err := c.open()
	if err != nil {
		return nil // nothing is open while sealed
	}
	return u.broker.Reopen()
}

// AuditHeaders lists the audited request headers.
func (c *Core) AuditHeaders() ([]AuditHeader, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	if err := u.freshDevices(u.ctx); err != nil {
		return nil, err
	}
	return *u.auditing.headers.Load(), nil
}

// SetAuditHeader makes a header stand in the log, or no more (remove).
func (c *Core) SetAuditHeader(ctx context.Context, h AuditHeader, remove bool) error {
	u, err := c.open()
	if err != nil {
		return err
	}
	h.Name = strings.ToLower(h.Name)
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		if remove {
			return tx.Delete(headerPrefix + h.Name)
		}
		return tx.Put(headerPrefix+h.Name, b)
	})
	if err != nil {
		return err
	}
	return u.freshDevices(ctx)
}
