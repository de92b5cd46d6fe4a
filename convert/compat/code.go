package compat

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// lacks returns which of the needed features the host lacks, and of which its profile
// says nothing.
func lacks(host *xstate.CPU, needs []string) (missing, unknown []string) {
	for _, name := range needs {
		switch runs, known := host.Executes(name); {
		case runs:
		case known:
			missing = append(missing, name)
		default:
			unknown = append(unknown, name)
		}
	}
	return missing, unknown
}

// Unfit reports whether the host is known to lack any of the features.
func Unfit(host *xstate.CPU, needs []string) bool {
	missing, _ := lacks(host, needs)
	return len(missing) > 0
}

// lacksISA is lacks for features that a CPU is said to have: those that are no
// instruction set do not count.
func lacksISA(host *xstate.CPU, flags []string) []string {
	missing, _ := lacks(host, flags)
	return slices.DeleteFunc(missing, func(name string) bool {
		f, ok := xstate.LookupFlag(name)
		return !ok || !f.ISA()
	})
}

// some lists names, the rest of a long list as a count.
func some(names []string) string {
	const most = 4
	switch n := len(names); {
	case n > most+1:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n-most)
	case n > 1:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return strings.Join(names, "")
}

func base(o *facts.Object) string {
	if o == nil {
		return "anonymous memory"
	}
	return path.Base(o.Path)
}

// vectors are the components that hold the registers whose use is decoded. The proof
// of code speaks of no other.
const vectors xstate.Features = 1<<xstate.AVX | xstate.AVX512

func (sub *subject) componentDead() {
	if set := sub.dead &^ sub.allowed; set != 0 {
		sub.find(set, "in use, and %s lacks it; but the thread waits in %s, and overwrites the values before it reads them: nothing is lost",
			sub.targetName(), sub.thread.Syscall)
	}
}

func (sub *subject) threadInCode() {
	th, host := sub.thread, sub.target.Host
	if th == nil {
		return
	}
	missing, _ := lacks(host, th.Needs)
	if len(missing) == 0 {
		return
	}
	fate, severity := "it dies of SIGILL if it goes that way", Risky
	if certain, _ := lacks(host, th.Certain); len(certain) > 0 {
		fate, severity = "it dies of SIGILL there", Fatal
	}
	where := base(th.Object)
	if th.Symbol != "" {
		where = th.Symbol + " of " + where
	}
	f := sub.find(0, "the thread is in %s, at %#x, and on its way out of there is code that needs %s, which %s lacks: %s",
		where, th.IP, strings.Join(missing, " "), hostName(host), fate).as(severity).about(missing...).mend(Remedy{HostWith, missing}, Remedy{Kind: TakeLater})
	f.redact(strings.Replace(f.Reason, fmt.Sprintf(", at %#x,", th.IP), ",", 1))
}

// UserSize returns the size of the XSAVE area in the signal frames of the host's kernel,
// for a process that has not asked for tiles (arch/x86/kernel/fpu/xstate.c:
// fpu_user_cfg.default_size).
func UserSize(host *xstate.CPU) (size int, known bool) {
	if host.XFeatures == nil {
		return 0, false
	}
	if host.XSaveSize != nil && !host.XFeatures.Has(xstate.TileData) {
		return int(*host.XSaveSize), true
	}
	for _, l := range host.Layouts() {
		size = max(size, l.End(*host.XFeatures&^(1<<xstate.TileData)))
	}
	return size, size > 0
}

// At sigreturn the kernel takes nothing but the legacy area from a frame that is larger
// than its own, and XRSTOR faults on bits that XCR0 lacks (arch/x86/kernel/fpu/signal.c:
// check_xstate_in_sigframe, restore_fpregs_from_user).
func (sub *subject) frameUnfit() {
	host := sub.target.Host
	if sub.thread == nil {
		return
	}
	for _, fr := range sub.thread.Frames {
		held := fr.BV &^ xstate.Legacy &^ (fr.Dead & vectors)
		if held == 0 {
			continue
		}
		before := "a signal handler is running, and what it interrupted goes on with the registers in its frame: "
		if !fr.Live {
			before = "a signal handler has returned from a frame that is left on the stack, and does not count; of a live one: "
		}
		size, sized := UserSize(host)
		lost := held &^ host.Possible()
		switch format, known := host.Format(); {
		case known && format != xstate.FormatXSave:
			sub.find(held, "%s%s has no XSAVE and takes only x87 and SSE from there", before, hostName(host))
		case sized && fr.Size > size:
			sub.find(held, "%sthe frame's area has %d bytes, the kernel's on %s %d, so it takes only x87 and SSE from there", before, fr.Size, hostName(host), size)
		case lost != 0:
			sub.find(lost, "%s%s lacks %s, and the kernel kills the process with SIGSEGV at the return", before, hostName(host), strings.Join(lost.Names(), ", "))
		default:
			continue
		}
		if f := &sub.findings[len(sub.findings)-1]; fr.Live {
			f.mend(Remedy{Kind: TakeLater}, Remedy{Kind: Level})
		} else {
			f.as(Note)
		}
	}
}

