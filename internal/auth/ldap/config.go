package ldap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/auth/tokenparams"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// settings are what is stored and answered alike.
type settings struct {
	URL             string   `json:"url"` // one or more, with commas
	StartTLS        bool     `json:"starttls"`
	InsecureTLS     bool     `json:"insecure_tls"`
	Certificate     string   `json:"certificate"`
	TLSMin          string   `json:"tls_min_version"`
	TLSMax          string   `json:"tls_max_version"`
	BindDN          string   `json:"binddn"`
	UserDN          string   `json:"userdn"`
	UserAttr        string   `json:"userattr"`
	UserFilter      string   `json:"userfilter"`
	UPNDomain       string   `json:"upndomain"`
	DiscoverDN      bool     `json:"discoverdn"`
	AnonymousGroups bool     `json:"anonymous_group_search"`
	GroupDN         string   `json:"groupdn"`
	GroupFilter     string   `json:"groupfilter"`
	GroupAttr       string   `json:"groupattr"`
	TokenGroups     bool     `json:"use_token_groups"`
	OldGroupNames   bool     `json:"use_pre111_group_cn_behavior"`
	DenyNullBind    bool     `json:"deny_null_bind"`
	CaseSensitive   bool     `json:"case_sensitive_names"`
	UsernameAsAlias bool     `json:"username_as_alias"`
	RequestTime     wire.TTL `json:"request_timeout"`
	ConnectionTime  wire.TTL `json:"connection_timeout"`
	Dereference     string   `json:"dereference_aliases"`
	PageSize        int      `json:"max_page_size"`
	tokenparams.Params
}

// config is the mount's settings as they are stored. Version 1. Without a row
// they are defaults.
type config struct {
	V          int           `json:"v"`
	BindPass   secret.String `json:"bindpass"`
	ClientCert string        `json:"client_cert"` // PEM
	ClientKey  secret.String `json:"client_key"`  // PEM
	settings
}

const configVersion = 1

func defaults() *config {
	c := &config{V: configVersion, settings: settings{
		URL: "ldap://127.0.0.1", TLSMin: "tls12", TLSMax: "tls12", UserAttr: "cn", UserFilter: "({{.UserAttr}}={{.Username}})",
		GroupAttr: "cn", GroupFilter: "(|(memberUid={{.Username}})(member={{.UserDN}})(uniqueMember={{.UserDN}}))",
		DenyNullBind: true, RequestTime: wire.TTL(90 * time.Second), ConnectionTime: wire.TTL(30 * time.Second), Dereference: "never",
	}}
	c.Params.Type = tokenparams.Default
	return c
}

type configIn struct {
	URL             wire.Opt[string]        `json:"url" doc:"Where the directory is: ldap:// or ldaps://, several with commas; those that do not answer come last."`
	StartTLS        wire.Opt[bool]          `json:"starttls" doc:"Encrypt ldap:// connections before anything is said on them."`
	InsecureTLS     wire.Opt[bool]          `json:"insecure_tls" doc:"Take any certificate from whoever answers."`
	Certificate     wire.Opt[string]        `json:"certificate" doc:"Authorities (PEM) that the directory's certificate must lead to; empty: the system's."`
	ClientCert      wire.Opt[string]        `json:"client_tls_cert" doc:"Our own certificate (PEM), shown to the directory."`
	ClientKey       wire.Opt[secret.String] `json:"client_tls_key" doc:"Its key (PEM)."`
	TLSMin          wire.Opt[string]        `json:"tls_min_version" doc:"tls10, tls11, tls12 or tls13; tls12 unless said otherwise."`
	TLSMax          wire.Opt[string]        `json:"tls_max_version" doc:"tls10, tls11, tls12 or tls13; tls12 unless said otherwise."`
	BindDN          wire.Opt[string]        `json:"binddn" doc:"Whom to bind as to look for people and groups."`
	BindPass        wire.Opt[secret.String] `json:"bindpass" doc:"The password of binddn. It is never answered."`
	UserDN          wire.Opt[string]        `json:"userdn" doc:"Below which entry people are, as in ou=people,dc=example,dc=org."`
	UserAttr        wire.Opt[string]        `json:"userattr" doc:"The attribute that holds the user name; cn unless said otherwise."`
	UserFilter      wire.Opt[string]        `json:"userfilter" doc:"How people are found, with {{.UserAttr}} and {{.Username}}."`
	UPNDomain       wire.Opt[string]        `json:"upndomain" doc:"Bind people as NAME@upndomain, as Active Directory takes it."`
	DiscoverDN      wire.Opt[bool]          `json:"discoverdn" doc:"Look for people anonymously, where there is no binddn."`
	AnonymousGroups wire.Opt[bool]          `json:"anonymous_group_search" doc:"Look for groups anonymously."`
	GroupDN         wire.Opt[string]        `json:"groupdn" doc:"Below which entry groups are; empty: none are looked for."`
	GroupFilter     wire.Opt[string]        `json:"groupfilter" doc:"How a user's groups are found, with {{.UserDN}} and {{.Username}}."`
	GroupAttr       wire.Opt[string]        `json:"groupattr" doc:"The attribute of what groupfilter finds that names groups; cn unless said otherwise."`
	TokenGroups     wire.Opt[bool]          `json:"use_token_groups" doc:"Find groups by the attribute tokenGroups of Active Directory, nested ones too."`
	OldGroupNames   wire.Opt[bool]          `json:"use_pre111_group_cn_behavior" doc:"In a group's DN only CN in capitals is its name."`
	DenyNullBind    wire.Opt[bool]          `json:"deny_null_bind" doc:"Taken for Vault's clients: empty passwords are always refused."`
	CaseSensitive   wire.Opt[bool]          `json:"case_sensitive_names" doc:"Users and groups whose names differ in case only are different ones."`
	UsernameAsAlias wire.Opt[bool]          `json:"username_as_alias" doc:"Identity knows people by the name they log in with, not by what userattr holds."`
	RequestTime     wire.Opt[wire.TTL]      `json:"request_timeout" doc:"How long a conversation with the directory may take; 90 s unless said otherwise."`
	ConnectionTime  wire.Opt[wire.TTL]      `json:"connection_timeout" doc:"How long connecting may take before the next address is tried; 30 s unless said otherwise."`
	Dereference     wire.Opt[string]        `json:"dereference_aliases" doc:"never, finding, searching or always."`
	PageSize        wire.Opt[int]           `json:"max_page_size" doc:"Ask for groups in pages of this many; 0: all at once."`
	tokenparams.Change
}

