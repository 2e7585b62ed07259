package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/storage"
)

const (
	// settleFixed is added to make_by before absence ends a lease: for the
	// rounding of clocks, beyond the measured offset that engines subtract.
	settleFixed = time.Second
	// rests is how many times as long as ending some leases of a crowd took
	// nothing more is asked of their target. Its syncs and ours are what others
	// wait for.
	rests = 4
	// triesFast is how often ending is tried with growing pauses before the
	// lease is called irrevocable and tried slowly.
	triesFast   = 6
	pauseFirst  = time.Second
	pauseSlow   = 30 * time.Minute
	markAtOnce  = 24 // leases changed in one transaction: a row, two due keys and perhaps a mark each
	finishBytes = storage.MaxTxBytes / 4
)

// ending is a lease in a lane's hands.
type ending struct {
	key  string
	mark string
	row  *row
	work lane.Work

	store    *Store
	lost     bool // the row of the credential that it shares is
	late     bool // no creation may land any more; so before the target is asked
	finished bool
	err      error
}

func (e *ending) disabled() { e.store.waits.tell(e.key, stageDisabled, nil) }

func (e *ending) done(err error) {
	if !e.finished {
		e.finished, e.err = true, err
	}
}

// Handler does the due work of kind DueKind.
func (s *Store) Handler() lane.Handler { return handler{s} }

type handler struct{ s *Store }

// Run implements lane.Handler: it marks, asks the kinds, and writes down what
// came of it.
func (h handler) Run(ctx context.Context, target string, items []lane.Work) error {
	// What has begun is finished within its own limits, also while the
	// server stops: a drop that is cut in the middle is only done again.
	work := context.WithoutCancel(ctx)
	begun := time.Now()
	live, unmet, err := h.s.mark(work, items)
	if err == nil {
		live, err = h.s.release(work, live)
	}
	if err != nil {
		return err
	}
	if len(live) == 0 {
		return unmet
	}
	type group struct{ mount, kind string }
	groups := map[group][]*ending{}
	// What is absent counts by the time of the question. The batch may take
	// longer than is left until make_by, and a login appear behind its back.
	asked := h.s.cfg.Now()
	for _, e := range live {
		e.late = !asked.Before(h.s.landed(e))
		if e.lost {
			e.done(errNoCredential)
		}
		if e.finished {
			continue // or its target could not be met
		}
		_, mount := mountInKey(e.key)
		g := group{mount, e.row.Kind}
		groups[g] = append(groups[g], e)
	}
	for g, batch := range groups {
		k, ok := h.s.cfg.Kind(g.mount, g.kind)
		if !ok {
			for _, e := range batch {
				e.done(errors.New("the engine of this lease is not loaded; see the server's log"))
			}
			continue
		}
		h.s.ask(work, k, target, batch)
		for _, e := range batch {
			e.done(errors.New("the engine gave no result"))
		}
	}
	if err = h.s.settle(work, live); err == nil {
		err = unmet
	}
	if len(live) >= lane.Crowd && !slices.ContainsFunc(live, func(e *ending) bool { return e.row.Ending == nil || e.row.Ending.Cause != Expired }) {
		lane.Rest(ctx, begun, rests) // somebody waits for a revocation, nobody for an expiry
	}
	return err
}

// ask lets the kind end a batch. Where it panics the leases are asked about one
// by one, so that one that the engine cannot handle harms no other.
func (s *Store) ask(ctx context.Context, k AnyKind, target string, batch []*ending) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		s.cfg.Log.Error("an engine panicked while it ended leases", "target", target, "leases", len(batch),
			"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		if len(batch) == 1 {
			batch[0].done(errors.New("the engine panicked; the server's log has the place"))
			return
		}
		for _, e := range batch {
			if !e.finished {
				s.ask(ctx, k, target, []*ending{e})
			}
		}
	}()
	k.end(ctx, target, batch)
}

