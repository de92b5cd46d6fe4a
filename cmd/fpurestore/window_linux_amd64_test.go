package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/cmd/fpurestore/internal/ptrace"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// traced tells whether somebody traces a thread of the target.
func (g *target) traced() bool {
	for i := range g.states {
		if st, err := ptrace.ReadStatus(g.pidOf(i), g.tid(i)); err == nil && (st.TracerPID != 0 || st.State == 't') {
			return true
		}
	}
	return false
}

// blockedWriter is a terminal that shows nothing while a thread of the target is held.
type blockedWriter struct {
	g *target
	bytes.Buffer
}

func (w *blockedWriter) Write(b []byte) (int, error) {
	eventually(w.g.tb, "let go before it is said: "+string(b), func() bool { return !w.g.traced() })
	return w.Buffer.Write(b)
}

// TestSaidLate has every kind of run talk to somebody who listens only when nobody
// holds the target, and holds that against the files too.
func TestSaidLate(t *testing.T) {
	g := startTarget(t, targetConfig{threads: 3})
	pid := fmt.Sprint(g.pid)
	images := g.images(g.states, same)
	mixed := g.others(1, xstate.Legacy)
	mixed[2].Compat = true
	fail := func(from int, calls ...string) func(int, string, int) error {
		seen := 0
		return func(_ int, name string, _ int) error {
			for _, c := range calls {
				if c == name {
					if seen++; seen >= from {
						return unix.EIO
					}
				}
			}
			return nil
		}
	}
	for _, tt := range []struct {
		name string
		args []string
		fail func(int, string, int) error
		code int
		says string
	}{
		{name: "restore", args: []string{"-D", images}, says: "3 threads restored"},
		{name: "save", args: []string{"--save", "DIR"}, says: "live state of 3 threads saved"},
		{name: "both", args: []string{"-D", images, "--save", "DIR"}, says: "live state saved"},
		{name: "mixed mode", args: []string{"-D", g.images(mixed, same), "--save", "DIR"}, code: 4, says: "32-bit task"},
		{name: "cannot be stopped", args: []string{"-D", images, "--save", "DIR"}, fail: fail(2, "seize"), code: 4, says: "error"},
		{name: "cannot be read", args: []string{"-D", images, "--save", "DIR"}, fail: fail(2, "get"), code: 4, says: "error"},
		{name: "cannot be written", args: []string{"-D", images, "--save", "DIR"}, fail: fail(2, "set"), code: 5, says: "could not put back"},
		{name: "cannot be let go", args: []string{"-D", images, "--save", "DIR"}, fail: fail(2, "detach"), says: "warning"},
	} {
		for _, more := range [][]string{nil, {"--json"}} {
			t.Run(strings.Join(append([]string{tt.name}, more...), " "), func(t *testing.T) {
				dir := t.TempDir()
				args := append([]string{"-t", pid}, more...)
				for _, a := range tt.args {
					args = append(args, strings.Replace(a, "DIR", filepath.Join(dir, "saved"), 1))
				}
				g.tb = t
				var out, errs = blockedWriter{g: g}, blockedWriter{g: g}
				m := &meddler{before: func(n int, name string, tid int) error {
					if files, _ := filepath.Glob(filepath.Join(dir, "*/*/*")); files != nil && name != "detach" {
						t.Errorf("at %s there is %v", name, files)
					}
					if tt.fail != nil {
						return tt.fail(n, name, tid)
					}
					return nil
				}}
				if code := m.restore(&out, &errs, args...); code != tt.code {
					t.Errorf("exit status %d, want %d", code, tt.code)
				}
				result{0, "", errs.String()}.says(t, tt.says)
				if more != nil && !strings.Contains(out.String(), `"outcome"`) {
					t.Errorf("stdout: %s", &out)
				}
			})
		}
	}
}

