// Package testelf builds ELF cores of notes, as writers of many kinds lay them out.
package testelf

import (
	"bytes"
	"debug/elf"
	"encoding/binary"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

var le = binary.LittleEndian

// Note builds one note; without an owner it has no name, as Delve's.
func Note(owner string, typ uint32, desc []byte) []byte {
	name := []byte(owner)
	if owner != "" {
		name = append(name, 0)
	}
	b := le.AppendUint32(nil, uint32(len(name)))
	b = le.AppendUint32(b, uint32(len(desc)))
	b = append(le.AppendUint32(b, typ), name...)
	b = append(b, make([]byte, -len(name)&3)...)
	b = append(b, desc...)
	return append(b, make([]byte, -len(desc)&3)...)
}

// Core builds a core of notes alone, of 32 or 64 bits, with one program header.
func Core(class int, machine uint16, notes ...[]byte) []byte {
	n := bytes.Join(notes, nil)
	var h, p any = elf.Header64{Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_CORE), Machine: machine, Phoff: 64, Phentsize: 56, Phnum: 1},
		elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 120, Filesz: uint64(len(n))}
	if class == 32 {
		h, p = elf.Header32{Ident: [16]byte{0x7f, 'E', 'L', 'F', 1, 1, 1}, Type: uint16(elf.ET_CORE), Machine: machine, Phoff: 52, Phentsize: 32, Phnum: 1},
			elf.Prog32{Type: uint32(elf.PT_NOTE), Off: 84, Filesz: uint32(len(n))}
	}
	var b bytes.Buffer
	for _, part := range []any{h, p, n} {
		binary.Write(&b, le, part)
	}
	return b.Bytes()
}

// PRStatus builds the data of an NT_PRSTATUS of size bytes with the thread's number.
func PRStatus(size, at, tid int) []byte {
	b := make([]byte, size)
	le.PutUint32(b[at:], uint32(tid))
	return b
}

// Status64 builds the NT_PRSTATUS of a thread of 64 bits.
func Status64(tid int) []byte { return Note("CORE", 1, PRStatus(336, 32, tid)) }

// PRPSInfo builds the data of an NT_PRPSINFO of 64 bits.
func PRPSInfo(pid int, name string) []byte {
	b := make([]byte, 136)
	le.PutUint32(b[24:], uint32(pid))
	copy(b[40:], name)
	return b
}

// UsedFX is a legacy area with pi in ST(0), a flag in MXCSR, and XMM registers of
// numbers that ascend: xmm0 is 01 to 10.
func UsedFX() *xstate.FXArea {
	fx := xstate.InitFXArea()
	fx.SetMXCSR(0x1fa0)
	fx.SetFTWRaw(0x80)
	copy(fx.STSpace(), "\x35\xc2\x68\x21\xa2\xda\x0f\xc9\x00\x40")
	for i := range fx.XMMSpace() {
		fx.XMMSpace()[i] = byte(i%16 + i/16 + 1)
	}
	return &fx
}

// Area is an XSAVE area of size bytes as a writer put it together: the legacy area, XCR0,
// XSTATE_BV, and where there is room numbers in what follows, the first 41.
func Area(fx *xstate.FXArea, size int, xcr0, bv xstate.Features) []byte {
	b := make([]byte, size)
	copy(b, fx[:])
	le.PutUint64(b[464:], uint64(xcr0))
	xstate.SetAreaBV(b, bv)
	for i := xstate.MinArea; i < xstate.IntelLayout(bv).End(bv) && i < size; i++ {
		b[i] = byte(i - xstate.MinArea + 0x41)
	}
	return b
}
