package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fpuimg/fpuimg/cmd/fpurestore/internal/ptrace"
	"github.com/fpuimg/fpuimg/cmd/internal/cli"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// fake is a machine whose process 7 has the threads 7 and 8, and its child 9 the
// thread 9. It notes what is done to them.
type fake struct {
	t      *testing.T
	procs  map[int][]int
	calls  []string
	held   bool
	before func(call string) error // may change anything, and have the call fail
	cancel context.CancelCauseFunc
	looks  int           // at the status of threads
	slow   time.Duration // what each takes
}

func newFake(t *testing.T) *fake {
	return &fake{t: t, procs: map[int][]int{7: {7, 8}, 9: {9}}}
}

var fakeCPU = cpuWith(avx512|xstate.PKRU.Mask(), xstate.AMDLayout(avx512|xstate.PKRU.Mask()))

func (f *fake) call(name string, more ...any) error {
	call := strings.TrimSpace(name + " " + fmt.Sprintln(more...))
	f.calls = append(f.calls, call)
	if f.before == nil {
		return nil
	}
	return f.before(call)
}

func (f *fake) machine() machine {
	return machine{
		host: func() (*xstate.CPU, error) { return fakeCPU, f.call("host") },
		tree: func(pid int) ([]int, error) {
			err := f.call("tree")
			var pids []int
			for pid := range f.procs {
				pids = append(pids, pid)
			}
			slices.Sort(pids)
			return pids, err
		},
		tasks: func(pid int) ([]int, error) {
			if f.procs[pid] == nil {
				return nil, ptrace.ErrNotFound
			}
			return slices.Clone(f.procs[pid]), nil
		},
		status: func(pid, tid int) (ptrace.Status, error) {
			f.looks++
			time.Sleep(f.slow)
			if !slices.Contains(f.procs[pid], tid) {
				return ptrace.Status{}, ptrace.ErrNotFound
			}
			return ptrace.Status{PID: pid, TID: tid, PPID: 1, Comm: "fake", State: 'S', NSpid: []int{tid}}, nil
		},
		open:  func(pids ...int) (tracer, error) { return &fakeTracer{f, pids}, f.call("open", "") },
		alone: func(work func()) { work() },
		catch: func() (ctx context.Context, hold func(bool), release func(), err error) {
			ctx, f.cancel = context.WithCancelCause(f.t.Context())
			return ctx, func(held bool) { f.call("hold", held) }, func() { f.call("release") }, nil
		},
	}
}

type fakeTracer struct {
	*fake
	pids []int
}

func (f *fakeTracer) Reserve(int) {}

func (f *fakeTracer) Stop(ctx context.Context, _ ...ptrace.Thread) error {
	f.held = true
	if err := f.call("stop"); err != nil {
		return err
	}
	return ctx.Err()
}

func (f *fakeTracer) Threads() (out []ptrace.Thread) {
	for _, pid := range f.pids {
		for _, tid := range f.procs[pid] {
			out = append(out, ptrace.Thread{PID: pid, TID: tid})
		}
	}
	return out
}

func (f *fakeTracer) Compat(tid int) (bool, error) { return false, f.call("mode", tid) }

func (f *fakeTracer) Read(tid int) (ptrace.Area, error) {
	return ptrace.Area{Set: ptrace.XState, Data: oldArea(f.t, fakeCPU, xstate.NewState(xstate.FormatXSave))}, f.call("read", tid)
}

func (f *fakeTracer) ReadRegs(tid int) ([]byte, error) {
	return bytes.Repeat([]byte{byte(tid)}, 27*8), f.call("registers", tid)
}

func (f *fakeTracer) ReadShadowStack(int) (uint64, bool, error) { return 0, false, nil }

func (f *fakeTracer) Swap(areas map[int]ptrace.Area) error { return f.call("swap", len(areas)) }

func (f *fakeTracer) Close() error {
	f.held = false
	return f.call("close")
}

// quiet is a stream that nothing is written to while threads are held.
type quiet struct {
	f *fake
	bytes.Buffer
}

