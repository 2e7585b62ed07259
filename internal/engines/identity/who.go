package identity

import (
	"context"
	"slices"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/identity/mfa"
	"github.com/leasehold/leasehold/internal/storage"
)

// mostMerges bounds the chain of merges that is followed from an entity that
// was merged.
const mostMerges = 16

// Identify implements engine.Identity.
func (e *Engine) Identify(ctx context.Context, id string) (*engine.Identified, error) {
	for range mostMerges {
		who, err := e.entity(ctx, id)
		if err != nil || who != nil {
			return who, err
		}
		if id, err = e.index(ctx, mergedPrefix+id); err != nil || id == "" {
			return nil, err
		}
	}
	return nil, nil
}

// HasGroup implements mfa.People.
func (e *Engine) HasGroup(ctx context.Context, id string) (there bool, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		g, err := getGroup(v, id)
		there = g != nil
		return err
	})
	return there, err
}

// Logins implements mfa.People.
func (e *Engine) Logins(ctx context.Context) ([]mfa.Login, error) {
	if e.cfg.Logins == nil {
		return nil, nil
	}
	return e.cfg.Logins(ctx, e.env.Namespace)
}

// entity is what an entity has, from memory where it can.
func (e *Engine) entity(ctx context.Context, id string) (*engine.Identified, error) {
	if who, ok := e.entities.get(id); ok {
		return who, nil
	}
	var who *engine.Identified
	var rev storage.Revision
	size := 0
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		rev = v.Revision()
		rows := sized{Reader: v}
		who, err = identify(&rows, id)
		size = rows.size
		return err
	})
	if err != nil {
		return nil, err
	}
	e.entities.put(id, who, weightOf(size), rev)
	return who, nil
}

// sized counts the bytes of the rows that are read.
type sized struct {
	storage.Reader
	size int
}

func (s *sized) Get(key string) ([]byte, error) {
	b, err := s.Reader.Get(key)
	s.size += len(b)
	return b, err
}

// index is what an index row of an alias or a merged entity names, from memory
// where it can; "" when there is no such row.
func (e *Engine) index(ctx context.Context, key string) (string, error) {
	if id, ok := e.indexed.get(key); ok {
		return id, nil
	}
	var id string
	var rev storage.Revision
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		rev = v.Revision()
		id, err = getID(v, key)
		return err
	})
	if err != nil {
		return "", err
	}
	e.indexed.put(key, id, weightOf(len(key)), rev)
	return id, nil
}

// identify puts together what an entity has. All of it comes from one
// snapshot: see cache.
func identify(r storage.Reader, id string) (*engine.Identified, error) {
	row, err := getEntity(r, id)
	if err != nil || row == nil {
		return nil, err
	}
	who := &engine.Identified{Made: new(engine.Made), ID: row.ID, Name: row.Name, Disabled: row.Disabled, Metadata: row.Metadata}
	for _, a := range row.Aliases {
		who.Aliases = append(who.Aliases, engine.IdentifiedAlias{
			ID: a.ID, Accessor: a.Accessor, Name: a.Name, Metadata: a.Metadata, Custom: a.Custom,
		})
	}
	in, err := groupsOf(r, id)
	if err != nil {
		return nil, err
	}
	direct, stale, err := in.inForce(r, row)
	if err != nil {
		return nil, err
	}
	who.Stale = stale
	groups, err := closure(r, direct)
	if err != nil {
		return nil, err
	}
	who.Policies = slices.Clone(row.Policies)
	for _, g := range groups {
		in := engine.IdentifiedGroup{ID: g.ID, Name: g.Name, Metadata: g.Metadata, Direct: slices.Contains(direct, g.ID)}
		if g.Alias != nil {
			in.Accessor = g.Alias.Accessor
		}
		who.Groups = append(who.Groups, in)
		who.Policies = append(who.Policies, g.Policies...)
	}
	slices.Sort(who.Policies)
	who.Policies = slices.Compact(who.Policies)
	return who, nil
}

// closure are some groups and all that those are in, each once, the given ones
// first. A group that is gone gives nothing.
func closure(r storage.Reader, ids []string) ([]*group, error) {
	var all []*group
	seen := map[string]bool{}
	for queue := slices.Clone(ids); len(queue) > 0; queue = queue[1:] {
		id := queue[0]
		if seen[id] {
			continue
		}
		seen[id] = true
		g, err := getGroup(r, id)
		if err != nil {
			return nil, err
		}
		if g == nil {
			continue
		}
		all = append(all, g)
		queue = append(queue, g.Parents...)
	}
	return all, nil
}
