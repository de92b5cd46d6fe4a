package codec

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Constants of the ELF format and of Linux core notes (include/uapi/linux/elf.h).
const (
	elfMagic    = "\x7fELF"
	elfClass32  = 1
	elfClass64  = 2
	elfLittle   = 1
	elfTypeCore = 4
	elfPTNote   = 4
	elfPNXNum   = 0xffff // the count of program headers is in section header 0

	em386    = 3
	emX86_64 = 62

	ntPRStatus    = 1
	ntPRFPReg     = 2
	ntPRPSInfo    = 3
	ntPRXFPReg    = 0x46e62b7f
	ntX86XState   = 0x202
	ntX86ShStk    = 0x204
	ntX86Layout   = 0x205 // NT_X86_XSAVE_LAYOUT, Linux 6.12
	layoutEntry   = 16    // type, size, offset, flags
	maxELFNote    = 1 << 20
	maxELFHeaders = 1 << 20
)

var elfMachines = map[uint16]string{2: "sparc", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390", 40: "arm",
	183: "aarch64", 243: "riscv", 258: "loongarch"}

// elfSystems are the systems whose cores are told by EI_OSABI of the file header.
var elfSystems = map[byte]string{1: "HP-UX", 2: "NetBSD", 6: "Solaris", 7: "AIX", 9: "FreeBSD", 12: "OpenBSD"}

// noteSystems are those that are told by the owners of their notes; a number may follow.
var noteSystems = []struct{ owner, system string }{{"FreeBSD", "FreeBSD"}, {"NetBSD-CORE", "NetBSD"}, {"OpenBSD", "OpenBSD"},
	{"DragonFly", "DragonFly BSD"}, {"QNX", "QNX"}}

// elfTypes names the types of ELF files that are no cores.
var elfTypes = map[uint16]string{1: "an object file", 2: "an executable", 3: "a shared object or executable"}

// elfShape is what differs between the two classes of core: sizes and offsets in
// the file header, a program header, and the structs prstatus and prpsinfo.
type elfShape struct {
	header, phdr, shdr           int
	phoff, shoff, phentsize      int // in the file header
	fileOffset, fileSize         int // in a program header
	shInfo                       int // in a section header
	statusPID, infoPID, infoName int // in prstatus and prpsinfo
}

var elfShapes = [...]elfShape{
	elfClass32: {52, 32, 40, 28, 32, 42, 4, 16, 28, 24, 12, 28},
	elfClass64: {64, 56, 64, 32, 40, 54, 8, 32, 44, 32, 24, 40},
}

// elfCore is an ELF core while it is read. Bytes are asked for in ascending order
// of their offsets wherever the file allows it, so that a pipe can be read too.
type elfCore struct {
	path  string
	r     *bufio.Reader
	file  io.ReadSeeker // nil for a pipe
	at    int64         // offset of the next byte of r
	size  int64         // of the file; -1 for a pipe
	shape elfShape
	wide  bool // class 64
	x32   bool
	arch  uint16

	machine *xstate.CPU   // the caller's; nil if unknown
	layout  xstate.Layout // of note 0x205; nil without one
	pid     int
	comm    string
	threads []*elfThread
	last    *elfThread // whose notes these are; nil before the first
	tids    map[int]bool
	twice   []error // threads, and notes of one, that stand there again
}

// elfThread is the notes of one thread.
type elfThread struct {
	tid                          int
	gpregs                       [27]uint64
	fpregs, xfpregs, xstate, ssp elfNote
}

// elfNote is the data of a note.
type elfNote struct {
	b  []byte // nil without the note
	at int64  // offset in the file
}

func (e *elfCore) fail(off int64, field, format string, args ...any) error {
	return &FormatError{e.path, off, field, fmt.Errorf(format, args...)}
}

// ReadELFCore reads an ELF core from a file of the given size, or from a stream if
// file is nil. The machine places the components where the core does not say. Faults are
// about the core as a whole.
func ReadELFCore(path string, r io.Reader, file io.ReadSeeker, size int64, machine *xstate.CPU) (threads []Listed, faults []error, err error) {
	e := &elfCore{path: path, r: bufio.NewReaderSize(r, 64<<10), file: file, size: size, machine: machine, tids: map[int]bool{}}
	if err := e.read(); err != nil {
		return nil, nil, err
	}
	for _, t := range e.threads {
		th := Thread{PID: e.pid, TID: t.tid, Comm: e.comm, GPRegs: &t.gpregs}
		th.State, err = e.state(t)
		threads = append(threads, Listed{th, err})
	}
	if len(threads) == 0 {
		e.twice = append(e.twice, &FormatError{path, 0, "notes", errors.New("no NT_PRSTATUS: the core names no thread")})
	}
	return threads, e.twice, nil
}

