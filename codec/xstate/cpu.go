package xstate

import "strings"

// CPU is what is known of one machine: the source of a checkpoint or a target.
// Every field may be unknown: a zero string, or a nil pointer or slice. Most
// checkpoints carry no cpuinfo.img, and a named level has no sizes.
type CPU struct {
	Name      string // what to call it in reports
	Vendor    string // "intel", "amd", ... as [VendorName] spells it
	Family    *int   // displayed family, extended family added
	Model     *int   // displayed model, extended model included
	Stepping  *int
	ModelName string // the brand string

	FXSave *bool // FXSAVE and FXRSTOR are usable
	XSave  *bool // XSAVE is usable: CPUID OSXSAVE, which the kernel switches on

	// XFeatures is the set that a process can use, XCR0's user components; CRIU
	// calls its own idea of it xfeatures_mask.
	XFeatures *Features
	// XFeaturesHW is what the hardware lists in CPUID leaf 0xD.0.
	XFeaturesHW *Features
	// Layout places the components of XFeatures in a standard-format area.
	Layout Layout
	// XSaveSize is the size in bytes of the standard-format area for what is
	// enabled, CPUID 0xD.0.EBX; XSaveSizeMax for all that the hardware has, ECX.
	XSaveSize, XSaveSizeMax *uint32
	// MXCSRMask has a bit for every MXCSR bit that may be set.
	MXCSRMask *uint32

	// Flags are the names that Linux gives the CPU's features in /proc/cpuinfo,
	// those of the flag table only, sorted.
	Flags []string
	// UnknownFlags are those of the table of which nothing was recorded, sorted: that
	// Flags lacks them says nothing.
	UnknownFlags []string
	// Capability is the feature words in CRIU's numbering: 12 words in version 1,
	// 19 in version 2 (compel/include/uapi/.../cpu.h, enum cpuid_leafs).
	Capability []uint32
}

// Layouts returns the layouts that the CPU's standard-format areas may have: the one
// that was recorded; else, of Intel's and AMD's, the one whose end is XSaveSize, or
// for all that the hardware has XSaveSizeMax; else, for a CPU without a size, both,
// that of its vendor first. There is none where the components or their places are unknown.
func (c *CPU) Layouts() []Layout {
	switch {
	case c.Layout != nil:
		return []Layout{c.Layout}
	case c.XFeatures == nil:
		return nil
	case c.XSaveSize == nil && (c.Vendor == "amd" || c.Vendor == "hygon"):
		return []Layout{AMDLayout(*c.XFeatures), IntelLayout(*c.XFeatures)}
	case c.XSaveSize == nil:
		return []Layout{IntelLayout(*c.XFeatures), AMDLayout(*c.XFeatures)}
	}
	l := GuessLayout(*c.XFeatures, int(*c.XSaveSize))
	if l == nil && c.XFeaturesHW != nil && c.XSaveSizeMax != nil {
		l = GuessLayout(*c.XFeaturesHW, int(*c.XSaveSizeMax))
	}
	if l == nil {
		return nil
	}
	return []Layout{l}
}

// HasFlag reports whether the CPU has the feature that Linux calls name; known is
// false if that was not recorded.
func (c *CPU) HasFlag(name string) (has, known bool) {
	if c == nil || c.Flags == nil {
		return false, false
	}
	has = contains(c.Flags, name)
	return has, has || !contains(c.UnknownFlags, name)
}

// Format returns the richest format that the CPU holds: none if it lacks FXSAVE,
// xsave if XSAVE is usable. known is false if that was not recorded.
func (c *CPU) Format() (f Format, known bool) {
	switch {
	case c.XSave != nil && *c.XSave:
		return FormatXSave, true
	case c.FXSave != nil && !*c.FXSave:
		return FormatNone, true
	case c.XSave != nil:
		return FormatFXSave, true
	}
	return FormatNone, false
}

// Usable returns the components that a process on the CPU can use: the legacy
// ones at least where the CPU has FXSAVE. known is false if they were not recorded.
func (c *CPU) Usable() (set Features, known bool) {
	switch f, ok := c.Format(); {
	case ok && f == FormatNone:
		return 0, true
	case ok && f == FormatFXSave:
		return Legacy, true
	case c.XFeatures != nil:
		return *c.XFeatures | Legacy, true
	}
	return Legacy, false
}

// Possible returns the components that a process on the CPU may be able to use: the
// usable ones where they were recorded, else all but those whose feature is known to
// be missing.
func (c *CPU) Possible() Features {
	set, known := c.Usable()
	if known {
		return set
	}
	set = ^Features(0)
	for f := range Known.All() {
		if has, known := c.HasFlag(f.Flag()); known && !has && f.Flag() != "" {
			set &^= f.Mask()
		}
	}
	return set | Legacy
}

// contained names the features whose instructions all run on a CPU that has the
// features on the right, though CPUID does not say so there: AMD's name for the
// integer part of SSE (APM vol. 3, appendix D), SYSCALL, which Intel's CPUID reports in
// 64-bit mode only (SDM vol. 2, CPUID 80000001H), what every CPU in 64-bit mode has
// and older kernels do not print, and AVX10.1, which adds nothing to AVX-512.
var contained = map[string]string{
	"mmxext":  "sse",
	"syscall": "lm",
	"cpuid":   "lm",
	"nopl":    "lm",
	"avx10": "avx512cd avx512bw avx512dq avx512vl avx512ifma avx512vbmi avx512_vbmi2 avx512_vnni avx512_bf16 " +
		"avx512_fp16 avx512_bitalg avx512_vpopcntdq vaes vpclmulqdq gfni",
}

// Executes reports whether no instruction of the feature faults on the CPU, be it for
// another one that has them all. known is as for [CPU.HasFlag].
func (c *CPU) Executes(name string) (yes, known bool) {
	if yes, known = c.HasFlag(name); yes || c == nil || contained[name] == "" {
		return yes, known
	}
	for other := range strings.FieldsSeq(contained[name]) {
		if has, _ := c.HasFlag(other); !has {
			return false, known
		}
	}
	return true, true
}

// UnknownWords returns the words of the CPU's capability, one bit for each, whose zeros
// say nothing: some of their flags are unknown.
func (c *CPU) UnknownWords() (set uint32) {
	for i, w := range CapabilityMask(c.UnknownFlags...) {
		if w != 0 {
			set |= 1 << i
		}
	}
	return set
}
