package cpuid

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/fpuimg/fpuimg/codec/xstate"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// recorded is every dump in testdata with what is known of its machine from
// elsewhere: the manuals and published dumps for the synthetic ones, the kernel
// log of the guest (a qemu CPU model) for the others. image is a directory of
// testdata/images that CRIU dumped on the same CPU.
var recorded = []struct {
	name, vendor string
	usable       xstate.Features
	size         uint32 // of the enabled components, 0 without XSAVE
	end          int    // of the highest enabled component
	has, lacks   string
	image        string
}{
	{"turin", "amd", 0xe7, 2432, 2432, "avx512f avx512_bf16 avx_vnni xsavec", "xsaves pku amx_tile", ""},
	{"spr", "intel", 0x602e7, 11008, 11008, "amx_tile amx_int8 pku ospke xfd user_shstk avx512_fp16", "mpx 3dnow", ""},
	{"zen2", "amd", 7, 832, 832, "avx2 xsavec sse4a clzero", "pku ospke avx512f", ""},
	{"qemu64", "amd", 0, 0, 576, "fxsr sse2 cx16", "xsave osxsave avx", "g-qemu64-criu42-auto"},
	{"nehalem", "intel", 0, 0, 576, "sse4_2 popcnt", "xsave avx", "g-nehalem-criu42-auto"},
	{"sandybridge", "intel", 7, 832, 832, "avx xsave osxsave", "avx2 fma xsavec", "g-sandybridge-criu42-auto"},
	{"haswell", "intel", 7, 832, 832, "avx2 fma bmi2", "xsavec avx512f pku", "g-haswell-criu42-sse"},
	{"epyc", "amd", 7, 832, 832, "avx2 sse4a", "pku xsaves", "g-epyc-criu42-auto"},
	{"epycmilan", "amd", 0x207, 2696, 2696, "avx2 pku ospke", "avx512f mpx", "g-epycmilan-criu42-auto"},
	{"max", "amd", 0x21f, 2696, 2696, "mpx pku avx2", "avx512f xsaves", "g-max-criu42-auto"},
	{"maxnopku", "amd", 7, 832, 832, "avx2", "pku mpx", "g-maxnopku-criu42-sse"},
	// The same CPU under kernels that keep things to themselves; leaf 0xd tells a
	// recorded CPU only part of it.
	{"max-noxsave", "amd", 0, 576, 576, "fxsr sse4_2 bmi2", "xsave osxsave avx avx2 fma f16c pku mpx", ""},
	{"max-clearpku", "amd", 0x1f, 1088, 1088, "mpx avx2", "pku ospke", ""},
}

func loadDump(t testing.TB, name string) Recorded {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".cpuid"))
	if err != nil {
		t.Fatal(err)
	}
	rec, err := ParseDump(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(rec) != 1 {
		t.Fatalf("%d CPUs", len(rec))
	}
	return rec[0]
}

func TestRecorded(t *testing.T) {
	for _, tt := range recorded {
		t.Run(tt.name, func(t *testing.T) {
			c := CPU(loadDump(t, tt.name))
			if c.Vendor != tt.vendor {
				t.Errorf("vendor %q, want %q", c.Vendor, tt.vendor)
			}
			if *c.XFeatures != tt.usable {
				t.Errorf("usable %v, want %v", *c.XFeatures, tt.usable)
			}
			if *c.XSaveSize != tt.size {
				t.Errorf("xsave_size %d, want %d", *c.XSaveSize, tt.size)
			}
			if c.Layout == nil {
				t.Error("layout unknown")
			}
			if got := c.Layout.End(*c.XFeatures); got != tt.end {
				t.Errorf("components end at %d, want %d", got, tt.end)
			}
			for _, p := range c.Layout {
				if comp := p.Feature.Component(); comp.Size != p.Size || comp.Align64 != p.Align64 {
					t.Errorf("%+v differs from the table", p)
				}
			}
			for name := range strings.FieldsSeq(tt.has) {
				if has, _ := c.HasFlag(name); !has {
					t.Errorf("lacks %s", name)
				}
			}
			for name := range strings.FieldsSeq(tt.lacks) {
				if has, _ := c.HasFlag(name); has {
					t.Errorf("has %s", name)
				}
			}
			for _, name := range c.Flags {
				f, ok := xstate.LookupFlag(name)
				if !ok {
					t.Errorf("flag %q is not in the table", name)
				}
				for dep := range f.Depends() {
					if has, _ := c.HasFlag(dep); !has && !strings.HasPrefix(dep, "xsaves") {
						t.Errorf("%s without %s", name, dep)
					}
				}
			}
			if c.MXCSRMask != nil {
				t.Errorf("MXCSR mask %#x: CPUID does not have it", *c.MXCSRMask)
			}
		})
	}
}

