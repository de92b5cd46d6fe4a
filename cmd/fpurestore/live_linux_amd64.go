package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/fpuimg/fpuimg/cmd/fpurestore/internal/ptrace"
	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// job is one run: a restore, a save or both, into one process or a tree.
type job struct {
	io     *cli.IO
	o      *options
	open   func(pids ...int) (*ptrace.Tracer, error)
	host   *xstate.CPU
	images []imageThread

	threads []liveThread // of the target, in the tracer's order
	without map[int]bool // its threads that have no registers: of the kernel's making, or ended
	plan    []planned
	judged  *compat.Judgement // of the plan
	doc     restoreDoc
	tasks   []codec.SavedTask // what --save is to write
	saved   []savedThread
	kept    bool          // it has written it
	unsaved error         // or why not
	late    []string      // warnings
	stopped time.Time     // when stopping began
	window  time.Duration // from there until all ran again
}

func newJob(s *cli.IO, o *options) *job {
	return &job{io: s, o: o, open: ptrace.Open, judged: &compat.Judgement{}, doc: restoreDoc{Schema: "fpurestore/1", PID: o.pid, Threads: []threadDoc{}}}
}

// The main goroutine keeps the main thread, so that the one that traces has another:
// the main thread does not end with a goroutine.
func init() { runtime.LockOSThread() }

// live carries the options out. The order is fixed: read the images and decide, pin
// the processes, match threads, stop, read their state, write, read back and compare,
// let go, save what was read, talk. Until the write nothing has changed. From the stop
// until all run again nothing is done that could block.
func live(s *cli.IO, o *options) (cli.Exit, error) { return newJob(s, o).live() }

func (j *job) live() (cli.Exit, error) {
	code, err := j.run()
	for _, text := range j.late {
		j.io.Warnf("%s: %s", j.target(), text)
	}
	j.report()
	for _, err := range []error{err, j.unsaved} {
		if err != nil {
			j.talk(err)
			j.mark(err)
		}
	}
	if j.doc.Outcome == "" {
		j.doc.Outcome = outcomes[code]
	}
	if j.o.json {
		err = j.io.WriteJSON(&j.doc)
	} else {
		err = nil
	}
	if err == nil {
		err = j.io.Out.Flush()
	}
	if err != nil && (j.doc.Outcome == restored || j.doc.Outcome == saved) {
		j.io.Out.Reset(io.Discard)
		j.io.Warnf("standard output: %v: %s is %s all the same, and only the report is lost", err, j.target(), j.doc.Outcome)
		err = nil
	}
	return code, err
}

var outcomes = map[cli.Exit]string{cli.Refused: "refused", cli.Damaged: "unchanged", cli.Unchanged: "unchanged", cli.Broken: "broken"}

func (j *job) run() (cli.Exit, error) {
	var err error
	if j.host, err = cpuid.Host(); err != nil {
		return cli.Unchanged, err
	}
	j.host.Name = "this machine"
	if j.o.restore {
		if j.images, err = loadImages(j.o); err != nil {
			return cli.Damaged, err
		}
		decide(j.images, j.host, j.o)
	}
	if j.o.dryRun {
		return j.dryRun()
	}
	var dir *saveDir
	if j.o.save != "" {
		if dir, err = newSaveDir(j.o.save); err != nil {
			return cli.Damaged, err
		}
		defer dir.discard()
	}
	// The garbage of this run is small, and the target would wait for the collector.
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(1 << 30))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	ctx, signals := catch()
	defer signals.release()
	code, err := j.hold(ctx)
	signals.held.Store(false)
	if j.saved != nil && (err == nil || j.o.restore) { // whatever has become of the restore
		if j.unsaved = dir.fill(j.tasks, j.saved, j.host.Layout); j.unsaved != nil {
			return cli.Worst(code, cli.Damaged), err
		}
		j.kept = true
	}
	if err == nil && ctx.Err() != nil {
		j.warn("%v when registers were being written: the restore was finished", context.Cause(ctx))
	}
	return code, err
}

