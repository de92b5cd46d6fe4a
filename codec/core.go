package codec

import (
	"errors"
	"fmt"
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

	gpMode = 28 // after the registers, fields 1 to 27

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
)

// marches names the values of core_entry.march.
var marches = [...]string{"unknown", "x86_64", "arm", "aarch64", "ppc64", "s390", "mips", "loongarch64", "riscv64"}

// fpScalars are the fixed fields of user_x86_fpregs_entry, by number. All are
// varints; bits is the width of the register that CRIU stores the value in
// (crtools.c:restore_fpu casts), name the register's.
var fpScalars = [...]struct {
	name string // "fcw"
	bits int
	set  func(*xstate.FXArea, uint64)
}{
	1: {"fcw", 16, func(a *xstate.FXArea, v uint64) { a.SetFCW(uint16(v)) }},
	2: {"fsw", 16, func(a *xstate.FXArea, v uint64) { a.SetFSW(uint16(v)) }},
	3: {"ftw", 16, func(a *xstate.FXArea, v uint64) { a.SetFTWRaw(uint16(v)) }},
	4: {"fop", 16, func(a *xstate.FXArea, v uint64) { a.SetFOP(uint16(v)) }},
	5: {"fip", 64, func(a *xstate.FXArea, v uint64) { a.SetFIP(v) }},
	6: {"fdp", 64, func(a *xstate.FXArea, v uint64) { a.SetFDP(v) }},
	7: {"mxcsr", 32, func(a *xstate.FXArea, v uint64) { a.SetMXCSR(uint32(v)) }},
	8: {"mxcsr_mask", 32, func(a *xstate.FXArea, v uint64) { a.SetMXCSRMask(uint32(v)) }},
}

// xsaveArrays are the arrays of user_x86_xsave_entry, by field number, and arenaSize
// is the data of all components that they hold.
var xsaveArrays, arenaSize = func() (arrays []xsaveArray, size int) {
	for f := range Storable.All() {
		c := f.Component()
		arrays = append(arrays, make([]xsaveArray, max(0, c.CRIU.Number+1-len(arrays)))...)
		arrays[c.CRIU.Number] = xsaveArray{f, c.CRIU.Width}
		size += c.Size
	}
	return arrays, size
}()

// maxArray is how many bytes are kept of an array, which hostile images make longer
// than any component. What lies past them is counted.
const maxArray = 64 << 10

type xsaveArray struct {
	feature xstate.Feature
	width   int // bytes per element; 0 if there is no such array
}

// Storable is the set of extended components that a core image has a field for.
var Storable = xstate.CRIUFields()

// Core is one decoded core image: the FPU state of one thread.
type Core struct {
	// arena serves all components of their proper length. It is read first, and stands
	// where Go has written: memory that is new and read first is mapped twice.
	arena []byte

	Path     string
	State    xstate.State
	GPRegs   *[27]uint64 // as in [Thread]; nil if the task is dead
	Comm     string      // the thread's name; "" if not recorded
	Leader   bool        // the image describes the task too, not only one of its threads
	Dead     bool        // a zombie: there are no registers
	Trailing int         // bytes after the entry, which CRIU ignores
	// Split reports that a message stands in pieces of which one lacks a required
	// field. Protobuf asks for it in all of them together; CRIU's parser in each.
	Split bool

	gpregs [27]uint64
	img    image
	entry  entry
	infoAt int // the offset of the thread_info that counts
}

// ParseCore decodes a core image. The path serves the errors. A core image keeps
// b, and shares its bytes.
//
// The error is a [*FormatError] for what CRIU's parser refuses; of an image of
// another architecture it wraps an [*ArchError]. Damage inside the FPU record that
// leaves the rest readable, such as an array of the wrong length, is no error: the
// state says so.
func ParseCore(path string, b []byte) (*Core, error) {
	c := new(Core)
	if err := new(Decoder).Decode(c, path, b); err != nil {
		return nil, err
	}
	return c, nil
}

// Decoder decodes core images one after the other. The zero value remembers nothing of
// them.
type Decoder struct{ known [][]byte }

// NewDecoder returns a decoder that does not look twice at what many images have in common.
func NewDecoder() *Decoder { return &Decoder{make([][]byte, len(messageTypes()))} }

// Decode is [ParseCore] into a core image whose memory is used again: the state that it
// had, and all that was taken from it, are no longer valid.
func (d *Decoder) Decode(c *Core, path string, b []byte) error {
	img, e, err := newEntry(path, b, magicCore)
	if err != nil {
		return err
	}
	img.known = d.known
	begin := func() {
		*c = Core{Path: path, Trailing: len(b) - img.at, img: img, entry: e, arena: c.arena[:0]}
	}
	begin()
	if err := c.decode(); err != nil {
		if begin(); !errors.Is(err, errMissing) || !c.merge() {
			return err
		}
	}
	c.img.sound, c.img.met, c.img.known = true, nil, nil
	return nil
}

