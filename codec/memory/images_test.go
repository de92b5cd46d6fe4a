package memory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	testimg "github.com/fpuimg/fpuimg/internal/test/img"
)

const anonymous = codec.VMARegular | codec.VMAAnonPrivate

// told spells what is known of a process's memory: states, and the letters of pages.
func told(tb testing.TB, m *Memory) string {
	tb.Helper()
	var out []string
	for _, v := range m.VMAs() {
		for r := range m.Ranges(v.Start, v.End) {
			text := r.State.String()
			if r.State == Dumped {
				text = ""
				for addr := r.Start; addr < r.End; addr += codec.PageSize {
					var b [1]byte
					if _, err := m.ReadAt(b[:], addr+17); err != nil {
						tb.Errorf("%#x: %v", addr, err)
					}
					text += string(b[:])
				}
			}
			out = append(out, fmt.Sprintf("%x:%s", r.Start>>12, text))
		}
	}
	return strings.Join(out, " ")
}

// TestPagemaps reads pagemaps as releases of CRIU wrote them: until 4.1 the count of pages
// is in field 2 and flags may be absent, of old with in_parent in field 3; from 4.2 on it
// is in field 5, and field 2 holds 0.
func TestPagemaps(t *testing.T) {
	head := testimg.Message(1, 1)
	for name, test := range map[string]struct {
		entries [][]byte
		more    map[string][]byte
		want    string
	}{
		"3.11, without flags":                {entries: [][]byte{testimg.Message(1, 0x10000, 2, 2), testimg.Message(1, 0x13000, 2, 1)}, want: "10:ab 12:never written 13:c 14:never written"},
		"3.17":                               {entries: [][]byte{testimg.Message(1, 0x10000, 2, 2, 4, 4), testimg.Message(1, 0x13000, 2, 1, 4, 4)}, want: "10:ab 12:never written 13:c 14:never written"},
		"4.2":                                {entries: [][]byte{testimg.Message(1, 0x10000, 2, 0, 4, 4, 5, 2), testimg.Message(1, 0x13000, 2, 0, 4, 4, 5, 1)}, want: "10:ab 12:never written 13:c 14:never written"},
		"both counts":                        {entries: [][]byte{testimg.Message(1, 0x10000, 2, 9, 4, 4, 5, 1)}, want: "10:a 11:never written"},
		"lazy":                               {entries: [][]byte{testimg.Message(1, 0x10000, 2, 1, 4, 2), testimg.Message(1, 0x11000, 2, 1, 4, 6), testimg.Message(1, 0x12000, 2, 1, 4, 4)}, want: "10:lazy, in no image 11:ab 13:never written"},
		"in a parent that is gone, by flag":  {entries: [][]byte{testimg.Message(1, 0x10000, 2, 1, 4, 1), testimg.Message(1, 0x11000, 2, 1, 4, 4)}, want: "10:in a parent that is not there 11:a 12:never written"},
		"in a parent that is gone, by field": {entries: [][]byte{testimg.Message(1, 0x10000, 2, 1, 3, 1), testimg.Message(1, 0x11000, 2, 1)}, want: "10:in a parent that is not there 11:a 12:never written"},
		"4.3, compressed":                    {entries: [][]byte{testimg.Message(1, 0x10000, 2, 0, 4, 4, 5, 2, 6, testimg.Message(1, 100, 2, 100, 3, 1))}, want: "10:compressed by CRIU 12:never written"},
		"4.3, by its inventory": {entries: [][]byte{testimg.Message(1, 0x10000, 2, 0, 4, 4, 5, 2)},
			more: map[string][]byte{"inventory.img": testimg.Image(testimg.MagicInventory, testimg.Message(1, 2, 15, 1, 16, 16))}, want: "10:compressed by CRIU 12:never written"},
		"4.3, not compressed": {entries: [][]byte{testimg.Message(1, 0x10000, 2, 0, 4, 4, 5, 2)},
			more: map[string][]byte{"inventory.img": testimg.Image(testimg.MagicInventory, testimg.Message(1, 2))}, want: "10:ab 12:never written"},
		"nothing":                 {want: "10:never written"},
		"over what is not mapped": {entries: [][]byte{testimg.Message(1, 0xf000, 2, 2), testimg.Message(1, 0x15000, 2, 1)}, want: "10:b 11:never written"},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string][]byte{
				"mm-7.img":      testimg.MM(nil, testimg.VMA(0x10000, 0x15000, 0, 0, 3, 2, anonymous)),
				"pagemap-7.img": testimg.Image(testimg.MagicPagemap, append([][]byte{head}, test.entries...)...),
				"pages-1.img":   testimg.Pages("abc"),
			}
			maps.Copy(files, test.more)
			m, err := open(writeFiles(t, t.TempDir(), files), 7)
			if err != nil {
				t.Fatal(err)
			}
			if got := told(t, m); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

// TestOldFiles reads names and build-ids from reg-files.img, which CRIU wrote before 3.0.
func TestOldFiles(t *testing.T) {
	m, err := open(writeFiles(t, t.TempDir(), map[string][]byte{
		"mm-7.img":      testimg.MM(nil, testimg.VMA(0x10000, 0x11000, 0, 9, 5, 2, codec.VMARegular|codec.VMAFilePrivate)),
		"reg-files.img": testimg.Image(testimg.MagicRegFiles, testimg.RegFile(8, "/a"), testimg.RegFile(9, "/b", 0x04030201)),
	}), 7)
	if err != nil {
		t.Fatal(err)
	}
	if v := m.VMAs()[0]; v.Path() != "/b" || !bytes.Equal(v.File.BuildID, []byte{1, 2, 3, 4}) || v.Anonymous() {
		t.Errorf("%+v", v)
	}
	if got := told(t, m); got != "10:in a pages file that is not there" {
		t.Error(got)
	}
}

// incremental writes a dump that stands on others: the first of dirs holds the newest.
func incremental(t *testing.T, depth int, pagemap func(i int) []byte) string {
	base := t.TempDir()
	for i := range depth {
		dir := writeFiles(t, filepath.Join(base, fmt.Sprint(i)), map[string][]byte{
			"mm-7.img":      testimg.MM(nil, testimg.VMA(0x10000, 0x14000, 0, 0, 3, 2, anonymous)),
			"pagemap-7.img": pagemap(i),
			"pages-1.img":   testimg.Pages(string(rune('a' + i%26))),
		})
		if i+1 < depth {
			if err := os.Symlink(fmt.Sprintf("../%d", i+1), dir.Label("parent")); err != nil {
				t.Fatal(err)
			}
		}
	}
	return filepath.Join(base, "0")
}

// TestParents reads pages through links to older dumps, down to the one that has them.
func TestParents(t *testing.T) {
	here := func(page int) []byte { return testimg.Message(1, 0x10000+page<<12, 2, 1, 4, 4) }
	below := func(from, n int) []byte { return testimg.Message(1, 0x10000+from<<12, 2, n, 4, 1) }
	run := func(entries ...[]byte) []byte {
		return testimg.Image(testimg.MagicPagemap, append([][]byte{testimg.Message(1, 1)}, entries...)...)
	}
	dir := incremental(t, 3, func(i int) []byte {
		return [][]byte{run(here(0), below(1, 3)), run(below(0, 1), here(1), below(2, 1)), run(here(2))}[i]
	})
	m, err := open(codec.Dir(dir), 7)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := told(t, m), "10:abc 13:in a parent that is not there"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for addr, want := range map[uint64]bool{0x10000: false, 0x11000: true, 0x12000: true} {
		if l, ok := m.Locate(addr); !ok || l.Parent != want || l.File != "pages-1.img" || l.Offset != 0 {
			t.Errorf("%#x: %+v, %v", addr, l, ok)
		}
	}
	// As deep as may be, and deeper.
	deep := func(depth int) (*Memory, error) {
		return open(codec.Dir(incremental(t, depth, func(i int) []byte {
			if i+1 < depth {
				return run(below(0, 1))
			}
			return run(here(0))
		})), 7)
	}
	if m, err = deep(maxParents + 1); err != nil || told(t, m) != "10:"+string(rune('a'+maxParents%26))+" 11:never written" {
		t.Errorf("%d parents: %v", maxParents, err)
	}
	if _, err = deep(maxParents + 2); err == nil || !strings.Contains(err.Error(), "more than 64 older dumps") {
		t.Errorf("%d parents: error %v", maxParents+1, err)
	}
	// A loop, and what is no directory.
	dir = incremental(t, 2, func(int) []byte { return run(below(0, 1)) })
	if err := os.Symlink("../0", filepath.Join(dir, "../1/parent")); err != nil {
		t.Fatal(err)
	}
	if _, err := open(codec.Dir(dir), 7); err == nil || !strings.Contains(err.Error(), "leads back") {
		t.Errorf("a loop: error %v", err)
	}
	dir = incremental(t, 1, func(int) []byte { return run(below(0, 1)) })
	if err := os.Symlink("mm-7.img", filepath.Join(dir, "parent")); err != nil {
		t.Fatal(err)
	}
	if _, err := open(codec.Dir(dir), 7); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a file: error %v", err)
	}
}

