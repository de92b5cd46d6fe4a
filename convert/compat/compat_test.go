package compat_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// option changes a state that a test builds.
type option func(*xstate.State)

func newState(format xstate.Format, opts ...option) *xstate.State {
	s := xstate.NewState(format)
	for _, o := range opts {
		o(s)
	}
	return s
}

// none, fxsave and xsave return states that are in INIT but for the options.
func none(opts ...option) *xstate.State   { return newState(xstate.FormatNone, opts...) }
func fxsave(opts ...option) *xstate.State { return newState(xstate.FormatFXSave, opts...) }
func xsave(opts ...option) *xstate.State  { return newState(xstate.FormatXSave, opts...) }

// array adds the component's array, all zero and its bit clear.
func array(f xstate.Feature) option {
	return func(s *xstate.State) { s.SetData(f, make([]byte, f.Component().Size)) }
}

// unrecorded makes the record say nothing of the components.
func unrecorded(set xstate.Features) option { return func(s *xstate.State) { s.Unknown = set } }

// zero adds the component's array and sets its bit.
func zero(f xstate.Feature) option {
	return func(s *xstate.State) {
		array(f)(s)
		s.BV |= f.Mask()
	}
}

// lost sets the component's bit only.
func lost(f xstate.Feature) option { return func(s *xstate.State) { s.BV |= f.Mask() } }

// sized adds an array of the wrong length.
func sized(f xstate.Feature, n int) option {
	return func(s *xstate.State) { s.SetData(f, make([]byte, n)) }
}

// use puts a value into registers of the component, and sets its bit where it has
// one.
func use(f xstate.Feature, registers ...string) option {
	return func(s *xstate.State) {
		data := s.FX[:]
		if !xstate.Legacy.Has(f) {
			zero(f)(s)
			data = s.Data(f)
		}
		for _, r := range f.Component().Registers() {
			if slices.Contains(registers, r.Name) {
				data[r.Off] ^= 0x21
			}
		}
	}
}

func mxcsr(v, mask uint32) option {
	return func(s *xstate.State) {
		s.FX.SetMXCSR(v)
		s.FX.SetMXCSRMask(mask)
	}
}

// zeroed makes XSTATE_BV bv, FCW and MXCSR 0.
func zeroed(bv xstate.Features) option {
	return func(s *xstate.State) {
		s.BV = bv
		s.FX.SetFCW(0)
		s.FX.SetMXCSR(0)
	}
}

func pkru(v uint32) option {
	return func(s *xstate.State) {
		zero(xstate.PKRU)(s)
		binary.LittleEndian.PutUint32(s.Data(xstate.PKRU), v)
	}
}

func shadowStack(status uint64) option {
	return func(s *xstate.State) { s.ShadowStack = &xstate.ShadowStack{Status: status, SSP: 0x7f00 * status} }
}

func compat32(s *xstate.State) { s.Compat = true }

func to(f xstate.Format) compat.Target { return compat.Target{Format: &f} }

func features(list ...xstate.Feature) compat.Target {
	t := to(xstate.FormatXSave)
	var set xstate.Features
	for _, f := range list {
		set |= f.Mask()
	}
	t.Features = &set
	return t
}

func onHost(c *xstate.CPU) compat.Target { return compat.Target{Host: c} }

func both(t compat.Target, c *xstate.CPU) compat.Target {
	t.Host = c
	return t
}

const (
	haswellSet xstate.Features = 0x7
	intelSet   xstate.Features = 0x2ff | xstate.AMX | 1<<xstate.APX
)

// machine returns a host that has XSAVE with the components.
func machine(set xstate.Features, flags ...string) *xstate.CPU {
	slices.Sort(flags)
	return &xstate.CPU{Name: "target", FXSave: new(true), XSave: new(true), XFeatures: &set,
		MXCSRMask: new(uint32(0xffff)), Flags: flags}
}

// hosts of the tests.
var (
	haswell = machine(haswellSet, "avx")
	wide    = machine(intelSet, "avx", "user_shstk")
	plain   = &xstate.CPU{Name: "plain", FXSave: new(true), XSave: new(false), MXCSRMask: new(uint32(0xffff)), Flags: []string{}}
	// masked keeps the old mask: no DAZ.
	masked = &xstate.CPU{Name: "masked", FXSave: new(true), XSave: new(false), MXCSRMask: new(uint32(0)), Flags: []string{}}
	bare   = &xstate.CPU{Name: "bare", FXSave: new(false), XSave: new(false)}
	blank  = &xstate.CPU{Name: "blank"}
	// flagged is known by its flags alone, as of a cpuinfo.img of old.
	flagged = &xstate.CPU{Name: "flagged", FXSave: new(true), XSave: new(true), Flags: []string{"avx", "lm", "sse", "xsave"}, UnknownFlags: []string{"clzero"}}
)

// summary spells a report in one line.
func summary(r *compat.Report) string {
	out := []string{fmt.Sprintf("%v->%v %v", r.From, r.To, r.Verdict)}
	switch {
	case r.Refused:
		out = append(out, "refused")
	case r.Changed:
		out = append(out, "changed")
	}
	for _, a := range []compat.Action{compat.Keep, compat.Init, compat.Extend, compat.Drop, compat.Strip, compat.Refuse} {
		var names []string
		for _, d := range r.Decisions {
			if d.Action == a {
				name := d.Component.String()
				if lossy := a == compat.Strip || a == compat.Refuse; d.Lossless == lossy {
					name += "(!)" // the flag contradicts the action
				}
				names = append(names, name)
			}
		}
		if names != nil {
			out = append(out, fmt.Sprintf("%v[%s]", a, strings.Join(names, " ")))
		}
	}
	if names := compat.LossNames(r.Lost); names != nil {
		out = append(out, fmt.Sprintf("lost[%s]", strings.Join(names, " ")))
	}
	for _, f := range r.Findings {
		out = append(out, fmt.Sprintf("%v:%v", f.Severity, f.Rule))
	}
	return strings.Join(out, " ")
}

// decideCase is one line of the matrix: a state, a target, and what becomes of it
// without and with force.
type decideCase struct {
	name           string
	state          *xstate.State
	target         compat.Target
	careful, force string // force "" means the same as careful
}

const sse = xstate.SSE

