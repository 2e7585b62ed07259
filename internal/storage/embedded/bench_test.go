package embedded_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/embedded"
)

// BenchmarkUpdate is what issuing a lease writes: four new rows, one row that
// is there, and two reads of absent keys.
func BenchmarkUpdate(b *testing.B) {
	for _, writers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := mustOpen(b, embedded.Options{Path: b.TempDir(), ReserveBytes: -1})
			defer s.Close()
			value := make([]byte, 300)
			var n atomic.Int64
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for {
						i := n.Add(1)
						if i > int64(b.N) {
							return
						}
						_, err := s.Update(context.Background(), func(tx storage.Tx) error {
							id := fmt.Sprintf("%016x", i*0x1E3779B97F4A7C15)
							for _, k := range []string{"lease/root/m1/" + id, "due/t1/" + id + "/lease/" + id, "name/t1/" + id} {
								if v, err := tx.Get(k); v != nil || err != nil {
									return err
								}
								if err := tx.Put(k, value); err != nil {
									return err
								}
							}
							count := fmt.Sprintf("count/%d", w%16)
							old, err := tx.Get(count)
							if err != nil {
								return err
							}
							c := uint64(0)
							if old != nil {
								c = binary.BigEndian.Uint64(old)
							}
							return tx.Put(count, binary.BigEndian.AppendUint64(nil, c+1))
						})
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			st := s.Stats()
			b.ReportMetric(float64(st.Commits)/b.Elapsed().Seconds(), "txn/s")
			b.ReportMetric(float64(st.Commits)/float64(st.Syncs), "txn/sync")
		})
	}
}

func BenchmarkGet(b *testing.B) {
	s := mustOpen(b, embedded.Options{Path: b.TempDir(), ReserveBytes: -1})
	defer s.Close()
	fill(b, s, 100000)
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("tok/root/%08d", i*97)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			err := s.View(context.Background(), func(v storage.View) error {
				v2, err := v.Get(keys[i%len(keys)])
				if len(v2) == 0 {
					return fmt.Errorf("nothing at %s", keys[i%len(keys)])
				}
				return err
			})
			if err != nil {
				b.Error(err)
			}
		}
	})
}

// fill writes n rows of 400 bytes.
func fill(b testing.TB, s *embedded.Store, n int) {
	value := make([]byte, 400)
	for i := 0; i < n; i += 100 {
		_, err := s.Update(context.Background(), func(tx storage.Tx) error {
			for j := i; j < i+100; j++ {
				binary.BigEndian.PutUint64(value, uint64(j))
				if err := tx.Put(fmt.Sprintf("tok/root/%08d", j), value); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen is a start after a kill, with a million rows and full logs.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s := mustOpen(b, embedded.Options{Path: dir, ReserveBytes: -1})
	fill(b, s, 1000000)
	s.Close() // writes no memtable out: what the log holds is replayed
	b.ResetTimer()
	for b.Loop() {
		s := mustOpen(b, embedded.Options{Path: dir, ReserveBytes: -1})
		b.StopTimer()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc>>20), "heap-MiB")
		s.Close()
		b.StartTimer()
	}
}
