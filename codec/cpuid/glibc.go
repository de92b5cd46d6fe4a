package cpuid

import (
	"maps"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Glibc is what glibc's cpu_features record of the CPU that a process was started on
// (sysdeps/x86/include/cpu-features.h).
type Glibc struct {
	Kind    uint32 // enum cpu_features_kind: the vendor
	MaxLeaf uint32 // CPUID 0, EAX; 0 if unknown
	CPUID   Recorded
	// Active is what of it glibc calls active, usable of old; empty before 2.32.
	Active Recorded
}

// glibcLeaves are the leaves of features (sysdeps/x86/bits/platform/x86.h).
var glibcLeaves = [...]Leaf{
	{leafFeatures, 0}, {leafStruct, 0}, {leafExt + 1, 0}, {leafXState, 1}, {leafExt + 7, 0}, {leafExt + 8, 0},
	{leafStruct, 1}, {0x19, 0}, {0x14, 0}, {0x24, 0},
}

// GlibcLeaf is the leaf of an entry of cpu_features; ok is false for one that no release
// that is known has.
func GlibcLeaf(entry int) (leaf Leaf, ok bool) {
	if entry < 0 || entry >= len(glibcLeaves) {
		return Leaf{}, false
	}
	return glibcLeaves[entry], true
}

// Indexed reports whether the answer to a leaf depends on ECX (SDM vol. 2A, CPUID; APM
// vol. 3, appendix E): for the others a program leaves there what it had.
func Indexed(leaf uint32) bool {
	switch leaf {
	case 4, leafStruct, 0xb, leafXState, 0xf, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1a, 0x1b, 0x1d, 0x1e, 0x1f, 0x20, 0x23, 0x24,
		leafExt + 0x1d, leafExt + 0x20, leafExt + 0x26:
		return true
	}
	return false
}

// glibcWords are the words of [xstate.Flag] that an entry of cpu_features holds, in the
// order EAX to EDX; none holds something else.
var glibcWords = [...][4]int{
	{none, none, xstate.Word1ECX, xstate.Word1EDX},
	{none, xstate.Word7EBX, xstate.Word7ECX, xstate.Word7EDX},
	{none, none, xstate.Word8000_0001C, xstate.Word8000_0001D},
	{xstate.WordD1EAX, none, none, none},
	{none, xstate.Word8000_0007B, none, none},
	{none, xstate.Word8000_0008B, none, none},
	{xstate.Word71EAX, none, none, xstate.Word71EDX},
}

const none = -1

// BaseEDX are bits of CPUID 1, EDX, that every x86-64 CPU has: FPU TSC MSR CX8 CMOV MMX
// FXSR SSE SSE2.
const BaseEDX = 1<<0 | 1<<4 | 1<<5 | 1<<8 | 1<<15 | 1<<23 | 1<<24 | 1<<25 | 1<<26

// GlibcMask returns which bits of a register, EAX to EDX by number, of an entry of
// cpu_features may be set on a CPU: in what CPUID answers, and in what of it is usable.
// Of a register that holds no features, all may; what is not known of the CPU, it has not.
func GlibcMask(c *xstate.CPU, entry, register int) (present, usable uint32) {
	if entry >= len(glibcWords) || glibcWords[entry][register] == none {
		return 1<<32 - 1, 1<<32 - 1
	}
	word := glibcWords[entry][register]
	var named uint32
	for f := range xstate.AllFlags() {
		if int(f.Word) != word {
			continue
		}
		named |= 1 << f.Bit
		has, _ := c.HasFlag(f.Name)
		if f.Name == "osxsave" && c.XSave != nil { // /proc/cpuinfo does not print it
			has = *c.XSave
		}
		if has {
			usable |= 1 << f.Bit
		}
	}
	if entry == 0 && register == 3 {
		usable |= BaseEDX
	}
	present = usable
	if word < len(c.Capability) {
		present |= c.Capability[word]
	}
	return present, present&^named | usable
}

// glibcVendors are the vendors of Kind, as CPUID leaf 0 spells them.
var glibcVendors = map[uint32]string{1: "GenuineIntel", 2: "AuthenticAMD", 3: "  Shanghai  "}

// GlibcZero is what CPUID 0 answers on a CPU of a kind.
func GlibcZero(kind, maxLeaf uint32) Regs {
	zero := Regs{EAX: maxLeaf}
	if id := glibcVendors[kind]; id != "" {
		zero.EBX, zero.EDX, zero.ECX = le32(id), le32(id[4:]), le32(id[8:])
	}
	return zero
}

// withXCR0 is a recorded CPU of which XCR0 is known.
type withXCR0 struct {
	Recorded
	xcr0 xstate.Features
}

func (w withXCR0) XCR0() (xstate.Features, bool) { return w.xcr0, true }

// CPU is the CPU that was recorded.
func (g Glibc) CPU() *xstate.CPU {
	features := maps.Clone(g.CPUID)
	if g.MaxLeaf != 0 {
		features[Leaf{}] = GlibcZero(g.Kind, g.MaxLeaf)
	}
	if len(g.Active) == 0 {
		return CPU(features)
	}
	return CPU(withXCR0{features, activeXCR0(g.CPUID, g.Active)})
}

// ActiveFlags are the flags that glibc calls active: those that it knows of, usable on
// the CPU, and not masked by GLIBC_TUNABLES.
func (g Glibc) ActiveFlags() []string { return newReader(g.Active).words().flags() }

func le32(s string) uint32 {
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

// activeXCR0 infers XCR0 from what glibc calls active, usable of old: a feature whose
// component is not enabled is not (sysdeps/x86/cpu-features.c, update_active). MPX and
// PKRU it does not judge, and CPUID does: OSPKE is the kernel's.
func activeXCR0(features, active Recorded) xstate.Features {
	set := xstate.Legacy
	seven := active[Leaf{leafStruct, 0}]
	for _, c := range []struct {
		on  bool
		set xstate.Features
	}{
		{active[Leaf{leafFeatures, 0}].ECX>>28&1 != 0, xstate.AVX.Mask()},
		{seven.EBX>>16&1 != 0, xstate.AVX512},
		{seven.EDX>>24&1 != 0, xstate.AMX},
		{features[Leaf{leafStruct, 0}].EBX>>14&1 != 0, xstate.BNDREGS.Mask() | xstate.BNDCSR.Mask()},
		{features[Leaf{leafStruct, 0}].ECX>>4&1 != 0, xstate.PKRU.Mask()},
	} {
		if c.on {
			set |= c.set
		}
	}
	return set
}
