package level

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"runtime"
	"slices"
	"sync"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/memory"
	"github.com/fpuimg/fpuimg/codec/program"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// union finds all functions that the resolvers may ever have chosen, and what becomes of
// a pointer to one. A process may have been levelled before, and keep pointers from
// before that: so not only the image's own choices count, but what resolvers choose on
// CPUs of every level.
func (t *task) union() {
	chose := map[uint64][]*choice{} // by function
	own := map[uint64]bool{}
	for _, c := range t.choices {
		if c.err == nil {
			chose[c.from] = append(chose[c.from], c)
			own[c.from] = true
		}
	}
	preferences := t.had.Preferences()
	var records []*program.Features
	for _, v := range variants() {
		on, preferred := t.had.With(v.flags), preferences
		if v.more {
			preferred = preferences[:3]
		}
		for _, bits := range preferred {
			records = append(records, on.Preferring(bits))
		}
	}
	for _, c := range t.choices {
		if c.err != nil {
			continue
		}
		for _, to := range t.ChooseOf(c.Address, records) {
			if !own[to] {
				chose[to] = append(chose[to], c)
			}
		}
	}
	t.static(chose)
	for addr, list := range chose {
		if !own[addr] {
			if needs, _ := t.Needs(addr); len(t.plan.lacks(needs)) == 0 {
				continue
			}
		}
		to, ok := general(list)
		if addr != to || !ok {
			t.matches[addr] = match{Copy, to, !ok}
		}
	}
}

// variant is a CPU that glibc's resolvers may have met.
type variant struct {
	flags []string
	more  bool // than a level and its kin: what it prefers is varied less
}

// variants are CPUs of every level, with what else changes glibc's choices.
func variants() (list []variant) {
	add := func(flags ...string) {
		extra := [][]string{nil, {"erms", "fsrm"}}
		if slices.Contains(flags, "avx2") {
			extra = append(extra, []string{"rtm"}, []string{"erms", "fsrm", "rtm"})
		}
		for i, more := range extra {
			all := slices.Concat(flags, more)
			slices.Sort(all)
			list = append(list, variant{slices.Compact(all), i > 0})
		}
	}
	for _, name := range xstate.LevelNames() {
		level, _ := xstate.ByName(name)
		add(level.Flags...)
		switch name {
		case "x86-64":
			add(append(level.Flags, "ssse3")...) // memcmp of 2.31 without SSE4.1
		case "x86-64-v2":
			add(append(level.Flags, "avx", "xsave", "osxsave")...)
			add(append(level.Flags, "avx", "fma4", "xop", "xsave", "osxsave")...)
		case "x86-64-v3":
			add(append(level.Flags, "avx512f", "avx512cd", "avx512er", "avx512pf")...)
		case "x86-64-v4":
			add(append(level.Flags, "avx512ifma", "avx512vbmi", "avx512_vbmi2", "gfni", "vaes")...)
		}
	}
	return list
}

// PTR_MANGLE (glibc, sysdeps/unix/sysv/linux/x86_64/pointer_guard.h).
const (
	guardOffset = 0x30 // of the thread's header
	guardShift  = 17
)

// guard reads the key of mangled pointers.
func (t *task) guard() (key uint64, ok bool) {
	for _, th := range t.threads {
		if th.GPRegs == nil || th.GPRegs[regFSBase] == 0 {
			continue
		}
		if key, ok := t.Word(th.GPRegs[regFSBase] + guardOffset); ok {
			return key, true
		}
	}
	return 0, false
}

// chunk is how much memory is scanned at once, in bytes: a cache holds it.
const chunk = 256 << 10

// maxWords bounds the words of a process that change. Programs have some hundred.
const maxWords = 1 << 20

// pattern is what memory is scanned for.
type pattern struct {
	matches map[uint64]match
	lo, hi  uint64   // of their addresses
	heads   [][]byte // the upper five bytes of these
	low     bool     // some are below 16 MiB, and their upper bytes zeros
	key     uint64   // of mangled pointers
	guarded bool     // there are such

	from, to uint64 // all objects that choose code themselves
}

// candidate is a word that may have to change: one that keeps a choice, or the address of
// a function that changes, mangled or not.
type candidate struct {
	kept, mangled bool
	addr, word    uint64
}

