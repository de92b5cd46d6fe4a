package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/cmd/internal/view"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// The documents as the contract describes them, apart from the structs that print
// them.
type (
	findingContract struct {
		Rule       *string   `json:"rule"`
		Severity   *string   `json:"severity"`
		Components *[]string `json:"components"`
		Features   *[]string `json:"features"`
		Reason     *string   `json:"reason"`
		Hint       *string   `json:"hint"`
	}
	errorContract struct {
		File    *string `json:"file"`
		Offset  *int64  `json:"offset"`
		Field   *string `json:"field"`
		Message *string `json:"message"`
	}
	lossContract struct {
		Component *string   `json:"component"`
		Registers *[]string `json:"registers"`
		Dead      *string   `json:"dead" null:"ok"` // left out where the values are lost
	}
	codeContract struct {
		Source  *profileContract `json:"source" null:"ok"`
		Objects *[]struct {
			Path    *string `json:"path"`
			BuildID *string `json:"build_id"`
			Status  *string `json:"status"`
		} `json:"objects"`
		Tasks *[]struct {
			PID   *int    `json:"pid"`
			Libc  *string `json:"libc" null:"ok"`
			IFUNC *struct {
				Slots *int      `json:"slots"`
				Needs *[]string `json:"needs"`
			} `json:"ifunc" null:"ok"`
			Save *struct {
				Kind *string `json:"kind"`
				Size *int    `json:"size"`
				Lazy *int    `json:"lazy"`
			} `json:"save" null:"ok"`
		} `json:"tasks"`
		Unknown *[]string `json:"unknown"`
	}
	predictionContract struct {
		Outcome *string   `json:"outcome"`
		Class   *string   `json:"class" null:"ok"`
		Loses   *[]string `json:"loses"`
		Reason  *string   `json:"reason"`
	}
	profileContract struct {
		Schema     *string `json:"schema"`
		Name       *string `json:"name" null:"ok"`
		Vendor     *string `json:"vendor" null:"ok"`
		Family     *int    `json:"family" null:"ok"`
		Model      *int    `json:"model" null:"ok"`
		Stepping   *int    `json:"stepping" null:"ok"`
		ModelName  *string `json:"model_name" null:"ok"`
		FXSave     *bool   `json:"fxsave" null:"ok"`
		XSave      *bool   `json:"xsave" null:"ok"`
		Mask       *string `json:"xfeatures_mask" null:"ok"`
		HW         *string `json:"xfeatures_hw" null:"ok"`
		Components *[]struct {
			Bit     *int    `json:"bit"`
			Name    *string `json:"name"`
			Offset  *int    `json:"offset"`
			Size    *int    `json:"size"`
			Align64 *bool   `json:"align64"`
		} `json:"components" null:"ok"`
		Size       *int      `json:"xsave_size" null:"ok"`
		SizeMax    *int      `json:"xsave_size_max" null:"ok"`
		MXCSRMask  *string   `json:"mxcsr_mask" null:"ok"`
		Flags      *[]string `json:"flags" null:"ok"`
		Capability *[]string `json:"capability" null:"ok"`
		Unknown    *[]string `json:"unknown_flags" null:"ok"` // left out where there are none
	}
	checkContract struct {
		Schema *string            `json:"schema"`
		Hosts  *[]profileContract `json:"hosts"`
		Images *[]struct {
			Path    *string        `json:"path"`
			Kind    *string        `json:"kind"`
			Error   *errorContract `json:"error" null:"ok"`
			Code    *codeContract  `json:"code" null:"ok"`
			Results *[]struct {
				Host     *int               `json:"host"`
				Verdict  *string            `json:"verdict"`
				Findings *[]findingContract `json:"findings"`
				CRIU     *struct {
					Default *predictionContract `json:"default"`
					None    *predictionContract `json:"none"`
					FPU     *predictionContract `json:"fpu"`
					INS     *predictionContract `json:"ins"`
					CPU     *predictionContract `json:"cpu"`
				} `json:"criu"`
				Release *string `json:"criu_version"`
				Tasks   *[]struct {
					PID      *int               `json:"pid"`
					Verdict  *string            `json:"verdict"`
					Unfit    *int               `json:"unfit"`
					Findings *[]findingContract `json:"findings"`
				} `json:"tasks"`
				Threads *[]struct {
					TID      *int               `json:"tid"`
					Verdict  *string            `json:"verdict"`
					Findings *[]findingContract `json:"findings"`
					Lost     *[]lossContract    `json:"lost"`
				} `json:"threads"`
			} `json:"results"`
		} `json:"images"`
	}
	convertContract struct {
		Schema *string `json:"schema"`
		Images *[]struct {
			Path     *string            `json:"path"`
			Output   *string            `json:"output" null:"ok"`
			Verdict  *string            `json:"verdict" null:"ok"`
			Changed  *bool              `json:"changed"`
			Error    *errorContract     `json:"error" null:"ok"`
			Findings *[]findingContract `json:"findings"`
			CPUInfo  *[]struct {
				Field *string `json:"field"`
				From  *string `json:"from" null:"ok"`
				To    *string `json:"to" null:"ok"`
			} `json:"cpuinfo"`
			Threads *[]struct {
				TID     *int    `json:"tid"`
				From    *string `json:"from"`
				To      *string `json:"to"`
				Actions *[]struct {
					Component *string `json:"component"`
					Action    *string `json:"action"`
					Lossless  *bool   `json:"lossless"`
				} `json:"actions"`
				Lost *[]lossContract `json:"lost"`
			} `json:"threads"`
		} `json:"images"`
	}
	diffContract struct {
		Schema  *string `json:"schema"`
		A       *string `json:"a"`
		B       *string `json:"b"`
		Threads *[]struct {
			A           *int `json:"a" null:"ok"`
			B           *int `json:"b" null:"ok"`
			Differences *[]struct {
				Component *string `json:"component"`
				Register  *string `json:"register"`
				A         *string `json:"a" null:"ok"`
				B         *string `json:"b" null:"ok"`
			} `json:"differences"`
		} `json:"threads"`
	}
)

