package cpuid

import (
	"fmt"
	"maps"
	"regexp"
	"strconv"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// What ld.so --list-diagnostics of glibc 2.33 on prints (sysdeps/x86/dl-diagnostics-cpu.c):
// a few leaves, and from 2.39 on all, CPU by CPU, without what is zero or as on the CPU
// before.
var (
	ldsoBasic     = regexp.MustCompile(`^x86\.cpu_features\.basic\.(\w+)=0x([0-9a-f]{1,8})$`)
	ldsoFeatures  = regexp.MustCompile(`^x86\.cpu_features\.features\[0x([0-9a-f]{1,4})\]\.(cpuid|active|usable)\[0x([0-3])\]=0x([0-9a-f]{1,8})$`)
	ldsoProcessor = regexp.MustCompile(`^x86\.processor\[0x([0-9a-f]{1,8})\]\.cpuid\.(?:subleaf_)?eax\[0x([0-9a-f]{1,8})\](?:\.ecx\[0x([0-9a-f]{1,8})\])?\.(e[abcd]x)=0x([0-9a-f]{1,8})$`)
	ldsoXGETBV    = regexp.MustCompile(`^x86\.processor\[0x[0-9a-f]{1,8}\]\.xgetbv\.ecx\[0x0\]=0x([0-9a-f]{1,16})$`)
)

// ldsoLeaves are the leaves of features (sysdeps/x86/bits/platform/x86.h).
var ldsoLeaves = [...]Leaf{
	{leafFeatures, 0}, {leafStruct, 0}, {leafExt + 1, 0}, {leafXState, 1}, {leafExt + 7, 0}, {leafExt + 8, 0},
	{leafStruct, 1}, {0x19, 0}, {0x14, 0}, {0x24, 0},
}

// ldsoVendors are the vendors of basic.kind, as CPUID leaf 0 spells them.
var ldsoVendors = map[uint32]string{1: "GenuineIntel", 2: "AuthenticAMD", 3: "  Shanghai  "}

// withXCR0 is a recorded CPU of which XCR0 is known.
type withXCR0 struct {
	Recorded
	xcr0 xstate.Features
}

func (w withXCR0) XCR0() (xstate.Features, bool) { return w.xcr0, true }

func parseLdSo(lines []string) (*xstate.CPU, error) {
	basic := map[string]uint32{}
	features := Recorded{}
	active := Recorded{}
	var all []Recorded
	var xcr0 *xstate.Features
	for i, line := range lines {
		if m := ldsoBasic.FindStringSubmatch(line); m != nil {
			basic[m[1]] = hex32(m[2])
		} else if m := ldsoFeatures.FindStringSubmatch(line); m != nil {
			table := features
			if m[2] != "cpuid" {
				table = active
			}
			if at := hex32(m[1]); int(at) < len(ldsoLeaves) {
				table.put(ldsoLeaves[at], "e"+string("abcd"[hex32(m[3])])+"x", hex32(m[4]))
			}
		} else if m := ldsoProcessor.FindStringSubmatch(line); m != nil {
			n := int(hex32(m[1]))
			switch {
			case n == len(all) && n == 0:
				all = append(all, Recorded{})
			case n == len(all): // as the CPU before, but for what follows
				all = append(all, maps.Clone(all[n-1]))
			case n != len(all)-1:
				return nil, &TextError{Form: "ld.so --list-diagnostics", Line: i + 1, Reason: fmt.Sprintf("processor %d out of turn", n)}
			}
			if len(all)*len(all[n]) > maxCells {
				return nil, &TextError{Form: "ld.so --list-diagnostics", Line: i + 1, Reason: "more leaves than any machine has"}
			}
			all[n].put(Leaf{hex32(m[2]), hex32(m[3])}, m[4], hex32(m[5]))
		} else if m := ldsoXGETBV.FindStringSubmatch(line); m != nil {
			v, _ := strconv.ParseUint(m[1], 16, 64)
			set := xstate.Features(v) & xstate.Known
			if xcr0 != nil {
				set &= *xcr0
			}
			xcr0 = &set
		}
	}
	if len(all) > 0 {
		cpus := make([]*xstate.CPU, len(all))
		for i, r := range all {
			r.fillZeros()
			if cpus[i] = CPU(r); xcr0 != nil {
				cpus[i] = CPU(withXCR0{r, *xcr0})
			}
		}
		return sameOrCommon(cpus), nil
	}
	if len(features) == 0 {
		return nil, &TextError{Form: "ld.so --list-diagnostics", Reason: "no line x86.cpu_features.features is whole"}
	}
	if highest, ok := basic["max_cpuid"]; ok {
		zero := Regs{EAX: highest}
		if id := ldsoVendors[basic["kind"]]; id != "" {
			zero.EBX, zero.EDX, zero.ECX = le32(id), le32(id[4:]), le32(id[8:])
		}
		features[Leaf{}] = zero
	}
	return CPU(withXCR0{features, activeXCR0(features, active)}), nil
}

// maxCells bounds the leaves of all CPUs together.
const maxCells = 1 << 20

func hex32(s string) uint32 {
	v, _ := strconv.ParseUint(s, 16, 32) // the expression has seen to it
	return uint32(v)
}

func le32(s string) uint32 {
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

// put sets one register of a leaf.
func (r Recorded) put(at Leaf, register string, v uint32) {
	regs := r[at]
	*map[string]*uint32{"eax": &regs.EAX, "ebx": &regs.EBX, "ecx": &regs.ECX, "edx": &regs.EDX}[register] = v
	r[at] = regs
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