var decideCases = []decideCase{
	{"none to none", none(), to(xstate.FormatNone),
		"none->none compatible risky:no-fpu-record", ""},
	{"none to fxsave", none(), to(xstate.FormatFXSave),
		"none->fxsave compatible changed init[x87 SSE] risky:no-fpu-record", ""},
	{"none to xsave", none(), to(xstate.FormatXSave),
		"none->xsave compatible changed init[x87 SSE] extend[AVX] risky:no-fpu-record", ""},
	{"none to xsave, 32-bit task", none(compat32), to(xstate.FormatXSave),
		"none->xsave compatible changed init[x87 SSE] extend[AVX] risky:no-fpu-record", ""},
	{"none to xsave, features", none(), features(xstate.Opmask, xstate.PKRU),
		"none->xsave compatible changed init[x87 SSE] extend[opmask PKRU] risky:no-fpu-record", ""},
	{"none to xsave on a host", none(), both(to(xstate.FormatXSave), wide),
		"none->xsave compatible changed init[x87 SSE] extend[AVX BNDCSR opmask ZMM_Hi256 Hi16_ZMM PKRU] risky:no-fpu-record", ""},
	{"none to a host", none(), onHost(wide),
		"none->fxsave compatible changed init[x87 SSE] risky:no-fpu-record", ""},
	{"none to a host without XSAVE", none(), onHost(plain),
		"none->fxsave compatible changed init[x87 SSE] risky:no-fpu-record", ""},
	{"none to a host without FXSAVE", none(), onHost(bare),
		"none->none compatible risky:no-fpu-record", ""},
	{"none to xsave on a host without XSAVE", none(), both(to(xstate.FormatXSave), plain),
		"none->fxsave compatible changed init[x87 SSE] risky:no-fpu-record", ""},
	{"none to no target", none(), compat.Target{},
		"none->none compatible risky:no-fpu-record", ""},
	{"INIT fxsave to none", fxsave(), to(xstate.FormatNone),
		"fxsave->none downgrade-lossless refused drop[x87 SSE] fatal:component-missing",
		"fxsave->none downgrade-lossless changed drop[x87 SSE] fatal:component-missing"},
	{"x87 fxsave to none", fxsave(use(xstate.X87, "st0")), to(xstate.FormatNone),
		"fxsave->none downgrade-lossy refused drop[SSE] refuse[x87] lost[st0] fatal:component-missing",
		"fxsave->none downgrade-lossy changed drop[SSE] strip[x87] lost[st0] fatal:component-missing"},
	{"SSE fxsave to none", fxsave(use(sse, "xmm3", "xmm4"), mxcsr(0x1fc0, 0xffff)), to(xstate.FormatNone),
		"fxsave->none downgrade-lossy refused drop[x87] refuse[SSE] lost[mxcsr xmm3 xmm4] fatal:component-missing",
		"fxsave->none downgrade-lossy changed drop[x87] strip[SSE] lost[mxcsr xmm3 xmm4] fatal:component-missing"},
	{"fxsave to fxsave", fxsave(use(sse, "xmm3")), to(xstate.FormatFXSave),
		"fxsave->fxsave compatible keep[x87 SSE]", ""},
	{"fxsave to xsave", fxsave(use(xstate.X87, "fcw"), use(sse, "xmm3")), to(xstate.FormatXSave),
		"fxsave->xsave compatible changed keep[x87 SSE] extend[AVX]", ""},
	{"fxsave to xsave, legacy features only", fxsave(), features(xstate.X87, sse),
		"fxsave->xsave compatible changed keep[x87 SSE]", ""},
	{"fxsave to xsave, features that no image holds", fxsave(), features(xstate.AVX, xstate.BNDREGS, xstate.TileData, xstate.APX),
		"fxsave->xsave compatible changed keep[x87 SSE] extend[AVX]", ""},
	{"fxsave to xsave on haswell", fxsave(), both(to(xstate.FormatXSave), haswell),
		"fxsave->xsave compatible changed keep[x87 SSE] extend[AVX]", ""},
	{"fxsave to xsave on a wide host", fxsave(), both(to(xstate.FormatXSave), wide),
		"fxsave->xsave compatible changed keep[x87 SSE] extend[AVX BNDCSR opmask ZMM_Hi256 Hi16_ZMM PKRU]", ""},
	{"fxsave to xsave features on haswell", fxsave(), both(features(xstate.AVX, xstate.Opmask), haswell),
		"fxsave->xsave compatible changed keep[x87 SSE] extend[AVX]", ""},
	{"fxsave to xsave on a host without XSAVE", fxsave(use(sse, "xmm0")), both(to(xstate.FormatXSave), plain),
		"fxsave->fxsave compatible keep[x87 SSE]", ""},
	{"fxsave to a wide host", fxsave(use(sse, "xmm0")), onHost(wide),
		"fxsave->fxsave compatible keep[x87 SSE]", ""},
	{"fxsave to a host without FXSAVE", fxsave(use(sse, "xmm0")), onHost(bare),
		"fxsave->none downgrade-lossy refused drop[x87] refuse[SSE] lost[xmm0] fatal:component-missing",
		"fxsave->none downgrade-lossy changed drop[x87] strip[SSE] lost[xmm0] fatal:component-missing"},
	{"INIT xsave to none", xsave(zero(xstate.AVX)), to(xstate.FormatNone),
		"xsave->none downgrade-lossless refused drop[x87 SSE AVX] fatal:format-xsave note:component-unused-missing",
		"xsave->none downgrade-lossless changed drop[x87 SSE AVX] fatal:format-xsave note:component-unused-missing"},
	{"AVX xsave to none", xsave(use(xstate.X87, "st7"), use(sse, "xmm15"), use(xstate.AVX, "ymm15")), to(xstate.FormatNone),
		"xsave->none downgrade-lossy refused refuse[x87 SSE AVX] lost[st7 xmm15 ymm15] fatal:format-xsave fatal:component-missing",
		"xsave->none downgrade-lossy changed strip[x87 SSE AVX] lost[st7 xmm15 ymm15] fatal:format-xsave fatal:component-missing"},
	{"INIT xsave to fxsave", xsave(array(xstate.AVX), zero(xstate.Opmask)), to(xstate.FormatFXSave),
		"xsave->fxsave downgrade-lossless refused keep[x87 SSE] drop[AVX opmask] fatal:format-xsave note:component-unused-missing",
		"xsave->fxsave downgrade-lossless changed keep[x87 SSE] drop[AVX opmask] fatal:format-xsave note:component-unused-missing"},
	{"SSE xsave to fxsave", xsave(use(sse, "xmm1"), array(xstate.AVX)), to(xstate.FormatFXSave),
		"xsave->fxsave downgrade-lossless refused keep[x87 SSE] drop[AVX] fatal:format-xsave note:component-unused-missing",
		"xsave->fxsave downgrade-lossless changed keep[x87 SSE] drop[AVX] fatal:format-xsave note:component-unused-missing"},
	{"AVX xsave to fxsave", xsave(use(xstate.AVX, "ymm7", "ymm15")), to(xstate.FormatFXSave),
		"xsave->fxsave downgrade-lossy refused keep[x87 SSE] refuse[AVX] lost[ymm7 ymm15] fatal:format-xsave fatal:component-missing",
		"xsave->fxsave downgrade-lossy changed keep[x87 SSE] strip[AVX] lost[ymm7 ymm15] fatal:format-xsave fatal:component-missing"},
	{"everything to fxsave", xsave(use(xstate.AVX, "ymm0"), use(xstate.BNDREGS, "bnd3"), use(xstate.BNDCSR, "bndstatus"), use(xstate.Opmask, "k1"), use(xstate.ZMMHi256, "zmm0", "zmm1", "zmm2"), use(xstate.Hi16ZMM, "zmm16"), pkru(0x55555550), use(xstate.TileCfg, "tilecfg"), use(xstate.TileData, "tmm7"), use(xstate.APX, "r16"), shadowStack(1)), to(xstate.FormatFXSave),
		"xsave->fxsave downgrade-lossy refused keep[x87 SSE] refuse[AVX BNDREGS BNDCSR opmask ZMM_Hi256 Hi16_ZMM PKRU TILECFG TILEDATA APX CET_U] lost[ymm0 bnd3 bndstatus k1 zmm0-zmm2 zmm16 pkru tilecfg tmm7 r16 ssp] fatal:format-xsave fatal:component-missing fatal:pkru-missing fatal:shadow-stack-missing",
		"xsave->fxsave downgrade-lossy changed keep[x87 SSE] strip[AVX BNDREGS BNDCSR opmask ZMM_Hi256 Hi16_ZMM PKRU TILECFG TILEDATA APX CET_U] lost[ymm0 bnd3 bndstatus k1 zmm0-zmm2 zmm16 pkru tilecfg tmm7 r16 ssp] fatal:format-xsave fatal:component-missing fatal:pkru-missing fatal:shadow-stack-missing"},
	{"32-bit AVX task to fxsave", xsave(compat32, use(xstate.AVX, "ymm7")), to(xstate.FormatFXSave),
		"xsave->fxsave downgrade-lossy refused keep[x87 SSE] refuse[AVX] lost[ymm7] fatal:format-xsave fatal:component-missing",
		"xsave->fxsave downgrade-lossy changed keep[x87 SSE] strip[AVX] lost[ymm7] fatal:format-xsave fatal:component-missing"},
	{"xsave to xsave", xsave(use(xstate.AVX, "ymm7"), use(xstate.Opmask, "k0")), to(xstate.FormatXSave),
		"xsave->xsave compatible keep[x87 SSE AVX opmask]", ""},
	{"xsave to its own features", xsave(use(xstate.AVX, "ymm7")), features(xstate.AVX),
		"xsave->xsave compatible keep[x87 SSE AVX]", ""},
	{"features drop a zero component", xsave(use(xstate.AVX, "ymm7"), zero(xstate.Opmask), array(xstate.Hi16ZMM)), features(xstate.AVX),
		"xsave->xsave compatible changed keep[x87 SSE AVX] drop[opmask Hi16_ZMM] note:component-unused-missing", ""},
	{"features take AVX-512", xsave(use(xstate.AVX, "ymm7"), use(xstate.Opmask, "k0"), use(xstate.Hi16ZMM, "zmm31")), features(xstate.X87, sse, xstate.AVX),
		"xsave->xsave downgrade-lossy refused keep[x87 SSE AVX] refuse[opmask Hi16_ZMM] lost[k0 zmm31] fatal:component-missing",
		"xsave->xsave downgrade-lossy changed keep[x87 SSE AVX] strip[opmask Hi16_ZMM] lost[k0 zmm31] fatal:component-missing"},
	{"features cannot take the legacy area", xsave(use(sse, "xmm7")), features(xstate.AVX),
		"xsave->xsave compatible keep[x87 SSE]", ""},
	{"xsave to xsave on haswell", xsave(use(xstate.AVX, "ymm7"), use(xstate.Opmask, "k0")), both(to(xstate.FormatXSave), haswell),
		"xsave->xsave downgrade-lossy refused keep[x87 SSE AVX] refuse[opmask] lost[k0] fatal:component-missing",
		"xsave->xsave downgrade-lossy changed keep[x87 SSE AVX] strip[opmask] lost[k0] fatal:component-missing"},
	{"AVX to haswell", xsave(use(xstate.AVX, "ymm7")), onHost(haswell),
		"xsave->xsave compatible keep[x87 SSE AVX]", ""},
	{"AVX-512 to haswell", xsave(use(xstate.ZMMHi256, "zmm9")), onHost(haswell),
		"xsave->xsave downgrade-lossy refused keep[x87 SSE] refuse[ZMM_Hi256] lost[zmm9] fatal:component-missing",
		"xsave->xsave downgrade-lossy changed keep[x87 SSE] strip[ZMM_Hi256] lost[zmm9] fatal:component-missing"},
	{"AVX-512 unused to haswell", xsave(zero(xstate.ZMMHi256)), onHost(haswell),
		"xsave->xsave compatible changed keep[x87 SSE] drop[ZMM_Hi256] note:component-unused-missing", ""},
	{"Linux's PKRU to haswell", xsave(pkru(xstate.DefaultPKRU)), onHost(haswell),
		"xsave->xsave compatible changed keep[x87 SSE] drop[PKRU] note:pkru-missing", ""},
	{"closed PKRU to haswell", xsave(pkru(0xfffffffc)), onHost(haswell),
		"xsave->xsave downgrade-lossy refused keep[x87 SSE] refuse[PKRU] lost[pkru] fatal:pkru-missing",
		"xsave->xsave downgrade-lossy changed keep[x87 SSE] strip[PKRU] lost[pkru] fatal:pkru-missing"},
	{"open PKRU to haswell", xsave(pkru(0)), onHost(haswell),
		"xsave->xsave compatible changed keep[x87 SSE] drop[PKRU] note:pkru-missing", ""},
	{"PKRU with its bit clear to haswell", xsave(array(xstate.PKRU)), onHost(haswell),
		"xsave->xsave compatible changed keep[x87 SSE] drop[PKRU] note:pkru-missing", ""},
	{"closed PKRU to a host that has it", xsave(pkru(0xfffffffc)), onHost(wide),
		"xsave->xsave compatible keep[x87 SSE PKRU]", ""},
	{"closed PKRU to fxsave", xsave(pkru(0xfffffffc)), to(xstate.FormatFXSave),
		"xsave->fxsave downgrade-lossy refused keep[x87 SSE] refuse[PKRU] lost[pkru] fatal:format-xsave fatal:pkru-missing",
		"xsave->fxsave downgrade-lossy changed keep[x87 SSE] strip[PKRU] lost[pkru] fatal:format-xsave fatal:pkru-missing"},
	{"Linux's PKRU to fxsave", xsave(pkru(xstate.DefaultPKRU)), to(xstate.FormatFXSave),
		"xsave->fxsave downgrade-lossless refused keep[x87 SSE] drop[PKRU] fatal:format-xsave note:pkru-missing",
		"xsave->fxsave downgrade-lossless changed keep[x87 SSE] drop[PKRU] fatal:format-xsave note:pkru-missing"},
	{"BNDCSR to haswell", xsave(use(xstate.BNDCSR, "bndcfgu")), onHost(haswell),
		"xsave->xsave downgrade-lossy refused keep[x87 SSE] refuse[BNDCSR] lost[bndcfgu] fatal:component-missing",
		"xsave->xsave downgrade-lossy changed keep[x87 SSE] strip[BNDCSR] lost[bndcfgu] fatal:component-missing"},
	{"padding of BNDCSR to haswell", xsave(zero(xstate.BNDCSR), func(s *xstate.State) { s.Data(xstate.BNDCSR)[40] = 1 }), onHost(haswell),
		"xsave->xsave compatible changed keep[x87 SSE] drop[BNDCSR] note:component-unused-missing", ""},
	{"SSE xsave to a host without XSAVE", xsave(use(sse, "xmm1"), array(xstate.AVX)), onHost(plain),
		"xsave->fxsave downgrade-lossless refused keep[x87 SSE] drop[AVX] fatal:format-xsave note:component-unused-missing",
		"xsave->fxsave downgrade-lossless changed keep[x87 SSE] drop[AVX] fatal:format-xsave note:component-unused-missing"},
	{"AVX xsave to a host without XSAVE", xsave(use(xstate.AVX, "ymm1")), onHost(plain),
		"xsave->fxsave downgrade-lossy refused keep[x87 SSE] refuse[AVX] lost[ymm1] fatal:format-xsave fatal:component-missing",
		"xsave->fxsave downgrade-lossy changed keep[x87 SSE] strip[AVX] lost[ymm1] fatal:format-xsave fatal:component-missing"},
	{"AVX xsave to a host without FXSAVE", xsave(use(xstate.AVX, "ymm1")), onHost(bare),
		"xsave->none downgrade-lossy refused drop[x87 SSE] refuse[AVX] lost[ymm1] fatal:format-xsave fatal:component-missing",
		"xsave->none downgrade-lossy changed drop[x87 SSE] strip[AVX] lost[ymm1] fatal:format-xsave fatal:component-missing"},
	{"AVX xsave to a host of which nothing is known", xsave(use(xstate.AVX, "ymm1"), use(xstate.Hi16ZMM, "zmm16"), shadowStack(1)), onHost(blank),
		"xsave->xsave compatible keep[x87 SSE AVX Hi16_ZMM]", ""},
	{"shadow stack to a host with it", xsave(shadowStack(3)), onHost(wide),
		"xsave->xsave compatible keep[x87 SSE]", ""},
	{"shadow stack to a host without it", xsave(shadowStack(1)), onHost(haswell),
		"xsave->xsave downgrade-lossy refused keep[x87 SSE] refuse[CET_U] lost[ssp] fatal:shadow-stack-missing",
		"xsave->xsave downgrade-lossy changed keep[x87 SSE] strip[CET_U] lost[ssp] fatal:shadow-stack-missing"},
	{"shadow stack record of a thread without one", xsave(shadowStack(0)), onHost(haswell),
		"xsave->xsave compatible keep[x87 SSE]", ""},
	{"shadow stack to fxsave", xsave(shadowStack(1)), to(xstate.FormatFXSave),
		"xsave->fxsave downgrade-lossy refused keep[x87 SSE] refuse[CET_U] lost[ssp] fatal:format-xsave fatal:shadow-stack-missing",
		"xsave->fxsave downgrade-lossy changed keep[x87 SSE] strip[CET_U] lost[ssp] fatal:format-xsave fatal:shadow-stack-missing"},
	{"shadow stack record of a thread without one to fxsave", xsave(shadowStack(0)), to(xstate.FormatFXSave),
		"xsave->fxsave downgrade-lossless refused keep[x87 SSE] fatal:format-xsave",
		"xsave->fxsave downgrade-lossless changed keep[x87 SSE] fatal:format-xsave"},
	{"DAZ to a host without it", fxsave(mxcsr(0x1fc0, 0xffff)), onHost(masked),
		"fxsave->fxsave downgrade-lossy refused keep[x87] refuse[SSE] lost[mxcsr] fatal:mxcsr-mask",
		"fxsave->fxsave downgrade-lossy changed keep[x87] strip[SSE] lost[mxcsr] fatal:mxcsr-mask"},
	{"DAZ of an xsave record to a host without it", xsave(mxcsr(0x1fc0, 0xffff)), onHost(masked),
		"xsave->fxsave downgrade-lossy refused keep[x87] refuse[SSE] lost[mxcsr] fatal:format-xsave fatal:mxcsr-mask",
		"xsave->fxsave downgrade-lossy changed keep[x87] strip[SSE] lost[mxcsr] fatal:format-xsave fatal:mxcsr-mask"},
	{"MM to Intel", xsave(mxcsr(0x21f80, 0x2ffff), use(xstate.AVX, "ymm0")), onHost(haswell),
		"xsave->xsave downgrade-lossy refused keep[x87 AVX] refuse[SSE] lost[mxcsr] fatal:mxcsr-mask",
		"xsave->xsave downgrade-lossy changed keep[x87 AVX] strip[SSE] lost[mxcsr] fatal:mxcsr-mask"},
	{"DAZ to a host that has it", xsave(mxcsr(0x1fc0, 0xffff)), onHost(haswell),
		"xsave->xsave compatible keep[x87 SSE]", ""},
	{"DAZ, mask unknown", xsave(mxcsr(0x1fc0, 0xffff)), onHost(blank),
		"xsave->xsave compatible keep[x87 SSE]", ""},
	{"DAZ to none", fxsave(mxcsr(0x1fc0, 0xffff)), to(xstate.FormatNone),
		"fxsave->none downgrade-lossy refused drop[x87] refuse[SSE] lost[mxcsr] fatal:component-missing",
		"fxsave->none downgrade-lossy changed drop[x87] strip[SSE] lost[mxcsr] fatal:component-missing"},
	{"tiles lost, kept", xsave(lost(xstate.TileCfg), lost(xstate.TileData)), to(xstate.FormatXSave),
		"xsave->xsave damaged refused keep[x87 SSE] refuse[TILECFG TILEDATA] fatal:bv-without-data",
		"xsave->xsave damaged changed keep[x87 SSE] strip[TILECFG TILEDATA] fatal:bv-without-data"},
	{"tiles lost, to fxsave", xsave(lost(xstate.TileData), use(xstate.AVX, "ymm2")), to(xstate.FormatFXSave),
		"xsave->fxsave damaged refused keep[x87 SSE] refuse[AVX TILEDATA] lost[ymm2] fatal:bv-without-data fatal:format-xsave fatal:component-missing",
		"xsave->fxsave damaged changed keep[x87 SSE] strip[AVX TILEDATA] lost[ymm2] fatal:bv-without-data fatal:format-xsave fatal:component-missing"},
	{"bounds lost, to haswell", xsave(lost(xstate.BNDREGS)), onHost(haswell),
		"xsave->xsave damaged refused keep[x87 SSE] refuse[BNDREGS] fatal:bv-without-data",
		"xsave->xsave damaged changed keep[x87 SSE] strip[BNDREGS] fatal:bv-without-data"},
	{"lost on a wide host", xsave(lost(xstate.BNDREGS)), onHost(wide),
		"xsave->xsave damaged refused keep[x87 SSE] refuse[BNDREGS] fatal:bv-without-data",
		"xsave->xsave damaged changed keep[x87 SSE] strip[BNDREGS] fatal:bv-without-data"},
	{"lost and short", xsave(lost(xstate.BNDREGS), sized(xstate.AVX, 252)), to(xstate.FormatFXSave),
		"xsave->fxsave damaged refused keep[x87 SSE] drop[AVX] refuse[BNDREGS] fatal:component-short fatal:bv-without-data fatal:format-xsave note:component-unused-missing",
		"xsave->fxsave damaged refused keep[x87 SSE] drop[AVX] strip[BNDREGS] fatal:component-short fatal:bv-without-data fatal:format-xsave note:component-unused-missing"},
	{"unknown bit, kept", xsave(lost(42)), to(xstate.FormatXSave),
		"xsave->xsave compatible keep[x87 SSE] risky:bv-unknown", ""},
	{"unknown bit, to fxsave", xsave(lost(42)), to(xstate.FormatFXSave),
		"xsave->fxsave downgrade-lossless refused keep[x87 SSE] risky:bv-unknown fatal:format-xsave",
		"xsave->fxsave downgrade-lossless changed keep[x87 SSE] risky:bv-unknown fatal:format-xsave"},
	{"unknown bit, to haswell", xsave(lost(42)), onHost(haswell),
		"xsave->xsave compatible changed keep[x87 SSE] risky:bv-unknown", ""},
	{"short legacy area", fxsave(func(s *xstate.State) { s.STLen = 124 }), to(xstate.FormatXSave),
		"fxsave->xsave damaged refused keep[x87 SSE] extend[AVX] fatal:legacy-short", ""},
	{"long legacy area", fxsave(func(s *xstate.State) { s.XMMLen = 260 }), to(xstate.FormatXSave),
		"fxsave->xsave compatible changed keep[x87 SSE] extend[AVX] note:component-long", ""},
	{"short array", xsave(sized(xstate.ZMMHi256, 504)), to(xstate.FormatXSave),
		"xsave->xsave damaged refused keep[x87 SSE ZMM_Hi256] fatal:component-short", ""},
	{"long array", xsave(sized(xstate.ZMMHi256, 520)), to(xstate.FormatXSave),
		"xsave->xsave damaged refused keep[x87 SSE ZMM_Hi256] fatal:component-long", ""},
	{"reserved bits of MXCSR", fxsave(mxcsr(0x21f80, 0xffff)), to(xstate.FormatXSave),
		"fxsave->xsave damaged refused keep[x87 SSE] extend[AVX] fatal:mxcsr-reserved", ""},
	{"bits outside every mask", fxsave(mxcsr(0x101f80, 0)), to(xstate.FormatXSave),
		"fxsave->xsave damaged refused keep[x87 SSE] extend[AVX] fatal:mxcsr-reserved", ""},
	{"zeros for INIT, to its own format", xsave(zeroed(0)), to(xstate.FormatXSave),
		"xsave->xsave compatible changed init[x87 SSE] risky:init-zeroed", ""},
	{"zeros for INIT, no target", xsave(zeroed(0)), compat.Target{},
		"xsave->xsave compatible changed init[x87 SSE] risky:init-zeroed", ""},
	{"zeros for INIT, SSE in use", xsave(use(sse, "xmm1"), zeroed(sse.Mask())), onHost(haswell),
		"xsave->xsave compatible changed keep[SSE] init[x87] risky:init-zeroed", ""},
	{"zeros for INIT, AVX in use", xsave(use(xstate.AVX, "ymm1"), zeroed(1<<xstate.AVX)), onHost(haswell),
		"xsave->xsave compatible changed keep[SSE AVX] init[x87] risky:init-zeroed", ""},
	{"zeros for INIT, x87 in use", xsave(use(xstate.X87, "st1"), zeroed(1<<xstate.X87)), onHost(haswell),
		"xsave->xsave compatible changed keep[x87] init[SSE] risky:init-zeroed", ""},
	{"zeros for INIT, opmask in use", xsave(use(xstate.Opmask, "k1"), zeroed(1<<xstate.Opmask)), onHost(wide),
		"xsave->xsave compatible changed keep[opmask] init[x87 SSE] risky:init-zeroed", ""},
	{"zeros for INIT in part", xsave(use(xstate.X87, "st1"), use(sse, "xmm1"), zeroed(0)), onHost(haswell),
		"xsave->xsave compatible changed keep[x87 SSE] risky:init-zeroed", ""},
	{"zeros for INIT, AVX-512 missing", xsave(use(xstate.Opmask, "k1"), zeroed(1<<xstate.Opmask)), onHost(haswell),
		"xsave->xsave downgrade-lossy refused init[x87 SSE] refuse[opmask] lost[k1] risky:init-zeroed fatal:component-missing",
		"xsave->xsave downgrade-lossy changed init[x87 SSE] strip[opmask] lost[k1] risky:init-zeroed fatal:component-missing"},
	{"zeros for INIT, to fxsave", xsave(zeroed(0)), to(xstate.FormatFXSave),
		"xsave->fxsave downgrade-lossless refused init[x87 SSE] risky:init-zeroed fatal:format-xsave",
		"xsave->fxsave downgrade-lossless changed init[x87 SSE] risky:init-zeroed fatal:format-xsave"},
	{"a component that the host's flags rule out", xsave(use(xstate.AVX, "ymm7"), use(xstate.Opmask, "k1")), onHost(flagged),
		"xsave->xsave downgrade-lossy refused keep[x87 SSE AVX] refuse[opmask] lost[k1] fatal:component-missing",
		"xsave->xsave downgrade-lossy changed keep[x87 SSE AVX] strip[opmask] lost[k1] fatal:component-missing"},
	{"zeros for INIT, to none", xsave(zeroed(0)), to(xstate.FormatNone),
		"xsave->none downgrade-lossless refused drop[x87 SSE] risky:init-zeroed fatal:format-xsave",
		"xsave->none downgrade-lossless changed drop[x87 SSE] risky:init-zeroed fatal:format-xsave"},
	{"zeros that were loaded", xsave(zeroed(xstate.Legacy)), to(xstate.FormatXSave),
		"xsave->xsave compatible keep[x87 SSE]", ""},
	{"zeros without XSTATE_BV", fxsave(zeroed(0)), to(xstate.FormatFXSave),
		"fxsave->fxsave compatible keep[x87 SSE]", ""},
	{"INIT with the bits clear", xsave(func(s *xstate.State) { s.BV = 0 }), to(xstate.FormatXSave),
		"xsave->xsave compatible keep[x87 SSE]", ""},
	{"wide value", fxsave(func(s *xstate.State) { s.Wide = []string{"fcw"} }), to(xstate.FormatXSave),
		"fxsave->xsave compatible changed keep[x87 SSE] extend[AVX] risky:value-too-wide", ""},
}

