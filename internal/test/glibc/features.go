// Package testglibc builds a small checkpoint of a process of glibc, with its program and
// its loader, of which any part can be made another: what fpuimg looks for in memory.
package testglibc

import "encoding/binary"

// Layout is one of struct cpu_features by the releases of glibc
// (sysdeps/x86/include/cpu-features.h, of old sysdeps/x86/cpu-features.h), in bytes from
// its start; -1 is what the release lacks.
type Layout struct {
	Glibc                          string
	Kind, Family, Model, Stepping  int
	Array, Entries, Size           int // of CPUID's answers
	ISA, Save, Full, Cache, Usable int
	Length                         int
}

// Layouts are all that are known.
var Layouts = []Layout{
	{"2.26", 0, 56, 60, -1, 8, 3, 16, -1, -1, -1, 72, -1, 96},
	{"2.28", 0, 56, 60, -1, 8, 3, 16, -1, 64, 72, 80, -1, 104},
	{"2.31", 104, 112, 116, 120, 0, 6, 16, -1, 128, 136, 144, 96, 168},
	{"2.32", 0, 8, 12, 16, 20, 7, 32, -1, 248, 256, 264, -1, 304},
	{"2.33", 0, 8, 12, 16, 20, 8, 32, 280, 288, 296, 304, -1, 432},
	{"2.36", 0, 8, 12, 16, 20, 9, 32, 312, 320, 328, 336, -1, 480},
	{"2.38", 0, 8, 12, 16, 20, 9, 32, 312, 320, 328, 336, -1, 488},
	{"2.39", 0, 8, 12, 16, 20, 10, 32, 344, 352, 360, 368, -1, 520},
	{"2.44", 0, 8, 12, 16, 20, 10, 32, 344, 352, 360, 368, -1, 528},
}

// Record is what glibc records on a CPU with AVX-512.
func (l *Layout) Record(kind, signature, family, model, stepping uint32) []byte {
	b := make([]byte, l.Length)
	put := func(at int, v uint32) {
		if at >= 0 {
			binary.LittleEndian.PutUint32(b[at:], v)
		}
	}
	put(l.Kind, kind)
	put(l.Kind+4, 0x1b)
	put(l.Family, family)
	put(l.Model, model)
	put(l.Stepping, stepping)
	for e, regs := range [][4]uint32{{signature, 0x10800, 0x7ffafbff, 0xbfebfbff}, {1, 0xf1bf07a9, 0x18c05fce, 0x9c100520}, {0, 0, 0x121, 0x2c100800}} {
		for j, v := range regs {
			put(l.Array+e*l.Size+4*j, v)
			if l.Size == 32 {
				put(l.Array+e*l.Size+16+4*j, v)
			}
		}
	}
	put(l.Usable, 1<<0|1<<1) // AVX and AVX2
	put(l.ISA, 0xf)
	put(l.Save, 2496)
	put(l.Full, 2816)
	for j := range 3 {
		put(l.Cache+8*j, 0x8000<<j)
	}
	return b
}

// Frame writes a signal frame to a stack as the kernel lays it (struct rt_sigframe,
// arch/x86/include/asm/sigframe.h): at is where the address of the restorer stands, with
// the ucontext behind, area that of the XSAVE area above, of size bytes.
func Frame(stack []byte, sp uint64, at, area int, restorer, ip uint64, size int) {
	put := func(at int, v uint64) { binary.LittleEndian.PutUint64(stack[at:], v) }
	put(at, restorer)
	put(at+8+40+128, ip)
	put(at+8+40+184, sp+uint64(area))
	put(area+464, 0x46505853)
	put(area+472, 0xe7)
	put(area+480, uint64(size))
	put(area+512, 0x7) // XSTATE_BV
	put(area+size, 0x46505845)
}
