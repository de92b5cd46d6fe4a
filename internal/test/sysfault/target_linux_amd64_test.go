package sysfault

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The test binary is also the program under test: with targetEnv set, it runs
// the target of that name on the directory in its first argument.
const targetEnv = "SYSFAULT_TARGET"

var targets map[string]func(dir string) error

func init() {
	targets = map[string]func(dir string) error{
		"save":    save,
		"calls":   makeAllCalls,
		"quiet":   quiet,
		"threads": threads,
		"create":  func(dir string) error { return os.WriteFile(filepath.Join(dir, "child"), []byte("x"), 0o644) },
		"spawn":   spawn,
		"orphan":  orphan,
		"exec":    execFromThread,
		"names":   names,
		"signals": signals,
		"term":    term,
		"stop":    stopSelf,
		"lease":   lease,
		"busy":    busy,
		"hang":    hang,
		"outlive": outlive,
		"setsid":  func(dir string) error { return before(dir, func() error { _, err := unix.Setsid(); return err }) },
		"mmap":    func(dir string) error { return before(dir, func() error { return mapShared(dir) }) },
		"x32":     func(dir string) error { return before(dir, x32Call) },
		"exit3":   func(string) error { syscall.Exit(3); return nil },
	}
}

func TestMain(m *testing.M) {
	name := os.Getenv(targetEnv)
	if name == "" {
		os.Exit(m.Run())
	}
	// Not os.Exit in a target: with -cover, that writes files.
	if err := targets[name](os.Args[1]); err != nil {
		fmt.Fprintln(os.Stdout, describe(err))
		syscall.Exit(1)
	}
	syscall.Exit(0)
}

// describe names the type and the errno of an error.
func describe(err error) string {
	var errno syscall.Errno
	errors.As(err, &errno)
	return fmt.Sprintf("%T %s", err, unix.ErrnoName(errno))
}

// A step is one mutating call of the target "save".
type step struct {
	name, path, dest string // what Trace is to find
	errType          string // what the step returns if the call fails
	do               func(s *saver) error
}

type saver struct {
	dir  string
	file *os.File
}

func (s *saver) path(name string) string { return filepath.Join(s.dir, name) }

const pathError, linkError = "*fs.PathError", "*os.LinkError"

