package server

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// timerSlack is how late timers may be, so that threads wake up together.
const timerSlack = time.Millisecond

// slackenTimers lets Linux wake this process's threads up to timerSlack late,
// in place of 50 µs; threads that begin later inherit it.
//
// None of our timers is for less than that matters, but the Go runtime naps
// for 3 and 20 µs: its monitor thread, which looks whether a system call keeps
// a processor from other goroutines, and idle processors that wait to take
// work over. A server that syncs its log is never idle for long enough to
// leave that off, and it took a seventh of a write's time. Without load the
// monitor rests for 10 ms by itself, so nothing waits for longer than it could
// before.
//
// The kernel lets only those with CAP_SYS_NICE do that to more than the thread
// they run in; without it little is changed, and the unit in the guide says
// the same with TimerSlackNSec.
func slackenTimers() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	var failed []error
	for _, thread := range threads {
		err := os.WriteFile(filepath.Join("/proc", thread.Name(), "timerslack_ns"),
			strconv.AppendInt(nil, timerSlack.Nanoseconds(), 10), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // it has ended
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
