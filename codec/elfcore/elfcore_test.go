package elfcore_test

import (
	"bytes"
	debugelf "debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/elfcore"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testelf "github.com/fpuimg/fpuimg/internal/test/elf"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
	"github.com/fpuimg/fpuimg/internal/test/truth"
)

// corePath returns the core file of an entry.
func corePath(t testing.TB, name string) string {
	t.Helper()
	return testimg.Glob(t, name+"/core.*")[0]
}

// TestTruthELF compares every register of the ELF cores with what the programs that
// dumped them said they held.
func TestTruthELF(t *testing.T) {
	design := map[string]map[string]string{
		"core-gcore": {"mxcsr_mask": "gdb writes 0"},
	}
	threads := map[string]int{"core-gcore": 1, "core-kernel": 4}
	for _, entry := range testimg.All(t, testimg.ELFCore) {
		t.Run(entry.Name, func(t *testing.T) {
			byTID := map[int]*testimg.Thread{}
			for i := range entry.Tasks[0].Threads {
				byTID[entry.Tasks[0].Threads[i].TID] = &entry.Tasks[0].Threads[i]
			}
			path := corePath(t, entry.Name)
			ckpt, err := checkpoint.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if ckpt.Kind != checkpoint.KindELFCore {
				t.Errorf("kind %q, want elf-core", ckpt.Kind)
			}
			c := truth.Compare()
			var seen []int
			for th, err := range ckpt.Threads() {
				if err != nil {
					t.Fatal(err)
				}
				want := byTID[th.TID]
				if want == nil {
					t.Fatalf("thread %d is not in the truth", th.TID)
				}
				if th.PID != want.PID || th.Comm != "fpat64" && th.Comm != "fpat" {
					t.Errorf("thread %d: pid %d comm %q, want pid %d and the program's name", th.TID, th.PID, th.Comm, want.PID)
				}
				seen = append(seen, th.TID)
				c.Thread(th.State, want)
			}
			if len(seen) != threads[entry.Name] || len(byTID) != len(seen) {
				t.Errorf("threads %v, want %d", seen, threads[entry.Name])
			}
			// Per thread: 8 control words, TOP, 8 ST, 16 XMM, 32 ZMM and 8 k.
			if got, want := c.Sum(), 73*len(seen); got < want {
				t.Errorf("%d registers compared, want at least %d", got, want)
			}
			for class, diff := range c.Differs {
				if design[entry.Name][class] == "" {
					t.Error(diff)
				}
			}
			for class := range design[entry.Name] {
				if c.Differs[class] == "" {
					t.Errorf("%s does not differ", class)
				}
			}
			t.Logf("%d registers of %d threads compared", c.Sum(), len(seen))

			// From a pipe the same must come out.
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			piped, err := checkpoint.ReadAll("-", struct{ io.Reader }{f}, checkpoint.Options{})
			if err != nil {
				t.Fatal(err)
			}
			i := 0
			for th, err := range piped[0].Checkpoint.Threads() {
				if err != nil || th.TID != seen[i] {
					t.Errorf("thread %d from a pipe: %d, %v; want %d", i, th.TID, err, seen[i])
				}
				i++
			}
			if i != len(seen) {
				t.Errorf("%d threads from a pipe, want %d", i, len(seen))
			}
		})
	}
}

