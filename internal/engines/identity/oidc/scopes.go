package oidc

import (
	"context"
	"slices"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

const (
	scopePrefix      = "oidc/scope/"
	assignmentPrefix = "oidc/assignment/"

	// openID is the scope that every login asks for. It has no row.
	openID = "openid"
	// allowAll is the assignment that everybody is in. It has no row.
	allowAll = "allow_all"
)

// scopeRow is claims that a client may ask for by name. Version 1.
type scopeRow struct {
	row
	Template    string `json:"tpl,omitempty"`
	Description string `json:"desc,omitempty"`
}

type scopeOut struct {
	Template    string `json:"template"`
	Description string `json:"description"`
}

func (e *Engine) scopeExists(ctx context.Context, _ *route.Request, in nameIn) (bool, error) {
	s, err := load[scopeRow](ctx, e, scopePrefix+in.Name)
	return s != nil, err
}

func (e *Engine) readScope(ctx context.Context, _ *route.Request, in nameIn) (scopeOut, error) {
	s, err := load[scopeRow](ctx, e, scopePrefix+in.Name)
	if err == nil && s == nil {
		err = errs.Gone
	}
	if err != nil {
		return scopeOut{}, err
	}
	return scopeOut{Template: s.Template, Description: s.Description}, nil
}

type writeScopeIn struct {
	Name        string           `json:"name" doc:"Name of the scope."`
	Template    wire.Opt[string] `json:"template" doc:"Its claims: JSON with parameters such as {{identity.entity.name}}, or that in base64."`
	Description wire.Opt[string] `json:"description" doc:"What it is for."`
}

func (in *writeScopeIn) Validate() error {
	if in.Name == openID {
		return errs.New(errs.Invalid, "the %q scope name is reserved", openID)
	}
	_, err := ParseTemplate(in.Template.Value)
	return err
}

func (e *Engine) writeScope(ctx context.Context, _ *route.Request, in writeScopeIn) (route.None, error) {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		s, err := get[scopeRow](tx, scopePrefix+in.Name)
		if err != nil {
			return err
		}
		if s == nil {
			s = &scopeRow{row: v1}
		}
		in.Template.Apply(&s.Template)
		in.Description.Apply(&s.Description)
		return tx.Put(scopePrefix+in.Name, wire.Marshal(s))
	})
	return route.None{}, err
}

func (e *Engine) deleteScope(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	refs := func(v storage.View) (kind string, by []string, err error) {
		err = each(v, providerPrefix, func(name string, p *providerRow) error {
			if slices.Contains(p.Scopes, in.Name) {
				by = append(by, name)
			}
			return nil
		})
		return "providers", by, err
	}
	return route.None{}, e.deleteFree(ctx, scopePrefix+in.Name, "scope \""+in.Name+"\"", refs, nil)
}

// assignmentRow is who may log in to a client. Version 1.
type assignmentRow struct {
	row
	Entities []string `json:"ent,omitempty"`
	Groups   []string `json:"grp,omitempty"`
}

// admits reports whether the assignment names an entity or a group that it is
// in.
func (a *assignmentRow) admits(p *engine.Identified) bool {
	if slices.Contains(a.Entities, "*") || slices.Contains(a.Groups, "*") || slices.Contains(a.Entities, p.ID) {
		return true
	}
	return slices.ContainsFunc(p.Groups, func(g engine.IdentifiedGroup) bool { return slices.Contains(a.Groups, g.ID) })
}

type assignmentOut struct {
	Entities []string `json:"entity_ids"`
	Groups   []string `json:"group_ids"`
}

// assignment gives an assignment; nil if there is none.
func (e *Engine) assignment(r storage.Reader, name string) (*assignmentRow, error) {
	if name == allowAll {
		return &assignmentRow{row: v1, Entities: []string{"*"}, Groups: []string{"*"}}, nil
	}
	return get[assignmentRow](r, assignmentPrefix+name)
}

func (e *Engine) assignmentOf(ctx context.Context, name string) (a *assignmentRow, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		a, err = e.assignment(v, name)
		return err
	})
	return a, err
}

func (e *Engine) assignmentExists(ctx context.Context, _ *route.Request, in nameIn) (bool, error) {
	a, err := e.assignmentOf(ctx, in.Name)
	return a != nil, err
}

func (e *Engine) readAssignment(ctx context.Context, _ *route.Request, in nameIn) (assignmentOut, error) {
	a, err := e.assignmentOf(ctx, in.Name)
	if err == nil && a == nil {
		err = errs.Gone
	}
	if err != nil {
		return assignmentOut{}, err
	}
	return assignmentOut{Entities: a.Entities, Groups: a.Groups}, nil
}

type writeAssignmentIn struct {
	Name     string             `json:"name" doc:"Name of the assignment."`
	Entities wire.Opt[wire.CSV] `json:"entity_ids" doc:"Entities that are in it; * is everybody."`
	Groups   wire.Opt[wire.CSV] `json:"group_ids" doc:"Groups that are in it; * is everybody."`
}

func (e *Engine) writeAssignment(ctx context.Context, _ *route.Request, in writeAssignmentIn) (route.None, error) {
	if in.Name == allowAll {
		return route.None{}, errs.New(errs.Invalid, "modification of assignment %q not allowed", allowAll)
	}
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		a, err := get[assignmentRow](tx, assignmentPrefix+in.Name)
		if err != nil {
			return err
		}
		if a == nil {
			a = &assignmentRow{row: v1}
		}
		if v, ok := in.Entities.Get(); ok {
			a.Entities = unique(v)
		}
		if v, ok := in.Groups.Get(); ok {
			a.Groups = unique(v)
		}
		return tx.Put(assignmentPrefix+in.Name, wire.Marshal(a))
	})
	return route.None{}, err
}

func (e *Engine) deleteAssignment(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	if in.Name == allowAll {
		return route.None{}, errs.New(errs.Invalid, "deletion of assignment %q not allowed", allowAll)
	}
	refs := func(v storage.View) (kind string, by []string, err error) {
		err = each(v, clientPrefix, func(name string, c *clientRow) error {
			if slices.Contains(c.Assignments, in.Name) {
				by = append(by, name)
			}
			return nil
		})
		return "clients", by, err
	}
	return route.None{}, e.deleteFree(ctx, assignmentPrefix+in.Name, "assignment \""+in.Name+"\"", refs, nil)
}
