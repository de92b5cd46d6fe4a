package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Node Feature Discovery (NFD) labels the nodes of a Kubernetes cluster with what CPUID
// says of them, by the names of github.com/klauspost/cpuid. A label says what the CPU
// has, not what the kernel lets programs use.

// nfdLabel is what its labels of CPU features begin with.
const nfdLabel = "feature.node.kubernetes.io/cpu-cpuid."

// ownLabel is what the labels of the local feature file begin with, which
// profile --format=nfd prints: what NFD has no labels for.
const ownLabel = "feature.node.kubernetes.io/fpuimg-"

// nfdNames are the names that are not Linux's in capitals without underscores.
var nfdNames = map[string]string{
	"3dnow": "AMD3DNOW", "3dnowext": "AMD3DNOWEXT", "abm": "LZCNT", "aes": "AESNI", "apx": "APX_F", "cx8": "CMPXCHG8", "fma": "FMA3", "fpu": "X87",
	"lahf_lm": "LAHF", "pclmulqdq": "CLMUL", "pni": "SSE3", "sha_ni": "SHA", "sm3": "SM3_X86", "sm4": "SM4_X86", "sse4_1": "SSE4", "sse4_2": "SSE42",
	"user_shstk": "CETSS",
}

// nfdLacks are the instruction sets that have no name there.
var nfdLacks = []string{"avx512_4fmaps", "avx512_4vnniw", "clflush", "clflushopt", "clwb", "cpuid", "fsgsbase", "movrs", "mwaitx", "nopl", "pku", "rdpid", "tsc"}

// nfdHides are the names that it gives no labels unless its configuration says so
// (source/cpu/cpu.go, newDefaultConfig); a NodeFeatureRule sees them.
var nfdHides = []string{"BMI1", "BMI2", "CLMUL", "CMOV", "CX16", "ERMS", "F16C", "HTT", "LZCNT", "MMX", "MMXEXT", "NX", "POPCNT", "RDRAND", "RDSEED", "RDTSCP",
	"SGX", "SGXLC", "SSE", "SSE2", "SSE3", "SSE4", "SSE42", "SSSE3"}

// nfdName is the name of a flag; "" if it has none.
func nfdName(flag string) string {
	if name, ok := nfdNames[flag]; ok {
		return name
	}
	if slices.Contains(nfdLacks, flag) {
		return ""
	}
	return strings.ToUpper(strings.ReplaceAll(flag, "_", ""))
}

// componentLabel is the name of a component in a label.
func componentLabel(f xstate.Feature) string {
	return "xcr0." + strings.Map(func(r rune) rune {
		if r == ' ' {
			return '-'
		}
		return r
	}, f.String())
}

// nfdLasts is for how many of the intervals at which a feature file is written anew its
// labels last: they go when nobody writes it any more.
const nfdLasts = 3

// nfdExpiry is the line of a feature file after which what follows holds until then (NFD,
// source/local/local.go).
func nfdExpiry(t time.Time) []byte {
	return []byte("# +expiry-time=" + t.UTC().Format(time.RFC3339) + "\n")
}

// nfdFile writes the local feature file of a machine: a line of name and value for each
// label (NFD, features.d).
func nfdFile(c *xstate.CPU) []byte {
	w := &bytes.Buffer{}
	fmt.Fprintf(w, "fpuimg-level=%d\n", c.Level())
	if c.XSaveSize != nil {
		fmt.Fprintf(w, "fpuimg-xsave-size=%d\n", *c.XSaveSize)
	}
	if c.MXCSRMask != nil {
		fmt.Fprintf(w, "fpuimg-mxcsr-mask=%#x\n", *c.MXCSRMask)
	}
	if set, known := c.Usable(); known {
		fmt.Fprintf(w, "fpuimg-xcr0=%#x\n", uint64(set))
		for f := range set.All() {
			fmt.Fprintf(w, "fpuimg-%s=true\n", componentLabel(f))
		}
	}
	every, _ := xstate.ByName(xstate.LevelNames()[0])
	for _, flag := range nfdLacks {
		if has, _ := c.Executes(flag); has && !slices.Contains(every.Flags, flag) {
			fmt.Fprintf(w, "fpuimg-cpuid.%s=true\n", flag)
		}
	}
	return w.Bytes()
}
