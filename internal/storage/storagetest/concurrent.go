package storagetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/leasehold/leasehold/internal/storage"
)

func testIncrements(t *testing.T, b storage.Backend) {
	const workers, each = 8, 25
	errOdd := errors.New("odd")
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				_, err := b.Update(context.Background(), func(tx storage.Tx) error {
					v, err := tx.Get("n")
					if err != nil {
						return err
					}
					n, _ := strconv.Atoi(string(v))
					if err := tx.Put("n", []byte(strconv.Itoa(n+1))); err != nil {
						return err
					}
					if i%5 == 4 {
						return errOdd
					}
					return tx.Put(fmt.Sprintf("got/%d", n+1), []byte{byte(w)})
				})
				if err != nil && err != errOdd {
					t.Errorf("Update: %v", err)
				}
			}
		})
	}
	wg.Wait()
	want := workers * each * 4 / 5
	if got, _ := Get(t, b, "n"); got != strconv.Itoa(want) {
		t.Errorf("counter = %s, want %d", got, want)
	}
	if got := len(All(t, b, "got/", storage.PrefixEnd("got/"))); got != want {
		t.Errorf("%d numbers were handed out, want %d", got, want)
	}
}

// testWriteSkew: two transactions that each read both keys and write one must
// not both see the other's absent.
func testWriteSkew(t *testing.T, b storage.Backend) {
	for i := range 50 {
		x, y := fmt.Sprintf("x%d", i), fmt.Sprintf("y%d", i)
		var won atomic.Int32
		var wg sync.WaitGroup
		for _, mine := range []string{x, y} {
			wg.Go(func() {
				taken := false
				_, err := b.Update(context.Background(), func(tx storage.Tx) error {
					taken = false
					for _, k := range []string{x, y} {
						v, err := tx.Get(k)
						if err != nil {
							return err
						}
						taken = taken || v != nil
					}
					if taken {
						return nil
					}
					return tx.Put(mine, []byte("1"))
				})
				if err != nil {
					t.Errorf("Update: %v", err)
				}
				if !taken {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d of two exclusive transactions won, want 1", won.Load())
		}
	}
}

// testVisible: whoever has an Update's answer sees it in every View.
func testVisible(t *testing.T, b storage.Backend) {
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			key := fmt.Sprintf("w%d", w)
			for i := range 40 {
				want := strconv.Itoa(i)
				rev := Put(t, b, key, want)
				view(t, b, func(v storage.View) {
					if got, _ := get(t, v, key); got != want || v.Revision() < rev {
						t.Errorf("View at %d after Update to %d: Get(%q) = %q, want %q", v.Revision(), rev, key, got, want)
					}
				})
			}
		})
	}
	wg.Wait()
}

// watcher runs a Watch and keeps what it was given.
type watcher struct {
	mu      sync.Mutex
	changes []storage.Change
	running chan struct{}
	done    chan error
	stop    context.CancelFunc
}

func watch(t *testing.T, b storage.Backend, from storage.Revision) *watcher {
	ctx, stop := context.WithCancel(context.Background())
	w := &watcher{running: make(chan struct{}), done: make(chan error, 1), stop: stop}
	up := false
	go func() {
		w.done <- b.Watch(ctx, from, func(cs []storage.Change) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.changes = append(w.changes, cs...)
			if len(cs) == 0 && !up {
				up = true
				close(w.running)
			}
			return nil
		})
	}()
	select {
	case <-w.running:
	case err := <-w.done:
		t.Fatalf("Watch ended before it ran: %v", err)
	}
	return w
}

// end stops the Watch and checks that it says so.
func (w *watcher) end(t *testing.T) {
	t.Helper()
	w.stop()
	if err := <-w.done; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch = %v, want %v", err, context.Canceled)
	}
}

// check compares what was given, without repetitions, with the revisions at
// which want's keys changed, and that revisions never fell.
func (w *watcher) check(t *testing.T, want []storage.Change) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[storage.Change]bool{}
	var last storage.Revision
	for _, c := range w.changes {
		if c.Rev < last {
			t.Errorf("change %v after revision %d", c, last)
		}
		last = c.Rev
		seen[c] = true
	}
	for _, c := range want {
		if !seen[c] {
			t.Errorf("the Watch was not given %v", c)
		}
	}
}

