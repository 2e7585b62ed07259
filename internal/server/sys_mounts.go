package server

import (
	"context"
	"strings"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engines/sys"
)

// mountTable is core's mount table as package sys wants it.
type mountTable struct{ c *core.Core }

var (
	_ sys.Mounts     = mountTable{}
	_ sys.MountTable = mountTable{}
)

func (t mountTable) out(m core.Mount) sys.Mount {
	def, most := t.c.TTLs(m)
	return sys.Mount{
		Path: m.Path, Type: m.Type, ID: m.ID, Accessor: m.Accessor, Storage: m.Slice(), Description: m.Description, Options: m.Options,
		Local: m.Local, SealWrap: m.SealWrap, Own: m.Protected(), DefaultTTL: def, MaxTTL: most,
		Config: sys.MountConfig{
			DefaultTTL: m.Config.DefaultTTL, MaxTTL: m.Config.MaxTTL, ForceNoCache: m.Config.ForceNoCache,
			ListingVisibility: m.Config.ListingVisibility, AuditRequestKeys: m.Config.AuditRequestKeys,
			AuditResponseKeys: m.Config.AuditResponseKeys, PassthroughHeaders: m.Config.PassthroughHeaders,
			AllowedHeaders: m.Config.AllowedHeaders, TokenType: m.Config.TokenType, PluginVersion: m.Config.PluginVersion,
			LockoutThreshold: m.Config.LockoutThreshold, LockoutDuration: m.Config.LockoutDuration,
			LockoutCounterReset: m.Config.LockoutCounterReset, LockoutDisable: m.Config.LockoutDisable,
		},
	}
}

// into carries what an operator may change back to the stored entry.
func into(m *core.Mount, s sys.Mount) {
	m.Description, m.Options = s.Description, s.Options
	m.Config = core.MountConfig{
		DefaultTTL: s.Config.DefaultTTL, MaxTTL: s.Config.MaxTTL, ForceNoCache: s.Config.ForceNoCache,
		ListingVisibility: s.Config.ListingVisibility, AuditRequestKeys: s.Config.AuditRequestKeys,
		AuditResponseKeys: s.Config.AuditResponseKeys, PassthroughHeaders: s.Config.PassthroughHeaders,
		AllowedHeaders: s.Config.AllowedHeaders, TokenType: s.Config.TokenType, PluginVersion: s.Config.PluginVersion,
		LockoutThreshold: s.Config.LockoutThreshold, LockoutDuration: s.Config.LockoutDuration,
		LockoutCounterReset: s.Config.LockoutCounterReset, LockoutDisable: s.Config.LockoutDisable,
	}
}

func (t mountTable) List(ctx context.Context, ns string) ([]sys.Mount, error) {
	list, err := t.c.Mounts(ctx, ns, "")
	out := make([]sys.Mount, len(list))
	for i, m := range list {
		out[i] = t.out(m)
	}
	return out, err
}

func (t mountTable) At(ctx context.Context, ns, path string) (sys.Mount, bool, error) {
	m, ok, err := t.c.MountAt(ctx, ns, path, false)
	if err != nil || !ok {
		return sys.Mount{}, false, err
	}
	return t.out(m), true, nil
}

func (t mountTable) Types(class string) (types []string) {
	for _, typ := range t.c.EngineTypes(class) {
		if t.c.HasEngine(class, typ) {
			types = append(types, typ)
		}
	}
	return types
}

func (t mountTable) Add(ctx context.Context, ns string, s sys.Mount) error {
	m := &core.Mount{Namespace: ns, Path: s.Path, Class: core.ClassSecret, Type: s.Type, Local: s.Local, SealWrap: s.SealWrap}
	if strings.HasPrefix(s.Path, "auth/") {
		m.Class = core.ClassAuth
	}
	into(m, s)
	return t.c.AddMount(ctx, m)
}

func (t mountTable) Remove(ctx context.Context, ns, path string) error {
	return t.c.RemoveMount(ctx, ns, path)
}

func (t mountTable) Tune(ctx context.Context, ns, path string, change func(*sys.Mount) error) error {
	return t.c.TuneMount(ctx, ns, path, func(m *core.Mount) error {
		s := t.out(*m)
		if err := change(&s); err != nil {
			return err
		}
		into(m, s)
		return nil
	})
}

func (t mountTable) Move(ctx context.Context, ns, from, to string) error {
	return t.c.MoveMount(ctx, ns, from, to)
}
