package jwt

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// What Vault's UI and command line look for at the beginning of an error.
const failed = "Vault login failed. "

var (
	errNoFlows = errs.New(errs.Invalid, "OIDC login is not configured for this mount: its config needs oidc_discovery_url, oidc_client_id and oidc_client_secret")
	errNoFlow  = errs.New(errs.Invalid, failed+"Expired or missing OAuth state.")
)

type authURLIn struct {
	Role        string        `json:"role" doc:"Role to log in as; without one the configuration's default_role."`
	RedirectURI string        `json:"redirect_uri" doc:"Where the provider sends the browser back to; one of the role's allowed_redirect_uris."`
	ClientNonce secret.String `json:"client_nonce" doc:"A random text of the client's, which it must bring again to end the login."`
}

// authURLOut has an empty address for a role or redirect that is not allowed,
// as Vault's clients expect.
type authURLOut struct {
	URL string `json:"auth_url"`
}

// Limits on what a flow keeps of its client.
const (
	maxRedirect = 2048
	maxNonce    = 256
	maxRoleName = 256
)

// authURL begins a login by browser.
func (e *Engine) authURL(ctx context.Context, req *route.Request, in authURLIn) (authURLOut, error) {
	conf, role, name, err := e.ready(ctx, in.Role)
	switch {
	case err != nil:
		return authURLOut{}, err
	case !conf.flows():
		return authURLOut{}, errNoFlows
	case in.RedirectURI == "":
		return authURLOut{}, errs.New(errs.Invalid, "missing redirect_uri")
	case len(in.RedirectURI) > maxRedirect || len(in.ClientNonce.Reveal()) > maxNonce || len(name) > maxRoleName:
		return authURLOut{}, errs.New(errs.Invalid, "redirect_uri is at most %d bytes long, client_nonce and role %d", maxRedirect, maxNonce)
	}
	redirect, ns := in.RedirectURI, ""
	if conf.NamespaceStated {
		redirect, ns = cutNamespace(redirect)
	}
	if role.Type != typeOIDC || !allowed(redirect, role.Redirects) {
		e.env.Log.Warn("a login by browser was refused: its redirect_uri is not among the role's allowed_redirect_uris, or the role is of type jwt",
			"mount", req.Mount.Path, "role", name, "redirect_uri", redirect)
		return authURLOut{}, nil
	}
	if conf.ResponseMode == modeForm { // of the UI's: the form comes to the server
		redirect = strings.Replace(redirect, "ui/vault", "v1", 1)
	}
	is, err := e.issuerOf(conf)
	if err != nil {
		return authURLOut{}, err
	}
	d, err := is.disc.get(ctx, false)
	if err != nil {
		return authURLOut{}, errSilent(err)
	}
	to, err := url.Parse(d.Authorize)
	if err != nil || to.Scheme != "https" && to.Scheme != "http" || to.Host == "" {
		return authURLOut{}, errs.New(errs.Upstream, "the provider's discovery document has no usable authorization_endpoint")
	}
	f := &flowRow{Role: name, Redirect: redirect, Nonce: rand.Text(), ClientKey: in.ClientNonce}
	if conf.asksFor(typeCode) {
		f.Verifier = secret.New(rand.Text() + rand.Text()) // 43 characters at least, RFC 7636
	}
	state, err := e.beginFlow(ctx, f)
	if err != nil {
		return authURLOut{}, err
	}
	if ns != "" {
		state += ",ns=" + ns
	}
	to.RawQuery = authorization(conf, role, f, state, to.Query()).Encode()
	return authURLOut{URL: to.String()}, nil
}

// authorization is what the provider is asked (OpenID Connect Core 3.1.2.1).
func authorization(conf *configRow, role *roleRow, f *flowRow, state string, q url.Values) url.Values {
	q.Set("client_id", conf.ClientID)
	q.Set("redirect_uri", f.Redirect)
	q.Set("scope", strings.Join(append([]string{"openid"}, role.Scopes...), " "))
	q.Set("state", state)
	q.Set("nonce", f.Nonce)
	types := conf.ResponseTypes
	if len(types) == 0 {
		types = []string{typeCode}
	}
	q.Set("response_type", strings.Join(types, " "))
	if conf.ResponseMode == modeForm {
		q.Set("response_mode", modeForm)
	}
	if !f.Verifier.IsZero() {
		sum := sha256.Sum256([]byte(f.Verifier.Reveal()))
		q.Set("code_challenge", base64.RawURLEncoding.EncodeToString(sum[:]))
		q.Set("code_challenge_method", "S256")
	}
	if age := role.MaxAge.Duration(); age > 0 {
		q.Set("max_age", strconv.Itoa(int(age.Seconds())))
	}
	return q
}

// cutNamespace takes the parameter namespace out of an address.
func cutNamespace(uri string) (without, ns string) {
	u, err := url.Parse(uri)
	if err != nil {
		return uri, ""
	}
	q := u.Query()
	if ns = q.Get("namespace"); ns == "" {
		return uri, ""
	}
	q.Del("namespace")
	u.RawQuery = q.Encode()
	return u.String(), ns
}

