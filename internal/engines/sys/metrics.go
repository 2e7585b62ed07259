package sys

import (
	"context"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
)

// Metrics are the server's figures.
type Metrics interface {
	// Text gives them as Prometheus reads them.
	Text(ctx context.Context) (body []byte, contentType string, err error)
	// Summary gives them as Vault's own format has them.
	Summary(ctx context.Context) (MetricsSummary, error)
}

// MetricsSummary is the answer of sys/metrics without a format: Vault's own.
type MetricsSummary struct {
	Timestamp string         `json:"Timestamp"`
	Gauges    []MetricsGauge `json:"Gauges"`
	Points    []MetricsGauge `json:"Points"`
	Counters  []MetricsTally `json:"Counters"`
	Samples   []MetricsTally `json:"Samples"`
}

// MetricsGauge is a figure that goes up and down.
type MetricsGauge struct {
	Name   string            `json:"Name"`
	Value  float64           `json:"Value"`
	Labels map[string]string `json:"Labels"`
}

// MetricsTally counts something, or adds up its measurements.
type MetricsTally struct {
	Name   string            `json:"Name"`
	Count  uint64            `json:"Count"`
	Rate   float64           `json:"Rate"` // of Sum, a second
	Sum    float64           `json:"Sum"`
	Mean   float64           `json:"Mean"`
	Labels map[string]string `json:"Labels"`
}

func (e *Engine) metricRoutes(t *route.Table) {
	declareMetrics(t, e.cfg.Metrics)
}

// OpenedRoutes declares what a listener may open to everybody, and what then
// answers while the server is sealed too.
func OpenedRoutes(t *route.Table, m Metrics) { declareMetrics(t, m) }

func declareMetrics(t *route.Table, m Metrics) {
	h := func(ctx context.Context, req *route.Request, in metricsIn) (MetricsSummary, error) {
		return figures(ctx, m, req, in)
	}
	route.Read(t, "metrics", h, route.InForm(route.Bare), route.Doc("The server's figures."))
}

type metricsIn struct {
	Format string `json:"format" doc:"prometheus, or nothing for JSON."`
}

func figures(ctx context.Context, m Metrics, req *route.Request, in metricsIn) (MetricsSummary, error) {
	accept := ""
	if req.Header != nil {
		accept = req.Header("Accept")
	}
	if in.Format == "" && strings.HasPrefix(accept, "application/openmetrics-text") {
		in.Format = "prometheus"
	}
	switch in.Format {
	case "":
		return m.Summary(ctx)
	case "prometheus":
		body, contentType, err := m.Text(ctx)
		req.AnswerRaw(&route.Raw{ContentType: contentType, Body: body})
		return MetricsSummary{}, err
	}
	return MetricsSummary{}, errs.New(errs.Invalid, "metric response format %q unknown: it is prometheus or nothing", in.Format)
}
