package program

import (
	"debug/elf"

	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/facts"
)

// choice runs an IFUNC resolver of the process as the dynamic loader did (glibc,
// sysdeps/x86/libc-ifunc.h and elf/dl-irel.h), by what that recorded of the CPU, and
// returns the function that it chooses. One that asks CPUID itself gives an error.
func (p *process) choice(resolver uint64) (uint64, error) {
	e := emulator{load: p.read, fetch: p.read, decoded: p.decoded, cpuid: func(leaf, subleaf uint32) (cpuid.Regs, bool) { return cpuid.Regs{}, false }}
	return e.run(resolver)
}

// irelative returns the address of the resolver that filled an IRELATIVE slot; 0 for
// others.
func (s *slot) irelative() uint64 {
	if s.kind != elf.R_X86_64_IRELATIVE {
		return 0
	}
	return s.module.bias + s.addend
}

// maxResolvers bounds how many are run. Processes have some hundred.
const maxResolvers = 1 << 12

// confirm tells of slots that hold something else than their resolvers choose, for the
// CPU that the loader recorded. Resolvers that cannot be run confirm nothing.
func (p *process) confirm(slots []slot) {
	chosen := map[uint64]uint64{}
	for _, s := range slots {
		resolver := s.irelative()
		if m := p.moduleAt(s.value); resolver == 0 && m != nil {
			resolver = m.resolver(s.names[0], s.wants)
		}
		if resolver == 0 {
			continue
		}
		want, known := chosen[resolver]
		if !known && len(chosen) < maxResolvers {
			want, _ = p.choice(resolver)
			chosen[resolver] = want
		}
		if want != 0 && want != s.value {
			p.unknown(facts.Code, s.module.fact, "its slot %v holds %#x, and its resolver chooses %#x", &s, s.value, want)
		}
	}
}

// resolver returns the address of what chooses an IFUNC of a name and version; 0 if none
// does, or more than one.
func (m *module) resolver(name string, want version) (addr uint64) {
	for at := range m.ifuncs().choosing(name, want) {
		if addr != 0 && addr != m.bias+at {
			return 0
		}
		addr = m.bias + at
	}
	return addr
}
