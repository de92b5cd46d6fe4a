package xstate

import (
	"strconv"
	"sync"
)

// Component describes one state component.
type Component struct {
	Feature
	Name       string
	Size       int  // bytes of data in an XSAVE area
	Supervisor bool // managed through IA32_XSS: never in a user-visible area
	Align64    bool // starts on a 64-byte boundary in compacted format
	Dynamic    bool // needs a permission and is off until first use (IA32_XFD)
	// flag is the CPU feature without which the kernel does not enable the component,
	// whatever CPUID leaf 0xD lists (arch/x86/kernel/fpu/xstate.c, xsave_cpuid_features;
	// CRIU compel/arch/x86/src/lib/cpu.c has the same list up to PKRU); "" if unknown.
	flag string
	// CRIU is the array of a core image that holds the component.
	CRIU CRIUArray
	// Intel and AMD are the standard-format offsets that real CPUs of the two
	// vendors report, 0 where there is none. They stand in for a layout that was
	// not recorded; a machine's own CPUID leaf 0xD always goes first.
	Intel, AMD int
	banks      []bank
}

// Register is one architectural register, or the part of it that a component
// holds: bytes Off to Off+Size of the component's data.
type Register struct {
	Name      string
	Off, Size int
}

// bank is a run of equal registers; n is 0 for a single one without a number.
type bank struct {
	name              string
	first, n          int
	off, stride, size int
}

// Registers returns the component's registers, shared: do not change them. They lie in
// the bytes that [State.View] returns for it.
func (c *Component) Registers() []Register { return registers()[c.Feature] }

// registers are those of each component, whose names are made once.
var registers = sync.OnceValue(func() [][]Register {
	out := make([][]Register, numComponents)
	for f := range components {
		for _, b := range components[f].banks {
			if b.n == 0 {
				out[f] = append(out[f], Register{b.name, b.off, b.size})
			}
			for i := range b.n {
				out[f] = append(out[f], Register{b.name + strconv.Itoa(b.first+i), b.off + i*b.stride, b.size})
			}
		}
	}
	return out
})

// paddingOnly reports whether every register in the component's data is zero. It
// is for components with bytes that belong to no register; one whose registers the
// table does not know has nothing else.
func (c *Component) paddingOnly(data []byte) bool {
	if len(c.banks) == 0 {
		return false
	}
	for _, r := range c.Registers() {
		for _, b := range data[min(r.Off, len(data)):min(r.Off+r.Size, len(data))] {
			if b != 0 {
				return false
			}
		}
	}
	return true
}

const numComponents = len(components)

// CRIUArray is the array of user_x86_xsave_entry (images/core-x86.proto) that holds a
// component. The zero value is that of a component for which CRIU has no field.
type CRIUArray struct {
	Name   string
	Number int // of the field
	Width  int // bytes in an element
	// Since is the first release that stores and restores the component; the zero
	// value if none does.
	Since Release
}

// legacySize is the size of the FXSAVE image (SDM vol. 1, 10.5.1).
const legacySize = 512

