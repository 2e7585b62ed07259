package token

import (
	"context"
	"fmt"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage"
)

// Limits are what the mount that made a token allows now.
type Limits struct {
	DefaultTTL, MaxTTL time.Duration
	// Period and ExplicitMaxTTL are what its role says now; zero leaves the
	// token's own.
	Period, ExplicitMaxTTL time.Duration
	// Login says that the token is of a login: then Period, and DefaultTTL
	// where no increment was asked for, are what its method grants now.
	Login bool
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
		period := e.Period
		if lim.Period > 0 || lim.Login {
			period = lim.Period
		}
		switch {
		case period > 0:
			ttl = lesser(period, lim.MaxTTL)
		case ttl <= 0 && lim.Login:
			ttl = lim.DefaultTTL
		case ttl <= 0 && e.Given > 0:
			ttl = e.Given
		case ttl <= 0 && e.TTL > 0:
			ttl = e.TTL
		case ttl <= 0:
			ttl = lim.DefaultTTL
		}
		until := now.Add(ttl)
		capped = false
		if m := e.maxExpires(lim, period); !m.IsZero() && until.After(m) {
			until, capped = m, true
		}
		if !until.After(now) {
			// The maximum was lowered after the token was made. It has what it
			// was given, and no renewal takes that away.
			return errs.New(errs.Invalid, "past the max TTL, cannot renew: the token lives until its time is over and no longer")
		}
		e.Expires, e.Renewed, e.Given = until, now, until.Sub(now)
		if err := e.putDue(tx, key, until, now); err != nil {
			return err
		}
		return putRow(tx, key, e)
	})
	if err != nil {
		return nil, false, fmt.Errorf("renewing a token: %w", err)
	}
	return e, capped, nil
}

// maxExpires is when the token ends however often it is renewed; zero is
// never. A periodic token ends only where it or its role was told to.
func (e *Entry) maxExpires(lim Limits, period time.Duration) time.Time {
	most := lesser(e.ExplicitMaxTTL, lim.ExplicitMaxTTL)
	if period == 0 {
		mount := lim.MaxTTL
		if mount <= 0 {
			mount = e.MountMaxTTL
		}
		most = lesser(most, mount)
	}
	if most == 0 {
		return time.Time{}
	}
	return e.Created.Add(most)
}

// lesser is the lesser of two, of which zero says nothing.
func lesser(a, b time.Duration) time.Duration {
	if a <= 0 || b <= 0 {
		return max(a, b)
	}
	return min(a, b)
}
