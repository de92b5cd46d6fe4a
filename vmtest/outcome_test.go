package vmtest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/vmtest/testprog"
)

// outcome is what becomes of a checkpoint and its program in one restore: what
// fpuimg predicts, or what happened.
type outcome struct {
	refused string   // the class of CRIU's refusal
	dies    []string // predicted: the missing instruction sets, or SIGSEGV; happened: the signal
	overrun bool     // XSAVE writes over the stack
	lost    []string // components whose values are gone
}

func (o outcome) String() string {
	switch {
	case o.refused != "":
		return "refuses: " + o.refused
	case len(o.dies) > 0:
		return "restores, dies: " + strings.Join(o.dies, " ")
	case o.overrun:
		return "restores, overwrites its stack"
	case len(o.lost) > 0:
		return "restores, loses " + strings.Join(o.lost, " ")
	}
	return "restores, intact"
}

// agrees reports whether what happened is what was predicted. Of a program that
// dies nobody knows what it had lost.
func (o outcome) agrees(happened outcome) bool {
	switch {
	case o.refused != "":
		return o.refused == happened.refused
	case happened.refused != "":
		return false
	case slices.Equal(o.dies, []string{"SIGSEGV"}):
		return slices.Equal(happened.dies, o.dies)
	case len(o.dies) > 0:
		return slices.Equal(happened.dies, []string{"SIGILL"})
	}
	return len(happened.dies) == 0 && o.overrun == happened.overrun && slices.Equal(o.lost, happened.lost)
}

// refusals maps what CRIU logs when it refuses to the class that fpuimg predicts.
var refusals = []struct{ text, class string }{
	{"FPU xsave area present, but host cpu doesn't support it", "xsave-record"},
	{"FPU feature required by image is not supported on host", "fpu-bits"},
	{"CPU xfeatures has unsupported bits", "xfeatures"},
	{"CPU xsave size mismatch", "xsave-size"},
	{"CPU xsave max size mismatch", "xsave-size"},
	{"CPU instruction capabilities do not match run time", "ins"},
	{"CPU capabilities do not match run time", "cpu"},
	// The first page that a CRIU looks at which has filled none.
	{"ELF header magic mismatch", "unparseable"},
	// A required field is missing. No other image here is beyond CRIU's parser.
	{"Failed unpacking object", "no-fpregs"},
}

// refusal returns the class of a refusal from the errors in CRIU's log, the first
// that is known.
func refusal(log string) string {
	for line := range strings.Lines(log) {
		for _, r := range refusals {
			if strings.Contains(line, r.text) {
				return r.class
			}
		}
	}
	return "unknown"
}

// registers maps the test programs' names of registers, without their number, to
// the components.
var registers = map[string]xstate.Feature{
	"fcw": xstate.X87, "fsw": xstate.X87, "ftw": xstate.X87, "st": xstate.X87,
	"mxcsr": xstate.SSE, "xmm": xstate.SSE,
	"ymm": xstate.AVX, "bnd": xstate.BNDREGS, "bndcsr": xstate.BNDCSR, "pkru": xstate.PKRU, "k": xstate.Opmask,
}

var registerName = regexp.MustCompile(`^(?:\d+/)?(.*?)\d*$`)

// overran reports whether lazycall has found its stack overwritten, and takes that
// out of the ticks.
func overran(ticks []testprog.Tick) bool {
	found := false
	for i := range ticks {
		if slices.Equal(ticks[i].Lost, []string{"stack"}) {
			ticks[i].Lost, found = nil, true
		}
	}
	return found
}

// lostComponents returns the components that ticks name as lost. The error is
// about a name that is neither a register nor a component.
func lostComponents(ticks []testprog.Tick) ([]string, error) {
	var names []string
	for _, tick := range ticks {
		for _, name := range tick.Lost {
			name = registerName.FindStringSubmatch(name)[1]
			if f, ok := registers[name]; ok {
				name = f.String()
			}
			names = append(names, name)
		}
	}
	return sorted(names)
}

// sorted returns the components of the names, each once, by their bits; nil for
// none.
func sorted(names []string) ([]string, error) {
	var set xstate.Features
	for _, name := range names {
		f, ok := xstate.ParseFeature(name)
		if !ok {
			return nil, fmt.Errorf("%q is no register and no component", name)
		}
		set |= f.Mask()
	}
	if set == 0 {
		return nil, nil
	}
	return set.Names(), nil
}

// trap is a line of the kernel's about a process that it ends:
// "traps: fpuhold[100000] trap invalid opcode ip:401234 sp:...".
var trap = regexp.MustCompile(`\b\w+\[(\d+)\]:? (trap invalid opcode|.*)`)

