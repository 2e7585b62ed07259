package oidc

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

type exchangeIn struct {
	Name        string        `json:"name" doc:"Name of the provider."`
	Grant       string        `json:"grant_type" doc:"authorization_code."`
	Code        secret.String `json:"code" doc:"The code that authorize gave."`
	RedirectURI string        `json:"redirect_uri" doc:"The same as at authorize."`
	ClientID    string        `json:"client_id" doc:"The client, unless the Authorization header names it."`
	Secret      secret.String `json:"client_secret" doc:"Its secret, unless the Authorization header has it."`
	Verifier    secret.String `json:"code_verifier" doc:"PKCE's verifier, if authorize was given a challenge."`
	Scope       string        `json:"scope" doc:"Not looked at: the code has its scopes."`
}

type exchangeOut struct {
	Type    string        `json:"token_type"`
	Access  secret.String `json:"access_token"`
	ID      secret.String `json:"id_token"`
	Expires wire.TTL      `json:"expires_in"`
}

// exchange gives a client the tokens for a code.
func (e *Engine) exchange(ctx context.Context, req *route.Request, in exchangeIn) (*route.Raw, error) {
	out, refused, err := e.redeem(ctx, req, in)
	switch {
	case err != nil:
		return nil, err
	case refused != nil:
		raw := refused.raw()
		if refused.status == http.StatusUnauthorized {
			raw.Header.Set("WWW-Authenticate", "Basic")
		}
		return raw, nil
	}
	raw := bare(http.StatusOK, *out)
	raw.Header.Set("Cache-Control", "no-store")
	return raw, nil
}

func (e *Engine) redeem(ctx context.Context, req *route.Request, in exchangeIn) (*exchangeOut, *oauthError, error) {
	const bad = http.StatusBadRequest
	p, err := e.provider(ctx, in.Name)
	if err != nil {
		return nil, nil, err
	}
	if p == nil {
		return nil, refuse(bad, "invalid_request", "provider %q not found", in.Name), nil
	}
	c, err := e.authenticate(ctx, req, in)
	switch {
	case err != nil:
		return nil, nil, err
	case c == nil:
		return nil, refuse(http.StatusUnauthorized, "invalid_client", "client failed to authenticate"), nil
	case !p.allows(c.ID) || c.NoCode:
		return nil, refuse(bad, "unauthorized_client", "client is not authorized to use the provider, or to use codes"), nil
	case in.Grant == "":
		return nil, refuse(bad, "invalid_request", "grant_type parameter is required"), nil
	case in.Grant != "authorization_code":
		return nil, refuse(bad, "unsupported_grant_type", "unsupported grant_type value"), nil
	case in.Code.IsZero():
		return nil, refuse(bad, "invalid_request", "code parameter is required"), nil
	case in.RedirectURI == "":
		return nil, refuse(bad, "invalid_request", "redirect_uri parameter is required"), nil
	}
	code, err := e.takeCode(ctx, in.Code.Reveal())
	if err != nil {
		return nil, nil, err
	}
	if refused := in.matches(code, c); refused != nil {
		return nil, refused, nil
	}
	person, err := e.people.Identify(ctx, code.EntityID)
	if err != nil {
		return nil, nil, err
	}
	if person == nil || person.Disabled {
		return nil, refuse(bad, "invalid_request", "identity entity associated with the request not found or disabled"), nil
	}
	switch ok, err := e.admits(ctx, c, person); {
	case err != nil:
		return nil, nil, err
	case !ok:
		return nil, refuse(bad, "invalid_request", "identity entity not authorized by client assignment"), nil
	}
	return e.grant(ctx, req, in, p, c, code, person)
}

// authenticate gives the client that a request proves to come from; nil if it
// proves nothing. A client that is not known takes as long as a wrong secret.
func (e *Engine) authenticate(ctx context.Context, req *route.Request, in exchangeIn) (*clientRow, error) {
	id, sec := in.ClientID, in.Secret
	if req.Header != nil {
		if user, password, ok := basicAuth(req.Header("Authorization")); ok {
			id, sec = user, secret.New(password)
		}
	}
	c, err := e.clientByID(ctx, id)
	if err != nil {
		return nil, err
	}
	if c != nil && c.Type == public {
		if !sec.IsZero() {
			return nil, nil // it has none; whoever sends one takes it for another
		}
		return c, nil
	}
	known := secret.New(secretPrefix + strings.Repeat("x", 64))
	if c != nil {
		known = c.Secret
	}
	if !known.Equal(sec) || c == nil {
		return nil, nil
	}
	return c, nil
}

