package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/cmd/fpurestore/internal/ptrace"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
	testtarget "github.com/fpuimg/fpuimg/internal/test/target"
)

// TestStates restores into threads that run, and that sleep in system calls: the
// kernel restarts those, but epoll_wait returns EINTR, as signal(7) says.
func TestStates(t *testing.T) {
	for _, tt := range []struct {
		name   string
		nr     uint64
		result int64
		count  uint64 // of results, 0: many
	}{
		{"running", spinning, 0, 0},
		{"sched_yield", unix.SYS_SCHED_YIELD, 0, 0},
		{"nanosleep", unix.SYS_NANOSLEEP, 0, 0},
		{"futex", unix.SYS_FUTEX, 0, 1},
		{"read", reading, 1, 1},
		{"epoll_wait", unix.SYS_EPOLL_WAIT, -int64(unix.EINTR), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := startTarget(t, targetConfig{threads: 3, nr: tt.nr})
			if tt.count == 1 {
				eventually(t, "asleep", func() bool { return inState(t, g.pid, "S") })
			}
			want := g.others(1, everything)
			dir := g.images(want, same)
			g.ask()
			mustRestore(t, 0, "-t", fmt.Sprint(g.pid), "-D", dir)
			g.untraced()
			if tt.count == 1 && tt.nr != unix.SYS_EPOLL_WAIT {
				time.Sleep(20 * time.Millisecond)
				for i := range g.states {
					if n := g.Blocks[i].Returns; n != 0 {
						t.Errorf("thread %d: the call returned %d", i, g.Blocks[i].Result)
					}
				}
				g.wake()
			}
			g.await()
			for i := range g.states {
				if tt.nr == spinning {
					break
				}
				if got := g.Blocks[i].Result; got != tt.result {
					t.Errorf("thread %d: the call returned %d, want %d", i, got, tt.result)
				}
			}
			if tt.nr == unix.SYS_EPOLL_WAIT {
				for i := range g.states {
					if n := g.Blocks[i].Returns; n != 1 {
						t.Errorf("thread %d: returned %d times", i, n)
					}
				}
			}
			// Threads that were running may have reported what they held before.
			got := g.held()
			for i := range got {
				if tt.count == 0 && differ(g.cpu, got[i], g.states[i]) == "" {
					got[i] = want[i]
				}
			}
			g.compare(got, want)
			if tt.nr != unix.SYS_EPOLL_WAIT { // nothing wakes that
				g.expect(want)
			}
		})
	}
}

// TestStopped restores into a process that SIGSTOP has stopped: it stays so.
func TestStopped(t *testing.T) {
	g := startTarget(t, targetConfig{threads: 3})
	want := g.others(1, everything)
	kill(t, g.pid, syscall.SIGSTOP)
	eventually(t, "stopped", func() bool { return inState(t, g.pid, "T") })
	mustRestore(t, 0, "-t", fmt.Sprint(g.pid), "-D", g.images(want, same))
	g.untraced()
	time.Sleep(20 * time.Millisecond)
	if !inState(t, g.pid, "T") {
		t.Error("not stopped any longer")
	}
	kill(t, g.pid, syscall.SIGCONT)
	g.expect(want)
}

// TestChurn restores into a process that starts and ends threads all the time.
func TestChurn(t *testing.T) {
	g := startTarget(t, targetConfig{threads: 3, churn: true})
	churner := &g.Blocks[len(g.states)]
	dirs := [2]string{}
	var want [2][]*xstate.State
	for i := range want {
		want[i] = g.others(uint64(1+i), everything)
		dirs[i] = g.images(want[i], same)
	}
	eventually(t, "churn", func() bool { return churner.Returns > 100 })
	r := mustRestore(t, 1, "-t", fmt.Sprint(g.pid), "-D", dirs[0])
	r.says(t, "no image for the live thread", "hint: ", "--ignore-missing")
	for i := range 20 {
		before := churner.Returns
		mustRestore(t, 0, "-t", fmt.Sprint(g.pid), "-D", dirs[i%2], "--ignore-missing")
		g.untraced()
		g.expect(want[i%2])
		eventually(t, "churn goes on", func() bool { return churner.Returns > before })
	}
}

