package level

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/memory"
	"github.com/fpuimg/fpuimg/codec/program"
)

// task is a process while it is planned.
type task struct {
	Task
	*program.Process
	mem      *memory.Memory
	plan     *Plan
	threads  []codec.Thread
	progress func(n int64)
	unproven bool // the file of an object is not known

	had, goal *program.Features // glibc's record, as it is and as it is to be
	choices   map[uint64]*choice
	matches   map[uint64]match
	planned   map[uint64]bool // addresses of words
	saves     []program.SaveFunction

	dispatches []dispatch
	told       map[int]bool    // of dispatches
	harmless   map[uint64]bool // words that keep no choice
}

// choice is what a resolver chose, and what it would on the host.
type choice struct {
	program.Resolver
	from, to uint64
	err      error // why it could not be run
}

// match is what becomes of the address of a function.
type match struct {
	what      What
	to        uint64
	ambiguous bool
}

// errNone is a resolver that chooses nothing, a hook of the loader, or what the kernel maps.
var errNone = errors.New("it chooses no function of an object")

// level plans one process.
func (t *task) level() error {
	if !t.present() {
		return nil
	}
	for _, th := range t.threads {
		if th.State != nil && th.State.Compat {
			t.refuseThread(th.TID, Task32Bit, nil, "it is a 32-bit process, whose code is not decoded")
			return nil
		}
	}
	proven := t.proven()
	t.areas()
	t.paths()
	t.own()
	t.running()
	t.had = t.Features()
	t.matches, t.planned = map[uint64]match{}, map[uint64]bool{}
	t.told, t.harmless = map[int]bool{}, map[uint64]bool{}
	switch {
	case t.Libc == "musl":
		t.frames()
		t.Idle = "musl chooses no functions by the CPU"
		return nil
	case t.had == nil && t.Records > 1:
		t.refuse(Ambiguous, t.Loader(), "%d places look like glibc's record of the CPU", t.Records)
		return nil
	case t.had == nil && t.hasGlibc():
		t.refuse(GlibcUnknown, t.Loader(), "glibc's record of the CPU was not found in its data")
		return nil
	case t.had == nil:
		t.frames()
		t.Idle = "there is no libc that chooses functions by the CPU"
		return nil
	case !t.had.Known():
		t.refuse(GlibcUnknown, t.Loader(), "a glibc before 2.29, which is not known well enough")
		return nil
	case !proven:
		return nil // what follows asks the files
	}
	t.elides()
	t.goal = t.had.On(t.plan.options.Host)
	t.saves = t.SaveFunctions()
	t.saving()
	if !t.choose() {
		return nil
	}
	t.loading()
	t.returns()
	t.features()
	t.slots()
	t.vectors()
	t.frames()
	t.union()
	t.shared()
	if err := t.scan(); err != nil {
		return err
	}
	t.generals()
	slices.SortFunc(t.Words, func(a, b Word) int { return cmp.Compare(a.Address, b.Address) })
	return nil
}

// present refuses a process of whose memory a part is not in this checkpoint.
func (t *task) present() bool {
	if addr, ok := t.mem.Inherited(); ok {
		t.refuse(PagesElsewhere, nil, "its memory at %#x is in an older dump, which this one stands on", addr)
		return false
	}
	for _, v := range t.mem.VMAs() {
		for r := range t.mem.Ranges(v.Start, v.End) {
			switch r.State {
			case memory.Compressed:
				t.refuse(PagesCompressed, nil, "its pages are compressed by CRIU, and cannot be changed where they lie")
				return false
			case memory.Lazy, memory.NoParent, memory.NoPages:
				t.refuse(PagesElsewhere, nil, "its memory at %#x is %v", r.Start, r.State)
				return false
			}
		}
	}
	return true
}

// proven reports whether the file of every object is known.
func (t *task) proven() bool {
	all := true
	for _, o := range t.Objects {
		switch {
		case o.Status == facts.OK:
			continue
		case o.Status == facts.Differs:
			t.refuse(ObjectDiffers, o, "%s", o.Reason)
		default:
			t.refuse(ObjectMissing, o, "%s", o.Reason)
		}
		all = false
	}
	t.unproven = !all
	return all
}

