// Package server makes every part and joins them. It is the one place that
// knows all engines, stores, devices and listeners; each of them is added here
// by a line.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/httpapi"
	"github.com/leasehold/leasehold/internal/storage"
)

// Config is a server to run, checked and typed.
type Config struct {
	Store     storage.Backend // owned by the server from New on
	Listeners []*Listener     // their Handler is filled by New
	Seal      core.SealConfig
	// APIVersion is the level of Vault's API that clients' version gates see.
	APIVersion string
	Version    string // ours
	// StorageType is what seal-status calls the store.
	StorageType string
	// DefaultTTL and MaxTTL of leases; zero takes 768h.
	DefaultTTL, MaxTTL time.Duration
	MaxGap             time.Duration // see core.Config
	MaxRequestTime     time.Duration // of a request; zero takes 90 s
	MaxRequestBody     int64         // zero takes 32 MiB
	APIAddr            string
	PIDFile            string
	ClusterName        string
	OpenMetrics        bool
	Raw                bool // sys/raw answers
	Sanitized          func() []byte
	Level              *slog.LevelVar
	Log                *slog.Logger
	// Reload reads the log level of the configuration again; nil keeps it.
	Reload func() (level string, err error)
}

// drain is how long a stopping server lets requests finish.
const drain = 4 * time.Second

// Server is a server with its parts joined.
type Server struct {
	cfg  Config
	core *core.Core
}

// Core is the heart of the server, for dev mode and tests.
func (s *Server) Core() *core.Core { return s.core }

// Run answers requests until ctx ends, then refuses new ones, lets those
// inside finish, makes the rest due and closes the store, all within five
// seconds.
func (s *Server) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.cfg.Store.Close()) }()
	if s.cfg.PIDFile != "" {
		if err := os.WriteFile(s.cfg.PIDFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
			return fmt.Errorf("writing pid_file: %w", err)
		}
		defer os.Remove(s.cfg.PIDFile)
	}
	notify("READY=1")
	g, gctx := errgroup.WithContext(ctx)
	for _, l := range s.cfg.Listeners {
		g.Go(func() error { return l.serve(gctx, drain, s.cfg.Log) })
	}
	g.Go(func() error {
		<-gctx.Done()
		notify("STOPPING=1")
		s.core.Stop(drain)
		return nil
	})
	return g.Wait()
}

// Listen binds every address, so that a caller can say where before Run.
func (s *Server) Listen(ctx context.Context) error {
	for i, l := range s.cfg.Listeners {
		if err := l.open(ctx); err != nil {
			for _, other := range s.cfg.Listeners[:i] {
				_ = other.ln.Close()
			}
			return err
		}
	}
	return nil
}

// Hup reads certificates and the log level again and makes audit devices open
// their files anew. What fails is logged, and the old one stays in use.
func (s *Server) Hup() {
	notify("RELOADING=1")
	defer notify("READY=1")
	for _, l := range s.cfg.Listeners {
		if l.certs == nil {
			continue
		}
		if err := l.certs.load(); err != nil {
			s.cfg.Log.Error("the old certificate stays in use", "listener", l.Address, "error", err)
		}
	}
	if s.cfg.Reload != nil {
		level, err := s.cfg.Reload()
		if err != nil {
			s.cfg.Log.Error("the configuration cannot be read; the log level stays", "error", err)
		} else {
			setLevel(s.cfg.Level, level)
		}
	}
	if err := s.core.ReopenAudit(); err != nil {
		s.cfg.Log.Error("reopening audit devices", "error", err)
	}
	s.cfg.Log.Info("reloaded")
}

func (s *Server) handler(l *Listener) *httpapi.Handler {
	return httpapi.New(httpapi.Config{
		Core: s.core, MaxBody: s.cfg.MaxRequestBody, MaxDuration: s.cfg.MaxRequestTime,
	})
}
