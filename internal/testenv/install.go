package testenv

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// binDir finds the newest PostgreSQL on this machine: the folder with initdb
// and postgres. Debian keeps it out of PATH.
func binDir() (string, bool) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	sort.Slice(dirs, func(i, j int) bool { return majorOf(dirs[i]) > majorOf(dirs[j]) })
	if p, err := exec.LookPath("initdb"); err == nil {
		// A link in PATH may stand alone; its programs are where it points.
		if real, err := filepath.EvalSymlinks(p); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	for _, d := range dirs {
		if executable(filepath.Join(d, "initdb")) && executable(filepath.Join(d, "postgres")) {
			return d, true
		}
	}
	return "", false
}

func majorOf(binDir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(binDir)))
	return n
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&0o111 != 0 && !info.IsDir()
}

// debianPostgres finds PostgreSQL, or installs the distribution's after saying
// so on out.
func debianPostgres(out io.Writer) (string, error) {
	if d, ok := binDir(); ok {
		return d, nil
	}
	fmt.Fprintln(out, "PostgreSQL is not installed here; installing the distribution's package (no service is started) ...")
	if err := installPostgres(out); err != nil {
		return "", err
	}
	if d, ok := binDir(); ok {
		return d, nil
	}
	return "", errors.New("the package postgresql was installed, but it brought no initdb under /usr/lib/postgresql")
}

const byHand = "sudo apt-get install -y --no-install-recommends "

// asRoot runs a command as root: as it is, or by sudo where that asks for no
// password.
type asRoot struct {
	sudo   []string
	byHand string // what a person can do instead
}

// rootFor finds out how to install packages. what is missing is named in the
// error.
func rootFor(what string, packages ...string) (*asRoot, error) {
	r := &asRoot{byHand: byHand + strings.Join(packages, " ")}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, fmt.Errorf("%s is missing and there is no apt-get; install it so that its programs are in PATH", what)
	}
	if os.Geteuid() != 0 {
		if exec.Command("sudo", "-n", "true").Run() != nil {
			return nil, fmt.Errorf("%s is missing; run this and try again:\n\n    %s", what, r.byHand)
		}
		r.sudo = []string{"sudo", "-n"}
	}
	return r, nil
}

func (r *asRoot) run(args ...string) error {
	args = append(append([]string{}, r.sudo...), args...)
	c := exec.Command(args[0], args[1:]...)
	c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if said, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s\nBy hand: %s", strings.Join(args, " "), err, said, r.byHand)
	}
	return nil
}

func installPostgres(out io.Writer) error {
	root, err := rootFor("PostgreSQL 13 or later", "postgresql")
	if err != nil {
		return err
	}
	run := root.run
	// Without this the package makes a cluster and starts it. The file is
	// read by a package that comes along with it, and put back afterwards.
	const conf = "/etc/postgresql-common/createcluster.conf"
	before, err := os.ReadFile(conf)
	fresh := errors.Is(err, os.ErrNotExist)
	if err != nil && !fresh {
		return fmt.Errorf("reading %s: %w", conf, err)
	}
	write := func(text []byte) error {
		tmp, err := os.CreateTemp("", "createcluster-")
		if err != nil {
			return err
		}
		defer os.Remove(tmp.Name())
		if _, err := tmp.Write(text); err != nil {
			return errors.Join(err, tmp.Close())
		}
		if err := tmp.Close(); err != nil {
			return err
		}
		return run("install", "-D", "-m", "0644", tmp.Name(), conf)
	}
	if err := run("apt-get", "update", "-qq"); err != nil {
		return err
	}
	if fresh {
		// postgresql-common brings the file; bring it first, change it then.
		if err := run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "postgresql-common"); err != nil {
			return err
		}
		if before, err = os.ReadFile(conf); err != nil {
			return fmt.Errorf("reading %s: %w", conf, err)
		}
	}
	setting := regexp.MustCompile(`(?m)^[#\s]*create_main_cluster.*$\n?`)
	if err := write(append(setting.ReplaceAll(before, nil), "\ncreate_main_cluster = false\n"...)); err != nil {
		return err
	}
	err = run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "postgresql")
	fmt.Fprintln(out, "installed.")
	return errors.Join(err, write(before))
}
