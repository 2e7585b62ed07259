package transit_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/api"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/leaseholdtest"
	"github.com/leasehold/leasehold/internal/seal/transit"
	"github.com/leasehold/leasehold/internal/secret"
)

type fields map[string]any

// pair is a server that has a key, and one that is opened by it.
type pair struct {
	t             *testing.T
	first, second *leaseholdtest.Server
	token         string // file with the second one's token
}

func newPair(t *testing.T) *pair {
	return newPairBy(t, func(first string) string { return first })
}

// newPairBy is newPair with something on the way to the first server.
func newPairBy(t *testing.T, way func(first string) string) *pair {
	p := &pair{t: t, first: leaseholdtest.Start(t, leaseholdtest.Config{}), token: filepath.Join(t.TempDir(), "token")}
	p.call(p.first, "POST", "sys/mounts/keys", fields{"type": "transit"}, nil)
	p.call(p.first, "POST", "keys/keys/unseal", nil, nil)
	p.call(p.first, "POST", "sys/policies/acl/unseal", fields{
		"policy": `path "keys/encrypt/unseal" { capabilities = ["update"] } path "keys/decrypt/unseal" { capabilities = ["update"] }`,
	}, nil)
	p.newToken()
	p.second = leaseholdtest.Start(t, leaseholdtest.Config{Seal: fmt.Sprintf(`seal "transit" {
		address    = %q
		token      = "file://%s"
		key_name   = "unseal"
		mount_path = "keys/"
	}`, way(p.first.Addr), p.token)})
	p.call(p.second, "POST", "sys/mounts/kv", fields{"type": "kv"}, nil)
	p.call(p.second, "POST", "kv/a", fields{"b": "c"}, nil)
	return p
}

func (p *pair) newToken() {
	var out struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		} `json:"auth"`
	}
	p.call(p.first, "POST", "auth/token/create-orphan", fields{"policies": []string{"unseal"}, "period": "1h"}, &out)
	p.setToken(out.Auth.ClientToken)
}

