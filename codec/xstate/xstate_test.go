package xstate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestComponentTable(t *testing.T) {
	names := map[string]bool{}
	for i := range components {
		c := &components[i]
		if int(c.Feature) != i {
			t.Errorf("entry %d is of bit %d", i, c.Feature)
		}
		if name := strings.ToLower(c.Name); names[name] || name == "" {
			t.Errorf("bit %d: name %q is empty or not unique", i, c.Name)
		} else {
			names[name] = true
		}
		if f, ok := ParseFeature(strings.ToUpper(c.Name)); !ok || f != c.Feature || f.String() != c.Name {
			t.Errorf("name %q is not read back", c.Name)
		}
		if c.Supervisor && (c.Intel != 0 || c.AMD != 0 || len(c.banks) != 0) {
			t.Errorf("%s is a supervisor component with a place in a user area", c.Name)
		}
		if !c.Supervisor && len(c.banks) == 0 {
			t.Errorf("%s has no registers", c.Name)
		}
		size := c.Size
		if Legacy.Has(c.Feature) {
			size = legacySize
		}
		end := 0
		registers := map[string]bool{}
		for _, r := range c.Registers() {
			if r.Off < end || r.Size <= 0 || r.Off+r.Size > size {
				t.Errorf("%s: %s at %d, %d bytes, overlaps the one before or leaves the %d bytes", c.Name, r.Name, r.Off, r.Size, size)
			}
			if registers[r.Name] {
				t.Errorf("%s has two registers %s", c.Name, r.Name)
			}
			registers[r.Name] = true
			end = r.Off + r.Size
		}
	}
}

// TestComponentSizes pins what the SDM, the APM and the kernel's headers say.
func TestComponentSizes(t *testing.T) {
	tests := []struct {
		f                Feature
		size, intel, amd int
		registers        int
	}{
		{X87, 160, 0, 0, 14}, {SSE, 256, 160, 160, 17}, {AVX, 256, 576, 576, 16}, {BNDREGS, 64, 960, 0, 4},
		{BNDCSR, 64, 1024, 0, 2}, {Opmask, 64, 1088, 832, 8}, {ZMMHi256, 512, 1152, 896, 16},
		{Hi16ZMM, 1024, 1664, 1408, 16}, {PT, 128, 0, 0, 0}, {PKRU, 8, 2688, 2432, 1}, {PASID, 8, 0, 0, 0},
		{CETUser, 16, 0, 0, 0}, {CETSup, 24, 0, 0, 0}, {HDC, 8, 0, 0, 0}, {UINTR, 48, 0, 0, 0}, {LBR, 808, 0, 0, 0},
		{HWP, 8, 0, 0, 0}, {TileCfg, 64, 2752, 0, 1}, {TileData, 8192, 2816, 0, 8}, {APX, 128, 960, 0, 16},
	}
	for _, tt := range tests {
		c := tt.f.Component()
		n := 0
		for range c.Registers() {
			n++
		}
		got := []int{c.Size, c.Intel, c.AMD, n}
		if want := []int{tt.size, tt.intel, tt.amd, tt.registers}; !slices.Equal(got, want) {
			t.Errorf("%v: size, Intel offset, AMD offset, registers %v, want %v", tt.f, got, want)
		}
	}
	if len(tests) != len(components) {
		t.Errorf("%d components, want %d", len(components), len(tests))
	}
	for f, want := range map[Feature]string{SSE: "mxcsr xmm0 xmm15", Hi16ZMM: "zmm16 zmm17 zmm31", BNDCSR: "bndcfgu bndstatus bndstatus",
		APX: "r16 r17 r31", X87: "fcw fsw st7", TileCfg: "tilecfg tilecfg tilecfg"} {
		var names []string
		for _, r := range f.Component().Registers() {
			names = append(names, r.Name)
		}
		if got := strings.Join([]string{names[0], names[min(1, len(names)-1)], names[len(names)-1]}, " "); got != want {
			t.Errorf("%v: first, second and last register %q, want %q", f, got, want)
		}
	}
}

