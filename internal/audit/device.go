package audit

import "errors"

// A Device keeps records. Implementations are safe for concurrent use; one
// that is sick fails at once where it can, and is well again by itself on the
// first record after the cause has gone.
type Device interface {
	// Write returns nil when the device has taken lines, one or more
	// complete lines that each end in '\n', and keeps no reference to them.
	// After an error some of them may have been written; of each line all or
	// nothing can be read later as a line of its own. Write bounds its own
	// time, as a record must not be lost because a client has left.
	Write(lines []byte) error
	// Reopen lets go of the file or connection in favour of a new one, after
	// the old one was rotated away. On an error the old one stays in use.
	Reopen() error
	// Close waits for writes under way. Later ones fail with ErrClosed. It
	// may be called twice.
	Close() error
}

// ErrClosed is what a Device's Write returns after Close.
var ErrClosed = errors.New("audit: device is closed")
