package program

import (
	"slices"

	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/facts"
)

// shape is a layout of glibc's struct cpu_features on x86-64, which init_cpu_features
// fills in before any function is chosen (sysdeps/x86/include/cpu-features.h; of old
// sysdeps/x86/cpu-features.h). Offsets are in bytes from the member kind, which
// max_cpuid follows; absent is what the release lacks.
type shape struct {
	family, model, stepping int

	array   int // of CPUID's answers, in the order of [cpuid.GlibcLeaf]
	entries int
	active  bool // an entry is the answer and what of it is usable, not the answer alone
	usable  int  // else: bits of what is usable, numbered by usableFlags

	preferred int
	isa       int
	save      int  // u64 xsave_state_size, then u32 xsave_state_full_size
	cache     int  // u64 each: data_cache_size, shared_cache_size, non_temporal_threshold
	filled    bool // the sizes of caches are there, not only what tunables say
	end       int
}

const absent = -1

// newShape is the layout from glibc 2.32 on, whose releases differ in the number of
// entries: 7 in 2.32, 8 in 2.33, 9 up to 2.38, 10 up to 2.44.
func newShape(entries int) shape {
	s := shape{family: 8, model: 12, stepping: 16, array: 20, entries: entries, active: true, usable: absent, filled: entries > 7}
	s.preferred = s.array + 32*entries
	at := s.preferred + 4
	s.isa = absent
	if entries > 7 {
		s.isa, at = at, at+4
	}
	s.save = (at + 7) &^ 7
	s.cache = s.save + 16
	s.end = s.cache + 24
	return s
}

// shapes are the layouts of glibc 2.26 to 2.44, and of two entries more.
var shapes = [...]shape{
	newShape(8), newShape(9), newShape(10), newShape(11), newShape(12), newShape(7),
	// 2.29 to 2.31
	{family: 8, model: 12, stepping: 16, array: -104, entries: 6, usable: -8, preferred: -4, isa: absent, save: 24, cache: 40, end: 64},
	// 2.27, 2.28
	{family: 56, model: 60, stepping: absent, array: 8, entries: 3, usable: absent, preferred: 76, isa: absent, save: 64, cache: 80, end: 104},
	// 2.26
	{family: 56, model: 60, stepping: absent, array: 8, entries: 3, usable: absent, preferred: 64, isa: absent, save: absent, cache: 72, end: 96},
}

const (
	before = 104 // bytes of the struct before kind, at most
	behind = 528 // and from it on
)

// Bounds of what a cpu_features can hold.
const (
	maxKind      = 4 // arch_kind_other
	maxLeaf      = 0x80
	maxISA       = 15 // bits of baseline, v2, v3, v4
	maxSaveSize  = 16 << 10
	maxFullSize  = 32 << 10
	maxCacheSize = 1 << 40
	// Of the L1 data cache: below any preferred flag, which is never 0, in its upper half,
	// where the layout with one entry less has it.
	maxDataCache = 1 << 32

	// CPUID 1, EAX: bits that are 0 on every CPU.
	signatureZero = 0xf000c000
	osxsave       = 1 << 27 // CPUID 1, ECX: the kernel has enabled XSAVE
)

// record is a cpu_features that was found.
type record struct {
	addr  uint64 // of kind
	shape shape
	b     []byte // from before bytes before kind
}

func (r *record) u32(at int) uint32 { return le32(r.b[before+at:]) }
func (r *record) u64(at int) uint64 { return le64(r.b[before+at:]) }

// findFeatures appends the records in a piece of memory at an address, of which kind
// lies in b[from:to]. A record that can have two layouts counts twice: it is no answer.
func findFeatures(found []record, b []byte, addr uint64, from, to int) []record {
	for at := from; at < to && at+8 <= len(b); at += 4 {
		if kind := le32(b[at:]); kind-1 >= maxKind {
			continue
		}
		if highest := le32(b[at+4:]); highest-1 >= maxLeaf {
			continue
		}
		if !isBase(b, at+20) && !isBase(b, at+8) && !isBase(b, at-104) {
			continue
		}
		r := record{addr: addr + uint64(at), b: make([]byte, before+behind)}
		copy(r.b[max(0, before-at):], b[max(0, at-before):])
		found = append(found, r.layouts(at, len(b)-at)...)
	}
	return found
}

// isBase reports whether b has at an offset what CPUID 1 answers on an x86-64 CPU.
func isBase(b []byte, at int) bool {
	return at >= 0 && at+16 <= len(b) && le32(b[at:])&signatureZero == 0 && le32(b[at+12:])&cpuid.BaseEDX == cpuid.BaseEDX
}

