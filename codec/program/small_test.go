package program

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/facts"
	"github.com/fpuimg/fpuimg/codec/memory"
	"github.com/fpuimg/fpuimg/codec/xstate"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	testglibc "github.com/fpuimg/fpuimg/internal/test/glibc"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// Where the small process maps its program, the data behind it, and its stack.
const (
	smallExe   = 0x555555554000
	smallData  = smallExe + codec.PageSize
	smallStack = 0x7ffe00000000
)

// images is image files in memory.
type images map[string][]byte

func (f images) Open(name string) (io.ReaderAt, int64, error) {
	b, ok := f[name]
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	return bytes.NewReader(b), int64(len(b)), nil
}
func (f images) Names() ([]string, error) { return slices.Collect(maps.Keys(f)), nil }
func (f images) Label(name string) string { return name }

// small is a process that runs a program of one page, with data behind it and a stack,
// both of whole pages.
func small(tb testing.TB, program, data, stack []byte) (*Looker, error) {
	tb.Helper()
	o, err := readObject(bytes.NewReader(program), int64(len(program)))
	if err != nil {
		return nil, err
	}
	id := []byte("build-id of 20 bytes")
	var words []int
	for i := 0; i < len(id); i += 4 {
		words = append(words, int(le32(id[i:])))
	}
	data, stack = slices.Concat(data, make([]byte, -len(data)&(codec.PageSize-1))), slices.Concat(stack, make([]byte, -len(stack)&(codec.PageSize-1)))
	d, s := len(data)/codec.PageSize, len(stack)/codec.PageSize
	l := NewLooker(images{
		"mm-7.img": testimg.MM([]int{auxEntry, smallExe + 0x200},
			testimg.VMA(smallExe, smallData, 0, 9, 5, 2, codec.VMARegular|codec.VMAFilePrivate),
			testimg.VMA(smallData, smallData+(d+1)*codec.PageSize, 0, 0, 3, 2, codec.VMARegular|codec.VMAAnonPrivate),
			testimg.VMA(smallStack, smallStack+(s+1)*codec.PageSize, 0, 0, 3, 2, codec.VMARegular|codec.VMAAnonPrivate)),
		"pagemap-7.img": testimg.Image(testimg.MagicPagemap, testimg.Message(1, 1), testimg.Message(1, smallData, 2, 0, 5, d), testimg.Message(1, smallStack, 2, 0, 5, s)),
		"pages-1.img":   slices.Concat(data, stack),
		"files.img":     testimg.Image(testimg.MagicFiles, testimg.File(9, "/bin/small", words...)),
	}, &Roots{})
	l.objects["/bin/small\x00"+hex.EncodeToString(id)] = &file{fact: &facts.Object{Path: "/bin/small", Status: facts.OK}, obj: o, reaches: map[uint64]reach{}}
	return l, nil
}

// smallThread is a thread of it.
func smallThread(ip, sp uint64) codec.Thread {
	var regs [27]uint64
	regs[regOrigAX], regs[regIP], regs[regSP] = 230, ip, sp
	return codec.Thread{PID: 7, TID: 7, GPRegs: &regs, State: xstate.NewState(xstate.FormatFXSave)}
}

