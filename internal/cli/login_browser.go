package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"github.com/leasehold/leasehold/api"
)

// browserArgs are Vault's, for a login by browser.
var browserArgs = []loginArg{
	{"skip_browser", "true: only print the address, and open no browser."},
	{"listenaddress", "Address to wait at for the browser to come back; localhost unless said otherwise."},
	{"port", "Port to wait at; 8250 unless said otherwise. 0 is any that is free."},
	{"callbackhost", "Host in the address that the browser is sent back to; localhost unless said otherwise."},
	{"callbackport", "Port in that address; the port unless said otherwise."},
	{"callbackmethod", "http or https in that address; http unless said otherwise."},
	{"abort_on_error", "true: give up where no browser can be opened."},
	{"callbackmode", "client, which is all there is: the browser comes back to this command."},
}

// browserWait is how long somebody may take over the provider's pages.
const browserWait = 2 * time.Minute

// loginBrowser sends a browser to the provider and waits for it to come back
// here, with a code that the server exchanges.
func loginBrowser(ctx context.Context, c *call, mount string, in *input) (*api.Secret, error) {
	if err := in.onlyArgs(append([]loginArg{{name: "role"}}, browserArgs...)); err != nil {
		return nil, err
	}
	if mode := in.text("callbackmode"); mode != "" && mode != "client" {
		return nil, localf("callbackmode=%s: want client", mode)
	}
	skip, err := in.flag("skip_browser")
	if err != nil {
		return nil, err
	}
	abort, err := in.flag("abort_on_error")
	if err != nil {
		return nil, err
	}
	cl, err := c.client()
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(in.textOr("listenaddress", "localhost"), in.textOr("port", "8250")))
	if err != nil {
		return nil, localf("Waiting for the browser: %v. Another port: port=N; the role must allow it.", err)
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		return nil, err
	}
	b := &browserLogin{
		call: c, client: cl.WithToken(""), mount: mount, nonce: rand.Text(), done: make(chan browserResult, 1),
		redirect: in.textOr("callbackmethod", "http") + "://" + net.JoinHostPort(in.textOr("callbackhost", "localhost"), in.textOr("callbackport", port)) + "/oidc/callback",
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/oidc/callback", b.back)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	s, err := b.run(ctx, in.text("role"), skip, abort)
	// The page that says how it went is on its way to the browser.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if serr := srv.Shutdown(end); serr != nil {
		_ = srv.Close()
	}
	<-served
	return s, err
}

// flag is an argument that is true or false.
func (in *input) flag(key string) (bool, error) {
	v, err := strconv.ParseBool(in.textOr(key, "false"))
	if err != nil {
		return false, localf("%s=%s: want true or false", key, in.text(key))
	}
	return v, nil
}

func (in *input) textOr(key, def string) string {
	if v := in.text(key); v != "" {
		return v
	}
	return def
}

// browserLogin is one login by browser.
type browserLogin struct {
	call     *call
	client   *api.Client
	mount    string
	redirect string
	nonce    string // ties the browser that comes back to this command
	state    string // of the provider's address; set before anybody is sent there
	done     chan browserResult
}

type browserResult struct {
	secret *api.Secret
	err    error
}

func (b *browserLogin) path(name string) string { return "auth/" + b.mount + "/oidc/" + name }

func (b *browserLogin) run(ctx context.Context, role string, skip, abort bool) (*api.Secret, error) {
	to, err := b.begin(ctx, role)
	if err != nil {
		return nil, err
	}
	opened := make(chan error, 1)
	if skip {
		b.call.note("Complete the login via your OIDC provider. Open the following link in your browser:\n\n    %s\n\n", to)
	} else {
		b.call.note("Complete the login via your OIDC provider. Launching browser to:\n\n    %s\n\n", to)
		openBrowser(to, opened)
	}
	b.call.note("Waiting for OIDC authentication to complete...")
	late := time.NewTimer(browserWait)
	defer late.Stop()
	for {
		select {
		case r := <-b.done:
			return r.secret, r.err
		case err := <-opened:
			if err != nil && abort {
				return nil, localf("No browser could be opened: %v", err)
			}
			if err != nil {
				b.call.note("No browser could be opened (%v). Open the address above in one.", err)
			}
		case <-late.C:
			return nil, localf("Nobody came back from the provider within %s", browserWait)
		case <-ctx.Done():
			return nil, localf("Interrupted while waiting for the provider")
		}
	}
}

