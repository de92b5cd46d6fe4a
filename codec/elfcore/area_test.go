package elfcore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/elfcore"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
	"github.com/fpuimg/fpuimg/internal/test/truth"
)

func openArea(t *testing.T, b []byte, m *xstate.CPU) (*xstate.State, error) {
	t.Helper()
	th, err := elfcore.ReadArea("area", bytes.NewReader(b), m)
	return th.State, err
}

// TestRawAreas reads the areas that real programs stored with XSAVE, as bare files, by
// their size and by the machine that is recorded beside them, and compares their
// registers with what the programs said of them.
func TestRawAreas(t *testing.T) {
	n, recorded := 0, 0
	for _, entry := range testimg.All(t) {
		machines := []*xstate.CPU{nil}
		if path := filepath.Join(testimg.Path(t, entry.Name), "cpuinfo.img"); exists(path) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			info, err := codec.ParseCPUInfo(path, b)
			if err != nil {
				t.Fatal(err)
			}
			machines = append(machines, info.CPU())
		}
		for _, task := range entry.Tasks {
			for i := range task.Threads {
				th := &task.Threads[i]
				area := th.Area()
				if area == nil {
					continue
				}
				for _, m := range machines {
					s, err := openArea(t, area, m)
					if err != nil {
						t.Errorf("%s: %v", entry.Name, err)
						continue
					}
					if n++; m != nil {
						recorded++
					}
					c := truth.Compare()
					s.Compat = task.Bits == 32
					c.Thread(s, th)
					for class, diff := range c.Differs {
						if class != "bnd" && class != "fip" && class != "fdp" && class != "fop" {
							t.Errorf("%s: %s", entry.Name, diff)
						}
					}
				}
			}
		}
	}
	if n < 60 || recorded < 20 {
		t.Errorf("%d areas read, %d of them by the machine; want at least 60 and 20", n, recorded)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestRawAreaMachines reads an area by machines that cannot have stored it, which
// must be refused: another layout would give other registers.
func TestRawAreaMachines(t *testing.T) {
	cpu := func(set xstate.Features, size uint32) *xstate.CPU {
		return &xstate.CPU{Name: "host", XFeatures: &set, XSaveSize: &size}
	}
	level := func(name string) *xstate.CPU {
		m, ok := xstate.ByName(name)
		if !ok {
			t.Fatal(name)
		}
		return m
	}
	intel := area512(t, xstate.IntelLayout(0xe7), 2688, 0)
	amd := area512(t, xstate.AMDLayout(0xe7), 2432, 0)
	avx := area(t, xstate.IntelLayout(7), 832, 0)
	noLayout := "neither its offsets nor the size of a known machine are recorded"
	tests := []struct {
		name    string
		b       []byte
		machine *xstate.CPU
		want    string // "" for none
	}{
		{"Intel by size", intel, cpu(0xe7, 2688), ""},
		{"AMD by size", amd, cpu(0xe7, 2432), ""},
		{"AMD on Intel", amd, cpu(0xe7, 2688), "none of its components ends there"},
		{"a level, which has no size", amd, level("x86-64-v4"), ""},
		{"too long for a level", append(intel, make([]byte, 8)...), level("x86-64-v4"), "it has no vendor, and the layouts of Intel and AMD differ"},
		{"an unknown size", intel, cpu(0xe7, 2700), noLayout},
		{"an unknown size, and AVX", avx, cpu(0xe7, 2700), ""},
		{"nothing known", intel, &xstate.CPU{Name: "host"}, noLayout},
		{"nothing known, and AVX", avx, &xstate.CPU{Name: "host"}, ""},
		{"cut", intel[:2432], cpu(0xe7, 2688), "none of its components ends there"},
		{"padded", append(slices.Clone(intel), make([]byte, 8)...), cpu(0xe7, 2688), ""},
		{"padded with more than zeros", append(slices.Clone(intel), 0, 1), cpu(0xe7, 2688), "none of its components ends there"},
		{"padded on a vendor's", append(slices.Clone(amd), make([]byte, 8)...), &xstate.CPU{Name: "host", Vendor: "amd", XFeatures: new(xstate.Features(0xe7))}, ""},
		{"KVM's buffer, smaller than the machine's area", append(slices.Clone(intel), make([]byte, 4096-2688)...), &xstate.CPU{Name: "host", Layout: xstate.IntelLayout(0x602e7)}, ""},
		{"another buffer, smaller than the machine's area", append(slices.Clone(intel), make([]byte, 4000-2688)...), &xstate.CPU{Name: "host", Layout: xstate.IntelLayout(0x602e7)}, "none of its components ends there"},
		{"no AVX", avx, cpu(3, 576), "it has no AVX, which is in use there"},
		{"no XSAVE", intel, level("x86-64-v2"), "it has no XSAVE"},
		{"a component beyond the table", append(intel, make([]byte, 64)...), &xstate.CPU{Layout: xstate.IntelLayout(0xe7), XSaveSize: new(uint32(2752))}, ""},
	}
	for _, tt := range tests {
		_, err := openArea(t, tt.b, tt.machine)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		var unknown *elfcore.LayoutError
		if !errors.As(err, &unknown) || unknown.Reason != tt.want || unknown.Machine != tt.machine.Name {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestRawAreaForms reads one state in the forms that an area has: from a signal
// frame, compacted, by the layout of a machine, and FXSAVE alone.
func TestRawAreaForms(t *testing.T) {
	std := area(t, xstate.IntelLayout(0x207), 2696, 0x207)
	frame := slices.Clone(std)
	binary.LittleEndian.PutUint32(frame[464:], 0x46505853)
	binary.LittleEndian.PutUint32(frame[468:], 2696+4)
	binary.LittleEndian.PutUint64(frame[472:], 0x207)
	binary.LittleEndian.PutUint32(frame[480:], 2696)
	frame = append(frame, "EXPF"...)
	compact := make([]byte, 576+64+256)
	copy(compact, std[:576])
	binary.LittleEndian.PutUint64(compact[520:], 1<<63|0x27)
	copy(compact[576:], std[576:832])
	odd := xstate.Layout{{Feature: xstate.AVX, Offset: 1000, Size: 256}}
	dirty := slices.Clone(std)
	copy(dirty[464:], bytes.Repeat([]byte{0xaa}, 48))
	amd := area(t, xstate.AMDLayout(0x2e7), 2440, 0)
	tests := []struct {
		name    string
		b       []byte
		machine *xstate.CPU
	}{
		{"ptrace", std, nil},
		{"signal frame", frame, nil},
		{"stale words", dirty, nil},
		{"compacted", compact, nil},
		{"AMD", amd, nil},
		{"a layout of its own", area(t, odd, 1256, 0x7), &xstate.CPU{Layout: odd}},
		{"a signal frame of a machine", frame, &xstate.CPU{Layout: xstate.IntelLayout(0x207)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := openArea(t, tt.b, tt.machine)
			if err != nil {
				t.Fatal(err)
			}
			if got := ymm3(s); got != "5a" {
				t.Errorf("ymm3 has %s, want 5a", got)
			}
		})
	}
	if _, err := openArea(t, frame[:2690], nil); fmt.Sprint(err) != "area: offset 0x1e0: area xstate_size: 2696 bytes, of which the signal frame has 2690" {
		t.Errorf("a cut signal frame: %v", err)
	}
	if s, err := openArea(t, std[:512], nil); err != nil || s.Format != xstate.FormatFXSave {
		t.Errorf("512 bytes: %v, %v; want an FXSAVE area", s, err)
	}
	for _, b := range [][]byte{nil, std[:100], std[:575], append(slices.Clone(std), 1), make([]byte, 1<<20+1)} {
		_, err := openArea(t, b, nil)
		var format *codec.FormatError
		if !errors.As(err, &format) || !strings.HasPrefix(format.Field, "area") {
			t.Errorf("%d bytes: error %v, want a *FormatError of the area", len(b), err)
		}
	}
}

// area512 is an area in which AVX-512 is in use, besides YMM3's high half.
func area512(t *testing.T, l xstate.Layout, size int, xcr0 uint64) []byte {
	t.Helper()
	b := area(t, l, size, xcr0)
	b[512] |= 0xe0
	for f := range xstate.AVX512.All() {
		p, _ := l.Find(f)
		for i := range p.Size {
			b[p.Offset+i] = byte(f)<<4 | byte(i%13+1)
		}
	}
	return b
}

// TestAreaRoom reads areas that were cut off, or stand in a buffer of another size, as
// KVM_GET_XSAVE and KVM_GET_XSAVE2 return them. What is read is what was there: nothing
// is taken from the place of another layout.
func TestAreaRoom(t *testing.T) {
	in := func(b []byte, size int) []byte { return append(slices.Clone(b), make([]byte, size-len(b))...) }
	amd := &xstate.CPU{Name: "host", Vendor: "amd", Layout: xstate.AMDLayout(0xe7)}
	intel := &xstate.CPU{Name: "host", Vendor: "intel", Layout: xstate.IntelLayout(0x602e7)}
	avx := area(t, xstate.IntelLayout(7), 832, 7)
	tests := []struct {
		name    string
		b       []byte
		machine *xstate.CPU
		lost    xstate.Features
		used    xstate.Features // beyond x87 and SSE
		fails   bool
	}{
		{name: "AVX in 4096", b: in(avx, 4096), used: 4},
		{name: "AVX in 833", b: in(avx, 833), used: 4},
		{name: "AVX in 11008", b: in(avx, 11008), used: 4},
		{name: "AVX in 12288", b: in(avx, 12288), used: 4},
		{name: "AVX in 4096 without XCR0", b: in(area(t, xstate.IntelLayout(7), 832, 0), 4096), used: 4},
		{name: "AVX in 4096 of a larger host", b: in(area(t, xstate.IntelLayout(7), 832, 0x602e7), 4096), used: 4},
		{name: "AVX-512 in 4096", b: in(area512(t, xstate.IntelLayout(0xe7), 2688, 0xe7), 4096), fails: true},
		{name: "AVX-512 in 4096 with --host", b: in(area512(t, xstate.IntelLayout(0xe7), 2688, 0xe7), 4096), machine: intel, used: 0xe4},
		{name: "AVX-512 in 4096 with --host of AMD", b: in(area512(t, xstate.AMDLayout(0xe7), 2432, 0xe7), 4096), machine: amd, used: 0xe4},
		{name: "AVX-512 in 4096 where only Intel has XCR0", b: in(area512(t, xstate.IntelLayout(0xe7), 2688, 0x602e7), 4096), used: 0xe4},
		{name: "AVX-512 in 16384 where only Intel has XCR0", b: in(area512(t, xstate.IntelLayout(0xe7), 2688, 0xff), 16384), used: 0xe4},
		{name: "cut in AVX", b: avx[:700], lost: 4},
		{name: "cut before AVX", b: avx[:576], lost: 4},
		{name: "AVX-512 cut behind AVX", b: area512(t, xstate.IntelLayout(0xe7), 2688, 0)[:832], used: 4, lost: 0xe0},
		{name: "AVX-512 cut where AMD has it", b: area512(t, xstate.IntelLayout(0xe7), 2688, 0)[:1000], fails: true},
		{name: "AVX-512 of Intel cut", b: area512(t, xstate.IntelLayout(0xe7), 2688, 0xff)[:1700], used: 0x64, lost: 0x80},
		{name: "no XCR0 but stale words", b: in(area(t, xstate.IntelLayout(7), 832, 0xaaaaaaaaaaaaaaaa), 4096), used: 4},
		{name: "AVX-512 with stale words", b: in(area512(t, xstate.IntelLayout(0xe7), 2688, 0xaaaaaaaaaaaaaaff), 4096), fails: true},
		{name: "more than zeros behind", b: append(in(avx, 4095), 1), fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := openArea(t, tt.b, tt.machine)
			if tt.fails {
				var layout *elfcore.LayoutError
				if !errors.As(err, &layout) {
					t.Fatalf("%v, %v; want a *LayoutError", s, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := s.With(xstate.Lost); got != tt.lost {
				t.Errorf("lost %v, want %v", got, tt.lost)
			}
			if got := s.With(xstate.InUse) &^ xstate.Legacy; got != tt.used {
				t.Errorf("in use %v, want %v", got, tt.used)
			}
			for f := range (tt.used & xstate.AVX512).All() {
				for i, v := range s.View(f) {
					if v != byte(f)<<4|byte(i%13+1) {
						t.Fatalf("%v: byte %d is %#x", f, i, v)
					}
				}
			}
			if tt.used.Has(xstate.AVX) && s.View(xstate.AVX)[3*16] != 0x5a {
				t.Errorf("ymm3 has %x", s.View(xstate.AVX)[3*16:][:16])
			}
		})
	}
}