// pattern is made of what union and own found.
func (t *task) pattern() *pattern {
	p := &pattern{matches: t.matches, lo: ^uint64(0)}
	for addr := range t.matches {
		p.lo, p.hi = min(p.lo, addr), max(p.hi, addr)
		head := le64(addr)[3:]
		if addr>>24 == 0 {
			p.low = true
		} else if !slices.ContainsFunc(p.heads, func(h []byte) bool { return bytes.Equal(h, head) }) {
			p.heads = append(p.heads, head)
		}
	}
	for _, d := range t.dispatches {
		start, end := d.Range()
		if p.to == 0 || start < p.from {
			p.from = start
		}
		p.to = max(p.to, end)
	}
	p.key, p.guarded = t.guard()
	p.guarded = p.guarded && len(t.matches) > 0
	return p
}

// find lists the candidates that begin in the first n bytes of b, which lies at an
// address: addresses at any byte, the others where a pointer can stand. kept tells whether
// those count that keep a choice.
func (p *pattern) find(b []byte, n int, start uint64, kept bool) (list []candidate) {
	le := binary.LittleEndian
	for _, head := range p.heads {
		for at := 0; ; at++ {
			i := bytes.Index(b[at:], head)
			if i < 0 {
				break
			}
			if at += i; at >= 3 && at-3 < n && at+5 <= len(b) {
				list = p.add(list, start+uint64(at-3), le.Uint64(b[at-3:]))
			}
		}
	}
	if p.low {
		for at := 0; at+8 <= len(b) && at < n; at++ {
			if w := le.Uint64(b[at:]); w-p.lo <= p.hi-p.lo {
				list = p.add(list, start+uint64(at), w)
			}
		}
	}
	var own, spread uint64 // the sizes of both ranges
	if kept {
		own = p.to - p.from
	}
	if p.guarded {
		spread = min(p.hi-p.lo, math.MaxUint64-1) + 1
	}
	if own == 0 && spread == 0 {
		return list
	}
	far := func(w uint64) bool {
		return w-p.from >= own && bits.RotateLeft64(w, -guardShift)^p.key-p.lo >= spread
	}
	var mangled []candidate
	words := b[:min(len(b), (n+7)&^7)]
	for w := words; len(w) >= 8; w = w[8:] {
		for len(w) >= 32 && far(le.Uint64(w)) && far(le.Uint64(w[8:])) && far(le.Uint64(w[16:])) && far(le.Uint64(w[24:])) {
			w = w[32:]
		}
		if len(w) < 8 {
			break
		}
		v, addr := le.Uint64(w), start+uint64(len(words)-len(w))
		if v-p.from < own {
			list = append(list, candidate{kept: true, addr: addr, word: v})
		}
		if from := bits.RotateLeft64(v, -guardShift) ^ p.key; from-p.lo < spread {
			if _, ok := p.matches[from]; ok {
				mangled = append(mangled, candidate{mangled: true, addr: addr, word: v})
			}
		}
	}
	return append(list, mangled...)
}

func (p *pattern) add(list []candidate, addr, value uint64) []candidate {
	if _, ok := p.matches[value]; ok {
		list = append(list, candidate{addr: addr, word: value})
	}
	return list
}

