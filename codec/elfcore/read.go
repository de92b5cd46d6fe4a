package elfcore

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Types of Linux core notes (include/uapi/linux/elf.h).
const (
	ntPRStatus  = 1
	ntPRFPReg   = 2
	ntPRPSInfo  = 3
	ntPRXFPReg  = 0x46e62b7f
	ntX86XState = 0x202
	ntX86ShStk  = 0x204
	ntX86Layout = 0x205 // NT_X86_XSAVE_LAYOUT, Linux 6.12
)

var noteNames = map[uint32]string{ntPRStatus: "NT_PRSTATUS", ntPRFPReg: "NT_PRFPREG", ntPRPSInfo: "NT_PRPSINFO",
	ntPRXFPReg: "NT_PRXFPREG", ntX86XState: "NT_X86_XSTATE", ntX86ShStk: "NT_X86_SHSTK", ntX86Layout: "NT_X86_XSAVE_LAYOUT"}

const (
	pnXNum      = 0xffff // the count of program headers is in section header 0
	layoutEntry = 16     // type, size, offset, flags
	maxNote     = 1 << 20
	maxHeaders  = 1 << 20
)

// systems are those whose cores are told by EI_OSABI of the file header.
var systems = map[elf.OSABI]string{elf.ELFOSABI_HPUX: "HP-UX", elf.ELFOSABI_NETBSD: "NetBSD", elf.ELFOSABI_SOLARIS: "Solaris",
	elf.ELFOSABI_AIX: "AIX", elf.ELFOSABI_FREEBSD: "FreeBSD", elf.ELFOSABI_OPENBSD: "OpenBSD"}

// noteSystems are those that are told by the owners of their notes; more may follow.
var noteSystems = []struct{ owner, system string }{{"FreeBSD", "FreeBSD"}, {"NetBSD-CORE", "NetBSD"}, {"OpenBSD", "OpenBSD"},
	{"DragonFly", "DragonFly BSD"}, {"QNX", "QNX"}, {"Haiku", "Haiku"}, {"win32", "Windows (Cygwin)"},
	{"VMCOREINFO", "a kernel (kdump)"}, {"QEMU", "a machine that QEMU ran"}, {"VBC", "a machine that VirtualBox ran"},
	{"Xen", "a machine that Xen ran"}}

// solarisNotes are the types of notes, of owner CORE, that only Solaris has: NT_PSTATUS
// and NT_LWPSTATUS (sys/procfs.h).
var solarisNotes = []uint32{10, 16}

// fileTypes names the types of ELF files that are no cores.
var fileTypes = map[elf.Type]string{elf.ET_REL: "an object file", elf.ET_EXEC: "an executable", elf.ET_DYN: "a shared object or executable"}

// SystemError is an ELF core of something else than a process of Linux.
type SystemError struct{ System string }

func (e *SystemError) Error() string { return "a core of " + e.System + ", not of a Linux process" }

// structs is the sizes of prstatus and prpsinfo and the offsets in them
// (include/uapi/linux/elfcore.h, arch/x86/include/asm/elf.h).
type structs struct {
	status, statusPID, regs, regsSize int
	info, infoPID, infoName           int
}

var (
	structs64  = structs{336, 32, 112, 8 * 27, 136, 24, 40}
	structsX32 = structs{296, 24, 72, 8 * 27, 124, 12, 28}
	structs32  = structs{144, 24, 72, 4 * 17, 124, 12, 28}
)

// core is an ELF core while it is read.
type core struct {
	path    string
	r       *window
	size    int64       // of the file; of a stream what no file reaches, until it ends
	class   elf.Class   // 32 or 64 bits
	is32    bool        // the threads', which of x32 differs from the class
	structs structs     // of the class and machine
	machine *xstate.CPU // the caller's; nil if unknown

	layout    xstate.Layout // of note 0x205; nil without one
	misplaced bool          // that note is damaged
	pid       int
	comm      string
	threads   []*thread
	last      *thread // whose notes these are; nil before the first
	tids      map[int]bool
	faults    []error // what is wrong and leaves the rest
}

