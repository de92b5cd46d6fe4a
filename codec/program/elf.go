package program

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/fpuimg/fpuimg/codec/isa"
)

// object is one ELF file that processes map, by the addresses that it was linked for.
type object struct {
	file  io.ReaderAt
	code  *blocks // the file, for instructions
	size  int64
	loads []elf.ProgHeader // PT_LOAD, by address

	buildID  []byte
	entry    uint64
	pie      bool // ET_DYN: mapped with a bias
	sections []elf.SectionHeader
	ehFrame  elf.ProgHeader // PT_GNU_EH_FRAME, if there is one
	relro    elf.ProgHeader // PT_GNU_RELRO: written by the loader alone
	dynamic  dynamic
	symbols  []byte            // .dynsym, as in the file
	strings  []byte            // .dynstr
	versym   []byte            // .gnu.version
	versions map[uint16]string // by what that says; nil before it is read
	read     bool              // these two
	glibc    bool              // by them
	unwind   *unwind
	last     [15]byte // an instruction, which has no more
}

// dynamic is what DT_* of the dynamic section say; addresses as linked.
type dynamic struct {
	soname                  uint64
	symtab, strtab, strsz   uint64
	rela, relasz, relacount uint64
	relr, relrsz            uint64
	jmprel, pltrelsz        uint64
	pltgot                  uint64
	versym, verdef, verneed uint64
	bindNow, dynamic        bool
}

// Limits on the tables of an ELF file, far above those of the largest that are known.
const (
	maxNotes   = 64 << 10
	maxDynamic = 64 << 10
	maxTable   = 256 << 20
	maxPhdrs   = 1 << 10
)

var errMachine = errors.New("not for x86-64")

// readObject reads the headers of an ELF file. What the file has of tables is read when
// it is asked for. The error says why it is no program or library for x86-64.
func readObject(r io.ReaderAt, size int64) (o *object, err error) {
	defer func() {
		if r := recover(); r != nil { // debug/elf makes no promise on hostile input
			o, err = nil, fmt.Errorf("not readable as ELF: %v", r)
		}
	}()
	file := &blocks{file: r}
	f, err := elf.NewFile(io.NewSectionReader(file, 0, size))
	if err != nil {
		return nil, err
	}
	if f.Machine != elf.EM_X86_64 || f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB {
		return nil, errMachine
	}
	o = &object{file: file, code: file, size: size, entry: f.Entry, pie: f.Type == elf.ET_DYN}
	var dynamicSegment, notes []elf.ProgHeader
	for _, p := range f.Progs[:min(len(f.Progs), maxPhdrs)] {
		if p.Off > uint64(size) || p.Vaddr+p.Memsz < p.Vaddr {
			continue
		}
		p.Filesz = min(p.Filesz, uint64(size)-p.Off, p.Memsz)
		switch p.Type {
		case elf.PT_LOAD:
			o.loads = append(o.loads, p.ProgHeader)
		case elf.PT_DYNAMIC:
			dynamicSegment = append(dynamicSegment, p.ProgHeader)
		case elf.PT_NOTE:
			notes = append(notes, p.ProgHeader)
		case elf.PT_GNU_RELRO:
			o.relro = p.ProgHeader
		case elf.PT_GNU_EH_FRAME:
			o.ehFrame = p.ProgHeader
		}
	}
	slices.SortFunc(o.loads, func(a, b elf.ProgHeader) int { return cmp.Compare(a.Vaddr, b.Vaddr) })
	for _, s := range f.Sections {
		if s.Offset <= uint64(size) && s.FileSize <= uint64(size)-s.Offset {
			o.sections = append(o.sections, s.SectionHeader)
			if s.Type == elf.SHT_NOTE && len(notes) < maxPhdrs { // Go's linker leaves the build-id out of its segment
				notes = append(notes, elf.ProgHeader{Off: s.Offset, Filesz: s.FileSize, Align: s.Addralign})
			}
		}
	}
	for _, p := range notes {
		b := make([]byte, min(p.Filesz, maxNotes))
		n, _ := file.ReadAt(b, int64(p.Off))
		if o.buildID = buildID(b[:n], p.Align); o.buildID != nil {
			break
		}
	}
	for _, p := range dynamicSegment {
		b := make([]byte, min(p.Filesz, maxDynamic))
		n, _ := file.ReadAt(b, int64(p.Off))
		o.dynamic.read(b[:n])
	}
	return o, nil
}

