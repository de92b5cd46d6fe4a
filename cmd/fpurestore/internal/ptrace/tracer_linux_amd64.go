package ptrace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Tracer stops the threads of some processes and works on their registers. Its
// methods must be called from the goroutine that called [Open].
type Tracer struct {
	b        Backend
	now      func() time.Time
	layout   func() xstate.Layout
	osTID    int // the OS thread that traces
	pids     []int
	threads  map[int]*thread
	stray    []int // processes attached because a thread created them by clone
	scratch  []byte
	reserved []byte // see Reserve
	partial  bool   // Stop has not succeeded: there may be tracees not in threads
	left     bool   // something may still be attached that is not in threads
	closed   bool
}

// thread is one that is, or may be, attached.
type thread struct {
	pid, tid int
	stopped  bool
	dead     bool   // a leader that has ended before its process
	dying    bool   // killed in its stop
	signal   int    // to be delivered on detach
	compat   *bool  // nil if not known yet
	known    []byte // NT_X86_XSTATE as last read, nil if written since
}

// Open pins the given processes, so that their numbers cannot come to mean
// other processes, and locks the calling goroutine to its OS thread until
// Close. Nothing is attached or stopped yet. The error is an [*AttachError].
func Open(pids ...int) (*Tracer, error) { return OpenBackend(NewSystem(), pids...) }

// OpenBackend is Open on the given system calls.
func OpenBackend(b Backend, pids ...int) (*Tracer, error) {
	runtime.LockOSThread()
	t := &Tracer{
		b:       b,
		now:     time.Now,
		layout:  hostLayout,
		osTID:   unix.Gettid(),
		threads: make(map[int]*thread),
		// More than any register set: the largest known, with AMX, is 11008.
		scratch: make([]byte, 64<<10),
	}
	for _, pid := range pids {
		if err := t.open(pid); err != nil {
			b.Close()
			runtime.UnlockOSThread()
			return nil, err
		}
		t.pids = append(t.pids, pid)
	}
	return t, nil
}

// hostLayout is where the kernel puts components, by CPUID as it does
// (arch/x86/kernel/fpu/xstate.c: setup_xstate_cache). Hardly any restore asks.
var hostLayout = sync.OnceValue(func() xstate.Layout { return cpuid.CPU(cpuid.Native{}).Layout })

func (t *Tracer) open(pid int) error {
	if pid == os.Getpid() {
		return &AttachError{PID: pid, TID: pid, Reason: ErrSelf}
	}
	st, err := t.b.Open(pid)
	if err != nil {
		return t.attachError(pid, pid, err)
	}
	e := &AttachError{PID: pid, TID: pid, Comm: st.Comm}
	switch {
	case st.PID == os.Getpid():
		e.Reason = ErrSelf
	case st.PID != pid:
		e.Reason, e.Tgid = ErrNotLeader, st.PID
	case st.KernelThread:
		e.Reason = ErrKernelThread
	case st.State == 'Z':
		// The leader alone may have ended; the process is its other threads.
		tids, err := t.b.Tasks(pid)
		if err == nil && len(tids) > 1 {
			return nil
		}
		e.Reason = ErrZombie
	default:
		return nil
	}
	return e
}

// here guards against a call on another OS thread, to which the kernel would
// say "no such process" for every thread.
func (t *Tracer) here() error {
	if t.closed {
		return errors.New("tracer is closed")
	}
	if unix.Gettid() != t.osTID {
		return ErrWrongThread
	}
	return nil
}

