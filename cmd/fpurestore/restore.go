package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/fpuimg/fpuimg/cmd/fpurestore/internal/ptrace"
	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// machine is what a restore needs of the system that it runs on.
type machine struct {
	host   func() (*xstate.CPU, error)
	tree   func(pid int) ([]int, error)
	tasks  func(pid int) ([]int, error)
	status func(pid, tid int) (ptrace.Status, error)
	open   func(pids ...int) (tracer, error)
	// alone calls work on an OS thread that ends with its goroutine.
	alone func(work func())
	// catch keeps signals from stopping or ending the program; the context ends with
	// the first that was to end it. hold tells whether threads are held.
	catch func() (ctx context.Context, hold func(bool), release func(), err error)
}

// tracer is what a restore needs of threads: a [ptrace.Tracer], which documents it.
type tracer interface {
	Reserve(n int)
	Stop(ctx context.Context, known ...ptrace.Thread) error
	Threads() []ptrace.Thread
	Compat(tid int) (bool, error)
	Read(tid int) (ptrace.Area, error)
	ReadRegs(tid int) ([]byte, error)
	ReadShadowStack(tid int) (ssp uint64, ok bool, err error)
	Swap(map[int]ptrace.Area) error
	Close() error
}

// job is one run: a restore, a save or both, into one process or a tree.
type job struct {
	machine
	io     *cli.IO
	o      *options
	cpu    *xstate.CPU
	images []imageThread

	threads []liveThread // of the target, in the tracer's order
	without map[int]bool // its threads that have no registers: of the kernel's making, or ended
	plan    []planned
	judged  *compat.Judgement // of the plan
	tasks   []codec.SavedTask // what --save is to write
	saved   []savedThread

	restored, kept, planned bool  // what was done: restored, saved, looked at
	unsaved                 error // why it was not saved
	late                    []string
	stopped                 time.Time     // when stopping began
	window                  time.Duration // from there until all ran again
}

// run carries the options out. The order is fixed: read the images and decide, pin the
// processes, match threads, stop, read their state, write, read back and compare, let
// go, save what was read. Until the write nothing has changed. From the stop until all
// run again nothing is done that could block.
func (j *job) run() (err error) {
	if j.cpu, err = j.host(); err != nil {
		return err
	}
	j.cpu.Name = "this machine"
	if j.o.restore {
		err = loadImages(j.o, func(t imageThread, s *xstate.State) {
			t.decision = decide(s, j.cpu, j.o)
			j.images = append(j.images, t)
		})
		if err != nil {
			return err
		}
	}
	if j.o.dryRun {
		return j.look()
	}
	ctx, hold, release, err := j.catch()
	if err != nil {
		return err
	}
	defer release()
	work := func() error {
		hold(true)
		defer hold(false)
		return j.hold(ctx)
	}
	if j.o.save == "" {
		err = work()
	} else {
		err = j.save(work)
	}
	if j.restored && ctx.Err() != nil {
		j.warn("%v when registers were being written: the restore was finished", context.Cause(ctx))
	}
	return err
}

// warn keeps a warning for when no thread is held.
func (j *job) warn(format string, args ...any) { j.late = append(j.late, fmt.Sprintf(format, args...)) }

// look matches and plans without stopping anything.
func (j *job) look() error {
	ctx := context.Background()
	pids, err := j.wanted(ctx)
	if err != nil {
		return err
	}
	t, err := j.open(pids...) // looks at the processes and attaches to none
	if err != nil {
		return err
	}
	defer t.Close()
	if err := j.list(ctx, pids); err != nil {
		return err
	}
	err = j.match()
	j.planned = err == nil
	return err
}

// hold stops the threads, does what needs them stopped, and lets them go. It has an OS
// thread of its own, which traces: at its end the kernel lets go of what this program
// could not.
func (j *job) hold(ctx context.Context) (err error) {
	j.alone(func() {
		var t tracer
		if t, err = j.stop(ctx); err == nil {
			defer j.letGo(t)
			err = j.work(ctx, t)
		}
	})
	return err
}

func (j *job) letGo(t tracer) {
	if err := t.Close(); err != nil {
		j.warn("%v", err)
	}
	j.window = time.Since(j.stopped)
}

