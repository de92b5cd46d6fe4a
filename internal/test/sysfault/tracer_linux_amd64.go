package sysfault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Return values with which the kernel asks itself to restart a call after a
// signal, <linux/errno.h>. A tracer sees them, the program does not.
const (
	eRestartSys          = 512
	eRestartNoIntr       = 513
	eRestartNoHand       = 514
	eRestartRestartBlock = 516
)

// result is a Result and what only this package's tests want to know.
type result struct {
	Result
	restarts int // calls not counted because they repeat an interrupted one
	lost     int // threads whose end was missed
}

// tracer follows one command. All but kill runs on the thread that started the
// command: ptrace(2) takes orders from that thread only.
type tracer struct {
	pgid        int // also the command's process id
	under       string
	decide      func(Call) Action
	interrupted map[callSite]struct{}
	err         error // why the harness gave up
	result      result

	cancelled atomic.Bool

	mu      sync.Mutex      // for what follows; kill runs on any thread
	threads map[int]*thread // not yet waited for, by thread id
	killed  bool
}

// thread is a thread of the program.
type thread struct {
	// starting is set until the first stop of the command, at its execve.
	starting bool
	// setup is what the command is made to do first, until it is done.
	setup *setup
	// errno is the return value to set when the current call ends, if not 0.
	errno syscall.Errno
	// site is the current call, if it counts.
	site *callSite
}

// callSite identifies a call by code, stack and arguments. Two calls with the
// same site one after the other are one that was interrupted and its repetition;
// the thread may differ, as a goroutine can move after EINTR.
type callSite struct {
	ip, sp, nr uint64
	args       [6]uint64
}

func run(ctx context.Context, cmd *exec.Cmd, opts Options, decide func(Call) Action) (result, error) {
	if cmd.Stdout != nil || cmd.Stderr != nil {
		return result{}, errors.New("sysfault: Stdout or Stderr already set")
	}
	if err := ctx.Err(); err != nil {
		return result{}, context.Cause(ctx)
	}
	t := &tracer{
		decide:      decide,
		interrupted: make(map[callSite]struct{}),
		threads:     make(map[int]*thread),
	}
	if opts.Under != "" {
		abs, err := filepath.Abs(opts.Under)
		if err != nil {
			return result{}, fmt.Errorf("sysfault: %w", err)
		}
		// The calls' paths have their symbolic links resolved.
		t.under = lookup(os.Getpid(), unix.AT_FDCWD, abs, true).path
	}

	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var attr syscall.SysProcAttr
	if cmd.SysProcAttr != nil {
		attr = *cmd.SysProcAttr
	}
	attr.Ptrace = true
	// A group of its own, to wait for this command and nothing else: other
	// children of this process belong to someone else. A session of its own
	// comes with one.
	attr.Setpgid, attr.Pgid = !attr.Setsid, 0
	cmd.SysProcAttr = &attr

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return result{}, fmt.Errorf("sysfault: %w", err)
	}
	t.pgid = cmd.Process.Pid
	t.threads[t.pgid] = &thread{starting: true}
	// Nothing is left to do here, unless decide panics or ends the goroutine, as
	// testing.T.Fatal does.
	defer func() {
		t.kill()
		t.loop()
	}()
	stop := context.AfterFunc(ctx, func() {
		if t.kill() {
			t.cancelled.Store(true)
		}
	})
	t.loop()
	stop()
	t.result.lost = len(t.threads)

	// The loop has reaped the process, so Wait has nothing to tell but ECHILD: it
	// is called to finish the copying of the output.
	_ = cmd.Wait()
	_ = cmd.Process.Release()
	t.result.Stdout, t.result.Stderr = stdout.Bytes(), stderr.Bytes()
	if t.err == nil && t.cancelled.Load() {
		t.err = context.Cause(ctx)
	}
	return t.result, t.err
}

