package xstate

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/big"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// float80 reads 20 hex digits, most significant first.
func float80(tb testing.TB, digits string) Float80 {
	tb.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) != 10 {
		tb.Fatalf("%q is not 20 hex digits", digits)
	}
	slices.Reverse(b)
	return Float80(b)
}

type float80Test struct {
	bits  string
	class Class
	want  string
	c     string
}

// float80Tests: c is what printf of glibc makes of the value with %.21Lg, which
// strtold reads back as the same 80 bits. It has no word for encodings that are
// invalid since the 387, and ignores the integer
// bit of pseudo-denormals; c is empty for these.
var float80Tests = []float80Test{
	{"00000000000000000000", ClassZero, "0", "0"},
	{"80000000000000000000", ClassZero, "-0", "-0"},
	{"3fff8000000000000000", ClassNormal, "1", "1"},
	{"bfffc000000000000000", ClassNormal, "-1.5", "-1.5"},
	{"4000c90fdaa22168c235", ClassNormal, "3.1415926535897932385", "3.14159265358979323851"},
	{"3ffba3d70a3d70a3d70a", ClassNormal, "0.08", "0.0799999999999999999984"},
	{"3fffaaaaaaaaaaaaaaab", ClassNormal, "1.3333333333333333334", "1.33333333333333333337"},
	{"3feda7c5ac471b478423", ClassNormal, "5e-06", "4.99999999999999999997e-06"},
	{"3fd8f15a2ddbb4ba8ab2", ClassNormal, "3.4298219338922449556e-12", "3.42982193389224495558e-12"},
	{"4012f423f00000000000", ClassNormal, "999999", "999999"},
	{"4013f424000000000000", ClassNormal, "2e+06", "2000000"},
	{"403effffffffffffffff", ClassNormal, "1.8446744073709551615e+19", "18446744073709551615"},
	{"403affffffffffffffff", ClassNormal, "1.15292150460684697594e+18", "1152921504606846975.94"},
	{"40418000000000000000", ClassNormal, "7.3786976294838206464e+19", "73786976294838206464"},
	{"00018000000000000000", ClassNormal, "3.3621031431120935063e-4932", "3.36210314311209350626e-4932"},
	{"7ffeffffffffffffffff", ClassNormal, "1.189731495357231765e+4932", "1.18973149535723176502e+4932"},
	{"fffeffffffffffffffff", ClassNormal, "-1.189731495357231765e+4932", "-1.18973149535723176502e+4932"},
	{"00000000000000000001", ClassDenormal, "3.6451995318824746025e-4951 (denormal)", "3.64519953188247460253e-4951"},
	{"0000000000000000000f", ClassDenormal, "5.4677992978237119038e-4950 (denormal)", "5.46779929782371190379e-4950"},
	{"80000000000123456789", ClassDenormal, "-1.7813063423635501024e-4941 (denormal)", "-1.78130634236355010242e-4941"},
	{"00007fffffffffffffff", ClassDenormal, "3.3621031431120935059e-4932 (denormal)", "3.3621031431120935059e-4932"},
	{"00008000000000000000", ClassPseudoDenormal, "3.3621031431120935063e-4932 (pseudo-denormal)", "3.36210314311209350626e-4932"},
	{"0000c000000000000001", ClassPseudoDenormal, "5.0431547146681402598e-4932 (pseudo-denormal)", ""},
	{"7fff8000000000000000", ClassInfinity, "inf", "inf"},
	{"ffff8000000000000000", ClassInfinity, "-inf", "-inf"},
	{"7fffc000000000000000", ClassQNaN, "qnan(0x0)", "nan"},
	{"ffffc000000000000000", ClassQNaN, "-qnan(0x0)", "-nan"}, // the default NaN, "real indefinite"
	{"7fffc000000000001234", ClassQNaN, "qnan(0x1234)", "nan"},
	{"7fffffffffffffffffff", ClassQNaN, "qnan(0x3fffffffffffffff)", "nan"},
	{"7fff8000000000000001", ClassSNaN, "snan(0x1)", "nan"},
	{"ffffa000000000001234", ClassSNaN, "-snan(0x2000000000001234)", "-nan"},
	{"7fff0000000000000000", ClassPseudoInfinity, "pseudo-infinity", ""},
	{"ffff0000000000000000", ClassPseudoInfinity, "-pseudo-infinity", ""},
	{"7fff0000000000000001", ClassPseudoNaN, "pseudo-nan(0x1)", ""},
	{"ffff4000000000000000", ClassPseudoNaN, "-pseudo-nan(0x4000000000000000)", ""}, // also an MMX register
	{"3fff7fffffffffffffff", ClassUnnormal, "0.9999999999999999999 (unnormal)", ""},
	{"40000000000000000000", ClassUnnormal, "0 (unnormal)", ""},
	{"80010000000000000001", ClassUnnormal, "-3.6451995318824746025e-4951 (unnormal)", ""},
}

