package program

import (
	"encoding/binary"

	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/memory"
	"github.com/fpuimg/fpuimg/codec/xstate"
)

// Vector is OpenSSL's record of the CPU, OPENSSL_ia32cap_P (crypto/x86_64cpuid.pl and
// crypto/cpuid.c), of 32-bit words: CPUID 1 EDX and ECX, 7.0 EBX and ECX; from 3.5 on
// then 7.0 EDX, 7.1 EAX and more.
type Vector struct {
	Address uint64
	words   []uint32
}

// vectorWord is what a word of the vector is made from.
var vectorWords = [...]struct {
	entry, register int
	// own are bits to which OpenSSL gives a meaning of its own: they stay.
	own uint32
	// off are bits that it may have cleared: of what the kernel has not enabled, and of
	// AVX-512 where it costs more than it gives.
	off uint32
}{
	{0, 3, 1<<10 | 1<<20 | 1<<28 | 1<<30, 0},
	{0, 2, 1 << 11, 1<<12 | 1<<28 | 1<<29},
	{1, 1, 0, 1<<5 | 1<<16 | 1<<17 | 1<<19 | 1<<21 | 1<<28 | 1<<30 | 1<<31},
	{1, 2, 0, 0},
	{1, 3, 0, 0},
	{6, 0, 0, 0},
}

// Vector finds the vector of an object, which is OpenSSL's libcrypto, by what glibc has
// recorded of the CPU. why tells why there is none.
func (p *Process) Vector(o *facts.Object, f *Features) (v *Vector, why string) {
	var want [len(vectorWords)]uint32
	for i, w := range vectorWords {
		if w.entry < f.shape.entries {
			size := 16
			if f.shape.active {
				size = 32
			}
			want[i] = f.u32(f.shape.array + size*w.entry + 4*w.register)
		}
	}
	const words = 4 // that every release has
	buf := make([]byte, 64<<10)
	n := 0
	for r := range p.p.data {
		if r.module.fact != o {
			continue
		}
		for run := range p.p.mem.Ranges(r.Start, r.End) {
			if run.State != memory.Dumped {
				continue
			}
			for at := run.Start; at < run.End; at += uint64(len(buf)) - 4*uint64(len(want)) {
				got, _ := p.p.mem.ReadAt(buf[:min(uint64(len(buf)), run.End-at)], at)
				for j := 0; j+4*words <= got && j < len(buf)-4*len(want); j += 4 {
					found := true
					for i, w := range vectorWords[:words] {
						have := binary.LittleEndian.Uint32(buf[j+4*i:])
						if loose := w.own | w.off; have|loose != want[i]|loose || have&^want[i]&^w.own != 0 {
							found = false
							break
						}
					}
					if !found {
						continue
					}
					if n++; n > 1 {
						return nil, "was found at two places"
					}
					v = &Vector{Address: at + uint64(j)}
					for i := range want {
						if j+4*i+4 > got {
							break
						}
						have := binary.LittleEndian.Uint32(buf[j+4*i:])
						if i >= words && (have == 0 || have&^want[i] != 0) { // an older release ends before
							break
						}
						v.words = append(v.words, have)
					}
				}
				if run.End-at <= uint64(len(buf)) {
					break
				}
			}
		}
	}
	if v == nil {
		return nil, "was not found in its data"
	}
	return v, ""
}

// Has reports whether an address lies in the vector.
func (v *Vector) Has(addr uint64) bool { return addr-v.Address < 4*uint64(len(v.words)) }

// On lists the words that are others on a CPU that has less.
func (v *Vector) On(c *xstate.CPU) (words []Word) {
	for i, have := range v.words {
		w := vectorWords[i]
		_, usable := cpuid.GlibcMask(c, w.entry, w.register)
		if i == 1 { // XOP, which CPUID 80000001 has at the same bit
			if has, _ := c.HasFlag("xop"); has {
				usable |= 1 << 11
			} else {
				usable &^= 1 << 11
			}
		} else {
			usable |= w.own
		}
		if to := have & usable; to != have {
			words = append(words, Word{v.Address + uint64(4*i), binary.LittleEndian.AppendUint32(nil, have), binary.LittleEndian.AppendUint32(nil, to)})
		}
	}
	return words
}
