package program

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/internal/test/corpus"
)

// lookAt looks at a process of an entry of the corpus.
func lookAt(t *testing.T, name string, pid int) *process {
	t.Helper()
	roots, err := OpenRoots(corpus.Root(t, name))
	if err != nil {
		t.Fatal(err)
	}
	files := codec.Dir(corpus.Images(t, name))
	l := NewLooker(files, roots)
	t.Cleanup(func() { l.Close(); roots.Close() })
	p, err := l.look(pid, threadsOf(t, files, pid))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// threadsOf reads the threads of a process from its core images.
func threadsOf(t *testing.T, files codec.Files, pid int) (list []codec.Thread) {
	t.Helper()
	read := func(name string) []byte {
		b, err := codec.ReadImage(files, name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	tasks, err := codec.ParsePstree("pstree.img", read("pstree.img"))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if task.PID != pid {
			continue
		}
		for _, tid := range task.Threads {
			core, err := codec.ParseCore(codec.CoreName(tid), read(codec.CoreName(tid)))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, codec.NewThread(pid, tid, core))
		}
	}
	return list
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

// The source CPU and the auxiliary vector are what the system said of them.
func TestTruthSource(t *testing.T) {
	host := corpus.Diagnostics{}
	for line := range strings.Lines(string(corpus.Read(t, "profiles", "host", "2.36.diag.txt"))) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		host[key] = value
	}
	for _, name := range corpus.Names(t) {
		truth := corpus.Load(t, name)
		for _, proc := range truth.Processes {
			p := lookAt(t, name, proc.PID)
			if len(p.Unknowns) > 0 {
				t.Errorf("%s: unknown: %v", name, p.Unknowns)
			}
			auxv, err := hex.DecodeString(proc.AuxvHex)
			if err != nil || len(auxv) == 0 {
				t.Fatalf("%s: auxv %q", name, proc.AuxvHex)
			}
			for ; len(auxv) >= 16 && le64(auxv) != 0; auxv = auxv[16:] {
				if v, ok := p.mem.Aux(le64(auxv)); !ok || v != le64(auxv[8:]) {
					t.Errorf("%s: auxv %d is %#x, want %#x", name, le64(auxv), v, le64(auxv[8:]))
				}
			}
			const minSigStkSz = 51 // include/uapi/asm/auxvec.h
			if v, _ := p.mem.Aux(minSigStkSz); fmt.Sprintf("%#x", v) != proc.Auxv["AT_MINSIGSTKSZ"] {
				t.Errorf("%s: AT_MINSIGSTKSZ %#x, want %s", name, v, proc.Auxv["AT_MINSIGSTKSZ"])
			}
			if otherLibc.MatchString(name) {
				if p.Source != nil {
					t.Errorf("%s: source %v of a program that is not of glibc", name, p.Source)
				}
				continue
			}
			s, d := p.Source, truth.Diagnostics
			if s == nil {
				t.Errorf("%s: no source", name)
				continue
			}
			if d == nil { // static, or glibc 2.31: all of these are of the host
				d = host
			}
			want := func(key string, got any) {
				if got := fmt.Sprintf("%#x", got); got != d["x86.cpu_features."+key] {
					t.Errorf("%s: %s %s, want %s", name, key, got, d["x86.cpu_features."+key])
				}
			}
			want("basic.family", *s.CPU.Family)
			want("basic.model", *s.CPU.Model)
			want("basic.stepping", *s.CPU.Stepping)
			want("xsave_state_size", s.SaveSize)
			records := p.Libc != "glibc 2.31" // levels, and what is active
			if records {
				want("isa_1", 1<<s.ISALevel-1)
			}
			for i, l := range s.Leaves {
				for j := range 4 {
					key := fmt.Sprintf("features[%#x].", i)
					if records {
						want(fmt.Sprintf("%sactive[%#x]", key, j), l.Active[j])
					}
					if i > 0 || j != 1 { // CPUID 1, EBX has the number of the processor that was asked
						want(fmt.Sprintf("%scpuid[%#x]", key, j), l.CPUID[j])
					}
				}
			}
		}
	}
}

// raw are the functions of the corpus' programs that make a system call of their own.
var raw = regexp.MustCompile(`^th2?\+`)

// Threads wait or run as they did. Those that wait in a wrapper of a libc, or of Go, have
// done with their vector registers; those with live ones have not.
func TestTruthThreads(t *testing.T) {
	waiting, dead, running, live := 0, 0, 0, 0
	for _, name := range corpus.Names(t) {
		for _, proc := range corpus.Load(t, name).Processes {
			p := lookAt(t, name, proc.PID)
			if len(p.Threads) != len(proc.Threads) {
				t.Errorf("%s: %d threads, want %d", name, len(p.Threads), len(proc.Threads))
				continue
			}
			for i, th := range p.Threads {
				want := proc.Threads[i]
				at := fmt.Sprintf("%s: thread %d at %s %s", name, th.TID, want.PCObject, want.PCSymbol)
				call, _, _ := strings.Cut(want.ProcSyscall, " ")
				n, err := strconv.ParseInt(call, 0, 64)
				if th.TID != want.TID || err != nil {
					t.Fatalf("%s: recorded %d %q", at, want.TID, want.ProcSyscall)
				}
				if want.Blocked != (th.Syscall != "") || want.Blocked && th.Syscall != syscallName(uint64(n)) {
					t.Errorf("%s: waits in %q, recorded %q", at, th.Syscall, want.ProcSyscall)
				}
				switch bv, _ := strconv.ParseUint(want.Snap.XStateBV, 0, 64); {
				case !want.Blocked:
					running++
					if th.Dead != 0 {
						t.Errorf("%s: it runs, and %v are dead", at, th.Dead)
					}
				case raw.MatchString(want.PCSymbol):
					live++
					if in := xstate.Features(bv) &^ xstate.Legacy; in == 0 || th.Dead&in != 0 || th.Live == "" {
						t.Errorf("%s: of %v, which it works with, %v are dead: %s", at, in, th.Dead, th.Live)
					}
				default:
					waiting++
					if th.Dead == 1<<xstate.AVX|xstate.AVX512 {
						dead++
					} else {
						t.Errorf("%s: only %v are dead: %s", at, th.Dead, th.Live)
					}
				}
			}
		}
	}
	t.Logf("%d threads wait in wrappers, %d have done with all; %d wait with live registers, %d run", waiting, dead, live, running)
}

// Signal frames are live where the program was in its handler, and hold what it read of
// them there. Go's signal stacks, which lie above its others, keep what was returned
// from.
func TestTruthFrames(t *testing.T) {
	for _, name := range corpus.Names(t) {
		stale := 0
		for _, proc := range corpus.Load(t, name).Processes {
			for _, th := range lookAt(t, name, proc.PID).Threads {
				var live []facts.Frame
				for _, f := range th.Frames {
					if f.Live {
						live = append(live, f)
					} else {
						stale++
					}
				}
				if !strings.HasPrefix(name, "sigh") {
					if len(live) > 0 {
						t.Errorf("%s: thread %d: live frames %v", name, th.TID, live)
					}
					continue
				}
				var frame struct {
					FPState   string `json:"fpstate"`
					XFeatures string `json:"xfeatures"`
					Size      int    `json:"xstate_size"`
					BV        string `json:"xstate_bv"`
				}
				if err := json.Unmarshal(corpus.Read(t, name, "program.frame.json"), &frame); err != nil {
					t.Fatal(err)
				}
				if len(live) != 1 {
					t.Errorf("%s: live frames %v", name, live)
				} else if got, hex := live[0], func(v any) string { return fmt.Sprintf("%#x", v) }; hex(got.Address) != frame.FPState || hex(uint64(got.Features)) != frame.XFeatures || hex(uint64(got.BV)) != frame.BV || got.Size != frame.Size {
					t.Errorf("%s: frame %v, want %v", name, got, frame)
				} else if strings.Contains(name, "ymm") && got.Dead.Has(xstate.AVX) {
					t.Errorf("%s: of the frame's registers, %v are dead", name, got.Dead)
				}
			}
		}
		if (stale > 0) != strings.HasPrefix(name, "go-") {
			t.Errorf("%s: %d stale frames", name, stale)
		}
	}
}

// untold are the IFUNCs that dlsym does not name: symbols that only old programs are
// linked with, and what the library calls itself.
var untold = regexp.MustCompile(`^$|^__[a-z0-9]+_finite$`)

// versioned is the name of a file of glibc up to 2.33, which another one links to.
var versioned = regexp.MustCompile(`^(lib[a-z]+)-2\.[0-9]+\.so`)

// IFUNC slots hold what dlsym gave the program itself, or another one on its CPU.
func TestTruthNames(t *testing.T) {
	named, unnamed := 0, 0
	for _, name := range corpus.Names(t) {
		truth := corpus.Load(t, name)
		bySymbol := map[string]string{}
		for _, f := range truth.IFuncs {
			if f.Impl != "vdso" && f.Impl != "" {
				bySymbol[f.Symbol] = f.Value
			}
		}
		if len(bySymbol) == 0 {
			continue
		}
		if _, err := os.Stat(filepath.Join(corpus.Dir(t), name, "program.ptr.tsv")); err == nil {
			for line := range strings.Lines(string(corpus.Read(t, name, "program.ptr.tsv"))) {
				col := strings.Split(strings.TrimSpace(line), "\t") // symbol, address, file, offset
				value := versioned.ReplaceAllString(path.Base(col[2])+"+"+col[3], "$1.so.6")
				if other, ok := bySymbol[col[0]]; ok && other != value {
					t.Errorf("%s: the program has %s at %s, another one at %s", name, col[0], value, other)
				}
			}
		}
		for _, proc := range truth.Processes {
			p := lookAt(t, name, proc.PID)
			slots, _ := p.slots()
			for _, s := range slots {
				holds := versioned.ReplaceAllString(p.place(proc, s.value), "$1.so.6")
				first := ""
				if len(s.names) > 0 {
					first = s.names[0]
				}
				switch {
				case slices.ContainsFunc(s.names, func(n string) bool { return bySymbol[n] == holds }):
					named++
				case s.kind == elf.R_X86_64_IRELATIVE && len(s.names) < 2 && untold.MatchString(first):
					unnamed++
				default:
					t.Errorf("%s: %v of %v in %s holds %s, dlsym gave %s", name, s.kind, s.names, s.module.fact.Path, holds, bySymbol[first])
				}
			}
		}
	}
	t.Logf("%d slots hold what dlsym gave, %d what it does not name", named, unnamed)
	if unnamed == 0 {
		t.Error("dlsym names every slot")
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

// A slot that holds another function than was chosen, or none, is told: every byte of one
// is changed in turn.
func TestSlotChanged(t *testing.T) {
	for _, name := range []string{"lp-1", "lpst-1", "gh-lp1"} {
		proc := corpus.Load(t, name).Processes[0]
		p := lookAt(t, name, proc.PID)
		for _, u := range p.Unknowns {
			t.Errorf("%s: %v", name, u)
		}
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(corpus.Images(t, name))); err != nil {
			t.Fatal(err)
		}
		paths, err := filepath.Glob(filepath.Join(dir, "pages-*.img"))
		if err != nil || len(paths) != 1 {
			t.Fatal(paths, err)
		}
		pages, err := os.ReadFile(paths[0])
		if err != nil {
			t.Fatal(err)
		}
		slots, _ := p.slots()
		kinds := map[elf.R_X86_64]int{}
		for _, s := range slots {
			if kinds[s.kind]++; kinds[s.kind] > 2 {
				continue
			}
			page := make([]byte, codec.PageSize)
			if _, err := p.mem.ReadAt(page, s.addr&^(codec.PageSize-1)); err != nil {
				t.Fatal(err)
			}
			at := bytes.Index(pages, page) + int(s.addr%codec.PageSize)
			for i := range 8 {
				changed := slices.Clone(pages)
				changed[at+i] ^= 0x40
				if err := os.WriteFile(paths[0], changed, 0o600); err != nil {
					t.Fatal(err)
				}
				roots, err := OpenRoots(corpus.Root(t, name))
				if err != nil {
					t.Fatal(err)
				}
				l := NewLooker(codec.Dir(dir), roots)
				q, err := l.Look(proc.PID, nil)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.ContainsFunc(q.Unknowns, func(u facts.Unknown) bool {
					return u.Topic == facts.Code && u.Object.Path == s.module.fact.Path && strings.Contains(u.Reason, s.String())
				}) {
					t.Errorf("%s: byte %d of %v %v changed, and is not told: %v", name, i, s.kind, &s, q.Unknowns)
				}
				l.Close()
				roots.Close()
			}
		}
		t.Logf("%s: %v", name, kinds)
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
