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
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
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

// truth is a process of an entry of the corpus, and what was recorded of it while it
// lived.
type truth struct {
	*process
	name string
	all  corpus.Truth
	proc corpus.Process

	counts
}

// counts are how many of each kind were compared.
type counts [9]int

const (
	nTold    = iota // slots that hold what they did,
	nUnread         // or are of files that are not there
	nNamed          // slots that hold what dlsym gave,
	nUnnamed        // or what it does not name
	nWaiting        // threads in a wrapper of a libc or of Go, which have done with their registers,
	nLive           // or with live ones in a system call,
	nRunning        // or in none
	nFrames         // that are live,
	nStale          // or are not
)

func (c *counts) String() string {
	return fmt.Sprintf("%4d (%d) %4d (%d); %3d %d %d; %d %d", c[nTold], c[nUnread], c[nNamed], c[nUnnamed], c[nWaiting], c[nLive], c[nRunning], c[nFrames], c[nStale])
}

// What is found out of every process is what the system and the process itself said.
func TestTruth(t *testing.T) {
	host := corpus.Diagnostics{}
	for line := range strings.Lines(string(corpus.Read(t, "profiles", "host", "2.36.diag.txt"))) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		host[key] = value
	}
	var sum counts
	table := []string{"entry: slots as they were (no file), as dlsym gave (not named); threads done, live, running; frames live, stale"}
	for _, name := range testcmd.Rows(corpus.Names(t)) {
		t.Run(name, func(t *testing.T) {
			all := corpus.Load(t, name)
			for _, proc := range all.Processes {
				c := truth{process: lookAt(t, name, proc.PID), name: name, all: all, proc: proc}
				if len(c.Unknowns) > 0 {
					t.Errorf("unknown: %v", c.Unknowns)
				}
				c.checkObjects(t)
				c.checkSlots(t)
				c.checkNames(t)
				c.checkAuxv(t)
				c.checkSource(t, host)
				c.checkThreads(t)
				c.checkFrames(t)
				table = append(table, fmt.Sprintf("%-16s %v", name, &c.counts))
				for i, n := range c.counts {
					sum[i] += n
				}
			}
		})
	}
	t.Log(strings.Join(append(table, fmt.Sprintf("%-16s %v", "all", &sum)), "\n"))
	if sum[nUnnamed] == 0 {
		t.Error("dlsym names every slot")
	}
}

func (c *truth) checkObjects(t *testing.T) {
	for _, o := range c.proc.Objects {
		m := c.moduleOf(o.Path)
		// Of Go's programs the first note was recorded, which is no build-id.
		unrecorded := strings.HasPrefix(c.name, "go-")
		switch {
		case m == nil:
			t.Errorf("%s is not mapped", o.Path)
		case (m.fact.BuildID == o.BuildID) == unrecorded:
			t.Errorf("%s: build-id %q, want %q", o.Path, m.fact.BuildID, o.BuildID)
		}
	}
}

// checkSlots: every slot of an IFUNC holds what it held in the live process.
func (c *truth) checkSlots(t *testing.T) {
	if len(c.proc.Slots) == 0 {
		return
	}
	slots, _ := c.slots()
	got := map[string]string{}
	for _, s := range slots {
		got[fmt.Sprintf("%s+%#x", path.Base(s.module.fact.Path), s.addr-s.module.bias)] = c.place(c.proc, s.value)
	}
	for _, s := range c.proc.Slots {
		at := s.Object + "+" + s.Slot
		v, ok := got[at]
		switch {
		case ok:
			c.counts[nTold]++
			if v != s.Value {
				t.Errorf("slot %s (%s) holds %s, want %s", at, s.Symbol, v, s.Value)
			}
			delete(got, at)
		case s.Impl == "" || strings.HasPrefix(s.Value, "linux-vdso"): // not bound, or the kernel's
		case c.status(s.Object) != facts.OK:
			c.counts[nUnread]++
		default:
			t.Errorf("slot %s (%s %s) is missing: %s %s", at, s.Type, s.Symbol, s.Value, s.Impl)
		}
	}
	for at, v := range got {
		t.Errorf("slot %s holds %s, which nobody told", at, v)
	}
}

// untold are the IFUNCs that dlsym does not name: symbols that only old programs are
// linked with, and what the library calls itself.
var untold = regexp.MustCompile(`^\[(__[a-z0-9]+_finite)?\]$`)

// versioned is the name of a file of glibc up to 2.33, which another one links to.
var versioned = regexp.MustCompile(`^(lib[a-z]+)-2\.[0-9]+\.so`)

