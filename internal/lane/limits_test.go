package lane_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/storage/mem"
)

// TestConfiguredLimits: the operator's limits hold for every target, and bound
// what an engine asks for its own.
func TestConfiguredLimits(t *testing.T) {
	tests := []struct {
		configured, asked, want int // 0: not said
	}{
		{0, 0, 4}, {2, 0, 2}, {9, 0, 9}, {0, 7, 7}, {2, 7, 2}, {9, 7, 7},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			s := lane.New(lane.Config{Store: mem.New(), Limits: lane.Limits{Create: tt.configured}})
			if tt.asked > 0 {
				s.Limit("db", lane.Limits{Create: tt.asked})
			}
			var now, most atomic.Int32
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					err := s.Create(t.Context(), "db", func(context.Context) error {
						most.Store(max(most.Load(), now.Add(1)))
						time.Sleep(time.Second) // virtual: all that can begin have begun
						now.Add(-1)
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if got := int(most.Load()); got != tt.want {
				t.Errorf("configured %d, asked %d: %d at a time, want %d", tt.configured, tt.asked, got, tt.want)
			}
		})
	}
}