// stop pins the target, with its descendants if a tree is wanted, plans, and only
// then stops the threads: what is refused never stops anything, and what needs no
// stopped thread is done before. A process of a tree that comes or goes makes it start
// again.
func (j *job) stop(ctx context.Context) (tracer, error) {
	ctx, cancel := context.WithTimeout(ctx, j.o.timeout)
	defer cancel()
	for try := 1; ; try++ {
		pids, err := j.wanted(ctx)
		if err != nil {
			return nil, err
		}
		t, err := j.open(pids...)
		if err == nil {
			if err = j.stopAll(ctx, t, pids); err == nil {
				return t, nil
			}
			j.letGo(t)
		}
		if !j.passing(err) {
			return nil, err
		}
		// Not at once: this held up everything in the tree.
		select {
		case <-time.After(time.Duration(min(try, 20)) * 5 * time.Millisecond):
		case <-ctx.Done():
		}
		if ptrace.Expired(ctx) != nil { // a timer can be late
			return nil, err
		}
	}
}

var errTreeChanged = errors.New("processes of the tree come and go, and it could not be stopped as a whole")

// passing reports whether an error is only that a process of the tree came or went, so
// that another attempt may have better luck.
func (j *job) passing(err error) bool {
	if attach, ok := errors.AsType[*ptrace.AttachError](err); ok && attach.PID == j.o.pid {
		return false
	}
	return j.o.tree && slices.ContainsFunc([]error{errTreeChanged, ptrace.ErrNotFound, ptrace.ErrExited, ptrace.ErrZombie},
		func(passes error) bool { return errors.Is(err, passes) })
}

// stopAll plans for the threads of pinned processes and stops them. Threads that come
// or go meanwhile are planned anew.
func (j *job) stopAll(ctx context.Context, t tracer, pids []int) error {
	if err := j.list(ctx, pids); err != nil {
		return err
	}
	if err := j.match(); err != nil {
		return err
	}
	known := make([]ptrace.Thread, len(j.threads))
	for i, l := range j.threads {
		known[i] = ptrace.Thread{PID: l.pid, TID: l.tid}
	}
	if *j.cpu.XSave {
		t.Reserve(len(known) * int(*j.cpu.XSaveSize))
	}
	j.stopped = time.Now()
	if err := t.Stop(ctx, known...); err != nil {
		return unstopped(ctx, err)
	}
	if j.whole() && j.o.tree {
		if now, err := j.processes(); err != nil || !slices.Equal(pids, now) {
			return cmp.Or(err, errTreeChanged)
		}
	}
	threads := slices.DeleteFunc(t.Threads(), func(th ptrace.Thread) bool { return j.without[th.TID] })
	if slices.EqualFunc(j.threads, threads, func(l liveThread, th ptrace.Thread) bool { return l.tid == th.TID }) {
		return nil
	}
	if err := j.know(ctx, threads); err != nil {
		return err
	}
	return j.match()
}

// unstopped explains an error that kept threads from being stopped.
func unstopped(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		if !errors.Is(err, ptrace.ErrTimeout) {
			return &ptrace.TimeoutError{Err: err}
		}
	case context.Cause(ctx) != nil:
		return fmt.Errorf("%w, nothing was changed", context.Cause(ctx))
	}
	return err
}

// whole reports whether all of a tree is worked on, not only what the checkpoint
// holds.
func (j *job) whole() bool { return !j.o.restore || j.o.save != "" || !j.o.ignoreMissing }

// processes lists the target and, for a tree, its descendants that are no zombies, but
// not this program.
func (j *job) processes() ([]int, error) {
	if !j.o.tree {
		return []int{j.o.pid}, nil
	}
	pids, err := j.tree(j.o.pid)
	return slices.DeleteFunc(pids, func(pid int) bool { return pid == os.Getpid() && pid != j.o.pid }), err
}

