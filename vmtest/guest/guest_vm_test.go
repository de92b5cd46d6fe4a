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

// program is one process, or tree of them, in a guest.
type program struct {
	name      string // of its steps and files
	pid       int    // first process
	args      string // of fpuhold, without the status file
	processes int
}

func (p program) status() string { return "/tmp/" + p.name }

func (p program) images() string { return "/job/step/" + p.name + "-dump/out" }

// pids is a shell pattern for the program's processes. Children take the next
// free pids, whatever they are.
func (p program) pids() string { return fmt.Sprintf("$(pids %d)", p.pid) }

// script puts the functions that steps share before a step's own lines. A
// failing command fails the step.
func script(format string, args ...any) string {
	return testprog.Lib + `
pids() { # the live processes of a program
	for _s in /proc/[0-9]*/stat; do
		set -- "$1" $(sed 's/(.*)/x/' "$_s" 2>/dev/null)
		[ "$6" = "$1" ] && echo "$2"
	done
}
set -e
` + fmt.Sprintf(format, args...)
}

func (p program) start() guest.Step {
	mode, rest, _ := strings.Cut(p.args, " ")
	return guest.Step{Name: p.name + "-start", Script: script(`
start %d %s /job/fpuhold %s %[2]s %[4]s
await 2 %[2]s %[5]s
`, p.pid, p.status(), mode, rest, p.pids())}
}

func (p program) dump() guest.Step {
	return guest.Step{Name: p.name + "-dump", Script: script("dump %d $OUT --cpu-cap=all\n", p.pid)}
}

func (p program) restore(images, criuArgs string) guest.Step {
	return guest.Step{Name: p.name + "-restore", Script: script(`
restore %s $OUT/restore.log %s
await 3 %s %s
`, images, criuArgs, p.status(), p.pids())}
}

func (p program) stop() guest.Step {
	return guest.Step{Name: p.name + "-stop", Script: script("stop %d\n", p.pid)}
}

// run boots a guest with the test programs.
func run(t *testing.T, cpu string, files map[string]string, steps []guest.Step) *guest.Result {
	t.Helper()
	im := guest.Require(t)
	p, err := testprog.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	job := guest.Job{CPU: cpu, Steps: steps, Files: map[string]string{
		"/job/fpuhold":  p.FPUHold,
		"/job/lazycall": p.LazyCall,
	}}
	for to, from := range files {
		job.Files[to] = from
	}
	r, err := im.Run(t.Context(), filepath.Join(t.TempDir(), "run"), job)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: Linux %s, CRIU %s: first step after %s, all done after %s", cpu, im.Linux, im.CRIU, r.Boot, r.Elapsed)
	for _, s := range r.Steps { t.Log(s.Name, s.Elapsed) }
	return r
}

func explain(s *guest.StepResult) string {
	return fmt.Sprintf("exit %d, timed out %v\nstdout: %s\nstderr: %s\nkernel: %s", s.Exit, s.TimedOut, s.Stdout, s.Stderr, s.Kernel)
}

// wantOK requires that a step succeeded.
func wantOK(t *testing.T, s *guest.StepResult) {
	t.Helper()
	if !s.OK() {
		t.Fatalf("step %s failed: %s", s.Name, explain(s))
	}
}

// wantIntact requires that a step succeeded and that, at its end, so many
// processes said that all registers of so many threads hold.
func wantIntact(t *testing.T, s *guest.StepResult, processes, threads int) {
	t.Helper()
	wantOK(t, s)
	ticks, err := testprog.ParseStatus(s.Stdout)
	if err != nil {
		t.Fatalf("step %s: %v", s.Name, err)
	}
	if len(ticks) != processes {
		t.Errorf("step %s: %d processes report, want %d: %v", s.Name, len(ticks), processes, ticks)
	}
	for _, tick := range ticks {
		if !tick.OK() || tick.Total != threads {
			t.Errorf("step %s: got %q, want OK %d/%[3]d", s.Name, tick, threads)
		}
	}
}

// CRIU restores on the same CPU model what it dumped there, whatever the CPU
// has, and the program finds every register as it left it.
func TestSameCPUVM(t *testing.T) {
	guest.Require(t)
	for _, cpu := range []string{"Haswell", "max", fxsaveOnly} {
		t.Run(cpu, func(t *testing.T) {
			t.Parallel()
			programs := []struct {
				program
				threads int
			}{
				{program{"init", 100000, "init", 1}, 1},
				{program{"sse", 110000, "sse", 1}, 1},
				{program{"auto", 120000, "auto", 1}, 1},
				{program{"threads", 130000, "auto 8", 1}, 8},
				{program{"tree", 140000, "auto 2 3", 3}, 2},
			}
			var steps []guest.Step
			for _, p := range programs {
				steps = append(steps, p.start(), p.dump(), p.restore(p.images(), "--cpu-cap=all"), p.stop())
			}
			r := run(t, cpu, nil, steps)
			for _, p := range programs {
				t.Run(p.name, func(t *testing.T) {
					wantIntact(t, r.Step(p.name+"-start"), p.processes, p.threads)
					wantOK(t, r.Step(p.name+"-dump"))
					wantIntact(t, r.Step(p.name+"-restore"), p.processes, p.threads)
					wantOK(t, r.Step(p.name+"-stop"))
				})
			}
		})
	}
}

// CRIU by default refuses to restore on a CPU without XSAVE what it dumped on
// one with, and nothing is left of the attempt.
func TestRefusedVM(t *testing.T) {
	guest.Require(t)
	p := program{"sse", 100000, "sse", 1}
	r := run(t, "Haswell", nil, []guest.Step{p.start(), p.dump()})
	wantIntact(t, r.Step("sse-start"), 1, 1)
	wantOK(t, r.Step("sse-dump"))
	images := r.Step("sse-dump").Dir
	if _, err := os.Stat(filepath.Join(images, "cpuinfo.img")); err != nil {
		t.Errorf("no cpuinfo.img from dump --cpu-cap=all: %v", err)
	}

	r = run(t, fxsaveOnly, map[string]string{"/job/images": images}, []guest.Step{
		p.restore("/job/images", ""),
		{Name: "left", Script: script("! alive %d\n", p.pid)},
	})
	s := r.Step("sse-restore")
	// criu/arch/x86/cpu.c:cpu_validate_features, of 3.17 and 4.2
	if s.Exit == 0 || !strings.Contains(s.Stderr, "xsave") {
		t.Errorf("CRIU did not refuse for want of xsave: %s", explain(s))
	}
	wantOK(t, r.Step("left"))
}
