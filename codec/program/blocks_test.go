package program

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// A file that is read in blocks reads as itself.
func TestBlocks(t *testing.T) {
	content := make([]byte, 3*blockSize+100)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	file := bytes.NewReader(content)
	s := &blocks{file: file}
	size := int64(len(content))
	for range 20_000 {
		n := []int{1 + rand.IntN(20), 1 + rand.IntN(2*blockSize)}[rand.IntN(2)]
		at := rand.Int64N(size + 10)
		if rand.IntN(4) == 0 { // over the end of a block, or of the file
			at = max(0, (1+rand.Int64N(4))*blockSize-rand.Int64N(20))
		}
		got, want := make([]byte, n), make([]byte, n)
		gn, gerr := s.ReadAt(got, at)
		wn, werr := file.ReadAt(want, at)
		if gn != wn || (gerr == nil) != (werr == nil) || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes at %d: %d, %v, want %d, %v", n, at, gn, gerr, wn, werr)
		}
	}
	// Blocks that share a place in the cache do not pass for each other.
	s = &blocks{file: counting{}}
	for _, at := range []int64{0, blocksKept * blockSize, 0, 3 * blocksKept * blockSize} {
		var b [8]byte
		if _, err := s.ReadAt(b[:], at); err != nil || b[0] != byte(at/blockSize/blocksKept) {
			t.Errorf("at %#x: %d, %v", at, b[0], err)
		}
	}
}

// counting is a file of which every byte tells which part it is of.
type counting struct{}

func (counting) ReadAt(p []byte, at int64) (int, error) {
	for i := range p {
		p[i] = byte((at + int64(i)) / blockSize / blocksKept)
	}
	return len(p), nil
}

// failing is a file that fails once.
type failing struct {
	io.ReaderAt
	err error
}

func (f *failing) ReadAt(p []byte, at int64) (int, error) {
	if err := f.err; err != nil {
		f.err = nil
		return 0, err
	}
	return f.ReaderAt.ReadAt(p, at)
}

// An error is told, and what could not be read is not kept.
func TestBlocksError(t *testing.T) {
	bad := errors.New("bad sector")
	s := &blocks{file: &failing{bytes.NewReader([]byte("0123456789")), bad}}
	var b [4]byte
	if n, err := s.ReadAt(b[:], 2); n != 0 || !errors.Is(err, bad) {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := s.ReadAt(b[:], 2); n != 4 || err != nil || string(b[:]) != "2345" {
		t.Errorf("then %d, %v, %q", n, err, b)
	}
}

func TestAddresses(t *testing.T) {
	var s addresses
	want := map[uint64]bool{}
	for range 50_000 {
		at := []uint64{0x1000, 0x11ff, 1<<64 - 512}[rand.IntN(3)] + rand.Uint64N(512)
		if s.add(at) == want[at] {
			t.Fatalf("%#x: new is %v", at, want[at])
		}
		want[at] = true
	}
	if s.n != len(want) {
		t.Errorf("%d addresses, want %d", s.n, len(want))
	}
}

func TestNextWord(t *testing.T) {
	wanted := [...]uint32{0x11223344, 0x55667788, 0x99aabbcc, 0xddeeff00}
	for i := range wanted {
		for at := range 40 {
			b := make([]byte, 46)
			copy(b[at:], []byte{byte(wanted[i]), byte(wanted[i] >> 8), byte(wanted[i] >> 16), byte(wanted[i] >> 24)})
			want := len(b)
			if at%4 == 0 {
				want = at
			}
			if got := nextWord(b, 0, &wanted); got != want {
				t.Errorf("%#x at %d is found at %d", wanted[i], at, got)
			}
		}
	}
}
