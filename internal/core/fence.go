package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
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
	Epoch  uint64    `json:"epoch,omitempty"` // the newest of another life of this store that a target shows
}

const (
	// clockStep is how far wall and monotonic time may part.
	clockStep  = 5 * time.Minute
	clockEvery = 10 * time.Second
	seenEvery  = time.Minute
	// epochMost is the newest epoch that is taken over from a target, where
	// whoever runs it may make one up: a mark has room for 19 digits.
	epochMost = 1 << 62
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

	mu    sync.Mutex // held by whoever raises or lifts it; guards what follows
	shown uint64     // the newest epoch of another life of this store that a target showed
	taken uint64     // the newest that the fence was lifted over
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

// raise fences expiry, unless it is.
func (u *unsealed) raise(row *fenceRow) {
	u.fence.mu.Lock()
	defer u.fence.mu.Unlock()
	if !u.fence.up.Load() {
		u.raiseLocked(row)
	}
}

func (u *unsealed) raiseLocked(row *fenceRow) {
	u.fence.shown = max(u.fence.shown, row.Epoch)
	u.fence.reason.Store(row)
	u.fence.up.Store(true)
	u.core.log.Warn("expiry is fenced: no lease or token expires until an operator has looked; confirm with `leasehold operator fence lift`",
		"reason", row.Reason)
}

// laterLife fences expiry because a target shows marks of an epoch that this
// store never had. A fence that stands already takes it up: what an operator
// lifts is all that was found.
func (u *unsealed) laterLife(epoch uint64, reason string) {
	if !u.foundLife(epoch, reason) {
		return
	}
	// It holds at once; the row makes it last.
	if _, err := u.store.Update(context.WithoutCancel(u.ctx), u.putFence); err != nil {
		u.core.log.Error("storing the fence", "error", err)
	}
}

func (u *unsealed) foundLife(epoch uint64, reason string) (news bool) {
	f := &u.fence
	f.mu.Lock()
	defer f.mu.Unlock()
	if epoch <= max(f.shown, f.taken) {
		return false
	}
	row := &fenceRow{V: 1, Reason: reason, Since: u.core.cfg.Now().Round(0), Epoch: epoch}
	if f.up.Load() {
		stands := f.reason.Load()
		row.Reason, row.Since = stands.Reason+"; "+reason, stands.Since
	}
	u.raiseLocked(row)
	return true
}

// putFence writes the fence as it is when the transaction runs: whichever of
// two that raise and lift it comes last, the row is true.
func (u *unsealed) putFence(tx storage.Tx) error {
	if !u.fence.up.Load() {
		return tx.Delete(fenceKey)
	}
	return putJSON(tx, fenceKey, u.fence.reason.Load())
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
			if owed {
				if err := u.putFence(tx); err != nil {
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
//
// That holds for what they have shown until then, also at later starts: the
// store's own epoch passes the newest mark in the transaction that deletes the
// fence. So what is made from the next start on is newer than all marks of the
// life that was lost, and another restore is noticed by it. A target that shows
// a newer one later was not compared, and raises the fence again.
func (c *Core) LiftFence(ctx context.Context) error {
	u, err := c.open()
	if err != nil {
		return err
	}
	u.setClock() // by which the operator has compared
	f := &u.fence
	f.mu.Lock()
	stood, before, taken := f.up.Load(), f.taken, max(f.taken, f.shown)
	f.taken = taken
	f.up.Store(false) // before the row is deleted, so that keepTime does not write it anew
	f.mu.Unlock()
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		if err := passEpoch(tx, min(taken, epochMost)); err != nil {
			return err
		}
		return u.putFence(tx)
	})
	if err != nil {
		f.mu.Lock()
		f.taken = before
		f.up.Store(f.up.Load() || stood)
		f.mu.Unlock()
		if stood {
			f.owed.Store(true) // its row may be gone by now
		}
		return err
	}
	u.lanes.Resume()
	c.log.Info("expiry goes on: the fence was lifted")
	return nil
}

// passEpoch has the next start begin an epoch after one.
func passEpoch(tx storage.Tx, epoch uint64) error {
	if epoch == 0 {
		return nil
	}
	b, err := tx.Get(clockKey)
	if err != nil {
		return err
	}
	var row clockRow
	if err := json.Unmarshal(b, &row); err != nil {
		return fmt.Errorf("clock row: %w", err)
	}
	if row.Epoch >= epoch {
		return nil
	}
	row.Epoch = epoch
	return putJSON(tx, clockKey, row)
}
