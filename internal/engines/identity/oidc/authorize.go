package oidc

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

const (
	codePrefix = "oidc/code/"
	codeTTL    = 5 * time.Minute

	methodPlain = "plain"
	methodS256  = "S256"
)

// codeRow is what a code stands for. The first exchange deletes it. Version 1.
type codeRow struct {
	row
	Provider    string   `json:"prov"`
	ClientID    string   `json:"cid"`
	EntityID    string   `json:"ent"`
	RedirectURI string   `json:"uri"`
	Scopes      []string `json:"scopes,omitempty"`
	Nonce       string   `json:"nonce,omitempty"`
	Challenge   string   `json:"chal,omitempty"`
	Method      string   `json:"meth,omitempty"`
	AuthTime    int64    `json:"auth,omitempty"` // 0: was not asked for
}

type authorizeIn struct {
	Name        string           `json:"name" doc:"Name of the provider."`
	ClientID    string           `json:"client_id" doc:"The client that asks."`
	Scope       string           `json:"scope" doc:"Scopes with spaces between; openid is one of them."`
	RedirectURI string           `json:"redirect_uri" doc:"Where the code is to be sent: one of the client's."`
	Response    string           `json:"response_type" doc:"code."`
	State       string           `json:"state" doc:"Given back as it is."`
	Nonce       string           `json:"nonce" doc:"Stands in the identity token."`
	MaxAge      wire.Opt[int64]  `json:"max_age" doc:"Seconds that may have passed since the caller logged in."`
	Challenge   string           `json:"code_challenge" doc:"PKCE's challenge; a public client must send one."`
	Method      wire.Opt[string] `json:"code_challenge_method" doc:"plain (the default) or S256."`
	Request     string           `json:"request" doc:"Not supported."`
	RequestURI  string           `json:"request_uri" doc:"Not supported."`
}

type authorizeOut struct {
	Code  secret.String `json:"code"`
	State string        `json:"state"`
}

// oauthError is an error as OAuth has it, with its status.
type oauthError struct {
	status      int
	Code        string `json:"error"`
	Description string `json:"error_description"`
	State       string `json:"state,omitempty"`
}

func refuse(status int, code, format string, args ...any) *oauthError {
	return &oauthError{status: status, Code: code, Description: fmt.Sprintf(format, args...)}
}

func (o *oauthError) raw() *route.Raw {
	raw := bare(o.status, *o)
	raw.Header.Set("Cache-Control", "no-store")
	return raw
}

// authorize gives a code for tokens of the caller, whose own token was judged
// by policy already.
func (e *Engine) authorize(ctx context.Context, req *route.Request, in authorizeIn) (*route.Raw, error) {
	code, refused, err := e.makeCode(ctx, req, in)
	switch {
	case err != nil:
		return nil, err
	case refused != nil:
		refused.State = in.State
		return refused.raw(), nil
	}
	raw := bare(http.StatusOK, authorizeOut{Code: secret.New(code), State: in.State})
	raw.Header.Set("Cache-Control", "no-store")
	return raw, nil
}

func (e *Engine) makeCode(ctx context.Context, req *route.Request, in authorizeIn) (code string, _ *oauthError, _ error) {
	const bad = http.StatusBadRequest
	p, err := e.provider(ctx, in.Name)
	if err != nil {
		return "", nil, err
	}
	if p == nil {
		return "", refuse(bad, "invalid_request", "provider %q not found", in.Name), nil
	}
	c, refused, err := e.askingClient(ctx, p, in)
	if err != nil || refused != nil {
		return "", refused, err
	}
	scopes, refused := in.check(p, c)
	if refused != nil {
		return "", refused, nil
	}
	person, err := e.caller(ctx, req)
	if kind := errs.KindOf(err); err != nil && kind != errs.Internal {
		return "", refuse(bad, "access_denied", "%s", errs.Message(err)), nil
	} else if err != nil {
		return "", nil, err
	}
	switch ok, err := e.admits(ctx, c, person); {
	case err != nil:
		return "", nil, err
	case !ok:
		return "", refuse(bad, "access_denied", "identity entity not authorized by client assignment"), nil
	}
	r := codeRow{
		row: v1, Provider: in.Name, ClientID: c.ID, EntityID: person.ID, RedirectURI: in.RedirectURI, Scopes: scopes,
		Nonce: in.Nonce, Challenge: in.Challenge,
	}
	if in.Challenge != "" {
		r.Method = in.Method.Or(methodPlain)
	}
	now := e.env.Now()
	if most, ok := in.MaxAge.Get(); ok {
		if now.Sub(req.Caller.LoggedIn) > time.Duration(most)*time.Second {
			return "", refuse(bad, "max_age_violation", "active re-authentication is required by max_age"), nil
		}
		r.AuthTime = req.Caller.LoggedIn.Unix()
	}
	random, err := randomText(e.env.Rand, 32)
	if err != nil {
		return "", nil, err
	}
	// The time stands in the code, so that its row is found by one key and
	// those that nobody exchanged lie at the beginning of the range.
	code = strconv.FormatInt(now.Add(codeTTL).Unix(), 16) + "-" + random
	key, _, _ := codeKey(code)
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Put(key, wire.Marshal(&r)) })
	return code, nil, err
}

