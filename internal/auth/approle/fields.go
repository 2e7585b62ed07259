package approle

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/auth/tokenparams"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// Fields of a role have endpoints of their own, so that policies can grant them
// one by one. A type that ends in Out is what reading a field answers, one that
// ends in In what writing it takes.
type (
	bindOut struct {
		BindSecretID bool `json:"bind_secret_id"`
	}
	bindIn struct {
		roleIn
		BindSecretID wire.Opt[bool] `json:"bind_secret_id" doc:"Whether a login needs a secret id."`
	}
	cidrsOut struct {
		CIDRs []string `json:"secret_id_bound_cidrs" wire:"null"`
	}
	cidrsIn struct {
		roleIn
		CIDRs wire.Opt[wire.CSV] `json:"secret_id_bound_cidrs" doc:"Networks that logins may come from."`
	}
	oldCIDRsOut struct {
		CIDRs []string `json:"bound_cidr_list" wire:"null"`
	}
	oldCIDRsIn struct {
		roleIn
		CIDRs wire.Opt[wire.CSV] `json:"bound_cidr_list" doc:"Networks that logins may come from; older name of secret_id_bound_cidrs."`
	}
	secretUsesOut struct {
		NumUses int `json:"secret_id_num_uses"`
	}
	secretUsesIn struct {
		roleIn
		NumUses wire.Opt[int] `json:"secret_id_num_uses" doc:"How many logins a secret id is good for; 0: any number."`
	}
	secretTTLOut struct {
		TTL wire.TTL `json:"secret_id_ttl"`
	}
	secretTTLIn struct {
		roleIn
		TTL wire.Opt[wire.TTL] `json:"secret_id_ttl" doc:"How long a secret id lives; 0: it does not expire."`
	}
	localOut struct {
		LocalSecretIDs bool `json:"local_secret_ids"`
	}
	roleIDOut struct {
		RoleID string `json:"role_id"`
	}
	roleIDIn struct {
		roleIn
		RoleID wire.Opt[string] `json:"role_id" doc:"The role id, of one's own choice."`
	}
	policiesOut struct {
		Policies []string           `json:"token_policies"`
		Old      wire.Opt[[]string] `json:"policies"`
	}
	policiesIn struct {
		roleIn
		Policies wire.Opt[wire.CSV] `json:"token_policies" doc:"Policies of the tokens."`
		Old      wire.Opt[wire.CSV] `json:"policies" doc:"Older name of token_policies."`
	}
	periodOut struct {
		Period wire.TTL           `json:"token_period"`
		Old    wire.Opt[wire.TTL] `json:"period"`
	}
	periodIn struct {
		roleIn
		Period wire.Opt[wire.TTL] `json:"token_period" doc:"Tokens live as long as they are renewed within this time; 0: they are not periodic."`
		Old    wire.Opt[wire.TTL] `json:"period" doc:"Older name of token_period."`
	}
	tokenCIDRsOut struct {
		CIDRs []netip.Prefix `json:"token_bound_cidrs" wire:"null"`
	}
	tokenCIDRsIn struct {
		roleIn
		CIDRs wire.Opt[wire.CSV] `json:"token_bound_cidrs" doc:"Networks that a login may come from and its token can be used from."`
	}
	tokenUsesOut struct {
		NumUses int `json:"token_num_uses"`
	}
	tokenUsesIn struct {
		roleIn
		NumUses wire.Opt[int] `json:"token_num_uses" doc:"How many requests a token is good for; 0: any number."`
	}
	tokenTTLOut struct {
		TTL wire.TTL `json:"token_ttl"`
	}
	tokenTTLIn struct {
		roleIn
		TTL wire.Opt[wire.TTL] `json:"token_ttl" doc:"How long a token lives before it must be renewed; 0: the mount's default."`
	}
	tokenMaxTTLOut struct {
		TTL wire.TTL `json:"token_max_ttl"`
	}
	tokenMaxTTLIn struct {
		roleIn
		TTL wire.Opt[wire.TTL] `json:"token_max_ttl" doc:"How long a token lives at most; 0: as long as the mount allows."`
	}
)