func TestFeatures(t *testing.T) {
	for _, tt := range []struct {
		set  Features
		want string
	}{
		{0, "none"}, {3, "x87|SSE"}, {0x207, "x87|SSE|AVX|PKRU"}, {1 << 42, "0x40000000000"},
		{1<<62 | 4, "AVX|0x4000000000000000"}, {0x600e7, "x87|SSE|AVX|opmask|ZMM_Hi256|Hi16_ZMM|TILECFG|TILEDATA"},
	} {
		if got := tt.set.String(); got != tt.want {
			t.Errorf("%#x = %q, want %q", uint64(tt.set), got, tt.want)
		}
	}
	if got, want := (Features(1<<42 | 4)).Names(), []string{"AVX", "bit 42"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	for _, tt := range []struct {
		list string
		want Features
		err  string
	}{
		{"x87,SSE,AVX", 7, ""}, {"avx512", 0, `unknown state component "avx512"`}, {" avx , zmm_hi256", 0x44, ""},
		{"", 0, `unknown state component ""`}, {"AVX,,SSE", 0, `unknown state component ""`},
	} {
		got, err := ParseFeatures(tt.list)
		if msg := fmt.Sprint(err); got != tt.want || (err != nil || tt.err != "") && msg != tt.err {
			t.Errorf("%q = %v, %v, want %v, %s", tt.list, got, err, tt.want, tt.err)
		}
		var unknown *UnknownFeatureError
		if err != nil && !errors.As(err, &unknown) {
			t.Errorf("%q: error of type %T", tt.list, err)
		}
	}
}

func TestGuessLayout(t *testing.T) {
	tests := []struct {
		xcr0 Features
		size int
		want Layout
	}{
		{0x3, 576, IntelLayout(3)},
		{0x7, 832, IntelLayout(7)},
		{0x1f, 1088, IntelLayout(0x1f)},
		{0xe7, 2688, IntelLayout(0xe7)},
		{0xe7, 2432, AMDLayout(0xe7)},
		{0xff, 2688, IntelLayout(0xff)},
		{0x207, 2696, IntelLayout(0x207)},
		{0x207, 2440, AMDLayout(0x207)},
		{0x21f, 2696, IntelLayout(0x21f)},
		{0x2e7, 2696, IntelLayout(0x2e7)},
		{0x2e7, 2440, AMDLayout(0x2e7)},
		{0x2ff, 2696, IntelLayout(0x2ff)},
		{0x600e7, 11008, IntelLayout(0x600e7)},
		{0x602e7, 11008, IntelLayout(0x602e7)},
		{0x200e7, 2816, IntelLayout(0x200e7)},
		{0x21f, 2440, nil}, // AMD never had MPX
		{0xe7, 2696, nil},
		{0x7, 512, nil},
		{1<<62 | 7, 960, nil}, // LWP, which is not in the table
	}
	for _, tt := range tests {
		got := GuessLayout(tt.xcr0, tt.size)
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("XCR0 %#x, %d bytes: %v, want %v", uint64(tt.xcr0), tt.size, got, tt.want)
		}
		if tt.want != nil && got.End(Known) != tt.size {
			t.Errorf("XCR0 %#x, %d bytes: end %d", uint64(tt.xcr0), tt.size, got.End(Known))
		}
	}
}

