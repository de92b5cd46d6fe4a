package xstate

import (
	"bytes"
	"encoding/binary"
)

// Offsets in the legacy area, 64-bit form (SDM vol. 1, table 10-2).
const (
	offFCW       = 0
	offFSW       = 2
	offFTW       = 4
	offFOP       = 6
	offFIP       = 8
	offFDP       = 16
	offMXCSR     = 24
	offMXCSRMask = 28
	offST        = 32
	offXMM       = 160
)

const (
	// InitFCW is the x87 control word of the INIT state (SDM vol. 1, 13.6).
	InitFCW = 0x37f
	// InitMXCSR is the MXCSR of the INIT state (SDM vol. 1, 13.6).
	InitMXCSR = 0x1f80
	// DefaultMXCSRMask is the mask of a CPU that stores 0 (SDM vol. 1, 11.6.6).
	DefaultMXCSRMask = 0xffbf
	// DefaultPKRU is what Linux gives a new program: every key but key 0 closed
	// (arch/x86/mm/pkeys.c:init_pkru_value).
	DefaultPKRU = 0x55555554
)

// FXArea is a legacy (FXSAVE) area: x87, MMX, MXCSR and XMM registers.
type FXArea [legacySize]byte

// InitFXArea returns the legacy area in its INIT state. MXCSR_MASK, which is no
// part of the state, is 0.
func InitFXArea() FXArea {
	var a FXArea
	a.SetFCW(InitFCW)
	a.SetMXCSR(InitMXCSR)
	return a
}

func (a *FXArea) FCW() uint16       { return binary.LittleEndian.Uint16(a[offFCW:]) }
func (a *FXArea) FSW() uint16       { return binary.LittleEndian.Uint16(a[offFSW:]) }
func (a *FXArea) FOP() uint16       { return binary.LittleEndian.Uint16(a[offFOP:]) }
func (a *FXArea) FIP() uint64       { return binary.LittleEndian.Uint64(a[offFIP:]) }
func (a *FXArea) FDP() uint64       { return binary.LittleEndian.Uint64(a[offFDP:]) }
func (a *FXArea) MXCSR() uint32     { return binary.LittleEndian.Uint32(a[offMXCSR:]) }
func (a *FXArea) MXCSRMask() uint32 { return binary.LittleEndian.Uint32(a[offMXCSRMask:]) }

// FTW returns the abridged tag word: bit i is set when physical register i is not
// empty.
func (a *FXArea) FTW() uint8 { return a[offFTW] }

// FTWRaw returns the tag as Linux and CRIU keep it, with the reserved byte after
// it as the high half (struct fxregs_state, twd).
func (a *FXArea) FTWRaw() uint16 { return binary.LittleEndian.Uint16(a[offFTW:]) }

func (a *FXArea) SetFCW(v uint16)       { binary.LittleEndian.PutUint16(a[offFCW:], v) }
func (a *FXArea) SetFSW(v uint16)       { binary.LittleEndian.PutUint16(a[offFSW:], v) }
func (a *FXArea) SetFTWRaw(v uint16)    { binary.LittleEndian.PutUint16(a[offFTW:], v) }
func (a *FXArea) SetFOP(v uint16)       { binary.LittleEndian.PutUint16(a[offFOP:], v) }
func (a *FXArea) SetFIP(v uint64)       { binary.LittleEndian.PutUint64(a[offFIP:], v) }
func (a *FXArea) SetFDP(v uint64)       { binary.LittleEndian.PutUint64(a[offFDP:], v) }
func (a *FXArea) SetMXCSR(v uint32)     { binary.LittleEndian.PutUint32(a[offMXCSR:], v) }
func (a *FXArea) SetMXCSRMask(v uint32) { binary.LittleEndian.PutUint32(a[offMXCSRMask:], v) }

// STSpace returns the 128 bytes of ST(0) to ST(7), 16 each, padding included.
func (a *FXArea) STSpace() []byte { return a[offST:][:128:128] }

// XMMSpace returns the 256 bytes of XMM0 to XMM15.
func (a *FXArea) XMMSpace() []byte { return a[offXMM:][:256:256] }

// Registers returns the bytes that the registers lie in, with the padding between them:
// what follows is reserved, or software's.
func (a *FXArea) Registers() []byte { return a[:offXMM+256] }

// Copy takes the registers of those of x87 and SSE that are in the set from another area.
func (a *FXArea) Copy(from *FXArea, set Features) {
	if set.Has(X87) {
		copy(a[:offMXCSR], from[:offMXCSR])
		copy(a.STSpace(), from.STSpace())
	}
	if set.Has(SSE) {
		a.SetMXCSR(from.MXCSR())
		copy(a.XMMSpace(), from.XMMSpace())
	}
}

// Zero returns those of x87 and SSE whose bytes are all 0, which is not INIT.
func (a *FXArea) Zero() (set Features) {
	if bytes.Equal(a[:offMXCSR], zeros[:offMXCSR]) && bytes.Equal(a.STSpace(), zeros[:128]) {
		set |= X87.Mask()
	}
	if a.MXCSR() == 0 && bytes.Equal(a.XMMSpace(), zeros[:256]) {
		set |= SSE.Mask()
	}
	return set
}

// ST returns register ST(i), which is stack order, not physical order.
func (a *FXArea) ST(i int) Float80 { return Float80(a[offST+16*i:][:10]) }

// Top returns TOP, the physical register that is ST(0): bits 11 to 13 of FSW.
func (a *FXArea) Top() int { return int(a.FSW()>>11) & 7 }

// Empty reports whether ST(i) is tagged empty. FTW is by physical register, the
// ST slots are by stack order (SDM vol. 1, 10.5.1.1).
func (a *FXArea) Empty(i int) bool { return a.FTW()>>((a.Top()+i)&7)&1 == 0 }
