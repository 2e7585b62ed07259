package lease

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/storage"
)

// Caps bound how many leases of a group live at once, those on their way out
// included: their logins may work yet. Zero bounds nothing. What is being issued
// at the same moment is not seen, so that a cap may be overshot by the requests
// in flight; in return no two requests wait for each other.
type Caps struct {
	Group     int // of the whole group
	PerHolder int // of one holder in it, issued since this cap was set
}

// The leases of a holder are found by keys of their own, and not by a counter
// of each holder: a key is written and deleted with its lease, and a cap on one
// holder is a small number.
//
//	held/<mount>/<group>/<holder>/<lease key>
const heldPrefix = "held/"

func heldRange(mount, group, holder string) string {
	return heldPrefix + mount + "/" + group + "/" + holder + "/"
}

func (r *row) heldKey(key string) string { return heldRange(mountOf(key), r.Group, r.Holder) + key }

func (s *Store) hashHolder(who string) string {
	h := s.cfg.Hash("lease-holder:" + who)
	return hex.EncodeToString(h[:16])
}

// lookedAt is how many leases are asked when the next one ends: enough to be
// near the truth, and never a walk over all of them. Each is a bound for it.
const lookedAt = 256

// room refuses a lease for which a cap has no room, and says when there will be
// some.
func (s *Store) room(ctx context.Context, d *Draft, h Holder, p *Plan) error {
	if p.Caps.Group <= 0 && p.Caps.PerHolder <= 0 {
		return nil
	}
	return s.cfg.Store.View(ctx, func(v storage.View) error {
		if most := p.Caps.Group; most > 0 {
			n, err := sumOf(v, groupCounter(h.Mount.ID, p.Group))
			if err != nil {
				return err
			}
			if n >= int64(most) {
				from := rowPrefix + h.key(d, "")
				next, err := s.nextEnd(v, from, rowPrefix)
				if err != nil {
					return err
				}
				return next.refuse(s.cfg.Now(), "role %q has %d live leases and its max_live_leases is %d", p.Group, n, most)
			}
		}
		if most := p.Caps.PerHolder; most > 0 {
			from := heldRange(h.Mount.ID, p.Group, s.hashHolder(h.Who))
			n := 0
			err := v.Scan(from, storage.PrefixEnd(from), most, func(string, []byte) bool { n++; return true })
			if err != nil {
				return err
			}
			if n >= most {
				next, err := s.nextEnd(v, from, from)
				if err != nil {
					return err
				}
				return next.refuse(s.cfg.Now(), "you have %d live leases of role %q and its max_live_leases_per_entity is %d", n, p.Group, most)
			}
		}
		return nil
	})
}

// nextEnd is when the first of some leases ends: unless it is renewed, and at
// the latest.
type nextEnd struct{ expires, latest time.Time }

// nextEnd looks at the leases whose keys stand behind prefix in a range.
func (s *Store) nextEnd(v storage.View, from, prefix string) (e nextEnd, err error) {
	var keys []string
	err = v.Scan(from, storage.PrefixEnd(from), lookedAt, func(key string, _ []byte) bool {
		keys = append(keys, key[len(prefix):])
		return true
	})
	if err != nil && !isBadRow(err) {
		return e, err
	}
	sooner := func(at *time.Time, t time.Time) {
		if at.IsZero() || t.Before(*at) {
			*at = t
		}
	}
	for _, key := range keys {
		r, err := getRow(v, key)
		if err != nil && !isBadRow(err) {
			return e, err
		}
		if r == nil || r.Ending != nil {
			continue // when its target lets it go cannot be said
		}
		sooner(&e.expires, r.Expires)
		latest := r.Expires
		if r.Renewable {
			latest = r.MaxExpires
		}
		sooner(&e.latest, latest)
	}
	return e, nil
}

// askAgain is the longest that Retry-After says. A lease may be given back at any
// moment; and the clients that obey it sleep without a word, for hours if told
// so, where the sentence would tell their people what is the matter.
const askAgain = 10 * time.Second

func (e nextEnd) refuse(now time.Time, format string, args ...any) error {
	const second = time.RFC3339
	after := min(max(e.expires.Sub(now), time.Second), askAgain)
	switch {
	case e.latest.IsZero():
		return errs.Later(askAgain, format+"; they are being ended: ask again in a moment", args...)
	case !e.latest.After(e.expires):
		return errs.Later(after, format+": the next one ends at %s; revoke one, or ask again then",
			append(args, e.expires.UTC().Format(second))...)
	}
	return errs.Later(after, format+": the next one expires at %s unless it is renewed, and ends at %s at the latest; revoke one, or ask again then",
		append(args, e.expires.UTC().Format(second), e.latest.UTC().Format(second))...)
}
