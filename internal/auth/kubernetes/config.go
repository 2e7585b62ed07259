package kubernetes

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

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
	V            int           `json:"v"`
	ID           string        `json:"id"`
	Host         string        `json:"host"` // with its scheme, without a slash at its end
	HostGiven    string        `json:"given"`
	CA           string        `json:"ca,omitempty"`
	Reviewer     secret.String `json:"reviewer"`
	PublicKeys   []string      `json:"pem,omitempty"`
	Issuer       string        `json:"iss,omitempty"`
	AnyIssuer    bool          `json:"anyiss,omitempty"`
	NoLocalFiles bool          `json:"nolocal,omitempty"`
}

const (
	rowConfig     = "config"
	configVersion = 1

	// defaultIssuer is that of the tokens that Kubernetes kept in secrets.
	defaultIssuer = "kubernetes/serviceaccount"
)

type configIn struct {
	Host         string         `json:"kubernetes_host" doc:"Address of the cluster's API server: a URL, or a host with or without a port."`
	CA           string         `json:"kubernetes_ca_cert" doc:"Authorities (PEM) that its certificate must lead to; empty: the pod's, or the system's."`
	Reviewer     secret.String  `json:"token_reviewer_jwt" doc:"Token that may ask for TokenReviews; empty: the pod's own, or that of whoever logs in."`
	PublicKeys   wire.CSV       `json:"pem_keys" doc:"Public keys or certificates (PEM) that the cluster signs tokens with: checked before the API server is asked."`
	Issuer       string         `json:"issuer" doc:"Issuer (iss) that tokens must have, with disable_iss_validation=false. Deprecated: the API server checks it."`
	AnyIssuer    wire.Opt[bool] `json:"disable_iss_validation" doc:"Leave the issuer to the API server; true unless said otherwise. Deprecated."`
	NoLocalFiles bool           `json:"disable_local_ca_jwt" doc:"Use nothing of the pod's own."`
	Annotations  bool           `json:"use_annotations_as_alias_metadata" doc:"Not supported."`
}

type configOut struct {
	NoLocalFiles bool     `json:"disable_local_ca_jwt"`
	AnyIssuer    bool     `json:"disable_iss_validation"`
	Issuer       string   `json:"issuer"`
	CA           string   `json:"kubernetes_ca_cert"`
	Host         string   `json:"kubernetes_host"`
	PublicKeys   []string `json:"pem_keys"`
	ReviewerSet  bool     `json:"token_reviewer_jwt_set"`
	Annotations  bool     `json:"use_annotations_as_alias_metadata"`
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

func (e *Engine) readConfig(ctx context.Context, _ *route.Request, _ route.None) (configOut, error) {
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
	return configOut{
		NoLocalFiles: conf.NoLocalFiles, AnyIssuer: conf.AnyIssuer, Issuer: conf.Issuer, CA: conf.CA, Host: conf.HostGiven,
		PublicKeys: conf.PublicKeys, ReviewerSet: !conf.Reviewer.IsZero(),
	}, nil
}

// writeConfig replaces the configuration as a whole, as Vault does. It asks
// nobody: the cluster may still be on its way up.
func (e *Engine) writeConfig(ctx context.Context, _ *route.Request, in configIn) (route.None, error) {
	conf := &configRow{
		V: configVersion, ID: rand.Text(), HostGiven: in.Host, CA: in.CA, Reviewer: in.Reviewer, PublicKeys: in.PublicKeys,
		Issuer: in.Issuer, AnyIssuer: in.AnyIssuer.Or(true), NoLocalFiles: in.NoLocalFiles,
	}
	if in.Annotations {
		return route.None{}, errs.New(errs.Invalid, "use_annotations_as_alias_metadata is not supported: the metadata of an alias is the service account's name, namespace and uid")
	}
	if !conf.Reviewer.IsZero() {
		if _, err := claims.Parse(conf.Reviewer.Reveal()); err != nil {
			return route.None{}, errs.New(errs.Invalid, "token_reviewer_jwt: it is no signed token of a service account")
		}
	}
	var err error
	if conf.Host, err = hostURL(in.Host); err != nil {
		return route.None{}, err
	}
	if _, err := e.newAPI(conf, conf.CA); err != nil {
		return route.None{}, err
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Put(rowConfig, wire.Marshal(conf)) })
	return route.None{}, err
}

// hostURL makes an address of a host, a host and port, or an address.
func hostURL(given string) (string, error) {
	if given == "" {
		return "", errs.New(errs.Invalid, "no host provided: kubernetes_host is the address of the cluster's API server")
	}
	text := given
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "" {
		return "", errs.New(errs.Invalid, "kubernetes_host: %q is no address such as https://10.0.0.1:6443", given)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// apiServer is a cluster's API server as a configuration has it.
type apiServer struct {
	id, ca   string // of the configuration, and the authorities that counted
	host     string
	keys     []claims.Key
	client   *http.Client
	reviewer secret.String
}

// apiLimit is how long the API server may take over an answer.
const apiLimit = 10 * time.Second

func (e *Engine) newAPI(conf *configRow, ca string) (*apiServer, error) {
	api := &apiServer{id: conf.ID, ca: ca, host: conf.Host}
	for _, text := range conf.PublicKeys {
		k, err := claims.ParsePEM(text)
		if err != nil {
			return nil, errs.New(errs.Invalid, "pem_keys: %v", err)
		}
		api.keys = append(api.keys, k)
	}
	tc := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, errs.New(errs.Invalid, "kubernetes_ca_cert: there is no certificate (PEM) in it")
		}
	}
	api.client = &http.Client{
		Timeout: apiLimit,
		// A redirect would take the reviewer's token along.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: tc, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 8, MaxConnsPerHost: 64, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		},
	}
	return api, nil
}

// apiOf is the API server of a configuration, with what the pod has now: both
// files change while it runs.
func (e *Engine) apiOf(conf *configRow) (*apiServer, error) {
	ca, reviewer := conf.CA, conf.Reviewer
	if !conf.NoLocalFiles {
		if ca == "" {
			ca = local(e.cfg.CA)
		}
		if reviewer.IsZero() {
			reviewer = secret.New(strings.TrimSpace(local(e.cfg.Token)))
		}
	}
	old := e.api.Load()
	api := old
	if old == nil || old.id != conf.ID || old.ca != ca {
		var err error
		if api, err = e.newAPI(conf, ca); err != nil {
			return nil, err
		}
		if e.api.CompareAndSwap(old, api) && old != nil {
			old.client.CloseIdleConnections()
		}
	}
	now := *api
	now.reviewer = reviewer
	return &now, nil
}

// local is a file of the pod; "" outside of one.
func local(name string) string {
	b, _ := os.ReadFile(name)
	return string(b)
}
