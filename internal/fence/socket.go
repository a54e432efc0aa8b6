package fence

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxSocketName is what of a path fits into a socket's address, less some.
const maxSocketName = 100

// socketName is a name to bind or connect to for a socket at path, until done is
// called: the path itself, or one through the open directory where that is too
// long for a socket's address.
func socketName(path string) (name string, done func(), err error) {
	if len(path) < maxSocketName {
		return path, func() {}, nil
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open %s: %w", filepath.Dir(path), err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path)), func() { unix.Close(dir) }, nil
}
