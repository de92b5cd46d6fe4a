package xstate

import (
	"fmt"
	"iter"
	"math/bits"
	"strings"
)

// Feature is the number of a state component: its bit in XCR0, IA32_XSS and
// XSTATE_BV.
type Feature uint8

// The state components of Intel SDM vol. 1, 13.1, named as in the kernel's
// enum xfeature.
const (
	X87      Feature = 0
	SSE      Feature = 1
	AVX      Feature = 2
	BNDREGS  Feature = 3
	BNDCSR   Feature = 4
	Opmask   Feature = 5
	ZMMHi256 Feature = 6
	Hi16ZMM  Feature = 7
	PT       Feature = 8
	PKRU     Feature = 9
	PASID    Feature = 10
	CETUser  Feature = 11
	CETSup   Feature = 12
	HDC      Feature = 13
	UINTR    Feature = 14
	LBR      Feature = 15
	HWP      Feature = 16
	TileCfg  Feature = 17
	TileData Feature = 18
	APX      Feature = 19
)

// String returns the component's name, or "bit 42" where the table has none.
func (f Feature) String() string {
	if int(f) < len(components) {
		return components[f].Name
	}
	return fmt.Sprintf("bit %d", uint8(f))
}

// Mask returns the feature as a one-bit set.
func (f Feature) Mask() Features { return 1 << f }

// ParseFeature finds a component by its name, without regard to case.
func ParseFeature(name string) (Feature, bool) {
	for i := range components {
		if strings.EqualFold(components[i].Name, name) {
			return components[i].Feature, true
		}
	}
	return 0, false
}

// ParseFeatures reads a comma-separated list of component names. The error names
// the first name that is not in the table.
func ParseFeatures(list string) (Features, error) {
	var set Features
	for name := range strings.SplitSeq(list, ",") {
		f, ok := ParseFeature(strings.TrimSpace(name))
		if !ok {
			return 0, &UnknownFeatureError{Name: strings.TrimSpace(name)}
		}
		set |= f.Mask()
	}
	return set, nil
}

// UnknownFeatureError is a component name that the table does not have.
type UnknownFeatureError struct{ Name string }

func (e *UnknownFeatureError) Error() string {
	return fmt.Sprintf("unknown state component %q", e.Name)
}

// Features is a set of state components: the shape of XCR0 and XSTATE_BV.
type Features uint64

const (
	// Legacy is the part of the state that FXSAVE stores.
	Legacy Features = 1<<X87 | 1<<SSE
	// AVX512 is the three components that AVX-512 adds to AVX.
	AVX512 Features = 1<<Opmask | 1<<ZMMHi256 | 1<<Hi16ZMM
	// AMX is the two components of the tile registers.
	AMX Features = 1<<TileCfg | 1<<TileData
	// Known is every component in the table.
	Known Features = 1<<numComponents - 1
)

// Has reports whether f is in the set.
func (s Features) Has(f Feature) bool { return s&f.Mask() != 0 }

// All yields the set's members in ascending order, unknown bits included.
func (s Features) All() iter.Seq[Feature] {
	return func(yield func(Feature) bool) {
		for s != 0 {
			f := Feature(bits.TrailingZeros64(uint64(s)))
			if !yield(f) {
				return
			}
			s &^= f.Mask()
		}
	}
}

// Names returns the names of the set's members, "bit 42" for unknown ones.
func (s Features) Names() []string {
	names := make([]string, 0, bits.OnesCount64(uint64(s)))
	for f := range s.All() {
		names = append(names, f.String())
	}
	return names
}

// String joins the names with "|"; unknown bits stay visible as one mask.
func (s Features) String() string {
	names := (s & Known).Names()
	if rest := s &^ Known; rest != 0 {
		names = append(names, fmt.Sprintf("%#x", uint64(rest)))
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, "|")
}
