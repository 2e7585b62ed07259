package kv

import (
	"context"
	"errors"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/storage"
)

// newV2 makes the engine of a version 2 mount. If the mount was of version 1
// before, requests are refused until its secrets are carried over, which Start
// sets about.
func newV2(ctx context.Context, env engine.Env) (*v2, error) {
	e := &v2{env: env}
	old, err := e.oldPaths(ctx)
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

// upgrade makes version 1 of each old secret, one transaction each. A failure
// is tried again: until all are carried over the mount does not serve.
func (e *v2) upgrade(ctx context.Context) {
	for {
		paths, err := e.oldPaths(ctx)
		for i := 0; err == nil && i < len(paths); i++ {
			err = e.carryOver(ctx, paths[i])
		}
		switch {
		case err == nil && len(paths) == 0:
			e.upgrading.Store(false)
			return
		case err == nil:
			continue
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

// oldPaths gives some of the secrets that are still of version 1. A row that
// cannot be read stays where it is and does not hold up the others.
func (e *v2) oldPaths(ctx context.Context) (paths []string, err error) {
	const page = 256
	err = e.env.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, rowsV1, storage.PrefixEnd(rowsV1), page, func(key string, _ []byte, bad error) bool {
			if bad == nil {
				paths = append(paths, key[len(rowsV1):])
			}
			return true
		})
	})
	return paths, err
}

// carryOver moves one secret, unless it was moved before.
func (e *v2) carryOver(ctx context.Context, path string) error {
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
		if err := tx.Put(dataKey(path, 1), row); err != nil {
			return err
		}
		if err := m.put(tx, path); err != nil {
			return err
		}
		return tx.Delete(rowsV1 + path)
	})
	return err
}