// TestCPUFeatures finds the record of every release of glibc in the data of a process,
// wherever pieces of it that are searched at once meet, or at every [testcmd.Step]th such
// place; and none where one thing is not as it must be.
func TestCPUFeatures(t *testing.T) {
	search := func(at int, records ...[]byte) *facts.Process {
		t.Helper()
		data := make([]byte, 35*codec.PageSize)
		for _, r := range records {
			copy(data[at:], r)
			at += len(r) + 64
		}
		l, err := small(t, exe(t), data, nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := l.Look(7, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for turn, layout := range testglibc.Layouts {
		b := layout.Record(1, 0x806f8, 6, 0x8f, 8)
		for i := range testcmd.Cases(76, turn) {
			at := 64<<10 - 700 + 12*i
			p := search(at, b)
			src := p.Source
			if src == nil || p.Libc != "glibc" {
				t.Fatalf("%s at %#x: not found: %v", layout.Glibc, at, p.Unknowns)
			}
			c := src.CPU
			want := fmt.Sprint("intel 6 143 ", map[bool]int{true: 8}[layout.Stepping >= 0])
			stepping := 0
			if layout.Stepping >= 0 {
				stepping = int(*c.Stepping)
			}
			if got := fmt.Sprint(c.Vendor, " ", *c.Family, " ", *c.Model, " ", stepping); got != want {
				t.Fatalf("%s at %#x: %s, want %s", layout.Glibc, at, got, want)
			}
			save, isa := uint64(2496), 4
			if layout.Save < 0 {
				save = 0
			}
			if layout.ISA < 0 {
				isa = 0
			}
			if src.SaveSize != save || src.ISALevel != isa || !slices.Contains(src.Active, "avx2") || slices.Contains(src.Active, "avx512f") != (layout.Usable < 0) {
				t.Fatalf("%s at %#x: save %d, level %d, active %v", layout.Glibc, at, src.SaveSize, src.ISALevel, src.Active)
			}
		}
		if p := search(4096, b, b); p.Source != nil || len(p.Unknowns) == 0 {
			t.Errorf("%s twice: %+v", layout.Glibc, p.Source)
		}
		amd := layout.Record(2, 0xa10f11, 25, 0x11, 1)
		if p := search(8192, amd); p.Source == nil || *p.Source.CPU.Family != 25 || *p.Source.CPU.Model != 0x11 {
			t.Errorf("%s, AMD: %+v", layout.Glibc, p.Source)
		}
		for what, change := range map[string]struct {
			at int
			v  uint32
		}{
			"kind 0":               {layout.Kind, 0},
			"kind 5":               {layout.Kind, 5},
			"no leaf":              {layout.Kind + 4, 0},
			"too many leaves":      {layout.Kind + 4, 0x81},
			"another family":       {layout.Family, 7},
			"another model":        {layout.Model, 0x8e},
			"signature":            {layout.Array, 0x806f8 | 1<<31},
			"no SSE2":              {layout.Array + 12, 0xbfebfbff &^ (1 << 26)},
			"save size":            {layout.Save, 2497},
			"save size, too large": {layout.Save, 32 << 10},
			"full size":            {layout.Full, 65},
			"level":                {layout.ISA, 16},
			"stepping":             {layout.Stepping, 9},
		} {
			if change.at < 0 || layout.Glibc == "2.28" && strings.Contains(what, "size") { // 2.26 has no such size
				continue
			}
			bad := bytes.Clone(b)
			binary.LittleEndian.PutUint32(bad[change.at:], change.v)
			if p := search(4096, bad); p.Source != nil {
				t.Errorf("%s, %s: found, level %d, save size %d", layout.Glibc, what, p.Source.ISALevel, p.Source.SaveSize)
			}
		}
	}
}

// TestFrames finds signal frames on a stack: live where a ucontext leads to the area and
// returns through the restorer, stale where not, none where a magic is missing.
func TestFrames(t *testing.T) {
	program := exe(t)
	copy(program[0x240:], restorer)
	const ip, sp, back = smallExe + 0x202, smallStack + 0x80, smallExe + 0x240
	for name, test := range map[string]struct {
		change func(stack []byte)
		want   string
	}{
		"live":             {nil, "live at 0x7ffe00001000, 2432 bytes, xfeatures 0xe7, from 0x555555554202"},
		"another restorer": {func(b []byte) { b[0x200] ^= 1 }, "stale"},
		"another area":     {func(b []byte) { b[0x200+8+40+184] ^= 0x40 }, "stale"},
		"no first magic":   {func(b []byte) { b[0x1000+464] = 0 }, ""},
		"no second magic":  {func(b []byte) { b[0x1000+2432] = 0 }, ""},
		"too small":        {func(b []byte) { b[0x1000+480], b[0x1000+481] = 0xff, 1 }, ""},
		"huge":             {func(b []byte) { b[0x1000+483] = 0x7f }, ""},
		"unaligned":        {func(b []byte) { copy(b[0x1020:], bytes.Clone(b[0x1000:0x1a00])); b[0x1000+464] = 0 }, ""},
	} {
		stack := make([]byte, 3*codec.PageSize)
		testglibc.Frame(stack, smallStack, 0x200, 0x1000, back, ip, 2432)
		if test.change != nil {
			test.change(stack)
		}
		l, err := small(t, program, make([]byte, codec.PageSize), stack)
		if err != nil {
			t.Fatal(err)
		}
		p, err := l.Look(7, []codec.Thread{smallThread(ip, sp)})
		if err != nil {
			t.Fatal(err)
		}
		th := p.Threads[0]
		if th.Syscall != "clock_nanosleep" || th.Object != p.Objects[0] || th.Dead == 0 {
			t.Errorf("%s: thread %+v", name, th)
		}
		got := ""
		for _, f := range th.Frames {
			if f.Live {
				got += fmt.Sprintf("live at %#x, %d bytes, xfeatures %#x, from %#x", f.Address, f.Size, uint64(f.Features), f.IP)
			} else {
				got += "stale"
			}
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	// More than can be: the innermost ones are told.
	stack := make([]byte, 40*codec.PageSize)
	for i := range 30 {
		testglibc.Frame(stack, smallStack, 0x100+0x1000*i, 0x400+0x1000*i, back, ip, 2432)
	}
	l, err := small(t, program, make([]byte, codec.PageSize), stack)
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Look(7, []codec.Thread{smallThread(ip, sp)})
	if err != nil || len(p.Threads[0].Frames) != maxFrames || p.Threads[0].Frames[0].Address != smallStack+0x400 {
		t.Errorf("%d frames, %v", len(p.Threads[0].Frames), err)
	}
}

// dynamicExe is the small program with an IFUNC, pick, and two words for what it chooses
// in the data behind it, by its resolver and by its name.
func dynamicExe(tb testing.TB) []byte {
	b := append(exe(tb), make([]byte, 0x200)...)
	le := binary.LittleEndian
	le.PutUint16(b[56:], 4) // program headers
	le.PutUint64(b[64+32:], 0x600)
	le.PutUint64(b[64+40:], 0x600)
	const at, dynamic, symbols, strings, relocations, plt = 64 + 56*3, 0x400, 0x4a0, 0x4d0, 0x4f0, 0x560
	le.PutUint32(b[at:], uint32(elf.PT_DYNAMIC))
	for i, v := range []uint64{dynamic, dynamic, dynamic, 0xa0, 0xa0, 8} {
		le.PutUint64(b[at+8+8*i:], v)
	}
	for i, v := range []uint64{uint64(elf.DT_SYMTAB), symbols, uint64(elf.DT_STRTAB), strings, uint64(elf.DT_STRSZ), 6, uint64(elf.DT_RELA), relocations,
		uint64(elf.DT_RELASZ), 24, uint64(elf.DT_JMPREL), relocations + 24, uint64(elf.DT_PLTRELSZ), 24, uint64(elf.DT_PLTGOT), plt} {
		le.PutUint64(b[dynamic+8*i:], v)
	}
	copy(b[strings:], "\x00pick\x00")
	copy(b[symbols+24:], []byte{1, 0, 0, 0, byte(elf.STB_GLOBAL)<<4 | byte(elf.STT_GNU_IFUNC), 0, 1, 0})
	le.PutUint64(b[symbols+32:], 0x200)
	for i, r := range [][3]uint64{{0x1008, uint64(elf.R_X86_64_IRELATIVE), 0x200}, {0x1010, 1<<32 | uint64(elf.R_X86_64_JMP_SLOT), 0}} {
		for j, v := range r {
			le.PutUint64(b[relocations+24*i+8*j:], v)
		}
	}
	copy(b[0x250:], "\x62\xf1\xfe\x48\x6f\x07\xc5\xf8\x77\xc3") // vmovdqu64 (%rdi),%zmm0; vzeroupper; ret
	return b
}

// slots is data of a process of dynamicExe, as its loader fills it in.
func slots(to uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(make([]byte, 8, 24), to), to)
}

// TestSlots finds what IFUNCs chose, and what that needs.
func TestSlots(t *testing.T) {
	look := func(data []byte) *facts.Process {
		t.Helper()
		l, err := small(t, dynamicExe(t), data, nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := l.Look(7, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := look(slots(smallExe + 0x250))
	if len(p.Targets) != 1 || p.Targets[0].Slots != 2 || !slices.Equal(p.Targets[0].Functions, []string{"pick"}) || !slices.Equal(p.Targets[0].Needs, []string{"avx", "avx512f"}) ||
		p.Targets[0].Object != p.Objects[0] || p.Targets[0].Incomplete != "" {
		t.Errorf("%+v", p.Targets)
	}
	// Words that lead elsewhere are told as they are.
	p = look(slots(smallExe + 0x200))
	if len(p.Targets) != 1 || len(p.Targets[0].Needs) != 0 {
		t.Errorf("%+v", p.Targets)
	}
	p = look(slots(0x1000))
	if len(p.Targets) != 1 || p.Targets[0].Slots != 1 || p.Targets[0].Object != nil {
		t.Errorf("%+v", p.Targets)
	}
}

// FuzzLook looks at a process whose program, data and stack are anything.
func FuzzLook(f *testing.F) {
	program := exe(f)
	copy(program[0x240:], restorer)
	stack := make([]byte, 0x800)
	testglibc.Frame(stack, smallStack, 0x100, 0x300, smallExe+0x240, smallExe+0x202, 832)
	for _, layout := range testglibc.Layouts {
		f.Add(program, layout.Record(1, 0x806f8, 6, 0x8f, 8), stack, uint64(smallExe+0x202), uint64(smallStack+0x80))
	}
	f.Add(dynamicExe(f), slices.Concat(slots(smallExe+0x250), testglibc.Layouts[5].Record(2, 0xa10f11, 25, 0x11, 1)), stack, uint64(smallExe+0x250), uint64(smallStack+0x80))
	f.Fuzz(func(t *testing.T, program, data, stack []byte, ip, sp uint64) {
		if len(data)+len(stack) > 64*codec.PageSize {
			return
		}
		l, err := small(t, program, data, stack)
		if err != nil {
			return
		}
		p, err := l.look(7, []codec.Thread{smallThread(ip, sp), smallThread(smallExe+0x202, smallStack+0x80)})
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Threads) != 2 || len(p.Objects) != 1 {
			t.Fatalf("%+v", p.Process)
		}
		for _, th := range p.Threads {
			if len(th.Frames) > maxFrames || th.Dead&^(1<<xstate.AVX|1<<xstate.ZMMHi256|1<<xstate.Hi16ZMM|1<<xstate.Opmask) != 0 {
				t.Fatalf("%+v", th)
			}
			for _, frame := range th.Frames {
				if p.mem.State(frame.Address) != memory.Dumped && p.mem.State(frame.Address) != memory.Zero {
					t.Fatalf("frame %+v lies nowhere", frame)
				}
			}
		}
		for _, target := range p.Targets {
			if target.Slots == 0 || target.Object != nil && p.moduleAt(target.Address) == nil {
				t.Fatalf("%+v", target)
			}
		}
		if src := p.Source; src != nil && (src.CPU == nil || src.ISALevel > 4 || src.SaveSize > maxSaveSize) {
			t.Fatalf("%+v", src)
		}
	})
}
