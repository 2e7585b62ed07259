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

func (e *Engine) groupRoutes(t *route.Table) {
	folds := route.Folds(folded)
	route.Write(t, "group", e.writeGroup, route.Doc("Make a group, or change the one with the id or name."))
	route.List(t, "group/id", e.listGroupIDs, route.Doc("List the groups by id."))
	route.Read(t, "group/id/{id}", e.readGroup, route.Doc("Read a group."))
	route.Write(t, "group/id/{id}", e.writeGroup, route.Doc("Change a group."))
	route.Delete(t, "group/id/{id}", e.deleteGroup, route.Doc("Delete a group. Its members stay."))
	route.List(t, "group/name", e.listGroupNames, route.Doc("List the groups by name."))
	route.Read(t, "group/name/{name...}", e.readGroupByName, folds, route.Doc("Read the group with a name."))
	route.Write(t, "group/name/{name...}", e.writeGroup, folds, route.Doc("Make or change the group with a name."))
	route.Delete(t, "group/name/{name...}", e.deleteGroupByName, folds, route.Doc("Delete the group with a name. Its members stay."))

	route.Write(t, "group-alias", e.writeGroupAlias, route.Doc("Say which group of an auth method fills an external group."))
	route.List(t, "group-alias/id", e.listGroupAliases, route.Doc("List the aliases of groups."))
	route.Read(t, "group-alias/id/{id}", e.readGroupAlias, route.Doc("Read the alias of a group."))
	route.Write(t, "group-alias/id/{id}", e.writeGroupAlias, route.Doc("Change the alias of a group."))
	route.Delete(t, "group-alias/id/{id}", e.deleteGroupAlias, route.Doc("Delete the alias of a group. The group and its members stay."))
}

// groupOut is a group as it is read.
type groupOut struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Type      string            `json:"type"`
	Policies  []string          `json:"policies"`
	Metadata  map[string]string `json:"metadata" wire:"null"`
	Alias     wire.Data         `json:"alias"` // groupAliasOut, or an empty object
	Entities  []string          `json:"member_entity_ids"`
	Groups    []string          `json:"member_group_ids" wire:"null"`
	Parents   []string          `json:"parent_group_ids" wire:"null"`
	Index     uint64            `json:"modify_index"`
	Created   time.Time         `json:"creation_time"`
	Updated   time.Time         `json:"last_update_time"`
	Namespace string            `json:"namespace_id"`
}

// tellGroup reads a group by its id, or by an index row; nil when there is none.
func (e *Engine) tellGroup(ctx context.Context, id, index string) (*groupOut, error) {
	var g *group
	var entities, groups []string
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		if index != "" {
			if id, err = getID(v, index); err != nil || id == "" {
				return err
			}
		}
		if g, err = getGroup(v, id); err != nil || g == nil {
			return err
		}
		if entities, err = below(v, memberPrefix+g.ID+"/"); err != nil {
			return err
		}
		groups, err = below(v, childPrefix+g.ID+"/")
		return err
	})
	if err != nil || g == nil {
		return nil, err
	}
	out := &groupOut{
		ID: g.ID, Name: g.Name, Type: g.Type, Policies: g.Policies, Metadata: g.Metadata, Entities: entities,
		Groups: groups, Parents: g.Parents, Index: g.Index, Created: g.Created, Updated: g.Updated,
		Namespace: e.env.Namespace,
	}
	if g.Alias == nil {
		out.Alias = wire.Value("{}")
		return out, nil
	}
	a, err := e.tellGroupAlias(ctx, g)
	out.Alias = wire.Of(a)
	return out, err
}

// below lists what follows a prefix in keys.
func below(v storage.View, prefix string) (names []string, err error) {
	err = storage.ScanEach(v, prefix, storage.PrefixEnd(prefix), 0, func(key string, _ []byte, _ error) bool {
		names = append(names, key[len(prefix):]) // the key says it all
		return true
	})
	return names, err
}

func (e *Engine) readGroup(ctx context.Context, _ *route.Request, in idIn) (*groupOut, error) {
	return there(e.tellGroup(ctx, in.ID, ""))
}

func (e *Engine) readGroupByName(ctx context.Context, _ *route.Request, in nameIn) (*groupOut, error) {
	return there(e.tellGroup(ctx, "", groupNamePrefix+nameKey(in.Name)))
}

