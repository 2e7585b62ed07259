package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/leasehold/leasehold/internal/config"
	"github.com/leasehold/leasehold/internal/httpapi"
)

// listener is one address that the server answers on.
type listener struct {
	config.Listener
	handler http.Handler

	ln    net.Listener
	certs *certificate
}

// certificate is read anew on SIGHUP, while connections go on.
type certificate struct {
	conf config.TLS
	now  atomic.Pointer[tls.Certificate]
}

func (c *certificate) load() error {
	cert, err := tls.LoadX509KeyPair(c.conf.CertFile, c.conf.KeyFile)
	if err != nil {
		return fmt.Errorf("loading the certificate %s with the key %s: %w", c.conf.CertFile, c.conf.KeyFile, err)
	}
	c.now.Store(&cert)
	return nil
}

// checkTLS loads what a listener with TLS would. A server starts with a
// certificate that is over, but no client trusts it.
func checkTLS(t *config.TLS) (warning string, err error) {
	c := &certificate{conf: *t}
	if err := c.load(); err != nil {
		return "", err
	}
	if _, err := tlsConfig(t, c); err != nil {
		return "", err
	}
	leaf := c.now.Load().Leaf
	switch now := time.Now(); {
	case now.After(leaf.NotAfter):
		return fmt.Sprintf("the certificate %s ended on %s: clients refuse it", t.CertFile, leaf.NotAfter.UTC().Format(time.DateOnly)), nil
	case now.Before(leaf.NotBefore):
		return fmt.Sprintf("the certificate %s begins on %s: until then clients refuse it", t.CertFile, leaf.NotBefore.UTC().Format(time.DateOnly)), nil
	}
	return "", nil
}

func tlsConfig(t *config.TLS, c *certificate) (*tls.Config, error) {
	conf := &tls.Config{
		MinVersion: max(t.MinVersion, tls.VersionTLS12), MaxVersion: t.MaxVersion, CipherSuites: t.CipherSuites,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now.Load(), nil },
		NextProtos:     []string{"h2", "http/1.1"},
	}
	if !t.DisableClientCert {
		conf.ClientAuth = tls.RequestClientCert
	}
	if t.ClientCAFile != "" {
		pem, err := os.ReadFile(t.ClientCAFile)
		if err != nil {
			return nil, fmt.Errorf("reading tls_client_ca_file: %w", err)
		}
		conf.ClientCAs = x509.NewCertPool()
		if !conf.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", t.ClientCAFile)
		}
	}
	if t.RequireClientCert {
		conf.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return conf, nil
}

// open binds the address.
func (l *listener) open(ctx context.Context) error {
	if l.Network == "unix" {
		// A socket that a killed server left behind is in the way; one that
		// still answers is not ours to take.
		if c, err := net.Dial("unix", l.Address); err == nil {
			_ = c.Close()
			return fmt.Errorf("listening on %s: another server answers there", l.Address)
		}
		if err := os.Remove(l.Address); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("listening on %s: %w", l.Address, err)
		}
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, l.Network, l.Address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listening: %w; another server has that address: stop it, or take another address", err)
	}
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	if l.Network == "unix" {
		if err := l.own(); err != nil {
			return errors.Join(err, ln.Close())
		}
	}
	ln = httpapi.Gather(ln)
	if l.TLS != nil {
		l.certs = &certificate{conf: *l.TLS}
		err := l.certs.load()
		var conf *tls.Config
		if err == nil {
			conf, err = tlsConfig(l.TLS, l.certs)
		}
		if err != nil {
			return errors.Join(err, ln.Close())
		}
		ln = tls.NewListener(ln, conf)
	}
	l.ln = ln
	return nil
}

// own gives the socket's file its mode and owner.
func (l *listener) own() error {
	if l.Mode != "" {
		m, err := strconv.ParseUint(l.Mode, 8, 32)
		if err != nil {
			return fmt.Errorf("socket_mode %q is no octal number", l.Mode)
		}
		if err := os.Chmod(l.Address, os.FileMode(m)); err != nil {
			return err
		}
	}
	uid, gid := -1, -1
	if l.User != "" {
		u, err := user.Lookup(l.User)
		if err != nil {
			if u, err = user.LookupId(l.User); err != nil {
				return fmt.Errorf("socket_user: %w", err)
			}
		}
		uid, _ = strconv.Atoi(u.Uid)
	}
	if l.Group != "" {
		g, err := user.LookupGroup(l.Group)
		if err != nil {
			if g, err = user.LookupGroupId(l.Group); err != nil {
				return fmt.Errorf("socket_group: %w", err)
			}
		}
		gid, _ = strconv.Atoi(g.Gid)
	}
	return os.Chown(l.Address, uid, gid)
}

// serve answers until ctx ends, then drains for at most grace.
func (l *listener) serve(ctx context.Context, grace time.Duration, log *slog.Logger) error {
	srv := httpapi.NewServer(l.handler, httpapi.Limits{
		ReadHeader: l.ReadHeaderTimeout, Read: l.ReadTimeout, Write: l.WriteTimeout, Idle: l.IdleTimeout,
	}, log)
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l.ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving %s: %w", l.Address, err)
	case <-ctx.Done():
	}
	dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := srv.Shutdown(dctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	<-failed
	return err
}