func TestDecide(t *testing.T) {
	for _, tt := range decideCases {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.careful
			for _, force := range []bool{false, true} {
				if force && tt.force != "" {
					want = tt.force
				}
				if got := summary(compat.Decide(tt.state, tt.target, compat.Policy{Force: force})); got != want {
					t.Errorf("force %t:\n got %s\nwant %s", force, got, want)
				}
			}
		})
	}
}

// source is the machine of a checkpoint: with every flag of the host, and more.
func source(set xstate.Features, vendor string, size uint32, flags ...string) *xstate.CPU {
	c := machine(set, flags...)
	c.Name, c.Vendor, c.XSaveSize = "", vendor, &size
	return c
}

// ruleCase is a finding that some state or code gives.
type ruleCase struct {
	rule       compat.Rule
	severity   compat.Severity
	findings   []compat.Finding
	components string // that the finding names
	features   string
	reason     string // part of it
}

// ruleCases, and those of code_test.go, have every rule with each of its severities.
var ruleCases = []ruleCase{
	{compat.LegacyShort, compat.Fatal, findings(fxsave(func(s *xstate.State) { s.STLen, s.XMMLen = 124, 0 }), compat.Target{}),
		"x87 SSE", "", "st_space has 31 of 32 words, xmm_space 0 of 64"},
	{compat.ComponentShort, compat.Fatal, findings(xsave(sized(xstate.AVX, 252), sized(xstate.PKRU, 4)), compat.Target{}),
		"AVX PKRU", "", "AVX has 252 of 256 bytes, PKRU has 4 of 8 bytes"},
	{compat.ComponentLong, compat.Fatal, findings(xsave(sized(xstate.Hi16ZMM, 1032)), compat.Target{}),
		"Hi16_ZMM", "", "1032 of 1024"},
	{compat.ComponentLong, compat.Note, findings(fxsave(func(s *xstate.State) { s.STLen = 132 }), compat.Target{}),
		"x87 SSE", "", "33 words of 32"},
	{compat.MXCSRReserved, compat.Fatal, findings(fxsave(mxcsr(0x21f80, 0xffff)), compat.Target{}),
		"SSE", "", "reserved bits 0x20000 (mask 0xffff)"},
	{compat.MXCSRReserved, compat.Fatal, findings(fxsave(mxcsr(0x41f80, 0)), compat.Target{}),
		"SSE", "", "reserved bits 0x40000 (mask 0x2ffff)"},
	{compat.BVWithoutData, compat.Fatal, findings(xsave(lost(xstate.TileCfg), lost(xstate.TileData)), compat.Target{}),
		"TILECFG TILEDATA", "", "no tile data"},
	{compat.BVWithoutData, compat.Fatal, findings(xsave(lost(xstate.BNDREGS), lost(xstate.Opmask)), compat.Target{}),
		"BNDREGS opmask", "", "MPX bounds"},
	{compat.BVUnknown, compat.Risky, findings(xsave(lost(42), lost(63)), compat.Target{}),
		"bit 42|bit 63", "", "0x8000040000000000"},
	{compat.ValueTooWide, compat.Risky, findings(fxsave(func(s *xstate.State) { s.Wide = []string{"fcw", "AVX"} }), compat.Target{}),
		"", "", "fcw, AVX"},
	{compat.InitZeroed, compat.Risky, findings(xsave(zeroed(sse.Mask())), compat.Target{}),
		"x87", "", "holds 0 instead of FCW 0x37f: restored so"},
	{compat.InitZeroed, compat.Risky, findings(xsave(zeroed(1<<xstate.X87)), compat.Target{}),
		"SSE", "", "holds 0 instead of MXCSR 0x1f80: restored so"},
	{compat.InitZeroed, compat.Risky, findings(xsave(zeroed(0)), compat.Target{}),
		"x87 SSE", "", "next inexact x87 or SSE operation"},
	{compat.TrailingData, compat.Note, told(compat.Thread{File: "core-1.img", Trailing: 7, State: fxsave()}),
		"", "", "core-1.img: 7 bytes"},
	{compat.NoFPURecord, compat.Risky, findings(none(), compat.Target{}),
		"", "", "CRIU refuses it"},
	{compat.FormatXSave, compat.Fatal, findings(xsave(), onHost(plain)),
		"", "", "plain has no XSAVE; no register value would be lost"},
	{compat.FormatXSave, compat.Fatal, findings(xsave(), both(to(xstate.FormatFXSave), haswell)),
		"", "", "the target has format fxsave; no register value would be lost"},
	{compat.ComponentMissing, compat.Fatal, findings(xsave(use(xstate.Opmask, "k1", "k2", "k3")), onHost(haswell)),
		"opmask", "", "target lacks it: opmask (k1-k3)"},
	{compat.ComponentMissing, compat.Fatal, findings(fxsave(), to(xstate.FormatNone)),
		"x87 SSE", "", "no register value would be lost"},
	{compat.NotRecorded, compat.Risky, findings(none(unrecorded(xstate.User())), compat.Target{}),
		"", "", "no FPU registers of the thread"},
	{compat.NotRecorded, compat.Risky, findings(fxsave(unrecorded(xstate.User()&^xstate.X87.Mask())), compat.Target{}),
		"", "", "nothing but x87 is recorded"},
	{compat.ComponentUnusedMissing, compat.Note, findings(xsave(zero(xstate.Opmask), array(xstate.BNDCSR)), onHost(haswell)),
		"BNDCSR opmask", "", "not in use"},
	{compat.PKRUMissing, compat.Fatal, findings(xsave(pkru(0xfffffff0)), onHost(haswell)),
		"PKRU", "", "PKRU is 0xfffffff0 (AD 2-15)"},
	{compat.PKRUMissing, compat.Note, findings(xsave(pkru(0)), onHost(haswell)),
		"PKRU", "", "guards nothing"},
	{compat.ShadowStackMissing, compat.Fatal, findings(xsave(shadowStack(1)), onHost(haswell)),
		"CET_U", "user_shstk", "SSP 0x7f00"},
	{compat.MXCSRMask, compat.Fatal, findings(fxsave(mxcsr(0x1fc0, 0xffff)), onHost(masked)),
		"SSE", "", "0x40 (DAZ) that masked lacks"},
	{compat.MXCSRMask, compat.Fatal, findings(fxsave(mxcsr(0x21fc0, 0x2ffff)), onHost(masked)),
		"SSE", "", "DAZ and MM"},
	{compat.ISAMissing, compat.Risky, compared(source(haswellSet, "intel", 832, "avx", "avx2", "bmi1"), haswell),
		"", "avx2 bmi1", "dies of SIGILL"},
	{compat.ISAMissing, compat.Note, compared(source(haswellSet, "intel", 832, "avx", "erms"), haswell),
		"", "erms", "no program faults"},
	{compat.ISAMissing, compat.Risky, compared(source(haswellSet, "amd", 832, "clzero", "mmxext", "sse4a", "syscall"), flagged),
		"", "sse4a", "instruction sets that flagged lacks: sse4a;"},
	{compat.ISAMissing, compat.Note, compared(source(haswellSet, "amd", 832, "mmxext", "syscall"), flagged),
		"", "mmxext syscall", "no program faults"},
	{compat.ISAMissing, compat.Note, compared(nil, haswell),
		"", "", "not checked"},
	{compat.ISAMissing, compat.Risky, erased(source(haswellSet, "intel", 832, "avx", "avx2"), haswell),
		"", "avx2", "no longer records"},
	{compat.XSaveSizeDiffers, compat.Risky, compared(source(haswellSet, "intel", 832, "avx"), wide),
		"", "", "up to byte 832 and the host writes up to byte 2688"},
	{compat.XSaveSizeDiffers, compat.Note, compared(source(haswellSet, "intel", 832, "avx", "xsavec"), wide),
		"", "", "harmless, since the source has XSAVEC"},
	{compat.XSaveSizeDiffers, compat.Note, compared(nil, wide),
		"", "", "not checked"},
	{compat.VendorDiffers, compat.Note, compared(source(haswellSet, "amd", 832, "avx"), source(haswellSet, "intel", 832, "avx")),
		"", "", "taken on a CPU of amd, the host is of intel"},
}

