package testenv

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// SlapdConfig says which OpenLDAP server to start.
type SlapdConfig struct {
	LDIF     string   // entries below Suffix, which is there already
	Settings []string // more lines for slapd.conf, in the database's section
	Out      io.Writer
}

// Of every server.
const (
	SlapdSuffix   = "dc=example,dc=org"
	SlapdAdmin    = "cn=admin," + SlapdSuffix
	SlapdPassword = "adminpw" // the admin's
)

// LDAP is a private OpenLDAP server, in plain text with StartTLS, and with TLS.
type LDAP struct {
	Port, TLSPort int
	CA            string // PEM, of who issued its certificate for 127.0.0.1 and localhost
	Dir           string

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
}

// StartSlapd installs what is missing, starts a server and returns when it has
// the entries. The caller calls Stop.
func StartSlapd(ctx context.Context, cfg SlapdConfig) (*LDAP, error) {
	if cfg.Out == nil {
		cfg.Out = os.Stderr
	}
	program, err := findSlapd(cfg.Out)
	if err != nil {
		return nil, err
	}
	dir, err := serverDir()
	if err != nil {
		return nil, err
	}
	l := &LDAP{Dir: dir}
	if err := l.configure(cfg); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	// The ports are free when we ask and may be taken when the server does.
	for attempt := 0; ; attempt++ {
		if err = l.start(ctx, program); err == nil {
			break
		}
		if attempt == 1 || ctx.Err() != nil {
			return nil, errors.Join(err, l.Stop())
		}
	}
	root := "dn: " + SlapdSuffix + "\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n\n"
	if err := l.Add(ctx, root+cfg.LDIF); err != nil {
		return nil, errors.Join(err, l.Stop())
	}
	return l, nil
}

// findSlapd finds the server, which Debian keeps in /usr/sbin, or installs the
// distribution's after saying so on out.
func findSlapd(out io.Writer) (string, error) {
	find := func() string {
		for _, p := range []string{"slapd", "/usr/sbin/slapd", "/usr/local/sbin/slapd"} {
			if path, err := exec.LookPath(p); err == nil {
				return path
			}
		}
		return ""
	}
	_, err := exec.LookPath("ldapadd")
	if path := find(); path != "" && err == nil {
		return path, nil
	}
	fmt.Fprintln(out, "OpenLDAP is not installed here; installing the distribution's packages slapd and ldap-utils ...")
	root, err := rootFor("OpenLDAP", "slapd", "ldap-utils")
	if err != nil {
		return "", err
	}
	if err := root.run("apt-get", "update", "-qq"); err != nil {
		return "", err
	}
	// The package starts its service where there is an init; policy-rc.d is
	// how Debian lets one say no, and is put back as it was.
	const policy = "/usr/sbin/policy-rc.d"
	if _, err := os.Stat(policy); errors.Is(err, os.ErrNotExist) {
		tmp := filepath.Join(os.TempDir(), "leasehold-policy-rc.d")
		if err := os.WriteFile(tmp, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
			return "", err
		}
		defer os.Remove(tmp)
		if err := root.run("install", "-m", "0755", tmp, policy); err != nil {
			return "", err
		}
		defer func() { _ = root.run("rm", "-f", policy) }()
	}
	if err := root.run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "slapd", "ldap-utils"); err != nil {
		return "", err
	}
	fmt.Fprintln(out, "installed.")
	if path := find(); path != "" {
		return path, nil
	}
	return "", errors.New("the package slapd was installed, but it brought no /usr/sbin/slapd")
}

// configure writes the server's files.
func (l *LDAP) configure(cfg SlapdConfig) error {
	ca, cert, key, err := certificates()
	if err != nil {
		return err
	}
	l.CA = string(ca)
	conf := &bytes.Buffer{}
	for _, schema := range []string{"core", "cosine", "inetorgperson", "nis"} {
		fmt.Fprintf(conf, "include /etc/ldap/schema/%s.schema\n", schema)
	}
	fmt.Fprintf(conf, `modulepath /usr/lib/ldap
moduleload back_mdb
pidfile %[1]s/pid
TLSCACertificateFile %[1]s/ca.pem
TLSCertificateFile %[1]s/cert.pem
TLSCertificateKeyFile %[1]s/key.pem
TLSVerifyClient allow
database mdb
suffix "%[2]s"
rootdn "%[3]s"
rootpw %[4]s
directory %[1]s/data
dbnosync
`, l.Dir, SlapdSuffix, SlapdAdmin, SlapdPassword)
	for _, s := range cfg.Settings {
		fmt.Fprintln(conf, s)
	}
	for name, b := range map[string][]byte{"slapd.conf": conf.Bytes(), "ca.pem": ca, "cert.pem": cert, "key.pem": key} {
		if err := l.own(name, os.WriteFile(filepath.Join(l.Dir, name), b, 0o600)); err != nil {
			return err
		}
	}
	return l.own("data", os.Mkdir(filepath.Join(l.Dir, "data"), 0o700))
}

