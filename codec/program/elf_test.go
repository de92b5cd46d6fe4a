package program

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
)

// libraries are the parts of this machine's glibc.
func libraries(t testing.TB) []string {
	t.Helper()
	var out []string
	for _, dir := range []string{"/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib"} {
		for _, name := range []string{"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"} {
			path := filepath.Join(dir, name)
			if _, err := os.Stat(path); err == nil {
				out = append(out, path)
			}
		}
		if len(out) == 3 {
			return out
		}
	}
	testcmd.Lack(t, "no glibc for x86-64 on this machine")
	return nil
}

func open(t testing.TB, path string) *object {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	o, err := readObject(f, info.Size())
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return o
}

// What debug/elf reads by section, readObject reads by segment and DT_*.
func TestObject(t *testing.T) {
	for _, path := range libraries(t) {
		o := open(t, path)
		f, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if note, err := f.Section(".note.gnu.build-id").Data(); err != nil || !bytes.Equal(o.buildID, note[16:]) {
			t.Errorf("%s: build-id %x, want the end of %x, %v", path, o.buildID, note, err)
		}
		if soname, err := f.DynString(elf.DT_SONAME); err != nil || o.soname() != soname[0] {
			t.Errorf("%s: soname %q, want %q, %v", path, o.soname(), soname, err)
		}
		if !o.isGlibc() {
			t.Errorf("%s is no part of glibc", path)
		}
		symbols, err := f.DynamicSymbols()
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range symbols {
			if i%16 != 0 || elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Section == elf.SHN_UNDEF || s.Size == 0 {
				continue
			}
			last := s.Value + s.Size - 1
			got := o.functionName(last)
			if !slices.ContainsFunc(symbols, func(s elf.Symbol) bool { return s.Name == got && last-s.Value < s.Size }) {
				t.Errorf("%s: %#x, the end of %s, is in %q", path, last, s.Name, got)
			}
		}
		for i, want := range symbols {
			got, ok := o.symbol(uint32(i + 1))
			if !ok || o.name(got.name) != want.Name || got.value != want.Value || got.kind != elf.ST_TYPE(want.Info) || got.index != want.Section {
				t.Fatalf("%s: symbol %d is %+v, want %+v", path, i+1, got, want)
			}
		}
		if n := int(o.symbolCount()); n != len(symbols)+1 {
			t.Errorf("%s: %d symbols, want %d", path, n, len(symbols)+1)
		}
		var want int
		for _, s := range f.Sections {
			if s.Type != elf.SHT_RELA {
				continue
			}
			b, err := s.Data()
			if err != nil {
				t.Fatal(err)
			}
			for ; len(b) > 0; b = b[relaSize:] {
				if elf.R_X86_64(le64(b[8:])) != elf.R_X86_64_RELATIVE {
					want++
				}
			}
		}
		var got int
		for r := range o.relocations {
			got++
			if _, ok := o.segment(r.at); !ok {
				t.Errorf("%s: relocation at %#x", path, r.at)
			}
		}
		if got != want || got == 0 {
			t.Errorf("%s: %d relocations, want %d", path, got, want)
		}
		text := f.Section(".text")
		code, err := text.Data()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, len(code))
		if n := o.readAt(b, text.Addr); n != len(b) || !bytes.Equal(b, code) {
			t.Errorf("%s: .text: %d bytes read", path, n)
		}
		if !o.executable(text.Addr) || o.executable(f.Section(".data").Addr) {
			t.Errorf("%s: .text or .data", path)
		}
	}
}

// Each function that a library exports is a function of its index, and the index by
// binary search is the one that the whole of .eh_frame gives.
func TestUnwind(t *testing.T) {
	for _, path := range libraries(t) {
		o := open(t, path)
		u := o.functions()
		if u.table == nil {
			t.Fatalf("%s: no sorted table", path)
		}
		list := u.all()
		if len(list) < 100 || len(list) != len(u.table)/8 {
			t.Errorf("%s: %d functions, and %d in the table", path, len(list), len(u.table)/8)
		}
		for _, want := range list {
			for _, addr := range []uint64{want.start, want.end - 1} {
				if got, ok := u.find(addr); !ok || got != want {
					t.Fatalf("%s: %#x is in %x, want %x", path, addr, got, want)
				}
			}
		}
		whole := &unwind{o: o, list: list, cies: u.cies}
		for _, f := range []function{{0, 1}, {list[len(list)-1].end, list[len(list)-1].end + 1}} {
			_, a := u.find(f.start)
			_, b := whole.find(f.start)
			if a || b {
				t.Errorf("%s: %#x is in a function", path, f.start)
			}
		}
		known := 0
		for i := range o.symbolCount() {
			s, _ := o.symbol(i)
			if s.kind != elf.STT_FUNC || s.index == elf.SHN_UNDEF || s.size == 0 {
				continue
			}
			if _, ok := u.find(s.value); ok {
				known++
			}
		}
		if known < 20 {
			t.Errorf("%s: %d functions found", path, known)
		}
	}
}

