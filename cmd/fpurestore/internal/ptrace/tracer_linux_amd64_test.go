package ptrace

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testtarget "github.com/fpuimg/fpuimg/internal/test/target"
)

func TestSwap(t *testing.T) {
	for _, n := range []int{1, 8, 1000} {
		for _, mode := range []string{"spin", "yield", "futex"} {
			t.Run(fmt.Sprintf("%d/%s", n, mode), func(t *testing.T) {
				g := start(t, config{threads: n, mode: mode})
				tr := open(t, NewSystem(), g.PID)
				listed := make(map[int]bool)
				for _, th := range tr.Threads() {
					listed[th.TID] = th.PID == g.PID
				}
				old := readAll(t, tr, g.tids())
				for _, th := range g.Threads {
					if !listed[th.TID] {
						t.Fatalf("thread %d is not among the stopped", th.TID)
					}
					if got := old[th.TID]; len(got) != g.Size {
						t.Fatalf("register set of %d bytes, CPUID says %d", len(got), g.Size)
					} else if err := diffHeld(th.Given, got); err != nil {
						t.Fatalf("thread %d: %v", th.TID, err)
					}
					fp, err := readSet(tr, FP, th.TID)
					if err != nil {
						t.Fatal(err)
					}
					if err := diffFP(legacyOf(old[th.TID]), fp); err != nil {
						t.Fatalf("thread %d: FXSAVE area: %v", th.TID, err)
					}
					if compat, err := tr.Compat(th.TID); compat || err != nil {
						t.Fatalf("Compat = %v, %v", compat, err)
					}
				}
				areas, want := scrambleAll(uint64(n), old, g.Mask)
				if err := tr.Swap(areas); err != nil {
					t.Fatal(err)
				}
				detach(t, tr)
				g.untraced()
				g.expect(want)
			})
		}
	}
}

// legacyOf gives the FXSAVE area that says the same as an XSAVE area.
func legacyOf(area []byte) []byte {
	l := legacy(area, bv(area))
	return append(l[:], make([]byte, fxsaveSize-len(l))...)
}

// TestFXSave: everything with FXSAVE areas, as on a machine without XSAVE,
// where there is nothing else.
func TestFXSave(t *testing.T) {
	g := start(t, config{threads: 8, mode: "yield", fx: true})
	tr := open(t, NewSystem(), g.PID)
	areas, want := make(map[int]Area), make(map[int][]byte)
	for _, th := range g.Threads {
		got, err := readSet(tr, FP, th.TID)
		if err != nil {
			t.Fatal(err)
		}
		if err := diffFP(th.Given, got); err != nil {
			t.Errorf("thread %d: %v", th.TID, err)
		}
		whole, err := tr.Read(th.TID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readSet(tr, XState, th.TID); errors.Is(err, ErrNoXSave) != (whole.Set == FP) || (whole.Set == XState) != osXSave() {
			t.Errorf("Read gives a %v, ReadXState %v", whole.Set, err)
		}
		want[th.TID] = flip(got)
		areas[th.TID] = Area{FP, want[th.TID]}
	}
	bad := slices.Clone(want[g.tids()[7]])
	bad[offMXCSR+3] = 0x80
	areas[g.tids()[7]] = Area{FP, bad}
	if err := tr.Swap(areas); !errors.Is(err, unix.EINVAL) {
		t.Errorf("reserved MXCSR bit: %v", err)
	}
	for _, th := range g.Threads {
		got, err := readSet(tr, FP, th.TID)
		if err != nil {
			t.Fatal(err)
		}
		if err := diffFP(th.Given, got); err != nil {
			t.Errorf("thread %d after a refused Swap: %v", th.TID, err)
		}
	}
	areas[g.tids()[7]] = Area{FP, want[g.tids()[7]]}
	if err := tr.Swap(areas); err != nil {
		t.Fatal(err)
	}
	detach(t, tr)
	for _, th := range g.snap().Threads {
		if err := diffFP(want[th.TID], th.Held); err != nil {
			t.Errorf("thread %d: %v", th.TID, err)
		}
	}
}

// TestReadBack states what this kernel gives back of what it took: for every
// set of bits exactly that set, and the same registers by the rule of
// diffXState.
func TestReadBack(t *testing.T) {
	g := start(t, config{full: true})
	tr := open(t, NewSystem(), g.PID)
	tid := g.tids()[0]
	first, err := readSet(tr, XState, tid)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for bits := range g.Mask + 1 {
		if bits&^g.Mask != 0 {
			continue
		}
		b := scramble(r, first, g.Mask)
		setBV(b, bits)
		for i := 416; i < 512; i++ {
			b[i] = byte(r.Uint32()) // not a register
		}
		if err := writeSet(tr, XState, tid, b); err != nil {
			t.Fatalf("bits %#x: %v", bits, err)
		}
		got, err := readSet(tr, XState, tid)
		if err != nil {
			t.Fatal(err)
		}
		if bv(got) != bits {
			t.Errorf("bits %#x read back as %#x", bits, bv(got))
		}
		if err := diffXState(b, got); err != nil {
			t.Errorf("bits %#x: %v", bits, err)
		}
		// The thread has the same registers.
		if ambiguous(Area{XState, b}) {
			continue
		}
		detach(t, tr)
		g.expect(map[int][]byte{tid: b})
		stop(t, tr)
	}
	// MXCSR with AVX in use and SSE not is taken and reads back as written, now
	// and later, but the thread itself may have run with another.
	b := slices.Clone(first)
	setBV(b, bv(b)&^(1<<bitSSE))
	b[offMXCSR+1] ^= 0x60 // rounding
	if err := tr.Swap(map[int]Area{tid: {XState, b}}); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("Swap = %v, want ErrAmbiguous", err)
	}
	if err := writeSet(tr, XState, tid, b); err != nil {
		t.Fatal(err)
	}
	detach(t, tr)
	held := g.snap().Threads[0].Held
	stop(t, tr)
	got, err := readSet(tr, XState, tid)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("MXCSR %x written without the SSE bit: the thread had %x, and it reads back %x",
		b[offMXCSR:offMXCSRMask], held[offMXCSR:offMXCSRMask], got[offMXCSR:offMXCSRMask])
	setBV(b, bv(b)|1<<bitSSE)
	clear(b[offXMM:offXMMEnd])
	if err := tr.Swap(map[int]Area{tid: {XState, b}}); err != nil {
		t.Fatal(err)
	}
	detach(t, tr)
	g.expect(map[int][]byte{tid: b})
	stop(t, tr)
	// A write of the FXSAVE area puts x87 and SSE in use and leaves the rest.
	b = scramble(r, first, g.Mask)
	setBV(b, g.Mask&^3)
	if err := writeSet(tr, XState, tid, b); err != nil {
		t.Fatal(err)
	}
	fp := legacyOf(first)
	if err := writeSet(tr, FP, tid, fp); err != nil {
		t.Fatal(err)
	}
	if got, err = readSet(tr, XState, tid); err != nil {
		t.Fatal(err)
	}
	want := slices.Clone(b)
	copy(want, fp)
	setBV(want, g.Mask)
	if err := diffXState(want, got); err != nil {
		t.Error(err)
	}
	if err := tr.Swap(map[int]Area{tid: {FP, legacyOf(b)}}); err != nil {
		t.Error(err)
	}
	if err := writeSet(tr, XState, tid, first); err != nil {
		t.Fatal(err)
	}
	detach(t, tr)
	g.expect(map[int][]byte{tid: first})
}

