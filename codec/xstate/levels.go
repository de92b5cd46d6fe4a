package xstate

import (
	"slices"
	"strings"
)

// level is a micro-architecture level of the x86-64 psABI. What a level does not
// name it does not guarantee, so it counts as missing; but of a level with XSAVE
// nothing is known of xsavec and xgetbv1, which no level names.
type level struct {
	name  string
	flags string   // beyond the level before
	xcr0  Features // 0: XSAVE is not guaranteed
}

// levels is the psABI's table (x86-64 psABI, 3.1.1, micro-architecture levels),
// cumulative, by Linux flag names: OSFXSR has none, SCE is syscall, LZCNT is abm.
// The first level has besides what every CPU in 64-bit mode has though the psABI
// does not say so.
var levels = [...]level{
	{"x86-64", "cmov cx8 fpu fxsr mmx syscall sse sse2 " +
		"clflush cpuid lm nopl tsc", 0},
	{"x86-64-v2", "cx16 lahf_lm popcnt pni ssse3 sse4_1 sse4_2", 0},
	{"x86-64-v3", "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave osxsave", Legacy | 1<<AVX},
	{"x86-64-v4", "avx512f avx512bw avx512cd avx512dq avx512vl", Legacy | 1<<AVX | AVX512},
}

// LevelNames returns the names that [ByName] knows, in ascending order.
func LevelNames() []string {
	names := make([]string, len(levels))
	for i := range levels {
		names[i] = levels[i].name
	}
	return names
}

// ByName returns a new CPU that has what the named level of the x86-64 psABI
// guarantees and nothing more: no XSAVE below x86-64-v3. Sizes, layout, MXCSR
// mask, vendor and CPUID words are unknown.
func ByName(name string) (*CPU, bool) {
	i := slices.IndexFunc(levels[:], func(l level) bool { return l.name == name })
	if i < 0 {
		return nil, false
	}
	c := &CPU{
		Name:      name,
		FXSave:    new(true),
		XSave:     new(levels[i].xcr0 != 0),
		XFeatures: new(levels[i].xcr0),
	}
	for _, l := range levels[:i+1] {
		c.Flags = append(c.Flags, strings.Fields(l.flags)...)
	}
	slices.Sort(c.Flags)
	if *c.XSave {
		c.UnknownFlags = []string{"xgetbv1", "xsavec"}
	}
	return c, true
}

// Level returns the highest level of the x86-64 psABI that the CPU is known to have: 1 is
// x86-64, 4 is x86-64-v4, and 0 is none.
func (c *CPU) Level() int {
	for i, l := range levels {
		for flag := range strings.FieldsSeq(l.flags) {
			if yes, _ := c.Executes(flag); !yes {
				return i
			}
		}
	}
	return len(levels)
}
