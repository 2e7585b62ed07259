package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/leasehold/leasehold/internal/storage"
)

// A group ends at either limit; what is left makes the next one.
const (
	groupRequests = 1024
	groupBytes    = 2 << 20 // well below half a memtable, from which on Pebble works differently
)

// request is one Update on its way through the committer.
type request struct {
	ctx      context.Context
	fn       func(storage.Tx) error
	rev      storage.Revision
	err      error
	panicked any
	answer   chan struct{}
}

var requests = sync.Pool{New: func() any { return &request{answer: make(chan struct{}, 1)} }}

// Update implements storage.Backend.
func (s *Store) Update(ctx context.Context, fn func(storage.Tx) error) (storage.Revision, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	r := requests.Get().(*request)
	r.ctx, r.fn = ctx, fn
	if err := s.submit(r); err != nil {
		return 0, err
	}
	select {
	case <-r.answer:
	case <-s.stopped:
		return 0, s.endErr()
	}
	rev, err, panicked := r.rev, r.err, r.panicked
	*r = request{answer: r.answer}
	requests.Put(r)
	if panicked != nil {
		panic(panicked)
	}
	return rev, err
}

func (s *Store) submit(r *request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.failed() {
		return s.endErr()
	}
	s.pending = append(s.pending, r)
	if len(s.pending) == 1 {
		s.notify()
	}
	if s.wanted > 0 && len(s.pending) >= s.wanted {
		s.wanted = 0
		select {
		case s.gathered <- struct{}{}:
		default:
		}
	}
	return nil
}

func (s *Store) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// committer is what the commit loop works with. All of it is used again for
// the next group.
type committer struct {
	s       *Store
	base    *snapshot        // what the group's functions see below the group's own writes
	below   *pebble.Iterator // over base; nil until the group reads
	buf     storage.Buffer
	rows    []row          // the group's writes
	index   map[string]int // of rows, by key
	bytes   int            // of rows
	writers uint64         // functions that wrote
	batch   *pebble.Batch
	changes []storage.Change
	key     []byte
	values  []byte // read from base
	timer   *time.Timer
}

type row struct {
	key   string
	value []byte // nil: deleted
}

func (s *Store) commitLoop() {
	orderly := false
	defer func() {
		if !orderly { // someone's function called runtime.Goexit (t.FailNow does)
			s.stop(errors.New("the committer was ended"))
		}
		close(s.done)
	}()
	c := &committer{s: s, index: map[string]int{}, batch: s.db.NewBatch(), timer: time.NewTimer(time.Hour)}
	defer c.timer.Stop()
	var work []*request
	for range s.wake {
		for {
			s.mu.Lock()
			work, s.pending = s.pending, work[:0]
			closing := s.closing
			s.mu.Unlock()
			if len(work) == 0 {
				if closing {
					orderly = true
					_ = c.batch.Close()
					return
				}
				break
			}
			for rest := work; len(rest) > 0; {
				n, ok := c.group(rest)
				if !ok {
					return // stopped: nobody waits for an answer any more
				}
				rest = rest[n:]
			}
			n := len(work)
			clear(work)
			c.gather(n)
		}
	}
}

// Writers who were answered together mostly have more to write: a moment's
// wait lets them share the next sync, which costs the processor more than the
// wait costs them. Few writers are not waited for.
const (
	gatherFrom = 4
	gatherMost = 800 * time.Microsecond
)

// gather waits for those who were just answered to come back and join those
// who are pending already, or a moment.
func (c *committer) gather(last int) {
	if last < gatherFrom {
		runtime.Gosched() // those who are ready to run may queue up
		return
	}
	s := c.s
	s.mu.Lock()
	wait := len(s.pending) < groupRequests && !s.closing
	if wait {
		s.wanted = min(len(s.pending)+last, groupRequests)
	}
	s.mu.Unlock()
	if !wait {
		return
	}
	c.timer.Reset(gatherMost)
	select {
	case <-s.gathered:
	case <-c.timer.C:
	}
	s.mu.Lock()
	s.wanted = 0
	s.mu.Unlock()
	select { // a word that came with the timer is not for the next time
	case <-s.gathered:
	default:
	}
}

