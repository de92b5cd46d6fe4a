package sysfault

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// none is an argument position that a call does not have.
const none = -1

// A form says how a call names the file that it changes, by positions among its
// arguments.
type form struct {
	name string

	fd    int // descriptor of the file
	dir   int // descriptor that a relative path starts from
	path  int
	flags int // AT_ flags

	// nofollow is set if the call itself does not follow a last symbolic link,
	// whatever the flags say.
	nofollow bool

	dir2, path2 int // the new name

	// when, if not nil, tells calls that change something from those that do not.
	when func(tid int, args *[6]uint64) bool
	// opens is set for calls that make a descriptor of the path: like those on a
	// descriptor, they count for regular files and directories only.
	opens bool
}

func onFD(name string, fd int) form {
	return form{name: name, fd: fd, dir: none, path: none, flags: none, dir2: none, path2: none}
}

func onPath(name string, path int) form {
	return form{name: name, fd: none, dir: none, path: path, flags: none, dir2: none, path2: none}
}

func onEntry(name string, path int) form {
	f := onPath(name, path)
	f.nofollow = true
	return f
}

func onPathAt(name string, dir, flags int) form {
	return form{name: name, fd: none, dir: dir, path: dir + 1, flags: flags, dir2: none, path2: none}
}

func onEntryAt(name string, dir int) form {
	f := onPathAt(name, dir, none)
	f.nofollow = true
	return f
}

func (f form) onlyIf(when func(tid int, args *[6]uint64) bool) form {
	f.when = when
	return f
}

func (f form) opening() form {
	f.opens = true
	return f
}

func (f form) to(dir, path int) form {
	f.nofollow = true
	f.dir2, f.path2 = dir, path
	return f
}

// forms are the mutating calls by number. Signatures: syscalls(2) and the page of
// each call.
var forms = map[uint64]form{
	unix.SYS_OPEN:    onPath("open", 0).onlyIf(opensForWriting(1)).opening(),
	unix.SYS_OPENAT:  onPathAt("openat", 0, none).onlyIf(opensForWriting(2)).opening(),
	unix.SYS_OPENAT2: onPathAt("openat2", 0, none).onlyIf(openHowForWriting).opening(),
	unix.SYS_CREAT:   onPath("creat", 0).opening(),

	unix.SYS_WRITE:           onFD("write", 0),
	unix.SYS_PWRITE64:        onFD("pwrite64", 0),
	unix.SYS_WRITEV:          onFD("writev", 0),
	unix.SYS_PWRITEV:         onFD("pwritev", 0),
	unix.SYS_PWRITEV2:        onFD("pwritev2", 0),
	unix.SYS_COPY_FILE_RANGE: onFD("copy_file_range", 2),
	unix.SYS_SENDFILE:        onFD("sendfile", 0),
	unix.SYS_SPLICE:          onFD("splice", 2),
	unix.SYS_IOCTL:           onFD("ioctl", 0).onlyIf(ioctlChanges),
	unix.SYS_FALLOCATE:       onFD("fallocate", 0),
	unix.SYS_FTRUNCATE:       onFD("ftruncate", 0),
	unix.SYS_TRUNCATE:        onPath("truncate", 0),

	unix.SYS_FSYNC:           onFD("fsync", 0),
	unix.SYS_FDATASYNC:       onFD("fdatasync", 0),
	unix.SYS_SYNC_FILE_RANGE: onFD("sync_file_range", 0),
	unix.SYS_SYNCFS:          onFD("syncfs", 0),

	unix.SYS_RENAME:    onPath("rename", 0).to(none, 1),
	unix.SYS_RENAMEAT:  onPathAt("renameat", 0, none).to(2, 3),
	unix.SYS_RENAMEAT2: onPathAt("renameat2", 0, none).to(2, 3),
	unix.SYS_LINK:      onPath("link", 0).to(none, 1),
	unix.SYS_LINKAT:    onPathAt("linkat", 0, 4).to(2, 3),
	unix.SYS_SYMLINK:   onEntry("symlink", 1),
	unix.SYS_SYMLINKAT: onEntryAt("symlinkat", 1),
	unix.SYS_UNLINK:    onEntry("unlink", 0),
	unix.SYS_UNLINKAT:  onEntryAt("unlinkat", 0),
	unix.SYS_RMDIR:     onEntry("rmdir", 0),
	unix.SYS_MKDIR:     onEntry("mkdir", 0),
	unix.SYS_MKDIRAT:   onEntryAt("mkdirat", 0),
	unix.SYS_MKNOD:     onEntry("mknod", 0),
	unix.SYS_MKNODAT:   onEntryAt("mknodat", 0),

	unix.SYS_CHMOD:     onPath("chmod", 0),
	unix.SYS_FCHMOD:    onFD("fchmod", 0),
	unix.SYS_FCHMODAT:  onPathAt("fchmodat", 0, none),
	unix.SYS_FCHMODAT2: onPathAt("fchmodat2", 0, 3),
	unix.SYS_CHOWN:     onPath("chown", 0),
	unix.SYS_LCHOWN:    onEntry("lchown", 0),
	unix.SYS_FCHOWN:    onFD("fchown", 0),
	unix.SYS_FCHOWNAT:  onPathAt("fchownat", 0, 4),
	unix.SYS_UTIME:     onPath("utime", 0),
	unix.SYS_UTIMES:    onPath("utimes", 0),
	unix.SYS_FUTIMESAT: onPathAt("futimesat", 0, none),
	unix.SYS_UTIMENSAT: onPathAt("utimensat", 0, 3),

	unix.SYS_SETXATTR:      onPath("setxattr", 0),
	unix.SYS_LSETXATTR:     onEntry("lsetxattr", 0),
	unix.SYS_FSETXATTR:     onFD("fsetxattr", 0),
	unix.SYS_SETXATTRAT:    onPathAt("setxattrat", 0, 2),
	unix.SYS_REMOVEXATTR:   onPath("removexattr", 0),
	unix.SYS_LREMOVEXATTR:  onEntry("lremovexattr", 0),
	unix.SYS_FREMOVEXATTR:  onFD("fremovexattr", 0),
	unix.SYS_REMOVEXATTRAT: onPathAt("removexattrat", 0, 2),
	unix.SYS_FILE_SETATTR:  onPathAt("file_setattr", 0, 4),
}

