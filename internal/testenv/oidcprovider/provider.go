// Package oidcprovider is an OpenID Connect provider for tests. It behaves: a
// code is for one client, one address and one exchange, the exchange needs the
// client's secret and the PKCE verifier, tokens are signed with a key that can
// be changed, and it can be made to fall silent. Whoever comes to it is logged
// in at once, as the user that the test said.
package oidcprovider

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// What the one client of a provider is called, and its secret. They have
// characters that must be escaped in a header.
const (
	ClientID     = "leasehold:test"
	ClientSecret = "a secret/with+odd%characters"
)

// Config says how a provider is. The zero value speaks plain HTTP and wants
// the client's secret in the header.
type Config struct {
	TLS          bool
	SecretInBody bool // token_endpoint_auth_methods_supported: client_secret_post
	Now          func() time.Time
}

// Provider is a running provider.
type Provider struct {
	URL string // its issuer
	CA  string // PEM, with TLS

	cfg Config
	srv *httptest.Server

	mu        sync.Mutex
	key       *ecdsa.PrivateKey
	keyID     string
	user      map[string]any // claims of whoever comes
	info      map[string]any // more of them, told by userinfo alone
	refuse    string         // an error in place of a code
	codes     map[string]grant
	tokens    map[string]string // access token to sub
	silent    chan struct{}     // closed when it speaks again; nil: it does
	fetched   int               // how often the keys were
	extraAud  []string
	elsewhere string // where exchanges are sent on to; "": nowhere
}

// grant is what a code is good for.
type grant struct {
	redirect, nonce, challenge string
	claims                     map[string]any
	authTime                   time.Time
}

// Start starts a provider, which ends with the test.
func Start(t testing.TB, cfg Config) *Provider {
	t.Helper()
	p := New(cfg)
	t.Cleanup(p.Close)
	return p
}

// New starts a provider, which ends with Close.
func New(cfg Config) *Provider {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	p := &Provider{cfg: cfg, codes: map[string]grant{}, tokens: map[string]string{}, user: map[string]any{"sub": "user-1"}}
	p.Rotate()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /userinfo", p.userInfo)
	p.srv = httptest.NewUnstartedServer(mux)
	if cfg.TLS {
		p.srv.StartTLS()
		p.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.srv.Certificate().Raw}))
	} else {
		p.srv.Start()
	}
	p.URL = p.srv.URL
	return p
}

// Close ends the provider: nobody answers at its address.
func (p *Provider) Close() {
	p.Speak()
	p.srv.Close()
}

// User says who is logged in from now on, and what of them userinfo alone
// tells.
func (p *Provider) User(claims, info map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.user, p.info = claims, info
}

// Refuse answers every login with an error; "" with a code again.
func (p *Provider) Refuse(err string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = err
}

// AlsoFor names more audiences of the tokens to come.
func (p *Provider) AlsoFor(aud ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.extraAud = aud
}

// SendOn answers exchanges of codes with a redirect that repeats the request.
func (p *Provider) SendOn(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.elsewhere = to
}

// Rotate replaces the key: the old one is not told any more.
func (p *Provider) Rotate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key, p.keyID = key, rand.Text()
}

// FallSilent lets every request wait until Speak.
func (p *Provider) FallSilent() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.silent == nil {
		p.silent = make(chan struct{})
	}
}

// Speak ends FallSilent.
func (p *Provider) Speak() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.silent != nil {
		close(p.silent)
		p.silent = nil
	}
}

// Fetched counts how often the keys were asked for.
func (p *Provider) Fetched() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetched
}

// Token signs claims with the key of the moment.
func (p *Provider) Token(claims map[string]any) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.signLocked(claims)
}

func (p *Provider) signLocked(claims map[string]any) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: p.key, KeyID: p.keyID}}, nil)
	if err != nil {
		panic(err)
	}
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		panic(err)
	}
	return text
}

// wait lets a request wait while the provider is silent; false: it ended.
func (p *Provider) wait(r *http.Request) bool {
	p.mu.Lock()
	silent := p.silent
	p.mu.Unlock()
	if silent == nil {
		return true
	}
	select {
	case <-silent:
		return true
	case <-r.Context().Done():
		return false
	}
}

