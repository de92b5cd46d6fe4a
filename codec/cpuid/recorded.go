package cpuid

import (
	"slices"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Leaf is a CPUID leaf and sub-leaf: EAX and ECX going in.
type Leaf struct{ EAX, ECX uint32 }

// Recorded is a CPU from a table of its answers.
type Recorded map[Leaf]Regs

// CPUID implements [Querier]. Of what is not in the table, sub-leaves that the CPU does
// not have read as zero, and the rest is unknown.
func (r Recorded) CPUID(leaf, sub uint32) (Regs, bool) {
	v, ok := r[Leaf{leaf, sub}]
	if !ok && leaf == leafXState && sub > 1 {
		main, known := r[Leaf{leafXState, 0}]
		listed := uint64(main.EDX)<<32 | uint64(main.EAX)
		return v, known && listed>>sub&1 == 0
	}
	return v, ok
}

// XCR0 implements [Querier]. A table of CPUID answers has no XCR0, so it is what
// Linux would enable: the user components of leaf 0xD whose feature flag is not known
// to be missing (so Zen 2, which lists PKRU without PKU, does not get it), but no more
// than fit the size of the enabled ones, which leaf 0xD did record.
func (r Recorded) XCR0() (xstate.Features, bool) {
	rd := newReader(r)
	main, known := rd.leaf(leafXState, 0)
	if !known {
		return 0, false
	}
	w := rd.words()
	flags := w.flags()
	var set xstate.Features
	for f := range ((xstate.Features(main.EDX)<<32 | xstate.Features(main.EAX)) & xstate.Known).All() {
		name := f.Flag()
		if f == xstate.PKRU {
			name = "ospke"
		}
		flag, ok := xstate.LookupFlag(name)
		if ok && (slices.Contains(flags, name) || !w.known[flag.Word]) {
			set |= f.Mask()
		}
	}
	if l, known := layout(r, set); known {
		set, _ = fit(set, l, int(main.EBX))
		return set, true
	}
	intel, exact := fit(set, xstate.IntelLayout(set), int(main.EBX))
	if amd, ok := fit(set, xstate.AMDLayout(set), int(main.EBX)); ok && (!exact || rd.vendor == "amd" || rd.vendor == "hygon") {
		return amd, true
	}
	return intel, true
}

// fit takes the highest components away from set until the rest fits an area of size
// bytes; exact reports that it ends there. The parts of AVX-512, AMX and MPX go
// together.
func fit(set xstate.Features, l xstate.Layout, size int) (fits xstate.Features, exact bool) {
	l = slices.Clone(l)
	for len(l) > 0 && l.End(set) > size {
		top := slices.MaxFunc(l, func(a, b xstate.Placement) int { return a.Offset + a.Size - b.Offset - b.Size })
		for f := range set.All() {
			if f.Flag() == top.Feature.Flag() {
				set &^= f.Mask()
			}
		}
		l = slices.DeleteFunc(l, func(p xstate.Placement) bool { return !set.Has(p.Feature) })
	}
	return set, l.End(set) == size
}