// Stop stops every thread of all processes, those that appear meanwhile
// included, and returns when the last one stands still. It begins with those
// that the caller knows, if any, and lists the others when these stand still.
// The caller bounds it by the context's deadline. If it fails, everything is let go again; after a
// [*TimeoutError] the end of the goroutine does so, which must follow after Close.
//
// The error is an [*AttachError] if some thread cannot be traced, a
// [*TimeoutError] if some did not stop before the deadline, a [*ThreadError]
// that wraps [ErrExited] if a process ended, or wraps the context's error or
// that of a system call.
func (t *Tracer) Stop(ctx context.Context, known ...Thread) (err error) {
	if err := t.here(); err != nil {
		return err
	}
	for tid, th := range t.threads {
		if th.stopped {
			return errors.New("already stopped")
		}
		// Left from an earlier Stop; attach finds it again.
		delete(t.threads, tid)
		t.left = true
	}
	t.partial = true
	defer func() {
		if err == nil {
			t.partial = false
			return
		}
		letGo := t.detach
		if errors.Is(err, ErrTimeout) {
			letGo = t.abandon
		}
		if more := letGo(); more != nil {
			err = errors.Join(err, more)
		}
	}()
	seen := make(map[int][]int, len(t.pids))
	for _, th := range known {
		seen[th.PID] = append(seen[th.PID], th.TID)
	}
	// Attach to all that can be seen, ask all of those to stop, wait until
	// they did; a thread created before its creator stopped is either attached
	// by the kernel (PTRACE_O_TRACECLONE) or seen by the next pass. The last
	// pass meets only threads that stand still, which cannot create others.
	zombies := make(map[int]bool)
	for listed := len(known) == 0; ; listed = true {
		list := func(pid int) ([]int, error) { return seen[pid], nil }
		if listed {
			still := t.still()
			list = func(pid int) ([]int, error) {
				if tids := still[pid]; tids != nil && t.b.Only(pid, tids) { // in a fifth of the time
					return tids, nil
				}
				return t.b.Tasks(pid)
			}
		}
		p, err := t.pass(ctx, list, zombies)
		if err != nil {
			return err
		}
		if listed && !p.changed {
			if err := t.settle(ctx, p.member); err != nil {
				return err
			}
			return t.complete()
		}
		if err := t.halt(ctx, p.fresh, zombies); err != nil {
			return err
		}
	}
}

// still gives the threads of each process that stand still.
func (t *Tracer) still() map[int][]int {
	tids := make(map[int][]int, len(t.pids))
	for tid, th := range t.threads {
		if th.stopped {
			tids[th.pid] = append(tids[th.pid], tid)
		}
	}
	return tids
}

// pass is what was met when the threads were listed once.
type pass struct {
	member  map[int]bool // all that were listed
	fresh   []*thread    // attached now
	changed bool         // another pass may meet more
}

// pass attaches to all that can be seen.
func (t *Tracer) pass(ctx context.Context, list func(pid int) ([]int, error), zombies map[int]bool) (p pass, err error) {
	p.member = make(map[int]bool, len(t.threads))
	for _, pid := range t.pids {
		tids, err := list(pid)
		if errors.Is(err, ErrNotFound) {
			return p, &ThreadError{PID: pid, TID: pid, Op: "list threads", Err: ErrExited}
		}
		if err != nil {
			return p, fmt.Errorf("process %d: list threads: %w", pid, err)
		}
		for _, tid := range tids {
			p.member[tid] = true
			if t.threads[tid] != nil {
				continue
			}
			if err := expired(ctx, t.now()); err != nil {
				return p, t.gaveUp(err)
			}
			th, zombie, err := t.attach(pid, tid)
			switch {
			case err != nil:
				return p, err
			case zombie:
				// It may have created a thread before it ended.
				p.changed = p.changed || !zombies[tid]
				zombies[tid] = true
			default:
				p.changed = true
				if th != nil {
					p.fresh = append(p.fresh, th)
				}
			}
		}
	}
	return p, nil
}

// halt has threads stop, and waits until they did.
func (t *Tracer) halt(ctx context.Context, threads []*thread, zombies map[int]bool) error {
	for _, th := range threads {
		// ESRCH: it has ended since; the wait will tell.
		if err := t.b.Interrupt(th.tid); err != nil && err != unix.ESRCH {
			return &ThreadError{PID: th.pid, TID: th.tid, Op: "interrupt", Err: err}
		}
	}
	for _, th := range threads {
		if err := t.await(ctx, th); err != nil {
			return err
		}
		if !th.stopped {
			zombies[th.tid] = true
		}
	}
	return nil
}

