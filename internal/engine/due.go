package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/storage"
)

// Worker is an engine with timed work of its own, such as keys that rotate. It
// is planned with Env.Due and waits in the store like the ends of leases do: a
// lane of the mount's own reads it when it is due, and nothing is held in
// memory for it before.
type Worker interface {
	// Work does what an id was planned for at a time. In the transaction that
	// finishes it, the plan is cancelled or its next one made; one that was
	// overtaken by a change is cancelled alike. An error is logged, and what is
	// left planned is tried again a moment later. Several servers may do the
	// same work at once.
	Work(ctx context.Context, id string, at time.Time) error
}

// Due plans the timed work of one mount.
type Due struct{ target string }

// dueTarget comes before a mount's id in the name of its lane.
const dueTarget = "mount."

// DueOf is the timed work of the mount with an id.
func DueOf(mountID string) Due { return Due{dueTarget + mountID} }

// DueKind is the kind under which lanes hand out such work.
const DueKind = "m"

// Plan has Work called with an id at a time, which it returns: a little later
// than wanted where the lane has read past that. tx is one of the mount's
// slice, now the mount's clock.
func (d Due) Plan(tx storage.Tx, id string, want, now time.Time) (at time.Time, err error) {
	whole := storage.Whole(tx)
	if at, err = lane.Later(whole, d.target, want, now); err != nil {
		return at, err
	}
	return at, whole.Put(d.key(id, at), nil)
}

// Cancel takes a plan back; there need not be one.
func (d Due) Cancel(tx storage.Tx, id string, at time.Time) error {
	return storage.Whole(tx).Delete(d.key(id, at))
}

func (d Due) key(id string, at time.Time) string { return lane.Key(d.target, at, DueKind, id) }

// Range is where all plans of the mount stand in the store.
func (d Due) Range() string { return lane.DuePrefix + d.target + "/" }

// Mark is the key of the lane's own mark.
func (d Due) Mark() string { return lane.MarkPrefix + d.target }

// DueHandler does the due work of kind DueKind. worker gives the engine of a
// mount, or nil while it cannot work: what is planned then waits.
func DueHandler(worker func(mountID string) Worker, log *slog.Logger) lane.Handler {
	return dueHandler{worker, log}
}

type dueHandler struct {
	worker func(mountID string) Worker
	log    *slog.Logger
}

// Run implements lane.Handler.
func (h dueHandler) Run(ctx context.Context, target string, items []lane.Work) error {
	id, _ := strings.CutPrefix(target, dueTarget)
	w := h.worker(id)
	if w == nil {
		return nil
	}
	var failed []error
	for _, it := range items {
		if ctx.Err() != nil {
			break
		}
		if err := w.Work(ctx, it.ID, it.Due); err != nil && ctx.Err() == nil {
			h.log.Error("timed work of a mount failed; it is tried again", "mount_id", id, "of", it.ID, "error", err)
			failed = append(failed, fmt.Errorf("%s: %w", it.ID, err))
		}
	}
	return errors.Join(failed...)
}