// fatalSignal returns the signal that ended a process or thread whose number is one of
// its own, by the kernel's log.
func fatalSignal(kernel string, own func(pid int) bool) string {
	for line := range strings.Lines(kernel) {
		m := trap.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		var n int
		if _, err := fmt.Sscan(m[1], &n); err != nil || !own(n) {
			continue
		}
		switch {
		case strings.Contains(m[2], "invalid opcode"):
			return "SIGILL"
		case strings.Contains(m[2], "segfault"), strings.Contains(m[2], "general protection"), strings.Contains(m[2], "bad frame"):
			return "SIGSEGV"
		}
		return strings.TrimSpace(m[2])
	}
	return "gone"
}

// hundred are the numbers that a test program's processes and threads may have: any if
// pid is 0.
func hundred(pid int) func(int) bool {
	return func(n int) bool { return pid == 0 || n >= pid && n < pid+100 }
}

func TestOutcome(t *testing.T) {
	tests := []struct {
		predicted, happened outcome
		agree               bool
	}{
		{outcome{}, outcome{}, true},
		{outcome{}, outcome{lost: []string{"AVX"}}, false},
		{outcome{}, outcome{refused: "ins"}, false},
		{outcome{}, outcome{dies: []string{"SIGILL"}}, false},
		{outcome{lost: []string{"AVX"}}, outcome{lost: []string{"AVX"}}, true},
		{outcome{lost: []string{"AVX"}}, outcome{}, false},
		{outcome{lost: []string{"AVX"}}, outcome{lost: []string{"SSE", "AVX"}}, false},
		{outcome{refused: "ins"}, outcome{refused: "ins"}, true},
		{outcome{refused: "ins"}, outcome{refused: "cpu"}, false},
		{outcome{refused: "ins"}, outcome{}, false},
		{outcome{dies: []string{"avx2"}}, outcome{dies: []string{"SIGILL"}}, true},
		{outcome{dies: []string{"avx2"}}, outcome{dies: []string{"SIGSEGV"}}, false},
		{outcome{dies: []string{"avx2"}}, outcome{}, false},
		{outcome{dies: []string{"SIGSEGV"}}, outcome{dies: []string{"SIGSEGV"}}, true},
		{outcome{dies: []string{"SIGSEGV"}}, outcome{dies: []string{"SIGILL"}}, false},
		{outcome{overrun: true}, outcome{overrun: true}, true},
		{outcome{overrun: true}, outcome{}, false},
		{outcome{}, outcome{overrun: true}, false},
		{outcome{overrun: true}, outcome{dies: []string{"SIGSEGV"}}, false},
		{outcome{dies: []string{"avx2"}, lost: []string{"AVX"}}, outcome{lost: []string{"AVX"}}, false},
	}
	for _, tt := range tests {
		if got := tt.predicted.agrees(tt.happened); got != tt.agree {
			t.Errorf("predicted %v, happened %v: agrees is %v, want %v", tt.predicted, tt.happened, got, tt.agree)
		}
	}
}

func TestLostComponents(t *testing.T) {
	ticks, err := testprog.ParseStatus("tick 1 pid 2 OK 1/1\ntick 1 pid 3 BAD 0/2 LOST:ymm15,PKRU,1/st3,1/mxcsr\n")
	if err != nil {
		t.Fatal(err)
	}
	got, err := lostComponents(ticks)
	if want := []string{"x87", "SSE", "AVX", "PKRU"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if got, err := lostComponents([]testprog.Tick{{Lost: []string{"strtol"}}}); err == nil {
		t.Errorf("a register named strtol is %q", got)
	}
}

func TestFatalSignal(t *testing.T) {
	const kernel = `traps: fpuhold[100000] trap invalid opcode ip:401234 sp:7ffc0 error:0 in fpuhold[401000+3000]
lazycall[100103]: segfault at 7f0 ip 00007f sp 00007f error 4 in libc.so.6[7f0+195000]
traps: lazycall[100200] general protection fault ip:7f sp:7f error:0 in ld-linux-x86-64.so.2[7f0+26000]
fpuhold[100300] bad frame in rt_sigreturn frame:7ffc0 ip:401000 sp:7ffc8 orax:ffffffffffffffff in fpuhold[401000+3000]
`
	for pid, want := range map[int]string{100000: "SIGILL", 100100: "SIGSEGV", 100200: "SIGSEGV", 100300: "SIGSEGV", 100400: "gone"} {
		if got := fatalSignal(kernel, hundred(pid)); got != want {
			t.Errorf("process %d: got %s, want %s", pid, got, want)
		}
	}
}