func findings(s *xstate.State, t compat.Target) []compat.Finding {
	return compat.Decide(s, t, compat.Policy{}).Findings
}

// compared returns the findings about two machines.
func compared(source, host *xstate.CPU) []compat.Finding {
	j := compat.Judge(onHost(host), compat.Policy{})
	j.Taken(source)
	return j.Findings
}

// told returns the findings about the checkpoint with one thread.
func told(th compat.Thread) []compat.Finding {
	j := compat.Judge(compat.Target{}, compat.Policy{})
	j.Thread(th)
	return j.Findings
}

func erased(before, after *xstate.CPU) []compat.Finding {
	j := compat.Judge(compat.Target{}, compat.Policy{})
	j.Erased(before, after)
	return j.Findings
}

func TestRules(t *testing.T) {
	seen := map[compat.Rule]bool{}
	for _, tt := range append(ruleCases, codeCases...) {
		seen[tt.rule] = true
		t.Run(fmt.Sprintf("%s/%v", tt.rule, tt.severity), func(t *testing.T) {
			i := slices.IndexFunc(tt.findings, func(f compat.Finding) bool {
				return f.Rule == tt.rule && f.Severity == tt.severity && strings.Contains(f.Reason, tt.reason)
			})
			if i < 0 {
				t.Fatalf("no such finding with %q in its reason among %+v", tt.reason, tt.findings)
			}
			f := tt.findings[i]
			components := strings.Join(f.Components, " ")
			if strings.Contains(tt.components, "|") {
				components = strings.Join(f.Components, "|")
			}
			if got, want := components+"; "+strings.Join(f.Features, " "), tt.components+"; "+tt.features; got != want {
				t.Errorf("names %q, want %q", got, want)
			}
			if f.Components == nil || f.Features == nil {
				t.Error("a list is nil, and would be null in JSON")
			}
		})
	}
	for _, rule := range compat.Rules() {
		if !seen[rule] {
			t.Errorf("rule %s has no case", rule)
		}
	}
	if got := len(compat.Rules()); got != 31 {
		t.Errorf("%d rules, want 31", got)
	}
}

