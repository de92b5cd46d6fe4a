package elfcore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/elfcore"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testelf "github.com/fpuimg/fpuimg/internal/test/elf"
)

var usedFX, rawArea, status64 = testelf.UsedFX, testelf.Area, testelf.Status64

// describe spells the threads of a core and what is wrong with it.
func describe(b []byte) string {
	list, faults, err := elfcore.Read("core", bytes.NewReader(b), int64(len(b)), nil)
	var out []string
	for _, th := range list {
		if th.Err != nil {
			out = append(out, fmt.Sprint(th.TID, ": ", th.Err))
			continue
		}
		s := th.State
		text := fmt.Sprintf("%d %v %#x", th.TID, s.Format, uint64(s.BV))
		for _, st := range []xstate.Status{xstate.InUse, xstate.Init, xstate.Lost, xstate.Unknown} {
			set := s.With(st)
			if st == xstate.Unknown {
				set = s.Unknown
			}
			switch {
			case set == 0:
			case st == xstate.Unknown && set|xstate.Legacy == xstate.User():
				text += " unknown=rest"
				if set.Has(xstate.SSE) {
					text += "+SSE"
				}
				if set.Has(xstate.X87) {
					text += "+x87"
				}
			default:
				text += fmt.Sprintf(" %v=%v", st, set)
			}
		}
		out = append(out, text)
	}
	for _, f := range append(faults, err) {
		if f != nil {
			out = append(out, f.Error())
		}
	}
	return strings.Join(out, "; ")
}