func (w *quiet) Write(b []byte) (int, error) {
	if w.f.held {
		w.f.t.Errorf("said while threads are held: %s", b)
	}
	return w.Buffer.Write(b)
}

func (f *fake) restore(args ...string) result {
	f.t.Helper()
	f.calls = nil
	out, errs := &quiet{f: f}, &quiet{f: f}
	s := cli.NewIO("fpurestore", nil, out, errs)
	code, err := dispatch(s, args, func(s *cli.IO, o *options) (cli.Exit, error) { return restoreOn(f.machine(), s, o) })
	return result{int(s.Finish(code, err)), out.String(), errs.String()}
}

// images writes the images of threads, "pid/tid" each.
func images(t *testing.T, state *xstate.State, threads ...string) string {
	t.Helper()
	var saved []codec.Thread
	for _, text := range threads {
		l := th(t, text)
		saved = append(saved, codec.Thread{PID: l.pid, TID: l.tid, State: state})
	}
	return writeImages(t, saved)
}

// writeImages writes a checkpoint of threads, those of a process together.
func writeImages(tb testing.TB, threads []codec.Thread) string {
	tb.Helper()
	dir := tb.TempDir()
	var tasks []codec.SavedTask
	for _, th := range threads {
		if n := len(tasks); n == 0 || tasks[n-1].PID != th.PID {
			tasks = append(tasks, codec.SavedTask{PID: th.PID})
		}
		task := &tasks[len(tasks)-1]
		task.TIDs = append(task.TIDs, th.TID)
		b, err := codec.MarshalCore(th)
		if err != nil {
			tb.Fatal(err)
		}
		write(tb, filepath.Join(dir, fmt.Sprintf("core-%d.img", th.TID)), b)
	}
	write(tb, filepath.Join(dir, "pstree.img"), codec.MarshalPstree(tasks))
	write(tb, filepath.Join(dir, "inventory.img"), codec.MarshalInventory())
	return dir
}

func write(tb testing.TB, path string, b []byte) {
	tb.Helper()
	if err := os.WriteFile(path, b, 0o666); err != nil {
		tb.Fatal(err)
	}
}

// result is what a run printed and returned.
type result struct {
	code        int
	out, errors string
}

// says checks that standard error holds each of the given words.
func (r result) says(tb testing.TB, words ...string) {
	tb.Helper()
	for _, w := range words {
		if !strings.Contains(r.errors, w) {
			tb.Errorf("does not say %q: %s", w, r.errors)
		}
	}
}

// TestOrder: what is done with the threads, and that the files come after it.
func TestOrder(t *testing.T) {
	f := newFake(t)
	dir := filepath.Join(t.TempDir(), "saved")
	f.before = func(call string) error {
		if _, err := os.Lstat(dir); err == nil && call != "release" {
			t.Errorf("saved before %s", call)
		}
		return nil
	}
	r := f.restore("-t", "7", "-D", images(t, filled(avx512), "7/7", "7/8"), "--save", dir)
	const want = "host, hold true, open, stop, mode 7, read 7, mode 8, read 8, read 7, registers 7, mode 7, read 8, registers 8, mode 8, swap 2, close, hold false, release"
	if got := strings.Join(f.calls, ", "); r.code != 0 || got != want {
		t.Errorf("exit status %d: %s, want %s", r.code, got, want)
	}
	r.says(t, "live state saved to "+dir, "2 threads restored")
	f.before = nil
	// What was saved goes back, and one that is refused stops nothing.
	for _, tt := range []struct {
		args []string
		code int
		last string
	}{{[]string{"-D", dir}, 0, "release"}, {[]string{"-D", dir, "--tree"}, 1, "release"}, {[]string{"-D", dir, "--dry-run"}, 0, "close"}} {
		if r := f.restore(append(tt.args, "-t", "7")...); r.code != tt.code || f.calls[len(f.calls)-1] != tt.last || slices.Contains(f.calls, "stop") != (tt.last == "release" && tt.code == 0) {
			t.Errorf("%v: exit status %d, %v", tt.args, r.code, f.calls)
		}
	}
}

