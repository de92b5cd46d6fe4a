package testglibc

import (
	"debug/elf"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	testelf "github.com/fpuimg/fpuimg/internal/test/elf"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// Process is a checkpoint of one process, whose threads wait in a system call.
type Process struct {
	Objects []*Object // the program, its loader
	Areas   []Area
	// Entry is the one of testdata/images that the core images are of.
	Entry string
	Regs  map[int]uint64 // of each thread, by their index in struct user_regs_struct
	// Environ is its environment, each variable with a 0 behind it.
	Environ string
	// Flags are those of the pagemap's entries (PE_PRESENT 4).
	Flags int
	// Files are images besides, or instead of, those that are made; nil is none.
	Files map[string][]byte

	pages map[uint64]*[codec.PageSize]byte
}

// Object is an ELF file that the process maps.
type Object struct {
	testelf.Object
	Path string
	Base uint64
}

// Area is memory that is no object's, of mm-PID.img.
type Area struct {
	Start, End              uint64
	ID, Prot, Flags, Status int
}

// Where the parts of the process lie. Its memory is dumped only where it was put.
const (
	Exe    = 0x555555554000
	Libc   = 0x7ffff7d00000
	Loader = 0x7ffff7fc0000
	Heap   = 0x555555560000 // two pages
	Stack  = 0x7ffffffd0000 // eight pages
	SP     = Stack + 0x80
	// Environ is where the environment is.
	Environ = Stack + 0x7800

	// Wait is behind the system call of the program, Bound the word of its data that is
	// bound to pick.
	Wait   = Exe + 0x1002
	Bound  = Exe + 0x2010
	gotPLT = 0x2020

	// Functions of the libc, as linked, and the words of its data that IRELATIVE fills in,
	// and that leads to the record.
	Resolver = 0x1010 // of pick
	Wide     = 0x1050 // with AVX-512
	Plain    = 0x1060 // with SSE2
	Restorer = 0x1070 // of signals
	Free     = 0x1100 // nothing is there
	Own      = Libc + 0x2008
	leads    = 0x2018

	// Functions of the loader, as linked, that save registers with XSAVEC, XSAVE and FXSAVE.
	SaveC  = 0x1010
	SaveX  = 0x1040
	SaveFX = 0x1070
	// Record is where cpu_features lies, in the layout of glibc 2.36.
	Record   = Loader + 0x2100
	saveSize = 0x2100 + 320
)

// The registers of struct user_regs_struct that count.
const (
	regOrigAX = 15
	regIP     = 16
	regSP     = 19
)

// rel is a displacement from the end of an instruction.
func rel(from, to int) string {
	return string(binary.LittleEndian.AppendUint32(nil, uint32(to-from)))
}

// Choice is a resolver at an address of the libc as linked: one function if the record
// has AVX-512, else another.
func Choice(at, wide, plain int) testelf.Function {
	code := "\x48\x8b\x05" + rel(at+7, leads) + // mov record(%rip),%rax
		"\x8b\x40\x48" + // mov active(7).ebx(%rax),%eax
		"\x48\x8d\x15" + rel(at+17, wide) + // lea wide(%rip),%rdx
		"\xa9\x00\x00\x01\x00" + // test $avx512f,%eax
		"\x48\x8d\x05" + rel(at+29, plain) + // lea plain(%rip),%rax
		"\x48\x0f\x45\xc2\xc3" // cmovne %rdx,%rax; ret
	return testelf.Function{At: uint64(at), Code: code}
}

// save is a function of the loader that saves registers in a buffer of the recorded size.
func save(at int, save, restore string) testelf.Function {
	return testelf.Function{At: uint64(at), Code: "\x53\x48\x89\xe3" + // push %rbx; mov %rsp,%rbx
		"\x48\x2b\x25" + rel(at+11, saveSize) + // sub size(%rip),%rsp
		save + restore + "\x41\xff\xe3"} // jmp *%r11
}

// New is a program whose libc chose the function pick when it started on a CPU with
// AVX-512: two words hold that, and one of its heap. It waits.
func New() *Process {
	p := &Process{Entry: "h-sse", Flags: 4, Files: map[string][]byte{}, pages: map[uint64]*[codec.PageSize]byte{},
		Regs: map[int]uint64{regOrigAX: 230, regIP: Wait, regSP: SP},
		Objects: []*Object{
			{Path: "/usr/bin/tiny", Base: Exe, Object: testelf.Object{BuildID: "the program, of 20 b",
				Functions:   []testelf.Function{{At: 0x1000, Code: "\x0f\x05\xc3"}}, // syscall; ret
				Symbols:     []testelf.Symbol{{Name: "pick", Version: "GLIBC_2.2"}},
				Relocations: []testelf.Relocation{{At: 0x2010, Kind: elf.R_X86_64_JMP_SLOT}},
				GotPLT:      gotPLT}},
			{Path: "/usr/lib64/ld-linux-x86-64.so.2", Base: Loader, Object: testelf.Object{BuildID: "the loader, of 20 by", Soname: "ld-linux-x86-64.so.2",
				Functions: []testelf.Function{
					{At: 0x1000, Code: "\x90\xc3"},
					save(SaveC, "\x0f\xc7\x64\x24\x40", "\x0f\xae\x6c\x24\x40"), // xsavec, xrstor 0x40(%rsp)
					save(SaveX, "\x0f\xae\x64\x24\x40", "\x0f\xae\x6c\x24\x40"), // xsave
					save(SaveFX, "\x0f\xae\x04\x24", "\x0f\xae\x0c\x24"),        // fxsave, fxrstor (%rsp)
				},
				Symbols: []testelf.Symbol{{Name: "_rtld_global", At: 0x2000, Version: "GLIBC_PRIVATE"}}}},
			{Path: "/usr/lib64/libc.so.6", Base: Libc, Object: testelf.Object{BuildID: "the libc, of 20 byte", Soname: "libc.so.6",
				Functions: []testelf.Function{
					Choice(Resolver, Wide, Plain),
					{At: Wide, Code: "\x62\xf1\xfe\x48\x6f\x07\xc5\xf8\x77\xc3"}, // vmovdqu64 (%rdi),%zmm0; vzeroupper; ret
					{At: Plain, Code: "\xf3\x0f\x6f\x07\xc3"},                    // movdqu (%rdi),%xmm0; ret
					{At: Restorer, Code: "\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05"}, // mov $15,%rax; syscall
				},
				Symbols:     []testelf.Symbol{{Name: "pick", At: Resolver, IFunc: true, Version: "GLIBC_2.2"}, {Name: "__private", At: Plain, Version: "GLIBC_PRIVATE"}},
				Relocations: []testelf.Relocation{{At: 0x2008, Kind: elf.R_X86_64_IRELATIVE, Addend: Resolver}}}},
		},
		Areas: []Area{
			{Heap, Heap + 2*codec.PageSize, 0, 3, 2, codec.VMARegular | codec.VMAAnonPrivate | codec.VMAHeap},
			{Stack, Stack + 8*codec.PageSize, 0, 3, 2, codec.VMARegular | codec.VMAAnonPrivate | codec.VMAStack},
		}}
	p.Word(Own, Libc+Wide)
	p.Word(Bound, Libc+Wide)
	p.Word(Libc+leads, Record)
	p.Word(Exe+gotPLT+16, Loader+SaveC)
	p.Word(Heap+0x40, Libc+Wide)
	p.Put(SP, make([]byte, 8))
	p.Put(Record, Layouts[5].Record(1, 0x806f8, 6, 0x8f, 8))
	const leafD1 = Record + 20 + 3*32 // XSAVEOPT XSAVEC XGETBV1 XSAVES, and what of it is active
	p.Put(leafD1, []byte{0xf})
	p.Put(leafD1+16, []byte{0x7})
	p.Put(Record+20+32+16+8, []byte{0xc6}) // PKU is not active: the kernel has not enabled it
	return p
}

// Put writes memory, whose pages are dumped then.
func (p *Process) Put(addr uint64, b []byte) {
	for len(b) > 0 {
		page := addr &^ (codec.PageSize - 1)
		if p.pages[page] == nil {
			p.pages[page] = new([codec.PageSize]byte)
		}
		n := copy(p.pages[page][addr-page:], b)
		addr, b = addr+uint64(n), b[n:]
	}
}

// Word writes a pointer.
func (p *Process) Word(addr, v uint64) { p.Put(addr, binary.LittleEndian.AppendUint64(nil, v)) }

// Images are the checkpoint's files.
func (p *Process) Images(tb testing.TB) map[string][]byte {
	tb.Helper()
	files := map[string][]byte{"pstree.img": testimg.Read(tb, p.Entry, "pstree.img")}
	pid := ""
	for _, path := range testimg.Glob(tb, p.Entry+"/core-*.img") {
		name := filepath.Base(path)
		core, err := codec.ParseCore(name, testimg.Read(tb, p.Entry, name))
		if err != nil {
			tb.Fatal(err)
		}
		if files[name], err = core.WithGPRegs(p.Regs); err != nil {
			tb.Fatal(err)
		}
		if pid == "" { // the first thread has that of the process
			pid = strings.TrimSuffix(strings.TrimPrefix(name, "core-"), ".img")
		}
	}
	var vmas, named [][]byte
	areas := slices.Clone(p.Areas)
	for i, o := range p.Objects {
		id := 9 + i
		var words []int
		for j := 0; j < len(o.BuildID); j += 4 {
			words = append(words, int(binary.LittleEndian.Uint32([]byte(o.BuildID[j:]))))
		}
		named = append(named, testimg.File(id, o.Path, words...))
		areas = append(areas, Area{o.Base, o.Base + testelf.DataAt, id, 5, 2, codec.VMARegular | codec.VMAFilePrivate})
		areas = append(areas, Area{o.Base + testelf.DataAt, o.Base + testelf.DataAt + codec.PageSize, id, 3, 2, codec.VMARegular | codec.VMAFilePrivate})
	}
	slices.SortFunc(areas, func(a, b Area) int { return int(int64(a.Start - b.Start)) })
	for _, a := range areas {
		offset := 0
		for _, o := range p.Objects {
			if a.Start == o.Base+testelf.DataAt {
				offset = testelf.DataAt
			}
		}
		vmas = append(vmas, testimg.VMA(int(a.Start), int(a.End), offset, a.ID, a.Prot, a.Flags, a.Status))
	}
	auxv := []int{9, int(p.Objects[0].Base + testelf.CodeAt)}
	if len(p.Objects) > 1 {
		auxv = append(auxv, 7, int(p.Objects[1].Base))
	}
	const head = 12 // of the image: two magics and the length
	mm := append(testimg.MM(auxv, vmas...)[head:], testimg.Message(10, Environ, 11, Environ+len(p.Environ))...)
	files["mm-"+pid+".img"] = testimg.Image(testimg.MagicMM, mm)
	files["files.img"] = testimg.Image(testimg.MagicFiles, named...)
	entries := [][]byte{testimg.Message(1, 1)}
	p.Put(Environ, []byte(p.Environ))
	for _, addr := range slices.Sorted(maps.Keys(p.pages)) {
		entries = append(entries, testimg.Message(1, int(addr), 2, 0, 4, p.Flags, 5, 1))
		if p.Flags&1 == 0 { // not in a parent
			files["pages-1.img"] = append(files["pages-1.img"], p.pages[addr][:]...)
		}
	}
	files["pagemap-"+pid+".img"] = testimg.Image(testimg.MagicPagemap, entries...)
	for name, b := range p.Files {
		if files[name] = b; b == nil {
			delete(files, name)
		}
	}
	return files
}

// Write writes the checkpoint into a new directory, and its ELF files below another.
func (p *Process) Write(tb testing.TB) (images, root string) {
	tb.Helper()
	images, root = filepath.Join(tb.TempDir(), "ckpt"), filepath.Join(tb.TempDir(), "root")
	p.WriteTo(tb, images, root)
	return images, root
}

// WriteTo is Write into directories that are named.
func (p *Process) WriteTo(tb testing.TB, images, root string) {
	tb.Helper()
	write := func(path string, b []byte) {
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	for name, b := range p.Images(tb) {
		write(filepath.Join(images, name), b)
	}
	for _, o := range p.Objects {
		write(filepath.Join(root, o.Path), o.Bytes())
	}
}