// TestIntegrity pins which findings are about the image alone: those stay whatever
// the target is.
func TestIntegrity(t *testing.T) {
	var got []compat.Rule
	for _, rule := range compat.Rules() {
		if f := (compat.Finding{Rule: rule}); f.Integrity() {
			got = append(got, rule)
		}
	}
	if want := compat.Rules()[:11]; !slices.Equal(got, want) {
		t.Errorf("integrity rules %v, want %v", got, want)
	}
}

// remedies spells what findings propose.
func remedies(fs []compat.Finding) string {
	names := map[compat.RemedyKind]string{compat.TakeAgain: "again", compat.Force: "force", compat.ClearBits: "clear", compat.AddRecord: "record",
		compat.WriteInit: "init", compat.WithoutTiles: "tiles", compat.HostWith: "host", compat.HostSmaller: "smaller", compat.StartAnew: "anew",
		compat.BindNow: "bind", compat.RecordCPU: "dump", compat.KeepCPUInfo: "keep", compat.Level: "level", compat.TakeLater: "later", compat.GiveRoot: "root"}
	var out []string
	for _, f := range fs {
		var kinds []string
		for _, r := range f.Remedies {
			kinds = append(kinds, strings.TrimSpace(names[r.Kind]+" "+strings.Join(r.Flags, ",")))
		}
		if kinds != nil {
			out = append(out, string(f.Rule)+"="+strings.Join(kinds, "|"))
		}
	}
	return strings.Join(out, " ")
}

