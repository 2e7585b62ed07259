package embedded

import (
	"math"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logFS stops the store when the log cannot be written, closed or begun. For
// some of these errors Pebble panics where a panic kills the process, so they
// must not reach it.
type logFS struct {
	vfs.FS
	f *failure
}

func (fs logFS) Unwrap() vfs.FS { return fs.FS }

func (fs logFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := fs.FS.Create(name, c)
	return fs.log(name, file, err)
}

func (fs logFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := fs.FS.ReuseForWrite(old, name, c)
	return fs.log(name, file, err)
}

func (fs logFS) OpenDir(name string) (vfs.File, error) {
	dir, err := fs.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return durable{dir, fs.f, name}, nil
}

func (fs logFS) log(name string, file vfs.File, err error) (vfs.File, error) {
	if !strings.HasSuffix(name, ".log") {
		return file, err
	}
	fs.f.must("making", name, err)
	l := &logFile{durable: durable{file, fs.f, name}}
	if info, err := file.Stat(); err == nil {
		l.laid = info.Size() // a log that is used again has its blocks
	}
	return l, nil
}

// durable is a log, or a directory, whose entries must be as durable.
type durable struct {
	vfs.File
	f    *failure
	name string
}

func (l durable) Sync() error {
	l.f.must("syncing", l.name, l.File.Sync())
	return nil
}

func (l durable) SyncData() error {
	l.f.must("syncing", l.name, l.File.SyncData())
	return nil
}

func (l durable) SyncTo(length int64) (bool, error) {
	full, err := l.File.SyncTo(length)
	l.f.must("syncing", l.name, err)
	return full, nil
}

func (l durable) Close() error {
	l.f.must("closing", l.name, l.File.Close())
	return nil
}

// logFile is a log whose blocks are written before they are needed, with zeros.
//
// A sync of a file that grew, or whose blocks were never written, has to write
// the inode as well, and wait for that, too: it took 190 µs, and 75 µs of the
// processor, where one inside of what had been written took 130 and 48. What
// reads a log stops at zeros as it stops at the rest of a log used again.
type logFile struct {
	durable
	written int64
	laid    int64 // written once, with data or zeros, up to here
}

// laidAhead is how many bytes of zeros are written at a time: a sync in some
// dozens has them to write, which takes it a millisecond more.
const laidAhead = 256 << 10

var zeros [laidAhead]byte

func (l *logFile) Write(p []byte) (int, error) {
	for end := l.written + int64(len(p)); end > l.laid; l.laid += laidAhead {
		if _, err := l.File.WriteAt(zeros[:], l.laid); err != nil {
			l.laid = math.MaxInt64 - laidAhead // the log does without; if the disk is ill, the write says so
		}
	}
	n, err := l.File.Write(p)
	l.written += int64(n)
	l.f.must("writing", l.name, err)
	return n, nil
}
