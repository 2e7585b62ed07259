package file_test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
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
		begun := time.Now()
		if err := d.Write(line); err != nil {
			if hurries(time.Since(begun), func() error { return d.Write(line) }) {
				os.Exit(3)
			}
			os.Exit(4)
		}
	}
	os.Exit(0)
}

// hurries reports whether three more records fail in less time than the first
// one took.
func hurries(first time.Duration, write func() error) bool {
	begun := time.Now()
	for range 3 {
		if write() == nil {
			return false
		}
	}
	return time.Since(begun) < first
}

// TestPipeThatNobodyReads: the reader of a pipe who has stopped costs one record
// its time, and those after it almost none. When he goes on he finds the pipe
// open, every record that was taken in it as a line of its own, and the device
// is well.
func TestPipeThatNobodyReads(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d := newDevice(t, file.Config{Path: path})
	line := []byte(strings.Repeat("x", 5000) + "\n") // more than a pipe takes in one piece
	taken := 0
	var first time.Duration
	for {
		begun := time.Now()
		if err := d.Write(line); err != nil {
			first = time.Since(begun)
			break
		}
		taken++
	}
	if !hurries(first, func() error { return d.Write(line) }) {
		t.Errorf("after one record that waited %s, three more waited longer", first)
	}
	whole := 0
	lines := bufio.NewReader(r)
	for whole < taken {
		l, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatalf("the pipe ended after %d of %d records: %v", whole, taken, err)
		}
		if bytes.Equal(l, line) {
			whole++
		}
	}
	write(t, d, "well again\n")
	for {
		l, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the record after the pause is not there: %v", err)
		}
		if l == "well again\n" {
			break
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
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
					t.Errorf("the program ended with %d, want 3: a record that failed (4: and others that waited as long)", code)
				}
			case <-time.After(30 * time.Second):
				_ = cmd.Process.Kill()
				<-ended
				t.Error("a record waits for ever for the reader of the standard output")
			}
		})
	}
}