// hold stops the threads, does what needs them stopped, and lets them go. It has an OS
// thread of its own, which traces: at its end the kernel lets go of what this program
// could not.
func (j *job) hold(ctx context.Context) (code cli.Exit, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		var t *ptrace.Tracer
		if t, code, err = j.stop(ctx); err != nil {
			return
		}
		defer func() {
			// What was to be done is done.
			if cerr := t.Close(); cerr != nil && err == nil {
				j.warn("%v", cerr)
			}
			j.window = time.Since(j.stopped)
		}()
		code, err = j.work(ctx, t)
	}()
	<-done
	return code, err
}

// warn keeps a warning for when no thread is held.
func (j *job) warn(format string, args ...any) { j.late = append(j.late, fmt.Sprintf(format, args...)) }

// stop pins the target, with its descendants if a tree is wanted, plans, and only
// then stops the threads: what is refused never stops anything, and what needs no
// stopped thread is done before. Threads that come or go meanwhile are planned
// anew; a process of a tree that does makes it start again.
func (j *job) stop(ctx context.Context) (*ptrace.Tracer, cli.Exit, error) {
	ctx, cancel := context.WithTimeout(ctx, j.o.timeout)
	defer cancel()
	for try := 1; ; try++ {
		t, code, again, err := j.tryStop(ctx)
		if err == nil {
			return t, cli.OK, nil
		}
		if !again {
			return nil, code, err
		}
		// Not at once: this held up everything in the tree.
		select {
		case <-time.After(time.Duration(min(try, 20)) * 5 * time.Millisecond):
		case <-ctx.Done():
			return nil, cli.Unchanged, err
		}
	}
}

// tryStop is one attempt to stop. again reports that another one may have better
// luck, since the error is only that a process of the tree came or went.
func (j *job) tryStop(ctx context.Context) (t *ptrace.Tracer, code cli.Exit, again bool, err error) {
	pids, code, err := j.wanted()
	if err != nil {
		return nil, code, false, err
	}
	retry := func(err error) bool {
		return j.o.tree && (errors.Is(err, ptrace.ErrNotFound) || errors.Is(err, ptrace.ErrExited) || errors.Is(err, ptrace.ErrZombie))
	}
	if t, err = j.open(pids...); err != nil {
		var attach *ptrace.AttachError
		return nil, cli.Unchanged, retry(err) && errors.As(err, &attach) && attach.PID != j.o.pid, err
	}
	again, code, err = j.stopPinned(ctx, t, pids)
	if err == nil {
		return t, cli.OK, false, nil
	}
	again = again || retry(err)
	if cerr := t.Close(); cerr != nil {
		j.warn("%v", cerr)
	}
	return nil, code, again, err
}

var errTreeChanged = errors.New("processes of the tree come and go, and it could not be stopped as a whole")

// stopPinned plans for the threads of pinned processes and stops them.
func (j *job) stopPinned(ctx context.Context, t *ptrace.Tracer, pids []int) (again bool, code cli.Exit, err error) {
	if err := j.list(pids); err != nil {
		return false, cli.Unchanged, err
	}
	if code, err := j.match(); err != nil {
		return false, code, err
	}
	j.stopped = time.Now()
	if err := t.Stop(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, ptrace.ErrTimeout) {
			err = fmt.Errorf("%w, nothing was changed", cause)
		}
		return false, cli.Unchanged, err
	}
	if j.whole() && j.o.tree {
		if now, err := j.tree(); err != nil || !slices.Equal(pids, now) {
			return true, cli.Unchanged, cmp.Or(err, errTreeChanged)
		}
	}
	threads := slices.DeleteFunc(t.Threads(), func(th ptrace.Thread) bool { return j.without[th.TID] })
	if slices.EqualFunc(j.threads, threads, func(l liveThread, th ptrace.Thread) bool { return l.tid == th.TID }) {
		return false, cli.OK, nil
	}
	if err := j.look(threads); err != nil {
		return false, cli.Unchanged, err
	}
	code, err = j.match()
	return false, code, err
}

