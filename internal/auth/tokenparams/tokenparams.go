// Package tokenparams is the one set of token_* parameters that the roles and
// users of every auth method have: how they are written, kept, read, and
// turned into what a login grants.
//
// A method embeds Change (and Older, where Vault still takes the names from
// before token_*) in what it decodes, keeps Params in its row, and embeds it in
// what it answers.
package tokenparams

import (
	"net/netip"
	"slices"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// Change is what a write says about tokens. What it leaves out stays.
type Change struct {
	BoundCIDRs      wire.Opt[wire.CSV] `json:"token_bound_cidrs" doc:"Networks that a login may come from and its token can be used from; empty: any."`
	ExplicitMaxTTL  wire.Opt[wire.TTL] `json:"token_explicit_max_ttl" doc:"How long a token lives at most, however often it is renewed and whatever the mount allows later; 0: no such end."`
	MaxTTL          wire.Opt[wire.TTL] `json:"token_max_ttl" doc:"How long a token lives at most; 0: as long as the mount allows."`
	NoDefaultPolicy wire.Opt[bool]     `json:"token_no_default_policy" doc:"Leave out the policy default."`
	NumUses         wire.Opt[int]      `json:"token_num_uses" doc:"How many requests a token is good for; 0: any number."`
	Period          wire.Opt[wire.TTL] `json:"token_period" doc:"Tokens live as long as they are renewed within this time; 0: they are not periodic."`
	Policies        wire.Opt[wire.CSV] `json:"token_policies" doc:"Policies of the tokens."`
	TTL             wire.Opt[wire.TTL] `json:"token_ttl" doc:"How long a token lives before it must be renewed; 0: the mount's default."`
	Type            wire.Opt[string]   `json:"token_type" doc:"default, service, batch, default-service or default-batch."`
}

// Older are the names that the token_* parameters had before Vault 1.2.
type Older struct {
	OldPolicies   wire.Opt[wire.CSV] `json:"policies" doc:"Older name of token_policies."`
	OldTTL        wire.Opt[wire.TTL] `json:"ttl" doc:"Older name of token_ttl."`
	OldMaxTTL     wire.Opt[wire.TTL] `json:"max_ttl" doc:"Older name of token_max_ttl."`
	OldPeriod     wire.Opt[wire.TTL] `json:"period" doc:"Older name of token_period."`
	OldNumUses    wire.Opt[int]      `json:"num_uses" doc:"Older name of token_num_uses."`
	OldBoundCIDRs wire.Opt[wire.CSV] `json:"bound_cidrs" doc:"Older name of token_bound_cidrs."`
}

// Or gives c with what was only said by its older name.
func (o Older) Or(c Change) Change {
	older(&c.Policies, o.OldPolicies)
	older(&c.TTL, o.OldTTL)
	older(&c.MaxTTL, o.OldMaxTTL)
	older(&c.Period, o.OldPeriod)
	older(&c.NumUses, o.OldNumUses)
	older(&c.BoundCIDRs, o.OldBoundCIDRs)
	return c
}

func older[T any](now *wire.Opt[T], old wire.Opt[T]) {
	if !now.Set {
		*now = old
	}
}

// Params are the token_* parameters as they are kept and read. Zero values
// leave each to the mount.
type Params struct {
	BoundCIDRs      []netip.Prefix `json:"token_bound_cidrs"`
	ExplicitMaxTTL  wire.TTL       `json:"token_explicit_max_ttl"`
	MaxTTL          wire.TTL       `json:"token_max_ttl"`
	NoDefaultPolicy bool           `json:"token_no_default_policy"`
	NumUses         int            `json:"token_num_uses"`
	Period          wire.TTL       `json:"token_period"`
	Policies        []string       `json:"token_policies"`
	TTL             wire.TTL       `json:"token_ttl"`
	Type            Type           `json:"token_type"`
}

// Type is a token_type. The empty one reads "default".
type Type string

// The types. Default leaves it to the mount; the others that begin with
// "default-" leave it to a mount that says something else.
const (
	Default        Type = "default"
	Service        Type = "service"
	Batch          Type = "batch"
	DefaultService Type = "default-service"
	DefaultBatch   Type = "default-batch"
)

// Apply changes p by what was written, or says what is wrong with it and
// leaves p as it was.
func (p *Params) Apply(c Change) error {
	n := *p
	var err error
	if list, ok := c.BoundCIDRs.Get(); ok {
		if n.BoundCIDRs, err = CIDRs("token_bound_cidrs", list); err != nil {
			return err
		}
	}
	if list, ok := c.Policies.Get(); ok {
		n.Policies = slices.Clone(list)
	}
	c.ExplicitMaxTTL.Apply(&n.ExplicitMaxTTL)
	c.MaxTTL.Apply(&n.MaxTTL)
	c.NoDefaultPolicy.Apply(&n.NoDefaultPolicy)
	c.NumUses.Apply(&n.NumUses)
	c.Period.Apply(&n.Period)
	c.TTL.Apply(&n.TTL)
	if s, ok := c.Type.Get(); ok {
		if n.Type, err = parseType(s); err != nil {
			return err
		}
	}
	if n.Type == "" {
		n.Type = Default
	}
	if err := n.check(); err != nil {
		return err
	}
	*p = n
	return nil
}

func parseType(s string) (Type, error) {
	switch t := Type(s); t {
	case "":
		return Default, nil
	case Default, Service, Batch, DefaultService, DefaultBatch:
		return t, nil
	}
	return "", errs.New(errs.Invalid, "invalid 'token_type' value %q: it is default, service, batch, default-service or default-batch", s)
}

// check refuses parameters whose tokens could not be made.
func (p *Params) check() error {
	switch {
	case p.NumUses < 0:
		return errs.New(errs.Invalid, "'token_num_uses' cannot be negative")
	case p.MaxTTL > 0 && p.TTL > p.MaxTTL:
		return errs.New(errs.Invalid, "'token_ttl' cannot be greater than 'token_max_ttl'")
	case p.Type == Batch && p.Period > 0:
		return errs.New(errs.Invalid, "'token_type' cannot be 'batch' when 'token_period' is set: batch tokens cannot be renewed")
	case p.Type == Batch && p.NumUses > 0:
		return errs.New(errs.Invalid, "'token_type' cannot be 'batch' when 'token_num_uses' is set: batch tokens cannot be limited in uses")
	}
	return nil
}

// Auth is what a login with these parameters grants. The caller adds who it
// is: display name, metadata, alias.
func (p *Params) Auth() *route.Auth {
	a := &route.Auth{
		Policies: slices.Clone(p.Policies), TTL: p.TTL.Duration(), MaxTTL: p.MaxTTL.Duration(),
		ExplicitMaxTTL: p.ExplicitMaxTTL.Duration(), Period: p.Period.Duration(), NumUses: p.NumUses,
		NoDefaultPolicy: p.NoDefaultPolicy, BoundCIDRs: p.BoundCIDRs,
	}
	switch p.Type {
	case Service, DefaultService:
		a.Type = route.TokenService
	case Batch, DefaultBatch:
		a.Type = route.TokenBatch
	}
	return a
}

// Admits reports whether a login may come from an address.
func (p *Params) Admits(from netip.Addr) bool { return Within(p.BoundCIDRs, from) }

// Within reports whether an address is in one of some networks; no networks
// are every one.
func Within(nets []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap()
	return len(nets) == 0 || slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
}

// CIDRs reads a list of networks and addresses. field is named in the error.
func CIDRs(field string, list []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		if s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil {
				return nil, errs.New(errs.Invalid, "%s: %q is no network such as 10.0.0.0/8 and no address", field, s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p)
	}
	return out, nil
}
