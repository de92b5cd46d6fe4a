package level_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/program"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert/level"
	"github.com/fpuimg/fpuimg/internal/test/corpus"
	testelf "github.com/fpuimg/fpuimg/internal/test/elf"
	testglibc "github.com/fpuimg/fpuimg/internal/test/glibc"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// named is the CPU of a level of the psABI.
func named(tb testing.TB, name string) *xstate.CPU {
	tb.Helper()
	c, ok := xstate.ByName(name)
	if !ok {
		tb.Fatal(name)
	}
	return c
}

// small writes a checkpoint and its files, and returns where it is and options for it.
func small(tb testing.TB, p *testglibc.Process, host *xstate.CPU) (dir, root string, o level.Options) {
	tb.Helper()
	dir, root = p.Write(tb)
	roots, err := program.OpenRoots(root)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { roots.Close() })
	return dir, root, level.Options{Host: host, Roots: roots}
}

// TestSmall levels a small process: every word that chose AVX-512 becomes another, but for
// its own CPU.
func TestSmall(t *testing.T) {
	made := testglibc.New()
	wide := binary.LittleEndian.AppendUint64(nil, testglibc.Libc+testglibc.Wide)
	made.Put(testglibc.Heap+0x55, wide)      // unaligned
	made.Put(testglibc.Heap+0x1000-6, wide)  // its last zeros lie in a page that was never written
	made.Put(testglibc.Stack+0x2000-3, wide) // over two pages
	made.Put(testglibc.Stack+0x7ff0, wide)   // the last but one word of all
	for host, want := range map[string]map[level.What]int{
		"x86-64-v3": {"irelative": 1, "got": 1, "copy": 5, "trampoline": 1},
		"x86-64-v2": {"irelative": 1, "got": 1, "copy": 5, "trampoline": 1, "save-size": 1},
		"x86-64":    {"irelative": 1, "got": 1, "copy": 5, "trampoline": 1, "save-size": 1},
	} {
		dir, _, o := small(t, made, named(t, host))
		p, out := levels(t, dir, o)
		got := counts(p)
		if got[level.CPUFeatures] == 0 {
			t.Errorf("%s: glibc's record stays", host)
		}
		delete(got, level.CPUFeatures)
		if !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
		is, err := os.ReadFile(filepath.Join(out, "pages-1.img"))
		if err != nil || bytes.Contains(is, wide[:6]) {
			t.Errorf("%s: a copy of the function is left, %v", host, err)
		}
	}
	dir, _, o := small(t, made, named(t, "x86-64"))
	o.Host = look(t, dir, o).Source.CPU
	if p := plan(t, dir, o); p.Refused() || p.Changed() {
		t.Errorf("its own CPU: refused for %v, changes %v: %+v", p.Refusals, counts(p), p.Tasks[0].Words)
	}
}

// A static program has what elides locks in its libc, which does not run; without names of
// its functions nobody knows that.
func TestStaticElision(t *testing.T) {
	const name = "lpst-1"
	dir := copied(t, name)
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(corpus.Root(t, name))); err != nil {
		t.Fatal(err)
	}
	o := options(t, name, machine(t, "Haswell"))
	p := look(t, dir, o)
	var rtm uint64 // the word of the record that has it, of what CPUID said
	for _, w := range plan(t, dir, o).Tasks[0].Words {
		if w.What == level.CPUFeatures && binary.LittleEndian.Uint32(w.From) == 0xf1bf07ab {
			rtm = w.Address
			write(t, dir, p.Memory(), rtm, words(0xf1bf0fab))
		}
	}
	if got := plan(t, dir, o); rtm == 0 || got.Refused() {
		t.Fatalf("with RTM: refused for %v", got.Refusals)
	}
	exe := filepath.Join(root, p.Objects[0].Path)
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, bytes.Replace(b, []byte("\x00.symtab\x00"), []byte("\x00.zymtab\x00"), 1), 0o700); err != nil {
		t.Fatal(err)
	}
	if o.Roots, err = program.OpenRoots(root); err != nil {
		t.Fatal(err)
	}
	defer o.Roots.Close()
	if got := refusals(plan(t, dir, o)); !slices.Equal(got, []level.Name{level.CompiledISA}) {
		t.Errorf("without names: refused for %v", got)
	}
}

