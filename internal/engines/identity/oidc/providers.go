package oidc

import (
	"context"
	"net/http"
	"slices"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

const providerPrefix = "oidc/provider/"

// providerRow is an OpenID Connect provider. Version 1.
type providerRow struct {
	row
	Issuer    string   `json:"iss,omitempty"` // scheme and host; "": the server's address
	ClientIDs []string `json:"cids,omitempty"`
	Scopes    []string `json:"scopes,omitempty"`
}

func defaultProvider() *providerRow { return &providerRow{row: v1, ClientIDs: []string{"*"}} }

// allows reports whether a client may use the provider.
func (p *providerRow) allows(clientID string) bool {
	return slices.Contains(p.ClientIDs, "*") || slices.Contains(p.ClientIDs, clientID)
}

// provider gives a provider; nil if there is none.
func (e *Engine) provider(ctx context.Context, name string) (*providerRow, error) {
	p, err := load[providerRow](ctx, e, providerPrefix+name)
	if err == nil && p == nil && name == defaultName {
		p = defaultProvider()
	}
	return p, err
}

// providerIssuer is the issuer of a provider's tokens.
func (e *Engine) providerIssuer(req *route.Request, name string, p *providerRow) string {
	return e.providerBase(p) + apiPath(req) + "/provider/" + name
}

func (e *Engine) providerBase(p *providerRow) string {
	if p.Issuer != "" {
		return p.Issuer
	}
	return e.address
}

type providerOut struct {
	ClientIDs []string `json:"allowed_client_ids"`
	Issuer    string   `json:"issuer"`
	Scopes    []string `json:"scopes_supported"`
}

func (e *Engine) providerExists(ctx context.Context, _ *route.Request, in nameIn) (bool, error) {
	p, err := e.provider(ctx, in.Name)
	return p != nil, err
}

func (e *Engine) readProvider(ctx context.Context, req *route.Request, in nameIn) (providerOut, error) {
	p, err := e.provider(ctx, in.Name)
	if err == nil && p == nil {
		err = errs.Gone
	}
	if err != nil {
		return providerOut{}, err
	}
	return providerOut{ClientIDs: p.ClientIDs, Issuer: e.providerIssuer(req, in.Name, p), Scopes: p.Scopes}, nil
}

type listProvidersIn struct {
	ClientID string `json:"allowed_client_id" doc:"List only the providers that this client may use."`
}

type providersOut struct {
	Keys []string               `json:"keys"`
	Info map[string]providerOut `json:"key_info"`
}

func (e *Engine) listProviders(ctx context.Context, req *route.Request, in listProvidersIn) (providersOut, error) {
	out := providersOut{Info: map[string]providerOut{}}
	add := func(name string, p *providerRow) error {
		if in.ClientID == "" || p.allows(in.ClientID) {
			out.Keys = append(out.Keys, name)
			out.Info[name] = providerOut{ClientIDs: p.ClientIDs, Issuer: e.providerIssuer(req, name, p), Scopes: p.Scopes}
		}
		return nil
	}
	err := e.env.Store.View(ctx, func(v storage.View) error {
		b, err := v.Get(providerPrefix + defaultName)
		if err != nil {
			return err
		}
		if b == nil {
			_ = add(defaultName, defaultProvider())
		}
		return each(v, providerPrefix, add)
	})
	if err == nil && len(out.Keys) == 0 {
		err = errs.Gone
	}
	slices.Sort(out.Keys)
	return out, err
}

type writeProviderIn struct {
	Name      string             `json:"name" doc:"Name of the provider."`
	Issuer    wire.Opt[string]   `json:"issuer" doc:"Scheme, host and port that its issuer begins with; empty is the server's api_addr."`
	ClientIDs wire.Opt[wire.CSV] `json:"allowed_client_ids" doc:"Client ids that may use it; * is any."`
	Scopes    wire.Opt[wire.CSV] `json:"scopes_supported" doc:"Scopes that its clients may ask for beside openid."`
}

func (in *writeProviderIn) Validate() (err error) {
	if len(in.Scopes.Value) > maxRefs {
		return errs.New(errs.Invalid, "a provider can have at most %d scopes", maxRefs)
	}
	in.Issuer.Value, err = cleanIssuer(in.Issuer.Value)
	return err
}

func (e *Engine) writeProvider(ctx context.Context, req *route.Request, in writeProviderIn) (route.None, error) {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		p, err := get[providerRow](tx, providerPrefix+in.Name)
		if err != nil {
			return err
		}
		if p == nil {
			p = &providerRow{row: v1}
			if in.Name == defaultName {
				p = defaultProvider()
			}
		}
		in.Issuer.Apply(&p.Issuer)
		if v, ok := in.ClientIDs.Get(); ok {
			p.ClientIDs = unique(v)
		}
		if v, ok := in.Scopes.Get(); ok {
			p.Scopes = unique(v)
		}
		if err := checkScopes(tx, p.Scopes); err != nil {
			return err
		}
		if err := touch(tx); err != nil {
			return err
		}
		return tx.Put(providerPrefix+in.Name, wire.Marshal(p))
	})
	if err == nil && in.Issuer.Value != "" {
		req.Warn(`If "issuer" is set explicitly, all tokens must be validated against that address, including those issued by secondary clusters. ` +
			`Setting issuer to "" will restore the default behavior of using the cluster's api_addr as the issuer.`)
	}
	return route.None{}, err
}