// basicAuth reads a client's credentials, which are encoded as in a form
// before they are put together (RFC 6749, 2.3.1).
func basicAuth(header string) (id, sec string, ok bool) {
	scheme, text, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return "", "", true // credentials that cannot be read are wrong ones
	}
	id, sec, _ = strings.Cut(string(b), ":")
	id, err1 := url.QueryUnescape(id)
	sec, err2 := url.QueryUnescape(sec)
	if err1 != nil || err2 != nil {
		return "", "", true
	}
	return id, sec, true
}

// matches checks that a code was given to this client in this exchange. One
// sentence for all but the verifier: a stranger learns nothing from it.
func (in *exchangeIn) matches(code *codeRow, c *clientRow) *oauthError {
	const bad = http.StatusBadRequest
	switch {
	case code == nil, code.ClientID != c.ID, code.Provider != in.Name, code.RedirectURI != in.RedirectURI:
		return refuse(bad, "invalid_grant", "authorization grant is invalid or expired")
	case code.Challenge == "" && c.Type == public:
		return refuse(bad, "invalid_grant", "PKCE is required for public clients")
	case code.Challenge == "" && !in.Verifier.IsZero():
		return refuse(bad, "invalid_grant", "code_verifier was sent, but authorize had no code_challenge")
	case code.Challenge != "" && in.Verifier.IsZero():
		return refuse(bad, "invalid_grant", "expected code_verifier in the request")
	case code.Challenge != "" && !proves(in.Verifier.Reveal(), code.Challenge, code.Method):
		return refuse(bad, "invalid_grant", "invalid code_verifier for the code_challenge")
	}
	return nil
}

// grant makes both tokens.
func (e *Engine) grant(ctx context.Context, req *route.Request, in exchangeIn, p *providerRow, c *clientRow, code *codeRow, person *engine.Identified) (*exchangeOut, *oauthError, error) {
	k, err := e.key(ctx, c.Key)
	switch {
	case err != nil:
		return nil, nil, err
	case k == nil || !k.allows(c.ID):
		return nil, refuse(http.StatusBadRequest, "invalid_client", "client is not allowed to use the key %q", c.Key), nil
	}
	now := e.env.Now()
	extra, err := e.scopeClaims(ctx, code.Scopes, person, now)
	if err != nil {
		return nil, nil, err
	}
	access, err := e.makeAccess(ctx, &accessToken{
		row: v1, Provider: in.Name, ClientID: c.ID, EntityID: person.ID, Scopes: code.Scopes,
		Expires: now.Add(c.AccessTokenTTL.Duration()).Unix(),
	})
	if err != nil {
		return nil, nil, err
	}
	cl := claims{
		Issuer: e.providerIssuer(req, in.Name, p), Subject: person.ID, Audience: c.ID, Namespace: req.Mount.Namespace,
		Issued: now.Unix(), Expires: now.Add(min(c.IDTokenTTL, k.Verification).Duration()).Unix(),
		Nonce: code.Nonce, AuthTime: code.AuthTime, AccessHash: k.half(access), CodeHash: k.half(in.Code.Reveal()),
	}
	id, err := k.sign(join(wire.Marshal(&cl), extra...))
	return &exchangeOut{Type: "Bearer", Access: secret.New(access), ID: secret.New(id), Expires: c.AccessTokenTTL}, nil, err
}

// half is the left half of a token's hash, as an identity token names it.
func (k *keyRow) half(text string) string {
	h := k.digest().New()
	_, _ = h.Write([]byte(text)) // a hash never fails
	sum := h.Sum(nil)
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

// scopeClaims are the claims of scopes. A scope that was deleted since has
// none.
func (e *Engine) scopeClaims(ctx context.Context, names []string, person *engine.Identified, now time.Time) ([]wire.Object, error) {
	var all []wire.Object
	taken := map[string]bool{}
	for _, name := range names {
		s, err := load[scopeRow](ctx, e, scopePrefix+name)
		if err != nil {
			return nil, err
		}
		if s == nil {
			continue
		}
		claims, err := claimsOf(s, person, now)
		if err != nil {
			return nil, err
		}
		for claim := range claims.All() {
			if taken[claim] {
				return nil, errs.New(errs.Invalid, "the scopes of the provider set the claim %q twice; change one of their templates", claim)
			}
			taken[claim] = true
		}
		all = append(all, claims)
	}
	return all, nil
}
