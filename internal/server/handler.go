package server

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/config"
	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/httpapi"
	"github.com/leasehold/leasehold/internal/route"
)

// handler is what a listener answers with: the API, with the listener's own
// settings in force.
func (s *Server) handler(l config.Listener) *httpapi.Handler {
	conf := httpapi.Config{
		Core: s.core, MaxBody: l.MaxRequestSize, MaxDuration: l.MaxRequestDuration, MaxDepth: l.MaxJSONDepth,
		CORS: s.crossOrigin, Headers: s.headers(l), RequireHeader: l.RequireRequestHeader, Done: s.answered, Trace: s.tracer,
		Redact: route.Redact{Addresses: l.RedactAddresses, ClusterName: l.RedactClusterName, Version: l.RedactVersion},
	}
	if conf.MaxDuration == 0 {
		conf.MaxDuration = s.conf.MaxRequestDuration
	}
	if x := l.XForwardedFor; len(x.Authorized) > 0 {
		conf.Remote = httpapi.Proxies{
			Believed: x.Authorized, HopSkips: x.HopSkips, KeepOthers: x.KeepOthers, KeepHeadless: x.KeepHeadless,
		}.Remote
	}
	for path, open := range map[string]bool{
		"sys/metrics": l.UnauthenticatedMetrics, "sys/in-flight-req": l.UnauthenticatedInFlight,
		"sys/pprof": l.UnauthenticatedPprof, "sys/pprof/": l.UnauthenticatedPprof,
	} {
		if open {
			conf.Open = append(conf.Open, path)
		}
	}
	if l.DisableUnauthedRekey {
		conf.Guarded = []string{"sys/rekey/", "sys/rekey-recovery-key/", "sys/generate-root/"}
	}
	return httpapi.New(conf)
}

func (s *Server) crossOrigin() *httpapi.CORS {
	c := s.core.CORS()
	if !c.Enabled {
		return nil
	}
	return &httpapi.CORS{Origins: c.Origins, Headers: c.Headers, Credentials: c.Credentials}
}

// headers are those that the configuration adds to a listener's answers. Of a
// header with several values one line is made, as Vault does.
func (s *Server) headers(l config.Listener) (all []httpapi.StatusHeaders) {
	if s.conf.ResponseHeaderHostname {
		name, err := os.Hostname()
		if err != nil {
			s.cfg.Log.Warn("enable_response_header_hostname: the host's name is unknown", "error", err)
		}
		all = append(all, httpapi.StatusHeaders{Status: "default", Header: http.Header{"X-Vault-Hostname": {name}}})
	}
	for _, h := range l.ResponseHeaders {
		one := httpapi.StatusHeaders{Status: h.Status, Header: http.Header{}}
		for name, values := range h.Header {
			one.Header[name] = []string{strings.Join(values, "; ")}
		}
		all = append(all, one)
	}
	return all
}

// answered counts a request and logs it. It is on the path of each.
func (s *Server) answered(req *core.Request, status int, took time.Duration) {
	s.metrics.count(req.Op, status, took)
	s.logRequest(req, status, took)
}

// logRequest writes the line of an answered request, where log_requests_level
// asks for one. A path is shown without the lease id or token it may carry.
func (s *Server) logRequest(req *core.Request, status int, took time.Duration) {
	level := s.requests.Load()
	if level == nil {
		return
	}
	attrs := []slog.Attr{
		slog.String("request", req.ID), slog.String("method", req.Method), slog.String("operation", req.Op.String()),
		slog.String("path", core.ShownPath(req.Path)), slog.Int("status", status), slog.Duration("duration", took),
	}
	if req.Namespace != "" {
		attrs = append(attrs, slog.String("namespace", req.Namespace))
	}
	if req.Remote.IsValid() {
		attrs = append(attrs, slog.String("client", req.Remote.String()))
	}
	s.cfg.Log.LogAttrs(context.Background(), *level, "request answered", attrs...)
}

// setRequestLevel says at which level answered requests are logged; "" is not
// at all.
func (s *Server) setRequestLevel(name string) {
	if name == "" {
		s.requests.Store(nil)
		return
	}
	level := levelOf(name)
	s.requests.Store(&level)
}
