package testtarget

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// BlockSize is that of each block of the file.
const BlockSize = 1 << 16

// Head is what block 0 holds: what all threads look at.
type Head struct {
	Epoch uint64 // threads follow when it changes: they save their registers, or do Op
	Op    uint64
	Word  uint64 // what futex threads sleep on
	FX    uint64 // not 0: FXSAVE and FXRSTOR, not XSAVE and XRSTOR
	// Counts is how often each signal was handled: 40 and 41, which Go never uses. The
	// others are blocked.
	Counts [65]uint64
}

// OpLoad has threads load their registers from Area instead of saving them.
const OpLoad = 1

// Control is the begin of a thread's block.
type Control struct {
	Head    uintptr // block 0
	Seen    uint64  // the last epoch that the thread has followed
	Ready   uint64
	Mask    uint64     // components to load and to save; 0: leave the registers alone
	NR      uint64     // system call to make again and again, or Yield, Spin or Hog
	Args    [6]uintptr // of it
	Result  int64      // of the last one
	Returns uint64     // how many have returned, or how often children were started
	Child   uintptr    // the first block of the threads and processes to start
	Next    uintptr    // the next one of those that this block's creator starts
	Flags   uint64     // of clone, for this block
	CTID    uint32     // thread id while the thread lives
	_       uint32
	TID     uint32 // as its creator sees it
	_       uint32
	Mode    uint64
	Stack   uintptr

	// What the test says and Main makes addresses of: numbers of blocks, 0 for none.
	First, Sibling uint64
	Wait           uint64    // not 0: Main waits until the thread is ready
	Time           [2]uint64 // for nanosleep
}

// What NR may be besides a system call.
const (
	Yield = ^uint64(0) // yield the CPU
	Spin  = ^uint64(1) // that now and then, and mostly none
	Hog   = ^uint64(2) // none, ever
)

// The values of Mode.
const (
	ModeChurn = 1 // start the children again and again
	ModeEnd   = 2 // end at once
)

// Block is a thread's.
type Block struct {
	Control
	_     [4096 - unsafe.Sizeof(Control{})]byte
	Area  [16384]byte // registers to load
	Saved [16384]byte // registers that the thread held
	_     [BlockSize - 4096 - 2*16384]byte
}

// Map maps the file of n blocks behind block 0.
func Map(f *os.File, n int) (*Head, []Block, error) {
	mem, err := syscall.Mmap(int(f.Fd()), 0, (1+n)*BlockSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, nil, err
	}
	head := unsafe.Pointer(&mem[0])
	return (*Head)(head), unsafe.Slice((*Block)(unsafe.Add(head, BlockSize)), n), nil
}

// Unmap ends what Map began.
func Unmap(head *Head, blocks []Block) error {
	return syscall.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(head)), (1+len(blocks))*BlockSize))
}

// The addresses of the handler of the signals, and of what it returns to.
func handlerPC() uintptr
func restorerPC() uintptr

// spawn starts the process or thread of a block; its number is negative for an error.
func spawn(b *Block) int

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "target:", err)
	os.Exit(1)
}

// Main is the program. It runs on the main thread: the processes die with that.
func Main() {
	f, err := os.OpenFile(os.Args[1], os.O_RDWR, 0)
	if err != nil {
		fatal(err)
	}
	if len(os.Args) > 2 {
		n, err := strconv.Atoi(os.Args[2])
		if err != nil {
			fatal(err)
		}
		// ARCH_REQ_XCOMP_PERM, which the processes inherit.
		if _, _, e := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, 0x1023, uintptr(n), 0); e != 0 {
			fatal(e)
		}
	}
	info, err := f.Stat()
	if err != nil {
		fatal(err)
	}
	head, blocks, err := Map(f, int(info.Size())/BlockSize-1)
	if err != nil {
		fatal(err)
	}
	addr := func(n uint64) uintptr {
		if n == 0 {
			return 0
		}
		return uintptr(unsafe.Pointer(&blocks[n-1]))
	}
	for i := range blocks {
		b := &blocks[i]
		b.Head = uintptr(unsafe.Pointer(head))
		b.Child, b.Next = addr(b.First), addr(b.Sibling)
		b.Stack = uintptr(unsafe.Pointer(b)) + BlockSize
		time := uintptr(unsafe.Pointer(&b.Time))
		switch b.NR {
		case syscall.SYS_NANOSLEEP:
			b.Args[0] = time
		case syscall.SYS_FUTEX: // FUTEX_WAIT for a word that is 0, and stays it
			b.Args[0] = uintptr(unsafe.Pointer(&head.Word))
		case syscall.SYS_READ:
			b.Args[1], b.Args[2] = time, 1
		case syscall.SYS_EPOLL_WAIT:
			fd, err := syscall.EpollCreate1(0)
			if err != nil {
				fatal(err)
			}
			b.Args = [6]uintptr{uintptr(fd), time, 1, ^uintptr(0)}
		}
	}
	// The processes inherit the mask and the handlers: Go's would be lost in them.
	for _, sig := range []uintptr{40, 41} {
		act := [4]uintptr{handlerPC(), 0x04000000, restorerPC(), 0} // SA_RESTORER
		if _, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0); e != 0 {
			fatal(e)
		}
	}
	mask, old := ^uint64(1<<39|1<<40), uint64(0)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 2, uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	pid := spawn(&blocks[0])
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 2, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	if pid < 0 {
		fatal(syscall.Errno(-pid))
	}
	for i := range blocks {
		for b := &blocks[i]; b.Wait != 0 && b.Ready == 0; {
			time.Sleep(200 * time.Microsecond)
		}
	}
	fmt.Println(pid)
	io.Copy(io.Discard, os.Stdin)
}
