package xstate

import (
	"encoding/binary"
	"fmt"
)

// Offsets in an XSAVE area (SDM vol. 1, 13.4.1 and 13.4.2).
const (
	offSWReserved = 464 // ptrace and core notes: the kernel's user XCR0 mask
	AreaBVOffset  = 512 // of XSTATE_BV
	offXCompBV    = 520
	compacted     = Features(1) << 63
)

// AreaError is an XSAVE area that cannot be read or built.
type AreaError struct {
	Offset int    // byte in the area
	Field  string // what lies there
	Reason string
}

func (e *AreaError) Error() string {
	return fmt.Sprintf("offset %#x: %s: %s", e.Offset, e.Field, e.Reason)
}

// AreaXCR0 returns the mask of usable components that Linux stores in the area
// of a ptrace regset or core note (arch/x86/kernel/fpu/regset.c); it is the
// machine's, not the thread's. The result is 0 for an area from elsewhere.
func AreaXCR0(b []byte) Features {
	if len(b) < legacySize {
		return 0
	}
	return Features(binary.LittleEndian.Uint64(b[offSWReserved:]))
}

// SetAreaXCR0 is the inverse of [AreaXCR0].
func SetAreaXCR0(b []byte, set Features) {
	binary.LittleEndian.PutUint64(b[offSWReserved:], uint64(set))
}

// MinArea is the size of the smallest XSAVE area: legacy area and header.
const MinArea = headerEnd

// AreaBV returns XSTATE_BV of an XSAVE area, 0 if b is too short for one.
func AreaBV(b []byte) Features {
	if len(b) < headerEnd {
		return 0
	}
	return Features(binary.LittleEndian.Uint64(b[AreaBVOffset:]))
}

// SetAreaBV sets XSTATE_BV of an XSAVE area, which is at least [MinArea] long.
func SetAreaBV(b []byte, bv Features) { binary.LittleEndian.PutUint64(b[AreaBVOffset:], uint64(bv)) }

// AreaCompacted reports whether an XSAVE area is of compacted format, whose layout
// follows from its own header.
func AreaCompacted(b []byte) bool {
	return len(b) >= headerEnd && Features(binary.LittleEndian.Uint64(b[offXCompBV:]))&compacted != 0
}

// ParseFXArea reads a 512-byte FXSAVE area. The error is an [*AreaError].
func ParseFXArea(b []byte) (*State, error) {
	if len(b) < legacySize {
		return nil, &AreaError{len(b), "legacy area", fmt.Sprintf("want %d bytes, have %d", legacySize, len(b))}
	}
	s := NewState(FormatFXSave)
	s.FX = FXArea(b)
	s.scrub()
	return s, nil
}

// ParseArea reads an XSAVE area of standard or compacted format. The layout gives
// the places of a standard-format area and the sizes of both; it must have every
// component of the table that XSTATE_BV names, and b must reach its end.
//
// A clear bit means INIT whatever the bytes say, and MXCSR has its own rules: in
// standard format it is valid if SSE or AVX is set, in compacted format if SSE is
// (Linux copy_uabi_to_xstate; SDM vol. 1, 13.8 and 13.12). The state that is
// returned has those INIT values in place. The error is an [*AreaError].
func ParseArea(b []byte, l Layout) (*State, error) {
	if len(b) < headerEnd {
		return nil, &AreaError{len(b), "header", fmt.Sprintf("want %d bytes, have %d", headerEnd, len(b))}
	}
	bv := Features(binary.LittleEndian.Uint64(b[AreaBVOffset:]))
	comp := Features(binary.LittleEndian.Uint64(b[offXCompBV:]))
	for i := offXCompBV + 8; i < headerEnd; i++ {
		if b[i] != 0 {
			return nil, &AreaError{i, "header", "reserved byte is not zero"}
		}
	}
	s := NewState(FormatXSave)
	mxcsrValid := Legacy&^X87.Mask() | AVX.Mask()
	switch {
	case comp&compacted != 0:
		if extra := bv &^ (comp &^ compacted); extra != 0 {
			return nil, &AreaError{AreaBVOffset, "xstate_bv", fmt.Sprintf("%v is not in xcomp_bv", extra)}
		}
		l = l.Of(b)
		mxcsrValid = SSE.Mask()
	case comp != 0:
		return nil, &AreaError{offXCompBV, "xcomp_bv", fmt.Sprintf("%#x is neither zero nor compacted format", uint64(comp))}
	}
	for f := range (bv & Known &^ Legacy).All() {
		if _, ok := l.Find(f); !ok {
			return nil, &AreaError{AreaBVOffset, f.String(), "in use, and the layout has no place for it"}
		}
	}
	s.BV = bv
	s.FX = FXArea(b)
	s.scrub()
	initial := InitFXArea()
	mxcsr := s.FX.MXCSR()
	s.FX.Copy(&initial, Legacy&^bv)
	if bv&mxcsrValid != 0 {
		s.FX.SetMXCSR(mxcsr)
	}
	for _, p := range l {
		c := p.Feature.Component()
		if c == nil || Legacy.Has(p.Feature) {
			continue // no component that a State holds the data of
		}
		if !p.fits(len(b)) {
			if !bv.Has(p.Feature) {
				continue
			}
			return nil, &AreaError{len(b), p.Feature.String(),
				fmt.Sprintf("in use, and its %d bytes at %#x are not in the area", p.Size, p.Offset)}
		}
		d := make([]byte, c.Size)
		if bv.Has(p.Feature) {
			copy(d, b[p.Offset:][:p.Size])
		}
		s.data[p.Feature] = d
	}
	return s, nil
}

