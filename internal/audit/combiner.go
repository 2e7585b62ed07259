package audit

import (
	"bytes"
	"iter"
	"runtime"
	"sync"
)

// Combiner joins the lines of callers that write at the same moment, so that
// they share one system call and, where there is one, the sync after it. The
// first caller of a batch waits for the batch before to be written, closes its
// own and writes it for all; a lone caller pays two uncontended locks.
type Combiner struct {
	// Flush writes the lines of a batch and says how many of their bytes,
	// counted from the front, were taken; err is the fate of the rest. ends
	// are the offsets after each caller's lines. It never runs twice at a
	// time. It is set before the first Write.
	Flush func(lines []byte, ends []int) (taken int, err error)

	flushing sync.Mutex // held by whoever runs Flush

	mu   sync.Mutex // guards what follows; never held while writing
	open *batch     // the batch that takes more lines, if any
	idle []*batch   // spent batches, kept for their buffers
}

// maxIdle is how many batches are in use at most times: one is written, one
// gathers, and one is being read by its callers.
const maxIdle = 3

type batch struct {
	lines []byte
	ends  []int
	taken int
	err   error
	done  chan struct{} // closed when taken and err are final; nil while only its first caller waits for that
	users int           // callers that have yet to read their result; guarded by Combiner.mu
}

// Write adds lines to a batch and returns when it was written.
func (c *Combiner) Write(lines []byte) error {
	c.mu.Lock()
	b := c.open
	leads := b == nil
	if leads {
		b = c.freshLocked()
		c.open = b
	}
	b.lines = append(b.lines, lines...)
	b.ends = append(b.ends, len(b.lines))
	b.users++
	end := len(b.lines)
	if !leads && b.done == nil {
		b.done = make(chan struct{})
	}
	done := b.done
	c.mu.Unlock()

	if leads {
		c.lead(b)
	} else {
		<-done
	}

	var err error
	if end > b.taken {
		err = b.err
	}
	c.release(b)
	return err
}

// lead writes b for all who are in it by the time the device is free. Those who
// are ready to run come first: where a shared sync has just answered many at
// once, they are about to write, too.
func (c *Combiner) lead(b *batch) {
	runtime.Gosched()
	c.flushing.Lock()
	c.mu.Lock()
	c.open = nil
	done := b.done
	c.mu.Unlock()
	b.taken, b.err = c.Flush(b.lines, b.ends)
	c.flushing.Unlock()
	if done != nil {
		close(done)
	}
}

// Exclusive runs fn while nothing is being written.
func (c *Combiner) Exclusive(fn func()) {
	c.flushing.Lock()
	defer c.flushing.Unlock()
	fn()
}

func (c *Combiner) freshLocked() *batch {
	b := &batch{}
	if n := len(c.idle); n > 0 {
		b, c.idle = c.idle[n-1], c.idle[:n-1]
	}
	b.lines, b.ends = b.lines[:0], b.ends[:0]
	b.taken, b.err, b.done = 0, nil, nil
	return b
}

// release keeps b for reuse once the last of its callers is through with it.
func (c *Combiner) release(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.users--
	if b.users == 0 && cap(b.lines) <= maxKept && len(c.idle) < maxIdle {
		c.idle = append(c.idle, b)
	}
}

// Lines cuts lines, each of which ends in '\n', into single ones without it.
func Lines(lines []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(lines) > 0 {
			n := bytes.IndexByte(lines, '\n')
			if n < 0 || !yield(lines[:n]) {
				return
			}
			lines = lines[n+1:]
		}
	}
}
