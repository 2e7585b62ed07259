package storage

import (
	"context"
	"errors"
)

// straysPage is how many rows are looked at in one view.
const straysPage = 500

// straysAtOnce is how many are deleted in one transaction, which reads two keys
// for each.
const straysAtOnce = 24

// DeleteStrays deletes the rows below a prefix that point at a row which is not
// there, and says how many there were. pointsAt gives the key that a row points
// at, "" for none; such rows stay, and so do those that cannot be read.
func DeleteStrays(ctx context.Context, b Backend, prefix string, pointsAt func(key string, value []byte) string) (removed int, err error) {
	for from, more := prefix, true; more; {
		var strays []string
		n := 0
		err := b.View(ctx, func(v View) error {
			return ScanEach(v, from, PrefixEnd(prefix), 0, func(key string, value []byte, bad error) bool {
				from, n = key+"\x00", n+1
				if bad == nil && dangles(v, pointsAt(key, value)) {
					strays = append(strays, key)
				}
				return n < straysPage
			})
		})
		if err != nil {
			return removed, err
		}
		more = n == straysPage
		for len(strays) > 0 {
			m, gone := min(len(strays), straysAtOnce), 0
			_, err := b.Update(ctx, func(tx Tx) error {
				gone = 0
				for _, key := range strays[:m] {
					value, err := tx.Get(key)
					if bad := (*CorruptError)(nil); errors.As(err, &bad) {
						continue
					}
					if err != nil {
						return err
					}
					if value == nil || !dangles(tx, pointsAt(key, value)) { // changed meanwhile
						continue
					}
					if err := tx.Delete(key); err != nil {
						return err
					}
					gone++
				}
				return nil
			})
			if err != nil {
				return removed, err
			}
			removed += gone
			strays = strays[m:]
		}
	}
	return removed, nil
}

// dangles reports whether there is certainly no row at a key.
func dangles(r Reader, key string) bool {
	if key == "" {
		return false
	}
	b, err := r.Get(key)
	return err == nil && b == nil
}