func TestRefusedWrite(t *testing.T) {
	g := start(t, config{threads: 3, full: true})
	tr := open(t, NewSystem(), g.PID)
	old := readAll(t, tr, g.tids())
	tid := g.tids()[2]
	tests := []struct {
		name string
		edit func(b []byte) []byte
		err  error
	}{
		{"short", func(b []byte) []byte { return b[:len(b)-8] }, unix.EFAULT},
		{"odd length", func(b []byte) []byte { return b[:len(b)-1] }, unix.EINVAL},
		{"empty", func(b []byte) []byte { return nil }, unix.EINVAL},
		{"unknown component", func(b []byte) []byte { b[offBV+7] |= 0x20; return b }, unix.EINVAL},
		{"compacted", func(b []byte) []byte { b[offBV+15] |= 0x80; return b }, unix.EINVAL},
		{"mxcsr", func(b []byte) []byte { b[offMXCSR+3] |= 0x80; return b }, unix.EINVAL},
	}
	for _, tt := range tests {
		areas := make(map[int]Area)
		for id, b := range old {
			areas[id] = Area{XState, flip(b)}
		}
		areas[tid] = Area{XState, tt.edit(flip(old[tid]))}
		err := tr.Swap(areas)
		var te *ThreadError
		if !errors.Is(err, tt.err) || !errors.As(err, &te) || te.TID != tid {
			t.Errorf("%s: Swap = %v, want %v of thread %d", tt.name, err, tt.err, tid)
		}
		for id, b := range readAll(t, tr, g.tids()) {
			if err := diffXState(old[id], b); err != nil {
				t.Errorf("%s: thread %d: %v", tt.name, id, err)
			}
		}
	}
	detach(t, tr)
	g.expect(old)
}

