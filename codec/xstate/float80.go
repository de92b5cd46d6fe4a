package xstate

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"strings"
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
		return sign + f.decimal()
	default:
		return fmt.Sprintf("%s%s (%s)", sign, f.decimal(), c)
	}
}

// decimal returns the magnitude of a finite number: the shortest digits that lie
// nearer to it than half the way to its neighbours. Integers do it, because
// big.Float takes milliseconds for a denormal, and its shortest form of some powers
// of two reads as the number below.
func (f Float80) decimal() string {
	m, e := f.Significand(), max(int(f.Exponent()), 1)-16383-63 // the number is m * 2^e
	if m == 0 {
		return "0"
	}
	lead := bits.LeadingZeros64(m) // read with 64 bits of precision, whatever it is
	m, e = m<<lead, e-lead

	// scale gives v quarters of the last bit's weight as a multiple of 10^-k, with
	// some digits more than the 21 that ever are needed.
	k := 30 - int(math.Floor(float64(e+63)*math.Log10(2)))
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(k, -k))), nil)
	four := new(big.Int).Lsh(new(big.Int).SetUint64(m), 2)
	scale := func(quarters int64) *big.Int {
		v := new(big.Int).Add(four, big.NewInt(quarters))
		if k >= 0 {
			v.Mul(v, power)
		}
		if e >= 2 {
			v.Lsh(v, uint(e-2))
		} else {
			v.Rsh(v, uint(2-e))
		}
		if k < 0 {
			v.Quo(v, power)
		}
		return v
	}
	x, low, high := scale(0), scale(-2), scale(2)
	if m == 1<<63 { // the numbers below lie twice as dense
		low = scale(-1)
	}
	unit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(len(x.String())-1)), nil)
	c := new(big.Int)
	for {
		c.Add(x, new(big.Int).Rsh(unit, 1)) // to the nearest multiple of unit
		c.Mul(c.Quo(c, unit), unit)
		if c.Cmp(low) > 0 && c.Cmp(high) < 0 {
			break
		}
		unit.Quo(unit, big.NewInt(10))
	}
	digits := c.String()
	exp := len(digits) - 1 - k
	digits = strings.TrimRight(digits, "0")
	switch {
	case exp < -4 || exp >= 6:
		if len(digits) > 1 {
			digits = digits[:1] + "." + digits[1:]
		}
		return fmt.Sprintf("%se%+03d", digits, exp)
	case exp < 0:
		return "0." + strings.Repeat("0", -exp-1) + digits
	case len(digits) <= exp:
		return digits + strings.Repeat("0", exp+1-len(digits))
	case len(digits) == exp+1:
		return digits
	}
	return digits[:exp+1] + "." + digits[exp+1:]
}

// Hex returns the 80 bits as "0x" and 20 digits, most significant first.
func (f Float80) Hex() string { return hexValue(f[:]) }
