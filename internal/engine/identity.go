package engine

import (
	"context"

	"github.com/leasehold/leasehold/internal/storage"
)

// Identity is the engine that knows who callers are. There is one mount of it
// in each namespace.
type Identity interface {
	// Login finds the entity of an alias, or makes one, and brings up to date
	// what the method says: the alias's metadata and the external groups. It
	// writes only what differs; a login like the last one writes nothing.
	Login(ctx context.Context, l AliasLogin) (*Identified, error)
	// Identify tells what an entity has; nil when there is none any more. One
	// that was merged is the one it went into. It does not block once it was
	// asked, until something of the entity changes.
	Identify(ctx context.Context, entityID string) (*Identified, error)
	// Regroup brings the external groups of an auth mount up to date for an
	// entity, as a login with these groups does. An entity that is gone or
	// disabled is left as it is.
	Regroup(ctx context.Context, entityID, accessor string, groups []string) error
	// DropMount deletes the aliases of an auth mount that has been removed. It
	// is a sequence of idempotent steps.
	DropMount(ctx context.Context, accessor string) error
	// Count is how many entities there are.
	Count(ctx context.Context) (int64, error)
}

// AliasLogin is a login as the auth method tells of it.
type AliasLogin struct {
	Accessor string // of the auth mount
	Local    bool   // the mount is a local one
	Name     string
	Metadata map[string]string
	// Groups are the names of the groups that the method says it is in. The
	// entity leaves the external groups of this mount that are not among them.
	Groups []string
}

// Identified is what an entity has. It is shared and never changed.
type Identified struct {
	// Made is another one each time that the entity was read: as long as it
	// is the same, nothing of the entity has changed. Whoever keeps something
	// that was made from an entity keeps this beside it, and not the entity.
	Made *Made

	ID       string
	Name     string
	Disabled bool
	Metadata map[string]string
	Aliases  []IdentifiedAlias
	// Groups are those that it is in: directly, and through groups in groups.
	Groups []IdentifiedGroup
	// Stale are the ids of external groups that a login has put it in and that
	// it has nothing of any more, until the next login ends that.
	Stale []string
	// Policies are its own and those of its groups, sorted, each once.
	Policies []string
}

// Made tells one reading of an entity from another, by its address.
type Made struct{ _ byte }

// IdentifiedAlias is one of an entity's aliases.
type IdentifiedAlias struct {
	ID       string
	Accessor string // of the auth mount
	Name     string
	Metadata map[string]string
	Custom   map[string]string
}

// IdentifiedGroup is one of the groups that an entity is in.
type IdentifiedGroup struct {
	ID       string
	Name     string
	Metadata map[string]string
	// Accessor is the auth mount's whose logins fill the group; "" for one
	// that is not filled so.
	Accessor string
	Direct   bool
}

// Watcher is an engine that keeps in memory what stands in its slice. It is
// told of each change there before the Update that made it returns, and told
// nothing while its mount is not loaded; so what it reads it keeps with the
// revision it was read at. Neither method may block or use the store.
type Watcher interface {
	// Changed tells of a key, as the slice knows it, and the revision that
	// wrote or deleted it.
	Changed(key string, rev storage.Revision)
	// Lost tells that changes up to rev may have been missed.
	Lost(rev storage.Revision)
}
