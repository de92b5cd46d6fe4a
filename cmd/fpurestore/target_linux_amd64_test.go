package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/cmd/fpurestore/internal/ptrace"
	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testtarget "github.com/fpuimg/fpuimg/internal/test/target"
)

// patience is more than anything here takes.
const patience = 30 * time.Second

var host = sync.OnceValues(cpuid.Host)

// thisCPU returns the machine.
func thisCPU(tb testing.TB) *xstate.CPU {
	tb.Helper()
	c, err := host()
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// components are those that this machine has.
func components(tb testing.TB) xstate.Features {
	tb.Helper()
	set, _ := thisCPU(tb).Usable()
	return set
}

// needCPU skips a test of components that this machine lacks.
func needCPU(tb testing.TB, set xstate.Features) {
	tb.Helper()
	if lacks := set &^ components(tb); lacks != 0 {
		tb.Skipf("this CPU has no %v", lacks)
	}
}

// tiles need a permission and cannot be had by everybody.
const tiles = xstate.Features(1<<xstate.TileCfg | 1<<xstate.TileData)

const (
	threadFlags  = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
	processFlags = uint64(unix.SIGCHLD)
)

// What a thread does between looking whether it is to report.
const (
	spinning = ^uint64(0)
	sleeping = uint64(unix.SYS_FUTEX)
	reading  = ^uint64(1) // SYS_READ is 0
)

// targetConfig is a target: one process, or a first one and its children.
type targetConfig struct {
	processes int    // 1 if 0
	threads   int    // of each process, 1 if 0
	nr        uint64 // spinning, or a system call; sleeping if 0
	newPID    bool   // in a pid namespace of its own
	vfork     bool   // the first process waits for a child of vfork
	churn     bool   // one more thread starts others all the time
	amx       bool   // with the permission for tiles, and with tiles
	init      bool   // all registers in INIT
	leaderEnd bool   // the leader of the last process ends, its other threads go on
	seed      uint64
}

// target is a running one. Its threads are numbered from 0; thread 0 of process p
// is its leader.
type target struct {
	*testtarget.Process // with the blocks of thread i, then of threads that are not reported

	tb  testing.TB
	cfg targetConfig
	cpu *xstate.CPU
	pid int // of the first process

	pipe   *os.File        // what threads read from
	states []*xstate.State // what the threads hold
}

// tid is the number of thread i as its creator sees it.
func (g *target) tid(i int) int { return int(g.Blocks[i].TID) }

func (g *target) tids() []int {
	out := make([]int, len(g.states))
	for i := range out {
		out[i] = g.tid(i)
	}
	return out
}

// pidOf is the process of thread i.
func (g *target) pidOf(i int) int { return g.tid(i / g.cfg.threads * g.cfg.threads) }

func startTarget(tb testing.TB, cfg targetConfig) *target {
	tb.Helper()
	cpu := thisCPU(tb)
	cfg.processes, cfg.threads = max(cfg.processes, 1), max(cfg.threads, 1)
	if cfg.nr == 0 {
		cfg.nr = sleeping
	}
	n := cfg.processes * cfg.threads
	total := n
	if cfg.vfork {
		total++
	}
	if cfg.churn {
		total += 2
	}
	g := &target{tb: tb, cfg: cfg, cpu: cpu}
	var args []string
	mask := components(tb) &^ tiles
	if cfg.amx {
		mask |= tiles
		args = append(args, strconv.Itoa(int(xstate.TileData)))
	}
	var files []*os.File
	if cfg.nr == reading {
		r, w, err := os.Pipe()
		if err != nil {
			tb.Fatal(err)
		}
		defer r.Close()
		g.pipe, files = w, []*os.File{r}
		tb.Cleanup(func() { w.Close() })
	}
	var err error
	g.Process, err = testtarget.Start(testcmd.Build(tb, "./testdata/target", "amd64"), total, func(head *testtarget.Head, blocks []testtarget.Block) {
		if !*cpu.XSave {
			head.FX = 1
		}
		g.lay(blocks, mask)
	}, files, args...)
	if err != nil {
		if cfg.newPID {
			testcmd.Lack(tb, "no pid namespace to be had: "+err.Error())
		}
		tb.Fatalf("target: %v", err)
	}
	g.pid = g.PID
	tb.Cleanup(func() { g.Close() })
	return g
}

// lay fills the blocks.
func (g *target) lay(blocks []testtarget.Block, mask xstate.Features) {
	g.tb.Helper()
	cfg, total := g.cfg, len(blocks)
	n := cfg.processes * cfg.threads
	for i := range n {
		b, p, th := &blocks[i], i/cfg.threads, i%cfg.threads
		b.Flags = processFlags
		switch {
		case th > 0:
			b.Flags = threadFlags
			testtarget.Link(blocks, p*cfg.threads, i)
		case p > 0:
			testtarget.Link(blocks, 0, i)
		case cfg.newPID:
			b.Flags |= unix.CLONE_NEWPID
		}
		b.Mask, b.NR, b.Wait = uint64(mask), cfg.nr, 1
		if cfg.nr == reading {
			b.NR, b.Args[0] = unix.SYS_READ, 3
		}
		if cfg.vfork && p == 0 {
			b.Wait = 0 // its leader does not get so far
		}
		b.Time[1] = uint64(250 * time.Millisecond)
		s := initial(g.cpu)
		if !cfg.init {
			s = pattern(g.cpu, mask, rand.New(rand.NewPCG(cfg.seed, uint64(i))))
		}
		g.states = append(g.states, s)
		g.give(b, s)
	}
	if cfg.leaderEnd {
		blocks[n-cfg.threads].NR = unix.SYS_EXIT
	}
	if cfg.vfork {
		b := &blocks[n]
		b.Flags, b.NR, b.Wait = unix.CLONE_VFORK|unix.CLONE_VM|processFlags, sleeping, 1
		testtarget.Link(blocks, 0, n)
	}
	if cfg.churn {
		b, child := &blocks[total-2], &blocks[total-1]
		b.Flags, b.NR, b.Wait, b.Mode = threadFlags, sleeping, 1, testtarget.ModeChurn
		child.Flags, child.NR, child.Mode = threadFlags, sleeping, testtarget.ModeEnd
		testtarget.Link(blocks, 0, total-2)
		b.First = uint64(total)
	}
}

// give puts a state where a thread loads its registers from.
func (g *target) give(block *testtarget.Block, s *xstate.State) {
	g.tb.Helper()
	b := s.FX[:]
	if *g.cpu.XSave {
		var err error
		if b, err = s.MarshalArea(g.cpu.Layout, int(*g.cpu.XSaveSize)); err != nil {
			g.tb.Fatal(err)
		}
	}
	copy(block.Area[:], b)
}

// ask tells all threads to report, without waiting for them.
func (g *target) ask() { g.Head.Epoch++ }

// wake has sleeping threads look.
func (g *target) wake() {
	switch g.cfg.nr {
	case sleeping:
		unix.Syscall(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&g.Head.Word)), 1, 1<<30)
	case reading:
		g.pipe.Write(make([]byte, len(g.states)))
	}
}

