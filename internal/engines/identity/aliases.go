package identity

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

func (e *Engine) aliasRoutes(t *route.Table) {
	for _, at := range []struct{ path, doc string }{
		{"entity-alias", ""}, {"alias", " (older path)"}, {"persona", " (oldest path)"},
	} {
		if at.path == "persona" {
			write := func(ctx context.Context, req *route.Request, in personaIn) (*aliasMade, error) {
				return e.writeAlias(ctx, req, in.aliasIn)
			}
			route.Write(t, "persona", write, route.Doc("Make an alias of an entity, or change it"+at.doc+"."))
			route.Write(t, "persona/id/{id}", write, route.Doc("Change an alias"+at.doc+"."))
		} else {
			route.Write(t, at.path, e.writeAlias, route.Doc("Make an alias of an entity, or change it"+at.doc+"."))
			route.Write(t, at.path+"/id/{id}", e.writeAlias, route.Doc("Change an alias, or move it to another entity"+at.doc+"."))
		}
		route.List(t, at.path+"/id", e.listAliases, route.Doc("List the aliases of entities"+at.doc+"."))
		route.Read(t, at.path+"/id/{id}", e.readAlias, route.Doc("Read an alias"+at.doc+"."))
		route.Delete(t, at.path+"/id/{id}", e.deleteAlias, route.Doc("Delete an alias. The entity stays"+at.doc+"."))
	}
}

// aliasOut is an alias as it is read.
type aliasOut struct {
	ID         string            `json:"id"`
	Canonical  string            `json:"canonical_id"`
	Accessor   string            `json:"mount_accessor"`
	MountPath  string            `json:"mount_path"` // empty: the mount is gone
	MountType  string            `json:"mount_type"`
	Name       string            `json:"name"`
	Metadata   map[string]string `json:"metadata" wire:"null"`
	Custom     map[string]string `json:"custom_metadata" wire:"null"`
	Local      bool              `json:"local"`
	MergedFrom []string          `json:"merged_from_canonical_ids" wire:"null"`
	Created    time.Time         `json:"creation_time"`
	Updated    time.Time         `json:"last_update_time"`
}

func (e *Engine) tellAlias(ctx context.Context, a *alias, canonical string) (aliasOut, error) {
	m, _, err := e.cfg.Mount(ctx, e.env.Namespace, a.Accessor)
	return aliasOut{
		ID: a.ID, Canonical: canonical, Accessor: a.Accessor, MountPath: m.Path, MountType: m.Type, Name: a.Name,
		Metadata: a.Metadata, Custom: a.Custom, Local: a.Local, MergedFrom: a.MergedFrom,
		Created: a.Created, Updated: a.Updated,
	}, err
}

// aliasInfo is what lists tell of an alias.
type aliasInfo struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Accessor  string `json:"mount_accessor"`
	MountPath string `json:"mount_path,omitempty"`
	MountType string `json:"mount_type,omitempty"`
}

// mounts looks every mount up once for a list.
type mounts struct {
	find  func(accessor string) (Mount, error)
	known map[string]Mount
	err   error
}

func (e *Engine) newMounts(ctx context.Context) *mounts {
	return &mounts{known: map[string]Mount{}, find: func(accessor string) (Mount, error) {
		m, _, err := e.cfg.Mount(ctx, e.env.Namespace, accessor)
		return m, err
	}}
}

func (ms *mounts) info(a *alias) aliasInfo {
	m, ok := ms.known[a.Accessor]
	if !ok && ms.err == nil {
		m, ms.err = ms.find(a.Accessor)
		ms.known[a.Accessor] = m
	}
	return aliasInfo{ID: a.ID, Name: a.Name, Accessor: a.Accessor, MountPath: m.Path, MountType: m.Type}
}

// namedAlias is an alias that is read by itself.
type namedAlias struct {
	aliasOut
	Namespace string `json:"namespace_id"`
}

func (e *Engine) readAlias(ctx context.Context, _ *route.Request, in idIn) (*namedAlias, error) {
	var a *alias
	var row *entity
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		if row, err = entityBy(v, aliasIDPrefix+in.ID); err == nil && row != nil {
			a = row.alias(in.ID)
		}
		return err
	})
	if err == nil && a == nil {
		err = errs.Gone
	}
	if err != nil {
		return nil, err
	}
	out, err := e.tellAlias(ctx, a, row.ID)
	return &namedAlias{out, e.env.Namespace}, err
}

// listedAlias is what the list of aliases tells of one.
type listedAlias struct {
	Canonical string            `json:"canonical_id"`
	Accessor  string            `json:"mount_accessor"`
	Name      string            `json:"name"`
	MountPath string            `json:"mount_path,omitempty"`
	MountType string            `json:"mount_type,omitempty"`
	Custom    map[string]string `json:"custom_metadata" wire:"null"`
	Local     bool              `json:"local"`
}