func TestCompactLayout(t *testing.T) {
	type at map[Feature]int
	tests := []struct {
		mask Features
		want at
		end  int
	}{
		// As XSAVEC of a CPU with AVX-512 wrote them.
		{0xe7, at{AVX: 576, Opmask: 832, ZMMHi256: 896, Hi16ZMM: 1408}, 2432},
		{0xe2, at{Opmask: 576, ZMMHi256: 640, Hi16ZMM: 1152}, 2176},
		{0xa2, at{Opmask: 576, Hi16ZMM: 640}, 1664},
		{0x3, at{}, 576},
		// PKRU is 8 bytes; the tile components ask for 64-byte alignment.
		{0x602e7, at{AVX: 576, Opmask: 832, ZMMHi256: 896, Hi16ZMM: 1408, PKRU: 2432, TileCfg: 2496, TileData: 2560}, 10752},
		// CPUID leaf 0xD.1 EBX of the same CPU, 0x29c0, is for all of its components.
		{0x600e7, at{AVX: 576, Opmask: 832, ZMMHi256: 896, Hi16ZMM: 1408, TileCfg: 2432, TileData: 2496}, 0x29c0},
		{1<<AVX | 1<<CETUser, at{AVX: 576, CETUser: 832}, 848},
	}
	for _, tt := range tests {
		for _, l := range []Layout{nil, IntelLayout(tt.mask), AMDLayout(tt.mask)} {
			got := l.CompactLayout(tt.mask)
			if len(got) != len(tt.want) {
				t.Errorf("%v: %d components, want %d", tt.mask, len(got), len(tt.want))
			}
			for f, off := range tt.want {
				if p, _ := got.Find(f); p.Offset != off {
					t.Errorf("%v: %v at %d, want %d", tt.mask, f, p.Offset, off)
				}
			}
			if end := got.End(Known); end != tt.end {
				t.Errorf("%v: end %d, want %d", tt.mask, end, tt.end)
			}
		}
	}
	// Sizes and alignment come from the machine where it tells them.
	l := Layout{{AVX, 576, 256, true}, {PKRU, 2688, 72, false}}
	if p, _ := l.CompactLayout(1<<Opmask | 1<<PKRU | 1<<TileCfg).Find(TileCfg); p.Offset != 768 {
		t.Errorf("TILECFG at %d, want 768", p.Offset)
	}
}

// testArea returns an area of 0x2e7's size in which every byte of the legacy area
// and of the components is 0xaa, so that what is read of it is seen.
func testArea(bv, xcomp Features) []byte {
	b := bytes.Repeat([]byte{0xaa}, 2696)
	clear(b[512:576])
	binary.LittleEndian.PutUint64(b[AreaBVOffset:], uint64(bv))
	binary.LittleEndian.PutUint64(b[offXCompBV:], uint64(xcomp))
	return b
}

func TestParseArea(t *testing.T) {
	const c = 1 << 63
	tests := []struct {
		name      string
		bv, xcomp Features
		x87, xmm  bool   // the bytes count, else INIT
		mxcsr     uint32 // INIT or the area's
		inUse     Features
	}{
		{"all", 0x2e7, 0, true, true, 0xaaaaaaaa, 0x2e7},
		{"none", 0, 0, false, false, InitMXCSR, 0},
		{"x87", 1, 0, true, false, InitMXCSR, 1},
		{"SSE", 2, 0, false, true, 0xaaaaaaaa, 2},
		{"AVX", 4, 0, false, false, 0xaaaaaaaa, 6}, // MXCSR makes SSE differ from INIT
		{"opmask", 0x20, 0, false, false, InitMXCSR, 0x20},
		{"compacted, all", 0xe7, 0xe7 | c, true, true, 0xaaaaaaaa, 0xe7},
		{"compacted, SSE", 2, 0xe7 | c, false, true, 0xaaaaaaaa, 2},
		{"compacted, AVX", 4, 0xe7 | c, false, false, InitMXCSR, 4},
		{"compacted, x87", 1, 7 | c, true, false, InitMXCSR, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := ParseArea(testArea(tt.bv, tt.xcomp), IntelLayout(0x2e7))
			if err != nil {
				t.Fatal(err)
			}
			if s.BV != tt.bv || s.Format != FormatXSave {
				t.Errorf("XSTATE_BV %v, format %v, want %v, xsave", s.BV, s.Format, tt.bv)
			}
			if got := s.FX.MXCSR(); got != tt.mxcsr {
				t.Errorf("MXCSR %#x, want %#x", got, tt.mxcsr)
			}
			fcw, st := uint16(InitFCW), byte(0)
			if tt.x87 {
				fcw, st = 0xaaaa, 0xaa
			}
			if got := s.FX.FCW(); got != fcw {
				t.Errorf("FCW %#x, want %#x", got, fcw)
			}
			if got := s.FX.ST(7)[9]; got != st {
				t.Errorf("ST(7) has byte %#x, want %#x", got, st)
			}
			if got, want := s.FX.XMMSpace()[255] == 0xaa, tt.xmm; got != want {
				t.Errorf("XMM taken from the area: %v, want %v", got, want)
			}
			if got := s.With(InUse); got != tt.inUse {
				t.Errorf("in use: %v, want %v", got, tt.inUse)
			}
			if !bytes.Equal(s.FX[416:], make([]byte, 96)) {
				t.Error("the bytes behind the registers are kept")
			}
		})
	}
}

