package convert

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	noFollow = unix.O_NOFOLLOW
	onlyDir  = unix.O_DIRECTORY
)

// lock takes an exclusive lock that ends with the process.
func lock(f *os.File) error { return flock(f, unix.LOCK_EX) }

// lockShared takes a lock that keeps exclusive ones away.
func lockShared(f *os.File) error { return flock(f, unix.LOCK_SH) }

// flock goes without a lock where the file system has none. NFS, which makes a
// byte range lock of it, has none for directories: that would need a descriptor
// to write to (EBADF, flock(2)).
func flock(f *os.File, how int) error {
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return &BusyError{f.Name()}
	case errors.Is(err, unix.EBADF), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOTSUP),
		errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return nil
	case err != nil:
		return &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
	return nil
}

// renameNoReplace renames if the new name is free. File systems without the flag
// (EINVAL) get a check and a plain rename.
func renameNoReplace(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS):
		if _, err := os.Lstat(to); err == nil {
			return existsError(to)
		}
		return os.Rename(from, to)
	case errors.Is(err, unix.EEXIST):
		return existsError(to)
	case err != nil:
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// syncTree makes everything on d's file system durable: one call instead of one
// per file. Since Linux 5.8 it reports write errors.
func syncTree(d *os.File) error {
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return &fs.PathError{Op: "syncfs", Path: d.Name(), Err: err}
	}
	return nil
}

// fileID tells files apart.
type fileID struct{ dev, ino uint64 }

// linkID returns a file's identity, and whether it has more than one name.
func linkID(info fs.FileInfo) (fileID, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, false
	}
	return fileID{uint64(st.Dev), st.Ino}, st.Nlink > 1
}

// cloneFile copies the content of src to the new file dst: by reflink where the
// file system can, else the data between the holes, in the kernel.
func cloneFile(dst, src string) error {
	in, err := os.OpenFile(src, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err = unix.IoctlFileClone(int(out.Fd()), int(in.Fd())); err != nil {
		err = copyData(out, in)
	}
	return errors.Join(err, out.Close())
}

// copyData copies the extents that hold data and leaves holes as holes.
func copyData(out, in *os.File) error {
	info, err := in.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if err := out.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO):
			return nil // only a hole is left
		case err != nil: // no such seek here: all of it is data
			data = at
		}
		end, err := unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			end = size
		}
		if _, err := in.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(data, io.SeekStart); err != nil {
			return err
		}
		// io.CopyN on two files is copy_file_range.
		if _, err := io.CopyN(out, in, end-data); err != nil {
			return &fs.PathError{Op: "copy", Path: in.Name(), Err: err}
		}
		at = end
	}
	return nil
}

// copyMeta gives dst the owner, mode, extended attributes and times of src.
func copyMeta(dst, src string) error {
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: src, Err: err}
	}
	if err := copyOwner(dst, &st); err != nil {
		return err
	}
	if err := copyXattrs(dst, src); err != nil {
		return err
	}
	if err := unix.Chmod(dst, st.Mode&0o7777); err != nil {
		return &fs.PathError{Op: "chmod", Path: dst, Err: err}
	}
	return copyTimes(dst, &st)
}

// copyLinkMeta is copyMeta for a symbolic link, which has no mode.
func copyLinkMeta(dst, src string) error {
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: src, Err: err}
	}
	if err := copyOwner(dst, &st); err != nil {
		return err
	}
	return copyTimes(dst, &st)
}

// copyOwner keeps the owner if this process may: like cp, it leaves its own where
// it may not (EPERM).
func copyOwner(dst string, st *unix.Stat_t) error {
	if err := unix.Lchown(dst, int(st.Uid), int(st.Gid)); err != nil && !errors.Is(err, unix.EPERM) {
		return &fs.PathError{Op: "chown", Path: dst, Err: err}
	}
	return nil
}

func copyTimes(dst string, st *unix.Stat_t) error {
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, dst, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimensat", Path: dst, Err: err}
	}
	return nil
}

// copyXattrs copies extended attributes. ENOTSUP: the file system has none. Those
// outside the user namespace may need a privilege (EPERM), or be the file system's
// own, and are then left out.
func copyXattrs(dst, src string) error {
	n, err := unix.Llistxattr(src, nil)
	if n == 0 || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "listxattr", Path: src, Err: err}
	}
	list := make([]byte, n)
	if n, err = unix.Llistxattr(src, list); err != nil {
		return &fs.PathError{Op: "listxattr", Path: src, Err: err}
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Lgetxattr(src, name, value)
		if err == nil {
			err = unix.Lsetxattr(dst, name, value[:n], 0)
		}
		if err != nil && (strings.HasPrefix(name, "user.") || !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTSUP)) {
			return &fs.PathError{Op: "setxattr " + name, Path: dst, Err: err}
		}
	}
	return nil
}
