package testenv

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// GoProgram is a program that somebody else wrote in Go, built from the module
// proxy at one version.
type GoProgram struct {
	Package string   // of its main: "github.com/hashicorp/consul-template"
	Version string   // of its module
	Newer   []string // module@version that it needs newer than it asks for, to build with today's Go
}

// Build gives the program's path. It is built once per machine and version,
// which may take minutes, in a module of its own: what it depends on stays out
// of ours.
func (p GoProgram) Build(ctx context.Context) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	name := path.Base(p.Package)
	bin := filepath.Join(cache, "programs", name+"-"+p.Version, name)
	if executable(bin) {
		return bin, nil
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock-"+name), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close() // gives the lock back
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("waiting for another build of %s: %w", name, err)
	}
	if executable(bin) {
		return bin, nil
	}
	fmt.Printf("building %s %s, which is done once and may take minutes ...\n", name, p.Version)
	dir, err := os.MkdirTemp("", "build-"+name+"-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(filepath.Dir(bin), 0o755); err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"mod", "init", "programs"},
		append([]string{"get", p.Package + "@" + p.Version}, p.Newer...),
		{"build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-o", bin, p.Package},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
		if said, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, said)
		}
	}
	return bin, nil
}
