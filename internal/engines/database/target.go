package database

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leasehold/leasehold/internal/engines/database/postgres"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage"
)

// target is an open generation of a connection.
type target struct {
	*postgres.Target
	rev    int           // of the row that it was opened from
	met    atomic.Bool   // its server was asked who it is in this process
	asking chan struct{} // held by whoever asks

	// Guarded by Engine.mu.
	users   int
	retired bool
}

// use gives the open target of a generation, opened anew when c is of a later
// change, and a func to give it back. No connection is made.
func (e *Engine) use(c *stored) (*target, func(), error) {
	key := c.generation()
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.open[key]
	if t != nil && t.rev < c.Rev {
		e.retireLocked(key)
		t = nil
	}
	if t == nil {
		if e.closed {
			return nil, nil, errs.New(errs.Unavailable, "the server is stopping")
		}
		opened, err := postgres.Open(c.config(e))
		if err != nil {
			return nil, nil, fmt.Errorf("opening connection %q: %w", c.Name, err)
		}
		t = &target{Target: opened, rev: c.Rev, asking: make(chan struct{}, 1)}
		e.open[key] = t
		e.env.Lanes.Limit(key, t.Limits())
	}
	t.users++
	return t, sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if t.users--; t.retired && t.users == 0 {
			e.closeLocked(t)
		}
	}), nil
}

// retireLocked takes a generation's pools out of use; the last user's leaving
// closes them.
func (e *Engine) retireLocked(key string) {
	if t := e.open[key]; t != nil {
		delete(e.open, key)
		t.retired = true
		if t.users == 0 {
			e.closeLocked(t)
		}
	}
}

func (e *Engine) closeLocked(t *target) { e.wg.Go(t.Close) }

func (e *Engine) retire(key string, forget bool) {
	e.mu.Lock()
	e.retireLocked(key)
	e.mu.Unlock()
	if forget {
		e.env.Lanes.Forget(key)
	}
}

