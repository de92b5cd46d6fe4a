package convert_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fpuimg/fpuimg/codec"
	"github.com/fpuimg/fpuimg/codec/xstate"
	"github.com/fpuimg/fpuimg/convert"
)

// pages is the content of a file to be edited, of more than one buffer of any copier.
var pages = func() []byte {
	b := make([]byte, 700<<10+13)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}()

// editOf spells an edit of pages that inverts n bytes.
func editOf(at, n int) convert.Edit {
	e := convert.Edit{Offset: int64(at), Old: pages[at:][:n], Why: "a test"}
	for _, b := range e.Old {
		e.New = append(e.New, ^b)
	}
	return e
}

// pageEdits are edits at both ends, one after the other, and across the borders of
// buffers, in no order.
func pageEdits() []convert.Edit {
	edits := []convert.Edit{editOf(len(pages)-9, 9), editOf(0, 8), editOf(8, 1), editOf(5000, 100000)}
	for at := 128 << 10; at+4 < len(pages); at += 32 << 10 {
		edits = append(edits, editOf(at-3, 8))
	}
	return edits
}

// edited is what pages become.
func edited() []byte {
	b := bytes.Clone(pages)
	for _, e := range pageEdits() {
		copy(b[e.Offset:], e.New)
	}
	return b
}

// withPages copies a checkpoint and adds pages to it, under two names.
func withPages(t *testing.T) string {
	t.Helper()
	dir := copyImage(t, "h-threads8")
	if err := os.WriteFile(filepath.Join(dir, "pages-9.img"), pages, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "pages-9.img"), filepath.Join(dir, "zz-same")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// executors carry a plan of a directory out, after add has added to it, and return
// what the checkpoint's files then are, and those of its source.
var executors = map[string]func(t *testing.T, dir string, add func(*convert.Plan)) (after, source map[string]string, err error){
	"directory": func(t *testing.T, dir string, add func(*convert.Plan)) (map[string]string, map[string]string, error) {
		p := plan(t, dir, forced(xstate.FormatFXSave))
		add(p)
		base := scratch(t)
		err := p.WriteDir(filepath.Join(base, "out"), convert.DirOptions{})
		if err != nil {
			return contents(t, base), contents(t, dir), err
		}
		return contents(t, filepath.Join(base, "out")), contents(t, dir), nil
	},
	"in place": func(t *testing.T, dir string, add func(*convert.Plan)) (map[string]string, map[string]string, error) {
		p := plan(t, dir, forced(xstate.FormatFXSave))
		add(p)
		if err := p.InPlace(); err != nil {
			return nil, contents(t, dir), err
		}
		after := contents(t, dir)
		source := maps.Clone(after)
		for name, b := range after {
			if original, ok := strings.CutSuffix(name, ".orig"); ok {
				source[original] = b
				delete(source, name)
				delete(after, name)
			}
		}
		return after, source, nil
	},
	"archive": func(t *testing.T, dir string, add func(*convert.Plan)) (map[string]string, map[string]string, error) {
		return editArchive(t, dir, "none", add)
	},
	"zstd archive": func(t *testing.T, dir string, add func(*convert.Plan)) (map[string]string, map[string]string, error) {
		return editArchive(t, dir, "zstd", add)
	},
}

func editArchive(t *testing.T, dir string, c string, add func(*convert.Plan)) (after, source map[string]string, err error) {
	t.Helper()
	b := tarOf(t, dir, "--hard-dereference", ".")
	path := writeTemp(t, "x.tar", compress(t, b, c))
	plans := archivePlans(t, path, forced(xstate.FormatFXSave))
	add(plans[0])
	base := scratch(t)
	out := filepath.Join(base, "out")
	if err := convert.WriteArchive(plans, out, convert.ArchiveOptions{}); err != nil {
		return contents(t, base), contents(t, dir), err
	}
	after = map[string]string{}
	now, _ := unpacked(t, out)
	for r := tar.NewReader(bytes.NewReader(now)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return after, contents(t, dir), nil
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			content, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			after[strings.TrimPrefix(h.Name, "./")] = string(content)
		}
	}
}