// checkNames: IFUNC slots hold what dlsym gave the program itself, or another one on its
// CPU.
func (c *truth) checkNames(t *testing.T) {
	bySymbol := map[string]string{}
	for _, f := range c.all.IFuncs {
		if f.Impl != "vdso" && f.Impl != "" {
			bySymbol[f.Symbol] = f.Value
		}
	}
	if len(bySymbol) == 0 {
		return
	}
	if _, err := os.Stat(filepath.Join(corpus.Dir(t), c.name, "program.ptr.tsv")); err == nil {
		for line := range strings.Lines(string(corpus.Read(t, c.name, "program.ptr.tsv"))) {
			col := strings.Split(strings.TrimSpace(line), "\t") // symbol, address, file, offset
			value := versioned.ReplaceAllString(path.Base(col[2])+"+"+col[3], "$1.so.6")
			if other, ok := bySymbol[col[0]]; ok && other != value {
				t.Errorf("the program has %s at %s, another one at %s", col[0], value, other)
			}
		}
	}
	slots, _ := c.slots()
	for _, s := range slots {
		holds := versioned.ReplaceAllString(c.place(c.proc, s.value), "$1.so.6")
		switch {
		case slices.ContainsFunc(s.names, func(n string) bool { return bySymbol[n] == holds }):
			c.counts[nNamed]++
		case s.kind == elf.R_X86_64_IRELATIVE && untold.MatchString(fmt.Sprint(s.names)):
			c.counts[nUnnamed]++
		default:
			t.Errorf("%v of %v in %s holds %s, and dlsym gave another", s.kind, s.names, s.module.fact.Path, holds)
		}
	}
}

func (c *truth) checkAuxv(t *testing.T) {
	auxv, err := hex.DecodeString(c.proc.AuxvHex)
	if err != nil || len(auxv) == 0 {
		t.Fatalf("recorded auxv %q", c.proc.AuxvHex)
	}
	for ; len(auxv) >= 16 && le64(auxv) != 0; auxv = auxv[16:] {
		if v, ok := c.mem.Aux(le64(auxv)); !ok || v != le64(auxv[8:]) {
			t.Errorf("auxv %d is %#x, want %#x", le64(auxv), v, le64(auxv[8:]))
		}
	}
	const minSigStkSz = 51 // arch/x86/include/uapi/asm/auxvec.h
	if v, _ := c.mem.Aux(minSigStkSz); fmt.Sprintf("%#x", v) != c.proc.Auxv["AT_MINSIGSTKSZ"] {
		t.Errorf("AT_MINSIGSTKSZ %#x, want %s", v, c.proc.Auxv["AT_MINSIGSTKSZ"])
	}
}

// checkSource: the CPU is what ld.so printed. Of a static program and of glibc 2.31,
// which print nothing, it is the host's.
func (c *truth) checkSource(t *testing.T, host corpus.Diagnostics) {
	s, d := c.Source, c.all.Diagnostics
	if (s == nil) != otherLibc.MatchString(c.name) {
		t.Errorf("source %v", s)
	}
	if s == nil {
		return
	}
	if d == nil {
		d = host
	}
	want := func(key string, got any) {
		if got := fmt.Sprintf("%#x", got); got != d["x86.cpu_features."+key] {
			t.Errorf("%s %s, want %s", key, got, d["x86.cpu_features."+key])
		}
	}
	want("basic.family", *s.CPU.Family)
	want("basic.model", *s.CPU.Model)
	want("basic.stepping", *s.CPU.Stepping)
	want("xsave_state_size", s.SaveSize)
	active := c.Libc != "glibc 2.31" // which records neither this nor a level
	if active {
		want("isa_1", 1<<s.ISALevel-1)
	}
	for i, l := range s.Leaves {
		for j := range 4 {
			key := fmt.Sprintf("features[%#x].", i)
			if active {
				want(fmt.Sprintf("%sactive[%#x]", key, j), l.Active[j])
			}
			if i > 0 || j != 1 { // CPUID 1, EBX has the number of the processor that was asked
				want(fmt.Sprintf("%scpuid[%#x]", key, j), l.CPUID[j])
			}
		}
	}
}

// raw are the functions of the corpus' programs that make a system call of their own,
// with vector registers in use; and called one that then calls by a pointer: only its
// arguments can be in use.
var (
	raw    = regexp.MustCompile(`^th\+`)
	called = regexp.MustCompile(`^th2\+`)
)

