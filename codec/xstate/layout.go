package xstate

import "slices"

// Placement is where a machine puts one component in a standard-format area.
type Placement struct {
	Feature Feature
	Offset  int // bytes from the start of the area
	Size    int // bytes
	Align64 bool
}

// Overlaps reports whether two components share a byte.
func (p Placement) Overlaps(q Placement) bool {
	return p.Offset < q.Offset+q.Size && q.Offset < p.Offset+p.Size
}

// Layout is the placement of the extended components, as CPUID leaf 0xD tells it,
// in ascending order of their bits. Offsets need not ascend: APX lies where MPX
// lay. The nil Layout is an unknown one.
type Layout []Placement

// Find returns the placement of f.
func (l Layout) Find(f Feature) (Placement, bool) {
	i := slices.IndexFunc(l, func(p Placement) bool { return p.Feature == f })
	if i < 0 {
		return Placement{}, false
	}
	return l[i], true
}

// headerEnd is where the extended region starts: legacy area and XSAVE header.
const headerEnd = legacySize + 64

// End returns the end in bytes of the highest of the set's components, at least
// 576, the end of the XSAVE header. Components without a placement do not count.
func (l Layout) End(set Features) int {
	end := headerEnd
	for _, p := range l {
		if set.Has(p.Feature) {
			end = max(end, p.Offset+p.Size)
		}
	}
	return end
}

// EndsAt reports whether one of the components ends at size, or the XSAVE header does:
// an area of that size holds what lies below whole, and nothing else.
func (l Layout) EndsAt(size int) bool {
	return size == headerEnd || slices.ContainsFunc(l, func(p Placement) bool { return p.Offset+p.Size == size })
}

// IntelLayout and AMDLayout return the placements that CPUs of the two vendors
// give the components of set, for a machine whose own layout was not recorded.
func IntelLayout(set Features) Layout {
	return vendorLayout(set, func(c *Component) int { return c.Intel })
}

// AMDLayout is [IntelLayout] for AMD's packing.
func AMDLayout(set Features) Layout {
	return vendorLayout(set, func(c *Component) int { return c.AMD })
}

func vendorLayout(set Features, offset func(*Component) int) Layout {
	l := Layout{} // not nil: known, even if there is nothing in it
	for f := range (set & Known &^ Legacy).All() {
		c := f.Component()
		if off := offset(c); off != 0 {
			l = append(l, Placement{f, off, c.Size, c.Align64})
		}
	}
	return l
}

// GuessLayout finds the layout of a standard-format area of which only the size
// in bytes and XCR0 are known: of Intel's and AMD's the one whose end is size. It
// returns nil if neither fits.
func GuessLayout(xcr0 Features, size int) Layout {
	for _, l := range []Layout{IntelLayout(xcr0), AMDLayout(xcr0)} {
		if l.End(Known) == size && len(l) == len(IntelLayout(xcr0)) {
			return l
		}
	}
	return nil
}

// CompactLayout returns where the compacted format puts the components of
// xcompBV: one after the other in ascending order, from byte 576 on, rounded up
// to 64 where the component asks for it (SDM vol. 1, 13.4.3). Sizes come from l,
// or where it lacks the component from the table.
func (l Layout) CompactLayout(xcompBV Features) Layout {
	var out Layout
	at := headerEnd
	for f := range (xcompBV & Known &^ Legacy).All() {
		c := f.Component()
		p := Placement{f, 0, c.Size, c.Align64}
		if q, ok := l.Find(f); ok {
			p.Size, p.Align64 = q.Size, q.Align64
		}
		if p.Align64 {
			at = (at + 63) &^ 63
		}
		p.Offset = at
		at += p.Size
		out = append(out, p)
	}
	return out
}
