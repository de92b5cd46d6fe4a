package elfcore

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// maxArea bounds a bare area. The largest that exists is 11 KiB.
const maxArea = 1 << 20

// ReadArea reads a bare XSAVE area, of standard or compacted format. The machine or
// the size tells where a standard-format area has its components; a compacted one
// says so itself.
func ReadArea(name string, r io.Reader, machine *xstate.CPU) (codec.Thread, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxArea+1))
	switch {
	case err != nil:
		return codec.Thread{}, fmt.Errorf("%s: %w", name, err)
	case len(b) > maxArea:
		return codec.Thread{}, &codec.FormatError{Path: name, Offset: maxArea, Field: "area", Err: fmt.Errorf("larger than %d KiB, which no such area is", maxArea>>10)}
	}
	var s *xstate.State
	if len(b) == fxsaveSize {
		s, err = fxState(b)
	} else {
		s, err = parseArea(b, machine)
	}
	if err != nil {
		return codec.Thread{}, areaError(name, 0, "area", err)
	}
	return codec.Thread{State: s}, nil
}

const fxsaveSize = 512

// parseArea reads an area from a signal frame, from the kernel's ptrace or from the
// XSAVE instruction, which leaves the words that tell them apart as they were. What
// follows the area of a signal frame is cut off.
func parseArea(b []byte, machine *xstate.CPU) (*xstate.State, error) {
	xcr0s := []xstate.Features{xstate.AreaXCR0(b), 0}
	if frame, ok := xstate.ParseFrame(b); ok {
		if frame.Size < xstate.MinArea || frame.Size > len(b) {
			return nil, &xstate.AreaError{Offset: xstate.FrameSize, Field: "xstate_size",
				Reason: fmt.Sprintf("%d bytes, of which the signal frame has %d", frame.Size, len(b))}
		}
		b, xcr0s = b[:frame.Size], []xstate.Features{frame.Features}
	}
	layout, err := areaLayout(b, machine, xcr0s...)
	if err != nil {
		return nil, err
	}
	return parseLaid(b, layout)
}

// fxState reads what FXSAVE stores. It tells nothing of other components.
func fxState(b []byte) (*xstate.State, error) {
	s, err := xstate.ParseFXArea(b)
	if err == nil {
		s.Unknown = xstate.User() &^ xstate.Legacy
	}
	return s, err
}

// parseLaid reads an area by its layout. Components in use that it ends before are lost.
func parseLaid(b []byte, l xstate.Layout) (*xstate.State, error) {
	bv := xstate.AreaBV(b)
	if cut := bv & l.Of(b).Beyond(len(b)); cut != 0 {
		b = bytes.Clone(b)
		xstate.SetAreaBV(b, bv&^cut)
	}
	s, err := xstate.ParseArea(b, l)
	if err == nil {
		s.BV = bv
	}
	return s, err
}

// LayoutError is an XSAVE area of standard format of which nothing says where its
// components lie: only the machine that stored it knows.
type LayoutError struct {
	Size    int
	Machine string // the one that was asked, "" if none was
	Reason  string // what was tried, "" if that goes without saying
}

func (e *LayoutError) Error() string {
	who := "nothing says"
	if e.Machine != "" {
		who = e.Machine + " does not say"
	}
	text := fmt.Sprintf("%s where the components of an area of %d bytes lie", who, e.Size)
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

// areaError places an error of an area in a file that holds the area at off; nil is none.
func areaError(path string, off int64, field string, err error) error {
	var area *xstate.AreaError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &area):
		return &codec.FormatError{Path: path, Offset: off + int64(area.Offset), Field: field + " " + area.Field, Err: errors.New(area.Reason)}
	}
	return &codec.FormatError{Path: path, Offset: off, Field: field, Err: err}
}

