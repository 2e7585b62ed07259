package jwt

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/auth/claims"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// claimsOf is what the provider says of whoever brought a code, or an ID token
// by a form.
func (e *Engine) claimsOf(ctx context.Context, is *issuer, role *roleRow, f *flowRow, code secret.String) (claims.Set, error) {
	d, err := is.disc.get(ctx, false)
	if err != nil {
		return claims.Set{}, errSilent(err)
	}
	idToken, access := f.IDToken, secret.String{}
	if !code.IsZero() {
		if idToken, access, err = is.redeem(ctx, d, f, code); err != nil {
			return claims.Set{}, err
		}
	}
	if idToken.IsZero() {
		return claims.Set{}, errs.New(errs.Invalid, failed+"No code or id_token received.")
	}
	set, err := is.verify(ctx, idToken.Reveal())
	if err == nil {
		err = e.checkID(is.conf, d, role, f, set)
	}
	switch {
	case errs.Is(err, errs.Upstream):
		return claims.Set{}, err
	case err != nil:
		return claims.Set{}, errs.New(errs.Invalid, "Token verification failed. %v", err)
	}
	if access.IsZero() || d.UserInfo == "" {
		return set, nil
	}
	more, err := is.userInfo(ctx, d, access, set.Text("sub"))
	if err != nil { // the token alone says who it is
		e.env.Log.Warn("the provider's userinfo was left out of a login", "error", err)
		return set, nil
	}
	return set.With(more), nil
}

// redeem exchanges a code for tokens (RFC 6749, 4.1.3, with PKCE).
func (is *issuer) redeem(ctx context.Context, d discovery, f *flowRow, code secret.String) (id, access secret.String, err error) {
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code.Reveal()}, "redirect_uri": {f.Redirect}}
	if !f.Verifier.IsZero() {
		form.Set("code_verifier", f.Verifier.Reveal())
	}
	// Either way of sending the secret is common; a provider that does not say
	// takes the first (RFC 6749, 2.3.1).
	inHeader := len(d.ClientAuth) == 0 || slices.Contains(d.ClientAuth, "client_secret_basic")
	if !inHeader {
		form.Set("client_id", is.conf.ClientID)
		form.Set("client_secret", is.conf.ClientSecret.Reveal())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.Token, strings.NewReader(form.Encode()))
	if err != nil {
		return id, access, errSilent(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if inHeader {
		req.SetBasicAuth(url.QueryEscape(is.conf.ClientID), url.QueryEscape(is.conf.ClientSecret.Reveal()))
	}
	status, body, err := exchange(is.client, req)
	if err != nil {
		return id, access, errSilent(err)
	}
	var reply struct {
		ID     secret.String `json:"id_token"`
		Access secret.String `json:"access_token"`
		Error  string        `json:"error"`
	}
	jsonErr := wire.Unmarshal(body, &reply)
	switch {
	case status >= 500:
		return id, access, errSilent(fmt.Errorf("%s answered %d", d.Token, status))
	case status != http.StatusOK || reply.Error != "":
		return id, access, errs.New(errs.Invalid, failed+"Error exchanging oidc code: the provider answered %d %q.", status, clip(reply.Error))
	case jsonErr != nil || reply.ID.IsZero():
		return id, access, errs.New(errs.Invalid, failed+"Error exchanging oidc code: the provider's answer has no id_token.")
	}
	return reply.ID, reply.Access, nil
}

// checkID holds an ID token against the flow and the role (OpenID Connect Core
// 3.1.3.7).
func (e *Engine) checkID(conf *configRow, d discovery, role *roleRow, f *flowRow, set claims.Set) error {
	now := e.env.Now()
	if set.Text("iss") != d.Issuer || conf.BoundIssuer != "" && conf.BoundIssuer != d.Issuer {
		return errors.New("invalid issuer (iss) claim")
	}
	if set.Text("nonce") != f.Nonce {
		return errors.New("invalid ID token nonce")
	}
	if _, ok := set.Date("exp"); !ok {
		return errors.New("an ID token must have an expiration time (exp)")
	}
	if err := set.CheckTimes(now, role.leeway()); err != nil {
		return err
	}
	if err := checkParty(conf.ClientID, set); err != nil {
		return err
	}
	if len(role.Audiences) > 0 {
		if err := set.CheckAudience(role.Audiences); err != nil {
			return err
		}
	}
	if role.Subject != "" && role.Subject != set.Text("sub") {
		return errors.New("sub claim does not match bound subject")
	}
	if age := role.MaxAge.Duration(); age > 0 {
		at, ok := set.Date("auth_time")
		if !ok || now.Add(-age-time.Minute).After(at) {
			return errors.New("the user proved who they are longer ago than max_age allows, or the provider does not say when (auth_time)")
		}
	}
	return nil
}

// checkParty refuses an ID token that was made for another client: it is for
// us by its audience, and where others are named too, by its azp.
func checkParty(client string, set claims.Set) error {
	aud, _ := set.Audience()
	party, named := set.Claim("azp")
	azp := set.Text("azp")
	switch {
	case named && (party.Kind() != wire.String || azp != client),
		len(aud) == 0,
		len(aud) > 1 && (azp != client || !slices.Contains(aud, client)),
		len(aud) == 1 && aud[0] != client && azp != client:
		return errors.New("invalid audience (aud) or authorized party (azp) claim: the token was made for another client")
	}
	return nil
}

// userInfo is what the provider says beyond the ID token. It must be of the
// same subject.
func (is *issuer) userInfo(ctx context.Context, d discovery, access secret.String, sub string) (claims.Set, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.UserInfo, nil)
	if err != nil {
		return claims.Set{}, err
	}
	req.Header.Set("Authorization", "Bearer "+access.Reveal())
	req.Header.Set("Accept", "application/json")
	body, err := send(is.client, req)
	if err != nil {
		return claims.Set{}, err
	}
	set, err := claims.NewSet(body)
	if err != nil {
		return claims.Set{}, errors.New("the answer is not an object of claims")
	}
	if sub == "" || set.Text("sub") != sub {
		return claims.Set{}, errors.New("the answer is about another subject")
	}
	return set, nil
}
