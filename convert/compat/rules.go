package compat

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// rules are the rules about one thread, in the order of the report: first those
// about the image alone, then those about the target. A check returns nil if it
// has nothing to say.
var rules = [...]struct {
	id    Rule
	check func(*subject) *Finding
}{
	{LegacyShort, (*subject).legacyShort},
	{ComponentShort, (*subject).componentShort},
	{ComponentLong, (*subject).componentLong},
	{MXCSRReserved, (*subject).mxcsrReserved},
	{BVWithoutData, (*subject).bvWithoutData},
	{BVUnknown, (*subject).bvUnknown},
	{ValueTooWide, (*subject).valueTooWide},
	{InitZeroed, (*subject).initZeroed},
	{NoFPURecord, (*subject).noFPURecord},
	{FormatXSave, (*subject).formatXSave},
	{ComponentMissing, (*subject).componentMissing},
	{ComponentUnusedMissing, (*subject).componentUnusedMissing},
	{PKRUMissing, (*subject).pkruMissing},
	{ShadowStackMissing, (*subject).shadowStackMissing},
	{MXCSRMask, (*subject).mxcsrMask},
}

func finding(sev Severity, components xstate.Features, format string, args ...any) *Finding {
	return &Finding{Severity: sev, Components: components.Names(), Features: []string{}, Reason: fmt.Sprintf(format, args...)}
}

func (f *Finding) hint(format string, args ...any) *Finding {
	f.Hint = fmt.Sprintf(format, args...)
	return f
}

func (f *Finding) redact(reason string) *Finding {
	f.discreet = reason
	return f
}

const takeAgain = "the image is damaged: take the checkpoint again, or use an earlier one"

// criu/arch/x86/crtools.c:valid_xsave_frame refuses short legacy arrays.
func (sub *subject) legacyShort() *Finding {
	s := sub.state
	if s.Format == xstate.FormatNone || s.STLen >= 128 && s.XMMLen >= 256 {
		return nil
	}
	return finding(Fatal, xstate.Legacy, "st_space has %d of 32 words, xmm_space %d of 64", s.STLen/4, s.XMMLen/4).hint(takeAgain)
}

func (sub *subject) sizes(wrong func(have, want int) bool) (set xstate.Features, parts []string) {
	for f := range sub.state.Recorded().All() {
		if have, want := len(sub.state.Data(f)), f.Component().Size; wrong(have, want) {
			set |= f.Mask()
			parts = append(parts, fmt.Sprintf("%v has %d of %d bytes", f, have, want))
		}
	}
	return set, parts
}

// crtools.c:valid_xsave_frame again, for the extended arrays.
func (sub *subject) componentShort() *Finding {
	set, parts := sub.sizes(func(have, want int) bool { return have < want })
	if set == 0 {
		return nil
	}
	return finding(Fatal, set, "%s", strings.Join(parts, ", ")).hint(takeAgain)
}

// CRIU reads longer legacy arrays (crtools.c:assign_array) and refuses longer
// extended ones (compel fpu code, "reported N bytes (expecting M)").
func (sub *subject) componentLong() *Finding {
	s := sub.state
	set, parts := sub.sizes(func(have, want int) bool { return have > want })
	if set != 0 {
		return finding(Fatal, set, "%s", strings.Join(parts, ", ")).hint(takeAgain)
	}
	if s.STLen > 128 || s.XMMLen > 256 {
		return finding(Note, xstate.Legacy, "st_space has %d words of 32, xmm_space %d of 64; CRIU ignores the rest", s.STLen/4, s.XMMLen/4)
	}
	return nil
}

// maxMXCSR is every bit that some CPU lets MXCSR have: AMD's mask.
const maxMXCSR = 0x2ffff

// The kernel refuses reserved bits at sigreturn and kills the task
// (arch/x86/kernel/fpu/xstate.c:copy_uabi_to_xstate).
func (sub *subject) mxcsrReserved() *Finding {
	s := sub.state
	if s.Format == xstate.FormatNone {
		return nil
	}
	mask := s.FX.MXCSRMask()
	if mask == 0 {
		mask = maxMXCSR
	}
	bad := s.FX.MXCSR() &^ mask
	if bad == 0 {
		return nil
	}
	return finding(Fatal, xstate.SSE.Mask(), "MXCSR %#x has reserved bits %#x (mask %#x); the kernel kills a process restored with them",
		s.FX.MXCSR(), bad, mask).hint(takeAgain).redact("MXCSR has reserved bits; the kernel kills a process restored with them")
}

