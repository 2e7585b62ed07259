package lane_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
)

// bench is a set on a clock that a test sets back and forth.
func bench(t *testing.T, db storage.Backend, held *atomic.Bool, f func(s *lane.Set, w *worker, skew *atomic.Int64)) {
	synctest.Test(t, func(t *testing.T) {
		var skew atomic.Int64
		w := &worker{db: db, done: map[string][]string{}}
		cfg := lane.Config{
			Store: db, Handlers: map[string]lane.Handler{"w": w},
			// Without a monotonic part: it is the wall clock that is moved.
			Now: func() time.Time { return time.Now().Round(0).Add(time.Duration(skew.Load())) },
		}
		if held != nil {
			cfg.Held = held.Load
		}
		s := lane.New(cfg)
		ctx, cancel := context.WithCancel(context.Background())
		end := make(chan error)
		go func() { end <- s.Run(ctx) }()
		synctest.Wait()
		f(s, w, &skew)
		cancel()
		if err := <-end; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

// addAt writes work that is due at once by a clock.
func addAt(t *testing.T, db storage.Backend, target, id string, now time.Time) {
	t.Helper()
	_, err := db.Update(context.Background(), func(tx storage.Tx) error {
		at, err := lane.Later(tx, target, now, now)
		if err != nil {
			return err
		}
		return tx.Put(lane.Key(target, at, "w", id), nil)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Work that is written after the clock was set back is done at once, and none
// is ever passed by the mark.
func TestClockSetBack(t *testing.T) {
	for _, back := range []time.Duration{2 * time.Second, time.Minute, time.Hour} {
		t.Run(back.String(), func(t *testing.T) {
			db := mem.New()
			bench(t, db, nil, func(_ *lane.Set, w *worker, skew *atomic.Int64) {
				now := func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
				n := 0
				write := func(times int) {
					for range times {
						n++
						addAt(t, db, "a", fmt.Sprint(n), now())
						time.Sleep(400 * time.Millisecond)
					}
				}
				write(20)
				skew.Add(-int64(back))
				write(1)
				time.Sleep(6 * time.Second)
				if got := w.count("a"); got != n {
					t.Errorf("%d of %d done soon after the clock was set back by %s", got, n, back)
				}
				write(20)
				skew.Add(int64(back))
				write(20)
				skew.Add(-int64(back))
				write(20)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if got := w.count("a"); got != n {
					t.Errorf("%d of %d done", got, n)
				}
			})
		})
	}
}

// A due key that nobody understands, and a mark that is damaged, stop nothing.
func TestDamagedKeys(t *testing.T) {
	db := mem.New()
	bench(t, db, nil, func(_ *lane.Set, w *worker, _ *atomic.Int64) {
		_, err := db.Update(context.Background(), func(tx storage.Tx) error {
			return errors.Join(
				tx.Put(lane.DuePrefix+"a/not-a-time/w/x", nil), tx.Put(lane.DuePrefix+"a/0000000000000001", nil),
				tx.Put(lane.DuePrefix+"zzz", nil), tx.Put(lane.MarkPrefix+"a", []byte("nonsense")),
			)
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			w.add(t, "a", fmt.Sprint(i), 0)
			w.add(t, "b", fmt.Sprint(i), time.Second)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if a, b := w.count("a"), w.count("b"); a != 5 || b != 5 {
			t.Errorf("%d and %d of 5 done beside damaged keys", a, b)
		}
	})
}

// A store that fails while the lanes start does not end expiry for good.
func TestStoreFailsAtStart(t *testing.T) {
	for n := 1; n <= 3; n++ {
		db := mem.New()
		broken := fault.Wrap(db)
		broken.Set(fault.At(n))
		bench(t, broken, nil, func(_ *lane.Set, w *worker, _ *atomic.Int64) {
			w.add(t, "a", "1", 3*time.Second)
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if got := w.count("a"); got != 1 {
				t.Errorf("call %d failed at the start: %d of 1 done", n, got)
			}
		})
	}
}

// keeper leaves what is held, as expiry behind a fence does, and counts how
// often it is asked.
type keeper struct {
	*worker
	asked  atomic.Int64
	lifted atomic.Bool
}

func (k *keeper) Run(ctx context.Context, target string, items []lane.Work) error {
	k.asked.Add(int64(len(items)))
	var free []lane.Work
	for _, it := range items {
		if it.ID[0] != 'h' || k.lifted.Load() {
			free = append(free, it)
		}
	}
	if len(free) == 0 {
		return nil
	}
	return k.worker.Run(ctx, target, free)
}

// Behind a fence, what may go on is found wherever its time lies, also when
// the clock was set back, and what is held is not read again and again.
func TestHeldWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mem.New()
		k := &keeper{worker: &worker{db: db, done: map[string][]string{}}}
		var skew atomic.Int64
		now := func() time.Time { return time.Now().Round(0).Add(time.Duration(skew.Load())) }
		s := lane.New(lane.Config{Store: db, Handlers: map[string]lane.Handler{"w": k}, Held: func() bool { return true }, Now: now})
		ctx, cancel := context.WithCancel(context.Background())
		end := make(chan error)
		go func() { end <- s.Run(ctx) }()
		s.Limit("a", lane.Limits{}) // keeps the lane
		for i := range 200 {
			addAt(t, db, "a", fmt.Sprint("held", i), now())
		}
		time.Sleep(10 * time.Second)
		for i := range 20 {
			addAt(t, db, "a", fmt.Sprint("free", i), now())
			time.Sleep(10 * time.Second)
		}
		skew.Add(-int64(time.Hour))
		addAt(t, db, "a", "free-early", now())
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := k.count("a"); got != 21 {
			t.Errorf("%d of 21 done behind the fence", got)
		}
		if n := k.asked.Load(); n > 1000 {
			t.Errorf("the handler was given %d pieces of work for 221", n)
		}
		cancel()
		<-end
	})
}

// What was left behind a fence is done when that is lifted, also where the last
// of what is due was free to go and is gone.
func TestHeldWorkGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mem.New()
		k := &keeper{worker: &worker{db: db, done: map[string][]string{}}}
		s := lane.New(lane.Config{Store: db, Handlers: map[string]lane.Handler{"w": k}, Held: func() bool { return !k.lifted.Load() }})
		ctx, cancel := context.WithCancel(context.Background())
		end := make(chan error)
		go func() { end <- s.Run(ctx) }()
		s.Limit("pinned", lane.Limits{})
		for _, target := range []string{"a", "pinned"} {
			addAt(t, db, target, "held", time.Now())
			addAt(t, db, target, "free", time.Now().Add(time.Second))
		}
		time.Sleep(time.Hour)
		k.lifted.Store(true)
		s.Resume()
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, target := range []string{"a", "pinned"} {
			if got := k.count(target); got != 2 {
				t.Errorf("target %q: %d of 2 done after the fence was lifted", target, got)
			}
		}
		cancel()
		<-end
	})
}
