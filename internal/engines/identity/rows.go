package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// What is stored, and under which keys. <name> is nameKey of a name: names are
// of any length and any characters, and are compared without regard to case.
//
//	e/<entity>               entity, JSON, with its aliases
//	en/<name>                the id of the entity with this name
//	a/<alias>                the id of the entity that the alias belongs to
//	al/<accessor>/<name>     the same, by the mount's accessor and the alias's name
//	em/<entity>              an entity that was merged: the id of the one it went into
//	eg/<entity>              memberOf, JSON: the groups that the entity is directly in
//	g/<group>                group, JSON, with its alias and the groups it is in
//	gn/<name>                the id of the group with this name
//	ga/<alias>               the id of the group that the alias belongs to
//	gal/<accessor>/<name>    the same, by the mount's accessor and the alias's name
//	gm/<group>/<entity>      empty: the entity is directly in the group
//	gc/<group>/<group>       empty: the second group is directly in the first
//	gx/<group>               empty: the group is deleted and its memberships are being
const (
	entityPrefix       = "e/"
	entityNamePrefix   = "en/"
	aliasIDPrefix      = "a/"
	aliasPrefix        = "al/"
	mergedPrefix       = "em/"
	memberOfPrefix     = "eg/"
	groupPrefix        = "g/"
	groupNamePrefix    = "gn/"
	groupAliasIDPrefix = "ga/"
	groupAliasPrefix   = "gal/"
	memberPrefix       = "gm/"
	childPrefix        = "gc/"
	goingPrefix        = "gx/"

	rowVersion = 1
)

// entity is somebody. Version 1.
type entity struct {
	V        int               `json:"v"`
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Metadata map[string]string `json:"meta,omitempty"`
	Policies []string          `json:"pol,omitempty"`
	Disabled bool              `json:"off,omitempty"`
	Aliases  []alias           `json:"aliases,omitempty"` // at most one of each mount
	Merged   []string          `json:"merged,omitempty"`  // the entities that went into this one
	Created  time.Time         `json:"at"`
	Updated  time.Time         `json:"upd"`
}

// alias is the name that the mount with an accessor knows an entity, or an
// external group, by. It stands in the row of what it belongs to.
type alias struct {
	ID         string            `json:"id"`
	Accessor   string            `json:"acc"`
	Name       string            `json:"name"`
	Metadata   map[string]string `json:"meta,omitempty"` // from the last login
	Custom     map[string]string `json:"custom,omitempty"`
	Local      bool              `json:"local,omitempty"`
	MergedFrom []string          `json:"from,omitempty"` // entities that it belonged to before
	Created    time.Time         `json:"at"`
	Updated    time.Time         `json:"upd"`
}

// group is a set of entities and groups. Those that are in it are rows of
// their own, so that this row stays small. Version 1.
type group struct {
	V        int               `json:"v"`
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Type     string            `json:"type"`
	Metadata map[string]string `json:"meta,omitempty"`
	Policies []string          `json:"pol,omitempty"`
	Alias    *alias            `json:"alias,omitempty"` // of an external group
	Parents  []string          `json:"in,omitempty"`    // the groups that it is directly in
	Index    uint64            `json:"mod"`             // grows with each change
	Created  time.Time         `json:"at"`
	Updated  time.Time         `json:"upd"`
}

// The types of group.
const (
	internalGroup = "internal"
	externalGroup = "external"
)

// memberOf is the groups that one entity is directly in. Version 1.
type memberOf struct {
	V      int      `json:"v"`
	Groups []string `json:"in"`
	// By is, for each external group, the key of the alias by which a login put
	// the entity there. See inForce.
	By map[string]string `json:"by,omitempty"`
}

// folded is a name as names are compared.
func folded(name string) string { return strings.ToLower(name) }

// nameKey stands for a name in keys.
func nameKey(name string) string {
	h := sha256.Sum256([]byte(folded(name)))
	return hex.EncodeToString(h[:20])
}

func aliasKey(accessor, name string) string { return aliasPrefix + accessor + "/" + nameKey(name) }
func groupAliasKey(accessor, name string) string {
	return groupAliasPrefix + accessor + "/" + nameKey(name)
}
func memberKey(group, entity string) string { return memberPrefix + group + "/" + entity }
func childKey(group, child string) string   { return childPrefix + group + "/" + child }

// getRow reads a row into a T: nil when there is none.
func getRow[T any](r storage.Reader, key string, version func(*T) int) (*T, error) {
	b, err := r.Get(key)
	if err != nil || b == nil {
		return nil, err
	}
	return readRow(key, b, version)
}

func readRow[T any](key string, b []byte, version func(*T) int) (*T, error) {
	row := new(T)
	if err := wire.Unmarshal(b, row); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errBadRow, key, err)
	}
	if v := version(row); v > rowVersion {
		return nil, fmt.Errorf("%w: %s has version %d, written by a newer server", errBadRow, key, v)
	}
	return row, nil
}

// errBadRow is a row whose text this server cannot read.
var errBadRow = errors.New("an identity row cannot be read")

func entityVersion(e *entity) int { return e.V }
func groupVersion(g *group) int   { return g.V }

