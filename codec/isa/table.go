package isa

import "sync"

// The maps of legacy opcodes, by what follows the opcode (SDM vol. 2, tables A-2 and
// nothing (-), ModRM (m; M of memory only; c of a control register), ModRM with an
// immediate (B of a byte, Z of operand size), an immediate (b, w, z; v of up to eight
// bytes), a relative target (j, J), an absolute address (o), ENTER (e), x87 (f), F6 and
// F7 (t, T). Rows decide about r, which has ModRM, and n, which has none. Prefixes and
// undefined opcodes are dots.
const (
	oneByte = "" +
		"mmmmbz..mmmmbz.." + // 00
		"mmmmbz..mmmmbz.." +
		"mmmmbz..mmmmbz.." +
		"mmmmbz..mmmmbz.." +
		"................" + // 40
		"----------------" +
		"...m....zZbB----" +
		"jjjjjjjjjjjjjjjj" +
		"BZ.Bmmmmmmmmrrrr" + // 80
		"----------.---nn" +
		"oooo----bz------" +
		"bbbbbbbbvvvvvvvv" +
		"BBw-..rre-w--b.-" + // C0
		"mmmm...-ffffffff" +
		"jjjjbbbbJJ.j----" +
		".-..--tT------rr"

	twoByte = "" +
		"rrmm.-----.-.mn." + // 00
		"rrrrrrrrmmmmmmmm" +
		"cccc....rrrrrrrr" +
		"------.n........" +
		"mmmmmmmmmmmmmmmm" + // 40
		"rrrrrrrrrrrrrrrr" +
		"rrrrrrrrrrrrrrrr" +
		"rrrrrrrnrr..rrrr" +
		"JJJJJJJJJJJJJJJJ" + // 80
		"mmmmmmmmmmmmmmmm" +
		"---mBm..---mBmrm" +
		"mmMmMMmmrmrmrrmm" +
		"mmrrrrrr--------" + // C0
		"rrrrrrrrrrrrrrrr" +
		"rrrrrrrrrrrrrrrr" +
		"rrrrrrrrrrrrrrrm"
)

// apx is the map that APX adds to EVEX, as far as lengths go (APX specification, 3.1.3.2).
const apx = "" +
	"mmmm....mmmm...." + // 00
	"mmmm....mmmm...." +
	"mmmmB...mmmmB..." +
	"mmmm....mmmm...." +
	"mmmmmmmmmmmmmmmm" + // 40
	"................" +
	"mm...mm..Z.B...." +
	"................" +
	"BZ.Bmm..m.mm...m" + // 80
	"................" +
	".....m.......m.m" +
	"................" +
	"BB.............." + // C0
	"mmmm............" +
	"................" +
	"mmm.mmtTmm..m.mm"

// rowsREX2 has the rows of sixteen opcodes that REX2 may stand before, of the maps
// OneByte and Map0F (APX specification, 3.1.2.1).
var rowsREX2 = [2]uint16{^uint16(1<<4 | 1<<7 | 1<<0xa | 1<<0xe), ^uint16(1<<3 | 1<<8)}

// x87 has for each of D8 to DF the opcodes that are not defined: of memory operands the
// ModRM.reg values, of the others the ModRM bytes, with bit 0 for C0 (SDM vol. 2, A.5.2).
var x87 = [8]struct {
	mem uint8
	reg uint64
}{
	1: {0x02, 0x000080cc00fe0000},
	2: {0x00, 0xfffffdff00000000},
	3: {0x50, 0xff0000e000000000},
	5: {0x20, 0xffff000000000000},
	6: {0x00, 0x00000000fd000000},
	7: {0x00, 0xff0000fe00000000},
}

// row describes instructions that differ in nothing that matters here.
type row struct {
	on   on
	need Feature // a Feature, and perhaps a second one in the high byte
	use  uint32
	attr attr
	ops  string // opcodes, hexadecimal
}

// on says which encodings of an opcode a row is about. Of each group of bits that is
// all clear, every one counts.
type on uint32

const (
	p0 on = 3 << (2 * iota) // mandatory prefix none, 66, F3, F2
	p66
	pf3
	pf2
	pany on = 0xff
	// A bit of the mandatory prefixes is for W = 0, the other one for W = 1: p66&w1.
	w0 on = 0x55
	w1 on = 0xaa

	pspd = p0&w0 | p66&w1  // of an EVEX instruction on singles and doubles, packed
	sssd = pf3&w0 | pf2&w1 // scalar

	l128 on = 1 << 8 // vector length, or L = 0
	l256 on = 1 << 9 // or L = 1
	l512 on = 1 << 10
	lv      = l128 | l256 | l512

	mem  on = 1 << 12
	reg  on = 1 << 13
	mods    = mem | reg

	regs on = 0xff << 16
)

