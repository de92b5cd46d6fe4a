package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/cmd/fpurestore/internal/ptrace"
	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// meddler counts the system calls of a restore, and may do something before any of
// them, or have it fail.
type meddler struct {
	ptrace.Backend
	calls  int
	before func(call int, name string, tid int) error
	ctx    context.Context // of the restore
}

func (m *meddler) call(name string, tid int) error {
	m.calls++
	if m.before == nil {
		return nil
	}
	return m.before(m.calls, name, tid)
}

func (m *meddler) Seize(tid int) error {
	if err := m.call("seize", tid); err != nil {
		return err
	}
	return m.Backend.Seize(tid)
}

func (m *meddler) Interrupt(tid int) error {
	if err := m.call("interrupt", tid); err != nil {
		return err
	}
	return m.Backend.Interrupt(tid)
}

func (m *meddler) GetRegset(tid, nt int, buf []byte) (int, error) {
	if err := m.call("get", tid); err != nil {
		return 0, err
	}
	return m.Backend.GetRegset(tid, nt, buf)
}

func (m *meddler) SetRegset(tid, nt int, buf []byte) error {
	if err := m.call("set", tid); err != nil {
		return err
	}
	return m.Backend.SetRegset(tid, nt, buf)
}

func (m *meddler) Detach(tid, sig int) error {
	if err := m.call("detach", tid); err != nil {
		return err
	}
	return m.Backend.Detach(tid, sig)
}

// restoreThrough runs the program in this process over a meddler.
func restoreThrough(tb testing.TB, m *meddler, args ...string) result {
	tb.Helper()
	var out, errs bytes.Buffer
	code := m.restore(&out, &errs, args...)
	return result{code, out.String(), errs.String()}
}

func (m *meddler) restore(stdout, stderr io.Writer, args ...string) int {
	m.Backend = ptrace.NewSystem()
	s := cli.NewIO("fpurestore", strings.NewReader(""), stdout, stderr)
	code, err := dispatch(s, args, func(s *cli.IO, o *options) (cli.Exit, error) {
		through := linux
		through.open = func(pids ...int) (tracer, error) { return ptrace.OpenBackend(m, pids...) }
		through.catch = func() (ctx context.Context, hold func(bool), release func(), err error) {
			ctx, hold, release, err = linux.catch()
			m.ctx = ctx
			return ctx, hold, release, err
		}
		return restoreOn(through, s, o)
	})
	return int(s.Finish(code, err))
}

// TestFailingCalls has each system call of a restore fail, once and for good: every
// thread has its old state then, or the exit code says otherwise.
func TestFailingCalls(t *testing.T) {
	g := startTarget(t, targetConfig{threads: 3})
	want := g.others(1, everything)
	args := []string{"-t", fmt.Sprint(g.pid), "-D", g.images(want, same), "--json"}
	m := &meddler{}
	if r := restoreThrough(t, m, args...); r.code != 0 {
		t.Fatal(r)
	}
	g.expect(want)
	g.load(g.states)
	for call := 1; call <= m.calls; call++ {
		for _, forGood := range []bool{false, true} {
			var failed string
			f := &meddler{before: func(n int, name string, tid int) error {
				if name == "interrupt" && forGood {
					return nil // could not be let go again either
				}
				if n == call || failed == name && forGood {
					failed = name
					return unix.EIO
				}
				return nil
			}}
			r := restoreThrough(t, f, args...)
			what := fmt.Sprintf("call %d (%s), for good %v", call, failed, forGood)
			switch {
			case failed == "": // an interrupt, not to fail for good
				g.load(g.states)
				continue
			case failed == "detach":
				// The state is in place, and nobody holds the thread once its tracer ends.
				if r.code != 0 || forGood && !strings.Contains(r.errors, "warning: ") { // one failure is made good by trying again
					t.Errorf("%s: exit status %d: %s", what, r.code, r.errors)
				}
				eventually(t, "untraced", func() bool {
					for _, tid := range g.tids() {
						if st, err := ptrace.ReadStatus(g.pid, tid); err != nil || st.TracerPID != 0 {
							return false
						}
					}
					return true
				})
				g.expect(want)
				g.load(g.states)
				continue
			case forGood && r.code == 5:
				r.says(t, "hint: ", "could not put back")
				if !strings.Contains(r.out, `"outcome": "broken"`) || !strings.Contains(r.out, `"error": "could not be put back"`) {
					t.Errorf("%s: %s", what, r.out)
				}
				g.untraced()
				g.load(g.states)
				continue
			case r.code != 4:
				t.Errorf("%s: exit status %d: %s", what, r.code, r.errors)
			case !strings.Contains(r.out, `"outcome": "unchanged"`):
				t.Errorf("%s: %s", what, r.out)
			}
			g.untraced()
			g.expect(g.states)
			if t.Failed() {
				t.Fatal(what)
			}
		}
	}
}