// components is the table. Sizes and bits: SDM vol. 1, 13.1 and 13.4 to 13.5;
// supervisor sizes: Linux arch/x86/include/asm/fpu/types.h. Offsets: CPUID leaf
// 0xD of real CPUs; AMD packs as if MPX did not exist. CRIU: images/core-x86.proto and
// its history; no release has written BNDREGS (see [CPU.CRIUMask]).
var components = [...]Component{
	{Feature: X87, Name: "x87", flag: "fpu", Size: 160, banks: []bank{
		{name: "fcw", off: offFCW, size: 2}, {name: "fsw", off: offFSW, size: 2},
		{name: "ftw", off: offFTW, size: 1}, {name: "fop", off: offFOP, size: 2},
		{name: "fip", off: offFIP, size: 8}, {name: "fdp", off: offFDP, size: 8},
		{name: "st", n: 8, off: offST, stride: 16, size: 10}}},
	{Feature: SSE, Name: "SSE", flag: "sse", Size: 256, Intel: 160, AMD: 160, banks: []bank{
		{name: "mxcsr", off: offMXCSR, size: 4}, {name: "xmm", n: 16, off: offXMM, stride: 16, size: 16}}},
	{Feature: AVX, Name: "AVX", flag: "avx", Size: 256, Intel: 576, AMD: 576,
		CRIU: CRIUArray{"ymmh_space", 2, 4, Release{0, 4, 0}}, banks: []bank{{name: "ymm", n: 16, stride: 16, size: 16}}},
	{Feature: BNDREGS, Name: "BNDREGS", flag: "mpx", Size: 64, Intel: 960,
		CRIU: CRIUArray{"bndreg_state", 3, 8, Release{}}, banks: []bank{{name: "bnd", n: 4, stride: 16, size: 16}}},
	{Feature: BNDCSR, Name: "BNDCSR", flag: "mpx", Size: 64, Intel: 1024,
		CRIU: CRIUArray{"bndcsr_state", 4, 8, Release{3, 11, 0}}, banks: []bank{{name: "bndcfgu", size: 8}, {name: "bndstatus", off: 8, size: 8}}},
	{Feature: Opmask, Name: "opmask", flag: "avx512f", Size: 64, Intel: 1088, AMD: 832,
		CRIU: CRIUArray{"opmask_reg", 5, 8, Release{3, 11, 0}}, banks: []bank{{name: "k", n: 8, stride: 8, size: 8}}},
	{Feature: ZMMHi256, Name: "ZMM_Hi256", flag: "avx512f", Size: 512, Intel: 1152, AMD: 896,
		CRIU: CRIUArray{"zmm_upper", 6, 8, Release{3, 11, 0}}, banks: []bank{{name: "zmm", n: 16, stride: 32, size: 32}}},
	{Feature: Hi16ZMM, Name: "Hi16_ZMM", flag: "avx512f", Size: 1024, Intel: 1664, AMD: 1408,
		CRIU: CRIUArray{"hi16_zmm", 7, 8, Release{3, 11, 0}}, banks: []bank{{name: "zmm", first: 16, n: 16, stride: 64, size: 64}}},
	{Feature: PT, Name: "PT", flag: "intel_pt", Size: 128, Supervisor: true},
	{Feature: PKRU, Name: "PKRU", flag: "pku", Size: 8, Intel: 2688, AMD: 2432,
		CRIU: CRIUArray{"pkru", 8, 4, Release{3, 11, 0}}, banks: []bank{{name: "pkru", size: 4}}},
	{Feature: PASID, Name: "PASID", flag: "enqcmd", Size: 8, Supervisor: true},
	{Feature: CETUser, Name: "CET_U", flag: "shstk", Size: 16, Supervisor: true},
	{Feature: CETSup, Name: "CET_S", flag: "shstk", Size: 24, Supervisor: true},
	{Feature: HDC, Name: "HDC", flag: "hdc", Size: 8, Supervisor: true},
	{Feature: UINTR, Name: "UINTR", Size: 48, Supervisor: true},
	{Feature: LBR, Name: "LBR", flag: "arch_lbr", Size: 808, Supervisor: true},
	{Feature: HWP, Name: "HWP", flag: "hwp", Size: 8, Supervisor: true},
	{Feature: TileCfg, Name: "TILECFG", flag: "amx_tile", Size: 64, Align64: true, Intel: 2752,
		banks: []bank{{name: "tilecfg", size: 64}}},
	{Feature: TileData, Name: "TILEDATA", flag: "amx_tile", Size: 8192, Align64: true, Dynamic: true, Intel: 2816,
		banks: []bank{{name: "tmm", n: 8, stride: 1024, size: 1024}}},
	{Feature: APX, Name: "APX", flag: "apx", Size: 128, Intel: 960, banks: []bank{{name: "r", first: 16, n: 16, stride: 8, size: 8}}},
}

// User returns the components of the table that XCR0 enables for programs.
func User() Features { return with(func(c *Component) bool { return !c.Supervisor }) }

// Component returns the table's entry for f, or nil if it has none. The entry is
// shared: do not change it.
func (f Feature) Component() *Component {
	if int(f) < len(components) {
		return &components[f]
	}
	return nil
}

// with returns the components that want picks.
func with(want func(*Component) bool) (set Features) {
	for i := range components {
		if c := &components[i]; want(c) {
			set |= c.Mask()
		}
	}
	return set
}

// Flag returns the name of the CPU feature that the component belongs to: without
// that flag, it is not there, even if CPUID leaf 0xD lists it. It is empty where
// no flag is known.
func (f Feature) Flag() string {
	if c := f.Component(); c != nil {
		return c.flag
	}
	return ""
}
