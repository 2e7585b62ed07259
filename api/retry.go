package api

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 2 * time.Second
	// patience is how long a Retry-After may ask to wait. Beyond it the caller
	// is told at once: whether to wait for minutes is not ours to say.
	patience = 5 * time.Second
)

// worthRepeating says whether a second try may help and can do no harm. A
// write may have been carried out although its answer was lost, and some
// writes make something each time, so only reads and deletes are repeated. A
// read that issues a credential is one too: the server undoes what it could
// not deliver.
func worthRepeating(r *Request, resp *Response, err error) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, "LIST", http.MethodDelete:
	default:
		return false
	}
	if err != nil {
		return connectionFault(err)
	}
	for _, s := range r.Accept {
		if s == resp.Status {
			return false
		}
	}
	if after, ok := retryAfter(resp); ok && after > patience {
		return false
	}
	return resp.Status == http.StatusTooManyRequests ||
		resp.Status >= 500 && resp.Status != http.StatusNotImplemented
}

// retryAfter is what a server says of when to come back.
func retryAfter(resp *Response) (time.Duration, bool) {
	s, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31)
	return time.Duration(s) * time.Second, err == nil
}

// connectionFault separates a network that may recover from certificates,
// addresses and redirects, which will not.
func connectionFault(err error) bool {
	var op *net.OpError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return true
	}
	return errors.As(err, &op) && op.Op != "remote error" && op.Timeout()
}

// retryDelay doubles from try to try, with jitter so that many clients do not
// come back together. A server's Retry-After goes first.
func retryDelay(try int, resp *Response) time.Duration {
	if resp != nil {
		if after, ok := retryAfter(resp); ok {
			return after
		}
	}
	d := min(retryFirst<<min(try, 10), retryMost)
	return d/2 + rand.N(d/2)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
