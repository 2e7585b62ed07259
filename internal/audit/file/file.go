// Package file is the audit device that appends records to a file or to the
// standard output.
//
// Every record that was acknowledged is one complete line. Concurrent records
// share a write, which O_APPEND keeps in one piece; with Sync they share an
// fsync too. When the disk is full in the middle of a line, what came of the
// line is cut off again, or, where that cannot be done, ended with a newline
// before the next record, so that later lines can be read. The same is done
// when a file is opened that ends in half a line, as a crash may leave it.
//
// Any failure fails the records concerned at once. The file is opened anew for
// the next record, so that the device is well as soon as there is room again.
// A pipe whose reader has stopped is waited for once: until it has taken a
// record again, one that does not fit it is refused almost at once, so that the
// answers for which another device has recorded enough do not wait.
package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/leasehold/leasehold/internal/audit"
)

// DefaultMode is the mode of an audit log that did not exist.
const DefaultMode fs.FileMode = 0o600

// How long a record waits for the reader of a pipe, and of one that is known to
// have stopped.
const (
	pipeTimeout = 5 * time.Second
	hungTimeout = 5 * time.Millisecond
)

// Config says where records go.
type Config struct {
	// Path of the file. "stdout" and "/dev/stdout" are the standard output,
	// "discard" and "/dev/null" take every record and keep none.
	Path string
	// Mode the file is given when it is opened. Zero leaves an existing
	// file's mode alone and makes a new one with DefaultMode.
	Mode fs.FileMode
	// Sync asks for an fsync before a record counts as written. Without it a
	// record is safe from the death of the server, not from that of the
	// machine.
	Sync bool
}

// Device writes to one file.
type Device struct {
	cfg    Config
	writes audit.Combiner

	// Only what runs inside writes (its Flush or Exclusive) touches these.
	file   *os.File // nil: to be opened for the next record
	size   int64    // of the file as far as we know, if it is plain
	plain  bool     // a regular file: it has a size and can be cut and synced
	torn   bool     // what we wrote last ends in the middle of a line
	hung   bool     // the reader of a pipe has not taken the record before in time
	closed bool
}

var _ audit.Device = (*Device)(nil)

// New makes a device, which opens its file for the first record. Reopen opens
// it at once and says what is wrong with it.
func New(cfg Config) *Device {
	d := &Device{cfg: cfg}
	d.writes.Flush = d.flush
	return d
}

// Write appends lines.
func (d *Device) Write(lines []byte) error { return d.writes.Write(lines) }

// Reopen opens the file at the path anew, as is needed after a log rotation.
func (d *Device) Reopen() (err error) {
	d.writes.Exclusive(func() {
		if d.closed {
			err = audit.ErrClosed
			return
		}
		old := d.file
		if err = d.open(); err == nil {
			closeFile(old)
		}
	})
	return err
}

// Close closes the file.
func (d *Device) Close() error {
	d.writes.Exclusive(func() {
		d.closed = true
		d.letGo()
	})
	return nil
}

func (d *Device) isStdout() bool { return d.cfg.Path == "stdout" || d.cfg.Path == "/dev/stdout" }

func (d *Device) discards() bool { return d.cfg.Path == "discard" || d.cfg.Path == "/dev/null" }

// open puts the file at the path in place of d.file, which it does not close.
func (d *Device) open() error {
	switch {
	case d.discards():
		return nil
	case d.isStdout():
		d.file, d.plain = standardOutput(d.patience()), false
		return nil
	}
	mode := d.cfg.Mode
	if mode == 0 {
		mode = DefaultMode
	}
	// Without O_NONBLOCK, opening a named pipe waits for its reader.
	f, err := os.OpenFile(d.cfg.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|syscall.O_NONBLOCK, mode)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		closeFile(f)
		return err
	}
	plain := st.Mode().IsRegular()
	// The mode of OpenFile is for a new file only, and the umask is taken
	// from it.
	if plain && d.cfg.Mode != 0 && st.Mode().Perm() != d.cfg.Mode {
		if err := f.Chmod(d.cfg.Mode); err != nil {
			closeFile(f)
			return err
		}
	}
	d.file, d.plain, d.size = f, plain, st.Size()
	if plain { // of a pipe we know only what we wrote ourselves
		d.torn = st.Size() > 0 && endsTorn(d.cfg.Path, st.Size())
	}
	return nil
}

