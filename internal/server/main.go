package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/leasehold/leasehold/internal/config"
)

// Args is what the command line says about a server to run.
type Args struct {
	Config []string // files and directories of configuration, in order

	Dev              bool   // in memory, unsealed, with a root token
	DevRootTokenID   string // "" makes one
	DevListenAddress string // "" is 127.0.0.1:8200
	DevNoKV          bool   // no kv store at secret/
	DevTLS           bool   // with a certificate made at start
	DevTLSCertDir    string // where that certificate is written; "" is a temporary directory

	LogLevel  string // "" leaves it to the configuration; so with the next two
	LogFormat string
	LogFile   string

	// StoreToken keeps the dev server's root token for later commands; nil
	// when it is not wanted.
	StoreToken func(token string) error

	Stdout io.Writer
	Stderr io.Writer
}

// Main runs `leasehold server` until ctx ends and gives the exit code.
func Main(ctx context.Context, version string, a Args) int {
	if err := run(ctx, version, a); err != nil {
		fmt.Fprintf(a.Stderr, "Error: %v\n", err)
		return 1
	}
	return 0
}

// CheckConfig reads a configuration as the server would, and says what is
// wrong with it.
func CheckConfig(paths []string) (warnings []string, err error) {
	conf, warned, err := config.Load(paths...)
	for _, w := range warned {
		warnings = append(warnings, w.String())
	}
	if err == nil {
		err = conf.Check()
	}
	if err == nil {
		_, err = wrappersOf(conf.Seal, nil)
	}
	if err != nil {
		return warnings, err
	}
	var errs []error
	for _, l := range conf.Listeners {
		if l.TLS == nil {
			continue
		}
		warning, err := checkTLS(l.TLS)
		if warning != "" {
			warnings = append(warnings, warning)
		}
		errs = append(errs, err)
	}
	return warnings, errors.Join(errs...)
}

func run(ctx context.Context, version string, a Args) error {
	// From the first moment on: a signal that nobody expects ends the process.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	// A limit on the size of files (ulimit -f, LimitFSIZE=) shall be an error
	// of the write that meets it, which store and audit can answer for.
	signal.Ignore(syscall.SIGXFSZ)

	load := func() (*config.Config, []config.Warning, error) {
		conf, warned, err := config.Load(a.Config...)
		if err != nil {
			return nil, nil, err
		}
		if a.LogLevel != "" {
			conf.LogLevel = a.LogLevel
		}
		if a.LogFormat != "" {
			conf.LogFormat = a.LogFormat
		}
		if a.LogFile != "" {
			conf.LogFile = a.LogFile
		}
		return conf, warned, nil
	}
	conf, warned, err := load()
	if err != nil {
		return err
	}
	if a.Dev {
		unused, cleanup, err := devConfig(conf, &a)
		if err != nil {
			return err
		}
		defer cleanup()
		warned = append(warned, unused...)
	}
	if err := conf.Check(); err != nil {
		return err
	}
	out := a.Stderr
	reopen := func() error { return nil }
	if conf.LogFile != "" {
		f, err := openLog(conf.LogFile)
		if err != nil {
			return err
		}
		defer f.Close()
		out, reopen = tee{out, f}, f.Reopen
	}
	level := new(slog.LevelVar)
	setLevel(level, conf.LogLevel)
	log := newLogger(out, conf.LogFormat, level)
	for _, w := range warned {
		log.Warn("configuration: " + w.String())
	}
	limitMemory(conf.Storage)
	if err := slackenTimers(); err != nil {
		log.Debug("threads wake up more often than they need to: their timer slack stays as it is", "error", err)
	}
	s, err := New(ctx, Config{
		Conf: conf, Version: version, Log: log, Level: level, ReopenLog: reopen,
		Reload: func() (*config.Config, error) { c, _, err := load(); return c, err },
	})
	if err != nil {
		return err
	}
	hctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-hup:
				s.Hup()
			case <-hctx.Done():
				return
			}
		}
	}()
	defer func() { stop(); <-done }()
	if a.Dev {
		return s.runDev(ctx, a)
	}
	s.banner(a.Stdout)
	return s.Run(ctx)
}

// banner says what was started, as Vault's does.
func (s *Server) banner(w io.Writer) {
	fmt.Fprintf(w, "==> Leasehold server configuration:\n\n")
	row := func(name, value string) { fmt.Fprintf(w, "%22s: %s\n", name, value) }
	if s.conf.APIAddr != "" {
		row("Api Address", s.conf.APIAddr)
	}
	for i, l := range s.listeners {
		tls := "disabled"
		if l.TLS != nil {
			tls = "enabled"
		}
		row(fmt.Sprintf("Listener %d", i+1), fmt.Sprintf("%s (addr: %q, tls: %q)", l.Network, l.ln.Addr(), tls))
	}
	row("Log Level", s.conf.LogLevel)
	storage := s.conf.Storage.Kind
	if s.conf.Storage.Path != "" {
		storage += " at " + s.conf.Storage.Path
	}
	row("Storage", storage)
	row("Seal", s.conf.Seal.Kind)
	row("Version", "Leasehold "+s.cfg.Version+", Vault API "+s.conf.ReportedVersion)
	fmt.Fprintf(w, "\n==> Leasehold server started! Log data will stream in below:\n\n")
}

// displayAddr is an address that a client on this machine can use.
func displayAddr(addr string) string {
	for _, any := range []string{"0.0.0.0", "[::]"} {
		if rest, ok := strings.CutPrefix(addr, any); ok {
			return "127.0.0.1" + rest
		}
	}
	return addr
}