// buildID finds the NT_GNU_BUILD_ID note; nil if there is none.
func buildID(b []byte, align uint64) []byte {
	pad := func(n uint64) uint64 {
		if align == 8 {
			return (n + 7) &^ 7
		}
		return (n + 3) &^ 3
	}
	for len(b) >= 12 {
		name, desc, kind := uint64(le32(b)), uint64(le32(b[4:])), le32(b[8:])
		start := pad(12 + name)
		end := start + desc
		if end > uint64(len(b)) {
			return nil
		}
		if kind == 3 && string(b[12:12+name]) == "GNU\x00" && desc > 0 {
			return bytes.Clone(b[start:end])
		}
		b = b[min(pad(end), uint64(len(b))):]
	}
	return nil
}

// Of the gABI; debug/elf lacks them.
const (
	dtRELRSZ elf.DynTag = 35
	dtRELR   elf.DynTag = 36
)

func (d *dynamic) read(b []byte) {
	d.dynamic = true
	for ; len(b) >= 16; b = b[16:] {
		v := le64(b[8:])
		switch elf.DynTag(le64(b)) {
		case elf.DT_NULL:
			return
		case elf.DT_SONAME:
			d.soname = v
		case elf.DT_SYMTAB:
			d.symtab = v
		case elf.DT_STRTAB:
			d.strtab = v
		case elf.DT_STRSZ:
			d.strsz = v
		case elf.DT_RELA:
			d.rela = v
		case elf.DT_RELASZ:
			d.relasz = v
		case elf.DT_RELACOUNT:
			d.relacount = v
		case dtRELR:
			d.relr = v
		case dtRELRSZ:
			d.relrsz = v
		case elf.DT_JMPREL:
			d.jmprel = v
		case elf.DT_PLTRELSZ:
			d.pltrelsz = v
		case elf.DT_PLTGOT:
			d.pltgot = v
		case elf.DT_VERSYM:
			d.versym = v
		case elf.DT_VERDEF:
			d.verdef = v
		case elf.DT_VERNEED:
			d.verneed = v
		case elf.DT_BIND_NOW:
			d.bindNow = true
		case elf.DT_FLAGS:
			d.bindNow = d.bindNow || elf.DynFlag(v)&elf.DF_BIND_NOW != 0
		case elf.DT_FLAGS_1:
			d.bindNow = d.bindNow || elf.DynFlag1(v)&elf.DF_1_NOW != 0
		}
	}
}

// readAt reads what the file maps at an address as linked: the bytes behind a segment's
// file data are zero, up to the end of its last page. n is less than len(p) where no
// segment goes on.
func (o *object) readAt(p []byte, addr uint64) (n int) {
	for n < len(p) {
		seg, ok := o.segment(addr)
		if !ok {
			break
		}
		in := addr - seg.Vaddr
		want := p[n:]
		if left := seg.Memsz - in; uint64(len(want)) > left {
			want = want[:left]
		}
		data := want
		if in >= seg.Filesz {
			data = nil
		} else if left := seg.Filesz - in; uint64(len(data)) > left {
			data = data[:left]
		}
		if len(data) > 0 {
			if _, err := o.file.ReadAt(data, int64(seg.Off+in)); err != nil {
				return n
			}
		}
		clear(want[len(data):])
		n += len(want)
		addr += uint64(len(want))
	}
	return n
}

func (o *object) segment(addr uint64) (*elf.ProgHeader, bool) {
	for i := range o.loads {
		if seg := &o.loads[i]; addr-seg.Vaddr < seg.Memsz {
			return seg, true
		}
	}
	return nil, false
}

// decode decodes the instruction at an address as linked.
func (o *object) decode(addr uint64) (isa.Inst, bool) { return isa.Decode(o.inst(addr)) }

