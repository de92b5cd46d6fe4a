package xstate

import (
	"reflect"
	"testing"
)

func TestLayouts(t *testing.T) {
	odd := Layout{{AVX, 1024, 256, false}}
	tests := []struct {
		name string
		cpu  CPU
		want []Layout
	}{
		{"nothing known", CPU{}, nil},
		{"recorded", CPU{Layout: odd, XFeatures: new(Features(7)), XSaveSize: new(uint32(832))}, []Layout{odd}},
		{"an AMD that packs as Intel does", CPU{Vendor: "amd", XFeatures: new(Features(0x207)), XSaveSize: new(uint32(2696))}, []Layout{IntelLayout(0x207)}},
		{"AMD", CPU{Vendor: "amd", XFeatures: new(Features(0x207)), XSaveSize: new(uint32(2440))}, []Layout{AMDLayout(0x207)}},
		{"the kernel has not enabled all", CPU{XFeatures: new(Features(0x207)), XFeaturesHW: new(Features(0x207)), XSaveSize: new(uint32(832)), XSaveSizeMax: new(uint32(2440))}, []Layout{AMDLayout(0x207)}},
		{"no size", CPU{XFeatures: new(Features(0xe7))}, []Layout{IntelLayout(0xe7), AMDLayout(0xe7)}},
		{"no size, AMD", CPU{Vendor: "amd", XFeatures: new(Features(0xe7))}, []Layout{AMDLayout(0xe7), IntelLayout(0xe7)}},
		{"a size that no machine has", CPU{XFeatures: new(Features(0xe7)), XFeaturesHW: new(Features(0xe7)), XSaveSize: new(uint32(2700)), XSaveSizeMax: new(uint32(2700))}, nil},
	}
	for _, tt := range tests {
		if got := tt.cpu.Layouts(); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestCPU(t *testing.T) {
	yes, no := new(true), new(false)
	tests := []struct {
		name        string
		cpu         CPU
		format      Format
		formatKnown bool
		usable      Features
		usableKnown bool
	}{
		{"nothing known", CPU{}, FormatNone, false, Legacy, false},
		{"xsave", CPU{XSave: yes, XFeatures: new(Features(0x205))}, FormatXSave, true, 0x207, true},
		{"xsave, features unknown", CPU{XSave: yes}, FormatXSave, true, Legacy, false},
		{"no xsave", CPU{XSave: no}, FormatFXSave, true, Legacy, true},
		{"no xsave, whatever the features", CPU{XSave: no, FXSave: yes, XFeatures: new(Features(7))}, FormatFXSave, true, Legacy, true},
		{"no fxsave", CPU{FXSave: no}, FormatNone, true, 0, true},
		{"fxsave only known", CPU{FXSave: yes}, FormatNone, false, Legacy, false},
	}
	for _, tt := range tests {
		if f, known := tt.cpu.Format(); f != tt.format || known != tt.formatKnown {
			t.Errorf("%s: format %v, %v, want %v, %v", tt.name, f, known, tt.format, tt.formatKnown)
		}
		if set, known := tt.cpu.Usable(); set != tt.usable || known != tt.usableKnown {
			t.Errorf("%s: usable %v, %v, want %v, %v", tt.name, set, known, tt.usable, tt.usableKnown)
		}
	}
	cpu := &CPU{Flags: []string{"avx", "avx2", "sse"}, UnknownFlags: []string{"fma"}}
	for _, tt := range []struct {
		cpu        *CPU
		flag       string
		has, known bool
	}{{cpu, "avx2", true, true}, {cpu, "avx5", false, true}, {cpu, "fma", false, false}, {&CPU{}, "avx", false, false}, {nil, "avx", false, false}} {
		if has, known := tt.cpu.HasFlag(tt.flag); has != tt.has || known != tt.known {
			t.Errorf("%s: %v, %v, want %v, %v", tt.flag, has, known, tt.has, tt.known)
		}
	}
}

func TestPossible(t *testing.T) {
	flags := []string{"avx", "fpu", "fxsr", "sse", "xsave"}
	tests := []struct {
		name       string
		cpu        CPU
		has, lacks Features
	}{
		{"nothing known", CPU{}, ^Features(0), 0},
		{"mask known", CPU{XSave: new(true), XFeatures: new(Features(7)), Flags: []string{}}, 7, ^Features(7)},
		{"flags known", CPU{XSave: new(true), Flags: flags}, 7, AVX512 | AMX | PKRU.Mask() | BNDREGS.Mask()},
		{"avx512f unknown", CPU{XSave: new(true), Flags: flags, UnknownFlags: []string{"avx512f"}}, 7 | AVX512, PKRU.Mask()},
		{"no XSAVE", CPU{XSave: new(false)}, Legacy, ^Legacy},
	}
	for _, tt := range tests {
		if got := tt.cpu.Possible(); got&tt.has != tt.has || got&tt.lacks != 0 {
			t.Errorf("%s: %v, want %v and none of %v", tt.name, got, tt.has, tt.lacks)
		}
	}
}