func (e *Engine) fieldRoutes(t *route.Table) {
	fields[bindOut, bindIn]{
		path: "bind-secret-id", what: "whether a login needs a secret id",
		read:  func(r *role) bindOut { return bindOut{r.BindSecretID} },
		write: func(r *roleRow, in bindIn) error { return need("bind_secret_id", in.BindSecretID, &r.BindSecretID) },
		clear: func(r *roleRow) { r.BindSecretID = true },
	}.declare(e, t)
	fields[cidrsOut, cidrsIn]{
		path: "secret-id-bound-cidrs", what: "the networks that logins may come from",
		read:  func(r *role) cidrsOut { return cidrsOut{r.SecretCIDRs} },
		write: func(r *roleRow, in cidrsIn) error { return r.setCIDRs("secret_id_bound_cidrs", in.CIDRs) },
		clear: func(r *roleRow) { r.SecretCIDRs = nil },
	}.declare(e, t)
	fields[oldCIDRsOut, oldCIDRsIn]{
		path: "bound-cidr-list", what: "the networks that logins may come from",
		read:  func(r *role) oldCIDRsOut { return oldCIDRsOut{r.SecretCIDRs} },
		write: func(r *roleRow, in oldCIDRsIn) error { return r.setCIDRs("bound_cidr_list", in.CIDRs) },
		clear: func(r *roleRow) { r.SecretCIDRs = nil },
	}.declare(e, t)
	fields[secretUsesOut, secretUsesIn]{
		path: "secret-id-num-uses", what: "how many logins a secret id is good for",
		read: func(r *role) secretUsesOut { return secretUsesOut{r.SecretNumUses} },
		write: func(r *roleRow, in secretUsesIn) error {
			return need("secret_id_num_uses", in.NumUses, &r.SecretNumUses)
		},
		clear: func(r *roleRow) { r.SecretNumUses = 0 },
	}.declare(e, t)
	fields[secretTTLOut, secretTTLIn]{
		path: "secret-id-ttl", what: "how long a secret id lives",
		read:  func(r *role) secretTTLOut { return secretTTLOut{r.SecretTTL} },
		write: func(r *roleRow, in secretTTLIn) error { return need("secret_id_ttl", in.TTL, &r.SecretTTL) },
		clear: func(r *roleRow) { r.SecretTTL = 0 },
	}.declare(e, t)
	fields[localOut, roleIn]{
		path: "local-secret-ids", what: "whether secret ids are local",
		read: func(r *role) localOut { return localOut{r.LocalSecretIDs} },
	}.declare(e, t)
	fields[roleIDOut, roleIDIn]{
		path: "role-id", what: "the role id",
		read:  func(r *role) roleIDOut { return roleIDOut{r.RoleID} },
		write: func(r *roleRow, in roleIDIn) error { return need("role_id", in.RoleID, &r.RoleID) },
	}.declare(e, t)
	e.tokenFieldRoutes(t)
}

