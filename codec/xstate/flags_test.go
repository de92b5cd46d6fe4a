package xstate

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestFlagTable(t *testing.T) {
	names := map[string]bool{}
	places := map[[2]uint8]string{}
	last := -1
	for f := range AllFlags() {
		if at := int(f.Word)<<5 | int(f.Bit); at <= last {
			t.Errorf("%s: out of order", f.Name)
		} else {
			last = at
		}
		if names[f.Name] {
			t.Errorf("%s: twice in the table", f.Name)
		}
		names[f.Name] = true
		place := [2]uint8{f.Word, f.Bit}
		if other, ok := places[place]; ok {
			t.Errorf("%s: same place as %s", f.Name, other)
		}
		places[place] = f.Name
		if f.Word >= FlagWords || f.Bit > 31 {
			t.Errorf("%s: word %d bit %d", f.Name, f.Word, f.Bit)
		}
		if f.Name != strings.ToLower(f.Name) || strings.ContainsAny(f.Name, " -.") {
			t.Errorf("%q is no name of /proc/cpuinfo", f.Name)
		}
		if f.INS() && !f.InCapability() {
			t.Errorf("%s: CRIU cannot compare what it does not record", f.Name)
		}
		if got, ok := LookupFlag(f.Name); !ok || got != f {
			t.Errorf("LookupFlag(%q) = %v, %v", f.Name, got, ok)
		}
	}
	for f := range AllFlags() {
		for dep := range f.Depends() {
			if !names[dep] {
				t.Errorf("%s depends on %q, which is not in the table", f.Name, dep)
			}
		}
		if slices.Contains(DependentsOf(f.Name), f.Name) {
			t.Errorf("%s depends on itself", f.Name)
		}
	}
	if _, ok := LookupFlag("no_such_flag"); ok {
		t.Error("LookupFlag finds what is not there")
	}
}

// The words are those of criu/arch/x86/cpu.c, added up by hand.
func TestINSMask(t *testing.T) {
	want := [CapabilityWords]uint32{
		0:  1<<0 | 1<<4 | 1<<8 | 1<<11 | 1<<15 | 1<<19 | 1<<23 | 1<<24 | 1<<25 | 1<<26,
		1:  1<<11 | 1<<22 | 1<<27 | 1<<30 | 1<<31,
		3:  1<<16 | 1<<20,
		4:  1<<0 | 1<<1 | 1<<3 | 1<<9 | 1<<13 | 1<<19 | 1<<20 | 1<<22 | 1<<23 | 1<<25 | 1<<26 | 1<<27 | 1<<28 | 1<<29 | 1<<30,
		6:  1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<11 | 1<<16 | 1<<21,
		9:  1<<0 | 1<<3 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11 | 1<<14 | 1<<16 | 1<<17 | 1<<18 | 1<<19 | 1<<23 | 1<<26 | 1<<27 | 1<<28 | 1<<29 | 1<<30 | 1<<31,
		10: 1<<0 | 1<<1 | 1<<2,
		11: 1<<1 | 1<<6 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12 | 1<<13 | 1<<14 | 1<<22,
		13: 1 << 0,
		18: 1<<2 | 1<<3,
	}
	if got := INSMask(); got != want {
		t.Errorf("got  %#x\nwant %#x", got, want)
	}
}