func TestFloat80(t *testing.T) {
	for _, tt := range float80Tests {
		f := float80(t, tt.bits)
		if got := f.Hex(); got != "0x"+tt.bits {
			t.Errorf("%s: hex %s", tt.bits, got)
		}
		if got := f.Class(); got != tt.class {
			t.Errorf("%s: class %v, want %v", tt.bits, got, tt.class)
		}
		if got := f.String(); got != tt.want {
			t.Errorf("%s = %q, want %q", tt.bits, got, tt.want)
		}
		if got, want := f.Sign(), tt.bits[0] >= '8'; got != want {
			t.Errorf("%s: sign %v, want %v", tt.bits, got, want)
		}
		if tt.c == "" || tt.class == ClassInfinity || tt.class == ClassQNaN || tt.class == ClassSNaN {
			continue
		}
		number, _, _ := strings.Cut(tt.want, " ")
		if got, want := parse64(t, number), parse64(t, tt.c); got.Cmp(want) != 0 {
			t.Errorf("%s = %s, want the value of %s", tt.bits, number, tt.c)
		}
	}
	for c := range ClassPseudoNaN + 1 {
		if !slices.ContainsFunc(float80Tests, func(tt float80Test) bool { return tt.class == c }) {
			t.Errorf("no case of class %v", c)
		}
	}
}

// parse64 reads a decimal number with the precision of an x87 register.
func parse64(tb testing.TB, s string) *big.Float {
	tb.Helper()
	v, _, err := big.ParseFloat(s, 10, 64, big.ToNearestEven)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// TestFloat80RoundTrip: the decimal string of a finite number, read back with 64
// bits of precision, is the number.
func TestFloat80RoundTrip(t *testing.T) {
	rnd := rand.New(rand.NewPCG(80, 64))
	for i := range 1000 {
		exponent, significand := uint16(16383-100+rnd.UintN(200)), rnd.Uint64()|1<<63
		switch i % 40 {
		case 0:
			exponent = uint16(1 + rnd.UintN(0x7ffe))
		case 1:
			exponent, significand = 0, rnd.Uint64()>>(1+rnd.UintN(63))|1
		case 2:
			significand = 1 << 63
		case 3:
			significand = significand>>rnd.UintN(64)<<rnd.UintN(64) | 1<<63
		}
		var f Float80
		binary.LittleEndian.PutUint64(f[:], significand)
		binary.LittleEndian.PutUint16(f[8:], exponent|uint16(i&1)<<15)
		s, _, _ := strings.Cut(f.String(), " ")

		got := parse64(t, s)
		if got.Signbit() != f.Sign() {
			t.Fatalf("%s = %s: sign", f.Hex(), s)
		}
		// significand * 2^(exponent-16383-63), exactly
		want := new(big.Float).SetUint64(significand)
		want.SetMantExp(want, max(int(exponent), 1)-16383-63)
		if got.Abs(got).Cmp(want) != 0 {
			t.Fatalf("%s = %s, which reads as another number", f.Hex(), s)
		}
	}
}

// shortest returns the digits of the shortest decimal that reads as m * 2^e, and the
// exponent of the first one, by integers of any size: from the longest digits down.
func shortest(m uint64, e int) (string, int) {
	// As a multiple of 10^-k, where nothing is cut: 4*m*2^(e-2) is whole for k large.
	k := max(0, 2-e)
	scale := func(quarters int64) *big.Int {
		v := new(big.Int).SetUint64(m)
		v.Add(v.Lsh(v, 2), big.NewInt(quarters))
		v.Mul(v, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(k)), nil))
		if e >= 2 {
			return v.Lsh(v, uint(e-2))
		}
		return v.Rsh(v, uint(2-e))
	}
	x, low, high := scale(0), scale(-2), scale(2)
	if m == 1<<63 {
		low = scale(-1)
	}
	best := x
	for unit := big.NewInt(10); ; unit = new(big.Int).Mul(unit, big.NewInt(10)) {
		c := new(big.Int).Add(x, new(big.Int).Rsh(unit, 1))
		c.Mul(c.Quo(c, unit), unit)
		if c.Cmp(low) <= 0 || c.Cmp(high) >= 0 {
			break
		}
		best = c
	}
	digits := best.String()
	return strings.TrimRight(digits, "0"), len(digits) - 1 - k
}

