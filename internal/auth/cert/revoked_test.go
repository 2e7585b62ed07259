package cert_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/leasehold/leasehold/internal/auth/cert"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestCRL(t *testing.T) {
	r := newRig(t)
	root, other := newCA(t, "root"), newCA(t, "other")
	middle := root.issue(caTemplate("middle"))
	r.role("web", root, nil)
	r.role("other", other, nil)
	bad, good := root.issue(clientTemplate("bad")), root.issue(clientTemplate("good"))
	pinned := (&authority{t: t}).issue(clientTemplate("pinned"))
	r.role("pinned", pinned, nil)
	under := middle.issue(clientTemplate("under"))
	namesake := clientTemplate("namesake")
	namesake.SerialNumber = bad.cert.SerialNumber // another authority's with the same number
	twin := other.issue(namesake)

	check := func(when string, want map[*authority]bool) {
		t.Helper()
		for c, ok := range want {
			if got := r.login("", c, middle); got.refused() == ok {
				t.Errorf("%s: %s is let in: %v (%s), want %v", when, c.cert.Subject.CommonName, !got.refused(), got.Message, ok)
			}
		}
	}
	check("before", map[*authority]bool{bad: true, good: true, under: true, twin: true, pinned: true})
	r.write("crls/One", object{"crl": crlPEM(root.list(1, time.Hour, bad))})
	check("with a list", map[*authority]bool{bad: false, good: true, under: true, twin: true, pinned: true})
	r.write("crls/one", object{"crl": base64.StdEncoding.EncodeToString(root.list(2, time.Hour, middle))})
	check("with the authority on it", map[*authority]bool{bad: true, good: true, under: false})
	r.write("crls/two", object{"crl": crlPEM(pinned.list2(t, pinned))})
	check("with two lists", map[*authority]bool{bad: true, under: false, pinned: false})

	got, _, err := r.do(wire.OpRead, "crls/One", nil)
	if want := (object{"cdp": nil, "serials": map[string]any{middle.cert.SerialNumber.String(): map[string]any{}}}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the list reads as %v, %v, want %v", got, err, want)
	}
	if got, _, err := r.do(wire.OpList, "crls", nil); err != nil || !reflect.DeepEqual(got["keys"], []any{"one", "two"}) {
		t.Errorf("lists = %v, %v", got, err)
	}
	for _, name := range []string{"one", "two"} {
		if _, _, err := r.do(wire.OpDelete, "crls/"+name, nil); err != nil {
			t.Fatal(err)
		}
	}
	check("after", map[*authority]bool{bad: true, good: true, under: true, pinned: true})
	for _, op := range []wire.Op{wire.OpRead, wire.OpDelete} {
		if _, _, err := r.do(op, "crls/one", nil); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%v of what is not there = %v", op, err)
		}
	}
	for name, body := range map[string]object{
		"nothing": {}, "text": {"crl": "x"}, "a certificate": {"crl": root.pem()}, "no address": {"url": ""}, "a bad address": {"url": "ldap://x/y"},
		"truncated": {"crl": base64.StdEncoding.EncodeToString(root.list(3, time.Hour, bad)[:100])},
	} {
		if _, _, err := r.do(wire.OpUpdate, "crls/bad", body); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: writing the list = %v, want Invalid", name, err)
		}
	}
	if _, warnings, err := r.do(wire.OpUpdate, "crls/forged", object{"crl": crlPEM(newCA(t, "root").list(1, time.Hour, good))}); err != nil || !contains(warnings, "not signed") {
		t.Errorf("a list by another key = %v, %q, want a warning", err, warnings)
	}
}

// list2 is a list by a certificate that is no authority, as one that signs
// itself has it.
func (a *authority) list2(t *testing.T, revoked *authority) []byte {
	t.Helper()
	signer := *a.cert
	signer.KeyUsage |= x509.KeyUsageCRLSign
	signer.SubjectKeyId = []byte{1}
	return (&authority{t: t, cert: &signer, key: a.key}).list(1, time.Hour, revoked)
}

// TestLargeCRL: a list of many pieces appears and goes as one.
func TestLargeCRL(t *testing.T) {
	r := newRig(t)
	root := newCA(t, "root")
	r.role("web", root, nil)
	var many []*authority
	for n := range 40_000 {
		many = append(many, &authority{cert: &x509.Certificate{SerialNumber: new(big.Int).Lsh(big.NewInt(int64(n+1)), 100)}})
	}
	bad := clientTemplate("bad")
	bad.SerialNumber = many[39_999].cert.SerialNumber
	c := root.issue(bad)
	r.write("crls/large", object{"crl": crlPEM(root.list(1, time.Hour, many...))})
	if got := r.login("", c); !got.refused() {
		t.Error("the last one of a large list is let in")
	}
	r.write("crls/large", object{"crl": crlPEM(root.list(2, time.Hour))})
	if got := r.login("", c); got.refused() {
		t.Errorf("with an empty list it is refused: %s", got.Message)
	}
}