// group runs and commits the first requests of work and answers them. It
// returns how many; not ok means that the store has stopped.
func (c *committer) group(work []*request) (n int, ok bool) {
	if c.s.failed() {
		return 0, false
	}
	c.reset()
	readOnly := c.s.space.refuse()
	for n < len(work) && n < groupRequests && c.bytes < groupBytes {
		r := work[n]
		n++
		switch err := r.ctx.Err(); {
		case err != nil:
			r.err = err
		case readOnly:
			r.err = storage.ErrReadOnly
		default:
			c.run(r)
		}
	}
	if c.below != nil {
		if err := c.below.Close(); err != nil { // a read failed, so its function has, too
			c.s.log.Warn("storage: reading", "error", err)
		}
		c.below = nil
	}
	rev, ok := c.commit()
	if !ok {
		return n, false
	}
	// Answers with an error had to wait too: the function may have seen
	// writes of this group that were not yet durable.
	for _, r := range work[:n] {
		if r.err == nil {
			r.rev = rev
		}
		r.answer <- struct{}{}
	}
	return n, true
}

func (c *committer) reset() {
	c.base = c.s.now.Load()
	c.buf.Free()
	clear(c.rows)
	c.rows = c.rows[:0]
	clear(c.index)
	c.bytes, c.writers = 0, 0
	if cap(c.values) > 1<<20 {
		c.values = nil
	}
	c.values = c.values[:0]
}

// run runs one function and adds its writes to the group.
func (c *committer) run(r *request) {
	defer func() { // the caller's goroutine gets the panic, not this one
		if p := recover(); p != nil {
			r.panicked = p
			r.err = errors.New("panicked")
		}
	}()
	c.buf.Begin(c.read)
	if r.err = r.fn(&c.buf); r.err == nil {
		r.err = c.buf.Err()
	}
	if r.err != nil {
		return
	}
	wrote := false
	for key, value := range c.buf.Writes {
		wrote = true
		c.bytes += len(key) + len(value)
		if i, ok := c.index[key]; ok {
			c.rows[i].value = value
			continue
		}
		c.index[key] = len(c.rows)
		c.rows = append(c.rows, row{key, value})
	}
	if wrote {
		c.writers++
	}
}

func (c *committer) read(key string) (value []byte, err error) {
	if i, ok := c.index[key]; ok {
		return c.rows[i].value, nil
	}
	if value, ok := c.s.rows.get(key, c.base.rev); ok {
		return value, nil
	}
	if c.below == nil {
		// Most keys that an Update reads must not be there. For those an
		// iterator is several times faster than a plain Get, which looks into
		// the lowest level without asking its filters.
		if c.below, err = c.base.p.NewIter(&pebble.IterOptions{UseL6Filters: true}); err != nil {
			return nil, err
		}
	}
	c.key = append(c.key[:0], key...)
	if !c.below.SeekPrefixGE(c.key) {
		if err := c.below.Error(); err != nil {
			return nil, err
		}
		c.s.rows.fill(key, nil, c.base.rev)
		return nil, nil
	}
	v, err := c.below.ValueAndErr()
	if err != nil {
		return nil, err
	}
	value, c.values = appended(c.values, v)
	c.s.rows.fill(key, value, c.base.rev)
	return value, nil
}

// commit makes the group's writes durable, then visible, then known to the
// watchers.
func (c *committer) commit() (rev storage.Revision, ok bool) {
	if len(c.rows) == 0 {
		return c.base.rev, true
	}
	rev = c.base.rev + 1
	c.batch.Reset()
	c.changes = c.changes[:0]
	for _, r := range c.rows {
		if r.value == nil {
			op := c.batch.DeleteDeferred(len(r.key))
			copy(op.Key, r.key)
			_ = op.Finish()
		} else {
			op := c.batch.SetDeferred(len(r.key), len(r.value))
			copy(op.Key, r.key)
			copy(op.Value, r.value)
			_ = op.Finish()
		}
		c.changes = append(c.changes, storage.Change{Key: r.key, Rev: rev})
	}
	op := c.batch.SetDeferred(len(revisionKey), 8)
	copy(op.Key, revisionKey)
	binary.BigEndian.PutUint64(op.Value, uint64(rev))
	_ = op.Finish()
	if !c.apply() {
		return 0, false
	}
	for _, r := range c.rows {
		c.s.rows.write(r.key, r.value, rev)
	}
	c.s.syncs.Add(1)
	c.s.commits.Add(c.writers)
	c.s.now.Store(c.s.snapshot(rev))
	c.base.release()
	c.s.feed.Publish(c.changes)
	return rev, true
}

// apply writes and syncs the batch. When that fails it does not return
// (fail.go), or Pebble panics.
func (c *committer) apply() (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			c.s.stop(fmt.Errorf("committing: %v", p))
		}
	}()
	if err := c.s.db.Apply(c.batch, pebble.Sync); err != nil {
		c.s.stop(fmt.Errorf("committing: %w", err))
		return false
	}
	return !c.s.failed()
}
