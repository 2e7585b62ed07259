package testenv_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"github.com/leasehold/leasehold/internal/testenv"
)

func TestSlapd(t *testing.T) {
	l := testenv.Slapd(t, testenv.SlapdConfig{LDIF: "dn: ou=people," + testenv.SlapdSuffix + "\nobjectClass: organizationalUnit\nou: people\n"})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(l.CA))
	conf := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	for _, how := range []string{"plain", "StartTLS", "TLS"} {
		url := l.URL()
		if how == "TLS" {
			url = l.TLSURL()
		}
		conn, err := ldap.DialURL(url, ldap.DialWithTLSConfig(conf))
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		if how == "StartTLS" {
			if err := conn.StartTLS(conf); err != nil {
				t.Errorf("StartTLS = %v", err)
			}
		}
		if err := conn.Bind(testenv.SlapdAdmin, testenv.SlapdPassword); err != nil {
			t.Errorf("%s: Bind = %v", how, err)
		}
		res, err := conn.Search(ldap.NewSearchRequest(testenv.SlapdSuffix, ldap.ScopeWholeSubtree, 0, 0, 0, false, "(ou=people)", nil, nil))
		if err != nil || len(res.Entries) != 1 {
			t.Errorf("%s: Search = %v, %v, want one entry", how, res, err)
		}
		_ = conn.Close()
	}
}
