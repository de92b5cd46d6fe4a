package cpuid

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/fpuimg/fpuimg/codec/xstate"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// readForms returns the files of testdata/forms, by name.
func readForms(t testing.TB) map[string][]byte {
	paths, _ := filepath.Glob("testdata/forms/*")
	out := map[string][]byte{}
	for _, path := range paths {
		if !strings.HasSuffix(path, ".golden.json") {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			out[filepath.Base(path)] = b
		}
	}
	return out
}

// TestParse holds every form against the profile that it stands for, which reads back
// as the same machine.
func TestParse(t *testing.T) {
	forms := readForms(t)
	if len(forms) < 10 {
		t.Fatalf("%d forms", len(forms))
	}
	for name, b := range forms {
		t.Run(name, func(t *testing.T) {
			c, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := marshalProfile(c)
			if err != nil {
				t.Fatal(err)
			}
			testcmd.Golden(t, filepath.Join("testdata", "forms", name+".golden.json"), doc)
			if back, err := Parse(doc); err != nil || !reflect.DeepEqual(back, c) {
				t.Errorf("%v\n%+v\nwas\n%+v", err, back, c)
			}
		})
	}
}

// TestParsed is what matters of the forms, said independently of the goldens.
func TestParsed(t *testing.T) {
	forms := readForms(t)
	tests := []struct {
		file                string
		vendor              string
		usable              xstate.Features
		size                int // 0: unknown
		has, lacks, unknown string
	}{
		{"haswell.cpuinfo", "intel", 7, 0, "avx2 fma osxsave cpuid", "avx512f pku sse4a xsavec", "sha512 avx_ifma"},
		{"skylake.cpuinfo", "intel", 0x2ff, 0, "avx512f pku ospke mpx", "amx_tile", "cmpccxadd"},
		{"epyc7002.lscpu", "amd", 7, 0, "sse4a clzero xsavec", "avx512f mpx", "sha512"},
		{"turin.lscpu.json", "amd", 0xe7, 0, "avx512_vp2intersect", "pku", "sha512"},
		{"skylakex.aida64", "intel", 0xff, 2688, "avx512f mpx xsaves", "pku", ""},
		{"skylakex.capture", "intel", 0xff, 2688, "avx512f mpx xsaves", "pku", ""},
		{"partial.kcpuid", "intel", 0xff, 2688, "avx avx512f mpx xsavec osxsave", "pku", "sse4_2 syscall"},
		{"spr-nosub.cpuid", "intel", 0x600e7, 11008, "avx amx_tile xsaves", "mpx ospke", "xsavec xsaveopt"},
		{"ivb-noavx.cpuid", "intel", 3, 576, "sse4_2 osxsave", "avx f16c", "xsaveopt"},
		{"turin.ldso", "amd", 0xe7, 0, "avx512f avx512_vp2intersect", "pku mpx", "arat"},
		{"cascadelake.criulog", "intel", 0x2e7, 2696, "avx512f pku ospke avx xsavec", "mpx amx_tile", "avx2 sse4_2 avx512bw"},
		{"spr.criulog", "intel", 0x602e7, 11008, "avx512f amx_tile", "mpx", "avx2"},
		{"nehalem.criulog", "intel", 0, 0, "fxsr", "xsave avx avx512f", "sse4_2"},
		{"icelake.dmesg", "intel", 0x2e7, 0, "avx512f pku", "mpx amx_tile", "avx2"},
		{"sandybridge.dmesg", "intel", 7, 832, "avx", "avx512f pku", "avx2"},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			c, err := Parse(forms[tt.file])
			if err != nil {
				t.Fatal(err)
			}
			if c.Vendor != tt.vendor || c.XFeatures == nil || *c.XFeatures != tt.usable || orZero(c.XSaveSize) != tt.size {
				t.Errorf("vendor %q, components %v, size %d", c.Vendor, c.XFeatures, orZero(c.XSaveSize))
			}
			for _, list := range []struct {
				names      string
				has, known bool
			}{{tt.has, true, true}, {tt.lacks, false, true}, {tt.unknown, false, false}} {
				for name := range strings.FieldsSeq(list.names) {
					if has, known := c.HasFlag(name); has != list.has || known != list.known {
						t.Errorf("%s: has %v, known %v", name, has, known)
					}
				}
			}
		})
	}
}

