// Target is what the tests of package ptrace stop: a process with threads that
// hold known register contents and report by themselves what they hold. The
// threads are made by clone in assembly and never run Go code, so that nothing
// but the tests touches their registers.
//
// It reads commands from standard input and answers each with one JSON line.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/fpuimg/fpuimg/codec/cpuid"
)

// block is one thread's; the assembly knows the offsets up to lastRet.
type block struct {
	epoch   *uint64    // 0: the thread saves its registers when this changes
	stop    *uint64    // 8: ends the thread when not 0
	seen    uint64     // 16: the epoch of saved
	done    uint64     // 24: the thread is about to end
	ready   uint64     // 32: the registers hold area
	mask    uint64     // 40: components to load and to save
	nr      uint64     // 48: system call to make again and again; ^0: spin and yield, ^1: spin
	args    [6]uintptr // 56
	lastRet int64      // 104: result of the last system call that returned
	returns uint64     // 112: how many have returned
	ctid    uint32     // 120: thread id while the thread lives

	word uint32    // futex
	fx   uint64    // 128: FXSAVE and FXRSTOR, not XSAVE and XRSTOR
	pipe [2]int32  // for read
	time [2]uint64 // for nanosleep
	tid  int
	buf  [16]byte
}

const (
	areaOffset  = 4096
	savedOffset = areaOffset + 16384
	stackTop    = savedOffset + 16384 + 32768
)

func (b *block) at(offset uintptr) *[16384]byte {
	return (*[16384]byte)(unsafe.Add(unsafe.Pointer(b), offset))
}

func newBlock() *block {
	mem, err := syscall.Mmap(-1, 0, stackTop, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		fatal(err)
	}
	b := (*block)(unsafe.Pointer(&mem[0]))
	b.epoch, b.stop, b.nr = &epoch, &stop, ^uint64(0)
	return b
}

var epoch, stop uint64

// counts is how often each signal was delivered to the threads' handler.
var counts [65]uint64

func handler()
func restorer()
func handlerPC() uintptr
func restorerPC() uintptr

// cloneThread starts a thread in body(b).
func cloneThread(flags uintptr, stack unsafe.Pointer, ctid *uint32, b *block) int

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "target:", err)
	os.Exit(1)
}

// fill makes up register contents. The padding and the gaps are filled too.
func fill(area *[16384]byte, size int, mask, bv uint64, r *rand.Rand) {
	for i := 0; i < size; i += 8 {
		binary.LittleEndian.PutUint64(area[i:], r.Uint64())
	}
	clear(area[:32])
	binary.LittleEndian.PutUint16(area[0:], 0x37f&^0xf00|uint16(r.IntN(4))<<10|0x200) // rounding, precision
	area[4] = 0xff                                                                    // all eight in use
	binary.LittleEndian.PutUint32(area[24:], 0x1f80|uint32(r.IntN(4))<<13|uint32(r.IntN(64)))
	binary.LittleEndian.PutUint32(area[28:], 0xffff)
	for i := range 8 {
		area[32+16*i+7] |= 0x80 // normal numbers have the integer bit
	}
	if mask == 0 {
		return
	}
	if bv&6 == 0 {
		// XRSTOR would load MXCSR, for the mask has SSE, but it is not in use.
		binary.LittleEndian.PutUint32(area[24:], 0x1f80)
	}
	clear(area[512:576])
	binary.LittleEndian.PutUint64(area[512:], bv&mask)
	if mask&(1<<9) != 0 {
		pkru, _ := cpuid.Native{}.CPUID(0xd, 9)
		binary.LittleEndian.PutUint32(area[pkru.EBX:], 0x55555554&^(3<<30)|uint32(r.IntN(4))<<30)
	}
}

// The main goroutine stays on the main thread, so that it can end it.
func init() { runtime.LockOSThread() }

