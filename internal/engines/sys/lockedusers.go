package sys

import (
	"context"

	"github.com/leasehold/leasehold/internal/route"
)

// LockedUsers are those who have failed to log in too often.
type LockedUsers interface {
	// Locked lists them, by accessor and alias.
	Locked(ctx context.Context, ns string) ([]LockedUser, error)
	// Unlock lets one log in again. Who is not locked out is no error; an
	// accessor that there is not is errs.Invalid.
	Unlock(ctx context.Context, ns, accessor, alias string) error
}

// LockedUser is an alias that is locked out of the auth method with an
// accessor.
type LockedUser struct {
	Accessor string
	Alias    string
}

func (e *Engine) lockedUserRoutes(t *route.Table) {
	route.Read(t, "locked-users", e.listLockedUsers, route.Doc("List who is locked out after too many failed logins."))
	route.Write(t, "locked-users/{mount_accessor}/unlock/{alias_identifier...}", e.unlockUser, route.Doc("Let a locked user log in again."))
}

type lockedUsersIn struct {
	Accessor string `json:"mount_accessor" doc:"List those of this auth method alone."`
}

type lockedUsersOut struct {
	Namespaces []lockedNamespace `json:"by_namespace"`
	Total      int               `json:"total"`
}

type lockedNamespace struct {
	ID     string        `json:"namespace_id"`
	Path   string        `json:"namespace_path"`
	Counts int           `json:"counts"`
	Mounts []lockedMount `json:"mount_accessors"`
}

type lockedMount struct {
	Accessor string   `json:"mount_accessor"`
	Counts   int      `json:"counts"`
	Aliases  []string `json:"alias_identifiers"`
}

func (e *Engine) listLockedUsers(ctx context.Context, req *route.Request, in lockedUsersIn) (lockedUsersOut, error) {
	list, err := e.cfg.LockedUsers.Locked(ctx, req.Mount.Namespace)
	if err != nil {
		return lockedUsersOut{}, err
	}
	ns := lockedNamespace{ID: req.Mount.Namespace, Path: req.Mount.NamespacePath}
	for _, u := range list {
		if in.Accessor != "" && u.Accessor != in.Accessor {
			continue
		}
		if n := len(ns.Mounts); n == 0 || ns.Mounts[n-1].Accessor != u.Accessor {
			ns.Mounts = append(ns.Mounts, lockedMount{Accessor: u.Accessor})
		}
		m := &ns.Mounts[len(ns.Mounts)-1]
		m.Aliases = append(m.Aliases, u.Alias)
		m.Counts++
		ns.Counts++
	}
	out := lockedUsersOut{Total: ns.Counts}
	if ns.Counts > 0 {
		out.Namespaces = []lockedNamespace{ns}
	}
	return out, nil
}

type unlockIn struct {
	Accessor string `json:"mount_accessor" doc:"Of the auth method."`
	Alias    string `json:"alias_identifier" doc:"The user name, or the role id of an approle."`
}

func (e *Engine) unlockUser(ctx context.Context, req *route.Request, in unlockIn) (route.None, error) {
	return route.None{}, e.cfg.LockedUsers.Unlock(ctx, req.Mount.Namespace, in.Accessor, in.Alias)
}
