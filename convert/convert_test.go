package convert_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
	"github.com/fpuimg/fpuimg/convert/compat"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// contents returns the files of a directory by name, "dir/name" for nested ones.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if e.Type() == fs.ModeSymlink {
			to, err := os.Readlink(path)
			files[name] = "-> " + to
			return err
		}
		b, err := os.ReadFile(path)
		files[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// scratch returns an empty directory, in memory where the system has that: making
// a conversion durable would wait for all other writers of a disk.
func scratch(t testing.TB) string {
	t.Helper()
	if info, err := os.Stat("/dev/shm"); err != nil || !info.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "fpuimg-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// copyImage copies an entry of the test images to a directory that a test may
// change.
func copyImage(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(scratch(t), name)
	if err := os.CopyFS(dir, os.DirFS(testimg.Path(t, name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

func plan(t testing.TB, path string, o convert.Options) *convert.Plan {
	t.Helper()
	c, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := convert.NewPlan(c, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// convertDir converts a directory to a new one beside it and returns that.
func convertDir(t testing.TB, dir string, o convert.Options) string {
	t.Helper()
	out := filepath.Join(scratch(t), "out")
	p := plan(t, dir, o)
	if p.Refused() {
		t.Fatalf("%s: refused", dir)
	}
	if err := p.WriteDir(out, convert.DirOptions{}); err != nil {
		t.Fatal(err)
	}
	return out
}

// forced asks for a format, whatever it costs.
func forced(f xstate.Format) convert.Options {
	return convert.Options{Target: compat.Target{Format: &f}, Policy: compat.Policy{Force: true}}
}

func forcedHost(c *xstate.CPU) convert.Options {
	return convert.Options{Target: compat.Target{Host: c}, Policy: compat.Policy{Force: true}}
}

// criuDirs returns the names of all checkpoints that are CRIU directories.
func criuDirs(t testing.TB) []string {
	t.Helper()
	var names []string
	for _, e := range testimg.All(t, testimg.CRIU, testimg.Edited) {
		names = append(names, filepath.Base(e.Dir))
	}
	return names
}

// checkOnlyFPU compares a converted checkpoint with its source: outside the FPU
// records and the fields of cpuinfo.img that may change, nothing differs.
func checkOnlyFPU(t *testing.T, before, after map[string]string) {
	t.Helper()
	if a, b := slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)); !slices.Equal(a, b) {
		t.Errorf("files %v, want %v", b, a)
	}
	for name, old := range before {
		now := after[name]
		switch {
		case old == now:
		case strings.HasPrefix(name, "core-"):
			_, a := testimg.Split(t, []byte(old))
			_, b := testimg.Split(t, []byte(now))
			if !bytes.Equal(a, b) {
				t.Errorf("%s differs outside its FPU record", name)
			}
		case name == "cpuinfo.img":
			a, around := testimg.SplitCPUInfo(t, []byte(old))
			b, around2 := testimg.SplitCPUInfo(t, []byte(now))
			for num := range 100 {
				if num != 6 && (num < 8 || num > 10) && !bytes.Equal(a[num], b[num]) {
					t.Errorf("%s: field %d differs", name, num)
				}
			}
			if !bytes.Equal(around, around2) {
				t.Errorf("%s differs around its entry", name)
			}
		default:
			t.Errorf("%s differs", name)
		}
	}
}

func level(t testing.TB, name string) *xstate.CPU {
	t.Helper()
	c, ok := xstate.ByName(name)
	if !ok {
		t.Fatalf("no level %s", name)
	}
	return c
}

// TestImages converts every real checkpoint to everything, or to every [testcmd.Step]th, in
// both ways.
func TestImages(t *testing.T) {
	targets := map[string]convert.Options{
		"none": forced(xstate.FormatNone), "fxsave": forced(xstate.FormatFXSave), "xsave": forced(xstate.FormatXSave),
		"x86-64-v2": forcedHost(level(t, "x86-64-v2")), "x86-64-v3": forcedHost(level(t, "x86-64-v3")),
	}
	all := slices.Sorted(maps.Keys(targets))
	for turn, name := range criuDirs(t) {
		src := testimg.Path(t, name)
		before := contents(t, src)
		for i := range testcmd.Cases(len(all), turn) {
			target, o := all[i], targets[all[i]]
			t.Run(name+"/"+target, func(t *testing.T) {
				out := convertDir(t, src, o)
				after := contents(t, out)
				checkOnlyFPU(t, before, after)
				for th, err := range plan(t, out, o).Checkpoint.Threads() {
					if err != nil {
						t.Fatal(err)
					}
					if f := o.Target.Format; f != nil && th.State.Format != *f {
						t.Errorf("%s has format %v", th.Image.Path, th.State.Format)
					}
				}
				if p := plan(t, out, o); p.Changed() || p.Verdict != compat.Compatible {
					t.Errorf("a second run: changed %t, verdict %v", p.Changed(), p.Verdict)
				}

				dir := copyImage(t, name)
				p := plan(t, dir, o)
				if err := p.InPlace(); err != nil {
					t.Fatal(err)
				}
				inPlace := contents(t, dir)
				for file, old := range before {
					backup, ok := inPlace[file+".orig"]
					if changed := after[file] != old; ok != changed || ok && backup != old {
						t.Errorf("%s: changed %t, has a backup %t, and it is the original %t", file, changed, ok, backup == old)
					}
					delete(inPlace, file+".orig")
				}
				if !maps.Equal(inPlace, after) {
					t.Error("in place and to a new directory differ")
				}
				if p := plan(t, dir, o); p.Changed() {
					t.Error("in place, a second run would change something")
				}
			})
		}
	}
}

// TestUpThenDown checks that a core image comes back byte for byte where nothing
// was lost on the way, or on every [testcmd.Step]th way.
func TestUpThenDown(t *testing.T) {
	ways := [][]xstate.Format{
		{xstate.FormatNone, xstate.FormatFXSave}, {xstate.FormatNone, xstate.FormatXSave},
		{xstate.FormatFXSave, xstate.FormatXSave},
	}
	n := 0
	for turn, name := range criuDirs(t) {
		src := testimg.Path(t, name)
		for i := range testcmd.Cases(len(ways), turn) {
			from, up := ways[i][0], ways[i][1]
			// Every image goes down to the first format, and from there up and down.
			low := convertDir(t, src, forced(from))
			high := convertDir(t, low, forced(up))
			back := contents(t, convertDir(t, high, forced(from)))
			start := contents(t, low)
			if !plan(t, src, forced(from)).Changed() {
				start = contents(t, src) // it was in this format from the start
			}
			for file, b := range start {
				if strings.HasPrefix(file, "core-") {
					n++
					if back[file] != b {
						t.Errorf("%s/%s: %v, up to %v and down is not what it was", name, file, from, up)
					}
				}
			}
		}
	}
	t.Logf("%d core images", n)
}

// TestStripped compares a stripped image with one that crit stripped and that real
// CRIU restored on every CPU.
func TestStripped(t *testing.T) {
	for from, want := range map[string]string{"g-haswell-criu42-sse": "s-haswell-criu42-sse", "h-sse": "s-host-sse"} {
		out := contents(t, convertDir(t, testimg.Path(t, from), forced(xstate.FormatFXSave)))
		for name, b := range contents(t, testimg.Path(t, want)) {
			if !strings.HasPrefix(name, "core-") {
				continue
			}
			wantRecord, _ := testimg.Split(t, []byte(b))
			gotRecord, _ := testimg.Split(t, []byte(out[name]))
			if !bytes.Equal(gotRecord, wantRecord) {
				t.Errorf("%s/%s: another FPU record than %s", from, name, want)
			}
		}
	}
}

// TestCPUInfoFXSave checks what is left of cpuinfo.img once nothing needs XSAVE.
func TestCPUInfoFXSave(t *testing.T) {
	for _, name := range criuDirs(t) {
		if name == "h-threads200" {
			continue // as h-avx, only longer
		}
		src := testimg.Path(t, name)
		old, err := os.ReadFile(filepath.Join(src, "cpuinfo.img"))
		if err != nil {
			continue // not every checkpoint has one
		}
		before, err := codec.ParseCPUInfo("cpuinfo.img", old)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range []convert.Options{forced(xstate.FormatFXSave), forced(xstate.FormatNone)} {
			out := convertDir(t, src, o)
			b, err := os.ReadFile(filepath.Join(out, "cpuinfo.img"))
			if err != nil {
				t.Fatal(err)
			}
			fields, _ := testimg.SplitCPUInfo(t, b)
			for num := 8; num <= 10; num++ {
				if fields[num] != nil {
					t.Errorf("%s: field %d is still there", name, num)
				}
			}
			after, err := codec.ParseCPUInfo("cpuinfo.img", b)
			if err != nil {
				t.Fatal(err)
			}
			gone := slices.DeleteFunc(before.CPU().Flags, func(f string) bool { has, _ := after.CPU().HasFlag(f); return has })
			for _, f := range []string{"xsave", "osxsave", "avx", "avx2", "fma", "f16c", "avx512f", "amx_tile", "pku", "xsavec"} {
				if has, _ := after.CPU().HasFlag(f); has {
					t.Errorf("%s: %s is still there", name, f)
				}
			}
			for _, f := range []string{"fpu", "fxsr", "sse2", "sse4_2", "aes", "popcnt", "bmi1", "adx", "sha_ni", "rdrand"} {
				if slices.Contains(gone, f) {
					t.Errorf("%s: %s is gone, and it needs no XSAVE", name, f)
				}
			}
		}
		o := forced(xstate.FormatFXSave)
		o.Policy.KeepCPUInfo = true
		if b, err := os.ReadFile(filepath.Join(convertDir(t, src, o), "cpuinfo.img")); err != nil || !bytes.Equal(b, old) {
			t.Errorf("%s: --keep-cpuinfo did not keep it: %v", name, err)
		}
	}
}

// machines names, for each machine, an image that was dumped on it.
var machines = map[string]string{
	"host": "h-sse", "qemu64": "g-qemu64-criu42-auto", "nehalem": "g-nehalem-criu42-auto",
	"sandybridge": "g-sandybridge-criu42-auto", "haswell": "g-haswell-criu42-sse", "epyc": "g-epyc-criu42-auto",
	"epycmilan": "g-epycmilan-criu42-auto", "max": "g-max-criu42-auto", "maxnopku": "g-maxnopku-criu42-sse",
}

// TestHostPairs converts every checkpoint, or every [testcmd.Step]th, for every machine, by
// force: CRIU would restore the result there, whatever cpuinfo.img said before.
func TestHostPairs(t *testing.T) {
	dirs := criuDirs(t)
	for turn, hostName := range slices.Sorted(maps.Keys(machines)) {
		c, err := checkpoint.Open(testimg.Path(t, machines[hostName]))
		if err != nil {
			t.Fatal(err)
		}
		host := c.CPUInfo.CPU()
		host.Name = hostName
		for i := range testcmd.Cases(len(dirs), turn) {
			name := dirs[i]
			if name == "h-threads200" {
				continue // as h-avx, only longer
			}
			t.Run(hostName+"/"+name, func(t *testing.T) {
				out, err := checkpoint.Open(convertDir(t, testimg.Path(t, name), forcedHost(host)))
				if err != nil {
					t.Fatal(err)
				}
				j := compat.Judge(compat.Target{Host: host}, compat.Policy{})
				for th, err := range out.Threads() {
					if err != nil {
						t.Fatal(err)
					}
					j.Thread(compat.Thread{State: th.State})
				}
				caps := []compat.Cap{compat.CapDefault, compat.CapNone}
				if out.CPUInfo != nil {
					j.Taken(out.CPUInfo.CPU())
					caps = append(caps, compat.CapFPU, compat.CapINS)
				}
				for _, cap := range caps {
					if got := j.Predict(cap); got.Outcome != compat.Restores {
						t.Errorf("--cpu-cap %s: %s: %s", cap, got.Outcome, got.Reason)
					}
				}
			})
		}
	}
}

// TestHostKeepsWhatFits checks that a machine that holds everything takes nothing
// away, and that without force nothing is taken from cpuinfo.img either.
func TestHostKeepsWhatFits(t *testing.T) {
	for _, image := range machines {
		dir := testimg.Path(t, image)
		c, err := checkpoint.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, force := range []bool{false, true} {
			o := forcedHost(c.CPUInfo.CPU())
			o.Policy.Force = force
			// CRIU lost the bounds of this one when it dumped it.
			if p := plan(t, dir, o); p.Changed() && image != "g-max-criu42-auto" {
				t.Errorf("%s for its own machine, force %t: changed %v %v", image, force, p.CPUInfo, compat.LostNames(p.Threads))
			}
		}
	}
}

func TestCPUInfoReport(t *testing.T) {
	p := plan(t, testimg.Path(t, "h-sse"), forced(xstate.FormatFXSave))
	var fields []string
	for _, c := range p.CPUInfo {
		fields = append(fields, fmt.Sprintf("%s: %s -> %s", c.Field, c.From, c.To))
	}
	for _, want := range []string{"xfeatures_mask: 0xe5 -> ", "xsave_size: 11008 -> ", "xsave_size_max: 11008 -> "} {
		if !slices.Contains(fields, want) {
			t.Errorf("report lacks %q: %q", want, fields)
		}
	}
	i := slices.IndexFunc(p.Findings, func(f compat.Finding) bool { return f.Rule == compat.ISAMissing })
	if i < 0 || p.Findings[i].Severity != compat.Risky || !slices.Contains(p.Findings[i].Features, "avx512f") {
		t.Errorf("no finding names avx512f, which the file drops: %+v", p.Findings)
	}
}

// TestCPUInfoBoth checks a format and a host together: both are seen to.
func TestCPUInfoBoth(t *testing.T) {
	o := forced(xstate.FormatFXSave)
	o.Target.Host, o.Policy.Force = level(t, "x86-64-v3"), false
	p := plan(t, testimg.Path(t, "s-host-sse"), o)
	if p.Refused() || len(p.CPUInfo) == 0 {
		t.Errorf("refused %t, cpuinfo.img changes %v; want the fields about XSAVE gone", p.Refused(), p.CPUInfo)
	}
}
