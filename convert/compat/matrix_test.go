package compat_test

import (
	"bufio"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// hostImage names, for each machine of the matrix, an image that was dumped on it:
// its cpuinfo.img is the machine's profile.
var hostImage = map[string]string{
	"host": "h-sse", "qemu64": "g-qemu64-criu42-auto", "nehalem": "g-nehalem-criu42-auto",
	"sandybridge": "g-sandybridge-criu42-auto", "haswell": "g-haswell-criu42-sse", "epyc": "g-epyc-criu42-auto",
	"epycmilan": "g-epycmilan-criu42-auto", "max": "g-max-criu42-auto", "maxnopku": "g-maxnopku-criu42-sse",
}

// logClasses maps CRIU's decisive log line to the class of the refusal.
var logClasses = []struct {
	text  string
	class compat.Class
}{
	{"FPU xsave area present, but host cpu doesn't support it", compat.ClassXSaveRecord},
	{"FPU feature required by image is not supported on host", compat.ClassFPUBits},
	{"CPU xfeatures has unsupported bits", compat.ClassXFeatures},
	{"CPU xsave size mismatch", compat.ClassXSaveSize},
	{"CPU xsave max size mismatch", compat.ClassXSaveSize},
	{"CPU instruction capabilities do not match run time", compat.ClassINS},
	{"CPU capabilities do not match run time", compat.ClassCPU},
}

var lostRegister = regexp.MustCompile(`LOST:([a-z]+)`)

// lostComponent maps the program's name of a lost register to the component.
var lostComponent = map[string]xstate.Feature{
	"bnd": xstate.BNDREGS, "bndcfgu": xstate.BNDCSR, "bndstatus": xstate.BNDCSR, "pkru": xstate.PKRU,
	"tilecfg": xstate.TileCfg, "tmm": xstate.TileData, "k": xstate.Opmask, "ymm": xstate.AVX,
}

// TestMatrix compares the prediction with what CRIU 4.2 really did with each image
// on each machine for each --cpu-cap: 648 restores.
func TestMatrix(t *testing.T) {
	hosts := map[string]*xstate.CPU{}
	for name, image := range hostImage {
		hosts[name] = openImage(t, image).CPUInfo.CPU()
		hosts[name].Name = name
	}
	f, err := os.Open(testimg.Path(t, "matrix.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan() // the header
	n := 0
	for lines.Scan() {
		col := strings.Split(lines.Text(), "\t")
		hostName, image, cap, rc, alive, tick, log := col[0], col[1], compat.Cap(col[2]), col[3], col[4], col[5], col[7]
		n++
		ckpt, host := openImage(t, image), hosts[hostName]
		var source *xstate.CPU
		if ckpt.CPUInfo != nil {
			source = ckpt.CPUInfo.CPU()
		}
		target := onHost(host)
		target.CRIU = xstate.Release{Major: 4, Minor: 2}
		j := compat.Judge(target, compat.Policy{})
		j.Taken(source)
		findings := j.Findings
		var set xstate.Features
		for th, err := range ckpt.Threads() {
			if err != nil {
				t.Fatal(err)
			}
			findings = append(findings, j.Thread(compat.Thread{State: th.State}).Findings...)
			set |= th.State.BV
		}
		got, verdict := j.Predict(cap), j.Verdict
		where := strings.Join(col[:3], " ")
		newest := compat.Judge(onHost(host), compat.Policy{})
		newest.Taken(source)
		for th := range ckpt.Threads() {
			newest.Thread(compat.Thread{State: th.State})
		}
		if r := newest.Predict(cap); !reflect.DeepEqual(r, got) {
			t.Errorf("%s: predicted %+v of CRIU %v, %+v of 4.2", where, r, newest.CRIU(), got)
		}

		if refused := rc != "0"; refused != (got.Outcome == compat.Refuses) {
			t.Errorf("%s: predicted %s (%s), CRIU's rc was %s: %s", where, got.Outcome, got.Reason, rc, log)
			continue
		}
		if rc != "0" {
			var want compat.Class
			for _, c := range logClasses {
				if strings.Contains(log, c.text) {
					want = c.class
				}
			}
			if want == "" || *got.Class != want {
				t.Errorf("%s: predicted class %s, want %q: %s", where, *got.Class, want, log)
			}
			continue
		}
		if alive == "dead" {
			if !slices.ContainsFunc(findings, func(f compat.Finding) bool { return namesLack(f, host) }) {
				t.Errorf("%s: the process died, and no finding names what it missed (verdict %v): %s", where, verdict, col[6])
			}
			continue
		}
		if strings.Contains(tick, " OK ") && verdict == compat.Damaged {
			t.Errorf("%s: the process lived on intact, and the verdict is %v", where, verdict)
		}
		var lost xstate.Features
		for _, m := range lostRegister.FindAllStringSubmatch(tick, -1) {
			f, ok := lostComponent[m[1]]
			if !ok {
				t.Fatalf("%s: unknown lost register %q", where, m[1])
			}
			lost |= f.Mask()
		}
		lost &= set
		if want := lost.Names(); !slices.Equal(got.Loses, want) {
			t.Errorf("%s: predicted to lose %v, lost %v", where, got.Loses, want)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if n < 600 {
		t.Errorf("compared %d restores, want at least 600", n)
	}
}

// namesLack reports whether a finding that is more than a note names something that
// the image, or the host, really lacks.
func namesLack(f compat.Finding, host *xstate.CPU) bool {
	if f.Severity < compat.Risky {
		return false
	}
	if f.Rule == compat.BVWithoutData {
		return len(f.Components) > 0
	}
	usable, _ := host.Usable()
	for _, name := range f.Components {
		if c, ok := xstate.ParseFeature(name); ok && !usable.Has(c) {
			return true
		}
	}
	for _, name := range f.Features {
		if has, known := host.HasFlag(name); known && !has {
			return true
		}
	}
	return false
}

func openImage(t *testing.T, name string) *checkpoint.Checkpoint {
	t.Helper()
	c, err := checkpoint.Open(testimg.Path(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
