package sys

import (
	"context"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// Quotas keeps the limits on requests and leases. They are written from the root
// namespace, whatever namespace they are for: who runs one must not loosen what
// was set on it.
type Quotas interface {
	QuotaConfig(ctx context.Context) (QuotaConfig, error)
	SetQuotaConfig(ctx context.Context, c QuotaConfig) error
	// Names lists the quotas of a kind.
	Names(ctx context.Context, ns, kind string) ([]string, error)
	// Read gives one, and false if there is none.
	Read(ctx context.Context, ns, kind, name string) (Quota, bool, error)
	Write(ctx context.Context, ns, kind string, q Quota) error
	Delete(ctx context.Context, ns, kind, name string) error
}

// The kinds of quota.
const (
	rateLimit  = "rate-limit"
	leaseCount = "lease-count"
)

// QuotaConfig holds for every rate limit.
type QuotaConfig struct {
	Exempt          []string // paths in any namespace
	AbsoluteExempt  []string // paths as the root sees them
	AuditLogging    bool
	ResponseHeaders bool
}

// Quota is a limit on what is at or below a path.
type Quota struct {
	Name        string
	Path        string
	Role        string
	Inheritable *bool // nil: the default

	Rate            float64 // and the next four: of a rate limit
	Interval, Block time.Duration
	GroupBy         string
	Secondary       float64

	MaxLeases int64 // and the next: of a lease count
	Counter   int64 // only read
}

func (e *Engine) quotaRoutes(t *route.Table) {
	route.Read(t, "quotas/config", e.readQuotaConfig, route.Doc("Read what holds for every rate limit."))
	route.Write(t, "quotas/config", e.writeQuotaConfig, route.Doc("Exempt paths from rate limits, log what they refuse, and say in answers what is left."))

	route.List(t, "quotas/rate-limit", e.listQuotas(rateLimit), route.Doc("List the rate limits."))
	route.Read(t, "quotas/rate-limit/{name}", e.readRateLimit, route.Doc("Read a rate limit."))
	route.Write(t, "quotas/rate-limit/{name}", e.writeRateLimit, route.Doc("Limit how many requests each client may send in a time."))
	route.Delete(t, "quotas/rate-limit/{name}", e.deleteQuota(rateLimit), route.Doc("Delete a rate limit."))

	route.List(t, "quotas/lease-count", e.listQuotas(leaseCount), route.Doc("List the quotas on the number of leases."))
	route.Read(t, "quotas/lease-count/{name}", e.readLeaseCount, route.Doc("Read a quota on the number of leases, and how many there are."))
	route.Write(t, "quotas/lease-count/{name}", e.writeLeaseCount, route.Doc("Limit how many leases and service tokens live at once."))
	route.Delete(t, "quotas/lease-count/{name}", e.deleteQuota(leaseCount), route.Doc("Delete a quota on the number of leases."))
}

type quotaConfigOut struct {
	Exempt          []string `json:"rate_limit_exempt_paths"`
	AbsoluteExempt  []string `json:"absolute_rate_limit_exempt_paths"`
	AuditLogging    bool     `json:"enable_rate_limit_audit_logging"`
	ResponseHeaders bool     `json:"enable_rate_limit_response_headers"`
}

func (e *Engine) readQuotaConfig(ctx context.Context, _ *route.Request, _ route.None) (quotaConfigOut, error) {
	c, err := e.cfg.Quotas.QuotaConfig(ctx)
	return quotaConfigOut(c), err
}

type quotaConfigIn struct {
	Exempt          wire.Opt[wire.CSV] `json:"rate_limit_exempt_paths" doc:"Paths, in whichever namespace, that no rate limit holds for. One that ends in * stands for all that begin so."`
	AbsoluteExempt  wire.Opt[wire.CSV] `json:"absolute_rate_limit_exempt_paths" doc:"The same, as paths with their namespace before them."`
	AuditLogging    wire.Opt[bool]     `json:"enable_rate_limit_audit_logging" doc:"Write requests that a rate limit refuses into the audit log."`
	ResponseHeaders wire.Opt[bool]     `json:"enable_rate_limit_response_headers" doc:"Answer with X-Ratelimit-Limit, X-Ratelimit-Remaining and X-Ratelimit-Reset."`
}

func (e *Engine) writeQuotaConfig(ctx context.Context, _ *route.Request, in quotaConfigIn) (route.None, error) {
	c, err := e.cfg.Quotas.QuotaConfig(ctx)
	if err != nil {
		return route.None{}, err
	}
	if v, ok := in.Exempt.Get(); ok {
		c.Exempt = v
	}
	if v, ok := in.AbsoluteExempt.Get(); ok {
		c.AbsoluteExempt = v
	}
	in.AuditLogging.Apply(&c.AuditLogging)
	in.ResponseHeaders.Apply(&c.ResponseHeaders)
	return route.None{}, e.cfg.Quotas.SetQuotaConfig(ctx, c)
}

func (e *Engine) listQuotas(kind string) route.Handler[route.None, route.Keys] {
	return func(ctx context.Context, req *route.Request, _ route.None) (route.Keys, error) {
		names, err := e.cfg.Quotas.Names(ctx, req.Mount.Namespace, kind)
		if err != nil {
			return route.Keys{}, err
		}
		return route.ListOf(names)
	}
}

func (e *Engine) deleteQuota(kind string) route.Handler[nameIn, route.None] {
	return func(ctx context.Context, req *route.Request, in nameIn) (route.None, error) {
		return route.None{}, e.cfg.Quotas.Delete(ctx, req.Mount.Namespace, kind, in.Name)
	}
}

func (e *Engine) readQuota(ctx context.Context, req *route.Request, kind, name string) (Quota, error) {
	q, there, err := e.cfg.Quotas.Read(ctx, req.Mount.Namespace, kind, name)
	if err == nil && !there {
		err = errs.Gone
	}
	if q.Inheritable == nil {
		q.Inheritable = new(bool)
	}
	return q, err
}

type rateLimitOut struct {
	Name        string   `json:"name"`
	Type        string   `json:"type"`
	Path        string   `json:"path"`
	Role        string   `json:"role"`
	Inheritable bool     `json:"inheritable"`
	Rate        float64  `json:"rate"`
	Interval    wire.TTL `json:"interval"`
	Block       wire.TTL `json:"block_interval"`
	GroupBy     string   `json:"group_by"`
	Secondary   float64  `json:"secondary_rate"`
}

func (e *Engine) readRateLimit(ctx context.Context, req *route.Request, in nameIn) (rateLimitOut, error) {
	q, err := e.readQuota(ctx, req, rateLimit, in.Name)
	if err != nil {
		return rateLimitOut{}, err
	}
	return rateLimitOut{
		Name: q.Name, Type: rateLimit, Path: q.Path, Role: q.Role, Inheritable: *q.Inheritable,
		Rate: q.Rate, Interval: wire.TTL(q.Interval), Block: wire.TTL(q.Block), GroupBy: q.GroupBy, Secondary: q.Secondary,
	}, nil
}

// quotaIn is what both kinds of quota take.
type quotaIn struct {
	Name        string         `json:"name" doc:"Name of the quota."`
	Type        string         `json:"type" doc:"Kept for Vault's clients: the path says it."`
	Path        string         `json:"path" doc:"What it is for: nothing (all), a namespace, a mount, or a path below a mount, where one that ends in * stands for all that begin so. The most exact quota holds."`
	Role        string         `json:"role" doc:"A role of the auth method whose mount the path is: the quota is for logins by it."`
	Inheritable wire.Opt[bool] `json:"inheritable" doc:"A namespace's quota holds in the namespaces below it too."`
}

func (in quotaIn) quota() Quota {
	q := Quota{Name: in.Name, Path: in.Path, Role: in.Role}
	if v, ok := in.Inheritable.Get(); ok {
		q.Inheritable = &v
	}
	return q
}

type rateLimitIn struct {
	quotaIn
	Rate      float64  `json:"rate" doc:"How many requests a client may send in an interval."`
	Interval  wire.TTL `json:"interval" doc:"The time that requests are counted in; a second unless said otherwise."`
	Block     wire.TTL `json:"block_interval" doc:"How long a client that passed the rate is refused; 0: until the interval is over."`
	GroupBy   string   `json:"group_by" doc:"Whose requests are counted together: ip (an address), none (everybody's), entity_then_ip or entity_then_none (an entity's, and of requests without one either)."`
	Secondary float64  `json:"secondary_rate" doc:"The rate for requests without an entity; the same unless said otherwise."`
}

func (e *Engine) writeRateLimit(ctx context.Context, req *route.Request, in rateLimitIn) (route.None, error) {
	q := in.quota()
	q.Rate, q.Interval, q.Block = in.Rate, in.Interval.Duration(), in.Block.Duration()
	q.GroupBy, q.Secondary = in.GroupBy, in.Secondary
	return route.None{}, e.cfg.Quotas.Write(ctx, req.Mount.Namespace, rateLimit, q)
}

type leaseCountOut struct {
	Name        string `json:"name"`
	Type        string `json:"type"`
	Path        string `json:"path"`
	Role        string `json:"role"`
	Inheritable bool   `json:"inheritable"`
	MaxLeases   int64  `json:"max_leases"`
	Counter     int64  `json:"counter"`
}

func (e *Engine) readLeaseCount(ctx context.Context, req *route.Request, in nameIn) (leaseCountOut, error) {
	q, err := e.readQuota(ctx, req, leaseCount, in.Name)
	if err != nil {
		return leaseCountOut{}, err
	}
	return leaseCountOut{
		Name: q.Name, Type: leaseCount, Path: q.Path, Role: q.Role, Inheritable: *q.Inheritable, MaxLeases: q.MaxLeases, Counter: q.Counter,
	}, nil
}

type leaseCountIn struct {
	quotaIn
	MaxLeases int64 `json:"max_leases" doc:"How many leases and service tokens may live at once."`
}

func (e *Engine) writeLeaseCount(ctx context.Context, req *route.Request, in leaseCountIn) (route.None, error) {
	q := in.quota()
	q.MaxLeases = in.MaxLeases
	return route.None{}, e.cfg.Quotas.Write(ctx, req.Mount.Namespace, leaseCount, q)
}