// TestDamagedMemory: what cannot be is refused by file and field.
func TestDamagedMemory(t *testing.T) {
	vma := func(start, end int) []byte { return testimg.VMA(start, end, 0, 0, 3, 2, anonymous) }
	pagemap := func(entries ...[]byte) []byte {
		return testimg.Image(testimg.MagicPagemap, append([][]byte{testimg.Message(1, 1)}, entries...)...)
	}
	for want, change := range map[string]map[string][]byte{
		"mm-7.img: offset 0x":               {"mm-7.img": []byte("no image, but as long as one")},
		"vmas.start":                        {"mm-7.img": testimg.MM(nil, vma(0x10000, 0x12000), vma(0x11000, 0x13000))},
		"vmas.end":                          {"mm-7.img": testimg.MM(nil, vma(0x10000, 0x10000))},
		"vmas.pgoff":                        {"mm-7.img": testimg.MM(nil, testimg.VMA(0x10000, 0x11000, 5, 0, 3, 2, anonymous))},
		"vaddr: 0x10001":                    {"pagemap-7.img": pagemap(testimg.Message(1, 0x10001, 2, 1))},
		"vaddr: 0x10000":                    {"pagemap-7.img": pagemap(testimg.Message(1, 0x10000, 2, 2), testimg.Message(1, 0x10000, 2, 1))},
		"nr_pages":                          {"pagemap-7.img": pagemap(testimg.Message(1, 0x10000, 2, 0, 5, uint64(1)<<62))},
		"compat_nr_pages":                   {"pagemap-7.img": pagemap(testimg.Message(1, uint64(1<<64-4096), 2, 2))},
		"flags":                             {"pagemap-7.img": pagemap(testimg.Message(1, 0x10000, 2, 1, 4, 5))},
		"pages-1.img: offset 0x1000: pages": {"pagemap-7.img": pagemap(testimg.Message(1, 0x10000, 2, 2))},
		"files.img":                         {"files.img": testimg.Image(testimg.MagicFiles, []byte{0xff})},
	} {
		files := map[string][]byte{"mm-7.img": testimg.MM(nil, vma(0x10000, 0x12000)), "pages-1.img": testimg.Pages("a")}
		maps.Copy(files, change)
		_, err := open(writeFiles(t, t.TempDir(), files), 7)
		if !errors.As(err, new(*codec.FormatError)) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", want, err)
		}
	}
	if _, err := open(codec.Dir(t.TempDir()), 7); !errors.As(err, new(*codec.MissingError)) {
		t.Errorf("without mm-7.img: error %v", err)
	}
}

