package isa

import "iter"

// Feature is a CPU feature.
type Feature uint16

// Features, in the order of [Feature.String]'s names.
const (
	none Feature = iota
	SSE3
	SSSE3
	SSE41
	SSE42
	SSE4A
	AES
	PCLMULQDQ
	SHA
	GFNI
	AVX
	F16C
	FMA
	FMA4
	XOP
	AVX2
	VAES
	VPCLMULQDQ
	AVXVNNI
	AVXVNNIInt8
	AVXVNNIInt16
	AVXIFMA
	AVXNEConvert
	SHA512
	SM3
	SM4
	AVX512F
	AVX512CD
	AVX512BW
	AVX512DQ
	AVX512VL
	AVX512ER
	AVX512PF
	AVX512IFMA
	AVX512VBMI
	AVX512VBMI2
	AVX512VNNI
	AVX512BITALG
	AVX512VPOPCNTDQ
	AVX5124VNNIW
	AVX5124FMAPS
	AVX512VP2INTERSECT
	AVX512BF16
	AVX512FP16
	AMXTile
	AMXBF16
	AMXInt8
	AMXFP16
	AMXComplex
	APX
	Amd3DNow
	Amd3DNowExt
	LAHF
	CX16
	POPCNT
	LZCNT
	BMI1
	BMI2
	TBM
	ADX
	MOVBE
	RDRAND
	RDSEED
	RTM
	XSAVE
	XSAVEOPT
	XSAVEC
	XSAVES
	FSGSBASE
	PKU
	SHSTK
	RDTSCP
	RDPID
	RDPRU
	CLFLUSHOPT
	CLWB
	CLZERO
	MONITORX
	WAITPKG
	MOVDIRI
	MOVDIR64B
	ENQCMD
	SERIALIZE
	TSXLDTRK
	CMPCCXADD
	LWP
	// Of the kernel alone, or of no use without it.
	SGX
	VMX
	SVM
	SMX
	INVPCID
	numFeatures
)

// names are Linux's, as /proc/cpuinfo has them; of flags that it does not print, the
// kernel's macros in lower case.
var names = [numFeatures]string{"",
	"pni", "ssse3", "sse4_1", "sse4_2", "sse4a", "aes", "pclmulqdq", "sha_ni", "gfni",
	"avx", "f16c", "fma", "fma4", "xop", "avx2", "vaes", "vpclmulqdq",
	"avx_vnni", "avx_vnni_int8", "avx_vnni_int16", "avx_ifma", "avx_ne_convert", "sha512", "sm3", "sm4",
	"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "avx512er", "avx512pf",
	"avx512ifma", "avx512vbmi", "avx512_vbmi2", "avx512_vnni", "avx512_bitalg", "avx512_vpopcntdq",
	"avx512_4vnniw", "avx512_4fmaps", "avx512_vp2intersect", "avx512_bf16", "avx512_fp16",
	"amx_tile", "amx_bf16", "amx_int8", "amx_fp16", "amx_complex", "apx",
	"3dnow", "3dnowext", "lahf_lm", "cx16", "popcnt", "abm", "bmi1", "bmi2", "tbm", "adx", "movbe",
	"rdrand", "rdseed", "rtm", "xsave", "xsaveopt", "xsavec", "xsaves", "fsgsbase", "pku", "shstk",
	"rdtscp", "rdpid", "rdpru", "clflushopt", "clwb", "clzero", "mwaitx", "waitpkg",
	"movdiri", "movdir64b", "enqcmd", "serialize", "tsxldtrk", "cmpccxadd", "lwp",
	"sgx", "vmx", "svm", "smx", "invpcid",
}

// String returns the name that Linux gives the feature.
func (f Feature) String() string { return names[f] }

// Features is a set of features.
type Features [2]uint64

// With returns the set with f in it.
func (s Features) With(f Feature) Features {
	if f != none {
		s[f>>6] |= 1 << (f & 63)
	}
	return s
}

// Has reports whether f is in the set.
func (s Features) Has(f Feature) bool { return s[f>>6]>>(f&63)&1 != 0 }

// And returns the intersection.
func (s Features) And(t Features) Features { return Features{s[0] & t[0], s[1] & t[1]} }

// AllFeatures yields every feature.
func AllFeatures() iter.Seq[Feature] {
	return func(yield func(Feature) bool) {
		for f := none + 1; f < numFeatures; f++ {
			if !yield(f) {
				return
			}
		}
	}
}

// AVX512 are the features whose instructions are all of AVX-512.
var AVX512 = func() (s Features) {
	for f := AVX512F; f <= AVX512FP16; f++ {
		s = s.With(f)
	}
	return s
}()

// Vector are the features of instructions on vectors.
var Vector = func() (s Features) {
	for f := SSE3; f <= AMXComplex; f++ {
		s = s.With(f)
	}
	return s
}()

// Without returns the set without some features.
func (s Features) Without(list ...Feature) Features {
	for _, f := range list {
		s[f>>6] &^= 1 << (f & 63)
	}
	return s
}

// Or returns the union.
func (s Features) Or(t Features) Features { return Features{s[0] | t[0], s[1] | t[1]} }

// All yields the features of the set.
func (s Features) All() iter.Seq[Feature] {
	return func(yield func(Feature) bool) {
		for f := none + 1; f < numFeatures; f++ {
			if s.Has(f) && !yield(f) {
				return
			}
		}
	}
}