// inst returns the bytes of the instruction at an address as linked, until the next read;
// fewer where there are no more.
func (o *object) inst(addr uint64) []byte {
	if seg, ok := o.segment(addr); ok && addr-seg.Vaddr < seg.Filesz {
		in := addr - seg.Vaddr
		b, _ := o.code.from(int64(seg.Off + in))
		if min(uint64(len(b)), seg.Filesz-in) >= uint64(len(o.last)) {
			return b[:len(o.last)]
		}
	}
	return o.last[:o.readAt(o.last[:], addr)]
}

// executable reports whether the address lies in code.
func (o *object) executable(addr uint64) bool {
	seg, ok := o.segment(addr)
	return ok && seg.Flags&elf.PF_X != 0
}

// table reads a table of the file by its address. It is cut off where the segment ends.
func (o *object) table(addr, size uint64) []byte {
	seg, ok := o.segment(addr)
	if !ok || addr-seg.Vaddr >= seg.Filesz {
		return nil
	}
	b := make([]byte, min(size, seg.Filesz-(addr-seg.Vaddr), maxTable))
	return b[:o.readAt(b, addr)]
}

const symSize = 24 // Elf64_Sym

// symbol is an entry of the dynamic symbol table.
type symbol struct {
	name  uint32
	kind  elf.SymType
	local bool
	index elf.SectionIndex
	value uint64
	size  uint64
}

func (o *object) readSymbols() {
	d := &o.dynamic
	if o.read || d.symtab == 0 || d.strtab == 0 {
		return
	}
	o.read = true
	var size uint64
	for _, s := range o.sections {
		if s.Type == elf.SHT_DYNSYM {
			size = s.Size
		}
	}
	if size == 0 && d.strtab > d.symtab { // every linker puts the strings behind them
		size = d.strtab - d.symtab
	}
	o.symbols = o.table(d.symtab, size)
	o.strings = o.table(d.strtab, d.strsz)
	o.glibc = bytes.Contains(o.strings, []byte("\x00GLIBC_PRIVATE\x00")) && strings.HasPrefix(o.soname(), "l")
}

func (o *object) symbol(i uint32) (s symbol, ok bool) {
	o.readSymbols()
	at := int(i) * symSize
	if at+symSize > len(o.symbols) {
		return s, false
	}
	b := o.symbols[at:]
	return symbol{le32(b), elf.ST_TYPE(b[4]), elf.ST_BIND(b[4]) == elf.STB_LOCAL, elf.SectionIndex(binary.LittleEndian.Uint16(b[6:])), le64(b[8:]), le64(b[16:])}, true
}

func (o *object) symbolCount() uint32 {
	o.readSymbols()
	return uint32(min(uint64(len(o.symbols)/symSize), math.MaxUint32))
}

// maxName bounds the name of a symbol in a message.
const maxName = 256

// name reads a string of .dynstr; "" if it is not there.
func (o *object) name(at uint32) string { return string(o.text(at)) }

func (o *object) text(at uint32) []byte {
	b := o.strings[min(uint64(at), uint64(len(o.strings))):]
	b, _, _ = bytes.Cut(b[:min(len(b), maxName)], []byte{0})
	return b
}

