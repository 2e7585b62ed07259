package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/audit/outbox"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
)

// sink keeps the events it takes, or fails while err is set.
type sink struct {
	mu       sync.Mutex
	disabled bool
	err      error
	events   []audit.Stored
	calls    int
}

func (s *sink) Enabled() bool { s.mu.Lock(); defer s.mu.Unlock(); return !s.disabled }

func (s *sink) Deliver(_ context.Context, events []audit.Stored) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.err == nil {
		s.events = append(s.events, events...)
	}
	return s.err
}

func (s *sink) set(fn func()) { s.mu.Lock(); defer s.mu.Unlock(); fn() }

// of lists what was delivered of a lane, by path.
func (s *sink) of(lane string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var paths []string
	for _, e := range s.events {
		if strings.HasPrefix(e.ID, lane+"/") {
			paths = append(paths, e.Path)
		}
	}
	return paths
}

type system struct {
	store storage.Backend
	sink  *sink
	out   *outbox.Outbox
}

func newSystem(store storage.Backend) *system {
	s := &system{store: store, sink: &sink{}}
	s.out = outbox.New(outbox.Config{Store: store, Sink: s.sink, Log: slog.New(slog.DiscardHandler)})
	return s
}

// run runs the outbox until the test or the func it returns ends it.
func (s *system) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.out.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run() = %v, want the context's error", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (s *system) append(t *testing.T, lane string, paths ...string) {
	t.Helper()
	records := make([]audit.Stored, len(paths))
	for i, p := range paths {
		records[i] = audit.Stored{Kind: "lease", Path: p}
	}
	_, err := s.store.Update(t.Context(), func(tx storage.Tx) error { return s.out.Append(tx, lane, records...) })
	if err != nil {
		t.Fatal(err)
	}
}

func (s *system) keys(t *testing.T, prefix string) []string {
	t.Helper()
	var keys []string
	err := s.store.View(t.Context(), func(v storage.View) error {
		return v.Scan(prefix, storage.PrefixEnd(prefix), 0, func(k string, _ []byte) bool {
			keys = append(keys, k)
			return true
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestDeliversInOrderPerLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(mem.New())
		s.append(t, "a", "before")
		stop := s.run(t)
		want := []string{"before"}
		for i := range 300 {
			p := fmt.Sprint(i)
			s.append(t, "a", p, p+"'")
			s.append(t, "b", p)
			want = append(want, p, p+"'")
		}
		synctest.Wait()
		if diff := cmp.Diff(want, s.sink.of("a")); diff != "" {
			t.Errorf("lane a (-want +got):\n%s", diff)
		}
		if got := s.sink.of("b"); len(got) != 300 || !slices.IsSortedFunc(got, func(a, b string) int {
			return len(a)*1000 - len(b)*1000 + strings.Compare(a, b)
		}) {
			t.Errorf("lane b got %d records, want 300 in order: %v", len(got), got)
		}
		if got := s.keys(t, "audit/"); len(got) != 0 {
			t.Errorf("rows left: %v, want none", got)
		}
		stop()
	})
}

func TestWaitsForADevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(mem.New())
		stop := s.run(t)
		s.sink.set(func() { s.sink.err = errors.New("sick") })
		s.append(t, "a", "1")
		s.append(t, "a", "2")
		time.Sleep(time.Minute) // virtual
		s.sink.set(func() {
			if s.sink.calls < 10 || s.sink.calls > 30 {
				t.Errorf("%d attempts in a minute, want about 15", s.sink.calls)
			}
			s.sink.err = nil
		})
		time.Sleep(5 * time.Second)
		if got, want := s.sink.of("a"), []string{"1", "2"}; !slices.Equal(got, want) {
			t.Errorf("delivered %v, want %v", got, want)
		}
		stop()
	})
}

func TestNothingIsStoredWithoutDevices(t *testing.T) {
	s := newSystem(mem.New())
	s.sink.disabled = true
	s.append(t, "a", "1")
	if got := s.keys(t, ""); len(got) != 0 {
		t.Errorf("rows = %v, want none", got)
	}
}

func TestRestartDeliversTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := mem.New()
		first := newSystem(store)
		first.append(t, "a", "1")
		first.append(t, "b", "1")
		stop := first.run(t)
		synctest.Wait()
		stop()
		first.append(t, "a", "2") // delivered by the next one
		time.Sleep(time.Second)   // a restart takes its time

		second := newSystem(store)
		stop = second.run(t)
		synctest.Wait()
		second.append(t, "a", "3")
		second.append(t, "b", "3")
		synctest.Wait()
		if got, want := second.sink.of("a"), []string{"2", "3"}; !slices.Equal(got, want) {
			t.Errorf("lane a delivered %v, want %v", got, want)
		}
		if got, want := second.sink.of("b"), []string{"3"}; !slices.Equal(got, want) {
			t.Errorf("lane b delivered %v, want %v", got, want)
		}
		ids := map[string]bool{}
		for _, e := range append(first.sink.events, second.sink.events...) {
			if ids[e.ID] {
				t.Errorf("the id %s was given twice", e.ID)
			}
			ids[e.ID] = true
		}
		stop()

		// Lanes with nothing to deliver leave nothing behind.
		third := newSystem(store)
		stop = third.run(t)
		synctest.Wait()
		if got := third.keys(t, ""); len(got) != 0 {
			t.Errorf("rows left: %v, want none", got)
		}
		stop()
	})
}

// readOnly refuses writes that delete, while it is set.
type readOnly struct {
	storage.Backend
	mu  sync.Mutex
	set bool
}

func (r *readOnly) Update(ctx context.Context, fn func(storage.Tx) error) (storage.Revision, error) {
	r.mu.Lock()
	set := r.set
	r.mu.Unlock()
	if set {
		return 0, storage.ErrReadOnly
	}
	return r.Backend.Update(ctx, fn)
}

func (r *readOnly) turn(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set = on
}

func TestRowsThatCannotBeDeletedAreDeliveredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &readOnly{Backend: mem.New()}
		s := newSystem(store)
		stop := s.run(t)
		synctest.Wait()
		s.append(t, "a", "0")
		synctest.Wait()
		s.sink.set(func() { s.sink.err = errors.New("sick") })
		s.append(t, "a", "1")
		synctest.Wait()
		store.mu.Lock()
		store.set = true
		store.mu.Unlock()
		s.sink.set(func() { s.sink.err = nil })
		time.Sleep(time.Minute)
		store.mu.Lock()
		store.set = false
		store.mu.Unlock()
		time.Sleep(10 * time.Second)
		if got, want := s.sink.of("a"), []string{"0", "1"}; !slices.Equal(got, want) {
			t.Errorf("delivered %v, want %v", got, want)
		}
		if got := s.keys(t, "audit/"); len(got) != 0 {
			t.Errorf("rows left: %v, want none", got)
		}
		stop()
	})
}

// TestFullAtStart: what an earlier process left is delivered although the store
// takes no writes yet, and what comes when it does, too.
func TestFullAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &readOnly{Backend: mem.New()}
		first := newSystem(store)
		first.append(t, "idle", "0")
		stop := first.run(t)
		synctest.Wait()
		stop()
		first.append(t, "a", "1")

		store.turn(true)
		s := newSystem(store)
		stop = s.run(t)
		synctest.Wait()
		if got, want := s.sink.of("a"), []string{"1"}; !slices.Equal(got, want) {
			t.Errorf("on a full store delivered %v, want %v", got, want)
		}
		store.turn(false)
		s.append(t, "a", "2")
		s.append(t, "idle", "3")
		time.Sleep(time.Minute)
		if got, want := s.sink.of("a"), []string{"1", "2"}; !slices.Equal(got, want) {
			t.Errorf("delivered %v, want %v", got, want)
		}
		if got, want := s.sink.of("idle"), []string{"3"}; !slices.Equal(got, want) {
			t.Errorf("of the lane that was idle delivered %v, want %v", got, want)
		}
		stop()
	})
}

// corrupt has rows that cannot be decrypted, as the barrier tells of them.
type corrupt struct {
	storage.Backend
	mu   sync.Mutex
	keys []string
}

func (c *corrupt) View(ctx context.Context, fn func(storage.View) error) error {
	return c.Backend.View(ctx, func(v storage.View) error { return fn(corruptView{v, c}) })
}

func (c *corrupt) Update(ctx context.Context, fn func(storage.Tx) error) (storage.Revision, error) {
	return c.Backend.Update(ctx, func(tx storage.Tx) error { return fn(corruptTx{tx, c}) })
}

func (c *corrupt) bad(key string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.keys, key) {
		return &storage.CorruptError{Key: key, Err: errors.New("forged")}
	}
	return nil
}

type corruptView struct {
	storage.View
	c *corrupt
}

