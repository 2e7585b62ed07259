package token

import (
	"context"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// The types of token that a role or a request names.
const (
	typeService        = "service"
	typeBatch          = "batch"
	typeDefaultService = "default-service"
	typeDefaultBatch   = "default-batch"
)

// roleRow is a role as it is stored under role/<name>. Fields with older names
// are kept beside the new ones because they are answered apart. Version 1.
type roleRow struct {
	V                 int            `json:"v"`
	Name              string         `json:"name"`
	Allowed           []string       `json:"allow,omitempty"`
	AllowedGlob       []string       `json:"allowg,omitempty"`
	Disallowed        []string       `json:"deny,omitempty"`
	DisallowedGlob    []string       `json:"denyg,omitempty"`
	EntityAliases     []string       `json:"alias,omitempty"`
	Orphan            bool           `json:"orphan,omitempty"`
	Renewable         bool           `json:"rnw"`
	PathSuffix        string         `json:"suffix,omitempty"`
	Type              string         `json:"type"`
	NoDefaultPolicy   bool           `json:"nodef,omitempty"`
	NumUses           int            `json:"uses,omitempty"`
	Period            wire.TTL       `json:"period,omitempty"`
	ExplicitMaxTTL    wire.TTL       `json:"xttl,omitempty"`
	BoundCIDRs        []netip.Prefix `json:"cidr,omitempty"`
	OldPeriod         wire.TTL       `json:"operiod,omitempty"`
	OldExplicitMaxTTL wire.TTL       `json:"oxttl,omitempty"`
	OldBoundCIDRs     []netip.Prefix `json:"ocidr,omitempty"`
}

const (
	rolePrefix  = "role/"
	roleVersion = 1
)

// role is a role as creating a token looks at it.
type role struct {
	roleRow
	Period         time.Duration
	ExplicitMaxTTL time.Duration
}

// role reads a role: nil when there is none.
func (e *Engine) role(ctx context.Context, name string) (*role, error) {
	var r *role
	err := e.store.View(ctx, func(v storage.View) error {
		b, err := v.Get(rolePrefix + name)
		if err != nil || b == nil {
			return err
		}
		r = new(role)
		return wire.Unmarshal(b, &r.roleRow)
	})
	if err != nil || r == nil {
		return nil, err
	}
	if r.V > roleVersion {
		return nil, errs.New(errs.Internal, "role %q has version %d, written by a newer server", name, r.V)
	}
	r.Period, r.ExplicitMaxTTL = r.roleRow.Period.Duration(), r.roleRow.ExplicitMaxTTL.Duration()
	return r, nil
}

// rules reports whether the role has rules of its own for policies, in place
// of the parent's.
func (r *role) rules() bool {
	return len(r.Allowed)+len(r.AllowedGlob)+len(r.Disallowed)+len(r.DisallowedGlob) > 0
}

// choose gives the policies of a token that this role makes. It allows a set
// that may be disjoint from the parent's.
func (r *role) choose(asked, parent []string, noDefault bool) ([]string, error) {
	addDefault := !noDefault && !r.NoDefaultPolicy && !r.disallows(defaultPolicy)
	var final []string
	if len(asked) > 0 {
		final = cleanPolicies(asked, addDefault)
	}
	switch {
	case len(r.Allowed)+len(r.AllowedGlob) == 0:
		if len(final) == 0 {
			final = cleanPolicies(parent, addDefault)
		}
	case len(final) == 0:
		final = cleanPolicies(r.Allowed, addDefault)
	default:
		allowed := cleanPolicies(r.Allowed, addDefault)
		for _, p := range final {
			if !slices.Contains(allowed, p) && !anyGlob(r.AllowedGlob, p) {
				return nil, errs.New(errs.Invalid, "token policies (%q) must be subset of the role's allowed policies (%q) or glob policies (%q)", final, allowed, r.AllowedGlob)
			}
		}
	}
	for _, p := range final {
		if r.disallows(p) {
			return nil, errs.New(errs.Invalid, "token policy %q is disallowed by this role", p)
		}
	}
	return final, nil
}

func (r *role) disallows(name string) bool {
	return slices.Contains(r.Disallowed, name) || anyGlob(r.DisallowedGlob, name)
}

// allowsAlias reports whether a token of the role may belong to the entity of
// an alias. Case does not matter.
func (r *role) allowsAlias(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(r.EntityAliases, func(p string) bool { return glob(strings.ToLower(p), name) })
}

// anyGlob reports whether a name matches one of the patterns, in which *
// stands for any text.
func anyGlob(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return glob(p, name) })
}