func testWatch(t *testing.T, b storage.Backend) {
	first := Put(t, b, "before", "1")
	w := watch(t, b, first)
	var want []storage.Change
	want = append(want, storage.Change{Key: "a", Rev: Put(t, b, "a", "1")})
	rev := Put(t, b, "b", "1", "c", "1")
	want = append(want, storage.Change{Key: "b", Rev: rev}, storage.Change{Key: "c", Rev: rev})
	want = append(want, storage.Change{Key: "a", Rev: Delete(t, b, "a")})
	_, _ = b.Update(context.Background(), func(tx storage.Tx) error {
		_ = tx.Put("rolled back", nil)
		return errors.New("no")
	})
	w.check(t, want)
	w.end(t)
	w.mu.Lock()
	n := len(w.changes)
	for _, c := range w.changes {
		if c.Rev <= first || c.Key == "rolled back" {
			t.Errorf("the Watch was given %v", c)
		}
	}
	w.mu.Unlock()
	Put(t, b, "after", "1")
	if len(w.changes) != n {
		t.Error("a Watch that has returned was called again")
	}
}

func testWatchBacklog(t *testing.T, b storage.Backend) {
	from := Put(t, b, "a", "0")
	var want []storage.Change
	for i := range 20 {
		k := fmt.Sprintf("k%d", i)
		want = append(want, storage.Change{Key: k, Rev: Put(t, b, k, "1")})
	}
	w := watch(t, b, from) // returns with the empty batch: the backlog came before
	w.check(t, want)
	want = append(want, storage.Change{Key: "later", Rev: Put(t, b, "later", "1")})
	w.check(t, want)
	w.end(t)
}

// testWatchBeforeAnswer: with the answer of an Update, every running Watch has
// had its changes.
func testWatchBeforeAnswer(t *testing.T, b storage.Backend) {
	start := Put(t, b, "start", "1")
	watchers := []*watcher{watch(t, b, start), watch(t, b, start)}
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			for i := range 20 {
				key := fmt.Sprintf("%d/%d", g, i)
				c := storage.Change{Key: key, Rev: Put(t, b, key, "1")}
				for _, w := range watchers {
					w.mu.Lock()
					found := false
					for j := len(w.changes) - 1; j >= 0 && !found; j-- {
						found = w.changes[j] == c
					}
					w.mu.Unlock()
					if !found {
						t.Errorf("Update of %q was answered before a Watch had %v", key, c)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, w := range watchers {
		w.end(t)
	}
}

func testWatchError(t *testing.T, b storage.Backend) {
	from := Put(t, b, "a", "1")
	mine := errors.New("mine")
	running, done := make(chan struct{}), make(chan error)
	go func() {
		done <- b.Watch(context.Background(), from, func(cs []storage.Change) error {
			if len(cs) == 0 {
				close(running)
				return nil
			}
			return mine
		})
	}()
	<-running
	Put(t, b, "b", "1")
	if err := <-done; err != mine {
		t.Errorf("Watch = %v, want the function's error as it is", err)
	}
	Put(t, b, "c", "1") // is not held up by a Watch that has ended
}

func testWatchLost(t *testing.T, b storage.Backend) {
	rev := Put(t, b, "a", "1")
	fail := func([]storage.Change) error { t.Error("called"); return nil }
	if err := b.Watch(context.Background(), rev+1000, fail); !errors.Is(err, storage.ErrLost) {
		t.Errorf("Watch from the future = %v, want ErrLost", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Watch(ctx, rev, func([]storage.Change) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Watch with an ended context = %v, want %v", err, context.Canceled)
	}
}

func testClose(t *testing.T, b storage.Backend) {
	w := watch(t, b, Put(t, b, "a", "1"))
	for range 2 {
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if err := <-w.done; !errors.Is(err, storage.ErrClosed) {
		t.Errorf("Watch over Close = %v, want ErrClosed", err)
	}
	if err := b.View(context.Background(), func(storage.View) error { return nil }); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("View after Close = %v, want ErrClosed", err)
	}
	if _, err := b.Update(context.Background(), func(storage.Tx) error { return nil }); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("Update after Close = %v, want ErrClosed", err)
	}
	if err := b.Watch(context.Background(), 0, func([]storage.Change) error { return nil }); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("Watch after Close = %v, want ErrClosed", err)
	}
}