func (e *Engine) tokenFieldRoutes(t *route.Table) {
	fields[policiesOut, policiesIn]{
		path: "policies", what: "the policies of the tokens",
		read: func(r *role) policiesOut { return policiesOut{r.Token.Policies, r.oldPolicies()} },
		write: func(r *roleRow, in policiesIn) error {
			c := tokenparams.Change{Policies: in.Policies}
			older(&c.Policies, in.Old, &r.OldPolicies)
			return r.setToken("token_policies", c.Policies.Set, c)
		},
		clear: func(r *roleRow) { r.Token.Policies = nil },
	}.declare(e, t)
	fields[periodOut, periodIn]{
		path: "period", what: "the period of the tokens",
		read: func(r *role) periodOut { return periodOut{r.Token.Period, r.oldPeriod()} },
		write: func(r *roleRow, in periodIn) error {
			c := tokenparams.Change{Period: in.Period}
			older(&c.Period, in.Old, &r.OldPeriod)
			return r.setToken("token_period", c.Period.Set, c)
		},
		check: (*roleRow).checkPeriod,
		clear: func(r *roleRow) { r.Token.Period = 0 },
	}.declare(e, t)
	fields[tokenCIDRsOut, tokenCIDRsIn]{
		path: "token-bound-cidrs", what: "the networks that tokens can be used from",
		read: func(r *role) tokenCIDRsOut { return tokenCIDRsOut{nilIfEmpty(r.Token.BoundCIDRs)} },
		write: func(r *roleRow, in tokenCIDRsIn) error {
			return r.setToken("token_bound_cidrs", in.CIDRs.Set, tokenparams.Change{BoundCIDRs: in.CIDRs})
		},
		clear: func(r *roleRow) { r.Token.BoundCIDRs = nil },
	}.declare(e, t)
	fields[tokenUsesOut, tokenUsesIn]{
		path: "token-num-uses", what: "how many requests a token is good for",
		read: func(r *role) tokenUsesOut { return tokenUsesOut{r.Token.NumUses} },
		write: func(r *roleRow, in tokenUsesIn) error {
			return r.setToken("token_num_uses", in.NumUses.Set, tokenparams.Change{NumUses: in.NumUses})
		},
		clear: func(r *roleRow) { r.Token.NumUses = 0 },
	}.declare(e, t)
	fields[tokenTTLOut, tokenTTLIn]{
		path: "token-ttl", what: "how long a token lives before it must be renewed",
		read: func(r *role) tokenTTLOut { return tokenTTLOut{r.Token.TTL} },
		write: func(r *roleRow, in tokenTTLIn) error {
			return r.setToken("token_ttl", in.TTL.Set, tokenparams.Change{TTL: in.TTL})
		},
		clear: func(r *roleRow) { r.Token.TTL = 0 },
	}.declare(e, t)
	fields[tokenMaxTTLOut, tokenMaxTTLIn]{
		path: "token-max-ttl", what: "how long a token lives at most",
		read: func(r *role) tokenMaxTTLOut { return tokenMaxTTLOut{r.Token.MaxTTL} },
		write: func(r *roleRow, in tokenMaxTTLIn) error {
			return r.setToken("token_max_ttl", in.TTL.Set, tokenparams.Change{MaxTTL: in.TTL})
		},
		clear: func(r *roleRow) { r.Token.MaxTTL = 0 },
	}.declare(e, t)
}

// fields are the endpoints of one field of a role.
type fields[Out any, In interface{ name() string }] struct {
	path, what string
	read       func(r *role) Out
	write      func(r *roleRow, in In) error             // nil: it cannot be written
	check      func(r *roleRow, m route.MountInfo) error // of what was written; nil: the mount does not matter
	clear      func(r *roleRow)                          // nil: it cannot be put back to its default
}

func (f fields[Out, In]) declare(e *Engine, t *route.Table) {
	pattern := "role/{role_name}/" + f.path
	route.Read(t, pattern, func(ctx context.Context, _ *route.Request, in roleIn) (out Out, err error) {
		r, err := e.find(ctx, in)
		if err == nil {
			out = f.read(r)
		}
		return out, err
	}, route.Doc("Read "+f.what+"."))
	if f.write != nil {
		route.Write(t, pattern, func(ctx context.Context, req *route.Request, in In) (route.None, error) {
			return route.None{}, e.change(ctx, in.name(), false, func(r *roleRow, _ bool) error {
				if err := f.write(r, in); err != nil || f.check == nil {
					return err
				}
				return f.check(r, req.Mount)
			})
		}, route.Doc("Write "+f.what+"."))
	}
	if f.clear != nil {
		route.Delete(t, pattern, func(ctx context.Context, _ *route.Request, in roleIn) (route.None, error) {
			err := e.change(ctx, in.name(), false, func(r *roleRow, _ bool) error { f.clear(r); return nil })
			if errs.Is(err, errs.NotFound) { // what is not there has nothing to put back
				err = nil
			}
			return route.None{}, err
		}, route.Doc("Put back "+f.what+" to the default."))
	}
}

// need takes a field that must be there.
func need[T any](field string, in wire.Opt[T], to *T) error {
	if !in.Set {
		return errs.New(errs.Invalid, "missing %s", field)
	}
	*to = in.Value
	return nil
}

func (r *roleRow) setCIDRs(field string, in wire.Opt[wire.CSV]) error {
	var list wire.CSV
	if err := need(field, in, &list); err != nil {
		return err
	}
	r.SecretCIDRs = nonEmpty(list)
	return nil
}

func (r *roleRow) setToken(field string, given bool, c tokenparams.Change) error {
	if !given {
		return errs.New(errs.Invalid, "missing %s", field)
	}
	return r.Token.Apply(c)
}

// nonEmpty leaves out what is between two commas of "a,,b". Of nothing it
// makes nil, which reads as null.
func nonEmpty(list []string) []string {
	return nilIfEmpty(slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.TrimSpace(s) == "" }))
}

func nilIfEmpty[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}
