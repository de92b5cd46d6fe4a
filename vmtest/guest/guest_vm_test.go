package guest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/vmtest/guest"
	"github.com/fpuimg/fpuimg/vmtest/testprog"
)

// fxsaveOnly is a CPU without XSAVE.
const fxsaveOnly = "qemu64,-xsave"

// program is a test program, and what it says of itself when all is well.
type program struct {
	testprog.Program
	processes, threads int
}

func start(p program) guest.Step {
	return guest.Step{Name: p.Name + "-start", Script: p.Start()}
}

func dump(p program, options string) guest.Step {
	return guest.Step{Name: p.Name + "-dump", Script: p.Dump(options)}
}

// run boots a guest with the test programs in /job.
func run(t *testing.T, cpu string, images map[string]string, steps []guest.Step) *guest.Result {
	t.Helper()
	im := guest.Require(t)
	b, err := testprog.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	job := guest.Job{CPU: cpu, Steps: steps, Files: map[string]string{
		"/job/fpuhold":  b.FPUHold,
		"/job/lazycall": b.LazyCall,
	}}
	for name, dir := range images {
		job.Files["/job/images/"+name] = dir
	}
	r, err := im.Run(t.Context(), filepath.Join(t.TempDir(), "run"), job)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: Linux %s, CRIU %s, %s: first step after %s, all %d done after %s", cpu, im.Linux, im.CRIU, im.QEMU, r.Boot, len(r.Steps), r.Elapsed)
	return r
}

func explain(s *guest.StepResult) string {
	return fmt.Sprintf("exit %d, timed out %v %s\nstdout: %s\nstderr: %s\nkernel: %s", s.Exit, s.TimedOut, s.Error, s.Stdout, s.Stderr, s.Kernel)
}

func wantOK(t *testing.T, s *guest.StepResult) {
	t.Helper()
	if !s.OK() {
		t.Fatalf("step %s failed: %s", s.Name, explain(s))
	}
}

// wantIntact requires that all registers of the program held at a step's end.
func wantIntact(t *testing.T, s *guest.StepResult, p program) {
	t.Helper()
	wantOK(t, s)
	ticks, err := testprog.ParseStatus(s.Stdout)
	if err != nil {
		t.Fatalf("step %s: %v", s.Name, err)
	}
	if len(ticks) != p.processes {
		t.Errorf("step %s: %d processes report, want %d: %v", s.Name, len(ticks), p.processes, ticks)
	}
	for _, tick := range ticks {
		if !tick.OK() || tick.Total != p.threads {
			t.Errorf("step %s: got %q, want OK %d/%[3]d", s.Name, tick, p.threads)
		}
	}
}

// CRIU restores on the same CPU model what it dumped there, whatever the CPU
// has, and the program finds every register as it left it.
func TestSameCPUVM(t *testing.T) {
	guest.Require(t)
	programs := []program{
		{testprog.Program{Name: "init", PID: 100000, Command: "/job/fpuhold init $STATUS"}, 1, 1},
		{testprog.Program{Name: "sse", PID: 110000, Command: "/job/fpuhold sse $STATUS"}, 1, 1},
		{testprog.Program{Name: "auto", PID: 120000, Command: "/job/fpuhold auto $STATUS"}, 1, 1},
		{testprog.Program{Name: "threads", PID: 130000, Command: "/job/fpuhold auto $STATUS 8"}, 1, 8},
		{testprog.Program{Name: "tree", PID: 140000, Command: "/job/fpuhold auto $STATUS 2 3"}, 3, 2},
		{testprog.Program{Name: "lazy", PID: 150000, Command: "/job/lazycall $STATUS /tmp/go"}, 1, 1},
	}
	pkru := program{testprog.Program{Name: "pkru", PID: 160000, Command: "/job/fpuhold pkru $STATUS 4"}, 1, 4}
	tests := []struct {
		cpu      string
		programs []program
	}{
		{"Haswell", programs},
		{"max", append(programs[:len(programs):len(programs)], pkru)},
		{fxsaveOnly, programs},
	}
	for _, tt := range tests {
		t.Run(tt.cpu, func(t *testing.T) {
			t.Parallel()
			var steps []guest.Step
			for _, p := range tt.programs {
				steps = append(steps, start(p), dump(p, "--cpu-cap=all"),
					guest.Step{Name: p.Name + "-restore", Script: p.Restore("/job/step/"+p.Name+"-dump/out", "--cpu-cap=all")},
					guest.Step{Name: p.Name + "-stop", Script: p.Stop()})
			}
			r := run(t, tt.cpu, nil, steps)
			for _, p := range tt.programs {
				t.Run(p.Name, func(t *testing.T) {
					wantIntact(t, r.Step(p.Name+"-start"), p)
					wantOK(t, r.Step(p.Name+"-dump"))
					wantIntact(t, r.Step(p.Name+"-restore"), p)
					wantOK(t, r.Step(p.Name+"-stop"))
				})
			}
		})
	}
}

