package cpuid

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// sampleCPUs is every kind of CPU value: recorded ones, named levels, one that
// knows nothing, one as a cpuinfo.img of old CRIU gives it.
// marshalProfile returns the document of a CPU.
func marshalProfile(c *xstate.CPU) ([]byte, error) {
	b, err := json.MarshalIndent(NewProfile(c), "", "  ")
	return append(b, '\n'), err
}

func sampleCPUs(t testing.TB) []*xstate.CPU {
	cpus := []*xstate.CPU{
		{Name: "nothing known"},
		{Name: "mask known", MXCSRMask: new(uint32(0xffff)), FXSave: new(true)},
		{Name: "old cpuinfo.img", Vendor: "intel", Capability: make([]uint32, 12), Flags: []string{}, XSave: new(false),
			UnknownFlags: xstate.UnknownFlags(nil, xstate.InWords(12))},
		{Name: "few flags known", Flags: []string{"avx"}, UnknownFlags: []string{"avx2", "sha512"}},
		{Name: "words and flags known", Capability: make([]uint32, 19), Flags: []string{"avx"}},
		{Name: "flags of the future", Flags: []string{"avx", "zz_new"}, XFeatures: new(xstate.Features(1<<62 | 7)),
			Layout: xstate.Layout{{Feature: 2, Offset: 576, Size: 256}, {Feature: 62, Offset: 832, Size: 128, Align64: true}}},
	}
	for _, tt := range recorded {
		c := CPU(loadDump(t, tt.name))
		c.Name = tt.name
		cpus = append(cpus, c)
	}
	for _, missing := range []uint32{1, 7, 0xd, 0xf, 0x80000001} {
		rec := loadDump(t, "turin")
		delete(rec, Leaf{missing, 0})
		delete(rec, Leaf{missing, 1})
		c := CPU(rec)
		c.Name = fmt.Sprintf("no leaf %#x", missing)
		cpus = append(cpus, c)
	}
	for _, name := range xstate.LevelNames() {
		c, _ := xstate.ByName(name)
		cpus = append(cpus, c)
	}
	return cpus
}

func TestProfileRoundTrip(t *testing.T) {
	for _, c := range sampleCPUs(t) {
		t.Run(c.Name, func(t *testing.T) { roundTrip(t, c) })
	}
}

// roundTrip reads the profile of a CPU back.
func roundTrip(t *testing.T, c *xstate.CPU) {
	t.Helper()
	b, err := marshalProfile(c)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseProfile(b)
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	if !reflect.DeepEqual(back, c) {
		t.Errorf("got\n%+v\nwant\n%+v", back, c)
	}
}

func TestProfileKeys(t *testing.T) {
	want := `{"schema":"fpuimg.profile/1","name":"x","vendor":null,"family":null,"model":null,"stepping":null,` +
		`"model_name":null,"fxsave":null,"xsave":null,"xfeatures_mask":null,"xfeatures_hw":null,"components":null,` +
		`"xsave_size":null,"xsave_size_max":null,"mxcsr_mask":null,"flags":null,"capability":null}`
	got, err := json.Marshal(NewProfile(&xstate.CPU{Name: "x"}))
	if err != nil || string(got) != want {
		t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
	}
	want = `{"schema":"fpuimg.profile/1","name":"y","vendor":"intel","family":6,"model":143,"stepping":8,` +
		`"model_name":"Xeon","fxsave":true,"xsave":true,"xfeatures_mask":"0x7","xfeatures_hw":"0x207",` +
		`"components":[{"bit":2,"name":"AVX","offset":576,"size":256,"align64":false}],` +
		`"xsave_size":832,"xsave_size_max":2696,"mxcsr_mask":"0xffff","flags":["avx"],"capability":["0x0","0xff"]}`
	got, err = json.Marshal(NewProfile(&xstate.CPU{
		Name: "y", Vendor: "intel", Family: new(6), Model: new(143), Stepping: new(8), ModelName: "Xeon",
		FXSave: new(true), XSave: new(true), XFeatures: new(xstate.Features(7)), XFeaturesHW: new(xstate.Features(0x207)),
		Layout: xstate.Layout{{Feature: 2, Offset: 576, Size: 256}}, XSaveSize: new(uint32(832)), XSaveSizeMax: new(uint32(2696)),
		MXCSRMask: new(uint32(0xffff)), Flags: []string{"avx"}, Capability: []uint32{0, 0xff},
	}))
	if err != nil || string(got) != want {
		t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
	}
}

