// Package isa decodes x86-64 instructions as far as one must know them to tell where a
// piece of code runs: length, CPU features, flow, and which vector state above the
// XMM registers an instruction reads and writes.
//
// Sources: Intel SDM vol. 2 (appendix A, and 2.3 to 2.7 for VEX and EVEX), AMD APM
// vol. 3 and 6 (XOP, FMA4, 3DNow!), the APX specification (355828). Where Intel and AMD
// decode differently, Intel's way is taken: 66 before a near jump or call does not
// shorten its displacement.
//
// # Hostile input
//
// Decode takes any bytes. An encoding that no manual defines, or one that raises #UD by
// its form (a LOCK where none may be, a reserved bit), is not decoded: ok is false. Bytes
// past the end of the instruction are not looked at, and if the instruction is cut, ok
// is false too.
package isa

// Inst is one instruction, with the fields of its encoding.
type Inst struct {
	Len int // bytes, 1 to 15

	Map    Map
	Op     uint8 // opcode byte; of 3DNow! the last byte of the instruction
	Prefix Prefix
	// REX has the bits W, R, X, B (8, 4, 2, 1) of a REX, VEX, EVEX or XOP prefix, as
	// they extend: those that the prefix holds inverted are turned.
	REX   uint8
	ModRM uint8 // meaningful if Prefix has HasModRM
	SIB   uint8 // meaningful if HasSIB is true
	// Disp is the displacement of a memory operand. That of one byte behind EVEX counts
	// elements, and is given as it is.
	Disp int32
	// Imm is the immediate, sign-extended: a relative target, the address of MOV with
	// an absolute one (A0 to A3), or the two immediates of ENTER, EXTRQ and INSERTQ with
	// the first one lowest.
	Imm int64

	vvvv uint8 // with EVEX.V' as bit 4
	evex uint8 // aaa 7, b 8, R' 16, z 128
	ll   uint8 // vector length: 0, 1, 2 for 128, 256, 512
	row  uint16
}

// Map is an opcode map, with the kind of prefix that leads to it.
type Map uint8

// Maps. Legacy ones are numbered as VEX does.
const (
	OneByte Map = iota
	Map0F
	Map0F38
	Map0F3A
	Map0F01 // 0F 01 with a register form: the opcode is the ModRM byte
	Map3DNow
	VEX1
	VEX2
	VEX3
	EVEX1
	EVEX2
	EVEX3
	EVEX5
	EVEX6
	XOP8
	XOP9
	XOP10
	EVEX4 // APX
	numMaps
)

// Prefix is a set of prefixes.
type Prefix uint16

const (
	OpSize   Prefix = 1 << iota // 66
	AddrSize                    // 67
	Lock                        // F0
	RepNE                       // F2, the last of F2 and F3
	Rep                         // F3, the last of F2 and F3
	FS                          // 64
	GS                          // 65
	REX2                        // D5: the instruction needs APX
	HasModRM                    // no prefix: a ModRM byte follows the opcode
	HasREX                      // no prefix with bits: AH to BH are SPL to DIL
)

// Features returns the CPU features that the instruction needs. What every x86-64 CPU
// has (up to SSE2, CMOV, FXSR, SYSCALL) is not among them, nor are hints that run as
// NOPs where they are unknown: ENDBR64, RDSSP, PREFETCHW, the MPX instructions. Needed
// is what is named: AVX2, say, without AVX.
//
// TZCNT (F3 0F BC) needs BMI1, but compilers write it for BSF everywhere, as which it
// runs on other CPUs; see [Inst.Faults].
func (i *Inst) Features() (f Features) {
	if i.Map == EVEX4 || i.Prefix&REX2 != 0 {
		return f.With(APX)
	}
	r := &forms[i.row]
	if r.need == 0 {
		return f
	}
	f = f.With(r.need & 0xff).With(r.need >> 8)
	if r.attr&vl != 0 && i.ll < 2 {
		f = f.With(AVX512VL)
	}
	if r.attr&wide2 != 0 && i.ll == 1 {
		f = Features{}.With(AVX2)
	}
	return f
}

// Faults returns Features without those whose absence the instruction survives, BMI1
// of TZCNT.
func (i *Inst) Faults() Features {
	if i.Map == Map0F && i.Op == 0xbc {
		return Features{}
	}
	return i.Features()
}

// Flow says where execution goes on.
type Flow uint8

const (
	Next         Flow = iota // at the next instruction
	Jump                     // at Target
	Branch                   // at Target or at the next instruction
	Call                     // at Target, which may return to the next instruction
	Return                   // at the caller, from a signal handler or an interrupt
	Indirect                 // at an address from a register or from memory
	IndirectCall             // at such an address, which may return
	Syscall                  // in the kernel, and then at the next instruction
	Stop                     // nowhere: a fault, or an APX instruction, of which only the length is known
)