func TestProfileGolden(t *testing.T) {
	for _, tt := range recorded {
		t.Run(tt.name, func(t *testing.T) {
			c := CPU(loadDump(t, tt.name))
			c.Name = tt.name
			got, err := marshalProfile(c)
			if err != nil {
				t.Fatal(err)
			}
			testcmd.Golden(t, filepath.Join("testdata", tt.name+".json"), got)
		})
	}
}

// cpuinfo is the part of a cpuinfo.img that describes the CPU.
type cpuinfo struct {
	num   map[protowire.Number]uint64
	model string
	words []uint32
}

func readCPUInfo(t *testing.T, path string) cpuinfo {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, _, n := protowire.ConsumeField(b[12:]) // two magics and the length word
	m, n := protowire.ConsumeBytes(b[13:][:n-1])
	if n < 0 {
		t.Fatalf("%s: %v", path, protowire.ParseError(n))
	}
	info := cpuinfo{num: map[protowire.Number]uint64{}}
	for len(m) > 0 {
		num, typ, n := protowire.ConsumeTag(m)
		m = m[n:]
		switch typ {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(m)
			m = m[n:]
			if num == 6 {
				info.words = append(info.words, uint32(v))
			} else {
				info.num[num] = v
			}
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(m)
			info.model, m = string(v), m[n:]
		default:
			t.Fatalf("%s: field %d of type %d", path, num, typ)
		}
	}
	return info
}

// A CPU read from its CPUID answers and CRIU's record of the same CPU agree in
// every field, so what CRIU 4.2 compares can be predicted from a dump.
func TestCRIUAgrees(t *testing.T) {
	for _, tt := range recorded {
		if tt.image == "" {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			info := readCPUInfo(t, filepath.Join("..", "..", "testdata", "images", tt.image, "cpuinfo.img"))
			c := CPU(loadDump(t, tt.name))
			if !slices.Equal(c.Capability, info.words) {
				for i, w := range info.words {
					if d := w ^ c.Capability[i]; d != 0 {
						t.Errorf("word %d: %#x, CRIU has %#x", i, c.Capability[i], w)
					}
				}
			}
			if c.ModelName != info.model {
				t.Errorf("model name %q, CRIU has %q", c.ModelName, info.model)
			}
			mask, known := c.CRIUMask()
			if !known || mask != info.num[8] {
				t.Errorf("xfeatures_mask %#x (%v), CRIU has %#x", mask, known, info.num[8])
			}
			if back := xstate.FromCRIUMask(info.num[8], info.words); back != *c.XFeatures {
				t.Errorf("CRIU's mask reads as %v, usable are %v", back, *c.XFeatures)
			}
			for _, f := range []struct {
				name string
				got  int
				want uint64
			}{
				{"family", *c.Family, info.num[2]}, {"model", *c.Model, info.num[3]}, {"stepping", *c.Stepping, info.num[4]},
				{"xsave_size", orZero(c.XSaveSize), info.num[9]}, {"xsave_size_max", orZero(c.XSaveSizeMax), info.num[10]},
				{"vendor", map[string]int{"intel": 1, "amd": 2}[c.Vendor], info.num[1]},
			} {
				if uint64(f.got) != f.want {
					t.Errorf("%s %d, CRIU has %d", f.name, f.got, f.want)
				}
			}
		})
	}
}

