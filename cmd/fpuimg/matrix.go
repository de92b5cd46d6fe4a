package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fatih/color"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// A matrix has images down and hosts across. Where the terminal is wide enough a
// cell is a word and the chief reason in short; else a mark and the number of the
// reason, which is spelled below, and the hosts are broken into blocks.

// cellKind is what a matrix says of one image on one host: the verdict, and of
// what is compatible whether there is a risk.
type cellKind int

const (
	cellOK cellKind = iota
	cellRisk
	cellDrop
	cellUnknown
	cellLoss
	cellDies
	cellBad
)

var cellKinds = [...]struct {
	word, mark, meaning string
	style               []color.Attribute
}{
	cellOK:      {"ok", "ok", "it fits", []color.Attribute{color.FgGreen}},
	cellUnknown: {"GAP", "-", "registers are not recorded, so nobody can tell", []color.Attribute{color.FgYellow}},
	cellRisk:    {"risk", "?", "it fits, but the program may break", []color.Attribute{color.FgYellow}},
	cellDrop:    {"drop", "~", "unused state has to go, no value is lost", []color.Attribute{color.FgYellow}},
	cellLoss:    {"LOSS", "!", "register values are lost", []color.Attribute{color.FgRed, color.Bold}},
	cellDies:    {"DIES", "#", "the code of its processes cannot run there", []color.Attribute{color.FgRed, color.Bold}},
	cellBad:     {"BAD", "x", "damaged", []color.Attribute{color.FgRed, color.Bold}},
}

// cell is one image on one host.
type cell struct {
	kind cellKind
	tag  string // the chief reason in a word, "" if there is none
	text string // the chief reason in a line
}

// cell sums a result up.
func (r *result) cell() cell {
	f := r.Chief()
	c := cell{kind: map[compat.Verdict]cellKind{compat.DowngradeLossless: cellDrop, compat.Undecided: cellUnknown, compat.DowngradeLossy: cellLoss, compat.CodeUnfit: cellDies, compat.Damaged: cellBad}[r.Verdict]}
	switch {
	case r.Verdict == compat.Damaged && (f == nil || f.Severity < compat.Fatal || !f.Integrity()):
		return unreadable
	case f == nil:
		return c
	case c.kind == cellOK:
		c.kind = cellRisk
	}
	c.tag, c.text = tagOf(f), f.Severity.String()+" "+string(f.Rule)
	switch names := reasonNames(f); {
	case len(names) > 4:
		c.text += ": " + strings.Join(names[:4], " ") + " and more"
	case len(names) > 0:
		c.text += ": " + strings.Join(names, " ")
	}
	return c
}

var unreadable = cell{cellBad, "file", "damaged or unreadable file"}

// groups are components that come and go together.
var groups = []struct {
	set  xstate.Features
	name string
}{
	{xstate.AVX512, "AVX512"}, {xstate.AMX, "AMX"}, {1<<xstate.BNDREGS | 1<<xstate.BNDCSR, "MPX"},
}

// tags are the reasons that are always the same in a word.
var tags = map[compat.Rule]string{
	compat.XSaveSizeDiffers: "size", compat.FormatXSave: "xsave", compat.NoFPURecord: "record", compat.NotRecorded: "record",
	compat.LegacyShort: "array", compat.ComponentShort: "array", compat.ComponentLong: "array",
	compat.BVUnknown: "bv", compat.ValueTooWide: "width", compat.InitZeroed: "zeros",
	compat.MXCSRMask: "mxcsr", compat.MXCSRReserved: "mxcsr",
}

// tagOf spells the reason of a finding in a word: what is missing, if it is one
// thing that is missing, else what is wrong.
func tagOf(f *compat.Finding) string {
	switch tag := tags[f.Rule]; {
	case tag != "":
		return tag
	case byFlags(f):
		return strings.TrimSuffix(strings.TrimSuffix(rootFlags(f.Features)[0], "f"), "_tile")
	case len(f.Components) == 0:
		return string(f.Rule)
	}
	for _, g := range groups {
		if slices.Contains(g.set.Names(), f.Components[0]) {
			return g.name
		}
	}
	return f.Components[0]
}

// byFlags reports whether a finding is about CPU features, not about state.
func byFlags(f *compat.Finding) bool { return len(f.Components) == 0 && len(f.Features) > 0 }

// reasonNames names what a finding is about, the most telling first.
func reasonNames(f *compat.Finding) []string {
	if byFlags(f) {
		return rootFlags(f.Features)
	}
	return append(slices.Clone(f.Components), f.Features...)
}

// rootFlags leaves out the flags that cannot be there without another one of the
// list, and puts first those that most programs choose their code by.
func rootFlags(names []string) []string {
	rank := []string{"sse4_2", "avx", "avx2", "avx512f", "amx_tile", "xsavec"}
	under := xstate.DependentsOf(names...)
	roots := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(under, n) })
	place := func(name string) uint { return uint(slices.Index(rank, name)) } // -1 is the last
	slices.SortStableFunc(roots, func(a, b string) int { return cmp.Compare(place(a), place(b)) })
	return roots
}

