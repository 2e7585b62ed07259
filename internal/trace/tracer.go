package trace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// Config says where spans go. What it leaves open OpenTelemetry's own
// environment variables decide.
type Config struct {
	// Endpoint is the collector's URL, to which /v1/traces is added. "" takes
	// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT.
	Endpoint string
	// Service is what the server is called there. "" takes OTEL_SERVICE_NAME,
	// or DefaultService.
	Service string
	// Ratio is the share of requests that are traced, of those that come
	// without a caller's decision. 0 takes OTEL_TRACES_SAMPLER, or all.
	Ratio   float64
	Version string // of the server
	Log     *slog.Logger
}

// DefaultService is what a server is called that nobody named.
const DefaultService = "leasehold"

// Tracer sends spans to a collector.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   oteltrace.Tracer
	close    sync.Once
}

// enough is how long a stopping server tries to get rid of its last spans.
const enough = time.Second

// New makes a tracer, or nil where no endpoint is set: then nothing is traced.
// Nothing is connected before the first span.
func New(ctx context.Context, cfg Config) (*Tracer, error) {
	if !wanted(cfg) {
		return nil, nil
	}
	var options []otlptracehttp.Option
	if cfg.Endpoint != "" {
		u, err := url.Parse(cfg.Endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("tracing: the endpoint %q is no http or https URL", cfg.Endpoint)
		}
		options = append(options, otlptracehttp.WithEndpointURL(u.JoinPath("v1", "traces").String()))
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	attrs := []attribute.KeyValue{attribute.String("service.version", cfg.Version)}
	switch {
	case cfg.Service != "":
		attrs = append(attrs, attribute.String("service.name", cfg.Service))
	case os.Getenv("OTEL_SERVICE_NAME") == "" && !strings.Contains(os.Getenv("OTEL_RESOURCE_ATTRIBUTES"), "service.name="):
		attrs = append(attrs, attribute.String("service.name", DefaultService))
	}
	// A part of the environment that cannot be read leaves the rest usable.
	res, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithFromEnv(), resource.WithAttributes(attrs...))
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	made := []sdktrace.TracerProviderOption{sdktrace.WithBatcher(exporter), sdktrace.WithResource(res)}
	if cfg.Ratio > 0 {
		made = append(made, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.Ratio))))
	}
	if cfg.Log != nil {
		// OpenTelemetry has one place for what goes wrong, of the process.
		otel.SetErrorHandler(&complaints{log: cfg.Log})
	}
	p := sdktrace.NewTracerProvider(made...)
	living.Add(1)
	return &Tracer{provider: p, tracer: p.Tracer(scope)}, nil
}

// wanted reports whether somebody asked for traces.
func wanted(cfg Config) bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || strings.EqualFold(os.Getenv("OTEL_TRACES_EXPORTER"), "none") {
		return false
	}
	return cfg.Endpoint != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != ""
}

// Close sends what is left, for a second at most. It may be called twice, and
// on a nil Tracer.
func (t *Tracer) Close() (err error) {
	if t == nil {
		return nil
	}
	t.close.Do(func() {
		living.Add(-1)
		ctx, cancel := context.WithTimeout(context.Background(), enough)
		defer cancel()
		err = t.provider.Shutdown(ctx)
	})
	return err
}

// complaints logs what OpenTelemetry has to say, once a minute at most: a
// collector that is away would fill the log.
type complaints struct {
	log  *slog.Logger
	last atomic.Int64 // in nanoseconds since 1970
}

func (c *complaints) Handle(err error) {
	now, last := time.Now().UnixNano(), c.last.Load()
	if now-last >= int64(time.Minute) && c.last.CompareAndSwap(last, now) {
		c.log.Warn("spans cannot be sent to the collector; requests go on without", "error", err)
	}
}
