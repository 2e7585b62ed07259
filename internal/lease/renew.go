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

// Renew extends a lease: the target first, then the lease, if it is still
// live. increment counts from now; zero takes the lease's own TTL again.
func (s *Store) Renew(ctx context.Context, ns string, id ID, increment time.Duration) (Renewed, error) {
	key, r, err := s.find(ctx, ns, id)
	if err != nil {
		return Renewed{}, err
	}
	if err := s.live(ctx, ns, r); err != nil {
		return Renewed{}, err
	}
	if !r.Renewable {
		return Renewed{}, errs.New(errs.Invalid, "lease is not renewable")
	}
	if increment <= 0 {
		increment = r.TTL
	}
	now := s.cfg.Now().Round(0)
	until, capped := now.Add(increment), false
	if until.After(r.MaxExpires) {
		until, capped = r.MaxExpires, true
	}
	k, ok := s.cfg.Kind(mountOf(key), r.Kind)
	if !ok {
		return Renewed{}, errs.New(errs.Unavailable, "the engine of this lease is not loaded; see the server's log")
	}
	mark := Origin{Instance: s.cfg.Origin.Instance, Epoch: r.Epoch}.mark(hashInKey(key))
	err = s.cfg.Lanes.Create(ctx, r.Target, func(ctx context.Context) error {
		return k.renew(ctx, r.Target, r.KindVersion, r.Ref, mark, until)
	})
	if err != nil {
		return Renewed{}, fmt.Errorf("renewing at the target: %w", err)
	}
	lost := false
	_, err = s.cfg.Store.Update(context.WithoutCancel(ctx), func(tx storage.Tx) error {
		lost = false
		if r, err = getRow(tx, key); err != nil {
			return err
		}
		if r == nil || r.Ending != nil {
			lost = true
			if r == nil {
				return nil
			}
			// The target may have been extended after its undo: queue that again.
			if err := r.putDue(tx, key, s.cfg.Now()); err != nil {
				return err
			}
			return putRow(tx, key, r)
		}
		r.Expires, r.Renewed = until, now
		if err := r.putDue(tx, key, until); err != nil {
			return err
		}
		return putRow(tx, key, r)
	})
	switch {
	case err != nil:
		return Renewed{}, fmt.Errorf("writing a renewal: %w", err)
	case lost:
		return Renewed{}, errNoLease()
	}
	s.counted.renewed.Add(1)
	in := r.info(key)
	in.TTL = until.Sub(now).Round(time.Second)
	return Renewed{Info: in, Capped: capped}, nil
}