// merge decodes the entry as protobuf says of messages in pieces, and reports whether
// nothing is missing then.
func (c *Core) merge() bool {
	c.Split, c.img.met = true, map[*messageType]uint64{}
	if c.decode() != nil {
		return false
	}
	for is, met := range c.img.met {
		if is.required&^met != 0 {
			return false
		}
	}
	return true
}

// Raw returns the image file as it was read. The bytes are shared: do not change
// them.
func (c *Core) Raw() []byte { return c.img.raw }

// decode walks the entry, and checks that it describes a thread of x86.
func (c *Core) decode() error {
	var march uint64
	var threadName string
	named := false
	m := c.img.message(c.entry, "core")
	for m.next() {
		switch m.num {
		case coreMtype:
			march = m.u
		case coreThreadInfo:
			c.threadInfo(&m)
		case coreTC:
			c.Leader = true
			tc := m.sub()
			for tc.next() {
				switch tc.num {
				case tcTaskState:
					c.Dead = uint32(tc.u) == taskDead
				case tcComm:
					c.Comm = tc.text()
				}
			}
		case coreThreadCore:
			t := m.sub()
			for t.next() {
				if t.num == threadCoreComm {
					threadName, named = t.text(), true
				}
			}
		}
	}
	if named {
		c.Comm = threadName
	}
	if c.infoAt != 0 && !c.Split && (c.Dead || uint32(march) != mtypeX86) {
		c.needsFPRegs(&m)
	}
	switch {
	case c.img.err != nil:
	case uint32(march) != mtypeX86:
		name := fmt.Sprint(int32(march))
		if uint32(march) < uint32(len(marches)) {
			name = marches[uint32(march)]
		}
		m.fail(0, "mtype", &ArchError{name})
	case c.infoAt == 0 && !c.Dead:
		m.fail(0, "thread_info", errThread)
	}
	return c.img.err
}

// threadInfo decodes the thread_info that is the current field. Of two, protobuf-c
// merges what is optional and repeated; the registers are neither, so that those of
// the last count.
func (c *Core) threadInfo(m *message) {
	if c.infoAt != 0 && !c.Split {
		c.needsFPRegs(m)
		c.State = xstate.State{}
	}
	c.infoAt, c.GPRegs, c.gpregs = m.base+m.start, &c.gpregs, [27]uint64{}
	ti := m.sub()
	for ti.next() {
		switch ti.num {
		case infoGPRegs:
			gp := ti.sub()
			for gp.next() {
				switch {
				case gp.num == gpMode:
					c.State.Compat = uint32(gp.u) == modeCompat
				case gp.num >= 1 && gp.num < gpMode:
					c.GPRegs[gp.num-1] = gp.u
				}
			}
		case infoFPRegs:
			if c.State.Format == xstate.FormatNone {
				c.State.Format = xstate.FormatFXSave
			}
			c.fpregs(ti.sub())
		}
	}
}

// needsFPRegs fails the walk if the thread_info so far has no FPU record. A rule says
// so of the thread_info that counts; of another, CRIU's parser refuses it.
func (c *Core) needsFPRegs(m *message) {
	if c.State.Format == xstate.FormatNone {
		m.fail(c.infoAt-m.base, "thread_info.fpregs", errMissing)
	}
}

func (c *Core) fpregs(m message) {
	st, fx := &c.State, &c.State.FX
	for m.next() {
		switch {
		case m.num >= 1 && m.num < fpST:
			f := &fpScalars[m.num]
			f.set(fx, m.u)
			if f.bits < 64 && m.u>>f.bits != 0 {
				markWide(st, f.name)
			}
		case m.num == fpST:
			st.STLen += m.space(fx.STSpace(), st.STLen, "st", st)
		case m.num == fpXMM:
			st.XMMLen += m.space(fx.XMMSpace(), st.XMMLen, "xmm", st)
		case m.num == fpXSave:
			st.Format = xstate.FormatXSave
			c.xsave(m.sub())
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
func (m *message) space(dst []byte, at int, reg string, st *xstate.State) int {
	dst = dst[min(at, len(dst)):]
	words, over, wide := m.array(dst[:0], 4, len(dst))
	if wide {
		markWide(st, reg)
	}
	return len(words) + over
}

func (c *Core) xsave(m message) {
	arena := c.arena
	for m.next() {
		switch {
		case m.num == xsaveBV:
			c.State.BV = xstate.Features(m.u)
		case m.num == xsaveCET:
			ss := new(xstate.ShadowStack)
			cet := m.sub()
			for cet.next() {
				switch cet.num {
				case cetStatus:
					ss.Status = cet.u
				case cetSSP:
					ss.SSP = cet.u
				}
			}
			c.State.ShadowStack = ss
		case m.num < uint32(len(xsaveArrays)) && xsaveArrays[m.num].width != 0:
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
				c.arena = arena
			}
			d, over, wide := m.array(d, a.width, maxArray)
			if wide {
				markWide(&c.State, a.feature.String())
			}
			if len(d) > 0 { // to CRIU an empty array is none
				over += c.State.Over(a.feature)
				c.State.SetData(a.feature, d)
				c.State.SetOver(a.feature, over)
			}
		}
	}
}
