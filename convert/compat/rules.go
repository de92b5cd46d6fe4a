package compat

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// rule is one rule.
type rule struct {
	id       Rule
	severity Severity // the gravest that a finding of it has
	scope    scope
	check    func(*subject) // adds what it finds
}

// scope is what a rule is about.
type scope uint8

const (
	record   scope = iota // a thread's record, whatever the target
	file                  // the file that it stands in
	fit                   // a thread's record and the target
	thread                // a thread's code and the target's host
	task                  // a task's code and the target's host
	machines              // the two machines
)

// rules are all rules, in the order of the report. COMPATIBILITY.md explains each.
var rules = [...]rule{
	{LegacyShort, Fatal, record, (*subject).legacyShort},
	{ComponentShort, Fatal, record, (*subject).componentShort},
	{ComponentLong, Fatal, record, (*subject).componentLong},
	{MXCSRReserved, Fatal, record, (*subject).mxcsrReserved},
	{BVWithoutData, Fatal, record, (*subject).bvWithoutData},
	{BVUnknown, Risky, record, (*subject).bvUnknown},
	{ValueTooWide, Risky, record, (*subject).valueTooWide},
	{InitZeroed, Risky, record, (*subject).initZeroed},
	{TrailingData, Note, file, (*subject).trailingData},
	{NoFPURecord, Risky, record, (*subject).noFPURecord},
	{NotRecorded, Risky, record, (*subject).notRecorded},
	{FormatXSave, Fatal, fit, (*subject).formatXSave},
	{ComponentMissing, Fatal, fit, (*subject).componentMissing},
	{ComponentUnusedMissing, Note, fit, (*subject).componentUnusedMissing},
	{PKRUMissing, Fatal, fit, (*subject).pkruMissing},
	{ShadowStackMissing, Fatal, fit, (*subject).shadowStackMissing},
	{MXCSRMask, Fatal, fit, (*subject).mxcsrMask},
	{ComponentDead, Note, fit, (*subject).componentDead},
	{ThreadInCode, Fatal, thread, (*subject).threadInCode},
	{FrameUnfit, Risky, thread, (*subject).frameUnfit},
	{CodeMissing, Fatal, task, (*subject).codeMissing},
	{LazySave, Fatal, task, (*subject).lazySave},
	{OwnDispatch, Risky, task, (*subject).ownDispatch},
	{CompiledISA, Risky, task, (*subject).compiledISA},
	{CachedCPUID, Risky, task, (*subject).cachedCPUID},
	{JITCode, Risky, task, (*subject).jitCode},
	{CodeUnknown, Risky, task, (*subject).codeUnknown},
	{SourceInferred, Note, machines, (*subject).sourceInferred},
	{ISAMissing, Risky, machines, (*subject).isaMissing},
	{XSaveSizeDiffers, Risky, machines, (*subject).xsaveSizeDiffers},
	{VendorDiffers, Note, machines, (*subject).vendorDiffers},
}

// criu/arch/x86/crtools.c:valid_xsave_frame refuses short legacy arrays.
func (sub *subject) legacyShort() {
	if s := sub.state; s.Format != xstate.FormatNone && (s.STLen < 128 || s.XMMLen < 256) {
		sub.find(xstate.Legacy, "st_space has %d of 32 words, xmm_space %d of 64", s.STLen/4, s.XMMLen/4).mend(Remedy{Kind: TakeAgain})
	}
}

// sizes finds arrays of the wrong length.
func (sub *subject) sizes(wrong func(have, want int) bool) (found bool) {
	var set xstate.Features
	var parts []string
	for f := range sub.state.Recorded().All() {
		if have, want := len(sub.state.Data(f))+sub.state.Over(f), f.Component().Size; wrong(have, want) {
			set |= f.Mask()
			parts = append(parts, fmt.Sprintf("%v has %d of %d bytes", f, have, want))
		}
	}
	if set != 0 {
		sub.find(set, "%s", strings.Join(parts, ", ")).mend(Remedy{Kind: TakeAgain})
	}
	return set != 0
}

// crtools.c:valid_xsave_frame again, for the extended arrays.
func (sub *subject) componentShort() {
	sub.sizes(func(have, want int) bool { return have < want })
}