type groupIn struct {
	ID       string             `json:"id" doc:"Id of the group to change."`
	Name     string             `json:"name" doc:"Its name, told apart without regard to case; one is drawn where none is given."`
	Type     wire.Opt[string]   `json:"type" doc:"internal, which is the default, or external: filled at login. It cannot be changed later."`
	Metadata wire.Opt[wire.KV]  `json:"metadata" doc:"Names and values, for people and for templated policies."`
	Policies wire.Opt[wire.CSV] `json:"policies" doc:"Policies that the tokens of its members have beside their own."`
	Entities wire.Opt[wire.CSV] `json:"member_entity_ids" doc:"All entities that are directly in it."`
	Groups   wire.Opt[wire.CSV] `json:"member_group_ids" doc:"All groups that are directly in it."`
}

func (in *groupIn) Validate() error {
	if err := checkPolicies(in.Policies.Value); err != nil {
		return err
	}
	return checkMetadata("metadata", in.Metadata.Value)
}

// groupMade is the answer of making a group; changing one has none.
type groupMade struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// tries is how often a write is planned anew because the group has changed
// between the look and the write.
const tries = 8

// errChanged is a group that changed while a write of it was being planned or
// carried out.
var errChanged = errs.New(errs.Invalid, "the group was changed by somebody else at the same moment; read it and write it again")

func (e *Engine) writeGroup(ctx context.Context, _ *route.Request, in groupIn) (*groupMade, error) {
	for try := 1; ; try++ {
		w, err := e.planGroup(ctx, in)
		if err != nil {
			return nil, err
		}
		err = w.carryOut(ctx)
		if try < tries && (errors.Is(err, errNameTaken) || errors.Is(err, errChanged) && w.steps == 0) {
			continue
		}
		if err != nil || !w.fresh {
			return nil, written(err)
		}
		return &groupMade{w.row.ID, w.row.Name}, nil
	}
}

// find is the id of the group that a write means; "" for a new one.
func (in *groupIn) find(r storage.Reader) (string, error) {
	if in.ID == "" && in.Name == "" {
		return "", nil
	}
	if in.ID == "" {
		return getID(r, groupNamePrefix+nameKey(in.Name))
	}
	g, err := getGroup(r, in.ID)
	if err == nil && g == nil {
		err = errs.New(errs.Invalid, "invalid group ID")
	}
	return in.ID, err
}

// apply changes what the write names.
func (in *groupIn) apply(g *group) error {
	if typ, ok := in.Type.Get(); ok && typ != "" {
		if g.Type != "" && typ != g.Type {
			return errs.New(errs.Invalid, "group type cannot be changed")
		}
		g.Type = typ
	}
	switch {
	case g.Type == "":
		g.Type = internalGroup
	case g.Type != internalGroup && g.Type != externalGroup:
		return errs.New(errs.Invalid, "invalid group type %q", g.Type)
	}
	if g.Type == externalGroup && in.Entities.Set {
		return errs.New(errs.Invalid, "member entities can't be set manually for external groups")
	}
	if g.Type == externalGroup && in.Groups.Set {
		return errs.New(errs.Invalid, "member groups can't be set for external groups")
	}
	if list, ok := in.Policies.Get(); ok {
		g.Policies = inOrder(list)
	}
	if kv, ok := in.Metadata.Get(); ok {
		g.Metadata = kv
	}
	return nil
}

// inOrder leaves out what is empty or there before, in whichever case. A group
// shows its policies as they were given, unlike an entity.
func inOrder(list []string) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		same := func(o string) bool { return strings.EqualFold(o, s) }
		if s = strings.TrimSpace(s); s != "" && !slices.ContainsFunc(out, same) {
			out = append(out, s)
		}
	}
	return out
}

// groupInfo is what a list tells of a group.
type groupInfo struct {
	Name    string     `json:"name"`
	Members int        `json:"num_member_entities"`
	Parents int        `json:"num_parent_groups"`
	Alias   *aliasInfo `json:"alias,omitempty"`
}

type groupList struct {
	Keys []string             `json:"keys"`
	Info map[string]groupInfo `json:"key_info"`
}

func (e *Engine) listGroupIDs(ctx context.Context, _ *route.Request, _ route.None) (groupList, error) {
	return e.listGroups(ctx, func(g *group) string { return g.ID })
}

func (e *Engine) listGroupNames(ctx context.Context, _ *route.Request, _ route.None) (groupList, error) {
	return e.listGroups(ctx, func(g *group) string { return g.Name })
}

