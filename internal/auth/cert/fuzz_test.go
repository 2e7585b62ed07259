package cert_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/ocsp"

	"github.com/leasehold/leasehold/internal/auth/cert"
)

// FuzzMatch: what a role demands is compared as its words say, whatever a
// certificate holds.
func FuzzMatch(f *testing.F) {
	text, _ := asn1.Marshal("prod-7")
	f.Add("app.*.com", "app.example.com", "1.2.3.4:prod*", text)
	f.Add("*", "", "hex:1.2.3.4:0c*", text)
	f.Add("**a*b", "aab", "1.2.3.4:*", []byte{0x13, 0x81, 0x00})
	f.Add("a*a", "a", "1.2.3:x", []byte{})
	f.Add("*", "", "1.2.3.4:*", []byte("\x1e\x06000000"))
	ca := newCA(f, "root")
	base := ca.issue(clientTemplate("c")).cert
	f.Fuzz(func(t *testing.T, pattern, name, demand string, value []byte) {
		parts := strings.Split(pattern, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		want, err := regexp.Compile(`(?s)\A` + strings.Join(parts, ".*") + `\z`)
		if err == nil && validUTF8(pattern, name) && cert.Glob(pattern, name) != want.MatchString(name) {
			t.Errorf("glob(%q, %q) = %v, want %v", pattern, name, !want.MatchString(name), want.MatchString(name))
		}
		c := *base
		c.Subject.CommonName = name
		c.Extensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: value}}
		takes, err := cert.Takes([]string{pattern}, []string{demand}, &c)
		if err != nil {
			return
		}
		if takes && !strings.HasPrefix(strings.TrimPrefix(demand, "hex:"), "1.2.3.4:") {
			t.Errorf("a certificate without the extension fits %q", demand)
		}
		// Two bytes of a BMPString (UCS-2) may need three as UTF-8.
		if got := cert.ExtensionText(value); utf8.RuneCountInString(got) > len(value) {
			t.Errorf("the text of %x is %q, which has more characters than that has bytes", value, got)
		}
	})
}

func validUTF8(texts ...string) bool {
	return strings.ToValidUTF8(strings.Join(texts, ""), "") == strings.Join(texts, "")
}

// FuzzCertificates: what an operator writes as certificates is taken whole or
// refused, and taken the same when it is written again.
func FuzzCertificates(f *testing.F) {
	ca := newCA(f, "root")
	f.Add(ca.pem() + ca.issue(clientTemplate("c")).pem())
	f.Add("remarks\n" + ca.pem()[:300])
	f.Add("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----")
	f.Fuzz(func(t *testing.T, text string) {
		certs, err := cert.Certificates(text)
		if err != nil {
			return
		}
		again, err := cert.Certificates(text + "\n" + text)
		if err != nil || len(again) != len(certs) {
			t.Errorf("written twice it is %d certificates, %v, want the same %d", len(again), err, len(certs))
		}
	})
}

// FuzzCRL: any text is a list or refused, and a list that is taken can be asked
// about any certificate.
func FuzzCRL(f *testing.F) {
	ca := newCA(f, "root")
	bad := ca.issue(clientTemplate("bad"))
	der := ca.list(1, time.Hour, bad)
	f.Add(der)
	f.Add([]byte(crlPEM(der)))
	f.Add(der[:len(der)/2])
	f.Add([]byte("MIIB"))
	f.Add(ca.oldList(bad))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := cert.ParseCRL(text)
		if err != nil {
			return
		}
		revoked, err := cert.Revokes(list, bad.cert)
		if err == nil && revoked && len(list.RevokedCertificateEntries) == 0 {
			t.Error("a list without entries revokes a certificate")
		}
	})
}

// FuzzOCSP: no answer that the authority did not sign says that a certificate
// is good.
func FuzzOCSP(f *testing.F) {
	ca := newCA(f, "root")
	c := ca.issue(clientTemplate("c"))
	responder := ca.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "r"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}})
	f.Add(ca.answer(c.cert, ca.cert, ocsp.Revoked, nil))
	f.Add(responder.answer(c.cert, ca.cert, ocsp.Revoked, nil))
	f.Add(responder.answer(c.cert, ca.cert, ocsp.Unknown, nil))
	f.Add(newCA(f, "root").answer(c.cert, ca.cert, ocsp.Good, nil))
	f.Fuzz(func(t *testing.T, answer []byte) {
		// The authority has signed no other answer than revoked and unknown.
		if status, _, err := cert.ReadOCSP(answer, c.cert, ca.cert, nil, time.Now()); err == nil && status == ocsp.Good {
			t.Errorf("%x says that the certificate is good", answer)
		}
	})
}
