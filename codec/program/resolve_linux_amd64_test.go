package program

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// live is a program that runs, its memory, and the IRELATIVE slots of its objects.
type live struct {
	mem       *os.File
	resolvers map[uint64]uint64 // resolver by slot; as linked, the objects numbered in bits 56 and up
	biases    []uint64
	files     []*file
	features  record
}

func (l *live) read(b []byte, addr uint64) (int, error) { return l.mem.ReadAt(b, int64(addr)) }

func (l *live) addr(linked uint64) uint64 { return l.biases[linked>>56] + linked&(1<<56-1) }

func (l *live) word(t *testing.T, addr uint64) uint64 {
	t.Helper()
	var b [8]byte
	if _, err := l.read(b[:], addr); err != nil {
		t.Fatal(err)
	}
	return le64(b[:])
}

// start runs cat with an environment until the test ends. libm is there to
// have its resolvers too.
func start(t *testing.T, env ...string) *live {
	t.Helper()
	cmd := exec.Command("/bin/cat")
	cmd.Env = append(env, "LD_PRELOAD=libm.so.6")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	fmt.Fprintln(in, "up")
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	proc := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
	l := &live{resolvers: map[uint64]uint64{}}
	if l.mem, err = os.Open(proc + "mem"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.mem.Close() })
	maps, err := os.ReadFile(proc + "maps")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	var found []record
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var prot, dev, path string
		var offset, inode uint64
		fmt.Sscanf(line, "%x-%x %s %x %s %d %s", &from, &to, &prot, &offset, &dev, &inode, &path)
		if strings.Contains(path, "/ld-") && !strings.Contains(prot, "x") {
			b := make([]byte, to-from)
			if _, err := l.read(b, from); err != nil {
				t.Fatal(err)
			}
			found = findFeatures(found, b, from, 0, len(b))
		}
		if offset != 0 || known[path] || !strings.Contains(path, ".so") {
			continue
		}
		known[path] = true
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			t.Fatal(err)
		}
		o, err := readObject(f, size)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		n := uint64(len(l.biases)) << 56
		l.biases = append(l.biases, o.biases(from, 0)[0])
		l.files = append(l.files, &file{obj: o, reaches: map[uint64]reach{}})
		for r := range o.relocations {
			if r.kind == elf.R_X86_64_IRELATIVE {
				l.resolvers[n|r.at] = n | r.addend
			}
		}
	}
	if len(found) != 1 {
		t.Fatalf("%q: %d cpu_features in the loader, want 1", env, len(found))
	}
	l.features = found[0]
	return l
}

// The emulator chooses what the loader of this machine has chosen, whatever of the CPU
// was masked: with a process's own memory, and with the cpu_features of one in the
// memory of another.
func TestResolveLive(t *testing.T) {
	if _, err := os.Stat("/lib64/ld-linux-x86-64.so.2"); errors.Is(err, os.ErrNotExist) {
		testcmd.Lack(t, "the machine has no glibc")
	}
	tables := map[string]bool{}
	var base *live
	for _, tunables := range []string{
		"",
		"glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW",
		"glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-RTM,Prefer_No_VZEROUPPER",
		"glibc.cpu.hwcaps=Prefer_ERMS,Prefer_FSRM",
		"glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-BMI2,-LZCNT",
		"glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX,-FMA,-FMA4,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM",
		"glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX,-FMA,-FMA4,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM,-SSE4_2,-SSE4_1,-SSSE3",
	} {
		l := start(t, "GLIBC_TUNABLES="+tunables)
		if base == nil {
			base = l
		}
		f := &l.features
		from := int64(min(f.shape.array, 0))
		overlaid := func(b []byte, addr uint64) (int, error) {
			n, err := base.read(b, addr)
			for i := range b[:n] {
				if at := int64(addr + uint64(i) - base.features.addr); at >= from && at < int64(f.shape.end) {
					b[i] = f.b[before+at]
				}
			}
			return n, err
		}
		table := ""
		for _, slot := range slices.Sorted(maps.Keys(l.resolvers)) {
			resolver := l.resolvers[slot]
			want := l.word(t, l.addr(slot))
			if want-l.biases[slot>>56] > 1<<30 { // the kernel's
				continue
			}
			table += fmt.Sprintf("%x ", want-l.biases[slot>>56])
			for _, in := range []struct {
				at   *live
				load func([]byte, uint64) (int, error)
			}{{l, l.read}, {base, overlaid}} {
				e := emulator{load: in.load, cpuid: func(leaf, sub uint32) (cpuid.Regs, bool) { return cpuid.Native{}.CPUID(leaf, sub) }}
				got, err := e.run(in.at.addr(resolver))
				if err != nil {
					t.Errorf("%q: %v", tunables, err)
				} else if got-in.at.biases[slot>>56] != want-l.biases[slot>>56] {
					t.Errorf("%q: resolver %#x chooses %#x, want %#x", tunables, resolver, got-in.at.biases[slot>>56], want-l.biases[slot>>56])
				}
			}
		}
		tables[table] = true
	}
	t.Logf("%d slots, %d different tables", len(base.resolvers), len(tables))
	if len(base.resolvers) < 50 || len(tables) < 2 {
		t.Errorf("%d slots, %d different tables: nothing was tried", len(base.resolvers), len(tables))
	}
}

// A program that starts with the tunables of a machine chooses nothing that the machine
// lacks, whatever CPU it starts on.
func TestTunables(t *testing.T) {
	if _, err := os.Stat("/lib64/ld-linux-x86-64.so.2"); errors.Is(err, os.ErrNotExist) {
		testcmd.Lack(t, "the machine has no glibc")
	}
	chosen := map[string]bool{}
	for _, name := range xstate.LevelNames() {
		c, _ := xstate.ByName(name)
		l := start(t, cpuid.Tunables(c)...)
		var needs []string
		for slot := range l.resolvers {
			f := l.files[slot>>56]
			at := l.word(t, l.addr(slot)) - l.biases[slot>>56]
			if !f.obj.executable(at) { // the kernel's
				continue
			}
			for _, flag := range flagNames(f.reached(at).features) {
				if has, _ := c.Executes(flag); !has {
					t.Errorf("%s: %#x needs %s", name, at, flag)
				}
				needs = append(needs, flag)
			}
		}
		slices.Sort(needs)
		chosen[fmt.Sprint(slices.Compact(needs))] = true
	}
	if len(chosen) < 3 {
		t.Errorf("the tunables change nothing: %v", chosen)
	}
}
