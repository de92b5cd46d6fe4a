package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec/xstate"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// TestThreads restores into processes of 1, 8 and 1000 threads, and each thread
// reports what it holds.
func TestThreads(t *testing.T) {
	for _, n := range []int{1, 8, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			g := startTarget(t, targetConfig{threads: n})
			g.expect(g.states)
			want := g.others(1, everything)
			r := mustRestore(t, 0, "-t", fmt.Sprint(g.pid), "-D", g.images(want, same))
			r.says(t, fmt.Sprintf("process %d: %d thread", g.pid, n))
			g.untraced()
			g.expect(want)
		})
	}
}

// TestComponents restores images that have only some of the components that the
// target uses: the others become INIT, but PKRU keeps its value.
func TestComponents(t *testing.T) {
	for _, set := range []xstate.Features{xstate.Legacy, xstate.Legacy | xstate.AVX.Mask(), xstate.Legacy | xstate.AVX.Mask() | xstate.AVX512,
		xstate.Legacy | xstate.PKRU.Mask(), everything} {
		t.Run(set.String(), func(t *testing.T) {
			if set != everything {
				needCPU(t, set)
			}
			g := startTarget(t, targetConfig{nr: spinning, threads: 2})
			want := g.others(uint64(set), set)
			mustRestore(t, 0, "-t", fmt.Sprint(g.pid), "-D", g.images(want, same))
			if !set.Has(xstate.PKRU) {
				if d := g.states[0].Data(xstate.PKRU); d != nil {
					for i := range want {
						want[i].SetData(xstate.PKRU, g.states[i].Data(xstate.PKRU))
						want[i].BV |= xstate.PKRU.Mask()
					}
				}
			}
			g.expect(want)
		})
	}
}

// truthOf builds the state that a dumped program said it held.
func truthOf(th *testimg.Thread) *xstate.State {
	s := xstate.NewState(xstate.FormatXSave)
	fx := &s.FX
	fx.SetFCW(uint16(*th.FCW))
	fx.SetFSW(uint16(*th.FSW))
	fx.SetFTWRaw(uint16(*th.FTW))
	fx.SetFOP(uint16(*th.FOP))
	fx.SetFIP(uint64(*th.FIP))
	fx.SetFDP(uint64(*th.FDP))
	fx.SetMXCSR(uint32(*th.MXCSR))
	for i, st := range th.ST {
		copy(fx.STSpace()[16*i:], st)
	}
	set := func(f xstate.Feature, at int, b []byte) {
		if s.Data(f) == nil {
			s.SetData(f, make([]byte, f.Component().Size))
			s.BV |= f.Mask()
		}
		copy(s.Data(f)[at:], b)
	}
	for i, v := range th.XMM {
		copy(fx.XMMSpace()[16*i:], v)
	}
	for i, v := range th.YMM {
		set(xstate.AVX, 16*i, v[16:])
	}
	for i, v := range th.ZMM {
		if i >= 16 {
			set(xstate.Hi16ZMM, 64*(i-16), v)
			continue
		}
		set(xstate.AVX, 16*i, v[16:32])
		set(xstate.ZMMHi256, 32*i, v[32:])
	}
	for i, k := range th.K {
		set(xstate.Opmask, 8*i, binary.LittleEndian.AppendUint64(nil, uint64(k)))
	}
	if th.PKRU != nil {
		set(xstate.PKRU, 0, binary.LittleEndian.AppendUint32(nil, uint32(*th.PKRU)))
	}
	return s
}

// TestRealImages restores real checkpoints. The target, and gdb, then see what the
// program that was dumped had said it held.
func TestRealImages(t *testing.T) {
	avx512 := xstate.AVX.Mask() | xstate.AVX512
	for _, tt := range []struct {
		image string
		needs xstate.Features
		args  []string
	}{
		{image: "h-sse"},
		{image: "h-special"},
		{image: "h-x87top"},
		{image: "h-init"},
		{image: "old-nofpregs"}, // edited from h-init
		{image: "old-v10-sse"},
		{image: "h-avx", needs: xstate.AVX.Mask()},
		{image: "h-avx512", needs: avx512},
		{image: "h-threads8", needs: avx512},
		{image: "g-qemu64-criu42-special"}, // from FXSAVE
		{image: "g-max-criu42-pkru4", needs: xstate.PKRU.Mask(), args: []string{"--force"}}, // it has MPX too
	} {
		t.Run(tt.image, func(t *testing.T) {
			needCPU(t, tt.needs)
			truth := testimg.Load(t, tt.image).Tasks[0].Threads
			g := startTarget(t, targetConfig{threads: len(truth)})
			args := append([]string{"-t", fmt.Sprint(g.pid), "-D", testimg.Path(t, tt.image)}, tt.args...)
			if !*g.cpu.XSave {
				args = append(args, "--force") // for those of programs that have seen XSAVE
			}
			var want []*xstate.State
			for i := range truth {
				want = append(want, truthOf(&truth[i]))
				if len(truth) > 1 {
					args = append(args, fmt.Sprintf("--map=%d=%d", truth[i].TID, g.tid(i)))
				}
			}
			mustRestore(t, 0, args...)
			g.untraced()
			debugger(t, g.cpu, g.pid, want[0])
			g.expect(want)
		})
	}
}

