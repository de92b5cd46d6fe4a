package sysfault

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
)

// A Call is a mutating system call that the program was about to make.
type Call struct {
	N    int    // position among the counted calls, from 1
	Name string // as in syscalls(2), such as "pwrite64"

	// Path is the file the call is for: the file behind the descriptor, or the
	// path argument made absolute, symbolic links resolved. Calls with a second
	// path (rename, link) have it in Dest. Both are best effort.
	Path, Dest string
}

// String returns the call in one line, such as "3 fsync /tmp/x".
func (c Call) String() string {
	s := fmt.Sprintf("%d %s %s", c.N, c.Name, c.Path)
	if c.Dest != "" {
		s += " -> " + c.Dest
	}
	return s
}

// An Action is what becomes of a call. The zero Action lets it run.
type Action struct {
	// Kill ends the program and its children with SIGKILL. The call is not
	// executed.
	Kill bool
	// Errno, if not 0, is what the call returns without being executed.
	Errno syscall.Errno
}

// Options restrict what is counted. The zero value counts everything.
type Options struct {
	// Under, if not empty, is a directory: only calls on it or on something
	// in it count. It need not exist yet. A call with two paths counts if one
	// of them is there. It keeps out what is not the program's work, such as
	// the counters that one built with -cover writes at its end.
	Under string
}

// A Result is what a run left behind, besides the files.
type Result struct {
	Calls    []Call         // the counted calls in order, Hit included
	Hit      *Call          // the first call that was killed or failed, nil if none was
	ExitCode int            // of the command, -1 if a signal ended it
	Signal   syscall.Signal // that ended the command, 0 if it exited
	Stdout   []byte         // of the command and its children
	Stderr   []byte
}

// An UnsupportedError reports a system call that the harness cannot follow; see
// the package documentation. The program was killed before the call.
type UnsupportedError struct {
	Name string // of the system call
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("sysfault: program calls %s, which cannot be followed", e.Name)
}

// Trace runs cmd and lets all its calls through. See [Run] for errors.
func Trace(ctx context.Context, cmd *exec.Cmd, opts Options) (Result, error) {
	return Run(ctx, cmd, opts, func(Call) Action { return Action{} })
}

// Kill runs cmd and kills it, and its children, with SIGKILL immediately before
// its n-th mutating call, counted from 1. If it makes fewer calls, it runs to
// its end and the result's Hit is nil. See [Run] for errors.
func Kill(ctx context.Context, cmd *exec.Cmd, n int, opts Options) (Result, error) {
	if n < 1 {
		return Result{}, fmt.Errorf("sysfault: call number %d: want 1 or more", n)
	}
	return Run(ctx, cmd, opts, func(c Call) Action { return Action{Kill: c.N == n} })
}

// Fail runs cmd and makes its n-th mutating call, counted from 1, return errno
// without being executed. If it makes fewer calls, the result's Hit is nil. See
// [Run] for errors.
func Fail(ctx context.Context, cmd *exec.Cmd, n int, errno syscall.Errno, opts Options) (Result, error) {
	if n < 1 {
		return Result{}, fmt.Errorf("sysfault: call number %d: want 1 or more", n)
	}
	if errno == 0 {
		return Result{}, fmt.Errorf("sysfault: failing call %d needs an errno", n)
	}
	return Run(ctx, cmd, opts, func(c Call) Action {
		if c.N == n {
			return Action{Errno: errno}
		}
		return Action{}
	})
}

// Run runs cmd and asks decide, before each mutating call, what to do with it.
// It returns when the command and all its children have ended; a cancelled ctx
// kills them. decide is called on the goroutine of the caller, while the thread
// that makes the call is stopped and all others run on.
//
// cmd must not have been started, and its Stdout and Stderr must be nil: both
// are read into the result. An exit status or a signal, whatever the cause, is
// a result and not an error. The error is an [*UnsupportedError] if the
// program does what the harness cannot follow, the cause of ctx if that ended the
// run, else from starting the command or from ptrace(2), which a sandbox may
// refuse. The result then holds what was seen until then.
func Run(ctx context.Context, cmd *exec.Cmd, opts Options, decide func(Call) Action) (Result, error) {
	res, err := run(ctx, cmd, opts, decide)
	return res.Result, err
}