// TestELFAgain writes an ELF core from an ELF core: every thread keeps its general
// registers, as the notes have them.
func TestELFAgain(t *testing.T) {
	for _, name := range []string{"core-kernel", "core-gcore"} {
		b, err := os.ReadFile(corePath(t, name))
		if err != nil {
			t.Fatal(err)
		}
		threads, err := openELF(t, b)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if _, err := elfcore.Write(&out, threads); err != nil {
			t.Fatal(err)
		}
		want, got := statuses(t, b), statuses(t, out.Bytes())
		if len(want) != len(threads) || len(got) != len(want) {
			t.Fatalf("%s: %d threads become %d", name, len(want), len(got))
		}
		for tid, regs := range want {
			if !bytes.Equal(got[tid], regs) {
				t.Errorf("%s: registers of thread %d\n%x, want\n%x", name, tid, got[tid], regs)
			}
			if rip, rsp := binary.LittleEndian.Uint64(regs[16*8:]), binary.LittleEndian.Uint64(regs[19*8:]); rip == 0 || rsp == 0 {
				t.Errorf("%s: thread %d has rip %#x and rsp %#x", name, tid, rip, rsp)
			}
		}
	}
	// One of 32 bits.
	status := prstatus(144, 24, 7)
	for i := range 17 {
		binary.LittleEndian.PutUint32(status[72+4*i:], uint32(1000+i))
	}
	threads, err := openELF(t, elf(32, 3, note("CORE", 1, status)))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := elfcore.Write(&out, threads); err != nil || !bytes.Contains(out.Bytes(), status[72:][:17*4]) {
		t.Errorf("32 bits: other registers, error %v", err)
	}
}

// statuses returns the general registers in the notes of a 64-bit core, by thread.
func statuses(t *testing.T, core []byte) map[int][]byte {
	t.Helper()
	f, err := debugelf.NewFile(bytes.NewReader(core))
	if err != nil {
		t.Fatal(err)
	}
	out := map[int][]byte{}
	for _, p := range f.Progs {
		if p.Type != debugelf.PT_NOTE {
			continue
		}
		b, err := io.ReadAll(p.Open())
		if err != nil {
			t.Fatal(err)
		}
		for len(b) >= 12 {
			name, size, typ := le32(b), le32(b[4:]), le32(b[8:])
			b = b[12+(name+3)&^3:]
			if typ == 1 {
				out[int(le32(b[32:]))] = b[112:][:27*8]
			}
			b = b[min((size+3)&^3, uint32(len(b))):]
		}
	}
	return out
}

func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

var note, elf, prstatus = testelf.Note, testelf.Core, testelf.PRStatus

// area returns a standard-format area with YMM3's high half set.
func area(t *testing.T, l xstate.Layout, size int, xcr0 uint64) []byte {
	t.Helper()
	s := xstate.NewState(xstate.FormatXSave)
	d := make([]byte, 256)
	d[3*16] = 0x5a
	s.BV |= xstate.AVX.Mask()
	s.SetData(xstate.AVX, d)
	b, err := s.MarshalArea(l, size)
	if err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint64(b[464:], xcr0)
	return b
}

func openELF(t *testing.T, b []byte) ([]codec.Thread, error) {
	t.Helper()
	list, faults, err := elfcore.Read("core", bytes.NewReader(b), int64(len(b)), nil)
	err = errors.Join(append(faults, err)...)
	var out []codec.Thread
	for _, th := range list {
		if th.Err != nil {
			return nil, th.Err
		}
		out = append(out, th.Thread)
	}
	return out, err
}

