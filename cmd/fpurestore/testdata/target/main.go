// Target is what the tests of fpurestore restore into: processes of nothing but
// assembly, whose threads hold the registers that the test gives them and report,
// by an XSAVE or FXSAVE instruction of their own, those that they hold. This program starts
// them, waits for the end of its standard input, and takes them along.
//
// The test and the threads talk through a file that both have mapped: block 0 is
// everybody's, each further one a thread's. ../../target_linux_amd64_test.go has
// the same offsets.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const (
	blockSize  = 1 << 16
	areaOffset = 4096
	syncWord   = 16 // in block 0: what futex threads sleep on

	offReady = 16
	offArgs  = 40
	offGlob  = 0
	offChild = 104
	offNext  = 112
	offFlags = 120
	offFirst = 152 // what the test says: number of the first child, of the next one
	offSib   = 160
	offMode  = 144
	offStack = 168
	offNR    = 32
	offWait  = 176 // this program waits until the thread is ready
	offTime  = 192
)

func spawn(b unsafe.Pointer) int

// The main goroutine stays on the main thread: the processes die with it.
func init() { runtime.LockOSThread() }

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "target:", err)
	os.Exit(1)
}

func main() {
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
	mem, err := syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		fatal(err)
	}
	base := unsafe.Pointer(&mem[0])
	get := func(block, off int) uint64 { return binary.LittleEndian.Uint64(mem[block*blockSize+off:]) }
	put := func(block, off int, v uint64) { binary.LittleEndian.PutUint64(mem[block*blockSize+off:], v) }
	addr := func(block uint64) uint64 {
		if block == 0 {
			return 0
		}
		return uint64(uintptr(base)) + block*blockSize
	}
	n := len(mem) / blockSize
	for i := 1; i < n; i++ {
		put(i, offGlob, uint64(uintptr(base)))
		put(i, offChild, addr(get(i, offFirst)))
		put(i, offNext, addr(get(i, offSib)))
		put(i, offStack, addr(uint64(i))+blockSize)
		switch nr := get(i, offNR); nr {
		case syscall.SYS_NANOSLEEP:
			put(i, offArgs, addr(uint64(i))+offTime)
		case syscall.SYS_FUTEX: // FUTEX_WAIT for a word that is 0, and stays it
			put(i, offArgs, uint64(uintptr(base))+syncWord)
		case syscall.SYS_READ:
			put(i, offArgs+8, addr(uint64(i))+offTime)
			put(i, offArgs+16, 1)
		case syscall.SYS_EPOLL_WAIT:
			fd, err := syscall.EpollCreate1(0)
			if err != nil {
				fatal(err)
			}
			put(i, offArgs, uint64(fd))
			put(i, offArgs+8, addr(uint64(i))+offTime)
			put(i, offArgs+16, 1)
			put(i, offArgs+24, ^uint64(0))
		}
	}
	// The processes inherit the mask: Go's handlers would be lost in them.
	mask, old := ^uint64(0), uint64(0)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 2, uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	pid := spawn(unsafe.Add(base, blockSize))
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 2, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	if pid < 0 {
		fatal(syscall.Errno(-pid))
	}
	for i := 1; i < n; i++ {
		for get(i, offWait) != 0 && get(i, offReady) == 0 {
			time.Sleep(200 * time.Microsecond)
		}
	}
	fmt.Println(pid)
	io.Copy(io.Discard, os.Stdin)
}
