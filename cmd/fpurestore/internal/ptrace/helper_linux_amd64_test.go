package ptrace

import (
	"bytes"
	"cmp"
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
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/codec/cpuid"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testtarget "github.com/fpuimg/fpuimg/internal/test/target"
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

// config is a target: a process whose leader sleeps, and threads that hold known contents.
type config struct {
	threads    int    // 1 if 0
	mode       string // what they do, "spin" if it is ""
	seed       uint64 // of the contents
	full       bool   // every thread has every component in use
	fx         bool   // x87 and SSE only, as on a machine without XSAVE
	vfork      bool   // the leader waits in vfork
	leaderEnd  bool   // it ends, and the threads go on
	churn      int    // one more thread starts others all the time, at most so many at once
	churnFlags uint64 // of clone, for those; threads if 0
	hogs       int    // so many more want the CPU all the time
}

const (
	threadFlags  = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
	processFlags = unix.CLONE_VM | unix.CLONE_FILES // no exit signal
)

// modes are what threads do between looking whether they are to report.
var modes = map[string]uint64{"spin": testtarget.Spin, "yield": testtarget.Yield, "nanosleep": unix.SYS_NANOSLEEP,
	"futex": unix.SYS_FUTEX, "read": unix.SYS_READ, "epoll": unix.SYS_EPOLL_WAIT}

// target is a running one; the fields of state are what was looked at last.
type target struct {
	state

	tb    testing.TB
	cfg   config
	proc  *testtarget.Process // with the blocks of the leader, the threads, and others
	churn int                 // the block of the thread that starts others
	vfork int                 // the block of the child of vfork
	pipes []*os.File          // what each thread reads from
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

func osXSave() bool {
	r, _ := (cpuid.Native{}).CPUID(1, 0)
	return r.ECX&(1<<27) != 0
}

func start(tb testing.TB, cfg config) *target {
	tb.Helper()
	if !cfg.fx && !osXSave() {
		tb.Skip("the kernel has not enabled XSAVE (CPUID.1:ECX.OSXSAVE is 0); TestFXSave holds all the same")
	}
	cfg.threads, cfg.mode = max(cfg.threads, 1), cmp.Or(cfg.mode, "spin")
	g := &target{tb: tb, cfg: cfg, state: state{Size: fxsaveSize, Mask: 3}}
	if !cfg.fx {
		enabled, _ := cpuid.Native{}.XCR0()
		r, _ := cpuid.Native{}.CPUID(0xd, 0)
		g.Size, g.Mask = int(r.EBX), uint64(enabled)&0x2e7 // not the tiles, which need a permission, nor MPX, which changes what branches do
	}
	n := 1 + cfg.threads + cfg.hogs
	if cfg.churn > 0 {
		g.churn, n = n, n+1+cfg.churn
	}
	if cfg.vfork {
		g.vfork, n = n, n+1
	}
	var files []*os.File
	for range cfg.threads {
		if cfg.mode != "read" {
			break
		}
		r, w, err := os.Pipe()
		if err != nil {
			tb.Fatal(err)
		}
		defer r.Close()
		files, g.pipes = append(files, r), append(g.pipes, w)
		tb.Cleanup(func() { w.Close() })
	}
	// It follows the OS thread that starts it, which therefore must not become another
	// goroutine's, and end with it.
	runtime.LockOSThread()
	tb.Cleanup(runtime.UnlockOSThread)
	var err error
	if g.proc, err = testtarget.Start(testcmd.Build(tb, "../../testdata/target", "amd64"), n, g.lay, files); err != nil {
		tb.Fatalf("target: %v", err)
	}
	tb.Cleanup(func() { g.proc.Close() })
	g.PID = g.proc.PID
	g.release()
	g.look()
	return g
}

// busy reports whether a thread wants the CPU all the time. It sleeps until all are there.
func (g *target) busy(i int) bool {
	return i > g.cfg.threads && i <= g.cfg.threads+g.cfg.hogs || i > 0 && i <= g.cfg.threads && g.cfg.mode == "spin"
}

// lay fills the blocks.
func (g *target) lay(head *testtarget.Head, blocks []testtarget.Block) {
	cfg := g.cfg
	if cfg.fx {
		head.FX = 1
	}
	blocks[0].Flags, blocks[0].NR, blocks[0].Wait = uint64(unix.SIGCHLD), unix.SYS_PAUSE, 1
	if cfg.leaderEnd {
		blocks[0].NR = unix.SYS_EXIT
	}
	bvs := []uint64{^uint64(0), ^uint64(0), 7, 3, 1, 2, ^uint64(1)}
	for i := 1; i <= cfg.threads+cfg.hogs; i++ {
		b := &blocks[i]
		b.Flags, b.NR, b.Wait = threadFlags, unix.SYS_FUTEX, 1
		testtarget.Link(blocks, 0, i)
		if i > cfg.threads {
			continue
		}
		if !g.busy(i) {
			b.NR = modes[cfg.mode]
		}
		if cfg.mode == "read" {
			b.Args[0] = uintptr(3 + i - 1)
		}
		b.Mask, b.Time[0] = g.Mask, 100000
		bv := bvs[0]
		if !cfg.full {
			bv = bvs[(i-1)%len(bvs)]
		}
		fill(b.Area[:g.Size], g.Mask, bv, rand.New(rand.NewPCG(cfg.seed, uint64(i-1))))
	}
	if cfg.churn > 0 {
		b := &blocks[g.churn]
		b.Flags, b.Wait, b.Mode = threadFlags, 1, testtarget.ModeChurn
		testtarget.Link(blocks, 0, g.churn)
		for i := range cfg.churn {
			child := g.churn + 1 + i
			blocks[child].Flags, blocks[child].Mode = cmp.Or(cfg.churnFlags, threadFlags), testtarget.ModeEnd
			testtarget.Link(blocks, g.churn, child)
		}
	}
	if cfg.vfork {
		b := &blocks[g.vfork]
		b.Flags, b.NR, b.Wait = unix.CLONE_VFORK|unix.CLONE_VM|uint64(unix.SIGCHLD), unix.SYS_PAUSE, 1
		testtarget.Link(blocks, 0, g.vfork)
		blocks[0].Wait = 0 // it does not get so far
	}
}

// release lets busy threads go. SCHED_IDLE, or a thousand of them would leave the tests
// next to no time.
func (g *target) release() {
	for i := range g.proc.Blocks {
		if !g.busy(i) {
			continue
		}
		nr := testtarget.Hog
		if i <= g.cfg.threads {
			nr = testtarget.Spin
			if _, _, e := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(g.proc.Blocks[i].TID), unix.SCHED_IDLE, uintptr(unsafe.Pointer(new(int32)))); e != 0 {
				g.tb.Fatal(e)
			}
		}
		atomic.StoreUint64(&g.proc.Blocks[i].NR, nr)
		if atomic.SwapUint64(&g.proc.Head.Word, 1) == 0 {
			defer unix.Syscall(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&g.proc.Head.Word)), 1, 1<<30) // FUTEX_WAKE
		}
	}
}

