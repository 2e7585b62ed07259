package sys

import (
	"context"
	"slices"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
)

// Every engine is part of the server; the catalog lists them as clients expect
// plugins to be listed.
func (e *Engine) pluginRoutes(t *route.Table) {
	sudo := route.Sudo()
	route.Read(t, "plugins/catalog", e.catalog, route.Doc("List the engines that this server has."))
	route.List(t, "plugins/catalog/{type}", e.listPlugins, sudo, route.Doc("List the engines of a kind: auth, secret or database."))
	route.Read(t, "plugins/catalog/{type}/{name}", e.readPlugin, sudo, route.Doc("Read about an engine."))
	route.Write(t, "plugins/catalog/{type}/{name}", refusePlugin, sudo, route.Doc("Register a plugin: not possible."))
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

func (e *Engine) readPlugin(_ context.Context, _ *route.Request, in pluginIn) (pluginOut, error) {
	if !slices.Contains(pluginKinds, in.Type) || !slices.Contains(e.pluginsOf(in.Type), in.Name) {
		return pluginOut{}, errs.Gone
	}
	return pluginOut{Builtin: true, Name: in.Name, Version: e.pluginVersion(), Deprecation: "supported"}, nil
}

func refusePlugin(context.Context, *route.Request, pluginIn) (route.None, error) {
	return route.None{}, errs.New(errs.Invalid, "external plugins are not supported: every engine is part of the server")
}