// TestWriters reads cores as other programs than the kernel and gcore write them.
func TestWriters(t *testing.T) {
	used, initial := usedFX(), xstate.InitFXArea()
	var zeros xstate.FXArea
	fsave := make([]byte, 108)
	binary.LittleEndian.PutUint16(fsave, 0x27f)
	delve := note("Delve Header", 0x444c5645, []byte("linux/amd64\nVersion: 1.25.0\n"))
	fp := func(fx *xstate.FXArea) []byte { return note("CORE", 2, fx[:]) }
	st := status64(7)
	tests := []struct {
		name string
		core []byte
		want string
	}{
		{"criu-coredump, AVX-512", elf(64, 62, st, fp(used), note("LINUX", 0x202, rawArea(used, 832, 0, 0xe7))),
			"7 xsave 0xe7 in-use=x87|SSE|AVX lost=opmask|ZMM_Hi256|Hi16_ZMM"},
		{"criu-coredump, PKRU", elf(64, 62, st, fp(used), note("LINUX", 0x202, rawArea(used, 832, 0, 0x207))),
			"7 xsave 0x207 in-use=x87|SSE|AVX lost=PKRU"},
		{"criu-coredump, AMX", elf(64, 62, st, fp(used), note("LINUX", 0x202, rawArea(used, 832, 0, 0x60007))),
			"7 xsave 0x60007 in-use=x87|SSE|AVX lost=TILECFG|TILEDATA"},
		{"criu-coredump, no XSAVE", elf(64, 62, st, fp(used), note("LINUX", 0x202, rawArea(used, 832, 0, 0))),
			"7 fxsave 0x0 in-use=x87|SSE unknown=rest"},
		{"the note of FXSAVE alone has them", elf(64, 62, st, fp(used), note("LINUX", 0x202, rawArea(&zeros, 832, 0, 0))),
			"7 fxsave 0x0 in-use=x87|SSE unknown=rest"},
		{"a bit of SSE is missing", elf(64, 62, st, fp(used), note("LINUX", 0x202, rawArea(used, 832, 7, 5))),
			"7 xsave 0x5 in-use=x87|SSE|AVX"},
		{"zeros for INIT", elf(64, 62, st, fp(&zeros), note("LINUX", 0x202, rawArea(&zeros, 832, 7, 0))),
			"7 xsave 0x0 init=x87|SSE|AVX"},
		{"Delve, no XSAVE", elf(64, 62, delve, note("", 1, prstatus(336, 32, 7)), note("", 0x202, rawArea(used, 576, 0, 0))),
			"7 fxsave 0x0 in-use=x87|SSE unknown=rest"},
		{"Delve, no XSAVE, all INIT", elf(64, 62, delve, note("", 1, prstatus(336, 32, 7)), note("", 0x202, rawArea(&initial, 576, 0, 0))),
			"7 xsave 0x0 init=x87|SSE"},
		{"Delve", elf(64, 62, delve, note("", 1, prstatus(336, 32, 7)), note("", 0x202, rawArea(used, 832, 0, 7)), note("", 1, prstatus(336, 32, 8)), note("", 0x202, rawArea(used, 832, 0, 3))),
			"7 xsave 0x7 in-use=x87|SSE|AVX; 8 xsave 0x3 in-use=x87|SSE init=AVX"},
		{"qemu-user", elf(64, 62, st, note("CORE", 6, make([]byte, 288))), "7 none 0x0 unknown=rest+SSE+x87"},
		{"qemu-user, 32 bits", elf(32, 3, note("CORE", 1, prstatus(144, 24, 7))), "7 none 0x0 unknown=rest+SSE+x87"},
		{"FXSAVE alone", elf(64, 62, st, fp(used)), "7 fxsave 0x0 in-use=x87|SSE unknown=rest"},
		{"FSAVE alone", elf(32, 3, note("CORE", 1, prstatus(144, 24, 7)), note("CORE", 2, fsave)), "7 fxsave 0x0 in-use=x87 unknown=rest+SSE"},
		{"FSAVE and FXSAVE", elf(32, 3, note("CORE", 1, prstatus(144, 24, 7)), note("CORE", 2, fsave), note("LINUX", 0x46e62b7f, used[:])),
			"7 fxsave 0x0 in-use=x87|SSE unknown=rest"},
		{"FXSAVE first", elf(64, 62, st, note("LINUX", 0x202, rawArea(used, 832, 7, 7)), fp(used)), "7 xsave 0x7 in-use=x87|SSE|AVX"},
		{"threads of unlike notes", elf(64, 62, st, fp(used), status64(8), note("LINUX", 0x202, rawArea(used, 832, 7, 7)), status64(9)),
			"7 fxsave 0x0 in-use=x87|SSE unknown=rest; 8 xsave 0x7 in-use=x87|SSE|AVX; 9 none 0x0 unknown=rest+SSE+x87"},
		{"an area of the legacy part", elf(64, 62, st, note("LINUX", 0x202, used[:])), "7 fxsave 0x0 in-use=x87|SSE unknown=rest"},
		{"idle CPUs", elf(64, 62, status64(0), status64(0), status64(5)),
			"0 none 0x0 unknown=rest+SSE+x87; 0 none 0x0 unknown=rest+SSE+x87; 5 none 0x0 unknown=rest+SSE+x87"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := describe(tt.core); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			list, _, _ := elfcore.Read("core", bytes.NewReader(tt.core), int64(len(tt.core)), nil)
			for _, th := range list {
				if s := th.State; s != nil && s.Status(xstate.SSE) == xstate.InUse && !bytes.Equal(s.FX.XMMSpace(), used.XMMSpace()) {
					t.Errorf("thread %d: XMM registers\n%x, want\n%x", th.TID, s.FX.XMMSpace(), used.XMMSpace())
				}
			}
		})
	}
}

