package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leasehold/leasehold/internal/secret"
)

// Config says where a server is and how to log in to it.
type Config struct {
	// URL is a connection URL or a "key=value" text, in which {{username}}
	// and {{password}} stand for the fields below.
	URL      string
	Username string
	Password secret.String
	// Candidate, when set, is a password that may have replaced Password: a
	// rotation whose end is not known. Both are tried.
	Candidate secret.String
	// CA, Certificate and Key are PEM. A CA makes TLS and the server's
	// certificate and name obligatory; the other two go together.
	CA, Certificate string
	Key             secret.String
	// MaxOpen bounds the connections to the server, for creating and revoking
	// together. Below 2 counts as 2.
	MaxOpen int
	// MaxLifetime of a connection; zero is an hour.
	MaxLifetime time.Duration
	// Now is our clock. Nil means time.Now.
	Now func() time.Time
	Log *slog.Logger // nil discards
}

// Where the credentials stand while the URL is parsed: nothing of theirs can
// then be read as a part of the URL, whatever characters they have.
const (
	userMarker     = "leaseholdUserQ7f3c91d2"
	passwordMarker = "leaseholdPasswordQ7f3c91d2"
)

// ErrTemplate is returned for URLs in which {{username}} or {{password}} stand
// elsewhere than in the user's and the password's place.
var ErrTemplate = errors.New("{{username}} and {{password}} may stand only in the user's and the password's place of connection_url")

// parse reads the URL. The password is filled in at each connect.
func (c Config) parse() (*pgxpool.Config, error) {
	templated := strings.Contains(c.URL, "{{password}}")
	text := strings.NewReplacer("{{username}}", userMarker, "{{password}}", passwordMarker).Replace(c.URL)
	pc, err := pgxpool.ParseConfig(text)
	if err != nil {
		if templated {
			return nil, fmt.Errorf("connection_url: %s", strings.NewReplacer(userMarker, "{{username}}").Replace(err.Error()))
		}
		// A password may stand in it, and the error would show it.
		return nil, errors.New("connection_url is not a URL such as postgresql://{{username}}:{{password}}@host:5432/postgres, nor a text such as host=... user={{username}} password={{password}}")
	}
	cc := pc.ConnConfig
	if cc.User == userMarker {
		cc.User = c.Username
	}
	for _, place := range append([]string{cc.User, cc.Host, cc.Database}, params(cc)...) {
		if strings.Contains(place, userMarker) || strings.Contains(place, passwordMarker) {
			return nil, ErrTemplate
		}
	}
	switch {
	case cc.Password == passwordMarker:
		cc.Password = ""
	case strings.Contains(cc.Password, passwordMarker):
		return nil, ErrTemplate
	}
	if cc.RuntimeParams["application_name"] == "" {
		cc.RuntimeParams["application_name"] = "leasehold"
	}
	// Our statements are taken apart by these rules; the session says later
	// that the server keeps them.
	cc.RuntimeParams["standard_conforming_strings"] = "on"
	cc.RuntimeParams["client_encoding"] = "UTF8"
	cc.DefaultQueryExecMode = pgx.QueryExecModeExec
	if !strings.Contains(c.URL, "connect_timeout") {
		cc.ConnectTimeout = 10 * time.Second
	}
	if err := c.secure(cc); err != nil {
		return nil, err
	}
	pc.MaxConnLifetime = c.MaxLifetime
	if c.MaxLifetime <= 0 {
		pc.MaxConnLifetime = time.Hour
	}
	pc.MaxConnLifetimeJitter = pc.MaxConnLifetime / 10
	pc.MaxConnIdleTime = 5 * time.Minute
	pc.MinConns, pc.MinIdleConns = 0, 0
	return pc, nil
}

func params(cc *pgx.ConnConfig) []string {
	var out []string
	for _, v := range cc.RuntimeParams {
		out = append(out, v)
	}
	for _, f := range cc.Fallbacks {
		out = append(out, f.Host)
	}
	return out
}

