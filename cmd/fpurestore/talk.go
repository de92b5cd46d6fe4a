package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fpuimg/fpuimg/cmd/fpurestore/internal/ptrace"
	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// restoreOn runs a restore on a machine, and then says what was done.
func restoreOn(m machine, s *cli.IO, o *options) (cli.Exit, error) {
	j := &job{machine: m, io: s, o: o, judged: &compat.Judgement{}}
	err := j.run()
	for _, text := range j.late {
		s.Warnf("%s: %s", j.target(), text)
	}
	j.report()
	for _, err := range []error{err, j.unsaved} {
		j.talk(err)
	}
	code := cli.Worst(exitCode(err), exitCode(j.unsaved))
	var lost error
	if o.json {
		lost = s.WriteJSON(j.document(code, err))
	}
	lost = cmp.Or(lost, s.Out.Flush())
	if lost != nil && (j.restored || j.kept) {
		s.Out.Reset(io.Discard)
		s.Warnf("standard output: %v: %s is %s all the same, and only the report is lost", lost, j.target(), j.outcome(code, err))
		lost = nil
	}
	return code, lost
}

// exitCode says in which world an error leaves the process.
func exitCode(err error) cli.Exit {
	switch {
	case err == nil:
		return cli.OK
	case is[*mismatchError](err), is[*mapError](err), is[*refusedError](err):
		return cli.Refused
	case is[loadError](err), is[*damagedError](err), is[*saveError](err):
		return cli.Damaged
	case is[*ptrace.RestoreError](err):
		return cli.Broken
	}
	return cli.Unchanged
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// restoreDoc is the JSON document of schema fpurestore/1.
type restoreDoc struct {
	Schema  string      `json:"schema"`
	PID     int         `json:"pid"`
	Outcome string      `json:"outcome"` // restored, saved, planned, refused, unchanged or broken
	Threads []threadDoc `json:"threads"`
}

type threadDoc struct {
	ImageTID int              `json:"image_tid"`
	TID      int              `json:"tid"`
	From     string           `json:"from"`
	To       string           `json:"to"`
	Actions  []view.ActionDoc `json:"actions"`
	Lost     []view.LossDoc   `json:"lost"`
	Error    *string          `json:"error"`
}

// outcome is the word of the document for how the run ended.
func (j *job) outcome(code cli.Exit, err error) string {
	switch {
	case j.restored:
		return "restored"
	case j.kept && err == nil:
		return "saved"
	case j.planned:
		return "planned"
	case code == cli.Refused:
		return "refused"
	case code == cli.Broken:
		return "broken"
	}
	return "unchanged"
}

// document tells of the run. An error names the threads that it is about.
func (j *job) document(code cli.Exit, err error) *restoreDoc {
	d := &restoreDoc{Schema: "fpurestore/1", PID: j.o.pid, Outcome: j.outcome(code, err), Threads: []threadDoc{}}
	for _, p := range j.plan {
		d.Threads = append(d.Threads, threadDoc{ImageTID: p.image.tid, TID: p.live.tid, From: p.From.String(), To: p.To.String(),
			Actions: view.ActionDocs(p.Report), Lost: view.LossDocs(p.Report)})
	}
	if !j.o.restore && j.kept {
		for i := range j.saved {
			d.Threads = append(d.Threads, j.saved[i].doc())
		}
	}
	broken, _ := errors.AsType[*ptrace.RestoreError](err)
	one, _ := errors.AsType[*ptrace.ThreadError](err)
	for i := range d.Threads {
		th := &d.Threads[i]
		if broken != nil && slices.Contains(broken.Broken, th.TID) {
			th.Error = new("could not be put back")
		} else if one != nil && one.TID == th.TID {
			th.Error = new(one.Error())
		}
	}
	return d
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
		s.Sayf("%s: live state of %s saved to %s", j.target(), view.Count(len(j.saved), "thread"), j.o.save)
	}
	if !j.restored && !j.planned {
		return
	}
	if j.planned && !j.o.json {
		for _, p := range j.plan {
			fmt.Fprintf(s.Out, "image %d -> thread %d %s\n", p.image.tid, p.live.tid, cli.Printable(p.live.comm))
		}
	}
	j.tables()
	view.Losses(s, j.target(), j.planned, j.judged.Threads)
	if j.planned {
		s.Sayf("%s: dry run, nothing was stopped", j.target())
		return
	}
	s.Sayf("%s: %s restored, stopped for %v", j.target(), view.Count(len(j.plan), "thread"), j.window.Round(10*time.Microsecond))
}

