package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Config says which PostgreSQL to start. The zero value is the machine's own,
// fast and forgetful.
type Config struct {
	// Version is a major version from npm (16, 17, 18). Zero takes what the
	// machine has, and installs the distribution's where it has none.
	Version int
	// Durable keeps fsync on and every setting at its default: for
	// benchmarks and for tests that kill the server.
	Durable bool
	// Settings are added to the server's command line, as name=value.
	Settings []string
	// Out is told what is being installed. Nil means standard error.
	Out io.Writer
}

// PG is a private PostgreSQL server. Its superuser is "root".
type PG struct {
	Port     int
	Password string // the superuser's
	Dir      string // data in Dir/pg, socket in Dir
	Bin      string // folder of its programs

	cfg Config

	mu      sync.Mutex
	cmd     *exec.Cmd
	exited  chan struct{} // closed when cmd has exited
	log     *os.File
	stopped bool
}

// Superuser is the name of every server's superuser.
const Superuser = "root"

// StartPostgres installs what is missing, makes a database cluster, starts it
// and returns when a login works. The caller calls Stop.
func StartPostgres(ctx context.Context, cfg Config) (*PG, error) {
	if cfg.Out == nil {
		cfg.Out = os.Stderr
	}
	var bin string
	var err error
	if cfg.Version == 0 {
		bin, err = debianPostgres(cfg.Out)
	} else {
		bin, err = npmPostgres(cfg.Version)
	}
	if err != nil {
		return nil, err
	}
	dir, err := serverDir()
	if err != nil {
		return nil, err
	}
	p := &PG{Dir: dir, Bin: bin, Password: "root-" + strconv.FormatInt(time.Now().UnixNano(), 36), cfg: cfg}
	if err := p.initdb(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	// The port is free when we ask and may be taken when the server does.
	for attempt := 0; ; attempt++ {
		if p.Port, err = freePort(); err == nil {
			err = p.Start(ctx)
		}
		if err == nil {
			return p, nil
		}
		if attempt == 1 || ctx.Err() != nil {
			return nil, errors.Join(err, p.Stop())
		}
	}
}

func (p *PG) initdb(ctx context.Context) error {
	pw := filepath.Join(p.Dir, "pw")
	if err := os.WriteFile(pw, []byte(p.Password+"\n"), 0o600); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(pw, nobody, nobody); err != nil {
			return err
		}
	}
	c := serverCommand(p.Dir, filepath.Join(p.Bin, "initdb"), "-D", filepath.Join(p.Dir, "pg"), "-A", "scram-sha-256",
		"-U", Superuser, "--pwfile="+pw, "--no-sync", "-E", "UTF8", "--locale=C")
	if said, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, said)
	}
	return ctx.Err()
}

// Start starts the server again after Kill, on the same port and data, and
// returns when a login works.
func (p *PG) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	args := []string{"-D", filepath.Join(p.Dir, "pg"), "-p", strconv.Itoa(p.Port), "-k", p.Dir, "-c", "listen_addresses=127.0.0.1"}
	if !p.cfg.Durable {
		args = append(args, "-c", "fsync=off", "-c", "shared_buffers=16MB")
	}
	for _, s := range p.cfg.Settings {
		args = append(args, "-c", s)
	}
	log, err := os.OpenFile(filepath.Join(p.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	c := serverCommand(p.Dir, filepath.Join(p.Bin, "postgres"), args...)
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return errors.Join(fmt.Errorf("starting postgres: %w", err), log.Close())
	}
	exited := make(chan struct{})
	go func() { // ends when the server does, which haltLocked waits for
		_ = c.Wait()
		close(exited)
	}()
	p.cmd, p.exited, p.log, p.stopped = c, exited, log, false
	if err := p.waitReadyLocked(ctx); err != nil {
		said := p.Log()
		return errors.Join(fmt.Errorf("%w\nits log ends:\n%s", err, said), p.haltLocked(syscall.SIGQUIT))
	}
	return nil
}

func (p *PG) waitReadyLocked(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		conn, err := pgx.Connect(ctx, p.DSN(Superuser, p.Password, "postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		last = err
		select {
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL is not ready: %w", last)
		case <-p.exited:
			return fmt.Errorf("PostgreSQL stopped while starting: %w", last)
		case <-tick.C:
		}
	}
}

// Addr is the server's host:port.
func (p *PG) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Port)) }

// DSN is a connection URL for a user.
func (p *PG) DSN(user, password, db string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: p.Addr(), Path: "/" + db, RawQuery: "sslmode=disable"}
	return u.String()
}

// Super is the superuser's connection URL for a database.
func (p *PG) Super(db string) string { return p.DSN(Superuser, p.Password, db) }

// Psql is the path of psql, or an error that says how to get it.
func (p *PG) Psql() (string, error) {
	if own := filepath.Join(p.Bin, "psql"); executable(own) {
		return own, nil
	}
	if path, err := exec.LookPath("psql"); err == nil {
		return path, nil
	}
	return "", errors.New("psql is missing; run: sudo apt-get install -y postgresql-client")
}

// PID is the server's main process, for counting its CPU time; 0 while it
// does not run.
func (p *PG) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Log is the end of the server's log.
func (p *PG) Log() string {
	b, err := os.ReadFile(filepath.Join(p.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	if len(b) > 4096 {
		b = b[len(b)-4096:]
	}
	return string(b)
}

// Kill ends the server at once, as a crash does: no connection is told, nothing
// is flushed. Start brings it back.
func (p *PG) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.haltLocked(syscall.SIGQUIT)
}

// Stop ends the server and removes its data. It may be called twice.
func (p *PG) Stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return nil
	}
	err := p.haltLocked(syscall.SIGINT)
	p.stopped = true
	return errors.Join(err, os.RemoveAll(p.Dir))
}

func (p *PG) haltLocked(sig syscall.Signal) error {
	if p.cmd == nil {
		return nil
	}
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		err = errors.Join(err, p.cmd.Process.Kill())
		<-p.exited
	}
	p.cmd = nil
	return errors.Join(err, p.log.Close())
}