// debugger compares with what gdb reads. gdb 13 places components as Intel does
// whatever the CPU, so what lies elsewhere is left to the target itself.
func debugger(t *testing.T, cpu *xstate.CPU, pid int, want *xstate.State) {
	t.Helper()
	path, err := exec.LookPath("gdb")
	if err != nil {
		return
	}
	type value struct{ expr, want string }
	var values []value
	number := func(expr string, v uint64) { values = append(values, value{expr, fmt.Sprintf("0x%x", v)}) }
	number("$fctrl", uint64(want.FX.FCW()))
	number("$fstat", uint64(want.FX.FSW()))
	lanes := func(name string, b []byte) {
		for lane := range len(b) / 8 {
			number(fmt.Sprintf("$%s.v%d_int64[%d]", name, len(b)/8, lane), binary.LittleEndian.Uint64(b[8*lane:]))
		}
	}
	usable, _ := cpu.Usable()
	intel := true
	for _, p := range xstate.IntelLayout(usable) {
		at, ok := cpu.Layout.Find(p.Feature)
		intel = intel && ok && at.Offset == p.Offset
	}
	for i := range 16 {
		b := want.FX.XMMSpace()[16*i:][:16]
		lanes(fmt.Sprintf("xmm%d", i), b)
		if usable.Has(xstate.AVX) {
			b = append(bytes.Clone(b), want.Value(xstate.AVX)[16*i:][:16]...)
			lanes(fmt.Sprintf("ymm%d", i), b)
		}
		if usable&xstate.AVX512 == xstate.AVX512 && intel {
			lanes(fmt.Sprintf("zmm%d", i), append(bytes.Clone(b), want.Value(xstate.ZMMHi256)[32*i:][:32]...))
			lanes(fmt.Sprintf("zmm%d", i+16), want.Value(xstate.Hi16ZMM)[64*i:][:64])
			if i < 8 {
				number(fmt.Sprintf("$k%d", i), binary.LittleEndian.Uint64(want.Value(xstate.Opmask)[8*i:]))
			}
		}
	}
	script := []string{"-nx", "-batch", "-iex", "set auto-load off", "-iex", "set debuginfod enabled off", "-p", fmt.Sprint(pid)}
	for _, v := range values {
		script = append(script, "-ex", "printf \"%#lx\\n\", "+v.expr)
	}
	script = append(script, "-ex", "info registers float", "-ex", "info registers mxcsr")
	cmd := exec.Command(path, script...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("gdb: %v: %s", err, errs.String())
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		if line = strings.TrimSpace(line); !strings.Contains(line, " ") && strings.HasPrefix(line, "0x") || line == "0" {
			got = append(got, line)
		}
	}
	if len(got) != len(values) {
		t.Fatalf("gdb printed %d values, want %d: %s%s", len(got), len(values), out.String(), errs.String())
	}
	for i, v := range values {
		if got[i] != v.want && !(got[i] == "0" && v.want == "0x0") {
			t.Errorf("gdb: %s = %s, want %s", v.expr, got[i], v.want)
		}
	}
	if mxcsr := regexp.MustCompile(`(?m)^mxcsr\s+(0x[0-9a-f]+)`).FindStringSubmatch(out.String()); mxcsr == nil || mxcsr[1] != fmt.Sprintf("0x%x", want.FX.MXCSR()) {
		t.Errorf("gdb: mxcsr %v, want %#x", mxcsr, want.FX.MXCSR())
	}
	for i := range 8 {
		st := want.FX.ST(i)
		slices.Reverse(st[:])
		if want := fmt.Sprintf("(raw 0x%x)", st[:]); !strings.Contains(out.String(), want) {
			t.Errorf("gdb: no st%d with %s:\n%s", i, want, out.String())
		}
	}
}
