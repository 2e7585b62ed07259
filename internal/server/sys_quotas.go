package server

import (
	"context"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engines/sys"
)

// quotas are core's, as sys asks for them.
type quotas struct{ c *core.Core }

var _ sys.Quotas = quotas{}

func (q quotas) QuotaConfig(ctx context.Context) (sys.QuotaConfig, error) {
	conf, err := q.c.QuotaConfig(ctx)
	return sys.QuotaConfig(conf), err
}

func (q quotas) SetQuotaConfig(ctx context.Context, conf sys.QuotaConfig) error {
	return q.c.SetQuotaConfig(ctx, core.QuotaConfig(conf))
}

func (q quotas) Names(ctx context.Context, ns, kind string) ([]string, error) {
	return q.c.QuotaNames(ctx, ns, core.QuotaKind(kind))
}

func (q quotas) Read(ctx context.Context, ns, kind, name string) (sys.Quota, bool, error) {
	have, there, err := q.c.Quota(ctx, ns, core.QuotaKind(kind), name)
	return sys.Quota(have), there, err
}

func (q quotas) Write(ctx context.Context, ns, kind string, in sys.Quota) error {
	return q.c.WriteQuota(ctx, ns, core.QuotaKind(kind), core.Quota(in))
}

func (q quotas) Delete(ctx context.Context, ns, kind, name string) error {
	return q.c.DeleteQuota(ctx, ns, core.QuotaKind(kind), name)
}