// TestUnknownAgain writes threads of which something is unknown, and reads them back.
func TestUnknownAgain(t *testing.T) {
	core := elf(64, 62, status64(7), note("CORE", 2, usedFX()[:]), status64(8), note("LINUX", 0x202, rawArea(usedFX(), 832, 7, 7)), status64(9))
	threads, err := openELF(t, core)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if lost, err := elfcore.Write(&out, threads); err != nil || lost != 0 {
		t.Fatalf("lost %v, error %v", lost, err)
	}
	if got, want := describe(out.Bytes()), describe(core); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestForeignCores refuses cores of other systems by their name, before all that may be
// wrong with them.
func TestForeignCores(t *testing.T) {
	st := status64(7)
	vmcoreinfo := note("VMCOREINFO", 0, []byte("OSRELEASE=6.1.0\nPAGESIZE=4096\n"))
	tests := []struct {
		system string
		core   []byte
	}{
		{"a kernel (kdump)", elf(64, 62, st, status64(0), status64(0), vmcoreinfo)},
		{"a kernel (kdump)", elf(64, 62, note("CORE", 1, make([]byte, 8)), vmcoreinfo)},
		{"a kernel (kdump)", elf(32, 3, note("CORE", 1, prstatus(144, 24, 0)), vmcoreinfo, []byte{1, 2, 3})},
		{"a machine that QEMU ran", elf(64, 62, st, note("QEMU", 0, make([]byte, 432)))},
		{"a machine that VirtualBox ran", elf(64, 62, note("VBCORE", 0xb00, make([]byte, 24)))},
		{"a machine that Xen ran", elf(64, 62, st, note("Xen", 0x1000001, make([]byte, 8)))},
		{"FreeBSD", elf(64, 62, note("FreeBSD", 3, make([]byte, 120)))},
		{"NetBSD", elf(64, 62, note("NetBSD-CORE", 1, make([]byte, 160)), note("NetBSD-CORE@1", 33, make([]byte, 208)))},
		{"OpenBSD", elf(64, 62, note("OpenBSD", 10, make([]byte, 160)))},
		{"DragonFly BSD", elf(64, 62, note("DragonFly", 1, make([]byte, 160)))},
		{"Windows (Cygwin)", elf(64, 62, note("win32thread", 18, make([]byte, 160)))},
		{"Solaris", elf(64, 62, note("CORE", 10, make([]byte, 160)))},
	}
	for _, tt := range tests {
		for _, size := range []int{len(tt.core), len(tt.core) - 1} { // cut, too
			threads, faults, err := elfcore.Read("core", bytes.NewReader(tt.core[:size]), int64(size), nil)
			system, ok := errors.AsType[*elfcore.SystemError](err)
			var format *codec.FormatError
			if !ok || system.System != tt.system || threads != nil || faults != nil || !errors.As(err, &format) {
				t.Errorf("%s: %v, faults %v, error %v", tt.system, threads, faults, err)
			}
			if size == len(tt.core) && bytes.HasSuffix(tt.core, make([]byte, 8)) {
				break // the cut hides the note
			}
		}
	}
}

// TestNotePadding reads notes that are padded otherwise than the kernel pads them.
func TestNotePadding(t *testing.T) {
	one := [][]byte{status64(7), note("LINUX", 0x202, rawArea(usedFX(), 832, 7, 7))}
	const want = "7 xsave 0x7 in-use=x87|SSE|AVX"
	for _, n := range []int{0, 1, 2, 3, 4, 8, 11, 12, 13, 24, 64, 4096} {
		if got := describe(elf(64, 62, append(slices.Clone(one), make([]byte, n))...)); got != want {
			t.Errorf("%d zeros behind: %s", n, got)
		}
		if got := describe(elf(64, 62, append([][]byte{make([]byte, n/12*12)}, one...)...)); got != want {
			t.Errorf("%d zeros before: %s", n, got)
		}
	}
	if got := describe(elf(64, 62, append(slices.Clone(one), []byte{0, 0, 1})...)); got != want+"; core: offset 0x530: note: want 12 bytes, have 3" {
		t.Errorf("three bytes behind: %s", got)
	}
	// Eight bytes, where the program header asks for it.
	var wide []byte
	for _, n := range [][]byte{one[0], one[1], status64(8), one[1]} {
		wide = append(wide, n[:20]...)
		wide = append(append(wide, make([]byte, -len(wide)&7)...), n[20:]...)
		wide = append(wide, make([]byte, -len(wide)&7)...)
	}
	b := elf(64, 62, wide)
	binary.LittleEndian.PutUint64(b[64+48:], 8)
	if got := describe(b); got != want+"; 8"+want[1:] {
		t.Errorf("padding to 8: %s", got)
	}
	for _, align := range []byte{0, 1, 2, 8, 16} { // and where it does not hold
		b := elf(64, 62, one[0], one[1], status64(8), one[1])
		b[64+48] = align
		if got := describe(b); got != want+"; 8"+want[1:] {
			t.Errorf("padding to 4 in a segment aligned to %d: %s", align, got)
		}
	}
}

// TestDamagedNotes reads the notes around one that is damaged.
func TestDamagedNotes(t *testing.T) {
	avx := note("LINUX", 0x202, rawArea(usedFX(), 832, 7, 7))
	a, b := [][]byte{status64(7), avx}, [][]byte{status64(8), avx}
	const first, second = "7 xsave 0x7 in-use=x87|SSE|AVX", "8 xsave 0x7 in-use=x87|SSE|AVX"
	bad := rawArea(usedFX(), 832, 7, 7)
	bad[570] = 1
	tests := []struct {
		name  string
		notes [][]byte
		want  []string
	}{
		{"a short prstatus", slices.Concat(a, [][]byte{note("CORE", 1, make([]byte, 8))}, b), []string{first, second, "NT_PRSTATUS: want 36 bytes, have 8"}},
		{"a short prpsinfo", slices.Concat([][]byte{note("CORE", 3, nil)}, a, b), []string{first, second, "NT_PRPSINFO: want 56 bytes, have 0"}},
		{"registers of no thread", slices.Concat([][]byte{avx}, a), []string{first, "belongs to no thread"}},
		{"a huge note", slices.Concat(a, [][]byte{note("LINUX", 0x202, make([]byte, 1<<20+8))}, b), []string{first, second, "more than any machine writes"}},
		{"a bad area, and the legacy registers", slices.Concat([][]byte{status64(6), note("CORE", 2, usedFX()[:]), note("LINUX", 0x202, bad)}, a),
			[]string{"6 fxsave 0x0 in-use=x87|SSE unknown=rest", first, "NT_X86_XSTATE header: reserved byte is not zero"}},
		{"a bad area alone", slices.Concat([][]byte{status64(6), note("LINUX", 0x202, bad)}, a), []string{"6: core: ", "reserved byte is not zero", first}},
		{"a bad layout", slices.Concat(a, [][]byte{layoutNote(2, 255, 576)}), []string{"7: core: ", "NT_X86_XSAVE_LAYOUT is damaged", "AVX of 255 bytes, want 256"}},
		{"a note beyond its segment", slices.Concat(a, b, [][]byte{{4, 0, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0}}), []string{first, second, "but only 0 follow"}},
	}
	for _, tt := range tests {
		got := describe(elf(64, 62, tt.notes...))
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: got %s\nwant %q", tt.name, got, want)
			}
		}
	}
	// Damage in one segment leaves the next.
	whole := elf(64, 62, append(slices.Clone(a), []byte{9})...)
	two := slices.Concat(whole[:120], whole[64:120], whole[120:], bytes.Join(b, nil))
	binary.LittleEndian.PutUint16(two[56:], 2)
	binary.LittleEndian.PutUint64(two[64+8:], 176)
	binary.LittleEndian.PutUint64(two[120+8:], uint64(len(whole)+56))
	binary.LittleEndian.PutUint64(two[120+32:], uint64(len(two)-len(whole)-56))
	if got := describe(two); !strings.HasPrefix(got, first+"; "+second+"; ") || !strings.HasSuffix(got, "want 12 bytes, have 1") {
		t.Errorf("two segments: %s", got)
	}
}

