package xstate

import (
	"bytes"
	"iter"
	"maps"
	"slices"
)

// Format is the shape of a thread's FPU record.
type Format uint8

const (
	// FormatNone: no FPU record at all.
	FormatNone Format = iota
	// FormatFXSave: the legacy area only (x87 and SSE).
	FormatFXSave
	// FormatXSave: the legacy area, XSTATE_BV and extended components.
	FormatXSave
)

var formatNames = [...]string{"none", "fxsave", "xsave"}

func (f Format) String() string { return formatNames[f] }

// FormatNames returns the names that [ParseFormat] knows, the least format first.
func FormatNames() []string { return slices.Clone(formatNames[:]) }

// ParseFormat finds a format by its name.
func ParseFormat(name string) (Format, bool) {
	i := slices.Index(formatNames[:], name)
	return Format(max(i, 0)), i >= 0
}

// Status is the state of one component in one thread.
type Status uint8

const (
	// Absent: the bit is clear and the record holds no data for the component.
	Absent Status = iota
	// Init: the bit is clear; for x87 and SSE, the content is INIT.
	Init
	// Zero: the bit is set and the content is the INIT value. Never x87 or SSE.
	Zero
	// InUse: the bit is set and the content differs from INIT.
	InUse
	// Lost: the bit is set and the record holds no data.
	Lost
	// Unknown: the record does not tell.
	Unknown
)

var statusNames = [...]string{"absent", "init", "zero", "in-use", "lost", "unknown"}

func (s Status) String() string { return statusNames[s] }

// ShadowStack is what CRIU records of a thread's CET shadow stack
// (images/core-x86.proto, user_x86_cet_entry).
type ShadowStack struct {
	Status uint64 // ARCH_SHSTK_STATUS: bit 0 SHSTK, bit 1 WRSS
	SSP    uint64 // shadow stack pointer
}

// Enabled reports whether the thread ran with a shadow stack.
func (s *ShadowStack) Enabled() bool { return s != nil && s.Status&1 != 0 }

// State is one thread's FPU state. The zero value is a thread without an FPU
// record.
type State struct {
	Format Format
	// Unknown is the components that the thread may have used, and that the record says
	// nothing of: neither their values nor that they were in INIT. An image of CRIU has
	// none, an ELF core what its writer left out.
	Unknown Features
	Compat  bool     // a 32-bit task: x87 and registers 0 to 7 only
	BV      Features // XSTATE_BV as recorded; 0 unless Format is FormatXSave
	FX      FXArea   // meaningless if Format is FormatNone

	// STLen and XMMLen are the bytes of st_space and xmm_space that the container
	// held: 128 and 256, unless the record is damaged.
	STLen, XMMLen int
	// Wide names the registers whose recorded value did not fit and was cut.
	Wide []string

	ShadowStack *ShadowStack // nil: not recorded

	data [numComponents][]byte // extended components; nil: none in the record
	over map[Feature]int       // see Over
}

// NewState returns a state of the given format with everything in INIT.
func NewState(format Format) *State {
	s := &State{Format: format}
	if format != FormatNone {
		s.FX = InitFXArea()
		s.STLen, s.XMMLen = 128, 256
	}
	if format == FormatXSave {
		s.BV = Legacy
	}
	return s
}

// Clone returns a deep copy.
func (s *State) Clone() *State {
	c := *s
	c.Wide = slices.Clone(s.Wide)
	c.over = maps.Clone(s.over)
	for i, d := range s.data {
		c.data[i] = bytes.Clone(d)
	}
	if s.ShadowStack != nil {
		c.ShadowStack = new(*s.ShadowStack)
	}
	return &c
}

// Data returns the bytes that the record holds for an extended component, little
// endian as in an XSAVE area, whatever XSTATE_BV says; nil if there are none. The
// length is that of the record, less Over, which in a damaged one is not the component's.
func (s *State) Data(f Feature) []byte {
	if int(f) < len(s.data) {
		return s.data[f]
	}
	return nil
}

// Over returns how many bytes of a damaged record of an extended component lie past
// what Data returns, and were not kept.
func (s *State) Over(f Feature) int { return s.over[f] }

// SetOver notes what [State.Over] returns.
func (s *State) SetOver(f Feature, n int) {
	switch {
	case n == 0:
		delete(s.over, f)
	case s.over == nil:
		s.over = map[Feature]int{f: n}
	default:
		s.over[f] = n
	}
}

// SetData replaces the bytes of an extended component; none removes them. The
// state keeps b. It panics if f is x87, SSE or not in the table.
func (s *State) SetData(f Feature, b []byte) {
	if Legacy.Has(f) {
		panic("xstate: SetData of a legacy component")
	}
	if len(b) == 0 {
		b = nil // an empty array says no more than none
	}
	s.data[f] = b
	delete(s.over, f)
}

// Recorded returns the extended components that the record holds data for.
func (s *State) Recorded() Features {
	var set Features
	for i, d := range s.data {
		if len(d) > 0 {
			set |= Feature(i).Mask()
		}
	}
	return set
}

