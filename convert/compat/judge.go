package compat

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Thread is what a judgement is told of one thread of a checkpoint.
type Thread struct {
	PID, TID int
	File     string // the core image
	Trailing int    // bytes after its entry
	// Unparseable tells that CRIU's parser rejects the image, though it could be read.
	Unparseable bool
	State       *xstate.State

	likeness []byte // of State
}

// Alike returns the thread with what its judgement depends on worked out, for those that
// judge it for several targets, in the memory that the last such call returned.
func (th Thread) Alike(b []byte) (Thread, []byte) {
	th.likeness = appendLikeness(b[:0], th.State)
	return th, th.likeness
}

// Judged is a thread and what the policy says of it.
type Judged struct {
	PID, TID int
	*Report  // which threads that are alike share: do not change it
}

// Task is a process and what the policy says of its code.
type Task struct {
	PID      int
	Verdict  Verdict // the worst of its code and its threads
	Unfit    int     // IFUNC slots that lead to code which the host cannot run
	Findings []Finding
}

// Judgement is everything there is to say about one checkpoint and a target. It is
// made by [Judge] and grows with what it is told.
type Judgement struct {
	// Findings are those about the machines and the files.
	Findings []Finding
	Tasks    []Task   // whose code was looked at
	Threads  []Judged // in the order in which they were told
	Verdict  Verdict  // the worst of the tasks and threads; Damaged if a file is
	Foreign  bool     // set by the caller, before all else: this is no checkpoint of CRIU's
	// Unchecked tells that nobody knows whether the code runs: a root was given, and a
	// task's libc could not be proven in it.
	Unchecked bool

	cache     *Cache
	source    *xstate.CPU
	code      []*facts.Process
	threads   map[[2]int]*facts.Thread // by PID and TID
	taskOf    map[int]int              // the index of a PID in Tasks
	judgeCode bool
	seen      seen
	refused   bool
	beyond    bool // force lifts nothing
	unfit     bool // force makes it run no longer
	revised   map[*Report]*Report
}

// Judge begins the judgement of a checkpoint.
func Judge(t Target, p Policy) *Judgement { return NewCache(t, p).Judge() }

// Proofs tells what is known of the threads' registers from the code that they run,
// before the threads are told. The code itself is not judged.
func (j *Judgement) Proofs(code []*facts.Process) {
	j.threads = map[[2]int]*facts.Thread{}
	for _, p := range code {
		for i := range p.Threads {
			j.threads[[2]int{p.PID, p.Threads[i].TID}] = &p.Threads[i]
		}
	}
}

// Code tells what is known of the tasks' code, before anything else is told.
func (j *Judgement) Code(code []*facts.Process) {
	j.Proofs(code)
	j.code, j.judgeCode = code, j.cache.target.Host != nil
	if !j.judgeCode {
		return
	}
	j.taskOf = map[int]int{}
	for i, p := range code {
		j.taskOf[p.PID] = i
		sub := &subject{task: p, target: j.cache.target, foreign: j.Foreign}
		t := Task{PID: p.PID, Findings: append([]Finding{}, sub.check(task)...), Unfit: sub.unfitSlots()}
		t.Verdict = verdict(t.Findings, false)
		j.Tasks = append(j.Tasks, t)
		j.Verdict = max(j.Verdict, t.Verdict)
		j.unfit = j.unfit || t.Verdict == CodeUnfit
		j.Unchecked = j.Unchecked || slices.ContainsFunc(t.Findings, func(f Finding) bool { return f.Rule == CodeUnknown && f.Severity == Risky })
	}
}

// Taken tells the machine that the checkpoint was taken on, nil if it is unknown, and
// compares it with the target's host.
func (j *Judgement) Taken(source *xstate.CPU) {
	j.source = source
	if j.cache.target.Host != nil {
		j.Findings = append(j.Findings, j.cache.machines(source, j.code, j.Foreign)...)
	}
}

