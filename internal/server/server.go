// Package server makes every part and joins them. It is the one place that
// knows all engines, stores, devices and listeners; each of them is added here
// by a line.
package server

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	"github.com/leasehold/leasehold/internal/auth/approle"
	"github.com/leasehold/leasehold/internal/auth/cert"
	"github.com/leasehold/leasehold/internal/auth/jwt"
	"github.com/leasehold/leasehold/internal/auth/kubernetes"
	"github.com/leasehold/leasehold/internal/auth/ldap"
	"github.com/leasehold/leasehold/internal/auth/userpass"
	"github.com/leasehold/leasehold/internal/config"
	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/cubbyhole"
	"github.com/leasehold/leasehold/internal/engines/database"
	"github.com/leasehold/leasehold/internal/engines/identity"
	"github.com/leasehold/leasehold/internal/engines/identity/mfa"
	"github.com/leasehold/leasehold/internal/engines/kv"
	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/engines/transit"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/embedded"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/storage/traced"
	"github.com/leasehold/leasehold/internal/trace"
)

// Config is what New needs.
type Config struct {
	Conf    *config.Config
	Version string         // ours; "" takes what the build recorded
	Log     *slog.Logger   // nil: nothing is logged
	Level   *slog.LevelVar // of Log; Hup changes it. Nil: of none
	// ReopenLog lets go of the log's file for a new one; nil: there is none.
	ReopenLog func() error
	// Reload reads the configuration again for Hup; nil keeps what is.
	Reload func() (*config.Config, error)
}

// Server is a server with its parts joined.
type Server struct {
	cfg       Config
	conf      *config.Config
	store     storage.Backend
	tracer    *trace.Tracer // nil: nothing is traced
	core      *core.Core
	wrappers  []seal.Wrapper // the keys that open the store without people
	metrics   *figures
	monitors  monitors
	listeners []*listener
	requests  atomic.Pointer[slog.Level] // at which answered requests are logged; nil: they are not
}

// New opens the store, makes the parts and binds the addresses. The server is
// sealed; Run opens it where it has a key of its own.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	if cfg.Version == "" {
		cfg.Version = BuildVersion()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Level == nil {
		cfg.Level = new(slog.LevelVar)
	}
	s := &Server{cfg: cfg, conf: cfg.Conf}
	s.cfg.Log = slog.New(s.monitors.over(cfg.Log.Handler()))
	cfg = s.cfg
	s.setRequestLevel(cfg.Conf.LogRequestsLevel)
	if s.wrappers, err = wrappersOf(cfg.Conf.Seal, cfg.Log); err != nil {
		return nil, err
	}
	if s.store, err = openStore(cfg); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.store.Close(), s.tracer.Close())
		}
	}()
	if s.tracer, err = tracerOf(ctx, cfg); err != nil {
		return nil, err
	}
	boot, opened := route.NewTable(), route.NewTable()
	engines := map[string]engine.Factory{
		"auth/approle":     approle.New,
		"auth/userpass":    userpass.New,
		"auth/cert":        cert.New,
		"auth/jwt":         jwt.New,
		"auth/kubernetes":  kubernetes.New,
		"auth/ldap":        ldap.New,
		"auth/oidc":        jwt.New,
		"secret/cubbyhole": cubbyhole.New,
		"secret/database":  database.New,
		"secret/kv":        kv.New,
		"secret/transit":   transit.New,
	}
	s.core = core.New(core.Config{
		Store: s.traced(s.store), Engines: engines, Boot: boot, Opened: opened, Seal: core.SealConfig{Wrappers: s.wrappers}, Devices: makeDevice,
		DefaultTTL: cfg.Conf.DefaultLeaseTTL, MaxTTL: cfg.Conf.MaxLeaseTTL, MaxGap: cfg.Conf.MaxRestartGap, Log: cfg.Log,
		Lanes: lane.Limits(cfg.Conf.Lanes), Lockouts: lockoutsOf(cfg.Conf.Lockouts),
	})
	engines["secret/identity"] = identities(s.core, cfg.Conf.APIAddr)
	s.addServerEngines(boot, engines)
	sys.OpenedRoutes(opened, s.metrics)
	for _, l := range cfg.Conf.Listeners {
		ln := &listener{Listener: l, handler: s.handler(l)}
		if err := ln.open(ctx); err != nil {
			s.closeListeners()
			return nil, err
		}
		s.listeners = append(s.listeners, ln)
	}
	return s, nil
}

