package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/httpapi"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// coreFunc is a core that answers as a test wants it.
type coreFunc func(ctx context.Context, req *core.Request) *core.Response

func (f coreFunc) Handle(ctx context.Context, req *core.Request) *core.Response { return f(ctx, req) }

func (f coreFunc) Refuse(_ context.Context, _ *core.Request, why error) *core.Response {
	return &core.Response{Err: why}
}

// seen is a request as core met it, in words.
func seen(req *core.Request) string {
	s := req.Op.String() + " " + req.Path
	if len(req.Query) > 0 {
		s += "?" + req.Query.Encode()
	}
	if req.Body != nil {
		s += " " + string(req.Body)
	}
	return s
}

// echo answers with what core met.
var echo = coreFunc(func(_ context.Context, req *core.Request) *core.Response {
	return &core.Response{Data: wire.OfAny(map[string]string{"seen": seen(req)})}
})

var quiet = slog.New(slog.DiscardHandler)

func start(t testing.TB, c httpapi.Core, change ...func(*httpapi.Config)) *httptest.Server {
	t.Helper()
	cfg := httpapi.Config{Core: c}
	for _, f := range change {
		f(&cfg)
	}
	s := httptest.NewUnstartedServer(nil)
	s.Config = httpapi.NewServer(httpapi.New(cfg), httpapi.Limits{}, quiet)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// answer is what came back, read.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) field(t *testing.T, name string) any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("the body %q is not JSON: %v", a.body, err)
	}
	return m[name]
}

func (a answer) seen(t *testing.T) string {
	t.Helper()
	data, _ := a.field(t, "data").(map[string]any)
	s, _ := data["seen"].(string)
	return s
}

