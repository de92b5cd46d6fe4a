package xstate

import (
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
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