// Present yields the components of the table that are not absent, with their
// status. Bits of XSTATE_BV that name no component are left out.
func (s *State) Present() iter.Seq2[Feature, Status] {
	return func(yield func(Feature, Status) bool) {
		for f := range (Legacy | s.BV&Known | s.Recorded() | s.Unknown).All() {
			if st := s.Status(f); st != Absent && !yield(f, st) {
				return
			}
		}
	}
}

// Status returns the state of component f.
func (s *State) Status(f Feature) Status {
	switch {
	case s.Unknown.Has(f):
		return Unknown
	case s.Format == FormatNone:
		return Absent
	case Legacy.Has(f):
		if s.isInit(f) {
			return Init
		}
		return InUse
	case s.BV.Has(f):
		switch {
		case len(s.Data(f)) == 0:
			return Lost
		case s.isInit(f):
			return Zero
		}
		return InUse
	case len(s.Data(f)) == 0:
		return Absent
	}
	return Init
}

// With returns the components in one of the given states.
func (s *State) With(status ...Status) Features {
	var set Features
	for f, st := range s.Present() {
		if slices.Contains(status, st) {
			set |= f.Mask()
		}
	}
	return set
}

// zeros is the INIT value of the largest component.
var zeros [8192]byte

var initFX = InitFXArea()

// View returns the bytes that a component's registers lie in: the legacy area for
// x87 and SSE, else the component's data at its full size. A component in INIT
// shows its INIT value whatever bytes the record holds; one with no value, because
// it is absent, lost or unknown, gives nil. The bytes are shared: do not change them.
func (s *State) View(f Feature) []byte {
	c := f.Component()
	st := s.Status(f)
	switch {
	case c == nil || st == Absent || st == Lost || st == Unknown:
		return nil
	case Legacy.Has(f):
		return s.FX[:]
	case st == Init:
		return zeros[:c.Size]
	}
	d := s.Data(f)
	if len(d) < c.Size { // a short array: the rest reads as INIT
		d = append(slices.Clip(d), zeros[:c.Size-len(d)]...)
	}
	return d[:c.Size]
}

// Value is [State.View] for what a restored process would see: a component that
// the record lacks is in INIT. Only one that is lost or unknown has no value, nil.
func (s *State) Value(f Feature) []byte {
	if v := s.View(f); v != nil || s.Status(f) != Absent || f.Component() == nil {
		return v
	}
	return initView(f)
}

// initView returns the INIT value of a component, laid out as in [State.View].
func initView(f Feature) []byte {
	if Legacy.Has(f) {
		return initFX[:]
	}
	return zeros[:f.Component().Size]
}

// isInit compares content with the INIT value. Only registers count: padding,
// reserved bytes and MXCSR_MASK do not.
func (s *State) isInit(f Feature) bool {
	if !Legacy.Has(f) {
		d := s.Data(f)
		return bytes.Equal(d, zeros[:min(len(d), len(zeros))]) || f.Component().paddingOnly(d)
	}
	fx := &s.FX
	if f == SSE {
		return fx.MXCSR() == InitMXCSR && bytes.Equal(fx.XMMSpace(), zeros[:256])
	}
	if fx.FCW() != InitFCW || fx.FSW() != 0 || fx.FTW() != 0 || fx.FOP() != 0 || fx.FIP() != 0 || fx.FDP() != 0 {
		return false
	}
	for i := range 8 {
		if fx.ST(i) != (Float80{}) {
			return false
		}
	}
	return true
}

// Used returns the names of the registers of f whose value differs from INIT, in
// the order of the table. It is empty for a component that is absent, lost, unknown,
// in INIT or zero.
func (s *State) Used(f Feature) []string {
	view := s.View(f)
	if view == nil {
		return nil
	}
	var names []string
	initial := initView(f)
	for _, r := range f.Component().Registers() {
		if !bytes.Equal(view[r.Off:][:r.Size], initial[r.Off:][:r.Size]) {
			names = append(names, r.Name)
		}
	}
	return names
}

// AppendUsed appends a bit for each register of f, in the order of the table, which is
// set where [State.Used] names it.
func (s *State) AppendUsed(b []byte, f Feature) []byte {
	view := s.View(f)
	if view == nil {
		return b
	}
	initial := initView(f)
	for i, r := range f.Component().Registers() {
		if i%8 == 0 {
			b = append(b, 0)
		}
		if !bytes.Equal(view[r.Off:][:r.Size], initial[r.Off:][:r.Size]) {
			b[len(b)-1] |= 1 << (i % 8)
		}
	}
	return b
}

// hexValue spells little-endian bytes as one number of full width.
func hexValue(le []byte) string {
	const digits = "0123456789abcdef"
	var room [2 + 2*64]byte // for a vector register
	out := append(room[:0], "0x"...)
	for i := len(le) - 1; i >= 0; i-- {
		out = append(out, digits[le[i]>>4], digits[le[i]&15])
	}
	return string(out)
}
