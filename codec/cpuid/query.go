package cpuid

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Querier is one logical CPU that can be asked.
type Querier interface {
	// CPUID executes the instruction with EAX = leaf and ECX = sub.
	CPUID(leaf, sub uint32) (eax, ebx, ecx, edx uint32)
	// XCR0 returns the components that the kernel has enabled. It is called only
	// if CPUID reports OSXSAVE: XGETBV faults otherwise.
	XCR0() xstate.Features
}

const (
	leafFeatures = 1
	leafStruct   = 7
	leafXState   = 0xd
	leafExt      = 0x80000000

	bitOSXSAVE = 1 << 27 // CPUID 1, ECX
	bitXSAVE   = 1 << 26
	bitFXSR    = 1 << 24 // CPUID 1, EDX
)

// Words of [xstate.Flag] that CRIU does not record.
const (
	word71EAX  = 19
	word71EDX  = 20
	wordKernel = 21
	numWords   = 22
)

// CPU builds the model of the CPU that q asks. The MXCSR mask stays unknown: no
// CPUID leaf has it. Flags are those that Linux would print if it used all that
// XCR0 allows.
func CPU(q Querier) *xstate.CPU {
	r := newReader(q)
	family, model, stepping := signature(r.eax1)
	words := r.words()
	xsave := words[4]&bitXSAVE != 0

	cpu := &xstate.CPU{
		Vendor:     r.vendor,
		Family:     &family,
		Model:      &model,
		Stepping:   &stepping,
		ModelName:  r.brand(),
		FXSave:     new(words[0]&bitFXSR != 0),
		XSave:      new(xsave && words[4]&bitOSXSAVE != 0),
		Capability: words[:xstate.CapabilityWords:xstate.CapabilityWords],
	}
	if xsave {
		lo, ebx, ecx, hi := r.leaf(leafXState, 0)
		cpu.XFeaturesHW = new(xstate.Features(hi)<<32 | xstate.Features(lo))
		cpu.XSaveSize, cpu.XSaveSizeMax = &ebx, &ecx
	} else { // known to be nothing, as CRIU records it
		cpu.XFeaturesHW, cpu.XSaveSize, cpu.XSaveSizeMax = new(xstate.Features), new(uint32), new(uint32)
	}
	var usable xstate.Features
	if *cpu.XSave {
		usable = q.XCR0()
	}
	cpu.XFeatures = &usable
	cpu.Layout = layout(q, usable)
	cpu.Flags = usableFlags(xstate.FlagsOf(words), usable)
	return cpu
}

// usableFlags leaves out the flags of the components that are not enabled, and
// what depends on them: their instructions fault.
func usableFlags(flags []string, usable xstate.Features) []string {
	var off []string
	for f := range (xstate.Known &^ xstate.Legacy &^ usable).All() {
		if !f.Component().Supervisor {
			off = append(off, f.Flag())
		}
	}
	return xstate.WithoutFlags(flags, off...)
}

// layout reads the sub-leaves of leaf 0xD (SDM vol. 1, 13.2). It is empty, not
// nil, if nothing but x87 and SSE is enabled: that is known.
func layout(q Querier, usable xstate.Features) xstate.Layout {
	l := xstate.Layout{}
	for f := range (usable &^ xstate.Legacy).All() {
		size, offset, ecx, _ := q.CPUID(leafXState, uint32(f))
		if size == 0 || ecx&1 != 0 { // absent, or managed through IA32_XSS
			continue
		}
		l = append(l, xstate.Placement{Feature: f, Offset: int(offset), Size: int(size), Align64: ecx&2 != 0})
	}
	return l
}

// signature decodes CPUID 1, EAX as CRIU and Linux do (SDM vol. 2, CPUID).
func signature(eax uint32) (family, model, stepping int) {
	family, model, stepping = int(eax>>8&0xf), int(eax>>4&0xf), int(eax&0xf)
	if family == 0xf {
		family += int(eax >> 20 & 0xff)
	}
	if family >= 6 {
		model += int(eax>>16&0xf) << 4
	}
	return family, model, stepping
}

