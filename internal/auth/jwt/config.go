package jwt

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/auth/claims"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// configRow is the configuration as it is stored under "config". Version 1.
// ID is drawn anew at each write: what is kept in memory of a configuration is
// kept under it.
type configRow struct {
	V               int           `json:"v"`
	ID              string        `json:"id"`
	PublicKeys      []string      `json:"pem,omitempty"`
	KeysURL         string        `json:"jwks,omitempty"`
	KeysCA          string        `json:"jwksca,omitempty"`
	Pairs           []pair        `json:"pairs,omitempty"`
	DiscoveryURL    string        `json:"disc,omitempty"`
	DiscoveryCA     string        `json:"discca,omitempty"`
	ClientID        string        `json:"client,omitempty"`
	ClientSecret    secret.String `json:"secret"`
	ResponseMode    string        `json:"mode,omitempty"`
	ResponseTypes   []string      `json:"types,omitempty"`
	DefaultRole     string        `json:"role,omitempty"`
	BoundIssuer     string        `json:"iss,omitempty"`
	Algorithms      []string      `json:"algs,omitempty"`
	Provider        wire.Object   `json:"provider,omitempty"`
	ServerNames     []string      `json:"names,omitempty"`
	NamespaceStated bool          `json:"nsstate,omitempty"`
}

const (
	rowConfig     = "config"
	configVersion = 1
)

// pair is one of several key sets.
type pair struct {
	URL string `json:"jwks_url" doc:"Address of a key set."`
	CA  string `json:"jwks_ca_pem" doc:"Authorities (PEM) that its server's certificate must lead to."`
}

type configIn struct {
	PublicKeys      wire.CSV       `json:"jwt_validation_pubkeys" doc:"Public keys or certificates (PEM) that tokens are signed with."`
	KeysURL         string         `json:"jwks_url" doc:"Address of a key set (JWKS)."`
	KeysCA          string         `json:"jwks_ca_pem" doc:"Authorities (PEM) that the certificate at jwks_url must lead to; empty: the system's."`
	Pairs           []pair         `json:"jwks_pairs" doc:"Several key sets: objects with jwks_url and jwks_ca_pem."`
	DiscoveryURL    string         `json:"oidc_discovery_url" doc:"Address of an OpenID Connect provider: its issuer, below which the discovery document lies."`
	DiscoveryCA     string         `json:"oidc_discovery_ca_pem" doc:"Authorities (PEM) that the provider's certificate must lead to; empty: the system's."`
	ClientID        string         `json:"oidc_client_id" doc:"What the provider calls this server, for logins by browser."`
	ClientSecret    secret.String  `json:"oidc_client_secret" doc:"The secret that goes with it."`
	ResponseMode    string         `json:"oidc_response_mode" doc:"How the provider sends the browser back: query, which is the default, or form_post."`
	ResponseTypes   wire.CSV       `json:"oidc_response_types" doc:"What the browser brings: code, which is the default, or id_token, which needs form_post."`
	DefaultRole     string         `json:"default_role" doc:"Role of logins that name none."`
	BoundIssuer     string         `json:"bound_issuer" doc:"The claim iss that tokens must have; empty: any."`
	Algorithms      wire.CSV       `json:"jwt_supported_algs" doc:"Algorithms that tokens may be signed with; empty: RS, ES and PS with 256, 384 and 512, and EdDSA."`
	Provider        wire.Object    `json:"provider_config" doc:"Peculiarities of a provider: its name is under provider."`
	ServerNames     wire.CSV       `json:"override_allowed_server_names" doc:"Names that the servers' certificates may be for, in place of those in the addresses."`
	NamespaceStated wire.Opt[bool] `json:"namespace_in_state" doc:"Pass a namespace in the parameter state, so that one redirect address serves all namespaces; true unless said otherwise."`
	SkipCheck       bool           `json:"skip_jwks_validation" doc:"Warn instead of failing when an address cannot be read now."`
}

