package ptrace

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Reasons why a process cannot be traced, for [errors.Is]. The details are in
// the error that wraps them.
var (
	// ErrNotFound: there is no such process or thread.
	ErrNotFound = errors.New("no such process")
	// ErrNotLeader: the number is the id of a thread, not of a process.
	ErrNotLeader = errors.New("is a thread, not a process")
	// ErrSelf: a process cannot trace itself.
	ErrSelf = errors.New("is this process itself")
	// ErrKernelThread: a kernel thread has no user registers.
	ErrKernelThread = errors.New("is a kernel thread")
	// ErrZombie: the process has ended and waits for its parent.
	ErrZombie = errors.New("is a zombie")
	// ErrTraced: a process can have only one tracer.
	ErrTraced = errors.New("is already being traced")
	// ErrPermission: the kernel forbids it.
	ErrPermission = errors.New("not permitted")
	// ErrTimeout: some thread did not stop in time.
	ErrTimeout = errors.New("threads did not stop in time")
	// ErrExited: the process or thread ended while it was being worked on.
	ErrExited = errors.New("exited meanwhile")
)

// Misuse of this package, and limits of the host.
var (
	// ErrNoXSave: the kernel has no NT_X86_XSTATE register set, because the
	// CPU lacks XSAVE or the kernel does not use it.
	ErrNoXSave = errors.New("this host has no XSAVE")
	// ErrAmbiguous: an area with an MXCSR that only some kernels would load.
	ErrAmbiguous = errors.New("MXCSR is not 0x1F80 though SSE is not in use")
	// ErrWrongThread: a method was called from another OS thread than Open.
	ErrWrongThread = errors.New("called from another OS thread than the one that traces")
	// ErrNotStopped: the thread is not one that Stop has stopped.
	ErrNotStopped = errors.New("is not stopped by this tracer")
)

// AttachError says why a process, or one thread of it, cannot be traced.
// Reason is one of the Err values above, Err the kernel's answer if there was
// one; both are found by [errors.Is].
type AttachError struct {
	PID  int    // the process that was asked for
	TID  int    // the thread that was refused; equal to PID for the process as a whole
	Comm string // its name; empty if unknown

	Reason error
	Err    error

	Tgid       int    // the process that owns the thread, for ErrNotLeader
	TracerPID  int    // the tracer's process, for ErrTraced
	TracerComm string // and its name

	// For ErrPermission: what usually explains it.
	UID       int  // effective user of the target, -1 if unknown
	SelfUID   int  // effective user of this process
	HasCap    bool // this process has CAP_SYS_PTRACE in its own user namespace
	UserNS    bool // the target lives in another user namespace, where that capability may not count
	YamaScope int  // /proc/sys/kernel/yama/ptrace_scope, -1 where there is no Yama
}

func (e *AttachError) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "process %d", e.PID)
	if e.TID != e.PID {
		fmt.Fprintf(&s, ": thread %d", e.TID)
	}
	if e.Comm != "" {
		fmt.Fprintf(&s, " (%q)", e.Comm)
	}
	fmt.Fprintf(&s, ": %v", e.Reason)
	switch e.Reason {
	case ErrNotLeader:
		fmt.Fprintf(&s, ": it belongs to process %d", e.Tgid)
	case ErrTraced:
		fmt.Fprintf(&s, " by process %d", e.TracerPID)
		if e.TracerComm != "" {
			fmt.Fprintf(&s, " (%q)", e.TracerComm)
		}
	case ErrPermission:
		if e.Err != nil {
			fmt.Fprintf(&s, ": %v", e.Err)
		}
	}
	return s.String()
}

// Unwrap gives the reason and, if there is one, the kernel's error.
func (e *AttachError) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Reason}
	}
	return []error{e.Reason, e.Err}
}

// StuckThread is a thread that did not stop.
type StuckThread struct {
	PID, TID int
	Comm     string
	State    byte   // as in /proc/PID/stat: 'D' is uninterruptible sleep, 'R' runs or waits for a CPU; 0 if unknown
	WaitChan string // kernel function it sleeps in, if the kernel tells
}

// TimeoutError lists the threads that had not stopped when the deadline came. There is
// time to look at the first few only: of the others only the ids are known, and some
// may have stopped. It wraps [ErrTimeout] and the context's error.
type TimeoutError struct {
	Threads []StuckThread
	Err     error
}

func (e *TimeoutError) Error() string {
	var s strings.Builder
	s.WriteString(ErrTimeout.Error())
	for i, t := range e.Threads {
		if i == 8 {
			fmt.Fprintf(&s, " and %d more", len(e.Threads)-i)
			break
		}
		sep := ","
		if i == 0 {
			sep = ":"
		}
		fmt.Fprintf(&s, "%s %d", sep, t.TID)
		if t.State == 0 {
			continue
		}
		fmt.Fprintf(&s, " (%q, state %c", t.Comm, t.State)
		if t.WaitChan != "" {
			fmt.Fprintf(&s, ", in %s", t.WaitChan)
		}
		s.WriteString(")")
	}
	return s.String()
}

// Unwrap gives ErrTimeout and the context's error.
func (e *TimeoutError) Unwrap() []error { return []error{ErrTimeout, e.Err} }

// ThreadError is the failure of one request about one thread.
type ThreadError struct {
	PID, TID int
	Op       string // what was tried, for example "write NT_X86_XSTATE"
	Err      error
}

func (e *ThreadError) Error() string {
	return fmt.Sprintf("thread %d: %s: %v", e.TID, e.Op, e.Err)
}

// Unwrap gives the cause: an errno, ErrExited, or a *ReadbackError.
func (e *ThreadError) Unwrap() error { return e.Err }

// ReadbackError says that a register set read back otherwise than written.
type ReadbackError struct {
	Register string // first one that differs; xstate_bv, or a component that no table knows
}

func (e *ReadbackError) Error() string {
	return e.Register + " reads back otherwise than written"
}

// RestoreError says that a failed Swap left living threads with state that is
// neither surely the old nor surely the new one. All others have their old
// state. It wraps what made Swap fail in the first place.
type RestoreError struct {
	Broken []int // thread ids, ascending
	Err    error
}

func (e *RestoreError) Error() string {
	return fmt.Sprintf("could not put back the state of %d threads %v after: %v", len(e.Broken), e.Broken, e.Err)
}

// Unwrap gives the first failure.
func (e *RestoreError) Unwrap() error { return e.Err }

// Expired gives the error of a context that has ended. On a busy machine the timer of a
// deadline can be late by seconds, for it waits for another OS thread of this program;
// this asks the clock too.
func Expired(ctx context.Context) error { return expired(ctx, time.Now()) }

func expired(ctx context.Context, now time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if end, ok := ctx.Deadline(); ok && !now.Before(end) {
		return context.DeadlineExceeded
	}
	return nil
}