// reader asks only for leaves that the CPU has: beyond the highest one, Intel
// answers with the data of that highest leaf.
type reader struct {
	Querier
	maxLeaf, maxExt uint32
	vendor          string
	eax1            uint32 // CPUID 1, EAX
}

func newReader(q Querier) *reader {
	r := &reader{Querier: q}
	maxLeaf, b, c, d := q.CPUID(0, 0)
	r.maxLeaf, r.vendor = maxLeaf, printable(xstate.VendorName(string(regBytes(b, d, c))))
	if ext, _, _, _ := q.CPUID(leafExt, 0); ext>>16 == leafExt>>16 {
		r.maxExt = ext
	}
	r.eax1, _, _, _ = r.leaf(leafFeatures, 0)
	return r
}

func (r *reader) leaf(leaf, sub uint32) (eax, ebx, ecx, edx uint32) {
	if leaf >= leafExt && leaf <= r.maxExt || leaf < leafExt && leaf <= r.maxLeaf {
		return r.CPUID(leaf, sub)
	}
	return 0, 0, 0, 0
}

// brand returns the CPU's name, without the blanks that Intel puts before it.
func (r *reader) brand() string {
	if r.maxExt < leafExt+4 {
		return ""
	}
	var b []byte
	for leaf := uint32(leafExt + 2); leaf <= leafExt+4; leaf++ {
		b = append(b, regBytes(r.leaf(leaf, 0))...)
	}
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.TrimLeft(printable(string(b)), " ")
}

// printable replaces what a terminal could take for a command: a dump can say
// anything.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

func regBytes(regs ...uint32) []byte {
	var b []byte
	for _, r := range regs {
		b = binary.LittleEndian.AppendUint32(b, r)
	}
	return b
}

// words reads the feature words: first CRIU's, exactly as it fills and edits them
// (compel/arch/x86/src/lib/cpu.c, compel_cpuid), then those that it does not read.
func (r *reader) words() []uint32 {
	w := make([]uint32, numWords)
	_, _, w[4], w[0] = r.leaf(leafFeatures, 0)
	w[14], _, _, _ = r.leaf(6, 0)
	subs, ebx, ecx, edx := r.leaf(leafStruct, 0)
	w[9], w[11], w[18] = ebx, ecx, edx
	d1, _, xss, _ := r.leaf(leafXState, 1)
	w[10] = d1
	_, _, _, w[16] = r.leaf(0xf, 0)
	if w[16]&2 != 0 { // cqm_llc
		_, _, _, w[12] = r.leaf(0xf, 1)
	}
	_, _, w[6], w[1] = r.leaf(leafExt+1, 0)
	_, w[17], _, _ = r.leaf(leafExt+7, 0)
	_, w[13], _, _ = r.leaf(leafExt+8, 0)
	_, _, _, w[15] = r.leaf(leafExt+0xa, 0)

	const repGood, nopl, cpuid = 1 << 16, 1 << 20, 1 << 25 // word 3
	w[3] = nopl | cpuid
	if r.maxLeaf < leafXState {
		w[4] &^= bitXSAVE
	}
	family, _, _ := signature(r.eax1)
	switch r.vendor {
	case "intel":
		switch family {
		case 15:
			w[9] &^= 1 << 9 // erms
		case 6:
			w[3] |= repGood
		}
	case "amd", "hygon":
		w[0] &^= 1 << 31 // meant 3DNow once
		if family >= 0x10 || family == 0xf && (r.eax1 >= 0xf48 && r.eax1 < 0xf50 || r.eax1 >= 0xf58) {
			w[3] |= repGood
		}
	}

	if subs >= 1 {
		w[word71EAX], _, _, w[word71EDX] = r.leaf(leafStruct, 1)
	}
	if xstate.Features(xss).Has(xstate.CETUser) {
		w[wordKernel] |= 1 // user_shstk: what a kernel with CONFIG_X86_USER_SHADOW_STACK makes of it
	}
	return w
}
