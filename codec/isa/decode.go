package isa

import "encoding/binary"

// Decode decodes the instruction at the start of b. It returns false if there is none,
// or if it is cut.
func Decode(b []byte) (i Inst, ok bool) {
	once.Do(index)
	d := decoder{b: b[:min(len(b), 15)]}
	if !d.decode(&i) || d.short {
		return Inst{}, false
	}
	i.Len = d.n
	return i, true
}

// decoder reads one instruction.
type decoder struct {
	b     []byte // 15 bytes at most
	n     int    // how many are read
	short bool   // more were wanted
}

func (d *decoder) byte() uint8 {
	if d.n >= len(d.b) {
		d.short = true
		return 0
	}
	d.n++
	return d.b[d.n-1]
}

// imm reads a sign-extended value of size bytes, little-endian.
func (d *decoder) imm(size int) int64 {
	if size > len(d.b)-d.n {
		d.short = true
		return 0
	}
	p := d.b[d.n : d.n+size]
	d.n += size
	switch size {
	case 1:
		return int64(int8(p[0]))
	case 2:
		return int64(int16(binary.LittleEndian.Uint16(p)))
	case 4:
		return int64(int32(binary.LittleEndian.Uint32(p)))
	case 8:
		return int64(binary.LittleEndian.Uint64(p))
	}
	return 0
}

// modRM reads a ModRM byte, SIB and displacement (SDM vol. 2, tables 2-2 and 2-3).
func (d *decoder) modRM(i *Inst) {
	i.Prefix |= HasModRM
	i.ModRM = d.byte()
	mod, rm := i.ModRM>>6, i.ModRM&7
	if mod == 3 {
		return
	}
	if rm == 4 {
		i.SIB = d.byte()
		rm = i.SIB & 7
	}
	switch {
	case mod == 1:
		i.Disp = int32(d.imm(1))
	case mod == 2, rm == 5: // without mod, 5 means no base, or RIP
		i.Disp = int32(d.imm(4))
	}
}

func (d *decoder) decode(i *Inst) bool {
	op := d.byte()
prefixes:
	for ; ; op = d.byte() {
		if d.short {
			return false
		}
		var p Prefix
		switch op {
		case 0x66:
			p = OpSize
		case 0x67:
			p = AddrSize
		case 0xf0:
			p = Lock
		case 0xf2:
			p = RepNE
			i.Prefix &^= Rep
		case 0xf3:
			p = Rep
			i.Prefix &^= RepNE
		case 0x64:
			p = FS
			i.Prefix &^= GS
		case 0x65:
			p = GS
			i.Prefix &^= FS
		case 0x26, 0x2e, 0x36, 0x3e: // segments without meaning here
		default:
			if op&0xf0 != 0x40 {
				break prefixes
			}
			i.REX = op & 15
			i.Prefix |= HasREX
			continue
		}
		i.Prefix = i.Prefix&^HasREX | p // a REX counts only right before the opcode
		i.REX = 0
	}
	i.Op = op
	if i.Prefix&(HasREX|OpSize|RepNE|Rep|Lock) == 0 {
		switch op {
		case 0xc4, 0xc5:
			return d.vex(i)
		case 0x62:
			return d.evex(i)
		case 0x8f:
			if d.n < len(d.b) && d.b[d.n]&0x1f >= 8 {
				return d.xop(i)
			}
		}
	}
	switch op {
	case 0x0f:
		i.Op = d.byte()
		switch i.Op {
		case 0x38:
			i.Map = Map0F38
			i.Op = d.byte()
		case 0x3a:
			i.Map = Map0F3A
			i.Op = d.byte()
		default:
			i.Map = Map0F
		}
	case 0xd5:
		if i.Prefix&HasREX != 0 {
			return false
		}
		p := d.byte()
		i.Prefix |= REX2
		i.REX = p & 15
		i.Map = Map(p >> 7)
		i.Op = d.byte()
		if rowsREX2[i.Map]>>(i.Op>>4)&1 == 0 && (i.Map != OneByte || i.Op != 0xa1) { // JMPABS
			return false
		}
	}
	return d.legacy(i)
}

// mandatory returns the prefix that chooses among the instructions of an opcode, as VEX
// numbers them.
func (i *Inst) mandatory() uint8 {
	switch {
	case i.Prefix&RepNE != 0:
		return 3
	case i.Prefix&Rep != 0:
		return 2
	case i.Prefix&OpSize != 0:
		return 1
	}
	return 0
}

// want returns what a row must have on for the instruction; pp numbers the mandatory
// prefixes as VEX does.
func (i *Inst) want(pp uint8) on {
	w := on(1) << (2*pp + i.REX>>3)
	w |= l128 << i.ll
	if i.Prefix&HasModRM != 0 {
		w |= mem << (i.ModRM >> 6 / 3)
		w |= r0 << (i.ModRM >> 3 & 7)
	}
	return w
}

