package cpuid

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/xstate"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// named is what the manuals, and the tables of compilers, say of the machines by name.
var named = []struct {
	names, level string
	usable       xstate.Features
	size         uint32
	has, lacks   string
}{
	{"core2", "x86-64", 0, 0, "ssse3", "sse4_2 xsave"},
	{"nehalem", "x86-64-v2", 0, 0, "sse4_2 popcnt", "xsave aes"},
	{"westmere", "x86-64-v2", 0, 0, "aes pclmulqdq", "xsave"},
	{"sandybridge", "x86-64-v2", 7, 832, "avx xsaveopt", "f16c rdrand avx2"},
	{"ivybridge", "x86-64-v2", 7, 832, "f16c rdrand fsgsbase", "avx2 fma"},
	{"haswell", "x86-64-v3", 7, 832, "avx2 fma bmi2 aes rtm", "adx xsavec mpx"},
	{"broadwell", "x86-64-v3", 7, 832, "adx rdseed rtm", "xsavec mpx clflushopt"},
	{"skylake", "x86-64-v3", 0x1f, 1088, "xsavec xsaves mpx clflushopt", "avx512f pku"},
	{"skylake-avx512", "x86-64-v4", 0x2ff, 2696, "pku clwb mpx", "avx512_vnni"},
	{"cascadelake", "x86-64-v4", 0x2ff, 2696, "avx512_vnni", "avx512_bf16"},
	{"cooperlake", "x86-64-v4", 0x2ff, 2696, "avx512_vnni avx512_bf16", "amx_tile"},
	{"icelake-client icelake-server", "x86-64-v4", 0x2e7, 2696, "avx512_vbmi2 vaes sha_ni gfni", "mpx avx512_vp2intersect"},
	{"tigerlake", "x86-64-v4", 0x2e7, 2696, "avx512_vp2intersect movdiri user_shstk", "mpx rtm"},
	{"rocketlake", "x86-64-v4", 0x2ff, 2696, "avx512_vbmi2 vaes", "avx512_vp2intersect movdiri"},
	{"alderlake raptorlake meteorlake gracemont", "x86-64-v3", 0x207, 2696, "avx_vnni serialize waitpkg vaes", "avx512f avx_ifma rtm"},
	{"arrowlake-s", "x86-64-v3", 0x207, 2696, "avx_ifma avx_vnni_int8 sha512 sm3 sm4", "avx512f"},
	{"sapphirerapids emeraldrapids graniterapids", "x86-64-v4", 0x602e7, 11008, "amx_tile amx_int8 amx_bf16 avx512_fp16 xfd", "mpx apx"},
	{"graniterapids", "x86-64-v4", 0x602e7, 11008, "amx_fp16 avx10", ""},
	{"silvermont", "x86-64-v2", 0, 0, "movbe rdrand", "xsave"},
	{"goldmont goldmont-plus", "x86-64-v2", 0x1b, 1088, "sha_ni xsavec mpx", "avx"},
	{"tremont", "x86-64-v2", 3, 576, "sha_ni gfni clwb", "avx mpx pku"},
	{"sierraforest", "x86-64-v3", 0x207, 2696, "avx_vnni avx_ifma avx_vnni_int8 avx_ne_convert cmpccxadd enqcmd", "avx512f hybrid_cpu rtm"},
	{"knl", "x86-64-v3", 0xe7, 2688, "avx512f avx512cd avx512er avx512pf", "avx512vl avx512bw pku xsavec"},
	{"btver1", "x86-64", 0, 0, "ssse3 sse4a", "sse4_1 xsave"},
	{"btver2", "x86-64-v2", 7, 832, "avx f16c movbe bmi1", "avx2 fma xop"},
	{"bdver1", "x86-64-v2", 7, 832, "xop fma4", "fma f16c tbm"},
	{"bdver2", "x86-64-v2", 7, 832, "xop fma4 fma f16c tbm bmi1", "avx2 fsgsbase xsaveopt"},
	{"bdver3", "x86-64-v2", 7, 832, "fsgsbase xsaveopt xop", "avx2 movbe"},
	{"bdver4", "x86-64-v3", 7, 832, "avx2 bmi2 movbe xop mwaitx", "sha_ni xsavec"},
	{"znver1", "x86-64-v3", 7, 832, "sha_ni adx clzero xsavec", "fma4 xop clwb pku xsaves"},
	{"znver2", "x86-64-v3", 7, 832, "clwb rdpid wbnoinvd xsavec", "pku vaes xsaves"},
	{"znver3", "x86-64-v3", 0x207, 2440, "pku vaes vpclmulqdq user_shstk xsaves", "avx512f"},
	{"znver4", "x86-64-v4", 0x2e7, 2440, "avx512_bf16 avx512_vnni gfni", "avx_vnni avx512_vp2intersect"},
	{"znver5", "x86-64-v4", 0x2e7, 2440, "avx_vnni avx512_vp2intersect movdiri", "avx512_fp16 amx_tile"},
}

