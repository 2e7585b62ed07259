package approle

import (
	"context"
	"encoding/hex"
	"strings"

	"github.com/leasehold/leasehold/internal/auth/tokenparams"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

type roleIn struct {
	Name string `json:"role_name" doc:"Name of the role; upper and lower case are the same."`
}

func (in roleIn) name() string { return known(in.Name) }

// known is a role's name as rows have it.
func known(name string) string { return strings.ToLower(name) }

// What bounds names and ids: a key has room for the one, and nobody types more
// than the other.
const (
	mostName = 256
	mostID   = 512
)

func (e *Engine) listRoles(ctx context.Context, _ *route.Request, _ route.None) (route.Keys, error) {
	names, err := storage.Folder(ctx, e.env.Store, namePrefix)
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(names)
}

// find reads a role for those who may: errs.Gone without one.
func (e *Engine) find(ctx context.Context, in roleIn) (*role, error) {
	r, err := e.lookFor(ctx, in)
	if err == nil && r == nil {
		err = errs.Gone
	}
	return r, err
}

func (e *Engine) lookFor(ctx context.Context, in roleIn) (r *role, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		r, err = e.roleNamed(v, in.name())
		return err
	})
	return r, err
}

func (e *Engine) roleExists(ctx context.Context, _ *route.Request, in roleIn) (bool, error) {
	r, err := e.lookFor(ctx, in)
	return r != nil, err
}

// roleOut is a role as it is read. Fields of older names tell what was written
// under them.
type roleOut struct {
	BindSecretID   bool     `json:"bind_secret_id"`
	LocalSecretIDs bool     `json:"local_secret_ids"`
	SecretCIDRs    []string `json:"secret_id_bound_cidrs" wire:"null"`
	SecretNumUses  int      `json:"secret_id_num_uses"`
	SecretTTL      wire.TTL `json:"secret_id_ttl"`
	tokenparams.Params
	OldPolicies wire.Opt[[]string] `json:"policies"`
	OldPeriod   wire.Opt[wire.TTL] `json:"period"`
}

func (e *Engine) readRole(ctx context.Context, _ *route.Request, in roleIn) (roleOut, error) {
	r, err := e.find(ctx, in)
	if err != nil {
		return roleOut{}, err
	}
	out := roleOut{
		BindSecretID: r.BindSecretID, LocalSecretIDs: r.LocalSecretIDs, SecretCIDRs: r.SecretCIDRs,
		SecretNumUses: r.SecretNumUses, SecretTTL: r.SecretTTL, Params: r.Token,
		OldPolicies: r.oldPolicies(), OldPeriod: r.oldPeriod(),
	}
	return out, nil
}

func (r *roleRow) oldPolicies() wire.Opt[[]string] {
	return wire.Opt[[]string]{Value: r.Token.Policies, Set: r.OldPolicies && len(r.Token.Policies) > 0}
}

func (r *roleRow) oldPeriod() wire.Opt[wire.TTL] {
	return wire.Opt[wire.TTL]{Value: r.Token.Period, Set: r.OldPeriod && r.Token.Period > 0}
}

type writeRoleIn struct {
	roleIn
	RoleID         wire.Opt[string]   `json:"role_id" doc:"The role id, of one's own choice; drawn without."`
	BindSecretID   wire.Opt[bool]     `json:"bind_secret_id" doc:"Whether a login needs a secret id; it does without."`
	LocalSecretIDs wire.Opt[bool]     `json:"local_secret_ids" doc:"Kept for Vault's sake, whose secret ids may belong to one cluster alone. Cannot be changed."`
	SecretCIDRs    wire.Opt[wire.CSV] `json:"secret_id_bound_cidrs" doc:"Networks that logins may come from; empty: any."`
	OldSecretCIDRs wire.Opt[wire.CSV] `json:"bound_cidr_list" doc:"Older name of secret_id_bound_cidrs."`
	SecretNumUses  wire.Opt[int]      `json:"secret_id_num_uses" doc:"How many logins a secret id is good for; 0: any number."`
	SecretTTL      wire.Opt[wire.TTL] `json:"secret_id_ttl" doc:"How long a secret id lives; 0: it does not expire."`
	tokenparams.Change
	OldPolicies wire.Opt[wire.CSV] `json:"policies" doc:"Older name of token_policies."`
	OldPeriod   wire.Opt[wire.TTL] `json:"period" doc:"Older name of token_period."`
}

func (e *Engine) writeRole(ctx context.Context, req *route.Request, in writeRoleIn) (route.None, error) {
	var most wire.TTL
	err := e.change(ctx, in.name(), true, func(r *roleRow, fresh bool) error {
		if err := in.apply(r, fresh); err != nil {
			return err
		}
		most = r.Token.MaxTTL
		if !r.OldPeriod {
			// As in Vault a token_period over the mount's maximum is taken
			// here, where it is cut at each login, and "period" is not.
			return nil
		}
		return r.checkPeriod(req.Mount)
	})
	if err == nil && most.Duration() > req.Mount.MaxTTL {
		req.Warn("token_max_ttl is greater than the backend mount's maximum TTL value; issued tokens' max TTL value will be truncated")
	}
	return route.None{}, err
}

