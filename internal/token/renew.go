package token

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage"
)

func unmarshal(b []byte, into any) error { return json.Unmarshal(b, into) }

// Limits are what the mount that made a token allows now.
type Limits struct {
	DefaultTTL, MaxTTL time.Duration
	Period             time.Duration // of its role now; zero leaves the token's own
}

// Renew extends a service token from now by increment, or by what it was given
// last when that is zero, within its maximum. capped says that the maximum cut
// it.
func (s *Store) Renew(ctx context.Context, key string, increment time.Duration, lim Limits) (e *Entry, capped bool, err error) {
	now := s.cfg.Now().Round(0)
	_, err = s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
		b, err := tx.Get(rowPrefix + key)
		if err != nil {
			return err
		}
		if b == nil {
			return ErrInvalid
		}
		alive, err := tx.Get(alivePrefix + key)
		if err != nil {
			return err
		}
		if e, err = decode(key, b); err != nil {
			return err
		}
		switch {
		case string(alive) != lease.Alive || s.expired(e):
			return ErrInvalid
		case !e.Renewable || e.Expires.IsZero():
			return errs.New(errs.Invalid, "lease is not renewable")
		}
		ttl := increment
		if lim.Period > 0 {
			e.Period = lim.Period
		}
		switch {
		case e.Period > 0:
			ttl = e.Period
			if lim.MaxTTL > 0 {
				ttl = min(ttl, lim.MaxTTL)
			}
		case ttl <= 0 && e.Given > 0:
			ttl = e.Given
		case ttl <= 0 && e.TTL > 0:
			ttl = e.TTL
		case ttl <= 0:
			ttl = lim.DefaultTTL
		}
		until := now.Add(ttl)
		capped = false
		if m := e.maxExpires(lim.MaxTTL); !m.IsZero() && until.After(m) {
			until, capped = m, true
		}
		e.Expires, e.Renewed, e.Given = until, now, until.Sub(now)
		if err := e.putDue(tx, key, until); err != nil {
			return err
		}
		return putRow(tx, key, e)
	})
	if err != nil {
		return nil, false, fmt.Errorf("renewing a token: %w", err)
	}
	return e, capped, nil
}

// maxExpires is when the token ends however often it is renewed, under the
// maximum that the mount has now; zero is never. A periodic token ends only
// where it was told to itself.
func (e *Entry) maxExpires(mountMax time.Duration) time.Time {
	if mountMax <= 0 {
		mountMax = e.MountMaxTTL
	}
	most := e.ExplicitMaxTTL
	if e.Period == 0 && mountMax > 0 && (most == 0 || mountMax < most) {
		most = mountMax
	}
	if most == 0 {
		return time.Time{}
	}
	return e.Created.Add(most)
}