// thread is the notes of one thread.
type thread struct {
	tid                          int
	gpregs                       [27]uint64
	fpregs, xfpregs, xstate, ssp note
}

// note is the data of a note.
type note struct {
	b  []byte // nil without the note
	at int64  // offset in the file
}

func (c *core) fail(off int64, field, format string, args ...any) error {
	return &codec.FormatError{Path: c.path, Offset: off, Field: field, Err: fmt.Errorf(format, args...)}
}

// Read reads the threads of an ELF core, in the order of their notes, each with its
// state or an error. size is that of the file, or -1 of a stream that [Spool] reads.
// The machine places the components where the core does not say; nil guesses. Faults
// are about the core as a whole, and leave what is read.
//
// Errors are [*codec.FormatError], or from r.
func Read(path string, r io.ReaderAt, size int64, machine *xstate.CPU) (threads []codec.Listed, faults []error, err error) {
	if size < 0 {
		size = math.MaxInt64
	}
	c := &core{path: path, r: &window{r: r}, size: size, machine: machine, tids: map[int]bool{}}
	if err := c.read(); err != nil {
		return nil, nil, err
	}
	none := len(c.threads) == 0 && len(c.faults) == 0
	for _, t := range c.threads {
		th := codec.Thread{PID: c.pid, TID: t.tid, Comm: c.comm, GPRegs: &t.gpregs}
		th.State, err = c.state(t)
		threads = append(threads, codec.Listed{Thread: th, Err: err})
	}
	if none {
		c.fault(c.fail(0, "notes", "no NT_PRSTATUS: the core names no thread"))
	}
	return threads, c.faults, nil
}

// errEnds is of what the file ends in or before.
var errEnds = errors.New("the file ends inside it")

// bytes reads n bytes at off. n is at most maxNote.
func (c *core) bytes(off int64, n int, field string) ([]byte, error) {
	if off < 0 || off > c.size-int64(n) {
		return nil, c.fail(off, field, "%w", errEnds)
	}
	b := make([]byte, n)
	switch got, err := c.r.ReadAt(b, off); {
	case got == n:
		return b, nil
	case errors.Is(err, io.EOF):
		if s, ok := c.r.r.(*Spool); ok {
			c.size = s.size
		}
		return nil, c.fail(off, field, "%w", errEnds)
	default:
		return nil, fmt.Errorf("%s: %w", c.path, err)
	}
}

// decode reads a struct of the ELF format, little endian, in the form of the core's
// class, and gives it in that of 64 bits. debug/elf's own reader wants section headers
// too: those stand at the end, which a core that was cut has lost, and a stream would
// have to be read to.
func (c *core) decode(off int64, h64, h32 any, field string) (isa64 bool, err error) {
	h := h64
	if isa64 = c.class == elf.ELFCLASS64; !isa64 {
		h = h32
	}
	b, err := c.bytes(off, binary.Size(h), field)
	if err == nil {
		_, err = binary.Decode(b, binary.LittleEndian, h)
	}
	return isa64, err
}