// fill makes up register contents. The padding and the gaps are filled too.
func fill(area []byte, mask, bv uint64, r *rand.Rand) {
	for i := 0; i < len(area); i += 8 {
		binary.LittleEndian.PutUint64(area[i:], r.Uint64())
	}
	clear(area[:offST])
	binary.LittleEndian.PutUint16(area, initFCW&^0xf00|uint16(r.IntN(4))<<10|0x200) // rounding, precision
	area[4] = 0xff                                                                  // all eight in use
	binary.LittleEndian.PutUint32(area[offMXCSR:], initMXCSR|uint32(r.IntN(4))<<13|uint32(r.IntN(64)))
	binary.LittleEndian.PutUint32(area[offMXCSRMask:], 0xffff)
	for i := range 8 {
		area[offST+16*i+7] |= 0x80 // normal numbers have the integer bit
	}
	if len(area) == fxsaveSize {
		return
	}
	if bv&6 == 0 {
		// XRSTOR would load MXCSR, for the mask has SSE, but it is not in use.
		binary.LittleEndian.PutUint32(area[offMXCSR:], initMXCSR)
	}
	clear(area[offBV:offHeaderEnd])
	setBV(area, bv&mask)
	if mask&(1<<bitPKRU) != 0 {
		binary.LittleEndian.PutUint32(area[hostComponents()[bitPKRU].offset:], 0x55555554&^(3<<30)|uint32(r.IntN(4))<<30)
	}
}

// look looks at the threads, and wakes nobody.
func (g *target) look() *state {
	s := &g.state
	s.Threads, s.Counts = s.Threads[:0:0], g.proc.Head.Counts
	for i := range g.cfg.threads {
		b := &g.proc.Blocks[1+i]
		s.Threads = append(s.Threads, threadState{int(b.TID), bytes.Clone(b.Area[:g.Size]), bytes.Clone(b.Saved[:g.Size]),
			atomic.LoadUint64(&b.Returns), atomic.LoadInt64(&b.Result)})
	}
	if g.churn > 0 {
		s.Churned = atomic.LoadUint64(&g.proc.Blocks[g.churn].Returns)
	}
	if g.vfork > 0 {
		s.VFork = int(g.proc.Blocks[g.vfork].TID)
	}
	return s
}

// snap has every thread save what it holds.
func (g *target) snap() *state {
	g.tb.Helper()
	want := atomic.AddUint64(&g.proc.Head.Epoch, 1)
	end := time.Now().Add(patience)
	wake := func(b *testtarget.Block) {
		if g.cfg.mode != "spin" && g.cfg.mode != "yield" {
			unix.Tgkill(g.PID, int(b.TID), 41)
		}
	}
	threads := g.proc.Blocks[1:][:g.cfg.threads]
	for i := range threads {
		wake(&threads[i])
	}
	for i := range threads {
		b := &threads[i]
		for try := 1; atomic.LoadUint64(&b.Seen) != want; try++ {
			if try%200 == 0 { // it was not asleep yet when the signal came
				wake(b)
			}
			if time.Now().After(end) {
				g.tb.Fatalf("thread %d does not answer", b.TID)
			}
			time.Sleep(20 * time.Microsecond)
		}
	}
	return g.look()
}

// end kills the target.
func (g *target) end() { g.proc.End() }

// feed lets reads return.
func (g *target) feed() {
	for _, w := range g.pipes {
		w.Write([]byte{1})
	}
}

// tids are the threads that hold known contents.
func (s *state) tids() []int {
	var tids []int
	for _, th := range s.Threads {
		tids = append(tids, th.TID)
	}
	return tids
}

// expect has the target report, and compares with what each thread should hold.
func (g *target) expect(want map[int][]byte) {
	g.tb.Helper()
	s := g.snap()
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
