// Package server makes every part and joins them. It is the one place that
// knows all engines, stores, devices and listeners; each of them is added here
// by a line.
package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leasehold/leasehold/internal/config"
	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/cubbyhole"
	"github.com/leasehold/leasehold/internal/engines/database"
	"github.com/leasehold/leasehold/internal/engines/kv"
	"github.com/leasehold/leasehold/internal/httpapi"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/embedded"
	"github.com/leasehold/leasehold/internal/storage/mem"
)

// drain is how long a stopping server lets requests finish.
const drain = 4 * time.Second

// Config is what New needs.
type Config struct {
	Conf    *config.Config
	Version string // ours; "" takes what the build recorded
	Log     *slog.Logger
	Level   *slog.LevelVar // of Log; Hup changes it
	// Reload reads the configuration again for Hup; nil keeps what is.
	Reload func() (*config.Config, error)
}

// Server is a server with its parts joined.
type Server struct {
	cfg       Config
	conf      *config.Config
	store     storage.Backend
	core      *core.Core
	metrics   *metrics
	listeners []*listener
}

// New opens the store, makes the parts and binds the addresses. The server is
// sealed; Run opens it where it has a key of its own.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	if cfg.Version == "" {
		cfg.Version = BuildVersion()
	}
	s := &Server{cfg: cfg, conf: cfg.Conf}
	wrappers, err := wrappersOf(cfg.Conf.Seal)
	if err != nil {
		return nil, err
	}
	if s.store, err = openStore(cfg); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.store.Close())
		}
	}()
	boot := route.NewTable()
	engines := map[string]engine.Factory{
		"secret/cubbyhole": cubbyhole.New,
		"secret/database":  database.New,
		"secret/identity":  noRoutes,
		"secret/kv":        kv.New,
	}
	s.core = core.New(core.Config{
		Store: s.store, Engines: engines, Boot: boot, Seal: core.SealConfig{Wrappers: wrappers}, Devices: makeDevice,
		DefaultTTL: cfg.Conf.DefaultLeaseTTL, MaxTTL: cfg.Conf.MaxLeaseTTL, MaxGap: cfg.Conf.MaxRestartGap, Log: cfg.Log,
	})
	s.addServerEngines(boot, engines)
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

// noRoutes keeps the place of an engine that is still to come.
func noRoutes(context.Context, engine.Env) (engine.Engine, error) { return empty{}, nil }

type empty struct{}

func (empty) Routes(*route.Table) {}

func openStore(cfg Config) (storage.Backend, error) {
	if cfg.Conf.Storage.Kind == "inmem" {
		return mem.New(), nil
	}
	return embedded.Open(embedded.Options{
		Path: cfg.Conf.Storage.Path, CacheBytes: cfg.Conf.Storage.CacheSize, Log: cfg.Log,
	})
}

// wrappersOf are the keys that open the store without people.
func wrappersOf(conf config.Seal) ([]seal.Wrapper, error) {
	if conf.Kind != "static" {
		return nil, nil
	}
	sc := seal.StaticConfig{CurrentKeyID: conf.Current.ID, PreviousKeyID: conf.Previous.ID}
	for _, k := range []struct {
		key  config.Key
		into *string
	}{{conf.Current, &sc.CurrentKey}, {conf.Previous, &sc.PreviousKey}} {
		if k.key.IsZero() {
			continue
		}
		b, err := k.key.Load()
		if err != nil {
			return nil, err
		}
		*k.into = hex.EncodeToString(b.Reveal())
		b.Wipe()
	}
	w, err := seal.NewStatic(sc)
	if err != nil {
		return nil, err
	}
	return []seal.Wrapper{w}, nil
}

// Core is the heart of the server, for dev mode and tests.
func (s *Server) Core() *core.Core { return s.core }

// Run opens the server where it can, answers requests until ctx ends, then
// refuses new ones, lets those inside finish, makes the rest due and closes
// the store, all within five seconds.
func (s *Server) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.store.Close()) }()
	defer s.closeListeners()
	if s.conf.PIDFile != "" {
		if err := os.WriteFile(s.conf.PIDFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
			return fmt.Errorf("writing pid_file: %w", err)
		}
		defer os.Remove(s.conf.PIDFile)
	}
	opened, err := s.core.AutoUnseal(ctx)
	if err != nil {
		// Not fatal: people's shares still open it, and health says sealed.
		s.cfg.Log.Error("the server stays sealed", "error", err)
	} else if !opened && len(s.conf.Seal.Kind) > 0 && s.conf.Seal.Kind != seal.Shamir {
		s.cfg.Log.Info("the store is not initialised or was not sealed with this key; run `leasehold operator init`, or unseal with shares once")
	}
	notify("READY=1")
	g, gctx := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		g.Go(func() error { return l.serve(gctx, drain, s.cfg.Log) })
	}
	g.Go(func() error {
		<-gctx.Done()
		notify("STOPPING=1")
		s.cfg.Log.Info("stopping")
		s.core.Stop(drain)
		return nil
	})
	return g.Wait()
}

// Hup reads certificates and the log level again and makes audit devices open
// their files anew. What fails is logged, and the old one stays in use.
func (s *Server) Hup() {
	notify("RELOADING=1")
	defer notify("READY=1")
	s.reloadCertificates()
	if s.cfg.Reload != nil {
		conf, err := s.cfg.Reload()
		if err != nil {
			s.cfg.Log.Error("the configuration cannot be read; the log level stays", "error", err)
		} else {
			setLevel(s.cfg.Level, conf.LogLevel)
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

func (s *Server) handler(l config.Listener) *httpapi.Handler {
	d := l.MaxRequestDuration
	if d == 0 {
		d = s.conf.MaxRequestDuration
	}
	return httpapi.New(httpapi.Config{
		Core: metered{s.core, s.metrics}, MaxBody: l.MaxRequestSize, MaxDuration: d,
		CORS: func() *httpapi.CORS {
			c := s.core.CORS()
			if !c.Enabled {
				return nil
			}
			return &httpapi.CORS{Origins: c.Origins, Headers: c.Headers, Credentials: c.Credentials}
		},
	})
}