// header reads the file header, and says which structs the notes have.
func (c *core) header() (h elf.Header64, err error) {
	ident, err := c.bytes(0, elf.EI_NIDENT, "header")
	if err != nil {
		return h, err
	}
	c.class = elf.Class(ident[elf.EI_CLASS])
	switch {
	case string(ident[:4]) != elf.ELFMAG:
		return h, c.fail(0, "header", "not an ELF file")
	case c.class != elf.ELFCLASS32 && c.class != elf.ELFCLASS64:
		return h, c.fail(elf.EI_CLASS, "header", "class %d is neither 32 nor 64 bits", c.class)
	}
	var h32 elf.Header32
	isa64, err := c.decode(0, &h, &h32, "header")
	if !isa64 {
		h = elf.Header64{Type: h32.Type, Machine: h32.Machine, Phoff: uint64(h32.Phoff), Shoff: uint64(h32.Shoff),
			Phentsize: h32.Phentsize, Phnum: h32.Phnum}
	}
	if err != nil {
		return h, err
	}
	little := elf.Data(ident[elf.EI_DATA]) == elf.ELFDATA2LSB
	if !little {
		h.Type, h.Machine = bits.ReverseBytes16(h.Type), bits.ReverseBytes16(h.Machine)
	}
	typ, machine, system := elf.Type(h.Type), elf.Machine(h.Machine), systems[elf.OSABI(ident[elf.EI_OSABI])]
	switch {
	case typ != elf.ET_CORE:
		return h, c.fail(16, "header", "%s, not a core", cmp.Or(fileTypes[typ], fmt.Sprintf("an ELF file of type %d", h.Type)))
	case system != "":
		return h, &codec.FormatError{Path: c.path, Offset: elf.EI_OSABI, Field: "header", Err: &SystemError{system}}
	case machine != elf.EM_386 && machine != elf.EM_X86_64:
		name := strings.ToLower(strings.TrimPrefix(machine.String(), "EM_"))
		return h, &codec.FormatError{Path: c.path, Offset: 18, Field: "header", Err: &codec.ArchError{Arch: name}}
	case !little:
		return h, c.fail(elf.EI_DATA, "header", "not little endian, so not x86")
	}
	switch {
	case isa64:
		c.structs = structs64
	case machine == elf.EM_X86_64:
		c.structs = structsX32
	default:
		c.structs, c.is32 = structs32, true
	}
	return h, nil
}

// segment is where a PT_NOTE segment lies, and what it is to be aligned to.
type segment struct {
	off, end int64
	align    uint64
}

// segments reads the headers and returns the segments of notes. The file may end
// before a segment does.
func (c *core) segments() ([]segment, error) {
	h, err := c.header()
	if err != nil {
		return nil, err
	}
	var ph elf.Prog64
	var ph32 elf.Prog32
	size := int64(binary.Size(ph))
	if c.class == elf.ELFCLASS32 {
		size = int64(binary.Size(ph32))
	}
	if int64(h.Phentsize) != size {
		at := int64(54)
		if c.class == elf.ELFCLASS32 {
			at = 42
		}
		return nil, c.fail(at, "header", "program headers of %d bytes, want %d", h.Phentsize, size)
	}
	count := uint32(h.Phnum)
	if count == pnXNum { // elf(5)
		var sh elf.Section64
		var sh32 elf.Section32
		isa64, err := c.decode(int64(h.Shoff), &sh, &sh32, "section header")
		if count = sh32.Info; isa64 {
			count = sh.Info
		}
		if err != nil {
			return nil, err
		}
	}
	if count > maxHeaders {
		return nil, c.fail(int64(h.Phoff), "program headers", "%d, which is more than any core has", count)
	}
	var out []segment
	for i := range int64(count) {
		at := int64(h.Phoff) + i*size
		isa64, err := c.decode(at, &ph, &ph32, "program header")
		if !isa64 {
			ph = elf.Prog64{Type: ph32.Type, Off: uint64(ph32.Off), Filesz: uint64(ph32.Filesz), Align: uint64(ph32.Align)}
		}
		if err != nil {
			return nil, err
		}
		if elf.ProgType(ph.Type) != elf.PT_NOTE || ph.Filesz == 0 {
			continue
		}
		s := segment{int64(ph.Off), int64(ph.Off + ph.Filesz), ph.Align}
		if s.off < 0 || s.end < s.off {
			c.fault(c.fail(at, "PT_NOTE", "%d bytes at %#x are in no file", ph.Filesz, ph.Off))
			continue
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b segment) int { return cmp.Compare(a.off, b.off) })
	return out, nil
}

// fault notes what is wrong and leaves the rest.
func (c *core) fault(err error) { c.faults = codec.AppendFault(c.faults, err) }

