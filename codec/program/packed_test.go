package program

import (
	"bytes"
	"debug/elf"
	"testing"
)

// ones is a file of bytes that are all ones.
type ones struct{}

func (ones) ReadAt(b []byte, _ int64) (int, error) {
	return copy(b, bytes.Repeat([]byte{0xff}, len(b))), nil
}

// A packed table may say that each word of a sparse file, which takes no room on the disk, is
// a pointer: that many are not kept.
func TestPackedPointers(t *testing.T) {
	const size = 1 << 40
	file := &blocks{file: ones{}}
	o := &object{file: file, code: file, size: size, loads: []elf.ProgHeader{{Type: elf.PT_LOAD, Filesz: size, Memsz: size}}}
	o.dynamic.relr, o.dynamic.relrsz = 0x1000, 1<<20
	if n := len(o.pointers()); n != maxPacked {
		t.Errorf("%d pointers, want %d", n, maxPacked)
	}
}
