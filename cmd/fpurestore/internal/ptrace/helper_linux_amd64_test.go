package ptrace

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/codec/cpuid"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// patience bounds waits that a correct program ends by itself, so that a
// broken one fails instead of hanging. Nothing is asserted about time.
const patience = 60 * time.Second

// helperEnv names what a re-executed test binary is to do.
const helperEnv = "FPUIMG_PTRACE_HELPER"

// The main goroutine keeps the main thread, which does not end with a goroutine: see apart.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if what := os.Getenv(helperEnv); what != "" {
		helper(what, os.Args[1:])
		os.Exit(0)
	}
	testcmd.Main(m, nil)
}

// helper is another program that traces: it serves the tests that need one to
// be in the way, to be killed, or to lack rights.
func helper(what string, args []string) {
	var pids []int
	for _, a := range args {
		pid, err := strconv.Atoi(a)
		if err != nil {
			panic(err)
		}
		pids = append(pids, pid)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch what {
	case "hold": // stops the process until standard input ends
		t, err := Open(pids...)
		if err == nil {
			err = t.Stop(ctx)
		}
		fmt.Println("stopped", err)
		io.Copy(io.Discard, os.Stdin)
		if err == nil {
			t.Close()
		}
	case "swap": // replaces the state of every thread whose state it knows
		deadly, _ := strconv.Atoi(os.Getenv("CALL"))
		f := &faulty{Backend: NewSystem()}
		t, err := OpenBackend(f, pids...)
		if err != nil {
			panic(err)
		}
		fmt.Println("begin")
		f.calls = 0
		f.before = func(call int, _ string) {
			if call == deadly {
				unix.Kill(os.Getpid(), unix.SIGKILL)
			}
		}
		if err := t.Stop(ctx); err != nil {
			panic(err)
		}
		areas := make(map[int]Area)
		for _, th := range t.Threads() {
			a, err := t.Read(th.TID)
			if err != nil {
				panic(err)
			}
			areas[th.TID] = Area{a.Set, flip(a.Data)}
		}
		if err := t.Swap(areas); err != nil {
			panic(err)
		}
		if err := t.Close(); err != nil {
			panic(err)
		}
		fmt.Println("end", f.calls)
	case "errors": // tries to stop it and tells how that failed
		t, err := Open(pids...)
		if err == nil {
			err = t.Stop(ctx)
		}
		var ae *AttachError
		if !errors.As(err, &ae) {
			panic(fmt.Sprint(err))
		}
		json.NewEncoder(os.Stdout).Encode(map[string]any{
			"permission": errors.Is(err, ErrPermission), "uid": ae.UID, "selfuid": ae.SelfUID,
			"cap": ae.HasCap, "yama": ae.YamaScope, "comm": ae.Comm, "text": err.Error()})
	default:
		panic(what)
	}
}

func helperCommand(what string, pids ...int) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	var args []string
	for _, pid := range pids {
		args = append(args, strconv.Itoa(pid))
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+what)
	cmd.Stderr = os.Stderr
	return cmd
}

// flip inverts every XMM register, which gives another valid state; flipping
// again gives the first.
func flip(area []byte) []byte {
	b := slices.Clone(area)
	for i := offXMM; i < 416; i++ {
		b[i] ^= 0xff
	}
	if len(b) > offBV {
		b[offBV] |= 1 << bitSSE
	}
	return b
}

// program gives the path of a test program.
func program(tb testing.TB, name string) string {
	tb.Helper()
	return testcmd.Build(tb, "./testdata/"+name, map[string]string{"target": "amd64", "target32": "386"}[name])
}

// target is a running test program; the fields of state are its last answer.
type target struct {
	tb  testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	state
}

type state struct {
	PID     int
	Size    int
	Mask    uint64
	Churned uint64
	VFork   int
	Threads []threadState
	Counts  [65]uint64
}

type threadState struct {
	TID         int
	Given, Held []byte
	Returns     uint64
	LastRet     int64
}

func start(tb testing.TB, args ...string) *target {
	tb.Helper()
	if !slices.Contains(args, "-fx") && !osXSave() {
		tb.Skip("the kernel has not enabled XSAVE (CPUID.1:ECX.OSXSAVE is 0); TestFXSave holds all the same")
	}
	return startCommand(tb, exec.Command(program(tb, "target"), args...))
}

func osXSave() bool {
	r, _ := (cpuid.Native{}).CPUID(1, 0)
	return r.ECX&(1<<27) != 0
}