var steps = []step{
	{"mkdirat", "d", "", pathError, func(s *saver) error { return os.Mkdir(s.path("d"), 0o755) }},
	{"openat", "d/new", "", pathError, func(s *saver) (err error) {
		s.file, err = os.OpenFile(s.path("d/new"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		return err
	}},
	{"write", "d/new", "", pathError, func(s *saver) error { _, err := s.file.Write([]byte("first ")); return err }},
	{"pwrite64", "d/new", "", pathError, func(s *saver) error { _, err := s.file.WriteAt([]byte("second"), 6); return err }},
	{"ftruncate", "d/new", "", pathError, func(s *saver) error { return s.file.Truncate(8) }},
	{"fchmod", "d/new", "", pathError, func(s *saver) error { return s.file.Chmod(0o640) }},
	{"fsync", "d/new", "", pathError, func(s *saver) error { return s.file.Sync() }},
	{"linkat", "d/new", "d/hard", linkError, func(s *saver) error { return os.Link(s.path("d/new"), s.path("d/hard")) }},
	{"renameat", "d/new", "d/file", linkError, func(s *saver) error { return os.Rename(s.path("d/new"), s.path("d/file")) }},
	{"symlinkat", "d/soft", "", linkError, func(s *saver) error { return os.Symlink("file", s.path("d/soft")) }},
	{"unlinkat", "d/hard", "", pathError, func(s *saver) error { return os.Remove(s.path("d/hard")) }},
}

// save replaces a file, and stops at the first error.
func save(dir string) error {
	return saveSteps(&saver{dir: dir}, steps)
}

func saveSteps(s *saver, steps []step) error {
	for _, step := range steps {
		if err := step.do(s); err != nil {
			return err
		}
	}
	return nil
}

// rawCall is a system call with what Trace is to find.
type rawCall struct {
	nr         uintptr
	path, dest string
	args       []any // integers, strings or pointers
}

// allCalls has each call of the table at least once. Most would fail: a call
// counts before the kernel has looked at it. dir has the open directory dirFD,
// the file f open as fd, and the symbolic link l to f.
func allCalls(dirFD, fd int) []rawCall {
	const cwd = unix.AT_FDCWD // the working directory is dir, too
	null := uintptr(0)
	how := &unix.OpenHow{Flags: unix.O_WRONLY}
	return []rawCall{
		{unix.SYS_OPEN, "f", "", []any{"f", unix.O_WRONLY, 0}},
		{unix.SYS_OPEN, "new", "", []any{"new", unix.O_RDWR, 0}},
		{unix.SYS_OPENAT, "f", "", []any{dirFD, "l", unix.O_RDONLY | unix.O_TRUNC, 0}},
		{unix.SYS_OPENAT, "f", "", []any{dirFD, "f", unix.O_RDONLY | unix.O_CREAT, 0o600}},
		{unix.SYS_OPENAT, ".", "", []any{cwd, ".", unix.O_TMPFILE | unix.O_RDWR, 0o600}},
		{unix.SYS_OPENAT2, "f", "", []any{dirFD, "f", how, int(unsafe.Sizeof(*how))}},
		{unix.SYS_CREAT, "new", "", []any{"new", 0o600}},
		{unix.SYS_WRITE, "f", "", []any{fd, "x", 1}},
		{unix.SYS_PWRITE64, "f", "", []any{fd, "x", 1, 0}},
		{unix.SYS_WRITEV, "f", "", []any{fd, null, 0}},
		{unix.SYS_PWRITEV, "f", "", []any{fd, null, 0, 0, 0}},
		{unix.SYS_PWRITEV2, "f", "", []any{fd, null, 0, 0, 0, 0}},
		{unix.SYS_COPY_FILE_RANGE, "f", "", []any{-1, null, fd, null, 1, 0}},
		{unix.SYS_SENDFILE, "f", "", []any{fd, -1, null, 1}},
		{unix.SYS_SPLICE, "f", "", []any{-1, null, fd, null, 1, 0}},
		{unix.SYS_IOCTL, "f", "", []any{fd, unix.FICLONE, -1}},
		{unix.SYS_IOCTL, "f", "", []any{fd, unix.FICLONERANGE, null}},
		{unix.SYS_IOCTL, "f", "", []any{fd, unix.FS_IOC_SETFLAGS, null}},
		{unix.SYS_FALLOCATE, "f", "", []any{fd, 0, 0, 10}},
		{unix.SYS_FTRUNCATE, "f", "", []any{fd, 5}},
		{unix.SYS_TRUNCATE, "f", "", []any{"l", 5}},
		{unix.SYS_FSYNC, "f", "", []any{fd}},
		{unix.SYS_FSYNC, ".", "", []any{dirFD}},
		{unix.SYS_FDATASYNC, "f", "", []any{fd}},
		{unix.SYS_SYNC_FILE_RANGE, "f", "", []any{fd, 0, 1, 0}},
		{unix.SYS_SYNCFS, "f", "", []any{fd}},
		{unix.SYS_RENAME, "none", "g", []any{"none", "g"}},
		{unix.SYS_RENAMEAT, "none", "l", []any{dirFD, "none", dirFD, "l"}},
		{unix.SYS_RENAMEAT2, "none", "g", []any{dirFD, "none", cwd, "g", unix.RENAME_NOREPLACE}},
		{unix.SYS_LINK, "l", "f", []any{"l", "f"}},
		{unix.SYS_LINKAT, "l", "f", []any{dirFD, "l", cwd, "f", 0}},
		{unix.SYS_LINKAT, "f", "l", []any{dirFD, "l", cwd, "l", unix.AT_SYMLINK_FOLLOW}},
		{unix.SYS_LINKAT, "f", "l", []any{fd, "", cwd, "l", unix.AT_EMPTY_PATH}},
		{unix.SYS_LINKAT, "f", "l", []any{cwd, fmt.Sprintf("/proc/self/fd/%d", fd), dirFD, "l", unix.AT_SYMLINK_FOLLOW}},
		{unix.SYS_SYMLINK, "l", "", []any{"target", "l"}},
		{unix.SYS_SYMLINKAT, "l", "", []any{"target", dirFD, "l"}},
		{unix.SYS_UNLINK, "none", "", []any{"none"}},
		{unix.SYS_UNLINKAT, "none", "", []any{dirFD, "none", unix.AT_REMOVEDIR}},
		{unix.SYS_RMDIR, "l", "", []any{"l"}},
		{unix.SYS_MKDIR, "l", "", []any{"l/", 0o700}},
		{unix.SYS_MKDIRAT, "l", "", []any{dirFD, "l", 0o700}},
		{unix.SYS_MKNOD, "l", "", []any{"l", unix.S_IFIFO, 0}},
		{unix.SYS_MKNODAT, "l", "", []any{dirFD, "l", unix.S_IFIFO, 0}},
		{unix.SYS_CHMOD, "f", "", []any{"l", 0o600}},
		{unix.SYS_FCHMOD, "f", "", []any{fd, 0o600}},
		{unix.SYS_FCHMODAT, "f", "", []any{dirFD, "l", 0o600}},
		{unix.SYS_FCHMODAT2, "l", "", []any{dirFD, "l", 0o600, unix.AT_SYMLINK_NOFOLLOW}},
		{unix.SYS_CHOWN, "f", "", []any{"l", -1, -1}},
		{unix.SYS_LCHOWN, "l", "", []any{"l", -1, -1}},
		{unix.SYS_FCHOWN, "f", "", []any{fd, -1, -1}},
		{unix.SYS_FCHOWNAT, "l", "", []any{dirFD, "l", -1, -1, unix.AT_SYMLINK_NOFOLLOW}},
		{unix.SYS_FCHOWNAT, "f", "", []any{fd, "", -1, -1, unix.AT_EMPTY_PATH}},
		{unix.SYS_UTIME, "f", "", []any{"l", null}},
		{unix.SYS_UTIMES, "f", "", []any{"l", null}},
		{unix.SYS_FUTIMESAT, "f", "", []any{dirFD, "l", null}},
		{unix.SYS_UTIMENSAT, "l", "", []any{dirFD, "l", null, unix.AT_SYMLINK_NOFOLLOW}},
		{unix.SYS_UTIMENSAT, "f", "", []any{fd, null, null, 0}}, // futimens(3)
		{unix.SYS_SETXATTR, "f", "", []any{"l", "user.a", null, 0, 0}},
		{unix.SYS_LSETXATTR, "l", "", []any{"l", "user.a", null, 0, 0}},
		{unix.SYS_FSETXATTR, "f", "", []any{fd, "user.a", null, 0, 0}},
		{unix.SYS_SETXATTRAT, "l", "", []any{dirFD, "l", unix.AT_SYMLINK_NOFOLLOW, "user.a", null, 0}},
		{unix.SYS_REMOVEXATTR, "f", "", []any{"l", "user.a"}},
		{unix.SYS_LREMOVEXATTR, "l", "", []any{"l", "user.a"}},
		{unix.SYS_FREMOVEXATTR, "f", "", []any{fd, "user.a"}},
		{unix.SYS_REMOVEXATTRAT, "f", "", []any{dirFD, "l", 0, "user.a"}},
		{unix.SYS_FILE_SETATTR, "f", "", []any{dirFD, "l", null, 0, 0}},
	}
}

// makeAllCalls makes them. It must itself not change anything else.
func makeAllCalls(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	dirFD, err := unix.Open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	fd, err := unix.Open("f", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	for _, call := range allCalls(dirFD, fd) {
		makeRawCall(call)
	}
	return nil
}

func makeRawCall(call rawCall) {
	var pin runtime.Pinner
	defer pin.Unpin()
	var args [6]uintptr
	for i, arg := range call.args {
		switch arg := arg.(type) {
		case int:
			args[i] = uintptr(arg)
		case uintptr:
			args[i] = arg
		case string:
			p, err := unix.BytePtrFromString(arg)
			if err != nil {
				panic(err)
			}
			pin.Pin(p)
			args[i] = uintptr(unsafe.Pointer(p))
		case *unix.OpenHow:
			pin.Pin(arg)
			args[i] = uintptr(unsafe.Pointer(arg))
		default:
			panic(fmt.Sprintf("argument %T", arg))
		}
	}
	unix.Syscall6(call.nr, args[0], args[1], args[2], args[3], args[4], args[5])
}

// quiet does what must not count, and then makes a directory.
func quiet(dir string) error {
	fmt.Println("to a pipe")
	fmt.Fprintln(os.Stderr, "to another")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	if _, err := null.WriteString("x"); err != nil {
		return err
	}
	event, err := unix.Eventfd(0, 0)
	if err != nil {
		return err
	}
	if _, err := unix.Write(event, make([]byte, 7, 8)[:8]); err != nil {
		return err
	}
	memory, err := unix.MemfdCreate("mem", 0)
	if err != nil {
		return err
	}
	if _, err := unix.Write(memory, []byte("x")); err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if _, err := unix.Write(pair[0], []byte("x")); err != nil {
		return err
	}
	unix.Fchmod(pair[0], 0o600)
	// A listener makes the runtime start its poller, with an eventfd.
	listener, err := net.Listen("unix", "@"+dir) // abstract: no file
	if err != nil {
		return err
	}
	time.AfterFunc(time.Millisecond, func() { listener.Close() })
	listener.Accept()

	file, err := os.Open(filepath.Join(dir, "f"))
	if err != nil {
		return err
	}
	unix.IoctlGetInt(int(file.Fd()), unix.FS_IOC_GETFLAGS)
	path, err := unix.Open(file.Name(), unix.O_PATH|unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	unix.Mmap(int(file.Fd()), 0, 1, unix.PROT_READ, unix.MAP_SHARED)
	unix.Mmap(int(file.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	unix.Mmap(int(file.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	unix.Close(path)
	unix.Fsync(path) // EBADF
	unix.Ftruncate(-1, 0)
	unix.Syscall(unix.SYS_CHMOD, 1, 0o600, 0) // EFAULT
	return os.Mkdir(filepath.Join(dir, "loud"), 0o755)
}

const workers, perWorker = 4, 25

// threads writes perWorker bytes, one by one, into one file per thread.
func threads(dir string) error {
	var (
		wg    sync.WaitGroup
		start = make(chan struct{})
		ready sync.WaitGroup
		mu    sync.Mutex
		tids  = make(map[int]bool)
		errs  = make([]error, workers)
	)
	ready.Add(workers)
	for i := range workers {
		wg.Go(func() {
			runtime.LockOSThread()
			mu.Lock()
			tids[unix.Gettid()] = true
			mu.Unlock()
			ready.Done()
			<-start
			file, err := os.Create(filepath.Join(dir, fmt.Sprint("w", i)))
			if err != nil {
				errs[i] = err
				return
			}
			for range perWorker {
				if _, err := file.Write([]byte("x")); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	ready.Wait()
	if len(tids) != workers {
		return fmt.Errorf("%d threads", len(tids))
	}
	close(start)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			fmt.Println(describe(err))
		}
	}
	return nil
}

// self returns a command that runs another target.
func self(target, dir string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", dir)
	cmd.Env = append(os.Environ(), targetEnv+"="+target)
	return cmd
}

// spawn changes something before, in, and after a child.
func spawn(dir string) error {
	if err := os.Mkdir(filepath.Join(dir, "before"), 0o755); err != nil {
		return err
	}
	cmd := self("create", dir)
	cmd.Stdout = os.Stdout
	if err := cmd.Run(); err != nil {
		fmt.Println("child:", err)
	}
	return os.Mkdir(filepath.Join(dir, "after"), 0o755)
}

// orphan leaves a child that does not end.
func orphan(dir string) error {
	cmd := self("outlive", dir)
	if _, err := cmd.StdinPipe(); err != nil {
		return err
	}
	return cmd.Start()
}

// outlive waits for the end of its parent, and then hangs.
func outlive(dir string) error {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return hang(dir)
}

// hang makes a directory and then waits for its end.
func hang(dir string) error {
	if err := os.Mkdir(filepath.Join(dir, "hanging"), 0o755); err != nil {
		return err
	}
	for {
		time.Sleep(time.Hour)
	}
}

// execFromThread replaces the process from a thread that is not its first.
func execFromThread(dir string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// main has this thread no more, so another goroutine gets another.
			go func() {
				runtime.LockOSThread()
				done <- execSelf("save", dir)
			}()
			select {}
		}
		done <- execSelf("save", dir)
	}()
	return <-done
}

func execSelf(target, dir string) error {
	if unix.Gettid() == os.Getpid() {
		return errors.New("still on the first thread")
	}
	if err := os.Setenv(targetEnv, target); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", []string{"self", dir}, os.Environ())
}

// names makes directories in and outside dir/in, by different names.
func names(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	for _, name := range []string{"out", "in", "in/1", "inn", "link/2", "in/../up", "out/../in/3", filepath.Join(dir, "in/4")} {
		if err := os.Mkdir(name, 0o755); err != nil {
			return err
		}
	}
	if err := os.Rename("in/1", "moved"); err != nil {
		return err
	}
	return os.Rename("moved", "in/1")
}

// signals receives signals and makes a directory for each.
func signals(dir string) error {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGUSR1, unix.SIGTRAP)
	for _, sig := range []unix.Signal{unix.SIGUSR1, unix.SIGTRAP} {
		if err := unix.Kill(os.Getpid(), sig); err != nil {
			return err
		}
		if got := <-c; got != sig {
			return fmt.Errorf("got %v", got)
		}
		if err := os.Mkdir(filepath.Join(dir, unix.SignalName(sig)), 0o755); err != nil {
			return err
		}
	}
	syscall.Exit(7)
	return nil
}

// term dies of a signal.
func term(string) error {
	if err := unix.Kill(os.Getpid(), unix.SIGTERM); err != nil {
		return err
	}
	for {
		time.Sleep(time.Hour) // another thread may be the one that gets it
	}
}

// stopSelf asks for a stop, and goes on.
func stopSelf(dir string) error {
	for _, sig := range []unix.Signal{unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN} {
		if err := unix.Kill(os.Getpid(), sig); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return os.Mkdir(filepath.Join(dir, "on"), 0o755)
}

// lease makes an open for writing wait, signals the waiting thread a few times,
// and then lets it go on. fcntl(2), "Leases": the open waits for the lease to be
// given up, and a signal interrupts that.
func lease(dir string) error {
	signal.Ignore(unix.SIGIO)
	name := filepath.Join(dir, "f")
	holder, err := unix.Open(name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(holder), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		fmt.Println("no leases:", err)
		syscall.Exit(77)
	}
	tid := make(chan int, 1)
	opened := make(chan error)
	go func() {
		runtime.LockOSThread()
		tid <- unix.Gettid()
		file, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err == nil {
			_, err = file.WriteString("y")
		}
		opened <- err
	}()
	opener := <-tid
	signals := 0
	for signals < 5 {
		// F_GETLEASE tells F_UNLCK once the lease is being broken.
		kind, err := unix.FcntlInt(uintptr(holder), unix.F_GETLEASE, 0)
		if err != nil {
			return err
		}
		if kind == unix.F_UNLCK {
			if err := unix.Tgkill(os.Getpid(), opener, unix.SIGURG); err != nil {
				return err
			}
			signals++
		}
		time.Sleep(2 * time.Millisecond)
	}
	if _, err := unix.FcntlInt(uintptr(holder), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		return err
	}
	return <-opened
}

// busy writes while other goroutines keep the scheduler sending signals.
func busy(dir string) error {
	for range 2 * runtime.GOMAXPROCS(0) {
		go func() {
			for n := 0; ; n++ {
				if n&0xfffff == 0 {
					runtime.GC()
				}
			}
		}()
	}
	file, err := os.Create(filepath.Join(dir, "busy"))
	if err != nil {
		return err
	}
	for range 100 {
		if _, err := file.WriteString("x"); err != nil {
			return err
		}
	}
	return file.Sync()
}

// before does something that is refused, and what must then not happen.
func before(dir string, refused func() error) error {
	if err := refused(); err != nil {
		return err
	}
	return os.Mkdir(filepath.Join(dir, "reached"), 0o755)
}

func mapShared(dir string) error {
	fd, err := unix.Open(filepath.Join(dir, "f"), unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = unix.Mmap(fd, 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return err
}

func x32Call() error {
	unix.Syscall(1<<30|unix.SYS_GETPID, 0, 0, 0)
	return nil
}

// lines splits output.
func lines(b []byte) []string {
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}
