package metrics

import (
	"math/bits"
	"strconv"
	"sync/atomic"
	"time"
)

// The bounds of the buckets double from 64 µs to 67 s, so that the bucket of a
// duration is the length of a number in bits and needs no search.
const (
	firstBound = 64 * time.Microsecond
	bounded    = 21
)

// bound is a bucket's upper bound in seconds, as the label le has it.
func bound(i int) string {
	if i == bounded {
		return "+Inf"
	}
	return strconv.FormatFloat((firstBound << i).Seconds(), 'g', -1, 64)
}

// Durations counts how long something took. Adding costs two atomic additions
// and takes no lock. The zero value is ready.
type Durations struct {
	buckets [bounded + 1]atomic.Uint64
	nanos   atomic.Uint64
}

// Add counts one duration.
func (d *Durations) Add(took time.Duration) {
	took = max(took, 0)
	d.buckets[bucketOf(took)].Add(1)
	d.nanos.Add(uint64(took))
}

func bucketOf(took time.Duration) int {
	if took <= firstBound {
		return 0
	}
	return min(bits.Len64(uint64((took-1)/firstBound)), bounded)
}

// Tally is what Durations have counted, or several of them together.
type Tally struct {
	buckets [bounded + 1]uint64
	nanos   uint64
}

// Add adds what d has counted so far.
func (t *Tally) Add(d *Durations) {
	for i := range d.buckets {
		t.buckets[i] += d.buckets[i].Load()
	}
	t.nanos += d.nanos.Load()
}

// Count is how many durations there were.
func (t *Tally) Count() uint64 {
	n := uint64(0)
	for _, b := range t.buckets {
		n += b
	}
	return n
}

// Sum is how long they took together.
func (t *Tally) Sum() time.Duration { return time.Duration(t.nanos) }
