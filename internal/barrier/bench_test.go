package barrier_test

import (
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/storagetest"
)

func BenchmarkGet(b *testing.B) {
	bar := open(b, initialized(b), root)
	storagetest.Put(b, bar, "m/root/1/some/path", strings.Repeat("x", 300))
	b.ReportAllocs()
	for b.Loop() {
		_ = bar.View(ctx, func(v storage.View) error { _, err := v.Get("m/root/1/some/path"); return err })
	}
}

func BenchmarkPut(b *testing.B) {
	bar := open(b, initialized(b), root)
	value := make([]byte, 300)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = bar.Update(ctx, func(tx storage.Tx) error { return tx.Put("m/root/1/some/path", value) })
	}
}

func BenchmarkKeyedHash(b *testing.B) {
	h, err := open(b, initialized(b), root).KeyedHash("token")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		h("hvs.CAESIJ0rLQ3Q5v7mN1f2")
	}
}