// A resolver that asks CPUID itself leaves in ECX what it was told before, as that of
// libatomic does: the answer to leaf 1 does not depend on it.
func TestResolverAsks(t *testing.T) {
	made := testglibc.New()
	const ask = "\x31\xc0\x0f\xa2\xb8\x01\x00\x00\x00\x0f\xa2" // xor %eax,%eax; cpuid; mov $1,%eax; cpuid
	functions := made.Objects[2].Functions
	functions[0] = testelf.Function{At: testglibc.Resolver, Code: ask + testglibc.Choice(testglibc.Resolver+len(ask), testglibc.Wide, testglibc.Plain).Code}
	dir, _, o := small(t, made, named(t, "x86-64-v2"))
	if p := plan(t, dir, o); p.Refused() || counts(p)[level.IRelative] != 1 {
		t.Errorf("refused for %v, changes %v", p.Refusals, counts(p))
	}
}

// A library that asks CPUID in the resolvers of its IFUNCs, as libatomic does, has chosen
// nothing but what these choose, which level has them do anew. Where something else leads to
// its functions, they may run all the same.
func TestChoosingLibrary(t *testing.T) {
	const resolver, wide, plain, more = 0x1000, 0x1050, 0x1060, 0x1070
	at := func(from, to int) string { return string(binary.LittleEndian.AppendUint32(nil, uint32(to-from))) }
	choice := "\xb8\x07\x00\x00\x00\x31\xc9\x0f\xa2" + // mov $7,%eax; xor %ecx,%ecx; cpuid
		"\x48\x8d\x15" + at(resolver+16, wide) + // lea wide(%rip),%rdx
		"\x48\x8d\x05" + at(resolver+23, plain) + // lea plain(%rip),%rax
		"\xf7\xc3\x00\x00\x01\x00\x48\x0f\x45\xc2" + ret // test $avx512f,%ebx; cmovne %rdx,%rax
	call := func(from, to int) string { return "\xe8" + at(from+5, to) }
	leads := func(from, to int) string { return "\x48\x8d\x05" + at(from+7, to) } // lea to(%rip),%rax
	for _, tt := range []struct {
		about   string
		refused bool
		change  func(*testglibc.Object)
	}{
		{about: "IFUNCs alone", change: func(*testglibc.Object) {}},
		{about: "no IFUNC", refused: true, change: func(l *testglibc.Object) {
			l.Functions = append(l.Functions, testelf.Function{At: more, Code: zmm + ret})
		}},
		{about: "a function that its choice calls", change: func(l *testglibc.Object) {
			l.Functions[1].Code = zmm + call(wide+6, more) + ret
			l.Functions = append(l.Functions, testelf.Function{At: more, Code: zmm + ret})
		}},
		{about: "one that the other choice calls", refused: true, change: func(l *testglibc.Object) {
			l.Functions[2].Code = call(plain, more) + ret
			l.Functions = append(l.Functions, testelf.Function{At: more, Code: zmm + ret})
		}},
		{about: "one that it takes the address of", refused: true, change: func(l *testglibc.Object) {
			l.Functions[1].Code = zmm + leads(wide+6, more) + ret
			l.Functions = append(l.Functions, testelf.Function{At: more, Code: zmm + ret})
		}},
		{about: "a call of the choice", refused: true, change: func(l *testglibc.Object) {
			l.Functions = append(l.Functions, testelf.Function{At: more, Code: call(more, wide) + ret})
			l.Symbols = append(l.Symbols, testelf.Symbol{Name: "more", At: more})
		}},
		{about: "a call that nothing leads to", refused: true, change: func(l *testglibc.Object) {
			l.Functions = append(l.Functions, testelf.Function{At: more, Code: call(more, wide) + ret})
		}},
		{about: "its address in a function", refused: true, change: func(l *testglibc.Object) {
			l.Functions = append(l.Functions, testelf.Function{At: more, Code: leads(more, wide) + ret})
			l.Symbols = append(l.Symbols, testelf.Symbol{Name: "more", At: more})
		}},
		{about: "its address in the data", refused: true, change: func(l *testglibc.Object) {
			l.Relocations = append([]testelf.Relocation{{At: 0x2100, Kind: elf.R_X86_64_RELATIVE, Addend: wide}}, l.Relocations...)
		}},
		{about: "its address in the data, of a packed table", refused: true, change: func(l *testglibc.Object) {
			l.Packed = []testelf.Relocation{{At: 0x2100, Addend: wide}}
		}},
		{about: "the same, further on", refused: true, change: func(l *testglibc.Object) {
			l.Packed = []testelf.Relocation{{At: 0x2100, Addend: plain}, {At: 0x2100 + 8*63, Addend: wide}}
		}},
		{about: "its address in the data, by the symbol of another", refused: true, change: func(l *testglibc.Object) {
			l.Symbols = append(l.Symbols, testelf.Symbol{Name: "plain", At: plain})
			l.Relocations = append(l.Relocations, testelf.Relocation{At: 0x2100, Kind: elf.R_X86_64_64, Symbol: 1, Addend: ^uint64(plain-wide) + 1})
		}},
		{about: "a call into its middle, where another frame lies over it", refused: true, change: func(l *testglibc.Object) {
			l.Functions[1].Code = "\x31\xc0" + "\x90\x90" + zmm + ret // xor %eax,%eax
			l.Functions = append(l.Functions, testelf.Function{At: wide + 2, Code: "\x90\x90"},
				testelf.Function{At: more, Code: call(more, wide+4) + ret})
		}},
		{about: "its name", refused: true, change: func(l *testglibc.Object) {
			l.Symbols = append(l.Symbols, testelf.Symbol{Name: "wide", At: wide})
		}},
		{about: "a call in code that no frame describes", refused: true, change: func(l *testglibc.Object) {
			l.Functions = append(l.Functions, testelf.Function{At: more, Code: call(more, wide) + ret, NoFDE: true})
		}},
		{about: "such code that goes on there", refused: true, change: func(l *testglibc.Object) {
			l.Functions = append(l.Functions, testelf.Function{At: wide - 3, Code: "\x90\x31\xc0", NoFDE: true}) // nop; xor %eax,%eax
		}},
		{about: "NOPs before it", change: func(l *testglibc.Object) {
			l.Functions = append(l.Functions, testelf.Function{At: wide - 3, Code: "\x90\x90\x90", NoFDE: true})
		}},
		{about: "a function that goes on there", refused: true, change: func(l *testglibc.Object) {
			l.Functions = append(l.Functions, testelf.Function{At: wide - 2, Code: "\x31\xc0"})
			l.Symbols = append(l.Symbols, testelf.Symbol{Name: "before", At: wide - 2})
		}},
	} {
		made := testglibc.New()
		made.Objects = append(made.Objects, lib("/usr/lib64/libchoice.so", choice))
		l := made.Objects[3]
		l.Functions = append(l.Functions, testelf.Function{At: wide, Code: zmm + ret}, testelf.Function{At: plain, Code: ret})
		l.Symbols = []testelf.Symbol{{Name: "choice", At: resolver, IFunc: true}}
		l.Relocations = []testelf.Relocation{{At: 0x2008, Kind: elf.R_X86_64_IRELATIVE, Addend: resolver}}
		tt.change(l)
		made.Word(l.Base+0x2008, l.Base+wide)
		dir, _, o := small(t, made, named(t, "x86-64-v3"))
		p := plan(t, dir, o)
		if want := map[bool][]level.Name{true: {level.OwnDispatch}}[tt.refused]; !slices.Equal(refusals(p), want) {
			t.Errorf("%s: refused for %v, want %v", tt.about, p.Refusals, want)
		}
		if !tt.refused && counts(p)[level.IRelative] != 2 {
			t.Errorf("%s: changes %v", tt.about, counts(p))
		}
	}
}