// getEntity reads an entity by its id: nil when there is none.
func getEntity(r storage.Reader, id string) (*entity, error) {
	return getRow(r, entityPrefix+id, entityVersion)
}

// getGroup reads a group by its id: nil when there is none.
func getGroup(r storage.Reader, id string) (*group, error) {
	return getRow(r, groupPrefix+id, groupVersion)
}

// getID reads an index row: "" when there is none.
func getID(r storage.Reader, key string) (string, error) {
	b, err := r.Get(key)
	return string(b), err
}

// entityBy reads the entity that an index row names: nil when there is none.
func entityBy(r storage.Reader, key string) (*entity, error) {
	id, err := getID(r, key)
	if err != nil || id == "" {
		return nil, err
	}
	return getEntity(r, id)
}

// groupBy reads the group that an index row names: nil when there is none.
func groupBy(r storage.Reader, key string) (*group, error) {
	id, err := getID(r, key)
	if err != nil || id == "" {
		return nil, err
	}
	return getGroup(r, id)
}

// groupsOf are the groups that an entity is directly in.
func groupsOf(r storage.Reader, entityID string) (*memberOf, error) {
	row, err := getRow(r, memberOfPrefix+entityID, func(m *memberOf) int { return m.V })
	if row == nil {
		row = new(memberOf)
	}
	return row, err
}

func (m *memberOf) put(tx storage.Tx, entityID string) error {
	if len(m.Groups) == 0 {
		return tx.Delete(memberOfPrefix + entityID)
	}
	m.V = rowVersion
	return tx.Put(memberOfPrefix+entityID, wire.Marshal(m))
}

// join and leave report whether they have changed anything. by is "" for an
// internal group.
func (m *memberOf) join(group, by string) bool {
	there := slices.Contains(m.Groups, group)
	if there && m.By[group] == by {
		return false
	}
	if !there {
		m.Groups = append(m.Groups, group)
	}
	if by != "" {
		if m.By == nil {
			m.By = map[string]string{}
		}
		m.By[group] = by
	}
	return true
}

func (m *memberOf) leave(group string) bool {
	at := slices.Index(m.Groups, group)
	if at < 0 {
		return false
	}
	m.Groups = slices.Delete(m.Groups, at, at+1)
	delete(m.By, group)
	return true
}

// inForce parts the groups that an entity is directly in from those that it was
// put in by a login of which nothing is left: the group's alias is another by
// now, or the entity has no alias of that mount any more. Such a membership
// gives nothing, and the next login ends it.
func (m *memberOf) inForce(r storage.Reader, row *entity) (direct, stale []string, err error) {
	for _, id := range m.Groups {
		if by := m.By[id]; by != "" {
			g, err := getGroup(r, id)
			if err != nil {
				return nil, nil, err
			}
			if g == nil || !g.filledBy(by) || row.aliasAt(g.Alias.Accessor) == nil {
				stale = append(stale, id)
				continue
			}
		}
		direct = append(direct, id)
	}
	return direct, stale, nil
}

// filledBy reports whether an alias, by its key, is the group's.
func (g *group) filledBy(alias string) bool {
	return g.Alias != nil && groupAliasKey(g.Alias.Accessor, g.Alias.Name) == alias
}

func (e *entity) put(tx storage.Tx) error {
	e.V = rowVersion
	return tx.Put(entityPrefix+e.ID, wire.Marshal(e))
}

func (g *group) put(tx storage.Tx) error {
	g.V = rowVersion
	return tx.Put(groupPrefix+g.ID, wire.Marshal(g))
}

// alias finds one of the entity's aliases by its id: nil when it has no such.
func (e *entity) alias(id string) *alias {
	for i := range e.Aliases {
		if e.Aliases[i].ID == id {
			return &e.Aliases[i]
		}
	}
	return nil
}

// aliasAt finds the entity's alias of a mount: nil when it has none.
func (e *entity) aliasAt(accessor string) *alias {
	for i := range e.Aliases {
		if e.Aliases[i].Accessor == accessor {
			return &e.Aliases[i]
		}
	}
	return nil
}

// touch notes a change of the group.
func (g *group) touch(now time.Time) { g.Index, g.Updated = g.Index+1, now }

// now is the engine's clock, as it is stored.
func (e *Engine) now() time.Time { return e.env.Now().Round(0).UTC() }

// newID draws a UUID. Outside the root namespace it ends in the namespace's
// id, as peers have it: an id says by itself where it belongs.
func (e *Engine) newID() (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(e.env.Rand, b[:]); err != nil {
		return "", fmt.Errorf("drawing an id: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	id := h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
	if e.env.Namespace != rootNamespace {
		id += "." + e.env.Namespace
	}
	return id, nil
}

// newName draws the name of an entity or group that was not given one.
func (e *Engine) newName(kind string) (string, error) {
	var b [5]byte
	if _, err := io.ReadFull(e.env.Rand, b[:]); err != nil {
		return "", fmt.Errorf("drawing a name: %w", err)
	}
	return kind + "_" + hex.EncodeToString(b[:]) + "." + e.env.Namespace, nil
}

// rootNamespace is the fixed id of the root namespace.
const rootNamespace = "root"