// Of returns the layout of an area: l itself, or what follows from the header of one of
// compacted format.
func (l Layout) Of(b []byte) Layout {
	if !AreaCompacted(b) {
		return l
	}
	return l.CompactLayout(Features(binary.LittleEndian.Uint64(b[offXCompBV:])) &^ compacted)
}

// Beyond returns the components that do not lie whole in an area of size bytes.
func (l Layout) Beyond(size int) (set Features) {
	for _, p := range l {
		if !p.fits(size) {
			set |= p.Feature.Mask()
		}
	}
	return set
}

// fits reports whether the component lies in the extended region of an area of
// size bytes. A layout may come from a profile that somebody wrote.
func (p Placement) fits(size int) bool {
	return p.Offset >= headerEnd && p.Offset <= size && p.Size >= 0 && p.Size <= size-p.Offset
}

// scrub clears the bytes behind the registers, which are no part of the state:
// the kernel and signal frames keep words of their own there.
func (s *State) scrub() { clear(s.FX[len(s.FX.Registers()):]) }

// MarshalArea builds a standard-format XSAVE area of size bytes by the layout of
// the machine that is to load it. Every component whose bit is set in XSTATE_BV
// must have a place and its full data. x87 and SSE are always marked in use, so
// that the legacy bytes are loaded as they are, and MXCSR with them.
//
// The error is an [*AreaError].
func (s *State) MarshalArea(l Layout, size int) ([]byte, error) {
	if s.Format == FormatNone || size < headerEnd {
		return nil, &AreaError{0, "area", fmt.Sprintf("format %v does not fit %d bytes", s.Format, size)}
	}
	b := make([]byte, size)
	copy(b, s.FX[:])
	bv := s.BV | Legacy
	SetAreaBV(b, bv)
	for f := range (bv &^ Legacy).All() {
		p, ok := l.Find(f)
		d := s.Data(f)
		switch {
		case !ok:
			return nil, &AreaError{AreaBVOffset, f.String(), "the target has no place for it"}
		case !p.fits(size):
			return nil, &AreaError{p.Offset, f.String(), fmt.Sprintf("not in the area of %d bytes", size)}
		case len(d) != p.Size:
			return nil, &AreaError{p.Offset, f.String(), fmt.Sprintf("want %d bytes, have %d", p.Size, len(d))}
		}
		copy(b[p.Offset:], d)
	}
	return b, nil
}

// Keep gives an area what it is to keep of old, the area of the thread that it goes
// into: MXCSR_MASK, which is the CPU's, and those components of set that the layout
// has a place for, with their bits. Both are of standard format and at least [MinArea]
// long.
func (l Layout) Keep(area, old []byte, set Features) {
	copy(area[offMXCSRMask:offST], old[offMXCSRMask:])
	bv := AreaBV(area)
	for _, p := range l {
		if set.Has(p.Feature) && p.fits(min(len(area), len(old))) {
			copy(area[p.Offset:][:p.Size], old[p.Offset:])
			bv = bv&^p.Feature.Mask() | AreaBV(old)&p.Feature.Mask()
		}
	}
	SetAreaBV(area, bv)
}

// usualXCR0 is what machines enable, the most likely first, for an area that does not
// name its own: CRIU's coredump script writes none, nor does the XSAVE instruction.
var usualXCR0 = []Features{0x7, 0x1f, 0xe7, 0xff, 0x207, 0x21f, 0x2e7, 0x2ff, 0x600e7, 0x602e7, 0x200e7, 0x202e7}

// GuessAreaLayout is [GuessLayout] for an area whose XCR0 is 0 if unknown: then it goes
// by what machines of that size have. What is in use has a place in it.
func GuessAreaLayout(b []byte, xcr0 Features) Layout {
	bv := AreaBV(b)
	candidates := []Features{xcr0}
	if xcr0 == 0 {
		candidates = append([]Features{bv | Legacy}, usualXCR0...)
	}
	for _, xcr0 := range candidates {
		if bv&Known&^(xcr0|Legacy) != 0 {
			continue
		}
		if l := GuessLayout(xcr0, len(b)); l != nil {
			return l
		}
	}
	return nil
}