// TestSystemCalls: a thread that sleeps in a system call goes on sleeping.
func TestSystemCalls(t *testing.T) {
	for _, mode := range []string{"nanosleep", "futex", "read", "epoll"} {
		t.Run(mode, func(t *testing.T) {
			g := start(t, config{threads: 4, mode: mode})
			eventually(t, "all sleep", func() bool { return g.allInState("S") || mode == "" })
			tr := open(t, NewSystem(), g.PID)
			areas, want := scrambleAll(7, readAll(t, tr, g.tids()), g.Mask)
			if err := tr.Swap(areas); err != nil {
				t.Fatal(err)
			}
			detach(t, tr)
			if mode == "epoll" {
				// Never restarted after a stop: signal(7).
				eventually(t, "epoll_wait returns", func() bool {
					return !slices.ContainsFunc(g.look().Threads, func(th threadState) bool { return th.Returns != 1 })
				})
				for _, th := range g.Threads {
					if th.LastRet != -int64(unix.EINTR) {
						t.Errorf("epoll_wait returned %d", th.LastRet)
					}
				}
			} else {
				eventually(t, "all sleep again", func() bool { return g.allInState("S") })
				for _, th := range g.look().Threads {
					if th.Returns != 0 {
						t.Errorf("%s returned %d", mode, th.LastRet)
					}
				}
			}
			if mode == "read" {
				g.feed()
				eventually(t, "read returns", func() bool {
					return !slices.ContainsFunc(g.look().Threads, func(th threadState) bool { return th.Returns != 1 || th.LastRet != 1 })
				})
			}
			g.expect(want)
		})
	}
}

func TestStoppedProcess(t *testing.T) {
	for _, how := range []string{"before", "during", "continued"} {
		t.Run(how, func(t *testing.T) {
			g := start(t, config{threads: 8, mode: "yield"})
			if how != "during" {
				kill(t, g.PID, unix.SIGSTOP)
				eventually(t, "all stop", func() bool { return g.allInState("T") })
			}
			tr := open(t, NewSystem(), g.PID)
			if how == "during" {
				kill(t, g.PID, unix.SIGSTOP)
			}
			if how == "continued" {
				kill(t, g.PID, unix.SIGCONT)
			}
			areas, want := scrambleAll(7, readAll(t, tr, g.tids()), g.Mask)
			if err := tr.Swap(areas); err != nil {
				t.Fatal(err)
			}
			detach(t, tr)
			if how != "continued" {
				eventually(t, "all stopped again", func() bool { return g.allInState("T") })
				// and stay so
				for range 50 {
					if time.Sleep(time.Millisecond); !g.allInState("T") {
						t.Fatal("a thread left the group-stop")
					}
				}
				kill(t, g.PID, unix.SIGCONT)
			}
			g.expect(want)
			g.untraced()
		})
	}
}

// TestChurn stops a process that creates and ends threads, or processes that
// the kernel attaches along with their creator, all the time.
func TestChurn(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags uint64
	}{
		{"threads", threadFlags},
		{"processes", processFlags},
		{"untraced threads", threadFlags | unix.CLONE_UNTRACED}, // only listing finds them
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := start(t, config{threads: 2, mode: "yield", churn: 24, churnFlags: tt.flags})
			tr, err := Open(g.PID)
			if err != nil {
				t.Fatal(err)
			}
			defer tr.Close()
			want := g.given()
			for round := range 60 {
				stop(t, tr)
				tids, err := Tasks(g.PID)
				if err != nil {
					t.Fatal(err)
				}
				stopped := make(map[int]bool)
				for _, th := range tr.Threads() {
					stopped[th.TID] = true
				}
				for _, tid := range tids {
					st, err := ReadStatus(g.PID, tid)
					if err != nil || st.State != 't' || !stopped[tid] {
						t.Fatalf("thread %d is not stopped: %c %v", tid, st.State, err)
					}
				}
				if len(tids) != len(stopped) {
					t.Fatalf("%d threads stopped, %d exist", len(stopped), len(tids))
				}
				var areas map[int]Area
				areas, want = scrambleAll(uint64(round), readAll(t, tr, g.tids()), g.Mask)
				if err := tr.Swap(areas); err != nil {
					t.Fatal(err)
				}
				detach(t, tr)
			}
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
			before := g.look().Churned
			eventually(t, "goes on creating threads", func() bool { return g.look().Churned > before+100 })
			g.untraced()
			g.expect(want)
		})
	}
}

// TestChurnFaults has Stop fail at the points that [testcmd.Points] picks, with a process
// that creates threads or processes all the time: nothing may stay attached.
func TestChurnFaults(t *testing.T) {
	t.Parallel()
	for turn, flags := range []uint64{threadFlags, processFlags} {
		t.Run(fmt.Sprintf("%#x", flags), func(t *testing.T) {
			g := start(t, config{threads: 2, mode: "yield", churn: 24, churnFlags: flags})
			for at := range testcmd.Points(150, turn) {
				f := &faulty{Backend: NewSystem()}
				var osTID int
				var err error
				apart(t, func() {
					var tr *Tracer
					if tr, err = OpenBackend(f, g.PID); err != nil {
						return
					}
					osTID = tr.osTID
					f.fail = func(call int, _ string) error {
						if call == at {
							return unix.EIO
						}
						return nil
					}
					err = stopErr(tr)
					if err := tr.Close(); err != nil && !errors.Is(err, unix.EIO) {
						t.Error(err)
					}
				})
				if left := g.tracees(t, osTID); osTID == 0 || len(left) > 0 {
					t.Fatalf("call %d (%v): left attached: %v", at, err, left)
				}
			}
			before := g.look().Churned
			eventually(t, "goes on", func() bool { return g.look().Churned > before+100 })
			g.expect(g.given())
		})
	}
}

