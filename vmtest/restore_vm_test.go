package vmtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fpuimg/fpuimg/vmtest/guest"
)

// suite is a package whose tests run in the guests, compiled here.
type suite struct {
	name     string
	dir      string      // of the package, in the module
	programs [][2]string // what the tests run: package in the module, GOARCH
	data     []string    // what they read, in the module
	steps    []suiteStep
}

// suiteStep is one run of some of the tests.
type suiteStep struct {
	name  string
	setup string // shell commands before it
	args  string

	// must are tests that are there and pass on every machine. The others that run
	// pass too, or are in the table of skips.
	must []string
}

// suites leave out what is slow on an emulated CPU and asks nothing of the kernel
// that the rest does not: a thousand threads, and exhaustive loops over failing
// calls.
var suites = []suite{
	{
		name: "ptrace",
		dir:  "cmd/fpurestore/internal/ptrace",
		programs: [][2]string{
			{"cmd/fpurestore/testdata/target", "amd64"},
			{"cmd/fpurestore/internal/ptrace/testdata/target32", "386"},
		},
		steps: []suiteStep{
			{name: "some", must: []string{"TestCompat", "TestFXSave"}, args: "-test.run '^Test(Compat|FXSave|ReadBack|ReadBackDiffers|RefusedWrite|" +
				"SystemCalls|KilledMidway|CannotAttach|Permission|Traced|Uninterruptible|DeadLeader|Several|Compare)$'"},
		},
	},
	{
		name: "fpurestore",
		dir:  "cmd/fpurestore",
		programs: [][2]string{
			{"cmd/fpurestore/testdata/target", "amd64"},
			{"cmd/fpurestore/internal/ptrace/testdata/target32", "386"},
			{"cmd/fpuimg", "amd64"},
		},
		data: []string{"cmd/fpurestore/testdata/script", "testdata/images", "man", "completions"},
		steps: []suiteStep{
			{name: "all", args: "-test.skip '^TestKilled$|^TestThreads$/^1000$'", must: []string{
				"Test32Bit/32-bit_image", "Test32Bit/64-bit_image", "Test32Bit/64-bit_thread", "Test32Bit/saved", "Test32Bit/back",
				"TestThreads/8", "TestRealImages/h-sse", "TestStates/futex", "TestStopped", "TestChurn", "TestPIDNamespace", "TestTree",
				"TestTreeKilled", "TestFailingCalls", "TestRoundTrip/tree", "TestTimeout", "TestNoTarget/kernel_thread", "TestNoTarget/zombie",
				"TestOtherUser", "TestSetUID",
			}},
			// Each setting of Yama. There is no way back from 3, and nothing to trace there.
			yama(0), yama(1), yama(2), yama(3),
		},
	},
}

func yama(scope int) suiteStep {
	return suiteStep{
		name:  fmt.Sprintf("yama-%d", scope),
		setup: fmt.Sprintf("echo %d >/proc/sys/kernel/yama/ptrace_scope", scope),
		args:  "-test.run '^TestYama$'",
		must:  []string{"TestYama"},
	}
}

// restoreMachines are a machine with all that qemu's TCG emulates, and one where
// NT_PRFPREG is all there is. Of each, skips are the tests that skip, by words of the
// reason that they give: what the CPU lacks they learn from the guest's own CPUID.
// must are tests that its CPU is there for.
var restoreMachines = []struct {
	cpu   string
	skips map[string][]string
	must  []string
}{
	{
		cpu: "max",
		skips: map[string][]string{
			"this CPU has no opmask|ZMM_Hi256|Hi16_ZMM": {"TestComponents/x87|SSE|AVX|opmask|ZMM_Hi256|Hi16_ZMM",
				"TestRealImages/h-avx512", "TestRealImages/h-threads8"},
			"this CPU has no TILECFG|TILEDATA":                     {"TestTiles"},
			"this test is about a machine without protection keys": {"TestScript/policy"},
			"gdb is not installed":                                 {"TestTraced"},
			"bash is not installed":                                {"TestShells/bash"},
			"zsh is not installed":                                 {"TestShells/zsh"},
			"fish is not installed":                                {"TestShells/fish"},
		},
		must: []string{"TestPKRU", "TestComponents/x87|SSE|PKRU", "TestRealImages/g-max-criu42-pkru4", "TestPIDNamespace/real_image",
			"TestScript/json", "TestReadBack", "TestCannotAttach", "TestPermission"},
	},
	{
		cpu: "qemu64,-xsave",
		skips: map[string][]string{
			"this CPU has no AVX": {"TestComponents/x87|SSE|AVX", "TestComponents/x87|SSE|AVX|opmask|ZMM_Hi256|Hi16_ZMM",
				"TestRealImages/h-avx", "TestRealImages/h-avx512", "TestRealImages/h-threads8", "TestPIDNamespace/real_image"},
			"this CPU has no PKRU":             {"TestComponents/x87|SSE|PKRU", "TestRealImages/g-max-criu42-pkru4", "TestPKRU"},
			"this CPU has no TILECFG|TILEDATA": {"TestTiles"},
			"this CPU has no XSAVE":            {"TestScript/match", "TestScript/json", "TestScript/dryrun", "TestScript/hints"},
			"the kernel has not enabled XSAVE": {"TestReadBack", "TestReadBackDiffers", "TestRefusedWrite", "TestKilledMidway/first", "TestKilledMidway/last",
				"TestSystemCalls/nanosleep", "TestSystemCalls/futex", "TestSystemCalls/read", "TestSystemCalls/epoll",
				"TestCannotAttach", "TestPermission", "TestTraced", "TestUninterruptible", "TestDeadLeader", "TestSeveral"},
			"gdb is not installed":  {"TestTraced"},
			"bash is not installed": {"TestShells/bash"},
			"zsh is not installed":  {"TestShells/zsh"},
			"fish is not installed": {"TestShells/fish"},
		},
	},
}

