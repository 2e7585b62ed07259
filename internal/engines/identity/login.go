package identity

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/storage"
)

// Login implements engine.Identity.
func (e *Engine) Login(ctx context.Context, l engine.AliasLogin) (*engine.Identified, error) {
	if l.Name == "" {
		return nil, errs.New(errs.Invalid, "the login has no name to know its entity by")
	}
	who, err := e.known(ctx, l)
	if err != nil {
		return nil, err
	}
	if who == nil {
		if who, err = e.admit(ctx, l); err != nil {
			return nil, err
		}
	}
	if who.Disabled {
		return who, nil
	}
	return e.refreshGroups(ctx, who, l)
}

// known is the entity of an alias of which all is stored as the login has it;
// nil: something is to be written.
func (e *Engine) known(ctx context.Context, l engine.AliasLogin) (*engine.Identified, error) {
	id, err := e.index(ctx, aliasKey(l.Accessor, l.Name))
	if err != nil || id == "" {
		return nil, err
	}
	who, err := e.entity(ctx, id)
	if err != nil || who == nil {
		return nil, err
	}
	for _, a := range who.Aliases {
		if a.Accessor == l.Accessor && (who.Disabled || maps.Equal(a.Metadata, l.Metadata)) {
			return who, nil
		}
	}
	return nil, nil
}

// errNameTaken says that a name was drawn which is in use.
var errNameTaken = errors.New("identity: the name is in use")

// drawNames is how often another name is drawn for a new entity.
const drawNames = 8

// admit writes what a login says of its alias, and makes the entity if there
// is none.
func (e *Engine) admit(ctx context.Context, l engine.AliasLogin) (*engine.Identified, error) {
	for try := 1; ; try++ {
		row, err := e.draft()
		if err != nil {
			return nil, err
		}
		aliasID, err := e.newID()
		if err != nil {
			return nil, err
		}
		id, drawn := "", row
		_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
			row, err := entityBy(tx, aliasKey(l.Accessor, l.Name))
			if err != nil {
				return err
			}
			now := e.now()
			if row == nil {
				row = &entity{ID: drawn.ID, Name: drawn.Name, Created: now}
				if err := putName(tx, row); err != nil {
					return err
				}
			}
			id = row.ID
			a := row.aliasAt(l.Accessor)
			if a == nil {
				row.Aliases = append(row.Aliases, alias{
					ID: aliasID, Accessor: l.Accessor, Name: l.Name, Local: l.Local, Created: now,
				})
				a = &row.Aliases[len(row.Aliases)-1]
				if err := putAlias(tx, row, a); err != nil {
					return err
				}
			}
			a.Metadata, a.Updated, row.Updated = l.Metadata, now, now
			return row.put(tx)
		})
		if errors.Is(err, errNameTaken) && try < drawNames {
			continue
		}
		if err != nil {
			return nil, err
		}
		who, err := e.entity(ctx, id)
		if err == nil && who == nil {
			err = errGoneMeanwhile
		}
		return who, err
	}
}

// errGoneMeanwhile is what somebody reads who was deleted while logging in.
var errGoneMeanwhile = errs.New(errs.Denied, "permission denied: the entity was deleted at this moment; log in again")

// draft is a new entity without a name of anybody's choice.
func (e *Engine) draft() (*entity, error) {
	id, err := e.newID()
	if err != nil {
		return nil, err
	}
	name, err := e.newName("entity")
	return &entity{ID: id, Name: name}, err
}

// putName writes the index row of an entity's name. The name must be free.
func putName(tx storage.Tx, row *entity) error {
	key := entityNamePrefix + nameKey(row.Name)
	id, err := getID(tx, key)
	if err == nil && id != "" && id != row.ID {
		// The index of a row that could not be read may outlive it.
		var other []byte
		if other, err = tx.Get(entityPrefix + id); err == nil && other != nil {
			err = errNameTaken
		}
	}
	if err != nil {
		return err
	}
	return tx.Put(key, []byte(row.ID))
}

// putAlias writes the index rows of one of an entity's aliases.
func putAlias(tx storage.Tx, row *entity, a *alias) error {
	if err := tx.Put(aliasIDPrefix+a.ID, []byte(row.ID)); err != nil {
		return err
	}
	return tx.Put(aliasKey(a.Accessor, a.Name), []byte(row.ID))
}

// dropAlias deletes the index rows of an alias.
func dropAlias(tx storage.Tx, a *alias) error {
	if err := tx.Delete(aliasIDPrefix + a.ID); err != nil {
		return err
	}
	return tx.Delete(aliasKey(a.Accessor, a.Name))
}

