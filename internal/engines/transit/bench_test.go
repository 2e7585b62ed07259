package transit_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/bench/bare"
	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/cubbyhole"
	"github.com/leasehold/leasehold/internal/engines/identity"
	"github.com/leasehold/leasehold/internal/engines/transit"
	"github.com/leasehold/leasehold/internal/httpapi"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/token"
)

// What a request costs on its whole way from HTTP and back, by a token that
// has a policy, without the network and without an audit device.

// sender sends a server's handler requests that are ready.
type sender struct {
	h     http.Handler
	token string
}

type noRoutes struct{}

func (noRoutes) Routes(*route.Table) {}

func newSender(t testing.TB) *sender {
	t.Helper()
	nothing := func(context.Context, engine.Env) (engine.Engine, error) { return noRoutes{}, nil }
	c := core.New(core.Config{Store: mem.New(), Engines: map[string]engine.Factory{
		"secret/transit": transit.New, "secret/cubbyhole": cubbyhole.New, "secret/system": nothing, "auth/token": nothing,
		"secret/identity": identity.Factory(identity.Config{
			Mount: func(context.Context, string, string) (identity.Mount, bool, error) {
				return identity.Mount{}, false, nil
			},
		}),
	}})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in, err := c.Init(t.Context(), seal.Params{Shares: 1, Threshold: 1}, secret.String{})
	must(err)
	must(c.Unseal(t.Context(), in.Shares[0]))
	t.Cleanup(func() { c.Stop(time.Second) })
	must(c.AddMount(t.Context(), &core.Mount{Namespace: token.RootNamespace, Path: "transit/", Class: core.ClassSecret, Type: "transit"}))
	must(c.WritePolicy(t.Context(), core.ACLPolicy, token.RootNamespace, "app", `path "transit/*" { capabilities = ["create", "read", "update"] }`))
	tok, err := c.CreateToken(t.Context(), &token.Entry{Policies: []string{"app"}, Expires: time.Now().Add(time.Hour), TTL: time.Hour}, secret.String{})
	must(err)
	return &sender{httpapi.New(httpapi.Config{Core: c}), tok.Text.Reveal()}
}

// ask sends one request and gives the data of its answer.
func (s *sender) ask(t testing.TB, path, body string) map[string]any {
	t.Helper()
	w := httptest.NewRecorder()
	s.h.ServeHTTP(w, s.request(path, "", body))
	var out struct{ Data map[string]any }
	if err := json.Unmarshal(w.Body.Bytes(), &out); w.Code != 200 || err != nil {
		t.Fatalf("%s = %d %s, %v", path, w.Code, w.Body, err)
	}
	return out.Data
}

func (s *sender) request(path, kind, body string) *http.Request {
	r := httptest.NewRequest("POST", "/v1/transit/"+path, strings.NewReader(body))
	r.Header.Set("X-Vault-Token", s.token)
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	return r
}

// again is a request that is sent over and over: only its body is new.
type again struct {
	http.Handler
	r    *http.Request
	body *strings.Reader
	text string
	w    discarding
}

type discarding struct {
	head   http.Header
	status int
}

func (d *discarding) Header() http.Header         { return d.head }
func (d *discarding) Write(b []byte) (int, error) { return len(b), nil }
func (d *discarding) WriteHeader(status int)      { d.status = status }

func newAgain(h http.Handler, r *http.Request, text string) *again {
	a := &again{Handler: h, r: r, body: strings.NewReader(text), text: text, w: discarding{head: http.Header{}}}
	a.r.Body = io.NopCloser(a.body)
	return a
}

func (a *again) do() {
	a.body.Reset(a.text)
	clear(a.w.head)
	a.ServeHTTP(&a.w, a.r)
}

type benchCase struct {
	name    string
	path    string
	kind    string                  // of the body
	body    func(of *sender) string // each server decrypts and verifies its own
	ceiling float64                 // allocations of a request; it falls, it never rises
	bare    bool                    // a bare handler is measured beside it
}

func benchCases(t testing.TB) []benchCase {
	text := base64.StdEncoding.EncodeToString
	small, large := strings.Repeat("x", 32), strings.Repeat("x", 4<<10)
	always := func(body string) func(*sender) string { return func(*sender) string { return body } }
	plain := func(p string) string { return `{"plaintext":"` + text([]byte(p)) + `"}` }
	sealed := func(p string) func(*sender) string {
		return func(s *sender) string {
			return `{"ciphertext":"` + s.ask(t, "encrypt/aes", plain(p))["ciphertext"].(string) + `"}`
		}
	}
	input := `{"input":"` + text([]byte(small)) + `"}`
	verify := func(s *sender) string {
		return `{"input":"` + text([]byte(small)) + `","signature":"` + s.ask(t, "sign/ed", input)["signature"].(string) + `"}`
	}
	batch := `{"batch_input":[` + strings.TrimSuffix(strings.Repeat(plain(small)+",", 100), ",") + `]}`
	const octets = "application/octet-stream"
	return []benchCase{
		{"encrypt 32 B", "encrypt/aes", "", always(plain(small)), 12, true},
		{"encrypt 4 KiB", "encrypt/aes", "", always(plain(large)), 13, true},
		{"decrypt 32 B", "decrypt/aes", "", sealed(small), 12, true},
		{"decrypt 4 KiB", "decrypt/aes", "", sealed(large), 13, true},
		{"hmac 32 B", "hmac/aes", "", always(input), 18, true},
		{"sign Ed25519", "sign/ed", "", always(input), 13, true},
		{"verify Ed25519", "verify/ed", "", verify, 13, true},
		{"batch of 100", "encrypt/aes", "", always(batch), 15, true},
		{"encrypt 4 KiB as bytes", "encrypt/aes", octets, always(large), 15, false},
	}
}

func (s *sender) hold(t testing.TB) {
	s.ask(t, "keys/aes", "")
	s.ask(t, "keys/ed", `{"type":"ed25519"}`)
}

func BenchmarkRequest(b *testing.B) {
	s := newSender(b)
	s.hold(b)
	h, err := bare.Transit()
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range benchCases(b) {
		run := func(name string, s *sender) {
			body := c.body(s)
			a := newAgain(s.h, s.request(c.path, c.kind, body), body)
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					a.do()
				}
				if a.w.status >= 300 {
					b.Fatalf("answered with %d", a.w.status)
				}
			})
		}
		run(c.name, s)
		if c.bare {
			run(c.name+", bare handler", &sender{h: h})
		}
	}
}
