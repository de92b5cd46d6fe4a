package program

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"slices"
	"sort"
)

// unwind is an object's index of functions: the frame description entries (FDE) of
// .eh_frame, which tell where the code of each begins and ends (LSB 5.0, 10.6; DWARF 5,
// 6.4.1).
type unwind struct {
	o *object
	// table is the sorted table of .eh_frame_hdr: pairs of function and FDE, 32 bits
	// each, relative to base.
	table  []byte
	base   uint64
	frames uint64 // where .eh_frame begins, as .eh_frame_hdr says; 0 if it does not
	// list is every function, where there is no such table, or all were asked for.
	list []function
	cies map[uint64]cie
}

// function is the code of an FDE, by addresses as linked.
type function struct{ start, end uint64 }

// Pointer encodings (LSB 5.0, 10.5.1).
const (
	encAbs    = 0x00 // DW_EH_PE_absptr
	encUData2 = 0x02
	encUData4 = 0x03
	encUData8 = 0x04
	encSData2 = 0x0a
	encSData4 = 0x0b
	encSData8 = 0x0c
	encPCRel  = 0x10
	encData   = 0x30
	encOmit   = 0xff

	encTable = encData | encSData4 // of the sorted table, by every linker
)

// pointer decodes a pointer at the start of b, which lies at the address at. n is its
// length, 0 if it cannot be decoded.
func pointer(b []byte, enc byte, at, data uint64) (v uint64, n int) {
	switch enc & 0x0f {
	case encAbs, encUData8, encSData8:
		n = 8
	case encUData4, encSData4:
		n = 4
	case encUData2, encSData2:
		n = 2
	}
	if n == 0 || len(b) < n {
		return 0, 0
	}
	switch enc & 0x0f {
	case encUData4:
		v = uint64(le32(b))
	case encSData4:
		v = uint64(int32(le32(b)))
	case encUData2:
		v = uint64(binary.LittleEndian.Uint16(b))
	case encSData2:
		v = uint64(int16(binary.LittleEndian.Uint16(b)))
	default:
		v = le64(b)
	}
	switch enc & 0xf0 {
	case 0:
	case encPCRel:
		v += at
	case encData:
		v += data
	default:
		return 0, 0
	}
	return v, n
}

func (o *object) functions() *unwind {
	if o.unwind == nil {
		o.unwind = &unwind{o: o, cies: map[uint64]cie{}}
		o.unwind.open()
	}
	return o.unwind
}

func (u *unwind) open() {
	hdr := u.o.ehFrame
	if hdr.Filesz >= 12 {
		b := u.o.table(hdr.Vaddr, hdr.Filesz)
		if len(b) >= 12 && b[0] == 1 && b[3] == encTable {
			at, n := pointer(b[4:], b[1], hdr.Vaddr+4, hdr.Vaddr)
			count, m := pointer(b[min(4+n, len(b)):], b[2]&0x0f, 0, 0)
			if n > 0 && m > 0 {
				b = b[4+n+m:]
				u.table, u.base, u.frames = b[:8*min(count, uint64(len(b)/8))], hdr.Vaddr, at
			}
		}
	}
	if len(u.table) == 0 {
		u.list = u.all()
	}
}

// find returns the function that has the address.
func (u *unwind) find(addr uint64) (function, bool) {
	if u.list != nil {
		i := sort.Search(len(u.list), func(i int) bool { return u.list[i].start > addr })
		if i == 0 || addr >= u.list[i-1].end {
			return function{}, false
		}
		return u.list[i-1], true
	}
	start := func(i int) uint64 { return u.base + uint64(int32(le32(u.table[8*i:]))) }
	i := sort.Search(len(u.table)/8, func(i int) bool { return start(i) > addr })
	if i == 0 {
		return function{}, false
	}
	at := u.base + uint64(int32(le32(u.table[8*(i-1)+4:])))
	var b [64]byte
	n := u.o.readAt(b[:], at)
	f, _, ok := u.fde(b[:n], at)
	if !ok || addr < f.start || addr >= f.end {
		return function{}, false
	}
	return f, true
}

