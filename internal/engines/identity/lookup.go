package identity

import (
	"context"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
)

func (e *Engine) lookupRoutes(t *route.Table) {
	route.Write(t, "lookup/entity", e.lookupEntity, route.Doc("Find an entity by one of its names. Finding none is no error."))
	route.Write(t, "lookup/group", e.lookupGroup, route.Doc("Find a group by one of its names. Finding none is no error."))
}

type lookupIn struct {
	ID       string `json:"id" doc:"Its id."`
	Name     string `json:"name" doc:"Its name."`
	AliasID  string `json:"alias_id" doc:"The id of its alias."`
	Alias    string `json:"alias_name" doc:"The name of its alias, with alias_mount_accessor."`
	Accessor string `json:"alias_mount_accessor" doc:"The accessor of its alias's mount."`
}

// Validate wants one way to find it, and only one.
func (in lookupIn) Validate() error {
	ways := 0
	for _, s := range []string{in.ID, in.Name, in.AliasID, in.Alias + in.Accessor} {
		if s != "" {
			ways++
		}
	}
	switch {
	case ways == 0:
		return errs.New(errs.Invalid, "query parameter not supplied")
	case ways > 1:
		return errs.New(errs.Invalid, "query parameter conflict; please supply distinct set of query parameters")
	case (in.Alias == "") != (in.Accessor == ""):
		return errs.New(errs.Invalid, "both 'alias_name' and 'alias_mount_accessor' needs to be set")
	}
	return nil
}

// key is the index row by which it is found; "" if its id was given.
func (in lookupIn) key(name, aliasID string, alias func(accessor, name string) string) string {
	switch {
	case in.Name != "":
		return name + nameKey(in.Name)
	case in.AliasID != "":
		return aliasID + in.AliasID
	case in.Alias != "":
		return alias(in.Accessor, in.Alias)
	}
	return ""
}

func (e *Engine) lookupEntity(ctx context.Context, _ *route.Request, in lookupIn) (*entityOut, error) {
	return e.tellEntity(ctx, in.ID, in.key(entityNamePrefix, aliasIDPrefix, aliasKey))
}

func (e *Engine) lookupGroup(ctx context.Context, _ *route.Request, in lookupIn) (*groupOut, error) {
	return e.tellGroup(ctx, in.ID, in.key(groupNamePrefix, groupAliasIDPrefix, groupAliasKey))
}
