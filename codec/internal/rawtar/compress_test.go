package rawtar

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	kgzip "github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// TestZstdRuns decodes runs of every short period, or every [testcmd.Step]th, and of lengths around those at which
// the decoder's ways of copying a match that overlaps itself begin.
func TestZstdRuns(t *testing.T) {
	rng := rand.NewChaCha8([32]byte{})
	noise := func(n int) []byte {
		b := make([]byte, n)
		rng.Read(b)
		return b
	}
	var want []byte
	for i := range testcmd.Cases(40, 0) {
		period := 1 + i
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

// TestGzipPadding reads several members, and zeros after the last.
func TestGzipPadding(t *testing.T) {
	var b bytes.Buffer
	for _, text := range []string{"one ", "two"} {
		w := gzip.NewWriter(&b)
		w.Write([]byte(text))
		w.Close()
	}
	for _, tt := range []struct {
		name, tail, want string
		err              error
	}{
		{"nothing", "", "one two", nil},
		{"zeros", strings.Repeat("\x00", 1000), "one two", nil},
		{"part of a header", "\x00\x00\x1f\x8b", "one two", io.ErrUnexpectedEOF},
		{"something else", "rubbish rubbish", "one two", kgzip.ErrHeader},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := NewDecoder(strings.NewReader(b.String()+tt.tail), Gzip, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			got, err := io.ReadAll(d)
			if string(got) != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%q, %v; want %q, %v", got, err, tt.want, tt.err)
			}
			if err != nil && strings.Count(err.Error(), "gzip:") > 1 {
				t.Errorf("%v: the name of the compression twice", err)
			}
		})
	}
}

// pack has a program compress a text.
func pack(tb testing.TB, program, text string, args ...string) []byte {
	tb.Helper()
	cmd := exec.Command(testcmd.Tool(tb, program), append([]string{"-c"}, args...)...)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// TestXZDictionary reads xz files as xz lays them out, and refuses a dictionary of 4 GiB
// in each of their blocks before it is allocated.
func TestXZDictionary(t *testing.T) {
	text := strings.Repeat("some text that compresses, and is longer than a block\n", 200)
	noise := make([]byte, 70_000) // in chunks that are not compressed
	rand.NewChaCha8([32]byte{}).Read(noise)
	all := string(noise) + text + text
	pack := func(args ...string) []byte {
		return pack(t, "xz", all, append([]string{"--block-size=16KiB"}, args...)...)
	}
	// LZMA2 with its one property, the dictionary that xz takes for -0, -6 and -9.
	filters := regexp.MustCompile(`\x21\x01[\x0c\x16\x1c]`)
	read := func(b []byte) (string, error) {
		d, err := NewDecoder(bytes.NewReader(b), XZ, nil)
		if err != nil {
			return "", err
		}
		defer d.Close()
		got, err := io.ReadAll(d)
		return string(got), err
	}
	for _, tt := range []struct {
		name   string
		file   []byte
		blocks int
	}{
		{"no check", pack("--check=none"), 6},
		{"CRC32", pack("--check=crc32"), 6},
		{"CRC64", pack("--check=crc64"), 6},
		{"SHA-256, and sizes in the headers", pack("--check=sha256", "-T2"), 6},
		{"two streams with padding between", slices.Concat(pack("-0"), make([]byte, 8), pack("-9")), 12},
		{"chunks of both kinds in a block", bytes.Repeat(pack("--block-size=1MiB"), 2), 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := read(tt.file); err != nil || strings.ReplaceAll(got, all, "") != "" {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			blocks := filters.FindAllIndex(tt.file, -1)
			if len(blocks) != tt.blocks {
				t.Errorf("%d blocks, want %d", len(blocks), tt.blocks)
			}
			for i, at := range blocks {
				b := slices.Clone(tt.file)
				b[at[1]-1] = 40
				fixHeader(b, tt.file, at[0])
				if _, err := read(b); err == nil || !strings.Contains(err.Error(), "dictionary size exceeds max: more than 128 MiB") {
					t.Errorf("block %d: error %v, want one about the dictionary", i, err)
				}
			}
		})
	}
}

// fixHeader sums up the header of the xz block that has a filter at a place anew. It
// begins where its checksum fits as it was.
func fixHeader(b, was []byte, filter int) {
	for start := filter - 2; start > filter-20; start-- {
		end := start + int(was[start])*4
		if end > filter && end+4 <= len(was) && binary.LittleEndian.Uint32(was[end:]) == crc32.ChecksumIEEE(was[start:end]) {
			binary.LittleEndian.PutUint32(b[end:], crc32.ChecksumIEEE(b[start:end]))
			return
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
	d, err := NewDecoder(bytes.NewReader(b), Zstd, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// FuzzDecoder decompresses arbitrary bytes: the library must give data or an error.
func FuzzDecoder(f *testing.F) {
	text := bytes.Repeat([]byte("some text "), 500)
	for _, program := range []string{"gzip", "zstd", "xz", "bzip2"} {
		b := pack(f, program, string(text))
		f.Add(b)
		f.Add(slices.Concat(b, b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ok := Detect(b)
		if !ok {
			return
		}
		d, err := NewDecoder(bytes.NewReader(b), c, nil)
		if err != nil {
			return
		}
		defer d.Close()
		io.CopyN(io.Discard, d, 16<<20)
	})
}

// TestManyMembers decompresses files of many small parts: the memory for one of them
// serves for all.
func TestManyMembers(t *testing.T) {
	var empty bytes.Buffer
	gzip.NewWriter(&empty).Close()
	packed := map[Compression][]byte{Gzip: empty.Bytes(), Bzip2: []byte("BZh9\x17\x72\x45\x38\x50\x90\x00\x00\x00\x00"),
		Zstd: append([]byte("\x28\xb5\x2f\xfd\x00\x88"), 1, 0, 0), XZ: pack(t, "xz", "one byte or more")}
	for c, one := range packed {
		read := func(n int) uint64 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			d, err := NewDecoder(bytes.NewReader(bytes.Repeat(one, n)), c, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if _, err := io.Copy(io.Discard, d); err != nil {
				t.Errorf("%s: %v", c, err)
			}
			runtime.ReadMemStats(&after)
			return after.TotalAlloc - before.TotalAlloc
		}
		once := read(1)
		if many := read(10_000); many > once+10_000*4096 {
			t.Errorf("%s: %d bytes allocated for one, %d for 10000", c, once, many)
		}
	}
}