// legacy reads what follows the opcode in the maps without VEX.
func (d *decoder) legacy(i *Inst) bool {
	form := byte('r')
	switch i.Map {
	case OneByte:
		form = oneByte[i.Op]
	case Map0F:
		form = twoByte[i.Op]
	case EVEX4:
		form = apx[i.Op]
	}
	opSize := 4 // of immediates
	if i.Prefix&OpSize != 0 && i.REX&8 == 0 {
		opSize = 2
	}
	switch form {
	case '.':
		return i.Map == Map0F && i.Op == 0x0f && d.now3D(i)
	case 'm', 'M', 'B', 'Z', 'r', 'f', 't', 'T':
		d.modRM(i)
	case 'c': // a register, whatever mod says (SDM vol. 2, MOV to control registers)
		i.Prefix |= HasModRM
		i.ModRM = d.byte() | 0xc0
		have := 0x11d // CR0, CR2, CR3, CR4, CR8
		if i.Op&1 != 0 {
			have = 0xff // DR0 to DR7
		}
		if have>>i.reg()&1 == 0 {
			return false
		}
	}
	group := i.ModRM >> 3 & 7
	memory := i.Prefix&HasModRM != 0 && i.ModRM < 0xc0
	switch form {
	case 'M':
		if !memory {
			return false
		}
	case 'b', 'B', 'j':
		i.Imm = d.imm(1)
	case 'w':
		i.Imm = d.imm(2)
	case 'z', 'Z':
		i.Imm = d.imm(opSize)
	case 'J':
		i.Imm = d.imm(4)
	case 'v':
		if i.REX&8 != 0 {
			opSize = 8
		}
		i.Imm = d.imm(opSize)
	case 'o':
		size := 8
		if i.Prefix&AddrSize != 0 {
			size = 4
		}
		i.Imm = d.imm(size)
	case 'e':
		i.Imm = d.imm(2) & 0xffff
		i.Imm |= d.imm(1) & 0xff << 16
	case 't', 'T':
		switch {
		case group > 1:
		case form == 't':
			i.Imm = d.imm(1)
		default:
			i.Imm = d.imm(opSize)
		}
	case 'f':
		if x := &x87[i.Op&7]; memory && x.mem>>group&1 != 0 || !memory && x.reg>>(i.ModRM&63)&1 != 0 {
			return false
		}
		i.find(i.want(0))
	case 'r', 'n':
		if i.Map == Map0F && i.Op == 0x01 && !memory && group != 4 && group != 6 {
			i.Map, i.Op = Map0F01, i.ModRM
		}
		if !i.find(i.want(i.mandatory())) {
			return false
		}
		d.immediate(i, opSize)
	}
	return i.Prefix&Lock == 0 || memory && i.lockable()
}

// immediate reads what the row of an instruction says.
func (d *decoder) immediate(i *Inst, opSize int) {
	switch attr := forms[i.row].attr; {
	case attr&(imm8|is4) != 0:
		i.Imm = d.imm(1)
	case attr&immz != 0:
		i.Imm = d.imm(opSize)
	case attr&imm32 != 0:
		i.Imm = d.imm(4)
	case attr&imm88 != 0:
		i.Imm = d.imm(2)
	}
}

// now3D reads a 3DNow! instruction, whose opcode comes last (AMD APM vol. 3, 1.2.3).
func (d *decoder) now3D(i *Inst) bool {
	d.modRM(i)
	i.Map, i.Op = Map3DNow, d.byte()
	return i.Prefix&Lock == 0 && i.find(i.want(0))
}

// lockable reports whether an instruction with a memory operand may have LOCK (SDM
// vol. 2, LOCK).
func (i *Inst) lockable() bool {
	group := i.ModRM >> 3 & 7
	switch i.Map {
	case OneByte:
		switch op := i.Op; {
		case op < 0x38:
			return op&6 == 0
		case op >= 0x80 && op <= 0x83:
			return group != 7
		case op == 0x86, op == 0x87:
			return true
		case op == 0xf6, op == 0xf7:
			return group == 2 || group == 3
		case op == 0xfe, op == 0xff:
			return group < 2
		}
	case Map0F:
		switch i.Op {
		case 0xab, 0xb0, 0xb1, 0xb3, 0xbb, 0xc0, 0xc1:
			return true
		case 0xba:
			return group > 4
		case 0xc7:
			return group == 1
		}
	}
	return false
}

// vex reads what follows C4 or C5 (SDM vol. 2, 2.3.5).
func (d *decoder) vex(i *Inst) bool {
	p := d.byte()
	m := uint8(1)
	i.REX = ^p >> 5 & 4
	if i.Op == 0xc4 {
		m = p & 31
		i.REX = ^p >> 5
		p = d.byte()
		i.REX |= p >> 4 & 8
	}
	if m < 1 || m > 3 {
		return false
	}
	return d.vector(i, VEX1+Map(m)-1, p)
}

