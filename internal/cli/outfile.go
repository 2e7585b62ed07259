package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// outTarget is where a command's output goes: standard output, a device or
// pipe, or a file.
type outTarget struct {
	stdout  io.Writer
	name    string      // as given; "" for standard output
	path    string      // with links resolved
	old     fs.FileInfo // what is there; nil if nothing is
	replace bool
	perm    fs.FileMode // of a new file, before umask
}

// outTarget looks whether a file may be written, before the work begins. ""
// and "-" are standard output.
func (c *call) outTarget(name string, replace bool, perm fs.FileMode) (*outTarget, error) {
	t := &outTarget{stdout: c.cfg.Stdout, replace: replace, perm: perm}
	if name == "" || name == "-" {
		return t, nil
	}
	t.name, t.path = name, expandHome(c.cfg.Getenv, name)
	if real, err := filepath.EvalSymlinks(t.path); err == nil {
		t.path = real // the link stays, what it points to is replaced
	}
	old, err := os.Stat(t.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if to, err := os.Readlink(t.path); err == nil { // what it leads to is not made: a link may be anybody's
			return nil, localf("Writing %s: it is a link to %s, which is not there", name, to)
		}
		return t, nil
	case err != nil:
		return nil, localf("Writing %s: %v", name, err)
	case old.IsDir():
		return nil, localf("Writing %s: it is a directory", name)
	case old.Mode().IsRegular() && !replace:
		return nil, t.there()
	}
	t.old = old
	return t, nil
}

func (t *outTarget) there() error {
	return localf("%s is there already. -force replaces it.", t.name)
}

// direct reports whether what is written is seen at once: it then cannot be
// taken back.
func (t *outTarget) direct() bool {
	return t.name == "" || t.old != nil && !t.old.Mode().IsRegular()
}

// outFile is output that is there whole or not at all: it grows under another
// name beside its target, and gets its own at the end.
type outFile struct {
	io.Writer
	target *outTarget
	file   *os.File // nil: standard output, which is not ours to close
	temp   string   // "": the file is written in its place
}

func (t *outTarget) create() (*outFile, error) {
	if t.name == "" {
		return &outFile{Writer: t.stdout, target: t}, nil
	}
	if t.direct() {
		f, err := os.OpenFile(t.path, os.O_WRONLY, 0)
		if err != nil {
			return nil, localf("Writing %s: %v", t.name, err)
		}
		return &outFile{Writer: f, target: t, file: f}, nil
	}
	perm := t.perm
	if t.old != nil {
		perm = t.old.Mode().Perm()
	}
	dir, base := filepath.Split(t.path)
	for n := os.Getpid(); ; n++ {
		temp := filepath.Join(dir, fmt.Sprintf(".%s.%d.part", base, n))
		f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil && t.old != nil {
			if err = f.Chmod(perm); err != nil { // umask has taken its part
				err = errors.Join(err, f.Close(), os.Remove(temp))
			}
		}
		if err != nil {
			return nil, localf("Writing %s: %v", t.name, err)
		}
		return &outFile{Writer: f, target: t, file: f, temp: temp}, nil
	}
}

// finish gives the file its name.
func (o *outFile) finish() error {
	if o.file == nil {
		return nil
	}
	var err error
	if o.temp != "" && o.target.old != nil {
		err = o.file.Sync() // the old file goes only when the new one is safe
	}
	err = errors.Join(err, o.file.Close())
	if o.temp != "" && err == nil {
		err = o.name()
	}
	if err != nil {
		return localf("Writing %s: %v", o.target.name, err)
	}
	o.file = nil
	return nil
}

func (o *outFile) name() error {
	if !o.target.replace {
		// A link does not replace what came there in the meantime. Where there
		// are no links, one looks and hopes.
		err := os.Link(o.temp, o.target.path)
		if err == nil {
			return os.Remove(o.temp)
		}
		if _, serr := os.Lstat(o.target.path); serr == nil {
			return errors.New("somebody else has written it in the meantime")
		}
	}
	return os.Rename(o.temp, o.target.path)
}

// discard removes what is not finished; after finish it does nothing.
func (o *outFile) discard() {
	if o.file == nil {
		return
	}
	_ = o.file.Close()
	if o.temp != "" {
		_ = os.Remove(o.temp)
	}
}