func orZero(v *uint32) int {
	if v == nil {
		return 0
	}
	return int(*v)
}

func TestParseDump(t *testing.T) {
	const ok = "CPU:\n   0x00000000 0x00: eax=0x00000001 ebx=0x00000000 ecx=0x00000000 edx=0x00000000\n"
	tests := []struct {
		name, in string
		line     int // of the error; 0: the dump as a whole; -1: none
	}{
		{"one", ok, -1},
		{"several CPUs", "CPU 0:\n" + ok[5:] + "CPU 11:\n" + strings.Replace(ok[5:], "0001", "0002", 1), -1},
		{"no heading, comment", "# from a colleague\n" + ok[5:], -1},
		{"CRLF", strings.ReplaceAll(ok, "\n", "\r\n"), -1},
		{"old form without sub-leaf", "CPU:\n   0x00000000: eax=0x00000001 ebx=0x00000000 ecx=0x00000000 edx=0x00000000\n", -1},
		{"empty", "", 0},
		{"no leaf 0", "CPU:\n", 0},
		{"JSON", `{"schema":"fpuimg.profile/1"}`, 1},
		{"decoded output", "CPU:\n   vendor_id = \"GenuineIntel\"\n", 2},
		{"cut off", ok + "   0x00000001 0x00: eax=0x00000001 ebx=0x0", 3},
		{"register order", strings.Replace(ok, "ebx", "edx", 1), 2},
		{"no hex", strings.Replace(ok, "0x00000001", "1", 1), 2},
		{"33 bits", strings.Replace(ok, "0x00000001", "0x100000001", 1), 2},
		{"a later CPU is garbled", ok + "CPU 1:\ngarbage\n", 4},
		{"a line without end", ok + strings.Repeat("x", 70000), 3},
		{"other lines before", "cpuid: unable to setaffinity to cpu 0\nWarning: x\n" + ok, -1},
		{"other lines after", ok + "$ exit\n", -1},
		{"sub-leaf of nothing known", "  1: EAX=0x1, EBX=0x2, ECX=0x3\n" + ok, 1},
		{"AIDA64, cut off", "CPUID 00000000: 00000001-00000000-0000", 1},
		{"binary", "\x19CVT\x13@@a\x00\x00\n", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec, err := ParseDump([]byte(tt.in))
			if tt.line < 0 {
				if err != nil {
					t.Fatal(err)
				}
				if want := (Recorded{{0, 0}: {EAX: 1}}); len(rec[0]) != 1 || rec[0][Leaf{}] != want[Leaf{}] {
					t.Errorf("got %v", rec)
				}
				return
			}
			e, ok := errors.AsType[*TextError](err)
			if !ok || e.Line != tt.line {
				t.Errorf("error %v, want one at line %d", err, tt.line)
			}
		})
	}
	var many strings.Builder
	many.WriteString(ok)
	for i := range maxLeaves + 1 {
		fmt.Fprintf(&many, "0x%08x 0x01: eax=0x0 ebx=0x0 ecx=0x0 edx=0x0\n", i)
	}
	if _, err := ParseDump([]byte(many.String())); err == nil {
		t.Error("any number of leaves is accepted")
	}
	if _, err := ParseDump(make([]byte, maxText+1)); err == nil {
		t.Error("any size is accepted")
	}
}