// checkThreads: they wait or run as they did. Those that wait in a wrapper of a libc, or
// of Go, have done with their vector registers; those with live ones have not.
func (c *truth) checkThreads(t *testing.T) {
	if len(c.Threads) != len(c.proc.Threads) {
		t.Fatalf("%d threads, want %d", len(c.Threads), len(c.proc.Threads))
	}
	for i, th := range c.Threads {
		want := c.proc.Threads[i]
		at := fmt.Sprintf("thread %d at %s %s", th.TID, want.PCObject, want.PCSymbol)
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
			c.counts[nRunning]++
			if th.Dead != 0 {
				t.Errorf("%s: it runs, and %v are dead", at, th.Dead)
			}
		case raw.MatchString(want.PCSymbol):
			c.counts[nLive]++
			if in := xstate.Features(bv) &^ xstate.Legacy; in == 0 || th.Dead&in != 0 || th.Live == "" {
				t.Errorf("%s: of %v, which it works with, %v are dead: %s", at, in, th.Dead, th.Live)
			}
		case called.MatchString(want.PCSymbol):
			c.counts[nLive]++
			if th.Dead != 1<<xstate.Opmask|1<<xstate.Hi16ZMM || th.Live == "" {
				t.Errorf("%s: %v are dead: %s", at, th.Dead, th.Live)
			}
		default:
			c.counts[nWaiting]++
			if th.Dead != 1<<xstate.AVX|xstate.AVX512 {
				t.Errorf("%s: only %v are dead: %s", at, th.Dead, th.Live)
			}
		}
	}
}

// checkFrames: signal frames are live where the program was in its handler, and hold
// what it read of them there. Go's signal stacks, which lie above its others, keep what
// was returned from.
func (c *truth) checkFrames(t *testing.T) {
	text := func(v any) string { return fmt.Sprintf("%#x", v) }
	for _, th := range c.Threads {
		for _, f := range th.Frames {
			if !f.Live {
				c.counts[nStale]++
				continue
			}
			c.counts[nFrames]++
			var said struct {
				FPState   string `json:"fpstate"`
				XFeatures string `json:"xfeatures"`
				Size      int    `json:"xstate_size"`
				BV        string `json:"xstate_bv"`
			}
			if err := json.Unmarshal(corpus.Read(t, c.name, "program.frame.json"), &said); err != nil {
				t.Fatal(err)
			}
			if text(f.Address) != said.FPState || text(uint64(f.Features)) != said.XFeatures || text(uint64(f.BV)) != said.BV || f.Size != said.Size {
				t.Errorf("frame %v, want %v", f, said)
			}
			if strings.Contains(c.name, "ymm") && f.Dead.Has(xstate.AVX) {
				t.Errorf("of the frame's registers, %v are dead", f.Dead)
			}
		}
	}
	wantLive := 0
	if strings.HasPrefix(c.name, "sigh") {
		wantLive = 1
	}
	if c.counts[nFrames] != wantLive || (c.counts[nStale] > 0) != strings.HasPrefix(c.name, "go-") {
		t.Errorf("%d frames are live, %d stale", c.counts[nFrames], c.counts[nStale])
	}
}

// Frames are found by the images alone, too, and none in processes that are in no handler.
func TestFramesWithoutFiles(t *testing.T) {
	for _, name := range corpus.Names(t) {
		files := codec.Dir(corpus.Images(t, name))
		l := NewLooker(files, nil)
		defer l.Close()
		live := 0
		for _, process := range corpus.Load(t, name).Processes {
			p, err := l.Look(process.PID, threadsOf(t, files, process.PID))
			if err != nil {
				t.Fatal(err)
			}
			for _, th := range p.Threads {
				for _, f := range th.Frames {
					if f.Live {
						live++
					}
				}
			}
		}
		if want := strings.HasPrefix(name, "sigh"); (live == 1) != want || live > 1 {
			t.Errorf("%s: %d frames are live", name, live)
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

// A slot that holds another function than was chosen, or none, is told: every byte of one,
// or every [testcmd.Step]th, is changed in turn.
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
		for turn, s := range slots {
			if kinds[s.kind]++; kinds[s.kind] > 2 {
				continue
			}
			page := make([]byte, codec.PageSize)
			if _, err := p.mem.ReadAt(page, s.addr&^(codec.PageSize-1)); err != nil {
				t.Fatal(err)
			}
			at := bytes.Index(pages, page) + int(s.addr%codec.PageSize)
			for i := range testcmd.Cases(8, turn) {
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
