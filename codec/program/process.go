package program

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/isa"
	"github.com/fpuimg/fpuimg/codec/memory"
)

// Process is one process of a checkpoint, for who changes its memory. It can be asked as
// long as its [Looker] is open.
type Process struct {
	*facts.Process
	// Records is how many places of the loader's data look like cpu_features.
	Records int

	p         *process
	traces    *traces
	resolvers map[uint64]*trace // of traces, by address
	runs      int               // of resolvers
	// reads, with their values, are of the last one.
	reads  []read
	values []byte
}

// maxRuns bounds the runs of resolvers: glibc's make some thousand different ones.
const maxRuns = 1 << 17

// maxReads bounds the bytes that a run which is kept reads: those of glibc read some ten.
// maxKept bounds those of all that are kept.
const (
	maxReads = 1 << 8
	maxKept  = 1 << 20
)

var errRuns = errors.New("more runs of resolvers than any program's choices take")

// traces are the runs of resolvers that are kept.
type traces struct {
	of    map[ran]*trace
	reads int // of all
}

// ran is what ran: a resolver at an address, in a process whose record lies at another.
type ran struct {
	file, loader     *file
	resolver, record uint64
	shape            shape // of the record
}

// trace is what runs of a resolver have in common so far: the byte that they read next,
// of the record by its offset or of other memory by its address, and what they do by its
// values; at the end, what they chose.
type trace struct {
	read
	next   []branch
	ends   bool
	chosen uint64
}

type branch struct {
	b byte
	*trace
}

// read is a byte that a resolver reads.
type read struct {
	at  uint64
	own bool // of the record
}

// find returns where runs go on that read b next; nil if none was seen.
func (t *trace) find(b byte) *trace {
	for _, n := range t.next {
		if n.b == b {
			return n.trace
		}
	}
	return nil
}

// add adds a run. What it read can have been read before, in that order, by the others.
func (t *trace) add(reads []read, b []byte, chosen uint64) {
	for i, r := range reads {
		t.read = r
		n := t.find(b[i])
		if n == nil {
			n = &trace{}
			t.next = append(t.next, branch{b[i], n})
		}
		t = n
	}
	t.ends, t.chosen = true, chosen
}

// Open finds out about one process what [Looker.Look] does, and keeps it at hand.
func (l *Looker) Open(pid int, threads []codec.Thread) (*Process, error) {
	p, err := l.look(pid, threads)
	if err != nil {
		return nil, err
	}
	kept := l.traces
	if p.patched() {
		kept = &traces{of: map[ran]*trace{}}
	}
	return &Process{Process: p.Process, Records: p.records, p: p, traces: kept, resolvers: map[uint64]*trace{}}, nil
}

// patched reports whether code is other than in its file, as debuggers make it.
func (p *process) patched() bool {
	var is, was [codec.PageSize]byte
	for _, m := range p.ranges {
		if m.Prot&memory.Exec == 0 || m.module.obj == nil {
			continue
		}
		for r := range p.mem.Ranges(m.Start, m.End) {
			for at := r.Start; at < r.End && r.State != memory.FileBacked; at += codec.PageSize {
				_, err := p.mem.ReadAt(is[:], at)
				n, _ := m.module.obj.file.ReadAt(was[:], int64(m.Offset+at-m.Start))
				if err != nil || n == 0 || !bytes.Equal(is[:n], was[:n]) {
					return true
				}
			}
		}
	}
	return false
}

// Unmapped is [memory.Images.Unmapped] of the processes that were opened.
func (l *Looker) Unmapped() ([]string, error) { return l.images.Unmapped() }

// Memory is that of the process.
func (p *Process) Memory() *memory.Memory { return p.p.mem }

// Features is glibc's record of the CPU; nil if there is none, or it is not clear.
func (p *Process) Features() *Features {
	if p.p.record == nil {
		return nil
	}
	return &Features{*p.p.record}
}

// Object returns the file that an address lies in, nil if it is in none.
func (p *Process) Object(addr uint64) *facts.Object {
	if m := p.p.moduleAt(addr); m != nil {
		return m.fact
	}
	return nil
}