// loop handles stops until no process of the group is left.
func (t *tracer) loop() {
	for {
		tid, err := peek(t.pgid)
		if err == unix.ECHILD {
			return
		}
		if err != nil {
			// Without waiting there is no way on; PTRACE_O_EXITKILL and the kill
			// do what can be done.
			t.giveUp(os.NewSyscallError("waitid", err))
			return
		}
		var status unix.WaitStatus
		t.mu.Lock()
		got, err := unix.Wait4(tid, &status, unix.WALL|unix.WNOHANG, nil)
		if err != nil || got != tid {
			// A kill took the thread out of its stop in between, or an execve gave
			// it another id.
			t.mu.Unlock()
			continue
		}
		if !status.Stopped() {
			t.ended(tid, status)
			t.mu.Unlock()
			continue
		}
		th := t.threads[tid]
		if th == nil {
			th = &thread{}
			t.threads[tid] = th
		}
		killed := t.killed
		t.mu.Unlock()
		if !killed { // else SIGKILL takes it out of the stop
			t.stopped(tid, th, status)
		}
	}
}

// ended records the end of a thread. The caller holds mu.
func (t *tracer) ended(tid int, status unix.WaitStatus) {
	delete(t.threads, tid)
	if tid != t.pgid {
		return
	}
	t.result.ExitCode = status.ExitStatus() // -1 after a signal
	if status.Signaled() {
		t.result.Signal = status.Signal()
	}
}

// stopped handles the stop of a thread and lets it go on.
func (t *tracer) stopped(tid int, th *thread, status unix.WaitStatus) {
	sig := status.StopSignal()
	switch {
	case th.starting:
		th.starting = false
		const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACEEXEC |
			unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACESECCOMP
		t.check("ptrace set options", unix.PtraceSetOptions(tid, options))
		t.setUp(tid, th)
		return
	case th.setup != nil && sig == unix.SIGTRAP: // after a step
		t.setUp(tid, th)
		return
	case th.setup != nil: // a signal for a program that has not begun: it is lost
		t.check("ptrace single step", unix.PtraceSingleStep(tid))
		return
	case sig == unix.SIGTRAP|0x80: // PTRACE_O_TRACESYSGOOD
		t.syscallStop(tid, th)
		sig = 0
	case sig == unix.SIGTRAP && status.TrapCause() == unix.PTRACE_EVENT_SECCOMP:
		t.syscallStop(tid, th)
		sig = 0
	case sig == unix.SIGTRAP && status.TrapCause() == unix.PTRACE_EVENT_EXEC:
		t.exec(tid)
		sig = 0
	case sig == unix.SIGTRAP && status.TrapCause() > 0:
		// A clone, fork or vfork: the new thread reports by itself.
		sig = 0
	case sig == unix.SIGSTOP:
		// Sent to each new thread by PTRACE_O_TRACECLONE and its like. One that is
		// meant would not last either: to resume a thread ends its group-stop.
		sig = 0
	}
	t.resume(tid, th, sig)
}

// exec accounts for an execve: the thread that made it has taken the id of its
// process, and its own id is gone without an end of its own (ptrace(2), "execve(2)
// under ptrace").
func (t *tracer) exec(tid int) {
	former, err := unix.PtraceGetEventMsg(tid)
	t.check("ptrace get event message", err)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil && int(former) != tid {
		delete(t.threads, int(former))
	}
	t.threads[tid] = &thread{}
}

// syscallStop handles the entry to or the exit from a system call.
func (t *tracer) syscallStop(tid int, th *thread) {
	info, err := getSyscallInfo(tid)
	if err != nil {
		t.check("", err)
		return
	}
	switch info.op {
	case unix.PTRACE_SYSCALL_INFO_SECCOMP:
		t.entry(tid, th, &info)
	case unix.PTRACE_SYSCALL_INFO_EXIT:
		if th.errno != 0 {
			t.setReturn(tid, th.errno)
		} else if th.site != nil {
			switch -info.rval() {
			case eRestartSys, eRestartNoIntr, eRestartNoHand, eRestartRestartBlock, int64(unix.EINTR):
				t.interrupted[*th.site] = struct{}{}
			}
		}
		th.errno, th.site = 0, nil
	}
}

