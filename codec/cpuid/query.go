package cpuid

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Querier is one logical CPU that can be asked. What is not known of a recorded one is
// unknown, not absent.
type Querier interface {
	// CPUID executes the instruction with EAX = leaf and ECX = sub.
	CPUID(leaf, sub uint32) (r Regs, known bool)
	// XCR0 returns the components that the kernel has enabled. It is called only
	// if CPUID may report OSXSAVE: XGETBV faults otherwise.
	XCR0() (set xstate.Features, known bool)
}

// Regs is what CPUID answers.
type Regs struct{ EAX, EBX, ECX, EDX uint32 }

const (
	leafFeatures = 1
	leafStruct   = 7
	leafXState   = 0xd
	leafExt      = 0x80000000

	bitOSXSAVE = 1 << 27 // CPUID 1, ECX
	bitXSAVE   = 1 << 26
	bitFXSR    = 1 << 24 // CPUID 1, EDX

	bitSYSCALL = 1 << 11 // CPUID 80000001, EDX
	bitLM      = 1 << 29
)

// CPU builds the model of the CPU that q asks. The MXCSR mask stays unknown: no
// CPUID leaf has it. Flags are those that Linux would print if it used all that
// XCR0 allows.
func CPU(q Querier) *xstate.CPU {
	r := newReader(q)
	w := r.words()
	cpu := &xstate.CPU{Vendor: r.vendor, ModelName: r.brand()}
	if r.signed {
		family, model, stepping := signature(r.eax1)
		cpu.Family, cpu.Model, cpu.Stepping = &family, &model, &stepping
	}
	if w.known[xstate.Word1EDX] {
		cpu.FXSave = new(w.has(xstate.Word1EDX, bitFXSR))
	}
	hw, listed := r.leaf(leafXState, 0)
	xsave, xsaveKnown := w.has(xstate.Word1ECX, bitXSAVE), w.known[xstate.Word1ECX] || w.has(xstate.Word1ECX, bitXSAVE)
	enabled := xsaveKnown && !xsave || w.known[xstate.Word1ECX] || w.has(xstate.Word1ECX, bitOSXSAVE) // whether it is, is known
	if enabled {
		cpu.XSave = new(xsave && w.has(xstate.Word1ECX, bitOSXSAVE))
	}
	switch {
	case xsaveKnown && !xsave: // known to be nothing, as CRIU records it
		cpu.XFeaturesHW, cpu.XSaveSize, cpu.XSaveSizeMax = new(xstate.Features), new(uint32), new(uint32)
	case listed:
		cpu.XFeaturesHW = new(xstate.Features(hw.EDX)<<32 | xstate.Features(hw.EAX))
		cpu.XSaveSize, cpu.XSaveSizeMax = &hw.EBX, &hw.ECX
	}
	if cpu.XSave != nil && !*cpu.XSave {
		cpu.XFeatures = new(xstate.Features)
	} else if set, known := q.XCR0(); known {
		cpu.XFeatures = &set
	}
	if cpu.XFeatures != nil {
		cpu.Layout, _ = layout(q, *cpu.XFeatures)
	}
	cpu.Flags, cpu.UnknownFlags = flags(w, cpu.XFeatures)
	if r.vendor == "amd" && r.signed && *cpu.Family == 0x17 { // erratum 1386: Linux arch/x86/kernel/cpu/amd.c
		cpu.Flags = xstate.WithoutFlags(cpu.Flags, "xsaves")
	}
	if cpu.FXSave == nil && slices.Contains(cpu.Flags, "fxsr") {
		cpu.FXSave = new(true)
	}
	cpu.Capability = w.words[:xstate.CapabilityWords:xstate.CapabilityWords]
	if w.whole() {
		return cpu
	}
	for i, bits := range xstate.CapabilityMask(cpu.Flags...) {
		if !w.known[i] {
			cpu.Capability[i] = bits
		}
	}
	return cpu
}

