package program

import (
	"debug/elf"
	"slices"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/isa"
)

// findOwn looks for code of their own in the objects where it may matter, for that reads
// whole files: those that a thread runs in, those that keep CPUID's words or hold what
// IFUNCs chose, and a program without a libc of its own. glibc chooses all its code by
// IFUNC.
func (p *process) findOwn() {
	alone := len(p.modules) == 1 && p.Source == nil
	for _, m := range p.modules {
		static := p.Source != nil && m == p.loader() // glibc's choices are among its code
		if m.obj == nil || static || m.obj.isGlibc() || isMusl(m.fact.Path) {
			continue
		}
		if alone ||
			slices.ContainsFunc(p.Threads, func(t facts.Thread) bool { return t.Object == m.fact }) ||
			slices.ContainsFunc(p.Caches, func(c facts.Cache) bool { return c.Object == m.fact }) ||
			slices.ContainsFunc(p.Targets, func(t facts.Target) bool { return t.Object == m.fact }) {
			m.sweep()
		}
	}
}

// A stretch of instructions outside all functions is code where so many of so many are
// vector instructions: read-only data decodes to one by chance. Of a file that describes
// no functions, as Go's, all counts.
const (
	window = 32
	dense  = 8
)

// sweep reads all code of a file, once.
func (f *file) sweep() {
	if f.swept {
		return
	}
	f.swept = true
	var s sweeper
	functions := f.obj.functions().all()
	for _, sec := range f.obj.codeSections() {
		code := f.obj.table(sec.Addr, sec.Size)
		at := sec.Addr
		i, _ := slices.BinarySearchFunc(functions, sec.Addr, func(fn function, addr uint64) int { return int(int64(fn.start - addr)) })
		for end := sec.Addr + uint64(len(code)); at < end; i++ {
			fn := function{end, end}
			if i < len(functions) && functions[i].start < end {
				fn = functions[i]
			}
			if fn.start > at {
				s.code(code[at-sec.Addr:fn.start-sec.Addr], len(functions) == 0)
				at = fn.start
			}
			if to := min(fn.end, end); to > at {
				s.code(code[at-sec.Addr:to-sec.Addr], true)
				at = to
			}
		}
	}
	if needs := flagNames(s.features); len(needs) > 0 {
		f.fact.Own = &facts.Own{Needs: needs, AsksCPUID: s.cpuid}
	}
}

// codeSections lists where the code of a file is: a file without sections has segments.
func (o *object) codeSections() (list []elf.SectionHeader) {
	for _, s := range o.sections {
		if s.Flags&elf.SHF_EXECINSTR != 0 && s.Type != elf.SHT_NOBITS && s.Size <= maxTable {
			list = append(list, s)
		}
	}
	if list == nil {
		for _, p := range o.loads {
			if p.Flags&elf.PF_X != 0 {
				list = append(list, elf.SectionHeader{Addr: p.Vaddr, Size: min(p.Filesz, maxTable)})
			}
		}
	}
	return list
}

type sweeper struct {
	features isa.Features
	cpuid    bool
}

// code decodes instructions one after the other. known tells that it is a function; else
// what looks like vector code counts only where it is dense.
func (s *sweeper) code(b []byte, known bool) {
	var run isa.Features
	n, vectors := 0, 0
	for len(b) > 0 {
		i, ok := isa.Decode(b)
		if !ok {
			b, n, vectors, run = b[1:], 0, 0, isa.Features{}
			continue
		}
		b = b[i.Len:]
		s.cpuid = s.cpuid || i.Map == isa.Map0F && i.Op == 0xa2
		if known {
			s.features = s.features.Or(i.Faults())
			continue
		}
		if i.Map >= isa.VEX1 {
			vectors++
			run = run.Or(i.Faults())
		}
		if n++; n == window {
			if vectors >= dense {
				s.features = s.features.Or(run)
			}
			n, vectors, run = 0, 0, isa.Features{}
		}
	}
}
