package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/leasehold/leasehold/internal/cli"
)

// devArgs run a dev server whose root token is "root".
var devArgs = []string{"-dev", "-dev-root-token-id=root", "-dev-no-store-token", "-dev-listen-address=127.0.0.1:0"}

// running is "leasehold server" inside the test process.
type running struct {
	addr   string
	log    *serverOutput
	cancel context.CancelFunc
	done   chan int
}

// launch runs "leasehold server" and answers once it listens.
func launch(getenv func(string) string, args ...string) (*running, error) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{log: &serverOutput{listening: make(chan string, 1)}, cancel: cancel, done: make(chan int, 1)}
	go func() {
		r.done <- cli.Run(ctx, cli.Config{Stdout: r.log, Stderr: r.log, Getenv: getenv}, append([]string{"server"}, args...))
	}()
	select {
	case r.addr = <-r.log.listening:
		return r, nil
	case code := <-r.done:
		cancel()
		return nil, fmt.Errorf("the server ended with %d before it listened:\n%s", code, r.log)
	}
}

// stop ends the server as SIGTERM does.
func (r *running) stop() error {
	r.cancel()
	if code := <-r.done; code != 0 {
		return fmt.Errorf("the server ended with %d, want 0:\n%s", code, r.log)
	}
	return nil
}

// serverOutput keeps what a server prints, and tells where it listens once the
// banner is complete.
type serverOutput struct {
	listening chan string

	mu   sync.Mutex
	text bytes.Buffer
	told bool
}

var listenerLine = regexp.MustCompile(`Listener 1: tcp \(addr: "([^"]+)", tls: "(enabled|disabled)"\)`)

func (o *serverOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	if !o.told && bytes.Contains(o.text.Bytes(), []byte("server started!")) {
		o.told = true
		m := listenerLine.FindSubmatch(o.text.Bytes())
		scheme := "http://"
		if string(m[2]) == "enabled" {
			scheme = "https://"
		}
		o.listening <- scheme + string(m[1])
	}
	return len(p), nil
}

func (o *serverOutput) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// servers finds the server of a running script.
var servers sync.Map

// startServer is the script command "server": a dev server with root token
// "root" without flags, else what the flags say; $WORK in its configuration is
// the script's directory. VAULT_ADDR leads to it, and it is stopped at the
// script's end if the script does not with "stop".
func startServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: server [FLAG …]")
	}
	dev := len(args) == 0
	if dev {
		args = devArgs
	}
	args = slices.Clone(args)
	for i, a := range args {
		if file, ok := strings.CutPrefix(a, "-config="); ok {
			file = ts.MkAbs(file)
			text := strings.ReplaceAll(ts.ReadFile(file), "$WORK", ts.Getenv("WORK"))
			ts.Check(os.WriteFile(file, []byte(text), 0o600))
			args[i] = "-config=" + file
		}
	}
	r, err := launch(ts.Getenv, args...)
	ts.Check(err)
	servers.Store(ts, r)
	ts.Defer(func() {
		if _, on := servers.LoadAndDelete(ts); on {
			ts.Check(r.stop())
		}
	})
	ts.Setenv("VAULT_ADDR", r.addr)
	if dev {
		ts.Setenv("VAULT_TOKEN", "root")
	}
}

// stopServer is the script command "stop [LOG]": it ends the server, and
// writes what it printed into LOG.
func stopServer(ts *testscript.TestScript, neg bool, args []string) {
	v, on := servers.LoadAndDelete(ts)
	if neg || !on || len(args) > 1 {
		ts.Fatalf("usage: stop [LOG], after server")
	}
	r := v.(*running)
	ts.Check(r.stop())
	if len(args) == 1 {
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(r.log.String()), 0o644))
	}
}

// pick is the program "pick FILE FIELD [N]": a field of the JSON in FILE, or
// the N-th item of a list there.
func pick() {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, "pick:", err)
		os.Exit(1)
	}
	b, err := os.ReadFile(os.Args[1])
	if err != nil {
		fail(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		fail(err)
	}
	var text string
	if len(os.Args) < 4 {
		err = json.Unmarshal(all[os.Args[2]], &text)
	} else {
		var list []string
		n, cerr := strconv.Atoi(os.Args[3])
		if err = errors.Join(cerr, json.Unmarshal(all[os.Args[2]], &list)); err == nil {
			text = list[n-1]
		}
	}
	if err != nil {
		fail(err)
	}
	fmt.Println(text)
}