// Loader is the object that chose the functions of the process: its dynamic loader, or
// a static program itself; nil if it is not known.
func (p *Process) Loader() *facts.Object {
	if m := p.p.loader(); m != nil {
		return m.fact
	}
	return nil
}

// Place spells an address: "libc.so.6+0x165b40", or the bare address of what no file is
// mapped for.
func (p *Process) Place(addr uint64) string {
	m := p.p.moduleAt(addr)
	if m == nil {
		return fmt.Sprintf("%#x", addr)
	}
	return fmt.Sprintf("%s+%#x", path.Base(m.fact.Path), addr-m.bias)
}

// Needs tells which features the function at an address needs, as [facts.Target] does.
func (p *Process) Needs(addr uint64) (names []string, incomplete string) {
	m := p.p.moduleAt(addr)
	if m == nil || m.obj == nil || !m.obj.executable(addr-m.bias) {
		return nil, "it is code of no proven file"
	}
	r := m.reached(addr - m.bias)
	return flagNames(r.features), r.incomplete
}

// Resolver is a function that chooses another.
type Resolver struct {
	Address uint64
	Object  *facts.Object
	Names   []string // of the IFUNCs that it is of; empty if none has a name
}

// Resolvers lists those of all objects, by address: of exported IFUNCs, and of the
// words that the loader fills in by IRELATIVE.
func (p *Process) Resolvers() []Resolver {
	known := map[uint64]*Resolver{}
	add := func(m *module, addr uint64, names []string) {
		r := known[m.bias+addr]
		if r == nil {
			r = &Resolver{Address: m.bias + addr, Object: m.fact}
			known[r.Address] = r
		}
		for _, name := range names {
			if !slices.Contains(r.Names, name) {
				r.Names = append(r.Names, name)
			}
		}
	}
	for _, m := range p.p.modules {
		if m.obj == nil {
			continue
		}
		for addr, names := range m.ifuncs().resolvers {
			add(m, addr, names)
		}
		for r := range m.obj.relocations {
			if r.kind == elf.R_X86_64_IRELATIVE {
				add(m, r.addend, nil)
			}
		}
	}
	list := []Resolver{}
	for _, addr := range slices.Sorted(maps.Keys(known)) {
		slices.Sort(known[addr].Names)
		list = append(list, *known[addr])
	}
	return list
}

// runsOf returns the runs of a resolver that are known.
func (p *Process) runsOf(resolver uint64, record *record) *trace {
	t := p.resolvers[resolver]
	if t != nil {
		return t
	}
	key := ran{resolver: resolver, record: record.addr, shape: record.shape}
	if m := p.p.moduleAt(resolver); m != nil {
		key.file = m.file
	}
	if m := p.p.loader(); m != nil {
		key.loader = m.file
	}
	if t = p.traces.of[key]; t == nil {
		t = &trace{}
		p.traces.of[key] = t
	}
	p.resolvers[resolver] = t
	return t
}

// Choose runs a resolver in the process with the given cpu_features, and returns the
// function that it chooses. The error tells of an instruction that no resolver is known
// to have, or of memory that is not there.
func (p *Process) Choose(resolver uint64, f *Features) (uint64, error) {
	own, start := f.bytes()
	known := p.runsOf(resolver, &f.record)
	for t := known; t != nil; t = p.follow(t, own) { // the same bytes lead to the same function
		if t.ends {
			return t.chosen, nil
		}
	}
	if p.runs++; p.runs > maxRuns {
		return 0, errRuns
	}
	reads, values, asked := p.reads[:0], p.values[:0], false
	e := emulator{fetch: p.p.read, decoded: p.p.decoded, load: func(b []byte, addr uint64) (int, error) {
		n, err := f.load(p.p, b, addr)
		for i, v := range b[:n] {
			at := addr + uint64(i)
			if at-start < uint64(len(own)) {
				reads = append(reads, read{at - start, true})
			} else {
				reads = append(reads, read{at, false})
			}
			values = append(values, v)
		}
		return n, err
	}, cpuid: func(leaf, subleaf uint32) (cpuid.Regs, bool) {
		asked = true
		return f.answer(leaf, subleaf)
	}}
	chosen, err := e.run(resolver)
	if p.reads, p.values = reads, values; err == nil && !asked && len(reads) < maxReads && p.traces.reads < maxKept {
		p.traces.reads += len(reads)
		known.add(reads, values, chosen)
	}
	return chosen, err
}

