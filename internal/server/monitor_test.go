package server_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/api"
)

// heard takes what a monitor sends.
type heard chan string

func (h heard) Write(b []byte) (int, error) {
	h <- string(b)
	return len(b), nil
}

// TestMonitor follows the log over the API: at a level that the server's own
// log does not have, until the client leaves or the server is sealed.
func TestMonitor(t *testing.T) {
	s, c := startServer(t, "log_level = \"error\"\nlog_requests_level = \"info\"\n")
	follow := func(ctx context.Context, format string) (heard, chan error) {
		lines, done := make(heard), make(chan error, 1)
		go func() {
			_, err := c.Do(ctx, &api.Request{
				Method: http.MethodGet, Path: "sys/monitor", Query: map[string][]string{"log_format": {format}}, Timeout: -1, NoRetry: true, Into: lines,
			})
			done <- err
		}()
		return lines, done
	}
	// first asks for something until the monitor tells of it.
	first := func(lines heard, done chan error) string {
		t.Helper()
		for {
			if _, err := c.Read(t.Context(), "sys/mounts", nil); err != nil {
				t.Fatal(err)
			}
			select {
			case line := <-lines:
				return line
			case err := <-done:
				t.Fatalf("the monitor ended with %v before it told anything", err)
			default:
			}
		}
	}
	ctx, leave := context.WithCancel(t.Context())
	lines, done := follow(ctx, "standard")
	if line := first(lines, done); !strings.Contains(line, "[INFO ] request answered") || !strings.Contains(line, "path=sys/m") || !strings.HasSuffix(line, "\n") {
		t.Errorf("the monitor tells %q", line)
	}
	leave()
	for ended := false; !ended; {
		select {
		case <-lines:
		case err := <-done:
			if ended = true; !errors.Is(err, context.Canceled) {
				t.Errorf("a monitor whose client left ends with %v", err)
			}
		}
	}

	lines, done = follow(t.Context(), "json")
	if line := first(lines, done); !strings.HasPrefix(line, `{"time":`) || !strings.Contains(line, `"msg":"request answered"`) {
		t.Errorf("in JSON the monitor tells %q", line)
	}
	if err := s.Core().SealSoon(); err != nil {
		t.Fatal(err)
	}
	for ended := false; !ended; {
		select {
		case <-lines:
		case err := <-done:
			if ended = true; err != nil {
				t.Errorf("when the server is sealed, the monitor ends with %v", err)
			}
		}
	}
}

func TestMonitorRefusals(t *testing.T) {
	c := start(t, "")
	for _, query := range []map[string][]string{{"log_level": {"loud"}}, {"log_format": {"xml"}}} {
		_, err := c.Do(t.Context(), &api.Request{Method: http.MethodGet, Path: "sys/monitor", Query: query, Timeout: -1})
		if e := (*api.Error)(nil); !errors.As(err, &e) || e.Status != 400 || len(e.Errors) != 1 || !strings.Contains(e.Errors[0], "unknown log") {
			t.Errorf("%v = %v, want a refusal", query, err)
		}
	}
}
