package sys

import "syscall"

// diskAt tells how full the file system at a path is.
func diskAt(path string) (diskOut, bool) {
	var s syscall.Statfs_t
	if syscall.Statfs(path, &s) != nil {
		return diskOut{}, false
	}
	size := uint64(s.Bsize)
	d := diskOut{Path: path, Total: s.Blocks * size, Free: s.Bavail * size}
	d.Used = d.Total - s.Bfree*size
	return d, true
}
