package mfa

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

const (
	pendingPrefix = "mfa/pending/"
	waitingPrefix = "mfa/waiting/"

	// pendingTTL is how long a login waits.
	pendingTTL = 5 * time.Minute
	// maxWaiting is how many logins of one entity wait at a time.
	maxWaiting = 8
)

// pendingRow is a login that waits for its factors. Version 1.
type pendingRow struct {
	row
	EntityID    string                         `json:"ent"`
	Constraints map[string]route.MFAConstraint `json:"need"`
	Login       []byte                         `json:"login"`
}

// waitingRow names the logins of an entity that wait, the oldest first.
// Version 1.
type waitingRow struct {
	row
	IDs []string `json:"ids"`
}

// Prove implements engine.SecondFactors. Each method that was shown is tried
// once, however many constraints it would meet.
func (e *Engine) Prove(ctx context.Context, d *engine.Demand, shown engine.Shown) error {
	tried := map[string]error{}
	for _, name := range slices.Sorted(maps.Keys(d.Constraints)) {
		if err := e.meet(ctx, d.EntityID, d.Constraints[name], shown, tried); err != nil {
			if errs.Is(err, errs.Denied) {
				err = errs.New(errs.Denied, "failed to satisfy enforcement %s: %s", name, errs.Message(err))
			}
			return err
		}
	}
	return nil
}

// meet shows one method of a constraint.
func (e *Engine) meet(ctx context.Context, entity string, c route.MFAConstraint, shown engine.Shown, tried map[string]error) error {
	refused := errs.New(errs.Denied, "MFA credentials are missing: show a passcode of one of its methods")
	for _, m := range c.Any {
		codes, ok := shown[m.ID]
		if !ok && m.Name != "" {
			codes, ok = shown[m.Name]
		}
		if !ok {
			continue
		}
		err, did := tried[m.ID]
		if !did {
			err = e.show(ctx, entity, m.ID, codes)
			tried[m.ID] = err
		}
		if err == nil || !errs.Is(err, errs.Denied) {
			return err
		}
		refused = err
	}
	return refused
}

// show tries the passcode of one method: alone, or as passcode=<it>.
func (e *Engine) show(ctx context.Context, entity, method string, codes []string) error {
	if len(codes) != 1 || codes[0] == "" {
		return errs.New(errs.Denied, "want one passcode for the MFA method, as method:passcode or {\"method\": [\"passcode\"]}")
	}
	return e.spend(ctx, entity, method, strings.TrimSpace(strings.TrimPrefix(codes[0], "passcode=")))
}

// pendingID draws the id of a login that waits: a UUID of version 7, which
// begins with the time in milliseconds and has 74 random bits. It is no proof
// of anything: the passcode is.
func (e *Engine) pendingID(now time.Time) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(e.env.Rand, b[6:]); err != nil {
		return "", fmt.Errorf("drawing randomness: %w", err)
	}
	begin := timeBytes(now)
	copy(b[:6], begin[:])
	b[6], b[8] = b[6]&0x0f|0x70, b[8]&0x3f|0x80
	return uuidText(b), nil
}

func timeBytes(t time.Time) (out [6]byte) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(max(t.UnixMilli(), 0)))
	copy(out[:], b[2:])
	return out
}

// before is what the ids of logins begin with that were made before a time, or
// would sort after.
func before(t time.Time) string {
	b := timeBytes(t)
	return fmt.Sprintf("%x-%x", b[:4], b[4:])
}