// read decodes the headers and then the notes. Whose core it is, any note may tell:
// that goes before all that is wrong.
func (c *core) read() error {
	segments, err := c.segments()
	if err != nil {
		return err
	}
	// The size of the file bounds what the notes hold only if each byte is read once.
	var end int64
	for _, s := range segments {
		if s.off < end {
			c.fault(c.fail(s.off, "PT_NOTE", "overlaps another, which ends at %#x", end))
			continue
		}
		end = s.end
		align := int64(4)
		if s.align == 8 && c.known(s, 8) > c.known(s, 4) { // as the ELF specification has it, and not every writer
			align = 8
		}
		for at := s.off; at < end; {
			if at, err = c.next(at, s.end, align); err != nil {
				break
			}
		}
		if _, system := errors.AsType[*SystemError](err); system {
			return err
		}
		if err != nil {
			c.broken(err)
		}
	}
	return nil
}

// broken takes in that notes end before their segment does. The thread whose they are
// is left out unless it has its registers: the area, or without one as many as the
// thread before it.
func (c *core) broken(err error) {
	of := ""
	if t := c.last; t != nil {
		of = fmt.Sprintf(", after NT_PRSTATUS of thread %d", t.tid)
		n := len(c.threads) - 1
		whole := t.xstate.b != nil || n > 0 && c.threads[n-1].xstate.b == nil && (t.fpregs.b != nil || c.threads[n-1].fpregs.b == nil)
		if !whole && n >= 0 && c.threads[n] == t {
			c.threads = c.threads[:n]
		}
	}
	if errors.Is(err, errEnds) {
		err = c.fail(c.size, "notes", "the file ends inside them%s", of)
	}
	c.fault(err)
}

// head is the head of a note, in the first 24 bytes of its owner's name.
type head struct {
	typ        uint32
	owner      string
	data, size int64 // of what it holds
	next       int64 // where the next one begins
}

// head reads the head of the note at an offset of a segment that ends at end. Of padding
// only next is not 0.
func (c *core) head(at, end, align int64) (h head, err error) {
	b, err := c.bytes(at, int(min(12, end-at)), "note")
	switch {
	case err != nil:
		return h, err
	case len(b) < 12 && zero(b):
		return head{next: end}, nil
	case len(b) < 12:
		return h, c.fail(at, "note", "want 12 bytes, have %d", len(b))
	}
	up := func(n int64) int64 { return (n + align - 1) &^ (align - 1) }
	name := int64(le32(b))
	h = head{typ: le32(b[8:]), data: at + up(12+name), size: int64(le32(b[4:]))}
	if h.data+h.size > end {
		return h, c.fail(at, "note", "%d bytes, but only %d follow", name+h.size, end-at-12)
	}
	h.next = min(h.data+up(h.size), end) // the last note may lack its padding
	b, err = c.bytes(at+12, int(min(name, 24)), "note")
	h.owner = string(bytes.TrimRight(b, "\x00"))
	return h, err
}

// known counts the notes of a segment before the first that is of none of Linux's owners.
func (c *core) known(s segment, align int64) (n int) {
	for at := s.off; at < s.end; n++ {
		h, err := c.head(at, s.end, align)
		if err != nil || h.owner != "CORE" && h.owner != "LINUX" {
			break
		}
		at = h.next
	}
	return n
}

// next reads the note at an offset of a segment, and returns where the next one begins.
// The error is of what hides where that is, or a [*SystemError].
func (c *core) next(at, end, align int64) (int64, error) {
	h, err := c.head(at, end, align)
	if err == nil && h.size > 0 {
		_, err = c.bytes(h.data+h.size-1, 1, "note")
	}
	if err != nil {
		return 0, err
	}
	system := ""
	for _, s := range noteSystems {
		if strings.HasPrefix(h.owner, s.owner) {
			system = s.system
		}
	}
	if h.owner == "CORE" && slices.Contains(solarisNotes, h.typ) {
		system = "Solaris"
	}
	what := noteNames[h.typ]
	switch {
	case system != "":
		return 0, &codec.FormatError{Path: c.path, Offset: at, Field: "note", Err: &SystemError{system}}
	case what == "" || h.owner != "CORE" && h.owner != "LINUX" && h.owner != "": // Delve writes none
		return h.next, nil
	case h.size > maxNote:
		c.fault(c.fail(at, what, "%d bytes, which is more than any machine writes", h.size))
		return h.next, nil
	}
	b, err := c.bytes(h.data, int(h.size), what)
	if err != nil {
		return 0, err
	}
	if err := c.note(h.typ, h.data, b); err != nil {
		c.fault(err)
	}
	return h.next, nil
}

