package kv

import (
	"context"
	"errors"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/storage"
)

// newV2 makes the engine of a version 2 mount. If the mount was of version 1
// before, requests are refused until its secrets are carried over, which Start
// sets about.
func newV2(ctx context.Context, env engine.Env) (*v2, error) {
	e := &v2{env: env}
	old, err := e.oldPaths(ctx, rowsV1)
	if err != nil {
		return nil, err
	}
	e.upgrading.Store(len(old) > 0)
	return e, nil
}

var (
	_ engine.Starter = (*v2)(nil)
	_ engine.Closer  = (*v2)(nil)
)

// Start carries secrets of version 1 over, if there are any.
func (e *v2) Start(ctx context.Context) error {
	if !e.upgrading.Load() {
		return nil
	}
	ctx, e.stop = context.WithCancel(ctx)
	e.upgrades.Go(func() { e.upgrade(ctx) })
	return nil
}

// Close waits for an upgrade to stop. The next start goes on with it.
func (e *v2) Close() error {
	if e.stop != nil {
		e.stop()
	}
	e.upgrades.Wait()
	return nil
}

// errUpgrading is Vault's text, by which its clients know what to wait for.
var errUpgrading = errs.New(errs.Invalid, "Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service shortly.")

// upgrade makes version 1 of each old secret. A failure is tried again: until
// all are carried over the mount does not serve.
func (e *v2) upgrade(ctx context.Context) {
	for {
		err := e.carryAll(ctx)
		switch {
		case err == nil:
			e.upgrading.Store(false)
			return
		case !errors.Is(err, context.Canceled):
			e.env.Log.Error("upgrading a kv mount to version 2; it is tried again", "mount", e.env.MountID, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Second):
		}
	}
}

// carryAll carries over all that there is. What cannot be, because a row is
// damaged or too large, stays where it is and does not hold up the others.
func (e *v2) carryAll(ctx context.Context) error {
	// Requests to version 1 may still be on their way. Those that write before
	// this row are carried over, those after it are refused.
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Put(rowBegun, pack(nil)) })
	for from := rowsV1; err == nil; {
		var paths []string
		if paths, err = e.oldPaths(ctx, from); err != nil || len(paths) == 0 {
			return err
		}
		for _, path := range paths {
			var bad *storage.CorruptError
			err = e.carryOver(ctx, path)
			if errors.Is(err, storage.ErrTooLarge) || errors.Is(err, errDamaged) || errors.As(err, &bad) {
				e.env.Log.Error("a secret of version 1 cannot be carried over to version 2; it stays in the store, out of reach", "mount", e.env.MountID, "path", path, "error", err)
				err = nil
			}
			if err != nil {
				return err
			}
			from = rowsV1 + path + "\x00"
		}
	}
	return err
}

// oldPaths gives some of the secrets that are still of version 1, from a key on.
func (e *v2) oldPaths(ctx context.Context, from string) (paths []string, err error) {
	const page = 256
	err = e.env.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, from, storage.PrefixEnd(rowsV1), page, func(key string, _ []byte, bad error) bool {
			if bad == nil {
				paths = append(paths, key[len(rowsV1):])
			}
			return true
		})
	})
	return paths, err
}

// carryOver moves one secret, unless it was moved before. What nearly fills a
// transaction is copied in one and taken away in another.
func (e *v2) carryOver(ctx context.Context, path string) error {
	err := e.move(ctx, path, true)
	if !errors.Is(err, storage.ErrTooLarge) {
		return err
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		row, err := tx.Get(rowsV1 + path)
		if err != nil || row == nil {
			return err
		}
		return tx.Put(dataKey(path, 1), row)
	})
	if err != nil {
		return err
	}
	return e.move(ctx, path, false)
}

// move makes the metadata of an old secret and deletes its old row; with data
// it copies the secret as well.
func (e *v2) move(ctx context.Context, path string, data bool) error {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		row, err := tx.Get(rowsV1 + path)
		if err != nil || row == nil {
			return err
		}
		if m, err := getMeta(tx, path); err != nil || m != nil {
			return errors.Join(err, tx.Delete(rowsV1+path))
		}
		now := e.env.Now().UnixNano()
		m := &keyMeta{Created: now, Updated: now, Current: 1, Versions: []version{{N: 1, Created: now}}}
		if data {
			if err := tx.Put(dataKey(path, 1), row); err != nil {
				return err
			}
		}
		if err := m.put(tx, path); err != nil {
			return err
		}
		return tx.Delete(rowsV1 + path)
	})
	return err
}
