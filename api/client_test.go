package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/api"
)

// serve starts a server and a client for it.
func serve(t *testing.T, h http.HandlerFunc, change ...func(*api.Config)) *api.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	cfg := api.Config{Address: srv.URL, Token: "tok"}
	for _, f := range change {
		f(&cfg)
	}
	c, err := api.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRequestsLookLikeVaults(t *testing.T) {
	var got string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = fmt.Sprintf("%s %s %s token=%s ns=%s wrap=%s mark=%s type=%s",
			r.Method, r.URL.RequestURI(), body, r.Header.Get("X-Vault-Token"), r.Header.Get("X-Vault-Namespace"),
			r.Header.Get("X-Vault-Wrap-TTL"), r.Header.Get("X-Vault-Request"), r.Header.Get("Content-Type"))
		io.WriteString(w, `{"request_id":"1","data":{"keys":["a"]}}`)
	}, func(cfg *api.Config) { cfg.Namespace = "team/" })
	ctx := t.Context()

	for _, tc := range []struct {
		name string
		call func() error
		want string
	}{
		{"read", func() error { _, err := c.Read(ctx, "secret/a b", map[string][]string{"version": {"2"}}); return err },
			"GET /v1/secret/a%20b?version=2  token=tok ns=team/ wrap= mark=true type="},
		{"list", func() error { _, err := c.List(ctx, "/secret/"); return err },
			"LIST /v1/secret/  token=tok ns=team/ wrap= mark=true type="},
		{"write", func() error { _, err := c.Write(ctx, "p", map[string]string{"k": "<&>"}); return err },
			`PUT /v1/p {"k":"<&>"} token=tok ns=team/ wrap= mark=true type=application/json`},
		{"raw", func() error { _, err := c.Write(ctx, "p", json.RawMessage(`{"n":9007199254740993}`)); return err },
			`PUT /v1/p {"n":9007199254740993} token=tok ns=team/ wrap= mark=true type=application/json`},
		{"patch", func() error { _, err := c.Patch(ctx, "p", struct{}{}); return err },
			"PATCH /v1/p {} token=tok ns=team/ wrap= mark=true type=application/merge-patch+json"},
		{"delete", func() error { _, err := c.Delete(ctx, "p", nil); return err },
			"DELETE /v1/p  token=tok ns=team/ wrap= mark=true type="},
		{"wrapped", func() error {
			_, err := c.WithWrapTTL("60s").WithNamespace("").Read(ctx, "p", nil)
			return err
		}, "GET /v1/p  token=tok ns= wrap=60s mark=true type="},
		{"unwrap", func() error { _, err := c.Unwrap(ctx, "w"); return err },
			"PUT /v1/sys/wrapping/unwrap  token=w ns=team/ wrap= mark=true type="},
	} {
		if err := tc.call(); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		} else if got != tc.want {
			t.Errorf("%s sent\n %s, want\n %s", tc.name, got, tc.want)
		}
	}
}

func TestSecretKeepsDigitsAndShape(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"request_id":"id","lease_id":"l/1","lease_duration":3600,"renewable":true,
			"data":{"n":9007199254740993},"warnings":["w"],"auth":null,"wrap_info":null}`)
	})
	s, err := c.Read(t.Context(), "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.RequestID != "id" || s.LeaseID != "l/1" || s.Duration() != time.Hour || !s.Renewable {
		t.Errorf("Read = %+v, want the envelope's fields", s)
	}
	var d struct{ N json.Number }
	if err := s.Decode(&d); err != nil || d.N != "9007199254740993" {
		t.Errorf("Decode = %v, %v, want all digits", d.N, err)
	}
	b, _ := json.Marshal(s)
	if want := `{"request_id":"id","lease_id":"l/1","lease_duration":3600,"renewable":true,"data":{"n":9007199254740993},"warnings":["w"]}`; string(b) != want {
		t.Errorf("Marshal = %s, want %s", b, want)
	}
}

func TestReplyWithoutEnvelopeIsData(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"sealed":true}`) })
	s, err := c.Read(t.Context(), "sys/seal-status", nil)
	if err != nil || string(s.Data) != `{"sealed":true}` {
		t.Fatalf("Read = %+v, %v, want the whole body as data", s, err)
	}
}

