package mem_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/feed"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/storage/storagetest"
)

func TestStore(t *testing.T) {
	storagetest.Run(t, func(testing.TB) storage.Backend { return mem.New() })
}

func TestWatchFromTooLongAgo(t *testing.T) {
	s := mem.New()
	from := storagetest.Put(t, s, "a", "1")
	for range 2 * feed.Keep {
		storagetest.Put(t, s, "a", "2")
	}
	err := s.Watch(context.Background(), from, func([]storage.Change) error { t.Error("called"); return nil })
	if !errors.Is(err, storage.ErrLost) {
		t.Errorf("Watch = %v, want ErrLost", err)
	}
}

func BenchmarkGet(b *testing.B) {
	s := mem.New()
	for i := range 10000 {
		storagetest.Put(b, s, fmt.Sprintf("m/root/%06d", i*7919%10000), "value")
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = s.View(context.Background(), func(v storage.View) error {
			_, err := v.Get("m/root/004711")
			return err
		})
	}
}

func BenchmarkUpdate(b *testing.B) {
	s := mem.New()
	keys := make([]string, 100000)
	for i := range keys {
		keys[i] = fmt.Sprintf("m/root/%06d", i)
		storagetest.Put(b, s, keys[i], "value")
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		k := keys[i*7919%len(keys)]
		_, _ = s.Update(context.Background(), func(tx storage.Tx) error { return tx.Put(k, []byte("other")) })
	}
}