// TestELFShapes reads the kinds of cores that the real ones do not cover.
func TestELFShapes(t *testing.T) {
	fx := xstate.NewState(xstate.FormatFXSave).FX
	fx.SetFCW(0x27f)
	copy(fx.XMMSpace(), "\x11\x22")
	fsave := make([]byte, 108)
	binary.LittleEndian.PutUint16(fsave, 0x27f)
	binary.LittleEndian.PutUint16(fsave[4:], 0x3800) // TOP 7
	binary.LittleEndian.PutUint16(fsave[8:], 0x3fff) // physical 7 valid, all else empty
	copy(fsave[28:], "\x00\x00\x00\x00\x00\x00\x00\x80\xff\x3f")
	avx := area(t, xstate.IntelLayout(7), 832, 7)
	unnamed := area(t, xstate.IntelLayout(7), 832, 0)
	// A layout that no machine has, which only its note can tell.
	odd := xstate.Layout{{Feature: xstate.AVX, Offset: 1024, Size: 256}}
	info := make([]byte, 136)
	binary.LittleEndian.PutUint32(info[24:], 7)
	copy(info[40:], "a name of 16 byt")
	tests := []struct {
		name   string
		core   []byte
		format xstate.Format
		compat bool
		check  func(s *xstate.State) string
	}{
		{"64-bit, FXSAVE only", elf(64, 62, note("CORE", 1, prstatus(336, 32, 7)), note("CORE", 2, fx[:])), xstate.FormatFXSave, false,
			func(s *xstate.State) string { return fmt.Sprintf("%#x", s.FX.FCW()) + s.Vectors()[0].Hex()[30:] }},
		{"64-bit, XSAVE by XCR0", elf(64, 62, note("CORE", 1, prstatus(336, 32, 7)), note("CORE", 2, fx[:]), note("LINUX", 0x202, avx)), xstate.FormatXSave, false, ymm3},
		{"no XCR0 word", elf(64, 62, note("CORE", 1, prstatus(336, 32, 7)), note("LINUX", 0x202, unnamed)), xstate.FormatXSave, false, ymm3},
		{"layout note", elf(64, 62, note("CORE", 1, prstatus(336, 32, 7)), note("LINUX", 0x202, area(t, odd, 1280, 0x7)), layoutNote(2, 256, 1024)), xstate.FormatXSave, false, ymm3},
		{"32-bit, XSAVE", elf(32, 3, note("CORE", 1, prstatus(144, 24, 7)), note("CORE", 2, fsave), note("LINUX", 0x46e62b7f, fx[:]), note("LINUX", 0x202, avx)), xstate.FormatXSave, true, ymm3},
		{"32-bit, FXSAVE", elf(32, 3, note("CORE", 1, prstatus(144, 24, 7)), note("CORE", 2, fsave), note("LINUX", 0x46e62b7f, fx[:])), xstate.FormatFXSave, true,
			func(s *xstate.State) string { return fmt.Sprintf("%#x", s.FX.FCW()) + s.Vectors()[0].Hex()[30:] }},
		{"32-bit, FSAVE", elf(32, 3, note("CORE", 1, prstatus(144, 24, 7)), note("CORE", 2, fsave)), xstate.FormatFXSave, true,
			func(s *xstate.State) string {
				return fmt.Sprintf("%#x %#x %v %v %x", s.FX.FCW(), s.FX.FTW(), s.FX.Empty(0), s.FX.Empty(1), [10]byte(s.FX.ST(0)))
			}},
		{"x32", elf(32, 62, note("CORE", 1, prstatus(296, 24, 7)), note("CORE", 2, fx[:]), note("LINUX", 0x202, avx)), xstate.FormatXSave, false, ymm3},
		{"no registers", elf(64, 62, note("CORE", 1, prstatus(336, 32, 7))), xstate.FormatNone, false, nil},
		{"name and shadow stack", elf(64, 62, note("CORE", 3, info), note("CORE", 1, prstatus(336, 32, 7)), note("CORE", 2, fx[:]), note("LINUX", 0x204, []byte{8, 7, 6, 5, 4, 3, 2, 1})), xstate.FormatFXSave, false,
			func(s *xstate.State) string { return fmt.Sprintf("%#x", s.ShadowStack.SSP) }},
	}
	want := map[string]string{"64-bit, FXSAVE only": "0x27f2211", "32-bit, FXSAVE": "0x27f2211",
		"32-bit, FSAVE": "0x27f 0x80 false true 0000000000000080ff3f", "no registers": "", "name and shadow stack": "0x102030405060708"}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ths, err := openELF(t, tt.core)
			if err != nil {
				t.Fatal(err)
			}
			if len(ths) != 1 || ths[0].TID != 7 {
				t.Fatalf("threads %v, want the one with number 7", ths)
			}
			s := ths[0].State
			if s.Format != tt.format || s.Compat != tt.compat {
				t.Errorf("format %v, 32-bit %v; want %v, %v", s.Format, s.Compat, tt.format, tt.compat)
			}
			w, ok := want[tt.name]
			if !ok {
				w = "5a"
			}
			if tt.check != nil {
				if got := tt.check(s); got != w {
					t.Errorf("got %s, want %s", got, w)
				}
			}
			if tt.name == "name and shadow stack" && (ths[0].Comm != "a name of 16 byt" || ths[0].PID != 7) {
				t.Errorf("comm %q, pid %d", ths[0].Comm, ths[0].PID)
			}
		})
	}
}