// What the loader leaves between segments of a library maps the file, too, where nobody can
// read it: that is no other library.
func TestHole(t *testing.T) {
	const hole = testglibc.Libc + 0x100000
	made := testglibc.New()
	made.Areas = append(made.Areas, testglibc.Area{Start: hole, End: hole + 4*codec.PageSize, ID: 9 + 2, Prot: 0, Flags: 2, Status: codec.VMARegular | codec.VMAFilePrivate})
	made.Word(hole+0x2008, 0x100) // where its slot would be
	dir, _, o := small(t, made, named(t, "x86-64-v2"))
	if p := plan(t, dir, o); p.Refused() || counts(p)[level.IRelative] != 1 {
		t.Errorf("refused for %v, changes %v", p.Refusals, counts(p))
	}
}

// What a static program of glibc 2.41 has beside its record of the CPU is what lazy binding
// enters; elsewhere the same word may be a number, as that program is linked low.
func TestStaticTrampoline(t *testing.T) {
	const name = "lpst-1"
	dir := copied(t, name)
	o := options(t, name, machine(t, "Nehalem"))
	var size uint64 // of the buffer, in the record
	for _, w := range plan(t, dir, o).Tasks[0].Words {
		if w.What == level.SaveSize {
			size = w.Address
		}
	}
	p := look(t, dir, o)
	exe, err := elf.Open(filepath.Join(corpus.Root(t, name), p.Objects[0].Path))
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	symbols, err := exe.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == "_dl_runtime_resolve_xsavec" })
	word := binary.LittleEndian.AppendUint64(nil, symbols[i].Value)
	write(t, dir, p.Memory(), size+0x108, word)
	if got := plan(t, dir, o); got.Refused() || counts(got)[level.Trampoline] != 1 {
		t.Errorf("beside the record: refused for %v, changes %v", got.Refusals, counts(got))
	}
	write(t, dir, p.Memory(), size-0x800, word)
	if got := refusals(plan(t, dir, o)); !slices.Equal(got, []level.Name{level.WordAmbiguous}) {
		t.Errorf("elsewhere: refused for %v", got)
	}
}