// do sends a request whose target is written as it goes over the line.
func do(t *testing.T, s *httptest.Server, method, target, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequest(method, s.URL, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	path, query, _ := strings.Cut(target, "?")
	req.URL.Opaque = "//" + strings.TrimPrefix(s.URL, "http://") + path
	req.URL.RawQuery = query
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func TestRequests(t *testing.T) {
	s := start(t, echo)
	const form = "application/x-www-form-urlencoded"
	tests := []struct {
		name, method, target, body, contentType string
		status                                  int
		seen                                    string
	}{
		{"read", "GET", "/v1/kv/a", "", "", 200, "read kv/a"},
		{"a body on GET is ignored", "GET", "/v1/kv/a", `{"x":`, "", 200, "read kv/a"},
		{"list", "LIST", "/v1/kv/a", "", "", 200, "list kv/a/"},
		{"list with slash", "LIST", "/v1/kv/a/", "", "", 200, "list kv/a/"},
		{"list by query", "GET", "/v1/kv?list=1", "", "", 200, "list kv/"},
		{"no list by query", "GET", "/v1/kv?list=banana&x=y", "", "", 200, "read kv?list=banana&x=y"},
		{"help", "GET", "/v1/kv?help=1", "", "", 200, "help kv"},
		{"write", "PUT", "/v1/kv/a", ` {"a":1} `, "text/plain", 200, `update kv/a {"a":1} `},
		{"write without body", "POST", "/v1/kv/a", "", "", 200, "update kv/a"},
		{"write of white space", "POST", "/v1/kv/a", " \n ", "", 200, "update kv/a"},
		{"form", "POST", "/v1/kv/a", "a=1&b=two&b=3", form, 200, `update kv/a {"a":"1","b":["two","3"]}`},
		{"JSON under a form's content type", "POST", "/v1/kv/a", `{"a":1}`, form, 200, `update kv/a {"a":1}`},
		{"delete", "DELETE", "/v1/kv/a?versions=2", "", "", 200, "delete kv/a?versions=2"},
		{"patch", "PATCH", "/v1/kv/a", `{"a":null}`, "application/merge-patch+json", 200, `patch kv/a {"a":null}`},
		{"patch with a charset", "PATCH", "/v1/kv/a", `{}`, "application/merge-patch+json; charset=utf-8", 200, `patch kv/a {}`},
		{"patch without type", "PATCH", "/v1/kv/a", `{}`, "", 400, ""},
		{"patch of another type", "PATCH", "/v1/kv/a", `{}`, "application/json", 415, ""},
		{"odd names", "GET", "/v1/kv/na%20me%2Bplus%25", "", "", 200, "read kv/na me+plus%"},
		{"unicode", "GET", "/v1/kv/%D0%BA%F0%9F%94%91", "", "", 200, "read kv/к🔑"},
		{"the API's own root", "GET", "/v1/", "", "", 200, "read "},
		{"relative", "GET", "/v1/kv/%2e%2e/x", "", "", 400, ""},
		{"relative, plain", "GET", "/v1/kv/../x", "", "", 400, ""},
		{"dot", "GET", "/v1/kv/./x", "", "", 400, ""},
		{"encoded slash", "GET", "/v1/kv/a%2fb", "", "", 400, ""},
		{"encoded slash, upper case", "GET", "/v1/kv/a%2Fb", "", "", 400, ""},
		{"zero byte", "POST", "/v1/kv/a%00b", "", "", 400, ""},
		{"line feed", "GET", "/v1/kv/a%0ab", "", "", 400, ""},
		{"not UTF-8", "GET", "/v1/kv/%ff", "", "", 400, ""},
		{"bad query", "GET", "/v1/kv?a=%zz", "", "", 400, ""},
		{"other method", "SCAN", "/v1/kv", "", "", 405, ""},
		{"outside", "GET", "/v2/kv", "", "", 404, ""},
		{"outside, near", "GET", "/v1", "", "", 404, ""},
		{"broken JSON", "POST", "/v1/kv", `{"a":`, "", 400, ""},
		{"a list", "POST", "/v1/kv", `["a"]`, "", 400, ""},
		{"a string", "POST", "/v1/kv", `"a"`, "", 400, ""},
		{"garbage behind", "POST", "/v1/kv", `{}{}`, "", 400, ""},
		{"too deep", "POST", "/v1/kv", strings.Repeat(`{"a":`, 400) + "1" + strings.Repeat("}", 400), "", 400, ""},
		{"not UTF-8 in the body", "POST", "/v1/kv", "{\"a\":\"\xff\"}", "", 400, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var header []string
			if tt.contentType != "" {
				header = []string{"Content-Type", tt.contentType}
			}
			a := do(t, s, tt.method, tt.target, tt.body, header...)
			if a.status != tt.status {
				t.Fatalf("%s %s = %d %s, want %d", tt.method, tt.target, a.status, a.body, tt.status)
			}
			if got := a.header.Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type = %q", got)
			}
			if got := a.header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control = %q", got)
			}
			if tt.status != 200 {
				if _, ok := a.field(t, "errors").([]any); !ok {
					t.Errorf("%s %s answers %s, want errors", tt.method, tt.target, a.body)
				}
				return
			}
			if got := a.seen(t); got != tt.seen {
				t.Errorf("%s %s reaches core as %q, want %q", tt.method, tt.target, got, tt.seen)
			}
		})
	}
}

func TestDoubleSlash(t *testing.T) {
	a := do(t, start(t, echo), "GET", "/v1/kv//app///one?x=1", "")
	if got := a.header.Get("Location"); a.status != 307 || got != "/v1/kv/app/one?x=1" {
		t.Errorf("GET = %d to %q, want 307 to the clean path", a.status, got)
	}
}