func TestParseProfileRefuses(t *testing.T) {
	const avx = `{"bit":2,"name":"AVX","offset":576,"size":256,"align64":false}`
	tests := []struct{ name, body, want string }{
		{"empty", "", "ends too early"},
		{"cut off", `{"schema":"fpuimg.profile/1","na`, "ends too early"},
		{"no JSON", `CPU:`, "invalid character"},
		{"null", `null`, "schema"},
		{"array", `[]`, "cannot stand here"},
		{"other schema", `{"schema":"fpuimg.show/1"}`, "schema"},
		{"more data", `{"schema":"fpuimg.profile/1"} {}`, "more data"},
		{"typing error", `"xsave_sise":1`, "xsave_sise"},
		{"mask without 0x", `"xfeatures_mask":"e7"`, "no mask"},
		{"mask is a number", `"xfeatures_mask":231`, "no mask"},
		{"mask too wide", `"xfeatures_mask":"0x10000000000000000"`, "no mask"},
		{"word is null", `"capability":[null]`, "no mask"},
		{"size is text", `"xsave_size":"832"`, "xsave_size"},
		{"size below zero", `"xsave_size":-1`, "xsave_size"},
		{"size too small", `"xsave_size":512`, "xsave_size"},
		{"size too big", `"xsave_size":4294967295`, "xsave_size"},
		{"sizes the wrong way round", `"xsave_size":2696,"xsave_size_max":832`, "xsave_size_max"},
		{"family", `"family":4096`, "family"},
		{"model", `"model":-1`, "model"},
		{"stepping", `"stepping":16`, "stepping"},
		{"escape sequence", `"name":"\u001b[2J"`, "name"},
		{"long name", `"model_name":"` + strings.Repeat("x", 300) + `"`, "model_name"},
		{"flag with a blank", `"flags":["avx 2"]`, "flags[0]"},
		{"flag is null", `"flags":[null]`, "flags[0]"},
		{"13 words", `"capability":["0x0","0x0","0x0","0x0","0x0","0x0","0x0","0x0","0x0","0x0","0x0","0x0","0x0"]`, "capability"},
		{"no words", `"capability":[]`, "capability"},
		{"word too wide", `"capability":["0x100000000"]`, "capability[0]"},
		{"mxcsr mask 0", `"mxcsr_mask":"0x0"`, "mxcsr_mask"},
		{"XSAVE without FXSAVE", `"fxsave":false,"xsave":true`, "xsave"},
		{"AVX without XSAVE", `"xsave":false,"xfeatures_mask":"0x7"`, "xfeatures_mask"},
		{"x87 as a component", `"components":[{"bit":0,"name":"x87","offset":576,"size":160}]`, "bit 0"},
		{"bit 64", `"components":[{"bit":64,"name":"x","offset":576,"size":8}]`, "bit 64"},
		{"bit 256", `"components":[{"bit":256,"name":"x","offset":576,"size":8}]`, "cannot stand here"},
		{"component is null", `"components":[null]`, "components[0]"},
		{"wrong name", `"components":[{"bit":2,"name":"PKRU","offset":576,"size":256}]`, "bit 2 is AVX"},
		{"supervisor", `"components":[{"bit":8,"name":"PT","offset":576,"size":128}]`, "PT"},
		{"wrong size", `"components":[{"bit":2,"name":"AVX","offset":576,"size":255}]`, "256 bytes"},
		{"in the legacy area", `"components":[{"bit":2,"name":"AVX","offset":512,"size":256}]`, "do not lie"},
		{"below zero", `"components":[{"bit":2,"name":"AVX","offset":-256,"size":256}]`, "do not lie"},
		{"past the area", `"xsave_size":800,"components":[` + avx + `]`, "do not lie"},
		{"offset overflows", `"components":[{"bit":2,"name":"AVX","offset":9223372036854775807,"size":256}]`, "do not lie"},
		{"size overflows", `"components":[{"bit":62,"name":"x","offset":576,"size":9223372036854775807}]`, "do not lie"},
		{"overlap", `"components":[` + avx + `,{"bit":9,"name":"PKRU","offset":824,"size":8},{"bit":5,"name":"opmask","offset":776,"size":64}]`, "overlaps"},
		{"twice", `"components":[` + avx + `,` + avx + `]`, "twice"},
		{"not enabled", `"xfeatures_mask":"0x3","components":[` + avx + `]`, "xfeatures_mask"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			body := tt.body
			if strings.HasPrefix(body, `"`) {
				body = `{"schema":"fpuimg.profile/1",` + body + `}`
			}
			_, err := ParseProfile([]byte(body))
			e, ok := errors.AsType[*ProfileError](err)
			if !ok {
				t.Fatalf("error %v of type %T", err, err)
			}
			if !strings.Contains(e.Error(), tt.want) {
				t.Errorf("%q does not say %q", e, tt.want)
			}
		})
	}
	if _, err := ParseProfile(make([]byte, maxProfile+1)); err == nil {
		t.Error("any size is accepted")
	}
}