// ChooseOf lists the functions that a resolver chooses with any of several cpu_features of
// the process: those that [Process.Choose] returns without an error.
func (p *Process) ChooseOf(resolver uint64, list []*Features) (chosen []uint64) {
	add := func(to uint64) {
		if !slices.Contains(chosen, to) {
			chosen = append(chosen, to)
		}
	}
	type part struct {
		*trace
		list []int // of those with which runs come there
	}
	all := make([]int, len(list))
	for i := range all {
		all[i] = i
	}
	todo := []part{{p.runsOf(resolver, &list[0].record), all}}
	for len(todo) > 0 {
		t := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if t.ends {
			add(t.chosen)
			continue
		}
		first := list[t.list[0]]
		own, _ := first.bytes()
		next, same := p.follow(t.trace, own), 1
		if next == nil { // no run came there
			if to, err := p.Choose(resolver, first); err == nil {
				add(to)
			}
		} else {
			for i, n := range t.list[1:] {
				if b, _ := list[n].bytes(); !t.own || b[t.at] == own[t.at] {
					t.list[i+1], t.list[same] = t.list[same], n
					same++
				}
			}
			todo = append(todo, part{next, t.list[:same]})
		}
		if same < len(t.list) {
			todo = append(todo, part{t.trace, t.list[same:]})
		}
	}
	return chosen
}

// follow returns where a run goes on that came to t, with these bytes of the record; nil
// if none was seen that did.
func (p *Process) follow(t *trace, own []byte) *trace {
	var b [1]byte
	if t.own {
		b[0] = own[t.at]
	} else if n, _ := p.p.read(b[:], t.at); n == 0 {
		return nil
	}
	return t.find(b[0])
}

// Slot is a word that the loader has filled in with a function that a resolver chose, or
// could have: its symbol is an IFUNC in some object.
type Slot struct {
	Address uint64
	Kind    elf.R_X86_64
	Object  *facts.Object // that has it
	Value   uint64
	Name    string // of the symbol; "" of IRELATIVE
	// Resolvers are those that may have chosen it: of that name, and the version asked for.
	Resolvers []uint64
}

// Plain reports whether a slot holds a function of its name that is no IFUNC: another
// version of it, or what came before it in the order of the objects.
func (p *Process) Plain(s *Slot) bool { return s.Name != "" && p.p.defines(s.Name, s.Value) }

// Slots yields those that hold something: not what waits for lazy binding, and not what
// holds a function of the vDSO, which the kernel of another machine replaces.
func (p *Process) Slots() iter.Seq[Slot] {
	return func(yield func(Slot) bool) {
		for s := range p.p.bound {
			if s.module == nil {
				continue
			}
			slot := Slot{Address: s.addr, Kind: s.kind, Object: s.module.fact, Value: s.value}
			if r := s.irelative(); r != 0 {
				slot.Resolvers = []uint64{r}
			} else {
				slot.Name = s.names[0]
				for _, m := range p.p.modules {
					for addr := range m.ifuncs().choosing(slot.Name, s.wants) {
						if addr += m.bias; !slices.Contains(slot.Resolvers, addr) {
							slot.Resolvers = append(slot.Resolvers, addr)
						}
					}
				}
				if slot.Resolvers == nil {
					continue
				}
			}
			if !yield(slot) {
				return
			}
		}
	}
}

// SaveFunctions lists the functions of the loader that save registers, by address. A
// static program that describes no functions has none that can be found.
func (p *Process) SaveFunctions() (list []SaveFunction) {
	m := p.p.loader()
	if m == nil || m.obj == nil {
		return nil
	}
	for _, f := range m.saveFunctions() {
		f.Address, f.End, f.Sizes = f.Address+m.bias, f.End+m.bias, slices.Clone(f.Sizes)
		for i := range f.Sizes {
			f.Sizes[i] += m.bias
		}
		list = append(list, f)
	}
	return list
}

