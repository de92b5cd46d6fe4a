// Target32 is a 32-bit process with one thread that holds known register
// contents and reports what it holds, as the 64-bit target does.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	testtarget "github.com/fpuimg/fpuimg/internal/test/target"
)

// block: the assembly knows the offsets.
type block struct {
	epoch, seen, ready uint32 // 0, 4, 8
	mask               uint32 // 12; 0 without XSAVE
}

const areaOffset, savedOffset = 4096, 4096 + 16384

// hold loads the registers and keeps them for ever.
func hold(b *block)
func cpuid(leaf, subleaf uint32) (eax, ebx, ecx, edx uint32)
func xgetbv() uint32

func main() {
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(4)
	mem, err := syscall.Mmap(-1, 0, savedOffset+16384, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		fmt.Fprintln(os.Stderr, "target32:", err)
		os.Exit(1)
	}
	b := (*block)(unsafe.Pointer(&mem[0]))
	size := uint32(512)
	if _, _, ecx, _ := cpuid(1, 0); ecx&(1<<27) != 0 { // OSXSAVE
		b.mask = xgetbv() & 7
		_, size, _, _ = cpuid(0xd, 0)
	}
	area, saved := mem[areaOffset:savedOffset], mem[savedOffset:]
	binary.LittleEndian.PutUint16(area, 0x37f)
	binary.LittleEndian.PutUint32(area[24:], 0x1f80)
	for i := range 8 {
		for j := range 16 {
			area[160+16*i+j] = byte(0x10*i + j)
			area[576+16*i+j] = byte(0x80 ^ (0x10*i + j))
		}
	}
	binary.LittleEndian.PutUint64(area[512:], uint64(b.mask))
	tid := make(chan int)
	go func() {
		runtime.LockOSThread()
		// Go interrupts what runs for long, and the end of a signal handler brings
		// back the registers from before it.
		mask := ^uint64(0)
		syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 2, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
		tid <- syscall.Gettid()
		hold(b)
	}()
	id := <-tid
	for atomic.LoadUint32(&b.ready) == 0 {
		time.Sleep(time.Millisecond)
	}
	out := json.NewEncoder(os.Stdout)
	in := bufio.NewScanner(os.Stdin)
	for {
		out.Encode(testtarget.State32{PID: os.Getpid(), TID: id, Mask: uint64(b.mask), Given: area[:size], Held: saved[:size]})
		if !in.Scan() {
			return
		}
		for want := atomic.AddUint32(&b.epoch, 1); atomic.LoadUint32(&b.seen) != want; {
			time.Sleep(time.Millisecond)
		}
	}
}
