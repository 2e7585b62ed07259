package identity

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

func (e *Engine) entityRoutes(t *route.Table) {
	folds := route.Folds(folded)
	route.Write(t, "entity", e.writeEntity, route.Doc("Make an entity, or change the one with the id or name."))
	route.List(t, "entity/id", e.listEntityIDs, route.Doc("List the entities by id."))
	route.Read(t, "entity/id/{id}", e.readEntity, route.Doc("Read an entity."))
	route.Write(t, "entity/id/{id}", e.writeEntity, route.Doc("Change an entity."))
	route.Delete(t, "entity/id/{id}", e.deleteEntity, route.Doc("Delete an entity with its aliases. Its tokens are refused from then on."))
	route.List(t, "entity/name", e.listEntityNames, route.Doc("List the entities by name."))
	route.Read(t, "entity/name/{name...}", e.readEntityByName, folds, route.Doc("Read the entity with a name."))
	route.Write(t, "entity/name/{name...}", e.writeEntity, folds, route.Doc("Make or change the entity with a name."))
	route.Delete(t, "entity/name/{name...}", e.deleteEntityByName, folds, route.Doc("Delete the entity with a name, with its aliases."))
	route.Write(t, "entity/batch-delete", e.deleteEntities, route.Doc("Delete entities with their aliases."))
	route.Write(t, "entity/merge", e.mergeEntities, route.Doc("Make several entities one."))
}

type idIn struct {
	ID string `json:"id" doc:"The id."`
}

type nameIn struct {
	Name string `json:"name" doc:"The name."`
}

// entityOut is an entity as it is read.
type entityOut struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Metadata  map[string]string `json:"metadata" wire:"null"`
	Policies  []string          `json:"policies"`
	Disabled  bool              `json:"disabled"`
	Aliases   []aliasOut        `json:"aliases"`
	Groups    []string          `json:"group_ids"`
	Direct    []string          `json:"direct_group_ids"`
	Inherited []string          `json:"inherited_group_ids"`
	Merged    []string          `json:"merged_entity_ids" wire:"null"`
	Created   time.Time         `json:"creation_time"`
	Updated   time.Time         `json:"last_update_time"`
	Namespace string            `json:"namespace_id"`
}

// tellEntity reads an entity by its id, or by the index row of another name of
// it; nil when there is none.
func (e *Engine) tellEntity(ctx context.Context, id, index string) (*entityOut, error) {
	var row *entity
	var direct []string // in force
	var groups []*group
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		if index != "" {
			if id, err = getID(v, index); err != nil || id == "" {
				return err
			}
		}
		if row, err = getEntity(v, id); err != nil || row == nil {
			return err
		}
		in, err := groupsOf(v, id)
		if err != nil {
			return err
		}
		if direct, _, err = in.inForce(v, row); err != nil {
			return err
		}
		groups, err = closure(v, direct)
		return err
	})
	if err != nil || row == nil {
		return nil, err
	}
	out := &entityOut{
		ID: row.ID, Name: row.Name, Metadata: row.Metadata, Policies: row.Policies, Disabled: row.Disabled,
		Merged: row.Merged, Created: row.Created, Updated: row.Updated, Namespace: e.env.Namespace,
	}
	for _, g := range groups {
		if slices.Contains(direct, g.ID) {
			out.Direct = append(out.Direct, g.ID)
		} else {
			out.Inherited = append(out.Inherited, g.ID)
		}
	}
	out.Groups = slices.Concat(out.Direct, out.Inherited)
	for i := range row.Aliases {
		a, err := e.tellAlias(ctx, &row.Aliases[i], row.ID)
		if err != nil {
			return nil, err
		}
		out.Aliases = append(out.Aliases, a)
	}
	return out, nil
}

// there makes what is not there errs.Gone.
func there[T any](out *T, err error) (*T, error) {
	if err == nil && out == nil {
		err = errs.Gone
	}
	return out, err
}

func (e *Engine) readEntity(ctx context.Context, _ *route.Request, in idIn) (*entityOut, error) {
	return there(e.tellEntity(ctx, in.ID, ""))
}

func (e *Engine) readEntityByName(ctx context.Context, _ *route.Request, in nameIn) (*entityOut, error) {
	return there(e.tellEntity(ctx, "", entityNamePrefix+nameKey(in.Name)))
}

type entityIn struct {
	ID       string             `json:"id" doc:"Id of the entity to change."`
	Name     string             `json:"name" doc:"Its name, told apart without regard to case; one is drawn where none is given."`
	Metadata wire.Opt[wire.KV]  `json:"metadata" doc:"Names and values, for people and for templated policies."`
	Policies wire.Opt[wire.CSV] `json:"policies" doc:"Policies that its tokens have beside their own."`
	Disabled wire.Opt[bool]     `json:"disabled" doc:"Refuse its logins and its tokens."`
}