func main() {
	n := flag.Int("n", 1, "threads")
	mode := flag.String("mode", "spin", "what the threads do: spin, yield, nanosleep, futex, read, epoll")
	seed := flag.Uint64("seed", 1, "of the register contents")
	churn := flag.Int("churn", 0, "create threads all the time, at most so many at once")
	churnFlags := flag.Uint64("churnflags", 0, "clone flags and exit signal of those; 0 for a thread")
	vfork := flag.Bool("vfork", false, "have a thread wait in vfork")
	hogs := flag.Int("hogs", 0, "so many more threads want the CPU all the time")
	leader := flag.Bool("leaderexit", false, "end the leader, leaving the threads")
	plain := flag.Bool("full", false, "every thread has every component in use")
	fx := flag.Bool("fx", false, "use x87 and SSE only, as on a machine without XSAVE")
	flag.Parse()

	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(8) // assembly that waits in the kernel keeps one
	run := func() { serve(*n, *mode, *seed, *churn, *churnFlags, *hogs, *vfork, *plain, *fx) }
	if *leader {
		go func() {
			run()
			os.Exit(0)
		}()
		syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
	}
	run()
}

func serve(n int, mode string, seed uint64, churn int, churnFlags uint64, hogs int, vfork, full, fx bool) {
	runtime.LockOSThread()
	// What the threads inherit: only signals 40 and 41, which Go never uses.
	for _, sig := range []uintptr{40, 41} {
		act := [4]uintptr{handlerPC(), 0x04000000, restorerPC(), 0} // SA_RESTORER
		if _, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0); e != 0 {
			fatal(e)
		}
	}
	mask, oldMask := ^uint64(1<<39|1<<40), uint64(0)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 2, uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&oldMask)), 8, 0, 0)

	xcr0, size := uint64(0), uint32(512)
	if r, _ := (cpuid.Native{}).CPUID(1, 0); r.ECX&(1<<27) == 0 { // OSXSAVE
		fx = true
	}
	if !fx {
		enabled, _ := cpuid.Native{}.XCR0()
		xcr0 = uint64(enabled) & 0x2e7 // not the tiles, which need a permission, nor MPX, which changes what branches do
		r, _ := cpuid.Native{}.CPUID(0xd, 0)
		size = r.EBX
	}
	bvs := []uint64{^uint64(0), ^uint64(0), 7, 3, 1, 2, ^uint64(1)}
	const threadFlags = 0x50f00 // VM FS FILES SIGHAND THREAD SYSVSEM
	var blocks []*block
	for i := range n {
		b := newBlock()
		b.mask = xcr0
		if fx {
			b.fx = 1
		}
		bv := bvs[i%len(bvs)]
		if full {
			bv = bvs[0]
		}
		fill(b.at(areaOffset), int(size), xcr0, bv, rand.New(rand.NewPCG(seed, uint64(i))))
		switch mode {
		case "spin":
		case "yield":
			b.nr = syscall.SYS_SCHED_YIELD
		case "nanosleep":
			b.time[0] = 100000
			b.nr, b.args[0] = syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&b.time))
		case "futex":
			b.nr, b.args[0] = syscall.SYS_FUTEX, uintptr(unsafe.Pointer(&b.word))
		case "read":
			var p [2]int
			if err := syscall.Pipe(p[:]); err != nil {
				fatal(err)
			}
			b.pipe = [2]int32{int32(p[0]), int32(p[1])}
			b.nr, b.args = syscall.SYS_READ, [6]uintptr{uintptr(p[0]), uintptr(unsafe.Pointer(&b.buf)), 1}
		case "epoll":
			fd, err := syscall.EpollCreate1(0)
			if err != nil {
				fatal(err)
			}
			b.nr, b.args = syscall.SYS_EPOLL_WAIT, [6]uintptr{uintptr(fd), uintptr(unsafe.Pointer(&b.buf)), 1, ^uintptr(0)}
		default:
			fatal(fmt.Errorf("mode %q", mode))
		}
		b.tid = cloneThread(threadFlags, unsafe.Add(unsafe.Pointer(b), stackTop), &b.ctid, b)
		if b.tid < 0 {
			fatal(syscall.Errno(-b.tid))
		}
		if mode == "spin" {
			// SCHED_IDLE, or a thousand of them would leave this program, and
			// the tests, next to no time.
			var param int32
			if _, _, e := syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, uintptr(b.tid), 5, uintptr(unsafe.Pointer(&param))); e != 0 {
				fatal(e)
			}
		}
		blocks = append(blocks, b)
	}
	for _, b := range blocks {
		for atomic.LoadUint64(&b.ready) == 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
	var churned atomic.Uint64
	if churn > 0 {
		flags := uintptr(threadFlags)
		if churnFlags != 0 {
			flags = uintptr(churnFlags)
		}
		go func() {
			runtime.LockOSThread()
			m := ^uint64(0)
			syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 2, uintptr(unsafe.Pointer(&m)), 0, 8, 0, 0)
			var gone uint64 = 1
			pool := make([]*block, churn)
			for i := range pool {
				pool[i] = newBlock()
				pool[i].stop = &gone // ends at once
			}
			for {
				for _, b := range pool {
					if atomic.LoadUint32(&b.ctid) == 0 {
						if cloneThread(flags, unsafe.Add(unsafe.Pointer(b), stackTop), &b.ctid, b) > 0 {
							churned.Add(1)
						}
					}
				}
				if churnFlags != 0 { // processes
					for {
						if pid, err := syscall.Wait4(-1, nil, 0x40000000|syscall.WNOHANG, nil); pid <= 0 || err != nil {
							break
						}
					}
				}
				syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
			}
		}()
	}
	greedy := make([]*block, hogs)
	for i := range greedy {
		b := newBlock()
		b.nr, b.args[0] = syscall.SYS_FUTEX, uintptr(unsafe.Pointer(&b.word))
		cloneThread(threadFlags, unsafe.Add(unsafe.Pointer(b), stackTop), &b.ctid, b)
		greedy[i] = b
	}
	for _, b := range greedy { // not before all of them are there
		b.nr = ^uint64(1)
		atomic.StoreUint32(&b.word, 1)
		syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(&b.word)), 1, 1, 0, 0, 0) // FUTEX_WAKE
	}
	if vfork {
		b := newBlock()
		b.time[0] = 30 // should nobody end it
		b.nr, b.args[0] = syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&b.time))
		b.stop = &b.returns
		go func() {
			runtime.LockOSThread()
			cloneThread(0x4100|uintptr(syscall.SIGCHLD), unsafe.Add(unsafe.Pointer(b), stackTop), &b.ctid, b) // VFORK VM
		}()
		for atomic.LoadUint32(&b.ctid) == 0 {
			time.Sleep(time.Millisecond)
		}
		vforked = int(b.ctid)
	}
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 2, uintptr(unsafe.Pointer(&oldMask)), 0, 8, 0, 0)

	out := json.NewEncoder(os.Stdout)
	in := bufio.NewScanner(os.Stdin)
	reply(out, blocks, int(size), &churned)
	for in.Scan() {
		switch cmd := strings.Fields(in.Text()); cmd[0] {
		case "look": // wakes nobody
			reply(out, blocks, int(size), &churned)
		case "snap": // what the threads hold
			want := atomic.AddUint64(&epoch, 1)
			for _, b := range blocks {
				if mode != "spin" && mode != "yield" {
					syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(os.Getpid()), uintptr(b.tid), 41)
				}
			}
			for _, b := range blocks {
				for try := 1; atomic.LoadUint64(&b.seen) != want; try++ {
					if try%200 == 0 && mode != "spin" && mode != "yield" {
						// It was not asleep yet when the signal came.
						syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(os.Getpid()), uintptr(b.tid), 41)
					}
					time.Sleep(20 * time.Microsecond)
				}
			}
			reply(out, blocks, int(size), &churned)
		case "feed": // lets read return
			for _, b := range blocks {
				syscall.Write(int(b.pipe[1]), []byte{1})
			}
			reply(out, blocks, int(size), &churned)
		default:
			fatal(fmt.Errorf("command %q", cmd))
		}
	}
}

var vforked int

// state is one answer.
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

func reply(out *json.Encoder, blocks []*block, size int, churned *atomic.Uint64) {
	s := state{PID: os.Getpid(), Size: size, Churned: churned.Load(), VFork: vforked, Threads: []threadState{}}
	for i := range counts {
		s.Counts[i] = atomic.LoadUint64(&counts[i])
	}
	for _, b := range blocks {
		s.Mask = b.mask
		s.Threads = append(s.Threads, threadState{b.tid, b.at(areaOffset)[:size], b.at(savedOffset)[:size],
			atomic.LoadUint64(&b.returns), atomic.LoadInt64(&b.lastRet)})
	}
	if err := out.Encode(s); err != nil {
		fatal(err)
	}
}
