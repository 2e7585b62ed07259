package cli

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/leasehold/leasehold/api"
)

// output is standard output. It keeps the first error of writing to it, so
// that no command need look at each of its lines: Run does at the end.
type output struct {
	w    io.Writer
	once string // what is lost with the answer and cannot be asked for again, and what to do then

	mu  sync.Mutex // a write to a pipe that nobody reads may be left behind
	err error
}

// outputError is an error of standard output, which settle reports.
type outputError struct{ err error }

func (e *outputError) Error() string { return "writing to standard output: " + e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

func (o *output) Write(p []byte) (int, error) {
	if err := o.failed(); err != nil {
		return 0, err // a gap in what was printed would be worse than its end
	}
	n, err := o.w.Write(p)
	if err != nil {
		err = &outputError{err}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.err = err
	}
	return n, err
}

func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// settle says on stderr what could not be written, and makes a success a
// failure. Who closes a pipe has read as much as was wanted (head, a pager).
func (o *output) settle(stderr io.Writer, code int) int {
	err := o.failed()
	if err == nil || errors.Is(err, syscall.EPIPE) {
		return code
	}
	once := o.once
	if once == "" {
		once = "What the command prints is lost, or a part of it."
	}
	fmt.Fprintf(stderr, "%s\n\n%s\n", upperFirst(err.Error()), once)
	if code == exitOK {
		return exitLocal
	}
	return code
}

// once notes what is lost should the answer not reach standard output.
func (c *call) once(format string, args ...any) {
	c.cfg.Stdout.(*output).once = fmt.Sprintf(format, args...)
}

// onceSecret is once for a reply that may hold something made for it.
func (c *call) onceSecret(s *api.Secret) {
	switch {
	case s == nil:
	case s.WrapInfo != nil:
		c.once("The wrapping token is lost: it is not shown again. To end it and what it holds:\n\n    %s token revoke -accessor %s", programName, s.WrapInfo.Accessor)
	case s.Auth != nil && s.Auth.Accessor != "":
		c.once("The token is lost: it is not shown again. To end it:\n\n    %s token revoke -accessor %s", programName, s.Auth.Accessor)
	case s.LeaseID != "" && s.HasData():
		c.once("The credential is lost: it is not shown again. To end it:\n\n    %s lease revoke %s", programName, s.LeaseID)
	}
}
