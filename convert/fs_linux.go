package convert

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nonBlock keeps an open from waiting: for the other end of a FIFO, or for the holder
// of a lease.
const nonBlock = unix.O_NONBLOCK

// lock takes an exclusive lock that ends with the process.
func lock(f *os.File) error { return flock(f, unix.LOCK_EX) }

// lockShared takes a lock that keeps exclusive ones away.
func lockShared(f *os.File) error { return flock(f, unix.LOCK_SH) }

func unlock(f *os.File) { unix.Flock(int(f.Fd()), unix.LOCK_UN) }

// flock goes without a lock where the file system has none. NFS, which makes a
// byte range lock of it, has none for directories: that would need a descriptor
// to write to (EBADF, flock(2)).
func flock(f *os.File, how int) error {
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return &BusyError{filepath.Clean(f.Name())}
	case errors.Is(err, unix.EBADF), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOTSUP),
		errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return nil
	case err != nil:
		return &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
	return nil
}

// renameNoReplace renames from one directory to another if the new name is free, out
// as the user gave it. File systems without the flag (EINVAL) get a check and a plain
// rename.
func renameNoReplace(from *os.File, old string, to *os.File, name, out string) error {
	err := unix.Renameat2(int(from.Fd()), old, int(to.Fd()), name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		var st unix.Stat_t
		if unix.Fstatat(int(to.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			return existsError(out)
		}
		err = unix.Renameat(int(from.Fd()), old, int(to.Fd()), name)
	}
	switch {
	case errors.Is(err, unix.EEXIST):
		return existsError(out)
	case err != nil:
		return &os.LinkError{Op: "rename", Old: filepath.Join(from.Name(), old), New: out, Err: err}
	}
	return nil
}

// rmdir removes an empty directory.
func rmdir(d *os.File, name string) error {
	if err := unix.Unlinkat(int(d.Fd()), name, unix.AT_REMOVEDIR); err != nil {
		return &fs.PathError{Op: "rmdir", Path: filepath.Join(d.Name(), name), Err: err}
	}
	return nil
}

// movable asks the kernel whether a file may be renamed, by a rename that it refuses:
// onto a directory. That comes last (EISDIR, fs/namei.c:vfs_rename, may_delete); what
// an immutable file, an append-only one or a sticky directory forbids comes before. A
// mount point is refused later yet, and seen by its attribute.
func movable(d *os.File, name, dir string) error {
	fd := int(d.Fd())
	switch err := unix.Renameat(fd, name, fd, dir); {
	case err == nil: // somebody took the directory away meanwhile
		return errors.Join(unix.EBUSY, unix.Renameat(fd, dir, fd, name))
	case !errors.Is(err, unix.EISDIR):
		return err
	}
	var st unix.Statx_t
	if err := unix.Statx(fd, name, unix.AT_SYMLINK_NOFOLLOW, 0, &st); err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return unix.EBUSY
	}
	return nil
}

// appendOnly reports whether names can be added to a directory, and never taken away.
func appendOnly(d *os.File) bool {
	var st unix.Statx_t
	return unix.Statx(int(d.Fd()), "", unix.AT_EMPTY_PATH, 0, &st) == nil && st.Attributes&unix.STATX_ATTR_APPEND != 0
}

// syncTree makes everything on d's file system durable: one call instead of one
// per file. Since Linux 5.8 it reports write errors.
func syncTree(d *os.File) error {
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return &fs.PathError{Op: "syncfs", Path: filepath.Clean(d.Name()), Err: err}
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

func owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

// self is the user to whom new files belong: that of setfsuid(2), which is nearly
// always the effective one.
func self() uint32 {
	me, _ := unix.SetfsuidRetUid(-1) // changes nothing
	return uint32(me)
}

// clone copies the content of src to the new file dst: by reflink where the file
// system can, else the data between the holes, in the kernel.
func clone(dst, src *os.File) error {
	fd := int(src.Fd())
	if unix.IoctlFileClone(int(dst.Fd()), fd) == nil {
		return nil
	}
	info, err := src.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if err := dst.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		data, err := unix.Seek(fd, at, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO):
			return nil // only a hole is left
		case err != nil: // no such seek here: all of it is data
			data = at
		}
		end, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			end = size
		}
		if _, err := src.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := dst.Seek(data, io.SeekStart); err != nil {
			return err
		}
		for at = data; at < end; {
			// io.CopyN on two files is copy_file_range.
			n, err := io.CopyN(dst, src, min(end-at, writeAhead))
			if err != nil {
				return &fs.PathError{Op: "copy", Path: src.Name(), Err: err}
			}
			if n == writeAhead { // the disk begins before all is copied
				unix.SyncFileRange(int(dst.Fd()), at, n, unix.SYNC_FILE_RANGE_WRITE)
			}
			at += n
		}
	}
	return nil
}

