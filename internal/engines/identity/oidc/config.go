package oidc

import (
	"context"
	"net/url"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

const configKey = "oidc/config"

// configRow is what was configured for identity tokens. Version 1.
type configRow struct {
	row
	Issuer string `json:"iss"` // scheme and host; "": the server's address
}

type configOut struct {
	Issuer string `json:"issuer"`
}

func (e *Engine) readConfig(ctx context.Context, _ *route.Request, _ route.None) (configOut, error) {
	c, err := load[configRow](ctx, e, configKey)
	if err != nil || c == nil {
		return configOut{}, err
	}
	return configOut{c.Issuer}, nil
}

type configIn struct {
	Issuer wire.Opt[string] `json:"issuer" doc:"Scheme, host and port that the issuer of tokens begins with; empty is the server's api_addr."`
}

func (e *Engine) writeConfig(ctx context.Context, req *route.Request, in configIn) (route.None, error) {
	if !in.Issuer.Set {
		return route.None{}, nil
	}
	issuer, err := cleanIssuer(in.Issuer.Value)
	if err != nil {
		return route.None{}, err
	}
	c := configRow{row: v1, Issuer: issuer}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Put(configKey, wire.Marshal(&c)) })
	if err == nil && issuer != "" {
		req.Warn(`If "issuer" is set explicitly, all tokens must be validated against that address, including those issued by secondary clusters. ` +
			`Setting issuer to "" will restore the default behavior of using the cluster's api_addr as the issuer.`)
	}
	return route.None{}, err
}

// cleanIssuer checks what an issuer begins with.
func cleanIssuer(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" ||
		u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", errs.New(errs.Invalid, "invalid issuer, which must include only a scheme, host, and optional port (e.g. https://example.com:8200)")
	}
	return u.Scheme + "://" + u.Host, nil
}

// issuer is that of identity tokens of a request's namespace.
func (e *Engine) issuer(ctx context.Context, req *route.Request) (string, error) {
	c, err := load[configRow](ctx, e, configKey)
	if err != nil {
		return "", err
	}
	base := e.address
	if c != nil && c.Issuer != "" {
		base = c.Issuer
	}
	return base + apiPath(req), nil
}

// apiPath is where the endpoints of a request's mount begin.
func apiPath(req *route.Request) string {
	return "/v1/" + req.Mount.NamespacePath + req.Mount.Path + "oidc"
}
