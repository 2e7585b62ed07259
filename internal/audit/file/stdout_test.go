package file_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/audit/file"
)

const childEnv = "LEASEHOLD_TEST_STDOUT"

// TestMain is also the program whose standard output is a pipe that nobody
// reads: a pipe as it is inherited has no deadlines.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		os.Exit(m.Run())
	}
	d := file.New(file.Config{Path: "stdout"})
	line := []byte(strings.Repeat("x", 1<<10) + "\n")
	for range 10_000 {
		if err := d.Write(line); err != nil {
			os.Exit(3)
		}
	}
	os.Exit(0)
}

// TestStandardOutputThatNobodyReads: a pipe, or a socket to the journal, whose
// reader has stopped fails records instead of keeping them, and the server,
// waiting.
func TestStandardOutputThatNobodyReads(t *testing.T) {
	for name, make2 := range map[string]func(*[2]int) error{
		"a pipe": func(p *[2]int) error { return syscall.Pipe(p[:]) },
		"a socket": func(p *[2]int) (err error) {
			*p, err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p [2]int
			if err := make2(&p); err != nil {
				t.Fatal(err)
			}
			syscall.CloseOnExec(p[0])
			syscall.CloseOnExec(p[1])
			r, w := os.NewFile(uintptr(p[0]), "r"), os.NewFile(uintptr(p[1]), "w")
			defer r.Close()
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"=1")
			cmd.Stdout = w
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_ = w.Close()
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			select {
			case <-ended:
				if code := cmd.ProcessState.ExitCode(); code != 3 {
					t.Errorf("the program ended with %d, want 3: a record that failed", code)
				}
			case <-time.After(30 * time.Second):
				_ = cmd.Process.Kill()
				<-ended
				t.Error("a record waits for ever for the reader of the standard output")
			}
		})
	}
}
