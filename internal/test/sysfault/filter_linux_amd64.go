package sysfault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// flagged are calls that count, or are refused, for flags alone: which argument these
// are, and which of them.
var flagged = map[uint64]struct{ arg, mask uint32 }{
	unix.SYS_OPEN:   {1, unix.O_ACCMODE | unix.O_CREAT | unix.O_TRUNC},
	unix.SYS_OPENAT: {2, unix.O_ACCMODE | unix.O_CREAT | unix.O_TRUNC},
	unix.SYS_MMAP:   {3, unix.MAP_SHARED},
}

// filter has the kernel stop the program at the calls that entry looks at and at no
// other (seccomp(2)): that is one in ten.
func filter() []unix.SockFilter {
	const (
		nr, arch, args = 0, 4, 16 // struct seccomp_data, <linux/seccomp.h>
		x32            = 1 << 30  // __X32_SYSCALL_BIT, <asm/unistd.h>
	)
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	// jump passes over so many instructions where the comparison holds, and where not.
	jump := func(compare uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | compare, K: k, Jt: yes, Jf: no}
	}
	trace := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_TRACE}
	allow := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
	f := []unix.SockFilter{
		load(arch), jump(unix.BPF_JEQ, unix.AUDIT_ARCH_X86_64, 1, 0), trace,
		load(nr), jump(unix.BPF_JSET, x32, 0, 1), trace,
	}
	for _, call := range slices.Concat(slices.Sorted(maps.Keys(forms)), followed) {
		if flags, ok := flagged[call]; ok {
			f = append(f, jump(unix.BPF_JEQ, uint32(call), 0, 4),
				load(args+8*flags.arg), jump(unix.BPF_JSET, flags.mask, 0, 1), trace, allow)
			continue
		}
		f = append(f, jump(unix.BPF_JEQ, uint32(call), 0, 1), trace)
	}
	return append(f, allow)
}

// setup is what a program is made to do before its first instruction: to take the filter.
type setup struct {
	calls [][4]uint64     // still to be made: number and arguments
	regs  unix.PtraceRegs // to go on with afterwards
	code  [2]byte         // where they point to
}

// setUp puts the program's next call of setup before it, or lets it go on as if there had
// been none. It is called at the stop after the execve, and at the one after each call.
func (t *tracer) setUp(tid int, th *thread) {
	var regs unix.PtraceRegs
	err := unix.PtraceGetRegs(tid, &regs)
	s := th.setup
	switch {
	case err != nil:
	case s == nil:
		s = &setup{regs: regs}
		th.setup = s
		f := filter()
		// Below the stack: a page of the room that each program begins with.
		at := regs.Rsp&^15 - 8192
		prog := binary.NativeEndian.AppendUint64(nil, uint64(len(f))) // struct sock_fprog
		prog = binary.NativeEndian.AppendUint64(prog, at+16)
		for _, i := range f {
			prog = binary.NativeEndian.AppendUint16(prog, i.Code)
			prog = append(prog, i.Jt, i.Jf)
			prog = binary.NativeEndian.AppendUint32(prog, i.K)
		}
		s.calls = [][4]uint64{
			{unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1}, // or only root may have a filter
			{unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, at},
		}
		_, e1 := unix.PtracePokeData(tid, uintptr(at), prog)
		_, e2 := unix.PtracePeekText(tid, uintptr(regs.Rip), s.code[:])
		_, e3 := unix.PtracePokeText(tid, uintptr(regs.Rip), []byte{0x0f, 0x05}) // syscall
		err = errors.Join(e1, e2, e3)
	case regs.Rax != 0:
		err = fmt.Errorf("the program may not have a filter: %w", syscall.Errno(-regs.Rax))
	}
	if err == nil && len(s.calls) > 0 {
		call := s.calls[0]
		s.calls = s.calls[1:]
		regs = s.regs
		regs.Orig_rax = ^uint64(0) // in no call
		regs.Rax, regs.Rdi, regs.Rsi, regs.Rdx = call[0], call[1], call[2], call[3]
		regs.R10, regs.R8 = 0, 0
		err = errors.Join(unix.PtraceSetRegs(tid, &regs), unix.PtraceSingleStep(tid))
	} else if err == nil {
		th.setup = nil
		_, err = unix.PtracePokeText(tid, uintptr(s.regs.Rip), s.code[:])
		if err = errors.Join(err, unix.PtraceSetRegs(tid, &s.regs)); err == nil {
			t.resume(tid, th, 0)
		}
	}
	t.check("set up the filter", err)
}
