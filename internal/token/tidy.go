package token

import (
	"context"
	"strings"

	"github.com/leasehold/leasehold/internal/storage"
)

// Tidy deletes accessors and children's index keys that point at no token, of
// one namespace or, where ns is empty, of all.
func (s *Store) Tidy(ctx context.Context, ns string) (removed int, err error) {
	if ns != "" {
		ns += "/"
	}
	for _, prefix := range []string{accPrefix + ns, kidPrefix + ns} {
		from := prefix
		for {
			var strays []string
			last, n := "", 0
			err := s.cfg.Store.View(ctx, func(v storage.View) error {
				return storage.ScanEach(v, from, storage.PrefixEnd(prefix), 0, func(key string, value []byte, bad error) bool {
					last, n = key, n+1
					if bad != nil {
						return n < pageSize // left where it is
					}
					if b, err := v.Get(rowPrefix + pointed(prefix, key, value)); err == nil && b == nil {
						strays = append(strays, key)
					}
					return n < pageSize
				})
			})
			if err != nil {
				return removed, err
			}
			for _, key := range strays {
				_, err := s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
					value, err := tx.Get(key)
					if err != nil {
						return err
					}
					if b, err := tx.Get(rowPrefix + pointed(prefix, key, value)); err != nil || b != nil {
						return err
					}
					return tx.Delete(key)
				})
				if err != nil {
					return removed, err
				}
				removed++
			}
			if n < pageSize {
				break
			}
			from = last + "\x00"
		}
	}
	return removed, nil
}

// pointed is the token that an index row points at.
func pointed(prefix, key string, value []byte) string {
	if strings.HasPrefix(prefix, kidPrefix) {
		parts := strings.Split(key, "/")
		return strings.Join(parts[max(len(parts)-2, 0):], "/")
	}
	_, pointsAt, _ := strings.Cut(string(value), " ")
	return pointsAt
}
