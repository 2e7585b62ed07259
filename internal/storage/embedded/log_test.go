package embedded_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/leasehold/leasehold/internal/storage/embedded"
	"github.com/leasehold/leasehold/internal/storage/storagetest"
)

// TestLogIsLaid: the log has zeros ahead of what is in it, and a store whose
// process ended there finds every row again, be the zeros on the disk or not.
func TestLogIsLaid(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, embedded.Options{Path: dir, ReserveBytes: -1})
	defer s.Close()
	value := bytes.Repeat([]byte{'v'}, 50<<10) // the zeros end, and are written anew, every five rows
	for n := 1; n <= 12; n++ {
		storagetest.Put(t, s, fmt.Sprintf("row/%02d", n), string(value))
		for _, cut := range []bool{false, true} {
			copied := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			name := newestLog(t, copied)
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) == 0 || len(b)%(256<<10) != 0 {
				t.Errorf("after %d rows the log has %d bytes: nothing is laid ahead", n, len(b))
			}
			if cut {
				if err := os.Truncate(name, int64(len(bytes.TrimRight(b, "\x00")))); err != nil {
					t.Fatal(err)
				}
			}
			again := mustOpen(t, embedded.Options{Path: copied, ReserveBytes: -1})
			for i := 1; i <= n; i++ {
				if got, _ := storagetest.Get(t, again, fmt.Sprintf("row/%02d", i)); got != string(value) {
					t.Errorf("of %d rows, zeros cut off: %v, row %d has %d bytes", n, cut, i, len(got))
				}
			}
			if err := again.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// newestLog is the one that is written to: those before it were closed.
func newestLog(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "db", "*.log"))
	if err != nil || len(names) == 0 {
		t.Fatalf("logs in %s: %v, %v", dir, names, err)
	}
	return slices.Max(names)
}