func TestParseAreaErrors(t *testing.T) {
	const c = 1 << 63
	reserved := testArea(3, 0)
	reserved[540] = 1
	tests := []struct {
		name string
		b    []byte
		l    Layout
		want string // "" for none
	}{
		{"short", make([]byte, 575), nil, "offset 0x23f: header: want 576 bytes, have 575"},
		{"reserved byte", reserved, nil, "offset 0x21c: header: reserved byte is not zero"},
		{"xcomp_bv in standard format", testArea(3, 7), nil, "offset 0x208: xcomp_bv: 0x7 is neither zero nor compacted format"},
		{"not in xcomp_bv", testArea(0x23, 3|c), nil, "offset 0x200: xstate_bv: opmask is not in xcomp_bv"},
		{"bit 63", testArea(3|c, 3|c), nil, "offset 0x200: xstate_bv: 0x8000000000000000 is not in xcomp_bv"},
		{"cut", testArea(0x207, 0)[:2690], IntelLayout(0x207), "offset 0xa82: PKRU: in use, and its 8 bytes at 0xa80 are not in the area"},
		{"cut, not in use", testArea(7, 0)[:832], IntelLayout(0x207), ""},
		{"offset in the header", testArea(7, 0), Layout{{AVX, 512, 256, false}}, "offset 0xa88: AVX: in use, and its 256 bytes at 0x200 are not in the area"},
		{"negative offset", testArea(7, 0), Layout{{AVX, -8, 256, false}}, "offset 0xa88: AVX: in use, and its 256 bytes at -0x8 are not in the area"},
		{"negative size", testArea(7, 0), Layout{{AVX, 576, -1, false}}, "offset 0xa88: AVX: in use, and its -1 bytes at 0x240 are not in the area"},
		{"no place", testArea(0x207, 0), IntelLayout(7), "offset 0x200: PKRU: in use, and the layout has no place for it"},
		{"bit without an entry", testArea(3, 0), Layout{{42, 576, 8, false}}, ""},
		{"legacy in the layout", testArea(3, 0), Layout{{SSE, 576, 256, false}}, ""},
	}
	for _, tt := range tests {
		_, err := ParseArea(tt.b, tt.l)
		if got := fmt.Sprint(err); err == nil && tt.want != "" || err != nil && got != tt.want {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
		var ae *AreaError
		if err != nil && !errors.As(err, &ae) {
			t.Errorf("%s: error of type %T", tt.name, err)
		}
	}
	if _, err := ParseFXArea(make([]byte, 511)); fmt.Sprint(err) != "offset 0x1ff: legacy area: want 512 bytes, have 511" {
		t.Errorf("short FXSAVE area: %v", err)
	}
}

func TestMarshalAreaErrors(t *testing.T) {
	s := NewState(FormatXSave)
	s.BV |= AVX.Mask()
	s.SetData(AVX, make([]byte, 256))
	short := s.Clone()
	short.SetData(AVX, make([]byte, 252))
	tests := []struct {
		name string
		s    *State
		l    Layout
		size int
		want string
	}{
		{"fits", s, IntelLayout(7), 832, "<nil>"},
		{"no record", &State{}, nil, 832, "offset 0x0: area: format none does not fit 832 bytes"},
		{"no header", s, nil, 512, "offset 0x0: area: format xsave does not fit 512 bytes"},
		{"no place", s, IntelLayout(3), 832, "offset 0x200: AVX: the target has no place for it"},
		{"too small", s, IntelLayout(7), 800, "offset 0x240: AVX: not in the area of 800 bytes"},
		{"negative offset", s, Layout{{AVX, -600, 256, false}}, 832, "offset -0x258: AVX: not in the area of 832 bytes"},
		{"short data", short, IntelLayout(7), 832, "offset 0x240: AVX: want 256 bytes, have 252"},
		{"FXSAVE in an XSAVE area", NewState(FormatFXSave), nil, 576, "<nil>"},
	}
	for _, tt := range tests {
		b, err := tt.s.MarshalArea(tt.l, tt.size)
		if fmt.Sprint(err) != tt.want {
			t.Errorf("%s: error %v, want %s", tt.name, err, tt.want)
		}
		if err == nil && len(b) != tt.size {
			t.Errorf("%s: %d bytes, want %d", tt.name, len(b), tt.size)
		}
	}
}

func TestStatus(t *testing.T) {
	zeroes := func(n int) []byte { return make([]byte, n) }
	some := func(n int) []byte { b := make([]byte, n); b[n-1] = 1; return b }
	xsave := func(bv Features, data []byte) *State {
		s := NewState(FormatXSave)
		s.BV = bv
		s.SetData(AVX, data)
		return s
	}
	mxcsr := NewState(FormatFXSave)
	mxcsr.FX.SetMXCSR(0x1fa0)
	mask := NewState(FormatFXSave)
	mask.FX.SetMXCSRMask(0xffff)
	padding := NewState(FormatFXSave)
	padding.FX.STSpace()[12] = 1
	st := NewState(FormatFXSave)
	st.FX.STSpace()[127-6] = 1
	tests := []struct {
		name string
		s    *State
		f    Feature
		want Status
	}{
		{"no record", new(State), X87, Absent},
		{"INIT x87", NewState(FormatFXSave), X87, Init},
		{"INIT SSE, bit set", NewState(FormatXSave), SSE, Init},
		{"MXCSR", mxcsr, SSE, InUse},
		{"MXCSR_MASK is no state", mask, SSE, Init},
		{"ST padding is no state", padding, X87, Init},
		{"ST(7)", st, X87, InUse},
		{"no bit, no data", xsave(3, nil), AVX, Absent},
		{"no bit, empty data", xsave(3, zeroes(0)), AVX, Absent},
		{"no bit, zeros", xsave(3, zeroes(256)), AVX, Init},
		{"no bit, rubbish", xsave(3, some(256)), AVX, Init},
		{"bit, zeros", xsave(7, zeroes(256)), AVX, Zero},
		{"bit, data", xsave(7, some(256)), AVX, InUse},
		{"bit, short data", xsave(7, some(252)), AVX, InUse},
		{"bit, no data", xsave(7, nil), AVX, Lost},
		{"unknown bit", xsave(1<<42, nil), 42, Lost},
		{"unknown bit, clear", xsave(3, nil), 42, Absent},
	}
	for _, tt := range tests {
		if got := tt.s.Status(tt.f); got != tt.want {
			t.Errorf("%s: %v is %v, want %v", tt.name, tt.f, got, tt.want)
		}
		view := tt.s.View(tt.f)
		if got, want := view != nil, tt.want != Absent && tt.want != Lost; got != want {
			t.Errorf("%s: has a value: %v, want %v", tt.name, got, want)
		}
		if got, want := len(tt.s.Used(tt.f)) != 0, tt.want == InUse; got != want {
			t.Errorf("%s: registers in use: %v, want %v", tt.name, tt.s.Used(tt.f), want)
		}
		if c := tt.f.Component(); view != nil && !Legacy.Has(tt.f) && len(view) != c.Size {
			t.Errorf("%s: view of %d bytes, want %d", tt.name, len(view), c.Size)
		}
	}
}

func TestUsed(t *testing.T) {
	s := NewState(FormatXSave)
	s.FX.SetFCW(0x27f)
	s.FX.SetFTWRaw(0x80)
	s.FX.STSpace()[9] = 0x80
	s.FX.XMMSpace()[16] = 1
	s.BV |= AVX512 | PKRU.Mask()
	hi := make([]byte, 1024)
	hi[64], hi[1023] = 1, 1
	s.SetData(Hi16ZMM, hi)
	s.SetData(Opmask, make([]byte, 64))
	s.SetData(PKRU, []byte{4, 0, 0, 0, 0, 0, 0, 0})
	for f, want := range map[Feature]string{X87: "fcw ftw st0", SSE: "xmm1", Hi16ZMM: "zmm17 zmm31", Opmask: "", PKRU: "pkru", ZMMHi256: "", AVX: ""} {
		if got := strings.Join(s.Used(f), " "); got != want {
			t.Errorf("%v: %q, want %q", f, got, want)
		}
	}
	for name, set := range map[string]func(a *FXArea){
		"fcw": func(a *FXArea) { a.SetFCW(0x27f) }, "fsw": func(a *FXArea) { a.SetFSW(1) }, "ftw": func(a *FXArea) { a.SetFTWRaw(1) },
		"fop": func(a *FXArea) { a.SetFOP(1) }, "fip": func(a *FXArea) { a.SetFIP(1 << 40) }, "fdp": func(a *FXArea) { a.SetFDP(1) },
		"st7": func(a *FXArea) { a.STSpace()[112] = 1 }} {
		one := NewState(FormatFXSave)
		set(&one.FX)
		if got := one.Used(X87); !slices.Equal(got, []string{name}) || one.Status(X87) != InUse || one.Status(SSE) != Init {
			t.Errorf("%s set: %v in use", name, got)
		}
	}
	for _, tt := range []struct {
		status Status
		want   Features
	}{{InUse, 1<<X87 | 1<<SSE | 1<<Hi16ZMM | 1<<PKRU}, {Zero, 1 << Opmask}, {Lost, 1 << ZMMHi256}, {Absent, 0}, {Init, 0}} {
		if got := s.With(tt.status); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.status, got, tt.want)
		}
	}
}

