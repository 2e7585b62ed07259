package lease

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/storage"
)

// waitAtMost bounds how long a revocation is waited for when the request has
// no deadline of its own, and waitMargin is left of one for the answer.
const (
	waitAtMost = 60 * time.Second
	waitMargin = 500 * time.Millisecond
	pageSize   = 480 // leases of a prefix that are marked and waited for together
)

// Pending says what of a revocation was still going on when it was answered.
type Pending struct {
	Cleaning bool // logins are off, cleaning up goes on
}

// Revoke ends one lease. Without sync it returns when no new login is possible,
// with sync when the login is gone; what outlasts the request's deadline goes
// on. Revoking what is gone already is no error.
func (s *Store) Revoke(ctx context.Context, ns string, id ID, cause Cause, sync bool) (Pending, error) {
	key, r, err := s.find(ctx, ns, id)
	if err != nil || r == nil {
		return Pending{}, err
	}
	words, stop := s.waits.listen(key)
	defer stop()
	if err := s.makeDue(ctx, []string{key}, cause); err != nil {
		return Pending{}, err
	}
	ctx, cancel := waitContext(ctx)
	defer cancel()
	if cause == Forced {
		defer s.forgetting(ctx, []string{key})()
	}
	return s.wait(ctx, key, words, sync || cause == Forced)
}

func waitContext(ctx context.Context) (context.Context, context.CancelFunc) {
	if d, ok := ctx.Deadline(); ok {
		return context.WithDeadline(ctx, d.Add(-waitMargin))
	}
	return context.WithTimeout(ctx, waitAtMost)
}

// wait follows one lease until the stage that was asked for.
func (s *Store) wait(ctx context.Context, key string, words <-chan stage, sync bool) (Pending, error) {
	disabled := false
	for {
		select {
		case w := <-words:
			switch {
			case w.at == stageGone || w.at == stageDropped:
				return Pending{}, nil
			case w.at == stageDisabled && !sync:
				return Pending{}, nil
			case w.at == stageDisabled:
				disabled = true
			case w.at == stageLater && w.err == nil:
				// The target has no such login now; the row stays only until
				// none can appear any more.
				return Pending{Cleaning: true}, nil
			case w.at == stageLater && disabled:
				return Pending{Cleaning: true}, nil
			case w.at == stageLater:
				return Pending{}, errs.Wrap(errs.Upstream, w.err,
					"the lease is ending, but its target refuses or does not answer: a login may still work. It is tried again; `sys/leases/lookup` lists the error")
			}
		case <-ctx.Done():
			if disabled {
				return Pending{Cleaning: true}, nil
			}
			// Somebody else's process may have ended it unheard.
			gone := false
			err := s.cfg.Store.View(context.WithoutCancel(ctx), func(v storage.View) error {
				r, err := getRow(v, key)
				gone = r == nil
				return err
			})
			if err == nil && gone {
				return Pending{}, nil
			}
			return Pending{}, errs.Wrap(errs.Upstream, ctx.Err(),
				"the lease is ending, but its target did not answer in time: a login may still work. It is tried again")
		}
	}
}

// makeDue writes the ending mark and puts the lease at the head of its lane.
// Those that are gone are passed over.
func (s *Store) makeDue(ctx context.Context, keys []string, cause Cause) error {
	return s.putEnding(ctx, keys, cause, false)
}