// flags returns the names of the flags that the words and the usable components, nil
// if unknown, imply, and of those of which they say nothing.
func flags(w *wordSet, usable *xstate.Features) (has, unknown []string) {
	has = w.flags()
	state := map[string]bool{} // flags of components
	if usable != nil {
		for f := range (xstate.User() &^ xstate.Legacy).All() {
			state[f.Flag()] = usable.Has(f)
		}
		for name, on := range state {
			if f, _ := xstate.LookupFlag(name); on && !w.known[f.Word] {
				has = append(has, name)
			}
		}
		has = usableFlags(has, *usable)
	}
	if w.whole() {
		return has, nil
	}
	for _, name := range xstate.DependenciesOf(has...) {
		if f, _ := xstate.LookupFlag(name); !w.known[f.Word] {
			has = append(has, name)
		}
	}
	has = names(has)
	return has, xstate.UnknownFlags(has, func(f xstate.Flag) bool {
		_, component := state[f.Name]
		return component || w.known[f.Word]
	})
}

// layout reads the sub-leaves of leaf 0xD (SDM vol. 1, 13.2). It is empty, not
// nil, if nothing but x87 and SSE is enabled: that is known.
func layout(q Querier, usable xstate.Features) (l xstate.Layout, known bool) {
	l = xstate.Layout{}
	for f := range (usable &^ xstate.Legacy).All() {
		r, known := q.CPUID(leafXState, uint32(f))
		switch {
		case !known:
			return nil, false
		case r.EAX == 0 || r.ECX&1 != 0: // absent, or managed through IA32_XSS
		default:
			l = append(l, xstate.Placement{Feature: f, Offset: int(r.EBX), Size: int(r.EAX), Align64: r.ECX&2 != 0})
		}
	}
	return l, true
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
	signed          bool   // eax1 is known
}

func newReader(q Querier) *reader {
	r := &reader{Querier: q, maxLeaf: leafExt - 1, maxExt: 1<<32 - 1}
	if zero, ok := q.CPUID(0, 0); ok {
		r.maxLeaf, r.vendor = zero.EAX, printable(xstate.VendorName(string(regBytes(zero.EBX, zero.EDX, zero.ECX))))
	}
	if ext, ok := q.CPUID(leafExt, 0); ok {
		r.maxExt = 0
		if ext.EAX>>16 == leafExt>>16 {
			r.maxExt = ext.EAX
		}
	}
	one, ok := r.leaf(leafFeatures, 0)
	r.eax1, r.signed = one.EAX, ok
	return r
}

func (r *reader) leaf(leaf, sub uint32) (Regs, bool) {
	if leaf >= leafExt && leaf <= r.maxExt || leaf < leafExt && leaf <= r.maxLeaf {
		return r.CPUID(leaf, sub)
	}
	return Regs{}, true
}

