// Package httpapi turns HTTP into core.Request and core.Response into HTTP:
// Vault's headers, methods, envelope and statuses, and the limits that hold
// whatever a client sends.
//
// The key idea: here, and only here, text from outside becomes canonical. The
// path is decoded once and refused if it is ambiguous; the body is checked to
// be one JSON object of bounded size and depth. Whatever is behind (policy,
// routes, audit, store) uses the same path and never meets broken JSON.
//
// An answer is built in a pooled buffer and handed to net/http in one Write.
// Before that Write the client is asked once whether it is still there, and
// core is told the outcome: a credential that reached nobody is taken back.
package httpapi

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/trace"
	"github.com/leasehold/leasehold/internal/wire"
)

// Core answers requests. It returns an answer whatever happens, never nil.
type Core interface {
	Handle(ctx context.Context, req *core.Request) *core.Response
	// Refuse records a request that is not carried out, and why, and answers
	// it. Of req only what could be understood is filled.
	Refuse(ctx context.Context, req *core.Request, why error) *core.Response
}

// Config is what a Handler is made of.
type Config struct {
	Core Core
	// MaxBody is the largest body taken; 0 means DefaultMaxBody.
	MaxBody int64
	// MaxDuration ends the context of a request; 0 means DefaultMaxDuration.
	MaxDuration time.Duration
	// MaxDepth is how deep a body may nest; 0 means wire.MaxDepth, which is
	// the most.
	MaxDepth int
	// CORS gives the setting in force; a nil func or setting allows no
	// other origin.
	CORS func() *CORS
	// Remote tells where a request comes from, for listeners behind a proxy
	// (see Proxies), or why it is refused. Nil takes the connection's far end.
	Remote func(*http.Request) (netip.AddrPort, error)
	// Headers are added to answers, as their status asks for.
	Headers []StatusHeaders
	// RequireHeader refuses requests without X-Vault-Request: true, which a
	// page that was tricked into calling us cannot send.
	RequireHeader bool
	// Open are paths that can be read without a token, and Guarded those that
	// need one even where others would not. One that ends in a slash stands
	// for all below it.
	Open, Guarded []string
	// Redact is left out of answers that need no token.
	Redact route.Redact
	// Done hears of each request that was answered. Nil: nobody does.
	Done func(req *core.Request, status int, took time.Duration)
	// Trace shows where the time of requests goes; nil: nobody asked.
	Trace *trace.Tracer
	// Other serves paths outside of /v1/; nil answers 404.
	Other http.Handler
}

// Defaults, which are Vault's.
const (
	DefaultMaxBody     = 32 << 20
	DefaultMaxDuration = 90 * time.Second
)

// Handler serves Vault's HTTP API.
type Handler struct {
	cfg Config
}

// New makes a handler.
func New(cfg Config) *Handler {
	if cfg.MaxBody == 0 {
		cfg.MaxBody = DefaultMaxBody
	}
	if cfg.MaxDuration == 0 {
		cfg.MaxDuration = DefaultMaxDuration
	}
	if cfg.MaxDepth == 0 {
		cfg.MaxDepth = wire.MaxDepth
	}
	if cfg.Remote == nil {
		cfg.Remote = func(r *http.Request) (netip.AddrPort, error) { return farEnd(r), nil }
	}
	return &Handler{cfg}
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(h.cfg.Headers) > 0 {
		sw := &statusWriter{ResponseWriter: w, headers: h.cfg.Headers}
		defer sw.begin(http.StatusOK) // an answer of which nothing was written
		w = sw
	}
	w.Header()["Cache-Control"] = noStore
	if h.cfg.CORS != nil && h.crossOrigin(w, r) {
		return
	}
	if !underAPI(r.URL.Path) {
		h.serveOther(w, r)
		return
	}
	if clean := cleanURL(r.URL); clean != "" {
		http.Redirect(w, r, clean, http.StatusTemporaryRedirect)
		return
	}
	begun := time.Now()
	tctx, span := h.cfg.Trace.Request(r.Context(), r.Method, r.Header)
	ctx := newDeadline(tctx, begun.Add(h.cfg.MaxDuration))
	defer ctx.release()
	in, err := h.parse(w, r)
	req := &in.Request
	req.Begun = begun
	var resp *core.Response
	if err == nil {
		resp = h.cfg.Core.Handle(ctx, req)
	} else {
		resp = h.cfg.Core.Refuse(ctx, req, err)
	}
	lent := resp.Lent // the answer is the caller's from its last byte on
	status := h.answer(w, r, req, resp)
	if lent != nil {
		lent.Release()
		in.recycle()
	}
	span.Text("leasehold.request_id", idOf(req))
	span.EndRequest(status)
	if h.cfg.Done != nil {
		h.cfg.Done(req, status, time.Since(begun))
	}
}

func (h *Handler) serveOther(w http.ResponseWriter, r *http.Request) {
	if h.cfg.Other != nil {
		h.cfg.Other.ServeHTTP(w, r)
		return
	}
	h.answer(w, r, nil, &core.Response{Err: errs.Gone})
}

func farEnd(r *http.Request) netip.AddrPort {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.AddrPort{} // a unix socket
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
