package httpapi

import (
	"context"
	"sync"
	"time"
)

// deadline is a request's context: the connection's, with an end. Most
// requests are answered without anybody waiting on it, so the timer is only
// made when somebody first asks for Done.
type deadline struct {
	context.Context
	at time.Time

	mu     sync.Mutex
	timed  context.Context // nil until Done was asked for
	cancel context.CancelFunc
}

func newDeadline(parent context.Context, at time.Time) *deadline {
	return &deadline{Context: parent, at: at}
}

func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }

func (d *deadline) Done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timed == nil {
		d.timed, d.cancel = context.WithDeadline(d.Context, d.at)
	}
	return d.timed.Done()
}

func (d *deadline) Err() error {
	d.mu.Lock()
	timed := d.timed
	d.mu.Unlock()
	if timed != nil {
		return timed.Err()
	}
	if err := d.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(d.at) {
		return context.DeadlineExceeded
	}
	return nil
}

// Value lets contexts made from this one find the timer's, so that they hang
// on it without a goroutine of their own.
func (d *deadline) Value(key any) any {
	d.mu.Lock()
	timed := d.timed
	d.mu.Unlock()
	if timed != nil {
		return timed.Value(key)
	}
	return d.Context.Value(key)
}

// release ends the timer, if there is one.
func (d *deadline) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancel != nil {
		d.cancel()
	}
}