// TestPIDNamespace restores images that have the numbers of the target's own pid
// namespace, which is what CRIU dumps.
func TestPIDNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		testcmd.Lack(t, "this user is not root, who makes pid namespaces")
	}
	g := startTarget(t, targetConfig{threads: 3, newPID: true})
	tids, err := ptrace.Tasks(g.pid)
	if err != nil {
		t.Fatal(err)
	}
	outer := map[int]int{}
	for _, tid := range tids {
		st, err := ptrace.ReadStatus(g.pid, tid)
		if err != nil {
			t.Fatal(err)
		}
		if len(st.NSpid) < 2 {
			testcmd.Lack(t, "this kernel does not tell numbers of namespaces")
		}
		outer[st.NSpid[len(st.NSpid)-1]] = tid
	}
	want := g.others(1, everything)
	inside := func(tid int) int { // the leader is known from outside, the others from inside
		if tid == g.pid {
			return 1
		}
		return tid
	}
	r := mustRestore(t, 0, "-t", fmt.Sprint(g.pid), "-D", g.images(want, inside), "--json")
	var doc struct {
		Threads []struct {
			ImageTID int `json:"image_tid"`
			TID      int
		}
	}
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil {
		t.Fatal(err)
	}
	for _, th := range doc.Threads {
		if th.TID != outer[th.ImageTID] || th.TID == 0 {
			t.Errorf("image %d went into thread %d, want %d", th.ImageTID, th.TID, outer[th.ImageTID])
		}
	}
	g.expect(want)
	t.Run("real image", func(t *testing.T) { // process 1 of its namespace, a single thread
		needCPU(t, xstate.AVX.Mask())
		one := startTarget(t, targetConfig{newPID: true})
		mustRestore(t, 0, "-t", fmt.Sprint(one.pid), "-D", testimg.Path(t, "h-pidns1"))
		one.expect([]*xstate.State{truthOf(&testimg.Load(t, "h-pidns1").Tasks[0].Threads[0])})
	})
}

// TestTree restores a process with its children, and names what one side lacks.
func TestTree(t *testing.T) {
	g := startTarget(t, targetConfig{processes: 3, threads: 2})
	want := g.others(1, everything)
	dir := g.images(want, same)
	mustRestore(t, 0, "-t", fmt.Sprint(g.pid), "--tree", "-D", dir)
	g.untraced()
	g.expect(want)

	// One process of the checkpoint alone.
	g.load(g.states)
	mustRestore(t, 0, "-t", fmt.Sprint(g.tid(2)), "-D", dir)
	mixed := slices.Clone(g.states)
	copy(mixed[2:4], want[2:4])
	g.expect(mixed)

	// A task that only one side has.
	g.load(g.states)
	if err := os.Remove(filepath.Join(dir, "pstree.img")); err != nil {
		t.Fatal(err)
	}
	args := []string{"-t", fmt.Sprint(g.pid), "--tree"}
	for i := range 4 {
		args = append(args, filepath.Join(dir, fmt.Sprintf("core-%d.img", g.tid(i))))
	}
	r := mustRestore(t, 1, args...)
	r.says(t, "no image for the live threads", fmt.Sprint(g.tid(4)), fmt.Sprint(g.tid(5)), "--ignore-missing")
	g.expect(g.states)
	mustRestore(t, 0, append(args, "--ignore-missing")...)
	copy(mixed, want[:4])
	copy(mixed[4:], g.states[4:])
	g.expect(mixed)

	g.load(g.states)
	kill(t, g.tid(4), syscall.SIGKILL)
	eventually(t, "ended", func() bool {
		st, err := ptrace.ReadStatus(g.tid(4), g.tid(4))
		return err != nil || st.State == 'Z'
	})
	for i := 4; i < 6; i++ {
		args = append(args, filepath.Join(dir, fmt.Sprintf("core-%d.img", g.tid(i))))
	}
	r = mustRestore(t, 1, args...)
	r.says(t, "no live thread for the images", fmt.Sprint(g.tid(4)), fmt.Sprint(g.tid(5)))
	g.expect(g.states, g.tid(4))
	mustRestore(t, 0, append(args, "--ignore-missing")...)
	g.expect(want, g.tid(4))
}