func (sub *subject) bvWithoutData() *Finding {
	lost := sub.state.With(xstate.Lost)
	if lost == 0 {
		return nil
	}
	f := finding(Fatal, lost, "XSTATE_BV says in use, but the image holds no data: the values were lost at dump")
	force := "convert with --force, which clears the bits"
	if sub.target.Command != "" && !sub.force {
		force += ": " + sub.target.Command
	}
	switch {
	case lost&xstate.AMX != 0:
		f.Reason = "XSTATE_BV says in use, but the image holds no tile data: CRIU has no field for AMX, the tiles were lost at dump, " +
			"and the restored process will die on its next AMX instruction"
		f.Hint = "checkpoint the process while it uses no AMX tiles; " +
			"or, if it sets up its tiles anew, " + force
	default:
		if lost.Has(xstate.BNDREGS) {
			f.Reason += "; CRIU has a field for the MPX bounds but does not write it"
		}
		f.Hint = "if the process can do without these values, " + force
	}
	return f
}

func (sub *subject) bvUnknown() *Finding {
	unknown := sub.state.BV &^ xstate.Known
	if unknown == 0 {
		return nil
	}
	return finding(Risky, unknown, "XSTATE_BV has bits %#x that name no known state component", uint64(unknown))
}

func (sub *subject) valueTooWide() *Finding {
	wide := sub.state.Wide
	if len(wide) == 0 {
		return nil
	}
	return finding(Risky, 0, "recorded values do not fit their registers and are cut, as CRIU cuts them: %s", strings.Join(wide, ", "))
}

// CRIU restores the legacy area with bits 0 and 1 of XSTATE_BV set, whatever the
// image says (criu/arch/x86/crtools.c:restore_fpu).
func (sub *subject) initZeroed() *Finding {
	if sub.zeroed == 0 {
		return nil
	}
	var words, kinds []string
	if sub.zeroed.Has(xstate.X87) {
		words, kinds = append(words, "FCW 0x37f"), append(kinds, "x87")
	}
	if sub.zeroed.Has(xstate.SSE) {
		words, kinds = append(words, "MXCSR 0x1f80"), append(kinds, "SSE")
	}
	f := finding(Risky, sub.zeroed, "XSTATE_BV says INIT, and the image holds 0 instead of %s: restored so, every exception "+
		"is unmasked, and the thread dies of SIGFPE at its next inexact %s operation", strings.Join(words, " and "), strings.Join(kinds, " or "))
	switch {
	case sub.target.Input != "":
		f.Hint = "any conversion writes INIT: fpuimg convert --to=xsave " + sub.target.Input
	case sub.target.Format == nil && sub.target.Host == nil:
		f.Hint = "fpuimg convert --to=xsave writes INIT, as any conversion does"
	}
	return f
}

// fpregs is a required field (images/core-x86.proto), so CRIU cannot parse the
// image at all.
func (sub *subject) noFPURecord() *Finding {
	if sub.state.Format != xstate.FormatNone {
		return nil
	}
	f := finding(Risky, 0, "the image has no FPU record; today's CRIU refuses it")
	switch {
	case sub.target.Input != "":
		f.Hint = "give the thread the INIT state: fpuimg convert --to=fxsave " + sub.target.Input
	case sub.to == xstate.FormatNone:
		f.Hint = "fpuimg convert --to=fxsave gives the thread the INIT state"
	}
	return f
}

// missing returns the present components that the target lacks, without PKRU,
// which has a rule of its own.
func (sub *subject) missing(inUse bool) xstate.Features {
	var set xstate.Features
	for f, status := range sub.state.Present() {
		if !sub.allowed.Has(f) && f != xstate.PKRU && status != xstate.Lost && (status == xstate.InUse) == inUse {
			set |= f.Mask()
		}
	}
	return set
}

// forced is the hint of every refusal that force lifts. need is the CPU features
// that a host would have to have.
func (sub *subject) forced(f *Finding, need ...string) *Finding {
	if sub.force {
		return f
	}
	var ways []string
	if sub.target.Host != nil && len(need) > 0 {
		ways = append(ways, "restore on a host "+withFlags(need))
	}
	if sub.target.Command != "" {
		ways = append(ways, "force it: "+sub.target.Command)
	}
	f.Hint = strings.Join(ways, ", or ")
	return f
}

// targetName is how reasons speak of the target.
func (sub *subject) targetName() string {
	if sub.target.Host == nil || sub.target.Format != nil {
		return "the target" // a format may lack what the host has
	}
	return hostName(sub.target.Host)
}

// valid_xsave_frame: "FPU xsave area present, but host cpu doesn't support it".
func (sub *subject) formatXSave() *Finding {
	if sub.state.Format != xstate.FormatXSave || sub.to == xstate.FormatXSave {
		return nil
	}
	reason := "has no XSAVE"
	if sub.target.Format != nil {
		reason = "has format " + sub.to.String()
	}
	f := finding(Fatal, 0, "the record is of format xsave, and %s %s", sub.targetName(), reason)
	if sub.missing(true) == 0 && !sub.pkruMatters() && !sub.shadowStackGoes() && sub.badMXCSR() == 0 {
		f.Reason += "; no register value would be lost"
	}
	return sub.forced(f, "xsave")
}

