package server

import (
	"context"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/secret"
)

// namespaces are core's as package sys wants them.
type namespaces struct{ c *core.Core }

var (
	_ sys.Namespaces     = namespaces{}
	_ sys.NamespaceTable = namespaces{}
	_ sys.NamespaceLocks = namespaces{}
)

func namespaceOut(n core.Namespace) sys.Namespace {
	return sys.Namespace{ID: n.ID, UUID: n.UUID, Path: n.Path, Metadata: n.Metadata, Locked: n.Lock != ""}
}

func (n namespaces) Below(ctx context.Context, ns string, deep bool) ([]sys.Namespace, error) {
	list, err := n.c.Namespaces(ctx, ns, deep)
	out := make([]sys.Namespace, len(list))
	for i, one := range list {
		out[i] = namespaceOut(one)
	}
	return out, err
}

func (n namespaces) At(ctx context.Context, ns, path string) (sys.Namespace, bool, error) {
	one, ok, err := n.c.NamespaceAt(ctx, ns, path)
	return namespaceOut(one), ok, err
}

func (n namespaces) Add(ctx context.Context, ns, path string, metadata map[string]string) (sys.Namespace, error) {
	one, err := n.c.AddNamespace(ctx, ns, path, metadata)
	return namespaceOut(one), err
}

func (n namespaces) Tune(ctx context.Context, ns, path string, change func(map[string]string) map[string]string) (sys.Namespace, error) {
	one, err := n.c.TuneNamespace(ctx, ns, path, func(n *core.Namespace) error {
		n.Metadata = change(n.Metadata)
		return nil
	})
	return namespaceOut(one), err
}

func (n namespaces) Remove(ctx context.Context, ns, path string) (bool, error) {
	return n.c.RemoveNamespace(ctx, ns, path)
}

func (n namespaces) Lock(ctx context.Context, ns, path string) (secret.String, error) {
	return n.c.LockNamespace(ctx, ns, path)
}

func (n namespaces) Unlock(ctx context.Context, ns, path string, key secret.String, whatever bool) error {
	return n.c.UnlockNamespace(ctx, ns, path, key, whatever)
}

// namedIn is the namespace in which something is looked up that carries the id
// of its own in its name: that one, if it is below the one that asks. Else it
// is looked up where it was asked for, and not found.
func namedIn(ctx context.Context, c *core.Core, ns, id string) (string, error) {
	if id == "" || id == ns {
		return ns, nil
	}
	_, below, err := c.NamespaceBelow(ctx, ns, id)
	if err != nil || !below {
		return ns, err
	}
	return id, nil
}