// TestTreeKilled kills one process of a tree in the middle of a restore, at every second
// call or at those of them that [testcmd.Points] picks: every other thread has its old state then, or all of them the new.
func TestTreeKilled(t *testing.T) {
	const processes, threads = 3, 2
	start := func() (*target, []*xstate.State, []string) {
		g := startTarget(t, targetConfig{processes: processes, threads: threads})
		want := g.others(1, everything)
		return g, want, []string{"-t", fmt.Sprint(g.pid), "--tree", "-D", g.images(want, same)}
	}
	g, want, args := start()
	m := &meddler{}
	if r := restoreThrough(t, m, args...); r.code != 0 {
		t.Fatal(r)
	}
	g.untraced()
	g.expect(want)
	g.End()
	codes, tried := map[int]int{}, 0
	for i := range testcmd.Points((m.calls+1)/2, 0) {
		call := 2*i - 1
		g, want, args := start()
		victim := g.tid((1 + tried%(processes-1)) * threads)
		tried++
		where := ""
		f := &meddler{before: func(n int, name string, _ int) error {
			if n == call {
				where = name
				kill(t, victim, syscall.SIGKILL)
			}
			return nil
		}}
		r := restoreThrough(t, f, args...)
		codes[r.code]++
		switch {
		case r.code == 0 && where == "detach" || r.code == 0 && where == "get": // after its last look
			g.expect(want, victim)
		case r.code == 4 || r.code == 1: // 1: it ended before the others were stopped, and has no thread for its images
			r.says(t, "hint: ")
			g.expect(g.states, victim)
		default:
			t.Errorf("killed at call %d (%s): exit status %d: %s", call, where, r.code, r.errors)
		}
		for i := range g.states {
			if g.pidOf(i) == victim {
				continue
			}
			if st, err := ptrace.ReadStatus(g.pidOf(i), g.tid(i)); err != nil || st.TracerPID != 0 {
				t.Errorf("thread %d: %+v, %v", i, st, err)
			}
		}
		g.End()
		if t.Failed() {
			t.Fatalf("stopped at call %d (%s)", call, where)
		}
	}
	t.Logf("exit codes: %v", codes)
	if codes[4] == 0 {
		t.Error("never killed in the middle")
	}
}

// meddling tells fpurestore-meddled which signals to send itself before which call: the
// call's number or name, and the signals' numbers.
const meddling = "FPURESTORE_TEST_MEDDLING"

func init() {
	commands["fpurestore-meddled"] = func() {
		words := strings.Fields(os.Getenv(meddling))
		m := &meddler{}
		m.before = func(n int, name string, _ int) error {
			if words[0] == name || words[0] == strconv.Itoa(n) {
				m.before = nil
				for _, number := range words[1:] {
					n, _ := strconv.Atoi(number)
					sig := syscall.Signal(n)
					told := time.After(50 * time.Millisecond)
					if sigaction(sig, nil).handler == noteSignalPC() && sig != unix.SIGCONT && !slices.Contains(stopping, sig) {
						told = time.After(time.Minute) // it ends the restore, however busy the machine is
					}
					unix.Kill(os.Getpid(), sig)
					select {
					case <-m.ctx.Done():
					case <-told:
					}
				}
			}
			return nil
		}
		os.Exit(m.restore(os.Stdout, os.Stderr, os.Args[1:]...))
	}
}

// meddled returns a command that sends itself a signal before a call.
func meddled(at string, sig syscall.Signal, args ...string) *exec.Cmd {
	cmd := asProgram("fpurestore-meddled", args...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", meddling, at, int(sig)))
	return cmd
}

// asProgram returns a command that is this test binary under another name.
func asProgram(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{name}, args...)
	return cmd
}

// TestKilled kills fpurestore itself at points of a restore of 200 threads, those of 100
// that [testcmd.Points] picks: the target lives, nobody traces it, and each thread has
// either its old or its new state.
func TestKilled(t *testing.T) {
	t.Parallel()
	const threads, points = 200, 100
	g := startTarget(t, targetConfig{threads: threads})
	want := g.others(1, everything)
	args := []string{"-t", fmt.Sprint(g.pid), "-D", g.images(want, same)}
	m := &meddler{}
	if r := restoreThrough(t, m, args...); r.code != 0 {
		t.Fatal(r)
	}
	g.load(g.states)
	var none, some, all int
	for point := range testcmd.Points(points, 0) {
		call := 1 + (point-1)*(m.calls-1)/(points-1)
		out, err := meddled(strconv.Itoa(call), syscall.SIGKILL, args...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("call %d of %d: %v: %s", call, m.calls, err, out)
		}
		g.untraced()
		renewed := 0
		for i, s := range g.report() {
			switch {
			case differ(g.cpu, s, want[i]) == "":
				renewed++
			case differ(g.cpu, s, g.states[i]) != "":
				t.Errorf("killed at call %d: thread %d has neither its old nor its new state: %s", call, i, differ(g.cpu, s, g.states[i]))
			}
		}
		switch renewed {
		case 0:
			none++
		case threads:
			all++
		default:
			some++
		}
		if renewed > 0 {
			g.load(g.states)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("killed at points of %d calls: new state in no thread %d, in some %d, in all %d times", m.calls, none, some, all)
	if none == 0 || some == 0 || all == 0 {
		t.Error("the points are not spread over the restore")
	}
}