func (p *pair) setToken(token string) {
	if err := os.WriteFile(p.token, []byte(token+"\n"), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) call(s *leaseholdtest.Server, method, path string, in, out any) {
	p.t.Helper()
	if err := s.Call(p.t.Context(), method, path, s.Root, in, out); err != nil {
		p.t.Fatal(err)
	}
}

// restart starts a server again without waiting for it to open.
func (p *pair) restart(s *leaseholdtest.Server) {
	p.t.Helper()
	s.Stop()
	if err := s.RestartClosed(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// sealed asks the second server; it is to have its secret if it is open.
func (p *pair) sealed() bool {
	p.t.Helper()
	var st struct{ Sealed bool }
	p.call(p.second, "GET", "sys/seal-status", nil, &st)
	if st.Sealed {
		return true
	}
	var got struct{ Data struct{ B string } }
	err := p.second.Call(p.t.Context(), "GET", "kv/a", p.second.Root, nil, &got)
	return err != nil || got.Data.B != "c"
}

// opens waits until the second server is open; the first retries come within
// seconds.
func (p *pair) opens() {
	p.t.Helper()
	eventually(p.t, "the second server to open", func() bool { return !p.sealed() })
}

// says waits until the second server's log has a text since its last start.
func (p *pair) says(text string) {
	p.t.Helper()
	eventually(p.t, "the log to say "+text, func() bool {
		log := p.second.Log()
		return strings.Contains(log[max(strings.LastIndex(log, "server started!"), 0):], text)
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(60 * time.Second); !ok(); <-tick.C {
		if time.Now().After(late) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

// TestOpensByAnother: the life of two servers, one of which has the other's key.
func TestOpensByAnother(t *testing.T) {
	p := newPair(t)
	if p.sealed() {
		t.Fatal("after init it is sealed")
	}
	p.restart(p.second)
	p.opens()

	// The first one's restart is nothing to one that is open.
	p.first.Stop()
	if p.sealed() {
		t.Error("the second server closed with the first")
	}
	// Without it nothing opens, until it is back.
	p.restart(p.second)
	p.says("until its seal's server opens it")
	p.says(p.first.Addr + ", does not answer")
	if !p.sealed() {
		t.Error("the second server opened without the first")
	}
	var status struct{ Type string }
	p.call(p.second, "GET", "sys/seal-status", nil, &status)
	if status.Type != "transit" {
		t.Errorf("the type of the seal is %q, want transit", status.Type)
	}
	if err := p.first.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.opens()

	// A new version of the key wraps the root key at the next start.
	p.call(p.first, "POST", "keys/keys/unseal/rotate", nil, nil)
	p.restart(p.second)
	p.opens()
	p.says("the root key was wrapped anew")
	p.call(p.first, "POST", "keys/keys/unseal/config", fields{"min_decryption_version": 2}, nil)
	p.restart(p.second)
	p.opens()
}

// TestTokenIsReplaced: a token that is refused is told, and a new one is taken
// without a restart.
func TestTokenIsReplaced(t *testing.T) {
	p := newPair(t)
	p.setToken("hvs.wrong")
	p.restart(p.second)
	p.says("refuses the token: it must be valid there, and its policies must grant update on keys/encrypt/unseal and keys/decrypt/unseal")
	if !p.sealed() {
		t.Error("it opened with a wrong token")
	}
	if strings.Contains(p.second.Log(), "hvs.wrong") {
		t.Error("the log shows the token")
	}
	p.newToken()
	p.opens()
}

// TestKeyIsLost: the recovery keys open the store, and it is sealed with the
// key that is there now, although that has the same name and version.
func TestKeyIsLost(t *testing.T) {
	p := newPair(t)
	p.call(p.first, "POST", "keys/keys/unseal/config", fields{"deletion_allowed": true}, nil)
	p.call(p.first, "DELETE", "keys/keys/unseal", nil, nil)
	p.restart(p.second)
	p.says("has no key unseal in keys/: restore it there, or unseal with the recovery keys")
	p.call(p.first, "POST", "keys/keys/unseal", nil, nil)
	p.says("refuses keys/decrypt/unseal: if the key is another one now, unseal with the recovery keys")
	if !p.sealed() {
		t.Fatal("it opened by another key")
	}
	p.call(p.second, "POST", "sys/unseal", fields{"key": p.second.Recovery[0]}, nil)
	p.opens()
	p.says("the root key was wrapped anew")
	p.restart(p.second)
	p.opens()
}

// TestOtherHangs: while the other server does not answer, this one does.
func TestOtherHangs(t *testing.T) {
	var hangs atomic.Bool
	gaveUp := make(chan struct{}, 100)
	p := newPairBy(t, func(first string) string {
		to, err := url.Parse(first)
		if err != nil {
			t.Fatal(err)
		}
		relay := httputil.NewSingleHostReverseProxy(to)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !hangs.Load() {
				relay.ServeHTTP(w, r)
				return
			}
			_, _ = io.Copy(io.Discard, r.Body) // or the client's leaving is not noticed
			<-r.Context().Done()
			gaveUp <- struct{}{}
		}))
		t.Cleanup(srv.Close)
		return srv.URL
	})
	hangs.Store(true)
	p.restart(p.second) // until it answers
	select {
	case <-gaveUp:
		t.Error("the second server answered only after it had given the first one up")
	default:
	}
	if !p.sealed() {
		t.Error("it has opened by a key that it was not given")
	}
	hangs.Store(false)
	p.opens()
}

func TestInitWithoutTheOther(t *testing.T) {
	s := leaseholdtest.Start(t, leaseholdtest.Config{Closed: true, Seal: `seal "transit" {
		address  = "http://127.0.0.1:1"
		token    = "x"
		key_name = "unseal"
	}`})
	err := s.Call(t.Context(), "POST", "sys/init", "", fields{"recovery_shares": 1, "recovery_threshold": 1}, nil)
	var status *leaseholdtest.StatusError
	if !errors.As(err, &status) || status.Code != 503 || !strings.Contains(status.Body, "the server of the transit seal, http://127.0.0.1:1, does not answer") {
		t.Errorf("init = %v, want 503 and who does not answer", err)
	}
}

func TestConfigs(t *testing.T) {
	for name, c := range map[string]transit.Config{
		"no address":     {Key: "k"},
		"no key":         {Client: api.Config{Address: "http://a"}},
		"a path":         {Client: api.Config{Address: "http://a"}, Key: "transit/keys/k"},
		"no URL":         {Client: api.Config{Address: "a:8200"}, Key: "k"},
		"half a TLS key": {Client: api.Config{Address: "https://a", TLS: api.TLSConfig{ClientCert: "/x"}}, Key: "k"},
	} {
		if _, err := transit.New(c); err == nil || !strings.HasPrefix(err.Error(), `seal "transit"`) {
			t.Errorf("New(%s) = %v, want an error of the seal", name, err)
		}
	}
}

// other stands in for the other server.
type other func(*http.Request) (int, any)

func (o other) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := o(r)
	if status == 0 {
		return nil, errors.New("it is away")
	}
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(b))), Request: r}, nil
}