// A slot of a static program may hold what its resolver chooses before glibc knows the CPU,
// and stays. Where a loader fills it in, that is no choice.
func TestEarly(t *testing.T) {
	for name, want := range map[string][]level.Name{"lpstpie-1": nil, "lpst-1": nil, "lp-1": {level.ResolverMismatch}} {
		dir := copied(t, name)
		o := options(t, name, machine(t, "Nehalem"))
		before := counts(plan(t, dir, o))[level.IRelative]
		p := look(t, dir, o)
		changed := 0
		for s := range p.Slots() {
			if s.Kind != elf.R_X86_64_IRELATIVE || changed == 3 {
				continue
			}
			early, err := p.Choose(s.Resolvers[0], p.Features().Empty())
			if err != nil || early == s.Value {
				continue
			}
			write(t, dir, p.Memory(), s.Address, binary.LittleEndian.AppendUint64(nil, early))
			changed++
		}
		got := plan(t, dir, o)
		if changed != 3 || !slices.Equal(refusals(got), want) {
			t.Errorf("%s: %d slots changed, refused for %v, want %v", name, changed, got.Refusals, want)
		}
		if after := counts(got)[level.IRelative]; want == nil && after >= before {
			t.Errorf("%s: %d slots change, of %d before", name, after, before)
		}
	}
}

// lib is a library with code of its own.
func lib(path, code string) *testglibc.Object {
	return &testglibc.Object{Path: path, Base: 0x7ffff7e00000, Object: testelf.Object{BuildID: "the library, of 20 b",
		Functions: []testelf.Function{{At: 0x1000, Code: code}}}}
}

const (
	zmm    = "\x62\xf1\xfe\x48\x6f\x07" // vmovdqu64 (%rdi),%zmm0
	ymm    = "\xc5\xfe\x6f\x07"         // vmovdqu (%rdi),%ymm0
	xbegin = "\xc7\xf8\x00\x00\x00\x00" // xbegin .+0
	asks   = "\x0f\xa2"
	jump   = "\xff\xe0" // jmp *%rax
	ret    = "\xc3"
)

// testNames: every refusal has a test, and a place in the manual.
func testNames(t *testing.T, tested map[level.Name]bool) {
	t.Helper()
	source, err1 := os.ReadFile("refusal.go")
	page, err2 := os.ReadFile("../../man/fpuimg-level.1")
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	manual := strings.ReplaceAll(string(page), `\-`, "-")
	names := regexp.MustCompile(`Name = "([a-z0-9-]+)"`).FindAllStringSubmatch(string(source), -1)
	for _, m := range names {
		if !tested[level.Name(m[1])] || !strings.Contains(manual, m[1]) {
			t.Errorf("%s: tested: %v, in the manual: %v", m[1], tested[level.Name(m[1])], strings.Contains(manual, m[1]))
		}
	}
	if len(names) != len(tested) {
		t.Errorf("%d refusals, %d tested", len(names), len(tested))
	}
}

