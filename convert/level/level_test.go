package level_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/program"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
	"github.com/fpuimg/fpuimg/convert/level"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	"github.com/fpuimg/fpuimg/internal/test/corpus"
)

// machine is the CPU of a guest model, as ld.so of glibc 2.36 printed it there.
func machine(tb testing.TB, name string) *xstate.CPU {
	tb.Helper()
	c, err := cpuid.Parse(corpus.Read(tb, "profiles", name, "2.36.diag.txt"))
	if err != nil {
		tb.Fatal(err)
	}
	c.Name = name
	return c
}

// options are those for an entry of the corpus.
func options(tb testing.TB, name string, host *xstate.CPU) level.Options {
	tb.Helper()
	roots, err := program.OpenRoots(corpus.Root(tb, name))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { roots.Close() })
	return level.Options{Host: host, Roots: roots}
}

func plan(tb testing.TB, dir string, o level.Options) *level.Plan {
	tb.Helper()
	c, err := checkpoint.Open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := level.NewPlan(c, o)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// counts are the words of a plan by kind.
func counts(p *level.Plan) map[level.What]int {
	n := map[level.What]int{}
	for _, t := range p.Tasks {
		for _, w := range t.Words {
			n[w.What]++
		}
	}
	return n
}

// refusals are the names of a plan's refusals, sorted, each once.
func refusals(p *level.Plan) []level.Name {
	var names []level.Name
	for _, r := range p.Refusals {
		names = append(names, r.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// The words that change in checkpoints which were levelled and ran on those CPUs, and the
// reasons of those that would have died.
func TestCorpus(t *testing.T) {
	type words = map[level.What]int
	for _, tt := range testcmd.Rows([]struct {
		name, cpu string
		words     words
		refused   []level.Name
	}{
		{"lp-1", "Haswell", words{"irelative": 35, "got": 18, "copy": 34, "trampoline": 3, "cpu-features": 18}, nil},
		{"lp-1", "Nehalem", words{"irelative": 56, "got": 25, "copy": 49, "trampoline": 3, "cpu-features": 21, "save-size": 1}, nil},
		{"lp-1", "qemu64_-xsave", words{"irelative": 60, "got": 29, "copy": 60, "trampoline": 3, "cpu-features": 21, "save-size": 1}, nil},
		{"lp-6", "Haswell", words{"irelative": 35, "got": 18, "copy": 34, "trampoline": 3, "cpu-features": 18}, nil},
		{"lp-bullseye-1", "Haswell", words{"irelative": 32, "got": 16, "copy": 31, "trampoline": 5, "cpu-features": 10}, nil},
		{"lp-bullseye-1", "Nehalem", words{"irelative": 52, "got": 24, "copy": 47, "trampoline": 5, "cpu-features": 11, "save-size": 1}, nil},
		{"lp-trixie-1", "Haswell", words{"irelative": 42, "got": 17, "copy": 33, "trampoline": 3, "cpu-features": 18}, nil},
		{"lp-trixie-1", "Nehalem", words{"irelative": 68, "got": 24, "copy": 48, "trampoline": 3, "cpu-features": 21, "save-size": 1}, nil},
		{"lpst-1", "Nehalem", words{"irelative": 63, "cpu-features": 21, "save-size": 1}, nil},
		{"lpstpie-1", "qemu64_-xsave", words{"irelative": 74, "cpu-features": 21, "save-size": 1}, nil},
		{"py-1", "Haswell", words{"irelative": 35, "got": 18, "copy": 1, "trampoline": 5, "cpu-features": 18}, nil},
		{"perl-1", "Nehalem", words{"irelative": 56, "got": 22, "copy": 1, "trampoline": 3, "cpu-features": 21, "save-size": 1}, nil},
		{"gh-lp1", "Haswell", words{}, nil},
		{"lpmusl-1", "Nehalem", words{}, nil},
		{"sb-3", "Haswell", nil, []level.Name{level.StateLive, level.ThreadInCode}},
		{"gp-lp6", "Nehalem", nil, []level.Name{level.PagesElsewhere}},
		{"go-1", "Haswell", nil, []level.Name{level.OwnDispatch}},
		{"spin-ymm", "Nehalem", nil, []level.Name{level.CompiledISA, level.StateLive, level.ThreadInCode}},
		{"java-1", "Haswell", nil, []level.Name{level.JITCode, level.ObjectMissing}},
	}) {
		p := plan(t, corpus.Images(t, tt.name), options(t, tt.name, machine(t, tt.cpu)))
		if got := refusals(p); !slices.Equal(got, tt.refused) {
			t.Errorf("%s for %s: refused for %v, want %v: %v", tt.name, tt.cpu, got, tt.refused, p.Refusals)
		}
		if got := counts(p); tt.refused == nil && !maps.Equal(got, tt.words) {
			t.Errorf("%s for %s: %v, want %v", tt.name, tt.cpu, got, tt.words)
		}
		if p.Refused() && p.Changed() {
			t.Errorf("%s for %s: refused, and yet something changes", tt.name, tt.cpu)
		}
	}
}

// copied is a checkpoint that a test may change.
func copied(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS(corpus.Images(t, name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// levels carries a plan out: the result has nothing left to be levelled, and differs from
// what it was in the words of the plan, in core images and in cpuinfo.img alone. It
// returns the result.
func levels(t *testing.T, from string, o level.Options) (p *level.Plan, out string) {
	t.Helper()
	p = plan(t, from, o)
	out = filepath.Join(t.TempDir(), "out")
	if err := p.WriteDir(out, convert.DirOptions{}); err != nil || p.Refused() {
		t.Fatalf("for %s: %v, refused for %v", o.Host.Name, err, p.Refusals)
	}
	if again := plan(t, out, o); again.Refused() || again.Changed() || len(counts(again)) > 0 {
		t.Errorf("for %s: a second run refuses %v, changes %v", o.Host.Name, again.Refusals, counts(again))
	}
	bytesOf := 0
	for _, task := range p.Tasks {
		for _, w := range task.Words {
			for i := range w.From {
				if w.From[i] != w.To[i] {
					bytesOf++
				}
			}
		}
	}
	names, err := filepath.Glob(filepath.Join(from, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		old, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		is, err := os.ReadFile(filepath.Join(out, filepath.Base(name)))
		if err != nil {
			t.Fatal(err)
		}
		switch base := filepath.Base(name); {
		case strings.HasPrefix(base, "core-"):
		case base == "cpuinfo.img" && len(p.CPUInfo) > 0:
		case strings.HasPrefix(base, "pages-"):
			if len(is) != len(old) {
				t.Fatalf("%s: %d bytes, were %d", name, len(is), len(old))
			}
			for i := range old {
				if old[i] != is[i] {
					bytesOf--
				}
			}
		default:
			if !bytes.Equal(old, is) {
				t.Errorf("for %s: %s differs", o.Host.Name, base)
			}
		}
	}
	if bytesOf != 0 {
		t.Errorf("for %s: the words say %d bytes more than differ in pages", o.Host.Name, bytesOf)
	}
	return p, out
}

func TestProperties(t *testing.T) {
	for _, tt := range testcmd.Rows([]struct{ name, cpu string }{
		{"lp-1", "Nehalem"}, {"lp-bullseye-1", "Haswell"}, {"lp-trixie-1", "qemu64_-xsave"}, {"lpst-1", "Nehalem"}, {"nginx-1", "Haswell"}, {"esc-1", "Nehalem"}, {"lp-1-cap", "Haswell"},
	}) {
		levels(t, corpus.Images(t, tt.name), options(t, tt.name, machine(t, tt.cpu)))
	}
}

// A level of the psABI is a host too: what it does not name, it has not.
func TestNamedLevels(t *testing.T) {
	for _, name := range testcmd.Rows(xstate.LevelNames()) {
		host, _ := xstate.ByName(name)
		p := plan(t, corpus.Images(t, "lp-1"), options(t, "lp-1", host))
		if err := p.WriteDir(filepath.Join(t.TempDir(), "out"), convert.DirOptions{}); err != nil || p.Refused() {
			t.Errorf("%s: %v, %v", name, err, p.Refusals)
		}
	}
}

// For the CPU that it was taken on, nothing changes: be it described by glibc there, or
// by the checkpoint's own cpuinfo.img.
func TestOwnCPU(t *testing.T) {
	host := machine(t, "host")
	for _, tt := range testcmd.Rows([]struct {
		name string
		own  bool
	}{{"lp-1", false}, {"py-1", false}, {"lp-6-xsave", false}, {"lp-1-cap", false}, {"lp-1-cap", true}, {"blk-9-cap", true}}) {
		o := options(t, tt.name, host)
		if tt.own {
			c, err := checkpoint.Open(corpus.Images(t, tt.name))
			if err != nil {
				t.Fatal(err)
			}
			o.Host = c.CPUInfo.CPU()
		}
		p := plan(t, corpus.Images(t, tt.name), o)
		if p.Refused() || p.Changed() {
			t.Errorf("%s: refused for %v; %v change", tt.name, p.Refusals, counts(p))
		}
	}
}

// poke changes a byte of the memory of the one process of a checkpoint.
func poke(t *testing.T, dir string, o level.Options, what level.What) {
	t.Helper()
	p := plan(t, dir, o)
	for _, w := range p.Tasks[0].Words {
		if w.What != what {
			continue
		}
		pages, err := filepath.Glob(filepath.Join(dir, "pages-*.img"))
		if err != nil || len(pages) != 1 {
			t.Fatal(pages, err)
		}
		b, err := os.ReadFile(pages[0])
		if err != nil {
			t.Fatal(err)
		}
		// The word stands on a page of this address.
		for page := b; len(page) > 0; page = page[4096:] {
			if in := int(w.Address % 4096); bytes.Equal(page[in:in+len(w.From)], w.From) {
				page[in] ^= 1
			}
		}
		if err := os.WriteFile(pages[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("%s: no word %s", dir, what)
}

// A word that was not chosen as glibc chooses refuses the checkpoint.
func TestMismatch(t *testing.T) {
	for _, what := range []level.What{level.IRelative, level.GOT} {
		dir := copied(t, "lp-1")
		o := options(t, "lp-1", machine(t, "Haswell"))
		poke(t, dir, o, what)
		if got := refusals(plan(t, dir, o)); !slices.Contains(got, level.ResolverMismatch) {
			t.Errorf("%s with another bit: refused for %v", what, got)
		}
	}
}

// A file that is not the dumped one refuses the checkpoint.
func TestOtherFile(t *testing.T) {
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(corpus.Root(t, "lp-1"))); err != nil {
		t.Fatal(err)
	}
	lib := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	other, err := os.ReadFile(filepath.Join(lib, "libm.so.6"))
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[level.Name]func(string) error{
		level.ObjectDiffers: func(path string) error { return os.WriteFile(path, other, 0o600) },
		level.ObjectMissing: os.Remove,
	} {
		if err := change(filepath.Join(lib, "libc.so.6")); err != nil {
			t.Fatal(err)
		}
		roots, err := program.OpenRoots(root)
		if err != nil {
			t.Fatal(err)
		}
		if got := refusals(plan(t, corpus.Images(t, "lp-1"), level.Options{Host: machine(t, "Haswell"), Roots: roots})); !slices.Equal(got, []level.Name{want}) {
			t.Errorf("refused for %v, want %s", got, want)
		}
		roots.Close()
	}
}

// Libraries for more than the host, which the program would open later, refuse it.
func TestHWCaps(t *testing.T) {
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(corpus.Root(t, "lp-1"))); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v4")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	roots, err := program.OpenRoots(root)
	if err != nil {
		t.Fatal(err)
	}
	defer roots.Close()
	o := level.Options{Host: machine(t, "Haswell"), Roots: roots}
	if p := plan(t, corpus.Images(t, "lp-1"), o); p.Refused() {
		t.Errorf("an empty directory: %v", p.Refusals)
	}
	if err := os.WriteFile(filepath.Join(dir, "libz.so.1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := refusals(plan(t, corpus.Images(t, "lp-1"), o)); !slices.Equal(got, []level.Name{level.HWCapsPath}) {
		t.Errorf("refused for %v", got)
	}
}

// A judgement can be overruled, for one object or for all; a fact cannot.
func TestAccept(t *testing.T) {
	o := options(t, "sb-3", machine(t, "Haswell"))
	o.Accept = []level.Exception{{Name: level.ThreadInCode}}
	if p := plan(t, corpus.Images(t, "sb-3"), o); !slices.Contains(refusals(p), level.ThreadInCode) {
		t.Error("a thread in code of AVX-512 was accepted")
	}
	o = options(t, "blk-9", machine(t, "Nehalem"))
	for _, tt := range []struct {
		e    level.Exception
		want bool
	}{{level.Exception{Name: level.CompiledISA}, true}, {level.Exception{Name: level.CompiledISA, Object: "blk"}, true}, {level.Exception{Name: level.CompiledISA, Object: "libc.so.6"}, false}, {level.Exception{Name: level.JITCode}, false}} {
		o.Accept = []level.Exception{tt.e}
		if p := plan(t, corpus.Images(t, "blk-9"), o); p.Refused() == tt.want {
			t.Errorf("%v: refused for %v", tt.e, p.Refusals)
		}
	}
}
