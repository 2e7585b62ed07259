package storage_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
)

func TestFolder(t *testing.T) {
	b := mem.New()
	_, err := b.Update(t.Context(), func(tx storage.Tx) error {
		for _, k := range []string{"x/a", "x/a-b", "x/a/1", "x/a/2", "x/a/b/c", "x/a0", "x/ä/x", "x/ä/y", "x0", "w/z"} {
			if err := tx.Put(k, []byte("v")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		folder string
		want   []string
	}{
		{"", []string{"w/", "x/", "x0"}},
		{"x/", []string{"a", "a-b", "a/", "a0", "ä/"}},
		{"x/a/", []string{"1", "2", "b/"}},
		{"x/ä/", []string{"x", "y"}},
		{"y/", nil},
	}
	for _, tt := range tests {
		got, err := storage.Folder(t.Context(), b, tt.folder)
		if d := cmp.Diff(tt.want, got); err != nil || d != "" {
			t.Errorf("Folder(%q) = %q, %v (-want +got):\n%s", tt.folder, got, err, d)
		}
	}
}
