package clienttest_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
)

// TestNodeVault runs testdata/node/story.js, one subtest per line it prints.
func TestNodeVault(t *testing.T) {
	dir := nodeModules(t)
	srv := leaseholdtest.Start(t, leaseholdtest.Config{Dev: true})
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join(dir, "story.js"))
	cmd.Env = append(os.Environ(), "VAULT_ADDR="+srv.Addr, "VAULT_TOKEN="+srv.Root)
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "ok   "); ok {
			t.Run(name, func(*testing.T) {})
		}
	}
	if err != nil {
		t.Errorf("node-vault: %v\n%s", err, out)
	}
}

// nodeModules gives a directory with story.js and its pinned modules. It lies
// in the user's cache, so that npm fetches them once per machine.
func nodeModules(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "leasehold-test", "node-vault")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close() // gives the lock back
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	fresh := true // whether the modules are those of this package-lock.json
	for _, name := range []string{"story.js", "package.json", "package-lock.json"} {
		b, err := os.ReadFile(filepath.Join("testdata/node", name))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if old, err := os.ReadFile(path); name == "package-lock.json" && (err != nil || !bytes.Equal(old, b)) {
			fresh = false
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "node-vault")); err != nil || !fresh {
		cmd := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			_ = os.Remove(filepath.Join(dir, "package-lock.json")) // so that the next run tries again
			t.Fatalf("fetching node-vault with npm: %v\n%s", err, out)
		}
	}
	return dir
}