// ymm3 returns the first byte of YMM3's high half.
func ymm3(s *xstate.State) string { return s.Vectors()[3].Hex()[32:34] }

// TestELFTiles reads AMX tiles, which a core image cannot hold.
func TestELFTiles(t *testing.T) {
	s := xstate.NewState(xstate.FormatXSave)
	tiles := make([]byte, 8192)
	for i := range tiles {
		tiles[i] = byte(i*7 + 1)
	}
	cfg := make([]byte, 64)
	cfg[0] = 1
	s.BV |= xstate.AMX
	s.SetData(xstate.TileCfg, cfg)
	s.SetData(xstate.TileData, tiles)
	b, err := s.MarshalArea(xstate.IntelLayout(0x600e7), 11008)
	if err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint64(b[464:], 0x600e7)
	ths, err := openELF(t, elf(64, 62, note("CORE", 1, prstatus(336, 32, 7)), note("LINUX", 0x202, b)))
	if err != nil {
		t.Fatal(err)
	}
	got := ths[0].State
	if !bytes.Equal(got.View(xstate.TileData), tiles) || !bytes.Equal(got.View(xstate.TileCfg), cfg) {
		t.Error("the tiles differ")
	}
	if got.Status(xstate.TileData) != xstate.InUse {
		t.Errorf("TILEDATA is %v, want in use", got.Status(xstate.TileData))
	}
}

