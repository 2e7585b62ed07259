package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// claims are those that the server sets itself.
type claims struct {
	Issuer     string `json:"iss"`
	Subject    string `json:"sub"`
	Audience   string `json:"aud"`
	Namespace  string `json:"namespace"`
	Expires    int64  `json:"exp"`
	Issued     int64  `json:"iat"`
	Nonce      string `json:"nonce,omitempty"`
	AuthTime   int64  `json:"auth_time,omitempty"`
	AccessHash string `json:"at_hash,omitempty"`
	CodeHash   string `json:"c_hash,omitempty"`
}

// join appends the members of objects to one that has members of its own. No
// name is in two of them.
func join(to wire.Object, more ...wire.Object) wire.Object {
	to = to[:len(to)-1]
	for _, o := range more {
		for name, v := range o.All() {
			to = append(wire.AppendString(append(to, ','), name), ':')
			to = append(to, v...)
		}
	}
	return append(to, '}')
}

type tokenOut struct {
	ClientID string        `json:"client_id"`
	Token    secret.String `json:"token"`
	TTL      wire.TTL      `json:"ttl"`
}

// issueToken makes an identity token of the caller.
func (e *Engine) issueToken(ctx context.Context, req *route.Request, in nameIn) (tokenOut, error) {
	role, err := load[roleRow](ctx, e, rolePrefix+in.Name)
	switch {
	case err != nil:
		return tokenOut{}, err
	case role == nil:
		return tokenOut{}, errs.New(errs.Invalid, "role %q not found", in.Name)
	}
	person, err := e.caller(ctx, req)
	if err != nil {
		return tokenOut{}, err
	}
	k, err := e.key(ctx, role.Key)
	switch {
	case err != nil:
		return tokenOut{}, err
	case k == nil:
		return tokenOut{}, errs.New(errs.Invalid, "key %q not found", role.Key)
	case !k.allows(role.ClientID):
		return tokenOut{}, errs.New(errs.Invalid, "the key %q does not list the client ID of the role %q as an allowed client ID", role.Key, in.Name)
	}
	issuer, err := e.issuer(ctx, req)
	if err != nil {
		return tokenOut{}, err
	}
	template, err := ParseTemplate(role.Template)
	if err != nil {
		return tokenOut{}, err
	}
	now := e.env.Now()
	extra, err := template.Render(person, now)
	if err != nil {
		return tokenOut{}, err
	}
	ttl := min(role.TTL, k.Verification)
	c := claims{
		Issuer: issuer, Subject: person.ID, Audience: role.ClientID, Namespace: req.Mount.Namespace,
		Issued: now.Unix(), Expires: now.Add(ttl.Duration()).Unix(),
	}
	text, err := k.sign(join(wire.Marshal(&c), extra))
	return tokenOut{ClientID: role.ClientID, Token: secret.New(text), TTL: ttl}, err
}

// caller is the entity that a request's token belongs to.
func (e *Engine) caller(ctx context.Context, req *route.Request) (*engine.Identified, error) {
	if req.Caller.EntityID == "" {
		return nil, errs.New(errs.Invalid, "no entity associated with the request's token")
	}
	p, err := e.people.Identify(ctx, req.Caller.EntityID)
	switch {
	case err != nil:
		return nil, err
	case p == nil:
		return nil, errs.New(errs.Invalid, "no entity associated with the request's token")
	case p.Disabled:
		return nil, errs.New(errs.Denied, "the entity of the request's token is disabled")
	}
	return p, nil
}

type introspectIn struct {
	Token    secret.String `json:"token" doc:"The identity token."`
	ClientID string        `json:"client_id" doc:"The audience that it must have; any by default."`
}

type introspectOut struct {
	Active bool   `json:"active"`
	Error  string `json:"error,omitempty"`
}

// introspect answers 200 whatever is wrong with the token, and says what.
func (e *Engine) introspect(ctx context.Context, req *route.Request, in introspectIn) (*route.Raw, error) {
	why, err := e.judge(ctx, req, in)
	if err != nil {
		return nil, err
	}
	return bare(http.StatusOK, introspectOut{Active: why == "", Error: why}), nil
}