// areas refuses code that the program made, where the host has less than the CPU that it
// was made for.
func (t *task) areas() {
	if len(t.Areas) == 0 || !t.lessens() {
		return
	}
	var size uint64
	for _, a := range t.Areas {
		size += a.End - a.Start
	}
	t.refuse(JITCode, nil, "%d KiB of anonymous executable memory, the first at %#x: code that the program made for its CPU", size/1024, t.Areas[0].Start)
}

// lessens reports whether the host lacks an instruction set that the source has, or may
// have.
func (t *task) lessens() bool {
	return t.Source == nil || len(t.plan.lacksISA(t.Source.CPU.Flags)) > 0
}

// gone returns which of the features that code needs the host lacks, of those that the
// source may have had: what it had not, the program has not run.
func (t *task) gone(needs []string) []string {
	return slices.DeleteFunc(t.plan.lacks(needs), func(name string) bool {
		if guarded(name) {
			return true
		}
		had := true
		if t.Source != nil {
			if runs, known := t.Source.CPU.Executes(name); known {
				had = runs
			}
		}
		return !had
	})
}

// hasGlibc reports whether an object is a part of glibc, or has resolvers as a static
// program has: no other libc runs them.
func (t *task) hasGlibc() bool {
	return len(t.Resolvers()) > 0 || slices.ContainsFunc(t.Objects, func(o *facts.Object) bool {
		name := base(o)
		return strings.HasPrefix(name, "libc.so.6") || strings.HasPrefix(name, "libc-2.") || strings.HasPrefix(name, "ld-linux-x86-64.so")
	})
}

// maxResolvers bounds those of a process: glibc has some 250.
const maxResolvers = 1 << 12

// choose runs all resolvers, and reports whether what they say can be trusted.
func (t *task) choose() bool {
	t.choices = map[uint64]*choice{}
	targets := map[uint64]*choice{}
	sound := true
	resolvers := t.Resolvers()
	if len(resolvers) > maxResolvers {
		t.refuse(ResolverUnknown, nil, "%d resolvers are more than any program has", len(resolvers))
		return false
	}
	for _, r := range resolvers {
		c := &choice{Resolver: r}
		t.choices[r.Address] = c
		if c.from, c.err = t.Choose(r.Address, t.had); c.err == nil {
			c.to, c.err = t.Choose(r.Address, t.goal)
		}
		if c.err == nil && (c.from == 0 || t.InVDSO(c.from)) {
			c.err = errNone
		}
		switch {
		case errors.Is(c.err, errNone):
		case c.err == nil:
			targets[c.to] = c
		case len(r.Names) > 0 && !inVDSO(r.Names):
			t.refuse(ResolverUnknown, r.Object, "%s: %v", strings.Join(r.Names, ", "), c.err)
			sound = false
		}
	}
	for addr, c := range targets {
		if isVector(c.Names) { // it is a fault only where code calls it
			continue
		}
		needs, incomplete := t.Needs(addr)
		switch missing := t.plan.lacks(needs); {
		case len(missing) > 0:
			t.refuse(TargetUnfit, t.Object(addr), "%s would become %s, which needs %s", t.name(c), t.Place(addr), strings.Join(missing, " "))
			sound = false
		case incomplete != "":
			t.refuse(TargetUnfit, t.Object(addr), "%s would become %s, of which it is not known what it needs: %s", t.name(c), t.Place(addr), incomplete)
			sound = false
		}
	}
	return sound
}

func (t *task) name(c *choice) string {
	if len(c.Names) > 0 {
		return c.Names[0]
	}
	return "the function of " + t.Place(c.Address)
}

// inVDSO reports whether an IFUNC of glibc leads to the vDSO, which the kernel maps
// (sysdeps/unix/sysv/linux/x86/time.c, gettimeofday.c; up to 2.40).
func inVDSO(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return name == "time" || name == "gettimeofday" })
}

// isVector reports whether it is a function of libmvec whose callers pass YMM or ZMM
// registers.
func isVector(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return strings.HasPrefix(name, "_ZGVc") || strings.HasPrefix(name, "_ZGVd") || strings.HasPrefix(name, "_ZGVe")
	})
}

