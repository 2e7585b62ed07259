package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// DefaultAddress is where a client looks for its server when nobody says
// otherwise, as Vault's clients do.
const DefaultAddress = "https://127.0.0.1:8200"

const (
	defaultTimeout = 60 * time.Second
	defaultRetries = 2
)

// Config says which server a client talks to, and how.
type Config struct {
	Address   string      // http://…, https://… or unix:///path/to.sock; "" is DefaultAddress
	Token     string      // "" sends no token
	Namespace string      // "" is the root namespace
	Headers   http.Header // sent with every request; nil sends none
	WrapTTL   string      // asks for wrapped replies that live this long ("60s"); "" for plain ones

	Timeout    time.Duration // of one request with its retries; 0 is 60 s, negative is none
	MaxRetries int           // tries after the first for requests that are safe to repeat; 0 is 2, negative is none

	// DisableRedirects returns a redirect to the caller instead of following it.
	DisableRedirects bool
	// Proxy is the URL of an HTTP proxy; "" takes HTTPS_PROXY and its kin.
	Proxy string

	TLS TLSConfig

	// HTTPClient replaces the client made from the fields above (Timeout,
	// DisableRedirects, Proxy, TLS and unix addresses are then its affair).
	HTTPClient *http.Client
}

// TLSConfig says whom a client trusts and how it shows who it is. The zero
// value trusts the system's roots and shows nothing.
type TLSConfig struct {
	CACert     string // file of PEM certificates to trust instead of the system's
	CAPath     string // directory of such files; CACert goes first
	ClientCert string // PEM file; needs ClientKey
	ClientKey  string // PEM file; needs ClientCert
	ServerName string // name to send and to check instead of the address's host
	SkipVerify bool   // trusts anybody: for trying things out only
}

// ConfigFromEnv reads the variables of Vault's clients. Each is looked up as
// LEASEHOLD_… first and as VAULT_… then. What is not set stays zero.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	look := func(name string) string { return LookupEnv(getenv, name) }
	cfg := Config{
		Address:   look("ADDR"),
		Token:     look("TOKEN"),
		Namespace: look("NAMESPACE"),
		WrapTTL:   look("WRAP_TTL"),
		Proxy:     look("PROXY_ADDR"),
		TLS: TLSConfig{
			CACert:     look("CACERT"),
			CAPath:     look("CAPATH"),
			ClientCert: look("CLIENT_CERT"),
			ClientKey:  look("CLIENT_KEY"),
			ServerName: look("TLS_SERVER_NAME"),
		},
	}
	if agent := look("AGENT_ADDR"); agent != "" {
		cfg.Address = agent
	}
	var errs []error
	flag := func(name string, to *bool) {
		if v := look(name); v != "" {
			b, err := strconv.ParseBool(v)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s=%q: want true or false", envName(getenv, name), v))
			}
			*to = b
		}
	}
	flag("SKIP_VERIFY", &cfg.TLS.SkipVerify)
	flag("DISABLE_REDIRECTS", &cfg.DisableRedirects)
	if v := look("CLIENT_TIMEOUT"); v != "" {
		d, err := parseSeconds(v)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s=%q: want seconds or a duration such as 30s", envName(getenv, "CLIENT_TIMEOUT"), v))
		}
		cfg.Timeout = d
		if err == nil && d == 0 {
			cfg.Timeout = -1
		}
	}
	if v := look("MAX_RETRIES"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			errs = append(errs, fmt.Errorf("%s=%q: want a number of retries", envName(getenv, "MAX_RETRIES"), v))
		}
		cfg.MaxRetries = n
		if err == nil && n == 0 {
			cfg.MaxRetries = -1
		}
	}
	return cfg, errors.Join(errs...)
}

// LookupEnv reads LEASEHOLD_name or, where that is empty, VAULT_name.
func LookupEnv(getenv func(string) string, name string) string {
	if v := getenv("LEASEHOLD_" + name); v != "" {
		return v
	}
	return getenv("VAULT_" + name)
}

// envName is the variable that LookupEnv took its value from, for messages.
func envName(getenv func(string) string, name string) string {
	if getenv("LEASEHOLD_"+name) != "" {
		return "LEASEHOLD_" + name
	}
	return "VAULT_" + name
}

func parseSeconds(s string) (time.Duration, error) {
	if n, err := strconv.Atoi(s); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	return time.ParseDuration(s)
}

// base is the URL that API paths are joined to, and the socket to dial where
// the address is unix://.
func (c Config) base() (u *url.URL, socket string, err error) {
	addr := c.Address
	if addr == "" {
		addr = DefaultAddress
	}
	u, err = url.Parse(addr)
	if err != nil || u.Scheme == "" || (u.Host == "" && u.Scheme != "unix") {
		return nil, "", fmt.Errorf("address %q: write it with its scheme, as in http://127.0.0.1:8200", addr)
	}
	switch u.Scheme {
	case "http", "https":
		return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}, "", nil
	case "unix":
		return &url.URL{Scheme: "http", Host: "localhost"}, u.Host + u.Path, nil
	}
	return nil, "", fmt.Errorf("address %q: the scheme must be http, https or unix", addr)
}

// newHTTPClient makes the transport that Config describes.
func (c Config) newHTTPClient(socket string) (*http.Client, error) {
	tlsConfig, err := c.TLS.load()
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = tlsConfig
	t.MaxIdleConnsPerHost = 16
	if c.Proxy != "" {
		p, err := url.Parse(c.Proxy)
		if err != nil {
			return nil, fmt.Errorf("proxy address: %w", err)
		}
		t.Proxy = http.ProxyURL(p)
	}
	if socket != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}
	}
	return &http.Client{Transport: t, CheckRedirect: c.checkRedirect}, nil
}

// checkRedirect follows what a standby or a path clean-up answers, and never
// carries a token from an encrypted connection to an open one.
func (c Config) checkRedirect(req *http.Request, via []*http.Request) error {
	last := via[len(via)-1]
	switch {
	case c.DisableRedirects:
		return http.ErrUseLastResponse
	case last.URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("the server redirects from https to %s; not followed", req.URL.Scheme)
	case len(via) > 3:
		return errors.New("stopped after 3 redirects")
	}
	return nil
}

func (c TLSConfig) load() (*tls.Config, error) {
	out := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         c.ServerName,
		InsecureSkipVerify: c.SkipVerify,
	}
	if (c.ClientCert == "") != (c.ClientKey == "") {
		return nil, errors.New("a client certificate and its key go together: set both or none")
	}
	if c.ClientCert != "" {
		pair, err := tls.LoadX509KeyPair(c.ClientCert, c.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("loading the client certificate: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	files, err := c.caFiles()
	if err != nil || len(files) == 0 {
		return out, err
	}
	out.RootCAs = x509.NewCertPool()
	for _, f := range files {
		pem, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("reading the CA certificate: %w", err)
		}
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate", f)
		}
	}
	return out, nil
}

func (c TLSConfig) caFiles() ([]string, error) {
	if c.CACert != "" {
		return []string{c.CACert}, nil
	}
	if c.CAPath == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(c.CAPath)
	if err != nil {
		return nil, fmt.Errorf("reading the directory of CA certificates: %w", err)
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() {
			files = append(files, filepath.Join(c.CAPath, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no CA certificates in %s", c.CAPath)
	}
	return files, nil
}
