package cpuid

import (
	"fmt"
	"maps"
	"strconv"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// What ld.so --list-diagnostics of glibc 2.33 on prints (sysdeps/x86/dl-diagnostics-cpu.c):
// a few leaves, and from 2.39 on all, CPU by CPU, without what is zero or as on the CPU
// before.
var (
	ldsoBasic     = pattern(`^x86\.cpu_features\.basic\.(\w+)=0x([0-9a-f]{1,8})$`)
	ldsoFeatures  = pattern(`^x86\.cpu_features\.features\[0x([0-9a-f]{1,4})\]\.(cpuid|active|usable)\[0x([0-3])\]=0x([0-9a-f]{1,8})$`)
	ldsoProcessor = pattern(`^x86\.processor\[0x([0-9a-f]{1,8})\]\.cpuid\.(?:subleaf_)?eax\[0x([0-9a-f]{1,8})\](?:\.ecx\[0x([0-9a-f]{1,8})\])?\.(e[abcd]x)=0x([0-9a-f]{1,8})$`)
	ldsoXGETBV    = pattern(`^x86\.processor\[0x[0-9a-f]{1,8}\]\.xgetbv\.ecx\[0x0\]=0x([0-9a-f]{1,16})$`)
)

func parseLdSo(lines []string) (*xstate.CPU, error) {
	basic := map[string]uint32{}
	features := Recorded{}
	active := Recorded{}
	var all []Recorded
	var xcr0 *xstate.Features
	for i, line := range lines {
		if m := ldsoBasic().FindStringSubmatch(line); m != nil {
			basic[m[1]] = hex32(m[2])
		} else if m := ldsoFeatures().FindStringSubmatch(line); m != nil {
			table := features
			if m[2] != "cpuid" {
				table = active
			}
			if at, ok := GlibcLeaf(int(hex32(m[1]))); ok {
				table.put(at, "e"+string("abcd"[hex32(m[3])])+"x", hex32(m[4]))
			}
		} else if m := ldsoProcessor().FindStringSubmatch(line); m != nil {
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
		} else if m := ldsoXGETBV().FindStringSubmatch(line); m != nil {
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
	return Glibc{basic["kind"], basic["max_cpuid"], features, active}.CPU(), nil
}

// maxCells bounds the leaves of all CPUs together.
const maxCells = 1 << 20

func hex32(s string) uint32 {
	v, _ := strconv.ParseUint(s, 16, 32) // the expression has seen to it
	return uint32(v)
}

// put sets one register of a leaf.
func (r Recorded) put(at Leaf, register string, v uint32) {
	regs := r[at]
	*map[string]*uint32{"eax": &regs.EAX, "ebx": &regs.EBX, "ecx": &regs.ECX, "edx": &regs.EDX}[register] = v
	r[at] = regs
}