// TestParseAsFound has what users do to such texts.
func TestParseAsFound(t *testing.T) {
	forms := readForms(t)
	utf16Text := func(b []byte, order []byte) []byte {
		out := slices.Clone(order)
		for _, u := range utf16.Encode([]rune(string(b))) {
			if order[0] == 0xff {
				out = append(out, byte(u), byte(u>>8))
			} else {
				out = append(out, byte(u>>8), byte(u))
			}
		}
		return out
	}
	for name, b := range forms {
		want, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		variants := map[string][]byte{
			"UTF-8 with a mark": append([]byte("\xef\xbb\xbf"), b...),
			"UTF-16LE":          utf16Text(b, []byte{0xff, 0xfe}),
			"UTF-16BE":          utf16Text(b, []byte{0xfe, 0xff}),
			"CRLF":              []byte(strings.ReplaceAll(text, "\n", "\r\n")),
		}
		if !strings.HasSuffix(name, ".json") {
			variants["other lines"] = []byte("$ ssh node ...\nWarning: Permanently added 'node' to the list of known hosts.\n" + text + "$ \n")
		}
		for variant, b := range variants {
			if got, err := Parse(b); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %s: %v\n%+v\nwant\n%+v", name, variant, err, got, want)
			}
		}
	}
	cpuinfo := string(forms["haswell.cpuinfo"])
	first, _, _ := strings.Cut(cpuinfo, "\n\n")
	whole, err := Parse([]byte(cpuinfo))
	if err != nil {
		t.Fatal(err)
	}
	german := strings.NewReplacer("vendor_id", "Anbieterkennung", "flags\t", "Markierungen").Replace(first)
	_, flags, _ := strings.Cut(first, "flags")
	for _, tt := range []struct{ name, text string }{
		{"one CPU", first + "\n"}, {"a broken line", strings.Replace(first, " ssse3 ", "\nssse3 ", 1)},
		{"translated", german}, {"its line flags alone", "flags" + flags},
	} {
		c, err := Parse([]byte(tt.text))
		if err != nil || !slices.Equal(c.Flags, whole.Flags) || *c.XFeatures != *whole.XFeatures {
			t.Errorf("%s: %v\n%+v", tt.name, err, c)
		}
	}
	// A machine of unlike CPUs has what both have.
	c, err := Parse([]byte(cpuinfo + string(forms["skylake.cpuinfo"])))
	if err != nil || *c.XFeatures != 7 || c.Vendor != "intel" || c.Model != nil || c.ModelName != "" || c.Name != "" {
		t.Errorf("%v, %+v", err, c)
	}
	if has, known := c.HasFlag("avx512f"); has || !known {
		t.Error("avx512f of one of them")
	}
}

// TestParseLdSoProcessors is the form of glibc from 2.39 on: every leaf, of the CPUs
// after the first only what differs.
func TestParseLdSoProcessors(t *testing.T) {
	rec := loadDump(t, "turin")
	want := CPU(rec)
	var b strings.Builder
	b.WriteString("dl_platform=\"x86_64\"\nx86.cpu_features.basic.kind=0x2\nx86.cpu_features.features[0x0].cpuid[0x0]=0xb00f21\n")
	put := func(n int, l Leaf, r Regs) {
		at := fmt.Sprintf("x86.processor[%#x].cpuid.eax[%#x]", n, l.EAX)
		if l.EAX == 7 || l.EAX == 0xd || l.EAX == 0xf {
			at = fmt.Sprintf("x86.processor[%#x].cpuid.subleaf_eax[%#x].ecx[%#x]", n, l.EAX, l.ECX)
		}
		fmt.Fprintf(&b, "%s.eax=%#x\n%s.ebx=%#x\n%s.ecx=%#x\n%s.edx=%#x\n", at, r.EAX, at, r.EBX, at, r.ECX, at, r.EDX)
	}
	b.WriteString("x86.processor[0x0].requested=0x0\n")
	for _, l := range slices.SortedFunc(maps.Keys(rec), func(a, b Leaf) int { return int(int64(a.EAX) - int64(b.EAX)) }) {
		if rec[l] != (Regs{}) {
			put(0, l, rec[l])
		}
	}
	b.WriteString("x86.processor[0x0].xgetbv.ecx[0x0]=0xe7\n")
	if got, err := Parse([]byte(b.String())); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v\n%+v\nwant\n%+v", err, got, want)
	}
	// The second lacks AVX-512, and so does the machine.
	seven := rec[Leaf{7, 0}]
	seven.EBX &^= 1 << 16
	put(1, Leaf{7, 0}, seven)
	c, err := Parse([]byte(b.String()))
	if has, _ := c.HasFlag("avx512f"); err != nil || has || *c.Family != *want.Family {
		t.Errorf("%v, %+v", err, c)
	}
	put(7, Leaf{7, 0}, seven)
	if _, err := Parse([]byte(b.String())); err == nil {
		t.Error("a processor out of turn")
	}
}

