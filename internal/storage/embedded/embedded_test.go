package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/embedded"
	"github.com/leasehold/leasehold/internal/storage/storagetest"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func mustOpen(t testing.TB, o embedded.Options) *embedded.Store {
	t.Helper()
	if o.Log == nil {
		o.Log = quiet
	}
	s, err := embedded.Open(o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

func TestStore(t *testing.T) {
	storagetest.Run(t, func(t testing.TB) storage.Backend {
		return mustOpen(t, embedded.Options{Path: "store", FS: vfs.NewMem()})
	})
}

func TestStoreOnDisk(t *testing.T) {
	storagetest.Run(t, func(t testing.TB) storage.Backend {
		return mustOpen(t, embedded.Options{Path: filepath.Join(t.TempDir(), "a", "b"), ReserveBytes: 1 << 20})
	})
}

// crashDisk is a file system that forgets what was not synced.
type crashDisk struct{ fs *vfs.MemFS }

func (d *crashDisk) Open(t testing.TB) storage.Backend {
	return mustOpen(t, embedded.Options{Path: "/var/store", FS: d.fs})
}

func (d *crashDisk) Cut(rnd *rand.Rand) {
	d.fs = d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 10 * rnd.IntN(11), RNG: rnd})
}

func TestDurable(t *testing.T) {
	storagetest.RunDurable(t, func(t testing.TB) storagetest.Disk {
		fs := vfs.NewCrashableMem()
		if err := fs.MkdirAll("/var", 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := fs.OpenDir("/")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(root.Sync(), root.Close()); err != nil {
			t.Fatal(err)
		}
		return &crashDisk{fs}
	})
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, embedded.Options{Path: dir, ReserveBytes: -1})
	defer s.Close()
	_, err := embedded.Open(embedded.Options{Path: dir, Log: quiet})
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "another Leasehold process") {
		t.Errorf("second Open = %v, want an error that names %s and the cause", err, dir)
	}
}

