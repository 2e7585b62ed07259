package identity

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

type mergeIn struct {
	From  wire.CSV `json:"from_entity_ids" doc:"Entities that go into the other, and are then gone. Their tokens are the other's."`
	To    string   `json:"to_entity_id" doc:"The entity that they go into."`
	Keep  wire.CSV `json:"conflicting_alias_ids_to_keep" doc:"Where both have an alias of one mount: ids of those to keep. The others are deleted."`
	Force bool     `json:"force" doc:"Keep the other entity's login MFA secrets where both have one."`
}

// Validate wants both sides.
func (in mergeIn) Validate() error {
	switch {
	case in.To == "":
		return errs.New(errs.Invalid, "missing entity id to merge to")
	case len(in.From) == 0:
		return errs.New(errs.Invalid, "missing entity ids to merge from")
	case len(in.From) > 1 && len(in.Keep) > 1:
		return errs.New(errs.Invalid, "alias conflicts can be resolved with one entity to merge from at a time")
	}
	return nil
}

func (e *Engine) mergeEntities(ctx context.Context, _ *route.Request, in mergeIn) (route.None, error) {
	from := cleanList(in.From)
	if err := e.checkMerge(ctx, in, from); err != nil {
		return route.None{}, err
	}
	if err := e.checkFactors(ctx, in, from); err != nil {
		return route.None{}, err
	}
	for _, id := range from {
		// First: once its entity is gone the request cannot be repeated.
		if err := e.factors.Merge(ctx, id, in.To); err != nil {
			return route.None{}, err
		}
		for more := true; more; {
			_, err := e.env.Store.Update(ctx, func(tx storage.Tx) (err error) {
				more, err = e.mergeStep(tx, id, in.To, in.Keep)
				return err
			})
			if err != nil {
				return route.None{}, written(err)
			}
		}
	}
	return route.None{}, nil
}

