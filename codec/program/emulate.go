package program

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/fpuimg/fpuimg/codec/cpuid"
	"github.com/fpuimg/fpuimg/codec/isa"
)

// emulator runs a function of the kind that IFUNC resolvers are: no arguments, a choice
// by words in memory and by CPUID, an address in RAX. It writes to no memory but its own,
// and refuses every instruction that such functions do not have.
type emulator struct {
	// load reads memory of the process; the error says why n is less than all. fetch is
	// load for instructions, nil if they are one.
	load, fetch func(b []byte, addr uint64) (n int, err error)
	// cpuid answers CPUID; false if that is not known.
	cpuid func(leaf, subleaf uint32) (cpuid.Regs, bool)

	// decoded are instructions by their addresses, of a process that does not change.
	decoded map[uint64]*isa.Inst

	reg   [16]uint64
	stack [stackSize]struct { // below stackTop
		b       byte
		written bool
	}
	written map[uint64]byte // by the function, elsewhere

	carry, zero, sign, overflow, parity bool
}

// Registers as ModRM numbers them.
const (
	rax = iota
	rcx
	rdx
	rbx
	rsp
	rbp
	rsi
	rdi
)

const (
	// stackTop and returnTo are no addresses that a process can have.
	stackTop = 1 << 63
	returnTo = 1<<63 | 1<<62

	// stackSize is more than a resolver takes, in bytes.
	stackSize = 1 << 10

	// maxDecoded bounds the instructions that are kept: resolvers have some thousand.
	maxDecoded = 1 << 16

	// maxSteps is far above what a resolver takes: 30, and 100 where it asks CPUID.
	maxSteps = 4096
)

// resolverError is an instruction that the emulator does not run.
type resolverError struct {
	addr uint64
	code []byte // of the instruction, or what is there
	why  string
}

func (e *resolverError) Error() string {
	return fmt.Sprintf("the resolver has %s at %#x: % x", e.why, e.addr, e.code)
}

// run calls the function at an address, and returns what it returns.
func (e *emulator) run(entry uint64) (uint64, error) {
	e.reg = [16]uint64{rsp: stackTop}
	e.written = nil
	clear(e.stack[:])
	if e.fetch == nil {
		e.fetch = e.load
	}
	if e.decoded == nil {
		e.decoded = map[uint64]*isa.Inst{}
	}
	if err := e.push(returnTo); err != nil {
		return 0, err
	}
	var b [15]byte
	ip := entry
	for range maxSteps {
		if ip == returnTo {
			return e.reg[rax], nil
		}
		i := e.decoded[ip]
		if i == nil {
			n, err := e.fetch(b[:], ip)
			if n == 0 {
				return 0, err
			}
			decoded, ok := isa.Decode(b[:n])
			if !ok {
				return 0, &resolverError{ip, b[:n], "an unknown instruction"}
			}
			i = &decoded
			if len(e.decoded) < maxDecoded {
				e.decoded[ip] = i
			}
		}
		next, err := e.step(i, ip)
		if err == errUnsupported {
			e.fetch(b[:], ip)
			err = &resolverError{ip, b[:i.Len], "an instruction that no resolver is known to have"}
		}
		if err != nil {
			return 0, err
		}
		ip = next
	}
	return 0, &resolverError{entry, nil, "no end"}
}

type constError string

func (e constError) Error() string { return string(e) }

const errUnsupported = constError("unsupported instruction")

// step runs one instruction, and returns the address of the next.
func (e *emulator) step(i *isa.Inst, ip uint64) (next uint64, err error) {
	next = ip + uint64(i.Len)
	if i.Prefix&(isa.Lock|isa.FS|isa.GS|isa.AddrSize|isa.REX2) != 0 {
		return 0, errUnsupported
	}
	size := 4
	switch {
	case i.REX&8 != 0:
		size = 8
	case i.Prefix&isa.OpSize != 0:
		size = 2
	}
	switch i.Map {
	case isa.OneByte:
		return e.oneByte(i, next, size)
	case isa.Map0F:
		return e.twoByte(i, next, size)
	}
	return 0, errUnsupported
}

