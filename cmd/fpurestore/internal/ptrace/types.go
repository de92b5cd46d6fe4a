package ptrace

import "fmt"

// Thread is one stopped thread.
type Thread struct{ PID, TID int }

// Set says which of the kernel's register sets an [Area] is.
type Set int

const (
	// XState is NT_X86_XSTATE: the standard-format XSAVE area of this host.
	XState Set = iota
	// FP is the 512-byte FXSAVE area: NT_PRFPREG, of 32-bit threads NT_PRXFPREG.
	FP
)

func (s Set) String() string {
	switch s {
	case XState:
		return "NT_X86_XSTATE"
	case FP:
		return "FXSAVE area"
	}
	return fmt.Sprintf("Set(%d)", int(s))
}

// Area is the FPU state of one thread as the kernel takes it.
type Area struct {
	Set  Set
	Data []byte
}

// Status is what /proc tells about one thread.
type Status struct {
	PID   int    // process (thread group) it belongs to
	TID   int    // the thread
	PPID  int    // parent process
	Comm  string // name, unescaped
	State byte   // R running, S sleeping, D uninterruptible, T stopped, t tracing stop, Z zombie, X dead, I idle

	TracerPID int   // id of the tracing thread, 0 if none
	NSpid     []int // thread id in each pid namespace, outermost first; nil before Linux 4.1
	UID       int   // effective user id, -1 if unknown

	KernelThread bool   // runs kernel code only
	Worker       bool   // kernel-made thread of a user process (io_uring, vhost): has no user registers of its own
	StartTime    uint64 // clock ticks (sysconf _SC_CLK_TCK) after boot
}