// saveFunctions lists those of a file, as linked; a file is asked once.
func (f *file) saveFunctions() []SaveFunction {
	if f.saves == nil {
		f.saves = []SaveFunction{}
		functions := f.obj.functions().list
		if functions == nil {
			functions = f.obj.functions().all()
		}
		for _, fn := range functions {
			if s, ok := f.obj.saves(fn); ok {
				f.saves = append(f.saves, s)
			}
		}
		slices.SortFunc(f.saves, func(a, b SaveFunction) int { return cmp.Compare(a.Address, b.Address) })
	}
	return f.saves
}

// saves reports whether a function saves the registers of its caller and restores them,
// as _dl_runtime_resolve and _dl_tlsdesc_dynamic do
// (glibc, sysdeps/x86_64/dl-trampoline.h and dl-tlsdesc-dynamic.h).
func (o *object) saves(fn function) (f SaveFunction, ok bool) {
	const most = 1 << 11 // bytes: _dl_runtime_profile_avx has 1141
	if fn.end-fn.start > most {
		return f, false
	}
	restores, arguments := false, uint8(0)
	f.TLS = true
	for at := fn.start; at < fn.end; {
		i, ok := o.decode(at)
		if !ok {
			return f, false
		}
		next := at + uint64(i.Len)
		switch memory := i.Prefix&isa.HasModRM != 0 && i.ModRM < 0xc0; {
		case i.Map == isa.OneByte && i.Op == 0x2b && i.REX&8 != 0 && i.ModRM == 0x25: // sub size(%rip), %rsp
			f.Sizes = append(f.Sizes, next+uint64(int64(i.Disp)))
		case i.Map == isa.Map0F && i.Op == 0xae && memory:
			switch i.ModRM >> 3 & 7 {
			case 0:
				f.Kind = cmp.Or(f.Kind, facts.FXSave)
			case 4:
				f.Kind = facts.XSave
			case 1, 5:
				restores = true
			}
		case i.Map == isa.Map0F && i.Op == 0xc7 && memory && i.ModRM>>3&7 == 4:
			f.Kind = facts.XSaveC
		}
		if i.Map >= isa.VEX1 && arguments < 8 {
			if i.Op != 0x7f && i.Op != 0x29 || i.ModRM >= 0xc0 || i.ModRM>>3&7 != arguments {
				arguments = 9
			}
			arguments++
		}
		if i.Flow() == isa.Indirect { // into the function that it has bound
			f.TLS = false
		}
		at = next
	}
	// An index may have the padding before a function in it.
	f.Address, f.End = (fn.start+15)&^15, fn.end
	if arguments == 8 {
		f.Profile = true
		return f, true
	}
	return f, restores && f.Kind != ""
}

// Word reads a pointer, of memory as the restored process has it.
func (p *Process) Word(addr uint64) (uint64, bool) { return p.p.word(addr) }

// SameFunction reports whether two addresses lie in one function, as far as the file
// describes it.
func (p *Process) SameFunction(a, b uint64) bool {
	m := p.p.moduleAt(a)
	if m == nil || m.obj == nil || m != p.p.moduleAt(b) {
		return false
	}
	fn, ok := m.obj.functions().find(a - m.bias)
	return ok && b-m.bias >= fn.start && b-m.bias < fn.end
}

// Reaches tells which features can be needed from an address on before the function
// returns, as [facts.Thread] does of where a thread is.
func (p *Process) Reaches(addr uint64) []string {
	m := p.p.moduleAt(addr)
	if m == nil || m.obj == nil {
		return nil
	}
	return flagNames(m.reach(addr-m.bias, (*isa.Inst).Faults).features)
}

// InVDSO reports whether an address lies in the code that the kernel maps.
func (p *Process) InVDSO(addr uint64) bool { return addr >= p.p.vdso[0] && addr < p.p.vdso[1] }