func TestBuildID(t *testing.T) {
	note := func(kind byte, name, desc string) []byte {
		b := []byte{byte(len(name)), 0, 0, 0, byte(len(desc)), 0, 0, 0, kind, 0, 0, 0}
		b = append(b, name...)
		b = append(b, make([]byte, -len(b)&3)...)
		b = append(b, desc...)
		return append(b, make([]byte, -len(b)&3)...)
	}
	id := note(3, "GNU\x00", "12345")
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"first", id, "12345"},
		{"second", slices.Concat(note(1, "GNU\x00", "abi"), id), "12345"},
		{"another owner", note(3, "XNU\x00", "12345"), ""},
		{"cut off", id[:len(id)-4], ""},
		{"endless", []byte("\xff\xff\xff\xff\xff\xff\xff\xff\x03\x00\x00\x00GNU\x00"), ""},
		{"none", nil, ""},
	} {
		if got := buildID(tt.b, 4); string(got) != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestNoObject(t *testing.T) {
	for _, b := range [][]byte{nil, []byte("\x7fELF"), bytes.Repeat([]byte{0x7f}, 4096)} {
		if o, err := readObject(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Errorf("%+v of %d bytes", o, len(b))
		}
	}
	arm := exe(t)
	arm[18] = byte(elf.EM_AARCH64)
	if _, err := readObject(bytes.NewReader(arm), int64(len(arm))); !errors.Is(err, errMachine) {
		t.Error(err)
	}
}

// exe is a small program: one segment with code, a build-id and an .eh_frame_hdr.
func exe(tb testing.TB) []byte {
	tb.Helper()
	b := make([]byte, 0x400)
	copy(b, "\x7fELF\x02\x01\x01")
	put := func(at int, size int, v uint64) {
		for i := range size {
			b[at+i] = byte(v >> (8 * i))
		}
	}
	put(16, 2, uint64(elf.ET_DYN))
	put(18, 2, uint64(elf.EM_X86_64))
	put(20, 4, 1)
	put(24, 8, 0x200) // entry
	put(32, 8, 64)    // program headers
	put(52, 2, 64)
	put(54, 2, 56)
	put(56, 2, 3)
	for i, p := range []struct{ kind, flags, at, size uint64 }{
		{uint64(elf.PT_LOAD), uint64(elf.PF_R | elf.PF_X), 0, 0x400},
		{uint64(elf.PT_NOTE), uint64(elf.PF_R), 0x180, 0x24},
		{uint64(elf.PT_GNU_EH_FRAME), uint64(elf.PF_R), 0x280, 0x80},
	} {
		at := 64 + 56*i
		put(at, 4, p.kind)
		put(at+4, 4, p.flags)
		put(at+8, 8, p.at)
		put(at+16, 8, p.at)
		put(at+24, 8, p.at)
		put(at+32, 8, p.size)
		put(at+40, 8, p.size)
		put(at+48, 8, 4)
	}
	copy(b[0x180:], "\x04\x00\x00\x00\x14\x00\x00\x00\x03\x00\x00\x00GNU\x00build-id of 20 bytes")
	copy(b[0x200:], "\x0f\x05\xc3")     // syscall; ret
	copy(b[0x280:], "\x01\x1b\x03\x3b") // .eh_frame_hdr
	put(0x284, 4, 0x300-0x284)          // .eh_frame
	put(0x288, 4, 1)                    // functions
	put(0x28c, 4, 1<<32-0x80)           // 0x200
	put(0x290, 4, 0x314-0x280)          // its FDE
	put(0x300, 4, 0x10)                 // a CIE
	copy(b[0x308:], "\x01zR\x00\x01\x78\x10\x01\x1b")
	put(0x314, 4, 0x10) // an FDE
	put(0x318, 4, 0x18)
	put(0x31c, 4, 1<<32+0x200-0x31c)
	put(0x320, 4, 3)
	return b
}

func TestSmallObject(t *testing.T) {
	b := exe(t)
	o, err := readObject(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if string(o.buildID) != "build-id of 20 bytes" {
		t.Errorf("build-id %q", o.buildID)
	}
	if f, ok := o.functions().find(0x201); !ok || f != (function{0x200, 0x203}) {
		t.Errorf("function %x, %v", f, ok)
	}
}

// FuzzObject asks of an ELF file whatever is asked of one.
func FuzzObject(f *testing.F) {
	f.Add(exe(f), uint64(0x200))
	f.Add(dynamicExe(f), uint64(0x250))
	f.Fuzz(func(t *testing.T, b []byte, addr uint64) {
		o, err := readObject(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		var p [64]byte
		if n := o.readAt(p[:], addr); n > 0 {
			if _, ok := o.segment(addr); !ok {
				t.Errorf("%d bytes at %#x, where no segment is", n, addr)
			}
		}
		for i := range min(o.symbolCount(), 1000) {
			s, _ := o.symbol(i)
			o.name(s.name)
		}
		for r := range o.relocations {
			_ = r
		}
		o.isGlibc()
		if f, ok := o.functions().find(addr); ok && (addr < f.start || addr >= f.end) {
			t.Errorf("%#x is in %x", addr, f)
		}
		o.functions().all()
	})
}