// checkScopes refuses scopes that are not there, and those of which two would
// set one claim.
func checkScopes(tx storage.Tx, names []string) error {
	set := map[string]string{}
	for _, name := range names {
		if name == openID {
			return errs.New(errs.Invalid, "the %q scope is supported by every provider and cannot be listed", openID)
		}
		s, err := get[scopeRow](tx, scopePrefix+name)
		if err == nil && s == nil {
			err = errs.New(errs.Invalid, "scope %q does not exist", name)
		}
		if err != nil {
			return err
		}
		claims, err := claimsOf(s, nobody, beginning)
		if err != nil {
			return err
		}
		for claim := range claims.All() {
			if other, taken := set[claim]; taken {
				return errs.New(errs.Invalid, "found scopes with conflicting top-level keys: %q in %q and %q", claim, other, name)
			}
			set[claim] = name
		}
	}
	return nil
}

func (e *Engine) deleteProvider(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	if in.Name == defaultName {
		return route.None{}, errs.New(errs.Invalid, "deletion of provider %q not allowed", in.Name)
	}
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(providerPrefix + in.Name) })
	return route.None{}, err
}

type providerDiscovery struct {
	Issuer        string   `json:"issuer"`
	Keys          string   `json:"jwks_uri"`
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	UserInfo      string   `json:"userinfo_endpoint"`
	RequestParam  bool     `json:"request_parameter_supported"`
	RequestURI    bool     `json:"request_uri_parameter_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	ResponseTypes []string `json:"response_types_supported"`
	Scopes        []string `json:"scopes_supported"`
	Claims        []string `json:"claims_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	GrantTypes    []string `json:"grant_types_supported"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	Challenges    []string `json:"code_challenge_methods_supported"`
}

func (e *Engine) discoverProvider(ctx context.Context, req *route.Request, in nameIn) (*route.Raw, error) {
	p, err := e.provider(ctx, in.Name)
	if err == nil && p == nil {
		err = errs.Gone
	}
	if err != nil {
		return nil, err
	}
	issuer := e.providerIssuer(req, in.Name, p)
	return bare(http.StatusOK, providerDiscovery{
		Issuer: issuer, Keys: issuer + "/.well-known/keys",
		// People authorise a client in a browser; what answers there is the
		// page that calls the API's authorize with their token.
		Authorization: e.providerBase(p) + "/ui/vault/" + req.Mount.NamespacePath + "identity/oidc/provider/" + in.Name + "/authorize",
		Token:         issuer + "/token", UserInfo: issuer + "/userinfo",
		Algorithms: algorithmNames(), ResponseTypes: []string{"code"}, Scopes: append(slices.Clone(p.Scopes), openID),
		Claims: []string{}, SubjectTypes: []string{"public"}, GrantTypes: []string{"authorization_code"},
		AuthMethods: []string{"none", "client_secret_basic", "client_secret_post"}, Challenges: []string{methodPlain, methodS256},
	}), nil
}

// publishProvider publishes the keys of the provider's clients.
func (e *Engine) publishProvider(ctx context.Context, _ *route.Request, in nameIn) (*route.Raw, error) {
	p, err := e.provider(ctx, in.Name)
	if err == nil && p == nil {
		err = errs.Gone
	}
	if err != nil {
		return nil, err
	}
	names := []string{}
	err = e.env.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, clientPrefix, storage.PrefixEnd(clientPrefix), 0, func(key string, b []byte, bad error) bool {
			var c clientRow
			if bad == nil {
				bad = wire.Unmarshal(b, &c)
			}
			switch {
			case bad != nil:
				e.env.Log.Error("a client cannot be read; its key may not be published by its provider, the others' are", "error", bad)
			case p.allows(c.ID):
				names = append(names, c.Key)
			}
			return true
		})
	})
	if err != nil {
		return nil, err
	}
	return e.publish(ctx, unique(names))
}
