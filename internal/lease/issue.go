package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/trace"
)

// Holder is who a lease is issued to, and under which conditions.
type Holder struct {
	Namespace string
	Mount     Mount
	// Owner is the keyed hash of the token that owns the lease: a batch
	// token's parent, or "" for a batch token without one.
	Owner string
	// Live are the liveness keys that must be present and without an ending
	// mark when the lease is committed: the token's own, the mount's, the
	// namespace's.
	Live []string
	// Until cuts the lease (a batch token's end); zero cuts nothing.
	Until time.Time
	// Who is the entity that holds the lease, or the token where there is
	// none: caps and sharing go by it.
	Who string
}

// A liveness key holds Alive. Whoever begins to end its thing writes Ended (or
// another word), and what is gone has no key.
const (
	Alive = "alive"
	Ended = "ended"
)

// ErrNotLive is what Commit returns when a liveness key is gone or marked.
var ErrNotLive = errs.New(errs.Denied, "permission denied: the token, mount or connection has just ended")

// Issued is a committed lease whose credential is being made.
type Issued struct {
	Info
	Draft *Draft
	Made  Made
	plan  *Plan
	ns    string
	cred  string // the credential's key, where it may be shared
}

// Commit writes the lease down, on condition that everything it hangs from is
// alive: step 2 of an issue. Nothing has been asked of the target yet. ttl and
// maxTTL are final, in whole seconds.
func (s *Store) Commit(ctx context.Context, d *Draft, h Holder, p *Plan, ttl, maxTTL time.Duration) (*Issued, error) {
	if err := s.room(ctx, d, h, p); err != nil {
		return nil, err
	}
	now := s.cfg.Now().Round(0)
	limit := p.Limit
	if limit <= 0 {
		limit = DefaultLimit
	}
	r := s.newRow(d, h, p, now, ttl, maxTTL)
	r.Epoch, r.MakeBy = s.cfg.Origin.Epoch, now.Add(limit)
	r.Kind, r.KindVersion, r.Target, r.Ref, r.Names = p.Kind, p.KindVersion, p.Target, p.Ref, p.Names
	made := Made{Mark: d.mark, MakeBy: r.MakeBy, Expires: r.Expires}
	key := h.key(d, d.hash)
	reserved := key
	var c *credential
	if p.Share != nil {
		c, key = s.shared(d, h, p, r, ttl, maxTTL)
		reserved, made.Expires = credPrefix+r.Cred, c.Until
	}
	uctx, span := trace.Start(ctx, "lease commit")
	_, err := s.cfg.Store.Update(uctx, func(tx storage.Tx) error {
		if err := allAlive(tx, h.Live, p.Live); err != nil {
			return err
		}
		for _, name := range p.Names {
			v, err := tx.Get(namePrefix + name)
			if err != nil {
				return err
			}
			if v != nil {
				return errNameTaken
			}
			if err := tx.Put(namePrefix+name, []byte(reserved)); err != nil {
				return err
			}
		}
		if c != nil {
			if err := putCredential(tx, r.Cred, c); err != nil {
				return err
			}
		}
		return s.add(tx, key, r, now)
	})
	span.End(err)
	return s.committed(ctx, &Issued{Info: r.info(key), Draft: d, plan: p, ns: h.Namespace, Made: made, cred: r.Cred}, err)
}

// newRow is what is known of a lease whoever's the credential is.
func (s *Store) newRow(d *Draft, h Holder, p *Plan, now time.Time, ttl, maxTTL time.Duration) *row {
	r := &row{
		Random: d.random, Path: d.path, Owner: h.Owner, Group: p.Group,
		Issued: now, Expires: now.Add(ttl), MaxExpires: now.Add(maxTTL), TTL: ttl, Renewable: !p.NotRenewable,
	}
	if p.Caps.PerHolder > 0 {
		r.Holder = s.hashHolder(h.Who)
	}
	r.cut(h.Until)
	return r
}

// cut lets a lease end at a time at the latest; zero cuts nothing.
func (r *row) cut(at time.Time) {
	if at.IsZero() {
		return
	}
	if r.Expires.After(at) {
		r.Expires, r.TTL = at, at.Sub(r.Issued).Truncate(time.Second)
	}
	if r.MaxExpires.After(at) {
		r.MaxExpires = at
	}
}

// key is where a lease of this holder stands.
func (h *Holder) key(d *Draft, hash string) string {
	return leaseKey(h.Namespace, h.Mount.ID, h.rel(d), hash)
}

func (h *Holder) rel(d *Draft) string { return strings.TrimPrefix(d.path, h.Mount.Path) }

// allAlive is ErrNotLive unless every liveness key says so.
func allAlive(tx storage.Tx, lists ...[]string) error {
	for _, list := range lists {
		for _, k := range list {
			v, err := tx.Get(k)
			if err != nil {
				return err
			}
			if string(v) != Alive {
				return ErrNotLive
			}
		}
	}
	return nil
}

// add writes a lease with all that hangs from it.
func (s *Store) add(tx storage.Tx, key string, r *row, now time.Time) error {
	r.Due = time.Time{}
	if err := r.putDue(tx, key, r.Expires, now); err != nil {
		return err
	}
	for _, k := range r.indexes(key) {
		if err := tx.Put(k, nil); err != nil {
			return err
		}
	}
	changed := deltas{}
	changed.add(key, r, 1)
	if err := changed.write(tx, s.cfg.Part); err != nil {
		return err
	}
	return putRow(tx, key, r)
}

// indexes are the empty keys by which a lease is found.
func (r *row) indexes(key string) (keys []string) {
	if r.Owner != "" {
		keys = append(keys, r.ownKey(key))
	}
	if r.Holder != "" {
		keys = append(keys, r.heldKey(key))
	}
	return keys
}