// TestBlocked restores with nobody reading what is said: the target runs on, and all
// is said in the end.
func TestBlocked(t *testing.T) {
	g := startTarget(t, targetConfig{threads: 3})
	want := g.others(1, everything)
	dir := filepath.Join(t.TempDir(), "saved")
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	size, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096)
	must(t, err)
	full := bytes.Repeat([]byte("x"), size)
	_, err = w.Write(full)
	must(t, err)
	cmd := asProgram("fpurestore", "-t", fmt.Sprint(g.pid), "-D", g.images(want, same), "--save", dir)
	cmd.Stdout, cmd.Stderr = w, w
	must(t, cmd.Start(), w.Close())
	eventually(t, "saved", func() bool { _, err := os.Stat(dir); return err == nil })
	g.untraced()
	g.expect(want)
	if st, err := ptrace.ReadStatus(cmd.Process.Pid, cmd.Process.Pid); err != nil || st.State == 'Z' {
		t.Errorf("it is not blocked: %c, %v", st.State, err)
	}
	out, err := io.ReadAll(r)
	must(t, err, cmd.Wait())
	result{0, "", string(out[size:])}.says(t, "live state saved to "+dir, "3 threads restored")
}

// TestSignals sends every signal that can be caught while the threads are held.
func TestSignals(t *testing.T) {
	t.Parallel()
	g := startTarget(t, targetConfig{threads: 3})
	pid := fmt.Sprint(g.pid)
	want := g.others(1, everything)
	images := g.images(want, same)
	const ends, stops, nothing = "ends", "stops", "nothing"
	kinds := map[syscall.Signal]string{
		unix.SIGHUP: ends, unix.SIGINT: ends, unix.SIGQUIT: ends, unix.SIGILL: ends, unix.SIGTRAP: ends, unix.SIGABRT: ends, unix.SIGBUS: ends,
		unix.SIGFPE: ends, unix.SIGSEGV: ends, unix.SIGTERM: ends, unix.SIGSTKFLT: ends, unix.SIGSYS: ends,
		32: ends, 34: ends, // 33: Go has a handler, or a C library
		unix.SIGTSTP: stops, unix.SIGTTIN: stops, unix.SIGTTOU: stops,
		unix.SIGKILL: "", unix.SIGSTOP: "", // cannot be caught
	}
	for sig := syscall.Signal(1); sig <= 35; sig++ { // one of the real-time signals stands for all
		kind, listed := kinds[sig]
		if !listed || signal.Ignored(sig) { // as nohup(1) leaves SIGHUP
			kind = nothing
		}
		for _, at := range []string{"seize", "interrupt", "get", "set"} {
			if kind == "" || kind == nothing && at != "get" {
				continue
			}
			t.Run(unix.SignalName(sig)+" at "+at, func(t *testing.T) {
				g.tb = t
				dir := filepath.Join(t.TempDir(), "saved")
				cmd := meddled(at, sig, "-t", pid, "-D", images, "--save", dir)
				cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // not orphaned, or it would not stop
				var errs bytes.Buffer
				cmd.Stderr = &errs
				must(t, cmd.Start())
				code, words, held := 0, []string{"3 threads restored", "live state saved"}, want
				switch {
				case kind == stops:
					eventually(t, "stopped", func() bool {
						st, err := ptrace.ReadStatus(cmd.Process.Pid, cmd.Process.Pid)
						return err != nil || st.State == 'T'
					})
					g.untraced()
					g.expect(want)
					kill(t, cmd.Process.Pid, syscall.SIGCONT)
				case kind == ends && at == "set":
					words = append(words, "signal received when registers were being written: the restore was finished")
				case kind == ends:
					code, words, held = 4, []string{"signal received, nothing was changed"}, g.states
				}
				cmd.Wait()
				if got := cmd.ProcessState.ExitCode(); got != code {
					t.Errorf("exit status %d, want %d", got, code)
				}
				result{0, "", errs.String()}.says(t, words...)
				if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*")); left != nil {
					t.Errorf("left behind: %v", left)
				}
				g.untraced()
				g.expect(held)
				g.load(g.states)
			})
		}
	}
}

