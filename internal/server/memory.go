package server

import (
	"os"
	"runtime/debug"

	"github.com/leasehold/leasehold/internal/config"
)

// memoryLimit is what the process may take before the garbage collector works
// harder than usual. With a million tokens stored it takes less than half of
// that; the rest is room for bursts.
const memoryLimit = 256 << 20

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
}
