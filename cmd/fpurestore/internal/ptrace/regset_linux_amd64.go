package ptrace

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// GetRegset gives the number of bytes, which is the size of the register set if buf is
// larger (kernel/ptrace.c: ptrace_regset).
func (s *system) GetRegset(tid, nt int, buf []byte) (int, error) {
	return regset(unix.PTRACE_GETREGSET, tid, nt, buf)
}

func (s *system) SetRegset(tid, nt int, buf []byte) error {
	_, err := regset(unix.PTRACE_SETREGSET, tid, nt, buf)
	return err
}

// regset is the only place that hands a pointer to the kernel: ptrace takes
// the address of an iovec, and the kernel writes back its length.
func regset(request, tid, nt int, buf []byte) (int, error) {
	if len(buf) == 0 {
		return 0, unix.EINVAL
	}
	iov := unix.Iovec{Base: &buf[0]}
	iov.SetLen(len(buf))
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), uintptr(nt), uintptr(unsafe.Pointer(&iov)), 0, 0)
	runtime.KeepAlive(buf)
	if errno != 0 {
		return 0, errno
	}
	return int(iov.Len), nil
}
