package lane

import (
	"context"
	"time"
)

// Crowd is how many things in a batch make it one of a crowd: many that end at
// the same time.
const Crowd = 5

// restMost is how long a worker rests at most: an explicit revocation may wait
// for it.
const restMost = 100 * time.Millisecond

// Rest has a worker that has just ended some of a crowd pause for so many times
// as long as that took: with two of them it ends the crowd at a third of the
// speed that is possible. That leaves processors, disk and target to who asks
// for something; what expires by the thousand is gone in seconds either way.
func Rest(ctx context.Context, begun time.Time, times int) {
	t := time.NewTimer(min(time.Duration(times)*time.Since(begun), restMost))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