// tracees lists the threads of the target and of its children that an OS thread traces.
func (g *target) tracees(t *testing.T, tracer int) (list []int) {
	t.Helper()
	procs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	// Not by ReadStatus, which reads twice as much.
	says := func(path, key string, value int) bool {
		b, err := readFile(unix.AT_FDCWD, path+"/status")
		return err == nil && bytes.Contains(b, fmt.Appendf(nil, "\n%s:\t%d\n", key, value))
	}
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		path := "/proc/" + p.Name()
		if err != nil || pid != g.PID && !says(path, "PPid", g.PID) {
			continue
		}
		tids, _ := Tasks(pid)
		for _, tid := range tids {
			if says(fmt.Sprintf("%s/task/%d", path, tid), "TracerPid", tracer) {
				list = append(list, tid)
			}
		}
	}
	return list
}

// sender sends queued signals to the threads of a target in turn.
type sender struct {
	g    *target
	done chan struct{}
	wg   sync.WaitGroup
	sent uint64
}

func sendSignals(g *target) *sender {
	s := &sender{g: g, done: make(chan struct{})}
	tids := g.tids()
	s.wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-s.done:
				return
			default:
			}
			if err := unix.Tgkill(g.PID, tids[i%len(tids)], 40); err == nil {
				s.sent++
			} // EAGAIN: the queue is full, nothing was sent
			if i%8 == 0 {
				time.Sleep(10 * time.Microsecond)
			}
		}
	})
	return s
}

// expect ends the sending: each signal was delivered once.
func (s *sender) expect(t *testing.T, handed int) {
	t.Helper()
	close(s.done)
	s.wg.Wait()
	eventually(t, "all signals arrive", func() bool { return s.g.look().Counts[40] >= s.sent })
	if got := s.g.look().Counts[40]; got != s.sent {
		t.Errorf("sent %d signals, handled %d", s.sent, got)
	}
	if handed == 0 {
		t.Error("no signal was met in a stop: the test proves nothing")
	}
	t.Logf("%d signals, %d of them handed on at detach", s.sent, handed)
}

