// Package kubeapi is the part of a Kubernetes API server that answers
// TokenReviews, for tests. It behaves: it keeps service accounts, signs their
// tokens, knows which of them may ask, and reviews a token as the real one
// does, by signature, time, audience and whether its account is still there.
package kubeapi

import (
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/testenv/forgery"
)

// Audience is that of the API server itself, which tokens have by default.
const Audience = "https://kubernetes.default.svc.cluster.local"

// Server is a running API server.
type Server struct {
	URL    string
	CA     string         // PEM
	Issuer forgery.Issuer // signs the tokens

	srv *httptest.Server
	now func() time.Time

	mu       sync.Mutex
	accounts map[string]string // namespace/name to uid
	askers   map[string]bool   // namespace/name of those with system:auth-delegator
	status   int               // in place of answers; 0: none
	silent   chan struct{}     // closed when it speaks again; nil: it does
	asked    int
}

// Start starts a server, which ends with the test. now is its clock; nil is
// the real one.
func Start(t testing.TB, now func() time.Time) *Server {
	t.Helper()
	if now == nil {
		now = time.Now
	}
	s := &Server{now: now, Issuer: forgery.NewECDSA(elliptic.P256()), accounts: map[string]string{}, askers: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/tokenreviews", s.review)
	s.srv = httptest.NewTLSServer(mux)
	s.URL = s.srv.URL
	s.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.srv.Certificate().Raw}))
	t.Cleanup(s.Close)
	return s
}

// Close ends the server.
func (s *Server) Close() {
	s.Speak()
	s.srv.Close()
}

// Account makes a service account, or another of the same name: its uid is new.
func (s *Server) Account(namespace, name string) (uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	uid = rand.Text()
	s.accounts[namespace+"/"+name] = uid
	return uid
}

// Delete takes an account away.
func (s *Server) Delete(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.accounts, namespace+"/"+name)
}

// Delegate lets an account ask for reviews.
func (s *Server) Delegate(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.askers[namespace+"/"+name] = true
}

// Claims are those of a projected token of an account, for audiences, or for
// the API server's own without any.
func (s *Server) Claims(namespace, name string, audiences ...string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(audiences) == 0 {
		audiences = []string{Audience}
	}
	now := s.now()
	return map[string]any{
		"iss": Audience, "sub": "system:serviceaccount:" + namespace + ":" + name, "aud": audiences,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{
			"namespace": namespace, "pod": map[string]any{"name": name + "-0", "uid": rand.Text()},
			"serviceaccount": map[string]any{"name": name, "uid": s.accounts[namespace+"/"+name]},
		},
	}
}

// Token is a projected token of an account.
func (s *Server) Token(namespace, name string, audiences ...string) string {
	return s.Issuer.Token(s.Claims(namespace, name, audiences...))
}

// SecretToken is one as Kubernetes kept them in secrets: without times and
// audience.
func (s *Server) SecretToken(namespace, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	const prefix = "kubernetes.io/serviceaccount/"
	return s.Issuer.Token(map[string]any{
		"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:" + namespace + ":" + name,
		prefix + "namespace": namespace, prefix + "secret.name": name + "-token-x", prefix + "service-account.name": name,
		prefix + "service-account.uid": s.accounts[namespace+"/"+name],
	})
}

// Answer answers every request with a status; 0: as it should.
func (s *Server) Answer(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// FallSilent lets every request wait until Speak.
func (s *Server) FallSilent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent == nil {
		s.silent = make(chan struct{})
	}
}

// Speak ends FallSilent.
func (s *Server) Speak() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent != nil {
		close(s.silent)
		s.silent = nil
	}
}