// A program that has a file open when it is dumped is dumped once more: its
// checkpoint is restored where the file is not.
func TestOpenFileVM(t *testing.T) {
	guest.Require(t)
	const status = "/tmp/holder"
	holder := testprog.Lib + "set -e\nstart 100000 " + status + " sh -c '" +
		"exec 3>>" + status + "; echo open >&3; until [ -e /tmp/dumped ]; do sleep 0.1; done; exec 3>&-; while :; do sleep 0.1; done'\n"
	// The file is closed when the program goes on after its first dump.
	dump := testprog.Lib + "set -e\ncriu() { command criu \"$@\" && touch /tmp/dumped; }\ndump 100000 $OUT\n"
	restore := testprog.Lib + "set -e\nrm " + status + "\nrestore /job/step/dump/out $OUT/restore.log\nalive 100000\nstop 100000\n"
	r := run(t, "Haswell", nil, []guest.Step{{Name: "start", Script: holder}, {Name: "dump", Script: dump}, {Name: "restore", Script: restore}})
	for _, name := range []string{"start", "dump", "restore"} {
		wantOK(t, r.Step(name))
	}
	if s := r.Step("dump"); !strings.Contains(s.Stderr, "had a file open, dumped again") {
		t.Errorf("the file was not open at the first dump: %s", s.Stderr)
	}
}

