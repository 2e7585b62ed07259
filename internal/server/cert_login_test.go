package server_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// keyPair is a certificate with its key.
type keyPair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate by a, or by itself where a is nil.
func (a *keyPair) issue(t *testing.T, name string, isCA bool) *keyPair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IsCA: isCA, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := tmpl, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &keyPair{c, key}
}

func (a *keyPair) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// TestListenerClientCertificates: a listener asks for certificates without
// wanting them, unless its settings say otherwise, and a login sees them.
func TestListenerClientCertificates(t *testing.T) {
	t.Parallel()
	root := (*keyPair)(nil).issue(t, "root", true)
	own, client := root.issue(t, "127.0.0.1", false), root.issue(t, "app", false)
	stranger := (*keyPair)(nil).issue(t, "stranger", false)
	dir := t.TempDir()
	der, err := x509.MarshalPKCS8PrivateKey(own.key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"ca.pem": root.pem(), "cert.pem": own.pem(), "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const noConnection = 0
	for _, tt := range []struct {
		name, settings                string
		without, stranger, with, rest int // statuses of logins; rest is of other requests with no certificate
	}{
		{"by default", "", 400, 400, 200, 200},
		{"not asked", "tls_disable_client_certs = true", 400, 400, 400, 200},
		{"required", fmt.Sprintf("tls_require_and_verify_client_cert = true\ntls_client_ca_file = %q", filepath.Join(dir, "ca.pem")), noConnection, noConnection, 200, noConnection},
		{"an authority named, not required", fmt.Sprintf("tls_client_ca_file = %q", filepath.Join(dir, "ca.pem")), 400, 400, 200, 200},
	} {
		addr := freeAddr(t)
		l := startLocal(t, fmt.Sprintf("listener \"tcp\" {\n address = %q\n tls_cert_file = %q\n tls_key_file = %q\n%s\n}",
			addr, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), tt.settings))
		l.must("POST", "sys/auth/cert", `{"type":"cert"}`)
		role, err := json.Marshal(map[string]any{"certificate": string(root.pem()), "token_policies": "app", "token_ttl": "5m"})
		if err != nil {
			t.Fatal(err)
		}
		l.must("POST", "auth/cert/certs/app", string(role))
		ask := func(who *keyPair, method, path, token string, out any) int {
			t.Helper()
			conf := &tls.Config{RootCAs: x509.NewCertPool()}
			conf.RootCAs.AddCert(root.cert)
			if who != nil {
				c := tls.Certificate{Certificate: [][]byte{who.cert.Raw}, PrivateKey: who.key}
				conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
			}
			hc := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
			req, err := http.NewRequestWithContext(t.Context(), method, "https://"+addr+"/v1/"+path, bytes.NewReader([]byte("{}")))
			if err != nil {
				t.Fatal(err)
			}
			if token != "" {
				req.Header.Set("X-Vault-Token", token)
			}
			resp, err := hc.Do(req)
			if err != nil {
				return noConnection
			}
			defer resp.Body.Close()
			if out != nil {
				if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
					t.Fatal(err)
				}
			}
			return resp.StatusCode
		}
		for _, c := range []struct {
			what string
			who  *keyPair
			want int
		}{{"without a certificate", nil, tt.without}, {"with a stranger's", stranger, tt.stranger}, {"with a client's", client, tt.with}} {
			if got := ask(c.who, "POST", "auth/cert/login", "", nil); got != c.want {
				t.Errorf("%s: a login %s is answered %d, want %d", tt.name, c.what, got, c.want)
			}
		}
		if got := ask(nil, "GET", "sys/health", "", nil); got != tt.rest {
			t.Errorf("%s: health without a certificate is answered %d, want %d", tt.name, got, tt.rest)
		}
		if tt.with != 200 {
			continue
		}
		var login struct {
			Auth struct {
				Token    string            `json:"client_token"`
				Policies []string          `json:"policies"`
				Metadata map[string]string `json:"metadata"`
			} `json:"auth"`
		}
		ask(client, "POST", "auth/cert/login", "", &login)
		if a := login.Auth; a.Token == "" || len(a.Policies) != 2 || a.Policies[0] != "app" || a.Metadata["common_name"] != "app" {
			t.Errorf("%s: login = %+v", tt.name, login)
		}
		if got := ask(client, "POST", "auth/token/renew-self", login.Auth.Token, nil); got != 200 {
			t.Errorf("%s: renewal with the certificate is answered %d", tt.name, got)
		}
		if status, body := l.ask("POST", "auth/token/renew-self", login.Auth.Token, ""); status == 200 {
			t.Errorf("%s: renewal without TLS is answered %d %s", tt.name, status, body)
		}
	}
}
