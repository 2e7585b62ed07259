package sys

import (
	"context"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

func (e *Engine) remountRoutes(t *route.Table) {
	route.Write(t, "remount", e.remount, route.Sudo(), route.InForm(route.TopLevel), route.Doc("Move a mount to another path. Its leases are revoked."))
	route.Read(t, "remount/status/{migration_id}", e.remountStatus, route.Doc("Tell how a move went."))
}

// moveRow is a move of a mount, stored for a day under move/<id>, so that the
// client who asked can learn how it went. Version 1.
type moveRow struct {
	V      int       `json:"v"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	Status string    `json:"status"`
	At     time.Time `json:"at"`
}

const (
	movePrefix   = "move/"
	moveKept     = 24 * time.Hour
	moveVersion  = 1
	moveDone     = "success"
	moveFailed   = "failure"
	moveUnderway = "in-progress"
)

type remountIn struct {
	From string `json:"from" doc:"The mount's path now."`
	To   string `json:"to" doc:"Its path to be."`
}

type remountOut struct {
	ID string `json:"migration_id"`
}

// remount moves a mount. The move itself is quick; what the reference does in
// the background is done when we answer.
func (e *Engine) remount(ctx context.Context, req *route.Request, in remountIn) (remountOut, error) {
	ns := req.Mount.Namespace
	from, to := withSlash(in.From), withSlash(in.To)
	if err := e.checkMove(ctx, ns, from, to); err != nil {
		return remountOut{}, err
	}
	id := newUUID(e.cfg.Rand)
	row := moveRow{V: moveVersion, From: from, To: to, Status: moveUnderway, At: e.cfg.Now().Round(0)}
	if err := e.putMove(ctx, id, row); err != nil {
		return remountOut{}, err
	}
	if err := e.cfg.MountTable.Move(ctx, ns, from, to); err != nil {
		row.Status = moveFailed
		if perr := e.putMove(context.WithoutCancel(ctx), id, row); perr != nil {
			e.log.Error("noting that a move of a mount failed", "error", perr)
		}
		return remountOut{}, err
	}
	row.Status = moveDone
	if err := e.putMove(ctx, id, row); err != nil {
		return remountOut{}, err
	}
	req.Warn("Mount move has been queued. Progress is told at sys/remount/status/ followed by the returned migration_id")
	return remountOut{ID: id}, nil
}

func (e *Engine) checkMove(ctx context.Context, ns, from, to string) error {
	auth := strings.HasPrefix(from, authPrefix)
	switch toAuth := strings.HasPrefix(to, authPrefix); {
	case from == "/" || to == "/" || to == authPrefix:
		return errs.New(errs.Invalid, "both 'from' and 'to' path must be specified as a string")
	case auth && !toAuth:
		return errs.New(errs.Invalid, "cannot remount auth mount to non-auth mount %q", to)
	case !auth && toAuth:
		return errs.New(errs.Invalid, "cannot remount non-auth mount to auth mount %q", to)
	case from == to:
		return errs.New(errs.Invalid, "%q is where the mount is already", to)
	}
	for _, own := range reserved {
		if own != authPrefix && strings.HasPrefix(to, own) {
			return errs.New(errs.Invalid, "cannot remount to destination %s: paths below %s belong to the server", to, own)
		}
	}
	for _, path := range []string{from, to} {
		first, _, _ := strings.Cut(path, "/")
		in, ok, err := e.cfg.Namespaces.At(ctx, ns, first)
		if err != nil {
			return err
		}
		if ok {
			return errs.New(errs.Invalid, "mounts do not move from one namespace to another, and %q is a namespace: enable the engine there and write what it needs anew", in.Path)
		}
	}
	m, ok, err := e.mountAt(ctx, ns, from)
	switch {
	case err != nil:
		return err
	case !ok:
		return errs.New(errs.Invalid, "no matching mount at %q", from)
	case m.Own:
		return errs.New(errs.Invalid, "cannot remount %q", from)
	}
	return nil
}

// putMove stores how a move stands, and forgets old ones.
func (e *Engine) putMove(ctx context.Context, id string, row moveRow) error {
	var old []string
	err := e.store.View(ctx, func(v storage.View) error {
		return v.Scan(movePrefix, storage.PrefixEnd(movePrefix), storage.MaxTxKeys-1, func(key string, b []byte) bool {
			var r moveRow
			if wire.Unmarshal(b, &r) != nil || e.cfg.Now().Sub(r.At) > moveKept {
				old = append(old, key)
			}
			return true
		})
	})
	if err != nil {
		return err
	}
	_, err = e.store.Update(ctx, func(tx storage.Tx) error {
		for _, key := range old {
			if err := tx.Delete(key); err != nil {
				return err
			}
		}
		return tx.Put(movePrefix+id, wire.Marshal(&row))
	})
	return err
}

type migrationIn struct {
	ID string `json:"migration_id" doc:"What remount answered."`
}

type remountStatusOut struct {
	ID   string        `json:"migration_id"`
	Info remountStatus `json:"migration_info"`
}

type remountStatus struct {
	Source string `json:"source_mount"`
	Target string `json:"target_mount"`
	Status string `json:"status"`
}

func (e *Engine) remountStatus(ctx context.Context, _ *route.Request, in migrationIn) (remountStatusOut, error) {
	var row moveRow
	err := e.store.View(ctx, func(v storage.View) error {
		b, err := v.Get(movePrefix + in.ID)
		if err == nil && b == nil {
			err = errs.Gone
		}
		if err != nil {
			return err
		}
		return wire.Unmarshal(b, &row)
	})
	if err != nil {
		return remountStatusOut{}, err
	}
	return remountStatusOut{ID: in.ID, Info: remountStatus{Source: row.From, Target: row.To, Status: row.Status}}, nil
}