// TestSignals: every queued signal sent while threads are stopped and let go
// is delivered once.
func TestSignals(t *testing.T) {
	g := start(t, config{threads: 6, mode: "yield"})
	send := sendSignals(g)
	tr, err := Open(g.PID)
	if err != nil {
		t.Fatal(err)
	}
	handed := 0
	for range 300 {
		if err := stopErr(tr); err != nil {
			t.Error(err)
			break
		}
		for _, th := range tr.threads {
			if th.signal == 40 {
				handed++
			}
		}
		if err := tr.detach(); err != nil {
			t.Error(err)
			break
		}
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	send.expect(t, handed)
	g.expect(g.given())
}

func TestTraced(t *testing.T) {
	g := start(t, config{})
	cmd := helperCommand("hold", g.PID)
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
	defer cmd.Wait()
	defer in.Close()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "stopped <nil>\n" {
		t.Fatalf("helper: %q %v", line, err)
	}
	tr, err := Open(g.PID)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	err = stopErr(tr)
	var ae *AttachError
	if !errors.As(err, &ae) || !errors.Is(err, ErrTraced) || ae.TracerPID != cmd.Process.Pid || ae.TracerComm == "" {
		t.Errorf("Stop = %v (%+v), want a tracer %d", err, ae, cmd.Process.Pid)
	}
	in.Close()
	cmd.Wait()
	stop(t, tr)
	detach(t, tr)
	g.expect(g.given())
}

func TestCannotAttach(t *testing.T) {
	check := func(what string, pid int, want error) {
		t.Helper()
		tr, err := Open(pid)
		if err == nil {
			err = stopErr(tr)
			tr.Close()
		}
		var ae *AttachError
		if !errors.Is(err, want) || !errors.As(err, &ae) || ae.PID != pid {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	check("self", os.Getpid(), ErrSelf)
	check("own thread", otherThread(t), ErrSelf)

	g := start(t, config{})
	check("thread", g.tids()[0], ErrNotLeader)

	zombie := exec.Command("/bin/true")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "zombie", func() bool {
		st, err := ReadStatus(zombie.Process.Pid, zombie.Process.Pid)
		return err == nil && st.State == 'Z'
	})
	check("zombie", zombie.Process.Pid, ErrZombie)
	zombie.Wait()
	check("gone", zombie.Process.Pid, ErrNotFound)

	if st, err := ReadStatus(2, 2); err == nil && st.Comm == "kthreadd" { // not in a pid namespace
		if !st.KernelThread {
			t.Error("kthreadd is not seen as a kernel thread")
		}
		check("kernel thread", 2, ErrKernelThread)
	}
}

func otherThread(t *testing.T) int {
	tids, err := Tasks(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, tid := range tids {
		if tid != os.Getpid() {
			return tid
		}
	}
	t.Fatal("a Go program with one thread")
	return 0
}

func TestPermission(t *testing.T) {
	g := start(t, config{})
	pid := g.PID
	cmd := helperCommand("errors", pid)
	if os.Geteuid() == 0 {
		// As somebody else, from a place where that one may execute it.
		exe, err := os.ReadFile(cmd.Path)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.MkdirTemp("", "ptrace")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd.Path = filepath.Join(dir, "helper")
		if err := os.WriteFile(cmd.Path, exe, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	} else {
		cmd = helperCommand("errors", 1)
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Permission, Cap    bool
		UID, SelfUID, Yama int
		Comm, Text         string
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	want := readNumber("/proc/sys/kernel/yama/ptrace_scope")
	if !got.Permission || got.Cap || got.UID == got.SelfUID || got.Yama != want || got.Comm == "" {
		t.Errorf("%+v", got)
	}
	g.expect(g.given())
}

// TestUninterruptible: a thread that waits for its vfork child does not stop.
func TestUninterruptible(t *testing.T) {
	g := start(t, config{threads: 4, vfork: true})
	defer unix.Kill(g.VFork, unix.SIGKILL)
	apart(t, func() {
		tr, err := Open(g.PID)
		if err != nil {
			t.Error(err)
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		err = tr.Stop(ctx)
		var te *TimeoutError
		if !errors.As(err, &te) || !errors.Is(err, ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Stop = %v, want a TimeoutError", err)
			return
		}
		if len(te.Threads) != 1 || te.Threads[0].State != 'D' || te.Threads[0].PID != g.PID {
			t.Errorf("stuck: %+v", te.Threads)
		}
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	g.untraced()
	g.expect(g.given())
}

// starved is a process on a machine so busy that each call takes a while. Of its
// threads the first two stop, one of them on the way to a signal handler.
type starved struct {
	Backend
	tids         []int
	clock        time.Time
	end          time.Time // when the time is up
	looks, polls int       // since then
	polled       map[int]bool
	detached     map[int]int // with which signal
}

func (s *starved) spend(d time.Duration) { s.clock = s.clock.Add(d) }

func (s *starved) Open(pid int) (Status, error) { return Status{PID: pid, TID: pid, State: 'R'}, nil }
func (s *starved) Tasks(int) ([]int, error)     { return s.tids, nil }
func (s *starved) Seize(int) error              { s.spend(time.Microsecond); return nil }
func (s *starved) Interrupt(tid int) error      { s.spend(time.Microsecond); return nil }
func (s *starved) Detach(tid, sig int) error    { s.detached[tid] = sig; return nil }
func (s *starved) Close()                       {}

func (s *starved) Status(pid, tid int) (Status, error) {
	if s.spend(10 * time.Millisecond); s.clock.After(s.end) {
		s.looks++
	}
	st := Status{PID: pid, TID: tid, State: 'R'}
	if tid == s.tids[3] {
		st.State = 'D'
	}
	return st, nil
}

func (s *starved) Poll(tid int) (ws unix.WaitStatus, changed bool, err error) {
	if s.spend(50 * time.Microsecond); s.clock.After(s.end) {
		s.polls++
	}
	ws = unix.WaitStatus(unix.PTRACE_EVENT_STOP<<16 | int(unix.SIGTRAP)<<8 | 0x7f)
	if tid == s.tids[1] {
		ws = 40<<8 | 0x7f
	}
	changed = tid <= s.tids[1] && !s.polled[tid]
	s.polled[tid] = true
	return ws, changed, nil
}

// TestStarved: when the time is up, no more is done than to look at some threads, and to
// let those go that have a signal to be handed on.
func TestStarved(t *testing.T) {
	const pid = 1 << 23 // no pid is as high
	s := &starved{clock: time.Now(), polled: make(map[int]bool), detached: make(map[int]int)}
	for i := range 600 {
		s.tids = append(s.tids, pid+i)
	}
	tr, err := OpenBackend(s, pid)
	if err != nil {
		t.Fatal(err)
	}
	tr.now = func() time.Time { return s.clock }
	s.end = s.clock.Add(20 * time.Millisecond)
	err = tr.Stop(late{context.Background(), s})
	var te *TimeoutError
	if !errors.As(err, &te) || len(te.Threads) != 598 {
		t.Fatalf("Stop = %v, want an error that lists 598 threads", err)
	}
	for i, th := range te.Threads {
		want := byte('R')
		switch {
		case i == 1:
			want = 'D'
		case i >= maxLooks:
			want = 0
		}
		if th.State != want {
			t.Errorf("thread %d is in state %q, want %q", th.TID, th.State, want)
		}
	}
	if s.looks != maxLooks || s.polls > 2*maxLooks {
		t.Errorf("after the deadline %d looks and %d polls", s.looks, s.polls)
	}
	if len(s.detached) != 1 || s.detached[s.tids[1]] != 40 {
		t.Errorf("let go with signals: %v", s.detached)
	}
	before := s.clock
	if err := tr.Close(); err != nil || !tr.left || s.clock != before {
		t.Errorf("Close = %v, took %v; left to the OS thread: %v", err, s.clock.Sub(before), tr.left)
	}
	runtime.UnlockOSThread()
}

// late is a context whose timer is late.
type late struct {
	context.Context
	s *starved
}

func (l late) Deadline() (time.Time, bool) { return l.s.end, true }

// TestTimeoutSignals: of the signals that are met in a Stop that gives up, none is lost.
func TestTimeoutSignals(t *testing.T) {
	g := start(t, config{threads: 6, mode: "yield", vfork: true})
	defer unix.Kill(g.VFork, unix.SIGKILL)
	send := sendSignals(g)
	handed := 0
	for round := 0; round < 40 || handed == 0 && round < 1000; round++ { // until it proves something
		f := &faulty{Backend: NewSystem()}
		apart(t, func() {
			tr, err := OpenBackend(f, g.PID)
			if err != nil {
				t.Error(err)
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			if err := tr.Stop(ctx); !errors.Is(err, ErrTimeout) {
				t.Errorf("Stop = %v", err)
			}
			for _, name := range f.names {
				if name == "Detach" {
					handed++
				}
			}
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	send.expect(t, handed)
	g.untraced()
	g.expect(g.given())
}

func TestCancel(t *testing.T) {
	g := start(t, config{})
	tr, err := Open(g.PID)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := tr.Stop(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrTimeout) {
		t.Errorf("Stop = %v", err)
	}
	tr.Close()
	g.untraced()
	g.expect(g.given())
}

// TestDeadLeader: the process goes on in its other threads.
func TestDeadLeader(t *testing.T) {
	g := start(t, config{threads: 3, leaderEnd: true})
	tr := open(t, NewSystem(), g.PID)
	areas, want := scrambleAll(7, readAll(t, tr, g.tids()), g.Mask)
	if err := tr.Swap(areas); err != nil {
		t.Fatal(err)
	}
	for _, th := range tr.Threads() {
		if th.TID == g.PID {
			t.Error("the dead leader is among the threads")
		}
	}
	detach(t, tr)
	g.untraced()
	g.expect(want)
}

// TestSeveral stops two processes in one go, and again after letting them go.
func TestSeveral(t *testing.T) {
	a, b := start(t, config{threads: 3}), start(t, config{threads: 4, seed: 9})
	tr := open(t, NewSystem(), b.PID, a.PID)
	if list := tr.Threads(); list[0].PID != b.PID || list[len(list)-1].PID != a.PID {
		t.Errorf("order: %v", list)
	}
	if err := stopErr(tr); err == nil {
		t.Error("stopped twice")
	}
	detach(t, tr)
	if _, err := readSet(tr, XState, a.tids()[0]); !errors.Is(err, ErrNotStopped) {
		t.Errorf("read after detach: %v", err)
	}
	stop(t, tr)
	areas, wantA := scrambleAll(3, readAll(t, tr, a.tids()), a.Mask)
	more, wantB := scrambleAll(4, readAll(t, tr, b.tids()), b.Mask)
	for tid, area := range more {
		areas[tid] = area
	}
	if err := tr.Swap(areas); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := tr.ReadShadowStack(a.tids()[0]); ok || err != nil {
		t.Errorf("shadow stack of a thread without: %v, %v", ok, err)
	}
	detach(t, tr)
	a.expect(wantA)
	b.expect(wantB)
}

// TestKnown begins with a list of threads that is neither complete nor right.
func TestKnown(t *testing.T) {
	a, b, stranger := start(t, config{threads: 5}), start(t, config{threads: 2}), start(t, config{threads: 2})
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	tids := a.tids()
	for _, known := range [][]int{{tids[0], tids[3]}, {ended.Process.Pid}, {stranger.tids()[1]}, {stranger.PID, tids[4], os.Getpid(), tids[4]}} {
		tr, err := OpenBackend(NewSystem(), a.PID, b.PID)
		if err != nil {
			t.Fatal(err)
		}
		var list []Thread
		for _, tid := range known {
			list = append(list, Thread{a.PID, tid})
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err = tr.Stop(ctx, list...)
		cancel()
		if err != nil {
			t.Fatalf("%v: %v", known, err)
		}
		var got []int
		for _, th := range tr.Threads() {
			got = append(got, th.TID)
		}
		var want []int
		for _, g := range []*target{a, b} {
			all, err := Tasks(g.PID)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, slices.Sorted(slices.Values(all))...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v: stopped %v, want %v", known, got, want)
		}
		stranger.untraced()
		detach(t, tr)
		a.untraced()
		b.untraced()
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, g := range []*target{a, b, stranger} {
		g.expect(g.given())
	}
}

// TestOnly: neither fewer threads nor as many that include one of another process.
func TestOnly(t *testing.T) {
	g, stranger := start(t, config{threads: 3}), start(t, config{threads: 3})
	s := NewSystem()
	defer s.Close()
	if _, err := s.Open(g.PID); err != nil {
		t.Fatal(err)
	}
	all, err := s.Tasks(g.PID)
	if err != nil {
		t.Fatal(err)
	}
	foreign := append(slices.Clone(all[1:]), stranger.tids()[1])
	for _, tt := range []struct {
		pid  int
		tids []int
		want bool
	}{
		{g.PID, all, true}, {g.PID, all[1:], false}, {g.PID, foreign, false}, {g.PID, nil, false},
		{stranger.PID, stranger.tids(), false}, // not pinned
	} {
		if got := s.Only(tt.pid, tt.tids); got != tt.want {
			t.Errorf("process %d has only %v: %t", tt.pid, tt.tids, got)
		}
	}
}

func TestCompat(t *testing.T) {
	g, err := testtarget.Start32(testcmd.Build(t, "./testdata/target32", "386"))
	if errors.Is(err, unix.ENOEXEC) {
		testcmd.Lack(t, "this kernel runs no 32-bit programs")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.End)
	tr := open(t, NewSystem(), g.PID)
	tid := g.TID
	if compat, err := tr.Compat(tid); !compat || err != nil {
		t.Fatalf("Compat = %v, %v", compat, err)
	}
	old, err := tr.Read(tid)
	if err != nil {
		t.Fatal(err)
	}
	fp, err := readSet(tr, FP, tid)
	if err != nil {
		t.Fatal(err)
	}
	if osXSave() != (old.Set == XState) {
		t.Fatalf("Read gives a %v", old.Set)
	}
	// By the register set that old is of; same leaves out what the target does not
	// look at.
	equal, same := diffFP, diffFP
	if old.Set == XState {
		equal = diffXState
		same = func(want, held []byte) error { return diffHeld(masked(want, g.Mask), held) }
		if err := diffFP(legacyOf(old.Data), fp); err != nil {
			t.Error(err)
		}
	}
	if err := same(old.Data, g.Given); err != nil {
		t.Error(err)
	}
	if err := tr.Swap(map[int]Area{tid: {FP, flip(fp)}}); err != nil {
		t.Fatal(err)
	}
	want := Area{old.Set, flip(old.Data)}
	var upper []byte // halves of YMM8-15
	avx := hostComponents()[bitAVX]
	if want.Set == XState && g.Mask&(1<<bitAVX) != 0 {
		for i := range avx.size {
			want.Data[avx.offset+i] ^= 0xff
		}
		upper = want.Data[avx.offset:][128:avx.size]
	}
	if err := tr.Swap(map[int]Area{tid: want}); err != nil {
		t.Fatal(err)
	}
	detach(t, tr)
	if err := g.Snap(); err != nil {
		t.Fatal(err)
	}
	held := g.Held
	copy(held[offXMM+128:offXMMEnd], want.Data[offXMM+128:]) // 32-bit code has eight
	if upper != nil {
		copy(held[avx.offset+128:], upper)
	}
	if err := same(want.Data, held); err != nil {
		t.Error(err)
	}
	// The others are there, and keep what they were given.
	stop(t, tr)
	got, err := tr.Read(tid)
	if err != nil {
		t.Fatal(err)
	}
	if err := equal(want.Data, got.Data); err != nil {
		t.Error(err)
	}
}

// masked leaves out components that the target does not look at.
func masked(area []byte, mask uint64) []byte {
	b := slices.Clone(area)
	setBV(b, bv(b)&mask)
	return b
}

// TestWrongThread: the kernel takes requests from one OS thread only.
func TestWrongThread(t *testing.T) {
	g := start(t, config{})
	tr := open(t, NewSystem(), g.PID)
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_, err := readSet(tr, XState, g.tids()[0])
		done <- errors.Join(err, tr.Close())
	}()
	if err := <-done; !errors.Is(err, ErrWrongThread) {
		t.Errorf("got %v", err)
	}
}

// TestTracerKilled kills the tracer at points spread over a restore, those of 100 that
// [testcmd.Points] picks, between its system calls and at any time: the target lives on,
// untraced, and each thread has its old or its new state.
func TestTracerKilled(t *testing.T) {
	t.Parallel()
	const n, points = 200, 100
	g := start(t, config{threads: n, mode: "futex", full: true})
	tr := open(t, NewSystem(), g.PID)
	state := readAll(t, tr, g.tids())
	detach(t, tr)
	// run restores, as another process that is killed before its call'th system
	// call or after some time, if these are not 0.
	run := func(call int, delay time.Duration) (calls int, took time.Duration) {
		t.Helper()
		cmd := helperCommand("swap", g.PID)
		cmd.Env = append(cmd.Env, "CALL="+strconv.Itoa(call))
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out := bufio.NewReader(pipe)
		if line, err := out.ReadString('\n'); err != nil || line != "begin\n" {
			t.Fatalf("helper: %q %v", line, err)
		}
		begin := time.Now()
		if delay != 0 {
			time.Sleep(delay)
			cmd.Process.Kill()
		}
		line, err := out.ReadString('\n')
		took = time.Since(begin)
		if err == nil {
			if _, err := fmt.Sscanf(line, "end %d\n", &calls); err != nil {
				t.Fatalf("helper: %q %v", line, err)
			}
		}
		cmd.Wait()
		return calls, took
	}
	var none, some, all int
	check := func() {
		t.Helper()
		g.untraced()
		fresh := 0
		for _, th := range g.snap().Threads {
			switch {
			case diffHeld(state[th.TID], th.Held) == nil:
			case diffHeld(flip(state[th.TID]), th.Held) == nil:
				fresh++
				state[th.TID] = flip(state[th.TID])
			default:
				t.Fatalf("thread %d has neither its old nor its new state", th.TID)
			}
		}
		switch fresh {
		case 0:
			none++
		case n:
			all++
		default:
			some++
		}
	}
	calls, span := run(0, 0)
	if check(); all != 1 || calls == 0 {
		t.Fatalf("an undisturbed restore: %d calls, all %d", calls, all)
	}
	for i := range testcmd.Points(points, 0) {
		run(1+(i-1)*calls/points, 0)
		check()
	}
	if none == 0 || some == 0 || all == 1 {
		t.Errorf("killed before any write %d times, in the middle %d, after all %d", none, some, all)
	}
	// The time of one run only spreads the points.
	for i := range testcmd.Points(points, 1) {
		run(0, 1+span*time.Duration(i-1)/points)
		check()
	}
	t.Logf("%d system calls; killed before any write %d times, in the middle %d, after all %d", calls, none, some, all)
}

func TestParseStatus(t *testing.T) {
	stat := func(comm string, flags uint64) []byte {
		return fmt.Appendf(nil, "42 (%s) S 7 42 42 0 -1 %d 1 2 3 4 5 6 7 8 20 0 3 0 12345 99 1 2", comm, flags)
	}
	status := []byte("Name:\tx\\ny\nState:\tS (sleeping)\nTgid:\t40\nPid:\t42\nTracerPid:\t9\nUid:\t1\t2\t3\t4\nNSpid:\t42\t5\t1\n")
	tests := []struct {
		name   string
		comm   string
		flags  uint64
		kernel bool
		worker bool
	}{
		{"plain", "cat", 0x400000, false, false},
		{"hostile name", "a) R 1 (b\n) Z", 0, false, false},
		{"kernel thread", "kthreadd", 0x208040, true, false},
		{"io_uring worker", "iou-wrk-42", 0x404050, false, true},
		{"io_uring poller", "iou-sqp-42", 0x404050, false, true},
		{"vhost worker", "vhost-42", 0x404040, false, true},
		{"so named by itself", "iou-wrk-42", 0x400040, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := parseStatus(stat(tt.comm, tt.flags), status)
			if err != nil {
				t.Fatal(err)
			}
			if s.Comm != tt.comm || s.State != 'S' || s.KernelThread != tt.kernel || s.Worker != tt.worker {
				t.Errorf("%+v", s)
			}
			if s.PID != 40 || s.TID != 42 || s.PPID != 7 || s.TracerPID != 9 || s.UID != 2 || s.StartTime != 12345 ||
				!slices.Equal(s.NSpid, []int{42, 5, 1}) {
				t.Errorf("%+v", s)
			}
		})
	}
	whole := string(stat("cat", 0))
	for i := range strings.LastIndex(whole, " 12345") + 1 {
		if _, err := parseStatus([]byte(whole[:i]), status); err == nil {
			t.Errorf("accepted %q", whole[:i])
		}
	}
	if _, err := parseStatus([]byte(whole), nil); err == nil {
		t.Error("accepted an empty status")
	}
}

// TestDescriptors opens with ever more descriptors: what is short is named, and not taken
// for what others forbid.
func TestDescriptors(t *testing.T) {
	g := start(t, config{threads: 1, mode: "futex"})
	next, err := unix.Open("/dev/null", unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(next)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	for n := next; ; n++ {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n), Max: was.Max}); err != nil {
			t.Fatal(err)
		}
		tr, err := Open(g.PID)
		if err == nil {
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
			if n == next {
				t.Error("no descriptor was short")
			}
			return
		}
		if !errors.Is(err, unix.EMFILE) {
			t.Fatalf("limit %d: %v", n, err)
		}
	}
}