// whole reports whether all of a tree is worked on, not only what the checkpoint
// holds.
func (j *job) whole() bool { return !j.o.restore || j.o.save != "" || !j.o.ignoreMissing }

// tree lists the target and, for a tree, its descendants that are no zombies, but
// not this program.
func (j *job) tree() ([]int, error) {
	if !j.o.tree {
		return []int{j.o.pid}, nil
	}
	pids, err := ptrace.Tree(j.o.pid)
	return slices.DeleteFunc(pids, func(pid int) bool { return pid == os.Getpid() && pid != j.o.pid }), err
}

// wanted lists the processes to stop.
func (j *job) wanted() ([]int, cli.Exit, error) {
	pids, err := j.tree()
	if err != nil || !j.o.tree || j.whole() {
		return pids, cli.Unchanged, err
	}
	if err := j.list(pids); err != nil {
		return nil, cli.Unchanged, err
	}
	if code, err := j.match(); err != nil {
		return nil, code, err
	}
	return slices.DeleteFunc(pids, func(pid int) bool {
		return !slices.ContainsFunc(j.plan, func(p planned) bool { return p.live.pid == pid })
	}), cli.OK, nil
}

// list finds the threads of the processes, in the order in which a tracer gives
// them.
func (j *job) list(pids []int) error {
	var threads []ptrace.Thread
	for _, pid := range pids {
		tids, err := ptrace.Tasks(pid)
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
	return j.look(threads)
}

// look learns what matching needs to know of the threads. Of a thousand that are in
// no pid namespace of their own, and whose names nobody asked for, their leader's
// status tells it all.
func (j *job) look(threads []ptrace.Thread) error {
	j.threads, j.without = make([]liveThread, 0, len(threads)), map[int]bool{}
	all := !j.o.restore || j.o.dryRun || j.o.save != ""
	leaders := map[int]ptrace.Status{}
	for _, th := range threads {
		leader, ok := leaders[th.PID]
		if !ok {
			var err error
			if leader, err = ptrace.ReadStatus(th.PID, th.PID); err != nil && !errors.Is(err, ptrace.ErrNotFound) {
				return err
			}
			leaders[th.PID] = leader
		}
		l := liveThread{pid: th.PID, tid: th.TID, nsPID: innermost(leader, th.PID), nsTID: th.TID}
		if all || len(leader.NSpid) != 1 {
			st, ok, err := status(l)
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

// status reads about one thread. It is not ok if the thread has no registers of its
// own: made by the kernel, a leader that has ended before its process, or gone.
func status(l liveThread) (st ptrace.Status, ok bool, err error) {
	st, err = ptrace.ReadStatus(l.pid, l.tid)
	if errors.Is(err, ptrace.ErrNotFound) {
		return st, false, nil
	}
	return st, err == nil && !st.Worker && st.State != 'Z' && st.State != 'X', err
}

// matched pairs the threads. One that no image is for may be one without registers,
// and then does not count.
func (j *job) matched() (matching, error) {
	m := matchThreads(j.images, j.threads, j.o.mapping, j.o.tree)
	n := len(j.without)
	for _, l := range m.missingImage {
		if _, ok, err := status(l); err != nil {
			return m, err
		} else if !ok {
			j.without[l.tid] = true
		}
	}
	if len(j.without) == n {
		return m, nil
	}
	j.threads = slices.DeleteFunc(j.threads, func(l liveThread) bool { return j.without[l.tid] })
	return matchThreads(j.images, j.threads, j.o.mapping, j.o.tree), nil
}

// innermost gives the number in the innermost pid namespace.
func innermost(st ptrace.Status, tid int) int {
	if n := len(st.NSpid); n > 0 {
		return st.NSpid[n-1]
	}
	return tid
}

// work does everything that needs the threads stopped.
func (j *job) work(ctx context.Context, t *ptrace.Tracer) (cli.Exit, error) {
	areas := make(map[int]ptrace.Area, len(j.plan))
	for i := range j.plan {
		if err := j.checkMode(t, &j.plan[i]); err != nil {
			return cli.Unchanged, err
		}
		a, err := j.area(t, &j.plan[i])
		if err != nil {
			return cli.Unchanged, err
		}
		areas[j.plan[i].live.tid] = a
	}
	if j.o.save != "" {
		if err := j.collect(t); err != nil {
			return cli.Unchanged, err
		}
	}
	if ctx.Err() != nil {
		return cli.Unchanged, fmt.Errorf("%w, nothing was changed", context.Cause(ctx))
	}
	if !j.o.restore {
		return cli.OK, nil
	}
	if err := t.Swap(areas); err != nil {
		var broken *ptrace.RestoreError
		if errors.As(err, &broken) {
			return cli.Broken, err
		}
		return cli.Unchanged, err
	}
	j.doc.Outcome = restored
	return cli.OK, nil
}

// Outcomes of a run that has done something.
const (
	restored = "restored"
	saved    = "saved"
)

const saveHint = "--save=DIR makes a new directory, where one can be made"

// area builds what one stopped thread is to get.
func (j *job) area(t *ptrace.Tracer, p *planned) (ptrace.Area, error) {
	a, err := t.Read(p.live.tid)
	if err != nil {
		return a, err
	}
	if a.Set == ptrace.XState {
		a.Data, err = p.area(a.Data, j.host.Layout)
	} else {
		a.Data = p.fxArea()
	}
	return a, err
}

// mismatchError is threads that only one side has.
type mismatchError struct{ matching }

func (e *mismatchError) Error() string {
	var parts []string
	if n := len(e.missingLive); n > 0 {
		parts = append(parts, fmt.Sprintf("no live thread for the %s %s", count(n, "image"), listTIDs(e.missingLive, func(t imageThread) int { return t.tid })))
	}
	if n := len(e.missingImage); n > 0 {
		parts = append(parts, fmt.Sprintf("no image for the live %s %s", count(n, "thread"), listTIDs(e.missingImage, func(t liveThread) int { return t.tid })))
	}
	return strings.Join(parts, "; ")
}

func count(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// listTIDs names up to eight threads.
func listTIDs[T any](list []T, tid func(T) int) string {
	var names []string
	for i, t := range list {
		if i == 8 {
			names = append(names, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		names = append(names, fmt.Sprint(tid(t)))
	}
	return strings.Join(names, " ")
}

// hint names the options that lift the mismatch.
func (e *mismatchError) hint(o *options) string {
	var ways []string
	if len(e.missingLive) > 0 && len(e.missingImage) > 0 {
		ways = append(ways, "--map=IMGTID=TID pairs threads")
	}
	if !o.ignoreMissing && (len(e.pairs) > 0 || ways != nil) {
		ways = append(ways, "--ignore-missing leaves the others alone")
	}
	if !o.tree && len(e.missingLive) > 0 {
		ways = append(ways, "--tree takes in descendants")
	}
	if ways == nil {
		return "-t names another process, -D another checkpoint"
	}
	return strings.Join(ways, ", ")
}

// refusedError is a plan that the policy refuses.
type refusedError struct{ names []string }

func (e *refusedError) Error() string {
	if len(e.names) == 0 {
		return "refused, nothing was changed: no register value would be lost, but nobody knows what the program does next"
	}
	return "refused, nothing was changed: it would lose " + strings.Join(e.names, ", ")
}

// damagedError is an image that the policy calls damaged.
type damagedError struct {
	tid   int
	force bool // --force would lift it
	err   error
}

func (e *damagedError) Error() string { return fmt.Sprintf("image %d: %v", e.tid, e.err) }
func (e *damagedError) Unwrap() error { return e.err }

// match pairs the threads and heeds what the policy said. An error says that nothing
// is to be done.
func (j *job) match() (cli.Exit, error) {
	if !j.o.restore {
		return cli.OK, nil
	}
	m, err := j.matched()
	if err != nil {
		return cli.Unchanged, err
	}
	if err := j.mapped(&m); err != nil {
		return cli.Refused, err
	}
	if len(m.missingLive)+len(m.missingImage) > 0 && !j.o.ignoreMissing || len(m.pairs) == 0 {
		return cli.Refused, &mismatchError{m}
	}
	j.plan = plan(m.pairs)
	j.doc.Threads = j.doc.Threads[:0]
	j.judged = compat.Judge(compat.Target{Host: j.host}, compat.Policy{Force: j.o.force})
	for _, p := range j.plan {
		j.judged.Add(compat.Judged{PID: p.live.pid, TID: p.live.tid, Report: p.Report})
		j.doc.Threads = append(j.doc.Threads, threadDoc{ImageTID: p.image.tid, TID: p.live.tid,
			From: p.From.String(), To: p.To.String(), Actions: view.ActionDocs(p.Report), Lost: view.LossDocs(p.Lost)})
	}
	if j.judged.Refused() {
		for _, p := range j.plan {
			if p.Refused && p.Verdict == compat.Damaged {
				return cli.Damaged, &damagedError{p.image.tid, j.judged.OnlyLost(), p.Err()}
			}
		}
		return cli.Refused, &refusedError{compat.LostNames(j.judged.Threads)}
	}
	for i := range j.plan {
		if err := j.plan[i].unbuilt(); err != nil {
			return cli.Unchanged, err
		}
	}
	return cli.OK, nil
}

// mapped reports whether every --map was followed. The hint names what could have
// stood there.
func (j *job) mapped(m *matching) error {
	for _, from := range slices.Sorted(maps.Keys(j.o.mapping)) {
		to := j.o.mapping[from]
		switch {
		case slices.ContainsFunc(m.pairs, func(p match) bool { return p.image.tid == from && p.live.tid == to }):
		case !slices.ContainsFunc(j.images, func(t imageThread) bool { return t.tid == from }):
			return cli.Hinted(fmt.Errorf("--map=%d=%d: there is no image of a thread %d", from, to, from),
				"the images are of "+listTIDs(j.images, func(t imageThread) int { return t.tid }))
		default:
			hint := "its threads are " + listTIDs(j.threads, func(t liveThread) int { return t.tid })
			if !j.o.tree {
				hint += "; --tree takes in those of its descendants"
			}
			return cli.Hinted(fmt.Errorf("--map=%d=%d: %s has no thread %d", from, to, j.target(), to), hint)
		}
	}
	return nil
}

func (j *job) command() string {
	words := []string{"fpurestore", "-t", fmt.Sprint(j.o.pid), "--force"}
	if j.o.tree {
		words = append(words, "--tree")
	}
	if j.o.ignoreMissing {
		words = append(words, "--ignore-missing")
	}
	if j.o.save != "" {
		words = append(words, "--save", view.Quote(j.o.save))
	}
	for _, from := range slices.Sorted(maps.Keys(j.o.mapping)) {
		words = append(words, fmt.Sprintf("--map=%d=%d", from, j.o.mapping[from]))
	}
	if len(j.o.files) == 0 {
		words = append(words, "-D", view.Quote(j.o.dir))
	}
	for _, f := range j.o.files {
		words = append(words, view.Path(f))
	}
	return strings.Join(words, " ")
}

// advice is what reports offer.
func (j *job) advice() view.Advice {
	if j.o.force {
		return view.Advice{}
	}
	return view.Advice{Force: j.command()}
}

// checkMode refuses to mix 32-bit and 64-bit threads: their registers differ in
// number.
func (j *job) checkMode(t *ptrace.Tracer, p *planned) error {
	is32, err := t.Compat(p.live.tid)
	if err != nil {
		return err
	}
	if is32 != p.image.state.Compat {
		return fmt.Errorf("thread %d: the image is of a %s-bit task, the live thread is not", p.live.tid, map[bool]string{true: "32", false: "64"}[p.image.state.Compat])
	}
	return nil
}

// collect reads the state that the threads have now.
func (j *job) collect(t *ptrace.Tracer) error {
	var out []savedThread
	var tasks []codec.SavedTask
	for _, l := range j.threads {
		a, err := t.Read(l.tid)
		if err != nil {
			return err
		}
		sv := savedThread{liveThread: l, area: a.Data, xsave: a.Set == ptrace.XState}
		regs, err := t.ReadRegs(l.tid)
		if err != nil {
			return err
		}
		sv.gp = codec.ParseGPRegs(regs)
		if sv.compat, err = t.Compat(l.tid); err != nil {
			return err
		}
		ssp, ok, err := t.ReadShadowStack(l.tid)
		if err != nil {
			return err
		}
		if ok {
			sv.ssp = &ssp
		}
		out = append(out, sv)
		if n := len(tasks); n > 0 && tasks[n-1].PID == l.pid { // the threads are in the order of their processes
			tasks[n-1].TIDs = append(tasks[n-1].TIDs, l.tid)
			continue
		}
		st, err := ptrace.ReadStatus(l.pid, l.pid)
		if err != nil {
			return err
		}
		tasks = append(tasks, codec.SavedTask{PID: l.pid, PPID: st.PPID, TIDs: []int{l.tid}})
	}
	j.tasks, j.saved = tasks, out
	return nil
}

// dryRun matches and plans without stopping anything.
func (j *job) dryRun() (cli.Exit, error) {
	pids, code, err := j.wanted()
	if err != nil {
		return code, err
	}
	t, err := j.open(pids...) // looks at the processes and attaches to none
	if err != nil {
		return cli.Unchanged, err
	}
	defer t.Close()
	if err := j.list(pids); err != nil {
		return cli.Unchanged, err
	}
	if code, err := j.match(); err != nil {
		return code, err
	}
	j.doc.Outcome = "planned"
	if !j.o.json {
		for _, p := range j.plan {
			fmt.Fprintf(j.io.Out, "image %d -> thread %d %s\n", p.image.tid, p.live.tid, cli.Printable(p.live.comm))
		}
		view.Actions(j.io, j.judged.Threads)
		view.Findings(j.io, j.judged.Threads, nil, j.advice())
	}
	view.Losses(j.io, j.target(), true, j.judged.Threads)
	j.io.Sayf("%s: dry run, nothing was stopped", j.target())
	return cli.OK, nil
}

func (j *job) target() string { return fmt.Sprintf("process %d", j.o.pid) }

// report says what was done.
func (j *job) report() {
	s := j.io
	switch {
	case !j.kept:
	case j.o.restore:
		s.Sayf("%s: live state saved to %s", j.target(), j.o.save)
	default:
		j.doc.Outcome = saved
		for _, sv := range j.saved {
			j.doc.Threads = append(j.doc.Threads, sv.doc())
		}
		s.Sayf("%s: live state of %d %s saved to %s", j.target(), len(j.saved), view.Threads(len(j.saved)), j.o.save)
	}
	if j.doc.Outcome != restored {
		return
	}
	if !j.o.json {
		view.Actions(s, j.judged.Threads)
		view.Findings(s, j.judged.Threads, nil, j.advice())
	}
	view.Losses(s, j.target(), false, j.judged.Threads)
	s.Sayf("%s: %d %s restored, stopped for %v", j.target(), len(j.plan), view.Threads(len(j.plan)), j.window.Round(10*time.Microsecond))
}

// mark names in the document the threads that the error is about.
func (j *job) mark(err error) {
	var broken *ptrace.RestoreError
	var one *ptrace.ThreadError
	for i := range j.doc.Threads {
		th := &j.doc.Threads[i]
		if errors.As(err, &broken) && slices.Contains(broken.Broken, th.TID) {
			th.Error = new("could not be put back")
		} else if errors.As(err, &one) && one.TID == th.TID {
			th.Error = new(one.Error())
		}
	}
}

// talk reports an error and what to do about it.
func (j *job) talk(err error) {
	s := j.io
	var mismatch *mismatchError
	var refused *refusedError
	var damaged *damagedError
	var load loadError
	var unsaved *saveError
	var hinted *cli.HintError
	if (errors.As(err, &refused) || errors.As(err, &damaged)) && !j.o.json {
		view.Actions(s, j.judged.Threads)
		view.Findings(s, j.judged.Threads, nil, j.advice())
	}
	if errors.As(err, &load) {
		for _, err := range load {
			s.Error(err)
			if hint := loadHint(err); hint != "" {
				s.Hintf("%s", hint)
			}
		}
		return
	}
	s.Errorf("%s: %v", j.target(), err)
	switch {
	case errors.As(err, &mismatch):
		s.Hintf("%s", mismatch.hint(j.o))
	case errors.As(err, &refused), errors.As(err, &damaged) && damaged.force:
		s.Hintf("to do it all the same: %s", j.command())
	case errors.As(err, &unsaved):
		s.Hintf("%s", saveHint)
	case errors.As(err, &hinted):
		s.Hintf("%s", hinted.Hint)
	default:
		if hint := ptraceHint(err); hint != "" {
			s.Hintf("%s", hint)
		}
	}
}

// loadHint says what to do about images that cannot be read.
func loadHint(err error) string {
	var interrupted *codec.InterruptedError
	switch {
	case errors.As(err, &interrupted):
		return "any fpuimg convert of " + interrupted.Dir + " completes the interrupted one"
	case errors.Is(err, codec.ErrNoImages):
		return "-D DIR names the directory of images"
	}
	return ""
}

// ptraceHint says what to do about a process that cannot be traced.
func ptraceHint(err error) string {
	var attach *ptrace.AttachError
	var broken *ptrace.RestoreError
	switch {
	case errors.As(err, &broken):
		return fmt.Sprintf("threads %v hold neither surely their old nor surely their new state; restore them again or end the process", broken.Broken)
	case errors.Is(err, ptrace.ErrNotLeader) && errors.As(err, &attach):
		return fmt.Sprintf("it belongs to process %d: -t %d", attach.Tgid, attach.Tgid)
	case errors.Is(err, ptrace.ErrTraced) && errors.As(err, &attach):
		return fmt.Sprintf("process %d (%s) traces it; end that first", attach.TracerPID, attach.TracerComm)
	case errors.Is(err, ptrace.ErrPermission) && errors.As(err, &attach):
		switch {
		case attach.YamaScope == 3:
			return "/proc/sys/kernel/yama/ptrace_scope is 3: nobody may trace until the next boot"
		case attach.UserNS:
			return "it lives in another user namespace; run as root of that namespace or of the initial one"
		case !attach.HasCap && attach.YamaScope > 0:
			return fmt.Sprintf("run with CAP_SYS_PTRACE, as root does: /proc/sys/kernel/yama/ptrace_scope is %d", attach.YamaScope)
		case !attach.HasCap:
			return "run as the same user as the process, or as root"
		}
		return "a security module may forbid it: look in the audit log"
	case errors.Is(err, ptrace.ErrTimeout):
		return "a thread in uninterruptible sleep stops only when it wakes up; --timeout waits longer"
	case errors.Is(err, errTreeChanged):
		return "--timeout tries for longer; --ignore-missing stops only what the checkpoint holds"
	case errors.Is(err, ptrace.ErrSelf):
		return "a process cannot stop itself and go on; name another"
	case errors.Is(err, ptrace.ErrKernelThread):
		return "kernel threads have no user registers"
	case errors.Is(err, ptrace.ErrZombie), errors.Is(err, ptrace.ErrNotFound), errors.Is(err, ptrace.ErrExited):
		return "look with ps which processes there are"
	}
	return ""
}
