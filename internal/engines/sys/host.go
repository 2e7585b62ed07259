package sys

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/route"
)

type hostInfoOut struct {
	Timestamp time.Time  `json:"timestamp"`
	Host      hostOut    `json:"host"`
	CPU       []cpuOut   `json:"cpu"`
	CPUTimes  []cpuTimes `json:"cpu_times"`
	Memory    memoryOut  `json:"memory"`
	Disk      []diskOut  `json:"disk"`
}

type hostOut struct {
	Hostname      string `json:"hostname"`
	Uptime        uint64 `json:"uptime"`
	BootTime      uint64 `json:"bootTime"`
	OS            string `json:"os"`
	KernelVersion string `json:"kernelVersion"`
	KernelArch    string `json:"kernelArch"`
}

type cpuOut struct {
	CPU       int     `json:"cpu"`
	VendorID  string  `json:"vendorId"`
	ModelName string  `json:"modelName"`
	MHz       float64 `json:"mhz"`
}

// cpuTimes are seconds since the machine was started.
type cpuTimes struct {
	CPU    string  `json:"cpu"`
	User   float64 `json:"user"`
	Nice   float64 `json:"nice"`
	System float64 `json:"system"`
	Idle   float64 `json:"idle"`
	IOWait float64 `json:"iowait"`
	IRQ    float64 `json:"irq"`
	Soft   float64 `json:"softirq"`
	Steal  float64 `json:"steal"`
}

type memoryOut struct {
	Total     uint64 `json:"total"`
	Available uint64 `json:"available"`
	Used      uint64 `json:"used"`
	Free      uint64 `json:"free"`
	Cached    uint64 `json:"cached"`
	SwapTotal uint64 `json:"swapTotal"`
	SwapFree  uint64 `json:"swapFree"`
}

type diskOut struct {
	Path   string `json:"path"`
	FSType string `json:"fstype"`
	Total  uint64 `json:"total"`
	Free   uint64 `json:"free"`
	Used   uint64 `json:"used"`
}

// hostInfo reads /proc. Where there is none (another system than Linux) the
// answer says less.
func (e *Engine) hostInfo(context.Context, *route.Request, route.None) (hostInfoOut, error) {
	now := e.cfg.Now()
	out := hostInfoOut{Timestamp: now}
	out.Host = hostOut{OS: runtime.GOOS, KernelArch: runtime.GOARCH}
	out.Host.Hostname, _ = os.Hostname()
	out.Host.KernelVersion = strings.TrimSpace(string(proc("sys/kernel/osrelease")))
	if f := strings.Fields(string(proc("uptime"))); len(f) > 0 {
		up, _ := strconv.ParseFloat(f[0], 64)
		out.Host.Uptime = uint64(up)
		out.Host.BootTime = uint64(now.Unix()) - out.Host.Uptime
	}
	out.CPU, out.CPUTimes = cpus(proc("cpuinfo")), cpuTimesOf(proc("stat"))
	out.Memory = memoryOf(proc("meminfo"))
	if d, ok := diskAt("/"); ok {
		out.Disk = append(out.Disk, d)
	}
	return out, nil
}

// proc is a file of /proc, or nothing.
func proc(name string) []byte {
	b, err := os.ReadFile("/proc/" + name)
	if err != nil {
		return nil
	}
	return b
}

func lines(b []byte, fn func(string)) {
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		fn(s.Text())
	}
}

func cpus(info []byte) (out []cpuOut) {
	lines(info, func(line string) {
		k, v, _ := strings.Cut(line, ":")
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		if k == "processor" {
			n, _ := strconv.Atoi(v)
			out = append(out, cpuOut{CPU: n})
			return
		}
		if len(out) == 0 {
			return
		}
		c := &out[len(out)-1]
		switch k {
		case "vendor_id":
			c.VendorID = v
		case "model name":
			c.ModelName = v
		case "cpu MHz":
			c.MHz, _ = strconv.ParseFloat(v, 64)
		}
	})
	return out
}

func cpuTimesOf(stat []byte) (out []cpuTimes) {
	const ticks = 100 // a second, on every Linux there is
	lines(stat, func(line string) {
		f := strings.Fields(line)
		if len(f) < 9 || !strings.HasPrefix(f[0], "cpu") || f[0] == "cpu" {
			return
		}
		c := cpuTimes{CPU: f[0]}
		for i, to := range []*float64{&c.User, &c.Nice, &c.System, &c.Idle, &c.IOWait, &c.IRQ, &c.Soft, &c.Steal} {
			n, _ := strconv.ParseFloat(f[i+1], 64)
			*to = n / ticks
		}
		out = append(out, c)
	})
	return out
}

func memoryOf(info []byte) (m memoryOut) {
	fields := map[string]*uint64{
		"MemTotal": &m.Total, "MemAvailable": &m.Available, "MemFree": &m.Free, "Cached": &m.Cached,
		"SwapTotal": &m.SwapTotal, "SwapFree": &m.SwapFree,
	}
	lines(info, func(line string) {
		k, v, _ := strings.Cut(line, ":")
		if to := fields[k]; to != nil {
			kb, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			*to = kb << 10
		}
	})
	m.Used = m.Total - min(m.Available, m.Total)
	return m
}