// CRIU reads longer legacy arrays (crtools.c:assign_array) and refuses longer
// extended ones (compel fpu code, "reported N bytes (expecting M)").
func (sub *subject) componentLong() {
	s := sub.state
	if !sub.sizes(func(have, want int) bool { return have > want }) && (s.STLen > 128 || s.XMMLen > 256) {
		sub.find(xstate.Legacy, "st_space has %d words of 32, xmm_space %d of 64; CRIU ignores the rest", s.STLen/4, s.XMMLen/4).as(Note)
	}
}

// maxMXCSR is every bit that some CPU lets MXCSR have: AMD's mask.
const maxMXCSR = 0x2ffff

// The kernel refuses reserved bits at sigreturn and kills the task
// (arch/x86/kernel/fpu/xstate.c:copy_uabi_to_xstate).
func (sub *subject) mxcsrReserved() {
	s := sub.state
	if s.Format == xstate.FormatNone {
		return
	}
	mask := s.FX.MXCSRMask()
	if mask == 0 {
		mask = maxMXCSR
	}
	if bad := s.FX.MXCSR() &^ mask; bad != 0 {
		sub.find(xstate.SSE.Mask(), "MXCSR %#x has reserved bits %#x (mask %#x); the kernel kills a process restored with them", s.FX.MXCSR(), bad, mask).
			mend(Remedy{Kind: TakeAgain}).redact("MXCSR has reserved bits; the kernel kills a process restored with them")
	}
}

func (sub *subject) bvWithoutData() {
	lost := sub.state.With(xstate.Lost)
	if lost == 0 {
		return
	}
	f := sub.find(lost, "XSTATE_BV says in use, but the image holds no data: the values were lost at dump").mend(Remedy{Kind: ClearBits})
	switch {
	case sub.foreign: // whoever wrote it
	case lost&xstate.AMX != 0:
		f.Reason = "XSTATE_BV says in use, but the image holds no tile data: CRIU has no field for AMX, the tiles were lost at dump, " +
			"and the restored process will die on its next AMX instruction"
		f.mend(Remedy{Kind: WithoutTiles}, Remedy{Kind: ClearBits})
	case lost.Has(xstate.BNDREGS):
		f.Reason += "; CRIU has a field for the MPX bounds but does not write it"
	}
}

func (sub *subject) bvUnknown() {
	if unknown := sub.state.BV &^ xstate.Known; unknown != 0 {
		sub.find(unknown, "XSTATE_BV has bits %#x that name no known state component", uint64(unknown))
	}
}

func (sub *subject) valueTooWide() {
	if wide := sub.state.Wide; len(wide) > 0 {
		sub.find(0, "recorded values do not fit their registers and are cut, as CRIU cuts them: %s", strings.Join(wide, ", "))
	}
}

// CRIU restores the legacy area with bits 0 and 1 of XSTATE_BV set, whatever the
// image says (criu/arch/x86/crtools.c:restore_fpu).
func (sub *subject) initZeroed() {
	var words, kinds []string
	if sub.zeroed.Has(xstate.X87) {
		words, kinds = append(words, "FCW 0x37f"), append(kinds, "x87")
	}
	if sub.zeroed.Has(xstate.SSE) {
		words, kinds = append(words, "MXCSR 0x1f80"), append(kinds, "SSE")
	}
	if words != nil {
		sub.find(sub.zeroed, "XSTATE_BV says INIT, and the image holds 0 instead of %s: restored so, every exception is unmasked, "+
			"and the thread dies of SIGFPE at its next inexact %s operation", strings.Join(words, " and "), strings.Join(kinds, " or ")).
			mend(Remedy{Kind: WriteInit})
	}
}

// Bytes after the entry of an image file concern the checkpoint as a whole.
func (sub *subject) trailingData() {
	if sub.trailing > 0 {
		sub.find(0, "%s: %d bytes after the entry; CRIU ignores them, and they are kept", sub.file, sub.trailing)
	}
}

// fpregs is a required field (images/core-x86.proto), so CRIU cannot parse the
// image at all.
func (sub *subject) noFPURecord() {
	if sub.state.Format == xstate.FormatNone && sub.state.Unknown == 0 {
		sub.find(0, "the image has no FPU record; today's CRIU refuses it").mend(Remedy{Kind: AddRecord})
	}
}