// TestIndirectCRL: an entry may be about another authority's certificate, and
// an entry may take a revocation back.
func TestIndirectCRL(t *testing.T) {
	root, other := newCA(t, "Root"), newCA(t, "other")
	a, b := root.issue(clientTemplate("a")), root.issue(clientTemplate("b"))
	name, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: root.cert.RawSubject}})
	if err != nil {
		t.Fatal(err)
	}
	issuer := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: name}
	der, err := x509.CreateRevocationList(nil, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{
			{SerialNumber: big.NewInt(77), RevocationTime: time.Now()},
			{SerialNumber: a.cert.SerialNumber, RevocationTime: time.Now(), ExtraExtensions: []pkix.Extension{issuer}},
			{SerialNumber: b.cert.SerialNumber, RevocationTime: time.Now(), ReasonCode: 8},
		},
	}, other.cert, other.key)
	if err != nil {
		t.Fatal(err)
	}
	list, err := cert.ParseCRL(der)
	if err != nil {
		t.Fatal(err)
	}
	for c, want := range map[*authority]bool{a: true, b: false} {
		if got, err := cert.Revokes(list, c.cert); err != nil || got != want {
			t.Errorf("it revokes %s: %v, %v, want %v", c.cert.Subject, got, err, want)
		}
	}
}

// TestOldCRL: a list of version 1, as OpenSSL writes it by default.
func TestOldCRL(t *testing.T) {
	r := newRig(t)
	root := newCA(t, "root")
	bad, good := root.issue(clientTemplate("bad")), root.issue(clientTemplate("good"))
	r.role("web", root, nil)
	der := root.oldList(bad)
	if _, warnings, err := r.do(wire.OpUpdate, "crls/old", object{"crl": crlPEM(der)}); err != nil || len(warnings) > 0 {
		t.Fatalf("writing the list = %v, %q", err, warnings)
	}
	for c, want := range map[*authority]bool{bad: false, good: true} {
		if got := r.login("", c); got.refused() == want {
			t.Errorf("%s is let in: %v (%s), want %v", c.cert.Subject, !got.refused(), got.Message, want)
		}
	}
	if _, warnings, err := r.do(wire.OpUpdate, "crls/old", object{"crl": crlPEM(newCA(t, "root").oldList(good))}); err != nil || !contains(warnings, "not signed") {
		t.Errorf("one by another key = %v, %q, want a warning", err, warnings)
	}
}

// TestCRLByAddress: a list is fetched when it is written, and again when it
// runs out; one that is forged, older or away leaves the old one in use.
func TestCRLByAddress(t *testing.T) {
	defer cert.RefreshEvery(5 * time.Millisecond)()
	root := newCA(t, "root")
	bad, worse := root.issue(clientTemplate("bad")), root.issue(clientTemplate("worse"))
	var served atomic.Pointer[[]byte]
	var asked atomic.Int64
	serve := func(b []byte) { served.Store(&b) }
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if b := *served.Load(); b != nil {
			_, _ = w.Write(b)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer s.Close()
	r := newRig(t)
	r.role("web", root, nil)

	for name, b := range map[string][]byte{"away": nil, "no list": []byte("<html>"), "forged": newCA(t, "root").list(1, time.Hour), "too long": make([]byte, 40<<20)} {
		serve(b)
		if _, _, err := r.do(wire.OpUpdate, "crls/a", object{"url": s.URL}); errs.KindOf(err) != errs.Invalid && errs.KindOf(err) != errs.TooLarge {
			t.Errorf("%s: writing the list = %v, want it refused", name, err)
		}
	}
	serve(root.list(10, time.Hour, bad))
	r.write("crls/a", object{"url": s.URL})
	got, _, err := r.do(wire.OpRead, "crls/a", nil)
	if cdp, _ := got["cdp"].(map[string]any); err != nil || cdp["url"] != s.URL || cdp["valid_until"] == nil {
		t.Errorf("the list reads as %v, %v", got, err)
	}
	if got := r.login("", bad); !got.refused() {
		t.Error("the list is not used")
	}
	if got := r.login("", worse); got.refused() {
		t.Errorf("refused: %s", got.Message)
	}
	serve(root.list(11, 3*time.Hour, bad, worse))
	r.skew.Store(int64(2 * time.Hour))
	eventually(t, "the list was fetched again", func() bool { return r.login("", worse).refused() })
	// From here on what is served is worse than what is known.
	for _, b := range [][]byte{root.list(5, 30*time.Hour), newCA(t, "root").list(20, 30*time.Hour), nil} {
		serve(b)
		was := asked.Load()
		r.skew.Add(int64(4 * time.Hour))
		eventually(t, "the address was asked", func() bool { return asked.Load() > was })
		if got := r.login("", worse); !got.refused() {
			t.Error("the old list was given up for a worse one")
		}
	}
}

// responder is an OCSP responder of the test's own.
type responder struct {
	url   string
	asked atomic.Int64
	mu    sync.Mutex
	says  func(serial *big.Int) []byte // nil: it does not answer
}

func newResponder(t *testing.T) *responder {
	t.Helper()
	p := &responder{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		p.asked.Add(1)
		body, _ := io.ReadAll(q.Body)
		req, err := ocsp.ParseRequest(body)
		if err != nil || q.Header.Get("Content-Type") != "application/ocsp-request" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		p.mu.Lock()
		says := p.says
		p.mu.Unlock()
		if says == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(says(req.SerialNumber))
	}))
	t.Cleanup(s.Close)
	p.url = s.URL
	return p
}

