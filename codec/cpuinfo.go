package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

// Field numbers of images/cpuinfo.proto.
const (
	cpuinfoX86 = 1

	cpuVendor     = 1
	cpuFamily     = 2
	cpuModel      = 3
	cpuStepping   = 4
	cpuCapVer     = 5
	cpuCapability = 6
	cpuModelID    = 7
	cpuXFeatures  = 8
	cpuXSaveSize  = 9
	cpuXSaveMax   = 10
)

// capabilityWords returns how many words a capability_ver has, 0 for an unknown
// one (criu/arch/x86/cpu.c:ncapints).
func capabilityWords(version uint32) int {
	switch version {
	case 1:
		return xstate.CapabilityV1
	case 2:
		return xstate.CapabilityWords
	}
	return 0
}

// CPUInfo is one decoded cpuinfo.img, as it is recorded. The CPU that it describes
// is [CPUInfo.CPU].
type CPUInfo struct {
	Path     string
	VendorID uint32 // 0 unknown, 1 Intel, 2 AMD (Hygon too)
	Family   uint32
	Model    uint32
	Stepping uint32
	Version  uint32 // capability_ver
	ModelID  string
	xstate.CPURecord

	img   image
	entry entry
}

// ParseCPUInfo decodes a cpuinfo.img. The error is a [*FormatError].
func ParseCPUInfo(path string, b []byte) (*CPUInfo, error) {
	img, e, err := newEntry(path, b, magicCPUInfo)
	if err != nil {
		return nil, err
	}
	c := &CPUInfo{Path: path, img: img, entry: e}
	entries := 0
	var words []byte
	m := c.img.message(c.entry, "cpuinfo")
	for m.next() {
		if m.num != cpuinfoX86 {
			continue
		}
		entries++
		x := m.sub()
		for x.next() {
			switch x.num {
			case cpuVendor:
				c.VendorID = uint32(x.u)
			case cpuFamily:
				c.Family = uint32(x.u)
			case cpuModel:
				c.Model = uint32(x.u)
			case cpuStepping:
				c.Stepping = uint32(x.u)
			case cpuCapVer:
				c.Version = uint32(x.u)
			case cpuCapability:
				words, _, _ = x.array(words, 4, math.MaxInt)
			case cpuModelID:
				c.ModelID = x.text()
			case cpuXFeatures:
				c.XFeaturesMask = new(x.u)
			case cpuXSaveSize:
				c.XSaveSize = new(uint32(x.u))
			case cpuXSaveMax:
				c.XSaveSizeMax = new(uint32(x.u))
			}
		}
	}
	if c.img.err != nil {
		return nil, c.img.err
	}
	c.img.sound = true
	for ; len(words) >= 4; words = words[4:] {
		c.Capability = append(c.Capability, le32(words))
	}
	want := capabilityWords(c.Version)
	switch {
	case entries != 1:
		return nil, c.img.errorf(c.entry.start, "x86_entry", "want 1, have %d", entries)
	case want == 0:
		return nil, c.img.errorf(c.entry.start, "capability_ver", "version %d is not 1 or 2", c.Version)
	case len(c.Capability) != want:
		return nil, c.img.errorf(c.entry.start, "capability", "want %d words, have %d", want, len(c.Capability))
	}
	return c, nil
}

// Vendors of cpuinfo_x86_entry.vendor_id. Hygon is stored as AMD.
const (
	vendorIntel = 1
	vendorAMD   = 2
)

// CPU returns the machine that the file describes, as far as it does. The mask is
// repaired for CRIU's bug (see [xstate.FromCRIUMask]); the layout and the MXCSR
// mask are not recorded. Of what only the kernel knows, a user shadow stack is
// taken to be there where the hardware has one.
func (c *CPUInfo) CPU() *xstate.CPU {
	out := &xstate.CPU{
		Name:       c.ModelID,
		Family:     new(int(c.Family)),
		Model:      new(int(c.Model)),
		Stepping:   new(int(c.Stepping)),
		ModelName:  c.ModelID,
		Flags:      xstate.FlagsOf(c.Capability),
		Capability: slices.Clone(c.Capability),
	}
	switch c.VendorID {
	case vendorIntel:
		out.Vendor = "intel"
	case vendorAMD:
		out.Vendor = "amd"
	}
	out.UnknownFlags = xstate.UnknownFlags(out.Flags, xstate.InWords(len(c.Capability)))
	fxsave, _ := out.HasFlag("fxsr")
	xsave, _ := out.HasFlag("osxsave")
	out.FXSave, out.XSave = &fxsave, &xsave
	if shstk, _ := out.HasFlag("shstk"); shstk {
		out.Flags = append(out.Flags, "user_shstk")
		slices.Sort(out.Flags)
	}
	if c.XFeaturesMask != nil {
		set := xstate.FromCRIUMask(*c.XFeaturesMask, c.Capability)
		out.XFeaturesHW = &set
		out.XFeatures = new(set)
		if !xsave {
			*out.XFeatures = 0
		}
	}
	out.XSaveSize, out.XSaveSizeMax = c.XSaveSize, c.XSaveSizeMax
	return out
}