// attach seizes one listed thread. No thread and no error means that it ended,
// zombie that it has ended but is still listed.
func (t *Tracer) attach(pid, tid int) (th *thread, zombie bool, err error) {
	add := func() *thread {
		th := &thread{pid: pid, tid: tid}
		t.threads[tid] = th
		return th
	}
	errno := t.b.Seize(tid)
	switch errno {
	case nil:
		return add(), false, nil
	case unix.ESRCH: // ended between the listing and now
		return nil, false, nil
	}
	st, err := t.b.Status(pid, tid)
	switch {
	case errors.Is(err, ErrNotFound): // ended, and the number may be another's by now
		return nil, false, nil
	case err != nil:
		return nil, false, t.attachError(pid, tid, errno)
	case (st.State == 'Z' || st.State == 'X') && st.TracerPID != t.osTID:
		return nil, true, nil // EPERM: kernel/ptrace.c: ptrace_attach, exit_state
	case errno == unix.EPERM && st.TracerPID == t.osTID:
		// The kernel attached it on behalf of the thread that created it.
		return add(), false, nil
	}
	return nil, false, t.attachError(pid, tid, errno)
}

// await waits until one thread has stopped, or has ended, which removes it or
// leaves it not stopped.
func (t *Tracer) await(ctx context.Context, th *thread) error {
	for try := 0; ; try++ {
		done, err := t.poll(th)
		if done || err != nil {
			return err
		}
		if err := expired(ctx, t.now()); err != nil {
			return t.gaveUp(err)
		}
		// The end of a leader is not reported before that of all other threads
		// (kernel/exit.c: delay_group_leader), so ask for it now and then.
		if try >= spins && th.pid == th.tid && (try-spins)%16 == 15 {
			if st, err := t.b.Status(th.pid, th.tid); err == nil && st.State == 'Z' {
				th.dead = true
				return nil
			}
		}
		pause(try)
	}
}

// spins is how often a wait asks again at once: on an idle machine a thread
// stops within a few microseconds. It must not yield in between, for on a busy
// one that costs a turn of everybody else's.
const spins = 16

// pause is the time between two polls. A blocking wait has no deadline, and
// none can be added in a Go program, whose signal handlers restart it.
func pause(try int) {
	if try < spins {
		return
	}
	d := 20 * time.Microsecond << min((try-spins)/8, 6)
	ts := unix.NsecToTimespec(int64(d))
	unix.Nanosleep(&ts, nil) // EINTR: a shorter pause
}

// poll looks once whether a thread has stopped or ended.
func (t *Tracer) poll(th *thread) (done bool, err error) {
	ws, changed, err := t.b.Poll(th.tid)
	switch {
	case err == unix.ECHILD:
		// Not, or no longer, a tracee of this thread: another thread called
		// exec, which ends all others and takes over the leader's number
		// (ptrace(2), "execve(2) under ptrace").
		delete(t.threads, th.tid)
		return true, nil
	case err != nil:
		return false, &ThreadError{PID: th.pid, TID: th.tid, Op: "wait", Err: err}
	case !changed:
		return false, nil
	case !ws.Stopped(): // exited or killed
		delete(t.threads, th.tid)
		return true, nil
	}
	th.stopped = true
	switch event := int(ws) >> 16; event {
	case 0:
		// Signal-delivery-stop. The signal has been taken off the queue, so it
		// is for us to hand it on. The pending interrupt goes away on detach
		// (kernel/ptrace.c: __ptrace_unlink).
		th.signal = int(ws.StopSignal())
	case unix.PTRACE_EVENT_CLONE:
		child, err := t.b.NewThread(th.tid)
		if err != nil && err != unix.ESRCH {
			child, err = t.b.NewThread(th.tid) // too much hangs on it
		}
		if err != nil {
			// A process, if it was not a thread, is attached, and nobody says
			// which: the end of this OS thread will let it go.
			t.left = true
		}
		if err == unix.ESRCH { // killed since
			return true, nil
		}
		if err != nil {
			return true, &ThreadError{PID: th.pid, TID: th.tid, Op: "get event message", Err: err}
		}
		t.stray = append(t.stray, child)
	}
	// PTRACE_EVENT_STOP, with SIGTRAP from the interrupt or with the stopping
	// signal in a group-stop: nothing to hand on, and the group-stop goes on
	// after detach.
	return true, nil
}