type configOut struct {
	BoundIssuer     string      `json:"bound_issuer"`
	DefaultRole     string      `json:"default_role"`
	KeysCA          string      `json:"jwks_ca_pem"`
	Pairs           []pair      `json:"jwks_pairs"`
	KeysURL         string      `json:"jwks_url"`
	Algorithms      []string    `json:"jwt_supported_algs"`
	PublicKeys      []string    `json:"jwt_validation_pubkeys"`
	NamespaceStated bool        `json:"namespace_in_state"`
	ClientID        string      `json:"oidc_client_id"`
	DiscoveryCA     string      `json:"oidc_discovery_ca_pem"`
	DiscoveryURL    string      `json:"oidc_discovery_url"`
	ResponseMode    string      `json:"oidc_response_mode"`
	ResponseTypes   []string    `json:"oidc_response_types"`
	ServerNames     []string    `json:"override_allowed_server_names"`
	Provider        wire.Object `json:"provider_config"`
	Status          string      `json:"status"`
}

// What oidc_response_types and oidc_response_mode may be.
const (
	typeCode  = "code"
	typeToken = "id_token"
	modeQuery = "query"
	modeForm  = "form_post"
)

// flows says whether logins by browser are possible.
func (c *configRow) flows() bool { return c.DiscoveryURL != "" && c.ClientID != "" }

// asksFor reports whether the browser is to bring something.
func (c *configRow) asksFor(what string) bool {
	return len(c.ResponseTypes) == 0 && what == typeCode || slices.Contains(c.ResponseTypes, what)
}

func configOf(r storage.Reader) (*configRow, error) {
	b, err := r.Get(rowConfig)
	if err != nil || b == nil {
		return nil, err
	}
	row := new(configRow)
	if err := wire.Unmarshal(b, row); err != nil {
		return nil, err
	}
	if row.V > configVersion {
		return nil, errs.New(errs.Internal, "the configuration has version %d, written by a newer server", row.V)
	}
	return row, nil
}

// issuerOf is what a configuration means, made once per configuration.
func (e *Engine) issuerOf(conf *configRow) (*issuer, error) {
	old := e.issuer.Load()
	if old != nil && old.conf.ID == conf.ID {
		return old, nil
	}
	is, err := e.newIssuer(conf)
	if err != nil {
		return nil, err
	}
	if e.issuer.CompareAndSwap(old, is) && old != nil {
		old.close()
	}
	return is, nil
}

func (e *Engine) readConfig(ctx context.Context, req *route.Request, _ route.None) (configOut, error) {
	var conf *configRow
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		conf, err = configOf(v)
		return err
	})
	if err == nil && conf == nil {
		err = errs.Gone
	}
	if err != nil {
		return configOut{}, err
	}
	status := "valid"
	is, err := e.issuerOf(conf)
	if err == nil {
		err = is.try(ctx)
	}
	if err != nil {
		status = "invalid"
		req.Warn("the keys cannot be had: %v", err)
	}
	return configOut{
		BoundIssuer: conf.BoundIssuer, DefaultRole: conf.DefaultRole, KeysCA: conf.KeysCA, KeysURL: conf.KeysURL, Pairs: conf.Pairs,
		Algorithms: conf.Algorithms, PublicKeys: conf.PublicKeys, NamespaceStated: conf.NamespaceStated, ClientID: conf.ClientID,
		DiscoveryCA: conf.DiscoveryCA, DiscoveryURL: conf.DiscoveryURL, ResponseMode: conf.ResponseMode,
		ResponseTypes: conf.ResponseTypes, ServerNames: conf.ServerNames, Provider: orEmpty(conf.Provider), Status: status,
	}, nil
}

func orEmpty(o wire.Object) wire.Object {
	if len(o) == 0 {
		return wire.Object("{}")
	}
	return o
}

