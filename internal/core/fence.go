package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage"
)

// What is stored of time, and under which keys:
//
//	core/clock   clockRow, JSON: whose store this is and the latest time seen
//	core/fence   fenceRow, JSON: expiry waits; no row: it does not
const (
	clockKey = "core/clock"
	fenceKey = "core/fence"
)

// clockRow is read and written at each unsealing, and once a minute.
type clockRow struct {
	V        int       `json:"v"`
	Instance string    `json:"instance"` // random, made at init; part of every mark
	Cluster  string    `json:"cluster"`  // a UUID, for seal-status
	Epoch    uint64    `json:"epoch"`    // unsealings so far
	Seen     time.Time `json:"seen"`     // the highest wall time seen
}

type fenceRow struct {
	V      int       `json:"v"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

const (
	// clockStep is how far wall and monotonic time may part.
	clockStep  = 5 * time.Minute
	clockEvery = 10 * time.Second
	seenEvery  = time.Minute
)

// fence says whether expiry waits. Issuing and explicit revocation go on.
type fence struct {
	up     atomic.Bool
	reason atomic.Pointer[fenceRow]
	// set is when the clock was last known to be right.
	set atomic.Pointer[clockSet]
	// owed says that the clock row and the fence that stands are yet to be
	// written: keepTime does.
	owed atomic.Bool
}

// clockSet is one moment by the world's clock and by the machine's own.
type clockSet struct{ wall, mono time.Time }

// Fence is what health, metrics and the fence route show.
type Fence struct {
	Fenced bool
	Reason string
	Since  time.Time
}

// startClock reads whose store this is, counts this unsealing, and fences
// expiry where the time at start cannot be trusted.
//
// A store that is full is opened all the same, to be read. Its clock is then
// written by keepTime, once there is room.
func (u *unsealed) startClock(ctx context.Context) error {
	now := u.core.cfg.Now().Round(0)
	var row clockRow
	var fenced *fenceRow
	_, err := u.store.Update(ctx, func(tx storage.Tx) (err error) {
		if row, fenced, err = u.readClock(tx, now); err != nil {
			return err
		}
		if fenced != nil {
			if err := putJSON(tx, fenceKey, fenced); err != nil {
				return err
			}
		}
		return putJSON(tx, clockKey, row)
	})
	if errors.Is(err, storage.ErrReadOnly) {
		u.core.log.Warn("the store is full: what it has can be read, and nothing is issued, renewed or ended until there is room")
		u.fence.owed.Store(true)
		err = u.store.View(ctx, func(v storage.View) (err error) {
			row, fenced, err = u.readClock(v, now)
			return err
		})
	}
	if err != nil {
		return err
	}
	u.clusterID = row.Cluster
	u.origin = lease.Origin{Instance: row.Instance, Epoch: row.Epoch}
	if fenced != nil {
		u.raise(fenced)
	}
	return nil
}

// readClock reads the clock as it is from now on, and the fence that stands or
// has to be raised.
func (u *unsealed) readClock(r storage.Reader, now time.Time) (row clockRow, fenced *fenceRow, err error) {
	b, err := r.Get(clockKey)
	if err == nil && b == nil {
		err = errors.New("the store has no clock row: it was not initialised by this server")
	}
	if err != nil {
		return row, nil, err
	}
	if err := json.Unmarshal(b, &row); err != nil {
		return row, nil, fmt.Errorf("clock row: %w", err)
	}
	reason := ""
	switch gap := now.Sub(row.Seen); {
	case gap < -clockStep:
		reason = fmt.Sprintf("the clock says %s, but this store has seen %s", now.UTC().Format(time.RFC3339), row.Seen.UTC().Format(time.RFC3339))
	case u.core.cfg.MaxGap > 0 && gap > u.core.cfg.MaxGap:
		reason = fmt.Sprintf("the store was last used %s ago: it may be an old copy", gap.Round(time.Second))
	}
	row.Epoch++
	row.Seen = later(row.Seen, now)
	stands := new(fenceRow)
	switch b, err = r.Get(fenceKey); {
	case isBadRow(err) || err == nil && b != nil && json.Unmarshal(b, stands) != nil:
		// That there is one is all that counts.
		return row, &fenceRow{V: 1, Reason: "expiry was fenced, and why cannot be read", Since: now}, nil
	case err != nil:
		return row, nil, err
	case b != nil:
		return row, stands, nil
	case reason != "":
		return row, &fenceRow{V: 1, Reason: reason, Since: now}, nil
	}
	return row, nil, nil
}

func isBadRow(err error) bool {
	var bad *storage.CorruptError
	return errors.As(err, &bad)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func putJSON(tx storage.Tx, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Put(key, b)
}

func (u *unsealed) raise(row *fenceRow) {
	u.fence.reason.Store(row)
	if !u.fence.up.Swap(true) {
		u.core.log.Warn("expiry is fenced: no lease or token expires until an operator has looked; confirm with `leasehold operator fence lift`",
			"reason", row.Reason)
	}
}

// raiseFence fences expiry for a reason found while running.
func (u *unsealed) raiseFence(reason string) {
	if u.fence.up.Load() {
		return
	}
	row := &fenceRow{V: 1, Reason: reason, Since: u.core.cfg.Now().Round(0)}
	u.raise(row) // at once; the row makes it last
	_, err := u.store.Update(context.WithoutCancel(u.ctx), func(tx storage.Tx) error { return putJSON(tx, fenceKey, row) })
	if err != nil {
		u.core.log.Error("storing the fence", "error", err)
	}
}

// setClock takes the clock as right from now on.
func (u *unsealed) setClock() {
	u.fence.set.Store(&clockSet{wall: u.core.cfg.Now().Round(0), mono: u.core.cfg.Steady()})
}

// fenced reports whether expiry waits. The lanes ask it before each look at
// what is due, so that a clock which has just been moved ends nothing.
func (u *unsealed) fenced() bool {
	if u.fence.up.Load() {
		return true
	}
	set, now := u.fence.set.Load(), u.core.cfg.Now().Round(0)
	part := now.Sub(set.wall) - u.core.cfg.Steady().Sub(set.mono)
	if part <= clockStep && part >= -clockStep {
		return false
	}
	u.raise(&fenceRow{V: 1, Reason: fmt.Sprintf("the clock was moved by %s while the server ran", part.Round(time.Second)), Since: now})
	u.fence.owed.Store(true)
	return true
}

// keepTime watches the clock until sealing, and stores the latest time seen.
func (u *unsealed) keepTime(ctx context.Context) {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	stored := u.core.cfg.Now().Round(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		u.fenced()
		now, owed := u.core.cfg.Now().Round(0), u.fence.owed.Swap(false)
		if since := now.Sub(stored); since >= 0 && since < seenEvery && !owed {
			continue
		}
		stored = now
		_, err := u.store.Update(ctx, func(tx storage.Tx) error {
			b, err := tx.Get(clockKey)
			if err != nil {
				return err
			}
			var row clockRow
			if err := json.Unmarshal(b, &row); err != nil {
				return err
			}
			row.Seen = later(row.Seen, now)
			row.Epoch = max(row.Epoch, u.origin.Epoch)
			if f := u.fence.reason.Load(); owed && u.fence.up.Load() {
				if err := putJSON(tx, fenceKey, f); err != nil {
					return err
				}
			}
			return putJSON(tx, clockKey, row)
		})
		if err != nil && owed {
			u.fence.owed.Store(true)
		}
		if err != nil && ctx.Err() == nil {
			u.core.log.Warn("storing the time", "error", err)
		}
	}
}

// Fence says whether expiry waits, and why.
func (c *Core) Fence() (Fence, error) {
	u, err := c.open()
	if err != nil {
		return Fence{}, err
	}
	if !u.fence.up.Load() {
		return Fence{}, nil
	}
	row := u.fence.reason.Load()
	return Fence{Fenced: true, Reason: row.Reason, Since: row.Since}, nil
}

// LiftFence lets expiry go on: an operator has compared the targets.
func (c *Core) LiftFence(ctx context.Context) error {
	u, err := c.open()
	if err != nil {
		return err
	}
	u.setClock()                    // by which the operator has compared
	stood := u.fence.up.Swap(false) // before the row is deleted, so that keepTime does not write it anew
	if _, err := u.store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(fenceKey) }); err != nil {
		u.fence.up.Store(stood)
		return err
	}
	u.lanes.Resume()
	c.log.Info("expiry goes on: the fence was lifted")
	return nil
}
