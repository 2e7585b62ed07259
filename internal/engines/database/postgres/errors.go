package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
)

// SQLSTATEs that we act on.
const (
	codeDuplicateObject   = "42710"
	codePermission        = "42501"
	codeReadOnly          = "25006"
	codeStillReferenced   = "2BP01"
	codeSerialization     = "40001"
	codeDeadlock          = "40P01"
	codeInternal          = "XX000" // "tuple concurrently updated" has no code of its own
	codeBadPassword       = "28P01"
	codeBadAuthorization  = "28000"
	codeTooManyClients    = "53300"
	codeUndefinedFunction = "42883"
)

// Code is the SQLSTATE of an error that came from the server, or "".
func Code(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// fatal reports whether the server ended the session with this error. It may
// then have carried out what it was doing.
func fatal(pe *pgconn.PgError) bool {
	return pe.SeverityUnlocalized == "FATAL" || pe.SeverityUnlocalized == "PANIC" || pe.Severity == "FATAL" || pe.Severity == "PANIC"
}

// notSent is the error of a message of which no byte was sent. (The driver's
// own SafeToRetry also says so of a connection that was lost after sending.)
type notSent struct{ err error }

func (e *notSent) Error() string { return "the connection was lost before sending: " + e.err.Error() }
func (e *notSent) Unwrap() error { return e.err }

// classify says of an error met while running a message whether the message is
// known to have failed, and whether the connection was at fault. An error
// without lease.ErrUnknown in it is a known failure: nothing was done.
func classify(err error) error {
	if err == nil {
		return nil
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		if !fatal(pe) {
			return err
		}
		// "terminating connection" may come after the commit was made.
		return fmt.Errorf("%w: %w", lease.ErrUnknown, lane.ConnFault(err))
	}
	var ns *notSent
	if errors.As(err, &ns) {
		return lane.ConnFault(err)
	}
	return fmt.Errorf("%w: %w", lease.ErrUnknown, lane.ConnFault(err))
}

// connecting gives an error of reaching the server: nothing was sent.
func connecting(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == codeReadOnly {
		return &lease.WaitError{Reason: "the server is read-only", Err: err}
	}
	var wait *lease.WaitError
	if errors.As(err, &wait) {
		return err
	}
	var ce *pgconn.ConnectError
	var ne net.Error
	if ctx.Err() != nil && !errors.As(err, &ce) && !errors.As(err, &ne) {
		// All connections were busy until the time was up.
		return fmt.Errorf("waiting for a connection: %w", err)
	}
	return lane.ConnFault(err)
}

// passing reports whether the same statements may work when tried again:
// another session changed the same catalogue row at that moment.
func passing(err error) bool {
	if errors.Is(err, lease.ErrUnknown) {
		return false
	}
	switch Code(err) {
	case codeSerialization, codeDeadlock, codeInternal:
		return true
	}
	return false
}

// redact removes a password from what the server said.
func redact(err error, secrets ...string) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return err
	}
	for _, s := range secrets {
		if s == "" {
			continue
		}
		for _, p := range []*string{&pe.Message, &pe.Detail, &pe.Hint, &pe.Where, &pe.InternalQuery} {
			*p = strings.ReplaceAll(*p, s, "[password]")
		}
	}
	return err
}