// wanted lists the processes to stop.
func (j *job) wanted(ctx context.Context) ([]int, error) {
	pids, err := j.processes()
	if err != nil || !j.o.tree || j.whole() {
		return pids, err
	}
	if err := j.list(ctx, pids); err != nil {
		return nil, err
	}
	if err := j.match(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(pids, func(pid int) bool {
		return !slices.ContainsFunc(j.plan, func(p planned) bool { return p.live.pid == pid })
	}), nil
}

// list finds the threads of the processes, in the order in which a tracer gives
// them.
func (j *job) list(ctx context.Context, pids []int) error {
	var threads []ptrace.Thread
	for _, pid := range pids {
		tids, err := j.machine.tasks(pid)
		if errors.Is(err, ptrace.ErrNotFound) && pid != j.o.pid {
			continue // it ended meanwhile; the tracer will say so
		}
		if err != nil {
			return fmt.Errorf("process %d: %w", pid, err)
		}
		slices.Sort(tids)
		for _, tid := range tids {
			threads = append(threads, ptrace.Thread{PID: pid, TID: tid})
		}
	}
	return j.know(ctx, threads)
}

// know learns what matching needs to know of the threads. Of a thousand that are in
// no pid namespace of their own, and whose names nobody asked for, their leader's
// status tells it all.
func (j *job) know(ctx context.Context, threads []ptrace.Thread) error {
	j.threads, j.without = make([]liveThread, 0, len(threads)), map[int]bool{}
	all := !j.o.restore || j.o.dryRun || j.o.save != ""
	leaders := map[int]ptrace.Status{}
	for _, th := range threads {
		leader, ok := leaders[th.PID]
		if !ok {
			var err error
			if leader, err = j.status(th.PID, th.PID); err != nil && !errors.Is(err, ptrace.ErrNotFound) {
				return err
			}
			leaders[th.PID] = leader
		}
		l := liveThread{pid: th.PID, tid: th.TID, ppid: leader.PPID, nsPID: innermost(leader, th.PID), nsTID: th.TID}
		if all || len(leader.NSpid) != 1 {
			if err := ptrace.Expired(ctx); err != nil {
				return unstopped(ctx, err)
			}
			st, ok, err := j.registers(l)
			if err != nil {
				return err
			}
			if !ok {
				j.without[th.TID] = true
				continue
			}
			l.nsTID, l.comm = innermost(st, th.TID), st.Comm
		}
		j.threads = append(j.threads, l)
	}
	return nil
}

// registers reads about one thread. It is not ok if the thread has no registers of its
// own: made by the kernel, a leader that has ended before its process, or gone.
func (j *job) registers(l liveThread) (st ptrace.Status, ok bool, err error) {
	st, err = j.status(l.pid, l.tid)
	if errors.Is(err, ptrace.ErrNotFound) {
		return st, false, nil
	}
	return st, err == nil && !st.Worker && st.State != 'Z' && st.State != 'X', err
}

// innermost gives the number in the innermost pid namespace.
func innermost(st ptrace.Status, tid int) int {
	if n := len(st.NSpid); n > 0 {
		return st.NSpid[n-1]
	}
	return tid
}

// work does everything that needs the threads stopped.
func (j *job) work(ctx context.Context, t tracer) error {
	areas := make(map[int]ptrace.Area, len(j.plan))
	for i := range j.plan {
		a, err := j.area(t, &j.plan[i])
		if err != nil {
			return err
		}
		areas[j.plan[i].live.tid] = a
	}
	if j.o.save != "" {
		if err := j.collect(t); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w, nothing was changed", context.Cause(ctx))
	}
	if !j.o.restore {
		return nil
	}
	err := t.Swap(areas)
	j.restored = err == nil
	return err
}

// area builds what one stopped thread is to get. 32-bit and 64-bit threads do not mix:
// their registers differ in number.
func (j *job) area(t tracer, p *planned) (a ptrace.Area, err error) {
	is32, err := t.Compat(p.live.tid)
	if err != nil {
		return a, err
	}
	if want := p.compat; is32 != want {
		return a, fmt.Errorf("thread %d: the image is of a %s-bit task, the live thread is not", p.live.tid, map[bool]string{true: "32", false: "64"}[want])
	}
	if a, err = t.Read(p.live.tid); err != nil {
		return a, err
	}
	if a.Set == ptrace.XState {
		a.Data, err = p.area(a.Data, j.cpu.Layout)
	} else {
		a.Data = p.built
	}
	return a, err
}

// collect reads the state that the threads have now.
func (j *job) collect(t tracer) error {
	var tasks []codec.SavedTask
	saved := make([]savedThread, len(j.threads))
	for i, l := range j.threads {
		a, err := t.Read(l.tid)
		if err != nil {
			return err
		}
		regs, err := t.ReadRegs(l.tid)
		if err != nil {
			return err
		}
		is32, err := t.Compat(l.tid)
		if err != nil {
			return err
		}
		ssp, hasSSP, err := t.ReadShadowStack(l.tid)
		if err != nil {
			return err
		}
		saved[i] = savedThread{liveThread: l, gp: codec.ParseGPRegs(regs), area: a.Data, xsave: a.Set == ptrace.XState, compat: is32}
		if hasSSP {
			saved[i].ssp = &ssp
		}
		if n := len(tasks); n == 0 || tasks[n-1].PID != l.pid { // the threads are in the order of their processes
			tasks = append(tasks, codec.SavedTask{PID: l.pid, PPID: l.ppid})
		}
		task := &tasks[len(tasks)-1]
		task.TIDs = append(task.TIDs, l.tid)
	}
	j.tasks, j.saved = tasks, saved
	return nil
}