func (in writeRoleIn) apply(r *roleRow, fresh bool) error {
	if id, ok := in.RoleID.Get(); ok {
		r.RoleID = strings.TrimSpace(id)
	}
	in.BindSecretID.Apply(&r.BindSecretID)
	if local, ok := in.LocalSecretIDs.Get(); ok {
		if !fresh && local != r.LocalSecretIDs {
			return errs.New(errs.Invalid, "local_secret_ids can only be modified during role creation")
		}
		r.LocalSecretIDs = local
	}
	cidrs := in.SecretCIDRs
	if !cidrs.Set {
		cidrs = in.OldSecretCIDRs
	}
	if list, ok := cidrs.Get(); ok {
		r.SecretCIDRs = nonEmpty(list)
	}
	in.SecretNumUses.Apply(&r.SecretNumUses)
	in.SecretTTL.Apply(&r.SecretTTL)
	c := in.Change
	older(&c.Policies, in.OldPolicies, &r.OldPolicies)
	older(&c.Period, in.OldPeriod, &r.OldPeriod)
	return r.Token.Apply(c)
}

// older takes a field that has an older name, and notes whether that name was
// used last: then it is answered too.
func older[T any](now *wire.Opt[T], old wire.Opt[T], used *bool) {
	switch {
	case old.Set:
		*used = true
		if !now.Set {
			*now = old
		}
	case now.Set:
		*used = false
	}
}

// checkPeriod refuses a period that the mount does not allow.
func (r *roleRow) checkPeriod(m route.MountInfo) error {
	if p := r.Token.Period.Duration(); p > m.MaxTTL {
		return errs.New(errs.Invalid, "period of %q is greater than the backend's maximum lease TTL of %q", p, m.MaxTTL)
	}
	return nil
}

// check refuses a role that nobody could log in with, or anybody.
func (r *roleRow) check() error {
	switch {
	case r.RoleID == "":
		return errs.New(errs.Invalid, "the role_id cannot be empty; leave it out to have one drawn")
	case len(r.RoleID) > mostID:
		return errs.New(errs.Invalid, "the role_id is longer than %d bytes", mostID)
	case r.SecretNumUses < 0:
		return errs.New(errs.Invalid, "secret_id_num_uses cannot be negative")
	case !r.BindSecretID && len(r.SecretCIDRs) == 0 && len(r.Token.BoundCIDRs) == 0:
		return errs.New(errs.Invalid, "at least one constraint should be enabled on the role: bind_secret_id, secret_id_bound_cidrs or token_bound_cidrs")
	}
	_, err := tokenparams.CIDRs("secret_id_bound_cidrs", r.SecretCIDRs)
	return err
}

// change writes a role after fn has changed it. Where there is none, a new one
// is made if make is set, and else the error is errs.NotFound.
func (e *Engine) change(ctx context.Context, name string, make bool, fn func(r *roleRow, fresh bool) error) error {
	if len(name) > mostName {
		return errs.New(errs.Invalid, "the name of a role has at most %d bytes", mostName)
	}
	id, err := e.uuid()
	if err != nil {
		return err
	}
	var key [16]byte
	if _, err := e.env.Rand.Read(key[:]); err != nil {
		return err
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		was, err := tx.Get(namePrefix + name)
		if err != nil {
			return err
		}
		r := &roleRow{V: rowVersion, Key: hex.EncodeToString(key[:]), Name: name, RoleID: id, BindSecretID: true}
		r.Token.Type = tokenparams.Default
		if was == nil && !make {
			return errs.New(errs.NotFound, "role %q does not exist", name)
		}
		if was != nil {
			b, err := tx.Get(rolePrefix + string(was))
			if err != nil {
				return err
			}
			if r, err = readRole(b); err != nil {
				return err
			}
		}
		if err := fn(r, was == nil); err != nil {
			return err
		}
		if err := r.check(); err != nil {
			return err
		}
		return e.place(tx, string(was), r)
	})
	return err
}

// place writes a role where its role id says, and removes it from where it was.
func (e *Engine) place(tx storage.Tx, was string, r *roleRow) error {
	at := e.roleAt(r.RoleID)
	if at != was {
		switch other, err := tx.Get(rolePrefix + at); {
		case err != nil:
			return err
		case other != nil:
			return errs.New(errs.Invalid, "the role_id is in use already; choose another")
		}
		if was != "" {
			if err := tx.Delete(rolePrefix + was); err != nil {
				return err
			}
		}
		if err := tx.Put(namePrefix+r.Name, []byte(at)); err != nil {
			return err
		}
	}
	return tx.Put(rolePrefix+at, wire.Marshal(r))
}

// deleteRole ends a role. From then on its secret ids belong to nothing; they
// are deleted page by page, and what is left by Sweep.
func (e *Engine) deleteRole(ctx context.Context, _ *route.Request, in roleIn) (route.None, error) {
	key := ""
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		key = ""
		at, err := tx.Get(namePrefix + in.name())
		if err != nil || at == nil {
			return err
		}
		b, err := tx.Get(rolePrefix + string(at))
		if err != nil {
			return err
		}
		r, err := readRole(b)
		if err != nil {
			return err
		}
		key = r.Key
		if err := tx.Put(endingPrefix+key, nil); err != nil {
			return err
		}
		if err := tx.Delete(rolePrefix + string(at)); err != nil {
			return err
		}
		return tx.Delete(namePrefix + in.name())
	})
	if err != nil || key == "" {
		return route.None{}, err
	}
	if _, err := e.purge(ctx, key, 10); err != nil {
		e.env.Log.Warn("deleting the secret ids of a deleted role; it is tried again", "error", err)
	}
	return route.None{}, nil
}
