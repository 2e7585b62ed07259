package server

import (
	"context"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/metrics"
)

// addQuotas shows what quotas refused and how near those on leases are, by
// Vault's names. The names of quotas are unique, as they are written from the
// root namespace alone.
func (f *figures) addQuotas(ctx context.Context, p *metrics.Page) {
	list, err := f.s.core.QuotaStats(ctx)
	if err != nil {
		return
	}
	for _, name := range []string{"rate_limit.violation", "lease_count.violation", "lease_count.max", "lease_count.counter"} {
		p.Dotted(f.prefix+"quota_"+plainName(name), f.dotted("quota."+name))
	}
	for _, q := range list {
		name := metrics.Label{Name: "name", Value: q.Name}
		if q.Kind == core.RateLimit {
			p.Counter(f.prefix+"quota_rate_limit_violation", "Requests that a rate limit refused.", float64(q.Violations), name)
			continue
		}
		p.Counter(f.prefix+"quota_lease_count_violation", "Requests refused because a quota on the number of leases was reached.", float64(q.Violations), name)
		p.Gauge(f.prefix+"quota_lease_count_max", "Leases and service tokens that a quota allows.", float64(q.Max), name)
		p.Gauge(f.prefix+"quota_lease_count_counter", "Leases and service tokens that it covers.", float64(q.Count), name)
	}
}
