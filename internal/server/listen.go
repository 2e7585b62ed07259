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
	"time"

	"github.com/leasehold/leasehold/internal/httpapi"
)

// Listener is one address that the server answers on.
type Listener struct {
	Network string // "tcp" or "unix"
	Address string // host:port, or a path
	TLS     *TLS   // nil: plain text
	// Mode, User and Group are of a unix socket; empty keeps the process's.
	Mode, User, Group string
	Limits            httpapi.Limits
	Handler           http.Handler

	ln    net.Listener
	certs *certificate
}

// TLS is how a listener encrypts.
type TLS struct {
	CertFile, KeyFile string
	Min, Max          uint16 // tls.VersionTLS12 and on; zero: 1.2, and no maximum
	Suites            []uint16
	ClientCAFile      string
	RequireClient     bool
	NoClient          bool // do not even ask for a client's certificate
}

// certificate is read anew on SIGHUP, while connections go on.
type certificate struct {
	conf TLS
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

func (t *TLS) config(c *certificate) (*tls.Config, error) {
	conf := &tls.Config{
		MinVersion: max(t.Min, tls.VersionTLS12), MaxVersion: t.Max, CipherSuites: t.Suites,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now.Load(), nil },
		NextProtos:     []string{"h2", "http/1.1"},
	}
	if !t.NoClient {
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
	if t.RequireClient {
		conf.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return conf, nil
}

// open binds the address.
func (l *Listener) open(ctx context.Context) error {
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
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	if l.Network == "unix" {
		if err := l.own(); err != nil {
			return errors.Join(err, ln.Close())
		}
	}
	if l.TLS != nil {
		l.certs = &certificate{conf: *l.TLS}
		err := l.certs.load()
		var conf *tls.Config
		if err == nil {
			conf, err = l.TLS.config(l.certs)
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
func (l *Listener) own() error {
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
func (l *Listener) serve(ctx context.Context, grace time.Duration, log *slog.Logger) error {
	srv := httpapi.NewServer(l.Handler, l.Limits, log)
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

// Addr is where the listener was bound.
func (l *Listener) Addr() string { return l.ln.Addr().String() }
