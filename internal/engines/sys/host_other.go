//go:build !linux

package sys

func diskAt(string) (diskOut, bool) { return diskOut{}, false }
