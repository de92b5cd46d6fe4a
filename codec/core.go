package codec

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Field numbers of images/core.proto and images/core-x86.proto.
const (
	coreMtype      = 1
	coreThreadInfo = 2
	coreTC         = 3
	coreThreadCore = 5

	tcTaskState = 1
	tcComm      = 6

	threadCoreComm = 13

	infoClearTID = 1
	infoGPRegs   = 2
	infoFPRegs   = 3

	gpMode = 28

	fpST    = 9
	fpXMM   = 10
	fpXSave = 13

	xsaveBV  = 1
	xsaveCET = 9

	cetStatus = 1
	cetSSP    = 2
)

const (
	mtypeX86   = 1 // core_entry.march.X86_64
	taskAlive  = 1 // enum task_state, criu/include/image.h
	taskDead   = 2
	modeNative = 1 // user_x86_regs_entry.mode
	modeCompat = 2
	gpRequired = 1<<28 - 2
	fpRequired = 1<<9 - 2 // fields 1 to 8

	cetRequired = 1<<cetStatus | 1<<cetSSP
)

// marches names the values of core_entry.march.
var marches = [...]string{"unknown", "x86_64", "arm", "aarch64", "ppc64", "s390", "mips", "loongarch64", "riscv64"}

// fpScalars are the fixed fields of user_x86_fpregs_entry, by number. All are
// varints; bits is the width of the register that CRIU stores the value in
// (crtools.c:restore_fpu casts), name the register's.
var fpScalars = [...]struct {
	field, name string // "fpregs.cwd", "fcw"
	bits        int
	set         func(*xstate.FXArea, uint64)
}{
	1: {"fpregs.cwd", "fcw", 16, func(a *xstate.FXArea, v uint64) { a.SetFCW(uint16(v)) }},
	2: {"fpregs.swd", "fsw", 16, func(a *xstate.FXArea, v uint64) { a.SetFSW(uint16(v)) }},
	3: {"fpregs.twd", "ftw", 16, func(a *xstate.FXArea, v uint64) { a.SetFTWRaw(uint16(v)) }},
	4: {"fpregs.fop", "fop", 16, func(a *xstate.FXArea, v uint64) { a.SetFOP(uint16(v)) }},
	5: {"fpregs.rip", "fip", 64, func(a *xstate.FXArea, v uint64) { a.SetFIP(v) }},
	6: {"fpregs.rdp", "fdp", 64, func(a *xstate.FXArea, v uint64) { a.SetFDP(v) }},
	7: {"fpregs.mxcsr", "mxcsr", 32, func(a *xstate.FXArea, v uint64) { a.SetMXCSR(uint32(v)) }},
	8: {"fpregs.mxcsr_mask", "mxcsr_mask", 32, func(a *xstate.FXArea, v uint64) { a.SetMXCSRMask(uint32(v)) }},
}

// xsaveArrays are the arrays of user_x86_xsave_entry, by field number, and arenaSize
// is the data of all components that they hold.
var xsaveArrays, arenaSize = func() (arrays []xsaveArray, size int) {
	for f := range Storable.All() {
		c := f.Component()
		arrays = append(arrays, make([]xsaveArray, max(0, c.CRIU.Number+1-len(arrays)))...)
		arrays[c.CRIU.Number] = xsaveArray{"xsave." + c.CRIU.Field, f, c.CRIU.Width}
		size += c.Size
	}
	return arrays, size
}()

type xsaveArray struct {
	field   string // "xsave.ymmh_space"; "" if there is no such array
	feature xstate.Feature
	width   int // bytes per element
}

// Storable is the set of extended components that a core image has a field for.
var Storable = xstate.CRIUFields()

// Core is one decoded core image: the FPU state of one thread.
type Core struct {
	Path     string
	State    xstate.State
	Comm     string // the thread's name; "" if not recorded
	Leader   bool   // the image describes the task too, not only one of its threads
	Dead     bool   // a zombie: there are no registers
	Trailing int    // bytes after the entry, which CRIU ignores
	// Split reports that a message of the FPU record stands in several pieces.
	// Protobuf merges them; CRIU's parser wants every required field in each.
	Split bool

	img   image
	entry entry
}

