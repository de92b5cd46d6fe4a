package codec

import (
	"bytes"
	"fmt"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Encode returns the image file with the FPU record of state s in place of its
// own. Only the record and the length words around it change; what the record does
// not name, unknown fields included, stays. The image itself is not changed.
//
// ST and XMM registers are written only where the image had no record: no conversion
// alters more of the legacy area than FCW and MXCSR. The error says what s holds that
// cannot be written: other such registers, or a component that CRIU has no field for.
func (c *Core) Encode(s *xstate.State) ([]byte, error) {
	old := &c.State
	switch {
	case c.Dead:
		return nil, fmt.Errorf("%s: a dead task has no FPU record", c.Path)
	case old.Format != xstate.FormatNone && s.Format != xstate.FormatNone &&
		!(bytes.Equal(old.FX.STSpace(), s.FX.STSpace()) && bytes.Equal(old.FX.XMMSpace(), s.FX.XMMSpace())):
		return nil, fmt.Errorf("%s: the ST and XMM registers of an existing record cannot be replaced", c.Path)
	case s.Recorded()&^Storable != 0:
		return nil, fmt.Errorf("%s: core images have no field for %v", c.Path, s.Recorded()&^Storable)
	}
	e := encoder{old: old, new: s}
	img := c.img // a copy: walking it again must not disturb c
	// What is added goes into the last piece of a message that is split.
	m := img.message(c.entry, "core")
	for m.next() {
		if !c.counts(&m) {
			continue
		}
		ti := m.sub()
		for ti.next() {
			switch ti.num {
			case infoGPRegs:
				e.lastGP = ti.base + ti.start
			case infoFPRegs:
				e.lastFP = ti.base + ti.start
				fp := ti.sub()
				for fp.next() {
					if fp.num == fpXSave {
						e.lastXSave = fp.base + fp.start
					}
				}
			}
		}
	}
	root := img.message(c.entry, "core")
	payload := root.rewrite(func(m *message) []byte {
		if !c.counts(m) {
			return m.raw()
		}
		sub := m.sub()
		return m.replace(sub.rewrite(e.threadInfo))
	})
	if img.err != nil {
		return nil, img.err
	}
	return img.splice(c.entry, payload), nil
}

// WithGPRegs returns the image file with some general registers changed, by their index in
// [Thread.GPRegs]. The image itself is not changed.
func (c *Core) WithGPRegs(regs map[int]uint64) ([]byte, error) {
	img := c.img
	root := img.message(c.entry, "core")
	payload := root.rewrite(func(m *message) []byte {
		if !c.counts(m) {
			return m.raw()
		}
		ti := m.sub()
		return m.replace(ti.rewrite(func(m *message) []byte {
			if m.num != infoGPRegs {
				return m.raw()
			}
			gp := m.sub()
			return m.replace(gp.rewrite(func(m *message) []byte {
				if v, ok := regs[int(m.num)-1]; ok {
					return appendUint(nil, m.num, v)
				}
				return m.raw()
			}))
		}))
	})
	if img.err != nil {
		return nil, img.err
	}
	return img.splice(c.entry, payload), nil
}

// scalars returns the values of fpScalars, by field number.
func scalars(fx *xstate.FXArea) [fpST]uint64 {
	return [fpST]uint64{1: uint64(fx.FCW()), uint64(fx.FSW()), uint64(fx.FTWRaw()), uint64(fx.FOP()),
		fx.FIP(), fx.FDP(), uint64(fx.MXCSR()), uint64(fx.MXCSRMask())}
}

// counts reports whether the current field of the entry is a thread_info that the
// state is from: the last, or all if they are merged.
func (c *Core) counts(m *message) bool {
	return m.num == coreThreadInfo && (c.Split || m.base+m.start == c.infoAt)
}

// encoder rewrites the FPU record of one image.
type encoder struct {
	old, new                  *xstate.State
	lastGP, lastFP, lastXSave int // offsets of the pieces that take additions
}

func (e *encoder) threadInfo(m *message) []byte {
	at := m.base + m.start
	switch {
	case m.num == infoGPRegs && at == e.lastGP && e.old.Format == xstate.FormatNone && e.new.Format != xstate.FormatNone:
		// In field order, as CRIU writes it.
		return appendSub(bytes.Clone(m.raw()), infoFPRegs, e.fresh())
	case m.num != infoFPRegs:
		return m.raw()
	case e.new.Format == xstate.FormatNone:
		return nil
	}
	sub := m.sub()
	body := sub.rewrite(e.fpregs)
	if at == e.lastFP && e.old.Format == xstate.FormatFXSave && e.new.Format == xstate.FormatXSave {
		body = appendSub(body, fpXSave, e.freshXSave())
	}
	return m.replace(body)
}

func (e *encoder) fpregs(m *message) []byte {
	if m.num < fpST {
		if v := scalars(&e.new.FX)[m.num]; v != scalars(&e.old.FX)[m.num] {
			return appendUint(nil, m.num, v)
		}
	}
	switch {
	case m.num != fpXSave:
		return m.raw()
	case e.new.Format != xstate.FormatXSave:
		return nil
	}
	sub := m.sub()
	body := sub.rewrite(e.xsave)
	if m.base+m.start == e.lastXSave {
		for num, a := range xsaveArrays {
			if a.width != 0 && e.otherData(a.feature) {
				body = appendArray(body, uint32(num), e.new.Data(a.feature), a.width)
			}
		}
		if e.new.ShadowStack != nil && e.otherShadowStack() {
			body = appendShadowStack(body, e.new.ShadowStack)
		}
	}
	return m.replace(body)
}

func (e *encoder) xsave(m *message) []byte {
	switch {
	case m.num == xsaveBV && e.old.BV != e.new.BV:
		return appendUint(nil, xsaveBV, uint64(e.new.BV))
	case m.num == xsaveCET && e.otherShadowStack():
		return nil
	case m.num < uint32(len(xsaveArrays)) && xsaveArrays[m.num].width != 0:
		if e.otherData(xsaveArrays[m.num].feature) {
			return nil
		}
	}
	return m.raw()
}

// otherData reports whether the new state has not the old one's record of a component.
func (e *encoder) otherData(f xstate.Feature) bool {
	return e.old.Over(f) != e.new.Over(f) || !bytes.Equal(e.old.Data(f), e.new.Data(f))
}

// otherShadowStack reports whether the new state has not the old one's record of
// the shadow stack.
func (e *encoder) otherShadowStack() bool {
	a, b := e.old.ShadowStack, e.new.ShadowStack
	return (a == nil) != (b == nil) || a != nil && *a != *b
}

// fresh builds the fpregs message of the new state, in CRIU's field order.
func (e *encoder) fresh() []byte {
	fx := &e.new.FX
	var b []byte
	for num, v := range scalars(fx) {
		if num > 0 {
			b = appendUint(b, uint32(num), v)
		}
	}
	b = appendArray(b, fpST, fx.STSpace(), 4)
	b = appendArray(b, fpXMM, fx.XMMSpace(), 4)
	if e.new.Format == xstate.FormatXSave {
		b = appendSub(b, fpXSave, e.freshXSave())
	}
	return b
}

func (e *encoder) freshXSave() []byte {
	b := appendUint(nil, xsaveBV, uint64(e.new.BV))
	for num, a := range xsaveArrays {
		if a.width != 0 {
			b = appendArray(b, uint32(num), e.new.Data(a.feature), a.width)
		}
	}
	if ss := e.new.ShadowStack; ss != nil {
		b = appendShadowStack(b, ss)
	}
	return b
}

func appendShadowStack(b []byte, ss *xstate.ShadowStack) []byte {
	return appendSub(b, xsaveCET, appendUint(appendUint(nil, cetStatus, ss.Status), cetSSP, ss.SSP))
}