func TestRemedies(t *testing.T) {
	down := to(xstate.FormatFXSave)
	tests := []struct {
		name   string
		state  *xstate.State
		target compat.Target
		force  bool
		want   string
	}{
		{"refused", xsave(use(xstate.AVX, "ymm0")), down, false, "format-xsave=force component-missing=force"},
		{"refused on a host", xsave(use(xstate.AVX, "ymm0")), onHost(plain), false, "format-xsave=host xsave|force component-missing=host avx|force"},
		{"forced already", xsave(use(xstate.AVX, "ymm0")), down, true, ""},
		{"damaged beyond force", xsave(use(xstate.AVX, "ymm0"), sized(xstate.Opmask, 8)), down, false, "component-short=again"},
		{"beyond force, lost too", xsave(lost(xstate.TileData), sized(xstate.Opmask, 8)), compat.Target{}, false, "component-short=again bv-without-data=again"},
		{"only lost", xsave(use(xstate.AVX, "ymm0"), lost(xstate.TileData)), down, false,
			"bv-without-data=tiles|clear format-xsave=force component-missing=force"},
		{"bounds lost", xsave(lost(xstate.BNDREGS)), down, true, "bv-without-data=clear"},
		{"no record", none(), onHost(haswell), false, "no-fpu-record=record"},
		{"zeros for INIT", xsave(zeroed(0)), compat.Target{}, false, "init-zeroed=init"},
		{"shadow stack", xsave(shadowStack(1)), onHost(haswell), false, "shadow-stack-missing=host user_shstk|force"},
		{"PKRU", xsave(pkru(0xfffffff0)), onHost(haswell), false, "pkru-missing=host pku|force"},
		{"up", fxsave(), down, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := remedies(compat.Decide(tt.state, tt.target, compat.Policy{Force: tt.force}).Findings); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
	for _, tt := range []struct {
		findings []compat.Finding
		want     string
	}{
		{compared(source(haswellSet, "intel", 832, "avx", "avx2", "bmi1"), wide), "isa-missing=host avx2,bmi1|anew xsave-size-differs=smaller|bind"},
		{compared(nil, wide), "isa-missing=dump"},
		{erased(source(haswellSet, "intel", 832, "avx", "avx2"), haswell), "isa-missing=keep"},
	} {
		if got := remedies(tt.findings); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

// TestJudge: the worst thread is the checkpoint's, and where force cannot lift what is
// wrong with one part, no part proposes it, whichever was told first.
func TestJudge(t *testing.T) {
	lossy := compat.Thread{TID: 1, State: xsave(use(xstate.AVX, "ymm0"), use(xstate.Opmask, "k1"))}
	fine := compat.Thread{TID: 2, State: xsave()}
	short := compat.Thread{TID: 3, State: xsave(sized(xstate.AVX, 8))}
	tiles := compat.Thread{TID: 4, State: xsave(lost(xstate.TileData))}
	tests := []struct {
		name    string
		threads []compat.Thread
		damage  []compat.Part
		verdict compat.Verdict
		lifts   bool
		chief   compat.Rule
		class   compat.Class // of CRIU's refusal
	}{
		{"nothing", nil, nil, compat.Compatible, true, "", ""},
		{"lossy", []compat.Thread{fine, lossy, fine}, nil, compat.DowngradeLossy, true, compat.ComponentMissing, ""},
		{"only lost", []compat.Thread{lossy, tiles}, nil, compat.Damaged, true, compat.BVWithoutData, ""},
		{"short last", []compat.Thread{lossy, short}, nil, compat.Damaged, false, compat.ComponentShort, compat.ClassArraySize},
		{"short first", []compat.Thread{short, lossy}, nil, compat.Damaged, false, compat.ComponentShort, compat.ClassArraySize},
		{"a broken image", []compat.Thread{lossy}, []compat.Part{compat.Images}, compat.Damaged, false, compat.ComponentMissing, compat.ClassUnparseable},
		{"a broken cpuinfo.img", []compat.Thread{fine}, []compat.Part{compat.CPUInfo}, compat.Damaged, false, "", ""},
		{"unparseable", []compat.Thread{{State: xsave(), Unparseable: true}}, nil, compat.Compatible, true, "", compat.ClassUnparseable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := compat.Judge(onHost(haswell), compat.Policy{})
			for _, th := range tt.threads {
				j.Thread(th)
			}
			for _, part := range tt.damage {
				j.Damage(part)
			}
			if j.Verdict != tt.verdict || j.OnlyLost() != tt.lifts || j.Refused() != (tt.verdict > compat.Compatible && tt.name != "a broken cpuinfo.img") {
				t.Errorf("%v, force lifts %t, refused %t", j.Verdict, j.OnlyLost(), j.Refused())
			}
			var chief compat.Rule
			if f := j.Chief(); f != nil {
				chief = f.Rule
			}
			if chief != tt.chief {
				t.Errorf("the chief finding is %q, want %q", chief, tt.chief)
			}
			var class compat.Class
			if p := j.Predict(compat.CapDefault); p.Class != nil {
				class = *p.Class
			}
			if class != tt.class {
				t.Errorf("CRIU refuses for %q, want %q", class, tt.class)
			}
			for i, th := range j.Threads {
				if got := remedies(th.Findings); th.TID != tt.threads[i].TID || !tt.lifts && strings.Contains(got, "force") {
					t.Errorf("thread %d: %s", th.TID, got)
				}
			}
		})
	}
	foreign := compat.Judge(onHost(haswell), compat.Policy{})
	foreign.Foreign = true
	if got := foreign.Predict(compat.CapFPU); got.Outcome != compat.Unknown || got.Class != nil || got.Loses == nil {
		t.Errorf("of no checkpoint of CRIU's: %+v", got)
	}
	if got := compat.Judge(compat.Target{}, compat.Policy{}).Predict(compat.CapFPU); got.Outcome != compat.Unknown {
		t.Errorf("without a host: %+v", got)
	}
}

func TestApplyMXCSR(t *testing.T) {
	s := xsave(mxcsr(0x21fc0, 0x2ffff), use(sse, "xmm2"), use(xstate.AVX, "ymm2"))
	r := compat.Decide(s, onHost(haswell), compat.Policy{Force: true})
	out := r.Apply(s)
	if got := out.FX.MXCSR(); got != 0x1fc0 {
		t.Errorf("MXCSR = %#x, want 0x1fc0: MM goes and nothing else", got)
	}
	if out.BV != s.BV {
		t.Errorf("XSTATE_BV = %v, want %v", out.BV, s.BV)
	}
	if got := compat.Consequence(r.Lost); !strings.Contains(got, "SSE arithmetic") {
		t.Errorf("consequence %q does not speak of SSE", got)
	}
}

// TestApplyAVXGone: MXCSR 0 that the bit of AVX spoke for is not taken for a zeroed one
// when AVX has gone.
func TestApplyAVXGone(t *testing.T) {
	s := xsave(zero(xstate.AVX), zeroed(xstate.X87.Mask()|xstate.AVX.Mask()))
	s.FX.SetFCW(xstate.InitFCW)
	out := compat.Decide(s, features(), compat.Policy{}).Apply(s)
	if out.FX.MXCSR() != 0 || out.BV != xstate.Legacy {
		t.Errorf("MXCSR %#x, XSTATE_BV %v", out.FX.MXCSR(), out.BV)
	}
}

func TestErr(t *testing.T) {
	s := xsave(use(xstate.AVX, "ymm7"))
	r := compat.Decide(s, to(xstate.FormatFXSave), compat.Policy{})
	var incompatible *compat.IncompatibleError
	if err := r.Err(); !errors.As(err, &incompatible) || !strings.Contains(err.Error(), "downgrade-lossy: ") {
		t.Errorf("Err() = %v, want an IncompatibleError that names the verdict", r.Err())
	}
	if err := compat.Decide(s, to(xstate.FormatFXSave), compat.Policy{Force: true}).Err(); err != nil {
		t.Errorf("forced: Err() = %v", err)
	}
}

func TestRedacted(t *testing.T) {
	for _, f := range findings(fxsave(mxcsr(0x21f80, 0xffff)), compat.Target{}) {
		if strings.Contains(f.Redacted().Reason, "0x") {
			t.Errorf("redacted reason shows a value: %s", f.Redacted().Reason)
		}
	}
}

// TestUnknown decides on records that say nothing of some components: they are no INIT,
// and neither fit nor go.
func TestUnknown(t *testing.T) {
	extended := xstate.User() &^ xstate.Legacy
	for _, tt := range []struct {
		name   string
		state  *xstate.State
		target compat.Target
		want   compat.Verdict
	}{
		{"nothing recorded", none(unrecorded(xstate.User())), onHost(haswell), compat.Undecided},
		{"nothing recorded, no target", none(unrecorded(xstate.User())), compat.Target{}, compat.Compatible},
		{"legacy alone", fxsave(unrecorded(extended)), onHost(haswell), compat.Undecided},
		{"legacy alone, all of the rest there", fxsave(unrecorded(xstate.AVX.Mask())), onHost(haswell), compat.Compatible},
		{"worse is known", fxsave(unrecorded(extended), mxcsr(0x1fc0, 0xffff)), onHost(masked), compat.DowngradeLossy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := compat.Decide(tt.state, tt.target, compat.Policy{})
			if r.Verdict != tt.want || r.Refused != (tt.want != compat.Compatible) {
				t.Errorf("verdict %v, refused %v; want %v", r.Verdict, r.Refused, tt.want)
			}
			if r.Unknown != tt.state.Unknown {
				t.Errorf("unknown %v, want %v", r.Unknown, tt.state.Unknown)
			}
			for _, d := range r.Decisions {
				if r.Unknown.Has(d.Component) {
					t.Errorf("%v: %s, though it is unknown", d.Component, d.Action)
				}
			}
			for _, f := range r.Findings {
				if f.Rule == compat.NoFPURecord || f.Rule == compat.ComponentUnusedMissing || len(f.Remedies) > 0 && f.Rule == compat.NotRecorded {
					t.Errorf("%s: %s", f.Rule, f.Reason)
				}
			}
		})
	}
}

// TestForeign judges what is no checkpoint: there is nothing to do about any finding.
func TestForeign(t *testing.T) {
	for _, foreign := range []bool{true, false} {
		j := compat.Judge(onHost(haswell), compat.Policy{})
		j.Foreign = foreign
		j.Taken(nil)
		j.Thread(compat.Thread{TID: 1, State: xsave(use(xstate.Opmask, "k1"), lost(xstate.TileData))})
		got := remedies(append(slices.Clone(j.Findings), j.Threads[0].Findings...))
		if (got == "") != foreign {
			t.Errorf("foreign %v: %s", foreign, got)
		}
	}
}