// settle removes what is attached but does not belong to the processes: a
// thread that ended between listing and attaching and whose number went to a
// stranger, and processes that the kernel attached because they were created
// by clone without SIGCHLD as exit signal.
func (t *Tracer) settle(ctx context.Context, member map[int]bool) error {
	var foreign []*thread
	for tid, th := range t.threads {
		if !member[tid] {
			foreign = append(foreign, th)
		}
	}
	for _, tid := range t.stray {
		if !member[tid] && t.threads[tid] == nil {
			th := &thread{tid: tid}
			t.threads[tid] = th
			foreign = append(foreign, th)
		}
	}
	t.stray = nil
	for _, th := range foreign {
		if !th.stopped {
			if err := t.await(ctx, th); err != nil {
				return err
			}
		}
		if th.stopped {
			if err := t.release(th); err != nil {
				return err
			}
		}
	}
	return nil
}

// complete checks that every process is still there.
func (t *Tracer) complete() error {
	living := make(map[int]int)
	for _, th := range t.threads {
		if th.stopped {
			living[th.pid]++
		}
	}
	for _, pid := range t.pids {
		err := t.b.Alive(pid)
		if errors.Is(err, ErrNotFound) || err == nil && living[pid] == 0 {
			err = ErrExited
		}
		if err != nil {
			return &ThreadError{PID: pid, TID: pid, Op: "stop", Err: err}
		}
	}
	return nil
}

// maxLooks bounds at how many threads a Stop that has run out of time looks. Where a
// thousand others want the CPU, a look at all takes a minute.
const maxLooks = 8

// gaveUp reports which threads have not stopped.
func (t *Tracer) gaveUp(cause error) error {
	if !errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("stop: %w", cause)
	}
	e := &TimeoutError{Err: cause}
	for _, th := range t.sorted() {
		if th.stopped || th.dead {
			continue
		}
		s := StuckThread{PID: th.pid, TID: th.tid}
		if len(e.Threads) < maxLooks {
			if done, err := t.poll(th); done && err == nil {
				continue
			}
			if st, err := t.b.Status(th.pid, th.tid); err == nil {
				s.Comm, s.State = st.Comm, st.State
			}
			if s.State == 'Z' {
				continue
			}
			if b, err := readFile(unix.AT_FDCWD, fmt.Sprintf("/proc/%d/task/%d/wchan", th.pid, th.tid)); err == nil && string(b) != "0" {
				s.WaitChan = string(b)
			}
		}
		e.Threads = append(e.Threads, s)
	}
	return e
}

// sorted gives the attached threads by process in the order of Open, then by
// thread id.
func (t *Tracer) sorted() []*thread {
	rank := make(map[int]int, len(t.pids))
	for i, pid := range t.pids {
		rank[pid] = i
	}
	return slices.SortedFunc(maps.Values(t.threads), func(a, b *thread) int {
		if a.pid != b.pid && rank[a.pid] != rank[b.pid] {
			return cmp.Compare(rank[a.pid], rank[b.pid])
		}
		return cmp.Compare(a.tid, b.tid)
	})
}