func TestFormat(t *testing.T) {
	fs := vfs.NewMem()
	opts := embedded.Options{Path: "store", FS: fs, Log: quiet}
	current := func(*pebble.DB) error { t.Error("a current store was migrated"); return nil }
	s, err := embedded.OpenWith(opts, current)
	if err != nil {
		t.Fatalf("Open of nothing: %v", err)
	}
	storagetest.Put(t, s, "old/a", "1", "old/b", "2")
	s.Close()

	runs := 0
	crash := errors.New("crash")
	rename := func(db *pebble.DB) error {
		runs++
		for _, k := range []string{"a", "b"} {
			v, closer, err := db.Get([]byte("old/" + k))
			if errors.Is(err, pebble.ErrNotFound) {
				continue
			}
			if err := errors.Join(err, db.Set([]byte("new/"+k), v, nil), db.Delete([]byte("old/"+k), pebble.Sync), closer.Close()); err != nil {
				return err
			}
			if runs == 1 {
				return crash
			}
		}
		return nil
	}
	if _, err = embedded.OpenWith(opts, current, rename); !errors.Is(err, crash) {
		t.Fatalf("Open with a migration that fails = %v, want its error", err)
	}
	if s, err = embedded.OpenWith(opts, current, rename); err != nil {
		t.Fatalf("Open after a migration that failed half-way: %v", err)
	}
	if got := storagetest.All(t, s, "", ""); len(got) != 2 || got["new/a"] != "1" || got["new/b"] != "2" {
		t.Errorf("rows after the migration = %q", got)
	}
	s.Close()
	if s, err = embedded.OpenWith(opts, current, rename); err != nil || runs != 2 {
		t.Fatalf("Open of a migrated store: %v after %d runs, want 2", err, runs)
	}
	s.Close()

	_, err = embedded.OpenWith(opts, current)
	if err == nil || !strings.Contains(err.Error(), "newer Leasehold (format 2, this one knows 1)") {
		t.Errorf("Open by an older Leasehold = %v, want a refusal", err)
	}
	for name, content := range map[string]string{"torn": "", "foreign": "hello world", "negative": "leasehold-storage -1"} {
		f, err := fs.Create("store/FORMAT", vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write([]byte(content))
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := embedded.Open(opts); err == nil || !strings.Contains(err.Error(), "cannot understand") {
			t.Errorf("Open with a %s FORMAT file = %v, want a refusal", name, err)
		}
	}
	if err := fs.Remove("store/FORMAT"); err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.Open(opts); err == nil || !strings.Contains(err.Error(), "not Leasehold's") {
		t.Errorf("Open of data without a FORMAT file = %v, want a refusal", err)
	}
}

// TestFailedSync: after a sync has failed, nothing is answered any more.
func TestFailedSync(t *testing.T) {
	for _, kinds := range [][]errorfs.OpKind{{errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo}, {errorfs.OpFileWrite}} {
		var broken atomic.Bool
		fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if broken.Load() && slices.Contains(kinds, op.Kind) {
				return errors.New("the disk is gone")
			}
			return nil
		}))
		s := mustOpen(t, embedded.Options{Path: "store", FS: fs})
		storagetest.Put(t, s, "a", "1")
		w := make(chan error)
		running := make(chan struct{})
		go func() {
			w <- s.Watch(context.Background(), 1, func(cs []storage.Change) error {
				if len(cs) > 0 {
					t.Errorf("a Watch was told of %v", cs)
				}
				close(running)
				return nil
			})
		}()
		<-running
		broken.Store(true)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				_, err := s.Update(context.Background(), func(tx storage.Tx) error { return tx.Put(fmt.Sprint(i), nil) })
				if !errors.Is(err, storage.ErrStopped) {
					t.Errorf("Update with a broken disk = %v, want ErrStopped", err)
				}
			})
		}
		wg.Wait()
		<-s.Stopped()
		broken.Store(false) // too late
		if err := s.View(context.Background(), func(storage.View) error { return nil }); !errors.Is(err, storage.ErrStopped) {
			t.Errorf("View of a stopped store = %v, want ErrStopped", err)
		}
		if _, err := s.Update(context.Background(), func(storage.Tx) error { return nil }); !errors.Is(err, storage.ErrStopped) {
			t.Errorf("Update of a stopped store = %v, want ErrStopped", err)
		}
		if err := <-w; !errors.Is(err, storage.ErrStopped) {
			t.Errorf("Watch of a stopped store = %v, want ErrStopped", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close of a stopped store: %v", err)
		}
	}
}

// smallDisk has room for a number of bytes.
type smallDisk struct {
	vfs.FS
	mem  *vfs.MemFS
	room atomic.Int64
	// unseen hides the free space, as a disk that fills up between the look
	// and the write.
	unseen atomic.Bool
}

func newSmallDisk(room int64) *smallDisk {
	d := &smallDisk{mem: vfs.NewMem()}
	d.room.Store(room)
	d.FS = errorfs.Wrap(d.mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWrite && d.room.Add(-4096) < 0 {
			return syscall.ENOSPC
		}
		return nil
	}))
	return d
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	if d.unseen.Load() {
		return vfs.DiskUsage{}, vfs.ErrUnsupported
	}
	return vfs.DiskUsage{AvailBytes: uint64(max(d.room.Load(), 0))}, nil
}

func (d *smallDisk) Remove(name string) error {
	_, missing := d.FS.Stat(name)
	err := d.FS.Remove(name)
	if err == nil && missing == nil && filepath.Base(name) == "ballast" {
		d.room.Add(reserve)
	}
	return err
}

func (d *smallDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if filepath.Base(name) == "ballast" {
		if d.room.Add(-reserve) < 0 {
			d.room.Add(reserve)
			return nil, syscall.ENOSPC
		}
	}
	return d.FS.Create(name, c)
}

const reserve = 1 << 20

