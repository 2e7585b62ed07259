package doctest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Shell is one bash in a directory: what a block exports or where it goes, the
// next block finds.
type Shell struct {
	own  string // a directory for the shell's own files
	cmd  *exec.Cmd
	in   io.WriteCloser
	done *bufio.Reader // an exit code per command
}

// commandLimit is how long one command may take.
const commandLimit = 2 * time.Minute

// NewShell starts a shell in dir; own is a directory for its own files.
func NewShell(dir, own string, env []string) (*Shell, error) {
	cmd := exec.Command("bash", "--norc", "--noprofile", "-s")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	cmd.ExtraFiles = []*os.File{w} // number 3 in the shell
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &Shell{own: own, cmd: cmd, in: in, done: bufio.NewReader(r)}, nil
}

// Run runs a command, or a script of which every line has to succeed, and
// returns what a terminal would show and the exit code.
func (s *Shell) Run(ctx context.Context, text string, script bool) (string, int, error) {
	file, out := filepath.Join(s.own, "command"), filepath.Join(s.own, "output")
	if script {
		// The first line that fails ends the script, not the shell.
		text = "trap 'doctest_code=$?; trap - ERR; return $doctest_code' ERR\n" + text + "\ntrap - ERR\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return "", 0, err
	}
	if _, err := fmt.Fprintf(s.in, ". %s >%s 2>&1 </dev/null; echo $? >&3\n", file, out); err != nil {
		return "", 0, err
	}
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() { // ends with the command, or with the shell
		line, err := s.done.ReadString('\n')
		got <- answer{line, err}
	}()
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	var a answer
	select {
	case a = <-got:
	case <-ctx.Done():
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		a = <-got
		a.err = fmt.Errorf("not done after %s: %w", commandLimit, ctx.Err())
	}
	shown, err := os.ReadFile(out)
	if a.err != nil {
		return string(shown), 0, fmt.Errorf("the shell ended: %w", a.err)
	}
	code, convErr := strconv.Atoi(strings.TrimSpace(a.line))
	return string(shown), code, errors.Join(err, convErr)
}

// Close ends the shell and whatever it left running.
func (s *Shell) Close() {
	_ = s.in.Close()
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	_ = s.cmd.Wait()
}