func (p *responder) say(says func(serial *big.Int) []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.says = says
}

func TestOCSP(t *testing.T) {
	p := newResponder(t)
	root := newCA(t, "root")
	client := func() *authority {
		c := clientTemplate("c")
		c.OCSPServer = []string{"ldap://not-asked", p.url}
		return root.issue(c)
	}
	delegate := func(ca *authority, change func(c *x509.Certificate)) *authority {
		c := &x509.Certificate{Subject: pkix.Name{CommonName: "responder"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}}
		if change != nil {
			change(c)
		}
		return ca.issue(c)
	}
	stranger := newCA(t, "root")
	for _, tt := range []struct {
		name         string
		by           *authority // who signs; nil: nobody answers
		status       int
		about        *authority // another authority, of whose certificate it speaks
		change       func(r *ocsp.Response)
		closed, open bool // whether it is let in, by ocsp_fail_open
		keeps        bool // whether the answer is remembered
	}{
		{name: "good", by: root, status: ocsp.Good, closed: true, open: true, keeps: true},
		{name: "revoked", by: root, status: ocsp.Revoked, keeps: true},
		{name: "unknown", by: root, status: ocsp.Unknown, open: true},
		{name: "no answer", open: true},
		{name: "good, by the authority's responder", by: delegate(root, nil), status: ocsp.Good, closed: true, open: true, keeps: true},
		{name: "revoked, by the authority's responder", by: delegate(root, nil), status: ocsp.Revoked, keeps: true},
		{name: "a responder that may not sign", by: delegate(root, func(c *x509.Certificate) { c.ExtKeyUsage = nil }), status: ocsp.Good},
		{name: "a responder that has expired", by: delegate(root, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), status: ocsp.Good},
		{name: "a responder of a namesake", by: delegate(stranger, nil), status: ocsp.Good},
		{name: "forged", by: stranger, status: ocsp.Good},
		{name: "about another authority's", by: root, about: newCA(t, "other"), status: ocsp.Good},
		{name: "out of date", by: root, status: ocsp.Good, change: func(r *ocsp.Response) {
			r.ThisUpdate, r.NextUpdate = time.Now().Add(-3*time.Hour), time.Now().Add(-2*time.Hour)
		}, open: true},
		{name: "from the future", by: root, status: ocsp.Good, change: func(r *ocsp.Response) {
			r.ThisUpdate, r.NextUpdate = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		}, open: true},
		{name: "good until it is asked again", by: root, status: ocsp.Good, change: func(r *ocsp.Response) { r.NextUpdate = time.Time{} }, closed: true, open: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			for _, open := range []bool{false, true} {
				c := client()
				p.say(nil)
				if tt.by != nil {
					p.say(func(*big.Int) []byte {
						issuer := root.cert
						if tt.about != nil {
							issuer = tt.about.cert
						}
						if tt.by == stranger {
							issuer = stranger.cert
						}
						return tt.by.answer(c.cert, issuer, tt.status, tt.change)
					})
				}
				r.role("web", root, object{"ocsp_enabled": true, "ocsp_fail_open": open})
				want := tt.closed
				if open {
					want = tt.open
				}
				before := p.asked.Load()
				for range 2 {
					if got := r.login("", c); got.refused() == want {
						t.Errorf("fail open %v: let in %v (%s), want %v", open, !got.refused(), got.Message, want)
					}
				}
				asked := int64(2)
				if tt.keeps {
					asked = 1
				}
				if got := p.asked.Load() - before; got != asked {
					t.Errorf("fail open %v: two logins asked %d times, want %d", open, got, asked)
				}
			}
		})
	}
}