// TestNumbersBegunAnew saves a process that has a thread with a lesser number than its
// leader, and restores it.
func TestNumbersBegunAnew(t *testing.T) {
	f := newFake(t)
	f.procs[7] = []int{3, 7, 8}
	dir := filepath.Join(t.TempDir(), "saved")
	for _, args := range [][]string{{"--save", dir}, {"-D", dir}} {
		if r := f.restore(append([]string{"-t", "7"}, args...)...); r.code != 0 {
			t.Fatalf("%v: exit status %d: %s", args, r.code, r.errors)
		}
	}
}

// TestExits has every kind of failure, and holds the exit code, the outcome and the
// hint against it.
func TestExits(t *testing.T) {
	good := images(t, filled(avx512), "7/7", "7/8")
	lost := xstate.NewState(xstate.FormatXSave)
	lost.BV |= xstate.AVX.Mask()
	narrow := images(t, filled(avx512|xstate.BNDREGS.Mask()), "7/7", "7/8")
	compat := filled(0)
	compat.Compat = true
	attach := func(e ptrace.AttachError) error { e.PID, e.TID = 7, 7; return &e }
	denied := func(e ptrace.AttachError) error { e.Reason = ptrace.ErrPermission; return attach(e) }
	thread := func(err error) error { return &ptrace.ThreadError{PID: 7, TID: 8, Op: "read", Err: err} }
	for _, tt := range []struct {
		name    string
		at      string // call that fails
		err     error
		args    []string // -D good if nil
		code    int
		outcome string
		says    string
	}{
		{name: "host", at: "host", err: errors.New("no CPUID"), code: 4, outcome: "unchanged", says: "no CPUID"},
		{name: "nowhere", args: []string{"-D", "nowhere"}, code: 3, outcome: "unchanged", says: "nowhere"},
		{name: "no images", args: []string{"-D", t.TempDir()}, code: 3, outcome: "unchanged", says: "hint: -D DIR names"},
		{name: "mismatch", args: []string{"-D", images(t, filled(0), "1/1", "1/2")}, code: 1, outcome: "refused", says: "hint: --map="},
		{name: "one missing", args: []string{"-D", images(t, filled(0), "7/7")}, code: 1, outcome: "refused", says: "hint: --ignore-missing leaves"},
		{name: "map", args: []string{"-D", good, "--map=5=7"}, code: 1, outcome: "refused", says: "hint: the images are of 7 8"},
		{name: "refused", args: []string{"-D", narrow}, code: 1, outcome: "refused", says: "hint: to do it all the same: fpurestore -t 7 --force -D "},
		{name: "forced", args: []string{"-D", narrow, "--force"}, code: 0, outcome: "restored", says: "2 threads restored"},
		{name: "damaged", args: []string{"-D", images(t, lost, "7/7", "7/8")}, code: 3, outcome: "unchanged", says: "hint: to do it all the same"},
		{name: "mode", args: []string{"-D", images(t, compat, "7/7", "7/8")}, code: 4, outcome: "unchanged", says: "32-bit task"},
		{name: "there", args: []string{"--save", good}, code: 3, outcome: "unchanged", says: "hint: --save=DIR makes a new"},
		{name: "not found", at: "open", err: attach(ptrace.AttachError{Reason: ptrace.ErrNotFound}), code: 4, outcome: "unchanged", says: "hint: look with ps"},
		{name: "zombie", at: "open", err: attach(ptrace.AttachError{Reason: ptrace.ErrZombie}), code: 4, outcome: "unchanged", says: "hint: look with ps"},
		{name: "self", at: "open", err: attach(ptrace.AttachError{Reason: ptrace.ErrSelf}), code: 4, outcome: "unchanged", says: "hint: a process cannot stop itself"},
		{name: "kernel", at: "open", err: attach(ptrace.AttachError{Reason: ptrace.ErrKernelThread}), code: 4, outcome: "unchanged", says: "hint: kernel threads"},
		{name: "not leader", at: "open", err: attach(ptrace.AttachError{Reason: ptrace.ErrNotLeader, Tgid: 5}), code: 4, outcome: "unchanged", says: "hint: it belongs to process 5: -t 5"},
		{name: "traced", at: "stop", err: attach(ptrace.AttachError{Reason: ptrace.ErrTraced, TracerPID: 5, TracerComm: "gdb"}), code: 4, outcome: "unchanged", says: "hint: process 5 (gdb) traces it"},
		{name: "yama", at: "stop", err: denied(ptrace.AttachError{YamaScope: 3, HasCap: true}), code: 4, outcome: "unchanged", says: "hint: /proc/sys/kernel/yama/ptrace_scope is 3"},
		{name: "namespace", at: "stop", err: denied(ptrace.AttachError{UserNS: true, HasCap: true}), code: 4, outcome: "unchanged", says: "hint: it lives in another user namespace"},
		{name: "capability", at: "stop", err: denied(ptrace.AttachError{YamaScope: 1}), code: 4, outcome: "unchanged", says: "hint: run with CAP_SYS_PTRACE"},
		{name: "user", at: "stop", err: denied(ptrace.AttachError{}), code: 4, outcome: "unchanged", says: "hint: run as the same user"},
		{name: "module", at: "stop", err: denied(ptrace.AttachError{HasCap: true}), code: 4, outcome: "unchanged", says: "hint: a security module"},
		{name: "timeout", at: "stop", err: &ptrace.TimeoutError{Threads: []ptrace.StuckThread{{TID: 8, State: 'R'}, {TID: 7, State: 'D'}, {}}}, code: 4, outcome: "unchanged", says: "hint: a thread in uninterruptible sleep"},
		{name: "busy", at: "stop", err: &ptrace.TimeoutError{Threads: []ptrace.StuckThread{{TID: 8, State: 'R'}, {}}}, code: 4, outcome: "unchanged", says: "hint: the machine is busy"},
		{name: "exited", at: "stop", err: thread(ptrace.ErrExited), code: 4, outcome: "unchanged", says: "hint: look with ps"},
		{name: "mode unread", at: "mode 8", err: thread(errors.New("EIO")), code: 4, outcome: "unchanged", says: "thread 8: read: EIO"},
		{name: "unread", at: "read 8", err: thread(errors.New("EIO")), code: 4, outcome: "unchanged", says: "thread 8: read: EIO"},
		{name: "unwritten", at: "swap 2", err: thread(errors.New("EIO")), code: 4, outcome: "unchanged", says: "thread 8: read: EIO"},
		{name: "broken", at: "swap 2", err: &ptrace.RestoreError{Broken: []int{8}, Err: errors.New("EIO")}, code: 5, outcome: "broken", says: "hint: threads [8] hold neither"},
		{name: "not let go", at: "close", err: errors.New("detach: EIO"), code: 0, outcome: "restored", says: "warning: process 7: detach: EIO"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.before = func(call string) error {
				if call == tt.at {
					return tt.err
				}
				return nil
			}
			if tt.args == nil {
				tt.args = []string{"-D", good}
			}
			r := f.restore(append(tt.args, "-t", "7", "--json")...)
			if r.code != tt.code {
				t.Errorf("exit status %d, want %d", r.code, tt.code)
			}
			r.says(t, tt.says)
			var doc restoreDoc
			if err := json.Unmarshal([]byte(r.out), &doc); err != nil || doc.Outcome != tt.outcome {
				t.Errorf("%v, outcome %q, want %q", err, doc.Outcome, tt.outcome)
			}
			for _, th := range doc.Threads {
				if (th.Error != nil) != (th.TID == 8 && (is[*ptrace.ThreadError](tt.err) || is[*ptrace.RestoreError](tt.err))) {
					t.Errorf("thread %d: error %v", th.TID, th.Error)
				}
			}
			if f.held || slices.Contains(f.calls, "stop") && !slices.Contains(f.calls, "close") {
				t.Errorf("not let go: %v", f.calls)
			}
		})
	}
}