func (e *emulator) oneByte(i *isa.Inst, next uint64, size int) (uint64, error) {
	op := i.Op
	if op&1 == 0 && (op < 0x40 || op >= 0x80 && op < 0x90 || op == 0xa8 || op >= 0xc0) {
		size = 1
	}
	rm := e.rm(i, next, size)
	reg := register(i, i.ModRM>>3&7|i.REX&4<<1, size)
	switch {
	case op < 0x40 && op&7 < 4: // ADD OR ADC SBB AND SUB XOR CMP
		if op&2 != 0 {
			return next, e.arith(op>>3, reg, rm)
		}
		return next, e.arith(op>>3, rm, reg)
	case op < 0x40 && op&7 < 6:
		return next, e.arithImm(op>>3, operand{reg: rax, size: size}, i.Imm)
	case op >= 0x50 && op < 0x58:
		return next, e.push(e.reg[op&7|i.REX&1<<3])
	case op >= 0x58 && op < 0x60:
		v, err := e.pop()
		e.reg[op&7|i.REX&1<<3] = v
		return next, err
	case op == 0x63: // MOVSXD
		return next, e.extend(i, reg, next, 4, true)
	case op >= 0x70 && op < 0x80:
		if e.condition(op & 15) {
			next = i.Target(next - uint64(i.Len))
		}
		return next, nil
	case op == 0x80, op == 0x81, op == 0x83:
		return next, e.arithImm(i.ModRM>>3&7, rm, i.Imm)
	case op == 0x84, op == 0x85:
		return next, e.test(rm, reg)
	case op == 0x86, op == 0x87: // XCHG
		a, err := e.get(rm)
		if err != nil {
			return 0, err
		}
		b, err := e.get(reg)
		if err != nil {
			return 0, err
		}
		if err := e.set(rm, b); err != nil {
			return 0, err
		}
		return next, e.set(reg, a)
	case op == 0x88, op == 0x89:
		return next, e.move(rm, reg)
	case op == 0x8a, op == 0x8b:
		return next, e.move(reg, rm)
	case op == 0x8d && i.ModRM < 0xc0: // LEA
		return next, e.set(reg, rm.addr)
	case op == 0x90 && i.REX&1 == 0:
		return next, nil
	case op == 0xa8, op == 0xa9:
		return next, e.testImm(operand{reg: rax, size: size}, i.Imm)
	case op >= 0xb0 && op < 0xb8:
		return next, e.set(register(i, op&7|i.REX&1<<3, 1), uint64(i.Imm))
	case op >= 0xb8 && op < 0xc0:
		return next, e.set(operand{reg: op&7 | i.REX&1<<3, size: size}, uint64(i.Imm))
	case op == 0xc0, op == 0xc1:
		return next, e.shift(i.ModRM>>3&7, rm, uint(i.Imm))
	case op == 0xd0, op == 0xd1:
		return next, e.shift(i.ModRM>>3&7, rm, 1)
	case (op == 0xc6 || op == 0xc7) && i.ModRM>>3&7 == 0: // the others are of RTM
		return next, e.set(rm, uint64(i.Imm))
	case op == 0xc3:
		return e.pop()
	case op == 0xe8:
		return i.Target(next - uint64(i.Len)), e.push(next)
	case op == 0xe9, op == 0xeb:
		return i.Target(next - uint64(i.Len)), nil
	case op == 0xf6, op == 0xf7:
		switch i.ModRM >> 3 & 7 {
		case 0, 1:
			return next, e.testImm(rm, i.Imm)
		case 2: // NOT
			v, err := e.get(rm)
			if err != nil {
				return 0, err
			}
			return next, e.set(rm, ^v)
		case 3: // NEG
			v, err := e.get(rm)
			if err != nil {
				return 0, err
			}
			return next, e.set(rm, e.flags(subtract, 0, v, size))
		}
	}
	return 0, errUnsupported
}

