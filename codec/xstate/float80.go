package xstate

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
	"sync/atomic"
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

	// The number and the ends of what reads as it, as multiples of 10^-k, with some
	// digits more than the 21 that ever are needed.
	k := 30 - int(math.Floor(float64(e+63)*math.Log10(2)))
	below := int64(-2) // quarters of the last bit's weight
	if m == 1<<63 {    // the numbers below lie twice as dense
		below = -1
	}
	scale := scaleWords
	if k < 0 || k > maxScale {
		scale = bigScale(k)
	}
	x, low, high := scale(m, 0, e, k), scale(m, below, e, k), scale(m, 2, e, k)
	first := 0 // digit of x
	for x[first] == '0' {
		first++
	}
	n := first + 1 // digits of the result
	for n < len(x) && low[n-1] == high[n-1] && string(low[:n]) == string(high[:n]) {
		n++ // no shorter one lies between
	}
	c := roundedTo(x, n)
	for !(string(c[:]) > string(low[:]) && string(c[:]) < string(high[:])) {
		n++
		c = roundedTo(x, n)
	}
	first = 0
	for c[first] == '0' {
		first++
	}
	digits := strings.TrimRight(string(c[first:]), "0")
	exp := len(c) - first - 1 - k
	switch {
	case exp < -4 || exp >= 6:
		if len(digits) > 1 {
			digits = digits[:1] + "." + digits[1:]
		}
		sign, size := "e+", strconv.Itoa(max(exp, -exp))
		if exp < 0 {
			sign = "e-"
		}
		if len(size) < 2 {
			size = "0" + size
		}
		return digits + sign + size
	case exp < 0:
		return "0." + strings.Repeat("0", -exp-1) + digits
	case len(digits) <= exp:
		return digits + strings.Repeat("0", exp+1-len(digits))
	case len(digits) == exp+1:
		return digits
	}
	return digits[:exp+1] + "." + digits[exp+1:]
}

// scaled is a number in decimal, with leading zeros.
type scaled [36]byte

// bigScale returns what returns (m + quarters/4) * 2^e * 10^k, cut, for one k.
func bigScale(k int) func(m uint64, quarters int64, e, _ int) scaled {
	power := power10(max(k, -k))
	return func(m uint64, quarters int64, e, _ int) scaled { return scaleBig(m, quarters, e, k, power) }
}

// powers are those of ten that were asked for: registers hold the same few numbers.
var powers [64]atomic.Pointer[power]

// power is 10^k.
type power struct {
	k     int
	value *big.Int
}

// power10 returns 10^k, which is shared.
func power10(k int) *big.Int {
	kept := &powers[k%len(powers)]
	if p := kept.Load(); p != nil && p.k == k {
		return p.value
	}
	p := &power{k, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(k)), nil)}
	kept.Store(p)
	return p.value
}

func scaleBig(m uint64, quarters int64, e, k int, power *big.Int) (out scaled) {
	v := new(big.Int).SetUint64(m)
	v.Add(v.Lsh(v, 2), big.NewInt(quarters))
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
	for i := range out {
		out[i] = '0'
	}
	digits := v.String()
	copy(out[len(out)-len(digits):], digits)
	return out
}

// maxScale is the greatest k for which scaleWords has room: m * 4 * 10^k is less than
// 2^320, and what is left of it, below 10^32, fits two words.
const maxScale = 76

// pow10 is the powers of ten that a word holds.
var pow10 = func() (p [20]uint64) {
	p[0] = 1
	for i := range p[1:] {
		p[i+1] = 10 * p[i]
	}
	return p
}()

// scaleWords is what bigScale returns, for the numbers that most registers hold.
func scaleWords(m uint64, quarters int64, e, k int) (out scaled) {
	var v [5]uint64 // the least word first
	v[0] = m<<2 + uint64(quarters)
	v[1] = m >> 62
	if quarters < 0 && v[0] > m<<2 { // it borrowed
		v[1]--
	} else if quarters > 0 && v[0] < m<<2 {
		v[1]++
	}
	for k > 0 {
		n := min(k, len(pow10)-1)
		carry := uint64(0)
		for i := range v {
			hi, lo := bits.Mul64(v[i], pow10[n])
			var c uint64
			v[i], c = bits.Add64(lo, carry, 0)
			carry = hi + c
		}
		k -= n
	}
	shift := uint(2 - e) // to the right
	if e > 2 {
		shift = 0
		for range e - 2 { // a few bits
			v[1], v[0] = v[1]<<1|v[0]>>63, v[0]<<1
		}
	}
	for ; shift >= 64; shift -= 64 {
		copy(v[:], v[1:])
		v[len(v)-1] = 0
	}
	hi, lo := v[1]>>shift|v[2]<<(64-shift), v[0]>>shift|v[1]<<(64-shift)
	for i := len(out); i > 0; {
		quotient, rest := uint64(0), lo
		if hi > 0 {
			quotient, rest = bits.Div64(hi, lo, pow10[18])
		} else {
			quotient, rest = lo/pow10[18], lo%pow10[18]
		}
		for range 18 {
			i--
			out[i] = '0' + byte(rest%10)
			rest /= 10
		}
		hi, lo = 0, quotient
	}
	return out
}

// roundedTo returns x with nothing but zeros after n digits.
func roundedTo(x scaled, n int) scaled {
	if n >= len(x) {
		return x
	}
	up := x[n] >= '5'
	for i := n; i < len(x); i++ {
		x[i] = '0'
	}
	for i := n - 1; up && i >= 0; i-- {
		if up = x[i] == '9'; up {
			x[i] = '0'
		} else {
			x[i]++
		}
	}
	return x
}

// Hex returns the 80 bits as "0x" and 20 digits, most significant first.
func (f Float80) Hex() string { return hexValue(f[:]) }
