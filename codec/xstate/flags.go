package xstate

import (
	"iter"
	"slices"
	"strings"
)

// Words of CPU features. The first 19 are CRIU's capability array
// (compel/include/uapi/asm/cpu.h, enum cpuid_leafs), the rest is ours: CRIU does
// not record it.
const (
	word1EDX        = 0
	word8000_0001D  = 1
	wordSynthetic   = 3 // set by CRIU without CPUID: rep_good, nopl, cpuid
	word1ECX        = 4
	word8000_0001C  = 6
	word7EBX        = 9
	wordD1EAX       = 10
	word7ECX        = 11
	wordF1EDX       = 12
	word8000_0008B  = 13
	word6EAX        = 14
	word8000_000AD  = 15
	wordF0EDX       = 16
	word8000_0007B  = 17
	word7EDX        = 18
	word71EAX       = 19
	word71EDX       = 20
	wordKernel      = 21 // what only the running kernel can tell
	numFlagWords    = 22
	CapabilityWords = 19 // the words of CRIU's capability, version 2
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
	{"fpu", word1EDX, 0, isa | ins, ""},
	{"vme", word1EDX, 1, 0, ""},
	{"de", word1EDX, 2, 0, ""},
	{"pse", word1EDX, 3, 0, ""},
	{"tsc", word1EDX, 4, isa | ins, ""},
	{"msr", word1EDX, 5, 0, ""},
	{"pae", word1EDX, 6, 0, ""},
	{"mce", word1EDX, 7, 0, ""},
	{"cx8", word1EDX, 8, isa | ins, ""},
	{"apic", word1EDX, 9, 0, ""},
	{"sep", word1EDX, 11, ins, ""}, // 32-bit programs reach it through the vDSO, which adapts
	{"mtrr", word1EDX, 12, 0, ""},
	{"pge", word1EDX, 13, 0, ""},
	{"mca", word1EDX, 14, 0, ""},
	{"cmov", word1EDX, 15, isa | ins, "fxsr"},
	{"pat", word1EDX, 16, 0, ""},
	{"pse36", word1EDX, 17, 0, ""},
	{"pn", word1EDX, 18, 0, ""},
	{"clflush", word1EDX, 19, isa | ins, ""},
	{"dts", word1EDX, 21, 0, ""},
	{"acpi", word1EDX, 22, 0, ""},
	{"mmx", word1EDX, 23, isa | ins, "fxsr"},
	{"fxsr", word1EDX, 24, isa | ins, "fpu"},
	{"sse", word1EDX, 25, isa | ins, "fxsr"},
	{"sse2", word1EDX, 26, isa | ins, "sse"},
	{"ss", word1EDX, 27, 0, ""},
	{"ht", word1EDX, 28, 0, ""},
	{"tm", word1EDX, 29, 0, ""},
	{"ia64", word1EDX, 30, 0, ""},
	{"pbe", word1EDX, 31, 0, ""},

	// CPUID 80000001, EDX
	{"syscall", word8000_0001D, 11, isa | ins, ""},
	{"mp", word8000_0001D, 19, 0, ""},
	{"nx", word8000_0001D, 20, 0, ""},
	{"mmxext", word8000_0001D, 22, isa | ins, "mmx"},
	{"fxsr_opt", word8000_0001D, 25, 0, "fxsr"},
	{"pdpe1gb", word8000_0001D, 26, 0, ""},
	{"rdtscp", word8000_0001D, 27, isa | ins, ""},
	{"lm", word8000_0001D, 29, 0, ""},
	{"3dnowext", word8000_0001D, 30, isa | ins, "3dnow"},
	{"3dnow", word8000_0001D, 31, isa | ins, "mmx"},

	// Synthetic
	{"rep_good", wordSynthetic, 16, ins, ""},
	{"nopl", wordSynthetic, 20, isa | ins, ""},
	{"cpuid", wordSynthetic, 25, isa, ""},

	// CPUID 1, ECX
	{"pni", word1ECX, 0, isa | ins, "sse2"}, // SSE3
	{"pclmulqdq", word1ECX, 1, isa | ins, "sse2"},
	{"dtes64", word1ECX, 2, 0, ""},
	{"monitor", word1ECX, 3, ins, ""}, // MWAIT, ring 0 only
	{"ds_cpl", word1ECX, 4, 0, ""},
	{"vmx", word1ECX, 5, 0, ""},
	{"smx", word1ECX, 6, 0, ""},
	{"est", word1ECX, 7, 0, ""},
	{"tm2", word1ECX, 8, 0, ""},
	{"ssse3", word1ECX, 9, isa | ins, "sse2"},
	{"cid", word1ECX, 10, 0, ""},
	{"sdbg", word1ECX, 11, 0, ""},
	{"fma", word1ECX, 12, isa, "avx"},
	{"cx16", word1ECX, 13, isa | ins, ""},
	{"xtpr", word1ECX, 14, 0, ""},
	{"pdcm", word1ECX, 15, 0, ""},
	{"pcid", word1ECX, 17, 0, ""},
	{"dca", word1ECX, 18, 0, ""},
	{"sse4_1", word1ECX, 19, isa | ins, "sse2"},
	{"sse4_2", word1ECX, 20, isa | ins, "sse2"},
	{"x2apic", word1ECX, 21, 0, ""},
	{"movbe", word1ECX, 22, isa | ins, ""},
	{"popcnt", word1ECX, 23, isa | ins, ""},
	{"tsc_deadline_timer", word1ECX, 24, 0, ""},
	{"aes", word1ECX, 25, isa | ins, "sse2"},
	{"xsave", word1ECX, 26, isa | ins, "fxsr"},
	{"osxsave", word1ECX, 27, isa | ins | hidden, "xsave"}, // CR4.OSXSAVE as user mode sees it
	{"avx", word1ECX, 28, isa | ins, "xsave"},
	{"f16c", word1ECX, 29, isa | ins, "sse2 avx"},
	{"rdrand", word1ECX, 30, isa | ins, ""},
	{"hypervisor", word1ECX, 31, 0, ""},

	// CPUID 80000001, ECX
	{"lahf_lm", word8000_0001C, 0, isa, ""},
	{"cmp_legacy", word8000_0001C, 1, 0, ""},
	{"svm", word8000_0001C, 2, 0, ""},
	{"extapic", word8000_0001C, 3, 0, ""},
	{"cr8_legacy", word8000_0001C, 4, 0, ""},
	{"abm", word8000_0001C, 5, isa | ins, ""}, // LZCNT
	{"sse4a", word8000_0001C, 6, isa | ins, "sse2"},
	{"misalignsse", word8000_0001C, 7, ins, "sse2"}, // needs MXCSR.MM, which is checked by itself
	{"3dnowprefetch", word8000_0001C, 8, ins, ""},   // a NOP on 64-bit CPUs that lack it
	{"osvw", word8000_0001C, 9, 0, ""},
	{"ibs", word8000_0001C, 10, 0, ""},
	{"xop", word8000_0001C, 11, isa | ins, "avx"},
	{"skinit", word8000_0001C, 12, 0, ""},
	{"wdt", word8000_0001C, 13, 0, ""},
	{"lwp", word8000_0001C, 15, 0, "xsave"}, // Linux never enables its state
	{"fma4", word8000_0001C, 16, isa | ins, "avx"},
	{"tce", word8000_0001C, 17, 0, ""},
	{"nodeid_msr", word8000_0001C, 19, 0, ""},
	{"tbm", word8000_0001C, 21, isa | ins, ""}, // XOP-encoded, general registers only
	{"topoext", word8000_0001C, 22, 0, ""},
	{"perfctr_core", word8000_0001C, 23, 0, ""},
	{"perfctr_nb", word8000_0001C, 24, 0, ""},
	{"bpext", word8000_0001C, 26, 0, ""},
	{"ptsc", word8000_0001C, 27, 0, ""},
	{"perfctr_llc", word8000_0001C, 28, 0, ""},
	{"mwaitx", word8000_0001C, 29, isa, ""}, // MONITORX and MWAITX run in ring 3

	// CPUID 7.0, EBX
	{"fsgsbase", word7EBX, 0, isa | ins, ""},
	{"tsc_adjust", word7EBX, 1, 0, ""},
	{"sgx", word7EBX, 2, 0, ""},
	{"bmi1", word7EBX, 3, isa | ins, ""}, // VEX-encoded, general registers only
	{"hle", word7EBX, 4, ins, ""},
	{"avx2", word7EBX, 5, isa | ins, "avx"},
	{"fdp_excptn_only", word7EBX, 6, hidden, ""},
	{"smep", word7EBX, 7, 0, ""},
	{"bmi2", word7EBX, 8, isa | ins, ""},
	{"erms", word7EBX, 9, ins, ""},
	{"invpcid", word7EBX, 10, 0, ""},
	{"rtm", word7EBX, 11, isa | ins, ""},
	{"cqm", word7EBX, 12, 0, ""},
	{"zero_fcs_fds", word7EBX, 13, hidden, ""},
	{"mpx", word7EBX, 14, ins, "xsave"}, // its instructions are NOPs where it is missing
	{"rdt_a", word7EBX, 15, 0, ""},
	{"avx512f", word7EBX, 16, isa | ins, "avx"},
	{"avx512dq", word7EBX, 17, isa | ins, "avx512f"},
	{"rdseed", word7EBX, 18, isa | ins, ""},
	{"adx", word7EBX, 19, isa | ins, ""},
	{"smap", word7EBX, 20, 0, ""},
	{"avx512ifma", word7EBX, 21, isa, "avx512f"},
	{"clflushopt", word7EBX, 23, isa | ins, ""},
	{"clwb", word7EBX, 24, isa, ""},
	{"intel_pt", word7EBX, 25, 0, ""},
	{"avx512pf", word7EBX, 26, isa | ins, "avx512f"},
	{"avx512er", word7EBX, 27, isa | ins, "avx512f"},
	{"avx512cd", word7EBX, 28, isa | ins, "avx512f"},
	{"sha_ni", word7EBX, 29, isa | ins, "sse2"},
	{"avx512bw", word7EBX, 30, isa | ins, "avx512f"},
	{"avx512vl", word7EBX, 31, isa | ins, "avx512f"},

	// CPUID D.1, EAX
	{"xsaveopt", wordD1EAX, 0, isa | ins, "xsave"},
	{"xsavec", wordD1EAX, 1, isa | ins, "xsave"},
	{"xgetbv1", wordD1EAX, 2, isa | ins, "xsave"},
	{"xsaves", wordD1EAX, 3, 0, "xsave"}, // ring 0 only
	{"xfd", wordD1EAX, 4, hidden, "xsaves xgetbv1"},

	// CPUID 7.0, ECX
	{"avx512vbmi", word7ECX, 1, isa | ins, "avx512f"},
	{"umip", word7ECX, 2, 0, ""},
	{"pku", word7ECX, 3, isa, "xsave"},
	{"ospke", word7ECX, 4, 0, "pku"}, // CR4.PKE as user mode sees it
	{"waitpkg", word7ECX, 5, isa, ""},
	{"avx512_vbmi2", word7ECX, 6, isa | ins, "avx512vl"},
	{"shstk", word7ECX, 7, hidden, "xsaves"},
	{"gfni", word7ECX, 8, isa | ins, "sse2"},
	{"vaes", word7ECX, 9, isa | ins, "avx"},
	{"vpclmulqdq", word7ECX, 10, isa | ins, "avx"},
	{"avx512_vnni", word7ECX, 11, isa | ins, "avx512vl"},
	{"avx512_bitalg", word7ECX, 12, isa | ins, "avx512vl"},
	{"tme", word7ECX, 13, ins, ""},
	{"avx512_vpopcntdq", word7ECX, 14, isa | ins, "avx512f"},
	{"la57", word7ECX, 16, 0, ""},
	{"rdpid", word7ECX, 22, isa | ins, ""},
	{"bus_lock_detect", word7ECX, 24, 0, ""},
	{"cldemote", word7ECX, 25, 0, ""}, // a NOP where it is missing
	{"movdiri", word7ECX, 27, isa, ""},
	{"movdir64b", word7ECX, 28, isa, ""},
	{"enqcmd", word7ECX, 29, isa, "xsaves"},
	{"sgx_lc", word7ECX, 30, 0, "sgx"},

	// CPUID F.1, EDX
	{"cqm_occup_llc", wordF1EDX, 0, 0, "cqm_llc"},
	{"cqm_mbm_total", wordF1EDX, 1, 0, "cqm_llc"},
	{"cqm_mbm_local", wordF1EDX, 2, 0, "cqm_llc"},

	// CPUID 80000008, EBX
	{"clzero", word8000_0008B, 0, isa | ins, ""},
	{"irperf", word8000_0008B, 1, 0, ""},
	{"xsaveerptr", word8000_0008B, 2, 0, ""},
	{"invlpgb", word8000_0008B, 3, hidden, "pcid"},
	{"rdpru", word8000_0008B, 4, isa, ""},
	{"wbnoinvd", word8000_0008B, 9, 0, ""},
	{"amd_ibpb", word8000_0008B, 12, hidden, ""},
	{"amd_ibrs", word8000_0008B, 14, hidden, ""},
	{"amd_stibp", word8000_0008B, 15, hidden, ""},
	{"amd_stibp_always_on", word8000_0008B, 17, hidden, ""},
	{"amd_ibrs_same_mode", word8000_0008B, 19, hidden, ""},
	{"efer_lmsle_mbz", word8000_0008B, 20, hidden, ""},
	{"amd_ppin", word8000_0008B, 23, 0, ""},
	{"amd_ssbd", word8000_0008B, 24, hidden, ""},
	{"virt_ssbd", word8000_0008B, 25, 0, ""},
	{"amd_ssb_no", word8000_0008B, 26, hidden, ""},
	{"cppc", word8000_0008B, 27, 0, ""},
	{"amd_psfd", word8000_0008B, 28, hidden, ""},
	{"btc_no", word8000_0008B, 29, hidden, ""},
	{"amd_ibpb_ret", word8000_0008B, 30, hidden, ""},
	{"brs", word8000_0008B, 31, 0, ""},

	// CPUID 6, EAX
	{"dtherm", word6EAX, 0, 0, ""},
	{"ida", word6EAX, 1, 0, ""},
	{"arat", word6EAX, 2, 0, ""},
	{"pln", word6EAX, 4, 0, ""},
	{"pts", word6EAX, 6, 0, ""},
	{"hwp", word6EAX, 7, 0, ""},
	{"hwp_notify", word6EAX, 8, 0, ""},
	{"hwp_act_window", word6EAX, 9, 0, ""},
	{"hwp_epp", word6EAX, 10, 0, ""},
	{"hwp_pkg_req", word6EAX, 11, 0, ""},
	{"hdc", word6EAX, 13, hidden, ""}, // CRIU's name: Linux has no macro for it
	{"hwp_highest_perf_change", word6EAX, 15, hidden, ""},
	{"hfi", word6EAX, 19, 0, ""},

	// CPUID 8000000A, EDX
	{"npt", word8000_000AD, 0, 0, ""},
	{"lbrv", word8000_000AD, 1, 0, ""},
	{"svm_lock", word8000_000AD, 2, 0, ""},
	{"nrip_save", word8000_000AD, 3, 0, ""},
	{"tsc_scale", word8000_000AD, 4, 0, ""},
	{"vmcb_clean", word8000_000AD, 5, 0, ""},
	{"flushbyasid", word8000_000AD, 6, 0, ""},
	{"decodeassists", word8000_000AD, 7, 0, ""},
	{"pausefilter", word8000_000AD, 10, 0, ""},
	{"pfthreshold", word8000_000AD, 12, 0, ""},
	{"avic", word8000_000AD, 13, 0, ""},
	{"v_vmsave_vmload", word8000_000AD, 15, 0, ""},
	{"vgif", word8000_000AD, 16, 0, ""},
	{"gmet", word8000_000AD, 17, hidden, ""},
	{"x2avic", word8000_000AD, 18, 0, ""},
	{"v_spec_ctrl", word8000_000AD, 20, 0, ""},
	{"vnmi", word8000_000AD, 25, 0, ""},
	{"svme_addr_chk", word8000_000AD, 28, hidden, ""},
	{"bus_lock_threshold", word8000_000AD, 29, hidden, ""},
	{"idle_hlt", word8000_000AD, 30, hidden, ""},

	// CPUID F.0, EDX
	{"cqm_llc", wordF0EDX, 1, 0, ""},

	// CPUID 80000007, EBX
	{"overflow_recov", word8000_0007B, 0, 0, ""},
	{"succor", word8000_0007B, 1, 0, ""},
	{"smca", word8000_0007B, 3, 0, ""},

	// CPUID 7.0, EDX
	{"avx512_4vnniw", word7EDX, 2, isa | ins, "avx512f"},
	{"avx512_4fmaps", word7EDX, 3, isa | ins, "avx512f"},
	{"fsrm", word7EDX, 4, 0, ""},
	{"avx512_vp2intersect", word7EDX, 8, isa, "avx512vl"},
	{"srbds_ctrl", word7EDX, 9, hidden, ""},
	{"md_clear", word7EDX, 10, 0, ""},
	{"rtm_always_abort", word7EDX, 11, hidden, ""},
	{"tsx_force_abort", word7EDX, 13, hidden, ""},
	{"serialize", word7EDX, 14, isa, ""},
	{"hybrid_cpu", word7EDX, 15, hidden, ""},
	{"tsxldtrk", word7EDX, 16, isa, ""},
	{"pconfig", word7EDX, 18, 0, ""},
	{"arch_lbr", word7EDX, 19, 0, ""},
	{"ibt", word7EDX, 20, 0, ""}, // ENDBR64 is a NOP where it is missing
	{"amx_bf16", word7EDX, 22, isa, "amx_tile"},
	{"avx512_fp16", word7EDX, 23, isa, "avx512bw"},
	{"amx_tile", word7EDX, 24, isa, "xfd"},
	{"amx_int8", word7EDX, 25, isa, "amx_tile"},
	{"spec_ctrl", word7EDX, 26, hidden, ""},
	{"intel_stibp", word7EDX, 27, hidden, ""},
	{"flush_l1d", word7EDX, 28, 0, ""},
	{"arch_capabilities", word7EDX, 29, 0, ""},
	{"core_capabilities", word7EDX, 30, hidden, ""},
	{"spec_ctrl_ssbd", word7EDX, 31, hidden, "spec_ctrl"},

	// CPUID 7.1, EAX
	{"sha512", word71EAX, 0, isa | hidden, "avx"},
	{"sm3", word71EAX, 1, isa | hidden, "avx"},
	{"sm4", word71EAX, 2, isa | hidden, "avx"},
	{"avx_vnni", word71EAX, 4, isa, "avx"},
	{"avx512_bf16", word71EAX, 5, isa, "avx512vl"},
	{"lass", word71EAX, 6, 0, "smap"},
	{"cmpccxadd", word71EAX, 7, isa | hidden, ""}, // VEX-encoded, general registers only
	{"arch_perfmon_ext", word71EAX, 8, hidden, ""},
	{"fzrm", word71EAX, 10, hidden, ""},
	{"fsrs", word71EAX, 11, hidden, ""},
	{"fsrc", word71EAX, 12, hidden, ""},
	{"fred", word71EAX, 17, 0, "lkgs"},
	{"lkgs", word71EAX, 18, hidden, ""},
	{"wrmsrns", word71EAX, 19, hidden, ""},
	{"amx_fp16", word71EAX, 21, isa | hidden, "amx_tile"},
	{"avx_ifma", word71EAX, 23, isa | hidden, "avx"},
	{"lam", word71EAX, 26, 0, ""},
	{"movrs", word71EAX, 31, isa | hidden, ""},

	// CPUID 7.1, EDX
	{"avx_vnni_int8", word71EDX, 4, isa | hidden, "avx"},
	{"avx_ne_convert", word71EDX, 5, isa | hidden, "avx"},
	{"amx_complex", word71EDX, 8, isa | hidden, "amx_tile"},
	{"avx_vnni_int16", word71EDX, 10, isa | hidden, "avx"},
	{"prefetchiti", word71EDX, 14, hidden, ""},
	{"avx10", word71EDX, 19, isa | hidden, "avx512f"},
	{"apx", word71EDX, 21, isa | hidden, "xsave"},

	// The kernel's own
	{"user_shstk", wordKernel, 0, 0, "shstk"}, // shadow stacks for user programs: CPU, kernel and boot options
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
	if _, ok := slices.BinarySearch(names, "osxsave"); !ok && len(words) > word1ECX {
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
	for more := true; more; { // until nothing is added: the table is in no order of dependence
		more = false
		for i := range flags {
			f := &flags[i]
			if f.deps == "" || slices.Contains(names, f.Name) || slices.Contains(out, f.Name) {
				continue
			}
			for dep := range f.Depends() {
				if slices.Contains(names, dep) || slices.Contains(out, dep) {
					out, more = append(out, f.Name), true
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
	return func(f Flag) bool { return int(f.Word) < min(n, CapabilityWords) || f.Word == wordKernel }
}

// UnknownWords returns the words of the CPU's capability, one bit for each, whose zeros
// say nothing: some of their flags are unknown.
func (c *CPU) UnknownWords() (set uint32) {
	for i, w := range CapabilityMask(c.UnknownFlags...) {
		if w != 0 {
			set |= 1 << i
		}
	}
	return set
}

// contained names the features whose instructions all run on a CPU that has the
// features on the right, though CPUID does not say so there: AMD's name for the
// integer part of SSE (APM vol. 3, appendix D), SYSCALL, which Intel's CPUID reports in
// 64-bit mode only (SDM vol. 2, CPUID 80000001H), what every CPU in 64-bit mode has
// and older kernels do not print, and AVX10.1, which adds nothing to AVX-512.
var contained = map[string]string{
	"mmxext":  "sse",
	"syscall": "lm",
	"cpuid":   "lm",
	"nopl":    "lm",
	"avx10": "avx512cd avx512bw avx512dq avx512vl avx512ifma avx512vbmi avx512_vbmi2 avx512_vnni avx512_bf16 " +
		"avx512_fp16 avx512_bitalg avx512_vpopcntdq vaes vpclmulqdq gfni",
}

// Executes reports whether no instruction of the feature faults on the CPU, be it for
// another one that has them all. known is as for [CPU.HasFlag].
func (c *CPU) Executes(name string) (yes, known bool) {
	if yes, known = c.HasFlag(name); yes || c == nil || contained[name] == "" {
		return yes, known
	}
	for other := range strings.FieldsSeq(contained[name]) {
		if has, _ := c.HasFlag(other); !has {
			return false, known
		}
	}
	return true, true
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

// Flag returns the name of the CPU feature that the component belongs to: without
// that flag, it is not there, even if CPUID leaf 0xD lists it. It is empty where
// no flag is known.
func (f Feature) Flag() string {
	if c := f.Component(); c != nil {
		return c.flag
	}
	return ""
}
