// Package cpuid learns what a CPU can hold of FPU state and turns it into an
// [xstate.CPU], which is all that the rest of the toolkit ever sees of a machine.
//
// # Sources
//
// [Host] asks the CPU and the kernel that the program runs on. [ParseDump] reads
// what programs such as cpuid(1) printed of the CPUID instruction on another machine.
// [ParseProfile] reads a profile in JSON, which [NewProfile] made somewhere else.
// [ByName] knows the CPUs that compilers name, and [Modify] makes virtual ones of them.
// [CPU] builds the model from any [Querier], so that a recorded CPU is as good as a
// live one. What a record does not have is unknown, not absent.
//
// # What counts as usable
//
// CPUID says what the hardware has; XCR0, which the kernel sets and XGETBV reads,
// says which components a process can use. A kernel booted with noxsave or
// clearcpuid= leaves CPUID as it is, so both are asked, and /proc/cpuinfo, which
// has the kernel's word on each feature.
//
// # Hostile input
//
// Dumps and profiles come from other machines. Their size is bounded before they
// are parsed, and what contradicts itself is refused with the place that does.
package cpuid