// note takes one note. NT_PRSTATUS opens a thread, to which the register notes
// after it belong (fs/binfmt_elf.c:write_note_info).
func (c *core) note(typ uint32, at int64, b []byte) error {
	what := noteNames[typ]
	need := map[uint32]int{ntPRStatus: c.structs.statusPID + 4, ntPRPSInfo: c.structs.infoName + 16, ntX86ShStk: 8}[typ]
	if len(b) < need {
		return c.fail(at, what, "want %d bytes, have %d", need, len(b))
	}
	switch typ {
	case ntPRStatus:
		c.last = &thread{tid: int(int32(le32(b[c.structs.statusPID:]))), gpregs: c.gpregs(b)}
		if c.tids[c.last.tid] && c.last.tid != 0 { // a kernel's core has 0 for each idle CPU
			return c.fail(at, what, "thread %d stands twice; the first counts", c.last.tid)
		}
		c.tids[c.last.tid] = true
		c.threads = append(c.threads, c.last)
		return nil
	case ntPRPSInfo:
		c.pid = int(int32(le32(b[c.structs.infoPID:])))
		name, _, _ := bytes.Cut(b[c.structs.infoName:][:16], []byte{0})
		c.comm = string(name)
		return nil
	case ntX86Layout:
		layout, err := c.readLayout(at, b)
		if err == nil && c.layout != nil && !slices.Equal(layout, c.layout) {
			err = c.fail(at, what, "differs from the one before")
		}
		c.layout, c.misplaced = layout, c.misplaced || err != nil
		return err
	}
	t := c.last
	if t == nil {
		return c.fail(at, what, "stands before any NT_PRSTATUS: it belongs to no thread")
	}
	registers := map[uint32]*note{ntPRFPReg: &t.fpregs, ntPRXFPReg: &t.xfpregs, ntX86XState: &t.xstate, ntX86ShStk: &t.ssp}[typ]
	if registers.b != nil {
		return c.fail(at, what, "stands twice for thread %d; the first counts", t.tid)
	}
	*registers = note{b, at}
	return nil
}

// gpregs returns the general registers of a prstatus.
func (c *core) gpregs(status []byte) [27]uint64 {
	regs := status[min(c.structs.regs, len(status)):]
	return codec.ParseGPRegs(regs[:min(c.structs.regsSize, len(regs))])
}

// readLayout decodes NT_X86_XSAVE_LAYOUT: an array of struct x86_xfeat_component
// (arch/x86/include/uapi/asm/elf.h).
func (c *core) readLayout(at int64, b []byte) (xstate.Layout, error) {
	what := noteNames[ntX86Layout]
	if len(b)%layoutEntry != 0 {
		return nil, c.fail(at, what, "%d bytes are no multiple of %d", len(b), layoutEntry)
	}
	l := xstate.Layout{}
	for i := 0; i < len(b); i += layoutEntry {
		fail := func(format string, args ...any) (xstate.Layout, error) {
			return nil, c.fail(at+int64(i), what, format, args...)
		}
		typ, size, off := le32(b[i:]), le32(b[i+4:]), le32(b[i+8:])
		if typ > 63 {
			return fail("component %d", typ)
		}
		f := xstate.Feature(typ)
		known := f.Component()
		if known == nil || xstate.Legacy.Has(f) {
			continue
		}
		if int64(size) != int64(known.Size) {
			return fail("%v of %d bytes, want %d", f, size, known.Size)
		}
		if off < xstate.MinArea || off > maxNote {
			return fail("%v at %#x, where no area has it", f, off)
		}
		if _, twice := l.Find(f); twice {
			return fail("%v stands twice", f)
		}
		p := xstate.Placement{Feature: f, Offset: int(off), Size: known.Size, Align64: known.Align64}
		if n := slices.IndexFunc(l, p.Overlaps); n >= 0 {
			return fail("%v at %#x, where %v lies", f, off, l[n].Feature)
		}
		l = append(l, p)
	}
	return l, nil
}