// TestTreeChanges: a tree that changes while it is stopped is stopped anew, until time
// is up; threads that come meanwhile have to have images.
func TestTreeChanges(t *testing.T) {
	images := images(t, filled(avx512), "7/7", "7/8", "9/9")
	args := []string{"-t", "7", "-D", images, "--tree"}
	t.Run("twice", func(t *testing.T) {
		f, stops := newFake(t), 0
		f.before = func(call string) error {
			if call == "stop" {
				if stops++; stops <= 2 {
					f.procs[10+stops] = []int{10 + stops}
				}
			} else if call == "close" {
				delete(f.procs, 10+stops)
			}
			return nil
		}
		if r := f.restore(args...); r.code != 0 || stops != 3 {
			t.Errorf("exit status %d after %d stops: %s", r.code, stops, r.errors)
		}
	})
	t.Run("for ever", func(t *testing.T) {
		f, n := newFake(t), 10
		f.before = func(call string) error {
			if call == "stop" {
				delete(f.procs, n)
				n++
				f.procs[n] = []int{n}
			} else if call == "close" {
				delete(f.procs, n)
			}
			return nil
		}
		r := f.restore(append(args, "--timeout=20ms")...)
		if r.code != 4 {
			t.Errorf("exit status %d", r.code)
		}
		r.says(t, "could not be stopped as a whole", "hint: --timeout tries for longer; --ignore-missing")
	})
	t.Run("ends", func(t *testing.T) {
		f := newFake(t)
		f.before = func(call string) error {
			if call == "stop" && f.procs[9] != nil {
				delete(f.procs, 9)
				return &ptrace.ThreadError{PID: 9, TID: 9, Op: "stop", Err: ptrace.ErrExited}
			}
			return nil
		}
		r := f.restore(args...)
		if r.code != 1 {
			t.Errorf("exit status %d", r.code)
		}
		r.says(t, "no live thread for the image 9")
	})
	t.Run("a thread comes", func(t *testing.T) {
		f := newFake(t)
		f.before = func(call string) error {
			if call == "stop" {
				f.procs[7] = []int{7, 8, 12}
			}
			return nil
		}
		r := f.restore(args...)
		if r.code != 1 || f.held {
			t.Errorf("exit status %d, held %t", r.code, f.held)
		}
		r.says(t, "no image for the live thread 12")
	})
}

