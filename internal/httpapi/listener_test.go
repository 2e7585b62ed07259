package httpapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/httpapi"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// The settings of a listener.

func TestProxies(t *testing.T) {
	believed := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	tests := []struct {
		name    string
		p       httpapi.Proxies
		from    string
		header  []string
		want    string // the client, or
		refused string // a part of the sentence
	}{
		{"believed", httpapi.Proxies{}, "10.0.0.1:5", []string{"192.0.2.7"}, "192.0.2.7:5", ""},
		{"believed, over IPv6", httpapi.Proxies{}, "[fd00::1]:5", []string{"2001:db8::7"}, "[2001:db8::7]:5", ""},
		{"mapped", httpapi.Proxies{}, "[::ffff:10.0.0.1]:5", []string{"::ffff:192.0.2.7"}, "192.0.2.7:5", ""},
		{"with a port", httpapi.Proxies{}, "10.0.0.1:5", []string{"192.0.2.7:99"}, "192.0.2.7:99", ""},
		{"with brackets", httpapi.Proxies{}, "10.0.0.1:5", []string{"[2001:db8::7]"}, "[2001:db8::7]:5", ""},
		{"the last hop counts", httpapi.Proxies{}, "10.0.0.1:5", []string{"1.1.1.1, 2.2.2.2", "3.3.3.3 "}, "3.3.3.3:5", ""},
		{"skipping", httpapi.Proxies{HopSkips: 2}, "10.0.0.1:5", []string{"1.1.1.1, 2.2.2.2", "3.3.3.3"}, "1.1.1.1:5", ""},
		{"skipping too many", httpapi.Proxies{HopSkips: 3}, "10.0.0.1:5", []string{"1.1.1.1,2.2.2.2,3.3.3.3"}, "", "names 3 hops"},
		{"nonsense", httpapi.Proxies{}, "10.0.0.1:5", []string{"1.1.1.1, unknown"}, "", "no address"},
		{"empty", httpapi.Proxies{}, "10.0.0.1:5", []string{""}, "", "no address"},
		{"no header", httpapi.Proxies{}, "10.0.0.1:5", nil, "", "missing X-Forwarded-For"},
		{"no header, kept", httpapi.Proxies{KeepHeadless: true}, "10.0.0.1:5", nil, "10.0.0.1:5", ""},
		{"a stranger", httpapi.Proxies{}, "192.0.2.1:5", []string{"1.1.1.1"}, "", "not authorized"},
		{"a stranger, kept", httpapi.Proxies{KeepOthers: true}, "192.0.2.1:5", []string{"1.1.1.1"}, "192.0.2.1:5", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.p.Believed = believed
			r := httptest.NewRequest("GET", "/v1/x", nil)
			r.RemoteAddr, r.Header["X-Forwarded-For"] = tt.from, tt.header
			if tt.header == nil {
				delete(r.Header, "X-Forwarded-For")
			}
			got, err := tt.p.Remote(r)
			if tt.refused != "" {
				if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), tt.refused) {
					t.Errorf("Remote = %v, %v, want a refusal: %q", got, err, tt.refused)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Errorf("Remote = %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestRefusedByTheListener(t *testing.T) {
	var why error
	s := start(t, refusing{echo, &why}, func(c *httpapi.Config) {
		c.Remote, c.RequireHeader = httpapi.Proxies{KeepHeadless: true}.Remote, true
	})
	for _, tt := range []struct {
		header []string
		status int
	}{
		{nil, 412},
		{[]string{"X-Vault-Request", "yes"}, 412},
		{[]string{"X-Vault-Request", "true"}, 200},
		{[]string{"X-Vault-Request", "true", "X-Forwarded-For", "1.2.3.4"}, 400},
	} {
		why = nil
		if a := do(t, s, "GET", "/v1/x", "", tt.header...); a.status != tt.status || (why != nil) != (tt.status != 200) {
			t.Errorf("with %v: status %d, refused because of %v, want %d", tt.header, a.status, why, tt.status)
		}
	}
}

// refusing notes why requests were refused.
type refusing struct {
	coreFunc
	why *error
}

func (r refusing) Refuse(ctx context.Context, req *core.Request, why error) *core.Response {
	*r.why = why
	return r.coreFunc.Refuse(ctx, req, why)
}

// TestRefusedRequestsAreToldOf: whatever is wrong with a request, what could be
// understood of it reaches the record.
func TestRefusedRequestsAreToldOf(t *testing.T) {
	for _, tt := range []struct{ method, target, body, path string }{
		{"POST", "/v1/kv/a", `{"a":`, "kv/a"},
		{"GET", "/v1/kv/%2e%2e/x", "", "kv/../x"},
		{"GET", "/v1/kv/a%0ab", "", "kv/a\nb"},
		{"SCAN", "/v1/kv", "", "kv"},
		{"GET", "/v1/kv?a=%zz", "", "kv"},
	} {
		var got *core.Request
		s := start(t, told{echo, &got})
		do(t, s, tt.method, tt.target, tt.body, "X-Vault-Token", "t")
		if got == nil || got.Path != tt.path || got.Token.Reveal() != "t" || len(got.ID) != 36 || got.Body != nil || !got.Remote.IsValid() {
			t.Errorf("%s %s is told of as %+v, want the path %q", tt.method, tt.target, got, tt.path)
		}
	}
}

type told struct {
	coreFunc
	req **core.Request
}

func (r told) Refuse(_ context.Context, req *core.Request, why error) *core.Response {
	*r.req = req
	return &core.Response{Err: why}
}

func TestAccess(t *testing.T) {
	s := start(t, coreFunc(func(_ context.Context, req *core.Request) *core.Response {
		return &core.Response{Data: wire.OfAny(map[string]string{"seen": [...]string{"by endpoint", "open", "guarded"}[req.Access]})}
	}), func(c *httpapi.Config) {
		c.Open, c.Guarded = []string{"sys/metrics", "sys/pprof/"}, []string{"sys/rekey/"}
	})
	for _, tt := range []struct{ method, path, namespace, want string }{
		{"GET", "sys/metrics", "", "open"},
		{"GET", "sys/metrics?format=prometheus", "", "open"},
		{"POST", "sys/metrics", "", "by endpoint"},
		{"GET", "sys/metrics/x", "", "by endpoint"},
		{"GET", "sys/metrics", "team", "by endpoint"},
		{"GET", "sys/pprof/heap", "", "open"},
		{"GET", "sys/pprof", "", "by endpoint"},
		{"GET", "sys/rekey/init", "", "guarded"},
		{"DELETE", "sys/rekey/init", "", "guarded"},
		{"GET", "kv/sys/metrics", "", "by endpoint"},
	} {
		if got := do(t, s, tt.method, "/v1/"+tt.path, "", "X-Vault-Namespace", tt.namespace).seen(t); got != tt.want {
			t.Errorf("%s %s is %q, want %q", tt.method, tt.path, got, tt.want)
		}
	}
}

func TestStatusHeaders(t *testing.T) {
	answer := core.Response{}
	s := start(t, coreFunc(func(context.Context, *core.Request) *core.Response { return &answer }), func(c *httpapi.Config) {
		c.Headers = []httpapi.StatusHeaders{
			{Status: "404", Header: http.Header{"X-Why": {"not there"}}},
			{Status: "default", Header: http.Header{"X-Why": {"none"}, "X-All": {"1"}}},
			{Status: "4xx", Header: http.Header{"X-Why": {"yours"}}},
		}
	})
	for _, tt := range []struct {
		resp core.Response
		why  string
	}{
		{core.Response{}, "none"},
		{core.Response{Data: wire.Of("x")}, "none"},
		{core.Response{Data: wire.Of(strings.Repeat("x", 100_000))}, "none"},
		{core.Response{Raw: &route.Raw{Status: 200}}, "none"},
		{core.Response{Err: errs.New(errs.Denied, "no")}, "yours"},
		{core.Response{Err: errs.Gone}, "not there"},
	} {
		answer = tt.resp
		a := do(t, s, "GET", "/v1/x", "")
		if a.header.Get("X-Why") != tt.why || a.header.Get("X-All") != "1" {
			t.Errorf("an answer of %d has X-Why %q and X-All %q, want %q and 1", a.status, a.header.Get("X-Why"), a.header.Get("X-All"), tt.why)
		}
	}
	if a := do(t, s, "GET", "/other", ""); a.header.Get("X-Why") != "not there" {
		t.Errorf("outside of the API: X-Why %q, want that of 404", a.header.Get("X-Why"))
	}
}

func TestMaxDepth(t *testing.T) {
	s := start(t, echo, func(c *httpapi.Config) { c.MaxDepth = 3 })
	for body, want := range map[string]int{`{"a":{"b":[1]}}`: 200, `{"a":{"b":[[1]]}}`: 400} {
		if a := do(t, s, "POST", "/v1/x", body); a.status != want {
			t.Errorf("POST %s = %d %s, want %d", body, a.status, a.body, want)
		}
	}
}

func TestDone(t *testing.T) {
	type line struct {
		op, path string
		status   int
	}
	var got line
	s := start(t, echo, func(c *httpapi.Config) {
		c.Done = func(req *core.Request, status int, took time.Duration) {
			got = line{req.Op.String(), req.Path, status}
			if took <= 0 {
				t.Errorf("a request took %v", took)
			}
		}
	})
	for _, tt := range []struct {
		method, target, body string
		want                 line
	}{
		{"GET", "/v1/a/b", "", line{"read", "a/b", 200}},
		{"LIST", "/v1/a", "", line{"list", "a/", 200}},
		{"POST", "/v1/a", "{", line{"update", "a", 400}},
		{"SCAN", "/v1/a", "", line{"none", "a", 405}},
	} {
		do(t, s, tt.method, tt.target, tt.body)
		if got != tt.want {
			t.Errorf("%s %s is done as %v, want %v", tt.method, tt.target, got, tt.want)
		}
	}
}