// state makes the notes of a thread into its state.
func (c *core) state(t *thread) (*xstate.State, error) {
	s, err := c.registers(t)
	if err != nil {
		return nil, err
	}
	s.Compat = c.is32
	if t.ssp.b != nil {
		s.ShadowStack = &xstate.ShadowStack{Status: 1, SSP: binary.LittleEndian.Uint64(t.ssp.b)}
	}
	return s, nil
}

// registers reads the floating-point registers. An area that cannot be read leaves
// those of the other notes.
func (c *core) registers(t *thread) (*xstate.State, error) {
	legacy, err := c.legacy(t)
	if t.xstate.b == nil {
		return legacy, err
	}
	s, xerr := c.xstate(t.xstate.b)
	switch xerr = areaError(c.path, t.xstate.at, noteNames[ntX86XState], xerr); {
	case xerr != nil && (err != nil || legacy.Format == xstate.FormatNone):
		return nil, xerr
	case xerr != nil:
		c.fault(xerr)
		return legacy, nil
	}
	if err != nil || legacy.Format == xstate.FormatNone { // the area has them too
		if legacy, err = fxState(t.xstate.b); err != nil {
			return nil, areaError(c.path, t.xstate.at, noteNames[ntX86XState], err)
		}
	}
	return unvouched(s, legacy), nil
}

// legacy reads the notes of x87 and SSE registers.
func (c *core) legacy(t *thread) (*xstate.State, error) {
	typ, from := uint32(ntPRFPReg), t.fpregs
	switch {
	case t.xfpregs.b != nil:
		typ, from = ntPRXFPReg, t.xfpregs
	case from.b == nil:
		return &xstate.State{Unknown: xstate.User()}, nil
	case len(from.b) == fsaveSize:
		return fromFSave(from.b), nil
	}
	s, err := fxState(from.b)
	return s, areaError(c.path, from.at, noteNames[typ], err)
}

// unvouched puts x87 and SSE registers in where XSTATE_BV has no bit for them. The kernel
// has INIT there, or zeros; other values are of writers that do not keep XSTATE_BV, as
// CRIU's coredump script and Delve where there is no XSAVE: then it is 0, and tells
// nothing of other components either.
func unvouched(s, legacy *xstate.State) *xstate.State {
	set := legacy.With(xstate.InUse) &^ s.BV &^ legacy.FX.Zero()
	if set != 0 && s.BV == 0 {
		return legacy
	}
	s.FX.Copy(&legacy.FX, set)
	return s
}

func (c *core) xstate(b []byte) (*xstate.State, error) {
	if len(b) < xstate.MinArea {
		return fxState(b)
	}
	layout := c.layout
	switch {
	case c.machine == nil && c.misplaced:
		return nil, &LayoutError{Size: len(b), Reason: "NT_X86_XSAVE_LAYOUT is damaged"}
	case layout == nil || c.misplaced:
		var err error
		xcr0 := xstate.AreaXCR0(b)
		layout, err = areaLayout(b, c.machine, xcr0)
		if unknown, ok := errors.AsType[*LayoutError](err); ok && unknown.Machine == "" {
			unknown.Reason = fmt.Sprintf("no NT_X86_XSAVE_LAYOUT, and XCR0 %v fits no known machine", xcr0)
		}
		if err != nil {
			return nil, err
		}
	}
	return parseLaid(b, layout)
}
