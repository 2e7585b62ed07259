package storage

import (
	"context"
	"strings"
)

// Folder gives the names directly below a folder of keys parted by slashes:
// keys, and folders with a slash at their end. folder is empty or ends in a
// slash. It seeks over what is inside of folders, so the cost is that of the
// names given. A row that cannot be read has a name like any other.
func Folder(ctx context.Context, b Backend, folder string) ([]string, error) {
	var names []string
	err := b.View(ctx, func(v View) error {
		for from, end := folder, PrefixEnd(folder); ; {
			next := ""
			err := ScanEach(v, from, end, 0, func(key string, _ []byte, _ error) bool {
				name := key[len(folder):]
				if i := strings.IndexByte(name, '/'); i >= 0 {
					name = name[:i+1]
					next = PrefixEnd(folder + name)
				}
				names = append(names, name)
				return next == ""
			})
			if err != nil || next == "" {
				return err
			}
			from = next
		}
	})
	return names, err
}