// layouts returns the record in each layout that it can have. Bytes before and left are
// known around kind.
func (r record) layouts(known, left int) (fit []record) {
	for _, s := range shapes {
		if known < -min(s.array, 0) || left < s.end {
			continue
		}
		if !s.filled && len(fit) > 0 { // of zeros, the older ones take too much
			break
		}
		if r.shape = s; r.holds() {
			fit = append(fit, r)
		}
	}
	return fit
}

// holds reports whether the bytes can be a cpu_features of this layout.
func (r *record) holds() bool {
	s := r.shape
	if !isBase(r.b, before+s.array) {
		return false
	}
	eax := r.u32(s.array)
	// The extended model counts for Intel's family 6 and for family 15 alone.
	family, model := eax>>8&0xf, eax>>4&0xf
	if family == 0xf {
		family += eax >> 20 & 0xff
	}
	if family != r.u32(s.family) || family != 6 && family != 7 && family < 15 {
		return false
	}
	if m := r.u32(s.model); m != model && m != model+eax>>12&0xf0 {
		return false
	}
	if s.stepping != absent && r.u32(s.stepping) != eax&0xf {
		return false
	}
	if s.isa != absent && r.u32(s.isa) > maxISA {
		return false
	}
	if s.save != absent {
		save, full := r.u64(s.save), r.u32(s.save+8)
		if save%64 != 0 || full%64 != 0 || save > maxSaveSize || full > maxFullSize {
			return false
		}
		// Of zeros, the releases without the sizes of caches take too much.
		if full == 0 && !s.filled && r.u32(4) >= 0xd && r.u32(s.array+8)&osxsave != 0 {
			return false
		}
	}
	for i, highest := range [...]uint64{maxDataCache - 1, maxCacheSize, maxCacheSize} {
		if v := r.u64(s.cache + 8*i); v > highest || v == 0 && s.filled {
			return false
		}
	}
	return true
}

// regs is an answer of CPUID at an offset.
func (r *record) regs(at int) cpuid.Regs {
	return cpuid.Regs{EAX: r.u32(at), EBX: r.u32(at + 4), ECX: r.u32(at + 8), EDX: r.u32(at + 12)}
}

// source is what the record says of the CPU.
func (r *record) source() *facts.Source {
	s := r.shape
	g := cpuid.Glibc{Kind: r.u32(0), MaxLeaf: r.u32(4), CPUID: cpuid.Recorded{}}
	if s.active {
		g.Active = cpuid.Recorded{}
	}
	src := &facts.Source{Preferred: r.u32(s.preferred)}
	for i := range s.entries {
		leaf, ok := cpuid.GlibcLeaf(i)
		if !ok {
			break
		}
		var l facts.Leaf
		l.Leaf, l.Subleaf = leaf.EAX, leaf.ECX
		size := 16
		if s.active {
			size = 32
		}
		at := s.array + size*i
		g.CPUID[leaf] = r.regs(at)
		for j := range l.CPUID {
			l.CPUID[j] = r.u32(at + 4*j)
		}
		if s.active {
			g.Active[leaf] = r.regs(at + 16)
			for j := range l.Active {
				l.Active[j] = r.u32(at + 16 + 4*j)
			}
		}
		src.Leaves = append(src.Leaves, l)
	}
	src.CPU = g.CPU()
	switch {
	case s.active:
		src.Active = g.ActiveFlags()
	case s.usable != absent:
		src.Active = withoutUnusable(src.CPU.Flags, r.u32(s.usable))
	default:
		src.Active = src.CPU.Flags
	}
	if s.isa != absent {
		for isa := r.u32(s.isa); isa != 0; isa >>= 1 {
			src.ISALevel++
		}
	}
	if s.save != absent {
		src.SaveSize = r.u64(s.save)
	}
	return src
}

// usableFlags are the bits *_Usable of glibc 2.31 and before (sysdeps/x86/cpu-features.h).
var usableFlags = [...]string{
	"avx", "avx2", "avx512f", "avx512cd", "avx512er", "avx512pf", "avx512vl", "avx512dq", "avx512bw", "avx512_4fmaps",
	"avx512_4vnniw", "avx512_bitalg", "avx512ifma", "avx512vbmi", "avx512_vbmi2", "avx512_vnni", "avx512_vpopcntdq",
	"fma", "fma4", "vaes", "vpclmulqdq", "xop", "xsavec",
}

func withoutUnusable(flags []string, usable uint32) []string {
	var drop []string
	for i, name := range usableFlags {
		if usable>>i&1 == 0 {
			drop = append(drop, name)
		}
	}
	return slices.DeleteFunc(slices.Clone(flags), func(name string) bool { return slices.Contains(drop, name) })
}
