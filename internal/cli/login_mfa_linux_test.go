package cli_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/leasehold/leasehold/internal/cli"
)

// TestInterruptedAtAPrompt: one Ctrl-C ends a command that waits for a secret,
// and the terminal shows again what is typed.
func TestInterruptedAtAPrompt(t *testing.T) {
	keyboard, tty := terminal(t)
	ctx, interrupt := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() {
		done <- cli.Run(ctx, cli.Config{Stdin: tty, Stdout: io.Discard, Stderr: tty, Getenv: func(string) string { return "" }},
			[]string{"operator", "unseal"})
	}()
	shown := func() bool {
		state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return state.Lflag&unix.ECHO != 0
	}
	for shown() {
		runtime.Gosched()
	}
	interrupt()
	select {
	case code := <-done:
		if code != 130 || !shown() {
			t.Errorf("exit %d with what is typed shown: %v, want 130 and true", code, shown())
		}
	case <-time.After(10 * time.Second):
		_, _ = io.WriteString(keyboard, "\n")
		t.Errorf("the command goes on waiting, and ends with %d", <-done)
	}
}

// TestPasscodeIsAskedFor: on a terminal a login goes on by itself, with one
// question for each method, and what is typed is not shown.
func TestPasscodeIsAskedFor(t *testing.T) {
	var validated string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/sys/mfa/validate" {
			body, _ := io.ReadAll(r.Body)
			validated = string(body)
			_, _ = io.WriteString(w, `{"request_id":"1","auth":{"client_token":"hvs.x"}}`)
			return
		}
		_, _ = io.WriteString(w, `{"request_id":"1","auth":{"client_token":"","mfa_requirement":{"mfa_request_id":"r1","mfa_constraints":{`+
			`"a":{"any":[{"type":"duo","id":"d"},{"type":"totp","id":"m1","uses_passcode":true,"name":"phone"}]},`+
			`"b":{"any":[{"type":"totp","id":"m1","uses_passcode":true,"name":"phone"}]}}}}}`)
	}))
	t.Cleanup(srv.Close)
	keyboard, tty := terminal(t)
	env := map[string]string{"VAULT_ADDR": srv.URL, "HOME": t.TempDir()}
	var out bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- cli.Run(t.Context(), cli.Config{Stdin: tty, Stdout: &out, Stderr: tty, Getenv: func(k string) string { return env[k] }},
			[]string{"login", "-method=userpass", "username=ann", "password=pw"})
	}()
	var screen strings.Builder
	buf := make([]byte, 256)
	for !strings.Contains(screen.String(), "Passcode of the TOTP method phone (will be hidden):") {
		n, err := keyboard.Read(buf)
		if err != nil {
			t.Fatalf("the terminal shows %q and ends: %v", &screen, err)
		}
		screen.Write(buf[:n])
	}
	for state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS); err != nil || state.Lflag&unix.ECHO != 0; {
		if err != nil {
			t.Fatal(err)
		}
		state, err = unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	}
	_, _ = io.WriteString(keyboard, "123456\n")
	if code := <-done; code != 0 || validated != `{"mfa_request_id":"r1","mfa_payload":{"m1":["123456"]}}` || !strings.Contains(out.String(), "hvs.x") {
		t.Errorf("exit %d, validated with %q, printed %q", code, validated, &out)
	}
}
