package main_test

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
)

// TestDemo runs the demo as `make demo` does, and looks for what it leaves
// behind: all it makes lies under TMPDIR, which is its own here.
func TestDemo(t *testing.T) {
	server, err := leaseholdtest.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "demo")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the demo: %v\n%s", err, out)
	}

	t.Run("to the end", func(t *testing.T) {
		t.Parallel()
		cmd, tmp := demoCommand(t, program, server)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("demo: %v\n%s", err, out)
		}
		for _, want := range []string{
			"web shop logs in as", "billing  logs in as", "reports  logs in as",
			"web shop renewed", "billing revoked in", "its open session is gone", "reports ran out; its login is refused", "What to type next",
		} {
			if !bytes.Contains(out, []byte(want)) {
				t.Errorf("the demo does not say %q", want)
			}
		}
		if bytes.ContainsRune(out, '\x1b') {
			t.Error("the demo writes terminal codes into a pipe")
		}
		if t.Failed() {
			t.Logf("%s", out)
		}
		nothingLeft(t, tmp)
	})

	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		cmd, tmp := demoCommand(t, program, server)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := readUntil(t, out, "count down")
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(out)
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("an interrupted demo ends with code %d, want 130\n%s%s", code, said, rest)
		}
		nothingLeft(t, tmp)
	})

	t.Run("kept", func(t *testing.T) {
		t.Parallel()
		cmd, tmp := demoCommand(t, program, server)
		cmd.Env = append(cmd.Env, "KEEP=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("demo: %v\n%s", err, out)
		}
		m := regexp.MustCompile(`kill (\d+)`).FindSubmatch(out)
		addr := regexp.MustCompile(`VAULT_ADDR=(\S+) VAULT_TOKEN=(\S+)`).FindSubmatch(out)
		if m == nil || addr == nil {
			t.Fatalf("the kept lab does not say how to use and to end it:\n%s", out)
		}
		pid, _ := strconv.Atoi(string(m[1]))
		creds := exec.Command(server, "read", "database/creds/reader")
		creds.Env = append(os.Environ(), "VAULT_ADDR="+string(addr[1]), "VAULT_TOKEN="+string(addr[2]))
		if said, err := creds.CombinedOutput(); err != nil {
			t.Errorf("reading credentials in the kept lab: %v\n%s", err, said)
		}
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		for limit := time.Now().Add(30 * time.Second); syscall.Kill(pid, 0) == nil && time.Now().Before(limit); {
			time.Sleep(50 * time.Millisecond) // it is not our child, so there is nothing to wait on
		}
		nothingLeft(t, tmp)
	})
}

// demoCommand is the demo with a TMPDIR of its own, which PostgreSQL can use
// as nobody.
func demoCommand(t *testing.T, program, server string) (*exec.Cmd, string) {
	t.Helper()
	tmp, err := os.MkdirTemp("", "demo-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	if err := os.Chmod(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-server="+server)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	return cmd, tmp
}

func readUntil(t *testing.T, r io.Reader, text string) string {
	t.Helper()
	var said strings.Builder
	in := bufio.NewReader(r)
	for !strings.Contains(said.String(), text) {
		line, err := in.ReadString('\n')
		said.WriteString(line)
		if err != nil {
			t.Fatalf("the demo ended before it said %q:\n%s", text, said.String())
		}
	}
	return said.String()
}

func nothingLeft(t *testing.T, tmp string) {
	t.Helper()
	left, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("the demo left %s behind", e.Name())
	}
}
