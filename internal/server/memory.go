package server

import (
	"os"
	"runtime/debug"

	"github.com/leasehold/leasehold/internal/config"
)

// memoryLimit is what the process may take, beside twice its cache of blocks,
// before the garbage collector works harder than usual.
const memoryLimit = 128 << 20

// gcPercent lets the heap grow to five times what is in use before it is
// collected, as long as it stays below the limit: what is in use is small, and
// collecting at twice of it took a tenth of a write's time.
const gcPercent = 400

// limitMemory gives the Go runtime a limit to stay below where it can, so that
// a burst of large requests does not leave a large process behind. The store's
// cache of blocks, which lies on the same heap, is added to it twice over,
// because what was dropped from it is garbage for a while.
//
// A limit that was set from outside (GOMEMLIMIT) counts instead, as GOGC does.
// Without a disk below it the store itself is on the heap, and nothing is
// limited.
func limitMemory(st config.Storage) {
	if st.Kind != "embedded" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetMemoryLimit(memoryLimit + 2*st.CacheSize)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