// TestELFErrors checks that malformed cores give a FormatError that names the place.
func TestELFErrors(t *testing.T) {
	st := note("CORE", 1, prstatus(336, 32, 7))
	big := note("LINUX", 0x202, make([]byte, 1<<20+8))
	cut := elf(64, 62, st)
	binary.LittleEndian.PutUint64(cut[96:], 1<<40)
	neg := elf(64, 62, st)
	binary.LittleEndian.PutUint64(neg[72:], 1<<63)
	many := elf(64, 62, st)
	binary.LittleEndian.PutUint16(many[56:], 0xffff)
	exe := elf(64, 62, st)
	exe[16] = 2
	// Two program headers over one segment of notes, and one that lies in the other.
	over := elf(64, 62, st)
	over = slices.Concat(over[:120], over[64:120], over[120:])
	binary.LittleEndian.PutUint16(over[56:], 2)
	for _, ph := range []int{64, 120} {
		binary.LittleEndian.PutUint64(over[ph+8:], 176)
	}
	inner := slices.Clone(over)
	binary.LittleEndian.PutUint64(inner[120+8:], 176+12)
	binary.LittleEndian.PutUint64(inner[120+32:], 8)
	at := func(what string) string { return fmt.Sprintf("offset %#x: NT_%s", 120+len(st)+20, what) }
	second := func(what string) string { return fmt.Sprintf("offset %#x: NT_%s", 120+len(st)+20+16, what) }
	avx := note("LINUX", 0x202, area(t, xstate.IntelLayout(7), 832, 7))
	tests := []struct {
		name string
		core []byte
		want string // in the message
	}{
		{"a layout that lies nowhere", elf(64, 62, st, layoutNote(2, 256, 0xffffff00)), at("X86_XSAVE_LAYOUT: AVX at 0xffffff00, where no area has it")},
		{"a layout in the header", elf(64, 62, st, layoutNote(2, 256, 512)), at("X86_XSAVE_LAYOUT: AVX at 0x200, where no area has it")},
		{"a layout that overlaps", elf(64, 62, st, layoutNote(2, 256, 576, 5, 64, 768)), second("X86_XSAVE_LAYOUT: opmask at 0x300, where AVX lies")},
		{"a layout that repeats", elf(64, 62, st, layoutNote(2, 256, 576, 2, 256, 832)), second("X86_XSAVE_LAYOUT: AVX stands twice")},
		{"two layouts", elf(64, 62, st, layoutNote(2, 256, 576), layoutNote(2, 256, 640)), "NT_X86_XSAVE_LAYOUT: differs from the one before"},
		{"a layout without AVX", elf(64, 62, st, layoutNote(5, 64, 832), avx), "NT_X86_XSTATE AVX: in use, and the layout has no place for it"},
		{"a short FXSAVE area", elf(64, 62, st, note("CORE", 2, make([]byte, 511))), fmt.Sprintf("offset %#x: NT_PRFPREG legacy area: want 512 bytes, have 511", 120+len(st)+20+511)},
		{"a short FXSAVE area of 32 bits", elf(32, 3, note("CORE", 1, prstatus(144, 24, 7)), note("CORE", 0x46e62b7f, nil)), fmt.Sprintf("offset %#x: NT_PRXFPREG legacy area: want 512 bytes, have 0", 84+20+144+20)},
		{"a short shadow stack", elf(64, 62, st, note("LINUX", 0x204, make([]byte, 3))), at("X86_SHSTK: want 8 bytes, have 3")},
		{"notes twice", over, "offset 0xb0: PT_NOTE: overlaps another, which ends at"},
		{"notes in notes", inner, "offset 0xbc: PT_NOTE: overlaps another, which ends at"},
		{"registers of no thread", elf(64, 62, note("LINUX", 0x202, make([]byte, 832))), ""},
		{"an area without a layout", elf(64, 62, st, note("LINUX", 0x202, append(make([]byte, 464), append([]byte{0xff, 0xff}, make([]byte, 800)...)...))), ""},
		{"a short area", elf(64, 62, st, note("LINUX", 0x202, make([]byte, 100))), ""},
		{"a note beyond its segment", elf(64, 62, st, []byte{4, 0, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0}), ""},
		{"a huge area", elf(64, 62, st, big), ""},
		{"a short prstatus", elf(64, 62, note("CORE", 1, make([]byte, 16))), ""},
		{"notes beyond the file", cut, ""},
		{"a negative offset", neg, ""},
		{"headers beyond the file", many, ""},
		{"not a core", exe, ""},
		{"another machine", elf(64, 183, st), ""},
		{"a layout of odd length", elf(64, 62, st, note("LINUX", 0x205, make([]byte, 17))), ""},
		{"a layout with a wrong size", elf(64, 62, st, note("LINUX", 0x205, append([]byte{2}, make([]byte, 15)...))), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			const path = "dir/core"
			list, faults, err := elfcore.Read(path, bytes.NewReader(tt.core), int64(len(tt.core)), nil)
			for _, th := range list {
				err = errors.Join(err, th.Err)
			}
			err = errors.Join(append(faults, err)...)
			var format *codec.FormatError
			if !errors.As(err, &format) {
				t.Fatalf("error %v, want a *FormatError", err)
			}
			if format.Path != path {
				t.Errorf("path %q, want %q", format.Path, path)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want %q", err, tt.want)
			}
		})
	}
}

