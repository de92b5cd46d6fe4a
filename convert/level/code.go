package level

import (
	"bytes"
	"path"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/isa"
	"github.com/fpuimg/fpuimg/codec/program"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

func base(o *facts.Object) string { return path.Base(o.Path) }

// returns refuses threads whose callers are in code that the host cannot run. A thread
// that waits in a system call has none such: what an IFUNC chooses makes none. What a
// call that has returned has left on the stack counts too.
func (t *task) returns() {
	for i, th := range t.Process.Threads {
		waits := th.Syscall != "" && !slices.ContainsFunc(th.Frames, func(f facts.Frame) bool { return f.Live })
		regs := t.threads[i].GPRegs
		if waits || regs == nil {
			continue
		}
		objects := map[*facts.Object]bool{}
		for _, c := range t.choices {
			objects[c.Object] = true
		}
		seen := map[uint64]bool{}
		for _, o := range t.Objects {
			if !objects[o] {
				continue
			}
			for at := range t.Calls(regs[regSP], o) {
				if seen[at] {
					continue
				}
				seen[at] = true
				if missing := slices.DeleteFunc(t.plan.lacks(t.Reaches(at)), guarded); len(missing) > 0 {
					t.refuseThread(th.TID, ThreadInCode, o, "it may return to %s, where code needs %s", t.Place(at), some(missing))
					break
				}
			}
		}
	}
}

// own refuses objects whose code the host cannot run, and that no IFUNC chooses.
func (t *task) own() {
	t.Sweep()
	lacks := t.lacking()
	for _, o := range t.Objects {
		if o.Own == nil {
			continue
		}
		missing := t.gone(o.Own.Needs)
		switch {
		case len(missing) == 0:
			continue
		case !o.Own.AsksCPUID:
			t.refuse(CompiledISA, o, "it holds code that needs %s, and never asks CPUID: it is compiled for such CPUs, or its callers choose", some(missing))
			continue
		case isOpenSSL(o):
			// It looks at its record each time, but for what it has set up.
		case slices.ContainsFunc(missing, chosen):
			t.refuse(OwnDispatch, o, "it asks CPUID itself and holds code that needs %s: what it chose when it started, it may run on", some(missing))
			continue
		}
		d := dispatch{t.Dispatch(o, lacks), nil}
		if wide := lacks.And(isa.AVX512); wide != (isa.Features{}) {
			d.wide = t.Dispatch(o, wide)
		}
		if !d.Empty() {
			t.dispatches = append(t.dispatches, d)
		}
	}
}

// dispatch is an object with functions that the host cannot run.
type dispatch struct {
	*program.Dispatch
	// wide is the same for AVX-512 alone; nil if the host has that. Its functions are never
	// in a table that serves all CPUs, as others are.
	wide *program.Dispatch
}

// lacking are the features that the host lacks.
func (t *task) lacking() (set isa.Features) {
	for f := range isa.AllFeatures() {
		if !guarded(f.String()) && len(t.plan.lacks([]string{f.String()})) > 0 {
			set = set.With(f)
		}
	}
	return set
}

// guarded reports whether instructions of a feature stand behind a flag that the kernel
// sets, in code that every program has: shadow stacks, protection keys.
func guarded(name string) bool { return name == "shstk" || name == "pku" }

// chosen reports whether a feature is one that programs choose code by when they start:
// vectors, and transactions. What is asked for at each use, such as RDRAND, does not count.
func chosen(name string) bool {
	for f := range isa.Vector.With(isa.RTM).All() {
		if f.String() == name {
			return true
		}
	}
	return false
}

func isOpenSSL(o *facts.Object) bool { return strings.HasPrefix(base(o), "libcrypto.so") }

// maxKnown bounds what is remembered of words.
const maxKnown = 1 << 16

// kept looks whether a word of memory keeps the choice of such a function, by what it
// points to. On a stack it may be what was called last.
func (t *task) kept(addr, value uint64) {
	if t.harmless[value] {
		return
	}
	chosen := false
	for i, d := range t.dispatches {
		if t.told[i] {
			continue
		}
		if d.Static(addr, value) {
			chosen = true // elsewhere it is not
			continue
		}
		switch {
		case d.Chosen(value):
			t.refuse(OwnDispatch, d.Object, "memory at %#x holds the function at %s, which needs what the host lacks", addr, t.Place(value))
		case d.wide != nil && d.wide.Table(value):
			t.refuse(OwnDispatch, d.Object, "memory at %#x leads to functions by %s, which need AVX-512", addr, t.Place(value))
		default:
			continue
		}
		t.told[i], chosen = true, true
	}
	if !chosen && len(t.harmless) < maxKnown {
		t.harmless[value] = true
	}
}

// static refuses a static program that holds code which the host cannot run, besides what
// its IFUNCs may have chosen.
func (t *task) static(chose map[uint64][]*choice) {
	if t.Dynamic() {
		return
	}
	var entries []uint64
	for addr := range chose {
		entries = append(entries, addr)
	}
	needs := t.Besides(entries)
	if missing := t.gone(needs); len(missing) > 0 {
		t.refuse(CompiledISA, t.Loader(), "it holds code that needs %s, which no IFUNC chooses", some(missing))
	}
}

// running refuses threads that are in code which the host cannot run, or which may have
// read what changes.
func (t *task) running() {
	for _, th := range t.Process.Threads {
		where := "anonymous memory"
		if th.Object != nil {
			where = base(th.Object)
		}
		if th.Symbol != "" {
			where = th.Symbol + " of " + where
		}
		switch missing := t.plan.lacks(th.Needs); {
		case len(missing) > 0:
			t.refuseThread(th.TID, ThreadInCode, th.Object, "it is in %s, at %#x, and on its way out of there is code that needs %s", where, th.IP, strings.Join(missing, " "))
		case th.Object == nil && t.inArea(th.IP):
			t.refuseThread(th.TID, ThreadInCode, nil, "it is in code that the program made, at %#x", th.IP)
		case th.Incomplete != "" && th.Object.Status == facts.OK:
			t.refuseThread(th.TID, ThreadInCode, th.Object, "it is in %s, at %#x, and it is not known what code is on its way out of there: %s", where, th.IP, th.Incomplete)
		}
	}
}

// loading refuses threads that are in the dynamic loader, or wait for what it binds: it
// may hold what it has read of glibc's record, or of a slot.
func (t *task) loading() {
	loader := t.Loader()
	if !t.Dynamic() || loader == nil {
		return
	}
	for i, th := range t.Process.Threads {
		if th.Object == loader {
			t.refuseThread(th.TID, ThreadInLoader, loader, "it is in the dynamic loader, at %#x", th.IP)
			continue
		}
		for _, c := range t.choices {
			if t.SameFunction(c.Address, th.IP) {
				t.refuseThread(th.TID, ThreadInLoader, th.Object, "it is in a resolver, at %#x", th.IP)
			}
		}
		if regs := t.threads[i].GPRegs; regs != nil {
			for at := range t.Calls(regs[regSP], loader) {
				if !slices.ContainsFunc(t.saves, func(f program.SaveFunction) bool { return f.Address <= at && at < f.End }) {
					continue // a call that has returned may have left it
				}
				t.refuseThread(th.TID, ThreadInLoader, loader, "a function is being bound for it, from %s", t.Place(at))
				break
			}
		}
	}
}

func (t *task) inArea(ip uint64) bool {
	return slices.ContainsFunc(t.Areas, func(a facts.Area) bool { return a.Start <= ip && ip < a.End })
}

// elides refuses a process whose glibc runs locks as transactions: a tunable makes it
// (glibc, nptl/elision-conf.c or sysdeps/unix/sysv/linux/x86/elision-conf.c).
func (t *task) elides() {
	if len(t.gone([]string{"rtm"})) == 0 {
		return
	}
	for variable := range bytes.SplitSeq(t.mem.Environ(), []byte{0}) {
		tunables, ok := bytes.CutPrefix(variable, []byte("GLIBC_TUNABLES="))
		if !ok {
			continue
		}
		for tunable := range bytes.SplitSeq(tunables, []byte(":")) {
			if value, ok := bytes.CutPrefix(tunable, []byte("glibc.elision.enable=")); ok && len(bytes.Trim(value, "0x")) > 0 {
				t.refuse(InUse, nil, "%s in its environment: its locks are transactions, for which rtm is missing", tunable)
			}
		}
	}
}

// paths refuses libraries, mapped or to be opened later, that are built for more than the
// host: glibc made the list of the places where it looks for them when it started
// (elf/dl-hwcaps.c).
func (t *task) paths() {
	above := func(name string) []string {
		level, ok := xstate.ByName(name)
		if !ok {
			return nil
		}
		return t.plan.lacks(level.Flags)
	}
	dirs := map[string]bool{}
	for _, o := range t.Objects {
		before, below, found := strings.Cut(o.Path, "/glibc-hwcaps/")
		level, _, _ := strings.Cut(below, "/")
		if missing := above(level); found && len(missing) > 0 {
			t.refuse(HWCapsPath, o, "it is the build for %s, and %s is missing", level, some(missing))
		}
		if !found {
			before = path.Dir(o.Path)
		}
		dirs[before] = true
	}
	if t.Loader() == nil || !t.Dynamic() {
		return
	}
	for _, dir := range []string{"/lib", "/usr/lib", "/lib64", "/usr/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"} {
		dirs[dir] = true
	}
	for _, dir := range sorted(dirs) {
		for n, level := range xstate.LevelNames() {
			if len(above(level)) == 0 || !t.lessens() && t.Source.ISALevel <= n {
				continue // or glibc does not look there
			}
			at := path.Join(dir, "glibc-hwcaps", level)
			if t.plan.options.Roots.HasFiles(at) {
				t.refuse(HWCapsPath, &facts.Object{Path: at}, "libraries there are built for %s, and the program would open them", level)
			}
		}
	}
}

func sorted(set map[string]bool) (list []string) {
	for name := range set {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}