func (in *entityIn) Validate() error {
	if err := checkPolicies(in.Policies.Value); err != nil {
		return err
	}
	return checkMetadata("metadata", in.Metadata.Value)
}

// entityMade is the answer of making an entity; changing one has none.
type entityMade struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Aliases []string `json:"aliases" wire:"null"`
}

func (e *Engine) writeEntity(ctx context.Context, _ *route.Request, in entityIn) (*entityMade, error) {
	for try := 1; ; try++ {
		fresh, err := e.draft()
		if err != nil {
			return nil, err
		}
		var made *entityMade
		_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
			made = nil
			row, err := in.find(tx)
			if err != nil {
				return err
			}
			now := e.now()
			if row == nil {
				row = &entity{ID: fresh.ID, Name: fresh.Name, Created: now}
				made = &entityMade{ID: row.ID, Name: row.Name}
			}
			if err := in.rename(tx, row, made != nil); err != nil {
				return err
			}
			if made != nil {
				made.Name = row.Name
			}
			if list, ok := in.Policies.Get(); ok {
				row.Policies = cleanList(list)
			}
			if kv, ok := in.Metadata.Get(); ok {
				row.Metadata = kv
			}
			in.Disabled.Apply(&row.Disabled)
			row.Updated = now
			return row.put(tx)
		})
		if errors.Is(err, errNameTaken) && in.Name == "" && try < drawNames {
			continue // the name that was drawn
		}
		return made, written(err)
	}
}

// find is the entity that a write means: nil for a new one.
func (in *entityIn) find(tx storage.Tx) (*entity, error) {
	if in.ID != "" {
		row, err := getEntity(tx, in.ID)
		if err == nil && row == nil {
			err = errs.New(errs.Invalid, "entity not found from id")
		}
		return row, err
	}
	if in.Name == "" {
		return nil, nil
	}
	return entityBy(tx, entityNamePrefix+nameKey(in.Name))
}

// rename gives an entity the name that was asked for, if one was, and keeps
// the index in step.
func (in *entityIn) rename(tx storage.Tx, row *entity, fresh bool) error {
	if in.Name != "" && in.Name != row.Name {
		if old := nameKey(row.Name); !fresh && old != nameKey(in.Name) {
			if err := tx.Delete(entityNamePrefix + old); err != nil {
				return err
			}
		}
		row.Name = in.Name
		fresh = true
	}
	if !fresh {
		return nil
	}
	err := putName(tx, row)
	if errors.Is(err, errNameTaken) && in.Name != "" {
		err = errs.New(errs.Invalid, "entity name is already in use")
	}
	return err
}

// cleanList sorts a list and leaves out what is empty or there twice.
func cleanList(list []string) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// checkPolicies refuses the policy that nobody may be given for good.
func checkPolicies(names []string) error {
	for _, n := range names {
		if strings.EqualFold(strings.TrimSpace(n), "root") {
			return errs.New(errs.Invalid, "policies cannot contain root")
		}
	}
	return nil
}

// Limits of metadata, which are Vault's.
const (
	mostMetadata      = 64
	mostMetadataName  = 128
	mostMetadataValue = 512
)

func checkMetadata(field string, kv map[string]string) error {
	if len(kv) > mostMetadata {
		return errs.New(errs.Invalid, "%s has more than %d keys", field, mostMetadata)
	}
	for k, v := range kv {
		switch {
		case k == "" || len(k) > mostMetadataName:
			return errs.New(errs.Invalid, "%s: a key must have 1 to %d bytes", field, mostMetadataName)
		case len(v) > mostMetadataValue:
			return errs.New(errs.Invalid, "%s: the value of %q is longer than %d bytes", field, k, mostMetadataValue)
		}
	}
	return nil
}

// written names the one error of a write that is the caller's.
func written(err error) error {
	if errors.Is(err, storage.ErrTooLarge) {
		return errs.Wrap(errs.Invalid, err, "an entity, with its aliases and the list of its groups, and a group must each stay under %d bytes", storage.MaxTxBytes)
	}
	return err
}

// entityInfo is what a list tells of an entity.
type entityInfo struct {
	Name    string      `json:"name"`
	Aliases []aliasInfo `json:"aliases,omitempty"`
}

type entityList struct {
	Keys []string              `json:"keys"`
	Info map[string]entityInfo `json:"key_info"`
}

func (e *Engine) listEntityIDs(ctx context.Context, _ *route.Request, _ route.None) (entityList, error) {
	return e.listEntities(ctx, func(row *entity) string { return row.ID })
}

func (e *Engine) listEntityNames(ctx context.Context, _ *route.Request, _ route.None) (entityList, error) {
	return e.listEntities(ctx, func(row *entity) string { return row.Name })
}