func TestHeaders(t *testing.T) {
	var got core.Request
	s := start(t, coreFunc(func(_ context.Context, req *core.Request) *core.Response {
		got = *req
		return &core.Response{}
	}))
	a := do(t, s, "GET", "/v1/x", "", "X-Vault-Token", "t", "X-Vault-Namespace", "/team/a/",
		"X-Vault-Wrap-TTL", "5m", "X-Vault-Wrap-Format", "JWT", "X-Vault-Policy-Override", "true")
	if a.status != 204 || a.body != "" {
		t.Errorf("an empty answer is %d %q, want 204", a.status, a.body)
	}
	if got.Token.Reveal() != "t" || got.Namespace != "team/a" || got.WrapTTL != 5*time.Minute || got.WrapFormat != "jwt" || !got.PolicyOverride {
		t.Errorf("core met %+v", got)
	}
	if !got.Remote.Addr().IsLoopback() || len(got.ID) != 36 || got.ID[14] != '4' {
		t.Errorf("remote %v, id %q", got.Remote, got.ID)
	}
	for sent, want := range map[string]string{"Bearer abc": "abc", "bearer  abc": "abc", "Basic abc": "", "": ""} {
		do(t, s, "GET", "/v1/x", "", "Authorization", sent)
		if got.Token.Reveal() != want {
			t.Errorf("Authorization %q gives the token %q, want %q", sent, got.Token.Reveal(), want)
		}
	}
	for sent, want := range map[string]string{"root": "", "/": "", "": "", "a": "a"} {
		do(t, s, "GET", "/v1/x", "", "X-Vault-Namespace", sent)
		if got.Namespace != want {
			t.Errorf("namespace %q reads as %q, want %q", sent, got.Namespace, want)
		}
	}
	for sent, want := range map[string]time.Duration{"60": time.Minute, `"60s"`: time.Minute, "0": 0} {
		do(t, s, "GET", "/v1/x", "", "X-Vault-Wrap-TTL", sent)
		if got.WrapTTL != want {
			t.Errorf("X-Vault-Wrap-TTL %q reads as %v, want %v", sent, got.WrapTTL, want)
		}
	}
	for _, bad := range []string{"soon", "-1", "-5m"} {
		if a := do(t, s, "GET", "/v1/x", "", "X-Vault-Wrap-TTL", bad); a.status != 400 {
			t.Errorf("X-Vault-Wrap-TTL %q is answered %d, want 400", bad, a.status)
		}
	}
}

