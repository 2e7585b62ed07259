package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/leasehold/leasehold/internal/cli"
	"github.com/leasehold/leasehold/internal/testenv/oidcprovider"
)

// browse is the program "xdg-open URL": it goes there as a browser does.
func browse() {
	status, page, err := oidcprovider.Browser{}.Visit(context.Background(), os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "xdg-open:", err)
		os.Exit(3)
	}
	fmt.Fprintln(os.Stderr, status, page)
}

// providers finds the provider of a running script.
var providers sync.Map

// provider is the script command "oidc": "start" starts an OpenID Connect
// provider and names it in OIDC_URL, OIDC_CLIENT and OIDC_SECRET; "refuse
// ERROR" answers logins with an error; "token FILE" writes a token of its own.
func provider(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: oidc start | refuse ERROR | token FILE")
	}
	if args[0] == "start" {
		p := oidcprovider.New(oidcprovider.Config{})
		ts.Defer(p.Close)
		p.User(map[string]any{"sub": "u-1", "email": "ann@example.org", "groups": []string{"dev"}}, nil)
		providers.Store(ts, p)
		ts.Setenv("OIDC_URL", p.URL)
		ts.Setenv("OIDC_CLIENT", oidcprovider.ClientID)
		ts.Setenv("OIDC_SECRET", oidcprovider.ClientSecret)
		program, err := exec.LookPath("leasehold")
		ts.Check(err)
		ts.Setenv("LEASEHOLD", program)
		ts.Setenv("OLDPATH", ts.Getenv("PATH"))
		return
	}
	v, on := providers.Load(ts)
	if !on || len(args) != 2 {
		ts.Fatalf("usage: oidc refuse ERROR | token FILE, after oidc start")
	}
	p := v.(*oidcprovider.Provider)
	switch args[0] {
	case "refuse":
		p.Refuse(args[1])
	case "token":
		now := time.Now()
		token := p.Token(map[string]any{"iss": p.URL, "sub": "ci", "aud": "leasehold", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()})
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(token+"\n"), 0o600))
	default:
		ts.Fatalf("oidc knows no %q", args[0])
	}
}

// reader hands on what is written, line by line, as somebody who looks at a
// terminal sees it.
type reader struct {
	mu   sync.Mutex
	text bytes.Buffer
	seen func(text string)
}

func (r *reader) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Write(p)
	r.seen(r.text.String())
	return len(p), nil
}

var authAddress = regexp.MustCompile(`(?m)^    (http://\S+/authorize\?\S+)\n`)

// TestSkipBrowser: the address is only printed, somebody opens it; what comes
// back for another login is not taken for this one.
func TestSkipBrowser(t *testing.T) {
	srv, err := launch(nil, devArgs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.stop(); err != nil {
			t.Error(err)
		}
	})
	p := oidcprovider.Start(t, oidcprovider.Config{})
	env := map[string]string{"VAULT_ADDR": srv.addr, "VAULT_TOKEN": "root", "HOME": t.TempDir()}
	typed := func(stderr *reader, args ...string) (code int, stdout string) {
		var out bytes.Buffer
		code = cli.Run(t.Context(), cli.Config{
			Stdin: strings.NewReader(""), Stdout: &out, Stderr: stderr, Getenv: func(k string) string { return env[k] },
		}, args)
		return code, out.String()
	}
	quiet := &reader{seen: func(string) {}}
	for _, args := range [][]string{
		{"auth", "enable", "oidc"},
		{"write", "auth/oidc/config", "oidc_discovery_url=" + p.URL, "oidc_client_id=" + oidcprovider.ClientID, "oidc_client_secret=" + oidcprovider.ClientSecret},
		{"write", "auth/oidc/role/people", "user_claim=sub", "allowed_redirect_uris=http://127.0.0.1/oidc/callback"},
	} {
		if code, out := typed(quiet, args...); code != 0 {
			t.Fatalf("leasehold %q: exit %d\n%s%s", args, code, out, quiet.text.String())
		}
	}

	var once sync.Once
	var wg sync.WaitGroup
	visitor := &reader{}
	visitor.seen = func(text string) {
		m := authAddress.FindStringSubmatch(text)
		if m == nil {
			return
		}
		once.Do(func() {
			wg.Go(func() {
				forged := regexp.MustCompile(`state=[^&]+`).ReplaceAllString(m[1], "state=forged")
				if status, page, err := (oidcprovider.Browser{}).Visit(t.Context(), forged); err != nil || status != 400 || !strings.Contains(page, "not the login that was begun") {
					t.Errorf("another login's browser: %d %s %v; want 400", status, page, err)
				}
				if status, page, err := (oidcprovider.Browser{}).Visit(t.Context(), m[1]); err != nil || status != 200 || !strings.Contains(page, "You are logged in") {
					t.Errorf("the browser sees %d %s %v", status, page, err)
				}
			})
		})
	}
	code, out := typed(visitor, "login", "-method=oidc", "-token-only", "role=people", "port=0", "callbackhost=127.0.0.1", "listenaddress=127.0.0.1", "skip_browser=true")
	wg.Wait()
	if code != 0 || !strings.HasPrefix(out, "hvs.") {
		t.Errorf("exit %d, standard output %q, standard error\n%s", code, out, visitor.text.String())
	}
}
