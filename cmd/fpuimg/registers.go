package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/fatih/color"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// laneFormat says how a vector register is cut into lanes. The zero value prints
// the register as one number.
type laneFormat struct {
	kind byte // 'f', 'i', 'u'; 0: hex
	size int  // bytes
}

// laneNames are the values of --as, the default first.
var laneNames = []string{"hex", "f32", "f64", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"}

func parseLanes(as string) (laneFormat, error) {
	if as == laneNames[0] {
		return laneFormat{}, nil
	}
	if !slices.Contains(laneNames, as) {
		return laneFormat{}, cli.Unknown(fmt.Errorf("--as=%s: unknown lane format", as), "--as=", as, "the formats", laneNames)
	}
	bits, err := strconv.Atoi(as[1:])
	return laneFormat{as[0], bits / 8}, err
}

// lanes returns the lanes of a little-endian register, lane 0 first.
func (l laneFormat) lanes(b []byte) []string {
	var out []string
	for ; len(b) >= l.size; b = b[l.size:] {
		var word [8]byte
		copy(word[:], b[:l.size])
		u := binary.LittleEndian.Uint64(word[:])
		switch {
		case l.kind == 'f' && l.size == 4:
			out = append(out, float(float64(math.Float32frombits(uint32(u))), 32, u<<41>>41, u>>31 != 0))
		case l.kind == 'f':
			out = append(out, float(math.Float64frombits(u), 64, u<<12>>12, u>>63 != 0))
		case l.kind == 'i':
			shift := 64 - 8*l.size
			out = append(out, strconv.FormatInt(int64(u<<shift)>>shift, 10))
		default:
			out = append(out, strconv.FormatUint(u, 10))
		}
	}
	return out
}

// float spells a float32 or float64 as ST registers are spelled: infinities in
// lower case, NaNs with their kind, sign and payload. The fraction holds the
// payload below the bit that makes a NaN quiet.
func float(v float64, bits int, fraction uint64, negative bool) string {
	if !math.IsNaN(v) {
		return strings.TrimPrefix(strings.ToLower(strconv.FormatFloat(v, 'g', -1, bits)), "+")
	}
	quiet := uint64(1) << 51
	if bits == 32 {
		quiet = 1 << 22
	}
	kind, sign := "snan", ""
	if fraction&quiet != 0 {
		kind = "qnan"
	}
	if negative {
		sign = "-"
	}
	return fmt.Sprintf("%s%s(%#x)", sign, kind, fraction&^quiet)
}

const vectorFeatures xstate.Features = 1<<xstate.SSE | 1<<xstate.AVX | 1<<xstate.ZMMHi256 | 1<<xstate.Hi16ZMM

// registers prints every register of a thread, or with --redact the names of those
// that differ from INIT.
func (o *showOptions) registers(s *cli.IO, t *codec.Thread) {
	st := t.State
	p := newPrinter(s)
	name := "thread "
	if t.TID != 0 {
		name += fmt.Sprint(t.TID) + " "
	}
	fmt.Fprintf(s.Out, "\n%s\n", s.OutStyle(color.Bold).Sprint(name+cli.Printable(t.Comm)))
	if st.Format == xstate.FormatNone {
		fmt.Fprintln(s.Out, "no FPU record")
	}
	if unknown := st.Unknown & o.features; unknown != 0 {
		p.list("unknown", unknown.Names())
	}
	if o.redact {
		for f, status := range st.Present() {
			if o.features.Has(f) && status != xstate.Unknown {
				p.line(f.String(), describeUse(st, f))
			}
		}
		return
	}
	if st.View(xstate.X87) != nil && o.features.Has(xstate.X87) {
		o.printX87(p, &st.FX)
	}
	if st.View(xstate.SSE) != nil && o.features.Has(xstate.SSE) {
		p.line("mxcsr", hex(uint64(st.FX.MXCSR()))+"  "+xstate.MXCSRString(st.FX.MXCSR()))
		p.line("mxcsr_mask", hex(uint64(st.FX.MXCSRMask())))
	}
	o.printVectors(p, o.vectors(st))
	for f := range st.Present() {
		if o.features.Has(f) {
			o.printExtended(p, st, f)
		}
	}
	if ss := st.ShadowStack; ss != nil && o.features.Has(xstate.CETUser) {
		p.line("cet", hex(ss.Status))
		p.line("ssp", hex(ss.SSP))
	}
}

// vectors returns the vector registers, as wide as the selected components go.
func (o *showOptions) vectors(st *xstate.State) []xstate.Vector {
	all := st.Vectors()
	out := all[:0]
	for i, v := range all {
		width := 0
		switch {
		case i >= 16 && o.features.Has(xstate.Hi16ZMM), i < 16 && o.features.Has(xstate.ZMMHi256):
			width = 64
		case i >= 16:
		case o.features.Has(xstate.AVX):
			width = 32
		case o.features.Has(xstate.SSE):
			width = 16
		}
		switch {
		case width == 0:
			continue
		case width < len(v.Bytes):
			v = xstate.Vector{Name: xstate.VectorName(i, width), Bytes: v.Bytes[:width]}
		}
		out = append(out, v)
	}
	return out
}

// describeUse says what a component holds without giving a value away.
func describeUse(st *xstate.State, f xstate.Feature) string {
	text := strings.ReplaceAll(st.Status(f).String(), "-", " ")
	if used := st.Used(f); len(used) > 0 {
		text += ": " + strings.Join(compat.LossNames([]compat.Loss{{Component: f, Registers: used}}), " ")
	}
	return text
}

// printer prints one register a line, names and values in columns.
type printer struct {
	s     *cli.IO
	width int // of the values
}

const nameWidth = 12

func newPrinter(s *cli.IO) *printer { return &printer{s, s.Width() - nameWidth} }

var blanks = strings.Repeat(" ", 80)

// pad prints text, and spaces up to a width.
func (p *printer) pad(text string, width int) {
	p.s.Out.WriteString(text)
	for n := width - len(text); n > 0; n -= len(blanks) {
		p.s.Out.WriteString(blanks[:min(n, len(blanks))])
	}
}

// line prints a name and its value. A long value continues below itself.
func (p *printer) line(name, value string) {
	if len(value) < p.width {
		p.pad(name, nameWidth)
		p.s.Out.WriteString(strings.TrimRight(value, " "))
		p.s.Out.WriteByte('\n')
		return
	}
	p.list(name, strings.Split(value, " "))
}

// list prints a name and words, which it does not break.
func (p *printer) list(name string, words []string) {
	for _, line := range cli.Wrap(words, p.width-1) {
		p.pad(name, nameWidth)
		p.s.Out.WriteString(strings.TrimRight(line, " "))
		p.s.Out.WriteByte('\n')
		name = ""
	}
}

// row is a register as words that are equally wide.
type row struct {
	name  string
	words []string
	zero  bool
}

// rows prints registers with as many words in a line as fit, a power of two, so
// that equal positions stand below each other. A run of registers that are zero is
// one line.
func (p *printer) rows(rows []row) {
	width := 1
	for _, r := range rows {
		for _, w := range r.words {
			width = max(width, len(w))
		}
	}
	n := 1
	for 2*n*(width+1) <= p.width {
		n *= 2
	}
	for i := 0; i < len(rows); {
		end := i
		for end < len(rows) && rows[end].zero {
			end++
		}
		if end > i+1 {
			p.line(rows[i].name+"-"+rows[end-1].name, "0")
			i = end
			continue
		}
		name := rows[i].name
		for words := range slices.Chunk(rows[i].words, n) {
			p.pad(name, nameWidth)
			last := len(words) - 1
			for _, w := range words[:last] {
				p.pad(w, width+1)
			}
			p.s.Out.WriteString(words[last])
			p.s.Out.WriteByte('\n')
			name = ""
		}
		i++
	}
}

func (o *showOptions) printX87(p *printer, fx *xstate.FXArea) {
	p.line("fcw", hex(uint64(fx.FCW()))+"  "+xstate.FCWString(fx.FCW()))
	p.line("fsw", hex(uint64(fx.FSW()))+"  "+xstate.FSWString(fx.FSW()))
	p.line("ftw", hex(uint64(fx.FTW()))+"  "+xstate.FTWString(fx.FTW()))
	p.line("fop", hex(uint64(fx.FOP())))
	p.line("fip", hex(fx.FIP()))
	p.line("fdp", hex(fx.FDP()))
	for i := range 8 {
		v := fx.ST(i)
		p.line("st"+strconv.Itoa(i), v.Hex()+"  "+(tag(fx, i) + "       ")[:7]+" "+v.String())
	}
}

// tag spells the two-bit tag of ST(i), which FXSAVE leaves to be worked out from
// the content (SDM vol. 1, 8.1.7).
func tag(fx *xstate.FXArea, i int) string {
	if fx.Empty(i) {
		return "empty"
	}
	switch fx.ST(i).Class() {
	case xstate.ClassNormal:
		return "valid"
	case xstate.ClassZero:
		return "zero"
	}
	return "special"
}

// printVectors prints vector registers in groups of 64 bits or, with --as, in
// lanes.
func (o *showOptions) printVectors(p *printer, vs []xstate.Vector) {
	rows := make([]row, len(vs))
	for i, v := range vs {
		rows[i] = newRow(v.Name, nil, v.Bytes)
	}
	for i, v := range vs {
		switch {
		case rows[i].zero && (i > 0 && rows[i-1].zero || i+1 < len(rows) && rows[i+1].zero): // one of a run
		case o.lanes.kind != 0:
			rows[i].words = o.lanes.lanes(v.Bytes)
		default:
			rows[i].words = quads(v.Hex())
		}
	}
	p.rows(rows)
}

func newRow(name string, words []string, b []byte) row {
	return row{name, words, bytes.Count(b, []byte{0}) == len(b)}
}

// printExtended prints what is neither x87 nor part of a vector register.
func (o *showOptions) printExtended(p *printer, st *xstate.State, f xstate.Feature) {
	view := st.View(f)
	switch {
	case st.Status(f) == xstate.Lost:
		p.line(f.String(), "lost: no data in the image")
	case view == nil || vectorFeatures.Has(f) || f == xstate.X87:
	case f == xstate.PKRU:
		v := binary.LittleEndian.Uint32(view)
		p.line("pkru", hex(uint64(v))+"  "+xstate.PKRUString(v))
	case f == xstate.BNDREGS:
		for i, b := range bounds(view) {
			p.line("bnd"+strconv.Itoa(i), "lower "+b.Lower+" upper "+b.Upper)
		}
	case f == xstate.BNDCSR:
		p.line("bndcfgu", hex(binary.LittleEndian.Uint64(view)))
		p.line("bndstatus", hex(binary.LittleEndian.Uint64(view[8:])))
	default:
		var rows []row
		for _, r := range f.Component().Registers() {
			b := view[r.Off:][:r.Size]
			rows = append(rows, newRow(r.Name, quads(number(b)), b))
		}
		p.rows(rows)
	}
}

type boundDoc struct {
	Lower string `json:"lower"`
	Upper string `json:"upper"`
}

// bounds decodes BND0 to BND3. The upper bound is stored as its one's complement
// (SDM vol. 1, 13.5.3, and appendix E.3).
func bounds(view []byte) []boundDoc {
	out := make([]boundDoc, 4)
	for i := range out {
		b := view[16*i:]
		out[i] = boundDoc{hex(binary.LittleEndian.Uint64(b)), hex(^binary.LittleEndian.Uint64(b[8:]))}
	}
	return out
}

type registersDoc struct {
	FCW       string      `json:"fcw,omitempty"`
	FSW       string      `json:"fsw,omitempty"`
	FTW       string      `json:"ftw,omitempty"`
	FOP       string      `json:"fop,omitempty"`
	FIP       string      `json:"fip,omitempty"`
	FDP       string      `json:"fdp,omitempty"`
	MXCSR     string      `json:"mxcsr,omitempty"`
	MXCSRMask string      `json:"mxcsr_mask,omitempty"`
	ST        []string    `json:"st,omitempty"`
	Vector    []vectorDoc `json:"vector,omitempty"`
	K         []string    `json:"k,omitempty"`
	PKRU      string      `json:"pkru,omitempty"`
	Bnd       []boundDoc  `json:"bnd,omitempty"`
	BndCfgU   string      `json:"bndcfgu,omitempty"`
	BndStatus string      `json:"bndstatus,omitempty"`
	CET       string      `json:"cet,omitempty"`
	SSP       string      `json:"ssp,omitempty"`
	TileCfg   string      `json:"tilecfg,omitempty"`
	TMM       []string    `json:"tmm,omitempty"`
	EGPR      []string    `json:"egpr,omitempty"`
}

type vectorDoc struct {
	Name string `json:"name"`
	Hex  string `json:"hex"`
}

func (o *showOptions) registersDoc(st *xstate.State) *registersDoc {
	d := &registersDoc{}
	fx := &st.FX
	if st.View(xstate.X87) != nil && o.features.Has(xstate.X87) {
		d.FCW, d.FSW, d.FTW = hex(uint64(fx.FCW())), hex(uint64(fx.FSW())), hex(uint64(fx.FTW()))
		d.FOP, d.FIP, d.FDP = hex(uint64(fx.FOP())), hex(fx.FIP()), hex(fx.FDP())
		for i := range 8 {
			d.ST = append(d.ST, fx.ST(i).Hex())
		}
	}
	if st.View(xstate.SSE) != nil && o.features.Has(xstate.SSE) {
		d.MXCSR, d.MXCSRMask = hex(uint64(fx.MXCSR())), hex(uint64(fx.MXCSRMask()))
	}
	for _, v := range o.vectors(st) {
		d.Vector = append(d.Vector, vectorDoc{v.Name, v.Hex()})
	}
	for f := range st.Present() {
		view := st.View(f)
		if view == nil || !o.features.Has(f) {
			continue
		}
		word := func(off int) string { return hex(binary.LittleEndian.Uint64(view[off:])) }
		each := func() (out []string) {
			for _, r := range f.Component().Registers() {
				out = append(out, number(view[r.Off:][:r.Size]))
			}
			return out
		}
		switch f {
		case xstate.Opmask:
			d.K = each()
		case xstate.PKRU:
			d.PKRU = hex(uint64(binary.LittleEndian.Uint32(view)))
		case xstate.BNDREGS:
			d.Bnd = bounds(view)
		case xstate.BNDCSR:
			d.BndCfgU, d.BndStatus = word(0), word(8)
		case xstate.TileCfg:
			d.TileCfg = number(view)
		case xstate.TileData:
			d.TMM = each()
		case xstate.APX:
			d.EGPR = each()
		}
	}
	if ss := st.ShadowStack; ss != nil && o.features.Has(xstate.CETUser) {
		d.CET, d.SSP = hex(ss.Status), hex(ss.SSP)
	}
	return d
}
