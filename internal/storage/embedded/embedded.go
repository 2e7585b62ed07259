// Package embedded is the default store: one directory on a local disk, kept
// by Pebble, a log-structured engine, inside the server's process.
//
// One goroutine, the committer (commit.go), runs the functions of all Updates,
// one after another; so there are no conflicts, and every Update that waits at
// the same time shares one fsync. Pebble shows a batch to readers before it is
// synced. Therefore nobody reads Pebble directly: Views and Updates read the
// snapshot that was taken after the last sync (snapshot.go), and nothing is
// applied between a sync and its snapshot.
//
// The directory holds FORMAT (the version of this layout, format.go), LOCK,
// ballast (space.go) and db, which is Pebble's.
package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/feed"
)

// Options say where the store is and how much it may use.
type Options struct {
	// Path of the directory. It is made if it is not there, with its parents.
	Path string
	// CacheBytes is the size of the cache of disk blocks; 0 means 16 MiB. It
	// lies on the Go heap (the product is built without cgo), so the process
	// takes up to twice that, and up to 64 MiB for what is not yet in tables.
	// The operating system's page cache stands behind it, so a small cache
	// costs microseconds: with a million rows of 400 bytes read at random,
	// 16, 32 and 64 MiB took 10, 8 and 7 µs a read and 175, 210 and 285 MB
	// of memory in all.
	CacheBytes int64
	// ReserveBytes is how much of the disk is kept free for ending well: a
	// file of that size is set aside, and with less than that free beside it
	// the store turns read-only. 0 means 32 MiB; less than 0 means none.
	ReserveBytes int64
	// Log gets what the engine has to say; nil means slog.Default.
	Log *slog.Logger
	// FS is the file system; nil means the real one.
	FS vfs.FS
}

const (
	defaultCache   = 16 << 20
	defaultReserve = 32 << 20

	// A memtable's rows are in the log only, and the log is replayed at
	// start: at most memTables times memTableBytes, a fraction of a second.
	memTableBytes = 16 << 20
	memTables     = 3

	// The engine's format: checksums in every footer and a log that tells
	// damage from a torn end. Raising it is one way; do it in a release that
	// people cannot go back from.
	engineFormat = pebble.FormatTableFormatV6
)

// Keys of our own rows begin with a zero byte, which no key of others can.
var (
	revisionKey = []byte("\x00revision")
	firstKey    = []byte{1}
)

// Store is a storage.Backend on disk. Make one with Open.
type Store struct {
	opts  Options
	db    *pebble.DB
	feed  *feed.Feed
	space *space
	lock  interface{ Close() error }
	rows  *rowCache

	now       atomic.Pointer[snapshot] // the newest durable state; nil when closed
	snapshots sync.WaitGroup           // those not yet released

	mu      sync.Mutex // guards what follows
	pending []*request
	wanted  int // the committer waits for so many to be pending; 0: it does not
	closing bool

	gathered chan struct{} // there are as many as wanted

	wake      chan struct{} // there is something pending, or closing is set
	done      chan struct{} // the committer has returned
	closeOnce sync.Once
	closeErr  error

	failure // see fail.go

	commits, syncs atomic.Uint64
}

var (
	_ storage.Backend = (*Store)(nil)
	_ storage.Statser = (*Store)(nil)
)

// Open opens the store in opts.Path, and makes it if there is none. The error
// is a sentence for the operator.
func Open(opts Options) (*Store, error) { return open(opts, migrations) }

func open(opts Options, steps []migration) (_ *Store, err error) {
	if opts.CacheBytes == 0 {
		opts.CacheBytes = defaultCache
	}
	if opts.ReserveBytes == 0 {
		opts.ReserveBytes = defaultReserve
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.FS == nil {
		opts.FS = vfs.Default
	}
	s := &Store{
		opts:     opts,
		rows:     newRowCache(),
		wake:     make(chan struct{}, 1),
		gathered: make(chan struct{}, 1),
		done:     make(chan struct{}),
		failure:  failure{stopped: make(chan struct{}), log: opts.Log},
	}
	if s.lock, err = lockDir(opts.FS, opts.Path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.lock.Close()
		}
	}()
	version, err := readFormat(opts.FS, opts.Path, len(steps))
	if err != nil {
		return nil, err
	}
	s.space = newSpace(opts)
	if err := s.openEngine(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.db.Close()
		}
	}()
	if err := s.migrate(version, steps); err != nil {
		return nil, err
	}
	rev, err := s.storedRevision()
	if err != nil {
		return nil, err
	}
	s.space.setAside()
	s.feed = feed.New(rev, s.stopped)
	s.now.Store(s.snapshot(rev))
	go s.commitLoop()
	return s, nil
}

// openEngine opens Pebble. It does so on a goroutine of its own, because an
// error that Pebble thinks nobody can survive does not return (fail.go).
func (s *Store) openEngine() error {
	fs := logFS{s.space.fs, &s.failure}
	o := &pebble.Options{
		FS:                          fs,
		FormatMajorVersion:          engineFormat,
		CacheSize:                   s.opts.CacheBytes + memTables*memTableBytes, // the memtables are taken from it
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: memTables,
		Logger:                      &s.failure,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { s.log.Error("storage: background work failed", "error", err) },
			WriteStallBegin: func(i pebble.WriteStallBeginInfo) {
				s.log.Warn("storage: writes wait for the disk", "reason", i.Reason)
			},
		},
	}
	// What the barrier has encrypted does not get smaller.
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	opened := make(chan error, 1)
	go func() {
		var err error
		s.db, err = pebble.Open(fs.PathJoin(s.opts.Path, "db"), o)
		opened <- err
	}()
	var err error
	select {
	case err = <-opened:
	case <-s.stopped:
		err = s.cause
	}
	if err != nil {
		return fmt.Errorf("cannot open the storage in %s: %w", s.opts.Path, err)
	}
	return nil
}

func (s *Store) storedRevision() (storage.Revision, error) {
	v, closer, err := s.db.Get(revisionKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the revision: %w", err)
	}
	defer closer.Close()
	if len(v) != 8 {
		return 0, fmt.Errorf("the storage in %s is damaged: its revision has %d bytes", s.opts.Path, len(v))
	}
	return storage.Revision(binary.BigEndian.Uint64(v)), nil
}

// Watch implements storage.Backend.
func (s *Store) Watch(ctx context.Context, from storage.Revision, fn func([]storage.Change) error) error {
	return s.feed.Watch(ctx, from, fn)
}

// Close waits for Updates and Views that have begun. After a failure it
// leaves Pebble as it is: only a new process can tell what is on the disk.
func (s *Store) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Store) close() error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.notify()
	select {
	case <-s.done:
	case <-s.stopped:
	}
	s.feed.Close(storage.ErrClosed)
	if s.failed() { // the committer may still be at work, and needs the snapshot
		return s.lock.Close()
	}
	s.now.Swap(nil).release()
	s.snapshots.Wait()
	return errors.Join(s.db.Close(), s.lock.Close())
}

// Stats implements storage.Statser.
func (s *Store) Stats() storage.Stats {
	st := storage.Stats{Commits: s.commits.Load(), Syncs: s.syncs.Load(), ReadOnly: s.space.full.Load()}
	v, err := s.acquire() // keeps the engine open
	if err != nil {
		return st
	}
	defer v.release()
	m := s.db.Metrics()
	st.DiskBytes = m.DiskSpaceUsage()
	st.MemoryBytes = uint64(m.BlockCache.Size) + m.MemTable.Size + m.MemTable.ZombieSize
	return st
}