// word plans a word, once.
func (t *task) word(what What, addr uint64, from, to []byte, symbols ...uint64) {
	if t.planned[addr] || slices.Equal(from, to) {
		return
	}
	t.planned[addr] = true
	for i := range from {
		if at := addr + uint64(i); from[i] != to[i] && !t.mem.Dumped(at) {
			t.refuse(CopiesElsewhere, t.Object(at), "what has to change at %#x is in no image: it is %v", at, t.mem.State(at))
			return
		}
	}
	w := Word{Address: addr, What: what, From: from, To: to}
	if o := t.Object(addr); o != nil {
		w.Object = o.Path
	}
	if len(symbols) == 2 {
		w.SymbolFrom, w.SymbolTo = t.Place(symbols[0]), t.Place(symbols[1])
	}
	t.Words = append(t.Words, w)
}

// pointer plans a word that holds the address of a function.
func (t *task) pointer(what What, addr, from, to uint64) {
	t.word(what, addr, le64(from), le64(to), from, to)
}

func le64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// features plans glibc's record.
func (t *task) features() {
	save := t.had.SaveAddress()
	for _, w := range t.had.Diff(t.goal) {
		what := CPUFeatures
		if w.Address >= save && w.Address < save+8 {
			what = SaveSize
		}
		t.word(what, w.Address, w.Old, w.New)
	}
}

// slots checks every word that the loader has filled in, and plans it.
func (t *task) slots() {
	for s := range t.Process.Slots() {
		what := map[elf.R_X86_64]What{elf.R_X86_64_IRELATIVE: IRelative, elf.R_X86_64_64: Data}[s.Kind]
		if what == "" {
			what = GOT
		}
		name := s.Name
		if name == "" {
			name = "a function of its own"
		}
		var chose []*choice
		var failed error
		for _, r := range s.Resolvers {
			switch c := t.choices[r]; {
			case c.err != nil:
				failed = c.err
			case c.from == s.Value:
				chose = append(chose, c)
			}
		}
		switch {
		case len(chose) == 0 && (t.Plain(&s) || t.early(&s)):
		case len(chose) == 0 && failed != nil:
			t.refuse(ResolverUnknown, s.Object, "%s at %#x: %v", name, s.Address, failed)
		case len(chose) == 0:
			t.refuse(ResolverMismatch, s.Object, "%s at %#x holds %s, which is not what its resolver chooses", name, s.Address, t.Place(s.Value))
		default:
			if isVector([]string{s.Name}) {
				if needs, _ := t.Needs(s.Value); len(t.plan.lacks(needs)) > 0 {
					t.refuse(CompiledISA, s.Object, "it is bound to %s, so it is compiled for %s", s.Name, strings.Join(t.plan.lacks(needs), " "))
				}
			}
			to, ok := general(chose)
			if !ok {
				t.refuse(WordAmbiguous, s.Object, "%s at %#x could become %s or %s", name, s.Address, t.Place(chose[0].to), t.Place(to))
				continue
			}
			t.pointer(what, s.Address, s.Value, to)
		}
	}
}

// early reports whether a slot of a static program holds what a resolver chose before glibc
// knew the CPU, and that runs on the target: it stays.
func (t *task) early(s *program.Slot) bool {
	if t.Dynamic() {
		return false
	}
	needs, incomplete := t.Needs(s.Value)
	return len(t.plan.lacks(needs)) == 0 && incomplete == "" && slices.ContainsFunc(s.Resolvers, func(r uint64) bool {
		chosen, err := t.Choose(r, t.had.Empty())
		return err == nil && chosen == s.Value
	})
}

// general returns what becomes of a function that several resolvers chose. Where they
// would choose different ones, that of memmove serves, which may do what memcpy may; ok
// is false if there is none such, and the function is another one than the first.
func general(chose []*choice) (to uint64, ok bool) {
	to = chose[0].to
	same := true
	for _, c := range chose[1:] {
		if c.to != chose[0].to {
			to, same = c.to, false
		}
	}
	if same {
		return to, true
	}
	for _, checked := range []bool{false, true} {
		var moves *choice
		family := true
		for _, c := range chose {
			family = family && slices.ContainsFunc(c.Names, func(name string) bool { return isMove(name, "memcpy", checked) || isMove(name, "memmove", checked) })
			if slices.ContainsFunc(c.Names, func(name string) bool { return isMove(name, "memmove", checked) }) {
				moves = c
			}
		}
		if family && moves != nil {
			return moves.to, true
		}
	}
	return to, false
}

// isMove reports whether a name is that of a function, or of it with a check of sizes.
func isMove(name, function string, checked bool) bool {
	if checked {
		function = "__" + function + "_chk"
	}
	return name == function
}