// printers write a leaf as programs do.
var printers = []struct {
	name, head string
	line       func(l Leaf, r Regs) string
	zeros      bool // what is all zero is left out
}{
	{"cpuid", "cpuid: unable to setaffinity to cpu 0\nCPU 0:\n", func(l Leaf, r Regs) string {
		return fmt.Sprintf("   0x%08x 0x%02x: eax=0x%08x ebx=0x%08x ecx=0x%08x edx=0x%08x", l.EAX, l.ECX, r.EAX, r.EBX, r.ECX, r.EDX)
	}, false},
	{"a terminal", "user@node:~$ cpuid -1 -r\nCPU:\n", func(l Leaf, r Regs) string {
		return fmt.Sprintf("   0x%08x 0x%02x: eax=0x%08x ebx=0x%08x ecx=0x%08x edx=0x%08x\r", l.EAX, l.ECX, r.EAX, r.EBX, r.ECX, r.EDX)
	}, false},
	{"kcpuid", "Basic Leafs :\n================\n", func(l Leaf, r Regs) string {
		switch {
		case l.EAX != 7 && l.EAX != 0xd && l.EAX != 0xf:
			return fmt.Sprintf("0x%08x: EAX=0x%08x, EBX=0x%08x, ECX=0x%08x, EDX=0x%08x", l.EAX, r.EAX, r.EBX, r.ECX, r.EDX)
		case l.ECX == 0:
			return fmt.Sprintf("0x%08x: subleafs:\n  0: EAX=0x%08x, EBX=0x%08x, ECX=0x%08x, EDX=0x%08x", l.EAX, r.EAX, r.EBX, r.ECX, r.EDX)
		}
		return fmt.Sprintf(" %2d: EAX=0x%08x, EBX=0x%08x, ECX=0x%08x, EDX=0x%08x", l.ECX, r.EAX, r.EBX, r.ECX, r.EDX)
	}, true},
	{"kcpuid, newer", "", func(l Leaf, r Regs) string {
		return fmt.Sprintf("0x%08x_0x%02x: EAX=0x%08x, EBX=0x%08x, ECX=0x%08x, EDX=0x%08x", l.EAX, l.ECX, r.EAX, r.EBX, r.ECX, r.EDX)
	}, false},
	{"AIDA64", "------[ CPU Info ]------\nCPU Type : X\n------[ CPUID Registers / Logical CPU #0 ]------\nallcpu: Package 0 / Core 0 / Thread 0: Valid\n", func(l Leaf, r Regs) string {
		return fmt.Sprintf("CPUID %08X: %08X-%08X-%08X-%08X [SL %02X] [x87]", l.EAX, r.EAX, r.EBX, r.ECX, r.EDX, l.ECX)
	}, false},
	{"AIDA64 of old", "CPUID Registers (CPU #1):\n", func(l Leaf, r Regs) string {
		return fmt.Sprintf("CPUID %08X  \t%08X-%08X-%08X-%08X [SL %02X]\r", l.EAX, r.EAX, r.EBX, r.ECX, r.EDX, l.ECX)
	}, false},
	{"InstLatx64 of old", "", func(l Leaf, r Regs) string {
		return fmt.Sprintf("CPUID %08X : %08X %08X %08X %08X [SL %02X]", l.EAX, r.EAX, r.EBX, r.ECX, r.EDX, l.ECX)
	}, false},
	{"cpuid of Noonan", "CPU 0:\n", func(l Leaf, r Regs) string {
		return fmt.Sprintf("CPUID %08x:%02x = %08x %08x %08x %08x | ....", l.EAX, l.ECX, r.EAX, r.EBX, r.ECX, r.EDX)
	}, false},
	{"cpucontrol", "", func(l Leaf, r Regs) string {
		return fmt.Sprintf("cpuid level 0x%x, level_type 0x%x: 0x%08x 0x%08x 0x%08x 0x%08x", l.EAX, l.ECX, r.EAX, r.EBX, r.ECX, r.EDX)
	}, false},
	{"libvirt", "<!-- node -->\n<cpudata arch='x86'>\n", func(l Leaf, r Regs) string {
		return fmt.Sprintf("  <cpuid eax_in='0x%08x' ecx_in='0x%02x' eax='0x%08x' ebx='0x%08x' ecx='0x%08x' edx='0x%08x'/>", l.EAX, l.ECX, r.EAX, r.EBX, r.ECX, r.EDX)
	}, false},
	{"Linux log", "", func(l Leaf, r Regs) string {
		return fmt.Sprintf("[    0.000000] CPUID[%02x, %02x]: eax=%08x ebx=%08x ecx=%08x edx=%08x", l.EAX, l.ECX, r.EAX, r.EBX, r.ECX, r.EDX)
	}, false},
	{"xen-cpuid", "Host policy: 30 leaves, 14 MSRs\n CPUID:\n  leaf     subleaf  -> eax      ebx      ecx      edx\n", func(l Leaf, r Regs) string {
		return fmt.Sprintf("  %08x:%08x -> %08x:%08x:%08x:%08x", l.EAX, l.ECX, r.EAX, r.EBX, r.ECX, r.EDX)
	}, true},
}