// own gives a file that was made to who runs the server.
func (l *LDAP) own(name string, err error) error {
	if err == nil && os.Geteuid() == 0 {
		err = os.Chown(filepath.Join(l.Dir, name), nobody, nobody)
	}
	return err
}

// certificates makes an authority and the server's certificate.
func certificates() (ca, cert, key []byte, err error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	ownKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	from, to := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	caTmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "testenv"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: from, NotAfter: to,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, caTmpl, caTmpl, caKey.Public(), caKey)
	if err != nil {
		return nil, nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, caTmpl, ownKey.Public(), caKey)
	if err != nil {
		return nil, nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(ownKey)
	block := func(typ string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}) }
	return block("CERTIFICATE", caDER), block("CERTIFICATE", der), block("PRIVATE KEY", keyDER), err
}

func (l *LDAP) start(ctx context.Context, program string) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Port, err = freePort(); err != nil {
		return err
	}
	if l.TLSPort, err = freePort(); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(l.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	c := serverCommand(l.Dir, program, "-f", filepath.Join(l.Dir, "slapd.conf"), "-h", l.URL()+" "+l.TLSURL(), "-d", "0")
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return fmt.Errorf("starting slapd: %w", err)
	}
	exited := make(chan struct{})
	go func() { // ends when the server does, which Stop waits for
		_ = c.Wait()
		close(exited)
	}()
	l.cmd, l.exited = c, exited
	if err := l.waitReadyLocked(ctx); err != nil {
		return errors.Join(fmt.Errorf("%w\nits log ends:\n%s", err, l.Log()), l.haltLocked())
	}
	return nil
}

func (l *LDAP) waitReadyLocked(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := ldap.DialURL(l.URL())
		if err == nil {
			err = conn.Bind(SlapdAdmin, SlapdPassword)
			if cerr := conn.Close(); err == nil {
				return cerr
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("slapd is not ready: %w", err)
		case <-l.exited:
			return fmt.Errorf("slapd stopped while starting: %w", err)
		case <-tick.C:
		}
	}
}

// Add adds entries (LDIF) as the admin.
func (l *LDAP) Add(ctx context.Context, ldif string) error { return l.edit(ctx, "ldapadd", ldif) }

// Modify changes entries (LDIF with changetype) as the admin.
func (l *LDAP) Modify(ctx context.Context, ldif string) error { return l.edit(ctx, "ldapmodify", ldif) }

func (l *LDAP) edit(ctx context.Context, program, ldif string) error {
	c := exec.CommandContext(ctx, program, "-x", "-H", l.URL(), "-D", SlapdAdmin, "-w", SlapdPassword)
	c.Stdin = bytes.NewReader([]byte(ldif))
	if said, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, said)
	}
	return nil
}

// URL and TLSURL are where the server is, without and with TLS.
func (l *LDAP) URL() string { return "ldap://" + l.Addr() }
func (l *LDAP) TLSURL() string {
	return "ldaps://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(l.TLSPort))
}

// Addr is the host:port without TLS.
func (l *LDAP) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Port)) }

// Log is what the server has said.
func (l *LDAP) Log() string {
	b, _ := os.ReadFile(filepath.Join(l.Dir, "log"))
	return string(b)
}

// Signal sends the server's process a signal: SIGSTOP makes it a server that
// does not answer.
func (l *LDAP) Signal(sig syscall.Signal) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cmd.Process.Signal(sig)
}

// Stop ends the server and removes its data. It may be called twice.
func (l *LDAP) Stop() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.haltLocked(), os.RemoveAll(l.Dir))
}

func (l *LDAP) haltLocked() error {
	if l.cmd == nil {
		return nil
	}
	err := l.cmd.Process.Kill() // its data go too
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-l.exited
	l.cmd = nil
	return err
}

// Slapd starts a server of the test's own, stopped when the test ends.
func Slapd(t testing.TB, cfg SlapdConfig) *LDAP {
	t.Helper()
	l, err := StartSlapd(t.Context(), cfg)
	if err != nil {
		t.Fatalf("starting slapd: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("slapd's log:\n%s", l.Log())
		}
		if err := l.Stop(); err != nil {
			t.Errorf("stopping slapd: %v", err)
		}
	})
	return l
}