// TestGoesOn sends what stops the program and then SIGCONT while the threads are held:
// it does not stop any more.
func TestGoesOn(t *testing.T) {
	t.Parallel()
	g := startTarget(t, targetConfig{threads: 3})
	want := g.others(1, everything)
	images := g.images(want, same)
	for _, sig := range []syscall.Signal{unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			g.tb = t
			cmd := meddled("get", sig, "-t", fmt.Sprint(g.pid), "-D", images)
			cmd.Env = append(cmd.Env, fmt.Sprintf("%s=get %d %d", meddling, sig, unix.SIGCONT))
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // not orphaned, or it would not stop
			must(t, cmd.Start())
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			eventually(t, "stopped or ended", func() bool {
				st, err := ptrace.ReadStatus(cmd.Process.Pid, cmd.Process.Pid)
				return len(ended) > 0 || err == nil && st.State == 'T'
			})
			if len(ended) == 0 {
				t.Error("it stopped")
				kill(t, cmd.Process.Pid, syscall.SIGCONT)
			}
			must(t, <-ended)
			g.expect(want)
			g.load(g.states)
		})
	}
}

// TestReportLost restores and saves with a standard output that takes nothing.
func TestReportLost(t *testing.T) {
	g := startTarget(t, targetConfig{threads: 2})
	want := g.others(1, everything)
	images := g.images(want, same)
	closed := func() *os.File {
		r, w, err := os.Pipe()
		must(t, err, r.Close())
		return w
	}
	full := func() *os.File {
		f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		must(t, err)
		return f
	}
	for name, open := range map[string]func() *os.File{"full": full, "closed pipe": closed} {
		for _, args := range []string{"restore", "restore --json", "save --json", "restore save", "restore save --json", "dry-run"} {
			t.Run(name+" "+args, func(t *testing.T) {
				g.tb = t
				cmd := asProgram("fpurestore", "-t", fmt.Sprint(g.pid))
				var words []string
				if strings.Contains(args, "restore") {
					cmd.Args = append(cmd.Args, "-D", images)
					words = append(words, "2 threads restored", "restored all the same, and only the report is lost")
				}
				if strings.Contains(args, "save") {
					cmd.Args = append(cmd.Args, "--save", filepath.Join(t.TempDir(), "saved"))
					words = append(words, "saved to", "all the same, and only the report is lost")
				}
				if strings.Contains(args, "--json") {
					cmd.Args = append(cmd.Args, "--json")
				}
				code := 0
				if args == "dry-run" { // has done nothing but report
					if name != "full" {
						return
					}
					cmd.Args, code = append(cmd.Args, "-D", images, "--dry-run"), 3
				}
				out := open()
				defer out.Close()
				var errs bytes.Buffer
				cmd.Stdout, cmd.Stderr = out, &errs
				err := cmd.Run()
				if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
					t.Errorf("%v, want exit status %d: %s", err, code, &errs)
				}
				result{0, "", errs.String()}.says(t, words...)
				if strings.Contains(args, "restore") {
					g.expect(want)
				}
				g.load(g.states)
			})
		}
	}
}

// TestUnsaved restores, and then the state from before cannot be written: both are
// said, and nothing half-written is left.
func TestUnsaved(t *testing.T) {
	g := startTarget(t, targetConfig{threads: 2})
	want := g.others(1, everything)
	dir := t.TempDir()
	exe, err := os.Executable()
	program := filepath.Join(dir, "fpurestore") // which it is by that name
	must(t, err, os.Symlink(exe, program))
	cmd := exec.Command("sh", "-c", `ulimit -f 0; exec "$0" "$@"`, program,
		"-t", fmt.Sprint(g.pid), "-D", g.images(want, same), "--save", filepath.Join(dir, "saved"))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit status %d: %s", code, &errs)
	}
	result{0, "", errs.String()}.says(t, "2 threads restored", "error: process "+fmt.Sprint(g.pid)+": write "+filepath.Join(dir, "saved", fmt.Sprintf("core-%d.img: file too large", g.pid)))
	if left := names(t, dir); left != "fpurestore" {
		t.Errorf("left behind: %s", left)
	}
	g.expect(want)
}
