package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/secret"
)

// callLimit bounds the short calls that have no lease's deadline of their own.
const callLimit = 15 * time.Second

// Renew moves a login's own expiry, by ours or by an operator's statements, if
// it carries the mark.
func (t *Target) Renew(ctx context.Context, identity, role, mark string, until time.Time, sql []string) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	conn, s, err := t.acquire(ctx, t.create, identity)
	if err != nil {
		return err
	}
	defer conn.Release()
	for try := 1; ; try++ {
		m := begin(s, remaining(ctx))
		mine := m.failUnless(whoseMark([]string{role}, []string{mark}), "the role is gone or not ours")
		theirs := map[int]int{}
		if len(sql) == 0 {
			m.add("ALTER ROLE " + ident(role) + " VALID UNTIL " + quote(timestamp(until)))
		}
		for i, q := range sql {
			s.dirty = true
			theirs[m.add(q)] = i + 1
		}
		at, err := m.commit(ctx, conn.Conn().PgConn())
		if err == nil {
			return nil
		}
		err = classify(err)
		switch {
		case errors.Is(err, lease.ErrUnknown):
			// Moving an expiry twice does no harm, but there is no
			// connection left to do it on.
			return err
		case at == mine:
			return errs.Wrap(errs.Invalid, err, "the database user of this lease does not exist any more")
		case passing(err) && try < attempts && pause(ctx, try):
			continue
		case theirs[at] > 0:
			return &StatementError{Index: theirs[at], Err: err}
		}
		return err
	}
}

// ChangePassword sets a user's password by ours or by an operator's
// statements, in one transaction. An error without lease.ErrUnknown in it says
// that nothing was changed. stored is the password or its verifier.
func (t *Target) ChangePassword(ctx context.Context, identity, user string, stored secret.String, sql []string) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	conn, s, err := t.acquire(ctx, t.create, identity)
	if err != nil {
		return err
	}
	defer conn.Release()
	m := begin(s, remaining(ctx))
	if len(sql) == 0 {
		m.add("ALTER ROLE " + ident(user) + " PASSWORD " + quote(stored.Reveal()))
	}
	for _, q := range sql {
		s.dirty = true
		m.add(q)
	}
	if _, err := m.commit(ctx, conn.Conn().PgConn()); err != nil {
		return redact(classify(err), stored.Reveal())
	}
	return nil
}

// LogsIn tries whether the managing user gets in with a password.
func (t *Target) LogsIn(ctx context.Context, user string, pw secret.String) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	conn, err := t.login(ctx, user, pw)
	if err != nil {
		return fmt.Errorf("logging in as %s: %w", ident(user), err)
	}
	return conn.Close(ctx)
}