// meet asks the server of a generation who it is, once in this process, and
// writes down its identity when it is not known yet. A server with marks of a
// later epoch than ours says that this store was restored from a backup.
func (e *Engine) meet(ctx context.Context, c *stored, t *target) (*stored, error) {
	if t.met.Load() && c.Identity != "" {
		return c, nil
	}
	select {
	case t.asking <- struct{}{}:
		defer func() { <-t.asking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if t.met.Load() && c.Identity != "" {
		return c, nil
	}
	info, err := t.Ping(ctx)
	if err != nil {
		return nil, err
	}
	if c.Identity == "" {
		if c, err = e.learn(ctx, c, info.Identity); err != nil {
			return nil, err
		}
	}
	if info.Identity == c.Identity {
		epoch, err := t.NewestEpoch(ctx, c.Identity, e.env.Origin.Instance)
		if err != nil {
			return nil, err
		}
		if epoch > e.env.Origin.Epoch && e.env.Fence != nil {
			e.env.Fence(epoch, fmt.Sprintf("database connection %q shows marks of epoch %d, but this store has only reached %d: it was restored from a backup", c.Name, epoch, e.env.Origin.Epoch))
		}
	}
	t.met.Store(true)
	return c, nil
}

// learn writes down the identity of a generation that had none.
func (e *Engine) learn(ctx context.Context, c *stored, identity string) (*stored, error) {
	var now *stored
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) (err error) {
		now, err = getConnection(tx, rowConn+c.ID)
		if err != nil {
			return err
		}
		if now == nil || now.Generation != c.Generation || !now.Deleted.IsZero() {
			return errChanged
		}
		if now.Identity != "" {
			return nil
		}
		now.Identity = identity
		if err := put(tx, rowConn+c.ID, &now.connection); err != nil {
			return err
		}
		now, err = getConnection(tx, rowConn+c.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	return now, nil
}

// greet gets to know the server behind a connection when the engine starts,
// and finishes a rotation that was interrupted.
func (e *Engine) greet(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	c, err := e.connection(ctx, name)
	if err != nil {
		return
	}
	t, release, err := e.use(c)
	if err == nil {
		defer release()
		c, err = e.meet(ctx, c, t)
	}
	if err == nil && !c.Candidate.IsZero() {
		err = e.settleRotation(ctx, c, t)
	}
	if err != nil && ctx.Err() == nil {
		e.env.Log.Warn("a database does not answer yet", "connection", name, "error", err)
	}
}

// onward finds the way to the server that a lease's user is on: the newest
// generation of its connection that leads there, or that an operator said
// succeeds it. Where none is known to, the lease's own generation is asked, and
// says where it leads now.
func (e *Engine) onward(ctx context.Context, r *ref) (c *stored, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		newest, err := getConnection(v, rowConn+r.Connection)
		if err != nil {
			return err
		}
		if newest == nil {
			return &lease.WaitError{Reason: "the connection of this lease is gone"}
		}
		if newest.Identity == r.Identity || slices.Contains(newest.Succeeds, r.Identity) || newest.Generation == r.Generation {
			c = newest
			return nil
		}
		for n := newest.Generation - 1; n > 0; n-- {
			old, err := getConnection(v, rowOld+generation(r.Connection, n))
			if err != nil {
				return err
			}
			if old != nil && (old.Identity == r.Identity || n == r.Generation) {
				c = old
				return nil
			}
		}
		return &lease.WaitError{Reason: "no generation of this lease's connection leads to its server any more"}
	})
	return c, err
}

// sweep deletes generations, and connections that were deleted, which no lease
// needs any more. Neither can get new leases: their liveness is gone.
func (e *Engine) sweep(ctx context.Context) error {
	var rows []string
	list := map[string]*stored{}
	err := e.env.Store.View(ctx, func(v storage.View) error {
		for _, prefix := range []string{rowOld, rowConn} {
			err := v.Scan(prefix, storage.PrefixEnd(prefix), 0, func(key string, b []byte) bool {
				c, err := decodeConnection(b)
				if err != nil {
					e.env.Log.Error("a connection's row cannot be read; it is left alone", "row", key, "error", err)
					return true
				}
				if prefix == rowOld || !c.Deleted.IsZero() {
					rows = append(rows, key)
					list[key] = c
				}
				return true
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	keeps := map[string]bool{} // connections of which an older generation is still there
	for _, key := range rows {
		c := list[key]
		left, err := e.env.Leases.OnTarget(ctx, c.generation())
		if err != nil {
			return err
		}
		if left || keeps[c.ID] {
			keeps[c.ID] = true
			continue
		}
		_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
			now, err := tx.Get(key)
			if err != nil || string(now) != c.raw {
				return err
			}
			return tx.Delete(key)
		})
		if err != nil {
			return err
		}
		e.retire(c.generation(), true)
	}
	return nil
}

// readable gives an error of the target its sentence for the client, who is
// told what the server said.
func readable(err error, doing string) error {
	if err == nil {
		return nil
	}
	if errs.KindOf(err) != errs.Internal {
		return err
	}
	kind, text := errs.Internal, err.Error()
	var se *postgres.StatementError
	var wait *lease.WaitError
	switch {
	case errors.As(err, &se), postgres.Code(err) != "" && !errors.Is(err, lease.ErrUnknown) && !lane.IsConnFault(err):
		// What the server refuses is the role's or the configuration's
		// fault: asking again would only make it refuse again.
		kind = errs.Invalid
	case errors.As(err, &wait):
		text = wait.Reason
	}
	return &answered{errs.New(kind, "%s: %s", doing, text), err}
}

// answered is an error whose sentence already tells its cause.
type answered struct{ told, cause error }

func (a *answered) Error() string   { return a.told.Error() }
func (a *answered) Unwrap() []error { return []error{a.told, a.cause} }
