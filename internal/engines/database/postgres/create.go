package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/secret"
)

// BatchSize is how many logins one transaction makes or ends at most.
const BatchSize = 32

// Creation is one login to be made.
type Creation struct {
	Role string
	Mark string
	// MakeBy is when the server must refuse to make it, by our clock.
	MakeBy time.Time
	// SQL makes the role by the operator's own statements. With none, the
	// role is made by ours: a member of MemberOf, with Password.
	SQL      []string
	MemberOf []string
	// Password is a password or a verifier. With SQL it is only what to
	// leave out of error messages.
	Password secret.String
	// ValidUntil is the server's own net below the lease; zero is none.
	ValidUntil time.Time
	// Alone is set for statements that rewrite many access lists.
	Alone bool
	// Dirty is set for statements that may leave a trace in their session,
	// which is then reset before anybody else uses it.
	Dirty bool
}

// attempts bounds how often statements are tried that another session's
// change made fail.
const attempts = 8

// Create makes logins on the server with an identity and gives one error for
// each: nil, or a known failure, or one that wraps lease.ErrUnknown. Ours
// share a transaction; an operator's run alone.
func (t *Target) Create(ctx context.Context, identity string, list []Creation) []error {
	out := make([]error, len(list))
	conn, s, err := t.acquire(ctx, t.create, identity)
	if err != nil {
		for i := range out {
			out[i] = err
		}
		return out
	}
	defer func() { // a panic, too, gives it back
		if conn != nil {
			conn.Release()
		}
	}()
	if len(list) > 1 && ours(list) {
		err := t.createOnce(ctx, conn, s, list)
		if err == nil || errors.Is(err, lease.ErrUnknown) {
			for i := range out {
				out[i] = err
			}
			return out
		}
		// One of them failed, so nothing was made: each for itself.
	}
	for i := range list {
		if conn.Conn().IsClosed() {
			// Lost with the one before; this one has not begun.
			conn.Release()
			if conn, s, err = t.acquire(ctx, t.create, identity); err != nil {
				for ; i < len(list); i++ {
					out[i] = err
				}
				return out
			}
		}
		out[i] = t.createAlone(ctx, conn, s, list[i])
	}
	return out
}

func ours(list []Creation) bool {
	for _, c := range list {
		if len(c.SQL) > 0 {
			return false
		}
	}
	return true
}

func (t *Target) createAlone(ctx context.Context, conn *pgxpool.Conn, s *session, c Creation) error {
	if c.Alone {
		select {
		case t.catalogue <- struct{}{}:
			defer func() { <-t.catalogue }()
		case <-ctx.Done():
			return fmt.Errorf("waiting for others who change the same access lists: %w", ctx.Err())
		}
	}
	for try := 1; ; try++ {
		err := t.createOnce(ctx, conn, s, []Creation{c})
		if err == nil || !passing(err) || try == attempts || !pause(ctx, try) {
			return redact(err, c.Password.Reveal())
		}
	}
}

// pause waits a little before another try, longer each time; false says that
// the time is up.
func pause(ctx context.Context, try int) bool {
	timer := time.NewTimer(rand.N(time.Duration(try) * 20 * time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (t *Target) createOnce(ctx context.Context, conn *pgxpool.Conn, s *session, list []Creation) error {
	deadline := list[0].MakeBy
	for _, c := range list {
		if c.MakeBy.Before(deadline) {
			deadline = c.MakeBy
		}
	}
	left := deadline.Sub(t.now())
	if left <= 0 {
		return errors.New("the time to create the login is over")
	}
	m := begin(s, left)
	taken := map[int]bool{} // statements that fail where the name is taken
	theirs := map[int]int{} // an operator's statements, counted from 1
	for _, c := range list {
		if len(c.SQL) == 0 {
			taken[m.add(createRole(c))] = true
		} else {
			s.dirty = s.dirty || c.Dirty
			taken[m.failUnless("pg_catalog.to_regrole("+quote(ident(c.Role))+") IS NULL", "the role exists")] = true
			for i, sql := range c.SQL {
				theirs[m.add(sql)] = i + 1
			}
		}
		m.add("COMMENT ON ROLE " + ident(c.Role) + " IS " + quote(c.Mark))
	}
	m.before(s, deadline)
	at, err := m.commit(ctx, conn.Conn().PgConn())
	if err == nil {
		return nil
	}
	err = classify(err)
	switch n := theirs[at]; {
	case errors.Is(err, lease.ErrUnknown):
		return err
	case taken[at] && (Code(err) == codeDuplicateObject || len(list[0].SQL) > 0):
		return fmt.Errorf("%w: %w", lease.ErrNameTaken, err)
	case n > 0:
		return &StatementError{Index: n, Err: err}
	}
	return err
}

// StatementError is an operator's statement that the server refused.
type StatementError struct {
	Index int // from 1
	Err   error
}

func (e *StatementError) Error() string { return fmt.Sprintf("statement %d: %v", e.Index, e.Err) }

func (e *StatementError) Unwrap() error { return e.Err }

// createRole is our own SQL. It writes rows of the role's own and of its
// memberships, and changes none that other roles share.
func createRole(c Creation) string {
	sql := "CREATE ROLE " + ident(c.Role) + " LOGIN PASSWORD " + quote(c.Password.Reveal())
	if !c.ValidUntil.IsZero() {
		sql += " VALID UNTIL " + quote(timestamp(c.ValidUntil))
	}
	if len(c.MemberOf) > 0 {
		sql += " IN ROLE " + idents(c.MemberOf)
	}
	return sql
}

// Slack is added to the server's own expiry of a login: it is a net below the
// lease and must never come first.
const Slack = 30 * time.Second

// Expiration is the server's own end for a lease that expires at a time: never
// earlier than the lease, though the server's clock be ahead of ours.
func (t *Target) Expiration(at time.Time) time.Time {
	return at.Add(Slack + max(time.Duration(t.ahead.Load()), 0))
}

// FormatExpiration is the text of {{expiration}}.
func FormatExpiration(at time.Time) string { return timestamp(at) }
