package cli_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/cli"
)

// certFiles writes a certificate, valid from begin to end, and its key.
func certFiles(t *testing.T, begin, end time.Time) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: begin, NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	return write("tls.crt", "CERTIFICATE", der), write("tls.key", "PRIVATE KEY", keyDER)
}

// TestDiagnoseCertificates: a configuration is not ok when the server would
// not start with its certificate, or no client would trust it.
func TestDiagnoseCertificates(t *testing.T) {
	now, hour := time.Now(), time.Hour
	cert, key := certFiles(t, now.Add(-hour), now.Add(hour))
	_, otherKey := certFiles(t, now.Add(-hour), now.Add(hour))
	over, overKey := certFiles(t, now.Add(-2*hour), now.Add(-hour))
	early, earlyKey := certFiles(t, now.Add(hour), now.Add(2*hour))
	gone := filepath.Join(t.TempDir(), "gone.pem")
	for _, c := range []struct{ name, cert, key, ca, want string }{
		{"right", cert, key, cert, `ok +\S+$`},
		{"no certificate", gone, key, "", `FAILED +loading the certificate \S+/gone.pem .*no such file`},
		{"no key", cert, gone, "", `FAILED +loading the certificate .*gone.pem: no such file`},
		{"a directory", filepath.Dir(cert), key, "", `FAILED +loading the certificate .*is a directory`},
		{"another's key", cert, otherKey, "", `FAILED +loading the certificate .*private key does not match public key`},
		{"no authority", cert, key, gone, `FAILED +reading tls_client_ca_file: .*no such file`},
		{"over", over, overKey, "", `warning +the certificate \S+ ended on \d{4}-\d\d-\d\d: clients refuse it$`},
		{"not yet", early, earlyKey, "", `warning +the certificate \S+ begins on \d{4}-\d\d-\d\d: until then clients refuse it$`},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "server.hcl")
			text := fmt.Sprintf("storage \"inmem\" {}\nlistener \"tcp\" {\n tls_cert_file = %q\n tls_key_file = %q\n tls_client_ca_file = %q\n}\n", c.cert, c.key, c.ca)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			cli.Run(t.Context(), cli.Config{Stdout: &out, Stderr: &errs}, []string{"operator", "diagnose", "-config=" + file, "-address=unix://" + gone})
			if !regexp.MustCompile(`(?m)^Configuration +` + c.want).MatchString(out.String()) {
				t.Errorf("diagnose printed\n%s%s\nwant a line Configuration %s", &out, &errs, c.want)
			}
		})
	}
}
