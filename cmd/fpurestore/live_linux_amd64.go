package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fpuimg/fpuimg/cmd/fpurestore/internal/ptrace"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
	"github.com/fpuimg/fpuimg/internal/cli"
	"github.com/fpuimg/fpuimg/internal/view"
)

// job is one run: a restore, a save or both, into one process or a tree.
type job struct {
	io     *cli.IO
	o      *options
	host   *xstate.CPU
	images []imageThread

	threads []liveThread // of the target, in the tracer's order
	plan    []planned
	doc     restoreDoc
	stopped time.Time     // when stopping began
	window  time.Duration // from there until all ran again
}

// live carries the options out. The order is fixed: read the images, pin the
// processes, match threads and decide, stop, read their state, save, write, read
// back and compare, let go. Until the write nothing has changed.
func live(s *cli.IO, o *options) (cli.Exit, error) {
	j := &job{io: s, o: o, doc: restoreDoc{Schema: "fpurestore/1", PID: o.pid, Threads: []threadDoc{}}}
	code, err := j.run()
	if err != nil {
		j.talk(err)
	}
	if o.json {
		if j.doc.Outcome == "" {
			j.doc.Outcome = outcomes[code]
		}
		return code, j.doc.write(s)
	}
	return code, nil
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
	}
	if j.o.dryRun {
		return j.dryRun()
	}
	if j.o.save != "" {
		if _, err := os.Lstat(j.o.save); err == nil {
			return cli.Damaged, fmt.Errorf("%s: exists already", j.o.save)
		}
	}
	t, code, err := j.stop()
	if err != nil {
		return code, err
	}
	code, err = j.work(t)
	if cerr := t.Close(); cerr != nil && err == nil {
		code, err = cli.Unchanged, cerr
	}
	j.window = time.Since(j.stopped)
	if err == nil {
		j.report()
	}
	return code, err
}

// stop pins the target, with its descendants if a tree is wanted, plans, and only
// then stops the threads: what is refused never stops anything, and what needs no
// stopped thread is done before. Threads that come or go meanwhile are planned
// anew; a process that does makes it start again.
func (j *job) stop() (*ptrace.Tracer, cli.Exit, error) {
	ctx, cancel := context.WithTimeout(context.Background(), j.o.timeout)
	defer cancel()
	for {
		pids, err := j.pids()
		if err != nil {
			return nil, cli.Unchanged, err
		}
		t, err := ptrace.Open(pids...)
		if err != nil {
			return nil, cli.Unchanged, err
		}
		code, again, err := j.stopPinned(ctx, t, pids)
		if err == nil && !again {
			return t, cli.OK, nil
		}
		if err := errors.Join(err, t.Close(), ctx.Err()); err != nil {
			return nil, code, err
		}
	}
}

// stopPinned plans for the threads of pinned processes and stops them. again reports
// that the tree has other processes now.
func (j *job) stopPinned(ctx context.Context, t *ptrace.Tracer, pids []int) (code cli.Exit, again bool, err error) {
	if err := j.list(pids); err != nil {
		return cli.Unchanged, false, err
	}
	if code, err := j.match(); err != nil {
		return code, false, err
	}
	j.stopped = time.Now()
	if err := t.Stop(ctx); err != nil {
		return cli.Unchanged, false, err
	}
	if j.o.tree {
		if now, err := j.pids(); err != nil || !slices.Equal(pids, now) {
			return cli.Unchanged, true, err
		}
	}
	if slices.EqualFunc(j.threads, t.Threads(), func(l liveThread, th ptrace.Thread) bool { return l.tid == th.TID }) {
		return cli.OK, false, nil
	}
	j.threads = j.threads[:0]
	for _, th := range t.Threads() {
		l, err := liveThreadOf(th.PID, th.TID)
		if err != nil {
			return cli.Unchanged, false, err
		}
		j.threads = append(j.threads, l)
	}
	code, err = j.match()
	return code, false, err
}

// pids lists the target and, for a tree, its descendants that are no zombies.
func (j *job) pids() ([]int, error) {
	if !j.o.tree {
		return []int{j.o.pid}, nil
	}
	return ptrace.Tree(j.o.pid)
}

