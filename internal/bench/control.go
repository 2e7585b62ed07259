package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/leasehold/leasehold/internal/bench/bare"
)

// bareCommand is the control of sys/health: a net/http handler, in a process
// of its own, that answers the same bytes without doing anything for them.
// Beside it stands that of Transit: net/http, encoding/json and the same
// cryptography.
func bareCommand(ctx context.Context, fs *flag.FlagSet, args []string) error {
	status := fs.Int("status", 200, "status to answer")
	kind := fs.String("type", "application/json", "content type to answer")
	if err := fs.Parse(args); err != nil {
		return err
	}
	body, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	transit, err := bare.Transit()
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			transit.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", *kind)
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(*status)
		_, _ = w.Write(body)
	})}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	fmt.Println("http://" + l.Addr().String())
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// control is a running bareCommand.
type control struct {
	*client
	cmd    *exec.Cmd
	verify []byte // a request to verify a signature of its own
}

// startBare fetches sys/health once and starts the control that repeats it.
func startBare(ctx context.Context, server *client) (*control, error) {
	body, err := server.raw(ctx, "GET", "sys/health", "", nil)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "bare")
	cmd.Stdin, cmd.Stderr = strings.NewReader(string(body)), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the control did not start: %w", err)
	}
	return &control{client: newClient(strings.TrimSpace(line)), cmd: cmd}, nil
}

func (b *control) stop() {
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
}