// Threads lists the stopped threads: processes in the order given to Open,
// thread ids ascending.
func (t *Tracer) Threads() []Thread {
	var list []Thread
	for _, th := range t.sorted() {
		if th.stopped {
			list = append(list, Thread{th.pid, th.tid})
		}
	}
	return list
}

// abandon leaves all threads to the end of the OS thread, which lets them go in one go.
// To do it here takes as long as the threads let go want the CPU as well. But for a
// signal that has been taken off the queue: the kernel has dropped it
// (kernel/exit.c: wait_task_stopped).
func (t *Tracer) abandon() error {
	var errs []error
	for _, th := range t.sorted() {
		if th.stopped && th.signal != 0 {
			errs = append(errs, t.release(th))
		}
	}
	clear(t.threads)
	t.stray, t.partial, t.left = nil, false, true
	return errors.Join(errs...)
}

// haltGrace bounds how long detach waits for threads only in order to detach from
// them. One that sleeps for longer may do so for ever.
const haltGrace = 200 * time.Millisecond

// detach lets go of what stands still at once, with the signals that were met while
// stopping, and of what does not as soon as it has stopped: the kernel detaches from no
// other. What has not when the grace is over is left to the end of the OS thread. A
// thread that was killed meanwhile is no error. The error joins one [*ThreadError] for
// each living thread that could not be let go, which another detach tries again.
func (t *Tracer) detach() error {
	end := t.now().Add(haltGrace)
	asked, failed, gone := make(map[int]bool), make(map[int]bool), make(map[int]bool)
	var errs []error
	for try := 0; ; try++ {
		var running []*thread
		for _, th := range t.sorted() {
			if !th.stopped && !th.dead && !th.dying {
				if !asked[th.tid] {
					asked[th.tid] = true
					t.b.Interrupt(th.tid) // fails if it has ended; the wait will tell
				}
				if done, err := t.poll(th); !done || err != nil {
					running = append(running, th)
				}
			}
			if !th.stopped || failed[th.tid] {
				continue
			}
			if err := t.release(th); err != nil {
				errs = append(errs, err)
				failed[th.tid] = true
			} else if t.partial {
				gone[th.tid] = true
			}
		}
		if t.adopt(gone, end, len(running) == 0) {
			continue
		}
		if len(running) == 0 || !t.now().Before(end) {
			for _, th := range running {
				delete(t.threads, th.tid)
				t.left = true
			}
			t.partial = false
			break
		}
		pause(try)
	}
	t.reap()
	return errors.Join(errs...)
}

// adopt finds what the kernel attached for us, because a tracee created it, and Stop
// has not got round to. If Stop has failed, all threads but those known to be gone are
// looked at, once nothing runs that could create more.
func (t *Tracer) adopt(gone map[int]bool, end time.Time, all bool) (found bool) {
	add := func(pid, tid int) {
		if t.threads[tid] == nil && !gone[tid] {
			t.threads[tid] = &thread{pid: pid, tid: tid}
			found = true
		}
	}
	for _, tid := range t.stray {
		add(0, tid)
	}
	t.stray = nil
	if found || !all || !t.partial {
		return found
	}
	for _, pid := range t.pids {
		if !t.now().Before(end) {
			t.left = true
			return found
		}
		tids, _ := t.b.Tasks(pid) // none if it has ended
		for _, tid := range tids {
			if t.threads[tid] != nil || gone[tid] {
				continue
			}
			if !t.now().Before(end) {
				t.left = true
				return found
			}
			if st, err := t.b.Status(pid, tid); err == nil && st.TracerPID == t.osTID {
				add(pid, tid)
			} else {
				gone[tid] = true
			}
		}
	}
	return found
}