const (
	r0 on = 1 << 16 << iota // ModRM.reg
	r1
	r2
	r3
	r4
	r5
	r6
	r7
)

// Use of registers with state above XMM: one byte for each of four operands.
const (
	inR = 0  // ModRM.reg
	inV = 8  // VEX.vvvv
	inM = 16 // ModRM.rm, or the index of a VSIB
	inI = 24 // an immediate's high half

	// How much of the vector an operand is.
	kreg    = 0 // an opmask register
	full    = 1
	half    = 2
	xmm     = 3
	read    = 4
	write   = 8
	modify  = read | write
	rR      = (read | full) << inR
	wR      = (write | full) << inR
	mR      = (modify | full) << inR
	rRh     = (read | half) << inR
	wRh     = (write | half) << inR
	mRh     = (modify | half) << inR
	rRx     = (read | xmm) << inR
	wRx     = (write | xmm) << inR
	mRx     = (modify | xmm) << inR
	rRk     = (read | kreg) << inR
	wRk     = (write | kreg) << inR
	rV      = (read | full) << inV
	wV      = (write | full) << inV
	mV      = (modify | full) << inV
	rVx     = (read | xmm) << inV
	mVx     = (modify | xmm) << inV
	rVk     = (read | kreg) << inV
	rM      = (read | full) << inM
	wM      = (write | full) << inM
	rMh     = (read | half) << inM
	wMh     = (write | half) << inM
	rMx     = (read | xmm) << inM
	wMx     = (write | xmm) << inM
	rMk     = (read | kreg) << inM
	wMk     = (write | kreg) << inM
	rI      = (read | full) << inI
	rIx     = (read | xmm) << inI
	useMask = 0xff
)

// attr is what else a row says.
type attr uint32

const (
	imm8    attr = 1 << iota // an immediate byte follows
	immz                     // of operand size
	imm32                    // of four bytes
	imm88                    // of two times one byte
	is4                      // a byte whose high half is a register
	gr                       // ModRM.reg is a general register,
	gv                       // or VEX.vvvv
	vl                       // AVX512VL below 512 bits
	wide2                    // AVX2 at 256 bits, where AVX serves at 128
	mk                       // may have an opmask,
	mz                       // and clear by it,
	blend                    // or choose a source by it;
	mq                       // must have an opmask
	bc                       // memory may be broadcast
	rc                       // rounding control,
	sae                      // or no exceptions, with registers
	sib                      // memory has a SIB,
	vsib                     // whose index is a vector
	uniq                     // destination, index and mask are different registers
	uniqD                    // the destination is not a source
	idiom                    // a register with itself gives a constant
	pair                     // writes two masks
	four                     // VEX.vvvv is four registers
	xmm0                     // writes XMM0
	rm0                      // ModRM.rm is 0
	special                  // as Inst.Upper says
)

var (
	once sync.Once
	// forms has all rows. The first one is of opcodes without a row.
	forms []row
	// rowsOf has, for each map and opcode, where its rows start in rowList.
	rowsOf  [int(numMaps)*256 + 1]uint16
	rowList []uint16
)

// index fills forms and rowsOf.
func index() {
	forms = append(forms, row{})
	var opcodes [int(numMaps) * 256][]uint16
	for m, rows := range maps {
		for _, r := range rows {
			for _, group := range [...]on{pany, lv, mods, regs} {
				if r.on&group == 0 {
					r.on |= group
				}
			}
			forms = append(forms, r)
			for i := 0; i < len(r.ops); i += 3 {
				op := m<<8 | nibble(r.ops[i])<<4 | nibble(r.ops[i+1])
				opcodes[op] = append(opcodes[op], uint16(len(forms)-1))
			}
		}
	}
	for op, list := range opcodes {
		rowsOf[op] = uint16(len(rowList))
		rowList = append(rowList, list...)
	}
	rowsOf[len(opcodes)] = uint16(len(rowList))
	indexSkips()
}

func nibble(c byte) int {
	if c >= 'a' {
		return int(c-'a') + 10
	}
	return int(c - '0')
}

// find sets the row of an instruction, and reports whether there is one.
func (i *Inst) find(want on) bool {
	op := int(i.Map)<<8 | int(i.Op)
	for _, n := range rowList[rowsOf[op]:rowsOf[op+1]] {
		if forms[n].on&want == want {
			i.row = n
			return forms[n].attr&rm0 == 0 || i.ModRM&7 == 0
		}
	}
	return false
}