// strict reads one document and refuses keys that the contract does not have, keys
// that are missing, and null where it does not allow it.
func strict[T any](t *testing.T, b []byte) *T {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	doc := new(T)
	if err := dec.Decode(doc); err != nil {
		t.Fatalf("%v in\n%.2000s", err, b)
	}
	if _, err := dec.Token(); err != io.EOF {
		t.Fatalf("more than one document: %v", err)
	}
	noNulls(t, "document", reflect.ValueOf(doc).Elem())
	return doc
}

func noNulls(t *testing.T, at string, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Pointer:
		noNulls(t, at, v.Elem())
	case reflect.Slice:
		for i := range v.Len() {
			noNulls(t, fmt.Sprintf("%s[%d]", at, i), v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name := at + "." + f.Tag.Get("json")
			switch {
			case !v.Field(i).IsNil():
				noNulls(t, name, v.Field(i))
			case f.Tag.Get("null") == "":
				t.Fatalf("%s is null or missing", name)
			}
		}
	}
}

// fpuimg runs the program and returns what it printed.
func fpuimg(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// checkpoints are the test images that check and convert read: paths by name.
func checkpoints(t *testing.T) []string {
	var out []string
	for _, path := range append(testimg.Glob(t, "*/pstree.img"), testimg.Glob(t, "bad/v0*.img")...) {
		if filepath.Base(path) == "pstree.img" {
			path = filepath.Dir(path)
		}
		out = append(out, path)
	}
	return out
}

// machines are the profiles of all kinds: levels, recorded CPUs, cpuinfo.img of
// CRIU's.
func machines(t *testing.T) []string {
	out := xstate.LevelNames()
	profiles, err := filepath.Glob("../../codec/cpuid/testdata/*.json")
	if err != nil || len(profiles) < 6 {
		t.Fatalf("%d recorded profiles, %v", len(profiles), err)
	}
	out = append(out, profiles...)
	for _, name := range []string{"h-sse", "g-qemu64-criu42-auto", "g-nehalem-criu42-auto", "g-sandybridge-criu42-auto",
		"g-haswell-criu42-sse", "g-epyc-criu42-auto", "g-epycmilan-criu42-auto", "g-max-criu42-auto", "g-maxnopku-criu42-sse"} {
		out = append(out, testimg.Path(t, name))
	}
	return out
}

func TestCheckJSON(t *testing.T) {
	args := []string{"check", "--json", "--host=x86-64", "--host=x86-64-v3", "--host=" + testimg.Path(t, "h-sse"),
		"--host=../../codec/cpuid/testdata/haswell.json", "../../codec/cpuid/testdata", "nowhere", testimg.Path(t, "bad", "b09-magic2.img")}
	code, out, _ := fpuimg(t, append(args, checkpoints(t)...)...)
	if code != 3 {
		t.Errorf("exit %d, want 3", code)
	}
	doc := strict[checkContract](t, []byte(out))
	if *doc.Schema != "fpuimg.check/1" || len(*doc.Hosts) != 4 || len(*doc.Images) != 3+len(checkpoints(t)) {
		t.Errorf("schema %s, %d hosts, %d images", *doc.Schema, len(*doc.Hosts), len(*doc.Images))
	}
	for i, img := range *doc.Images {
		if i < 3 {
			if img.Error == nil || len(*img.Results) != 0 {
				t.Errorf("%s: error %v, %d results", *img.Path, img.Error, len(*img.Results))
			}
			continue
		}
		if len(*img.Results) != 4 {
			t.Fatalf("%s: %d results", *img.Path, len(*img.Results))
		}
		for h, r := range *img.Results {
			if *r.Host != h || len(*r.Threads) == 0 {
				t.Errorf("%s: host %d, %d threads", *img.Path, *r.Host, len(*r.Threads))
			}
		}
	}
}

func TestOtherJSON(t *testing.T) {
	for _, machine := range machines(t) {
		_, out, _ := fpuimg(t, "profile", machine)
		strict[profileContract](t, []byte(out))
	}
	a, b := testimg.Path(t, "h-avx512"), testimg.Path(t, "h-threads8")
	_, out, _ := fpuimg(t, "diff", "--json", a, b)
	strict[diffContract](t, []byte(out))
	_, out, _ = fpuimg(t, "diff", "--json", a, testimg.Path(t, "old-nofpregs"))
	strict[diffContract](t, []byte(out))
	_, out, _ = fpuimg(t, append([]string{"convert", "--json", "--dry-run", "--host=x86-64-v2", "--force", "nowhere"}, checkpoints(t)...)...)
	strict[convertContract](t, []byte(out))
}

// TestAgree holds check against convert, for every image and every machine, or every
// [testcmd.Step]th: the verdict is the same, and what would be lost; convert refuses what
// is not compatible and nothing else; what it forced fits.
func TestAgree(t *testing.T) {
	t.Parallel()
	images, hosts := checkpoints(t), machines(t)
	for i := range testcmd.Cases(len(hosts), 3) {
		machine := hosts[i]
		t.Run(filepath.Base(machine), func(t *testing.T) {
			_, out, _ := fpuimg(t, append([]string{"check", "--json", "--host=" + machine}, images...)...)
			check := strict[checkContract](t, []byte(out))
			plans := func(flags ...string) *convertContract {
				_, out, _ := fpuimg(t, slices.Concat([]string{"convert", "--json", "--dry-run", "--host=" + machine}, flags, images)...)
				return strict[convertContract](t, []byte(out))
			}
			plan, forced := plans(), plans("--force")
			for i, img := range *check.Images {
				r, p := (*img.Results)[0], (*plan.Images)[i]
				if *r.Verdict != *p.Verdict || *r.Verdict != *(*forced.Images)[i].Verdict {
					t.Errorf("%s: check says %s, convert %s, convert --force %s", *img.Path, *r.Verdict, *p.Verdict, *(*forced.Images)[i].Verdict)
				}
				for j, th := range *r.Threads {
					lost, _ := json.Marshal(th.Lost)
					for _, p := range []any{(*p.Threads)[j].Lost, (*(*forced.Images)[i].Threads)[j].Lost} {
						if other, _ := json.Marshal(p); !bytes.Equal(lost, other) {
							t.Errorf("%s: thread %d: check says %s is lost, convert %s", *img.Path, *th.TID, lost, other)
						}
					}
				}
				code, _, stderr := fpuimg(t, "convert", "--dry-run", "--host="+machine, *img.Path)
				want, ok := map[string]int{"compatible": 0, "damaged": 3}[*r.Verdict]
				if !ok {
					want = 1
				}
				if code != want {
					t.Errorf("%s: %s, and convert exits with %d: %s", *img.Path, *r.Verdict, code, stderr)
				}
			}
		})
	}
}

// read opens a checkpoint whose images are all well.
func read(t *testing.T, path string) (*checkpoint.Checkpoint, []codec.Thread) {
	t.Helper()
	ckpt, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var threads []codec.Thread
	for th, err := range ckpt.Threads() {
		if err != nil {
			t.Fatal(err)
		}
		threads = append(threads, th)
	}
	return ckpt, threads
}

// TestForcedFits: what convert --host=P --force makes is compatible with P, and CRIU
// restores it there for every --cpu-cap that can be, losing nothing more.
func TestForcedFits(t *testing.T) {
	t.Parallel()
	for _, path := range checkpoints(t) {
		_, threads := read(t, path)
		for _, machine := range machines(t) {
			h, err := loadHost(&cli.IO{}, machine)
			if err != nil {
				t.Fatal(err)
			}
			j := compat.Judge(compat.Target{Host: h.CPU}, compat.Policy{})
			for _, th := range threads {
				report := compat.Decide(th.State, compat.Target{Host: h.CPU}, compat.Policy{Force: true})
				if report.Refused {
					t.Fatalf("%s on %s: refused: %v", path, machine, report.Err())
				}
				out := report.Apply(th.State)
				if again := compat.Decide(out, compat.Target{Host: h.CPU}, compat.Policy{}); again.Verdict != compat.Compatible || again.Changed {
					t.Errorf("%s on %s: forced, and it is %v (changed %v): %+v", path, machine, again.Verdict, again.Changed, again.Findings)
				}
				j.Thread(compat.Thread{State: out})
			}
			if got := j.Predict(compat.CapDefault); got.Outcome != compat.Restores {
				t.Errorf("%s on %s: forced, and CRIU %s: %s", path, machine, got.Outcome, got.Reason)
			}
		}
	}
}

// TestCommonFits: an image made for what several machines share, all pairs of them or every
// [testcmd.Step]th, is compatible with each of them.
func TestCommonFits(t *testing.T) {
	t.Parallel()
	var hosts []*xstate.CPU
	for _, machine := range machines(t) {
		h, err := loadHost(&cli.IO{}, machine)
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, h.CPU)
	}
	var threads []codec.Thread
	for _, path := range checkpoints(t) {
		_, ts := read(t, path)
		threads = append(threads, ts[0])
		if len(ts) < 10 {
			threads = append(threads, ts[1:]...)
		}
	}
	fits := func(fleet ...*xstate.CPU) {
		b, err := json.Marshal(cpuid.NewProfile(cpuid.Common(fleet...)))
		if err != nil {
			t.Fatal(err)
		}
		common, err := cpuid.ParseProfile(b)
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		for _, th := range threads {
			out := compat.Decide(th.State, compat.Target{Host: common}, compat.Policy{Force: true}).Apply(th.State)
			for _, h := range fleet {
				if again := compat.Decide(out, compat.Target{Host: h}, compat.Policy{}); again.Verdict != compat.Compatible {
					t.Errorf("%s: made for what %v share, %v on %s: %+v", th.Image.Path, names(fleet), again.Verdict, h.Name, again.Findings)
				}
			}
		}
	}
	for i, a := range hosts {
		for j := range testcmd.Cases(i+1, i) {
			fits(a, hosts[j])
			fits(a, hosts[j], hosts[(3*i+5*j+7)%len(hosts)])
		}
	}
}

