package ptrace

import (
	"bytes"
	"fmt"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// fx is the legacy area of either register set.
func fx(b []byte) *xstate.FXArea { return (*xstate.FXArea)(b) }

// compare tells whether a register set reads back as written: every register is the
// same, as [xstate.ParseArea] takes them, and so is XSTATE_BV, but for PKRU, which the
// kernel keeps outside the area since 5.14: its value counts and its bit does not. The
// error is a [*ReadbackError], or says what cannot be compared.
func compare(set Set, want, got []byte, layout func() xstate.Layout) error {
	if len(want) != len(got) || len(want) < len(xstate.FXArea{}) {
		return fmt.Errorf("wrote %d bytes, read %d", len(want), len(got))
	}
	if bytes.Equal(fx(want).Registers(), fx(got).Registers()) && (set == FP || xstate.AreaBV(want) == xstate.AreaBV(got) &&
		len(want) >= xstate.MinArea && bytes.Equal(want[xstate.MinArea:], got[xstate.MinArea:])) {
		return nil // the usual case, with a thousand threads waiting
	}
	var l xstate.Layout
	parse := xstate.ParseFXArea
	if set == XState {
		l = layout()
		parse = func(b []byte) (*xstate.State, error) { return xstate.ParseArea(b, l) }
	}
	w, err := parse(want)
	if err != nil {
		return err
	}
	g, err := parse(got)
	if err != nil {
		return err
	}
	if (w.BV^g.BV)&^xstate.PKRU.Mask() != 0 {
		return &ReadbackError{"xstate_bv"}
	}
	used := xstate.Legacy | w.BV | g.BV
	for f := range (used & xstate.Known).All() {
		a, b := w.Value(f), g.Value(f)
		for _, r := range f.Component().Registers() {
			if !bytes.Equal(a[r.Off:][:r.Size], b[r.Off:][:r.Size]) {
				return &ReadbackError{r.Name}
			}
		}
	}
	for f := range (used &^ xstate.Known).All() { // of a newer CPU
		p, ok := l.Find(f)
		if !ok || p.Offset+p.Size > len(want) || !bytes.Equal(want[p.Offset:][:p.Size], got[p.Offset:][:p.Size]) {
			return &ReadbackError{f.String()}
		}
	}
	return nil
}