// TestParseRefuses: what is something else is named, with what to do.
func TestParseRefuses(t *testing.T) {
	tests := []struct{ name, text, want, hint string }{
		{"empty", "\n", "nothing in it", ""},
		{"cpuid without -r", "CPU 0:\n   vendor_id = \"GenuineIntel\"\n   version information (1/eax):\n", "made without -r", "cpuid -1 -r"},
		{"ARM", "processor\t: 0\nBogoMIPS\t: 38.40\nFeatures\t: fp asimd evtstrm aes\nCPU implementer\t: 0x41\nCPU architecture: 8\n", "ARM", ""},
		{"lscpu of ARM", "Architecture:          aarch64\nCPU op-mode(s):        32-bit, 64-bit\nVendor ID:             ARM\nFlags:                 fp asimd\n", "ARM", ""},
		{"RISC-V", "processor\t: 0\nhart\t\t: 0\nisa\t\t: rv64imafdc\n", "RISC-V", ""},
		{"POWER", "processor\t: 0\ncpu\t\t: POWER9, altivec supported\n", "PowerPC", ""},
		{"IBM Z", "vendor_id       : IBM/S390\n# processors    : 3\nfeatures\t: esan3 zarch\n", "IBM Z", ""},
		{"LoongArch", "system type\t\t: generic-loongson-machine\n\nprocessor\t\t: 0\nModel Name\t\t: Loongson-3A5000-HV\n", "LoongArch", ""},
		{"SPARC", "cpu\t\t: TI UltraSparc II\ncpucaps\t\t: flush,stbar\n", "SPARC", ""},
		{"ld.so of ARM", "dl_platform=\"aarch64\"\nuname.machine=\"aarch64\"\n", "no x86", ""},
		{"ld.so --help", "Subdirectories of glibc-hwcaps directories, in priority order:\n  x86-64-v4\n  x86-64-v3 (supported, searched)\n", "level", "--host=x86-64-v3"},
		{"libvirt", "<domain type='kvm'>\n  <cpu mode='host-model'/>\n</domain>\n", "libvirt", "in the guest"},
		{"virsh domcapabilities", "<domainCapabilities>\n", "libvirt", "in the guest"},
		{"qemu -cpu help", "Available CPUs:\n  486                   (alias configured by machine type)\n", "QEMU", "in the guest"},
		{"coreinfo", "Coreinfo v3.6 - Dump information on system CPU and memory topology\nAVX *\n", "Windows", "AIDA64"},
		{"sysctl", "machdep.cpu.features: FPU VME DE\n", "macOS", ""},
		{"BSD", "CPU: Intel(R)\n  Features=0xbfebfbff<FPU,VME,DE>\n", "BSD", "cpucontrol"},
		{"lscpu without flags", "Architecture:          x86_64\nVendor ID:             GenuineIntel\n", "without its line Flags", "/proc/cpuinfo"},
		{"cpuinfo cut off", "processor\t: 0\nvendor_id\t: GenuineIntel\n", "without its line flags", "whole"},
		{"quiet CRIU log", "(00.000081) Version: 3.17.1 (gitid 0)\n(00.301290) Error (x.c:1): no\n", "does not say", "-v4"},
		{"kernel log without it", "[    0.0] x86/fpu: Probing\n", "does not say", "x86/fpu"},
		{"JSON", `{"a":1}`, "unknown field", ""},
		{"a line without end", strings.Repeat("x", 70000), "line 1: longer than 64 KiB", ""},
		{"prose", "The quick brown fox.\n", "line 1: neither", ""},
		{"a damaged leaf", "CPU:\n   0x00000000 0x00: eax=0x00000001 ebx=0x0\n", "line 2", ""},
		{"ld.so cut off", "x86.cpu_features.basic.kind=0x2\nx86.cpu_features.features[0x0].cp", "is whole", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse([]byte(tt.text))
			if err == nil {
				t.Fatalf("read as %+v", c)
			}
			text, _ := errors.AsType[*TextError](err)
			if !strings.Contains(err.Error(), tt.want) || tt.hint != "" && (text == nil || !strings.Contains(text.Hint, tt.hint)) {
				t.Errorf("%v (%+v)", err, text)
			}
		})
	}
	if _, err := Parse(make([]byte, maxText+1)); err == nil {
		t.Error("any size is accepted")
	}
	long := append(readForms(t)["cascadelake.criulog"], make([]byte, maxText)...)
	if _, err := Parse(long); err != nil {
		t.Errorf("a long log of CRIU: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range readForms(f) {
		f.Add(b)
	}
	f.Add([]byte("\xff\xfef\x00p\x00"))
	f.Add([]byte(`{"lscpu":[{"field":"Flags:","data":"fpu tsc sse lm","children":[{"field":"Model:","data":"300"}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			text, isText := errors.AsType[*TextError](err)
			_, isProfile := errors.AsType[*ProfileError](err)
			if !isProfile && (!isText || text.Reason == "") {
				t.Fatalf("error %v of type %T", err, err)
			}
			return
		}
		doc, err := marshalProfile(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseProfile(doc); err != nil && !strings.Contains(err.Error(), "components[") && !strings.Contains(err.Error(), "xsave_size") {
			t.Fatalf("%v\n%s", err, doc) // a dump may claim any size and place
		}
		Common(c, c)
	})
}