// Thread tells of a thread, and returns the decision about it, which is shared by those
// that are alike.
func (j *Judgement) Thread(th Thread) *Report {
	d := j.cache.decide(th, j.Foreign, j.judgeCode, j.threads[[2]int{th.PID, th.TID}])
	j.Add(Judged{th.PID, th.TID, d.Report})
	j.seen.add(&d.seen)
	j.seen.unparseable = j.seen.unparseable || th.Unparseable
	if th.Trailing > 0 {
		j.Findings = append(j.Findings, (&subject{file: th.File, trailing: th.Trailing}).check(file)...)
	}
	return d.Report
}

// Add takes in a thread that was decided before, by [Decide] for the same target and
// policy.
func (j *Judgement) Add(t Judged) {
	j.Verdict = max(j.Verdict, t.Verdict)
	j.refused = j.refused || t.Refused
	if i, ok := j.taskOf[t.PID]; ok {
		j.Tasks[i].Verdict = max(j.Tasks[i].Verdict, t.Verdict)
	}
	if !t.OnlyLost() {
		j.beyondForce()
	}
	if j.beyond {
		t.Report = j.revise(t.Report, (*Report).withoutForce)
	}
	if t.Verdict == CodeUnfit && !j.unfit {
		j.unfit = true
		j.reviseAll((*Report).inVain)
	}
	if j.unfit {
		t.Report = j.revise(t.Report, (*Report).inVain)
	}
	j.Threads = append(j.Threads, t)
}

// Part is a part of a checkpoint.
type Part uint8

const (
	Images  Part = iota // what CRIU reads in every restore
	CPUInfo             // cpuinfo.img, which it reads if --cpu-cap asks for it
)

// Damage tells that a part of the checkpoint cannot be read.
func (j *Judgement) Damage(part Part) {
	j.Verdict = Damaged
	j.seen.unparseable = j.seen.unparseable || part == Images
	j.beyondForce()
}

// Pages tells the form of the dumped memory, which decides what CRIU does with it.
func (j *Judgement) Pages(p Pages) {
	j.seen.pages = p
}

// CRIU is the release that is predicted.
func (j *Judgement) CRIU() xstate.Release { return j.cache.target.release() }

// beyondForce takes all remedies out that need a conversion: none takes a checkpoint
// in part.
func (j *Judgement) beyondForce() {
	if j.beyond {
		return
	}
	j.beyond = true
	j.reviseAll((*Report).withoutForce)
}

// Refused reports whether the policy forbids the conversion of any thread. Then none
// is converted.
func (j *Judgement) Refused() bool { return j.refused }

// OnlyLost reports whether a forced conversion may go ahead even if the checkpoint is
// damaged (see [Report.OnlyLost]).
func (j *Judgement) OnlyLost() bool { return !j.beyond }

// Predict says what CRIU does with the checkpoint on the target's host, for one value
// of --cpu-cap.
func (j *Judgement) Predict(cap Cap) Prediction {
	switch {
	case j.Foreign:
		return unknown("this is no CRIU checkpoint")
	case j.cache.predictor == nil:
		return unknown("no host is named")
	}
	return (&prediction{j.cache.predictor, &j.seen}).predict(j.source, cap)
}

// Chief returns the gravest finding, nil if there is nothing but notes.
func (j *Judgement) Chief() *Finding {
	var best *Finding
	consider := func(f *Finding) {
		if f.Severity > Note && (best == nil || f.weight() > best.weight()) {
			best = f
		}
	}
	for r := range j.Reports() {
		for i := range r.Findings {
			if f := &r.Findings[i]; f.Rule != FormatXSave || r.Verdict != DowngradeLossy {
				consider(f)
			}
		}
	}
	for _, t := range j.Tasks {
		for i := range t.Findings {
			consider(&t.Findings[i])
		}
	}
	for i := range j.Findings {
		consider(&j.Findings[i])
	}
	return best
}