func startCommand(tb testing.TB, cmd *exec.Cmd) *target {
	tb.Helper()
	g := &target{tb: tb, cmd: cmd}
	cmd.Stderr = os.Stderr
	// Should the tests be killed. It follows the OS thread that starts the
	// target, which therefore must not become another goroutine's, and end with it.
	runtime.LockOSThread()
	tb.Cleanup(runtime.UnlockOSThread)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if g.in, err = cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	g.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(g.end)
	g.read()
	return g
}

// end kills the target. A tracer in this process may have taken its exit
// status already, so the answer of Wait says nothing.
func (g *target) end() {
	if g.cmd.ProcessState == nil {
		g.cmd.Process.Kill()
		g.cmd.Wait()
	}
}

func (g *target) read() {
	g.tb.Helper()
	line, err := g.out.ReadBytes('\n')
	if err != nil {
		g.tb.Fatalf("target: %v", err)
	}
	g.state = state{}
	if err := json.Unmarshal(line, &g.state); err != nil {
		g.tb.Fatalf("target: %v", err)
	}
}

// ask sends a command and reads the answer: "snap" has every thread save what
// it holds, "look" disturbs nobody, "feed" lets reads return.
func (g *target) ask(command string) state {
	g.tb.Helper()
	if _, err := fmt.Fprintln(g.in, command); err != nil {
		g.tb.Fatalf("target: %v", err)
	}
	g.read()
	return g.state
}

// tids are the threads that hold known contents.
func (g *target) tids() []int {
	var tids []int
	for _, th := range g.Threads {
		tids = append(tids, th.TID)
	}
	return tids
}

// expect has the target report, and compares with what each thread should hold.
func (g *target) expect(want map[int][]byte) {
	g.tb.Helper()
	s := g.ask("snap")
	bad := 0
	for _, th := range s.Threads {
		if err := diffHeld(want[th.TID], th.Held); err != nil {
			if bad++; bad <= 3 {
				g.tb.Errorf("thread %d: %v", th.TID, err)
			}
		}
	}
	if bad > 3 {
		g.tb.Errorf("%d threads in all hold something else", bad)
	}
}

// diffHeld compares like diffXState, but lets the target's own XSAVE say
// "in use" of a component with INIT contents: the processor may.
func diffHeld(want, held []byte) error {
	w, h := slices.Clone(want), slices.Clone(held)
	wantBV, heldBV := bv(w), bv(h)
	for bit, c := range hostComponents() {
		if bit >= 2 && c.size != 0 && c.offset+c.size <= len(w) && (wantBV^heldBV)&(1<<bit) != 0 {
			clearUnused(w, wantBV, bit, c)
			clearUnused(h, heldBV, bit, c)
		}
	}
	// x87 and SSE the same, in the legacy area.
	lw, lh := legacy(w, wantBV), legacy(h, heldBV)
	copy(w, lw[:])
	copy(h, lh[:])
	// Reserved by XRSTOR and XSAVE, and which of them are there depends on the CPU.
	setBV(w, wantBV|heldBV|3)
	setBV(h, wantBV|heldBV|3)
	return diffXState(w, h)
}

func clearUnused(area []byte, bv uint64, bit int, c component) {
	if bv&(1<<bit) == 0 {
		clear(area[c.offset : c.offset+c.size])
	}
}

func bv(area []byte) uint64          { return binary.LittleEndian.Uint64(area[offBV:]) }
func setBV(area []byte, bits uint64) { binary.LittleEndian.PutUint64(area[offBV:], bits) }

// given is what the threads were started with.
func (g *target) given() map[int][]byte {
	m := make(map[int][]byte)
	for _, th := range g.Threads {
		m[th.TID] = th.Given
	}
	return m
}

// untraced checks that no thread of the process has a tracer and none stands
// in a tracing stop.
func (g *target) untraced() {
	g.tb.Helper()
	tids, err := Tasks(g.PID)
	if err != nil {
		g.tb.Fatal(err)
	}
	for _, tid := range tids {
		st, err := ReadStatus(g.PID, tid)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			g.tb.Fatal(err)
		}
		if st.TracerPID != 0 {
			g.tb.Errorf("thread %d: traced by %d", tid, st.TracerPID)
		}
	}
}

// eventually waits until a condition holds.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("never: %s", what)
		}
	}
}

