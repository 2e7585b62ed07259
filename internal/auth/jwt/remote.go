package jwt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// How other servers are asked.
const (
	fetchLimit = 10 * time.Second // for one request
	freshFor   = 10 * time.Minute // what was fetched is used without asking again
	staleFor   = time.Hour        // it is used at most so long while its server does not answer
	pause      = 10 * time.Second // between two attempts, however many logins want one
	maxReply   = 1 << 20
)

// remote is a value that another server has. Whoever needs it shares one
// request for it, which goes on if they leave; nobody else waits for it.
type remote[T any] struct {
	fetch func(context.Context) (T, error)
	eng   *Engine

	mu     sync.Mutex
	value  T
	at     time.Time     // when value was fetched; zero: never
	tried  time.Time     // when a request ended last
	err    error         // of the request that ended last
	flight chan struct{} // closed when the request under way ends; nil: there is none
}

// get gives the value. With again it is one that was asked for after the call,
// unless it was tried a moment ago.
func (r *remote[T]) get(ctx context.Context, again bool) (T, error) {
	now := r.eng.env.Now()
	r.mu.Lock()
	age := now.Sub(r.at)
	usable := !r.at.IsZero() && age < staleFor
	resting := r.flight == nil && r.err != nil && now.Sub(r.tried) < pause || again && now.Sub(r.at) < pause
	if usable && age < freshFor && !again || resting {
		defer r.mu.Unlock()
		return r.answerLocked(now)
	}
	if r.flight == nil {
		r.flight = make(chan struct{})
		r.eng.wg.Go(r.run)
	}
	flight := r.flight
	if usable && !again { // the next one will have the new value
		defer r.mu.Unlock()
		return r.answerLocked(now)
	}
	r.mu.Unlock()

	select {
	case <-flight:
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answerLocked(r.eng.env.Now())
}

func (r *remote[T]) answerLocked(now time.Time) (T, error) {
	if r.at.IsZero() || now.Sub(r.at) >= staleFor {
		var none T
		return none, r.err
	}
	return r.value, nil
}

// run is one request.
func (r *remote[T]) run() {
	ctx, cancel := context.WithTimeout(r.eng.ctx, fetchLimit)
	defer cancel()
	v, err := r.fetch(ctx)
	now := r.eng.env.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tried, r.err = now, err; err == nil {
		r.value, r.at = v, now
	}
	close(r.flight)
	r.flight = nil
}

// fetch asks for a document.
func fetch(ctx context.Context, c *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	return send(c, req)
}

// send gives the body of an answer of 200.
func send(c *http.Client, req *http.Request) ([]byte, error) {
	status, body, err := exchange(c, req)
	if err == nil && status != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d, want 200", req.URL.Redacted(), status)
	}
	return body, err
}

func exchange(c *http.Client, req *http.Request) (status int, body []byte, err error) {
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err == nil && len(body) > maxReply {
		err = errors.New("the answer is longer than 1 MiB")
	}
	if err != nil {
		return 0, nil, fmt.Errorf("reading the answer of %s: %w", req.URL.Redacted(), err)
	}
	return resp.StatusCode, body, nil
}
