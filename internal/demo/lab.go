package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
	"github.com/leasehold/leasehold/internal/testenv"
)

// facts are what the lab tells its parent when it is ready.
type facts struct {
	Addr      string // of the server
	Root      string // its root token
	ServerPID int
	Dir       string // of the server: configuration, data, log
	Postgres  string // host:port
	Superuser string // connection URL for database shop
	Password  string // of the role leasehold, which the engine uses
	Version   string // of PostgreSQL
	Failed    string // why it did not get ready
}

// runLab is the lab's process. It starts the parts, prints its facts as one
// line, and removes everything when stdin ends or ctx does. The word "keep" on
// stdin makes it stay until a signal.
func runLab(ctx context.Context, binary string, stdin io.Reader, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with stdin
		in := bufio.NewScanner(stdin)
		for in.Scan() {
			if in.Text() == "keep" {
				letGo()
				return
			}
		}
		cancel() // the parent has gone
	}()

	var f facts
	pg, srv, err := f.start(ctx, binary)
	defer func() {
		if srv != nil {
			srv.Close()
		}
		if pg != nil {
			_ = pg.Stop()
		}
	}()
	if err != nil {
		f.Failed = err.Error()
	}
	if err := json.NewEncoder(stdout).Encode(f); err != nil || f.Failed != "" {
		return err
	}
	<-ctx.Done()
	return nil
}

func (f *facts) start(ctx context.Context, binary string) (*testenv.PG, *leaseholdtest.Server, error) {
	pg, err := testenv.StartPostgres(ctx, testenv.Config{Durable: true})
	if err != nil {
		return nil, nil, err
	}
	f.Postgres, f.Password = pg.Addr(), "leasehold-"+pg.Password
	f.Superuser = pg.Super("shop")
	if f.Version, err = furnish(ctx, pg, f.Password); err != nil {
		return pg, nil, fmt.Errorf("furnishing the database: %w", err)
	}
	srv, err := leaseholdtest.Launch(ctx, leaseholdtest.Config{Binary: binary})
	if err != nil {
		return pg, nil, fmt.Errorf("starting the server: %w", err)
	}
	f.Addr, f.Root, f.ServerPID, f.Dir = srv.Addr, srv.Root, srv.PID(), srv.Dir
	return pg, srv, nil
}

// letGo gives up the terminal, so that nobody waits for a lab that stays.
func letGo() {
	if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err == nil {
		for fd := 1; fd <= 2; fd++ {
			_ = syscall.Dup3(int(null.Fd()), fd, 0)
		}
	}
}

// lab is the parent's handle on the lab's process.
type lab struct {
	facts
	cmd   *exec.Cmd
	stdin io.WriteCloser
	done  chan error
}

func startLab(ctx context.Context, binary string) (*lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if binary != "" {
		if binary, err = filepath.Abs(binary); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(self, "-role=lab", "-server="+binary)
	cmd.Stderr = os.Stderr
	// Ctrl-C is for the parent alone, which then ends the lab in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	l := &lab{cmd: cmd, done: make(chan error, 1)}
	if l.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	go func() { // ends with the process, which stop waits for
		line, err := bufio.NewReader(out).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &l.facts)
		}
		ready <- err
		l.done <- cmd.Wait()
	}()
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil && l.Failed != "" {
		err = errors.New(l.Failed)
	}
	if err != nil {
		return nil, errors.Join(err, l.stop())
	}
	return l, nil
}

// stop ends the lab and waits until everything is removed.
func (l *lab) stop() error {
	_ = l.stdin.Close()
	select {
	case err := <-l.done:
		return err
	case <-time.After(30 * time.Second):
		_ = l.cmd.Process.Kill()
		return errors.New("the lab did not end by itself and was killed")
	}
}

// keep lets the lab outlive this process.
func (l *lab) keep() error {
	_, err := io.WriteString(l.stdin, "keep\n")
	return err
}

func (l *lab) pid() int { return l.cmd.Process.Pid }