func (s *Server) closeListeners() {
	for _, l := range s.listeners {
		_ = l.ln.Close()
	}
}

// identities are those of one namespace; their aliases name its mounts.
func identities(c *core.Core, address string) engine.Factory {
	return identity.Factory(identity.Config{
		Address: address,
		Mount: func(ctx context.Context, ns, accessor string) (identity.Mount, bool, error) {
			m, ok, err := c.MountOf(ctx, ns, accessor)
			return identity.Mount{Path: m.Path, Type: m.Type, Local: m.Local}, ok, err
		},
		Logins: func(ctx context.Context, ns string) (all []mfa.Login, err error) {
			mounts, err := c.Mounts(ctx, ns, core.ClassAuth)
			for _, m := range mounts {
				all = append(all, mfa.Login{Accessor: m.Accessor, Type: m.Type})
			}
			return all, err
		},
	})
}

func openStore(cfg Config) (storage.Backend, error) {
	if cfg.Conf.Storage.Kind == "inmem" {
		return mem.New(), nil
	}
	return embedded.Open(embedded.Options{
		Path: cfg.Conf.Storage.Path, CacheBytes: cfg.Conf.Storage.CacheSize, Log: cfg.Log,
	})
}

func lockoutsOf(conf map[string]config.Lockout) map[string]core.Lockout {
	out := make(map[string]core.Lockout, len(conf))
	for kind, l := range conf {
		out[kind] = core.Lockout(l)
	}
	return out
}

// tracerOf sends traces where the configuration or the environment says so,
// and is nil where neither does.
func tracerOf(ctx context.Context, cfg Config) (*trace.Tracer, error) {
	c := cfg.Conf.Tracing
	return trace.New(ctx, trace.Config{Endpoint: c.Endpoint, Service: c.Service, Ratio: c.Ratio, Version: cfg.Version, Log: cfg.Log})
}

// traced shows the store's writes in traces, where there are any.
func (s *Server) traced(store storage.Backend) storage.Backend {
	if s.tracer == nil {
		return store
	}
	return traced.New(store)
}

// Core is the heart of the server, for dev mode and tests.
func (s *Server) Core() *core.Core { return s.core }

// Hup reads certificates and the levels of the log again and makes the log and
// the audit devices open their files anew. What fails is logged, and the old
// one stays in use.
func (s *Server) Hup() {
	notify(reloading())
	defer notify("READY=1")
	if s.cfg.ReopenLog != nil {
		if err := s.cfg.ReopenLog(); err != nil {
			s.cfg.Log.Error("the old log file stays in use", "error", err)
		}
	}
	s.reloadCertificates()
	if s.cfg.Reload != nil {
		conf, err := s.cfg.Reload()
		if err != nil {
			s.cfg.Log.Error("the configuration cannot be read; the log levels stay", "error", err)
		} else {
			setLevel(s.cfg.Level, conf.LogLevel)
			s.setRequestLevel(conf.LogRequestsLevel)
		}
	}
	if err := s.core.ReopenAudit(); err != nil {
		s.cfg.Log.Error("reopening audit devices", "error", err)
	}
	s.cfg.Log.Info("reloaded")
}

func (s *Server) reloadCertificates() {
	for _, l := range s.listeners {
		if l.certs == nil {
			continue
		}
		if err := l.certs.load(); err != nil {
			s.cfg.Log.Error("the old certificate stays in use", "listener", l.Address, "error", err)
		}
	}
}
