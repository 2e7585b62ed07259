package trace_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/trace"
	"github.com/leasehold/leasehold/internal/trace/tracetest"
)

// request is one with two steps, as the server takes it.
func request(ctx context.Context, t *trace.Tracer, head http.Header) {
	ctx, span := t.Request(ctx, "GET", head)
	trace.Of(ctx).Route("GET", "kv/", "{path...}")
	for _, name := range []string{"first", "second"} {
		sctx, step := trace.Start(ctx, name)
		_, call := trace.StartCall(sctx, "call")
		call.Text("k", "v")
		call.Int("n", 1)
		call.End(nil)
		step.End(nil)
	}
	span.EndRequest(http.StatusOK)
}

// TestOffCostsNothing holds tracing to no allocation while there is no tracer:
// neither a request's nor its steps' spans are made.
func TestOffCostsNothing(t *testing.T) {
	ctx, head := t.Context(), http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	if n := testing.AllocsPerRun(1000, func() { request(ctx, nil, head) }); n != 0 {
		t.Errorf("a request that is not traced allocates %v times, want 0", n)
	}
}

func BenchmarkOff(b *testing.B) {
	ctx, head := b.Context(), http.Header{}
	b.ReportAllocs()
	for b.Loop() {
		request(ctx, nil, head)
	}
}

func BenchmarkOn(b *testing.B) {
	for name, ratio := range map[string]float64{"sampled": 1, "not sampled": 1e-12} {
		b.Run(name, func(b *testing.B) {
			t, err := trace.New(b.Context(), trace.Config{Endpoint: tracetest.New(b).URL, Ratio: ratio})
			if err != nil {
				b.Fatal(err)
			}
			defer t.Close()
			ctx, head := b.Context(), http.Header{}
			b.ReportAllocs()
			for b.Loop() {
				request(ctx, t, head)
			}
		})
	}
}

// TestWhoIsTraced goes through what decides: the configuration, OpenTelemetry's
// variables, and the caller.
func TestWhoIsTraced(t *testing.T) {
	sampled := http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	unsampled := http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}}
	for _, c := range []struct {
		name     string
		env      string // NAME=value, URL standing for the collector's
		endpoint bool   // in the configuration
		ratio    float64
		head     http.Header
		spans    int
	}{
		{name: "nobody asked"},
		{name: "configuration", endpoint: true, spans: 5},
		{name: "environment", env: "OTEL_EXPORTER_OTLP_ENDPOINT=URL", spans: 5},
		{name: "environment, traces alone", env: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=URL/v1/traces", spans: 5},
		{name: "switched off", env: "OTEL_SDK_DISABLED=true", endpoint: true},
		{name: "no exporter", env: "OTEL_TRACES_EXPORTER=none", endpoint: true},
		{name: "the environment's sampler", env: "OTEL_TRACES_SAMPLER=always_off", endpoint: true},
		{name: "a rare sample", endpoint: true, ratio: 1e-12},
		{name: "a rare sample, and a caller who is traced", endpoint: true, ratio: 1e-12, head: sampled, spans: 5},
		{name: "a caller who is not traced", endpoint: true, head: unsampled},
		{name: "a caller who sends nonsense", endpoint: true, head: http.Header{"Traceparent": {"00-zz"}}, spans: 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			col := tracetest.New(t)
			if k, v, ok := strings.Cut(c.env, "="); ok {
				t.Setenv(k, strings.Replace(v, "URL", col.URL, 1))
			}
			cfg := trace.Config{Ratio: c.ratio, Version: "1.2.3", Log: slog.New(slog.DiscardHandler)}
			if c.endpoint {
				cfg.Endpoint = col.URL
			}
			tr, err := trace.New(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			request(t.Context(), tr, c.head)
			if err := errors.Join(tr.Close(), tr.Close()); err != nil { // it may be called twice
				t.Fatal(err)
			}
			spans := col.Spans()
			if len(spans) != c.spans {
				t.Fatalf("%d spans came, want %d", len(spans), c.spans)
			}
			if c.spans > 0 && col.Service() != trace.DefaultService {
				t.Errorf("the server calls itself %q", col.Service())
			}
			if c.head != nil && c.spans > 0 && c.ratio > 0 && spans[0].Trace != "0af7651916cd43dd8448eb211c80319c" {
				t.Errorf("the trace is %s, want the caller's", spans[0].Trace)
			}
		})
	}
	if _, err := trace.New(t.Context(), trace.Config{Endpoint: "collector:4318"}); err == nil {
		t.Error("New takes an endpoint that is no URL")
	}
}

// TestErrorsHaveKindsOnly sees that an error's words stay out of a span.
func TestErrorsHaveKindsOnly(t *testing.T) {
	col := tracetest.New(t)
	tr, err := trace.New(t.Context(), trace.Config{Endpoint: col.URL, Service: "house"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tr.Request(t.Context(), "GET", nil)
	_, step := trace.Start(ctx, "step")
	step.End(errs.New(errs.Upstream, "hunter2 was refused"))
	_, other := trace.Start(ctx, "other")
	other.End(errors.New("hunter2"))
	span.EndRequest(http.StatusBadGateway)
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"step": "upstream", "other": "internal", "GET": ""}
	for _, s := range col.Spans() {
		if !s.Failed || s.Attrs["error.type"] != want[s.Name] {
			t.Errorf("%s failed: %v, as %q, want %q", s.Name, s.Failed, s.Attrs["error.type"], want[s.Name])
		}
		if strings.Contains(s.Raw, "hunter2") {
			t.Errorf("an error's words are in a span: %s", s.Raw)
		}
		delete(want, s.Name)
	}
	if len(want) > 0 || col.Service() != "house" {
		t.Errorf("no span of %v, or the service is %q, want house", want, col.Service())
	}
}
