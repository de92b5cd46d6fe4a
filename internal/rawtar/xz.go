package rawtar

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math"
)

// xzGuard passes an xz file on, and looks at each block header before the decoder
// does, which allocates whatever dictionary a block asks for. It follows the file by
// the lengths that stand in it (xz file format 1.0.4; LZMA2 chunks as in the kernel's
// lib/xz/xz_dec_lzma2.c). What is wrong with a malformed file the decoder says.
type xzGuard struct {
	r     *bufio.Reader
	at    int64 // in the file: streams and blocks start at multiples of four
	pass  int64 // how much may go on before the next look
	check int64 // the size of the check of this stream's blocks
	look  func()
	err   error
}

func newXZGuard(r *bufio.Reader) *xzGuard {
	g := &xzGuard{r: r}
	g.look = g.stream
	return g
}

func (g *xzGuard) Read(b []byte) (int, error) {
	for g.pass == 0 {
		if g.look(); g.err != nil {
			return 0, g.err
		}
	}
	n, err := g.r.Read(b[:min(int64(len(b)), g.pass)])
	g.at += int64(n)
	g.pass -= int64(n)
	return n, err
}

// step lets n bytes go on; then comes what next looks at.
func (g *xzGuard) step(n int, next func()) { g.pass, g.look = int64(n), next }

// rest lets everything go on: the decoder will not get beyond what comes now.
func (g *xzGuard) rest() { g.step(math.MaxInt, g.rest) }

func (g *xzGuard) peek(n int) []byte {
	b, _ := g.r.Peek(n) // less at the end of the file
	return b
}

// stream looks at the header of a stream, or at padding before one.
func (g *xzGuard) stream() {
	const headerSize = 12
	b := g.peek(headerSize)
	switch {
	case len(b) >= 4 && allZero(b[:4]):
		g.step(4, g.stream)
	case len(b) < headerSize:
		g.rest()
	default:
		// 2.1.1.2: the sizes of the checks by their IDs.
		g.check = [...]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[b[7]&15]
		g.step(headerSize, g.block)
	}
}

// block looks at the header of a block (3.1), or at the index that follows the last.
func (g *xzGuard) block() {
	b := g.peek(1)
	switch {
	case len(b) < 1:
		g.rest()
		return
	case b[0] == 0:
		g.step(1, g.index)
		return
	}
	size := (int(b[0]) + 1) * 4
	if b = g.peek(size); len(b) < size {
		g.rest()
		return
	}
	flags, fields := b[1], b[2:]
	for _, bit := range []byte{0x40, 0x80} { // a compressed, an uncompressed size
		if flags&bit != 0 {
			_, n := binary.Uvarint(fields)
			fields = fields[max(n, 0):]
		}
	}
	const lzma2 = 0x21
	if flags&3 != 0 || len(fields) < 3 || fields[0] != lzma2 || fields[1] != 1 {
		g.rest() // other filters, which the decoder does not know
		return
	}
	// 5.3.1: 40 is all of 4 GiB, more is reserved.
	if bits := fields[2] & 0x3f; bits > 40 || int64(2|bits&1)<<(bits/2+11) > maxWindow {
		g.err = fmt.Errorf("a dictionary of more than %d MiB", maxWindow>>20)
		return
	}
	g.step(size, g.chunk)
}

// chunk looks at an LZMA2 chunk.
func (g *xzGuard) chunk() {
	b := g.peek(6)
	switch {
	case len(b) >= 1 && b[0] == 0: // the end, then padding and the check
		padding := -(g.at + 1) & 3
		g.step(int(1+padding+g.check), g.block)
	case len(b) >= 3 && b[0] <= 2: // not compressed
		g.step(3+int(binary.BigEndian.Uint16(b[1:]))+1, g.chunk)
	case len(b) == 6 && b[0] >= 0x80:
		size := 5 + int(binary.BigEndian.Uint16(b[3:])) + 1
		if b[0] >= 0xc0 { // with new properties
			size++
		}
		g.step(size, g.chunk)
	default:
		g.rest()
	}
}

// index looks at the number of records in the index (4.2), of two numbers each.
func (g *xzGuard) index() {
	records, n := binary.Uvarint(g.peek(binary.MaxVarintLen64))
	if n <= 0 || records > math.MaxUint64/2 {
		g.rest()
		return
	}
	left := records * 2
	var numbers func()
	numbers = func() {
		if left == 0 {
			const crc, footer = 4, 12
			padding := -g.at & 3
			g.step(int(padding)+crc+footer, g.stream)
			return
		}
		left--
		if _, n := binary.Uvarint(g.peek(binary.MaxVarintLen64)); n > 0 {
			g.step(n, numbers)
		} else {
			g.rest()
		}
	}
	g.step(n, numbers)
}