// writes reports whether open flags ask for a new file, an empty file, or a
// descriptor to write to. O_TMPFILE needs write access (open(2)).
func writes(flags uint64) bool {
	if flags&unix.O_PATH != 0 {
		return false // the other flags are ignored then
	}
	return flags&(unix.O_CREAT|unix.O_TRUNC) != 0 || flags&unix.O_ACCMODE != unix.O_RDONLY
}

func opensForWriting(flags int) func(int, *[6]uint64) bool {
	return func(_ int, args *[6]uint64) bool { return writes(args[flags]) }
}

func openHowForWriting(tid int, args *[6]uint64) bool {
	var flags [8]byte // first field of struct open_how, openat2(2)
	return readMemory(tid, args[2], flags[:]) == len(flags) && writes(binary.NativeEndian.Uint64(flags[:]))
}

func ioctlChanges(_ int, args *[6]uint64) bool {
	const fsIocFSSetXattr = 0x401c5820 // FS_IOC_FSSETXATTR, <linux/fs.h>
	switch uint32(args[1]) {           // the kernel takes an unsigned int
	case unix.FICLONE, unix.FICLONERANGE, unix.FS_IOC_SETFLAGS, fsIocFSSetXattr:
		return true
	}
	return false
}

// classify returns the call that a thread is about to make, without a number,
// and whether it is a mutating one.
func classify(tid int, info *syscallInfo) (Call, bool) {
	f, ok := forms[info.nr]
	if !ok || f.when != nil && !f.when(tid, &info.args) {
		return Call{}, false
	}
	call := Call{Name: f.name}
	if f.fd != none {
		file := descriptor(tid, int32(info.args[f.fd]))
		call.Path = file.path
		return call, file.mutable()
	}

	dir := int32(unix.AT_FDCWD)
	if f.dir != none {
		dir = int32(info.args[f.dir])
	}
	if info.args[f.path] == 0 {
		// No path is the descriptor itself, in utimensat and futimesat (and the
		// xattr calls, with AT_EMPTY_PATH). Else the call fails by itself.
		file := descriptor(tid, dir)
		call.Path = file.path
		return call, file.mutable()
	}
	path, ok := readString(tid, info.args[f.path])
	if !ok {
		return Call{}, false // EFAULT or ENAMETOOLONG
	}
	follow := !f.nofollow
	if f.flags != none {
		switch flags := info.args[f.flags]; {
		case flags&unix.AT_SYMLINK_NOFOLLOW != 0:
			follow = false
		case flags&unix.AT_SYMLINK_FOLLOW != 0: // linkat
			follow = true
		}
	}
	file := lookup(tid, dir, path, follow)
	call.Path = file.path
	if f.opens && file.mode != 0 && !file.mutable() {
		return Call{}, false
	}
	if f.path2 != none {
		dir := int32(unix.AT_FDCWD)
		if f.dir2 != none {
			dir = int32(info.args[f.dir2])
		}
		path, ok := readString(tid, info.args[f.path2])
		if !ok {
			return Call{}, false
		}
		call.Dest = lookup(tid, dir, path, false).path
	}
	return call, true
}

