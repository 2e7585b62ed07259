package file_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/audit/file"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

func newDevice(t testing.TB, cfg file.Config) *file.Device {
	t.Helper()
	d := file.New(cfg)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func logPath(t testing.TB) string { return filepath.Join(t.TempDir(), "audit.log") }

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t testing.TB, d *file.Device, lines string) {
	t.Helper()
	if err := d.Write([]byte(lines)); err != nil {
		t.Fatalf("Write(%q) = %v, want no error", lines, err)
	}
}

func TestConcurrentRecordsAreWholeAndInOrder(t *testing.T) {
	for _, sync := range []bool{false, true} {
		t.Run(fmt.Sprintf("sync=%t", sync), func(t *testing.T) {
			path := logPath(t)
			d := newDevice(t, file.Config{Path: path, Sync: sync})
			const writers, records = 16, 50
			concurrently(writers, func(w int) {
				for i := range records {
					if err := d.Write(fmt.Appendf(nil, `{"w":%d,"i":%d,"pad":%q}`+"\n", w, i, strings.Repeat("x", w*100))); err != nil {
						t.Error(err)
					}
				}
			})
			next := make([]int, writers)
			for line := range audit.Lines([]byte(read(t, path))) {
				var rec struct{ W, I int }
				if err := json.Unmarshal(line, &rec); err != nil {
					t.Fatalf("record %q: %v", line, err)
				}
				if rec.I != next[rec.W] {
					t.Errorf("writer %d: record %d, want %d", rec.W, rec.I, next[rec.W])
				}
				next[rec.W]++
			}
			for w, n := range next {
				if n != records {
					t.Errorf("writer %d has %d records, want %d", w, n, records)
				}
			}
		})
	}
}

func concurrently(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}

