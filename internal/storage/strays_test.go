package storage_test

import (
	"fmt"
	"testing"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
)

// TestDeleteStrays has more rows than a page of which every third points at
// nothing: those go, the others and what lies beside stay.
func TestDeleteStrays(t *testing.T) {
	db, ctx := mem.New(), t.Context()
	put := func(key, value string) {
		if _, err := db.Update(ctx, func(tx storage.Tx) error { return tx.Put(key, []byte(value)) }); err != nil {
			t.Fatal(err)
		}
	}
	const rows = 1201
	for i := range rows {
		at := fmt.Sprintf("%04d", i)
		put("index/"+at, "row/"+at)
		if i%3 != 0 {
			put("row/"+at, "")
		}
	}
	put("index/none", "")
	put("indey", "row/gone")
	pointsAt := func(_ string, value []byte) string { return string(value) }
	for _, want := range []int{(rows + 2) / 3, 0} {
		if n, err := storage.DeleteStrays(ctx, db, "index/", pointsAt); err != nil || n != want {
			t.Errorf("DeleteStrays = %d, %v, want %d", n, err, want)
		}
	}
	left := 0
	if err := db.View(ctx, func(v storage.View) error {
		return v.Scan("index", "indez", 0, func(string, []byte) bool { left++; return true })
	}); err != nil {
		t.Fatal(err)
	}
	if want := rows - (rows+2)/3 + 2; left != want {
		t.Errorf("%d rows are left, want %d", left, want)
	}
}
