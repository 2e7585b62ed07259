package token

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage"
)

// Revoke ends a token and all below it. It returns when the token's own mark
// is durable: from then on the token and everything under it reads as ended,
// and the lane cleans up. Revoking what is gone is no error.
func (s *Store) Revoke(ctx context.Context, key string) error {
	return s.markEnded(ctx, lease.Ended, key)
}

// RevokePath ends the tokens that were made at or below a path, with all below
// them: "auth/userpass/" logs everybody out who came in there. Tokens that
// never expire, which are root's, stay.
func (s *Store) RevokePath(ctx context.Context, ns, path string) error {
	prefix := strings.Trim(path, "/") + "/"
	return s.revokeWhere(ctx, ns, func(e *Entry) bool { return strings.HasPrefix(e.Path+"/", prefix) })
}

// RevokeMount ends the tokens that an auth mount has given until a time, with
// all below them. Whose mount was moved while they logged in have its former
// path, at which another mount may be by now: so the mount's id counts, and
// path only for tokens that do not say which mount it was.
func (s *Store) RevokeMount(ctx context.Context, ns, id, path string, until time.Time) error {
	prefix := strings.Trim(path, "/") + "/"
	return s.revokeWhere(ctx, ns, func(e *Entry) bool {
		its := e.MountID == id || e.MountID == "" && strings.HasPrefix(e.Path+"/", prefix)
		return its && !e.Created.After(until)
	})
}

// revokeWhere ends those tokens of a namespace that are meant, except root's.
func (s *Store) revokeWhere(ctx context.Context, ns string, meant func(e *Entry) bool) error {
	var keys []string
	err := s.Each(ctx, ns, func(key string, e *Entry) bool {
		if !e.Expires.IsZero() && meant(e) {
			keys = append(keys, key)
		}
		return true
	})
	if err != nil {
		return err
	}
	return s.markEnded(ctx, lease.Ended, keys...)
}

// RevokeNamespace ends every token of a namespace, page by page; the lane
// removes their rows. Nothing can be made in it any more. Those that cannot be
// read are refused as they are.
func (s *Store) RevokeNamespace(ctx context.Context, ns string) error {
	prefix := rowPrefix + ns + "/"
	from := prefix
	for {
		var keys []string
		last, n := "", 0
		err := s.cfg.Store.View(ctx, func(v storage.View) error {
			return storage.ScanEach(v, from, storage.PrefixEnd(prefix), 0, func(row string, b []byte, bad error) bool {
				last, n = row, n+1
				key := row[len(rowPrefix):]
				if bad == nil {
					_, bad = decode(key, b)
				}
				if bad == nil {
					if word, err := v.Get(alivePrefix + key); err != nil || string(word) != lease.Ended {
						keys = append(keys, key)
					}
				}
				return n < pageSize
			})
		})
		if err != nil {
			return err
		}
		if err := s.markEnded(ctx, lease.Ended, keys...); err != nil {
			return err
		}
		if n < pageSize {
			return nil
		}
		from = last + "\x00"
	}
}

// Any reports whether a namespace has a token that can be read. One that cannot
// be waits for nothing: see Ranges.
func (s *Store) Any(ctx context.Context, ns string) (there bool, err error) {
	prefix := rowPrefix + ns + "/"
	err = s.cfg.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, prefix, storage.PrefixEnd(prefix), 0, func(row string, b []byte, bad error) bool {
			if bad == nil {
				_, bad = decode(row[len(rowPrefix):], b)
			}
			there = bad == nil
			return !there
		})
	})
	return there, err
}

// Ranges are the beginnings of the keys of a namespace's tokens. What is under
// them may be deleted when there is not Any.
func Ranges(ns string) []string {
	all := []string{rowPrefix, alivePrefix, usesPrefix, accPrefix, kidPrefix, countPrefix}
	for i := range all {
		all[i] += ns + "/"
	}
	return all
}

// RevokeOrphan ends a token and leaves its children as orphans. One that has
// been ended with all below it meanwhile is ErrInvalid.
func (s *Store) RevokeOrphan(ctx context.Context, key string) error {
	// While the mark says orphaning no child can be added and none is dead.
	if err := s.markEnded(ctx, orphaning, key); err != nil {
		return err
	}
	return s.orphanChildren(ctx, key)
}

func (s *Store) markEnded(ctx context.Context, word string, keys ...string) error {
	for len(keys) > 0 {
		n := min(len(keys), atOnce)
		part := keys[:n]
		_, err := s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
			now := s.cfg.Now()
			for _, key := range part {
				e, err := readRow(tx, key)
				if isBadRow(err) {
					s.cfg.Log.Error("a token that cannot be read is ended; its rows stay", "error", err)
					if err := tx.Put(alivePrefix+key, []byte(lease.Ended)); err != nil {
						return err
					}
					continue
				}
				if err != nil {
					return err
				}
				if e == nil {
					continue
				}
				have, err := tx.Get(alivePrefix + key)
				if err != nil {
					return err
				}
				if string(have) == lease.Alive || word == lease.Ended || word == lapsed && string(have) != lease.Ended {
					if err := tx.Put(alivePrefix+key, []byte(word)); err != nil {
						return err
					}
				}
				if err := e.putDue(tx, key, now, now); err != nil {
					return err
				}
				if err := putRow(tx, key, e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("marking a token's end: %w", err)
		}
		keys = keys[n:]
	}
	return nil
}

// children gives up to pageSize keys of children after one.
func (s *Store) children(v storage.View, key, after string, n int) (kids []string, err error) {
	prefix := kidPrefix + key + "/"
	from := prefix
	if after != "" {
		from = prefix + after + "\x00"
	}
	err = storage.ScanEach(v, from, storage.PrefixEnd(prefix), n, func(k string, _ []byte, _ error) bool {
		kids = append(kids, k[len(prefix):]) // the key says it all
		return true
	})
	return kids, err
}

func (s *Store) eachChildPage(ctx context.Context, key string, do func(kids []string) error) error {
	after := ""
	for {
		var kids []string
		err := s.cfg.Store.View(ctx, func(v storage.View) (err error) {
			kids, err = s.children(v, key, after, pageSize)
			return err
		})
		if err != nil || len(kids) == 0 {
			return err
		}
		after = kids[len(kids)-1]
		if err := do(kids); err != nil {
			return err
		}
	}
}

// orphanChildren leaves a token's children without a parent, as long as its
// mark says so: below one that was ended for good nobody comes back. Then it is
// ErrInvalid.
func (s *Store) orphanChildren(ctx context.Context, key string) error {
	return s.eachChildPage(ctx, key, func(kids []string) error {
		for _, kid := range kids {
			_, err := s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
				child, err := tx.Get(kidPrefix + key + "/" + kid)
				if err != nil && !isBadRow(err) || err == nil && child == nil { // nil: the lane, or a request, was here
					return err
				}
				word, err := tx.Get(alivePrefix + key)
				if err != nil {
					return err
				}
				if string(word) != orphaning {
					return ErrInvalid
				}
				if err := tx.Delete(kidPrefix + key + "/" + kid); err != nil {
					return err
				}
				e, err := readRow(tx, kid)
				if isBadRow(err) {
					return nil // nobody can use it, child or orphan
				}
				if err != nil || e == nil {
					return err
				}
				e.Parent = ""
				return putRow(tx, kid, e)
			})
			if err != nil {
				return fmt.Errorf("orphaning a token's children: %w", err)
			}
		}
		return nil
	})
}