// TestRestoreVM is described in the package's comment.
func TestRestoreVM(t *testing.T) {
	im := guest.Require(t)
	const root = "/job/module"
	files := map[string]string{}
	var steps []guest.Step
	dir := t.TempDir()
	for _, s := range suites {
		programs := filepath.Join(dir, s.name)
		for _, p := range s.programs {
			goBuild(t, p[1], "build", "-o", filepath.Join(programs, path.Base(p[0])), "../"+p[0])
		}
		binary := filepath.Join(dir, s.name+".test")
		goBuild(t, "amd64", "test", "-c", "-o", binary, "../"+s.dir)
		files[path.Join(root, s.dir, "tests")] = binary
		files["/job/programs/"+s.name] = programs
		for _, d := range s.data {
			files[path.Join(root, d)] = filepath.Join("..", d)
		}
		for _, st := range s.steps {
			steps = append(steps, guest.Step{Name: s.name + "-" + st.name, Timeout: 8 * time.Minute, Script: fmt.Sprintf(
				"set -e\ncd %s\n%s\nFPUIMG_TEST_PROGRAMS=/job/programs/%s exec ./tests -test.v=test2json -test.timeout=7m %s\n",
				path.Join(root, s.dir), st.setup, s.name, st.args)})
		}
	}
	for _, m := range restoreMachines {
		t.Run(m.cpu, func(t *testing.T) {
			t.Parallel()
			r, err := im.Run(t.Context(), filepath.Join(t.TempDir(), "run"), guest.Job{CPU: m.cpu, Files: files, Steps: steps, Timeout: 20 * time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("Linux %s, %s: first step after %s, all %d done after %s", im.Linux, im.QEMU, r.Boot, len(r.Steps), r.Elapsed)
			passed, skipped := map[string]bool{}, map[string]bool{}
			for _, s := range suites {
				for _, st := range s.steps {
					step := r.Step(s.name + "-" + st.name)
					tests := testResults(t, step.Stdout)
					t.Logf("step %s: %d tests in %s", step.Name, len(tests), step.Elapsed.Round(time.Second))
					if !step.OK() {
						t.Errorf("step %s: exit %d, timed out %v %s\nstderr: %s\nkernel: %s", step.Name, step.Exit, step.TimedOut, step.Error, step.Stderr, step.Kernel)
					}
					for name, test := range tests {
						switch {
						case test.action == "pass":
							passed[name] = true
						case test.action == "skip" && excused(m.skips, name, test.output, skipped):
						default:
							t.Errorf("step %s: %s: %q\n%s", step.Name, name, test.action, test.output)
						}
					}
					for _, name := range st.must {
						if tests[name].action != "pass" {
							t.Errorf("step %s: %s has not passed", step.Name, name)
						}
					}
				}
			}
			for _, name := range m.must {
				if !passed[name] {
					t.Errorf("%s has not passed", name)
				}
			}
			for why, names := range m.skips {
				for _, name := range names {
					if !skipped[why+": "+name] {
						t.Errorf("%s has not skipped because %s", name, why)
					}
				}
			}
		})
	}
}

// excused reports whether a test may skip for the reason that it gives, and notes it.
func excused(skips map[string][]string, name, output string, skipped map[string]bool) bool {
	for why, names := range skips {
		if strings.Contains(output, why) && slices.Contains(names, name) {
			skipped[why+": "+name] = true
			return true
		}
	}
	return false
}

// goBuild runs a go command that makes static programs for the plainest CPU.
func goBuild(t *testing.T, arch string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
}

// testResult is how a test or subtest ended: "pass", "fail", "skip", or "" if it did
// not.
type testResult struct{ action, output string }

// testResults reads what a test binary has printed with -test.v=test2json.
func testResults(t *testing.T, text string) map[string]testResult {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "test2json")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	tests := map[string]testResult{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var e struct{ Action, Test, Output string }
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return tests
		} else if err != nil {
			t.Fatal(err)
		}
		r := tests[e.Test]
		switch e.Action {
		case "pass", "fail", "skip":
			r.action = e.Action
		case "output":
			r.output += e.Output
		}
		if e.Test != "" {
			tests[e.Test] = r
		}
	}
}
