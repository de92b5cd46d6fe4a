package program

import (
	"cmp"
	"debug/elf"
	"runtime"
	"slices"
	"sync"

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

// sweepAtOnce is how much code is read at once, in bytes, if functions are no larger.
const sweepAtOnce = 256 << 10

// sweep reads all code of a file, once, and decodes it on all CPUs.
func (f *file) sweep() {
	if f.swept {
		return
	}
	f.swept = true
	var (
		all  sweeper
		mu   sync.Mutex
		wait sync.WaitGroup
		free = make(chan struct{}, runtime.GOMAXPROCS(0))
	)
	functions, choices := f.obj.functions().all(), f.choices()
	described := len(functions) > 0
	for _, sec := range f.obj.codeSections() {
		i, _ := slices.BinarySearchFunc(functions, sec.Addr, func(fn function, addr uint64) int { return cmp.Compare(fn.start, addr) })
		for at, end := sec.Addr, sec.Addr+sec.Size; at < end; {
			// A part ends where a function begins.
			to, first, reached := end, i, at
			for ; i < len(functions) && functions[i].start < end; i++ {
				if fn := functions[i]; fn.start >= reached && fn.start-at >= sweepAtOnce {
					to = fn.start
					break
				}
				reached = max(reached, functions[i].end)
			}
			code, from, in := f.obj.table(at, to-at), at, functions[first:i]
			free <- struct{}{}
			wait.Go(func() {
				s := sweeper{choices: choices}
				s.part(code, from, in, described)
				mu.Lock()
				all.features, all.cpuid = all.features.Or(s.features), all.cpuid || s.cpuid
				mu.Unlock()
				<-free
			})
			at = to
		}
	}
	wait.Wait()
	if needs := flagNames(all.features); len(needs) > 0 {
		f.fact.Own = &facts.Own{Needs: needs, AsksCPUID: all.cpuid}
	}
}

// part decodes code that lies at an address, with the functions that begin in it.
func (s *sweeper) part(code []byte, at uint64, functions []function, described bool) {
	from := at
	end := at + uint64(len(code))
	for i := 0; at < end; i++ {
		fn := function{end, end}
		if i < len(functions) && functions[i].start < end {
			fn = functions[i]
		}
		if fn.start > at {
			s.code(code[at-from:fn.start-from], !described)
			at = fn.start
		}
		if to := min(fn.end, end); to > at {
			before := s.features
			if s.code(code[at-from:to-from], true); s.choices[fn.start] {
				s.features = before
			}
			at = to
		}
	}
}

// codeSections lists where the code of a file is: a file without sections has segments.
// They have no more bytes than the file, as where none lies over another.
func (o *object) codeSections() (list []elf.SectionHeader) {
	left := uint64(o.size)
	add := func(addr, size uint64) {
		size = min(size, left, maxTable)
		left -= size
		list = append(list, elf.SectionHeader{Addr: addr, Size: size})
	}
	for _, s := range o.sections {
		if s.Flags&elf.SHF_EXECINSTR != 0 && s.Type != elf.SHT_NOBITS {
			add(s.Addr, s.Size)
		}
	}
	if list == nil {
		for _, p := range o.loads {
			if p.Flags&elf.PF_X != 0 {
				add(p.Vaddr, p.Filesz)
			}
		}
	}
	return list
}

type sweeper struct {
	choices  map[uint64]bool // functions whose features do not count
	features isa.Features
	cpuid    bool
}

// code decodes instructions one after the other. known tells that it is a function; else
// what looks like vector code counts only where it is dense.
func (s *sweeper) code(b []byte, known bool) {
	var run isa.Features
	n, vectors := 0, 0
	for len(b) > 0 {
		if size, _ := isa.Skip(b); size > 0 {
			b = b[size:]
		} else {
			i, ok := isa.Decode(b)
			if !ok {
				b, n, vectors, run = b[1:], 0, 0, isa.Features{}
				continue
			}
			b = b[i.Len:]
			s.cpuid = s.cpuid || i.Map == isa.Map0F && i.Op == 0xa2
			if known {
				s.features = s.features.Or(i.Faults())
			} else if i.Map >= isa.VEX1 {
				vectors++
				run = run.Or(i.Faults())
			}
		}
		if n++; n == window && !known {
			if vectors >= dense {
				s.features = s.features.Or(run)
			}
			n, vectors, run = 0, 0, isa.Features{}
		}
	}
}
