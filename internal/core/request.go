package core

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// Request is what a client asks, as the listener understood it. It is used by
// one goroutine and does not outlive the answer.
type Request struct {
	ID     string
	Begun  time.Time // when it came; zero is now
	Op     wire.Op   // OpUpdate for POST and PUT; OpHelp for ?help=1
	Method string    // as it was sent, for logs
	// Path is canonical and without /v1/: decoded once, without "..", empty
	// segments or control bytes. Of a LIST it is empty or ends in "/".
	// Policy, routes, audit and store all use this text.
	Path           string
	Namespace      string        // X-Vault-Namespace without outer slashes; "" for the root. Handle adds what the path names
	Token          secret.String // X-Vault-Token or the bearer; zero without
	WrapTTL        time.Duration // 0: no wrapping asked for
	WrapFormat     string        // "jwt" or ""
	PolicyOverride bool
	Query          url.Values // nil without a query; "list" and "help" are taken out
	Body           []byte     // one checked JSON object; nil without a body
	// Octets is the body of a request that says it is bytes, and JSON makes
	// a Body of it for an endpoint that takes none. Body is nil then.
	Octets []byte
	JSON   func([]byte) ([]byte, error)
	Header http.Header
	Remote netip.AddrPort
	TLS    *tls.ConnectionState // nil on a plain connection
	// Gone reports whether the client is known to have hung up.
	Gone func() bool

	// What the listener that the request came through has decided.
	Access Access
	Redact route.Redact
}

// Access is what a listener says about the token of a request.
type Access uint8

// The kinds of access.
const (
	ByEndpoint Access = iota // the endpoint knows whether it needs a token
	Open                     // none is needed, and one that came is not looked at
	Guarded                  // one is needed, whatever the endpoint says
)

// Response is what the client is to be told.
type Response struct {
	// Err, when set, is the answer: its kind gives the status, its message
	// the text, and its Data, if any, an envelope instead of the text.
	// Warnings go into that envelope; the fields below are then ignored.
	Err      error
	Warnings []string

	Status    int // 0: 200, or 204 with nothing to say
	Form      route.Form
	Data      wire.Data // nil: null
	Auth      wire.Data // nil: null
	Wrap      *WrapInfo // the answer was wrapped: nothing else of it is shown
	LeaseID   string
	LeaseTTL  time.Duration
	Renewable bool
	MountType string
	Raw       *route.Raw  // no envelope at all
	Header    http.Header // what the mount lets through

	// Sent, when set, is called exactly once: with true just before the
	// first byte of the answer, after the client was asked a last time
	// whether it is there, or with false when nothing is sent.
	Sent func(begun bool)
	// Lent, when set, is released once the answer was written; the memory of
	// the request's body is free then too. See route.Request.Lend.
	Lent route.Lent
}

// WrapInfo stands in the envelope in place of a wrapped answer.
type WrapInfo = route.WrapInfo
