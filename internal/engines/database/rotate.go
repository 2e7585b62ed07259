package database

import (
	"context"
	"errors"
	"time"

	"github.com/leasehold/leasehold/internal/engines/database/postgres"
	"github.com/leasehold/leasehold/internal/engines/database/statements"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
)

// rotateSettle is how long after a rotation with an unknown end the server may
// still carry it out: its statement timeout, and a little.
const rotateSettle = time.Minute

// rotateRoot gives the managing user a new password. It cannot lock itself
// out: the candidate is stored before the server hears of it, and from then on
// both are tried wherever we log in, until one is known to be the password.
func (e *Engine) rotateRoot(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	c, err := e.connection(ctx, in.Name)
	if err != nil {
		return route.None{}, err
	}
	if c.Username == "" || c.Password.IsZero() {
		return route.None{}, errs.New(errs.Invalid, "unable to rotate root credentials: the connection has no username or no password")
	}
	if !e.begin(c.ID) {
		return route.None{}, errs.New(errs.Precondition, "the root password of %q is being rotated by another request", in.Name)
	}
	defer e.finish(c.ID)
	// Once begun it is finished, whoever waits for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rotateSettle)
	defer cancel()

	t, release, err := e.use(c)
	if err != nil {
		return route.None{}, err
	}
	c, err = e.meet(ctx, c, t)
	if err == nil && !c.Candidate.IsZero() {
		err = e.settleRotation(ctx, c, t)
	}
	release()
	if err != nil {
		return route.None{}, readable(err, "connecting to the database")
	}
	if c, err = e.connection(ctx, in.Name); err != nil {
		return route.None{}, err
	}
	if !c.Candidate.IsZero() {
		return route.None{}, errs.New(errs.Precondition, "an earlier rotation of %q had an unknown end; try again in a minute", in.Name)
	}
	return route.None{}, e.rotateTo(ctx, c)
}

func (e *Engine) rotateTo(ctx context.Context, c *stored) error {
	next, err := e.env.Password(ctx, c.PasswordPolicy)
	if err != nil {
		return err
	}
	sent := next
	if c.PasswordAuth == scram {
		if sent, err = postgres.Verifier(next, c.iterations()); err != nil {
			return err
		}
	}
	set, err := statements.Compile(c.RootRotation)
	if err != nil {
		return errs.New(errs.Invalid, "root_rotation_statements: %v", err)
	}
	sql, err := set.Render(statements.Values{Name: c.Username, Password: sent.Reveal()})
	if err != nil {
		return errs.New(errs.Invalid, "root_rotation_statements: %v", err)
	}
	planned := c.connection
	planned.Candidate, planned.Since = next, e.env.Now().UTC()
	if err := e.replace(ctx, c, &planned); err != nil {
		return err
	}
	if c, err = e.connection(ctx, c.Name); err != nil {
		return err
	}
	t, release, err := e.use(c)
	if err != nil {
		return err
	}
	defer release()
	change := t.ChangePassword(ctx, c.Identity, c.Username, sent, sql)
	settled := c.connection
	settled.Candidate, settled.Since = secret.String{}, time.Time{}
	switch {
	case change == nil && len(sql) > 0 && t.LogsIn(ctx, c.Username, next) != nil:
		// An operator's statements may do anything but that.
		if err := t.LogsIn(ctx, c.Username, c.Password); err != nil {
			return errs.Wrap(errs.Internal, err, "which password root_rotation_statements left is not known; the old and the new one are both kept and tried")
		}
		change = errs.New(errs.Invalid, "root_rotation_statements ran and the old password of %q still lets it in, the new one does not: write them with {{password}}, "+
			"or leave them out", c.Username)
	case change == nil:
		settled.Password = next
	case errors.Is(change, lease.ErrUnknown) && t.LogsIn(ctx, c.Username, next) == nil:
		change = nil
		settled.Password = next
	case errors.Is(change, lease.ErrUnknown):
		return errs.Wrap(errs.Internal, change, "whether the database took the new password is not known; the old and the new one are both kept and tried")
	}
	if err := e.replace(ctx, c, &settled); err != nil {
		return err
	}
	return readable(change, "changing the managing user's password")
}

// settleRotation finds out which password an interrupted rotation left, and
// keeps that one. t has logged in with one of them.
func (e *Engine) settleRotation(ctx context.Context, c *stored, t *target) error {
	settled := c.connection
	settled.Candidate, settled.Since = secret.String{}, time.Time{}
	switch {
	case t.LogsIn(ctx, c.Username, c.Candidate) == nil:
		settled.Password = c.Candidate
	case e.env.Now().Sub(c.Since) < rotateSettle:
		return nil // the change may still arrive at the server
	default:
		if err := t.LogsIn(ctx, c.Username, c.Password); err != nil {
			return err
		}
	}
	return e.replace(ctx, c, &settled)
}

func (e *Engine) begin(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.busy[id] {
		return false
	}
	e.busy[id] = true
	return true
}

func (e *Engine) finish(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.busy, id)
}
