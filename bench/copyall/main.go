// Copyall copies a directory of files as durably as fpuimg convert writes one: to a
// hidden name, in the kernel, with one syncfs, then a rename and its fsync.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if err := copyDir(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "copyall:", err)
		os.Exit(1)
	}
}

func copyDir(from, to string) error {
	stage := filepath.Join(filepath.Dir(to), "."+filepath.Base(to))
	if err := os.Mkdir(stage, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyFile(filepath.Join(from, e.Name()), filepath.Join(stage, e.Name())); err != nil {
			return err
		}
	}
	if err := withDir(stage, unix.Syncfs); err != nil {
		return err
	}
	if err := os.Rename(stage, to); err != nil {
		return err
	}
	return withDir(filepath.Dir(to), unix.Fsync)
}

// copyFile keeps owner, mode and times, and asks for extended attributes, as cp -a
// does.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in) // copy_file_range
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if _, err := unix.Llistxattr(from, nil); err != nil {
		return err
	}
	if err := os.Chmod(to, info.Mode().Perm()); err != nil {
		return err
	}
	return os.Chtimes(to, info.ModTime(), info.ModTime())
}

func withDir(path string, sync func(fd int) error) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(sync(int(d.Fd())), d.Close())
}
