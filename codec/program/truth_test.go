package program

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/internal/test/corpus"
)

// lookAt looks at a process of an entry of the corpus.
func lookAt(t *testing.T, name string, pid int) *process {
	t.Helper()
	roots, err := OpenRoots(corpus.Root(t, name))
	if err != nil {
		t.Fatal(err)
	}
	l := NewLooker(codec.Dir(corpus.Images(t, name)), roots)
	t.Cleanup(func() { l.Close(); roots.Close() })
	p, err := l.look(pid, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// place writes an address as a truth does.
func (p *process) place(truth corpus.Process, addr uint64) string {
	for _, o := range truth.Objects {
		bias, _ := strconv.ParseUint(o.Bias, 0, 64)
		if m := p.moduleAt(addr); m != nil && m.bias == bias && m.fact.Path == o.Path {
			return fmt.Sprintf("%s+%#x", path.Base(o.Path), addr-bias)
		}
	}
	return fmt.Sprintf("%#x", addr)
}

// Every slot of an IFUNC holds what it held in the live process.
func TestTruthSlots(t *testing.T) {
	for _, name := range corpus.Names(t) {
		truth := corpus.Load(t, name)
		for _, proc := range truth.Processes {
			if len(proc.Slots) == 0 {
				continue
			}
			p := lookAt(t, name, proc.PID)
			slots, _ := p.slots()
			got := map[string]string{}
			for _, s := range slots {
				got[fmt.Sprintf("%s+%#x", path.Base(s.module.fact.Path), s.addr-s.module.bias)] = p.place(proc, s.value)
			}
			n := 0
			unread := map[string]int{}
			for _, s := range proc.Slots {
				at := s.Object + "+" + s.Slot
				v, ok := got[at]
				switch {
				case ok:
					n++
					if v != s.Value {
						t.Errorf("%s: slot %s (%s) holds %s, want %s", name, at, s.Symbol, v, s.Value)
					}
					delete(got, at)
				case s.Impl == "" || strings.HasPrefix(s.Value, "linux-vdso"): // not bound, or the kernel's
				case p.status(s.Object) != facts.OK:
					unread[s.Object+" "+string(p.status(s.Object))]++
				default:
					t.Errorf("%s: slot %s (%s %s) is missing: %s %s", name, at, s.Type, s.Symbol, s.Value, s.Impl)
				}
			}
			for at, v := range got {
				t.Errorf("%s: slot %s holds %s, which nobody told", name, at, v)
			}
			t.Logf("%s: %d of %d slots; unread %v", name, n, len(proc.Slots), unread)
			for _, o := range proc.Objects {
				m := p.moduleOf(o.Path)
				if m == nil || m.fact.BuildID != o.BuildID {
					t.Errorf("%s: %s: build-id %v, want %s", name, o.Path, m, o.BuildID)
				}
			}
		}
	}
}

// A file that is not the dumped one, or is not there, proves nothing, and is said to.
func TestLibcUnproven(t *testing.T) {
	const name = "lp-1"
	pid := corpus.Load(t, name).Processes[0].PID
	other := t.TempDir()
	if err := os.CopyFS(other, os.DirFS(corpus.Root(t, name))); err != nil {
		t.Fatal(err)
	}
	lib := filepath.Join(other, "usr/lib/x86_64-linux-gnu")
	b, err := os.ReadFile(filepath.Join(lib, "libm.so.6"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(lib, "libc.so.6"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]facts.Status{t.TempDir(): facts.Missing, other: facts.Differs, corpus.Root(t, name): facts.OK} {
		roots, err := OpenRoots(dir)
		if err != nil {
			t.Fatal(err)
		}
		l := NewLooker(codec.Dir(corpus.Images(t, name)), roots)
		p, err := l.Look(pid, nil)
		if err != nil {
			t.Fatal(err)
		}
		said := slices.ContainsFunc(p.Unknowns, func(u facts.Unknown) bool {
			return u.Topic == facts.Libc && path.Base(u.Object.Path) == "libc.so.6" && u.Object.Status == want
		})
		if said != (want != facts.OK) {
			t.Errorf("%s: unknown %v", want, p.Unknowns)
		}
		for _, target := range p.Targets {
			if want != facts.OK && path.Base(target.Object.Path) == "libc.so.6" {
				t.Errorf("%s: judged all the same: %v", want, target)
			}
		}
		l.Close()
		roots.Close()
	}
}

func (p *process) moduleOf(path string) *module {
	for _, m := range p.modules {
		if m.fact.Path == path {
			return m
		}
	}
	return nil
}

// status is that of an object by its file name.
func (p *process) status(base string) facts.Status {
	for _, o := range p.Objects {
		if path.Base(o.Path) == base {
			return o.Status
		}
	}
	return ""
}