var maps = [numMaps][]row{
	OneByte: {
		{0, LAHF, 0, 0, "9e 9f"},
		{r0 | r1 | r2 | r3 | r4 | r5, 0, 0, 0, "8c"},
		{mem, 0, 0, 0, "8d"},
		{r0 | r2 | r3 | r4 | r5, 0, 0, 0, "8e"},
		{r0, 0, 0, 0, "8f"},
		{r0, 0, 0, imm8, "c6"},
		{r0, 0, 0, immz, "c7"},
		{reg | r7, RTM, 0, imm8 | rm0, "c6"}, // xabort
		{reg | r7, RTM, 0, immz | rm0, "c7"}, // xbegin
		{mem | r1, SSE3, 0, 0, "db dd df"},   // fisttp
		{r0 | r1, 0, 0, 0, "fe"},
		{r0 | r1 | r2 | r4 | r6, 0, 0, 0, "ff"},
		{mem | r3 | r5, 0, 0, 0, "ff"},
	},
	Map0F: {
		{r0 | r1 | r2 | r3 | r4 | r5, 0, 0, 0, "00"},
		{mem | r0 | r1 | r2 | r3 | r4 | r6 | r7, 0, 0, 0, "01"},
		{reg | r4 | r6, 0, 0, 0, "01"}, // the other register forms are Map0F01
		{pf3 | mem | r5, SHSTK, 0, 0, "01"},
		{0, Amd3DNow, 0, 0, "0e"},
		{0, 0, 0, 0, "10 11 2a 2c 2d 51 58 59 5a 5c 5d 5e 5f"},
		{p0 | reg, 0, 0, 0, "12 16"},
		{p0 | p66 | mem, 0, 0, 0, "12 13 16 17 2b e7"},
		{pf3 | pf2, SSE3, 0, 0, "12"},
		{pf3, SSE3, 0, 0, "16"},
		{p0 | p66, 0, 0, 0, "14 15 28 29 2e 2f 54 55 56 57 60 61 62 63 64 65 66 67 68 69 6a 6b 6e 74 75 76"},
		{pf3 | pf2 | mem, SSE4A, 0, 0, "2b"},
		{p0, SMX, 0, 0, "37"},
		{p0 | p66 | reg, 0, 0, 0, "50 d7 f7"},
		{p0 | pf3, 0, 0, 0, "52 53"},
		{p0 | p66 | pf3, 0, 0, 0, "5b 6f 7e 7f"},
		{p66, 0, 0, 0, "6c 6d"},
		{0, 0, 0, imm8, "70 c2"},
		{p0 | p66 | reg | r2 | r4 | r6, 0, 0, imm8, "71 72"},
		{p0 | p66 | reg | r2 | r6, 0, 0, imm8, "73"},
		{p66 | reg | r3 | r7, 0, 0, imm8, "73"},
		{p0, 0, 0, 0, "77"},
		{p0, VMX, 0, 0, "78 79"},
		{p66 | reg | r0, SSE4A, 0, imm88, "78"},
		{pf2 | reg, SSE4A, 0, imm88, "78"},
		{p66 | pf2 | reg, SSE4A, 0, 0, "79"},
		{p66 | pf2, SSE3, 0, 0, "7c 7d d0"},
		{p0 | mem | r0 | r1 | r2 | r3 | r7, 0, 0, 0, "ae"},
		{p0 | reg | r5 | r6 | r7, 0, 0, 0, "ae"},
		{pf3 | reg | r0 | r1 | r2 | r3, FSGSBASE, 0, 0, "ae"},
		{p0 | mem | r4, XSAVE, 0, special, "ae"},
		{p0 | mem | r5, XSAVE, 0, 0, "ae"},
		{pf3 | mem | r6, SHSTK, 0, 0, "ae"},
		{pf3 | reg | r5, SHSTK, 0, 0, "ae"},
		{p0 | mem | r6, XSAVEOPT, 0, special, "ae"},
		{p66 | mem | r6, CLWB, 0, 0, "ae"},
		{p66 | pf3 | pf2 | reg | r6, WAITPKG, 0, 0, "ae"},
		{p66 | mem | r7, CLFLUSHOPT, 0, 0, "ae"},
		{pf3, POPCNT, 0, 0, "b8"},
		{r4 | r5 | r6 | r7, 0, 0, imm8, "ba"},
		{pf3, BMI1, 0, 0, "bc"},
		{pf3, LZCNT, 0, 0, "bd"},
		{0, 0, 0, 0, "bc bd"},
		{p0 | mem, 0, 0, 0, "c3"},
		{p0 | p66, 0, 0, imm8, "c4 c6"},
		{p0 | p66 | reg, 0, 0, imm8, "c5"},
		{pany&w0 | mem | r1, 0, 0, 0, "c7"},
		{pany&w1 | mem | r1, CX16, 0, 0, "c7"},
		{p0 | mem | r3, XSAVES, 0, 0, "c7"},
		{p0 | mem | r5, XSAVES, 0, special, "c7"},
		{p0 | mem | r4, XSAVEC, 0, special, "c7"},
		{p0 | p66 | pf3 | mem | r6, VMX, 0, 0, "c7"},
		{p0 | mem | r7, VMX, 0, 0, "c7"},
		{p0 | p66 | reg | r6, RDRAND, 0, 0, "c7"},
		{p0 | p66 | reg | r7, RDSEED, 0, 0, "c7"},
		{pf3 | reg | r7, RDPID, 0, 0, "c7"},
		{p66, 0, 0, 0, "d6"},
		{pf3 | pf2 | reg, 0, 0, 0, "d6"},
		{p0 | p66, 0, 0, 0, "d1 d2 d3 d4 d5 d8 d9 da db dc dd de df e0 e1 e2 e3 e4 e5 e8 e9 ea eb ec ed ee ef"},
		{p66 | pf3 | pf2, 0, 0, 0, "e6"},
		{pf2 | mem, SSE3, 0, 0, "f0"},
		{p0 | p66, 0, 0, 0, "f1 f2 f3 f4 f5 f6 f8 f9 fa fb fc fd fe"},
	},
	Map0F38: {
		{p0 | p66, SSSE3, 0, 0, "00 01 02 03 04 05 06 07 08 09 0a 0b 1c 1d 1e"},
		{p66, SSE41, 0, 0, "10 14 15 17 20 21 22 23 24 25 28 29 2b 30 31 32 33 34 35 38 39 3a 3b 3c 3d 3e 3f 40 41"},
		{p66 | mem, SSE41, 0, 0, "2a"},
		{p66, SSE42, 0, 0, "37"},
		{p66 | mem, VMX, 0, 0, "80 81"},
		{p66 | mem, INVPCID, 0, 0, "82"},
		{p0, SHA, 0, 0, "c8 c9 ca cb cc cd"},
		{p66, GFNI, 0, 0, "cf"},
		{p66, AES, 0, 0, "db dc dd de df"},
		{pf2, SSE42, 0, 0, "f0 f1"},
		{p0 | p66 | mem, MOVBE, 0, 0, "f0 f1"},
		{p66 | mem, SHSTK, 0, 0, "f5"},
		{p0 | mem, SHSTK, 0, 0, "f6"},
		{p66 | pf3, ADX, 0, 0, "f6"},
		{p66 | mem, MOVDIR64B, 0, 0, "f8"},
		{pf3 | pf2 | mem, ENQCMD, 0, 0, "f8"},
		{p0 | mem, MOVDIRI, 0, 0, "f9"},
	},
	Map0F3A: {
		{p66, SSE41, 0, imm8, "08 09 0a 0b 0c 0d 0e 14 15 16 17 20 21 22 40 41 42"},
		{p0 | p66, SSSE3, 0, imm8, "0f"},
		{p66, PCLMULQDQ, 0, imm8, "44"},
		{p66, SSE42, 0, imm8, "60 61 62 63"},
		{p0, SHA, 0, imm8, "cc"},
		{p66, GFNI, 0, imm8, "ce cf"},
		{p66, AES, 0, imm8, "df"},
	},
	Map0F01: {
		{p0, SGX, 0, 0, "c0 cf d7"},
		{p0, VMX, 0, 0, "c1 c2 c3 c4 d4"},
		{p0, 0, 0, 0, "c8 c9 ca cb"},
		{p0, XSAVE, 0, 0, "d0 d1"},
		{p0, RTM, 0, 0, "d5 d6"},
		{0, SVM, 0, 0, "d8 d9 da db dc dd de df"},
		{p0, SERIALIZE, 0, 0, "e8"},
		{pf2, TSXLDTRK, 0, 0, "e8 e9"},
		{pf3, SHSTK, 0, 0, "e8 ea"},
		{p0, PKU, 0, 0, "ee ef"},
		{0, 0, 0, 0, "f8"}, // swapgs
		{0, RDTSCP, 0, 0, "f9"},
		{p0, MONITORX, 0, 0, "fa fb"},
		{0, CLZERO, 0, 0, "fc"},
		{p0, RDPRU, 0, 0, "fd"},
	},
	Map3DNow: {
		{0, Amd3DNow, 0, 0, "0d 1d 90 94 96 97 9a 9e a0 a4 a6 a7 aa ae b0 b4 b6 b7 bf"},
		{0, Amd3DNowExt, 0, 0, "0c 1c 8a 8e bb"},
	},
	VEX1:  vex1,
	VEX2:  vex2,
	VEX3:  vex3,
	EVEX1: evex1,
	EVEX2: evex2,
	EVEX3: evex3,
	EVEX5: evex5,
	EVEX6: evex6,
	XOP8:  xop8,
	XOP9:  xop9,
	XOP10: xop10,
}
