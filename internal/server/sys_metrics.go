package server

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/metrics"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// figures are what sys/metrics shows. How long requests took is counted as
// they are answered; everything else is asked for when somebody reads.
//
// docs/guides/metrics.md names them all. Those that Vault has under the same
// meaning have its names, below the prefix that telemetry gives them.
type figures struct {
	s       *Server
	prefix  string // "vault_"
	started time.Time

	requests [wire.OpHelp + 1][statusClasses]metrics.Durations
}

var _ sys.Metrics = (*figures)(nil)

// statusClasses are the hundreds of HTTP statuses, with a place for 0.
const statusClasses = 6

var classNames = [statusClasses]string{"", "1xx", "2xx", "3xx", "4xx", "5xx"}

func newFigures(s *Server) *figures {
	prefix := s.conf.Telemetry.MetricsPrefix
	if prefix == "" {
		prefix = "vault"
	}
	return &figures{s: s, prefix: prefix + "_", started: time.Now()}
}

// count counts a request.
func (f *figures) count(op wire.Op, status int, took time.Duration) {
	class := status / 100
	if int(op) < len(f.requests) && class > 0 && class < statusClasses {
		f.requests[op][class].Add(took)
	}
}

// page gathers the figures. What cannot be asked, because the server is sealed
// or being sealed, is left out.
func (f *figures) page(ctx context.Context) *metrics.Page {
	p := new(metrics.Page)
	f.addServer(p)
	f.addRequests(p)
	f.addCore(ctx, p)
	f.addStore(p)
	f.addTokens(ctx, p)
	f.addLeases(ctx, p)
	f.addLanes(p)
	f.addQuotas(ctx, p)
	f.addAudit(p)
	addRuntime(p, f.prefix)
	addProcess(p, f.started)
	return p
}

func (f *figures) addServer(p *metrics.Page) {
	c := f.s.core
	_, sealed := c.Tokens()
	p.Gauge(f.prefix+"core_unsealed", "1 while the server is unsealed.", oneIf(sealed == nil))
	p.Gauge(f.prefix+"core_active", "1 while the server serves requests.", oneIf(sealed == nil))
	p.Gauge(f.prefix+"core_in_flight_requests", "Requests that are being served.", float64(len(c.InFlight())))
	p.Gauge("leasehold_build_info", "1, with the server's version.", 1, metrics.Label{Name: "version", Value: f.s.cfg.Version})
	if fence, err := c.Fence(); err == nil {
		p.Gauge("leasehold_expiry_fenced", "1 while leases do not end by time, for a jump of the clock or a restore: see leasehold operator fence.", oneIf(fence.Fenced))
	}
	if key, err := c.KeyStatus(); err == nil {
		p.Counter(f.prefix+"barrier_estimated_encryptions", "Values encrypted under the active key since the server was unsealed.", float64(key.Encryptions))
	}
}

func (f *figures) addRequests(p *metrics.Page) {
	var all metrics.Tally
	for op := range f.requests {
		var took metrics.Tally
		name := metrics.Label{Name: "operation", Value: wire.Op(op).String()}
		for class := range f.requests[op] {
			var one metrics.Tally
			one.Add(&f.requests[op][class])
			if one.Count() == 0 {
				continue
			}
			p.Counter("leasehold_requests_total", "Requests that were answered.", float64(one.Count()), name, metrics.Label{Name: "status", Value: classNames[class]})
			took.Add(&f.requests[op][class])
			all.Add(&f.requests[op][class])
		}
		if took.Count() > 0 {
			p.Durations("leasehold_request_duration_seconds", "How long requests took, from their first byte to the last of the answer.", took, name)
		}
	}
	p.Summary(f.prefix+"core_handle_request", "How long requests took, in milliseconds.", all.Count(), float64(all.Sum())/float64(time.Millisecond))
}

func (f *figures) addStore(p *metrics.Page) {
	st, ok := f.s.store.(storage.Statser)
	if !ok {
		return
	}
	figures := st.Stats()
	p.Counter("leasehold_storage_commits_total", "Transactions that wrote.", float64(figures.Commits))
	p.Counter("leasehold_storage_syncs_total", "Syncs of the disk that they shared.", float64(figures.Syncs))
	p.Gauge("leasehold_storage_disk_bytes", "Bytes on disk.", float64(figures.DiskBytes))
	p.Gauge("leasehold_storage_memory_bytes", "Bytes of caches and memtables.", float64(figures.MemoryBytes))
	p.Gauge("leasehold_storage_read_only", "1 while the disk is full and nothing can be written.", oneIf(figures.ReadOnly))
}

func (f *figures) addTokens(ctx context.Context, p *metrics.Page) {
	tokens, err := f.s.core.Tokens()
	if err != nil {
		return
	}
	paths, ids := f.namespaces(ctx)
	for _, ns := range ids {
		if n, err := tokens.Count(ctx, ns); err == nil {
			p.Gauge(f.prefix+"token_count", "Service tokens that have not ended.", float64(n), inNamespace(paths[ns]))
		}
	}
}

