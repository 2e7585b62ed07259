package jwt

import (
	"context"
	"errors"
	"maps"
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
	Role string        `json:"role" doc:"Role to log in as; without one the configuration's default_role."`
	JWT  secret.String `json:"jwt" doc:"The signed token."`
}

var errDenied = errs.New(errs.Denied, "permission denied")

// ready is what a login needs: the configuration, and the role that is asked
// for. Both are read from one snapshot.
func (e *Engine) ready(ctx context.Context, asked string) (conf *configRow, role *roleRow, name string, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) (err error) {
		if conf, err = configOf(v); err != nil {
			return err
		}
		if conf == nil {
			return errNoConfig
		}
		if name, err = conf.roleName(asked); err != nil {
			return err
		}
		if role, err = e.roles.At(v, name); err == nil && role == nil {
			err = errRole(name)
		}
		return err
	})
	return conf, role, name, err
}

// loginRole is the role that a login asks for, before anything is proved.
func (e *Engine) loginRole(ctx context.Context, _ *route.Request, in loginIn) (name string, err error) {
	if in.Role != "" {
		return strings.ToLower(in.Role), nil
	}
	err = e.env.Store.View(ctx, func(v storage.View) error {
		conf, err := configOf(v)
		if conf != nil {
			name = conf.DefaultRole
		}
		return err
	})
	return name, err
}

func (e *Engine) login(ctx context.Context, req *route.Request, in loginIn) (*route.Auth, error) {
	conf, role, name, err := e.ready(ctx, in.Role)
	if err != nil {
		return nil, err
	}
	switch {
	case role.Type == typeOIDC:
		return nil, errs.New(errs.Invalid, "role with oidc role_type is not allowed: it is for logins by browser, at oidc/auth_url")
	case in.JWT.IsZero():
		return nil, errs.New(errs.Invalid, "missing token")
	case !role.Token.Admits(req.Remote):
		return nil, errDenied
	}
	is, err := e.issuerOf(conf)
	if err != nil {
		return nil, err
	}
	set, err := is.verify(ctx, in.JWT.Reveal())
	if err == nil {
		err = e.check(conf, role, set)
	}
	switch {
	case errs.Is(err, errs.Upstream), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil, err
	case err != nil:
		return nil, errs.New(errs.Invalid, "error validating token: %v", err)
	}
	if _, given := set.Audience(); given && len(role.Audiences) == 0 {
		return nil, errs.New(errs.Invalid, "audience claim found in JWT but no audiences bound to the role")
	}
	return grant(conf, name, role, set)
}

// check holds a token's registered claims against what a role wants.
func (e *Engine) check(conf *configRow, role *roleRow, set claims.Set) error {
	switch {
	case conf.BoundIssuer != "" && set.Text("iss") != conf.BoundIssuer:
		return errors.New("invalid issuer (iss) claim")
	case role.Subject != "" && set.Text("sub") != role.Subject:
		return errors.New("invalid subject (sub) claim")
	}
	if len(role.Audiences) > 0 {
		if err := set.CheckAudience(role.Audiences); err != nil {
			return err
		}
	}
	return set.CheckTimes(e.env.Now(), role.leeway())
}

// grant is what the holder of verified claims gets.
func grant(conf *configRow, name string, role *roleRow, set claims.Set) (*route.Auth, error) {
	find := set.Claim
	if role.UserPointer {
		find = set.Find
	}
	v, ok := find(role.User)
	if !ok {
		return nil, errs.New(errs.Invalid, "claim %q not found in token", role.User)
	}
	user, ok := v.Text()
	if !ok || v.Kind() != wire.String || user == "" {
		return nil, errs.New(errs.Invalid, "claim %q could not be converted to string", role.User)
	}
	meta := map[string]string{}
	for from, to := range role.Mappings {
		v, ok := set.Find(from)
		if !ok {
			continue
		}
		if v.Kind() != wire.String {
			return nil, errs.New(errs.Invalid, "error converting claim '%s' to string", from)
		}
		meta[to], _ = v.Text()
	}
	meta[reservedMetadata] = name
	groups, err := groupsOf(conf, role, set)
	if err != nil {
		return nil, err
	}
	if err := set.CheckBound(role.Claims, role.ClaimsType == boundGlob); err != nil {
		return nil, errs.New(errs.Invalid, "error validating claims: %v", err)
	}
	a := role.Token.Auth()
	a.Role = name
	a.DisplayName, a.Metadata, a.Groups = user, meta, groups
	a.Alias = &route.Alias{Name: user, Metadata: maps.Clone(meta)}
	a.Internal = role.Keep(name)
	return a, nil
}

func groupsOf(conf *configRow, role *roleRow, set claims.Set) ([]string, error) {
	if role.Groups == "" {
		return nil, nil
	}
	v, ok := set.Find(role.Groups)
	if !ok {
		return nil, errs.New(errs.Invalid, "failed to fetch groups: %q claim not found in token", role.Groups)
	}
	names, ok := claims.Texts(v)
	if !ok {
		return nil, errs.New(errs.Invalid, "%q claim could not be converted to string list", role.Groups)
	}
	if conf.provider() == "secureauth" { // it writes its list as one text
		names = strings.Split(strings.Join(names, ","), ",")
	}
	out := names[:0]
	for _, n := range names {
		if n = strings.TrimSpace(n); n != "" {
			out = append(out, n)
		}
	}
	return out, nil
}

// RenewLogin implements engine.Renewer: the role must still be there, and its
// parameters count as they are now.
func (e *Engine) RenewLogin(ctx context.Context, r engine.Renewal) (*route.Auth, error) {
	return e.roles.Renew(ctx, r)
}
