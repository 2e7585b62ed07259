package embedded

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/leasehold/leasehold/internal/storage"
)

// failure is how the store stops for good. It is also Pebble's Logger, because
// a Logger's Fatalf is how Pebble says that a write or sync of its log or
// manifest failed. Pebble expects the process to end there: going on would
// show rows whose durability nobody knows. We let the process live, so that it
// can tell its clients and stop in order, but nothing of this store is
// answered from then on: who called Fatalf never returns, and whoever waits
// for it (Update, Close, Open) also waits for stopped.
type failure struct {
	stopped chan struct{} // closed when the store has stopped
	once    sync.Once
	cause   error // set before stopped is closed
	log     *slog.Logger
}

func (f *failure) stop(err error) {
	f.once.Do(func() {
		f.cause = err
		close(f.stopped)
		f.log.Error("storage: stopped; what was being written may or may not be on the disk. Restart the server", "error", err)
	})
}

func (f *failure) failed() bool {
	select {
	case <-f.stopped:
		return true
	default:
		return false
	}
}

// Stopped is closed when the store has failed for good. The server should end
// and be started again.
func (f *failure) Stopped() <-chan struct{} { return f.stopped }

func (f *failure) Infof(format string, args ...any) {
	f.log.Debug("storage: " + fmt.Sprintf(format, args...))
}

func (f *failure) Errorf(format string, args ...any) {
	f.log.Error("storage: " + fmt.Sprintf(format, args...))
}

func (f *failure) Fatalf(format string, args ...any) {
	f.stop(fmt.Errorf(format, args...))
	select {}
}

// endErr says why there is no snapshot any more.
func (s *Store) endErr() error {
	if s.failed() {
		return fmt.Errorf("%w (%w)", storage.ErrStopped, s.cause)
	}
	return storage.ErrClosed
}

// logFS stops the store when the log cannot be written, closed or begun. For
// some of these errors Pebble panics where a panic kills the process, so they
// must not reach it.
type logFS struct {
	vfs.FS
	f *failure
}

func (fs logFS) Unwrap() vfs.FS { return fs.FS }

func (fs logFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := fs.FS.Create(name, c)
	return fs.log(name, file, err)
}

func (fs logFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := fs.FS.ReuseForWrite(old, name, c)
	return fs.log(name, file, err)
}

func (fs logFS) OpenDir(name string) (vfs.File, error) {
	dir, err := fs.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return logFile{dir, fs.f, name}, nil
}

func (fs logFS) log(name string, file vfs.File, err error) (vfs.File, error) {
	if !strings.HasSuffix(name, ".log") {
		return file, err
	}
	fs.f.must("making", name, err)
	return logFile{file, fs.f, name}, nil
}

// logFile is a log, or a directory, whose entries must be as durable.
type logFile struct {
	vfs.File
	f    *failure
	name string
}

func (l logFile) Write(p []byte) (int, error) {
	n, err := l.File.Write(p)
	l.f.must("writing", l.name, err)
	return n, nil
}

func (l logFile) Sync() error {
	l.f.must("syncing", l.name, l.File.Sync())
	return nil
}

func (l logFile) SyncData() error {
	l.f.must("syncing", l.name, l.File.SyncData())
	return nil
}

func (l logFile) SyncTo(length int64) (bool, error) {
	full, err := l.File.SyncTo(length)
	l.f.must("syncing", l.name, err)
	return full, nil
}

func (l logFile) Close() error {
	l.f.must("closing", l.name, l.File.Close())
	return nil
}

func (f *failure) must(doing, name string, err error) {
	if err != nil {
		f.Fatalf("%s %s: %w", doing, name, err)
	}
}
