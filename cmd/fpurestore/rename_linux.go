package main

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// renameNew renames within a directory, where nothing of the new name is.
func renameNew(dir *os.Root, from, to string) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	err = unix.Renameat2(fd, from, fd, to, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST):
		return errThere
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS): // a file system or kernel without the flag
		return renameIfNew(dir, from, to)
	}
	return err
}