// TestCutAnywhere cuts a core of three threads at every byte: the threads whose registers
// lie before the cut are read as they were, no other is, and the end is named.
func TestCutAnywhere(t *testing.T) {
	var notes [][]byte
	for tid := 900; tid < 903; tid++ {
		notes = append(notes, status64(tid), note("CORE", 2, usedFX()[:]), note("LINUX", 0x202, rawArea(usedFX(), 832, 7, 7)), note("LINUX", 0x200, make([]byte, 10)))
	}
	whole := elf(64, 62, notes...)
	const thread, last = 356 + 532 + 852 + 32, 32 // the last note of each tells nothing
	text := func(i int) string { return fmt.Sprintf("%d xsave 0x7 in-use=x87|SSE|AVX", 900+i) }
	for n := 120; n < len(whole)-2; n++ {
		var want []string
		for i := range 3 {
			if n >= 120+thread*(i+1)-last {
				want = append(want, text(i))
			}
		}
		of := ""
		if at := n - 120; at >= 356 {
			of = fmt.Sprintf(", after NT_PRSTATUS of thread %d", 900+(at-356)/thread)
		}
		want = append(want, fmt.Sprintf("core: offset %#x: notes: the file ends inside them%s", n, of))
		if got := describe(whole[:n]); got != strings.Join(want, "; ") {
			t.Fatalf("cut at %d: got %s\nwant %s", n, got, strings.Join(want, "; "))
		}
	}
	if got, want := describe(whole), strings.Join([]string{text(0), text(1), text(2)}, "; "); got != want {
		t.Errorf("whole: %s", got)
	}
}
