package token

import (
	"context"
	"errors"
	"time"

	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage"
)

const (
	atOnce   = 11  // tokens that one transaction ends: each has up to eight keys
	pageSize = 256 // rows that are read at a time
)

// Handler does the due work of kind DueKind.
func (s *Store) Handler() lane.Handler { return handler{s} }

type handler struct{ s *Store }

// doomed is a token in the lane's hands.
type doomed struct {
	key     string
	entry   *Entry
	word    string
	renewed bool
}

// Run implements lane.Handler: it marks what has expired, hands the mark down
// to children, makes owned leases due, and then removes the rows.
func (h handler) Run(ctx context.Context, _ string, items []lane.Work) (last error) {
	work := context.WithoutCancel(ctx)
	for len(items) > 0 {
		n, begun := min(len(items), atOnce), time.Now()
		if err := h.s.end(work, items[:n]); err != nil {
			h.s.cfg.Log.Error("ending tokens; it is done again", "error", err)
			last = err
		}
		if n >= lane.Crowd { // refused already, gone or not
			lane.Rest(ctx, begun, 2)
		}
		items = items[n:]
	}
	return last
}

func (s *Store) end(ctx context.Context, items []lane.Work) error {
	fenced := s.cfg.Fenced != nil && s.cfg.Fenced()
	now := s.cfg.Now()
	var batch, expired []*doomed
	var strays []lane.Work
	err := s.cfg.Store.View(ctx, func(v storage.View) error {
		for _, w := range items {
			e, err := readRow(v, w.ID)
			if isBadRow(err) {
				s.cfg.Log.Error("a token row cannot be read; it waits", "error", err)
				continue
			}
			if err != nil {
				return err
			}
			if e == nil {
				strays = append(strays, w)
				continue
			}
			word, err := v.Get(alivePrefix + w.ID)
			if err != nil {
				return err
			}
			d := &doomed{key: w.ID, entry: e, word: string(word)}
			switch {
			case !e.Due.Equal(w.Due):
				strays = append(strays, w)
				continue
			case fenced && (d.word == lease.Alive || d.word == lapsed):
				continue
			case d.word == lease.Alive:
				expired = append(expired, d)
			}
			batch = append(batch, d)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.markExpired(ctx, expired, strays, now); err != nil {
		return err
	}
	gone := batch[:0]
	var failed []error
	for _, d := range batch {
		if d.renewed {
			continue
		}
		// The mark is durable: what was committed before it is seen now.
		if d.word == orphaning {
			err = s.orphanChildren(ctx, d.key)
		}
		if d.word != orphaning || errors.Is(err, ErrInvalid) { // it was ended with its children after all
			// A child can have been added between the snapshot and the mark.
			word := lease.Ended
			if d.word == lapsed {
				word = lapsed
			}
			err = s.eachChildPage(ctx, d.key, func(kids []string) error {
				return s.markEnded(ctx, word, kids...)
			})
		}
		if err == nil && s.cfg.EndLeases != nil {
			err = s.cfg.EndLeases(ctx, d.key, d.word == lapsed)
		}
		if err == nil && s.cfg.Dropped != nil {
			err = s.cfg.Dropped(ctx, d.entry.Namespace, d.key)
		}
		if err != nil {
			failed = append(failed, err) // the others need not wait for it
			continue
		}
		gone = append(gone, d)
	}
	return errors.Join(append(failed, s.remove(ctx, gone))...)
}

// markExpired marks tokens whose time is over, re-checking it in the
// transaction, and deletes due keys that lead nowhere.
func (s *Store) markExpired(ctx context.Context, expired []*doomed, strays []lane.Work, now time.Time) error {
	if len(expired)+len(strays) == 0 {
		return nil
	}
	_, err := s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
		for _, w := range strays {
			e, err := readRow(tx, w.ID)
			if err != nil && !isBadRow(err) {
				return err
			}
			if err != nil || e != nil && e.Due.Equal(w.Due) {
				continue // it came back to this time meanwhile
			}
			if err := tx.Delete(w.Key); err != nil {
				return err
			}
		}
		for _, d := range expired {
			e, err := readRow(tx, d.key)
			if err != nil && !isBadRow(err) {
				return err
			}
			if d.renewed = e == nil || e.Expires.IsZero() || e.Expires.After(now); d.renewed {
				continue
			}
			word, err := tx.Get(alivePrefix + d.key)
			if err != nil {
				return err
			}
			if d.word = lapsed; string(word) == lease.Ended {
				d.word = lease.Ended // somebody revoked it meanwhile
				continue
			}
			if err := tx.Put(alivePrefix+d.key, []byte(lapsed)); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// End is a token that has ended, for its audit record.
type End struct {
	*Entry
	Cause lease.Cause
}

// remove deletes the rows of ended tokens.
func (s *Store) remove(ctx context.Context, batch []*doomed) error {
	if len(batch) == 0 {
		return nil
	}
	_, err := s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
		counts := map[string]int64{}
		var ends []End
		for _, d := range batch {
			e, err := readRow(tx, d.key)
			if err != nil && !isBadRow(err) {
				return err
			}
			if e == nil {
				continue
			}
			word, err := tx.Get(alivePrefix + d.key)
			if err != nil {
				return err
			}
			if d.word == lapsed && string(word) == lease.Ended {
				continue // revoked meanwhile, and due again: its leases are to go in any case
			}
			dels := []string{
				rowPrefix + d.key, alivePrefix + d.key,
				s.accessorKey(e.Namespace, e.Accessor),
			}
			if !e.Due.IsZero() {
				dels = append(dels, e.dueKey(d.key))
			}
			if e.Parent != "" {
				dels = append(dels, kidPrefix+e.Parent+"/"+d.key)
			}
			if e.NumUses > 0 {
				dels = append(dels, usesPrefix+d.key)
			}
			for _, k := range dels {
				if err := tx.Delete(k); err != nil {
					return err
				}
			}
			counts[e.counter()]--
			cause := lease.Revoked
			if d.word == lapsed && s.expired(e) {
				cause = lease.Expired
			}
			ends = append(ends, End{Entry: e, Cause: cause})
		}
		if s.cfg.Record != nil && len(ends) > 0 {
			if err := s.cfg.Record(tx, ends); err != nil {
				return err
			}
		}
		for counter, n := range counts {
			if err := s.addCount(tx, counter, n); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}
