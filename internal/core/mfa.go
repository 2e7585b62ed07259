package core

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// This file is what happens between an auth method's yes and its token when
// the identity engine asks for second factors: they come with the login, in a
// header, or the login waits for them.

// heldLogin is a login that waits, as the identity engine keeps it. Version 1.
type heldLogin struct {
	V       int           `json:"v"`
	Mount   string        `json:"mount"` // the auth mount's id
	Entry   []byte        `json:"entry"` // token.Encode
	WrapTTL time.Duration `json:"wrap,omitempty"`
}

const heldVersion = 1

// factors is the identity engine of a namespace, if it asks for second
// factors; otherwise nil.
func (u *unsealed) factors(ctx context.Context, ns string) (engine.SecondFactors, error) {
	i, err := u.identity(ctx, ns)
	if err != nil {
		return nil, err
	}
	f, _ := i.(engine.SecondFactors)
	return f, nil
}

// hold reports whether the login has to wait for second factors; the answer
// then says which. Factors that came with it are checked here and now.
func (x *exchange) hold(ctx context.Context, e *token.Entry, who *engine.Identified) (bool, error) {
	f, err := x.u.factors(ctx, x.ns)
	if err != nil || f == nil {
		return false, err
	}
	d, err := f.Demand(ctx, engine.FactorLogin{Accessor: x.m.Accessor, Type: x.m.Type, Who: who})
	if err != nil || d == nil {
		return false, err
	}
	shown, err := engine.ParseShown(x.req.Header["X-Vault-Mfa"])
	if err != nil {
		return false, err
	}
	if len(shown) > 0 {
		return false, f.Prove(ctx, d, shown)
	}
	// What the client wants wrapped is the token, not the way to it.
	held := heldLogin{V: heldVersion, Mount: x.m.ID, Entry: token.Encode(e), WrapTTL: x.req.WrapTTL}
	x.req.WrapTTL = 0
	b, err := json.Marshal(held)
	if err != nil {
		return false, fmt.Errorf("encoding a login that waits: %w", err)
	}
	id, err := f.Hold(ctx, d, b)
	if err != nil {
		return false, err
	}
	x.r.Warn("A login request was issued that is subject to MFA validation. Please make sure to validate the login by sending another request to sys/mfa/validate endpoint.")
	reply := x.r.Reply()
	x.resp.Warnings, x.resp.Status = reply.Warnings, reply.Status
	x.resp.Auth = wire.Of(route.TokenReply{
		EntityID: who.ID, MFARequirement: &route.MFARequirement{RequestID: id, Constraints: d.Constraints},
	})
	return true, nil
}

// resume goes on with a login that has its second factors now.
func (x *exchange) resume(ctx context.Context, b []byte) error {
	var held heldLogin
	if err := json.Unmarshal(b, &held); err != nil {
		return fmt.Errorf("decoding a login that waited: %w", err)
	}
	if held.V > heldVersion {
		return errs.New(errs.Internal, "a login that waited has version %d, written by a newer server", held.V)
	}
	e, err := token.Decode(held.Entry)
	if err != nil {
		return fmt.Errorf("decoding a login that waited: %w", err)
	}
	t, err := x.u.mounts.current(ctx)
	if err != nil {
		return err
	}
	m := t.byID[held.Mount]
	if m == nil || !m.Ending.IsZero() { // a batch token has no row that its mark could refuse
		return errs.New(errs.Denied, "permission denied: the auth mount of the login was removed meanwhile")
	}
	who, err := x.u.who(ctx, e)
	if err != nil {
		return err
	}
	e.Expires = x.now().Add(e.TTL).Round(0)
	if x.req.WrapTTL == 0 {
		x.req.WrapTTL = held.WrapTTL
	}
	return x.hand(ctx, e, who, m)
}

// ReleaseLogin gives a login that waits for second factors to whoever shows
// them.
func (c *Core) ReleaseLogin(ctx context.Context, ns, id string, shown engine.Shown) ([]byte, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	f, err := u.factors(ctx, ns)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, errs.New(errs.Invalid, "invalid request ID: no login waits")
	}
	return f.Release(ctx, id, shown)
}