// list finds the threads of the processes, in the order in which a tracer gives
// them.
func (j *job) list(pids []int) error {
	j.threads = nil
	for _, pid := range pids {
		tids, err := ptrace.Tasks(pid)
		if err != nil {
			return fmt.Errorf("process %d: %w", pid, err)
		}
		slices.Sort(tids)
		for _, tid := range tids {
			l, err := liveThreadOf(pid, tid)
			if errors.Is(err, ptrace.ErrNotFound) {
				continue // it ended meanwhile
			}
			if err != nil {
				return err
			}
			j.threads = append(j.threads, l)
		}
	}
	return nil
}

// work does everything that needs the threads stopped.
func (j *job) work(t *ptrace.Tracer) (cli.Exit, error) {
	old := map[int]ptrace.Area{}
	if j.o.save != "" {
		for _, l := range j.threads {
			a, err := t.Read(l.tid)
			if err != nil {
				return cli.Unchanged, err
			}
			old[l.tid] = a
		}
	}
	areas := map[int]ptrace.Area{}
	for i := range j.plan {
		a, err := j.area(t, &j.plan[i])
		if err != nil {
			return cli.Unchanged, err
		}
		areas[j.plan[i].live.tid] = a
	}
	if j.o.save != "" {
		if err := j.save(t, old); err != nil {
			return cli.Damaged, err
		}
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
	return cli.OK, nil
}

// area builds what one stopped thread is to get.
func (j *job) area(t *ptrace.Tracer, p *planned) (ptrace.Area, error) {
	if err := j.checkMode(t, p); err != nil {
		return ptrace.Area{}, err
	}
	a, err := t.Read(p.live.tid)
	if err != nil {
		return a, err
	}
	if a.Set == ptrace.XState {
		a.Data, err = p.area(a.Data, j.host.Layout)
	} else {
		a.Data = p.fxArea()
	}
	if err != nil {
		return a, fmt.Errorf("thread %d: %w", p.live.tid, err)
	}
	return a, nil
}

// liveThreadOf reads what matching needs to know.
func liveThreadOf(pid, tid int) (liveThread, error) {
	st, err := ptrace.ReadStatus(pid, tid)
	if err != nil {
		return liveThread{}, err
	}
	l := liveThread{pid: pid, tid: tid, nsPID: pid, nsTID: tid, comm: st.Comm}
	if n := len(st.NSpid); n > 0 {
		l.nsTID = st.NSpid[n-1]
	}
	if tid == pid {
		l.nsPID = l.nsTID
	} else if leader, err := ptrace.ReadStatus(pid, pid); err == nil && len(leader.NSpid) > 0 {
		l.nsPID = leader.NSpid[len(leader.NSpid)-1]
	}
	return l, nil
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

// refusedError is a plan that the policy refuses.
type refusedError struct{ names []string }

func (e *refusedError) Error() string {
	if len(e.names) == 0 {
		return "refused, nothing was changed: no register value would be lost, but nobody knows what the program does next"
	}
	return "refused, nothing was changed: it would lose " + strings.Join(e.names, ", ")
}

// match pairs the threads and asks the policy. An error says that nothing is to be
// done.
func (j *job) match() (cli.Exit, error) {
	if !j.o.restore {
		return cli.OK, nil
	}
	m := matchThreads(j.images, j.threads, j.o.mapping)
	for from, to := range j.o.mapping {
		if !slices.ContainsFunc(m.pairs, func(p match) bool { return p.image.tid == from && p.live.tid == to }) {
			return cli.Refused, fmt.Errorf("--map=%d=%d: the image or the live thread is not there", from, to)
		}
	}
	if len(m.missingLive)+len(m.missingImage) > 0 && !j.o.ignoreMissing || len(m.pairs) == 0 {
		return cli.Refused, &mismatchError{m}
	}
	j.plan = plan(m.pairs, j.host, j.o, j.command())
	j.doc.Threads = j.doc.Threads[:0]
	for _, p := range j.plan {
		j.doc.Threads = append(j.doc.Threads, threadDoc{ImageTID: p.image.tid, TID: p.live.tid,
			From: p.From.String(), To: p.To.String(), Actions: view.ActionDocs(p.Report), Lost: view.LossDocs(p.Lost)})
	}
	for _, p := range j.plan {
		if p.Refused && p.Verdict == compat.Damaged {
			return cli.Damaged, errors.New("the images are damaged, nothing was changed")
		}
	}
	for _, p := range j.plan {
		if p.Refused {
			return cli.Refused, &refusedError{view.LostNames(j.judged())}
		}
	}
	return cli.OK, nil
}

func (j *job) command() string {
	words := []string{"fpurestore", "-t", fmt.Sprint(j.o.pid), "--force"}
	if j.o.tree {
		words = append(words, "--tree")
	}
	if len(j.o.files) == 0 {
		words = append(words, "-D", view.Quote(j.o.dir))
	}
	for _, f := range j.o.files {
		words = append(words, view.Quote(f))
	}
	return strings.Join(words, " ")
}

func (j *job) judged() []view.Judged {
	out := make([]view.Judged, len(j.plan))
	for i, p := range j.plan {
		out[i] = view.Judged{TID: p.live.tid, Report: p.Report}
	}
	return out
}

// checkMode refuses to mix 32-bit and 64-bit threads: their registers differ in
// number.
func (j *job) checkMode(t *ptrace.Tracer, p *planned) error {
	is32, err := t.Compat(p.live.tid)
	if err != nil {
		return err
	}
	if is32 != p.image.state.Compat && p.image.state.Format != xstate.FormatNone {
		return fmt.Errorf("thread %d: the image is of a %s-bit task, the live thread is not", p.live.tid, map[bool]string{true: "32", false: "64"}[p.image.state.Compat])
	}
	return nil
}

// save writes the state that the threads have now.
func (j *job) save(t *ptrace.Tracer, old map[int]ptrace.Area) error {
	var out []saved
	var tasks []codec.SavedTask
	for _, l := range j.threads {
		sv := saved{liveThread: l, area: old[l.tid].Data, xsave: old[l.tid].Set == ptrace.XState}
		regs, err := t.ReadRegs(l.tid)
		if err != nil {
			return err
		}
		sv.gp = userRegs(regs)
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
		if i := slices.IndexFunc(tasks, func(t codec.SavedTask) bool { return t.PID == l.pid }); i >= 0 {
			tasks[i].TIDs = append(tasks[i].TIDs, l.tid)
			continue
		}
		st, err := ptrace.ReadStatus(l.pid, l.pid)
		if err != nil {
			return err
		}
		tasks = append(tasks, codec.SavedTask{PID: l.pid, PPID: st.PPID, TIDs: []int{l.tid}})
	}
	return writeSave(j.o.save, tasks, out, j.host.Layout)
}

// dryRun matches and plans without stopping anything.
func (j *job) dryRun() (cli.Exit, error) {
	pids, err := j.pids()
	if err != nil {
		return cli.Unchanged, err
	}
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
		if err := view.Actions(j.io, j.judged()); err != nil {
			return cli.Damaged, err
		}
		view.Findings(j.io, j.judged(), nil)
	}
	view.Losses(j.io, j.target(), "would lose", j.judged())
	j.io.Sayf("%s: dry run, nothing was stopped", j.target())
	return cli.OK, nil
}

func (j *job) target() string { return fmt.Sprintf("process %d", j.o.pid) }

// report says what was done.
func (j *job) report() {
	s := j.io
	if j.o.save != "" {
		j.doc.Outcome = "saved"
		s.Sayf("%s: live state saved to %s", j.target(), filepath.Clean(j.o.save))
	}
	if !j.o.restore {
		return
	}
	j.doc.Outcome = "restored"
	if !j.o.json {
		view.Actions(s, j.judged())
		view.Findings(s, j.judged(), nil)
	}
	view.Losses(s, j.target(), "loses", j.judged())
	s.Sayf("%s: %d %s restored, stopped for %v", j.target(), len(j.plan), view.Threads(len(j.plan)), j.window.Round(10*time.Microsecond))
}

// talk reports an error and what to do about it.
func (j *job) talk(err error) {
	s := j.io
	var mismatch *mismatchError
	var refused *refusedError
	if errors.As(err, &refused) && !j.o.json {
		view.Actions(s, j.judged())
		view.Findings(s, j.judged(), nil)
	}
	s.Errorf("%s: %v", j.target(), err)
	switch {
	case errors.As(err, &mismatch):
		s.Hintf("--map=IMGTID=TID pairs threads, --ignore-missing leaves the others alone, --tree takes in descendants")
	case errors.As(err, &refused):
		s.Hintf("to do it all the same: %s", j.command())
	default:
		if hint := ptraceHint(err); hint != "" {
			s.Hintf("%s", hint)
		}
	}
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
	case errors.Is(err, ptrace.ErrKernelThread):
		return "kernel threads have no user registers"
	case errors.Is(err, ptrace.ErrZombie), errors.Is(err, ptrace.ErrNotFound), errors.Is(err, ptrace.ErrExited):
		return "look with ps which processes there are"
	}
	return ""
}
