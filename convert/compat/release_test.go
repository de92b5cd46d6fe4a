package compat_test

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
)

func release(t *testing.T, s string) xstate.Release {
	t.Helper()
	r, err := compat.ParseRelease(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestParseRelease(t *testing.T) {
	for s, want := range map[string]string{
		"3.11": "3.11", "3.17.1": "3.17.1", "v3.19": "3.19", "4.0": "4.0", "4.1.1": "4.1.1", "4.2.1": "4.2.1", "4.3": "4.3", "4.2.0": "4.2",
	} {
		if r, err := compat.ParseRelease(s); err != nil || r.String() != want {
			t.Errorf("%s: got %v, %v, want %s", s, r, err, want)
		}
	}
	for _, s := range []string{"", "4", "3.10", "3.20", "4.4", "5.0", "2.12", "3.17.1.1", "3.17.x", "-3.17", "3.-17", "3.17.1-2+deb12u2", "3.99999999999999999999", "latest"} {
		if r, err := compat.ParseRelease(s); err == nil {
			t.Errorf("%q: got %v, want an error", s, r)
		}
	}
}

// every lists the releases of CRIU that are predicted, patch releases left out.
func every(t *testing.T) []xstate.Release {
	var all []xstate.Release
	for _, s := range strings.Fields("3.11 3.12 3.13 3.14 3.15 3.16 3.17 3.18 3.19 4.0 4.1 4.2 4.3") {
		all = append(all, release(t, s))
	}
	if all[0] != compat.OldestCRIU || all[len(all)-1] != xstate.NewestCRIU {
		t.Fatalf("%v to %v are predicted", compat.OldestCRIU, xstate.NewestCRIU)
	}
	return all
}

// shortPrediction is what becomes of a checkpoint of one thread.
func shortPrediction(r compat.Prediction) string {
	switch {
	case r.Class != nil:
		return string(*r.Class)
	case r.Outcome == compat.RestoresLosing:
		return "losing:" + strings.Join(r.Loses, ",")
	}
	return string(r.Outcome)
}

// TestReleases is what each release does where they differ, by CRIU's source at the tags.
// The guests of vmtest show what some of them do.
func TestReleases(t *testing.T) {
	intel := func(xcr0 xstate.Features, size uint32) *xstate.CPU { return family("Intel", "intel", xcr0, size, true) }
	amd := func(xcr0 xstate.Features, size uint32) *xstate.CPU { return family("AMD", "amd", xcr0, size, true) }
	of := func(vendor string) *xstate.CPU { return family("Other", vendor, 0x7, 832, true) }
	recorded := func(c *xstate.CPU, hw xstate.Features, flags ...string) *xstate.CPU {
		words := xstate.CapabilityMask(append(flags, "fpu", "fxsr", "osxsave", "xsave")...)
		c.Capability = words[:]
		c.XFeaturesHW = &hw
		return c
	}
	hi16 := xsave(use(xstate.Hi16ZMM, "zmm28"), use(xstate.AVX, "ymm0"))
	shadow := xsave(array(xstate.AVX), shadowStack(1))
	shstk := amd(0x7, 832)
	shstk.Flags = slices.Sorted(slices.Values(append(shstk.Flags, "user_shstk")))
	noYMM := xsave(func(s *xstate.State) { s.SetData(xstate.AVX, nil) })
	long := xsave(sized(xstate.AVX, 260))

	tests := []struct {
		name         string
		source, host *xstate.CPU
		state        *xstate.State
		pages        compat.Pages
		cap          compat.Cap
		want         string // of 3.11, then from which release on another: "restores 3.14:array-size"
	}{
		{"AVX", nil, amd(0x7, 832), xsave(use(xstate.AVX, "ymm0")), compat.Pages{}, compat.CapDefault, "restores"},
		{"no YMM array", nil, amd(0x7, 832), noYMM, compat.Pages{}, compat.CapDefault, "array-size 3.13:restores"},
		{"no YMM array on a host without XSAVE", nil, amd(0, 0), noYMM, compat.Pages{}, compat.CapNone, "restores"},
		{"long array with its bit clear", nil, amd(0x7, 832), long, compat.Pages{}, compat.CapDefault, "array-size 3.18:restores"},
		{"Intel's AVX-512 area has a hole where MPX was", nil, intel(0x2e7, 2696), hi16, compat.Pages{}, compat.CapDefault, "losing:Hi16_ZMM 3.15:restores"},
		{"and with MPX there are no bounds", nil, intel(0x2ff, 2696), hi16, compat.Pages{}, compat.CapDefault, "losing:Hi16_ZMM 3.15:restores"},
		{"nobody uses what the mark overwrites", nil, intel(0x2e7, 2696), xsave(use(xstate.AVX, "ymm0")), compat.Pages{}, compat.CapDefault, "restores"},
		{"AMD's has none", nil, amd(0x2e7, 2440), hi16, compat.Pages{}, compat.CapDefault, "restores"},
		{"the mark lands in the hole before PKRU", nil, intel(0x207, 2696), xsave(use(xstate.AVX, "ymm0"), pkru(0xf0)), compat.Pages{}, compat.CapDefault, "restores"},
		{"whose layout, nobody knows", nil, level(t, "x86-64-v4"), hi16, compat.Pages{}, compat.CapDefault, "unknown 3.15:restores"},
		{"a shadow stack", nil, shstk, shadow, compat.Pages{}, compat.CapDefault, "losing:CET_U 4.0:restores"},
		{"a shadow stack, and a host without", nil, amd(0x7, 832), shadow, compat.Pages{}, compat.CapDefault, "losing:CET_U"},
		{"a mask that is not a subset and not greater", recorded(intel(0x1f, 960), 0x1f, "avx", "mpx"), recorded(intel(0x207, 960), 0x207, "avx", "pku"),
			xsave(), compat.Pages{}, compat.CapFPU, "ins 3.14:xfeatures"},
		{"a mask that is greater", recorded(intel(0x207, 960), 0x207, "avx", "pku"), recorded(intel(0x1f, 960), 0x1f, "avx", "mpx"),
			xsave(), compat.Pages{}, compat.CapFPU, "xfeatures"},
		{"Hygon", nil, of("hygon"), xsave(), compat.Pages{}, compat.CapDefault, "xsave-record 3.13:restores"},
		{"Hygon, ignoring the FPU", nil, of("hygon"), xsave(use(xstate.AVX, "ymm0")), compat.Pages{}, compat.CapNone, "losing:AVX 3.13:restores"},
		{"Zhaoxin", nil, of("zhaoxin"), xsave(), compat.Pages{}, compat.CapDefault, "xsave-record"},
		{"Zhaoxin and FXSAVE", nil, of("zhaoxin"), fxsave(), compat.Pages{}, compat.CapDefault, "restores"},
		{"Zhaoxin and cpuinfo.img", recorded(intel(0x7, 832), 0x7, "avx"), of("zhaoxin"), fxsave(), compat.Pages{}, compat.CapFPU, "fpu-bits"},
		{"wide page counts", nil, amd(0x7, 832), xsave(array(xstate.AVX)), compat.Pages{Wide: true}, compat.CapDefault, "unparseable 4.2:restores"},
		{"wide page counts where the record is refused", nil, amd(0, 0), xsave(), compat.Pages{Wide: true}, compat.CapDefault, "xsave-record"},
		{"compressed pages", nil, amd(0x7, 832), fxsave(), compat.Pages{Wide: true, Packed: true}, compat.CapNone, "unparseable 4.3:restores"},
		{"pages that could not be read", nil, amd(0x7, 832), fxsave(), compat.Pages{Unread: "no"}, compat.CapNone, "unknown 4.2:restores"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			steps := strings.Fields(tt.want)
			want, steps := steps[0], steps[1:]
			for _, r := range every(t) {
				if len(steps) > 0 {
					if since, then, _ := strings.Cut(steps[0], ":"); r == release(t, since) {
						want, steps = then, steps[1:]
					}
				}
				j := compat.Judge(compat.Target{Host: tt.host, CRIU: r}, compat.Policy{})
				j.Taken(tt.source)
				j.Pages(tt.pages)
				j.Thread(compat.Thread{State: tt.state})
				if got := shortPrediction(j.Predict(tt.cap)); got != want {
					t.Errorf("CRIU %v: got %s, want %s: %+v", r, got, want, j.Predict(tt.cap))
				}
			}
			if len(steps) > 0 {
				t.Errorf("%v: no such release", steps)
			}
		})
	}
}

// TestOverrunByRelease is a buffer for XSAVEC, which writes what is in use: before 3.18
// CRIU leaves all in use that the host has.
func TestOverrunByRelease(t *testing.T) {
	zen3 := family("Zen 3", "amd", 0x207, 2440, true)
	zen4 := family("Zen 4", "amd", 0x2e7, 2440, true)
	skylakeSP := family("Skylake-SP", "intel", 0x2ff, 2696, true)
	iceLakeSP := family("Ice Lake SP", "intel", 0x2e7, 2696, true)
	for _, tt := range []struct {
		source, host *xstate.CPU
		lazy         int // bytes that glibc 2.36 takes on the source
		overrun      int // 0: none
	}{
		{zen3, zen4, 896, 1600},
		{zen3, iceLakeSP, 896, 1600},
		{zen4, zen3, 2496, 0},
		{zen4, iceLakeSP, 2496, 0},
		{iceLakeSP, skylakeSP, 2496, 64}, // which lays the bounds out, but has nothing to write there
		{skylakeSP, iceLakeSP, 2560, 0},
		{zen3, zen3, 896, 0},
	} {
		for _, r := range every(t) {
			want := r.Before(release(t, "3.18")) && tt.overrun > 0
			target := compat.Target{Host: tt.host, CRIU: r}
			j := compat.Judge(target, compat.Policy{})
			j.Taken(tt.source)
			at := func(id compat.Rule, findings []compat.Finding) *compat.Finding {
				i := slices.IndexFunc(findings, func(f compat.Finding) bool { return f.Rule == id && f.Severity == compat.Risky })
				if i < 0 {
					return nil
				}
				return &findings[i]
			}
			if got := at(compat.XSaveSizeDiffers, j.Findings); (got != nil) != want {
				t.Errorf("%s to %s with CRIU %v: %+v, want risky %v", tt.source.Name, tt.host.Name, r, j.Findings, want)
			}
			j = compat.Judge(target, compat.Policy{})
			j.Code([]*facts.Process{{Save: &facts.Save{Kind: facts.XSaveC, Size: tt.lazy, Lazy: 3}}})
			got := at(compat.LazySave, j.Tasks[0].Findings)
			if (got != nil) != want {
				t.Errorf("%s to %s with CRIU %v: %+v, want risky %v", tt.source.Name, tt.host.Name, r, j.Tasks[0].Findings, want)
			} else if want && !strings.Contains(got.Reason, "overruns it by "+strconv.Itoa(tt.overrun)+" bytes") {
				t.Errorf("%s to %s: %s, want %d bytes", tt.source.Name, tt.host.Name, got.Reason, tt.overrun)
			}
		}
	}
}

// TestReleasesDocumented: COMPATIBILITY.md has a row for each release that changes what is
// predicted.
func TestReleasesDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/COMPATIBILITY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text2, ok := strings.Cut(string(text), "\n## CRIU by release\n")
	if !ok {
		t.Fatal("no section on CRIU by release")
	}
	section, _, _ := strings.Cut(text2, "\n## ")
	var rows []string
	for _, m := range regexp.MustCompile(`(?m)^\| (\d\.\d+) \|`).FindAllStringSubmatch(section, -1) {
		rows = append(rows, m[1])
	}
	for _, r := range compat.ChangedIn() {
		if !slices.Contains(rows, r.String()) {
			t.Errorf("no row of %v", r)
		}
	}
	if !slices.IsSortedFunc(rows, func(a, b string) int {
		if release(t, a).Before(release(t, b)) {
			return -1
		}
		return 1
	}) {
		t.Errorf("rows out of order: %v", rows)
	}
}
