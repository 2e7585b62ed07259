package sys

import (
	"context"
	"maps"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// Namespaces tells of namespaces. ns is the id of the one that asks, and paths
// are seen from there.
type Namespaces interface {
	// Below lists those directly below, or all below, by path.
	Below(ctx context.Context, ns string, deep bool) ([]Namespace, error)
	At(ctx context.Context, ns, path string) (n Namespace, ok bool, err error)
}

// NamespaceTable changes them. What it refuses is errs.Invalid.
type NamespaceTable interface {
	// Add makes one. Its parent must be there.
	Add(ctx context.Context, ns, path string, metadata map[string]string) (Namespace, error)
	// Tune stores what change makes of one's metadata. It may call change more
	// than once. Without one it is errs.NotFound.
	Tune(ctx context.Context, ns, path string, change func(metadata map[string]string) map[string]string) (Namespace, error)
	// Remove begins to end one. It is false where there is none.
	Remove(ctx context.Context, ns, path string) (there bool, err error)
}

// NamespaceLocks closes and opens the API of a namespace.
type NamespaceLocks interface {
	// Lock gives the key that opens it again.
	Lock(ctx context.Context, ns, path string) (key secret.String, err error)
	// Unlock needs the key unless whatever is set.
	Unlock(ctx context.Context, ns, path string, key secret.String, whatever bool) error
}

// Namespace is a namespace as an operator sees it.
type Namespace struct {
	ID, UUID string
	Path     string // whole, "team/app/"
	Metadata map[string]string
	Locked   bool
}

func (e *Engine) namespaceRoutes(t *route.Table) {
	route.List(t, "namespaces", e.listNamespaces, route.Doc("List the namespaces below this one."))
	route.Read(t, "namespaces/{path...}", e.readNamespace, route.Doc("Read a namespace."))
	route.Write(t, "namespaces/{path...}", e.writeNamespace, route.Doc("Make a namespace, or replace the notes about one."))
	route.Patch(t, "namespaces/{path...}", e.patchNamespace, route.Doc("Change the notes about a namespace."))
	route.Delete(t, "namespaces/{path...}", e.deleteNamespace, route.Doc("Delete a namespace with all that is in it: its leases are revoked."))

	route.Write(t, "namespaces/api-lock/lock", e.lockNamespace, route.Doc("Close this namespace's API to everybody."))
	route.Write(t, "namespaces/api-lock/lock/{path...}", e.lockNamespace, route.Doc("Close a namespace's API to everybody."))
	route.Write(t, "namespaces/api-lock/unlock", e.unlockNamespace, route.Doc("Open this namespace's API again."))
	route.Write(t, "namespaces/api-lock/unlock/{path...}", e.unlockNamespace, route.Doc("Open a namespace's API again."))

	// Without these a POST would make a namespace of that name.
	doc := route.Doc("Seal a single namespace: not possible.")
	route.Write(t, "namespaces/{path...}/seal", refuseSealing, doc)
	route.Write(t, "namespaces/{path...}/unseal", refuseUnsealing, doc)
	route.Read(t, "namespaces/{path...}/seal-status", refuseSealing, doc)
	route.Delete(t, "namespaces/{path...}/delete-sealed", refuseSealing, doc)

	route.Read(t, "internal/ui/namespaces", e.uiNamespaces, route.Unauth(), route.Doc("List the namespaces that the caller may see."))
}

type namespaceOut struct {
	ID       string            `json:"id"`
	UUID     string            `json:"uuid"`
	Path     string            `json:"path"`
	Metadata map[string]string `json:"custom_metadata"`
	Locked   bool              `json:"locked"`
	// One that is being deleted is not there any more.
	Tainted bool `json:"tainted"`
}

func (n Namespace) out() namespaceOut {
	out := namespaceOut{ID: n.ID, UUID: n.UUID, Path: n.Path, Metadata: n.Metadata, Locked: n.Locked}
	if out.Metadata == nil {
		out.Metadata = map[string]string{}
	}
	return out
}

type namespacesOut struct {
	Keys []string                `json:"keys"`
	Info map[string]namespaceOut `json:"key_info"`
}

func (e *Engine) listNamespaces(ctx context.Context, req *route.Request, _ route.None) (out namespacesOut, err error) {
	list, err := e.cfg.Namespaces.Below(ctx, req.Mount.Namespace, false)
	if err == nil && len(list) == 0 {
		err = errs.Gone
	}
	if err != nil {
		return out, err
	}
	out.Info = make(map[string]namespaceOut, len(list))
	for _, n := range list {
		rel := n.Path[len(req.Mount.NamespacePath):]
		out.Keys = append(out.Keys, rel)
		out.Info[rel] = n.out()
	}
	return out, nil
}

type namespaceIn struct {
	Path string `json:"path" doc:"Path of the namespace, such as team/."`
}

func (e *Engine) readNamespace(ctx context.Context, req *route.Request, in namespaceIn) (namespaceOut, error) {
	n, ok, err := e.cfg.Namespaces.At(ctx, req.Mount.Namespace, in.Path)
	if err == nil && !ok {
		err = errs.Gone
	}
	return n.out(), err
}

// ownSeal is what a client sends that wants a namespace with keys of its own.
type ownSeal struct {
	Seal    wire.Value `json:"seal"`
	PGPKeys wire.Value `json:"pgp_keys"`
}

func (in ownSeal) check() error {
	if in.Seal.Kind() != wire.Null || in.PGPKeys.Kind() != wire.Null {
		return errNoSeal
	}
	return nil
}

type namespaceWriteIn struct {
	namespaceIn
	ownSeal
	Metadata wire.Opt[wire.KV] `json:"custom_metadata" doc:"Notes about it: names with text values."`
}

// Validate refuses a seal of its own.
func (in namespaceWriteIn) Validate() error { return in.check() }

// writeNamespace makes a namespace, or leaves one as it is but for the notes
// that were sent.
func (e *Engine) writeNamespace(ctx context.Context, req *route.Request, in namespaceWriteIn) (namespaceOut, error) {
	ns := req.Mount.Namespace
	n, ok, err := e.cfg.Namespaces.At(ctx, ns, in.Path)
	switch notes, sent := in.Metadata.Get(); {
	case err != nil:
	case !ok:
		n, err = e.cfg.NamespaceTable.Add(ctx, ns, in.Path, notes)
	case sent:
		n, err = e.cfg.NamespaceTable.Tune(ctx, ns, in.Path, func(map[string]string) map[string]string { return notes })
	}
	return n.out(), err
}

type namespacePatchIn struct {
	namespaceIn
	ownSeal
	Metadata wire.Opt[wire.Object] `json:"custom_metadata" doc:"Notes to change; null removes one."`
}

// Validate wants texts, or null to remove one.
func (in namespacePatchIn) Validate() error {
	for name, v := range in.Metadata.Value.All() {
		if _, ok := v.Text(); !ok && v.Kind() != wire.Null {
			return errs.New(errs.Invalid, "custom_metadata: %q has a value that is no text", name)
		}
	}
	return in.check()
}

func (e *Engine) patchNamespace(ctx context.Context, req *route.Request, in namespacePatchIn) (namespaceOut, error) {
	n, err := e.cfg.NamespaceTable.Tune(ctx, req.Mount.Namespace, in.Path, func(have map[string]string) map[string]string {
		if !in.Metadata.Set {
			return have
		}
		notes := map[string]string{}
		if in.Metadata.Value != nil {
			maps.Copy(notes, have)
		}
		for name, v := range in.Metadata.Value.All() {
			if text, ok := v.Text(); ok {
				notes[name] = text
			} else {
				delete(notes, name)
			}
		}
		return notes
	})
	return n.out(), err
}

type namespaceDeletedOut struct {
	Status string `json:"status"`
}

// deleteNamespace answers when the namespace is gone for everybody. What was
// in it is ended meanwhile.
func (e *Engine) deleteNamespace(ctx context.Context, req *route.Request, in namespaceIn) (*namespaceDeletedOut, error) {
	there, err := e.cfg.NamespaceTable.Remove(ctx, req.Mount.Namespace, in.Path)
	if err != nil {
		return nil, err
	}
	if !there {
		req.Warn("requested namespace does not exist")
		return nil, nil
	}
	return &namespaceDeletedOut{Status: "in-progress"}, nil
}

var errNoSeal = errs.New(errs.Invalid, "a namespace has no seal of its own: all of the store is under one; sys/namespaces/api-lock closes a namespace's API")

type ownUnsealIn struct {
	namespaceIn
	Key   secret.String `json:"key"`
	Reset bool          `json:"reset"`
}

func refuseSealing(context.Context, *route.Request, namespaceIn) (route.None, error) {
	return route.None{}, errNoSeal
}

func refuseUnsealing(context.Context, *route.Request, ownUnsealIn) (route.None, error) {
	return route.None{}, errNoSeal
}

type lockOut struct {
	Key secret.String `json:"unlock_key"`
}

func (e *Engine) lockNamespace(ctx context.Context, req *route.Request, in namespaceIn) (lockOut, error) {
	key, err := e.cfg.NamespaceLocks.Lock(ctx, req.Mount.Namespace, in.Path)
	return lockOut{key}, err
}

type namespaceUnlockIn struct {
	namespaceIn
	Key secret.String `json:"unlock_key" doc:"What locking answered. Who has the root policy can leave it out."`
}

func (e *Engine) unlockNamespace(ctx context.Context, req *route.Request, in namespaceUnlockIn) (route.None, error) {
	return route.None{}, e.cfg.NamespaceLocks.Unlock(ctx, req.Mount.Namespace, in.Path, in.Key, req.Caller.Root)
}

// uiNamespaces names the namespaces below this one that the caller's policies
// grant something in. Without a token it is this one, the empty path.
func (e *Engine) uiNamespaces(ctx context.Context, req *route.Request, _ route.None) (route.Keys, error) {
	here := route.Keys{Keys: []string{""}}
	if req.Caller.Token.IsZero() {
		return here, nil
	}
	rights, err := e.cfg.Access.Of(ctx, req.Mount.Namespace, req.Caller.Token, req.Remote)
	if err != nil {
		return route.Keys{}, err
	}
	list, err := e.cfg.Namespaces.Below(ctx, req.Mount.Namespace, true)
	if err != nil {
		return route.Keys{}, err
	}
	var keys []string
	for _, n := range list {
		if rel := n.Path[len(req.Mount.NamespacePath):]; rights.Reaches(rel) {
			keys = append(keys, strings.TrimPrefix(rel, "/"))
		}
	}
	if len(keys) == 0 {
		return here, nil
	}
	return route.Keys{Keys: keys}, nil
}
