// Package leaseholdtest gives tests, the benchmarks and the demo a working
// server: the real binary, built from this tree, as a child process on a free
// port with its own directory. What it starts it also ends, and a test that
// dies takes its servers with it.
package leaseholdtest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Config says which server to start. The zero value is a durable server with
// a static seal, initialised and open.
type Config struct {
	Binary string // path of leasehold; empty: Build makes it
	Dir    string // holds configuration, data and log; empty: a temporary one, removed by Close
	Addr   string // host:port to listen on; empty: a free port of 127.0.0.1

	Dev     bool     // server -dev, in memory, with root token "root"
	InMem   bool     // storage "inmem" instead of "embedded"
	Shamir  bool     // no static seal: one share opens it after each start
	Seal    string   // another seal's block in place of the static one
	Closed  bool     // neither initialise nor unseal
	HCL     string   // more configuration, top level
	Args    []string // more flags of `leasehold server`
	Env     []string // more environment, k=v
	Timeout time.Duration
}

// Server is a running child process.
type Server struct {
	Addr string   // http://127.0.0.1:port
	Root string   // root token; empty if Closed
	Keys []string // unseal keys, of a Shamir seal
	Dir  string

	Recovery []string // recovery keys, of another one

	cfg     Config
	ownsDir bool
	http    *http.Client
	cmd     *exec.Cmd
	done    chan struct{} // closed when cmd has ended
}

// Start is Launch for a test: it fails the test instead of returning an error,
// prints the server's log if the test fails, and closes the server at its end.
func Start(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := Launch(t.Context(), cfg)
	if err != nil {
		t.Fatalf("starting the server: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the server's log:\n%s", tail(s.Log(), 60))
		}
		s.Close()
	})
	return s
}

// Launch starts a server and waits until it answers; unless it is to stay
// closed, until it is active.
func Launch(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	var err error
	if cfg.Binary == "" {
		if cfg.Binary, err = Build(ctx); err != nil {
			return nil, err
		}
	}
	if cfg.Binary, err = filepath.Abs(cfg.Binary); err != nil { // the process runs in its own directory
		return nil, err
	}
	s := &Server{cfg: cfg, Dir: cfg.Dir, http: &http.Client{Timeout: 60 * time.Second}}
	if s.Dir == "" {
		if s.Dir, err = os.MkdirTemp("", "leasehold-"); err != nil {
			return nil, err
		}
		s.ownsDir = true
	}
	// The port was free a moment ago; if somebody else was quicker, one more
	// try with another.
	for range 2 {
		if err = s.start(ctx); err == nil || cfg.Addr != "" || !strings.Contains(s.Log(), "address already in use") {
			break
		}
	}
	if err == nil && !cfg.Closed {
		err = s.open(ctx)
	}
	if err != nil {
		err = fmt.Errorf("%w; its log ends:\n%s", err, tail(s.Log(), 30))
		s.Close()
		return nil, err
	}
	return s, nil
}