// A pages file that shrinks while it is read is an error, and no zeros.
func TestShrunkPages(t *testing.T) {
	dir := writeFiles(t, t.TempDir(), map[string][]byte{
		"mm-7.img":      testimg.MM(nil, testimg.VMA(0x10000, 0x12000, 0, 0, 3, 2, anonymous)),
		"pagemap-7.img": testimg.Image(testimg.MagicPagemap, testimg.Message(1, 1), testimg.Message(1, 0x10000, 2, 2)),
		"pages-1.img":   testimg.Pages("ab"),
	})
	im := NewImages(dir)
	m, err := im.Open(7)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(dir.Label("pages-1.img"), 5000); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8192)
	if n, err := m.ReadAt(b, 0x10000); n != 0 || !errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, new(*codec.FormatError)) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := m.ReadAt(b[:10], 0x10000); n != 10 || err != nil || im.PagesRead() != 3 {
		t.Errorf("%d bytes, %v, %d pages read", n, err, im.PagesRead())
	}
	if err := im.Close(); err != nil {
		t.Error(err)
	}
}

// held is image files in memory, with an older dump or none.
type held struct {
	files  map[string][]byte
	parent *held
	name   string
}

func (h *held) Open(name string) (io.ReaderAt, int64, error) {
	b, ok := h.files[name]
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	return bytes.NewReader(b), int64(len(b)), nil
}
func (h *held) Names() ([]string, error) { return slices.Collect(maps.Keys(h.files)), nil }
func (h *held) Label(name string) string { return h.name + name }
func (h *held) Parent() (codec.Files, error) {
	if h.parent == nil {
		return nil, nil
	}
	return h.parent, nil
}