func TestFlagsOf(t *testing.T) {
	words := func(set ...string) []uint32 { w := CapabilityMask(set...); return w[:] }
	tests := []struct {
		name  string
		words []uint32
		want  string
	}{
		{"nothing known", nil, ""},
		{"one word", []uint32{1<<25 | 1<<24}, "fxsr sse"},
		{"unnamed bits", []uint32{1<<10 | 1<<20, 0xffffffff &^ (1<<11 | 1<<19 | 1<<20 | 1<<22 | 1<<25 | 1<<26 | 1<<27 | 1<<29 | 1<<30 | 1<<31)}, ""},
		{"usable XSAVE", words("fxsr", "xsave", "osxsave", "avx", "pku", "xsavec", "amx_tile"), "amx_tile avx fxsr osxsave pku xsave xsavec"},
		{"noxsave kernel", words("fxsr", "xsave", "avx", "avx512f", "f16c", "pku", "popcnt", "xsavec", "amx_tile"), "fxsr popcnt"},
		{"words that CRIU lacks, noxsave kernel", append(words(), 1<<4|1<<7, 1<<4, 1), "cmpccxadd"},
		{"all words", append(words("xsave", "osxsave"), 1<<4, 1<<21, 1), "apx avx_vnni osxsave user_shstk xsave"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(FlagsOf(tt.words), " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDependentsOf(t *testing.T) {
	tests := []struct{ of, want string }{
		{"amx_tile", "amx_bf16 amx_complex amx_fp16 amx_int8"},
		{"avx512vl", "avx512_bf16 avx512_bitalg avx512_vbmi2 avx512_vnni avx512_vp2intersect"},
		{"pku", "ospke"},
		{"xsaves", "amx_bf16 amx_complex amx_fp16 amx_int8 amx_tile enqcmd shstk user_shstk xfd"},
		{"xsavec", ""},
		{"no_such_flag", ""},
	}
	for _, tt := range tests {
		if got := strings.Join(DependentsOf(tt.of), " "); got != tt.want {
			t.Errorf("DependentsOf(%s) = %q, want %q", tt.of, got, tt.want)
		}
	}
	xsave := DependentsOf("xsave")
	for _, name := range []string{"osxsave", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_fp16", "vaes",
		"vpclmulqdq", "avx_vnni", "pku", "mpx", "xsaveopt", "xsavec", "xgetbv1", "xsaves", "amx_tile", "fma4", "xop", "apx"} {
		if !slices.Contains(xsave, name) {
			t.Errorf("%s does not hang off xsave", name)
		}
	}
	for _, name := range []string{"xsave", "sse2", "gfni", "aes", "sha_ni", "bmi1", "bmi2", "popcnt", "rtm", "cx16"} {
		if slices.Contains(xsave, name) {
			t.Errorf("%s hangs off xsave", name)
		}
	}
	if !slices.IsSorted(xsave) {
		t.Error("not sorted")
	}
}

func TestFeatureFlag(t *testing.T) {
	for f := range Known.All() {
		name := f.Flag()
		if name == "" {
			if f != UINTR { // no kernel has a flag for it
				t.Errorf("%v has no flag", f)
			}
			continue
		}
		fl, ok := LookupFlag(name)
		if !ok {
			t.Errorf("%v: no flag %q", f, name)
		}
		if !f.Component().Supervisor && !Legacy.Has(f) && !slices.Contains(DependentsOf("xsave"), fl.Name) {
			t.Errorf("%v: %s does not depend on xsave", f, name)
		}
	}
	if got := Feature(62).Flag(); got != "" {
		t.Errorf("bit 62: %q", got)
	}
}

func TestUnknownFlags(t *testing.T) {
	for _, tt := range []struct {
		name              string
		has               []string
		words             int
		unknown, recorded string
	}{
		{"CRIU's words of an AVX2 machine", []string{"avx", "smap", "xsave"}, CapabilityWords, "sha512 avx_vnni lass movrs", "avx2 avx512_bf16 amx_fp16 user_shstk"},
		{"version 1", []string{"avx", "sse2", "xsave"}, 12, "clzero arat", "avx512_4vnniw avx512f"},
		{"no words", nil, 0, "fpu avx avx512f", "user_shstk"},
	} {
		got := UnknownFlags(tt.has, InWords(tt.words))
		if !slices.IsSorted(got) {
			t.Errorf("%s: not sorted: %v", tt.name, got)
		}
		for name := range strings.FieldsSeq(tt.unknown) {
			if !slices.Contains(got, name) {
				t.Errorf("%s: %s is known", tt.name, name)
			}
		}
		for name := range strings.FieldsSeq(tt.recorded) {
			if slices.Contains(got, name) {
				t.Errorf("%s: %s is unknown", tt.name, name)
			}
		}
	}
}

func TestDependenciesOf(t *testing.T) {
	if got := strings.Join(DependenciesOf("avx512bw", "avx"), " "); got != "avx avx512f fpu fxsr xsave" {
		t.Error(got)
	}
}

// TestContained: what another feature contains is neither called missing nor claimed.
func TestContained(t *testing.T) {
	for name, others := range contained {
		for n := range strings.FieldsSeq(name + " " + others) {
			if _, ok := LookupFlag(n); !ok {
				t.Errorf("no flag %s", n)
			}
		}
	}
	intel := &CPU{Flags: []string{"lm", "sse"}}
	for _, tt := range []struct {
		name     string
		has, yes bool
	}{{"sse", true, true}, {"mmxext", false, true}, {"syscall", false, true}, {"avx10", false, false}, {"sse4a", false, false}} {
		has, _ := intel.HasFlag(tt.name)
		if yes, known := intel.Executes(tt.name); has != tt.has || yes != tt.yes || !known {
			t.Errorf("%s: has %v, executes %v, known %v", tt.name, has, yes, known)
		}
	}
}

func TestLevels(t *testing.T) {
	var before *CPU
	for _, name := range LevelNames() {
		c, ok := ByName(name)
		if !ok {
			t.Fatalf("ByName(%q) finds nothing", name)
		}
		if !slices.IsSorted(c.Flags) || len(slices.Compact(slices.Clone(c.Flags))) != len(c.Flags) {
			t.Errorf("%s: flags not sorted or not unique: %v", name, c.Flags)
		}
		for _, flag := range c.Flags {
			f, ok := LookupFlag(flag)
			if !ok {
				t.Errorf("%s: no flag %q", name, flag)
			}
			for dep := range f.Depends() {
				if has, _ := c.HasFlag(dep); !has {
					t.Errorf("%s: %s without %s", name, flag, dep)
				}
			}
		}
		usable, known := c.Usable()
		if !known {
			t.Errorf("%s: usable components unknown", name)
		}
		for f := range usable.All() {
			if has, _ := c.HasFlag(f.Flag()); !has {
				t.Errorf("%s: %v without %s", name, f, f.Flag())
			}
		}
		if before != nil {
			for _, flag := range before.Flags {
				if has, _ := c.HasFlag(flag); !has {
					t.Errorf("%s lacks %s of %s", name, flag, before.Name)
				}
			}
		}
		if c.Layout != nil || c.XSaveSize != nil || c.MXCSRMask != nil || c.Capability != nil {
			t.Errorf("%s: knows what no level guarantees", name)
		}
		before = c
	}
	want := map[string]Features{"x86-64": Legacy, "x86-64-v2": Legacy, "x86-64-v3": 7, "x86-64-v4": 0xe7}
	for name, set := range want {
		c, _ := ByName(name)
		if got, _ := c.Usable(); got != set {
			t.Errorf("%s: usable %v, want %v", name, got, set)
		}
	}
	if _, ok := ByName("x86-64-v5"); ok {
		t.Error("ByName finds what is not there")
	}
	a, _ := ByName("x86-64")
	a.Flags[0], *a.FXSave = "changed", false
	if b, _ := ByName("x86-64"); b.Flags[0] == "changed" || !*b.FXSave {
		t.Error("two CPUs of one name share memory")
	}
}

// TestCRIUArrays pins what the table says of CRIU's images.
func TestCRIUArrays(t *testing.T) {
	var got []string
	for f := range CRIUFields().All() {
		a := f.Component().CRIU
		got = append(got, fmt.Sprintf("%d %s/%d", a.Number, f, a.Width))
	}
	want := []string{"2 AVX/4", "3 BNDREGS/8", "4 BNDCSR/8", "5 opmask/8",
		"6 ZMM_Hi256/8", "7 Hi16_ZMM/8", "8 PKRU/4"}
	if !slices.Equal(got, want) {
		t.Errorf("fields %q, want %q", got, want)
	}
	for release, want := range map[Release]Features{
		{0, 3, 0}: 0, {0, 4, 0}: 1 << AVX, {3, 10, 0}: 1 << AVX, {3, 11, 0}: 0x2f4, {3, 17, 1}: 0x2f4, {4, 0, 0}: 0x2f4, NewestCRIU: 0x2f4,
	} {
		if got := CRIURestores(release); got != want {
			t.Errorf("CRIU %v restores %v, want %v", release, got, want)
		}
	}
}

func TestCRIUMask(t *testing.T) {
	words := func(set ...string) []uint32 { w := CapabilityMask(set...); return w[:] }
	all := words("fpu", "sse", "xsave", "osxsave", "avx", "mpx", "avx512f", "pku", "amx_tile", "intel_pt", "shstk")
	tests := []struct {
		name  string
		hw    Features
		words []uint32
		mask  uint64
		back  Features
	}{
		{"Sapphire Rapids without pku", 0x600e7, words("fpu", "sse", "xsave", "avx", "avx512f", "amx_tile"), 0xe5, 0x600e7},
		{"Xeon Gold 5220", 0x2ff, all[:], 0x2f5, 0x602ff}, // the words here have amx_tile as well
		{"MPX", 0x1f, words("fpu", "sse", "xsave", "avx", "mpx"), 0x15, 0x1f},
		{"Zen 2 lists PKRU", 0x207, words("fpu", "sse", "xsave", "avx"), 0x5, 0x7},
		{"clearcpuid=avx: CPUID counts", 0x7, words("fpu", "sse", "xsave", "avx"), 0x5, 0x7},
		{"AVX masked by a hypervisor", 0x7, words("fpu", "sse", "xsave"), 0x1, 0x3},
		{"APX", 0x802e7, words("fpu", "sse", "xsave", "avx", "avx512f", "pku"), 0x2e5, 0x2e7},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &CPU{XSave: new(true), XFeaturesHW: &tt.hw, Capability: tt.words}
			got, known := c.CRIUMask()
			if got != tt.mask || !known {
				t.Errorf("CRIUMask = %#x, %v, want %#x", got, known, tt.mask)
			}
			if back := FromCRIUMask(got, tt.words); back != tt.back {
				t.Errorf("FromCRIUMask = %v, want %v", back, tt.back)
			}
			// What was read from a cpuinfo.img gives the same mask again.
			c.XFeatures, c.XFeaturesHW = new(tt.back), nil
			if again, _ := c.CRIUMask(); again != tt.mask {
				t.Errorf("read and written again: %#x, want %#x", again, tt.mask)
			}
		})
	}
	for _, c := range []*CPU{
		{XSave: new(false)},
		{XSave: new(false), Capability: words("fpu", "sse", "avx")},
		{XSave: new(false), Capability: words("fpu", "sse"), XFeaturesHW: new(Features(7))},
	} {
		if mask, known := c.CRIUMask(); mask != 0 || !known {
			t.Errorf("no XSAVE: %#x, %v", mask, known)
		}
	}
	// CRIU looks at CPUID's XSAVE bit here, which the kernel cannot clear.
	noxsave := &CPU{XSave: new(false), XFeaturesHW: new(Features(7)), Capability: words("fpu", "sse", "xsave", "avx")}
	if mask, known := noxsave.CRIUMask(); mask != 5 || !known {
		t.Errorf("noxsave kernel: %#x, %v", mask, known)
	}
	v3, _ := ByName("x86-64-v3")
	for _, c := range []*CPU{{}, {XFeatures: new(Features(7))}, {Capability: all}, v3} {
		if mask, known := c.CRIUMask(); known {
			t.Errorf("%+v: mask %#x of an unknown CPU", c, mask)
		}
	}
	if got := FromCRIUMask(0, all); got != 0 {
		t.Errorf("mask 0: %v", got)
	}
}