// mark reads the leases behind due keys and writes the ending mark where it is
// still missing, re-checking the due time in the same transaction: a worker
// with an old page drops nobody who has just renewed. What need not be ended
// is left out of the answer.
//
// What ends by time is left alone behind a fence, marked or not: its token may
// have run out before the fence was raised. So that the fence is raised in time,
// its target is met first; unmet is a target that cannot be reached.
func (s *Store) mark(ctx context.Context, items []lane.Work) (live []*ending, unmet, err error) {
	now := s.cfg.Now()
	fenced := s.fenced()
	var byTime, unmarked []*ending
	read := func(r storage.Reader, w lane.Work) (*row, bool) {
		row, err := getRow(r, w.ID)
		if err != nil {
			s.cfg.Log.Error("a lease row cannot be read; it waits", "key", w.ID, "error", err)
			return nil, false
		}
		return row, true
	}
	err = s.cfg.Store.View(ctx, func(v storage.View) error {
		for _, w := range items {
			r, ok := read(v, w)
			e := &ending{key: w.ID, row: r, work: w, store: s}
			switch {
			case !ok:
			case r != nil && (r.Ending == nil || r.Ending.byTime() && r.Due.Equal(w.Due)):
				byTime = append(byTime, e)
			case r != nil && r.Due.Equal(w.Due):
				live = append(live, e)
			default:
				unmarked = append(unmarked, e)
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if !fenced && len(byTime) > 0 {
		unmet = s.meet(ctx, byTime)
		fenced = s.fenced()
	}
	for _, e := range byTime {
		switch {
		case fenced || unmet != nil:
		case e.row.Ending == nil:
			unmarked = append(unmarked, e)
		default:
			live = append(live, e)
		}
	}
	for len(unmarked) > 0 {
		n := min(len(unmarked), markAtOnce)
		var marked []*ending
		_, err := s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
			marked = marked[:0]
			for _, e := range unmarked[:n] {
				w := e.work
				r, ok := read(tx, w)
				switch {
				case !ok:
					continue
				case r == nil || !r.Due.Equal(w.Due):
					// Ended or moved by somebody else: this key is a stray.
					if err := tx.Delete(w.Key); err != nil {
						return err
					}
					continue
				case r.Ending == nil && r.Expires.After(now):
					if err := tx.Delete(w.Key); err != nil {
						return err
					}
					if err := r.putDue(tx, w.ID, r.Expires, now); err != nil {
						return err
					}
					if err := putRow(tx, w.ID, r); err != nil {
						return err
					}
					continue
				case r.Ending == nil:
					r.Ending = &rowEnding{Cause: Expired, At: now.Round(0)}
					if err := putRow(tx, w.ID, r); err != nil {
						return err
					}
				}
				e.row = r
				marked = append(marked, e)
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
		live = append(live, marked...)
		unmarked = unmarked[n:]
	}
	for _, e := range live {
		e.mark = e.row.mark(s.cfg.Origin.Instance, e.key)
	}
	return live, unmet, nil
}

func (s *Store) fenced() bool { return s.cfg.Fenced != nil && s.cfg.Fenced() }

// meet lets the kinds of leases that end by time get to know their target. Its
// error is a target that cannot be reached: nothing is ended before it can.
func (s *Store) meet(ctx context.Context, byTime []*ending) error {
	met := map[AnyKind]bool{}
	for _, e := range byTime {
		k, ok := s.cfg.Kind(mountOf(e.key), e.row.Kind)
		if !ok || met[k] {
			continue
		}
		switch err := k.meet(ctx, e.row.Target, e.row.KindVersion, e.row.Ref); {
		case lane.IsConnFault(err):
			return err
		case err != nil:
			e.done(err) // what else is wrong is the lease's to tell
		default:
			met[k] = true
		}
	}
	return nil
}

// settle writes down the outcome of a batch and gives the lane the target's
// own fault, if there was one, or the store's.
func (s *Store) settle(ctx context.Context, batch []*ending) (fault error) {
	now := s.cfg.Now()
	var gone, stay []*ending
	for _, e := range batch {
		end := e.row.Ending
		absent := errors.Is(e.err, ErrAbsent) || errors.Is(e.err, ErrNameTaken)
		forced := end.Cause == Forced && e.err != nil && !absent
		if forced {
			end.Error = e.err.Error()
		}
		switch {
		case e.err == nil && end.Unknown && !e.late:
			// One attempt has an unknown end. Its login was dropped, or may
			// yet appear: look again when nothing can land any more.
			s.waits.tell(e.key, stageDropped, nil)
			e.row.Due = s.landed(e)
			stay = append(stay, e)
		case (absent || forced) && !end.Failed && !e.late:
			// A creation can land after its revocation, and an operator's
			// force does not change that.
			s.waits.tell(e.key, stageLater, nil)
			e.row.Due = s.landed(e)
			stay = append(stay, e)
		case forced && lane.IsConnFault(e.err) && end.Tries == 0:
			// It may have been a connection that died while it was idle.
			s.again(e, now)
			stay = append(stay, e)
		case e.err == nil || absent || forced:
			gone = append(gone, e)
		case lane.IsConnFault(e.err):
			// The lane's breaker decides when it is tried again; the key
			// stays where it is and nothing is written.
			fault = e.err
			s.waits.tell(e.key, stageLater, e.err)
		default:
			s.again(e, now)
			stay = append(stay, e)
			s.waits.tell(e.key, stageLater, e.err)
		}
	}
	for _, err := range []error{s.remove(ctx, gone), s.reschedule(ctx, stay)} {
		if err != nil {
			s.cfg.Log.Error("writing down the end of leases; it is done again", "error", err)
			if fault == nil {
				fault = err
			}
		}
	}
	return fault
}

// landed is when no creation of a lease's login can land any more.
func (s *Store) landed(e *ending) time.Time {
	at := e.row.MakeBy.Add(settleFixed)
	if k, ok := s.cfg.Kind(mountOf(e.key), e.row.Kind); ok {
		at = at.Add(k.settle())
	}
	return at
}

func mountOf(key string) string { _, m := mountInKey(key); return m }

// again puts off a lease whose ending failed.
func (s *Store) again(e *ending, now time.Time) {
	end := e.row.Ending
	end.Tries++
	end.Error = e.err.Error()
	var wait *WaitError
	pause := pauseFirst << min(end.Tries-1, triesFast)
	if errors.As(e.err, &wait) || end.Tries >= triesFast {
		if !end.Irrevocable {
			s.cfg.Log.Warn("a lease is irrevocable; it is tried again slowly, and listed by `leasehold lease list`",
				"mount", mountOf(e.key), "target", e.row.Target, "tries", end.Tries, "error", e.err)
		}
		end.Irrevocable = true
		pause = pauseSlow
	}
	e.row.Due = now.Add(pause/2 + rand.N(pause/2+1))
}

// remove deletes the rows of ended leases with the audit records of their
// ends, as many to a transaction as fit.
func (s *Store) remove(ctx context.Context, batch []*ending) error {
	for len(batch) > 0 {
		n, keys, size := 0, 13, 0 // counts, marks and the audit's own
		for n < len(batch) {
			k := 5 + len(batch[n].row.Names)
			for _, more := range []string{batch[n].row.Group, batch[n].row.Holder, batch[n].row.Cred} {
				if more != "" {
					k++
				}
			}
			if n > 0 && (keys+k > storage.MaxTxKeys || size > finishBytes) {
				break
			}
			keys, size, n = keys+k, size+len(batch[n].row.Ref)+512, n+1
		}
		part := batch[:n]
		var deferred []*ending
		var records []Record
		_, err := s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
			deferred = deferred[:0]
			changed := deltas{}
			records = records[:0]
			for _, e := range part {
				// Read again: making may have ended with an unknown outcome
				// since, and then the lease has to stay.
				r, err := getRow(tx, e.key)
				if isBadRow(err) {
					continue
				}
				if err != nil {
					return err
				}
				if r == nil {
					continue
				}
				if r.Ending != nil && r.Ending.Unknown && !e.row.Ending.Unknown {
					deferred = append(deferred, e)
					continue
				}
				if err := removeRow(tx, e.key, r, changed); err != nil {
					return err
				}
				if r.Cred != "" {
					if err := removeCredential(tx, e.key, r); err != nil {
						return err
					}
				}
				records = append(records, s.record(e.key, r, e.row.Ending))
			}
			if s.cfg.Record != nil && len(records) > 0 {
				if err := s.cfg.Record(tx, part[0].row.Target, records); err != nil {
					return err
				}
			}
			return changed.write(tx, s.cfg.Part)
		})
		if err != nil {
			return err
		}
		s.counted.end(records)
		for _, e := range part {
			at := stageGone
			if slices.Contains(deferred, e) {
				at = stageDropped // and its row stays, due again
			}
			s.waits.tell(e.key, at, nil)
		}
		batch = batch[n:]
	}
	return nil
}

// removeRow deletes everything that hangs from a lease; what hangs from a
// credential that others may hold is left.
func removeRow(tx storage.Tx, key string, r *row, changed deltas) error {
	dels := append([]string{rowPrefix + key, r.dueKey(key)}, r.indexes(key)...)
	if r.Cred == "" {
		for _, name := range r.Names {
			dels = append(dels, namePrefix+name)
		}
	}
	for _, k := range dels {
		if err := tx.Delete(k); err != nil {
			return err
		}
	}
	changed.add(key, r, -1)
	if r.Ending != nil && r.Ending.Irrevocable {
		changed.irrevocable(key, -1)
	}
	return nil
}

func (s *Store) record(key string, r *row, end *rowEnding) Record {
	ns, mount := mountInKey(key)
	return Record{
		Time: s.cfg.Now(), Namespace: ns, MountID: mount, Path: r.Path, ID: r.id(),
		Cause: end.Cause, Target: r.Target, Issued: r.Issued, Error: end.Error,
	}
}

// reschedule writes new due times. e.row.Due holds the wanted one, e.work.Key
// the present key.
func (s *Store) reschedule(ctx context.Context, batch []*ending) error {
	for len(batch) > 0 {
		n := min(len(batch), markAtOnce)
		part := batch[:n]
		_, err := s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
			changed := deltas{}
			for _, e := range part {
				r, err := getRow(tx, e.key)
				if err != nil {
					return err
				}
				if r == nil || !r.Due.Equal(e.work.Due) || r.Ending == nil {
					continue // somebody moved it meanwhile: theirs stands
				}
				end := *e.row.Ending
				end.Unknown = end.Unknown || r.Ending.Unknown
				end.Failed = end.Failed || r.Ending.Failed
				if !r.Ending.byTime() {
					end.Cause, end.Lapsed = r.Ending.Cause, false
				}
				if end.Irrevocable && !r.Ending.Irrevocable {
					changed.irrevocable(e.key, 1)
				}
				end.Irrevocable = end.Irrevocable || r.Ending.Irrevocable
				r.Ending = &end
				if err := r.putDue(tx, e.key, e.row.Due, s.cfg.Now()); err != nil {
					return err
				}
				if err := putRow(tx, e.key, r); err != nil {
					return err
				}
			}
			return changed.write(tx, s.cfg.Part)
		})
		if err != nil {
			return err
		}
		batch = batch[n:]
	}
	return nil
}
