package testelf

import (
	"debug/elf"
	"slices"
)

// Where the parts of an [Object] lie, in the file and as linked.
const (
	CodeAt   = 0x1000
	DataAt   = 0x2000
	pageSize = 0x1000
)

// Object is a small program or library for x86-64, linked to any address: a page of
// headers and tables, one of code, and one of data.
type Object struct {
	Soname      string
	BuildID     string // of 20 bytes
	Functions   []Function
	Symbols     []Symbol
	Relocations []Relocation
	Packed      []Relocation // RELATIVE, of one word and the 63 behind it
	GotPLT      uint64       // DT_PLTGOT
}

// Function is code with an FDE of its own, or without one.
type Function struct {
	At    uint64
	Code  string
	NoFDE bool
}

// Symbol is one of the dynamic symbols: a function here, or of another object where At
// is 0.
type Symbol struct {
	Name    string
	At      uint64
	IFunc   bool
	Version string // "" is none
	Hidden  bool   // it is not the default version
}

// Relocation is of a word of the data. Symbol is an index into those of the object, and
// counts for some kinds alone.
type Relocation struct {
	At     uint64
	Kind   elf.R_X86_64
	Symbol int
	Addend uint64
}

// Bytes builds the file.
func (o *Object) Bytes() []byte {
	b := make([]byte, DataAt+pageSize)
	at := 64 // of what is placed next on the first page
	place := func(part []byte) uint64 {
		at = (at + 7) &^ 7
		if at+len(part) > CodeAt {
			panic("testelf: the tables take more than a page")
		}
		copy(b[at:], part)
		at += len(part)
		return uint64(at - len(part))
	}
	names := []byte{0}
	name := func(s string) uint32 {
		names = append(append(names, s...), 0)
		return uint32(len(names) - len(s) - 1)
	}
	headers := place(make([]byte, 56*5))
	note := Note("GNU", 3, []byte(o.BuildID))
	noteAt := place(note)

	symbols, versym := make([]byte, 24), make([]byte, 2)
	versions := []string{"", ""} // an index is never 0 or 1
	var defined, wanted []int
	for _, s := range o.Symbols {
		kind, index := byte(elf.STT_FUNC), uint16(1)
		if s.IFunc {
			kind = byte(elf.STT_GNU_IFUNC)
		}
		if s.At == 0 {
			index = 0
		}
		symbols = le.AppendUint32(symbols, name(s.Name))
		symbols = le.AppendUint16(append(symbols, byte(elf.STB_GLOBAL)<<4|kind, 0), index)
		symbols = le.AppendUint64(le.AppendUint64(symbols, s.At), 0)
		v := 1
		if s.Version != "" {
			if v = slices.Index(versions, s.Version); v < 0 {
				v = len(versions)
				versions = append(versions, s.Version)
				if s.At != 0 {
					defined = append(defined, v)
				} else {
					wanted = append(wanted, v)
				}
			}
		}
		if s.Hidden {
			v |= 1 << 15
		}
		versym = le.AppendUint16(versym, uint16(v))
	}
	var verdef, verneed []byte
	for i, v := range defined { // Elf64_Verdef, Elf64_Verdaux
		next := uint32(28)
		if i == len(defined)-1 {
			next = 0
		}
		verdef = le.AppendUint16(le.AppendUint16(le.AppendUint16(le.AppendUint16(verdef, 1), 0), uint16(v)), 1)
		verdef = le.AppendUint32(le.AppendUint32(le.AppendUint32(verdef, 0), 20), next)
		verdef = le.AppendUint32(le.AppendUint32(verdef, name(versions[v])), 0)
	}
	if len(wanted) > 0 { // Elf64_Verneed, Elf64_Vernaux
		verneed = le.AppendUint16(le.AppendUint16(verneed, 1), uint16(len(wanted)))
		verneed = le.AppendUint32(le.AppendUint32(le.AppendUint32(verneed, name("libother.so")), 16), 0)
		for i, v := range wanted {
			next := uint32(16)
			if i == len(wanted)-1 {
				next = 0
			}
			verneed = le.AppendUint16(le.AppendUint16(le.AppendUint32(verneed, 0), 0), uint16(v))
			verneed = le.AppendUint32(le.AppendUint32(verneed, name(versions[v])), next)
		}
	}
	var rela []byte
	for _, r := range o.Relocations {
		info := uint64(r.Kind)
		if r.Kind != elf.R_X86_64_IRELATIVE && r.Kind != elf.R_X86_64_RELATIVE {
			info |= uint64(r.Symbol+1) << 32
		}
		rela = le.AppendUint64(le.AppendUint64(le.AppendUint64(rela, r.At), info), r.Addend)
	}
	var relr []byte
	for i, r := range o.Packed {
		le.PutUint64(b[r.At:], r.Addend)
		if i == 0 {
			relr = le.AppendUint64(le.AppendUint64(nil, r.At), 1)
		} else {
			le.PutUint64(relr[8:], le.Uint64(relr[8:])|1<<((r.At-o.Packed[0].At)/8))
		}
	}
	var dynamic []byte
	tag := func(t elf.DynTag, v uint64) { dynamic = le.AppendUint64(le.AppendUint64(dynamic, uint64(t)), v) }
	if o.Soname != "" {
		tag(elf.DT_SONAME, uint64(name(o.Soname)))
	}
	if len(o.Symbols) > 0 {
		tag(elf.DT_VERSYM, place(versym))
	}
	if verdef != nil {
		tag(elf.DT_VERDEF, place(verdef))
		tag(elf.DT_VERDEFNUM, uint64(len(defined)))
	}
	if verneed != nil {
		tag(elf.DT_VERNEED, place(verneed))
		tag(elf.DT_VERNEEDNUM, 1)
	}
	if o.GotPLT != 0 {
		tag(elf.DT_PLTGOT, o.GotPLT)
	}
	tag(elf.DT_SYMTAB, place(symbols))
	tag(elf.DT_STRTAB, place(names))
	tag(elf.DT_STRSZ, uint64(len(names)))
	tag(elf.DT_RELA, place(rela))
	tag(elf.DT_RELASZ, uint64(len(rela)))
	tag(36, place(relr)) // DT_RELR, DT_RELRSZ
	tag(35, uint64(len(relr)))
	dynamic = append(dynamic, make([]byte, 16)...)
	dynamicAt := place(dynamic)
	frames := o.frames(at)
	framesAt := place(frames)
	for _, f := range o.Functions {
		copy(b[f.At:], f.Code)
	}

	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], uint16(elf.ET_DYN))
	le.PutUint16(b[18:], uint16(elf.EM_X86_64))
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], CodeAt) // entry
	le.PutUint64(b[32:], headers)
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 5)
	for i, p := range []elf.ProgHeader{
		{Type: elf.PT_LOAD, Flags: elf.PF_R | elf.PF_X, Off: 0, Filesz: DataAt},
		{Type: elf.PT_LOAD, Flags: elf.PF_R | elf.PF_W, Off: DataAt, Filesz: pageSize},
		{Type: elf.PT_NOTE, Flags: elf.PF_R, Off: noteAt, Filesz: uint64(len(note))},
		{Type: elf.PT_DYNAMIC, Flags: elf.PF_R, Off: dynamicAt, Filesz: uint64(len(dynamic))},
		{Type: elf.PT_GNU_EH_FRAME, Flags: elf.PF_R, Off: framesAt, Filesz: uint64(len(frames))},
	} {
		h := b[headers+56*uint64(i):]
		le.PutUint32(h, uint32(p.Type))
		le.PutUint32(h[4:], uint32(p.Flags))
		for j, v := range []uint64{p.Off, p.Off, p.Off, p.Filesz, p.Filesz, 8} {
			le.PutUint64(h[8+8*j:], v)
		}
	}
	return b
}