// TestELFOrder reads cores whose headers stand elsewhere than the kernel puts them, from
// a file and from a stream: behind the notes, and their number in a section header.
func TestELFOrder(t *testing.T) {
	le := binary.LittleEndian
	b := elf(64, 62, note("CORE", 1, prstatus(336, 32, 7)))
	behind := append(slices.Clone(b), b[64:120]...)
	le.PutUint64(behind[32:], uint64(len(b)))
	counted := append(slices.Clone(b), make([]byte, 64)...)
	le.PutUint64(counted[40:], uint64(len(b)))
	le.PutUint16(counted[56:], 0xffff)
	le.PutUint32(counted[len(b)+44:], 1)
	for name, b := range map[string][]byte{"behind": behind, "counted": counted} {
		spool, err := elfcore.NewSpool(iotest.OneByteReader(bytes.NewReader(b)))
		if err != nil {
			t.Fatal(err)
		}
		defer spool.Close()
		for size, r := range map[int64]io.ReaderAt{int64(len(b)): bytes.NewReader(b), -1: spool} {
			if threads, _, err := elfcore.Read("core", r, size, nil); err != nil || len(threads) != 1 || threads[0].TID != 7 {
				t.Errorf("%s, size %d: threads %v, error %v", name, size, threads, err)
			}
		}
	}
	// Where a stream would have to be kept for too long.
	far := elf(64, 62, note("CORE", 1, prstatus(336, 32, 7)))
	le.PutUint64(far[72:], 1<<40)
	spool, err := elfcore.NewSpool(io.MultiReader(bytes.NewReader(far), zeros{}))
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	if _, faults, err := elfcore.Read("-", spool, -1, nil); err != nil || len(faults) != 1 || !strings.HasSuffix(faults[0].Error(), "give the core as a file") {
		t.Errorf("notes at 1 TiB of a stream: faults %v, error %v", faults, err)
	}
}

// zeros is a stream without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// layoutNote builds NT_X86_XSAVE_LAYOUT of bit, size and offset of each component.
func layoutNote(entries ...uint32) []byte {
	var b []byte
	for i, v := range entries {
		if b = binary.LittleEndian.AppendUint32(b, v); i%3 == 2 {
			b = append(b, 0, 0, 0, 0) // flags
		}
	}
	return note("LINUX", 0x205, b)
}

