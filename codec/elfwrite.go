package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Sizes and offsets of the structs in the notes, 64-bit and 32-bit
// (include/uapi/linux/elfcore.h, arch/x86/include/asm/elf.h).
const (
	status64, status64Regs = 336, 112
	status32, status32Regs = 144, 72
	info64, info32         = 136, 124
)

// WriteELFCore writes an ELF core that holds the notes of the threads and no
// memory, so that a debugger shows their registers. The components have Intel's
// offsets, which every gdb knows, and NT_X86_XSAVE_LAYOUT says so.
//
// XSTATE_BV is the thread's, with the legacy components always in use. A component
// whose values the record lacks is written as INIT; lost names those.
//
// The error is from w, or says what an ELF core cannot hold: no thread at all,
// threads of 32 and of 64 bits ([ErrMixedModes]) or of one number ([ErrSameThread]),
// or components that lie in the same place.
func WriteELFCore(w io.Writer, threads []Thread) (lost xstate.Features, err error) {
	if len(threads) == 0 {
		return 0, errors.New("no thread to write")
	}
	compat := threads[0].State.Compat
	set := xstate.Legacy
	xsave := false
	tids := map[int]bool{}
	for _, t := range threads {
		s := t.State
		switch {
		case s.Compat != compat:
			return 0, ErrMixedModes
		case tids[t.TID]:
			return 0, fmt.Errorf("thread %d: %w", t.TID, ErrSameThread)
		}
		tids[t.TID] = true
		xsave = xsave || s.Format == xstate.FormatXSave
		lost |= s.With(xstate.Lost)
		set |= (s.BV | s.Recorded()) & xstate.Known
	}
	layout := xstate.IntelLayout(set)
	for i, a := range layout {
		for _, b := range layout[i+1:] {
			if a.Overlaps(b) {
				return lost, fmt.Errorf("%v and %v lie in the same place", a.Feature, b.Feature)
			}
		}
	}
	e := elfWriter{compat: compat, layout: layout, xcr0: set, xsave: xsave}
	for i := range threads {
		if err := e.thread(&threads[i], i); err != nil {
			return lost, err
		}
	}
	if xsave {
		var desc []byte
		for _, p := range layout {
			for _, v := range []uint32{uint32(p.Feature), uint32(p.Size), uint32(p.Offset), 0} {
				desc = binary.LittleEndian.AppendUint32(desc, v)
			}
		}
		e.note("LINUX", ntX86Layout, desc)
	}
	for _, b := range [][]byte{e.header(), e.notes} {
		if _, err := w.Write(b); err != nil {
			return lost, err
		}
	}
	return lost, nil
}

// elfWriter gathers the notes of a core.
type elfWriter struct {
	compat bool
	xsave  bool
	layout xstate.Layout
	xcr0   xstate.Features
	notes  []byte
}

func (e *elfWriter) note(owner string, typ uint32, desc []byte) {
	for _, v := range []uint32{uint32(len(owner) + 1), uint32(len(desc)), typ} {
		e.notes = binary.LittleEndian.AppendUint32(e.notes, v)
	}
	e.notes = append(append(e.notes, owner...), 0)
	e.notes = append(e.notes, make([]byte, -(len(owner)+1)&3)...)
	e.notes = append(e.notes, desc...)
	e.notes = append(e.notes, make([]byte, -len(desc)&3)...)
}

// thread writes the notes of one thread, in the kernel's order.
func (e *elfWriter) thread(t *Thread, i int) error {
	tid := t.TID
	if tid == 0 {
		tid = i + 1 // a debugger wants a number
	}
	pid := t.PID
	if pid == 0 {
		pid = tid
	}
	e.note("CORE", ntPRStatus, e.status(t, tid))
	if i == 0 {
		e.note("CORE", ntPRPSInfo, e.info(pid, t.Comm))
	}
	s := t.State
	if s.Format == xstate.FormatNone {
		return nil
	}
	fx := s.FX
	clear(fx[416:])
	if e.compat {
		e.note("CORE", ntPRFPReg, toFSave(&fx))
		e.note("LINUX", ntPRXFPReg, fx[:])
	} else {
		e.note("CORE", ntPRFPReg, fx[:])
	}
	if !e.xsave {
		return nil
	}
	s = s.Clone()
	s.BV &= xstate.Known &^ s.With(xstate.Lost)
	for f := range (s.BV &^ xstate.Legacy).All() {
		if c := f.Component(); len(s.Data(f)) != c.Size { // a short or long array
			d := make([]byte, c.Size)
			copy(d, s.Data(f))
			s.SetData(f, d)
		}
	}
	area, err := s.MarshalArea(e.layout, e.layout.End(e.xcr0))
	if err != nil {
		return fmt.Errorf("thread %d: %w", t.TID, err)
	}
	// Where Linux keeps XCR0 in such a note (arch/x86/kernel/fpu/regset.c).
	binary.LittleEndian.PutUint64(area[464:], uint64(e.xcr0))
	e.note("LINUX", ntX86XState, area)
	if ss := s.ShadowStack; ss.Enabled() {
		e.note("LINUX", ntX86ShStk, binary.LittleEndian.AppendUint64(nil, ss.SSP))
	}
	return nil
}

// status builds a prstatus with the thread's number and general registers.
func (e *elfWriter) status(t *Thread, tid int) []byte {
	shape, size, at := &elfShapes[elfClass64], status64, status64Regs
	if e.compat {
		shape, size, at = &elfShapes[elfClass32], status32, status32Regs
	}
	b := make([]byte, size)
	binary.LittleEndian.PutUint32(b[shape.statusPID:], uint32(tid))
	AppendGPRegs(b[:at], t.GPRegs, e.compat)
	return b
}

func (e *elfWriter) shape() (*elfShape, int) {
	if e.compat {
		return &elfShapes[elfClass32], info32
	}
	return &elfShapes[elfClass64], info64
}

func (e *elfWriter) info(pid int, comm string) []byte {
	shape, size := e.shape()
	b := make([]byte, size)
	binary.LittleEndian.PutUint32(b[shape.infoPID:], uint32(pid))
	copy(b[shape.infoName:][:15], comm)
	copy(b[shape.infoName+16:][:79], comm) // the arguments are not known
	return b
}

// header builds the file header and the one program header.
func (e *elfWriter) header() []byte {
	shape, _ := e.shape()
	b := make([]byte, shape.header+shape.phdr)
	le := binary.LittleEndian
	class, machine := byte(elfClass64), uint16(emX86_64)
	if e.compat {
		class, machine = elfClass32, em386
	}
	copy(b, elfMagic)
	b[4], b[5], b[6] = class, elfLittle, 1
	le.PutUint16(b[16:], elfTypeCore)
	le.PutUint16(b[18:], machine)
	le.PutUint32(b[20:], 1)
	word := func(off int, v int) {
		if e.compat {
			le.PutUint32(b[off:], uint32(v))
		} else {
			le.PutUint64(b[off:], uint64(v))
		}
	}
	word(shape.phoff, shape.header)
	le.PutUint16(b[shape.phentsize-2:], uint16(shape.header))
	le.PutUint16(b[shape.phentsize:], uint16(shape.phdr))
	le.PutUint16(b[shape.phentsize+2:], 1)
	ph := shape.header
	le.PutUint32(b[ph:], elfPTNote)
	word(ph+shape.fileOffset, len(b))
	word(ph+shape.fileSize, len(e.notes))
	return b
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
