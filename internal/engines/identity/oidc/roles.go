package oidc

import (
	"context"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

const rolePrefix = "oidc/role/"

// roleRow says how identity tokens look. Version 1.
type roleRow struct {
	row
	Key      string   `json:"key"`
	Template string   `json:"tpl,omitempty"`
	TTL      wire.TTL `json:"ttl"`
	ClientID string   `json:"cid"`
}

type roleOut struct {
	ClientID string   `json:"client_id"`
	Key      string   `json:"key"`
	Template string   `json:"template"`
	TTL      wire.TTL `json:"ttl"`
}

func (e *Engine) roleExists(ctx context.Context, _ *route.Request, in nameIn) (bool, error) {
	r, err := load[roleRow](ctx, e, rolePrefix+in.Name)
	return r != nil, err
}

func (e *Engine) readRole(ctx context.Context, _ *route.Request, in nameIn) (roleOut, error) {
	r, err := load[roleRow](ctx, e, rolePrefix+in.Name)
	if err == nil && r == nil {
		err = errs.Gone
	}
	if err != nil {
		return roleOut{}, err
	}
	return roleOut{ClientID: r.ClientID, Key: r.Key, Template: r.Template, TTL: r.TTL}, nil
}

type writeRoleIn struct {
	Name     string             `json:"name" doc:"Name of the role."`
	Key      wire.Opt[string]   `json:"key" doc:"The named key that signs its tokens."`
	Template wire.Opt[string]   `json:"template" doc:"Further claims: JSON with parameters such as {{identity.entity.name}}, or that in base64."`
	TTL      wire.Opt[wire.TTL] `json:"ttl" doc:"How long its tokens live; 24h by default."`
	ClientID wire.Opt[string]   `json:"client_id" doc:"The audience of its tokens; drawn at random by default."`
}

func (in *writeRoleIn) Validate() error {
	_, err := ParseTemplate(in.Template.Value)
	return err
}

func (e *Engine) writeRole(ctx context.Context, _ *route.Request, in writeRoleIn) (route.None, error) {
	drawn, err := randomText(e.env.Rand, 26)
	if err != nil {
		return route.None{}, err
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		r, err := get[roleRow](tx, rolePrefix+in.Name)
		if err != nil {
			return err
		}
		if r == nil {
			r = &roleRow{row: v1, TTL: wire.TTL(24 * time.Hour), ClientID: drawn}
		}
		in.Key.Apply(&r.Key)
		in.Template.Apply(&r.Template)
		in.TTL.Apply(&r.TTL)
		if id := in.ClientID.Value; id != "" {
			r.ClientID = id
		}
		if err := e.fits(tx, r.Key, "a role's token ttl", r.TTL.Duration()); err != nil {
			return err
		}
		if err := touch(tx); err != nil {
			return err
		}
		return tx.Put(rolePrefix+in.Name, wire.Marshal(r))
	})
	return route.None{}, err
}

// fits refuses a key that is not there, or that verifies for a shorter time
// than tokens would live.
func (e *Engine) fits(tx storage.Tx, key, what string, ttl time.Duration) error {
	if key == "" {
		return errs.New(errs.Invalid, "the key parameter is required")
	}
	k, err := get[keyRow](tx, keyPrefix+key)
	switch {
	case err != nil:
		return err
	case k == nil && key == defaultName:
		k = defaultKey()
	case k == nil:
		return errs.New(errs.Invalid, "key %q does not exist", key)
	}
	if ttl > k.Verification.Duration() {
		return errs.New(errs.Invalid, "%s cannot be longer than the verification_ttl of the key it references, which is %s", what, k.Verification)
	}
	return nil
}

func (e *Engine) deleteRole(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(rolePrefix + in.Name) })
	return route.None{}, err
}