// seek moves to off.
func (e *elfCore) seek(off int64, field string) error {
	switch {
	case off < 0 || e.size >= 0 && off > e.size:
		return e.fail(off, field, "lies outside the file")
	case e.file != nil && (off < e.at || off-e.at > int64(e.r.Buffered())):
		if _, err := e.file.Seek(off, io.SeekStart); err != nil {
			return err
		}
		e.r.Reset(e.file)
	case off < e.at:
		return e.fail(off, field, "lies before what was read; give the core as a file, not as a stream")
	default:
		if _, err := io.CopyN(io.Discard, e.r, off-e.at); err != nil {
			return e.short(err, off, field)
		}
	}
	e.at = off
	return nil
}

// bytes reads n bytes at the current place. n is a small number or was compared
// with the size of the file.
func (e *elfCore) bytes(n int, field string) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(e.r, b); err != nil {
		return nil, e.short(err, e.at, field)
	}
	e.at += int64(n)
	return b, nil
}

func (e *elfCore) short(err error, off int64, field string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return e.fail(off, field, "the file ends inside it")
	}
	return fmt.Errorf("%s: %w", e.path, err)
}

// word reads an offset or size of the class's width.
func (e *elfCore) word(b []byte) int64 {
	if !e.wide {
		return int64(le32(b))
	}
	v := binary.LittleEndian.Uint64(b)
	if v > math.MaxInt64 {
		return -1
	}
	return int64(v)
}

// read decodes the headers and then the notes.
func (e *elfCore) read() error {
	segments, err := e.programHeaders()
	if err != nil {
		return err
	}
	slices.SortFunc(segments, func(a, b elfSegment) int { return cmp.Compare(a.off, b.off) })
	// The size of the file bounds what the notes hold only if each byte is read once.
	var end int64
	for _, s := range segments {
		if s.off < end {
			return e.fail(s.off, "PT_NOTE", "overlaps another, which ends at %#x", end)
		}
		if err := e.notes(s); err != nil {
			return err
		}
		end = s.off + s.size
	}
	return nil
}

// elfSegment is where a PT_NOTE segment lies.
type elfSegment struct{ off, size int64 }

