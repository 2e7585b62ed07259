package lane_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/lane"
)

// TestRest: a worker rests for twice as long as it worked, up to a bound, and
// not when it is to stop.
func TestRest(t *testing.T) {
	for _, tt := range []struct {
		worked, rested time.Duration
		stopped        bool
	}{
		{worked: 2 * time.Millisecond, rested: 4 * time.Millisecond},
		{worked: 30 * time.Second, rested: 100 * time.Millisecond},
		{worked: 2 * time.Millisecond, stopped: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			begun := time.Now()
			time.Sleep(tt.worked)
			if tt.stopped {
				cancel()
			}
			lane.Rest(ctx, begun, 2)
			if got := time.Since(begun) - tt.worked; got != tt.rested {
				t.Errorf("after %s of work, stopped: %v: rested for %s, want %s", tt.worked, tt.stopped, got, tt.rested)
			}
		})
	}
}
