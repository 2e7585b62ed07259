package identity

import (
	"context"
	"slices"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
)

// groupAliasOut is the alias of a group as it is read.
type groupAliasOut struct {
	ID         string            `json:"id"`
	Canonical  string            `json:"canonical_id"`
	Accessor   string            `json:"mount_accessor"`
	MountPath  string            `json:"mount_path"`
	MountType  string            `json:"mount_type"`
	Name       string            `json:"name"`
	Metadata   map[string]string `json:"metadata" wire:"null"`
	MergedFrom []string          `json:"merged_from_canonical_ids" wire:"null"`
	Created    time.Time         `json:"creation_time"`
	Updated    time.Time         `json:"last_update_time"`
}

func (e *Engine) tellGroupAlias(ctx context.Context, g *group) (groupAliasOut, error) {
	a, err := e.tellAlias(ctx, g.Alias, g.ID)
	return groupAliasOut{
		ID: a.ID, Canonical: a.Canonical, Accessor: a.Accessor, MountPath: a.MountPath, MountType: a.MountType,
		Name: a.Name, Created: a.Created, Updated: a.Updated,
	}, err
}

// namedGroupAlias is the alias of a group that is read by itself.
type namedGroupAlias struct {
	groupAliasOut
	Namespace string `json:"namespace_id"`
}

func (e *Engine) readGroupAlias(ctx context.Context, _ *route.Request, in idIn) (*namedGroupAlias, error) {
	var g *group
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		g, err = groupBy(v, groupAliasIDPrefix+in.ID)
		return err
	})
	if err == nil && (g == nil || g.Alias == nil) {
		err = errs.Gone
	}
	if err != nil {
		return nil, err
	}
	out, err := e.tellGroupAlias(ctx, g)
	return &namedGroupAlias{out, e.env.Namespace}, err
}

// listedGroupAlias is what the list tells of one.
type listedGroupAlias struct {
	Canonical string `json:"canonical_id"`
	aliasInfo
}

type groupAliasList struct {
	Keys []string                    `json:"keys"`
	Info map[string]listedGroupAlias `json:"key_info"`
}

func (e *Engine) listGroupAliases(ctx context.Context, _ *route.Request, _ route.None) (groupAliasList, error) {
	out := groupAliasList{Info: map[string]listedGroupAlias{}}
	mounts := e.newMounts(ctx)
	err := e.env.Store.View(ctx, func(v storage.View) error {
		return e.eachGroup(v, func(g *group) {
			if g.Alias != nil {
				out.Keys = append(out.Keys, g.Alias.ID)
				out.Info[g.Alias.ID] = listedGroupAlias{g.ID, mounts.info(g.Alias)}
			}
		})
	})
	if err == nil {
		err = mounts.err
	}
	if err == nil && len(out.Keys) == 0 {
		err = errs.Gone
	}
	slices.Sort(out.Keys)
	return out, err
}

type groupAliasIn struct {
	ID        string `json:"id" doc:"Id of the alias to change."`
	Name      string `json:"name" doc:"The name that the auth method knows the group by."`
	Accessor  string `json:"mount_accessor" doc:"Accessor of the auth method's mount."`
	Canonical string `json:"canonical_id" doc:"Id of the external group; without, a new alias gets a new group."`
}

func (e *Engine) writeGroupAlias(ctx context.Context, _ *route.Request, in groupAliasIn) (*aliasMade, error) {
	if in.ID == "" && in.Name == "" {
		return nil, errs.New(errs.Invalid, "missing alias name")
	}
	if in.ID == "" && in.Accessor == "" {
		return nil, errs.New(errs.Invalid, "missing mount_accessor")
	}
	if in.Accessor != "" {
		m, err := e.mount(ctx, in.Accessor)
		if err != nil {
			return nil, err
		}
		if m.Local {
			return nil, errs.New(errs.Invalid, "mount accessor %q is a local mount: its logins cannot fill groups", in.Accessor)
		}
	}
	fresh := &group{Type: externalGroup}
	var err error
	if fresh.ID, err = e.newID(); err != nil {
		return nil, err
	}
	if fresh.Name, err = e.newName("group"); err != nil {
		return nil, err
	}
	id, err := e.newID()
	if err != nil {
		return nil, err
	}
	var made *aliasMade
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) (err error) {
		made, err = e.putGroupAlias(tx, in, id, *fresh)
		return err
	})
	return made, written(err)
}

