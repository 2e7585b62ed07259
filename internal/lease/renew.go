package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/storage"
)

// Renewed is the outcome of a renewal.
type Renewed struct {
	Info
	Capped bool // the increment passed the lease's maximum and was cut
}

// renewTries is how often a renewal begins again because another one of the
// same lease came in between.
const renewTries = 8

// Renew extends a lease: the target first, then the lease, if it is still
// live. increment counts from now; zero takes the lease's own TTL again.
func (s *Store) Renew(ctx context.Context, ns string, id ID, increment time.Duration) (Renewed, error) {
	for range renewTries {
		out, again, err := s.renewOnce(ctx, ns, id, increment)
		if err != nil {
			return Renewed{}, err
		}
		if !again {
			s.counted.renewed.Add(1)
			return out, nil
		}
	}
	return Renewed{}, errs.New(errs.TooMany, "the lease is being renewed by too many at once; try again")
}

func (s *Store) renewOnce(ctx context.Context, ns string, id ID, increment time.Duration) (out Renewed, again bool, err error) {
	key, r, err := s.find(ctx, ns, id)
	if err != nil {
		return out, false, err
	}
	if err := s.live(ctx, ns, r); err != nil {
		return out, false, err
	}
	if !r.Renewable {
		return out, false, errs.New(errs.Invalid, "lease is not renewable")
	}
	if increment <= 0 {
		increment = r.TTL
	}
	now := s.cfg.Now().Round(0)
	until := now.Add(increment)
	if until.After(r.MaxExpires) {
		until, out.Capped = r.MaxExpires, true
	}
	k, ok := s.cfg.Kind(mountOf(key), r.Kind)
	if !ok {
		return out, false, errs.New(errs.Unavailable, "the engine of this lease is not loaded; see the server's log")
	}
	mark := r.mark(s.cfg.Origin.Instance, key)
	// The target's own expiry is never earlier than the lease's: also while
	// a renewal makes it shorter, which may fail half way.
	there, before := until, r.Expires
	if before.After(there) {
		there = before
	}
	// A login that others hold too is never shortened under them.
	shared, err := s.sharedUntil(ctx, r)
	if err != nil {
		return out, false, err
	}
	if shared.After(there) {
		there = shared
	}
	err = s.cfg.Lanes.Create(ctx, r.Target, func(ctx context.Context) error {
		return k.renew(ctx, r.Target, r.KindVersion, r.Ref, mark, there)
	})
	if err != nil {
		return out, false, fmt.Errorf("renewing at the target: %w", err)
	}
	lost := false
	_, err = s.cfg.Store.Update(context.WithoutCancel(ctx), func(tx storage.Tx) error {
		lost, again = false, false
		if r, err = getRow(tx, key); err != nil {
			return err
		}
		switch {
		case r == nil:
			lost = true
			return nil
		case r.Ending != nil:
			// The target may have been extended after its undo: queue that again.
			lost = true
			if err := r.putDue(tx, key, s.cfg.Now(), s.cfg.Now()); err != nil {
				return err
			}
			return putRow(tx, key, r)
		case !r.Expires.Equal(before):
			// Another renewal came in between, and which of the two the
			// target took last is not known.
			again = true
			return nil
		}
		if r.Cred != "" {
			var moved bool
			if moved, err = extendCredential(tx, r.Cred, shared, there); moved || err != nil {
				again = moved
				return err
			}
		}
		r.Expires, r.Renewed = until, now
		if err := r.putDue(tx, key, until, now); err != nil {
			return err
		}
		return putRow(tx, key, r)
	})
	switch {
	case err != nil:
		return out, false, fmt.Errorf("writing a renewal: %w", err)
	case lost:
		return out, false, errNoLease()
	case again:
		return out, true, nil
	}
	out.Info = r.info(key)
	out.TTL = until.Sub(now).Round(time.Second)
	return out, false, nil
}

// sharedUntil is the target's expiry of a login that leases share; zero for a
// lease that has its own.
func (s *Store) sharedUntil(ctx context.Context, r *row) (until time.Time, err error) {
	if r.Cred == "" {
		return until, nil
	}
	err = s.cfg.Store.View(ctx, func(v storage.View) error {
		c, err := getCredential(v, r.Cred)
		if isBadRow(err) || err == nil && c == nil {
			err = errs.Wrap(errs.Unavailable, errNoCredential, "the lease cannot be renewed: what it shares with others cannot be read; issue a new one")
		}
		if err == nil {
			until = c.Until
		}
		return err
	})
	return until, err
}

// extendCredential writes down that the target was extended, unless another
// renewal came in between: which of the two it took last is not known then.
func extendCredential(tx storage.Tx, key string, before, until time.Time) (moved bool, err error) {
	c, err := getCredential(tx, key)
	if err != nil || c == nil || !c.Until.Equal(before) {
		return err == nil, err
	}
	c.Until = until
	return false, putCredential(tx, key, c)
}
