// Package tracetest gives tests a collector that behaves: it takes OTLP over
// HTTP as a real one does, and keeps what it was sent.
package tracetest

import (
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Collector receives spans.
type Collector struct {
	URL string // without /v1/traces

	mu      sync.Mutex
	spans   []*Span
	service string
	changed chan struct{} // closed and made anew when spans come
}

// Span is one that was received.
type Span struct {
	Name       string
	Trace      string // in hex
	ID, Parent string
	Kind       otlp.Span_SpanKind
	Failed     bool
	Attrs      map[string]string
	Took       time.Duration
	Raw        string // all of it, to look for what must not be in it
}

// New starts a collector that ends with the test.
func New(t testing.TB) *Collector {
	t.Helper()
	c := &Collector{changed: make(chan struct{})}
	srv := httptest.NewServer(http.HandlerFunc(c.serve))
	t.Cleanup(srv.Close)
	c.URL = srv.URL
	return c
}

func (c *Collector) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "not OTLP", http.StatusBadRequest)
		return
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if body, err = gzip.NewReader(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	b, err := io.ReadAll(body)
	req := &collector.ExportTraceServiceRequest{}
	if err == nil {
		err = proto.Unmarshal(b, req)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.take(req)
	answer, err := proto.Marshal(&collector.ExportTraceServiceResponse{})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(answer) // the sender's loss
}

func (c *Collector) take(req *collector.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range req.ResourceSpans {
		c.service = attrs(rs.Resource.GetAttributes())["service.name"]
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.spans = append(c.spans, &Span{
					Name: s.Name, Trace: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId), Parent: hex.EncodeToString(s.ParentSpanId),
					Kind: s.Kind, Failed: s.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR, Attrs: attrs(s.Attributes),
					Took: time.Duration(s.EndTimeUnixNano - s.StartTimeUnixNano), Raw: s.String(),
				})
			}
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

func attrs(list []*common.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range list {
		out[kv.Key] = kv.Value.GetStringValue()
		if _, isInt := kv.Value.GetValue().(*common.AnyValue_IntValue); isInt {
			out[kv.Key] = fmt.Sprint(kv.Value.GetIntValue())
		}
	}
	return out
}

// Service is what the sender calls itself.
func (c *Collector) Service() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.service
}

// Spans are those that have come.
func (c *Collector) Spans() []*Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Wait waits until more spans come, for a second at most.
func (c *Collector) Wait(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	changed := c.changed
	c.mu.Unlock()
	select {
	case <-changed:
	case <-time.After(time.Second):
	}
}

// Trace waits for the trace that has a span of a name and no parent but a
// caller's: the last to end, so that the others have come with it. It fails
// the test after 20 s.
func (c *Collector) Trace(t testing.TB, name string) Trace {
	t.Helper()
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		for _, s := range c.Spans() {
			if s.Name == name && s.Kind == otlp.Span_SPAN_KIND_SERVER {
				return c.traceOf(s)
			}
		}
		select {
		case <-changed:
		case <-late.C:
			t.Fatalf("no span %q came; these did:\n%s", name, c.traceOf(nil))
		}
	}
}

// Trace is a request's spans.
type Trace struct {
	Root  *Span
	Spans []*Span
}

func (c *Collector) traceOf(root *Span) Trace {
	out := Trace{Root: root}
	for _, s := range c.Spans() {
		if root == nil || s.Trace == root.Trace {
			out.Spans = append(out.Spans, s)
		}
	}
	return out
}

// Find gives the first span of a name, or nil.
func (tr Trace) Find(name string) *Span {
	for _, s := range tr.Spans {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Path is a span's name below those of its parents: "a > b".
func (tr Trace) Path(s *Span) string {
	for _, p := range tr.Spans {
		if p.ID == s.Parent {
			return tr.Path(p) + " > " + s.Name
		}
	}
	return s.Name
}

// String lists the spans' paths, in order, for messages.
func (tr Trace) String() string {
	var lines []string
	for _, s := range tr.Spans {
		lines = append(lines, tr.Path(s))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