// Besides tells which features the code of a static program needs in functions that
// cannot be reached from any of the given ones, nor save registers. What a libc has behind
// a flag of its own does not count: shadow stacks, protection keys, XGETBV, and RTM in the
// functions that elide locks, where the file names them.
func (p *Process) Besides(entries []uint64) []string {
	m := p.p.loader()
	if m == nil || m.obj == nil {
		return nil
	}
	reached := map[function]bool{}
	for _, addr := range entries {
		if !m.obj.executable(addr - m.bias) {
			continue
		}
		m.walk(addr-m.bias, (*isa.Inst).Faults, func(at uint64) {
			if fn, ok := m.obj.functions().find(at); ok {
				reached[fn] = true
			}
		})
	}
	var s sweeper
	var found isa.Features
	done := uint64(0)
	transactions := map[uint64]string{}
	for _, fn := range m.obj.functions().all() {
		if reached[fn] || fn.end-fn.start > maxTable {
			continue
		}
		if _, ok := m.obj.saves(fn); ok {
			continue
		}
		from := max(fn.start, done) // hostile ones lie one over the other
		if done = max(done, fn.end); from >= fn.end {
			continue
		}
		s = sweeper{}
		s.code(m.obj.table(from, fn.end-from), true)
		if s.features.Has(isa.RTM) {
			transactions[fn.start] = ""
		}
		found = found.Or(s.features.Without(isa.RTM))
	}
	m.obj.local(transactions)
	for _, name := range transactions {
		if !elides(name) {
			found = found.With(isa.RTM)
		}
	}
	return flagNames(found.Without(isa.SHSTK, isa.PKU, isa.XSAVE))
}

// elides reports whether a function of glibc elides locks: __lll_lock_elision and its kin
// (sysdeps/unix/sysv/linux/x86/elision-lock.c).
func elides(name string) bool {
	return strings.HasPrefix(name, "__lll_") && strings.HasSuffix(name, "_elision")
}

// maxDepth bounds how much of a stack is looked through, in bytes.
const maxDepth = 8 << 20

// Calls yields the addresses on a stack that are behind a call in the code of an object:
// where calls return to, and where calls that have returned did. The stack begins at sp.
func (p *Process) Calls(sp uint64, o *facts.Object) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		v, ok := p.p.mem.VMA(sp)
		if !ok || v.Prot&memory.Exec != 0 {
			return
		}
		buf := make([]byte, 64<<10)
		for at := (sp + 7) &^ 7; at < v.End && at-sp < maxDepth; at += uint64(len(buf)) {
			n, _ := p.p.mem.ReadAt(buf[:min(uint64(len(buf)), v.End-at)], at)
			for i := 0; i+8 <= n; i += 8 {
				w := le64(buf[i:])
				m := p.p.moduleAt(w)
				if m == nil || m.fact != o || m.obj == nil || !m.obj.executable(w-m.bias) {
					continue
				}
				if m.behindCall(w-m.bias) && !yield(w) {
					return
				}
			}
		}
	}
}

// behindCall reports whether the instruction before an address as linked can be a call.
func (m *module) behindCall(addr uint64) bool {
	var b [16]byte
	for n := uint64(2); n <= 9; n++ { // the shortest and the longest
		i, ok := isa.Decode(b[:m.obj.readAt(b[:], addr-n)])
		if ok && uint64(i.Len) == n && (i.Flow() == isa.Call || i.Flow() == isa.IndirectCall) {
			return true
		}
	}
	return false
}

// Dynamic reports whether a dynamic loader is mapped, which may be at work again.
func (p *Process) Dynamic() bool {
	at, ok := p.p.mem.Aux(auxBase)
	return ok && at != 0
}

// Sweep looks for code of their own in all objects but the libc's (see [facts.Object]).
func (p *Process) Sweep() {
	for _, m := range p.p.modules {
		static := p.Source != nil && m == p.p.loader()
		if m.obj != nil && !static && !m.obj.isGlibc() && !isMusl(m.fact.Path) {
			m.sweep()
		}
	}
}

// HasFiles reports whether a root has a directory of that path with anything in it, or
// one that cannot be looked into.
func (r *Roots) HasFiles(dir string) bool {
	for _, root := range r.dirs {
		rel := strings.TrimPrefix(path.Clean("/"+dir), "/")
		if real, err := resolve(root, rel); err == nil {
			rel = real
		} else if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		info, err := root.Stat(rel)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
			continue
		}
		if err != nil {
			return true
		}
		f, err := root.Open(rel + "/.")
		if err != nil {
			return true
		}
		names, err := f.Readdirnames(1)
		f.Close()
		if len(names) > 0 || err != nil && err != io.EOF {
			return true
		}
	}
	return false
}