// checkFactors refuses to lose second factors, unless that is wanted.
func (e *Engine) checkFactors(ctx context.Context, in mergeIn, from []string) error {
	if in.Force {
		return nil
	}
	for _, id := range from {
		method, err := e.factors.Conflict(ctx, id, in.To)
		if err == nil && method != "" {
			err = errs.New(errs.Invalid, "%s and %s both have a secret of the MFA method %s: repeat the request with force=true to keep the latter's", id, in.To, method)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkMerge refuses, before anything is changed, what cannot be merged whole.
func (e *Engine) checkMerge(ctx context.Context, in mergeIn, from []string) error {
	return e.env.Store.View(ctx, func(v storage.View) error {
		to, err := getEntity(v, in.To)
		if err != nil {
			return err
		}
		if to == nil {
			return errs.New(errs.Invalid, "entity id to merge to is invalid")
		}
		accessors := map[string]string{}
		var clashes []string
		for _, id := range from {
			if id == in.To {
				return errs.New(errs.Invalid, "to_entity_id should not be present in from_entity_ids")
			}
			row, err := getEntity(v, id)
			if err != nil {
				return err
			}
			if row == nil {
				return errs.New(errs.Invalid, "entity id to merge from is invalid")
			}
			for i := range row.Aliases {
				a := &row.Aliases[i]
				if other := accessors[a.Accessor]; other != "" {
					return errs.New(errs.Invalid, "mount accessor %s found in several of from_entity_ids: merge one of them at a time", a.Accessor)
				}
				accessors[a.Accessor] = a.ID
				if b := to.aliasAt(a.Accessor); b != nil && slices.Contains(in.Keep, a.ID) == slices.Contains(in.Keep, b.ID) {
					clashes = append(clashes, fmt.Sprintf("%s of %s and %s of %s", a.ID, id, b.ID, in.To))
				}
			}
		}
		if len(clashes) > 0 {
			return errs.New(errs.Invalid,
				"both sides have an alias of the same mount: repeat the request with one entity to merge from, and in conflicting_alias_ids_to_keep one of each: %s",
				strings.Join(clashes, "; "))
		}
		return nil
	})
}

// mergeStep moves what fits in one transaction from an entity to another, and
// with the last of it deletes the first. A crash between two steps leaves two
// entities that share what the first had; the same request again ends it.
func (e *Engine) mergeStep(tx storage.Tx, fromID, toID string, keep []string) (more bool, err error) {
	from, err := getEntity(tx, fromID)
	if err != nil || from == nil {
		return false, err
	}
	to, err := getEntity(tx, toID)
	if err != nil {
		return false, err
	}
	if to == nil {
		return false, errs.New(errs.Invalid, "entity id to merge to is invalid: it was deleted meanwhile")
	}
	left, err := groupsOf(tx, fromID)
	if err != nil {
		return false, err
	}
	joined, err := groupsOf(tx, toID)
	if err != nil {
		return false, err
	}
	now := e.now()
	room := stepRows
	for ; len(from.Aliases) > 0 && room > leastRoom; room -= 4 {
		a := from.Aliases[0]
		clash, mine, err := clashOf(&a, to, keep)
		if err != nil {
			return false, err
		}
		if clash != nil {
			// The alias that goes was the way into groups that the other may
			// have no part in.
			loser, id := left, fromID
			if mine {
				loser, id = joined, toID
			}
			if room, err = loser.leaveMount(tx, id, a.Accessor, room); err != nil {
				return false, err
			}
			if room <= leastRoom {
				break
			}
		}
		from.Aliases = from.Aliases[1:]
		if err := moveAlias(tx, a, from, to, clash, mine); err != nil {
			return false, err
		}
	}
	for ; len(left.Groups) > 0 && room > 2; room -= 3 {
		id := left.Groups[len(left.Groups)-1]
		by := left.By[id]
		left.leave(id)
		if err := tx.Delete(memberKey(id, fromID)); err != nil {
			return false, err
		}
		if slices.Contains(joined.Groups, id) {
			// Of two logins that have put them there, the one counts that would
			// today.
			g, err := getGroup(tx, id)
			if err != nil {
				return false, err
			}
			if by == "" || g == nil || !g.filledBy(by) {
				continue
			}
		}
		joined.join(id, by)
		if err := tx.Put(memberKey(id, toID), nil); err != nil {
			return false, err
		}
	}
	for ; len(from.Merged) > 0 && room > 0; room-- {
		id := from.Merged[0]
		from.Merged = from.Merged[1:]
		to.Merged = append(to.Merged, id)
		if err := tx.Put(mergedPrefix+id, []byte(toID)); err != nil {
			return false, err
		}
	}
	if err := left.put(tx, fromID); err != nil {
		return false, err
	}
	if err := joined.put(tx, toID); err != nil {
		return false, err
	}
	to.Updated = now
	if len(from.Aliases)+len(left.Groups)+len(from.Merged) > 0 {
		from.Updated = now
		if err := from.put(tx); err != nil {
			return false, err
		}
		return true, to.put(tx)
	}
	to.Merged = append(to.Merged, fromID)
	if err := tx.Put(mergedPrefix+fromID, []byte(toID)); err != nil {
		return false, err
	}
	if err := tx.Delete(entityNamePrefix + nameKey(from.Name)); err != nil {
		return false, err
	}
	if err := tx.Delete(entityPrefix + fromID); err != nil {
		return false, err
	}
	return false, to.put(tx)
}

// clashOf is the alias that the entity which another goes into has of the same
// mount, if it has one, and whether the other's stays in its place.
func clashOf(a *alias, to *entity, keep []string) (clash *alias, mine bool, err error) {
	b := to.aliasAt(a.Accessor)
	if b == nil {
		return nil, false, nil
	}
	mine = slices.Contains(keep, a.ID)
	if mine == slices.Contains(keep, b.ID) {
		return nil, false, errs.New(errs.Invalid, "the entities have got aliases of the same mount meanwhile: repeat the request")
	}
	return new(*b), mine, nil
}

// leastRoom is the room that leaveMount leaves where it could not finish: too
// little for an alias.
const leastRoom = 3

// leaveMount takes an entity out of the external groups that logins at a mount
// have put it in, as far as there is room in the transaction. It gives the room
// that is left.
func (m *memberOf) leaveMount(tx storage.Tx, entityID, accessor string, room int) (int, error) {
	for _, id := range slices.Clone(m.Groups) {
		if room <= leastRoom {
			break
		}
		if !strings.HasPrefix(m.By[id], groupAliasPrefix+accessor+"/") {
			continue
		}
		if err := tx.Delete(memberKey(id, entityID)); err != nil {
			return room, err
		}
		m.leave(id)
		room--
	}
	return room, nil
}

// moveAlias gives an alias to the entity that another goes into. Where that has
// one of the same mount, the one to keep stays.
func moveAlias(tx storage.Tx, a alias, from, to *entity, clash *alias, mine bool) error {
	if clash != nil && !mine {
		return dropAlias(tx, &a)
	}
	if clash != nil {
		if err := dropAlias(tx, clash); err != nil {
			return err
		}
		to.Aliases = slices.DeleteFunc(to.Aliases, func(o alias) bool { return o.ID == clash.ID })
	}
	a.MergedFrom = append(a.MergedFrom, from.ID)
	to.Aliases = append(to.Aliases, a)
	return putAlias(tx, to, &a)
}