// allowed says whether the provider may send a browser to an address. On the
// user's own machine any port will do, as RFC 8252 wants it.
func allowed(uri string, list []string) bool {
	u, err := url.Parse(uri)
	if err != nil || u.User != nil {
		return false
	}
	if !loopback(u.Hostname()) {
		return slices.Contains(list, uri)
	}
	u.Host = u.Hostname()
	return slices.ContainsFunc(list, func(a string) bool {
		au, err := url.Parse(a)
		if err != nil {
			return false
		}
		au.Host = au.Hostname()
		return *u == *au
	})
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

type callbackIn struct {
	State       string        `json:"state" doc:"What the provider gave back."`
	Code        secret.String `json:"code" doc:"The code it gave."`
	ClientNonce secret.String `json:"client_nonce" doc:"The text that the login was begun with."`
	Error       string        `json:"error" doc:"What the provider gave in place of a code."`
	Description string        `json:"error_description" doc:"The same, for people."`
	ErrorURI    string        `json:"error_uri" doc:"Where more of it stands."`
}

// noCode stands for the code in the address that a posted form leads to.
const noCode = "no_code"

// callback ends a login by browser. Its state is used up whatever comes of it.
func (e *Engine) callback(ctx context.Context, req *route.Request, in callbackIn) (*route.Auth, error) {
	state, _, _ := strings.Cut(in.State, ",ns=")
	f, err := e.useFlow(ctx, state)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, errNoFlow
	}
	conf, role, name, err := e.ready(ctx, f.Role)
	switch {
	case err != nil:
		return nil, err
	case !conf.flows():
		return nil, errNoFlows
	case role.Type != typeOIDC:
		return nil, errs.New(errs.Invalid, failed+"The role is not of type oidc any more.")
	case in.Error != "":
		return nil, e.refusedBy(req, name, in)
	case !f.ClientKey.IsZero() && !f.ClientKey.Equal(in.ClientNonce):
		return nil, errs.New(errs.Invalid, "invalid client_nonce")
	case !role.Token.Admits(req.Remote):
		return nil, errDenied
	}
	is, err := e.issuerOf(conf)
	if err != nil {
		return nil, err
	}
	code := in.Code
	if code.Reveal() == noCode {
		code = f.Code
	}
	set, err := e.claimsOf(ctx, is, role, f, code)
	if err != nil {
		return nil, err
	}
	if role.Verbose {
		e.env.Log.Debug("what the provider says of a user", "mount", req.Mount.Path, "role", name, "claims", string(set.Object()))
	}
	a, err := grant(conf, name, role, set)
	if err != nil {
		return nil, errs.New(errs.Invalid, failed+"%s", errs.Message(err))
	}
	return a, nil
}

// refusals are the errors that a provider may name (RFC 6749, 4.1.2.1).
var refusals = []string{
	"invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type", "invalid_scope", "server_error", "temporarily_unavailable",
}

// refusedBy says that the provider said no. Its own words may be anybody's, so
// they stand in the log alone.
func (e *Engine) refusedBy(req *route.Request, role string, in callbackIn) error {
	e.env.Log.Warn("the provider refused a login by browser", "mount", req.Mount.Path, "role", role,
		"error", strconv.Quote(clip(in.Error)), "description", strconv.Quote(clip(in.Description)), "uri", strconv.Quote(clip(in.ErrorURI)))
	said := strings.ToLower(strings.TrimSpace(in.Error))
	if !slices.Contains(refusals, said) {
		said = "The provider answered with an unknown error; the server's log has it."
	}
	return errs.New(errs.Invalid, failed+"%s", said)
}

func clip(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

type formIn struct {
	State   string        `json:"state" doc:"What the provider gave back."`
	Code    secret.String `json:"code" doc:"The code it gave."`
	IDToken secret.String `json:"id_token" doc:"The token it gave."`

	// Taken as the GET's and not needed: the client brings its own with that.
	ClientNonce secret.String `json:"client_nonce" doc:"Ignored here."`
	Error       string        `json:"error" doc:"Ignored here: the login then ends by itself."`
	Description string        `json:"error_description" doc:"Ignored here."`
	ErrorURI    string        `json:"error_uri" doc:"Ignored here."`
}

// maxForm bounds what a form leaves in the store.
const maxForm = 16 << 10

// callbackPost keeps what a provider's form brought, until the client asks for
// its token by the GET. It answers a page, since a browser posts it.
func (e *Engine) callbackPost(ctx context.Context, req *route.Request, in formIn) (route.None, error) {
	var conf *configRow
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		conf, err = configOf(v)
		return err
	})
	switch {
	case err != nil:
		return route.None{}, err
	case conf == nil:
		return route.None{}, errNoConfig
	case conf.ResponseMode != modeForm:
		return route.None{}, errs.New(errs.Unsupported, "forms are taken with oidc_response_mode form_post only")
	}
	state, ns, _ := strings.Cut(in.State, ",ns=")
	var f *flowRow
	if len(in.Code.Reveal())+len(in.IDToken.Reveal()) <= maxForm {
		f, err = e.changeFlow(ctx, state, func(tx storage.Tx, f *flowRow) error {
			f.Code, f.IDToken = in.Code, in.IDToken
			return tx.Put(flowKey(state), wire.Marshal(f))
		})
		if err != nil {
			return route.None{}, err
		}
	}
	if f == nil {
		req.AnswerRaw(failurePage("Expired or missing OAuth state."))
		return route.None{}, nil
	}
	req.AnswerRaw(onwardPage(req.Mount, ns, state))
	return route.None{}, nil
}
