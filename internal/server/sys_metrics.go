package server

import (
	"bytes"
	"context"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// metrics are the server's figures. What requests cost is counted as they are
// served, in atomics; everything else is asked for when somebody reads. Names
// that Vault has too mean the same.
type metrics struct {
	s        *Server
	registry *prometheus.Registry
	handler  http.Handler

	requests [wire.OpHelp + 1][3]prometheus.Counter // by operation and class of status
	seconds  prometheus.Histogram
	count    atomic.Uint64
	micros   atomic.Uint64
	issued   prometheus.Counter

	gauges map[string]*prometheus.Desc
	lanes  map[string]*prometheus.Desc
	audit  map[string]*prometheus.Desc
	total  *prometheus.Desc
}

var (
	_ sys.Metrics          = (*metrics)(nil)
	_ prometheus.Collector = (*metrics)(nil)
)

// The classes of statuses.
const (
	classOK = iota
	classClient
	classServer
)

var classNames = [...]string{"2xx", "4xx", "5xx"}

func newMetrics(s *Server) *metrics {
	prefix := s.conf.Telemetry.MetricsPrefix
	if prefix == "" {
		prefix = "vault"
	}
	m := &metrics{
		s: s, registry: prometheus.NewRegistry(),
		gauges: map[string]*prometheus.Desc{}, lanes: map[string]*prometheus.Desc{}, audit: map[string]*prometheus.Desc{},
	}
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "leasehold_requests_total", Help: "Requests that were answered.",
	}, []string{"operation", "status"})
	for op := range m.requests {
		for class, name := range classNames {
			if o := wire.Op(op); o != wire.OpNone {
				m.requests[op][class] = requests.WithLabelValues(o.String(), name)
			}
		}
	}
	m.seconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "leasehold_request_duration_seconds", Help: "How long requests took.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 90},
	})
	m.issued = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "leasehold_leases_issued_total", Help: "Leased credentials that were handed out.",
	})
	m.total = prometheus.NewDesc(prefix+"_core_handle_request", "How long requests took, in milliseconds.", nil, nil)
	for name, help := range map[string]string{
		prefix + "_core_unsealed":           "1 while the server is unsealed.",
		prefix + "_core_in_flight_requests": "Requests that are being served.",
		prefix + "_expire_num_leases":       "Leases that have not ended.",
		prefix + "_token_count":             "Service tokens that have not ended.",
		prefix + "_runtime_alloc_bytes":     "Memory in use.",
		prefix + "_runtime_num_goroutines":  "Goroutines.",
		"leasehold_expiry_fenced":           "1 while leases wait with expiring: see sys/leases/fence.",
		"leasehold_storage_commits":         "Transactions that wrote.",
		"leasehold_storage_syncs":           "Syncs of the disk that they shared.",
		"leasehold_storage_disk_bytes":      "Bytes on disk.",
		"leasehold_storage_memory_bytes":    "Caches and memtables.",
		"leasehold_storage_read_only":       "1 while the store is full and read-only.",
		"leasehold_audit_records":           "Audit records that a device took.",
		"leasehold_audit_refused":           "Audit records that no device took: their requests got no answer.",
	} {
		m.gauges[name] = prometheus.NewDesc(name, help, nil, nil)
	}
	for name, help := range map[string]string{
		"leasehold_lane_breaker_open": "1 while the target does not answer.",
		"leasehold_lane_creating":     "Credentials being made or waiting to be.",
		"leasehold_lane_ending":       "Leases and other work being ended.",
	} {
		m.lanes[name] = prometheus.NewDesc(name, help, []string{"target"}, nil)
	}
	for name, help := range map[string]string{
		"leasehold_audit_device_sick":   "1 while the device takes no records.",
		"leasehold_audit_device_failed": "Records that the device did not take.",
	} {
		m.audit[name] = prometheus.NewDesc(name, help, []string{"device"}, nil)
	}
	m.registry.MustRegister(requests, m.seconds, m.issued, m, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	return m
}

// metered is core with its requests counted.
type metered struct {
	core *core.Core
	m    *metrics
}

func (c metered) Handle(ctx context.Context, req *core.Request) *core.Response {
	start := time.Now()
	return c.count(req, c.core.Handle(ctx, req), start)
}

func (c metered) Refuse(ctx context.Context, req *core.Request, why error) *core.Response {
	start := time.Now()
	return c.count(req, c.core.Refuse(ctx, req, why), start)
}

func (c metered) count(req *core.Request, resp *core.Response, start time.Time) *core.Response {
	took := time.Since(start)
	class := classOf(resp.Err)
	if class == classOK && resp.LeaseID != "" && resp.Data != nil {
		c.m.issued.Inc() // an answer with data and a lease: renewals have no data
	}
	c.m.seconds.Observe(took.Seconds())
	c.m.count.Add(1)
	c.m.micros.Add(uint64(took.Microseconds()))
	if int(req.Op) < len(c.m.requests) && c.m.requests[req.Op][class] != nil {
		c.m.requests[req.Op][class].Inc()
	}
	return resp
}