func TestByName(t *testing.T) {
	seen := map[string]bool{}
	for _, tt := range named {
		for name := range strings.FieldsSeq(tt.names) {
			seen[name] = true
			t.Run(name, func(t *testing.T) {
				c, ok := ByName(strings.ToUpper(name))
				if !ok {
					t.Fatal("no such machine")
				}
				vendor := "intel"
				if strings.HasPrefix(name[1:], "dver") || strings.HasPrefix(name[1:], "tver") || strings.HasPrefix(name, "znver") {
					vendor = "amd"
				}
				if c.Name != name || c.Vendor != vendor || c.ModelName != "" || c.UnknownFlags != nil {
					t.Errorf("%q %q %q, unknown %v", c.Name, c.Vendor, c.ModelName, c.UnknownFlags)
				}
				if got := xstate.LevelNames()[c.Level()-1]; got != tt.level {
					t.Errorf("level %s, want %s", got, tt.level)
				}
				if *c.XFeatures != tt.usable || *c.XSaveSize != tt.size || *c.XSave != (tt.size != 0) {
					t.Errorf("%v, %d bytes, XSAVE %v, want %v, %d", *c.XFeatures, *c.XSaveSize, *c.XSave, tt.usable, tt.size)
				}
				if end := c.Layout.End(*c.XFeatures); *c.XSave && end != int(tt.size) {
					t.Errorf("components end at %d", end)
				}
				want := xstate.IntelLayout(tt.usable)
				if vendor == "amd" {
					want = xstate.AMDLayout(tt.usable)
				}
				if !slices.Equal(c.Layout, want) {
					t.Errorf("layout %v, want %v", c.Layout, want)
				}
				if mask := uint32(0xffff); vendor == "intel" && *c.MXCSRMask != mask || vendor == "amd" && *c.MXCSRMask != mask|1<<17 {
					t.Errorf("MXCSR mask %#x", *c.MXCSRMask)
				}
				for list, want := range map[string]bool{tt.has: true, tt.lacks: false} {
					for flag := range strings.FieldsSeq(list) {
						if has, known := c.HasFlag(flag); has != want || !known {
							t.Errorf("%s: %v (%v)", flag, has, known)
						}
					}
				}
				checkCPU(t, c)
			})
		}
	}
	levels := xstate.LevelNames()
	names := Names()
	if !slices.Equal(names[:len(levels)], levels) {
		t.Errorf("names begin with %v", names[:len(levels)])
	}
	for _, name := range names[len(levels):] {
		if !seen[name] {
			t.Errorf("nothing is said of %s", name)
		}
	}
	for _, name := range []string{"", "#", "haswell ", "haswell\n", "CPUID", "x86-64-v5"} {
		if _, ok := ByName(name); ok {
			t.Errorf("%q is a machine", name)
		}
	}
}

// checkCPU asks for what holds of every machine: what a flag needs is there, and a profile
// holds it all.
func checkCPU(t *testing.T, c *xstate.CPU) {
	t.Helper()
	for _, name := range c.Flags {
		f, _ := xstate.LookupFlag(name)
		for dep := range f.Depends() {
			if has, known := c.HasFlag(dep); !has && known && dep != "xsaves" { // which Linux keeps off alone
				t.Errorf("%s without %s", name, dep)
			}
		}
	}
	if c.XFeatures != nil {
		for f := range (*c.XFeatures & xstate.Known &^ xstate.Legacy).All() {
			if has, known := c.HasFlag(f.Flag()); !has && known {
				t.Errorf("%v without %s", f, f.Flag())
			}
		}
	}
	doc, err := marshalProfile(c)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseProfile(doc)
	if err != nil || !reflect.DeepEqual(back, c) {
		t.Errorf("%v\nread back\n%+v\nwas\n%+v", err, back, c)
	}
}

