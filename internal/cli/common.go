package cli

import (
	"net/http"
	"strings"

	"github.com/leasehold/leasehold/api"
)

// commonFlags are the flags of every command that talks to a server.
type commonFlags struct {
	address, agentAddress                   string
	caCert, caPath, clientCert, clientKey   string
	tlsServerName, namespace, wrapTTL       string
	format, unlockKey                       string
	headers, mfa                            []string
	tlsSkipVerify                           *bool
	disableRedirects, outputCurl, outputPol bool
	policyOverride, nonInteractive          bool
}

func (f *commonFlags) flags(cmd *command) []*flag {
	out := []*flag{
		stringFlag(&f.address, "address", "URL", "The server: http://…, https://… or unix:///… (VAULT_ADDR)."),
		stringFlag(&f.caCert, "ca-cert", "FILE", "PEM file of the authority to trust (VAULT_CACERT)."),
		stringFlag(&f.caPath, "ca-path", "DIR", "Directory of such files (VAULT_CAPATH)."),
		stringFlag(&f.clientCert, "client-cert", "FILE", "PEM file of the client's certificate (VAULT_CLIENT_CERT)."),
		stringFlag(&f.clientKey, "client-key", "FILE", "PEM file of its key (VAULT_CLIENT_KEY)."),
		stringFlag(&f.tlsServerName, "tls-server-name", "NAME", "Name that the server's certificate must carry (VAULT_TLS_SERVER_NAME)."),
		optBoolFlag(&f.tlsSkipVerify, "tls-skip-verify", "Trust any certificate: for trying things out only (VAULT_SKIP_VERIFY)."),
		stringFlag(&f.namespace, "namespace", "PATH", "Namespace to work in (VAULT_NAMESPACE).").alias("ns"),
		listFlag(&f.headers, "header", "KEY=VALUE", "Header to send; may be repeated."),
		stringFlag(&f.wrapTTL, "wrap-ttl", "DURATION", "Ask for the reply wrapped in a token that lives this long (VAULT_WRAP_TTL)."),
		boolFlag(&f.outputCurl, "output-curl-string", "Print the request as a curl command instead of sending it."),
		boolFlag(&f.outputPol, "output-policy", "Print the policy that the request needs instead of sending it."),
		boolFlag(&f.nonInteractive, "non-interactive", "Never ask on the terminal."),
		boolFlag(&f.disableRedirects, "disable-redirects", "Do not follow redirects (VAULT_DISABLE_REDIRECTS)."),
		boolFlag(&f.policyOverride, "policy-override", "Override soft-mandatory policies of servers that have them.").hide(),
		stringFlag(&f.agentAddress, "agent-address", "URL", "Address of a local agent (VAULT_AGENT_ADDR).").hide(),
		listFlag(&f.mfa, "mfa", "METHOD:CODE", "Passcode of a login's MFA method, by its id or name; may be repeated."),
		stringFlag(&f.unlockKey, "unlock-key", "KEY", "Key that unlocks a namespace.").hide(),
	}
	if !cmd.plain {
		out = append([]*flag{stringFlag(&f.format, "format", "FORMAT", "table, json, yaml or raw (VAULT_FORMAT).")}, out...)
	}
	return out
}

// check settles what flags and environment say together.
func (f *commonFlags) check(c *call) error {
	format := f.format
	if format == "" {
		format = api.LookupEnv(c.cfg.Getenv, "FORMAT")
	}
	switch strings.ToLower(format) {
	case "", "table", "pretty":
		c.format = formatTable
	case "json":
		c.format = formatJSON
	case "yaml", "yml":
		c.format = formatYAML
	case "raw":
		c.format = formatRaw
	default:
		return localf("-format=%s: want table, json, yaml or raw", format)
	}
	return nil
}

// config is the client's configuration: environment first, flags over it.
func (f *commonFlags) config(c *call) (api.Config, error) {
	cfg, err := api.ConfigFromEnv(c.cfg.Getenv)
	if err != nil {
		return cfg, localf("%v", err)
	}
	for _, o := range []struct {
		to   *string
		flag string
	}{
		{&cfg.Address, f.address}, {&cfg.Address, f.agentAddress}, {&cfg.Namespace, f.namespace},
		{&cfg.TLS.CACert, f.caCert}, {&cfg.TLS.CAPath, f.caPath},
		{&cfg.TLS.ClientCert, f.clientCert}, {&cfg.TLS.ClientKey, f.clientKey}, {&cfg.TLS.ServerName, f.tlsServerName},
	} {
		if o.flag != "" {
			*o.to = o.flag
		}
	}
	if f.wrapTTL != "" {
		d, err := parseDuration(f.wrapTTL)
		if err != nil {
			return cfg, localf("-wrap-ttl=%s: %v", f.wrapTTL, err)
		}
		cfg.WrapTTL = d.String()
	}
	if f.tlsSkipVerify != nil {
		cfg.TLS.SkipVerify = *f.tlsSkipVerify
	}
	cfg.DisableRedirects = cfg.DisableRedirects || f.disableRedirects
	cfg.Headers = http.Header{}
	for _, h := range f.headers {
		k, v, ok := strings.Cut(h, "=")
		if !ok {
			return cfg, localf("-header=%s: want key=value", h)
		}
		if strings.HasPrefix(http.CanonicalHeaderKey(k), "X-Vault-") {
			return cfg, localf("-header=%s: headers that begin with X-Vault- have flags of their own", h)
		}
		cfg.Headers.Add(k, v)
	}
	for _, factor := range f.mfa {
		cfg.Headers.Add("X-Vault-Mfa", factor)
	}
	if f.policyOverride {
		cfg.Headers.Set("X-Vault-Policy-Override", "true")
	}
	return cfg, nil
}
