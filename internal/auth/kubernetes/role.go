package kubernetes

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/auth/claims"
	"github.com/leasehold/leasehold/internal/auth/roles"
	"github.com/leasehold/leasehold/internal/auth/tokenparams"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// roleRow is a role as it is stored under role/<name>. Version 1.
type roleRow struct {
	roles.Head
	Names      []string `json:"names"`
	Namespaces []string `json:"ns"`
	Audience   string   `json:"aud,omitempty"`
	AliasName  string   `json:"alias"`
}

const (
	roleVersion = 1

	aliasUID  = "serviceaccount_uid"
	aliasName = "serviceaccount_name"
)

type writeRoleIn struct {
	Name       string             `json:"name" doc:"Name of the role; upper case counts as lower."`
	Names      wire.Opt[wire.CSV] `json:"bound_service_account_names" doc:"Service accounts that may log in, with * for any text."`
	Namespaces wire.Opt[wire.CSV] `json:"bound_service_account_namespaces" doc:"Namespaces that they are in, with * for any text."`
	Selector   string             `json:"bound_service_account_namespace_selector" doc:"Not supported."`
	Audience   wire.Opt[string]   `json:"audience" doc:"Audience (aud) that the token must be for."`
	AliasName  wire.Opt[string]   `json:"alias_name_source" doc:"What an account is known by: serviceaccount_uid, which is the default and is never given again, or serviceaccount_name."`
	tokenparams.Change
	tokenparams.Older
}

type roleOut struct {
	AliasName  string   `json:"alias_name_source"`
	Audience   string   `json:"audience,omitempty"`
	Names      []string `json:"bound_service_account_names"`
	Selector   string   `json:"bound_service_account_namespace_selector"`
	Namespaces []string `json:"bound_service_account_namespaces"`
	tokenparams.Params
}

func (e *Engine) readRole(ctx context.Context, _ *route.Request, in roles.NameIn) (roleOut, error) {
	row, err := e.roles.Must(ctx, in.Name)
	if err != nil {
		return roleOut{}, err
	}
	return roleOut{
		AliasName: row.AliasName, Audience: row.Audience, Names: row.Names, Namespaces: row.Namespaces, Params: row.Token,
	}, nil
}

func (e *Engine) writeRole(ctx context.Context, req *route.Request, in writeRoleIn) (route.None, error) {
	if in.Selector != "" {
		return route.None{}, errs.New(errs.Invalid, "bound_service_account_namespace_selector is not supported: name the namespaces in bound_service_account_namespaces, with * for any text")
	}
	var row *roleRow
	id := rand.Text()
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) (err error) {
		if row, err = e.roles.At(tx, in.Name); err != nil {
			return err
		}
		if row == nil {
			row = &roleRow{Head: roles.Head{ID: id}}
		}
		if err := in.apply(row); err != nil {
			return err
		}
		if most := req.Mount.MaxTTL; row.Token.Period.Duration() > most {
			return errs.New(errs.Invalid, "token period of %q is greater than the backend's maximum lease TTL of %q", row.Token.Period, most)
		}
		return tx.Put(roles.Key(in.Name), wire.Marshal(row))
	})
	if err != nil {
		return route.None{}, err
	}
	if row.Token.MaxTTL.Duration() > req.Mount.MaxTTL {
		req.Warn("max_ttl is greater than the system or backend mount's maximum TTL value; issued tokens' max TTL value will be truncated")
	}
	if row.Audience == "" {
		req.Warn("This role does not specify an audience: tokens that were made for other receivers can log in as it too.")
	}
	return route.None{}, nil
}

// apply changes a role by what was written.
func (in *writeRoleIn) apply(row *roleRow) error {
	row.V = roleVersion
	if v, ok := in.Names.Get(); ok {
		row.Names = v
	}
	if v, ok := in.Namespaces.Get(); ok {
		row.Namespaces = v
	}
	if v, ok := in.Audience.Get(); ok {
		row.Audience = strings.TrimSpace(v)
	}
	if v, ok := in.AliasName.Get(); ok {
		row.AliasName = v
	}
	if row.AliasName == "" {
		row.AliasName = aliasUID
	}
	if err := row.Token.Apply(in.Or(in.Change)); err != nil {
		return err
	}
	for _, l := range []struct {
		name string
		list []string
	}{{"bound_service_account_names", row.Names}, {"bound_service_account_namespaces", row.Namespaces}} {
		switch {
		case len(l.list) == 0 || slices.Contains(l.list, ""):
			return errs.New(errs.Invalid, "%q can not be empty", l.name)
		case len(l.list) > 1 && slices.Contains(l.list, "*"):
			return errs.New(errs.Invalid, "can not mix %q with values", "*")
		}
	}
	if row.AliasName != aliasUID && row.AliasName != aliasName {
		return errs.New(errs.Invalid, "invalid alias_name_source %q: it is %s or %s", row.AliasName, aliasUID, aliasName)
	}
	return nil
}

// admits says whether a service account may log in, or why not.
func (row *roleRow) admits(a account) error {
	matches := func(list []string, name string) bool {
		return slices.ContainsFunc(list, func(p string) bool { return claims.Glob(p, name) })
	}
	switch {
	case !matches(row.Names, a.name):
		return errs.New(errs.Denied, "service account name not authorized: it is not among the role's bound_service_account_names")
	case !matches(row.Namespaces, a.namespace):
		return errs.New(errs.Denied, "namespace not authorized: it is not among the role's bound_service_account_namespaces")
	}
	return nil
}