// writeConfig replaces the configuration as a whole, as Vault does.
func (e *Engine) writeConfig(ctx context.Context, req *route.Request, in configIn) (route.None, error) {
	conf := &configRow{
		V: configVersion, ID: rand.Text(), PublicKeys: in.PublicKeys, KeysURL: in.KeysURL, KeysCA: in.KeysCA, Pairs: in.Pairs,
		DiscoveryURL: in.DiscoveryURL, DiscoveryCA: in.DiscoveryCA, ClientID: in.ClientID, ClientSecret: in.ClientSecret,
		ResponseMode: in.ResponseMode, ResponseTypes: in.ResponseTypes, DefaultRole: strings.ToLower(in.DefaultRole),
		BoundIssuer: in.BoundIssuer, Algorithms: in.Algorithms, Provider: in.Provider, ServerNames: in.ServerNames,
	}
	if base, _, found := strings.Cut(conf.DiscoveryURL, wellKnown); found {
		req.Warn("oidc_discovery_url is the issuer's address without %s; it was taken as %q", wellKnown, base)
		conf.DiscoveryURL = base
	}
	if err := conf.check(); err != nil {
		return route.None{}, err
	}
	is, err := e.newIssuer(conf)
	if err != nil {
		return route.None{}, err
	}
	defer is.close()
	if err := is.try(ctx); err != nil {
		what := "jwks URL"
		if conf.DiscoveryURL != "" {
			what = "oidc discovery URL"
		}
		if !in.SkipCheck {
			return route.None{}, errs.New(errs.Invalid, "error checking %s: %v", what, err)
		}
		req.Warn("error checking %s: %v", what, err)
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		old, err := configOf(tx)
		if err != nil {
			return err
		}
		conf.NamespaceStated = in.NamespaceStated.Or(old == nil || old.NamespaceStated)
		return tx.Put(rowConfig, wire.Marshal(conf))
	})
	return route.None{}, err
}

// check refuses what makes no sense, without asking anybody.
func (c *configRow) check() error {
	sources := 0
	for _, given := range []bool{len(c.PublicKeys) > 0, c.KeysURL != "", len(c.Pairs) > 0, c.DiscoveryURL != ""} {
		if given {
			sources++
		}
	}
	switch {
	case sources != 1:
		return errs.New(errs.Invalid, "exactly one of 'jwt_validation_pubkeys', 'jwks_url', 'jwks_pairs', 'oidc_discovery_url' must be set")
	case (c.ClientID == "") != c.ClientSecret.IsZero():
		return errs.New(errs.Invalid, "both 'oidc_client_id' and 'oidc_client_secret' must be set for OIDC")
	case c.ClientID != "" && c.DiscoveryURL == "":
		return errs.New(errs.Invalid, "'oidc_discovery_url' must be set for OIDC")
	}
	for _, p := range c.Pairs {
		if p.URL == "" {
			return errs.New(errs.Invalid, "jwks_pairs: each is an object with a jwks_url and maybe a jwks_ca_pem")
		}
	}
	for _, a := range c.Algorithms {
		if !slices.Contains(claims.Algorithms, a) {
			return errs.New(errs.Invalid, "invalid jwt_supported_algs: unsupported signing algorithm %q; there are %s", a, strings.Join(claims.Algorithms, ", "))
		}
	}
	for _, t := range c.ResponseTypes {
		if t != typeCode && t != typeToken {
			return errs.New(errs.Invalid, "invalid response_types %v. 'code' and 'id_token' are allowed", c.ResponseTypes)
		}
	}
	switch c.ResponseMode {
	case "", modeQuery:
		if c.asksFor(typeToken) {
			return errs.New(errs.Invalid, "query response_mode may not be used with an id_token response_type: set oidc_response_mode to form_post")
		}
	case modeForm:
	default:
		return errs.New(errs.Invalid, "invalid response_mode: %q; there are query and form_post", c.ResponseMode)
	}
	return c.checkProvider()
}

// checkProvider takes what changes nothing here, and refuses the peculiarities
// without which the provider's logins would lack something.
func (c *configRow) checkProvider() error {
	if c.Provider.Len() == 0 {
		return nil
	}
	switch name := c.provider(); name {
	case "azure", "secureauth":
		return nil
	case "":
		return errs.New(errs.Invalid, "invalid provider_config: 'provider' field not found in provider_config")
	default:
		return errs.New(errs.Invalid, "invalid provider_config: provider %q is not supported; without provider_config any OpenID Connect provider is", name)
	}
}

// provider is the name of the provider whose peculiarities count.
func (c *configRow) provider() string {
	v, _ := c.Provider.Get("provider")
	name, _ := v.Text()
	return name
}

// roleName is the role that a login asks for.
func (c *configRow) roleName(asked string) (string, error) {
	if asked == "" {
		asked = c.DefaultRole
	}
	if asked == "" {
		return "", errs.New(errs.Invalid, "missing role")
	}
	return strings.ToLower(asked), nil
}

var errNoConfig = errs.New(errs.Invalid, "could not load configuration: the mount's config has yet to be written")

// errRole says that there is no such role.
func errRole(name string) error { return errs.New(errs.Invalid, "role %q could not be found", name) }
