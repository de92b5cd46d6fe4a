package xstate

import (
	"encoding/binary"
	"fmt"
	"math/big"
)

// Float80 is an x87 register: the 10 bytes of a double extended-precision value,
// little endian (SDM vol. 1, 4.2.2).
type Float80 [10]byte

// Class says which kind of number a [Float80] encodes (SDM vol. 1, table 8-3).
type Class uint8

const (
	ClassZero Class = iota
	ClassNormal
	ClassDenormal
	ClassPseudoDenormal
	ClassInfinity
	ClassQNaN
	ClassSNaN
	// The encodings below are invalid operands on every x87 since the 387.
	ClassUnnormal
	ClassPseudoInfinity
	ClassPseudoNaN
)

var classNames = [...]string{"zero", "normal", "denormal", "pseudo-denormal", "infinity",
	"qnan", "snan", "unnormal", "pseudo-infinity", "pseudo-nan"}

func (c Class) String() string { return classNames[c] }

// Sign reports whether the sign bit is set.
func (f Float80) Sign() bool { return f[9]&0x80 != 0 }

// Exponent returns the biased exponent, 15 bits.
func (f Float80) Exponent() uint16 { return binary.LittleEndian.Uint16(f[8:]) & 0x7fff }

// Significand returns the 64-bit significand, integer bit included.
func (f Float80) Significand() uint64 { return binary.LittleEndian.Uint64(f[:]) }

// Class returns the kind of number.
func (f Float80) Class() Class {
	e, m := f.Exponent(), f.Significand()
	integer, fraction := m>>63 != 0, m&(1<<63-1)
	switch {
	case e == 0 && m == 0:
		return ClassZero
	case e == 0 && integer:
		return ClassPseudoDenormal
	case e == 0:
		return ClassDenormal
	case e == 0x7fff && !integer && fraction == 0:
		return ClassPseudoInfinity
	case e == 0x7fff && !integer:
		return ClassPseudoNaN
	case e == 0x7fff && fraction == 0:
		return ClassInfinity
	case e == 0x7fff && fraction>>62 != 0:
		return ClassQNaN
	case e == 0x7fff:
		return ClassSNaN
	case !integer:
		return ClassUnnormal
	}
	return ClassNormal
}

// String returns the value in decimal, as short as it can be and still be read
// back exactly with 64 bits of precision; NaNs carry their payload, and an encoding
// that is no plain number carries its kind: "-1.5",
// "3.6451995318824746025e-4951 (denormal)", "snan(0x1234)".
func (f Float80) String() string {
	sign := ""
	if f.Sign() {
		sign = "-"
	}
	switch c := f.Class(); c {
	case ClassZero:
		return sign + "0"
	case ClassInfinity:
		return sign + "inf"
	case ClassQNaN, ClassSNaN:
		return fmt.Sprintf("%s%s(%#x)", sign, c, f.Significand()&(1<<62-1))
	case ClassPseudoInfinity:
		return sign + c.String()
	case ClassPseudoNaN:
		return fmt.Sprintf("%s%s(%#x)", sign, c, f.Significand())
	case ClassNormal:
		return sign + f.abs().Text('g', -1)
	default:
		return fmt.Sprintf("%s%s (%s)", sign, f.abs().Text('g', -1), c)
	}
}

// abs returns the magnitude of a finite value. The exponent of denormals is that
// of the smallest normal number, 1.
func (f Float80) abs() *big.Float {
	e := int(f.Exponent())
	if e == 0 {
		e = 1
	}
	m := f.Significand()
	prec := uint(64)
	if m&(m-1) == 0 {
		// Below a power of two the numbers lie twice as dense as above, which
		// big.Float's shortest form does not allow for: of 2^66 it gives a
		// string that reads as the number before it.
		prec++
	}
	v := new(big.Float).SetPrec(prec).SetUint64(m)
	return v.SetMantExp(v, e-16383-63)
}

// Hex returns the 80 bits as "0x" and 20 digits, most significant first.
func (f Float80) Hex() string { return hexValue(f[:]) }