// judge says what is wrong with a token; nothing if it is active.
func (e *Engine) judge(ctx context.Context, req *route.Request, in introspectIn) (why string, err error) {
	const most = 64 << 10
	if len(in.Token.Reveal()) > most {
		return "error parsing token: it is too long", nil
	}
	jws, err := jose.ParseSignedCompact(in.Token.Reveal(), algorithms)
	if err != nil {
		return "error parsing token: " + err.Error(), nil
	}
	keys, err := e.verifiers(ctx)
	if err != nil {
		return "", err
	}
	header := jws.Signatures[0].Protected
	var payload []byte
	for _, k := range keys {
		// The key says which algorithm it is for; the token has no choice.
		if k.KeyID == header.KeyID && k.Algorithm == header.Algorithm {
			if payload, err = jws.Verify(k); err != nil {
				return "unable to validate the token signature", nil
			}
		}
	}
	if payload == nil {
		return "unable to validate the token signature", nil
	}
	var c claims
	if err := wire.Unmarshal(payload, &c); err != nil {
		return "error parsing the token's claims", nil
	}
	issuer, err := e.issuer(ctx, req)
	if err != nil {
		return "", err
	}
	switch {
	case c.Issuer != issuer:
		return "error validating claims: the token has another issuer", nil
	case in.ClientID != "" && c.Audience != in.ClientID:
		return "error validating claims: the token has another audience", nil
	case e.env.Now().Unix() >= c.Expires:
		return "error validating claims: token is expired (exp)", nil
	}
	p, err := e.people.Identify(ctx, c.Subject)
	switch {
	case err != nil:
		return "", err
	case p == nil:
		return "entity was not found", nil
	case p.Disabled:
		return "entity is disabled", nil
	}
	return "", nil
}

// verifiers are all keys that verify at the moment.
func (e *Engine) verifiers(ctx context.Context) ([]jose.JSONWebKey, error) {
	all, _, err := e.publicKeys(ctx, nil)
	if err != nil {
		return nil, err
	}
	out := make([]jose.JSONWebKey, len(all))
	for i, o := range all {
		if err := out[i].UnmarshalJSON(o); err != nil {
			return nil, fmt.Errorf("decoding a public key: %w", err)
		}
	}
	return out, nil
}

// publicKeys are the published keys of named keys, or of all of them, and when
// the first of them is rotated.
func (e *Engine) publicKeys(ctx context.Context, names []string) (keys []wire.Object, next time.Time, err error) {
	if names == nil {
		if names, err = e.names(ctx, keyPrefix); err != nil {
			return nil, next, err
		}
	}
	now := e.env.Now()
	for _, name := range names {
		k, err := e.key(ctx, name)
		var bad *storage.CorruptError
		if errors.As(err, &bad) {
			e.env.Log.Error("a key of identity tokens cannot be read; it is not published, the others are", "key", name, "error", err)
			continue
		}
		if err != nil {
			return nil, next, err
		}
		if k == nil {
			continue
		}
		keys = append(keys, k.published(now)...)
		if next.IsZero() || k.Due.Before(next) {
			next = k.Due
		}
	}
	return keys, next, nil
}

type keySet struct {
	Keys []wire.Object `json:"keys"`
}

func (e *Engine) publishAll(ctx context.Context, _ *route.Request, _ route.None) (*route.Raw, error) {
	return e.publish(ctx, nil)
}

// publish answers a key set. It may be kept until the first key is rotated:
// the one that signs next is in it already.
func (e *Engine) publish(ctx context.Context, names []string) (*route.Raw, error) {
	keys, next, err := e.publicKeys(ctx, names)
	if err != nil {
		return nil, err
	}
	raw := bare(http.StatusOK, keySet{keys})
	if left := next.Sub(e.env.Now()); len(keys) > 0 && left > 0 {
		raw.Header.Set("Cache-Control", "max-age="+strconv.FormatInt(int64(left/time.Second), 10))
	}
	return raw, nil
}

type discoveryOut struct {
	Issuer        string   `json:"issuer"`
	Keys          string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
}

func (e *Engine) discover(ctx context.Context, req *route.Request, _ route.None) (*route.Raw, error) {
	issuer, err := e.issuer(ctx, req)
	if err != nil {
		return nil, err
	}
	return bare(http.StatusOK, discoveryOut{
		Issuer: issuer, Keys: issuer + "/.well-known/keys", ResponseTypes: []string{"id_token"},
		SubjectTypes: []string{"public"}, Algorithms: algorithmNames(),
	}), nil
}

// bare is an answer as other programs than Vault's clients expect it: JSON
// without an envelope.
func bare[T any](status int, v T) *route.Raw {
	return &route.Raw{Status: status, ContentType: "application/json", Body: wire.Marshal(&v), Header: http.Header{}}
}
