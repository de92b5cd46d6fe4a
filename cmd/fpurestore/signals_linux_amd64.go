package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Signals that stop the program, and those that end it. For some of the latter the Go
// runtime prints first, which can block.
var (
	stopping = []syscall.Signal{unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU}
	ending   = []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGABRT, unix.SIGILL,
		unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSTKFLT, unix.SIGSYS}
)

// caught are the signals of a run. While it holds threads none takes effect: the
// threads would stand still with it, or be left with half of them changed.
type caught struct {
	ch   chan os.Signal
	done chan struct{}
	held atomic.Bool    // threads are held
	stop syscall.Signal // the last that was to stop the program, 0 if none was
	old  map[syscall.Signal]*action
}

// catch catches signals. The context ends with the first that is to end the program;
// a second one does so where no thread is held, which hold tells. release gives the
// signals back their effect.
func catch() (ctx context.Context, hold func(bool), release func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := &caught{ch: make(chan os.Signal, 8), done: make(chan struct{}), old: map[syscall.Signal]*action{}}
	for _, s := range ending {
		if !signal.Ignored(s) { // nohup
			signal.Notify(c.ch, s)
		}
	}
	for _, s := range stopping {
		if old := sigaction(s, nil); old.handler != ignored {
			c.old[s] = old
			signal.Notify(c.ch, s)
		}
	}
	// Each thread that stops would run Go's handler while all of them wait.
	if old := sigaction(unix.SIGCHLD, nil); old.handler != ignored {
		c.old[unix.SIGCHLD] = old
		quiet := *old
		quiet.flags |= noChildStop
		sigaction(unix.SIGCHLD, &quiet)
	}
	// A write to a closed pipe is an error, and not the end.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	go func() {
		defer close(c.done)
		for s := range c.ch {
			switch s := s.(syscall.Signal); {
			case slices.Contains(stopping, s):
				c.stop = s
			case ctx.Err() == nil:
				cancel(errors.New(s.String() + " signal received"))
			case !c.held.Load():
				signal.Reset(s)
				unix.Kill(os.Getpid(), s)
			}
		}
	}()
	return ctx, c.held.Store, c.release
}

// release gives the signals back their effect. What was to stop the program does so
// now.
func (c *caught) release() {
	signal.Stop(c.ch)
	close(c.ch)
	<-c.done
	for s, old := range c.old { // of those that stop, Go leaves its handler, and drops them
		sigaction(s, old)
	}
	if c.stop != 0 {
		unix.Kill(os.Getpid(), c.stop)
	}
}

// action is the kernel's struct sigaction.
type action struct{ handler, flags, restorer, mask uint64 }

const (
	ignored     = 1 // SIG_IGN
	noChildStop = 1 // SA_NOCLDSTOP
)

// sigaction returns what a signal does, and sets it if it is given.
func sigaction(s syscall.Signal, set *action) *action {
	var old action
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	return &old
}
