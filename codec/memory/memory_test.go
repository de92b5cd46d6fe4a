package memory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

// dir writes files into a directory of its own.
func writeFiles(tb testing.TB, dir string, files map[string][]byte) codec.Dir {
	tb.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	return codec.Dir(dir)
}

// TestStates reads pages of every kind.
func TestStates(t *testing.T) {
	const shared, private = 1, 2
	fown := testimg.Message(1, 0, 2, 0, 3, 0, 4, 0, 5, 0)
	files := map[string][]byte{
		"mm-7.img": testimg.MM([]int{6, 4096},
			testimg.VMA(0x10000, 0x13000, 0x2000, 7, 5, private, codec.VMARegular|codec.VMAFilePrivate),
			testimg.VMA(0x13000, 0x15000, 0, 0, 3, private, codec.VMARegular|codec.VMAAnonPrivate),
			testimg.VMA(0x20000, 0x22000, 0x1000, 99, 3, shared, codec.VMARegular|codec.VMAAnonShared),
			testimg.VMA(0x30000, 0x32000, 0, 8, 3, shared, codec.VMARegular|codec.VMAFileShared|codec.VMAMemfd),
			testimg.VMA(0x40000, 0x42000, 0, 8, 3, private, codec.VMARegular|codec.VMAFilePrivate|codec.VMAMemfd),
			testimg.VMA(0x50000, 0x51000, 0, 7, 1, shared, codec.VMARegular|codec.VMAFileShared),
			testimg.VMA(0x60000, 0x61000, 0, 0, 1, private, codec.VMARegular|codec.VMAVvar|codec.VMAAnonPrivate),
			testimg.VMA(0x70000, 0x71000, 0, 98, 3, shared, codec.VMARegular|codec.VMAAnonShared),
			testimg.VMA(0x80000, 0x81000, 0, 0, 3, private, codec.VMARegular|codec.VMAAnonPrivate),
			testimg.VMA(0x13000, 0x14000, 0, 0, 0, private, codec.VMAGuard),
		),
		"pagemap-7.img": testimg.Image(testimg.MagicPagemap, testimg.Message(1, 3),
			testimg.Message(1, 0x12000, 2, 0, 4, codec.PagePresent, 5, 2), // into the next mapping
			testimg.Message(1, 0x41000, 2, 1, 4, codec.PagePresent),
			testimg.Message(1, 0x80000, 2, 1, 4, codec.PageLazy)),
		"pages-3.img":            testimg.Pages("abc"),
		"pagemap-shmem-99.img":   testimg.Image(testimg.MagicPagemap, testimg.Message(1, 4), testimg.Message(1, 0x2000, 2, 1)),
		"pages-4.img":            testimg.Pages("s"),
		"pagemap-shmem-1234.img": testimg.Image(testimg.MagicPagemap, testimg.Message(1, 5), testimg.Message(1, 0x0, 2, 2, 4, codec.PagePresent)),
		"pages-5.img":            testimg.Pages("mn"),
		"files.img":              testimg.Image(testimg.MagicFiles, testimg.Message(1, 4, 2, 6, 5, "a socket"), testimg.File(7, "/bin/x", 0x04030201, 0x08070605), testimg.Message(1, 18, 2, 8, 20, testimg.Message(1, 8, 2, 0, 3, 0, 4, fown, 5, 55))),
		"memfd.img":              testimg.Image(testimg.MagicMemfd, testimg.Message(1, "buf", 2, 0, 3, 0, 4, 0, 5, 1234, 6, 0, 7, 55)),
	}
	m, err := open(writeFiles(t, t.TempDir(), files), 7)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for v := range slices.Values(m.VMAs()) {
		for r := range m.Ranges(v.Start, v.End) {
			var text []byte
			if known(r.State) {
				text = make([]byte, r.End-r.Start)
				if n, err := m.ReadAt(text, r.Start); err != nil || n != len(text) {
					t.Errorf("%#x: %d bytes, %v", r.Start, n, err)
				}
			} else if n, err := m.ReadAt(make([]byte, 1), r.Start); n != 0 || !errors.As(err, new(*AbsentError)) {
				t.Errorf("%#x: %d bytes, error %v", r.Start, n, err)
			}
			letters := ""
			for i := 0; i < len(text); i += codec.PageSize {
				letters += fmt.Sprintf("%q", text[i])
			}
			got = append(got, fmt.Sprintf("%x-%x %v %s%s", r.Start, r.End, r.State, letters, v.Path()))
		}
	}
	want := []string{
		"10000-12000 not changed since it was mapped from its file /bin/x", "12000-13000 dumped 'a'/bin/x",
		"13000-14000 dumped 'b'", `14000-15000 never written '\x00'`,
		`20000-21000 never written '\x00'`, "21000-22000 dumped 's'",
		"30000-32000 dumped 'm''n'/memfd:buf",
		"40000-42000 dumped 'm''c'/memfd:buf",
		"50000-51000 not changed since it was mapped from its file /bin/x",
		"60000-61000 mapped by the kernel ",
		"70000-71000 in a pages file that is not there ",
		"80000-81000 lazy, in no image ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant\n%q", got, want)
	}
	if id := m.VMAs()[0].File.BuildID; !slices.Equal(id, []byte{1, 2, 3, 4, 5, 6, 7, 8}) {
		t.Errorf("build-id %x", id)
	}
	if v, ok := m.Aux(6); !ok || v != 4096 || len(m.mm.Auxv) != 1 {
		t.Errorf("auxv %v", m.mm.Auxv)
	}
	if l, ok := m.Locate(0x13010); !ok || l.File != "pages-3.img" || l.Offset != 0x1010 || l.Parent {
		t.Errorf("%+v", l)
	}
	for _, addr := range []uint64{0, 0x10000, 0x14000, 0x16000, 1<<64 - 1} {
		if l, ok := m.Locate(addr); ok {
			t.Errorf("%#x is at %+v", addr, l)
		}
	}
	b := make([]byte, 16)
	if n, err := m.ReadAt(b, 0x14ff8); n != 8 || !errors.As(err, new(*AbsentError)) {
		t.Errorf("over the end of a mapping: %d bytes, %v", n, err)
	}
	if n, err := m.ReadAt(b, 1<<64-8); n != 0 || !errors.As(err, new(*AbsentError)) {
		t.Errorf("at the end of the address space: %d bytes, %v", n, err)
	}
}

