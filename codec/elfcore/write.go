package elfcore

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// ErrMixedModes is threads of 32 and of 64 bits where one ELF core is to hold them.
var ErrMixedModes = errors.New("threads of 32 bits and of 64 bits do not go into one ELF core")

// ErrSameThread is threads of one number where one ELF core is to hold them.
var ErrSameThread = errors.New("two threads of one number do not go into one ELF core")

// Write writes an ELF core that holds the notes of the threads and no
// memory, so that a debugger shows their registers. The components have Intel's
// offsets, which every gdb knows, and NT_X86_XSAVE_LAYOUT says so.
//
// XSTATE_BV is the thread's, with the legacy components always in use. A component
// whose values the record lacks is written as INIT; lost names those. What is unknown
// of a thread stays so: the notes that would tell it are left out.
//
// The error is from w, or says what an ELF core cannot hold: no thread at all,
// threads of 32 and of 64 bits ([ErrMixedModes]) or of one number ([ErrSameThread]),
// or components that lie in the same place.
func Write(w io.Writer, threads []codec.Thread) (lost xstate.Features, err error) {
	if len(threads) == 0 {
		return 0, errors.New("no thread to write")
	}
	e := writer{is32: threads[0].State.Compat, xcr0: xstate.Legacy, structs: structs64}
	if e.is32 {
		e.structs = structs32
	}
	tids := map[int]bool{}
	for _, t := range threads {
		s := t.State
		switch {
		case s.Compat != e.is32:
			return 0, ErrMixedModes
		case tids[t.TID]:
			return 0, fmt.Errorf("thread %d: %w", t.TID, ErrSameThread)
		}
		tids[t.TID] = true
		e.xsave = e.xsave || s.Format == xstate.FormatXSave
		lost |= s.With(xstate.Lost)
		e.xcr0 |= (s.BV | s.Recorded()) & xstate.Known
	}
	e.layout = xstate.IntelLayout(e.xcr0)
	for i, a := range e.layout {
		for _, b := range e.layout[i+1:] {
			if a.Overlaps(b) {
				return lost, fmt.Errorf("%v and %v lie in the same place", a.Feature, b.Feature)
			}
		}
	}
	for i := range threads {
		if err := e.thread(&threads[i], i); err != nil {
			return lost, err
		}
	}
	if e.xsave {
		var desc []byte
		for _, p := range e.layout {
			for _, v := range []uint32{uint32(p.Feature), uint32(p.Size), uint32(p.Offset), 0} {
				desc = binary.LittleEndian.AppendUint32(desc, v)
			}
		}
		e.note("LINUX", ntX86Layout, desc)
	}
	_, err = w.Write(append(e.header(), e.notes...))
	return lost, err
}

// writer gathers the notes of a core.
type writer struct {
	is32    bool
	structs structs
	xsave   bool
	layout  xstate.Layout
	xcr0    xstate.Features
	notes   []byte
}

func (e *writer) note(owner string, typ uint32, desc []byte) {
	for _, v := range []uint32{uint32(len(owner) + 1), uint32(len(desc)), typ} {
		e.notes = binary.LittleEndian.AppendUint32(e.notes, v)
	}
	e.notes = append(append(e.notes, owner...), 0)
	e.notes = append(e.notes, make([]byte, -(len(owner)+1)&3)...)
	e.notes = append(e.notes, desc...)
	e.notes = append(e.notes, make([]byte, -len(desc)&3)...)
}

// thread writes the notes of one thread, in the kernel's order.
func (e *writer) thread(t *codec.Thread, i int) error {
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
	clear(fx[len(fx.Registers()):])
	if e.is32 {
		e.note("CORE", ntPRFPReg, toFSave(&fx))
	} else {
		e.note("CORE", ntPRFPReg, fx[:])
	}
	if e.is32 && !s.Unknown.Has(xstate.SSE) {
		e.note("LINUX", ntPRXFPReg, fx[:])
	}
	if !e.xsave || s.Unknown != 0 {
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
	xstate.SetAreaXCR0(area, e.xcr0)
	e.note("LINUX", ntX86XState, area)
	if ss := s.ShadowStack; ss.Enabled() {
		e.note("LINUX", ntX86ShStk, binary.LittleEndian.AppendUint64(nil, ss.SSP))
	}
	return nil
}

// status builds a prstatus with the thread's number and general registers.
func (e *writer) status(t *codec.Thread, tid int) []byte {
	b := make([]byte, e.structs.status)
	binary.LittleEndian.PutUint32(b[e.structs.statusPID:], uint32(tid))
	codec.AppendGPRegs(b[:e.structs.regs], t.GPRegs, e.is32)
	return b
}

// info builds a prpsinfo.
func (e *writer) info(pid int, comm string) []byte {
	b := make([]byte, e.structs.info)
	binary.LittleEndian.PutUint32(b[e.structs.infoPID:], uint32(pid))
	copy(b[e.structs.infoName:][:15], comm)
	copy(b[e.structs.infoName+16:][:79], comm) // the arguments are not known
	return b
}

// header builds the file header and the one program header.
func (e *writer) header() []byte {
	ident := [elf.EI_NIDENT]byte{elf.EI_DATA: byte(elf.ELFDATA2LSB), elf.EI_VERSION: byte(elf.EV_CURRENT)}
	copy(ident[:], elf.ELFMAG)
	const header64, prog64, header32, prog32 = 64, 56, 52, 32
	size := uint64(len(e.notes))
	var h, ph any
	if e.is32 {
		ident[elf.EI_CLASS] = byte(elf.ELFCLASS32)
		h = elf.Header32{Ident: ident, Type: uint16(elf.ET_CORE), Machine: uint16(elf.EM_386), Version: uint32(elf.EV_CURRENT),
			Phoff: header32, Ehsize: header32, Phentsize: prog32, Phnum: 1}
		ph = elf.Prog32{Type: uint32(elf.PT_NOTE), Off: header32 + prog32, Filesz: uint32(size)}
	} else {
		ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
		h = elf.Header64{Ident: ident, Type: uint16(elf.ET_CORE), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
			Phoff: header64, Ehsize: header64, Phentsize: prog64, Phnum: 1}
		ph = elf.Prog64{Type: uint32(elf.PT_NOTE), Off: header64 + prog64, Filesz: size}
	}
	var b []byte
	for _, v := range []any{h, ph} {
		b, _ = binary.Append(b, binary.LittleEndian, v) // fails for a type without a fixed size
	}
	return b
}