func TestClone(t *testing.T) {
	s := NewState(FormatXSave)
	s.Wide = []string{"fcw"}
	s.ShadowStack = &ShadowStack{Status: 1}
	s.SetData(AVX, make([]byte, 256))
	c := s.Clone()
	if !reflect.DeepEqual(c, s) {
		t.Fatalf("clone %+v, want %+v", c, s)
	}
	c.Wide[0], c.ShadowStack.Status, c.Data(AVX)[0] = "", 0, 1
	c.FX.SetFCW(0)
	if s.Wide[0] != "fcw" || !s.ShadowStack.Enabled() || s.Data(AVX)[0] != 0 || s.FX.FCW() != InitFCW {
		t.Error("a change of the clone shows in the original")
	}
}

func TestTop(t *testing.T) {
	for top := range 8 {
		var a FXArea
		a.SetFSW(uint16(top)<<11 | 0x4700) // the condition codes do not matter
		// Physical register 6 alone holds a value: it is ST(6-TOP).
		a.SetFTWRaw(1 << 6)
		if got := a.Top(); got != top {
			t.Errorf("TOP %d, want %d", got, top)
		}
		for i := range 8 {
			if got, want := a.Empty(i), (top+i)%8 != 6; got != want {
				t.Errorf("TOP %d: ST(%d) empty: %v, want %v", top, i, got, want)
			}
		}
	}
}