// writeAhead is how much of a large file is copied, in bytes, before the disk is told to
// write it.
const writeAhead = 32 << 20

// Extended attributes that decide who may do what. An access list narrows or widens
// what the mode says.
const (
	capability = "security.capability"
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// dropACL takes away what a new file or directory inherited: a mode that is set later
// would open it to those whom the lists name.
func dropACL(f *os.File) error {
	for _, name := range []string{accessACL, defaultACL} {
		err := unix.Fremovexattr(int(f.Fd()), name)
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EACCES) {
			return &fs.PathError{Op: "removexattr " + name, Path: filepath.Clean(f.Name()), Err: err}
		}
	}
	return nil
}

// copyMeta gives dst the owner, mode, extended attributes and times of src, and no
// right that src does not give. Set-id bits and capabilities are kept of a file whose
// content and owner are, and only where they had an effect; a group that is not the
// old one has no more than others had.
func copyMeta(dst, src *os.File, rewritten bool) error {
	to, from := int(dst.Fd()), int(src.Fd())
	failed := func(op string, err error) error { return &fs.PathError{Op: op, Path: dst.Name(), Err: err} }
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return failed("stat", err)
	}
	user, group, err := copyOwner(to, &st)
	if err != nil {
		return failed("chown", err)
	}
	privileged := sync.OnceValue(func() bool { return user && group && !rewritten && (nosuid(to) || !nosuid(from)) })
	lists, err := copyXattrs(to, from, func(name string) bool {
		switch name {
		case capability:
			return privileged()
		case accessACL, defaultACL:
			return group
		}
		return true
	})
	if err != nil {
		return failed("copy extended attributes", err)
	}
	mode := st.Mode & 0o7777
	if mode&(unix.S_ISUID|unix.S_ISGID) != 0 && !privileged() {
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	if !group || !lists {
		mode &= mode<<3 | ^uint32(0o070)
	}
	if err := unix.Fchmod(to, mode); err != nil {
		return failed("chmod", err)
	}
	// futimens(3) is utimensat without a path.
	times := [2]unix.Timespec{st.Atim, st.Mtim}
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(to), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0); errno != 0 {
		return failed("utimensat", errno)
	}
	return nil
}

// nosuid reports whether set-id bits have no effect where a file lies.
func nosuid(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Flags&unix.ST_NOSUID != 0
}

// copyOwner keeps owner and group if this process may: like cp, it leaves its own
// where it may not (EPERM), or where they have no number in its user namespace
// (EINVAL). It reports which are kept.
func copyOwner(fd int, st *unix.Stat_t) (user, group bool, err error) {
	refused := func(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) }
	err = unix.Fchown(fd, int(st.Uid), int(st.Gid))
	if refused(err) {
		err = unix.Fchown(fd, -1, int(st.Gid))
	}
	if err != nil && !refused(err) {
		return false, false, err
	}
	var now unix.Stat_t
	err = unix.Fstat(fd, &now)
	return now.Uid == st.Uid, now.Gid == st.Gid, err
}

// copyLinkMeta is copyMeta for a symbolic link, which has no mode. No other user may
// write where it is.
func copyLinkMeta(r *os.Root, name string, info fs.FileInfo) error {
	d, err := r.Open(".")
	if err != nil {
		return named(r, err)
	}
	defer d.Close()
	st, fd := info.Sys().(*syscall.Stat_t), int(d.Fd())
	err = unix.Fchownat(fd, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	if err == nil || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		times := []unix.Timespec{unix.Timespec(st.Atim), unix.Timespec(st.Mtim)}
		err = unix.UtimesNanoAt(fd, name, times, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return &fs.PathError{Op: "utimensat", Path: filepath.Join(r.Name(), name), Err: err}
	}
	return nil
}

// copyXattrs copies the extended attributes that are wanted. ENOTSUP: the file system
// has none. Those outside the user namespace may need a privilege (EPERM), or be the
// file system's own, and are then left out; lists reports that no access list was.
func copyXattrs(to, from int, wanted func(name string) bool) (lists bool, err error) {
	n, err := unix.Flistxattr(from, nil)
	if n == 0 || errors.Is(err, unix.ENOTSUP) {
		return true, nil
	}
	names, value := make([]byte, 64<<10), make([]byte, 64<<10) // XATTR_LIST_MAX, XATTR_SIZE_MAX
	if err == nil {
		n, err = unix.Flistxattr(from, names)
	}
	if err != nil {
		return false, err
	}
	lists = true
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		err := error(unix.EPERM)
		if wanted(name) {
			if n, err = unix.Fgetxattr(from, name, value); err == nil {
				err = unix.Fsetxattr(to, name, value[:n], 0)
			}
		}
		switch {
		case err == nil:
		case strings.HasPrefix(name, "user.") || !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTSUP):
			return false, fmt.Errorf("%s: %w", name, err)
		case name == accessACL:
			lists = false
		}
	}
	return lists, nil
}