func getConfig(r storage.Reader) (c *config, there bool, err error) {
	c = defaults()
	b, err := r.Get(rowConfig)
	if err != nil || b == nil {
		return c, false, err
	}
	if err := wire.Unmarshal(b, c); err != nil {
		return nil, false, err
	}
	if c.V > configVersion {
		return nil, false, newer("the configuration", c.V)
	}
	return c, true, nil
}

func (e *Engine) readConfig(ctx context.Context, req *route.Request, _ route.None) (out settings, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		c, _, err := getConfig(v)
		if err != nil {
			return err
		}
		out = c.settings
		c.warn(req)
		return nil
	})
	return out, err
}

func (e *Engine) writeConfig(ctx context.Context, req *route.Request, in configIn) (route.None, error) {
	var c *config
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) (err error) {
		if c, _, err = getConfig(tx); err != nil {
			return err
		}
		if err := in.apply(c); err != nil {
			return err
		}
		if _, err := c.parse(); err != nil {
			return err
		}
		return tx.Put(rowConfig, wire.Marshal(c))
	})
	if err != nil {
		return route.None{}, err
	}
	c.warn(req)
	if !c.DenyNullBind {
		req.Warn("deny_null_bind = false: empty passwords are refused all the same")
	}
	return route.None{}, nil
}

func (in configIn) apply(c *config) error {
	c.V = configVersion
	if v, ok := in.URL.Get(); ok {
		c.URL = strings.ToLower(v)
	}
	in.StartTLS.Apply(&c.StartTLS)
	in.InsecureTLS.Apply(&c.InsecureTLS)
	in.Certificate.Apply(&c.Certificate)
	in.ClientCert.Apply(&c.ClientCert)
	in.ClientKey.Apply(&c.ClientKey)
	in.TLSMin.Apply(&c.TLSMin)
	in.TLSMax.Apply(&c.TLSMax)
	in.BindDN.Apply(&c.BindDN)
	in.BindPass.Apply(&c.BindPass)
	in.UserDN.Apply(&c.UserDN)
	if v, ok := in.UserAttr.Get(); ok {
		c.UserAttr = strings.ToLower(v)
	}
	in.UserFilter.Apply(&c.UserFilter)
	in.UPNDomain.Apply(&c.UPNDomain)
	in.DiscoverDN.Apply(&c.DiscoverDN)
	in.AnonymousGroups.Apply(&c.AnonymousGroups)
	in.GroupDN.Apply(&c.GroupDN)
	in.GroupFilter.Apply(&c.GroupFilter)
	in.GroupAttr.Apply(&c.GroupAttr)
	in.TokenGroups.Apply(&c.TokenGroups)
	in.OldGroupNames.Apply(&c.OldGroupNames)
	in.DenyNullBind.Apply(&c.DenyNullBind)
	in.CaseSensitive.Apply(&c.CaseSensitive)
	in.UsernameAsAlias.Apply(&c.UsernameAsAlias)
	in.RequestTime.Apply(&c.RequestTime)
	in.ConnectionTime.Apply(&c.ConnectionTime)
	in.Dereference.Apply(&c.Dereference)
	in.PageSize.Apply(&c.PageSize)
	return c.Params.Apply(in.Change)
}