// TestDumpForms: one machine is the same in whatever form it was dumped.
func TestDumpForms(t *testing.T) {
	rec := loadDump(t, "turin")
	want := CPU(rec)
	leaves := slices.SortedFunc(maps.Keys(rec), func(a, b Leaf) int {
		return cmp.Or(cmp.Compare(a.EAX, b.EAX), cmp.Compare(a.ECX, b.ECX))
	})
	for _, p := range printers {
		t.Run(p.name, func(t *testing.T) {
			var one strings.Builder
			for _, l := range leaves {
				if rec[l] != (Regs{}) || !p.zeros {
					one.WriteString(p.line(l, rec[l]) + "\n")
				}
			}
			for _, text := range []string{p.head + one.String(), p.head + one.String() + "\n" + p.head + one.String() + "done\n"} {
				all, err := ParseDump([]byte(text))
				if err != nil {
					t.Fatal(err)
				}
				if len(all) != strings.Count(text, one.String()) {
					t.Errorf("%d CPUs", len(all))
				}
				if got := dumpCPU(all); !reflect.DeepEqual(got, want) {
					t.Errorf("got\n%+v\nwant\n%+v", got, want)
				}
			}
		})
	}
}

// TestDumpPrograms has forms that do not give sub-leaves.
func TestDumpPrograms(t *testing.T) {
	for _, text := range []string{
		"version=0.7.1\n\n_________________ Logical CPU #0 _________________\nbasic_cpuid[0]=00000001 68747541 444d4163 69746e65\nbasic_cpuid[1]=00b00f21 0 0 178bfbff\next_cpuid[0]=80000001 0 0 0\next_cpuid[1]=00b00f21 0 0 25d3fbff\n",
		"x86info v1.31\neax in: 0x00000000, eax = 00000001 ebx = 68747541 ecx = 444d4163 edx = 69746e65\neax in: 0x00000001, eax = 00b00f21 ebx = 0 ecx = 0 edx = 178bfbff\n" +
			"eax in: 0x80000000, eax = 80000001 ebx = 0 ecx = 0 edx = 0\neax in: 0x80000001, eax = 00b00f21 ebx = 0 ecx = 0 edx = 25d3fbff\n",
		"<cpudata arch=\"x86\">\n<cpuid function=\"0x0\" eax=\"0x1\" ebx=\"0x68747541\" ecx=\"0x444d4163\" edx=\"0x69746e65\" />\n<cpuid function='0x1' eax='0xb00f21' ebx='0x0' ecx='0x0' edx='0x178bfbff'/>\n" +
			"<cpuid function='0x80000000' eax='0x80000001' ebx='0x0' ecx='0x0' edx='0x0'/>\n<cpuid function='0x80000001' eax='0x00b00f21' ebx='0x0' ecx='0x0' edx='0x25d3fbff'/>\n</cpudata>\n",
	} {
		all, err := ParseDump([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		c := CPU(all[0])
		if has, known := c.HasFlag("sse2"); c.Vendor != "amd" || *c.Family != 26 || *c.XSave || !has || !known || c.UnknownFlags != nil {
			t.Errorf("%+v", c)
		}
	}
}

// TestPartialDump: what a dump does not have is unknown, but for what follows.
func TestPartialDump(t *testing.T) {
	without := func(name string, leaves ...Leaf) Recorded {
		rec := loadDump(t, name)
		for l := range rec {
			for _, gone := range leaves {
				if l.EAX == gone.EAX && (l.ECX == gone.ECX || gone.ECX == 99) {
					delete(rec, l)
				}
			}
		}
		return rec
	}
	all := uint32(99)
	tests := []struct {
		name             string
		rec              Recorded
		usable           *xstate.Features
		xsave            *bool
		layout           bool
		has, not, openly string
	}{
		{"no sub-leaves of 0xd", without("spr", Leaf{0xd, 1}, Leaf{0xd, 2}, Leaf{0xd, 5}, Leaf{0xd, 6}, Leaf{0xd, 7}, Leaf{0xd, 9}, Leaf{0xd, 17}, Leaf{0xd, 18}),
			new(xstate.Features(0x602e7)), new(true), false, "avx avx512f amx_tile pku xsaves xgetbv1", "mpx", "xsavec xsaveopt user_shstk"},
		{"no sub-leaves of 0xd, AMD", without("turin", Leaf{0xd, 1}, Leaf{0xd, 2}, Leaf{0xd, 5}, Leaf{0xd, 6}, Leaf{0xd, 7}),
			new(xstate.Features(0xe7)), new(true), false, "avx avx512f", "pku", "xsavec"},
		{"no leaf 0xd", without("spr", Leaf{0xd, all}), nil, new(true), false, "avx osxsave avx512f xsaves", "sse4a", "xsavec"},
		{"no leaf 7", without("spr", Leaf{7, all}), new(xstate.Features(0x602e7)), new(true), true, "avx avx512f amx_tile pku", "fma4 mpx", "avx2 bmi1 avx512vl"},
		{"no leaf 1", without("spr", Leaf{1, all}), new(xstate.Features(0x602e7)), new(true), true, "avx fxsr xsave osxsave sse", "mpx", "sse4_2 aes fma"},
		{"no leaf 1, and nothing beyond SSE enabled", Recorded{{0, 0}: {EAX: 0xd}, {0xd, 0}: {EAX: 7, EBX: 576, ECX: 832}}, new(xstate.Features(3)), nil, true, "", "avx avx2 f16c", "osxsave sse4_2"},
		{"no leaf 0", without("haswell", Leaf{0, 0}), new(xstate.Features(7)), new(true), true, "avx2 fma", "sse4a", "rep_good"},
		{"no extended leaves", without("haswell", Leaf{0x80000000, 0}, Leaf{0x80000001, 0}), new(xstate.Features(7)), new(true), true, "avx2 fma", "avx512f", "syscall abm lm"},
		{"leaf 1 alone", Recorded{{1, 0}: {EAX: 0x306c3, ECX: 0x7ffafbff, EDX: 0xbfebfbff}}, nil, new(true), false, "avx fma osxsave", "", "avx2 avx512f syscall"},
		{"32-bit program", func() Recorded {
			rec := loadDump(t, "spr")
			ext := rec[Leaf{0x80000001, 0}]
			ext.EDX &^= 1 << 11
			rec[Leaf{0x80000001, 0}] = ext
			return rec
		}(), new(xstate.Features(0x602e7)), new(true), true, "syscall lm", "", "cqm_mbm_local"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := CPU(tt.rec)
			if !reflect.DeepEqual(c.XFeatures, tt.usable) || !reflect.DeepEqual(c.XSave, tt.xsave) || (c.Layout != nil) != tt.layout {
				t.Errorf("components %v, XSAVE %v, layout %v", c.XFeatures, c.XSave, c.Layout)
			}
			for _, list := range []struct {
				names      string
				has, known bool
			}{{tt.has, true, true}, {tt.not, false, true}, {tt.openly, false, false}} {
				for name := range strings.FieldsSeq(list.names) {
					if has, known := c.HasFlag(name); has != list.has || known != list.known {
						t.Errorf("%s: has %v, known %v", name, has, known)
					}
				}
			}
			if doc, err := marshalProfile(c); err != nil {
				t.Error(err)
			} else if back, err := ParseProfile(doc); err != nil || !reflect.DeepEqual(back, c) {
				t.Errorf("%v\nread back\n%+v\nwas\n%+v", err, back, c)
			}
		})
	}
}

// TestUnlikeCPUs: a machine has what all of its CPUs have.
func TestUnlikeCPUs(t *testing.T) {
	p, e := loadDump(t, "spr"), loadDump(t, "haswell")
	c := dumpCPU([]Recorded{p, p, e})
	if c.Name != "" || *c.XFeatures != 7 {
		t.Errorf("%q, %v", c.Name, *c.XFeatures)
	}
	if has, _ := c.HasFlag("avx512f"); has {
		t.Error("avx512f, which one CPU lacks")
	}
}

func TestXCR0Guess(t *testing.T) {
	amx := loadDump(t, "spr")
	tests := []struct {
		name string
		size uint32
		want xstate.Features
	}{
		{"all", 11008, 0x602e7},
		{"a kernel before AMX", 2696, 0x2e7},
		{"nopku", 2688, 0xe7},
		{"no AVX-512", 832, 7},
		{"nothing", 576, 3},
		{"garbage", 0, 3},
	}
	for _, tt := range tests {
		v := amx[Leaf{0xd, 0}]
		v.EBX = tt.size
		amx[Leaf{0xd, 0}] = v
		if got, known := amx.XCR0(); got != tt.want || !known {
			t.Errorf("%s: %v (%v), want %v", tt.name, got, known, tt.want)
		}
	}
}

// A dump may say anything: its strings go to a terminal.
func TestDumpStrings(t *testing.T) {
	esc := Regs{0x1b5b324a, 0x1b1b1b1b, 0x07070707, 0xff80fffe}
	c := CPU(Recorded{{0, 0}: {1, esc.EBX, esc.ECX, esc.EDX}, {0x80000000, 0}: {EAX: 0x80000004},
		{0x80000002, 0}: esc, {0x80000003, 0}: esc, {0x80000004, 0}: esc})
	for _, s := range []string{c.Vendor, c.ModelName} {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q", s)
		}
	}
}

func TestUnsupportedError(t *testing.T) {
	err := error(&UnsupportedError{"darwin", "arm64"})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "darwin/arm64") {
		t.Error(err)
	}
}

func FuzzParseDump(f *testing.F) {
	for _, tt := range recorded {
		b, err := os.ReadFile(filepath.Join("testdata", tt.name+".cpuid"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("CPU 0:\n 0x0: eax=0xd ebx=0x0 ecx=0x0 edx=0x0\n0xd 0x0: eax=0xffffffff ebx=0x1 ecx=0x0 edx=0xffffffff\n" +
		"0x1 0x0: eax=0x0 ebx=0x0 ecx=0xffffffff edx=0xffffffff\n0xd 0x2: eax=0xffffffff ebx=0xffffffff ecx=0x0 edx=0x0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := ParseDump(b)
		if err != nil {
			if _, ok := errors.AsType[*TextError](err); !ok {
				t.Fatalf("error of type %T", err)
			}
			return
		}
		c := dumpCPU(rec)
		p, err := marshalProfile(c)
		if err != nil {
			t.Fatalf("%v\n%s", err, p)
		}
		Common(c, c)
	})
}
