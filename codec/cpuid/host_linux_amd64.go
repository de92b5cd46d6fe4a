package cpuid

import (
	"bufio"
	"io"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// cpuid executes CPUID.
func cpuid(leaf, sub uint32) (eax, ebx, ecx, edx uint32)

// xgetbv reads XCR0. It faults if CPUID does not report OSXSAVE.
func xgetbv() (lo, hi uint32)

// fxsave stores the legacy area; a must lie on a 16-byte boundary.
func fxsave(a *xstate.FXArea)

// Native asks the CPU that it runs on.
type Native struct{}

// CPUID implements [Querier].
func (Native) CPUID(leaf, sub uint32) (r Regs, known bool) {
	r.EAX, r.EBX, r.ECX, r.EDX = cpuid(leaf, sub)
	return r, true
}

// archGetXCompSupp asks for the components that a process can be given
// (arch/x86/include/uapi/asm/prctl.h), since Linux 5.16.
const archGetXCompSupp = 0x1021

// XCR0 implements [Querier]. A component that needs a permission (AMX tiles)
// counts only if the kernel has the system call that grants it.
func (Native) XCR0() (set xstate.Features, known bool) {
	lo, hi := xgetbv()
	set = xstate.Features(hi)<<32 | xstate.Features(lo)
	var supported uint64
	_, _, errno := unix.RawSyscall(unix.SYS_ARCH_PRCTL, archGetXCompSupp, uintptr(unsafe.Pointer(&supported)), 0)
	for f := range (set & xstate.Known).All() {
		if f.Component().Dynamic && (errno != 0 || !xstate.Features(supported).Has(f)) {
			set &^= f.Mask()
		}
	}
	return set, true
}

// mxcsrMask reads MXCSR_MASK (SDM vol. 1, 11.6.6).
func mxcsrMask() uint32 {
	var buf [2]xstate.FXArea
	at := -uintptr(unsafe.Pointer(&buf)) & 15
	a := (*xstate.FXArea)(unsafe.Add(unsafe.Pointer(&buf), at))
	fxsave(a)
	if m := a.MXCSRMask(); m != 0 {
		return m
	}
	return xstate.DefaultMXCSRMask
}

// Host returns the machine that the program runs on. Its flags are the kernel's:
// one that /proc/cpuinfo lacks is not there, whatever CPUID says, because the
// kernel has cleared it; only what /proc/cpuinfo never prints is taken from CPUID.
// Without /proc, CPUID and XCR0 decide alone.
//
// The error is an [*UnsupportedError] except on linux/amd64, where there is none.
func Host() (*xstate.CPU, error) {
	c := CPU(Native{})
	if *c.FXSave {
		c.MXCSRMask = new(mxcsrMask())
	}
	if printed, ok := cpuinfoFlags(); ok {
		c.Flags = kernelFlags(c.Flags, printed)
	}
	c.Name, _ = os.Hostname()
	return c, nil
}

// cpuinfoFlags returns the flags of the first CPU in /proc/cpuinfo.
func cpuinfoFlags() ([]string, bool) {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return nil, false
	}
	defer f.Close()
	return parseCPUInfo(f)
}

func parseCPUInfo(r io.Reader) ([]string, bool) {
	for sc := bufio.NewScanner(r); sc.Scan(); {
		if key, value, ok := strings.Cut(sc.Text(), ":"); ok && strings.TrimSpace(key) == "flags" {
			return strings.Fields(value), true
		}
	}
	return nil, false
}

// kernelFlags merges the flags by CPUID, which are sorted, with those that the kernel prints.
func kernelFlags(flags, printed []string) []string {
	prints := make(map[string]bool, len(printed))
	for _, name := range printed {
		prints[name] = true
	}
	// What hangs off a cleared flag is gone too, where the kernel says nothing.
	cleared := func(name string) bool {
		f, _ := xstate.LookupFlag(name)
		return !f.Hidden() && !prints[name]
	}
	out := make([]string, 0, len(flags))
	for f := range xstate.AllFlags() {
		has := prints[f.Name]
		if f.Hidden() {
			_, has = slices.BinarySearch(flags, f.Name)
			has = has && !slices.ContainsFunc(xstate.DependenciesOf(f.Name), cleared)
		}
		if has {
			out = append(out, f.Name)
		}
	}
	slices.Sort(out)
	return out
}