// tables prints what the policy says.
func (j *job) tables() {
	if j.o.json {
		return
	}
	var advice view.Advice
	if !j.o.force {
		advice.Force = j.o.forced()
	}
	view.Actions(j.io, j.judged.Threads)
	view.Findings(j.io, nil, j.judged.Threads, nil, advice)
}

// talk reports an error and what to do about it.
func (j *job) talk(err error) {
	if err == nil {
		return
	}
	say := func(err error, text string) {
		j.io.Errorf("%s", text)
		j.io.Hint(hint(err, j.o))
	}
	if load, ok := errors.AsType[loadError](err); ok {
		for _, err := range load {
			say(err, err.Error())
		}
		return
	}
	if is[*refusedError](err) || is[*damagedError](err) {
		j.tables()
	}
	say(err, j.target()+": "+err.Error())
}

// hint says what to do about an error, "" if nothing can be said.
func hint(err error, o *options) string {
	if e, ok := errors.AsType[*mismatchError](err); ok {
		return e.hint(o)
	}
	if e, ok := errors.AsType[*mapError](err); ok {
		return e.hint
	}
	if e, ok := errors.AsType[*damagedError](err); ok && !e.force {
		return ""
	}
	if e, ok := errors.AsType[*codec.InterruptedError](err); ok {
		return "any fpuimg convert of " + e.Dir + " completes the interrupted one"
	}
	if e, ok := errors.AsType[*ptrace.RestoreError](err); ok {
		return fmt.Sprintf("threads %v hold neither surely their old nor surely their new state; restore them again or end the process", e.Broken)
	}
	if e, ok := errors.AsType[*ptrace.AttachError](err); ok {
		if text := attachHint(e); text != "" {
			return text
		}
	}
	if e, ok := errors.AsType[*ptrace.TimeoutError](err); ok {
		if slices.ContainsFunc(e.Threads, func(t ptrace.StuckThread) bool { return t.State == 'D' }) {
			return "a thread in uninterruptible sleep stops only when it wakes up; --timeout waits longer"
		}
		return "the machine is busy, and a thread stops only when it gets a CPU; --timeout waits longer"
	}
	switch {
	case is[*refusedError](err), is[*damagedError](err):
		return "to do it all the same: " + o.forced()
	case is[*saveError](err):
		return "--save=DIR makes a new directory, where one can be made"
	case errors.Is(err, checkpoint.ErrNoImages):
		return "-D DIR names the directory of images"
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

// attachHint says what to do about a process that cannot be traced.
func attachHint(e *ptrace.AttachError) string {
	switch {
	case e.Reason == ptrace.ErrNotLeader:
		return fmt.Sprintf("it belongs to process %d: -t %d", e.Tgid, e.Tgid)
	case e.Reason == ptrace.ErrTraced:
		return fmt.Sprintf("process %d (%s) traces it; end that first", e.TracerPID, e.TracerComm)
	case e.Reason != ptrace.ErrPermission:
		return ""
	case e.YamaScope == 3:
		return "/proc/sys/kernel/yama/ptrace_scope is 3: nobody may trace until the next boot"
	case e.UserNS:
		return "it lives in another user namespace; run as root of that namespace or of the initial one"
	case !e.HasCap && e.YamaScope > 0:
		return fmt.Sprintf("run with CAP_SYS_PTRACE, as root does: /proc/sys/kernel/yama/ptrace_scope is %d", e.YamaScope)
	case !e.HasCap:
		return "run as the same user as the process, or as root"
	}
	return "a security module may forbid it: look in the audit log"
}

// forced is the command that does it all the same.
func (o *options) forced() string {
	words := []string{"fpurestore", "-t", fmt.Sprint(o.pid), "--force"}
	if o.tree {
		words = append(words, "--tree")
	}
	if o.ignoreMissing {
		words = append(words, "--ignore-missing")
	}
	if o.save != "" {
		words = append(words, "--save", view.Quote(o.save))
	}
	for _, from := range slices.Sorted(maps.Keys(o.mapping)) {
		words = append(words, fmt.Sprintf("--map=%d=%d", from, o.mapping[from]))
	}
	if len(o.files) == 0 {
		words = append(words, "-D", view.Quote(o.dir))
	}
	for _, f := range o.files {
		words = append(words, view.Path(f))
	}
	return strings.Join(words, " ")
}