// limitFiles makes the kernel refuse to let any file of this process grow
// beyond size, in the middle of a write, as a full disk does. The test binary
// keeps files of its own, so size must not be small.
func limitFiles(t *testing.T, size uint64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	lift = sync.OnceFunc(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(lift)
	return lift
}

func TestFullDiskLeavesNoHalfLine(t *testing.T) {
	path := logPath(t)
	d := newDevice(t, file.Config{Path: path})
	lift := limitFiles(t, 100_000)
	line := strings.Repeat("a", 9_999) + "\n"
	for range 9 {
		write(t, d, line)
	}
	long := strings.Repeat("b", 14_999) + "\n"
	for range 2 {
		if err := d.Write([]byte(long)); !errors.Is(err, syscall.EFBIG) {
			t.Fatalf("Write beyond the limit = %v, want EFBIG", err)
		}
		if got, want := read(t, path), strings.Repeat(line, 9); got != want {
			t.Fatalf("after the failure the log is %q, want %q", got, want)
		}
	}
	// There is room for a shorter one.
	write(t, d, line)
	lift()
	write(t, d, long)
	if got, want := read(t, path), strings.Repeat(line, 10)+long; got != want {
		t.Errorf("the log is %q, want %q", got, want)
	}
}

// TestFullDiskKeepsWhatWasAcknowledged writes from many goroutines into a
// disk that fills up in the middle of a batch.
func TestFullDiskKeepsWhatWasAcknowledged(t *testing.T) {
	path := logPath(t)
	d := newDevice(t, file.Config{Path: path, Sync: true})
	lift := limitFiles(t, 432_101)
	const writers, records = 16, 10
	var mu sync.Mutex
	taken := map[string]bool{}
	concurrently(writers, func(w int) {
		for i := range records {
			line := fmt.Sprintf("%d-%d %s", w, i, strings.Repeat("x", w*700))
			err := d.Write([]byte(line + "\n"))
			mu.Lock()
			taken[line] = err == nil
			mu.Unlock()
		}
	})
	lift()
	write(t, d, "last\n")
	found := map[string]bool{}
	for line := range audit.Lines([]byte(read(t, path))) {
		found[string(line)] = true
		if ok := taken[string(line)]; !ok && string(line) != "last" {
			t.Errorf("the log holds %q, which was refused or is torn", line)
		}
	}
	refused := 0
	for line, ok := range taken {
		if ok && !found[line] {
			t.Errorf("%q was acknowledged and is not in the log", line)
		}
		if !ok {
			refused++
		}
	}
	if refused == 0 || refused == len(taken) {
		t.Errorf("%d of %d records refused, want some", refused, len(taken))
	}
}

func TestTornEndIsTerminated(t *testing.T) {
	path := logPath(t)
	if err := os.WriteFile(path, []byte("whole\n{\"half\":"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDevice(t, file.Config{Path: path})
	write(t, d, "next\n")
	if got, want := read(t, path), "whole\n{\"half\":\nnext\n"; got != want {
		t.Errorf("the log is %q, want %q", got, want)
	}
}

func TestReopenAfterRotation(t *testing.T) {
	path := logPath(t)
	d := newDevice(t, file.Config{Path: path})
	write(t, d, "one\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(t, d, "two\n")
	if err := d.Reopen(); err != nil {
		t.Fatal(err)
	}
	write(t, d, "three\n")
	if got, want := read(t, path+".1"), "one\ntwo\n"; got != want {
		t.Errorf("the rotated log is %q, want %q", got, want)
	}
	if got, want := read(t, path), "three\n"; got != want {
		t.Errorf("the new log is %q, want %q", got, want)
	}

	// A path that cannot be opened leaves the old file in use.
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Reopen(); err == nil {
		t.Error("Reopen of a folder = nil, want an error")
	}
	write(t, d, "four\n")
	if got, want := read(t, path+".2"), "three\nfour\n"; got != want {
		t.Errorf("the log is %q, want %q", got, want)
	}
}

func TestHealsWhenTheFolderAppears(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	d := newDevice(t, file.Config{Path: filepath.Join(dir, "audit.log")})
	if err := d.Write([]byte("a\n")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Write = %v, want %v", err, os.ErrNotExist)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, d, "b\n")
}

func TestMode(t *testing.T) {
	tests := []struct {
		exists     os.FileMode // 0: the file does not exist
		mode, want os.FileMode
	}{
		{0, 0, 0o600},
		{0, 0o640, 0o640},
		{0, 0o666, 0o666}, // whatever the umask
		{0o644, 0o600, 0o600},
		{0o644, 0, 0o644},
	}
	for _, tt := range tests {
		path := logPath(t)
		if tt.exists != 0 {
			if err := os.WriteFile(path, nil, tt.exists); err != nil {
				t.Fatal(err)
			}
		}
		write(t, newDevice(t, file.Config{Path: path, Mode: tt.mode}), "a\n")
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Mode().Perm(); got != tt.want {
			t.Errorf("mode %o on a file with %o gives %o, want %o", tt.mode, tt.exists, got, tt.want)
		}
	}
}

func TestNamedPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDevice(t, file.Config{Path: path})
	if err := d.Write([]byte("nobody reads\n")); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("Write without a reader = %v, want ENXIO", err)
	}
	r, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	write(t, d, "somebody reads\n")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "somebody reads\n" {
		t.Errorf("the pipe gave %q, %v", got, err)
	}
}

func TestStandardOutput(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = old }()
	for _, path := range []string{"stdout", "/dev/stdout"} {
		d := newDevice(t, file.Config{Path: path})
		write(t, d, path+"\n")
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Errorf("the standard output was closed: %v", err)
	}
	if got, _ := io.ReadAll(r); string(got) != "stdout\n/dev/stdout\n" {
		t.Errorf("the standard output holds %q", got)
	}
}

func TestClosed(t *testing.T) {
	for _, path := range []string{"discard", logPath(t)} {
		d := newDevice(t, file.Config{Path: path})
		write(t, d, "a\n")
		for range 2 {
			if err := d.Close(); err != nil {
				t.Errorf("Close() = %v, want no error", err)
			}
		}
		if err := d.Write([]byte("b\n")); !errors.Is(err, audit.ErrClosed) {
			t.Errorf("Write after Close = %v, want ErrClosed", err)
		}
		if err := d.Reopen(); !errors.Is(err, audit.ErrClosed) {
			t.Errorf("Reopen after Close = %v, want ErrClosed", err)
		}
	}
}

// TestBrokerHealsWithTheDisk is the whole way: a full disk is refused requests
// at once, and all is well again when there is room.
func TestBrokerHealsWithTheDisk(t *testing.T) {
	path := logPath(t)
	b := newBroker(t, file.Config{Path: path})
	lift := limitFiles(t, 100_000)
	ctx := context.Background()
	written, refused := 0, 0
	for range 200 {
		switch err := b.Request(ctx, entry); {
		case err == nil:
			written++
		case errs.Is(err, errs.Unavailable):
			refused++
		default:
			t.Fatal(err)
		}
	}
	if written == 0 || refused == 0 {
		t.Fatalf("%d written, %d refused; want both", written, refused)
	}
	lift()
	if err := b.Request(ctx, entry); err != nil {
		t.Errorf("with room again: %v", err)
	}
	n := 0
	for line := range audit.Lines([]byte(read(t, path))) {
		if !json.Valid(line) {
			t.Errorf("record %q is not JSON", line)
		}
		n++
	}
	if n != written+1 {
		t.Errorf("%d records, want %d", n, written+1)
	}
}

var entry = &audit.Entry{
	Auth: &audit.Auth{
		ClientToken: secret.New("hvs.token"), Accessor: "accessor", DisplayName: "token-app",
		Policies: []string{"app", "default"}, TokenPolicies: []string{"app", "default"}, TokenType: "service",
	},
	Request: audit.Request{
		ID: "6f0b2f5a-7c1e-4c3b-8a52-3f0b7b8a9c11", Operation: "update", Path: "secret/data/app",
		ClientToken: secret.New("hvs.token"), ClientTokenAccessor: "accessor",
		Mount: audit.Mount{Point: "secret/", Type: "kv", Accessor: "kv_1", Class: "secret"},
		Data:  wire.Of(map[string]string{"user": "app", "password": "secret", "host": "db.example.org", "port": "5432"}).AppendHashed,
	},
}

func newBroker(t testing.TB, cfg file.Config) *audit.Broker {
	t.Helper()
	b := audit.NewBroker(slog.New(slog.DiscardHandler))
	f := audit.Format{Salt: secret.New("salt"), HMACAccessor: true}
	if err := b.Set([]audit.Enabled{{Path: "file/", Format: f, Device: file.New(cfg)}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// BenchmarkRecord is what one record costs, encoding and writing, when 16
// clients write at once.
func BenchmarkRecord(b *testing.B) {
	for _, sync := range []bool{false, true} {
		b.Run(fmt.Sprintf("sync=%t", sync), func(b *testing.B) {
			broker := newBroker(b, file.Config{Path: logPath(b), Sync: sync})
			b.SetParallelism(16)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := broker.Request(context.Background(), entry); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