// unfit yields the targets that the host cannot run, and what it lacks.
func (sub *subject) unfit(yield func(*facts.Target, []string) bool) {
	for i := range sub.task.Targets {
		t := &sub.task.Targets[i]
		if missing, _ := lacks(sub.target.Host, t.Needs); len(missing) > 0 && !yield(t, missing) {
			return
		}
	}
}

// unfitSlots counts the IFUNC slots that lead to code which the host cannot run.
func (sub *subject) unfitSlots() (n int) {
	for t := range sub.unfit {
		n += t.Slots
	}
	return n
}

// wellKnown are the functions that nearly every program calls, the first ones first.
var wellKnown = []string{"memset", "strlen", "memcpy", "memmove", "strchr", "strcmp"}

func (sub *subject) codeMissing() {
	var needs, objects, functions []string
	slots := map[string]int{}
	total, unfit := 0, 0
	for _, t := range sub.task.Targets {
		total += t.Slots
	}
	for t, missing := range sub.unfit {
		needs, functions = union(needs, missing), union(functions, t.Functions)
		name := base(t.Object)
		slots[name] += t.Slots
		objects = union(objects, []string{name})
		unfit += t.Slots
	}
	if unfit == 0 {
		return
	}
	slices.SortStableFunc(objects, func(a, b string) int { return slots[b] - slots[a] })
	for i, name := range objects {
		objects[i] = fmt.Sprintf("%d in %s", slots[name], name)
	}
	slices.SortStableFunc(functions, func(a, b string) int { return known(a) - known(b) })
	host := hostName(sub.target.Host)
	f := sub.find(0, "%d of %d IFUNC slots hold functions that need %s, which %s lacks: %s", unfit, total, strings.Join(needs, " "), host, some(objects))
	if len(functions) > 0 {
		f.Reason += fmt.Sprintf(". It dies of SIGILL at its next call of %s", some(functions))
	} else {
		f.Reason += ". It dies of SIGILL at its next such call"
	}
	f.about(needs...).mend(Remedy{HostWith, needs}, Remedy{Kind: StartAnew}, Remedy{Kind: Level})
}

func known(function string) int {
	if i := slices.Index(wellKnown, function); i >= 0 {
		return i
	}
	return len(wellKnown)
}

// saves returns what lazy binding saves registers with. sure is false if only glibc's
// record of the CPU tells it; then nobody knows whether anything is bound lazily.
func saves(p *facts.Process) (save *facts.Save, sure bool) {
	switch {
	case p.Save != nil:
		return p.Save, true
	case p.Source == nil || p.Targets != nil:
		return nil, false
	}
	save = &facts.Save{Kind: facts.FXSave, Size: int(p.Source.SaveSize)}
	if save.Size != 0 {
		save.Kind = facts.XSave
		if slices.Contains(p.Source.Active, "xsavec") {
			save.Kind = facts.XSaveC
		}
	}
	return save, false
}