// TestRefusals: everything that is not understood has a name, which --accept lifts if it
// is a judgement. Each is a process that is levelled but for one thing.
func TestRefusals(t *testing.T) {
	type process = testglibc.Process
	const (
		libcAt = testglibc.Libc
		heap   = testglibc.Heap
	)
	libc := func(p *process) *testelf.Object { return &p.Objects[2].Object }
	frame := func(bv uint64, change func([]byte)) func(*process) {
		return func(p *process) {
			stack := make([]byte, 3*codec.PageSize)
			testglibc.Frame(stack, testglibc.Stack, 0x200, 0x1000, libcAt+testglibc.Restorer, testglibc.Wait, 2432)
			binary.LittleEndian.PutUint64(stack[0x1000+512:], bv)
			if change != nil {
				change(stack[0x1000:])
			}
			p.Put(testglibc.Stack, stack)
		}
	}
	tested := map[level.Name]bool{}
	for _, tt := range []struct {
		about  string
		want   level.Name
		host   string // x86-64-v3 if ""
		change func(p *process)
		root   func(root string) error
	}{
		{about: "a process of 32 bits", want: level.Task32Bit, change: func(p *process) { p.Entry = "h-compat32" }},
		{about: "tiles that are lost", want: level.Damaged, change: func(p *process) { p.Entry = "h-amx" }},
		{about: "a page in an older dump", want: level.PagesElsewhere, change: func(p *process) { p.Flags = 1 }},
		{about: "a lazy page", want: level.PagesElsewhere, change: func(p *process) { p.Flags = 2 }},
		{about: "no pages file", want: level.PagesElsewhere, change: func(p *process) { p.Files["pages-1.img"] = nil }},
		{about: "compressed pages", want: level.PagesCompressed, change: func(p *process) {
			p.Files["inventory.img"] = testimg.Image(testimg.MagicInventory, testimg.Message(1, 1, 15, 1))
		}},
		{about: "a record that is none", want: level.GlibcUnknown, change: func(p *process) { p.Put(testglibc.Record, make([]byte, 4)) }},
		{about: "a record of glibc 2.28", want: level.GlibcUnknown, change: func(p *process) {
			p.Put(testglibc.Record, make([]byte, 0x300))
			p.Put(testglibc.Record, testglibc.Layouts[1].Record(1, 0x806f8, 6, 0x8f, 8))
		}},
		{about: "another word for the size of the buffer", want: level.GlibcUnknown, change: func(p *process) {
			p.Put(testglibc.Record+0x400, testglibc.Layouts[5].Record(1, 0x806f8, 6, 0x8f, 8))
			p.Put(testglibc.Record, make([]byte, 0x200))
			p.Word(libcAt+0x2018, testglibc.Record+0x400)
		}},
		{about: "a loader that saves with XSAVEC alone", want: level.GlibcUnknown, change: func(p *process) {
			p.Objects[1].Functions = p.Objects[1].Functions[:2]
		}},
		{about: "two records", want: level.Ambiguous, change: func(p *process) {
			p.Put(testglibc.Record+0x400, testglibc.Layouts[5].Record(1, 0x806f8, 6, 0x8f, 8))
		}},
		{about: "no libc below the root", want: level.ObjectMissing, root: func(root string) error { return os.Remove(filepath.Join(root, "usr/lib64/libc.so.6")) }},
		{about: "a libc of another build", want: level.ObjectDiffers, root: func(root string) error {
			name := filepath.Join(root, "usr/lib64/libc.so.6")
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			return os.WriteFile(name, bytes.Replace(b, []byte("the libc, of 20 byte"), []byte("the libc, of 20 byts"), 1), 0o600)
		}},
		{about: "a resolver with an instruction that none has", want: level.ResolverUnknown, change: func(p *process) {
			libc(p).Functions[0].Code = "\x0f\x31\xc3" // rdtsc
		}},
		{about: "a resolver without an end", want: level.ResolverUnknown, change: func(p *process) { libc(p).Functions[0].Code = "\xeb\xfe" }},
		{about: "a resolver that asks for a leaf that nobody recorded", want: level.ResolverUnknown, change: func(p *process) {
			libc(p).Functions[0].Code = "\xb8\x07\x00\x00\x40" + asks + ret // mov $0x40000007,%eax
		}},
		{about: "a slot that one byte is changed of", want: level.ResolverMismatch, change: func(p *process) { p.Put(testglibc.Own, []byte{testglibc.Wide&0xff ^ 1}) }},
		{about: "a bound slot that one byte is changed of", want: level.ResolverMismatch, change: func(p *process) { p.Put(testglibc.Bound, []byte{testglibc.Wide&0xff ^ 1}) }},
		{about: "a slot with the choice of another version", want: level.ResolverMismatch, change: func(p *process) {
			libc(p).Functions = append(libc(p).Functions, testglibc.Choice(testglibc.Free, testglibc.Free+0x40, testglibc.Free+0x80),
				testelf.Function{At: testglibc.Free + 0x40, Code: zmm + ret}, testelf.Function{At: testglibc.Free + 0x80, Code: ret})
			libc(p).Symbols = append(libc(p).Symbols, testelf.Symbol{Name: "pick", At: testglibc.Free, IFunc: true, Version: "GLIBC_2.1", Hidden: true})
			p.Word(testglibc.Bound, libcAt+testglibc.Free+0x40)
		}},
		{about: "a choice that is no better", want: level.TargetUnfit, change: func(p *process) { libc(p).Functions[2].Code = zmm + ret }},
		{about: "a choice that nobody can decode", want: level.TargetUnfit, change: func(p *process) { libc(p).Functions[2].Code = "\x06" + ret }},
		{about: "a choice that leads nowhere", want: level.TargetUnfit, change: func(p *process) {
			libc(p).Functions[0] = testglibc.Choice(testglibc.Resolver, testglibc.Wide, 0x8000)
		}},
		{about: "a copy that could become two functions", want: level.WordAmbiguous, change: func(p *process) {
			libc(p).Functions = append(libc(p).Functions, testglibc.Choice(testglibc.Free, testglibc.Wide, testglibc.Free+0x80), testelf.Function{At: testglibc.Free + 0x80, Code: ret})
			libc(p).Symbols = append(libc(p).Symbols, testelf.Symbol{Name: "pack", At: testglibc.Free, IFunc: true, Version: "GLIBC_2.2"})
		}},
		{about: "a copy whose first byte is in a page that was never written", want: level.CopiesElsewhere, change: func(p *process) {
			// The function begins with a byte 0, that which takes its place does not.
			libc(p).Functions[1].At = 0x1200
			libc(p).Functions[0] = testglibc.Choice(testglibc.Resolver, 0x1200, testglibc.Plain)
			p.Word(testglibc.Own, libcAt+0x1200)
			p.Word(testglibc.Bound, libcAt+0x1200)
			p.Put(testglibc.Stack+0x4000, binary.LittleEndian.AppendUint64(nil, libcAt+0x1200)[1:])
		}},
		{about: "a thread in AVX-512", want: level.ThreadInCode, change: func(p *process) { p.Regs[15], p.Regs[16] = 1<<64-1, libcAt+testglibc.Wide }},
		{about: "a thread that may return to AVX-512", want: level.ThreadInCode, change: func(p *process) {
			libc(p).Functions[1].Code = "\xe8\x00\x00\x00\x00" + zmm + ret // call .+5
			p.Regs[15], p.Regs[16] = 1<<64-1, libcAt+testglibc.Plain
			p.Word(testglibc.SP+8, libcAt+testglibc.Wide+5)
		}},
		{about: "a thread in the loader", want: level.ThreadInLoader, change: func(p *process) { p.Regs[15], p.Regs[16] = 1<<64-1, testglibc.Loader+0x1000 }},
		{about: "a thread in a resolver", want: level.ThreadInLoader, change: func(p *process) { p.Regs[15], p.Regs[16] = 1<<64-1, libcAt+testglibc.Resolver }},
		{about: "a thread that a function is bound for", want: level.ThreadInLoader, change: func(p *process) {
			p.Objects[1].Functions[1].Code = strings.Replace(p.Objects[1].Functions[1].Code, "\x0f\xae\x6c", "\xff\xd0\x0f\xae\x6c", 1) // call *%rax
			p.Word(testglibc.SP+8, testglibc.Loader+testglibc.SaveC+18)
		}},
		{about: "AVX-512 in use", want: level.StateLive, change: func(p *process) {
			p.Entry = "h-avx512"
			p.Objects[0].Functions[0].Code = "\x0f\x05" + jump
		}},
		{about: "protection keys in use", want: level.InUse, change: func(p *process) { p.Entry = "g-max-criu42-pkru4" }},
		{about: "a frame with AVX-512 in use", want: level.FrameLive, change: func(p *process) {
			p.Objects[0].Functions[0].Code = "\x0f\x05" + jump
			frame(1<<6|7, func(area []byte) { area[1000], area[2000] = 1, 1 })(p)
		}},
		{about: "a frame that is smaller than what it holds", want: level.FrameLive, change: frame(7, func(area []byte) {
			binary.LittleEndian.PutUint32(area[480:], 576)
			copy(area[576:], "EXPF")
		})},
		{about: "a library that chooses by itself", want: level.OwnDispatch, change: func(p *process) { p.Objects = append(p.Objects, lib("/usr/lib64/libown.so", asks+zmm+ret)) }},
		{about: "one that asks for transactions", want: level.OwnDispatch, change: func(p *process) {
			p.Put(testglibc.Record+20+32+4, []byte{0xa9, 0x0f}) // RTM is bit 11 of CPUID 7, EBX
			p.Put(testglibc.Record+20+32+16+4, []byte{0xa9, 0x0f})
			p.Objects = append(p.Objects, lib("/usr/lib64/libitm.so", asks+xbegin+ret))
		}},
		{about: "transactions of a program", want: level.CompiledISA, change: func(p *process) {
			p.Put(testglibc.Record+20+32+4, []byte{0xa9, 0x0f})
			p.Put(testglibc.Record+20+32+16+4, []byte{0xa9, 0x0f})
			p.Objects[0].Functions = append(p.Objects[0].Functions, testelf.Function{At: 0x1100, Code: xbegin + ret})
		}},
		{about: "locks that are transactions", want: level.InUse, change: func(p *process) {
			p.Put(testglibc.Record+20+32+4, []byte{0xa9, 0x0f})
			p.Environ = "A=1\x00GLIBC_TUNABLES=glibc.malloc.check=0:glibc.elision.enable=1\x00"
		}},
		{about: "a program that is compiled for more", want: level.CompiledISA, host: "x86-64-v2", change: func(p *process) {
			p.Objects[0].Functions = append(p.Objects[0].Functions, testelf.Function{At: 0x1100, Code: ymm + ret})
		}},
		{about: "words of CPUID that are kept", want: level.CachedCPUID, change: func(p *process) { p.Put(testglibc.Exe+0x2400, []byte{0xa9, 0x07, 0xbf, 0xf1}) }},
		{about: "OpenSSL without its record", want: level.CachedCPUID, change: func(p *process) { p.Objects = append(p.Objects, lib("/usr/lib64/libcrypto.so.3", asks+ret)) }},
		{about: "a cipher of OpenSSL on the heap", want: level.OwnDispatch, change: func(p *process) {
			p.Objects = append(p.Objects, lib("/usr/lib64/libcrypto.so.3", asks+ret))
			l := p.Objects[3]
			l.Functions = append(l.Functions, testelf.Function{At: 0x1100, Code: zmm + ret})
			p.Put(l.Base+0x2400, words(0xbfebfbff, 0x7ffafbff, 0xf1bf07a9, 0x18c05fce, 0x9c100520, 0))
			p.Word(heap+0x80, l.Base+0x1100)
		}},
		{about: "code that the program made", want: level.JITCode, change: func(p *process) {
			p.Areas = append(p.Areas, testglibc.Area{Start: 0x10000000, End: 0x10001000, Prot: 7, Flags: 0x22, Status: codec.VMARegular | codec.VMAAnonPrivate})
		}},
		{about: "libraries for more than the host", want: level.HWCapsPath, root: func(root string) error {
			dir := filepath.Join(root, "usr/lib64/glibc-hwcaps/x86-64-v4")
			return os.MkdirAll(filepath.Join(dir, "libz.so.1"), 0o755)
		}},
		{about: "shared memory that no process maps", want: level.SharedMemory, change: func(p *process) { p.Files["pagemap-shmem-7.img"] = []byte{} }},
		{about: "a file that is mapped to be written", want: level.SharedMemory, change: func(p *process) {
			p.Areas = append(p.Areas, testglibc.Area{Start: 0x10000000, End: 0x10001000, ID: 9, Prot: 3, Flags: 1, Status: codec.VMARegular | codec.VMAFileShared})
		}},
	} {
		tested[tt.want] = true
		t.Run(tt.about, func(t *testing.T) {
			made := testglibc.New()
			if tt.change != nil {
				tt.change(made)
			}
			host := "x86-64-v3"
			if tt.host != "" {
				host = tt.host
			}
			dir, root, o := small(t, made, named(t, host))
			if tt.root != nil {
				if err := tt.root(root); err != nil {
					t.Fatal(err)
				}
			}
			p := plan(t, dir, o)
			if got := refusals(p); !slices.Equal(got, []level.Name{tt.want}) || p.Changed() {
				t.Fatalf("refused for %v, want %s: %v", got, tt.want, p.Refusals)
			}
			o.Accept = []level.Exception{{Name: tt.want}}
			if again := plan(t, dir, o); again.Refused() == slices.Contains(level.Acceptable, tt.want) {
				t.Errorf("accepted, it is refused for %v", again.Refusals)
			}
		})
	}
	testNames(t, tested)
}