func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		status int
		body   string
		want   string
		data   bool
	}{
		{400, `{"errors":["first","second"]}`, "Code: 400. Errors:\n\n* first\n* second", false},
		{404, `{"errors":[]}`, "Code: 404. Errors:\n\n", false},
		{404, `{"request_id":"r","data":{"metadata":{}}}`, "Code: 404. Errors:\n\n", true},
		{403, `<html>proxy</html>`, "Code: 403. Raw Message:\n\n<html>proxy</html>", false},
		{501, ``, "Code: 501. Errors:\n\n", false},
	} {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tc.status)
			io.WriteString(w, tc.body)
		})
		_, err := c.Read(t.Context(), "x", nil)
		var e *api.Error
		if !errors.As(err, &e) {
			t.Fatalf("%d: Read = %v, want an *api.Error", tc.status, err)
		}
		want := "Error making API request.\n\nURL: GET " + c.Address() + "/v1/x\n" + tc.want
		if err.Error() != want || api.StatusOf(err) != tc.status || (e.Secret != nil) != tc.data {
			t.Errorf("Read = %q (secret %v), want %q (secret %v)", err, e.Secret != nil, want, tc.data)
		}
		if api.IsNotFound(err) != (tc.status == 404) {
			t.Errorf("IsNotFound(%d) = %v", tc.status, api.IsNotFound(err))
		}
	}
}

func TestOnlySafeRequestsAreRepeated(t *testing.T) {
	tries := 0
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if tries++; tries < 3 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(500)
		}
	})
	for _, tc := range []struct {
		req  api.Request
		want int
	}{
		{api.Request{Method: "GET"}, 3},
		{api.Request{Method: "LIST"}, 3},
		{api.Request{Method: "DELETE"}, 3},
		{api.Request{Method: "GET", NoRetry: true}, 1},
		{api.Request{Method: "GET", Accept: []int{500}}, 1},
		{api.Request{Method: "PUT"}, 1},
		{api.Request{Method: "PATCH"}, 1},
	} {
		tries = 0
		tc.req.Path = "x"
		_, err := c.Do(t.Context(), &tc.req)
		if tries != tc.want || (err == nil) != (tc.want == 3 || tc.req.Accept != nil) {
			t.Errorf("%+v: %d tries, %v, want %d", tc.req, tries, err, tc.want)
		}
	}
}

// A server that asks for more patience than a caller may have is not obeyed: the
// caller reads its sentence.
func TestRetryAfter(t *testing.T) {
	tries, after := 0, ""
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		tries++
		w.Header().Set("Retry-After", after)
		w.WriteHeader(http.StatusTooManyRequests)
	})
	for _, tc := range []struct {
		after string
		want  int
	}{{"0", 3}, {"6", 1}, {"3600", 1}, {"99999999999999999999", 3}, {"-1", 3}} {
		tries, after = 0, tc.after
		if _, err := c.Read(t.Context(), "x", nil); api.StatusOf(err) != http.StatusTooManyRequests || tries != tc.want {
			t.Errorf("Retry-After %s: %d tries, %v, want %d", tc.after, tries, err, tc.want)
		}
	}
}

