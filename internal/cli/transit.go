package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/leasehold/leasehold/internal/secret"
)

func transitCommand() *command {
	return &command{
		name: "transit", short: "Encrypt files by keys of Transit, and bring keys along",
		long: "Files of any size are encrypted here, by a data key that the server wraps: the file " +
			"itself stays on this machine. Keys that were made elsewhere are wrapped here too, so " +
			"that nobody on the way sees them.",
		example: []string{"leasehold transit encrypt-file -key=backups -out=dump.enc dump.sql", "leasehold transit decrypt-file -out=dump.sql dump.enc"},
		sub:     []*command{transitEncryptFileCommand(), transitDecryptFileCommand(), transitImportCommand(), transitImportVersionCommand()},
	}
}

// transitFile are the flags of the two commands for files.
type transitFile struct {
	mount, key, out string
	force           bool
}

func (f *transitFile) flags(key string) []*flag {
	return []*flag{
		stringFlag(&f.key, "key", "NAME", key),
		stringFlag(&f.mount, "mount", "PATH", "Mount of the Transit engine; by default transit."),
		stringFlag(&f.out, "out", "FILE", "File to write; by default, and for \"-\", standard output."),
		boolFlag(&f.force, "force", "Replace FILE if it is there."),
	}
}

// at is a path below the mount.
func (f *transitFile) at(path string) string {
	if mount := cleanPath(f.mount); mount != "" {
		return mount + "/" + path
	}
	return "transit/" + path
}

// openInput opens the file that the first argument names, or standard input,
// and gives its size where that is known.
func (c *call) openInput() (in io.Reader, size int64, done func(), err error) {
	name := c.arg(0)
	if name == "" || name == "-" {
		return c.stdin, -1, func() {}, nil
	}
	f, err := typed(c, func() (*os.File, error) { return os.Open(expandHome(c.cfg.Getenv, name)) }) // a named pipe waits for whoever writes
	if errors.Is(err, exitStatus(exitStopped)) {
		return nil, 0, nil, err
	}
	if err != nil {
		return nil, 0, nil, localf("Reading %s: %v", name, err)
	}
	st, err := f.Stat()
	if err == nil && st.IsDir() {
		err = errors.New("it is a directory; pack it first, for example: tar c DIRECTORY | leasehold transit encrypt-file …")
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, nil, localf("Reading %s: %v", name, err)
	}
	if size = -1; st.Mode().IsRegular() {
		size = st.Size()
	}
	return f, size, func() { _ = f.Close() }, nil
}

// inputName is how messages call what is read.
func (c *call) inputName() string {
	if name := c.arg(0); name != "" && name != "-" {
		return name
	}
	return "standard input"
}

// dataKey is what Transit answers to a request for one, and for what is in one.
type dataKey struct {
	Ciphertext string        `json:"ciphertext"`
	Plaintext  secret.String `json:"plaintext"`
}

// askDataKey writes to Transit and gives the data key of its answer, which the
// caller wipes.
func (c *call) askDataKey(ctx context.Context, path string, body any) (wrapped string, key []byte, err error) {
	s, err := c.write(ctx, path, body)
	if err != nil {
		return "", nil, step(err, "asking for the data key at %s", path)
	}
	var k dataKey
	if s != nil && s.WrapInfo == nil {
		if err := s.Decode(&k); err != nil {
			return "", nil, err
		}
	}
	if k.Plaintext.IsZero() {
		return "", nil, localf("The reply of %s has no data key in it. If it was asked for wrapped (-wrap-ttl), leave that out.", path)
	}
	key, err = base64.StdEncoding.DecodeString(k.Plaintext.Reveal())
	if err != nil {
		return "", nil, localf("The data key that %s answered is no base64.", path)
	}
	return k.Ciphertext, key, nil
}

// through copies a file to its target by do: whole, or not at all.
func (c *call) through(ctx context.Context, doing string, target *outTarget, do func(context.Context, io.Writer) error) error {
	ctx, stop := untilHangup(ctx)
	defer stop()
	create := target.create
	if target.direct() { // a named pipe waits for whoever reads
		create = func() (*outFile, error) { return typed(c, target.create) }
	}
	out, err := create()
	if err != nil {
		return err
	}
	defer out.discard()
	if err := do(ctx, out); err != nil {
		if unwritten := (*outputError)(nil); errors.As(err, &unwritten) {
			c.once("What was written so far is not the whole file: do not use it.")
			return err
		}
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		left := target.name + " was not written"
		if target.direct() {
			left = "What was written so far is not the whole file: do not use it"
		}
		return localf("%s %s: %v. %s.", doing, c.inputName(), err, left)
	}
	return out.finish()
}

// untilHangup ends ctx when the terminal is gone too, since a part of a file,
// which may be in the clear, would be left. Under nohup it need not end.
func untilHangup(ctx context.Context) (context.Context, context.CancelFunc) {
	if signal.Ignored(syscall.SIGHUP) {
		return ctx, func() {}
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	return ctx, stop
}