func (s *Store) putEnding(ctx context.Context, keys []string, cause Cause, lapsed bool) error {
	for len(keys) > 0 {
		n := min(len(keys), markAtOnce)
		part := keys[:n]
		_, err := s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
			now := s.cfg.Now()
			for _, key := range part {
				r, err := getRow(tx, key)
				if isBadRow(err) {
					s.cfg.Log.Error("a lease row cannot be read; it is left out of a revocation", "key", key, "error", err)
					continue
				}
				if err != nil {
					return err
				}
				if r == nil {
					continue
				}
				switch {
				case r.Ending == nil:
					r.Ending = &rowEnding{Cause: cause, Lapsed: lapsed, At: now.Round(0)}
				case cause.Explicit() && (cause == Forced || !r.Ending.Cause.Explicit()), !lapsed && r.Ending.byTime():
					r.Ending.Cause, r.Ending.Lapsed = cause, false
				}
				if err := r.putDue(tx, key, now, now); err != nil {
					return err
				}
				if err := putRow(tx, key, r); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

const (
	// forgetEvery is how often a forced revocation looks whether its target is
	// one that does not answer, and forgetAfter how long that may take to.
	forgetEvery = time.Second
	forgetAfter = 5 * time.Second
)

// forgetting ends leases that an operator wants forgotten while their target
// does not answer, until ctx ends or the func is called. Their lane tries one
// lease at a time then, the oldest first, which may be another one for as long
// as the target is away.
func (s *Store) forgetting(ctx context.Context, keys []string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(forgetEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if err := s.forget(context.WithoutCancel(ctx), keys); err != nil {
				s.cfg.Log.Error("forgetting leases whose target does not answer; it is tried again", "error", err)
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// forget ends those of the leases whose target does not answer. It is asked
// about one of them: it may have come back since its lane tried.
func (s *Store) forget(ctx context.Context, keys []string) error {
	batches := map[string][]*ending{} // by target
	now := s.cfg.Now()
	err := s.cfg.Store.View(ctx, func(v storage.View) error {
		for _, key := range keys {
			r, err := getRow(v, key)
			if err != nil && !isBadRow(err) {
				return err
			}
			if err != nil || r == nil || r.Ending == nil || r.Ending.Cause != Forced {
				continue
			}
			e := &ending{key: key, row: r, work: lane.Work{Key: r.dueKey(key), Target: r.Target, Due: r.Due, ID: key}, store: s}
			landed := s.landed(e)
			e.late = !now.Before(landed)
			if e.late || r.Due.Before(landed) { // else it waits for that already
				batches[r.Target] = append(batches[r.Target], e)
			}
		}
		return nil
	})
	for target, batch := range batches {
		st := s.cfg.Lanes.Status(target)
		if err != nil || !st.Open {
			continue
		}
		if batch, err = s.release(ctx, batch); err != nil || len(batch) == 0 {
			continue
		}
		if away := s.tryOne(ctx, target, batch[0]); away == nil {
			batch = batch[:1] // and its lane will find that it is back
		} else {
			for _, e := range batch {
				e.finished, e.err = true, away
			}
		}
		err = s.settle(ctx, batch)
	}
	return err
}

// tryOne has the target end one lease. Its error is a target that does not
// answer, whatever else came of it.
func (s *Store) tryOne(ctx context.Context, target string, e *ending) (away error) {
	ctx, cancel := context.WithTimeout(ctx, forgetAfter)
	defer cancel()
	e.mark = e.row.mark(s.cfg.Origin.Instance, e.key)
	k, ok := s.cfg.Kind(mountOf(e.key), e.row.Kind)
	switch {
	case e.lost:
		e.done(errNoCredential)
	case ok:
		s.ask(ctx, k, target, []*ending{e})
	}
	e.done(errors.New("the engine of this lease is not loaded, or gave no result; see the server's log"))
	if e.err != nil && (lane.IsConnFault(e.err) || ctx.Err() != nil) {
		return errors.New(e.err.Error())
	}
	return nil
}

// Scope is a range of leases: those of one mount below a path in it.
type Scope struct {
	Mount Mount
	Rel   string // "" for all of the mount
	// issued is the beginning of the paths that are meant, at a mount's former
	// path; "" for whatever the mount has.
	issued string
}

// Scopes are the ranges that a lease path prefix covers.
func (s *Store) Scopes(ns, prefix string) []Scope {
	prefix = strings.TrimPrefix(prefix, "/")
	var out []Scope
	for _, m := range s.cfg.Mounts(ns, prefix) {
		issued := ""
		if m.Former {
			issued = prefix
		}
		if rel, ok := strings.CutPrefix(prefix, m.Path); ok {
			out = append(out, Scope{m, rel, issued})
		} else if strings.HasPrefix(m.Path, prefix) {
			out = append(out, Scope{m, "", issued})
		}
	}
	return out
}

func (sc Scope) rows() (from, to string) {
	base := rowPrefix + sc.Mount.Namespace + "/" + sc.Mount.ID + "/" + sc.Rel
	return base, storage.PrefixEnd(base)
}

// holds reports whether a row in the scope's range is meant. One that cannot be
// read does not say where it was issued.
func (sc Scope) holds(key string, b []byte, bad error) bool {
	if sc.issued == "" {
		return true
	}
	if bad != nil {
		return false
	}
	r, err := decodeRow(key, b)
	return err == nil && strings.HasPrefix(r.Path+"/", sc.issued)
}

// page reads up to n lease keys of a scope after a key.
func (s *Store) page(ctx context.Context, sc Scope, after string, n int) (keys []string, err error) {
	from, to := sc.rows()
	if after != "" {
		from = rowPrefix + after + "\x00"
	}
	err = s.cfg.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, from, to, 0, func(key string, b []byte, bad error) bool {
			if sc.holds(key, b, bad) {
				keys = append(keys, key[len(rowPrefix):])
			}
			return len(keys) < n
		})
	})
	return keys, err
}

// RevokePrefix ends every lease whose id begins with prefix, page by page.
// Without sync it returns when all are due. With sync, or when forced, it
// waits until the logins are gone, as Revoke does. The error is the first of
// the target's; all leases are due nevertheless.
func (s *Store) RevokePrefix(ctx context.Context, ns, prefix string, cause Cause, sync bool) (Pending, error) {
	var p Pending
	var firstErr error
	ctx, cancel := waitContext(ctx)
	defer cancel()
	waiting := sync || cause == Forced
	for _, sc := range s.Scopes(ns, prefix) {
		after := ""
		for {
			keys, err := s.page(ctx, sc, after, pageSize)
			if err != nil {
				return p, err
			}
			if len(keys) == 0 {
				break
			}
			after = keys[len(keys)-1]
			if !waiting {
				if err := s.makeDue(ctx, keys, cause); err != nil {
					return p, err
				}
				continue
			}
			one, err := s.revokePage(ctx, keys, cause)
			p.Cleaning = p.Cleaning || one.Cleaning
			switch {
			case err != nil && !errs.Is(err, errs.Upstream):
				return p, err
			case err != nil && firstErr == nil:
				firstErr = err
			}
			// Once the time is over the rest is made due and not waited for.
			if ctx.Err() != nil {
				waiting = false
				ctx = context.WithoutCancel(ctx)
			}
		}
	}
	return p, firstErr
}

func (s *Store) revokePage(ctx context.Context, keys []string, cause Cause) (p Pending, err error) {
	words := make([]<-chan stage, len(keys))
	for i, k := range keys {
		c, stop := s.waits.listen(k)
		defer stop()
		words[i] = c
	}
	if err := s.makeDue(context.WithoutCancel(ctx), keys, cause); err != nil {
		return p, err
	}
	if cause == Forced {
		defer s.forgetting(ctx, keys)()
	}
	var all []error
	for i, k := range keys {
		one, err := s.wait(ctx, k, words[i], true)
		p.Cleaning = p.Cleaning || one.Cleaning
		if err != nil {
			all = append(all, err)
		}
	}
	return p, errors.Join(all[:min(len(all), 1)]...)
}

// RevokeMount makes every lease of a mount due: it is being disabled.
func (s *Store) RevokeMount(ctx context.Context, m Mount) error {
	return s.dueAll(ctx, Scope{Mount: m}, Unmounted)
}

func (s *Store) dueAll(ctx context.Context, sc Scope, cause Cause) error {
	after := ""
	for {
		keys, err := s.page(ctx, sc, after, pageSize)
		if err != nil || len(keys) == 0 {
			return err
		}
		after = keys[len(keys)-1]
		if err := s.makeDue(ctx, keys, cause); err != nil {
			return err
		}
	}
}

// RevokeOwned makes every lease of a token due. The token's own mark must be
// durable before: then nothing is committed that this walk does not see. lapsed
// says that the token's time ran out, or that of one above it: what is due then
// waits as what expires does, until its target was met and behind a fence.
func (s *Store) RevokeOwned(ctx context.Context, owner string, lapsed bool) error {
	prefix := ownPrefix + owner + "/"
	from := prefix
	for {
		var keys []string
		err := s.cfg.Store.View(ctx, func(v storage.View) error {
			return storage.ScanEach(v, from, storage.PrefixEnd(prefix), pageSize, func(key string, _ []byte, _ error) bool {
				keys = append(keys, key[len(prefix):]) // the key says it all
				return true
			})
		})
		if err != nil || len(keys) == 0 {
			return err
		}
		from = prefix + keys[len(keys)-1] + "\x00"
		if err := s.putEnding(ctx, keys, TokenEnd, lapsed); err != nil {
			return err
		}
	}
}