// lazySave judges the trampoline that binds symbols at their first call: it saves the
// vector registers, with the instruction and into a buffer of the size that were chosen
// when the program started (sysdeps/x86_64/dl-trampoline.h).
func (sub *subject) lazySave() {
	save, sure := saves(sub.task)
	if save == nil || save.Kind == facts.FXSave {
		return
	}
	host := sub.target.Host
	has, known := host.HasFlag(string(save.Kind))
	if save.Kind == facts.XSave && host.XSave != nil {
		has, known = *host.XSave, true
	}
	left := "the first call of a symbol that is not bound yet"
	if sure {
		left += fmt.Sprintf(" (%d are left)", save.Lazy)
		if save.Lazy == 0 {
			left = "the first lazily bound call of a library that it opens later (all others are bound)"
		}
	}
	instruction := strings.ToUpper(string(save.Kind))
	end, ok := ComponentsEnd(host)
	room := save.Size - facts.SaveOffset
	over := end - room
	written, _ := xsavecEnd(host, sub.target.filled())
	switch {
	case known && !has && sure && save.Lazy > 0:
		sub.find(0, "lazy binding saves registers with %s, which %s lacks: the program dies of SIGILL at %s", instruction, hostName(host), left).
			about(string(save.Kind)).mend(Remedy{HostWith, []string{string(save.Kind)}}, Remedy{Kind: BindNow}, Remedy{Kind: Level})
	case known && !has:
		sub.find(0, "lazy binding saves registers with %s, which %s lacks: it would die of SIGILL at %s", instruction, hostName(host), left).as(Note).
			about(string(save.Kind))
	case !known:
		sub.find(0, "lazy binding saves registers with %s, and nothing is recorded of whether %s has it", instruction, hostName(host)).as(Note)
	case !ok:
		sub.find(0, "lazy binding saves registers into %d bytes; how much %s writes there is not recorded", room, hostName(host)).as(Note)
	case save.Kind == facts.XSaveC && written > room:
		sub.find(0, "lazy binding saves registers with XSAVEC into a buffer of %d bytes that was sized when the program started, and CRIU before %v "+
			"restores every component of %s as in use, so that it writes %d: %s overruns it by %d bytes and corrupts the stack",
			room, since[followsBV], hostName(host), written, left, written-room).as(Risky).
			mend(Remedy{Kind: NewerCRIU}, Remedy{Kind: HostSmaller}, Remedy{Kind: BindNow}, Remedy{Kind: Level})
	case over <= 0:
	case save.Kind == facts.XSaveC:
		sub.find(0, "lazy binding has a buffer of %d bytes, and the components of %s end at %d: harmless, since XSAVEC writes only what is in use, "+
			"and what the source lacks stays in INIT", room, hostName(host), end).as(Note)
	default:
		sub.find(0, "lazy binding saves registers with XSAVE into a buffer of %d bytes that was sized when the program started, and %s writes %d: "+
			"%s overruns it by %d bytes and corrupts the stack", room, hostName(host), end, left, over).as(Risky).
			mend(Remedy{Kind: HostSmaller}, Remedy{Kind: BindNow}, Remedy{Kind: Level})
	}
}

// owns finds the objects with code of their own that the host cannot run. What asks CPUID
// has chosen nothing that the source lacked.
func (sub *subject) owns(asksCPUID bool, format string) {
	for _, o := range sub.task.Objects {
		if o.Own == nil || o.Own.AsksCPUID != asksCPUID {
			continue
		}
		missing, _ := lacks(sub.target.Host, o.Own.Needs)
		if src := sub.task.Source; asksCPUID && src != nil && src.CPU != nil {
			missing = slices.DeleteFunc(missing, func(name string) bool { return !slices.Contains(src.CPU.Flags, name) })
		}
		if len(missing) > 0 {
			sub.find(0, format, base(o), strings.Join(missing, " "), hostName(sub.target.Host)).about(missing...).
				mend(Remedy{HostWith, missing}, Remedy{Kind: StartAnew})
		}
	}
}

func (sub *subject) ownDispatch() {
	sub.owns(true, "%s asks CPUID itself and holds code that needs %s, which %s lacks: what it chose when it started, it may run on")
}

// hwcaps returns the level that a library is compiled for, by the place where glibc looks
// for such (elf/dl-hwcaps.c).
func hwcaps(file string) (*xstate.CPU, bool) {
	_, below, _ := strings.Cut(file, "/glibc-hwcaps/")
	level, _, _ := strings.Cut(below, "/")
	return xstate.ByName(level)
}

func (sub *subject) compiledISA() {
	host := sub.target.Host
	sub.owns(false, "%s holds code that needs %s, which %s lacks, and never asks CPUID: it is compiled for such CPUs, or its callers choose")
	for _, o := range sub.task.Objects {
		level, ok := hwcaps(o.Path)
		if !ok {
			continue
		}
		if missing, _ := lacks(host, level.Flags); len(missing) > 0 {
			sub.find(0, "%s is the build for %s, and %s lacks %s", o.Path, level.Name, hostName(host), strings.Join(missing, " ")).about(missing...).
				mend(Remedy{HostWith, missing}, Remedy{Kind: StartAnew})
		}
	}
	// The vector ABI: whoever calls such a function passes YMM or ZMM registers
	// (glibc, sysdeps/x86_64/fpu/Versions).
	for _, v := range []struct{ prefix, needs string }{{"_ZGVc", "avx"}, {"_ZGVd", "avx2"}, {"_ZGVe", "avx512f"}} {
		var bound []string
		for _, t := range sub.task.Targets {
			for _, name := range t.Functions {
				if strings.HasPrefix(name, v.prefix) {
					bound = union(bound, []string{name})
				}
			}
		}
		if missing, _ := lacks(host, []string{v.needs}); len(bound) > 0 && len(missing) > 0 {
			sub.find(0, "code that calls %s is bound to it, so it is compiled for %s, which %s lacks", some(bound), v.needs, hostName(host)).
				about(missing...).mend(Remedy{HostWith, missing}, Remedy{Kind: StartAnew})
		}
	}
}