// secure applies the CA and the client certificate.
func (c Config) secure(cc *pgx.ConnConfig) error {
	if c.CA == "" && c.Certificate == "" && c.Key.IsZero() {
		return nil
	}
	if (c.Certificate == "") != c.Key.IsZero() {
		return errors.New("tls_certificate and private_key go together")
	}
	var roots *x509.CertPool
	if c.CA != "" {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(c.CA)) {
			return errors.New("tls_ca holds no certificate in PEM")
		}
	}
	var certs []tls.Certificate
	if c.Certificate != "" {
		pair, err := tls.X509KeyPair([]byte(c.Certificate), []byte(c.Key.Reveal()))
		if err != nil {
			return errors.New("tls_certificate and private_key are not a pair in PEM")
		}
		certs = []tls.Certificate{pair}
	}
	apply := func(old *tls.Config, host string) *tls.Config {
		t := &tls.Config{MinVersion: tls.VersionTLS12}
		if old != nil {
			t = old.Clone()
		}
		if roots != nil {
			// The strictest reading of sslmode: with a CA given there is
			// something to check against.
			t.RootCAs, t.ServerName, t.InsecureSkipVerify, t.VerifyPeerCertificate, t.VerifyConnection = roots, host, false, nil, nil
		}
		if certs != nil {
			t.Certificates = certs
		}
		return t
	}
	if cc.TLSConfig == nil && strings.Contains(c.URL, "sslmode=disable") {
		return errors.New("connection_url says sslmode=disable, but tls_ca or tls_certificate is set")
	}
	cc.TLSConfig = apply(cc.TLSConfig, cc.Host)
	kept := cc.Fallbacks[:0]
	for _, f := range cc.Fallbacks {
		if f.TLSConfig == nil {
			continue // sslmode=prefer would go on without TLS
		}
		f.TLSConfig = apply(f.TLSConfig, f.Host)
		kept = append(kept, f)
	}
	cc.Fallbacks = kept
	return nil
}

// Check says what is wrong with a configuration, without connecting.
func (c Config) Check() error {
	_, err := c.parse()
	return err
}

// Endpoints is where the URL leads: hosts, ports and database. Two
// configurations with the same endpoints are ways into the same place.
func (c Config) Endpoints() (string, error) {
	pc, err := c.parse()
	if err != nil {
		return "", err
	}
	var out []string
	add := func(host string, port uint16) {
		at := fmt.Sprintf("%s:%d", host, port)
		if len(out) == 0 || out[len(out)-1] != at {
			out = append(out, at)
		}
	}
	add(pc.ConnConfig.Host, pc.ConnConfig.Port)
	for _, f := range pc.ConnConfig.Fallbacks {
		add(f.Host, f.Port)
	}
	return strings.Join(out, ",") + "/" + pc.ConnConfig.Database, nil
}

// Redacted is the URL as it may be shown: a password written into it is
// replaced by asterisks.
func Redacted(raw string) string {
	if u, err := url.Parse(strings.NewReplacer("{{username}}", userMarker, "{{password}}", passwordMarker).Replace(raw)); err == nil && u.Scheme != "" {
		if pw, ok := u.User.Password(); ok && pw != passwordMarker {
			u.User = url.UserPassword(u.User.Username(), "*****")
		}
		v, secret := u.Query(), false
		for k := range v {
			if isPassword(k) {
				v.Set(k, "*****")
				secret = true
			}
		}
		if secret {
			u.RawQuery = v.Encode()
		}
		return strings.NewReplacer(userMarker, "{{username}}", passwordMarker, "{{password}}").Replace(u.String())
	}
	var out strings.Builder
	for raw != "" {
		eq := strings.IndexByte(raw, '=')
		if eq < 0 {
			break
		}
		value := strings.TrimLeft(raw[eq+1:], spaces)
		n := valueLength(value)
		if isPassword(strings.Trim(raw[:eq], spaces)) && value[:n] != "{{password}}" && value[:n] != "'{{password}}'" {
			out.WriteString(raw[:eq+1] + "*****")
		} else {
			out.WriteString(raw[:len(raw)-len(value)+n])
		}
		raw = value[n:]
	}
	return out.String() + raw
}

func isPassword(key string) bool { return strings.HasSuffix(strings.ToLower(key), "password") }

const spaces = " \t\n\r\v\f"

// valueLength is how long the value is that the rest of a "key=value" text
// begins with: in quotes, or up to a space. A backslash takes the character
// behind it along.
func valueLength(s string) int {
	quoted := strings.HasPrefix(s, "'")
	for i := range len(s) {
		switch c := s[i]; {
		case i > 0 && s[i-1] == '\\' && escaping(s[:i]):
		case quoted && i > 0 && c == '\'':
			return i + 1
		case !quoted && strings.IndexByte(spaces, c) >= 0:
			return i
		}
	}
	return len(s)
}

// escaping reports whether the backslash that s ends in is not escaped itself.
func escaping(s string) bool { return (len(s)-len(strings.TrimRight(s, `\`)))%2 == 1 }

// connectHook fills in the password that is believed to work.
func (t *Target) connectHook(_ context.Context, cc *pgx.ConnConfig) error {
	if t.templated {
		cc.Password = t.password().Reveal()
	}
	cc.OnNotice = t.notice
	return nil
}

// notice collects the warnings of a session for whoever runs statements on it.
func (t *Target) notice(c *pgconn.PgConn, n *pgconn.Notice) {
	if s := sessionOf(c); s != nil && s.notices != nil {
		*s.notices = append(*s.notices, (*pgconn.PgError)(n))
	}
}