func (e *Engine) listGroups(ctx context.Context, key func(*group) string) (groupList, error) {
	out := groupList{Info: map[string]groupInfo{}}
	mounts := e.newMounts(ctx)
	err := e.env.Store.View(ctx, func(v storage.View) error {
		members := map[string]int{}
		err := storage.ScanEach(v, memberPrefix, storage.PrefixEnd(memberPrefix), 0, func(key string, _ []byte, _ error) bool {
			id, _, _ := strings.Cut(key[len(memberPrefix):], "/")
			members[id]++
			return true
		})
		if err != nil {
			return err
		}
		return e.eachGroup(v, func(g *group) {
			out.Keys = append(out.Keys, key(g))
			info := groupInfo{Name: g.Name, Members: members[g.ID], Parents: len(g.Parents)}
			if g.Alias != nil {
				a := mounts.info(g.Alias)
				info.Alias = &a
			}
			out.Info[g.ID] = info
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

// eachGroup calls fn with every group. Rows that cannot be read are passed
// over.
func (e *Engine) eachGroup(v storage.View, fn func(*group)) error {
	return storage.ScanEach(v, groupPrefix, storage.PrefixEnd(groupPrefix), 0, func(key string, b []byte, err error) bool {
		var g *group
		if err == nil {
			g, err = readRow(key, b, groupVersion)
		}
		if err != nil {
			e.env.Log.Error("listing groups", "error", err)
			return true
		}
		fn(g)
		return true
	})
}

func (e *Engine) deleteGroup(ctx context.Context, _ *route.Request, in idIn) (route.None, error) {
	return route.None{}, e.endGroup(ctx, in.ID)
}

func (e *Engine) deleteGroupByName(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	id, err := e.find(ctx, groupNamePrefix+nameKey(in.Name))
	if err != nil || id == "" {
		return route.None{}, err
	}
	return route.None{}, e.endGroup(ctx, id)
}

// endGroup deletes a group. It gives nothing from the first step on; the
// memberships, of which there may be very many, go after that, and a crash in
// between is made good by Sweep.
func (e *Engine) endGroup(ctx context.Context, id string) error {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		g, err := getGroup(tx, id)
		if err != nil {
			if err = e.passOver(err); err != nil {
				return err
			}
			g = &group{ID: id} // of a row that cannot be read nothing more is known
		}
		if g == nil {
			return nil
		}
		for _, parent := range g.Parents {
			if err := tx.Delete(childKey(parent, id)); err != nil {
				return err
			}
		}
		if g.Alias != nil {
			if err := dropGroupAlias(tx, g.Alias); err != nil {
				return err
			}
		}
		if err := tx.Delete(groupNamePrefix + nameKey(g.Name)); err != nil {
			return err
		}
		if err := tx.Put(goingPrefix+id, nil); err != nil {
			return err
		}
		return tx.Delete(groupPrefix + id)
	})
	if err != nil {
		return err
	}
	return e.finishGroup(ctx, id)
}

// finishGroup deletes what is left of a group that is deleted.
func (e *Engine) finishGroup(ctx context.Context, id string) error {
	going := false
	err := e.env.Store.View(ctx, func(v storage.View) error {
		b, err := v.Get(goingPrefix + id)
		going = b != nil
		return err
	})
	if err != nil || !going {
		return err
	}
	members, children := memberPrefix+id+"/", childPrefix+id+"/"
	err = e.eachPage(ctx, members, func(tx storage.Tx, key, _ string) error {
		err := membership{group: id, entity: key[len(members):], leave: true}.apply(tx)
		if err = e.passOver(err); err != nil {
			return err
		}
		return tx.Delete(key)
	})
	if err != nil {
		return err
	}
	err = e.eachPage(ctx, children, func(tx storage.Tx, key, _ string) error {
		if err := e.passOver(e.nest(tx, id, key[len(children):], false)); err != nil {
			return err
		}
		return tx.Delete(key)
	})
	if err != nil {
		return err
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(goingPrefix + id) })
	return err
}

// sweepGroups finishes the groups whose deletion a crash left half done.
func (e *Engine) sweepGroups(ctx context.Context) error {
	var going []string
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		going, err = below(v, goingPrefix)
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range going {
		if err := e.finishGroup(ctx, id); err != nil {
			return err
		}
	}
	return nil
}