// Flow returns where execution goes on.
func (i *Inst) Flow() Flow {
	if i.Prefix&REX2 != 0 || i.Map == EVEX4 {
		return Stop
	}
	switch i.Map {
	case OneByte:
		switch op := i.Op; {
		case op < 0x70:
			return Next
		case op < 0x80, op >= 0xe0 && op <= 0xe3:
			return Branch
		case op == 0xe8:
			return Call
		case op == 0xe9, op == 0xeb:
			return Jump
		case op == 0xc2, op == 0xc3, op == 0xca, op == 0xcb, op == 0xcf:
			return Return
		case op == 0xcd && uint8(i.Imm) == 0x80:
			return Syscall
		case op == 0xcc, op == 0xcd, op == 0xf1, op == 0xf4:
			return Stop
		case op == 0xc7 && i.ModRM == 0xf8: // XBEGIN
			return Branch
		case op == 0xff:
			switch i.ModRM >> 3 & 7 {
			case 2, 3:
				return IndirectCall
			case 4, 5:
				return Indirect
			}
		}
	case Map0F:
		switch op := i.Op; {
		case op >= 0x80 && op < 0x90:
			return Branch
		case op == 0x05, op == 0x34:
			return Syscall
		case op == 0x07, op == 0x35:
			return Return
		case op == 0x0b, op == 0xb9, op == 0xff:
			return Stop
		}
	}
	return Next
}

// Target returns where a Jump, Branch or Call at the address goes.
func (i *Inst) Target(addr uint64) uint64 { return addr + uint64(i.Len) + uint64(i.Imm) }

// IsNop reports whether the instruction does nothing: what assemblers pad with.
func (i *Inst) IsNop() bool {
	return i.Map == OneByte && i.Op == 0x90 && i.REX&1 == 0 && i.Prefix&Rep == 0 || i.Map == Map0F && i.Op == 0x1f && i.ModRM>>3&7 == 0
}

// HasSIB reports whether a SIB byte follows ModRM.
func (i *Inst) HasSIB() bool {
	return i.Prefix&HasModRM != 0 && i.ModRM < 0xc0 && i.ModRM&7 == 4
}

// Upper is a set of registers with state above XMM, by bits: the upper halves of
// YMM0 to YMM15 with what ZMM0 to ZMM15 add, then ZMM16 to ZMM31, then K0 to K7.
type Upper uint64

// The kinds of such state.
const (
	HiYMM Upper = 0xffff << (16 * iota)
	ZMM16
	Mask Upper = 0xff << 32
)

// Upper returns of which registers the instruction reads and writes state above XMM. A
// write counts only if nothing of the old state remains there: every write by VEX or
// EVEX, for they clear what lies above the operand, unless EVEX merges by a mask, which
// is a read. Legacy SSE does neither. A register combined with itself by an
// instruction whose result does not depend on it is not read. XSAVE reads everything;
// XRSTOR, which may leave components as they are, writes nothing for certain.
func (i *Inst) Upper() (reads, writes Upper) {
	r := &forms[i.row]
	switch {
	case r.attr&special == 0:
	case i.Map == VEX1: // VZEROUPPER, VZEROALL
		return 0, HiYMM
	default:
		return HiYMM | ZMM16 | Mask, 0
	}
	k := i.evex & 7
	if k != 0 && r.attr&(mz|mk|mq) != 0 {
		reads |= maskReg(k)
	}
	if r.attr&xmm0 != 0 {
		writes = 1
	}
	use := r.use
	if use == 0 {
		return reads, 0
	}
	rm := i.ModRM&7 | i.REX&1<<3
	merges := k != 0 && i.evex&128 == 0 && r.attr&blend == 0
	if i.ModRM >= 0xc0 {
		if i.Map >= EVEX1 && i.Map <= EVEX6 {
			rm |= i.REX & 2 << 3
		}
		if r.attr&idiom != 0 && rm == i.vvvv {
			use &^= (read << inV) | (read << inM)
		}
	} else if r.attr&vsib != 0 {
		rm = i.SIB>>3&7 | i.REX&2<<2 | i.vvvv&16
	} else {
		use &^= 0xff << inM
	}
	for field, n := range [...]uint8{i.reg(), i.vvvv, rm, uint8(i.Imm) >> 4} {
		u := use >> (8 * field) & 0xff
		if u == 0 {
			continue
		}
		width := uint8(u & 3)
		set := Upper(1) << (n & 31)
		switch {
		case width == kreg && r.attr&pair != 0:
			set = maskReg(n&^1) | maskReg(n|1)
		case width == kreg:
			set = maskReg(n)
		case field == inV/8 && r.attr&four != 0:
			set = 15 << (n & 28)
		}
		above := width == kreg || n >= 16 || i.ll >= width // the operand is more than XMM0 to XMM15
		if merges && above && width != kreg && u&write != 0 {
			u = read
		}
		if u&write != 0 {
			writes |= set
		}
		if u&read != 0 && above {
			reads |= set
		}
	}
	return reads, writes
}

func maskReg(n uint8) Upper { return 1 << (32 + n&7) }
