package sys

import (
	"context"
	"net/textproto"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// CORS keeps which web pages may call the API.
type CORS interface {
	CORS(ctx context.Context) (CORSConfig, error)
	SetCORS(ctx context.Context, c CORSConfig) error
}

// CORSConfig is the zero value while no page may.
type CORSConfig struct {
	Enabled     bool
	Origins     []string // "*" alone: any
	Headers     []string // all that a page may send, StandardHeaders among them
	Credentials bool
}

// StandardHeaders are the headers that a page may send whatever was configured.
var StandardHeaders = []string{
	"Content-Type", "X-Requested-With", "X-Vault-AWS-IAM-Server-ID", "X-Vault-MFA", "X-Vault-Namespace",
	"X-Vault-No-Request-Forwarding", "X-Vault-Wrap-Format", "X-Vault-Wrap-TTL", "X-Vault-Policy-Override",
	"Authorization", "X-Vault-Token", "X-Vault-Request",
}

func (e *Engine) configRoutes(t *route.Table) {
	top, sudo := route.InForm(route.TopLevel), route.Sudo()
	route.Read(t, "config/cors", e.readCORS, top, sudo, route.Doc("Read which web pages may call the API."))
	route.Write(t, "config/cors", e.writeCORS, sudo, route.Doc("Let web pages call the API."))
	route.Delete(t, "config/cors", e.deleteCORS, sudo, route.Doc("Let no web page call the API."))
	route.Read(t, "config/state/sanitized", e.sanitized, route.Doc("Read the server's configuration without its secrets."))
	route.Write(t, "config/reload/{subsystem}", e.reload, route.Doc("Read a part of the configuration again."))

	route.List(t, "config/ui/headers", e.listUIHeaders, sudo, route.Doc("List the headers that the UI answers with."))
	folds := route.Folds(strings.ToLower)
	route.Read(t, "config/ui/headers/{header}", e.readUIHeader, sudo, folds, route.Doc("Read a header that the UI answers with."))
	route.Write(t, "config/ui/headers/{header}", e.writeUIHeader, sudo, folds, route.Doc("Set a header that the UI answers with."))
	route.Delete(t, "config/ui/headers/{header}", e.deleteUIHeader, sudo, folds, route.Doc("Remove a header that the UI answers with."))
}

type corsOut struct {
	Enabled     bool     `json:"enabled"`
	Origins     []string `json:"allowed_origins,omitempty"`
	Headers     []string `json:"allowed_headers,omitempty"`
	Credentials bool     `json:"allow_credentials"`
}

func (e *Engine) readCORS(ctx context.Context, _ *route.Request, _ route.None) (corsOut, error) {
	c, err := e.cfg.CORS.CORS(ctx)
	return corsOut(c), err
}

type corsIn struct {
	Enabled     wire.Opt[bool] `json:"enabled"`
	Enable      wire.Opt[bool] `json:"enable" doc:"false is the same as deleting."`
	Origins     wire.CSV       `json:"allowed_origins" doc:"Origins of the pages; * alone is any."`
	Headers     wire.CSV       `json:"allowed_headers" doc:"Headers that pages may send beside the usual."`
	Credentials bool           `json:"allow_credentials"`
}

func (e *Engine) writeCORS(ctx context.Context, req *route.Request, in corsIn) (route.None, error) {
	switch {
	case !in.Enable.Or(in.Enabled.Or(true)):
		return e.deleteCORS(ctx, req, route.None{})
	case len(in.Origins) == 0:
		return route.None{}, errs.New(errs.Invalid, "at least one origin or the wildcard must be provided")
	case len(in.Origins) > 1 && slices.Contains(in.Origins, "*"):
		return route.None{}, errs.New(errs.Invalid, "to allow all origins the '*' must be the only value for allowed_origins")
	case in.Credentials && slices.Contains(in.Origins, "*"):
		return route.None{}, errs.New(errs.Invalid, "allow_credentials cannot be combined with the origin '*'")
	}
	headers := slices.Clone(StandardHeaders)
	for _, h := range in.Headers {
		if h = textproto.CanonicalMIMEHeaderKey(h); !slices.Contains(headers, h) {
			headers = append(headers, h)
		}
	}
	return route.None{}, e.cfg.CORS.SetCORS(ctx, CORSConfig{
		Enabled: true, Origins: in.Origins, Headers: headers, Credentials: in.Credentials,
	})
}

func (e *Engine) deleteCORS(ctx context.Context, _ *route.Request, _ route.None) (route.None, error) {
	return route.None{}, e.cfg.CORS.SetCORS(ctx, CORSConfig{})
}

func (e *Engine) sanitized(context.Context, *route.Request, route.None) (wire.Data, error) {
	return e.cfg.Sanitized(), nil
}

type subsystemIn struct {
	Subsystem string `json:"subsystem" doc:"listener: its certificates."`
}

func (e *Engine) reload(_ context.Context, _ *route.Request, in subsystemIn) (route.None, error) {
	return route.None{}, e.cfg.Reload(in.Subsystem)
}

// uiHeaderRow is a header that the UI answers with, stored under
// ui-header/<name in lower case>. Version 1.
type uiHeaderRow struct {
	V      int      `json:"v"`
	Name   string   `json:"name"`
	Values []string `json:"values"`
}

const uiHeaderPrefix = "ui-header/"

func uiHeaderKey(name string) string { return uiHeaderPrefix + strings.ToLower(name) }

func (e *Engine) listUIHeaders(ctx context.Context, _ *route.Request, _ route.None) (route.Keys, error) {
	var names []string
	var bad error
	err := e.store.View(ctx, func(v storage.View) error {
		return v.Scan(uiHeaderPrefix, storage.PrefixEnd(uiHeaderPrefix), 0, func(_ string, b []byte) bool {
			var row uiHeaderRow
			if bad = wire.Unmarshal(b, &row); bad != nil {
				return false
			}
			names = append(names, row.Name)
			return true
		})
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(names)
}

type uiHeaderReadIn struct {
	headerIn
	Multivalue bool `json:"multivalue"`
}

type uiHeaderOut struct {
	Value  string   `json:"value,omitempty"`
	Values []string `json:"values,omitempty"`
}

func (e *Engine) readUIHeader(ctx context.Context, _ *route.Request, in uiHeaderReadIn) (uiHeaderOut, error) {
	var row uiHeaderRow
	err := e.store.View(ctx, func(v storage.View) error {
		b, err := v.Get(uiHeaderKey(in.Header))
		if err == nil && b == nil {
			err = errs.Gone
		}
		if err != nil {
			return err
		}
		return wire.Unmarshal(b, &row)
	})
	if err != nil {
		return uiHeaderOut{}, err
	}
	if in.Multivalue {
		return uiHeaderOut{Values: row.Values}, nil
	}
	return uiHeaderOut{Value: strings.Join(row.Values, " ")}, nil
}

type uiHeaderIn struct {
	headerIn
	Values     wire.CSV `json:"values" doc:"The header's values."`
	Multivalue bool     `json:"multivalue"`
}

func (e *Engine) writeUIHeader(ctx context.Context, _ *route.Request, in uiHeaderIn) (route.None, error) {
	if len(in.Values) == 0 {
		return route.None{}, errs.New(errs.Invalid, "header values must be set")
	}
	if strings.HasPrefix(strings.ToLower(in.Header), "x-vault-") {
		return route.None{}, errs.New(errs.Invalid, "X-Vault headers cannot be set")
	}
	for _, v := range in.Values {
		if strings.ContainsAny(v, "\r\n\x00") {
			return route.None{}, errs.New(errs.Invalid, "a header's value has no line breaks")
		}
	}
	row := uiHeaderRow{V: 1, Name: textproto.CanonicalMIMEHeaderKey(in.Header), Values: in.Values}
	_, err := e.store.Update(ctx, func(tx storage.Tx) error {
		return tx.Put(uiHeaderKey(in.Header), wire.Marshal(&row))
	})
	return route.None{}, err
}

func (e *Engine) deleteUIHeader(ctx context.Context, _ *route.Request, in headerIn) (route.None, error) {
	_, err := e.store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(uiHeaderKey(in.Header)) })
	return route.None{}, err
}
