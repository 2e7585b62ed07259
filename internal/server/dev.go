package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/config"
	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/token"
)

// devConfig turns a configuration into that of a dev server: in memory, with
// shares, and with a listener of its own before those of a -config file. What
// the file says beside that stays; unused is what does not.
func devConfig(conf *config.Config, a *Args) (unused []config.Warning, cleanup func(), err error) {
	cleanup = func() {}
	if conf.Storage.Kind != "" && conf.Storage.Kind != "inmem" {
		unused = append(unused, config.Warning{Pos: conf.Storage.Pos, Text: "storage has no effect: a dev server keeps everything in memory"})
	}
	if conf.Seal.Kind != "" && conf.Seal.Kind != seal.Shamir {
		unused = append(unused, config.Warning{Pos: conf.Seal.Pos, Text: "seal has no effect: a dev server is unsealed by a share at its start"})
	}
	conf.Storage = config.Storage{Kind: "inmem"}
	conf.Seal = config.Seal{Kind: seal.Shamir}
	addr := a.DevListenAddress
	if addr == "" {
		addr = config.DefaultAddress
	}
	l := config.Listener{Network: "tcp", Address: addr}
	if a.DevTLS {
		dir := a.DevTLSCertDir
		if dir == "" {
			if dir, err = os.MkdirTemp("", "leasehold-tls"); err != nil {
				return nil, cleanup, err
			}
			made := dir
			cleanup = func() { _ = os.RemoveAll(made) }
			a.DevTLSCertDir = dir
		}
		t, err := devCertificate(dir, addr)
		if err != nil {
			cleanup()
			return nil, func() {}, fmt.Errorf("making the dev server's certificate: %w", err)
		}
		l.TLS = t
	}
	conf.Listeners = append([]config.Listener{l}, conf.Listeners...)
	if conf.APIAddr == "" && !strings.HasSuffix(addr, ":0") { // a port that is yet to be drawn is no address
		conf.APIAddr = scheme(l) + "://" + displayAddr(addr)
	}
	return unused, cleanup, nil
}

// devCertificate writes a CA and a certificate by it, as Vault's -dev-tls does.
func devCertificate(dir, addr string) (*config.TLS, error) {
	caKey, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	key, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "Leasehold dev CA"},
		NotBefore: now.Add(-time.Minute), NotAfter: now.AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano() + 1), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: now.Add(-time.Minute), NotAfter: now.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if host, _, err := net.SplitHostPort(addr); err == nil {
		if ip := net.ParseIP(host); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else if host != "" {
			leaf.DNSNames = append(leaf.DNSNames, host)
		}
	}
	caDER, err1 := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	leafDER, err2 := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	keyDER, err3 := x509.MarshalPKCS8PrivateKey(key)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	t := &config.TLS{CertFile: filepath.Join(dir, "vault-cert.pem"), KeyFile: filepath.Join(dir, "vault-key.pem")}
	for _, f := range []struct {
		path, kind string
		der        []byte
	}{
		{filepath.Join(dir, "vault-ca.pem"), "CERTIFICATE", caDER},
		{t.CertFile, "CERTIFICATE", leafDER},
		{t.KeyFile, "PRIVATE KEY", keyDER},
	} {
		text := pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der})
		if err := os.WriteFile(f.path, text, 0o600); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// runDev initialises and opens the server, says how to use it, and runs it.
func (s *Server) runDev(ctx context.Context, a Args) error {
	in, err := s.core.Init(ctx, seal.Params{Shares: 1, Threshold: 1}, secret.New(a.DevRootTokenID))
	if err == nil {
		err = s.core.Unseal(ctx, in.Shares[0])
	}
	if err == nil && !a.DevNoKV {
		err = s.core.AddMount(ctx, &core.Mount{
			Namespace: token.RootNamespace, Path: "secret/", Class: core.ClassSecret, Type: "kv",
			Description: "key/value secret storage", Options: map[string]string{"version": "2"},
		})
	}
	if err != nil {
		return errors.Join(fmt.Errorf("starting the dev server: %w", err), s.store.Close())
	}
	if a.StoreToken != nil {
		if err := a.StoreToken(in.Root.Reveal()); err != nil {
			s.cfg.Log.Warn("the root token could not be kept for later commands; set VAULT_TOKEN", "error", err)
		}
	}
	s.banner(a.Stdout)
	s.devBanner(a, in)
	return s.Run(ctx)
}

func scheme(l config.Listener) string {
	if l.TLS != nil {
		return "https"
	}
	return "http"
}

func (s *Server) devBanner(a Args, in *core.Initialized) {
	fmt.Fprintf(a.Stdout, `WARNING! dev mode is enabled! In this mode, Leasehold runs entirely in memory
and starts unsealed with a single unseal key. Nothing survives a restart: no
secret, no token and no lease, so logins made for leases would be left behind.

You may need to set the following environment variables:

    $ export VAULT_ADDR='%s://%s'
`, scheme(s.listeners[0].Listener), displayAddr(s.listeners[0].ln.Addr().String()))
	if a.DevTLS {
		fmt.Fprintf(a.Stdout, "    $ export VAULT_CACERT='%s'\n", filepath.Join(a.DevTLSCertDir, "vault-ca.pem"))
	}
	fmt.Fprintf(a.Stdout, `
The unseal key and root token are displayed below in case you want to
seal/unseal the server or re-authenticate.

Unseal Key: %s
Root Token: %s

Development mode should NOT be used in production installations!

`, base64.StdEncoding.EncodeToString(in.Shares[0]), in.Root.Reveal())
}
