package config

import (
	"net/url"
	"strconv"
	"strings"
)

// Tracing says where traces of requests go. With no endpoint here and none in
// OpenTelemetry's environment variables, nothing is traced.
type Tracing struct {
	Endpoint string  // URL of a collector that takes OTLP over HTTP, without /v1/traces
	Service  string  // what the server is called there; empty: OTEL_SERVICE_NAME, or "leasehold"
	Ratio    float64 // of the requests that come without a caller's decision; zero: all, or as the environment says
}

var tracingFields = fields[Tracing]{
	"endpoint":     readCollector,
	"service_name": str(func(t *Tracing) *string { return &t.Service }),
	"sample_ratio": readRatio,
}

func readCollector(d *decoder, m member, to *Tracing) {
	s, ok := scalar(d, m)
	if !ok {
		return
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		// Not repeated: a URL may have a password in it.
		d.fail(m.value.pos, "endpoint must be a URL such as http://127.0.0.1:4318, without a user; headers come from OTEL_EXPORTER_OTLP_HEADERS")
		return
	}
	to.Endpoint = s
}

func readRatio(d *decoder, m member, to *Tracing) {
	s, ok := scalar(d, m)
	if !ok {
		return
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || !(v > 0 && v <= 1) {
		d.fail(m.value.pos, "sample_ratio must be a number over 0, and at most 1, not %q", s)
		return
	}
	to.Ratio = v
}
