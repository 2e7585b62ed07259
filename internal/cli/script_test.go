package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/leasehold/leasehold/internal/cli"
	"github.com/leasehold/leasehold/internal/server"
)

// TestMain lets scripts run "leasehold" as a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"pick":     pick,
		"xdg-open": browse,
		"leasehold": func() {
			os.Exit(cli.Run(context.Background(), cli.Config{
				Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: "1.2.3", Server: fakeServer,
			}, os.Args[1:]))
		},
	})
}

// fakeServer prints what it was asked to do.
func fakeServer(_ context.Context, _ string, a server.Args) int {
	fmt.Fprintf(a.Stdout, "config=%q dev=%v token=%q listen=%q nokv=%v tls=%v dir=%q level=%q format=%q file=%q store=%v\n",
		a.Config, a.Dev, a.DevRootTokenID, a.DevListenAddress, a.DevNoKV, a.DevTLS, a.DevTLSCertDir, a.LogLevel, a.LogFormat, a.LogFile, a.StoreToken != nil)
	if a.StoreToken != nil && a.DevRootTokenID != "" {
		if err := a.StoreToken(a.DevRootTokenID); err != nil {
			fmt.Fprintln(a.Stderr, err)
			return 1
		}
	}
	return 0
}

// TestScripts runs the scripts whose server replays recorded answers: they
// fix what the commands send and print, whatever the server is.
func TestScripts(t *testing.T) { runScripts(t, "testdata") }

func runScripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			e.Setenv("HOME", home)
			return os.Mkdir(home, 0o755)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"replay": replay,
			"sent":   sent,
			"server": startServer,
			"stop":   stopServer,
			"oidc":   provider,
		},
	})
}

// recorder answers from a script's file and keeps what came.
type recorder struct {
	mu      sync.Mutex
	answers map[string][]answer // by "METHOD /path?query"; the last one repeats
	got     bytes.Buffer
}

type answer struct {
	status int
	body   string
}

// replay FILE starts a server that gives the answers in FILE and points
// VAULT_ADDR at it. The file holds blocks divided by empty lines: a request
// line, then a status with the body on the following lines.
func replay(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: replay FILE")
	}
	r := &recorder{answers: map[string][]answer{}}
	for _, block := range strings.Split(ts.ReadFile(args[0]), "\n\n") {
		lines := strings.SplitN(strings.TrimSpace(block), "\n", 3)
		if len(lines) < 2 {
			continue
		}
		status, err := strconv.Atoi(strings.TrimSpace(lines[1]))
		ts.Check(err)
		a := answer{status: status}
		if len(lines) == 3 {
			a.body = lines[2]
		}
		r.answers[lines[0]] = append(r.answers[lines[0]], a)
	}
	srv := httptest.NewServer(r)
	ts.Defer(srv.Close)
	ts.Setenv("VAULT_ADDR", srv.URL)
	ts.Setenv("ADDR", srv.URL)
	recorders.Store(ts, r)
}

// recorders finds the recorder of a running script.
var recorders sync.Map

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := req.Method + " " + strings.TrimPrefix(req.URL.RequestURI(), "/v1/")
	body, _ := io.ReadAll(req.Body)
	fmt.Fprintf(&r.got, "%s", line)
	for _, h := range []string{"Token", "Namespace", "Wrap-Ttl", "Mfa"} {
		if v := strings.Join(req.Header.Values("X-Vault-"+h), ","); v != "" {
			fmt.Fprintf(&r.got, " %s=%s", strings.ToLower(h), v)
		}
	}
	if len(body) > 0 {
		fmt.Fprintf(&r.got, " %s", body)
	}
	r.got.WriteByte('\n')
	list := r.answers[line]
	if len(list) == 0 {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"errors":["the script has no answer to %s"]}`, line)
		return
	}
	if len(list) > 1 {
		r.answers[line] = list[1:]
	}
	w.WriteHeader(list[0].status)
	io.WriteString(w, list[0].body)
}

// sent FILE writes the requests since the last time into FILE.
func sent(ts *testscript.TestScript, neg bool, args []string) {
	v, ok := recorders.Load(ts)
	if neg || len(args) != 1 || !ok {
		ts.Fatalf("usage: sent FILE, after replay")
	}
	r := v.(*recorder)
	r.mu.Lock()
	defer r.mu.Unlock()
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), r.got.Bytes(), 0o644))
	r.got.Reset()
}

// lines is a text's lines.
func lines(s string) []string {
	var out []string
	for sc := bufio.NewScanner(strings.NewReader(s)); sc.Scan(); {
		out = append(out, sc.Text())
	}
	return out
}