func names(cpus []*xstate.CPU) (out []string) {
	for _, c := range cpus {
		out = append(out, c.Name)
	}
	return out
}

// badLine is a line of bad/README: the file, and the exit status of criu restore
// with what it said.
var badLine = regexp.MustCompile(`^([bv]\S+\.img) .*\| rc=(-?\d+) (.*)$`)

// badClasses maps what CRIU said to the class of the refusal.
var badClasses = map[string]compat.Class{
	"Corruption in":            compat.ClassArraySize,
	"reported":                 compat.ClassArraySize,
	"Failed unpacking":         compat.ClassUnparseable,
	"Magic doesn't match":      compat.ClassUnparseable,
	"Head magic doesn't match": compat.ClassUnparseable,
	"Unexpected EOF":           compat.ClassUnparseable,
	"Read ":                    compat.ClassUnparseable,
	"Core march mismatch":      compat.ClassUnparseable,
	"bfd: BUG":                 compat.ClassUnparseable,
}

// TestBadImages puts each damaged image in the place of the good one, and compares
// what check predicts with what CRIU did.
func TestBadImages(t *testing.T) {
	n := 0
	for line := range strings.Lines(string(testimg.Read(t, "bad", "README"))) {
		m := badLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		n++
		t.Run(m[1], func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ckpt")
			if err := os.CopyFS(dir, os.DirFS(testimg.Path(t, "h-avx512"))); err != nil {
				t.Fatal(err)
			}
			place := "core-20000.img"
			if strings.Contains(m[1], "inventory") {
				place = "inventory.img"
			}
			if err := os.WriteFile(filepath.Join(dir, place), testimg.Read(t, "bad", m[1]), 0o666); err != nil {
				t.Fatal(err)
			}
			code, out, _ := fpuimg(t, "check", "--json", "--host="+testimg.Path(t, "h-avx512"), dir)
			r := (*(*strict[checkContract](t, []byte(out)).Images)[0].Results)[0]
			got := r.CRIU.Default
			if refused := *got.Outcome == string(compat.Refuses); refused != (m[2] != "0") {
				t.Fatalf("predicted %s (%s), CRIU's rc was %s: %s", *got.Outcome, *got.Reason, m[2], m[3])
			}
			if m[2] == "0" {
				if code != 0 || *r.Verdict != "compatible" {
					t.Errorf("exit %d, verdict %s; CRIU restored it", code, *r.Verdict)
				}
				return
			}
			var want compat.Class
			for text, class := range badClasses {
				if strings.Contains(m[3], text) && (want == "" || class == compat.ClassArraySize) {
					want = class
				}
			}
			if want == "" || *got.Class != string(want) {
				t.Errorf("predicted %s, want %q: %s", *got.Class, want, m[3])
			}
			if m[1][0] == 'b' && code != 3 {
				t.Errorf("exit %d for a damaged image", code)
			}
		})
	}
	if n != 24 {
		t.Errorf("%d bad images, want 24", n)
	}
}