// followed are the calls that unsupported looks at.
var followed = []uint64{unix.SYS_SETPGID, unix.SYS_SETSID, unix.SYS_IO_URING_SETUP, unix.SYS_IO_SETUP, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_MMAP}

// unsupported returns the name of a call that the harness cannot follow, or "".
func unsupported(tid int, info *syscallInfo) string {
	switch info.nr {
	case unix.SYS_SETPGID:
		return "setpgid"
	case unix.SYS_SETSID:
		return "setsid"
	case unix.SYS_IO_URING_SETUP:
		return "io_uring_setup"
	case unix.SYS_IO_SETUP:
		return "io_setup"
	case unix.SYS_OPEN_BY_HANDLE_AT:
		if writes(info.args[2]) {
			return "open_by_handle_at"
		}
	case unix.SYS_MMAP:
		prot, flags := info.args[2], info.args[3]
		// MAP_SHARED_VALIDATE has the bit of MAP_SHARED.
		if prot&unix.PROT_WRITE != 0 && flags&unix.MAP_SHARED != 0 && flags&unix.MAP_ANONYMOUS == 0 &&
			descriptor(tid, int32(info.args[4])).mutable() {
			return "mmap of a file, shared and writable,"
		}
	}
	return ""
}

// A file is what a call is for. Its mode is 0 if it does not exist.
type file struct {
	path string
	mode uint32
}

// mutable reports whether it is a regular file or a directory on a file system.
func (f file) mutable() bool {
	switch f.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return true
	case unix.S_IFREG:
		// memfd_create(2): a regular file by its mode, in memory only.
		return !strings.HasPrefix(f.path, "/memfd:")
	}
	return false
}

// descriptor returns the file behind a descriptor of a thread.
func descriptor(tid int, fd int32) file {
	if fd == unix.AT_FDCWD {
		return behind(fmt.Sprintf("/proc/%d/cwd", tid))
	}
	return behind(fmt.Sprintf("/proc/%d/fd/%d", tid, fd))
}

// behind returns the file that a link of /proc leads to.
func behind(link string) file {
	var st unix.Stat_t
	if err := unix.Stat(link, &st); err != nil {
		return file{}
	}
	path, err := os.Readlink(link)
	if err != nil {
		return file{}
	}
	return named(path, &st)
}

// named returns a file by its link in /proc, without the mark that the link has if
// the file was removed (proc_pid_fd(5)).
func named(link string, st *unix.Stat_t) file {
	if st.Nlink == 0 {
		link = strings.TrimSuffix(link, " (deleted)")
	}
	return file{link, st.Mode}
}

// lookup returns the file that a path leads to, for a thread, or the name that it
// would get.
func lookup(tid int, dir int32, path string, follow bool) file {
	switch {
	case path == "":
		return descriptor(tid, dir) // AT_EMPTY_PATH
	case strings.HasPrefix(path, "/proc/self/"):
		path = fmt.Sprintf("/proc/%d/%s", tid, strings.TrimPrefix(path, "/proc/self/"))
	case strings.HasPrefix(path, "/proc/thread-self/"):
		path = fmt.Sprintf("/proc/%d/%s", tid, strings.TrimPrefix(path, "/proc/thread-self/"))
	case path[0] == '/':
	case dir == unix.AT_FDCWD:
		path = fmt.Sprintf("/proc/%d/cwd/%s", tid, path)
	default:
		path = fmt.Sprintf("/proc/%d/fd/%d/%s", tid, dir, path)
	}
	nofollow := unix.O_NOFOLLOW
	if follow {
		nofollow = 0
	}
	if f, err := open(path, nofollow); err == nil {
		return f
	}
	// A new file: its directory exists, if the call is to succeed.
	path = strings.TrimRight(path, "/")
	slash := strings.LastIndexByte(path, '/') + 1
	if parent, err := open(path[:slash], unix.O_DIRECTORY); err == nil {
		return file{path: filepath.Join(parent.path, path[slash:])}
	}
	return file{path: filepath.Clean(path)}
}

// open returns the file at a path, as the kernel resolves it.
func open(path string, flags int) (file, error) {
	// O_PATH: opening has no effect on the file, so none on the program.
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return file{}, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return file{}, err
	}
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return file{}, err
	}
	return named(link, &st), nil
}

// inside reports whether a clean path is a directory or in it.
func inside(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
