package xstate

import "encoding/binary"

// What the kernel says of the area in a signal frame, in the bytes where its ptrace has
// XCR0 (struct _fpx_sw_bytes, arch/x86/include/uapi/asm/sigcontext.h). The first word is
// FP_XSTATE_MAGIC1.
const (
	FrameExtended = 468 // offset of the size with the end mark, 32 bits
	FrameFeatures = 472 // offset of the components that there is room for
	FrameSize     = 480 // offset of the size without it, 32 bits

	// FrameEnd is the end mark, 32 bits behind the area (FP_XSTATE_MAGIC2).
	FrameEnd = 0x46505845

	frameMagic = 0x46505853
)

// Frame is what a signal frame says of its area.
type Frame struct {
	Features Features
	Size     int
}

// ParseFrame reads it; ok is false for an area that is in no signal frame. That the area
// is as large, and the end mark there, is not looked at.
func ParseFrame(b []byte) (f Frame, ok bool) {
	if len(b) < MinArea || binary.LittleEndian.Uint32(b[offSWReserved:]) != frameMagic {
		return f, false
	}
	return Frame{Features(binary.LittleEndian.Uint64(b[FrameFeatures:])), int(binary.LittleEndian.Uint32(b[FrameSize:]))}, true
}