// ParseCore decodes a core image. The path serves the errors. A core image keeps
// b, and shares its bytes.
//
// The error is a [*FormatError]; of an image of another architecture it wraps an
// [*ArchError]. Damage inside the FPU record that leaves the rest readable, such
// as an array of the wrong length, is no error: the state says so.
func ParseCore(path string, b []byte) (*Core, error) {
	img, err := newImage(path, b, magicCore)
	if err != nil {
		return nil, err
	}
	c := &Core{Path: path, img: img}
	if c.entry, err = c.img.next(); err != nil {
		return nil, err
	}
	c.Trailing = len(b) - c.img.at
	if err := c.decode(); err != nil {
		return nil, err
	}
	return c, nil
}

// Raw returns the image file as it was read. The bytes are shared: do not change
// them.
func (c *Core) Raw() []byte { return c.img.raw }

// seen is what the walk has met of an image. Messages may be split into pieces,
// which protobuf merges, so required fields are checked at the end.
type seen struct {
	mtype         bool
	march         uint64
	info          bool
	infoAt        int    // offset of the first thread_info, for errors
	thread        uint64 // fields of thread_info, as bits
	gp            uint64 // fields of gpregs
	fp            uint64 // fields of fpregs
	xsave         uint64 // fields of xsave
	cet           uint64 // fields of xsave.cet
	fpAt, xsaveAt int
}

// decode walks the entry and checks that what CRIU requires is there.
func (c *Core) decode() error {
	var s seen
	m := message{img: &c.img, name: "core", base: c.entry.start, b: c.entry.payload}
	for m.next() {
		switch m.num {
		case coreMtype:
			s.mtype, s.march = true, m.uint("mtype")
		case coreThreadInfo:
			if !s.info {
				s.info, s.infoAt = true, m.base+m.start
			}
			c.threadInfo(m.sub("thread_info"), &s)
		case coreTC:
			c.Leader = true
			sub := m.sub("tc")
			for sub.next() {
				switch sub.num {
				case tcTaskState:
					c.Dead = sub.uint("tc.task_state") == taskDead
				case tcComm:
					c.Comm = sub.text("tc.comm")
				}
			}
		case coreThreadCore:
			sub := m.sub("thread_core")
			for sub.next() {
				if sub.num == threadCoreComm {
					c.Comm = sub.text("thread_core.comm")
				}
			}
		}
	}
	if c.img.err != nil {
		return c.img.err
	}
	return c.check(&s)
}

func (c *Core) threadInfo(m message, s *seen) {
	for m.next() {
		s.thread |= 1 << m.num
		switch m.num {
		case infoGPRegs:
			gp := m.sub("gpregs")
			for gp.next() {
				s.gp |= 1 << gp.num
				if gp.num == gpMode {
					c.State.Compat = gp.uint("gpregs.mode") == modeCompat
				}
			}
		case infoFPRegs:
			c.Split = c.Split || s.fpAt != 0
			if s.fpAt == 0 {
				s.fpAt = m.base + m.start
				c.State.Format = xstate.FormatFXSave
			}
			c.fpregs(m.sub("fpregs"), s)
		}
	}
}

func (c *Core) fpregs(m message, s *seen) {
	st, fx := &c.State, &c.State.FX
	for m.next() {
		if m.num < fpST {
			f := &fpScalars[m.num]
			s.fp |= 1 << m.num
			f.set(fx, m.uint(f.field))
			if f.bits < 64 && m.u>>f.bits != 0 {
				markWide(st, f.name)
			}
			continue
		}
		switch m.num {
		case fpST:
			st.STLen += m.space(fx.STSpace(), st.STLen, "st", "fpregs.st_space", st)
		case fpXMM:
			st.XMMLen += m.space(fx.XMMSpace(), st.XMMLen, "xmm", "fpregs.xmm_space", st)
		case fpXSave:
			c.Split = c.Split || s.xsaveAt != 0
			if s.xsaveAt == 0 {
				s.xsaveAt = m.base + m.start
				st.Format = xstate.FormatXSave
			}
			c.xsave(m.sub("xsave"), s)
		}
	}
}

