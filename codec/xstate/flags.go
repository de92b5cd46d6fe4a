package xstate

import (
	"iter"
	"slices"
	"strings"
)

// Words of CPU features, by the leaf and register of CPUID that they are read from. The
// first 19 are CRIU's capability array (compel/include/uapi/asm/cpu.h, enum
// cpuid_leafs), the rest is ours: CRIU does not record it.
const (
	Word1EDX        = 0
	Word8000_0001D  = 1
	WordSynthetic   = 3 // set by CRIU without CPUID: rep_good, nopl, cpuid
	Word1ECX        = 4
	Word8000_0001C  = 6
	Word7EBX        = 9
	WordD1EAX       = 10
	Word7ECX        = 11
	WordF1EDX       = 12
	Word8000_0008B  = 13
	Word6EAX        = 14
	Word8000_000AD  = 15
	WordF0EDX       = 16
	Word8000_0007B  = 17
	Word7EDX        = 18
	Word71EAX       = 19
	Word71EDX       = 20
	WordKernel      = 21 // what only the running kernel can tell
	FlagWords       = 22
	CapabilityWords = 19 // the words of CRIU's capability, version 2
	CapabilityV1    = 12 // those of version 1, of CRIU before 3.11
)

// Flag is one CPU feature by the name that Linux gives it.
type Flag struct {
	Name string // as in /proc/cpuinfo
	// Word and Bit place the feature. Words 0 to 18 are CRIU's capability array.
	// CRIU records nothing of words 19 (CPUID 7.1.EAX), 20 (7.1.EDX) and 21 (the
	// kernel's own): of a machine known only by its cpuinfo.img, the absence of
	// such a flag says nothing.
	Word, Bit uint8

	attr flagAttr
	deps string // names, separated by one space
}

type flagAttr uint8

const (
	isa    flagAttr = 1 << iota // see ISA
	ins                         // see INS
	hidden                      // see Hidden
)

// ISA reports whether the feature is an instruction set of user mode: a program
// that uses it dies of SIGILL where it is missing. The others are hints, which
// cost only speed, and what concerns the kernel alone.
func (f Flag) ISA() bool { return f.attr&isa != 0 }

// INS reports whether CRIU compares the feature under --cpu-cap=ins
// (criu/arch/x86/cpu.c, x86_ins_capability_mask).
func (f Flag) INS() bool { return f.attr&ins != 0 }

// Hidden reports that /proc/cpuinfo does not print the flag. Its name is then the
// kernel's macro in lower case.
func (f Flag) Hidden() bool { return f.attr&hidden != 0 }

// InCapability reports whether CRIU's capability words have the flag.
func (f Flag) InCapability() bool { return f.Word < CapabilityWords }

// Depends yields the names of the features that this one directly needs.
func (f Flag) Depends() iter.Seq[string] { return strings.FieldsSeq(f.deps) }

