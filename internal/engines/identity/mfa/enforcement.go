package mfa

import (
	"context"
	"slices"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

const enforcementPrefix = "mfa/enforcement/"

// enforcementRow says which logins need one of which methods. Version 1.
type enforcementRow struct {
	row
	ID        string   `json:"id"`
	Methods   []string `json:"meth"`
	Accessors []string `json:"acc,omitempty"`
	Types     []string `json:"type,omitempty"`
	Groups    []string `json:"grp,omitempty"`
	Entities  []string `json:"ent,omitempty"`
}

// applies reports whether a login needs a factor.
func (r *enforcementRow) applies(l engine.FactorLogin) bool {
	if slices.Contains(r.Accessors, l.Accessor) || slices.Contains(r.Types, l.Type) {
		return true
	}
	return l.Who != nil && (slices.Contains(r.Entities, l.Who.ID) ||
		slices.ContainsFunc(l.Who.Groups, func(g engine.IdentifiedGroup) bool { return slices.Contains(r.Groups, g.ID) }))
}

type enforcementOut struct {
	Name          string   `json:"name"`
	ID            string   `json:"id"`
	NamespaceID   string   `json:"namespace_id"`
	NamespacePath string   `json:"namespace_path"`
	Methods       []string `json:"mfa_method_ids"`
	Accessors     []string `json:"auth_method_accessors"`
	Types         []string `json:"auth_method_types"`
	Groups        []string `json:"identity_group_ids"`
	Entities      []string `json:"identity_entity_ids"`
}

func (r *enforcementRow) out(req *route.Request, name string) enforcementOut {
	return enforcementOut{
		Name: name, ID: r.ID, NamespaceID: req.Mount.Namespace, NamespacePath: req.Mount.NamespacePath, Methods: r.Methods,
		Accessors: r.Accessors, Types: r.Types, Groups: r.Groups, Entities: r.Entities,
	}
}

type nameIn struct {
	Name string `json:"name" doc:"Name of the enforcement."`
}

type enforcementsOut struct {
	Keys []string                  `json:"keys"`
	Info map[string]enforcementOut `json:"key_info"`
}

func (e *Engine) listEnforcements(ctx context.Context, req *route.Request, _ route.None) (enforcementsOut, error) {
	out := enforcementsOut{Info: map[string]enforcementOut{}}
	err := e.env.Store.View(ctx, func(v storage.View) error {
		return each(v, enforcementPrefix, func(name string, r *enforcementRow) {
			out.Keys = append(out.Keys, name)
			out.Info[name] = r.out(req, name)
		})
	})
	if err == nil && len(out.Keys) == 0 {
		err = errs.Gone
	}
	return out, err
}

func (e *Engine) readEnforcement(ctx context.Context, req *route.Request, in nameIn) (enforcementOut, error) {
	r, err := load[enforcementRow](ctx, e, enforcementPrefix+in.Name)
	if err == nil && r == nil {
		err = errs.Gone
	}
	if err != nil {
		return enforcementOut{}, err
	}
	return r.out(req, in.Name), nil
}

type writeEnforcementIn struct {
	Name      string             `json:"name" doc:"Name of the enforcement."`
	Methods   wire.Opt[wire.CSV] `json:"mfa_method_ids" doc:"Ids of the methods; a login needs one of them."`
	Accessors wire.Opt[wire.CSV] `json:"auth_method_accessors" doc:"Auth mounts, by their accessors, whose logins need one."`
	Types     wire.Opt[wire.CSV] `json:"auth_method_types" doc:"Kinds of auth mounts whose logins need one: userpass."`
	Groups    wire.Opt[wire.CSV] `json:"identity_group_ids" doc:"Groups whose members need one."`
	Entities  wire.Opt[wire.CSV] `json:"identity_entity_ids" doc:"Entities that need one."`
}

// maxMethods keeps what one enforcement names within one transaction.
const maxMethods = 50

func (in *writeEnforcementIn) apply(r *enforcementRow) error {
	for _, l := range []struct {
		in wire.Opt[wire.CSV]
		to *[]string
	}{{in.Methods, &r.Methods}, {in.Accessors, &r.Accessors}, {in.Types, &r.Types}, {in.Groups, &r.Groups}, {in.Entities, &r.Entities}} {
		if v, ok := l.in.Get(); ok {
			list := slices.DeleteFunc(slices.Clone([]string(v)), func(s string) bool { return s == "" })
			slices.Sort(list)
			*l.to = slices.Compact(list)
		}
	}
	switch {
	case len(r.Methods) == 0:
		return errs.New(errs.Invalid, "missing method ids: mfa_method_ids names at least one")
	case len(r.Methods) > maxMethods:
		return errs.New(errs.Invalid, "an enforcement can name at most %d methods", maxMethods)
	case len(r.Accessors)+len(r.Types)+len(r.Groups)+len(r.Entities) == 0:
		return errs.New(errs.Invalid, "one of auth_method_accessors, auth_method_types, identity_group_ids, identity_entity_ids must be specified")
	}
	return nil
}

// checkNamed refuses to name what is not there: the enforcement would hold for
// nobody, and whoever has mistyped an id would not learn of it. What a stored
// enforcement names may go later.
func (e *Engine) checkNamed(ctx context.Context, in *writeEnforcementIn) error {
	entity := func(ctx context.Context, id string) (bool, error) {
		who, err := e.people.Identify(ctx, id)
		return who != nil && who.ID == id, err // logins have the id that lives, not one that was merged
	}
	login := func(is func(l Login, name string) bool) func(context.Context, string) (bool, error) {
		return func(ctx context.Context, name string) (bool, error) {
			all, err := e.people.Logins(ctx)
			return slices.ContainsFunc(all, func(l Login) bool { return is(l, name) }), err
		}
	}
	for _, l := range []struct {
		in    wire.Opt[wire.CSV]
		what  string
		there func(ctx context.Context, id string) (bool, error)
	}{
		{in.Accessors, "auth_method_accessors", login(func(l Login, name string) bool { return l.Accessor == name })},
		{in.Types, "auth_method_types", login(func(l Login, name string) bool { return l.Type == name })},
		{in.Groups, "identity_group_ids", e.people.HasGroup},
		{in.Entities, "identity_entity_ids", entity},
	} {
		for _, id := range l.in.Value {
			if id == "" {
				continue
			}
			ok, err := l.there(ctx, id)
			if err == nil && !ok {
				err = errs.New(errs.Invalid, "one of the %s is invalid: there is no %q in this namespace", l.what, id)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Engine) writeEnforcement(ctx context.Context, _ *route.Request, in writeEnforcementIn) (route.None, error) {
	if err := e.checkNamed(ctx, &in); err != nil {
		return route.None{}, err
	}
	id, err := e.uuid()
	if err != nil {
		return route.None{}, err
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		r, err := get[enforcementRow](tx, enforcementPrefix+in.Name)
		if err != nil {
			return err
		}
		if r == nil {
			r = &enforcementRow{row: v1, ID: id}
		}
		if err := in.apply(r); err != nil {
			return err
		}
		for _, method := range r.Methods {
			m, err := get[methodRow](tx, methodPrefix+method)
			if err == nil && m == nil {
				err = errs.New(errs.Invalid, "there is no MFA method with the id %q", method)
			}
			if err != nil {
				return err
			}
		}
		if err := touch(tx); err != nil {
			return err
		}
		return tx.Put(enforcementPrefix+in.Name, wire.Marshal(r))
	})
	return route.None{}, err
}

// enforceToo adds an entity to the enforcements that name another.
func (e *Engine) enforceToo(ctx context.Context, from, to string) error {
	var names []string
	err := e.env.Store.View(ctx, func(v storage.View) error {
		return each(v, enforcementPrefix, func(name string, r *enforcementRow) {
			if slices.Contains(r.Entities, from) {
				names = append(names, name)
			}
		})
	})
	for _, name := range names {
		if err != nil {
			return err
		}
		_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
			r, err := get[enforcementRow](tx, enforcementPrefix+name)
			if err != nil || r == nil || !slices.Contains(r.Entities, from) || slices.Contains(r.Entities, to) {
				return err
			}
			r.Entities = append(r.Entities, to)
			slices.Sort(r.Entities)
			return tx.Put(enforcementPrefix+name, wire.Marshal(r))
		})
	}
	return err
}

func (e *Engine) deleteEnforcement(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(enforcementPrefix + in.Name) })
	return route.None{}, err
}

