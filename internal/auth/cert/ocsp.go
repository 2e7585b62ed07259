package cert

import (
	"bytes"
	"container/list"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/leasehold/leasehold/internal/errs"
)

const (
	ocspLimit      = 5 * time.Second  // for one responder to answer
	ocspTotal      = 10 * time.Second // for all that a login asks
	ocspMaxAnswer  = 64 << 10
	ocspResponders = 4               // asked about one certificate at most
	ocspAtOnce     = 32              // questions that wait for one responder at most
	ocspSkew       = 5 * time.Minute // between its clock and ours
	ocspKept       = time.Hour       // how long an answer is remembered at most, however long it says it holds
	ocspUndated    = 24 * time.Hour  // how old an answer may be that does not say how long it holds
)

// ocspClient asks responders whether certificates are revoked.
type ocspClient struct {
	now   func() time.Time
	http  *http.Client
	cache *ocspCache

	mu      sync.Mutex
	waiting map[string]int // by host; one that is sick keeps nobody from another
}

func newOCSPClient(now func() time.Time) *ocspClient {
	return &ocspClient{now: now, http: newHTTPClient(ocspLimit), cache: newOCSPCache(defaultConfig.OCSPCacheSize), waiting: map[string]int{}}
}

// errForged is an answer that is not by whom it should be. ocsp_fail_open does
// not cover it.
var errForged = errors.New("the responder's answer is not signed by the issuer or by who may speak for it")

// check reports why a certificate is not to be taken by what its issuer's
// responders say. Where they say nothing, the role decides.
func (o *ocspClient) check(ctx context.Context, c, issuer *x509.Certificate, r *trusted) error {
	status, err := o.status(ctx, c, issuer, r)
	switch {
	case status == ocsp.Good:
		return nil
	case status == ocsp.Revoked:
		return errors.New("its issuer's OCSP responder says that it is revoked")
	case errors.Is(err, errForged):
		return err
	case r.OCSPFailOpen:
		return nil
	case err == nil:
		return errors.New("its issuer's OCSP responder does not know it")
	}
	return errs.Wrap(errs.Unavailable, err, "no OCSP responder could be asked whether the certificate is revoked; try again, or have the operator look at the server's log")
}

// status is what the responders say together. An error is set where it is
// Unknown because one could not be asked.
func (o *ocspClient) status(ctx context.Context, c, issuer *x509.Certificate, r *trusted) (int, error) {
	if issuer == nil {
		return ocsp.Unknown, errors.New("who issued the certificate is not known: ocsp_ca_certificates can name it")
	}
	key := ocspKey(c, issuer)
	if status, ok := o.cache.get(key, o.now()); ok {
		return status, nil
	}
	servers := r.OCSPServers
	if len(servers) == 0 {
		servers = slices.DeleteFunc(slices.Clone(c.OCSPServer), func(s string) bool { return !isHTTP(s) })
	}
	if len(servers) == 0 {
		return ocsp.Unknown, errors.New("neither the certificate nor the role names an OCSP responder")
	}
	servers = servers[:min(len(servers), ocspResponders)]
	var (
		faults error
		good   int
		until  time.Time // of the answer that is forgotten first
	)
	for _, server := range servers {
		status, holds, err := o.ask(ctx, server, c, issuer, r)
		switch {
		case err != nil:
			faults = errors.Join(faults, fmt.Errorf("%s: %w", server, err))
		case status == ocsp.Revoked || status == ocsp.Good && !r.OCSPAllServers:
			o.cache.put(key, status, holds)
			return status, nil
		case status == ocsp.Good:
			if good++; good == 1 || holds.Before(until) {
				until = holds
			}
		}
	}
	if good == len(servers) {
		o.cache.put(key, ocsp.Good, until)
		return ocsp.Good, nil
	}
	return ocsp.Unknown, faults
}

// ask asks one responder. until is how long its answer is to be remembered.
func (o *ocspClient) ask(ctx context.Context, server string, c, issuer *x509.Certificate, r *trusted) (status int, until time.Time, err error) {
	question, err := ocsp.CreateRequest(c, issuer, nil)
	if err != nil {
		return 0, until, err
	}
	leave, err := o.enter(server)
	if err != nil {
		return 0, until, err
	}
	defer leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server, bytes.NewReader(question))
	if err != nil {
		return 0, until, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	req.Header.Set("Accept", "application/ocsp-response")
	resp, err := o.http.Do(req)
	if err != nil {
		return 0, until, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, until, fmt.Errorf("the responder answered %d", resp.StatusCode)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, ocspMaxAnswer+1))
	if err != nil {
		return 0, until, err
	}
	if len(answer) > ocspMaxAnswer {
		return 0, until, errors.New("the responder's answer is too long")
	}
	return readOCSP(answer, c, issuer, r.ocspCAs, o.now())
}

// enter counts a question that waits for a host, and refuses one too many.
func (o *ocspClient) enter(server string) (leave func(), err error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting[u.Host] >= ocspAtOnce {
		return nil, fmt.Errorf("%d questions wait for the responder already", ocspAtOnce)
	}
	o.waiting[u.Host]++
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.waiting[u.Host]--; o.waiting[u.Host] == 0 {
			delete(o.waiting, u.Host)
		}
	}, nil
}

