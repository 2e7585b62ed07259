package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A migration brings a directory from one version of our format to the next.
// It may run again after a crash, so running it twice must do no harm.
type migration func(db *pebble.DB) error

// migrations[i] leads from version i to i+1; the current version is their
// number. No release ever wrote version 0.
var migrations = []migration{
	func(*pebble.DB) error {
		return errors.New("it has data but no FORMAT file, so it is not Leasehold's; use an empty directory")
	},
}

const formatFile, formatWord = "FORMAT", "leasehold-storage"

func lockDir(fs vfs.FS, dir string) (io.Closer, error) {
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the storage directory: %w", err)
	}
	lock, err := fs.Lock(fs.PathJoin(dir, "LOCK"))
	if err != nil {
		return nil, fmt.Errorf("cannot lock the storage directory %s: another Leasehold process is using it; "+
			"stop that one, or give this one a directory of its own (%w)", dir, err)
	}
	return lock, syncDir(fs, fs.PathDir(dir))
}

// readFormat returns the version of the directory. An empty one is given the
// current version at once.
func readFormat(fs vfs.FS, dir string, current int) (int, error) {
	b, err := readFile(fs, fs.PathJoin(dir, formatFile))
	if errors.Is(err, os.ErrNotExist) {
		if _, err := fs.Stat(fs.PathJoin(dir, "db")); err == nil {
			return 0, nil
		}
		return current, writeFormat(fs, dir, current)
	}
	if err != nil {
		return 0, fmt.Errorf("reading the storage format: %w", err)
	}
	word, number, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	version, err := strconv.Atoi(number)
	if word != formatWord || err != nil || version < 0 {
		return 0, fmt.Errorf("cannot understand %s: it says %.40q; restore the directory from a backup", fs.PathJoin(dir, formatFile), b)
	}
	if version > current {
		return 0, fmt.Errorf("the storage in %s was written by a newer Leasehold (format %d, this one knows %d); "+
			"run the newer version, or restore a backup of the older one", dir, version, current)
	}
	return version, nil
}

// migrate runs the steps from version on and writes down how far it got.
func (s *Store) migrate(version int, steps []migration) error {
	for ; version < len(steps); version++ {
		if err := steps[version](s.db); err != nil {
			return fmt.Errorf("cannot bring the storage in %s from format %d to %d: %w", s.opts.Path, version, version+1, err)
		}
		if err := writeFormat(s.opts.FS, s.opts.Path, version+1); err != nil {
			return err
		}
	}
	return nil
}

// writeFormat replaces the file in one step that a crash cannot tear.
func writeFormat(fs vfs.FS, dir string, version int) error {
	path := fs.PathJoin(dir, formatFile)
	f, err := fs.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err == nil {
		_, werr := fmt.Fprintf(f, "%s %d\n", formatWord, version)
		err = errors.Join(werr, f.Sync(), f.Close())
	}
	if err == nil {
		err = errors.Join(fs.Rename(path+".new", path), syncDir(fs, dir))
	}
	if err != nil {
		return fmt.Errorf("writing the storage format: %w", err)
	}
	return nil
}

func readFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