// functionName returns the name of the function that an address as linked lies in, "" if
// the dynamic symbols have none.
func (o *object) functionName(addr uint64) string {
	var names []string
	for i := range o.symbolCount() {
		s, _ := o.symbol(i)
		if s.kind == elf.STT_FUNC && s.index != elf.SHN_UNDEF && addr-s.value < s.size {
			names = append(names, o.name(s.name))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return publicNames(names)[0]
}

// local names the functions that begin at addresses as linked, as the symbols for the
// linker have them, where they do.
func (o *object) local(functions map[uint64]string) {
	table, _ := o.section(".symtab")
	names, _ := o.section(".strtab")
	b := make([]byte, min(table.Size, maxTable))
	n, _ := o.file.ReadAt(b, int64(table.Offset))
	for b = b[:n]; len(b) >= symSize; b = b[symSize:] {
		addr := le64(b[8:])
		if name, asked := functions[addr]; asked && name == "" && elf.ST_TYPE(b[4]) == elf.STT_FUNC {
			var name [maxName]byte
			n, _ := o.file.ReadAt(name[:], int64(names.Offset)+int64(le32(b)))
			text, _, _ := bytes.Cut(name[:n], []byte{0})
			functions[addr] = string(text)
		}
	}
}

func (o *object) soname() string {
	o.readSymbols()
	if o.dynamic.soname == 0 || o.dynamic.soname > math.MaxUint32 {
		return ""
	}
	return o.name(uint32(o.dynamic.soname))
}

// relocation is one entry of a table of relocations.
type relocation struct {
	at     uint64 // as linked
	kind   elf.R_X86_64
	symbol uint32
	addend uint64
}

const relaSize = 24 // Elf64_Rela

// relocations yields the relocations of a word that may hold the address of a function
// of another object: not those that only add the bias. A static program without a
// dynamic section has those of its IFUNCs in a section of their own.
func (o *object) relocations(yield func(relocation) bool) {
	var tables [][]byte
	d := &o.dynamic
	if d.dynamic {
		skip := uint64(0)
		if d.relacount < d.relasz/relaSize { // RELATIVE ones come first
			skip = d.relacount * relaSize
		} else if d.relacount > 0 {
			skip = d.relasz
		}
		tables = append(tables, o.table(d.rela+skip, d.relasz-skip))
		if d.jmprel < d.rela || d.jmprel >= d.rela+d.relasz { // some linkers make them part of it
			tables = append(tables, o.table(d.jmprel, d.pltrelsz))
		}
	} else {
		for _, s := range o.sections {
			if s.Type == elf.SHT_RELA && s.Flags&elf.SHF_ALLOC != 0 {
				tables = append(tables, o.table(s.Addr, s.Size))
			}
		}
	}
	for _, b := range tables {
		for ; len(b) >= relaSize; b = b[relaSize:] {
			info := le64(b[8:])
			r := relocation{le64(b), elf.R_X86_64(elf.R_TYPE64(info)), elf.R_SYM64(info), le64(b[16:])}
			if r.kind != elf.R_X86_64_RELATIVE && !yield(r) {
				return
			}
		}
	}
}

// maxPacked bounds the pointers of a packed table: a sparse file has no end of them. Those
// of a browser are a million.
const maxPacked = 2 << 20

// pointers are the words that hold an address of the object itself from the start, by
// where they are: what RELATIVE relocations say, packed or not.
func (o *object) pointers() map[uint64]uint64 {
	list := map[uint64]uint64{}
	d := &o.dynamic
	for b := o.table(d.rela, d.relasz); len(b) >= relaSize; b = b[relaSize:] {
		if elf.R_X86_64(elf.R_TYPE64(le64(b[8:]))) == elf.R_X86_64_RELATIVE {
			list[le64(b)] = le64(b[16:])
		}
	}
	left := min(o.size/8, maxPacked) // words of the file
	packed := func(at uint64) {
		var b [8]byte
		seg, ok := o.segment(at)
		if left--; ok && at-seg.Vaddr < seg.Filesz && left >= 0 && o.readAt(b[:], at) == len(b) {
			list[at] = le64(b[:])
		}
	}
	next := uint64(0)
	for b := o.table(d.relr, d.relrsz); len(b) >= 8 && left > 0; b = b[8:] { // gABI, "Relative Relocation Table"
		entry := le64(b)
		if entry&1 == 0 {
			packed(entry)
			next = entry + 8
			continue
		}
		for i := range uint64(63) {
			if entry>>(i+1)&1 != 0 {
				packed(next + 8*i)
			}
		}
		next += 8 * 63
	}
	return list
}

// section finds a section by its name.
func (o *object) section(name string) (elf.SectionHeader, bool) {
	i := slices.IndexFunc(o.sections, func(s elf.SectionHeader) bool { return s.Name == name })
	if i < 0 {
		return elf.SectionHeader{}, false
	}
	return o.sections[i], true
}

// isGlibc reports whether the object is a part of glibc: they export to each other by
// a version of their own.
func (o *object) isGlibc() bool {
	o.readSymbols()
	return o.glibc
}

func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
