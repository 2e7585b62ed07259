package storage_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/storage/storagetest"
)

func TestPrefixIsABackend(t *testing.T) {
	storagetest.Run(t, func(t testing.TB) storage.Backend {
		whole := mem.New()
		storagetest.Put(t, whole, "m/", "not of the slice", "m/1", "neither", "m0", "neither", "a", "neither")
		return closer{storage.Prefix(storage.Prefix(whole, "m"), "/2/"), whole}
	})
}

// closer closes the whole store with its slice, as the suite wants it.
type closer struct {
	storage.Backend
	whole storage.Backend
}

func (c closer) Close() error {
	if err := c.Backend.Close(); err != nil {
		return err
	}
	return c.whole.Close()
}

func TestPrefixWatch(t *testing.T) {
	whole := mem.New()
	slice := storage.Prefix(whole, "m/1/")
	ctx, stop := context.WithCancel(context.Background())
	var got []string
	running, done := make(chan struct{}), make(chan error)
	go func() {
		done <- slice.Watch(ctx, 0, func(cs []storage.Change) error {
			if len(cs) == 0 {
				close(running)
			}
			for _, c := range cs {
				got = append(got, c.Key)
			}
			return nil
		})
	}()
	<-running
	storagetest.Put(t, whole, "m/1/a", "", "m/2/b", "")
	storagetest.Put(t, whole, "m/2/c", "")
	storagetest.Put(t, slice, "d", "")
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch = %v, want %v", err, context.Canceled)
	}
	if want := []string{"a", "d"}; !slices.Equal(got, want) {
		t.Errorf("changes = %q, want %q", got, want)
	}
}

// badRow is a View in which some rows cannot be read.
type badRow struct {
	storage.View
	bad map[string]bool
}

func (v badRow) Scan(from, to string, limit int, fn func(string, []byte) bool) error {
	var err error
	serr := v.View.Scan(from, to, limit, func(key string, value []byte) bool {
		if v.bad[key] {
			err = &storage.CorruptError{Key: key, Err: errors.New("bad")}
			return false
		}
		return fn(key, value)
	})
	return errors.Join(serr, err)
}

func TestScanEach(t *testing.T) {
	s := mem.New()
	storagetest.Put(t, s, "a", "", "b", "", "c", "", "d", "", "e", "")
	for _, tt := range []struct {
		limit int
		want  []string
	}{
		{0, []string{"a", "!b", "c", "!d", "e"}},
		{2, []string{"a", "!b", "c"}},
		{3, []string{"a", "!b", "c", "!d", "e"}},
	} {
		var got []string
		err := s.View(context.Background(), func(v storage.View) error {
			v = badRow{v, map[string]bool{"b": true, "d": true}}
			return storage.ScanEach(v, "a", "", tt.limit, func(key string, _ []byte, bad error) bool {
				if bad != nil {
					key = "!" + key
				}
				got = append(got, key)
				return true
			})
		})
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("ScanEach(limit %d) = %q, %v, want %q", tt.limit, got, err, tt.want)
		}
	}
}

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{"a/": "a0", "": "", "\xff": "", "a\xff": "b"} {
		if got := storage.PrefixEnd(prefix); got != want {
			t.Errorf("PrefixEnd(%q) = %q, want %q", prefix, got, want)
		}
	}
}
