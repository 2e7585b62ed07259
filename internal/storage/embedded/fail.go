package embedded

import (
	"fmt"
	"log/slog"
	"sync"

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

func (f *failure) must(doing, name string, err error) {
	if err != nil {
		f.Fatalf("%s %s: %w", doing, name, err)
	}
}