// cie is what of a common information entry its FDEs need.
type cie struct {
	enc byte
	ok  bool
}

// fde decodes an entry of .eh_frame at an address. size is its length, 0 at the end of
// the section; ok is false for one that is no FDE.
func (u *unwind) fde(b []byte, at uint64) (f function, size uint64, ok bool) {
	if len(b) < 4 {
		return f, 0, false
	}
	length, head := uint64(le32(b)), uint64(4)
	if length == 0 {
		return f, 0, false
	}
	if length == 0xffffffff {
		if len(b) < 12 {
			return f, 0, false
		}
		length, head = le64(b[4:]), 12
	}
	if length > maxTable {
		return f, 0, false
	}
	size = head + length
	if uint64(len(b)) < head+4 {
		return f, size, false
	}
	back := uint64(le32(b[head:]))
	if back == 0 { // a CIE
		return f, size, false
	}
	c := u.cie(at + head - back)
	if !c.ok {
		return f, size, false
	}
	body := b[head+4:]
	var n, m int
	f.start, n = pointer(body, c.enc, at+head+4, 0)
	if n == 0 {
		return f, size, false
	}
	length, m = pointer(body[n:], c.enc&0x0f, 0, 0)
	f.end = f.start + length
	return f, size, m > 0 && f.end > f.start
}

// cie decodes the pointer encoding of the FDEs of a CIE.
func (u *unwind) cie(at uint64) cie {
	c, ok := u.cies[at]
	if !ok {
		var b [128]byte
		c = parseCIE(b[:u.o.readAt(b[:], at)])
		u.cies[at] = c
	}
	return c
}

func parseCIE(b []byte) cie {
	if len(b) < 12 || le32(b) == 0xffffffff || le32(b[4:]) != 0 {
		return cie{}
	}
	version := b[8]
	b = b[9:]
	end := slices.Index(b, 0)
	if end < 0 {
		return cie{}
	}
	augmentation, b := string(b[:end]), b[end+1:]
	if version == 4 { // address and segment size
		if len(b) < 2 {
			return cie{}
		}
		b = b[2:]
	}
	uleb := func() (ok bool) { // an SLEB128 is as long
		_, n := binary.Uvarint(b)
		if n > 0 {
			b = b[n:]
		}
		return n > 0
	}
	for range 2 { // code and data alignment
		if !uleb() {
			return cie{}
		}
	}
	if version == 1 { // the return address column
		if len(b) < 1 {
			return cie{}
		}
		b = b[1:]
	} else if !uleb() {
		return cie{}
	}
	if augmentation == "" {
		return cie{encAbs, true}
	}
	if augmentation[0] != 'z' || !uleb() {
		return cie{}
	}
	for _, a := range augmentation[1:] {
		switch a {
		case 'R':
			if len(b) < 1 {
				return cie{}
			}
			return cie{b[0], true}
		case 'L':
			if len(b) < 1 {
				return cie{}
			}
			b = b[1:]
		case 'P':
			if len(b) < 1 {
				return cie{}
			}
			_, n := pointer(b[1:], b[0]&0x0f, 0, 0)
			if n == 0 {
				return cie{}
			}
			b = b[1+n:]
		case 'S', 'B':
		default:
			return cie{}
		}
	}
	return cie{encAbs, true}
}

// all reads the whole of .eh_frame, sorted by address. It is not nil.
func (u *unwind) all() []function {
	list := []function{}
	var b []byte
	at := u.frames
	if s, ok := u.o.section(".eh_frame"); ok && s.Type != elf.SHT_NOBITS {
		at, b = s.Addr, make([]byte, min(s.Size, maxTable))
		n, _ := u.o.file.ReadAt(b, int64(s.Offset))
		b = b[:n]
	} else if at != 0 {
		b = u.o.table(at, maxTable) // an entry of no length ends it
	}
	for len(b) > 0 {
		f, size, ok := u.fde(b, at)
		if ok {
			list = append(list, f)
		}
		if size == 0 || size > uint64(len(b)) {
			break
		}
		b, at = b[size:], at+size
	}
	slices.SortFunc(list, func(a, b function) int { return cmp.Compare(a.start, b.start) })
	return list
}
