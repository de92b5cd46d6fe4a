package level_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/checkpoint"
	"github.com/fpuimg/fpuimg/codec/isa"
	"github.com/fpuimg/fpuimg/codec/memory"
	"github.com/fpuimg/fpuimg/codec/program"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
	"github.com/fpuimg/fpuimg/convert/level"
	testcmd "github.com/fpuimg/fpuimg/internal/test/cmd"
	"github.com/fpuimg/fpuimg/internal/test/corpus"
)

// look looks at the one process of a checkpoint.
func look(t *testing.T, dir string, o level.Options) *program.Process {
	t.Helper()
	c, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var threads []codec.Thread
	for th, err := range c.Threads() {
		if err != nil {
			t.Fatal(err)
		}
		threads = append(threads, th)
	}
	l := program.NewLooker(c.Files, o.Roots)
	t.Cleanup(func() { l.Close() })
	p, err := l.Open(threads[0].PID, threads)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// write changes the memory of a checkpoint where it lies.
func write(t *testing.T, dir string, m *memory.Memory, addr uint64, b []byte) {
	t.Helper()
	at, ok := m.Locate(addr)
	if !ok {
		t.Fatalf("%#x is in no image", addr)
	}
	f, err := os.OpenFile(filepath.Join(dir, at.File), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, at.Offset); err != nil {
		t.Fatal(err)
	}
}

func word(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// levelled levels a copy of a checkpoint, and looks at both.
func levelled(t *testing.T, name string, o level.Options) (p *level.Plan, dir string, was, is *program.Process) {
	t.Helper()
	dir = copied(t, name)
	p = plan(t, dir, o)
	if p.Refused() {
		t.Fatal(p.Refusals)
	}
	if err := p.InPlace(); err != nil {
		t.Fatal(err)
	}
	return p, dir, look(t, corpus.Images(t, name), o), look(t, dir, o)
}

// A program that put the address of strlen at places of all kinds has none of them left:
// unaligned, in shared memory and a memfd, mangled, in a register.
func TestCopies(t *testing.T) {
	const name = "esc-1"
	o := options(t, name, machine(t, "Haswell"))
	p, dir, was, is := levelled(t, name, o)
	var strlen uint64
	for line := range strings.Lines(string(corpus.Read(t, name, "program.where.tsv"))) {
		fields := strings.Fields(line)
		addr, err := strconv.ParseUint(fields[1], 0, 64)
		switch {
		case fields[0] == "strlen":
			strlen = addr
			continue
		case err != nil || fields[0] == "xored": // the one that nobody can see
			continue
		}
		old, _ := was.Word(addr)
		now, _ := is.Word(addr)
		if needs, _ := is.Needs(now); old != strlen || now == strlen || slices.Contains(needs, "avx512f") {
			t.Errorf("%s at %#x holds %#x, and held %#x of %#x", fields[0], addr, now, old, strlen)
		}
	}
	registers := 0
	c, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for th, err := range c.Threads() {
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(th.GPRegs[:], strlen) {
			t.Errorf("thread %d still has the address in a register", th.TID)
		}
	}
	for _, task := range p.Tasks {
		registers += len(task.Registers)
		if !slices.ContainsFunc(task.Words, func(w level.Word) bool {
			return w.What == level.Copy && w.SymbolFrom == was.Place(strlen) && binary.LittleEndian.Uint64(w.From) != strlen
		}) {
			t.Error("no mangled pointer, as atexit makes them")
		}
	}
	if registers == 0 {
		t.Error("no register")
	}
}

// In a program that is linked to low addresses, what looks like one may be a number.
func TestLowAddress(t *testing.T) {
	const name = "lpst-1"
	o := options(t, name, machine(t, "Haswell"))
	p := look(t, corpus.Images(t, name), o)
	var value uint64
	for _, w := range plan(t, corpus.Images(t, name), o).Tasks[0].Words {
		if w.What == level.IRelative {
			value = binary.LittleEndian.Uint64(w.From)
		}
	}
	for _, v := range p.Memory().VMAs() {
		if v.Status&codec.VMAHeap == 0 {
			continue
		}
		dir := copied(t, name)
		at := v.Start + 0x800
		for !p.Memory().Dumped(at) {
			at += 4096
		}
		write(t, dir, p.Memory(), at, word(value))
		if got := refusals(plan(t, dir, o)); !slices.Equal(got, []level.Name{level.WordAmbiguous}) {
			t.Errorf("%#x at %#x: refused for %v", value, at, got)
		}
		return
	}
	t.Error("no heap")
}

// Shared memory that no process maps is not looked through, which is a judgement.
func TestUnmapped(t *testing.T) {
	o := options(t, "lp-1", machine(t, "Haswell"))
	dir := copied(t, "lp-1")
	if err := os.WriteFile(filepath.Join(dir, "pagemap-shmem-77.img"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := refusals(plan(t, dir, o)); !slices.Equal(got, []level.Name{level.SharedMemory}) {
		t.Errorf("refused for %v", got)
	}
	o.Accept = []level.Exception{{Name: level.SharedMemory}}
	if p := plan(t, dir, o); p.Refused() {
		t.Errorf("accepted, and refused for %v", p.Refusals)
	}
}

// A signal frame with AVX in use keeps it, in a size that the host's kernel takes.
func TestFrame(t *testing.T) {
	const name = "sigh-ymm"
	o := options(t, name, machine(t, "Haswell"))
	o.Accept = []level.Exception{{Name: level.CompiledISA}}
	_, _, was, is := levelled(t, name, o)
	old, now := was.Threads[0].Frames[0], is.Threads[0].Frames[0]
	const avx = xstate.Legacy | 1<<xstate.AVX
	if now.Address != old.Address || now.Features != avx || now.BV != old.BV&avx || now.Size != 832 || !now.Live {
		t.Errorf("%+v, was %+v", now, old)
	}
	a, b := make([]byte, 832), make([]byte, 832)
	was.Memory().ReadAt(a, old.Address)
	is.Memory().ReadAt(b, old.Address)
	for _, part := range [][2]int{{0, 464}, {576, 832}} { // legacy area, AVX
		if !slices.Equal(a[part[0]:part[1]], b[part[0]:part[1]]) {
			t.Errorf("bytes %v of the area differ", part)
		}
	}
}

// A signal frame that is smaller than what it says to hold is refused.
func TestSmallFrame(t *testing.T) {
	const name = "sigh-ymm"
	o := options(t, name, machine(t, "Haswell"))
	o.Accept = []level.Exception{{Name: level.CompiledISA}}
	dir := copied(t, name)
	p := look(t, dir, o)
	at := p.Threads[0].Frames[0].Address
	write(t, dir, p.Memory(), at+480, binary.LittleEndian.AppendUint32(nil, 576)) // xstate_size
	write(t, dir, p.Memory(), at+512, word(uint64(xstate.Legacy)))
	write(t, dir, p.Memory(), at+576, []byte("EXPF")) // FP_XSTATE_MAGIC2
	if got := refusals(plan(t, dir, o)); !slices.Equal(got, []level.Name{level.FrameLive}) {
		t.Errorf("refused for %v", got)
	}
}

// A program whose functions were chosen by a record that is not found is refused, a static
// one too, whatever is accepted.
func TestNoRecord(t *testing.T) {
	for _, name := range testcmd.Rows([]string{"lp-1", "lpst-1", "lpstpie-1"}) {
		o := options(t, name, machine(t, "Haswell"))
		o.Accept = []level.Exception{{Name: level.OwnDispatch}, {Name: level.CompiledISA}}
		dir := copied(t, name)
		for _, w := range plan(t, dir, o).Tasks[0].Words {
			if w.What == level.CPUFeatures { // ECX of CPUID 1; EAX and what it tells stand before
				write(t, dir, look(t, dir, o).Memory(), w.Address-28, make([]byte, 28))
				break
			}
		}
		if got := refusals(plan(t, dir, o)); !slices.Equal(got, []level.Name{level.GlibcUnknown}) {
			t.Errorf("%s: refused for %v", name, got)
		}
	}
}

// On the heap, a pointer to a function that needs AVX-512, or to a table of such, is a
// choice that an object keeps: OpenSSL's cipher contexts hold them. On a stack it is
// what is left of a call.
func TestKeptChoice(t *testing.T) {
	const name = "pyhash-trixie-4"
	host := machine(t, "Haswell")
	o := options(t, name, host)
	p := look(t, corpus.Images(t, name), o)
	var function, table uint64
	for _, object := range p.Objects {
		if !strings.HasPrefix(filepath.Base(object.Path), "libcrypto.so") {
			continue
		}
		d := p.Dispatch(object, isa.AVX512)
		start, end := d.Range()
		for addr := start; addr < end && (table == 0 || function == 0); addr += 8 {
			if table == 0 && d.Table(addr) {
				table = addr
			}
			if function == 0 && d.Chosen(addr) {
				function = addr
			}
		}
	}
	if function == 0 || table == 0 {
		t.Fatalf("libcrypto 3.5 has no function %#x or no table %#x of AVX-512", function, table)
	}
	var heap, stack uint64
	for _, v := range p.Memory().VMAs() {
		if v.Status&codec.VMAHeap != 0 {
			heap = v.Start
		}
	}
	c, err := checkpoint.Open(corpus.Images(t, name))
	if err != nil {
		t.Fatal(err)
	}
	for th, err := range c.Threads() {
		if err == nil && stack == 0 {
			stack = th.GPRegs[19] &^ 7
		}
	}
	for at := heap + 0x2000; ; at += 8 { // a free word
		if v, ok := p.Word(at); ok && v == 0 && p.Memory().Dumped(at) {
			heap = at
			break
		}
	}
	for _, tt := range testcmd.Rows([]struct {
		name        string
		addr, value uint64
		refused     bool
	}{{"function on the heap", heap, function, true}, {"table on the heap", heap, table, true}, {"inside of a function", heap, function + 1, false}, {"function on a stack", stack - 64, function, false}}) {
		dir := copied(t, name)
		write(t, dir, p.Memory(), tt.addr, word(tt.value))
		if got := refusals(plan(t, dir, o)); slices.Contains(got, level.OwnDispatch) != tt.refused {
			t.Errorf("%s: refused for %v", tt.name, got)
		}
	}
}

// The size of the buffer of lazy binding grows where the host writes more than the source
// did, and is never less than it was.
func TestSaveSize(t *testing.T) {
	for _, tt := range testcmd.Rows([]struct {
		name, cpu string
		from, to  uint64
	}{{"gh-lp1", "host", 896, 2752}, {"gh-lp1", "max", 896, 1088}, {"gh-lp1", "Haswell", 896, 896}, {"lp-1", "Haswell", 2496, 2496}, {"lp-1", "Nehalem", 2496, 0}}) {
		o := options(t, tt.name, machine(t, tt.cpu))
		p := plan(t, corpus.Images(t, tt.name), o)
		if p.Refused() {
			t.Errorf("%s for %s: %v", tt.name, tt.cpu, p.Refusals)
			continue
		}
		out := filepath.Join(t.TempDir(), "out")
		if p.Changed() {
			if err := p.WriteDir(out, convert.DirOptions{}); err != nil {
				t.Errorf("%s for %s: %v", tt.name, tt.cpu, err)
				continue
			}
		} else {
			out = corpus.Images(t, tt.name)
		}
		from, to := look(t, corpus.Images(t, tt.name), o).Source.SaveSize, look(t, out, o).Source.SaveSize
		if from != tt.from || to != tt.to {
			t.Errorf("%s for %s: %d becomes %d, want %d and %d", tt.name, tt.cpu, from, to, tt.from, tt.to)
		}
	}
}
