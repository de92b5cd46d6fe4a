package xstate

import (
	"cmp"
	"fmt"
)

// Release is a release of CRIU, such as 3.11 or 3.17.1.
type Release struct{ Major, Minor, Patch int }

func (r Release) String() string {
	if r.Patch == 0 {
		return fmt.Sprintf("%d.%d", r.Major, r.Minor)
	}
	return fmt.Sprintf("%d.%d.%d", r.Major, r.Minor, r.Patch)
}

// Before reports whether r is older than o.
func (r Release) Before(o Release) bool {
	return cmp.Or(cmp.Compare(r.Major, o.Major), cmp.Compare(r.Minor, o.Minor), cmp.Compare(r.Patch, o.Patch)) < 0
}

// NewestCRIU is the newest release that the table of components speaks of.
var NewestCRIU = Release{4, 3, 0}

// CRIUFields returns the components that core images have a field for.
func CRIUFields() Features {
	return with(func(c *Component) bool { return c.CRIU.Number != 0 })
}

// CRIURestores returns the extended components that a release of CRIU stores, and
// restores where the host has them.
func CRIURestores(r Release) Features {
	return with(func(c *Component) bool { return c.CRIU.Since != Release{} && !r.Before(c.CRIU.Since) })
}

// CPURecord is what CRIU compares of a cpuinfo.img, besides the vendor.
type CPURecord struct {
	Capability []uint32 // 12 words in version 1 of the file, 19 in version 2
	// XFeaturesMask, XSaveSize and XSaveSizeMax are nil in images of CRIU before
	// 3.11.
	XFeaturesMask           *uint64
	XSaveSize, XSaveSizeMax *uint32
}

// criuMask is the components that can occur in the xfeatures_mask of CRIU 3.11 to
// 4.3. It knows components up to bit 10, keeps the user ones, and then clears the
// supervisor ones by a mask in which HDC stands as its number, 10, instead of as
// its bit: that takes away SSE (bit 1) and BNDREGS (bit 3)
// (compel/include/uapi/asm/fpu.h, XFEATURE_MASK_SUPERVISOR).
var criuMask = X87.Mask() | CRIURestores(NewestCRIU)

// CRIUMask returns what CRIU from 3.11 on records and compares as xfeatures_mask on the
// CPU: the hardware's list of components, not XCR0, without those whose feature
// flag is off and without what its mask never has. It is 0 where the hardware has
// no XSAVE; where only the kernel keeps it off, CRIU does not notice. known is
// false if the list or the flags were not recorded.
func (c *CPU) CRIUMask() (mask uint64, known bool) {
	if len(c.Capability) <= Word7ECX {
		return 0, c.XSave != nil && !*c.XSave
	}
	if !c.cpuidFlag("xsave") {
		return 0, !contains(c.UnknownFlags, "xsave")
	}
	// A file of CRIU's has one mask only, which the reader has put into
	// XFeatures. A named level has no words: its XFeatures is a lower bound.
	hw := c.XFeaturesHW
	if hw == nil {
		hw = c.XFeatures
	}
	if hw == nil {
		return 0, false
	}
	set := *hw & criuMask
	for f := range set.All() {
		switch {
		case c.cpuidFlag(f.Flag()):
		case contains(c.UnknownFlags, f.Flag()):
			return 0, false
		default:
			set &^= f.Mask()
		}
	}
	return uint64(set), true
}

// cpuidFlag reports whether the flag is set in the capability words, which are
// CPUID's: what only the kernel has cleared counts as there.
func (c *CPU) cpuidFlag(name string) bool {
	f, ok := LookupFlag(name)
	return ok && int(f.Word) < len(c.Capability) && c.Capability[f.Word]>>f.Bit&1 != 0
}

// FromCRIUMask returns the components that the xfeatures_mask of a cpuinfo.img
// stands for, with the file's capability words: SSE is there with x87, BNDREGS
// with BNDCSR, and the components of AMX, which CRIU's mask never has, if the CPU
// has the flag amx_tile. What else lies above bit 10 stays unknown. It is empty
// for mask 0, which is a machine without XSAVE.
//
// CRIU's list is CPUID's: a component that the kernel has not enabled counts as
// there, even if it has not enabled XSAVE at all.
func FromCRIUMask(mask uint64, capability []uint32) Features {
	set := Features(mask)
	if set.Has(X87) {
		set |= SSE.Mask()
	}
	if set.Has(BNDCSR) {
		set |= BNDREGS.Mask()
	}
	if c := (&CPU{Capability: capability}); set != 0 && c.cpuidFlag(TileData.Flag()) {
		set |= AMX
	}
	return set
}
