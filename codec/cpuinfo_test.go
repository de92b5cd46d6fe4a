package codec_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// TestMarshalCPUInfo writes the machine that each cpuinfo.img describes: the bytes
// are CRIU's own.
func TestMarshalCPUInfo(t *testing.T) {
	for _, path := range testimg.Glob(t, "*/cpuinfo.img") {
		t.Run(testimg.Name(t, path), func(t *testing.T) {
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			info, err := codec.ParseCPUInfo(path, want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := codec.MarshalCPUInfo(info.CPU())
			if err != nil {
				t.Fatal(err)
			}
			if magic := binary.LittleEndian.Uint32(want); magic != binary.LittleEndian.Uint32(got) {
				got = got[4:] // an image of version 1.0 has no common magic
			}
			if !bytes.Equal(got, want) {
				t.Errorf("wrote\n%x\nCRIU\n%x", got, want)
			}
		})
	}
}

// TestMarshalRecorded writes a cpuinfo.img for each recorded CPU; what it says is
// read back, and a CRIU on that CPU accepts it.
func TestMarshalRecorded(t *testing.T) {
	dumps, err := filepath.Glob("cpuid/testdata/*.cpuid")
	if err != nil || len(dumps) < 6 {
		t.Fatalf("%d recorded CPUs, %v", len(dumps), err)
	}
	for _, path := range dumps {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".cpuid"), func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			dump, err := cpuid.ParseDump(b)
			if err != nil {
				t.Fatal(err)
			}
			cpu := cpuid.CPU(dump[0])
			img, err := codec.MarshalCPUInfo(cpu)
			if err != nil {
				t.Fatal(err)
			}
			info, err := codec.ParseCPUInfo("cpuinfo.img", img)
			if err != nil {
				t.Fatal(err)
			}
			back := info.CPU()
			for _, f := range []struct {
				name      string
				got, want any
			}{
				{"vendor", back.Vendor, cpu.Vendor}, {"family", back.Family, cpu.Family}, {"model", back.Model, cpu.Model},
				{"stepping", back.Stepping, cpu.Stepping}, {"model_name", back.ModelName, cpu.ModelName},
				{"fxsave", back.FXSave, cpu.FXSave}, {"xsave", back.XSave, cpu.XSave},
				{"xsave_size", back.XSaveSize, cpu.XSaveSize}, {"xsave_size_max", back.XSaveSizeMax, cpu.XSaveSizeMax},
				{"capability", back.Capability, cpu.Capability},
			} {
				if !reflect.DeepEqual(f.got, f.want) {
					t.Errorf("%s: %v, was %v", f.name, f.got, f.want)
				}
			}
			// CRIU takes CPUID's word where the kernel has a component switched off.
			if lacks := *cpu.XFeatures &^ *back.XFeatures; lacks != 0 {
				t.Errorf("%v is gone", lacks)
			}
			mask, _ := cpu.CRIUMask()
			if *info.XFeaturesMask != mask || mask&(1<<xstate.SSE|1<<xstate.BNDREGS|1<<8) != 0 || mask>>11 != 0 {
				t.Errorf("xfeatures_mask %#x, want %#x", *info.XFeaturesMask, mask)
			}
			again, err := codec.MarshalCPUInfo(back)
			if err != nil || !bytes.Equal(again, img) {
				t.Errorf("written again, it differs: %v", err)
			}
		})
	}
}

// TestMarshalCPUInfoRefuses: what CRIU must have and a profile may lack.
func TestMarshalCPUInfoRefuses(t *testing.T) {
	whole := func() *xstate.CPU {
		b := testimg.Read(t, "g-haswell-criu42-sse", "cpuinfo.img")
		info, err := codec.ParseCPUInfo("cpuinfo.img", b)
		if err != nil {
			t.Fatal(err)
		}
		return info.CPU()
	}
	level, _ := xstate.ByName("x86-64-v3")
	tests := []struct {
		lacks string
		cpu   *xstate.CPU
		edit  func(*xstate.CPU)
	}{
		{"family", whole(), func(c *xstate.CPU) { c.Family = nil }},
		{"family", level, func(*xstate.CPU) {}},
		{"words", whole(), func(c *xstate.CPU) { c.Capability = c.Capability[:12] }},
		{"sizes", whole(), func(c *xstate.CPU) { c.XSaveSize = nil }},
		{"xfeatures_mask", whole(), func(c *xstate.CPU) { c.XFeatures, c.XFeaturesHW = nil, nil }},
		{"vendor", whole(), func(c *xstate.CPU) { c.Vendor = "zhaoxin" }},
	}
	for _, tt := range tests {
		tt.edit(tt.cpu)
		if _, err := codec.MarshalCPUInfo(tt.cpu); err == nil || !strings.Contains(err.Error(), tt.lacks) {
			t.Errorf("without %s: %v", tt.lacks, err)
		}
	}
}