// begin asks the server for the provider's address.
func (b *browserLogin) begin(ctx context.Context, role string) (string, error) {
	resp, err := b.client.WithWrapTTL("").Do(ctx, &api.Request{Method: http.MethodPut, Path: b.path("auth_url"), Body: struct {
		Role        string `json:"role"`
		RedirectURI string `json:"redirect_uri"`
		ClientNonce string `json:"client_nonce"`
	}{role, b.redirect, b.nonce}})
	if err != nil {
		return "", step(err, "authenticating")
	}
	s, err := resp.Secret()
	if err != nil {
		return "", err
	}
	var out struct {
		URL string `json:"auth_url"`
	}
	if s != nil {
		if err := s.Decode(&out); err != nil {
			return "", err
		}
	}
	u, err := url.Parse(out.URL)
	if out.URL == "" || err != nil {
		return "", localf("The server does not let this role log in by browser. Its role_type must be oidc, and its allowed_redirect_uris must have\n\n    %s\n\nThe server's log tells more.", b.redirect)
	}
	b.state = u.Query().Get("state")
	return out.URL, nil
}

// back is where the browser comes back to: by a GET with a code, or with a
// form that the server takes first.
func (b *browserLogin) back(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("state") != b.state {
		writePage(w, http.StatusBadRequest, "This is not the login that was begun", "Go back to the terminal, and open the address that stands there.")
		return
	}
	secret, err := b.end(r)
	if err != nil {
		writePage(w, http.StatusBadRequest, "The login failed", err.Error())
	} else {
		writePage(w, http.StatusOK, "You are logged in", "The terminal has the token. This page can be closed.")
	}
	select {
	case b.done <- browserResult{secret, err}:
	default: // somebody loaded the page again
	}
}

func (b *browserLogin) end(r *http.Request) (*api.Secret, error) {
	if r.Method == http.MethodPost {
		_, err := b.client.WithWrapTTL("").Do(r.Context(), &api.Request{Method: http.MethodPost, Path: b.path("callback"), NoRetry: true, Body: struct {
			State   string `json:"state"`
			Code    string `json:"code"`
			IDToken string `json:"id_token"`
		}{b.state, r.PostFormValue("code"), r.PostFormValue("id_token")}})
		if err != nil {
			return nil, step(err, "authenticating")
		}
	}
	q := url.Values{"state": {b.state}, "client_nonce": {b.nonce}}
	for _, name := range []string{"code", "error", "error_description", "error_uri"} {
		if v := r.FormValue(name); v != "" {
			q.Set(name, v)
		}
	}
	resp, err := b.client.Do(r.Context(), &api.Request{Method: http.MethodGet, Path: b.path("callback"), Query: q, NoRetry: true})
	if err != nil {
		return nil, step(err, "authenticating")
	}
	s, err := resp.Secret()
	if err == nil && s == nil {
		err = localf("The login brought no token")
	}
	if err == nil {
		b.call.warn(s.Warnings)
	}
	return s, err
}

var browserPage = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{.Title}}</title></head>
<body><h1>{{.Title}}</h1><pre>{{.Text}}</pre></body></html>
`))

func writePage(w http.ResponseWriter, status int, title, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(status)
	_ = browserPage.Execute(w, struct{ Title, Text string }{title, text}) // a browser that was closed
}

// openBrowser shows an address in the user's browser. Whether that could be
// done comes on opened; a browser that stays in the foreground says nothing,
// and may outlive the command.
func openBrowser(addr string, opened chan<- error) {
	var cmd *exec.Cmd
	switch runtime.GOOS {
	case "darwin":
		cmd = exec.Command("open", addr)
	case "windows":
		cmd = exec.Command("rundll32", "url.dll,FileProtocolHandler", addr)
	default:
		cmd = exec.Command("xdg-open", addr)
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			err = fmt.Errorf("there is no %s", cmd.Args[0])
		}
		opened <- err
		return
	}
	go func() { opened <- cmd.Wait() }()
}
