package main

import (
	"slices"
	"strings"

	"github.com/fatih/color"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// mark is how the map draws a component in one state: what stands around its name,
// so that nothing depends on the colour.
type mark struct {
	state       xstate.Status
	open, close string
	style       []color.Attribute
}

var marks = []mark{
	{xstate.InUse, "[", "]", []color.Attribute{color.FgGreen}},
	{xstate.Zero, "(", ")", []color.Attribute{color.Faint}},
	{xstate.Init, " ", " ", []color.Attribute{color.Faint}},
	{xstate.Lost, "!", "!", []color.Attribute{color.FgRed, color.Bold}},
}

// statuses are the components in each state that the record tells.
type statuses [xstate.Unknown]xstate.Features

func newStatuses(s *xstate.State, shown xstate.Features) (out statuses) {
	for f, st := range s.Present() {
		if st != xstate.Unknown {
			out[st] |= f.Mask() & shown
		}
	}
	return out
}

// all returns the components that are not absent.
func (s *statuses) all() (set xstate.Features) {
	for _, part := range s {
		set |= part
	}
	return set
}

// areaMap draws XSAVE areas: one cell per component that any of them has, in the
// order in which components lie there, and equal ones below each other.
type areaMap struct {
	lines [][]slot
	used  statuses // over all areas
}

// slot is the place of a component in the map.
type slot struct {
	feature xstate.Feature
	gap     bool // before it lie components that no record has
}

func (c slot) width() int {
	width := len(c.feature.String()) + 2
	if c.gap {
		width++
	}
	return width
}

// newAreaMap lays out the cells for areas of these states on lines of a width.
// Components that are not shown make no gap.
func newAreaMap(areas []statuses, shown xstate.Features, width int) *areaMap {
	m := &areaMap{}
	for _, a := range areas {
		for st, set := range a {
			m.used[st] |= set
		}
	}
	all, order := m.used.all(), areaOrder()
	last, at := 0, 0
	for i, f := range order {
		if !all.Has(f) {
			continue
		}
		c := slot{f, hasGap(order[last:i+1], shown)}
		last = i
		if at += c.width(); at > width || m.lines == nil {
			m.lines = append(m.lines, nil)
			at = c.width()
		}
		line := &m.lines[len(m.lines)-1]
		*line = append(*line, c)
	}
	return m
}

// hasGap reports whether there are components between the first and the last of a
// stretch of the area.
func hasGap(stretch []xstate.Feature, shown xstate.Features) bool {
	first, last := stretch[0], stretch[len(stretch)-1]
	return slices.ContainsFunc(stretch, func(f xstate.Feature) bool {
		return shown.Has(f) && !f.Component().Supervisor && !samePlace(f, first) && !samePlace(f, last)
	})
}

// areaOrder returns the components in the order of the standard format. Those that
// have no place in it, of the kernel only, follow the order of their bits.
func areaOrder() []xstate.Feature {
	var out []xstate.Feature
	for f := range xstate.Known.All() {
		i := len(out)
		if at := f.Component().Intel; at > 0 {
			if j := slices.IndexFunc(out, func(o xstate.Feature) bool { return o.Component().Intel >= at }); j >= 0 {
				i = j // APX has the place that MPX had
			}
		}
		out = slices.Insert(out, i, f)
	}
	return out
}

// samePlace reports whether two components exclude each other in the standard
// format.
func samePlace(a, b xstate.Feature) bool {
	ca, cb := a.Component(), b.Component()
	return ca.Intel < cb.Intel+cb.Size && cb.Intel < ca.Intel+ca.Size
}

// legend says what the marks in this map mean; it is the head of its column.
func (m *areaMap) legend(width int) string {
	words := []string{"AREA:"}
	for _, k := range marks {
		if m.used[k.state] != 0 {
			words = append(words, strings.TrimSpace(k.open+stateName(k.state)+k.close))
		}
	}
	if text := strings.Join(words, " "); len(words) > 1 && len(text) <= width {
		return text
	}
	return "AREA"
}

// draw returns the lines for one area; at least one. They end where the area does.
func (m *areaMap) draw(s *cli.IO, area *statuses) []string {
	var out []string
	left := area.all()
	for _, line := range m.lines {
		var b strings.Builder
		for _, c := range line {
			if left != 0 {
				b.WriteString(c.draw(s, area))
			}
			left &^= c.feature.Mask()
		}
		if b.Len() > 0 {
			out = append(out, b.String())
		}
	}
	if out == nil {
		return []string{"-"}
	}
	return out
}

// draw draws one component; dashes stand where the record has nothing.
func (c slot) draw(s *cli.IO, area *statuses) string {
	dashes := func(n int) string { return s.OutStyle(color.Faint).Sprint(strings.Repeat("-", n)) }
	for _, k := range marks {
		if !area[k.state].Has(c.feature) {
			continue
		}
		text := k.open + s.OutStyle(k.style...).Sprint(c.feature) + k.close
		if c.gap {
			text = dashes(1) + text
		}
		return text
	}
	return dashes(c.width())
}

// stateName is the name of a component's state in running text.
func stateName(s xstate.Status) string { return strings.ReplaceAll(s.String(), "-", " ") }