// An ELF core has the notes that its writer knows: QEMU's linux-user/elfload.c none of
// floating-point registers, others no NT_X86_XSTATE.
func (sub *subject) notRecorded() {
	unknown := sub.state.Unknown
	have := xstate.Legacy &^ unknown
	switch {
	case unknown == 0:
	case have == 0:
		sub.find(0, "the core has no FPU registers of the thread; whether its writer left them out or they were in INIT, it does not tell")
	default:
		sub.find(0, "nothing but %s is recorded of the thread; whether it used more, nobody can tell", strings.Join(have.Names(), " and "))
	}
}

// valid_xsave_frame: "FPU xsave area present, but host cpu doesn't support it".
func (sub *subject) formatXSave() {
	if sub.state.Format != xstate.FormatXSave || sub.to == xstate.FormatXSave {
		return
	}
	reason := "has no XSAVE"
	if sub.target.Format != nil {
		reason = "has format " + sub.to.String()
	}
	f := sub.find(0, "the record is of format xsave, and %s %s", sub.targetName(), reason)
	if sub.missing(true) == 0 && !sub.pkruMatters() && !sub.shadowStackGoes() && sub.badMXCSR() == 0 {
		f.Reason += "; no register value would be lost"
	}
	sub.forced(f, "xsave")
}

func (sub *subject) componentMissing() {
	set := sub.missing(true)
	if set == 0 {
		if sub.to == xstate.FormatNone && sub.state.Format == xstate.FormatFXSave { // formatXSave says the same of the other format
			sub.forced(sub.find(xstate.Legacy, "the record goes, and %s has none; no register value would be lost", sub.targetName()))
		}
		return
	}
	var parts, need []string
	for f := range set.All() {
		if name := f.Flag(); name != "" && !slices.Contains(need, name) {
			need = append(need, name)
		}
		part := f.String()
		if regs := foldRuns(sub.state.Used(f)); len(regs) > 0 {
			part += " (" + strings.Join(regs, ", ") + ")"
		}
		parts = append(parts, part)
	}
	sub.forced(sub.find(set, "in use, and %s lacks it: %s", sub.targetName(), strings.Join(parts, ", ")), need...)
}

func (sub *subject) componentUnusedMissing() {
	set := sub.missing(false) &^ sub.dead
	if sub.to == xstate.FormatNone {
		set &^= xstate.Legacy
	}
	if set != 0 {
		sub.find(set, "recorded but not in use, and %s lacks it: %s", sub.targetName(), strings.Join(set.Names(), ", "))
	}
}

func (sub *subject) pkruMissing() {
	v := pkru(sub.state)
	switch {
	case sub.pkruMatters():
		sub.forced(sub.find(xstate.PKRU.Mask(), "PKRU is %#x (%s), and %s has no protection keys: what they guard would be open",
			v, xstate.PKRUString(v), sub.targetName()), "pku")
	case sub.pkruGoes():
		sub.find(xstate.PKRU.Mask(), "PKRU is %#x, a value that guards nothing, and %s has no protection keys", v, sub.targetName()).as(Note)
	}
}

func (sub *subject) shadowStackMissing() {
	if sub.shadowStackGoes() {
		sub.forced(sub.find(xstate.CETUser.Mask(), "the thread runs with a shadow stack (SSP %#x), and %s cannot give it one",
			sub.state.ShadowStack.SSP, sub.targetName()).about("user_shstk"), "user_shstk")
	}
}

func (sub *subject) mxcsrMask() {
	if bad := sub.badMXCSR(); bad != 0 {
		sub.forced(sub.find(xstate.SSE.Mask(), "MXCSR %#x sets bits %#x (%s) that %s lacks",
			sub.state.FX.MXCSR(), bad, mxcsrBits(bad), sub.targetName()))
	}
}

func mxcsrBits(v uint32) string {
	switch daz, mm := v&(1<<6) != 0, v&(1<<17) != 0; {
	case daz && mm:
		return "DAZ and MM"
	case daz:
		return "DAZ"
	case mm:
		return "MM"
	}
	return "reserved"
}
