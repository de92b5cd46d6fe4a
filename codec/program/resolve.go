package program

import (
	"debug/elf"

	"github.com/fpuimg/fpuimg/codec/cpuid"
)

// resolve runs an IFUNC resolver of the process as the dynamic loader does
// (glibc, sysdeps/x86/libc-ifunc.h and elf/dl-irel.h), and returns the function that it
// chooses. load reads memory, [process.read] with whatever is to be other than it is;
// answer is CPUID.
//
// The error tells of an instruction that is not one of a resolver, of memory that is not
// there, or of a leaf of CPUID that is not known.
func (p *process) resolve(resolver uint64, load func([]byte, uint64) (int, error), answer func(leaf, subleaf uint32) (cpuid.Regs, bool)) (uint64, error) {
	e := emulator{load: load, cpuid: answer}
	return e.run(resolver)
}

// resolver returns the address of the resolver that filled an IRELATIVE slot; 0 for
// others.
func (s *slot) irelative() uint64 {
	if s.kind != elf.R_X86_64_IRELATIVE {
		return 0
	}
	return s.module.bias + s.addend
}