func classOf(err error) int {
	if err == nil {
		return classOK
	}
	switch errs.KindOf(err) {
	case errs.Internal, errs.Unavailable, errs.Upstream:
		return classServer
	}
	return classClient
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	out <- m.total
	for _, all := range []map[string]*prometheus.Desc{m.gauges, m.lanes, m.audit} {
		for _, d := range all {
			out <- d
		}
	}
}

// Collect implements prometheus.Collector. What cannot be asked, because the
// server is just being sealed, is left out.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstSummary(m.total, m.count.Load(), float64(m.micros.Load())/1000, nil)
	ctx := context.Background()
	c := m.s.core
	values := map[string]float64{}
	set := func(suffix string, v float64) {
		for name := range m.gauges {
			if strings.HasSuffix(name, suffix) {
				values[name] = v
			}
		}
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	set("_runtime_alloc_bytes", float64(mem.Alloc))
	set("_runtime_num_goroutines", float64(runtime.NumGoroutine()))
	set("_core_in_flight_requests", float64(len(c.InFlight())))
	set("_core_unsealed", 0)
	if tokens, err := c.Tokens(); err == nil {
		set("_core_unsealed", 1)
		if n, err := tokens.Count(ctx, token.RootNamespace); err == nil {
			set("_token_count", float64(n))
		}
	}
	if leases, err := c.Leases(); err == nil {
		if n, err := leases.CountNamespace(ctx, token.RootNamespace); err == nil {
			set("_expire_num_leases", float64(n))
		}
	}
	if f, err := c.Fence(); err == nil {
		set("_expiry_fenced", oneIf(f.Fenced))
	}
	if st, ok := m.s.store.(storage.Statser); ok {
		figures := st.Stats()
		set("_storage_commits", float64(figures.Commits))
		set("_storage_syncs", float64(figures.Syncs))
		set("_storage_disk_bytes", float64(figures.DiskBytes))
		set("_storage_memory_bytes", float64(figures.MemoryBytes))
		set("_storage_read_only", oneIf(figures.ReadOnly))
	}
	if lanes, err := c.Lanes(); err == nil {
		for _, st := range lanes.All() {
			m.labelled(out, m.lanes["leasehold_lane_breaker_open"], oneIf(st.Open), st.Target)
			m.labelled(out, m.lanes["leasehold_lane_creating"], float64(st.Creating), st.Target)
			m.labelled(out, m.lanes["leasehold_lane_ending"], float64(st.Ending), st.Target)
		}
	}
	if st, err := c.AuditStats(); err == nil {
		set("_audit_records", float64(st.Written))
		set("_audit_refused", float64(st.Refused))
		for _, d := range st.Devices {
			m.labelled(out, m.audit["leasehold_audit_device_sick"], oneIf(d.Sick), d.Path)
			m.labelled(out, m.audit["leasehold_audit_device_failed"], float64(d.Failed), d.Path)
		}
	}
	for name, v := range values {
		out <- prometheus.MustNewConstMetric(m.gauges[name], prometheus.GaugeValue, v)
	}
}

func (m *metrics) labelled(out chan<- prometheus.Metric, d *prometheus.Desc, v float64, label string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, label)
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// Text gives the figures as Prometheus reads them.
func (m *metrics) Text(ctx context.Context) ([]byte, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	if err != nil {
		return nil, "", err
	}
	answer := answerBuffer{header: http.Header{}}
	m.handler.ServeHTTP(&answer, req)
	return answer.Bytes(), answer.header.Get("Content-Type"), nil
}

// answerBuffer keeps what a handler answers.
type answerBuffer struct {
	bytes.Buffer
	header http.Header
}

func (b *answerBuffer) Header() http.Header { return b.header }
func (b *answerBuffer) WriteHeader(int)     {}

// Summary gives the figures in Vault's own format.
func (m *metrics) Summary(context.Context) (sys.MetricsSummary, error) {
	families, err := m.registry.Gather()
	if err != nil {
		return sys.MetricsSummary{}, err
	}
	out := sys.MetricsSummary{Timestamp: time.Now().UTC()}
	for _, f := range families {
		name := dotted(f.GetName())
		for _, one := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range one.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			switch {
			case one.GetGauge() != nil:
				out.Gauges = append(out.Gauges, sys.MetricsGauge{Name: name, Value: one.GetGauge().GetValue(), Labels: labels})
			case one.GetCounter() != nil:
				v := one.GetCounter().GetValue()
				out.Counters = append(out.Counters, sys.MetricsTally{Name: name, Count: uint64(v), Sum: v, Mean: v, Labels: labels})
			case one.GetSummary() != nil:
				out.Samples = append(out.Samples, tally(name, one.GetSummary().GetSampleCount(), one.GetSummary().GetSampleSum(), labels))
			case one.GetHistogram() != nil:
				out.Samples = append(out.Samples, tally(name, one.GetHistogram().GetSampleCount(), one.GetHistogram().GetSampleSum(), labels))
			}
		}
	}
	return out, nil
}

func tally(name string, n uint64, sum float64, labels map[string]string) sys.MetricsTally {
	t := sys.MetricsTally{Name: name, Count: n, Sum: sum, Labels: labels}
	if n > 0 {
		t.Mean = sum / float64(n)
	}
	return t
}

// dotted is a name as Vault's own format writes it: vault.core.unsealed.
func dotted(name string) string { return strings.Replace(name, "_", ".", 2) }