func (p *Provider) discovery(w http.ResponseWriter, r *http.Request) {
	if !p.wait(r) {
		return
	}
	doc := map[string]any{
		"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize?tenant=1", "token_endpoint": p.URL + "/token",
		"jwks_uri": p.URL + "/keys", "userinfo_endpoint": p.URL + "/userinfo",
		"id_token_signing_alg_values_supported": []string{"ES256"},
	}
	if p.cfg.SecretInBody {
		doc["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"}
	}
	answer(w, http.StatusOK, doc)
}

func (p *Provider) keys(w http.ResponseWriter, r *http.Request) {
	if !p.wait(r) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fetched++
	secret := jose.JSONWebKey{Key: []byte("not a public key at all, nor for signatures"), KeyID: "oct"}
	answer(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{secret, {Key: p.key.Public(), KeyID: p.keyID, Use: "sig"}}})
}

// authorize is where the browser comes to.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	back, err := url.Parse(q.Get("redirect_uri"))
	if q.Get("client_id") != ClientID || err != nil || back.Host == "" || q.Get("tenant") != "1" {
		http.Error(w, "unknown client or address", http.StatusBadRequest)
		return
	}
	types := strings.Fields(q.Get("response_type"))
	reply := url.Values{"state": {q.Get("state")}}
	p.mu.Lock()
	defer p.mu.Unlock()
	claims := maps.Clone(p.user)
	g := grant{redirect: q.Get("redirect_uri"), nonce: q.Get("nonce"), challenge: q.Get("code_challenge"), claims: claims, authTime: p.cfg.Now()}
	switch {
	case p.refuse != "":
		reply.Set("error", p.refuse)
		reply.Set("error_description", "not today")
	case !slices.Contains(strings.Fields(q.Get("scope")), "openid") || len(types) == 0:
		reply.Set("error", "invalid_request")
	default:
		if slices.Contains(types, "code") {
			if g.challenge == "" || q.Get("code_challenge_method") != "S256" {
				reply.Set("error", "invalid_request")
				break
			}
			code := rand.Text()
			p.codes[code] = g
			reply.Set("code", code)
		}
		if slices.Contains(types, "id_token") {
			reply.Set("id_token", p.idTokenLocked(g))
		}
	}
	if q.Get("response_mode") == "form_post" {
		_ = form.Execute(w, struct {
			To     string
			Values url.Values
		}{back.String(), reply})
		return
	}
	rq := back.Query()
	maps.Copy(rq, reply)
	back.RawQuery = rq.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

var form = template.Must(template.New("").Parse(`<form method="post" action="{{.To}}">
{{range $name, $v := .Values}}<input type="hidden" name="{{$name}}" value="{{index $v 0}}">
{{end}}</form>`))

func (p *Provider) idTokenLocked(g grant) string {
	now := p.cfg.Now()
	claims := maps.Clone(g.claims)
	maps.Copy(claims, map[string]any{
		"iss": p.URL, "aud": append([]string{ClientID}, p.extraAud...), "azp": ClientID, "nonce": g.nonce,
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "auth_time": g.authTime.Unix(),
	})
	maps.Copy(claims, g.claims) // a test may forge any of them
	return p.signLocked(claims)
}

// token is where a code is exchanged.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	if !p.wait(r) {
		return
	}
	p.mu.Lock()
	elsewhere := p.elsewhere
	p.mu.Unlock()
	if elsewhere != "" {
		http.Redirect(w, r, elsewhere, http.StatusTemporaryRedirect)
		return
	}
	id, secret := r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	if !p.cfg.SecretInBody {
		id, secret, _ = r.BasicAuth()
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
	}
	if id != ClientID || secret != ClientSecret {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	code := r.PostFormValue("code")
	g, ok := p.codes[code]
	delete(p.codes, code)
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !ok || r.PostFormValue("grant_type") != "authorization_code" || g.redirect != r.PostFormValue("redirect_uri") ||
		g.challenge != base64.RawURLEncoding.EncodeToString(sum[:]) {
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
		return
	}
	access := rand.Text()
	p.tokens[access] = fmt.Sprint(g.claims["sub"])
	answer(w, http.StatusOK, map[string]any{
		"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": p.idTokenLocked(g),
	})
}

func (p *Provider) userInfo(w http.ResponseWriter, r *http.Request) {
	access, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	p.mu.Lock()
	defer p.mu.Unlock()
	sub, ok := p.tokens[access]
	if !ok {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_token"})
		return
	}
	info := map[string]any{"sub": sub}
	maps.Copy(info, p.info)
	answer(w, http.StatusOK, info)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that went away
}
