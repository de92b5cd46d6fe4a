package codec

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// maxArea bounds a bare area. The largest that exists is 11 KiB.
const maxArea = 1 << 20

// ReadArea reads a bare XSAVE area, of standard or compacted format. The machine or
// the size tells where a standard-format area has its components; a compacted one
// says so itself.
func ReadArea(name string, r io.Reader, machine *xstate.CPU) (Thread, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxArea+1))
	switch {
	case err != nil:
		return Thread{}, fmt.Errorf("%s: %w", name, err)
	case len(b) > maxArea:
		return Thread{}, &FormatError{name, maxArea, "area", fmt.Errorf("larger than %d KiB, which no such area is", maxArea>>10)}
	}
	var s *xstate.State
	if len(b) == fxsaveSize {
		s, err = xstate.ParseFXArea(b)
	} else {
		s, err = parseArea(b, machine)
	}
	if err != nil {
		return Thread{}, areaError(name, 0, "area", err)
	}
	return Thread{State: s}, nil
}

const fxsaveSize = 512

// Words that the kernel puts into the area of a signal frame (struct _fpx_sw_bytes,
// arch/x86/include/uapi/asm/sigcontext.h).
const (
	swMagic1     = 0x46505853 // at 464
	swOffset     = 464
	swXFeatures  = 472
	swXStateSize = 480
)

// parseArea reads an area from a signal frame, from the kernel's ptrace or from the
// XSAVE instruction, which leaves the words that tell them apart as they were. What
// follows the area of a signal frame is cut off.
func parseArea(b []byte, machine *xstate.CPU) (*xstate.State, error) {
	xcr0s := []xstate.Features{xstate.AreaXCR0(b), 0}
	if len(b) >= xstate.MinArea && le32(b[swOffset:]) == swMagic1 {
		size := int64(le32(b[swXStateSize:]))
		if size < xstate.MinArea || size > int64(len(b)) {
			return nil, &xstate.AreaError{Offset: swXStateSize, Field: "xstate_size",
				Reason: fmt.Sprintf("%d bytes, of which the signal frame has %d", size, len(b))}
		}
		b = b[:size]
		xcr0s = []xstate.Features{xstate.Features(binary.LittleEndian.Uint64(b[swXFeatures:]))}
	}
	layout, err := areaLayout(b, machine, xcr0s...)
	if err != nil {
		return nil, err
	}
	return xstate.ParseArea(b, layout)
}
