package sys

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// Every engine is part of the server; the catalog lists them as clients expect
// plugins to be listed.
func (e *Engine) pluginRoutes(t *route.Table) {
	sudo := route.Sudo()
	route.Read(t, "plugins/catalog", e.catalog, route.Doc("List the engines that this server has."))
	route.List(t, "plugins/catalog/{type}", e.listPlugins, sudo, route.Doc("List the engines of a kind: auth, secret or database."))
	route.Read(t, "plugins/catalog/{type}/{name}", e.readPlugin, sudo, route.Doc("Read about an engine."))
	route.Write(t, "plugins/catalog/{type}/{name}", refusePlugin, sudo, route.Doc("Register a plugin: not possible."))
	route.Delete(t, "plugins/catalog/{type}/{name}", forgetPlugin, sudo, route.Doc("Forget a plugin that was registered: there are none."))
	// Older paths, without the kind.
	route.Read(t, "plugins/catalog/{name}", e.readPlugin, sudo, route.Doc("Read about an engine of any kind."))
	route.Write(t, "plugins/catalog/{name}", refusePlugin, sudo, route.Doc("Register a plugin: not possible."))
	route.Delete(t, "plugins/catalog/{name}", forgetPlugin, sudo, route.Doc("Forget a plugin that was registered: there are none."))
	route.Write(t, "plugins/reload/backend", e.reloadPlugin, route.Doc("Reload the engines of mounts: they are part of the server."))
}

var pluginKinds = []string{classAuth, "database", classSecret}

func (e *Engine) pluginsOf(kind string) []string {
	if kind == "database" {
		return e.cfg.Databases
	}
	return e.cfg.Mounts.Types(kind)
}

func (e *Engine) pluginVersion() string { return "v" + e.cfg.Version.Own + "+builtin.leasehold" }

type catalogOut struct {
	Auth     []string        `json:"auth"`
	Database []string        `json:"database"`
	Secret   []string        `json:"secret"`
	Detailed []pluginSummary `json:"detailed"`
}

type pluginSummary struct {
	Name        string `json:"name"`
	Type        string `json:"type"`
	Builtin     bool   `json:"builtin"`
	Version     string `json:"version"`
	Deprecation string `json:"deprecation_status"`
}

func (e *Engine) catalog(context.Context, *route.Request, route.None) (catalogOut, error) {
	out := catalogOut{Auth: e.pluginsOf(classAuth), Database: e.pluginsOf("database"), Secret: e.pluginsOf(classSecret)}
	for _, kind := range pluginKinds {
		for _, name := range e.pluginsOf(kind) {
			out.Detailed = append(out.Detailed, pluginSummary{
				Name: name, Type: kind, Builtin: true, Version: e.pluginVersion(), Deprecation: "supported",
			})
		}
	}
	return out, nil
}

type pluginIn struct {
	Type string `json:"type" doc:"auth, secret or database."`
	Name string `json:"name" doc:"Name of the engine."`
}

func (e *Engine) listPlugins(_ context.Context, _ *route.Request, in pluginIn) (route.Keys, error) {
	if !slices.Contains(pluginKinds, in.Type) {
		return route.Keys{}, errs.New(errs.Invalid, "%q is not a supported plugin type: there are auth, secret and database", in.Type)
	}
	return route.ListOf(e.pluginsOf(in.Type))
}

type pluginOut struct {
	Args        []string `json:"args" wire:"null"`
	Builtin     bool     `json:"builtin"`
	Command     string   `json:"command"`
	Name        string   `json:"name"`
	SHA256      string   `json:"sha256"`
	Version     string   `json:"version"`
	Deprecation string   `json:"deprecation_status"`
}

// readPlugin looks for an engine among those of its kind, or among all.
func (e *Engine) readPlugin(_ context.Context, _ *route.Request, in pluginIn) (pluginOut, error) {
	for _, kind := range pluginKinds {
		if (in.Type == "" || in.Type == kind) && slices.Contains(e.pluginsOf(kind), in.Name) {
			return pluginOut{Builtin: true, Name: in.Name, Version: e.pluginVersion(), Deprecation: "supported"}, nil
		}
	}
	return pluginOut{}, errs.Gone
}

// newPluginIn has what Vault and OpenBao take, for those who ask what there is.
type newPluginIn struct {
	pluginIn
	Args     wire.CSV `json:"args"`
	Command  string   `json:"command"`
	Env      wire.CSV `json:"env"`
	SHA256   string   `json:"sha256"`
	Version  string   `json:"version"`
	OCI      bool     `json:"oci"`
	OCIImage string   `json:"oci_image"`
}

func refusePlugin(context.Context, *route.Request, newPluginIn) (route.None, error) {
	return route.None{}, errs.New(errs.Invalid, "external plugins are not supported: every engine is part of the server")
}

// forgetPlugin has nothing to forget: an engine stays what it is, whether it
// was named or not.
func forgetPlugin(context.Context, *route.Request, pluginIn) (route.None, error) {
	return route.None{}, nil
}

type reloadIn struct {
	Plugin string   `json:"plugin" doc:"Name of the engine whose mounts to reload."`
	Mounts wire.CSV `json:"mounts" doc:"Paths of the mounts to reload, in place of plugin."`
	Scope  string   `json:"scope" doc:"global, or nothing: one server is all there are."`
}

type reloadOut struct {
	ID string `json:"reload_id"`
}

// reloadPlugin answers that it is done: an engine that is part of the server
// has no process that could be started anew, and its settings are read from
// the store.
func (e *Engine) reloadPlugin(ctx context.Context, req *route.Request, in reloadIn) (reloadOut, error) {
	if in.Scope != "" && in.Scope != "global" {
		return reloadOut{}, errs.New(errs.Invalid, "reload scope must be omitted or \"global\"")
	}
	switch {
	case in.Plugin == "" && len(in.Mounts) == 0:
		return reloadOut{}, errs.New(errs.Invalid, "one of plugin or mounts must be provided")
	case in.Plugin != "" && len(in.Mounts) > 0:
		return reloadOut{}, errs.New(errs.Invalid, "plugin and mounts cannot be set at the same time")
	case in.Plugin != "":
		if !slices.ContainsFunc(pluginKinds, func(kind string) bool { return slices.Contains(e.pluginsOf(kind), in.Plugin) }) {
			return reloadOut{}, errs.New(errs.Invalid, "there is no engine %q; GET sys/plugins/catalog lists them", in.Plugin)
		}
	}
	for _, path := range in.Mounts {
		want := strings.TrimSuffix(path, "/") + "/"
		if m, ok, err := e.cfg.Mounts.At(ctx, req.Mount.Namespace, want); err != nil || !ok || m.Path != want {
			return reloadOut{}, cmp.Or(err, error(errs.New(errs.Invalid, "no mount at %q", want)))
		}
	}
	req.Warn("every engine is part of the server: there was nothing to load anew")
	return reloadOut{ID: newUUID(e.cfg.Rand)}, nil
}