// Hold implements engine.SecondFactors.
func (e *Engine) Hold(ctx context.Context, d *engine.Demand, login []byte) (string, error) {
	now := e.env.Now()
	id, err := e.pendingID(now)
	if err != nil {
		return "", err
	}
	p := pendingRow{row: v1, EntityID: d.EntityID, Constraints: d.Constraints, Login: login}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		w, err := e.waiting(tx, d.EntityID)
		if err != nil {
			return err
		}
		over := max(0, len(w.IDs)+1-maxWaiting)
		for _, old := range w.IDs[:over] {
			if err := tx.Delete(pendingPrefix + old); err != nil {
				return err
			}
		}
		w.IDs = append(w.IDs[over:], id)
		if err := tx.Put(waitingPrefix+d.EntityID, wire.Marshal(w)); err != nil {
			return err
		}
		return tx.Put(pendingPrefix+id, wire.Marshal(&p))
	})
	return id, err
}

// errNoRequest is one sentence for a request that never was, is completed, or
// has waited too long.
var errNoRequest = errs.New(errs.Invalid, "invalid request ID: the login waits no more; log in again")

// Release implements engine.SecondFactors.
func (e *Engine) Release(ctx context.Context, id string, shown engine.Shown) ([]byte, error) {
	if id < before(e.env.Now().Add(-pendingTTL)) || len(id) != 36 {
		return nil, errNoRequest
	}
	p, err := load[pendingRow](ctx, e, pendingPrefix+id)
	if err == nil && p == nil {
		err = errNoRequest
	}
	if err != nil {
		return nil, err
	}
	if err := e.Prove(ctx, &engine.Demand{EntityID: p.EntityID, Constraints: p.Constraints}, shown); err != nil {
		return nil, err
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		b, err := tx.Get(pendingPrefix + id)
		if err == nil && b == nil {
			err = errNoRequest
		}
		if err != nil {
			return err
		}
		return e.drop(tx, p.EntityID, id)
	})
	return p.Login, err
}

// waiting is which logins of an entity wait. Where that cannot be read it is
// begun anew: nobody must be kept out, or a sweep held up, by a list whose
// logins end by themselves.
func (e *Engine) waiting(tx storage.Reader, entity string) (*waitingRow, error) {
	w, err := get[waitingRow](tx, waitingPrefix+entity)
	if isBadRow(err) {
		e.env.Log.Error("the list of an entity's logins that wait cannot be read; it is begun anew", "error", err)
		w, err = nil, nil
	}
	if err == nil && w == nil {
		w = &waitingRow{row: v1}
	}
	return w, err
}

// drop deletes a login that waits no more.
func (e *Engine) drop(tx storage.Tx, entity string, id string) error {
	if err := tx.Delete(pendingPrefix + id); err != nil {
		return err
	}
	w, err := e.waiting(tx, entity)
	if err != nil {
		return err
	}
	w.IDs = slices.DeleteFunc(w.IDs, func(s string) bool { return s == id })
	if len(w.IDs) == 0 {
		return tx.Delete(waitingPrefix + entity)
	}
	return tx.Put(waitingPrefix+entity, wire.Marshal(w))
}

// sweepStep is how many logins are dropped between two looks, each in a
// transaction of two rows.
const sweepStep = 100

// sweepPending drops all whose time is over: however many there come, there are
// never more than come in that time.
func (e *Engine) sweepPending(ctx context.Context) error {
	for {
		if n, err := e.sweepSome(ctx); err != nil || n < sweepStep {
			return err
		}
	}
}

func (e *Engine) sweepSome(ctx context.Context) (n int, err error) {
	type late struct{ id, entity string }
	var gone []late
	end := pendingPrefix + before(e.env.Now().Add(-pendingTTL))
	err = e.env.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, pendingPrefix, end, sweepStep, func(key string, b []byte, bad error) bool {
			l := late{id: key[len(pendingPrefix):]}
			if bad == nil {
				if p, err := read[pendingRow](key, b); err == nil {
					l.entity = p.EntityID
				}
			}
			gone = append(gone, l)
			return true
		})
	})
	if err != nil {
		return 0, err
	}
	for _, l := range gone {
		if _, err := e.env.Store.Update(ctx, func(tx storage.Tx) error { return e.drop(tx, l.entity, l.id) }); err != nil {
			return 0, err
		}
	}
	return len(gone), nil
}
