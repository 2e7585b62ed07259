package sys

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

func (e *Engine) internalRoutes(t *route.Table) {
	route.Read(t, "internal/counters/tokens", e.tokenCounter, route.Doc("Count the service tokens."))
	route.Read(t, "internal/counters/entities", e.entityCounter, route.Doc("Count the entities."))
	e.clientCountRoutes(t)
	route.Read(t, "internal/inspect/router/{tag}", e.inspectRouter, route.Sudo(), route.Doc("List the mounts as requests find them: by root, uuid, accessor or storage."))
	route.Read(t, "internal/ui/feature-flags", featureFlags, route.Unauth(), route.Doc("List switches of the UI."))
	route.Read(t, "internal/specs/openapi", e.openAPI, route.InForm(route.Bare), route.Unauth(), route.Doc("Describe the API as an OpenAPI document."))
	route.Write(t, "internal/specs/openapi", e.openAPI, route.InForm(route.Bare), route.Unauth(), route.Doc("Describe the API as an OpenAPI document."))
	route.List(t, "version-history", e.versionHistory, route.RootOnly(), route.Doc("List the versions that have run on this store."))
}

type total struct {
	Total int64 `json:"total"`
}

type tokenCounterOut struct {
	Counters struct {
		Tokens total `json:"service_tokens"`
	} `json:"counters"`
}

func (e *Engine) tokenCounter(ctx context.Context, req *route.Request, _ route.None) (out tokenCounterOut, err error) {
	out.Counters.Tokens.Total, err = e.cfg.Tokens(ctx, req.Mount.Namespace)
	return out, err
}

type entityCounterOut struct {
	Counters struct {
		Entities total `json:"entities"`
	} `json:"counters"`
}

func (e *Engine) entityCounter(ctx context.Context, req *route.Request, _ route.None) (out entityCounterOut, err error) {
	out.Counters.Entities.Total, err = e.cfg.Entities(ctx, req.Mount.Namespace)
	return out, err
}

type inspectIn struct {
	Tag string `json:"tag" doc:"root, uuid, accessor or storage."`
}

type routeEntry struct {
	Path          string `json:"mount_path"`
	Namespace     string `json:"mount_namespace"`
	Type          string `json:"mount_type"`
	UUID          string `json:"uuid"`
	Accessor      string `json:"accessor"`
	StoragePrefix string `json:"storage_prefix"`
	Tainted       bool   `json:"tainted"` // never: a mount that is ending is found no more
}

// inspectRouter lists the namespace's mounts in the order of what they are
// found by. Ours are in one table, whatever they are found by.
func (e *Engine) inspectRouter(ctx context.Context, req *route.Request, in inspectIn) (map[string][]routeEntry, error) {
	by := map[string]func(routeEntry) string{
		"root":     func(r routeEntry) string { return r.Path },
		"uuid":     func(r routeEntry) string { return r.UUID },
		"accessor": func(r routeEntry) string { return r.Accessor },
		"storage":  func(r routeEntry) string { return r.StoragePrefix },
	}[in.Tag]
	if by == nil {
		return nil, errs.New(errs.Invalid, "there is no tag %q: only root, uuid, accessor and storage", in.Tag)
	}
	mounts, err := e.cfg.Mounts.List(ctx, req.Mount.Namespace)
	if err != nil {
		return nil, err
	}
	list := make([]routeEntry, len(mounts))
	for i, m := range mounts {
		list[i] = routeEntry{
			Path: m.Path, Namespace: req.Mount.NamespacePath, Type: m.Type, UUID: m.ID, Accessor: m.Accessor, StoragePrefix: m.Storage,
		}
	}
	slices.SortFunc(list, func(a, b routeEntry) int { return strings.Compare(by(a), by(b)) })
	return map[string][]routeEntry{in.Tag: list}, nil
}

type featureFlagsOut struct {
	Flags []string `json:"feature_flags"`
}

func featureFlags(context.Context, *route.Request, route.None) (featureFlagsOut, error) {
	return featureFlagsOut{}, nil
}

// versionRow notes when a version first ran on this store, under
// version/<version>. Version 1.
type versionRow struct {
	V         int       `json:"v"`
	Version   string    `json:"version"`
	Installed time.Time `json:"at"`
	Built     string    `json:"built,omitempty"`
}

const versionPrefix = "version/"

// noteVersion stores the version that runs, once.
func (e *Engine) noteVersion(ctx context.Context) error {
	v := e.cfg.Version
	row := versionRow{V: 1, Version: v.Own, Installed: e.cfg.Now().Round(0), Built: v.built()}
	known := false
	err := e.store.View(ctx, func(view storage.View) error {
		b, err := view.Get(versionPrefix + v.Own)
		known = b != nil
		return err
	})
	if err != nil || known {
		return err
	}
	_, err = e.store.Update(ctx, func(tx storage.Tx) error {
		return tx.Put(versionPrefix+v.Own, wire.Marshal(&row))
	})
	return err
}

type versionHistoryOut struct {
	Keys []string               `json:"keys"`
	Info map[string]versionInfo `json:"key_info"`
}

type versionInfo struct {
	Installed time.Time `json:"timestamp_installed"`
	Built     string    `json:"build_date"`
	Previous  *string   `json:"previous_version"`
}

func (e *Engine) versionHistory(ctx context.Context, _ *route.Request, _ route.None) (versionHistoryOut, error) {
	var rows []versionRow
	var bad error
	err := e.store.View(ctx, func(v storage.View) error {
		return v.Scan(versionPrefix, storage.PrefixEnd(versionPrefix), 0, func(_ string, b []byte) bool {
			var row versionRow
			bad = wire.Unmarshal(b, &row)
			rows = append(rows, row)
			return bad == nil
		})
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return versionHistoryOut{}, err
	}
	slices.SortFunc(rows, func(a, b versionRow) int {
		if d := a.Installed.Compare(b.Installed); d != 0 {
			return d
		}
		return strings.Compare(a.Version, b.Version)
	})
	out := versionHistoryOut{Info: map[string]versionInfo{}}
	for i, r := range rows {
		info := versionInfo{Installed: r.Installed, Built: r.Built}
		if i > 0 {
			info.Previous = &rows[i-1].Version
		}
		out.Keys = append(out.Keys, r.Version)
		out.Info[r.Version] = info
	}
	if len(out.Keys) == 0 {
		return out, errs.Gone
	}
	return out, nil
}
