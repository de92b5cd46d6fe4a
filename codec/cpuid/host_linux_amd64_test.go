package cpuid

import (
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/xstate"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// printedFlags reads /proc/cpuinfo in another way than the code does.
func printedFlags(t *testing.T) map[string]bool {
	t.Helper()
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Skipf("no /proc: %v", err)
	}
	_, rest, _ := strings.Cut(string(b), "\nflags")
	line, _, _ := strings.Cut(rest, "\n")
	set := map[string]bool{}
	for _, name := range strings.Fields(line) {
		set[name] = true
	}
	return set
}

func TestHostFlags(t *testing.T) {
	printed := printedFlags(t)
	c, err := Host()
	if err != nil {
		t.Fatal(err)
	}
	for f := range xstate.AllFlags() {
		has, known := c.HasFlag(f.Name)
		if !known {
			t.Fatal("flags unknown")
		}
		if f.Hidden() {
			if printed[f.Name] {
				t.Errorf("%s is called hidden, but /proc/cpuinfo prints it", f.Name)
			}
			continue
		}
		if has != printed[f.Name] {
			t.Errorf("%s: profile %v, /proc/cpuinfo %v", f.Name, has, printed[f.Name])
		}
	}
}

// What the kernel prints of an instruction set, CPUID has too: a bit that stands
// in the wrong place in the table is found here. The other direction is only
// logged: kernels and hypervisors do clear flags.
func TestFlagBitsAgainstKernel(t *testing.T) {
	printed := printedFlags(t)
	c := CPU(Native{})
	words := newReader(Native{}).words().words
	var cleared []string
	for f := range xstate.AllFlags() {
		has := words[f.Word]>>f.Bit&1 != 0
		switch {
		case f.Hidden():
		case f.ISA() && printed[f.Name] && !has:
			t.Errorf("%s: /proc/cpuinfo prints it, CPUID word %d bit %d is clear", f.Name, f.Word, f.Bit)
		case !printed[f.Name] && has:
			cleared = append(cleared, f.Name)
		}
	}
	t.Logf("in CPUID only: %v", cleared)
	if len(c.Capability) != xstate.CapabilityWords || !slices.Equal(c.Capability, words[:xstate.CapabilityWords]) {
		t.Errorf("capability %#x", c.Capability)
	}
}

func TestHost(t *testing.T) {
	c, err := Host()
	if err != nil {
		t.Fatal(err)
	}
	usable, known := c.Usable()
	if !known {
		t.Fatal("usable components unknown")
	}
	format, _ := c.Format()
	printed := printedFlags(t)
	if want := map[bool]xstate.Format{true: xstate.FormatXSave, false: xstate.FormatFXSave}[printed["xsave"]]; format != want {
		t.Errorf("format %v, want %v", format, want)
	}
	for f := range (usable & xstate.Known &^ xstate.Legacy).All() {
		if _, ok := c.Layout.Find(f); !ok {
			t.Errorf("%v has no place", f)
		}
		if f != xstate.BNDREGS && f != xstate.BNDCSR && !slices.Contains(c.Flags, f.Flag()) && !xstate.Known.Has(f) {
			t.Errorf("%v without %s", f, f.Flag())
		}
	}
	if end := c.Layout.End(usable); format == xstate.FormatXSave && end > int(*c.XSaveSize) {
		t.Errorf("components end at %d, past the area of %d", end, *c.XSaveSize)
	}
	if c.MXCSRMask == nil || *c.MXCSRMask&0xffbf != 0xffbf {
		t.Errorf("MXCSR mask %v", c.MXCSRMask)
	}
	roundTrip(t, c)
}

// asked records what [CPU] asks for.
type asked struct {
	Native
	leaves map[Leaf]Regs
}

func (a asked) CPUID(leaf, sub uint32) (Regs, bool) {
	r, known := a.Native.CPUID(leaf, sub)
	a.leaves[Leaf{leaf, sub}] = r
	return r, known
}

// dumpHere is a dump of the machine that the test runs on, with its XCR0: a dump
// has none, and where the kernel has switched a component off, a guess is wrong.
type dumpHere struct{ Recorded }

func (dumpHere) XCR0() (xstate.Features, bool) { return Native{}.XCR0() }

