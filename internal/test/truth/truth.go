// Package truth compares states with what the dumped programs said they held.
package truth

import (
	"fmt"
	"slices"

	"github.com/fpuimg/fpuimg/codec/xstate"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// Comparison collects what differs between states and their programs' word.
type Comparison struct {
	Compared map[string]int    // registers, by class
	Differs  map[string]string // the first difference of a class
}

// Compare starts a comparison.
func Compare() *Comparison { return &Comparison{map[string]int{}, map[string]string{}} }

// Sum is how many registers were compared.
func (c *Comparison) Sum() int {
	n := 0
	for _, v := range c.Compared {
		n += v
	}
	return n
}

func (c *Comparison) check(class, register string, got, want any) {
	c.Compared[class]++
	if g, w := fmt.Sprintf("%x", got), fmt.Sprintf("%x", want); g != w && c.Differs[class] == "" {
		c.Differs[class] = fmt.Sprintf("%s = %s, want %s", register, g, w)
	}
}

func (c *Comparison) number(class string, got uint64, want *testimg.Uint) {
	if want != nil {
		c.check(class, class, got, uint64(*want))
	}
}

// registers compares a list of registers, each of which may be the wide form of
// the one that was recorded.
func (c *Comparison) registers(class string, got func(i int) []byte, want []testimg.Bytes) {
	for i, w := range want {
		g := got(i)
		c.check(class, fmt.Sprintf("%s%d", class, i), g[:min(len(g), len(w))], []byte(w))
	}
}

// component returns the bytes from off on of component f, nil if it has no value.
func component(s *xstate.State, f xstate.Feature, off, size int) []byte {
	view := s.View(f)
	if view == nil {
		return nil
	}
	return view[off:][:size]
}

// Thread compares the registers of a thread.
func (c *Comparison) Thread(s *xstate.State, want *testimg.Thread) {
	if s.Format == xstate.FormatNone {
		c.check("fpregs", "fpregs", "none", "a record")
		return
	}
	fx := &s.FX
	c.number("fcw", uint64(fx.FCW()), want.FCW)
	c.number("fsw", uint64(fx.FSW()), want.FSW)
	c.number("ftw", uint64(fx.FTW()), want.FTW)
	c.number("fop", uint64(fx.FOP()), want.FOP)
	c.number("fip", fx.FIP(), want.FIP)
	c.number("fdp", fx.FDP(), want.FDP)
	c.number("mxcsr", uint64(fx.MXCSR()), want.MXCSR)
	c.number("mxcsr_mask", uint64(fx.MXCSRMask()), want.MXCSRMask)
	if want.Top != nil {
		c.check("top", "top", fx.Top(), *want.Top)
	}
	c.registers("st", func(i int) []byte { v := fx.ST(i); return v[:] }, want.ST)
	vectors := s.Vectors()
	vector := func(i int) []byte {
		if i >= len(vectors) {
			return nil
		}
		return vectors[i].Bytes
	}
	c.registers("xmm", vector, want.XMM)
	c.registers("ymm", vector, want.YMM)
	c.registers("zmm", vector, want.ZMM)
	for i, k := range want.K {
		g := component(s, xstate.Opmask, 8*i, 8)
		c.check("k", fmt.Sprintf("k%d", i), hexLE(g), fmt.Sprintf("%016x", uint64(k)))
	}
	if want.PKRU != nil {
		g := component(s, xstate.PKRU, 0, 4)
		c.check("pkru", "pkru", hexLE(g), fmt.Sprintf("%08x", uint64(*want.PKRU)))
	}
	c.registers("bndcsr", func(i int) []byte { return component(s, xstate.BNDCSR, 8*i, 8) }, want.BNDCSR)
	c.registers("bnd", func(i int) []byte { return component(s, xstate.BNDREGS, 16*i, 16) }, want.BND)
	c.registers("tilecfg", func(i int) []byte { return component(s, xstate.TileCfg, 0, 64) }, want.TileCfg)
	c.registers("tmm", func(i int) []byte { return component(s, xstate.TileData, 1024*i, 1024) }, want.TMM)
}

// hexLE spells little-endian bytes as a number.
func hexLE(le []byte) string {
	b := slices.Clone(le)
	slices.Reverse(b)
	return fmt.Sprintf("%x", b)
}