// refreshGroups makes the entity leave the external groups of the login's
// mount that the method does not name any more, and join those that it names.
func (e *Engine) refreshGroups(ctx context.Context, who *engine.Identified, l engine.AliasLogin) (*engine.Identified, error) {
	want := map[string]string{} // by which alias, by the group's id
	for _, name := range l.Groups {
		by := groupAliasKey(l.Accessor, name)
		id, err := e.index(ctx, by)
		if err != nil {
			return nil, err
		}
		if id != "" {
			want[id] = by
		}
	}
	var change []membership
	for _, g := range who.Groups {
		if !g.Direct || g.Accessor != l.Accessor {
			continue
		}
		if want[g.ID] != "" {
			delete(want, g.ID)
		} else {
			change = append(change, membership{group: g.ID, entity: who.ID, leave: true})
		}
	}
	for _, id := range who.Stale {
		if want[id] == "" {
			change = append(change, membership{group: id, entity: who.ID, leave: true})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(want)) {
		change = append(change, membership{group: id, entity: who.ID, by: want[id]})
	}
	if len(change) == 0 {
		return who, nil
	}
	for step := range slices.Chunk(change, stepMembers) {
		_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
			for _, m := range step {
				if err := m.apply(tx); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	who, err := e.entity(ctx, who.ID)
	if err == nil && who == nil {
		err = errGoneMeanwhile
	}
	return who, err
}

// Regroup implements engine.Identity.
func (e *Engine) Regroup(ctx context.Context, entityID, accessor string, groups []string) error {
	who, err := e.Identify(ctx, entityID)
	if err != nil || who == nil || who.Disabled {
		return err
	}
	if !slices.ContainsFunc(who.Aliases, func(a engine.IdentifiedAlias) bool { return a.Accessor == accessor }) {
		groups = nil // what it joined without an alias there would give nothing
	}
	_, err = e.refreshGroups(ctx, who, engine.AliasLogin{Accessor: accessor, Groups: groups})
	return err
}

// membership is an entity that joins a group or leaves it.
type membership struct {
	group, entity string
	leave         bool
	// by, when set, is the key of the alias by which a login joins an external
	// group: one whose alias is another by now is not joined.
	by string
}

// stepMembers is how many memberships are changed in one transaction. One
// touches four keys at most: both rows, the entity's list and the word on it.
const stepMembers = 24

// apply changes both sides of a membership. What is so already, and joining
// what is gone, changes nothing.
func (m membership) apply(tx storage.Tx) error {
	if !m.leave {
		who, err := tx.Get(entityPrefix + m.entity)
		if err != nil || who == nil {
			return err
		}
		g, err := getGroup(tx, m.group)
		if err != nil || g == nil {
			return err
		}
		if m.by != "" && !g.filledBy(m.by) {
			return nil
		}
	}
	in, err := groupsOf(tx, m.entity)
	if err != nil {
		return err
	}
	if m.leave && in.leave(m.group) || !m.leave && in.join(m.group, m.by) {
		if err := in.put(tx, m.entity); err != nil {
			return err
		}
	}
	if m.leave {
		return tx.Delete(memberKey(m.group, m.entity))
	}
	return tx.Put(memberKey(m.group, m.entity), nil)
}

// DropMount implements engine.Identity.
func (e *Engine) DropMount(ctx context.Context, accessor string) error {
	if accessor == "" || strings.Contains(accessor, "/") {
		return nil
	}
	err := e.eachPage(ctx, aliasPrefix+accessor+"/", func(tx storage.Tx, key, id string) error {
		if err := tx.Delete(key); err != nil {
			return err
		}
		row, err := getEntity(tx, id)
		if err != nil || row == nil {
			return e.passOver(err)
		}
		var rest []alias
		for _, a := range row.Aliases {
			if a.Accessor != accessor {
				rest = append(rest, a)
			} else if err := tx.Delete(aliasIDPrefix + a.ID); err != nil {
				return err
			}
		}
		row.Aliases, row.Updated = rest, e.now()
		return row.put(tx)
	})
	if err != nil {
		return err
	}
	return e.eachPage(ctx, groupAliasPrefix+accessor+"/", func(tx storage.Tx, key, id string) error {
		if err := tx.Delete(key); err != nil {
			return err
		}
		g, err := getGroup(tx, id)
		if err != nil || g == nil || g.Alias == nil || g.Alias.Accessor != accessor {
			return e.passOver(err)
		}
		if err := tx.Delete(groupAliasIDPrefix + g.Alias.ID); err != nil {
			return err
		}
		g.Alias = nil
		g.touch(e.now())
		return g.put(tx)
	})
}

// passOver logs a row that cannot be read: it must not keep what goes on
// around it from ending.
func (e *Engine) passOver(err error) error {
	if err == nil {
		return nil
	}
	var bad *storage.CorruptError
	if !errors.As(err, &bad) && !errors.Is(err, errBadRow) {
		return err
	}
	e.env.Log.Error("an identity row cannot be read; it is passed over", "error", err)
	return nil
}

// pageRows is how many rows one transaction of eachPage works on; fn touches
// at most four keys for each. Where what it writes is large there are fewer.
const pageRows = 24

// eachPage calls fn for every row below a prefix, which fn deletes, in
// transactions of a page each.
func (e *Engine) eachPage(ctx context.Context, prefix string, fn func(tx storage.Tx, key, value string) error) error {
	for most := pageRows; ; {
		type row struct{ key, value string }
		var rows []row
		err := e.env.Store.View(ctx, func(v storage.View) error {
			return storage.ScanEach(v, prefix, storage.PrefixEnd(prefix), 0, func(key string, b []byte, _ error) bool {
				rows = append(rows, row{key, string(b)})
				return len(rows) < most
			})
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
			for _, r := range rows {
				if err := fn(tx, r.key, r.value); err != nil {
					return err
				}
			}
			return nil
		})
		if errors.Is(err, storage.ErrTooLarge) && len(rows) > 1 {
			most = len(rows) / 2
			continue
		}
		if err != nil {
			return err
		}
	}
}
