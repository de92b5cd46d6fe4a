package level

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/memory"
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
	for _, v := range variants() {
		on, preferred := t.had.With(v.flags), preferences
		if v.more {
			preferred = preferences[:3]
		}
		for _, bits := range preferred {
			f := on.Preferring(bits)
			for _, c := range t.choices {
				if c.err != nil {
					continue
				}
				to, err := t.Choose(c.Address, f)
				if err == nil && !own[to] && !slices.Contains(chose[to], c) {
					chose[to] = append(chose[to], c)
				}
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

// chunk is how much memory is scanned at once, in bytes.
const chunk = 1 << 20

// maxWords bounds the words of a process that change. Programs have some hundred.
const maxWords = 1 << 20

// scan looks through all memory that is in images for the addresses that change: at any
// byte, and mangled where a pointer can stand.
func (t *task) scan() error {
	if len(t.matches) == 0 && len(t.dispatches) == 0 {
		return nil
	}
	lo, hi := ^uint64(0), uint64(0)
	var heads [][]byte // the upper five bytes of the addresses
	low := false
	for addr := range t.matches {
		lo, hi = min(lo, addr), max(hi, addr)
		head := le64(addr)[3:]
		if addr>>24 == 0 {
			low = true
		} else if !slices.ContainsFunc(heads, func(h []byte) bool { return bytes.Equal(h, head) }) {
			heads = append(heads, head)
		}
	}
	from, to := uint64(0), uint64(0) // of all objects that choose code themselves
	for _, d := range t.dispatches {
		start, end := d.Range()
		if to == 0 || start < from {
			from = start
		}
		to = max(to, end)
	}
	var stacks []uint64
	for _, th := range t.threads {
		if th.GPRegs != nil {
			stacks = append(stacks, th.GPRegs[regSP])
		}
	}
	key, guarded := t.guard()
	guarded = guarded && len(t.matches) > 0
	buf := make([]byte, chunk+7)
	for _, v := range t.mem.VMAs() {
		look := to > 0 && v.Prot&memory.Exec == 0 && v.Status&codec.VMAStack == 0 && !t.Stack(v, stacks)
		for r := range t.mem.Ranges(v.Start, v.End) {
			if r.State != memory.Dumped {
				continue
			}
			t.edge(r.Start)
			t.edge(r.End)
			start := r.Start
			for start < r.End {
				n := int(min(chunk, r.End-start))
				over := 0
				if r.End-start > chunk || t.mem.State(r.End) == memory.Dumped {
					over = 7
				}
				b := buf[:n+over]
				if m, err := t.mem.ReadAt(b, start); m < n {
					return err
				} else {
					b = b[:m]
				}
				for _, head := range heads {
					for at := 0; ; at++ {
						i := bytes.Index(b[at:], head)
						if i < 0 {
							break
						}
						at += i
						if at >= 3 && at-3 < n {
							t.hit(start+uint64(at-3), binary.LittleEndian.Uint64(b[at-3:]))
						}
					}
				}
				if low {
					for at := 0; at+8 <= len(b) && at < n; at++ {
						if w := binary.LittleEndian.Uint64(b[at:]); w-lo <= hi-lo {
							t.hit(start+uint64(at), w)
						}
					}
				}
				if look {
					for at := 0; at+8 <= len(b) && at < n; at += 8 {
						if w := binary.LittleEndian.Uint64(b[at:]); w-from < to-from {
							t.kept(start+uint64(at), w)
						}
					}
				}
				if guarded {
					for at := 0; at+8 <= len(b) && at < n; at += 8 {
						w := binary.LittleEndian.Uint64(b[at:])
						if from := bits.RotateLeft64(w, -guardShift) ^ key; from-lo <= hi-lo {
							t.mangled(start+uint64(at), w, from, key)
						}
					}
				}
				if len(t.Words) > maxWords {
					return fmt.Errorf("process %d has more than %d copies of functions, which no program has", t.PID, maxWords)
				}
				start += uint64(n)
				t.progress(int64(n))
			}
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
