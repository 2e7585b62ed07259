// Package trace tells OpenTelemetry where the time of a request went, as a
// tree of spans from HTTP to SQL.
//
// The key idea: a span hangs in the context of the request it belongs to, and
// a nil *Span is one of a request that is not traced, which is the normal
// case. Its methods do nothing, so nobody asks whether tracing is on; while no
// Tracer exists in the process, Start costs one atomic load and allocates
// nothing.
//
// Spans hold no secret and nothing that leads to one: routes and not paths,
// kinds of SQL statements and not their text, kinds of error and not their
// words. The methods take no error's or value's text, to keep it so.
//
// Finished spans wait in a bounded queue for a collector. One that does not
// answer makes the queue full and spans drop; it stalls nobody.
package trace

import (
	"context"
	"net/http"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/leasehold/leasehold/internal/errs"
)

// scope names the instrumentation, as OpenTelemetry has it.
const scope = "github.com/leasehold/leasehold"

// living counts the tracers of this process: while there are none, no context
// is asked for a span.
var living atomic.Int32

// On reports whether anything may be traced, for callers whose words for a
// span cost something.
func On() bool { return living.Load() > 0 }

// Span is one step of a request. A nil one does nothing.
type Span struct{ otel oteltrace.Span }

// Request begins the span of a request that came by HTTP, below the caller's
// own where it sent a W3C traceparent. A nil Tracer traces nothing.
func (t *Tracer) Request(ctx context.Context, method string, header http.Header) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(header))
	ctx, s := t.tracer.Start(ctx, method, oteltrace.WithSpanKind(oteltrace.SpanKindServer),
		oteltrace.WithAttributes(attribute.String("http.request.method", method)))
	return ctx, spanOf(s)
}

// Start begins a step of the request that ctx belongs to. Whatever runs under
// the context it returns is below it.
func Start(ctx context.Context, name string) (context.Context, *Span) {
	return start(ctx, name, oteltrace.SpanKindInternal)
}

// StartCall is Start for a call of another server.
func StartCall(ctx context.Context, name string) (context.Context, *Span) {
	return start(ctx, name, oteltrace.SpanKindClient)
}

func start(ctx context.Context, name string, kind oteltrace.SpanKind) (context.Context, *Span) {
	if !On() {
		return ctx, nil
	}
	above := oteltrace.SpanFromContext(ctx)
	if !above.IsRecording() {
		return ctx, nil
	}
	ctx, s := above.TracerProvider().Tracer(scope).Start(ctx, name, oteltrace.WithSpanKind(kind))
	return ctx, spanOf(s)
}

// Of is the span that ctx belongs to, or nil.
func Of(ctx context.Context) *Span {
	if !On() {
		return nil
	}
	return spanOf(oteltrace.SpanFromContext(ctx))
}

// spanOf leaves out spans that nobody will see.
func spanOf(s oteltrace.Span) *Span {
	if !s.IsRecording() {
		return nil
	}
	return &Span{s}
}

// Route names a request's span by what answers it: the path of a mount and the
// pattern of an endpoint, never the path that was asked for.
func (s *Span) Route(method, mount, pattern string) {
	if s == nil {
		return
	}
	s.otel.SetName(method + " /v1/" + mount + pattern)
	s.otel.SetAttributes(attribute.String("http.route", "/v1/"+mount+pattern))
}

// Text notes something about the step. value is never a secret, a path or the
// text of an error.
func (s *Span) Text(key, value string) {
	if s != nil {
		s.otel.SetAttributes(attribute.String(key, value))
	}
}

// Int notes a number about the step.
func (s *Span) Int(key string, value int) {
	if s != nil {
		s.otel.SetAttributes(attribute.Int(key, value))
	}
}

// EndRequest ends a request's span. Only what is the server's fault makes it a
// failed one.
func (s *Span) EndRequest(status int) {
	if s == nil {
		return
	}
	s.otel.SetAttributes(attribute.Int("http.response.status_code", status))
	if status >= http.StatusInternalServerError {
		s.otel.SetStatus(codes.Error, "")
	}
	s.otel.End()
}

// End ends the step. Of an error the span has the kind alone.
func (s *Span) End(err error) {
	if s == nil {
		return
	}
	if err != nil {
		s.otel.SetAttributes(attribute.String("error.type", kindName(err)))
		s.otel.SetStatus(codes.Error, "")
	}
	s.otel.End()
}

var kindNames = [...]string{
	errs.Internal: "internal", errs.Invalid: "invalid", errs.Denied: "denied", errs.NotFound: "not_found",
	errs.Unsupported: "unsupported", errs.UnsupportedMedia: "unsupported_media", errs.Precondition: "precondition",
	errs.TooLarge: "too_large", errs.TooMany: "too_many", errs.Unavailable: "unavailable", errs.Upstream: "upstream",
}

func kindName(err error) string {
	if k := errs.KindOf(err); int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[errs.Internal]
}
