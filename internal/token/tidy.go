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
		n, err := storage.DeleteStrays(ctx, s.cfg.Store, prefix, func(key string, value []byte) string {
			return rowPrefix + pointed(prefix, key, value)
		})
		removed += n
		if err != nil {
			return removed, err
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