type aliasList struct {
	Keys []string               `json:"keys"`
	Info map[string]listedAlias `json:"key_info"`
}

func (e *Engine) listAliases(ctx context.Context, _ *route.Request, _ route.None) (aliasList, error) {
	out := aliasList{Info: map[string]listedAlias{}}
	mounts := e.newMounts(ctx)
	err := e.eachEntity(ctx, func(row *entity) {
		for i := range row.Aliases {
			a := &row.Aliases[i]
			m := mounts.info(a)
			out.Keys = append(out.Keys, a.ID)
			out.Info[a.ID] = listedAlias{
				Canonical: row.ID, Accessor: a.Accessor, Name: a.Name, MountPath: m.MountPath, MountType: m.MountType,
				Custom: a.Custom, Local: a.Local,
			}
		}
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

func (e *Engine) deleteAlias(ctx context.Context, _ *route.Request, in idIn) (route.None, error) {
	for more := true; more; {
		_, err := e.env.Store.Update(ctx, func(tx storage.Tx) (err error) {
			more, err = e.deleteAliasStep(tx, in.ID)
			return err
		})
		if err != nil {
			return route.None{}, err
		}
	}
	return route.None{}, nil
}

// deleteAliasStep takes the entity out of the external groups that logins by an
// alias have filled, as many as fit in one transaction, and deletes the alias
// with the last of them: another alias of the mount does not revive them.
func (e *Engine) deleteAliasStep(tx storage.Tx, id string) (more bool, err error) {
	row, err := entityBy(tx, aliasIDPrefix+id)
	if err != nil || row == nil {
		return false, err
	}
	a := row.alias(id)
	if a == nil {
		return false, nil
	}
	groups, err := groupsOf(tx, row.ID)
	if err != nil {
		// Of a list that cannot be read nothing is given.
		if err := e.passOver(err); err != nil {
			return false, err
		}
	}
	room, err := groups.leaveMount(tx, row.ID, a.Accessor, stepRows)
	if err != nil {
		return false, err
	}
	if room < stepRows {
		if err := groups.put(tx, row.ID); err != nil {
			return false, err
		}
	}
	if room <= leastRoom {
		return true, nil
	}
	if err := dropAlias(tx, a); err != nil {
		return false, err
	}
	row.Aliases = slices.DeleteFunc(row.Aliases, func(a alias) bool { return a.ID == id })
	row.Updated = e.now()
	return false, row.put(tx)
}

type aliasIn struct {
	ID        string            `json:"id" doc:"Id of the alias to change."`
	Name      string            `json:"name" doc:"The name that the auth method knows the entity by."`
	Accessor  string            `json:"mount_accessor" doc:"Accessor of the auth method's mount."`
	Canonical string            `json:"canonical_id" doc:"Id of the entity; without, a new alias gets a new entity."`
	Entity    string            `json:"entity_id" doc:"Older name of canonical_id."`
	Custom    wire.Opt[wire.KV] `json:"custom_metadata" doc:"Names and values, for people and for templated policies."`
}

// personaIn is aliasIn as the oldest path has it.
type personaIn struct {
	aliasIn
	Metadata wire.KV `json:"metadata" doc:"Taken and not kept: an alias's metadata are those of its last login."`
}

func (in *aliasIn) Validate() error {
	if in.Canonical == "" {
		in.Canonical = in.Entity
	}
	return checkMetadata("custom_metadata", in.Custom.Value)
}

// Validate is that of aliasIn.
func (in *personaIn) Validate() error { return in.aliasIn.Validate() }

// aliasMade is the answer of making or changing an alias.
type aliasMade struct {
	ID        string `json:"id"`
	Canonical string `json:"canonical_id"`
}

func (e *Engine) writeAlias(ctx context.Context, _ *route.Request, in aliasIn) (*aliasMade, error) {
	if in.ID == "" && (in.Accessor == "" || in.Name == "") {
		return nil, errs.New(errs.Invalid, "'id' or 'mount_accessor' and 'name' must be provided")
	}
	var at Mount
	if in.Accessor != "" {
		var err error
		if at, err = e.mount(ctx, in.Accessor); err != nil {
			return nil, err
		}
	}
	fresh, err := e.draft()
	if err != nil {
		return nil, err
	}
	id, err := e.newID()
	if err != nil {
		return nil, err
	}
	var made *aliasMade
	from, mount := "", "" // whose the alias was, and of which mount
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		made, from = nil, ""
		old, err := in.find(tx)
		if err != nil {
			return err
		}
		if old != nil {
			from, mount = old.ID, in.Accessor
			if a := old.alias(in.ID); a != nil {
				mount = a.Accessor
			}
			made, err = e.changeAlias(tx, in, old, at)
			return err
		}
		made, err = e.makeAlias(tx, in, alias{ID: id, Accessor: in.Accessor, Name: in.Name, Local: at.Local}, fresh)
		return err
	})
	if err == nil && made != nil && from != "" {
		err = e.leaveIdle(ctx, from, mount)
	}
	return made, written(err)
}

// leaveIdle takes an entity whose alias of a mount went elsewhere out of the
// external groups that it was the way into: they give nothing, and are not to
// be revived by another alias.
func (e *Engine) leaveIdle(ctx context.Context, id, accessor string) error {
	for more := true; more; {
		_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
			more = false
			row, err := getEntity(tx, id)
			if err != nil || row == nil || row.aliasAt(accessor) != nil {
				return err
			}
			groups, err := groupsOf(tx, id)
			if err != nil {
				return e.passOver(err)
			}
			room, err := groups.leaveMount(tx, id, accessor, stepRows)
			if err != nil || room == stepRows {
				return err
			}
			more = room <= leastRoom
			return groups.put(tx, id)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// find is the entity whose alias a write means; nil for a new alias.
func (in *aliasIn) find(tx storage.Tx) (*entity, error) {
	if in.ID == "" {
		return entityBy(tx, aliasKey(in.Accessor, in.Name))
	}
	row, err := entityBy(tx, aliasIDPrefix+in.ID)
	if err == nil && (row == nil || row.alias(in.ID) == nil) {
		err = errs.New(errs.Invalid, "invalid alias ID provided")
	}
	return row, err
}

// errTaken is one mount's second alias for an entity.
var errTaken = errs.New(errs.Invalid, "Alias already exists for requested entity and mount accessor")

// makeAlias adds an alias to the entity that was named, or to a new one.
func (e *Engine) makeAlias(tx storage.Tx, in aliasIn, a alias, fresh *entity) (*aliasMade, error) {
	now := e.now()
	row := &entity{ID: fresh.ID, Name: fresh.Name, Created: now}
	if in.Canonical != "" {
		var err error
		if row, err = getEntity(tx, in.Canonical); err != nil {
			return nil, err
		}
		if row == nil {
			return nil, errs.New(errs.Invalid, "invalid canonical ID")
		}
		if row.aliasAt(a.Accessor) != nil {
			return nil, errTaken
		}
	} else if err := putName(tx, row); err != nil {
		return nil, err
	}
	a.Custom, a.Created, a.Updated = in.Custom.Value, now, now
	row.Aliases, row.Updated = append(row.Aliases, a), now
	if err := putAlias(tx, row, &a); err != nil {
		return nil, err
	}
	return &aliasMade{a.ID, row.ID}, row.put(tx)
}

// changeAlias changes an alias of an entity, and moves it where another entity
// was named. Nothing to change is answered with nothing.
func (e *Engine) changeAlias(tx storage.Tx, in aliasIn, row *entity, at Mount) (*aliasMade, error) {
	var a *alias
	if in.ID != "" {
		a = row.alias(in.ID)
	} else {
		a = row.aliasAt(in.Accessor)
	}
	if a == nil {
		return nil, errs.New(errs.Invalid, "invalid alias ID provided")
	}
	next := *a
	if in.Name != "" {
		next.Name = in.Name
	}
	if in.Accessor != "" {
		next.Accessor, next.Local = in.Accessor, at.Local
	}
	if kv, ok := in.Custom.Get(); ok {
		next.Custom = kv
	}
	moved := in.Canonical != "" && in.Canonical != row.ID
	if !moved && next.Name == a.Name && next.Accessor == a.Accessor && maps.Equal(next.Custom, a.Custom) {
		return nil, nil
	}
	if key := aliasKey(next.Accessor, next.Name); key != aliasKey(a.Accessor, a.Name) {
		other, err := getID(tx, key)
		if err != nil {
			return nil, err
		}
		if other != "" {
			return nil, errs.New(errs.Invalid, "alias with combination of mount accessor and name already exists")
		}
	}
	to := row
	if moved {
		var err error
		if to, err = getEntity(tx, in.Canonical); err != nil {
			return nil, err
		}
		if to == nil {
			return nil, errs.New(errs.Invalid, "invalid canonical ID")
		}
		if next.Local {
			return nil, errs.New(errs.Invalid, "local aliases can't be moved between entities")
		}
	}
	if (moved || next.Accessor != a.Accessor) && to.aliasAt(next.Accessor) != nil {
		return nil, errs.New(errs.Invalid, "Alias cannot be updated as the entity already has an alias for the given 'mount_accessor'")
	}
	now := e.now()
	next.Updated = now
	if err := dropAlias(tx, a); err != nil {
		return nil, err
	}
	if !moved {
		*a = next
	} else {
		row.Aliases = slices.DeleteFunc(row.Aliases, func(o alias) bool { return o.ID == next.ID })
		row.Updated = now
		if err := row.put(tx); err != nil {
			return nil, err
		}
		to.Aliases = append(to.Aliases, next)
	}
	to.Updated = now
	if err := putAlias(tx, to, &next); err != nil {
		return nil, err
	}
	return &aliasMade{next.ID, to.ID}, to.put(tx)
}
