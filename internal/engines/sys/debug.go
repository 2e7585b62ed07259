package sys

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
)

// InFlight is a request that has not been answered yet.
type InFlight struct {
	ID     string
	Start  time.Time
	Path   string
	Method string
	Remote string
}

// LogLevels are how much is logged, by logger.
type LogLevels interface {
	Levels() map[string]string
	// SetLevel sets one logger's level, or all with an empty name. A level or
	// name that does not exist is errs.Invalid.
	SetLevel(name, level string) error
	// ResetLevel goes back to what the configuration says.
	ResetLevel(name string) error
}

func (e *Engine) debugRoutes(t *route.Table) {
	route.Read(t, "in-flight-req", e.inFlight, route.InForm(route.Bare), route.Doc("List the requests that are being served."))
	route.Read(t, "host-info", e.hostInfo, route.Doc("Tell about the machine."))

	route.Read(t, "loggers", e.levels, route.Doc("List the loggers and their levels."))
	route.Read(t, "loggers/{name}", e.level, route.Doc("Read a logger's level."))
	route.Write(t, "loggers", e.setLevel, route.Doc("Set the level of all loggers."))
	route.Write(t, "loggers/{name}", e.setLevel, route.Doc("Set a logger's level."))
	route.Delete(t, "loggers", e.resetLevel, route.Doc("Set all levels back to the configuration's."))
	route.Delete(t, "loggers/{name}", e.resetLevel, route.Doc("Set a level back to the configuration's."))

}

type inFlightOut struct {
	Start  time.Time `json:"start_time"`
	Remote string    `json:"client_remote_address"`
	Path   string    `json:"request_path"`
	Method string    `json:"request_method"`
}

func (e *Engine) inFlight(context.Context, *route.Request, route.None) (map[string]inFlightOut, error) {
	out := map[string]inFlightOut{}
	for _, r := range e.cfg.InFlight() {
		out[r.ID] = inFlightOut{Start: r.Start, Remote: r.Remote, Path: r.Path, Method: r.Method}
	}
	return out, nil
}

func (e *Engine) levels(context.Context, *route.Request, route.None) (map[string]string, error) {
	return e.cfg.Levels.Levels(), nil
}

type loggerIn struct {
	Name  string `json:"name" doc:"Name of the logger."`
	Level string `json:"level" doc:"trace, debug, info, warn or error."`
}

func (e *Engine) level(_ context.Context, _ *route.Request, in loggerIn) (map[string]string, error) {
	all := e.cfg.Levels.Levels()
	l, ok := all[in.Name]
	if !ok {
		return nil, errs.New(errs.NotFound, "logger %q not found: there are %v", in.Name, slices.Sorted(maps.Keys(all)))
	}
	return map[string]string{in.Name: l}, nil
}

func (e *Engine) setLevel(_ context.Context, _ *route.Request, in loggerIn) (route.None, error) {
	if in.Level == "" {
		return route.None{}, errs.New(errs.Invalid, "level is required")
	}
	return route.None{}, e.cfg.Levels.SetLevel(in.Name, in.Level)
}

func (e *Engine) resetLevel(_ context.Context, _ *route.Request, in loggerIn) (route.None, error) {
	return route.None{}, e.cfg.Levels.ResetLevel(in.Name)
}
