package server

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// sysmonSlack is how late the runtime's monitor thread may wake up.
const sysmonSlack = time.Millisecond

// calmSysmon lets the Go runtime's monitor thread oversleep.
//
// That thread (sysmon) looks every 20 µs whether a system call keeps a
// processor from other goroutines, and rests longer only after a few
// milliseconds without any. A server that syncs its log does not know such
// milliseconds, and the thread's waking up took a twelfth of a write's time.
// Linux may delay a sleeper by the thread's timer slack, 50 µs unless told;
// with a millisecond the looking costs a tenth of that. Without load the
// thread sleeps ten times as long by itself, so nothing new can happen.
//
// The runtime starts this thread before any other but the first. Were it
// another one some day, its timers would be late by as much, and no more. The
// kernel lets only those with CAP_SYS_NICE set it for another thread than
// their own; without it, nothing is changed, and the unit in the guide says
// the same for all threads with TimerSlackNSec.
func calmSysmon() error {
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return err
	}
	defer dir.Close()
	threads, err := dir.Readdirnames(2) // in the order of their beginning
	if err != nil || len(threads) < 2 {
		return io.ErrUnexpectedEOF
	}
	return os.WriteFile(filepath.Join("/proc", threads[1], "timerslack_ns"),
		strconv.AppendInt(nil, sysmonSlack.Nanoseconds(), 10), 0)
}