// putGroupAlias makes or changes the alias of a group in one transaction.
func (e *Engine) putGroupAlias(tx storage.Tx, in groupAliasIn, id string, fresh group) (*aliasMade, error) {
	now := e.now()
	next := alias{ID: id, Created: now}
	// The group that has the alias now, if one has.
	var from *group
	var err error
	if in.ID != "" {
		if from, err = groupBy(tx, groupAliasIDPrefix+in.ID); err != nil {
			return nil, err
		}
		if from == nil || from.Alias == nil {
			return nil, errs.New(errs.Invalid, "invalid alias ID provided")
		}
	} else if from, err = groupBy(tx, groupAliasKey(in.Accessor, in.Name)); err != nil {
		return nil, err
	}
	if from != nil && from.Alias != nil {
		next = *from.Alias
	}
	if in.Name != "" {
		next.Name = in.Name
	}
	if in.Accessor != "" {
		next.Accessor = in.Accessor
	}
	next.Updated = now
	taken, err := groupBy(tx, groupAliasKey(next.Accessor, next.Name))
	if err != nil {
		return nil, err
	}
	if taken != nil && (from == nil || taken.ID != from.ID) {
		return nil, errs.New(errs.Invalid, "alias with combination of mount accessor and name already exists")
	}
	to := from
	switch {
	case in.Canonical != "" && (from == nil || in.Canonical != from.ID):
		if to, err = getGroup(tx, in.Canonical); err != nil {
			return nil, err
		}
		if to == nil {
			return nil, errs.New(errs.Invalid, "invalid group ID given in 'canonical_id'")
		}
		if to.Type != externalGroup {
			return nil, errs.New(errs.Invalid, "alias can't be set on an internal group")
		}
	case to == nil:
		to = &fresh
		to.Created = now
		if err := tx.Put(groupNamePrefix+nameKey(to.Name), []byte(to.ID)); err != nil {
			return nil, err
		}
	}
	for _, g := range []*group{from, to} {
		if g == nil || g.Alias == nil {
			continue
		}
		if err := dropGroupAlias(tx, g.Alias); err != nil {
			return nil, err
		}
		g.Alias = nil
	}
	if from != nil && from != to {
		from.touch(now)
		if err := from.put(tx); err != nil {
			return nil, err
		}
	}
	to.Alias = &next
	to.touch(now)
	if err := tx.Put(groupAliasIDPrefix+next.ID, []byte(to.ID)); err != nil {
		return nil, err
	}
	if err := tx.Put(groupAliasKey(next.Accessor, next.Name), []byte(to.ID)); err != nil {
		return nil, err
	}
	return &aliasMade{next.ID, to.ID}, to.put(tx)
}

// dropGroupAlias deletes the index rows of a group's alias.
func dropGroupAlias(tx storage.Tx, a *alias) error {
	if err := tx.Delete(groupAliasIDPrefix + a.ID); err != nil {
		return err
	}
	return tx.Delete(groupAliasKey(a.Accessor, a.Name))
}

func (e *Engine) deleteGroupAlias(ctx context.Context, _ *route.Request, in idIn) (route.None, error) {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		g, err := groupBy(tx, groupAliasIDPrefix+in.ID)
		if err != nil || g == nil || g.Alias == nil {
			return err
		}
		if err := dropGroupAlias(tx, g.Alias); err != nil {
			return err
		}
		g.Alias = nil
		g.touch(e.now())
		return g.put(tx)
	})
	return route.None{}, err
}