// Asked counts the reviews.
func (s *Server) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// holder is whom a token says it is of.
type holder struct {
	Aud        []string `json:"aud"`
	Exp        int64    `json:"exp"`
	Kubernetes struct {
		Namespace string `json:"namespace"`
		Account   struct {
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"serviceaccount"`
	} `json:"kubernetes.io"`
	Namespace string `json:"kubernetes.io/serviceaccount/namespace"`
	Name      string `json:"kubernetes.io/serviceaccount/service-account.name"`
	UID       string `json:"kubernetes.io/serviceaccount/service-account.uid"`
}

// authenticateLocked is whose token it is, for which of the audiences.
func (s *Server) authenticateLocked(token string, audiences []string) (key, uid string, matched []string, err error) {
	i := strings.LastIndexByte(token, '.')
	if i < 0 {
		return "", "", nil, fmt.Errorf("invalid bearer token")
	}
	sig, err := base64.RawURLEncoding.DecodeString(token[i+1:])
	if err != nil || !s.Issuer.Verify([]byte(token[:i]), sig) {
		return "", "", nil, fmt.Errorf("invalid signature")
	}
	head, payload, _ := strings.Cut(token[:i], ".")
	header, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		return "", "", nil, err
	}
	var form struct {
		Alg  string
		Crit []string
	}
	if err := json.Unmarshal(header, &form); err != nil || form.Alg != s.Issuer.Alg() || form.Crit != nil {
		return "", "", nil, fmt.Errorf("unexpected header")
	}
	body, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return "", "", nil, err
	}
	var h holder
	if err := json.Unmarshal(body, &h); err != nil {
		return "", "", nil, err
	}
	if h.Kubernetes.Namespace != "" {
		h.Namespace, h.Name, h.UID = h.Kubernetes.Namespace, h.Kubernetes.Account.Name, h.Kubernetes.Account.UID
		if s.now().After(time.Unix(h.Exp, 0)) {
			return "", "", nil, fmt.Errorf("token has expired")
		}
	} else {
		h.Aud = []string{Audience} // legacy tokens are for the API server
	}
	key = h.Namespace + "/" + h.Name
	if uid = s.accounts[key]; uid == "" || uid != h.UID {
		return "", "", nil, fmt.Errorf("service account %s has been deleted", key)
	}
	if len(audiences) == 0 {
		audiences = []string{Audience}
	}
	for _, a := range audiences {
		if slices.Contains(h.Aud, a) {
			matched = append(matched, a)
		}
	}
	if len(matched) == 0 {
		return "", "", nil, fmt.Errorf("token audiences %q is invalid for the target audiences %q", h.Aud, audiences)
	}
	return key, uid, matched, nil
}

func (s *Server) review(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	silent := s.silent
	s.asked++
	s.mu.Unlock()
	if silent != nil {
		select {
		case <-silent:
		case <-r.Context().Done():
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status != 0 {
		reply(w, s.status, map[string]any{"kind": "Status", "status": "Failure", "code": s.status})
		return
	}
	bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	asker, _, _, err := s.authenticateLocked(bearer, nil)
	switch {
	case err != nil:
		reply(w, http.StatusUnauthorized, map[string]any{"kind": "Status", "status": "Failure", "message": "Unauthorized", "code": 401})
		return
	case !s.askers[asker]:
		reply(w, http.StatusForbidden, map[string]any{"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403})
		return
	}
	var q struct {
		APIVersion, Kind string
		Spec             struct {
			Token     string
			Audiences []string
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Kind != "TokenReview" || q.APIVersion != "authentication.k8s.io/v1" {
		reply(w, http.StatusBadRequest, map[string]any{"kind": "Status", "status": "Failure", "code": 400})
		return
	}
	status := map[string]any{}
	if key, uid, matched, err := s.authenticateLocked(q.Spec.Token, q.Spec.Audiences); err != nil {
		status["error"] = "[invalid bearer token, " + err.Error() + "]"
	} else {
		status = map[string]any{"authenticated": true, "audiences": matched, "user": map[string]any{
			"username": "system:serviceaccount:" + strings.Replace(key, "/", ":", 1), "uid": uid, "groups": []string{"system:serviceaccounts"},
		}}
	}
	reply(w, http.StatusCreated, map[string]any{
		"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": map[string]any{"creationTimestamp": nil}, "status": status,
	})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that went away
}
