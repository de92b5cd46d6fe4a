package cpuid

import (
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// tunable are the flags that glibc.cpu.hwcaps can hide, with glibc's names where they are
// not Linux's in capitals (sysdeps/x86/cpu-tunables.c).
var tunable = [...][2]string{
	{"ssse3"}, {"sse4_1"}, {"sse4_2"}, {"popcnt"}, {"abm", "LZCNT"}, {"movbe"}, {"bmi1"}, {"bmi2"}, {"erms"}, {"fsrm"}, {"rtm"},
	{"avx"}, {"avx2"}, {"fma"}, {"fma4"},
	{"avx512f"}, {"avx512cd"}, {"avx512er"}, {"avx512pf"}, {"avx512vl"}, {"avx512bw"}, {"avx512dq"},
	{"xsave"}, {"xsavec"},
}

// Tunables returns the environment with which a program starts so that glibc, from 2.33
// on, chooses nothing that the CPU is not known to have: GLIBC_TUNABLES, and where XSAVEC
// is hidden LD_BIND_NOW, because lazy binding would save registers with XSAVE into a
// buffer of the size that the first machine needs.
func Tunables(c *xstate.CPU) []string {
	var hide []string
	for _, t := range tunable {
		if has, _ := c.HasFlag(t[0]); has || t[0] == "xsave" && c.XSave != nil && *c.XSave {
			continue
		}
		name := t[1]
		if name == "" {
			name = strings.ToUpper(t[0])
		}
		hide = append(hide, "-"+name)
		if t[0] == "avx2" { // memmove goes by it alone
			hide = append(hide, "-AVX_Fast_Unaligned_Load")
		}
	}
	if hide == nil {
		return []string{"GLIBC_TUNABLES="}
	}
	env := []string{"GLIBC_TUNABLES=glibc.cpu.hwcaps=" + strings.Join(hide, ",")}
	if slices.Contains(hide, "-XSAVEC") && !slices.Contains(hide, "-XSAVE") {
		env = append(env, "LD_BIND_NOW=1")
	}
	return env
}
