package cli_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/leasehold/leasehold/internal/cli"
)

// oneDataKey answers as Transit does, always with the same data key.
func oneDataKey(t *testing.T) string {
	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"request_id":"1","data":{"ciphertext":"vault:v1:AAAA","plaintext":%q}}`, key)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// TestProgressIsShown: on a terminal one sees how far it is, and is told what
// a terminal is not for.
func TestProgressIsShown(t *testing.T) {
	keyboard, tty := terminal(t)
	env := map[string]string{"VAULT_ADDR": oneDataKey(t), "HOME": t.TempDir()}
	in, feed := io.Pipe()
	out := filepath.Join(t.TempDir(), "out")
	run := func(ctx context.Context, cfg cli.Config, args ...string) int {
		cfg.Stderr, cfg.Getenv = tty, func(k string) string { return env[k] }
		return cli.Run(ctx, cfg, append([]string{"transit"}, args...))
	}
	if code := run(t.Context(), cli.Config{Stdin: in, Stdout: tty}, "encrypt-file", "-key=k"); code != 1 {
		t.Errorf("encrypting to a terminal: exit %d, want 1", code)
	}
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
	read("is not for a terminal")

	done := make(chan int, 1)
	go func() {
		defer in.Close() // whatever made it end
		done <- run(t.Context(), cli.Config{Stdin: in, Stdout: io.Discard}, "encrypt-file", "-key=k", "-out="+out)
	}()
	if _, err := feed.Write(make([]byte, 2_500_000)); err != nil {
		t.Fatal(err)
	}
	read("encrypting  2.5 MB")
	_ = feed.Close()
	if code := <-done; code != 0 {
		t.Errorf("exit %d, want 0; the terminal shows %q", code, screen)
	}
	if st, err := os.Stat(out); err != nil || st.Size() < 2_500_000 {
		t.Errorf("the file: %v, %v", st, err)
	}
}

// TestInterrupted: Ctrl-C leaves no part of a file behind, although more input
// is being waited for.
func TestInterrupted(t *testing.T) {
	env := map[string]string{"VAULT_ADDR": oneDataKey(t), "HOME": t.TempDir()}
	dir := t.TempDir()
	in, feed := io.Pipe()
	defer feed.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	var said bytes.Buffer
	done := make(chan int, 1)
	go func() {
		defer in.Close() // whatever made it end
		done <- cli.Run(ctx, cli.Config{Stdin: in, Stdout: io.Discard, Stderr: &said, Getenv: func(k string) string { return env[k] }},
			[]string{"transit", "encrypt-file", "-key=k", "-out=" + filepath.Join(dir, "out")})
	}()
	// More than the blocks hold: some of it is written when this returns.
	if _, err := feed.Write(make([]byte, 32<<20)); err != nil {
		t.Fatalf("%v; it said %q", err, said.String())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || !strings.HasSuffix(left[0].Name(), ".part") {
		t.Errorf("while it works the directory has %v, %v, want a file .part", left, err)
	}
	interrupt()
	if code := <-done; code != 1 || !strings.Contains(said.String(), "interrupted. "+dir) {
		t.Errorf("exit %d, %q, want 1 and that it was interrupted", code, said.String())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("afterwards the directory has %v, %v, want nothing", left, err)
	}
}

// TestInterruptedWhileWaiting: one Ctrl-C ends a command that waits for the
// other end of a pipe, whichever.
func TestInterruptedWhileWaiting(t *testing.T) {
	env := map[string]string{"VAULT_ADDR": oneDataKey(t), "HOME": t.TempDir()}
	dir := t.TempDir()
	fifo, file := filepath.Join(dir, "fifo"), filepath.Join(dir, "file")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // of what is left behind
		if both, err := os.OpenFile(fifo, os.O_RDWR, 0); err == nil {
			_ = both.Close()
		}
	})
	silent, feed := io.Pipe()
	defer feed.Close()
	for _, args := range [][]string{
		{"decrypt-file"},
		{"decrypt-file", "-out=" + filepath.Join(dir, "out")},
		{"encrypt-file", "-key=k", fifo},
		{"encrypt-file", "-key=k", "-out=" + fifo, file},
	} {
		ctx, interrupt := context.WithCancel(t.Context())
		done := make(chan int, 1)
		go func() {
			done <- cli.Run(ctx, cli.Config{Stdin: silent, Stdout: io.Discard, Stderr: io.Discard, Getenv: func(k string) string { return env[k] }},
				append([]string{"transit"}, args...))
		}()
		interrupt()
		late := time.NewTimer(time.Minute)
		select {
		case code := <-done:
			if code == 0 {
				t.Errorf("%q: exit 0 after Ctrl-C", args)
			}
		case <-late.C:
			t.Fatalf("%q waits on after Ctrl-C", args)
		}
		late.Stop()
	}
}

// TestContentOnTheTerminal is not mixed with how far it is.
func TestContentOnTheTerminal(t *testing.T) {
	keyboard, tty := terminal(t)
	env := map[string]string{"VAULT_ADDR": oneDataKey(t), "HOME": t.TempDir()}
	getenv := func(k string) string { return env[k] }
	var sealed bytes.Buffer
	if code := cli.Run(t.Context(), cli.Config{Stdin: strings.NewReader("Meeting at nine.\n"), Stdout: &sealed, Stderr: io.Discard, Getenv: getenv},
		[]string{"transit", "encrypt-file", "-key=k"}); code != 0 {
		t.Fatalf("encrypting: exit %d", code)
	}
	decrypt := func(stdout io.Writer, tty *os.File) (end func()) {
		in, feed := io.Pipe()
		done := make(chan int, 1)
		go func() {
			defer in.Close()
			done <- cli.Run(t.Context(), cli.Config{Stdin: in, Stdout: stdout, Stderr: tty, Getenv: getenv}, []string{"transit", "decrypt-file"})
		}()
		write := func(b []byte) {
			if _, err := feed.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		write(sealed.Bytes()[:10]) // it is reading when this returns
		return func() {
			write(sealed.Bytes()[10:])
			_ = feed.Close()
			if code := <-done; code != 0 {
				t.Errorf("decrypting: exit %d", code)
			}
		}
	}
	endShown := decrypt(tty, tty)
	// Another one, which began later, says how far it is.
	keyboard2, tty2 := terminal(t)
	endAway := decrypt(io.Discard, tty2)
	buf := make([]byte, 1024)
	if n, err := keyboard2.Read(buf); err != nil || !strings.Contains(string(buf[:n]), "decrypting") {
		t.Errorf("with the content elsewhere the terminal shows %q, %v", buf[:n], err)
	}
	endAway()
	endShown()
	n, err := keyboard.Read(buf)
	if got := string(buf[:n]); err != nil || got != "Meeting at nine.\r\n" {
		t.Errorf("the terminal shows %q, %v, want the content alone", got, err)
	}
}
