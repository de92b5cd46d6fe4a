package main

import (
	"bytes"
	enchex "encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// The document of schema fpuimg.show/1 as it is promised. These types are written
// from the promise, not from the code that prints it: keep it so.
type (
	jsonShow struct {
		Schema string
		Images []jsonImage
	}
	jsonImage struct {
		Path, Kind string
		Error      *jsonError
		CPU        *jsonProfile
		Findings   []jsonFinding
		Threads    []jsonThread
	}
	jsonError struct {
		File    string
		Offset  int64
		Field   string
		Message string
	}
	jsonProfile struct {
		Schema        string
		Name, Vendor  *string
		Family, Model *int
		Stepping      *int
		ModelName     *string `json:"model_name"`
		FXSave, XSave *bool
		XFeaturesMask *string `json:"xfeatures_mask"`
		XFeaturesHW   *string `json:"xfeatures_hw"`
		Components    []jsonPlacement
		XSaveSize     *int    `json:"xsave_size"`
		XSaveSizeMax  *int    `json:"xsave_size_max"`
		MXCSRMask     *string `json:"mxcsr_mask"`
		Flags         []string
		Capability    []string
	}
	jsonPlacement struct {
		Bit          int
		Name         string
		Offset, Size int
		Align64      bool
	}
	jsonFinding struct {
		Rule, Severity       string
		Components, Features []string
		Reason, Hint         string
	}
	jsonThread struct {
		PID, TID   int
		Comm, File string
		Mode       string
		Format     string
		XStateBV   string `json:"xstate_bv"`
		Components []struct {
			Bit         int
			Name, State string
			Size        int
		}
		Findings  []jsonFinding
		Registers *jsonRegisters
	}
	jsonRegisters struct {
		FCW, FSW, FTW, FOP, FIP, FDP string
		MXCSR                        string
		MXCSRMask                    string `json:"mxcsr_mask"`
		ST                           []string
		Vector                       []struct{ Name, Hex string }
		K                            []string
		PKRU                         string
		Bnd                          []struct{ Lower, Upper string }
		BndCfgU, BndStatus           string
		CET, SSP                     string
		TileCfg                      string
		TMM                          []string
	}
)

// jsonKeys are the keys of each kind of object, in their order.
var jsonKeys = map[string]string{
	"":                   "schema images",
	"images":             "path kind cpu threads findings error",
	"error":              "file offset field message",
	"findings":           "rule severity components features reason hint",
	"threads":            "pid tid comm file mode format xstate_bv components findings",
	"threads.components": "bit name state size",
	"vector":             "name hex",
	"bnd":                "lower upper",
	"cpu": "schema name vendor family model stepping model_name fxsave xsave xfeatures_mask xfeatures_hw " +
		"components xsave_size xsave_size_max mxcsr_mask flags capability",
}

const registerKeys = "fcw fsw ftw fop fip fdp mxcsr mxcsr_mask st vector k pkru bnd bndcfgu bndstatus cet ssp tilecfg tmm"

// matchKeys walks a document and compares the keys of every object with jsonKeys.
// The path names the keys on the way, without those of images.
func matchKeys(t *testing.T, dec *json.Decoder, path []string) {
	tok, err := dec.Token()
	if err != nil {
		t.Fatal(err)
	}
	switch tok {
	case json.Delim('['):
		for dec.More() {
			matchKeys(t, dec, path)
		}
		dec.Token()
	case json.Delim('{'):
		var keys []string
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, key.(string))
			matchKeys(t, dec, append(slices.Clone(path), key.(string)))
		}
		dec.Token()
		last := ""
		if len(path) > 0 {
			last = path[len(path)-1]
		}
		if last == "components" && slices.Contains(path, "threads") {
			last = "threads.components"
		}
		got, want := strings.Join(keys, " "), jsonKeys[last]
		switch {
		case last == "registers":
			// Any of them, in this order.
			want = strings.Join(slices.DeleteFunc(strings.Fields(registerKeys), func(k string) bool { return !slices.Contains(keys, k) }), " ")
		case last == "threads" && slices.Contains(keys, "registers"):
			want += " registers"
		}
		if got != want {
			t.Errorf("%s: keys %s, want %s", strings.Join(path, "."), got, want)
		}
	}
}

var (
	numberRE = regexp.MustCompile(`^0x(0|[1-9a-f][0-9a-f]*)$`)
	valueRE  = regexp.MustCompile(`^0x[0-9a-f]+$`)
)