// What a CPU with AVX dumped, on one without XSAVE: CRIU refuses by default,
// and leaves nothing of the attempt. Told not to compare, it restores the
// legacy registers alone, and what then becomes of a program is up to the
// program.
func TestDowngradeVM(t *testing.T) {
	guest.Require(t)
	sse := program{testprog.Program{Name: "sse", PID: 100000, Command: "/job/fpuhold sse $STATUS 4"}, 1, 4}
	auto := program{testprog.Program{Name: "auto", PID: 110000, Command: "/job/fpuhold auto $STATUS"}, 1, 1}
	blind := program{testprog.Program{Name: "blind", PID: 120000, Command: "/job/fpuhold -b auto $STATUS"}, 1, 1}
	tuned := program{testprog.Program{Name: "tuned", PID: 130000, Command: "env " + testprog.Tunables + " /job/lazycall $STATUS /tmp/go"}, 1, 1}
	plain := program{testprog.Program{Name: "plain", PID: 140000, Command: "/job/lazycall $STATUS /tmp/go"}, 1, 1}

	var steps []guest.Step
	all := []program{sse, auto, blind, tuned, plain}
	for _, p := range all {
		steps = append(steps, start(p), dump(p, "--cpu-cap=all"))
	}
	r := run(t, "Haswell", nil, steps)
	images := map[string]string{}
	for _, p := range all {
		wantIntact(t, r.Step(p.Name+"-start"), p)
		wantOK(t, r.Step(p.Name+"-dump"))
		images[p.Name] = r.Step(p.Name + "-dump").Dir
	}
	if _, err := os.Stat(filepath.Join(images["sse"], "cpuinfo.img")); err != nil {
		t.Errorf("dump --cpu-cap=all has left no cpuinfo.img: %v", err)
	}

	steps = []guest.Step{
		{Name: "default", Script: sse.Restore("/job/images/sse", "")},
		{Name: "left", Script: testprog.Lib + fmt.Sprintf("! alive %d\n", sse.PID)},
	}
	for _, p := range all {
		steps = append(steps, guest.Step{Name: p.Name, Script: p.Restore("/job/images/"+p.Name, "--cpu-cap=none")})
	}
	steps = append(steps,
		guest.Step{Name: "go", Script: "touch /tmp/go\n"},
		guest.Step{Name: "tuned-go", Script: tuned.Await(20)},
		guest.Step{Name: "plain-go", Script: plain.Await(20)})
	r = run(t, fxsaveOnly, images, steps)

	t.Run("default", func(t *testing.T) {
		// criu/arch/x86/cpu.c:cpu_validate_features
		s := r.Step("default")
		if s.Exit == 0 || s.TimedOut || !strings.Contains(s.Stderr, "xsave") {
			t.Errorf("CRIU did not refuse for want of xsave: %s", explain(s))
		}
		wantOK(t, r.Step("left"))
	})
	t.Run("sse", func(t *testing.T) { wantIntact(t, r.Step("sse"), sse) })
	t.Run("auto", func(t *testing.T) {
		s := r.Step("auto")
		wantOK(t, s)
		if want := " BAD 0/1 LOST:AVX\n"; !strings.HasSuffix(s.Stdout, want) {
			t.Errorf("got %q, want %q", s.Stdout, want)
		}
	})
	t.Run("blind", func(t *testing.T) { wantSIGILL(t, r.Step("blind"), "fpuhold") })
	t.Run("tuned", func(t *testing.T) {
		wantIntact(t, r.Step("tuned"), tuned)
		wantIntact(t, r.Step("tuned-go"), tuned)
	})
	t.Run("plain", func(t *testing.T) {
		wantIntact(t, r.Step("plain"), plain)
		s := r.Step("plain-go")
		if s.OK() {
			t.Errorf("lazycall lived on: %s", explain(s))
		}
		// It may die as soon as the file is there, which is a step earlier.
		s.Kernel = r.Step("go").Kernel + r.Step("tuned-go").Kernel + s.Kernel
		wantSIGILL(t, s, "lazycall")
	})
}

// wantSIGILL requires that a step failed and that the kernel logged an invalid
// opcode of the program meanwhile.
func wantSIGILL(t *testing.T, s *guest.StepResult, comm string) {
	t.Helper()
	if s.OK() || s.TimedOut || !strings.Contains(s.Kernel, comm) || !strings.Contains(s.Kernel, "invalid opcode") {
		t.Errorf("%s did not die of an invalid opcode: %s", comm, explain(s))
	}
}

// What a CPU without XSAVE dumped, on one with AVX: the registers hold, and
// the upper halves of YMM are in their INIT state, which fpuhold checks where
// it finds AVX that it did not load.
func TestUpgradeVM(t *testing.T) {
	guest.Require(t)
	p := program{testprog.Program{Name: "auto", PID: 100000, Command: "/job/fpuhold auto $STATUS 4"}, 1, 4}
	r := run(t, fxsaveOnly, nil, []guest.Step{start(p), dump(p, "")})
	wantIntact(t, r.Step("auto-start"), p)
	wantOK(t, r.Step("auto-dump"))
	r = run(t, "Haswell", map[string]string{"auto": r.Step("auto-dump").Dir}, []guest.Step{
		{Name: "restore", Script: p.Restore("/job/images/auto", "")},
	})
	wantIntact(t, r.Step("restore"), p)
}