// MarshalCPUInfo returns the cpuinfo.img that CRIU 4.2 would write on the machine
// (criu/arch/x86/cpu.c:cpu_dump_cpuinfo). The error names a field that the file
// must have and that is not known of c.
func MarshalCPUInfo(c *xstate.CPU) ([]byte, error) {
	mask, known := c.CRIUMask()
	switch {
	case c.Family == nil || c.Model == nil || c.Stepping == nil:
		return nil, errors.New("cpuinfo.img needs family, model and stepping, which the profile lacks")
	case len(c.Capability) != capabilityWords(2):
		return nil, fmt.Errorf("cpuinfo.img needs %d capability words, the profile has %d", capabilityWords(2), len(c.Capability))
	case !known || c.XSaveSize == nil || c.XSaveSizeMax == nil:
		return nil, errors.New("cpuinfo.img needs xfeatures_mask and the XSAVE sizes, which the profile lacks")
	}
	for _, name := range c.UnknownFlags {
		if f, _ := xstate.LookupFlag(name); f.INS() || name == "xsaves" {
			return nil, fmt.Errorf("cpuinfo.img needs what CRIU compares, and the profile does not record whether there is %s", name)
		}
	}
	var vendor uint64
	switch c.Vendor {
	case "intel":
		vendor = vendorIntel
	case "amd", "hygon":
		vendor = vendorAMD
	default:
		return nil, fmt.Errorf("cpuinfo.img needs a vendor that CRIU knows, intel or amd, not %q", c.Vendor)
	}
	b := appendUint(nil, cpuVendor, vendor)
	b = appendUint(b, cpuFamily, uint64(*c.Family))
	b = appendUint(b, cpuModel, uint64(*c.Model))
	b = appendUint(b, cpuStepping, uint64(*c.Stepping))
	b = appendUint(b, cpuCapVer, 2)
	for _, w := range c.Capability {
		b = appendUint(b, cpuCapability, uint64(w))
	}
	b = appendSub(b, cpuModelID, []byte(c.ModelName))
	b = appendUint(b, cpuXFeatures, mask)
	b = appendUint(b, cpuXSaveSize, uint64(*c.XSaveSize))
	b = appendUint(b, cpuXSaveMax, uint64(*c.XSaveSizeMax))
	return newFile(magicCPUInfo, appendSub(nil, cpuinfoX86, b)), nil
}

// Encode returns the file with the capability words and the fields 8 to 10 of
// to; every other byte stays. c itself is not changed.
func (c *CPUInfo) Encode(to *CPUInfo) []byte {
	img := c.img
	root := img.message(c.entry, "cpuinfo")
	payload := root.rewrite(func(m *message) []byte {
		if m.num != cpuinfoX86 {
			return m.raw()
		}
		sub := m.sub()
		return m.replace(c.rewriteX86(sub, to))
	})
	return img.splice(c.entry, payload)
}

func (c *CPUInfo) rewriteX86(m message, to *CPUInfo) []byte {
	words := to.Capability
	had := map[uint32]bool{}
	scalars := []struct {
		num      uint32
		old, new *uint64
	}{
		{cpuXFeatures, c.XFeaturesMask, to.XFeaturesMask},
		{cpuXSaveSize, widen(c.XSaveSize), widen(to.XSaveSize)},
		{cpuXSaveMax, widen(c.XSaveSizeMax), widen(to.XSaveSizeMax)},
	}
	body := m.rewrite(func(m *message) []byte {
		if m.num == cpuCapability {
			had[m.num] = true
			return c.rewriteWords(m, &words)
		}
		for _, s := range scalars {
			switch {
			case m.num != s.num:
			case s.new == nil:
				return nil
			default:
				had[m.num] = true
				if *s.old == *s.new {
					return m.raw()
				}
				return appendUint(nil, m.num, *s.new)
			}
		}
		return m.raw()
	})
	for _, s := range scalars {
		if s.new != nil && !had[s.num] {
			body = appendUint(body, s.num, *s.new)
		}
	}
	return body
}

// rewriteWords replaces the elements of one run of the capability array, keeping
// its form, packed or not.
func (c *CPUInfo) rewriteWords(m *message, words *[]uint32) []byte {
	packed := m.typ == protowire.BytesType
	old, _, _ := m.array(nil, 4, math.MaxInt)
	n := min(len(old)/4, len(*words))
	var out, elems []byte
	for _, w := range (*words)[:n] {
		if packed {
			elems = protowire.AppendVarint(elems, uint64(w))
		} else {
			out = appendUint(out, cpuCapability, uint64(w))
		}
	}
	same := make([]byte, 0, 4*n)
	for _, w := range (*words)[:n] {
		same = binary.LittleEndian.AppendUint32(same, w)
	}
	*words = (*words)[n:]
	switch {
	case bytes.Equal(same, old):
		return m.raw()
	case packed:
		return appendSub(nil, cpuCapability, elems)
	}
	return out
}

func widen(v *uint32) *uint64 {
	if v == nil {
		return nil
	}
	return new(uint64(*v))
}