// TestELFRepeated reads a core that names a thread twice: it is said, and the first
// counts. None can be written.
func TestELFRepeated(t *testing.T) {
	fx := func(fcw uint16) []byte {
		fx := xstate.NewState(xstate.FormatFXSave).FX
		fx.SetFCW(fcw)
		return note("CORE", 2, fx[:])
	}
	notes := [][]byte{note("CORE", 1, prstatus(336, 32, 7)), fx(0x27f), note("CORE", 1, prstatus(336, 32, 8)), fx(0x47f), fx(0x57f)}
	for range 100 {
		notes = append(notes, note("CORE", 1, prstatus(336, 32, 7)), fx(0x67f))
	}
	b := elf(64, 62, notes...)
	list, faults, err := elfcore.Read("core", bytes.NewReader(b), int64(len(b)), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	var threads []codec.Thread
	for _, th := range list {
		if th.Err != nil {
			t.Fatal(th.Err)
		}
		threads = append(threads, th.Thread)
		got = append(got, fmt.Sprintf("%d %#x", th.TID, th.State.FX.FCW()))
	}
	if want := []string{"7 0x27f", "8 0x47f"}; !slices.Equal(got, want) {
		t.Errorf("threads %q, want %q", got, want)
	}
	if n := len(faults); n != 11 || faults[10].Error() != "and 91 more" {
		t.Fatalf("%d problems, want 10 and the count of 91 more: %v", n, faults)
	}
	const thread, registers = 20 + 336, 20 + 512
	for i, want := range []string{
		fmt.Sprintf("core: offset %#x: NT_PRFPREG: stands twice for thread 8; the first counts", 120+2*thread+2*registers+20),
		fmt.Sprintf("core: offset %#x: NT_PRSTATUS: thread 7 stands twice; the first counts", 120+2*thread+3*registers+20),
	} {
		if err := faults[i].Error(); err != want {
			t.Errorf("problem %q, want %q", err, want)
		}
	}
	if _, err := elfcore.Write(io.Discard, append(threads, threads[0])); !errors.Is(err, elfcore.ErrSameThread) {
		t.Errorf("writing a thread twice: %v, want ErrSameThread", err)
	}
}

// TestELFTruncated cuts the real cores and requires errors, or what lay before the
// cut; never a panic and never another register.
func TestELFTruncated(t *testing.T) {
	for _, name := range []string{"core-gcore", "core-kernel"} {
		b, err := os.ReadFile(corePath(t, name))
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(b); n += 97 {
			if _, err := openELF(t, b[:n]); err != nil {
				var format *codec.FormatError
				if !errors.As(err, &format) {
					t.Fatalf("%s cut at %d: %v is no *FormatError", name, n, err)
				}
			} else if name == "core-kernel" && n < 1000 {
				t.Errorf("%s cut at %d is accepted", name, n)
			}
		}
	}
}

// FuzzELF reads arbitrary bytes as an ELF core, from a file and from a stream.
func FuzzELF(f *testing.F) {
	for _, name := range []string{"core-gcore", "core-kernel"} {
		b, err := os.ReadFile(corePath(f, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(elf(32, 3, note("CORE", 1, prstatus(144, 24, 7)), note("CORE", 2, make([]byte, 108)), note("LINUX", 0x205, make([]byte, 32))))
	f.Add(elf(64, 62, note("CORE", 3, make([]byte, 136)), note("CORE", 1, prstatus(336, 32, 7)), note("LINUX", 0x202, make([]byte, 832))))
	two := elf(64, 62, status64(7), note("CORE", 2, usedFX()[:]), note("", 0x202, rawArea(usedFX(), 832, 0, 0xe7)), status64(8), note("LINUX", 0x202, rawArea(usedFX(), 576, 0, 0)))
	f.Add(two)
	f.Add(two[:len(two)-300])
	f.Fuzz(func(t *testing.T, b []byte) {
		if !bytes.HasPrefix(b, []byte("\x7fELF")) {
			b = slices.Concat([]byte("\x7fELF"), b)
		}
		threads, _, err := elfcore.Read("core", bytes.NewReader(b), int64(len(b)), nil)
		spool, serr := elfcore.NewSpool(bytes.NewReader(b))
		if serr != nil {
			t.Fatal(serr)
		}
		defer spool.Close()
		// The size is all that a file tells and a stream does not.
		if piped, _, perr := elfcore.Read("core", spool, -1, nil); err == nil && (perr != nil || !reflect.DeepEqual(piped, threads)) {
			t.Fatalf("threads of a stream %v, %v, of a file %v", piped, perr, threads)
		}
		for _, th := range threads {
			if th.Err == nil {
				walk(t, th.State)
			}
		}
	})
}

// walk looks at all of a state that was read from hostile bytes.
func walk(t *testing.T, s *xstate.State) {
	for f, st := range s.Present() {
		if (s.View(f) == nil) != (st == xstate.Lost || st == xstate.Unknown) {
			t.Fatalf("%v: %v, and a view of %d bytes", f, st, len(s.View(f)))
		}
	}
	s.Vectors()
}

// FuzzArea reads arbitrary bytes as a bare area, with a machine and without.
func FuzzArea(f *testing.F) {
	f.Add(rawArea(usedFX(), 832, 7, 7))
	f.Add(rawArea(usedFX(), 4096, 0x602e7, 0xe7))
	f.Add(usedFX()[:])
	compacted := rawArea(usedFX(), 900, 0, 0x27)
	binary.LittleEndian.PutUint64(compacted[520:], 1<<63|0x27)
	f.Add(compacted)
	machines := []*xstate.CPU{nil, {Vendor: "amd", XFeatures: new(xstate.Features(0x2e7))}, {Layout: xstate.IntelLayout(0x602e7)},
		{Layout: xstate.Layout{{Feature: xstate.AVX, Offset: -1, Size: 1 << 62}, {Feature: xstate.PKRU, Offset: 1 << 62, Size: 1 << 62}}}}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range machines {
			if s, err := openArea(t, b, m); err == nil {
				walk(t, s)
			}
		}
	})
}
