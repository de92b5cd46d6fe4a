package ptrace

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/fpuimg/fpuimg/codec/cpuid"
)

// What the tests hold the register sets against: the XSAVE area as the manual has it, by
// a way of its own that shares nothing with package xstate.

// Offsets in the XSAVE area (Intel SDM vol. 1, 13.4.1 and 13.4.2).
const (
	offMXCSR     = 24
	offMXCSRMask = 28
	offST        = 32
	offXMM       = 160
	offXMMEnd    = 416
	fxsaveSize   = 512
	offBV        = 512
	offHeaderEnd = 576
)

// Component bits that are treated apart.
const (
	bitX87      = 0
	bitSSE      = 1
	bitAVX      = 2
	bitZMMHi256 = 6
	bitPKRU     = 9
)

const (
	initFCW   = 0x37f
	initMXCSR = 0x1f80
)

// component is where one extended component lies in this host's standard
// format area.
type component struct{ offset, size int }

// hostComponents reads CPUID leaf 0xD (SDM vol. 1, 13.2), by which the kernel
// lays out the areas that ptrace exchanges (arch/x86/kernel/fpu/xstate.c:
// setup_xstate_cache). Entries with size 0 are absent or supervisor state.
var hostComponents = sync.OnceValue(func() (c [63]component) {
	for bit := uint32(2); bit < 63; bit++ {
		if r, _ := (cpuid.Native{}).CPUID(0xd, bit); r.EAX != 0 && r.ECX&1 == 0 {
			c[bit] = component{int(r.EBX), int(r.EAX)}
		}
	}
	return c
})

// diffXState compares what was written to NT_X86_XSTATE with what reads back,
// register by register, and returns nil if they mean the same. The rule:
//
//   - XSTATE_BV is equal, but for PKRU: the kernel keeps that register outside
//     the area since 5.14, so its value counts and its bit does not.
//   - A component whose bit is clear holds its INIT value, whatever the bytes
//     say: so the kernel takes it, and gives back INIT values (FCW 0x37F, the
//     rest 0).
//   - A component whose bit is set holds its bytes, all of them; PKRU its
//     first four, for the rest is padding.
//   - MXCSR counts if SSE or AVX is in use and is 0x1F80 otherwise
//     (copy_uabi_to_xstate).
//
// Left out, since no register is there: the padding of ST0-7, the byte after
// FTW, MXCSR_MASK (a constant of the CPU), bytes 416-511 (the kernel puts XCR0
// at 464), the rest of the header (the kernel refuses anything but zeros), and
// gaps between components.
func diffXState(want, got []byte) error {
	if len(want) < offHeaderEnd || len(want) != len(got) {
		return fmt.Errorf("%d and %d bytes", len(want), len(got))
	}
	wantBV, gotBV := binary.LittleEndian.Uint64(want[offBV:]), binary.LittleEndian.Uint64(got[offBV:])
	if (wantBV^gotBV)&^(1<<bitPKRU) != 0 {
		return firstDiff(-1, offBV, want[offBV:offBV+8], got[offBV:offBV+8])
	}
	if err := diffLegacy(want, got, wantBV, gotBV); err != nil {
		return err
	}
	components := hostComponents()
	for bit := 2; bit < 63; bit++ {
		if (wantBV|gotBV)&(1<<bit) == 0 {
			continue
		}
		c := components[bit]
		if c.size == 0 || c.offset < offHeaderEnd || c.offset+c.size > len(want) {
			return fmt.Errorf("component %d is in use, and nobody knows where", bit)
		}
		if bit == bitPKRU {
			c.size = 4
		}
		w := inUse(want[c.offset:c.offset+c.size], wantBV&(1<<bit) != 0)
		g := inUse(got[c.offset:c.offset+c.size], gotBV&(1<<bit) != 0)
		if err := firstDiff(bit, c.offset, w, g); err != nil {
			return err
		}
	}
	return nil
}

// diffFP compares two FXSAVE areas by the same rule; there is no XSTATE_BV, so
// x87 and SSE always count.
func diffFP(want, got []byte) error {
	if len(want) != fxsaveSize || len(got) != fxsaveSize {
		return fmt.Errorf("%d and %d bytes", len(want), len(got))
	}
	return diffLegacy(want, got, 3, 3)
}

func diffLegacy(want, got []byte, wantBV, gotBV uint64) error {
	w, g := legacy(want, wantBV), legacy(got, gotBV)
	if err := firstDiff(bitX87, 0, w[:offMXCSR], g[:offMXCSR]); err != nil {
		return err
	}
	if err := firstDiff(bitSSE, offMXCSR, w[offMXCSR:offMXCSRMask], g[offMXCSR:offMXCSRMask]); err != nil {
		return err
	}
	if err := firstDiff(bitX87, offST, w[offST:offXMM], g[offST:offXMM]); err != nil {
		return err
	}
	return firstDiff(bitSSE, offXMM, w[offXMM:], g[offXMM:])
}

// legacy gives the registers in the first 416 bytes of an area: INIT values
// where the bit is clear, zero where there is no register.
func legacy(area []byte, bv uint64) (l [offXMMEnd]byte) {
	if bv&(1<<bitX87) != 0 {
		copy(l[:offMXCSR], area)
		l[5] = 0 // after the abridged tag word
		for i := range 8 {
			copy(l[offST+16*i:][:10], area[offST+16*i:])
		}
	} else {
		binary.LittleEndian.PutUint16(l[:], initFCW)
	}
	if bv&(1<<bitSSE|1<<bitAVX) != 0 {
		copy(l[offMXCSR:offMXCSRMask], area[offMXCSR:])
	} else {
		binary.LittleEndian.PutUint32(l[offMXCSR:], initMXCSR)
	}
	if bv&(1<<bitSSE) != 0 {
		copy(l[offXMM:], area[offXMM:])
	}
	return l
}

// inUse gives the content of an extended component: its INIT value, zero, if
// its bit is clear. (TILEDATA and the like included: every user component
// above SSE has an INIT value of all zeros, SDM vol. 1, 13.6.)
func inUse(b []byte, set bool) []byte {
	if set {
		return b
	}
	return make([]byte, len(b))
}

func firstDiff(bit, offset int, want, got []byte) error {
	for i := range want {
		if want[i] != got[i] {
			return fmt.Errorf("component %d differs at %#x: want %#02x, got %#02x", bit, offset+i, want[i], got[i])
		}
	}
	return nil
}