// The tool of Debian's package cpuid is an independent witness: all leaves that
// are used read the same, and the CPU built from its dump is the live one.
func TestNativeIsRecorded(t *testing.T) {
	path := testcmd.Tool(t, "cpuid")
	out, err := exec.Command(path, "-1", "-i", "-r").Output()
	if err != nil {
		t.Fatal(err)
	}
	all, err := ParseDump(out)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d CPUs, %v", len(all), err)
	}
	dump := all[0]
	a := asked{leaves: map[Leaf]Regs{}}
	live := CPU(a)
	for leaf, got := range a.leaves {
		want, ok := dump[leaf]
		if leaf == (Leaf{1, 0}) {
			got.EBX, want.EBX = 0, 0 // the number of the CPU that answers
		}
		if got != want || !ok && got != (Regs{}) {
			t.Errorf("leaf %#x: got %#x, want %#x (dumped: %v)", leaf, got, want, ok)
		}
	}
	if recorded := CPU(dumpHere{dump}); !reflect.DeepEqual(recorded, live) {
		t.Errorf("recorded\n%+v\nlive\n%+v", recorded, live)
	}
	if out, err = exec.Command(path, "-1", "-i", "-r", "-l", "0xd").Output(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "0x0000000d 0x00") && *live.XSave {
		t.Errorf("no leaf 0xd in\n%s", out)
	}
}

func TestParseCPUInfo(t *testing.T) {
	tests := []struct {
		name, in string
		want     string
		ok       bool
	}{
		{"one", "processor\t: 0\nflags\t\t: fpu sse \nbugs\t: sse2\n", "fpu sse", true},
		{"the first CPU counts", "flags : a\n\nflags : b\n", "a", true},
		{"vmx flags are others", "vmx flags\t: vnmi\n", "", false},
		{"none", "Features : fp asimd\n", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseCPUInfo(strings.NewReader(tt.in))
			if strings.Join(got, " ") != tt.want || ok != tt.ok {
				t.Errorf("got %v %v", got, ok)
			}
		})
	}
}

func TestKernelFlags(t *testing.T) {
	tests := []struct{ name, cpuid, printed, want string }{
		{"agree", "fpu sse", "fpu sse", "fpu sse"},
		{"cleared", "fpu fsgsbase sse", "fpu sse up", "fpu sse"},
		{"synthesised", "fpu", "fpu arat", "arat fpu"},
		{"hidden ones stay", "avx avx_ifma fpu fxsr osxsave xsave", "avx fpu fxsr xsave", "avx avx_ifma fpu fxsr osxsave xsave"},
		{"unless what they need is gone", "avx avx_ifma fpu fxsr osxsave xsave", "fpu fxsr xsave", "fpu fxsr osxsave xsave"},
		{"noxsave", "avx_ifma fpu fxsr osxsave", "fpu fxsr", "fpu fxsr"},
		{"shadow stacks off at boot", "fpu fxsr osxsave shstk user_shstk xsave xsaves", "fpu fxsr xsave xsaves", "fpu fxsr osxsave shstk xsave xsaves"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := kernelFlags(strings.Fields(tt.cpuid), strings.Fields(tt.printed))
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

func BenchmarkHost(b *testing.B) {
	for b.Loop() {
		if _, err := Host(); err != nil {
			b.Fatal(err)
		}
	}
}

// The CPU answers a leaf whatever ECX holds, or by what it holds.
func TestIndexed(t *testing.T) {
	const rest = 0x6c65746e // what CPUID 0 leaves in ECX on Intel's
	c := Native{}
	last, _ := c.CPUID(0, 0)
	for _, l := range glibcLeaves {
		leaf := l.EAX
		if leaf > last.EAX && leaf < leafExt {
			continue // Intel's answer another instead
		}
		want, _ := c.CPUID(leaf, 0)
		got, _ := c.CPUID(leaf, rest)
		if leaf == leafFeatures { // its second register says on which CPU of the machine
			want.EBX, got.EBX = 0, 0
		}
		if got != want && !Indexed(leaf) {
			t.Errorf("leaf %#x: %x with ECX 0, %x with another", leaf, want, got)
		}
	}
	if !Indexed(leafStruct) || !Indexed(leafXState) {
		t.Error("what is asked by index has none")
	}
}