func (e *Engine) listEntities(ctx context.Context, key func(*entity) string) (entityList, error) {
	out := entityList{Info: map[string]entityInfo{}}
	mounts := e.newMounts(ctx)
	err := e.eachEntity(ctx, func(row *entity) {
		out.Keys = append(out.Keys, key(row))
		info := entityInfo{Name: row.Name}
		for i := range row.Aliases {
			info.Aliases = append(info.Aliases, mounts.info(&row.Aliases[i]))
		}
		out.Info[row.ID] = info
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

// eachEntity calls fn with every entity. Rows that cannot be read are passed
// over.
func (e *Engine) eachEntity(ctx context.Context, fn func(*entity)) error {
	return e.env.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, entityPrefix, storage.PrefixEnd(entityPrefix), 0, func(key string, b []byte, err error) bool {
			var row *entity
			if err == nil {
				row, err = readRow(key, b, entityVersion)
			}
			if err != nil {
				e.env.Log.Error("listing entities", "error", err)
				return true
			}
			fn(row)
			return true
		})
	})
}

// Count implements engine.Identity.
func (e *Engine) Count(ctx context.Context) (n int64, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, entityPrefix, storage.PrefixEnd(entityPrefix), 0, func(string, []byte, error) bool {
			n++
			return true
		})
	})
	return n, err
}

func (e *Engine) deleteEntity(ctx context.Context, _ *route.Request, in idIn) (route.None, error) {
	return route.None{}, e.endEntity(ctx, in.ID)
}

func (e *Engine) deleteEntityByName(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	id, err := e.find(ctx, entityNamePrefix+nameKey(in.Name))
	if err != nil || id == "" {
		return route.None{}, err
	}
	return route.None{}, e.endEntity(ctx, id)
}

// find reads an index row: "" when there is none.
func (e *Engine) find(ctx context.Context, key string) (id string, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) (err error) {
		id, err = getID(v, key)
		return err
	})
	return id, err
}

type entityIDsIn struct {
	IDs wire.CSV `json:"entity_ids" doc:"Ids of the entities."`
}

// Validate wants at least one id.
func (in entityIDsIn) Validate() error {
	if len(in.IDs) == 0 {
		return errs.New(errs.Invalid, "missing entity ids to delete")
	}
	return nil
}

func (e *Engine) deleteEntities(ctx context.Context, _ *route.Request, in entityIDsIn) (route.None, error) {
	for _, id := range in.IDs {
		if err := e.endEntity(ctx, id); err != nil {
			return route.None{}, err
		}
	}
	return route.None{}, nil
}

// endEntity deletes an entity with all that is its own. One in many groups
// takes several steps; it is disabled from the first of them on.
func (e *Engine) endEntity(ctx context.Context, id string) error {
	for more := true; more; {
		_, err := e.env.Store.Update(ctx, func(tx storage.Tx) (err error) {
			more, err = e.endStep(tx, id)
			return err
		})
		if err != nil {
			return err
		}
	}
	// Last: the same request again deletes what a crash has left here.
	return e.factors.Forget(ctx, id)
}

// stepRows is how many rows beside the entity's own a step deletes.
const stepRows = 80

func (e *Engine) endStep(tx storage.Tx, id string) (more bool, err error) {
	row, err := getEntity(tx, id)
	if err != nil {
		// What hangs from a row that cannot be read gives nothing any more
		// once that is gone.
		if err := e.passOver(err); err != nil {
			return false, err
		}
		return false, tx.Delete(entityPrefix + id)
	}
	if row == nil {
		return false, nil
	}
	groups, err := groupsOf(tx, id)
	if err != nil {
		if err := e.passOver(err); err != nil {
			return false, err
		}
	}
	room := stepRows
	for ; len(groups.Groups) > 0 && room > 0; room-- {
		last := groups.Groups[len(groups.Groups)-1]
		if err := tx.Delete(memberKey(last, id)); err != nil {
			return false, err
		}
		groups.leave(last)
	}
	for ; len(row.Aliases) > 0 && room > 1; room -= 2 {
		if err := dropAlias(tx, &row.Aliases[0]); err != nil {
			return false, err
		}
		row.Aliases = row.Aliases[1:]
	}
	for ; len(row.Merged) > 0 && room > 0; room-- {
		if err := tx.Delete(mergedPrefix + row.Merged[0]); err != nil {
			return false, err
		}
		row.Merged = row.Merged[1:]
	}
	if err := groups.put(tx, id); err != nil {
		return false, err
	}
	if len(groups.Groups)+len(row.Aliases)+len(row.Merged) > 0 {
		row.Disabled, row.Updated = true, e.now()
		return true, row.put(tx)
	}
	if err := tx.Delete(entityNamePrefix + nameKey(row.Name)); err != nil {
		return false, err
	}
	return false, tx.Delete(entityPrefix + id)
}
