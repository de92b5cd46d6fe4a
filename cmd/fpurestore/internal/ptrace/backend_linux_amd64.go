package ptrace

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Backend is the handful of system calls that a [Tracer] makes. [NewSystem]
// is the real one; a test wraps it to make any call fail. Errors are bare
// errnos where ptrace or wait gave them, and wrap [ErrNotFound] where /proc
// said that a task is gone. All methods are called on one OS thread.
type Backend interface {
	// Open pins a process, so that its number cannot come to mean another one.
	Open(pid int) (Status, error)
	// Alive tells whether the pinned process still runs under its number.
	Alive(pid int) error
	// Tasks lists the threads of a pinned process.
	Tasks(pid int) ([]int, error)
	// Only tells whether a pinned process has these threads and no others. It may say
	// no without knowing.
	Only(pid int, tids []int) bool
	// Status reads about one thread of a pinned process; ErrNotFound if it is
	// not one of them.
	Status(pid, tid int) (Status, error)
	// Seize attaches without stopping; threads that the thread creates are
	// attached too.
	Seize(tid int) error
	// Interrupt asks a seized thread to stop.
	Interrupt(tid int) error
	// Poll takes a state change of a seized thread, if there is one.
	Poll(tid int) (ws unix.WaitStatus, changed bool, err error)
	// NewThread gives the id of the thread that a thread stopped by
	// PTRACE_EVENT_CLONE has created.
	NewThread(tid int) (int, error)
	// GetRegset and SetRegset move a register set (NT_...) of a stopped thread.
	GetRegset(tid, nt int, buf []byte) (int, error)
	SetRegset(tid, nt int, buf []byte) error
	// Detach lets a stopped thread go, delivering sig unless it is 0.
	Detach(tid, sig int) error
	// Close forgets the pinned processes.
	Close()
}

// NewSystem returns Linux's ptrace and /proc.
func NewSystem() Backend { return &system{pinned: make(map[int]*pin)} }

type system struct{ pinned map[int]*pin }

// pin holds a process: an open /proc/PID and an open pidfd both stand for the
// kernel's struct pid, not for the number.
type pin struct {
	pidfd     int // -1 before Linux 5.3
	dir, task int
	start     uint64
}

func (p *pin) close() {
	for _, fd := range []int{p.pidfd, p.dir, p.task} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func (s *system) Open(pid int) (st Status, err error) {
	if s.pinned[pid] != nil {
		return st, fmt.Errorf("process %d: opened twice", pid)
	}
	p := &pin{pidfd: -1, dir: -1, task: -1}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	pidfd, errno := unix.PidfdOpen(pid, 0)
	switch errno {
	case nil:
		p.pidfd = pidfd
	case unix.ESRCH:
		return st, fmt.Errorf("pidfd_open: %w", ErrNotFound)
	case unix.EINVAL, unix.ENOENT: // a thread, not a leader (ENOENT in newer kernels): told from Tgid below
	case unix.ENOSYS: // before Linux 5.3
	case unix.EPERM: // a seccomp filter older than the call: nothing in the kernel answers so
	default:
		return st, fmt.Errorf("pidfd_open: %w", errno)
	}
	path := fmt.Sprintf("/proc/%d", pid)
	if p.dir, err = openDir(unix.AT_FDCWD, path); err != nil {
		if errors.Is(err, ErrNotFound) && p.pidfd >= 0 && !exited(p.pidfd) {
			// It is there, but /proc does not show it: hidepid, proc(5).
			return st, fmt.Errorf("%s: %w", path, unix.EPERM)
		}
		return st, err
	}
	if p.task, err = openDir(p.dir, "task"); err != nil {
		return st, err
	}
	if st, err = readStatus(p.dir, fmt.Sprintf("task/%d", pid)); err != nil {
		return st, err
	}
	// The pidfd was opened first: if its process lives now, it has had the
	// number all the time, and the directories are its own.
	if p.pidfd >= 0 && exited(p.pidfd) {
		if st.State == 'Z' {
			return st, nil // for the caller to tell
		}
		return st, fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	p.start = st.StartTime
	s.pinned[pid] = p
	return st, nil
}

// exited tells whether the process of a pidfd has ended (pidfd_open(2): the
// descriptor is readable then).
func exited(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

func (s *system) Alive(pid int) error {
	p := s.pinned[pid]
	if p == nil || p.pidfd >= 0 && exited(p.pidfd) {
		return ErrNotFound
	}
	// By number on purpose: ptrace, too, has used the number.
	st, err := readStatus(unix.AT_FDCWD, fmt.Sprintf("/proc/%d/task/%d", pid, pid))
	if err != nil {
		return err
	}
	if st.StartTime != p.start {
		return ErrNotFound
	}
	return nil
}

func (s *system) Tasks(pid int) ([]int, error) {
	p := s.pinned[pid]
	if p == nil {
		return nil, ErrNotFound
	}
	return listTasks(p.task)
}

func (s *system) Only(pid int, tids []int) bool {
	var st unix.Stat_t
	p := s.pinned[pid]
	if p == nil || unix.Fstat(p.task, &st) != nil || int(st.Nlink) != len(tids)+2 { // see listTasks
		return false
	}
	for _, tid := range tids {
		// No signal is sent, only the process looked at (kernel/signal.c: do_send_specific).
		if _, _, errno := unix.RawSyscall(unix.SYS_TGKILL, uintptr(pid), uintptr(tid), 0); errno != 0 {
			return false
		}
	}
	return true
}

func (s *system) Status(pid, tid int) (Status, error) {
	p := s.pinned[pid]
	if p == nil {
		return Status{}, ErrNotFound
	}
	return readStatus(p.dir, fmt.Sprintf("task/%d", tid))
}

func (s *system) Seize(tid int) error {
	// The only option. PTRACE_O_EXITKILL would turn the death of this program
	// into the death of the target.
	// Not raw: it waits for an exec of the target (kernel/ptrace.c: cred_guard_mutex).
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(tid), 0, unix.PTRACE_O_TRACECLONE, 0, 0)
	return result(errno)
}

// The others do not wait. Raw, they need not tell the Go scheduler, which may take the
// processor from this thread meanwhile.

func (s *system) Interrupt(tid int) error { return request(unix.PTRACE_INTERRUPT, tid, 0) }

func (s *system) Detach(tid, sig int) error { return request(unix.PTRACE_DETACH, tid, uintptr(sig)) }

func request(req, tid int, data uintptr) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), 0, data, 0, 0)
	return result(errno)
}

func result(errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// Poll waits for one thread by its id: a wait for any child could take the
// exit status of a child process that this program started for other reasons.
func (s *system) Poll(tid int) (ws unix.WaitStatus, changed bool, err error) {
	for {
		// __WALL: threads are "clone children" (wait(2)).
		var status int32
		got, _, errno := unix.RawSyscall6(unix.SYS_WAIT4, uintptr(tid), uintptr(unsafe.Pointer(&status)), unix.WALL|unix.WNOHANG, 0, 0, 0)
		if errno != unix.EINTR {
			return unix.WaitStatus(status), int(got) == tid, result(errno)
		}
	}
}

func (s *system) NewThread(tid int) (int, error) {
	id, err := unix.PtraceGetEventMsg(tid)
	return int(id), err
}

func (s *system) Close() {
	for pid, p := range s.pinned {
		p.close()
		delete(s.pinned, pid)
	}
}