// TestTraced meets a process that gdb debugs.
func TestTraced(t *testing.T) {
	path := testcmd.Tool(t, "gdb")
	g := startTarget(t, targetConfig{threads: 2})
	dir := g.images(g.others(1, everything), same)
	cmd := exec.Command(path, "-nx", "-q", "-iex", "set auto-load off", "-iex", "set debuginfod enabled off", "-p", fmt.Sprint(g.pid))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		cmd.Wait()
	}()
	eventually(t, "gdb attaches", func() bool {
		st, err := ptrace.ReadStatus(g.pid, g.pid)
		return err == nil && st.TracerPID != 0 && inState(t, g.pid, "t")
	})
	r := mustRestore(t, 4, "-t", fmt.Sprint(g.pid), "-D", dir)
	r.says(t, "already being traced", "hint: ", "gdb", fmt.Sprint(cmd.Process.Pid))
	in.Close()
	cmd.Wait()
	g.expect(g.states)
	mustRestore(t, 0, "-t", fmt.Sprint(g.pid), "-D", dir)
}

// target32 is a 32-bit process of one thread.
type target32 struct {
	*testtarget.Process32
	cpu *xstate.CPU
}

func startTarget32(t *testing.T) *target32 {
	t.Helper()
	p, err := testtarget.Start32(testcmd.Build(t, "./internal/ptrace/testdata/target32", "386"))
	if errors.Is(err, unix.ENOEXEC) {
		testcmd.Lack(t, "this kernel runs no 32-bit programs")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.End)
	return &target32{p, thisCPU(t)}
}

func (g *target32) pid() string { return fmt.Sprint(g.PID) }

