package server

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestSysmonIsCalm: the thread that is told is the runtime's monitor, which
// sleeps in the kernel for as long as nothing happens.
func TestSysmonIsCalm(t *testing.T) {
	if err := calmSysmon(); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		return // not ours to set without CAP_SYS_NICE, and nothing else to be seen
	} else if err != nil {
		t.Fatal(err)
	}
	calm := 0
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/" + task.Name() + "/timerslack_ns")
		if err != nil || strings.TrimSpace(string(b)) != "1000000" {
			continue
		}
		calm++
		for { // the monitor is mostly asleep, in the one call that only it makes
			b, err := os.ReadFile("/proc/self/task/" + task.Name() + "/wchan")
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), "nanosleep") {
				break
			}
		}
	}
	if calm != 1 {
		t.Errorf("%d threads are calm, not one", calm)
	}
}
