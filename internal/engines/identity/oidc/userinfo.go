package oidc

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// accessToken is what an access token says. It needs no row: it is good for
// userinfo alone, and only while its client and its entity are there.
type accessToken struct {
	row
	Provider string   `json:"p"`
	ClientID string   `json:"c"`
	EntityID string   `json:"e"`
	Scopes   []string `json:"s"`
	Expires  int64    `json:"x"`
}

const macKey = "oidc/mac"

// macRow is the key that access tokens are made with. Version 1.
type macRow struct {
	row
	Key secret.String `json:"key"` // base64
}

// mac is what makes an access token ours.
func (e *Engine) mac(ctx context.Context, payload string) ([]byte, error) {
	r, err := load[macRow](ctx, e, macKey)
	if err != nil {
		return nil, err
	}
	if r == nil {
		if r, err = e.makeMAC(ctx); err != nil {
			return nil, err
		}
	}
	key, err := base64.StdEncoding.DecodeString(r.Key.Reveal())
	if err != nil {
		return nil, fmt.Errorf("decoding the key of access tokens: %w", err)
	}
	h := hmac.New(sha256.New, key)
	_, _ = io.WriteString(h, payload) // a hash never fails
	return h.Sum(nil), nil
}

func (e *Engine) makeMAC(ctx context.Context) (r *macRow, err error) {
	var key [32]byte
	if _, err := io.ReadFull(e.env.Rand, key[:]); err != nil {
		return nil, fmt.Errorf("drawing randomness: %w", err)
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		if r, err = get[macRow](tx, macKey); err != nil || r != nil {
			return err
		}
		r = &macRow{row: v1, Key: secret.New(base64.StdEncoding.EncodeToString(key[:]))}
		return tx.Put(macKey, wire.Marshal(r))
	})
	return r, err
}

func (e *Engine) makeAccess(ctx context.Context, a *accessToken) (string, error) {
	payload := base64.RawURLEncoding.EncodeToString(wire.Marshal(a))
	sum, err := e.mac(ctx, payload)
	return payload + "." + base64.RawURLEncoding.EncodeToString(sum), err
}

// readAccess gives what an access token says, if it is one of ours and its
// time is not over; otherwise nil.
func (e *Engine) readAccess(ctx context.Context, text string) (*accessToken, error) {
	payload, sum, ok := strings.Cut(text, ".")
	have, err := base64.RawURLEncoding.DecodeString(sum)
	if !ok || err != nil {
		return nil, nil
	}
	want, err := e.mac(ctx, payload)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(have, want) {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return nil, nil
	}
	a := new(accessToken)
	if err := wire.Unmarshal(b, a); err != nil || a.V > rowVersion || e.env.Now().Unix() >= a.Expires {
		return nil, nil
	}
	return a, nil
}

type subject struct {
	ID string `json:"sub"`
}

// userinfo tells what the access token in the Authorization header allows.
func (e *Engine) userinfo(ctx context.Context, req *route.Request, in nameIn) (*route.Raw, error) {
	body, refused, err := e.about(ctx, req, in.Name)
	if err != nil {
		return nil, err
	}
	if refused != nil {
		raw := refused.raw()
		raw.Header.Set("WWW-Authenticate", fmt.Sprintf("Bearer error=%q, error_description=%q", refused.Code, refused.Description))
		return raw, nil
	}
	raw := &route.Raw{Status: http.StatusOK, ContentType: "application/json", Body: body, Header: http.Header{}}
	raw.Header.Set("Cache-Control", "no-store")
	return raw, nil
}

func (e *Engine) about(ctx context.Context, req *route.Request, provider string) ([]byte, *oauthError, error) {
	const unauthorized = http.StatusUnauthorized
	a, err := e.readAccess(ctx, req.Caller.Token.Reveal())
	switch {
	case err != nil:
		return nil, nil, err
	case a == nil || a.Provider != provider:
		return nil, refuse(unauthorized, "invalid_token", "access token is invalid or expired"), nil
	}
	p, err := e.provider(ctx, provider)
	if err != nil {
		return nil, nil, err
	}
	c, err := e.clientByID(ctx, a.ClientID)
	if err != nil {
		return nil, nil, err
	}
	if p == nil || c == nil || !p.allows(c.ID) {
		return nil, refuse(unauthorized, "invalid_token", "the client of the access token may not use the provider any more"), nil
	}
	person, err := e.people.Identify(ctx, a.EntityID)
	if err != nil {
		return nil, nil, err
	}
	if person == nil || person.Disabled {
		return nil, refuse(unauthorized, "invalid_token", "the entity of the access token is gone or disabled"), nil
	}
	switch ok, err := e.admits(ctx, c, person); {
	case err != nil:
		return nil, nil, err
	case !ok:
		return nil, refuse(unauthorized, "access_denied", "identity entity not authorized by client assignment"), nil
	}
	extra, err := e.scopeClaims(ctx, a.Scopes, person, e.env.Now())
	if err != nil {
		return nil, nil, err
	}
	return join(wire.Marshal(&subject{person.ID}), extra...), nil, nil
}