// xop reads what follows 8F (AMD APM vol. 6, 1.1.1).
func (d *decoder) xop(i *Inst) bool {
	p := d.byte()
	i.REX = ^p >> 5
	m := p & 31
	p = d.byte()
	i.REX |= p >> 4 & 8
	if m > 10 {
		return false
	}
	return d.vector(i, XOP8+Map(m)-8, p)
}

// vector reads opcode, operands and immediate, after the last byte of a VEX or XOP
// prefix.
func (d *decoder) vector(i *Inst, m Map, p uint8) bool {
	i.Map = m
	i.vvvv = ^p >> 3 & 15
	i.ll = p >> 2 & 1
	i.Op = d.byte()
	if m != VEX1 || i.Op != 0x77 { // VZEROUPPER
		d.modRM(i)
	}
	if d.short || !i.find(i.want(p&3)) {
		return false
	}
	r := &forms[i.row]
	switch {
	case i.vvvv != 0 && r.use>>inV&0xff == 0 && r.attr&gv == 0:
		return false
	case r.attr&sib != 0 && !i.HasSIB():
		return false
	}
	d.immediate(i, 4)
	return i.registers(r)
}

// evex reads what follows 62 (SDM vol. 2, 2.7.1).
func (d *decoder) evex(i *Inst) bool {
	p := d.imm(4)
	p0, p1, p2 := uint8(p), uint8(p>>8), uint8(p>>16)
	d.n-- // the fourth byte is the opcode
	m := p0 & 7
	if d.short || p0&8 != 0 || p1&4 == 0 {
		return false
	}
	i.Op = d.byte()
	i.REX = ^p0>>5&7 | p1>>4&8
	i.vvvv = ^p1>>3&15 | ^p2<<1&16
	i.evex = p2&0x87 | p2>>1&8 | ^p0&16
	i.ll = p2 >> 5 & 3
	if m == 4 { // legacy instructions (APX specification, 3.1.3)
		i.Map = EVEX4
		if p1&3 == 1 {
			i.Prefix = OpSize
		}
		return d.legacy(i)
	}
	d.modRM(i)
	switch m {
	case 1, 2, 3:
		i.Map = EVEX1 + Map(m) - 1
	case 5, 6:
		i.Map = EVEX5 + Map(m) - 5
	default:
		return false
	}
	memory := i.ModRM < 0xc0
	if !memory && i.evex&8 != 0 { // L'L is the rounding mode
		i.ll = 2
	}
	if d.short || !i.find(i.want(p1&3)) {
		return false
	}
	r := &forms[i.row]
	k, z := i.evex&7 != 0, i.evex&0x80 != 0
	switch {
	case i.evex&8 != 0 && memory && r.attr&bc == 0,
		i.evex&8 != 0 && !memory && r.attr&(rc|sae) == 0,
		i.vvvv&15 != 0 && r.use>>inV&0xff == 0 && r.attr&gv == 0,
		i.vvvv&16 != 0 && r.use>>inV&0xff == 0 && r.attr&(gv|vsib) == 0,
		k && r.attr&(mk|mz|mq) == 0,
		!k && r.attr&mq != 0,
		z && (!k || r.attr&mz == 0 || memory && r.use>>inM&write != 0),
		r.attr&sib != 0 && !i.HasSIB():
		return false
	}
	d.immediate(i, 4)
	return i.registers(r)
}

// reg returns the register that ModRM.reg names.
func (i *Inst) reg() uint8 { return i.ModRM>>3&7 | i.REX&4<<1 | i.evex&16 }

// registers reports whether the registers of an instruction exist, and those that must
// differ do.
func (i *Inst) registers(r *row) bool {
	reg, rm := i.reg(), i.ModRM&7|i.REX&1<<3
	tile := r.need >= AMXTile && r.need <= AMXComplex
	isMask := func(field int) bool { u := r.use >> field & 0xff; return u != 0 && u&3 == kreg }
	switch {
	case r.attr&gr != 0 && reg > 15,
		(tile || isMask(inR)) && reg > 7,
		(tile || isMask(inV)) && i.vvvv > 7,
		tile && i.ModRM >= 0xc0 && rm > 7:
		return false
	case r.attr&uniqD != 0:
		return reg != i.vvvv && (i.ModRM < 0xc0 || reg != rm|i.REX&2<<3)
	case r.attr&uniq == 0:
		return true
	case tile:
		return reg != i.vvvv && reg != rm && rm != i.vvvv
	}
	index := i.SIB>>3&7 | i.REX&2<<2
	if i.Map >= EVEX1 {
		return reg != index|i.vvvv&16
	}
	return reg != index && reg != i.vvvv && index != i.vvvv
}