// matrix is images down and hosts across.
type matrix struct {
	s             *cli.IO
	images, hosts []string
	rows          [][]int // of cells
	cells         []cell  // those that differ, in the order in which they are read
	index         map[cell]int
	reasons       []string // numbered from 1, in the narrow form
}

func newMatrix(s *cli.IO, hosts []*host) *matrix {
	m := &matrix{s: s, index: map[cell]int{}}
	for _, h := range hosts {
		m.hosts = append(m.hosts, cli.Printable(h.short))
	}
	return m
}

// add adds the row of an image.
func (m *matrix) add(img *checked) {
	m.images = append(m.images, cli.Printable(img.path))
	row := make([]int, len(m.hosts))
	for i := range row {
		c := unreadable
		if img.cells != nil {
			c = img.cells[i]
		}
		n, ok := m.index[c]
		if !ok {
			n = len(m.cells)
			m.cells, m.index[c] = append(m.cells, c), n
		}
		row[i] = n
	}
	m.rows = append(m.rows, row)
}

func (m *matrix) print() {
	numbers := make([]string, len(m.hosts))
	for i := range m.hosts {
		numbers[i] = fmt.Sprintf("h%d", i+1)
	}
	heads, text := m.hosts, m.spelled(m.words)
	if m.fit(heads, text) < len(heads) {
		heads = numbers
		for i, name := range m.hosts {
			fmt.Fprintf(m.s.Out, "%s = %s\n", numbers[i], name)
		}
	}
	narrow := m.fit(heads, text) < len(heads)
	if narrow {
		text = m.spelled(m.marks)
	}
	n := m.fit(heads, text)
	blocks := (len(heads) + n - 1) / n
	n = (len(heads) + blocks - 1) / blocks
	for from := 0; from < len(heads); from += n {
		if from > 0 {
			fmt.Fprintln(m.s.Out)
		}
		m.block(heads, text, from, min(from+n, len(heads)))
	}
	m.legend(narrow)
}

// spelled spells all cells.
func (m *matrix) spelled(spell func(cell) string) []string {
	var out []string
	for _, c := range m.cells {
		out = append(out, spell(c))
	}
	return out
}

// words spells a cell in a wide matrix.
func (m *matrix) words(c cell) string {
	return strings.TrimRight(cellKinds[c.kind].word+" "+c.tag, " ")
}

// marks spells a cell in a narrow matrix.
func (m *matrix) marks(c cell) string {
	if c.text == "" {
		return cellKinds[c.kind].mark
	}
	i := slices.Index(m.reasons, c.text)
	if i < 0 {
		i = len(m.reasons)
		m.reasons = append(m.reasons, c.text)
	}
	return fmt.Sprintf("%s%d", cellKinds[c.kind].mark, i+1)
}

// fit returns how many hosts there is room for side by side, at least one.
func (m *matrix) fit(heads, text []string) int {
	room := m.s.Width() - len("IMAGE")
	for _, name := range m.images {
		room = min(room, m.s.Width()-len([]rune(name)))
	}
	for i, head := range heads {
		width := len([]rune(head))
		for _, row := range m.rows {
			width = max(width, len(text[row[i]]))
		}
		if room -= width + 2; room < 0 {
			return max(i, 1)
		}
	}
	return len(heads)
}

// block prints the columns of the hosts from to end.
func (m *matrix) block(heads, text []string, from, end int) {
	styled := make([]string, len(text))
	for i, c := range m.cells {
		styled[i] = m.s.OutStyle(cellKinds[c.kind].style...).Sprint(text[i])
	}
	var rows [][]string
	for i, cells := range m.rows {
		row := []string{m.images[i]}
		for _, c := range cells[from:end] {
			row = append(row, styled[c])
		}
		rows = append(rows, row)
	}
	view.Table(m.s, append([]string{"IMAGE"}, heads[from:end]...), rows)
}

// legend explains the cells that there are.
func (m *matrix) legend(narrow bool) {
	var there [len(cellKinds)]bool
	for _, c := range m.cells {
		there[c.kind] = true
	}
	fmt.Fprintln(m.s.Out)
	for i, k := range cellKinds {
		name := k.word
		if narrow {
			name = k.mark
		}
		if there[i] {
			fmt.Fprintf(m.s.Out, "%4s  %s\n", name, k.meaning)
		}
	}
	if len(m.reasons) > 0 {
		fmt.Fprintln(m.s.Out)
	}
	for i, reason := range m.reasons {
		for j, line := range cli.Wrap(strings.Fields(reason), m.s.Width()-6) {
			lead := fmt.Sprintf("%4d  ", i+1)
			if j > 0 {
				lead = "      "
			}
			fmt.Fprintln(m.s.Out, lead+line)
		}
	}
	fmt.Fprintln(m.s.Out)
	for _, line := range cli.Wrap(strings.Fields("A cell names the chief reason; with one --host, check tells all of them."), m.s.Width()-1) {
		fmt.Fprintln(m.s.Out, line)
	}
}
