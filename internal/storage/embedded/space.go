package embedded

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// space keeps the store from meeting a full disk in the middle of a commit,
// which would stop it for good.
//
// Before each group is run it asks how much is free, and refuses writes below
// the reserve. Should the disk fill up all the same before the group is
// written, the ballast, a file that takes room and holds nothing, is removed:
// the write that failed is tried again and finds its room. Either way the
// store is then full and read-only until there is room for both again.
type space struct {
	fs      vfs.FS // for the engine: removes the ballast when the disk is full
	inner   vfs.FS
	dir     string
	ballast string
	reserve uint64
	log     *slog.Logger

	full atomic.Bool
	mu   sync.Mutex // held to make or remove the ballast
}

func newSpace(o Options) *space {
	sp := &space{fs: o.FS, inner: o.FS, dir: o.Path, ballast: o.FS.PathJoin(o.Path, "ballast"), log: o.Log}
	if o.ReserveBytes > 0 {
		sp.reserve = uint64(o.ReserveBytes)
		sp.fs = vfs.OnDiskFull(o.FS, sp.diskFull)
	}
	return sp
}

// diskFull is called when a write of the engine's found no room, before that
// write is tried once more.
func (sp *space) diskFull() {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	_ = sp.inner.Remove(sp.ballast)
	sp.turn(true)
}

// turn changes the state and tells the operator once.
func (sp *space) turn(full bool) {
	if sp.full.Swap(full) == full {
		return
	}
	if full {
		sp.log.Error("storage: the disk is full; the store is read-only until there is room again", "path", sp.dir)
	} else {
		sp.log.Info("storage: there is room again; the store takes writes", "path", sp.dir)
	}
}

// refuse reports whether writes are to be refused now. A store that was full
// must have room for the ballast twice, so that it does not go to and fro.
func (sp *space) refuse() bool {
	if sp.reserve == 0 {
		return false
	}
	free, known := sp.free()
	switch full := sp.full.Load(); {
	case !full && known && free < sp.reserve:
		sp.turn(true)
	case full && (!known || free >= 2*sp.reserve) && sp.setAside():
		sp.turn(false)
	}
	return sp.full.Load()
}

func (sp *space) free() (bytes uint64, known bool) {
	u, err := sp.inner.GetDiskUsage(sp.dir)
	return u.AvailBytes, err == nil
}

// setAside makes the ballast, if it is not there, and reports whether it is.
func (sp *space) setAside() bool {
	if sp.reserve == 0 {
		return true
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if _, err := sp.inner.Stat(sp.ballast); err == nil {
		return true
	}
	f, err := sp.inner.Create(sp.ballast, vfs.WriteCategoryUnspecified)
	if err == nil {
		err = errors.Join(f.Preallocate(0, int64(sp.reserve)), f.Close())
	}
	if err != nil {
		_ = sp.inner.Remove(sp.ballast)
		sp.turn(true)
		return false
	}
	return true
}