// start runs the process and waits for its first answer.
func (s *Server) start(ctx context.Context) error {
	addr := s.cfg.Addr
	if addr == "" && s.Addr != "" {
		addr = strings.TrimPrefix(s.Addr, "http://") // a restart keeps its address
	} else if addr == "" {
		var err error
		if addr, err = freeAddr(); err != nil {
			return err
		}
	}
	args := []string{"server"}
	if s.cfg.Dev {
		s.Root = "root"
		args = append(args, "-dev", "-dev-root-token-id=root", "-dev-listen-address="+addr)
	} else {
		file, err := s.writeConfig(addr)
		if err != nil {
			return err
		}
		args = append(args, "-config="+file)
	}
	logf, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logf.Close()
	cmd := exec.Command(s.cfg.Binary, append(args, s.cfg.Args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, logf, logf
	cmd.Env = append(append(os.Environ(), "HOME="+s.Dir), s.cfg.Env...)
	// A process group of its own keeps Ctrl-C for the parent, which then
	// stops the server; and if the parent is killed the server goes too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	s.cmd, s.done = cmd, done
	url := "http://" + addr
	if err := s.await(ctx, func() bool { return s.status(ctx, url+"/v1/sys/seal-status") == http.StatusOK }); err != nil {
		return err
	}
	s.Addr = url
	return nil
}

// writeConfig writes the configuration file and the key of the static seal.
func (s *Server) writeConfig(addr string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "listener \"tcp\" {\n  address     = %q\n  tls_disable = true\n}\n", addr)
	fmt.Fprintf(&b, "api_addr = %q\n", "http://"+addr)
	if s.cfg.InMem {
		b.WriteString("storage \"inmem\" {}\n")
	} else {
		fmt.Fprintf(&b, "storage \"embedded\" {\n  path = %q\n}\n", filepath.Join(s.Dir, "data"))
	}
	if s.cfg.Seal != "" {
		b.WriteString(s.cfg.Seal + "\n")
	} else if !s.cfg.Shamir {
		key := filepath.Join(s.Dir, "seal.key")
		if _, err := os.Stat(key); errors.Is(err, os.ErrNotExist) {
			// A fixed key is fine: the data is as short-lived as the directory.
			text := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
			if err := os.WriteFile(key, []byte(text+"\n"), 0o600); err != nil {
				return "", err
			}
		}
		fmt.Fprintf(&b, "seal \"static\" {\n  current_key_id = \"1\"\n  current_key    = %q\n}\n", "file://"+key)
	}
	b.WriteString(s.cfg.HCL)
	file := filepath.Join(s.Dir, "leasehold.hcl")
	return file, os.WriteFile(file, []byte(b.String()), 0o600)
}

// initAnswer is what sys/init returns.
type initAnswer struct {
	Keys     []string `json:"keys"`
	Recovery []string `json:"recovery_keys"`
	Root     string   `json:"root_token"`
}

// open initialises a new server, gives a Shamir seal its share, and waits
// until the server is active.
func (s *Server) open(ctx context.Context) error {
	if !s.cfg.Dev && s.Root == "" {
		in := map[string]int{"recovery_shares": 1, "recovery_threshold": 1}
		if s.cfg.Shamir {
			in = map[string]int{"secret_shares": 1, "secret_threshold": 1}
		}
		var out initAnswer
		if err := s.Call(ctx, "PUT", "sys/init", "", in, &out); err != nil {
			return fmt.Errorf("initialising: %w", err)
		}
		s.Root, s.Keys, s.Recovery = out.Root, out.Keys, out.Recovery
	}
	if s.cfg.Shamir && len(s.Keys) > 0 {
		if err := s.Call(ctx, "PUT", "sys/unseal", "", map[string]string{"key": s.Keys[0]}, nil); err != nil {
			return fmt.Errorf("unsealing: %w", err)
		}
	}
	return s.await(ctx, func() bool { return s.status(ctx, s.Addr+"/v1/sys/health") == http.StatusOK })
}

// await polls until ok, the process ends, or the time is over.
func (s *Server) await(ctx context.Context, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok() {
			return nil
		}
		select {
		case <-s.done:
			return errors.New("the server ended")
		case <-ctx.Done():
			return fmt.Errorf("the server is not ready: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// status is the HTTP status of a GET, 0 if there was no answer.
func (s *Server) status(ctx context.Context, url string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// Call sends in as JSON to /v1/path and decodes the answer into out; either
// may be nil. A status outside 2xx is a *StatusError.
func (s *Server) Call(ctx context.Context, method, path, token string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.Addr+"/v1/"+path, body)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return &StatusError{Method: method, Path: path, Code: resp.StatusCode, Body: string(bytes.TrimSpace(raw))}
	}
	if out == nil || len(raw) == 0 {
		return nil
	}
	return json.Unmarshal(raw, out)
}

// StatusError is an answer outside 2xx.
type StatusError struct {
	Method, Path string
	Code         int
	Body         string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: HTTP %d: %s", e.Method, e.Path, e.Code, e.Body)
}

// PID of the server process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Signal sends the process a signal.
func (s *Server) Signal(sig os.Signal) error { return s.cmd.Process.Signal(sig) }

// Ended is closed when the process has ended; ExitCode is then its code, -1
// after a signal.
func (s *Server) Ended() <-chan struct{} { return s.done }

// ExitCode of the process that has ended.
func (s *Server) ExitCode() int { return s.cmd.ProcessState.ExitCode() }

// Kill is kill -9, and waits until the process is gone.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// Stop asks the server to end (SIGTERM) and waits at most 20 s.
func (s *Server) Stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		s.Kill()
	}
}

// Restart starts the process again after Kill or Stop, at the same address,
// and waits until it is active.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	if s.cfg.Closed {
		return nil
	}
	return s.open(ctx)
}

// RestartClosed is Restart for a server that is not to be opened, or opens by
// itself: it waits for the first answer only.
func (s *Server) RestartClosed(ctx context.Context) error { return s.start(ctx) }

// Close stops the server and removes its directory if Launch made it.
func (s *Server) Close() {
	if s.cmd != nil {
		s.Stop()
	}
	if s.ownsDir {
		_ = os.RemoveAll(s.Dir)
	}
}

func (s *Server) logPath() string { return filepath.Join(s.Dir, "server.log") }

// Log is what the server has written to stdout and stderr.
func (s *Server) Log() string {
	b, _ := os.ReadFile(s.logPath())
	return string(b)
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// tail is the last n lines.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