// areaLayout finds the layout of an area: that of the machine which stored it, else
// by the first XCR0 that fits its size, else what is the same on all machines. The error
// is a [*LayoutError]; of what is no area of standard format decoding says what it is.
func areaLayout(b []byte, machine *xstate.CPU, xcr0s ...xstate.Features) (xstate.Layout, error) {
	switch {
	case len(b) < xstate.MinArea || xstate.AreaCompacted(b):
		if machine == nil {
			return nil, nil
		}
		return machine.Layout, nil // for the sizes
	case machine != nil:
		return machineLayout(b, machine)
	}
	for _, xcr0 := range xcr0s {
		if l := xstate.GuessAreaLayout(b, xcr0); l != nil {
			return l, nil
		}
		if l := commonLayout(b, xcr0); l != nil {
			return l, nil
		}
	}
	return nil, &LayoutError{Size: len(b)}
}

// kvmXSave is the size of struct kvm_xsave, whatever the CPU has
// (arch/x86/include/uapi/asm/kvm.h).
const kvmXSave = 4096

// padded reports whether an area of the layout may stand in a buffer of another size,
// whose rest is 0: what KVM_GET_XSAVE and KVM_GET_XSAVE2 return.
func padded(b []byte, l xstate.Layout) bool {
	end := l.End(xstate.Known)
	if len(b) == kvmXSave && end > len(b) {
		end = l.End(xstate.AreaBV(b)) // the kernel fills the buffer by what is in use
	}
	return end <= len(b) && zero(b[end:])
}

func zero(b []byte) bool {
	return !slices.ContainsFunc(b, func(v byte) bool { return v != 0 })
}

// commonLayout finds a layout of an area that was cut off or padded, where Intel's and
// AMD's have what is in use at the same place, or neither has it in the area, or XCR0
// names what only one of them has.
func commonLayout(b []byte, xcr0 xstate.Features) xstate.Layout {
	bv := xstate.AreaBV(b) & xstate.Known &^ xstate.Legacy
	if xcr0 != 0 && (!xcr0.Has(xstate.X87) || xcr0&^xstate.User() != 0 || bv&^xcr0 != 0) {
		return nil // no XCR0
	}
	intel, amd := xstate.IntelLayout(xcr0|bv), xstate.AMDLayout(xcr0|bv)
	if end := intel.End(xstate.Known); end < len(b) && !zero(b[end:]) {
		return nil
	}
	for f := range bv.All() {
		p, ok := intel.Find(f)
		q, _ := amd.Find(f)
		if !ok || len(amd) == len(intel) && p != q && min(p.Offset+p.Size, q.Offset+q.Size) <= len(b) {
			return nil
		}
	}
	return intel
}

// machineLayout finds the layout that areas of the machine have. One that has another
// size, or components in use that the machine lacks, is from elsewhere: its layout
// may be another, and its values would be taken from the wrong place.
func machineLayout(b []byte, machine *xstate.CPU) (xstate.Layout, error) {
	layouts := machine.Layouts()
	fail := func(reason string) (xstate.Layout, error) {
		return nil, &LayoutError{len(b), cmp.Or(machine.Name, "the machine"), reason}
	}
	if f, known := machine.Format(); known && f != xstate.FormatXSave {
		return fail("it has no XSAVE")
	}
	for f := range (xstate.AreaBV(b) & xstate.Known &^ xstate.Legacy).All() {
		if !machine.Possible().Has(f) {
			return fail(fmt.Sprintf("it has no %v, which is in use there", f))
		}
	}
	for _, l := range layouts {
		if l.EndsAt(len(b)) || machine.XSaveSize != nil && len(b) == int(*machine.XSaveSize) {
			return l, nil
		}
	}
	room := len(layouts) > 0 && padded(b, layouts[0])
	anyVendor := len(layouts) > 1 && machine.Vendor == ""
	if room && !anyVendor {
		return layouts[0], nil
	}
	if l := commonLayout(b, 0); l != nil {
		return l, nil
	}
	switch {
	case len(layouts) == 0:
		return fail("neither its offsets nor the size of a known machine are recorded")
	case room:
		return fail("it has no vendor, and the layouts of Intel and AMD differ")
	}
	return fail("none of its components ends there")
}

func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