func TestAnswers(t *testing.T) {
	type d struct {
		A    string        `json:"a"`
		Auth string        `json:"auth,omitempty"`
		Pw   secret.String `json:"pw,omitempty"`
	}
	tests := []struct {
		name   string
		resp   core.Response
		status int
		body   string
	}{
		{"data", core.Response{Data: wire.Of(d{A: "<&>", Pw: secret.New("s")}), LeaseID: "db/x", LeaseTTL: time.Hour, Renewable: true, MountType: "kv"}, 200,
			`{"request_id":"ID","lease_id":"db/x","renewable":true,"lease_duration":3600,"data":{"a":"<&>","pw":"s"},"wrap_info":null,"warnings":null,"auth":null,"mount_type":"kv"}`},
		{"warnings only", core.Response{Warnings: []string{"w1", "w2"}}, 200,
			`{"request_id":"ID","lease_id":"","renewable":false,"lease_duration":0,"data":null,"wrap_info":null,"warnings":["w1","w2"],"auth":null,"mount_type":""}`},
		{"status", core.Response{Status: 202, Warnings: []string{"w"}}, 202,
			`{"request_id":"ID","lease_id":"","renewable":false,"lease_duration":0,"data":null,"wrap_info":null,"warnings":["w"],"auth":null,"mount_type":""}`},
		{"top level", core.Response{Form: route.TopLevel, Data: wire.Of(d{A: "x", Auth: "mine"})}, 200,
			`{"request_id":"ID","lease_id":"","renewable":false,"lease_duration":0,"data":{"a":"x","auth":"mine"},"wrap_info":null,"warnings":null,"auth":null,"mount_type":"","a":"x"}`},
		{"bare", core.Response{Form: route.Bare, Status: 503, Data: wire.Of(d{A: "x"})}, 503, `{"a":"x"}`},
		{"auth", core.Response{Auth: wire.Of(route.TokenReply{ClientToken: secret.New("hvs.x"), TokenType: "service"})}, 200,
			`{"request_id":"ID","lease_id":"","renewable":false,"lease_duration":0,"data":null,"wrap_info":null,"warnings":null,"auth":{"client_token":"hvs.x","accessor":"","policies":[],"token_policies":[],"metadata":null,"lease_duration":0,"renewable":false,"entity_id":"","token_type":"service","orphan":false,"mfa_requirement":null,"num_uses":0},"mount_type":""}`},
		{"wrapped", core.Response{LeaseID: "x", LeaseTTL: time.Hour, Data: wire.Of(d{A: "hidden"}), Wrap: &core.WrapInfo{Token: secret.New("hvs.w"), TTL: wire.TTL(time.Minute),
			CreationTime: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), CreationPath: "kv/a"}}, 200,
			`{"request_id":"","lease_id":"","renewable":false,"lease_duration":0,"data":null,"wrap_info":{"token":"hvs.w","accessor":"","ttl":60,"creation_time":"2026-01-02T03:04:05.000000006Z","creation_path":"kv/a"},"warnings":null,"auth":null,"mount_type":""}`},
		{"not found", core.Response{Err: errs.Gone}, 404, `{"errors":[]}`},
		{"denied", core.Response{Err: errs.New(errs.Denied, "permission denied"), Data: wire.Of(d{A: "hidden"})}, 403, `{"errors":["permission denied"]}`},
		{"internal", core.Response{Err: errors.New("the disk said no")}, 500, `{"errors":["internal error; the server's log has the cause"]}`},
		{"cause kept back", core.Response{Err: errs.Wrap(errs.Invalid, errors.New("inner"), "outer")}, 400, `{"errors":["outer"]}`},
		{"sealed", core.Response{Err: errs.New(errs.Unavailable, "sealed")}, 503, `{"errors":["sealed"]}`},
		{"error with data", core.Response{Err: &errs.Error{Kind: errs.NotFound, Data: wire.Value("null")}, Warnings: []string{"w"}}, 404,
			`{"request_id":"ID","lease_id":"","renewable":false,"lease_duration":0,"data":null,"wrap_info":null,"warnings":["w"],"auth":null,"mount_type":""}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, coreFunc(func(_ context.Context, req *core.Request) *core.Response {
				req.ID = "ID"
				return &tt.resp
			}))
			a := do(t, s, "GET", "/v1/x", "")
			if d := cmp.Diff(tt.body+"\n", a.body); a.status != tt.status || d != "" {
				t.Errorf("status %d, want %d; body (-want +got):\n%s", a.status, tt.status, d)
			}
		})
	}
}

func TestRaw(t *testing.T) {
	raw := &route.Raw{ContentType: "application/pkix-crl", Body: []byte{0x30, 0}, Header: http.Header{"X-A": {"b"}}}
	s := start(t, coreFunc(func(context.Context, *core.Request) *core.Response { return &core.Response{Raw: raw} }))
	a := do(t, s, "GET", "/v1/x", "")
	if a.status != 200 || a.body != "0\x00" || a.header.Get("Content-Type") != "application/pkix-crl" || a.header.Get("X-A") != "b" {
		t.Errorf("GET = %+v", a)
	}
}

func TestLargeAnswer(t *testing.T) {
	want := strings.Repeat("x", 300<<10)
	s := start(t, coreFunc(func(context.Context, *core.Request) *core.Response {
		return &core.Response{Form: route.Bare, Data: wire.Of(want)}
	}))
	a := do(t, s, "GET", "/v1/x", "")
	if got := a.header.Get("Content-Length"); a.body != `"`+want+"\"\n" || got != fmt.Sprint(len(want)+3) {
		t.Errorf("an answer of %d bytes came as %d, Content-Length %q", len(want)+3, len(a.body), got)
	}
}

func TestBodyLimit(t *testing.T) {
	reached := false
	s := start(t, coreFunc(func(context.Context, *core.Request) *core.Response {
		reached = true
		return &core.Response{}
	}), func(c *httpapi.Config) { c.MaxBody = 1 << 20 })
	fits := `{"a":"` + strings.Repeat("x", 1<<20-8) + `"}`
	for _, chunked := range []bool{false, true} {
		for body, want := range map[string]int{fits: 204, fits + " ": 413} {
			reached = false
			var from io.Reader = strings.NewReader(body)
			if chunked {
				from = io.MultiReader(from) // hides the length
			}
			resp, err := http.Post(s.URL+"/v1/x", "", from)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want || reached != (want == 204) {
				t.Errorf("a body of %d bytes (chunked: %v) is answered %d, want %d; core met it: %v", len(body), chunked, resp.StatusCode, want, reached)
			}
		}
	}
}

func TestCORS(t *testing.T) {
	conf := &httpapi.CORS{Origins: []string{"https://a.example"}, Headers: []string{"X-Mine"}}
	s := start(t, echo, func(c *httpapi.Config) { c.CORS = func() *httpapi.CORS { return conf } })
	if a := do(t, s, "GET", "/v1/x", ""); a.status != 200 || a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("without an origin: %+v", a)
	}
	if a := do(t, s, "GET", "/v1/x", "", "Origin", "https://b.example"); a.status != 403 {
		t.Errorf("another origin is answered %d, want 403", a.status)
	}
	if a := do(t, s, "GET", "/v1/x", "", "Origin", "https://a.example"); a.status != 200 || a.header.Get("Access-Control-Allow-Origin") != "https://a.example" {
		t.Errorf("the allowed origin: %+v", a)
	}
	a := do(t, s, "OPTIONS", "/v1/x", "", "Origin", "https://a.example", "Access-Control-Request-Method", "PUT")
	if a.status != 200 || a.header.Get("Access-Control-Allow-Headers") != "X-Mine" {
		t.Errorf("pre-flight: %+v", a)
	}
	if a := do(t, s, "OPTIONS", "/v1/x", "", "Origin", "https://a.example", "Access-Control-Request-Method", "TRACE"); a.status != 405 {
		t.Errorf("pre-flight of TRACE is answered %d, want 405", a.status)
	}
	conf = nil
	if a := do(t, s, "GET", "/v1/x", "", "Origin", "https://b.example"); a.status != 200 {
		t.Errorf("with CORS off: %d, want 200", a.status)
	}
}