func newSeal(t *testing.T, log *slog.Logger, o other) *transit.Seal {
	t.Helper()
	s, err := transit.New(transit.Config{
		Client: api.Config{Address: "http://other", HTTPClient: &http.Client{Transport: o}}, Key: "k", Log: log,
		Token: func() (secret.String, error) { return secret.New("hvs.t"), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAnswers: what is worth waiting for is told from what somebody must see
// to, and nonsense is no key.
func TestAnswers(t *testing.T) {
	short := base64.StdEncoding.EncodeToString([]byte("short"))
	for name, tt := range map[string]struct {
		status int
		body   fields
		kind   errs.Kind
		want   string
	}{
		"away":         {0, nil, errs.Unavailable, "does not answer"},
		"sealed":       {503, fields{"errors": []string{"Vault is sealed"}}, errs.Unavailable, "is sealed or not ready"},
		"overloaded":   {429, fields{"errors": []string{}}, errs.Unavailable, "cannot answer now"},
		"broken":       {500, fields{"errors": []string{"internal error"}}, errs.Unavailable, "cannot answer now"},
		"not mounted":  {404, fields{"errors": []string{"no handler for route"}}, errs.Upstream, "has no Transit engine at transit/"},
		"denied":       {403, fields{"errors": []string{"permission denied"}}, errs.Upstream, "refuses the token"},
		"nothing":      {200, nil, errs.Unavailable, ""},
		"a short key":  {200, fields{"request_id": "1", "data": fields{"plaintext": short}}, errs.Upstream, "want a key of 32"},
		"no key":       {200, fields{"request_id": "1", "data": fields{}}, errs.Upstream, "want a key of 32"},
		"no base64":    {200, fields{"request_id": "1", "data": fields{"plaintext": "!"}}, errs.Upstream, "answered what Transit does not"},
		"a number":     {200, fields{"request_id": "1", "data": fields{"plaintext": 1}}, errs.Upstream, "answered what Transit does not"},
		"another list": {200, fields{"request_id": "1", "data": []string{"a"}}, errs.Upstream, "answered what Transit does not"},
	} {
		s := newSeal(t, nil, func(*http.Request) (int, any) { return tt.status, tt.body })
		got, err := s.Unwrap(t.Context(), []byte("vault:v1:x"), "transit/k:v1")
		if err == nil || got != nil || !strings.Contains(err.Error(), tt.want) || tt.want != "" && errs.KindOf(err) != tt.kind {
			t.Errorf("%s: Unwrap = %x, %v (kind %d), want kind %d and %q", name, got, err, errs.KindOf(err), tt.kind, tt.want)
		}
	}
	s := newSeal(t, nil, func(*http.Request) (int, any) {
		return 200, fields{"request_id": "1", "data": fields{"ciphertext": "nonsense"}}
	})
	if _, _, err := s.Wrap(t.Context(), make([]byte, 32)); !errs.Is(err, errs.Upstream) {
		t.Errorf("Wrap with a nonsensical answer = %v, want Upstream", err)
	}
}

// TestTokenIsRenewed for as long as the server runs, through an absence of the
// other one; and a token that cannot be is told of once.
func TestTokenIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const period = time.Hour
		begun := time.Now()
		var mu sync.Mutex
		ends := begun.Add(period)
		away := func() bool { d := time.Since(begun); return d > 10*time.Hour && d < 10*time.Hour+10*time.Minute }
		s := newSeal(t, nil, func(r *http.Request) (int, any) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case away():
				return 0, nil
			case time.Now().After(ends):
				return 403, fields{"errors": []string{"permission denied"}}
			case r.URL.Path == "/v1/auth/token/lookup-self":
				return 200, fields{"request_id": "1", "data": fields{"ttl": 3600, "renewable": true}}
			}
			ends = time.Now().Add(period)
			return 200, fields{"request_id": "1", "auth": fields{"client_token": "hvs.t", "lease_duration": 3600, "renewable": true}}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 48*time.Hour)
		defer cancel()
		s.Run(ctx)
		if left := time.Until(ends); left <= 0 {
			t.Errorf("after two days the token has ended %s ago", -left)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		log := new(strings.Builder)
		s := newSeal(t, slog.New(slog.NewTextHandler(log, nil)), func(*http.Request) (int, any) {
			return 200, fields{"request_id": "1", "data": fields{"ttl": 3600, "renewable": false}}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		s.Run(ctx)
		if n := strings.Count(log.String(), "give the seal a periodic token"); n != 1 || strings.Contains(log.String(), "hvs.t") {
			t.Errorf("the log says %d times what to do, want once and no token:\n%s", n, log)
		}
	})
}

// TestNewTokenIsRenewed although the old one, which it has replaced in the
// file, is alive, too.
func TestNewTokenIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const period = time.Hour
		var mu sync.Mutex
		now, ends := "hvs.old", map[string]time.Time{"hvs.old": time.Now().Add(period), "hvs.new": time.Now().Add(6 * time.Hour)}
		replaced := time.AfterFunc(5*time.Hour+30*time.Minute, func() {
			mu.Lock()
			defer mu.Unlock()
			now = "hvs.new"
		})
		defer replaced.Stop()
		s, err := transit.New(transit.Config{
			Client: api.Config{Address: "http://other", HTTPClient: &http.Client{Transport: other(func(r *http.Request) (int, any) {
				mu.Lock()
				defer mu.Unlock()
				token := r.Header.Get("X-Vault-Token")
				switch {
				case time.Now().After(ends[token]):
					return 403, fields{"errors": []string{"permission denied"}}
				case r.URL.Path == "/v1/auth/token/lookup-self":
					return 200, fields{"request_id": "1", "data": fields{"ttl": 3600, "renewable": true}}
				}
				ends[token] = time.Now().Add(period)
				return 200, fields{"request_id": "1", "auth": fields{"client_token": token, "lease_duration": 3600, "renewable": true}}
			})}},
			Key: "k",
			Token: func() (secret.String, error) {
				mu.Lock()
				defer mu.Unlock()
				return secret.New(now), nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		s.Run(ctx)
		if left := time.Until(ends["hvs.new"]); left <= 0 {
			t.Errorf("the new token has ended %s ago", -left)
		}
	})
}

// TestOutageIsTold when the token is not renewed, and not only when it has
// ended: once for each time that the other server is away.
func TestOutageIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		renewals, back := 0, time.Time{}
		log := new(strings.Builder)
		s := newSeal(t, slog.New(slog.NewTextHandler(log, nil)), func(r *http.Request) (int, any) {
			mu.Lock()
			defer mu.Unlock()
			if time.Now().Before(back) {
				return 0, nil
			}
			if r.URL.Path == "/v1/auth/token/lookup-self" {
				return 200, fields{"request_id": "1", "data": fields{"ttl": 3600, "renewable": true}}
			}
			if renewals++; renewals == 5 || renewals == 10 {
				back = time.Now().Add(5 * time.Minute)
				return 0, nil
			}
			return 200, fields{"request_id": "1", "auth": fields{"client_token": "hvs.t", "lease_duration": 3600, "renewable": true}}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		s.Run(ctx)
		if n := strings.Count(log.String(), "it is away"); n != 2 || renewals < 12 {
			t.Errorf("after %d renewals the log tells of %d outages, want 2:\n%s", renewals, n, log)
		}
	})
}
