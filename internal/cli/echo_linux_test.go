package cli_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/leasehold/leasehold/internal/cli"
)

// terminal is a pair of ends: what is typed into keyboard is read from tty,
// and what tty shows, echo included, comes out of keyboard.
func terminal(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keyboard.Close() })
	fd := int(keyboard.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return keyboard, tty
}

// TestPasswordIsNotShown: a name that is asked for is shown as it is typed, a
// password is not.
func TestPasswordIsNotShown(t *testing.T) {
	var sent string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sent = r.URL.Path + " " + string(body)
		_, _ = io.WriteString(w, `{"request_id":"1","auth":{"client_token":"hvs.x"}}`)
	}))
	t.Cleanup(srv.Close)
	keyboard, tty := terminal(t)
	env := map[string]string{"VAULT_ADDR": srv.URL, "HOME": t.TempDir()}
	var out bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- cli.Run(t.Context(), cli.Config{Stdin: tty, Stdout: &out, Stderr: tty, Getenv: func(k string) string { return env[k] }}, []string{"login", "-method=userpass"})
	}()
	screen := new(strings.Builder)
	read := func(until string) {
		t.Helper()
		buf := make([]byte, 256)
		for !strings.Contains(screen.String(), until) {
			n, err := keyboard.Read(buf)
			if err != nil {
				t.Fatalf("the terminal shows %q and ends: %v", screen, err)
			}
			screen.Write(buf[:n])
		}
	}
	read("Username:")
	_, _ = io.WriteString(keyboard, "ann\n")
	read("Password (will be hidden):")
	for deadline := time.Now().Add(10 * time.Second); ; {
		state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if state.Lflag&unix.ECHO == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the terminal goes on showing what is typed")
		}
	}
	_, _ = io.WriteString(keyboard, "hunter2\n")
	if code := <-done; code != 0 || sent != `/v1/auth/userpass/login/ann {"password":"hunter2"}` {
		t.Errorf("exit %d, sent %q", code, sent)
	}
	_, _ = io.WriteString(tty, "the end")
	read("the end")
	if text := screen.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "ann") {
		t.Errorf("the terminal shows %q; want the name and not the password", text)
	}
}