func TestControlWords(t *testing.T) {
	tests := []struct{ got, want string }{
		{FCWString(0x37f), "IM DM ZM OM UM PM PC=extended RC=nearest"},
		{FCWString(0), "PC=single RC=nearest"},
		{FCWString(0x1e60), "PM X PC=double RC=zero"},
		{FCWString(0x0500), "PC=reserved RC=down"},
		{FCWString(0x0800), "PC=single RC=up"},
		{FSWString(0), "TOP=0"},
		{FSWString(0x3800), "TOP=7"},
		{FSWString(0xffff), "IE DE ZE OE UE PE SF ES C0 C1 C2 C3 B TOP=7"},
		{FSWString(0x2a41), "IE SF C1 TOP=5"},
		{FSWString(0x4100), "C0 C3 TOP=0"},
		{MXCSRString(0x1f80), "IM DM ZM OM UM PM RC=nearest"},
		{MXCSRString(0), "RC=nearest"},
		{MXCSRString(0xdfc0), "DAZ IM DM ZM OM UM PM RC=up FTZ"},
		{MXCSRString(0x2001), "IE RC=down"},
		{MXCSRString(0x26000), "RC=zero MM"},
		{PKRUString(0), "all keys open"},
		{PKRUString(0x55555554), "AD 1-15"},
		{PKRUString(0x80000002), "WD 0 15"},
		{PKRUString(0x9c), "AD 1-2, WD 3"}, // AD denies writes as well
		{PKRUString(0xc0000041), "AD 0 3 15"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
}

// TestVectors merges registers whose bytes tell where they came from.
func TestVectors(t *testing.T) {
	fill := func(n int, first byte) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = first + byte(i/16)
		}
		return b
	}
	full := NewState(FormatXSave)
	full.BV |= 1<<AVX | AVX512
	copy(full.FX.XMMSpace(), fill(256, 0))
	full.SetData(AVX, fill(256, 0x20))
	full.SetData(ZMMHi256, fill(512, 0x40))
	full.SetData(Hi16ZMM, fill(1024, 0x80))
	full.SetData(Opmask, make([]byte, 64))
	without := func(set Features) *State {
		s := full.Clone()
		for f := range set.All() {
			s.SetData(f, nil)
		}
		s.BV &^= set
		return s
	}
	compat := func(s *State) *State { c := s.Clone(); c.Compat = true; return c }
	cleared := full.Clone() // AVX in INIT: its bytes do not count
	cleared.BV &^= AVX.Mask()
	fx := without(1<<AVX | AVX512)
	fx.Format, fx.BV = FormatFXSave, 0
	tests := []struct {
		name   string
		s      *State
		n      int
		prefix string
		last   []byte // the first bytes of the lanes of the last register
		seven  []byte // and of register 7
	}{
		{"none", new(State), 0, "", nil, nil},
		{"fxsave", fx, 16, "xmm", []byte{15}, []byte{7}},
		{"fxsave, 32 bits", compat(fx), 8, "xmm", []byte{7}, []byte{7}},
		{"AVX", without(AVX512), 16, "ymm", []byte{15, 0x2f}, []byte{7, 0x27}},
		{"AVX, 32 bits", compat(without(AVX512)), 8, "ymm", []byte{7, 0x27}, []byte{7, 0x27}},
		{"AVX-512", full, 32, "zmm", []byte{0xbc, 0xbd, 0xbe, 0xbf}, []byte{7, 0x27, 0x4e, 0x4f}},
		{"AVX-512, 32 bits", compat(full), 8, "zmm", []byte{7, 0x27, 0x4e, 0x4f}, []byte{7, 0x27, 0x4e, 0x4f}},
		{"no Hi16_ZMM", without(1 << Hi16ZMM), 16, "zmm", []byte{15, 0x2f, 0x5e, 0x5f}, []byte{7, 0x27, 0x4e, 0x4f}},
		{"no ZMM_Hi256", without(1 << ZMMHi256), 32, "zmm", []byte{0xbc, 0xbd, 0xbe, 0xbf}, []byte{7, 0x27, 0, 0}},
		{"AVX in INIT", cleared, 32, "zmm", []byte{0xbc, 0xbd, 0xbe, 0xbf}, []byte{7, 0, 0x4e, 0x4f}},
	}
	for _, tt := range tests {
		got := tt.s.Vectors()
		if len(got) != tt.n {
			t.Errorf("%s: %d registers, want %d", tt.name, len(got), tt.n)
			continue
		}
		if tt.n == 0 {
			continue
		}
		if name, want := got[tt.n-1].Name, fmt.Sprintf("%s%d", tt.prefix, tt.n-1); name != want {
			t.Errorf("%s: last register %s, want %s", tt.name, name, want)
		}
		for _, r := range []struct {
			v    Vector
			want []byte
		}{{got[tt.n-1], tt.last}, {got[7], tt.seven}} {
			var lanes []byte
			for i := 0; i < len(r.v.Bytes); i += 16 {
				lanes = append(lanes, r.v.Bytes[i])
			}
			if !bytes.Equal(lanes, r.want) {
				t.Errorf("%s: lanes of %s %x, want %x", tt.name, r.v.Name, lanes, r.want)
			}
		}
	}
	if got, want := fx.Vectors()[1].Hex(), "0x"+strings.Repeat("01", 16); got != want {
		t.Errorf("hex %s, want %s", got, want)
	}
	full.FX.XMMSpace()[0] = 0xfe
	if got := full.Vectors()[0].Hex(); len(got) != 130 || !strings.HasSuffix(got, "fe") {
		t.Errorf("hex %s, want 128 digits, the lowest byte last", got)
	}
}