func TestRedirects(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "//") {
			http.Redirect(w, r, strings.ReplaceAll(r.URL.Path, "//", "/"), http.StatusTemporaryRedirect)
			return
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, `{"request_id":"","data":{"body":%q,"token":%q}}`, body, r.Header.Get("X-Vault-Token"))
	}))
	defer srv.Close()
	c, _ := api.New(api.Config{Address: srv.URL, Token: "tok"})
	s, err := c.Write(t.Context(), "a//b", map[string]int{"n": 1})
	if err != nil || string(s.Data) != `{"body":"{\"n\":1}","token":"tok"}` {
		t.Errorf("Write = %+v, %v, want the body and token at the new place", s, err)
	}
	c, _ = api.New(api.Config{Address: srv.URL, DisableRedirects: true})
	if _, err := c.Read(t.Context(), "a//b", nil); api.StatusOf(err) != 307 {
		t.Errorf("Read = %v, want the redirect itself", err)
	}

	secure := httptest.NewTLSServer(http.RedirectHandler(srv.URL+"/v1/x", http.StatusTemporaryRedirect))
	defer secure.Close()
	c, _ = api.New(api.Config{Address: secure.URL, TLS: api.TLSConfig{SkipVerify: true}})
	if _, err := c.Read(t.Context(), "x", nil); err == nil || !strings.Contains(err.Error(), "redirects from https") {
		t.Errorf("Read = %v, want a refusal to leave https", err)
	}
}

func TestUnixSocket(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"request_id":"","data":{"path":%q}}`, r.URL.Path)
	})}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	c, err := api.New(api.Config{Address: "unix://" + sock})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := c.Read(t.Context(), "x", nil); err != nil || string(s.Data) != `{"path":"/v1/x"}` {
		t.Errorf("Read = %+v, %v, want an answer over the socket", s, err)
	}
}

func TestConfigFromEnv(t *testing.T) {
	env := func(kv ...string) func(string) string {
		return func(k string) string {
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == k {
					return kv[i+1]
				}
			}
			return ""
		}
	}
	cfg, err := api.ConfigFromEnv(env(
		"VAULT_ADDR", "http://vault", "LEASEHOLD_ADDR", "http://ours", "VAULT_TOKEN", "t", "VAULT_NAMESPACE", "ns",
		"VAULT_CACERT", "ca", "VAULT_CLIENT_CERT", "c", "VAULT_CLIENT_KEY", "k", "VAULT_TLS_SERVER_NAME", "n",
		"VAULT_SKIP_VERIFY", "1", "VAULT_CLIENT_TIMEOUT", "5", "VAULT_MAX_RETRIES", "0", "LEASEHOLD_WRAP_TTL", "1m"))
	if err != nil {
		t.Fatal(err)
	}
	want := api.Config{Address: "http://ours", Token: "t", Namespace: "ns", WrapTTL: "1m", Timeout: 5 * time.Second, MaxRetries: -1,
		TLS: api.TLSConfig{CACert: "ca", ClientCert: "c", ClientKey: "k", ServerName: "n", SkipVerify: true}}
	if got := fmt.Sprintf("%+v", cfg); got != fmt.Sprintf("%+v", want) {
		t.Errorf("ConfigFromEnv =\n %s, want\n %+v", got, want)
	}
	_, err = api.ConfigFromEnv(env("LEASEHOLD_SKIP_VERIFY", "maybe", "VAULT_CLIENT_TIMEOUT", "soon"))
	if err == nil || !strings.Contains(err.Error(), "LEASEHOLD_SKIP_VERIFY") || !strings.Contains(err.Error(), "VAULT_CLIENT_TIMEOUT") {
		t.Errorf("ConfigFromEnv = %v, want both bad variables named", err)
	}
}

func TestBadConfigs(t *testing.T) {
	for _, cfg := range []api.Config{
		{Address: "127.0.0.1:8200"},
		{Address: "localhost"},
		{Address: "ftp://x"},
		{Address: "http://x", TLS: api.TLSConfig{ClientCert: "only"}},
		{Address: "http://x", TLS: api.TLSConfig{CACert: "/does/not/exist"}},
		{Address: "http://x", TLS: api.TLSConfig{CAPath: t.TempDir()}},
	} {
		if _, err := api.New(cfg); err == nil {
			t.Errorf("New(%+v) worked, want an error", cfg)
		}
	}
}