func TestSent(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		outcome := make(chan bool, 2)
		handling, go_on := make(chan bool), make(chan bool)
		s := start(t, coreFunc(func(ctx context.Context, req *core.Request) *core.Response {
			close(handling)
			<-go_on
			if leaves {
				<-ctx.Done() // the listener has noticed
				if !req.Gone() {
					t.Error("Gone = false after the client hung up")
				}
			}
			return &core.Response{Data: wire.Of("x"), Sent: func(begun bool) { outcome <- begun }}
		}))
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
		<-handling
		if leaves {
			conn.Close()
		}
		close(go_on)
		if got := <-outcome; got == leaves {
			t.Errorf("the client left: %v; Sent(%v)", leaves, got)
		}
		if !leaves {
			if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 200 {
				t.Errorf("the answer is %v, %v", resp, err)
			}
			conn.Close()
		}
	}
}

func TestDeadline(t *testing.T) {
	s := start(t, coreFunc(func(ctx context.Context, _ *core.Request) *core.Response {
		child, cancel := context.WithCancel(ctx)
		defer cancel()
		<-child.Done()
		if !errors.Is(child.Err(), context.DeadlineExceeded) || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("Err = %v of the request, %v of its child, want DeadlineExceeded", ctx.Err(), child.Err())
		}
		return &core.Response{}
	}), func(c *httpapi.Config) { c.MaxDuration = time.Millisecond })
	do(t, s, "GET", "/v1/x", "")
}

func TestOtherPaths(t *testing.T) {
	s := start(t, echo, func(c *httpapi.Config) {
		c.Other = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ui "+r.URL.Path) })
	})
	if a := do(t, s, "GET", "/ui/", ""); a.body != "ui /ui/" {
		t.Errorf("GET /ui/ = %+v", a)
	}
}

func TestHead(t *testing.T) {
	a := do(t, start(t, echo), http.MethodHead, "/v1/sys/health", "")
	if a.status != 200 || a.body != "" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("HEAD = %+v", a)
	}
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/v1/a/b", "/v1/a%2fb", "/v1//a", "/v1/%2e%2e/", "/v1/a?list=true&x=%zz", "/v1/\xff", "/v1/a;b", "//v1/x"} {
		f.Add(s, "GET", "{}")
		f.Add(s, "POST", `{"a":1}`)
	}
	h := httpapi.New(httpapi.Config{Core: coreFunc(func(_ context.Context, req *core.Request) *core.Response {
		if strings.Contains(req.Path, "//") || strings.Contains(req.Path, "..") || strings.ContainsAny(req.Path, "\x00\n\r") {
			panic("core met the path " + req.Path)
		}
		if req.Body != nil && wire.Check(req.Body) != nil {
			panic("core met the body " + string(req.Body))
		}
		return echo(nil, req)
	})})
	f.Fuzz(func(t *testing.T, target, method, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return // Go's server answers such a line by itself
		}
		r := httptest.NewRequest("GET", "/", strings.NewReader(body))
		r.URL, r.Method = u, method
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if ct := w.Header().Get("Content-Type"); ct == "application/json" && w.Code != 204 && wire.Check(w.Body.Bytes()) != nil {
			t.Errorf("%s %q answers %d %q, which is not JSON", method, target, w.Code, w.Body)
		}
	})
}