// frames builds .eh_frame_hdr with its .eh_frame behind, to be placed at an address that
// is rounded up to 8.
func (o *Object) frames(at int) []byte {
	at = (at + 7) &^ 7
	functions := slices.DeleteFunc(slices.Clone(o.Functions), func(f Function) bool { return f.NoFDE })
	slices.SortFunc(functions, func(a, b Function) int { return int(a.At) - int(b.At) })
	header := 12 + 8*len(functions)
	b := make([]byte, header)
	copy(b, "\x01\x1b\x03\x3b") // pointers of 32 bits, relative to where they are, and of the table to the header
	le.PutUint32(b[4:], uint32(header-4))
	le.PutUint32(b[8:], uint32(len(functions)))
	cie := len(b)
	b = append(le.AppendUint32(b, 16), "\x00\x00\x00\x00\x01zR\x00\x01\x78\x10\x01\x1b\x00\x00\x00"...)
	for i, f := range functions {
		le.PutUint32(b[12+8*i:], uint32(int(f.At)-at))
		le.PutUint32(b[16+8*i:], uint32(len(b)))
		fde := len(b)
		b = le.AppendUint32(b, 16)
		b = le.AppendUint32(b, uint32(fde+4-cie))
		b = le.AppendUint32(b, uint32(int(f.At)-(at+fde+8)))
		b = le.AppendUint32(b, uint32(len(f.Code)))
		b = le.AppendUint32(b, 0)
	}
	return le.AppendUint32(b, 0)
}