// TestEdit edits a file of a checkpoint whose other files are converted.
func TestEdit(t *testing.T) {
	want := edited()
	for how, execute := range executors {
		dir := withPages(t)
		before := contents(t, dir)
		after, source, err := execute(t, dir, func(p *convert.Plan) {
			for _, e := range pageEdits() { // one by one, or together
				if err := p.Edit("pages-9.img", e); err != nil {
					t.Fatal(err)
				}
			}
		})
		if err != nil {
			t.Errorf("%s: %v", how, err)
			continue
		}
		if !maps.Equal(source, before) {
			t.Errorf("%s: the source changed", how)
		}
		if after["pages-9.img"] != string(want) {
			t.Errorf("%s: the edited file is another, first at %#x", how, differs(after["pages-9.img"], string(want)))
		}
		if after["zz-same"] != string(pages) {
			t.Errorf("%s: the other name of the edited file has changed", how)
		}
		delete(after, "pages-9.img")
		delete(before, "pages-9.img")
		checkOnlyFPU(t, before, after)
	}
}

func differs(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// TestEditOldBytes refuses edits of other bytes than the file holds: nothing is
// written.
func TestEditOldBytes(t *testing.T) {
	wrong := func(at, n, i int) convert.Edit {
		e := editOf(at, n)
		e.Old = bytes.Clone(e.Old)
		e.Old[i]++
		return e
	}
	beyond := editOf(len(pages)-4, 4)
	beyond.Offset += 2
	far := editOf(0, 4)
	far.Offset = 1 << 40
	for what, e := range map[string]convert.Edit{
		"the first byte": wrong(0, 1, 0), "the last byte": wrong(len(pages)-1, 1, 0), "after a border": wrong(128<<10-3, 8, 6),
		"the last of many": wrong(5000, 100000, 99999), "beyond the end": beyond, "far beyond the end": far,
	} {
		for how, execute := range executors {
			dir := withPages(t)
			before := contents(t, dir)
			left, source, err := execute(t, dir, func(p *convert.Plan) {
				if err := p.Edit("pages-9.img", editOf(2000, 8), e); err != nil {
					t.Fatal(err)
				}
			})
			edit, ok := errors.AsType[*convert.EditError](err)
			if !ok || !errors.Is(err, convert.ErrOldBytes) || edit.Offset != e.Offset || edit.Why != "a test" {
				t.Errorf("%s, %s: error %v, want that the file holds other bytes at %#x", how, what, err, e.Offset)
			}
			if !maps.Equal(source, before) {
				t.Errorf("%s, %s: the source changed", how, what)
			}
			if len(left) > 0 {
				t.Errorf("%s, %s: left behind: %v", how, what, slices.Collect(maps.Keys(left)))
			}
		}
	}
}

// TestEditRefused checks what cannot be planned.
func TestEditRefused(t *testing.T) {
	dir := withPages(t)
	core := filepath.Base(testCore(t, dir))
	first := editOf(100, 10)
	tests := []struct {
		name string
		file string
		e    convert.Edit
		want error
	}{
		{"the same again", "pages-9.img", first, convert.ErrOverlap},
		{"its first byte", "pages-9.img", editOf(90, 11), convert.ErrOverlap},
		{"its last byte", "pages-9.img", editOf(109, 1), convert.ErrOverlap},
		{"all around it", "pages-9.img", editOf(50, 100), convert.ErrOverlap},
		{"a converted file", core, editOf(0, 4), convert.ErrOverlap},
		{"longer", "pages-9.img", convert.Edit{Offset: 5, Old: []byte{1}, New: []byte{1, 2}}, convert.ErrEdit},
		{"nothing", "pages-9.img", convert.Edit{Offset: 5}, convert.ErrEdit},
		{"before the file", "pages-9.img", convert.Edit{Offset: -1, Old: []byte{1}, New: []byte{2}}, convert.ErrEdit},
		{"at no offset", "pages-9.img", convert.Edit{Offset: 1<<63 - 1, Old: []byte{1}, New: []byte{2}}, convert.ErrEdit},
		{"just before", "pages-9.img", editOf(90, 10), nil},
		{"just behind", "pages-9.img", editOf(110, 10), nil},
	}
	for _, tt := range tests {
		p := plan(t, dir, forced(xstate.FormatFXSave))
		if err := p.Edit("pages-9.img", first); err != nil {
			t.Fatal(err)
		}
		err := p.Edit(tt.file, tt.e)
		if _, ok := errors.AsType[*convert.EditError](err); ok != (tt.want != nil) || !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
	}

	// A file that is not there, or is no file.
	if err := os.Symlink("pages-9.img", filepath.Join(dir, "link.img")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gone.img", "link.img"} {
		for how, execute := range executors {
			left, _, err := execute(t, dir, func(p *convert.Plan) {
				if err := p.Edit(name, first); err != nil {
					t.Fatal(err)
				}
			})
			if err == nil || len(left) > 0 {
				t.Errorf("%s, an edit of %s: error %v, left behind %v", how, name, err, slices.Collect(maps.Keys(left)))
			}
		}
	}

	// Alone, an edit makes a plan that changes something.
	p := plan(t, dir, forced(xstate.FormatXSave))
	was := p.Changed()
	if err := p.Edit("pages-9.img", first); err != nil || was || !p.Changed() {
		t.Errorf("changed %t, then %t: %v", was, p.Changed(), err)
	}
}

// TestEditArchiveOnly checks members that cannot be edited.
func TestEditArchiveOnly(t *testing.T) {
	dir := withPages(t)
	if err := os.Truncate(filepath.Join(dir, "zz-same"), 4<<20); err != nil { // pages-9.img too
		t.Fatal(err)
	}
	for what, args := range map[string][]string{"sparse": {"-S", "."}, "a link": {"./zz-same", "."}} {
		plans := archivePlans(t, writeTemp(t, "x.tar", tarOf(t, dir, args...)), forced(xstate.FormatFXSave))
		if err := plans[0].Edit("pages-9.img", editOf(0, 8)); err != nil {
			t.Fatal(err)
		}
		base := scratch(t)
		if err := convert.WriteArchive(plans, filepath.Join(base, "out"), convert.ArchiveOptions{}); err == nil {
			t.Errorf("%s: no error", what)
		}
		if left, err := os.ReadDir(base); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v %v", what, left, err)
		}
	}
}

