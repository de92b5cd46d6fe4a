//go:build !unix

package codec

import "os"

// openNoFollow opens a file for reading if it is not a symbolic link.
func openNoFollow(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return nil, &FormatError{path, 0, "file", ErrIrregular}
	}
	return os.Open(path)
}