func words(list ...uint32) (b []byte) {
	for _, w := range list {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// TestConcurrentScan finds copies in memory that is looked through in parts, wherever the
// parts meet.
func TestConcurrentScan(t *testing.T) {
	const start, size = 0x10000000000, 3 << 20
	made := testglibc.New()
	made.Areas = append(made.Areas, testglibc.Area{Start: start, End: start + size, Prot: 3, Flags: 2, Status: codec.VMARegular | codec.VMAAnonPrivate})
	made.Put(start, make([]byte, size))
	want := map[uint64]bool{testglibc.Heap + 0x40: true}
	for i, at := 0, uint64(start); at < start+size-16; i, at = i+1, at+64<<10 {
		addr := at + uint64(i%16)
		if i%3 == 0 && at > start {
			addr = at - uint64(i%8)
		}
		made.Word(addr, testglibc.Libc+testglibc.Wide)
		want[addr] = true
	}
	dir, _, o := small(t, made, named(t, "x86-64-v3"))
	var last int64
	o.Progress = func(done int64) { last = done }
	p, _ := levels(t, dir, o)
	for _, w := range p.Tasks[0].Words {
		if w.What == level.Copy && !want[w.Address] {
			t.Errorf("a copy at %#x", w.Address)
		}
		delete(want, w.Address)
	}
	for addr := range want {
		t.Errorf("no copy at %#x", addr)
	}
	if last < size {
		t.Errorf("%d bytes were looked through", last)
	}
}

// TestSharedMemory: pages of a segment are levelled once, though it is mapped at two places.
func TestSharedMemory(t *testing.T) {
	const start, again = 0x20000000000, 0x20000100000
	made := testglibc.New()
	for _, at := range []uint64{start, again} {
		made.Areas = append(made.Areas, testglibc.Area{Start: at, End: at + codec.PageSize, ID: 7, Prot: 3, Flags: 1, Status: codec.VMARegular | codec.VMAAnonShared})
	}
	page := make([]byte, codec.PageSize)
	binary.LittleEndian.PutUint64(page[0x123:], testglibc.Libc+testglibc.Wide)
	made.Files["pagemap-shmem-7.img"] = testimg.Image(testimg.MagicPagemap, testimg.Message(1, 2), testimg.Message(1, 0, 2, 0, 4, 4, 5, 1))
	made.Files["pages-2.img"] = page
	dir, _, o := small(t, made, named(t, "x86-64-v3"))
	p := plan(t, dir, o)
	if p.Refused() {
		t.Fatal(p.Refusals)
	}
	if err := p.InPlace(); err != nil {
		t.Fatal(err)
	}
	is, err := os.ReadFile(filepath.Join(dir, "pages-2.img"))
	binary.LittleEndian.PutUint64(page[0x123:], testglibc.Libc+testglibc.Plain)
	if err != nil || !bytes.Equal(is, page) {
		t.Errorf("the segment holds %#x, %v", binary.LittleEndian.Uint64(is[0x123:]), err)
	}
}
