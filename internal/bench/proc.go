package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux

// procTimes reads the parent and the CPU time (user and system, reaped
// children included) of a process.
func procTimes(pid int) (parent int, cpu time.Duration) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+2:]) // f[0] is field 3, the state
	n := func(field int) int64 { v, _ := strconv.ParseInt(f[field-3], 10, 64); return v }
	return int(n(4)), time.Duration(n(14)+n(15)+n(16)+n(17)) * tick
}

// cpuTree is the CPU time of a process, its live children and those it has
// reaped: for PostgreSQL's main process, all its backends.
func cpuTree(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	_, sum := procTimes(pid)
	for _, kid := range children(pid) {
		if parent, cpu := procTimes(kid); parent == pid {
			sum += cpu
		}
	}
	return sum
}

func children(pid int) []int {
	var out []int
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	tasks, _ := os.ReadDir(dir)
	for _, t := range tasks {
		b, _ := os.ReadFile(dir + "/" + t.Name() + "/children")
		for f := range strings.FieldsSeq(string(b)) {
			if k, err := strconv.Atoi(f); err == nil {
				out = append(out, k)
			}
		}
	}
	return out
}

// selfCPU is this process's own CPU time: the load generator's cost.
func selfCPU() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// memory reads a kB field (VmRSS, VmHWM) of /proc/PID/status, in MB.
func memory(pid int, field string) float64 {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			v, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return v / 1024
		}
	}
	return 0
}
