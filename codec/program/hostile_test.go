package program

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
)

// countingReader counts what is read of a file.
type countingReader struct {
	*bytes.Reader
	n int
}

func (r *countingReader) ReadAt(b []byte, at int64) (int, error) {
	r.n++
	return r.Reader.ReadAt(b, at)
}

// TestVersionLoop: lists of versions that lead into each other end.
func TestVersionLoop(t *testing.T) {
	b := make([]byte, 1<<16)
	for at := 0; at+16 <= len(b); at += 16 { // an Elf64_Verneed and an Elf64_Vernaux as well
		binary.LittleEndian.PutUint32(b[at+8:], 16)
		binary.LittleEndian.PutUint32(b[at+12:], 16)
	}
	r := &countingReader{Reader: bytes.NewReader(b)}
	o := &object{file: r, size: int64(len(b)), read: true, loads: []elf.ProgHeader{{Type: elf.PT_LOAD, Vaddr: 0x1000, Filesz: uint64(len(b)), Memsz: uint64(len(b))}}}
	o.dynamic.versym, o.dynamic.verneed = 0x1000, 0x1000
	o.readVersions()
	if r.n > 3*maxVersions {
		t.Errorf("%d entries were read", r.n)
	}
}

// TestTraceShape: what a resolver read of a record says nothing of one that is laid out
// otherwise, though the process maps the same loader at the same address.
func TestTraceShape(t *testing.T) {
	l, err := small(t, exe(t), make([]byte, codec.PageSize), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	runs := func(s shape) *trace {
		p, err := l.Open(7, []codec.Thread{smallThread(smallExe+0x200, smallStack)})
		if err != nil {
			t.Fatal(err)
		}
		return p.runsOf(1, &record{addr: 2, shape: s})
	}
	first, second, other := runs(shapes[0]), runs(shapes[0]), runs(shapes[6])
	if first != second || first == other {
		t.Error("runs of one layout are taken for those of another")
	}
}