// markWide notes that a value of the register did not fit. The pieces of a split
// array note it once.
func markWide(st *xstate.State, name string) {
	if !slices.Contains(st.Wide, name) {
		st.Wide = append(st.Wide, name)
	}
}

// space decodes an array of 32-bit words into a register file of 16 bytes a
// register, from byte at on, and returns how many bytes the array holds. Words
// past the end are counted and dropped, as CRIU does.
func (m *message) space(dst []byte, at int, reg, field string, st *xstate.State) int {
	var buf [256]byte
	words, wide := m.array(buf[:0], 4, field)
	if wide {
		markWide(st, reg)
	}
	if at < len(dst) {
		copy(dst[at:], words)
	}
	return len(words)
}

func (c *Core) xsave(m message, s *seen) {
	// One buffer serves all components of their proper length.
	var arena []byte
	for m.next() {
		s.xsave |= 1 << m.num
		switch {
		case m.num == xsaveBV:
			c.State.BV = xstate.Features(m.uint("xsave.xstate_bv"))
		case m.num == xsaveCET:
			if c.State.ShadowStack == nil {
				c.State.ShadowStack = new(xstate.ShadowStack)
			}
			cet := m.sub("xsave.cet")
			for cet.next() {
				s.cet |= 1 << cet.num
				switch cet.num {
				case cetStatus:
					c.State.ShadowStack.Status = cet.uint("xsave.cet.cet")
				case cetSSP:
					c.State.ShadowStack.SSP = cet.uint("xsave.cet.ssp")
				}
			}
		case int(m.num) < len(xsaveArrays) && xsaveArrays[m.num].field != "":
			a := &xsaveArrays[m.num]
			d := c.State.Data(a.feature)
			if d == nil {
				size := a.feature.Component().Size
				if cap(arena)-len(arena) < size {
					// Every element takes at least two bytes of the message.
					arena = make([]byte, 0, max(size, min(arenaSize, (len(m.b)-m.start)/2*8)))
				}
				d = arena[len(arena) : len(arena) : len(arena)+size]
				arena = arena[:len(arena)+size]
			}
			d, wide := m.array(d, a.width, a.field)
			if wide {
				markWide(&c.State, a.feature.String())
			}
			c.State.SetData(a.feature, d)
		}
	}
}

// check reports what is missing from the image as CRIU would.
func (c *Core) check(s *seen) error {
	end := c.entry.start
	missing := func(off int, field string) error {
		return &FormatError{c.Path, int64(off), field, errMissing}
	}
	switch {
	case !s.mtype:
		return missing(end, "mtype")
	case s.march != mtypeX86:
		name := fmt.Sprintf("%d", s.march)
		if s.march < uint64(len(marches)) {
			name = marches[s.march]
		}
		return &FormatError{c.Path, int64(c.entry.start), "mtype", &ArchError{name}}
	case !s.info && c.Dead:
		return nil
	case !s.info:
		return &FormatError{c.Path, int64(end), "thread_info", errThread}
	case s.thread&(1<<infoClearTID) == 0:
		return missing(s.infoAt, "thread_info.clear_tid_addr")
	case s.thread&(1<<infoGPRegs) == 0:
		return missing(s.infoAt, "thread_info.gpregs")
	case gpRequired&^s.gp != 0:
		return missing(s.infoAt, fmt.Sprintf("gpregs field %d", bits.TrailingZeros64(gpRequired&^s.gp)))
	case c.State.Format == xstate.FormatNone:
		return nil
	case fpRequired&^s.fp != 0:
		return missing(s.fpAt, fpScalars[bits.TrailingZeros64(fpRequired&^s.fp)].field)
	case c.State.Format == xstate.FormatXSave && s.xsave&(1<<xsaveBV) == 0:
		return missing(s.xsaveAt, "xsave.xstate_bv")
	case s.xsave&(1<<xsaveCET) != 0 && cetRequired&^s.cet != 0:
		return missing(s.xsaveAt, "xsave.cet")
	}
	return nil
}