// ended tells whether thread i has ended, with its process or alone.
func (g *target) ended(i int, dead []int) bool {
	return slices.Contains(dead, g.pidOf(i)) || g.cfg.leaderEnd && i == len(g.states)-g.cfg.threads
}

// await waits until all threads that live have done what was asked.
func (g *target) await(dead ...int) {
	g.tb.Helper()
	end := time.Now().Add(patience)
	for i := range g.states {
		skip := g.ended(i, dead)
		for try := 0; !skip && g.Blocks[i].Seen != g.Head.Epoch; try++ {
			if time.Now().After(end) {
				g.tb.Fatalf("thread %d (%d) does not answer", i, g.tid(i))
			}
			if try%64 == 63 && (g.cfg.nr == sleeping || g.cfg.nr == reading) {
				g.wake() // it was not asleep yet, or another one took its byte
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
}

// held gives what the threads reported last.
func (g *target) held() []*xstate.State {
	g.tb.Helper()
	out := make([]*xstate.State, len(g.states))
	for i := range out {
		s, err := parse(g.cpu, g.Blocks[i].Saved[:])
		if err != nil {
			g.tb.Fatalf("thread %d: %v", i, err)
		}
		out[i] = s
	}
	return out
}

// parse reads the area at the begin of b that a thread on cpu has saved.
func parse(cpu *xstate.CPU, b []byte) (*xstate.State, error) {
	if !*cpu.XSave {
		return xstate.ParseFXArea(b[:len(xstate.FXArea{})])
	}
	return xstate.ParseArea(b[:*cpu.XSaveSize], cpu.Layout)
}

// report has every thread save its registers.
func (g *target) report(dead ...int) []*xstate.State {
	g.tb.Helper()
	g.ask()
	g.wake()
	g.await(dead...)
	return g.held()
}

// load has every thread load other registers.
func (g *target) load(states []*xstate.State) {
	g.tb.Helper()
	for i, s := range states {
		g.give(&g.Blocks[i], s)
	}
	g.Head.Op = testtarget.OpLoad
	g.ask()
	g.wake()
	g.await()
	g.Head.Op = 0
}

// expect compares what the threads hold with what they should.
func (g *target) expect(want []*xstate.State, dead ...int) {
	g.tb.Helper()
	g.compare(g.report(dead...), want, dead...)
}

func (g *target) compare(got, want []*xstate.State, dead ...int) {
	g.tb.Helper()
	bad := 0
	for i := range want {
		if g.ended(i, dead) {
			continue
		}
		if d := differ(g.cpu, got[i], want[i]); d != "" {
			if bad++; bad <= 3 {
				g.tb.Errorf("thread %d: %s", i, d)
			}
		}
	}
	if bad > 3 {
		g.tb.Errorf("%d threads in all hold something else", bad)
	}
}

// untraced checks that nobody traces the target.
func (g *target) untraced() {
	g.tb.Helper()
	for i := range g.states {
		st, err := ptrace.ReadStatus(g.pidOf(i), g.tid(i))
		if err != nil {
			g.tb.Error(err)
		} else if st.TracerPID != 0 || st.State == 't' {
			g.tb.Errorf("thread %d: traced by %d, state %c", i, st.TracerPID, st.State)
		}
	}
}

// differ compares registers: got is what a thread on cpu reported. Components that
// the machine lacks have to be INIT in want, and do not count. AMD's CPUs restore
// the x87 pointers only with a pending exception.
func differ(cpu *xstate.CPU, got, want *xstate.State) string {
	g, w := got.FX, want.FX
	if cpu.Vendor != "intel" {
		for _, fx := range []*xstate.FXArea{&g, &w} {
			fx.SetFOP(0)
			fx.SetFIP(0)
			fx.SetFDP(0)
		}
	}
	switch {
	case g.FCW() != w.FCW() || g.FSW() != w.FSW() || g.FTW() != w.FTW():
		return fmt.Sprintf("fcw fsw ftw %#x %#x %#x, want %#x %#x %#x", g.FCW(), g.FSW(), g.FTW(), w.FCW(), w.FSW(), w.FTW())
	case g.FOP() != w.FOP() || g.FIP() != w.FIP() || g.FDP() != w.FDP():
		return fmt.Sprintf("fop fip fdp %#x %#x %#x, want %#x %#x %#x", g.FOP(), g.FIP(), g.FDP(), w.FOP(), w.FIP(), w.FDP())
	case g.MXCSR() != w.MXCSR():
		return fmt.Sprintf("mxcsr %#x, want %#x", g.MXCSR(), w.MXCSR())
	case !bytes.Equal(g.XMMSpace(), w.XMMSpace()):
		return fmt.Sprintf("xmm %x, want %x", g.XMMSpace(), w.XMMSpace())
	}
	for i := range 8 {
		if g.ST(i) != w.ST(i) {
			return fmt.Sprintf("st%d %x, want %x", i, g.ST(i), w.ST(i))
		}
	}
	usable, _ := cpu.Usable()
	for f := range (usable &^ xstate.Legacy).All() {
		if f == xstate.PKRU && want.Status(f) == xstate.Absent {
			continue // keeps its value
		}
		a, b := got.Value(f), want.Value(f)
		if f == xstate.PKRU {
			a, b = a[:4], b[:4]
		}
		if !bytes.Equal(a, b) {
			return fmt.Sprintf("%v %x, want %x", f, a, b)
		}
	}
	return ""
}

// initial is the state of a new thread, in the machine's format.
func initial(cpu *xstate.CPU) *xstate.State {
	format, _ := cpu.Format()
	return xstate.NewState(format)
}

// pattern makes up a state that uses all of the given components.
func pattern(cpu *xstate.CPU, set xstate.Features, r *rand.Rand) *xstate.State {
	s := initial(cpu)
	fx := &s.FX
	fx.SetFCW(0x37f&^0xc00 | uint16(r.IntN(4))<<10)
	fx.SetFTWRaw(0xff)
	fx.SetMXCSR(0x1f80 | uint32(r.IntN(4))<<13 | uint32(r.IntN(64)))
	for i := range 8 {
		binary.LittleEndian.PutUint64(fx.STSpace()[16*i:], r.Uint64()|1<<63)
		binary.LittleEndian.PutUint16(fx.STSpace()[16*i+8:], uint16(r.IntN(0x7fff)))
	}
	for i := range 32 {
		binary.LittleEndian.PutUint64(fx.XMMSpace()[8*i:], r.Uint64())
	}
	for f := range (set &^ xstate.Legacy).All() {
		place, ok := cpu.Layout.Find(f)
		if !ok {
			continue
		}
		d := make([]byte, place.Size)
		switch f {
		case xstate.PKRU: // key 0 stays open, or the thread is lost
			binary.LittleEndian.PutUint32(d, 0x55555554&^(3<<30)|uint32(1+r.IntN(3))<<30)
		case xstate.BNDREGS, xstate.BNDCSR: // have rules of their own
			continue
		case xstate.TileCfg: // palette 1, 8 tiles of 16 rows of 64 bytes
			d[0] = 1
			for i := range 8 {
				d[16+2*i], d[48+i] = 64, 16
			}
		default:
			for i := 0; i < len(d); i += 8 {
				binary.LittleEndian.PutUint64(d[i:], r.Uint64())
			}
		}
		s.SetData(f, d)
		s.BV |= f.Mask()
	}
	return s
}

// others makes up a new state for every thread.
func (g *target) others(seed uint64, set xstate.Features) []*xstate.State {
	out := make([]*xstate.State, len(g.states))
	for i := range out {
		out[i] = pattern(g.cpu, set&components(g.tb), rand.New(rand.NewPCG(seed, uint64(i))))
	}
	return out
}

// everything that a core image has a field for.
var everything = codec.Storable | xstate.Legacy

// images writes a checkpoint of the target with other registers, the tids given by
// number.
func (g *target) images(states []*xstate.State, number func(tid int) int) string {
	g.tb.Helper()
	threads := make([]codec.Thread, len(states))
	for i, s := range states {
		threads[i] = codec.Thread{PID: number(g.pidOf(i)), TID: number(g.tid(i)), Comm: "target", State: s}
	}
	return writeImages(g.tb, threads)
}

func same(tid int) int { return tid }

// restore runs the program in this process.
func restore(args ...string) result {
	var out, errs bytes.Buffer
	code := run(args, strings.NewReader(""), &out, &errs)
	return result{code, out.String(), errs.String()}
}

// mustRestore runs the program and wants an exit code.
func mustRestore(tb testing.TB, want int, args ...string) result {
	tb.Helper()
	r := restore(args...)
	if r.code != want {
		tb.Fatalf("fpurestore %s: exit status %d, want %d: %s", strings.Join(args, " "), r.code, want, r.errors)
	}
	return r
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

// inState tells whether all threads of a process are in one of the states of
// /proc/PID/stat.
func inState(tb testing.TB, pid int, states string) bool {
	tb.Helper()
	tids, err := ptrace.Tasks(pid)
	if err != nil {
		tb.Fatal(err)
	}
	for _, tid := range tids {
		st, err := ptrace.ReadStatus(pid, tid)
		if err != nil || !strings.ContainsRune(states, rune(st.State)) {
			return false
		}
	}
	return true
}

func kill(tb testing.TB, pid int, sig syscall.Signal) {
	tb.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		tb.Fatal(err)
	}
}