// askingClient is the client that asks, if it may and knows where it is.
// Whoever calls must not send the browser anywhere before this was judged.
func (e *Engine) askingClient(ctx context.Context, p *providerRow, in authorizeIn) (*clientRow, *oauthError, error) {
	const bad = http.StatusBadRequest
	if in.ClientID == "" {
		return nil, refuse(bad, "invalid_request", "client_id parameter is required"), nil
	}
	c, err := e.clientByID(ctx, in.ClientID)
	switch {
	case err != nil:
		return nil, nil, err
	case c == nil:
		return nil, refuse(bad, "invalid_client_id", "client with client_id not found"), nil
	case !p.allows(c.ID):
		return nil, refuse(bad, "unauthorized_client", "client is not authorized to use the provider"), nil
	case c.NoCode:
		return nil, refuse(bad, "unauthorized_client", "client may not use authorization codes"), nil
	case in.RedirectURI == "":
		return nil, refuse(bad, "invalid_request", "redirect_uri parameter is required"), nil
	case !c.redirects(in.RedirectURI):
		return nil, refuse(bad, "invalid_redirect_uri", "redirect_uri is not allowed for the client"), nil
	}
	return c, nil, nil
}

// Limits of what a code's row keeps of a request.
const (
	maxNonce  = 1 << 10
	maxScopes = 1 << 10
)

// check looks at what does not depend on who asks. It gives the scopes that
// the provider knows.
func (in *authorizeIn) check(p *providerRow, c *clientRow) ([]string, *oauthError) {
	const bad = http.StatusBadRequest
	asked := strings.Fields(in.Scope)
	switch {
	case in.Request != "":
		return nil, refuse(bad, "request_not_supported", "request parameter is not supported")
	case in.RequestURI != "":
		return nil, refuse(bad, "request_uri_not_supported", "request_uri parameter is not supported")
	case in.Response == "":
		return nil, refuse(bad, "invalid_request", "response_type parameter is required")
	case in.Response != "code":
		return nil, refuse(bad, "unsupported_response_type", "unsupported response_type value")
	case len(in.Scope) > maxScopes || len(in.Nonce) > maxNonce:
		return nil, refuse(bad, "invalid_request", "scope or nonce is too long")
	case !slices.Contains(asked, openID):
		return nil, refuse(bad, "invalid_scope", "scope parameter must contain the openid scope value")
	case in.MaxAge.Value < 0 || in.MaxAge.Value > int64(100*365*24*time.Hour/time.Second):
		return nil, refuse(bad, "invalid_request", "max_age must be a number of seconds that is not negative")
	case in.Challenge == "" && c.Type == public:
		return nil, refuse(bad, "invalid_request", "PKCE is required for public clients: send a code_challenge")
	}
	if in.Challenge != "" {
		if m := in.Method.Or(methodPlain); m != methodPlain && m != methodS256 {
			return nil, refuse(bad, "invalid_request", "invalid code_challenge_method: want plain or S256")
		}
		if !verifierText(in.Challenge) {
			return nil, refuse(bad, "invalid_request", "code_challenge must have 43 to 128 letters, digits and -._~")
		}
	}
	scopes := slices.DeleteFunc(unique(asked), func(s string) bool { return s == openID || !slices.Contains(p.Scopes, s) })
	return scopes, nil
}

// verifierText reports whether a text can be a verifier or challenge of PKCE
// (RFC 7636, 4.1 and 4.2).
func verifierText(s string) bool {
	return len(s) >= 43 && len(s) <= 128 && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~", r))
	}) < 0
}

// proves reports whether a verifier belongs to a challenge.
func proves(verifier, challenge, method string) bool {
	if !verifierText(verifier) {
		return false
	}
	if method == methodS256 {
		sum := sha256.Sum256([]byte(verifier))
		verifier = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return subtle.ConstantTimeCompare([]byte(verifier), []byte(challenge)) == 1
}

// codeKey is the key of a code's row and the time at which it ends. The code
// itself is not stored.
func codeKey(code string) (key string, ends time.Time, ok bool) {
	at, _, ok := strings.Cut(code, "-")
	n, err := strconv.ParseInt(at, 16, 64)
	if !ok || err != nil || n < 0 || len(code) > 64 {
		return "", ends, false
	}
	ends = time.Unix(n, 0)
	sum := sha256.Sum256([]byte(code))
	return codePrefix + fmt.Sprintf("%016x", n) + "/" + hex.EncodeToString(sum[:]), ends, true
}

// takeCode gives what a code stands for, once; nil if it stands for nothing.
func (e *Engine) takeCode(ctx context.Context, code string) (r *codeRow, err error) {
	key, ends, ok := codeKey(code)
	if !ok || !e.env.Now().Before(ends) {
		return nil, nil
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		if r, err = get[codeRow](tx, key); err != nil || r == nil {
			return err
		}
		return tx.Delete(key)
	})
	return r, err
}

// sweepCodes deletes codes that nobody has exchanged in their time: all of
// them, so that there are never more than are made in that time.
func (e *Engine) sweepCodes(ctx context.Context, now time.Time) error {
	for {
		var gone []string
		err := e.env.Store.View(ctx, func(v storage.View) error {
			end := codePrefix + fmt.Sprintf("%016x", now.Unix())
			return storage.ScanEach(v, codePrefix, end, 0, func(key string, _ []byte, _ error) bool {
				gone = append(gone, key)
				return len(gone) < sweepStep
			})
		})
		if err != nil || len(gone) == 0 {
			return err
		}
		_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
			for _, key := range gone {
				if err := tx.Delete(key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || len(gone) < sweepStep {
			return err
		}
	}
}

// nobody and beginning are whom and when templates are tried with.
var (
	nobody    = &engine.Identified{}
	beginning = time.Unix(0, 0)
)

// claimsOf are the claims of a scope for a person.
func claimsOf(s *scopeRow, p *engine.Identified, now time.Time) (wire.Object, error) {
	t, err := ParseTemplate(s.Template)
	if err != nil {
		return nil, err
	}
	return t.Render(p, now)
}
