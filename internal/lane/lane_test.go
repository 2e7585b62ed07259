package lane_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
)

// worker deletes the due keys it is given, after do.
type worker struct {
	db storage.Backend
	do func(target string, items []lane.Work) error

	mu   sync.Mutex
	done map[string][]string // ids by target, in order
	most int                 // largest batch
}

func (w *worker) Run(ctx context.Context, target string, items []lane.Work) error {
	if w.do != nil {
		if err := w.do(target, items); err != nil {
			return err
		}
	}
	_, err := w.db.Update(ctx, func(tx storage.Tx) error {
		for _, it := range items {
			if err := tx.Delete(it.Key); err != nil {
				return err
			}
		}
		return nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.most = max(w.most, len(items))
	for _, it := range items {
		w.done[target] = append(w.done[target], it.ID)
	}
	return err
}

func (w *worker) ids(target string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.done[target])
}

func (w *worker) count(target string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.done[target])
}

func run(t *testing.T, do func(target string, items []lane.Work) error, f func(s *lane.Set, w *worker)) {
	synctest.Test(t, func(t *testing.T) {
		db := mem.New()
		w := &worker{db: db, do: do, done: map[string][]string{}}
		s := lane.New(lane.Config{Store: db, Handlers: map[string]lane.Handler{"w": w}})
		ctx, cancel := context.WithCancel(context.Background())
		end := make(chan error)
		go func() { end <- s.Run(ctx) }()
		synctest.Wait()
		f(s, w)
		cancel()
		if err := <-end; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

// add writes work for a target, due after wait.
func (w *worker) add(t *testing.T, target, id string, wait time.Duration) time.Time {
	t.Helper()
	var at time.Time
	_, err := w.db.Update(context.Background(), func(tx storage.Tx) (err error) {
		if at, err = lane.Later(tx, target, time.Now().Add(wait), time.Now()); err != nil {
			return err
		}
		return tx.Put(lane.Key(target, at, "w", id), nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestKeysSortByTime(t *testing.T) {
	at := time.Unix(1_800_000_000, 42)
	key := lane.Key("conn-1", at, "w", "a/b/c")
	got, err := lane.ParseKey(key)
	if err != nil || !got.Due.Equal(at) || got.Target != "conn-1" || got.Kind != "w" || got.ID != "a/b/c" {
		t.Errorf("ParseKey(%q) = %+v, %v", key, got, err)
	}
	if later := lane.Key("conn-1", at.Add(time.Hour), "w", "a"); later <= key {
		t.Errorf("Key of a later time %q sorts before %q", later, key)
	}
	for _, bad := range []string{"", "due/", "due/x", "due/x/zz/w/i", "lease/x/0/w/i"} {
		if _, err := lane.ParseKey(bad); err == nil {
			t.Errorf("ParseKey(%q) succeeds", bad)
		}
	}
}

func TestWorkIsDoneWhenDue(t *testing.T) {
	run(t, nil, func(_ *lane.Set, w *worker) {
		w.add(t, "a", "late", time.Hour)
		w.add(t, "a", "soon", time.Minute)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if got := w.ids("a"); len(got) != 1 || got[0] != "soon" {
			t.Errorf("done after 30 minutes: %v, want soon", got)
		}
		time.Sleep(31 * time.Minute)
		synctest.Wait()
		if got := w.count("a"); got != 2 {
			t.Errorf("%d done after an hour, want 2", got)
		}
	})
}

// A target whose work hangs for ever stalls no other.
func TestSickTargetStallsNobody(t *testing.T) {
	hang := make(chan struct{})
	do := func(target string, _ []lane.Work) error {
		if target == "sick" {
			<-hang
		}
		return nil
	}
	synctest.Test(t, func(t *testing.T) {
		hang = make(chan struct{})
		db := mem.New()
		w := &worker{db: db, do: do, done: map[string][]string{}}
		s := lane.New(lane.Config{Store: db, Handlers: map[string]lane.Handler{"w": w}})
		ctx, cancel := context.WithCancel(context.Background())
		end := make(chan error)
		go func() { end <- s.Run(ctx) }()
		synctest.Wait()
		for i := range 200 {
			w.add(t, "sick", fmt.Sprint(i), 0)
			w.add(t, "well", fmt.Sprint(i), 0)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := w.count("well"); n != 200 {
			t.Errorf("%d of 200 done on the well target", n)
		}
		if err := s.Create(ctx, "sick", func(context.Context) error { return nil }); err != nil {
			t.Errorf("creating waits for revoking: %v", err)
		}
		close(hang)
		cancel()
		<-end
	})
}

func TestBatchesAreBounded(t *testing.T) {
	run(t, nil, func(s *lane.Set, w *worker) {
		s.Limit("a", lane.Limits{Revoke: 2, Batch: 10})
		for i := range 100 {
			w.add(t, "a", fmt.Sprint(i), time.Minute)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		n := w.count("a")
		w.mu.Lock()
		defer w.mu.Unlock()
		if n != 100 || w.most != 10 {
			t.Errorf("%d done in batches of at most %d, want 100 and 10", n, w.most)
		}
	})
}

// Connection faults open the breaker; one attempt closes it again.
func TestBreaker(t *testing.T) {
	var down atomic.Bool
	var tries atomic.Int32
	down.Store(true)
	do := func(string, []lane.Work) error {
		tries.Add(1)
		if down.Load() {
			return lane.ConnFault(errors.New("connection refused"))
		}
		return nil
	}
	run(t, do, func(s *lane.Set, w *worker) {
		for i := range 50 {
			w.add(t, "a", fmt.Sprint(i), 0)
		}
		time.Sleep(10 * time.Minute)
		st := s.Status("a")
		if !st.Open || st.LastError == "" {
			t.Errorf("Status = %+v, want open", st)
		}
		if n := tries.Load(); n > 40 {
			t.Errorf("%d tries in ten minutes of a dead target", n)
		}
		if err := s.Create(t.Context(), "a", func(context.Context) error { return nil }); !errs.Is(err, errs.Upstream) && err != nil {
			t.Errorf("Create = %v, want Upstream", err)
		}
		down.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := w.count("a"); n != 50 || s.Status("a").Open {
			t.Errorf("%d of 50 done after it came back, %+v", n, s.Status("a"))
		}
	})
}

// A connection that is lost is one fault, however many creations shared it, and
// those that were under way when the breaker opened do not make its pause longer.
func TestBreakerCountsFaultsOnce(t *testing.T) {
	gone := lane.ConnFault(errors.New("connection reset"))
	lose := func(s *lane.Set, key string, n int) {
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				_ = lane.CreateBatch(context.Background(), s, "a", key, 32, 0, func(_ context.Context, vs []int) []error {
					time.Sleep(10 * time.Millisecond)
					return slices.Repeat([]error{gone}, len(vs))
				})
			})
		}
		wg.Wait()
	}
	run(t, nil, func(s *lane.Set, _ *worker) {
		s.Limit("a", lane.Limits{Create: 1})
		lose(s, "group", 16) // one has the slot, the others wait for it together
		if st := s.Status("a"); st.Open {
			t.Errorf("Status = %+v after two connections were lost, want closed", st)
		}
	})
	run(t, nil, func(s *lane.Set, _ *worker) {
		lose(s, "", 16)
		if st := s.Status("a"); !st.Open || time.Until(st.Retry) > time.Second {
			t.Errorf("Status = %+v after a moment without the target, want open for a second at most, not %s", st, time.Until(st.Retry))
		}
	})
}

// A handler's own error, one role's bad SQL, opens nothing.
func TestOtherErrorsLeaveTheBreakerAlone(t *testing.T) {
	run(t, nil, func(s *lane.Set, _ *worker) {
		bad := errors.New("syntax error")
		for range 10 {
			if err := s.Create(context.Background(), "a", func(context.Context) error { return bad }); !errors.Is(err, bad) {
				t.Fatalf("Create = %v", err)
			}
		}
		if err := s.Ready("a"); err != nil {
			t.Errorf("Ready = %v", err)
		}
	})
}

func TestCreateLimit(t *testing.T) {
	run(t, nil, func(s *lane.Set, _ *worker) {
		s.Limit("a", lane.Limits{Create: 3})
		var mu sync.Mutex
		now, most := 0, 0
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				_ = s.Create(context.Background(), "a", func(context.Context) error {
					mu.Lock()
					now++
					most = max(most, now)
					mu.Unlock()
					time.Sleep(time.Second)
					mu.Lock()
					now--
					mu.Unlock()
					return nil
				})
			})
		}
		wg.Wait()
		if most != 3 {
			t.Errorf("%d creations at a time, want 3", most)
		}
	})
}

// Creations with one key that wait together run together; each gets its own
// error; those of another key stay apart.
func TestCreateBatch(t *testing.T) {
	run(t, nil, func(s *lane.Set, _ *worker) {
		s.Limit("a", lane.Limits{Create: 1})
		var mu sync.Mutex
		var sizes []int
		do := func(_ context.Context, vs []int) []error {
			time.Sleep(time.Second)
			mu.Lock()
			sizes = append(sizes, len(vs))
			mu.Unlock()
			out := make([]error, len(vs))
			for i, v := range vs {
				if v%5 == 0 {
					out[i] = fmt.Errorf("no %d", v)
				}
			}
			return out
		}
		var wg sync.WaitGroup
		for v := range 21 {
			wg.Go(func() {
				err := lane.CreateBatch(context.Background(), s, "a", "group", 8, v, do)
				if (err != nil) != (v%5 == 0) || err != nil && err.Error() != fmt.Sprintf("no %d", v) {
					t.Errorf("CreateBatch(%d) = %v", v, err)
				}
			})
		}
		wg.Wait()
		sum := 0
		for _, n := range sizes {
			sum += n
			if n > 8 {
				t.Errorf("a batch of %d, want at most 8", n)
			}
		}
		if sum != 21 || len(sizes) > 5 {
			t.Errorf("batches of %v for 21 creations", sizes)
		}
	})
}

// A run that panics gives its slot back, and everybody whose creation was part
// of it hears of it.
func TestCreateBatchPanics(t *testing.T) {
	run(t, nil, func(s *lane.Set, _ *worker) {
		s.Limit("a", lane.Limits{Create: 1})
		var wg sync.WaitGroup
		var panics atomic.Int32
		for range 5 {
			wg.Go(func() {
				defer func() {
					if recover() != nil {
						panics.Add(1)
					}
				}()
				_ = lane.CreateBatch(context.Background(), s, "a", "group", 8, 0, func(context.Context, []int) []error {
					time.Sleep(time.Second)
					panic("a fault in an engine")
				})
			})
		}
		wg.Wait()
		if n := panics.Load(); n != 5 {
			t.Errorf("%d of 5 callers heard of a panic", n)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Create(ctx, "a", func(context.Context) error { return nil }); err != nil {
			t.Errorf("Create after a panic = %v", err)
		}
		if st := s.Status("a"); st.Creating != 0 {
			t.Errorf("Status = %+v, want no creations", st)
		}
	})
}

// A caller that gives up waiting leaves nothing behind for a leader to run.
func TestCreateBatchAbandoned(t *testing.T) {
	run(t, nil, func(s *lane.Set, _ *worker) {
		s.Limit("a", lane.Limits{Create: 1})
		release := make(chan struct{})
		first := make(chan error)
		go func() {
			first <- s.Create(context.Background(), "a", func(context.Context) error { <-release; return nil })
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		ran := false
		err := lane.CreateBatch(ctx, s, "a", "k", 4, 1, func(context.Context, []int) []error { ran = true; return []error{nil} })
		if !errs.Is(err, errs.Upstream) || ran {
			t.Errorf("CreateBatch past its deadline = %v, ran %v", err, ran)
		}
		close(release)
		if err := <-first; err != nil {
			t.Errorf("Create = %v", err)
		}
	})
}

// Work is never written below the low-water mark, and none is skipped however
// the mark moves.
func TestLowWaterMark(t *testing.T) {
	run(t, nil, func(_ *lane.Set, w *worker) {
		n := 0
		for range 50 {
			for range 20 {
				n++
				w.add(t, "a", fmt.Sprint(n), time.Duration(n%7-3)*time.Second)
			}
			time.Sleep(300 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := w.count("a"); got != n {
			t.Errorf("%d of %d done", got, n)
		}
		before := time.Now()
		if at := w.add(t, "a", "past", -time.Hour); at.Before(before.Add(-time.Minute)) {
			t.Errorf("work was written at %v, an hour before the mark", before.Sub(at))
		}
	})
}
