package jwt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/auth/claims"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

// issuer is what a configuration means: whose signatures count.
type issuer struct {
	conf   *configRow
	static []claims.Key
	sets   []*remote[[]claims.Key] // tried in order
	disc   *remote[discovery]      // nil: no discovery address
	client *http.Client            // for the provider of disc
	all    []*http.Client
}

// discovery is what a provider says of itself (OpenID Connect Discovery 1.0).
type discovery struct {
	Issuer     string   `json:"issuer"`
	Authorize  string   `json:"authorization_endpoint"`
	Token      string   `json:"token_endpoint"`
	UserInfo   string   `json:"userinfo_endpoint"`
	Keys       string   `json:"jwks_uri"`
	ClientAuth []string `json:"token_endpoint_auth_methods_supported"`
}

// wellKnown is where a provider's discovery document lies.
const wellKnown = ".well-known/openid-configuration"

// newIssuer reads a configuration that was checked. It asks nobody.
func (e *Engine) newIssuer(conf *configRow) (*issuer, error) {
	is := &issuer{conf: conf}
	for _, text := range conf.PublicKeys {
		k, err := claims.ParsePEM(text)
		if err != nil {
			return nil, errs.New(errs.Invalid, "error parsing public key: %v", err)
		}
		is.static = append(is.static, k)
	}
	pairs := conf.Pairs
	if conf.KeysURL != "" {
		pairs = []pair{{conf.KeysURL, conf.KeysCA}}
	}
	for _, p := range pairs {
		c, err := is.newClient("jwks_ca_pem", p.CA)
		if err != nil {
			return nil, err
		}
		is.sets = append(is.sets, &remote[[]claims.Key]{eng: e, fetch: func(ctx context.Context) ([]claims.Key, error) {
			return fetchKeys(ctx, c, p.URL)
		}})
	}
	if conf.DiscoveryURL == "" {
		return is, nil
	}
	c, err := is.newClient("oidc_discovery_ca_pem", conf.DiscoveryCA)
	if err != nil {
		return nil, err
	}
	is.client = c
	is.disc = &remote[discovery]{eng: e, fetch: func(ctx context.Context) (discovery, error) {
		return discover(ctx, c, conf.DiscoveryURL)
	}}
	is.sets = append(is.sets, &remote[[]claims.Key]{eng: e, fetch: func(ctx context.Context) ([]claims.Key, error) {
		d, err := is.disc.get(ctx, false)
		if err != nil {
			return nil, err
		}
		return fetchKeys(ctx, c, d.Keys)
	}})
	return is, nil
}

func fetchKeys(ctx context.Context, c *http.Client, url string) ([]claims.Key, error) {
	body, err := fetch(ctx, c, url)
	if err != nil {
		return nil, err
	}
	keys, err := claims.ParseKeySet(body)
	if err != nil {
		return nil, fmt.Errorf("reading the key set at %s: %w", url, err)
	}
	return keys, nil
}

func discover(ctx context.Context, c *http.Client, base string) (d discovery, err error) {
	body, err := fetch(ctx, c, strings.TrimSuffix(base, "/")+"/"+wellKnown)
	if err != nil {
		return d, err
	}
	if err := wire.Unmarshal(body, &d); err != nil {
		return d, fmt.Errorf("the discovery document of %s is no JSON: %w", base, err)
	}
	// Without this, whoever can answer for one issuer could name another's.
	// Of the slash at its end people are never sure.
	if strings.TrimSuffix(d.Issuer, "/") != strings.TrimSuffix(base, "/") {
		return d, fmt.Errorf("issuer did not match the returned issuer, expected %q got %q", base, d.Issuer)
	}
	if d.Keys == "" {
		return d, fmt.Errorf("the discovery document of %s names no jwks_uri", base)
	}
	return d, nil
}

// newClient makes the client for addresses whose certificates lead to ca, or
// to the system's authorities where it is empty. field is named in the error.
func (is *issuer) newClient(field, ca string) (*http.Client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, errs.New(errs.Invalid, "error checking %s: could not parse CA PEM value successfully", field)
		}
	}
	if names := is.conf.ServerNames; len(names) > 0 {
		// The check that is switched off here is made below, against the
		// names that the operator gave in place of the address's.
		conf.InsecureSkipVerify = true
		conf.VerifyConnection = func(cs tls.ConnectionState) error { return verifyName(cs, names, conf.RootCAs) }
	}
	c := &http.Client{
		Timeout: fetchLimit, CheckRedirect: followPublic,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: conf, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 4, MaxConnsPerHost: 64, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		},
	}
	is.all = append(is.all, c)
	return c, nil
}

// followPublic follows redirects of documents that anybody may read. One of a
// request with a code, the client's secret or a token would take those along.
func followPublic(_ *http.Request, via []*http.Request) error {
	if via[0].Method != http.MethodGet || via[0].Header.Get("Authorization") != "" {
		return http.ErrUseLastResponse
	}
	if len(via) >= 5 {
		return errors.New("stopped after 5 redirects")
	}
	return nil
}

func verifyName(cs tls.ConnectionState, names []string, roots *x509.CertPool) error {
	between := x509.NewCertPool()
	for _, cert := range cs.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	var err error
	for _, name := range names {
		if _, err = cs.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: between}); err == nil {
			return nil
		}
	}
	return err
}

func (is *issuer) close() {
	for _, c := range is.all {
		c.CloseIdleConnections()
	}
}

// errSilent is what a login reads whose keys could not be fetched.
func errSilent(cause error) error {
	return errs.Wrap(errs.Upstream, cause, "the server that has the keys for these logins did not answer as it should; try again, and see the server's log for the cause")
}

// verify gives the claims of a token that somebody trusted has signed.
func (is *issuer) verify(ctx context.Context, text string) (claims.Set, error) {
	t, err := claims.Parse(text)
	if err != nil {
		return claims.Set{}, err
	}
	set, err := is.verifyParsed(ctx, t)
	if err != nil {
		return claims.Set{}, err
	}
	if len(is.conf.Algorithms) > 0 && !slices.Contains(is.conf.Algorithms, t.Alg) {
		return claims.Set{}, claims.ErrAlgorithm
	}
	return set, nil
}

func (is *issuer) verifyParsed(ctx context.Context, t *claims.Token) (claims.Set, error) {
	if len(is.static) > 0 {
		return t.Verify(is.static)
	}
	var silent error
	for _, s := range is.sets {
		for _, again := range []bool{false, true} { // the issuer may have changed its keys
			keys, err := s.get(ctx, again)
			if err != nil {
				silent = err
				break
			}
			set, err := t.Verify(keys)
			if !errors.Is(err, claims.ErrSignature) {
				return set, err
			}
		}
	}
	if silent != nil {
		return claims.Set{}, errSilent(silent)
	}
	return claims.Set{}, claims.ErrSignature
}

// try asks for all that a configuration names, to see whether it can be had.
func (is *issuer) try(ctx context.Context) error {
	for _, s := range is.sets {
		if _, err := s.get(ctx, false); err != nil {
			return err
		}
	}
	return nil
}