func (g *target) allInState(states string) bool {
	g.tb.Helper()
	tids, err := Tasks(g.PID)
	if err != nil {
		g.tb.Fatal(err)
	}
	for _, tid := range tids {
		st, err := ReadStatus(g.PID, tid)
		if err != nil || !strings.ContainsRune(states, rune(st.State)) {
			return false
		}
	}
	return true
}

func stop(tb testing.TB, t *Tracer) {
	tb.Helper()
	if err := stopErr(t); err != nil {
		tb.Fatal(err)
	}
}

func stopErr(t *Tracer) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return t.Stop(ctx)
}

// open opens and stops, and closes at the end of the test, which has to be on
// the same goroutine: Cleanup functions run there.
func open(tb testing.TB, b Backend, pids ...int) *Tracer {
	tb.Helper()
	t, err := OpenBackend(b, pids...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := t.Close(); err != nil {
			tb.Error(err)
		}
	})
	stop(tb, t)
	return t
}

// apart has an OS thread of its own trace, and waits for its end: then the kernel has
// let go of what Close could not, on a busy machine or of a thread that does not stop.
func apart(tb testing.TB, trace func()) {
	tb.Helper()
	tid := make(chan int)
	go func() {
		runtime.LockOSThread() // for good
		defer func() { tid <- unix.Gettid() }()
		trace()
	}()
	id := <-tid
	eventually(tb, "the OS thread ends", func() bool { return unix.Tgkill(os.Getpid(), id, 0) == unix.ESRCH })
}

func detach(tb testing.TB, t *Tracer) {
	tb.Helper()
	if err := t.detach(); err != nil {
		tb.Fatal(err)
	}
}

// readSet reads a register set of a stopped thread, whatever the thread has besides.
func readSet(t *Tracer, set Set, tid int) ([]byte, error) {
	th, err := t.thread(tid, "read "+set.String())
	if err != nil {
		return nil, err
	}
	b, err := t.read(th, set)
	return slices.Clone(b), err
}

// writeSet replaces a register set, without reading back and without a way back.
func writeSet(t *Tracer, set Set, tid int, b []byte) error {
	th, err := t.thread(tid, "write "+set.String())
	if err != nil {
		return err
	}
	return t.write(th, Area{set, b})
}

// readAll reads the state of the given threads.
func readAll(tb testing.TB, t *Tracer, tids []int) map[int][]byte {
	tb.Helper()
	m := make(map[int][]byte)
	for _, tid := range tids {
		b, err := readSet(t, XState, tid)
		if err != nil {
			tb.Fatal(err)
		}
		m[tid] = b
	}
	return m
}

// scramble makes up a new state within the given components: new contents,
// and about one component in four not in use.
func scramble(r *rand.Rand, old []byte, mask uint64) []byte {
	b := slices.Clone(old)
	bits := r.Uint64() | r.Uint64()
	for i := range 8 {
		binary.LittleEndian.PutUint64(b[offST+16*i:], r.Uint64()|1<<63)
		binary.LittleEndian.PutUint16(b[offST+16*i+8:], uint16(r.IntN(0x7fff)))
	}
	binary.LittleEndian.PutUint16(b, 0x37f)
	b[2], b[3], b[4] = 0, 0, byte(r.Uint32())
	binary.LittleEndian.PutUint32(b[offMXCSR:], initMXCSR|uint32(r.IntN(4))<<13|uint32(r.IntN(64)))
	for i := offXMM; i < 416; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	for bit, c := range hostComponents() {
		if bit < 2 || bit == bitPKRU || mask&(1<<bit) == 0 || c.size == 0 {
			continue
		}
		for i := 0; i < c.size; i += 8 {
			binary.LittleEndian.PutUint64(b[c.offset+i:], r.Uint64())
		}
	}
	setBV(b, mask&(bits|1<<bitPKRU))
	if ambiguous(Area{XState, b}) {
		binary.LittleEndian.PutUint32(b[offMXCSR:], initMXCSR)
	}
	return b
}

func scrambleAll(seed uint64, old map[int][]byte, mask uint64) (areas map[int]Area, want map[int][]byte) {
	areas, want = make(map[int]Area), make(map[int][]byte)
	for tid, b := range old {
		want[tid] = scramble(rand.New(rand.NewPCG(seed, uint64(tid))), b, mask)
		areas[tid] = Area{XState, want[tid]}
	}
	return areas, want
}

func kill(tb testing.TB, pid int, sig unix.Signal) {
	tb.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		tb.Fatal(err)
	}
}
