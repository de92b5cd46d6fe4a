package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	klauspost "github.com/klauspost/cpuid/v2"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/compat"
	"github.com/fpuimg/fpuimg/internal/test/corpus"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// holdNeed holds what an image needs against check: on a host that has it all nothing is
// lost and nothing dies, and on one that is known to lack some of it something is or does.
func holdNeed(t *testing.T, ckpt *checkpoint.Checkpoint, code codeOptions, hosts []*host) (met, unmet int) {
	t.Helper()
	needs := (&needOptions{code: code}).need(ckpt)
	if len(needs.errs) > 0 {
		return 0, 0
	}
	o := &checkOptions{hosts: hosts, code: code}
	img := o.check(ckpt, o.judges())
	for _, r := range img.results {
		fits := r.Verdict == compat.Compatible || r.Verdict == compat.DowngradeLossless
		// A buffer that is too small is no fatal finding, and what is not recorded neither.
		overrun := slices.ContainsFunc(r.Tasks, func(task compat.Task) bool {
			return slices.ContainsFunc(task.Findings, func(f compat.Finding) bool { return f.Rule == compat.LazySave && f.Severity == compat.Risky })
		})
		frame := slices.ContainsFunc(r.Threads, func(th compat.Judged) bool {
			return slices.ContainsFunc(th.Findings, func(f compat.Finding) bool { return f.Rule == compat.FrameUnfit })
		})
		switch is := needs.Met(r.host.CPU); {
		case r.Verdict == compat.Damaged:
		case is && (!fits || overrun):
			t.Errorf("%s on %s: all that it needs is there, and check says %v", ckpt.Path, r.host.Name, r.Verdict)
		case !is && fits && !overrun && !frame && len(needs.Unmet(r.host.CPU)) > 0:
			t.Errorf("%s on %s: it lacks %v, and check says %v", ckpt.Path, r.host.Name, needs.Unmet(r.host.CPU), r.Verdict)
		case is:
			met++
		default:
			unmet++
		}
	}
	return met, unmet
}

func TestNeed(t *testing.T) {
	var hosts []*host
	for _, name := range cpuid.Names() {
		c, _ := cpuid.ByName(name)
		hosts = append(hosts, &host{CPU: c})
	}
	infos, err := filepath.Glob(testimg.Path(t, "*", "cpuinfo.img"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range infos {
		c, err := readProfile(nil, path)
		if err != nil {
			continue // a damaged one
		}
		c.Name = path
		hosts = append(hosts, &host{CPU: c})
	}
	met, unmet := 0, 0
	for _, path := range infos {
		all, err := checkpoint.OpenAll(filepath.Dir(path), checkpoint.Options{})
		if err != nil {
			continue
		}
		a, b := holdNeed(t, all[0].Checkpoint, codeOptions{}, hosts)
		met, unmet = met+a, unmet+b
	}
	if met < 100 || unmet < 100 {
		t.Errorf("met %d times, unmet %d times: nothing was tried", met, unmet)
	}
}

// The same where the code is known.
func TestNeedCode(t *testing.T) {
	profiles, err := os.ReadDir(filepath.Join(corpus.Dir(t), "profiles"))
	if err != nil {
		t.Fatal(err)
	}
	var hosts []*host
	for _, p := range profiles {
		hosts = append(hosts, &host{CPU: model(t, p.Name())})
	}
	met, unmet := 0, 0
	for _, name := range crossSection {
		o := codeOptions{dirs: []string{corpus.Root(t, name)}}
		if err := o.open(); err != nil {
			t.Fatal(err)
		}
		all, err := checkpoint.OpenAll(corpus.Images(t, name), checkpoint.Options{})
		if err != nil {
			t.Fatal(err)
		}
		a, b := holdNeed(t, all[0].Checkpoint, o, hosts)
		met, unmet = met+a, unmet+b
		o.close()
	}
	if met == 0 || unmet == 0 {
		t.Errorf("met %d times, unmet %d times", met, unmet)
	}
}

// Every instruction set has the name that Node Feature Discovery gives it, or none.
func TestNFDNames(t *testing.T) {
	for f := range xstate.AllFlags() {
		if !f.ISA() {
			continue
		}
		name := nfdName(f.Name)
		if name == "" {
			name = strings.ToUpper(strings.ReplaceAll(f.Name, "_", ""))
			if klauspost.ParseFeature(name) != klauspost.UNKNOWN {
				t.Errorf("%s has the name %s", f.Name, name)
			}
		} else if klauspost.ParseFeature(name) == klauspost.UNKNOWN {
			t.Errorf("%s: no such name as %s", f.Name, name)
		}
	}
	for _, name := range nfdHides {
		if klauspost.ParseFeature(name) == klauspost.UNKNOWN {
			t.Errorf("no such name as %s", name)
		}
	}
}

func TestLabelName(t *testing.T) {
	for path, want := range map[string]string{".": "checkpoint", "a/B_c.tar.gz": "b-c-tar-gz", "/": "checkpoint", strings.Repeat("x", 80): strings.Repeat("x", 40), "ü": "checkpoint", "-a-": "a"} {
		if got := labelName(path); got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}

// A program may start on any of the machines with their common tunables; what a machine
// does not say it has is hidden.
func TestProfileTunables(t *testing.T) {
	if got := cpuid.Tunables(&xstate.CPU{Flags: []string{}}); !strings.Contains(got[0], "-XSAVE,-XSAVEC") || len(got) != 1 {
		t.Errorf("nothing is known: %q", got)
	}
}
