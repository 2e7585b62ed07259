package kubernetes

import (
	"context"
	"errors"
	"strings"

	"github.com/leasehold/leasehold/internal/auth/claims"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

type loginIn struct {
	Role string        `json:"role" doc:"Role to log in as."`
	JWT  secret.String `json:"jwt" doc:"The token of the pod's service account."`
}

func loginRole(_ context.Context, _ *route.Request, in loginIn) (string, error) {
	return strings.ToLower(in.Role), nil
}

// errDenied is all that is said to a token before the cluster has vouched for
// it. Why stands in the log, at level debug.
var errDenied = errs.New(errs.Denied, "permission denied")

func (e *Engine) login(ctx context.Context, req *route.Request, in loginIn) (*route.Auth, error) {
	switch {
	case in.Role == "":
		return nil, errs.New(errs.Invalid, "missing role")
	case in.JWT.IsZero():
		return nil, errs.New(errs.Invalid, "missing jwt")
	}
	name := strings.ToLower(in.Role)
	var conf *configRow
	var role *roleRow
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		if role, err = e.roles.At(v, name); err != nil {
			return err
		}
		conf, err = configOf(v)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case role == nil:
		return nil, errs.New(errs.Invalid, "invalid role name %q", in.Role)
	case !role.Token.Admits(req.Remote):
		return nil, errDenied
	case conf == nil:
		return nil, errs.New(errs.Invalid, "could not load backend configuration: the mount's config has yet to be written")
	}
	api, err := e.apiOf(conf)
	if err != nil {
		return nil, err
	}
	a, err := e.vouch(ctx, conf, role, api, in.JWT)
	switch {
	case errs.Is(err, errs.Upstream), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil, err
	case err != nil:
		e.env.Log.Debug("a login was refused", "mount", req.Mount.Path, "role", name, "error", err)
		return nil, errDenied
	}
	if err := role.admits(a); err != nil {
		return nil, err
	}
	return a.auth(name, role), nil
}

// vouch gives the service account that a token is of, if the cluster says so
// too.
func (e *Engine) vouch(ctx context.Context, conf *configRow, role *roleRow, api *apiServer, token secret.String) (account, error) {
	t, err := claims.Parse(token.Reveal())
	if err != nil {
		return account{}, err
	}
	var set claims.Set
	if len(api.keys) > 0 {
		set, err = t.Verify(api.keys)
	} else {
		set, err = t.Unverified()
	}
	if err != nil {
		return account{}, err
	}
	// Nothing below is believed of an unverified token; what is wrong already
	// spares the API server a question.
	if err := e.check(conf, role, set); err != nil {
		return account{}, err
	}
	a, err := accountOf(set)
	if err != nil {
		return account{}, err
	}
	audiences := []string{role.Audience}
	if role.Audience == "" {
		audiences, _ = set.Audience()
	}
	reviewed, err := api.review(ctx, token, audiences, role.Audience)
	if err != nil {
		if errors.Is(err, errReviewer) {
			e.env.Log.Warn("the API server does not let us ask about tokens; token_reviewer_jwt, the pod's own account or whoever logs in needs the cluster role system:auth-delegator", "host", api.host, "error", err)
		}
		return account{}, err
	}
	if reviewed.name != a.name || reviewed.namespace != a.namespace || reviewed.uid != a.uid {
		return account{}, errors.New("the API server knows the token as another account's")
	}
	return a, nil
}

// check holds the registered claims against the configuration and the role.
func (e *Engine) check(conf *configRow, role *roleRow, set claims.Set) error {
	if !conf.AnyIssuer {
		want := conf.Issuer
		if want == "" {
			want = defaultIssuer
		}
		if set.Text("iss") != want {
			return errors.New("invalid issuer (iss) claim")
		}
	}
	if role.Audience != "" {
		if err := set.CheckAudience([]string{role.Audience}); err != nil {
			return err
		}
	}
	// Tokens that Kubernetes keeps in secrets have no times at all.
	if err := set.CheckTimes(e.env.Now(), claims.Leeway{}); !errors.Is(err, claims.ErrNoTimes) {
		return err
	}
	return nil
}

// account is a service account.
type account struct {
	name, namespace, uid string
	secretName           string // that the token was kept in; "" for a projected one
}

// accountOf reads which account a token is of: projected tokens say it in an
// object, those of secrets in claims of their own.
func accountOf(set claims.Set) (account, error) {
	const flat = "kubernetes.io/serviceaccount/"
	a := account{
		name: set.Text(flat + "service-account.name"), namespace: set.Text(flat + "namespace"),
		uid: set.Text(flat + "service-account.uid"), secretName: set.Text(flat + "secret.name"),
	}
	if _, projected := set.Claim("kubernetes.io"); projected {
		a = account{secretName: a.secretName}
		for pointer, to := range map[string]*string{
			"/kubernetes.io/namespace": &a.namespace, "/kubernetes.io/serviceaccount/name": &a.name, "/kubernetes.io/serviceaccount/uid": &a.uid,
		} {
			if v, ok := set.Find(pointer); ok && v.Kind() == wire.String {
				*to, _ = v.Text()
			}
		}
	}
	if a.name == "" || a.namespace == "" || a.uid == "" {
		return account{}, errors.New("the token is of no service account: its claims name none")
	}
	return a, nil
}

// auth is what an account gets.
func (a account) auth(roleName string, role *roleRow) *route.Auth {
	meta := func() map[string]string {
		return map[string]string{
			"service_account_uid": a.uid, "service_account_name": a.name, "service_account_namespace": a.namespace,
			"service_account_secret_name": a.secretName,
		}
	}
	auth := role.Token.Auth()
	auth.Role = roleName
	auth.DisplayName = a.namespace + "-" + a.name
	auth.Alias = &route.Alias{Name: a.uid, Metadata: meta()}
	if role.AliasName == aliasName {
		auth.Alias.Name = a.namespace + "/" + a.name
	}
	auth.Metadata = meta()
	auth.Metadata["role"] = roleName
	auth.Internal = role.Keep(roleName)
	return auth
}

// RenewLogin implements engine.Renewer: the role must still be there, and its
// parameters count as they are now.
func (e *Engine) RenewLogin(ctx context.Context, r engine.Renewal) (*route.Auth, error) {
	return e.roles.Renew(ctx, r)
}
