package cert_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/leasehold/leasehold/internal/auth/cert"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// authority is a certificate with its key, of a CA or a client.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
	next int64
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newCA makes a self-signed authority.
func newCA(t testing.TB, name string) *authority {
	t.Helper()
	return (&authority{t: t}).issue(caTemplate(name))
}

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name, Organization: []string{"Test"}}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
}

func clientTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

// issue makes a certificate; an authority without one of its own signs itself.
func (a *authority) issue(tmpl *x509.Certificate) *authority {
	a.t.Helper()
	return a.issueFor(tmpl, newKey(a.t))
}

func (a *authority) issueFor(tmpl *x509.Certificate, key crypto.Signer) *authority {
	a.t.Helper()
	a.next++
	if tmpl.SerialNumber == nil {
		tmpl.SerialNumber = big.NewInt(a.next)
		if a.cert == nil {
			tmpl.SerialNumber = big.NewInt(1000)
		}
	}
	if tmpl.NotBefore.IsZero() {
		tmpl.NotBefore = time.Now().Add(-time.Hour)
	}
	if tmpl.NotAfter.IsZero() {
		tmpl.NotAfter = time.Now().Add(24 * time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return &authority{t: a.t, cert: c, key: key}
}

func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

// list makes a CRL that revokes some certificates.
func (a *authority) list(number int64, next time.Duration, revoked ...*authority) []byte {
	a.t.Helper()
	tmpl := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now().Add(time.Duration(number) * time.Second), NextUpdate: time.Now().Add(next)}
	for _, r := range revoked {
		tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: r.cert.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

// oldList makes a CRL of version 1.
func (a *authority) oldList(revoked ...*authority) []byte {
	a.t.Helper()
	type entry struct {
		Serial *big.Int
		Date   time.Time
	}
	alg := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
	tbs := struct {
		Alg     pkix.AlgorithmIdentifier
		Issuer  asn1.RawValue
		This    time.Time
		Next    time.Time
		Revoked []entry
	}{Alg: alg, Issuer: asn1.RawValue{FullBytes: a.cert.RawSubject}, This: time.Now().UTC(), Next: time.Now().Add(time.Hour).UTC()}
	for _, r := range revoked {
		tbs.Revoked = append(tbs.Revoked, entry{r.cert.SerialNumber, time.Now().UTC()})
	}
	body, err := asn1.Marshal(tbs)
	if err != nil {
		a.t.Fatal(err)
	}
	sum := sha256.Sum256(body)
	sig, err := a.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		TBS asn1.RawValue
		Alg pkix.AlgorithmIdentifier
		Sig asn1.BitString
	}{asn1.RawValue{FullBytes: body}, alg, asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}})
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func crlPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

// answer is an OCSP response about a certificate, signed by a.
func (a *authority) answer(c, issuer *x509.Certificate, status int, change func(*ocsp.Response)) []byte {
	a.t.Helper()
	tmpl := ocsp.Response{
		Status: status, SerialNumber: c.SerialNumber, ThisUpdate: time.Now().Add(-time.Minute),
		NextUpdate: time.Now().Add(10 * time.Minute), RevokedAt: time.Now().Add(-time.Minute),
	}
	if a.cert != issuer {
		tmpl.Certificate = a.cert
	}
	if change != nil {
		change(&tmpl)
	}
	der, err := ocsp.CreateResponse(issuer, a.cert, tmpl, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

type object map[string]any

// rig is one mount of the method behind a real TLS server, which asks for
// certificates as the product's listener does.
type rig struct {
	t      *testing.T
	engine engine.Engine
	table  *route.Table
	url    string
	remote string // of requests
	skew   atomic.Int64
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, remote: "192.0.2.1"}
	e, err := cert.New(t.Context(), engine.Env{
		MountID: "m", Namespace: "root", Type: "cert", Store: storage.Prefix(mem.New(), "m/root/m/"),
		Now: func() time.Time { return time.Now().Add(time.Duration(r.skew.Load())) }, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.engine, r.table = e, route.NewTable()
	e.Routes(r.table)
	if err := e.(engine.Starter).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		r.serve(w, q.TLS, q.URL.Path, body)
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	r.url = s.URL
	t.Cleanup(func() {
		s.Close()
		if err := e.(engine.Closer).Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return r
}

// serve answers a login, or a renewal of what a login kept.
func (r *rig) serve(w http.ResponseWriter, state *tls.ConnectionState, path string, body []byte) {
	var a *route.Auth
	var err error
	if path == "/renew" {
		a, err = r.engine.(engine.Renewer).RenewLogin(r.t.Context(), engine.Renewal{Internal: wire.Object(body), TLS: state})
	} else {
		req := &route.Request{Op: wire.OpUpdate, Path: "login", Body: body, TLS: state, Remote: netip.MustParseAddr(r.remote)}
		var ep *route.Endpoint
		if ep, err = r.table.Route(req); err == nil {
			var res route.Result
			res, err = ep.Call(r.t.Context(), req)
			a = res.Auth
		}
	}
	reply := answer{Auth: a}
	if a != nil {
		reply.Kept, a.Internal = string(a.Internal), nil
	}
	if err != nil {
		reply.Kind, reply.Message = errs.KindOf(err), errs.Message(err)
	}
	_ = json.NewEncoder(w).Encode(reply)
}

// answer is what a login gives; Kind and Message are zero where it is let in.
type answer struct {
	Auth    *route.Auth
	Kept    string // Auth.Internal, on its way
	Kind    errs.Kind
	Message string
}

func (a answer) refused() bool { return a.Auth == nil && a.Message != "" }

// post connects with certificates and sends a body.
func (r *rig) post(path string, body []byte, key crypto.Signer, chain ...*x509.Certificate) answer {
	r.t.Helper()
	conf := &tls.Config{InsecureSkipVerify: true}
	if len(chain) > 0 {
		c := tls.Certificate{PrivateKey: key}
		for _, x := range chain {
			c.Certificate = append(c.Certificate, x.Raw)
		}
		// Whatever the server says that it takes, this is what is sent.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	resp, err := client.Post(r.url+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return answer{Kind: errs.Denied, Message: err.Error()}
	}
	defer resp.Body.Close()
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		r.t.Fatal(err)
	}
	if a.Auth != nil {
		a.Auth.Internal = wire.Object(a.Kept)
	}
	return a
}

// login logs in with a client's certificate and those of its authorities.
func (r *rig) login(name string, c *authority, above ...*authority) answer {
	r.t.Helper()
	chain := []*x509.Certificate{c.cert}
	for _, a := range above {
		chain = append(chain, a.cert)
	}
	body, _ := json.Marshal(object{"name": name})
	return r.post("/login", body, c.key, chain...)
}

func (r *rig) renew(a answer, c *authority, above ...*authority) answer {
	r.t.Helper()
	chain := []*x509.Certificate{c.cert}
	for _, a := range above {
		chain = append(chain, a.cert)
	}
	return r.post("/renew", []byte(a.Auth.Internal), c.key, chain...)
}

// do calls an endpoint and gives its data and warnings.
func (r *rig) do(op wire.Op, path string, body object) (object, []string, error) {
	r.t.Helper()
	req := &route.Request{Op: op, Path: path}
	if body != nil {
		req.Body, _ = json.Marshal(body)
	}
	ep, err := r.table.Route(req)
	if err != nil {
		r.t.Fatalf("%v %s: %v", op, path, err)
	}
	res, err := ep.Call(r.t.Context(), req)
	var data object
	if err == nil && res.Data != nil {
		if err := json.Unmarshal(res.Data.AppendJSON(nil), &data); err != nil {
			r.t.Fatal(err)
		}
	}
	return data, req.Reply().Warnings, err
}

func (r *rig) write(path string, body object) {
	r.t.Helper()
	if _, _, err := r.do(wire.OpUpdate, path, body); err != nil {
		r.t.Fatalf("writing %s: %v", path, err)
	}
}

// role writes a role that trusts a certificate.
func (r *rig) role(name string, trusted *authority, more object) {
	r.t.Helper()
	body := object{"certificate": trusted.pem(), "token_policies": "app-" + name}
	for k, v := range more {
		body[k] = v
	}
	r.write("certs/"+name, body)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("in 20 s it did not happen that %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func contains(warnings []string, text string) bool {
	return strings.Contains(strings.Join(warnings, "\n"), text)
}