func TestInit(t *testing.T) {
	for _, format := range []Format{FormatNone, FormatFXSave, FormatXSave} {
		s := NewState(format)
		if f, ok := ParseFormat(format.String()); !ok || f != format {
			t.Errorf("format %v is not read back", format)
		}
		if format != FormatNone && (s.FX.FCW() != 0x37f || s.FX.MXCSR() != 0x1f80 || s.FX.FTW() != 0) {
			t.Errorf("%v: FCW %#x, MXCSR %#x, FTW %#x", format, s.FX.FCW(), s.FX.MXCSR(), s.FX.FTW())
		}
		if got := s.With(InUse, Zero, Lost); got != 0 {
			t.Errorf("%v: a new state has %v in use", format, got)
		}
	}
	if _, ok := ParseFormat("XSAVE"); ok {
		t.Error("formats are read without regard to case")
	}
}

// TestKeep keeps the live thread's part, whatever the area holds.
func TestKeep(t *testing.T) {
	set := AVX.Mask() | PKRU.Mask()
	layout := AMDLayout(set)
	size := layout.End(Known)
	area := func(bv Features, fill byte) []byte {
		s := NewState(FormatXSave)
		s.FX.SetMXCSRMask(0x1000 + uint32(fill))
		for f := range (bv &^ Legacy).All() {
			s.SetData(f, bytes.Repeat([]byte{fill}, f.Component().Size))
			s.BV |= f.Mask()
		}
		b, err := s.MarshalArea(layout, size)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tt := range []struct{ image, live, keep, want Features }{
		{0, 0, PKRU.Mask(), 0},
		{0, set, PKRU.Mask(), PKRU.Mask()},
		{set, set, PKRU.Mask(), set},
		{set, 0, PKRU.Mask(), AVX.Mask()},
		{AVX.Mask(), set, 0, AVX.Mask()},
		{0, set, PKRU.Mask() | Hi16ZMM.Mask(), PKRU.Mask()}, // no place for that
	} {
		b, old := area(tt.image, 1), area(tt.live, 2)
		layout.Keep(b, old, tt.keep)
		s, err := ParseArea(b, layout)
		if err != nil {
			t.Fatal(err)
		}
		if s.BV != tt.want|Legacy || s.FX.MXCSRMask() != 0x1002 {
			t.Errorf("%+v: XSTATE_BV %v, mask %#x", tt, s.BV, s.FX.MXCSRMask())
		}
		for f := range tt.want.All() {
			want := byte(1)
			if tt.keep.Has(f) {
				want = 2
			}
			if s.Data(f)[0] != want {
				t.Errorf("%+v: %v is %#x", tt, f, s.Data(f)[0])
			}
		}
	}
	// Areas that end before the component keep what they can.
	layout.Keep(make([]byte, MinArea), area(set, 2), set)
	layout.Keep(area(set, 1), make([]byte, MinArea), set)
}

// TestSetDataEmpty: an empty array and none are the same state.
func TestSetDataEmpty(t *testing.T) {
	s := NewState(FormatXSave)
	s.SetData(AVX, []byte{})
	if s.Data(AVX) != nil {
		t.Error("an empty array stays")
	}
}