// programHeaders reads the file header and returns the segments of notes.
func (e *elfCore) programHeaders() ([]elfSegment, error) {
	ident, err := e.bytes(16, "header")
	if err != nil {
		return nil, err
	}
	switch {
	case string(ident[:4]) != elfMagic:
		return nil, e.fail(0, "header", "not an ELF file")
	case ident[4] != elfClass32 && ident[4] != elfClass64:
		return nil, e.fail(4, "header", "class %d is neither 32 nor 64 bits", ident[4])
	}
	e.shape, e.wide = elfShapes[ident[4]], ident[4] == elfClass64
	rest, err := e.bytes(e.shape.header-16, "header")
	if err != nil {
		return nil, err
	}
	h := append(ident, rest...)
	typ, machine := binary.LittleEndian.Uint16(h[16:]), binary.LittleEndian.Uint16(h[18:])
	if ident[5] != elfLittle {
		typ, machine = binary.BigEndian.Uint16(h[16:]), binary.BigEndian.Uint16(h[18:])
	}
	e.arch, e.x32 = machine, machine == emX86_64 && !e.wide
	switch {
	case typ != elfTypeCore && elfTypes[typ] != "":
		return nil, e.fail(16, "header", "%s, not a core", elfTypes[typ])
	case typ != elfTypeCore:
		return nil, e.fail(16, "header", "an ELF file of type %d, not a core", typ)
	case elfSystems[ident[7]] != "":
		return nil, &FormatError{e.path, 7, "header", &SystemError{elfSystems[ident[7]]}}
	case machine != em386 && machine != emX86_64:
		name := elfMachines[machine]
		if name == "" {
			name = fmt.Sprintf("%d", machine)
		}
		return nil, &FormatError{e.path, 18, "header", &ArchError{name}}
	case ident[5] != elfLittle:
		return nil, e.fail(5, "header", "not little endian, so not x86")
	}
	phoff := e.word(h[e.shape.phoff:])
	entry := int(binary.LittleEndian.Uint16(h[e.shape.phentsize:]))
	count := int64(binary.LittleEndian.Uint16(h[e.shape.phentsize+2:]))
	if entry != e.shape.phdr {
		return nil, e.fail(int64(e.shape.phentsize), "header", "program headers of %d bytes, want %d", entry, e.shape.phdr)
	}
	if count == elfPNXNum {
		// elf(5): the section header that holds the count stands at the end.
		if err := e.seek(e.word(h[e.shape.shoff:]), "section header"); err != nil {
			return nil, err
		}
		sh, err := e.bytes(e.shape.shdr, "section header")
		if err != nil {
			return nil, err
		}
		count = int64(le32(sh[e.shape.shInfo:]))
	}
	if count > maxELFHeaders {
		return nil, e.fail(phoff, "program headers", "%d, which is more than any core has", count)
	}
	if err := e.seek(phoff, "program headers"); err != nil {
		return nil, err
	}
	var out []elfSegment
	for range count {
		at := e.at
		ph, err := e.bytes(entry, "program header")
		if err != nil {
			return nil, err
		}
		if le32(ph) != elfPTNote {
			continue
		}
		s := elfSegment{e.word(ph[e.shape.fileOffset:]), e.word(ph[e.shape.fileSize:])}
		if s.off < 0 || s.size < 0 || s.off > math.MaxInt64-s.size || e.size >= 0 && s.off+s.size > e.size {
			return nil, e.fail(at, "PT_NOTE", "%d bytes at %#x are not in the file", s.size, s.off)
		}
		if s.size > 0 {
			out = append(out, s)
		}
	}
	return out, nil
}

// notes walks one segment of notes.
func (e *elfCore) notes(s elfSegment) error {
	if err := e.seek(s.off, "notes"); err != nil {
		return err
	}
	for end := s.off + s.size; e.at < end; {
		at := e.at
		if end-at < 12 {
			return e.fail(at, "note", "want 12 bytes, have %d", end-at)
		}
		h, err := e.bytes(12, "note")
		if err != nil {
			return err
		}
		name, size, typ := int64(le32(h)), int64(le32(h[4:])), le32(h[8:])
		desc := e.at + (name+3)&^3
		next := desc + (size+3)&^3
		if desc+size > end {
			return e.fail(at, "note", "%d bytes, but only %d follow", name+size, end-e.at)
		}
		if name <= 24 {
			owner, err := e.bytes(int(name), "note")
			if err != nil {
				return err
			}
			for _, s := range noteSystems {
				if bytes.HasPrefix(owner, []byte(s.owner)) {
					return &FormatError{e.path, at, "note", &SystemError{s.system}}
				}
			}
			if o := string(bytes.TrimRight(owner, "\x00")); wanted(typ) && (o == "CORE" || o == "LINUX") {
				if size > maxELFNote {
					return e.fail(at, noteName(typ), "%d bytes, which is more than any machine writes", size)
				}
				if err := e.seek(desc, "note"); err != nil {
					return err
				}
				b, err := e.bytes(int(size), noteName(typ))
				if err != nil {
					return err
				}
				if err := e.note(typ, desc, b); err != nil {
					return err
				}
			}
		}
		// The last note may lack its padding.
		if err := e.seek(min(next, end), "note"); err != nil {
			return err
		}
	}
	return nil
}

var noteNames = map[uint32]string{ntPRStatus: "NT_PRSTATUS", ntPRFPReg: "NT_PRFPREG", ntPRPSInfo: "NT_PRPSINFO",
	ntPRXFPReg: "NT_PRXFPREG", ntX86XState: "NT_X86_XSTATE", ntX86ShStk: "NT_X86_SHSTK", ntX86Layout: "NT_X86_XSAVE_LAYOUT"}

func noteName(typ uint32) string { return noteNames[typ] }

func wanted(typ uint32) bool { return noteNames[typ] != "" }