// warn tells of a filter by which several people may be one to identity.
func (c *config) warn(req *route.Request) {
	for _, v := range []string{"UserAttr", "Username"} {
		if f, err := parseFilter(c.UserFilter, "UserAttr", "Username"); err == nil && c.UserFilter != "" && !slices.Contains(f.vars, v) {
			req.Warn("userfilter configured does not consider %s and may result in colliding entity aliases on logins", v)
		}
	}
}

// ready is a configuration that a conversation can be held by.
type ready struct {
	*config
	urls   []*url.URL
	users  *filter
	groups *filter // nil: groups are not looked for by a filter
	tls    *tls.Config
	deref  int
}

var (
	tlsVersions = map[string]uint16{"tls10": tls.VersionTLS10, "tls11": tls.VersionTLS11, "tls12": tls.VersionTLS12, "tls13": tls.VersionTLS13}
	derefs      = []string{"never", "searching", "finding", "always"} // by LDAP's numbers
)

// maxURLs is how many addresses a directory may have.
const maxURLs = 16

// parse makes a configuration ready, or says what is wrong with it.
func (c *config) parse() (*ready, error) {
	bad := func(format string, args ...any) error { return errs.New(errs.Invalid, format, args...) }
	r := &ready{config: c, deref: slices.Index(derefs, c.Dereference)}
	for _, s := range strings.Split(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(s))
		if err != nil || u.Scheme != "ldap" && u.Scheme != "ldaps" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return nil, bad("url: %q is no address such as ldaps://ldap.example.com or ldap://ldap.example.com:389", s)
		}
		r.urls = append(r.urls, u)
	}
	var err error
	switch {
	case len(r.urls) > maxURLs:
		return nil, bad("url: at most %d addresses are tried", maxURLs)
	case !isAttribute(c.UserAttr):
		return nil, bad("userattr: %q is no name of an attribute", c.UserAttr)
	case c.GroupAttr != "" && !isAttribute(c.GroupAttr):
		return nil, bad("groupattr: %q is no name of an attribute", c.GroupAttr)
	case r.deref < 0:
		return nil, bad("dereference_aliases must be never, finding, searching or always, not %q", c.Dereference)
	case c.PageSize < 0 || c.PageSize > 100_000:
		return nil, bad("max_page_size must be between 0 and 100000")
	case strings.ContainsAny(c.UPNDomain, "@, "):
		return nil, bad("upndomain: %q is no domain such as example.com", c.UPNDomain)
	case c.RequestTime <= 0 || c.ConnectionTime <= 0:
		return nil, bad("request_timeout and connection_timeout must be at least a second")
	}
	users := c.UserFilter
	if users == "" {
		users = defaults().UserFilter
	}
	if r.users, err = parseFilter(users, "UserAttr", "Username"); err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "invalid userfilter: %v", err)
	}
	if c.GroupFilter != "" {
		if r.groups, err = parseFilter(c.GroupFilter, "UserDN", "Username"); err != nil {
			return nil, errs.Wrap(errs.Invalid, err, "invalid groupfilter: %v", err)
		}
	}
	r.tls, err = c.tlsConfig()
	return r, err
}

func (c *config) tlsConfig() (*tls.Config, error) {
	lo, ok := tlsVersions[c.TLSMin]
	if !ok {
		return nil, errs.New(errs.Invalid, "invalid 'tls_min_version': it is tls10, tls11, tls12 or tls13")
	}
	hi, ok := tlsVersions[c.TLSMax]
	if !ok {
		return nil, errs.New(errs.Invalid, "invalid 'tls_max_version': it is tls10, tls11, tls12 or tls13")
	}
	if hi < lo {
		return nil, errs.New(errs.Invalid, "'tls_max_version' must be greater than or equal to 'tls_min_version'")
	}
	conf := &tls.Config{MinVersion: lo, MaxVersion: hi, InsecureSkipVerify: c.InsecureTLS}
	if c.Certificate != "" {
		if block, _ := pem.Decode([]byte(c.Certificate)); block == nil || block.Type != "CERTIFICATE" {
			return nil, errs.New(errs.Invalid, "failed to parse server tls cert: 'certificate' is no certificate in PEM form")
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM([]byte(c.Certificate)) {
			return nil, errs.New(errs.Invalid, "failed to parse server tls cert: 'certificate' holds a damaged one")
		}
	}
	// One of the two may be written before the other.
	if c.ClientCert != "" && !c.ClientKey.IsZero() {
		pair, err := tls.X509KeyPair([]byte(c.ClientCert), []byte(c.ClientKey.Reveal()))
		if err != nil {
			return nil, errs.Wrap(errs.Invalid, err, "failed to parse client_tls_cert and client_tls_key: %v", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}