// FuzzMemory asks of images of memory what is asked of them: of each address one thing
// only is said, by Ranges, State, Locate and ReadAt, and what is read is what a pages
// file has there.
func FuzzMemory(f *testing.F) {
	mm := testimg.MM(nil, testimg.VMA(0x10000, 0x15000, 0, 0, 3, 2, anonymous), testimg.VMA(0x20000, 0x22000, 0x1000, 3, 3, 1, codec.VMARegular|codec.VMAAnonShared),
		testimg.VMA(0x30000, 0x32000, 0, 9, 5, 2, codec.VMARegular|codec.VMAFilePrivate))
	pagemap := func(entries ...[]byte) []byte {
		return testimg.Image(testimg.MagicPagemap, append([][]byte{testimg.Message(1, 1)}, entries...)...)
	}
	files := testimg.Image(testimg.MagicFiles, testimg.File(9, "/lib/x.so", 1, 2, 3, 4, 5))
	inventory := testimg.Image(testimg.MagicInventory, testimg.Message(1, 2))
	older := pagemap(testimg.Message(1, 0x11000, 2, 3, 4, 4))
	f.Add(mm, pagemap(testimg.Message(1, 0x10000, 2, 1, 4, 4), testimg.Message(1, 0x11000, 2, 2, 4, 1), testimg.Message(1, 0x13000, 2, 1, 4, 2)), older, pagemap(testimg.Message(1, 0x1000, 2, 0, 5, 1, 4, 4)), files, inventory, uint16(4))
	f.Add(mm, pagemap(testimg.Message(1, 0x10000, 2, 0, 4, 4, 5, 2), testimg.Message(1, 0x30000, 2, 0, 4, 4, 5, 1)), older, pagemap(), files, inventory, uint16(3))
	f.Add(mm, pagemap(testimg.Message(1, 0x10000, 2, 0, 4, 4, 5, 2, 6, testimg.Message(1, 9, 2, 9, 3, 1))), older, pagemap(), files, testimg.Image(testimg.MagicInventory, testimg.Message(1, 2, 15, 1, 16, 16)), uint16(3))
	f.Add(mm, pagemap(testimg.Message(1, 0x10000, 2, 4, 3, 1)), older, pagemap(), files, inventory, uint16(0))
	f.Fuzz(func(t *testing.T, mm, own, older, shared, list, inventory []byte, pages uint16) {
		content := make([]byte, int(pages%64)*codec.PageSize)
		for i := range content {
			content[i] = byte(i/codec.PageSize) + byte(i%251)
		}
		h := &held{map[string][]byte{"mm-7.img": mm, "pagemap-7.img": own, "pagemap-shmem-3.img": shared, "files.img": list, "inventory.img": inventory, "pages-1.img": content},
			&held{map[string][]byte{"pagemap-7.img": older, "pages-1.img": content}, nil, "parent/"}, ""}
		m, err := open(h, 7)
		if err != nil {
			if !errors.As(err, new(*codec.FormatError)) {
				t.Fatalf("error %v", err)
			}
			return
		}
		end, n := uint64(0), 0
		for _, v := range m.VMAs() {
			if v.Start < end || v.End <= v.Start {
				t.Fatalf("mapping %+v behind %#x", v, end)
			}
			end = v.End
			at := v.Start
			for r := range m.Ranges(v.Start, v.End) {
				if r.Start != at || r.End <= at || r.End > v.End {
					t.Fatalf("range %+v of %+v at %#x", r, v, at)
				}
				at = r.End
				if n++; n > 2000 {
					return
				}
				for _, addr := range []uint64{r.Start, r.End - 1, r.Start + rand.Uint64N(r.End-r.Start)} {
					b := make([]byte, min(100, r.End-addr))
					n, err := m.ReadAt(b, addr)
					l, held := m.Locate(addr)
					absent, _ := errors.AsType[*AbsentError](err)
					switch {
					case m.State(addr) != r.State || held != (r.State == Dumped):
						t.Fatalf("%#x: %v, %v in %+v", addr, m.State(addr), held, r)
					case !known(r.State) && (n != 0 || absent == nil || absent.State != r.State || absent.Addr != addr):
						t.Fatalf("%#x: %d bytes, %v in %+v", addr, n, err, r)
					case known(r.State) && (n != len(b) || err != nil):
						t.Fatalf("%#x: %d bytes, %v in %+v", addr, n, err, r)
					case r.State == Zero && slices.Max(b) != 0, r.State == Dumped && b[0] != content[l.Offset]:
						t.Fatalf("%#x: %x in %+v at %+v", addr, b, r, l)
					}
				}
			}
			if at != v.End {
				t.Fatalf("%+v is told up to %#x", v, at)
			}
		}
	})
}