func (f *figures) addLeases(ctx context.Context, p *metrics.Page) {
	leases, err := f.s.core.Leases()
	if err != nil {
		return
	}
	var all, irrevocable int64
	paths, ids := f.namespaces(ctx)
	for _, ns := range ids {
		n, err := leases.CountNamespace(ctx, ns)
		bad, err2 := leases.CountIrrevocable(ctx, ns, "")
		mounts, err3 := f.s.core.Mounts(ctx, ns, "")
		if err != nil || err2 != nil || err3 != nil {
			return
		}
		all, irrevocable = all+n, irrevocable+bad
		for _, m := range mounts {
			if n, err := leases.CountMount(ctx, m.ID); err == nil && !m.Protected() {
				p.Gauge("leasehold_leases", "Leases that have not ended, by mount.", float64(n), inNamespace(paths[ns]), label("mount", m.Path))
			}
		}
	}
	p.Gauge(f.prefix+"expire_num_leases", "Leases that have not ended.", float64(all))
	p.Gauge(f.prefix+"expire_num_irrevocable_leases", "Leases whose target refuses to end them: see leasehold lease list -irrevocable.", float64(irrevocable))
	st := leases.Stats()
	p.Counter("leasehold_leases_issued_total", "Leased credentials that were made.", float64(st.Issued))
	p.Counter("leasehold_leases_renewed_total", "Renewals of leases.", float64(st.Renewed))
	for _, ended := range st.Ended {
		p.Counter("leasehold_leases_ended_total", "Leases that have ended, by cause.", float64(ended.Count), metrics.Label{Name: "cause", Value: string(ended.Cause)})
		if ended.Cause == lease.Expired {
			p.Counter(f.prefix+"expire_lease_expiration", "Leases that have ended by their time.", float64(ended.Count))
		}
	}
}

// addLanes shows targets by their ids, which say nothing about where they are.
func (f *figures) addLanes(p *metrics.Page) {
	lanes, err := f.s.core.Lanes()
	if err != nil {
		return
	}
	for _, st := range lanes.All() {
		target := metrics.Label{Name: "target", Value: st.Target}
		p.Gauge("leasehold_lane_creating", "Credentials being made at a target, or waiting for it.", float64(st.Creating), target)
		p.Gauge("leasehold_lane_ending", "Leases and other work being ended at a target.", float64(st.Ending), target)
		p.Gauge("leasehold_lane_breaker_open", "1 while a target does not answer.", oneIf(st.Open), target)
	}
}

func (f *figures) addAudit(p *metrics.Page) {
	st, err := f.s.core.AuditStats()
	if err != nil {
		return
	}
	p.Counter("leasehold_audit_records_total", "Audit records that a device took.", float64(st.Written))
	p.Counter(f.prefix+"audit_log_request_failure", "Requests refused because no audit device took their record.", float64(st.RefusedRequests))
	p.Counter(f.prefix+"audit_log_response_failure", "Answers withheld because no audit device took their record.", float64(st.RefusedResponses))
	for _, d := range st.Devices {
		device := metrics.Label{Name: "device", Value: d.Path}
		p.Counter("leasehold_audit_device_failures_total", "Records that a device did not take.", float64(d.Failed), device)
		p.Gauge("leasehold_audit_device_sick", "1 while a device takes no records.", oneIf(d.Sick), device)
	}
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// Text gives the figures as Prometheus reads them.
func (f *figures) Text(ctx context.Context) ([]byte, string, error) {
	if f.s.conf.Telemetry.PrometheusRetention < 0 {
		return nil, "", errs.New(errs.Invalid, "prometheus is not enabled: telemetry sets prometheus_retention_time to none")
	}
	return f.page(ctx).AppendText(nil), metrics.ContentType, nil
}

// Summary gives the figures in Vault's own format.
func (f *figures) Summary(ctx context.Context) (sys.MetricsSummary, error) {
	return summaryOf(f.page(ctx), time.Now(), time.Since(f.started)), nil
}

// summaryOf writes a page in Vault's own format. Where Vault tells of the last
// ten seconds, this tells of the time since the start, and so are its rates.
func summaryOf(p *metrics.Page, now time.Time, up time.Duration) sys.MetricsSummary {
	rate := func(sum float64) float64 { return sum / max(up.Seconds(), 1) }
	out := sys.MetricsSummary{Timestamp: now.UTC().Format("2006-01-02 15:04:05 -0700 MST")}
	for _, f := range p.Families() {
		// vault_core_handle_request is vault.core.handle_request there.
		name := cmp.Or(f.Dotted, strings.Replace(f.Name, "_", ".", 2))
		for _, s := range f.Samples {
			labels := make(map[string]string, len(s.Labels))
			for _, l := range s.Labels {
				labels[l.Name] = l.Value
			}
			switch f.Kind {
			case metrics.Gauge:
				out.Gauges = append(out.Gauges, sys.MetricsGauge{Name: name, Value: s.Value, Labels: labels})
			case metrics.Counter:
				out.Counters = append(out.Counters, sys.MetricsTally{Name: name, Count: uint64(s.Value), Rate: rate(s.Value), Sum: s.Value, Mean: 1, Labels: labels})
			default:
				t := sys.MetricsTally{Name: name, Count: s.Count, Rate: rate(s.Value), Sum: s.Value, Labels: labels}
				if s.Count > 0 {
					t.Mean = s.Value / float64(s.Count)
				}
				out.Samples = append(out.Samples, t)
			}
		}
	}
	return out
}