// note takes one note. NT_PRSTATUS opens a thread, to which the register notes
// after it belong (fs/binfmt_elf.c:write_note_info).
func (e *elfCore) note(typ uint32, at int64, b []byte) error {
	need := map[uint32]int{ntPRStatus: e.shape.statusPID + 4, ntPRPSInfo: e.shape.infoName + 16, ntX86ShStk: 8}[typ]
	if len(b) < need {
		return e.fail(at, noteName(typ), "want %d bytes, have %d", need, len(b))
	}
	switch typ {
	case ntPRStatus:
		e.last = &elfThread{tid: int(int32(le32(b[e.shape.statusPID:]))), gpregs: e.gpregs(b)}
		switch {
		case !e.tids[e.last.tid]:
			e.tids[e.last.tid] = true
			e.threads = append(e.threads, e.last)
		default:
			e.twice = AppendFault(e.twice, e.fail(at, noteName(typ), "thread %d stands twice; the first counts", e.last.tid))
		}
		return nil
	case ntPRPSInfo:
		e.pid = int(int32(le32(b[e.shape.infoPID:])))
		name, _, _ := bytes.Cut(b[e.shape.infoName:][:16], []byte{0})
		e.comm = string(name)
		return nil
	case ntX86Layout:
		layout, err := e.readLayout(at, b)
		if err == nil && e.layout != nil && !slices.Equal(layout, e.layout) {
			err = e.fail(at, noteName(typ), "differs from the one before")
		}
		e.layout = layout
		return err
	}
	t := e.last
	if t == nil {
		return e.fail(at, noteName(typ), "stands before any NT_PRSTATUS: it belongs to no thread")
	}
	var registers *elfNote
	switch typ {
	case ntPRFPReg:
		registers = &t.fpregs
	case ntPRXFPReg:
		registers = &t.xfpregs
	case ntX86XState:
		registers = &t.xstate
	case ntX86ShStk:
		registers = &t.ssp
	}
	switch {
	case registers.b == nil:
		*registers = elfNote{b, at}
	default:
		e.twice = AppendFault(e.twice, e.fail(at, noteName(typ), "stands twice for thread %d; the first counts", t.tid))
	}
	return nil
}

// gpregs returns the general registers of a prstatus. A register is as wide as the
// machine's, not as the class says.
func (e *elfCore) gpregs(status []byte) [27]uint64 {
	at, size := status32Regs, 4*len(regs32)
	switch {
	case e.wide:
		at, size = status64Regs, 8*27
	case e.x32:
		size = 8 * 27
	}
	status = status[min(at, len(status)):]
	return ParseGPRegs(status[:min(size, len(status))])
}

// readLayout decodes NT_X86_XSAVE_LAYOUT: an array of struct x86_xfeat_component
// (arch/x86/include/uapi/asm/elf.h).
func (e *elfCore) readLayout(at int64, b []byte) (xstate.Layout, error) {
	if len(b)%layoutEntry != 0 {
		return nil, e.fail(at, noteName(ntX86Layout), "%d bytes are no multiple of %d", len(b), layoutEntry)
	}
	l := xstate.Layout{}
	for i := 0; i < len(b); i += layoutEntry {
		fail := func(format string, args ...any) (xstate.Layout, error) {
			return nil, e.fail(at+int64(i), noteName(ntX86Layout), format, args...)
		}
		typ, size, off := le32(b[i:]), le32(b[i+4:]), le32(b[i+8:])
		if typ > 63 {
			return fail("component %d", typ)
		}
		f := xstate.Feature(typ)
		c := f.Component()
		if c == nil || xstate.Legacy.Has(f) {
			continue
		}
		if int64(size) != int64(c.Size) {
			return fail("%v of %d bytes, want %d", f, size, c.Size)
		}
		if off < xstate.MinArea || off > maxELFNote {
			return fail("%v at %#x, where no area has it", f, off)
		}
		if _, twice := l.Find(f); twice {
			return fail("%v stands twice", f)
		}
		p := xstate.Placement{Feature: f, Offset: int(off), Size: c.Size, Align64: c.Align64}
		if n := slices.IndexFunc(l, p.Overlaps); n >= 0 {
			return fail("%v at %#x, where %v lies", f, off, l[n].Feature)
		}
		l = append(l, p)
	}
	return l, nil
}