// TestCancelled: a signal takes effect before the first write, or not at all.
func TestCancelled(t *testing.T) {
	images := images(t, filled(avx512), "7/7", "7/8")
	for at, want := range map[string]struct {
		code int
		says string
	}{
		"stop":   {4, "hangup, nothing was changed"},
		"read 8": {4, "hangup, nothing was changed"},
		"swap 2": {0, "hangup when registers were being written: the restore was finished"},
	} {
		f := newFake(t)
		f.before = func(call string) error {
			if call == at {
				f.cancel(errors.New("hangup"))
			}
			return nil
		}
		r := f.restore("-t", "7", "-D", images)
		if r.code != want.code || slices.Contains(f.calls, "swap 2") != (want.code == 0) {
			t.Errorf("at %s: exit status %d, %v", at, r.code, f.calls)
		}
		r.says(t, want.says)
	}
}

// TestDeadline bounds the wait for threads and what comes before it, not the work with
// them.
func TestDeadline(t *testing.T) {
	t.Run("before", func(t *testing.T) {
		f := newFake(t)
		for tid := range 600 {
			f.procs[7] = append(f.procs[7], 100+tid)
		}
		f.slow = time.Millisecond
		r := f.restore("-t", "7", "--save", filepath.Join(t.TempDir(), "saved"), "--timeout=20ms")
		if r.code != 4 || f.looks > 100 || slices.Contains(f.calls, "stop") {
			t.Errorf("exit status %d after %d looks: %v", r.code, f.looks, f.calls)
		}
		r.says(t, "did not stop in time", "--timeout waits longer")
	})
	f := newFake(t)
	f.before = func(call string) error {
		if strings.HasPrefix(call, "read") {
			time.Sleep(20 * time.Millisecond)
		}
		return nil
	}
	if r := f.restore("-t", "7", "-D", images(t, filled(avx512), "7/7", "7/8"), "--timeout=10ms"); r.code != 0 {
		t.Errorf("exit status %d: %s", r.code, r.errors)
	}
}
