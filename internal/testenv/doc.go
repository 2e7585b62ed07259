// Package testenv starts real servers for tests, the demo and the lessons:
// throw-away, on free ports, in temporary directories, gone when their user is.
//
// A server is never one that happened to be running. What is missing on the
// machine is installed from the distribution's packages, saying so first, and
// no service is left running. Servers die with the process that started them
// (Pdeathsig), also when that is killed.
package testenv

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
)

// nobody is who servers run as when we are root: PostgreSQL refuses uid 0.
const nobody = 65534

// serverDir makes a directory that a server running as nobody can use. It is
// not one of testing's, whose parents only their owner may enter.
func serverDir() (string, error) {
	dir, err := os.MkdirTemp("", "leasehold-srv-")
	if err != nil {
		return "", fmt.Errorf("making a server's directory: %w", err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			return "", fmt.Errorf("giving a server its directory: %w", errors.Join(err, os.RemoveAll(dir)))
		}
	}
	return dir, nil
}

// serverCommand is a command that works in dir, as nobody when we are root,
// and is killed when this process dies.
func serverCommand(dir, name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "HOME="+dir)
	// A process group of its own, so that Ctrl-C at the terminal reaches
	// only us: we decide in which order things stop.
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if os.Geteuid() == 0 {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return c
}

// freePort asks the kernel for a port nobody uses at the moment.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("looking for a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// Main runs a package's tests and then stops the servers they shared. Use it
// from TestMain; an interrupt stops them too.
func Main(m *testing.M) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with the process
		<-stop
		stopShared()
		os.Exit(130)
	}()
	code := m.Run()
	stopShared()
	os.Exit(code)
}
