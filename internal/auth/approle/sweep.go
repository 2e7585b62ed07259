package approle

import (
	"context"
	"strings"

	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
)

// page is how many secret ids one transaction deletes: each has three keys,
// and its row is read.
const page = 25

// Sweep deletes secret ids that have expired, and those of roles that were
// deleted. A login refuses both without it.
func (e *Engine) Sweep(ctx context.Context) error {
	for {
		n, err := e.expire(ctx)
		if err != nil || n < page {
			if err == nil {
				err = e.finishRoles(ctx)
			}
			return err
		}
	}
}

// expire deletes the secret ids that expired first. It gives how many.
func (e *Engine) expire(ctx context.Context) (int, error) {
	now := e.env.Now()
	keys, err := e.keys(ctx, expiryPrefix, expiryKey(now, "", ""), page)
	if err != nil || len(keys) == 0 {
		return 0, err
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		for _, k := range keys {
			_, rest, _ := strings.Cut(k[len(expiryPrefix):], "/")
			role, hash, _ := strings.Cut(rest, "/")
			// The one that this entry was for may be gone, and its like made
			// again: then another entry is for that.
			s, err := secretAt(tx, role, hash)
			if isBadRow(err) {
				e.env.Log.Error("a secret id cannot be read and is left where it is; no login takes it", "error", err)
			} else if err != nil {
				return err
			}
			if s != nil && s.expired(now) {
				if err := e.dropSecret(tx, role, hash, s); err != nil {
					return err
				}
			}
			if err := tx.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
	return len(keys), err
}

// finishRoles goes on where deleting a role has left off.
func (e *Engine) finishRoles(ctx context.Context) error {
	for from := endingPrefix; ; {
		keys, err := e.keys(ctx, from, storage.PrefixEnd(endingPrefix), 1)
		if err != nil || len(keys) == 0 {
			return err
		}
		if _, err := e.purge(ctx, keys[0][len(endingPrefix):], 0); err != nil {
			return err
		}
		from = keys[0] + "\x00"
	}
}

// purge deletes the secret ids of a role that is gone, in at most so many
// transactions (0: any number). Entries by which they would have expired stay
// until then.
func (e *Engine) purge(ctx context.Context, role string, most int) (done bool, err error) {
	for n := 0; most == 0 || n < most; n++ {
		var keys []string
		for _, prefix := range []string{secretKey(role, ""), accessorKey(role, "")} {
			k, err := e.keys(ctx, prefix, storage.PrefixEnd(prefix), page)
			if err != nil {
				return false, err
			}
			keys = append(keys, k...)
		}
		last := len(keys) == 0
		if last {
			keys = []string{endingPrefix + role}
		}
		_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
			for _, k := range keys {
				if err := tx.Delete(k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || last {
			return err == nil, err
		}
	}
	return false, nil
}

// keys are the first of a range, whether their rows can be read or not.
func (e *Engine) keys(ctx context.Context, from, to string, most int) (keys []string, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, from, to, most, func(key string, _ []byte, _ error) bool {
			keys = append(keys, key)
			return true
		})
	})
	return keys, err
}

// tidy does now, and in the background, what is done twice a minute anyway.
func (e *Engine) tidy(_ context.Context, req *route.Request, _ route.None) (*route.Whole, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tidies || e.ctx.Err() != nil {
		req.Warn("Tidy operation already in progress.")
		return &route.Whole{}, nil
	}
	e.tidies = true
	e.wg.Go(func() {
		if err := e.Sweep(e.ctx); err != nil && e.ctx.Err() == nil {
			e.env.Log.Error("tidying secret ids", "error", err)
		}
		e.mu.Lock()
		e.tidies = false
		e.mu.Unlock()
	})
	req.Warn("Tidy operation successfully started. Any information from the operation will be printed to the server's log.")
	return &route.Whole{}, nil
}