func (sub *subject) cachedCPUID() {
	kept := map[*facts.Object][]string{}
	for _, c := range sub.task.Caches {
		kept[c.Object] = union(kept[c.Object], lacksISA(sub.target.Host, c.Flags))
	}
	for _, o := range sub.task.Objects {
		if missing := kept[o]; len(missing) > 0 {
			sub.find(0, "%s keeps what CPUID said when the program started, with %s, which %s lacks: code that asks there takes the wrong way",
				base(o), strings.Join(missing, " "), hostName(sub.target.Host)).about(missing...).
				mend(Remedy{HostWith, missing}, Remedy{Kind: StartAnew})
		}
	}
}

// jitCode is silent where the host has all that the source had.
func (sub *subject) jitCode() {
	p := sub.task
	if len(p.Areas) == 0 {
		return
	}
	var size uint64
	for _, a := range p.Areas {
		size += a.End - a.Start
	}
	var missing []string
	lacking := "some CPU features that the source may have had"
	if p.Source != nil && p.Source.CPU != nil {
		if missing = lacksISA(sub.target.Host, p.Source.CPU.Flags); len(missing) == 0 {
			return
		}
		lacking = strings.Join(missing, " ")
	} else if sub.target.Host.Flags == nil {
		return
	}
	sub.find(0, "%d KiB of anonymous executable memory: code that the program made for its CPU, and %s lacks %s",
		size/1024, hostName(sub.target.Host), lacking).about(append([]string{}, missing...)...).mend(Remedy{Kind: StartAnew})
}

// codeUnknown says what the others did not look at.
func (sub *subject) codeUnknown() {
	p := sub.task
	var parts []string
	severity, remedies := Note, []Remedy(nil)
	if !p.Rooted {
		parts, remedies = append(parts, "the code was not checked, for want of its ELF files"), []Remedy{{Kind: GiveRoot}}
	} else {
		parts = sub.unproven(parts)
	}
	for _, u := range p.Unknowns {
		if u.Topic == facts.Libc && p.Rooted {
			severity = Risky
		}
		part := u.Reason
		if u.Object != nil {
			part = base(u.Object) + ": " + part
		}
		if u.TID != 0 {
			part = fmt.Sprintf("thread %d: %s", u.TID, part)
		}
		if !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	var silent, incomplete []string
	for _, t := range p.Targets {
		_, unknown := lacks(sub.target.Host, t.Needs)
		silent = union(silent, unknown)
		if t.Incomplete != "" {
			incomplete = union(incomplete, []string{fmt.Sprintf("%s%s: %s", base(t.Object), within(t.Functions), t.Incomplete)})
		}
	}
	if len(silent) > 0 {
		parts = append(parts, fmt.Sprintf("its functions need %s, and nothing is recorded of whether %s has that", strings.Join(silent, " "), hostName(sub.target.Host)))
	}
	if len(incomplete) > 0 {
		parts = append(parts, "not decoded to the end: "+some(incomplete))
	}
	if len(parts) > 0 {
		sub.find(0, "%s", strings.Join(parts, "; ")).as(severity).about(silent...).mend(remedies...)
		if silent == nil {
			sub.findings[len(sub.findings)-1].Features = []string{}
		}
	}
}

func within(functions []string) string {
	if len(functions) == 0 {
		return ""
	}
	return " (" + functions[0] + ")"
}

// unproven adds the objects that were not looked at, by the reason.
func (sub *subject) unproven(parts []string) []string {
	for _, s := range []struct {
		status facts.Status
		words  string
	}{
		{facts.Missing, "not found below the roots"},
		{facts.Differs, "not the file that was mapped: it has another build-id"},
		{facts.NoBuildID, "without a build-id, so nothing proves the file"},
		{facts.Unread, "not read"},
	} {
		var names []string
		for _, o := range sub.task.Objects {
			if o.Status == s.status {
				names = union(names, []string{base(o)})
			}
		}
		if len(names) > 0 {
			parts = append(parts, some(names)+": "+s.words)
		}
	}
	return parts
}

func (sub *subject) sourceInferred() {
	c := sub.machine()
	if sub.source != nil || c == nil {
		return
	}
	var words []string
	if c.Vendor != "" {
		words = append(words, c.Vendor)
	}
	for _, n := range []struct {
		name string
		v    *int
	}{{"family", c.Family}, {"model", c.Model}, {"stepping", c.Stepping}} {
		if n.v != nil {
			words = append(words, fmt.Sprintf("%s %d", n.name, *n.v))
		}
	}
	sub.find(0, "the CPU that the checkpoint was taken on, as glibc recorded it when the programs started: %s", strings.Join(words, " "))
}
