package program

import (
	"errors"
	"io"
)

// Code is read an instruction at a time, and its index an entry at a time: blocks keeps
// what was read last.
const (
	blockSize  = 8 << 10
	blocksKept = 32
)

// blocks is a file, to be read by one goroutine.
type blocks struct {
	file io.ReaderAt
	kept [blocksKept]struct {
		b  []byte // shorter at the end of the file; nil before one is read
		at int64
	}
}

// ReadAt reads as the file does; what is as large as a block is not kept.
func (s *blocks) ReadAt(p []byte, at int64) (n int, err error) {
	if len(p) >= blockSize || at < 0 {
		return s.file.ReadAt(p, at)
	}
	for n < len(p) {
		b, err := s.from(at + int64(n))
		if err != nil {
			return n, err
		}
		m := copy(p[n:], b)
		if m == 0 {
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}

// from returns what a block has from a place in the file on, until the next read.
func (s *blocks) from(at int64) ([]byte, error) {
	in := at % blockSize
	start := at - in
	k := &s.kept[start/blockSize%blocksKept]
	if k.b == nil || k.at != start {
		if k.b == nil {
			k.b = make([]byte, blockSize)
		}
		m, err := s.file.ReadAt(k.b[:blockSize], start)
		k.b, k.at = k.b[:m], start
		if err != nil && !errors.Is(err, io.EOF) {
			k.b = nil
			return nil, err
		}
	}
	return k.b[min(in, int64(len(k.b))):], nil
}
