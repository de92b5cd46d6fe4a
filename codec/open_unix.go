//go:build unix

package codec

import (
	"errors"
	"os"
	"syscall"
)

// openNoFollow opens a file for reading. It neither follows a symbolic link in the
// last component nor waits for the writer of a pipe.
func openNoFollow(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, &FormatError{path, 0, "file", ErrIrregular}
	}
	return f, err
}
