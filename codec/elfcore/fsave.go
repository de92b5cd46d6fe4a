package elfcore

import (
	"encoding/binary"
	"slices"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// fsaveSize is the size of what FSAVE stores: seven words and eight registers.
const fsaveSize = 108

// fromFSave reads the floating-point registers of a 32-bit thread on a machine
// without FXSAVE (SDM vol. 1, figure 8-9). It tells nothing of SSE.
func fromFSave(b []byte) *xstate.State {
	s := xstate.NewState(xstate.FormatFXSave)
	s.Unknown = xstate.User() &^ xstate.X87.Mask()
	fx := &s.FX
	fx.SetFCW(binary.LittleEndian.Uint16(b))
	fx.SetFSW(binary.LittleEndian.Uint16(b[4:]))
	var tag uint16
	for i, full := 0, binary.LittleEndian.Uint16(b[8:]); i < 8; i++ {
		if full>>(2*i)&3 != 3 { // 3 is empty
			tag |= 1 << i
		}
	}
	fx.SetFTWRaw(tag)
	fx.SetFIP(uint64(le32(b[12:])) | uint64(binary.LittleEndian.Uint16(b[16:]))<<32)
	fx.SetFOP(binary.LittleEndian.Uint16(b[18:]) & 0x7ff)
	fx.SetFDP(uint64(le32(b[20:])) | uint64(binary.LittleEndian.Uint16(b[24:]))<<32)
	for i := range 8 {
		copy(fx.STSpace()[16*i:], b[28+10*i:][:10])
	}
	return s
}

// toFSave is the inverse of fromFSave. The full tag is worked out from the content
// (SDM vol. 1, 8.1.7).
func toFSave(fx *xstate.FXArea) []byte {
	b := make([]byte, fsaveSize)
	le := binary.LittleEndian
	le.PutUint32(b, uint32(fx.FCW())|0xffff0000)
	le.PutUint32(b[4:], uint32(fx.FSW())|0xffff0000)
	tag := uint32(0xffff0000)
	for i := range 8 {
		full := uint32(2)
		switch {
		case fx.Empty(i):
			full = 3
		case fx.ST(i).Class() == xstate.ClassNormal:
			full = 0
		case fx.ST(i).Class() == xstate.ClassZero:
			full = 1
		}
		tag |= full << (2 * ((fx.Top() + i) & 7))
	}
	le.PutUint32(b[8:], tag)
	le.PutUint32(b[12:], uint32(fx.FIP()))
	le.PutUint32(b[16:], uint32(fx.FIP()>>32)&0xffff|uint32(fx.FOP())<<16)
	le.PutUint32(b[20:], uint32(fx.FDP()))
	le.PutUint32(b[24:], uint32(fx.FDP()>>32)&0xffff|0xffff0000)
	for i := range 8 {
		copy(b[28+10*i:], fx.STSpace()[16*i:][:10])
	}
	return slices.Clip(b)
}
