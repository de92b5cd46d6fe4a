package rawtar

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// TestZstdRuns decodes runs of every short period and of lengths around those at which
// the decoder's ways of copying a match that overlaps itself begin.
func TestZstdRuns(t *testing.T) {
	rng := rand.NewChaCha8([32]byte{})
	noise := func(n int) []byte {
		b := make([]byte, n)
		rng.Read(b)
		return b
	}
	var want []byte
	for period := 1; period <= 40; period++ {
		for n := 1; n <= 130; n++ {
			want = append(append(want, noise(3+n%5)...), run(noise(period), n)...)
		}
		for _, n := range []int{1000, 4096, 65_537, 131_075, 300_000} {
			want = append(append(want, noise(7)...), run(noise(period), n)...)
		}
	}
	for _, level := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBestCompression} {
		for _, window := range []int{zstd.MinWindowSize, 128 << 10, 8 << 20} {
			t.Run(fmt.Sprintf("%v/window %d", level, window), func(t *testing.T) {
				d := decode(t, encode(t, want, zstd.WithEncoderLevel(level), zstd.WithWindowSize(window)))
				defer d.Close()
				got, err := io.ReadAll(d)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					i := 0
					for i < min(len(got), len(want)) && got[i] == want[i] {
						i++
					}
					t.Errorf("%d bytes, want %d; they differ from byte %d", len(got), len(want), i)
				}
			})
		}
	}
}

// BenchmarkZstdZeros decodes runs of zeros, and for comparison as many runs with a
// period of 16 bytes, which a decoder can copy in blocks without more ado.
func BenchmarkZstdZeros(b *testing.B) {
	const window = 32 << 10
	rng := rand.NewChaCha8([32]byte{})
	noise := make([]byte, window) // so that no run is a copy of the one before
	var files [2][]byte
	for i, period := range [][]byte{{0}, []byte("a whole 16 bytes")} {
		var data []byte
		for len(data) < 32<<20 {
			rng.Read(noise)
			data = append(append(data, noise...), run(period, window/2)...)
		}
		files[i] = encode(b, data, zstd.WithWindowSize(window))
	}
	var took [2]time.Duration
	for b.Loop() {
		for i, file := range files {
			start := time.Now()
			d := decode(b, file)
			if _, err := io.Copy(io.Discard, d); err != nil {
				b.Fatal(err)
			}
			d.Close()
			took[i] += time.Since(start)
		}
	}
	b.ReportMetric(float64(took[0])/float64(took[1]), "x-of-period-16")
}

// run repeats a period up to n bytes.
func run(period []byte, n int) []byte {
	return bytes.Repeat(period, n/len(period)+1)[:n]
}

func encode(tb testing.TB, b []byte, opts ...zstd.EOption) []byte {
	tb.Helper()
	e, err := zstd.NewWriter(nil, opts...)
	if err != nil {
		tb.Fatal(err)
	}
	return e.EncodeAll(b, nil)
}

func decode(tb testing.TB, b []byte) io.ReadCloser {
	tb.Helper()
	d, err := NewDecoder(bytes.NewReader(b), Zstd)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}