func (v corruptView) Get(key string) ([]byte, error) {
	if err := v.c.bad(key); err != nil {
		return nil, err
	}
	return v.View.Get(key)
}

func (v corruptView) Scan(from, to string, limit int, fn func(string, []byte) bool) (err error) {
	serr := v.View.Scan(from, to, limit, func(key string, value []byte) bool {
		if err = v.c.bad(key); err != nil {
			return false
		}
		return fn(key, value)
	})
	return errors.Join(serr, err)
}

type corruptTx struct {
	storage.Tx
	c *corrupt
}

func (t corruptTx) Get(key string) ([]byte, error) {
	if err := t.c.bad(key); err != nil {
		return nil, err
	}
	return t.Tx.Get(key)
}

func (t corruptTx) Put(key string, value []byte) error {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.c.keys = slices.DeleteFunc(t.c.keys, func(k string) bool { return k == key })
	return t.Tx.Put(key, value)
}

// TestARowThatDoesNotDecrypt: it stays where it is, and what stands behind it,
// and in other lanes, is delivered. What a lane's mark said is made out without
// it, and what ends in the lane ends.
func TestARowThatDoesNotDecrypt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &corrupt{Backend: mem.New()}
		s := newSystem(store)
		s.append(t, "a", "1")
		for _, lane := range []string{"a", "b", "c", "d"} {
			s.append(t, lane, "2")
		}
		store.keys = []string{s.keys(t, "audit/a/")[0], "auditlow/b", "auditseq/c", "auditseq/d", "auditlow/d"}
		time.Sleep(time.Second)
		s.append(t, "d", "3")
		stop := s.run(t)
		synctest.Wait()
		s.append(t, "b", "3")
		s.append(t, "c", "3")
		synctest.Wait()
		for lane, want := range map[string][]string{"a": {"2"}, "b": {"2", "3"}, "c": {"2", "3"}, "d": {"2", "3"}} {
			if got := s.sink.of(lane); !slices.Equal(got, want) {
				t.Errorf("of lane %s delivered %v, want %v", lane, got, want)
			}
		}
		stop()
	})
}

func TestAnUnreadableRowHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(mem.New())
		s.append(t, "a", "1")
		s.append(t, "a", "2")
		bad := s.keys(t, "audit/a/")[0]
		_, err := s.store.Update(t.Context(), func(tx storage.Tx) error { return tx.Put(bad, []byte("{")) })
		if err != nil {
			t.Fatal(err)
		}
		stop := s.run(t)
		synctest.Wait()
		if got, want := s.sink.of("a"), []string{"2"}; !slices.Equal(got, want) {
			t.Errorf("delivered %v, want %v", got, want)
		}
		if got, want := s.keys(t, "audit/"), []string{bad}; !slices.Equal(got, want) {
			t.Errorf("rows left: %v, want %v", got, want)
		}
		stop()
	})
}

func TestARecordComesBackWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(mem.New())
		want := audit.Stored{
			Time: time.Date(2026, 11, 23, 10, 0, 0, 1, time.UTC), Kind: "lease", Operation: "revoke", Cause: "expired", Outcome: "gone",
			Namespace: audit.Namespace{ID: "n1", Path: "team/"},
			Mount:     audit.Mount{Point: "database/", Type: "database", Accessor: "acc", Class: "secret", Version: "v1"},
			Path:      "database/creds/app", LeaseID: secret.New("database/creds/app/x"), Target: "c1-1",
			Credential: secret.New("v-app"), TokenAccessor: "tacc", Error: "late",
		}
		_, err := s.store.Update(t.Context(), func(tx storage.Tx) error { return s.out.Append(tx, "c1-1", want) })
		if err != nil {
			t.Fatal(err)
		}
		stop := s.run(t)
		synctest.Wait()
		if len(s.sink.events) != 1 {
			t.Fatalf("%d events, want 1", len(s.sink.events))
		}
		got := s.sink.events[0]
		want.ID = got.ID
		if !strings.HasPrefix(got.ID, "c1-1/") || got != want {
			t.Errorf("delivered %+v, want %+v", got, want)
		}
		stop()
	})
}

func TestBadLane(t *testing.T) {
	s := newSystem(mem.New())
	for _, lane := range []string{"", "a/b"} {
		_, err := s.store.Update(t.Context(), func(tx storage.Tx) error { return s.out.Append(tx, lane, audit.Stored{}) })
		if err == nil {
			t.Errorf("Append to lane %q = nil, want an error", lane)
		}
	}
}