// readOCSP reads an answer about a certificate, and makes sure of who gave it
// and when.
func readOCSP(answer []byte, c, issuer *x509.Certificate, more []*x509.Certificate, now time.Time) (status int, until time.Time, err error) {
	resp, err := ocsp.ParseResponseForCert(answer, c, nil)
	if err != nil {
		return 0, until, err
	}
	if !signedOCSP(resp, append([]*x509.Certificate{issuer}, more...), now) {
		return 0, until, errForged
	}
	about, err := aboutOCSP(resp, issuer)
	switch {
	case err != nil:
		return 0, until, err
	case !about:
		return 0, until, errForged // said of another authority's certificate with this number
	case resp.ThisUpdate.After(now.Add(ocspSkew)):
		return 0, until, errors.New("the responder's answer is from the future")
	case resp.NextUpdate.IsZero() && now.After(resp.ThisUpdate.Add(ocspUndated)),
		!resp.NextUpdate.IsZero() && now.After(resp.NextUpdate.Add(ocspSkew)):
		return 0, until, errors.New("the responder's answer is out of date")
	}
	until = now.Add(ocspKept)
	switch {
	case resp.NextUpdate.IsZero():
		until = now // it may know better the next moment
	case resp.NextUpdate.Before(until):
		until = resp.NextUpdate
	}
	return resp.Status, until, nil
}

// signedOCSP reports whether an answer is by one of some authorities, or by
// whom one of them has made its responder. The library has checked the
// signature against the certificate that came along, but not that one.
func signedOCSP(resp *ocsp.Response, by []*x509.Certificate, now time.Time) bool {
	signer := resp.Certificate
	return slices.ContainsFunc(by, func(ca *x509.Certificate) bool {
		switch {
		case signer == nil:
			return resp.CheckSignatureFrom(ca) == nil
		case signer.Equal(ca):
			return true
		}
		return slices.Contains(signer.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) &&
			!now.Before(signer.NotBefore) && !now.After(signer.NotAfter) &&
			ca.CheckSignature(signer.SignatureAlgorithm, signer.RawTBSCertificate, signer.Signature) == nil
	})
}

// The part of an answer (RFC 6960, 4.2.1) that says what it is about. The
// library compares serial numbers only, and those are unique to an authority.
type ocspData struct {
	Version   int `asn1:"optional,default:0,explicit,tag:0"`
	Responder asn1.RawValue
	Produced  time.Time `asn1:"generalized"`
	Responses []ocspSingle
}

type ocspSingle struct {
	ID     ocspID
	Status asn1.RawValue
	This   time.Time     `asn1:"generalized"`
	Next   time.Time     `asn1:"generalized,explicit,tag:0,optional"`
	Extra  asn1.RawValue `asn1:"explicit,tag:1,optional"`
}

type ocspID struct {
	Hash          pkix.AlgorithmIdentifier
	NameHash, Key []byte
	Serial        *big.Int
}

func aboutOCSP(resp *ocsp.Response, issuer *x509.Certificate) (bool, error) {
	var data ocspData
	if _, err := asn1.Unmarshal(resp.TBSResponseData, &data); err != nil {
		return false, fmt.Errorf("reading what the responder's answer is about: %w", err)
	}
	key, err := keyBits(issuer)
	if err != nil || resp.IssuerHash == crypto.Hash(0) || !resp.IssuerHash.Available() {
		return false, errors.Join(err, errors.New("the responder's answer uses a hash function that is not known"))
	}
	sum := func(b []byte) []byte { h := resp.IssuerHash.New(); h.Write(b); return h.Sum(nil) }
	for _, r := range data.Responses {
		if r.ID.Serial == nil || r.ID.Serial.Cmp(resp.SerialNumber) != 0 {
			continue
		}
		// The library took the first with the number, so it must be this one.
		return bytes.Equal(r.ID.NameHash, sum(issuer.RawSubject)) && bytes.Equal(r.ID.Key, sum(key)), nil
	}
	return false, nil
}

// keyBits is the public key of a certificate without its algorithm, which is
// what responders hash.
func keyBits(c *x509.Certificate) ([]byte, error) {
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &spki); err != nil {
		return nil, err
	}
	return spki.Key.RightAlign(), nil
}

// ocspCache remembers what responders said, the last used answers. It may be
// dropped at any time.
type ocspCache struct {
	mu      sync.Mutex
	size    int
	entries map[string]*list.Element
	order   *list.List // of *ocspEntry, the last used first
}

type ocspEntry struct {
	key    string
	status int
	until  time.Time
}

func newOCSPCache(size int) *ocspCache {
	return &ocspCache{size: size, entries: map[string]*list.Element{}, order: list.New()}
}

// ocspKey names a certificate by its issuer's key and its number.
func ocspKey(c, issuer *x509.Certificate) string {
	sum := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	return string(sum[:]) + string(c.RawIssuer) + "\x00" + c.SerialNumber.String()
}

func (oc *ocspCache) get(key string, now time.Time) (status int, ok bool) {
	oc.mu.Lock()
	defer oc.mu.Unlock()
	el := oc.entries[key]
	if el == nil {
		return 0, false
	}
	e := el.Value.(*ocspEntry)
	if !now.Before(e.until) {
		oc.order.Remove(el)
		delete(oc.entries, key)
		return 0, false
	}
	oc.order.MoveToFront(el)
	return e.status, true
}

func (oc *ocspCache) put(key string, status int, until time.Time) {
	oc.mu.Lock()
	defer oc.mu.Unlock()
	if el := oc.entries[key]; el != nil {
		el.Value = &ocspEntry{key, status, until}
		oc.order.MoveToFront(el)
		return
	}
	oc.entries[key] = oc.order.PushFront(&ocspEntry{key, status, until})
	oc.trimLocked()
}

func (oc *ocspCache) resize(size int) {
	oc.mu.Lock()
	defer oc.mu.Unlock()
	oc.size = size
	oc.trimLocked()
}

func (oc *ocspCache) trimLocked() {
	for oc.order.Len() > oc.size {
		last := oc.order.Back()
		oc.order.Remove(last)
		delete(oc.entries, last.Value.(*ocspEntry).key)
	}
}
