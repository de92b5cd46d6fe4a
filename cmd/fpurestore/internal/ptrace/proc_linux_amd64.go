package ptrace

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Task flags, include/linux/sched.h. PF_KTHREAD never changed. The two worker
// flags had other meanings before 5.12 and 6.4, so the name, which the kernel
// gives these threads, has to agree.
const (
	pfKThread    = 0x00200000
	pfIOWorker   = 0x00000010
	pfUserWorker = 0x00004000
)

// ReadStatus reads /proc/PID/task/TID. The error wraps ErrNotFound if there is
// no such thread in that process, else it is the file system's.
func ReadStatus(pid, tid int) (Status, error) {
	return readStatus(unix.AT_FDCWD, fmt.Sprintf("/proc/%d/task/%d", pid, tid))
}

// Tasks lists the thread ids of a process in the order of /proc/PID/task,
// the leader first while it is there. The error wraps ErrNotFound if there is
// no such process.
func Tasks(pid int) ([]int, error) {
	fd, err := openDir(unix.AT_FDCWD, fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return listTasks(fd)
}

func readStatus(dirfd int, dir string) (Status, error) {
	stat, err := readFile(dirfd, dir+"/stat")
	if err != nil {
		return Status{}, err
	}
	status, err := readFile(dirfd, dir+"/status")
	if err != nil {
		return Status{}, err
	}
	s, err := parseStatus(stat, status)
	if err != nil {
		return Status{}, fmt.Errorf("%s: %w", dir, err)
	}
	return s, nil
}

// parseStatus takes name, state, flags and times from stat, where they are in
// raw form, and the rest from status (proc_pid_stat(5), proc_pid_status(5)).
func parseStatus(stat, status []byte) (Status, error) {
	s := Status{UID: -1}
	// The name is the task's to choose and may hold anything, parentheses and
	// blanks too; only the last ')' is sure to end it.
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return s, errors.New("malformed stat")
	}
	s.Comm = string(stat[open+1 : end])
	f := strings.Fields(string(stat[end+1:]))
	if len(f) < 20 || len(f[0]) != 1 { // f[0] is field 3, f[19] field 22
		return s, errors.New("malformed stat")
	}
	var err error
	num := func(text string) uint64 {
		v, e := strconv.ParseUint(text, 10, 64)
		if e != nil && err == nil {
			err = e
		}
		return v
	}
	s.TID = int(num(strings.TrimSpace(string(stat[:open]))))
	s.State = f[0][0]
	s.PPID = int(num(f[1]))
	flags := num(f[6])
	s.StartTime = num(f[19])
	s.KernelThread = flags&pfKThread != 0
	s.Worker = flags&pfIOWorker != 0 && (strings.HasPrefix(s.Comm, "iou-wrk-") || strings.HasPrefix(s.Comm, "iou-sqp-")) ||
		flags&pfUserWorker != 0 && strings.HasPrefix(s.Comm, "vhost-")

	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		v := strings.Fields(value)
		if len(v) == 0 {
			continue
		}
		switch key {
		case "Tgid":
			s.PID = int(num(v[0]))
		case "TracerPid":
			s.TracerPID = int(num(v[0]))
		case "Uid":
			if len(v) >= 2 {
				s.UID = int(num(v[1]))
			}
		case "NSpid":
			for _, id := range v {
				s.NSpid = append(s.NSpid, int(num(id)))
			}
		}
	}
	if err == nil && s.PID == 0 {
		err = errors.New("malformed status")
	}
	return s, err
}

// procErr turns the two answers that procfs gives for a task that is gone into
// ErrNotFound: ENOENT from a lookup, ESRCH from a file opened before
// (fs/proc/base.c: get_proc_task fails).
func procErr(path string, err error) error {
	if err == unix.ENOENT || err == unix.ESRCH {
		return fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	return fmt.Errorf("%s: %w", path, err)
}

func openDir(dirfd int, path string) (int, error) {
	fd, err := openat(dirfd, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return -1, procErr(path, err)
	}
	return fd, nil
}

func openat(dirfd int, path string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, path, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR { // the Go runtime preempts by signals
			return fd, err
		}
	}
}

// readFile reads a small procfs file with plain system calls: os.File would
// cost a poller registration for each.
func readFile(dirfd int, path string) ([]byte, error) {
	fd, err := openat(dirfd, path, unix.O_RDONLY)
	if err != nil {
		return nil, procErr(path, err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, 4096)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, procErr(path, err)
		case n == 0:
			return buf, nil
		default:
			buf = buf[:len(buf)+n]
		}
	}
}

// listTasks reads an open /proc/PID/task. The kernel's listing is not atomic:
// where a thread ends between two getdents calls, the position is found again
// by counting (fs/proc/base.c: first_tid), and a living thread can be passed
// over. The link count says how many threads there are (proc_task_getattr), so
// a listing of another length is repeated; while threads come and go the two
// may never agree, and then the last listing has to do: the caller lists again
// when all the threads it knows stand still.
func listTasks(fd int) ([]int, error) {
	var tids []int
	for range 4 {
		var err error
		if tids, err = listTasksOnce(fd); err != nil {
			return nil, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return nil, procErr("task", err)
		}
		if int(st.Nlink) == len(tids)+2 {
			break
		}
	}
	if len(tids) == 0 {
		return nil, fmt.Errorf("task: %w", ErrNotFound)
	}
	return tids, nil
}

func listTasksOnce(fd int) ([]int, error) {
	if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
		return nil, procErr("task", err)
	}
	var tids []int
	var names []string
	buf := make([]byte, 64<<10) // some 2700 threads in one call
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, procErr("task", err)
		}
		if n <= 0 {
			return tids, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names[:0])
		for _, name := range names {
			tid, err := strconv.Atoi(name)
			if err != nil {
				return nil, fmt.Errorf("task: entry %q is no thread id", name)
			}
			tids = append(tids, tid)
		}
	}
}

// readNumber reads a file that holds one decimal number; -1 if it cannot.
func readNumber(path string) int {
	b, err := readFile(unix.AT_FDCWD, path)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return -1
	}
	return n
}

// hasCapPtrace tells whether this thread has CAP_SYS_PTRACE in its effective set.
func hasCapPtrace() bool {
	b, err := readFile(unix.AT_FDCWD, "/proc/thread-self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return err == nil && caps&(1<<unix.CAP_SYS_PTRACE) != 0
		}
	}
	return false
}

// initUserNS is the first user namespace (include/linux/proc_ns.h,
// PROC_USER_INIT_INO).
const initUserNS = "user:[4026531837]"

// otherUserNS tells whether a process lives in another user namespace than this
// one. Of one outside, not even the link can be read (fs/proc/namespaces.c:
// proc_ns_readlink, ptrace_may_access), which CAP_SYS_PTRACE allows in the own
// namespace and, in the first one, everywhere.
func otherUserNS(pid int, hasCap bool) bool {
	var self, other [64]byte
	n, err := unix.Readlink("/proc/self/ns/user", self[:])
	m, err2 := unix.Readlink(fmt.Sprintf("/proc/%d/ns/user", pid), other[:])
	switch {
	case err != nil:
		return false
	case err2 == unix.EACCES || err2 == unix.EPERM:
		return hasCap && string(self[:n]) != initUserNS
	}
	return err2 == nil && !bytes.Equal(self[:n], other[:m])
}
