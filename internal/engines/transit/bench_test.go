package transit_test

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

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
	kind    string // of the body
	body    string
	ceiling float64 // allocations of a request; it falls, it never rises
	bare    http.Handler
}

func benchCases(t testing.TB, s *sender) []benchCase {
	s.ask(t, "keys/aes", "")
	s.ask(t, "keys/ed", `{"type":"ed25519"}`)
	text := base64.StdEncoding.EncodeToString
	small, large := strings.Repeat("x", 32), strings.Repeat("x", 4<<10)
	plain := func(p string) string { return `{"plaintext":"` + text([]byte(p)) + `"}` }
	sealed := func(p string) string {
		return `{"ciphertext":"` + s.ask(t, "encrypt/aes", plain(p))["ciphertext"].(string) + `"}`
	}
	input := `{"input":"` + text([]byte(small)) + `"}`
	verify := `{"input":"` + text([]byte(small)) + `","signature":"` + s.ask(t, "sign/ed", input)["signature"].(string) + `"}`
	batch := `{"batch_input":[` + strings.TrimSuffix(strings.Repeat(plain(small)+",", 100), ",") + `]}`
	b := newBare(t)
	const octets = "application/octet-stream"
	return []benchCase{
		{"encrypt 32 B", "encrypt/aes", "", plain(small), 16, b.encrypt()},
		{"encrypt 4 KiB", "encrypt/aes", "", plain(large), 17, b.encrypt()},
		{"decrypt 32 B", "decrypt/aes", "", sealed(small), 16, b.decrypt()},
		{"decrypt 4 KiB", "decrypt/aes", "", sealed(large), 17, b.decrypt()},
		{"hmac 32 B", "hmac/aes", "", input, 22, b.hmac()},
		{"sign Ed25519", "sign/ed", "", input, 18, b.sign()},
		{"verify Ed25519", "verify/ed", "", verify, 17, b.verify()},
		{"batch of 100", "encrypt/aes", "", batch, 19, b.encrypt()},
		{"encrypt 4 KiB as bytes", "encrypt/aes", octets, large, 18, nil},
	}
}

func BenchmarkRequest(b *testing.B) {
	s := newSender(b)
	for _, c := range benchCases(b, s) {
		run := func(name string, a *again) {
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
		run(c.name, newAgain(s.h, s.request(c.path, c.kind, c.body), c.body))
		if c.bare != nil {
			run(c.name+", bare handler", newAgain(c.bare, s.request(c.path, c.kind, c.body), c.body))
		}
	}
}

// bareServer does the cryptography alone, as anybody would write it with
// net/http and encoding/json.
type bareServer struct {
	aead cipher.AEAD
	mac  []byte
	priv ed25519.PrivateKey
}

func newBare(t testing.TB) *bareServer {
	key := make([]byte, 32)
	rand.Read(key)
	_, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &bareServer{gcm(t, key), key, priv}
}

type bareItem struct {
	Plaintext  []byte `json:"plaintext,omitempty"`
	Ciphertext string `json:"ciphertext,omitempty"`
	Input      []byte `json:"input,omitempty"`
	Signature  string `json:"signature,omitempty"`
}

type bareIn struct {
	bareItem
	Batch []bareItem `json:"batch_input"`
}

type bareOut struct {
	bareItem
	HMAC  string     `json:"hmac,omitempty"`
	Valid bool       `json:"valid,omitempty"`
	Batch []bareItem `json:"batch_results,omitempty"`
}

func bareHandler(do func(*bareIn) bareOut) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in bareIn
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"data": do(&in)})
	})
}

func (b *bareServer) seal(plain []byte) string {
	out := make([]byte, 12, 12+len(plain)+16)
	rand.Read(out)
	return "vault:v1:" + base64.StdEncoding.EncodeToString(b.aead.Seal(out, out, plain, nil))
}

func (b *bareServer) encrypt() http.Handler {
	return bareHandler(func(in *bareIn) (out bareOut) {
		for _, it := range in.Batch {
			out.Batch = append(out.Batch, bareItem{Ciphertext: b.seal(it.Plaintext)})
		}
		if in.Batch == nil {
			out.Ciphertext = b.seal(in.Plaintext)
		}
		return out
	})
}

func (b *bareServer) decrypt() http.Handler {
	return bareHandler(func(in *bareIn) (out bareOut) {
		raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(in.Ciphertext, "vault:v1:"))
		// It is another key's: what failing costs is what opening costs, but
		// for the plaintext's way back.
		_, _ = b.aead.Open(nil, raw[:12], raw[12:], nil)
		out.Plaintext = bytes.Clone(raw[12 : len(raw)-16])
		return out
	})
}

func (b *bareServer) hmac() http.Handler {
	return bareHandler(func(in *bareIn) bareOut {
		h := hmac.New(sha256.New, b.mac)
		h.Write(in.Input)
		return bareOut{HMAC: "vault:v1:" + base64.StdEncoding.EncodeToString(h.Sum(nil))}
	})
}

func (b *bareServer) sign() http.Handler {
	return bareHandler(func(in *bareIn) bareOut {
		return bareOut{bareItem: bareItem{Signature: "vault:v1:" + base64.StdEncoding.EncodeToString(ed25519.Sign(b.priv, in.Input))}}
	})
}

func (b *bareServer) verify() http.Handler {
	pub := b.priv.Public().(ed25519.PublicKey)
	return bareHandler(func(in *bareIn) bareOut {
		raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(in.Signature, "vault:v1:"))
		return bareOut{Valid: ed25519.Verify(pub, in.Input, raw)}
	})
}
