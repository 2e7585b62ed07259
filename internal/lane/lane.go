// Package lane runs the work that one foreign system is asked for, apart from
// all others.
//
// Every target (one generation of a database connection, one cloud account,
// the tokens) has a lane of its own, made when there is work and dropped when
// there is none. A lane has bounded workers, separate for creating and for
// revoking, and a circuit breaker, so that one sick target stalls nobody else.
//
// What is due stands in the store, as keys due/<target>/<time>/<kind>/<id> in
// order of time. A lane reads its own range page by page as it has room; the
// scheduler holds one entry per target. There is no timer, goroutine or map
// entry per lease anywhere.
package lane

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/storage"
)

// DuePrefix is the range of all due keys; MarkPrefix of the low-water marks.
const (
	DuePrefix  = "due/"
	MarkPrefix = "lowwater/"
)

// Work is one due key taken apart.
type Work struct {
	Key    string // the whole key; deleting it (in the transaction that finishes the work) ends it
	Target string
	Due    time.Time
	Kind   string // "l" a lease, "t" a token; each has a Handler
	ID     string
}

// Handler does the due work of one kind.
type Handler interface {
	// Run finishes, or moves to a later time, every item it is given, in the
	// store, and returns the last error of the target itself, if any. Only a
	// ConnFault counts against the breaker. An error, of the store too, says
	// that something was left which could not be done: behind a fence, what was
	// left without one is not looked at again until that is lifted. Items come
	// in order of time and belong to one target.
	Run(ctx context.Context, target string, items []Work) error
}

// Key is the due key of a piece of work. Times before 1970 count as 1970.
func Key(target string, due time.Time, kind, id string) string {
	return DuePrefix + target + "/" + stamp(due) + "/" + kind + "/" + id
}

func stamp(t time.Time) string {
	n := max(t.UnixNano(), 0)
	const hex = "0123456789abcdef"
	var b [16]byte
	for i := 15; i >= 0; i-- {
		b[i] = hex[n&15]
		n >>= 4
	}
	return string(b[:])
}

// ParseKey takes a due key apart.
func ParseKey(key string) (w Work, err error) {
	rest, ok := strings.CutPrefix(key, DuePrefix)
	if !ok {
		return w, fmt.Errorf("lane: %q is no due key", key)
	}
	target, rest, ok1 := strings.Cut(rest, "/")
	at, rest, ok2 := strings.Cut(rest, "/")
	kind, id, ok3 := strings.Cut(rest, "/")
	n, err := strconv.ParseInt(at, 16, 64)
	if !ok1 || !ok2 || !ok3 || err != nil {
		return w, fmt.Errorf("lane: %q is no due key", key)
	}
	return Work{Key: key, Target: target, Due: time.Unix(0, n), Kind: kind, ID: id}, nil
}

// Later is the time under which work for target is written that is wanted at a
// time: that, or the lane's low-water mark where that is later. The transaction
// reads the mark, so that the lane cannot move it past work that is being
// written. now is the writer's clock.
//
// A mark well ahead of the clock says that the clock was set back. Work that is
// due now must not wait until it has caught up, so the mark goes back with it;
// a lane that was about to move it sees that and does not.
func Later(tx storage.Tx, target string, want, now time.Time) (time.Time, error) {
	m, err := readMark(tx, target)
	if err != nil {
		return want, err
	}
	if m.bound.Sub(now) > clockSlip {
		m.bound, m.start = now, earlier(m.start, now)
		if err := tx.Put(MarkPrefix+target, m.encode()); err != nil {
			return want, err
		}
	}
	if m.bound.After(want) {
		want = m.bound
	}
	return earlier(want, lastTime), nil
}

// clockSlip is how far a mark may be ahead of a writer's clock without
// meaning anything: the clocks of two processes differ a little.
const clockSlip = 5 * time.Second

// lastTime is the last time that a key can hold.
var lastTime = time.Unix(0, 1<<63-1)

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// connFault marks errors of reaching a target, as opposed to its refusing one
// statement.
type connFault struct{ err error }

func (e *connFault) Error() string { return e.err.Error() }
func (e *connFault) Unwrap() error { return e.err }

// ConnFault marks err as a connection fault: it drives the target's breaker.
func ConnFault(err error) error {
	if err == nil {
		return nil
	}
	return &connFault{err}
}

// IsConnFault reports whether err was marked by ConnFault.
func IsConnFault(err error) bool {
	var c *connFault
	return errors.As(err, &c)
}
