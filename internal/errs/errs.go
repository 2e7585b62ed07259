// Package errs holds the kinds of error that cross package borders.
//
// Inside the server an error has a kind and a sentence for the client; what
// caused it is wrapped for the operator's log and never shown to the client.
// One function at the edge (httpapi) maps kinds to HTTP statuses.
package errs

import (
	"errors"
	"fmt"
	"time"
)

// Kind says whose fault an error is and what a client may do about it.
type Kind uint8

// The kinds. The zero value, Internal, is what any foreign error counts as.
const (
	Internal         Kind = iota // our fault; the client reads "internal error", the log the cause (500)
	Invalid                      // the caller's or the configuration's fault; repeating does not help (400)
	Denied                       // no token, a bad token, or no permission (403)
	NotFound                     // nothing is there (404); an empty message answers {"errors":[]}
	Unsupported                  // the path exists, the operation does not (405)
	UnsupportedMedia             // a content type that the operation does not take (415)
	Precondition                 // a condition of the request no longer holds (412)
	TooLarge                     // the body is over the limit (413)
	TooMany                      // a quota or cap is reached (429)
	Unavailable                  // sealed, stopping, store full or read-only, no audit device (503)
	Upstream                     // a foreign system did not answer or refused us (502)
)

// Error is an error with a kind. Msg is written for the person who sent the
// request: cause and next step, never a secret. Err, when set, is for the log.
type Error struct {
	Kind Kind
	Msg  string
	Err  error
	// Data, when set, is answered in the envelope's data together with the
	// status (a deleted KV version answers 404 with its metadata).
	Data any
	// After, when set, is when asking again may help: Retry-After.
	After time.Duration
}

func (e *Error) Error() string {
	switch {
	case e.Err == nil:
		return e.Msg
	case e.Msg == "":
		return e.Err.Error()
	}
	return e.Msg + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// New makes an error of a kind whose sentence the client may read.
func New(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Msg: fmt.Sprintf(format, args...)}
}

// Wrap gives err a kind and a sentence for the client; err itself goes to the
// log only. Wrap of nil is nil.
func Wrap(k Kind, err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: k, Msg: fmt.Sprintf(format, args...), Err: err}
}

// Later is New of TooMany, for who may ask again after a while.
func Later(after time.Duration, format string, args ...any) error {
	return &Error{Kind: TooMany, Msg: fmt.Sprintf(format, args...), After: after}
}

// Gone is NotFound without a sentence, as clients of LIST and read expect it.
var Gone error = &Error{Kind: NotFound}

// KindOf is the kind of the outermost *Error in err's chain, or Internal.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// Is reports whether err is of kind k. A nil error is of no kind.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }

// Message is the sentence for the client. Internal errors give nothing away.
func Message(err error) string {
	var e *Error
	if errors.As(err, &e) && (e.Kind != Internal || e.Msg != "") {
		return e.Msg
	}
	return "internal error; the server's log has the cause"
}
