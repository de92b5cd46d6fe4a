package compat_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

// family is a CPU as leaf 0xD of published dumps describes it: the components that
// are enabled, whether it has XSAVEC, and whose offsets it uses.
func family(name, vendor string, xcr0 xstate.Features, size uint32, xsavec bool) *xstate.CPU {
	c := &xstate.CPU{Name: name, Vendor: vendor, FXSave: new(true), XSave: new(xcr0 != 0), XFeatures: &xcr0,
		XSaveSize: &size, XSaveSizeMax: &size, Flags: []string{"fpu", "fxsr"}}
	if xcr0 != 0 {
		c.Flags = append(c.Flags, "osxsave", "xsave")
	}
	if xsavec {
		c.Flags = append(c.Flags, "xsavec")
	}
	return c
}

// TestXSaveSize is what is known of the buffer that glibc's lazy resolver sizes when
// a program starts: XSAVE writes all components up to the highest, XSAVEC those in
// use.
func TestXSaveSize(t *testing.T) {
	var (
		nehalem       = family("Nehalem", "intel", 0, 0, false)
		haswell       = family("Haswell", "intel", 0x7, 832, false)
		skylakeClient = family("Skylake client", "intel", 0x1f, 1088, true)
		knl           = family("Knights Landing", "intel", 0xe7, 2688, false)
		skylakeSP     = family("Skylake-SP", "intel", 0x2ff, 2696, true)
		iceLakeSP     = family("Ice Lake SP", "intel", 0x2e7, 2696, true)
		spr           = family("Sapphire Rapids", "intel", 0x602e7, 11008, true)
		alderLake     = family("Alder Lake", "intel", 0x207, 2696, true)
		excavator     = family("Excavator", "amd", 0x7, 832, false)
		zen1          = family("Zen 1", "amd", 0x7, 832, true)
		zen3          = family("Zen 3", "amd", 0x207, 2440, true)
		zen4          = family("Zen 4", "amd", 0x2e7, 2440, true)
		maskedSKL     = family("Skylake client without XSAVEC", "intel", 0x1f, 1088, false)
		maskedZen3    = family("Zen 3 without XSAVEC", "amd", 0x207, 2440, false)
		v4            = level(t, "x86-64-v4")
	)
	tests := []struct {
		source, host *xstate.CPU
		severity     compat.Severity
		reason       string // "": nothing to say
	}{
		{haswell, iceLakeSP, compat.Risky, "up to byte 832 and the host writes up to byte 2688"},
		{haswell, spr, compat.Risky, "up to byte 832 and the host writes up to byte 2688"},
		{haswell, knl, compat.Risky, "2688"},
		{haswell, skylakeClient, compat.Risky, "up to byte 832 and the host writes up to byte 1024"},
		{excavator, zen4, compat.Risky, "up to byte 832 and the host writes up to byte 2432"},
		{maskedSKL, iceLakeSP, compat.Risky, "up to byte 1088 and the host writes up to byte 2688"},
		{haswell, v4, compat.Risky, "2688"},
		{haswell, haswell, compat.Note, ""},
		{haswell, alderLake, compat.Note, "harmless, since the components end no later"}, // PKRU is not saved
		{haswell, zen3, compat.Note, "harmless, since the components end no later"},
		// The buffer has room for PKRU, at the end of a hole that suffices.
		{maskedZen3, skylakeClient, compat.Note, "harmless, since the components end no later"},
		{maskedZen3, iceLakeSP, compat.Risky, "up to byte 2440 and the host writes up to byte 2688"},
		{knl, skylakeSP, compat.Note, "harmless, since the components end no later"},
		{zen1, zen3, compat.Note, "harmless, since the components end no later"},
		{zen1, zen4, compat.Note, "harmless, since the source has XSAVEC"},
		{skylakeClient, iceLakeSP, compat.Note, "harmless, since the source has XSAVEC"},
		{skylakeClient, spr, compat.Note, "harmless, since the source has XSAVEC"},
		{zen4, iceLakeSP, compat.Note, "harmless, since the source has XSAVEC"},
		{spr, haswell, compat.Note, "harmless, since the components end no later"},
		{haswell, nehalem, compat.Note, "has no XSAVE"},
		{nehalem, haswell, compat.Note, "save their state with FXSAVE"},
		{nehalem, spr, compat.Note, "save their state with FXSAVE"},
		{nehalem, nehalem, compat.Note, ""},
		{nil, spr, compat.Note, "not checked"},
		{haswell, &xstate.CPU{XSave: new(true)}, compat.Note, "not checked"},
	}
	for _, tt := range tests {
		name := "unknown"
		if tt.source != nil {
			name = tt.source.Name
		}
		t.Run(name+" to "+tt.host.Name, func(t *testing.T) {
			var got []compat.Finding
			for _, f := range compared(tt.source, tt.host) {
				if f.Rule == compat.XSaveSizeDiffers {
					got = append(got, f)
				}
			}
			switch {
			case tt.reason == "" && len(got) == 0:
			case len(got) != 1 || tt.reason == "":
				t.Errorf("%d findings, %+v, want %q", len(got), got, tt.reason)
			case got[0].Severity != tt.severity || !strings.Contains(got[0].Reason, tt.reason):
				t.Errorf("%v %q, want %v with %q", got[0].Severity, got[0].Reason, tt.severity, tt.reason)
			case tt.severity == compat.Risky && got[0].Remedies == nil:
				t.Error("no remedy")
			}
		})
	}
}