func glob(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	rest, ok := strings.CutPrefix(name, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}

type roleIn struct {
	Name string `json:"role_name" doc:"Name of the role."`
}

// roleOut is a role as it is read. Fields of older names tell what was written
// under them.
type roleOut struct {
	Name              string         `json:"name"`
	Allowed           []string       `json:"allowed_policies"`
	AllowedGlob       []string       `json:"allowed_policies_glob"`
	Disallowed        []string       `json:"disallowed_policies"`
	DisallowedGlob    []string       `json:"disallowed_policies_glob"`
	EntityAliases     []string       `json:"allowed_entity_aliases" wire:"null"`
	Orphan            bool           `json:"orphan"`
	PathSuffix        string         `json:"path_suffix"`
	Renewable         bool           `json:"renewable"`
	OldPeriod         wire.TTL       `json:"period"`
	OldExplicitMaxTTL wire.TTL       `json:"explicit_max_ttl"`
	OldBoundCIDRs     []netip.Prefix `json:"bound_cidrs,omitempty"`
	Type              string         `json:"token_type"`
	NoDefaultPolicy   bool           `json:"token_no_default_policy"`
	Period            wire.TTL       `json:"token_period"`
	ExplicitMaxTTL    wire.TTL       `json:"token_explicit_max_ttl"`
	NumUses           int            `json:"token_num_uses"`
	BoundCIDRs        []netip.Prefix `json:"token_bound_cidrs,omitempty"`
}

func (e *Engine) listRoles(ctx context.Context, _ *route.Request, _ route.None) (route.Keys, error) {
	var names []string
	err := e.store.View(ctx, func(v storage.View) error {
		return v.Scan(rolePrefix, storage.PrefixEnd(rolePrefix), 0, func(key string, _ []byte) bool {
			names = append(names, key[len(rolePrefix):])
			return true
		})
	})
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(names)
}

func (e *Engine) roleExists(ctx context.Context, _ *route.Request, in roleIn) (bool, error) {
	r, err := e.role(ctx, in.Name)
	return r != nil, err
}

func (e *Engine) readRole(ctx context.Context, _ *route.Request, in roleIn) (roleOut, error) {
	r, err := e.role(ctx, in.Name)
	if err == nil && r == nil {
		err = errs.Gone
	}
	if err != nil {
		return roleOut{}, err
	}
	row := r.roleRow
	return roleOut{
		Name: row.Name, Allowed: row.Allowed, AllowedGlob: row.AllowedGlob, Disallowed: row.Disallowed,
		DisallowedGlob: row.DisallowedGlob, EntityAliases: row.EntityAliases, Orphan: row.Orphan,
		PathSuffix: row.PathSuffix, Renewable: row.Renewable, OldPeriod: row.OldPeriod,
		OldExplicitMaxTTL: row.OldExplicitMaxTTL, OldBoundCIDRs: row.OldBoundCIDRs, Type: row.Type,
		NoDefaultPolicy: row.NoDefaultPolicy, Period: row.Period, ExplicitMaxTTL: row.ExplicitMaxTTL,
		NumUses: row.NumUses, BoundCIDRs: row.BoundCIDRs,
	}, nil
}

type writeRoleIn struct {
	Name              string             `json:"role_name"`
	Allowed           wire.Opt[wire.CSV] `json:"allowed_policies" doc:"Policies that tokens of the role may have, whatever their parent has."`
	AllowedGlob       wire.Opt[wire.CSV] `json:"allowed_policies_glob" doc:"The same, with * for any text."`
	Disallowed        wire.Opt[wire.CSV] `json:"disallowed_policies" doc:"Policies that they may not have."`
	DisallowedGlob    wire.Opt[wire.CSV] `json:"disallowed_policies_glob" doc:"The same, with * for any text."`
	EntityAliases     wire.Opt[wire.CSV] `json:"allowed_entity_aliases" doc:"Names that entity_alias may give, with * for any text."`
	Orphan            wire.Opt[bool]     `json:"orphan" doc:"Tokens have no parent."`
	Renewable         wire.Opt[bool]     `json:"renewable" doc:"Tokens can be renewed; they can without."`
	PathSuffix        wire.Opt[string]   `json:"path_suffix" doc:"Added to the path of tokens, by which they can be revoked together."`
	Type              wire.Opt[string]   `json:"token_type" doc:"service, batch, default-service or default-batch."`
	NoDefaultPolicy   wire.Opt[bool]     `json:"token_no_default_policy" doc:"Leave out the policy default."`
	NumUses           wire.Opt[int]      `json:"token_num_uses" doc:"How many requests a token is good for; 0 is any number."`
	Period            wire.Opt[wire.TTL] `json:"token_period" doc:"Tokens live as long as they are renewed within this time."`
	OldPeriod         wire.Opt[wire.TTL] `json:"period" doc:"Older name of token_period."`
	ExplicitMaxTTL    wire.Opt[wire.TTL] `json:"token_explicit_max_ttl" doc:"How long tokens live at most, however often they are renewed."`
	OldExplicitMaxTTL wire.Opt[wire.TTL] `json:"explicit_max_ttl" doc:"Older name of token_explicit_max_ttl."`
	BoundCIDRs        wire.Opt[wire.CSV] `json:"token_bound_cidrs" doc:"Networks that tokens can be used from."`
	OldBoundCIDRs     wire.Opt[wire.CSV] `json:"bound_cidrs" doc:"Older name of token_bound_cidrs."`
}

func (e *Engine) writeRole(ctx context.Context, req *route.Request, in writeRoleIn) (route.None, error) {
	var row roleRow
	_, err := e.store.Update(ctx, func(tx storage.Tx) error {
		row = roleRow{V: roleVersion, Name: in.Name, Renewable: true, Type: typeDefaultService}
		b, err := tx.Get(rolePrefix + in.Name)
		if err != nil {
			return err
		}
		if b != nil {
			if err := wire.Unmarshal(b, &row); err != nil {
				return err
			}
		}
		if err := in.apply(&row); err != nil {
			return err
		}
		return tx.Put(rolePrefix+in.Name, wire.Marshal(&row))
	})
	if err != nil {
		return route.None{}, err
	}
	for _, f := range []struct {
		name string
		both bool
	}{
		{"period", in.Period.Set && in.OldPeriod.Set},
		{"explicit_max_ttl", in.ExplicitMaxTTL.Set && in.OldExplicitMaxTTL.Set},
		{"bound_cidrs", in.BoundCIDRs.Set && in.OldBoundCIDRs.Set},
	} {
		if f.both {
			req.Warn("both 'token_%s' and its older name '%s' were given; the latter is ignored", f.name, f.name)
		}
	}
	if most := req.Mount.MaxTTL; most > 0 && row.ExplicitMaxTTL.Duration() > most {
		req.Warn("token_explicit_max_ttl of %q is greater than the mount's maximum of %q, which cuts it", row.ExplicitMaxTTL.Duration(), most)
	}
	return route.None{}, nil
}

func (in writeRoleIn) apply(row *roleRow) error {
	row.V = roleVersion
	for _, l := range []struct {
		in wire.Opt[wire.CSV]
		to *[]string
	}{
		{in.Allowed, &row.Allowed}, {in.AllowedGlob, &row.AllowedGlob},
		{in.Disallowed, &row.Disallowed}, {in.DisallowedGlob, &row.DisallowedGlob},
	} {
		if v, ok := l.in.Get(); ok {
			*l.to = cleanPolicies(v, false)
		}
	}
	if v, ok := in.EntityAliases.Get(); ok {
		row.EntityAliases = v
	}
	in.Orphan.Apply(&row.Orphan)
	in.Renewable.Apply(&row.Renewable)
	in.NoDefaultPolicy.Apply(&row.NoDefaultPolicy)
	in.NumUses.Apply(&row.NumUses)
	renamed(in.Period, in.OldPeriod, &row.Period, &row.OldPeriod)
	renamed(in.ExplicitMaxTTL, in.OldExplicitMaxTTL, &row.ExplicitMaxTTL, &row.OldExplicitMaxTTL)
	bound, err := cidrs(in.BoundCIDRs)
	if err != nil {
		return err
	}
	oldBound, err := cidrs(in.OldBoundCIDRs)
	if err != nil {
		return err
	}
	renamed(bound, oldBound, &row.BoundCIDRs, &row.OldBoundCIDRs)
	if v, ok := in.PathSuffix.Get(); ok {
		if err := checkSuffix(v); err != nil {
			return err
		}
		row.PathSuffix = v
	}
	if v, ok := in.Type.Get(); ok {
		if v == "" || v == "default" {
			v = typeDefaultService
		}
		if !slices.Contains([]string{typeService, typeBatch, typeDefaultService, typeDefaultBatch}, v) {
			return errs.New(errs.Invalid, "invalid 'token_type' value %q", v)
		}
		row.Type = v
	}
	return row.check()
}

// renamed takes a field that has an older name. What was written under that
// is answered under both; the new name replaces both.
func renamed[T any](in, old wire.Opt[T], to, oldTo *T) {
	if v, ok := in.Get(); ok {
		var none T
		*to, *oldTo = v, none
		if old.Set {
			*oldTo = v
		}
	} else if v, ok := old.Get(); ok {
		*to, *oldTo = v, v
	}
}

// check refuses roles whose tokens could not be made.
func (row *roleRow) check() error {
	if row.NumUses < 0 {
		return errs.New(errs.Invalid, "'token_num_uses' cannot be negative")
	}
	if row.Type != typeBatch {
		return nil
	}
	what := ""
	switch {
	case row.Renewable:
		what = "renewable tokens"
	case row.Period > 0:
		what = "periodic tokens"
	case row.NumUses > 0:
		what = "tokens with limited use count"
	case row.ExplicitMaxTTL > 0:
		what = "tokens with an explicit max TTL"
	default:
		return nil
	}
	return errs.New(errs.Invalid, "'token_type' cannot be 'batch' when role is set to generate %s", what)
}

// checkSuffix keeps a suffix from leaving the path it is added to.
func checkSuffix(s string) error {
	if s == "" {
		return nil
	}
	ok := path.Clean("/"+s) == "/"+s && strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("*+?#%\\", r)
	}) < 0
	if !ok {
		return errs.New(errs.Invalid, "given role path suffix contains invalid characters: it is segments of letters, digits, - and . between slashes")
	}
	return nil
}

// cidrs reads networks. An address alone is a network of one.
func cidrs(in wire.Opt[wire.CSV]) (out wire.Opt[[]netip.Prefix], err error) {
	list, ok := in.Get()
	if !ok {
		return out, nil
	}
	out.Set = true
	for _, s := range list {
		if s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil {
				return out, errs.New(errs.Invalid, "error parsing role fields: error parsing address %q: it is no address or network", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out.Value = append(out.Value, p)
	}
	return out, nil
}

func (e *Engine) deleteRole(ctx context.Context, _ *route.Request, in roleIn) (route.None, error) {
	_, err := e.store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(rolePrefix + in.Name) })
	return route.None{}, err
}