func (e *emulator) twoByte(i *isa.Inst, next uint64, size int) (uint64, error) {
	op := i.Op
	rep := i.Prefix&(isa.Rep|isa.RepNE) != 0
	reg := register(i, i.ModRM>>3&7|i.REX&4<<1, size)
	switch {
	case op == 0x1e, op == 0x1f: // ENDBR64, NOP
		return next, nil
	case rep:
	case op >= 0x40 && op < 0x50: // CMOV: what is not moved is read and cut to size all the same
		from := e.rm(i, next, size)
		v, err := e.get(from)
		if err != nil {
			return 0, err
		}
		if !e.condition(op & 15) {
			if v, err = e.get(reg); err != nil {
				return 0, err
			}
		}
		return next, e.set(reg, v)
	case op >= 0x80 && op < 0x90:
		if e.condition(op & 15) {
			next = i.Target(next - uint64(i.Len))
		}
		return next, nil
	case op >= 0x90 && op < 0xa0: // SETcc
		var v uint64
		if e.condition(op & 15) {
			v = 1
		}
		return next, e.set(e.rm(i, next, 1), v)
	case op == 0xa2:
		r, ok := e.cpuid(uint32(e.reg[rax]), uint32(e.reg[rcx]))
		if !ok {
			return 0, fmt.Errorf("the resolver asks CPUID %#x, %#x, which is not known of the CPU", uint32(e.reg[rax]), uint32(e.reg[rcx]))
		}
		e.reg[rax], e.reg[rbx], e.reg[rcx], e.reg[rdx] = uint64(r.EAX), uint64(r.EBX), uint64(r.ECX), uint64(r.EDX)
		return next, nil
	case op == 0xba && i.ModRM>>3&7 == 4: // BT
		v, err := e.get(e.rm(i, next, size))
		e.carry = v>>(uint(i.Imm)%uint(8*size))&1 != 0
		return next, err
	case op == 0xb6, op == 0xb7, op == 0xbe, op == 0xbf: // MOVZX, MOVSX
		return next, e.extend(i, reg, next, 1+int(op&1), op >= 0xbe)
	}
	return 0, errUnsupported
}

// operand is a register or a place in memory.
type operand struct {
	size   int // bytes: 1, 2, 4, 8
	memory bool
	addr   uint64
	reg    uint8
	shift  int // of a byte in its register: 8 for AH to BH
}

// register is an operand by the number of a register, as its field and REX give it.
func register(i *isa.Inst, number uint8, size int) operand {
	if size == 1 && i.Prefix&isa.HasREX == 0 && number >= 4 {
		return operand{size: 1, reg: number - 4, shift: 8}
	}
	return operand{size: size, reg: number}
}

// rm is the operand that ModRM names; next is the address of the next instruction.
func (e *emulator) rm(i *isa.Inst, next uint64, size int) operand {
	if i.Prefix&isa.HasModRM == 0 {
		return operand{}
	}
	mod, rm := i.ModRM>>6, i.ModRM&7
	if mod == 3 {
		return register(i, rm|i.REX&1<<3, size)
	}
	addr := uint64(int64(i.Disp))
	switch {
	case i.HasSIB():
		if base := i.SIB & 7; base != 5 || mod != 0 {
			addr += e.reg[base|i.REX&1<<3]
		}
		if index := i.SIB>>3&7 | i.REX&2<<2; index != rsp {
			addr += e.reg[index] << (i.SIB >> 6)
		}
	case rm == 5 && mod == 0:
		addr += next
	default:
		addr += e.reg[rm|i.REX&1<<3]
	}
	return operand{size: size, memory: true, addr: addr}
}

func (e *emulator) get(o operand) (uint64, error) {
	if !o.memory {
		return e.reg[o.reg] >> o.shift & mask(o.size), nil
	}
	var b [8]byte
	if len(e.written) == 0 && o.addr < stackTop-stackSize-8 {
		_, err := e.load(b[:o.size], o.addr)
		return le64(b[:]), err
	}
	for n := range o.size {
		at := o.addr + uint64(n)
		if v, ok := e.wrote(at); ok {
			b[n] = v
		} else if _, err := e.load(b[n:n+1], at); err != nil {
			return 0, err
		}
	}
	return le64(b[:]), nil
}

// wrote returns a byte that the function has written.
func (e *emulator) wrote(at uint64) (v byte, ok bool) {
	if from := at - (stackTop - stackSize); from < stackSize {
		return e.stack[from].b, e.stack[from].written
	}
	v, ok = e.written[at]
	return v, ok
}

func (e *emulator) write(at uint64, v byte) {
	if from := at - (stackTop - stackSize); from < stackSize {
		e.stack[from].b, e.stack[from].written = v, true
	} else {
		if e.written == nil {
			e.written = map[uint64]byte{}
		}
		e.written[at] = v
	}
}

func (e *emulator) set(o operand, v uint64) error {
	v &= mask(o.size)
	if o.memory {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], v)
		for n := range o.size {
			e.write(o.addr+uint64(n), b[n])
		}
		return nil
	}
	if o.size < 4 { // of the others the upper half is cleared
		v = v<<o.shift | e.reg[o.reg]&^(mask(o.size)<<o.shift)
	}
	e.reg[o.reg] = v
	return nil
}

func mask(size int) uint64 { return ^uint64(0) >> (64 - 8*size) }

func (e *emulator) move(to, from operand) error {
	v, err := e.get(from)
	if err != nil {
		return err
	}
	return e.set(to, v)
}