// standardOutput is os.Stdout so that a reader which has stopped does not keep
// us waiting. As it is inherited, it waits for ever: a pipe is opened once more
// to get deadlines, and a socket, which cannot be, is given one of its own.
func standardOutput(patience time.Duration) *os.File {
	raw, err := os.Stdout.SyscallConn()
	if err != nil {
		return os.Stdout
	}
	again := os.Stdout
	_ = raw.Control(func(fd uintptr) {
		limit := syscall.NsecToTimeval(int64(patience))
		if syscall.SetsockoptTimeval(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit) == nil {
			return
		}
		if st, err := os.Stdout.Stat(); err != nil || st.Mode()&fs.ModeNamedPipe == 0 {
			return
		}
		if f, err := os.OpenFile(fmt.Sprintf("/dev/fd/%d", fd), os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			again = f
		}
	})
	return again
}

// endsTorn reports whether the file ends in anything but a newline. If it
// cannot be read that counts as torn: an empty line does no harm.
func endsTorn(path string, size int64) bool {
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer closeFile(f)
	var last [1]byte
	if _, err := f.ReadAt(last[:], size-1); err != nil {
		return true
	}
	return last[0] != '\n'
}

// patience is how long a record may wait for the reader of a pipe.
func (d *Device) patience() time.Duration {
	if d.hung {
		return hungTimeout
	}
	return pipeTimeout
}

// flush writes a batch. See audit.Combiner for its contract.
func (d *Device) flush(lines []byte, ends []int) (taken int, err error) {
	if d.closed {
		return 0, audit.ErrClosed
	}
	if d.discards() {
		return len(lines), nil
	}
	taken, err = d.write(lines, ends)
	was := d.hung
	d.hung = !d.plain && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.EAGAIN)) // the latter by a socket's own limit
	switch {
	case d.isStdout():
		if err != nil || was { // a socket's limit is set when it is opened
			d.letGo()
		}
	case err != nil && !d.hung: // to a reader that goes on later, a pipe must not end
		d.letGo()
	}
	return taken, err
}

// write is flush to a file that is opened if it is not.
func (d *Device) write(lines []byte, ends []int) (taken int, err error) {
	if d.file == nil {
		if err := d.open(); err != nil {
			return 0, err
		}
	}
	if !d.plain {
		// A pipe whose reader has stopped reading must not stop us. Where
		// there are no deadlines (a standard output that is a file, or a
		// socket with its own) the call fails and nothing is lost.
		_ = d.file.SetWriteDeadline(time.Now().Add(d.patience()))
	}
	if d.torn {
		if _, err := d.file.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		d.torn = false
		d.size++
	}
	n, err := d.file.Write(lines)
	if err == nil {
		d.size += int64(n)
		if err := d.sync(); err != nil {
			return 0, err
		}
		return n, nil
	}
	taken = whole(ends, n)
	d.cut(n, taken)
	if taken > 0 && d.sync() != nil {
		taken = 0
	}
	return taken, err
}

// sync brings what was written to the disk, where that was asked for. After a
// failure what is there is unknown, so that nobody may be told it is.
func (d *Device) sync() error {
	if !d.cfg.Sync || !d.plain {
		return nil
	}
	if err := d.file.Sync(); err != nil {
		return fmt.Errorf("syncing: %w", err)
	}
	return nil
}

// whole is how many of the first n bytes are lines written to their ends.
func whole(ends []int, n int) int {
	taken := 0
	for _, end := range ends {
		if end > n {
			break
		}
		taken = end
	}
	return taken
}

// cut takes half a line off the end of the file, after a write of which n bytes
// arrived but only taken belong to whole lines. A file that somebody else may
// have appended to meanwhile is left alone: its torn end gets a newline later.
func (d *Device) cut(n, taken int) {
	if n == taken {
		return
	}
	d.torn = true
	if !d.plain {
		return
	}
	if st, err := d.file.Stat(); err == nil && st.Size() == d.size+int64(n) {
		d.torn = d.file.Truncate(d.size+int64(taken)) != nil
	}
}

// letGo closes the file after a failure; the next record opens it anew.
func (d *Device) letGo() {
	closeFile(d.file)
	d.file = nil
}

// closeFile closes f unless it is none or not ours. That closing failed is not
// told: what was written had an answer of its own.
func closeFile(f *os.File) {
	if f != nil && f != os.Stdout {
		_ = f.Close()
	}
}