func TestOCSPServers(t *testing.T) {
	root, vouch := newCA(t, "root"), newCA(t, "vouch")
	good, bad, away := newResponder(t), newResponder(t), newResponder(t)
	c := root.issue(clientTemplate("c"))
	good.say(func(*big.Int) []byte { return root.answer(c.cert, root.cert, ocsp.Good, nil) })
	bad.say(func(*big.Int) []byte { return root.answer(c.cert, root.cert, ocsp.Revoked, nil) })
	vouched := newResponder(t)
	vouched.say(func(*big.Int) []byte { return vouch.answer(c.cert, root.cert, ocsp.Good, nil) })
	for _, tt := range []struct {
		name    string
		servers []string
		all     bool
		ca      string
		want    bool
	}{
		{name: "none", want: false},
		{name: "one", servers: []string{good.url}, want: true},
		{name: "the second", servers: []string{away.url, good.url}, want: true},
		{name: "the first is enough", servers: []string{good.url, bad.url}, want: true},
		{name: "all agree", servers: []string{good.url, good.url}, all: true, want: true},
		{name: "all, and one says revoked", servers: []string{good.url, bad.url}, all: true},
		{name: "all, and one is away", servers: []string{good.url, away.url}, all: true},
		{name: "one that is not trusted", servers: []string{vouched.url}},
		{name: "one that the role trusts", servers: []string{vouched.url}, ca: vouch.pem(), want: true},
	} {
		r := newRig(t)
		r.role("web", root, object{"ocsp_enabled": true, "ocsp_servers_override": tt.servers, "ocsp_query_all_servers": tt.all, "ocsp_ca_certificates": tt.ca})
		if got := r.login("", c); got.refused() == tt.want {
			t.Errorf("%s: let in %v (%s), want %v", tt.name, !got.refused(), got.Message, tt.want)
		}
	}
	t.Run("of a certificate that is trusted itself", func(t *testing.T) {
		r := newRig(t)
		_, warnings, err := r.do(wire.OpUpdate, "certs/leaf", object{"certificate": c.pem(), "ocsp_enabled": true, "ocsp_servers_override": good.url})
		if err != nil || !contains(warnings, "ocsp_ca_certificates") {
			t.Errorf("writing the role = %v, %q, want a warning", err, warnings)
		}
		if got := r.login("", c); got.Kind != errs.Unavailable {
			t.Errorf("without its issuer: login = %+v, want Unavailable", got)
		}
		if got := r.login("", c, root); got.refused() {
			t.Errorf("with its issuer sent along: refused: %s", got.Message)
		}
		r.write("certs/leaf", object{"ocsp_ca_certificates": root.pem()})
		if got := r.login("", c); got.refused() {
			t.Errorf("with its issuer in the role: refused: %s", got.Message)
		}
	})
}

// TestOCSPThatHangs: a responder that does not answer holds up those who need
// it for a bounded time, and nobody else.
func TestOCSPThatHangs(t *testing.T) {
	root := newCA(t, "root")
	free := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-free }))
	defer hangs.Close()
	defer close(free)
	r := newRig(t)
	r.role("slow", root, object{"ocsp_enabled": true, "ocsp_servers_override": hangs.URL})
	r.role("fast", root, nil)
	c := root.issue(clientTemplate("c"))
	slow := make(chan answer, 40)
	for range 40 {
		go func() { slow <- r.login("slow", c) }()
	}
	for range 5 {
		begun := time.Now()
		if got := r.login("fast", c); got.refused() {
			t.Errorf("refused: %s", got.Message)
		}
		if d := time.Since(begun); d > 4*time.Second {
			t.Errorf("a login that needs no responder took %v", d)
		}
	}
	for range 40 {
		if got := <-slow; got.Kind != errs.Unavailable || !strings.Contains(got.Message, "OCSP") {
			t.Errorf("login = %+v, want Unavailable", got)
		}
	}
}