func level(t *testing.T, name string) *xstate.CPU {
	t.Helper()
	c, ok := xstate.ByName(name)
	if !ok {
		t.Fatalf("no level %s", name)
	}
	return c
}

// TestPredict is what CRIU does where the recorded restores do not reach: profiles
// that lack something, older and cut-down cpuinfo.img.
func TestPredict(t *testing.T) {
	host := func(name string) *xstate.CPU { return openImage(t, hostImage[name]).CPUInfo.CPU() }
	edit := func(c *xstate.CPU, f func(*xstate.CPU)) *xstate.CPU { f(c); return c }
	noSizes := func(c *xstate.CPU) { c.XSaveSize, c.XSaveSizeMax = nil, nil }
	noMask := func(c *xstate.CPU) { c.XFeatures, c.XFeaturesHW = nil, nil }
	version1 := func(c *xstate.CPU) { c.Capability = c.Capability[:12] }
	noWords := func(c *xstate.CPU) { c.Capability = nil }
	avx512 := xsave(use(xstate.AVX, "ymm0"), use(xstate.Opmask, "k1"))
	short := xsave(use(xstate.AVX, "ymm0"), sized(xstate.AVX, 252))

	tests := []struct {
		name         string
		source, host *xstate.CPU
		state        *xstate.State
		want         string // outcomes for default none fpu ins cpu
	}{
		{"same machine", host("haswell"), host("haswell"), xsave(), "restores restores restores restores restores"},
		{"no cpuinfo.img", nil, host("haswell"), xsave(), "restores restores no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"level without words", host("haswell"), level(t, "x86-64-v3"), xsave(), "restores restores unknown unknown unknown"},
		{"level that lacks components", host("host"), level(t, "x86-64-v3"), avx512, "losing:opmask losing:opmask unknown unknown unknown"},
		{"level without XSAVE", host("host"), level(t, "x86-64-v2"), avx512, "xsave-record losing:AVX,opmask unknown unknown unknown"},
		{"level and a short array", nil, level(t, "x86-64-v3"), short, "array-size array-size no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"short array of a component that the host lacks", nil, host("haswell"), xsave(sized(xstate.Opmask, 8)), "array-size array-size no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"short array of a component that nobody knows the host to have", nil, &xstate.CPU{XSave: new(true)}, xsave(sized(xstate.Opmask, 8)), "array-size array-size no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"long array of a component that the host lacks", nil, host("haswell"), xsave(lost(xstate.Opmask), sized(xstate.Opmask, 80)), "restores restores no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"long array that the host has", nil, host("host"), xsave(lost(xstate.Opmask), sized(xstate.Opmask, 80)), "array-size array-size no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"long array with its bit clear", nil, host("host"), xsave(sized(xstate.Opmask, 80)), "restores restores no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"short array on a host without XSAVE", nil, host("nehalem"), short, "xsave-record restores no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"nothing known, FXSAVE record", nil, &xstate.CPU{}, fxsave(), "restores restores no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"nothing known, XSAVE record", nil, &xstate.CPU{}, xsave(), "unknown unknown no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"components unknown", nil, &xstate.CPU{XSave: new(true)}, avx512, "unknown unknown no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"components unknown, none in use", nil, &xstate.CPU{XSave: new(true)}, xsave(), "restores restores no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"components unknown, but for what a flag rules out", nil, &xstate.CPU{XSave: new(true), Flags: []string{"avx", "xsave"}}, avx512, "losing:opmask losing:opmask no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"components unknown, and a long array of one that may be there", nil, &xstate.CPU{XSave: new(true), Flags: []string{"avx", "xsave"}},
			xsave(use(xstate.Opmask, "k1"), lost(xstate.AVX), sized(xstate.AVX, 260)), "unknown unknown no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"a word of the host's is unknown", host("host"), edit(host("host"), func(c *xstate.CPU) {
			c.Capability[10] = 0
			c.UnknownFlags = []string{"xgetbv1", "xsavec", "xsaveopt", "xsaves"}
		}), xsave(), "restores restores unknown unknown unknown"},
		{"a word that is only compared for equality is unknown", host("haswell"), edit(host("haswell"), func(c *xstate.CPU) { c.UnknownFlags = []string{"cqm_llc"} }),
			xsave(), "restores restores restores restores unknown"},
		{"host without sizes", host("haswell"), edit(host("haswell"), noSizes), xsave(), "restores restores unknown unknown unknown"},
		{"host without sizes, source without them too", edit(host("haswell"), noSizes), edit(host("haswell"), noSizes), xsave(), "restores restores restores restores restores"},
		{"source without fields 8 to 10", edit(edit(host("sandybridge"), noSizes), noMask), host("haswell"), xsave(), "restores restores restores restores cpu"},
		{"source without mask, sizes differ", edit(host("haswell"), noMask), host("max"), xsave(), "restores restores xsave-size xsave-size xsave-size"},
		{"source without sizes, mask has more", edit(host("max"), noSizes), host("haswell"), xsave(), "restores restores xfeatures xfeatures xfeatures"},
		{"host without mask", host("haswell"), edit(host("haswell"), noMask), xsave(), "restores restores unknown unknown unknown"},
		{"source of version 1", edit(edit(edit(host("haswell"), version1), noMask), noSizes), host("haswell"), xsave(), "restores restores restores restores restores"},
		{"source of version 1, words differ", edit(edit(edit(host("sandybridge"), version1), noMask), noSizes), host("haswell"), xsave(), "restores restores restores restores cpu"},
		{"source of version 1 has more", edit(edit(edit(host("haswell"), version1), noMask), noSizes), host("sandybridge"), xsave(), "restores restores ins ins ins"},
		{"host of version 1", host("haswell"), edit(host("haswell"), version1), xsave(), "restores restores unknown unknown unknown"},
		{"both of version 1", edit(host("haswell"), version1), edit(host("haswell"), version1), xsave(), "restores restores restores restores restores"},
		{"host without words", host("haswell"), edit(host("haswell"), noWords), xsave(), "restores restores unknown unknown unknown"},
		{"vendor that CRIU does not know", edit(host("haswell"), func(c *xstate.CPU) { c.Vendor = "" }), host("haswell"), xsave(), "restores restores no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"no XSAVE on either side", host("qemu64"), host("nehalem"), fxsave(), "restores restores restores restores cpu"},
		{"no record", nil, host("haswell"), none(), "no-fpregs no-fpregs no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"default PKRU", nil, host("haswell"), xsave(pkru(xstate.DefaultPKRU)), "restores restores no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"PKRU in use", nil, host("haswell"), xsave(pkru(0xfffffff0)), "losing:PKRU losing:PKRU no-cpuinfo no-cpuinfo no-cpuinfo"},
		{"tiles lost at dump", nil, host("host"), xsave(lost(xstate.TileCfg)), "losing:TILECFG losing:TILECFG no-cpuinfo no-cpuinfo no-cpuinfo"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := compat.Judge(onHost(tt.host), compat.Policy{})
			j.Taken(tt.source)
			j.Thread(compat.Thread{State: tt.state})
			var got []string
			for _, c := range compat.Caps() {
				r := j.Predict(c)
				switch {
				case r.Class != nil:
					got = append(got, string(*r.Class))
				case r.Outcome == compat.RestoresLosing:
					got = append(got, "losing:"+strings.Join(r.Loses, ","))
				default:
					got = append(got, string(r.Outcome))
				}
				if r.Loses == nil || (r.Outcome != compat.Restores) != (r.Reason != "") || (r.Outcome == compat.Refuses) != (r.Class != nil) {
					t.Errorf("%s: %+v", c, r)
				}
			}
			if want := strings.Fields(tt.want); !slices.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

// TestUnparseable is CRIU's order: the core images are read after cpuinfo.img was
// compared.
func TestUnparseable(t *testing.T) {
	haswell := openImage(t, hostImage["haswell"]).CPUInfo.CPU()
	judged := func(source *xstate.CPU) *compat.Judgement {
		j := compat.Judge(onHost(haswell), compat.Policy{})
		j.Taken(source)
		j.Damage(compat.Images)
		return j
	}
	for _, c := range compat.Caps() {
		if r := judged(haswell).Predict(c); r.Class == nil || *r.Class != compat.ClassUnparseable {
			t.Errorf("%s: %+v", c, r)
		}
	}
	if r := judged(nil).Predict(compat.CapFPU); r.Class == nil || *r.Class != compat.ClassNoCPUInfo {
		t.Errorf("fpu without cpuinfo.img: %+v", r)
	}
}

// FuzzDecide holds arbitrary states against arbitrary machines: nothing panics, and
// what was forced fits, unless it is damaged beyond force.
func FuzzDecide(f *testing.F) {
	f.Add(uint8(2), uint64(0xe7), uint32(0x1f80), uint32(0xffff), uint32(0x55555554), []byte{1, 2, 3}, uint64(7), true, true, uint32(0), true, uint8(3))
	f.Add(uint8(2), uint64(0x600e7), uint32(0x21f80), uint32(0), uint32(0xf0), []byte{}, uint64(0x207), true, true, uint32(0xffff), false, uint8(2))
	f.Add(uint8(0), uint64(0), uint32(0), uint32(0), uint32(0), []byte{9}, uint64(0), true, false, uint32(0xffbf), true, uint8(1))
	f.Add(uint8(1), uint64(1)<<63, ^uint32(0), uint32(0xffbf), uint32(3), []byte{255, 0, 128}, ^uint64(0), false, false, uint32(2), false, uint8(0))
	f.Fuzz(func(t *testing.T, format uint8, bv uint64, mxcsr, mask, pkru uint32, data []byte, usable uint64, fx, xs bool, hostMask uint32, known bool, to uint8) {
		s := xstate.NewState(xstate.Format(format % 3))
		s.FX.SetMXCSR(mxcsr)
		s.FX.SetMXCSRMask(mask)
		if s.Format == xstate.FormatXSave {
			s.BV = xstate.Features(bv)
			for i, b := range data { // which arrays there are, and how long
				feature := xstate.Feature(i%18 + 2)
				size := feature.Component().Size
				switch b % 4 {
				case 1:
					s.SetData(feature, make([]byte, size))
				case 2:
					s.SetData(feature, slices.Repeat([]byte{b}, size))
				case 3:
					s.SetData(feature, slices.Repeat([]byte{b}, int(b)))
				}
			}
			if pkru&1 == 0 {
				s.SetData(xstate.PKRU, []byte{byte(pkru), byte(pkru >> 8), byte(pkru >> 16), byte(pkru >> 24), 0, 0, 0, 0})
			}
			if pkru&2 == 0 {
				s.ShadowStack = &xstate.ShadowStack{Status: uint64(pkru >> 2), SSP: 1}
			}
		}
		host := &xstate.CPU{Name: "fuzz", FXSave: &fx, XSave: &xs, XFeatures: new(xstate.Features(usable)),
			XFeaturesHW: new(xstate.Features(usable)), XSaveSize: &mask, XSaveSizeMax: &mxcsr}
		if known {
			host.MXCSRMask, host.Flags = &hostMask, []string{"fxsr", "xsave"}
			host.Capability = slices.Repeat([]uint32{mxcsr ^ pkru}, xstate.CapabilityWords)
		}
		target := compat.Target{Host: host}
		if to < 3 {
			target.Format = new(xstate.Format(to))
		}
		compared(host, &xstate.CPU{})
		for _, source := range []*xstate.CPU{nil, {}, host, {Vendor: "intel", Capability: make([]uint32, 12)}} {
			j := compat.Judge(target, compat.Policy{Force: true})
			j.Taken(source)
			j.Thread(compat.Thread{State: s})
			for _, c := range compat.Caps() {
				j.Predict(c)
			}
			if source != nil {
				j.Adapt(xstate.CPURecord{Capability: source.Capability, XFeaturesMask: &usable})
			}
		}
		plain, forced := compat.Decide(s, target, compat.Policy{}), compat.Decide(s, target, compat.Policy{Force: true})
		if plain.Verdict != forced.Verdict {
			t.Fatalf("verdict %v, forced %v", plain.Verdict, forced.Verdict)
		}
		if fmt.Sprint(plain.Lost) != fmt.Sprint(forced.Lost) {
			t.Fatalf("lost %v, forced %v", plain.Lost, forced.Lost)
		}
		if plain.Refused != (plain.Verdict != compat.Compatible) {
			t.Fatalf("refused %v with verdict %v", plain.Refused, plain.Verdict)
		}
		if forced.Refused {
			if forced.Verdict != compat.Damaged {
				t.Fatalf("force refused for %v", forced.Verdict)
			}
			return
		}
		out := forced.Apply(s)
		target.Format = nil
		if again := compat.Decide(out, target, compat.Policy{}); again.Verdict != compat.Compatible {
			t.Fatalf("after force: %v, %+v", again.Verdict, again.Findings)
		}
	})
}
