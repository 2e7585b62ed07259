package ldap

import (
	"context"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// mapping is what an operator gives a group or a user of the directory.
// Version 1.
type mapping struct {
	V        int      `json:"v"`
	Policies []string `json:"pol"`
	Groups   []string `json:"grp,omitempty"` // of users
}

const mappingVersion = 1

type nameIn struct {
	Name string `json:"name" doc:"Its name."`
}

type groupIn struct {
	Name     string   `json:"name" doc:"Name of the group, as the directory has it. Its case does not matter unless case_sensitive_names is set."`
	Policies wire.CSV `json:"policies" doc:"Policies of its members' tokens."`
}

type groupOut struct {
	Policies []string `json:"policies"`
}

type userIn struct {
	Name     string   `json:"name" doc:"Name that the user logs in with. Its case does not matter unless case_sensitive_names is set."`
	Policies wire.CSV `json:"policies" doc:"Policies of the user's tokens."`
	Groups   wire.CSV `json:"groups" doc:"Groups that the user counts as being in, beside those of the directory."`
}

// userOut has groups as one text, as Vault answers them.
type userOut struct {
	Groups   string   `json:"groups"`
	Policies []string `json:"policies"`
}

func getMapping(r storage.Reader, key string) (*mapping, error) {
	b, err := r.Get(key)
	if err != nil || b == nil {
		return nil, err
	}
	m := new(mapping)
	if err := wire.Unmarshal(b, m); err != nil {
		return nil, err
	}
	if m.V > mappingVersion {
		return nil, newer("the row "+key, m.V)
	}
	return m, nil
}

func (e *Engine) listGroups(ctx context.Context, _ *route.Request, _ route.None) (route.Keys, error) {
	return e.list(ctx, rowsGroups)
}

func (e *Engine) listUsers(ctx context.Context, _ *route.Request, _ route.None) (route.Keys, error) {
	return e.list(ctx, rowsUsers)
}

func (e *Engine) readGroup(ctx context.Context, _ *route.Request, in nameIn) (groupOut, error) {
	m, err := e.find(ctx, rowsGroups, in.Name)
	if err == nil && m == nil {
		err = errs.Gone
	}
	if err != nil {
		return groupOut{}, err
	}
	return groupOut{m.Policies}, nil
}

func (e *Engine) readUser(ctx context.Context, _ *route.Request, in nameIn) (userOut, error) {
	m, err := e.find(ctx, rowsUsers, in.Name)
	if err == nil && m == nil {
		err = errs.Gone
	}
	if err != nil {
		return userOut{}, err
	}
	return userOut{strings.Join(m.Groups, ","), m.Policies}, nil
}

// find reads a row by a name as it was sent; nil: there is none.
func (e *Engine) find(ctx context.Context, prefix, name string) (m *mapping, err error) {
	name, ok := plain(name)
	if !ok {
		return nil, nil
	}
	err = e.env.Store.View(ctx, func(v storage.View) error {
		c, _, err := getConfig(v)
		if err != nil {
			return err
		}
		m, err = getMapping(v, prefix+c.known(name))
		return err
	})
	return m, err
}

func (e *Engine) writeGroup(ctx context.Context, _ *route.Request, in groupIn) (route.None, error) {
	return route.None{}, e.change(ctx, rowsGroups, in.Name, func(_ *config, m *mapping) { setPolicies(in.Policies, m) })
}

func (e *Engine) writeUser(ctx context.Context, _ *route.Request, in userIn) (route.None, error) {
	return route.None{}, e.change(ctx, rowsUsers, in.Name, func(c *config, m *mapping) {
		setPolicies(in.Policies, m)
		for _, g := range in.Groups {
			if g, ok := plain(g); ok {
				m.Groups = append(m.Groups, c.known(g))
			}
		}
		slices.Sort(m.Groups)
		m.Groups = slices.Compact(m.Groups)
	})
}

// setPolicies keeps policies as tokens have them: folded, in order, each once.
func setPolicies(in []string, m *mapping) {
	for _, p := range in {
		if p = strings.ToLower(strings.TrimSpace(p)); p != "" {
			m.Policies = append(m.Policies, p)
		}
	}
	slices.Sort(m.Policies)
	m.Policies = slices.Compact(m.Policies)
}

// change writes a row. What a write leaves out is empty from then on, as Vault
// has it.
func (e *Engine) change(ctx context.Context, prefix, name string, fn func(c *config, m *mapping)) error {
	name, ok := plain(name)
	if !ok {
		return errs.New(errs.Invalid, "a name is at most %d bytes of text that can be seen", maxName)
	}
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		c, _, err := getConfig(tx)
		if err != nil {
			return err
		}
		m := &mapping{V: mappingVersion}
		fn(c, m)
		return tx.Put(prefix+c.known(name), wire.Marshal(m))
	})
	return err
}

func (e *Engine) deleteGroup(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	return route.None{}, e.drop(ctx, rowsGroups, in.Name)
}

func (e *Engine) deleteUser(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	return route.None{}, e.drop(ctx, rowsUsers, in.Name)
}

func (e *Engine) drop(ctx context.Context, prefix, name string) error {
	name, ok := plain(name)
	if !ok {
		return nil // there is none of such a name
	}
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		c, _, err := getConfig(tx)
		if err != nil {
			return err
		}
		return tx.Delete(prefix + c.known(name))
	})
	return err
}
