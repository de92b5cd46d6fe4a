package program

import (
	"encoding/binary"
	"slices"

	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Features is glibc's cpu_features of a process, as it is or as it could be.
type Features struct{ record }

// Known reports whether the layout is one whose words were seen to be levelled: that of
// glibc 2.29 and later.
func (f *Features) Known() bool { return f.shape.active || f.shape.usable != absent }

// clone returns a copy to be changed.
func (f *Features) clone() *Features {
	g := *f
	g.b = slices.Clone(f.b)
	return &g
}

func (f *Features) put32(at int, v uint32) { binary.LittleEndian.PutUint32(f.b[before+at:], v) }

// SaveSize is the size of the buffer of lazy binding, in bytes.
func (f *Features) SaveSize() uint64 { return f.u64(f.shape.save) }

// SaveAddress is where that is recorded.
func (f *Features) SaveAddress() uint64 { return f.addr + uint64(f.shape.save) }

// WithSaveSize returns them with another size of that buffer.
func (f *Features) WithSaveSize(size uint64) *Features {
	g := f.clone()
	binary.LittleEndian.PutUint64(g.b[before+f.shape.save:], size)
	return g
}

// word is a register in an entry.
type word struct{ entry, register, at int }

// words lists the registers of all entries.
func (s *shape) words() (list []word) {
	size := 16
	if s.active {
		size = 32
	}
	for entry := range s.entries {
		for register := range 4 {
			list = append(list, word{entry, register, s.array + size*entry + 4*register})
		}
	}
	return list
}

// avxFastUnalignedLoad is the bit of what glibc prefers that its memmove trusts without a
// look at AVX2 (sysdeps/x86/include/cpu-features-preferred_feature_index_1.def; before
// 2.34 sysdeps/x86/include/cpu-features.h).
func (s *shape) avxFastUnalignedLoad() uint32 {
	if s.entries > 8 {
		return 1 << 9
	}
	return 1 << 8
}

// noEntries are those of the leaves 0x19, 0x14 and 0x24, of which no flag tells.
const noEntries = 7

// On returns what glibc would have found on a CPU that has less: no bit is set that was
// not, and none stays that the CPU lacks. On one that has as much they are the same.
func (f *Features) On(c *xstate.CPU) *Features {
	g, s := f.clone(), &f.shape
	mask := func(at int, bits uint32) { g.put32(at, g.u32(at)&bits) }
	for _, w := range s.words() {
		present, usable := cpuid.GlibcMask(c, w.entry, w.register)
		mask(w.at, present)
		if s.active {
			mask(w.at+16, usable)
		}
	}
	if slices.Equal(g.b, f.b) {
		return g
	}
	for _, w := range s.words() {
		if w.entry >= noEntries {
			mask(w.at, 0)
			mask(w.at+16, 0)
		}
	}
	if s.usable != absent {
		var lacks uint32
		for i, name := range usableFlags {
			if has, _ := c.HasFlag(name); !has {
				lacks |= 1 << i
			}
		}
		mask(s.usable, ^lacks)
	}
	if has, _ := c.HasFlag("avx2"); !has {
		mask(s.preferred, ^s.avxFastUnalignedLoad())
	}
	if s.isa != absent {
		mask(s.isa, 1<<c.Level()-1) // a bit for each
	}
	return g
}

// With returns what glibc would have found on a CPU with these flags alone: for all that
// its resolvers may ever have chosen.
func (f *Features) With(flags []string) *Features {
	g, s := f.clone(), &f.shape
	c := &xstate.CPU{Flags: flags}
	for _, w := range s.words() {
		present, usable := cpuid.GlibcMask(c, w.entry, w.register)
		if present == 1<<32-1 {
			continue
		}
		g.put32(w.at, present)
		if s.active {
			g.put32(w.at+16, usable)
		}
	}
	if s.usable != absent {
		var usable uint32
		for i, name := range usableFlags {
			if slices.Contains(flags, name) {
				usable |= 1 << i
			}
		}
		g.put32(s.usable, usable)
	}
	return g
}

// Preferring returns them with other bits of what glibc prefers.
func (f *Features) Preferring(bits uint32) *Features {
	g := f.clone()
	g.put32(f.shape.preferred, bits)
	return g
}

// preferences is how many bits of what it prefers a glibc has, at least.
const preferences = 20

// fastCopyBackward is Fast_Copy_Backward in what glibc prefers (sysdeps/x86/cpu-features.h:
// of 2.33, and of 2.31). It counts without Fast_Unaligned_Copy alone.
const fastCopyBackward = 1<<1 | 1<<3

// Preferences lists bits of what glibc may prefer on another CPU: none, all, what it does
// here, AVX_Fast_Unaligned_Load among them, Fast_Copy_Backward alone, and all but one bit or
// one more than it does here.
func (f *Features) Preferences() []uint32 {
	own := f.u32(f.shape.preferred) | f.shape.avxFastUnalignedLoad()
	list := []uint32{0, 1<<32 - 1, own, fastCopyBackward}
	for bit := range preferences {
		list = append(list, own^1<<bit)
	}
	return list
}

// bytes are those of the struct, and where they lie.
func (f *Features) bytes() (b []byte, addr uint64) {
	from := min(0, f.shape.array)
	return f.b[before+from : before+f.shape.end], f.addr + uint64(from)
}

// Diff lists the words of 4 bytes in which others of the same process differ.
func (f *Features) Diff(g *Features) (words []Word) {
	a, addr := f.bytes()
	b, _ := g.bytes()
	for at := 0; at+4 <= len(a); at += 4 {
		if from, to := a[at:at+4], b[at:at+4]; !slices.Equal(from, to) {
			words = append(words, Word{Address: addr + uint64(at), Old: from, New: to})
		}
	}
	return words
}

// Word is a piece of memory, with what it holds and what it is to hold.
type Word struct {
	Address  uint64
	Old, New []byte // of one length
}

// load reads memory of the process in which these are its cpu_features.
func (f *Features) load(p *process, b []byte, addr uint64) (int, error) {
	own, start := f.bytes()
	n, err := p.read(b, addr)
	for i := range b[:n] {
		if at := addr + uint64(i) - start; at < uint64(len(own)) {
			b[i] = own[at]
		}
	}
	return n, err
}

// answer is CPUID as the features tell it.
func (f *Features) answer(leaf, subleaf uint32) (r cpuid.Regs, known bool) {
	if leaf == 0 {
		return f.zero(), true
	}
	for entry := range f.shape.entries {
		l, ok := cpuid.GlibcLeaf(entry)
		if ok && l.EAX == leaf && (l.ECX == subleaf || !cpuid.Indexed(leaf)) {
			size := 16
			if f.shape.active {
				size = 32
			}
			return f.regs(f.shape.array + size*entry), true
		}
	}
	return r, false
}

// zero is what CPUID 0 answers.
func (f *Features) zero() cpuid.Regs { return cpuid.GlibcZero(f.u32(0), f.u32(4)) }

// Empty returns them as they are before glibc has asked the CPU. A static-pie program of
// glibc before 2.33 is relocated at that time (sourceware bug 27072).
func (f *Features) Empty() *Features {
	g := f.clone()
	own, _ := g.bytes()
	clear(own)
	return g
}

// SaveFunction is a function of the loader that saves registers: it binds a symbol at its
// first call, or finds the place of a thread's variable.
type SaveFunction struct {
	Address uint64
	End     uint64
	Kind    facts.SaveKind
	TLS     bool
	Profile bool     // it saves the arguments of a call that is audited, each by itself
	Sizes   []uint64 // the words that tell it how large its buffer is
}
