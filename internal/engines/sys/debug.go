package sys

import (
	"cmp"
	"context"
	"io"
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

// Monitor lets somebody follow the log.
type Monitor interface {
	// Check refuses a level or format that there is not, as errs.Invalid.
	Check(level, format string) error
	// Follow writes what is logged from now on, at a level or above it, until
	// ctx ends or w fails. Formats are "standard", for people, and "json".
	Follow(ctx context.Context, level, format string, w io.Writer) error
}

func (e *Engine) debugRoutes(t *route.Table) {
	route.Read(t, "in-flight-req", e.inFlight, route.InForm(route.Bare), route.Doc("List the requests that are being served."))
	route.Read(t, "host-info", e.hostInfo, route.Doc("Tell about the machine."))

	route.Read(t, "monitor", e.monitor, route.Doc("Follow the log: an answer that goes on."))
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

type monitorIn struct {
	Level  string `json:"log_level" doc:"trace, debug, info, warn or error; info without."`
	Format string `json:"log_format" doc:"standard or json; standard without."`
}

// monitor goes on until the client leaves, or the server is sealed.
func (e *Engine) monitor(_ context.Context, _ *route.Request, in monitorIn) (route.Raw, error) {
	level, format := cmp.Or(in.Level, "info"), cmp.Or(in.Format, "standard")
	if err := e.cfg.Monitor.Check(level, format); err != nil {
		return route.Raw{}, err
	}
	raw := route.Raw{ContentType: plainText}
	if format == "json" {
		raw.ContentType = "application/json"
	}
	raw.Stream = func(ctx context.Context, w io.Writer) error {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		defer context.AfterFunc(e.ctx, stop)()
		return e.cfg.Monitor.Follow(ctx, level, format, w)
	}
	return raw, nil
}
