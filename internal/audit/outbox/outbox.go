// Package outbox keeps the audit records of what no request waits for —
// expiry, revocation, rotation — in the store until an audit device has taken
// them.
//
// A record is appended in the transaction that it tells of, so that neither
// exists without the other. One goroutine, Run, reads the records of each lane
// in order, gives them to the devices and deletes them. A crash between the
// last two gives a record twice, with the same id.
//
// Rows, per lane:
//
//	audit/<lane>/<seq>   the records of one Append, seq in 16 hex digits
//	auditseq/<lane>      the next seq to be given; 8 bytes, big endian
//	auditlow/<lane>      all rows below it are delivered; 8 bytes, big endian
//
// Every Append reads and writes auditseq, so that the numbers of a lane follow
// the order of the commits and no row appears below one that was seen. A lane
// without auditseq begins at the time in nanoseconds, which is above anything
// it gave before; that is why the two small rows of an idle lane can be
// deleted at start.
package outbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/storage"
)

const (
	rowPrefix = "audit/"
	seqPrefix = "auditseq/"
	lowPrefix = "auditlow/"

	// pageRows is how many rows are delivered at a time: with the lane's mark
	// they must fit one transaction.
	pageRows = 64
	// pageEvents is how many records are enough for a page.
	pageEvents = 500

	// Pauses between attempts while no device takes records.
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Sink is where records go: the audit broker.
type Sink interface {
	// Enabled reports whether a device is enabled; if none is, nothing is stored.
	Enabled() bool
	// Deliver returns nil when a device has taken all events, in order.
	Deliver(ctx context.Context, events []audit.Stored) error
}

// Config is what an Outbox needs; all of it.
type Config struct {
	Store storage.Backend
	Sink  Sink
	Log   *slog.Logger
	Now   func() time.Time // nil means time.Now
}

// Outbox holds records for later delivery.
type Outbox struct {
	cfg Config

	wake chan struct{} // holds one token when pending has grown

	mu      sync.Mutex          // guards pending
	pending map[string]struct{} // lanes that may have rows to deliver

	// delivered holds, for lanes whose rows could be delivered but not
	// deleted, the number below which that is so. Only Run touches it.
	delivered map[string]uint64
}

// New makes an outbox. Run must be running for anything to be delivered.
func New(cfg Config) *Outbox {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Outbox{
		cfg:       cfg,
		wake:      make(chan struct{}, 1),
		pending:   make(map[string]struct{}),
		delivered: make(map[string]uint64),
	}
}

// Append stores records in tx, for delivery after those that the lane has
// already; the time of one that has none is now. It costs two keys of the
// transaction (three the first time), and none where no device is enabled. A
// lane's name holds no slash.
func (o *Outbox) Append(tx storage.Tx, lane string, records ...audit.Stored) error {
	if len(records) == 0 || !o.cfg.Sink.Enabled() {
		return nil
	}
	if lane == "" || strings.Contains(lane, "/") {
		return fmt.Errorf("storing audit record: bad lane %q", lane)
	}
	next, err := getMark(tx, seqPrefix+lane)
	bad := unreadable(err)
	if err != nil && !bad {
		return fmt.Errorf("storing audit record: %w", err)
	}
	now := o.cfg.Now()
	if next == 0 {
		next = uint64(now.UnixNano())
		if !bad { // there may be rows below
			if err := putMark(tx, lowPrefix+lane, next); err != nil {
				return fmt.Errorf("storing audit record: %w", err)
			}
		}
	}
	row, err := encode(records, now)
	if err != nil {
		return err
	}
	if err := tx.Put(rowKey(lane, next), row); err != nil {
		return fmt.Errorf("storing audit record: %w", err)
	}
	return putMark(tx, seqPrefix+lane, next+1)
}

// Run delivers until ctx ends, and returns its error. Only one Run may be at
// work on a store.
func (o *Outbox) Run(ctx context.Context) error {
	// On a store that is full there is nothing to be swept, but to deliver.
	if err := o.sweep(ctx); err != nil && ctx.Err() == nil {
		o.cfg.Log.WarnContext(ctx, "marks of idle audit lanes stay until the next start", "error", err)
	}
	for {
		err := o.follow(ctx)
		if !errors.Is(err, storage.ErrLost) {
			return err
		}
	}
}

// follow delivers for as long as the store can tell what changed.
func (o *Outbox) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer func() {
		cancel(nil)
		wg.Wait()
	}()

	// First the revision, then what is there, then the changes since: nothing
	// falls between.
	var from storage.Revision
	err := o.cfg.Store.View(ctx, func(v storage.View) error {
		from = v.Revision()
		return storage.ScanEach(v, seqPrefix, storage.PrefixEnd(seqPrefix), 0, func(key string, _ []byte, _ error) bool {
			o.mark(strings.TrimPrefix(key, seqPrefix))
			return true
		})
	})
	if err != nil {
		return err
	}
	wg.Go(func() {
		cancel(o.cfg.Store.Watch(ctx, from, func(changes []storage.Change) error {
			for _, c := range changes {
				if lane, ok := strings.CutPrefix(c.Key, seqPrefix); ok {
					o.mark(lane)
				}
			}
			return nil
		}))
	})
	o.deliverAll(ctx)
	return context.Cause(ctx)
}