// committed takes note of a lease that was written, or undoes it.
func (s *Store) committed(ctx context.Context, l *Issued, err error) (*Issued, error) {
	if err != nil {
		if err != ErrNotLive && err != errNameTaken && err != errNotShared {
			// The store may have written it all the same: then it is a lease
			// of nothing, and ends at its expiry unless this succeeds.
			_ = s.Undo(context.WithoutCancel(ctx), l, MakeFailed)
		}
		return nil, fmt.Errorf("committing a lease: %w", err)
	}
	if !s.making.add(l) {
		if uerr := s.Undo(context.WithoutCancel(ctx), l, MakeFailed); uerr != nil {
			return nil, errors.Join(errStopping, uerr)
		}
		return nil, errStopping
	}
	return l, nil
}

// errStopping is for who asked for a credential that the server, which is being
// sealed or stopped, does not wait for any more.
var errStopping = errs.New(errs.Unavailable, "the server is being sealed or stopped; ask again when it is open")

// making holds the leases of this process between their commit and their
// confirmation, so that stopping can make the rest due. It is no truth: after
// a crash they end at their expiry.
type making struct {
	mu     sync.Mutex
	now    map[*Issued]struct{}
	closed bool // the rest was made due: none is added or confirmed any more
}

func (m *making) add(l *Issued) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	if m.now == nil {
		m.now = map[*Issued]struct{}{}
	}
	m.now[l] = struct{}{}
	return true
}

// done reports whether the lease still was its request's own.
func (m *making) done(l *Issued) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.now, l)
	return !m.closed
}

func (m *making) close() []*Issued {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return slices.Collect(maps.Keys(m.now))
}

// UndoMaking makes due what is still being made: the server stops and waits no
// longer. Whoever asked for it gets an error at its confirmation, and who comes
// later at the commit.
func (s *Store) UndoMaking(ctx context.Context) (n int, err error) {
	list := s.making.close()
	var failed []error
	for _, l := range list {
		failed = append(failed, s.Undo(ctx, l, MakeUnknown))
	}
	return len(list), errors.Join(failed...)
}

// Make asks the target for the credential: step 3. Its context outlives the
// client and ends at make_by; nobody starts after it. A failure makes the
// lease due before it is returned.
func (s *Store) Make(ctx context.Context, l *Issued) (out any, err error) {
	left := l.Made.MakeBy.Sub(s.cfg.Now())
	mctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), left)
	defer cancel()
	mctx, span := trace.Start(mctx, "lease make")
	defer func() { span.End(err) }()
	begun := true
	defer func() {
		if begun { // still: a panic, and the lease must not stand until it expires
			_ = s.Undo(context.WithoutCancel(ctx), l, MakeUnknown)
			s.making.done(l)
		}
	}()
	if left <= 0 {
		err = errs.New(errs.Upstream, "the credential could not be made in time; try again")
	} else {
		out, err = l.plan.Make(mctx, l.Made)
	}
	begun = false
	if err == nil {
		return out, nil
	}
	defer s.making.done(l)
	outcome := MakeFailed
	if errors.Is(err, ErrUnknown) {
		outcome = MakeUnknown
	}
	if uerr := s.Undo(context.WithoutCancel(ctx), l, outcome); uerr != nil {
		// The lease stands as it was committed and ends when it expires.
		s.cfg.Log.Error("making a lease due after a failed creation; it ends at its expiry",
			"mount", l.MountID, "target", l.Target, "error", uerr)
	}
	return nil, err
}

// Confirm reads the lease and its owner's chain again: step 4. A lease found
// ending or gone is undone, and the caller gets the error.
func (s *Store) Confirm(ctx context.Context, l *Issued) error {
	defer s.making.done(l)
	var r *row
	err := s.cfg.Store.View(ctx, func(v storage.View) (err error) {
		r, err = getRow(v, l.key)
		return err
	})
	if err == nil {
		err = s.live(ctx, l.ns, r)
		if err == nil && s.making.done(l) {
			s.counted.issued.Add(1)
			return nil
		}
		switch {
		case err == nil:
			err = errStopping
		case !errs.Is(err, errs.Invalid): // not known whether it is live
		case r != nil && !r.Expires.After(s.cfg.Now()):
			err = errs.New(errs.Invalid, "the lease's TTL of %s was over before the credential was made; give the role a longer default_ttl", r.TTL)
		default:
			err = errs.New(errs.Denied, "permission denied: the token or the lease was revoked while the credential was made")
		}
	}
	if uerr := s.Undo(context.WithoutCancel(ctx), l, MakeDone); uerr != nil {
		return errors.Join(err, uerr)
	}
	return err
}

// Outcome says what is known of a creation that is undone.
type Outcome uint8

// The outcomes.
const (
	MakeDone    Outcome = iota // the credential was made; nobody gets it
	MakeFailed                 // it is known not to have been made
	MakeUnknown                // it may yet appear, until make_by
)

// Undo makes a lease due at once: making failed, the client went away, or the
// answer could not be audited.
func (s *Store) Undo(ctx context.Context, l *Issued, o Outcome) error {
	_, err := s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
		r, err := getRow(tx, l.key)
		if err != nil || r == nil {
			return err
		}
		if r.Ending == nil {
			r.Ending = &rowEnding{Cause: Undone, At: s.cfg.Now().Round(0)}
		}
		r.Ending.Failed = o == MakeFailed
		r.Ending.Unknown = o == MakeUnknown
		if err := r.putDue(tx, l.key, s.cfg.Now(), s.cfg.Now()); err != nil {
			return err
		}
		return putRow(tx, l.key, r)
	})
	if err != nil {
		return fmt.Errorf("undoing a lease: %w", err)
	}
	return nil
}