// showJSON runs show --json and reads the document strictly.
func showJSON(t *testing.T, args ...string) jsonShow {
	t.Helper()
	stdout, _, _ := capture(t, append([]string{"show", "--json"}, args...)...)
	matchKeys(t, json.NewDecoder(bytes.NewReader(stdout)), nil)
	dec := json.NewDecoder(bytes.NewReader(stdout))
	dec.DisallowUnknownFields()
	var doc jsonShow
	if err := dec.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if dec.More() {
		t.Error("more than one document")
	}
	if doc.Schema != "fpuimg.show/1" {
		t.Errorf("schema %q", doc.Schema)
	}
	return doc
}

func checkNumber(t *testing.T, what, v string) {
	t.Helper()
	if v != "" && !numberRE.MatchString(v) {
		t.Errorf("%s: %q is no mask or number", what, v)
	}
}

// checkValue wants a full-width value.
func checkValue(t *testing.T, what, v string, size int) {
	t.Helper()
	if len(v) != 2+2*size || !valueRE.MatchString(v) {
		t.Errorf("%s: %q is no value of %d bytes", what, v, size)
	}
}

func checkFindings(t *testing.T, fs []jsonFinding) {
	t.Helper()
	if fs == nil {
		t.Error("findings: null")
	}
	for _, f := range fs {
		if f.Components == nil || f.Features == nil {
			t.Errorf("%s: a list is null", f.Rule)
		}
		if !slices.Contains([]string{"note", "risky", "fatal"}, f.Severity) || f.Reason == "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestShowJSONSchema(t *testing.T) {
	var paths []string
	for _, tr := range testimg.All(t, testimg.CRIU, testimg.Edited) {
		paths = append(paths, tr.Name)
	}
	paths = append(paths, "no-such-image", "src")
	for _, path := range testimg.Glob(t, "bad/*.img") {
		paths = append(paths, testimg.Name(t, path))
	}
	doc := showJSON(t, append([]string{"--regs"}, paths...)...)
	if len(doc.Images) != len(paths) {
		t.Fatalf("%d images of %d", len(doc.Images), len(paths))
	}
	for i, img := range doc.Images {
		if img.Path != paths[i] || img.Kind != "criu" {
			t.Errorf("image %d is %s %s, want %s", i, img.Kind, img.Path, paths[i])
		}
		if img.Threads == nil {
			t.Errorf("%s: threads: null", img.Path)
		}
		if img.Error != nil && (img.Error.File == "" || img.Error.Message == "") {
			t.Errorf("%s: error %+v", img.Path, img.Error)
		}
		if (img.Error != nil) != (len(img.Threads) == 0) {
			t.Errorf("%s: %d threads, error %v", img.Path, len(img.Threads), img.Error)
		}
		checkFindings(t, img.Findings)
		if c := img.CPU; c != nil {
			for _, v := range append(slices.Clone(c.Capability), *c.XFeaturesMask, *c.XFeaturesHW) {
				checkNumber(t, "cpu", v)
			}
		}
		for _, th := range img.Threads {
			t.Run(fmt.Sprintf("%s/%d", img.Path, th.TID), func(t *testing.T) { checkShowThread(t, &th) })
		}
	}
}

func checkShowThread(t *testing.T, th *jsonThread) {
	checkFindings(t, th.Findings)
	checkNumber(t, "xstate_bv", th.XStateBV)
	if th.Components == nil || th.Registers == nil {
		t.Fatal("components or registers: null")
	}
	states := map[string]string{}
	for _, c := range th.Components {
		states[c.Name] = c.State
		if !slices.Contains([]string{"init", "zero", "in-use", "lost"}, c.State) || c.Size == 0 {
			t.Errorf("component %+v", c)
		}
	}
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return states[n] != "" && states[n] != "lost" })
	}
	r := th.Registers
	for i, v := range []string{r.FCW, r.FSW, r.FTW, r.FOP, r.FIP, r.FDP, r.MXCSR, r.MXCSRMask, r.PKRU, r.BndCfgU, r.BndStatus, r.CET, r.SSP} {
		checkNumber(t, strings.Fields(registerKeys)[i], v)
	}
	for _, v := range r.ST {
		checkValue(t, "st", v, 10)
	}
	for _, v := range r.K {
		checkValue(t, "k", v, 8)
	}
	want := []struct {
		key  string
		n, w int // how many there are, and must be
	}{
		{"st", len(r.ST), 8 * btoi(has("x87"))},
		{"fcw", btoi(r.FCW != ""), btoi(has("x87"))},
		{"mxcsr", btoi(r.MXCSR != ""), btoi(has("SSE"))},
		{"k", len(r.K), 8 * btoi(has("opmask"))},
		{"pkru", btoi(r.PKRU != ""), btoi(has("PKRU"))},
		{"bnd", len(r.Bnd), 4 * btoi(has("BNDREGS"))},
		{"bndcfgu", btoi(r.BndCfgU != ""), btoi(has("BNDCSR"))},
		{"tilecfg", btoi(r.TileCfg != ""), btoi(has("TILECFG"))},
		{"tmm", len(r.TMM), 8 * btoi(has("TILEDATA"))},
	}
	for _, w := range want {
		if w.n != w.w {
			t.Errorf("%s: have %d, want %d; components %v", w.key, w.n, w.w, states)
		}
	}
	prefix, size, n := "xmm", 16, 16
	switch {
	case th.Format == "none":
		n = 0
	case has("ZMM_Hi256", "Hi16_ZMM"):
		prefix, size = "zmm", 64
		if has("Hi16_ZMM") {
			n = 32
		}
	case has("AVX"):
		prefix, size = "ymm", 32
	}
	if th.Mode == "compat" {
		n = 8
	}
	if len(r.Vector) != n {
		t.Errorf("%d vector registers, want %d", len(r.Vector), n)
	}
	for i, v := range r.Vector {
		if v.Name != prefix+strconv.Itoa(i) {
			t.Errorf("vector %d is %s", i, v.Name)
		}
		checkValue(t, v.Name, v.Hex, size)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestShowJSONTruth compares registers in the document with what the dumped
// programs said, by means of this file alone.
func TestShowJSONTruth(t *testing.T) {
	for _, tr := range testimg.All(t, testimg.CRIU, testimg.Edited) {
		if tr.Name == "old-nofpregs" { // its record was taken out
			continue
		}
		t.Run(tr.Name, func(t *testing.T) {
			threads := map[string]jsonThread{}
			for _, th := range showJSON(t, "--regs", tr.Name).Images[0].Threads {
				threads[th.File] = th
			}
			compared := 0
			check := func(what, got string, want []byte) {
				t.Helper()
				compared++
				if g := little(t, got); !bytes.Equal(g[:min(len(want), len(g))], want) {
					t.Errorf("%s = %s, want %x, little endian", what, got, want)
				}
			}
			number := func(what, got string, want *testimg.Uint) {
				t.Helper()
				if want == nil || got == "" {
					return
				}
				compared++
				if got != fmt.Sprintf("0x%x", uint64(*want)) {
					t.Errorf("%s = %s, want %#x", what, got, uint64(*want))
				}
			}
			for _, task := range tr.Tasks {
				for _, want := range task.Threads {
					th, ok := threads[want.Image]
					if !ok {
						t.Fatalf("no thread of %s", want.Image)
					}
					r := th.Registers
					number("fcw", r.FCW, want.FCW)
					number("fsw", r.FSW, want.FSW)
					number("ftw", r.FTW, want.FTW)
					number("mxcsr", r.MXCSR, want.MXCSR)
					number("pkru", r.PKRU, want.PKRU)
					for i, v := range want.ST {
						check(fmt.Sprintf("st%d", i), r.ST[i], v)
					}
					for _, regs := range [][]testimg.Bytes{want.XMM, want.YMM, want.ZMM} {
						for i, v := range regs {
							check(r.Vector[i].Name, r.Vector[i].Hex, v)
						}
					}
					for i, v := range want.K {
						if i < len(r.K) {
							compared++
							if r.K[i] != fmt.Sprintf("0x%016x", uint64(v)) {
								t.Errorf("k%d = %s, want %#x", i, r.K[i], uint64(v))
							}
						}
					}
				}
			}
			if compared == 0 {
				t.Error("nothing was compared")
			}
		})
	}
}

// little turns "0x..." into bytes, the least significant first.
func little(t *testing.T, v string) []byte {
	t.Helper()
	b, err := enchex.DecodeString(strings.TrimPrefix(v, "0x"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(b)
	return b
}