// extend moves an operand of fewer bytes.
func (e *emulator) extend(i *isa.Inst, to operand, next uint64, size int, signed bool) error {
	v, err := e.get(e.rm(i, next, size))
	if err != nil {
		return err
	}
	if signed {
		shift := 64 - 8*size
		v = uint64(int64(v) << shift >> shift)
	}
	return e.set(to, v)
}

func (e *emulator) push(v uint64) error {
	e.reg[rsp] -= 8
	return e.set(operand{memory: true, addr: e.reg[rsp], size: 8}, v)
}

func (e *emulator) pop() (uint64, error) {
	v, err := e.get(operand{memory: true, addr: e.reg[rsp], size: 8})
	e.reg[rsp] += 8
	return v, err
}

// Operations as the opcodes number them.
const (
	add = iota
	or
	addCarry
	subtractBorrow
	and
	subtract
	xor
	compare
)

func (e *emulator) arith(kind uint8, to, from operand) error {
	b, err := e.get(from)
	if err != nil {
		return err
	}
	return e.arithImm(kind, to, int64(b))
}

func (e *emulator) arithImm(kind uint8, to operand, imm int64) error {
	a, err := e.get(to)
	if err != nil {
		return err
	}
	v := e.flags(kind, a, uint64(imm)&mask(to.size), to.size)
	if kind == compare {
		return nil
	}
	return e.set(to, v)
}

func (e *emulator) test(a, b operand) error {
	v, err := e.get(b)
	if err != nil {
		return err
	}
	return e.testImm(a, int64(v))
}

func (e *emulator) testImm(o operand, imm int64) error {
	v, err := e.get(o)
	if err == nil {
		e.flags(and, v, uint64(imm)&mask(o.size), o.size)
	}
	return err
}

// flags returns the result of an operation, and sets the flags by it (SDM vol. 1, 3.4.3.1).
func (e *emulator) flags(kind uint8, a, b uint64, size int) (v uint64) {
	var in uint64
	if e.carry && (kind == addCarry || kind == subtractBorrow) {
		in = 1
	}
	e.carry, e.overflow = false, false
	top := 8*size - 1
	switch kind {
	case add, addCarry:
		v = (a + b + in) & mask(size)
		e.carry = v < a || in != 0 && v == a
		e.overflow = (a^v)&(b^v)>>top&1 != 0
	case subtract, compare, subtractBorrow:
		v = (a - b - in) & mask(size)
		e.carry = a < b || in != 0 && a == b
		e.overflow = (a^b)&(a^v)>>top&1 != 0
	case or:
		v = a | b
	case and:
		v = a & b
	case xor:
		v = a ^ b
	}
	e.result(v, size)
	return v
}

// result sets the flags that tell of a result.
func (e *emulator) result(v uint64, size int) {
	e.zero = v == 0
	e.sign = v>>(8*size-1)&1 != 0
	e.parity = bits.OnesCount8(uint8(v))%2 == 0
}

// shift runs SHL, SHR and SAR. OF is undefined but for a shift by one, and then not asked
// for by any code that a compiler makes: it is cleared.
func (e *emulator) shift(kind uint8, o operand, count uint) error {
	if o.size == 8 {
		count &= 63
	} else {
		count &= 31
	}
	v, err := e.get(o)
	if err != nil || count == 0 {
		return err
	}
	width := uint(8 * o.size)
	switch kind {
	case 4:
		e.carry = count <= width && v>>(width-count)&1 != 0
		v = v << count & mask(o.size)
	case 5:
		e.carry = v>>(count-1)&1 != 0
		v >>= count
	case 7:
		s := int64(v<<(64-width)) >> (64 - width)
		e.carry = s>>(count-1)&1 != 0
		v = uint64(s>>count) & mask(o.size)
	default:
		return errUnsupported
	}
	e.overflow = false
	e.result(v, o.size)
	return e.set(o, v)
}

// condition evaluates the condition of JCC, SETCC and CMOVCC (SDM vol. 1, appendix B).
func (e *emulator) condition(code uint8) bool {
	var is bool
	switch code >> 1 {
	case 0:
		is = e.overflow
	case 1:
		is = e.carry
	case 2:
		is = e.zero
	case 3:
		is = e.carry || e.zero
	case 4:
		is = e.sign
	case 5:
		is = e.parity
	case 6:
		is = e.sign != e.overflow
	case 7:
		is = e.zero || e.sign != e.overflow
	}
	return is != (code&1 != 0)
}