// given is what the thread was started with.
func (g *target32) given(t *testing.T) *xstate.State {
	t.Helper()
	s, err := parse(g.cpu, g.Given)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// expect has the thread report what it holds.
func (g *target32) expect(t *testing.T, want *xstate.State) {
	t.Helper()
	if err := g.Snap(); err != nil {
		t.Fatal(err)
	}
	got, err := parse(g.cpu, g.Held)
	if err != nil {
		t.Fatal(err)
	}
	// Registers 8 to 15 do not exist there, and XSAVE leaves them out.
	want = want.Clone()
	for _, s := range []*xstate.State{got, want} {
		clear(s.FX.XMMSpace()[128:])
		if b := s.Data(xstate.AVX); b != nil {
			clear(b[128:])
		}
	}
	if d := differ(g.cpu, got, want); d != "" {
		t.Error(d)
	}
}

// images are the options for an image to go into the thread. Its program has seen
// XSAVE, which takes force where there is none.
func (g *target32) images(t *testing.T, name string, from int) []string {
	args := []string{"-t", g.pid(), testimg.Path(t, name, fmt.Sprintf("core-%d.img", from)),
		fmt.Sprintf("--map=%d=%d", from, g.TID), "--ignore-missing"}
	if !*g.cpu.XSave {
		args = append(args, "--force")
	}
	return args
}

// Test32Bit restores a 32-bit image into one thread of a 32-bit process, and does
// not mix them with 64-bit ones.
func Test32Bit(t *testing.T) {
	g := startTarget32(t)
	if *g.cpu.XSave {
		needCPU(t, xstate.AVX.Mask())
	}
	truth := truthOf(&testimg.Load(t, "h-compat32").Tasks[0].Threads[0])
	dir := t.TempDir()
	before, after := filepath.Join(dir, "before"), filepath.Join(dir, "after")
	t.Run("64-bit image", func(t *testing.T) {
		mustRestore(t, 4, g.images(t, "h-sse", 20600)...).says(t, "64-bit", fmt.Sprintf("thread %d", g.TID))
		g.expect(t, g.given(t))
	})
	t.Run("32-bit image", func(t *testing.T) {
		mustRestore(t, 0, append(g.images(t, "h-compat32", 23300), "--save", before)...)
		g.expect(t, truth)
	})
	t.Run("saved", func(t *testing.T) {
		mustRestore(t, 0, "-t", g.pid(), "--save", after)
		core := filepath.Join(after, fmt.Sprintf("core-%d.img", g.TID))
		ckpt, err := checkpoint.Open(core)
		if err != nil {
			t.Fatal(err)
		}
		for th, err := range ckpt.Threads() {
			if err != nil {
				t.Fatal(err)
			}
			if !th.State.Compat {
				t.Errorf("%s is not of a 32-bit task", core)
			}
			if d := differ(g.cpu, th.State, truth); d != "" { // registers 8 to 15 are 0 in both
				t.Error(d)
			}
		}
	})
	t.Run("back", func(t *testing.T) { // Go may have begun threads since
		mustRestore(t, 0, "-t", g.pid(), "-D", before, "--ignore-missing")
		g.expect(t, g.given(t))
		mustRestore(t, 0, "-t", g.pid(), "-D", after, "--ignore-missing")
		g.expect(t, truth)
	})
	t.Run("64-bit thread", func(t *testing.T) {
		g := startTarget(t, targetConfig{})
		mustRestore(t, 4, "-t", fmt.Sprint(g.pid), "-D", testimg.Path(t, "h-compat32"), "--force").says(t, "32-bit")
		g.expect(g.states)
	})
	t.Run("64-bit image among others", func(t *testing.T) { // the other threads are Go's
		tids, err := ptrace.Tasks(g.PID)
		if err != nil || len(tids) < 2 {
			t.Fatal(tids, err)
		}
		for _, odd := range tids {
			args := []string{"-t", g.pid(), "--ignore-missing"}
			for _, tid := range tids {
				s := initial(g.cpu)
				s.Compat = tid != odd
				b, err := codec.MarshalCore(codec.Thread{PID: g.PID, TID: tid, State: s})
				if err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(t.TempDir(), fmt.Sprintf("core-%d.img", tid))
				write(t, path, b)
				args = append(args, path)
			}
			mustRestore(t, 4, args...).says(t, fmt.Sprintf("thread %d: the image is of a 64-bit task", odd))
		}
		g.expect(t, truth)
	})
}

// TestMixedMode has the image of one thread, whichever it is, be of a 32-bit task: no
// thread gets anything.
func TestMixedMode(t *testing.T) {
	g := startTarget(t, targetConfig{processes: 2, threads: 3})
	for _, format := range []xstate.Format{xstate.FormatXSave, xstate.FormatFXSave, xstate.FormatNone} {
		for i := range g.states {
			images := g.others(1, xstate.Legacy)
			images[i].Format, images[i].Compat = format, true
			mustRestore(t, 4, "-t", fmt.Sprint(g.pid), "--tree", "-D", g.images(images, same), "--force").
				says(t, fmt.Sprintf("thread %d: the image is of a 32-bit task", g.tid(i)))
		}
	}
	g.expect(g.states)
}

// TestTimeout waits for a thread that does not stop: the parent of a vfork.
func TestTimeout(t *testing.T) {
	g := startTarget(t, targetConfig{vfork: true})
	before := time.Now()
	r := mustRestore(t, 4, "-t", fmt.Sprint(g.pid), "-D", g.images(g.others(1, everything), same), "--timeout=300ms")
	if d := time.Since(before); d < 300*time.Millisecond {
		t.Errorf("gave up after %v", d)
	}
	r.says(t, "did not stop in time", fmt.Sprint(g.pid), "hint: ", "--timeout")
	if strings.Contains(r.errors, "\uFFFD") {
		t.Errorf("not one line: %s", r.errors)
	}
}

// TestNoTarget names each thing that is no process to restore into.
func TestNoTarget(t *testing.T) {
	thisCPU(t)
	images := testimg.Path(t, "h-sse")
	check := func(t *testing.T, pid int, words ...string) {
		t.Helper()
		for _, more := range []string{"--json", "--dry-run"} {
			r := mustRestore(t, 4, "-t", fmt.Sprint(pid), "-D", images, more)
			r.says(t, append(words, "hint: ")...)
		}
	}
	t.Run("self", func(t *testing.T) { check(t, os.Getpid(), "is this process itself") })
	t.Run("nobody", func(t *testing.T) {
		max, err := os.ReadFile("/proc/sys/kernel/pid_max")
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(max)))
		if err != nil {
			t.Fatal(err)
		}
		check(t, pid, "no such process", "ps") // the greatest pid is one less
	})
	t.Run("thread", func(t *testing.T) {
		g := startTarget(t, targetConfig{threads: 2})
		check(t, g.tid(1), "is a thread, not a process", fmt.Sprintf("-t %d", g.pid))
	})
	t.Run("zombie", func(t *testing.T) {
		cmd := asProgram("fpurestore", "--version")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		eventually(t, "ended", func() bool {
			st, err := ptrace.ReadStatus(cmd.Process.Pid, cmd.Process.Pid)
			tids, _ := ptrace.Tasks(cmd.Process.Pid)
			return err == nil && st.State == 'Z' && len(tids) == 1
		})
		check(t, cmd.Process.Pid, "is a zombie", "ps")
	})
	t.Run("kernel thread", func(t *testing.T) {
		stats, err := filepath.Glob("/proc/[0-9]*/stat")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range stats {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if st, err := ptrace.ReadStatus(pid, pid); err == nil && st.KernelThread {
				check(t, pid, "kernel thread")
				return
			}
		}
		testcmd.Lack(t, "this is a pid namespace without kernel threads")
	})
}

