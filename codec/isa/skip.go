package isa

// Skip returns the length of the instruction at the start of b if it is one of those that
// most code is made of, which need no feature, and not CPUID; and whether its flow is
// [Next]. Of others it returns 0, and where b has less than 15 bytes: Decode tells.
func Skip(b []byte) (n int, next bool) {
	once.Do(index)
	if len(b) < 15 {
		return 0, false
	}
	w, op, m := uint8(0), b[0], OneByte
	n = 1
	if op&0xf0 == 0x40 {
		n, w, op = 2, op>>3&1, b[1]
	}
	if op == 0x0f {
		n, m, op = n+1, Map0F, b[n]
	}
	s := &skips[m][op]
	n += int(s.size[w])
	if s.forms == [2]uint8{} {
		if s.size[w] == 0 {
			return 0, false
		}
		return n - 1, !s.jumps
	}
	at := n - int(s.size[w])
	modRM := b[at]
	if s.forms[modRM>>6/3]>>(modRM>>3&7)&1 == 0 {
		return 0, false
	}
	mod, rm := modRM>>6, modRM&7
	switch {
	case mod == 3:
		return n, !s.jumps
	case rm == 4: // SIB
		n++
		rm = b[at+1] & 7
	}
	switch {
	case mod == 1:
		n++
	case mod == 2, rm == 5:
		n += 4
	}
	return n, !s.jumps
}

// skip is what Skip knows of an opcode.
type skip struct {
	size  [2]uint8 // of the immediate, and 1; by REX.W. 0 of what is not skipped
	forms [2]uint8 // which ModRM.reg are skipped, with memory and with a register; none have ModRM
	jumps bool     // the flow is not Next
}

// skips has the maps OneByte and Map0F.
var skips [Map0F + 1][256]skip

func indexSkips() {
	const cpuid = 0xa2
	all := [2]uint8{0xff, 0xff}
	for m, forms := range [...]string{OneByte: oneByte, Map0F: twoByte} {
		for op := range 256 {
			s := &skips[m][op]
			switch forms[op] {
			case '-':
				if Map(m) != Map0F || op != cpuid {
					s.size = [2]uint8{1, 1}
				}
			case 'b', 'j':
				s.size = [2]uint8{2, 2}
			case 'z', 'J':
				s.size = [2]uint8{5, 5}
			case 'v':
				s.size = [2]uint8{5, 9}
			case 'm':
				*s = skip{size: [2]uint8{1, 1}, forms: all}
			case 'B':
				*s = skip{size: [2]uint8{2, 2}, forms: all}
			case 'Z':
				*s = skip{size: [2]uint8{5, 5}, forms: all}
			case 'r':
				*s = ofRows(Map(m), uint8(op))
			}
			s.jumps = (&Inst{Map: Map(m), Op: uint8(op)}).Flow() != Next
		}
	}
}

// ofRows is what the rows of an opcode say of it without a prefix, but for forms that jump,
// and those with another immediate than the first.
func ofRows(m Map, op uint8) (s skip) {
	if m == Map0F && op == 0x01 { // its register forms are a map of their own
		return s
	}
	for modRM := 0; modRM < 256; modRM += 8 {
		i := Inst{Map: m, Op: op, Prefix: HasModRM, ModRM: uint8(modRM)}
		found := i.find(i.want(0)) && forms[i.row].need == 0 && i.Flow() == Next
		row := i.row
		i.REX = 8
		if !found || !i.find(i.want(0)) || i.row != row {
			continue
		}
		size := uint8(1)
		switch forms[row].attr {
		case 0:
		case imm8:
			size = 2
		case immz:
			size = 5
		default:
			continue
		}
		if s.size[0] == 0 {
			s.size = [2]uint8{size, size}
		}
		if s.size[0] == size {
			s.forms[modRM>>6/3] |= 1 << (modRM >> 3 & 7)
		}
	}
	return s
}