// TestFloat80Shortest compares the digits of many numbers, most of which words of fixed
// size hold, with those that integers of any size give: 20,000, or one in [testcmd.Step] of so
// many.
func TestFloat80Shortest(t *testing.T) {
	rnd := rand.New(rand.NewPCG(80, 10))
	for i := range 20000 / testcmd.Step {
		exponent, significand := 16383-160+rnd.IntN(380), rnd.Uint64()|1<<63
		switch i % 5 {
		case 0: // few bits
			significand = significand>>rnd.UintN(64)<<rnd.UintN(64) | 1<<63
		case 1: // a float64
			significand &^= 1<<11 - 1
		case 2: // near a power of two
			significand = 1<<63 + rnd.Uint64N(3)
		case 3: // a whole number
			n := 1 + rnd.Uint64()>>rnd.UintN(64)
			significand, exponent = n<<bits.LeadingZeros64(n), 16383+63-bits.LeadingZeros64(n)
		}
		var f Float80
		binary.LittleEndian.PutUint64(f[:], significand)
		binary.LittleEndian.PutUint16(f[8:], uint16(exponent))
		number, exp, _ := strings.Cut(f.String(), "e")
		digits, at := shortest(significand, exponent-16383-63)
		got := strings.Trim(strings.ReplaceAll(number, ".", ""), "0")
		first := strings.IndexByte(number, '.') - 1
		if first < 0 {
			first = len(number) - 1
		}
		for j := 0; number[j] == '0' || number[j] == '.'; j++ {
			if number[j] == '0' {
				first--
			}
		}
		if exp != "" {
			n, err := strconv.Atoi(exp)
			if err != nil {
				t.Fatal(err)
			}
			first += n
		}
		if got != digits || first != at {
			t.Fatalf("%s = %s, want digits %s from 10^%d on", f.Hex(), f, digits, at)
		}
	}
}

// TestScale compares the arithmetic of words with that of integers of any size.
func TestScale(t *testing.T) {
	rnd := rand.New(rand.NewPCG(80, 77))
	for k := range maxScale + 1 {
		for range 300 {
			// of the binary exponents that decimal takes k for, and their neighbours
			e := int(float64(30-k)/math.Log10(2)) - 63 + rnd.IntN(5)
			m := rnd.Uint64() | 1<<63
			if rnd.IntN(4) == 0 {
				m = 1 << 63
			}
			for _, quarters := range []int64{0, -1, -2, 2} {
				if got, want := scaleWords(m, quarters, e, k), bigScale(k)(m, quarters, e, k); got != want {
					t.Fatalf("(%#x + %d/4) * 2^%d * 10^%d = %s, want %s", m, quarters, e, k, got[:], want[:])
				}
			}
		}
	}
}

func BenchmarkFloat80(b *testing.B) {
	for _, bits := range []string{"4000c90fdaa22168c235", "fffeffffffffffffffff", "00000000000000000001", "7fffc000000000001234"} {
		f := float80(b, bits)
		b.Run(f.String(), func(b *testing.B) {
			for b.Loop() {
				_ = f.String()
			}
		})
	}
}