// flags is the table. Names, words and bits: Linux
// arch/x86/include/asm/cpufeatures.h (words by CPUID leaf: the kernel numbers some
// of them otherwise) and CRIU compel/include/uapi/asm/cpu.h. Dependencies: Linux
// arch/x86/kernel/cpu/cpuid-deps.c, and where that table has a gap, what the SDM
// and the APM say about the encoding: what is VEX-, EVEX- or XOP-encoded and uses
// vector registers faults without the AVX state. Class: the exceptions that the
// manuals list; what is a NOP or a slow path where it is missing is no ISA.
var flags = [...]Flag{
	// CPUID 1, EDX
	{"fpu", Word1EDX, 0, isa | ins, ""},
	{"vme", Word1EDX, 1, 0, ""},
	{"de", Word1EDX, 2, 0, ""},
	{"pse", Word1EDX, 3, 0, ""},
	{"tsc", Word1EDX, 4, isa | ins, ""},
	{"msr", Word1EDX, 5, 0, ""},
	{"pae", Word1EDX, 6, 0, ""},
	{"mce", Word1EDX, 7, 0, ""},
	{"cx8", Word1EDX, 8, isa | ins, ""},
	{"apic", Word1EDX, 9, 0, ""},
	{"sep", Word1EDX, 11, ins, ""}, // 32-bit programs reach it through the vDSO, which adapts
	{"mtrr", Word1EDX, 12, 0, ""},
	{"pge", Word1EDX, 13, 0, ""},
	{"mca", Word1EDX, 14, 0, ""},
	{"cmov", Word1EDX, 15, isa | ins, "fxsr"},
	{"pat", Word1EDX, 16, 0, ""},
	{"pse36", Word1EDX, 17, 0, ""},
	{"pn", Word1EDX, 18, 0, ""},
	{"clflush", Word1EDX, 19, isa | ins, ""},
	{"dts", Word1EDX, 21, 0, ""},
	{"acpi", Word1EDX, 22, 0, ""},
	{"mmx", Word1EDX, 23, isa | ins, "fxsr"},
	{"fxsr", Word1EDX, 24, isa | ins, "fpu"},
	{"sse", Word1EDX, 25, isa | ins, "fxsr"},
	{"sse2", Word1EDX, 26, isa | ins, "sse"},
	{"ss", Word1EDX, 27, 0, ""},
	{"ht", Word1EDX, 28, 0, ""},
	{"tm", Word1EDX, 29, 0, ""},
	{"ia64", Word1EDX, 30, 0, ""},
	{"pbe", Word1EDX, 31, 0, ""},

	// CPUID 80000001, EDX
	{"syscall", Word8000_0001D, 11, isa | ins, ""},
	{"mp", Word8000_0001D, 19, 0, ""},
	{"nx", Word8000_0001D, 20, 0, ""},
	{"mmxext", Word8000_0001D, 22, isa | ins, "mmx"},
	{"fxsr_opt", Word8000_0001D, 25, 0, "fxsr"},
	{"pdpe1gb", Word8000_0001D, 26, 0, ""},
	{"rdtscp", Word8000_0001D, 27, isa | ins, ""},
	{"lm", Word8000_0001D, 29, 0, ""},
	{"3dnowext", Word8000_0001D, 30, isa | ins, "3dnow"},
	{"3dnow", Word8000_0001D, 31, isa | ins, "mmx"},

	// Synthetic
	{"rep_good", WordSynthetic, 16, ins, ""},
	{"nopl", WordSynthetic, 20, isa | ins, ""},
	{"cpuid", WordSynthetic, 25, isa, ""},

	// CPUID 1, ECX
	{"pni", Word1ECX, 0, isa | ins, "sse2"}, // SSE3
	{"pclmulqdq", Word1ECX, 1, isa | ins, "sse2"},
	{"dtes64", Word1ECX, 2, 0, ""},
	{"monitor", Word1ECX, 3, ins, ""}, // MWAIT, ring 0 only
	{"ds_cpl", Word1ECX, 4, 0, ""},
	{"vmx", Word1ECX, 5, 0, ""},
	{"smx", Word1ECX, 6, 0, ""},
	{"est", Word1ECX, 7, 0, ""},
	{"tm2", Word1ECX, 8, 0, ""},
	{"ssse3", Word1ECX, 9, isa | ins, "sse2"},
	{"cid", Word1ECX, 10, 0, ""},
	{"sdbg", Word1ECX, 11, 0, ""},
	{"fma", Word1ECX, 12, isa, "avx"},
	{"cx16", Word1ECX, 13, isa | ins, ""},
	{"xtpr", Word1ECX, 14, 0, ""},
	{"pdcm", Word1ECX, 15, 0, ""},
	{"pcid", Word1ECX, 17, 0, ""},
	{"dca", Word1ECX, 18, 0, ""},
	{"sse4_1", Word1ECX, 19, isa | ins, "sse2"},
	{"sse4_2", Word1ECX, 20, isa | ins, "sse2"},
	{"x2apic", Word1ECX, 21, 0, ""},
	{"movbe", Word1ECX, 22, isa | ins, ""},
	{"popcnt", Word1ECX, 23, isa | ins, ""},
	{"tsc_deadline_timer", Word1ECX, 24, 0, ""},
	{"aes", Word1ECX, 25, isa | ins, "sse2"},
	{"xsave", Word1ECX, 26, isa | ins, "fxsr"},
	{"osxsave", Word1ECX, 27, isa | ins | hidden, "xsave"}, // CR4.OSXSAVE as user mode sees it
	{"avx", Word1ECX, 28, isa | ins, "xsave"},
	{"f16c", Word1ECX, 29, isa | ins, "sse2 avx"},
	{"rdrand", Word1ECX, 30, isa | ins, ""},
	{"hypervisor", Word1ECX, 31, 0, ""},

	// CPUID 80000001, ECX
	{"lahf_lm", Word8000_0001C, 0, isa, ""},
	{"cmp_legacy", Word8000_0001C, 1, 0, ""},
	{"svm", Word8000_0001C, 2, 0, ""},
	{"extapic", Word8000_0001C, 3, 0, ""},
	{"cr8_legacy", Word8000_0001C, 4, 0, ""},
	{"abm", Word8000_0001C, 5, isa | ins, ""}, // LZCNT
	{"sse4a", Word8000_0001C, 6, isa | ins, "sse2"},
	{"misalignsse", Word8000_0001C, 7, ins, "sse2"}, // needs MXCSR.MM, which is checked by itself
	{"3dnowprefetch", Word8000_0001C, 8, ins, ""},   // a NOP on 64-bit CPUs that lack it
	{"osvw", Word8000_0001C, 9, 0, ""},
	{"ibs", Word8000_0001C, 10, 0, ""},
	{"xop", Word8000_0001C, 11, isa | ins, "avx"},
	{"skinit", Word8000_0001C, 12, 0, ""},
	{"wdt", Word8000_0001C, 13, 0, ""},
	{"lwp", Word8000_0001C, 15, 0, "xsave"}, // Linux never enables its state
	{"fma4", Word8000_0001C, 16, isa | ins, "avx"},
	{"tce", Word8000_0001C, 17, 0, ""},
	{"nodeid_msr", Word8000_0001C, 19, 0, ""},
	{"tbm", Word8000_0001C, 21, isa | ins, ""}, // XOP-encoded, general registers only
	{"topoext", Word8000_0001C, 22, 0, ""},
	{"perfctr_core", Word8000_0001C, 23, 0, ""},
	{"perfctr_nb", Word8000_0001C, 24, 0, ""},
	{"bpext", Word8000_0001C, 26, 0, ""},
	{"ptsc", Word8000_0001C, 27, 0, ""},
	{"perfctr_llc", Word8000_0001C, 28, 0, ""},
	{"mwaitx", Word8000_0001C, 29, isa, ""}, // MONITORX and MWAITX run in ring 3

	// CPUID 7.0, EBX
	{"fsgsbase", Word7EBX, 0, isa | ins, ""},
	{"tsc_adjust", Word7EBX, 1, 0, ""},
	{"sgx", Word7EBX, 2, 0, ""},
	{"bmi1", Word7EBX, 3, isa | ins, ""}, // VEX-encoded, general registers only
	{"hle", Word7EBX, 4, ins, ""},
	{"avx2", Word7EBX, 5, isa | ins, "avx"},
	{"fdp_excptn_only", Word7EBX, 6, hidden, ""},
	{"smep", Word7EBX, 7, 0, ""},
	{"bmi2", Word7EBX, 8, isa | ins, ""},
	{"erms", Word7EBX, 9, ins, ""},
	{"invpcid", Word7EBX, 10, 0, ""},
	{"rtm", Word7EBX, 11, isa | ins, ""},
	{"cqm", Word7EBX, 12, 0, ""},
	{"zero_fcs_fds", Word7EBX, 13, hidden, ""},
	{"mpx", Word7EBX, 14, ins, "xsave"}, // its instructions are NOPs where it is missing
	{"rdt_a", Word7EBX, 15, 0, ""},
	{"avx512f", Word7EBX, 16, isa | ins, "avx"},
	{"avx512dq", Word7EBX, 17, isa | ins, "avx512f"},
	{"rdseed", Word7EBX, 18, isa | ins, ""},
	{"adx", Word7EBX, 19, isa | ins, ""},
	{"smap", Word7EBX, 20, 0, ""},
	{"avx512ifma", Word7EBX, 21, isa, "avx512f"},
	{"clflushopt", Word7EBX, 23, isa | ins, ""},
	{"clwb", Word7EBX, 24, isa, ""},
	{"intel_pt", Word7EBX, 25, 0, ""},
	{"avx512pf", Word7EBX, 26, isa | ins, "avx512f"},
	{"avx512er", Word7EBX, 27, isa | ins, "avx512f"},
	{"avx512cd", Word7EBX, 28, isa | ins, "avx512f"},
	{"sha_ni", Word7EBX, 29, isa | ins, "sse2"},
	{"avx512bw", Word7EBX, 30, isa | ins, "avx512f"},
	{"avx512vl", Word7EBX, 31, isa | ins, "avx512f"},

	// CPUID D.1, EAX
	{"xsaveopt", WordD1EAX, 0, isa | ins, "xsave"},
	{"xsavec", WordD1EAX, 1, isa | ins, "xsave"},
	{"xgetbv1", WordD1EAX, 2, isa | ins, "xsave"},
	{"xsaves", WordD1EAX, 3, 0, "xsave"}, // ring 0 only
	{"xfd", WordD1EAX, 4, hidden, "xsaves xgetbv1"},

	// CPUID 7.0, ECX
	{"avx512vbmi", Word7ECX, 1, isa | ins, "avx512f"},
	{"umip", Word7ECX, 2, 0, ""},
	{"pku", Word7ECX, 3, isa, "xsave"},
	{"ospke", Word7ECX, 4, 0, "pku"}, // CR4.PKE as user mode sees it
	{"waitpkg", Word7ECX, 5, isa, ""},
	{"avx512_vbmi2", Word7ECX, 6, isa | ins, "avx512vl"},
	{"shstk", Word7ECX, 7, hidden, "xsaves"},
	{"gfni", Word7ECX, 8, isa | ins, "sse2"},
	{"vaes", Word7ECX, 9, isa | ins, "avx"},
	{"vpclmulqdq", Word7ECX, 10, isa | ins, "avx"},
	{"avx512_vnni", Word7ECX, 11, isa | ins, "avx512vl"},
	{"avx512_bitalg", Word7ECX, 12, isa | ins, "avx512vl"},
	{"tme", Word7ECX, 13, ins, ""},
	{"avx512_vpopcntdq", Word7ECX, 14, isa | ins, "avx512f"},
	{"la57", Word7ECX, 16, 0, ""},
	{"rdpid", Word7ECX, 22, isa | ins, ""},
	{"bus_lock_detect", Word7ECX, 24, 0, ""},
	{"cldemote", Word7ECX, 25, 0, ""}, // a NOP where it is missing
	{"movdiri", Word7ECX, 27, isa, ""},
	{"movdir64b", Word7ECX, 28, isa, ""},
	{"enqcmd", Word7ECX, 29, isa, "xsaves"},
	{"sgx_lc", Word7ECX, 30, 0, "sgx"},

	// CPUID F.1, EDX
	{"cqm_occup_llc", WordF1EDX, 0, 0, "cqm_llc"},
	{"cqm_mbm_total", WordF1EDX, 1, 0, "cqm_llc"},
	{"cqm_mbm_local", WordF1EDX, 2, 0, "cqm_llc"},

	// CPUID 80000008, EBX
	{"clzero", Word8000_0008B, 0, isa | ins, ""},
	{"irperf", Word8000_0008B, 1, 0, ""},
	{"xsaveerptr", Word8000_0008B, 2, 0, ""},
	{"invlpgb", Word8000_0008B, 3, hidden, "pcid"},
	{"rdpru", Word8000_0008B, 4, isa, ""},
	{"wbnoinvd", Word8000_0008B, 9, 0, ""},
	{"amd_ibpb", Word8000_0008B, 12, hidden, ""},
	{"amd_ibrs", Word8000_0008B, 14, hidden, ""},
	{"amd_stibp", Word8000_0008B, 15, hidden, ""},
	{"amd_stibp_always_on", Word8000_0008B, 17, hidden, ""},
	{"amd_ibrs_same_mode", Word8000_0008B, 19, hidden, ""},
	{"efer_lmsle_mbz", Word8000_0008B, 20, hidden, ""},
	{"amd_ppin", Word8000_0008B, 23, 0, ""},
	{"amd_ssbd", Word8000_0008B, 24, hidden, ""},
	{"virt_ssbd", Word8000_0008B, 25, 0, ""},
	{"amd_ssb_no", Word8000_0008B, 26, hidden, ""},
	{"cppc", Word8000_0008B, 27, 0, ""},
	{"amd_psfd", Word8000_0008B, 28, hidden, ""},
	{"btc_no", Word8000_0008B, 29, hidden, ""},
	{"amd_ibpb_ret", Word8000_0008B, 30, hidden, ""},
	{"brs", Word8000_0008B, 31, 0, ""},

	// CPUID 6, EAX
	{"dtherm", Word6EAX, 0, 0, ""},
	{"ida", Word6EAX, 1, 0, ""},
	{"arat", Word6EAX, 2, 0, ""},
	{"pln", Word6EAX, 4, 0, ""},
	{"pts", Word6EAX, 6, 0, ""},
	{"hwp", Word6EAX, 7, 0, ""},
	{"hwp_notify", Word6EAX, 8, 0, ""},
	{"hwp_act_window", Word6EAX, 9, 0, ""},
	{"hwp_epp", Word6EAX, 10, 0, ""},
	{"hwp_pkg_req", Word6EAX, 11, 0, ""},
	{"hdc", Word6EAX, 13, hidden, ""}, // CRIU's name: Linux has no macro for it
	{"hwp_highest_perf_change", Word6EAX, 15, hidden, ""},
	{"hfi", Word6EAX, 19, 0, ""},

	// CPUID 8000000A, EDX
	{"npt", Word8000_000AD, 0, 0, ""},
	{"lbrv", Word8000_000AD, 1, 0, ""},
	{"svm_lock", Word8000_000AD, 2, 0, ""},
	{"nrip_save", Word8000_000AD, 3, 0, ""},
	{"tsc_scale", Word8000_000AD, 4, 0, ""},
	{"vmcb_clean", Word8000_000AD, 5, 0, ""},
	{"flushbyasid", Word8000_000AD, 6, 0, ""},
	{"decodeassists", Word8000_000AD, 7, 0, ""},
	{"pausefilter", Word8000_000AD, 10, 0, ""},
	{"pfthreshold", Word8000_000AD, 12, 0, ""},
	{"avic", Word8000_000AD, 13, 0, ""},
	{"v_vmsave_vmload", Word8000_000AD, 15, 0, ""},
	{"vgif", Word8000_000AD, 16, 0, ""},
	{"gmet", Word8000_000AD, 17, hidden, ""},
	{"x2avic", Word8000_000AD, 18, 0, ""},
	{"v_spec_ctrl", Word8000_000AD, 20, 0, ""},
	{"vnmi", Word8000_000AD, 25, 0, ""},
	{"svme_addr_chk", Word8000_000AD, 28, hidden, ""},
	{"bus_lock_threshold", Word8000_000AD, 29, hidden, ""},
	{"idle_hlt", Word8000_000AD, 30, hidden, ""},

	// CPUID F.0, EDX
	{"cqm_llc", WordF0EDX, 1, 0, ""},

	// CPUID 80000007, EBX
	{"overflow_recov", Word8000_0007B, 0, 0, ""},
	{"succor", Word8000_0007B, 1, 0, ""},
	{"smca", Word8000_0007B, 3, 0, ""},

	// CPUID 7.0, EDX
	{"avx512_4vnniw", Word7EDX, 2, isa | ins, "avx512f"},
	{"avx512_4fmaps", Word7EDX, 3, isa | ins, "avx512f"},
	{"fsrm", Word7EDX, 4, 0, ""},
	{"avx512_vp2intersect", Word7EDX, 8, isa, "avx512vl"},
	{"srbds_ctrl", Word7EDX, 9, hidden, ""},
	{"md_clear", Word7EDX, 10, 0, ""},
	{"rtm_always_abort", Word7EDX, 11, hidden, ""},
	{"tsx_force_abort", Word7EDX, 13, hidden, ""},
	{"serialize", Word7EDX, 14, isa, ""},
	{"hybrid_cpu", Word7EDX, 15, hidden, ""},
	{"tsxldtrk", Word7EDX, 16, isa, ""},
	{"pconfig", Word7EDX, 18, 0, ""},
	{"arch_lbr", Word7EDX, 19, 0, ""},
	{"ibt", Word7EDX, 20, 0, ""}, // ENDBR64 is a NOP where it is missing
	{"amx_bf16", Word7EDX, 22, isa, "amx_tile"},
	{"avx512_fp16", Word7EDX, 23, isa, "avx512bw"},
	{"amx_tile", Word7EDX, 24, isa, "xfd"},
	{"amx_int8", Word7EDX, 25, isa, "amx_tile"},
	{"spec_ctrl", Word7EDX, 26, hidden, ""},
	{"intel_stibp", Word7EDX, 27, hidden, ""},
	{"flush_l1d", Word7EDX, 28, 0, ""},
	{"arch_capabilities", Word7EDX, 29, 0, ""},
	{"core_capabilities", Word7EDX, 30, hidden, ""},
	{"spec_ctrl_ssbd", Word7EDX, 31, hidden, "spec_ctrl"},

	// CPUID 7.1, EAX
	{"sha512", Word71EAX, 0, isa | hidden, "avx"},
	{"sm3", Word71EAX, 1, isa | hidden, "avx"},
	{"sm4", Word71EAX, 2, isa | hidden, "avx"},
	{"avx_vnni", Word71EAX, 4, isa, "avx"},
	{"avx512_bf16", Word71EAX, 5, isa, "avx512vl"},
	{"lass", Word71EAX, 6, 0, "smap"},
	{"cmpccxadd", Word71EAX, 7, isa | hidden, ""}, // VEX-encoded, general registers only
	{"arch_perfmon_ext", Word71EAX, 8, hidden, ""},
	{"fzrm", Word71EAX, 10, hidden, ""},
	{"fsrs", Word71EAX, 11, hidden, ""},
	{"fsrc", Word71EAX, 12, hidden, ""},
	{"fred", Word71EAX, 17, 0, "lkgs"},
	{"lkgs", Word71EAX, 18, hidden, ""},
	{"wrmsrns", Word71EAX, 19, hidden, ""},
	{"amx_fp16", Word71EAX, 21, isa | hidden, "amx_tile"},
	{"avx_ifma", Word71EAX, 23, isa | hidden, "avx"},
	{"lam", Word71EAX, 26, 0, ""},
	{"movrs", Word71EAX, 31, isa | hidden, ""},

	// CPUID 7.1, EDX
	{"avx_vnni_int8", Word71EDX, 4, isa | hidden, "avx"},
	{"avx_ne_convert", Word71EDX, 5, isa | hidden, "avx"},
	{"amx_complex", Word71EDX, 8, isa | hidden, "amx_tile"},
	{"avx_vnni_int16", Word71EDX, 10, isa | hidden, "avx"},
	{"prefetchiti", Word71EDX, 14, hidden, ""},
	{"avx10", Word71EDX, 19, isa | hidden, "avx512f"},
	{"apx", Word71EDX, 21, isa | hidden, "xsave"},

	// The kernel's own
	{"user_shstk", WordKernel, 0, 0, "shstk"}, // shadow stacks for user programs: CPU, kernel and boot options
}