// state makes the notes of a thread into its state.
func (e *elfCore) state(t *elfThread) (*xstate.State, error) {
	s, err := e.registers(t)
	if err != nil {
		return nil, err
	}
	s.Compat = !e.wide && !e.x32
	if t.ssp.b != nil {
		s.ShadowStack = &xstate.ShadowStack{Status: 1, SSP: binary.LittleEndian.Uint64(t.ssp.b)}
	}
	return s, nil
}

func (e *elfCore) registers(t *elfThread) (*xstate.State, error) {
	parse, typ, note := xstate.ParseFXArea, uint32(ntPRFPReg), t.fpregs
	switch {
	case t.xstate.b != nil:
		parse, typ, note = e.xstate, ntX86XState, t.xstate
	case t.xfpregs.b != nil:
		typ, note = ntPRXFPReg, t.xfpregs
	case note.b == nil:
		return xstate.NewState(xstate.FormatNone), nil
	case len(note.b) == fsaveSize:
		return fromFSave(note.b), nil
	}
	s, err := parse(note.b)
	if err != nil {
		return nil, areaError(e.path, note.at, noteName(typ), err)
	}
	return s, nil
}

func (e *elfCore) xstate(b []byte) (*xstate.State, error) {
	layout := e.layout
	if layout == nil {
		var err error
		xcr0 := xstate.AreaXCR0(b)
		layout, err = areaLayout(b, e.machine, xcr0)
		if unknown, ok := errors.AsType[*LayoutError](err); ok && unknown.Machine == "" {
			unknown.Reason = fmt.Sprintf("no NT_X86_XSAVE_LAYOUT, and XCR0 %v fits no known machine", xcr0)
		}
		if err != nil {
			return nil, err
		}
	}
	return xstate.ParseArea(b, layout)
}

// areaError places an error of an area in a file that holds the area at off.
func areaError(path string, off int64, field string, err error) error {
	var area *xstate.AreaError
	if errors.As(err, &area) {
		return &FormatError{path, off + int64(area.Offset), field + " " + area.Field, errors.New(area.Reason)}
	}
	return &FormatError{path, off, field, err}
}

// usualXCR0 is the masks that machines have, for an area that does not name its
// own: CRIU's coredump script writes none, nor does the XSAVE instruction.
var usualXCR0 = []xstate.Features{0x7, 0x1f, 0xe7, 0xff, 0x207, 0x21f, 0x2e7, 0x2ff, 0x600e7, 0x602e7, 0x200e7, 0x202e7}

// areaLayout finds the layout of an area: that of the machine which stored it, else
// by the first XCR0 that fits. The error is a [*LayoutError]; of what is no area of
// standard format decoding says what it is.
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
		if l := guessLayout(b, xcr0); l != nil {
			return l, nil
		}
	}
	return nil, &LayoutError{Size: len(b)}
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
	if len(layouts) == 0 {
		return fail("neither its offsets nor the size of a known machine are recorded")
	}
	for f := range (xstate.AreaBV(b) & xstate.Known &^ xstate.Legacy).All() {
		if _, ok := layouts[0].Find(f); !ok {
			return fail(fmt.Sprintf("it has no %v, which is in use there", f))
		}
	}
	for _, l := range layouts {
		if l.EndsAt(len(b)) || machine.XSaveSize != nil && len(b) == int(*machine.XSaveSize) {
			return l, nil
		}
	}
	return fail("none of its components ends there")
}

// guessLayout finds the layout of a standard-format area by XCR0, or if that is 0 by
// what machines of its size have. It returns nil if nothing fits.
func guessLayout(b []byte, xcr0 xstate.Features) xstate.Layout {
	bv := xstate.AreaBV(b)
	candidates := []xstate.Features{xcr0}
	if xcr0 == 0 {
		candidates = append([]xstate.Features{bv | xstate.Legacy}, usualXCR0...)
	}
	for _, xcr0 := range candidates {
		if bv&xstate.Known&^(xcr0|xstate.Legacy) != 0 {
			continue
		}
		if l := xstate.GuessLayout(xcr0, len(b)); l != nil {
			return l
		}
	}
	return nil
}

// fsaveSize is the size of what FSAVE stores: seven words and eight registers.
const fsaveSize = 108

// fromFSave reads the floating-point registers of a 32-bit thread on a machine
// without FXSAVE (SDM vol. 1, figure 8-9). SSE is in INIT.
func fromFSave(b []byte) *xstate.State {
	s := xstate.NewState(xstate.FormatFXSave)
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