// TestVerify has a result looked at before it appears, and nothing is left of one that is
// not right.
func TestVerify(t *testing.T) {
	want := edited()
	wrong := errors.New("not right")
	for how, execute := range executors {
		for _, verdict := range []error{nil, wrong} {
			dir := withPages(t)
			before := contents(t, dir)
			asked := 0
			after, source, err := execute(t, dir, func(p *convert.Plan) {
				if err := p.Edit("pages-9.img", pageEdits()...); err != nil {
					t.Fatal(err)
				}
				p.Verify = func(files codec.Files) error {
					asked++
					r, size, err := files.Open("pages-9.img")
					if err != nil {
						if strings.Contains(how, "archive") { // pages are no part of what is read from one
							return verdict
						}
						return err
					}
					b := make([]byte, size)
					if _, err := r.ReadAt(b, 0); err != nil {
						return err
					}
					if c, ok := r.(io.Closer); ok {
						c.Close()
					}
					if !bytes.Equal(b, want) {
						t.Errorf("%s: it is asked about what is not the result", how)
					}
					if _, err := codec.ReadImage(files, "pstree.img"); err != nil {
						t.Errorf("%s: what does not change: %v", how, err)
					}
					return verdict
				}
			})
			if !errors.Is(err, verdict) || asked != 1 {
				t.Errorf("%s: asked %d times, error %v, want %v", how, asked, err, verdict)
			}
			if verdict != nil && (len(after) > 0 || !maps.Equal(source, before)) {
				t.Errorf("%s: %d files are left; the source has changed: %v", how, len(after), !maps.Equal(source, before))
			}
		}
	}
}