// brand returns the CPU's name, without the blanks that Intel puts before it.
func (r *reader) brand() string {
	var b []byte
	for leaf := uint32(leafExt + 2); leaf <= leafExt+4; leaf++ {
		regs, ok := r.leaf(leaf, 0)
		if !ok {
			return ""
		}
		b = append(b, regBytes(regs.EAX, regs.EBX, regs.ECX, regs.EDX)...)
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

// wordSet is the words of [xstate.Flag], and which of them are known.
type wordSet struct {
	words []uint32
	known [xstate.FlagWords]bool
}

// whole reports whether all words are known, as of a CPU that is asked itself.
func (w *wordSet) whole() bool { return !slices.Contains(w.known[:], false) }

func (w *wordSet) has(word int, bit uint32) bool { return w.words[word]&bit != 0 }

// flags returns the names of the flags that are set. XSAVE counts as enabled unless
// the words deny it.
func (w *wordSet) flags() []string {
	if w.known[xstate.Word1ECX] || w.has(xstate.Word1ECX, bitOSXSAVE) {
		return xstate.FlagsOf(w.words)
	}
	sure := slices.Clone(w.words)
	sure[xstate.Word1ECX] |= bitOSXSAVE
	return slices.DeleteFunc(xstate.FlagsOf(sure), func(name string) bool { return name == "osxsave" })
}

// words reads the feature words: first CRIU's, exactly as it fills and edits them
// (compel/arch/x86/src/lib/cpu.c, compel_cpuid), then those that it does not read.
func (r *reader) words() *wordSet {
	w := &wordSet{words: make([]uint32, xstate.FlagWords)}
	for i := range w.known {
		w.known[i] = true
	}
	set := func(known bool, word int, v uint32) { w.words[word], w.known[word] = v, known }
	one, ok := r.leaf(leafFeatures, 0)
	set(ok, xstate.Word1ECX, one.ECX)
	set(ok, xstate.Word1EDX, one.EDX)
	six, ok := r.leaf(6, 0)
	set(ok, xstate.Word6EAX, six.EAX)
	seven, ok := r.leaf(leafStruct, 0)
	set(ok, xstate.Word7EBX, seven.EBX)
	set(ok, xstate.Word7ECX, seven.ECX)
	set(ok, xstate.Word7EDX, seven.EDX)
	var sub Regs
	if ok && seven.EAX >= 1 {
		sub, ok = r.leaf(leafStruct, 1)
	}
	set(ok, xstate.Word71EAX, sub.EAX)
	set(ok, xstate.Word71EDX, sub.EDX)
	d, ok := r.leaf(leafXState, 1)
	set(ok, xstate.WordD1EAX, d.EAX)
	// What a kernel with CONFIG_X86_USER_SHADOW_STACK makes of it: user_shstk.
	set(ok, xstate.WordKernel, d.ECX>>xstate.CETUser&1)
	qos, ok := r.leaf(0xf, 0)
	set(ok, xstate.WordF0EDX, qos.EDX)
	var llc Regs
	if ok && qos.EDX&2 != 0 { // cqm_llc
		llc, ok = r.leaf(0xf, 1)
	}
	set(ok, xstate.WordF1EDX, llc.EDX)
	ext, ok := r.leaf(leafExt+1, 0)
	set(ok, xstate.Word8000_0001C, ext.ECX)
	set(ok, xstate.Word8000_0001D, ext.EDX)
	ext, ok = r.leaf(leafExt+7, 0)
	set(ok, xstate.Word8000_0007B, ext.EBX)
	ext, ok = r.leaf(leafExt+8, 0)
	set(ok, xstate.Word8000_0008B, ext.EBX)
	ext, ok = r.leaf(leafExt+0xa, 0)
	set(ok, xstate.Word8000_000AD, ext.EDX)

	if r.maxLeaf < leafXState {
		w.words[xstate.Word1ECX] &^= bitXSAVE
	}
	if hw, ok := r.leaf(leafXState, 0); ok && !w.known[xstate.Word1ECX] && hw.EAX != 0 {
		w.words[xstate.Word1ECX] |= bitXSAVE
		if hw.EBX > xstate.MinArea { // XCR0 has an extended component
			w.words[xstate.Word1ECX] |= bitOSXSAVE
		}
	}
	if w.words[xstate.Word8000_0001D]&bitLM != 0 { // else a 32-bit program asked: SDM vol. 2, CPUID 80000001H
		w.words[xstate.Word8000_0001D] |= bitSYSCALL
	}

	const repGood, nopl, cpuid = 1 << 16, 1 << 20, 1 << 25
	set(r.signed && r.vendor != "", xstate.WordSynthetic, nopl|cpuid)
	family, _, _ := signature(r.eax1)
	switch r.vendor {
	case "intel":
		switch family {
		case 15:
			w.words[xstate.Word7EBX] &^= 1 << 9 // erms
		case 6:
			w.words[xstate.WordSynthetic] |= repGood
		}
	case "amd", "hygon":
		w.words[xstate.Word1EDX] &^= 1 << 31 // meant 3DNow once
		if family >= 0x10 || family == 0xf && (r.eax1 >= 0xf48 && r.eax1 < 0xf50 || r.eax1 >= 0xf58) {
			w.words[xstate.WordSynthetic] |= repGood
		}
	}
	return w
}