// TestHintsRun runs the command that each hint ends in: it succeeds, and the result
// is compatible.
func TestHintsRun(t *testing.T) {
	t.Parallel()
	shell := testcmd.Tool(t, "sh")
	bin := filepath.Dir(testcmd.Build(t, "../fpuimg", runtime.GOARCH))
	work := t.TempDir()
	for _, name := range []string{"h-avx512", "h-amx", "h-init", "g-max-criu42-auto", "g-max-criu42-pkru4", "old-nofpregs", "h-avx512 it's"} {
		from, _, _ := strings.Cut(name, " ")
		if err := os.CopyFS(filepath.Join(work, name), os.DirFS(testimg.Path(t, from))); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile("../../codec/cpuid/testdata/haswell.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(work, "my $HOST.json"), b, 0o666); err != nil {
		t.Fatal(err)
	}
	sh := func(command string) (string, error) {
		cmd := exec.Command(shell, "-c", command)
		cmd.Dir = work
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	ran := map[string]bool{}
	entries, _ := os.ReadDir(work)
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		for _, host := range []string{"x86-64-v2", "x86-64-v3", "my $HOST.json"} {
			out, _ := sh("fpuimg check --json " + view.Quote("--host="+host) + " " + view.Quote(e.Name()))
			doc := strict[checkContract](t, []byte(out))
			r := (*(*doc.Images)[0].Results)[0]
			hinted := false
			for _, th := range *r.Threads {
				for _, f := range *th.Findings {
					i := strings.Index(*f.Hint, "fpuimg ")
					if *f.Severity == "fatal" && i < 0 {
						t.Errorf("%s on %s: %s is fatal and has no command", e.Name(), host, *f.Rule)
					}
					if i < 0 {
						continue
					}
					hinted = true
					command := (*f.Hint)[i:]
					if ran[command] {
						continue
					}
					ran[command] = true
					out, err := sh(command)
					if err != nil {
						t.Errorf("%s: %v\n%s", command, err, out)
						continue
					}
					_, rest, ok := strings.Cut(out, ": written to ")
					if !ok {
						t.Errorf("%s: nothing written:\n%s", command, out)
						continue
					}
					made, _, _ := strings.Cut(rest, "\n")
					out, err = sh("fpuimg check --json " + view.Quote("--host="+host) + " " + view.Quote(made))
					if err != nil {
						t.Errorf("%s: the result does not fit: %v\n%s", command, err, out)
						continue
					}
					// cpuinfo.img is adapted too, where the machine is known well enough.
					criu := (*(*strict[checkContract](t, []byte(out)).Images)[0].Results)[0].CRIU
					if strings.Contains(command, host) && strings.HasSuffix(host, ".json") && *criu.FPU.Outcome != string(compat.Restores) {
						t.Errorf("%s: CRIU with --cpu-cap=fpu %s: %s", command, *criu.FPU.Outcome, *criu.FPU.Reason)
					}
					if err := os.RemoveAll(filepath.Join(work, made)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if *r.Verdict != "compatible" && !hinted {
				t.Errorf("%s on %s: %s, and no hint", e.Name(), host, *r.Verdict)
			}
		}
	}
	if len(ran) < 8 {
		t.Errorf("ran %d commands, want more", len(ran))
	}
}