func TestParseProfileAccepts(t *testing.T) {
	c, err := ParseProfile([]byte(`{"schema":"fpuimg.profile/1","flags":["sse","avx","sse","a_flag_of_the_future"],"xfeatures_mask":"0xE7",
		"components":[{"bit":9,"name":"pkru","offset":832,"size":8},{"bit":2,"name":"avx","offset":576,"size":256}],"xfeatures_mask":"0x207"}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.Flags, " "); got != "a_flag_of_the_future avx sse" {
		t.Errorf("flags %s", got)
	}
	if len(c.Layout) != 2 || c.Layout[0].Feature != xstate.AVX {
		t.Errorf("layout %v", c.Layout)
	}
}

func TestCommon(t *testing.T) {
	cpus := map[string]*xstate.CPU{}
	for _, c := range sampleCPUs(t) {
		cpus[c.Name] = c
	}
	tests := []struct {
		of       string
		usable   xstate.Features
		known    bool
		vendor   string
		size     uint32 // 0: unknown
		layout   int    // components, -1: unknown
		has, not string
	}{
		{"spr", 0x602e7, true, "intel", 11008, 6 + 1, "amx_tile", "sse4a"},
		{"spr haswell", 7, true, "intel", 0, 1, "avx2 fma", "avx512f pku"},
		{"spr turin", 0xe7, true, "", 0, -1, "avx512f", "pku amx_tile xsaves"},
		{"haswell epyc", 7, true, "", 832, 1, "avx2", "xsavec"},
		{"spr nehalem", 3, true, "intel", 0, 0, "sse4_2", "avx xsave"},
		{"spr x86-64-v3", 7, true, "", 0, -1, "avx2", "aes"},
		{"x86-64-v2 x86-64-v4", 3, true, "", 0, -1, "sse4_2", "avx"},
		{"spr nothing_known", 0x602e7, true, "", 0, -1, "amx_tile", "sse4a"},
		{"nothing_known nothing_known", 3, false, "", 0, -1, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.of, func(t *testing.T) {
			var in []*xstate.CPU
			for name := range strings.FieldsSeq(tt.of) {
				in = append(in, cpus[strings.ReplaceAll(name, "_", " ")])
			}
			c := Common(in...)
			if c.Name != "common" || c.Vendor != tt.vendor {
				t.Errorf("name %q, vendor %q", c.Name, c.Vendor)
			}
			if usable, known := c.Usable(); usable != tt.usable || known != tt.known {
				t.Errorf("usable %v (%v), want %v", usable, known, tt.usable)
			}
			if got := orZero(c.XSaveSize); got != int(tt.size) {
				t.Errorf("xsave_size %d, want %d", got, tt.size)
			}
			if got := len(c.Layout); c.Layout == nil && tt.layout >= 0 || c.Layout != nil && got != tt.layout {
				t.Errorf("layout %v, want %d components", c.Layout, tt.layout)
			}
			for name := range strings.FieldsSeq(tt.has) {
				if has, _ := c.HasFlag(name); !has {
					t.Errorf("lacks %s", name)
				}
			}
			for name := range strings.FieldsSeq(tt.not) {
				if has, known := c.HasFlag(name); has || !known {
					t.Errorf("has %s", name)
				}
			}
		})
	}
}

func TestCommonLaws(t *testing.T) {
	cpus := sampleCPUs(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	same := func(what string, a, b *xstate.CPU) {
		t.Helper()
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s:\n%+v\n%+v", what, a, b)
		}
	}
	for _, a := range cpus {
		before, _ := marshalProfile(a)
		one := Common(a)
		same("idempotent "+a.Name, Common(a, a), one)
		same("Common of Common "+a.Name, Common(one), one)
		for _, b := range cpus {
			ab := Common(a, b)
			same("commutative "+a.Name+" "+b.Name, Common(b, a), ab)
			same("absorbs "+a.Name+" "+b.Name, Common(ab, ab), ab)
			c := cpus[rnd.IntN(len(cpus))]
			same("order of three", Common(c, b, a), Common(a, b, c))
			doc, _ := marshalProfile(ab)
			if _, err := ParseProfile(doc); err != nil {
				t.Errorf("%s and %s: %v\n%s", a.Name, b.Name, err, doc)
			}
			// It fits both: nothing is there that one of them lacks.
			for _, m := range []*xstate.CPU{a, b} {
				mine, ok := m.Usable()
				if all, known := ab.Usable(); ok && (!known || all&^mine != 0) {
					t.Errorf("%s and %s: %v is too much for %s", a.Name, b.Name, all&^mine, m.Name)
				}
				if mask := ab.MXCSRMask; m.MXCSRMask != nil && (mask == nil || *mask&^*m.MXCSRMask != 0) {
					t.Errorf("%s and %s: MXCSR mask %v is too much for %s", a.Name, b.Name, mask, m.Name)
				}
				if m.Flags != nil && ab.Flags == nil {
					t.Errorf("%s and %s: no flags", a.Name, b.Name)
				}
				for _, f := range ab.Flags {
					if has, known := m.HasFlag(f); known && !has {
						t.Errorf("%s and %s: %s is not in %s", a.Name, b.Name, f, m.Name)
					}
				}
				for _, f := range ab.UnknownFlags {
					if _, known := m.HasFlag(f); known {
						t.Errorf("%s and %s: %s is unknown, and %s records it", a.Name, b.Name, f, m.Name)
					}
				}
			}
		}
		if after, _ := marshalProfile(a); string(after) != string(before) {
			t.Errorf("%s was changed", a.Name)
		}
	}
	same("none", Common(), &xstate.CPU{Name: "common"})
}

func FuzzParseProfile(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*.json")
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"schema":"fpuimg.profile/1","components":[{"bit":62,"name":"LWP","offset":832,"size":128}],"capability":["0x0"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseProfile(b)
		if err != nil {
			if _, ok := errors.AsType[*ProfileError](err); !ok {
				t.Fatalf("error of type %T", err)
			}
			return
		}
		roundTrip(t, c)
		Common(c, c)
	})
}
