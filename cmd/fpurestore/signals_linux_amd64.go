package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Signals that stop the program, and those that end it. For some of the latter the Go
// runtime prints first, which can block. Those of a C library end it where neither Go
// nor a C library has a handler.
var (
	stopping = []syscall.Signal{unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU}
	ending   = []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGABRT, unix.SIGILL,
		unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSTKFLT, unix.SIGSYS}
	ofLibc = []syscall.Signal{32, 33, 34} // glibc has the first two, musl all
)

// What the handler of a signal reads.
var (
	noted int32 // where to write the number
	//lint:ignore U1000 the handler is no Go
	goHandler uint64
)

// noteSignalPC returns the address of the handler.
func noteSignalPC() uint64

// signalPipe returns where the numbers of signals are read. It is never closed: a handler
// may still be about to write.
var signalPipe = sync.OnceValues(func() (*os.File, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	noted = int32(p[1])
	return os.NewFile(uintptr(p[0]), "signals"), nil
})

// caught are the signals of a run. While it holds threads none takes effect: the
// threads would stand still with it, or be left with half of them changed.
type caught struct {
	done chan struct{}
	held atomic.Bool    // threads are held
	stop syscall.Signal // the last that was to stop the program, 0 after SIGCONT or if none was
	old  map[syscall.Signal]*action
}

// catch catches signals. The context ends with the first that is to end the program;
// a second one does so where no thread is held, which hold tells. release gives the
// signals back their effect.
//
// Package os/signal would switch between threads of this program for each signal that is
// caught and given back, which takes as long as a small restore.
func catch() (ctx context.Context, hold func(bool), release func(), err error) {
	pipe, err := signalPipe()
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	c := &caught{done: make(chan struct{}), old: map[syscall.Signal]*action{}}
	replace := func(s syscall.Signal, f func(old *action) *action) {
		if old := sigaction(s, nil); old.handler != ignored { // nohup
			c.old[s] = old
			sigaction(s, f(old))
		}
	}
	ofGo := sigaction(unix.SIGURG, nil) // which preempts goroutines
	goHandler = ofGo.handler
	note := *ofGo
	note.handler = noteSignalPC()
	for _, s := range slices.Concat(ending, ofLibc, stopping, []syscall.Signal{unix.SIGCONT}) {
		if slices.Contains(ofLibc, s) && sigaction(s, nil).handler != byDefault {
			continue
		}
		replace(s, func(*action) *action { return &note })
	}
	// Each thread that stops would run Go's handler while all of them wait.
	replace(unix.SIGCHLD, func(old *action) *action {
		quiet := *old
		quiet.flags |= noChildStop
		return &quiet
	})
	// A write to a closed pipe is an error, and not the end.
	signal.Ignore(unix.SIGPIPE)
	go func() {
		defer close(c.done)
		for b := [1]byte{}; ; {
			if n, err := pipe.Read(b[:]); n == 0 || err != nil || b[0] == 0 {
				return
			}
			switch s := syscall.Signal(b[0]); {
			case slices.Contains(stopping, s):
				c.stop = s
			case s == unix.SIGCONT:
				c.stop = 0
			case ctx.Err() == nil:
				cancel(errors.New(s.String() + " signal received"))
			case !c.held.Load():
				sigaction(s, c.old[s])
				unix.Kill(os.Getpid(), s)
			}
		}
	}()
	return ctx, c.held.Store, c.release, nil
}

// release gives the signals back their effect. What was to stop the program does so
// now.
func (c *caught) release() {
	for s, old := range c.old {
		sigaction(s, old)
	}
	for n := 0; n < 1; { // behind those that were caught, once there is room
		n, _ = unix.Write(int(noted), []byte{0})
	}
	<-c.done
	if c.stop != 0 {
		runtime.LockOSThread() // which stops at once, and not when another thread gets to it
		defer runtime.UnlockOSThread()
		unix.Tgkill(unix.Getpid(), unix.Gettid(), c.stop)
	}
}

// action is the kernel's struct sigaction.
type action struct{ handler, flags, restorer, mask uint64 }

const (
	byDefault   = 0 // SIG_DFL
	ignored     = 1 // SIG_IGN
	noChildStop = 1 // SA_NOCLDSTOP
)

// sigaction returns what a signal does, and sets it if it is given.
func sigaction(s syscall.Signal, set *action) *action {
	var old action
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	return &old
}