func TestDiskFull(t *testing.T) {
	for _, unseen := range []bool{false, true} {
		t.Run(fmt.Sprintf("unseen=%v", unseen), func(t *testing.T) {
			disk := newSmallDisk(4 * reserve)
			s := mustOpen(t, embedded.Options{Path: "store", FS: disk, ReserveBytes: reserve})
			defer s.Close()
			disk.unseen.Store(unseen)
			put := func(key string) error {
				_, err := s.Update(context.Background(), func(tx storage.Tx) error { return tx.Put(key, []byte("x")) })
				return err
			}
			if err := put("before"); err != nil {
				t.Fatalf("Update with room: %v", err)
			}
			if unseen {
				disk.room.Store(0) // one group meets the full disk and gets through on the ballast's room
				if err := put("last"); err != nil {
					t.Fatalf("Update that met the full disk = %v, want the ballast to give it room", err)
				}
				disk.room.Store(100)
			} else {
				disk.room.Store(reserve - 1)
			}
			for range 3 {
				if err := put("no"); !errors.Is(err, storage.ErrReadOnly) {
					t.Errorf("Update on a full disk = %v, want ErrReadOnly", err)
				}
			}
			if !s.Stats().ReadOnly {
				t.Error("Stats of a full store do not say ReadOnly")
			}
			if got, _ := storagetest.Get(t, s, "before"); got != "x" {
				t.Errorf("Get on a full disk = %q, want x", got)
			}
			disk.room.Store(8 * reserve)
			if err := put("after"); err != nil {
				t.Errorf("Update with room again: %v", err)
			}
			if _, ok := storagetest.Get(t, s, "no"); ok || s.Stats().ReadOnly {
				t.Errorf("after the full disk: row of a refused Update: %v, ReadOnly: %v", ok, s.Stats().ReadOnly)
			}
		})
	}
}

// TestGoexit: a function that ends its goroutine (as t.FailNow does) ends the
// committer's. That must not leave the others waiting for ever.
func TestGoexit(t *testing.T) {
	s := mustOpen(t, embedded.Options{Path: "store", FS: vfs.NewMem()})
	_, err := s.Update(context.Background(), func(storage.Tx) error {
		var nobody testing.T
		defer func() { _ = recover() }()
		nobody.FailNow()
		return nil
	})
	if !errors.Is(err, storage.ErrStopped) {
		t.Errorf("Update = %v, want ErrStopped", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestStats(t *testing.T) {
	s := mustOpen(t, embedded.Options{Path: t.TempDir(), ReserveBytes: 1 << 20})
	defer s.Close()
	const n = 50
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { storagetest.Put(t, s, fmt.Sprint(i), "x") })
	}
	wg.Wait()
	_, _ = s.Update(context.Background(), func(storage.Tx) error { return nil })
	st := s.Stats()
	if st.Commits != n || st.Syncs == 0 || st.Syncs > n || st.DiskBytes == 0 || st.MemoryBytes == 0 || st.ReadOnly {
		t.Errorf("Stats = %+v after %d Updates", st, n)
	}
}

// TestBackgroundFailure: what fails behind the committer's back stops the
// store as well, and leaves nobody waiting.
func TestBackgroundFailure(t *testing.T) {
	for name, hit := range map[string]func(errorfs.Op) bool{
		"manifest": func(op errorfs.Op) bool {
			return strings.Contains(op.Path, "MANIFEST") && (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileSync)
		},
		"new log": func(op errorfs.Op) bool {
			return strings.HasSuffix(op.Path, ".log") && (op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite)
		},
		"directory": func(op errorfs.Op) bool {
			return strings.HasSuffix(op.Path, "/db") && op.Kind == errorfs.OpFileSync
		},
	} {
		var broken atomic.Bool
		fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if broken.Load() && hit(op) {
				return errors.New("the disk is gone")
			}
			return nil
		}))
		s := mustOpen(t, embedded.Options{Path: "store", FS: fs})
		storagetest.Put(t, s, "a", "1")
		broken.Store(true)
		value := make([]byte, 512<<10)
		var err error
		for i := 0; err == nil && i < 1000; i++ { // until memtables must be written out
			_, err = s.Update(context.Background(), func(tx storage.Tx) error { return tx.Put(fmt.Sprint(i%10), value) })
		}
		if !errors.Is(err, storage.ErrStopped) {
			t.Errorf("%s: Update with a broken disk = %v, want ErrStopped", name, err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: Close: %v", name, err)
		}
	}
}
