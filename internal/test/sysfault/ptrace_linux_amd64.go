package sysfault

import (
	"bytes"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// syscallInfo is struct ptrace_syscall_info of <linux/ptrace.h>, without the
// seccomp arm of its union.
type syscallInfo struct {
	op   uint8
	_    [3]uint8
	arch uint32
	ip   uint64
	sp   uint64
	// The union: at entry nr and args; at exit the return value in place of nr.
	nr   uint64
	args [6]uint64
}

// rval returns the return value, at exit.
func (i *syscallInfo) rval() int64 { return int64(i.nr) }

// getSyscallInfo tells a system call entry from its exit, which waiting alone
// does not (PTRACE_GET_SYSCALL_INFO, ptrace(2), Linux 5.3).
func getSyscallInfo(tid int) (syscallInfo, error) {
	var info syscallInfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return info, os.NewSyscallError("ptrace get syscall info", errno)
	}
	return info, nil
}

// peek waits until a process or thread of the group has stopped or ended and
// returns its id, without taking the event: a later wait gets it.
func peek(pgid int) (int, error) {
	// siginfo_t for SIGCHLD, <asm-generic/siginfo.h>; x/sys has the union unnamed.
	var info struct {
		signo, errno, code, _ int32
		pid                   int32
		_                     [108]byte
	}
	for {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_PGID, uintptr(pgid), uintptr(unsafe.Pointer(&info)),
			unix.WEXITED|unix.WSTOPPED|unix.WALL|unix.WNOWAIT, 0, 0)
		switch errno {
		case 0:
			return int(info.pid), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// readMemory reads up to len(b) bytes from addr on and returns how many it got:
// fewer than asked for where the mapping ends.
func readMemory(tid int, addr uint64, b []byte) int {
	local := unix.Iovec{Base: &b[0]}
	local.SetLen(len(b))
	remote := unix.RemoteIovec{Base: uintptr(addr), Len: len(b)}
	n, err := unix.ProcessVMReadv(tid, []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
	if err != nil {
		return 0
	}
	return n
}

// readString reads a path of at most PATH_MAX bytes. It reports false for an
// address from which the kernel could not read one either.
func readString(tid int, addr uint64) (string, bool) {
	const page = 4096
	var b [unix.PathMax]byte
	for have := 0; have < len(b); {
		// Not across a page end: process_vm_readv may give up there with nothing.
		want := min(len(b)-have, page-int((addr+uint64(have))%page))
		n := readMemory(tid, addr+uint64(have), b[have:have+want])
		if n == 0 {
			return "", false
		}
		if end := bytes.IndexByte(b[have:have+n], 0); end >= 0 {
			return string(b[:have+end]), true
		}
		have += n
	}
	return "", false
}