// differ is what two CPUs of a family do not share: flags that microcode, firmware or the
// manufacturer sets by model. No instruction is among them but rtm, which microcode has
// taken away.
var differ = map[string]string{
	"core2":          "smx",
	"nehalem":        "smx",
	"westmere":       "x2apic spec_ctrl intel_stibp flush_l1d spec_ctrl_ssbd",
	"sandybridge":    "pdpe1gb smx dca md_clear spec_ctrl intel_stibp flush_l1d spec_ctrl_ssbd",
	"ivybridge":      "smx x2apic",
	"haswell":        "dca hle rtm cqm cqm_occup_llc ida cqm_llc",
	"broadwell":      "smx",
	"skylake":        "hle rtm ida md_clear tsx_force_abort spec_ctrl intel_stibp flush_l1d spec_ctrl_ssbd",
	"skylake-avx512": "ida md_clear tsx_force_abort spec_ctrl intel_stibp flush_l1d spec_ctrl_ssbd",
	"cascadelake":    "hwp hwp_act_window hwp_epp hwp_pkg_req",
	"icelake-client": "hwp_notify",
	"icelake-server": "hwp hwp_act_window hwp_epp hwp_pkg_req hfi md_clear pconfig",
	"rocketlake":     "sgx sgx_lc",
	"alderlake":      "pconfig rdt_a smx tme",
	"raptorlake":     "fsrc fzrm",
	"arrowlake-s":    "tme",
	"emeraldrapids":  "hfi",
	"graniterapids":  "sgx hle rtm sgx_lc",
	"silvermont":     "ida md_clear spec_ctrl intel_stibp",
	"goldmont":       "monitor ida md_clear spec_ctrl_ssbd",
	"gracemont":      "smx",
	"knl":            "vmx ida spec_ctrl",
	"btver2":         "nodeid_msr",
	"bdver2":         "lwp amd_ibpb",
	"bdver4":         "topoext",
	"znver1":         "amd_ibpb",
	"znver2":         "amd_ibrs amd_stibp_always_on amd_ppin",
	"znver3":         "pcid invlpgb amd_ppin brs avic",
	"znver4":         "pcid x2apic la57 invlpgb amd_ppin",
	"znver5":         "pcid x2apic la57 invlpgb amd_ppin",
}

// TestSecondDump: a named machine is what another dump of its family says, in all that the
// other records.
func TestSecondDump(t *testing.T) {
	text, err := os.ReadFile("testdata/machines.txt")
	if err != nil {
		t.Fatal(err)
	}
	once := Names()[len(xstate.LevelNames()):]
	for rest := string(text); rest != ""; {
		var name, leaves string
		if name, leaves, rest = dumpOf(rest); name == "#" {
			continue
		}
		once = slices.DeleteFunc(once, func(n string) bool { return n == name })
		t.Run(name, func(t *testing.T) {
			c, _ := ByName(name)
			all, err := ParseDump([]byte(leaves))
			if err != nil {
				t.Fatal(err)
			}
			other := dumpCPU(all)
			if c.Vendor != other.Vendor || *c.Family != *other.Family {
				t.Errorf("%s %d, the other is %s %d", c.Vendor, *c.Family, other.Vendor, *other.Family)
			}
			for _, v := range []struct {
				what    string
				a, b    any
				unknown bool
			}{
				{"FXSAVE", c.FXSave, other.FXSave, false},
				{"XSAVE", c.XSave, other.XSave, false},
				{"components", c.XFeatures, other.XFeatures, false},
				{"components of the hardware", c.XFeaturesHW, other.XFeaturesHW, false},
				{"size", c.XSaveSize, other.XSaveSize, false},
				{"largest size", c.XSaveSizeMax, other.XSaveSizeMax, false},
				{"layout", c.Layout, other.Layout, other.Layout == nil},
			} {
				if !v.unknown && !reflect.DeepEqual(v.a, v.b) {
					t.Errorf("%s differs: %v, %v", v.what, v.a, v.b)
				}
			}
			var flags []string
			for f := range xstate.AllFlags() {
				a, _ := c.HasFlag(f.Name)
				b, known := other.HasFlag(f.Name)
				if known && a != b {
					flags = append(flags, f.Name)
				}
				if known && a != b && f.ISA() && f.Name != "rtm" {
					t.Errorf("%s: %v, %v", f.Name, a, b)
				}
			}
			slices.Sort(flags)
			if want := names(strings.Fields(differ[name])); !slices.Equal(flags, want) {
				t.Errorf("flags differ: %v, want %v", flags, want)
			}
		})
	}
	if want := []string{"cooperlake", "sierraforest"}; !slices.Equal(once, want) {
		t.Errorf("of one dump only: %v, want %v", once, want)
	}
}

