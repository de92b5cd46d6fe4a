package compat

import (
	"fmt"
	"slices"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Severity ranks a finding.
type Severity uint8

const (
	Note  Severity = iota // worth knowing, harmless
	Risky                 // may break the process; nobody can know from the image
	Fatal                 // decides the verdict
)

func (s Severity) String() string { return [...]string{"note", "risky", "fatal"}[s] }

// MarshalText makes the severity readable in JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Rule is the stable id of a rule.
type Rule string

// The rules. COMPATIBILITY.md explains each with an example.
const (
	LegacyShort            Rule = "legacy-short"
	ComponentShort         Rule = "component-short"
	ComponentLong          Rule = "component-long"
	MXCSRReserved          Rule = "mxcsr-reserved"
	BVWithoutData          Rule = "bv-without-data"
	BVUnknown              Rule = "bv-unknown"
	ValueTooWide           Rule = "value-too-wide"
	InitZeroed             Rule = "init-zeroed"
	TrailingData           Rule = "trailing-data"
	NoFPURecord            Rule = "no-fpu-record"
	NotRecorded            Rule = "not-recorded"
	FormatXSave            Rule = "format-xsave"
	ComponentMissing       Rule = "component-missing"
	ComponentUnusedMissing Rule = "component-unused-missing"
	PKRUMissing            Rule = "pkru-missing"
	ShadowStackMissing     Rule = "shadow-stack-missing"
	MXCSRMask              Rule = "mxcsr-mask"
	ComponentDead          Rule = "component-dead"
	ThreadInCode           Rule = "thread-in-code"
	FrameUnfit             Rule = "frame-unfit"
	CodeMissing            Rule = "code-missing"
	LazySave               Rule = "lazy-save"
	OwnDispatch            Rule = "own-dispatch"
	CompiledISA            Rule = "compiled-isa"
	CachedCPUID            Rule = "cached-cpuid"
	JITCode                Rule = "jit-code"
	CodeUnknown            Rule = "code-unknown"
	SourceInferred         Rule = "source-inferred"
	ISAMissing             Rule = "isa-missing"
	XSaveSizeDiffers       Rule = "xsave-size-differs"
	VendorDiffers          Rule = "vendor-differs"
)

// Finding is one thing that a rule has to say about a thread, a file, a task or a machine.
type Finding struct {
	Rule       Rule
	Severity   Severity
	Components []string // state components, by name
	Features   []string // CPU features, by Linux flag name
	Reason     string
	Remedies   []Remedy // what to do, the alternatives; nil if nothing

	discreet string // the reason without register values; "" if Reason has none
}

// Redacted returns the finding without register values in its reason.
func (f Finding) Redacted() Finding {
	if f.discreet != "" {
		f.Reason = f.discreet
	}
	return f
}

// Integrity reports whether the finding is about the image alone, not about a
// target.
func (f *Finding) Integrity() bool { return f.Rule.about(record, file) }

// about reports whether the rule is of one of the scopes.
func (id Rule) about(scopes ...scope) bool {
	return slices.ContainsFunc(rules[:], func(r rule) bool { return r.id == id && slices.Contains(scopes, r.scope) })
}

// Remedy is one thing to do about a finding.
type Remedy struct {
	Kind  RemedyKind
	Flags []string // of HostWith, by Linux flag name
}

// RemedyKind is what there is to do.
type RemedyKind uint8

const (
	TakeAgain    RemedyKind = iota // take the checkpoint again: the image is damaged
	Force                          // go ahead with [Policy.Force]
	ClearBits                      // the same, which clears the bits of components without data
	AddRecord                      // convert to fxsave, which gives the thread a record
	WriteInit                      // convert to any format, which writes INIT
	WithoutTiles                   // take the checkpoint while the process uses no AMX tiles
	HostWith                       // restore on a host that has Flags
	HostSmaller                    // restore on a host whose XSAVE area is no larger
	StartAnew                      // start the programs anew on the host
	BindNow                        // start the program with LD_BIND_NOW=1, before the checkpoint
	RecordCPU                      // have CRIU record the CPU at dump
	KeepCPUInfo                    // leave cpuinfo.img as it is, by [Policy.KeepCPUInfo]
	Level                          // rewrite the process for the host, memory and registers
	TakeLater                      // take the checkpoint at another moment
	NewerCRIU                      // restore with CRIU 3.18 or later, which fills only what is in use
	GiveRoot                       // tell where the ELF files are that the tasks have mapped
)

// converts reports whether a conversion carries the remedy out.
func (r Remedy) converts() bool { return r.Kind >= Force && r.Kind <= WriteInit }

// Verdict sums up the findings. Greater is worse.
type Verdict uint8

const (
	Compatible Verdict = iota
	// DowngradeLossless: the target lacks something that must be taken away, but
	// no register value would be lost.
	DowngradeLossless
	// Undecided: nobody can tell, because the record says nothing of components that
	// the target lacks. An image of CRIU tells of all.
	Undecided
	// DowngradeLossy: register values would be lost.
	DowngradeLossy
	// CodeUnfit: the process dies of the code that it has chosen, whatever becomes
	// of its registers.
	CodeUnfit
	// Damaged: the record itself is not whole.
	Damaged
)

var verdicts = [...]string{"compatible", "downgrade-lossless", "unknown", "downgrade-lossy", "code-unfit", "damaged"}

func (v Verdict) String() string { return verdicts[v] }

// MarshalText makes the verdict readable in JSON.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Policy chooses the mode.
type Policy struct {
	Force bool // proceed even where registers are lost
	// Level proceeds where nothing is lost, and adapts cpuinfo.img as force does: of a
	// process whose code is made to fit too.
	Level       bool
	KeepCPUInfo bool // leave cpuinfo.img as it is
}

// Target is what a state is to fit: a format, a machine, or both. The zero value
// asks for nothing, and a report against it holds the integrity findings only.
type Target struct {
	// Format is the format to convert to, or nil to keep the state's own as far
	// as Host holds it; then a thread without a record gets a legacy one.
	Format *xstate.Format
	// Features, with Format xsave, are the components to keep and to add; nil
	// keeps all that are there and adds AVX, which every CRIU reads.
	Features *xstate.Features
	// Host is the machine; its components narrow Features.
	Host *xstate.CPU
	// CRIU is the release that restores there; the zero value is the newest.
	CRIU xstate.Release
}

// Action is what happens to a component.
type Action string

const (
	Keep   Action = "keep"   // stays as it is
	Init   Action = "init"   // is written in its INIT state: there was no record, or zeros stood for it
	Extend Action = "extend" // is added in its INIT state
	Drop   Action = "drop"   // is taken away, and nothing is lost
	Strip  Action = "strip"  // is taken away with the values it holds
	Refuse Action = "refuse" // would have to be stripped, and the policy forbids it
)

// Decision is the action for one component.
type Decision struct {
	Component xstate.Feature
	Action    Action
	Lossless  bool
}

// Loss names the registers of one component whose values are lost, or would be.
// It is empty for a component whose values the image lacks already.
type Loss struct {
	Component xstate.Feature
	Registers []string
}

// Report is everything there is to say about one thread and a target.
type Report struct {
	Verdict   Verdict
	Findings  []Finding
	From, To  xstate.Format
	Decisions []Decision
	Lost      []Loss
	Unknown   xstate.Features // of which the record says nothing
	// Dead is what would be lost too if the thread were not proved to have done with
	// it, and Blocked the system call that it waits in.
	Dead    []Loss
	Blocked string
	// Changed reports whether the record would differ after the conversion.
	Changed bool
	// Refused reports whether the policy forbids the conversion: the state is
	// damaged, or something would be taken away and force was not given.
	Refused bool

	bv          xstate.Features // XSTATE_BV of the result
	fcw         uint16          // FCW of the result
	mxcsr       uint32          // MXCSR of the result
	shadowStack bool            // whether the shadow stack record stays
}

// Err returns an [*IncompatibleError] if the report refuses, else nil.
func (r *Report) Err() error {
	if !r.Refused {
		return nil
	}
	return &IncompatibleError{r}
}

// IncompatibleError is a refused conversion, for callers that need an error.
type IncompatibleError struct{ Report *Report }

func (e *IncompatibleError) Error() string {
	for _, f := range e.Report.Findings {
		if f.Severity == Fatal {
			return fmt.Sprintf("%v: %s", e.Report.Verdict, f.Reason)
		}
	}
	return e.Report.Verdict.String()
}

// withoutForce takes out the remedies that need a conversion, for a checkpoint that
// none takes.
func (r *Report) withoutForce() {
	for i := range r.Findings {
		f := &r.Findings[i]
		if !slices.ContainsFunc(f.Remedies, Remedy.converts) {
			continue
		}
		f.Remedies = nil
		if f.Integrity() {
			f.Remedies = []Remedy{{Kind: TakeAgain}}
		}
	}
}

// inVain takes out the advice to force, for a process that dies all the same.
func (r *Report) inVain() {
	for i := range r.Findings {
		f := &r.Findings[i]
		f.Remedies = slices.DeleteFunc(slices.Clone(f.Remedies), func(m Remedy) bool { return m.Kind == Force })
	}
}

// Stripped returns the components whose bits are cleared although the image holds
// no values for them.
func (r *Report) Stripped() xstate.Features {
	var set xstate.Features
	for _, d := range r.Decisions {
		if d.Action == Strip && !slices.ContainsFunc(r.Lost, func(l Loss) bool { return l.Component == d.Component }) {
			set |= d.Component.Mask()
		}
	}
	return set
}

// OnlyLost reports whether the state's only damage is components whose values the
// image lacks, which a forced conversion may strip.
func (r *Report) OnlyLost() bool {
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Severity == Fatal && f.Integrity() && f.Rule != BVWithoutData
	})
}