// elsewhere copies the test binary to where everybody can run it.
func elsewhere(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fpurestore-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "fpurestore")
	for _, err := range []error{os.Chmod(dir, 0o755), os.WriteFile(path, b, 0o755), os.Chmod(path, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return path
}

const nobody = 65534

// asUser has a command run as another user, if it is root who asks.
func asUser(cmd *exec.Cmd, uid uint32) *exec.Cmd {
	cmd.Dir = "/"
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	return cmd
}

// runAs runs the program as another user.
func runAs(t *testing.T, path string, uid uint32, args ...string) result {
	t.Helper()
	cmd := asUser(exec.Command(path, args...), uid)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// TestOtherUser meets a process of somebody else.
func TestOtherUser(t *testing.T) {
	if os.Getuid() != 0 {
		testcmd.Lack(t, "this user is not root, who becomes another")
	}
	path := elsewhere(t)
	g := startTarget(t, targetConfig{})
	if err := os.CopyFS(filepath.Join(filepath.Dir(path), "ckpt"), os.DirFS(g.images(g.states, same))); err != nil {
		t.Fatal(err)
	}
	r := runAs(t, path, nobody, "-t", fmt.Sprint(g.pid), "-D", filepath.Join(filepath.Dir(path), "ckpt"))
	if r.code != 4 {
		t.Fatalf("exit status %d: %s", r.code, r.errors)
	}
	r.says(t, "not permitted", "hint: ", "root")
	g.expect(g.states)
}

// TestUserNamespace meets a process outside, as root of a user namespace.
func TestUserNamespace(t *testing.T) {
	g := startTarget(t, targetConfig{})
	cmd := asProgram("fpurestore", "-t", fmt.Sprint(g.pid), "-D", g.images(g.states, same))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		testcmd.Lack(t, "no user namespace to be had: "+err.Error())
	}
	r := result{cmd.ProcessState.ExitCode(), "", string(out)}
	if r.code != 4 {
		t.Errorf("exit status %d", r.code)
	}
	r.says(t, "not permitted", "hint: it lives in another user namespace; ")
	g.expect(g.states)
}

// waits is a program that does nothing until its standard input ends.
const waits = "fpurestore-waits"

func init() { commands[waits] = func() { io.Copy(io.Discard, os.Stdin) } }

// TestYama meets a process of its own user that it has not started, with the setting
// that this machine has, if any; which one that is, is not for a test to change.
func TestYama(t *testing.T) {
	const setting = "/proc/sys/kernel/yama/ptrace_scope"
	b, err := os.ReadFile(setting)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	scope := strings.TrimSpace(string(b))
	path := elsewhere(t)
	cmd := asUser(exec.Command(path), nobody)
	cmd.Args[0] = waits
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	dir := filepath.Join(filepath.Dir(path), "everybody")
	if err := errors.Join(os.Mkdir(dir, 0o777), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	args := []string{"-t", fmt.Sprint(cmd.Process.Pid), "--save", filepath.Join(dir, "saved")}
	refused := func(r result, hint string) {
		t.Helper()
		if r.code != 4 {
			t.Errorf("exit status %d: %s", r.code, r.errors)
		}
		r.says(t, "not permitted", "hint: "+hint)
	}
	t.Logf("%s is %q", setting, scope)
	r := runAs(t, path, nobody, args...)
	switch scope {
	case "", "0": // no Yama, or one that adds nothing
		if r.code != 0 {
			t.Errorf("exit status %d: %s", r.code, r.errors)
		}
	case "1", "2":
		refused(r, "run with CAP_SYS_PTRACE, as root does: "+setting+" is "+scope)
	case "3":
		const nobodyMay = setting + " is 3: nobody may trace until the next boot"
		refused(r, nobodyMay)
		refused(restore(args...), nobodyMay)
	default:
		t.Errorf("an unknown setting")
	}
}

// TestSetUID refuses to run with rights that its user has not.
func TestSetUID(t *testing.T) {
	if os.Getuid() != 0 {
		testcmd.Lack(t, "this user is not root, who becomes another")
	}
	path := elsewhere(t)
	var fsinfo unix.Statfs_t
	if err := unix.Statfs(path, &fsinfo); err == nil && fsinfo.Flags&unix.ST_NOSUID != 0 {
		testcmd.Lack(t, "the temporary directory takes no set-uid programs")
	}
	g := startTarget(t, targetConfig{})
	for _, mode := range []fs.FileMode{fs.ModeSetuid | 0o755, fs.ModeSetgid | 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		r := runAs(t, path, nobody, "-t", fmt.Sprint(g.pid), "--save", "/nowhere")
		if r.code != 2 {
			t.Errorf("%v: exit status %d: %s", mode, r.code, r.errors)
		}
		r.says(t, "refusing to run set-uid", "hint: ", "sudo")
	}
	g.expect(g.states)
}

// TestRoundTrip saves, scribbles over all registers, and restores what was saved.
func TestRoundTrip(t *testing.T) {
	for name, cfg := range map[string]targetConfig{"threads": {threads: 5}, "tree": {processes: 2, threads: 2},
		"init": {init: true}, "running": {threads: 3, nr: spinning}, "leader has ended": {threads: 3, leaderEnd: true},
		"leader in a tree has ended": {processes: 2, threads: 2, leaderEnd: true}} {
		t.Run(name, func(t *testing.T) {
			g := startTarget(t, cfg)
			threads := len(g.states)
			if cfg.leaderEnd {
				threads--
				eventually(t, "ended", func() bool {
					last := g.pidOf(len(g.states) - 1)
					st, err := ptrace.ReadStatus(last, last)
					return err == nil && st.State == 'Z'
				})
			}
			pid := fmt.Sprint(g.pid)
			dir := filepath.Join(t.TempDir(), "saved")
			args := []string{"-t", pid, "--tree"}
			r := mustRestore(t, 0, append(args, "--save", dir)...)
			r.says(t, "saved to "+dir, fmt.Sprintf("live state of %d thread", threads))
			g.untraced()
			g.expect(g.states)
			other := g.others(1, everything)
			g.load(other)
			g.expect(other)

			again := filepath.Join(t.TempDir(), "before")
			mustRestore(t, 0, append(args, "-D", dir, "--save", again)...)
			g.expect(g.states)
			mustRestore(t, 0, append(args, "-D", again)...)
			g.expect(other)

			readable(t, again, threads, name == "tree" || cfg.leaderEnd)
			// A directory that is there is nobody's to overwrite.
			before, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			mustRestore(t, 3, append(args, "--save", dir)...).says(t, "exists already")
			after, err := os.ReadDir(dir)
			if err != nil || len(after) != len(before) {
				t.Errorf("%v, %v", after, err)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*")); left != nil {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// readable checks that fpuimg shows a saved directory, and crit decodes it.
func readable(t *testing.T, dir string, threads int, byCrit bool) {
	t.Helper()
	cmd := exec.Command(testcmd.Build(t, "../fpuimg", "amd64"), "show", "--json", dir)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("fpuimg show: %v", err)
	}
	var doc struct {
		Images []struct{ Threads []struct{ TID int } }
	}
	if err := json.Unmarshal(out, &doc); err != nil || len(doc.Images) != 1 || len(doc.Images[0].Threads) != threads {
		t.Errorf("fpuimg show: %v: %s", err, out)
	}
	if !byCrit { // it is slow
		return
	}
	path, err := exec.LookPath("crit")
	if err != nil {
		t.Log("crit is not installed")
		return
	}
	images, err := filepath.Glob(filepath.Join(dir, "*.img"))
	if err != nil || len(images) != threads+2 {
		t.Fatalf("%v, %v", images, err)
	}
	core := slices.IndexFunc(images, func(p string) bool { return strings.HasPrefix(filepath.Base(p), "core-") })
	for _, img := range []string{images[core], filepath.Join(dir, "pstree.img"), filepath.Join(dir, "inventory.img")} {
		if msg, err := exec.Command(path, "decode", "-i", img).CombinedOutput(); err != nil || !strings.Contains(string(msg), `"magic"`) {
			t.Errorf("crit decode %s: %v: %s", img, err, msg)
		}
	}
}

// TestPKRU restores protection keys, in INIT too, and keeps those of a thread whose
// image has none.
func TestPKRU(t *testing.T) {
	needCPU(t, xstate.PKRU.Mask())
	g := startTarget(t, targetConfig{threads: 2})
	want := g.others(1, everything)
	for i := range want {
		binary.LittleEndian.PutUint32(want[i].Data(xstate.PKRU), 0x55555550+uint32(i)<<4&^0xf)
	}
	mustRestore(t, 0, "-t", fmt.Sprint(g.pid), "-D", g.images(want, same))
	g.expect(want)
	for i, s := range g.others(2, everything&^xstate.PKRU.Mask()) {
		s.SetData(xstate.PKRU, want[i].Data(xstate.PKRU))
		s.BV |= xstate.PKRU.Mask()
		want[i] = s
	}
	none := g.others(2, everything&^xstate.PKRU.Mask())
	mustRestore(t, 0, "-t", fmt.Sprint(g.pid), "-D", g.images(none, same))
	g.expect(want)
	// In INIT, which opens every key.
	for _, s := range want {
		s.SetData(xstate.PKRU, make([]byte, len(s.Data(xstate.PKRU))))
		s.BV &^= xstate.PKRU.Mask()
	}
	mustRestore(t, 0, "-t", fmt.Sprint(g.pid), "-D", g.images(want, same))
	g.expect(want)
}

// TestTiles saves and restores AMX tiles, and refuses them for a thread that has
// not used any.
func TestTiles(t *testing.T) {
	needCPU(t, tiles)
	g := startTarget(t, targetConfig{threads: 2, amx: true})
	g.expect(g.states)
	dir := filepath.Join(t.TempDir(), "saved")
	mustRestore(t, 0, "-t", fmt.Sprint(g.pid), "--save", dir)
	g.load(g.others(1, everything|tiles))
	mustRestore(t, 0, "-t", fmt.Sprint(g.pid), "-D", dir)
	g.expect(g.states)

	without := startTarget(t, targetConfig{threads: 2})
	args := []string{"-t", fmt.Sprint(without.pid), "-D", dir}
	for i := range g.states {
		args = append(args, fmt.Sprintf("--map=%d=%d", g.tid(i), without.tid(i)))
	}
	mustRestore(t, 4, args...).says(t, "has not used any")
	without.expect(without.states)
}