// LookupFlag finds a flag by its name.
func LookupFlag(name string) (Flag, bool) {
	for i := range flags {
		if flags[i].Name == name {
			return flags[i], true
		}
	}
	return Flag{}, false
}

// AllFlags yields the table, ordered by word and bit.
func AllFlags() iter.Seq[Flag] {
	return func(yield func(Flag) bool) {
		for i := range flags {
			if !yield(flags[i]) {
				return
			}
		}
	}
}

// FlagsOf returns the sorted names of the features that are set in words, as
// Linux would list them on that CPU: where OSXSAVE is clear, the kernel keeps
// XSAVE to itself and CPUID still advertises AVX and the rest, so xsave and what
// depends on it are left out. Flags of words that are not there are left out too.
// It returns nil if words is empty.
func FlagsOf(words []uint32) []string {
	if len(words) == 0 {
		return nil
	}
	names := make([]string, 0, 128)
	for i := range flags {
		if f := &flags[i]; int(f.Word) < len(words) && words[f.Word]>>f.Bit&1 != 0 {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	if _, ok := slices.BinarySearch(names, "osxsave"); !ok && len(words) > Word1ECX {
		names = WithoutFlags(names, "xsave")
	}
	return names
}

// WithoutFlags returns the sorted list of names without the flags drop and
// without what depends on them.
func WithoutFlags(names []string, drop ...string) []string {
	gone := append(DependentsOf(drop...), drop...)
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(gone, n) })
}