// entry counts a system call that is about to be made, and does what decide says.
func (t *tracer) entry(tid int, th *thread, info *syscallInfo) {
	const x32 = 1 << 30 // __X32_SYSCALL_BIT, <asm/unistd.h>
	if info.arch != unix.AUDIT_ARCH_X86_64 || info.nr&x32 != 0 {
		t.refuse(tid, "32-bit system calls")
		return
	}
	if name := unsupported(tid, info); name != "" {
		t.refuse(tid, name)
		return
	}
	target, ok := classify(tid, info)
	if !ok || t.under != "" && !inside(target.Path, t.under) && !inside(target.Dest, t.under) {
		return
	}
	site := callSite{info.ip, info.sp, info.nr, info.args}
	th.site = &site
	if _, ok := t.interrupted[site]; ok {
		delete(t.interrupted, site)
		t.result.restarts++
		return
	}
	target.N = len(t.result.Calls) + 1
	t.result.Calls = append(t.result.Calls, target)
	action := t.decide(target)
	if action == (Action{}) {
		return
	}
	if t.result.Hit == nil {
		t.result.Hit = &target
	}
	if action.Kill {
		t.skip(tid) // no manual promises that a killed thread does not go on with it
		t.kill()
		return
	}
	if action.Errno >= eRestartSys {
		t.giveUp(fmt.Errorf("sysfault: cannot fail %s with errno %d", target.Name, int(action.Errno)))
		return
	}
	t.skip(tid)
	th.errno = action.Errno
}

// skip keeps the kernel from executing the call that a thread is about to make:
// there is no call -1.
func (t *tracer) skip(tid int) {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		t.check("ptrace get registers", err)
		return
	}
	regs.Orig_rax = ^uint64(0)
	t.check("ptrace set registers", unix.PtraceSetRegs(tid, &regs))
}

// setReturn makes a call that was skipped return errno.
func (t *tracer) setReturn(tid int, errno syscall.Errno) {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		t.check("ptrace get registers", err)
		return
	}
	regs.Rax = uint64(-int64(errno))
	t.check("ptrace set registers", unix.PtraceSetRegs(tid, &regs))
}

// refuse ends the run before a call that the harness cannot follow.
func (t *tracer) refuse(tid int, name string) {
	t.skip(tid)
	t.giveUp(&UnsupportedError{Name: name})
}

// resume lets a stopped thread run: to the end of the call that it is in, if it counts,
// else to the next one that the filter tells of.
func (t *tracer) resume(tid int, th *thread, sig unix.Signal) {
	request := unix.PtraceCont
	if th.site != nil {
		request = unix.PtraceSyscall
	}
	t.check("ptrace resume", request(tid, int(sig)))
}

// check gives up on an error from ptrace. ESRCH is none: the thread was killed
// during its stop, and its end will be reported.
func (t *tracer) check(op string, err error) {
	if err == nil || errors.Is(err, unix.ESRCH) {
		return
	}
	if op != "" {
		err = os.NewSyscallError(op, err)
	}
	t.giveUp(fmt.Errorf("sysfault: %w", err))
}

// giveUp ends the run with an error.
func (t *tracer) giveUp(err error) {
	if t.err == nil {
		t.err = err
	}
	t.kill()
}

// kill ends all processes of the group and reports whether there were any. It
// holds mu so that none of them can be waited for meanwhile: as long as one is
// not, the group's number is not free to become someone else's.
func (t *tracer) kill() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.killed = true
	if len(t.threads) == 0 {
		return false
	}
	_ = unix.Kill(-t.pgid, unix.SIGKILL) // ESRCH: all are dead already
	return true
}