func (sub *subject) componentMissing() *Finding {
	set := sub.missing(true)
	switch {
	case set != 0:
	case sub.to == xstate.FormatNone && sub.state.Format == xstate.FormatFXSave:
		// formatXSave says the same of the other format.
		return sub.forced(finding(Fatal, xstate.Legacy, "the record goes, and %s has none; no register value would be lost", sub.targetName()))
	default:
		return nil
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
	return sub.forced(finding(Fatal, set, "in use, and %s lacks it: %s", sub.targetName(), strings.Join(parts, ", ")), need...)
}

func (sub *subject) componentUnusedMissing() *Finding {
	set := sub.missing(false)
	if sub.to == xstate.FormatNone {
		set &^= xstate.Legacy
	}
	if set == 0 {
		return nil
	}
	return finding(Note, set, "recorded but not in use, and %s lacks it: %s", sub.targetName(), strings.Join(set.Names(), ", "))
}

// pkruMatters reports whether PKRU would be taken away with a value that neither
// opens every key nor is what Linux gives each new program.
func (sub *subject) pkruMatters() bool {
	v, ok := sub.pkruGoes()
	return ok && v != 0 && v != xstate.DefaultPKRU
}

// pkruGoes returns PKRU if the record has it and the target does not.
func (sub *subject) pkruGoes() (value uint32, goes bool) {
	view := sub.state.View(xstate.PKRU)
	if view == nil || sub.allowed.Has(xstate.PKRU) {
		return 0, false
	}
	return uint32(view[0]) | uint32(view[1])<<8 | uint32(view[2])<<16 | uint32(view[3])<<24, true
}

func (sub *subject) pkruMissing() *Finding {
	v, goes := sub.pkruGoes()
	switch {
	case !goes:
		return nil
	case sub.pkruMatters():
		return sub.forced(finding(Fatal, xstate.PKRU.Mask(), "PKRU is %#x (%s), and %s has no protection keys: what they guard would be open",
			v, xstate.PKRUString(v), sub.targetName()), "pku")
	}
	return finding(Note, xstate.PKRU.Mask(), "PKRU is %#x, a value that guards nothing, and %s has no protection keys", v, sub.targetName())
}

// shadowStackGoes reports whether the thread runs with a shadow stack and the
// target cannot give it one.
func (sub *subject) shadowStackGoes() bool {
	if !sub.state.ShadowStack.Enabled() {
		return false
	}
	if sub.to != xstate.FormatXSave {
		return true
	}
	has, known := sub.target.Host.HasFlag("user_shstk")
	return known && !has
}

func (sub *subject) shadowStackMissing() *Finding {
	if !sub.shadowStackGoes() {
		return nil
	}
	f := finding(Fatal, xstate.CETUser.Mask(), "the thread runs with a shadow stack (SSP %#x), and %s cannot give it one",
		sub.state.ShadowStack.SSP, sub.targetName())
	f.Features = []string{"user_shstk"}
	return sub.forced(f, f.Features...)
}

// badMXCSR returns the bits of MXCSR that the target does not have.
func (sub *subject) badMXCSR() uint32 {
	host := sub.target.Host
	if host == nil || host.MXCSRMask == nil || sub.state.Format == xstate.FormatNone {
		return 0
	}
	// The default mask is what every CPU has; a recorded 0 stands for it.
	return sub.state.FX.MXCSR() &^ (*host.MXCSRMask | xstate.DefaultMXCSRMask)
}

func (sub *subject) mxcsrMask() *Finding {
	bad := sub.badMXCSR()
	if bad == 0 {
		return nil
	}
	return sub.forced(finding(Fatal, xstate.SSE.Mask(), "MXCSR %#x sets bits %#x (%s) that %s lacks",
		sub.state.FX.MXCSR(), bad, mxcsrBits(bad), sub.targetName()))
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

// follows reports whether b is a's name with the next number.
func follows(a, b string) bool {
	pa, na := splitNumber(a)
	pb, nb := splitNumber(b)
	return pa == pb && na >= 0 && nb == na+1
}

func splitNumber(name string) (prefix string, n int) {
	prefix = strings.TrimRight(name, "0123456789")
	n, err := strconv.Atoi(name[len(prefix):])
	if err != nil {
		return prefix, -1
	}
	return prefix, n
}

// Trailing is the finding about bytes after the entry of an image file, which
// concerns the checkpoint as a whole.
func Trailing(file string, n int) Finding {
	f := finding(Note, 0, "%s: %d bytes after the entry; CRIU ignores them, and they are kept", file, n)
	f.Rule = TrailingData
	return *f
}
