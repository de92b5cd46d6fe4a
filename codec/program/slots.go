package program

import (
	"cmp"
	"debug/elf"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/isa"
)

// exports are the IFUNCs that an object has: what programs call, and the resolvers that
// choose what they get.
type exports struct {
	// ifuncs are the functions of the name of an IFUNC, all versions of it.
	ifuncs map[string][]definition
	// resolvers are the names of each resolver, by its address as linked.
	resolvers map[uint64][]string
}

// definition is a version of a function, at an address as linked: that of a resolver if
// it is an IFUNC.
type definition struct {
	version
	addr  uint64
	ifunc bool
}

// ifuncs reads the dynamic symbols of a file.
func (f *file) ifuncs() *exports {
	if f.exports != nil {
		return f.exports
	}
	e := &exports{ifuncs: map[string][]definition{}, resolvers: map[uint64][]string{}}
	f.exports = e
	if f.obj == nil {
		return e
	}
	for i := range f.obj.symbolCount() {
		if s, _ := f.obj.symbol(i); s.kind == elf.STT_GNU_IFUNC && s.index != elf.SHN_UNDEF {
			name := f.obj.name(s.name)
			e.ifuncs[name] = append(e.ifuncs[name], definition{f.obj.version(i), s.value, true})
			if !slices.Contains(e.resolvers[s.value], name) {
				e.resolvers[s.value] = append(e.resolvers[s.value], name)
			}
		}
	}
	if len(e.ifuncs) == 0 {
		return e
	}
	for i := range f.obj.symbolCount() {
		if s, _ := f.obj.symbol(i); s.kind == elf.STT_FUNC && s.index != elf.SHN_UNDEF {
			if text := f.obj.text(s.name); e.ifuncs[string(text)] != nil {
				name := string(text)
				e.ifuncs[name] = append(e.ifuncs[name], definition{f.obj.version(i), s.value, false})
			}
		}
	}
	return e
}

// choosing yields the addresses as linked of the resolvers that choose what serves a
// reference.
func (e *exports) choosing(name string, want version) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for _, d := range e.ifuncs[name] {
			if d.ifunc && d.fits(want) && !yield(d.addr) {
				return
			}
		}
	}
}

// slot is a word that holds the address of a function.
type slot struct {
	addr   uint64
	kind   elf.R_X86_64
	module *module // that has it
	value  uint64
	addend uint64   // of its relocation
	names  []string // of the IFUNC that chose it; none if it has no name
	wants  version  // of the reference, if it is one by a name
}

// String is where the slot is, and what it is for.
func (s *slot) String() string {
	text := fmt.Sprintf("%#x", s.addr)
	if names := publicNames(slices.Clone(s.names)); len(names) > 0 {
		text += " for " + names[0]
	}
	return text
}

// slots returns the words of the process that hold what an IFUNC has chosen, the vDSO's
// functions left out, and how many wait for lazy binding.
func (p *process) slots() (slots []slot, lazy int) {
	for s := range p.bound {
		switch {
		case s.module == nil:
			lazy++
		case s.kind == elf.R_X86_64_IRELATIVE || p.chosen(&s):
			slots = append(slots, s)
		case !p.defines(s.names[0], s.value):
			p.unknown(facts.Code, s.module.fact, "its slot %v holds %#x, where nothing of that name is", &s, s.value)
		}
	}
	return slots, lazy
}

// bound yields the words that the loader fills in with functions, those of the vDSO left
// out: by IRELATIVE, and by the name of an IFUNC. One that waits for lazy binding,
// whatever its name, is yielded without a module.
func (p *process) bound(yield func(slot) bool) {
	ifuncs := map[string]bool{}
	for _, m := range p.modules {
		for name := range m.ifuncs().ifuncs {
			ifuncs[name] = true
		}
	}
	for _, m := range p.modules {
		if m.obj == nil {
			continue
		}
		for r := range m.obj.relocations {
			s := slot{addr: m.bias + r.at, kind: r.kind, module: m, addend: r.addend}
			switch r.kind {
			case elf.R_X86_64_IRELATIVE:
				s.names = m.ifuncs().resolvers[r.addend]
			case elf.R_X86_64_JMP_SLOT, elf.R_X86_64_GLOB_DAT, elf.R_X86_64_64:
				sym, ok := m.obj.symbol(r.symbol)
				if !ok {
					continue
				}
				name := m.obj.name(sym.name)
				if r.kind != elf.R_X86_64_JMP_SLOT && !ifuncs[name] {
					continue
				}
				s.names, s.wants = []string{name}, m.obj.version(r.symbol)
			default:
				continue
			}
			var known bool
			if s.value, known = p.word(s.addr); !known {
				p.unknown(facts.Code, m.fact, "its slots lie in pages that are not there: %v", p.mem.State(s.addr))
				continue
			}
			switch {
			case s.value == 0 || s.value >= p.vdso[0] && s.value < p.vdso[1]:
				continue
			case s.kind == elf.R_X86_64_JMP_SLOT && m.unbound(r.at, s.value):
				s.module = nil
			case s.kind != elf.R_X86_64_IRELATIVE && !ifuncs[s.names[0]]:
				continue
			}
			if !yield(s) {
				return
			}
		}
	}
}

