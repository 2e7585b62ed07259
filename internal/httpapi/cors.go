package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/errs"
)

// CORS says which pages of other origins may use the API.
type CORS struct {
	Origins     []string // "*" is any
	Headers     []string // that a page may send
	Credentials bool
}

var corsMethods = []string{"DELETE", "GET", "OPTIONS", "POST", "PUT", "PATCH", "LIST"}

// crossOrigin answers pre-flight requests and refuses foreign origins. It
// reports whether the request is answered.
func (h *Handler) crossOrigin(w http.ResponseWriter, r *http.Request) bool {
	conf := h.cfg.CORS()
	origin := one(r.Header, "Origin")
	if conf == nil || origin == "" {
		return false
	}
	if !slices.Contains(conf.Origins, "*") && !slices.Contains(conf.Origins, origin) {
		h.answer(w, r, nil, &core.Response{Err: errs.New(errs.Denied, "origin not allowed")})
		return true
	}
	preflight := r.Method == http.MethodOptions
	if preflight && !slices.Contains(corsMethods, one(r.Header, "Access-Control-Request-Method")) {
		h.answer(w, r, nil, &core.Response{Err: errs.New(errs.Unsupported, "")})
		return true
	}
	head := w.Header()
	head.Set("Access-Control-Allow-Origin", origin)
	head.Set("Vary", "Origin")
	if conf.Credentials {
		head.Set("Access-Control-Allow-Credentials", "true")
	}
	if !preflight {
		return false
	}
	head.Set("Access-Control-Allow-Methods", strings.Join(corsMethods, ","))
	head.Set("Access-Control-Allow-Headers", strings.Join(conf.Headers, ","))
	head.Set("Access-Control-Max-Age", "300")
	w.WriteHeader(http.StatusOK)
	return true
}