// DependentsOf returns the sorted names of the flags that depend, directly or
// not, on one of the given ones; those themselves are not among them.
func DependentsOf(names ...string) []string {
	var out []string
	under := map[string]bool{} // the names, and what depends on them
	for _, name := range names {
		under[name] = true
	}
	for more := true; more; { // until nothing is added: the table is in no order of dependence
		more = false
		for i := range flags {
			f := &flags[i]
			if f.deps == "" || under[f.Name] {
				continue
			}
			for dep := range f.Depends() {
				if under[dep] {
					out, under[f.Name], more = append(out, f.Name), true, true
					break
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// DependenciesOf returns the sorted names of the flags that the given ones need,
// directly or not; of those themselves, the ones that another one needs.
func DependenciesOf(names ...string) []string {
	var out []string
	for todo := slices.Clone(names); len(todo) > 0; todo = todo[1:] {
		f, _ := LookupFlag(todo[0])
		for dep := range f.Depends() {
			if !slices.Contains(out, dep) {
				out, todo = append(out, dep), append(todo, dep)
			}
		}
	}
	slices.Sort(out)
	return out
}

// UnknownFlags returns the sorted names of the flags of which a description says
// nothing: those that it could not name, but for what it has, sorted, and for what
// needs a flag that it could name and lacks.
func UnknownFlags(has []string, recorded func(Flag) bool) []string {
	var out []string
	for _, f := range flags {
		if !recorded(f) && !contains(has, f.Name) && !ruledOut(f, has, recorded) {
			out = append(out, f.Name)
		}
	}
	slices.Sort(out)
	return out
}

// contains looks into a sorted list.
func contains(names []string, name string) bool {
	_, ok := slices.BinarySearch(names, name)
	return ok
}

// ruledOut reports whether the flag needs one that is known to be missing.
func ruledOut(f Flag, has []string, recorded func(Flag) bool) bool {
	for name := range f.Depends() {
		if contains(has, name) {
			continue
		}
		if dep, _ := LookupFlag(name); recorded(dep) || ruledOut(dep, has, recorded) {
			return true
		}
	}
	return false
}

// InWords returns a test for the flags that the first n of CRIU's words name, and for
// the kernel's own, which the words stand for.
func InWords(n int) func(Flag) bool {
	return func(f Flag) bool { return int(f.Word) < min(n, CapabilityWords) || f.Word == WordKernel }
}

// CapabilityMask returns CRIU's capability words with the bits of the named flags
// set. Names that the words do not have are left out.
func CapabilityMask(names ...string) [CapabilityWords]uint32 {
	return capabilityMask(func(f *Flag) bool { return slices.Contains(names, f.Name) })
}

// INSMask returns the bits that CRIU compares under --cpu-cap=ins: every one that
// is set in the image must be set on the host.
func INSMask() [CapabilityWords]uint32 {
	return capabilityMask(func(f *Flag) bool { return f.INS() })
}

func capabilityMask(want func(*Flag) bool) (words [CapabilityWords]uint32) {
	for i := range flags {
		if f := &flags[i]; f.InCapability() && want(f) {
			words[f.Word] |= 1 << f.Bit
		}
	}
	return words
}