// TestModifyAsQEMU: two guests of QEMU's -cpu max, one with pku=off,mpx=off, dumped by
// themselves.
func TestModifyAsQEMU(t *testing.T) {
	full, less := CPU(loadDump(t, "max")), CPU(loadDump(t, "maxnopku"))
	for _, tt := range []struct {
		from, want *xstate.CPU
		add, drop  []string
	}{{full, less, nil, []string{"pku", "mpx"}}, {less, full, []string{"pku", "mpx"}, nil}, {full, full, []string{"pku"}, []string{"avx512f", "rtm"}}} {
		before, _ := json.Marshal(NewProfile(tt.from))
		got, err := Modify(tt.from, tt.add, tt.drop)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("+%v -%v: %v\n%+v\nwant\n%+v", tt.add, tt.drop, err, got, tt.want)
		}
		if after, _ := json.Marshal(NewProfile(tt.from)); string(after) != string(before) {
			t.Errorf("+%v -%v changes what it is given", tt.add, tt.drop)
		}
	}
}

func TestModify(t *testing.T) {
	tests := []struct {
		machine, add, drop string
		usable             xstate.Features
		size, max          int // -1: unknown
		has, lacks         string
		err                string
	}{
		{"haswell", "pku", "rtm", 0x207, 2696, 2696, "pku ospke avx2 hle", "rtm", ""},
		{"haswell", "", "avx", 3, 576, 576, "sse4_2 xsave bmi2", "avx avx2 fma f16c", ""},
		{"haswell", "", "xsave", 0, 0, 0, "sse4_2 fxsr", "xsave osxsave avx xsaveopt", ""},
		{"haswell", "", "osxsave", 0, 576, 832, "sse4_2", "xsave osxsave avx", ""},
		{"haswell", "avx512f", "", 0xe7, 2688, 2688, "avx512f", "avx512vl", ""},
		{"haswell", "avx512_vnni", "", 0xe7, 2688, 2688, "avx512f avx512vl avx512_vnni", "avx512bw", ""},
		{"haswell", "amx-int8", "", 0x60007, 11008, 11008, "amx_tile amx_int8 xfd xsaves xgetbv1", "avx512f", ""},
		{"nehalem", "avx2", "", 7, 832, 832, "avx avx2 xsave osxsave", "fma", ""},
		{"skylake", "", "mpx", 7, 832, 832, "xsavec", "mpx", ""},
		{"skylake-avx512", "", "avx512f,pku", 0x1f, 1088, 1088, "mpx avx2", "avx512f avx512vl pku ospke", ""},
		{"skylake-avx512", "", "ospke", 0xff, 2688, 2696, "avx512f", "pku ospke", ""},
		{"sapphirerapids", "", "amx-tile", 0x2e7, 2696, 2696, "avx512_fp16", "amx_tile amx_int8 amx_bf16", ""},
		{"sapphirerapids", "", "xsaves", 0x2e7, 2696, 2696, "avx512f", "xsaves xfd amx_tile shstk user_shstk enqcmd", ""},
		{"znver1", "pku", "", 0x207, 2440, 2440, "pku", "avx512f", ""},
		{"znver2", "", "pku", 7, 832, 832, "avx2", "pku", ""},
		{"znver2", "pku", "", 0x207, 2440, 2440, "pku ospke", "", ""},
		{"znver3", "avx512f", "", 0x2e7, 2440, 2440, "avx512f", "", ""},
		{"znver3", "mpx", "", 0x21f, -1, -1, "mpx", "", ""},
		{"skylake", "apx", "", 0x8001f, -1, -1, "apx mpx", "", ""},
		{"bdver4", "", "avx", 3, 576, -1, "tbm", "avx xop fma4", ""},
		{"x86-64-v3", "xsavec,pku", "", 0x207, -1, -1, "xsavec pku ospke", "avx512f", ""},
		{"x86-64-v2", "avx", "", 7, -1, -1, "avx xsave osxsave", "avx2", ""},
		{"haswell", "SSE4.1,pclmuldq,lzcnt", "RTM,hle", 7, 832, 832, "sse4_1", "rtm hle", ""},
		{"haswell", "rmt", "", 0, 0, 0, "", "", `no flag "rmt"`},
		{"haswell", "", "rmt", 0, 0, 0, "", "", `no flag "rmt"`},
		{"haswell", "", "", 7, 832, 832, "rtm", "", ""},
		{"haswell", "avx512vl", "avx", 0, 0, 0, "", "", "avx512vl needs avx, which is taken away"},
		{"haswell", "avx2", "osxsave", 0, 0, 0, "", "", "avx2 needs osxsave, which is taken away"},
		{"haswell", "pku", "ospke", 0, 0, 0, "", "", "pku needs ospke, which is taken away"},
		{"haswell", "RTM", "rtm", 0, 0, 0, "", "", "RTM is added and taken away"},
	}
	for _, tt := range tests {
		t.Run(tt.machine+"+"+tt.add+"-"+tt.drop, func(t *testing.T) {
			c, _ := ByName(tt.machine)
			split := func(r rune) bool { return r == ',' }
			m, err := Modify(c, strings.FieldsFunc(tt.add, split), strings.FieldsFunc(tt.drop, split))
			if tt.err != "" {
				if _, ok := errors.AsType[*FlagError](err); !ok || err.Error() != tt.err {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			size := func(v *uint32) int {
				if v == nil {
					return -1
				}
				return int(*v)
			}
			if *m.XFeatures != tt.usable || size(m.XSaveSize) != tt.size || size(m.XSaveSizeMax) != tt.max {
				t.Errorf("%v, %d, %d, want %v, %d, %d", *m.XFeatures, size(m.XSaveSize), size(m.XSaveSizeMax), tt.usable, tt.size, tt.max)
			}
			for list, want := range map[string]bool{tt.has: true, tt.lacks: false} {
				for flag := range strings.FieldsSeq(list) {
					if has, known := m.HasFlag(flag); has != want || !known {
						t.Errorf("%s: %v (%v)", flag, has, known)
					}
				}
			}
			words := xstate.FlagsOf(m.Capability)
			for _, name := range words {
				if has, _ := m.HasFlag(name); !has && name != "xsaves" && tt.drop != "ospke" {
					t.Errorf("the words have %s", name)
				}
			}
			checkCPU(t, m)
		})
	}
}

// TestModifyEach: each flag, or every [testcmd.Step]th, can come and go, and what is left is
// a machine.
func TestModifyEach(t *testing.T) {
	flags := slices.Collect(xstate.AllFlags())
	for turn, name := range []string{"x86-64-v3", "nehalem", "sapphirerapids", "bdver4", "znver2"} {
		c, _ := ByName(name)
		for i := range testcmd.Cases(len(flags), turn) {
			f := flags[i]
			for _, tt := range []struct {
				add, drop []string
				want      bool
			}{{[]string{f.Name}, nil, true}, {nil, []string{f.Name}, false}} {
				m, err := Modify(c, tt.add, tt.drop)
				if err != nil {
					t.Fatalf("%s +%v -%v: %v", name, tt.add, tt.drop, err)
				}
				if has, known := m.HasFlag(f.Name); has != tt.want || !known {
					t.Errorf("%s +%v -%v: %v (%v)", name, tt.add, tt.drop, has, known)
				}
				checkCPU(t, m)
			}
		}
	}
}

// TestFlagNames: however a flag of the table is spelled, it is that one.
func TestFlagNames(t *testing.T) {
	for f := range xstate.AllFlags() {
		for _, spelled := range []string{f.Name, strings.ToUpper(f.Name), strings.ReplaceAll(f.Name, "_", "-"), strings.ReplaceAll(f.Name, "_", "")} {
			if name, ok := flagName(spelled); !ok || name != f.Name {
				t.Errorf("%s is %q", spelled, name)
			}
		}
	}
	for _, alias := range otherNames {
		other, name := alias[0], alias[1]
		if _, ok := xstate.LookupFlag(name); !ok {
			t.Errorf("%s stands for %s, which is no flag", other, name)
		}
		if got, _ := flagName(other); got != name {
			t.Errorf("%s is %q", other, got)
		}
	}
	if name, ok := flagName(""); ok {
		t.Errorf("nothing is %q", name)
	}
}

func FuzzModify(f *testing.F) {
	f.Add("haswell", "pku", "rtm")
	f.Add("znver2", "avx512f,mpx", "pku")
	f.Add("x86-64-v3", "xsavec", "xgetbv1,osxsave")
	f.Add("nehalem", "amx_tile,apx", "")
	split := func(list string) []string { return strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) }
	f.Fuzz(func(t *testing.T, machine, add, drop string) {
		c, ok := ByName(machine)
		if !ok {
			return
		}
		m, err := Modify(c, split(add), split(drop))
		if err != nil {
			if _, ok := errors.AsType[*FlagError](err); !ok {
				t.Fatalf("error of type %T", err)
			}
			return
		}
		for list, want := range map[string]bool{add: true, drop: false} {
			for _, spelled := range split(list) {
				name, _ := flagName(spelled)
				if has, known := m.HasFlag(name); has != want || !known {
					t.Errorf("%s: %v (%v)", name, has, known)
				}
			}
		}
		checkCPU(t, m)
		twice, err := Modify(m, split(add), split(drop))
		if err != nil || !reflect.DeepEqual(twice, m) {
			t.Errorf("%v\ntwice\n%+v\nonce\n%+v", err, twice, m)
		}
	})
}