// release detaches one stopped thread.
func (t *Tracer) release(th *thread) error {
	err := t.b.Detach(th.tid, th.signal)
	switch {
	case err == nil:
		delete(t.threads, th.tid)
		return nil
	case err == unix.ESRCH && !t.inStop(th):
		th.stopped, th.dying = false, true
		for _, other := range t.threads { // its leader can be reaped after it
			other.dying = other.dying || other.dead && other.pid == th.pid
		}
		return nil
	}
	return &ThreadError{PID: th.pid, TID: th.tid, Op: "detach", Err: err}
}

// reapGrace bounds how long detach waits for killed threads to die.
const reapGrace = 2 * time.Second

// reap takes the exit status of killed threads: until then they stay zombies,
// and the parent does not learn of the end (kernel/exit.c: exit_notify). What
// is not dead soon is left to the kernel, which does the same when the OS
// thread ends.
func (t *Tracer) reap() {
	end := time.Now().Add(reapGrace)
	for try := 0; ; try++ {
		waiting := false
		for _, th := range t.threads {
			if th.stopped {
				continue // could not be detached
			}
			if done, err := t.poll(th); done || err != nil {
				continue
			}
			// A leader that ended before its process stays as long as that
			// does, and a thread that never stopped may sleep for ever.
			waiting = waiting || th.dying
		}
		if !waiting || time.Now().After(end) {
			return
		}
		pause(try)
	}
}

// inStop tells whether a thread is still in its ptrace-stop. Only SIGKILL and
// its tracer can take it out of that, so a thread that answers ESRCH and is
// not there is dying (kernel/ptrace.c: ptrace_check_attach).
func (t *Tracer) inStop(th *thread) bool {
	st, err := t.b.Status(th.pid, th.tid)
	if errors.Is(err, ErrNotFound) {
		return false
	}
	return err != nil || st.State == 't' && st.TracerPID == t.osTID
}

// Close detaches what is still attached, forgets the processes, and unlocks
// the goroutine, unless some thread could not be detached: then the goroutine
// stays locked, so that its OS thread ends with it, and the kernel detaches.
// The error joins one [*ThreadError] for each living thread that could not be detached.
func (t *Tracer) Close() error {
	if t.closed {
		return nil
	}
	if err := t.here(); err != nil {
		return err
	}
	err := t.detach()
	if err != nil {
		err = t.detach() // nothing else can be done for these threads
	}
	t.b.Close()
	t.closed = true
	if len(t.threads) == 0 && !t.left {
		runtime.UnlockOSThread()
	}
	return err
}

// attachError explains why a process or thread cannot be pinned or seized.
func (t *Tracer) attachError(pid, tid int, cause error) error {
	e := &AttachError{PID: pid, TID: tid, Err: cause, UID: -1, SelfUID: os.Geteuid(), YamaScope: -1}
	st, err := t.b.Status(pid, tid)
	if err != nil {
		st, err = ReadStatus(pid, tid)
	}
	if err == nil {
		e.Comm, e.UID = st.Comm, st.UID
	}
	denied := errors.Is(cause, unix.EPERM) || errors.Is(cause, unix.EACCES) // EACCES: from a security module
	switch {
	case errors.Is(cause, ErrNotFound):
		e.Reason = ErrNotFound
	case denied && err == nil && st.KernelThread:
		e.Reason = ErrKernelThread
	case denied && err == nil && st.State == 'Z':
		e.Reason = ErrZombie
	case denied && err == nil && st.TracerPID != 0:
		e.Reason, e.TracerPID = ErrTraced, st.TracerPID
		// TracerPid is the id of the thread that traces.
		if tr, err := readStatus(unix.AT_FDCWD, fmt.Sprintf("/proc/%d", st.TracerPID)); err == nil {
			e.TracerPID, e.TracerComm = tr.PID, tr.Comm
		}
	case denied:
		e.Reason = ErrPermission
		e.HasCap = hasCapPtrace()
		e.UserNS = otherUserNS(pid, e.HasCap)
		e.YamaScope = readNumber("/proc/sys/kernel/yama/ptrace_scope")
	default:
		e.Reason, e.Err = cause, nil
	}
	return e
}