// mark notes that lane may have rows. It is called by whoever commits, and
// must be quick.
func (o *Outbox) mark(lane string) {
	o.mu.Lock()
	o.pending[lane] = struct{}{}
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// take gives the lanes to look at, and forgets them.
func (o *Outbox) take() map[string]struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	lanes := o.pending
	o.pending = make(map[string]struct{})
	return lanes
}

// deliverAll serves lanes in turn, a page each, until ctx ends.
func (o *Outbox) deliverAll(ctx context.Context) {
	pause := firstPause
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.wake:
		}
		var failed error
		for lane := range o.take() {
			more, err := o.deliverPage(ctx, lane)
			if err != nil {
				failed = fmt.Errorf("lane %s: %w", lane, err)
			}
			if more || err != nil {
				o.mark(lane)
			}
		}
		if failed == nil {
			pause = firstPause
			continue
		}
		// The broker logs what ails a device; this is for what it cannot know.
		o.cfg.Log.DebugContext(ctx, "stored audit records wait", "error", failed)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// page is a stretch of a lane's rows.
type page struct {
	keys   []string       // of the rows that can be deleted once events are delivered
	events []audit.Stored // of the rows that were not delivered before
	low    uint64         // the number after the last row
	more   bool           // there are rows after it
}

// deliverPage delivers the next rows of lane and reports whether there may be
// more.
func (o *Outbox) deliverPage(ctx context.Context, lane string) (more bool, err error) {
	p, err := o.readPage(ctx, lane)
	if err != nil || p.low == 0 {
		return false, err
	}
	if len(p.events) > 0 {
		if err := o.cfg.Sink.Deliver(ctx, p.events); err != nil {
			return false, err
		}
	}
	o.delivered[lane] = p.low
	_, err = o.cfg.Store.Update(ctx, func(tx storage.Tx) error {
		for _, key := range p.keys {
			if err := tx.Delete(key); err != nil {
				return err
			}
		}
		return putMark(tx, lowPrefix+lane, p.low)
	})
	if err == nil {
		delete(o.delivered, lane)
	}
	return p.more, err
}

// readPage reads the next rows of lane; low is zero if there are none.
func (o *Outbox) readPage(ctx context.Context, lane string) (page, error) {
	var p page
	err := o.cfg.Store.View(ctx, func(v storage.View) error {
		next, err := getMark(v, seqPrefix+lane)
		endless := unreadable(err)
		if endless {
			next = math.MaxUint64
		} else if err != nil {
			return err
		}
		// The scan begins at the mark so as not to cross the tombstones of
		// what was delivered.
		low, err := getMark(v, lowPrefix+lane)
		if err != nil && !unreadable(err) {
			return err
		}
		if low >= next {
			return nil
		}
		err = storage.ScanEach(v, rowKey(lane, low), rowKey(lane, next), pageRows, func(key string, value []byte, err error) bool {
			seq := seqOf(key)
			p.low = seq + 1
			if err != nil || seq >= o.delivered[lane] {
				if err == nil {
					p.events, err = decode(p.events, key, value)
				}
				if err != nil {
					// It must not hold up all that follow.
					o.cfg.Log.ErrorContext(ctx, "stored audit record is unreadable and stays in the store", "key", key, "error", err)
					return true
				}
			}
			p.keys = append(p.keys, key)
			return len(p.events) < pageEvents
		})
		if p.low == 0 && !endless { // all rows are gone although the marks say otherwise
			p.low = next
		}
		p.more = p.low < next
		return err
	})
	return p, err
}

// sweep deletes the marks of lanes that have nothing to deliver, which may
// belong to targets long gone. A lane that is used again starts anew.
func (o *Outbox) sweep(ctx context.Context) error {
	var idle []string
	err := o.cfg.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, lowPrefix, storage.PrefixEnd(lowPrefix), 0, func(key string, _ []byte, _ error) bool {
			idle = append(idle, strings.TrimPrefix(key, lowPrefix))
			return true
		})
	})
	if err != nil {
		return err
	}
	for _, lane := range idle {
		_, err := o.cfg.Store.Update(ctx, func(tx storage.Tx) error {
			next, err1 := getMark(tx, seqPrefix+lane)
			low, err2 := getMark(tx, lowPrefix+lane)
			switch err := errors.Join(err1, err2); {
			case unreadable(err): // what it has left, nobody knows
				return nil
			case err != nil || low < next:
				return err
			}
			if err := tx.Delete(seqPrefix + lane); err != nil {
				return err
			}
			return tx.Delete(lowPrefix + lane)
		})
		if err != nil {
			return fmt.Errorf("sweeping audit lane %s: %w", lane, err)
		}
	}
	return nil
}

func rowKey(lane string, seq uint64) string {
	return fmt.Sprintf("%s%s/%016x", rowPrefix, lane, seq)
}

// seqOf is the number in a key that rowKey made.
func seqOf(key string) uint64 {
	seq, _ := strconv.ParseUint(key[strings.LastIndexByte(key, '/')+1:], 16, 64)
	return seq
}

// getMark reads a mark; zero where there is none.
func getMark(r storage.Reader, key string) (uint64, error) {
	b, err := r.Get(key)
	if err != nil || b == nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("audit mark %s has %d bytes, want 8", key, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

// unreadable reports whether err is that of a bad row and not of the store: the
// row is left alone, and neither the lane nor what ends in it waits for it.
func unreadable(err error) bool {
	var bad *storage.CorruptError
	return errors.As(err, &bad)
}

func putMark(tx storage.Tx, key string, n uint64) error {
	return tx.Put(key, binary.BigEndian.AppendUint64(nil, n))
}