// scan looks through all memory that is in images for the addresses that change, on all
// CPUs.
func (t *task) scan() error {
	if len(t.matches) == 0 && len(t.dispatches) == 0 {
		return nil
	}
	p := t.pattern()
	var stacks []uint64
	for _, th := range t.threads {
		if th.GPRegs != nil {
			stacks = append(stacks, th.GPRegs[regSP])
		}
	}
	type result struct {
		list []candidate
		n    int
		err  error
	}
	var running []chan result // by address
	defer func() {
		for _, done := range running { // nothing reads when the images are closed
			<-done
		}
	}()
	take := func() error {
		r := <-running[0]
		running = running[1:]
		for _, c := range r.list {
			switch {
			case c.kept:
				t.kept(c.addr, c.word)
			case c.mangled:
				t.mangled(c.addr, c.word, bits.RotateLeft64(c.word, -guardShift)^p.key, p.key)
			default:
				t.hit(c.addr, c.word)
			}
		}
		t.progress(int64(r.n))
		if len(t.Words) > maxWords && r.err == nil {
			r.err = fmt.Errorf("process %d has more than %d copies of functions, which no program has", t.PID, maxWords)
		}
		return r.err
	}
	buffers := sync.Pool{New: func() any { return new([chunk + 7]byte) }}
	for _, v := range t.mem.VMAs() {
		kept := v.Prot&memory.Exec == 0 && v.Status&codec.VMAStack == 0 && !t.Stack(v, stacks)
		for r := range t.mem.Ranges(v.Start, v.End) {
			if r.State != memory.Dumped {
				continue
			}
			t.edge(r.Start)
			t.edge(r.End)
			behind := uint64(0) // the last word may go on in the next range
			if t.mem.State(r.End) == memory.Dumped {
				behind = 7
			}
			for start := r.Start; start < r.End; start += chunk {
				n, size := min(chunk, r.End-start), min(chunk+7, r.End+behind-start)
				done := make(chan result, 1)
				running = append(running, done)
				go func() {
					buf := buffers.Get().(*[chunk + 7]byte)
					defer buffers.Put(buf)
					m, err := t.mem.ReadAt(buf[:size], start)
					if m >= int(n) { // what is behind may not be there
						err = nil
					}
					done <- result{p.find(buf[:m], min(m, int(n)), start, kept), int(n), err}
				}()
				if len(running) > 2*runtime.GOMAXPROCS(0) {
					if err := take(); err != nil {
						return err
					}
				}
			}
		}
	}
	for len(running) > 0 {
		if err := take(); err != nil {
			return err
		}
	}
	return nil
}

// edge looks at the words over the address where memory that is in images begins or ends:
// their other bytes are zeros that nobody wrote, or those of a file.
func (t *task) edge(at uint64) {
	if t.mem.State(at-1) == memory.Dumped && t.mem.State(at) == memory.Dumped {
		return
	}
	for addr := at - 7; addr != at; addr++ {
		if value, ok := t.Word(addr); ok {
			t.hit(addr, value)
		}
	}
}

// hit plans a word that holds what could be an address that changes.
func (t *task) hit(addr, value uint64) {
	m, ok := t.matches[value]
	if !ok || t.planned[addr] {
		return
	}
	switch {
	case m.ambiguous:
		t.refuse(WordAmbiguous, t.Object(addr), "a copy of %s at %#x could become one function or another", t.Place(value), addr)
		return
	case value>>32 == 0 && !(m.what == Trampoline && t.besideRecord(addr)):
		t.refuse(WordAmbiguous, t.Object(addr), "memory at %#x holds %#x, which is where %s is; but in a program that is linked so low it can be a number too", addr, value, t.Place(value))
		return
	}
	t.pointer(m.what, addr, value, m.to)
}

// besideRecord reports whether a word is one of the variables that glibc 2.41 keeps
// beside its record of the CPU, _dl_x86_64_runtime_resolve and _dl_x86_tlsdesc_dynamic
// (sysdeps/x86/dl-procinfo.c): that is no number.
func (t *task) besideRecord(addr uint64) bool {
	const most = 1 << 10 // bytes, of the record and around it
	return addr%8 == 0 && addr+most/2-t.had.SaveAddress() < most
}

func (t *task) mangled(addr, word, value, key uint64) {
	m, ok := t.matches[value]
	if !ok || t.planned[addr] {
		return
	}
	if m.ambiguous {
		t.refuse(WordAmbiguous, t.Object(addr), "a mangled copy of %s at %#x could become one function or another", t.Place(value), addr)
		return
	}
	t.word(m.what, addr, le64(word), le64(bits.RotateLeft64(m.to^key, guardShift)), value, m.to)
}

// Indexes of struct user_regs_struct (arch/x86/include/asm/user_64.h).
const (
	regSP     = 19
	regFSBase = 21
)

// registerNames are the general registers that can hold a pointer, by their index.
var registerNames = [...]string{"r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"}

// generals plans the general registers of threads that hold an address that changes.
func (t *task) generals() {
	for _, th := range t.threads {
		if th.GPRegs == nil {
			continue
		}
		for i, name := range registerNames {
			value := th.GPRegs[i]
			switch m, ok := t.matches[value]; {
			case !ok:
			case m.ambiguous || value>>32 == 0:
				t.refuseThread(th.TID, WordAmbiguous, nil, "%s holds %s, which could become one function or another, or be a number", name, t.Place(value))
			default:
				t.Registers = append(t.Registers, Register{TID: th.TID, Name: name, From: value, To: m.to, SymbolFrom: t.Place(value), SymbolTo: t.Place(m.to), index: i})
			}
		}
	}
}
