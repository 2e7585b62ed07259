package server

import (
	"bytes"
	"os"
	"runtime/debug"
	rt "runtime/metrics"
	"strconv"
	"syscall"
	"time"

	"github.com/leasehold/leasehold/internal/metrics"
)

// runtimeGauges are Vault's names of what Go's runtime counts. Vault shows all
// of them as gauges, even those that only grow.
var runtimeGauges = []struct{ name, help, from string }{
	{"runtime_alloc_bytes", "Bytes of the heap in use.", "/memory/classes/heap/objects:bytes"},
	{"runtime_sys_bytes", "Bytes obtained from the system.", "/memory/classes/total:bytes"},
	{"runtime_heap_objects", "Objects on the heap.", "/gc/heap/objects:objects"},
	{"runtime_malloc_count", "Objects ever allocated.", "/gc/heap/allocs:objects"},
	{"runtime_free_count", "Objects ever freed.", "/gc/heap/frees:objects"},
	{"runtime_num_goroutines", "Goroutines.", "/sched/goroutines:goroutines"},
	{"runtime_total_gc_runs", "Collections of garbage.", "/gc/cycles/total:gc-cycles"},
}

// addRuntime adds what the runtime tells without stopping the program.
func addRuntime(p *metrics.Page, prefix string) {
	samples := make([]rt.Sample, len(runtimeGauges))
	for i, g := range runtimeGauges {
		samples[i].Name = g.from
	}
	rt.Read(samples)
	for i, g := range runtimeGauges {
		if v := samples[i].Value; v.Kind() == rt.KindUint64 {
			p.Gauge(prefix+g.name, g.help, float64(v.Uint64()))
		}
	}
	var gc debug.GCStats
	debug.ReadGCStats(&gc)
	p.Gauge(prefix+"runtime_total_gc_pause_ns", "Nanoseconds that the program stood still for them.", float64(gc.PauseTotal))
}

// addProcess adds what Linux tells about the process, under the names that
// Prometheus's own clients use. Elsewhere there is less to tell.
func addProcess(p *metrics.Page, started time.Time) {
	p.Gauge("process_start_time_seconds", "When the server was started, in seconds since 1970.", float64(started.UnixMilli())/1000)
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		p.Gauge("process_open_fds", "Open files and connections.", float64(len(fds)-1)) // one is the reading itself
	}
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err == nil {
		cpu := time.Duration(used.Utime.Nano() + used.Stime.Nano())
		p.Counter("process_cpu_seconds_total", "Seconds of CPU that the process has used.", cpu.Seconds())
	}
	statm, err := os.ReadFile("/proc/self/statm") // size, resident, … in pages
	if err != nil {
		return
	}
	if fields := bytes.Fields(statm); len(fields) > 1 {
		if pages, err := strconv.ParseUint(string(fields[1]), 10, 64); err == nil {
			p.Gauge("process_resident_memory_bytes", "Resident memory.", float64(pages)*float64(os.Getpagesize()))
		}
	}
}