// unbound reports whether a slot has the value that the linker gave it, which leads to
// lazy binding.
func (m *module) unbound(at, value uint64) bool {
	if value < m.start || value >= m.end {
		return false
	}
	var b [8]byte
	return m.obj.readAt(b[:], at) == len(b) && le64(b[:])+m.bias == value
}

// chosen reports whether a slot holds what an IFUNC of its name chose: it is code of the
// object that has the IFUNC, and not another version of the name.
func (p *process) chosen(s *slot) bool {
	m := p.moduleAt(s.value)
	if m == nil || m.obj == nil {
		return false
	}
	e, name := m.ifuncs(), s.names[0]
	for range e.choosing(name, s.wants) {
		return !slices.ContainsFunc(e.ifuncs[name], func(d definition) bool { return !d.ifunc && d.addr == s.value-m.bias })
	}
	return false
}

// defines reports whether a file that is not unknown has a symbol of the name at the
// address: another version, one that comes before the libc's, or the PLT of a program
// that is linked to an address.
func (p *process) defines(name string, addr uint64) bool {
	m := p.moduleAt(addr)
	if m == nil {
		return false
	}
	if m.obj == nil {
		return true
	}
	for i := range m.obj.symbolCount() {
		if s, _ := m.obj.symbol(i); s.value == addr-m.bias && m.obj.name(s.name) == name {
			return true
		}
	}
	return false
}

// findTargets finds the functions that slots hold, and what they need.
func (p *process) findTargets() {
	p.Targets = []facts.Target{}
	slots, lazy := p.slots()
	p.confirm(slots)
	byAddr := map[uint64]*facts.Target{}
	for _, s := range slots {
		t := byAddr[s.value]
		if t == nil {
			t = &facts.Target{Address: s.value}
			byAddr[s.value] = t
		}
		t.Slots++
		for _, name := range s.names {
			if !slices.Contains(t.Functions, name) {
				t.Functions = append(t.Functions, name)
			}
		}
	}
	for _, addr := range slices.Sorted(maps.Keys(byAddr)) {
		t := byAddr[addr]
		t.Functions = publicNames(t.Functions)
		if m := p.moduleAt(addr); m != nil {
			t.Object = m.fact
			if m.obj != nil {
				r := m.reached(addr - m.bias)
				t.Needs, t.Incomplete = flagNames(r.features), r.incomplete
			}
		}
		p.Targets = append(p.Targets, *t)
	}
	p.findSave(lazy)
}

// publicNames sorts names, and leaves out those of the implementation where there are
// others.
func publicNames(names []string) []string {
	internal := func(name string) bool { return strings.HasPrefix(name, "_") }
	if slices.ContainsFunc(names, func(name string) bool { return !internal(name) }) {
		names = slices.DeleteFunc(names, internal)
	}
	slices.SortFunc(names, cmp.Compare[string])
	return names
}

// reached is what the function at an address as linked needs; a file is asked once.
func (f *file) reached(entry uint64) reach {
	r, ok := f.reaches[entry]
	if !ok {
		r = f.reach(entry, (*isa.Inst).Features)
		f.reaches[entry] = r
	}
	return r
}

// findSave finds the trampoline of lazy binding: the third word of .got.plt, which the
// loader fills in, and what it saves registers with.
func (p *process) findSave(lazy int) {
	if p.Source == nil {
		return
	}
	for _, m := range p.modules {
		if m.obj == nil || m.obj.dynamic.pltgot == 0 {
			continue
		}
		at, known := p.word(m.bias + m.obj.dynamic.pltgot + 16)
		if !known || at == 0 {
			continue
		}
		ld := p.moduleAt(at)
		if ld == nil || ld.obj == nil {
			continue
		}
		p.Save = &facts.Save{Kind: facts.FXSave, Lazy: lazy}
		names := flagNames(ld.reached(at - ld.bias).features)
		switch {
		case slices.Contains(names, "xsavec"):
			p.Save.Kind = facts.XSaveC
		case slices.Contains(names, "xsave"):
			p.Save.Kind = facts.XSave
		default:
			return
		}
		p.Save.Size = int(p.Source.SaveSize)
		return
	}
}