// TestConcurrent reads from several goroutines, as the callers of an io.ReaderAt may.
func TestConcurrent(t *testing.T) {
	m, err := open(writeFiles(t, t.TempDir(), map[string][]byte{
		"mm-7.img": testimg.MM([]int{6, 4096},
			testimg.VMA(0x10000, 0x12000, 0, 0, 3, 2, codec.VMARegular|codec.VMAAnonPrivate),
			testimg.VMA(0x20000, 0x21000, 0, 99, 3, 1, codec.VMARegular|codec.VMAAnonShared)),
		"pagemap-7.img":        testimg.Image(testimg.MagicPagemap, testimg.Message(1, 3), testimg.Message(1, 0x10000, 2, 2, 4, codec.PagePresent)),
		"pages-3.img":          testimg.Pages("ab"),
		"pagemap-shmem-99.img": testimg.Image(testimg.MagicPagemap, testimg.Message(1, 4), testimg.Message(1, 0, 2, 1, 4, codec.PagePresent)),
		"pages-4.img":          testimg.Pages("s"),
	}), 7)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			addr := []uint64{0x10000, 0x11000, 0x20000}[i%3]
			b := make([]byte, codec.PageSize)
			if n, err := m.ReadAt(b, addr); n != len(b) || err != nil || b[len(b)-1] != "abs"[i%3] {
				t.Errorf("%#x: %d bytes, %q, %v", addr, n, b[len(b)-1], err)
			}
		})
	}
	wg.Wait()
	if n := m.images.PagesRead(); n != 6 {
		t.Errorf("%d pages read, want 6", n)
	}
}

// known reports whether ReadAt gives a page of the state.
func known(s State) bool { return s == Dumped || s == Zero }

func open(files codec.Files, pid uint32) (*Memory, error) { return NewImages(files).Open(pid) }