// rules are the enforcements as logins are judged by them. They are never
// changed.
type rules struct {
	rows        []namedEnforcement
	constraints map[string]route.MFAConstraint
}

type namedEnforcement struct {
	name string
	row  *enforcementRow
}

// current gives the rules, from memory where it can.
func (e *Engine) current(ctx context.Context) (*rules, error) {
	if r := e.rules.Load(); r != nil {
		return r, nil
	}
	r := &rules{constraints: map[string]route.MFAConstraint{}}
	var rev storage.Revision
	err := e.env.Store.View(ctx, func(v storage.View) error {
		rev = v.Revision()
		methods := map[string]*methodRow{}
		if err := each(v, methodPrefix, func(id string, m *methodRow) { methods[id] = m }); err != nil {
			return err
		}
		return each(v, enforcementPrefix, func(name string, row *enforcementRow) {
			r.rows = append(r.rows, namedEnforcement{name, row})
			c := route.MFAConstraint{}
			for _, id := range row.Methods {
				if m := methods[id]; m != nil {
					c.Any = append(c.Any, route.MFAMethod{Type: m.Kind, ID: id, UsesPasscode: true, Name: m.Name})
				}
			}
			r.constraints[name] = c
		})
	})
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if rev >= e.invalid {
		e.rules.Store(r)
	}
	return r, nil
}

// Demand implements engine.SecondFactors.
func (e *Engine) Demand(ctx context.Context, l engine.FactorLogin) (*engine.Demand, error) {
	r, err := e.current(ctx)
	if err != nil || len(r.rows) == 0 {
		return nil, err
	}
	var d *engine.Demand
	for _, n := range r.rows {
		if !n.row.applies(l) {
			continue
		}
		if d == nil {
			d = &engine.Demand{Constraints: map[string]route.MFAConstraint{}}
		}
		d.Constraints[n.name] = r.constraints[n.name]
	}
	if d == nil {
		return nil, nil
	}
	if l.Who == nil {
		return nil, errs.New(errs.Denied, "the login needs a second factor, but its auth method does not say who logs in")
	}
	d.EntityID = l.Who.ID
	return d, nil
}