// weight ranks findings: of the same severity, those about the image before those about
// its code, and the rest last.
func (f *Finding) weight() int {
	w := 4 * int(f.Severity)
	switch {
	case f.Integrity():
		w += 2
	case f.Rule.about(thread, task):
		w++
	}
	return w
}

// LostNames names the registers whose values are lost, or would be, over all
// threads.
func LostNames(threads []Judged) []string {
	var names []string
	for _, t := range threads {
		for _, name := range LossNames(t.Lost) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// Adapt returns what cpuinfo.img is to record so that CRIU accepts the converted
// checkpoint where it compares that file (criu/arch/x86/cpu.c:cpu_validate_features).
// All threads must have been told before.
func (j *Judgement) Adapt(r xstate.CPURecord) xstate.CPURecord {
	if j.cache.policy.KeepCPUInfo || j.refused {
		return r
	}
	if f := j.cache.target.Format; f != nil && *f != xstate.FormatXSave {
		r = withoutXSave(r)
	}
	if j.cache.target.Host != nil && (j.cache.policy.Force || j.cache.policy.Level) {
		r = satisfiedBy(r, j.cache.target.Host)
	}
	return r
}

// withoutXSave clears the capability bits of XSAVE and of all that depends on it,
// and removes the fields about the XSAVE area. CRIU takes the host's values for
// fields that are absent.
func withoutXSave(r xstate.CPURecord) xstate.CPURecord {
	gone := append(xstate.DependentsOf("xsave"), "xsave")
	return xstate.CPURecord{Capability: withoutFlags(r.Capability, gone)}
}

// satisfiedBy makes the record what the host satisfies: the words have no bit that
// the host lacks, the mask no component, and the sizes are the host's, since CRIU
// wants them equal. What is not known of the host is left out, and CRIU takes the
// host's own.
func satisfiedBy(r xstate.CPURecord, host *xstate.CPU) xstate.CPURecord {
	switch {
	case len(host.Capability) >= len(r.Capability):
		words := slices.Clone(r.Capability)
		for i := range words {
			words[i] &= host.Capability[i]
		}
		r.Capability = words
	case host.Flags != nil:
		var gone []string
		for f := range xstate.AllFlags() {
			if has, _ := host.HasFlag(f.Name); !has {
				gone = append(gone, f.Name)
			}
		}
		r.Capability = withoutFlags(r.Capability, gone)
	}
	mask, known := host.CRIUMask()
	if r.XFeaturesMask == nil || !known || host.XSaveSize == nil || host.XSaveSizeMax == nil {
		return xstate.CPURecord{Capability: r.Capability}
	}
	r.XFeaturesMask = new(*r.XFeaturesMask & mask)
	r.XSaveSize, r.XSaveSizeMax = host.XSaveSize, host.XSaveSizeMax
	return r
}

func withoutFlags(words []uint32, gone []string) []uint32 {
	words = slices.Clone(words)
	for i, mask := range xstate.CapabilityMask(gone...) {
		if i < len(words) {
			words[i] &^= mask
		}
	}
	return words
}

// Erased tells that cpuinfo.img no longer records what the source had: before is the
// machine that it described, after what it describes now.
func (j *Judgement) Erased(before, after *xstate.CPU) {
	isa, _ := missingFlags(before, after)
	f := Finding{Rule: ISAMissing, Severity: Risky, Components: []string{}, Features: append([]string{}, isa...), Remedies: []Remedy{{Kind: KeepCPUInfo}},
		Reason: "cpuinfo.img no longer records what the source had, so CRIU cannot refuse on account of it"}
	if len(isa) > 0 {
		f.Reason += fmt.Sprintf("; it drops the instruction sets %s, and a program that chose such code when it started dies of SIGILL where they are missing",
			strings.Join(isa, " "))
	} else {
		f.Severity = Note
		f.Reason += "; no instruction set is dropped"
	}
	j.Findings = append(j.Findings, f)
}
